//! Normal operation at the primary: admission, `Prepare`, acknowledgements, commit (rule 6.1, VRR 4.1).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::agreed_clock::{self, Sample};
use super::apply::Machine;
use super::sessions::Lookup;
use crate::protocol::core::Core;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::{BodyBuilder, BodyReader, Entry, Header, HeaderFields, OpKind, RequestKind};
use crate::protocol::types::limits::disk_bytes;
use crate::protocol::types::map::FastMap;
use crate::protocol::types::message::{
    Busy, MESSAGE_BYTES, Message, Outcome, Peer, Refusal, Reply, Request, in_messages,
};
use crate::protocol::types::number::{
    ClientId, CommitNumber, Monotonic, NEVER, OpNumber, Position, ReplicaId, RequestNumber, SessionId, Timestamp, View,
};
use crate::protocol::types::quorum;
use crate::protocol::view_change::phase::Status;

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
#[derive(Clone, Copy, Debug)]
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
    /// One for each request of an op that this replica prepared; empty for an inherited one.
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
    pub(crate) heartbeat_at: Monotonic,
    /// What the last `Prepare` or `Commit` told the backups.
    commit_sent: CommitNumber,
    body: BodyBuilder,
    answers: Vec<(Peer, Reply)>,
}

/// How long a commit number waits for a `Prepare` that would carry it.
const COMMIT_DELAY: std::time::Duration = std::time::Duration::from_millis(1);

/// The origin of inherited requests: their clients send them again.
const INHERITED: Origin = Some(Peer::Client(ClientId(0)));

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
            heartbeat_at: NEVER,
            commit_sent: CommitNumber(0),
            body: BodyBuilder::default(),
            answers: Vec::new(),
        }
    }
}

impl Core {
    /// Requests whose numbers no session can reach are answered here: the primary would ignore them, and a request that
    /// the primary is not bound to answer must never be a reason to vote (rule 7.2).
    pub(crate) fn refuse_absurd(&mut self, origin: Origin, mut requests: Vec<Request>) -> Vec<Request> {
        if requests.iter().all(|request| self.refusal_at_the_edge(request).is_none()) {
            return requests;
        }
        requests.retain(|request| match self.refusal_at_the_edge(request) {
            Some(refusal) => {
                self.refuse(origin, request, refusal);
                false
            }
            None => true,
        });
        self.flush_answers();
        requests
    }

    /// What every replica refuses, whether it is the primary or not.
    fn refusal_at_the_edge(&self, request: &Request) -> Option<Refusal> {
        if !request.is_plausible() {
            Some(Refusal::BeyondWindow)
        } else if request.command.len() > self.membership.constants.request_max as usize {
            Some(Refusal::TooLarge)
        } else {
            None
        }
    }

    /// Requests have arrived from a client, from a replica that forwards them, or (`None`) from the
    /// handle of this one.
    pub(crate) fn on_requests(
        &mut self,
        origin: Origin,
        requests: Vec<Request>,
        forwarded: bool,
        machine: &dyn Machine,
    ) {
        if !self.is_primary() || self.is_abdicating() {
            if forwarded {
                let busy = Outcome::Busy(Busy::NoPrimary);
                for request in requests {
                    self.answer(origin, &request, busy.clone(), Position::default());
                }
                self.flush_answers();
            } else {
                self.forward(origin, requests);
            }
            return;
        }
        for request in requests {
            if self.is_primary() && !self.is_abdicating() {
                self.admit(origin, request, machine);
            } else {
                // The role was given up at one of them.
                self.answer(origin, &request, Outcome::Busy(Busy::NoPrimary), Position::default());
            }
        }
        self.flush_answers();
    }

    /// Passes requests on to the primary, which does not pass them on (rule 5.7).
    fn forward(&mut self, origin: Origin, requests: Vec<Request>) {
        let primary = self.primary_id();
        if self.status() != Status::Normal || primary == self.id {
            for request in requests {
                self.answer(origin, &request, Outcome::Busy(Busy::NoPrimary), Position::default());
            }
            self.flush_answers();
            return;
        }
        let (now, log_bytes) = (self.now, self.log.bytes());
        for requests in in_messages(requests) {
            // No answer is awaited for a request that is not sent.
            if self.send(primary, Message::Requests { requests: requests.clone(), forwarded: true }) {
                requests.iter().for_each(|request| self.repair.forwards.sent(request, now, log_bytes));
            }
        }
    }

