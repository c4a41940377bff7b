//! Which batches made what durable, and the bytes on their way to the disk.

use std::collections::BTreeMap;

use super::number::{BatchNumber, Monotonic, OpNumber};
use super::vsr_state::Batch;

/// Which batches made what durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    pub(crate) staging: Batch,
    /// The batch that is being written, and since when.
    pub(crate) in_flight: Option<(BatchNumber, Monotonic)>,
    /// The last batch handed out.
    pub(crate) issued: BatchNumber,
    /// The last durable batch.
    pub(crate) completed: BatchNumber,
    /// The batch that made the view durable.
    pub(crate) view_batch: BatchNumber,
    /// The batch that made log_view durable.
    pub(crate) log_view_batch: BatchNumber,
    /// Ops whose put gave way to a vsr state, or waits for a view, with the bytes that each will take; they are put when
    /// the view has started.
    pub(crate) unstaged: BTreeMap<OpNumber, u64>,
    /// The sum of these bytes.
    pub(crate) unstaged_bytes: u64,
    /// Bytes that storage can still take, as it said last.
    pub(crate) room: u64,
    /// Bytes of it that the batch being gathered will take.
    pub(crate) staged_bytes: u64,
    /// Bytes of it that the batch in flight may not have taken yet.
    pub(crate) in_flight_bytes: u64,
}

impl Writes {
    /// The number that the batch being gathered will have.
    pub(crate) fn next(&self) -> BatchNumber {
        self.issued.next()
    }

    /// Whether entries of so many bytes fit beside everything that is on its way to the disk. An entry
    /// is never taken in without room: a write that fails for want of it would stop the replica (rule 6.11).
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.room >= self.waiting().saturating_add(bytes)
    }

    /// Bytes on their way to the disk.
    pub(crate) fn waiting(&self) -> u64 {
        self.staged_bytes.saturating_add(self.in_flight_bytes).saturating_add(self.unstaged_bytes)
    }

    /// Keeps an op for later.
    pub(crate) fn unstage(&mut self, op: OpNumber, bytes: u64) {
        let before = self.unstaged.insert(op, bytes).unwrap_or(0);
        self.unstaged_bytes = self.unstaged_bytes - before + bytes;
    }

    /// The ops that were kept for later.
    pub(crate) fn take_unstaged(&mut self) -> BTreeMap<OpNumber, u64> {
        self.unstaged_bytes = 0;
        std::mem::take(&mut self.unstaged)
    }

    /// Ops above this one are gone.
    pub(crate) fn truncate(&mut self, above: OpNumber) {
        let gone = self.unstaged.split_off(&above.next());
        self.unstaged_bytes -= gone.into_values().sum::<u64>();
    }

    /// Whether a slow disk lets too much wait in memory.
    pub(crate) fn is_congested(&self, bytes_max: u64) -> bool {
        self.waiting() > bytes_max
    }
}

/// The most that a body of so many bytes takes on a disk: the entry's header in two copies, and what the
/// storage adds. An upper bound for the storages that ship.
pub(crate) fn disk_bytes(body: u64) -> u64 {
    body + body / 16 + 2048
}
