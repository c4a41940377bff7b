//! States that go from one cluster to another, on storage in memory.

use std::fs;
use std::io::Read;

use futures::executor::{LocalPool, block_on};
use futures::future::join_all;
use futures::task::LocalSpawnExt;

use super::*;
use crate::adapters::memory::{MemoryNetwork, MemoryStorage};
use crate::config::FormatFor;
use crate::protocol::{DiskId, Entry, Header, HeaderFields, OpKind, Replacement};
use crate::{ApplyContext, Checksum, Config, QueryContext, Replica, RestoreError};

const OLD: ClusterId = ClusterId(1);
const NEW: ClusterId = ClusterId(2);

#[derive(Debug, Default)]
struct Adds(u64);

impl StateMachine for Adds {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;
    fn apply(&mut self, _: &ApplyContext, more: u64) -> u64 {
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
        Snapshot::read(from).map(Adds)
    }
}

fn config(cluster: ClusterId, replica: usize, members: usize, checkpoint_ops: u64) -> Config {
    let addresses = (0..members).map(|id| format!("r{id}"));
    let mut config = Config::new(cluster, ReplicaId(replica as u8), addresses).unwrap();
    config.membership.constants.checkpoint_ops = checkpoint_ops;
    config
}

fn for_backup(config: &Config) -> MemoryStorage {
    MemoryStorage::format_for(config, FormatFor::Backup).unwrap()
}

fn disks(configs: &[Config], format: impl Fn(&Config) -> MemoryStorage) -> Vec<MemoryStorage> {
    configs.iter().map(format).collect()
}

/// Runs the replicas on these disks until so many commands are executed. The sum.
fn add(configs: &[Config], disks: &[MemoryStorage], commands: u64) -> u64 {
    let (mut pool, network) = (LocalPool::new(), MemoryNetwork::new(configs.len()));
    let mut handles = Vec::new();
    for (config, disk) in configs.iter().zip(disks) {
        let builder = Replica::builder(config.clone(), Adds::default()).storage(disk.clone());
        let (replica, handle) = builder.network(network.endpoint(config.replica)).build().unwrap();
        handles.push(handle);
        pool.spawner().spawn_local(async move { replica.run().await.unwrap() }).unwrap();
    }
    pool.run_until(async move {
        for at in 0..commands {
            handles[at as usize % handles.len()].submit(1).await.unwrap();
        }
        let sum = handles[0].query(()).await.unwrap();
        join_all(handles.iter().map(|handle| handle.shutdown())).await;
        sum
    })
}

fn export_from(disk: &MemoryStorage, reach: Reach, to: &Path) -> Result<Backup, BackupError> {
    block_on(export(disk, (Adds::default(), 1), reach, to))
}

/// A new cluster goes on where the file ends, whether that was a checkpoint, a log, or both.
#[test]
fn a_new_cluster_goes_on_from_a_backup() {
    for (members, checkpoint_ops, commands) in [(1, 0, 35), (3, 0, 35), (3, 10, 35), (3, 10, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backup");
        let old: Vec<_> = (0..members).map(|id| config(OLD, id, members, checkpoint_ops)).collect();
        let olds = disks(&old, MemoryStorage::format);
        add(&old, &olds, commands.max(1));
        let backup = export_from(&olds[members - 1], Reach::Head, &file).unwrap();
        assert_eq!((backup.cluster, verify(&file).unwrap()), (OLD, backup));
        let new: Vec<_> = (0..3).map(|id| config(NEW, id, 3, checkpoint_ops)).collect();
        let news = disks(&new, for_backup);
        for disk in &news {
            assert_eq!(block_on(restore(disk, &file)).unwrap(), backup);
            assert!(matches!(block_on(restore(disk, &file)), Err(BackupError::NotForIt)), "once");
        }
        assert_eq!(add(&new, &news, 7), commands.max(1) + 7);
        // It is a cluster like any other: of which there is a backup, too.
        let again = folder.path().join("again");
        let backup = export_from(&news[0], Reach::Head, &again).unwrap();
        assert_eq!(backup.cluster, NEW);
        let third = config(ClusterId(3), 0, 1, 0);
        let disk = for_backup(&third);
        block_on(restore(&disk, &again)).unwrap();
        assert_eq!(add(&[third], &[disk], 1), commands.max(1) + 8);
    }
}

/// What is above the commit number of the record may never have been committed: it is taken on purpose only.
#[test]
fn a_backup_reaches_as_far_as_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let old: Vec<_> = (0..3).map(|id| config(OLD, id, 3, 0)).collect();
    let olds = disks(&old, MemoryStorage::format);
    add(&old, &olds, 20);
    for disk in &olds {
        let Recovered { mut state, slots, .. } = block_on(disk.recover()).unwrap();
        // A record that is behind: the log never rested.
        state.commit = CommitNumber(0);
        block_on(disk.write(Batch { state: Some(state), ..Batch::default() })).unwrap();
        let head = OpNumber(slots.len() as u64);
        let survivor = block_on(examine(disk)).unwrap();
        assert_eq!((survivor.head, survivor.intact, survivor.distrusted), (head, head, None));
        let commit = survivor.commit;
        assert!(commit.op() < head && commit.0 >= 20, "the last header says what was committed before it: {commit}");
        for (reach, expected) in [(Reach::Committed, commit.op()), (Reach::Head, head)] {
            let name = format!("{reach:?} of {}", survivor.replica.0);
            let backup = export_from(disk, reach, &folder.path().join(name)).unwrap();
            assert_eq!((backup.op, backup.commit), (expected, commit));
        }
    }
}

