//! The clauses of [`vsr::Storage`], each as a test of its number, for any storage.
//!
//! Implement [`Disks`] for what harm can be done to the storage's disk, then
//! `vsr_sim::storage_conformance!(MyDisks::default())` writes one `#[test]` for each clause.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::executor::block_on;
use vsr::protocol::{
    Batch, CheckpointId, CommitNumber, DiskId, Entry, Epoch, Header, HeaderFields, OpKind, OpNumber, Random, Recovered,
    Slot, Suffix, Timestamp, View, VsrState,
};
use vsr::storage::StorageError;
use vsr::{Checksum, ClusterId, Membership, ReplicaId, Storage};

/// A kind of disk, and what can be done to it.
pub trait Disks {
    /// What is tested.
    type Storage: Storage;
    /// One disk. Opening it again sees what was written.
    type Disk;

    /// A new disk, formatted with this state. `log_limit` bounds the log in bytes where the storage has a
    /// bound.
    fn format(&mut self, state: &VsrState, log_limit: u64) -> Self::Disk;

    /// Opens a disk. What was opened from it before is gone by now.
    ///
    /// # Errors
    /// Those of the storage.
    fn open(&mut self, disk: &Self::Disk) -> Result<Self::Storage, StorageError>;

    /// A disk that was never formatted.
    fn unformatted(&mut self) -> Option<Self::Disk> {
        None
    }

    /// A write is about to begin.
    fn mark(&mut self, _disk: &Self::Disk) {}

    /// What a power loss at any point since the mark could have left. Empty for storage that does not
    /// outlive its process.
    fn crashes(&mut self, _disk: &Self::Disk) -> Vec<Self::Disk> {
        Vec::new()
    }

    /// A copy of the disk with the body of this entry damaged.
    fn rot_body(&mut self, _disk: &Self::Disk, _entry: &Entry) -> Option<Self::Disk> {
        None
    }

    /// A copy of the disk on which nothing that the last write of an entry has left can be read.
    fn rot_last_write(&mut self, _disk: &Self::Disk) -> Option<Self::Disk> {
        None
    }

    /// Copies of the disk with some copies of the vsr state damaged: those that must be survived, and
    /// those that must be refused.
    fn rot_state(&mut self, _disk: &Self::Disk) -> (Vec<Self::Disk>, Vec<Self::Disk>) {
        (Vec::new(), Vec::new())
    }

    /// A copy of the disk with some byte of this checkpoint damaged.
    fn rot_checkpoint(&mut self, _disk: &Self::Disk, _id: CheckpointId) -> Option<Self::Disk> {
        None
    }

    /// The next write or sync fails. `false` when that cannot be arranged.
    fn fail_next(&mut self, _disk: &Self::Disk) -> bool {
        false
    }
}

