//! Digests of the state machine at checkpoints: who differs from whom (rule 9.8).

use std::collections::VecDeque;

use crate::protocol::types::checkpoint::StateDigest;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::number::{OpNumber, ReplicaId};

/// Digests that a replica keeps, and reports: those of its last checkpoints.
pub(crate) const DIGESTS_MAX: usize = 4;

/// The own digests, and those that each of the others reported last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digests {
    own: VecDeque<StateDigest>,
    reported: Vec<(ReplicaId, Vec<StateDigest>)>,
    /// The last op of which a difference was told.
    told: OpNumber,
}

/// What the digests say of one op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A majority of all members has another state, or all are heard and no majority has the same one.
    Wrong { op: OpNumber, own: Checksum, other: Checksum },
    /// This member has another state, and it cannot be said yet whose is wrong.
    Disputed { with: ReplicaId, op: OpNumber, own: Checksum, other: Checksum },
}

impl Digests {
    pub(crate) fn note_own(&mut self, digest: StateDigest) {
        self.own.push_back(digest);
        if self.own.len() > DIGESTS_MAX {
            self.own.pop_front();
        }
    }

    /// A member's last word takes the place of what it said before.
    pub(crate) fn note_reported(&mut self, from: ReplicaId, digests: Vec<StateDigest>) {
        match self.reported.iter_mut().find(|(id, _)| *id == from) {
            Some((_, before)) => *before = digests,
            None => self.reported.push((from, digests)),
        }
    }

    pub(crate) fn own(&self) -> Vec<StateDigest> {
        self.own.iter().copied().collect()
    }

    /// Whether this state is wrong, in a cluster of so many; else the first dispute that was not told yet. Larger quorums of the cluster do
    /// not matter: two of three that agree are right, also where all three have to acknowledge an op.
    pub(crate) fn verdict(&mut self, members: usize) -> Option<Verdict> {
        let (mut disputed, majority) = (None, members / 2 + 1);
        for StateDigest { op, digest: own } in &self.own {
            let of_op =
                |digests: &[StateDigest]| digests.iter().find(|other| other.op == *op).map(|other| other.digest);
            let others: Vec<(ReplicaId, Checksum)> =
                self.reported.iter().filter_map(|(id, digests)| Some((*id, of_op(digests)?))).collect();
            let Some((with, other)) = others.iter().copied().find(|(_, other)| other != own) else { continue };
            let count = |digest: Checksum| others.iter().filter(|(_, other)| *other == digest).count();
            let wrong = others.iter().map(|(_, other)| *other).find(|other| other != own && count(*other) >= majority);
            let has_majority = count(*own) + 1 >= majority;
            let nobody_has = !has_majority && others.len() + 1 == members;
            if let Some(other) = wrong.or(nobody_has.then_some(other)) {
                return Some(Verdict::Wrong { op: *op, own: *own, other });
            }
            if *op > self.told {
                disputed.get_or_insert(Verdict::Disputed { with, op: *op, own: *own, other });
            }
        }
        if let Some(Verdict::Disputed { op, .. }) = disputed {
            self.told = op;
        }
        disputed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(op: u64, digest: u128) -> StateDigest {
        StateDigest { op: OpNumber(op), digest: Checksum(digest) }
    }

    /// The verdict of replica 0 of `members`, whose digest after op 5 is 1, where the others report these.
    fn verdict(members: usize, others: &[u128]) -> Option<Verdict> {
        let mut digests = Digests::default();
        digests.note_own(digest(5, 1));
        for (at, other) in others.iter().enumerate() {
            digests.note_reported(ReplicaId(at as u8 + 1), vec![digest(4, 9), digest(5, *other)]);
        }
        digests.verdict(members)
    }

    fn is_wrong(verdict: Option<Verdict>) -> bool {
        matches!(verdict, Some(Verdict::Wrong { op: OpNumber(5), own: Checksum(1), .. }))
    }

    /// Rule 9.8: the one that differs from a majority is wrong; where none agrees, all are.
    #[test]
    fn the_state_that_differs_from_a_majority_is_wrong() {
        assert_eq!(verdict(3, &[]), None);
        assert_eq!(verdict(3, &[1, 1]), None);
        assert!(is_wrong(verdict(3, &[2, 2])));
        let dispute = verdict(3, &[2]);
        assert!(matches!(dispute, Some(Verdict::Disputed { with: ReplicaId(1), .. })), "{dispute:?}");
        assert!(matches!(verdict(3, &[1, 2]), Some(Verdict::Disputed { with: ReplicaId(2), .. })), "the other is");
        assert!(is_wrong(verdict(3, &[2, 3])), "nobody knows");
        assert!(is_wrong(verdict(2, &[2])), "of two nobody knows either");
        assert!(!is_wrong(verdict(5, &[2, 2, 1, 1])) && is_wrong(verdict(5, &[2, 2, 2, 1])));
        assert!(!is_wrong(verdict(4, &[2, 2])) && is_wrong(verdict(4, &[2, 2, 1])));
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

    #[test]
    fn the_last_digests_are_kept() {
        let mut digests = Digests::default();
        (1..=9).for_each(|op| digests.note_own(digest(op, 1)));
        assert_eq!(digests.own().iter().map(|digest| digest.op.0).collect::<Vec<_>>(), [6, 7, 8, 9]);
    }
}
