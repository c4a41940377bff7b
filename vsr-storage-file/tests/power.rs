//! Failed syncs whose data stays readable, kills, power losses: what a start reports outlives them.

mod support;

use futures::executor::block_on;
use support::{Disk, Inline, NextSync, Room, entry, is_clean, put, try_put, verdicts};
use vsr::Storage;
use vsr::protocol::{Batch, OpNumber, Recovered};
use vsr::storage::StorageError;

/// What a start reports is still so after a power loss, and at the start after that.
fn outlives_a_power_loss(disk: &Disk, what: &str) -> Recovered {
    let first = disk.recover().expect("recovering");
    let again = disk.recover().expect("recovering again");
    disk.power_loss();
    let after = disk.recover().expect("recovering after a power loss");
    for (other, when) in [(again, "a second recover"), (after, "a power loss")] {
        assert_eq!(other.state, first.state, "{what}: the state after {when}");
        assert_eq!(verdicts(&other), verdicts(&first), "{what}: the log after {when}");
        assert_eq!(other.head_certain, first.head_certain, "{what}: the head after {when}");
    }
    first
}

/// Hazard SF-12: the kernel marks the pages of a failed sync clean; a later sync does not write them.
#[test]
fn sf_12_a_failed_sync_of_the_log_is_believed_after_it_was_written_again() {
    for next in [NextSync::Fails, NextSync::Killed] {
        let disk = Disk::new();
        let (storage, _) = disk.start();
        (1..=2).for_each(|op| put(&storage, vec![entry(op, 0, 1500)]));
        disk.log.lock().next = next;
        let failed = try_put(&storage, vec![entry(3, 0, 1500)]);
        assert!(matches!(failed, Err(StorageError::Io { .. })), "{failed:?}");
        assert!(matches!(try_put(&storage, vec![entry(4, 0, 10)]), Err(StorageError::Poisoned(_))));
        drop(storage);
        let first = outlives_a_power_loss(&disk, "the log");
        assert!(first.head_certain && (1..=3).all(|op| is_clean(&first, op)), "{:?}", verdicts(&first));
    }
}

#[test]
fn sf_12_a_failed_sync_of_the_state_is_believed_after_it_was_written_again() {
    for next in [NextSync::Fails, NextSync::Killed] {
        let disk = Disk::new();
        let (storage, recovered) = disk.start();
        put(&storage, vec![entry(1, 0, 100)]);
        let mut state = recovered.state.clone();
        state.view = state.view.next();
        disk.state.lock().next = next;
        let failed = block_on(storage.write(Batch { state: Some(state.clone()), ..Batch::default() }));
        assert!(matches!(failed, Err(StorageError::Io { .. })), "{failed:?}");
        drop(storage);
        let first = outlives_a_power_loss(&disk, "the state");
        assert_eq!(first.state.view, state.view, "it was read, so it is there");
    }
}

/// Batches of each kind, one of which fails; what was acknowledged before is there.
#[test]
fn whatever_sync_fails_what_a_start_reports_outlives_a_power_loss() {
    let batches = |storage: &Inline, disk: &Disk, fail: usize, next: NextSync, in_state: bool| {
        let mut acknowledged = Vec::new();
        for at in 0..8 {
            if at == fail {
                let file = if in_state { &disk.state } else { &disk.log };
                file.lock().next = next;
            }
            let op = at as u64 + 1;
            let batch = match at {
                3 => {
                    let mut state = block_on(storage.recover())?.state;
                    state.view = state.view.next();
                    Batch { state: Some(state), truncate_above: Some(OpNumber(2)), entries: Vec::new() }
                }
                5 => Batch { entries: vec![entry(2, 9, 200)], ..Batch::default() },
                _ => Batch { entries: vec![entry(op, 0, 100 * at), entry(op + 1, 0, 700)], ..Batch::default() },
            };
            let entries = batch.entries.clone();
            match block_on(storage.write(batch.clone())) {
                // A replica writes the same again.
                Err(StorageError::Full { .. }) if next == NextSync::NoRoom => block_on(storage.write(batch))?,
                written => written?,
            }
            acknowledged.push(entries);
        }
        Ok::<_, StorageError>(acknowledged)
    };
    for fail in 0..8 {
        for next in [NextSync::Fails, NextSync::Killed, NextSync::NoRoom] {
            for in_state in [false, true] {
                let disk = Disk::new();
                let storage = disk.start().0;
                let what = format!("{next:?} at {fail}, in the state: {in_state}");
                let ended = batches(&storage, &disk, fail, next, in_state);
                drop(storage);
                disk.log.lock().next = NextSync::Works;
                disk.state.lock().next = NextSync::Works;
                let first = outlives_a_power_loss(&disk, &what);
                assert!(first.head_certain, "{what}: nothing was damaged");
                if let Ok(acknowledged) = ended {
                    let last = acknowledged.last().expect("eight batches");
                    assert!(last.iter().all(|entry| is_clean(&first, entry.header.op.0)), "{what}");
                }
            }
        }
    }
}

/// The sync with which a start makes sure fails as well: it does not start, and the next one does.
#[test]
fn a_start_whose_own_sync_fails_says_so() {
    for in_state in [false, true] {
        let disk = Disk::new();
        let (storage, _) = disk.start();
        put(&storage, vec![entry(1, 0, 100)]);
        drop(storage);
        let file = if in_state { &disk.state } else { &disk.log };
        file.lock().next = NextSync::Fails;
        assert!(matches!(disk.recover(), Err(StorageError::Io { .. })));
        let first = outlives_a_power_loss(&disk, "the start after");
        assert!(is_clean(&first, 1));
    }
}

