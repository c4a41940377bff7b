//! State transfer: a checkpoint of another member takes the place of ops that the others have dropped from their logs (rules 9.3 to 9.5).
//!
//! Until the checkpoint is whole, installed, and named by a durable record, this replica acknowledges nothing and confirms no read; it votes, and
//! sends its `DoViewChange` with the log that it has. Installing never lowers the applied op or the view, and drops no op above the checkpoint
//! that may belong to the log of log_view. It is installed in no view below the lowest one in which a member has offered it: whoever is in a view
//! knows nothing to be committed that was not committed in that view, or in an earlier one.

use bytes::Bytes;

use super::fetching::{Fetching, ReadPart, Stage};
use crate::protocol::core::Core;
use crate::protocol::log::log::LogSlot;
use crate::protocol::normal::apply::Applying;
use crate::protocol::normal::checkpoints::CheckpointHead;
use crate::protocol::normal::progress::{Progress, SaidOfPast};
use crate::protocol::types::checkpoint::{CheckpointId, Past};
use crate::protocol::types::event::Event;
use crate::protocol::types::message::Message;
use crate::protocol::types::number::{CommitNumber, OpNumber, ReplicaId, View};
use crate::protocol::view_change::phase::Phase;

/// Pings after which what a member has said of its log is old.
const PAST_PINGS: u32 = 8;
/// Retries after which a part is asked for again.
const PART_RETRIES: u32 = 5;
/// Retries after which an op that nobody has given is taken for one that nobody has, if some have dropped it.
const STUCK_RETRIES: u32 = 32;
/// Retries without any part of a checkpoint, until another one is tried.
const SILENT_RETRIES: u32 = 40;
/// Checkpoints that are remembered because no part of them came.
const PASSED_OVER_MAX: usize = 16;
/// Retries until another attempt, when a checkpoint that came cannot be stored, or not be used.
const FAILED_RETRIES: u32 = 16;

impl Core {
    /// The checkpoint that is fetched from other members, if one is: its op, the parts of it that are stored, and how many there are. As long as
    /// its list of parts has not come, that is one.
    #[must_use]
    pub fn transfer(&self) -> Option<(OpNumber, u32, u32)> {
        self.transfer.progress()
    }

    /// Whether this replica has to begin with another member's checkpoint: what it has itself is not enough to have a state.
    #[must_use]
    pub fn lacks_state(&self) -> bool {
        !self.transfer.has_state
    }

    /// What this replica has of the past, for others.
    pub(crate) fn past(&self) -> Past {
        let mut checkpoints = self.offered();
        // The newest is what others count on (rule 9.2): what is kept for a while is none to count on.
        if let Some(lent) = self.transfer.lent().filter(|lent| checkpoints.first().is_some_and(|oldest| lent < oldest))
        {
            checkpoints.insert(0, lent);
        }
        Past { base: self.log.base(), checkpoints, is_whole: !self.needs_transfer() }
    }

    /// What a member in this view has said of its past. Its last word counts.
    pub(crate) fn note_past(&mut self, from: ReplicaId, view: View, past: Past) {
        let at = self.now;
        if let Some(member) = self.progress.get_mut(from) {
            member.past = Some(SaidOfPast { past, view, at });
        }
        self.checkpoints.drop_due = true;
    }

    fn recent_pasts(&self) -> impl Iterator<Item = (&Progress, &SaidOfPast)> {
        let age_max = self.options.timing.ping * PAST_PINGS;
        let others = self.progress.iter().filter(|member| member.id != self.id);
        others.filter_map(move |member| {
            let said = member.past.as_ref()?;
            (self.now.since(said.at) <= age_max && member.distrust.is_none()).then_some((member, said))
        })
    }

    /// An op without which nothing more can be applied, if it is not here and no member that is heard has it in its log any more: its body, or its
    /// header, by which what is below is known to be of the log. Nor has anybody given it for long.
    pub(crate) fn lacks(&self) -> Option<OpNumber> {
        let next = self.applied.next();
        let pasts = || self.recent_pasts().map(|(_, said)| &said.past);
        // A member whose log reaches back may have lost the op as well; and one may have it in a checkpoint alone.
        let (stuck_at, since) = self.transfer.stuck;
        let is_stuck = stuck_at == self.applied && self.now.since(since) >= self.options.timing.retry * STUCK_RETRIES;
        let lowest = if is_stuck {
            pasts().map(|past| past.base.max(past.newest())).max()
        } else {
            pasts().map(|past| past.base).min()
        };
        let lowest = lowest.filter(|lowest| *lowest >= next)?;
        if next > self.log.head() || self.log.is_proven(next) {
            let is_here = self.log.slot(next).is_some_and(LogSlot::is_present);
            return (!is_here).then_some(next);
        }
        // The header of its base is the lowest that a member still has.
        let wanted = self.log.proven_from().prev();
        (self.log.header(wanted).is_none() && lowest > wanted).then_some(wanted)
    }

