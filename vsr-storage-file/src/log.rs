//! The log file: one record for each batch, appended.
//!
//! A record names the write before it and the head of the log before its own entries, so a lost record is
//! noticed and a truncated entry never comes back. How the file is judged at a start is [`scan`](crate::scan)'s.

use bytes::Bytes;
use vsr::{Entry, Header, StorageError};

use crate::medium::{Medium, read_sectors};
use crate::record::{GENERATION, RecordHeader, own, sectors_of};
use crate::scan::{Candidate, scan};
use crate::sector::{PAYLOAD, SECTOR, Sector, Stamp, blank, judge, spread};
use crate::state::StateRecord;
use crate::{io_error, write_error};

/// Bytes that are prepared or scanned at once.
pub(crate) const STEP: usize = 1 << 20;

/// Where an entry is, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) header: Option<Header>,
    /// `None`: damaged, or nothing.
    pub(crate) body: Option<Location>,
    /// Something was here that cannot be read.
    pub(crate) damaged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The first sector of its record.
    pub(crate) record: u64,
    /// The record's stamp, without the index.
    pub(crate) write: u64,
    pub(crate) count: u32,
    /// Where in the record's payload the body begins.
    pub(crate) offset: u64,
}

impl Place {
    pub(crate) const ABSENT: Place = Place { header: None, body: None, damaged: false };
    pub(crate) const LOST: Place = Place { header: None, body: None, damaged: true };
}

/// The log as it was found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) places: Vec<Place>,
    pub(crate) head_certain: bool,
}

pub(crate) struct LogFile<M> {
    medium: M,
    path: String,
    salt: u64,
    /// The sector at which the next record begins.
    tail: u64,
    /// The last complete write.
    last: u64,
    /// The number of the next write.
    next: u64,
    /// Sectors that are prepared.
    prepared: u64,
    /// Sectors of which a durable state or record says that they are prepared. No record lies above: so a file
    /// that ends below was cut, and rot below can have been a record.
    watermark: u64,
    /// The headers of the last record, if that is one sector: the next one holds a copy of them.
    copy: Vec<u8>,
}

/// What a batch adds to the log.
pub(crate) struct Append<'a> {
    pub(crate) base: u64,
    pub(crate) entries: &'a [Entry],
}

impl<M: Medium> LogFile<M> {
    /// Prepares the first extent; the caller syncs.
    pub(crate) fn format(medium: &M, salt: u64, extent: u64) -> Result<(), StorageError> {
        prepare(medium, salt, 0, extent / SECTOR as u64)
    }

    pub(crate) fn new(medium: M, path: &str, salt: u64) -> LogFile<M> {
        let (path, copy) = (path.to_owned(), Vec::new());
        LogFile { medium, path, salt, tail: 0, last: 0, next: 1, prepared: 0, watermark: 0, copy }
    }

    /// The last complete write.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The sector at which the next record begins.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes up to the next record.
    pub(crate) fn used(&self) -> u64 {
        self.tail * SECTOR as u64
    }

    /// Bytes that are prepared.
    pub(crate) fn prepared(&self) -> u64 {
        self.prepared * SECTOR as u64
    }

    /// Bytes that are prepared, as a durable state or record says.
    pub(crate) fn watermark(&self) -> u64 {
        self.watermark * SECTOR as u64
    }

    /// Records since the state.
    pub(crate) fn records(&self) -> u64 {
        (self.next & ((1 << GENERATION) - 1)).saturating_sub(1)
    }

    /// The bytes that a batch of entries takes in the file as its next record.
    pub(crate) fn cost(&self, entries: &[Entry]) -> u64 {
        let bodies: usize = entries.iter().map(|entry| entry.body.len()).sum();
        (sectors_of(own(entries.len()), self.copy.len(), bodies) * SECTOR) as u64
    }

    /// A state is durable that says where the log stands: the records after it are its generation.
    pub(crate) fn begin(&mut self, state: &StateRecord) {
        self.next = (state.generation << GENERATION) + 1;
        self.watermark = state.prepared;
    }