/// A start finds no room for what it writes again, where the file system copies on write, or gives room at the sync only: that is no damage and
/// no broken disk. It is asked again until there is room, by the same process or the next one, and has lost nothing.
#[test]
fn b8_a_start_without_room_says_full_and_calls_nothing_damaged() {
    for in_state in [false, true] {
        for room in [Room::NoneForWrites, Room::NoneForSyncs] {
            let what = format!("in the state: {in_state}, {room:?}");
            let disk = Disk::new();
            let (storage, _) = disk.start();
            (1..=3).for_each(|op| put(&storage, vec![entry(op, 0, 1500)]));
            drop(storage);
            let file = if in_state { &disk.state } else { &disk.log };
            file.lock().room = room;
            let storage = disk.open().expect("opening");
            for _ in 0..3 {
                let refused = block_on(storage.recover());
                assert!(matches!(refused, Err(StorageError::Full { .. })), "{what}: {refused:?}");
                assert!(matches!(disk.recover(), Err(StorageError::Full { .. })), "{what}: the next process");
            }
            file.lock().room = Room::There;
            let recovered = block_on(storage.recover()).expect("there is room");
            assert!(recovered.head_certain && (1..=3).all(|op| is_clean(&recovered, op)), "{what}");
            put(&storage, vec![entry(4, 0, 1500)]);
            drop(storage);
            let first = outlives_a_power_loss(&disk, &what);
            assert!(first.head_certain && (1..=4).all(|op| is_clean(&first, op)), "{what}: {:?}", verdicts(&first));
        }
    }
}

/// The sync of an extent finds no room, as where blocks are given late: it is prepared again once there is some.
#[test]
fn an_extent_whose_sync_finds_no_room_is_full_and_poisons_nothing() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    disk.log.lock().next = NextSync::NoRoom;
    let full = try_put(&storage, vec![entry(1, 0, 100_000)]);
    assert!(matches!(full, Err(StorageError::Full { .. })), "{full:?}");
    put(&storage, vec![entry(1, 0, 100_000)]);
    drop(storage);
    let first = outlives_a_power_loss(&disk, "after there was room");
    assert!(first.head_certain && is_clean(&first, 1), "{:?}", verdicts(&first));
}

/// The sync of a batch finds no room, as where the file system copies on write: what it took is dropped, and can be read. It is written again once
/// there is room, by the same process; the power may be lost before that, or after it.
#[test]
fn b8_a_batch_whose_sync_finds_no_room_is_full_until_there_is_some() {
    for in_state in [false, true] {
        for has_room_again in [false, true] {
            let what = format!("in the state: {in_state}, room again: {has_room_again}");
            let disk = Disk::new();
            let (storage, recovered) = disk.start();
            put(&storage, vec![entry(1, 0, 100)]);
            let file = if in_state { &disk.state } else { &disk.log };
            let mut state = recovered.state;
            state.view = state.view.next();
            let batch = if in_state {
                Batch { state: Some(state.clone()), ..Batch::default() }
            } else {
                Batch { entries: vec![entry(2, 0, 3000)], ..Batch::default() }
            };
            file.lock().room = Room::NoneForSyncs;
            for _ in 0..3 {
                let refused = block_on(storage.write(batch.clone()));
                assert!(matches!(refused, Err(StorageError::Full { .. })), "{what}: {refused:?}");
                assert!(!in_state || storage.room() == 0, "{what}");
                storage.tend();
            }
            file.lock().room = Room::There;
            if has_room_again {
                block_on(storage.write(batch)).expect("there is room");
                assert!(storage.room() > 0, "{what}");
                drop(storage);
                disk.power_loss();
            } else {
                drop(storage);
            }
            let first = outlives_a_power_loss(&disk, &what);
            assert!(first.head_certain && is_clean(&first, 1), "{what}: {:?}", verdicts(&first));
            if has_room_again && in_state {
                assert_eq!(first.state.view, state.view, "{what}");
            } else if has_room_again {
                assert!(is_clean(&first, 2), "{what}: {:?}", verdicts(&first));
            }
        }
    }
}

/// An extent that was prepared, and whose blanks never reached the disk: no record says that it was durable, so it
/// is no damage, and is prepared again.
#[test]
fn an_extent_that_is_not_on_the_disk_is_no_damage() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    let before = disk.log.content().len();
    let mut op = 0;
    while disk.log.content().len() == before {
        op += 1;
        put(&storage, vec![entry(op, 0, 3000)]);
        assert!(op < 100, "no extent was prepared");
    }
    drop(storage);
    disk.log.change(|bytes| bytes[before..].fill(0));
    let (storage, recovered) = disk.start();
    assert!(recovered.head_certain && recovered.slots.len() as u64 == op, "{:?}", verdicts(&recovered));
    (op + 1..op + 40).for_each(|op| put(&storage, vec![entry(op, 0, 3000)]));
    drop(storage);
    let recovered = outlives_a_power_loss(&disk, "an extent that was prepared again");
    assert!(recovered.head_certain && recovered.slots.len() as u64 == op + 39, "{:?}", verdicts(&recovered));
}
