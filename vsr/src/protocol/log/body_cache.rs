//! Bodies of applied entries that stay in memory for slow peers. A bound in bytes; the oldest ones go first.

use std::collections::BTreeSet;

use super::log::{Body, Log};
use crate::protocol::types::number::{BatchNumber, OpNumber};

/// What an entry takes beside its body.
const ENTRY_BYTES: u64 = 256;

/// Which applied entries may have their bodies in memory.
#[derive(Clone, Debug)]
pub(crate) struct BodyCache {
    /// The first of them: the bodies of all ops below are on disk only.
    from: OpNumber,
    /// Bytes of the entries from there up to the last applied one.
    bytes: u64,
    /// The last durable batch when an op was applied last.
    looked_at: BatchNumber,
    /// Ops below whose bodies have come anew, as they were damaged: in memory until they are durable again.
    refetched: BTreeSet<OpNumber>,
}

impl BodyCache {
    /// Of a log whose bodies up to this op are on disk only.
    pub(crate) fn after(op: OpNumber) -> BodyCache {
        BodyCache { from: op.next(), bytes: 0, looked_at: BatchNumber(0), refetched: BTreeSet::new() }
    }

    /// An op was applied, the one after the last. While there is more than `bytes_max`, bodies leave the memory: they
    /// are durable here. At one that is not yet, all wait.
    pub(crate) fn on_applied(&mut self, applied: OpNumber, log: &mut Log, completed: BatchNumber, bytes_max: u64) {
        if log.header(applied).is_none() {
            return;
        }
        self.bytes += weight(log, applied);
        self.evict(applied, log, completed, bytes_max);
    }

    /// The body of an op has come, perhaps of one whose body was on the disk alone.
    pub(crate) fn on_filled(&mut self, op: OpNumber) {
        if op < self.from {
            self.refetched.insert(op);
        }
    }

    /// A write is durable: with it, perhaps, what had come anew.
    pub(crate) fn on_durable(&mut self, log: &mut Log, completed: BatchNumber) {
        self.refetched.retain(|op| {
            let Some(slot) = log.slot_mut(*op) else { return false };
            let is_durable = slot.is_durable(completed);
            if is_durable {
                slot.body = Body::Stored;
            }
            !is_durable
        });
    }

    fn evict(&mut self, applied: OpNumber, log: &mut Log, completed: BatchNumber, bytes_max: u64) {
        self.looked_at = completed;
        while self.bytes > bytes_max && self.from < applied {
            let op = self.from;
            let len = weight(log, op);
            let Some(slot) = log.slot_mut(op) else { return };
            if let Body::Memory(_) = slot.body {
                if !slot.is_durable(completed) {
                    return;
                }
                slot.body = Body::Stored;
            }
            self.bytes = self.bytes.saturating_sub(len);
            self.from = op.next();
        }
    }

    /// Ops up to this one were dropped from the log. One of them may have been what the others waited for.
    pub(crate) fn drop_up_to(
        &mut self,
        op: OpNumber,
        log: &mut Log,
        applied: OpNumber,
        completed: BatchNumber,
        bytes_max: u64,
    ) {
        if self.from <= op {
            self.from = op.next();
            self.bytes = self.held(applied, log);
            self.evict(applied, log, completed, bytes_max);
        }
    }

    /// The bytes as counted.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes as they are: counted anew.
    pub(crate) fn held(&self, applied: OpNumber, log: &Log) -> u64 {
        (self.from.0..=applied.0).map(|op| weight(log, OpNumber(op))).sum()
    }

    /// The most that there may be. What is not durable stays in memory for longer, and with it what was applied after
    /// it; and the last entry always does.
    pub(crate) fn bound(&self, applied: OpNumber, log: &Log, bytes_max: u64) -> u64 {
        let stays =
            |slot: &super::log::LogSlot| matches!(slot.body, Body::Memory(_)) && !slot.is_durable(self.looked_at);
        if log.slot(self.from).is_some_and(stays) {
            return u64::MAX;
        }
        bytes_max.max(weight(log, applied))
    }
}

