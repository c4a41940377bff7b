//! When a core may rightly be stuck: something that may be committed is not left on its disks.

use vsr::protocol::{OpNumber, Quorums};

use crate::files::SimDisk;

/// Why a core may rightly not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unrecoverable {
    /// Too many disks are lost: no quorum is left.
    #[error("{disks} disks are left, and a quorum takes {quorum}")]
    TooFewDisks {
        /// In the core.
        disks: usize,
        /// Needed.
        quorum: usize,
    },
    /// The ends of too many logs are unreadable: no quorum can rule out that there was more.
    #[error("{uncertain} of {disks} logs have a rotten end")]
    RottenEnds {
        /// So many.
        uncertain: usize,
        /// Of so many in the core.
        disks: usize,
    },
    /// An op that is committed has no intact copy in the core.
    #[error("op {op} is committed and has no intact copy in the core")]
    NoCopy {
        /// The op.
        op: OpNumber,
    },
    /// An op that may be committed has no intact copy in the core, and too few replicas can rule out that they had it.
    #[error("op {op} has no intact copy in the core, and {silent} replicas cannot tell whether they had it")]
    NoVerdict {
        /// The op.
        op: OpNumber,
        /// Replicas that cannot tell.
        silent: usize,
    },
}

/// Whether, and by which rule, a core of these disks may be stuck, when ops up to `committed` are known to be committed.
#[must_use]
pub fn unrecoverable(disks: &[&SimDisk], committed: OpNumber, quorums: Quorums) -> Option<Unrecoverable> {
    let quorum = usize::from(quorums.view_change.max(quorums.replication));
    if disks.len() < quorum {
        return Some(Unrecoverable::TooFewDisks { disks: disks.len(), quorum });
    }
    let head = disks.iter().map(|disk| disk.head()).max().unwrap_or_default();
    let uncertain = disks.iter().filter(|disk| !is_certain(disk)).count();
    // An end that is lost hides an op of the newest log only where that log is the one which has lost it; and a nack quorum, or a
    // view-change quorum, of logs with certain ends rules the op out.
    let log_view = disks.iter().map(|disk| disk.state().log_view).max();
    let hides = disks.iter().any(|disk| !is_certain(disk) && Some(disk.state().log_view) == log_view);
    if hides && disks.len() - uncertain < usize::from(quorums.nack.min(quorums.view_change)) {
        return Some(Unrecoverable::RottenEnds { uncertain, disks: disks.len() });
    }
    // A view takes the logs of the newest view: an op that only older ones doubt, above all that these name, is not asked for.
    let newest_logs = disks.iter().filter(|disk| Some(disk.state().log_view) == log_view);
    let named = newest_logs.map(|disk| disk.head().max(disk.state().suffix.head)).max().unwrap_or_default();
    for op in (1..=head.max(committed).max(named).0).map(OpNumber) {
        // The newest content of the slot; an intact entry of an older view is another op.
        let newest = disks.iter().filter_map(|disk| disk.durable_header(op)).max_by_key(|header| header.view);
        let is_newest = |disk: &&&SimDisk| {
            disk.intact(op).is_some_and(|entry| Some(entry.header.checksum()) == newest.map(|header| header.checksum()))
        };
        if disks.iter().any(|disk| is_newest(&disk)) {
            continue;
        }
        if op <= committed {
            return Some(Unrecoverable::NoCopy { op });
        }
        if !disks.iter().any(|disk| disk.is_damaged(op) || (op <= named && doubts(disk, op))) {
            continue;
        }
        // A damaged slot never nacks, nor does one in doubt, nor a log whose end is rotten above that end.
        let is_silent =
            |disk: &&&SimDisk| disk.is_damaged(op) || doubts(disk, op) || (op > disk.head() && !is_certain(disk));
        let silent = disks.iter().filter(is_silent).count();
        if disks.len() - silent < usize::from(quorums.nack) {
            return Some(Unrecoverable::NoVerdict { op, silent });
        }
    }
    None
}

/// Whether a replica of this disk has been told of an op that it may have had, and lost (rule 7.15).
fn doubts(disk: &SimDisk, op: OpNumber) -> bool {
    let in_doubt = disk.state().doubted.is_some_and(|doubted| doubted.above < op && op <= doubted.to);
    in_doubt && disk.intact(op).is_none()
}