    /// Whether the log that this replica has, and what others still have of theirs, is not enough to go on.
    pub(crate) fn needs_transfer(&self) -> bool {
        !self.transfer.has_state || self.lacks().is_some()
    }

    /// Whether another member that is heard could lead without a transfer.
    pub(crate) fn another_is_whole(&self) -> bool {
        self.recent_pasts().any(|(_, said)| said.past.is_whole)
    }

    /// Whether another member that is heard needs a checkpoint.
    pub(crate) fn another_lacks_state(&self) -> bool {
        self.recent_pasts().any(|(_, said)| !said.past.is_whole)
    }

    /// The checkpoint to fetch: the newest that a replication quorum covers, else the newest that anybody has. Those of which nothing came are the
    /// last that are tried: who offers one may not hear this replica.
    fn target(&self) -> Option<CheckpointId> {
        let least = if self.transfer.has_state { self.applied.next() } else { self.applied };
        let covered = self.covered();
        let is_passed_over = |id: &CheckpointId| self.transfer.passed_over.contains(id);
        let offered = |again: bool| {
            let all = self.recent_pasts().flat_map(|(_, said)| &said.past.checkpoints);
            all.filter(move |id| id.op >= least && is_passed_over(id) == again)
        };
        let newest = |again| offered(again).filter(|id| id.op <= covered).max().or_else(|| offered(again).max());
        newest(false).or_else(|| newest(true)).copied()
    }

    /// Takes the next steps of a transfer, if one is needed or under way. Called once a turn.
    pub(crate) fn run_transfer(&mut self) {
        if self.transfer.stuck.0 != self.applied {
            self.transfer.stuck = (self.applied, self.now);
        }
        self.transfer.lacks = self.lacks().is_some();
        self.transfer.end_lending(self.now);
        if self.primary_id() == self.id
            && (self.is_primary() || self.is_repairing_primary())
            && self.needs_transfer()
            && self.another_is_whole()
        {
            // It could not apply what it would commit (rule 9.5).
            return self.hand_on("a primary without the state hands on");
        }
        match &self.transfer.stage {
            Stage::Idle => self.begin_transfer(),
            Stage::Fetching(fetching) => {
                let (id, offered_in) = (fetching.id, self.offered_in(fetching.id));
                let is_offered = offered_in.is_some();
                let is_late = self.transfer.has_state && id.op <= self.applied;
                let is_silent = fetching.idle(self.now) >= self.options.timing.retry * SILENT_RETRIES;
                if is_late || is_silent || !is_offered {
                    self.mark(if is_late {
                        "the log has overtaken a transfer"
                    } else if is_offered {
                        "nothing comes of a checkpoint"
                    } else {
                        "nobody has the checkpoint any more"
                    });
                    if is_silent {
                        self.pass_over(id);
                    }
                    self.transfer.stage = Stage::Idle;
                    return self.begin_transfer();
                }
                self.note_offered(offered_in);
                self.ask_for_parts();
            }
            Stage::Ready { id, .. } => {
                let id = *id;
                let offered_in = self.offered_in(id);
                self.note_offered(offered_in);
                if self.transfer.fits(self.view) {
                    return self.try_install();
                }
                // The view in which it was offered may be one that never starts here: then it gives way to another.
                let waits = self.now.since(self.transfer.ready_at);
                let is_late = self.transfer.has_state && id.op <= self.applied;
                if offered_in.is_some() && !is_late && waits < self.options.timing.retry * SILENT_RETRIES {
                    return self.ask_for_start_view(self.transfer.offered_in);
                }
                self.mark("the view of a fetched checkpoint does not come");
                self.pass_over(id);
                self.begin_transfer();
            }
            Stage::Restoring { .. } => {}
            Stage::Installed(batch) => {
                if *batch <= self.writes.completed {
                    self.transfer.stage = Stage::Idle;
                    if !self.is_primary() {
                        self.send_prepare_ok();
                    }
                }
            }
        }
    }

    /// Another checkpoint than this one is tried first.
    fn pass_over(&mut self, id: CheckpointId) {
        self.transfer.passed_over.truncate(PASSED_OVER_MAX - 1);
        self.transfer.passed_over.insert(0, id);
        self.transfer.stage = Stage::Idle;
    }

    /// Leaves the view to the next one, at once.
    pub(crate) fn hand_on(&mut self, mark: &'static str) {
        self.mark(mark);
        self.news.events.push(Event::HandedOn { view: self.view });
        self.enter_view(self.view.next());
    }

