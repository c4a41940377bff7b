//! Rot, lost writes, cut files, sectors that cannot be read: what they take, and what they must not.

mod support;

use std::collections::BTreeMap;

use futures::executor::block_on;
use support::{Disk, Inline, NextSync, SECTOR, entry, is_certain, is_clean, put, try_put, verdicts, write_state};
use vsr::Storage;
use vsr::protocol::{Batch, CommitNumber, Entry, Header, OpNumber, Random, Recovered, Slot};
use vsr::storage::StorageError;

/// Ops from 1, and where the record of each is.
struct Written {
    disk: Disk,
    headers: Vec<Header>,
    records: Vec<std::ops::Range<usize>>,
}

impl Written {
    /// A record for each op, of these sizes, in so many lives.
    fn new(sizes: &[usize], lives: usize) -> Written {
        let disk = Disk::new();
        let (mut headers, mut records) = (Vec::new(), Vec::new());
        for life in 0..lives {
            let (storage, _) = disk.start();
            for size in sizes {
                let entry = entry(headers.len() as u64 + 1, life as u64, *size);
                headers.push(entry.header);
                records.push(disk.changed(|| put(&storage, vec![entry])));
            }
        }
        Written { disk, headers, records }
    }

    fn end(&self) -> usize {
        self.records.last().expect("a record").end
    }

    /// Nothing is claimed that was not, and every op whose record lies outside of the damage is intact.
    fn check(&self, recovered: &Recovered, damage: &std::ops::Range<usize>, what: &str) {
        for (index, (header, record)) in self.headers.iter().zip(&self.records).enumerate() {
            let op = index + 1;
            let is_hit = record.start < damage.end && damage.start < record.end;
            match recovered.slots.get(index) {
                Some(Slot::Clean(found)) => assert_eq!(found, header, "{what}: op {op}"),
                Some(Slot::Corrupt(found)) => {
                    assert!(is_hit, "{what}: op {op} lies outside, and is corrupt");
                    assert!(found.is_none_or(|found| found == *header), "{what}: op {op} has another header");
                }
                Some(Slot::Absent) => panic!("{what}: op {op} was acknowledged, and is absent"),
                None => assert!(is_hit && !recovered.head_certain, "{what}: op {op} is gone, for certain"),
            }
        }
        assert!(recovered.slots.len() <= self.headers.len(), "{what}: ops that nobody put");
    }
}

/// What can become of a sector.
fn spoil(disk: &Disk, sectors: std::ops::Range<usize>, kind: &str) {
    match kind {
        "rot" => disk.log.rot(sectors),
        "zeros" => disk.log.change(|bytes| {
            for at in sectors {
                bytes[at * SECTOR..(at + 1) * SECTOR].fill(0);
            }
        }),
        _ => disk.log.lock().bad.extend(sectors),
    }
}

const MIXED: [usize; 8] = [100, 100, 1500, 300, 0, 60, 190, 700];

#[test]
fn one_bad_sector_takes_only_the_op_in_it_and_not_its_header() {
    for (sizes, lives) in [(&MIXED[..], 1), (&MIXED[..], 2), (&[100, 1500, 100][..], 1), (&[100; 9][..], 3)] {
        let written = Written::new(sizes, lives);
        let last = written.records.last().expect("a record").clone();
        for bad in 0..written.end() + 20 {
            for kind in ["rot", "zeros", "unreadable"] {
                let what = format!("{sizes:?}, {lives} lives, sector {bad}: {kind}");
                let disk = written.disk.copy_log();
                spoil(&disk, bad..bad + 1, kind);
                let recovered = disk.recover().expect("one bad sector is no reason not to start");
                written.check(&recovered, &(bad..bad + 1), &what);
                // Only where nothing else can tell is it open whether there was more.
                let is_open = bad == last.end || last == (bad..bad + 1);
                assert_eq!(recovered.head_certain, !is_open, "{what}: {:?}", verdicts(&recovered));
                for (slot, header) in recovered.slots.iter().zip(&written.headers) {
                    assert!(!matches!(slot, Slot::Corrupt(None)), "{what}: the header of {} is gone", header.op);
                }
            }
        }
    }
}

