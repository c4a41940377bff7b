//! The vsr state in two pairs of copies that are written in turn, and with it what the storage itself has to
//! remember: where the log stood, how much of it is prepared, and what was found lost.
//!
//! A write goes to both copies of one pair and never touches the other pair, so a crash inside it leaves
//! the newest state whole. If both copies of a pair rot, that is noticed and refused: the older
//! pair must not be taken for the newest state, for it has forgotten a promise (HAZARDS SF-17, SF-19).
//! Copies lie in pages of their own: one that goes bad takes one of them.

use vsr::{StorageError, VsrState};
use xxhash_rust::xxh3::xxh3_64;

use crate::medium::{Medium, read_sectors};
use crate::record::GENERATION;
use crate::sector::{PAYLOAD, SECTOR, Sector, Stamp, blank, judge, sectors_for, spread};
use crate::site::Site;
use crate::{io_error, write_error};

/// The version of the format of both files.
pub(crate) const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"vsr disk";
const SUPERBLOCK_SALT: u64 = 0x7673_7220_6469_736b;
const SLOTS: u64 = 4;
const FIRST_SLOT: u64 = 8;
/// Room for a suffix of some ten thousand headers.
const SLOT_SECTORS: u64 = 2048;
const LAST_PAGE: u64 = FIRST_SLOT + SLOTS * SLOT_SECTORS;
/// Where the superblocks are; behind each is a copy of the site.
const SUPERBLOCKS: [u64; 2] = [0, LAST_PAGE];
const SECTORS: u64 = LAST_PAGE + 8;

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
}

/// Reaches that are kept apart.
const REACHES_MAX: usize = 24;

/// A vsr state, and what ties it to the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StateRecord {
    /// Grows with every write. Records of the log carry the one that they were written under.
    pub(crate) generation: u64,
    /// The last complete write to the log before this state. What else was found up to `tail` never completed,
    /// or was lost: it never counts again.
    pub(crate) log_write: u64,
    /// The head of the log that this state left: what the log held above it is truncated.
    pub(crate) head: u64,
    /// The sector at which the next record of the log begins. Rot before it is old news.
    pub(crate) tail: u64,
    /// Sectors of the log that were durably prepared. A log without them was cut.
    pub(crate) prepared: u64,
    /// False from a start at which the end of the log was lost until the replica has noted it in its own state.
    pub(crate) certain: bool,
    /// First and last of each run of slots that are lost: their entries are gone, whatever the log still shows.
    pub(crate) lost: Vec<(u64, u64)>,
    pub(crate) reaches: Vec<Reach>,
    pub(crate) state: VsrState,
}

/// A [`StateRecord`] without its generation, as it is encoded.
type Parts<L, R, S> = (u64, u64, u64, u64, bool, L, R, S);
type ReachParts = (u64, u64, u64, bool);

impl StateRecord {
    pub(crate) fn first(generation: u64, prepared: u64, state: &VsrState) -> StateRecord {
        StateRecord {
            generation,
            log_write: 0,
            head: 0,
            tail: 0,
            prepared,
            certain: true,
            lost: Vec::new(),
            reaches: Vec::new(),
            state: state.clone(),
        }
    }

    /// The lowest op that a record after generation `from` began, up to the last of generation `to`, can have
    /// dropped or replaced.
    pub(crate) fn lowest(&self, from: u64, to: u64) -> u64 {
        let reaches = self.reaches.iter().filter(|reach| {
            let begins = if reach.inside { reach.last >= from } else { reach.first > from };
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
                *next =
                    Reach { first: oldest.first, last: next.last, floor: oldest.floor.min(next.floor), inside: true };
            }
        }
    }

    /// Length, checksum, MessagePack. The stamps of the sectors say that a write is whole, the checksum that it is
    /// one write.
    fn encode(&self) -> Result<Vec<u8>, StorageError> {
        let reaches: Vec<ReachParts> =
            self.reaches.iter().map(|reach| (reach.first, reach.last, reach.floor, reach.inside)).collect();
        let parts: Parts<_, _, _> =
            (self.log_write, self.head, self.tail, self.prepared, self.certain, &self.lost, reaches, &self.state);
        let bytes =
            rmp_serde::to_vec(&parts).map_err(|error| io_error("encoding the state")(std::io::Error::other(error)))?;
        let mut out = Vec::with_capacity(16 + bytes.len());
        out.extend((bytes.len() as u64).to_le_bytes());
        out.extend(xxh3_64(&bytes).to_le_bytes());
        out.extend(bytes);
        Ok(out)
    }

    fn decode(generation: u64, bytes: &[u8]) -> Option<StateRecord> {
        let parts: Parts<Vec<(u64, u64)>, Vec<ReachParts>, VsrState> = rmp_serde::from_slice(bytes).ok()?;
        let (log_write, head, tail, prepared, certain, lost, reaches, state) = parts;
        let reaches =
            reaches.into_iter().map(|(first, last, floor, inside)| Reach { first, last, floor, inside }).collect();
        Some(StateRecord { generation, log_write, head, tail, prepared, certain, lost, reaches, state })
    }
}

