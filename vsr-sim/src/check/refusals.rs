//! Each refusal has a reason (hazards I11, CL-15; rules 5.2, 5.8).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use vsr::protocol::{Busy, Message, Outcome, Refusal, Reply, Request, RequestNumber, SessionId};
use vsr::{ClientId, QueryError, SubmitError};

use super::{Checker, Interests, Observation, Scene, Unheard};

/// A client that keeps the rules hears of no conflict, and of nothing that cannot be decoded; of an eviction, a lost reply or a full
/// log only when a replica has said so; of a time-out only when its time is over. And what is refused as too long is.
#[derive(Debug, Default)]
pub(super) struct RefusalsHaveACause {
    /// What was said to each client, bit by bit.
    said: BTreeMap<ClientId, u8>,
    /// Requests that are longer than `request_max`.
    too_long: BTreeSet<(ClientId, RequestNumber)>,
}

const EVICTED: u8 = 1;
const REPLY_LOST: u8 = 1 << 1;
const LOG_FULL: u8 = 1 << 2;
const ANSWER_TOO_LARGE: u8 = 1 << 3;

impl RefusalsHaveACause {
    /// `by`: the replica that tells it; what an impostor was asked is not observed.
    fn is_told(&mut self, by: Option<usize>, reply: &Reply) -> Result<(), String> {
        let bit = match reply.outcome {
            Outcome::Refused(Refusal::Evicted) => EVICTED,
            Outcome::ReplyLost => REPLY_LOST,
            Outcome::Busy(Busy::LogFull) => LOG_FULL,
            Outcome::Refused(Refusal::TooLarge)
                if let Some(replica) = by
                    && !self.too_long.contains(&(reply.client, reply.number)) =>
            {
                let Reply { client, number, .. } = reply;
                return Err(format!("r{replica} tells {client} that its request {number} is too long, it is not"));
            }
            _ => return Ok(()),
        };
        *self.said.entry(reply.client).or_default() |= bit;
        Ok(())
    }

    fn arrives(&mut self, scene: &Scene<'_>, requests: &[Request]) {
        let longest = scene.disks.first().map_or(u32::MAX, |disk| disk.state().membership.constants.request_max);
        let too_long = requests.iter().filter(|request| request.command.len() > longest as usize);
        self.too_long.extend(too_long.map(|request| (request.client, request.number)));
    }

    fn has_said(&self, client: Option<ClientId>, bit: u8) -> bool {
        // What a replica tells its own handle is not observed.
        client.is_none_or(|client| self.said.get(&client).is_some_and(|said| said & bit != 0))
    }

    /// Whether a refusal has a cause.
    fn is_warranted(&self, client: Option<ClientId>, why: Unheard<'_>, is_over: bool) -> bool {
        match why {
            Unheard::Command(error) => match error {
                SubmitError::Conflict | SubmitError::Undecodable | SubmitError::Config(_) => false,
                SubmitError::TimedOut => is_over,
                SubmitError::Evicted => self.has_said(client, EVICTED),
                SubmitError::ReplyLost => self.has_said(client, REPLY_LOST),
                SubmitError::LogFull => self.has_said(client, LOG_FULL),
                // A replica that stops takes its handles with it; clients are not stopped.
                SubmitError::Stopped => client.is_none(),
                _ => true,
            },
            Unheard::Query(error) => match error {
                QueryError::Config(_) => false,
                QueryError::TimedOut => is_over,
                QueryError::AnswerTooLarge => self.has_said(client, ANSWER_TOO_LARGE),
                QueryError::Stopped => client.is_none(),
                _ => true,
            },
        }
    }
}

