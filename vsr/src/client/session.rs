//! The client's side of exactly-once: numbers, the floor, the window, and sending again until answered
//! (rules 5.2, 5.7, 5.8). Without I/O; the replica's own handle and [`Client`](crate::Client) share it.
//!
//! Sending again is bounded: a cluster that is slow, full or gone is not made slower by it.
//!
//! - What the cluster has **refused for now** (`Busy`) is sent again once, when there is reason to think that it is
//!   taken: as fast as others are answered, or, when nothing is, one at a time after pauses that double up to
//!   a second.
//! - What gets **no answer** for longer than answers take now is sent again, of the oldest requests only, and
//!   after times that double.
//! - **Everything** is sent again only when the connection or the primary has changed.
//! - There are never more bytes on their way than the cluster has shown to take, and nothing that is on its way is sent again.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::CodecError;
use crate::config::ConfigError;
use crate::protocol::{
    Busy, CLIENT_PAUSE_MAX, Checksum, ClientId, Monotonic, NEVER, Outcome, Position, Random, Refusal, Reply, Request,
    RequestNumber, SessionId, nanos,
};

/// Why a submit has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many requests, or too many bytes of them, wait here already. Certainly not executed: submit again later.
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
    /// The command is longer than `request_max`: that of the cluster, or that of
    /// [`ClientConfig`](crate::ClientConfig). Certainly not executed.
    #[error(
        "the command is longer than request_max (of the cluster, or of ClientConfig); it was not executed: split it, \
         or raise request_max"
    )]
    TooLarge,
    /// The cluster's state machine cannot decode the command.
    #[error("the command cannot be decoded by the cluster's state machine; it was not executed")]
    Undecodable,
    /// The command has no encoding: it is too deep, or its type refuses. It was not sent.
    #[error("the command has no encoding, and was not sent and not executed: {0}")]
    Encode(#[source] CodecError),
    /// Executed, but the state machine's reply has no encoding; why is in the log of the replicas.
    #[error("the command was executed, and its reply has no encoding: change the type of the reply")]
    Unencodable,
    /// Executed, but the reply is none of the type that is expected here.
    #[error("the command was executed, and its reply does not decode: {0}")]
    Decode(#[source] CodecError),
    /// The log is full, and nothing can be dropped from it. A request that was sent stays: it is executed when
    /// there is room again, or was executed before the log was full.
    #[error(
        "the cluster's log is full; whether the request is executed, now or later, is unknown: give the replicas more \
         room"
    )]
    LogFull,
    /// The client's configuration cannot work. Nothing was sent.
    #[error("the client cannot work: {0}")]
    Config(#[source] ConfigError),
    /// Another client uses this one's id and numbers, with other content.
    #[error("another client uses the same client id; the request was not executed")]
    Conflict,
    /// The replica, or client, has stopped.
    #[error("the replica, or the client, has stopped; whether the request was executed is unknown")]
    Stopped,
}

/// A reply, and where the request stands in the log.
pub(crate) type Submitted = Result<(Bytes, Position), SubmitError>;

#[derive(Debug)]
struct Outstanding<T> {
    command: Bytes,
    /// The cluster has refused it for now: no replica works on it.
    refused: bool,
    sent_at: Monotonic,
    /// How often it was sent again.
    attempts: u32,
    /// The caller that waits; `None` once it was given an error.
    tag: Option<T>,
}

impl<T> Outstanding<T> {
    /// When it is sent again if there is no answer.
    fn due(&self, time_out: Duration, caution: u32) -> Monotonic {
        let doublings = if self.attempts == 0 { caution } else { self.attempts };
        let backed_off = time_out.saturating_mul(1 << doublings.min(DOUBLINGS_MAX));
        // Long commands are worth more patience than short ones.
        let portions = (self.command.len() / PROBE_BYTES + 1).min(60) as u32;
        self.sent_at.after(backed_off.min(RETRY_MAX.saturating_mul(portions).max(time_out)))
    }

    fn weight(&self) -> u64 {
        weight(&self.command)
    }
}

