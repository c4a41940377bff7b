//! The vsr state in two pairs of copies that are written in turn, and with it what the storage itself has to
//! remember: where the log stood, how much of it is prepared, and what was found lost.
//!
//! A write goes to both copies of one pair and never touches the other pair, so a crash inside it leaves
//! the newest state whole. If both copies of a pair rot, that is noticed and refused: the older
//! pair must not be taken for the newest state, for it has forgotten a promise (hazards SF-17, SF-19).
//! Copies lie in pages of their own: one that goes bad takes one of them.
//!
//! A copy on a sector that cannot be written may show an old state for ever. So where one of a pair fails, and
//! fails again alone, the state is written to the other pair as well, before it counts; the next write begins with
//! the same pair. So a state that counts stands whole in two copies, whatever the bad sector shows.

use std::io;

use vsr::protocol::{Header, MEMBERS_MAX, VsrState};
use vsr::storage::StorageError;
use xxhash_rust::xxh3::xxh3_64;

use crate::medium::{Medium, read_sectors};
use crate::ranges::{Lost, LostSlots};
use crate::record::GENERATION;
use crate::sector::{PAYLOAD, SECTOR, Sector, Stamp, blank, judge, spread};
use crate::site::Site;
use crate::{io_error, write_error};

/// The version of the format of both files.
pub(crate) const VERSION: u32 = 4;
/// More sectors, and ops, than a log ever has.
const NUMBER_MAX: u64 = 1 << 52;

const MAGIC: &[u8; 8] = b"vsr disk";
const SUPERBLOCK_SALT: u64 = 0x7673_7220_6469_736b;
const SLOTS: u64 = 4;
const FIRST_SLOT: u64 = 8;
const SLOT_SECTORS: u64 = 2048;
/// Bytes of a slot.
const ROOM: u64 = SLOT_SECTORS * PAYLOAD as u64;
const LAST_PAGE: u64 = FIRST_SLOT + SLOTS * SLOT_SECTORS;
/// Where the superblocks are; behind each is a copy of the site.
const SUPERBLOCKS: [u64; 2] = [0, LAST_PAGE];
const SECTORS: u64 = LAST_PAGE + 8;

/// What stands for a place of which no record can be read.
pub(crate) const NOTHING: &str = "nothing that can be read";

/// What is decided when a disk is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Tells the sectors of this disk from those of any other.
    pub(crate) salt: u64,
    /// Bytes that the log file may grow to.
    pub(crate) log_limit: u64,
    /// Bytes by which it grows at first.
    pub(crate) extent: u64,
}

/// How far down the records of some generations of the state reach. Elsewhere a record only adds: it puts ops
/// above the head, or into slots that held nothing, or the same entry once more. So if it is lost, every entry
/// that was there before it is still what the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The generations.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The lowest op that can have been dropped or replaced.
    pub(crate) floor: u64,
    /// Whether any record in these generations can have done so; else their first state did.
    pub(crate) inside: bool,
    /// The last record of these generations; the largest number as long as there may be more.
    pub(crate) end: u64,
}

/// Reaches that are kept apart.
const REACHES_MAX: usize = 24;
/// Runs of lost slots that a state holds.
const LOST_RUNS_MAX: usize = 1 << 13;
/// Stretches of the log that a state can name as skipped.
pub(crate) const SKIPPED_MAX: usize = 1 << 10;
/// Headers that a state has room for: of the pipeline (at most 1,024), and of what a commit number may be behind.
const HEADERS_MAX: u64 = 5 << 10;

