//! A folder of simulated files: what is on the disk, what only the page cache has, and what harm can be done.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use vsr::protocol::{OpNumber, Random, VsrState};
use vsr_storage_file::medium::Medium;

use super::pages::{PAGE, Pages, SECTOR, SECTORS_PER_PAGE, pieces};

/// Where a replica keeps its files in the simulated world. It stands for one disk; a clone is the same disk.
///
/// What is written is readable at once, and on the disk when its file was synced. Power may be lost between any two
/// steps, and of what was not synced any subset of the sectors survives. A killed process leaves everything in the
/// page cache, synced or not. After a failed sync what was written stays readable until power is lost, and a later
/// sync does not write it (Rebello et al., ATC 2020).
#[derive(Clone)]
pub struct SimFolder(Arc<Mutex<Disk>>);

/// One file of a [`SimFolder`].
#[derive(Clone)]
pub struct SimFile {
    folder: SimFolder,
    file: usize,
}

/// Which of the unsynced sectors survive a power loss, in the order in which they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// This many, from the first on.
    First(u64),
    /// Only the one at this place, from 0.
    Only(u64),
    /// All but the one at this place, from 0.
    AllBut(u64),
    /// Some of them, drawn from this number.
    Some(u64),
}

/// What can happen to a sector that was once written well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Harm {
    /// One bit flips.
    Flip(u32),
    /// It reads as zeros.
    Zero,
    /// It reads as these bytes: another sector's, or another disk's.
    Content(Vec<u8>),
    /// Its page cannot be read. `stays`: not after it was written again, either.
    Unreadable {
        /// Writing it again does not help.
        stays: bool,
    },
}

/// A sector of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, by the order in which they were made.
    pub file: usize,
    /// The sector.
    pub sector: u64,
}

/// What a write would leave behind if it had never come.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    place: Place,
    bytes: [u8; SECTOR],
    tag: u32,
    by: u32,
}

impl Lost {
    pub(crate) fn place(&self) -> Place {
        self.place
    }
}

#[derive(Clone)]
struct Write {
    file: usize,
    offset: u64,
    bytes: Bytes,
    tag: u32,
}

#[derive(Clone)]
enum Step {
    Write(Write),
    Sync {
        file: usize,
    },
    /// Some sectors went to the disk; the rest is readable, and forgotten.
    FailedSync {
        file: usize,
        salt: u64,
    },
}

#[derive(Clone)]
struct File {
    name: String,
    /// What reads give.
    cached: Pages,
    /// What is on the disk.
    durable: Pages,
    /// Readable, not on the disk, and never written by a sync: by offset.
    forgotten: BTreeMap<u64, (Bytes, u32)>,
    /// Sectors whose pages cannot be read; `true`: not after a write, either.
    unreadable: BTreeMap<u64, bool>,
    /// Sectors that the content of another place was put into. Never taken back: a write to one may be lost.
    displaced: BTreeSet<u64>,
}

impl File {
    /// A sync fails: some pieces of a write are on the disk, the others stay readable, and no later sync writes them.
    fn sync_in_part(&mut self, write: &Write, random: &mut Random) {
        for (offset, bytes) in pieces(write.offset, &write.bytes) {
            if random.chance(1, 2) {
                self.durable.write(offset, bytes, write.tag);
            } else {
                self.forgotten.insert(offset, (Bytes::copy_from_slice(bytes), write.tag));
            }
        }
    }

    /// Something is written into a page that cannot be read: it can be again, unless that stays, but what was in the
    /// unreadable sectors is gone.
    fn write_to_unreadable(&mut self, offset: u64, end: u64) {
        let per_page = SECTORS_PER_PAGE as u64;
        let pages = offset / PAGE as u64 * per_page..end.div_ceil(PAGE as u64) * per_page;
        let File { cached, durable, unreadable, .. } = self;
        unreadable.retain(|sector, stays| {
            let healed = !*stays && pages.contains(sector);
            if healed {
                cached.put_sector(*sector, &[0; SECTOR], cached.tag(*sector));
                durable.put_sector(*sector, &[0; SECTOR], durable.tag(*sector));
            }
            !healed
        });
    }
}