/// The bytes that a request takes on its way, about.
fn weight(command: &Bytes) -> u64 {
    command.len() as u64 + 64
}

/// One session, as its client keeps it. `T` names a request for the caller that waits.
#[derive(Debug)]
pub(crate) struct ClientSession<T> {
    client: ClientId,
    session: Option<SessionId>,
    /// The session whose numbers are being used, also while it is being asked after.
    known: Option<SessionId>,
    /// The last one that was evicted: a late answer must not bring it back.
    evicted: Option<SessionId>,
    window: u64,
    reply_timeout: Duration,
    retry_backoff: Duration,
    /// The number of the first in `outstanding`: everything below it is answered. This is the floor.
    floor: u64,
    /// Sent, from the floor on; `None` is answered.
    outstanding: VecDeque<Option<Outstanding<T>>>,
    in_flight: usize,
    /// How many of those are refused.
    refused: usize,
    /// Bytes of the others: on their way, as far as is known.
    on_the_way: u64,
    /// The most bytes that may be on their way, beside a single request.
    on_the_way_max: u64,
    /// Whether the cluster has not yet shown how many bytes it takes.
    is_growing: bool,
    waiting: VecDeque<(Bytes, T)>,
    /// Callers with a result that is not an answer of the cluster.
    told: Vec<(T, Submitted)>,
    register_due: Monotonic,
    last_used: Monotonic,
    /// Why requests are refused for now, while they are.
    trouble: Option<Busy>,
    /// How often in a row, and until when nothing that was refused is sent.
    holds: u32,
    hold_until: Monotonic,
    /// Something was answered since everything was last sent again.
    has_progressed: bool,
    /// How long answers take now, in nanoseconds: the mean of the last few.
    latency: u64,
    /// `reply_timeout`, in nanoseconds. Answers are many: their arithmetic is that of numbers.
    reply_timeout_nanos: u64,
    /// How often requests were sent again since that was measured: it may be too little.
    caution: u32,
    random: Random,
    /// Nothing has to be looked at before this moment.
    next_due: Monotonic,
    /// No request has gone without an answer for too long before this moment.
    overdue_at: Monotonic,
}

/// A session idle for this long asks whether it is still there before it is used again (rule 5.5).
const IDLE: Duration = Duration::from_secs(60);
/// The longest pause before a short request is sent again. Backups count on it (`protocol::forwards`).
const RETRY_MAX: Duration = CLIENT_PAUSE_MAX;
/// The longest time after which an answer is no longer expected.
const TIME_OUT_MAX_NANOS: u64 = 10_000_000_000;
const DOUBLINGS_MAX: u32 = 10;
const CAUTION_MAX: u32 = 5;
/// This many of the oldest requests are sent again when there is no answer.
const PROBES: usize = 4;
/// The most bytes of them that are sent again at once, unless a single one is longer.
const PROBE_BYTES: usize = 16 << 10;
/// Bytes that may be on their way before the cluster has shown how many it takes.
const ON_THE_WAY_START: u64 = 16 << 20;
/// Bytes that may always be on their way: they are no burden for any cluster.
const ON_THE_WAY_MIN: u64 = 64 << 10;

impl<T> ClientSession<T> {
    /// `reply_timeout` is how long to wait for an answer before the request is sent again, `retry_backoff` how long
    /// after a `Busy`; each the first time.
    pub(crate) fn new(
        client: ClientId,
        window: u32,
        reply_timeout: Duration,
        retry_backoff: Duration,
    ) -> ClientSession<T> {
        ClientSession {
            client,
            session: None,
            known: None,
            evicted: None,
            window: window.into(),
            reply_timeout,
            retry_backoff,
            floor: 1,
            outstanding: VecDeque::new(),
            in_flight: 0,
            refused: 0,
            on_the_way: 0,
            on_the_way_max: ON_THE_WAY_START,
            is_growing: true,
            waiting: VecDeque::new(),
            told: Vec::new(),
            register_due: Monotonic(0),
            last_used: Monotonic(0),
            trouble: None,
            holds: 0,
            hold_until: Monotonic(0),
            has_progressed: true,
            latency: 0,
            reply_timeout_nanos: nanos(reply_timeout),
            caution: 0,
            random: Random::new(client.0 as u64),
            next_due: Monotonic(0),
            overdue_at: NEVER,
        }
    }