    fn begin_transfer(&mut self) {
        let pause = self.options.timing.retry * FAILED_RETRIES;
        let pauses = self.transfer.failed_at.is_some_and(|at| self.now.since(at) < pause);
        if pauses || self.is_primary() || !self.needs_transfer() {
            return;
        }
        let Some(id) = self.target() else { return };
        if self.transfer.passed_over.contains(&id) {
            // All were tried.
            self.transfer.passed_over.clear();
        }
        self.mark("a transfer begins");
        self.outbox.withdraw_acknowledgements();
        self.news.events.push(Event::TransferBegan { op: id.op });
        self.transfer.stage = Stage::Fetching(Fetching::of(id, self.now));
        self.transfer.offered_in = self.offered_in(id).unwrap_or(self.view);
        self.ask_for_parts();
    }

    /// The lowest view in which a member is that offers a checkpoint, if one does.
    fn offered_in(&self, id: CheckpointId) -> Option<View> {
        let offers = self.recent_pasts().filter(|(_, said)| said.past.checkpoints.contains(&id));
        offers.map(|(_, said)| said.view).min()
    }

    fn note_offered(&mut self, offered_in: Option<View>) {
        self.transfer.offered_in =
            offered_in.map_or(self.transfer.offered_in, |view| view.min(self.transfer.offered_in));
    }

    fn ask_for_parts(&mut self) {
        let Stage::Fetching(fetching) = &self.transfer.stage else { return };
        let id = fetching.id;
        let sources = self.recent_pasts().filter(|(_, said)| said.past.checkpoints.contains(&id));
        let sources: Vec<ReplicaId> = sources.map(|(member, _)| member.id).collect();
        let timeout = self.options.timing.retry * PART_RETRIES;
        let Stage::Fetching(fetching) = &mut self.transfer.stage else { return };
        for (member, parts) in fetching.questions(&sources, self.now, timeout) {
            self.send(member, Message::RequestCheckpoint { id, parts });
        }
    }

    /// Called at each retry.
    pub(crate) fn retry_transfer(&mut self) {
        self.checkpoints.drop_due = true;
        if let Stage::Fetching(fetching) = &mut self.transfer.stage {
            fetching.forget_refusals();
        }
    }

    /// A part of a checkpoint has come, or its absence.
    pub(crate) fn on_checkpoint_part(&mut self, from: ReplicaId, id: CheckpointId, part: u32, bytes: Option<Bytes>) {
        let now = self.now;
        let wrong = match &mut self.transfer.stage {
            Stage::Fetching(fetching) if fetching.id == id => {
                let wrong = fetching.take_in(from, part, bytes);
                if wrong.is_none() {
                    fetching.progresses(now);
                }
                wrong
            }
            _ => Some("of a checkpoint that is not fetched"),
        };
        if let Some(why) = wrong {
            self.ignore("CheckpointPart", why);
        }
    }

    /// Storage has stored a part, or could not. `next`: the part that it wants next.
    pub(crate) fn on_part_stored(&mut self, id: CheckpointId, part: u32, next: Option<u32>) {
        let Stage::Fetching(fetching) = &mut self.transfer.stage else { return };
        if fetching.id != id {
            return;
        }
        let goes_on = fetching.on_stored(part, next);
        fetching.progresses(self.now);
        if next.is_none() {
            // Another attempt begins with the manifest, and goes on behind what storage has then.
            self.transfer.failed_at = Some(self.now);
            self.transfer.stage = Stage::Idle;
            return self.mark("a part of a checkpoint is not stored");
        }
        if fetching.is_whole() {
            self.transfer.stage = Stage::Restoring { id, is_asked: false };
        }
        if goes_on {
            self.mark("a transfer goes on where an earlier life ended");
        }
    }

    /// The caller has read the checkpoint and holds its state machine, or it cannot be read.
    pub(crate) fn on_restored(&mut self, id: CheckpointId, head: Option<CheckpointHead>) {
        if !matches!(self.transfer.stage, Stage::Restoring { id: of, .. } if of == id) {
            return;
        }
        self.transfer.stage = match head.filter(|head| head.header().op == id.op) {
            Some(head) => {
                self.transfer.ready_at = self.now;
                Stage::Ready { id, head: Box::new(head) }
            }
            None => {
                self.mark("a checkpoint that was fetched cannot be used");
                self.transfer.failed_at = Some(self.now);
                Stage::Idle
            }
        };
    }

    /// Installs the checkpoint that is ready, where the log of the view is this replica's own (rule 9.4). Elsewhere that happens with the log
    /// of the view.
    fn try_install(&mut self) {
        let may = self.phase == Phase::Normal || self.is_repairing_primary();
        if !may || !self.views_are_durable() || !self.head_certain {
            if self.phase == Phase::AwaitingStartView || !self.head_certain {
                self.ask_for_start_view(self.view);
            }
            return;
        }
        if self.take_checkpoint_in() {
            self.restage_state();
            self.note_installed();
            self.repair_soon();
        }
    }

