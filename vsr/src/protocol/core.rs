//! The protocol as a value: inputs in, effects out; no I/O, no clock, no entropy of its own.
//!
//! [`turn`](super::turn) is the one way in and out. Here is what the roles share: dispatch, timers, the record, and the way out
//! for messages.
//!
//! A decision is made by a part, which takes what it needs and returns a result: what becomes of a request, what a log that takes its
//! place leaves standing, what is missing, which votes count, what a message waits for. `Core` calls the parts in order and carries the
//! results out.
//!
//! What is still `impl Core`, in this file and in those of the roles, is that order: each step of a role reads and writes the log, the
//! writes, the outbox and the phase, and what one role does can make another act within the same turn (an acknowledgement commits, a
//! vote enters a view, a repaired body makes a primary). As methods of the roles they would take five or more references each, and
//! return lists of what the others have to do: the order, on which safety depends, would be harder to see.

use std::time::Duration;

use crate::protocol::health::explain::Stall;
use crate::protocol::health::halt::Halt;
use crate::protocol::health::invariants::{BrokenInvariant, Numbers, Promises};
use crate::protocol::log::log::{Log, LogSlot};
use crate::protocol::log::outbox::Outbox;
use crate::protocol::log::writes::Writes;
use crate::protocol::normal::apply::{Applying, Machine};
use crate::protocol::normal::backup::Backup;
use crate::protocol::normal::checkpoints::Checkpoints;
use crate::protocol::normal::pipeline::Primary;
use crate::protocol::normal::progress::Tracker;
use crate::protocol::normal::read_rounds::ReadRounds;
use crate::protocol::normal::sessions::SessionTable;
use crate::protocol::recovery::fetching::Transfer;
use crate::protocol::recovery::lives::ThisLife;
use crate::protocol::recovery::repair::Repair;
use crate::protocol::recovery::replacements::Rejoin;
use crate::protocol::timers::Timers;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::event::{Event, Mark};
use crate::protocol::types::life::{Known, Life, Succession};
use crate::protocol::types::membership::Membership;
use crate::protocol::types::message::{Message, Peer, Ping, Reply};
use crate::protocol::types::number::{
    BatchNumber, CommitNumber, DiskId, Monotonic, NEVER, OpNumber, ReplicaId, Timestamp, View,
};
use crate::protocol::types::options::Options;
use crate::protocol::types::random::Random;
use crate::protocol::types::vsr_state::{Suffix, VsrState};
use crate::protocol::view_change::phase::{Phase, Status};
use crate::protocol::view_change::view_change::ViewChange;

/// How many views a message may be ahead of the replica's view. A replica that was away while more views passed
/// (months, at the shortest time-out) has to be replaced (rule 7.12).
const VIEW_LEAP_MAX: u64 = 1 << 24;

/// What the caller is told at the end of the turn, beside messages, the write and the reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct News {
    /// Answers to the requests of the replica's own handle.
    pub(crate) replies: Vec<Reply>,
    pub(crate) events: Vec<Event>,
    pub(crate) marks: Vec<Mark>,
}

