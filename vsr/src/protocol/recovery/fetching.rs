//! What a replica fetches of another member's checkpoint, and what it lends of its own (rule 9.3).
//!
//! Invariants:
//! - A transfer is of one checkpoint, named by the checksum of its manifest. Each part is compared with the manifest before it is stored, so
//!   parts of two checkpoints never mix.
//! - Parts are stored in their order, one at a time: what storage has of a checkpoint is its beginning, and a later life goes on behind it.
//! - What has come and is not stored, and what was asked for and has not come, are a few parts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::normal::checkpoints::CheckpointHead;
use crate::protocol::types::checkpoint::{CheckpointId, Manifest};
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::number::{BatchNumber, Monotonic, OpNumber, ReplicaId, View};

/// Parts that are asked for and have not come, at most: 1 MiB each.
const WINDOW: u32 = 4;
/// Of one member.
const WINDOW_OF_ONE: usize = 2;
/// Refusals that are remembered, at most.
const REFUSED_MAX: usize = 256;
/// Parts that wait to be read for others, at most.
const SERVED_MAX: usize = 16;
/// How long a checkpoint that is being fetched is kept for its receiver after its last question, and in all.
const LENT_IDLE: Duration = Duration::from_secs(10);
const LENT_MAX: Duration = Duration::from_secs(600);

/// A part of a checkpoint that a peer has asked for: to be read from storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPart {
    /// The peer that asked; this replica itself, where it looks whether the part is intact.
    pub to: ReplicaId,
    /// The checkpoint.
    pub id: CheckpointId,
    /// 0 for the manifest, else the chunk of this number, counted from 1.
    pub part: u32,
}

/// A part of another member's checkpoint: to be stored, durable only with the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePart {
    /// The checkpoint.
    pub id: CheckpointId,
    /// 0 for the manifest, else the chunk of this number, counted from 1.
    pub part: u32,
    /// Its bytes.
    pub bytes: Bytes,
    /// The checkpoints that stay.
    pub keep: Vec<CheckpointId>,
}

/// What a replica fetches, and what it lends.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// Whether the state machine has the state after the last applied op. Not from a start at which no checkpoint of what was dropped could be
    /// read, until one is installed.
    pub(super) has_state: bool,
    pub(super) stage: Stage,
    /// What is missing here is in no log any more, as the last turn ended.
    pub(super) lacks: bool,
    /// The lowest view in which a member has offered the checkpoint that is fetched: what is in it is committed in that view.
    pub(super) offered_in: View,
    /// Since when the checkpoint is ready to be installed.
    pub(super) ready_at: Monotonic,
    /// The last applied op, and since when it is that.
    pub(super) stuck: (OpNumber, Monotonic),
    /// When a checkpoint that came could not be stored, or not be read: another attempt comes later.
    pub(super) failed_at: Option<Monotonic>,
    /// Checkpoints of which no part came: others are tried first.
    pub(super) passed_over: Vec<CheckpointId>,
    /// The caller takes up the restored state machine at the end of this turn.
    pub(super) takes_up: Option<OpNumber>,
    served: VecDeque<ReadPart>,
    lent: Option<Lent>,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Stage {
    #[default]
    Idle,
    Fetching(Fetching),
    /// It is whole and durable. The caller is to read it, or reads it.
    Restoring {
        id: CheckpointId,
        is_asked: bool,
    },
    /// The caller holds the state machine.
    Ready {
        id: CheckpointId,
        head: Box<CheckpointHead>,
    },
    /// It is installed. The record that names it is in this batch.
    Installed(BatchNumber),
}

/// What has come of a checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Fetching {
    pub(super) id: CheckpointId,
    manifest: Option<Manifest>,
    /// The next part to be stored.
    next: u32,
    is_storing: bool,
    /// Parts that have come and are not stored.
    here: BTreeMap<u32, Bytes>,
    asked: BTreeMap<u32, (Monotonic, ReplicaId)>,
    /// Members that have said that they do not have it, or not this part.
    refused: Vec<(ReplicaId, u32)>,
    /// Whom to ask next.
    turn: usize,
    /// When a part came last, or was stored.
    progress_at: Monotonic,
}

