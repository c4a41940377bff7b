//! Digests of the state machine at checkpoints: who differs from whom (rule 9.8).

use std::collections::VecDeque;

use crate::protocol::types::checkpoint::{CheckpointId, StateDigest};
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::number::{OpNumber, ReplicaId};

/// Digests that a replica keeps, and reports: those of its last checkpoints.
pub(crate) const DIGESTS_MAX: usize = 4;

/// Pings with which a replica tells a difference that nobody can decide, before it stops: so that those it differs from hear it, too.
const LAST_WORDS: u32 = 3;

/// The own digests, and those that each of the others reported last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digests {
    own: VecDeque<StateDigest>,
    reported: Vec<(ReplicaId, Vec<StateDigest>)>,
    /// What each of those that have started again, and have said nothing yet, said last before that.
    said_before: Vec<(ReplicaId, Vec<StateDigest>)>,
    /// The last op of which a difference was told.
    told: OpNumber,
    /// The state machine has said that it gives none.
    gives_none: bool,
    /// All members are heard on an op, and no majority agrees; and how many pings have told so.
    undecidable: Option<(Difference, u32)>,
}

/// Two digests of one op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) op: OpNumber,
    pub(crate) own: Checksum,
    pub(crate) other: Checksum,
}

/// What the digests say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A majority of all members has another state.
    Wrong(Difference),
    /// This member has another state, and it cannot be said whose is wrong.
    Disputed(ReplicaId, Difference),
}

/// What the others say of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// With this replica a majority of all members has it.
    Confirmed,
    /// Too few have said anything of it.
    Unknown,
    /// One has another, and there is no majority for this one.
    Differs,
    /// The state machine gives no digests.
    NoDigests,
}

impl Digests {
    /// At a start, those that the record has of the checkpoints that are not newer than the restored one.
    pub(crate) fn remembered(digests: &[StateDigest], restored: Option<OpNumber>) -> Digests {
        let own = digests.iter().filter(|digest| restored.is_some_and(|restored| digest.op <= restored)).copied();
        Digests { own: own.collect(), ..Digests::default() }
    }

    /// What the record is to remember: the digests of these checkpoints, of which it has some already.
    pub(crate) fn of(&self, named: &[CheckpointId], before: &[StateDigest]) -> Vec<StateDigest> {
        let known = |op: OpNumber| self.own.iter().chain(before).find(move |digest| digest.op == op).copied();
        named.iter().filter_map(|id| known(id.op)).collect()
    }

    pub(crate) fn note_own(&mut self, digest: StateDigest) {
        self.own.retain(|before| before.op != digest.op);
        self.own.push_back(digest);
        if self.own.len() > DIGESTS_MAX {
            self.own.pop_front();
        }
    }

    pub(crate) fn note_none(&mut self) {
        self.gives_none = true;
    }

    /// A member's last word takes the place of what it said before: after a restart it may have none.
    pub(crate) fn note_reported(&mut self, from: ReplicaId, digests: Vec<StateDigest>) {
        let before = self.reported.iter().find(|(id, before)| *id == from && !before.is_empty());
        if !digests.is_empty() {
            self.said_before.retain(|(id, _)| *id != from);
        } else if let Some((_, before)) = before {
            self.said_before.retain(|(id, _)| *id != from);
            self.said_before.push((from, before.clone()));
        }
        match self.reported.iter_mut().find(|(id, _)| *id == from) {
            Some((_, before)) => *before = digests,
            None if digests.is_empty() => {}
            None => self.reported.push((from, digests)),
        }
    }

    /// What this replica reports: also what nobody can decide, however many checkpoints came after it.
    pub(crate) fn own(&self) -> Vec<StateDigest> {
        let undecidable = self.undecidable.map(|(Difference { op, own, .. }, _)| StateDigest { op, digest: own });
        let older = undecidable.filter(|digest| !self.own.contains(digest));
        older.into_iter().chain(self.own.iter().copied()).collect()
    }

