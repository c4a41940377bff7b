//! The database as a [`Storage`].

use std::collections::VecDeque;
use std::fmt::Display;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, Direction, IteratorMode, WriteBatch, WriteOptions};
use vsr::checkpoints::CheckpointFolder;
use vsr::config::FormatFor;
use vsr::protocol::{Batch, CheckpointId, Entry, Header, OpNumber, Recovered, Slot, VsrState};
use vsr::storage::{CheckpointReader, StorageError};
use vsr::threaded::{BlockingReader, BlockingWriter, Entries, ThreadedStorage};
use vsr::{Config, Snapshot, Storage};

use crate::folder::{self, CHECKPOINTS, DATABASE, SEAL, UNFINISHED, damaged, failed, missing};
use crate::options::{HEADERS, LOG, STATE, columns, database};
use crate::place::PlaceFile;
use crate::seal::{NoSeal, Seal, SealFile, VERSION};

/// What is decided when a disk is formatted. Made by `RocksOptions::default()`, and changed field by field, or by
/// [`with`](RocksOptions::with); later versions have more fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RocksOptions {
    /// Bytes of entries that the log may hold. Default 1 GiB; at least
    /// [`Constants::log_room_min`](vsr::protocol::Constants::log_room_min). At the limit requests get a typed error.
    pub log_limit: u64,
}

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions { log_limit: 1 << 30 }
    }
}

impl RocksOptions {
    /// These options with a change: `RocksOptions::default().with(|options| options.log_limit = 4 << 30)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut RocksOptions)) -> RocksOptions {
        change(&mut self);
        self
    }
}

/// Storage in a RocksDB of its own. Its work is done by threads of its own; dropping it waits for the
/// write under way.
#[derive(Debug)]
pub struct RocksStorage {
    /// Goes first: a writer that waits for room on the disk waits no longer.
    _in_use: Sender<()>,
    threads: ThreadedStorage,
    checkpoints: CheckpointFolder,
}

const STATE_KEY: &[u8] = b"state";
const META_KEY: &[u8] = b"meta";
/// Bytes of disk that an entry is reckoned to take beside its body.
const OVERHEAD: u64 = 512;
/// More ops than any log can hold after what was dropped from it.
const HEAD_MAX: u64 = 1 << 32;
/// The batch number before a header or entry.
const STAMP: usize = 8;
/// Bytes of the disk that entries leave free: for the tables of what a write-ahead log of 64 MiB holds, the next log (RocksDB takes 35 MiB
/// for it at once), a manifest, the vsr state.
const RESERVE: u64 = 128 << 20;
/// How often a write that found the disk full is tried again. RocksDB itself looks every 5 seconds.
const RETRY: Duration = Duration::from_millis(500);

fn key(op: u64) -> [u8; 8] {
    op.to_be_bytes()
}

fn column<'a>(db: &'a DB, name: &'static str) -> Result<&'a ColumnFamily, StorageError> {
    db.cf_handle(name).ok_or_else(|| failed("opening the database")(format!("no column family {name}")))
}

/// What each batch leaves beside entries and state.
#[derive(Clone, Copy, Debug, Default)]
struct Meta {
    batch: u64,
    head: u64,
    log_limit: u64,
    /// A tail was lost once: what it may have held above this commit number is corrupt, unless it was
    /// written by a batch after `lost_batch`.
    lost_above: u64,
    lost_batch: u64,
    /// The batch that wrote the vsr state.
    state_batch: u64,
    /// The [`fingerprint`]s of all entries of the log. A database that has lost a file, or the end of its manifest, goes on with what came before
    /// and after: the newest batch is there, and something in the middle is missing, or an older one has taken its place.
    fingerprints: u64,
    /// 1 when the fingerprints were once taken from a log of which something could not be read: they no longer prove that nothing is missing.
    unsure: u64,
}

