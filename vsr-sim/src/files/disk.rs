//! A disk that forgets what was not synced, tears what was being written, and rots.

use std::collections::{BTreeMap, BTreeSet};

use vsr::Checksum;
use vsr::protocol::{Batch, Entry, OpNumber, Random, Recovered, Slot, Succession, VsrState};

use crate::faults::{Damage, Unsynced};

#[derive(Clone, Debug)]
struct Stored {
    entry: Entry,
    damage: Damage,
}

/// One replica's disk: what is durable, and the write that is under way.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: VsrState,
    entries: BTreeMap<OpNumber, Stored>,
    pending: Option<Batch>,
    /// Slots that a torn overwrite left unreadable.
    torn: BTreeMap<OpNumber, ()>,
    lost: bool,
    /// The unreadable end that the replica which runs was told of; and the one of which a state was written since. Like
    /// a storage on files, this one is sure of its end from the next start on: the loss is the replica's to remember.
    told: Option<OpNumber>,
    noted: Option<OpNumber>,
    /// What the storage on files said of the end of its log, where there is one below.
    certain: Option<bool>,
    /// Places that keep nothing, and how many puts more come to nothing there.
    bad: BTreeMap<OpNumber, u64>,
    /// A write whose sync has failed: it can be read until power is lost.
    cached: Option<Batch>,
    /// What was on the disks in whose place this one is: the last op that was dropped there, and what was above it.
    before: (OpNumber, BTreeSet<(OpNumber, Checksum)>),
    /// An older copy of itself was put back.
    old: bool,
}

impl SimDisk {
    /// A formatted disk.
    #[must_use]
    pub fn new(state: VsrState) -> SimDisk {
        SimDisk {
            state,
            entries: BTreeMap::new(),
            pending: None,
            torn: BTreeMap::new(),
            lost: false,
            told: None,
            noted: None,
            certain: None,
            bad: BTreeMap::new(),
            cached: None,
            before: (OpNumber::ZERO, BTreeSet::new()),
            old: false,
        }
    }

    /// An older copy of this disk is put back in its place. What was on it counts as written.
    pub fn restore(&mut self, copy: SimDisk) {
        let state = copy.state.clone();
        self.replace(state);
        let before = std::mem::take(&mut self.before);
        *self = SimDisk { before, old: true, pending: None, cached: None, ..copy };
    }

    /// Whether it is an older copy of itself.
    #[must_use]
    pub fn is_old(&self) -> bool {
        self.old
    }

    /// Whether its replica's word may count: it is here, no older copy, and no successor that is not whole.
    #[must_use]
    pub fn counts(&self) -> bool {
        let is_whole = !matches!(self.state.succession, Succession::Asking | Succession::Appointed { .. });
        !self.lost && !self.old && is_whole
    }

    /// A new disk takes the place of this one, which is gone. What was on it counts as written, as a rotten copy does.
    pub fn replace(&mut self, state: VsrState) {
        let (base, mut held) = std::mem::take(&mut self.before);
        held.extend(self.entries.iter().map(|(op, stored)| (*op, stored.entry.header.checksum())));
        let base = base.max(self.state.base());
        let before = (base, held.split_off(&(base.next(), Checksum(0))));
        *self = SimDisk { before, ..SimDisk::new(state) };
    }

    /// Whether a disk in whose place this one is has held this entry.
    #[must_use]
    pub fn has_held(&self, op: OpNumber, checksum: Checksum) -> bool {
        let (base, held) = &self.before;
        op <= *base || held.contains(&(op, checksum))
    }

    /// The durable record.
    #[must_use]
    pub fn state(&self) -> &VsrState {
        &self.state
    }

    /// It is gone, for good. What was on it counts as written, as a rotten copy does.
    pub fn lose(&mut self) {
        self.pending = None;
        self.lost = true;
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether a write is under way.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether everything that was ever written is on it, or lost: nothing waits for a sync.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_none() && self.cached.is_none()
    }

