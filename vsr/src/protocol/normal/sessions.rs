//! The session table: what makes a request execute exactly once (rules 5.1 to 5.5, VRR 4.1 and its
//! errata, hazard D14).
//!
//! The table changes only when an op is applied, in log order, on every replica alike. Each session
//! keeps its floor (every number below it is answered for good) and a mark for each number from the
//! floor on that was executed, with the reply as long as its bytes fit the bounds. A number that is
//! marked, or below the floor, is never executed again, whatever became of the bytes.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::types::account::Account;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::map::FastMap;
use crate::protocol::types::membership::Constants;
use crate::protocol::types::message::{Busy, Outcome, Refusal};
use crate::protocol::types::number::{ClientId, OpNumber, Position, RequestNumber, SessionId};

const INLINE: usize = 22;
const NONE: u32 = u32::MAX;

/// The bytes of a reply. Short ones are kept in place: no allocation, and no batch buffer held alive.
#[derive(Clone, Debug)]
enum ReplyBytes {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Bytes),
}

impl ReplyBytes {
    fn of(reply: &[u8]) -> ReplyBytes {
        if reply.len() <= INLINE {
            let mut bytes = [0; INLINE];
            bytes[..reply.len()].copy_from_slice(reply);
            ReplyBytes::Inline { len: reply.len() as u8, bytes }
        } else {
            ReplyBytes::Heap(Bytes::copy_from_slice(reply))
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            ReplyBytes::Inline { len, bytes } => &bytes[..usize::from(*len)],
            ReplyBytes::Heap(bytes) => bytes,
        }
    }

    fn to_bytes(&self) -> Bytes {
        match self {
            ReplyBytes::Inline { .. } => Bytes::copy_from_slice(self.as_slice()),
            ReplyBytes::Heap(bytes) => bytes.clone(),
        }
    }
}

/// The mark of an executed number.
#[derive(Clone, Debug)]
struct Executed {
    request: Checksum,
    position: Position,
    /// `None` when the bytes had to go, or were over `reply_max`.
    reply: Option<ReplyBytes>,
}

#[derive(Clone, Debug)]
struct Session {
    id: SessionId,
    client: ClientId,
    floor: RequestNumber,
    /// Marks from the floor on.
    executed: VecDeque<Option<Executed>>,
    /// Reply bytes kept in `executed`.
    reply_bytes: u64,
    /// No number below this one still has reply bytes.
    bytes_from: RequestNumber,
    last_used: Position,
    /// Neighbours in order of last use.
    older: u32,
    newer: u32,
}

/// What a request meets in the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Not executed yet, and may be.
    New,
    /// Executed or refused: this is the answer.
    Known(Outcome, Position),
    /// No such session. Evicted, if its position was applied.
    NoSession,
}

/// The table.
#[derive(Clone, Debug)]
pub(crate) struct SessionTable {
    constants: Constants,
    by_id: FastMap<SessionId, u32>,
    by_client: FastMap<ClientId, u32>,
    slab: Vec<Option<Session>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    reply_bytes: u64,
}

impl SessionTable {
    pub(crate) fn new(constants: Constants) -> SessionTable {
        SessionTable {
            constants,
            by_id: FastMap::default(),
            by_client: FastMap::default(),
            slab: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            reply_bytes: 0,
        }
    }

    /// The number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether a request that was sent has been answered, as far as this replica knows.
    pub(crate) fn is_answered(
        &self,
        client: ClientId,
        session: SessionId,
        number: RequestNumber,
        applied: OpNumber,
    ) -> bool {
        if number == RequestNumber(0) {
            return self.by_client.contains_key(&client);
        }
        let Some(known) = self.find(session).and_then(|at| self.get(at)) else {
            return applied >= session.0.op;
        };
        number < known.floor
            || number
                .0
                .checked_sub(known.floor.0)
                .and_then(|at| known.executed.get(at as usize))
                .is_some_and(Option::is_some)
    }

    /// Whose session it is, if it is in the table.
    pub(crate) fn client_of(&self, session: SessionId) -> Option<ClientId> {
        self.find(session).and_then(|at| self.get(at)).map(|session| session.client)
    }

    /// Whether a `Register` at `op` would find a place, as far as can be said before it is applied.
    pub(crate) fn can_register(&self, client: ClientId, op: OpNumber) -> bool {
        self.by_id.len() < self.constants.sessions_max as usize
            || self.by_client.contains_key(&client)
            || self.get(self.oldest).is_some_and(|session| self.is_idle(session, op))
    }

    fn is_idle(&self, session: &Session, op: OpNumber) -> bool {
        op.0.saturating_sub(session.last_used.op.0) >= self.constants.session_idle_min
    }

    /// What an arriving request meets. Changes nothing: the table changes only at apply.
    pub(crate) fn look_up(
        &self,
        session: SessionId,
        number: RequestNumber,
        carried_floor: RequestNumber,
        request: Checksum,
    ) -> Lookup {
        self.find(session).map_or(Lookup::NoSession, |at| self.look_up_at(at, number, carried_floor, request))
    }

