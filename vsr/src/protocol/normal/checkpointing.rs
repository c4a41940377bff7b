//! Checkpoints of a running replica: when one is due, when the record names it, and whether the state at it is that of the others (rules 9.1,
//! 9.8, 9.10).

use super::checkpoints::{Checkpoints, Stage, TakeCheckpoint, encode};
use super::digests::{Difference, Verdict};
use crate::protocol::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::recovery::replacements::Replacements;
use crate::protocol::types::checkpoint::{CheckpointId, Span, StateDigest};
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::Header;
use crate::protocol::types::event::Event;
use crate::protocol::types::membership::Constants;
use crate::protocol::types::number::{OpNumber, ReplicaId};
use crate::protocol::types::quorum;
use crate::protocol::view_change::phase::Status;

/// Pings for which a new checkpoint waits for the digests of the others, before it is offered without them.
const COMPARED_PINGS: u32 = 4;
/// Retries until another attempt, when a checkpoint could not be written and the log is full.
const FAILED_RETRIES: u32 = 64;

impl Core {
    /// An op was applied. Whether a checkpoint is due is decided by the log alone, so that all replicas take theirs at the same ops; one that
    /// is due while another is not done is skipped. The state's digest is wanted in any case: it costs no write.
    pub(crate) fn note_applied(&mut self, header: &Header) {
        let Constants { checkpoint_ops, checkpoint_bytes, .. } = self.membership.constants;
        let Checkpoints { since, digest_due, .. } = &mut self.checkpoints;
        since.add(header.body_len);
        let is_due = checkpoint_ops > 0 && (since.ops >= checkpoint_ops || since.bytes >= checkpoint_bytes);
        if !is_due {
            return;
        }
        *since = Span::default();
        *digest_due = Some(header.op);
        if !self.options.checkpoints {
            return;
        }
        if !matches!(self.checkpoints.stage, Stage::Idle) {
            self.checkpoints.skipped += 1;
            return self.mark("a checkpoint is skipped, as the one before is not done");
        }
        self.want_checkpoint(header);
    }

    /// A checkpoint of the state as it is, which is that after this op.
    fn want_checkpoint(&mut self, header: &Header) {
        let (op, keep) = (header.op, self.kept_checkpoints());
        self.checkpoints.stage =
            Stage::Due(TakeCheckpoint { op, head: encode(header, &self.sessions, &self.rejoin.replacements), keep });
    }

    /// What comes before the bytes of the state machine as it is, for another cluster: this one's disks are none of that one's. `None` before
    /// the first op.
    pub(crate) fn state_head(&self) -> Option<(Header, Vec<u8>)> {
        let header = self.log.header(self.applied).copied()?;
        Some((header, encode(&header, &self.sessions, &Replacements::default())))
    }

    /// Called at each retry. There may never be another op with which a checkpoint would be due: in a full log, where the last one could not be
    /// written, and in a cluster that waits for one, where all that are here are damaged. Then one is taken of the state as it is now (rule 9.1).
    pub(crate) fn retry_checkpoint(&mut self) {
        let pause = self.options.timing.retry * FAILED_RETRIES;
        let failed_at = self.checkpoints.failed_at;
        if failed_at.is_some_and(|at| self.now.since(at) < pause) {
            return;
        }
        if self.another_lacks_state() && self.checkpoints.is_newest_damaged(self.now, pause) {
            // Not before a while: a disk that damages whatever is written to it is not written to without end.
            self.checkpoints.is_wanted = true;
        }
        let is_for_room = failed_at.is_some() && !self.has_room_for_ops() && self.applied > self.checkpoint();
        let is_for_others = self.checkpoints.are_all_damaged(self.now, pause);
        if !(is_for_room || is_for_others)
            || !matches!(self.checkpoints.stage, Stage::Idle)
            || !self.is_between_ops()
            || !self.transfer.is_over()
        {
            return;
        }
        if let Some(header) = self.log.header(self.applied).copied() {
            self.mark("a checkpoint is taken that no op makes due");
            self.want_checkpoint(&header);
            self.checkpoints.digest_due = Some(header.op);
        }
    }