/// Writes a test for each clause that any storage can be held to; then those that need harm which the [`Disks`] can do, named behind a
/// comma: `crashes` (clauses 4 to 7), `format` (12), `lost_tail` (8), `damage` and `state_copies` (9), `poison` (10), `limit` (13),
/// `checkpoints` (15 to 18). What is not named is not tested: the list says what a storage was held to.
#[macro_export]
macro_rules! storage_conformance {
    ($disks:expr $(, $harm:ident)*) => {
        $crate::storage_conformance! { @tests $disks;
            clause_01_what_was_written_survives => durable,
            clause_02_batches_take_effect_in_order => in_order,
            clause_03_a_truncated_entry_never_comes_back => truncation,
            clause_11_reads_run_beside_a_write => reads_beside_a_write,
            clause_14_recover_changes_nothing => recover_is_idempotent,
            clause_19_what_was_dropped_is_gone_and_its_room_is_free => dropped,
        }
        $($crate::storage_conformance! { @$harm $disks })*
    };
    (@crashes $disks:expr) => {
        $crate::storage_conformance! { @tests $disks;
            clause_04_to_07_a_crash_inside_any_write => crash_at_every_write,
            clause_04_to_07_crash_upon_crash => crash_upon_crash,
        }
    };
    (@lost_tail $disks:expr) => {
        $crate::storage_conformance! { @tests $disks; clause_08_a_lost_tail_is_no_absence => lost_tail, }
    };
    (@damage $disks:expr) => {
        $crate::storage_conformance! { @tests $disks; clause_09_damage_is_found => damage, }
    };
    (@state_copies $disks:expr) => {
        $crate::storage_conformance! { @tests $disks; clause_09_copies_of_the_state => state_copies, }
    };
    (@poison $disks:expr) => {
        $crate::storage_conformance! { @tests $disks; clause_10_poisoned_after_a_failure => poison, }
    };
    (@format $disks:expr) => {
        $crate::storage_conformance! { @tests $disks; clause_12_opening_never_creates => formatted_once, }
    };
    (@checkpoints $disks:expr) => {
        $crate::storage_conformance! { @tests_of checkpoints $disks;
            clause_15_a_checkpoint_is_whole_or_none => whole_checkpoints,
            clause_16_what_is_kept_stays => kept_checkpoints,
            clause_17_a_damaged_checkpoint_is_an_error => damaged_checkpoints,
            clause_18_parts_make_the_same_checkpoint => parts_of_checkpoints,
        }
    };
    (@limit $disks:expr) => {
        $crate::storage_conformance! { @tests $disks; clause_13_full_is_an_error => full, }
    };
    (@tests $disks:expr; $($name:ident => $check:ident,)*) => {
        $crate::storage_conformance! { @tests_of storage $disks; $($name => $check,)* }
    };
    (@tests_of $clauses:ident $disks:expr; $($name:ident => $check:ident,)*) => {
        $(#[test]
        fn $name() {
            $crate::conformance::$clauses::$check(&mut $disks);
        })*
    };
}

pub(super) const LIMIT: u64 = 64 << 20;

pub(super) fn first_state() -> VsrState {
    let membership = Membership::new(["a", "b", "c"]).expect("three members are a cluster");
    VsrState::formatted(ClusterId(7), ReplicaId(1), DiskId(99), membership)
}

/// An entry for tests of storages: any op with any body, prepared in this view of epoch 0.
#[must_use]
pub fn entry(op: u64, view: u64, parent: Checksum, body: Bytes) -> Entry {
    let header = Header::new(HeaderFields {
        view: View { epoch: Epoch(0), number: view },
        op: OpNumber(op),
        parent,
        body: Checksum::of(&body),
        body_len: body.len() as u32,
        requests: 1,
        timestamp: Timestamp(op),
        commit: CommitNumber(0),
        machine_version: 1,
        kind: OpKind::Requests,
    });
    Entry { header, body }
}

/// What the disk must hold.
#[derive(Clone)]
pub(super) struct Expected {
    state: VsrState,
    entries: BTreeMap<OpNumber, Entry>,
    head: OpNumber,
}

impl Expected {
    pub(super) fn new() -> Expected {
        Expected { state: first_state(), entries: BTreeMap::new(), head: OpNumber::ZERO }
    }

    fn apply(&mut self, batch: &Batch) {
        if let Some(above) = batch.truncate_above {
            self.entries.split_off(&above.next());
            self.head = self.head.min(above);
        }
        if let Some(state) = &batch.state {
            self.entries = self.entries.split_off(&state.base().next());
            self.head = self.head.max(state.base());
            self.state = state.clone();
        }
        for entry in &batch.entries {
            self.head = self.head.max(entry.header.op);
            self.entries.insert(entry.header.op, entry.clone());
        }
    }

    fn slot(&self, op: OpNumber) -> Option<Header> {
        self.entries.get(&op).map(|entry| entry.header)
    }

    fn base(&self) -> u64 {
        self.state.base().0
    }

