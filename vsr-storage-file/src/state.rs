//! The vsr state in two pairs of copies that are written in turn.
//!
//! A write goes to both copies of one pair and never touches the other pair, so a crash inside it leaves
//! the newest state whole. If both copies of the newest pair rot, that is noticed and refused: the older
//! pair must not be taken for the newest state, for it has forgotten a promise (HAZARDS SF-17, SF-19).

use vsr::{StorageError, VsrState};

use crate::io_error;
use crate::medium::Medium;
use crate::sector::{PAYLOAD, SECTOR, Sector, Stamp, blank, judge, sectors_for, spread};

/// The version of the format of both files.
pub(crate) const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"vsr disk";
const SUPERBLOCK_SALT: u64 = 0x7673_7220_6469_736b;
const SUPERBLOCKS: usize = 2;
const SLOTS: u64 = 4;
const FIRST_SLOT: u64 = 8;
/// Room for a suffix of some ten thousand headers.
const SLOT_SECTORS: u64 = 2048;

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

/// A vsr state, and what ties it to the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StateRecord {
    /// Grows with every write, over those that a crash cut short as well: the sectors of two writes are
    /// never taken for one.
    pub(crate) generation: u64,
    /// The last write to the log before this state.
    pub(crate) log_write: u64,
    /// The head of the log that this state left: what the log held above it is truncated.
    pub(crate) head: u64,
    /// The sector at which the next record of the log was to begin. Rot before it is old news.
    pub(crate) tail: u64,
    pub(crate) state: VsrState,
}

pub(crate) struct StateFile<M> {
    medium: M,
    path: String,
    salt: u64,
    /// The generation of the next write, above every trace of an earlier one.
    next: u64,
    /// The pair that does not hold the newest state.
    pair: u64,
}

impl<M: Medium> StateFile<M> {
    /// Writes superblock and first state; the caller syncs.
    pub(crate) fn format(medium: &M, superblock: Superblock, state: &VsrState) -> Result<(), StorageError> {
        let failed = io_error("formatting the state file");
        let slots = FIRST_SLOT + SLOTS * SLOT_SECTORS;
        medium.write_at(&blank(superblock.salt, 0, slots as usize), 0).map_err(&failed)?;
        let mut bytes = Vec::from(*MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(superblock.salt.to_le_bytes());
        bytes.extend(superblock.log_limit.to_le_bytes());
        bytes.extend(superblock.extent.to_le_bytes());
        for copy in 0..SUPERBLOCKS as u64 {
            let sectors = spread(SUPERBLOCK_SALT, copy, 1, [&bytes[..]].into_iter());
            medium.write_at(&sectors, copy * SECTOR as u64).map_err(&failed)?;
        }
        for generation in [1, 2] {
            let record = StateRecord { generation, log_write: 0, head: 0, tail: 0, state: state.clone() };
            write_pair(medium, superblock.salt, generation % 2, &record)?;
        }
        Ok(())
    }

    pub(crate) fn open(medium: M, path: &str) -> Result<(StateFile<M>, Superblock), StorageError> {
        let failed = io_error("reading the state file");
        let mut known = false;
        for copy in 0..SUPERBLOCKS as u64 {
            let mut sector = [0; SECTOR];
            if medium.len().map_err(&failed)? < (copy + 1) * SECTOR as u64 {
                break;
            }
            medium.read_at(&mut sector, copy * SECTOR as u64).map_err(&failed)?;
            known |= sector.starts_with(MAGIC);
            if judge(SUPERBLOCK_SALT, copy, &sector) == Sector::Rotten || !sector.starts_with(MAGIC) {
                continue;
            }
            let u64_at = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().unwrap_or_default());
            let found = u64_at(8) as u32;
            if found != VERSION {
                return Err(StorageError::Version { path: path.to_owned(), found, known: VERSION });
            }
            let superblock = Superblock { salt: u64_at(12), log_limit: u64_at(20), extent: u64_at(28) };
            let file = StateFile { medium, path: path.to_owned(), salt: superblock.salt, next: 0, pair: 0 };
            return Ok((file, superblock));
        }
        if known {
            Err(StorageError::StateLost(path.to_owned()))
        } else {
            Err(StorageError::NotFormatted(path.to_owned()))
        }
    }