    /// Called once a turn: somebody has asked for a checkpoint.
    pub(crate) fn take_wanted_checkpoint(&mut self) {
        let may = self.options.checkpoints && matches!(self.checkpoints.stage, Stage::Idle);
        if !self.checkpoints.is_wanted || !may || !self.is_between_ops() || !self.transfer.is_over() {
            return;
        }
        self.checkpoints.is_wanted = false;
        // One that is damaged is written anew.
        let is_new = |op: OpNumber| {
            op > self.checkpoint()
                || self.state.checkpoints.last().is_some_and(|id| id.op == op && self.checkpoints.is_doubted(id))
        };
        if let Some(header) = self.log.header(self.applied).copied().filter(|header| is_new(header.op)) {
            self.mark("a checkpoint is taken on request");
            // No other member has one of this op: its digest would only push those aside that others can be compared with (rule 9.8).
            self.want_checkpoint(&header);
        }
    }

    /// The op of the newest checkpoint that the durable record names; 0 for none.
    pub(crate) fn durable_checkpoint(&self) -> OpNumber {
        self.checkpoints.durable.last().map_or(OpNumber::ZERO, |newest| newest.op)
    }

    /// What storage has to keep: what the durable record names, and the one that is staged, what is fetched, and what is lent.
    pub(crate) fn kept_checkpoints(&self) -> Vec<CheckpointId> {
        let mut kept = self.checkpoints.durable.clone();
        kept.extend_from_slice(&self.state.checkpoints);
        kept.extend(self.transfer.kept());
        kept.sort_unstable();
        kept.dedup();
        kept
    }

    /// Storage has written a checkpoint, or could not.
    pub(crate) fn on_checkpoint(&mut self, op: OpNumber, written: Option<CheckpointId>) {
        self.checkpoints.on_written(op, written, self.now);
        if written.is_none() {
            self.mark("a checkpoint is not written");
        }
    }

    /// Names a checkpoint in the record, once the record can call all of it committed (rule 9.10).
    pub(crate) fn name_checkpoint(&mut self) {
        let Stage::Written(id) = self.checkpoints.stage else { return };
        if self.status() != Status::Normal || !self.views_are_durable() {
            return;
        }
        if !id.op.is_committed(self.recordable_commit()) {
            return;
        }
        let mut record = self.present_record();
        record.checkpoints.retain(|named| !self.checkpoints.is_doubted(named));
        record.name(id);
        record.digests = self.checkpoints.digests.of(&record.checkpoints, &record.digests);
        self.stage_state(record);
        self.checkpoints.stage = Stage::Naming(id, self.writes.next());
    }

    /// A batch is durable: perhaps the one whose record names a checkpoint.
    pub(crate) fn on_checkpoint_named(&mut self) {
        if let Stage::Naming(id, batch) = self.checkpoints.stage
            && batch <= self.writes.completed
        {
            self.checkpoints.stage = Stage::Idle;
            let named = self.state.checkpoints.clone();
            self.checkpoints.are_named(&named, self.now);
            self.news.events.push(Event::Checkpointed { op: id.op });
        }
    }

    /// The checkpoints that this replica can give to others.
    pub(crate) fn offered(&self) -> Vec<CheckpointId> {
        let wait = self.options.timing.ping * COMPARED_PINGS;
        self.checkpoints.offered(self.membership.size(), self.now, wait)
    }

    /// The op up to which the checkpoints of a replication quorum reach, this replica's included: what a loss of some of them does not take.
    pub(crate) fn covered(&self) -> OpNumber {
        let own = self.offered().last().map_or(0, |newest| newest.op.0);
        let ops = self.progress.iter().map(|member| if member.id == self.id { own } else { member.checkpoint().0 });
        OpNumber(quorum::reached(self.membership.quorums.replication, ops))
    }

