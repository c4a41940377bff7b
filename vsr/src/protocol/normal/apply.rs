//! Applying committed ops, in order, each request exactly once (rules 5.3, 6.6).

use bytes::Bytes;

use super::pipeline::PreparedOp;
use super::sessions::Lookup;
use crate::protocol::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::log::body_cache::BodyCache;
use crate::protocol::log::log::{Body, Diverged};
use crate::protocol::recovery::repair::ReadRequest;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::{BodyReader, Header, LoggedRequest, OpKind, RequestKind};
use crate::protocol::types::event::Event;
use crate::protocol::types::message::{Outcome, Refusal, Reply};
use crate::protocol::types::number::{OpNumber, Position, SessionId, Timestamp};

/// What a command may know of the world, beside its state machine. Equal on every replica. Later versions have more fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApplyContext {
    /// Where the command stands in the log: unique and ordered.
    pub position: Position,
    /// Agreed by the replicas; never goes backwards. Shared by the commands of one op.
    pub timestamp: Timestamp,
    /// Whose command it is.
    pub session: SessionId,
}

impl ApplyContext {
    /// What a command is told at this position, at this time, in this session; for a state machine's own tests.
    #[must_use]
    pub fn new(position: Position, timestamp: Timestamp, session: SessionId) -> ApplyContext {
        ApplyContext { position, timestamp, session }
    }
}

/// The state machine as the protocol sees it: bytes in, bytes out.
pub trait Machine {
    /// Whether the command can be decoded. Asked at admission, so that no undecodable command is ever
    /// committed.
    fn can_decode(&self, command: &Bytes) -> bool;

    /// Applies a committed command and appends the encoded reply.
    ///
    /// # Errors
    /// When it cannot: the replica stops.
    fn apply(&mut self, context: &ApplyContext, command: Bytes, reply: &mut Vec<u8>) -> Result<(), Halt>;
}

/// What is kept between two slices of applying.
#[derive(Clone, Debug)]
pub(crate) struct Applying {
    /// A read for the next op is under way.
    pub(crate) reading: bool,
    /// The op that a slice has ended in.
    partial: Option<Partial>,
    reply: Vec<u8>,
    /// The timestamp of the last applied op.
    pub(crate) timestamp: Timestamp,
    /// Which of the applied bodies stay in memory.
    pub(crate) cache: BodyCache,
}

impl Applying {
    /// All up to this op is applied, which had this timestamp.
    pub(crate) fn after(op: OpNumber, timestamp: Timestamp) -> Applying {
        Applying { reading: false, partial: None, reply: Vec::new(), timestamp, cache: BodyCache::after(op) }
    }
}

/// An op of which some requests are applied.
#[derive(Clone, Debug)]
struct Partial {
    header: Header,
    rest: BodyReader,
    prepared: Option<PreparedOp>,
}

impl Core {
    /// Whether the state is that after a whole op: only then queries are served.
    #[must_use]
    pub fn is_between_ops(&self) -> bool {
        self.applying.partial.is_none() && self.transfer.has_state()
    }

    /// Applies committed ops until `requests_max` requests are done or nothing is left that can be
    /// applied. Returns whether there is more: the next turn goes on, after a look at the network.
    pub(crate) fn apply(&mut self, machine: &mut dyn Machine, requests_max: usize) -> bool {
        let mut done = 0;
        while self.halted.is_none() && done < requests_max && !self.checkpoints.is_due() && self.transfer.has_state() {
            if self.applying.partial.is_none()
                && let Some((header, body)) = self.next_to_apply()
            {
                self.begin_op(header, body);
            }
            match self.applying.partial.take() {
                Some(partial) => done += self.apply_some(partial, machine, requests_max - done).max(1),
                None => {
                    self.flush_answers();
                    self.tell_commit_when_idle();
                    return false;
                }
            }
        }
        self.flush_answers();
        self.halted.is_none() && (self.applying.partial.is_some() || self.next_to_apply().is_some())
    }

    /// The next op, if it is committed, proven to belong to the log of log_view, and in memory.
    fn next_to_apply(&mut self) -> Option<(Header, Bytes)> {
        let op = self.applied.next();
        if !op.is_committed(self.commit) || op > self.log.head() || !self.transfer.has_state() {
            return None;
        }
        if !self.log.is_proven(op) {
            if let Err(diverged) = self.log.prove(self.applied) {
                self.stop(diverged.into());
                return None;
            }
            if !self.log.is_proven(op) {
                self.repair_soon();
                return None;
            }
        }
        let slot = self.log.slot(op)?;
        match (&slot.body, slot.header) {
            (Body::Memory(body), Some(header)) => {
                if op == self.applied.next() && self.log.checksum(self.applied) != Some(header.parent) {
                    let own = self.log.checksum(self.applied).unwrap_or_default();
                    self.stop(Diverged { op: self.applied, own, log: header.parent }.into());
                    return None;
                }
                Some((header, body.clone()))
            }
            (Body::Stored, _) => {
                if !self.applying.reading {
                    self.applying.reading = true;
                    let last = OpNumber((op.0 + 255).min(self.commit.0).min(self.log.head().0));
                    self.repair.reads.push_back(ReadRequest::Apply { first: op, last });
                }
                None
            }
            _ => {
                self.repair_soon();
                None
            }
        }
    }