    /// A state that drops everything up to this op, which may be above the head.
    fn next_base(&self, op: u64) -> Batch {
        let mut batch = self.next_state(None);
        let base = self.slot(OpNumber(op)).unwrap_or_else(|| self.entry(op, 0, 1).header);
        if let Some(state) = &mut batch.state {
            state.base = Some(base);
            state.suffix.headers.retain(|header| header.op > base.op);
        }
        batch
    }

    fn entry(&self, op: u64, view: u64, len: usize) -> Entry {
        let mut random = Random::new(op << 32 | view);
        let body: Vec<u8> = (0..len).map(|_| random.next_u64() as u8).collect();
        let body = Bytes::from(body);
        let parent = self.slot(OpNumber(op - 1)).map_or(Checksum(1), |header| header.checksum());
        entry(op, view, parent, body)
    }

    pub(super) fn puts(&self, ops: std::ops::RangeInclusive<u64>, view: u64, len: usize) -> Batch {
        let mut to = self.clone();
        for op in ops.clone() {
            let entry = to.entry(op, view, len);
            to.entries.insert(OpNumber(op), entry);
        }
        let entries = ops.filter_map(|op| to.entries.get(&OpNumber(op)).cloned()).collect();
        Batch { entries, ..Batch::default() }
    }

    fn next_state(&self, truncate_above: Option<u64>) -> Batch {
        let mut state = self.state.clone();
        state.view = state.view.next();
        state.log_view = state.view;
        state.suffix =
            Suffix { head: self.head, headers: self.entries.values().map(|entry| entry.header).take(4).collect() };
        Batch { state: Some(state), truncate_above: truncate_above.map(OpNumber), entries: Vec::new() }
    }
}

pub(super) fn write<S: Storage>(storage: &S, expected: &mut Expected, batch: Batch) {
    expected.apply(&batch);
    block_on(storage.write(batch)).expect("the write is within the contract");
}

pub(super) fn recover<S: Storage>(storage: &S) -> Recovered {
    block_on(storage.recover()).expect("the disk can be recovered")
}

fn verdict(recovered: &Recovered, op: OpNumber) -> Slot {
    recovered.slot(op).cloned().unwrap_or(Slot::Absent)
}

/// Everything is exactly as expected.
pub(super) fn assert_exact<S: Storage>(storage: &S, expected: &Expected) {
    let recovered = recover(storage);
    assert!(recovered.head_certain, "nothing was damaged, and the head is uncertain");
    assert_eq!(recovered.state, expected.state);
    assert_eq!(recovered.head(), expected.head, "the head");
    for (op, slot) in (expected.base() + 1..).map(OpNumber).zip(&recovered.slots) {
        assert_eq!(*slot, expected.slot(op).map_or(Slot::Absent, Slot::Clean), "op {op}");
    }
    assert_readable(storage, &recovered, |op| vec![expected.entries.get(&op).cloned()]);
}

/// Every entry that is called clean can be read, and is one that was put.
fn assert_readable<S: Storage>(storage: &S, recovered: &Recovered, put: impl Fn(OpNumber) -> Vec<Option<Entry>>) {
    let mut op = recovered.state.base().next();
    let last = recovered.head();
    while op <= last {
        let read = block_on(storage.read(op..=last, 1000)).expect("reading");
        assert!(!read.is_empty(), "a read gives at least one entry");
        for (at, entry) in read {
            assert_eq!(at, op);
            match verdict(recovered, at) {
                Slot::Clean(header) => {
                    let entry = entry.unwrap_or_else(|| panic!("op {at} is clean, and cannot be read"));
                    assert_eq!(entry.header, header);
                    assert!(put(at).contains(&Some(entry)), "op {at} holds what nobody put there");
                }
                _ => assert_eq!(entry, None, "op {at} is not clean, and can be read"),
            }
            op = op.next();
        }
    }
}

