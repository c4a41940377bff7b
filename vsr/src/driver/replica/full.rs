//! A write that found no room: what it wrote, and when it is tried again.

use std::time::Duration;

use crate::protocol::{Batch, BatchNumber, Entry, Monotonic, OpNumber, VsrState};

/// What a batch is written from once more when it found no room. A buffer: no write allocates for it.
#[derive(Default)]
pub(super) struct Kept {
    state: Option<Box<VsrState>>,
    truncate_above: Option<OpNumber>,
    entries: Vec<Entry>,
}

impl Kept {
    pub(super) fn keep(&mut self, batch: &Batch) {
        let Batch { state, truncate_above, entries } = batch;
        self.state = state.as_ref().map(|state| Box::new(state.clone()));
        self.truncate_above = *truncate_above;
        self.entries.clear();
        self.entries.extend_from_slice(entries);
    }

    pub(super) fn clear(&mut self) {
        self.state = None;
        self.entries.clear();
    }

    pub(super) fn batch(&self) -> Batch {
        let Kept { state, truncate_above, entries } = self;
        Batch { state: state.as_deref().cloned(), truncate_above: *truncate_above, entries: entries.clone() }
    }
}

/// A batch that is tried again until there is room for it.
pub(super) struct Full {
    pub(super) number: BatchNumber,
    pub(super) kept: Kept,
    pub(super) again_at: Monotonic,
    pub(super) pause: Duration,
}

/// Until a write, or a start, that found no room is tried again; doubles each time.
pub(super) const FULL_PAUSE: Duration = Duration::from_millis(50);
pub(super) const FULL_PAUSE_MAX: Duration = Duration::from_secs(1);