/// What the entry of an op counts for; 0 for a blank.
fn weight(log: &Log, op: OpNumber) -> u64 {
    log.header(op).map_or(0, |header| u64::from(header.body_len) + ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::super::log::tests::log_of;
    use super::*;
    use crate::protocol::types::random::Random;

    const BODY: u64 = 744;
    const WEIGHT: u64 = BODY + ENTRY_BYTES;

    fn in_memory(log: &Log, to: u64) -> Vec<u64> {
        (1..=to).filter(|op| log.slot(OpNumber(*op)).is_some_and(|slot| matches!(slot.body, Body::Memory(_)))).collect()
    }

    fn put(log: &mut Log, op: u64, batch: u64) {
        log.slot_mut(OpNumber(op)).unwrap().staged = Some(BatchNumber(batch));
    }

    #[test]
    fn the_oldest_bodies_go_and_the_last_one_stays() {
        let mut log = log_of(5, BODY as usize);
        (1..=5).for_each(|op| put(&mut log, op, 1));
        let mut cache = BodyCache::after(OpNumber::ZERO);
        (1..=5).for_each(|op| cache.on_applied(OpNumber(op), &mut log, BatchNumber(1), 2 * WEIGHT));
        assert_eq!((in_memory(&log, 5), cache.bytes()), (vec![4, 5], 2 * WEIGHT));
        let mut cache = BodyCache::after(OpNumber::ZERO);
        let mut log = log_of(3, BODY as usize);
        (1..=3).for_each(|op| put(&mut log, op, 1));
        (1..=3).for_each(|op| cache.on_applied(OpNumber(op), &mut log, BatchNumber(1), 0));
        assert_eq!(in_memory(&log, 3), [3]);
    }

    /// What was not durable here kept all in memory, and is dropped.
    #[test]
    fn what_is_left_when_the_log_is_dropped_keeps_to_its_bound() {
        let mut log = log_of(5, BODY as usize);
        (1..=5).for_each(|op| put(&mut log, op, if op == 1 { 2 } else { 1 }));
        let mut cache = BodyCache::after(OpNumber::ZERO);
        (1..=5).for_each(|op| cache.on_applied(OpNumber(op), &mut log, BatchNumber(1), WEIGHT));
        assert_eq!(in_memory(&log, 5), [1, 2, 3, 4, 5]);
        let base = *log.header(OpNumber(1)).unwrap();
        log.drop_up_to(base);
        cache.drop_up_to(OpNumber(1), &mut log, OpNumber(5), BatchNumber(1), WEIGHT);
        assert_eq!((in_memory(&log, 5), cache.bytes()), (vec![5], WEIGHT));
    }

    #[test]
    fn what_is_not_durable_here_stays_and_so_does_what_came_after_it() {
        let mut log = log_of(4, BODY as usize);
        (1..=4).for_each(|op| put(&mut log, op, if op == 2 { 2 } else { 1 }));
        let mut cache = BodyCache::after(OpNumber::ZERO);
        (1..=3).for_each(|op| cache.on_applied(OpNumber(op), &mut log, BatchNumber(1), 0));
        assert_eq!(in_memory(&log, 3), [2, 3]);
        assert_eq!(cache.bound(OpNumber(3), &log, 0), u64::MAX);
        cache.on_applied(OpNumber(4), &mut log, BatchNumber(2), 0);
        assert_eq!(in_memory(&log, 4), [4]);
        assert_eq!(cache.bound(OpNumber(4), &log, 0), WEIGHT);
    }

    /// Whatever becomes durable when: what is counted is there, it is within its bound, and nothing below stays.
    #[test]
    fn the_account_is_true_in_any_order_of_writes() {
        let mut random = Random::new(5);
        for _ in 0..200 {
            let ops = 1 + random.below(40);
            let bytes_max = random.below(8) * WEIGHT;
            let mut log = log_of(ops, BODY as usize);
            (1..=ops).for_each(|op| put(&mut log, op, 1 + random.below(ops)));
            let (mut cache, mut completed) = (BodyCache::after(OpNumber::ZERO), 0);
            for op in 1..=ops {
                completed += random.below(3);
                cache.on_applied(OpNumber(op), &mut log, BatchNumber(completed), bytes_max);
                assert_eq!(cache.bytes(), cache.held(OpNumber(op), &log));
                assert!(cache.bytes() <= cache.bound(OpNumber(op), &log, bytes_max));
                let left = in_memory(&log, op);
                assert_eq!(left, (cache.from.0..=op).collect::<Vec<_>>(), "bodies below are on disk only");
            }
        }
    }
}