impl Meta {
    fn encode(&self) -> [u8; 64] {
        let mut out = [0; 64];
        let Meta { batch, head, log_limit, lost_above, lost_batch, state_batch, fingerprints, unsure } = *self;
        let words = [batch, head, log_limit, lost_above, lost_batch, state_batch, fingerprints, unsure];
        for (to, word) in out.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Notes a loss. What an earlier one may have taken, and was not written since, stays doubtful.
    fn lose(&mut self, above: u64, batch: u64) {
        self.lost_above = if self.lost_batch > 0 { self.lost_above.min(above) } else { above };
        self.lost_batch = self.lost_batch.max(batch);
    }

    fn decode(bytes: &[u8]) -> Option<Meta> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at * 8..at * 8 + 8)?.try_into().ok()?));
        Some(Meta {
            batch: word(0)?,
            head: word(1)?,
            log_limit: word(2)?,
            lost_above: word(3)?,
            lost_batch: word(4)?,
            state_batch: word(5)?,
            fingerprints: word(6)?,
            unsure: word(7)?,
        })
    }
}

/// Which batch wrote an op, as one number of which many can be put together by exclusive or. Batch 0 is none.
fn fingerprint(op: u64, batch: u64) -> u64 {
    let bytes = (u128::from(op) << 64 | u128::from(batch)).to_le_bytes();
    if batch == 0 { 0 } else { xxhash_rust::xxh3::xxh3_64(&bytes) }
}

/// Of the ops from `first` on, and the batch of each.
fn fingerprints<'a>(first: u64, batches: impl Iterator<Item = &'a u64>) -> u64 {
    (first..).zip(batches).fold(0, |fingerprints, (op, batch)| fingerprints ^ fingerprint(op, *batch))
}

impl RocksStorage {
    /// Prepares a folder for a replica, with default options. Done once; [`open`](Self::open) never
    /// creates anything.
    ///
    /// # Errors
    /// When something is there already, the disk refuses, [`StorageError::Config`] or [`StorageError::LogTooSmall`].
    pub fn format(folder: impl AsRef<Path>, config: &Config) -> Result<(), StorageError> {
        RocksStorage::format_with(folder, config, RocksOptions::default())
    }

