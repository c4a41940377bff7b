//! What was lost, and what a later start, or a later loss, makes of it.

mod support;

use futures::executor::block_on;
use support::{Disk, SECTOR, entry, is_clean, put, try_put, verdicts, write_state};
use vsr::Storage;
use vsr::protocol::{CommitNumber, Slot};

/// The end of the log is zeroed. What is prepared anew there would show a log that never was longer.
#[test]
fn the_evidence_of_a_loss_is_not_written_over_before_the_loss_is_durable() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    put(&storage, vec![entry(1, 0, 100)]);
    let lost = disk.changed(|| put(&storage, vec![entry(2, 0, 100)]));
    drop(storage);
    disk.log.change(|bytes| bytes[lost.start * SECTOR..].fill(0));
    let storage = disk.open().expect("opening");
    let recovered = block_on(storage.recover()).expect("recovering");
    assert!(!recovered.head_certain, "{:?}", verdicts(&recovered));
    // The process ends at its first write, before a state is durable.
    let sectors = disk.state.content().len() / SECTOR;
    disk.state.lock().unwritable.extend(0..sectors);
    try_put(&storage, vec![entry(2, 1, 100)]).expect_err("no state can be written");
    drop(storage);
    disk.state.lock().unwritable.clear();
    disk.power_loss();
    let recovered = disk.recover().expect("recovering");
    assert!(!recovered.head_certain, "an acknowledged op is absent, for certain: {:?}", verdicts(&recovered));
}

/// The copy of the headers of a one-sector record lies in the next record, whatever comes between the two.
#[test]
fn the_header_of_a_record_before_a_state_survives_its_sector() {
    for between in ["a start", "two starts", "a state", "a replacement"] {
        let disk = Disk::new();
        let (mut storage, _) = disk.start();
        put(&storage, vec![entry(1, 0, 100)]);
        let record = disk.changed(|| put(&storage, vec![entry(2, 0, 100)]));
        let starts = match between {
            "a start" => 1,
            "two starts" => 2,
            _ => 0,
        };
        for _ in 0..starts {
            drop(storage);
            storage = disk.start().0;
        }
        match between {
            "a state" => {
                let state = block_on(storage.recover()).expect("recovering").state;
                write_state(&storage, state, None);
            }
            "a replacement" => put(&storage, vec![entry(1, 1, 100)]),
            _ => {}
        }
        put(&storage, vec![entry(3, 0, 100)]);
        drop(storage);
        for later in 0..3 {
            let disk = disk.copy();
            disk.log.rot(record.clone());
            (0..later).for_each(|_| drop(disk.start()));
            let recovered = disk.recover().expect("recovering");
            let said = verdicts(&recovered);
            assert_eq!(recovered.slots[1], Slot::Corrupt(Some(entry(2, 0, 100).header)), "{between}: {said:?}");
            assert!(
                is_clean(&recovered, 1) && is_clean(&recovered, 3) && recovered.head_certain,
                "{between}: {said:?}"
            );
        }
    }
}

/// An acknowledged record cannot be read at one start, which goes on without it; later it can be read again.
#[test]
fn a_record_that_could_not_be_read_once_never_counts_again() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    (1..=2).for_each(|op| put(&storage, vec![entry(op, 0, 100)]));
    let unread = disk.changed(|| put(&storage, vec![entry(3, 0, 100)]));
    drop(storage);
    disk.log.lock().bad.extend(unread);
    let (storage, recovered) = disk.start();
    assert!(!recovered.head_certain && recovered.slots.len() == 2, "{:?}", verdicts(&recovered));
    let behind = disk.changed(|| put(&storage, vec![entry(3, 1, 1500)]));
    put(&storage, vec![entry(4, 1, 100)]);
    drop(storage);
    disk.log.lock().bad.clear();
    let whole = disk.recover().expect("recovering");
    assert_eq!(verdicts(&whole), ["clean v0", "clean v0", "clean v1", "clean v1"]);
    for starts in 0..3 {
        drop((starts > 0).then(|| disk.start()));
        let disk = disk.copy();
        disk.log.rot(behind.clone());
        let recovered = disk.recover().expect("recovering");
        let said = verdicts(&recovered);
        assert!(!is_clean(&recovered, 3), "after {starts} starts op 3 is what it was before it was lost: {said:?}");
        assert!([1, 2, 4].iter().all(|&op| is_clean(&recovered, op)) && recovered.head_certain, "{said:?}");
    }
}

