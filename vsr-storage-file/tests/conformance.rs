//! The conformance suite, on files whose power can be cut between any two sectors.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vsr::protocol::{Entry, Random, VsrState};
use vsr::storage::StorageError;
use vsr_sim::conformance::storage::Disks;
use vsr_storage_file::medium::Medium;
use vsr_storage_file::{FileOptions, FileStorage};

const SECTOR: usize = 512;
const LOG: usize = 0;
const STATE: usize = 1;
/// Where the second superblock is, in sectors.
const LAST_PAGE: usize = 8 + 4 * 2048;

#[derive(Clone)]
enum Step {
    /// One sector of one write.
    Sector {
        file: usize,
        at: usize,
        bytes: Vec<u8>,
    },
    Sync {
        file: usize,
    },
}

/// Two files, and everything that was done to them since a mark.
#[derive(Default)]
struct World {
    files: [Vec<u8>; 2],
    before: [Vec<u8>; 2],
    steps: Vec<Step>,
    recording: bool,
    fail: bool,
    /// Bytes that a file may have; a longer one finds the disk full.
    space: Option<usize>,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn of(files: [Vec<u8>; 2]) -> Shared {
        Shared(Arc::new(Mutex::new(World { files, ..World::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy on which `change` was done.
    fn copy_with(&self, change: impl FnOnce(&mut [Vec<u8>; 2])) -> Shared {
        let mut files = self.lock().files.clone();
        change(&mut files);
        Shared::of(files)
    }
}

struct Faulty {
    world: Shared,
    file: usize,
}

impl Medium for Faulty {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let world = self.world.lock();
        let offset = offset as usize;
        let from = world.files[self.file].get(offset..offset + buf.len());
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.world.lock();
        let offset = offset as usize;
        assert!(offset.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR), "writes are whole sectors");
        let file = self.file;
        if world.space.is_some_and(|space| offset + bytes.len() > space.max(world.files[file].len())) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if world.recording {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                let at = offset + index * SECTOR;
                world.steps.push(Step::Sector { file, at, bytes: sector.to_vec() });
            }
        }
        put(&mut world.files[file], offset, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world.lock();
        if std::mem::take(&mut world.fail) {
            return Err(io::Error::other("the disk is gone"));
        }
        if world.recording {
            world.steps.push(Step::Sync { file: self.file });
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.world.lock().files[self.file].len() as u64)
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

#[derive(Default)]
struct Files {
    random: Option<Random>,
}

impl Disks for Files {
    type Storage = FileStorage;
    type Disk = Shared;

    fn format(&mut self, state: &VsrState, log_limit: u64) -> Shared {
        let world = Shared::of([Vec::new(), Vec::new()]);
        let (log, states) = (Faulty { world: world.clone(), file: LOG }, Faulty { world: world.clone(), file: STATE });
        let options = FileOptions::default().with(|options| (options.log_limit, options.extent) = (log_limit, 1 << 16));
        FileStorage::format_on(&log, &states, state, options).expect("formatting");
        world
    }

    fn open(&mut self, disk: &Shared) -> Result<FileStorage, StorageError> {
        let (log, state) = (Faulty { world: disk.clone(), file: LOG }, Faulty { world: disk.clone(), file: STATE });
        FileStorage::open_on(log, state, "the disk under test")
    }

    fn unformatted(&mut self) -> Option<Shared> {
        Some(Shared::of([Vec::new(), Vec::new()]))
    }

    fn mark(&mut self, disk: &Shared) {
        let mut world = disk.lock();
        world.before = world.files.clone();
        world.steps.clear();
        world.recording = true;
    }

    /// Every prefix of what was written, and many subsets of what was not synced yet.
    fn crashes(&mut self, disk: &Shared) -> Vec<Shared> {
        let random = self.random.get_or_insert_with(|| Random::new(11));
        let (before, steps) = {
            let mut world = disk.lock();
            world.recording = false;
            (world.before.clone(), std::mem::take(&mut world.steps))
        };
        let mut crashed = vec![Shared::of(before.clone())];
        let mut synced = before;
        let mut open: Vec<Step> = Vec::new();
        for step in steps {
            match step {
                Step::Sync { file } => {
                    crashed.extend(subsets(&synced, &open, random));
                    for step in open.extract_if(.., |step| matches!(step, Step::Sector { file: of, .. } if *of == file))
                    {
                        persist(&mut synced, &step);
                    }
                }
                sector @ Step::Sector { .. } => open.push(sector),
            }
        }
        crashed.extend(subsets(&synced, &open, random));
        crashed.push(Shared::of(synced));
        crashed
    }

    fn rot_body(&mut self, disk: &Shared, entry: &Entry) -> Option<Shared> {
        Some(disk.copy_with(|files| {
            // Bodies are spread over sectors of 488 bytes of payload: damage the middle of the first match.
            let needle = &entry.body[300..332];
            let at = files[LOG].windows(needle.len()).position(|bytes| bytes == needle).expect("the body is there");
            files[LOG][at + 5] ^= 0x40;
        }))
    }

    fn rot_last_write(&mut self, disk: &Shared) -> Option<Shared> {
        let blank = |sector: &[u8]| sector[488..504].iter().all(|&byte| byte == 0);
        let number = |sector: &[u8]| u64::from_le_bytes(sector[488..496].try_into().expect("eight bytes"));
        Some(disk.copy_with(|files| {
            let last = files[LOG].chunks(SECTOR).filter(|sector| !blank(sector)).map(number).max().expect("a write");
            for sector in files[LOG].chunks_mut(SECTOR) {
                if number(sector) == last {
                    sector.fill(0xA5);
                }
            }
        }))
    }

    fn rot_state(&mut self, disk: &Shared) -> (Vec<Shared>, Vec<Shared>) {
        let slot = |at: usize| (8 + at * 2048) * SECTOR;
        let rot =
            |slots: &[usize]| disk.copy_with(|files| slots.iter().for_each(|&at| files[STATE][slot(at) + 40] ^= 1));
        let one = (0..4).map(|at| rot(&[at]));
        let across = [(0, 2), (0, 3), (1, 2), (1, 3)].map(|(a, b)| rot(&[a, b]));
        let superblock = disk.copy_with(|files| files[STATE][3] ^= 1);
        let survived = one.chain(across).chain([superblock]).collect();
        let all = rot(&[0, 1, 2, 3]);
        let superblocks = disk.copy_with(|files| {
            files[STATE][20] ^= 1;
            files[STATE][LAST_PAGE * SECTOR + 20] ^= 1;
        });
        (survived, vec![rot(&[0, 1]), rot(&[2, 3]), all, superblocks])
    }

    fn fail_next(&mut self, disk: &Shared) -> bool {
        disk.lock().fail = true;
        true
    }
}

fn persist(files: &mut [Vec<u8>; 2], step: &Step) {
    if let Step::Sector { file, at, bytes } = step {
        put(&mut files[*file], *at, bytes);
    }
}

fn subsets(synced: &[Vec<u8>; 2], open: &[Step], random: &mut Random) -> Vec<Shared> {
    let mut out = Vec::new();
    let mut crash = |keep: &dyn Fn(usize) -> bool| {
        let mut files = synced.clone();
        for (at, step) in open.iter().enumerate() {
            if keep(at) {
                persist(&mut files, step);
            }
        }
        // A file that grew past a hole of sectors that were never written has zeros there.
        out.push(Shared::of(files));
    };
    if open.len() > 40 {
        // A long write: some prefixes are enough.
        for _ in 0..6 {
            let len = random.below(open.len() as u64) as usize;
            crash(&|at| at < len);
        }
    } else {
        for at in 0..=open.len() {
            crash(&|step| step < at);
            crash(&|step| step != at);
            crash(&|step| step == at);
        }
    }
    for _ in 0..4 {
        let mask = random.next_u64();
        crash(&|at| mask >> (at % 64) & 1 == 1);
    }
    out
}

vsr_sim::storage_conformance!(Files::default(), crashes, lost_tail, damage, state_copies, poison, format, limit);

/// Hazard SF-19: an older copy of the state file is put back while the log is newer.
#[test]
fn sf_19_an_older_state_is_not_taken_for_the_newest() {
    use futures::executor::block_on;
    use vsr::Storage;
    use vsr::protocol::{Batch, OpNumber};
    let mut disks = Files::default();
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let mut state = config.formatted_state();
    let disk = disks.format(&state, 1 << 20);
    let old = disk.lock().files[STATE].clone();
    let storage = disks.open(&disk).expect("opening");
    block_on(storage.recover()).expect("recovering");
    state.view = state.view.next();
    block_on(storage.write(Batch { state: Some(state), ..Batch::default() })).expect("a state");
    // A truncation alone leaves a record of its own.
    let batch = Batch { truncate_above: Some(OpNumber(0)), ..Batch::default() };
    block_on(storage.write(batch)).expect("a record");
    drop(storage);
    disk.lock().files[STATE] = old;
    let storage = disks.open(&disk).expect("opening");
    assert!(matches!(block_on(storage.recover()), Err(StorageError::StateLost(_))));
}

/// Hazard SF-06: a write that lands on another place is found there, and missed here.
#[test]
fn sf_06_a_misdirected_sector_is_found() {
    use futures::executor::block_on;
    use vsr::Storage;
    use vsr::protocol::Slot;
    let mut disks = Files::default();
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let disk = disks.format(&config.formatted_state(), 1 << 20);
    // Two records of one op each, through the storage itself.
    let storage = disks.open(&disk).expect("opening");
    block_on(storage.recover()).expect("recovering");
    for op in 1..=3 {
        let entry = entry(op);
        block_on(storage.write(vsr::protocol::Batch { entries: vec![entry], ..vsr::protocol::Batch::default() }))
            .expect("a put");
    }
    drop(storage);
    let misdirected = disk.copy_with(|files| {
        let of = |sector: &[u8]| u64::from_le_bytes(sector[488..496].try_into().expect("eight bytes"));
        let mut writes: Vec<u64> = files[LOG].chunks(SECTOR).map(of).filter(|&write| write > 0).collect();
        writes.dedup();
        let first = |write: u64| files[LOG].chunks(SECTOR).position(|sector| of(sector) == write);
        let at = |write: usize| first(writes[write]).expect("the write is there") * SECTOR;
        let (from, to) = (at(0), at(1));
        let moved = files[LOG][from + SECTOR..from + 2 * SECTOR].to_vec();
        files[LOG][to + SECTOR..to + 2 * SECTOR].copy_from_slice(&moved);
    });
    let storage = disks.open(&misdirected).expect("opening");
    let recovered = block_on(storage.recover()).expect("recovering");
    assert!(matches!(recovered.slots[0], Slot::Clean(_)));
    assert!(matches!(recovered.slots[1], Slot::Corrupt(_)), "{:?}", recovered.slots[1]);
    assert!(matches!(recovered.slots[2], Slot::Clean(_)));
}

fn entry(op: u64) -> Entry {
    let body = bytes::Bytes::from(vec![op as u8; 1500]);
    vsr_sim::conformance::storage::entry(op, 0, vsr::Checksum(op.into()), body)
}

/// Hazard RC-14, clause 12: real folders.
#[test]
fn a_folder_is_formatted_once_and_opened_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("replica");
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    assert!(matches!(FileStorage::open(&path), Err(StorageError::NotFormatted(_))));
    FileStorage::format(&path, &config).expect("formatting");
    assert!(matches!(FileStorage::format(&path, &config), Err(StorageError::NotEmpty(_))));
    let storage = FileStorage::open(&path).expect("opening");
    assert!(matches!(FileStorage::open(&path), Err(StorageError::InUse(_))));
    drop(storage);
    FileStorage::open(&path).expect("opening again");
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).expect("a folder");
    std::fs::write(foreign.join("precious"), "data").expect("a file");
    assert!(matches!(FileStorage::format(&foreign, &config), Err(StorageError::NotEmpty(_))));
}

/// A disk of a later version says so.
#[test]
fn another_format_version_is_refused_in_words() {
    let mut disks = Files::default();
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let disk = disks.format(&config.formatted_state(), 1 << 20);
    for copy in [0, LAST_PAGE] {
        let mut world = disk.lock();
        let sector = &mut world.files[STATE][copy * SECTOR..(copy + 1) * SECTOR];
        sector[8] = 9;
        let seed = 0x7673_7220_6469_736b_u64.wrapping_add(copy as u64);
        let checksum = xxhash_rust::xxh3::xxh3_64_with_seed(&sector[..504], seed);
        sector[504..].copy_from_slice(&checksum.to_le_bytes());
    }
    let opened = disks.open(&disk).map(|_| ());
    assert_eq!(opened, Err(StorageError::Version { path: "the disk under test".to_owned(), found: 9, known: 4 }));
}

/// Hazard SF-13: the disk has no space for a while, then it has.
#[test]
fn sf_13_a_full_disk_is_an_error_and_nothing_is_lost() {
    use futures::executor::block_on;
    use vsr::Storage;
    use vsr::protocol::{Batch, OpNumber};
    let mut disks = Files::default();
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let disk = disks.format(&config.formatted_state(), 64 << 20);
    let storage = disks.open(&disk).expect("opening");
    block_on(storage.recover()).expect("recovering");
    disk.lock().space = Some(1 << 17);
    let put = |op: u64| block_on(storage.write(Batch { entries: vec![entry(op)], ..Batch::default() }));
    let full = (1..).find(|&op| put(op).is_err()).expect("it is full at some op");
    assert!(full > 10, "the prepared extent was to be used first");
    assert!(matches!(put(full), Err(StorageError::Full { .. })));
    let read = block_on(storage.read(OpNumber(1)..=OpNumber(full), usize::MAX)).expect("reading");
    assert!(read.iter().take(full as usize - 1).all(|(_, entry)| entry.is_some()));
    disk.lock().space = None;
    put(full).expect("there is space again");
    drop(storage);
    let recovered = block_on(disks.open(&disk).expect("opening").recover()).expect("recovering");
    assert_eq!(recovered.slots.len() as u64, full);
    assert!(recovered.head_certain);
}
