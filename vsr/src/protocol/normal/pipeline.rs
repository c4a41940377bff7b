//! Requests at the primary: what becomes of each that arrives, and of those that wait, the queue and the pipeline (rules 5.2, 5.12
//! to 5.14).
//!
//! Invariants:
//! - A request is in the queue or in the pipeline at most once; a further copy of it joins the first, and its sender is answered too.
//! - What is marked as in flight is in the queue or in the pipeline, and the bytes of the queue are those of what is in it.
//! - The decision about a request changes nothing: the session table changes at apply only (rule 5.3).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::sessions::{Lookup, SessionTable};
use crate::protocol::log::log::Log;
use crate::protocol::log::writes::Writes;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::{BodyBuilder, Entry, RequestKind};
use crate::protocol::types::limits::disk_bytes;
use crate::protocol::types::map::FastMap;
use crate::protocol::types::membership::Constants;
use crate::protocol::types::message::{Busy, Outcome, Peer, Refusal, Reply, Request};
use crate::protocol::types::number::{ClientId, CommitNumber, OpNumber, Position, RequestNumber, SessionId};
use crate::protocol::types::options::Options;

/// Who waits for the answer to a request; `None` is the replica's own handle.
pub(crate) type Origin = Option<Peer>;

/// A request that waits for a place in the pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) request: Request,
    pub(crate) origin: Origin,
}

impl Queued {
    /// Bytes that it will take in the body of an op. A `Register` carries its client there.
    pub(crate) fn encoded_len(&self) -> usize {
        let is_register = self.request.number == RequestNumber(0);
        BodyBuilder::encoded_len(if is_register { size_of::<ClientId>() } else { self.request.command.len() })
    }
}

/// Where a request in the queue or the pipeline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFlight {
    request: Checksum,
    /// Who sent the first copy.
    origin: Origin,
    /// 0 while it is queued.
    op: OpNumber,
    index: u32,
}

/// An op of the pipeline, and who waits for its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct PreparedOp {
    pub(crate) op: OpNumber,
    /// The client and the origin of each request, in order. Those of an inherited op are [`INHERITED`], and there are none if its
    /// body is not in memory.
    pub(crate) origins: Vec<(ClientId, Origin)>,
    /// Further copies of a request that came while it was in flight.
    pub(crate) extra: BTreeMap<u32, Vec<Origin>>,
}

/// What a replica keeps while it is primary.
#[derive(Clone, Debug)]
pub(crate) struct Primary {
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queue_bytes: usize,
    /// Requests in the queue and in the pipeline: rebuilt from the log whenever a view starts, never
    /// taken over from another view (hazards D14 b, D23).
    pub(crate) in_flight: FastMap<(SessionId, RequestNumber), InFlight>,
    pub(crate) registering: FastMap<ClientId, InFlight>,
    /// Further origins that wait for a queued request.
    pub(crate) queued_extra: FastMap<(SessionId, RequestNumber, ClientId), Vec<Origin>>,
    pub(crate) pipeline: VecDeque<PreparedOp>,
    /// Numbers the `Commit`s of this view.
    pub(crate) commit_number: u64,
    /// What the last `Prepare` or `Commit` told the backups.
    pub(crate) commit_sent: CommitNumber,
    body: BodyBuilder,
    /// Answers that were gathered in this turn, each with its receiver.
    pub(crate) answers: Vec<(Peer, Reply)>,
}

/// The origin of inherited requests: their clients send them again.
pub(crate) const INHERITED: Origin = Some(Peer::Client(ClientId(0)));

/// What becomes of a request at the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The session table has the answer: it was executed, or never will be.
    Known(Outcome, Position),
    /// It is refused.
    Refused(Refusal),
    /// Its client asks again later.
    Busy(Busy),
    /// The same, where what is full may be full at this replica alone.
    NoRoom(Busy),
    /// A copy of it is on its way, here.
    Joined(InFlight),
    /// It goes into the queue, with the checksum of its content.
    Queued(Checksum),
}

/// What the decision about a request depends on, beside what the primary keeps of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) sessions: &'a SessionTable,
    pub(crate) log: &'a Log,
    pub(crate) writes: &'a Writes,
    pub(crate) constants: &'a Constants,
    pub(crate) options: &'a Options,
    /// The last applied op.
    pub(crate) applied: OpNumber,
}

