//! Where damage may be, so that the protocol can be expected to survive it.

use vsr::protocol::{OpNumber, Quorums, Random};

/// Which copies may be damaged in a run, and which disks lost: of each op fewer copies than a replication quorum, so that
/// one of those that were acknowledged stays intact, and no more than leave a nack quorum; and never so many disks that no view
/// can start.
#[derive(Clone, Debug)]
pub struct Atlas {
    seed: u64,
    n: usize,
    quorums: Quorums,
    lost: Vec<usize>,
}

impl Atlas {
    /// The atlas of a seed, with so many disks that may be lost, if the cluster survives so many.
    #[must_use]
    pub fn new(seed: u64, n: usize, quorums: Quorums, lost_disks: usize) -> Atlas {
        let survivable = (usize::from(quorums.replication) - 1).min(n - usize::from(quorums.view_change));
        let survivable = survivable.min(n - usize::from(quorums.replication)).min(n - usize::from(quorums.nack));
        let mut lost = shuffled(seed ^ 0x6c6f_7374, n);
        lost.truncate(lost_disks.min(survivable));
        Atlas { seed, n, quorums, lost }
    }

    /// The disks that may be lost.
    #[must_use]
    pub fn may_lose(&self) -> &[usize] {
        &self.lost
    }

    /// Whether this replica's copy of an op may be damaged.
    #[must_use]
    pub fn may_rot(&self, op: OpNumber, replica: usize) -> bool {
        if self.lost.contains(&replica) {
            return true;
        }
        // A damaged slot denies nothing: as many as a nack quorum must be left that can.
        let left = (usize::from(self.quorums.replication) - 1).min(self.n - usize::from(self.quorums.nack));
        let left = left - self.lost.len();
        // Neighbours share their fate, so that damage comes in stretches, too.
        let order = shuffled(self.seed ^ (op.0 / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15), self.n);
        order.into_iter().filter(|at| !self.lost.contains(at)).take(left).any(|at| at == replica)
    }
}

fn shuffled(seed: u64, n: usize) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for at in (1..n).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_op_fewer_copies_than_a_replication_quorum_may_be_damaged_or_lost() {
        for (n, seed) in (1..=9).flat_map(|n| (0..50).map(move |seed| (n, seed))) {
            let quorums = Quorums::of(n);
            for lost in 0..3 {
                let atlas = Atlas::new(seed, n, quorums, lost);
                assert!(n - atlas.may_lose().len() >= usize::from(quorums.view_change.max(quorums.replication)));
                for op in (1..40).map(OpNumber) {
                    let rotten = (0..n).filter(|&replica| atlas.may_rot(op, replica)).count();
                    assert_eq!(rotten, usize::from(quorums.replication) - 1, "n={n} seed={seed} lost={lost} op={op}");
                }
            }
        }
    }

    #[test]
    fn neither_the_same_replica_nor_the_same_ops_are_spared_in_every_run() {
        let hit = |seed| (1..40).filter(|op| Atlas::new(seed, 3, Quorums::of(3), 0).may_rot(OpNumber(*op), 0)).count();
        assert!((0..100).any(|seed| hit(seed) > 5) && (0..100).any(|seed| hit(seed) < 35));
    }
}
