//! The log file: one record for each batch, appended.
//!
//! A record names the write before it and the head of the log before its own entries, so a lost record is
//! noticed and a truncated entry never comes back. How the file is judged at a start is [`scan`](crate::scan)'s.
//!
//! What is prepared ends before a sector that cannot be written. When the log has come there it goes on behind it:
//! the next state says where, and which sectors count for nothing from then on.

use bytes::Bytes;
use vsr::protocol::{Entry, Header, Slot};
use vsr::storage::StorageError;

use crate::medium::{Medium, PAGE_SECTORS};
use crate::record::{GENERATION, RecordHeader, front, own, sectors_of};
use crate::sector::{PAYLOAD, SECTOR, Sector, Stamp, blank, judge, spread};
use crate::state::{SKIPPED_MAX, StateRecord};
use crate::{io_error, write_error};

/// Bytes that are prepared or scanned at once.
pub(crate) const STEP: usize = 1 << 20;

/// Sectors that are stepped over at once at most. Where even these do not lead to a good one, the disk is gone.
const STRIDE_MAX: u64 = (1 << 20) / SECTOR as u64;

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

    /// What a start says of it.
    pub(crate) fn slot(&self) -> Slot {
        match self {
            Place { header: Some(header), body: Some(_), .. } => Slot::Clean(*header),
            Place { header, damaged: true, .. } => Slot::Corrupt(*header),
            Place { .. } => Slot::Absent,
        }
    }
}

pub(crate) struct LogFile<M> {
    pub(crate) medium: M,
    pub(crate) path: String,
    pub(crate) salt: u64,
    /// The sector at which the first record begins that is needed, and the last write before it.
    pub(crate) start: u64,
    pub(crate) before: u64,
    /// The sector at which the next record begins.
    pub(crate) tail: u64,
    /// The last complete write.
    pub(crate) last: u64,
    /// The number of the next write.
    next: u64,
    /// Sectors that are prepared.
    pub(crate) prepared: u64,
    /// Where the sectors behind the prepared ones end that cannot be, and why.
    pub(crate) gap: Option<(u64, StorageError)>,
    /// Stretches on which no record lies: from and to.
    pub(crate) skipped: Vec<(u64, u64)>,
    /// Sectors of which a durable state or record says that they are prepared. No record lies above: so a file
    /// that ends below was cut, and rot below can have been a record.
    pub(crate) watermark: u64,
    /// The headers of the last record, if that is one sector: the next one holds a copy of them.
    pub(crate) copy: Vec<u8>,
}

/// What a batch adds to the log.
pub(crate) struct Append<'a> {
    pub(crate) base: u64,
    pub(crate) entries: &'a [Entry],
    /// Whether its headers have to be in two sectors: it may replace entries.
    pub(crate) apart: bool,
}

impl<M: Medium> LogFile<M> {
    /// Prepares the first extent; the caller syncs.
    pub(crate) fn format(medium: &M, salt: u64, extent: u64) -> Result<(), StorageError> {
        prepare(medium, salt, 0, extent / SECTOR as u64)
    }

    pub(crate) fn new(medium: M, path: &str, salt: u64) -> LogFile<M> {
        LogFile {
            medium,
            path: path.to_owned(),
            salt,
            start: 0,
            before: 0,
            tail: 0,
            last: 0,
            next: 1,
            prepared: 0,
            gap: None,
            skipped: Vec::new(),
            watermark: 0,
            copy: Vec::new(),
        }
    }

    /// Stretches on which no record lies.
    pub(crate) fn skipped(&self) -> &[(u64, u64)] {
        &self.skipped
    }

    /// The last complete write.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The sector at which the next record begins.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes from the first record that is needed to where the next one begins.
    pub(crate) fn used(&self) -> u64 {
        self.end() - self.start * SECTOR as u64
    }

    /// Where the next record begins.
    pub(crate) fn end(&self) -> u64 {
        self.tail * SECTOR as u64
    }

    /// Where what is prepared ends.
    pub(crate) fn prepared(&self) -> u64 {
        self.prepared * SECTOR as u64
    }

    /// Where that ends, as a durable state or record says.
    pub(crate) fn watermark(&self) -> u64 {
        self.watermark * SECTOR as u64
    }