/// Whether a replica of this disk knows where its log ends: the end is readable, and no earlier start found it otherwise.
fn is_certain(disk: &SimDisk) -> bool {
    disk.is_head_certain() && disk.state().head_certain
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vsr::protocol::{Batch, DiskId, Doubted, Suffix, View, VsrState};
    use vsr::{ClusterId, Membership, ReplicaId};

    use super::*;
    use crate::faults::Damage;

    fn disks(lengths: &[usize]) -> Vec<SimDisk> {
        let membership = Membership::new((0..lengths.len()).map(|id| format!("r{id}"))).unwrap();
        let disk = |(id, length): (usize, &usize)| {
            let state = VsrState::formatted(ClusterId(1), ReplicaId(id as u8), DiskId(7), membership.clone());
            let mut disk = SimDisk::new(state);
            let mut parent = vsr::protocol::Header::root(ClusterId(1));
            for op in 1..=*length as u64 {
                let body = Bytes::from(vec![op as u8]);
                let entry = crate::conformance::storage::entry(op, 0, parent, body);
                parent = entry.header.checksum();
                disk.begin(Batch { entries: vec![entry], ..Batch::default() });
                disk.complete();
            }
            disk
        };
        lengths.iter().enumerate().map(disk).collect()
    }

    /// The disk's state says that a `StartView` named op 4 where an end was lost.
    fn name_lost_op_4(disk: &mut SimDisk) {
        let doubted = Some(Doubted { above: OpNumber(3), to: OpNumber(4) });
        let suffix = Suffix { head: OpNumber(4), ..Suffix::default() };
        let state = VsrState { doubted, suffix, ..disk.state().clone() };
        disk.begin(Batch { state: Some(state), ..Batch::default() });
        disk.complete();
    }

    #[test]
    fn ops_in_doubt_deny_nothing() {
        let doubtful = |at: &[usize]| {
            let mut disks = disks(&[3, 3, 3]);
            for at in at {
                name_lost_op_4(&mut disks[*at]);
            }
            verdict(&disks, 3)
        };
        assert_eq!(doubtful(&[0]), None, "two can deny op 4");
        assert_eq!(doubtful(&[0, 1]), Some(Unrecoverable::NoVerdict { op: OpNumber(4), silent: 2 }));
    }

    #[test]
    fn a_copy_at_a_rotten_end_and_one_in_doubt_are_an_excuse_where_two_of_four_can_deny() {
        let verdict = |disks: &[SimDisk]| unrecoverable(&disks.iter().collect::<Vec<_>>(), OpNumber(3), Quorums::of(4));
        let mut disks = disks(&[4, 3, 3, 3]);
        assert!(disks[0].rot(OpNumber(4), Damage::End));
        assert_eq!(verdict(&disks), None, "three certain ends deny op 4");
        name_lost_op_4(&mut disks[1]);
        assert_eq!(verdict(&disks), Some(Unrecoverable::NoVerdict { op: OpNumber(4), silent: 2 }));
    }

    #[test]
    fn a_doubt_of_older_logs_above_the_head_of_the_newest_is_no_excuse() {
        let newest = |head: u64| {
            let mut disks = disks(&[3, 3, 3]);
            name_lost_op_4(&mut disks[0]);
            name_lost_op_4(&mut disks[1]);
            // Op 5 of the older view is durable, op 4 below it is not.
            let entry =
                crate::conformance::storage::entry(5, 0, vsr::protocol::Header::root(ClusterId(1)), Bytes::new());
            disks[0].begin(Batch { entries: vec![entry], ..Batch::default() });
            disks[0].complete();
            let view = View { number: 3, ..View::default() };
            let suffix = Suffix { head: OpNumber(head), ..Suffix::default() };
            let state = VsrState { view, log_view: view, suffix, ..disks[2].state().clone() };
            disks[2].begin(Batch { state: Some(state), ..Batch::default() });
            disks[2].complete();
            // Three of five: all that a view takes, and a nack takes all three.
            unrecoverable(&disks.iter().collect::<Vec<_>>(), OpNumber(3), Quorums::of(5))
        };
        assert_eq!(newest(3), None, "view 3 has dropped op 4");
        assert_eq!(newest(4), Some(Unrecoverable::NoVerdict { op: OpNumber(4), silent: 2 }), "view 3 names op 4");
    }

    #[test]
    fn a_loss_that_was_noted_does_not_hide_the_next_one() {
        let mut disk = disks(&[4]).remove(0);
        assert!(disk.rot(OpNumber(4), Damage::End) && !disk.start().head_certain);
        disk.begin(Batch { state: Some(disk.state().clone()), ..Batch::default() });
        disk.complete();
        let noted = disk.start();
        assert!(noted.head_certain && noted.slots.len() == 3);
        assert!(disk.rot(OpNumber(3), Damage::End));
        let again = disk.start();
        assert!(!again.head_certain && again.slots.len() == 2);
    }

    fn verdict(disks: &[SimDisk], committed: u64) -> Option<Unrecoverable> {
        unrecoverable(&disks.iter().collect::<Vec<_>>(), OpNumber(committed), Quorums::of(3))
    }

    #[test]
    fn intact_logs_are_no_excuse_nor_is_damage_that_another_copy_repairs() {
        let mut disks = disks(&[4, 4, 3]);
        assert_eq!(verdict(&disks, 4), None);
        assert!(disks[0].rot(OpNumber(4), Damage::Body));
        assert!(disks[1].rot(OpNumber(2), Damage::Body));
        assert_eq!(verdict(&disks, 4), None, "of each op there is an intact copy");
    }

    #[test]
    fn too_few_disks_are_an_excuse_and_a_quorum_of_them_is_not() {
        let mut disks = disks(&[4, 4, 4]);
        disks.truncate(1);
        assert_eq!(verdict(&disks, 4), Some(Unrecoverable::TooFewDisks { disks: 1, quorum: 2 }));
        let quorum = self::disks(&[4, 4, 4]);
        assert_eq!(verdict(&quorum[..2], 4), None);
    }

    #[test]
    fn a_committed_op_without_a_copy_is_an_excuse_and_with_a_copy_it_is_refused() {
        let mut disks = disks(&[4, 4, 3]);
        assert!(disks[0].rot(OpNumber(4), Damage::Body));
        assert!(disks[1].rot(OpNumber(4), Damage::Body));
        assert_eq!(verdict(&disks, 4), Some(Unrecoverable::NoCopy { op: OpNumber(4) }));
        disks.remove(1);
        let mut healed = disks;
        healed.insert(1, self::disks(&[4, 4, 3]).remove(1));
        assert_eq!(verdict(&healed, 4), None);
    }

    #[test]
    fn an_op_that_may_be_committed_is_an_excuse_only_while_too_few_can_rule_it_out() {
        let mut disks = disks(&[4, 4, 3]);
        assert!(disks[0].rot(OpNumber(4), Damage::Body));
        assert!(disks[1].rot(OpNumber(4), Damage::Body));
        assert_eq!(verdict(&disks, 3), Some(Unrecoverable::NoVerdict { op: OpNumber(4), silent: 2 }));
        let mut refused = self::disks(&[4, 3, 3]);
        assert!(refused[0].rot(OpNumber(4), Damage::Body));
        assert_eq!(verdict(&refused, 3), None, "two certainly never had it");
    }

    #[test]
    fn rotten_ends_are_an_excuse_only_when_they_are_too_many() {
        let mut disks = disks(&[4, 4, 4]);
        assert!(disks[0].rot(OpNumber(4), Damage::Both));
        assert_eq!(verdict(&disks, 3), None);
        assert!(disks[1].rot(OpNumber(4), Damage::Both));
        assert_eq!(verdict(&disks, 3), Some(Unrecoverable::RottenEnds { uncertain: 2, disks: 3 }));
    }

    #[test]
    fn ends_that_only_logs_of_an_older_view_have_lost_are_no_excuse() {
        let mut disks = disks(&[4, 4, 4]);
        assert!(disks[0].rot(OpNumber(4), Damage::Both) && disks[1].rot(OpNumber(4), Damage::Both));
        let view = View { number: 3, ..View::default() };
        let state = VsrState { view, log_view: view, ..disks[2].state().clone() };
        disks[2].begin(Batch { state: Some(state), ..Batch::default() });
        disks[2].complete();
        assert_eq!(verdict(&disks, 3), None, "op 4 stands in the newest log, and nothing above it is of that view");
    }

    #[test]
    fn certain_ends_of_a_view_change_quorum_are_enough_where_the_nack_quorum_is_larger() {
        let mut disks = disks(&[4, 4, 4]);
        assert!(disks[0].rot(OpNumber(4), Damage::Both));
        let all: Vec<&SimDisk> = disks.iter().collect();
        let quorums = |view_change, nack| Quorums { view_change, nack, ..Quorums::of(3) };
        assert_eq!(unrecoverable(&all, OpNumber(3), quorums(2, 3)), None);
        assert_eq!(
            unrecoverable(&all, OpNumber(3), quorums(3, 3)),
            Some(Unrecoverable::RottenEnds { uncertain: 1, disks: 3 })
        );
    }
}