/// A vsr state, and what ties it to the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StateRecord {
    /// Grows with every write. Records of the log carry the one that they were written under.
    pub(crate) generation: u64,
    /// The last complete write to the log before this state. What else was found up to `tail` never completed,
    /// or was lost: it never counts again.
    pub(crate) log_write: u64,
    /// The sector at which the first record begins that holds anything that was not dropped, and the last write before it.
    pub(crate) start: u64,
    pub(crate) before: u64,
    /// The head of the log that this state left: what the log held above it is truncated.
    pub(crate) head: u64,
    /// The sector at which the next record of the log begins. Rot before it is old news.
    pub(crate) tail: u64,
    /// Sectors of the log that were durably prepared. A log without them was cut.
    pub(crate) prepared: u64,
    /// False from a start at which the end of the log was lost until the replica has noted it in its own state.
    pub(crate) certain: bool,
    /// Slots whose entries are gone, whatever the log still shows.
    pub(crate) lost: LostSlots,
    pub(crate) reaches: Vec<Reach>,
    /// Stretches of sectors of the log, from and to, that were bad where a record would have begun. The log has gone
    /// on behind them, and whatever they show one day does not count.
    pub(crate) skipped: Vec<(u64, u64)>,
    pub(crate) state: VsrState,
}

/// A [`StateRecord`] without its generation, as it is encoded.
type Parts<L, R, K, S> = ((u64, u64, u64, u64, u64, u64), bool, L, R, K, S);
type OwnedParts = Parts<Vec<Lost>, Vec<ReachParts>, Vec<(u64, u64)>, VsrState>;
type ReachParts = (u64, u64, u64, bool, u64);

impl StateRecord {
    pub(crate) fn first(generation: u64, prepared: u64, state: &VsrState) -> StateRecord {
        StateRecord {
            generation,
            log_write: 0,
            start: 0,
            before: 0,
            head: 0,
            tail: 0,
            prepared,
            certain: true,
            lost: LostSlots::default(),
            reaches: Vec::new(),
            skipped: Vec::new(),
            state: state.clone(),
        }
    }

    /// The lowest op that what came after record `from`, up to the last of generation `to`, can have dropped or
    /// replaced.
    pub(crate) fn lowest(&self, from: u64, to: u64) -> u64 {
        let reaches = self.reaches.iter().filter(|reach| {
            let begins = if reach.inside { reach.end > from } else { reach.first > from >> GENERATION };
            begins && reach.first <= to
        });
        reaches.map(|reach| reach.floor).min().unwrap_or(u64::MAX)
    }

    /// Adds a reach. Where there are too many the oldest are taken together, as the larger of both.
    pub(crate) fn add_reach(&mut self, reach: Reach) {
        self.reaches.push(reach);
        if self.reaches.len() > REACHES_MAX {
            let oldest = self.reaches.remove(0);
            if let Some(next) = self.reaches.first_mut() {
                *next = Reach { first: oldest.first, floor: oldest.floor.min(next.floor), inside: true, ..*next };
            }
        }
    }

    /// Refuses a cluster whose states may become larger than a slot: its replicas would stop at one.
    pub(crate) fn check_room(state: &VsrState) -> Result<(), StorageError> {
        let bytes = StateRecord::most(state)?;
        if bytes > ROOM { Err(StorageError::StateTooLarge { bytes, room: ROOM }) } else { Ok(()) }
    }

    /// Bytes that a state of the cluster can take of which this is the first one.
    fn most(state: &VsrState) -> Result<u64, StorageError> {
        let bare = StateRecord::first(1, 0, state).encode()?.len() as u64;
        // As MessagePack at its longest: 9 bytes for a number, 18 for one of 128 bits, 5 for a length.
        let parts = [
            (HEADERS_MAX, Header::LEN as u64 + 5),
            (MEMBERS_MAX as u64, 5 * 2 + 18 + 4 * 9),
            (LOST_RUNS_MAX as u64, 5 + 3 * 9),
            (REACHES_MAX as u64, 5 + 3 * 9 + 1),
            (SKIPPED_MAX as u64, 5 + 2 * 9),
            // The checkpoints that are named, and the header of what was dropped.
            (2, 5 + 9 + 18),
            (1, Header::LEN as u64 + 5),
            // The numbers that are there already, and grow.
            (64, 9),
        ];
        Ok(bare + parts.iter().map(|(count, each)| count * each).sum::<u64>())
    }