/// A record rots, and all that knows of it is the copy in the next one, which never completed and is written over.
#[test]
fn what_only_a_torn_record_knows_of_stays_lost() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    (1..=3).for_each(|op| put(&storage, vec![entry(op, 0, 100)]));
    let replacing = disk.changed(|| put(&storage, vec![entry(2, 1, 100)]));
    let before = disk.log.content();
    let torn = disk.changed(|| put(&storage, vec![entry(4, 1, 1500)]));
    drop(storage);
    let missing = (torn.end - 1) * SECTOR..torn.end * SECTOR;
    disk.log.change(|bytes| bytes[missing.clone()].copy_from_slice(&before[missing]));
    disk.log.rot(replacing);
    for start in 0..3 {
        let (_, recovered) = disk.start();
        let said = verdicts(&recovered);
        assert!(!is_clean(&recovered, 2), "start {start}: op 2 is what it was before it was replaced: {said:?}");
        assert!(is_clean(&recovered, 1) && is_clean(&recovered, 3), "start {start}: {said:?}");
        assert!(recovered.slots.len() == 3 && recovered.head_certain, "start {start}: {said:?}");
    }
}

/// A slot that was lost is put again, and the record that did so is lost in its turn.
#[test]
fn a_slot_that_was_lost_and_repaired_does_not_fall_back_to_what_it_was_before_both() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    (1..=3).for_each(|op| put(&storage, vec![entry(op, 0, 100)]));
    let replacing = disk.changed(|| put(&storage, vec![entry(2, 1, 100)]));
    drop(storage);
    disk.log.rot(replacing);
    let (storage, recovered) = disk.start();
    assert!(!is_clean(&recovered, 2), "{:?}", verdicts(&recovered));
    put(&storage, vec![entry(4, 2, 100)]);
    let repair = disk.changed(|| put(&storage, vec![entry(2, 2, 1500)]));
    put(&storage, vec![entry(5, 2, 100)]);
    drop(storage);
    for starts in 0..3 {
        drop((starts > 0).then(|| disk.start()));
        let whole = disk.recover().expect("recovering");
        assert!(is_clean(&whole, 2), "after {starts} starts: {:?}", verdicts(&whole));
        let disk = disk.copy();
        disk.log.rot(repair.clone());
        let recovered = disk.recover().expect("recovering");
        let said = verdicts(&recovered);
        assert!(!is_clean(&recovered, 2), "after {starts} starts op 2 is two entries back: {said:?}");
        assert!([1, 4, 5].iter().all(|&op| is_clean(&recovered, op)), "after {starts} starts: {said:?}");
    }
}

/// The disk never wrote op 2, and said that it had. Any sector of the record behind it is enough to know. With none left it
/// looks like a disk on which neither was begun, with bad sectors where nothing is written yet: these are no loss.
#[test]
fn a_lost_record_is_known_as_long_as_a_sector_of_a_later_one_can_be_read() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    put(&storage, vec![entry(1, 0, 100)]);
    let ended = disk.copy();
    let lost = disk.changed(|| put(&storage, vec![entry(2, 0, 100)]));
    let behind = disk.changed(|| put(&storage, vec![entry(3, 0, 1500)]));
    drop(storage);
    let (lost, before) = (lost.start * SECTOR..lost.end * SECTOR, ended.log.content());
    disk.log.change(|bytes| bytes[lost.clone()].copy_from_slice(&before[lost]));
    for left in behind.clone() {
        let disk = disk.copy();
        disk.log.rot(behind.start..left);
        disk.log.rot(left + 1..behind.end);
        let recovered = disk.recover().expect("recovering");
        let said = verdicts(&recovered);
        let is_known = recovered.slots.get(1).map_or(!recovered.head_certain, |slot| matches!(slot, Slot::Corrupt(_)));
        assert!(is_known && is_clean(&recovered, 1), "sector {left} is left: {said:?}");
    }
    for disk in [&disk, &ended] {
        disk.log.lock().bad.extend(behind.clone());
        let recovered = disk.recover().expect("recovering");
        assert!(recovered.head_certain && verdicts(&recovered) == ["clean v0"], "{:?}", verdicts(&recovered));
    }
}

/// The replica calls ops committed of which it holds stale entries, and replaces these where they stand.
#[test]
fn a_lost_record_may_have_replaced_a_slot_that_is_called_committed() {
    let disk = Disk::new();
    let (storage, recovered) = disk.start();
    (1..=6).for_each(|op| put(&storage, vec![entry(op, 0, 100)]));
    let mut state = recovered.state;
    state.commit = CommitNumber(6);
    write_state(&storage, state, None);
    let replacing = disk.changed(|| put(&storage, vec![entry(3, 1, 100)]));
    let behind = disk.changed(|| put(&storage, vec![entry(7, 1, 100)]));
    put(&storage, vec![entry(8, 1, 100)]);
    drop(storage);
    for starts in 0..3 {
        drop((starts > 0).then(|| disk.start()));
        let disk = disk.copy();
        disk.log.rot(replacing.start..behind.end);
        let recovered = disk.recover().expect("recovering");
        let said = verdicts(&recovered);
        assert!(!is_clean(&recovered, 3), "after {starts} starts op 3 is what it was before it was replaced: {said:?}");
        assert!([1, 2, 8].iter().all(|&op| is_clean(&recovered, op)), "after {starts} starts: {said:?}");
    }
}
