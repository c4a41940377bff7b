//! The log file: one record for each batch, appended.
//!
//! A record is a run of stamped sectors that holds a record header, the headers of its entries, their
//! bodies, and record header and headers once more. It names the write before it and the head of the log
//! before its own entries, so a lost record is noticed and a truncated entry never comes back.
//!
//! What becomes of a record that is not whole:
//! - sectors of it are missing, and nothing was written behind it: a crash. It never completed; its ops
//!   are absent, for certain.
//! - a body is damaged: its entry is corrupt, its header known.
//! - both copies of the headers are damaged, or a later record proves that one is missing altogether:
//!   every op above the durable commit number that no later record holds is corrupt, for it may have
//!   been written by the lost one. At the end of the log the head is uncertain as well.

use std::io::ErrorKind;

use bytes::Bytes;
use vsr::{Entry, Header, StorageError};

use crate::io_error;
use crate::medium::Medium;
use crate::sector::{PAYLOAD, SECTOR, Sector, Stamp, blank, judge, sectors_for, spread};
use crate::state::StateRecord;

/// What stands before the headers of a record.
const RECORD: usize = 48;
const MAGIC: u32 = u32::from_le_bytes(*b"vsrL");
/// Ops by which a record may be ahead of the log before it: as far as a replica lets a `Prepare` be ahead.
const LEAP_MAX: u64 = 1 << 21;
/// Bytes that are prepared or scanned at once.
const STEP: usize = 1 << 20;

/// Where an entry is, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) header: Option<Header>,
    /// `None`: damaged, or nothing.
    pub(crate) body: Option<Location>,
    /// Something was here that cannot be read.
    pub(crate) damaged: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    /// The first sector of its record.
    record: u64,
    /// The record's stamp, without the index.
    write: u64,
    count: u32,
    /// Where in the record's payload the body begins.
    offset: u64,
}

impl Place {
    pub(crate) const ABSENT: Place = Place { header: None, body: None, damaged: false };
    const LOST: Place = Place { header: None, body: None, damaged: true };
}

/// The log as it was found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) places: Vec<Place>,
    pub(crate) head_certain: bool,
    /// The newest generation of the state that a record names.
    pub(crate) generation: u64,
}

pub(crate) struct LogFile<M> {
    medium: M,
    salt: u64,
    /// The sector at which the next record begins.
    tail: u64,
    /// The last complete write.
    last: u64,
    /// Not used by any write that left a trace.
    next: u64,
    /// Sectors that are prepared.
    prepared: u64,
}

#[derive(Clone, Copy, Debug)]
struct RecordHeader {
    previous: u64,
    generation: u64,
    /// The head of the log before the entries, truncation done.
    base: u64,
    head: u64,
    count: u32,
}

impl RecordHeader {
    fn encode(&self) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..16].copy_from_slice(&self.previous.to_le_bytes());
        out[16..24].copy_from_slice(&self.generation.to_le_bytes());
        out[24..32].copy_from_slice(&self.base.to_le_bytes());
        out[32..40].copy_from_slice(&self.head.to_le_bytes());
        out[40..44].copy_from_slice(&self.count.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<RecordHeader> {
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        (u32_at(0)? == MAGIC).then_some(())?;
        Some(RecordHeader {
            previous: u64_at(8)?,
            generation: u64_at(16)?,
            base: u64_at(24)?,
            head: u64_at(32)?,
            count: u32_at(40)?,
        })
    }
}

/// What a batch adds to the log.
pub(crate) struct Append<'a> {
    pub(crate) base: u64,
    pub(crate) generation: u64,
    pub(crate) entries: &'a [Entry],
}

/// The bytes that a batch of entries takes in the file.
pub(crate) fn cost(entries: &[Entry]) -> u64 {
    let bodies: usize = entries.iter().map(|entry| entry.body.len()).sum();
    (sectors_for(2 * (RECORD + entries.len() * Header::LEN) + bodies) * SECTOR) as u64
}