    /// Length, checksum, MessagePack. The stamps of the sectors say that a write is whole, the checksum that it is
    /// one write.
    fn encode(&self) -> Result<Vec<u8>, StorageError> {
        let reaches: Vec<ReachParts> =
            self.reaches.iter().map(|reach| (reach.first, reach.last, reach.floor, reach.inside, reach.end)).collect();
        let (certain, lost) = (self.certain, self.lost.runs(LOST_RUNS_MAX));
        let numbers = (self.log_write, self.start, self.before, self.head, self.tail, self.prepared);
        let parts: Parts<_, _, _, _> = (numbers, certain, lost, reaches, &self.skipped, &self.state);
        let bytes =
            rmp_serde::to_vec(&parts).map_err(|error| io_error("encoding the state")(std::io::Error::other(error)))?;
        let mut out = Vec::with_capacity(16 + bytes.len());
        out.extend((bytes.len() as u64).to_le_bytes());
        out.extend(xxh3_64(&bytes).to_le_bytes());
        out.extend(bytes);
        let taken = out.len() as u64;
        if taken > ROOM { Err(StorageError::StateTooLarge { bytes: taken, room: ROOM }) } else { Ok(out) }
    }

    fn decode(generation: u64, bytes: &[u8]) -> Option<StateRecord> {
        let parts: OwnedParts = rmp_serde::from_slice(bytes).ok()?;
        let ((log_write, start, before, head, tail, prepared), certain, lost, reaches, skipped, state) = parts;
        // Nothing here computes with numbers that no log reaches, whoever has written them.
        if [start, head, tail, prepared].iter().any(|number| *number >= NUMBER_MAX) {
            return None;
        }
        let lost = LostSlots::of(&lost);
        let reaches = reaches
            .into_iter()
            .map(|(first, last, floor, inside, end)| Reach { first, last, floor, inside, end })
            .collect();
        let record = StateRecord {
            generation,
            log_write,
            start,
            before,
            head,
            tail,
            prepared,
            certain,
            lost,
            reaches,
            skipped,
            state,
        };
        Some(record)
    }
}

pub(crate) struct StateFile<M> {
    medium: M,
    path: String,
    salt: u64,
    /// The generation of the next write.
    next: u64,
    /// The pair that is written next: the other one holds the newest state.
    pair: u64,
}