    /// As [`format`](Self::format), with options.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub fn format_with(folder: impl AsRef<Path>, config: &Config, options: RocksOptions) -> Result<(), StorageError> {
        RocksStorage::format_for(folder, config, FormatFor::NewCluster, options)
    }

    /// As [`format_with`](Self::format_with), for a disk that may begin otherwise than that of a new cluster.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub fn format_for(
        folder: impl AsRef<Path>,
        config: &Config,
        purpose: FormatFor,
        options: RocksOptions,
    ) -> Result<(), StorageError> {
        config.validate()?;
        RocksStorage::format_first(folder, &config.first_state(purpose)?, options)
    }

    fn format_first(folder: impl AsRef<Path>, first: &VsrState, options: RocksOptions) -> Result<(), StorageError> {
        let (limit, needed) = (options.log_limit, first.membership.constants.log_room_min());
        if limit < needed {
            return Err(StorageError::LogTooSmall { limit, needed });
        }
        RocksStorage::format_state(folder, first, options)
    }

    /// Formats with the given state, and a log of the given size. For tests.
    ///
    /// # Errors
    /// When something is there already, or the disk refuses.
    pub fn format_state(folder: impl AsRef<Path>, state: &VsrState, options: RocksOptions) -> Result<(), StorageError> {
        let folder = folder.as_ref();
        let doing = || format!("formatting {}", folder.display());
        folder::check_file_size_limit(folder, folder::file_size_limit())?;
        fs::create_dir_all(folder).map_err(failed(doing()))?;
        if fs::read_dir(folder).map_err(failed(doing()))?.next().is_some() {
            return Err(StorageError::NotEmpty(folder.display().to_string()));
        }
        // The seal makes it a formatted disk: it is there first, and under its name last.
        let new = folder.join(UNFINISHED);
        let mut seal_file = SealFile::create(&new).map_err(failed(doing()))?;
        let place = PlaceFile::create(folder)?;
        sync_folder(folder).map_err(failed(doing()))?;
        let db = DB::open_cf_descriptors(&database(true), folder.join(DATABASE), columns()).map_err(failed(doing()))?;
        let mut batch = WriteBatch::default();
        let meta = Meta { batch: 1, state_batch: 1, log_limit: options.log_limit, ..Meta::default() };
        batch.put_cf(column(&db, STATE)?, META_KEY, meta.encode());
        batch.put_cf(column(&db, STATE)?, STATE_KEY, encode_state(1, state)?);
        db.write_opt(batch, &synced()).map_err(failed(doing()))?;
        drop(db);
        seal_file.write_all(Seal { batch: 1, state_batch: 1 }).map_err(failed(doing()))?;
        place.record(seal_file.file())?;
        fs::rename(&new, folder.join(SEAL)).map_err(failed(doing()))?;
        // The folder's own entry, too: a folder that is gone after a power loss would pass for one that was never formatted.
        let above = folder.canonicalize().and_then(|folder| folder.parent().map_or(Ok(()), sync_folder));
        let is_forbidden = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        let above = above.or_else(|error| if is_forbidden(&error) { Ok(()) } else { Err(error) });
        sync_folder(folder).and(above).map_err(failed(doing()))
    }

    /// Opens what [`format`](Self::format) has made.
    ///
    /// # Errors
    /// [`StorageError::NotFormatted`], [`StorageError::Version`], [`StorageError::InUse`] by another process,
    /// [`StorageError::OtherPlace`] for a copy, [`StorageError::Missing`] and [`StorageError::Damaged`] for
    /// what was formatted and is no longer whole, or the disk's refusal. One without room for what RocksDB writes when it is opened is no
    /// error: [`recover`](Storage::recover) then says [`StorageError::Full`], and tries again.
    pub fn open(folder: impl AsRef<Path>) -> Result<RocksStorage, StorageError> {
        RocksStorage::open_by(folder.as_ref(), folder::open_database)
    }

    fn open_by(folder: &Path, open: Open) -> Result<RocksStorage, StorageError> {
        folder::check_file_size_limit(folder, folder::file_size_limit())?;
        folder::check(folder)?;
        let place = PlaceFile::open(folder)?;
        let (seal_file, seal) = open_seal(folder)?;
        place.check(seal_file.file())?;
        let db = Arc::new(Database { rocks: OnceLock::new(), open, folder: folder.to_owned(), _place: place });
        match db.open() {
            Ok(_) | Err(StorageError::Full { .. }) => {}
            Err(error) => return Err(error),
        }
        let (in_use, dropped) = channel();
        let writer = Writer {
            db: db.clone(),
            seal_file,
            seal,
            meta: Meta { log_limit: u64::MAX, ..Meta::default() },
            base: 0,
            sizes: VecDeque::new(),
            batches: VecDeque::new(),
            used: 0,
            dropped,
            folder: folder.to_owned(),
        };
        let threads = ThreadedStorage::start(writer, Reader { db })?;
        let checkpoints = CheckpointFolder::new(folder.join(CHECKPOINTS));
        Ok(RocksStorage { _in_use: in_use, threads, checkpoints })
    }

    /// Takes the folder where it is now for the one that was formatted, on purpose: after it was moved, or
    /// restored, *and nothing has run on the original since the copy was made*. A replica that goes on with an
    /// older disk, or on two of them, loses what was acknowledged.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn accept_place(folder: impl AsRef<Path>) -> Result<(), StorageError> {
        let folder = folder.as_ref();
        folder::check(folder)?;
        let place = PlaceFile::open(folder)?;
        let (seal_file, _) = open_seal(folder)?;
        place.record(seal_file.file())
    }
}

fn open_seal(folder: &Path) -> Result<(SealFile, Seal), StorageError> {
    let path = folder.join(SEAL);
    SealFile::open(&path).map_err(|error| match error {
        NoSeal::Missing => missing(&path),
        NoSeal::Version(found) => StorageError::Version { path: folder.display().to_string(), found, known: VERSION },
        NoSeal::Damaged => damaged(&path, "neither of its two copies is intact, and what the log has lost is unknown"),
        NoSeal::Io(error) => failed(format!("opening {}", path.display()))(error),
    })
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    // Off by default: a killed process would keep its writes, a power loss would not (hazard SF-23).
    options.set_sync(true);
    options
}

fn encode_state(batch: u64, state: &VsrState) -> Result<Vec<u8>, StorageError> {
    let mut value = batch.to_le_bytes().to_vec();
    rmp_serde::encode::write(&mut value, state).map_err(failed("encoding the state"))?;
    Ok(value)
}

