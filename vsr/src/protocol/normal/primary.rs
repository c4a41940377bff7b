//! Normal operation at the primary: admission, `Prepare`, acknowledgements, commit (rule 6.1, VRR 4.1).

use bytes::Bytes;

use super::agreed_clock::{self, Sample};
use super::apply::Machine;
use super::pipeline::{Admission, INHERITED, Origin, Queued, Surroundings};
use crate::protocol::core::Core;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::{Entry, Header, HeaderFields, OpKind};
use crate::protocol::types::limits::disk_bytes;
use crate::protocol::types::message::{
    Busy, MESSAGE_BYTES, Message, Outcome, Peer, Refusal, Reply, Request, in_messages,
};
use crate::protocol::types::number::{
    CommitNumber, NEVER, OpNumber, Position, ReplicaId, RequestNumber, Timestamp, View,
};
use crate::protocol::types::quorum;
use crate::protocol::view_change::phase::Status;

/// How long a commit number waits for a `Prepare` that would carry it.
const COMMIT_DELAY: std::time::Duration = std::time::Duration::from_millis(1);

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
                self.news.replies.push(reply);
            } else {
                self.send_to(Peer::Client(reply.client), Message::Replies { view, replies: vec![reply] });
            }
        }
    }

    /// What was decided about a request is carried out. Every one is answered or queued: none is dropped.
    fn admit(&mut self, origin: Origin, request: Request, machine: &dyn Machine) {
        let admission = self.primary.admit(&request, &self.surroundings(), |command| machine.can_decode(command));
        match admission {
            Admission::Known(outcome, position) => self.answer(origin, &request, outcome, position),
            Admission::Refused(refusal) => self.refuse(origin, &request, refusal),
            Admission::Busy(busy) => self.answer(origin, &request, Outcome::Busy(busy), Position::default()),
            Admission::NoRoom(busy) => {
                let busy = self.or_no_primary(busy);
                self.answer(origin, &request, Outcome::Busy(busy), Position::default());
            }
            Admission::Joined(in_flight) => {
                self.mark("request again while in flight");
                self.primary.join(in_flight, &request, origin);
            }
            Admission::Queued(content) => self.primary.enqueue(request, origin, content),
        }
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            sessions: &self.sessions,
            log: &self.log,
            writes: &self.writes,
            constants: &self.membership.constants,
            options: &self.options,
            applied: self.applied,
        }
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
            None => self.news.replies.push(reply),
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
            && self.log.head().0 - self.writes.durable.0.min(self.commit.0)
                < u64::from(self.membership.constants.pipeline_max)
        {
            self.prepare_one();
        }
    }

    fn prepare_one(&mut self) {
        let op = self.log.head().next();
        let (body, requests) = self.primary.close_batch(op, &self.membership.constants);
        self.append(body, requests, OpKind::Requests);
    }

    /// Prepares an op that holds no requests.
    pub(crate) fn prepare_alone(&mut self, body: Bytes, kind: OpKind) {
        self.note_prepared(self.log.head().next(), kind, &body);
        self.primary.inherit(self.log.head().next(), None);
        self.append(body, 0, kind);
    }

    fn append(&mut self, body: Bytes, requests: u32, kind: OpKind) {
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
            kind,
        });
        let entry = Entry { header, body };
        self.log.extend(header);
        self.log.fill(entry.clone());
        self.writes.stage_put(&mut self.log, header.op);
        let message = Message::Prepare { view: self.view, commit: self.commit, entry };
        self.broadcast(&message);
        self.primary.commit_sent = self.commit;
        self.timers.heartbeat_at = self.now.after(self.options.timing.heartbeat);
    }

    /// The clock for timestamps (rule 5.11).
    fn agreed_clock(&self) -> Timestamp {
        let own = Sample { wall: self.wall, heard_at: self.now };
        let told = self.progress.iter();
        let clocks = told.filter_map(|member| if member.id == self.id { Some(own) } else { member.clock });
        agreed_clock::agree(clocks, self.now, self.options.timing.ping * 8, self.membership.quorums.replication)
    }

    /// The version of the state machine that the next op names.
    fn op_version(&self) -> u32 {
        let before = self.log.header(self.log.head()).map(|header| header.machine_version);
        self.progress.op_version(self.id, self.options.machine_version, before)
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
        let acknowledged = self.progress.acknowledged(self.id, self.writes.durable);
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
        self.timers.heartbeat_at = self.now.after(self.options.timing.heartbeat);
        let message = Message::Commit {
            view: self.view,
            commit: self.commit,
            head: self.log.head(),
            number: self.primary.commit_number,
        };
        self.broadcast(&message);
    }

    pub(crate) fn on_heartbeat_due(&mut self) {
        self.timers.heartbeat_at = self.now.after(self.options.timing.heartbeat);
        if !self.is_leading() {
            self.timers.heartbeat_at = NEVER;
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
            self.timers.heartbeat_at = self.timers.heartbeat_at.min(self.now.after(COMMIT_DELAY));
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
        self.timers.heartbeat_at = self.now;
    }

    /// Takes the inherited ops into the pipeline.
    pub(crate) fn index_inherited(&mut self) {
        let mut op = self.applied.max(self.commit.op()).next();
        while op <= self.log.head() {
            let entry = self.entry_in_memory(op);
            if let Some(Entry { header, body }) = &entry {
                self.note_prepared(op, header.kind, body);
            }
            self.primary.inherit(op, entry);
            op = op.next();
        }
    }

    /// Leaves the role, or never had it: requests that wait here are answered "no primary", and sent again.
    pub(crate) fn leave_primary(&mut self) {
        self.timers.heartbeat_at = NEVER;
        self.rejoin.prepared.clear();
        for Queued { request, origin } in self.primary.leave() {
            self.answer(origin, &request, Outcome::Busy(Busy::NoPrimary), Position::default());
        }
        self.flush_answers();
    }
}
