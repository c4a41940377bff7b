//! The two files as one [`Storage`].

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use vsr::checkpoints::CheckpointFolder;
use vsr::config::FormatFor;
use vsr::protocol::{Batch, CheckpointId, Entry, OpNumber, Recovered, Slot, VsrState};
use vsr::storage::{CheckpointReader, StorageError};
use vsr::threaded::{BlockingReader, BlockingWriter, Entries, ThreadedStorage};
use vsr::{Config, Snapshot, Storage};

use crate::io_error;
use crate::log::{Append, LogFile, Place, read};
use crate::medium::{Disk, Medium, PAGE, PAGE_SECTORS};
use crate::ranges::LostSlots;
use crate::ring::Ring;
use crate::scan::AHEAD;
use crate::sector::SECTOR;
use crate::site::Site;
use crate::slots::Slots;
use crate::state::{Reach, StateFile, StateRecord, Superblock};

/// What is decided when a disk is formatted. Made by `FileOptions::default()`, and changed field by field, or by
/// [`with`](FileOptions::with); later versions have more fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileOptions {
    /// Bytes that the log may grow to. Default 1 GiB; at least
    /// [`Constants::log_room_min`](vsr::protocol::Constants::log_room_min). At the limit requests get a typed error.
    pub log_limit: u64,
    /// Bytes by which the log grows, doubling up to 64 MiB. Default 4 MiB.
    pub extent: u64,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions { log_limit: 1 << 30, extent: 4 << 20 }
    }
}

impl FileOptions {
    /// These options with a change: `FileOptions::default().with(|options| options.log_limit = 4 << 30)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut FileOptions)) -> FileOptions {
        change(&mut self);
        self
    }
}

/// The folder of the checkpoints, in that of the storage. Made with the first of them.
pub(crate) const CHECKPOINTS: &str = "checkpoints";

const EXTENT_MAX: u64 = 64 << 20;
/// Growth happens in steps of this size, so that a write in between waits for no more.
const GROWTH_STEP: u64 = 1 << 20;
/// Records after which the reach of those that replace entries is taken back, by one more write of the state.
const REACHING_RECORDS: u64 = 64;

/// Storage in a folder of its own. Its work is done by threads of its own; dropping it waits for the
/// write under way, unless that hangs: then the folder stays in use until the disk answers.
#[derive(Debug)]
pub struct FileStorage {
    threads: ThreadedStorage,
    /// `None` on any other medium than the files of a folder.
    checkpoints: Option<CheckpointFolder>,
}

/// Where the entries are: written by the writer, looked up by the reader.
#[derive(Clone, Default)]
struct Index(Arc<Mutex<Slots>>);

impl Index {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileStorage {
    /// Prepares a folder for a replica, with default options. Done once; [`open`](Self::open) never
    /// creates anything.
    ///
    /// # Errors
    /// When something is there already, the disk refuses, [`StorageError::Config`],
    /// [`StorageError::StateTooLarge`] or [`StorageError::LogTooSmall`].
    pub fn format(folder: impl AsRef<Path>, config: &Config) -> Result<(), StorageError> {
        FileStorage::format_with(folder, config, FileOptions::default())
    }

    /// As [`format`](Self::format), with options.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub fn format_with(folder: impl AsRef<Path>, config: &Config, options: FileOptions) -> Result<(), StorageError> {
        FileStorage::format_for(folder, config, FormatFor::NewCluster, options)
    }

