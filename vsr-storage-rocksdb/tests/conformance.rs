//! The conformance suite, on databases whose write-ahead log is cut at every length, and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vsr::protocol::{CheckpointId, Entry, VsrState};
use vsr::storage::StorageError;
use vsr_sim::conformance::storage::Disks;
use vsr_storage_rocksdb::{RocksOptions, RocksStorage};

#[derive(Default)]
struct Databases {
    marked: Option<Vec<(PathBuf, Vec<u8>)>>,
    /// How many checkpoints were damaged, each at another place.
    rotten: usize,
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in [folder.to_owned(), folder.join("db")] {
        for file in fs::read_dir(&folder).expect("the folder").map(|file| file.expect("a file").path()) {
            if file.is_file() {
                let bytes = fs::read(&file).expect("the file");
                found.push((file.strip_prefix(&folder).expect("inside").to_owned(), bytes));
                let last = found.len() - 1;
                if folder.ends_with("db") {
                    found[last].0 = Path::new("db").join(&found[last].0);
                }
            }
        }
    }
    found.sort();
    found
}

fn disk_of(files: &[(PathBuf, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("db")).expect("a folder");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    RocksStorage::accept_place(folder.path()).expect("the copy is meant");
    folder
}

/// The newest write-ahead log.
fn log_of(files: &[(PathBuf, Vec<u8>)]) -> usize {
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    files.iter().rposition(|(path, _)| is_log(path)).expect("a write-ahead log")
}

impl Disks for Databases {
    type Storage = RocksStorage;
    type Disk = TempDir;

    fn format(&mut self, state: &VsrState, log_limit: u64) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let options = RocksOptions::default().with(|options| options.log_limit = log_limit);
        RocksStorage::format_state(folder.path(), state, options).expect("formatting");
        folder
    }

    fn open(&mut self, disk: &TempDir) -> Result<RocksStorage, StorageError> {
        RocksStorage::open(disk.path())
    }

    fn unformatted(&mut self) -> Option<TempDir> {
        Some(tempfile::tempdir().expect("a folder"))
    }

    fn mark(&mut self, disk: &TempDir) {
        self.marked = Some(files(disk.path()));
    }

    /// The log cut at lengths from before the write to after it, with the seal of before and of after.
    fn crashes(&mut self, disk: &TempDir) -> Vec<TempDir> {
        let before = self.marked.take().expect("a mark");
        let after = files(disk.path());
        let at = log_of(&after);
        let (name, log) = &after[at];
        let old = before.iter().find(|(path, _)| path == name).map_or(0, |(_, bytes)| bytes.len());
        let seal = |files: &[(PathBuf, Vec<u8>)]| {
            files.iter().find(|(path, _)| path == Path::new("seal")).expect("the seal").1.clone()
        };
        let mut crashed = Vec::new();
        let step = ((log.len() - old) / 6).max(1);
        for len in (old..log.len()).step_by(step).chain([log.len() - 1, log.len()]) {
            let mut image = after.clone();
            image[at].1.truncate(len);
            // The seal is written when the log is durable.
            for (path, bytes) in &mut image {
                if path == Path::new("seal") && len < log.len() {
                    *bytes = seal(&before);
                }
            }
            crashed.push(disk_of(&image));
        }
        let mut unsealed = after.clone();
        unsealed.iter_mut().filter(|(path, _)| path == Path::new("seal")).for_each(|(_, bytes)| *bytes = seal(&before));
        crashed.push(disk_of(&unsealed));
        crashed
    }

    fn rot_body(&mut self, disk: &TempDir, entry: &Entry) -> Option<TempDir> {
        // Opening moves what the write-ahead log holds into tables.
        drop(RocksStorage::open(disk.path()).expect("opening"));
        let mut image = files(disk.path());
        let needle = &entry.body[300..332];
        let mut hits = 0;
        for (path, bytes) in &mut image {
            if path.extension().is_some_and(|extension| extension == "sst")
                && let Some(at) = bytes.windows(needle.len()).position(|window| window == needle)
            {
                bytes[at + 5] ^= 0x40;
                hits += 1;
            }
        }
        assert_eq!(hits, 1, "the body is in one table");
        Some(disk_of(&image))
    }

    fn rot_last_write(&mut self, disk: &TempDir) -> Option<TempDir> {
        let mut image = files(disk.path());
        let at = log_of(&image);
        let len = image[at].1.len();
        image[at].1[len - 60..].fill(0xA5);
        Some(disk_of(&image))
    }

    fn rot_checkpoint(&mut self, disk: &TempDir, id: CheckpointId) -> Option<TempDir> {
        let copy = disk_of(&files(disk.path()));
        let (from, to) = (disk.path().join("checkpoints"), copy.path().join("checkpoints"));
        fs::create_dir(&to).expect("a folder");
        let mut found = fs::read_dir(from).expect("the checkpoints").map(|file| file.expect("a file"));
        let file = found.next().filter(|file| file.file_name().to_string_lossy().contains(&id.op.to_string()));
        let file = file.expect("the checkpoint");
        let mut bytes = fs::read(file.path()).expect("the checkpoint");
        let at = self.rotten * bytes.len() / 20;
        bytes[at] ^= 1;
        self.rotten += 1;
        fs::write(to.join(file.file_name()), bytes).expect("writing");
        Some(copy)
    }
}

