//! The state file: a bad sector at every place, every length, and what an operator is told.

mod support;

use support::{Disk, File, SECTOR, entry, is_clean, put, verdicts, write_state};
use vsr::protocol::{CommitNumber, DiskId, Doubted, Epoch, Known, Life, OpNumber, Recovered, Suffix, View, VsrState};
use vsr::storage::StorageError;
use vsr::{ClusterId, Membership, ReplicaId, Storage as _};
use vsr_storage_file::{FileOptions, FileStorage};

const SLOT: usize = 2048;
const LAST_PAGE: usize = 8 + 4 * SLOT;

fn written() -> (Disk, Recovered) {
    let disk = Disk::new();
    for start in 0..3 {
        let (storage, _) = disk.start();
        put(&storage, vec![entry(start + 1, 0, 100)]);
    }
    let recovered = disk.recover().expect("recovering");
    (disk, recovered)
}

/// Where something is, where nothing is, and where nothing ever was.
fn places() -> Vec<usize> {
    let slots = (0..4).flat_map(|slot| {
        let first = 8 + slot * SLOT;
        (first..first + 12).chain([first + SLOT / 2, first + SLOT - 1])
    });
    (0..8).chain(slots).chain(LAST_PAGE..LAST_PAGE + 8).collect()
}

#[test]
fn one_bad_sector_or_page_anywhere_in_the_state_changes_nothing() {
    let (disk, expected) = written();
    for at in places() {
        for (unreadable, sectors) in [(false, 1), (true, 1), (false, 8), (true, 8)] {
            let at = at / sectors * sectors;
            let what = format!("{sectors} sectors at {at}, unreadable: {unreadable}");
            let disk = disk.copy();
            if unreadable {
                disk.state.lock().bad.extend(at..at + sectors);
            } else {
                disk.state.rot(at..at + sectors);
            }
            let recovered = disk.recover().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(recovered.state, expected.state, "{what}");
            assert_eq!(verdicts(&recovered), verdicts(&expected), "{what}");
            assert!(recovered.head_certain, "{what}");
        }
    }
}

/// It is read whole, or refused in words; an older state never passes for the newest, nor a cut file for none.
#[test]
fn a_state_file_of_any_length_is_the_newest_state_or_an_error() {
    let (disk, expected) = written();
    let len = disk.state.content().len();
    let cuts = places().into_iter().flat_map(|at| [at * SECTOR, at * SECTOR + 100]).chain([len - 1, len, len + 5000]);
    for cut in cuts {
        let disk = disk.copy();
        disk.state.change(|bytes| bytes.resize(cut, 0));
        match disk.recover() {
            Ok(recovered) => {
                assert_eq!(recovered.state, expected.state, "cut to {cut}");
                assert!((1..=3).all(|op| is_clean(&recovered, op)), "cut to {cut}");
            }
            Err(StorageError::StateLost(path)) => {
                assert!(cut < len, "cut to {cut}");
                assert_eq!(path, "the disk/state");
            }
            Err(StorageError::Damaged { path, .. }) => {
                assert!(cut < SECTOR, "cut to {cut}");
                assert_eq!(path, "the disk/state");
            }
            Err(error) => panic!("cut to {cut}: {error}"),
        }
    }
}

/// Neither is "not formatted": that advice, followed, loses what was acknowledged.
#[test]
fn a_state_file_that_is_empty_zeroed_or_something_else_is_damaged() {
    let (disk, _) = written();
    let len = disk.state.content().len();
    for content in [Vec::new(), vec![0; len], vec![0x33; len], disk.log.content()] {
        let disk = disk.copy();
        disk.state.change(|bytes| *bytes = content);
        let error = disk.recover().expect_err("that is no state");
        assert!(matches!(&error, StorageError::Damaged { path, .. } if path == "the disk/state"), "{error}");
        assert!(error.to_string().contains("do not format"), "{error}");
    }
}

