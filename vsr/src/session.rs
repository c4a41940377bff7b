//! The client's side of exactly-once: numbers, the floor, the window, and sending again until answered
//! (DESIGN 5.2, 5.7, 5.8). Without I/O; the replica's own handle and [`Client`](crate::Client) share it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::{
    Busy, Checksum, ClientId, Monotonic, Outcome, Position, Refusal, Reply, Request, RequestNumber, SessionId,
};

/// Why a submit has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many requests wait here already. Certainly not executed: submit again later.
    #[error("too many requests are waiting; this one was not sent and not executed")]
    Busy,
    /// The deadline has passed. The request may or may not be executed, now or later; it is never sent
    /// under another session.
    #[error("no reply before the deadline; whether the request is executed is unknown")]
    TimedOut,
    /// The session was evicted while the request was in flight.
    #[error("the session was evicted; whether the request was executed is unknown")]
    Evicted,
    /// Executed, but the reply is no longer kept, or was over `reply_max`.
    #[error("the request was executed, but its reply was too large or is no longer kept")]
    ReplyLost,
    /// The command is longer than the cluster's `request_max`.
    #[error("the command is longer than the cluster's request_max; it was not executed")]
    TooLarge,
    /// The cluster's state machine cannot decode the command.
    #[error("the command cannot be decoded by the cluster's state machine; it was not executed")]
    Undecodable,
    /// The command, or the reply, does not fit its type.
    #[error("a value cannot be encoded or decoded: {0}")]
    Codec(String),
    /// The log is full, and nothing can be dropped from it. The request stays: it is executed when there is
    /// room again, or was executed before the log was full.
    #[error("the cluster's log is full; whether the request is executed, now or later, is unknown")]
    LogFull,
    /// Another client uses this one's id and numbers, with other content.
    #[error("another client uses the same client id; the request was not executed")]
    Conflict,
    /// The replica, or client, has stopped.
    #[error("the replica has stopped; whether the request was executed is unknown")]
    Stopped,
}

/// A reply, and where the request stands in the log.
pub(crate) type Submitted = Result<(Bytes, Position), SubmitError>;

#[derive(Debug)]
struct Outstanding<T> {
    command: Bytes,
    /// When to send it (again).
    due: Monotonic,
    /// Who waits; nobody any more once an error was given.
    tag: Option<T>,
}

/// One session, as its client keeps it. `T` tells the requests apart for whoever waits.
#[derive(Debug)]
pub(crate) struct ClientSession<T> {
    client: ClientId,
    session: Option<SessionId>,
    /// The session whose numbers are being used, also while it is being asked after.
    known: Option<SessionId>,
    /// The last one that was evicted: a late answer must not bring it back.
    evicted: Option<SessionId>,
    window: u64,
    patience: Duration,
    pause: Duration,
    /// The number of the first in `outstanding`: everything below it is answered. This is the floor.
    floor: u64,
    /// Sent, from the floor on; `None` is answered.
    outstanding: VecDeque<Option<Outstanding<T>>>,
    in_flight: usize,
    waiting: VecDeque<(Bytes, T)>,
    register_due: Monotonic,
    last_used: Monotonic,
    /// Nothing has to be looked at before this moment.
    next_due: Monotonic,
    /// No request in flight has to be sent again before this moment.
    resend_due: Monotonic,
}

/// A session idle for this long asks whether it is still there before it is used again (DESIGN 5.5).
const IDLE: Duration = Duration::from_secs(60);

impl<T> ClientSession<T> {
    /// `patience` is how long an answer is waited for before the request is sent again, `pause` how long
    /// after a `Busy`.
    pub(crate) fn new(client: ClientId, window: u32, patience: Duration, pause: Duration) -> ClientSession<T> {
        ClientSession {
            client,
            session: None,
            known: None,
            evicted: None,
            window: window.into(),
            patience,
            pause,
            floor: 1,
            outstanding: VecDeque::new(),
            in_flight: 0,
            waiting: VecDeque::new(),
            register_due: Monotonic(0),
            last_used: Monotonic(0),
            next_due: Monotonic(0),
            resend_due: Monotonic(0),
        }
    }

    pub(crate) fn submit(&mut self, command: Bytes, tag: T) {
        self.waiting.push_back((command, tag));
        self.next_due = Monotonic(0);
    }

    /// Requests that nobody has an answer to yet.
    pub(crate) fn pending(&self) -> usize {
        self.in_flight + self.waiting.len()
    }

    /// When [`poll`](Self::poll) wants to be called.
    pub(crate) fn next_due(&self) -> Monotonic {
        if self.pending() == 0 { Monotonic(u64::MAX) } else { self.next_due }
    }

    /// Everything in flight is sent again at the next poll: the primary has changed.
    pub(crate) fn hurry(&mut self) {
        for outstanding in self.outstanding.iter_mut().flatten() {
            outstanding.due = Monotonic(0);
        }
        self.register_due = Monotonic(0);
        self.resend_due = Monotonic(0);
        self.next_due = Monotonic(0);
    }

