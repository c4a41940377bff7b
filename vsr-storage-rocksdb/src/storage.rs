//! The database as a [`Storage`].

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, Direction, IteratorMode, WriteBatch, WriteOptions};
use vsr::{
    Batch, BlockingReader, BlockingWriter, Config, Entries, Entry, Header, OpNumber, Recovered, Slot, Storage,
    StorageError, ThreadedStorage, VsrState,
};

use crate::options::{HEADERS, LOG, STATE, columns, database};
use crate::seal::{NoSeal, Seal, SealFile, VERSION};

/// What is decided when a disk is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Bytes of entries that the log may hold. Default 1 GiB. At the limit requests get a typed error.
    pub log_limit: u64,
}

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions { log_limit: 1 << 30 }
    }
}

/// Storage in a RocksDB of its own. Its work is done by threads of its own; dropping it waits for the
/// write under way.
#[derive(Debug)]
pub struct RocksStorage(ThreadedStorage);

const STATE_KEY: &[u8] = b"state";
const META_KEY: &[u8] = b"meta";
/// Bytes of disk that an entry is reckoned to take beside its body.
const OVERHEAD: u64 = 512;
/// More ops than any log can hold before something is dropped from it.
const HEAD_MAX: u64 = 1 << 32;
/// The batch number before a header or entry.
const STAMP: usize = 8;

fn failed<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> StorageError {
    move |error| StorageError::Io { doing: doing.to_owned(), error: error.to_string() }
}

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
    /// The [`mark`]s of all entries of the log. A database that has lost a file, or the end of its manifest, goes on with what came before
    /// and after: the newest batch is there, and something in the middle is missing, or an older one has taken its place.
    marks: u64,
}

impl Meta {
    fn encode(&self) -> [u8; 56] {
        let mut out = [0; 56];
        let Meta { batch, head, log_limit, lost_above, lost_batch, state_batch, marks } = *self;
        let words = [batch, head, log_limit, lost_above, lost_batch, state_batch, marks];
        for (to, word) in out.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
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
            marks: word(6)?,
        })
    }
}

/// Which batch wrote an op, as one number of which many can be put together by exclusive or. Batch 0 is none.
fn mark(op: u64, batch: u64) -> u64 {
    let bytes = (u128::from(op) << 64 | u128::from(batch)).to_le_bytes();
    if batch == 0 { 0 } else { xxhash_rust::xxh3::xxh3_64(&bytes) }
}

fn marks(batches: &[u64], above: u64) -> u64 {
    (above + 1..).zip(batches.iter().skip(above as usize)).fold(0, |marks, (op, batch)| marks ^ mark(op, *batch))
}

impl RocksStorage {
    /// Prepares a folder for a replica, with default options. Done once; [`open`](Self::open) never
    /// creates anything.
    ///
    /// # Errors
    /// When something is there already, or the disk refuses.
    pub fn format(folder: impl AsRef<Path>, config: &Config) -> Result<(), StorageError> {
        RocksStorage::format_state(folder, &config.formatted_state(), RocksOptions::default())
    }

    /// As [`format`](Self::format), with options and a state of one's own.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub fn format_state(folder: impl AsRef<Path>, state: &VsrState, options: RocksOptions) -> Result<(), StorageError> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(failed("formatting"))?;
        if fs::read_dir(folder).map_err(failed("formatting"))?.next().is_some() {
            return Err(StorageError::NotEmpty(folder.display().to_string()));
        }
        let db = DB::open_cf_descriptors(&database(true), folder.join("db"), columns())
            .map_err(failed("creating the database"))?;
        let mut batch = WriteBatch::default();
        let meta = Meta { batch: 1, state_batch: 1, log_limit: options.log_limit, ..Meta::default() };
        batch.put_cf(column(&db, STATE)?, META_KEY, meta.encode());
        batch.put_cf(column(&db, STATE)?, STATE_KEY, encode_state(1, state)?);
        db.write_opt(batch, &synced()).map_err(failed("formatting"))?;
        drop(db);
        // The seal makes it a formatted disk: it comes last, under its name at once.
        let new = folder.join("seal.new");
        SealFile::create(&new, Seal { batch: 1, state_batch: 1 }).map_err(failed("formatting"))?;
        fs::rename(&new, folder.join("seal")).map_err(failed("formatting"))?;
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("formatting"))
    }

    /// Opens what [`format`](Self::format) has made.
    ///
    /// # Errors
    /// [`StorageError::NotFormatted`], [`StorageError::Version`], [`StorageError::InUse`] by another
    /// process, or the disk's refusal.
    pub fn open(folder: impl AsRef<Path>) -> Result<RocksStorage, StorageError> {
        let folder = folder.as_ref();
        let name = folder.display().to_string();
        let (seal_file, seal) = SealFile::open(&folder.join("seal")).map_err(|error| match error {
            NoSeal::Missing => StorageError::NotFormatted(name.clone()),
            NoSeal::Version(found) => StorageError::Version { path: name.clone(), found, known: VERSION },
            NoSeal::Damaged => StorageError::StateLost(name.clone()),
            NoSeal::Io(error) => failed("reading the seal")(error),
        })?;
        let opened = DB::open_cf_descriptors(&database(false), folder.join("db"), columns());
        let db = Arc::new(opened.map_err(|error| match error.to_string() {
            // A block may be damaged, which is something else.
            text if text.contains("While lock file") || text.contains("lock hold by current process") => {
                StorageError::InUse(name.clone())
            }
            text => failed("opening the database")(text),
        })?);
        let writer = Writer {
            db: db.clone(),
            seal_file,
            seal,
            meta: Meta { log_limit: u64::MAX, ..Meta::default() },
            sizes: Vec::new(),
            batches: Vec::new(),
            used: 0,
            name,
        };
        ThreadedStorage::start(writer, Reader { db }).map(RocksStorage)
    }
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    // Off by default: a killed process would keep its writes, a power loss would not (HAZARDS SF-23).
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