/// A checkpoint that another member fetches here.
#[derive(Clone, Copy, Debug)]
struct Lent {
    id: CheckpointId,
    since: Monotonic,
    asked_at: Monotonic,
}

impl Fetching {
    pub(super) fn of(id: CheckpointId, now: Monotonic) -> Fetching {
        let (here, asked, refused) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Fetching { id, manifest: None, next: 0, is_storing: false, here, asked, refused, turn: 0, progress_at: now }
    }

    /// For how long no part has come, nor been stored.
    pub(super) fn idle(&self, now: Monotonic) -> Duration {
        if self.is_storing { Duration::ZERO } else { now.since(self.progress_at) }
    }

    pub(super) fn progresses(&mut self, now: Monotonic) {
        self.progress_at = now;
    }

    /// How many parts there are; 1 as long as the manifest is not known.
    fn parts(&self) -> u32 {
        self.manifest.as_ref().map_or(1, |manifest| manifest.chunks.len() as u32 + 1)
    }

    /// The parts to ask for now, of those who have the checkpoint: each of one member, a few at a time.
    pub(super) fn questions(
        &mut self,
        sources: &[ReplicaId],
        now: Monotonic,
        timeout: Duration,
    ) -> BTreeMap<ReplicaId, Vec<u32>> {
        self.asked.retain(|_, (at, _)| now.since(*at) < timeout);
        let mut questions: BTreeMap<ReplicaId, Vec<u32>> = BTreeMap::new();
        for part in self.next..self.parts().min(self.next.saturating_add(WINDOW)) {
            if self.here.contains_key(&part) || self.asked.contains_key(&part) {
                continue;
            }
            let of = |member| self.asked.values().filter(|(_, asked)| *asked == member).count();
            let ring = (0..sources.len()).map(|step| sources[(self.turn + step) % sources.len()]);
            let mut may = ring.filter(|member| !self.refused.contains(&(*member, part)) && of(*member) < WINDOW_OF_ONE);
            let Some(member) = may.next() else { continue };
            self.turn = self.turn.wrapping_add(1);
            self.asked.insert(part, (now, member));
            questions.entry(member).or_default().push(part);
        }
        questions
    }

    /// Who has refused may have changed its mind: what could not be read once may be readable again.
    pub(super) fn forget_refusals(&mut self) {
        self.refused.clear();
    }

    /// A part has come, or the word that its sender does not have it. What is wrong with it, if anything is.
    pub(super) fn take_in(&mut self, from: ReplicaId, part: u32, bytes: Option<Bytes>) -> Option<&'static str> {
        if part < self.next || part >= self.next.saturating_add(WINDOW) {
            return Some("a part that is not wanted");
        }
        if self.asked.get(&part).is_some_and(|(_, asked)| *asked == from) {
            self.asked.remove(&part);
        }
        match bytes {
            Some(bytes) if self.is_part(part, &bytes) => {
                self.here.entry(part).or_insert(bytes);
                return None;
            }
            _ if self.refused.len() < REFUSED_MAX => self.refused.push((from, part)),
            _ => {}
        }
        Some("its sender does not have that part, or has another one")
    }

    /// A part is stored, or could not be. `next`: the part that storage wants next. Whether an earlier life had more of it.
    pub(super) fn on_stored(&mut self, part: u32, next: Option<u32>) -> bool {
        if part != self.next {
            return false;
        }
        self.is_storing = false;
        let Some(next) = next else { return false };
        if part == 0 {
            self.manifest = self.here.get(&0).and_then(|bytes| Manifest::decode(bytes));
        }
        self.next = next.max(part + 1);
        let stored = self.next;
        self.here.retain(|part, _| *part >= stored);
        self.asked.retain(|part, _| *part >= stored);
        part == 0 && next > 1
    }

    /// Whether all parts are stored.
    pub(super) fn is_whole(&self) -> bool {
        self.manifest.is_some() && self.next >= self.parts()
    }

    /// Whether these are the bytes of a part.
    fn is_part(&self, part: u32, bytes: &Bytes) -> bool {
        match (part.checked_sub(1), &self.manifest) {
            (None, _) => Manifest::decode(bytes).is_some_and(|manifest| manifest.id() == self.id),
            (Some(at), Some(manifest)) => manifest
                .chunks
                .get(at as usize)
                .is_some_and(|chunk| chunk.len as usize == bytes.len() && chunk.checksum == Checksum::of(bytes)),
            _ => false,
        }
    }
}