    /// What is to be sent now. Returns whether any of it was sent before, and not answered.
    pub(crate) fn poll(&mut self, now: Monotonic, requests: &mut Vec<Request>) -> bool {
        if now < self.next_due || self.pending() == 0 {
            return false;
        }
        if self.in_flight == 0 && self.session.is_some() && now.since(self.last_used) > IDLE {
            self.session = None;
            self.register_due = Monotonic(0);
        }
        let Some(session) = self.session else { return self.poll_register(now, requests) };
        self.last_used = now;
        let mut resent = false;
        let again = now.after(self.patience);
        let floor = RequestNumber(self.floor);
        let request = |number, command| Request { client: self.client, session, number, floor, command };
        if now >= self.resend_due {
            self.resend_due = again;
            for (at, outstanding) in self.outstanding.iter_mut().enumerate() {
                let Some(outstanding) = outstanding else { continue };
                if outstanding.due <= now {
                    resent |= outstanding.due > Monotonic(0);
                    outstanding.due = again;
                    requests.push(request(RequestNumber(self.floor + at as u64), outstanding.command.clone()));
                }
                self.resend_due = self.resend_due.min(outstanding.due);
            }
        }
        while (self.outstanding.len() as u64) < self.window {
            let Some((command, tag)) = self.waiting.pop_front() else { break };
            let number = RequestNumber(self.floor + self.outstanding.len() as u64);
            requests.push(request(number, command.clone()));
            self.outstanding.push_back(Some(Outstanding { command, due: again, tag: Some(tag) }));
            self.in_flight += 1;
        }
        self.resend_due = self.resend_due.min(again);
        self.next_due = self.resend_due;
        resent
    }

    fn poll_register(&mut self, now: Monotonic, requests: &mut Vec<Request>) -> bool {
        let again = self.register_due > Monotonic(0) && now >= self.register_due;
        if now >= self.register_due {
            self.register_due = now.after(self.patience);
            requests.push(Request {
                client: self.client,
                session: SessionId::default(),
                number: RequestNumber(0),
                floor: RequestNumber(0),
                command: Bytes::new(),
            });
        }
        self.next_due = self.register_due;
        again
    }

    /// An answer has arrived. `settled` receives who waited for it, and with what result; several at
    /// once when the session is gone.
    pub(crate) fn on_reply(&mut self, reply: Reply, now: Monotonic, settled: &mut Vec<(T, Submitted)>) {
        if reply.client != self.client {
            return;
        }
        if reply.number == RequestNumber(0) {
            return self.on_register_reply(&reply.outcome, now);
        }
        if Some(reply.session) != self.session || self.is_anothers(&reply) {
            return;
        }
        let result = match reply.outcome {
            Outcome::Reply(bytes) => Ok((bytes, reply.position)),
            Outcome::ReplyLost => Err(SubmitError::ReplyLost),
            Outcome::Busy(Busy::LogFull) => {
                // It may be in the log already, under a primary that has not applied it yet: the number is
                // not given up, only the waiting is (DESIGN 5.8).
                self.on_busy(reply.number, Busy::LogFull, now);
                let tag = self.slot(reply.number).and_then(|outstanding| outstanding.tag.take());
                settled.extend(tag.map(|tag| (tag, Err(SubmitError::LogFull))));
                return;
            }
            Outcome::Busy(busy) => return self.on_busy(reply.number, busy, now),
            Outcome::Refused(Refusal::Evicted) => return self.on_evicted(settled),
            Outcome::Refused(Refusal::Conflict) => Err(SubmitError::Conflict),
            Outcome::Refused(Refusal::TooLarge) => Err(SubmitError::TooLarge),
            Outcome::Refused(Refusal::Undecodable) => Err(SubmitError::Undecodable),
            Outcome::Refused(Refusal::BeyondWindow) => return self.on_busy(reply.number, Busy::Queue, now),
            // The floor passes only what is answered: an old copy, or somebody else uses this session.
            Outcome::Refused(Refusal::BelowFloor) => Err(SubmitError::TimedOut),
            Outcome::Registered(_) => return,
        };
        self.settle(reply.number, result, settled);
    }

    /// Whether it answers another command than the one that was sent under its number: somebody else uses this id, and a
    /// transport cannot tell the two apart (DESIGN 5.2: nobody ever sees another's reply). What is said of the number or the
    /// session, whatever was sent, concerns both.
    fn is_anothers(&mut self, reply: &Reply) -> bool {
        let of_the_command = match reply.outcome {
            Outcome::Reply(_) | Outcome::ReplyLost => true,
            Outcome::Refused(refusal) => {
                matches!(refusal, Refusal::Conflict | Refusal::TooLarge | Refusal::Undecodable)
            }
            Outcome::Registered(_) | Outcome::Busy(_) => false,
        };
        of_the_command && self.slot(reply.number).is_some_and(|sent| Checksum::of(&sent.command) != reply.request)
    }