    /// Compares, in a cluster of so many. Larger quorums of the cluster do not matter: two of three that agree are right, also where all three
    /// have to acknowledge an op. A dispute is told once an op.
    pub(crate) fn verdict(&mut self, members: usize) -> Option<Verdict> {
        let (mut disputed, mut undecidable, majority) = (None, None, members / 2 + 1);
        for StateDigest { op, digest: own } in self.own() {
            let of_op = |digests: &[StateDigest]| digests.iter().find(|other| other.op == op).map(|other| other.digest);
            let others = || self.reported.iter().filter_map(|(id, digests)| Some((*id, of_op(digests)?)));
            let Some((with, other)) = others().find(|(_, other)| *other != own) else { continue };
            let count = |digest: Checksum| others().filter(|(_, other)| *other == digest).count();
            if let Some((_, other)) = others().find(|(_, other)| *other != own && count(*other) >= majority) {
                return Some(Verdict::Wrong(Difference { op, own, other }));
            }
            let difference = Difference { op, own, other };
            if count(own) + 1 < majority && others().count() + 1 == members {
                undecidable.get_or_insert(difference);
            }
            if op > self.told {
                disputed.get_or_insert(Verdict::Disputed(with, difference));
            }
        }
        let told = self.undecidable.map_or(0, |(_, told)| told);
        self.undecidable = undecidable.map(|difference| (difference, told));
        if let Some(Verdict::Disputed(_, Difference { op, .. })) = disputed {
            self.told = op;
        }
        disputed
    }

    /// What the digests of the others say of the state after an op, in a cluster of so many.
    pub(crate) fn standing(&self, op: OpNumber, members: usize) -> Standing {
        let of_op = |digests: &[StateDigest]| digests.iter().find(|digest| digest.op == op).map(|digest| digest.digest);
        let own = self.own();
        let Some(own) = of_op(&own) else {
            return if self.gives_none { Standing::NoDigests } else { Standing::Unknown };
        };
        // The word of one that has just started again is still held against a state: it may be the only one that knows better.
        let others = || self.reported.iter().chain(&self.said_before).filter_map(|(_, digests)| of_op(digests));
        if others().filter(|other| *other == own).count() >= members / 2 {
            Standing::Confirmed
        } else if others().any(|other| other != own) {
            Standing::Differs
        } else {
            Standing::Unknown
        }
    }

    /// Whether another member has another state after one of the last ops, and no majority has this one: none of this replica's states can be
    /// trusted as one of which the others say nothing.
    pub(crate) fn is_disputed(&self, members: usize) -> bool {
        self.own.iter().any(|own| self.standing(own.op, members) == Standing::Differs)
    }

