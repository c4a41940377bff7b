//! What a storage may say after a crash or damage, by the clauses of [`vsr::Storage`].

use std::collections::{BTreeMap, BTreeSet};

use vsr::protocol::{Batch, Entry, Header, OpNumber, Recovered, Slot, VsrState};

use super::folder::{Place, SimFolder};
use super::pages::{SECTOR, SECTORS_PER_PAGE};

/// How much one bad sector may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grain {
    /// Only entries of which a part lies in it: what says which entries there are is in two places.
    Sector,
    /// Only entries of the writes that it belongs to.
    Write,
    /// Any entry may be called damaged. No storage may do worse: none is called absent, or is another one.
    #[default]
    Log,
}

/// What is known of one op.
#[derive(Clone, Debug)]
struct Fact {
    /// What may be found here. The first is what was durable last.
    contents: Vec<Entry>,
    /// What stood here before a write that was lost without a sign, until a later write proves the loss.
    stale: Vec<Entry>,
    /// It may be damaged.
    doubt: bool,
    /// It may be absent.
    gone: bool,
    /// The write that put it was lost, and no later one proves it yet.
    lost: bool,
}

impl Fact {
    fn of(entry: Entry) -> Fact {
        Fact { contents: vec![entry], stale: Vec::new(), doubt: false, gone: false, lost: false }
    }

    /// Whether an intact entry of this header, and nothing else, may be found.
    fn is_only(&self, header: &Header) -> bool {
        let is_one = matches!(&self.contents[..], [entry] if entry.header == *header);
        is_one && self.stale.is_empty() && !self.doubt && !self.gone && !self.lost
    }

    /// One of these, if it can be read at all.
    fn doubtful(contents: Vec<Entry>, gone: bool) -> Fact {
        Fact { contents, stale: Vec::new(), doubt: true, gone, lost: false }
    }
}

/// What the write under way does to an op.
enum Touch<'a> {
    No,
    Truncated,
    Put(&'a Entry),
}

/// The model that a storage is compared with: what it was told, what was done to its disk, and what it has said of that.
#[derive(Clone, Debug)]
pub struct Ledger {
    state: VsrState,
    facts: BTreeMap<u64, Fact>,
    head: u64,
    pending: Option<(Batch, u32)>,
    /// Writes to the log that were reported as done.
    done: BTreeSet<u32>,
    /// Writes of a vsr state.
    states: BTreeSet<u32>,
    /// Some fact may be one of a write that was lost.
    any_lost: bool,
    /// Any slot may be damaged.
    any: bool,
    /// The end may be uncertain.
    tail: bool,
    /// Writes of which a sector went bad.
    scars: BTreeSet<u32>,
    /// Something went bad where no write to the log is yet: one may seem to have been there, at any later start.
    behind: bool,
    /// How often harm was done where a vsr state is, or what was written when the disk was formatted.
    outside_the_log: u32,
}

impl Ledger {
    /// Of a disk that was formatted with this state.
    #[must_use]
    pub fn new(state: VsrState) -> Ledger {
        Ledger {
            state,
            facts: BTreeMap::new(),
            head: 0,
            pending: None,
            done: BTreeSet::new(),
            states: BTreeSet::new(),
            any_lost: false,
            any: false,
            tail: false,
            scars: BTreeSet::new(),
            behind: false,
            outside_the_log: 0,
        }
    }

    /// The durable vsr state.
    #[must_use]
    pub fn state(&self) -> &VsrState {
        &self.state
    }

    /// The highest op.
    #[must_use]
    pub fn head(&self) -> OpNumber {
        OpNumber(self.head)
    }

    /// What was durable last in this slot, damaged or not.
    #[must_use]
    pub fn entry(&self, op: OpNumber) -> Option<&Entry> {
        self.facts.get(&op.0).and_then(|fact| fact.contents.first())
    }

    /// Whether nothing but an intact entry may be found in this slot.
    #[must_use]
    pub fn is_sure(&self, op: OpNumber) -> bool {
        self.facts.get(&op.0).is_some_and(|fact| !fact.doubt && !fact.gone && fact.contents.len() == 1)
    }