    /// Answers to what this replica has forwarded: for its own handle, or for a client.
    pub(crate) fn on_replies(&mut self, replies: Vec<Reply>) {
        let view = self.started_view();
        for reply in replies {
            self.repair.forwards.answered(&reply);
            if reply.client == self.options.local_client {
                self.local_replies.push(reply);
            } else {
                self.send_to(Peer::Client(reply.client), Message::Replies { view, replies: vec![reply] });
            }
        }
    }

    /// Decides what becomes of a request. Every one is answered or queued: none is dropped.
    fn admit(&mut self, origin: Origin, request: Request, machine: &dyn Machine) {
        if request.number == RequestNumber(0) {
            self.admit_register(origin, request);
            return;
        }
        let constants = &self.membership.constants;
        if request.command.len() > constants.request_max as usize {
            return self.refuse(origin, &request, Refusal::TooLarge);
        }
        let checksum = Checksum::of(&request.command);
        if self.sessions.client_of(request.session).is_some_and(|client| client != request.client) {
            // Session numbers can be guessed: a client never raises the floor of another client's session.
            return self.refuse(origin, &request, Refusal::Evicted);
        }
        match self.sessions.look_up(request.session, request.number, request.floor, checksum) {
            Lookup::Known(outcome, position) => return self.answer(origin, &request, outcome, position),
            Lookup::NoSession if self.applied >= request.session.0.op => {
                return self.refuse(origin, &request, Refusal::Evicted);
            }
            Lookup::NoSession => {
                return self.answer(origin, &request, Outcome::Busy(Busy::Queue), Position::default());
            }
            Lookup::New => {}
        }
        let key = (request.session, request.number);
        if let Some(in_flight) = self.primary.in_flight.get(&key).copied() {
            if in_flight.request != checksum {
                // A conflict once that one is executed. Until then a view change may drop it, and a late copy of this one
                // may take the number: nothing is refused for good that could still be executed.
                return self.answer(origin, &request, Outcome::Busy(Busy::Queue), Position::default());
            }
            return self.join_in_flight(in_flight, &request, origin);
        }
        // The lowest number is always let through: the floor can move only when it is answered (rule 5.13).
        if request.number > request.floor && self.sessions.replies_over_budget(request.session, request.floor) {
            return self.answer(origin, &request, Outcome::Busy(Busy::Replies), Position::default());
        }
        if let Err(busy) = self.check_capacity(request.command.len()) {
            let busy = self.or_no_primary(busy);
            return self.answer(origin, &request, Outcome::Busy(busy), Position::default());
        }
        if !machine.can_decode(&request.command) {
            return self.refuse(origin, &request, Refusal::Undecodable);
        }
        self.primary.in_flight.insert(key, InFlight { request: checksum, origin, op: OpNumber::ZERO, index: 0 });
        self.enqueue(request, origin);
    }

    fn admit_register(&mut self, origin: Origin, request: Request) {
        if let Some(in_flight) = self.primary.registering.get(&request.client).copied() {
            return self.join_in_flight(in_flight, &request, origin);
        }
        // While no other requests make ops, an attempt that will be refused is one: idle sessions age by ops, and a table of dead ones
        // would refuse newcomers without end (rule 5.14).
        let is_idle = self.primary.queue.is_empty() && self.primary.pipeline.is_empty();
        let can_register = self.sessions.can_register(request.client, self.log.head().next());
        let is_full = (!can_register && !is_idle).then_some(Busy::Sessions);
        if let Some(busy) = is_full.or_else(|| self.check_capacity(16).err()) {
            let busy = self.or_no_primary(busy);
            return self.answer(origin, &request, Outcome::Busy(busy), Position::default());
        }
        let waiting = InFlight { request: Checksum::default(), origin, op: OpNumber::ZERO, index: 0 };
        self.primary.registering.insert(request.client, waiting);
        self.enqueue(request, origin);
    }

    /// Whether the queue, the log and the disk have room for a command of so many bytes.
    fn check_capacity(&self, len: usize) -> Result<(), Busy> {
        let queued = self.primary.queue_bytes + BodyBuilder::encoded_len(len);
        if queued > self.options.queue_bytes_max {
            return Err(Busy::Queue);
        }
        // Room for a few ops stays free for what a later view's primary inherits, and, once membership
        // can change, for the change that may be the cure.
        let reserve = 4 * disk_bytes(self.membership.constants.batch_bytes_max.into());
        let is_full = self.log.bytes() + queued as u64 > self.options.log_bytes_max
            || !self.writes.has_room(disk_bytes(queued as u64) + reserve);
        if is_full { Err(Busy::LogFull) } else { Ok(()) }
    }

