//! The inspector: it says of every slot what a start says, and changes nothing, whatever was done to the files.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::executor::block_on;
use support::{Disk, SECTOR, entry, put};
use tempfile::TempDir;
use vsr::protocol::{Batch, CommitNumber, Header, OpNumber, Slot, VsrState};
use vsr::storage::StorageError;
use vsr::{ClusterId, Config, ReplicaId, Storage};
use vsr_storage_file::{
    FileOptions, FileStorage, InspectedSlot, InspectedState, Inspection, SlotRun, StateCopy, Usage, Verdict, inspect,
    inspect_on,
};

// ---- on files in memory ----

fn slot_of(slot: &InspectedSlot) -> Slot {
    match (slot.verdict, slot.header) {
        (Verdict::Clean, Some(header)) => Slot::Clean(header),
        (Verdict::HeaderOnly, header @ Some(_)) => Slot::Corrupt(header),
        (Verdict::Lost, None) => Slot::Corrupt(None),
        (Verdict::Absent, None) => Slot::Absent,
        other => panic!("a verdict that does not fit its header: {other:?}"),
    }
}

/// Looks at a disk, starts on it, and wants both to say the same. The inspection.
fn as_a_start_says(disk: &Disk, what: &str) -> Inspection {
    let before = (disk.log.content(), disk.state.content());
    let found = inspect_on(disk.log.clone(), disk.state.clone(), "the disk").expect(what);
    assert!((disk.log.content(), disk.state.content()) == before, "{what}: something was changed");
    match disk.recover() {
        Ok(recovered) => {
            assert_eq!(found.refusal, None, "{what}");
            let log = found.log.as_ref().expect(what);
            assert_eq!(log.head_certain, recovered.head_certain, "{what}");
            assert_eq!(log.head, OpNumber(recovered.slots.len() as u64), "{what}");
            assert_eq!(log.slots().map(|slot| slot_of(&slot)).collect::<Vec<_>>(), recovered.slots, "{what}");
            let state = found.state.as_ref().expect(what);
            assert!(state.is_newest && state.state == recovered.state, "{what}");
        }
        Err(error) => assert_eq!(found.refusal, Some(error), "{what}"),
    }
    found
}

/// Records of one op each, in three lives, and where each is.
fn written() -> (Disk, Vec<Header>, Vec<std::ops::Range<usize>>) {
    let disk = Disk::new();
    let (mut headers, mut records) = (Vec::new(), Vec::new());
    for life in 0..3 {
        let (storage, _) = disk.start();
        for size in [100, 1500, 100, 300, 0, 60, 700] {
            let entry = entry(headers.len() as u64 + 1, life, size);
            headers.push(entry.header);
            records.push(disk.changed(|| put(&storage, vec![entry])));
        }
    }
    (disk, headers, records)
}

#[test]
fn of_every_bad_sector_of_the_log_it_says_what_a_start_says() {
    let (disk, headers, records) = written();
    let found = as_a_start_says(&disk.copy(), "intact");
    assert!(found.is_clean(), "{found:?}");
    let log = found.log.expect("a log");
    assert_eq!(log.slots().filter_map(|slot| slot.header).collect::<Vec<_>>(), headers);
    let end = records.last().expect("a record").end;
    assert_eq!(log.used, (end * SECTOR) as u64);
    for bad in 0..end + 4 {
        for wide in [1, 8] {
            let disk = disk.copy();
            disk.log.rot(bad..bad + wide);
            as_a_start_says(&disk, &format!("{wide} rotten sectors from {bad}"));
        }
        let disk = disk.copy();
        disk.log.lock().bad.insert(bad);
        as_a_start_says(&disk, &format!("sector {bad} cannot be read"));
    }
    for cut in (0..end).step_by(3) {
        let disk = disk.copy();
        disk.log.change(|bytes| bytes.truncate(cut * SECTOR));
        let found = as_a_start_says(&disk, &format!("cut after {cut} sectors"));
        assert!(!found.is_clean() && found.log.is_some_and(|log| !log.head_certain), "cut after {cut} sectors");
    }
}