    /// The highest op on the disk.
    #[must_use]
    pub fn head(&self) -> OpNumber {
        let torn = self.torn.last_key_value().map_or(OpNumber::ZERO, |(op, ())| *op);
        self.entries.last_key_value().map_or(OpNumber::ZERO, |(op, _)| *op).max(torn).max(self.state.base())
    }

    /// The checksum of the durable entry of an op, rotten or not.
    #[must_use]
    pub fn durable(&self, op: OpNumber) -> Option<Checksum> {
        self.entries.get(&op).map(|stored| stored.entry.header.checksum())
    }

    /// The header of the durable entry of an op, rotten or not.
    #[must_use]
    pub fn durable_header(&self, op: OpNumber) -> Option<vsr::protocol::Header> {
        self.entries.get(&op).map(|stored| stored.entry.header)
    }

    /// The durable entry of an op as it was written, rotten or not: for checkers, that know more than a replica.
    #[must_use]
    pub fn durable_entry(&self, op: OpNumber) -> Option<&Entry> {
        self.entries.get(&op).map(|stored| &stored.entry)
    }

    /// The durable entry of an op, if it is intact.
    #[must_use]
    pub fn intact(&self, op: OpNumber) -> Option<&Entry> {
        let stored = self.entries.get(&op).filter(|_| !self.lost)?;
        (stored.damage == Damage::Intact).then_some(&stored.entry)
    }

    /// Whether something was in this slot that cannot be read any more.
    #[must_use]
    pub fn is_damaged(&self, op: OpNumber) -> bool {
        self.torn.contains_key(&op) || self.entries.get(&op).is_some_and(|stored| stored.damage != Damage::Intact)
    }

    /// A write begins.
    pub fn begin(&mut self, batch: Batch) {
        self.pending = Some(batch);
    }

    /// The write is durable.
    pub fn complete(&mut self) {
        if let Some(batch) = self.pending.take() {
            self.apply(batch);
        }
    }

    fn apply(&mut self, batch: Batch) {
        if let Some(op) = batch.truncate_above {
            self.entries.split_off(&op.next());
            self.torn.split_off(&op.next());
            self.told.take_if(|told| *told > op);
            self.noted.take_if(|noted| *noted > op);
        }
        if let Some(state) = batch.state {
            if state.base() > self.state.base() {
                self.drop_up_to(state.base());
            }
            self.noted = self.told.or(self.noted);
            if self.certain.is_some() && state.head_certain {
                self.certain = Some(true);
            }
            self.state = state;
        }
        for entry in batch.entries {
            self.put(entry);
        }
    }

    /// What is not above this op is gone: checkpoints have it.
    fn drop_up_to(&mut self, base: OpNumber) {
        self.entries = self.entries.split_off(&base.next());
        self.torn = self.torn.split_off(&base.next());
        self.bad = self.bad.split_off(&base.next());
        self.told.take_if(|told| *told <= base);
        self.noted.take_if(|noted| *noted <= base);
    }

    fn put(&mut self, entry: Entry) {
        let op = entry.header.op;
        self.torn.remove(&op);
        // What rots there from now on is another loss.
        self.told.take_if(|told| *told == op);
        self.noted.take_if(|noted| *noted == op);
        let mut damage = Damage::Intact;
        if let Some(puts) = self.bad.get_mut(&op).filter(|puts| **puts > 0) {
            // The header has a place of its own.
            (*puts, damage) = (puts.saturating_sub(1), Damage::Body);
        }
        self.entries.insert(op, Stored { entry, damage });
    }

    /// The place of an op's body keeps nothing from now on: what is there rots, and so does what is put there, so many times;
    /// then the disk has another place for it. False when it was bad already.
    pub fn spoil(&mut self, op: OpNumber, puts: u64) -> bool {
        if self.bad.get(&op).is_some_and(|left| *left > 0) {
            return false;
        }
        self.bad.insert(op, puts);
        self.rot(op, Damage::Body);
        true
    }