    fn look_up_at(&self, at: u32, number: RequestNumber, carried_floor: RequestNumber, request: Checksum) -> Lookup {
        let Some(session) = self.get(at) else { return Lookup::NoSession };
        let floor = session.floor.max(carried_floor.min(number));
        if number < session.floor {
            return Lookup::Known(Outcome::Refused(Refusal::BelowFloor), Position::default());
        }
        if number.0 >= floor.0.saturating_add(self.constants.window.into()) {
            return Lookup::Known(Outcome::Refused(Refusal::BeyondWindow), Position::default());
        }
        match session.executed.get((number.0 - session.floor.0) as usize) {
            Some(Some(executed)) => known(executed, request),
            _ => Lookup::New,
        }
    }

    /// Whether the replies of a session that its client has not yet seen pass half their bound
    /// (rule 5.3): then the primary holds its requests back.
    pub(crate) fn replies_over_budget(&self, session: SessionId, carried_floor: RequestNumber) -> bool {
        let half = u64::from(self.constants.session_replies_max) / 2;
        let Some(session) = self.find(session).and_then(|at| self.get(at)) else { return false };
        if session.reply_bytes <= half {
            return false;
        }
        let skip = carried_floor.0.saturating_sub(session.floor.0) as usize;
        let unseen: u64 = session
            .executed
            .iter()
            .skip(skip)
            .flatten()
            .filter_map(|executed| executed.reply.as_ref())
            .map(|reply| reply.as_slice().len() as u64)
            .sum();
        unseen > half
    }