struct Writer {
    db: Arc<DB>,
    seal_file: SealFile,
    seal: Seal,
    meta: Meta,
    /// Bytes reckoned for each op.
    sizes: Vec<u64>,
    /// The batch that wrote each op; 0 for none.
    batches: Vec<u64>,
    used: u64,
    name: String,
}

fn cost(entry: &Entry) -> u64 {
    entry.body.len() as u64 + OVERHEAD
}

impl BlockingWriter for Writer {
    fn recover(&mut self) -> Result<Recovered, StorageError> {
        let lost = || StorageError::StateLost(self.name.clone());
        let states = column(&self.db, STATE)?;
        let state = self.db.get_cf(states, STATE_KEY).ok().flatten().ok_or_else(lost)?;
        let (state_batch, state) = state.split_first_chunk().ok_or_else(lost)?;
        let state: VsrState = rmp_serde::from_slice(state).map_err(|_| lost())?;
        let meta = self.db.get_cf(states, META_KEY).ok().flatten().ok_or_else(lost)?;
        let mut meta = Meta::decode(&meta).ok_or_else(lost)?;
        // A slot is kept for each op up to the head: an absurd one is not the protocol's.
        if meta.batch < self.seal.state_batch || meta.head > HEAD_MAX {
            return Err(lost());
        }
        if u64::from_le_bytes(*state_batch) != meta.state_batch {
            tracing::warn!("an older vsr state has come back");
            return Err(lost());
        }
        let head_certain = meta.batch >= self.seal.batch;
        if !head_certain {
            tracing::warn!(found = meta.batch, sealed = self.seal.batch, "the tail of the log was lost");
            (meta.lost_above, meta.lost_batch) = (state.commit.0, self.seal.batch);
        }
        let (found, damaged) = self.find(meta.head)?;
        let batch = |(header, entry): &(Found, Found)| header.or(*entry).map_or(0, |(batch, _)| batch);
        self.batches = found.iter().map(batch).collect();
        let marks = marks(&self.batches, 0);
        // Where a block is damaged it is known what is missing.
        if marks != meta.marks && !damaged {
            tracing::warn!("something in the middle of the log was lost");
            (meta.lost_above, meta.lost_batch) = (0, meta.batch.max(self.seal.batch));
        }
        meta.marks = marks;
        let slots = verdicts(found, damaged, &meta);
        self.sizes = slots.iter().map(|(_, size)| *size).collect();
        self.used = self.sizes.iter().sum();
        let slots = slots.into_iter().map(|(slot, _)| slot).collect();
        // The batch numbers of the lost tail are not used again.
        meta.batch = meta.batch.max(self.seal.batch);
        self.meta = meta;
        Ok(Recovered { state, slots, head_certain })
    }

