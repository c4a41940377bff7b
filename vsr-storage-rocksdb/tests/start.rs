//! What a start believes, whom it lets in, and what it says: copies, folders that have lost a part, what a failed sync may have left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::executor::block_on;
use tempfile::TempDir;
use vsr::protocol::{Batch, Entry, OpNumber, Recovered, Slot, VsrState};
use vsr::storage::StorageError;
use vsr::{Checksum, Storage};
use vsr_storage_rocksdb::{RocksOptions, RocksStorage};

fn state() -> VsrState {
    vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration").formatted_state()
}

fn formatted() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    RocksStorage::format_state(folder.path(), &state(), RocksOptions::default()).expect("formatting");
    folder
}

fn entry(op: u64) -> Entry {
    let body = Bytes::from(format!("the body of op {op} ").repeat(40));
    vsr_sim::conformance::storage::entry(op, 1, Checksum(op.into()), body)
}

fn put(storage: &RocksStorage, op: u64) {
    block_on(storage.write(Batch { entries: vec![entry(op)], ..Batch::default() })).expect("writing");
}

fn open(folder: &Path) -> (RocksStorage, Recovered) {
    let storage = RocksStorage::open(folder).expect("opening");
    let recovered = block_on(storage.recover()).expect("recovering");
    (storage, recovered)
}

/// A folder that ends with a write-ahead log of ops 1 to `head`.
fn with_ops(head: u64) -> TempDir {
    let folder = formatted();
    let (storage, _) = open(folder.path());
    (1..=head).for_each(|op| put(&storage, op));
    folder
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("a folder");
    copy_files(from, to.path());
    to
}

fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).expect("the folder").map(|file| file.expect("a file")) {
        let to = to.join(file.file_name());
        if file.path().is_dir() {
            fs::create_dir(&to).expect("a folder");
            copy_files(&file.path(), &to);
        } else {
            fs::copy(file.path(), to).expect("copying");
        }
    }
}

fn files(folder: &Path, ends: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("db")).expect("the folder").map(|file| file.expect("a file").path());
    files.filter(|path| path.to_string_lossy().ends_with(ends)).collect()
}

fn clean(head: u64) -> Vec<Slot> {
    (1..=head).map(|op| Slot::Clean(entry(op).header)).collect()
}

/// A start after a failed sync: what was replayed may be in the page cache only, so nothing may rest on it.
#[test]
fn what_a_start_believes_is_in_no_log_of_an_earlier_one() {
    let folder = with_ops(8);
    let (storage, recovered) = open(folder.path());
    assert_eq!(recovered.slots, clean(8));
    let known = recovered.state;
    drop(storage);
    // As if the pages of all write-ahead logs were dropped from the cache, and had never reached the disk.
    let copy = copy(folder.path());
    let logs = files(copy.path(), ".log");
    assert!(!logs.is_empty());
    logs.iter().for_each(|log| fs::remove_file(log).expect("removing"));
    RocksStorage::accept_place(copy.path()).expect("the copy is meant");
    let (_, recovered) = open(copy.path());
    assert!(recovered.head_certain);
    assert_eq!(recovered.slots, clean(8));
    assert_eq!(recovered.state, known);
}

/// The database's own defaults are to change; the crate's documentation says what they stand for.
#[test]
fn the_database_rewrites_what_it_replays() {
    let folder = with_ops(1);
    let (_storage, _) = open(folder.path());
    let newest = fs::read_dir(folder.path().join("db")).expect("the folder").filter_map(|file| {
        let name = file.expect("a file").file_name().into_string().expect("a name");
        let number: u64 = name.strip_prefix("OPTIONS-")?.parse().ok()?;
        Some((number, name))
    });
    let (_, name) = newest.max().expect("the options");
    let options = fs::read_to_string(folder.path().join("db").join(name)).expect("the options");
    let lines: BTreeSet<&str> = options.lines().map(str::trim).collect();
    for line in [
        "avoid_flush_during_recovery=false",
        "reuse_manifest_on_open=false",
        "optimize_manifest_for_recovery=false",
        "wal_recovery_mode=kPointInTimeRecovery",
        "paranoid_checks=true",
        "recycle_log_file_num=0",
        "max_open_files=20",
        "level0_file_num_compaction_trigger=256",
        "ttl=0",
    ] {
        assert!(lines.contains(line), "{line} is not among\n{options}");
    }
}

#[test]
fn the_seal_is_written_anew_at_each_start() {
    let folder = with_ops(3);
    let copies = || {
        let seal = fs::read(folder.path().join("seal")).expect("the seal");
        [0, 4096].map(|at| seal[at..at + 40].to_vec())
    };
    let [one, other] = copies();
    assert_ne!(one, other, "the last two batches wrote one copy each");
    drop(open(folder.path()));
    let [one, other] = copies();
    assert_eq!(one, other, "what the start has read is durable in both");
}

