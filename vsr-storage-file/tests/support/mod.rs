//! Files in memory that fail as those of a disk do.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::executor::block_on;
use vsr::protocol::{Batch, DiskId, Entry, OpNumber, Random, Recovered, Slot, VsrState};
use vsr::storage::StorageError;
use vsr::{Checksum, ClusterId, Membership, ReplicaId, Storage};
use vsr_storage_file::medium::Medium;
use vsr_storage_file::{FileOptions, FileStorage, InlineFileStorage};

pub(crate) const SECTOR: usize = 512;

/// What becomes of the next sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NextSync {
    #[default]
    Works,
    /// It fails, and the kernel marks the pages clean: readable until the power is lost, never written again.
    Fails,
    /// The process is killed before it: what it wrote stays to be written.
    Killed,
    /// The file system has no room for what it took, and drops it.
    NoRoom,
}

/// Where a file system without room refuses also what is written over something that is there, as one that copies on write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Room {
    #[default]
    There,
    /// Every write is refused.
    NoneForWrites,
    /// Writes are taken, and every sync is refused: what was taken is dropped.
    NoneForSyncs,
}

#[derive(Clone, Default)]
pub(crate) struct Bytewise {
    pub(crate) cache: Vec<u8>,
    pub(crate) disk: Vec<u8>,
    dirty: BTreeSet<usize>,
    pub(crate) next: NextSync,
    pub(crate) room: Room,
    /// Sectors that cannot be read.
    pub(crate) bad: BTreeSet<usize>,
    /// Sectors that cannot be written: a sync of them fails, and the kernel marks them clean.
    pub(crate) unwritable: BTreeSet<usize>,
}

/// A file: a page cache over a disk.
#[derive(Clone, Default)]
pub(crate) struct File(Arc<Mutex<Bytewise>>);

impl File {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Bytewise> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn copy(&self) -> File {
        File(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Every sector that was not synced is on the disk, or is not.
    fn crash(&self, random: &mut Random) {
        let mut file = self.lock();
        let dirty = std::mem::take(&mut file.dirty);
        let kept = dirty.into_iter().filter(|_| random.chance(1, 2)).collect();
        file.persist(&kept);
        file.cache = file.disk.clone();
    }

    pub(crate) fn power_loss(&self) {
        let mut file = self.lock();
        file.dirty.clear();
        file.cache = file.disk.clone();
    }

    /// Changes what is on the disk, behind everybody's back.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut file = self.lock();
        change(&mut file.cache);
        file.disk = file.cache.clone();
        file.dirty.clear();
    }