    /// As [`format_with`](Self::format_with), for a disk that may begin otherwise than that of a new cluster.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub fn format_for(
        folder: impl AsRef<Path>,
        config: &Config,
        purpose: FormatFor,
        options: FileOptions,
    ) -> Result<(), StorageError> {
        config.validate()?;
        FileStorage::format_first(folder.as_ref(), &config.first_state(purpose)?, options)
    }

    fn format_first(folder: &Path, first: &VsrState, options: FileOptions) -> Result<(), StorageError> {
        StateRecord::check_room(first)?;
        let (limit, needed) = (options.log_limit, first.membership.constants.log_room_min());
        if limit < needed {
            return Err(StorageError::LogTooSmall { limit, needed });
        }
        let failed = io_error(format!("formatting {}", folder.display()));
        fs::create_dir_all(folder).map_err(&failed)?;
        let mut names = Vec::new();
        for found in fs::read_dir(folder).map_err(&failed)? {
            names.push(found.map_err(&failed)?.file_name());
        }
        // `state.new` is made first: with it there, an interrupted format has left the rest. A log alone is that of
        // a replica whose state is gone.
        let is_interrupted = names.iter().any(|name| name == "state.new");
        if !names.iter().all(|name| is_interrupted && (name == "log" || name == "state.new")) {
            return Err(StorageError::NotEmpty(folder.display().to_string()));
        }
        let state = Disk::create(&folder.join("state.new")).map_err(&failed)?;
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(&failed)?;
        let log = Disk::create(&folder.join("log")).map_err(&failed)?;
        let site = site(&log, &state)?;
        format(&log, &state, first, options, Some(&site))?;
        fs::rename(folder.join("state.new"), folder.join("state")).map_err(&failed)?;
        let mut sync = Some(folder);
        while let Some(path) = sync.take() {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(&failed)?;
            sync = (path == folder).then(|| folder.parent()).flatten();
        }
        Ok(())
    }

    /// Opens what [`format`](Self::format) has made.
    ///
    /// # Errors
    /// [`StorageError::NotFormatted`] where nothing is, [`StorageError::Missing`] and [`StorageError::Damaged`]
    /// where something was, [`StorageError::Version`], [`StorageError::InUse`] by another process,
    /// [`StorageError::OtherPlace`] for a copy, or the disk's refusal.
    pub fn open(folder: impl AsRef<Path>) -> Result<FileStorage, StorageError> {
        let (log, state, name) = open_files(folder.as_ref())?;
        let site = site(&log, &state)?;
        let (writer, reader) = parts(log, state, &name)?;
        writer.check_site(&site)?;
        let threads = ThreadedStorage::start(writer, reader)?;
        Ok(FileStorage { threads, checkpoints: Some(CheckpointFolder::new(folder.as_ref().join(CHECKPOINTS))) })
    }

    /// Makes a folder that was copied, restored or moved to another file system the replica's own, on purpose:
    /// without it [`open`](Self::open) says [`StorageError::OtherPlace`]. Only right if this is the only copy that
    /// will ever run, and nothing ran on the original since the copy was made: else the replica has forgotten
    /// what it acknowledged, and needs a new disk ([`format_for`](Self::format_for)).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn accept_place(folder: impl AsRef<Path>) -> Result<(), StorageError> {
        let (log, state, name) = open_files(folder.as_ref())?;
        let site = site(&log, &state)?;
        open_state(&log, state, &name)?.0.write_site(&site)
    }

    /// Opens on any medium; `name` stands in error messages. For tests.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on<M: Medium>(log: M, state: M, name: &str) -> Result<FileStorage, StorageError> {
        let (writer, reader) = parts(log, state, name)?;
        Ok(FileStorage { threads: ThreadedStorage::start(writer, reader)?, checkpoints: None })
    }

    /// Formats any medium, with a log as small as is asked for. For tests.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub fn format_on<M: Medium>(
        log: &M,
        state: &M,
        first: &VsrState,
        options: FileOptions,
    ) -> Result<(), StorageError> {
        format(log, state, first, options, None)
    }
}

/// Log and state of a folder, taken for this process.
fn open_files(folder: &Path) -> Result<(Disk, Disk, String), StorageError> {
    let name = folder.display().to_string();
    let (log, state) = find_files(folder, Disk::open)?;
    let log = log.ok_or_else(|| missing(folder, "log"))?;
    if !state.lock().map_err(io_error(format!("locking {name}/state")))? {
        return Err(StorageError::InUse(name));
    }
    check_not_empty(folder, &state)?;
    Ok((log, state, name))
}