    /// Prepares sectors up to `bytes` in all, durably. They hold valid blanks, so a sync of a later
    /// write has no metadata of the file system to write.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), StorageError> {
        let to = bytes / SECTOR as u64;
        if to > self.prepared {
            prepare(&self.medium, self.salt, self.prepared, to)?;
            self.medium.sync().map_err(io_error(format!("syncing a new extent of {}/log", self.path)))?;
            self.prepared = to;
        }
        Ok(())
    }

    /// Writes a record and makes it durable. The places of its entries, in order.
    pub(crate) fn append(&mut self, append: &Append<'_>) -> Result<Vec<Place>, StorageError> {
        let Append { base, entries } = *append;
        let record = RecordHeader {
            previous: self.last,
            base,
            head: entries.iter().map(|entry| entry.header.op.0).max().unwrap_or(0).max(base),
            prepared: self.prepared,
            count: entries.len() as u32,
            copied: self.copy.len() as u32,
        };
        let mut front = Vec::from(record.encode());
        front.extend(entries.iter().flat_map(|entry| entry.header.encode()));
        let bodies = || entries.iter().map(|entry| &entry.body[..]);
        let bodies_len = bodies().map(<[u8]>::len).sum::<usize>();
        let sectors = sectors_of(front.len(), self.copy.len(), bodies_len);
        // The second copy ends the last sector, so that it can be found without the first.
        let again = if sectors > 1 { front.clone() } else { Vec::new() };
        let padding = vec![0; sectors * PAYLOAD - front.len() - self.copy.len() - bodies_len - again.len()];
        let (again_record, again_headers) = again.split_at(again.len().min(record.encode().len()));
        let pieces = [&front[..], &self.copy].into_iter().chain(bodies());
        let pieces = pieces.chain([&padding[..], again_headers, again_record]);
        let bytes = spread(self.salt, self.tail, self.next, pieces);
        let failed = write_error("writing the log", self.used(), self.prepared());
        self.medium.write_at(&bytes, self.tail * SECTOR as u64).map_err(failed)?;
        self.medium.sync().map_err(|error| io_error(format!("syncing {}/log", self.path))(error))?;
        let stamp = Stamp { write: self.next, index: 0, count: sectors as u32 };
        let mut offset = (record.own() + self.copy.len()) as u64;
        let places = entries.iter().map(|entry| {
            let body = Location { record: self.tail, write: stamp.write, count: stamp.count, offset };
            offset += entry.body.len() as u64;
            Place { header: Some(entry.header), body: Some(body), damaged: false }
        });
        let places = places.collect();
        self.copy = if sectors == 1 { front } else { Vec::new() };
        self.last = self.next;
        self.next += 1;
        self.tail += sectors as u64;
        self.watermark = self.watermark.max(record.prepared);
        Ok(places)
    }

    /// Reads the whole file, judges every sector, and makes durable what is relied on.
    pub(crate) fn recover(&mut self, state: &StateRecord) -> Result<Scan, StorageError> {
        let found = scan(&self.medium, self.salt, &self.path, state)?;
        if found.newest > state.generation {
            // The log was written under a state that is not here: an older copy was put in its place.
            return Err(StorageError::StateLost(self.path.clone()));
        }
        if let Some(record) = &found.unproved {
            self.write_back(record)?;
        }
        (self.tail, self.last, self.copy) = (found.tail, found.last, found.copy);
        (self.prepared, self.watermark) = (found.prepared, found.prepared);
        Ok(Scan { places: found.places, head_certain: found.head_certain })
    }

    /// Writes again what can be read of the last record, and syncs. Its first sync may have failed, and then
    /// its sectors may be in the memory of the kernel alone, marked as written. Every record before it was
    /// synced before this one was begun.
    fn write_back(&self, record: &Candidate) -> Result<(), StorageError> {
        let position = |index: u64| (record.start + index) * SECTOR as u64;
        let failed = || write_error("writing the end of the log again", position(0), self.prepared());
        let mut bytes = vec![0; record.count as usize * SECTOR];
        read_sectors(&self.medium, &mut bytes, position(0));
        let is_own = |index: u32, sector: &[u8]| {
            let stamp = Stamp { write: record.write, index, count: record.count };
            judge(self.salt, record.start + u64::from(index), sector) == Sector::Valid(stamp)
        };
        if (0..).zip(bytes.chunks_exact(SECTOR)).all(|(index, sector)| is_own(index, sector)) {
            self.medium.write_at(&bytes, position(0)).map_err(failed())?;
        } else {
            for (index, sector) in (0..).zip(bytes.chunks_exact(SECTOR)) {
                if is_own(index, sector) {
                    self.medium.write_at(sector, position(index.into())).map_err(failed())?;
                }
            }
        }
        self.medium.sync().map_err(io_error(format!("syncing {}/log", self.path)))
    }
}

fn prepare<M: Medium>(medium: &M, salt: u64, from: u64, to: u64) -> Result<(), StorageError> {
    let mut at = from;
    while at < to {
        let take = (to - at).min((STEP / SECTOR) as u64);
        let sectors = blank(salt, at, take as usize);
        // Without space nothing that anybody relies on was written: the log is as long as it was.
        let failed = write_error("preparing an extent of the log", at * SECTOR as u64, to * SECTOR as u64);
        medium.write_at(&sectors, at * SECTOR as u64).map_err(failed)?;
        at += take;
    }
    Ok(())
}

/// Reads the body of an entry. `None` when it is not what was written.
pub(crate) fn read<M: Medium>(
    medium: &M,
    salt: u64,
    location: Location,
    len: u32,
) -> Result<Option<Bytes>, StorageError> {
    let Location { record, write, count, offset } = location;
    let first = offset / PAYLOAD as u64;
    let sectors = (offset + u64::from(len)).div_ceil(PAYLOAD as u64).saturating_sub(first);
    let mut bytes = vec![0; sectors as usize * SECTOR];
    medium.read_at(&mut bytes, (record + first) * SECTOR as u64).map_err(io_error("reading the log"))?;
    let mut payload = Vec::with_capacity(sectors as usize * PAYLOAD);
    for (index, sector) in (first..).zip(bytes.chunks_exact(SECTOR)) {
        if judge(salt, record + index, sector) != Sector::Valid(Stamp { write, index: index as u32, count }) {
            return Ok(None);
        }
        payload.extend_from_slice(&sector[..PAYLOAD]);
    }
    let skip = (offset - first * PAYLOAD as u64) as usize;
    Ok(Some(Bytes::from(payload).slice(skip..skip + len as usize)))
}