impl Checker for RefusalsHaveACause {
    fn name(&self) -> &'static str {
        "refusals-have-a-cause"
    }

    fn wants(&self) -> Interests {
        Interests::ANSWERS | Interests::RECEIVED | Interests::REFUSED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Received { message: Message::Requests { requests, .. }, .. } => self.arrives(scene, requests),
            Observation::Sent { replica, message: Message::Replies { replies, .. } } => {
                return replies.iter().try_for_each(|reply| self.is_told(Some(replica), reply));
            }
            Observation::ByImpostor { message: Message::Replies { replies, .. } } => {
                return replies.iter().try_for_each(|reply| self.is_told(None, reply));
            }
            Observation::Sent {
                message: Message::Answer { client, answer: Err(Refusal::AnswerTooLarge), .. }, ..
            } => *self.said.entry(*client).or_default() |= ANSWER_TOO_LARGE,
            Observation::Refused { client, why, waited, limit } => {
                // A clock may be half as fast as another.
                let is_over = limit.is_some_and(|limit| waited >= limit / 2);
                if !self.is_warranted(client, why, is_over) {
                    let who = client.map_or("the handle of a replica".to_owned(), |client| client.to_string());
                    let millis = waited / 1_000_000;
                    return Err(format!("{who} hears after {millis} ms that {why}, and there is no cause for it"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a client that keeps the rules sends: numbers within its window, a floor that passes only what was answered and never goes
/// back, one content for each number, and no session that it has left.
#[derive(Debug, Default)]
pub(super) struct ClientsKeepTheirRule {
    clients: BTreeMap<ClientId, Asking>,
}

#[derive(Debug, Default)]
struct Asking {
    session: SessionId,
    floor: u64,
    /// What was sent under each number from the floor on.
    sent: VecDeque<Option<Sent>>,
}

#[derive(Debug)]
struct Sent {
    command: Bytes,
    /// A final outcome was sent.
    answered: bool,
}

impl Asking {
    fn asks(&mut self, request: &Request, window: u64) -> Result<(), String> {
        let Request { client, session, number, floor, ref command } = *request;
        if session < self.session {
            return Err(format!("{client} asks under session {session}, after session {}", self.session));
        }
        if session > self.session {
            *self = Asking { session, floor: floor.0, ..Asking::default() };
        }
        if floor.0 < self.floor || number < floor || number.0 - floor.0 >= window {
            let known = self.floor;
            return Err(format!(
                "{client} asks under number {number} with floor {floor} and window {window}, its floor was {known}"
            ));
        }
        while self.floor < floor.0 {
            if let Some(Some(Sent { answered: false, .. })) = self.sent.pop_front() {
                let passed = self.floor;
                return Err(format!("{client} raises its floor to {floor}, number {passed} was not answered"));
            }
            self.floor += 1;
        }
        let at = (number.0 - self.floor) as usize;
        if self.sent.len() <= at {
            self.sent.resize_with(at + 1, || None);
        }
        match &self.sent[at] {
            Some(before) if before.command != *command => {
                let (len, before) = (command.len(), before.command.len());
                Err(format!("{client} asks {len} bytes under number {number}, which were {before} others before"))
            }
            Some(_) => Ok(()),
            None => {
                self.sent[at] = Some(Sent { command: command.clone(), answered: false });
                Ok(())
            }
        }
    }

    fn is_answered(&mut self, reply: &Reply) {
        let is_final = !matches!(reply.outcome, Outcome::Busy(_) | Outcome::Registered(_));
        if is_final
            && reply.session == self.session
            && let Some(at) = reply.number.0.checked_sub(self.floor)
            && let Some(Some(sent)) = self.sent.get_mut(at as usize)
        {
            sent.answered = true;
        }
    }
}

impl Checker for ClientsKeepTheirRule {
    fn name(&self) -> &'static str {
        "clients-keep-their-rule"
    }

    fn wants(&self) -> Interests {
        Interests::ASKED | Interests::ANSWERS
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Asked { requests } => {
                let window = scene.disks.first().map_or(u32::MAX, |disk| disk.state().membership.constants.window);
                for request in requests.iter().filter(|request| request.number > RequestNumber(0)) {
                    self.clients.entry(request.client).or_default().asks(request, window.into())?;
                }
            }
            Observation::Sent { message: Message::Replies { replies, .. }, .. }
            | Observation::ByImpostor { message: Message::Replies { replies, .. } } => {
                for reply in replies {
                    if let Some(asking) = self.clients.get_mut(&reply.client) {
                        asking.is_answered(reply);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
