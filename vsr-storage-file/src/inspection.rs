//! What a storage holds, for somebody who only looks. It is judged by what judges it at a start, so that both say the
//! same of every slot; what a start writes then is left out.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use vsr::checkpoints::CheckpointFolder;
use vsr::protocol::{CheckpointId, Header, OpNumber, Slot, VsrState};
use vsr::storage::StorageError;

use crate::io_error;
use crate::log::Place;
use crate::medium::{Disk, Medium};
use crate::ring::Ring;
use crate::scan::scan;
use crate::sector::SECTOR;
use crate::site::Site;
use crate::slots::Slots;
use crate::state::{NOTHING, SeenState, StateCopy, StateFile, lost};
use crate::storage::{CHECKPOINTS, FileOptions, check_not_empty, find_files, log_salt, missing};
use crate::usage::{Usage, usage};

/// How often files that change are read until what was read fits together.
const ATTEMPTS: u32 = 3;

/// What [`inspect`] has found. Later versions have more fields.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The folder.
    pub path: String,
    /// Whether another process has the folder open. Then what stands at the end of the log may be in the making.
    pub usage: Usage,
    /// Whether the files were written to while they were read: damage that is shown may be none.
    pub has_changed: bool,
    /// Where the folder is, and where it belongs; `None` where a file is missing.
    pub place: Option<FolderPlace>,
    /// What was decided when the disk was formatted.
    pub options: FileOptions,
    /// How many of the two copies of that are damaged.
    pub superblocks_damaged: u64,
    /// The four copies of the vsr state, two of which are written at a time.
    pub copies: Vec<StateCopy>,
    /// The newest vsr state that can be read.
    pub state: Option<InspectedState>,
    /// The log, as that state describes it.
    pub log: Option<InspectedLog>,
    /// The checkpoints that the vsr state names, in ascending order of their ops, each read whole.
    pub checkpoints: Vec<InspectedCheckpoint>,
    /// Why no replica starts here. `None`: one does, as far as reading can tell, if this is its place. Another place than the recorded
    /// one is no refusal here; one of which no record can be read is.
    pub refusal: Option<StorageError>,
}

/// A checkpoint that the vsr state names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InspectedCheckpoint {
    /// What names it.
    pub id: CheckpointId,
    /// How many bytes it has; or what is wrong with it: then a start takes the older one, or applies the whole log.
    pub bytes: Result<u64, String>,
}

/// Where a folder is, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FolderPlace {
    /// Whether a replica may start here: else [`StorageError::OtherPlace`] is what it says.
    pub is_own: bool,
    /// What identifies the place that was recorded; `None` when no copy of it can be read.
    pub recorded: Option<String>,
    /// How many of the two copies of that are damaged.
    pub copies_damaged: u64,
    /// What identifies the place that the files are in.
    pub found: String,
    /// What differs. The device alone makes no other place.
    pub differences: Vec<String>,
}

/// A vsr state on the disk.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InspectedState {
    /// The number of its write.
    pub generation: u64,
    /// Whether it is certain that no newer one was there. Else the replica may have promised more, and the log is shown
    /// as an older state knew it.
    pub is_newest: bool,
    /// The state: identity, view, log_view, commit number, suffix, what is doubted and what is known of others.
    pub state: VsrState,
}

/// The log on the disk.
#[non_exhaustive]
pub struct InspectedLog {
    /// The last op that was dropped from it; 0 while it begins with op 1.
    pub base: OpNumber,
    /// Its highest op.
    pub head: OpNumber,
    /// False when ops above the head may have been lost.
    pub head_certain: bool,
    /// Bytes of the file.
    pub len: u64,
    /// Bytes from the first record that is needed to where the next one begins.
    pub used: u64,
    /// Bytes from there that are durably prepared: the watermark.
    pub prepared: u64,
    /// Stretches, from and to in bytes, that are bad and were stepped over.
    pub skipped: Vec<(u64, u64)>,
    places: Slots,
}

/// What is left of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Header and body are intact.
    Clean,
    /// The header is intact, the body is damaged.
    HeaderOnly,
    /// Something was here, and neither header nor body can be read.
    Lost,
    /// Certainly nothing was ever put here. This is no damage.
    Absent,
}

impl Verdict {
    /// Whether something that was here cannot be read any more.
    #[must_use]
    pub fn is_damage(self) -> bool {
        matches!(self, Verdict::HeaderOnly | Verdict::Lost)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Clean => "clean",
            Verdict::HeaderOnly => "body damaged, header intact",
            Verdict::Lost => "lost, header and body",
            Verdict::Absent => "absent",
        })
    }
}

