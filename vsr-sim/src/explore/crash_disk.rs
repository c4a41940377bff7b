//! A disk whose every outcome of a crash can be asked for, instead of being drawn.

use std::collections::{BTreeMap, BTreeSet};

use vsr::Checksum;
use vsr::protocol::{Batch, Entry, Header, OpNumber, Recovered, Slot, VsrState};

use crate::harness::Disk;

/// What is durable, and the write that is under way.
#[derive(Clone, Debug)]
pub(super) struct CrashDisk {
    state: VsrState,
    entries: BTreeMap<OpNumber, Entry>,
    /// Slots that a torn overwrite left unreadable.
    torn: BTreeSet<OpNumber>,
    pending: Option<Batch>,
}

/// What a crash makes of the write under way: `LOST`, `KEPT`, or, from `TORN` on, all of it but one entry.
pub(super) type CrashOutcome = u8;
pub(super) const LOST: CrashOutcome = 0;
const KEPT: CrashOutcome = 1;
const TORN: CrashOutcome = 2;

impl CrashDisk {
    pub(super) fn new(state: VsrState) -> CrashDisk {
        CrashDisk { state, entries: BTreeMap::new(), torn: BTreeSet::new(), pending: None }
    }

    pub(super) fn state(&self) -> &VsrState {
        &self.state
    }

    pub(super) fn header(&self, op: OpNumber) -> Option<&Header> {
        self.entries.get(&op).map(|entry| &entry.header)
    }

    pub(super) fn checksums(&self) -> impl Iterator<Item = Checksum> {
        self.entries.values().map(|entry| entry.header.checksum())
    }

    fn apply(&mut self, batch: Batch) {
        if let Some(op) = batch.truncate_above {
            self.entries.split_off(&op.next());
            self.torn.split_off(&op.next());
        }
        if let Some(state) = batch.state {
            self.state = state;
        }
        for entry in batch.entries {
            self.torn.remove(&entry.header.op);
            self.entries.insert(entry.header.op, entry);
        }
    }

    /// Every outcome that a crash can have now (clauses 4 to 7 of the storage contract).
    pub(super) fn outcomes(&self) -> Vec<CrashOutcome> {
        let Some(batch) = &self.pending else { return vec![LOST] };
        let tears = |&at: &usize| batch.entries.len() > 1 || self.entries.contains_key(&batch.entries[at].header.op);
        let torn = (0..batch.entries.len()).filter(tears).map(|at| TORN + at as CrashOutcome);
        [LOST, KEPT].into_iter().chain(torn.filter(|_| batch.state.is_none())).collect()
    }

    /// The process dies, with this outcome.
    pub(super) fn crash(&mut self, outcome: CrashOutcome) {
        let Some(mut batch) = self.pending.take() else { return };
        match outcome {
            LOST => {}
            KEPT => self.apply(batch),
            torn => {
                let op = batch.entries.remove(usize::from(torn - TORN)).header.op;
                // The old entry is gone and the new one is not there.
                if self.entries.remove(&op).is_some() {
                    self.torn.insert(op);
                }
                self.apply(batch);
            }
        }
    }

    /// Entries above this op go, though their writes have completed.
    pub(super) fn forget_above(&mut self, op: OpNumber) {
        self.entries.split_off(&op.next());
    }

    pub(super) fn recover(&self) -> Recovered {
        let last = self.entries.last_key_value().map_or(OpNumber::ZERO, |(op, _)| *op);
        let head = self.torn.last().map_or(last, |op| last.max(*op));
        let slots = (1..=head.0).map(OpNumber).map(|op| match self.entries.get(&op) {
            Some(entry) => Slot::Clean(entry.header),
            None if self.torn.contains(&op) => Slot::Corrupt(None),
            None => Slot::Absent,
        });
        Recovered { state: self.state.clone(), slots: slots.collect(), head_certain: true }
    }
}

impl Disk for CrashDisk {
    fn begin(&mut self, batch: Batch) {
        self.pending = Some(batch);
    }

    fn complete(&mut self) {
        if let Some(batch) = self.pending.take() {
            self.apply(batch);
        }
    }

    fn entry(&self, op: OpNumber) -> Option<&Entry> {
        self.entries.get(&op)
    }
}

/// An outcome in words.
pub(super) fn describe(outcome: CrashOutcome, writing: bool) -> String {
    match outcome {
        _ if !writing => String::new(),
        LOST => ", its unsynced write is lost".to_owned(),
        KEPT => ", its unsynced write is kept".to_owned(),
        torn => format!(", its unsynced write is torn at entry {}", torn - TORN),
    }
}