#[test]
fn of_every_bad_copy_of_the_state_it_says_what_a_start_says() {
    const FIRST: [usize; 4] = [8, 8 + 2048, 8 + 2 * 2048, 8 + 3 * 2048];
    let (disk, ..) = written();
    for harmed in 1..16_u32 {
        let copy = disk.copy();
        let bad = || (0..4).filter(|at| harmed & (1 << at) != 0);
        bad().for_each(|at| copy.state.rot(FIRST[at]..FIRST[at] + 1));
        let what = format!("copies {:?}", bad().collect::<Vec<_>>());
        let found = as_a_start_says(&copy, &what);
        let damaged: Vec<usize> = (0..4).filter(|&at| found.copies[at] == StateCopy::Damaged).collect();
        assert!(damaged == bad().collect::<Vec<_>>() && !found.is_clean(), "{what}: {:?}", found.copies);
        let is_lost = harmed & 0b0011 == 0b0011 || harmed & 0b1100 == 0b1100;
        assert_eq!(found.refusal.is_some(), is_lost, "{what}: {:?}", found.refusal);
        match found.state {
            // What is left is shown, as what it is.
            Some(state) => assert!(state.is_newest != is_lost && found.log.is_some(), "{what}"),
            None => assert!(harmed == 15 && found.log.is_none(), "{what}"),
        }
    }
    for superblock in [0, 8 + 4 * 2048] {
        let copy = disk.copy();
        copy.state.rot(superblock..superblock + 1);
        let found = as_a_start_says(&copy, "a superblock");
        assert!(found.superblocks_damaged == 1 && !found.is_clean());
    }
}

/// A state file of an earlier moment beside the log of now.
#[test]
fn a_state_that_is_older_than_the_log_is_named_and_what_it_knows_is_shown() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    (1..=3).for_each(|op| put(&storage, vec![entry(op, 0, 100)]));
    let older = disk.state.copy();
    let (storage, _) = disk.start();
    (4..=5).for_each(|op| put(&storage, vec![entry(op, 1, 100)]));
    let disk = Disk { log: disk.log.copy(), state: older };
    let found = as_a_start_says(&disk, "an older state");
    assert!(matches!(found.refusal, Some(StorageError::StateLost(_))), "{found:?}");
    assert!(found.state.is_some_and(|state| !state.is_newest));
    let clean = found.log.expect("a log").slots().filter(|slot| slot.verdict == Verdict::Clean).count();
    assert_eq!(clean, 3, "the ops of the state that is not here do not count");
}

/// What one start found lost, and wrote down, is shown as it is known since.
#[test]
fn what_an_earlier_start_found_lost_is_shown() {
    let (disk, headers, records) = written();
    let last = records.last().expect("a record").clone();
    disk.log.rot(records[8].start..records[10].end);
    disk.log.rot(last);
    let storage = disk.open().expect("opening");
    block_on(storage.recover()).expect("recovering");
    // The last op is put once more; what was above it nobody can know.
    put(&storage, vec![entry(headers.len() as u64, 2, 700)]);
    drop(storage);
    let found = as_a_start_says(&disk, "a start has noted what is lost");
    let log = found.log.as_ref().expect("a log");
    assert!(!log.head_certain && !found.is_clean(), "the replica was not told yet");
    let damaged: Vec<u64> = log.slots().filter(|slot| slot.verdict.is_damage()).map(|slot| slot.op.0).collect();
    assert_eq!(damaged, [9, 10, 11]);
}

