//! Quorum arithmetic: how many members must agree, and the value that a quorum of them has reached (rule 7.8).

use serde::{Deserialize, Serialize};

use super::number::{CommitNumber, OpNumber};

/// The most members that a cluster may have.
pub const MEMBERS_MAX: usize = 9;

/// How many members must agree. Two replicated facts are safe when the sets that hold them meet:
/// replication + view change > n, view change > n/2, nack + replication > n (rule 7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorums {
    /// Durable copies that commit an op.
    pub replication: u8,
    /// Votes that leave a view, and `DoViewChange`s that begin one.
    pub view_change: u8,
    /// Members that never acknowledged an op, after which it cannot have been committed.
    pub nack: u8,
}

impl Quorums {
    /// The defaults of rule 7.8: replication is the smaller half of an even cluster. A cluster has at most
    /// [`MEMBERS_MAX`] members; a higher `n` is taken as that many.
    #[must_use]
    pub fn of(n: usize) -> Quorums {
        let n = n.min(MEMBERS_MAX) as u8;
        let replication = if n <= 2 { n } else { n.div_ceil(2) };
        let view_change = if n == 2 { 2 } else { n - replication + 1 };
        Quorums { replication, view_change, nack: n - replication + 1 }
    }

    /// Whether each quorum can be had among `n` members, and every two that must have a member in common do: a
    /// replication quorum with a view-change quorum and with a nack quorum, and two view-change quorums.
    pub(crate) fn intersect(&self, n: u8) -> bool {
        let Quorums { replication, view_change, nack } = *self;
        let in_range = [replication, view_change, nack].iter().all(|quorum| (1..=n).contains(quorum));
        let meet = |a: u8, b: u8| u16::from(a) + u16::from(b) > u16::from(n);
        in_range && meet(replication, view_change) && meet(view_change, view_change) && meet(nack, replication)
    }

    /// What a replication quorum has durably: the highest op that so many members have acknowledged, with each op
    /// the ones below it.
    pub(crate) fn committed(&self, acknowledged: impl Iterator<Item = OpNumber>) -> CommitNumber {
        CommitNumber(reached(self.replication, acknowledged.map(|op| op.0)))
    }
}

/// The highest number that `quorum` of the values have reached: the quorum-th highest. 0 when there are fewer values.
pub(crate) fn reached(quorum: u8, values: impl Iterator<Item = u64>) -> u64 {
    let mut sorted = [0; MEMBERS_MAX];
    let mut count = 0;
    for (place, value) in sorted.iter_mut().zip(values) {
        *place = value;
        count += 1;
    }
    let sorted = &mut sorted[..count];
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted.get(usize::from(quorum).wrapping_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn default_quorums_are_those_of_rule_7_8() {
        let table = [(1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 3, 3), (3, 3, 3), (3, 4, 4), (4, 4, 4), (4, 5, 5), (5, 5, 5)];
        for (n, (replication, view_change, nack)) in (1..).zip(table) {
            assert_eq!(Quorums::of(n), Quorums { replication, view_change, nack }, "n = {n}");
            assert!(Quorums::of(n).intersect(n as u8), "n = {n}");
        }
        assert_eq!(Quorums::of(usize::MAX), Quorums::of(MEMBERS_MAX));
    }

    /// Whether every set of `a` members has one in common with every set of `b`, found by trying all of them.
    fn sets_meet(n: u8, a: u8, b: u8) -> bool {
        let sets = |size: u8| (0_u32..1_u32 << n).filter(move |set| set.count_ones() == u32::from(size));
        sets(a).all(|one| sets(b).all(|other| one & other != 0))
    }

    #[test]
    fn quorums_intersect_just_when_all_the_sets_do() {
        for n in 1..=6 {
            for (replication, view_change, nack) in
                (1..=n).flat_map(|r| (1..=n).flat_map(move |v| (1..=n).map(move |k| (r, v, k))))
            {
                let quorums = Quorums { replication, view_change, nack };
                let safe = sets_meet(n, replication, view_change)
                    && sets_meet(n, view_change, view_change)
                    && sets_meet(n, nack, replication);
                assert_eq!(quorums.intersect(n), safe, "{quorums:?} of {n}");
            }
        }
    }

    #[test]
    fn a_quorum_of_nobody_or_of_more_than_all_is_none() {
        let right = Quorums::of(3);
        for wrong in [0, 4, u8::MAX] {
            assert!(!Quorums { replication: wrong, ..right }.intersect(3));
            assert!(!Quorums { view_change: wrong, ..right }.intersect(3));
            assert!(!Quorums { nack: wrong, ..right }.intersect(3));
        }
        assert!(!Quorums { replication: 0, view_change: 0, nack: 0 }.intersect(0));
    }

    /// Of any values: so many have reached the result, and fewer any higher number.
    #[test]
    fn what_a_quorum_has_reached_is_the_highest_such_number() {
        let mut random = Random::new(7);
        for _ in 0..10_000 {
            let n = 1 + random.below(MEMBERS_MAX as u64) as usize;
            let spread = 1 + random.below(20);
            let values: Vec<u64> = (0..n).map(|_| random.below(spread)).collect();
            let quorum = 1 + random.below(n as u64) as u8;
            let result = reached(quorum, values.iter().copied());
            let at_least = |least: u64| values.iter().filter(|value| **value >= least).count();
            assert!(at_least(result) >= usize::from(quorum), "{values:?}, {quorum}: {result}");
            assert!(at_least(result + 1) < usize::from(quorum), "{values:?}, {quorum}: {result}");
        }
    }

    #[test]
    fn no_op_is_committed_before_a_replication_quorum_has_it() {
        let ops = |ops: [u64; 5]| ops.into_iter().map(OpNumber);
        let quorums = Quorums::of(5);
        assert_eq!(quorums.committed(ops([9, 9, 0, 0, 0])), CommitNumber(0));
        assert_eq!(quorums.committed(ops([9, 0, 4, 0, 7])), CommitNumber(4));
        assert_eq!(quorums.committed(ops([9, 9, 9, 9, 9])), CommitNumber(9));
        assert_eq!(quorums.committed(std::iter::empty()), CommitNumber(0));
        assert_eq!(reached(0, [3, 4].into_iter()), 0);
    }
}