    fn on_register_reply(&mut self, outcome: &Outcome, now: Monotonic) {
        match outcome {
            // An older one is a late answer to an earlier Register.
            Outcome::Registered(session)
                if self.session.is_none() && self.evicted.is_none_or(|gone| *session > gone) =>
            {
                if self.in_flight == 0 {
                    self.floor_for(*session);
                }
                self.session = Some(*session);
                self.last_used = now;
                self.next_due = Monotonic(0);
            }
            Outcome::Busy(busy) => {
                let pause = if *busy == Busy::NoPrimary { self.pause } else { self.patience };
                self.register_due = now.after(pause);
                self.next_due = self.register_due.min(self.next_due);
            }
            _ => {}
        }
    }

    /// Numbers start at 1 in a new session and go on in one that was only asked after.
    fn floor_for(&mut self, session: SessionId) {
        if self.known != Some(session) {
            self.known = Some(session);
            self.floor = 1;
            self.outstanding.clear();
        }
    }

    fn on_busy(&mut self, number: RequestNumber, busy: Busy, now: Monotonic) {
        let pause = match busy {
            Busy::NoPrimary => self.pause,
            Busy::LogFull => self.patience,
            _ => self.pause * 4,
        };
        if let Some(outstanding) = self.slot(number) {
            outstanding.due = now.after(pause);
            let due = outstanding.due;
            self.resend_due = self.resend_due.min(due);
            self.next_due = self.next_due.min(due);
        }
    }

    fn on_evicted(&mut self, settled: &mut Vec<(T, Submitted)>) {
        self.evicted = self.session.take().max(self.evicted);
        self.known = None;
        self.register_due = Monotonic(0);
        self.next_due = Monotonic(0);
        self.in_flight = 0;
        let outstanding = std::mem::take(&mut self.outstanding);
        let tags = outstanding.into_iter().flatten().filter_map(|gone| gone.tag);
        settled.extend(tags.map(|tag| (tag, Err(SubmitError::Evicted))));
    }

    fn slot(&mut self, number: RequestNumber) -> Option<&mut Outstanding<T>> {
        let at = usize::try_from(number.0.checked_sub(self.floor)?).ok()?;
        self.outstanding.get_mut(at)?.as_mut()
    }

    fn settle(&mut self, number: RequestNumber, result: Submitted, settled: &mut Vec<(T, Submitted)>) {
        let Some(at) = number.0.checked_sub(self.floor) else { return };
        let Some(answered) = self.outstanding.get_mut(at as usize).and_then(Option::take) else { return };
        self.in_flight -= 1;
        while self.outstanding.front().is_some_and(Option::is_none) {
            self.outstanding.pop_front();
            self.floor += 1;
        }
        if !self.waiting.is_empty() {
            self.next_due = Monotonic(0);
        }
        settled.extend(answered.tag.map(|tag| (tag, result)));
    }

    /// Everything that waits, when there will be no answer any more.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.in_flight = 0;
        let sent = std::mem::take(&mut self.outstanding).into_iter().flatten().filter_map(|gone| gone.tag);
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|(_, tag)| tag);
        sent.chain(waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two clients of one id use the same numbers, and a transport gives either what is for both.
    #[test]
    fn what_answers_anothers_command_under_the_same_number_is_not_taken() {
        let (client, now) = (ClientId(7), Monotonic(1));
        let session = SessionId(Position { op: crate::protocol::OpNumber(3), index: 0 });
        let mut own = ClientSession::new(client, 4, Duration::from_millis(100), Duration::from_millis(5));
        let (mut requests, mut settled) = (Vec::new(), Vec::new());
        own.submit(Bytes::from_static(b"mine"), 'a');
        let _ = own.poll(now, &mut requests);
        let reply = |number, outcome, command: &[u8]| Reply {
            client,
            session: if number == 0 { SessionId::default() } else { session },
            number: RequestNumber(number),
            outcome,
            position: Position::default(),
            request: Checksum::of(command),
        };
        own.on_reply(reply(0, Outcome::Registered(session), b""), now, &mut settled);
        let _ = own.poll(now, &mut requests);
        assert_eq!(requests.last().map(|request| request.number), Some(RequestNumber(1)));
        for outcome in [
            Outcome::Reply(Bytes::from_static(b"for another")),
            Outcome::ReplyLost,
            Outcome::Refused(Refusal::Conflict),
            Outcome::Refused(Refusal::Undecodable),
        ] {
            own.on_reply(reply(1, outcome, b"another's"), now, &mut settled);
        }
        assert!(settled.is_empty(), "{settled:?}");
        own.on_reply(reply(1, Outcome::Refused(Refusal::Conflict), b"mine"), now, &mut settled);
        assert_eq!(settled, [('a', Err(SubmitError::Conflict))]);
    }
}