    pub(crate) fn submit(&mut self, command: Bytes, tag: T) {
        self.waiting.push_back((command, tag));
        self.next_due = Monotonic(0);
    }

    /// The number of requests without an answer.
    pub(crate) fn pending(&self) -> usize {
        self.in_flight + self.waiting.len()
    }

    /// When [`poll`](Self::poll) wants to be called.
    pub(crate) fn next_due(&self) -> Monotonic {
        if self.pending() == 0 { NEVER } else { self.next_due }
    }

    /// Why requests are refused for now, while they are.
    pub(crate) fn trouble(&self) -> Option<Busy> {
        self.trouble.filter(|_| self.pending() > 0)
    }

    /// Takes the callers with a result that is not an answer of the cluster, since the last call.
    pub(crate) fn take_told(&mut self, settled: &mut Vec<(T, Submitted)>) {
        settled.append(&mut self.told);
    }

    /// The connection or the primary has changed: everything is to be sent again, as fast as it is taken. A change
    /// that may be none (not `is_sure`) counts so only if something was answered since the last.
    pub(crate) fn resend_now(&mut self, now: Monotonic, is_sure: bool) {
        for outstanding in self.outstanding.iter_mut().flatten() {
            outstanding.refused = true;
        }
        (self.refused, self.on_the_way) = (self.in_flight, 0);
        if is_sure || self.has_progressed {
            self.holds = 0;
            self.hold_until = Monotonic(0);
            // Room may have come as well; one request finds out.
            self.trouble = self.trouble.filter(|trouble| *trouble == Busy::LogFull);
        } else {
            if now >= self.hold_until {
                self.hold(Busy::Queue, now);
            }
            self.trouble = self.trouble.or(Some(Busy::NoPrimary));
        }
        self.has_progressed = false;
        self.register_due = self.hold_until;
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
        let resent = self.send_overdue(session, now, requests);
        self.send_refused(session, now, requests);
        self.send_new(session, now, requests);
        // What waits for others to be answered needs no timer.
        self.next_due = self.overdue_at;
        if self.refused > 0 && now < self.hold_until {
            self.next_due = self.next_due.min(self.hold_until);
        }
        resent
    }

    fn poll_register(&mut self, now: Monotonic, requests: &mut Vec<Request>) -> bool {
        let again = self.register_due > Monotonic(0) && now >= self.register_due;
        if now >= self.register_due {
            self.register_due = now.after(self.reply_timeout);
            requests.push(Request {
                client: self.client,
                session: SessionId::default(),
                number: RequestNumber(0),
                floor: RequestNumber(0),
                command: Bytes::new(),
            });
        } else if self.trouble == Some(Busy::LogFull) {
            self.tell_waiting_of_full_log();
        }
        self.next_due = self.register_due;
        again
    }

    /// What was sent and is not answered for longer than it takes: a few of the oldest.
    fn send_overdue(&mut self, session: SessionId, now: Monotonic, requests: &mut Vec<Request>) -> bool {
        if now < self.overdue_at {
            return false;
        }
        let (time_out, caution) = (self.time_out(), self.caution);
        let (client, first, floor) = (self.client, self.floor, RequestNumber(self.floor));
        let (mut looked_at, mut bytes, mut next) = (0, 0, NEVER);
        for (number, outstanding) in (first..).zip(&mut self.outstanding) {
            let Some(outstanding) = outstanding.as_mut().filter(|outstanding| !outstanding.refused) else { continue };
            if looked_at == PROBES {
                break;
            }
            looked_at += 1;
            let command = &outstanding.command;
            if outstanding.due(time_out, caution) <= now && (bytes == 0 || bytes + command.len() <= PROBE_BYTES) {
                bytes += command.len() + 1;
                let (number, command) = (RequestNumber(number), command.clone());
                requests.push(Request { client, session, number, floor, command });
                outstanding.attempts += 1;
                outstanding.sent_at = now;
            }
            next = next.min(outstanding.due(time_out, caution));
        }
        self.overdue_at = next;
        if bytes > 0 {
            // Where one was left out for its length, it has its turn a little later.
            self.overdue_at = next.max(now.after(self.reply_timeout / 4));
            self.caution = (self.caution + 1).min(CAUTION_MAX);
        }
        bytes > 0
    }

