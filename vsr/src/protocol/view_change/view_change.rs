//! Leaving a view and starting the next one (rules 7.1 to 7.5, VRR 4.2 and its errata).
//!
//! A `StartViewChange` is a vote that promises nothing; a quorum of them moves to the next view. A
//! `DoViewChange` is a durable promise never to go back. `decide` chooses the log.

use std::collections::BTreeMap;
use std::time::Duration;

use super::phase::{LogSource, Phase, Status};
use super::votes::Votes;
use crate::protocol::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::health::invariants::BrokenInvariant;
use crate::protocol::normal::progress::Down;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::{Entry, Header};
use crate::protocol::types::event::{Event, ViewChangeReason};
use crate::protocol::types::life::Distrust;
use crate::protocol::types::limits::LEAP_MAX;
use crate::protocol::types::message::{Busy, DoViewChange, Message, Outcome, Peer, Reply, StartView};
use crate::protocol::types::number::{CommitNumber, Monotonic, NEVER, OpNumber, Position, ReplicaId, View};
use crate::protocol::types::quorum;
use crate::protocol::types::vsr_state::{Doubted, Suffix, VsrState};

/// What a replica keeps while it votes, and while a view has not started.
#[derive(Clone, Debug)]
pub(crate) struct ViewChange {
    /// Failed view changes since the last progress.
    pub(crate) backoff: u32,
    /// Votes cast on a broken connection since the last progress.
    pub(crate) fast_votes: u32,
    votes: Votes,
    pub(crate) dvcs: Vec<Option<DoViewChange>>,
    /// That an op is lost was said in this view.
    pub(crate) lost_told: bool,
    /// Entries that arrived while the log was being chosen.
    pub(crate) copies: BTreeMap<(OpNumber, Checksum), Entry>,
    /// Bytes of their bodies.
    pub(crate) copies_bytes: u64,
    /// Headers that arrived by repair.
    pub(crate) found: BTreeMap<(OpNumber, Checksum), Header>,
    progress_at: Monotonic,
}

/// Copies kept while a log is being chosen. More than a suffix can ask for, less than a hostile peer can
/// send.
const COPIES_MAX: usize = 8192;

impl ViewChange {
    pub(crate) fn new(members: usize) -> ViewChange {
        ViewChange {
            backoff: 0,
            fast_votes: 0,
            votes: Votes::new(members),
            dvcs: vec![None; members],
            lost_told: false,
            copies: BTreeMap::new(),
            copies_bytes: 0,
            found: BTreeMap::new(),
            progress_at: Monotonic(0),
        }
    }

    /// What a member has said in an older life counts no more.
    pub(crate) fn forget(&mut self, member: usize) {
        self.votes.forget(member);
        self.dvcs[member] = None;
    }

    fn reset(&mut self) {
        self.votes.clear();
        self.dvcs.fill(None);
        self.lost_told = false;
        self.copies.clear();
        self.copies_bytes = 0;
        self.found.clear();
    }

    /// An entry has arrived while the log of the view is not known.
    pub(crate) fn note_copy(&mut self, entry: &Entry, bytes_max: u64) {
        let bytes = self.copies_bytes + entry.body.len() as u64;
        if self.copies.len() < COPIES_MAX && bytes <= bytes_max {
            let key = (entry.header.op, entry.header.checksum());
            if self.copies.insert(key, entry.clone()).is_none() {
                self.copies_bytes = bytes;
            }
        }
    }

    pub(crate) fn note_progress(&mut self, now: Monotonic) {
        self.progress_at = now;
    }
}

impl Core {
    /// Whether this primary has given up on its view and votes to leave it.
    pub(crate) fn is_abdicating(&self) -> bool {
        self.is_primary() && self.view_change.votes.own().is_some()
    }

    /// The primary of a view whose log is chosen and whose bodies are not all here yet.
    pub(crate) fn is_repairing_primary(&self) -> bool {
        self.phase == Phase::RepairingPrimary
    }