    /// The write is reported durable, and its records are lost whole, bodies and headers, but for those that this spares.
    pub fn complete_without_a_trace(&mut self, spared: impl Fn(OpNumber) -> bool) {
        self.complete_damaged(Damage::End, spared);
    }

    /// The sync of the write under way fails. What was written can be read until power is lost, and is not on the disk.
    pub fn fail_sync(&mut self) {
        self.cached = self.pending.take();
    }

    /// A start writes again what it can read and was not synced: a sync that failed once would not do it.
    pub fn write_back(&mut self) {
        if let Some(batch) = self.cached.take() {
            self.apply(batch);
        }
    }

    /// Power is lost, and with it what no sync has reached. False when there was nothing.
    pub fn lose_power(&mut self, unsynced: Unsynced) -> bool {
        if self.cached.is_none() {
            return false;
        }
        self.pending = self.cached.take();
        self.crash(unsynced).is_some()
    }

    /// The write is reported durable, and the bodies of its entries are not there; those that this predicate spares are.
    pub fn complete_silently(&mut self, spared: impl Fn(OpNumber) -> bool) {
        self.complete_damaged(Damage::Body, spared);
    }

    fn complete_damaged(&mut self, damage: Damage, spared: impl Fn(OpNumber) -> bool) {
        let Some(batch) = self.pending.take() else { return };
        let ops: Vec<OpNumber> = batch.entries.iter().map(|entry| entry.header.op).collect();
        self.apply(batch);
        for op in ops.into_iter().filter(|op| !spared(*op)) {
            self.rot(op, damage);
        }
    }

