//! Checkpoints of a running replica: when one is due, when the record names it, and whether the state at it is that of the others (rules 9.1,
//! 9.8, 9.10).

use super::checkpoints::{Checkpoints, Stage, TakeCheckpoint, encode};
use super::digests::{Difference, Verdict};
use crate::protocol::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::types::checkpoint::{CheckpointId, Span, StateDigest};
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::Header;
use crate::protocol::types::event::Event;
use crate::protocol::types::membership::Constants;
use crate::protocol::types::number::{OpNumber, ReplicaId};
use crate::protocol::view_change::phase::Status;

impl Core {
    /// An op was applied. Whether a checkpoint is due is decided by the log alone, so that all replicas take theirs at the same ops; one that
    /// is due while another is not done is skipped. The state's digest is wanted in any case: it costs no write.
    pub(crate) fn note_applied(&mut self, header: &Header) {
        let Constants { checkpoint_ops, checkpoint_bytes, .. } = self.membership.constants;
        let Checkpoints { since, stage, skipped, digest_due, .. } = &mut self.checkpoints;
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
        if !matches!(stage, Stage::Idle) {
            *skipped += 1;
            return self.mark("a checkpoint is skipped, as the one before is not done");
        }
        let (op, keep) = (header.op, self.state.checkpoints.clone());
        *stage = Stage::Due(TakeCheckpoint { op, head: encode(header, &self.sessions), keep });
    }

    /// Storage has written a checkpoint, or could not.
    pub(crate) fn on_checkpoint(&mut self, op: OpNumber, written: Option<CheckpointId>) {
        self.checkpoints.on_written(op, written);
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
        record.name(id);
        self.stage_state(record);
        self.checkpoints.stage = Stage::Naming(id, self.writes.next());
    }

    /// A batch is durable: perhaps the one whose record names a checkpoint.
    pub(crate) fn on_checkpoint_named(&mut self) {
        if let Stage::Naming(id, batch) = self.checkpoints.stage
            && batch <= self.writes.completed
        {
            self.checkpoints.stage = Stage::Idle;
            self.news.events.push(Event::Checkpointed { op: id.op });
        }
    }

    /// The state machine has given its digest after an op at which a checkpoint is due, or after that of the one from which it was restored.
    pub(crate) fn on_own_digest(&mut self, op: OpNumber, digest: Checksum) {
        self.checkpoints.digests.note_own(StateDigest { op, digest });
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
            self.stop_with_wrong_state(undecidable);
        }
        self.checkpoints.digests.own()
    }

    fn compare_digests(&mut self) {
        match self.checkpoints.digests.verdict(self.membership.size()) {
            Some(Verdict::Wrong(difference)) => self.stop_with_wrong_state(difference),
            Some(Verdict::Disputed(with, Difference { op, own, other })) => {
                self.news.events.push(Event::StatesDiffer { with, op, own, other });
            }
            None => {}
        }
    }

    /// Names no checkpoint any more, so that the next start applies the whole log (rule 9.8).
    fn stop_with_wrong_state(&mut self, Difference { op, own, other }: Difference) {
        if self.halted.is_some() {
            return;
        }
        let mut record = self.state.clone();
        record.checkpoints.clear();
        self.writes.before_stop = Some(self.writes.next());
        self.stage_state(record);
        self.stop(Halt::StateDiffers { op, own, other });
    }

    /// The op of the newest checkpoint that the record names; 0 for none.
    #[must_use]
    pub fn checkpoint(&self) -> OpNumber {
        self.state.checkpoint()
    }

    /// How many checkpoints were due while another one was not done.
    #[must_use]
    pub fn skipped_checkpoints(&self) -> u64 {
        self.checkpoints.skipped
    }
}

#[cfg(test)]
mod tests;
