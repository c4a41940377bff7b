//! The two files as one [`Storage`].

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use vsr::{
    Batch, BlockingReader, BlockingWriter, Config, Entries, Entry, OpNumber, Recovered, Slot, Storage, StorageError,
    ThreadedStorage, VsrState,
};

use crate::io_error;
use crate::log::{Append, LogFile, Place, cost, read};
use crate::medium::{Disk, Medium};
use crate::sector::SECTOR;
use crate::state::{StateFile, StateRecord, Superblock};

/// What is decided when a disk is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// Bytes that the log may grow to. Default 1 GiB. At the limit requests get a typed error.
    pub log_limit: u64,
    /// Bytes by which the log grows, doubling up to 64 MiB. Default 4 MiB.
    pub extent: u64,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions { log_limit: 1 << 30, extent: 4 << 20 }
    }
}

const EXTENT_MAX: u64 = 64 << 20;
/// Growth happens in steps of this size, so that a write in between waits for no more.
const GROWTH_STEP: u64 = 1 << 20;

/// Storage in a folder of its own. Its work is done by threads of its own; dropping it waits for the
/// write under way, unless that hangs: then the folder stays in use until the disk answers.
#[derive(Debug)]
pub struct FileStorage(ThreadedStorage);

/// Where the entries are: written by the writer, looked up by the reader.
#[derive(Clone, Default)]
struct Index(Arc<Mutex<Vec<Place>>>);

impl Index {
    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileStorage {
    /// Prepares a folder for a replica, with default options. Done once; [`open`](Self::open) never
    /// creates anything.
    ///
    /// # Errors
    /// When something is there already, or the disk refuses.
    pub fn format(folder: impl AsRef<Path>, config: &Config) -> Result<(), StorageError> {
        FileStorage::format_with(folder, config, FileOptions::default())
    }

    /// As [`format`](Self::format), with options.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub fn format_with(folder: impl AsRef<Path>, config: &Config, options: FileOptions) -> Result<(), StorageError> {
        let folder = folder.as_ref();
        let failed = io_error("formatting");
        fs::create_dir_all(folder).map_err(&failed)?;
        for found in fs::read_dir(folder).map_err(&failed)? {
            let name = found.map_err(&failed)?.file_name();
            // What an interrupted format has left.
            if name != "log" && name != "state.new" {
                return Err(StorageError::NotEmpty(folder.display().to_string()));
            }
        }
        let log = Disk::create(&folder.join("log")).map_err(&failed)?;
        let state = Disk::create(&folder.join("state.new")).map_err(&failed)?;
        format(&log, &state, &config.formatted_state(), options)?;
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
    /// [`StorageError::NotFormatted`], [`StorageError::Version`], [`StorageError::InUse`] by another
    /// process, or the disk's refusal.
    pub fn open(folder: impl AsRef<Path>) -> Result<FileStorage, StorageError> {
        let folder = folder.as_ref();
        let name = folder.display().to_string();
        let open = |file: &str| {
            Disk::open(&folder.join(file)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StorageError::NotFormatted(name.clone()),
                _ => io_error("opening the storage")(error),
            })
        };
        let state = open("state")?;
        let log = open("log")?;
        if !state.lock().map_err(io_error("locking the storage"))? {
            return Err(StorageError::InUse(name));
        }
        FileStorage::start(log, state, &name)
    }

    /// Opens on any medium; `name` stands in error messages. For tests.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on<M: Medium>(log: M, state: M, name: &str) -> Result<FileStorage, StorageError> {
        FileStorage::start(log, state, name)
    }

    /// Formats any medium. For tests.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub fn format_on<M: Medium>(
        log: &M,
        state: &M,
        first: &VsrState,
        options: FileOptions,
    ) -> Result<(), StorageError> {
        format(log, state, first, options)
    }

    fn start<M: Medium>(log: M, state: M, name: &str) -> Result<FileStorage, StorageError> {
        let (state, superblock) = StateFile::open(state, name)?;
        let (index, log) = (Index::default(), Arc::new(log));
        let reader = Reader { index: index.clone(), log: log.clone(), salt: superblock.salt };
        let log = LogFile::new(log, superblock.salt);
        let writer = Writer { index, log, state, superblock, record: None, disk_is_full: false, name: name.to_owned() };
        ThreadedStorage::start(writer, reader).map(FileStorage)
    }
}