    /// Power is lost. What becomes of the write under way is one of what the contract allows (clauses 4
    /// to 7): nothing of it, all of it, or a part of its entries. Says which; nothing when there was none.
    pub fn crash(&mut self, unsynced: Unsynced) -> Option<&'static str> {
        let batch = self.pending.take()?;
        match unsynced {
            Unsynced::Lost => Some("unsynced write lost"),
            Unsynced::Kept => {
                self.apply(batch);
                Some("unsynced write kept")
            }
            Unsynced::Torn(salt) => {
                let mut random = Random::new(salt);
                // A batch of a state alone is atomic (clause 4).
                if batch.entries.is_empty() {
                    if random.chance(1, 2) {
                        self.apply(batch);
                    }
                    return Some("unsynced write torn");
                }
                for entry in batch.entries {
                    let op = entry.header.op;
                    let overwrites = self.entries.contains_key(&op);
                    match random.below(3) {
                        0 => self.put(entry),
                        // The old entry is gone and the new one is not there: unreadable.
                        1 if overwrites => {
                            self.entries.remove(&op);
                            self.torn.insert(op, ());
                        }
                        _ => {}
                    }
                }
                Some("unsynced write torn")
            }
        }
    }

    /// Rots one entry. False when there is none, or it is rotten already.
    pub fn rot(&mut self, op: OpNumber, damage: Damage) -> bool {
        match self.entries.get_mut(&op) {
            Some(stored) if stored.damage == Damage::Intact => stored.damage = damage,
            _ => return false,
        }
        // What a state has noted is the loss of what came after it: not that of what is the end now.
        if self.is_unreadable(op) && (op.0..=self.head().0).all(|above| self.is_unreadable(OpNumber(above))) {
            (self.told, self.noted) = (None, None);
        }
        true
    }

    fn is_unreadable(&self, op: OpNumber) -> bool {
        self.entries.get(&op).is_some_and(|stored| matches!(stored.damage, Damage::Both | Damage::End))
    }

    /// Whether the end of the log is readable: nothing can have come after it.
    #[must_use]
    pub fn is_head_certain(&self) -> bool {
        let head = self.head();
        self.certain.unwrap_or_else(|| !self.is_unreadable(head) || self.noted == Some(head))
    }

    /// A replica starts: what it reads.
    pub fn start(&mut self) -> Recovered {
        self.told = (!self.is_head_certain()).then(|| self.head());
        self.recover()
    }

    /// A storage on files has started here: what it says it has is what is on this disk. `entry` knows what was put.
    pub(crate) fn adopt(&mut self, recovered: &Recovered, entry: impl Fn(OpNumber) -> Option<Entry>) {
        (self.pending, self.cached) = (None, None);
        if self.state != recovered.state {
            self.state = recovered.state.clone();
        }
        self.certain = Some(recovered.head_certain);
        self.torn.clear();
        // What was at a lost end counts as written, as a rotten copy does.
        // It still does at later starts, at which the storage is certain of its end: only the replica knows of the loss then.
        self.drop_up_to(recovered.state.base());
        let mut above = self.entries.split_off(&recovered.head().next());
        above.retain(|_, stored| !recovered.head_certain || stored.damage == Damage::End);
        for (op, slot) in (recovered.state.base().0 + 1..).map(OpNumber).zip(&recovered.slots) {
            let damage = match slot {
                Slot::Clean(_) => Damage::Intact,
                Slot::Corrupt(Some(_)) => Damage::Body,
                Slot::Corrupt(None) => Damage::Both,
                Slot::Absent => {
                    // Nor does it stop to count where something was put above it since, and the storage calls it absent, as
                    // long as the vsr state keeps the replica from denying it.
                    let is_lost_end = |stored: &Stored| stored.damage == Damage::End;
                    if !(self.entries.get(&op).is_some_and(is_lost_end) && is_never_denied(&self.state, op)) {
                        self.entries.remove(&op);
                    }
                    continue;
                }
            };
            match (slot, self.entries.get_mut(&op)) {
                (Slot::Clean(header), Some(stored)) if stored.entry.header == *header => stored.damage = damage,
                _ => match entry(op) {
                    Some(entry) => _ = self.entries.insert(op, Stored { entry, damage }),
                    None => {
                        self.entries.remove(&op);
                        self.torn.insert(op, ());
                    }
                },
            }
        }
        self.entries.extend(above.into_iter().map(|(op, stored)| (op, Stored { damage: Damage::End, ..stored })));
    }

    /// The last slot that a restarted replica reads, and whether it is told that nothing came after it.
    pub(crate) fn end(&self) -> (OpNumber, bool) {
        let mut head = self.head();
        let is_certain = self.is_head_certain();
        let is_noted = self.certain == Some(true) || self.noted == Some(head);
        while self.entries.get(&head).is_some_and(|stored| stored.damage == Damage::End) {
            head = head.prev();
        }
        // With the last slot unreadable in both places, what came after it is not known.
        (head, is_certain && (is_noted || !self.is_unreadable(head)))
    }

    /// What a restarted replica reads.
    #[must_use]
    pub fn recover(&self) -> Recovered {
        let (head, head_certain) = self.end();
        let base = self.state.base();
        let mut entries = self.entries.range(base.next()..).peekable();
        let mut stored = |op: OpNumber| entries.next_if(|(at, _)| **at == op).map(|(_, stored)| stored);
        let slots = (base.0 + 1..=head.0).map(OpNumber).map(|op| match stored(op) {
            Some(Stored { entry, damage: Damage::Intact }) => Slot::Clean(entry.header),
            Some(Stored { entry, damage: Damage::Body }) => Slot::Corrupt(Some(entry.header)),
            Some(Stored { damage: Damage::Both | Damage::End, .. }) => Slot::Corrupt(None),
            None if self.torn.contains_key(&op) => Slot::Corrupt(None),
            None => Slot::Absent,
        });
        let slots = slots.collect();
        Recovered { state: self.state.clone(), slots, head_certain }
    }
}