impl Transfer {
    pub(crate) fn new(has_state: bool) -> Transfer {
        let (stage, served) = (Stage::Idle, VecDeque::new());
        let stuck = (OpNumber::ZERO, Monotonic(0));
        let passed_over = Vec::new();
        Transfer {
            has_state,
            stage,
            lacks: false,
            offered_in: View::default(),
            ready_at: Monotonic(0),
            stuck,
            failed_at: None,
            passed_over,
            takes_up: None,
            served,
            lent: None,
        }
    }

    /// Whether this replica's word counts for ops: it lacks nothing that it fetches as a checkpoint.
    pub(crate) fn is_over(&self) -> bool {
        self.has_state && !self.lacks && matches!(self.stage, Stage::Idle)
    }

    /// Whether the state machine has the state after the last applied op, in this turn.
    pub(crate) fn has_state(&self) -> bool {
        self.has_state && self.takes_up.is_none()
    }

    /// The state machine that the caller takes up now.
    pub(crate) fn take_up(&mut self) -> Option<OpNumber> {
        self.takes_up.take()
    }

    /// The next part that a peer has asked for.
    pub(crate) fn next_served(&mut self) -> Option<ReadPart> {
        self.served.pop_front()
    }

    /// Whether a peer waits for a part.
    pub(crate) fn serves(&self) -> bool {
        !self.served.is_empty()
    }

    /// Checkpoints that storage keeps beside those that the record names.
    pub(crate) fn kept(&self) -> impl Iterator<Item = CheckpointId> {
        let fetched = match &self.stage {
            Stage::Fetching(fetching) => Some(fetching.id),
            Stage::Restoring { id, .. } | Stage::Ready { id, .. } => Some(*id),
            Stage::Idle | Stage::Installed(_) => None,
        };
        fetched.into_iter().chain(self.lent.map(|lent| lent.id))
    }

    /// Whether a part is here to be stored.
    pub(crate) fn may_store(&self) -> bool {
        matches!(&self.stage, Stage::Fetching(fetching) if !fetching.is_storing && fetching.here.contains_key(&fetching.next))
    }

    /// The part to be stored now.
    pub(crate) fn part_to_store(&mut self, kept: &[CheckpointId]) -> Option<StorePart> {
        let Stage::Fetching(fetching) = &mut self.stage else { return None };
        if fetching.is_storing {
            return None;
        }
        let (id, part) = (fetching.id, fetching.next);
        let bytes = fetching.here.get(&part)?.clone();
        fetching.is_storing = true;
        let keep = kept.to_vec();
        Some(StorePart { id, part, bytes, keep })
    }

    /// The op of the checkpoint that is ready: with the log of a view it is installed; 0 for none.
    pub(crate) fn reaches(&self) -> OpNumber {
        if let Stage::Ready { id, .. } = self.stage { id.op } else { OpNumber::ZERO }
    }

    /// Whether the log of this view may begin with the checkpoint that is ready, if one is.
    pub(crate) fn fits(&self, view: View) -> bool {
        !matches!(self.stage, Stage::Ready { .. }) || view >= self.offered_in
    }

