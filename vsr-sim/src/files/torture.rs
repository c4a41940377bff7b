//! A storage alone, under every harm that files can come to, against a model of what it may say afterwards.

use std::collections::{BTreeMap, BTreeSet};

use vsr::protocol::{Batch, DiskId, Random, VsrState};
use vsr::storage::StorageError;
use vsr::{ClusterId, Membership, ReplicaId, Storage};

use super::folder::{Harm, Kept, Place, SimFolder};
use super::ledger::Grain;
use super::pages::{SECTOR, SECTORS_PER_PAGE};
use super::subject::{Stop, Subject, now};
use crate::faults::draw;

/// A test of a storage on simulated files.
///
/// It writes logs as a replica does, and at each write forks the disk: power is lost between two steps of it with any
/// subset of the sectors kept, the process is killed and power is lost after it was started again, syncs fail, sectors
/// rot, cannot be read or hold something else, writes are lost, the disk is full, files are cut, zeroed or another
/// disk's. On each fork the storage is opened, and what it says is held against the clauses of [`Storage`]:
///
/// - nothing that was acknowledged is `Absent` below a certain head, nothing that was truncated comes back, no content
///   is wrong, the vsr state is the old or the new one;
/// - after a crash alone nothing is damaged and the head is certain;
/// - one bad sector takes what the [`Grain`] says, and does not keep the storage from opening;
/// - what was once said of a slot stays true over more starts and power losses, until it is written again.
///
/// ```
/// use vsr_sim::files::{Torture, file_storage};
///
/// let done = Torture::new(1).points(200).run(file_storage).expect("no violation");
/// assert!(done.points >= 200);
/// ```
#[derive(Clone, Debug)]
pub struct Torture {
    seed: u64,
    first: u64,
    rounds: Option<u64>,
    points: u64,
    grain: Grain,
}

/// What a torture came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tortured {
    /// The number of distinct crashes and damages after which the storage was judged.
    pub points: u64,
    /// The number of logs that were begun.
    pub rounds: u64,
    /// How often each harm was done.
    pub harms: BTreeMap<&'static str, u64>,
    /// Of those, how often the storage refused to open, where it may.
    pub refusals: BTreeMap<&'static str, u64>,
}

/// The first violation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("round {round}, write {write}, {harm}: {why}")]
pub struct Broken {
    /// The round: [`Torture::round`] repeats it.
    pub round: u64,
    /// The number of writes before it in the round.
    pub write: u64,
    /// What was done to the disk.
    pub harm: String,
    /// The clause that was broken, and both values.
    pub why: String,
}

/// Writes of one round.
const WRITES: u64 = 14;

impl Torture {
    /// One that this seed determines, of 1,000 points.
    #[must_use]
    pub fn new(seed: u64) -> Torture {
        Torture { seed, first: 0, rounds: None, points: 1000, grain: Grain::Sector }
    }

    /// At least so many crashes and damages.
    #[must_use]
    pub fn points(mut self, points: u64) -> Torture {
        self.points = points;
        self
    }

    /// Only this round.
    #[must_use]
    pub fn round(mut self, round: u64) -> Torture {
        (self.first, self.rounds) = (round, Some(1));
        self
    }

    /// How much one bad sector may take; [`Grain::Sector`] if nothing is said.
    #[must_use]
    pub fn grain(mut self, grain: Grain) -> Torture {
        self.grain = grain;
        self
    }

    /// Tortures what this opens. It is called with a new disk first, to format it, then with the disk as it is left.
    ///
    /// # Errors
    /// The first violation.
    pub fn run<S: Storage>(
        &self,
        open: impl Fn(SimFolder) -> Result<S, StorageError>,
    ) -> Result<Tortured, Box<Broken>> {
        let broken = |why: Stop| {
            Box::new(Broken { round: self.first, write: 0, harm: "formatting".to_owned(), why: why.wrong() })
        };
        let template = formatted(&open, 1).map_err(broken)?;
        let other = foreign(&open).map_err(broken)?;
        let mut done = Tortured::default();
        let mut round = self.first;
        while self.rounds.map_or(done.points < self.points, |rounds| done.rounds < rounds) {
            let bench = Bench {
                open: &open,
                grain: self.grain,
                other: &other,
                subject: template.fork(),
                random: draw(self.seed, 0, round, 0),
                harm: String::new(),
                seen: BTreeSet::new(),
                write: 0,
                done: &mut done,
            };
            bench.round(round)?;
            round += 1;
        }
        Ok(done)
    }
}