#[derive(Clone)]
struct Disk {
    first: VsrState,
    new: bool,
    /// It is being formatted, and nothing can happen to it meanwhile.
    formatting: bool,
    files: Vec<File>,
    /// What was done since it was last settled.
    journal: Vec<Step>,
    /// The write that is being made; 0 between writes.
    tag: u32,
    /// The ops of each write.
    ops: Vec<Vec<OpNumber>>,
    /// No file can grow.
    full: bool,
    /// No sync of this file finds room, though the writes before it did: the file system copies on write, or asks for room late.
    syncs_full: Option<usize>,
    /// So many syncs succeed, then one fails.
    failing: Option<(u32, u64)>,
    /// A second without a write has passed, and the storage has not looked yet.
    idle_second: bool,
}

impl Disk {
    /// Lets the first steps of the journal happen; what of them was not synced.
    fn replay(&mut self, steps: usize) -> Vec<Write> {
        let mut open: Vec<Write> = Vec::new();
        let done: Vec<Step> = self.journal.drain(..steps.min(self.journal.len())).collect();
        for step in done {
            match step {
                Step::Write(write) => {
                    let forgotten = &mut self.files[write.file].forgotten;
                    if !forgotten.is_empty() {
                        let sector = SECTOR as u64;
                        let first = write.offset / sector * sector;
                        let end = (write.offset + write.bytes.len() as u64).next_multiple_of(sector);
                        forgotten.retain(|offset, _| *offset < first || *offset >= end);
                    }
                    open.push(write);
                }
                Step::Sync { file } => {
                    for write in open.extract_if(.., |write| write.file == file) {
                        self.files[file].durable.write(write.offset, &write.bytes, write.tag);
                    }
                }
                Step::FailedSync { file, salt } => {
                    let mut random = Random::new(salt);
                    for write in open.extract_if(.., |write| write.file == file) {
                        self.files[file].sync_in_part(&write, &mut random);
                    }
                }
            }
        }
        open
    }

    fn put(&mut self, place: Place, bytes: &[u8], tag: u32) {
        let file = &mut self.files[place.file];
        file.cached.put_sector(place.sector, bytes, tag);
        file.durable.put_sector(place.sector, bytes, tag);
    }
}