    /// The newest state, if it is certain that it is the newest.
    pub(crate) fn recover(&mut self) -> Result<StateRecord, StorageError> {
        // What a killed process has written without a sync is read like the rest: make it durable first.
        self.medium.sync().map_err(io_error("syncing the state file"))?;
        let mut traces = 0;
        let mut newest: Option<(u64, StateRecord)> = None;
        for pair in 0..2 {
            let copies = [self.read_copy(pair * 2, &mut traces)?, self.read_copy(pair * 2 + 1, &mut traces)?];
            // A torn copy, or a whole one, bounds what the pair can have held; two rotten ones say nothing.
            if copies.iter().all(|copy| matches!(copy, Copy::Rotten)) {
                return Err(StorageError::StateLost(self.path.clone()));
            }
            for copy in copies {
                if let Copy::Whole(record) = copy
                    && newest.as_ref().is_none_or(|(_, newest)| record.generation > newest.generation)
                {
                    newest = Some((pair, *record));
                }
            }
        }
        let (pair, record) = newest.ok_or_else(|| StorageError::StateLost(self.path.clone()))?;
        (self.pair, self.next) = (1 - pair, traces.max(record.generation) + 1);
        Ok(record)
    }

    fn read_copy(&self, slot: u64, traces: &mut u64) -> Result<Copy, StorageError> {
        let position = FIRST_SLOT + slot * SLOT_SECTORS;
        let mut bytes = vec![0; SLOT_SECTORS as usize * SECTOR];
        self.medium.read_at(&mut bytes, position * SECTOR as u64).map_err(io_error("reading the state file"))?;
        let sectors: Vec<Sector> =
            (position..).zip(bytes.chunks_exact(SECTOR)).map(|(at, sector)| judge(self.salt, at, sector)).collect();
        for sector in &sectors {
            if let Sector::Valid(stamp) = sector {
                *traces = stamp.write.max(*traces);
            }
        }
        if let Sector::Valid(first) = sectors[0]
            && first.write > 0
            && first.index == 0
            && (1..=SLOT_SECTORS).contains(&u64::from(first.count))
        {
            let expected = |index: u32| Sector::Valid(Stamp { index, ..first });
            let whole = (0..first.count).all(|index| sectors[index as usize] == expected(index));
            if whole && let Some(record) = decode(first, &bytes) {
                return Ok(Copy::Whole(Box::new(record)));
            }
        }
        Ok(if sectors.contains(&Sector::Rotten) { Copy::Rotten } else { Copy::Torn })
    }

    /// The generation that the next write will have.
    pub(crate) fn next_generation(&self) -> u64 {
        self.next
    }

    /// Makes a state durable, beside the one before.
    pub(crate) fn write(&mut self, record: &StateRecord) -> Result<(), StorageError> {
        write_pair(&self.medium, self.salt, self.pair, record)?;
        self.medium.sync().map_err(io_error("syncing the state file"))?;
        (self.pair, self.next) = (1 - self.pair, record.generation + 1);
        Ok(())
    }
}

enum Copy {
    Whole(Box<StateRecord>),
    /// A write to it never completed: what came before it, in the other pair, is the newest.
    Torn,
    Rotten,
}

fn write_pair<M: Medium>(medium: &M, salt: u64, pair: u64, record: &StateRecord) -> Result<(), StorageError> {
    let state = rmp_serde::to_vec(&record.state)
        .map_err(|error| io_error("encoding the state")(std::io::Error::other(error)))?;
    let mut head = Vec::with_capacity(32);
    head.extend(record.log_write.to_le_bytes());
    head.extend(record.head.to_le_bytes());
    head.extend(record.tail.to_le_bytes());
    head.extend((state.len() as u64).to_le_bytes());
    if sectors_for(head.len() + state.len()) as u64 > SLOT_SECTORS {
        let room = SLOT_SECTORS as usize * PAYLOAD;
        let error = std::io::Error::other(format!("a state of {} bytes, with room for {room}", state.len()));
        return Err(io_error("writing the state")(error));
    }
    for slot in [pair * 2, pair * 2 + 1] {
        let position = FIRST_SLOT + slot * SLOT_SECTORS;
        let sectors = spread(salt, position, record.generation, [&head[..], &state[..]].into_iter());
        medium.write_at(&sectors, position * SECTOR as u64).map_err(io_error("writing the state file"))?;
    }
    Ok(())
}

fn decode(first: Stamp, bytes: &[u8]) -> Option<StateRecord> {
    let payload: Vec<u8> =
        bytes.chunks_exact(SECTOR).take(first.count as usize).flat_map(|sector| &sector[..PAYLOAD]).copied().collect();
    let u64_at = |at: usize| Some(u64::from_le_bytes(payload.get(at..at + 8)?.try_into().ok()?));
    let len = usize::try_from(u64_at(24)?).ok()?;
    let state = rmp_serde::from_slice(payload.get(32..32_usize.checked_add(len)?)?).ok()?;
    Some(StateRecord { generation: first.write, log_write: u64_at(0)?, head: u64_at(8)?, tail: u64_at(16)?, state })
}