fn first_state(disk_id: u64) -> Result<VsrState, Stop> {
    let membership = Membership::new(["a", "b", "c"]).map_err(|error| Stop::Wrong(error.to_string()))?;
    Ok(VsrState::formatted(ClusterId(7), ReplicaId(1), DiskId(u128::from(disk_id)), membership))
}

fn formatted<S: Storage>(open: &impl Fn(SimFolder) -> Result<S, StorageError>, disk_id: u64) -> Result<Subject, Stop> {
    let state = first_state(disk_id)?;
    let folder = SimFolder::formatted_by(state.clone(), open).map_err(Stop::Refused)?;
    Ok(Subject::new(folder, state))
}

/// Another disk, with a log of its own.
fn foreign<S: Storage>(open: &impl Fn(SimFolder) -> Result<S, StorageError>) -> Result<SimFolder, Stop> {
    let mut subject = formatted(open, 2)?;
    let storage = subject.open(open)?;
    let mut random = Random::new(2);
    for _ in 0..8 {
        let batch = subject.next_append(&mut random);
        subject.write(&storage, batch)?;
        subject.settle();
    }
    Ok(subject.folder)
}

/// One round: a log that grows, and the forks of its disk.
struct Bench<'a, O> {
    open: &'a O,
    grain: Grain,
    other: &'a SimFolder,
    subject: Subject,
    random: Random,
    /// What is being done to a fork.
    harm: String,
    /// Harms that were done at this write.
    seen: BTreeSet<String>,
    write: u64,
    done: &'a mut Tortured,
}