#[test]
fn a_copy_is_refused_until_it_is_accepted() {
    let folder = with_ops(3);
    let copy = copy(folder.path());
    let refused = RocksStorage::open(copy.path()).map(|_| ()).expect_err("it is a copy");
    let StorageError::OtherPlace { path, recorded, found } = &refused else { panic!("{refused}") };
    assert_eq!(Path::new(path), copy.path());
    assert_ne!(recorded, found);
    // Again, and the original is none the worse.
    assert!(matches!(RocksStorage::open(copy.path()), Err(StorageError::OtherPlace { .. })));
    let (_original, recovered) = open(folder.path());
    assert_eq!(recovered.slots, clean(3));
    RocksStorage::accept_place(copy.path()).expect("accepting");
    for _ in 0..2 {
        assert_eq!(open(copy.path()).1.slots, clean(3));
    }
    let (_storage, _) = open(copy.path());
    assert_eq!(RocksStorage::accept_place(copy.path()), Err(StorageError::InUse(copy.path().display().to_string())));
}

/// Tools that restore a backup leave alone what has not changed since: the file `place` never does.
#[test]
fn a_backup_restored_over_the_folder_is_refused() {
    let folder = with_ops(3);
    let backup = copy(folder.path());
    let (storage, _) = open(folder.path());
    (4..=6).for_each(|op| put(&storage, op));
    drop(storage);
    for file in files(folder.path(), "") {
        fs::remove_file(file).expect("removing");
    }
    copy_files(&backup.path().join("db"), &folder.path().join("db"));
    fs::copy(backup.path().join("seal"), folder.path().join("seal.restored")).expect("copying");
    fs::rename(folder.path().join("seal.restored"), folder.path().join("seal")).expect("renaming");
    assert!(matches!(RocksStorage::open(folder.path()), Err(StorageError::OtherPlace { .. })));
}

/// A folder moved within its file system is still the same one.
#[test]
fn a_renamed_folder_is_no_copy() {
    let above = tempfile::tempdir().expect("a folder");
    let (before, after) = (above.path().join("before"), above.path().join("after"));
    RocksStorage::format_state(&before, &state(), RocksOptions::default()).expect("formatting");
    fs::rename(&before, &after).expect("renaming");
    open(&after);
}

#[test]
fn what_is_missing_is_named_and_never_called_unformatted() {
    let folder = with_ops(2);
    let current = fs::read_to_string(folder.path().join("db/CURRENT")).expect("the file");
    let manifest = format!("db/{}", current.trim_end());
    for name in ["seal", "place", "db/CURRENT", manifest.as_str(), "db"] {
        let copy = copy(folder.path());
        RocksStorage::accept_place(copy.path()).expect("the copy is meant");
        let path = copy.path().join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.expect("removing");
        let refused = RocksStorage::open(copy.path()).map(|_| ()).expect_err("a part is missing");
        assert_eq!(refused, StorageError::Missing { path: path.display().to_string() }, "{name}");
    }
    for name in ["seal", "db/CURRENT", manifest.as_str()] {
        let copy = copy(folder.path());
        RocksStorage::accept_place(copy.path()).expect("the copy is meant");
        let path = copy.path().join(name);
        let len = fs::metadata(&path).expect("the file").len() as usize;
        // In place: the file is the same one.
        fs::write(&path, vec![0xA5; len]).expect("damaging");
        let refused = RocksStorage::open(copy.path()).map(|_| ()).expect_err("a part is damaged");
        let StorageError::Damaged { path: named, .. } = &refused else { panic!("{name}: {refused}") };
        assert!(path.starts_with(named), "{name}: {refused}");
        assert!(!refused.to_string().contains("run the format command"), "{name}: {refused}");
    }
}

#[test]
fn a_place_that_cannot_be_read_is_asked_for() {
    let folder = with_ops(2);
    let path = folder.path().join("place");
    let place = fs::read(&path).expect("the file");
    let mut damaged = place.clone();
    damaged[4096..].fill(0);
    fs::write(&path, &damaged).expect("damaging");
    drop(open(folder.path()));
    damaged[..64].fill(0);
    fs::write(&path, &damaged).expect("damaging");
    let refused = RocksStorage::open(folder.path()).map(|_| ()).expect_err("nobody knows the place");
    assert!(matches!(&refused, StorageError::OtherPlace { recorded, .. } if recorded.contains("nothing")), "{refused}");
    RocksStorage::accept_place(folder.path()).expect("accepting");
    assert_eq!(open(folder.path()).1.slots, clean(2));
}