#[test]
fn one_bad_page_takes_only_the_ops_in_it() {
    for (sizes, lives) in [(&MIXED[..], 3), (&[100; 12][..], 2), (&[5000, 100, 2500][..], 3)] {
        let written = Written::new(sizes, lives);
        for at in 0..written.end() + 4 {
            for kind in ["rot", "unreadable"] {
                let disk = written.disk.copy_log();
                let damage = at..at + 8;
                spoil(&disk, damage.clone(), kind);
                let recovered = disk.recover().expect("one bad page is no reason not to start");
                written.check(&recovered, &damage, &format!("{sizes:?}, {lives} lives, page {damage:?}: {kind}"));
            }
        }
    }
}

/// A batch of many entries: a sector takes the entries whose bodies lie in it, and no header.
#[test]
fn a_bad_sector_in_a_batch_takes_the_entries_in_it() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    put(&storage, vec![entry(1, 0, 100)]);
    let entries: Vec<Entry> = (2..=30).map(|op| entry(op, 0, 600)).collect();
    let record = disk.changed(|| put(&storage, entries));
    put(&storage, vec![entry(31, 0, 100)]);
    for bad in record {
        let disk = disk.copy_log();
        disk.log.rot(bad..bad + 1);
        let recovered = disk.recover().expect("recovering");
        let corrupt: Vec<&Slot> = recovered.slots.iter().filter(|slot| !matches!(slot, Slot::Clean(_))).collect();
        assert!(recovered.head_certain && recovered.slots.len() == 31);
        assert!(corrupt.len() <= 2, "sector {bad} takes {corrupt:?}");
        assert!(corrupt.iter().all(|slot| matches!(slot, Slot::Corrupt(Some(_)))), "sector {bad}: {corrupt:?}");
    }
}

/// Three replicas, up since they were formatted, with one bad sector each.
#[test]
fn of_three_disks_with_one_bad_sector_each_every_op_has_a_copy() {
    let written = Written::new(&[100; 60], 1);
    let mut random = Random::new(14);
    for trial in 0..200 {
        let mut bad: Vec<usize> = (0..3).map(|_| random.below(written.end() as u64) as usize).collect();
        bad.dedup();
        if trial == 0 {
            bad = vec![written.end() - 1, 40, 20];
        }
        let mut has_copy = vec![0; written.headers.len()];
        for at in &bad {
            let disk = written.disk.copy_log();
            disk.log.rot(*at..at + 1);
            let recovered = disk.recover().expect("recovering");
            (1..=60).for_each(|op| has_copy[op as usize - 1] += u64::from(is_clean(&recovered, op)));
        }
        let hits = |op: usize| bad.iter().filter(|&&at| written.records[op].contains(&at)).count() as u64;
        for (op, copies) in has_copy.iter().enumerate() {
            assert_eq!(copies + hits(op), bad.len() as u64, "bad sectors {bad:?}: op {}", op + 1);
        }
    }
}

#[test]
fn a_log_that_is_cut_anywhere_is_damaged_and_not_shorter() {
    for lives in [1, 2] {
        let written = Written::new(&MIXED, lives);
        let end = written.end() * SECTOR;
        for cut in (0..=end + 3 * SECTOR).step_by(SECTOR / 2) {
            let disk = written.disk.copy_log();
            disk.log.change(|bytes| bytes.truncate(cut));
            let what = format!("{lives} lives, cut to {cut} bytes");
            let recovered = disk.recover().expect("a log that was cut is mended by peers");
            written.check(&recovered, &(cut / SECTOR..usize::MAX), &what);
            // And grown again with zeros, as by a file system that had to choose.
            disk.log.change(|bytes| bytes.resize(1 << 16, 0));
            let regrown = disk.recover().expect("a log that was cut is mended by peers");
            assert_eq!(verdicts(&regrown), verdicts(&recovered), "{what}");
            assert_eq!(regrown.head_certain, recovered.head_certain, "{what}");
        }
    }
}