    /// Where others have room, a full disk here is not the cluster's: it looks for another primary.
    fn or_no_primary(&mut self, busy: Busy) -> Busy {
        if busy == Busy::LogFull {
            self.check_quorum();
        }
        if self.is_abdicating() { Busy::NoPrimary } else { busy }
    }

    /// Whether this replica could lead: room for one more full op beside what stays reserved.
    pub(crate) fn has_room_for_ops(&self) -> bool {
        let batch = u64::from(self.membership.constants.batch_bytes_max);
        self.log.bytes().saturating_add(batch) <= self.options.log_bytes_max
            && self.writes.has_room(5 * disk_bytes(batch))
    }

    fn enqueue(&mut self, request: Request, origin: Origin) {
        let queued = Queued { request, origin };
        self.primary.queue_bytes += queued.encoded_len();
        self.primary.queue.push_back(queued);
    }

    /// A further copy of a request that is queued or in the pipeline: its sender is answered too.
    fn join_in_flight(&mut self, in_flight: InFlight, request: &Request, origin: Origin) {
        self.mark("request again while in flight");
        let front = self.primary.pipeline.front().map_or(OpNumber::ZERO, |prepared| prepared.op);
        if in_flight.op == OpNumber::ZERO {
            if in_flight.origin != origin {
                let key = (request.session, request.number, request.client);
                let waiting = self.primary.queued_extra.entry(key).or_default();
                if !waiting.contains(&origin) {
                    waiting.push(origin);
                }
            }
        } else if let Some(prepared) = self.primary.pipeline.get_mut((in_flight.op.0.wrapping_sub(front.0)) as usize) {
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

    fn refuse(&mut self, origin: Origin, request: &Request, refusal: Refusal) {
        self.answer(origin, request, Outcome::Refused(refusal), Position::default());
    }

    /// Gathers an answer; [`flush_answers`](Self::flush_answers) sends what was gathered.
    pub(crate) fn answer(&mut self, origin: Origin, request: &Request, outcome: Outcome, position: Position) {
        let Request { client, session, number, ref command, .. } = *request;
        let request = if number == RequestNumber(0) { Checksum::default() } else { Checksum::of(command) };
        self.answer_to(origin, Reply { client, session, number, outcome, position, request });
    }

    pub(crate) fn answer_to(&mut self, origin: Origin, reply: Reply) {
        match origin {
            None => self.local_replies.push(reply),
            INHERITED => {}
            Some(peer) => self.primary.answers.push((peer, reply)),
        }
    }

    /// Sends the gathered answers, one message for each receiver.
    pub(crate) fn flush_answers(&mut self) {
        if self.primary.answers.is_empty() {
            return;
        }
        let view = self.started_view();
        let mut answers = std::mem::take(&mut self.primary.answers);
        answers.sort_by_key(|(peer, _)| *peer);
        let mut rest = answers.into_iter().peekable();
        while let Some((peer, reply)) = rest.next() {
            let mut replies = vec![reply];
            let mut bytes = replies[0].weight();
            while bytes < MESSAGE_BYTES
                && let Some((_, reply)) = rest.next_if(|(next, _)| *next == peer)
            {
                bytes += reply.weight();
                replies.push(reply);
            }
            self.send_to(peer, Message::Replies { view, replies });
        }
    }

    /// Closes batches as long as the pipeline has room (rule 6.1).
    pub(crate) fn prepare_queued(&mut self) {
        while !self.primary.queue.is_empty()
            && self.is_primary()
            && !self.is_abdicating()
            && self.log.head().0 - self.durable.0.min(self.commit.0) < u64::from(self.membership.constants.pipeline_max)
        {
            self.prepare_one();
        }
    }

    fn prepare_one(&mut self) {
        let (requests_max, bytes_max) =
            (self.membership.constants.batch_requests_max, self.membership.constants.batch_bytes_max as usize);
        let op = self.log.head().next();
        let mut prepared = PreparedOp { op, ..PreparedOp::default() };
        let mut body = std::mem::take(&mut self.primary.body);
        while let Some(queued) = self.primary.queue.front() {
            let len = queued.encoded_len();
            if !body.is_empty() && (body.requests() >= requests_max || body.len() + len > bytes_max) {
                break;
            }
            let Some(Queued { request, origin }) = self.primary.queue.pop_front() else { break };
            self.primary.queue_bytes -= len;
            let index = body.requests();
            let in_flight = if request.number == RequestNumber(0) {
                body.push_register(request.client);
                self.primary.registering.get_mut(&request.client)
            } else {
                body.push(request.session, request.number, request.floor, &request.command);
                self.primary.in_flight.get_mut(&(request.session, request.number))
            };
            if let Some(in_flight) = in_flight {
                (in_flight.op, in_flight.index) = (op, index);
            }
            prepared.origins.push((request.client, origin));
            let key = (request.session, request.number, request.client);
            if let Some(waiting) = self.primary.queued_extra.remove(&key) {
                prepared.extra.entry(index).or_default().extend(waiting);
            }
        }
        let (bytes, requests) = body.take();
        self.primary.body = body;
        self.primary.pipeline.push_back(prepared);
        self.append(bytes, requests);
    }

    fn append(&mut self, body: Bytes, requests: u32) {
        let head = self.log.head();
        let (Some(parent), last) =
            (self.log.checksum(head), self.log.header(head).map_or(Timestamp(0), |header| header.timestamp))
        else {
            return;
        };
        let header = Header::new(HeaderFields {
            view: self.view,
            op: head.next(),
            parent,
            body: Checksum::of(&body),
            body_len: body.len() as u32,
            requests,
            timestamp: Timestamp(last.0 + 1).max(self.agreed_clock()),
            commit: self.commit,
            machine_version: self.op_version(),
            kind: OpKind::Requests,
        });
        let entry = Entry { header, body };
        self.log.extend(header);
        self.log.fill(entry.clone());
        self.stage_put(header.op);
        let message = Message::Prepare { view: self.view, commit: self.commit, entry };
        self.broadcast(&message);
        self.primary.commit_sent = self.commit;
        self.primary.heartbeat_at = self.now.after(self.options.timing.heartbeat);
    }

    /// The clock for timestamps (rule 5.11).
    fn agreed_clock(&self) -> Timestamp {
        let own = Sample { wall: self.wall, heard_at: self.now };
        let told = self.progress.iter();
        let clocks = told.filter_map(|member| if member.id == self.id { Some(own) } else { member.clock });
        agreed_clock::agree(clocks, self.now, self.options.timing.ping * 8, self.membership.quorums.replication)
    }

    /// The version of the state machine that the next op names: the lowest that the members announced
    /// last, never lower than that of the op before (rule 5.9). A member that has announced nothing since
    /// this replica's start holds a higher version back.
    fn op_version(&self) -> u32 {
        let before = self.log.header(self.log.head()).map(|header| header.machine_version);
        let own = self.options.machine_version;
        let announced = self.progress.iter();
        let mut versions =
            announced.map(|member| if member.id == self.id { Some(own) } else { member.machine_version });
        let lowest = versions.try_fold(own, |lowest, version| version.map(|version| lowest.min(version)));
        match (before, lowest) {
            (Some(before), Some(lowest)) => before.max(lowest),
            (Some(before), None) => before,
            (None, Some(lowest)) => lowest,
            (None, None) => self.progress.iter().filter_map(|member| member.machine_version).fold(own, u32::min),
        }
    }

    /// A backup's log is durable up to an op. Matched by view, op and checksum; repeated, it changes
    /// nothing (rule 6.5).
    pub(crate) fn on_prepare_ok(&mut self, from: ReplicaId, view: View, op: OpNumber, checksum: Checksum) {
        if view != self.view || !self.is_leading() {
            return self.ignore("PrepareOk", "not the primary of that view");
        }
        if self.log.checksum(op) != Some(checksum) {
            return self.ignore("PrepareOk", "other content");
        }
        // Prepared in this view and not committed before: the sender acknowledges it because it is on its disk, and
        // not because others have it.
        let vouches = op > self.commit.op() && op > self.reads.inherited_head;
        let Some(member) = self.progress.get_mut(from) else { return };
        if member.acknowledge(op, vouches, self.now) {
            self.advance_commit();
        }
        self.note_acknowledged(from);
    }

    /// The primary's own durable copies are one vote among equals.
    pub(crate) fn advance_commit(&mut self) {
        if !self.is_primary() {
            return;
        }
        let acknowledged = self.progress.acknowledged(self.id, self.durable);
        let committed = self.membership.quorums.committed(acknowledged);
        self.raise_commit(committed);
    }

    /// A `Commit` was answered: the primary is still heard by this member.
    pub(crate) fn on_commit_ok(&mut self, from: ReplicaId, view: View, number: u64) {
        if view != self.view || !self.is_primary() {
            return self.ignore("CommitOk", "not the primary of that view");
        }
        if number > self.primary.commit_number {
            return self.ignore("CommitOk", "no such Commit was sent");
        }
        self.note_acknowledged(from);
        if let Some(member) = self.progress.get_mut(from) {
            member.confirm(number, self.now);
        }
        self.on_round_confirmed();
    }

    /// The highest `Commit` of this view that a replication quorum has answered, this replica included.
    pub(crate) fn confirmed_round(&self) -> u64 {
        let rounds = self.progress.confirmed(self.id, self.primary.commit_number);
        quorum::reached(self.membership.quorums.replication, rounds)
    }

    /// Tells the backups the commit number, and that the primary is there.
    pub(crate) fn send_commit(&mut self) {
        self.primary.commit_number += 1;
        self.primary.commit_sent = self.commit;
        self.primary.heartbeat_at = self.now.after(self.options.timing.heartbeat);
        let message = Message::Commit {
            view: self.view,
            commit: self.commit,
            head: self.log.head(),
            number: self.primary.commit_number,
        };
        self.broadcast(&message);
    }

    pub(crate) fn on_heartbeat_due(&mut self) {
        self.primary.heartbeat_at = self.now.after(self.options.timing.heartbeat);
        if !self.is_leading() {
            self.primary.heartbeat_at = NEVER;
        } else if !self.is_abdicating() && (self.is_primary() || self.repair_progresses()) {
            self.send_commit();
        }
    }

    /// The commit number travels on the next `Prepare`, or by itself when none follows at once (rule
    /// 6.6). Waiting [`COMMIT_DELAY`] for that `Prepare` saves a message and its answer for each op of a lone client.
    pub(crate) fn tell_commit_when_idle(&mut self) {
        if self.commit > self.primary.commit_sent
            && self.is_primary()
            && !self.is_abdicating()
            && self.primary.queue.is_empty()
            && self.log.head() == self.commit.op()
        {
            self.primary.heartbeat_at = self.primary.heartbeat_at.min(self.now.after(COMMIT_DELAY));
        }
    }

    /// Re-sends the oldest `Prepare` that a backup has not acknowledged and is stuck at.
    pub(crate) fn resend_prepares(&mut self) {
        for at in 0..self.membership.size() {
            let to = self.membership.members[at].id;
            let Some(member) = self.progress.get_mut(to).filter(|member| member.id != self.id) else { continue };
            if !member.is_resend_due(self.log.head()) {
                continue;
            }
            let op = member.acknowledged.next().max(self.commit.op().next());
            if member.log.is_some_and(|(view, head)| view == self.view && head >= op) {
                // It is there, and waits for a disk; what is missing below, the backup asks for.
                continue;
            }
            if let Some(entry) = self.entry_in_memory(op) {
                self.send(to, Message::Prepare { view: self.view, commit: self.commit, entry });
            }
        }
    }

    /// Takes up the role: the pipeline is what was inherited, and acknowledgements start from nothing
    /// (hazard B8).
    pub(crate) fn begin_as_primary(&mut self) {
        self.progress.begin_term(self.now);
        self.primary.commit_number = 0;
        self.primary.commit_sent = CommitNumber(0);
        self.primary.heartbeat_at = self.now;
    }

    /// Indexes the requests of the inherited ops, so that none is admitted a second time.
    pub(crate) fn index_inherited(&mut self) {
        let mut op = self.applied.max(self.commit.op()).next();
        while op <= self.log.head() {
            let mut prepared = PreparedOp { op, ..PreparedOp::default() };
            if let Some(entry) = self.entry_in_memory(op) {
                for request in BodyReader::new(op, entry.body).flatten() {
                    let (position, request) = request;
                    let index = position.index;
                    match request.kind {
                        RequestKind::Register(client) => {
                            let in_flight = InFlight { request: Checksum::default(), origin: INHERITED, op, index };
                            self.primary.registering.insert(client, in_flight);
                        }
                        RequestKind::Command(command) => {
                            let in_flight = InFlight { request: Checksum::of(&command), origin: INHERITED, op, index };
                            self.primary.in_flight.insert((request.session, request.number), in_flight);
                        }
                    }
                    prepared.origins.push((ClientId(0), INHERITED));
                }
            }
            self.primary.pipeline.push_back(prepared);
            op = op.next();
        }
    }

    /// Leaves the role, or never had it: requests that wait here are answered "no primary", and sent again.
    pub(crate) fn leave_primary(&mut self) {
        self.primary.in_flight.clear();
        self.primary.registering.clear();
        self.primary.pipeline.clear();
        self.primary.queued_extra.clear();
        self.primary.queue_bytes = 0;
        self.primary.heartbeat_at = NEVER;
        for Queued { request, origin } in std::mem::take(&mut self.primary.queue) {
            self.answer(origin, &request, Outcome::Busy(Busy::NoPrimary), Position::default());
        }
        self.flush_answers();
    }
}