impl<M: Medium> StateFile<M> {
    /// Writes superblock and first state; the caller syncs.
    pub(crate) fn format(
        medium: &M,
        superblock: Superblock,
        state: &VsrState,
        site: Option<&Site>,
    ) -> Result<(), StorageError> {
        let failed = io_error("formatting the state file");
        medium.write_at(&blank(superblock.salt, 0, SECTORS as usize), 0).map_err(&failed)?;
        let mut bytes = Vec::from(*MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(superblock.salt.to_le_bytes());
        bytes.extend(superblock.log_limit.to_le_bytes());
        bytes.extend(superblock.extent.to_le_bytes());
        for position in SUPERBLOCKS {
            let sectors = spread(SUPERBLOCK_SALT, position, 1, [&bytes[..]].into_iter());
            medium.write_at(&sectors, position * SECTOR as u64).map_err(&failed)?;
        }
        for position in SUPERBLOCKS {
            if let Some(site) = site {
                write_site(medium, position, site).map_err(&failed)?;
            }
        }
        let prepared = superblock.extent / SECTOR as u64;
        for generation in [1, 2] {
            let bytes = StateRecord::first(generation, prepared, state).encode()?;
            write_copies(medium, superblock.salt, &copies_of(generation % 2), generation, &bytes)?;
        }
        Ok(())
    }

    /// Reads the superblock. `has_log` says that there is something in the log: then this was formatted once.
    pub(crate) fn open(medium: M, path: &str, has_log: bool) -> Result<(StateFile<M>, Superblock), StorageError> {
        let len = medium.len().map_err(io_error(format!("reading {path}/state")))?;
        let (mut known, mut error, mut found) = (false, None, Vec::new());
        for position in SUPERBLOCKS {
            let mut sector = [0; SECTOR];
            error = error.or(read_sectors(&medium, &mut sector, position * SECTOR as u64).error);
            known |= sector.starts_with(MAGIC);
            if !is_superblock(position, &sector) {
                continue;
            }
            let u32_at = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().unwrap_or_default());
            let u64_at = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().unwrap_or_default());
            let version = u32_at(8);
            if version != VERSION {
                return Err(StorageError::Version { path: path.to_owned(), found: version, known: VERSION });
            }
            found.push(Superblock { salt: u64_at(12), log_limit: u64_at(20), extent: u64_at(28) });
        }
        // One that a misdirected write has left is intact, and another disk's: what lies between the two is not.
        let own = found.iter().find(|superblock| holds_slot(&medium, superblock.salt)).or(found.first()).copied();
        if let Some(superblock) = own {
            let file = StateFile { medium, path: path.to_owned(), salt: superblock.salt, next: 0, pair: 0 };
            return Ok((file, superblock));
        }
        if known {
            return Err(lost(path));
        }
        if len == 0 && !has_log {
            return Err(StorageError::NotFormatted(path.to_owned()));
        }
        let what = match error {
            _ if len == 0 => "it is empty".to_owned(),
            Some(error) if len >= SECTORS * SECTOR as u64 => format!("its superblocks cannot be read ({error})"),
            _ => "it holds no superblock of this program".to_owned(),
        };
        Err(StorageError::Damaged { path: format!("{path}/state"), what })
    }

    /// Refuses a place that is not the one that was recorded.
    pub(crate) fn check_site(&self, found: &Site) -> Result<(), StorageError> {
        let sites = self.read_sites();
        if let Some(recorded) = sites.iter().find(|recorded| recorded.is_same(found)) {
            if recorded != found {
                tracing::warn!(path = self.path, %recorded, %found, "the storage is on another device, or was mounted anew");
            }
            return Ok(());
        }
        Err(StorageError::OtherPlace {
            path: self.path.clone(),
            recorded: sites.first().map_or_else(|| NOTHING.to_owned(), Site::to_string),
            found: found.to_string(),
        })
    }

    /// Each copy that can be read. One on a sector that cannot be written may be an older one.
    pub(crate) fn read_sites(&self) -> Vec<Site> {
        let sites = SUPERBLOCKS.into_iter().filter_map(|position| {
            let mut sector = [0; SECTOR];
            read_sectors(&self.medium, &mut sector, (position + 1) * SECTOR as u64);
            let is_whole = judge(SUPERBLOCK_SALT, position + 1, &sector) != Sector::Rotten;
            is_whole.then(|| Site::decode(&sector)).flatten()
        });
        sites.collect()
    }

    /// Records the place that the files are in now, durably. One copy is enough: the other one may lie on a sector
    /// that cannot be written.
    pub(crate) fn write_site(&self, site: &Site) -> Result<(), StorageError> {
        let write = |position| write_site(&self.medium, position, site).and_then(|()| self.medium.sync());
        match SUPERBLOCKS.map(write) {
            [Err(error), Err(_)] => Err(self.failed("recording the place in")(error)),
            _ => Ok(()),
        }
    }

    /// The newest state, if it is certain that it is the newest. Durable when this returns: what a process
    /// wrote whose sync failed, or that was killed, is read like the rest, and is written again.
    pub(crate) fn recover(&mut self) -> Result<StateRecord, StorageError> {
        let newest = self.newest()?;
        let (pair, Whole { record, bytes }) = newest.ok_or_else(|| lost(&self.path))?;
        // The same bytes at the same places: a crash in between changes nothing, and a damaged copy is mended.
        self.put(pair, record.generation, &bytes)?;
        self.next = record.generation + 1;
        Ok(record)
    }

    /// The newest state and its pair, as it is read.
    fn newest(&self) -> Result<Option<(u64, Whole)>, StorageError> {
        let mut newest: Option<(u64, Whole)> = None;
        for pair in 0..2 {
            let copies = [self.read_copy(pair * 2), self.read_copy(pair * 2 + 1)];
            // A torn copy, or a whole one, bounds what the pair can have held; two rotten ones say nothing.
            if copies.iter().all(|copy| matches!(copy, Copy::Rotten)) {
                return Err(lost(&self.path));
            }
            for copy in copies {
                if let Copy::Whole(whole) = copy
                    && newest.as_ref().is_none_or(|(_, newest)| whole.record.generation > newest.record.generation)
                {
                    newest = Some((pair, *whole));
                }
            }
        }
        Ok(newest)
    }

    /// What each copy is, and the newest state that can be read, if there is one. Changes nothing.
    pub(crate) fn look(&self) -> (Vec<StateCopy>, Option<SeenState>) {
        // As a start decides, then what is left where it refuses.
        let is_newest = matches!(self.newest(), Ok(Some(_)));
        let (mut copies, mut newest) = (Vec::new(), None::<StateRecord>);
        for slot in 0..SLOTS {
            copies.push(match self.read_copy(slot) {
                Copy::Whole(whole) => {
                    let generation = whole.record.generation;
                    if newest.as_ref().is_none_or(|newest| generation > newest.generation) {
                        newest = Some(whole.record);
                    }
                    StateCopy::Intact { generation }
                }
                Copy::Torn => StateCopy::Unfinished,
                Copy::Rotten => StateCopy::Damaged,
            });
        }
        (copies, newest.map(|record| SeenState { record, is_newest }))
    }

    /// How many copies of the superblock are damaged.
    pub(crate) fn damaged_superblocks(&self) -> u64 {
        let is_damaged = |position: &u64| {
            let mut sector = [0; SECTOR];
            read_sectors(&self.medium, &mut sector, position * SECTOR as u64);
            !is_superblock(*position, &sector)
        };
        SUPERBLOCKS.iter().filter(|position| is_damaged(position)).count() as u64
    }

    fn read_copy(&self, slot: u64) -> Copy {
        let position = FIRST_SLOT + slot * SLOT_SECTORS;
        let mut bytes = vec![0; SECTOR];
        read_sectors(&self.medium, &mut bytes, position * SECTOR as u64);
        if let Sector::Valid(first) = judge(self.salt, position, &bytes)
            && first.write > 0
            && first.index == 0
            && (1..=SLOT_SECTORS).contains(&u64::from(first.count))
        {
            let sectors = self.read_slot(position, u64::from(first.count), &mut bytes);
            let is_whole =
                (0..).zip(&sectors).all(|(index, sector)| *sector == Sector::Valid(Stamp { index, ..first }));
            if is_whole {
                return whole(first.write, &bytes);
            }
        }
        let sectors = self.read_slot(position, SLOT_SECTORS, &mut bytes);
        if sectors.contains(&Sector::Rotten) { Copy::Rotten } else { Copy::Torn }
    }

    fn read_slot(&self, position: u64, sectors: u64, bytes: &mut Vec<u8>) -> Vec<Sector> {
        bytes.resize(sectors as usize * SECTOR, 0);
        read_sectors(&self.medium, bytes, position * SECTOR as u64);
        (position..).zip(bytes.chunks_exact(SECTOR)).map(|(at, sector)| judge(self.salt, at, sector)).collect()
    }

    /// The generation that the next write will have.
    pub(crate) fn next_generation(&self) -> u64 {
        self.next
    }

    /// Makes a state durable, beside the one before.
    pub(crate) fn write(&mut self, record: &StateRecord) -> Result<(), StorageError> {
        // Whatever becomes of the write, its number is used up.
        self.next = record.generation + 1;
        if record.generation >> GENERATION != 0 {
            return Err(io_error("writing the state")(std::io::Error::other("no generation is left")));
        }
        self.put(self.pair, record.generation, &record.encode()?)
    }

    /// Makes a state durable in two copies: those of a pair, or, where one of them cannot be written, in the other
    /// pair as well.
    fn put(&mut self, pair: u64, generation: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.pair = if self.put_pair(pair, generation, bytes)? {
            1 - pair
        } else {
            self.put_pair(1 - pair, generation, bytes)?;
            pair
        };
        Ok(())
    }

    /// Makes a state durable in a pair: in both copies, or, and then it says `false`, in the one that can be written.
    fn put_pair(&self, pair: u64, generation: u64, bytes: &[u8]) -> Result<bool, StorageError> {
        let copies = copies_of(pair);
        let failed = match self.put_copies(&copies, generation, bytes) {
            Ok(()) => return Ok(true),
            Err(error @ StorageError::Io { .. }) => error,
            Err(error) => return Err(error),
        };
        // Whose fault was it? Each is written anew, alone: what a sync has failed to write no later one does.
        match copies.map(|copy| self.put_copies(&[copy], generation, bytes)) {
            [Ok(()), Err(error)] | [Err(error), Ok(())] => {
                tracing::warn!(path = self.path, %error, "a copy of the vsr state is on a bad sector: replace the disk");
                Ok(false)
            }
            // One that fails now and then cannot be believed (clause 10).
            _ => Err(failed),
        }
    }

    fn put_copies(&self, copies: &[u64], generation: u64, bytes: &[u8]) -> Result<(), StorageError> {
        write_copies(&self.medium, self.salt, copies, generation, bytes)?;
        self.medium.sync().map_err(self.failed("syncing"))
    }

    /// Its size does not change: without room the file system has none for what is written over something.
    fn failed(&self, doing: &str) -> impl Fn(io::Error) -> StorageError + use<M> {
        let room = SECTORS * SECTOR as u64;
        write_error(format!("{doing} {}/state", self.path), room, room)
    }
}