    /// Makes the step to another phase: the only place in which a phase changes. Returns false when the present one does
    /// not lead there: then the replica has stopped, and the caller must not go on.
    pub(crate) fn enter_phase(&mut self, next: Phase) -> bool {
        match self.phase.step(next) {
            Ok(next) => self.phase = next,
            Err(illegal) => {
                self.stop(illegal.into());
                return false;
            }
        }
        true
    }

    // ---- votes ----

    /// Casts this replica's vote to leave its view. Neither status nor view changes by it.
    pub(crate) fn vote(&mut self, why: ViewChangeReason) {
        if !self.counts_in_quorums() {
            return;
        }
        if self.view_change.votes.cast_own(why) {
            self.news.events.push(Event::Voted { view: self.view, why });
            self.broadcast(&Message::StartViewChange { leaving: self.view, life: self.life() });
        }
        self.count_votes();
    }

    /// A fresh heartbeat of the primary withdraws this replica's vote, unless the reason of the vote is an unanswered forward.
    pub(crate) fn on_sign_of_primary(&mut self) {
        self.backup.heard_at = self.now;
        self.arm_deadline();
        if self.view_change.votes.own().is_some_and(|why| why != ViewChangeReason::Forward) {
            self.view_change.votes.withdraw();
        }
    }

    /// A vote names the view that its sender wants to leave, and is durably in.
    pub(crate) fn on_start_view_change(&mut self, from: usize, view: View) {
        if view > self.view {
            if !self.counts_in_quorums() {
                return self.ask_for_start_view(view);
            }
            self.mark("joined a view by a vote");
            return self.enter_view(view);
        }
        if view < self.view {
            return self.ignore("StartViewChange", "an older view");
        }
        self.view_change.votes.cast(from, self.now.after(self.options.timing.retry * 6));
        self.count_votes();
    }

    fn count_votes(&mut self) {
        let votes = self.view_change.votes.count(self.now);
        if votes >= usize::from(self.membership.quorums.view_change) && !self.phase.is_writing() {
            self.enter_view(self.view.next());
        }
    }

    pub(crate) fn retry_votes(&mut self) {
        if self.view_change.votes.own().is_some() {
            self.broadcast(&Message::StartViewChange { leaving: self.view, life: self.life() });
            self.count_votes();
        }
    }

    /// The transport reports a broken connection.
    pub(crate) fn on_hint(&mut self, peer: ReplicaId) {
        if peer == self.primary_id() {
            self.vote_if_primary_is_down();
        }
    }

    /// Votes at once while the primary's connection is down, when a reconnect was refused or one
    /// heartbeat stayed silent; a bounded number of times without progress (rule 7.9).
    pub(crate) fn vote_if_primary_is_down(&mut self) {
        let primary = self.primary_id();
        let Some(member) = self.progress.get(primary) else { return };
        let is_down = |Down { since, refused }| refused || self.now.since(since) >= self.options.timing.heartbeat;
        let why = match member.distrust {
            // It has said itself that it cannot lead.
            Some(Distrust::Rejoins) => ViewChangeReason::Rejoins,
            _ if member.down.is_some_and(is_down) => ViewChangeReason::Disconnected,
            _ => return,
        };
        let allowed = self.view_change.fast_votes < self.membership.size() as u32;
        if primary != self.id && allowed && self.view_change.votes.own().is_none() {
            self.view_change.fast_votes += 1;
            self.vote(why);
        }
    }

    /// The deadline of the view has passed: a backup has heard nothing, or a view change has not ended.
    pub(crate) fn on_view_change_timeout(&mut self) {
        match self.status() {
            Status::Normal if self.primary_id() == self.id => self.timers.view_deadline = NEVER,
            Status::Normal => {
                self.arm_deadline();
                self.vote(ViewChangeReason::Silence);
            }
            Status::ViewChange => {
                if self.is_repairing_primary() && self.repair_progresses() {
                    return self.arm_deadline();
                }
                self.view_change.backoff = (self.view_change.backoff + 1).min(3);
                self.arm_deadline();
                self.ask_for_start_view(self.view);
                self.vote(ViewChangeReason::NoProgress);
            }
        }
    }