    /// Drops what a replication quorum has checkpoints of from the log. What came after the older of the two checkpoints here stays, for members
    /// that are slower, and for the day on which the newest one is damaged: as long as there is room (rule 9.2).
    pub(crate) fn drop_covered(&mut self) {
        if !std::mem::take(&mut self.checkpoints.drop_due)
            || self.status() != Status::Normal
            || !self.views_are_durable()
            || !self.transfer.is_over()
        {
            return;
        }
        let offered = self.offered();
        let [.., newest] = offered[..] else { return };
        let has_room = self.has_room_for_ops();
        let kept = match offered[..] {
            _ if !has_room => newest.op,
            [.., older, _] => older.op.min(self.lent().unwrap_or(older.op)),
            _ => return,
        };
        let op = kept.min(self.covered());
        if op <= self.log.base() {
            return;
        }
        let Some(header) = self.log.header(op).copied() else { return };
        let mut record = self.present_record();
        if !op.is_committed(record.commit) {
            return;
        }
        record.base = Some(header);
        self.stage_state(record);
        self.log.drop_up_to(header);
        self.note_dropped(op);
        self.news.events.push(Event::LogDropped { base: op });
    }

    /// What is kept of ops up to this one, beside the log, is of no use any more.
    pub(crate) fn note_dropped(&mut self, op: OpNumber) {
        self.writes.drop_up_to(op);
        self.repair.drop_up_to(op);
        let (completed, bytes_max) = (self.writes.completed, self.options.cache_bytes);
        self.applying.cache.drop_up_to(op, &mut self.log, self.applied, completed, bytes_max);
    }

    /// The state machine has given its digest after an op at which a checkpoint is due, or after that of the one from which it was restored.
    pub(crate) fn on_own_digest(&mut self, op: OpNumber, digest: Option<Checksum>) {
        let Some(digest) = digest else { return self.checkpoints.digests.note_none() };
        self.checkpoints.digests.note_own(StateDigest { op, digest });
        // Checkpoints may come faster than pings: the others shall hear of each while they still know their own digest after it.
        self.timers.ping_at = self.now;
        self.compare_digests();
    }

    /// A member has reported its digests.
    pub(crate) fn on_digests(&mut self, from: ReplicaId, digests: Vec<StateDigest>) {
        self.checkpoints.digests.note_reported(from, digests);
        self.compare_digests();
    }

    /// What a ping reports; nothing, and the replica stops, when what nobody can decide was reported often enough.
    pub(crate) fn digests_to_report(&mut self) -> Vec<StateDigest> {
        if let Some(undecidable) = self.checkpoints.digests.on_ping_due() {
            self.stop_with_wrong_state(undecidable, false);
        }
        self.checkpoints.digests.own()
    }

    fn compare_digests(&mut self) {
        match self.checkpoints.digests.verdict(self.membership.size()) {
            Some(Verdict::Wrong(difference)) => self.stop_with_wrong_state(difference, true),
            Some(Verdict::Disputed(with, Difference { op, own, other })) => {
                self.news.events.push(Event::StatesDiffer { with, op, own, other });
            }
            None => {}
        }
    }

    /// Names no checkpoint any more, so that the next start applies the whole log, or fetches a checkpoint of another member (rule 9.8).
    fn stop_with_wrong_state(&mut self, Difference { op, own, other }: Difference, is_decided: bool) {
        if self.halted.is_some() {
            return;
        }
        let mut record = self.state.clone();
        if self.log.base() == OpNumber::ZERO || is_decided {
            // Where nobody knows whose state is right, and the log does not reach back, there is nothing better than what there is.
            record.checkpoints.clear();
            record.digests.clear();
        }
        self.writes.before_stop = Some(self.writes.next());
        self.stage_state(record);
        self.stop(Halt::StateDiffers { op, own, other });
    }

    /// The op of the newest checkpoint that the record names; 0 for none.
    #[must_use]
    pub fn checkpoint(&self) -> OpNumber {
        self.state.checkpoint()
    }

    /// Whether the last checkpoint could not be written.
    pub(crate) fn checkpoint_failed(&self) -> bool {
        self.checkpoints.failed_at.is_some()
    }

    /// How many checkpoints were due while another one was not done.
    #[must_use]
    pub fn skipped_checkpoints(&self) -> u64 {
        self.checkpoints.skipped
    }
}

#[cfg(test)]
mod tests;