/// The file is named: an operator looks at it.
pub(crate) fn lost(path: &str) -> StorageError {
    StorageError::StateLost(format!("{path}/state"))
}

fn is_superblock(position: u64, sector: &[u8]) -> bool {
    judge(SUPERBLOCK_SALT, position, sector) != Sector::Rotten && sector.starts_with(MAGIC)
}

/// Whether a slot begins with a sector of the disk of this salt.
fn holds_slot<M: Medium>(medium: &M, salt: u64) -> bool {
    (0..SLOTS).any(|slot| {
        let position = FIRST_SLOT + slot * SLOT_SECTORS;
        let mut sector = [0; SECTOR];
        read_sectors(medium, &mut sector, position * SECTOR as u64);
        judge(salt, position, &sector) != Sector::Rotten
    })
}

fn copies_of(pair: u64) -> [u64; 2] {
    [pair * 2, pair * 2 + 1]
}

/// One of the four copies of the vsr state, as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateCopy {
    /// A whole state.
    Intact {
        /// Which one: each write has the next number.
        generation: u64,
    },
    /// A write to it was cut short by a crash, and counts for nothing. This is no damage.
    Unfinished,
    /// Rot: it may have been the newest state.
    Damaged,
}

/// A state that was read by somebody who only looks.
pub(crate) struct SeenState {
    pub(crate) record: StateRecord,
    /// Whether it is certain that it is the newest: else a start refuses it.
    pub(crate) is_newest: bool,
}