    /// Whether the repair of a new primary gets anywhere: only then do heartbeats hold the others back.
    pub(crate) fn repair_progresses(&self) -> bool {
        self.now.since(self.view_change.progress_at) < self.options.timing.view_change_timeout
    }

    /// Withdraws the vote that an unanswered forward had caused.
    pub(crate) fn forwards_are_answered(&mut self) {
        if self.view_change.votes.own() == Some(ViewChangeReason::Forward) {
            self.view_change.votes.withdraw();
        }
    }

    pub(crate) fn arm_deadline(&mut self) {
        let timing = self.options.timing;
        let base = match self.status() {
            Status::Normal => timing.primary_timeout,
            Status::ViewChange => timing.view_change_timeout * (1 << self.view_change.backoff),
        };
        let jitter = self.random.below(base.as_nanos() as u64 / 4 + 1);
        self.timers.view_deadline = self.now.after(base + Duration::from_nanos(jitter));
    }

    /// When this replica acts if nothing happens until then: a backup suspects its primary, a view change is given up.
    /// Never as primary. For observers.
    #[must_use]
    pub fn view_deadline(&self) -> Monotonic {
        self.timers.view_deadline
    }

    /// A primary that a quorum does not answer, or whose own disk hangs, gives up the role: it stops
    /// heartbeats and votes (rule 7.2).
    pub(crate) fn check_quorum(&mut self) {
        if !self.is_primary() {
            return;
        }
        let timing = self.options.timing;
        let heard = self.progress.confirmed_at(self.id, self.now);
        let quorum_heard = Monotonic(quorum::reached(self.membership.quorums.replication, heard));
        let deaf = self.now.since(quorum_heard) >= timing.quorum_timeout;
        let stalled = self.membership.size() > 1
            && self.writes.in_flight.is_some_and(|(_, since)| self.now.since(since) >= timing.disk_stall_timeout);
        let full = !self.has_room_for_ops() && self.others_have_room();
        if deaf || stalled || full {
            self.vote(match (deaf, stalled) {
                (true, _) => ViewChangeReason::Unanswered,
                (_, true) => ViewChangeReason::Disk,
                _ => ViewChangeReason::NoRoom,
            });
        } else if self.is_abdicating() {
            self.view_change.votes.withdraw();
            self.timers.heartbeat_at = self.now;
        }
    }

    /// Whether a replication quorum of others has said of late that it has room: then one of them leads better
    /// (rule 7.11).
    fn others_have_room(&self) -> bool {
        let age_max = self.options.timing.ping * 4;
        let with_room = self.progress.iter().filter(|member| member.has_room(self.now, age_max)).count();
        with_room >= usize::from(self.membership.quorums.replication)
    }

    /// Gives up the role on purpose, so that a restart costs no time-out. What is known to be committed goes to the disk: whoever looks at it
    /// while the replica does not run can tell.
    pub(crate) fn hand_over(&mut self) {
        if self.is_primary() && self.membership.size() > 1 {
            self.enter_view(self.view.next());
        } else if self.status() == Status::Normal
            && self.views_are_durable()
            && self.recordable_commit() > self.state.commit
        {
            self.restage_state();
        }
    }

    // ---- entering a view ----

    /// Moves up to a view: the log stays, its uncommitted headers are fixed for this view's
    /// `DoViewChange`, and nothing is said before view and headers are durable.
    pub(crate) fn enter_view(&mut self, view: View) {
        if view <= self.view {
            return self.stop(BrokenInvariant::ViewNotRaised { view: self.view, entered: view }.into());
        }
        let Some(suffix) = self.leave_view() else { return };
        self.view = view;
        let write = self.writes.next();
        if !self.enter_phase(Phase::WritingView { write }) {
            return;
        }
        self.writes.view_batch = write;
        self.stage_state(self.record(suffix));
        self.news.events.push(Event::ViewEntered { view });
        self.arm_deadline();
        self.vote_if_primary_is_down();
    }