impl SimFolder {
    /// An empty disk, to be formatted with this state.
    #[must_use]
    pub fn new(first: VsrState) -> SimFolder {
        SimFolder(Arc::new(Mutex::new(Disk {
            first,
            new: true,
            formatting: false,
            files: Vec::new(),
            journal: Vec::new(),
            tag: 0,
            ops: vec![Vec::new()],
            full: false,
            syncs_full: None,
            failing: None,
            idle_second: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- for a storage ----

    /// Whether it was never formatted.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.lock().new
    }

    /// The vsr state that a new disk is formatted with.
    #[must_use]
    pub fn first_state(&self) -> VsrState {
        self.lock().first.clone()
    }

    /// The file of a name; an empty one is made if there is none.
    #[must_use]
    pub fn file(&self, name: &str) -> SimFile {
        let mut disk = self.lock();
        let known = disk.files.iter().position(|file| file.name == name);
        let file = known.unwrap_or_else(|| {
            disk.files.push(File {
                name: name.to_owned(),
                cached: Pages::new(),
                durable: Pages::new(),
                forgotten: BTreeMap::new(),
                unreadable: BTreeMap::new(),
                displaced: BTreeSet::new(),
            });
            disk.files.len() - 1
        });
        drop(disk);
        SimFile { folder: self.clone(), file }
    }

    /// Whether a second without a write has passed since this was asked last: then a storage on threads would look after itself
    /// ([`BlockingWriter::after_write`](vsr::threaded::BlockingWriter::after_write)).
    #[must_use]
    pub fn take_idle_second(&self) -> bool {
        std::mem::take(&mut self.lock().idle_second)
    }

    // ---- for tests of a storage ----

    /// The disk was formatted: everything so far is on it.
    pub fn formatted(&self) {
        let mut disk = self.lock();
        disk.new = false;
        if std::mem::take(&mut disk.formatting) {
            disk.files.iter_mut().for_each(|file| file.durable = file.cached.clone());
        }
        let open = disk.replay(usize::MAX);
        for write in open {
            disk.files[write.file].durable.write(write.offset, &write.bytes, write.tag);
        }
    }

    /// A disk that this storage has formatted, and nothing has happened to it meanwhile: what was written is no step.
    pub(crate) fn formatted_by<S, E>(
        first: VsrState,
        open: impl FnOnce(SimFolder) -> Result<S, E>,
    ) -> Result<SimFolder, E> {
        let folder = SimFolder::new(first);
        folder.lock().formatting = true;
        drop(open(folder.clone())?);
        folder.formatted();
        Ok(folder)
    }

    /// Another disk with the same content, and the same steps under way.
    #[must_use]
    pub fn fork(&self) -> SimFolder {
        SimFolder(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// A write of these ops begins: the sectors written from now on are its. Its number.
    pub fn begin(&self, ops: Vec<OpNumber>) -> u32 {
        let mut disk = self.lock();
        disk.ops.push(ops);
        disk.tag = (disk.ops.len() - 1) as u32;
        disk.tag
    }

    /// What is written from now on belongs to no write.
    pub fn idle(&self) {
        self.lock().tag = 0;
    }

    /// The number of the last write.
    #[must_use]
    pub fn writes(&self) -> u32 {
        (self.lock().ops.len() - 1) as u32
    }

    /// The ops of a write.
    #[must_use]
    pub fn ops(&self, write: u32) -> Vec<OpNumber> {
        self.lock().ops.get(write as usize).cloned().unwrap_or_default()
    }

    /// The last write of an op of which a sector is still on the disk.
    #[must_use]
    pub fn last_write_of(&self, op: OpNumber) -> Option<u32> {
        let disk = self.lock();
        let writes = disk.ops.iter().enumerate().rev().filter(|(_, ops)| ops.contains(&op)).map(|(at, _)| at as u32);
        let is_there = |write: &u32| disk.files.iter().any(|file| file.durable.written_by(*write).next().is_some());
        let mut writes = writes;
        writes.find(is_there)
    }

    /// The sectors that a write has left on the disk.
    #[must_use]
    pub fn places(&self, write: u32) -> Vec<Place> {
        let disk = self.lock();
        let files = disk.files.iter().enumerate();
        files.flat_map(|(file, of)| of.durable.written_by(write).map(move |sector| Place { file, sector })).collect()
    }

    /// The sectors that each write of ops has left in a file, by the number of the write.
    pub(crate) fn records(&self, file: usize) -> BTreeMap<u32, Vec<u64>> {
        let disk = self.lock();
        let mut records: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let Some(File { durable, .. }) = disk.files.get(file) else { return records };
        for sector in 0..durable.sectors() {
            let write = durable.tag(sector);
            if disk.ops.get(write as usize).is_some_and(|ops| !ops.is_empty()) {
                records.entry(write).or_default().push(sector);
            }
        }
        records
    }

    /// Whether the storage has gone on behind the page of this sector: what becomes unreadable for good is where nothing
    /// is written any more.
    #[must_use]
    pub fn is_left_behind(&self, place: Place) -> bool {
        let disk = self.lock();
        let durable = &disk.files[place.file].durable;
        let next_page = (place.sector / SECTORS_PER_PAGE as u64 + 1) * SECTORS_PER_PAGE as u64;
        (next_page..durable.sectors()).any(|sector| durable.tag(sector) != 0)
    }

    /// How many files there are.
    #[must_use]
    pub fn files(&self) -> usize {
        self.lock().files.len()
    }

    /// The length of a file, on the disk, in bytes.
    #[must_use]
    pub fn len(&self, file: usize) -> u64 {
        self.lock().files.get(file).map_or(0, |file| file.durable.len())
    }

    /// Whether every file on the disk is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().files.iter().all(|file| file.durable.len() == 0)
    }

    /// The sectors of a file on the disk.
    #[must_use]
    pub fn sectors(&self, file: usize) -> u64 {
        self.lock().files.get(file).map_or(0, |file| file.durable.sectors())
    }

    /// What stands in a sector on the disk.
    #[must_use]
    pub fn sector(&self, place: Place) -> [u8; SECTOR] {
        self.lock().files[place.file].durable.sector(place.sector)
    }

    /// Whether content of another place was once put into this sector. It may have been the content of any other sector,
    /// and in that one it would be valid: put back there, it is a write that was lost, and no storage can tell.
    pub(super) fn is_displaced(&self, place: Place) -> bool {
        self.lock().files[place.file].displaced.contains(&place.sector)
    }

    /// The write that a sector was last written by; 0 for none that has ops.
    #[must_use]
    pub fn write_at(&self, place: Place) -> u32 {
        self.lock().files[place.file].durable.tag(place.sector)
    }

    /// Steps, writes and syncs, since the disk was last settled.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.lock().journal.len()
    }

    /// Sectors among the unsynced of the first so many steps.
    #[must_use]
    pub fn unsynced(&self, steps: usize) -> u64 {
        let disk = self.lock();
        let mut open: Vec<(usize, u64)> = Vec::new();
        for step in disk.journal.iter().take(steps) {
            match step {
                Step::Write(write) => open.push((write.file, pieces(write.offset, &write.bytes).count() as u64)),
                Step::Sync { file: synced } | Step::FailedSync { file: synced, .. } => {
                    open.retain(|(file, _)| file != synced);
                }
            }
        }
        open.iter().map(|(_, sectors)| sectors).sum()
    }

    /// How many files the steps since the disk was settled have written to.
    #[must_use]
    pub fn files_written(&self) -> usize {
        let disk = self.lock();
        let written = disk.journal.iter().filter_map(|step| match step {
            Step::Write(write) => Some(write.file),
            _ => None,
        });
        written.collect::<BTreeSet<_>>().len()
    }

    /// Whether everything that can be read is on the disk.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let disk = self.lock();
        disk.journal.is_empty() && disk.files.iter().all(|file| file.forgotten.is_empty())
    }

    /// All steps have happened, what was synced is on the disk.
    pub fn settle(&self) {
        let mut disk = self.lock();
        let open = disk.replay(usize::MAX);
        disk.journal = open.into_iter().map(Step::Write).collect();
    }

    /// Power is lost after the first so many steps.
    pub fn power_loss(&self, steps: usize, kept: Kept) {
        let mut disk = self.lock();
        let disk = &mut *disk;
        let open = disk.replay(steps);
        let mut random = Random::new(if let Kept::Some(salt) = kept { salt } else { 0 });
        let mut nth = 0;
        for write in &open {
            for (offset, bytes) in pieces(write.offset, &write.bytes) {
                let keep = match kept {
                    Kept::Nothing => false,
                    Kept::Everything => true,
                    Kept::First(count) => nth < count,
                    Kept::Only(one) => nth == one,
                    Kept::AllBut(one) => nth != one,
                    Kept::Some(_) => random.chance(1, 2),
                };
                nth += 1;
                if keep {
                    disk.files[write.file].durable.write(offset, bytes, write.tag);
                }
            }
        }
        disk.journal.clear();
        (disk.tag, disk.failing) = (0, None);
        for file in &mut disk.files {
            file.cached.become_like(&file.durable);
            file.forgotten.clear();
        }
    }

    /// The process is killed after the first so many steps: the page cache keeps what it has.
    pub fn kill(&self, steps: usize) {
        let mut disk = self.lock();
        let disk = &mut *disk;
        let open = disk.replay(steps);
        (disk.tag, disk.failing) = (0, None);
        for file in &mut disk.files {
            file.cached.become_like(&file.durable);
            for (offset, (bytes, tag)) in &file.forgotten {
                file.cached.write(*offset, bytes, *tag);
            }
        }
        for write in &open {
            disk.files[write.file].cached.write(write.offset, &write.bytes, write.tag);
        }
        disk.journal = open.into_iter().map(Step::Write).collect();
    }

    /// The first sync under way fails, and the process ends with it.
    pub fn fail_first_sync(&self, salt: u64) {
        let mut disk = self.lock();
        let first = disk.journal.iter().position(|step| matches!(step, Step::Sync { .. }));
        if let Some(at) = first
            && let Step::Sync { file } = disk.journal[at]
        {
            disk.journal.truncate(at);
            disk.journal.push(Step::FailedSync { file, salt });
        }
        drop(disk);
        self.kill(usize::MAX);
    }

    /// The next `after` syncs succeed, then one fails. `salt` decides what of it is on the disk.
    pub fn fail_sync(&self, after: u32, salt: u64) {
        self.lock().failing = Some((after, salt));
    }

    /// Whether a file can grow.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Every sync of this file fails for want of room. What was written since the one before stays readable, as after any failed sync.
    pub fn set_syncs_full(&self, file: Option<usize>) {
        self.lock().syncs_full = file;
    }

    /// Whether the syncs of some file find no room.
    pub(crate) fn drops_what_it_takes(&self) -> bool {
        self.lock().syncs_full.is_some()
    }

    /// A second passes without a write.
    pub fn pass_idle_second(&self) {
        self.lock().idle_second = true;
    }

    /// Every step since the disk was settled was reported as done, and never came to it.
    pub fn lose_steps(&self) {
        let mut disk = self.lock();
        disk.journal.clear();
        for file in &mut disk.files {
            file.cached.become_like(&file.durable);
        }
    }

    /// What stands on the disk where the last write of the journal goes.
    pub(crate) fn under_last_write(&self) -> Vec<Lost> {
        let disk = self.lock();
        let last = disk.journal.iter().rev().find_map(|step| match step {
            Step::Write(write) if write.tag != 0 => Some(write),
            _ => None,
        });
        let Some(Write { file, offset, bytes, tag }) = last else { return Vec::new() };
        let durable = &disk.files[*file].durable;
        let first = offset / SECTOR as u64;
        let sectors = first..(offset + bytes.len() as u64).div_ceil(SECTOR as u64);
        let lost = sectors.map(|sector| Lost {
            place: Place { file: *file, sector },
            bytes: durable.sector(sector),
            tag: durable.tag(sector),
            by: *tag,
        });
        lost.collect()
    }

    /// A write that was reported as done is not there; its ops.
    pub(crate) fn lose(&self, lost: &[Lost]) -> Vec<OpNumber> {
        let mut disk = self.lock();
        for Lost { place, bytes, tag, by } in lost {
            // What was written over it since is.
            if disk.files[place.file].durable.tag(place.sector) == *by {
                disk.put(*place, bytes, *tag);
            }
        }
        lost.first().and_then(|lost| disk.ops.get(lost.by as usize).cloned()).unwrap_or_default()
    }

    /// Harms one sector, on the disk and in the cache.
    pub fn harm(&self, place: Place, harm: &Harm) {
        let mut disk = self.lock();
        let tag = disk.files[place.file].durable.tag(place.sector);
        let mut bytes = disk.files[place.file].durable.sector(place.sector);
        match harm {
            Harm::Flip(bit) => {
                let bit = *bit as usize % (SECTOR * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Harm::Zero => bytes = [0; SECTOR],
            Harm::Content(content) => {
                let take = content.len().min(SECTOR);
                bytes[..take].copy_from_slice(&content[..take]);
                disk.files[place.file].displaced.insert(place.sector);
            }
            Harm::Unreadable { stays } => {
                disk.files[place.file].unreadable.insert(place.sector, *stays);
                return;
            }
        }
        disk.put(place, &bytes, tag);
    }

    /// Cuts a file off, or appends zeros.
    pub fn set_len(&self, file: usize, len: u64) {
        let mut disk = self.lock();
        let file = &mut disk.files[file];
        file.durable.set_len(len);
        file.cached.become_like(&file.durable);
    }

    /// A file of another disk stands in the place of this one's.
    pub fn replace(&self, file: usize, other: &SimFolder) {
        let of_other = other.lock().files[file].durable.clone();
        let mut disk = self.lock();
        let file = &mut disk.files[file];
        (file.cached, file.durable) = (of_other.clone(), of_other);
    }
}

impl std::fmt::Debug for SimFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let disk = self.lock();
        let files = disk.files.iter().map(|file| (&file.name, file.durable.len()));
        f.debug_struct("SimFolder").field("files", &files.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.folder.lock().files[self.file].name)
    }
}

/// What the operating system says when the disk cannot (`EIO`).
fn io_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Medium for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            // An operating system does not ask the disk for nothing: the page at `offset` may be unreadable.
            return Ok(());
        }
        let disk = self.folder.lock();
        let file = &disk.files[self.file];
        if !file.unreadable.is_empty() {
            let (first, end) = (offset / PAGE as u64, (offset + buf.len() as u64).div_ceil(PAGE as u64));
            let per_page = SECTORS_PER_PAGE as u64;
            if file.unreadable.range(first * per_page..end.max(first) * per_page).next().is_some() {
                return Err(io_error());
            }
        }
        if file.cached.read(buf, offset) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.folder.lock();
        let disk = &mut *disk;
        let file = &mut disk.files[self.file];
        let end = offset + bytes.len() as u64;
        if disk.full && end > file.cached.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if disk.formatting {
            // Not a step: all of it is on the disk once that is formatted.
            file.cached.write(offset, bytes, disk.tag);
            return Ok(());
        }
        file.write_to_unreadable(offset, end);
        // What stands there already stays the write's that put it: a start may write anew what it relies on.
        let mut runs: Vec<(u64, usize, u32)> = Vec::new();
        for (at, piece) in pieces(offset, bytes) {
            let tag = if file.cached.holds(at, piece) { file.cached.tag(at / SECTOR as u64) } else { disk.tag };
            match runs.last_mut() {
                Some((_, len, of)) if *of == tag => *len += piece.len(),
                _ => runs.push((at, piece.len(), tag)),
            }
        }
        let mut rest = bytes;
        for (offset, len, tag) in runs {
            let (bytes, more) = rest.split_at(len);
            rest = more;
            file.cached.write(offset, bytes, tag);
            let bytes = Bytes::copy_from_slice(bytes);
            disk.journal.push(Step::Write(Write { file: self.file, offset, bytes, tag }));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.folder.lock();
        if disk.syncs_full == Some(self.file) {
            let salt = disk.journal.len() as u64;
            disk.journal.push(Step::FailedSync { file: self.file, salt });
            return Err(io::ErrorKind::StorageFull.into());
        }
        match disk.failing {
            Some((0, salt)) => {
                disk.failing = None;
                disk.journal.push(Step::FailedSync { file: self.file, salt });
                return Err(io_error());
            }
            Some((after, salt)) => disk.failing = Some((after - 1, salt)),
            None => {}
        }
        if !disk.formatting {
            disk.journal.push(Step::Sync { file: self.file });
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.folder.lock().files[self.file].cached.len())
    }
}

#[cfg(test)]
mod tests {
    use vsr::protocol::DiskId;
    use vsr::{ClusterId, Membership, ReplicaId};