impl<M: Medium> LogFile<M> {
    /// Prepares the first extent; the caller syncs.
    pub(crate) fn format(medium: &M, salt: u64, extent: u64) -> Result<(), StorageError> {
        prepare(medium, salt, 0, extent / SECTOR as u64)
    }

    pub(crate) fn new(medium: M, salt: u64) -> LogFile<M> {
        LogFile { medium, salt, tail: 0, last: 0, next: 1, prepared: 0 }
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Bytes up to the next record.
    pub(crate) fn used(&self) -> u64 {
        self.tail * SECTOR as u64
    }

    /// Bytes that are prepared.
    pub(crate) fn prepared(&self) -> u64 {
        self.prepared * SECTOR as u64
    }

    /// Prepares sectors up to `bytes` in all, durably. They hold valid blanks, so a sync of a later
    /// write has no metadata of the file system to write.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), StorageError> {
        let to = bytes / SECTOR as u64;
        if to > self.prepared {
            prepare(&self.medium, self.salt, self.prepared, to)?;
            self.medium.sync().map_err(io_error("syncing a new extent of the log"))?;
            self.prepared = to;
        }
        Ok(())
    }

    /// Writes a record and makes it durable. The places of its entries, in order.
    pub(crate) fn append(&mut self, append: &Append<'_>) -> Result<Vec<Place>, StorageError> {
        let Append { base, generation, entries } = *append;
        let head = entries.iter().map(|entry| entry.header.op.0).max().unwrap_or(0).max(base);
        let record = RecordHeader { previous: self.last, generation, base, head, count: entries.len() as u32 };
        let record = record.encode();
        let headers: Vec<u8> = entries.iter().flat_map(|entry| entry.header.encode()).collect();
        let bodies = || entries.iter().map(|entry| &entry.body[..]);
        let used = 2 * (RECORD + headers.len()) + bodies().map(<[u8]>::len).sum::<usize>();
        // The second copy ends the last sector, so that it can be found without the first.
        let padding = vec![0; sectors_for(used) * PAYLOAD - used];
        let pieces = [&record[..], &headers].into_iter().chain(bodies()).chain([&padding[..], &headers, &record]);
        let bytes = spread(self.salt, self.tail, self.next, pieces);
        self.medium.write_at(&bytes, self.tail * SECTOR as u64).map_err(io_error("writing the log"))?;
        self.medium.sync().map_err(io_error("syncing the log"))?;
        let sectors = (bytes.len() / SECTOR) as u64;
        let stamp = Stamp { write: self.next, index: 0, count: sectors as u32 };
        let places = locate(self.tail, stamp, entries.iter().map(|entry| entry.header));
        self.last = self.next;
        self.next += 1;
        self.tail += sectors;
        self.prepared = self.prepared.max(self.tail);
        Ok(places.collect())
    }

    /// Reads the whole file and judges every sector.
    pub(crate) fn scan(&mut self, state: &StateRecord) -> Result<Scan, StorageError> {
        // What a killed process has written without a sync is read like the rest: make it durable first.
        self.medium.sync().map_err(io_error("syncing the log"))?;
        let sectors = self.judge_all()?;
        let mut scan = Scanning {
            log: self,
            sectors: &sectors,
            state,
            truncated: false,
            places: Vec::new(),
            head_certain: true,
            generation: 0,
            last: 0,
        };
        let tail = scan.run()?;
        let Scanning { places, head_certain, generation, last, .. } = scan;
        let traces = sectors.iter().filter_map(|sector| match sector {
            Sector::Valid(stamp) => Some(stamp.write),
            Sector::Rotten => None,
        });
        self.next = traces.max().unwrap_or(0).max(last).max(state.log_write) + 1;
        (self.tail, self.last) = (tail, last);
        // An extent that was never synced may have holes: it is prepared again from the first of them.
        let unused = sectors.iter().enumerate().skip(tail as usize);
        let hole = unused.filter(|(_, sector)| **sector == Sector::Rotten).map(|(at, _)| at as u64).next();
        self.prepared = hole.unwrap_or(sectors.len() as u64);
        Ok(Scan { places, head_certain, generation })
    }