#[test]
fn a_log_that_is_empty_or_zeroed_has_lost_all_and_serves_again_when_repaired() {
    let changes: [fn(&mut Vec<u8>); 2] = [|bytes| bytes.clear(), |bytes| bytes.fill(0)];
    for change in changes {
        let written = Written::new(&MIXED, 2);
        let disk = written.disk.copy();
        disk.log.change(change);
        let (storage, recovered) = disk.start();
        assert!(!recovered.head_certain);
        written.check(&recovered, &(0..usize::MAX), "emptied");
        assert!(recovered.slots.len() >= 8, "what the state knew of is lost, not absent");
        drop(storage);
        let (storage, again) = disk.start();
        assert_eq!(verdicts(&again), verdicts(&recovered), "the next start knows as well");
        for (at, header) in written.headers.iter().enumerate() {
            put(&storage, vec![entry(at as u64 + 1, header.view.number, MIXED[at % 8])]);
        }
        drop(storage);
        let recovered = disk.recover().expect("recovering");
        assert!(recovered.slots.iter().all(|slot| matches!(slot, Slot::Clean(_))) && recovered.slots.len() == 16);
    }
}

#[test]
fn the_log_of_another_disk_is_refused_and_left_alone() {
    let written = Written::new(&MIXED, 1);
    let other = Disk::of(100);
    let (storage, _) = other.start();
    put(&storage, vec![entry(1, 0, 100)]);
    let foreign = other.log.content();
    for content in [foreign.clone(), vec![0x5A; 1 << 16], written.disk.state.content()] {
        let disk = written.disk.copy();
        disk.log.change(|bytes| *bytes = content.clone());
        let refused = disk.recover().expect_err("that is not its log");
        assert!(matches!(&refused, StorageError::Damaged { path, .. } if path == "the disk/log"), "{refused}");
        assert_eq!(disk.log.content(), content);
    }
}

#[test]
fn a_log_of_which_nothing_can_be_read_is_refused_in_words() {
    let written = Written::new(&MIXED, 1);
    let disk = written.disk.copy();
    let sectors = disk.log.content().len() / SECTOR;
    disk.log.lock().bad.extend(0..sectors);
    let refused = disk.recover().expect_err("nothing can be read");
    assert!(matches!(&refused, StorageError::Damaged { what, .. } if what.contains("can be read")), "{refused}");
}

/// A write that a power loss cut short, and on top of it one that was acknowledged and rots.
#[test]
fn a_torn_write_never_comes_back_when_what_was_written_over_it_rots() {
    for missing in 0..8 {
        for over in [100, 500, 3000] {
            for rotten in [false, true] {
                let disk = Disk::new();
                let (storage, _) = disk.start();
                put(&storage, vec![entry(1, 0, 100)]);
                let before = disk.log.content();
                let torn = disk.changed(|| put(&storage, (2..=13).map(|op| entry(op, 0, 100)).collect()));
                drop(storage);
                let lost = (torn.start + missing % torn.len()) * SECTOR;
                disk.log.change(|bytes| bytes[lost..lost + SECTOR].copy_from_slice(&before[lost..lost + SECTOR]));
                let (storage, recovered) = disk.start();
                assert!(recovered.head_certain && recovered.slots.len() == 1, "{:?}", verdicts(&recovered));
                let record = disk.changed(|| put(&storage, vec![entry(2, 1, over)]));
                drop(storage);
                let check = |recovered: &Recovered, what: &str| {
                    let what = format!("{what}: sector {missing} missing, {over} over it: {:?}", verdicts(recovered));
                    assert!(recovered.slots.iter().skip(1).all(|slot| !matches!(slot, Slot::Clean(_))), "{what}");
                    assert!(
                        matches!(recovered.slots.get(1), Some(Slot::Corrupt(_))) || !recovered.head_certain,
                        "{what}"
                    );
                };
                if rotten {
                    disk.log.rot(record);
                    check(&disk.recover().expect("recovering"), "rotten");
                    drop(disk.start());
                    let again = disk.recover().expect("recovering");
                    assert!(again.slots.iter().skip(1).all(|slot| !matches!(slot, Slot::Clean(_))));
                } else {
                    // Lost instead, and noticed by what came after it.
                    let (storage, _) = disk.start();
                    put(&storage, vec![entry(3, 1, 100)]);
                    put(&storage, vec![entry(4, 1, 100)]);
                    drop(storage);
                    let range = record.start * SECTOR..record.end * SECTOR;
                    disk.log.change(|bytes| bytes[range.clone()].copy_from_slice(&before[range]));
                    let recovered = disk.recover().expect("recovering");
                    assert!(matches!(recovered.slots[1], Slot::Corrupt(_)), "{:?}", verdicts(&recovered));
                    assert!(is_clean(&recovered, 3) && is_clean(&recovered, 4), "{:?}", verdicts(&recovered));
                }
            }
        }
    }
}