#[test]
fn damage_is_shown_at_its_ops_and_a_long_log_is_a_few_runs() {
    let disk = Disk::new();
    let (storage, _) = disk.start();
    let records: Vec<_> = (1..=600)
        .map(|op| disk.changed(|| put(&storage, vec![entry(op, 0, if op % 100 == 0 { 1500 } else { 10 })])))
        .collect();
    drop(storage);
    let run = |(first, last, verdict)| (OpNumber(first), OpNumber(last), verdict);
    let runs = |disk: &Disk| {
        let log = as_a_start_says(disk, "600 ops").log.expect("a log");
        log.runs().map(|SlotRun { first, last, verdict, .. }| (first, last, verdict)).collect::<Vec<_>>()
    };
    assert_eq!(runs(&disk.copy()), [run((1, 600, Verdict::Clean))]);
    let harmed = disk.copy();
    // A part of a body, and all of a record.
    harmed.log.rot(records[199].start + 1..records[199].start + 2);
    harmed.log.rot(records[399].clone());
    let expected = [
        (1, 199, Verdict::Clean),
        (200, 200, Verdict::HeaderOnly),
        (201, 399, Verdict::Clean),
        (400, 400, Verdict::Lost),
        (401, 600, Verdict::Clean),
    ];
    assert_eq!(runs(&harmed), expected.map(run));
    let log = inspect_on(harmed.log, harmed.state, "the disk").expect("an inspection").log.expect("a log");
    let ops = |first, last| log.slots_of(OpNumber(first), OpNumber(last)).map(|slot| slot.op.0).collect::<Vec<_>>();
    assert_eq!((ops(0, 2), ops(598, u64::MAX)), (vec![1, 2], vec![598, 599, 600]));
    assert!(ops(601, u64::MAX).is_empty() && ops(5, 4).is_empty() && ops(u64::MAX, u64::MAX).is_empty());
    let named: Vec<_> = log.slots_of(OpNumber(199), OpNumber(201)).map(|slot| (slot.op.0, slot.verdict)).collect();
    assert_eq!(named, [(199, Verdict::Clean), (200, Verdict::HeaderOnly), (201, Verdict::Clean)]);
}

// ---- on real folders ----

/// A folder of ops, with a state of the replica in front of them.
fn replica(ops: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("replica");
    let config = Config::new(ClusterId(7), ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let options = FileOptions::default().with(|options| (options.log_limit, options.extent) = (1 << 24, 1 << 16));
    FileStorage::format_with(&path, &config, options).expect("formatting");
    let storage = FileStorage::open(&path).expect("opening");
    let recovered = block_on(storage.recover()).expect("recovering");
    let state = VsrState { starts: 1, commit: CommitNumber(0), ..recovered.state };
    block_on(storage.write(Batch { state: Some(state), ..Batch::default() })).expect("a state");
    (1..=ops).for_each(|op| put_op(&storage, op));
    drop(storage);
    (folder, path)
}

fn put_op(storage: &FileStorage, op: u64) {
    let body = Bytes::from(vec![op as u8; 1500]);
    let entry = vsr_sim::conformance::storage::entry(op, 0, vsr::Checksum(op.into()), body);
    block_on(storage.write(Batch { entries: vec![entry], ..Batch::default() })).expect("a put");
}

/// All that a change would show in.
fn picture(folder: &Path) -> Vec<(PathBuf, Vec<u8>, [i64; 7])> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let numbers = |path: &Path| {
        let of = fs::metadata(path).expect("metadata");
        [of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec(), of.ino() as i64, of.mode().into(), of.size() as i64]
    };
    let mut picture: Vec<_> =
        paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a file"), numbers(&path))).collect();
    picture.push((folder.to_owned(), Vec::new(), numbers(folder)));
    picture
}

/// Inspects, and wants everything to be as it was.
fn looked_at(folder: &Path) -> Result<Inspection, StorageError> {
    let before = picture(folder);
    let found = inspect(folder);
    assert!(picture(folder) == before, "something was changed in {}", folder.display());
    found
}

fn verdicts(found: &Inspection) -> Vec<Verdict> {
    found.log.as_ref().expect("a log").slots().map(|slot| slot.verdict).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for file in ["log", "state"] {
        fs::copy(from.join(file), to.join(file)).expect("a copy");
    }
}

/// Changes a byte of the body of an op.
fn spoil(folder: &Path, op: u64) {
    let path = folder.join("log");
    let mut bytes = fs::read(&path).expect("the log");
    let at = bytes.windows(200).position(|window| window.iter().all(|byte| u64::from(*byte) == op)).expect("its body");
    bytes[at + 100] ^= 1;
    fs::write(&path, bytes).expect("the log");
}