    fn judge_all(&self) -> Result<Vec<Sector>, StorageError> {
        let failed = io_error("reading the log");
        let len = self.medium.len().map_err(&failed)?;
        let mut sectors = Vec::with_capacity((len / SECTOR as u64) as usize);
        let mut buffer = vec![0; STEP];
        let mut offset = 0;
        // A last piece of a sector is what a crash left of a new extent.
        let whole = len - len % SECTOR as u64;
        while offset < whole {
            let take = (whole - offset).min(STEP as u64) as usize;
            self.medium.read_at(&mut buffer[..take], offset).map_err(&failed)?;
            let position = offset / SECTOR as u64;
            let judged = (position..).zip(buffer[..take].chunks_exact(SECTOR));
            sectors.extend(judged.map(|(at, sector)| judge(self.salt, at, sector)));
            offset += take as u64;
        }
        // An extent that a crash cut off while it was prepared was never in use.
        while sectors.last() == Some(&Sector::Rotten) && !in_use(&sectors) {
            sectors.pop();
        }
        Ok(sectors)
    }
}

/// Whether the rotten end of the file can be anything but an unfinished extent: extents are prepared
/// before records reach them, so a blank sector in front of it says that no record did.
fn in_use(sectors: &[Sector]) -> bool {
    let before = sectors.iter().rev().find(|sector| **sector != Sector::Rotten);
    before.is_some_and(|sector| *sector != Sector::Valid(Stamp::BLANK))
}

fn prepare<M: Medium>(medium: &M, salt: u64, from: u64, to: u64) -> Result<(), StorageError> {
    let mut at = from;
    while at < to {
        let take = (to - at).min((STEP / SECTOR) as u64);
        let sectors = blank(salt, at, take as usize);
        medium.write_at(&sectors, at * SECTOR as u64).map_err(|error| match error.kind() {
            // Nothing that anybody relies on was written: the log is as long as it was.
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                StorageError::Full { used: at * SECTOR as u64, limit: to * SECTOR as u64 }
            }
            _ => io_error("preparing an extent of the log")(error),
        })?;
        at += take;
    }
    Ok(())
}

/// Where the bodies of a record's entries are.
fn locate(record: u64, stamp: Stamp, headers: impl ExactSizeIterator<Item = Header>) -> impl Iterator<Item = Place> {
    let mut offset = (RECORD + headers.len() * Header::LEN) as u64;
    headers.map(move |header| {
        let body = Location { record, write: stamp.write, count: stamp.count, offset };
        offset += u64::from(header.body_len);
        Place { header: Some(header), body: Some(body), damaged: false }
    })
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

struct Scanning<'a, M> {
    log: &'a LogFile<M>,
    sectors: &'a [Sector],
    state: &'a StateRecord,
    /// Whether the truncation of the state is done.
    truncated: bool,
    places: Vec<Place>,
    head_certain: bool,
    generation: u64,
    last: u64,
}

/// A record that may begin at some sector.
#[derive(Clone, Copy)]
struct Claim {
    write: u64,
    count: u64,
}