    /// What was refused: as fast as others are answered, one at a time while nothing is.
    fn send_refused(&mut self, session: SessionId, now: Monotonic, requests: &mut Vec<Request>) {
        if self.refused == 0 || now < self.hold_until {
            return;
        }
        // While nothing comes through, a single request finds out whether the trouble is over.
        let is_probing = self.trouble.is_some();
        if is_probing && self.in_flight > self.refused {
            return;
        }
        let (client, first, floor) = (self.client, self.floor, RequestNumber(self.floor));
        for (number, outstanding) in (first..).zip(&mut self.outstanding) {
            let Some(outstanding) = outstanding.as_mut().filter(|outstanding| outstanding.refused) else { continue };
            let weight = outstanding.weight();
            if self.on_the_way > 0 && self.on_the_way + weight > self.on_the_way_max {
                break;
            }
            outstanding.refused = false;
            outstanding.attempts += 1;
            outstanding.sent_at = now;
            self.refused -= 1;
            self.on_the_way += weight;
            let (number, command) = (RequestNumber(number), outstanding.command.clone());
            requests.push(Request { client, session, number, floor, command });
            if is_probing || self.refused == 0 {
                break;
            }
        }
        self.overdue_at = self.overdue_at.min(self.timed_out_at(now));
    }

    /// What was never sent. It waits behind what was refused, unless the log is full: then its caller shall
    /// hear so.
    fn send_new(&mut self, session: SessionId, now: Monotonic, requests: &mut Vec<Request>) {
        let is_full = self.trouble == Some(Busy::LogFull);
        if self.waiting.is_empty() || (self.refused > 0 && !is_full) {
            return;
        }
        let floor = RequestNumber(self.floor);
        while (self.outstanding.len() as u64) < self.window {
            let Some((command, _)) = self.waiting.front() else { break };
            let weight = weight(command);
            if self.on_the_way > 0 && self.on_the_way + weight > self.on_the_way_max {
                break;
            }
            let Some((command, tag)) = self.waiting.pop_front() else { break };
            let number = RequestNumber(self.floor + self.outstanding.len() as u64);
            requests.push(Request { client: self.client, session, number, floor, command: command.clone() });
            let sent = Outstanding { command, refused: false, sent_at: now, attempts: 0, tag: Some(tag) };
            self.outstanding.push_back(Some(sent));
            self.in_flight += 1;
            self.on_the_way += weight;
        }
        self.overdue_at = self.overdue_at.min(self.timed_out_at(now));
        if is_full && self.outstanding.len() as u64 >= self.window {
            self.tell_waiting_of_full_log();
        }
    }

    fn time_out(&self) -> Duration {
        Duration::from_nanos(self.time_out_nanos())
    }

    fn time_out_nanos(&self) -> u64 {
        self.latency.saturating_mul(2).min(TIME_OUT_MAX_NANOS).max(self.reply_timeout_nanos)
    }

    /// When an answer to what is sent `now` has taken too long.
    fn timed_out_at(&self, now: Monotonic) -> Monotonic {
        now.after_nanos(self.time_out_nanos())
    }

    /// They were never sent: nothing of them is executed.
    fn tell_waiting_of_full_log(&mut self) {
        self.told.extend(self.waiting.drain(..).map(|(_, tag)| (tag, Err(SubmitError::LogFull))));
    }