/// One slot of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InspectedSlot {
    /// Its op.
    pub op: OpNumber,
    /// What is left of it.
    pub verdict: Verdict,
    /// Its header, where that is intact: view, checksum, length of the body.
    pub header: Option<Header>,
}

/// Neighbouring slots of one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotRun {
    /// The first op.
    pub first: OpNumber,
    /// The last op.
    pub last: OpNumber,
    /// What is left of each.
    pub verdict: Verdict,
}

impl Inspection {
    /// Whether everything that was ever put is there, and intact in every copy. The place does not count: a copy of a
    /// folder can be as clean as the folder.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.refusal.is_none()
            && self.superblocks_damaged == 0
            && self.place.as_ref().is_none_or(|place| place.copies_damaged == 0)
            && !self.copies.contains(&StateCopy::Damaged)
            && self.state.as_ref().is_some_and(|found| found.state.head_certain)
            && self.checkpoints.iter().all(|checkpoint| checkpoint.bytes.is_ok())
            && self.log.as_ref().is_some_and(|log| log.head_certain && log.runs().all(|run| !run.verdict.is_damage()))
    }
}

impl InspectedLog {
    /// Every slot in the order of the ops, from the one after the base to the head.
    pub fn slots(&self) -> impl Iterator<Item = InspectedSlot> + '_ {
        self.places.iter().map(|(op, place)| inspected(op, place))
    }

    /// The slots of a range of ops, as far as there are some. Finding the first takes no time.
    pub fn slots_of(&self, first: OpNumber, last: OpNumber) -> impl Iterator<Item = InspectedSlot> + '_ {
        let from = first.0.max(self.places.base() + 1);
        let count = last.0.saturating_add(1).saturating_sub(from);
        let skip = usize::try_from(from - 1 - self.places.base()).unwrap_or(usize::MAX);
        let of = self.places.iter().skip(skip).take(usize::try_from(count).unwrap_or(usize::MAX));
        of.map(|(op, place)| inspected(op, place))
    }

    /// The slots as runs of one verdict: few, where the log is long and whole.
    pub fn runs(&self) -> impl Iterator<Item = SlotRun> + '_ {
        let mut slots = self.slots().peekable();
        std::iter::from_fn(move || {
            let InspectedSlot { op: first, verdict, .. } = slots.next()?;
            let mut last = first;
            while let Some(next) = slots.next_if(|next| next.verdict == verdict) {
                last = next.op;
            }
            Some(SlotRun { first, last, verdict })
        })
    }
}

impl fmt::Debug for InspectedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("InspectedLog");
        all.field("base", &self.base).field("head", &self.head).field("head_certain", &self.head_certain);
        all.field("len", &self.len).field("used", &self.used).field("prepared", &self.prepared);
        // Not the slots: there may be millions.
        all.field("skipped", &self.skipped).finish_non_exhaustive()
    }
}

fn inspected(op: u64, place: &Place) -> InspectedSlot {
    let (verdict, header) = match place.slot() {
        Slot::Clean(header) => (Verdict::Clean, Some(header)),
        Slot::Corrupt(Some(header)) => (Verdict::HeaderOnly, Some(header)),
        Slot::Corrupt(None) => (Verdict::Lost, None),
        Slot::Absent => (Verdict::Absent, None),
    };
    InspectedSlot { op: OpNumber(op), verdict, header }
}

/// Looks at a folder, and changes nothing: its files are opened for reading only, and no lock is taken. So it works without
/// permission to write, on a copy, on a folder whose replica cannot start, and beside a running replica. Beside one it says so
/// ([`Inspection::usage`]), and reads again what does not fit together; what stands at the end of the log may be in the making.
///
/// The whole log is read, as at a start, and the header of every op is held in memory. What a start finds only when it writes
/// (a sector that can be read, and not written) is not seen.
///
/// # Errors
/// Where there is nothing to show: [`StorageError::NotFormatted`], [`StorageError::Missing`] for the state file,
/// [`StorageError::Damaged`] and [`StorageError::StateLost`] without an intact superblock, [`StorageError::Version`], or the disk's refusal.
pub fn inspect(folder: impl AsRef<Path>) -> Result<Inspection, StorageError> {
    let folder = folder.as_ref();
    let name = folder.display().to_string();
    let failed = io_error(format!("looking at the files of {name}"));
    let mut attempt = 1;
    loop {
        let (log, state) = find_files(folder, Disk::open_read_only)?;
        check_not_empty(folder, &state)?;
        let (log, state) = (log.map(Arc::new), Arc::new(state));
        let stamps = || log.iter().chain([&state]).map(|disk| disk.stamp()).collect::<io::Result<Vec<_>>>();
        let before = stamps().map_err(&failed)?;
        let own = state.site().map_err(&failed)?;
        let site = log.as_ref().map(|log| log.site()).transpose().map_err(&failed)?;
        let site = site.map(|log| Site { log, state: own });
        let mut found = look(log.clone(), state.clone(), &name, site)?;
        found.usage = usage(&own);
        let named = found.state.iter().flat_map(|found| found.state.checkpoints.iter().copied());
        let check = |id| {
            let bytes = CheckpointFolder::check(folder.join(CHECKPOINTS), id).map_err(|error| error.to_string());
            InspectedCheckpoint { id, bytes }
        };
        found.checkpoints = named.map(check).collect();
        found.has_changed = stamps().map_err(&failed)? != before;
        // What does not fit together may have been written in between.
        if found.is_clean() || !found.has_changed || attempt == ATTEMPTS {
            return Ok(found);
        }
        attempt += 1;
    }
}