/// After a crash inside a write that leads from `old` to `new`.
fn assert_old_or_new<S: Storage>(storage: &S, old: &Expected, new: &Expected, what: &str) -> Recovered {
    let recovered = recover(storage);
    assert!(recovered.head_certain, "{what}: a crash is not rot, yet the head is uncertain");
    let is_new = recovered.state == new.state;
    assert!(is_new || recovered.state == old.state, "{what}: a state that is neither the old nor the new one");
    let state_changed = old.state != new.state;
    let base = recovered.state.base();
    for op in (base.0 + 1..=old.head.max(new.head).0).map(OpNumber) {
        let (before, after) = (old.slot(op), new.slot(op));
        match verdict(&recovered, op) {
            Slot::Clean(header) => {
                let known = if !state_changed {
                    before == Some(header) || after == Some(header)
                } else if is_new {
                    after == Some(header)
                } else {
                    before == Some(header)
                };
                assert!(known, "{what}: op {op} is neither old nor new");
            }
            Slot::Corrupt(_) => assert!(before != after, "{what}: op {op} was not touched, and is corrupt"),
            Slot::Absent => {
                let allowed = before.is_none() || (after.is_none() && (is_new || !state_changed));
                assert!(allowed, "{what}: op {op} held an entry, and is absent");
            }
        }
    }
    assert!(recovered.head() <= old.head.max(new.head), "{what}: a head that nobody wrote");
    let put = |op: OpNumber| vec![old.entries.get(&op).cloned(), new.entries.get(&op).cloned()];
    assert_readable(storage, &recovered, put);
    recovered
}

/// A batch of a kind that a replica writes.
fn any_batch(expected: &Expected, random: &mut Random, step: u64) -> Batch {
    let (head, base) = (expected.head.0, expected.base());
    let length = head - base;
    let len = [0, 20, 487, 488, 489, 3000][random.below(6) as usize];
    match random.below(7) {
        0 => expected.next_state(None),
        1 if length > 0 => expected.next_state(Some(head - random.below(length.min(3) + 1))),
        // A gap: an op that came before the one below it.
        2 => expected.puts(head + 2..=head + 2, step, len),
        // A hole is filled, or an entry that did not fit the log is replaced.
        3 if length > 0 => {
            let op = base + 1 + random.below(length);
            expected.puts(op..=op, step, len)
        }
        4 if length > 2 => {
            let above = head - 1 - random.below(2);
            let mut to = expected.clone();
            to.apply(&Batch { truncate_above: Some(OpNumber(above)), ..Batch::default() });
            Batch { truncate_above: Some(OpNumber(above)), ..to.puts(above + 1..=above + 2, step, len) }
        }
        // What checkpoints have is dropped: all but the end of the log mostly, and now and then all of it and more.
        5 if random.chance(1, 2) => {
            let more = if random.chance(1, 4) { head + random.below(3) } else { base + random.below(length + 1) };
            expected.next_base(more.max(base + 1))
        }
        _ => expected.puts(head + 1..=head + 1 + random.below(3), step, len),
    }
}

/// Clause 1.
pub fn durable<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let mut random = Random::new(1);
    for step in 0..40 {
        let storage = disks.open(&disk).expect("opening");
        assert_exact(&storage, &expected);
        let batch = any_batch(&expected, &mut random, step);
        write(&storage, &mut expected, batch);
    }
    let storage = disks.open(&disk).expect("opening");
    assert_exact(&storage, &expected);
}

/// Clause 2.
pub fn in_order<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    let mut random = Random::new(2);
    for step in 0..200 {
        let batch = any_batch(&expected, &mut random, step);
        write(&storage, &mut expected, batch);
    }
    assert_exact(&storage, &expected);
    drop(storage);
    assert_exact(&disks.open(&disk).expect("opening"), &expected);
}