// A failed write of the database, and a lost state, have tests of their own below: the database cannot be made to fail at a chosen write.
vsr_sim::storage_conformance!(Databases::default(), crashes, lost_tail, damage, format, limit, checkpoints);

/// Hazards SF-23, SF-19: a lost vsr state is refused, not taken for an older one.
#[test]
fn a_lost_state_is_refused() {
    use futures::executor::block_on;
    use vsr::Storage;
    use vsr::protocol::Batch;
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let mut disks = Databases::default();
    let mut state = config.formatted_state();
    let disk = disks.format(&state, 1 << 30);
    let storage = disks.open(&disk).expect("opening");
    block_on(storage.recover()).expect("recovering");
    state.view = state.view.next();
    block_on(storage.write(Batch { state: Some(state), ..Batch::default() })).expect("a state");
    drop(storage);
    let rotten = disks.rot_last_write(&disk).expect("a copy");
    let storage = disks.open(&rotten).expect("opening");
    assert!(matches!(block_on(storage.recover()), Err(StorageError::StateLost(_))));
}

/// Hazards SF-11, SF-23: an error of the database reaches the replica, and nothing is accepted after it.
#[test]
fn clause_10_an_error_of_the_database_poisons() {
    use futures::executor::block_on;
    use vsr::Storage;
    use vsr::protocol::{Batch, OpNumber};
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let folder = tempfile::tempdir().expect("a folder");
    RocksStorage::format(folder.path(), &config).expect("formatting");
    let storage = RocksStorage::open(folder.path()).expect("opening");
    assert!(matches!(RocksStorage::open(folder.path()), Err(StorageError::InUse(_))));
    block_on(storage.recover()).expect("recovering");
    // The database finds that its folder is gone when its next file is due.
    fs::remove_dir_all(folder.path().join("db")).expect("removing");
    let body = bytes::Bytes::from(vec![7; 8 << 20]);
    let put = |op: u64| {
        let entries = vec![vsr_sim::conformance::storage::entry(op, 0, vsr::Checksum(op.into()), body.clone())];
        block_on(storage.write(Batch { entries, ..Batch::default() }))
    };
    let error = (1..60).find_map(|op| put(op).err()).expect("the error is reported");
    assert!(matches!(error, StorageError::Io { .. }), "{error:?}");
    assert!(matches!(put(100), Err(StorageError::Poisoned(_))));
    assert!(matches!(block_on(storage.recover()), Err(StorageError::Poisoned(_))));
    let read = block_on(storage.read(OpNumber(1)..=OpNumber(1), 10));
    assert!(matches!(read, Err(StorageError::Poisoned(_))));
}

/// What one start found lost stays lost over further starts, and a second loss forgets nothing of the first.
#[test]
fn what_was_lost_is_not_forgotten() {
    use futures::executor::block_on;
    use vsr::protocol::{Batch, CommitNumber, Slot};
    use vsr::{Checksum, Storage};
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let mut disks = Databases::default();
    let mut state = config.formatted_state();
    let mut disk = disks.format(&state, 1 << 30);
    let entry = |op: u64| {
        let body = bytes::Bytes::from(vec![op as u8; 900]);
        vsr_sim::conformance::storage::entry(op, 1, Checksum(op.into()), body)
    };
    let put = |storage: &RocksStorage, op: u64| {
        block_on(storage.write(Batch { entries: vec![entry(op)], ..Batch::default() })).expect("writing");
    };
    let storage = disks.open(&disk).expect("opening");
    block_on(storage.recover()).expect("recovering");
    (1..=4).for_each(|op| put(&storage, op));
    drop(storage);
    // Op 4 is lost. It commits, and nobody has repaired it.
    disk = disks.rot_last_write(&disk).expect("a copy");
    let storage = disks.open(&disk).expect("opening");
    assert!(!block_on(storage.recover()).expect("recovering").head_certain);
    state.commit = CommitNumber(4);
    block_on(storage.write(Batch { state: Some(state.clone()), ..Batch::default() })).expect("the start is noted");
    put(&storage, 6);
    drop(storage);
    for start in 0..3 {
        let storage = disks.open(&disk).expect("opening");
        let recovered = block_on(storage.recover()).expect("recovering");
        assert!(
            matches!(recovered.slots[3], Slot::Corrupt(_)),
            "start {start}: op 4 was durable: {:?}",
            recovered.slots
        );
        block_on(storage.write(Batch { state: Some(state.clone()), ..Batch::default() })).expect("the start is noted");
    }
    let storage = disks.open(&disk).expect("opening");
    block_on(storage.recover()).expect("recovering");
    put(&storage, 7);
    drop(storage);
    disk = disks.rot_last_write(&disk).expect("a copy");
    let storage = disks.open(&disk).expect("opening");
    let recovered = block_on(storage.recover()).expect("recovering");
    assert!(!recovered.head_certain);
    assert!(matches!(recovered.slots[3], Slot::Corrupt(_)), "op 4 was durable: {:?}", recovered.slots);
    // Repaired, it is whole again.
    put(&storage, 4);
    drop(storage);
    let storage = disks.open(&disk).expect("opening");
    let recovered = block_on(storage.recover()).expect("recovering");
    assert_eq!(recovered.slots[3], Slot::Clean(entry(4).header));
}