    fn begin_op(&mut self, header: Header, body: Bytes) {
        let op = header.op;
        let body = match header.kind {
            OpKind::Requests => body,
            OpKind::Recover => match self.apply_replacement(op, &body) {
                Ok(()) => Bytes::new(),
                Err(halt) => return self.stop(halt),
            },
            OpKind::Pulse | OpKind::Reconfigure => return self.stop(Halt::UnknownKind { op }),
        };
        if header.machine_version > self.options.machine_version {
            let (wanted, own) = (header.machine_version, self.options.machine_version);
            return self.stop(Halt::MachineVersion { op, wanted, own });
        }
        let prepared = match self.primary.pipeline.front() {
            Some(front) if front.op == op => self.primary.pipeline.pop_front(),
            _ => None,
        };
        self.applying.partial = Some(Partial { header, rest: BodyReader::new(op, body), prepared });
    }

    /// Applies an op, or a part of it: heartbeats go on behind a slow state machine (rule 12.1).
    fn apply_some(&mut self, mut partial: Partial, machine: &mut dyn Machine, requests_max: usize) -> usize {
        let mut requests = 0;
        let header = partial.header;
        let op = header.op;
        while let Some(request) = partial.rest.next() {
            match request {
                Ok((position, request)) => {
                    let prepared = partial.prepared.as_ref();
                    let outcome = self.apply_request(position, request, header.timestamp, prepared, machine);
                    if let Err(halt) = outcome {
                        self.stop(halt);
                        return requests;
                    }
                    requests += 1;
                    if requests >= requests_max && !partial.rest.is_at_end() {
                        self.applying.partial = Some(partial);
                        return requests;
                    }
                }
                Err(error) => {
                    self.stop(Halt::UnreadableBody { op, at: error.at });
                    return requests;
                }
            }
        }
        self.applied = op;
        self.applying.timestamp = header.timestamp;
        self.applying.cache.on_applied(op, &mut self.log, self.writes.completed, self.options.cache_bytes);
        self.news.events.push(Event::Applied { op, checksum: header.checksum() });
        self.note_applied(&header);
        requests
    }

    fn apply_request(
        &mut self,
        position: Position,
        request: LoggedRequest,
        timestamp: Timestamp,
        prepared: Option<&PreparedOp>,
        machine: &mut dyn Machine,
    ) -> Result<(), Halt> {
        let LoggedRequest { session, number, floor, kind } = request;
        let mut content = Checksum::default();
        let (outcome, executed_at) = match kind {
            RequestKind::Register(client) => {
                if prepared.is_some() {
                    self.primary.registering.remove(&client);
                }
                (self.sessions.register(position, client), position)
            }
            RequestKind::Command(command) => {
                let checksum = Checksum::of(&command);
                content = checksum;
                if prepared.is_some() {
                    self.primary.in_flight.remove(&(session, number));
                }
                match self.sessions.begin(session, number, floor, checksum) {
                    Lookup::Known(outcome, at) => (outcome, at),
                    Lookup::NoSession => (Outcome::Refused(Refusal::Evicted), Position::default()),
                    Lookup::New => {
                        let context = ApplyContext { position, timestamp, session };
                        self.applying.reply.clear();
                        machine.apply(&context, command, &mut self.applying.reply)?;
                        let reply = &self.applying.reply;
                        let kept = self.sessions.finish(session, number, checksum, position, reply);
                        let outcome = match (kept, prepared.is_some()) {
                            (false, _) | (_, false) => Outcome::ReplyLost,
                            (true, true) => Outcome::Reply(Bytes::copy_from_slice(reply)),
                        };
                        (outcome, position)
                    }
                }
            }
        };
        let Some(prepared) = prepared else { return Ok(()) };
        let Some(&(client, origin)) = prepared.origins.get(position.index as usize) else { return Ok(()) };
        let reply = Reply { client, session, number, outcome, position: executed_at, request: content };
        for extra in prepared.extra.get(&position.index).into_iter().flatten() {
            self.answer_to(*extra, reply.clone());
        }
        self.answer_to(origin, reply);
        Ok(())
    }
}
