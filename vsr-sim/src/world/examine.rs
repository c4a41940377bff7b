//! What the file storage says of copies of the disks after a run, when records of the logs go bad there.
//!
//! While replicas run on them, only such damage is done as the cluster survives. A copy on which no replica runs may lose
//! anything: it is held to the contract alone, for logs that a cluster has written, with gaps, repairs and view changes.

use vsr::protocol::{OpNumber, Random};

use super::on_files::FileDisks;
use super::{World, site};
use crate::check::Violation;
use crate::files::{Grain, Harm, Kept, Ledger, Place, SECTOR, SimFolder};

/// Copies of disks that are harmed after a run.
const COPIES: u64 = 3;
/// The file of the log: the storage makes it first.
const LOG: usize = 0;

impl World {
    /// Harms copies of the disks, and opens the storage on each. The first that says what it may not say.
    pub(crate) fn examine_files(&mut self) -> Option<Violation> {
        let files = self.files.take()?;
        // A storage of the user's own may know of crashes only.
        let copies = if files.grain == Grain::Sector { COPIES } else { 0 };
        let found = (0..copies).find_map(|copy| {
            let node = (copy % self.replicas as u64) as usize;
            if self.disks[node].is_lost() {
                return None;
            }
            self.trace.count("copies of disks harmed after a run");
            let mut random = self.draw(site::EXAMINE, node as u64, copy);
            let why = files.examine(node, &mut random).err()?;
            Some(format!("r{node}'s storage, on a copy of its disk after the run: {why}"))
        });
        self.files = Some(files);
        let message = found?;
        Some(Violation { checker: "storage-keeps-its-contract", message, at: self.now })
    }
}

impl FileDisks {
    fn examine(&self, node: usize, random: &mut Random) -> Result<(), String> {
        let (folder, mut ledger) = (self.disks[node].folder.fork(), self.disks[node].ledger.clone());
        // The write under way does not come to the disk.
        folder.power_loss(0, Kept::Nothing);
        let Some(harm) = harm_records(&folder, &mut ledger, random) else { return Ok(()) };
        // A storage that refuses says nothing of its log.
        let Ok((_, recovered)) = self.open(&folder, None) else { return Ok(()) };
        ledger.judge(&recovered).map_err(|why| format!("{harm}: {why}"))
    }
}

/// Records of the log go bad: one where it begins, or one or two whole. In words; nothing where there are none.
fn harm_records(folder: &SimFolder, ledger: &mut Ledger, random: &mut Random) -> Option<String> {
    let records = folder.records(LOG);
    let all: Vec<u32> = records.keys().copied().collect();
    let harm = random.below(4);
    if harm == 0 {
        let some: Vec<u32> = (0..4).filter_map(|_| any(&all, random)).collect();
        let write = some.into_iter().max_by_key(|write| records[write].len())?;
        let place = Place { file: LOG, sector: *records[&write].first()? };
        ledger.hurt_sector(folder, place, Grain::Sector);
        folder.harm(place, &Harm::Flip(random.below(8 * SECTOR as u64) as u32));
        return Some(format!("the first sector of write {write} goes bad"));
    }
    let inner = inner(folder, &all);
    let of = if inner.is_empty() || random.chance(1, 4) { &all } else { &inner };
    let first = any(of, random)?;
    let gone: Vec<u32> = all.into_iter().filter(|write| *write >= first).take(1 + usize::from(harm > 1)).collect();
    ledger.hurt_all();
    for sector in gone.iter().flat_map(|write| &records[write]) {
        folder.harm(Place { file: LOG, sector: *sector }, &Harm::Flip(random.below(8 * SECTOR as u64) as u32));
    }
    Some(format!("writes {gone:?} go bad"))
}

/// The writes that do not begin above what was written before: what they fill or replace is there without them.
fn inner(folder: &SimFolder, writes: &[u32]) -> Vec<u32> {
    let mut highest = OpNumber::ZERO;
    let is_inner = |write: &u32| {
        let ops = folder.ops(*write);
        let is_inner = ops.iter().min().is_some_and(|first| *first <= highest);
        highest = highest.max(ops.into_iter().max().unwrap_or_default());
        is_inner
    };
    writes.iter().copied().filter(is_inner).collect()
}

fn any(writes: &[u32], random: &mut Random) -> Option<u32> {
    writes.get(random.below(writes.len() as u64) as usize).copied()
}