impl Primary {
    pub(crate) fn new() -> Primary {
        Primary {
            queue: VecDeque::new(),
            queue_bytes: 0,
            in_flight: FastMap::default(),
            registering: FastMap::default(),
            queued_extra: FastMap::default(),
            pipeline: VecDeque::new(),
            commit_number: 0,
            commit_sent: CommitNumber(0),
            body: BodyBuilder::default(),
            answers: Vec::new(),
        }
    }

    /// Decides what becomes of a request, in this order: what can never be executed, what was, what is on its way, and what finds no
    /// room. Only a command that would be queued is decoded.
    pub(crate) fn admit(
        &self,
        request: &Request,
        around: &Surroundings<'_>,
        can_decode: impl FnOnce(&Bytes) -> bool,
    ) -> Admission {
        if request.number == RequestNumber(0) {
            return self.admit_register(request.client, around);
        }
        let Surroundings { sessions, constants, applied, .. } = *around;
        if request.command.len() > constants.request_max as usize {
            return Admission::Refused(Refusal::TooLarge);
        }
        let checksum = Checksum::of(&request.command);
        if sessions.client_of(request.session).is_some_and(|client| client != request.client) {
            // Session numbers can be guessed: a client never raises the floor of another client's session.
            return Admission::Refused(Refusal::Evicted);
        }
        match sessions.look_up(request.session, request.number, request.floor, checksum) {
            Lookup::Known(outcome, position) => return Admission::Known(outcome, position),
            Lookup::NoSession if applied >= request.session.0.op => return Admission::Refused(Refusal::Evicted),
            Lookup::NoSession => return Admission::Busy(Busy::Queue),
            Lookup::New => {}
        }
        if let Some(in_flight) = self.in_flight.get(&(request.session, request.number)).copied() {
            // Other content is a conflict once that one is executed. Until then a view change may drop it, and a late copy of this one
            // may take the number: nothing is refused for good that could still be executed.
            let is_same = in_flight.request == checksum;
            return if is_same { Admission::Joined(in_flight) } else { Admission::Busy(Busy::Queue) };
        }
        // The lowest number is always let through: the floor can move only when it is answered (rule 5.13).
        if request.number > request.floor && sessions.replies_over_budget(request.session, request.floor) {
            return Admission::Busy(Busy::Replies);
        }
        if let Err(busy) = self.check_capacity(request.command.len(), around) {
            return Admission::NoRoom(busy);
        }
        if !can_decode(&request.command) {
            return Admission::Refused(Refusal::Undecodable);
        }
        Admission::Queued(checksum)
    }

    fn admit_register(&self, client: ClientId, around: &Surroundings<'_>) -> Admission {
        if let Some(in_flight) = self.registering.get(&client).copied() {
            return Admission::Joined(in_flight);
        }
        // While no other requests make ops, an attempt that will be refused is one: idle sessions age by ops, and a table of dead ones
        // would refuse newcomers without end (rule 5.14).
        let is_idle = self.queue.is_empty() && self.pipeline.is_empty();
        let can_register = around.sessions.can_register(client, around.log.head().next());
        let is_full = (!can_register && !is_idle).then_some(Busy::Sessions);
        match is_full.or_else(|| self.check_capacity(16, around).err()) {
            Some(busy) => Admission::NoRoom(busy),
            None => Admission::Queued(Checksum::default()),
        }
    }

    /// Whether the queue, the log and the disk have room for a command of so many bytes.
    fn check_capacity(&self, len: usize, around: &Surroundings<'_>) -> Result<(), Busy> {
        let Surroundings { log, writes, constants, options, .. } = *around;
        let queued = self.queue_bytes + BodyBuilder::encoded_len(len);
        if queued > options.queue_bytes_max {
            return Err(Busy::Queue);
        }
        // Room for a few ops stays free for what a later view's primary inherits, and, once membership
        // can change, for the change that may be the cure.
        let reserve = 4 * disk_bytes(constants.batch_bytes_max.into());
        // After a start some ops may be known by their place alone.
        let logged = log.bytes_at_most(constants.batch_bytes_max.into());
        let is_full = logged.saturating_add(queued as u64) > options.log_bytes_max
            || !writes.has_room(disk_bytes(queued as u64) + reserve);
        if is_full { Err(Busy::LogFull) } else { Ok(()) }
    }