    /// An answer has arrived. `settled` receives who waited for it, and with what result; several at
    /// once when the session is gone.
    pub(crate) fn on_reply(&mut self, reply: Reply, now: Monotonic, settled: &mut Vec<(T, Submitted)>) {
        if reply.client != self.client {
            return;
        }
        if reply.number == RequestNumber(0) {
            self.on_register_reply(&reply.outcome, now);
            return self.take_told(settled);
        }
        if Some(reply.session) != self.session || self.is_anothers(&reply) {
            return;
        }
        let result = match reply.outcome {
            Outcome::Reply(bytes) => Ok((bytes, reply.position)),
            Outcome::ReplyLost => Err(SubmitError::ReplyLost),
            Outcome::Busy(Busy::LogFull) => {
                // It may be in the log already, under a primary that has not applied it yet: the number is
                // not given up, only the waiting is (rule 5.8).
                self.on_busy(reply.number, Busy::LogFull, now);
                // Those that were refused for another reason wait behind it, and are in the same case.
                let refused = self.outstanding.iter_mut().flatten().filter(|outstanding| outstanding.refused);
                let tags = refused.filter_map(|outstanding| outstanding.tag.take());
                settled.extend(tags.map(|tag| (tag, Err(SubmitError::LogFull))));
                return;
            }
            Outcome::Busy(busy) => return self.on_busy(reply.number, busy, now),
            Outcome::Refused(Refusal::Evicted) => return self.on_evicted(settled),
            Outcome::Refused(Refusal::Conflict) => Err(SubmitError::Conflict),
            Outcome::Refused(Refusal::TooLarge) => Err(SubmitError::TooLarge),
            Outcome::Refused(Refusal::Undecodable) => Err(SubmitError::Undecodable),
            Outcome::Refused(Refusal::BeyondWindow | Refusal::Busy) => {
                return self.on_busy(reply.number, Busy::Queue, now);
            }
            // The floor passes only what is answered: an old copy, or another client uses this session.
            Outcome::Refused(Refusal::BelowFloor) => Err(SubmitError::TimedOut),
            Outcome::Registered(_)
            | Outcome::Refused(Refusal::Panicked | Refusal::AnswerTooLarge | Refusal::Unencodable) => return,
        };
        self.settle(reply.number, result, now, settled);
    }

