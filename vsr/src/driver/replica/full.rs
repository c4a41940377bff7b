//! What a write writes, kept until it is done: one that found no room is tried again.

use std::time::Duration;

use crate::protocol::{Batch, BatchNumber, Monotonic};

/// A batch that is tried again until there is room for it.
pub(super) struct Full {
    pub(super) number: BatchNumber,
    pub(super) batch: Batch,
    pub(super) again_at: Monotonic,
    pub(super) pause: Duration,
}

/// Keeps a copy of a batch, in the buffer of the one before.
pub(super) fn keep(kept: &mut Batch, batch: &Batch) {
    let Batch { state, truncate_above, entries } = batch;
    kept.state.clone_from(state);
    kept.truncate_above = *truncate_above;
    kept.entries.clone_from(entries);
}

/// Until a write, or a start, that found no room is tried again; doubles each time.
pub(super) const FULL_PAUSE: Duration = Duration::from_millis(50);
pub(super) const FULL_PAUSE_MAX: Duration = Duration::from_secs(1);