/// Nine members at addresses of so many bytes.
fn of_nine(address_len: usize) -> VsrState {
    let addresses = (0..9).map(|id| format!("{id}{}", "x".repeat(address_len - 1)));
    let mut membership = Membership::new(addresses).expect("nine members are a cluster");
    membership.constants.pipeline_max = 1024;
    membership.validate().expect("a pipeline of 1,024 ops is allowed");
    VsrState::formatted(ClusterId(u128::MAX), ReplicaId(8), DiskId(u128::MAX), membership)
}

fn format(state: &VsrState) -> Result<Disk, StorageError> {
    let disk = Disk { log: File::default(), state: File::default() };
    let options = FileOptions::default().with(|options| (options.log_limit, options.extent) = (1 << 22, 1 << 16));
    FileStorage::format_on(&disk.log, &disk.state, state, options)?;
    Ok(disk)
}

#[test]
fn the_largest_state_of_the_largest_cluster_fits() {
    let mut state = of_nine(255);
    let disk = format(&state).expect("such a cluster is allowed");
    let most = u64::MAX >> 1;
    let view = View { epoch: Epoch(u32::MAX), number: most };
    (state.view, state.log_view, state.commit, state.starts) = (view, view, CommitNumber(most - 2000), most);
    let headers = (0..1025).map(|op| entry(most - 2000 + op, 0, 0).header).collect();
    state.suffix = Suffix { head: OpNumber(most), headers };
    state.doubted = Some(Doubted { above: OpNumber(most - 2000), to: OpNumber(most) });
    let life = Life { disk_id: DiskId(u128::MAX), starts: most, nonce: most };
    state.known = (0..9)
        .map(|id| Known { replica: ReplicaId(id), life, acknowledged: OpNumber(most), since: OpNumber(most) })
        .collect();
    let storage = disk.open().expect("opening");
    futures::executor::block_on(storage.recover()).expect("recovering");
    write_state(&storage, state.clone(), None);
    drop(storage);
    assert_eq!(disk.recover().expect("recovering").state, state);
}

/// Its replicas would stop when one of their states does not fit.
#[test]
fn a_cluster_whose_states_may_not_fit_is_refused_when_it_is_formatted() {
    let refused = format(&of_nine(40_000)).map(|_| ());
    assert!(matches!(refused, Err(StorageError::StateTooLarge { bytes, room }) if bytes > room), "{refused:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = (0..9).map(|id| format!("{id}{}", "x".repeat(40_000)));
    if let Ok(config) = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(0), addresses) {
        let path = folder.path().join("replica");
        let refused = FileStorage::format(&path, &config);
        assert!(matches!(refused, Err(StorageError::StateTooLarge { .. })), "{refused:?}");
        assert!(!path.exists(), "nothing is left behind");
    }
}

/// Every superblock is sealed alike: one of another disk is intact where a misdirected write has put it.
#[test]
fn one_superblock_of_another_disk_changes_nothing() {
    let (disk, expected) = written();
    let other = Disk::of(100).state.content();
    for at in [0, LAST_PAGE] {
        let disk = disk.copy();
        let sector = at * SECTOR..(at + 1) * SECTOR;
        disk.state.change(|bytes| bytes[sector.clone()].copy_from_slice(&other[sector]));
        let recovered = disk.recover().unwrap_or_else(|error| panic!("sector {at}: {error}"));
        assert_eq!(recovered.state, expected.state, "sector {at}");
        assert_eq!(verdicts(&recovered), verdicts(&expected), "sector {at}");
    }
}

/// A state of another disk does not fit the log.
#[test]
fn the_state_of_another_disk_is_refused() {
    let (disk, _) = written();
    let other = Disk::of(100);
    drop(other.start());
    disk.state.change(|bytes| *bytes = other.state.content());
    let error = disk.recover().expect_err("that is not its state");
    assert!(matches!(&error, StorageError::Damaged { path, .. } if path == "the disk/log"), "{error}");
}