/// Log and state of a folder; the log may be missing.
pub(crate) fn find_files(
    folder: &Path,
    open: impl Fn(&Path) -> io::Result<Disk>,
) -> Result<(Option<Disk>, Disk), StorageError> {
    let open = |file: &str| match open(&folder.join(file)) {
        Ok(disk) => Ok(Some(disk)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(format!("opening {}", folder.join(file).display()))(error)),
    };
    match (open("log")?, open("state")?) {
        (log, Some(state)) => Ok((log, state)),
        // What an interrupted format has left never was a replica's.
        (Some(_), None) if !folder.join("state.new").exists() => Err(missing(folder, "state")),
        (None, None) if holds_something_else(folder) => {
            Err(damaged(folder, "neither `log` nor `state` is in it, and something else is: is it another storage's?"))
        }
        (_, None) => Err(StorageError::NotFormatted(folder.display().to_string())),
    }
}

/// `format` gives it its name last: under that name it was never empty, whatever the log is.
pub(crate) fn check_not_empty(folder: &Path, state: &Disk) -> Result<(), StorageError> {
    let path = folder.join("state");
    match state.is_empty().map_err(io_error(format!("reading {}", path.display())))? {
        true => Err(damaged(&path, "it is empty")),
        false => Ok(()),
    }
}

pub(crate) fn missing(folder: &Path, file: &str) -> StorageError {
    StorageError::Missing { path: folder.join(file).display().to_string() }
}

fn damaged(path: &Path, what: &str) -> StorageError {
    StorageError::Damaged { path: path.display().to_string(), what: what.to_owned() }
}

/// Whether a folder has content that no format has left, finished or not.
fn holds_something_else(folder: &Path) -> bool {
    let Ok(mut found) = fs::read_dir(folder) else { return false };
    found.any(|found| found.is_ok_and(|found| found.file_name() != "state.new"))
}

fn site(log: &Disk, state: &Disk) -> Result<Site, StorageError> {
    let found = || -> io::Result<Site> { Ok(Site { log: log.site()?, state: state.site()? }) };
    found().map_err(io_error("asking where the files of the storage are"))
}

fn open_state<M: Medium>(log: &M, state: M, name: &str) -> Result<(StateFile<M>, Superblock), StorageError> {
    let has_log = !log.is_empty().map_err(io_error(format!("reading {name}/log")))?;
    StateFile::open(state, name, has_log)
}

/// A sector of the state file is none of the log.
pub(crate) fn log_salt(salt: u64) -> u64 {
    !salt
}

pub(crate) fn parts<M: Medium>(log: M, state: M, name: &str) -> Result<(Writer<M>, Reader<M>), StorageError> {
    let (state, superblock) = open_state(&log, state, name)?;
    let (index, log) = (Index::default(), Arc::new(Ring::new(log, superblock.log_limit)));
    let salt = log_salt(superblock.salt);
    let reader = Reader { index: index.clone(), log: log.clone(), salt };
    let writer = Writer {
        index,
        log: LogFile::new(log, name, salt),
        state,
        superblock,
        record: None,
        has_begun: false,
        floor: None,
        lost: LostSlots::default(),
        disk_is_full: false,
        has_no_room: false,
        name: name.to_owned(),
    };
    Ok((writer, reader))
}

/// The two halves of the storage on any medium, for the caller's own executor. `name` stands in error messages.
///
/// # Errors
/// As [`FileStorage::open`].
pub fn blocking_on<M: Medium>(
    log: M,
    state: M,
    name: &str,
) -> Result<(impl BlockingWriter + use<M>, impl BlockingReader + use<M>), StorageError> {
    parts(log, state, name)
}

fn format<M: Medium>(
    log: &M,
    state: &M,
    first: &VsrState,
    options: FileOptions,
    site: Option<&Site>,
) -> Result<(), StorageError> {
    StateRecord::check_room(first)?;
    let sector = SECTOR as u64;
    let extent = options.extent.clamp(1 << 16, EXTENT_MAX) / sector * sector;
    let log_limit = options.log_limit.max(extent).next_multiple_of(PAGE as u64);
    let salt = first.disk_id.0 as u64 ^ (first.disk_id.0 >> 64) as u64;
    LogFile::<M>::format(log, log_salt(salt), extent)?;
    log.sync().map_err(io_error("formatting"))?;
    StateFile::format(state, Superblock { salt, log_limit, extent }, first, site)?;
    state.sync().map_err(io_error("formatting"))
}