/// An acknowledged write of which nothing reached the disk, over a torn one that did.
#[test]
fn a_lost_write_on_top_of_a_torn_one_does_not_bring_it_back() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    put(&storage, vec![entry(1, 0, 100)]);
    let before = disk.log.content();
    let torn = disk.changed(|| put(&storage, vec![entry(2, 0, 1500), entry(3, 0, 1500)]));
    drop(storage);
    let lost = (torn.start + 2) * SECTOR;
    disk.log.change(|bytes| bytes[lost..lost + SECTOR].copy_from_slice(&before[lost..lost + SECTOR]));
    let with_torn = disk.log.content();
    let (storage, _) = disk.start();
    put(&storage, vec![entry(2, 1, 100)]);
    drop(storage);
    disk.log.change(|bytes| *bytes = with_torn);
    for _ in 0..3 {
        let (_, recovered) = disk.start();
        assert!(
            recovered.slots.iter().skip(1).all(|slot| !matches!(slot, Slot::Clean(_))),
            "{:?}",
            verdicts(&recovered)
        );
    }
}

/// A view drops ops and puts others; these are lost, and what was dropped shows again in the log.
#[test]
fn what_a_start_found_lost_is_lost_for_every_later_start_until_it_is_put_again() {
    let disk = Disk::new();
    let (storage, recovered) = disk.start();
    let mut state = recovered.state.clone();
    (1..=3).for_each(|op| put(&storage, vec![entry(op, 0, 100)]));
    state.view = state.view.next();
    state.log_view = state.view;
    state.commit = CommitNumber(1);
    write_state(&storage, state, Some(1));
    let before = disk.log.content();
    (2..=3).for_each(|op| put(&storage, vec![entry(op, 1, 100)]));
    drop(storage);
    drop(disk.start());
    disk.log.change(|bytes| *bytes = before);
    for start in 0..4 {
        let (_, recovered) = disk.start();
        assert_eq!(verdicts(&recovered), ["clean v0", "corrupt", "corrupt"], "start {start} after the loss");
    }
    let (storage, _) = disk.start();
    put(&storage, vec![entry(3, 1, 100)]);
    drop(storage);
    let (storage, recovered) = disk.start();
    assert_eq!(verdicts(&recovered), ["clean v0", "corrupt", "clean v1"]);
    block_on(storage.write(Batch { truncate_above: Some(OpNumber(1)), ..Batch::default() })).expect("a truncation");
    drop(storage);
    assert_eq!(verdicts(&disk.recover().expect("recovering")), ["clean v0"]);
}