/// A file that is not whole, or not meant for a storage, changes nothing there.
#[test]
fn what_does_not_belong_there_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, bad) = (folder.path().join("backup"), folder.path().join("bad"));
    let old = config(OLD, 0, 1, 0);
    let disk = MemoryStorage::format(&old);
    add(std::slice::from_ref(&old), std::slice::from_ref(&disk), 5);
    export_from(&disk, Reach::Committed, &file).unwrap();
    assert!(matches!(export_from(&disk, Reach::Head, &file), Err(BackupError::Exists(_))));
    assert!(matches!(block_on(restore(&disk, &file)), Err(BackupError::NotForIt)), "it holds a replica");
    let same = for_backup(&config(OLD, 0, 1, 0));
    assert!(matches!(block_on(restore(&same, &file)), Err(BackupError::SameCluster(OLD))));
    let new = config(NEW, 0, 1, 0);
    let disk = for_backup(&new);
    let fresh = block_on(disk.recover()).unwrap();
    assert!(matches!(block_on(restore(&disk, &bad)), Err(BackupError::File { .. })), "it is not there");
    let bytes = fs::read(&file).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        fs::write(&bad, &damaged).unwrap();
        let refused = block_on(restore(&disk, &bad));
        assert!(matches!(refused, Err(BackupError::NotWhole { .. })), "byte {at}: {refused:?}");
        assert!(matches!(verify(&bad), Err(BackupError::NotWhole { .. })), "byte {at}");
        fs::write(&bad, &bytes[..at]).unwrap();
        let refused = block_on(restore(&disk, &bad));
        assert!(matches!(refused, Err(BackupError::NotWhole { .. })), "cut off at {at}: {refused:?}");
    }
    assert_eq!(block_on(disk.recover()).unwrap().state, fresh.state);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing unfinished is left");
}

/// A large state is in many chunks. Damage in the last of them is found before anything is restored.
#[test]
fn a_backup_is_read_to_its_end_before_it_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (folder.path().join("small"), folder.path().join("large"));
    let old = config(OLD, 0, 1, 0);
    let disk = MemoryStorage::format(&old);
    add(std::slice::from_ref(&old), std::slice::from_ref(&disk), 5);
    let Backup { op, commit, .. } = export_from(&disk, Reach::Committed, &small).unwrap();
    let mut content = Vec::new();
    file::Opened::open(&small).unwrap().content().read_to_end(&mut content).unwrap();
    content.resize(3 << 20, 7);
    file::write(&large, (OLD, commit), op, Snapshot::with(move |to| to.write_all(&content))).unwrap();
    assert_eq!(verify(&large).unwrap().op, op);
    let mut bytes = fs::read(&large).unwrap();
    let at = bytes.len() - (1 << 19);
    bytes[at] ^= 1;
    fs::write(&large, bytes).unwrap();
    assert!(matches!(verify(&large), Err(BackupError::NotWhole { .. })));
}

