//! Scrubbing: what lies on the disk and is not asked for is read and compared, a little at a time (rule 9.13).
//!
//! Damage that nobody finds waits for the day on which another copy is lost, too. What is found is repaired like damage that a read meets: an entry
//! is fetched from a peer, and a checkpoint gives way to a new one.

use super::fetching::ReadPart;
use super::repair::ReadRequest;
use crate::protocol::core::Core;
use crate::protocol::log::log::Body;
use crate::protocol::types::checkpoint::CheckpointId;
use crate::protocol::types::entry::Entry;
use crate::protocol::types::event::Event;
use crate::protocol::types::number::{NEVER, OpNumber};

/// Bytes of bodies that one step reads of the log, beside its last one; of a checkpoint it reads a part, which is no longer.
const STEP_BYTES: u64 = 1 << 20;
/// Ops that one step reads, at most.
const STEP_OPS: u64 = 1024;

/// Steps between two checkpoints that are taken because of damage, at least.
const WANTED_STEPS: u32 = 60;
/// Damaged ops that are remembered as told, at most.
const TOLD_MAX: usize = 4096;

impl Core {
    /// A step is due: the next ops of the log, or a part of a checkpoint when the log was read to its end.
    pub(crate) fn on_scrub_due(&mut self) {
        let pause = self.options.timing.scrub;
        self.timers.scrub_at = if pause.is_zero() { NEVER } else { self.now.after(pause) };
        if pause.is_zero() || self.repair.scrub.is_reading {
            return;
        }
        // A checkpoint that is gone was not read to its end: the log must not wait for those that come faster than they are read.
        let is_named = |(id, _): &(CheckpointId, u32)| self.state.checkpoints.contains(id);
        if !self.repair.scrub.part.as_ref().is_some_and(is_named) {
            if let Some((first, last)) = self.next_to_scrub() {
                self.repair.scrub.is_reading = true;
                self.repair.reads.push_back(ReadRequest::Scrub { first, last });
                return;
            }
            self.repair.scrub.op = OpNumber::ZERO;
        }
        self.scrub_checkpoint();
    }

    /// The next ops that are on the disk alone, and committed: what is in memory can be written again.
    fn next_to_scrub(&self) -> Option<(OpNumber, OpNumber)> {
        let end = self.applied.0;
        let is_cold = |op: &u64| self.log.slot(OpNumber(*op)).is_some_and(|slot| slot.body == Body::Stored);
        let first = (self.repair.scrub.op.max(self.log.base()).0 + 1..=end).find(is_cold)?;
        let mut bytes = 0;
        let len = |op: &u64| self.log.header(OpNumber(*op)).map_or(0, |header| u64::from(header.body_len));
        let within = |op: &u64| {
            bytes += len(op);
            is_cold(op) && (*op == first || bytes <= STEP_BYTES)
        };
        let last = (first..=end.min(first + STEP_OPS - 1)).take_while(within).last()?;
        Some((OpNumber(first), OpNumber(last)))
    }

    fn scrub_checkpoint(&mut self) {
        let named = &self.state.checkpoints;
        let (id, part) = match self.repair.scrub.part.filter(|(id, _)| named.contains(id)) {
            Some(next) => next,
            None => match named.first() {
                Some(id) => (*id, 0),
                None => return,
            },
        };
        if self.checkpoints.is_doubted(&id) {
            return self.scrub_next_checkpoint(id);
        }
        self.repair.scrub.part = Some((id, part));
        self.repair.scrub.is_reading = true;
        self.transfer.scrub(ReadPart { to: self.id, id, part });
    }

    /// The one after this one; after the newest the log is looked at again.
    fn scrub_next_checkpoint(&mut self, id: CheckpointId) {
        let next = self.state.checkpoints.iter().find(|named| named.op > id.op);
        self.repair.scrub.part = next.map(|next| (*next, 0));
    }

    /// Entries were read. `None` is one that storage cannot give.
    pub(crate) fn on_scrubbed(&mut self, first: OpNumber, entries: Vec<(OpNumber, Option<Entry>)>) {
        self.repair.scrub.is_reading = false;
        // Nothing was read: go on behind it, or the same would be asked for ever.
        self.repair.scrub.op = entries.last().map_or(first, |(op, _)| *op);
        for (op, entry) in entries {
            let Some(slot) = self.log.slot(op) else { continue };
            let own = slot.header.map(|header| header.checksum());
            let is_intact = entry.is_some_and(|entry| Some(entry.header.checksum()) == own);
            if slot.body != Body::Stored || is_intact {
                continue;
            }
            self.mark("scrubbing finds a damaged entry");
            if self.membership.size() == 1 {
                // Nobody has another copy. The state has it: a checkpoint makes the entry needless.
                if self.repair.scrub.told.len() < TOLD_MAX && self.repair.scrub.told.insert(op) {
                    self.news.events.push(Event::Damaged { op });
                }
                self.want_checkpoint_for_damage();
            } else {
                self.on_damage(op);
            }
        }
    }

    /// A disk that damages whatever is written to it is not written to without end.
    fn want_checkpoint_for_damage(&mut self) {
        let pause = self.options.timing.scrub * WANTED_STEPS;
        let scrub = &mut self.repair.scrub;
        if scrub.wanted_at.is_none_or(|at| self.now.since(at) >= pause) {
            scrub.wanted_at = Some(self.now);
            self.checkpoints.is_wanted = true;
        }
    }

    /// A part of a checkpoint was read: it is there and intact, or damaged, or there is none of that number.
    pub(crate) fn on_part_scrubbed(&mut self, id: CheckpointId, part: u32, is_there: bool, is_damaged: bool) {
        self.repair.scrub.is_reading = false;
        if is_damaged {
            self.transfer.take_back(id);
            if self.checkpoints.doubt(id) {
                self.mark("scrubbing finds a damaged checkpoint");
                self.news.events.push(Event::CheckpointDamaged { op: id.op });
                self.want_checkpoint_for_damage();
            }
        }
        if is_there {
            self.repair.scrub.part = Some((id, part + 1));
        } else {
            self.scrub_next_checkpoint(id);
        }
    }
}