#[test]
fn a_folder_is_shown_and_nothing_in_it_is_changed() {
    let (_parent, path) = replica(3);
    for mode in [0o755, 0o555] {
        // Without permission to write it works as well.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
        for file in ["log", "state"] {
            fs::set_permissions(path.join(file), fs::Permissions::from_mode(mode & 0o644)).expect("permissions");
        }
        let found = looked_at(&path).expect("an inspection");
        assert!(found.is_clean() && !found.has_changed && found.refusal.is_none(), "{found:?}");
        assert!(found.place.as_ref().is_some_and(|place| place.is_own && place.differences.is_empty()), "{found:?}");
        let InspectedState { state, is_newest, .. } = found.state.as_ref().expect("a state");
        assert!(*is_newest && (state.cluster, state.replica, state.starts) == (ClusterId(7), ReplicaId(1), 1));
        assert_eq!(state.membership.size(), 3);
        assert_eq!(found.options.log_limit, 1 << 24);
        let log = found.log.as_ref().expect("a log");
        assert!(log.head == OpNumber(3) && log.head_certain && log.used < log.prepared && log.prepared <= log.len);
        let bodies: Vec<u32> = log.slots().filter_map(|slot| Some(slot.header?.body_len)).collect();
        assert_eq!(bodies, [1500; 3]);
        assert_eq!(verdicts(&found), [Verdict::Clean; 3]);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
}

#[test]
fn a_spoiled_op_and_a_cut_log_are_shown_and_left_as_they_are() {
    let (_parent, path) = replica(9);
    spoil(&path, 5);
    let found = looked_at(&path).expect("an inspection");
    let expected = |op: u64| if op == 5 { Verdict::HeaderOnly } else { Verdict::Clean };
    assert_eq!(verdicts(&found), (1..=9).map(expected).collect::<Vec<_>>());
    assert!(!found.is_clean() && found.refusal.is_none());
    let used = found.log.expect("a log").used;
    fs::File::options().write(true).open(path.join("log")).and_then(|log| log.set_len(used / 2)).expect("a cut");
    let found = looked_at(&path).expect("an inspection");
    assert!(!found.log.as_ref().expect("a log").head_certain && found.refusal.is_none(), "{found:?}");
    let left = verdicts(&found);
    assert!(left.len() < 9 && left[..4] == [Verdict::Clean; 4], "{left:?}");
    // It is what the next start finds.
    let recovered = block_on(FileStorage::open(&path).expect("opening").recover()).expect("recovering");
    let shown = found.log.as_ref().expect("a log").slots().map(|slot| slot_of(&slot));
    assert_eq!(recovered.slots, shown.collect::<Vec<_>>());
}

#[test]
fn a_copy_is_told_from_the_original_and_shown_like_it() {
    let (parent, path) = replica(3);
    let copied = parent.path().join("copied");
    copy(&path, &copied);
    let found = looked_at(&copied).expect("an inspection");
    let place = found.place.as_ref().expect("a place");
    assert!(!place.is_own && place.recorded.is_some(), "{place:?}");
    for file in ["log", "state"] {
        assert!(place.differences.iter().any(|text| text.starts_with(&format!("{file} has inode"))), "{place:?}");
    }
    assert!(found.is_clean() && found.refusal.is_none(), "its content is that of the original");
    assert!(matches!(FileStorage::open(&copied), Err(StorageError::OtherPlace { .. })), "nothing was accepted");
}

#[test]
fn what_is_no_storage_is_refused_by_its_name() {
    let empty = tempfile::tempdir().expect("a folder");
    assert!(matches!(looked_at(empty.path()), Err(StorageError::NotFormatted(_))));
    assert!(matches!(inspect(empty.path().join("nothing")), Err(StorageError::NotFormatted(_))));
    fs::write(empty.path().join("notes"), "something else").expect("a file");
    assert!(matches!(looked_at(empty.path()), Err(StorageError::Damaged { .. })));
    let (_parent, path) = replica(3);
    fs::write(path.join("state"), vec![7; 1 << 20]).expect("another file");
    let error = looked_at(&path).expect_err("it is no state");
    assert!(matches!(&error, StorageError::Damaged { path, .. } if path.ends_with("state")), "{error}");
    fs::write(path.join("state"), []).expect("an empty file");
    assert!(matches!(looked_at(&path), Err(StorageError::Damaged { .. })));
    fs::remove_file(path.join("state")).expect("removing");
    let missing = looked_at(&path).expect_err("there is no state");
    assert_eq!(missing, StorageError::Missing { path: path.join("state").display().to_string() });
}

/// Its state can still be shown.
#[test]
fn a_log_that_is_gone_or_another_ones_is_named_and_the_state_is_shown() {
    let (_parent, path) = replica(3);
    fs::write(path.join("log"), vec![7; 1 << 16]).expect("another file");
    let found = looked_at(&path).expect("an inspection");
    assert!(matches!(found.refusal, Some(StorageError::Damaged { .. })), "{found:?}");
    assert!(found.log.is_none() && found.state.as_ref().is_some_and(|found| found.is_newest), "{found:?}");
    fs::remove_file(path.join("log")).expect("removing");
    let found = looked_at(&path).expect("an inspection");
    assert_eq!(found.refusal, Some(StorageError::Missing { path: path.join("log").display().to_string() }));
    assert!(found.log.is_none() && found.place.is_none() && found.state.is_some() && !found.is_clean(), "{found:?}");
}

/// No copy of the newest state is left: what the older one knows is shown, as that.
#[test]
fn a_folder_whose_state_is_lost_is_shown_as_far_as_it_goes() {
    let (_parent, path) = replica(3);
    let found = inspect(&path).expect("an inspection");
    let newest = found.state.expect("a state").generation;
    let mut bytes = fs::read(path.join("state")).expect("the state");
    for (at, copy) in found.copies.iter().enumerate() {
        if *copy == (StateCopy::Intact { generation: newest }) {
            bytes[(8 + at * 2048) * SECTOR] ^= 1;
        }
    }
    fs::write(path.join("state"), bytes).expect("the state");
    let found = looked_at(&path).expect("an inspection");
    assert!(matches!(found.refusal, Some(StorageError::StateLost(_))), "{found:?}");
    let older = found.state.expect("a state");
    assert!(!older.is_newest && older.generation < newest && older.state.replica == ReplicaId(1));
    assert_eq!(found.copies.iter().filter(|copy| **copy == StateCopy::Damaged).count(), 2);
}

/// Two copies of the place are recorded: one serves, without any no replica starts.
#[test]
fn a_place_of_which_the_record_is_damaged_is_told_from_another_place() {
    let (_parent, path) = replica(3);
    for (damaged, sector) in [(1, 1), (2, 8 + 4 * 2048 + 1)] {
        let mut bytes = fs::read(path.join("state")).expect("the state");
        bytes[sector * SECTOR + 20] ^= 1;
        fs::write(path.join("state"), bytes).expect("the state");
        let found = looked_at(&path).expect("an inspection");
        let place = found.place.as_ref().expect("a place");
        assert_eq!((place.copies_damaged, place.is_own), (damaged, damaged == 1), "{place:?}");
        assert!(!found.is_clean());
        assert_eq!(found.refusal, FileStorage::open(&path).err(), "what a start says");
    }
}

/// A replica that runs is read beside, and is not hindered; what was durable before is there, and intact.
#[test]
fn a_folder_in_use_is_shown_while_it_is_written() {
    let (_parent, path) = replica(0);
    assert_eq!(inspect(&path).expect("an inspection").usage == Usage::Unknown, !Path::new("/proc/locks").exists());
    let storage = FileStorage::open(&path).expect("opening");
    block_on(storage.recover()).expect("recovering");
    let (durable, is_done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for op in 1..=80 {
                put_op(&storage, op);
                durable.store(op, Ordering::Release);
            }
            is_done.store(true, Ordering::Release);
        });
        while !is_done.load(Ordering::Acquire) {
            let before = durable.load(Ordering::Acquire);
            let found = inspect(&path).expect("an inspection");
            assert!(matches!(found.usage, Usage::By { .. } | Usage::Unknown), "{found:?}");
            assert!(found.is_clean() || found.has_changed, "{found:?}");
            if found.refusal.is_none() {
                let clean = verdicts(&found).iter().take_while(|verdict| **verdict == Verdict::Clean).count() as u64;
                assert!(clean >= before, "{before} were durable, {clean} are shown");
            }
        }
    });
    drop(storage);
    let found = looked_at(&path).expect("an inspection");
    assert!(found.is_clean() && !found.has_changed && verdicts(&found).len() == 80, "{found:?}");
    assert!(!matches!(found.usage, Usage::By { .. }), "{found:?}");
}