enum Copy {
    Whole(Box<Whole>),
    /// A write to it never completed: what came before it, in the other pair, is the newest.
    Torn,
    Rotten,
}

struct Whole {
    record: StateRecord,
    /// As it was encoded.
    bytes: Vec<u8>,
}

fn write_site<M: Medium>(medium: &M, position: u64, site: &Site) -> std::io::Result<()> {
    let bytes = site.encode();
    let sectors = spread(SUPERBLOCK_SALT, position + 1, 1, [&bytes[..]].into_iter());
    medium.write_at(&sectors, (position + 1) * SECTOR as u64)
}

/// Writes copies of a state, by their slots.
fn write_copies<M: Medium>(
    medium: &M,
    salt: u64,
    slots: &[u64],
    generation: u64,
    bytes: &[u8],
) -> Result<(), StorageError> {
    for slot in slots {
        let position = FIRST_SLOT + slot * SLOT_SECTORS;
        let sectors = spread(salt, position, generation, [bytes].into_iter());
        let room = SECTORS * SECTOR as u64;
        medium.write_at(&sectors, position * SECTOR as u64).map_err(write_error(
            "writing the state file",
            position * SECTOR as u64,
            room,
        ))?;
    }
    Ok(())
}

/// What the sectors of one write say, all of which are there.
fn whole(generation: u64, bytes: &[u8]) -> Copy {
    let mut payload: Vec<u8> = bytes.chunks_exact(SECTOR).flat_map(|sector| &sector[..PAYLOAD]).copied().collect();
    let u64_at = |at: usize| Some(u64::from_le_bytes(payload.get(at..at + 8)?.try_into().ok()?));
    let content = || {
        let len = usize::try_from(u64_at(0)?).ok()?;
        let content = payload.get(16..16_usize.checked_add(len)?)?;
        (u64_at(8)? == xxh3_64(content)).then_some(content)
    };
    // Sectors of two attempts at one generation, both of which were cut short.
    let Some(content) = content() else { return Copy::Torn };
    let end = 16 + content.len();
    match StateRecord::decode(generation, content) {
        Some(record) => {
            payload.truncate(end);
            Copy::Whole(Box::new(Whole { record, bytes: payload }))
        }
        None => Copy::Rotten,
    }
}