    /// Takes a request into the queue.
    pub(crate) fn enqueue(&mut self, request: Request, origin: Origin, content: Checksum) {
        let waiting = InFlight { request: content, origin, op: OpNumber::ZERO, index: 0 };
        if request.number == RequestNumber(0) {
            self.registering.insert(request.client, waiting);
        } else {
            self.in_flight.insert((request.session, request.number), waiting);
        }
        let queued = Queued { request, origin };
        self.queue_bytes += queued.encoded_len();
        self.queue.push_back(queued);
    }

    /// A further copy of a request that is queued or in the pipeline: its sender is answered too.
    pub(crate) fn join(&mut self, in_flight: InFlight, request: &Request, origin: Origin) {
        let front = self.pipeline.front().map_or(OpNumber::ZERO, |prepared| prepared.op);
        if in_flight.op == OpNumber::ZERO {
            if in_flight.origin != origin {
                let key = (request.session, request.number, request.client);
                let waiting = self.queued_extra.entry(key).or_default();
                if !waiting.contains(&origin) {
                    waiting.push(origin);
                }
            }
        } else if let Some(prepared) = self.pipeline.get_mut((in_flight.op.0.wrapping_sub(front.0)) as usize) {
            let Some((client, first)) = prepared.origins.get_mut(in_flight.index as usize) else { return };
            if *first != origin {
                *client = request.client;
                let waiting = prepared.extra.entry(in_flight.index).or_default();
                if !waiting.contains(&origin) {
                    waiting.push(origin);
                }
            }
        }
    }

    /// Makes one op of the queue's first requests, as many as fit into it: it is in the pipeline now. Returns its body, and the number of
    /// requests in it.
    pub(crate) fn close_batch(&mut self, op: OpNumber, constants: &Constants) -> (Bytes, u32) {
        let (requests_max, bytes_max) = (constants.batch_requests_max, constants.batch_bytes_max as usize);
        let mut prepared = PreparedOp { op, ..PreparedOp::default() };
        let mut body = std::mem::take(&mut self.body);
        while let Some(queued) = self.queue.front() {
            let len = queued.encoded_len();
            if !body.is_empty() && (body.requests() >= requests_max || body.len() + len > bytes_max) {
                break;
            }
            let Some(Queued { request, origin }) = self.queue.pop_front() else { break };
            self.queue_bytes -= len;
            let index = body.requests();
            let in_flight = if request.number == RequestNumber(0) {
                body.push_register(request.client);
                self.registering.get_mut(&request.client)
            } else {
                body.push(request.session, request.number, request.floor, &request.command);
                self.in_flight.get_mut(&(request.session, request.number))
            };
            if let Some(in_flight) = in_flight {
                (in_flight.op, in_flight.index) = (op, index);
            }
            prepared.origins.push((request.client, origin));
            let key = (request.session, request.number, request.client);
            if let Some(waiting) = self.queued_extra.remove(&key) {
                prepared.extra.entry(index).or_default().extend(waiting);
            }
        }
        let closed = body.take();
        self.body = body;
        self.pipeline.push_back(prepared);
        closed
    }

    /// Takes an op of an earlier view into the pipeline, and its requests into the index, so that none is admitted a second time.
    pub(crate) fn inherit(&mut self, op: OpNumber, entry: Option<Entry>) {
        let mut prepared = PreparedOp { op, ..PreparedOp::default() };
        let requests = entry.into_iter().flat_map(|entry| entry.into_requests().flatten());
        for (Position { index, .. }, request) in requests {
            let in_flight = |request| InFlight { request, origin: INHERITED, op, index };
            match request.kind {
                RequestKind::Register(client) => {
                    self.registering.insert(client, in_flight(Checksum::default()));
                }
                RequestKind::Command(command) => {
                    self.in_flight.insert((request.session, request.number), in_flight(Checksum::of(&command)));
                }
            }
            prepared.origins.push((ClientId(0), INHERITED));
        }
        self.pipeline.push_back(prepared);
    }

    /// Leaves the role: nothing is kept of it. Returns the requests that wait in the queue.
    pub(crate) fn leave(&mut self) -> VecDeque<Queued> {
        self.in_flight.clear();
        self.registering.clear();
        self.pipeline.clear();
        self.queued_extra.clear();
        self.queue_bytes = 0;
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests;