pub(crate) struct StateFile<M> {
    medium: M,
    path: String,
    salt: u64,
    /// The generation of the next write.
    next: u64,
    /// The pair that does not hold the newest state.
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
        if let Some(site) = site {
            write_site(medium, site).map_err(&failed)?;
        }
        let prepared = superblock.extent / SECTOR as u64;
        for generation in [1, 2] {
            let bytes = StateRecord::first(generation, prepared, state).encode()?;
            write_pair(medium, superblock.salt, generation % 2, generation, &bytes)?;
        }
        Ok(())
    }

    /// Reads the superblock. `has_log` says that there is something in the log: then this was formatted once.
    pub(crate) fn open(medium: M, path: &str, has_log: bool) -> Result<(StateFile<M>, Superblock), StorageError> {
        let len = medium.len().map_err(io_error(format!("reading {path}/state")))?;
        let mut known = false;
        let mut error = None;
        for position in SUPERBLOCKS {
            let mut sector = [0; SECTOR];
            error = error.or(read_sectors(&medium, &mut sector, position * SECTOR as u64).error);
            known |= sector.starts_with(MAGIC);
            if judge(SUPERBLOCK_SALT, position, &sector) == Sector::Rotten || !sector.starts_with(MAGIC) {
                continue;
            }
            let u32_at = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().unwrap_or_default());
            let u64_at = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().unwrap_or_default());
            let found = u32_at(8);
            if found != VERSION {
                return Err(StorageError::Version { path: path.to_owned(), found, known: VERSION });
            }
            let superblock = Superblock { salt: u64_at(12), log_limit: u64_at(20), extent: u64_at(28) };
            let file = StateFile { medium, path: path.to_owned(), salt: superblock.salt, next: 0, pair: 0 };
            return Ok((file, superblock));
        }
        if known {
            return Err(StorageError::StateLost(path.to_owned()));
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
        let recorded = self.read_site();
        if let Some(recorded) = &recorded
            && recorded.is_same(found)
        {
            if recorded != found {
                tracing::warn!(path = self.path, %recorded, %found, "the storage is on another device, or was mounted anew");
            }
            return Ok(());
        }
        Err(StorageError::OtherPlace {
            path: self.path.clone(),
            recorded: recorded.map_or_else(|| "nothing that can be read".to_owned(), |site| site.to_string()),
            found: found.to_string(),
        })
    }

    fn read_site(&self) -> Option<Site> {
        SUPERBLOCKS.into_iter().find_map(|position| {
            let mut sector = [0; SECTOR];
            read_sectors(&self.medium, &mut sector, (position + 1) * SECTOR as u64);
            let is_whole = judge(SUPERBLOCK_SALT, position + 1, &sector) != Sector::Rotten;
            is_whole.then(|| Site::decode(&sector)).flatten()
        })
    }

    /// Records the place that the files are in now, durably.
    pub(crate) fn write_site(&self, site: &Site) -> Result<(), StorageError> {
        let failed = io_error(format!("recording the place in {}/state", self.path));
        write_site(&self.medium, site).map_err(&failed)?;
        self.medium.sync().map_err(&failed)
    }

    /// The newest state, if it is certain that it is the newest. Durable when this returns: what a process
    /// wrote whose sync failed, or that was killed, is read like the rest, and is written again.
    pub(crate) fn recover(&mut self) -> Result<StateRecord, StorageError> {
        let mut newest: Option<(u64, Whole)> = None;
        for pair in 0..2 {
            let copies = [self.read_copy(pair * 2), self.read_copy(pair * 2 + 1)];
            // A torn copy, or a whole one, bounds what the pair can have held; two rotten ones say nothing.
            if copies.iter().all(|copy| matches!(copy, Copy::Rotten)) {
                return Err(StorageError::StateLost(self.path.clone()));
            }
            for copy in copies {
                if let Copy::Whole(whole) = copy
                    && newest.as_ref().is_none_or(|(_, newest)| whole.record.generation > newest.record.generation)
                {
                    newest = Some((pair, *whole));
                }
            }
        }
        let (pair, Whole { record, bytes }) = newest.ok_or_else(|| StorageError::StateLost(self.path.clone()))?;
        // The same bytes at the same places: a crash in between changes nothing, and a damaged copy is mended.
        write_pair(&self.medium, self.salt, pair, record.generation, &bytes)?;
        self.medium.sync().map_err(io_error(format!("syncing {}/state", self.path)))?;
        (self.pair, self.next) = (1 - pair, record.generation + 1);
        Ok(record)
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
        write_pair(&self.medium, self.salt, self.pair, record.generation, &record.encode()?)?;
        self.medium.sync().map_err(|error| io_error(format!("syncing {}/state", self.path))(error))?;
        self.pair = 1 - self.pair;
        Ok(())
    }
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

fn write_site<M: Medium>(medium: &M, site: &Site) -> std::io::Result<()> {
    for position in SUPERBLOCKS {
        let bytes = site.encode();
        let sectors = spread(SUPERBLOCK_SALT, position + 1, 1, [&bytes[..]].into_iter());
        medium.write_at(&sectors, (position + 1) * SECTOR as u64)?;
    }
    Ok(())
}

fn write_pair<M: Medium>(medium: &M, salt: u64, pair: u64, generation: u64, bytes: &[u8]) -> Result<(), StorageError> {
    if sectors_for(bytes.len()) as u64 > SLOT_SECTORS {
        let room = SLOT_SECTORS as usize * PAYLOAD;
        let error = std::io::Error::other(format!("a state of {} bytes, with room for {room}", bytes.len()));
        return Err(io_error("writing the state")(error));
    }
    for slot in [pair * 2, pair * 2 + 1] {
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