#[cfg(test)]
mod tests {
    use vsr::protocol::{
        CheckpointId, CommitNumber, DiskId, Epoch, HeaderFields, Known, Life, OpKind, OpNumber, Suffix, Timestamp, View,
    };
    use vsr::{Checksum, ClusterId, Membership, ReplicaId};

    use super::*;

    /// Whoever has written it, with a checksum that is right: nothing may overflow.
    #[test]
    fn a_state_with_numbers_that_no_log_reaches_is_none() {
        let membership = Membership::new(["here"]).expect("a cluster");
        let state = VsrState::formatted(ClusterId(1), ReplicaId(0), DiskId(1), membership);
        let decoded = |change: fn(&mut StateRecord)| {
            let mut record = StateRecord::first(1, 8, &state);
            change(&mut record);
            StateRecord::decode(1, &record.encode().expect("it fits")[16..])
        };
        assert!(decoded(|_| ()).is_some());
        let changes: [fn(&mut StateRecord); 4] = [
            |record| record.start = u64::MAX,
            |record| record.head = u64::MAX,
            |record| record.tail = u64::MAX / 512,
            |record| record.prepared = u64::MAX,
        ];
        assert!(changes.into_iter().all(|change| decoded(change).is_none()));
    }

    #[test]
    fn no_state_takes_more_than_was_counted_when_the_disk_was_formatted() {
        let addresses = (0..MEMBERS_MAX).map(|id| format!("{id}{}", "x".repeat(254)));
        let membership = Membership::new(addresses).expect("a cluster");
        let mut state = VsrState::formatted(ClusterId(u128::MAX), ReplicaId(1), DiskId(u128::MAX), membership);
        StateRecord::check_room(&state).expect("there is room");
        let counted = StateRecord::most(&state).expect("it can be encoded");
        let most = 1 << 62;
        let view = View { epoch: Epoch(u32::MAX), number: most };
        let header = Header::new(HeaderFields {
            view,
            op: OpNumber(most),
            parent: Checksum(1),
            body: Checksum(1),
            body_len: 1,
            requests: 1,
            timestamp: Timestamp(most),
            commit: CommitNumber(most),
            machine_version: 1,
            kind: OpKind::Requests,
        });
        (state.view, state.log_view, state.starts) = (view, view, most);
        state.commit = CommitNumber(most);
        state.checkpoints = vec![CheckpointId { op: OpNumber(most), manifest: Checksum(u128::MAX) }; 2];
        state.suffix = Suffix { head: OpNumber(most), headers: vec![header; HEADERS_MAX as usize] };
        let life = Life { disk_id: DiskId(u128::MAX), starts: most, nonce: most };
        state.known = vec![
            Known { replica: ReplicaId(255), life, acknowledged: OpNumber(most), since: OpNumber(most) };
            MEMBERS_MAX
        ];
        let mut record = StateRecord::first(1, most, &state);
        (record.log_write, record.head, record.tail) = (most, most, most);
        (0..2 * LOST_RUNS_MAX as u64).for_each(|at| record.lost.add(most + 2 * at, most + 2 * at, most));
        record.reaches = vec![Reach { first: most, last: most, floor: most, inside: true, end: most }; REACHES_MAX];
        record.skipped = vec![(most, most); SKIPPED_MAX];
        let taken = record.encode().expect("it fits").len() as u64;
        assert!(taken <= counted, "{taken} bytes, counted were {counted}");
    }
}