    /// Records since the state.
    pub(crate) fn records(&self) -> u64 {
        (self.next & ((1 << GENERATION) - 1)).saturating_sub(1)
    }

    /// The bytes that a batch of entries takes in the file as its next record.
    pub(crate) fn cost(&self, entries: &[Entry], apart: bool) -> u64 {
        let bodies: usize = entries.iter().map(|entry| entry.body.len()).sum();
        (sectors_of(own(entries.len()), self.copy.len(), bodies, apart) * SECTOR) as u64
    }

    /// Where the first record begins that holds an entry of one of these slots, and the last write before it: what was there before is not
    /// needed any more. Where that cannot be said for certain all is needed that was.
    pub(crate) fn first_needed(&self, slots: impl Iterator<Item = Place>) -> (u64, u64) {
        let all = (self.start, self.before);
        let mut first = self.tail;
        for place in slots {
            match place {
                Place { body: Some(Location { record, .. }), .. } => first = first.min(record),
                // That nothing was ever put there is known from the records before.
                Place { damaged: false, .. } => return all,
                Place { .. } => {}
            }
        }
        if first == self.tail {
            return (self.tail, self.last);
        }
        let mut sector = [0; SECTOR];
        let is_read = self.medium.read_at(&mut sector, first * SECTOR as u64).is_ok();
        let is_first = matches!(judge(self.salt, first, &sector), Sector::Valid(Stamp { index: 0, .. }));
        match RecordHeader::decode(&sector).filter(|_| is_read && is_first) {
            Some(record) => (first, record.previous),
            None => all,
        }
    }

    /// What is before the first record that is needed may be written over: a durable state says so.
    pub(crate) fn drop_before(&mut self, (start, before): (u64, u64)) {
        if start > self.start {
            let (from, to) = (self.start * SECTOR as u64, start * SECTOR as u64);
            if let Err(error) = self.medium.discard(from, to - from) {
                tracing::debug!(path = self.path, %error, "no room was given back: it is used again");
            }
        }
        (self.start, self.before) = (start, before);
        self.skipped.retain(|(_, to)| *to > start);
    }

    /// A state is durable that says where the log stands: the records after it are its generation.
    pub(crate) fn begin(&mut self, state: &StateRecord) {
        self.next = (state.generation << GENERATION) + 1;
        self.watermark = state.prepared;
    }