/// A storage that does not have all that is committed is no source.
#[test]
fn a_storage_that_lacks_something_gives_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup");
    let old = config(OLD, 0, 1, 10);
    let disk = MemoryStorage::format(&old);
    add(std::slice::from_ref(&old), std::slice::from_ref(&disk), 45);
    assert!(block_on(examine(&disk)).unwrap().checkpoint.is_some());
    disk.harm_checkpoints();
    let refused = export_from(&disk, Reach::Head, &file);
    assert!(matches!(refused, Err(BackupError::NoState { .. })), "{refused:?}");
    let old = config(OLD, 0, 1, 0);
    let disk = MemoryStorage::format(&old);
    add(std::slice::from_ref(&old), std::slice::from_ref(&disk), 5);
    let mut state = block_on(disk.recover()).unwrap().state;
    state.commit = CommitNumber(4);
    let truncated = Batch { truncate_above: Some(OpNumber(2)), state: Some(state), ..Batch::default() };
    block_on(disk.write(truncated)).unwrap();
    let refused = export_from(&disk, Reach::Committed, &file);
    assert!(matches!(refused, Err(BackupError::Incomplete { op: OpNumber(3), .. })), "{refused:?}");
    // The last op is not the one that its view has fixed there: it was left from an older one.
    let Recovered { mut state, slots, .. } = block_on(disk.recover()).unwrap();
    let Some(Slot::Clean(last)) = slots.last().cloned() else { panic!("the last op is whole") };
    let whole = state.clone();
    state.commit = CommitNumber(2);
    state.suffix.headers = vec![Header::new(HeaderFields { body: Checksum(1), ..*last })];
    block_on(disk.write(Batch { state: Some(state), ..Batch::default() })).unwrap();
    let refused = export_from(&disk, Reach::Committed, &file);
    assert!(matches!(refused, Err(BackupError::Incomplete { op: OpNumber(2), .. })), "{refused:?}");
    block_on(disk.write(Batch { state: Some(whole), ..Batch::default() })).unwrap();
    // The only disk that is left: as far as it goes.
    let backup = export_from(&disk, Reach::Head, &folder.path().join("what is left")).unwrap();
    assert_eq!((backup.op, backup.commit), (OpNumber(2), CommitNumber(4)));
    let fresh = MemoryStorage::format(&old);
    assert!(matches!(export_from(&fresh, Reach::Head, &file), Err(BackupError::Empty)));
    assert!(!file.exists());
}

/// Rule 7.4: the log of the highest view, and of these the longest; one whose word did not count is the last choice, unless it alone has what is
/// committed.
#[test]
fn the_storage_that_knows_most_is_the_first() {
    let survivor = |log_view: u64, intact: u64, commit: u64, distrusted: Option<&'static str>| Survivor {
        cluster: OLD,
        replica: ReplicaId(0),
        members: 5,
        replication_quorum: 3,
        view: View::default(),
        log_view: View { number: log_view, ..View::default() },
        commit: CommitNumber(commit),
        intact: OpNumber(intact),
        head: OpNumber(intact),
        checkpoint: None,
        distrusted,
    };
    let old = Some("an old disk");
    for (survivors, expected) in [
        (vec![], vec![]),
        (vec![survivor(1, 9, 0, None), survivor(2, 5, 0, None), survivor(2, 6, 0, None)], vec![2, 1, 0]),
        (vec![survivor(1, 9, 5, None), survivor(2, 50, 5, old)], vec![0, 1]),
        (vec![survivor(1, 9, 0, old), survivor(2, 5, 0, old)], vec![1, 0]),
        // What a record calls committed is, whether its disk counted or not.
        (vec![survivor(1, 500, 500, None), survivor(1, 999, 998, old)], vec![1, 0]),
        // The log of a later view, whose bodies have not come.
        (vec![survivor(5, 28, 28, None), survivor(4, 30, 30, None)], vec![1, 0]),
    ] {
        assert_eq!(ranked(&survivors), expected, "{survivors:?}");
    }
}

/// A disk whose replica has got others since still says what it has: the ops that put those there do not stop the replay.
#[test]
fn a_log_with_replaced_disks_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let old = config(OLD, 0, 1, 0);
    let disk = MemoryStorage::format(&old);
    add(std::slice::from_ref(&old), std::slice::from_ref(&disk), 3);
    // Another disk is put in the place of this one.
    let Recovered { slots, state, .. } = block_on(disk.recover()).unwrap();
    let Some(Slot::Clean(last)) = slots.last() else { panic!("an empty log") };
    let body = Replacement { replica: ReplicaId(0), disk_id: DiskId(99) }.encode();
    let header = Header::new(HeaderFields {
        view: last.view,
        op: last.op.next(),
        parent: last.checksum(),
        kind: OpKind::Recover,
        body: Checksum::of(&body),
        body_len: body.len() as u32,
        requests: 0,
        ..**last
    });
    let entries = vec![Entry { header, body }];
    block_on(disk.write(Batch { entries, ..Batch::default() })).unwrap();
    assert_eq!(state.succession, Succession::First);
    let backup = export_from(&disk, Reach::Head, &folder.path().join("backup")).unwrap();
    assert_eq!(backup.op, header.op);
}