impl<S: Storage, O: Fn(SimFolder) -> Result<S, StorageError>> Bench<'_, O> {
    fn round(mut self, round: u64) -> Result<(), Box<Broken>> {
        self.done.rounds += 1;
        let result = self.writes();
        result.map_err(|stop| Box::new(Broken { round, write: self.write, harm: self.harm.clone(), why: stop.wrong() }))
    }

    fn writes(&mut self) -> Result<(), Stop> {
        let mut storage = self.start()?;
        while self.write < WRITES {
            self.write += 1;
            self.seen.clear();
            let before = self.subject.fork();
            let batch = self.subject.next_batch(&mut self.random);
            self.harm = "a write".to_owned();
            match self.subject.write(&storage, batch) {
                // The log is full.
                Err(Stop::Refused(StorageError::Full { .. })) => return Ok(()),
                written => written?,
            }
            let mut next = None;
            for _ in 0..5 {
                next = self.crash()?.or(next);
            }
            self.subject.settle();
            for _ in 0..4 {
                next = self.damage()?.or(next);
            }
            match self.random.below(4) {
                0 => self.fail_a_sync(&before)?,
                1 => self.lose_a_write(&before)?,
                2 => self.fill(&before)?,
                _ => {}
            }
            // Now and then the log goes on from what a harm has left.
            if let Some(next) = next.filter(|_| self.random.chance(1, 3)) {
                drop(storage);
                self.subject = next;
                storage = self.start()?;
            }
        }
        Ok(())
    }

    /// Opens the main disk, and notes the start.
    fn start(&mut self) -> Result<S, Stop> {
        self.harm = format!("a start after {}", if self.harm.is_empty() { "formatting" } else { &self.harm });
        let mut subject = self.subject.clone();
        let storage = subject.open(self.open)?;
        subject.folder.settle();
        for batch in subject.start_batches() {
            subject.write(&storage, batch)?;
            subject.settle();
        }
        self.subject = subject;
        Ok(storage)
    }

    /// Whether this harm is a new one at this write.
    fn is_new(&mut self, class: &'static str, harm: String) -> bool {
        self.harm = harm;
        let new = self.seen.insert(self.harm.clone());
        if new {
            self.done.points += 1;
            *self.done.harms.entry(class).or_default() += 1;
        }
        new
    }

    /// Opens a fork after something was done to it; `None` when it refuses, as it may.
    fn reopen(&mut self, subject: &mut Subject, class: &'static str, may_refuse: bool) -> Result<Option<S>, Stop> {
        match subject.open(self.open) {
            Ok(storage) => {
                subject.folder.settle();
                Ok(Some(storage))
            }
            // An operator who believes that would format it again, and the replica would forget what it has promised.
            Err(Stop::Refused(error @ StorageError::NotFormatted(_))) if !subject.folder.is_empty() => {
                Err(Stop::Wrong(format!("clause 12: the disk was formatted, yet {error}")))
            }
            Err(Stop::Refused(_)) if may_refuse || subject.ledger.may_refuse() => {
                *self.done.refusals.entry(class).or_default() += 1;
                Ok(None)
            }
            Err(stop) => Err(stop),
        }
    }

    /// What was said once stays true: over a power loss, and over a start that is noted and the writes after it.
    fn go_on(&mut self, mut subject: Subject, storage: S) -> Result<Option<Subject>, Stop> {
        let more = self.random.below(4);
        if more > 0 {
            self.harm.push_str(", then it goes on");
            for batch in subject.start_batches() {
                subject.write(&storage, batch)?;
                subject.settle();
            }
        }
        for _ in 1..more {
            let batch = subject.next_batch(&mut self.random);
            match subject.write(&storage, batch) {
                Err(Stop::Refused(StorageError::Full { .. })) => return Ok(None),
                written => written?,
            }
            subject.settle();
        }
        drop(storage);
        self.harm.push_str(", then power is lost");
        subject.power_loss();
        let reopened = self.reopen(&mut subject, "later power losses", false)?;
        Ok(reopened.map(|_| subject))
    }

    fn some_kept(&mut self, unsynced: u64) -> Kept {
        match self.random.below(8) {
            0 => Kept::Nothing,
            1 => Kept::Everything,
            2 => Kept::First(self.random.below(unsynced + 1)),
            3 => Kept::Only(self.random.below(unsynced.max(1))),
            4 => Kept::AllBut(self.random.below(unsynced.max(1))),
            _ => Kept::Some(self.random.next_u64()),
        }
    }

    /// The write under way is cut short.
    fn crash(&mut self) -> Result<Option<Subject>, Stop> {
        let steps = self.random.below(self.subject.folder.steps() as u64 + 1) as usize;
        let kill = self.random.chance(1, 4);
        let kept = self.some_kept(self.subject.folder.unsynced(steps));
        let mut fork = self.subject.fork();
        if kill {
            if !self.is_new("a kill, then a power loss", format!("a kill after step {steps}")) {
                return Ok(None);
            }
            fork.folder.kill(steps);
        } else {
            if !self.is_new("power losses", format!("a power loss after step {steps}, {kept:?} of the unsynced kept")) {
                return Ok(None);
            }
            fork.folder.power_loss(steps, kept);
        }
        let Some(storage) = self.reopen(&mut fork, "crashes", false)? else { return Ok(None) };
        if kill || self.random.chance(1, 3) { self.go_on(fork, storage) } else { Ok(Some(fork)) }
    }

    /// A place on the disk; mostly one that a write has left something in.
    fn some_place(&mut self) -> Option<Place> {
        let folder = &self.subject.folder;
        let file = self.random.below(folder.files() as u64) as usize;
        let sectors = folder.sectors(file);
        let mut place = Place { file, sector: self.random.below(sectors) };
        if self.random.chance(3, 4) {
            let newest = u64::from(folder.writes());
            let back = if self.random.chance(1, 2) { self.random.below(3) } else { self.random.below(newest) };
            let places = folder.places(newest.saturating_sub(back) as u32);
            if !places.is_empty() {
                place = places[self.random.below(places.len() as u64) as usize];
            }
        }
        (folder.sectors(place.file) > place.sector).then_some(place)
    }

    /// Something happens to a disk while no write is under way.
    fn damage(&mut self) -> Result<Option<Subject>, Stop> {
        if self.random.chance(1, 6) {
            return self.damage_file().map(|()| None);
        }
        let Some(place) = self.some_place() else { return Ok(None) };
        let Place { file, sector } = place;
        if file >= self.other.files() {
            return Ok(None);
        }
        let mut fork = self.subject.fork();
        let folder = fork.folder.clone();
        let (class, harm) = match self.random.below(6) {
            0 | 1 => ("flipped bits", Harm::Flip(self.random.below(8 * SECTOR as u64) as u32)),
            2 => ("zeroed sectors", Harm::Zero),
            3 => {
                let stays = folder.is_left_behind(place) && self.random.chance(1, 2);
                ("unreadable sectors", Harm::Unreadable { stays })
            }
            4 => {
                let from = Place { file, sector: self.random.below(folder.sectors(file)) };
                // What an earlier harm has moved comes home at the second move: that is a lost write, done on its own.
                if folder.is_displaced(from) || folder.sector(from) == folder.sector(place) {
                    return Ok(None);
                }
                ("misdirected sectors", Harm::Content(folder.sector(from).to_vec()))
            }
            _ => {
                let of_other = Place { file, sector: sector.min(self.other.sectors(file).saturating_sub(1)) };
                ("sectors of another disk", Harm::Content(self.other.sector(of_other).to_vec()))
            }
        };
        let what = match &harm {
            Harm::Content(_) => "other content".to_owned(),
            harm => format!("{harm:?}"),
        };
        if !self.is_new(class, format!("{what} in sector {sector} of file {file}")) {
            return Ok(None);
        }
        let by_page = matches!(harm, Harm::Unreadable { .. });
        if by_page {
            fork.ledger.hurt_page(&folder, place, self.grain);
        } else {
            fork.ledger.hurt_sector(&folder, place, self.grain);
        }
        // What was written when the disk was formatted may stand twice in the first page of a file.
        let first_page = (0..SECTORS_PER_PAGE as u64).map(|sector| Place { file, sector });
        let heads =
            by_page && sector < SECTORS_PER_PAGE as u64 && first_page.map(|at| folder.write_at(at)).any(|by| by == 0);
        folder.harm(place, &harm);
        let Some(storage) = self.reopen(&mut fork, class, heads)? else { return Ok(None) };
        self.go_on(fork, storage)
    }

    /// Something happens to a whole file.
    fn damage_file(&mut self) -> Result<(), Stop> {
        let mut fork = self.subject.fork();
        let folder = fork.folder.clone();
        let file = self.random.below(folder.files() as u64) as usize;
        if file >= self.other.files() {
            return Ok(());
        }
        let len = folder.len(file);
        let class = match self.random.below(3) {
            0 => {
                let to = match self.random.below(4) {
                    0 => 0,
                    1 => self.random.below(len.max(1)),
                    _ => self.random.below(len.max(1)) / SECTOR as u64 * SECTOR as u64,
                };
                if !self.is_new("cut files", format!("file {file} is cut from {len} to {to} bytes")) {
                    return Ok(());
                }
                folder.set_len(file, to);
                "cut files"
            }
            1 => {
                let sectors = folder.sectors(file);
                let from = if self.random.chance(1, 2) { 0 } else { self.random.below(sectors) };
                let to = if self.random.chance(1, 2) { sectors } else { from + self.random.below(sectors - from) + 1 };
                if !self.is_new("zeroed files", format!("sectors {from}..{to} of file {file} are zeroed")) {
                    return Ok(());
                }
                (from..to).for_each(|sector| folder.harm(Place { file, sector }, &Harm::Zero));
                "zeroed files"
            }
            _ => {
                if !self.is_new("files of another disk", format!("file {file} is another disk's")) {
                    return Ok(());
                }
                folder.replace(file, self.other);
                "files of another disk"
            }
        };
        fork.ledger.hurt_all();
        let reopened = match self.reopen(&mut fork, class, true) {
            // Where nothing is left of the log, a whole state of another disk is one: its disk id tells it apart.
            Err(Stop::Wrong(why)) if class == "files of another disk" && why.starts_with("clause 4:") => return Ok(()),
            reopened => reopened?,
        };
        if let Some(storage) = reopened {
            drop(storage);
            // It says the same once more.
            self.reopen(&mut fork, class, false)?;
        }
        Ok(())
    }

    /// A sync fails; the machine goes on, the process does not. Later power is lost.
    fn fail_a_sync(&mut self, before: &Subject) -> Result<(), Stop> {
        let mut fork = before.fork();
        let after = self.random.below(2) as u32;
        self.harm = "a start before a failed sync".to_owned();
        let storage = fork.open(self.open)?;
        fork.folder.settle();
        let salt = self.random.next_u64();
        if !self.is_new("failed syncs", format!("sync {after} of a write fails ({salt:x})")) {
            return Ok(());
        }
        let batch = fork.next_batch(&mut self.random);
        fork.folder.fail_sync(after, salt);
        match fork.write(&storage, batch) {
            // It took fewer syncs.
            Ok(()) => fork.settle(),
            Err(Stop::Refused(StorageError::Io { .. })) => {
                let append = fork.clone().next_append(&mut self.random);
                let state = Batch { state: Some(fork.ledger.state().clone()), ..Batch::default() };
                for again in [append, state] {
                    match now(storage.write(again)) {
                        Err(Stop::Refused(StorageError::Poisoned(_))) => {}
                        other => {
                            let said = other.map_err(Stop::wrong);
                            return Err(Stop::Wrong(format!("clause 10: after a failed sync a write gives {said:?}")));
                        }
                    }
                }
            }
            Err(Stop::Refused(StorageError::Full { .. })) => return Ok(()),
            Err(stop) => return Err(stop),
        }
        drop(storage);
        fork.folder.kill(usize::MAX);
        let Some(storage) = self.reopen(&mut fork, "failed syncs", false)? else { return Ok(()) };
        self.go_on(fork, storage).map(|_| ())
    }

    /// A write is reported as done, and never comes to the disk; most times others come after it.
    fn lose_a_write(&mut self, before: &Subject) -> Result<(), Stop> {
        let mut fork = before.fork();
        let more = self.random.below(3);
        if !self.is_new("lost writes", format!("a write is lost, {more} come after it")) {
            return Ok(());
        }
        let storage = fork.open(self.open)?;
        fork.folder.settle();
        for batch in fork.start_batches() {
            fork.write(&storage, batch)?;
            fork.settle();
        }
        let batch = fork.next_append(&mut self.random);
        fork.write(&storage, batch)?;
        // With a vsr state among it, what was promised is lost: a storage that notices refuses.
        let may_refuse = fork.folder.files_written() > 1;
        fork.folder.lose_steps();
        fork.ledger.complete_lost();
        for _ in 0..more {
            let batch = fork.next_append(&mut self.random);
            fork.write(&storage, batch)?;
            fork.settle();
        }
        drop(storage);
        fork.power_loss();
        let Some(storage) = self.reopen(&mut fork, "lost writes", may_refuse)? else { return Ok(()) };
        self.go_on(fork, storage).map(|_| ())
    }

    /// The disk has no room for more than the files have; or, where the file system copies on write, for the syncs of one of them.
    fn fill(&mut self, before: &Subject) -> Result<(), Stop> {
        let mut fork = before.fork();
        let count = 1 + self.random.below(6);
        let late = self.random.chance(1, 2).then(|| self.random.below(fork.folder.files() as u64) as usize);
        let what = late.map_or("the disk is full".to_owned(), |file| format!("syncs of file {file} find no room"));
        if !self.is_new("full disks", format!("{what} for {count} writes")) {
            return Ok(());
        }
        let storage = fork.open(self.open)?;
        fork.folder.settle();
        fork.folder.set_full(late.is_none());
        fork.folder.set_syncs_full(late);
        let mut refused = None;
        for _ in 0..count {
            let batch = refused.take().unwrap_or_else(|| fork.next_append(&mut self.random));
            match fork.write(&storage, batch.clone()) {
                Ok(()) => fork.settle(),
                Err(Stop::Refused(StorageError::Full { .. })) => {
                    fork.folder.settle();
                    if late.is_none() {
                        fork.ledger.refuse();
                    } else {
                        // Some of it may be on the disk. A replica writes the same again.
                        refused = Some(batch);
                    }
                }
                Err(stop) => return Err(Stop::Wrong(format!("clause 13: on a full disk {}", stop.wrong()))),
            }
        }
        fork.folder.set_full(false);
        fork.folder.set_syncs_full(None);
        if let Some(batch) = refused.filter(|_| self.random.chance(1, 2)) {
            fork.write(&storage, batch)?;
            fork.settle();
        }
        drop(storage);
        fork.power_loss();
        let Some(storage) = self.reopen(&mut fork, "full disks", false)? else { return Ok(()) };
        self.go_on(fork, storage).map(|_| ())
    }
}