#[test]
fn nothing_and_a_format_cut_short_are_called_unformatted() {
    let above = tempfile::tempdir().expect("a folder");
    let nowhere = above.path().join("nowhere");
    assert_eq!(
        RocksStorage::open(&nowhere).map(|_| ()),
        Err(StorageError::NotFormatted(nowhere.display().to_string()))
    );
    assert!(!nowhere.exists(), "opening creates nothing");
    fs::create_dir(&nowhere).expect("a folder");
    fs::write(nowhere.join("log"), "of another storage").expect("a file");
    let refused = RocksStorage::open(&nowhere).map(|_| ()).expect_err("it is not this storage's");
    assert!(matches!(&refused, StorageError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("do not format"), "{refused}");
    let folder = with_ops(0);
    fs::rename(folder.path().join("seal"), folder.path().join("seal.new")).expect("renaming");
    let refused = RocksStorage::open(folder.path()).map(|_| ()).expect_err("it was not finished");
    let StorageError::NotFormatted(why) = &refused else { panic!("{refused}") };
    assert!(why.contains("not finished"), "{refused}");
    let again = RocksStorage::format_state(folder.path(), &state(), RocksOptions::default());
    assert!(matches!(again, Err(StorageError::NotEmpty(_))));
}

/// Every request would hear that its log is full.
#[test]
fn a_log_that_nothing_can_be_done_in_is_refused_when_it_is_formatted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("replica");
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let needed = config.membership.constants.log_room_min();
    let format = |log_limit: u64| {
        let options = RocksOptions::default().with(|options| options.log_limit = log_limit);
        RocksStorage::format_with(&path, &config, options)
    };
    let refused = format(needed - 1).expect_err("it is too small");
    assert_eq!(refused, StorageError::LogTooSmall { limit: needed - 1, needed });
    assert!(refused.to_string().contains("raise the limit"), "{refused}");
    assert!(!path.exists(), "nothing is left behind");
    format(needed).expect("it is large enough");
    assert!(open(&path).0.room() <= needed, "the limit is not in force");
}

/// A disk keeps the members and limits that it was formatted with: with these its replica would never start.
#[test]
fn a_configuration_that_cannot_work_is_refused_when_a_disk_is_formatted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("replica");
    let mut config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    config.membership.constants.request_max = u32::MAX;
    let refused = RocksStorage::format(&path, &config).expect_err("it cannot work");
    assert!(matches!(refused, StorageError::Config(_)), "{refused}");
    assert!(!path.exists(), "nothing is left behind");
}

#[test]
fn room_is_no_more_than_the_disk_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = RocksOptions::default().with(|options| options.log_limit = u64::MAX);
    RocksStorage::format_state(folder.path(), &state(), options).expect("formatting");
    let (storage, _) = open(folder.path());
    let disk = rustix::fs::statvfs(folder.path()).expect("the file system");
    assert!(storage.room() <= disk.f_blocks * disk.f_frsize, "{} bytes of room", storage.room());
}

fn tables(folder: &Path, family: &str) -> Vec<PathBuf> {
    let families = ["default", "log", "headers", "state"];
    let db = rocksdb::DB::open_cf_for_read_only(&rocksdb::Options::default(), folder.join("db"), families, false);
    let tables = db.and_then(|db| db.live_files()).expect("the tables");
    let named = tables.into_iter().filter(|table| table.column_family_name == family);
    named.map(|table| folder.join("db").join(table.name.trim_start_matches('/'))).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("the file");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("damaging");
}

#[test]
fn a_damaged_block_of_headers_costs_nothing() {
    let folder = with_ops(8);
    drop(open(folder.path()));
    let tables = tables(folder.path(), "headers");
    assert!(!tables.is_empty());
    for table in tables {
        flip(&table, 20);
    }
    for _ in 0..2 {
        let (storage, recovered) = open(folder.path());
        assert_eq!(recovered.slots, clean(8));
        block_on(storage.write(Batch { state: Some(recovered.state), ..Batch::default() }))
            .expect("the start is noted");
    }
}

/// What a peer has repaired overlaps the damage: a merge of the two would stop the database, at each start.
#[test]
fn a_damaged_block_does_not_stop_later_starts() {
    let folder = with_ops(8);
    drop(open(folder.path()));
    let needle = b"the body of op 5 the body";
    let mut hits = 0;
    for table in tables(folder.path(), "log") {
        let bytes = fs::read(&table).expect("the table");
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            flip(&table, at);
            hits += 1;
        }
    }
    assert_eq!(hits, 1);
    for start in 0..10 {
        let (storage, recovered) = open(folder.path());
        let mut expected = clean(8 + start);
        if start == 0 {
            expected[4] = Slot::Corrupt(Some(entry(5).header));
        }
        assert_eq!(recovered.slots, expected, "start {start}");
        if start == 0 {
            put(&storage, 5);
        }
        put(&storage, 9 + start);
        let read = block_on(storage.read(OpNumber(5)..=OpNumber(5), usize::MAX)).expect("reading");
        assert_eq!(read, [(OpNumber(5), Some(entry(5)))]);
    }
}
