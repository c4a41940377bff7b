//! Where damage may be, so that the protocol can be expected to survive it; and when it cannot.

use vsr::protocol::Random;
use vsr::{OpNumber, Quorums};

use crate::disk::SimDisk;

/// Whether this replica's copy of an op may rot in this run. Of each op, fewer copies than a replication
/// quorum may: one of those that were acknowledged stays intact.
#[must_use]
pub fn may_rot(seed: u64, op: OpNumber, replica: usize, n: usize, quorums: Quorums) -> bool {
    let mut random = Random::new(seed ^ (op.0 / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut order: Vec<usize> = (0..n).collect();
    for at in (1..n).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    order[..usize::from(quorums.replication) - 1].contains(&replica)
}

/// Why a core of these disks may rightly not go on: an op that is, or may be, committed has no intact
/// copy among them; or so many of them cannot tell where their log ends that nobody can rule out more.
#[must_use]
pub fn excuse(disks: Vec<&SimDisk>, committed: OpNumber, quorums: Quorums) -> Option<String> {
    let head = disks.iter().map(|disk| disk.head()).max().unwrap_or_default();
    let uncertain = disks.iter().filter(|disk| !is_certain(disk)).count();
    if disks.len() - uncertain < usize::from(quorums.nack) && uncertain > 0 {
        return Some(format!("{uncertain} of {} logs have a rotten end", disks.len()));
    }
    for op in (1..=head.max(committed).0).map(OpNumber) {
        // The newest content of the slot; an intact entry of an older view is another op.
        let newest = disks.iter().filter_map(|disk| disk.durable_header(op)).max_by_key(|header| header.view);
        let is_newest = |disk: &&&SimDisk| {
            disk.intact(op).is_some_and(|entry| Some(entry.header.checksum()) == newest.map(|header| header.checksum()))
        };
        if disks.iter().any(|disk| is_newest(&disk)) {
            continue;
        }
        // A damaged slot never nacks, nor does a log whose end is rotten above that end.
        let silent = |disk: &&&SimDisk| disk.is_damaged(op) || (op > disk.head() && !is_certain(disk));
        let damaged = disks.iter().filter(silent).count();
        if !disks.iter().any(|disk| disk.is_damaged(op)) && op > committed {
            continue;
        }
        if op <= committed || disks.len() - damaged < usize::from(quorums.nack) {
            return Some(format!(
                "op {op} has no intact copy in the core, and {damaged} replicas cannot tell whether they had it"
            ));
        }
    }
    None
}

/// Whether a replica of this disk knows where its log ends: the end is readable, and no earlier start found it otherwise.
fn is_certain(disk: &SimDisk) -> bool {
    disk.recover().head_certain && disk.state().head_certain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_op_fewer_copies_than_a_replication_quorum_may_rot() {
        for (n, seed) in (3..=7).flat_map(|n| (0..50).map(move |seed| (n, seed))) {
            let quorums = Quorums::of(n);
            for op in (1..40).map(OpNumber) {
                let rotten = (0..n).filter(|&replica| may_rot(seed, op, replica, n, quorums)).count();
                assert_eq!(rotten, usize::from(quorums.replication) - 1);
            }
        }
    }
}