    /// A write begins, by its number of [`SimFolder::begin`].
    pub fn begin(&mut self, batch: Batch, write: u32) {
        if batch.state.is_some() {
            self.states.insert(write);
        }
        self.pending = Some((batch, write));
    }

    /// The write was refused, with nothing of it written.
    pub fn refuse(&mut self) {
        self.pending = None;
    }

    /// The write was reported as done. Whether it was one to the log.
    pub fn complete(&mut self) -> bool {
        let Some((batch, write)) = self.pending.take() else { return false };
        let is_log = batch.state.is_none();
        if is_log {
            self.done.insert(write);
            self.prove_loss();
        }
        self.apply(batch);
        is_log
    }

    fn apply(&mut self, batch: Batch) {
        if let Some(above) = batch.truncate_above {
            self.facts.split_off(&(above.0 + 1));
            self.head = self.head.min(above.0);
        }
        if let Some(state) = batch.state {
            self.drop_up_to(state.base().0);
            self.state = state;
        }
        for entry in batch.entries {
            self.head = self.head.max(entry.header.op.0);
            self.facts.insert(entry.header.op.0, Fact::of(entry));
        }
    }

    /// Checkpoints have what is not above this op.
    fn drop_up_to(&mut self, base: u64) {
        self.facts = self.facts.split_off(&(base + 1));
        self.head = self.head.max(base);
    }

    /// A later write proves that one was lost: it may have held anything, and nothing is absent because of it.
    fn prove_loss(&mut self) {
        if !std::mem::take(&mut self.any_lost) {
            return;
        }
        for fact in self.facts.values_mut().filter(|fact| fact.lost) {
            self.any = true;
            fact.stale.clear();
            (fact.doubt, fact.gone, fact.lost) = (true, fact.contents.is_empty(), false);
        }
    }

    /// The write was reported as done, and nothing of it came to the disk. Until a later write to the log is there,
    /// the storage cannot know. (Not for a write of a vsr state.)
    pub fn complete_lost(&mut self) {
        let Some((batch, _)) = self.pending.take() else { return };
        let (before, head) = (self.facts.clone(), self.head);
        let from = batch.truncate_above.map_or(u64::MAX, |above| above.0 + 1);
        let put = batch.entries.iter().map(|entry| entry.header.op.0);
        let touched: BTreeSet<u64> = put.chain(before.keys().copied().filter(|op| *op >= from)).collect();
        self.apply(batch);
        for op in touched {
            let fact = self.facts.entry(op).or_insert_with(|| Fact::doubtful(Vec::new(), true));
            (fact.doubt, fact.gone, fact.lost) = (true, true, true);
            if let Some(old) = before.get(&op) {
                fact.stale.extend(old.contents.iter().cloned());
            }
        }
        self.head = self.head.max(head);
        (self.tail, self.any_lost) = (true, true);
    }

    // ---- harm ----

    /// Anything may be damaged, and the end lost.
    pub fn hurt_all(&mut self) {
        (self.any, self.tail) = (true, true);
    }

    /// These ops may be damaged.
    pub fn hurt(&mut self, ops: &[OpNumber]) {
        for op in ops {
            if let Some(fact) = self.facts.get_mut(&op.0) {
                fact.doubt = true;
            }
        }
    }