    use super::*;

    fn first() -> VsrState {
        let membership = Membership::new(["a", "b", "c"]).unwrap();
        VsrState::formatted(ClusterId(1), ReplicaId(0), DiskId(7), membership)
    }

    #[test]
    fn what_formats_a_disk_is_on_it_and_what_is_written_later_is_a_step() {
        let format = |folder: SimFolder| {
            let written = folder.file("f").write_at(&[1; SECTOR], 0);
            assert_eq!(folder.steps(), 0);
            // It was not synced.
            written
        };
        let folder = SimFolder::formatted_by(first(), format).unwrap();
        let file = folder.file("f");
        assert!(!folder.is_new() && folder.is_settled());
        file.write_at(&[2; SECTOR], 0).unwrap();
        file.sync().unwrap();
        assert_eq!(folder.steps(), 2);
        folder.power_loss(1, Kept::Nothing);
        let mut found = [0; SECTOR];
        file.read_at(&mut found, 0).unwrap();
        assert_eq!(found, [1; SECTOR]);
    }

    #[test]
    fn power_may_be_lost_while_a_disk_is_formatted_that_was_not_said_to_be() {
        let folder = SimFolder::new(first());
        let file = folder.file("f");
        file.write_at(&[1; SECTOR], 0).unwrap();
        assert_eq!(folder.steps(), 1);
        folder.power_loss(usize::MAX, Kept::Nothing);
        assert_eq!((file.len().unwrap(), folder.is_new()), (0, true));
    }
}