/// A lost record that replaced an entry, or dropped some: what was there before it does not pass for what is.
#[test]
fn what_a_lost_record_may_have_replaced_is_not_believed() {
    for drops in [false, true] {
        let disk = Disk::new();
        let (storage, _) = disk.start();
        (1..=12).for_each(|op| put(&storage, vec![entry(op, 0, 100)]));
        let replacing = disk.changed(|| {
            let truncate_above = drops.then_some(OpNumber(6));
            let entries = vec![entry(7, 1, 100)];
            block_on(storage.write(Batch { truncate_above, entries, state: None })).expect("a replacement");
        });
        let next = if drops { 8 } else { 13 };
        let behind = disk.changed(|| put(&storage, vec![entry(next, 1, 100)]));
        put(&storage, vec![entry(next + 1, 1, 100)]);
        drop(storage);
        for restarts in [0, 2] {
            (0..restarts).for_each(|_| drop(disk.start()));
            let disk = disk.copy();
            disk.log.rot(replacing.start..behind.end);
            let recovered = disk.recover().expect("recovering");
            let said = verdicts(&recovered);
            assert!((1..=6).all(|op| is_clean(&recovered, op)), "{said:?}");
            assert!(!is_clean(&recovered, 7) && recovered.slots.len() as u64 == next + 1, "{said:?}");
            assert!(is_clean(&recovered, next + 1), "{said:?}");
            assert!(
                !drops || recovered.slots[8..].iter().all(|slot| !matches!(slot, Slot::Clean(h) if h.view.number == 0))
            );
        }
    }
}

/// What the log should hold.
#[derive(Clone, Default)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    head: u64,
}

impl Model {
    fn put(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.head = self.head.max(entry.header.op.0);
            self.entries.insert(entry.header.op.0, entry.clone());
        }
    }

    fn truncate(&mut self, above: u64) {
        self.entries.split_off(&(above + 1));
        self.head = self.head.min(above);
    }

    fn header(&self, op: u64) -> Option<Header> {
        self.entries.get(&op).map(|entry| entry.header)
    }

    /// Nothing that is said of the log is false.
    fn check(&self, recovered: &Recovered, what: &str) {
        let said = verdicts(recovered);
        for op in 1..=self.head.max(recovered.slots.len() as u64) {
            match recovered.slots.get(op as usize - 1) {
                Some(Slot::Clean(header)) => assert_eq!(Some(*header), self.header(op), "{what}: op {op}: {said:?}"),
                Some(Slot::Corrupt(Some(header))) => {
                    assert_eq!(Some(*header), self.header(op), "{what}: op {op}: {said:?}");
                }
                Some(Slot::Corrupt(None)) => {}
                Some(Slot::Absent) => assert_eq!(self.header(op), None, "{what}: op {op} was acknowledged: {said:?}"),
                None => assert!(!is_certain(recovered), "{what}: op {op} is gone, for certain: {said:?}"),
            }
        }
    }
}

/// Batches of every kind, restarts, power losses inside a write; then damage anywhere.
struct Run {
    disk: Disk,
    storage: Inline,
    model: Model,
    view: u64,
    random: Random,
}

impl Run {
    fn new(seed: u64) -> Run {
        let disk = Disk::new();
        let storage = disk.start().0;
        Run { disk, storage, model: Model::default(), view: 0, random: Random::new(seed) }
    }

    fn entries(&mut self, ops: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        self.view += 1;
        let sizes = [0, 60, 150, 400, 1500];
        ops.map(|op| entry(op, self.view, sizes[self.random.below(5) as usize])).collect()
    }