    /// Leaves the view: drops the messages that still wait, and all that is remembered of the view. Returns the headers that the next
    /// `DoViewChange` carries: those of the log of log_view, however many views ago that was. `None` after a halt.
    fn leave_view(&mut self) -> Option<Suffix> {
        self.outbox.discard_waiting();
        let suffix = if self.log_view == self.view { self.uncommitted_suffix() } else { self.state.suffix.clone() };
        if !self.enter_phase(Phase::LeavingView) {
            return None;
        }
        self.leave_primary();
        self.restart_reads();
        self.view_change.reset();
        self.view_change.progress_at = self.now;
        self.return_forwards();
        self.repair.forget_asked();
        self.repair.lagging_since = None;
        self.backup.last_heartbeat = 0;
        Some(suffix)
    }

    /// Tells the clients of forwarded requests at once that these have to be sent again.
    fn return_forwards(&mut self) {
        for (client, session, number) in self.repair.forwards.take() {
            let outcome = Outcome::Busy(Busy::NoPrimary);
            let (position, request) = (Position::default(), Checksum::default());
            let reply = Reply { client, session, number, outcome, position, request };
            let own = client == self.options.local_client;
            self.answer_to((!own).then_some(Peer::Client(client)), reply);
        }
        self.flush_answers();
    }

    /// What the next `DoViewChange` and `StartView` say of the log: its uncommitted headers, and the one at the commit number.
    fn uncommitted_suffix(&self) -> Suffix {
        let is_of_log_view = self.state.log_view == self.log_view;
        let recorded: &[Header] = if is_of_log_view { &self.state.suffix.headers } else { &[] };
        self.log.suffix(self.commit, self.applied, self.log_view, recorded)
    }

    /// A write has completed while no view has started.
    pub(crate) fn on_view_durable(&mut self) {
        match self.phase {
            Phase::WritingView { write } if write <= self.writes.completed => self.await_log(),
            Phase::Installing { write, .. } if write <= self.writes.completed => self.on_install_durable(),
            Phase::AwaitingMembers | Phase::RepairingPrimary => self.on_install_durable(),
            _ => {}
        }
    }

    /// View and headers are durable: the `DoViewChange` of the view is sent, and the log waited for.
    pub(crate) fn await_log(&mut self) {
        let chooses = self.primary_id() == self.id && self.counts_in_quorums();
        let next = if chooses { Phase::CollectingDoViewChanges } else { Phase::AwaitingStartView };
        if self.enter_phase(next) {
            self.send_do_view_change();
            self.try_decide();
        }
    }

    /// Broadcasts this view's `DoViewChange`: headers from the durable record, facts of this moment.
    fn send_do_view_change(&mut self) {
        if !self.counts_in_quorums() {
            return;
        }
        let dvc = self.do_view_change();
        self.broadcast(&Message::DoViewChange(dvc.clone().into()));
        self.view_change.dvcs[self.index] = Some(dvc);
    }

    fn do_view_change(&self) -> DoViewChange {
        let (commit, suffix) = (self.state.commit, &self.state.suffix);
        let completed = self.writes.completed;
        let facts = |op| self.log.evidence(OpNumber(op), &suffix.headers, completed);
        let evidence = (commit.0 + 1..=suffix.head.0).map(facts).collect();
        DoViewChange {
            view: self.view,
            log_view: self.log_view,
            commit,
            head: suffix.head,
            head_certain: self.head_certain,
            headers: suffix.headers.clone(),
            evidence,
            past: self.past(),
            life: self.life(),
            known: self.state.known.clone(),
        }
    }

