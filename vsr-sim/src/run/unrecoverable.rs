//! When a core may rightly be stuck: something that may be committed is not left on its disks.

use std::collections::BTreeMap;

use vsr::protocol::{Header, OpNumber, Quorums, Slot, View};

use crate::files::SimDisk;

/// Why a core may rightly not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unrecoverable {
    /// Too many disks are lost: no quorum is left.
    #[error("{disks} disks are left, and a quorum takes {quorum}")]
    TooFewDisks {
        /// The disks in the core.
        disks: usize,
        /// The disks that a quorum takes.
        quorum: usize,
    },
    /// The ends of too many logs are unreadable: no quorum can rule out that there was more.
    #[error("{uncertain} of {disks} logs have a rotten end")]
    RottenEnds {
        /// The logs whose ends are unreadable.
        uncertain: usize,
        /// The disks in the core.
        disks: usize,
    },
    /// A log in the core was dropped up to an op, and no checkpoint that reaches so far can be read there.
    #[error("a log in the core begins after op {op}, and no checkpoint that reaches so far is whole there")]
    NoCheckpoint {
        /// The last op that was dropped.
        op: OpNumber,
    },
    /// A log in the core was dropped up to an op. A state has gone wrong, and too few in the core have the right one: nobody knows whose to give
    /// to those who lack it.
    #[error(
        "a log in the core begins after op {op}, a replica's state is wrong, and no majority is here that has the right one"
    )]
    DifferentStates {
        /// The last op that was dropped.
        op: OpNumber,
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

/// Whether, and by which rule, a core of these disks may be stuck, when ops up to `committed` are known to be committed, and `checkpoint` is the op of
/// the newest checkpoint that is whole on one of them; 0 for none.
#[must_use]
pub fn unrecoverable(
    disks: &[&SimDisk],
    committed: OpNumber,
    checkpoint: OpNumber,
    quorums: Quorums,
) -> Option<Unrecoverable> {
    let quorum = usize::from(quorums.view_change.max(quorums.replication));
    if disks.len() < quorum {
        return Some(Unrecoverable::TooFewDisks { disks: disks.len(), quorum });
    }
    // What a record calls committed is, though no replica may have executed it yet.
    let recorded = disks.iter().map(|disk| disk.state().commit.op()).max().unwrap_or_default();
    let committed = committed.max(recorded);
    let uncertain = disks.iter().filter(|disk| !is_certain(disk)).count();
    // What a log does not hold any more is in a checkpoint, or nowhere.
    let base = disks.iter().map(|disk| disk.state().base()).max().unwrap_or_default();
    if base > checkpoint {
        return Some(Unrecoverable::NoCheckpoint { op: base });
    }
    // An end that is lost hides an op of the newest log only where that log is the one which has lost it; and a nack quorum, or a
    // view-change quorum, of logs with certain ends rules the op out.
    let newest = NewestLog::of(disks);
    let hides = disks.iter().any(|disk| !is_certain(disk) && disk.state().log_view == newest.log_view);
    if hides && disks.len() - uncertain < usize::from(quorums.nack.min(quorums.view_change)) {
        return Some(Unrecoverable::RottenEnds { uncertain, disks: disks.len() });
    }
    // A view takes the logs of the newest view: an op above all that these name is not asked for, whatever older ones doubt.
    for op in (checkpoint.0 + 1..=committed.max(newest.end).0).map(OpNumber) {
        // The content that the newest logs name, or else the newest; an intact entry of an older view is another op.
        let named = newest.headers.get(&op).filter(|_| op > committed).copied();
        let durable = || disks.iter().filter_map(|disk| disk.durable_header(op)).max_by_key(|header| header.view);
        let wanted = named.or_else(durable).map(|header| header.checksum());
        if disks.iter().any(|disk| disk.intact(op).is_some_and(|entry| Some(entry.header.checksum()) == wanted)) {
            continue;
        }
        if op <= committed {
            return Some(Unrecoverable::NoCopy { op });
        }
        // A log that is older than the op never had it, whatever it has lost (rule 7.14).
        let prepared_in = named.map_or(newest.log_view, |header| header.view);
        let is_silent = |disk: &&&SimDisk| disk.state().log_view >= prepared_in && may_have_had(disk, op);
        let silent = disks.iter().filter(is_silent).count();
        if disks.len() - silent < usize::from(quorums.nack) {
            return Some(Unrecoverable::NoVerdict { op, silent });
        }
        // A nack quorum drops the op, and all above it.
        break;
    }
    None
}

/// The log that the newest view of a core has left on its disks.
struct NewestLog {
    log_view: View,
    /// The last op that one of its replicas names.
    end: OpNumber,
    /// Every header of it that can be read. At or below the commit number it may be that of another op.
    headers: BTreeMap<OpNumber, Header>,
}

impl NewestLog {
    fn of(disks: &[&SimDisk]) -> NewestLog {
        let log_view = disks.iter().map(|disk| disk.state().log_view).max().unwrap_or_default();
        let newest: Vec<&SimDisk> = disks.iter().copied().filter(|disk| disk.state().log_view == log_view).collect();
        let (mut end, mut headers) = (OpNumber::ZERO, BTreeMap::new());
        for disk in &newest {
            let (state, head) = (disk.state(), readable(disk));
            // What came after the promise of a later view counts for nothing.
            let own = if state.log_view < state.view { state.suffix.head } else { head.max(state.suffix.head) };
            end = end.max(own);
            for slot in disk.recover().slots {
                if let Slot::Clean(header) | Slot::Corrupt(Some(header)) = slot
                    && header.op <= own
                {
                    headers.insert(header.op, header);
                }
            }
        }
        // What a view change has fixed is right, where a slot holds something else.
        let fixed = newest.iter().flat_map(|disk| &disk.state().suffix.headers);
        headers.extend(fixed.map(|header| (header.op, *header)));
        NewestLog { log_view, end, headers }
    }
}

/// The last op of which a start reads anything on this disk.
fn readable(disk: &SimDisk) -> OpNumber {
    disk.end().0
}

/// Whether a replica of this disk cannot rule out that it had the op. A damaged slot never nacks, nor does one in doubt, nor a
/// log whose end is rotten above that end.
fn may_have_had(disk: &SimDisk, op: OpNumber) -> bool {
    disk.is_damaged(op) || doubts(disk, op) || (op > readable(disk) && !is_certain(disk))
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
    use vsr::protocol::{Batch, DiskId, Doubted, Suffix, VsrState};
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

    /// The disk's log is of this view. It names, above op 3, ops that were prepared in these views, and holds none of them.
    fn install(disk: &mut SimDisk, log_view: u64, prepared_in: &[u64]) {
        let view = View { number: log_view, ..View::default() };
        let root = Header::root(ClusterId(1));
        let named = |(op, number): (u64, &u64)| crate::conformance::storage::entry(op, *number, root, Bytes::new());
        let headers: Vec<Header> = (4..).zip(prepared_in).map(named).map(|entry| entry.header).collect();
        let suffix = Suffix { head: OpNumber(3 + headers.len() as u64), headers };
        let state = VsrState { view, log_view: view, suffix, ..disk.state().clone() };
        disk.begin(Batch { state: Some(state), ..Batch::default() });
        disk.complete();
    }

    /// Seed 19149: op 4 is called committed by a record, and was executed by no replica; its content is gone.
    #[test]
    fn an_op_that_a_record_calls_committed_is_not_denied() {
        let verdict = |commit: u64| {
            let mut disks = disks(&[3, 3]);
            for disk in &mut disks {
                let state = VsrState { commit: vsr::protocol::CommitNumber(commit), ..disk.state().clone() };
                disk.begin(Batch { state: Some(state), ..Batch::default() });
                disk.complete();
            }
            unrecoverable(&[&disks[0], &disks[1]], OpNumber(3), OpNumber::ZERO, Quorums::of(3))
        };
        assert_eq!(verdict(3), None);
        assert_eq!(verdict(4), Some(Unrecoverable::NoCopy { op: OpNumber(4) }));
    }

    #[test]
    fn what_a_lost_end_may_have_held_is_an_excuse_unless_its_log_is_older_than_the_op() {
        let verdict = |prepared_in: &[u64], is_lost: bool| {
            let mut disks = disks(&[3, 3]);
            install(&mut disks[0], 2, prepared_in);
            install(&mut disks[1], 1, &[]);
            assert!(!is_lost || disks[1].rot(OpNumber(3), Damage::End));
            unrecoverable(&[&disks[0], &disks[1]], OpNumber(3), OpNumber::ZERO, Quorums::of(3))
        };
        let stuck = Some(Unrecoverable::NoVerdict { op: OpNumber(4), silent: 1 });
        assert_eq!(verdict(&[1], true), stuck, "it may have acknowledged op 4 in view 1, and the third has it");
        assert_eq!(verdict(&[1], false), None, "two deny op 4");
        assert_eq!(verdict(&[2], true), None, "view 2 has prepared op 4");
        assert_eq!(verdict(&[], true), None, "no log of view 2 names op 4");
    }

    #[test]
    fn what_stands_on_an_op_that_is_denied_is_no_excuse() {
        let verdict = |is_damaged: bool| {
            let mut disks = disks(&[3, 5]);
            install(&mut disks[0], 2, &[1, 1]);
            // Another op 4, intact, and above it an end that is lost.
            let view = View { number: 1, ..View::default() };
            let state = VsrState { view, log_view: view, ..disks[1].state().clone() };
            disks[1].begin(Batch { state: Some(state), ..Batch::default() });
            disks[1].complete();
            assert!(disks[1].rot(OpNumber(5), Damage::End));
            assert!(!is_damaged || disks[1].rot(OpNumber(4), Damage::Body));
            unrecoverable(&[&disks[0], &disks[1]], OpNumber(3), OpNumber::ZERO, Quorums::of(3))
        };
        assert_eq!(verdict(false), None, "two deny op 4, and op 5 goes with it");
        assert_eq!(verdict(true), Some(Unrecoverable::NoVerdict { op: OpNumber(4), silent: 1 }));
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
        let verdict = |disks: &[SimDisk]| {
            unrecoverable(&disks.iter().collect::<Vec<_>>(), OpNumber(3), OpNumber::ZERO, Quorums::of(4))
        };
        let mut disks = disks(&[4, 3, 3, 3]);
        assert!(disks[0].rot(OpNumber(4), Damage::End));
        assert_eq!(verdict(&disks), None, "three certain ends deny op 4");
        name_lost_op_4(&mut disks[1]);
        assert_eq!(verdict(&disks), Some(Unrecoverable::NoVerdict { op: OpNumber(4), silent: 2 }));
    }

    #[test]
    fn a_doubt_of_older_logs_is_no_excuse_unless_the_newest_has_taken_the_op_over() {
        let newest = |prepared_in: &[u64]| {
            let mut disks = disks(&[3, 3, 3]);
            name_lost_op_4(&mut disks[0]);
            name_lost_op_4(&mut disks[1]);
            // Op 5 of the older view is durable, op 4 below it is not.
            let entry = crate::conformance::storage::entry(5, 0, Header::root(ClusterId(1)), Bytes::new());
            disks[0].begin(Batch { entries: vec![entry], ..Batch::default() });
            disks[0].complete();
            install(&mut disks[2], 3, prepared_in);
            // Three of five: all that a view takes, and a nack takes all three.
            unrecoverable(&disks.iter().collect::<Vec<_>>(), OpNumber(3), OpNumber::ZERO, Quorums::of(5))
        };
        let stuck = Some(Unrecoverable::NoVerdict { op: OpNumber(4), silent: 2 });
        assert_eq!(newest(&[]), None, "view 3 has dropped op 4");
        assert_eq!(newest(&[0]), stuck, "view 3 has taken over op 4 of view 0");
        assert_eq!(newest(&[3]), None, "view 3 has prepared op 4");
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
        unrecoverable(&disks.iter().collect::<Vec<_>>(), OpNumber(committed), OpNumber::ZERO, Quorums::of(3))
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
        assert_eq!(unrecoverable(&all, OpNumber(3), OpNumber::ZERO, quorums(2, 3)), None);
        assert_eq!(
            unrecoverable(&all, OpNumber(3), OpNumber::ZERO, quorums(3, 3)),
            Some(Unrecoverable::RottenEnds { uncertain: 1, disks: 3 })
        );
    }
}
