//! Checkpoints in a folder: the conformance suite, and a replica that starts from them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::executor::block_on;
use tempfile::TempDir;
use vsr::memory::MemoryNetwork;
use vsr::protocol::{Batch, CheckpointId, Random, VsrState};
use vsr::storage::StorageError;
use vsr::{
    ApplyContext, ClusterId, Config, Membership, QueryContext, Replica, ReplicaId, RestoreError, Snapshot,
    StateMachine, Storage,
};
use vsr_sim::conformance::storage::Disks;
use vsr_storage_file::{FileStorage, inspect};

struct Folders(Random);

impl Default for Folders {
    fn default() -> Folders {
        Folders(Random::new(3))
    }
}

/// The one file of a checkpoint whose name has its op.
fn file_of(folder: &Path, op: u64) -> PathBuf {
    let files = fs::read_dir(folder.join("checkpoints")).expect("the checkpoints").map(|file| file.expect("a file"));
    let prefix = format!("{op:020}-");
    let mut named = files.filter(|file| file.file_name().to_string_lossy().starts_with(&prefix));
    named.next().expect("a checkpoint of this op").path()
}

impl Disks for Folders {
    type Storage = FileStorage;
    type Disk = Arc<TempDir>;

    fn format(&mut self, state: &VsrState, _: u64) -> Arc<TempDir> {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let config = Config::with_membership(state.cluster, state.replica, state.membership.clone());
        FileStorage::format(folder.path(), &config.expect("a configuration")).expect("formatting");
        // The state of the suite, which has an id of the disk of its own.
        let storage = FileStorage::open(folder.path()).expect("opening");
        block_on(storage.recover()).expect("recovering");
        block_on(storage.write(Batch { state: Some(state.clone()), ..Batch::default() })).expect("writing");
        folder
    }

    fn open(&mut self, disk: &Arc<TempDir>) -> Result<FileStorage, StorageError> {
        FileStorage::open(disk.path())
    }

    /// In place: a copied folder would not open.
    fn rot_checkpoint(&mut self, disk: &Arc<TempDir>, id: CheckpointId) -> Option<Arc<TempDir>> {
        let path = file_of(disk.path(), id.op.0);
        let kept = disk.path().join("kept");
        if !kept.exists() {
            fs::copy(&path, &kept).expect("a copy");
        }
        let mut bytes = fs::read(&kept).expect("the checkpoint");
        let at = self.0.below(bytes.len() as u64) as usize;
        match self.0.below(3) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, 0),
            _ => bytes[at] ^= 1 << self.0.below(8),
        }
        fs::write(&path, bytes).expect("writing");
        Some(disk.clone())
    }
}

mod suite {
    use super::Folders;

    vsr_sim::storage_conformance!(Folders::default(), checkpoints);
}

/// Adds up, and counts what it has applied in this life.
struct Adds(u64, Arc<AtomicU64>);

impl StateMachine for Adds {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;
    fn apply(&mut self, _: &ApplyContext, more: u64) -> u64 {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0 += more;
        self.0
    }
    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }
    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0)
    }
    fn restore(from: &mut dyn Read) -> Result<Adds, RestoreError> {
        // Those of a restored machine are not counted: the tests look at what the first one has applied.
        Snapshot::read(from).map(|sum| Adds(sum, Arc::default()))
    }
}

/// A replica alone in its cluster, for some commands: the sum, what the machine that it was given has applied, its checkpoint.
fn run(folder: &Path, config: &Config, commands: u64) -> (u64, u64, u64) {
    let applied = Arc::new(AtomicU64::new(0));
    let storage = FileStorage::open(folder).expect("opening");
    let builder = Replica::builder(config.clone(), Adds(0, applied.clone())).storage(storage);
    let (replica, handle) = builder.network(MemoryNetwork::new(1).endpoint(ReplicaId(0))).build().expect("a replica");
    let running = std::thread::Builder::new().spawn(move || block_on(replica.run())).expect("a thread");
    for _ in 0..commands {
        block_on(handle.submit(1)).expect("a reply");
    }
    let sum = block_on(handle.query(())).expect("an answer");
    let mut checkpoint = handle.status().checkpoint.0;
    while commands > 0 && checkpoint == 0 {
        // Another thread writes it. Each op is a chance to name it.
        block_on(handle.submit(0)).expect("a reply");
        checkpoint = handle.status().checkpoint.0;
    }
    block_on(handle.shutdown());
    running.join().expect("no panic").expect("no error");
    (sum, applied.load(Ordering::Relaxed), checkpoint)
}

/// Rule 9.11: a start goes on from a checkpoint, and from the log where it is damaged, cut, or gone.
#[test]
fn a_replica_starts_from_a_checkpoint_or_from_its_log() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("replica");
    let mut membership = Membership::new(["alone"]).expect("a membership");
    membership.constants.checkpoint_ops = 50;
    let config = Config::with_membership(ClusterId(1), ReplicaId(0), membership).expect("a configuration");
    FileStorage::format(&folder, &config).expect("formatting");
    let (sum, applied, checkpoint) = run(&folder, &config, 60);
    assert!(sum == 60 && applied >= 60 && checkpoint > 0, "{sum} {applied} {checkpoint}");
    assert_eq!(
        run(&folder, &config, 0),
        (60, 0, checkpoint),
        "nothing of it is applied again by the machine that was given"
    );
    let harms: [fn(&Path); 4] = [
        |path| fs::write(path, b"something else").expect("writing"),
        |path| fs::write(path, b"").expect("writing"),
        |path| fs::File::options().write(true).open(path).and_then(|file| file.set_len(30)).expect("cutting"),
        |path| fs::remove_file(path).expect("removing"),
    ];
    let looked = || {
        let found = inspect(&folder).expect("a folder");
        let newest = found.checkpoints.last().expect("it is named").clone();
        (newest.id.op.0, newest.bytes.is_ok(), found.is_clean())
    };
    assert_eq!(looked(), (checkpoint, true, true));
    for (at, harm) in harms.into_iter().enumerate() {
        harm(&file_of(&folder, checkpoint));
        assert_eq!(looked(), (checkpoint, false, false), "{at}");
        let (sum, applied, _) = run(&folder, &config, 0);
        assert!(sum == 60 && applied >= 60, "{at}: {sum} {applied}");
    }
}