    /// A replica's log for the new view. A higher view is by itself a reason to join: with durable
    /// views this is safe, and without it a star of five replicas deadlocks (hazard D27).
    pub(crate) fn on_do_view_change(&mut self, from: usize, dvc: DoViewChange) {
        if !is_well_formed(&dvc) {
            return self.ignore("DoViewChange", "malformed");
        }
        let sender = self.membership.members[from].id;
        self.check_own(sender, dvc.life, &dvc.known);
        if self.halted.is_some() {
            return;
        }
        if !self.introduce(sender, dvc.life, dvc.head, dvc.head_certain) {
            return self.ignore("DoViewChange", "a life of the sender that does not count");
        }
        self.on_known(&dvc.known);
        self.note_past(sender, dvc.view, dvc.past.clone());
        if dvc.view < self.view {
            return self.ignore("DoViewChange", "an older view");
        }
        if !self.counts_in_quorums() {
            return self.ask_for_start_view(dvc.view);
        }
        if dvc.view > self.view {
            self.mark("joined a view by a DoViewChange");
            self.enter_view(dvc.view);
        }
        if self.primary_id() != self.id {
            return;
        }
        if dvc.head.0.saturating_sub(self.log.head().max(self.transfer.reaches()).0) > LEAP_MAX {
            return self.ignore("DoViewChange", "too far ahead");
        }
        if self.phase.has_log() {
            // Its sender has missed the StartView; only a certain head may take one unasked.
            if self.is_leading() && dvc.head_certain {
                let start = self.start_view(0);
                self.send(sender, Message::StartView(start));
            }
            return;
        }
        self.view_change.dvcs[from] = Some(dvc);
        self.try_decide();
    }

    /// Re-sends what a view that has not started waits for.
    pub(crate) fn retry_view_change(&mut self) {
        if self.phase.awaits_log() {
            self.send_do_view_change();
            self.try_decide();
        }
        if self.is_repairing_primary() {
            self.repair_soon();
        }
        self.vote_if_primary_is_down();
    }

    // ---- starting a view ----

    /// Whether this replica may speak for its view: the log is chosen and durable.
    pub(crate) fn is_leading(&self) -> bool {
        self.primary_id() == self.id && (self.is_primary() || self.is_repairing_primary())
    }

    /// The log of this view, at least its head.
    fn start_view(&self, nonce: u64) -> StartView {
        let Suffix { head, headers } = self.uncommitted_suffix();
        StartView { view: self.view, commit: self.commit, head, headers, nonce, past: self.past() }
    }

    pub(crate) fn on_request_start_view(&mut self, from: ReplicaId, view: View, nonce: u64) {
        if self.is_leading() && self.view >= view {
            let start = self.start_view(nonce);
            self.send(from, Message::StartView(start));
        } else {
            self.ignore("RequestStartView", "not leading that view");
        }
    }

    /// Takes over the log of a view: one batch with the truncation, the headers, the commit number,
    /// view and log_view (rules 7.4, 7.5). Entries are put only when it is durable.
    pub(crate) fn install(&mut self, view: View, head: OpNumber, headers: &[Header], commit: CommitNumber) {
        let begins_with_checkpoint = self.begin_log_with_checkpoint(view);
        let old_head = self.log.head();
        if let Some(diverged) = self.log.contradiction(headers, self.applied) {
            return self.stop(diverged.into());
        }
        let keep = self.log.stays_under(headers, head, self.commit);
        if keep < self.commit.op() {
            return self.stop(Halt::CommittedDropped { commit: self.commit, head });
        }
        if keep < old_head {
            self.log.truncate(keep);
            self.writes.truncate(keep);
            let staged = &mut self.writes.staging.truncate_above;
            *staged = Some(staged.map_or(keep, |before| before.min(keep)));
            self.news.events.push(Event::Truncated { above: keep, head: old_head });
        }
        for header in headers {
            if header.op > self.log.head() {
                self.log.extend(*header);
            } else {
                self.log.adopt(*header);
            }
        }
        self.outbox.withdraw_do_view_changes();
        let mut doubted = self.state.doubted;
        if !self.head_certain {
            // What is named here may have been at the lost end of the log, acknowledged: until its body is durable it is
            // damaged, not missing, over restarts too (rule 7.5 c).
            self.log.mark_missing_as_damaged(keep.min(old_head));
            if let Some(first) = self.log.first_damaged(self.commit.op()) {
                doubted = Some(Doubted { above: first.prev(), to: head });
            }
        }
        self.log.doubt();
        self.raise_commit(commit);
        (self.view, self.log_view) = (view, view);
        let write = self.writes.next();
        let log = if self.primary_id() == self.id { LogSource::Chosen } else { LogSource::StartView };
        if !self.enter_phase(Phase::Installing { write, log }) {
            return;
        }
        self.view_change.progress_at = self.now;
        (self.writes.view_batch, self.writes.log_view_batch) = (write, write);
        if let Err(diverged) = self.log.prove(self.applied) {
            return self.stop(diverged.into());
        }
        let suffix = self.uncommitted_suffix();
        // When this is durable, the head is what the primary of the view has named: it is certain.
        self.stage_state(VsrState { head_certain: true, doubted, ..self.record(suffix) });
        if begins_with_checkpoint {
            self.note_installed();
        }
        self.view_change.copies_bytes = 0;
        for entry in std::mem::take(&mut self.view_change.copies).into_values() {
            self.take_in(entry);
        }
        self.arm_deadline();
        self.repair_soon();
    }