    fn batch(&mut self) -> Batch {
        let (head, kind) = (self.model.head, self.random.below(9));
        let down = self.random.below(head.min(4) + 1);
        match kind {
            0 if head > 0 => {
                let op = 1 + self.random.below(head);
                Batch { entries: self.entries(op..=op), ..Batch::default() }
            }
            1 => {
                let above = head - down;
                let truncate_above = Some(OpNumber(above));
                Batch { truncate_above, entries: self.entries(above + 1..=above + 2), state: None }
            }
            2 => Batch { entries: self.entries(head + 2..=head + 2), ..Batch::default() },
            _ => {
                let last = head + 1 + self.random.below(3);
                Batch { entries: self.entries(head + 1..=last), ..Batch::default() }
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(8) {
            0 => self.storage = self.disk.start().0,
            1 => {
                let down = self.random.below(self.model.head.min(4) + 1);
                let above = self.random.chance(1, 2).then_some(self.model.head - down);
                let mut state = block_on(self.storage.recover()).expect("recovering").state;
                state.view = state.view.next();
                write_state(&self.storage, state, above);
                if let Some(above) = above {
                    self.model.truncate(above);
                }
            }
            2 => self.power_loss(),
            _ => {
                let batch = self.batch();
                let (above, entries) = (batch.truncate_above, batch.entries.clone());
                block_on(self.storage.write(batch)).expect("a write");
                if let Some(above) = above {
                    self.model.truncate(above.0);
                }
                self.model.put(&entries);
            }
        }
    }

    fn power_loss(&mut self) {
        let batch = self.batch();
        let mut new = self.model.clone();
        if let Some(above) = batch.truncate_above {
            new.truncate(above.0);
        }
        new.put(&batch.entries);
        self.disk.log.lock().next = NextSync::Killed;
        block_on(self.storage.write(batch)).expect_err("the sync does not come");
        self.disk.crash(&mut self.random);
        self.disk.log.lock().next = NextSync::Works;
        let (storage, recovered) = self.disk.start();
        self.storage = storage;
        assert!(recovered.head_certain, "a crash is not rot");
        let found: Vec<Option<Header>> = recovered
            .slots
            .iter()
            .map(|slot| match slot {
                Slot::Clean(header) => Some(*header),
                Slot::Absent => None,
                Slot::Corrupt(_) => panic!("a crash is not rot: {:?}", verdicts(&recovered)),
            })
            .collect();
        let is = |model: &Model| (1..=model.head).map(|op| model.header(op)).collect::<Vec<_>>() == found;
        assert!(is(&self.model) || is(&new), "neither before nor after: {:?}", verdicts(&recovered));
        if !is(&self.model) {
            self.model = new;
        }
    }
}

#[test]
fn whatever_is_damaged_nothing_false_is_said_now_or_later_and_all_can_be_repaired() {
    for seed in 0..100 {
        let mut run = Run::new(seed);
        (0..40).for_each(|_| run.step());
        let Run { disk, model, mut random, .. } = run;
        let content = disk.log.content();
        let used = content.chunks(SECTOR).rposition(|sector| sector[488..504].iter().any(|&byte| byte != 0));
        let used = used.map_or(1, |last| last + 2);
        for trial in 0..4 {
            let from = random.below(used as u64) as usize;
            let len = [1, 1, 8, 24][trial];
            let kind = ["rot", "zeros", "unreadable"][random.below(3) as usize];
            let what = format!("seed {seed}: {kind} at {from}, {len} sectors");
            let disk = disk.copy();
            spoil(&disk, from..from + len, kind);
            let (storage, first) = disk.start();
            model.check(&first, &what);
            drop(storage);
            let (storage, second) = disk.start();
            model.check(&second, &format!("{what}, the second start"));
            assert_eq!(verdicts(&second), verdicts(&first), "{what}: the second start says something else");
            for entry in model.entries.values() {
                if !is_clean(&second, entry.header.op.0) {
                    try_put(&storage, vec![entry.clone()]).expect("a repair");
                }
            }
            drop(storage);
            disk.log.lock().bad.clear();
            let third = disk.recover().expect("recovering");
            for (op, entry) in &model.entries {
                let slot = third.slots.get(*op as usize - 1);
                assert_eq!(slot, Some(&Slot::Clean(entry.header)), "{what}: op {op} was repaired");
            }
        }
    }
}