    fn write(&mut self, batch: Batch) -> Result<(), StorageError> {
        let Batch { state, truncate_above, entries } = batch;
        let kept = truncate_above.map_or(self.meta.head, |above| above.0.min(self.meta.head));
        let need: u64 = entries.iter().map(cost).sum();
        let freed: u64 = self.sizes.iter().skip(kept as usize).sum();
        if !entries.is_empty() && self.used - freed + need > self.meta.log_limit {
            return Err(StorageError::Full { used: self.used - freed, limit: self.meta.log_limit });
        }
        let (log, headers, states) = (column(&self.db, LOG)?, column(&self.db, HEADERS)?, column(&self.db, STATE)?);
        let mut meta = Meta { batch: self.meta.batch + 1, head: kept, ..self.meta };
        let mut write = WriteBatch::default();
        if kept < self.meta.head {
            for family in [log, headers] {
                write.delete_range_cf(family, key(kept + 1), key(u64::MAX));
            }
        }
        meta.marks ^= marks(&self.batches, kept);
        for entry in &entries {
            let op = entry.header.op.0;
            let before = if op <= kept { self.batches.get((op - 1) as usize).copied() } else { None };
            meta.marks ^= mark(op, before.unwrap_or(0)) ^ mark(op, meta.batch);
            meta.head = meta.head.max(op);
            let mut value = Vec::with_capacity(STAMP + Header::LEN + entry.body.len());
            value.extend(meta.batch.to_le_bytes());
            value.extend(entry.header.encode());
            write.put_cf(headers, key(op), &value);
            value.extend(&entry.body);
            write.put_cf(log, key(op), &value);
        }
        let has_state = state.is_some();
        if let Some(state) = state {
            meta.state_batch = meta.batch;
            write.put_cf(states, STATE_KEY, encode_state(meta.batch, &state)?);
        }
        write.put_cf(states, META_KEY, meta.encode());
        self.db.write_opt(write, &synced()).map_err(failed("writing to the database"))?;
        self.seal.batch = meta.batch;
        if has_state {
            self.seal.state_batch = meta.batch;
            self.seal_file.write(self.seal).map_err(failed("writing the seal"))?;
        }
        self.seal_file.write(self.seal).map_err(failed("writing the seal"))?;
        if has_state {
            self.seal_file.sync().map_err(failed("syncing the seal"))?;
        }
        self.meta = meta;
        self.used -= freed;
        self.sizes.truncate(kept as usize);
        self.batches.truncate(kept as usize);
        for entry in &entries {
            let at = (entry.header.op.0 - 1) as usize;
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
        self.meta.log_limit.saturating_sub(self.used)
    }
}

impl Writer {
    /// The header and the entry of each op up to the head, and whether there is anything that cannot be read.
    fn find(&self, head: u64) -> Result<(Vec<(Found, Found)>, bool), StorageError> {
        let mut damaged = false;
        let headers = self.scan(HEADERS, head, &mut damaged, |op, value| {
            let header = decode_header(&value)?;
            (header.1.op.0 == op).then_some(header)
        })?;
        let entries = self.scan(LOG, head, &mut damaged, |op, value| {
            let header = decode_header(&value)?;
            let body = Bytes::from(value).slice(STAMP + Header::LEN..);
            (header.1.op.0 == op && Entry { header: header.1, body }.is_intact()).then_some(header)
        })?;
        Ok((headers.into_iter().zip(entries).collect(), damaged))
    }

    /// Reads a column family op by op up to the head; what cannot be read is passed over and noted.
    fn scan(
        &self,
        name: &'static str,
        head: u64,
        damaged: &mut bool,
        decode: impl Fn(u64, Vec<u8>) -> Found,
    ) -> Result<Vec<Found>, StorageError> {
        let family = column(&self.db, name)?;
        let mut found = vec![None; head as usize];
        let mut seen = vec![false; head as usize];
        let mut broke_off = false;
        for item in self.db.iterator_cf(family, IteratorMode::From(&key(1), Direction::Forward)) {
            let Ok((at, value)) = item else {
                broke_off = true;
                break;
            };
            let Ok(op) = <[u8; 8]>::try_from(&at[..]).map(u64::from_be_bytes) else { continue };
            let Some(slot) = op.checked_sub(1).and_then(|at| found.get_mut(at as usize)) else { continue };
            *slot = decode(op, value.into_vec());
            *damaged |= slot.is_none();
            seen[(op - 1) as usize] = true;
        }
        if broke_off {
            *damaged = true;
            for op in 1..=head {
                let at = (op - 1) as usize;
                if !seen[at]
                    && let Ok(Some(value)) = self.db.get_cf(family, key(op))
                {
                    found[at] = decode(op, value);
                }
            }
        }
        Ok(found)
    }
}

/// A verdict for each op, and the bytes reckoned for it.
fn verdicts(found: Vec<(Found, Found)>, damaged: bool, meta: &Meta) -> Vec<(Slot, u64)> {
    let lost = meta.lost_batch > 0;
    let may_be_lost = |op: u64, batch: u64| lost && op > meta.lost_above && batch <= meta.lost_batch;
    let verdict = |(op, (header, entry)): (u64, (Found, Found))| match (header, entry) {
        (Some((batch, header)), entry) if !may_be_lost(op, batch) => match entry {
            Some((_, found)) if found == header => Slot::Clean(header),
            _ => Slot::Corrupt(Some(header)),
        },
        (None, None) if !damaged && !may_be_lost(op, 0) => Slot::Absent,
        // An entry whose second header is damaged: it cannot be known which of two is the newer one.
        _ => Slot::Corrupt(None),
    };
    let size = |slot: &Slot| match slot {
        Slot::Clean(header) | Slot::Corrupt(Some(header)) => u64::from(header.body_len) + OVERHEAD,
        Slot::Corrupt(None) | Slot::Absent => 0,
    };
    (1..).zip(found).map(verdict).map(|slot| (slot.clone(), size(&slot))).collect()
}

/// The batch that wrote a header, and the header.
type Found = Option<(u64, Header)>;

fn decode_header(value: &[u8]) -> Found {
    let batch = u64::from_le_bytes(*value.first_chunk()?);
    let layout: &[u8; Header::LEN] = value.get(STAMP..)?.first_chunk()?;
    Some((batch, Header::decode(layout)?))
}

struct Reader {
    db: Arc<DB>,
}

impl BlockingReader for Reader {
    fn read(&mut self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        let log = column(&self.db, LOG)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for op in ops.start().0..=ops.end().0 {
            // What cannot be read is one damaged entry, not a broken disk (HAZARDS SF-20).
            let value = self.db.get_cf(log, key(op)).unwrap_or_else(|error| {
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