/// Clause 3.
pub fn truncation<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    let batch = expected.puts(1..=5, 1, 100);
    let second = batch.entries[1].clone();
    write(&storage, &mut expected, batch);
    let batch = expected.next_state(Some(1));
    write(&storage, &mut expected, batch);
    assert_exact(&storage, &expected);
    // The old parent of op 3 is put again: op 3 must stay gone.
    write(&storage, &mut expected, Batch { entries: vec![second], ..Batch::default() });
    assert_exact(&storage, &expected);
    drop(storage);
    let storage = disks.open(&disk).expect("opening");
    assert_exact(&storage, &expected);
    // So it does when truncation and put are one batch.
    let batch = expected.puts(3..=6, 2, 10);
    write(&storage, &mut expected, batch);
    let mut to = expected.clone();
    to.apply(&Batch { truncate_above: Some(OpNumber(3)), ..Batch::default() });
    let batch = Batch { truncate_above: Some(OpNumber(3)), ..to.puts(4..=4, 3, 10) };
    write(&storage, &mut expected, batch);
    drop(storage);
    assert_exact(&disks.open(&disk).expect("opening"), &expected);
}

/// Clauses 4 to 7: power is lost at every point of every write of a run.
pub fn crash_at_every_write<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let mut random = Random::new(3);
    for step in 0..40 {
        let storage = disks.open(&disk).expect("opening");
        recover(&storage);
        let old = expected.clone();
        disks.mark(&disk);
        let batch = any_batch(&expected, &mut random, step);
        write(&storage, &mut expected, batch);
        drop(storage);
        let crashes = disks.crashes(&disk);
        assert!(crashes.len() > 1, "step {step}: these disks cannot crash");
        for (number, crashed) in crashes.iter().enumerate() {
            let storage = disks.open(crashed).expect("opening after a crash");
            assert_old_or_new(&storage, &old, &expected, &format!("step {step}, crash {number}"));
        }
    }
}

/// Clauses 4 to 7: what one crash has left does no harm in the next one.
pub fn crash_upon_crash<D: Disks>(disks: &mut D) {
    let mut random = Random::new(4);
    for round in 0..12 {
        let mut disk = disks.format(&first_state(), LIMIT);
        let mut expected = Expected::new();
        for step in 0..25 {
            let what = format!("round {round}, step {step}");
            let storage = disks.open(&disk).expect("opening");
            recover(&storage);
            let old = expected.clone();
            disks.mark(&disk);
            let batch = any_batch(&expected, &mut random, step);
            write(&storage, &mut expected, batch);
            drop(storage);
            let mut crashed = disks.crashes(&disk);
            assert!(!crashed.is_empty(), "{what}: these disks cannot crash");
            disk = crashed.swap_remove(random.below(crashed.len() as u64) as usize);
            let storage = disks.open(&disk).expect("opening after a crash");
            let recovered = assert_old_or_new(&storage, &old, &expected, &what);
            // What the crash has left is what the next step begins with.
            let new = expected.clone();
            expected.state = recovered.state.clone();
            expected.head = recovered.head();
            expected.entries.clear();
            for (op, slot) in (expected.base() + 1..).map(OpNumber).zip(&recovered.slots) {
                let Slot::Clean(header) = slot else {
                    assert!(*slot == Slot::Absent, "{what}: op {op}: {slot:?}; no storage here tears slots");
                    continue;
                };
                let mut put = [&new, &old].into_iter().filter_map(|from| from.entries.get(&op));
                let put = put.find(|entry| entry.header == *header).expect("it was put");
                expected.entries.insert(op, put.clone());
            }
        }
    }
}