    /// Whether it answers another command than the one that was sent under its number: another client uses this id, and a
    /// transport cannot tell the two apart (rule 5.2: no client ever sees another's reply). What is said of the number or the
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
                self.has_come_through();
                self.next_due = Monotonic(0);
            }
            Outcome::Busy(busy) if self.session.is_none() => {
                self.trouble = Some(*busy);
                self.holds = (self.holds + 1).min(DOUBLINGS_MAX);
                let first = if *busy == Busy::NoPrimary { self.retry_backoff } else { self.reply_timeout };
                self.register_due = now.after(self.backed_off(first, *busy));
                self.next_due = self.register_due.min(self.next_due);
                if *busy == Busy::LogFull {
                    self.tell_waiting_of_full_log();
                }
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
        let Some(outstanding) = self.slot(number) else { return };
        let weight = outstanding.weight();
        if !std::mem::replace(&mut outstanding.refused, true) {
            self.refused += 1;
            self.on_the_way = self.on_the_way.saturating_sub(weight);
        }
        if matches!(busy, Busy::Queue | Busy::Replies) {
            // What is still on the way is what is taken.
            self.on_the_way_max = self.on_the_way_max.min(self.on_the_way).max(ON_THE_WAY_MIN);
            self.is_growing = false;
        }
        self.trouble = Some(busy);
        // Those that were refused together count as once.
        if now >= self.hold_until {
            self.hold(busy, now);
        }
        self.next_due = self.next_due.min(self.hold_until);
        if self.trouble == Some(Busy::LogFull) && !self.waiting.is_empty() {
            self.next_due = Monotonic(0);
        }
    }

    /// Nothing that was refused is sent for a while, and longer each time.
    fn hold(&mut self, busy: Busy, now: Monotonic) {
        self.holds = (self.holds + 1).min(DOUBLINGS_MAX);
        let first = if busy == Busy::NoPrimary { self.retry_backoff } else { self.retry_backoff * 4 };
        self.hold_until = now.after(self.backed_off(first, busy));
    }

    /// The pause of this hold: doubled with each, and a little shorter at random, so that clients do not keep step.
    fn backed_off(&mut self, first: Duration, busy: Busy) -> Duration {
        // A client that is told that there is no primary learns of the next one by asking.
        let longest = if busy == Busy::NoPrimary { self.reply_timeout / 2 } else { RETRY_MAX };
        let pause = first.saturating_mul(1 << self.holds.saturating_sub(1).min(DOUBLINGS_MAX));
        let pause = pause.min(longest.max(first));
        let jitter = self.random.below(u64::try_from(pause.as_nanos() / 4).unwrap_or(u64::MAX));
        pause.saturating_sub(Duration::from_nanos(jitter))
    }

    /// The cluster has taken something: no trouble any more.
    fn has_come_through(&mut self) {
        self.trouble = None;
        self.holds = 0;
        self.hold_until = Monotonic(0);
        self.has_progressed = true;
    }

    fn on_evicted(&mut self, settled: &mut Vec<(T, Submitted)>) {
        self.evicted = self.session.take().max(self.evicted);
        self.known = None;
        self.register_due = Monotonic(0);
        self.next_due = Monotonic(0);
        (self.in_flight, self.refused, self.on_the_way) = (0, 0, 0);
        let outstanding = std::mem::take(&mut self.outstanding);
        let tags = outstanding.into_iter().flatten().filter_map(|gone| gone.tag);
        settled.extend(tags.map(|tag| (tag, Err(SubmitError::Evicted))));
    }

    fn slot(&mut self, number: RequestNumber) -> Option<&mut Outstanding<T>> {
        let at = usize::try_from(number.0.checked_sub(self.floor)?).ok()?;
        self.outstanding.get_mut(at)?.as_mut()
    }

    fn settle(&mut self, number: RequestNumber, result: Submitted, now: Monotonic, settled: &mut Vec<(T, Submitted)>) {
        let Some(at) = number.0.checked_sub(self.floor) else { return };
        let Some(answered) = self.outstanding.get_mut(at as usize).and_then(Option::take) else { return };
        self.in_flight -= 1;
        let weight = answered.weight();
        if answered.refused {
            self.refused -= 1;
        } else {
            self.on_the_way = self.on_the_way.saturating_sub(weight);
        }
        if answered.attempts == 0 {
            // Of one that was sent twice it is unknown which copy was answered.
            self.latency = self.latency.saturating_mul(7).saturating_add(now.nanos_since(answered.sent_at)) / 8;
            self.caution = 0;
        }
        // It was taken: a little more may be on the way, twice as much until something is refused.
        let more = if self.is_growing { weight } else { weight / 8 };
        self.on_the_way_max = self.on_the_way_max.saturating_add(more);
        self.has_come_through();
        let floor = self.floor;
        while self.outstanding.front().is_some_and(Option::is_none) {
            self.outstanding.pop_front();
            self.floor += 1;
        }
        if self.floor > floor && self.in_flight > self.refused {
            self.overdue_at = self.overdue_at.min(self.timed_out_at(now));
        }
        if self.refused > 0 || !self.waiting.is_empty() {
            self.next_due = Monotonic(0);
        }
        self.next_due = self.next_due.min(self.overdue_at);
        settled.extend(answered.tag.map(|tag| (tag, result)));
    }

    /// Everything that waits, when there will be no answer any more.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        (self.in_flight, self.refused, self.on_the_way) = (0, 0, 0);
        let sent = std::mem::take(&mut self.outstanding).into_iter().flatten().filter_map(|gone| gone.tag);
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|(_, tag)| tag);
        sent.chain(waiting).collect()
    }
}

#[cfg(test)]
mod tests;