#[async_trait]
impl Storage for RocksStorage {
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
        true
    }

    async fn write_checkpoint(
        &self,
        op: OpNumber,
        keep: Vec<CheckpointId>,
        content: Snapshot,
    ) -> Result<CheckpointId, StorageError> {
        self.checkpoints.write(op, keep, content).await
    }

    async fn read_checkpoint(&self, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
        self.checkpoints.read(id, reader).await
    }

    async fn read_part(&self, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
        self.checkpoints.read_part(id, part).await
    }

    async fn write_part(
        &self,
        id: CheckpointId,
        part: u32,
        bytes: Bytes,
        keep: Vec<CheckpointId>,
    ) -> Result<u32, StorageError> {
        self.checkpoints.write_part(id, part, bytes, keep).await
    }

    fn room(&self) -> u64 {
        self.threads.room()
    }

    async fn close(&self) {
        self.checkpoints.close().await;
        self.threads.close().await;
    }
}

/// How the database in a folder is opened.
type Open = fn(&Path) -> Result<DB, StorageError>;

/// The database, and the folder, which others may have when the database is closed.
struct Database {
    /// Empty until the disk has had room for what RocksDB writes when it is opened.
    rocks: OnceLock<DB>,
    open: Open,
    folder: PathBuf,
    _place: PlaceFile,
}

impl Database {
    /// Opens it, unless it is open.
    fn open(&self) -> Result<&DB, StorageError> {
        match self.rocks.get() {
            Some(rocks) => Ok(rocks),
            None => (self.open)(&self.folder).map(|rocks| self.rocks.get_or_init(|| rocks)),
        }
    }

    fn opened(&self) -> Result<&DB, StorageError> {
        self.rocks.get().ok_or(StorageError::Contract("a call before recover"))
    }
}

struct Writer {
    db: Arc<Database>,
    seal_file: SealFile,
    seal: Seal,
    meta: Meta,
    /// The last op that was dropped.
    base: u64,
    /// Bytes reckoned for each op after it.
    sizes: VecDeque<u64>,
    /// The batch that wrote each of them; 0 for none.
    batches: VecDeque<u64>,
    used: u64,
    /// Hangs up when the storage is dropped.
    dropped: Receiver<()>,
    folder: PathBuf,
}

fn cost(entry: &Entry) -> u64 {
    entry.body.len() as u64 + OVERHEAD
}

impl BlockingWriter for Writer {
    fn recover(&mut self) -> Result<Recovered, StorageError> {
        let lost = || StorageError::StateLost(self.folder.display().to_string());
        let db = self.db.open()?;
        let states = column(db, STATE)?;
        let state = db.get_cf(states, STATE_KEY).ok().flatten().ok_or_else(lost)?;
        let (state_batch, state) = state.split_first_chunk().ok_or_else(lost)?;
        let state: VsrState = rmp_serde::from_slice(state).map_err(|_| lost())?;
        let meta = db.get_cf(states, META_KEY).ok().flatten().ok_or_else(lost)?;
        let mut meta = Meta::decode(&meta).ok_or_else(lost)?;
        // A slot is kept for each op up to the head: an absurd one is not the protocol's.
        let base = state.base().0;
        if meta.batch < self.seal.state_batch || !(base..=base.saturating_add(HEAD_MAX)).contains(&meta.head) {
            return Err(lost());
        }
        if u64::from_le_bytes(*state_batch) != meta.state_batch {
            tracing::warn!("an older vsr state has come back");
            return Err(lost());
        }
        let head_certain = meta.batch >= self.seal.batch;
        if !head_certain {
            tracing::warn!(found = meta.batch, sealed = self.seal.batch, "the tail of the log was lost");
            meta.lose(state.commit.0, self.seal.batch);
        }
        let (found, damaged) = self.find(base, meta.head)?;
        let batch = |(header, entry): &(Found, Found)| header.or(*entry).map_or(0, |(batch, _)| batch);
        self.base = base;
        self.batches = found.iter().map(batch).collect();
        let fingerprints = fingerprints(base + 1, self.batches.iter());
        if fingerprints != meta.fingerprints && damaged {
            // What is missing is taken to be what cannot be read.
            meta.unsure = 1;
        } else if fingerprints != meta.fingerprints {
            tracing::warn!("something in the middle of the log was lost");
            meta.lose(0, meta.batch.max(self.seal.batch));
        }
        let nothing_missing = fingerprints == meta.fingerprints && meta.unsure == 0;
        meta.fingerprints = fingerprints;
        let slots = verdicts(base, found, nothing_missing, &meta);
        self.sizes = slots.iter().map(|(_, size)| *size).collect();
        self.used = self.sizes.iter().sum();
        let slots = slots.into_iter().map(|(slot, _)| slot).collect();
        // The batch numbers of the lost tail are not used again.
        meta.batch = meta.batch.max(self.seal.batch);
        self.meta = meta;
        // It may have been read from the page cache only. The database has written anew, and synced, what it has found.
        self.seal_file.write_all(self.seal).map_err(|error| self.unsealed(error))?;
        Ok(Recovered { state, slots, head_certain })
    }

