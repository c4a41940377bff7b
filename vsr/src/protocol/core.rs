//! The protocol as a value: inputs in, effects out; no I/O, no clock, no entropy of its own.
//!
//! One method a kind of input (`on_…`), and one a kind of effect (`take_…`, `apply`). Whoever drives it
//! tells the time with every input, writes the batches in order, and says when each is durable.

use std::time::Duration;

use super::apply::{Applying, Machine};
use super::event::Event;
use super::fault::Fault;
use super::lives::{Distrust, Life};
use super::log::{Body, Log};
use super::membership::Membership;
use super::message::{Envelope, Message, Peer, Reply, Request};
use super::number::{
    BatchNumber, ClientId, CommitNumber, Incarnation, Monotonic, OpNumber, ReplicaId, Timestamp, View,
};
use super::outbox::Outbox;
use super::phase::{Phase, Status};
use super::primary::Primary;
use super::random::Random;
use super::reads::Reads;
use super::repair::Repair;
use super::sessions::SessionTable;
use super::view_change::ViewChange;
use super::vsr_state::{Batch, Doubted, Suffix, VsrState};
use super::writes::{Writes, disk_bytes};

/// How long a replica waits before it does something about it. Its own business: no rule of safety
/// depends on any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of an idle primary. Default 50 ms.
    pub heartbeat: Duration,
    /// Silence of the primary after which a backup votes against it. Default 400 ms. Too low: a loaded
    /// machine changes views for nothing. Too high: a stalled primary is replaced late.
    pub suspect: Duration,
    /// How long a view change may make no progress before the next view is tried. Default 500 ms;
    /// doubles with each failed one, up to 8 times: where no view can start, one is entered each 8 of it.
    pub view_change: Duration,
    /// Between two attempts at anything that is not answered. Default 60 ms.
    pub retry: Duration,
    /// Between two pings. Default 250 ms.
    pub ping: Duration,
    /// How long a primary goes on without hearing from a quorum. Default 400 ms.
    pub abdicate: Duration,
    /// How long a primary's own write may take before it gives up the role. Default 2 s.
    pub disk: Duration,
    /// How long a forwarded request may be neither prepared nor answered before it is a reason to vote. After half of
    /// it the primary is asked again. Default 1 s.
    pub forward: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(50),
            suspect: Duration::from_millis(400),
            view_change: Duration::from_millis(500),
            retry: Duration::from_millis(60),
            ping: Duration::from_millis(250),
            abdicate: Duration::from_millis(400),
            disk: Duration::from_secs(2),
            forward: Duration::from_secs(1),
        }
    }
}

/// What one replica is told beside what its disk says.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`Timing`].
    pub timing: Timing,
    /// Where the replica's jitter and nonces come from.
    pub seed: u64,
    /// The client that the replica's own handle is.
    pub local_client: ClientId,
    /// The version of the state machine that this build applies.
    pub machine_version: u32,
    /// Bytes of bodies the log may hold before requests are answered `LogFull`.
    pub log_bytes_max: u64,
    /// Bytes of applied entries that stay in memory for slow peers.
    pub cache_bytes: u64,
    /// Bytes of requests that may wait for a place in the pipeline.
    pub queue_bytes_max: usize,
}

/// Ops by which a message may be ahead of the own head: blanks for them are kept in memory. A replica that
/// is further behind will take a checkpoint, once there are any.
pub(crate) const LEAP_MAX: u64 = 1 << 21;

/// Views by which a message may be ahead of the own view. A replica that was away for longer than so many views take
/// (months, at the shortest time-out) has to be replaced (rule 7.12).
const VIEW_LEAP_MAX: u64 = 1 << 24;