impl<M: Medium> Scanning<'_, M> {
    fn run(&mut self) -> Result<u64, StorageError> {
        let mut at = 0;
        loop {
            let next = self.next_record(at + 1);
            match self.claim(at) {
                Some(claim) if self.is_complete(at, claim) || next.is_some() => {
                    self.take(at, claim)?;
                    at += claim.count;
                }
                Some(claim) => {
                    // Torn: it never completed, and nothing was acknowledged. With rot among it that is
                    // not certain: a shorter record, all of it rotten, may have been written over it.
                    let rotten = (at..at + claim.count).any(|at| self.sector(at) == Sector::Rotten);
                    self.finish(at, rotten);
                    return Ok(self.behind_rot(at));
                }
                None => match next {
                    Some(next) => {
                        self.lose();
                        at = next;
                    }
                    None => {
                        let rotten = at < self.sectors.len() as u64 && self.sector(at) == Sector::Rotten;
                        self.finish(at, rotten);
                        return Ok(self.behind_rot(at));
                    }
                },
            }
        }
    }

    /// The evidence of a lost record stays: what comes next is written behind it.
    fn behind_rot(&self, mut at: u64) -> u64 {
        while at < self.sectors.len() as u64 && self.sector(at) == Sector::Rotten {
            at += 1;
        }
        at
    }

    fn sector(&self, at: u64) -> Sector {
        self.sectors.get(at as usize).copied().unwrap_or(Sector::Valid(Stamp::BLANK))
    }

    fn stamp(&self, at: u64) -> Option<Stamp> {
        match self.sector(at) {
            Sector::Valid(stamp) if stamp.write > self.last => Some(stamp),
            _ => None,
        }
    }

    /// What the sectors say of a record at `at`: the newest write that claims to begin there.
    fn claim(&self, at: u64) -> Option<Claim> {
        let mut best: Option<Claim> = None;
        let mut end = at + 1;
        let mut scan = at;
        // A record whose first sectors are rotten is named by its later ones.
        while scan < end.max(self.behind_rot(at) + 1) && scan < self.sectors.len() as u64 {
            if let Some(stamp) = self.stamp(scan)
                && scan.checked_sub(u64::from(stamp.index)) == Some(at)
                && stamp.index < stamp.count
            {
                end = end.max(at + u64::from(stamp.count));
                if best.is_none_or(|best| stamp.write > best.write) {
                    best = Some(Claim { write: stamp.write, count: u64::from(stamp.count) });
                }
            }
            scan += 1;
        }
        best
    }

    fn is_complete(&self, at: u64, claim: Claim) -> bool {
        // Rot does not make a record incomplete: only a valid sector of another write does.
        (at..at + claim.count).all(|at| match self.sector(at) {
            Sector::Valid(stamp) => stamp.write == claim.write,
            Sector::Rotten => true,
        }) && at + claim.count <= self.sectors.len() as u64
    }

    /// The nearest sector from `from` on at which a later record begins.
    fn next_record(&self, from: u64) -> Option<u64> {
        let mut at = from;
        while at < self.sectors.len() as u64 {
            if let Some(stamp) = self.stamp(at)
                && let Some(start) = at.checked_sub(u64::from(stamp.index))
                && start >= from
            {
                return Some(start);
            }
            // Blank sectors end the log, but for what is behind a lost record.
            at += 1;
        }
        None
    }

    /// Takes in a complete record, as far as it can be read.
    fn take(&mut self, at: u64, claim: Claim) -> Result<(), StorageError> {
        let Some((record, headers)) = self.read_headers(at, claim)? else {
            self.lose();
            self.last = claim.write;
            if self.next_record(at + claim.count).is_none() && at + claim.count > self.state.tail {
                self.head_certain = false;
            }
            return Ok(());
        };
        if record.previous != self.last {
            self.lose();
        }
        self.truncate_by_state(claim.write);
        self.generation = self.generation.max(record.generation);
        self.places.truncate(record.base as usize);
        while (self.places.len() as u64) < record.base {
            self.places.push(Place::LOST);
        }
        let stamp = Stamp { write: claim.write, index: 0, count: claim.count as u32 };
        for mut place in locate(at, stamp, headers.into_iter()) {
            let Some(header) = place.header else { continue };
            if !self.is_readable(place.body, header.body_len) {
                (place.body, place.damaged) = (None, true);
            }
            while (self.places.len() as u64) < header.op.0 {
                self.places.push(Place::ABSENT);
            }
            if let Some(slot) = self.places.get_mut((header.op.0 - 1) as usize) {
                *slot = place;
            }
        }
        self.last = claim.write;
        Ok(())
    }

    fn is_readable(&self, location: Option<Location>, len: u32) -> bool {
        location.is_some_and(|Location { record, write, offset, .. }| {
            let sectors = offset / PAYLOAD as u64..(offset + u64::from(len)).div_ceil(PAYLOAD as u64);
            sectors
                .into_iter()
                .all(|index| matches!(self.sector(record + index), Sector::Valid(stamp) if stamp.write == write))
        })
    }

    /// Record header and entry headers, from whichever copy is intact.
    fn read_headers(&self, at: u64, claim: Claim) -> Result<Option<(RecordHeader, Vec<Header>)>, StorageError> {
        let whole = Location { record: at, write: claim.write, count: claim.count as u32, offset: 0 };
        let read = |offset: u64, len: usize| -> Result<Option<Bytes>, StorageError> {
            let location = Location { offset, ..whole };
            if !self.is_readable(Some(location), len as u32) {
                return Ok(None);
            }
            read(&self.log.medium, self.log.salt, location, len as u32)
        };
        if let Some(bytes) = read(0, RECORD)?
            && let Some(record) = RecordHeader::decode(&bytes)
            && let Some(bytes) = read(RECORD as u64, record.count as usize * Header::LEN)?
            && let Some(headers) = self.decode_headers(&record, &bytes)
        {
            return Ok(Some((record, headers)));
        }
        // The second copy ends the last sector.
        let end = claim.count * PAYLOAD as u64;
        if let Some(bytes) = read(end - RECORD as u64, RECORD)?
            && let Some(record) = RecordHeader::decode(&bytes)
            && let len = u64::from(record.count) * Header::LEN as u64
            && let Some(start) = (end - RECORD as u64).checked_sub(len)
            && let Some(bytes) = read(start, len as usize)?
            && let Some(headers) = self.decode_headers(&record, &bytes)
        {
            return Ok(Some((record, headers)));
        }
        Ok(None)
    }

    /// The headers of a record, unless they name ops that no replica can have put: a slot is kept for each op up to the head.
    fn decode_headers(&self, record: &RecordHeader, bytes: &[u8]) -> Option<Vec<Header>> {
        let most = self.places.len() as u64 + LEAP_MAX;
        let headers: Vec<Header> =
            bytes.as_chunks::<{ Header::LEN }>().0.iter().map(Header::decode).collect::<Option<_>>()?;
        let plausible = record.base <= most && headers.iter().all(|header| (1..=most).contains(&header.op.0));
        plausible.then_some(headers)
    }

    /// A record is missing, and it may have held any op that is not known to be committed.
    fn lose(&mut self) {
        let from = self.state.state.commit.0 as usize;
        for place in self.places.iter_mut().skip(from) {
            *place = Place::LOST;
        }
    }

    /// The truncation that the state carries, at its place between the records.
    fn truncate_by_state(&mut self, before: u64) {
        if !self.truncated && before > self.state.log_write {
            self.truncated = true;
            self.places.truncate(self.state.head as usize);
            // A state that names an absurd head is not the protocol's; its log is not believed any further.
            let head = self.state.head.min(self.places.len() as u64 + LEAP_MAX);
            while (self.places.len() as u64) < head {
                self.places.push(Place::LOST);
            }
        }
    }

    /// The end of the log. `rotten`: something unreadable is there that may have been a record.
    fn finish(&mut self, at: u64, rotten: bool) {
        let lost = self.last < self.state.log_write;
        if rotten || lost {
            self.lose();
        }
        // What the state knew of was reported, and is the protocol's to remember.
        if lost || rotten && self.behind_rot(at) > self.state.tail {
            self.head_certain = false;
        }
        self.truncate_by_state(u64::MAX);
    }
}
