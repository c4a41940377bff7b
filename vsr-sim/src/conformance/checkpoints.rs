//! The clauses of [`vsr::Storage`] on checkpoints, each as a test of its number, for any storage that keeps them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::executor::block_on;
use vsr::protocol::{CheckpointId, OpNumber};
use vsr::storage::{CheckpointReader, StorageError};
use vsr::{Snapshot, Storage};

use super::storage::{Disks, Expected, LIMIT, assert_exact, first_state, recover, write};

fn checkpoint_bytes(op: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u64 * op / 3) as u8).collect()
}

fn write_checkpoint(
    storage: &impl Storage,
    op: u64,
    keep: &[CheckpointId],
    len: usize,
) -> Result<CheckpointId, StorageError> {
    // In pieces of any length, as a state machine writes.
    let content = Snapshot::with(move |to| {
        let bytes = checkpoint_bytes(op, len);
        bytes.chunks(7777).try_for_each(|piece| to.write_all(piece))
    });
    block_on(storage.write_checkpoint(OpNumber(op), keep.to_vec(), content))
}

fn read_checkpoint(storage: &impl Storage, id: CheckpointId) -> Result<Vec<u8>, StorageError> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let into = found.clone();
    let reader: CheckpointReader = Box::new(move |from| {
        let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
        io::Read::read_to_end(from, &mut into).map(|_| ())
    });
    block_on(storage.read_checkpoint(id, reader))?;
    let found = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(found)
}

/// More than two chunks.
const LONG: usize = 2 * vsr::protocol::CHUNK_BYTES_MAX + 12_345;

/// Clause 15.
pub fn whole_checkpoints<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let mut expected = Expected::new();
    let mut storage = disks.open(&disk).expect("opening");
    recover(&storage);
    assert!(storage.keeps_checkpoints());
    let mut kept = Vec::new();
    for (op, len) in [(10, 0), (20, 1), (30, LONG)] {
        let batch = expected.puts(op..=op, 1, 100);
        write(&storage, &mut expected, batch);
        let id = write_checkpoint(&storage, op, &kept, len).expect("a checkpoint");
        assert_eq!(id.op, OpNumber(op));
        kept.push(id);
        // One that the state machine does not finish changes nothing.
        let unfinished = Snapshot::with(|to| {
            to.write_all(&[1; 100_000])?;
            Err(io::Error::other("it does not finish"))
        });
        let failed = block_on(storage.write_checkpoint(OpNumber(op + 1), kept.clone(), unfinished));
        assert!(failed.is_err(), "{failed:?}");
        for again in [false, true] {
            if again {
                drop(storage);
                storage = disks.open(&disk).expect("opening again");
                recover(&storage);
            }
            for (id, len) in kept.iter().zip([0, 1, LONG]) {
                let found = read_checkpoint(&storage, *id).expect("it was written");
                assert!(found == checkpoint_bytes(id.op.0, len), "the checkpoint after {id} has other bytes");
            }
            assert_exact(&storage, &expected);
        }
    }
}

/// Clause 16.
pub fn kept_checkpoints<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    let mut named: Vec<CheckpointId> = Vec::new();
    for op in 1..12 {
        let keep: Vec<CheckpointId> = named.iter().rev().take(2).copied().collect();
        let id = write_checkpoint(&storage, op, &keep, 1000).expect("a checkpoint");
        for old in &named {
            let found = read_checkpoint(&storage, *old);
            if keep.contains(old) {
                assert_eq!(found, Ok(checkpoint_bytes(old.op.0, 1000)), "{old} is kept");
            } else {
                assert!(matches!(found, Err(StorageError::CheckpointDamaged { .. })), "{old} is removed: {found:?}");
            }
        }
        named.push(id);
    }
}

/// Clause 17.
pub fn damaged_checkpoints<D: Disks>(disks: &mut D) {
    let disk = disks.format(&first_state(), LIMIT);
    let storage = disks.open(&disk).expect("opening");
    recover(&storage);
    let id = write_checkpoint(&storage, 3, &[], LONG).expect("a checkpoint");
    let parts: Vec<Bytes> = (0..).map_while(|part| block_on(storage.read_part(id, part)).ok()).collect();
    drop(storage);
    for _ in 0..20 {
        let rotten = disks.rot_checkpoint(&disk, id).expect("a disk whose checkpoints can be damaged");
        let storage = disks.open(&rotten).expect("opening");
        recover(&storage);
        let found = read_checkpoint(&storage, id).map(|found| found.len());
        assert!(matches!(found, Err(StorageError::CheckpointDamaged { .. })), "{found:?}");
        // What comes from another replica takes its place.
        let mut next = 0;
        while let Some(bytes) = parts.get(next as usize) {
            next = block_on(storage.write_part(id, next, bytes.clone(), vec![id])).expect("a part");
        }
        assert_eq!(read_checkpoint(&storage, id), Ok(checkpoint_bytes(3, LONG)));
    }
}

/// Clause 18.
pub fn parts_of_checkpoints<D: Disks>(disks: &mut D) {
    let (from, to) = (disks.format(&first_state(), LIMIT), disks.format(&first_state(), LIMIT));
    let source = disks.open(&from).expect("opening");
    recover(&source);
    for (op, len) in [(3, 0), (4, 1), (5, LONG)] {
        let id = write_checkpoint(&source, op, &[], len).expect("a checkpoint");
        let part = |part| block_on(source.read_part(id, part));
        let manifest = part(0).expect("the manifest");
        let parts = vsr::protocol::Manifest::decode(&manifest).expect("a manifest").chunks.len() as u32 + 1;
        for none in [parts, u32::MAX] {
            assert_eq!(part(none), Err(StorageError::NoSuchPart { id, part: none }));
        }
        let mut storage = disks.open(&to).expect("opening");
        recover(&storage);
        let put = |storage: &D::Storage, part, bytes: Bytes| block_on(storage.write_part(id, part, bytes, vec![id]));
        assert!(put(&storage, 0, Bytes::from_static(b"no manifest")).is_err());
        assert!(put(&storage, 1, Bytes::from_static(b"too early")).is_err());
        let mut next = put(&storage, 0, manifest.clone()).expect("the manifest");
        while next < parts {
            let bytes = part(next).expect("a part");
            let mut wrong = bytes.to_vec();
            wrong[0] ^= 1;
            assert!(put(&storage, next, wrong.into()).is_err(), "other bytes than those of part {next}");
            let found = read_checkpoint(&storage, id).map(|found| found.len());
            assert!(matches!(found, Err(StorageError::CheckpointDamaged { .. })), "it is not whole: {found:?}");
            assert_eq!(put(&storage, next, bytes), Ok(next + 1));
            next += 1;
            if next == 3 {
                drop(storage);
                storage = disks.open(&to).expect("opening again");
                recover(&storage);
                assert_eq!(put(&storage, 0, manifest.clone()), Ok(3), "what is there need not come again");
            }
        }
        assert_eq!(read_checkpoint(&storage, id), Ok(checkpoint_bytes(op, len)));
        drop(storage);
        let storage = disks.open(&to).expect("opening again");
        recover(&storage);
        assert_eq!(read_checkpoint(&storage, id), Ok(checkpoint_bytes(op, len)));
        assert_eq!(put(&storage, 0, manifest), Ok(parts), "it is there already");
    }
}