#[async_trait]
impl Storage for FileStorage {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.threads.recover().await
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.threads.write(batch).await
    }

    async fn read(&self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        self.threads.read(ops, bytes_max).await
    }

    fn keeps_checkpoints(&self) -> bool {
        self.checkpoints.is_some()
    }

    async fn write_checkpoint(
        &self,
        op: OpNumber,
        keep: Vec<CheckpointId>,
        content: Snapshot,
    ) -> Result<CheckpointId, StorageError> {
        match &self.checkpoints {
            Some(checkpoints) => checkpoints.write(op, keep, content).await,
            None => Err(StorageError::Contract("a checkpoint on a medium that keeps none")),
        }
    }

    async fn read_checkpoint(&self, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
        match &self.checkpoints {
            Some(checkpoints) => checkpoints.read(id, reader).await,
            None => Err(StorageError::Contract("a checkpoint on a medium that keeps none")),
        }
    }

    async fn read_part(&self, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
        match &self.checkpoints {
            Some(checkpoints) => checkpoints.read_part(id, part).await,
            None => Err(StorageError::Contract("a part of a checkpoint on a medium that keeps none")),
        }
    }

    async fn write_part(
        &self,
        id: CheckpointId,
        part: u32,
        bytes: Bytes,
        keep: Vec<CheckpointId>,
    ) -> Result<u32, StorageError> {
        match &self.checkpoints {
            Some(checkpoints) => checkpoints.write_part(id, part, bytes, keep).await,
            None => Err(StorageError::Contract("a part of a checkpoint on a medium that keeps none")),
        }
    }

    fn room(&self) -> u64 {
        self.threads.room()
    }

    async fn close(&self) {
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.close().await;
        }
        self.threads.close().await;
    }
}

pub(crate) struct Reader<M> {
    index: Index,
    log: Arc<Ring<M>>,
    salt: u64,
}