    fn on_install_durable(&mut self) {
        if self.primary_id() != self.id {
            return self.become_backup();
        }
        if self.phase == Phase::RepairingPrimary {
            return self.try_become_primary();
        }
        if self.phase.is_first_start() && self.view == View::default() && !self.is_known_to_be_first() {
            if self.phase != Phase::AwaitingMembers {
                self.enter_phase(Phase::AwaitingMembers);
            }
            return;
        }
        if self.enter_phase(Phase::RepairingPrimary) {
            let start = self.start_view(0);
            self.broadcast(&Message::StartView(start));
            self.begin_as_primary();
            self.try_become_primary();
        }
    }

    /// A disk on which nothing was ever done leads the first view of a cluster only when a view-change quorum has said that it has done
    /// nothing either, and knows of no other disk under this id: else one that was formatted anew would commit beside what its
    /// predecessor has committed (rule 7.17).
    fn is_known_to_be_first(&self) -> bool {
        let fresh = self.progress.iter().filter(|member| member.log == Some((self.view, OpNumber::ZERO))).count();
        fresh + 1 >= usize::from(self.membership.quorums.view_change)
    }

    /// Another member has said what it holds, while this replica waits to lead the first view.
    pub(crate) fn on_first_ping(&mut self) {
        if !self.phase.is_first_start() || self.view != View::default() {
            return;
        }
        let has_begun = |log: (View, OpNumber)| log.0 == self.view && log.1 > OpNumber::ZERO;
        if self.progress.iter().any(|member| member.log.is_some_and(has_begun)) {
            self.mark("the view that a fresh disk would lead has begun without it");
            self.enter_view(self.view.next());
        } else if self.phase == Phase::AwaitingMembers {
            self.on_install_durable();
        }
    }

    /// Normal operation begins when the bodies of all inherited uncommitted ops are here.
    pub(crate) fn try_become_primary(&mut self) {
        if !self.is_repairing_primary() {
            return;
        }
        let (commit, head) = (self.commit, self.log.head());
        let missing = (commit.0 + 1..=head.0).any(|op| !self.log.slot(OpNumber(op)).is_some_and(|s| s.is_present()));
        if missing {
            self.mark("a new primary repairs bodies");
            return self.repair_soon();
        }
        self.reads.inherited_head = head;
        self.index_inherited();
        self.enter_normal();
        self.timers.view_deadline = NEVER;
        self.advance_commit();
    }

    fn become_backup(&mut self) {
        self.head_certain = true;
        self.enter_normal();
        self.backup.heard_at = self.now;
        self.arm_deadline();
        self.send_prepare_ok();
        self.vote_if_primary_is_down();
    }

    fn enter_normal(&mut self) {
        if !self.enter_phase(Phase::Normal) {
            return;
        }
        self.view_change.votes.clear();
        self.writes.durable = self.commit.op().min(self.log.head());
        self.restage();
        self.advance_durable();
        self.repair_soon();
        self.news.events.push(Event::ViewStarted { view: self.view, primary: self.primary_id() });
    }

    /// Puts the entries whose turn had to wait for a vsr state.
    pub(crate) fn stage_unstaged(&mut self) {
        if self.writes.unstaged.is_empty() {
            return;
        }
        for op in self.writes.take_unstaged().into_keys() {
            self.writes.stage_put(&mut self.log, op);
        }
    }