    fn write(&mut self, batch: Batch) -> Result<(), StorageError> {
        let Batch { state, truncate_above, entries } = batch;
        let base = state.as_ref().map_or(self.base, |state| state.base().0).max(self.base);
        if entries.iter().any(|entry| entry.header.op.0 <= self.base) {
            return Err(StorageError::Contract("an entry of op 0, or of one that was dropped"));
        }
        let kept = truncate_above.map_or(self.meta.head, |above| above.0.clamp(self.base, self.meta.head));
        let need: u64 = entries.iter().map(cost).sum();
        let kept_slots = (kept - self.base) as usize;
        let dropped_slots = ((base - self.base) as usize).min(kept_slots);
        let freed: u64 = self.sizes.iter().skip(kept_slots).chain(self.sizes.iter().take(dropped_slots)).sum();
        if !entries.is_empty() && self.used - freed + need > self.meta.log_limit {
            return Err(StorageError::Full { used: self.used - freed, limit: self.meta.log_limit });
        }
        // Before anything is written. A vsr state is small, and may be what makes room: it is always tried.
        let free = folder::free(&self.folder).saturating_sub(RESERVE);
        if !entries.is_empty() && need > free {
            let used = self.used - freed;
            return Err(StorageError::Full { used, limit: used.saturating_add(free) });
        }
        let has_state = state.is_some();
        let mut meta = Meta { batch: self.meta.batch + 1, head: kept.max(base), ..self.meta };
        if has_state {
            meta.state_batch = meta.batch;
        }
        meta.fingerprints ^= fingerprints(kept + 1, self.batches.iter().skip(kept_slots));
        meta.fingerprints ^= fingerprints(self.base + 1, self.batches.iter().take(dropped_slots));
        for entry in &entries {
            let op = entry.header.op.0;
            let before = if op <= kept { self.batches.get((op - self.base - 1) as usize).copied() } else { None };
            meta.fingerprints ^= fingerprint(op, before.unwrap_or(0)) ^ fingerprint(op, meta.batch);
            meta.head = meta.head.max(op);
        }
        let mut is_waiting = false;
        while let Err(error) =
            self.db.opened()?.write_opt(self.compose(&meta, kept, state.as_ref(), &entries)?, &synced())
        {
            if !folder::is_no_space(&error) {
                return Err(failed("writing to the database")(error));
            }
            self.wait_for_space(&error, &mut is_waiting)?;
        }
        self.seal.batch = meta.batch;
        if has_state {
            self.seal.state_batch = meta.batch;
        }
        // All of it is written again after a failure: what a sync has failed to write no later one does.
        while let Err(error) =
            if has_state || is_waiting { self.seal_file.write_all(self.seal) } else { self.seal_file.write(self.seal) }
        {
            match self.unsealed(error) {
                full @ StorageError::Full { .. } => self.wait_for_space(&full, &mut is_waiting)?,
                error => return Err(error),
            }
        }
        self.meta = meta;
        self.used -= freed;
        self.sizes.truncate(kept_slots);
        self.batches.truncate(kept_slots);
        self.sizes.drain(..dropped_slots);
        self.batches.drain(..dropped_slots);
        self.base = base;
        for entry in &entries {
            let at = (entry.header.op.0 - base - 1) as usize;
            if self.sizes.len() <= at {
                self.sizes.resize(at + 1, 0);
                self.batches.resize(at + 1, 0);
            }
            self.batches[at] = self.meta.batch;
            self.used = self.used - self.sizes[at] + cost(entry);
            self.sizes[at] = cost(entry);
        }
        Ok(())
    }

    fn room(&self) -> u64 {
        let limit = self.meta.log_limit.saturating_sub(self.used);
        limit.min(folder::free(&self.folder).saturating_sub(RESERVE))
    }
}

impl Writer {
    fn unsealed(&self, error: std::io::Error) -> StorageError {
        if folder::has_no_space(&error) {
            return StorageError::Full { used: self.used, limit: self.used };
        }
        failed(format!("writing the seal in {}", self.folder.display()))(error)
    }