impl<M: Medium> BlockingReader for Reader<M> {
    fn read(&mut self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for op in ops.start().0..=ops.end().0 {
            let place = self.index.lock().get(op).copied();
            let entry = match place {
                Some(Place { header: Some(header), body: Some(location), .. }) => {
                    // A sector that cannot be read is one damaged entry, not a broken disk (hazard SF-20).
                    let body = read(&*self.log, self.salt, location, header.body_len).unwrap_or_else(|error| {
                        tracing::warn!(%error, op, "an entry cannot be read");
                        None
                    });
                    body.map(|body| Entry { header, body }).filter(Entry::is_intact)
                }
                _ => None,
            };
            bytes += entry.as_ref().map_or(0, |entry| entry.body.len());
            entries.push((OpNumber(op), entry));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(entries)
    }
}

pub(crate) struct Writer<M: Medium> {
    index: Index,
    log: LogFile<Arc<Ring<M>>>,
    state: StateFile<M>,
    superblock: Superblock,
    /// The last durable state; `None` before `recover`.
    record: Option<StateRecord>,
    /// Whether that is a state of this start: then the records after it are its own.
    has_begun: bool,
    /// Down to where records since the state drop or replace entries; `None`: they only add.
    floor: Option<u64>,
    /// Slots that a start has found lost, header and all.
    lost: LostSlots,
    /// The last attempt to prepare an extent found no space. Tried again from time to time.
    disk_is_full: bool,
    /// The last write found no space, in a file that is prepared: the file system copies on write.
    has_no_room: bool,
    name: String,
}

impl<M: Medium> Writer<M> {
    /// Makes a state durable, and with it what this start has found: from then on it is settled. Begins a
    /// generation of records.
    fn begin(&mut self, base: u64, state: Option<VsrState>, floor: Option<u64>) -> Result<(), StorageError> {
        let Some(record) = &self.record else { return Err(StorageError::Contract("a write before recover")) };
        let index = self.index.lock();
        let head = index.head();
        let generation = self.state.next_generation();
        let dropped = state.as_ref().map_or(index.base(), |state| state.base().0).max(index.base());
        let base = base.max(dropped);
        let needed = if dropped > index.base() {
            let slots = index.iter().filter(|(op, _)| (dropped + 1..=base).contains(op)).map(|(_, place)| *place);
            self.log.first_needed(slots)
        } else {
            (self.log.start, self.log.before)
        };
        drop(index);
        let mut lost = self.lost.clone();
        lost.truncate(base);
        lost.drop_up_to(dropped);
        let mut next = StateRecord {
            generation,
            log_write: self.log.last(),
            start: needed.0,
            before: needed.1,
            head: base,
            tail: self.log.tail(),
            prepared: self.log.prepared() / SECTOR as u64,
            certain: record.certain || state.is_some(),
            lost: lost.clone(),
            reaches: record.reaches.clone(),
            skipped: self.log.skipped().to_vec(),
            state: state.unwrap_or_else(|| record.state.clone()),
        };
        // What this start found lost of them is in `lost`.
        for reach in next.reaches.iter_mut().filter(|reach| reach.inside && reach.end == u64::MAX) {
            reach.end = self.log.last();
        }
        if base < head {
            let end = u64::MAX;
            next.add_reach(Reach { first: generation, last: generation, floor: base + 1, inside: false, end });
        }
        if let Some(floor) = floor {
            next.add_reach(Reach { first: generation, last: generation, floor, inside: true, end: u64::MAX });
        }
        let written = self.state.write(&next);
        self.has_no_room = matches!(written, Err(StorageError::Full { .. }));
        written?;
        self.log.begin(&next);
        self.log.drop_before(needed);
        let mut index = self.index.lock();
        index.truncate(base);
        index.drop_up_to(dropped);
        drop(index);
        (self.record, self.has_begun, self.floor, self.lost) = (Some(next), true, floor, lost);
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<(), StorageError> {
        let grown = self.log.grow(bytes);
        self.disk_is_full = matches!(grown, Err(StorageError::Full { .. }));
        grown
    }

    /// The lowest op that such a record drops or replaces.
    fn reach(&self, base: u64, entries: &[Entry]) -> Option<u64> {
        let index = self.index.lock();
        let dropped = (base < index.head()).then_some(base + 1);
        let replaced = entries.iter().filter_map(|entry| {
            let Place { header, .. } = index.get(entry.header.op.0)?;
            header.is_some_and(|header| header != entry.header).then_some(entry.header.op.0)
        });
        dropped.into_iter().chain(replaced).min()
    }

    /// Whether a state has to be durable before a record that ends at `end`, and how far down the records after
    /// it reach.
    fn must_begin(&self, end: u64, reach: Option<u64>) -> Option<Option<u64>> {
        // A start looks for records so far, and no further.
        let seen = self.record.as_ref().map_or(0, |record| record.prepared + AHEAD) * SECTOR as u64;
        let is_settled = end <= self.log.watermark() && end <= seen;
        match (reach, self.floor) {
            (None, None) => (!is_settled).then_some(None),
            // Such records come in groups; afterwards the reach is taken back.
            (None, Some(_)) if self.log.records() >= REACHING_RECORDS => Some(None),
            (None, floor) => (!is_settled).then_some(floor),
            (Some(reach), Some(floor)) if reach >= floor => (!is_settled).then_some(Some(floor)),
            (Some(reach), floor) => Some(Some(floor.map_or(reach, |floor| floor.min(reach)))),
        }
    }

    fn append(&mut self, base: u64, entries: &[Entry]) -> Result<(), StorageError> {
        let reach = self.reach(base, entries);
        let apart = reach.is_some() || self.floor.is_some();
        let need = self.log.cost(entries, apart);
        let (used, limit) = (self.log.used(), self.superblock.log_limit);
        if used + need > limit {
            return Err(StorageError::Full { used, limit });
        }
        let head = self.index.lock().head();
        if !self.has_begun {
            // What the start has found is durable before anything of it is written over.
            self.begin(head, None, reach.into_iter().chain(self.floor).min())?;
        }
        let end = self.make_room(need)?;
        if let Some(floor) = self.must_begin(end, reach) {
            self.begin(head, None, floor)?;
        }
        let places = self.log.append(&Append { base, entries, apart });
        if matches!(places, Err(StorageError::Full { .. })) {
            // What it has left there counts no more, once the next state is durable.
            (self.has_no_room, self.has_begun) = (true, false);
        }
        let places = places?;
        let mut index = self.index.lock();
        index.truncate(base);
        self.lost.truncate(base);
        for (entry, place) in entries.iter().zip(places) {
            let op = entry.header.op.0;
            index.extend(op - 1, Place::ABSENT);
            index.put(op, place);
        }
        Ok(())
    }

    /// Prepares the log for a record of so many bytes, behind sectors that cannot be written if it has to be. Where
    /// the record ends.
    fn make_room(&mut self, need: u64) -> Result<u64, StorageError> {
        let limit = self.superblock.log_limit;
        let mut stride = 0;
        loop {
            let (used, limit_at) = (self.log.used(), self.limit_at());
            let end = self.log.end() + need;
            if end > limit_at {
                return Err(StorageError::Full { used, limit });
            }
            if end > self.log.prepared() {
                self.grow(end.next_multiple_of(GROWTH_STEP).min(limit_at))?;
            }
            if end <= self.log.prepared() {
                return Ok(end);
            }
            self.log.step_over(stride)?;
            // One bad page beside the other is a bad region.
            stride = (2 * stride).max(PAGE_SECTORS);
        }
    }

    pub(crate) fn check_site(&self, found: &Site) -> Result<(), StorageError> {
        self.state.check_site(found)
    }

    /// Where the log may reach: behind it stands what is still needed.
    fn limit_at(&self) -> u64 {
        self.log.start * SECTOR as u64 + self.superblock.log_limit
    }
}

impl<M: Medium> BlockingWriter for Writer<M> {
    fn recover(&mut self) -> Result<Recovered, StorageError> {
        let mut record = self.state.recover()?;
        let scan = self.log.recover(&record)?;
        record.certain &= scan.head_certain;
        let slots = scan.places.iter().map(|(_, place)| place.slot());
        let recovered = Recovered { state: record.state.clone(), slots: slots.collect(), head_certain: record.certain };
        self.lost = record.lost.clone();
        let next = self.state.next_generation();
        let lost = scan.places.iter().filter(|(_, place)| **place == Place::LOST).map(|(op, _)| op);
        for op in lost.chain(scan.orphans.into_iter().filter(|op| *op > recovered.state.base().0)) {
            self.lost.add(op, op, next);
        }
        let damaged = recovered.slots.iter().filter(|slot| matches!(slot, Slot::Corrupt(_))).count();
        if damaged > 0 || !record.certain {
            let certain = record.certain;
            tracing::warn!(storage = self.name, damaged, certain, "the log is damaged: peers have what is lost here");
        }
        *self.index.lock() = scan.places;
        (self.record, self.has_begun, self.floor) = (Some(record), false, None);
        Ok(recovered)
    }