    /// The checkpoint to restore a state machine from now.
    pub(crate) fn restore_due(&mut self) -> Option<CheckpointId> {
        match &mut self.stage {
            Stage::Restoring { id, is_asked } if !*is_asked => {
                *is_asked = true;
                Some(*id)
            }
            _ => None,
        }
    }

    /// A peer asks for parts of a checkpoint that is here: it is lent until it is not asked for any more.
    pub(super) fn serve(&mut self, to: ReplicaId, id: CheckpointId, parts: Vec<u32>, now: Monotonic) {
        match &mut self.lent {
            Some(lent) if lent.id == id => lent.asked_at = now,
            Some(_) => {}
            none => *none = Some(Lent { id, since: now, asked_at: now }),
        }
        for part in parts.into_iter().take(WINDOW as usize) {
            let wanted = ReadPart { to, id, part };
            if self.served.len() < SERVED_MAX && !self.served.contains(&wanted) {
                self.served.push_back(wanted);
            }
        }
    }

    /// A part is read to see whether it is intact.
    pub(super) fn scrub(&mut self, part: ReadPart) {
        self.served.push_back(part);
    }

    /// The checkpoint that a member fetches here.
    pub(super) fn lent(&self) -> Option<CheckpointId> {
        self.lent.map(|lent| lent.id)
    }

    /// It turned out to be damaged.
    pub(super) fn take_back(&mut self, id: CheckpointId) {
        self.lent.take_if(|lent| lent.id == id);
    }

    pub(super) fn end_lending(&mut self, now: Monotonic) {
        self.lent.take_if(|lent| now.since(lent.asked_at) > LENT_IDLE || now.since(lent.since) > LENT_MAX);
    }