    /// One batch of the database.
    fn compose(
        &self,
        meta: &Meta,
        kept: u64,
        state: Option<&VsrState>,
        entries: &[Entry],
    ) -> Result<WriteBatch, StorageError> {
        let db = self.db.opened()?;
        let (log, headers, states) = (column(db, LOG)?, column(db, HEADERS)?, column(db, STATE)?);
        let mut write = WriteBatch::default();
        if kept < self.meta.head {
            for family in [log, headers] {
                write.delete_range_cf(family, key(kept + 1), key(u64::MAX));
            }
        }
        let base = state.map_or(0, |state| state.base().0);
        if base > self.base {
            for family in [log, headers] {
                write.delete_range_cf(family, key(self.base + 1), key(base + 1));
            }
        }
        for entry in entries {
            let op = entry.header.op.0;
            let mut value = Vec::with_capacity(STAMP + Header::LEN + entry.body.len());
            value.extend(meta.batch.to_le_bytes());
            value.extend(entry.header.encode());
            write.put_cf(headers, key(op), &value);
            value.extend(&entry.body);
            write.put_cf(log, key(op), &value);
        }
        if let Some(state) = state {
            write.put_cf(states, STATE_KEY, encode_state(meta.batch, state)?);
        }
        write.put_cf(states, META_KEY, meta.encode());
        Ok(write)
    }

    /// The disk was full in the middle of a write: another program has used it up. To the replica this is a disk that hangs, not one that
    /// fails. RocksDB takes nothing in until there is room again; then it moves all that it had acknowledged into new tables, synced, and
    /// begins a new write-ahead log (`ErrorHandler::RecoverFromNoSpace`, `DBImpl::ResumeImpl`). So the same batch is written again to a new
    /// place: no sync is repeated.
    fn wait_for_space(&self, error: &impl Display, is_waiting: &mut bool) -> Result<(), StorageError> {
        if !std::mem::replace(is_waiting, true) {
            tracing::error!(%error, folder = %self.folder.display(), "no space left on the disk: waiting for room");
        }
        match self.dropped.recv_timeout(RETRY) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(failed("writing to the database")(error.to_string())),
        }
    }

    /// The header and the entry of each op after the base, up to the head, and whether there is anything that cannot be read.
    fn find(&self, base: u64, head: u64) -> Result<(Vec<(Found, Found)>, bool), StorageError> {
        let mut damaged = false;
        let headers = self.scan(HEADERS, (base, head), &mut damaged, |op, value| {
            let header = decode_header(&value)?;
            (header.1.op.0 == op).then_some(header)
        })?;
        let entries = self.scan(LOG, (base, head), &mut damaged, |op, value| {
            let header = decode_header(&value)?;
            let body = Bytes::from(value).slice(STAMP + Header::LEN..);
            (header.1.op.0 == op && Entry { header: header.1, body }.is_intact()).then_some(header)
        })?;
        Ok((headers.into_iter().zip(entries).collect(), damaged))
    }

    /// Reads a column family op by op from behind the base up to the head; what cannot be read is passed over and noted.
    fn scan(
        &self,
        name: &'static str,
        (base, head): (u64, u64),
        damaged: &mut bool,
        decode: impl Fn(u64, Vec<u8>) -> Found,
    ) -> Result<Vec<Found>, StorageError> {
        let db = self.db.opened()?;
        let family = column(db, name)?;
        let mut found = vec![None; (head - base) as usize];
        let mut seen = vec![false; (head - base) as usize];
        let mut broke_off = false;
        for item in db.iterator_cf(family, IteratorMode::From(&key(base + 1), Direction::Forward)) {
            let Ok((at, value)) = item else {
                broke_off = true;
                break;
            };
            let Ok(op) = <[u8; 8]>::try_from(&at[..]).map(u64::from_be_bytes) else { continue };
            let Some(at) = op.checked_sub(base + 1).map(|at| at as usize) else { continue };
            let Some(slot) = found.get_mut(at) else { continue };
            *slot = decode(op, value.into_vec());
            *damaged |= slot.is_none();
            seen[at] = true;
        }
        if broke_off {
            *damaged = true;
            for op in base + 1..=head {
                let at = (op - base - 1) as usize;
                if !seen[at]
                    && let Ok(Some(value)) = db.get_cf(family, key(op))
                {
                    found[at] = decode(op, value);
                }
            }
        }
        Ok(found)
    }
}

