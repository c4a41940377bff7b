//! Sectors that go bad and stay so, read or written: what they cost, and that they do not cost it again.

mod support;

use std::ops::Range;

use futures::executor::block_on;
use support::{Disk, Inline, entry, is_clean, put, try_put, verdicts, write_state};
use vsr::Storage;
use vsr::protocol::Recovered;
use vsr::storage::StorageError;

/// Sectors of a slot of the state file.
const SLOT: usize = 2048;

fn recover(storage: &Inline) -> Recovered {
    block_on(storage.recover()).expect("recovering")
}

fn assert_whole(recovered: &Recovered, head: u64, what: &str) {
    let said = verdicts(recovered);
    assert!(recovered.head_certain && recovered.slots.len() as u64 == head, "{what}: {said:?}");
    assert!((1..=head).all(|op| is_clean(recovered, op)), "{what}: {said:?}");
}

/// Nobody can write these sectors any more; whether they can be read.
fn break_log(disk: &Disk, sectors: Range<usize>, readable: bool) {
    let mut log = disk.log.lock();
    log.unwritable.extend(sectors.clone());
    if !readable {
        log.bad.extend(sectors);
    }
}

#[test]
fn a_copy_of_the_state_that_cannot_be_written_stops_nobody_and_never_passes_for_the_newest() {
    for slot in 0..4 {
        for readable in [false, true] {
            let what = format!("slot {slot}, readable: {readable}");
            let disk = Disk::new();
            let (storage, _) = disk.start();
            put(&storage, vec![entry(1, 0, 100)]);
            let mut newest = recover(&storage).state;
            drop(storage);
            let at = 8 + slot * SLOT;
            disk.state.lock().unwritable.insert(at);
            if !readable {
                disk.state.lock().bad.insert(at);
            }
            for start in 0..6 {
                let what = format!("{what}, start {start}");
                let (storage, recovered) = disk.start();
                assert_eq!(recovered.state, newest, "{what}");
                assert_whole(&recovered, start + 1, &what);
                newest.starts += 1;
                if start % 2 == 0 {
                    newest.view = newest.view.next();
                    write_state(&storage, newest.clone(), None);
                }
                put(&storage, vec![entry(start + 2, 0, 100)]);
                drop(storage);
                disk.power_loss();
                // Another copy goes bad as well: the newest state, or none.
                for other in (0..4).filter(|other| *other != slot) {
                    let disk = disk.copy();
                    disk.state.rot(8 + other * SLOT..9 + other * SLOT);
                    match disk.recover() {
                        Ok(recovered) => assert_eq!(recovered.state, newest, "{what}, slot {other} rots"),
                        Err(StorageError::StateLost(_)) => {}
                        Err(error) => panic!("{what}, slot {other} rots: {error}"),
                    }
                }
            }
        }
    }
}

/// It is known at the start, before the log has come there.
#[test]
fn bad_sectors_in_the_unused_log_are_stepped_over() {
    for bad in [2..3, 3..4, 9..17, 40..41, 70..90, 127..128] {
        let what = format!("sectors {bad:?}");
        let disk = Disk::new();
        let (storage, _) = disk.start();
        put(&storage, vec![entry(1, 0, 100)]);
        drop(storage);
        break_log(&disk, bad, false);
        let mut head = 1;
        for start in 0..4 {
            let (storage, recovered) = disk.start();
            assert_whole(&recovered, head, &format!("{what}, start {start}"));
            for _ in 0..20 {
                head += 1;
                put(&storage, vec![entry(head, 0, 700)]);
            }
            drop(storage);
            disk.power_loss();
        }
        assert_whole(&disk.recover().expect("recovering"), head, &what);
    }
}