/// One replica's protocol.
#[derive(Clone, Debug)]
pub struct Core {
    pub(crate) id: ReplicaId,
    pub(crate) index: usize,
    pub(crate) membership: Membership,
    pub(crate) options: Options,
    /// The vsr state as last staged.
    pub(crate) state: VsrState,
    pub(crate) phase: Phase,
    pub(crate) view: View,
    pub(crate) log_view: View,
    pub(crate) commit: CommitNumber,
    pub(crate) applied: OpNumber,
    pub(crate) head_certain: bool,
    pub(crate) log: Log,
    /// Every op from the commit number up to here is durable and connected, here.
    pub(crate) durable: OpNumber,
    pub(crate) writes: Writes,
    pub(crate) outbox: Outbox,
    pub(crate) sessions: SessionTable,
    pub(crate) primary: Primary,
    pub(crate) view_change: ViewChange,
    pub(crate) repair: Repair,
    pub(crate) reads: Reads,
    pub(crate) applying: Applying,
    pub(crate) peers: Vec<PeerState>,
    pub(crate) random: Random,
    pub(crate) now: Monotonic,
    pub(crate) wall: Timestamp,
    pub(crate) fault: Option<Fault>,
    pub(crate) local_replies: Vec<Reply>,
    pub(crate) events: Vec<Event>,
    pub(crate) heard_of_primary: Monotonic,
    pub(crate) last_heartbeat: u64,
    pub(crate) retry_at: Monotonic,
    pub(crate) ping_at: Monotonic,
    /// Every op from the record's commit number up to here was found durable here; a hint that saves a second look.
    pub(crate) stored: OpNumber,
    /// What the record remembers of the members has changed.
    pub(crate) record_due: bool,
    /// Where the log ended when this life began; at the end of all numbers if that was uncertain.
    pub(crate) began_with: OpNumber,
    /// The write that a replica which has stopped still waits for, before it says so.
    pub(crate) last_batch: Option<BatchNumber>,
    /// The commit number at the last ping, to tell whether the log rests.
    pub(crate) commit_at_ping: CommitNumber,
    pub(crate) stall: super::explain::Stall,
}

/// What is known of another member.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerState {
    pub(crate) heard_at: Monotonic,
    /// The connection is down now: since when, and whether a reconnect was refused.
    pub(crate) down: Option<(Monotonic, bool)>,
    pub(crate) wall: Option<(Timestamp, Monotonic)>,
    pub(crate) machine_version: Option<u32>,
    /// The view that it is in, in normal operation, and the head of its log there, as it said last.
    pub(crate) log: Option<(View, OpNumber)>,
    /// Whether it has room for more ops, as it said last.
    pub(crate) has_room: Option<(bool, Monotonic)>,
    /// How far its log is known to reach in this life: what it says may arrive late.
    pub(crate) reach: OpNumber,
    /// A life of it that began with less than the member had acknowledged.
    pub(crate) older: Option<Life>,
    /// Why its word does not count.
    pub(crate) distrust: Option<Distrust>,
}

impl Core {
    /// The cluster's members.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Which member this is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Whether the replica takes part in normal operation.
    #[must_use]
    pub fn status(&self) -> Status {
        self.phase.status()
    }

    /// Where the replica stands between two views.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The view, as last staged: it may not be durable yet.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// The last view whose log this replica holds as its own.
    #[must_use]
    pub fn log_view(&self) -> View {
        self.log_view
    }

    /// The last view known to have started: what clients may be told (hazard D28).
    #[must_use]
    pub fn started_view(&self) -> View {
        self.log_view
    }

    /// What is known to be committed.
    #[must_use]
    pub fn commit(&self) -> CommitNumber {
        self.commit
    }

    /// The last applied op.
    #[must_use]
    pub fn applied(&self) -> OpNumber {
        self.applied
    }

    /// The highest op in the log.
    #[must_use]
    pub fn head(&self) -> OpNumber {
        self.log.head()
    }

    /// The checksum that names the log up to `op`, if the header is known.
    #[must_use]
    pub fn checksum(&self, op: OpNumber) -> Option<super::checksum::Checksum> {
        self.log.checksum(op)
    }

