//! The log at a start: what a scan of it has found is made durable, and the log goes on behind it.

use std::sync::Arc;

use vsr::storage::StorageError;

use crate::log::LogFile;
use crate::medium::{Medium, read_sectors};
use crate::ring::Ring;
use crate::scan::{Candidate, scan};
use crate::sector::{SECTOR, Sector, Stamp, judge};
use crate::slots::Slots;
use crate::state::{StateRecord, lost};
use crate::write_error;

/// The log as it was found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) places: Slots,
    pub(crate) head_certain: bool,
    /// Ops of a lost record of which this start knows, and the next one does not.
    pub(crate) orphans: Vec<u64>,
}

impl<M: Medium> LogFile<Arc<Ring<M>>> {
    /// Reads what is needed of the file, judges every sector, and makes durable what is relied on.
    pub(crate) fn recover(&mut self, state: &StateRecord) -> Result<Scan, StorageError> {
        let mut found = scan(&self.medium, self.salt, &self.path, state, None)?;
        if found.newest > state.generation {
            // The log was written under a state that is not here: an older copy was put in its place.
            return Err(lost(&self.path));
        }
        if let Some(record) = found.unproved
            && let Err(error) = self.write_back(&record)
        {
            // One that fails now and then cannot be believed; one that fails again is a bad sector.
            if !matches!(error, StorageError::Io { .. }) || self.write_back(&record).is_ok() {
                return Err(error);
            }
            let path = &self.path;
            tracing::warn!(path, %error, "the end of the log cannot be written again, and is taken for damaged");
            found = scan(&self.medium, self.salt, &self.path, state, Some((record.start, record.end())))?;
        }
        (self.start, self.before) = (state.start, state.before);
        (self.tail, self.last, self.copy) = (found.tail, found.last, found.copy);
        (self.prepared, self.watermark, self.gap) = (found.prepared, found.prepared, None);
        self.skipped.clone_from(&state.skipped);
        self.skipped.extend(found.stepped);
        Ok(Scan { places: found.places, head_certain: found.head_certain, orphans: found.orphans })
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
        self.medium.sync().map_err(failed())
    }
}