/// It is found when the next extents are prepared.
#[test]
fn bad_sectors_in_a_new_extent_are_stepped_over() {
    for bad in [128..129, 130..131, 200..260, 127..300] {
        for readable in [false, true] {
            let what = format!("sectors {bad:?}, readable: {readable}");
            let disk = Disk::new();
            let mut head = 0;
            for start in 0..6 {
                let (storage, recovered) = disk.start();
                assert_whole(&recovered, head, &format!("{what}, start {start}"));
                if start == 0 {
                    // Where something stands already that can be read, nobody can know.
                    let from = if readable { bad.start.max(128) } else { bad.start };
                    break_log(&disk, from..bad.end, readable);
                }
                if start == 0 && bad.start < 128 && !readable {
                    // Found at a start only.
                    continue;
                }
                for _ in 0..20 {
                    head += 1;
                    put(&storage, vec![entry(head, 0, 700)]);
                }
                drop(storage);
                disk.power_loss();
            }
            assert_whole(&disk.recover().expect("recovering"), head, &what);
        }
    }
}

/// No sector behind the first extent can be written: that is an error, in finite time, and what was there stays.
#[test]
fn a_log_that_cannot_become_longer_says_so() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    break_log(&disk, 128..1 << 14, true);
    let refused = (1..).find_map(|op| try_put(&storage, vec![entry(op, 0, 3000)]).err().map(|error| (op, error)));
    let (op, error) = refused.expect("there is no end of ops");
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
    drop(storage);
    disk.power_loss();
    assert_whole(&disk.recover().expect("recovering"), op - 1, "what fitted");
}

/// The process ends with the failed sync, as it must. Started again it goes on, with or without what the page cache
/// shows.
#[test]
fn a_sector_that_goes_bad_under_a_write_ends_one_process_or_two_and_not_every_one() {
    for power_is_lost in [false, true] {
        for readable in [false, true] {
            for within in 0..3 {
                let what = format!("power is lost: {power_is_lost}, readable: {readable}, sector {within}");
                let disk = Disk::new();
                let (storage, _) = disk.start();
                put(&storage, vec![entry(1, 0, 700)]);
                let record = disk.changed(|| put(&storage, vec![entry(2, 0, 700)]));
                assert_eq!(record.len(), 3, "a record that has a sector of each kind");
                let bad = record.end + within;
                disk.log.lock().unwritable.insert(bad);
                let failed = try_put(&storage, vec![entry(3, 0, 700)]);
                assert!(matches!(failed, Err(StorageError::Io { .. })), "{what}: {failed:?}");
                drop(storage);
                if power_is_lost {
                    disk.power_loss();
                }
                if !readable {
                    disk.log.lock().bad.insert(bad);
                }
                let mut again = disk.start();
                assert!(is_clean(&again.1, 1) && is_clean(&again.1, 2), "{what}: {:?}", verdicts(&again.1));
                if try_put(&again.0, vec![entry(3, 1, 700)]).is_err() {
                    // What was left of the write can be read, and so it looked as if the sector were good.
                    assert!(power_is_lost && readable, "{what}: another process has ended");
                    drop(again);
                    again = disk.start();
                    put(&again.0, vec![entry(3, 1, 700)]);
                }
                (4..=9).for_each(|op| put(&again.0, vec![entry(op, 1, 700)]));
                drop(again);
                disk.power_loss();
                assert_whole(&disk.recover().expect("recovering"), 9, &what);
            }
        }
    }
}

/// A start has found less of the log usable than was prepared, and the log has come exactly there: nothing is behind it.
#[test]
fn a_log_that_ends_where_an_unused_sector_is_bad_has_a_certain_end() {
    let fill = |disk: &Disk| {
        let (storage, _) = disk.start();
        let mut end = 0;
        for op in 2..=6 {
            end = disk.changed(|| put(&storage, vec![entry(op, 0, 700)])).end;
        }
        end
    };
    let first = |disk: &Disk| put(&disk.start().0, vec![entry(1, 0, 100)]);
    let model = Disk::new();
    first(&model);
    let end = fill(&model);
    let disk = Disk::new();
    first(&disk);
    break_log(&disk, end..end + 1, false);
    assert_eq!(fill(&disk), end, "the log has come to the bad sector, and not over it");
    disk.power_loss();
    assert_whole(&disk.recover().expect("recovering"), 6, "behind the end is a bad sector");
}