    /// The number of sessions in the table.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// One number for the session table; costs its whole length.
    #[must_use]
    pub fn sessions_digest(&self) -> super::checksum::Checksum {
        self.sessions.digest()
    }

    /// The disk's identity, and how often the replica was started on it.
    #[must_use]
    pub fn incarnation(&self) -> (Incarnation, u64) {
        (self.state.incarnation, self.state.starts)
    }

    /// Requests that wait for a place in the pipeline.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.primary.queue.len()
    }

    /// What the replica was told at its start, beside what its disk says.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Entries, headers and reads that repair and view changes keep in memory for a while.
    #[must_use]
    pub fn kept_for_repair(&self) -> usize {
        self.view_change.copies.len() + self.view_change.found.len() + self.repair.reads.len()
    }

    /// Whether this replica is the primary of its view, in normal operation.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.phase == Phase::Normal && self.primary_id() == self.id
    }

    /// The primary of the present view, whether or not it has started.
    #[must_use]
    pub fn primary_id(&self) -> ReplicaId {
        self.membership.primary(self.view)
    }

    /// Why the replica has stopped, if it has. Nothing leaves it any more. While there is something left that has to be
    /// durable first, it is silent, and says nothing yet.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref().filter(|_| self.last_batch.is_none())
    }

    /// Tells the time. Call before every other input.
    pub fn set_time(&mut self, now: Monotonic, wall: Timestamp) {
        self.now = self.now.max(now);
        self.wall = wall;
    }

    /// The time that it was told last.
    #[must_use]
    pub fn time(&self) -> Monotonic {
        self.now
    }

    /// A message has arrived.
    pub fn on_message(&mut self, from: Peer, message: Message, machine: &dyn Machine) {
        if self.fault.is_some() {
            return;
        }
        let from = match from {
            Peer::Client(client) => {
                match message {
                    Message::Requests { requests, .. } => {
                        let own = requests.into_iter().filter(|request| request.client == client);
                        let plausible = self.refuse_absurd(Some(Peer::Client(client)), own.collect());
                        self.on_requests(Some(Peer::Client(client)), plausible, false, machine);
                    }
                    _ => self.ignore(message.name(), "clients send requests only"),
                }
                return;
            }
            Peer::Replica(id) => id,
        };
        let Some(index) = self.membership.index_of(from).filter(|&index| index != self.index) else {
            self.ignore(message.name(), "the sender is no other member");
            return;
        };
        if !message.is_plausible(self.membership.epoch) {
            self.ignore(message.name(), "absurd numbers, or another epoch");
            return;
        }
        if message.view().is_some_and(|view| view.number.saturating_sub(self.view.number) > VIEW_LEAP_MAX) {
            // One forged or damaged number must not use up the numbers of views.
            self.ignore(message.name(), "too many views ahead");
            return;
        }
        // Whoever is heard is not down, whatever a hint said: hints may be wrong, and their end may be lost.
        self.peers[index].down = None;
        self.peers[index].heard_at = self.now;
        match message {
            Message::Requests { requests, forwarded } => {
                self.on_requests(Some(Peer::Replica(from)), requests, forwarded, machine);
            }
            Message::Replies { replies, .. } => self.on_replies(replies),
            Message::Prepare { view, commit, entry } => self.on_prepare(from, view, commit, entry),
            Message::PrepareOk { life, .. }
            | Message::CommitOk { life, .. }
            | Message::StartViewChange { life, .. }
                if !self.counts(index, life) =>
            {
                self.ignore(message.name(), "a life of the sender that does not count");
            }
            Message::PrepareOk { view, op, checksum, .. } => self.on_prepare_ok(index, view, op, checksum),
            Message::Commit { view, commit, head, number } => self.on_commit(from, view, commit, head, number),
            Message::CommitOk { view, number, .. } => self.on_commit_ok(index, view, number),
            Message::StartViewChange { view, .. } => self.on_start_view_change(index, view),
            Message::DoViewChange(dvc) => self.on_do_view_change(index, dvc),
            Message::StartView(start) => self.on_start_view(from, start),
            Message::RequestStartView { view, nonce } => self.on_request_start_view(from, view, nonce),
            Message::RequestHeaders { op, checksum, count } => self.on_request_headers(from, op, checksum, count),
            Message::Headers { headers } => self.on_headers(headers),
            Message::RequestEntries { wanted } => self.on_request_entries(from, wanted),
            Message::Entries { entries } => self.on_entries(entries),
            Message::Ping(ping) => self.on_ping(index, ping),
            Message::ReadIndex { nonce } => self.on_read_index(from, nonce),
            Message::ReadIndexOk { nonce, index } => self.on_read_index_ok(nonce, index),
            Message::Query { .. } | Message::Answer { .. } | Message::RequestStatus { .. } | Message::Status { .. } => {
                self.ignore(message.name(), "not for the protocol")
            }
        }
    }

    /// A batch is durable.
    pub fn on_written(&mut self, batch: BatchNumber) {
        if self.fault.is_some() {
            self.writes.in_flight = None;
            self.last_batch = self.last_batch.filter(|last| *last > batch);
            return;
        }
        assert!(
            self.writes.in_flight.is_some_and(|(in_flight, _)| in_flight == batch),
            "batch {batch} completed, but {:?} is in flight",
            self.writes.in_flight
        );
        self.writes.in_flight = None;
        self.writes.in_flight_bytes = 0;
        self.writes.completed = batch;
        self.outbox.release(batch);
        match self.status() {
            Status::ViewChange => {
                self.on_view_durable();
                if self.is_repairing_primary() {
                    // What it waits for must not wait for it.
                    self.stage_unstaged();
                }
            }
            Status::Normal => {
                self.stage_unstaged();
                self.on_slots_durable();
            }
        }
    }

    /// A timer may be due.
    pub fn on_timer(&mut self) {
        if self.fault.is_some() {
            return;
        }
        if self.now >= self.ping_at {
            self.on_ping_due();
            self.refresh_commit();
        }
        if self.now >= self.primary.heartbeat_at {
            self.on_heartbeat_due();
        }
        if self.now >= self.view_change.deadline {
            self.on_view_change_timeout();
        }
        if self.now >= self.retry_at {
            let jitter = self.random.below(self.options.timing.retry.as_nanos() as u64 / 4 + 1);
            self.retry_at = self.now.after(self.options.timing.retry + Duration::from_nanos(jitter));
            self.on_retry();
        }
    }

    /// When [`on_timer`](Self::on_timer) wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Monotonic {
        if self.fault.is_some() {
            return super::primary::NEVER;
        }
        self.ping_at.min(self.primary.heartbeat_at).min(self.view_change.deadline).min(self.retry_at)
    }

    /// The end of a turn: closes a batch of requests if the pipeline has room. Batches form by
    /// themselves, because a turn takes in everything that has arrived.
    pub fn end_turn(&mut self) {
        if self.fault.is_none() {
            self.prepare_queued();
            self.flush_reads();
            self.refresh_record();
            self.note_stall();
        }
    }

    /// How many bytes storage can still take.
    pub fn set_room(&mut self, bytes: u64) {
        self.writes.room = bytes;
    }

    /// The next batch to write, when none is in flight: the group commit.
    pub fn take_batch(&mut self) -> Option<(BatchNumber, Batch)> {
        let is_over = self.fault.is_some() && self.last_batch.is_none();
        if self.writes.in_flight.is_some() || self.writes.staging.is_empty() || is_over {
            return None;
        }
        self.writes.issued = self.writes.next();
        self.writes.in_flight = Some((self.writes.issued, self.now));
        self.writes.in_flight_bytes = std::mem::take(&mut self.writes.staged_bytes);
        Some((self.writes.issued, std::mem::take(&mut self.writes.staging)))
    }

    /// Messages that may leave now, in order. The caller drains them.
    pub fn outgoing(&mut self) -> &mut Vec<Envelope> {
        if self.fault.is_some() {
            self.outbox.ready().clear();
        }
        self.outbox.ready()
    }

    /// Answers for the replica's own handle.
    pub fn take_local_replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.local_replies)
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Requests of the replica's own handle.
    pub fn submit(&mut self, requests: Vec<Request>, machine: &dyn Machine) {
        if self.fault.is_none() {
            let plausible = self.refuse_absurd(None, requests);
            self.on_requests(None, plausible, false, machine);
        }
    }

    /// The transport lost its connection to a peer. A hint: it speeds up suspicion and is never
    /// believed (rule 7.9).
    pub fn on_peer_down(&mut self, peer: ReplicaId, refused: bool) {
        if let Some(index) = self.membership.index_of(peer).filter(|_| self.fault.is_none()) {
            let (since, was_refused) = self.peers[index].down.unwrap_or((self.now, false));
            self.peers[index].down = Some((since, was_refused || refused));
            self.on_hint(index);
        }
    }

    /// The transport has a connection to a peer again.
    pub fn on_peer_up(&mut self, peer: ReplicaId) {
        if let Some(index) = self.membership.index_of(peer).filter(|_| self.fault.is_none()) {
            self.peers[index].down = None;
            self.primary.resend_soon(index);
            // Who this is, and how far its log reaches, is the first thing that a peer has to know.
            self.ping_at = self.now;
        }
    }

    // ---- shared by the handlers ----

    /// Hands a message to the choke point, bound to the batch that it needs (rule 6.4).
    /// Whether it is kept: what waits for a hung disk has a bound.
    pub(crate) fn send(&mut self, to: ReplicaId, message: Message) -> bool {
        let after = self.needs(&message);
        self.outbox.send(after, self.writes.completed, Peer::Replica(to), message)
    }

    /// To every other member.
    pub(crate) fn broadcast(&mut self, message: &Message) {
        let after = self.needs(message);
        for at in 0..self.membership.n() {
            if at != self.index {
                let to = Peer::Replica(self.membership.members[at].id);
                self.outbox.send(after, self.writes.completed, to, message.clone());
            }
        }
    }

    /// To a client, or to the replica that forwarded for it.
    pub(crate) fn send_to(&mut self, to: Peer, message: Message) {
        let after = self.needs(&message);
        self.outbox.send(after, self.writes.completed, to, message);
    }

    /// The batch that a message has to wait for: everything that speaks of the log or of a view waits
    /// for the durable view, and what speaks as a member of a started view for the durable log_view.
    pub(crate) fn needs(&self, message: &Message) -> BatchNumber {
        match message {
            Message::RequestHeaders { .. }
            | Message::Headers { .. }
            | Message::RequestEntries { .. }
            | Message::Entries { .. }
            | Message::RequestStatus { .. }
            | Message::Status { .. }
            | Message::Query { .. } => BatchNumber(0),
            // The number of the start is in the client id and in the nonces: until it is durable, the next
            // life may have the same ones, and take an answer to this one for its own.
            Message::Requests { .. } | Message::ReadIndex { .. } => BatchNumber(1),
            Message::RequestStartView { .. } => self.writes.view_batch,
            // These name the life.
            Message::StartViewChange { .. } | Message::Ping(_) => self.writes.view_batch.max(BatchNumber(1)),
            Message::PrepareOk { .. } | Message::CommitOk { .. } | Message::DoViewChange(_) => {
                self.writes.view_batch.max(self.writes.log_view_batch).max(BatchNumber(1))
            }
            Message::Replies { .. }
            | Message::Prepare { .. }
            | Message::Commit { .. }
            | Message::StartView(_)
            | Message::ReadIndexOk { .. }
            | Message::Answer { .. } => self.writes.view_batch.max(self.writes.log_view_batch),
        }
    }

    /// The record of where the replica stands now, with the headers that its view fixes.
    pub(crate) fn record(&self, suffix: Suffix) -> VsrState {
        VsrState {
            head_certain: self.head_certain,
            view: self.view,
            log_view: self.log_view,
            commit: self.commit,
            suffix,
            ..self.state.clone()
        }
    }

    /// Stages the record as it was staged last, with a newer commit number in normal operation: what a view has fixed stays.
    pub(crate) fn restage_state(&mut self) {
        let commit = self.recordable_commit();
        let mut record = self.state.clone();
        if self.status() == Status::Normal && self.views_are_durable() && commit > record.commit {
            record.commit = commit;
            record.suffix.headers.retain(|header| header.op >= commit.op());
        }
        self.stage_state(record);
    }

    /// What the record may call committed: it is on this disk, too (rule 6.12).
    pub(crate) fn recordable_commit(&mut self) -> CommitNumber {
        let commit = self.commit.op().min(self.log.head());
        let is_stored = |core: &Core, op| core.log.slot(op).is_some_and(|slot| slot.is_durable(core.writes.completed));
        let mut stored = self.state.commit.op().max(self.stored.min(commit));
        while stored < commit && is_stored(self, stored.next()) {
            stored = stored.next();
        }
        self.stored = stored;
        CommitNumber(stored.0)
    }

    /// Stages the record that is to be written into the batch being gathered; a staged one is never edited, only
    /// followed by another. Puts that were not handed out yet are dropped from the batch, as no slot that a view change
    /// touches may be written beside a state.
    pub(crate) fn stage_state(&mut self, mut record: VsrState) {
        let entries = std::mem::take(&mut self.writes.staging.entries);
        for entry in entries {
            if let Some(slot) = self.log.slot_mut(entry.header.op) {
                slot.staged = None;
                self.writes.unstage(entry.header.op, disk_bytes(entry.body.len() as u64));
            }
        }
        self.writes.staged_bytes = 0;
        record.doubted = self.still_doubted(&record);
        self.state = record.clone();
        self.writes.staging.state = Some(record);
    }

    /// Of the ops that the record calls lost, perhaps, the range in which some are not on the disk again.
    fn still_doubted(&self, record: &VsrState) -> Option<Doubted> {
        let Doubted { above, to } = record.doubted?;
        // An op that is known to be committed is never denied.
        let above = above.max(record.commit.op());
        let mut missing = (above.0 + 1..=to.0.min(self.log.head().0)).map(OpNumber);
        let is_missing = |op: &OpNumber| !self.log.slot(*op).is_some_and(|slot| slot.is_durable(self.writes.completed));
        let first = missing.find(is_missing)?;
        Some(Doubted { above: first.prev(), to: to.min(self.log.head()) })
    }

    /// Stages the put of a slot whose body is in memory and not durable yet. An entry that is durable
    /// with its checksum is never put again (rule 6.8).
    pub(crate) fn stage_put(&mut self, op: OpNumber) {
        let next = self.writes.next();
        let Some(slot) = self.log.slot_mut(op) else { return };
        if slot.staged.is_some() {
            return;
        }
        if let (Some(header), Body::Memory(body)) = (slot.header, &slot.body) {
            if self.writes.staging.state.is_some() {
                let bytes = disk_bytes(body.len() as u64);
                return self.writes.unstage(op, bytes);
            }
            slot.staged = Some(next);
            self.writes.staged_bytes += disk_bytes(body.len() as u64);
            let entry = super::entry::Entry { header, body: body.clone() };
            self.writes.staging.entries.push(entry);
        }
    }

    /// Whether the durable view and log_view are the present ones.
    pub(crate) fn views_are_durable(&self) -> bool {
        self.writes.view_batch.max(self.writes.log_view_batch) <= self.writes.completed
    }

    pub(crate) fn ignore(&mut self, message: &'static str, why: &'static str) {
        self.events.push(Event::Ignored { message, why });
    }

    pub(crate) fn mark(&mut self, name: &'static str) {
        self.events.push(Event::Mark(name));
    }

    pub(crate) fn stop(&mut self, fault: Fault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
        }
    }

    pub(crate) fn raise_commit(&mut self, commit: CommitNumber) {
        if commit > self.commit {
            self.commit = commit;
            self.view_change.backoff = 0;
            self.view_change.fast_votes = 0;
            self.events.push(Event::Committed { commit });
        }
    }

    /// The quorum-th highest of the members' numbers.
    pub(crate) fn quorum_value(&self, values: impl Iterator<Item = u64>, quorum: u8) -> u64 {
        let mut sorted = [0; super::membership::MEMBERS_MAX];
        let mut count = 0;
        for value in values {
            sorted[count] = value;
            count += 1;
        }
        sorted[..count].sort_unstable_by(|a, b| b.cmp(a));
        sorted[usize::from(quorum) - 1]
    }

    pub(crate) fn on_ping_due(&mut self) {
        self.ping_at = self.now.after(self.options.timing.ping);
        let ping = super::message::Ping {
            view: self.view,
            normal: self.status() == Status::Normal,
            commit: self.commit,
            head: self.log.head(),
            wall: self.wall,
            checkpoint: self.state.checkpoint,
            machine_version: self.options.machine_version,
            head_certain: self.head_certain,
            has_room: self.has_room_for_ops(),
            life: self.life(),
            known: self.state.known.clone(),
        };
        self.peers[self.index].wall = Some((self.wall, self.now));
        self.broadcast(&Message::Ping(ping));
    }

    fn on_ping(&mut self, from: usize, ping: super::message::Ping) {
        self.check_own(from, ping.life, &ping.known);
        if self.fault.is_some() {
            return;
        }
        if !self.introduce(from, ping.life, ping.head, ping.head_certain) {
            return self.ignore("Ping", "a life of the sender that does not count");
        }
        self.on_known(&ping.known);
        self.peers[from].has_room = Some((ping.has_room, self.now));
        self.peers[from].log = ping.normal.then_some((ping.view, ping.head));
        self.on_first_ping();
        self.peers[from].wall = Some((ping.wall, self.now));
        self.peers[from].machine_version = Some(ping.machine_version);
        if ping.view > self.view || (ping.view == self.view && ping.normal && self.status() == Status::ViewChange) {
            self.ask_for_start_view(ping.view);
        }
    }

    /// The clock for timestamps: the median of what a quorum reported, so that one mad clock cannot
    /// run away with the cluster (rule 5.11).
    pub(crate) fn agreed_clock(&self) -> Timestamp {
        let age_max = self.options.timing.ping * 8;
        let mut clocks = [0; super::membership::MEMBERS_MAX];
        let mut count = 0;
        for (at, peer) in self.peers.iter().enumerate() {
            let reported = if at == self.index { Some((self.wall, self.now)) } else { peer.wall };
            if let Some((wall, when)) = reported.filter(|(_, when)| self.now.since(*when) <= age_max) {
                clocks[count] = wall.0.saturating_add(self.now.since(when).as_nanos() as u64);
                count += 1;
            }
        }
        clocks[..count].sort_unstable();
        if count >= usize::from(self.membership.quorums.replication) {
            Timestamp(clocks[(count - 1) / 2])
        } else {
            Timestamp(0)
        }
    }

    /// Reads of entries that the driver has to do, at most `max` of them.
    pub fn take_reads(&mut self, max: usize) -> Vec<super::repair::ReadRequest> {
        let max = max.min(self.repair.reads.len());
        self.repair.reads.drain(..max).collect()
    }

    /// The timestamp of the last applied op.
    #[must_use]
    pub fn applied_timestamp(&self) -> Timestamp {
        self.applying.timestamp
    }

    /// Bytes of entries in the log.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Sends a client something that the driver made, through the choke point.
    pub fn send_to_client(&mut self, client: ClientId, message: Message) {
        self.send_to(Peer::Client(client), message);
    }
}