    /// The record that is staged names the checkpoint that was taken in.
    pub(crate) fn note_installed(&mut self) {
        let batch = self.writes.next();
        self.transfer.stage = Stage::Installed(batch);
        if let Some(newest) = self.state.checkpoints.last().copied() {
            self.checkpoints.installed(newest, batch);
        }
    }

    /// As a part of a batch that installs the log of a view: the checkpoint that is ready, if there is one that is needed, begins that log.
    /// Whether it does.
    pub(crate) fn begin_log_with_checkpoint(&mut self, view: View) -> bool {
        matches!(self.transfer.stage, Stage::Ready { .. }) && self.transfer.fits(view) && self.take_checkpoint_in()
    }

    /// The log begins with the checkpoint that is ready from now on, and the state is the one after it. What the record says has to be staged
    /// next.
    fn take_checkpoint_in(&mut self) -> bool {
        let Stage::Ready { id, head } = std::mem::take(&mut self.transfer.stage) else { return false };
        let (header, sessions, replacements) = head.into_parts();
        let op = header.op;
        if op < self.applied || (op == self.applied && self.transfer.has_state) {
            self.mark("the log has overtaken a transfer");
            return false;
        }
        let is_other = self.log.checksum(op).is_some_and(|own| own != header.checksum());
        let does_not_follow = self.log.header(op.next()).is_some_and(|above| above.parent != header.checksum());
        // One that was prepared in a later view is not of this log; nor is one that the log above, proven down to it, does not stand on.
        let is_stale = header.view > self.log_view || (does_not_follow && self.log.is_proven(op.next()));
        if (is_other || does_not_follow) && is_stale && self.phase == Phase::Normal {
            // The log of an older view, in which this op was never committed: what is above it extends another op, and is committed nowhere. Else
            // only what stands at this op is stale, from before the view's log was installed, and what is above it may be acknowledged.
            let head = self.log.head();
            if head > op {
                self.news.events.push(Event::Truncated { above: op, head });
            }
            self.log.truncate(op);
            self.writes.truncate(op);
            let staged = &mut self.writes.staging.truncate_above;
            *staged = Some(staged.map_or(op, |before| before.min(op)));
        }
        self.log.drop_up_to(header);
        self.note_dropped(op);
        self.applied = op;
        self.applying = Applying::after(op, header.timestamp);
        self.sessions = sessions;
        if let Err(halt) = self.take_replacements(replacements) {
            self.stop(halt);
        }
        self.raise_commit(CommitNumber(op.0));
        self.writes.durable = self.writes.durable.max(op);
        self.writes.stored = self.writes.stored.max(op);
        self.state.checkpoints = vec![id];
        self.state.base = Some(header);
        self.state.commit = self.state.commit.max(CommitNumber(op.0));
        self.state.suffix.headers.retain(|named| named.op >= op);
        self.transfer.has_state = true;
        self.transfer.takes_up = Some(op);
        self.primary.pipeline.retain(|prepared| prepared.op > op);
        self.rejoin.prepared.retain(|(_, prepared)| *prepared > op);
        self.news.events.push(Event::Restored { op, checksum: header.checksum() });
        true
    }

    // ---- what is lent to others ----

    /// A member asks for parts of a checkpoint: any replica serves, in any status.
    pub(crate) fn on_request_checkpoint(&mut self, from: ReplicaId, id: CheckpointId, parts: Vec<u32>) {
        if self.transfer.lent() == Some(id) || self.offered().contains(&id) {
            return self.transfer.serve(from, id, parts, self.now);
        }
        let part = parts.first().copied().unwrap_or_default();
        self.send(from, Message::CheckpointPart { id, part, bytes: None });
    }

    /// A part was read for a peer; `None` when that cannot be done.
    pub(crate) fn on_part_read(&mut self, read: ReadPart, bytes: Option<Bytes>, is_damaged: bool) {
        let ReadPart { to, id, part } = read;
        if to == self.id {
            return self.on_part_scrubbed(id, part, bytes.is_some(), is_damaged);
        }
        if is_damaged {
            self.transfer.take_back(id);
            if self.checkpoints.doubt(id) {
                self.mark("a checkpoint is damaged");
                self.news.events.push(Event::CheckpointDamaged { op: id.op });
            }
        }
        self.send(to, Message::CheckpointPart { id, part, bytes });
    }

    /// The op of the checkpoint that a member fetches here: what comes after it in the log is kept for that member, while there is room.
    pub(crate) fn lent(&self) -> Option<OpNumber> {
        self.transfer.lent().map(|id| id.op)
    }
}