/// A verdict for each op, and the bytes reckoned for it. `nothing_missing`: what was found, in either column family, is all that there was.
fn verdicts(base: u64, found: Vec<(Found, Found)>, nothing_missing: bool, meta: &Meta) -> Vec<(Slot, u64)> {
    let lost = meta.lost_batch > 0;
    let may_be_lost = |op: u64, batch: u64| lost && op > meta.lost_above && batch <= meta.lost_batch;
    let verdict = |(op, (header, entry)): (u64, (Found, Found))| match (header, entry) {
        (Some((batch, header)), entry) if !may_be_lost(op, batch) => match entry {
            Some((_, found)) if found == header => Slot::Clean(header),
            _ => Slot::Corrupt(Some(header)),
        },
        // A block of headers is damaged, and takes nothing else with it.
        (None, Some((batch, header))) if nothing_missing && !may_be_lost(op, batch) => Slot::Clean(header),
        // Below the commit number of a loss, too: the lost tail may have held a repair.
        (None, None) if nothing_missing && !lost => Slot::Absent,
        // An entry whose second header is damaged: it cannot be known which of two is the newer one.
        _ => Slot::Corrupt(None),
    };
    let size = |slot: &Slot| match slot {
        Slot::Clean(header) | Slot::Corrupt(Some(header)) => u64::from(header.body_len) + OVERHEAD,
        Slot::Corrupt(None) | Slot::Absent => 0,
    };
    (base + 1..).zip(found).map(verdict).map(|slot| (slot.clone(), size(&slot))).collect()
}

/// The batch that wrote a header, and the header.
type Found = Option<(u64, Header)>;

fn decode_header(value: &[u8]) -> Found {
    let batch = u64::from_le_bytes(*value.first_chunk()?);
    let layout: &[u8; Header::LEN] = value.get(STAMP..)?.first_chunk()?;
    Some((batch, Header::decode(layout)?))
}

struct Reader {
    db: Arc<Database>,
}

impl BlockingReader for Reader {
    fn read(&mut self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        let db = self.db.opened()?;
        let log = column(db, LOG)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for op in ops.start().0..=ops.end().0 {
            // What cannot be read is one damaged entry, not a broken disk (hazard SF-20).
            let value = db.get_cf(log, key(op)).unwrap_or_else(|error| {
                tracing::warn!(%error, op, "an entry cannot be read");
                None
            });
            let entry = value.and_then(|value| {
                let (_, header) = decode_header(&value)?;
                let body = Bytes::from(value).slice(STAMP + Header::LEN..);
                Some(Entry { header, body }).filter(|entry| entry.header.op.0 == op && entry.is_intact())
            });
            bytes += entry.as_ref().map_or(0, |entry| entry.body.len());
            entries.push((OpNumber(op), entry));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::executor::block_on;

    use super::*;

    /// What RocksDB writes when it is opened may find no room: the storage is open all the same, says so, and is asked again.
    #[test]
    fn b8_a_database_that_cannot_be_opened_for_want_of_room_is_opened_when_there_is_some() {
        static REFUSALS: AtomicU32 = AtomicU32::new(3);
        fn open(folder: &Path) -> Result<DB, StorageError> {
            if REFUSALS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                return Err(StorageError::Full { used: 0, limit: 0 });
            }
            folder::open_database(folder)
        }
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
        RocksStorage::format(folder.path(), &config).expect("formatting");
        let storage = RocksStorage::open_by(folder.path(), open).expect("opening");
        for _ in 0..2 {
            let read = block_on(storage.read(OpNumber(1)..=OpNumber(1), 1));
            assert!(matches!(read, Err(StorageError::Contract(_))), "{read:?}");
            let refused = block_on(storage.recover());
            assert!(matches!(refused, Err(StorageError::Full { .. })), "{refused:?}");
        }
        assert!(matches!(RocksStorage::open(folder.path()), Err(StorageError::InUse(_))), "it is taken meanwhile");
        let recovered = block_on(storage.recover()).expect("there is room");
        assert!(recovered.head_certain && recovered.slots.is_empty());
        let state = Some(recovered.state);
        block_on(storage.write(Batch { state, ..Batch::default() })).expect("writing");
    }
}