    /// The checkpoint that is fetched, the parts of it that are stored, and how many there are as far as is known.
    pub(crate) fn progress(&self) -> Option<(OpNumber, u32, u32)> {
        match &self.stage {
            Stage::Fetching(fetching) => Some((fetching.id.op, fetching.next, fetching.parts())),
            Stage::Restoring { id, .. } | Stage::Ready { id, .. } => Some((id.op, 1, 1)),
            Stage::Idle | Stage::Installed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::core::Core;
    use crate::protocol::documented::{Nothing, any_core};
    use crate::protocol::log::log::Log;
    use crate::protocol::log::log::tests::log_of;
    use crate::protocol::types::checkpoint::{Chunk, Past};
    use crate::protocol::types::message::{Message, Peer, StartView};
    use crate::protocol::types::number::{CommitNumber, View};

    const TIMEOUT: Duration = Duration::from_millis(100);
    const SOURCES: [ReplicaId; 2] = [ReplicaId(0), ReplicaId(1)];

    fn chunk(at: u32) -> Bytes {
        Bytes::from(vec![at as u8 + 1; 10])
    }

    /// A checkpoint of so many chunks.
    fn manifest(chunks: u32) -> Manifest {
        let chunks = (0..chunks).map(chunk).map(|bytes| Chunk { checksum: Checksum::of(&bytes), len: 10 });
        Manifest { op: OpNumber(9), chunks: chunks.collect() }
    }

    fn asked(fetching: &mut Fetching, millis: u64) -> Vec<(u8, Vec<u32>)> {
        let questions = fetching.questions(&SOURCES, Monotonic(millis * 1_000_000), TIMEOUT);
        questions.into_iter().map(|(member, parts)| (member.0, parts)).collect()
    }

    /// With its manifest stored.
    fn begun(chunks: u32) -> Fetching {
        let manifest = manifest(chunks);
        let mut fetching = Fetching::of(manifest.id(), Monotonic(0));
        assert_eq!(asked(&mut fetching, 0), [(0, vec![0])], "nothing but the manifest");
        assert_eq!(fetching.take_in(ReplicaId(0), 0, Some(manifest.encode().into())), None);
        assert!(!fetching.on_stored(0, Some(1)));
        fetching
    }

    #[test]
    fn a_few_parts_are_asked_for_at_a_time_of_all_who_have_them() {
        let mut fetching = begun(9);
        assert_eq!(asked(&mut fetching, 1), [(0, vec![2, 4]), (1, vec![1, 3])]);
        assert_eq!(asked(&mut fetching, 50), []);
        assert_eq!(asked(&mut fetching, 101).len(), 2, "again after the time-out");
        assert_eq!(fetching.take_in(ReplicaId(0), 2, Some(chunk(1))), None);
        assert!(!fetching.is_whole());
        for part in 1..=9 {
            fetching.take_in(ReplicaId(1), part, Some(chunk(part - 1)));
            fetching.on_stored(part, Some(part + 1));
        }
        assert!(fetching.is_whole());
    }

    /// Hazard ST-06: neither a damaged chunk nor one of another checkpoint is stored; another member is asked.
    #[test]
    fn st_06_bytes_that_are_not_those_of_the_part_are_refused() {
        let mut fetching = begun(3);
        asked(&mut fetching, 1);
        let mut wrong = chunk(0).to_vec();
        wrong[3] ^= 1;
        for bytes in [wrong.into(), chunk(1), Bytes::new()] {
            assert!(fetching.take_in(ReplicaId(1), 1, Some(bytes)).is_some());
        }
        let again = asked(&mut fetching, 2);
        assert!(again.contains(&(0, vec![1])), "{again:?}");
        fetching.take_in(ReplicaId(0), 1, None);
        assert!(asked(&mut fetching, 3).iter().all(|(_, parts)| !parts.contains(&1)), "nobody has it");
        fetching.forget_refusals();
        assert!(asked(&mut fetching, 4).iter().any(|(_, parts)| parts.contains(&1)));
        let other = Manifest { op: OpNumber(10), ..manifest(3) };
        let mut fetching = Fetching::of(manifest(3).id(), Monotonic(0));
        assert!(fetching.take_in(ReplicaId(0), 0, Some(other.encode().into())).is_some(), "the list of another one");
    }

    /// Hazard ST-13: what an earlier life has stored is not asked for again.
    #[test]
    fn st_13_a_transfer_goes_on_behind_what_is_stored() {
        let manifest = manifest(9);
        let mut fetching = Fetching::of(manifest.id(), Monotonic(0));
        asked(&mut fetching, 0);
        fetching.take_in(ReplicaId(0), 0, Some(manifest.encode().into()));
        assert!(fetching.on_stored(0, Some(6)), "five chunks are there");
        let parts: Vec<u32> = asked(&mut fetching, 1).into_iter().flat_map(|(_, parts)| parts).collect();
        assert!(parts.iter().all(|part| *part >= 6), "{parts:?}");
        assert!(fetching.take_in(ReplicaId(0), 3, Some(chunk(2))).is_some(), "it is not wanted");
    }

    #[test]
    fn one_part_is_stored_at_a_time_and_in_order() {
        let id = manifest(3).id();
        let mut transfer = Transfer::new(true);
        transfer.stage = Stage::Fetching(begun(3));
        let Stage::Fetching(fetching) = &mut transfer.stage else { panic!() };
        fetching.take_in(ReplicaId(0), 2, Some(chunk(1)));
        assert!(!transfer.may_store() && transfer.part_to_store(&[]).is_none(), "part 1 comes first");
        let Stage::Fetching(fetching) = &mut transfer.stage else { panic!() };
        fetching.take_in(ReplicaId(0), 1, Some(chunk(0)));
        let stored = transfer.part_to_store(&[id]).map(|store| (store.part, store.keep));
        assert_eq!(stored, Some((1, vec![id])));
        assert!(transfer.part_to_store(&[id]).is_none(), "one is under way");
        let Stage::Fetching(fetching) = &mut transfer.stage else { panic!() };
        fetching.on_stored(1, None);
        assert!(transfer.may_store(), "it is tried again");
    }

    /// Schedule B-34: what is fetched is kept for a while, and not for ever.
    #[test]
    fn b_34_a_checkpoint_is_lent_while_it_is_asked_for() {
        let at = |seconds: u64| Monotonic(seconds * 1_000_000_000);
        let (id, other) = (manifest(3).id(), manifest(2).id());
        let mut transfer = Transfer::new(true);
        transfer.serve(ReplicaId(1), id, vec![1, 1, 2], at(1));
        transfer.serve(ReplicaId(2), other, vec![0], at(2));
        assert_eq!((transfer.lent(), transfer.kept().collect::<Vec<_>>()), (Some(id), vec![id]));
        let parts: Vec<u32> = std::iter::from_fn(|| transfer.next_served()).map(|read| read.part).collect();
        assert_eq!(parts, [1, 2, 0]);
        transfer.end_lending(at(10));
        assert_eq!(transfer.lent(), Some(id));
        transfer.end_lending(at(12));
        assert_eq!(transfer.lent(), None, "it is not asked for any more");
        for second in 0..700 {
            transfer.serve(ReplicaId(1), id, Vec::new(), at(20 + second));
            transfer.end_lending(at(20 + second));
            assert_eq!(transfer.lent().is_some(), second <= 600, "after {second} s");
            if transfer.lent().is_none() {
                break;
            }
        }
    }

    /// The core holds the checkpoint after an op of this log, and its state machine.
    fn fetch(core: &mut Core, log: &Log, op: OpNumber) {
        let (header, sessions) = (log.header(op).unwrap(), core.sessions.encode());
        let mut bytes = b"vsr head\x02\0\0\0".to_vec();
        bytes.extend(header.encode());
        bytes.extend((sessions.len() as u64).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(sessions);
        let head = CheckpointHead::read(&mut &bytes[..], &core.membership().constants).unwrap();
        core.transfer.stage = Stage::Ready { id: manifest(3).id(), head: Box::new(head) };
    }

    /// Rule 9.4: slots from before the view's log was installed may be stale below it. What that log has above them may be acknowledged, and stays
    /// when a checkpoint takes their place; what extends another op than that of the checkpoint is committed nowhere.
    #[test]
    fn a_stale_slot_at_the_op_of_a_checkpoint_drops_nothing_above_it() {
        let own = log_of(20, 11);
        for (is_installed_above, head) in [(true, 15), (false, 5)] {
            let mut core = any_core();
            core.log = log_of(8, 10);
            if is_installed_above {
                core.log.truncate(OpNumber(6));
                (12..=15).for_each(|op| _ = core.log.extend(*own.header(OpNumber(op)).unwrap()));
            }
            fetch(&mut core, &own, OpNumber(5));
            assert!(core.begin_log_with_checkpoint(View::default()));
            assert_eq!((core.log.head(), core.applied(), core.log.base()), (OpNumber(head), OpNumber(5), OpNumber(5)));
            let stays = (12..=15).all(|op| core.log.checksum(OpNumber(op)) == own.checksum(OpNumber(op)));
            assert_eq!((stays, core.halted()), (is_installed_above, None));
        }
    }

    /// Delayed by the network: what the checkpoint contains is committed, and is in no log that ends before it.
    #[test]
    fn a_start_view_that_ends_before_a_fetched_checkpoint_is_ignored() {
        for is_fetched in [false, true] {
            let mut core = any_core();
            let primary = (1..=3).map(|number| View { number, ..View::default() }).find(|view| {
                let primary = core.membership().primary(*view);
                primary != core.id() && primary != ReplicaId(0)
            });
            let view = primary.expect("a view of another member");
            if is_fetched {
                fetch(&mut core, &log_of(5, 10), OpNumber(5));
                assert!(core.transfer.reaches() > OpNumber::ZERO);
            }
            let (commit, past) = (CommitNumber(0), Past::default());
            let start = StartView { view, commit, head: OpNumber::ZERO, headers: Vec::new(), nonce: 0, past };
            let from = Peer::Replica(core.membership().primary(view));
            core.on_message(from, Message::StartView(start), &Nothing);
            assert_eq!(core.view() == view, !is_fetched);
        }
    }
}