    pub(crate) fn rot(&self, sectors: Range<usize>) {
        self.change(|bytes| {
            for at in sectors {
                if let Some(byte) = bytes.get_mut(at * SECTOR + 300) {
                    *byte ^= 0x40;
                }
            }
        });
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        self.lock().cache.clone()
    }
}

impl Bytewise {
    fn persist(&mut self, sectors: &BTreeSet<usize>) {
        self.disk.resize(self.cache.len(), 0);
        for at in sectors {
            let range = at * SECTOR..((at + 1) * SECTOR).min(self.cache.len());
            self.disk[range.clone()].copy_from_slice(&self.cache[range]);
        }
    }
}

impl Medium for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.lock();
        let range = offset as usize..offset as usize + buf.len();
        if file.bad.range(range.start / SECTOR..range.end.div_ceil(SECTOR)).next().is_some() {
            return Err(io::Error::other("input/output error"));
        }
        buf.copy_from_slice(file.cache.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut file = self.lock();
        if file.room == Room::NoneForWrites {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let range = offset as usize..offset as usize + bytes.len();
        if file.cache.len() < range.end {
            file.cache.resize(range.end, 0);
        }
        file.dirty.extend(range.start / SECTOR..range.end.div_ceil(SECTOR));
        file.cache[range].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut file = self.lock();
        if file.room == Room::NoneForSyncs {
            file.next = NextSync::NoRoom;
        }
        match std::mem::take(&mut file.next) {
            NextSync::Works => {
                let dirty = std::mem::take(&mut file.dirty);
                let written: BTreeSet<usize> = dirty.difference(&file.unwritable).copied().collect();
                file.persist(&written);
                if written.len() < dirty.len() { Err(io::Error::other("input/output error")) } else { Ok(()) }
            }
            NextSync::Fails => {
                file.dirty.clear();
                Err(io::Error::other("input/output error"))
            }
            NextSync::Killed => Err(io::Error::other("killed")),
            NextSync::NoRoom => {
                file.dirty.clear();
                Err(io::ErrorKind::StorageFull.into())
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().cache.len() as u64)
    }
}

/// A formatted disk.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) log: File,
    pub(crate) state: File,
}

pub(crate) type Inline = InlineFileStorage<File>;

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk::of(99)
    }

    pub(crate) fn of(disk_id: u128) -> Disk {
        let disk = Disk { log: File::default(), state: File::default() };
        let options = FileOptions::default().with(|options| (options.log_limit, options.extent) = (1 << 22, 1 << 16));
        FileStorage::format_on(&disk.log, &disk.state, &first_state(disk_id), options).expect("formatting");
        disk
    }

    pub(crate) fn copy(&self) -> Disk {
        Disk { log: self.log.copy(), state: self.state.copy() }
    }

    /// A copy of the log, beside the same state: for those that change nothing in it.
    pub(crate) fn copy_log(&self) -> Disk {
        Disk { log: self.log.copy(), state: self.state.clone() }
    }

    pub(crate) fn open(&self) -> Result<Inline, StorageError> {
        InlineFileStorage::open_on(self.log.clone(), self.state.clone(), "the disk")
    }

    pub(crate) fn recover(&self) -> Result<Recovered, StorageError> {
        block_on(self.open()?.recover())
    }

    /// As a replica starts: it notes the start in its state, and whether the end of its log is certain.
    pub(crate) fn start(&self) -> (Inline, Recovered) {
        let storage = self.open().expect("opening");
        let recovered = block_on(storage.recover()).expect("recovering");
        let mut state = recovered.state.clone();
        state.starts += 1;
        state.head_certain &= recovered.head_certain;
        write_state(&storage, state, None);
        (storage, recovered)
    }

    pub(crate) fn power_loss(&self) {
        self.log.power_loss();
        self.state.power_loss();
    }

    pub(crate) fn crash(&self, random: &mut Random) {
        self.log.crash(random);
        self.state.crash(random);
    }

    /// The sectors of the log that `write` changes.
    pub(crate) fn changed(&self, write: impl FnOnce()) -> Range<usize> {
        let before = self.log.content();
        write();
        let after = self.log.content();
        let used = |sector: &[u8]| sector[488..504].iter().any(|&byte| byte != 0);
        let differs = |at: &usize| {
            let range = at * SECTOR..(at + 1) * SECTOR;
            used(&after[range.clone()]) && before.get(range.clone()) != after.get(range)
        };
        let changed: Vec<usize> = (0..after.len() / SECTOR).filter(differs).collect();
        match (changed.first(), changed.last()) {
            (Some(first), Some(last)) => *first..last + 1,
            _ => 0..0,
        }
    }
}

fn first_state(disk_id: u128) -> VsrState {
    let membership = Membership::new(["a", "b", "c"]).expect("three members are a cluster");
    VsrState::formatted(ClusterId(7), ReplicaId(1), DiskId(disk_id), membership)
}

pub(crate) fn entry(op: u64, view: u64, len: usize) -> Entry {
    let mut random = Random::new(op << 32 | view);
    let body: Vec<u8> = (0..len).map(|_| random.next_u64() as u8).collect();
    vsr_sim::conformance::storage::entry(op, view, Checksum(op.into()), Bytes::from(body))
}

pub(crate) fn put(storage: &Inline, entries: Vec<Entry>) {
    try_put(storage, entries).expect("a put");
}

pub(crate) fn try_put(storage: &Inline, entries: Vec<Entry>) -> Result<(), StorageError> {
    block_on(storage.write(Batch { entries, ..Batch::default() }))
}

pub(crate) fn write_state(storage: &Inline, state: VsrState, truncate_above: Option<u64>) {
    let batch = Batch { state: Some(state), truncate_above: truncate_above.map(OpNumber), entries: Vec::new() };
    block_on(storage.write(batch)).expect("a state");
}

/// Whether the end of the log is certain, as storage and replica remember it.
pub(crate) fn is_certain(recovered: &Recovered) -> bool {
    recovered.head_certain && recovered.state.head_certain
}

pub(crate) fn is_clean(recovered: &Recovered, op: u64) -> bool {
    matches!(recovered.slots.get(op as usize - 1), Some(Slot::Clean(_)))
}

/// A word for each slot.
pub(crate) fn verdicts(recovered: &Recovered) -> Vec<String> {
    let word = |slot: &Slot| match slot {
        Slot::Clean(header) => format!("clean v{}", header.view.number),
        Slot::Corrupt(Some(header)) => format!("corrupt v{}", header.view.number),
        Slot::Corrupt(None) => "corrupt".to_owned(),
        Slot::Absent => "absent".to_owned(),
    };
    recovered.slots.iter().map(word).collect()
}