    fn write(&mut self, batch: Batch) -> Result<(), StorageError> {
        let Batch { state, truncate_above, entries } = batch;
        if self.record.is_none() {
            return Err(StorageError::Contract("a write before recover"));
        }
        let dropped = self.index.lock().base();
        if entries.iter().any(|entry| entry.header.op.0 <= dropped) {
            return Err(StorageError::Contract("an entry of op 0, or of one that was dropped"));
        }
        let head = self.index.lock().head();
        let base = truncate_above.map_or(head, |above| above.0.min(head));
        match state {
            Some(state) => self.begin(base, Some(state), None),
            None => self.append(base, &entries),
        }
    }

    fn room(&self) -> u64 {
        if self.has_no_room {
            return 0;
        }
        let limit = if self.disk_is_full { self.log.prepared() } else { self.limit_at() };
        limit.saturating_sub(self.log.end())
    }

    /// Prepares the next extent in small steps, long before it is needed.
    fn after_write(&mut self) -> Result<(), StorageError> {
        if self.has_no_room {
            // A state is the smallest thing to try with.
            let head = self.index.lock().head();
            return self.begin(head, None, self.floor);
        }
        if !self.has_begun {
            // What is prepared again may be all that shows what was lost.
            return Ok(());
        }
        let (used, prepared, limit) = (self.log.used(), self.log.prepared(), self.limit_at());
        let ahead = (used / 2).clamp(self.superblock.extent / 2, EXTENT_MAX / 2);
        if prepared < limit && prepared.saturating_sub(self.log.end()) < ahead {
            self.grow((prepared + GROWTH_STEP).min(limit))?;
        }
        Ok(())
    }
}