    /// A ping is due. What nobody can decide, once it was told often enough.
    pub(crate) fn on_ping_due(&mut self) -> Option<Difference> {
        let (difference, told) = self.undecidable.as_mut()?;
        *told += 1;
        (*told > LAST_WORDS).then_some(*difference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(op: u64, digest: u128) -> StateDigest {
        StateDigest { op: OpNumber(op), digest: Checksum(digest) }
    }

    /// Of replica 0 of a cluster, whose digest after op 5 is 1, where the others report these.
    fn compared(members: usize, others: &[u128]) -> (Digests, Option<Verdict>) {
        let mut digests = Digests::default();
        digests.note_own(digest(5, 1));
        for (at, other) in others.iter().enumerate() {
            digests.note_reported(ReplicaId(at as u8 + 1), vec![digest(4, 9), digest(5, *other)]);
        }
        let verdict = digests.verdict(members);
        (digests, verdict)
    }

    /// "same", "wrong", "undecidable", or "disputed": with whom it cannot be said yet, or ever, and nobody stops.
    fn verdict(members: usize, others: &[u128]) -> &'static str {
        let (mut digests, verdict) = compared(members, others);
        let stops = (0..LAST_WORDS).all(|_| digests.on_ping_due().is_none()) && digests.on_ping_due().is_some();
        match verdict {
            Some(Verdict::Wrong(Difference { op: OpNumber(5), own: Checksum(1), .. })) if !stops => "wrong",
            Some(Verdict::Disputed(..)) if stops => "undecidable",
            Some(Verdict::Disputed(..)) => "disputed",
            None if !stops => "same",
            other => panic!("{other:?}, and it stops: {stops}"),
        }
    }

    /// Rule 9.8: the one that differs from a majority is wrong; where none agrees, nobody knows.
    #[test]
    fn the_state_that_differs_from_a_majority_is_wrong() {
        let cases: [(usize, &[u128], &str); 14] = [
            (3, &[], "same"),
            (3, &[1, 1], "same"),
            (3, &[2], "disputed"),
            (3, &[2, 2], "wrong"),
            (3, &[1, 2], "disputed"),
            (3, &[2, 3], "undecidable"),
            (2, &[1], "same"),
            (2, &[2], "undecidable"),
            (4, &[2, 2], "disputed"),
            (4, &[2, 2, 1], "undecidable"),
            (4, &[2, 2, 2], "wrong"),
            (5, &[2, 2, 1], "disputed"),
            (5, &[2, 2, 1, 1], "disputed"),
            (5, &[2, 2, 2, 1], "wrong"),
        ];
        for (members, others, expected) in cases {
            assert_eq!(verdict(members, others), expected, "1 among {others:?} of {members}");
        }
    }

    /// Rule 9.8: a state that is disputed is given to nobody.
    #[test]
    fn a_state_is_confirmed_by_a_majority_and_disputed_by_one() {
        let standing = |members, others: &[u128]| compared(members, others).0.standing(OpNumber(5), members);
        for (members, others, expected) in [
            (1, &[][..], Standing::Confirmed),
            (3, &[], Standing::Unknown),
            (3, &[1], Standing::Confirmed),
            (3, &[2], Standing::Differs),
            (3, &[1, 2], Standing::Confirmed),
            (5, &[1], Standing::Unknown),
            (5, &[1, 2], Standing::Differs),
            (5, &[1, 1, 2], Standing::Confirmed),
        ] {
            assert_eq!(standing(members, others), expected, "1 among {others:?} of {members}");
        }
        assert_eq!(compared(3, &[1]).0.standing(OpNumber(4), 3), Standing::Unknown, "an op of which it has none");
        let mut digests = Digests::default();
        assert_eq!(digests.standing(OpNumber(5), 3), Standing::Unknown, "a replica that has just started");
        digests.note_none();
        assert_eq!(digests.standing(OpNumber(5), 3), Standing::NoDigests);
    }

    /// The others have to hear it as well, whatever comes after it; and it is over when one of them is healed.
    #[test]
    fn what_nobody_can_decide_is_reported_until_it_is_over() {
        let (mut digests, _) = compared(2, &[2]);
        (6..=20).for_each(|op| digests.note_own(digest(op, 1)));
        assert!(digests.own().contains(&digest(5, 1)), "{:?}", digests.own());
        assert_eq!(digests.verdict(2), None);
        assert!(digests.own().contains(&digest(5, 1)), "it is still so");
        digests.note_reported(ReplicaId(1), Vec::new());
        digests.verdict(2);
        assert!((0..9).all(|_| digests.on_ping_due().is_none()), "the other one has started again");
    }

    /// Seed 41061: one that starts again says nothing of its state at first. Until it does, a state that it had disputed is given to nobody; and
    /// nobody stops for what it had said.
    #[test]
    fn a_state_stays_disputed_while_the_one_that_knows_better_starts_again() {
        let (mut digests, _) = compared(3, &[2]);
        digests.note_reported(ReplicaId(1), Vec::new());
        assert_eq!((digests.standing(OpNumber(5), 3), digests.verdict(3)), (Standing::Differs, None));
        digests.note_reported(ReplicaId(1), Vec::new());
        assert!(digests.is_disputed(3));
        digests.note_reported(ReplicaId(1), vec![digest(5, 1)]);
        assert_eq!((digests.standing(OpNumber(5), 3), digests.is_disputed(3)), (Standing::Confirmed, false));
    }

    #[test]
    fn a_dispute_is_told_once() {
        let mut digests = Digests::default();
        digests.note_own(digest(5, 1));
        digests.note_reported(ReplicaId(1), vec![digest(5, 2)]);
        assert!(digests.verdict(3).is_some());
        assert_eq!(digests.verdict(3), None);
        digests.note_reported(ReplicaId(1), vec![digest(5, 1)]);
        assert_eq!(digests.verdict(3), None, "its last word counts");
    }

    /// Seed 35089: the newest checkpoint is restored, and the member that knows better has only the one before.
    #[test]
    fn the_digests_of_named_checkpoints_are_remembered_over_a_start() {
        let named = |op| CheckpointId { op: OpNumber(op), manifest: Checksum(1) };
        let mut digests = Digests::default();
        (5..=8).for_each(|op| digests.note_own(digest(op, 1)));
        let record = digests.of(&[named(6), named(8)], &[]);
        assert_eq!(record, [digest(6, 1), digest(8, 1)]);
        assert_eq!(Digests::default().of(&[named(6)], &record), [digest(6, 1)], "of what it has forgotten itself");
        let mut started = Digests::remembered(&record, Some(OpNumber(8)));
        started.note_own(digest(8, 1));
        started.note_reported(ReplicaId(1), vec![digest(6, 2)]);
        assert_eq!((started.own().len(), started.is_disputed(3)), (2, true));
        let remembered = |restored: Option<u64>| Digests::remembered(&record, restored.map(OpNumber)).own().len();
        assert_eq!([remembered(Some(6)), remembered(None)], [1, 0], "what was not restored is applied anew");
    }

    #[test]
    fn the_last_digests_are_kept() {
        let mut digests = Digests::default();
        (1..=9).for_each(|op| digests.note_own(digest(op, 1)));
        assert_eq!(digests.own().iter().map(|digest| digest.op.0).collect::<Vec<_>>(), [6, 7, 8, 9]);
    }
}