    /// Puts every entry that is in memory and not durable: those of this view's log, and those whose
    /// put gave way to a view change.
    fn restage(&mut self) {
        let head = self.log.head();
        let unstaged = self.writes.take_unstaged();
        for op in unstaged.into_keys().chain((self.commit.0 + 1..=head.0).map(OpNumber)) {
            self.writes.stage_put(&mut self.log, op);
        }
    }

    /// The log of a view that has started, from its primary: it replaces the log of an older view, and only extends that of the same
    /// one; an uncertain head takes the answer to this life's question alone (rule 7.5).
    pub(crate) fn on_start_view(&mut self, from: ReplicaId, start: StartView) {
        if from != self.membership.primary(start.view) || from == self.id {
            return self.ignore("StartView", "not from the primary of its view");
        }
        if start.view < self.view {
            return self.ignore("StartView", "an older view");
        }
        if !is_chain(&start.headers, start.commit, start.head) {
            return self.ignore("StartView", "malformed");
        }
        if !self.head_certain && start.nonce != self.this_life.nonce {
            return self.ignore("StartView", "the head is uncertain, and it does not answer this life's request");
        }
        // An earlier one that was delayed: what a fetched checkpoint contains is committed, too.
        if start.head < self.commit.op().max(self.transfer.reaches()) {
            return self.ignore("StartView", "it ends before what is committed");
        }
        if !self.transfer.fits(start.view) {
            return self.ignore("StartView", "of an earlier view than that in which a fetched checkpoint was offered");
        }
        if start.commit.op() > start.head || start.head.0 - start.headers.first().map_or(0, |h| h.op.0) > LEAP_MAX {
            return self.ignore("StartView", "malformed");
        }
        self.note_past(from, start.view, start.past.clone());
        let reach = self.log.head().max(self.transfer.reaches());
        if start.head.0.saturating_sub(reach.0) > LEAP_MAX {
            return self.ignore("StartView", "too far ahead");
        }
        let installed_here = start.view == self.view && self.log_view == self.view;
        let is_installing = matches!(self.phase, Phase::Installing { .. });
        if installed_here && (self.head_certain || is_installing) {
            if self.status() == Status::Normal {
                self.extend_by(&start);
            }
            return;
        }
        if self.leave_view().is_some() {
            self.install(start.view, start.head, &start.headers, start.commit);
        }
    }

    /// A `StartView` of the view that is installed may extend the log, and nothing else: replacing
    /// would drop what was acknowledged since (hazard D03 b).
    fn extend_by(&mut self, start: &StartView) {
        let head = self.log.head();
        for header in start.headers.iter().filter(|header| header.op > head) {
            self.log.extend(*header);
        }
        self.raise_commit(start.commit);
        self.repair.lagging_since = None;
        self.repair_soon();
    }
}

/// Whether the parts of a `DoViewChange` fit together.
fn is_well_formed(dvc: &DoViewChange) -> bool {
    let from = dvc.commit.op().min(dvc.head);
    let ascending = dvc.headers.windows(2).all(|pair| pair[0].op < pair[1].op);
    let in_range =
        dvc.headers.iter().all(|header| header.op >= from && header.op <= dvc.head && header.view <= dvc.log_view);
    ascending
        && in_range
        && dvc.log_view < dvc.view
        && dvc.evidence.len() as u64 == dvc.head.0.saturating_sub(dvc.commit.0)
}

/// The headers of a `StartView` are an unbroken chain that ends in the head.
fn is_chain(headers: &[Header], commit: CommitNumber, head: OpNumber) -> bool {
    if head == OpNumber::ZERO {
        return headers.is_empty();
    }
    let linked = headers.windows(2).all(|pair| pair[0].op.next() == pair[1].op && pair[1].parent == pair[0].checksum());
    let covers = headers.first().is_some_and(|first| first.op.0 <= commit.0 + 1);
    linked && covers && headers.last().is_some_and(|last| last.op == head)
}