    /// A `Register` is applied. Repeated, it changes nothing but the time of last use (rule 5.1).
    pub(crate) fn register(&mut self, position: Position, client: ClientId) -> Outcome {
        if let Some(&at) = self.by_client.get(&client) {
            self.touch(at, position);
            return match self.get(at) {
                Some(session) => Outcome::Registered(session.id),
                None => Outcome::Busy(Busy::Sessions),
            };
        }
        if self.by_id.len() >= self.constants.sessions_max as usize && !self.evict_one(position.op) {
            return Outcome::Busy(Busy::Sessions);
        }
        let id = SessionId(position);
        let session = Session {
            id,
            client,
            floor: RequestNumber(1),
            executed: VecDeque::new(),
            reply_bytes: 0,
            bytes_from: RequestNumber(1),
            last_used: position,
            older: NONE,
            newer: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slab[at as usize] = Some(session);
                at
            }
            None => {
                self.slab.push(Some(session));
                (self.slab.len() - 1) as u32
            }
        };
        self.by_id.insert(id, at);
        self.by_client.insert(client, at);
        self.link_newest(at);
        Outcome::Registered(id)
    }

    /// A command is about to be applied: the floor that it carries takes effect, and the table says
    /// whether it executes.
    pub(crate) fn begin(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        carried_floor: RequestNumber,
        request: Checksum,
    ) -> Lookup {
        let Some(at) = self.find(session) else { return Lookup::NoSession };
        let freed = self.get_mut(at).map_or(0, |session| session.raise_floor(carried_floor.min(number)));
        self.reply_bytes -= freed;
        self.look_up_at(at, number, carried_floor, request)
    }

    /// A command was executed: marks it and keeps its reply.
    pub(crate) fn finish(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        request: Checksum,
        position: Position,
        reply: &[u8],
    ) -> bool {
        let Some(at) = self.find(session) else { return false };
        let (reply_max, session_max) = (self.constants.reply_max as usize, self.constants.session_replies_max.into());
        let Some(session) = self.get_mut(at) else { return false };
        let keep = reply.len() <= reply_max;
        let index = (number.0 - session.floor.0) as usize;
        let executed = Some(Executed { request, position, reply: keep.then(|| ReplyBytes::of(reply)) });
        while session.executed.len() < index {
            session.executed.push_back(None);
        }
        match session.executed.get_mut(index) {
            Some(mark) => *mark = executed,
            None => session.executed.push_back(executed),
        }
        let before = session.reply_bytes;
        if keep {
            session.reply_bytes += reply.len() as u64;
            session.bytes_from = session.bytes_from.min(number);
            while session.reply_bytes > session_max && session.drop_oldest_reply() {}
        }
        let after = session.reply_bytes;
        self.reply_bytes = self.reply_bytes + after - before;
        self.touch(at, position);
        self.shrink();
        keep
    }

    /// Takes bytes from the session longest unused, until the table is within its bound.
    fn shrink(&mut self) {
        let mut at = self.oldest;
        while self.reply_bytes > self.constants.table_replies_max && at != NONE {
            let Some(session) = self.get_mut(at) else { return };
            let before = session.reply_bytes;
            let (newer, more) = (session.newer, session.drop_oldest_reply());
            let freed = before - session.reply_bytes;
            self.reply_bytes -= freed;
            if !more {
                at = newer;
            }
        }
    }

    /// Evicts the session longest unused, if it was idle long enough (rule 5.5).
    fn evict_one(&mut self, op: OpNumber) -> bool {
        let at = self.oldest;
        let Some(session) = self.get(at) else { return false };
        if !self.is_idle(session, op) {
            return false;
        }
        let (id, client, bytes) = (session.id, session.client, session.reply_bytes);
        self.unlink(at);
        self.by_id.remove(&id);
        self.by_client.remove(&client);
        self.slab[at as usize] = None;
        self.free.push(at);
        self.reply_bytes -= bytes;
        true
    }

    /// One number for the whole table: equal on replicas that have applied the same ops.
    pub(crate) fn digest(&self) -> Checksum {
        Checksum::of(&self.encode())
    }

    /// Where a session is. Requests come in runs: most are of the session that was used last.
    fn find(&self, id: SessionId) -> Option<u32> {
        if self.get(self.newest).is_some_and(|session| session.id == id) {
            return Some(self.newest);
        }
        self.by_id.get(&id).copied()
    }

    fn get(&self, at: u32) -> Option<&Session> {
        self.slab.get(at as usize)?.as_ref()
    }

    fn get_mut(&mut self, at: u32) -> Option<&mut Session> {
        self.slab.get_mut(at as usize)?.as_mut()
    }

    fn touch(&mut self, at: u32, position: Position) {
        if let Some(session) = self.get_mut(at) {
            session.last_used = position;
        }
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some((older, newer)) = self.get(at).map(|session| (session.older, session.newer)) else { return };
        match self.get_mut(older) {
            Some(session) => session.newer = newer,
            None => self.oldest = newer,
        }
        match self.get_mut(newer) {
            Some(session) => session.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let newest = self.newest;
        if let Some(session) = self.get_mut(at) {
            (session.older, session.newer) = (newest, NONE);
        }
        match self.get_mut(newest) {
            Some(session) => session.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }
}

fn known(executed: &Executed, request: Checksum) -> Lookup {
    if executed.request != request {
        return Lookup::Known(Outcome::Refused(Refusal::Conflict), Position::default());
    }
    let outcome = executed.reply.as_ref().map_or(Outcome::ReplyLost, |reply| Outcome::Reply(reply.to_bytes()));
    Lookup::Known(outcome, executed.position)
}

impl Session {
    /// The floor only grows. Returns the reply bytes that are no longer kept.
    fn raise_floor(&mut self, floor: RequestNumber) -> u64 {
        let mut freed = 0;
        while self.floor < floor {
            match self.executed.pop_front() {
                Some(executed) => {
                    if let Some(Executed { reply: Some(reply), .. }) = executed {
                        freed += reply.as_slice().len() as u64;
                    }
                    self.floor = self.floor.next();
                }
                None => self.floor = floor,
            }
        }
        self.bytes_from = self.bytes_from.max(self.floor);
        self.reply_bytes -= freed;
        freed
    }

    /// The oldest reply loses its bytes, never its mark. False when there was none.
    fn drop_oldest_reply(&mut self) -> bool {
        while let Some(executed) = self.executed.get_mut((self.bytes_from.0 - self.floor.0) as usize) {
            self.bytes_from = self.bytes_from.next();
            if let Some(reply) = executed.as_mut().and_then(|executed| executed.reply.take()) {
                self.reply_bytes -= reply.as_slice().len() as u64;
                return true;
            }
        }
        false
    }
}

impl SessionTable {
    /// The table, counted anew; see [`Core::audit`](crate::protocol::Core::audit). Of the sessions those that are wrong, if any is.
    pub(crate) fn audit(&self) -> Vec<Account> {
        let sessions: Vec<&Session> = self.slab.iter().flatten().collect();
        let (there, bound) = (sessions.len() as u64, self.constants.sessions_max.into());
        let by_use = std::iter::successors(self.get(self.oldest), |session| self.get(session.newer));
        let mut accounts = vec![
            Account { name: "sessions by number", counted: self.by_id.len() as u64, held: there, bound },
            Account { name: "sessions by client", counted: self.by_client.len() as u64, held: there, bound },
            Account {
                name: "sessions in the order of their use",
                counted: by_use.take(sessions.len() + 1).count() as u64,
                held: there,
                bound,
            },
            Account {
                name: "reply bytes of all sessions",
                counted: self.reply_bytes,
                held: sessions.iter().map(|session| session.bytes_there()).sum(),
                bound: self.constants.table_replies_max,
            },
        ];
        for session in sessions {
            let of_one = [
                Account {
                    name: "reply bytes of one session",
                    counted: session.reply_bytes,
                    held: session.bytes_there(),
                    bound: self.constants.session_replies_max.into(),
                },
                Account {
                    name: "marks of one session",
                    counted: session.executed.len() as u64,
                    held: session.executed.len() as u64,
                    bound: self.constants.window.into(),
                },
            ];
            accounts.extend(of_one.into_iter().filter(Account::is_wrong));
        }
        accounts
    }
}

impl Session {
    fn bytes_there(&self) -> u64 {
        let replies = self.executed.iter().flatten().filter_map(|executed| executed.reply.as_ref());
        replies.map(|reply| reply.as_slice().len() as u64).sum()
    }
}

mod saved;
#[cfg(test)]
mod tests;