/// Clause 8.
pub fn lost_tail<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    for op in 1..=4 {
        let batch = expected.puts(op..=op, 1, 900);
        write(&storage, &mut expected, batch);
    }
    drop(storage);
    let rotten = disks.rot_last_write(&disk).expect("these disks can rot");
    let storage = disks.open(&rotten).expect("opening");
    let recovered = recover(&storage);
    let known = matches!(verdict(&recovered, OpNumber(4)), Slot::Corrupt(_));
    assert!(known || !recovered.head_certain, "a rotten tail passes for a log that never had it");
    for op in 1..=3 {
        let slot = verdict(&recovered, OpNumber(op));
        assert!(slot != Slot::Absent, "op {op} was durable, and is called absent");
    }
    // It is still known after the replica has noted its start, and has put what it repaired.
    let batch = expected.next_state(None);
    block_on(storage.write(batch)).expect("the start is noted");
    let entry = expected.entries[&OpNumber(3)].clone();
    block_on(storage.write(Batch { entries: vec![entry], ..Batch::default() })).expect("a repair");
    drop(storage);
    let recovered = recover(&disks.open(&rotten).expect("opening"));
    for op in 1..=2 {
        assert!(verdict(&recovered, OpNumber(op)) != Slot::Absent, "op {op} was durable, and is called absent");
    }
}

/// Clause 9: damaged entries.
pub fn damage<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    // A batch each: entries of one batch may lie close together.
    for op in 1..=5 {
        let batch = expected.puts(op..=op, 1, 700);
        write(&storage, &mut expected, batch);
    }
    drop(storage);
    for entry in expected.entries.values() {
        let rotten = disks.rot_body(&disk, entry).expect("these disks can rot");
        let op = entry.header.op;
        let storage = disks.open(&rotten).expect("opening");
        let recovered = recover(&storage);
        assert_eq!(verdict(&recovered, op), Slot::Corrupt(Some(entry.header)), "op {op}: the header survived");
        for other in expected.entries.values().filter(|other| other.header.op != op) {
            assert_eq!(verdict(&recovered, other.header.op), Slot::Clean(other.header));
        }
        assert_readable(&storage, &recovered, |op| vec![expected.entries.get(&op).cloned()]);
        // A repaired entry is whole again.
        block_on(storage.write(Batch { entries: vec![entry.clone()], ..Batch::default() })).expect("a repair");
        drop(storage);
        let repaired = disks.open(&rotten).expect("opening");
        assert_exact(&repaired, &expected);
    }
}

/// Clause 9, hazard SF-17: damaged copies of the vsr state.
pub fn state_copies<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    for _ in 0..5 {
        let batch = expected.next_state(None);
        write(&storage, &mut expected, batch);
    }
    drop(storage);
    let (survived, refused) = disks.rot_state(&disk);
    assert!(!survived.is_empty() && !refused.is_empty(), "the copies of the state can be damaged");
    for disk in survived {
        assert_exact(&disks.open(&disk).expect("opening"), &expected);
    }
    for disk in refused {
        let refusal = disks.open(&disk).and_then(|storage| block_on(storage.recover()).map(|_| ()));
        assert!(matches!(refusal, Err(StorageError::StateLost(_))), "no certain state, and yet {refusal:?}");
    }
}

/// Clause 10, hazard SF-11.
pub fn poison<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    let batch = expected.puts(1..=2, 1, 100);
    write(&storage, &mut expected, batch);
    assert!(disks.fail_next(&disk), "a write can be made to fail");
    let old = expected.clone();
    let batch = expected.puts(3..=3, 1, 100);
    expected.apply(&batch);
    let failed = block_on(storage.write(batch));
    assert!(matches!(failed, Err(StorageError::Io { .. })), "{failed:?}");
    let poisoned = |result: Result<(), StorageError>| assert!(matches!(result, Err(StorageError::Poisoned(_))));
    poisoned(block_on(storage.write(expected.puts(4..=4, 1, 100))));
    poisoned(block_on(storage.write(expected.next_state(None))));
    poisoned(block_on(storage.read(OpNumber(1)..=OpNumber(2), 100)).map(|_| ()));
    poisoned(block_on(storage.recover()).map(|_| ()));
    drop(storage);
    let storage = disks.open(&disk).expect("opening again");
    assert_old_or_new(&storage, &old, &expected, "after a failed write");
}