/// Whether the vsr state keeps its replica from denying an op that its storage calls absent: the op is committed, or was lost,
/// perhaps (rules 7.3, 7.15).
fn is_never_denied(state: &VsrState, op: OpNumber) -> bool {
    op <= state.commit.op() || state.doubted.is_some_and(|doubted| doubted.above < op && op <= doubted.to)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vsr::protocol::{CommitNumber, DiskId, Doubted, Header, Quorums};
    use vsr::{ClusterId, Membership, ReplicaId};

    use super::*;
    use crate::check::Scene;

    fn log(length: u64) -> Vec<Entry> {
        let mut parent = Header::root(ClusterId(1));
        let entry = |op: u64| {
            let entry = crate::conformance::storage::entry(op, 0, parent, Bytes::from(vec![op as u8]));
            parent = entry.header.checksum();
            entry
        };
        (1..=length).map(entry).collect()
    }

    fn put(disk: &mut SimDisk, entries: &[Entry]) {
        disk.begin(Batch { entries: entries.to_vec(), ..Batch::default() });
        disk.complete();
    }

    /// The storage on files has lost ops 2 and 3 with the end of its log, and says so. Op 3 is put again, with this vsr state, and
    /// the next start is certain of its end, and calls op 2 absent: so many disks hold it, and so many have held it, perhaps.
    fn copies_of_a_hole(change: impl Fn(&mut VsrState)) -> (usize, usize) {
        let (entries, membership) = (log(3), Membership::new(["a", "b", "c"]).unwrap());
        let mut state = VsrState::formatted(ClusterId(1), ReplicaId(0), DiskId(7), membership);
        let mut disk = SimDisk::new(state.clone());
        put(&mut disk, &entries);
        let clean = |at: usize| Slot::Clean(entries[at].header);
        let stored = |op: OpNumber| entries.get(op.0 as usize - 1).cloned();
        disk.adopt(&Recovered { state: state.clone(), slots: vec![clean(0)], head_certain: false }, stored);
        assert!((1..=3).all(|op| disk.durable(OpNumber(op)).is_some()), "the lost end counts as written");
        change(&mut state);
        disk.begin(Batch { state: Some(state.clone()), ..Batch::default() });
        disk.complete();
        put(&mut disk, &entries[2..]);
        let slots = vec![clean(0), Slot::Absent, clean(2)];
        disk.adopt(&Recovered { state, slots, head_certain: true }, stored);
        assert!(disk.is_head_certain() && disk.intact(OpNumber(2)).is_none() && disk.intact(OpNumber(3)).is_some());
        let disks = [disk];
        let scene = Scene { disks: &disks, quorums: Quorums::of(3), clocks: &[] };
        scene.copies(OpNumber(2), entries[1].header.checksum())
    }

    #[test]
    fn a_hole_that_was_a_lost_end_counts_as_written_while_the_vsr_state_remembers_it() {
        let doubt = |above: u64, to: u64| {
            move |state: &mut VsrState| state.doubted = Some(Doubted { above: OpNumber(above), to: OpNumber(to) })
        };
        assert_eq!(copies_of_a_hole(doubt(1, 3)), (1, 0));
        assert_eq!(copies_of_a_hole(|state| state.commit = CommitNumber(2)), (1, 0));
        // A replica of these would deny it: that the copy is gone has to be noticed.
        assert_eq!(copies_of_a_hole(|_| {}), (0, 0));
        assert_eq!(copies_of_a_hole(doubt(2, 3)), (0, 0));
        assert_eq!(copies_of_a_hole(|state| state.commit = CommitNumber(1)), (0, 0));
    }

    #[test]
    fn a_hole_that_was_no_lost_end_is_none() {
        let entries = log(3);
        let membership = Membership::new(["a", "b", "c"]).unwrap();
        let state = VsrState::formatted(ClusterId(1), ReplicaId(0), DiskId(7), membership);
        let state = VsrState { commit: CommitNumber(3), ..state };
        let mut disk = SimDisk::new(state.clone());
        put(&mut disk, &entries);
        disk.rot(OpNumber(2), Damage::Both);
        let slots = vec![Slot::Clean(entries[0].header), Slot::Absent, Slot::Clean(entries[2].header)];
        let stored = |op: OpNumber| entries.get(op.0 as usize - 1).cloned();
        disk.adopt(&Recovered { state, slots, head_certain: true }, stored);
        assert_eq!(disk.durable(OpNumber(2)), None, "no start has said that it was lost");
    }
}