    /// Prepares sectors up to `bytes` in all, durably. They hold valid blanks, so a sync of a later
    /// write has no metadata of the file system to write, and no room to find. They are fewer where one cannot be
    /// written: before it they end.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), StorageError> {
        let to = bytes / SECTOR as u64;
        if to <= self.prepared || self.gap.is_some() {
            return Ok(());
        }
        let failed = match self.prepare(to) {
            Err(error @ StorageError::Io { .. }) => error,
            done => return done,
        };
        // Which page is it? Nothing durable is there yet, and each attempt writes it anew.
        let mut end = to;
        while let Some(middle) = middle(self.prepared, end) {
            match self.prepare(middle) {
                Ok(()) => {}
                Err(StorageError::Io { .. }) => end = middle,
                full => return full,
            }
        }
        match self.prepare(end) {
            // One that fails now and then cannot be believed.
            Ok(()) => Err(failed),
            Err(error @ StorageError::Io { .. }) => {
                let (path, sector) = (&self.path, self.prepared);
                tracing::warn!(path, sector, %error, "the log has a bad sector ahead, and goes on behind it");
                self.gap = Some((end, error));
                Ok(())
            }
            full => full,
        }
    }

    fn prepare(&mut self, to: u64) -> Result<(), StorageError> {
        prepare(&self.medium, self.salt, self.prepared, to)?;
        let syncing = format!("syncing a new extent of {}/log", self.path);
        // Without room nothing counts of it: it is prepared again before it is used.
        self.medium.sync().map_err(write_error(syncing, self.prepared(), to * SECTOR as u64))?;
        self.prepared = to;
        Ok(())
    }

    /// Goes on behind the sectors that cannot be prepared, and `more`. From here on a record needs a state before it
    /// that says so.
    pub(crate) fn step_over(&mut self, more: u64) -> Result<(), StorageError> {
        let Some((bad, error)) = self.gap.take() else {
            return Err(io_error("preparing the log")(std::io::Error::other("it did not become longer")));
        };
        if more > STRIDE_MAX || self.skipped.len() >= SKIPPED_MAX {
            return Err(error);
        }
        let to = bad + more;
        match self.skipped.last_mut() {
            Some((_, end)) if *end == self.tail => *end = to,
            _ => self.skipped.push((self.tail, to)),
        }
        (self.tail, self.prepared, self.watermark) = (to, to, 0);
        Ok(())
    }

    /// Writes a record and makes it durable. The places of its entries, in order.
    pub(crate) fn append(&mut self, append: &Append<'_>) -> Result<Vec<Place>, StorageError> {
        let Append { base, entries, apart } = *append;
        let record = RecordHeader {
            previous: self.last,
            base,
            head: entries.iter().map(|entry| entry.header.op.0).max().unwrap_or(0).max(base),
            prepared: self.prepared,
            count: entries.len() as u32,
            copied: self.copy.len() as u32,
        };
        let front = front(&record, entries.iter().map(|entry| &entry.header));
        let bodies = || entries.iter().map(|entry| &entry.body[..]);
        let bodies_len = bodies().map(<[u8]>::len).sum::<usize>();
        let sectors = sectors_of(front.len(), self.copy.len(), bodies_len, apart);
        // The second copy ends the last sector, so that it can be found without the first.
        let again = if sectors > 1 { front.clone() } else { Vec::new() };
        let padding = vec![0; sectors * PAYLOAD - front.len() - self.copy.len() - bodies_len - again.len()];
        let (again_record, again_headers) = again.split_at(again.len().min(record.encode().len()));
        let pieces = [&front[..], &self.copy].into_iter().chain(bodies());
        let pieces = pieces.chain([&padding[..], again_headers, again_record]);
        let bytes = spread(self.salt, self.tail, self.next, pieces);
        let failed = write_error("writing the log", self.used(), self.prepared());
        self.medium.write_at(&bytes, self.tail * SECTOR as u64).map_err(failed)?;
        let failed = write_error(format!("syncing {}/log", self.path), self.used(), self.prepared());
        self.medium.sync().map_err(failed)?;
        let stamp = Stamp { write: self.next, index: 0, count: sectors as u32 };
        let mut offset = (record.own() + self.copy.len()) as u64;
        let places = entries.iter().map(|entry| {
            let body = Location { record: self.tail, write: stamp.write, count: stamp.count, offset };
            offset += entry.body.len() as u64;
            Place { header: Some(entry.header), body: Some(body), damaged: false }
        });
        let places = places.collect();
        self.copy = if sectors == 1 || apart { front } else { Vec::new() };
        self.last = self.next;
        self.next += 1;
        self.tail += sectors as u64;
        self.watermark = self.watermark.max(record.prepared);
        Ok(places)
    }
}

/// The beginning of a page between two sectors, halfway if there are some.
fn middle(from: u64, to: u64) -> Option<u64> {
    let before = (from + to) / 2 / PAGE_SECTORS * PAGE_SECTORS;
    let middle = if before > from { before } else { before + PAGE_SECTORS };
    (middle < to).then_some(middle)
}

fn prepare<M: Medium>(medium: &M, salt: u64, from: u64, to: u64) -> Result<(), StorageError> {
    let mut at = from;
    while at < to {
        let take = (to - at).min((STEP / SECTOR) as u64);
        let sectors = blank(salt, at, take as usize);
        // Without space nothing was written that was reported as durable: the log is as long as it was.
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
    for (nth, index) in (first..first + sectors).enumerate() {
        let from = nth * SECTOR;
        let stamp = Stamp { write, index: index as u32, count };
        if judge(salt, record + index, &bytes[from..from + SECTOR]) != Sector::Valid(stamp) {
            return Ok(None);
        }
        if nth > 0 {
            // Over the stamp of the sector before: payloads follow each other.
            bytes.copy_within(from..from + PAYLOAD, nth * PAYLOAD);
        }
    }
    let skip = (offset - first * PAYLOAD as u64) as usize;
    Ok(Some(Bytes::from(bytes).slice(skip..skip + len as usize)))
}