/// Clause 11.
pub fn reads_beside_a_write<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    let batch = expected.puts(1..=20, 1, 5000);
    write(&storage, &mut expected, batch);
    for round in 0..20 {
        let batch = expected.puts(21 + round..=21 + round, 1, 50_000);
        let before = expected.clone();
        expected.apply(&batch);
        let both = async { futures::join!(storage.write(batch), storage.read(OpNumber(1)..=before.head, usize::MAX)) };
        let (written, read) = block_on(both);
        written.expect("the write");
        for (op, entry) in read.expect("the read") {
            assert_eq!(entry.as_ref(), before.entries.get(&op));
        }
    }
}

/// Clause 12.
pub fn formatted_once<D: Disks>(disks: &mut D) {
    let disk = disks.unformatted().expect("a disk that nobody has formatted");
    let opened = disks.open(&disk).map(|_| ());
    assert!(matches!(opened, Err(StorageError::NotFormatted(_))), "{opened:?}");
    let opened = disks.open(&disk).map(|_| ());
    assert!(matches!(opened, Err(StorageError::NotFormatted(_))), "opening has created something: {opened:?}");
}

/// Clause 13.
pub fn full<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), 1 << 20);
    let mut expected = Expected::new();
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    assert!(storage.room() <= LIMIT, "the limit is not in force: {} bytes are free", storage.room());
    loop {
        let next = expected.head.0 + 1;
        let batch = expected.puts(next..=next, 1, 40_000);
        let room = storage.room();
        match block_on(storage.write(batch.clone())) {
            Ok(()) => expected.apply(&batch),
            Err(error) => {
                assert!(matches!(error, StorageError::Full { .. }), "{error:?}");
                assert!(room < 50_000, "it says that {room} bytes are free, and refuses 40,000");
                break;
            }
        }
        assert!(next < 1000, "1 MiB holds more than 40 MB");
    }
    let batch = expected.next_state(None);
    write(&storage, &mut expected, batch);
    assert_exact(&storage, &expected);
    drop(storage);
    assert_exact(&disks.open(&disk).expect("opening"), &expected);
}

/// Clause 14.
pub fn recover_is_idempotent<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let mut random = Random::new(5);
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    for step in 0..30 {
        let batch = any_batch(&expected, &mut random, step);
        write(&storage, &mut expected, batch);
    }
    drop(storage);
    for _ in 0..3 {
        let storage = disks.open(&disk).expect("opening");
        assert_exact(&storage, &expected);
        assert_exact(&storage, &expected);
    }
}

/// Clause 19: a log whose beginning is dropped takes far more than its limit in all, and what is left of it is there at each start.
pub fn dropped<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), 1 << 20);
    let mut expected = Expected::new();
    let mut storage = disks.open(&disk).expect("opening");
    recover(&storage);
    let mut random = Random::new(19);
    for round in 0..60 {
        for _ in 0..4 {
            let head = expected.head.0;
            let batch = expected.puts(head + 1..=head + 2, round, 20_000);
            write(&storage, &mut expected, batch);
        }
        let head = expected.head.0;
        let batch = expected.next_base(head - random.below(6));
        write(&storage, &mut expected, batch);
        let gone =
            block_on(storage.read(OpNumber(expected.base())..=OpNumber(expected.base()), 1000)).expect("reading");
        assert_eq!(gone, [(OpNumber(expected.base()), None)], "what was dropped is not read");
        if random.chance(1, 4) {
            drop(storage);
            storage = disks.open(&disk).expect("opening again");
        }
        assert_exact(&storage, &expected);
    }
    // One that was fetched reaches further than the log.
    let batch = expected.next_base(expected.head.0 + 1000);
    write(&storage, &mut expected, batch);
    let head = expected.head.0;
    let batch = expected.puts(head + 1..=head + 3, 1, 100);
    write(&storage, &mut expected, batch);
    assert_exact(&storage, &expected);
    drop(storage);
    assert_exact(&disks.open(&disk).expect("opening again"), &expected);
}