fn format<M: Medium>(log: &M, state: &M, first: &VsrState, options: FileOptions) -> Result<(), StorageError> {
    let sector = SECTOR as u64;
    let extent = options.extent.clamp(1 << 16, EXTENT_MAX) / sector * sector;
    let log_limit = options.log_limit.max(extent) / sector * sector;
    let salt = first.incarnation.0 as u64 ^ (first.incarnation.0 >> 64) as u64;
    LogFile::<M>::format(log, salt, extent)?;
    log.sync().map_err(io_error("formatting"))?;
    StateFile::format(state, Superblock { salt, log_limit, extent }, first)?;
    state.sync().map_err(io_error("formatting"))
}

#[async_trait]
impl Storage for FileStorage {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.0.recover().await
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.0.write(batch).await
    }

    async fn read(&self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        self.0.read(ops, bytes_max).await
    }

    fn room(&self) -> u64 {
        self.0.room()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

struct Reader<M> {
    index: Index,
    log: Arc<M>,
    salt: u64,
}

impl<M: Medium> BlockingReader for Reader<M> {
    fn read(&mut self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for op in ops.start().0..=ops.end().0 {
            let place = op.checked_sub(1).and_then(|at| self.index.lock().get(at as usize).copied());
            let entry = match place {
                Some(Place { header: Some(header), body: Some(location), .. }) => {
                    // A sector that cannot be read is one damaged entry, not a broken disk (SF-20).
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

struct Writer<M: Medium> {
    index: Index,
    log: LogFile<Arc<M>>,
    state: StateFile<M>,
    superblock: Superblock,
    /// The last durable state; `None` before `recover`.
    record: Option<StateRecord>,
    /// The last attempt to prepare an extent found no space. Tried again from time to time.
    disk_is_full: bool,
    name: String,
}

impl<M: Medium> BlockingWriter for Writer<M> {
    fn recover(&mut self) -> Result<Recovered, StorageError> {
        let record = self.state.recover()?;
        let scan = self.log.scan(&record)?;
        if scan.generation > record.generation {
            // The log was written under a state that is not here: an older copy was put in its place.
            return Err(StorageError::StateLost(self.name.clone()));
        }
        let slots = scan.places.iter().map(|place| match place {
            Place { header: Some(header), body: Some(_), .. } => Slot::Clean(*header),
            Place { header, damaged: true, .. } => Slot::Corrupt(*header),
            Place { .. } => Slot::Absent,
        });
        let recovered =
            Recovered { state: record.state.clone(), slots: slots.collect(), head_certain: scan.head_certain };
        *self.index.lock() = scan.places;
        self.record = Some(record);
        Ok(recovered)
    }

    fn write(&mut self, batch: Batch) -> Result<(), StorageError> {
        let Batch { state, truncate_above, entries } = batch;
        let Some(record) = &mut self.record else { return Err(StorageError::Contract("a write before recover")) };
        let head = self.index.lock().len() as u64;
        let base = truncate_above.map_or(head, |above| above.0.min(head));
        if let Some(state) = state {
            let next = StateRecord {
                generation: self.state.next_generation(),
                log_write: self.log.last(),
                head: base,
                tail: self.log.used() / SECTOR as u64,
                state,
            };
            self.state.write(&next)?;
            self.record = Some(next);
            self.index.lock().truncate(base as usize);
            return Ok(());
        }
        let need = cost(&entries);
        let (used, limit) = (self.log.used(), self.superblock.log_limit);
        if used + need > limit {
            return Err(StorageError::Full { used, limit });
        }
        let generation = record.generation;
        if used + need > self.log.prepared() {
            self.log.grow((used + need).next_multiple_of(GROWTH_STEP).min(limit))?;
        }
        let places = self.log.append(&Append { base, generation, entries: &entries })?;
        let mut index = self.index.lock();
        index.truncate(base as usize);
        for (entry, place) in entries.iter().zip(places) {
            let at = (entry.header.op.0 - 1) as usize;
            if index.len() <= at {
                index.resize(at + 1, Place::ABSENT);
            }
            index[at] = place;
        }
        drop(index);
        Ok(())
    }

    fn room(&self) -> u64 {
        let limit = if self.disk_is_full { self.log.prepared() } else { self.superblock.log_limit };
        limit.saturating_sub(self.log.used())
    }

    /// Prepares the next extent in small steps, long before it is needed.
    fn after_write(&mut self) -> Result<(), StorageError> {
        let (used, prepared, limit) = (self.log.used(), self.log.prepared(), self.superblock.log_limit);
        let ahead = (used / 2).clamp(self.superblock.extent / 2, EXTENT_MAX / 2);
        if prepared < limit && prepared.saturating_sub(used) < ahead {
            let grown = self.log.grow((prepared + GROWTH_STEP).min(limit));
            self.disk_is_full = matches!(grown, Err(StorageError::Full { .. }));
            grown?;
        }
        Ok(())
    }
}