/// As [`inspect`], on any medium, which has no place; `name` stands in error messages. For tests.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_on<M: Medium>(log: M, state: M, name: &str) -> Result<Inspection, StorageError> {
    look(Some(log), state, name, None)
}

/// Reads both files, as a start does before it writes. `site`: where they are.
fn look<M: Medium>(log: Option<M>, state: M, name: &str, site: Option<Site>) -> Result<Inspection, StorageError> {
    let has_log = log.as_ref().map_or(Ok(true), |log| log.is_empty().map(|is_empty| !is_empty));
    let has_log = has_log.map_err(io_error(format!("reading {name}/log")))?;
    let (state, superblock) = StateFile::open(state, name, has_log)?;
    let (copies, seen) = state.look();
    let mut found = Inspection {
        path: name.to_owned(),
        usage: Usage::Unknown,
        has_changed: false,
        place: site.map(|site| place(&state.read_sites(), &site)),
        options: FileOptions { log_limit: superblock.log_limit, extent: superblock.extent },
        superblocks_damaged: state.damaged_superblocks(),
        copies,
        state: None,
        log: None,
        checkpoints: Vec::new(),
        refusal: log.is_none().then(|| missing(Path::new(name), "log")),
    };
    if let Some(FolderPlace { recorded: None, found: place, .. }) = &found.place {
        let (path, recorded, found_at) = (name.to_owned(), NOTHING.to_owned(), place.clone());
        found.refusal = Some(StorageError::OtherPlace { path, recorded, found: found_at });
    }
    let Some(SeenState { record, mut is_newest }) = seen else {
        found.refusal.get_or_insert_with(|| lost(name));
        return Ok(found);
    };
    let ring = |log| Ring::new(log, superblock.log_limit);
    let scanned = |log: &Ring<M>| scan(log, log_salt(superblock.salt), name, &record, None);
    match log.map(ring).map(|log| Ok((scanned(&log)?, bytes_of(&log, name)?))) {
        Some(Ok((scanned, len))) => {
            // The log was written under a state that is not here: a start refuses it as well.
            is_newest &= scanned.newest <= record.generation;
            found.log = Some(InspectedLog {
                base: OpNumber(scanned.places.base()),
                head: OpNumber(scanned.places.head()),
                head_certain: record.certain && scanned.head_certain,
                len,
                used: scanned.tail.saturating_sub(record.start) * SECTOR as u64,
                prepared: scanned.prepared.saturating_sub(record.start) * SECTOR as u64,
                skipped: record.skipped.iter().map(|(from, to)| (from * SECTOR as u64, to * SECTOR as u64)).collect(),
                places: scanned.places,
            });
        }
        Some(Err(error)) => found.refusal = Some(error),
        None => {}
    }
    if !is_newest {
        // A start reads the state first.
        found.refusal = Some(lost(name));
    }
    found.state = Some(InspectedState { generation: record.generation, is_newest, state: record.state });
    Ok(found)
}

fn bytes_of<M: Medium>(log: &M, name: &str) -> Result<u64, StorageError> {
    log.len().map_err(io_error(format!("reading {name}/log")))
}

fn place(recorded: &[Site], found: &Site) -> FolderPlace {
    let own = recorded.iter().find(|recorded| recorded.is_same(found));
    let shown = own.or(recorded.first());
    FolderPlace {
        is_own: own.is_some(),
        recorded: shown.map(Site::to_string),
        copies_damaged: 2_u64.saturating_sub(recorded.len() as u64),
        found: found.to_string(),
        differences: shown.map_or_else(Vec::new, |recorded| recorded.differences(found)),
    }
}