    /// Whether no write is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_none()
    }

    /// Whether so much was harmed beside the log that no copy of the vsr state needs to be left: then a storage may
    /// refuse to open.
    #[must_use]
    pub fn may_refuse(&self) -> bool {
        self.outside_the_log > 1
    }

    /// One sector goes bad. To be called before it does. The ops that this may take.
    pub fn hurt_sector(&mut self, folder: &SimFolder, place: Place, grain: Grain) -> Vec<OpNumber> {
        self.outside_the_log += u32::from(self.is_outside_the_log(folder, place));
        self.hurt_one(folder, place, grain)
    }

    /// Whether a sector holds a part of a vsr state, or nothing that was written since the disk was formatted. A write
    /// to the log may have to make a state durable, too: that is in another file then.
    fn is_outside_the_log(&self, folder: &SimFolder, place: Place) -> bool {
        let write = folder.write_at(place);
        if write == 0 || self.states.contains(&write) {
            return true;
        }
        let last_state = self.states.iter().rev().find_map(|state| folder.places(*state).first().copied());
        last_state.is_some_and(|of| of.file == place.file)
            && folder.places(write).iter().any(|of| of.file != place.file)
    }

    /// As [`hurt_sector`](Self::hurt_sector), for every sector of a page: what cannot be read cannot be read by page.
    pub fn hurt_page(&mut self, folder: &SimFolder, place: Place, grain: Grain) -> Vec<OpNumber> {
        let per_page = SECTORS_PER_PAGE as u64;
        let first = place.sector / per_page * per_page;
        let page = first..(first + per_page).min(folder.sectors(place.file));
        let writes: BTreeSet<u32> = page.clone().map(|sector| folder.write_at(Place { sector, ..place })).collect();
        let mut places = page.clone().map(|sector| Place { sector, ..place });
        self.outside_the_log += u32::from(places.any(|of| self.is_outside_the_log(folder, of)));
        let mut taken = Vec::new();
        let scars = self.scars.clone();
        for sector in page.clone() {
            // A page is one harm: its sectors are no scars to each other.
            self.scars.clone_from(&scars);
            taken.extend(self.hurt_one(folder, Place { sector, ..place }, grain));
        }
        self.scars.extend(&writes);
        let is_whole = |write: &u32| {
            let inside = |of: &Place| of.file == place.file && page.contains(&of.sector);
            *write != 0 && !self.states.contains(write) && folder.places(*write).iter().all(inside)
        };
        // Nothing is left of a write: whatever it was.
        if writes.iter().any(is_whole) {
            self.hurt_all();
        }
        taken
    }

    /// Whether a write went bad of which this one holds the second copy of what says what it was, or the other way
    /// round.
    fn has_scarred_copy(&self, folder: &SimFolder, file: usize, write: u32) -> bool {
        let others = self.scars.iter().filter(|scar| **scar != write);
        others
            .copied()
            .any(|scar| self.may_hold_copy(folder, file, write, scar) || self.may_hold_copy(folder, file, scar, write))
    }

    /// Whether `by` may hold the second copy of what says what `of` was. A write of one sector has no place for it: it
    /// is in the next one.
    fn may_hold_copy(&self, folder: &SimFolder, file: usize, by: u32, of: u32) -> bool {
        let places = folder.places(of).into_iter().filter(|place| place.file == file);
        let sectors: Vec<u64> = places.map(|place| place.sector).collect();
        let [only] = sectors[..] else { return false };
        let mut behind = (only + 1..folder.sectors(file)).map(|sector| folder.write_at(Place { file, sector }));
        let next = self.done.range(of + 1..).next().copied();
        behind.find(|write| *write != 0) == Some(by) || next == Some(by)
    }

    fn hurt_one(&mut self, folder: &SimFolder, place: Place, grain: Grain) -> Vec<OpNumber> {
        let write = folder.write_at(place);
        let ops: Vec<OpNumber> = folder.ops(write).into_iter().filter(|op| self.entry(*op).is_some()).collect();
        if write != 0 && self.is_outside_the_log(folder, place) {
            // One copy of a vsr state: another one is elsewhere.
            return Vec::new();
        }
        if write != 0 && (!self.scars.insert(write) || self.has_scarred_copy(folder, place.file, write)) {
            // Both copies of what says what it was, or what a neighbour was, may be gone.
            self.hurt_all();
            self.hurt(&ops);
            return ops;
        }
        let latest = self.done.last().copied().unwrap_or_default();
        let last = folder.places(latest).into_iter().filter(|of| of.file == place.file).map(|of| of.sector).max();
        self.behind |= !self.done.contains(&write) || last.is_none_or(|last| place.sector > last);
        self.tail |= self.behind || write == latest;
        if last.is_some_and(|last| place.sector == last + 1) {
            // Where the next write would begin: there may have been one, which has replaced what came before it.
            self.hurt_all();
        }
        let taken = match grain {
            Grain::Log => {
                self.any = true;
                ops
            }
            Grain::Write => ops,
            Grain::Sector => {
                // Its neighbours, too: the end of a body may be too short to be recognised.
                let near = place.sector.saturating_sub(1)..=place.sector + 1;
                let near = near.map(|sector| Place { sector, ..place }).filter(|near| folder.write_at(*near) == write);
                let mut words: BTreeSet<[u8; WORD]> = BTreeSet::new();
                for near in near {
                    let sector = folder.sector(near);
                    let found = sector.windows(WORD).map(<[u8; WORD]>::try_from);
                    words.extend(found.filter_map(Result::ok));
                }
                let lies_here = |op: &OpNumber| {
                    self.entry(*op).is_some_and(|entry| {
                        let all = (entry.body.len() + 1).saturating_sub(WORD);
                        let found = entry.body.windows(WORD).filter(|word| words.contains(*word)).count();
                        // Of a short body all words are here, but for those across the end of a sector; bodies that are
                        // elsewhere have some in common with it. Of a long one a part may be elsewhere.
                        let least = if entry.body.len() <= SHORT { (all + 1).saturating_sub(WORD) } else { 1 };
                        found >= least
                    })
                };
                ops.into_iter().filter(lies_here).collect()
            }
        };
        self.hurt(&taken);
        taken
    }

    // ---- the verdict ----

    /// Compares what a storage has recovered with what it may say. It is held to what it has said.
    ///
    /// # Errors
    /// The clause that it breaks, in a sentence with both values.
    pub fn judge(&mut self, recovered: &Recovered) -> Result<(), String> {
        let pending = self.pending.take().map(|(batch, _)| batch);
        let next = pending.as_ref().and_then(|batch| batch.state.as_ref());
        let (is_old, is_new) = (recovered.state == self.state, next == Some(&recovered.state));
        if !is_old && !is_new {
            let (found, known) = (&recovered.state, &self.state);
            return Err(format!(
                "clause 4: the vsr state is one of start {} in view {}, durable is start {} in view {}",
                found.starts, found.view, known.starts, known.view
            ));
        }
        if !recovered.head_certain && !self.tail {
            return Err("clause 7: the head is uncertain, and nothing has harmed the end of the log".to_owned());
        }
        // With a new state in the batch the log follows the state (clause 6).
        let (old_log, new_log) = (next.is_none() || is_old, next.is_none() || is_new);
        let put = |op: u64| {
            let batch = pending.as_ref()?;
            batch.entries.iter().find(|entry| entry.header.op.0 == op)
        };
        let truncated = |op: u64| {
            let above = pending.as_ref().and_then(|batch| batch.truncate_above);
            above.is_some_and(|above| op > above.0)
        };
        let in_batch = pending.iter().flat_map(|batch| &batch.entries).map(|entry| entry.header.op.0).max();
        let base = recovered.state.base().0;
        let slots = recovered.head().0;
        if base > self.state.base().0 {
            self.drop_up_to(base);
        }
        let last = self.head.max(in_batch.unwrap_or(0)).max(slots);
        let (mut stood, mut changed) = (self.facts.range(base + 1..).peekable(), Vec::new());
        for op in base + 1..=last {
            let slot = recovered.slot(OpNumber(op)).unwrap_or(&Slot::Absent);
            let touch = match put(op) {
                Some(entry) => Touch::Put(entry),
                None if truncated(op) => Touch::Truncated,
                None => Touch::No,
            };
            let fact = stood.next_if(|(at, _)| **at == op).map(|(_, fact)| fact);
            if let (Slot::Clean(header), Touch::No, Some(fact)) = (slot, &touch, fact)
                && fact.is_only(header)
            {
                // It was to be found, and is. Of most starts every slot is one of these.
                continue;
            }
            let at_lost_end = op > slots && !recovered.head_certain;
            changed.push((op, self.judge_slot(op, slot, &touch, (old_log, new_log), at_lost_end)?));
        }
        for (op, fact) in changed {
            match fact {
                Some(fact) => _ = self.facts.insert(op, fact),
                None => _ = self.facts.remove(&op),
            }
        }
        self.facts.split_off(&(last + 1));
        let known = self.facts.last_key_value().map_or(base, |(op, _)| *op);
        self.head = if recovered.head_certain { slots } else { slots.max(known) };
        if !is_old {
            self.state = recovered.state.clone();
        }
        (self.any, self.tail) = (false, self.behind || !recovered.head_certain);
        Ok(())
    }

    fn judge_slot(
        &self,
        op: u64,
        slot: &Slot,
        touch: &Touch<'_>,
        (old_log, new_log): (bool, bool),
        at_lost_end: bool,
    ) -> Result<Option<Fact>, String> {
        let fact = self.facts.get(&op);
        let stood = || fact.into_iter().flat_map(|fact| fact.contents.iter().chain(&fact.stale));
        let new = if let Touch::Put(entry) = touch { Some(*entry) } else { None };
        // A new state leaves what it does not truncate.
        let old = stood().filter(|_| old_log || matches!(touch, Touch::No));
        let known: Vec<&Entry> = old.chain(new).collect();
        let find = |header: &Header| known.iter().find(|entry| entry.header == *header).map(|entry| (*entry).clone());
        let durable = fact.and_then(|fact| fact.contents.first()).map(|entry| entry.header.checksum());
        let durable = || durable.map_or("nothing".to_owned(), |checksum| checksum.to_string());
        match slot {
            Slot::Clean(header) => match find(header) {
                Some(entry) => Ok(Some(Fact::of(entry))),
                None => Err(format!(
                    "clause 9: op {op} is clean as {}, which is truncated or was never durable; durable is {}",
                    header.checksum(),
                    durable()
                )),
            },
            Slot::Corrupt(header) => {
                let touched = match touch {
                    Touch::No => false,
                    Touch::Truncated => fact.is_some(),
                    Touch::Put(_) => true,
                };
                // The last write may be gone: what it dropped may be called damaged, as what it put.
                let dropped = fact.is_none() && self.tail;
                // A record that is lost may have filled a hole below what is there.
                let is_hole = fact.is_none() && self.facts.range(op + 1..).next().is_some();
                let dropped = dropped || (is_hole && !self.scars.is_empty());
                if !touched && !dropped && !self.any && !fact.is_some_and(|fact| fact.doubt) {
                    return Err(format!(
                        "clause 5: op {op} is corrupt, and nothing has harmed it; durable is {}",
                        durable()
                    ));
                }
                if let Some(header) = header
                    && !dropped
                    && find(header).is_none()
                {
                    return Err(format!(
                        "clause 9: op {op} is corrupt with the header of {}, durable is {}",
                        header.checksum(),
                        durable()
                    ));
                }
                let contents: Vec<Entry> = known.into_iter().cloned().collect();
                let gone = contents.is_empty();
                Ok(Some(Fact::doubtful(contents, gone)))
            }
            Slot::Absent => {
                let was_nothing = fact.is_none_or(|fact| fact.gone);
                let truncated = matches!(touch, Touch::Truncated) && new_log;
                if !was_nothing && !truncated && !at_lost_end {
                    return Err(format!("clause 8: op {op} is called absent, durable is {}", durable()));
                }
                if !at_lost_end || known.is_empty() {
                    return Ok(None);
                }
                Ok(Some(Fact::doubtful(known.into_iter().cloned().collect(), true)))
            }
        }
    }
}

/// Bytes by which a part of a body is recognised.
const WORD: usize = 8;
/// A body of so many bytes has at most one end of a sector in it.
const SHORT: usize = SECTOR / 2;