/// One replica's protocol: who it is, where it stands between two views, its log and the way of the log to the disk, and what each
/// role keeps.
#[derive(Clone, Debug)]
pub struct Core {
    pub(crate) id: ReplicaId,
    /// The place of `id` among the members.
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
    pub(crate) writes: Writes,
    pub(crate) outbox: Outbox,
    pub(crate) sessions: SessionTable,
    pub(crate) timers: Timers,
    pub(crate) primary: Primary,
    pub(crate) backup: Backup,
    pub(crate) view_change: ViewChange,
    pub(crate) repair: Repair,
    pub(crate) this_life: ThisLife,
    pub(crate) reads: ReadRounds,
    pub(crate) applying: Applying,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) transfer: Transfer,
    pub(crate) progress: Tracker,
    pub(crate) random: Random,
    pub(crate) now: Monotonic,
    pub(crate) wall: Timestamp,
    pub(crate) halted: Option<Halt>,
    /// Of the numbers at the end of the last turn those that only rise.
    pub(crate) checked: Numbers,
    pub(crate) news: News,
    /// The last turn has left nothing to do until something arrives or a timer is due.
    pub(crate) rests: bool,
    /// What the record remembers of the members has changed.
    pub(crate) record_due: bool,
    pub(crate) stall: Stall,
    pub(crate) rejoin: Rejoin,
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

    /// The last op that was dropped from the log; 0 while it begins with op 1.
    #[must_use]
    pub fn log_base(&self) -> OpNumber {
        self.log.base()
    }

    /// The checksum that names the log up to `op`, if the header is known.
    #[must_use]
    pub fn checksum(&self, op: OpNumber) -> Option<Checksum> {
        self.log.checksum(op)
    }

    /// Whether the body of an op is here, in memory or on the disk.
    #[must_use]
    pub fn holds(&self, op: OpNumber) -> bool {
        self.log.slot(op).is_some_and(LogSlot::is_present)
    }

    /// The number of sessions in the table.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// One number for the session table; costs its whole length.
    #[must_use]
    pub fn sessions_digest(&self) -> Checksum {
        self.sessions.digest()
    }

    /// The disk's identity, and how often the replica was started on it.
    #[must_use]
    pub fn disk_and_starts(&self) -> (DiskId, u64) {
        (self.state.disk_id, self.state.starts)
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
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref().filter(|_| self.writes.before_stop.is_none())
    }

    /// The time that it was told last.
    #[must_use]
    pub fn time(&self) -> Monotonic {
        self.now
    }

    /// A message has arrived.
    pub(crate) fn on_message(&mut self, from: Peer, message: Message, machine: &dyn Machine) {
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
            self.ignore(message.name(), "the sender is not another member");
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
        if let Some(member) = self.progress.get_mut(from) {
            member.on_heard(self.now);
        }
        self.rejoin.highest_view = self.rejoin.highest_view.max(message.view().unwrap_or_default());
        match message {
            Message::Requests { requests, forwarded } => {
                self.on_requests(Some(Peer::Replica(from)), requests, forwarded, machine);
            }
            Message::Replies { replies, .. } => self.on_replies(replies),
            Message::Prepare { view, commit, entry } => self.on_prepare(from, view, commit, entry),
            Message::PrepareOk { life, .. }
            | Message::CommitOk { life, .. }
            | Message::StartViewChange { life, .. }
                if !self.counts(from, life) =>
            {
                self.ignore(message.name(), "a life of the sender that does not count");
            }
            Message::PrepareOk { view, op, checksum, .. } => self.on_prepare_ok(from, view, op, checksum),
            Message::Commit { view, commit, head, number } => self.on_commit(from, view, commit, head, number),
            Message::CommitOk { view, number, .. } => self.on_commit_ok(from, view, number),
            Message::StartViewChange { leaving: view, .. } => self.on_start_view_change(index, view),
            Message::DoViewChange(dvc) => self.on_do_view_change(index, *dvc),
            Message::StartView(start) => self.on_start_view(from, start),
            Message::RequestStartView { view, nonce } => self.on_request_start_view(from, view, nonce),
            Message::RequestHeaders { op, checksum, count } => self.on_request_headers(from, op, checksum, count),
            Message::Headers { headers } => self.on_headers(headers),
            Message::RequestEntries { wanted } => self.on_request_entries(from, wanted),
            Message::Entries { entries } => self.on_entries(entries),
            Message::RequestCheckpoint { id, parts } => self.on_request_checkpoint(from, id, parts),
            Message::CheckpointPart { id, part, bytes } => self.on_checkpoint_part(from, id, part, bytes),
            Message::Ping(ping) => self.on_ping(from, *ping),
            Message::ReadIndex { nonce } => self.on_read_index(from, nonce),
            Message::ReadIndexOk { nonce, index } => self.on_read_index_ok(nonce, index),
            Message::Query { .. } | Message::Answer { .. } | Message::RequestStatus { .. } | Message::Status { .. } => {
                self.ignore(message.name(), "not for the protocol")
            }
        }
    }

    /// A batch is durable. At any but the one in flight the replica stops: messages would leave before they are true.
    pub(crate) fn on_written(&mut self, batch: BatchNumber) {
        if let Err(in_flight) = self.writes.complete(batch) {
            return self.stop(BrokenInvariant::UnknownWrite { completed: batch, in_flight }.into());
        }
        self.outbox.release(batch);
        self.on_checkpoint_named();
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

    /// Slots have become durable: the acknowledgement is decided anew from the present log.
    fn on_slots_durable(&mut self) {
        self.applying.cache.on_durable(&mut self.log, self.writes.completed);
        let before = self.writes.durable;
        self.advance_durable();
        if self.writes.durable == before {
            return;
        }
        if self.is_primary() {
            self.advance_commit();
        } else {
            self.send_prepare_ok();
        }
    }

    /// Walks `durable` up over slots that are durable; at a backup, too, over what is known to be committed by others.
    pub(crate) fn advance_durable(&mut self) {
        let believed = if self.is_primary() { CommitNumber(0) } else { self.commit };
        self.writes.durable = self.writes.durable_up_to(&self.log, self.writes.durable, believed);
    }

    /// A timer may be due.
    pub(crate) fn on_timer(&mut self) {
        if self.now >= self.timers.ping_at {
            self.on_ping_due();
            self.refresh_commit();
        }
        if self.now >= self.timers.heartbeat_at {
            self.on_heartbeat_due();
        }
        if self.now >= self.timers.view_deadline {
            self.on_view_change_timeout();
        }
        if self.now >= self.timers.scrub_at {
            self.on_scrub_due();
        }
        if self.now >= self.timers.retry_at {
            let jitter = self.random.below(self.options.timing.retry.as_nanos() as u64 / 4 + 1);
            self.timers.retry_at = self.now.after(self.options.timing.retry + Duration::from_nanos(jitter));
            self.on_retry();
        }
    }

    /// When the next turn is due, if nothing arrives before: in the past when it is overdue, `Monotonic(u64::MAX)` once
    /// the replica has stopped.
    #[must_use]
    pub fn next_deadline(&self) -> Monotonic {
        if self.halted.is_some() {
            return NEVER;
        }
        self.timers.earliest()
    }

    /// Stops when the replica's numbers contradict each other, or those of the turn before. Nothing of this turn is
    /// told or written then.
    pub(crate) fn check_invariants(&mut self) {
        let numbers = self.numbers();
        match numbers.check(&self.checked) {
            Ok(()) => (self.checked.promises, self.checked.applied) = (numbers.promises, numbers.applied),
            Err(broken) => {
                self.news.replies.clear();
                self.stop(broken.into());
            }
        }
    }

    fn numbers(&self) -> Numbers {
        let VsrState { view, log_view, commit, .. } = self.state;
        Numbers {
            promises: Promises { view: self.view, log_view: self.log_view, commit: self.commit },
            record: Promises { view, log_view, commit },
            is_normal: self.status() == Status::Normal,
            is_primary: self.is_primary(),
            head_certain: self.head_certain,
            applied: self.applied,
            durable: self.writes.durable,
            head: self.log.head(),
            base: self.log.base(),
            issued: self.writes.issued,
            completed: self.writes.completed,
            in_flight: self.writes.in_flight.map(|(batch, _)| batch),
            awaited: self.writes.awaited(),
        }
    }

    /// The transport lost its connection to a peer. A hint: it speeds up suspicion and is never
    /// believed (rule 7.9).
    pub(crate) fn on_peer_down(&mut self, peer: ReplicaId, refused: bool) {
        if let Some(member) = self.progress.get_mut(peer) {
            member.on_down(self.now, refused);
            self.on_hint(peer);
        }
    }

    /// The transport has a connection to a peer again.
    pub(crate) fn on_peer_up(&mut self, peer: ReplicaId) {
        if let Some(member) = self.progress.get_mut(peer) {
            member.on_up();
            // Who this is, and how far its log reaches, is the first thing that a peer has to know.
            self.timers.ping_at = self.now;
        }
    }

    // ---- shared by the handlers ----

    /// Hands a message to the choke point, bound to the batch that it needs (rule 6.4).
    /// Whether it is kept: what waits for a hung disk has a bound.
    pub(crate) fn send(&mut self, to: ReplicaId, message: Message) -> bool {
        let after = self.writes.needs(&message);
        self.outbox.send(after, self.writes.completed, Peer::Replica(to), message)
    }

    /// To every other member.
    pub(crate) fn broadcast(&mut self, message: &Message) {
        let after = self.writes.needs(message);
        for at in 0..self.membership.size() {
            if at != self.index {
                let to = Peer::Replica(self.membership.members[at].id);
                self.outbox.send(after, self.writes.completed, to, message.clone());
            }
        }
    }

    /// To a client, or to the replica that forwarded for it.
    pub(crate) fn send_to(&mut self, to: Peer, message: Message) {
        let after = self.writes.needs(&message);
        self.outbox.send(after, self.writes.completed, to, message);
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
        let record = self.present_record();
        self.stage_state(record);
    }

    /// The record as it was staged last, with a newer commit number in normal operation.
    pub(crate) fn present_record(&mut self) -> VsrState {
        let commit = self.recordable_commit();
        let mut record = self.state.clone();
        if self.status() == Status::Normal && self.views_are_durable() && commit > record.commit {
            record.commit = commit;
            record.suffix.headers.retain(|header| header.op >= commit.op());
        }
        record
    }

    /// What the record may call committed: it is on this disk, too (rule 6.12).
    pub(crate) fn recordable_commit(&mut self) -> CommitNumber {
        self.writes.recordable(&self.log, self.state.commit, self.commit)
    }

    /// Stages the record that is to be written into the batch being gathered; a staged one is never edited, only
    /// followed by another. Puts that were not handed out yet are taken out of the batch, as no slot that a view change
    /// touches may be written beside a state.
    pub(crate) fn stage_state(&mut self, mut record: VsrState) {
        self.writes.postpone_puts(&mut self.log);
        let (commit, completed) = (record.commit, self.writes.completed);
        record.doubted = record.doubted.and_then(|doubted| self.log.still_doubted(doubted, commit, completed));
        self.state = record.clone();
        self.writes.staging.state = Some(record);
    }

    /// Whether the durable view and log_view are the present ones.
    pub(crate) fn views_are_durable(&self) -> bool {
        self.writes.awaited() <= self.writes.completed
    }

    pub(crate) fn ignore(&mut self, message: &'static str, why: &'static str) {
        self.news.marks.push(Mark::Ignored { message, why });
    }

    pub(crate) fn mark(&mut self, name: &'static str) {
        self.news.marks.push(Mark::Path(name));
    }

    pub(crate) fn stop(&mut self, halt: Halt) {
        if self.halted.is_none() {
            self.halted = Some(halt);
        }
    }

    pub(crate) fn raise_commit(&mut self, commit: CommitNumber) {
        if commit > self.commit {
            self.commit = commit;
            self.view_change.backoff = 0;
            self.view_change.fast_votes = 0;
            self.news.events.push(Event::Committed { commit });
            self.repair.committed_at = self.now;
        }
    }

    pub(crate) fn on_ping_due(&mut self) {
        self.timers.ping_at = self.now.after(self.options.timing.ping);
        let digests = self.digests_to_report();
        let ping = Ping {
            view: self.view,
            normal: self.status() == Status::Normal,
            commit: self.commit,
            head: self.log.head(),
            wall: self.wall,
            past: self.past(),
            machine_version: self.options.machine_version,
            head_certain: self.head_certain,
            has_room: self.has_room_for_ops(),
            life: self.life(),
            succession: self.succession(),
            known: self.state.known.clone(),
            digests,
        };
        self.broadcast(&Message::Ping(ping.into()));
    }

    fn on_ping(&mut self, from: ReplicaId, mut ping: Ping) {
        if !ping.succession.counts() {
            return self.on_rejoining_ping(from, &ping);
        }
        if let Succession::Whole { op: since } = ping.succession {
            // Its op is committed: also where that is not known yet.
            let life = Life { disk_id: ping.life.disk_id, ..Life::default() };
            self.know_replacement(Known { replica: from, life, acknowledged: OpNumber::ZERO, since });
        }
        self.check_own(from, ping.life, &ping.known);
        if self.halted.is_some() {
            return;
        }
        if !self.introduce(from, ping.life, ping.head, ping.head_certain) {
            return self.ignore("Ping", "a life of the sender that does not count");
        }
        self.on_known(&ping.known);
        if ping.machine_version != self.options.machine_version {
            // Another version may have another way to compute them.
            ping.digests.clear();
        }
        self.on_digests(from, std::mem::take(&mut ping.digests));
        if self.halted.is_some() {
            return;
        }
        if let Some(member) = self.progress.get_mut(from) {
            member.on_ping(&ping, self.now);
        }
        self.note_past(from, ping.view, ping.past);
        self.on_first_ping();
        if ping.view > self.view || (ping.view == self.view && ping.normal && self.status() == Status::ViewChange) {
            self.ask_for_start_view(ping.view);
        }
    }

    /// The timestamp of the last applied op.
    #[must_use]
    pub fn applied_timestamp(&self) -> Timestamp {
        self.applying.timestamp
    }

    /// Bytes of the entries in the log above an op, counted.
    #[must_use]
    pub fn log_bytes_above(&self, op: OpNumber) -> u64 {
        let headers =
            (op.0.max(self.log.base().0) + 1..=self.log.head().0).filter_map(|op| self.log.header(OpNumber(op)));
        headers.map(|header| u64::from(header.body_len)).sum()
    }

    /// Bytes of entries in the log.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }
}
