//! One test for each rule of the choice.

use bytes::Bytes;

use super::*;
use crate::protocol::log::log::{Body, LogSlot};
use crate::protocol::types::entry::{HeaderFields, OpKind};
use crate::protocol::types::life::Life;
use crate::protocol::types::number::Timestamp;

pub(super) const ROOT: Checksum = Checksum(7);

const HELD: SlotEvidence = SlotEvidence { present: true, nack: false };
const DENIED: SlotEvidence = SlotEvidence { present: false, nack: true };
const DAMAGED: SlotEvidence = SlotEvidence { present: false, nack: false };

pub(super) fn view(number: u64) -> View {
    View { number, ..View::default() }
}

/// The header of an op that was prepared in this view on top of another one. `content` tells apart two of one place.
pub(super) fn after(below: Option<&Header>, prepared_in: u64, content: u64) -> Header {
    let (op, parent) = below.map_or((OpNumber(1), ROOT), |below| (below.op.next(), below.checksum()));
    Header::new(HeaderFields {
        view: view(prepared_in),
        op,
        parent,
        body: Checksum(content.into()),
        body_len: 0,
        requests: 1,
        timestamp: Timestamp(op.0),
        commit: CommitNumber(0),
        machine_version: 1,
        kind: OpKind::Requests,
    })
}

/// A log of ops that were prepared in these views.
fn log(prepared_in: &[u64]) -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::new();
    for &number in prepared_in {
        headers.push(after(headers.last(), number, 0));
    }
    headers
}

/// The same log up to the op before the last, and another last op.
fn with_other_end(headers: &[Header], prepared_in: u64) -> Vec<Header> {
    let shared = &headers[..headers.len() - 1];
    [shared, &[after(shared.last(), prepared_in, 1)]].concat()
}

/// What a member says whose whole log is intact, and which knows of nothing that is committed.
fn says(log_view: u64, headers: &[Header]) -> DoViewChange {
    DoViewChange {
        view: view(9),
        log_view: view(log_view),
        commit: CommitNumber(0),
        head: OpNumber(headers.len() as u64),
        head_certain: true,
        headers: headers.to_vec(),
        evidence: vec![HELD; headers.len()],
        past: crate::protocol::types::checkpoint::Past::default(),
        life: Life::default(),
        known: Vec::new(),
    }
}

/// As before, with another fact of one op.
fn but(dvc: DoViewChange, op: u64, of_op: SlotEvidence) -> DoViewChange {
    let mut evidence = dvc.evidence;
    evidence[(op - dvc.commit.0 - 1) as usize] = of_op;
    DoViewChange { evidence, ..dvc }
}

/// As before, and the header of one op is not known.
fn blank(dvc: DoViewChange, op: u64, of_op: SlotEvidence) -> DoViewChange {
    let headers = dvc.headers.iter().filter(|header| header.op.0 != op).copied().collect();
    but(DoViewChange { headers, ..dvc }, op, of_op)
}

/// As before, by a member that knows these ops to be committed.
fn committed(dvc: DoViewChange, commit: u64) -> DoViewChange {
    let headers = dvc.headers.iter().filter(|header| header.op.0 >= commit).copied().collect();
    let evidence = dvc.evidence.iter().skip(commit as usize).copied().collect();
    DoViewChange { commit: CommitNumber(commit), headers, evidence, ..dvc }
}

fn uncertain(dvc: DoViewChange) -> DoViewChange {
    DoViewChange { head_certain: false, ..dvc }
}

/// What a replica chooses whose own log holds these ops, and that has received these entries and headers.
fn choose_with(dvcs: &[Option<DoViewChange>], here: &[Header], copies: &[Header], found: &[Header]) -> Choice {
    let mut log = Log::new(ROOT, None);
    for header in here {
        let body = Body::Memory(Bytes::new());
        log.push_recovered(LogSlot { header: Some(*header), body, staged: None, corrupt: false });
    }
    let name = |header: &Header| (header.op, header.checksum());
    let entry = |header: &Header| Entry { header: *header, body: Bytes::new() };
    let copies = copies.iter().map(|header| (name(header), entry(header))).collect();
    let found = found.iter().map(|header| (name(header), *header)).collect();
    let (quorums, own) = (Quorums::of(dvcs.len()), Own { log: &log, copies: &copies, found: &found });
    let choice = choose(dvcs, &quorums, own);
    if let Choice::Undecided { op, .. } = choice {
        assert_eq!(undecided(dvcs, &quorums, own), Some(op), "people are told of another op");
    }
    choice
}

fn choose_from(dvcs: &[Option<DoViewChange>]) -> Choice {
    choose_with(dvcs, &[], &[], &[])
}

fn whole(headers: &[Header]) -> Choice {
    let head = OpNumber(headers.len() as u64);
    Choice::Log { head, headers: headers.to_vec(), commit: CommitNumber(0), truncated: false }
}

fn cut(headers: &[Header]) -> Choice {
    let head = OpNumber(headers.len() as u64);
    Choice::Log { head, headers: headers.to_vec(), commit: CommitNumber(0), truncated: true }
}

/// The op is waited for, and its entry asked for.
fn waits_for(header: &Header, all_answered: bool) -> Choice {
    Choice::Undecided { op: header.op, missing: Missing::Entry(header.checksum()), all_answered }
}

#[test]
fn fewer_than_a_view_change_quorum_choose_nothing() {
    let ops = log(&[0]);
    let dvc = Some(says(0, &ops));
    assert_eq!(choose_from(&[dvc.clone(), None, None]), Choice::NoQuorum);
    assert_eq!(choose_from(&[dvc.clone(), None, dvc.clone()]), whole(&ops));
    // Of four, a replication quorum is two, and a view-change quorum three.
    assert_eq!(choose_from(&[dvc.clone(), dvc.clone(), None, None]), Choice::NoQuorum);
    assert_eq!(choose_from(&[dvc.clone(), dvc.clone(), dvc, None]), whole(&ops));
}

#[test]
fn the_highest_log_view_wins_over_a_longer_log() {
    let (newest, longer) = (log(&[0, 1]), log(&[0, 0, 0, 0]));
    assert_eq!(choose_from(&[Some(says(1, &newest)), Some(says(0, &longer)), None]), whole(&newest));
}

#[test]
fn the_highest_log_view_wins_over_an_entry_of_a_higher_view() {
    // View 2 has taken over an op of view 0. An op that view 1 prepared in its place is the newer entry in the older log.
    let newest = log(&[0, 0]);
    let newer_entry = with_other_end(&newest, 1);
    assert_eq!(choose_from(&[None, Some(says(1, &newer_entry)), Some(says(2, &newest))]), whole(&newest));
}

#[test]
fn the_longest_of_the_newest_logs_wins() {
    let ops = log(&[1, 1, 1]);
    assert_eq!(choose_from(&[Some(says(1, &ops[..1])), Some(says(1, &ops)), None]), whole(&ops));
}

#[test]
fn logs_of_lower_log_views_give_no_headers() {
    let ops = log(&[0, 0, 0]);
    assert_eq!(choose_from(&[Some(says(1, &ops[..1])), Some(says(0, &ops)), None]), whole(&ops[..1]));
}

#[test]
fn newest_logs_that_differ_are_a_contradiction() {
    let ops = log(&[1, 1]);
    let other = with_other_end(&ops, 1);
    let expected = Choice::Contradiction { log_view: view(1), op: OpNumber(2) };
    assert_eq!(choose_from(&[Some(says(1, &ops)), Some(says(1, &other)), None]), expected);
    // An older log may differ.
    assert_eq!(choose_from(&[Some(says(1, &ops)), Some(says(0, &other)), None]), whole(&ops));
}

#[test]
fn a_nack_quorum_drops_an_op_and_all_above_it() {
    let ops = log(&[0, 0, 0]);
    let denies = but(says(0, &ops), 2, DENIED);
    assert_eq!(choose_from(&[Some(denies), Some(says(0, &ops[..1])), None]), cut(&ops[..1]));
}

#[test]
fn a_nack_too_few_is_waited_for() {
    let ops = log(&[0, 0]);
    let (damaged, shorter) = (Some(but(says(0, &ops), 2, DAMAGED)), Some(says(0, &ops[..1])));
    let two = [damaged.clone(), shorter.clone(), None];
    assert_eq!(choose_from(&two), waits_for(&ops[1], false));
    let all = [damaged.clone(), shorter.clone(), damaged.clone()];
    assert_eq!(choose_from(&all), waits_for(&ops[1], true));
    assert_eq!(choose_from(&[damaged, shorter.clone(), shorter]), cut(&ops[..1]));
}

#[test]
fn one_copy_keeps_an_op_that_all_others_deny() {
    let ops = log(&[0, 0]);
    let (holds, shorter) = (Some(says(0, &ops)), Some(says(0, &ops[..1])));
    let others = [shorter.clone(), shorter.clone(), shorter.clone(), shorter];
    assert_eq!(choose_from(&[&[holds][..], &others].concat()), whole(&ops));
    // Nor need it be one that a `DoViewChange` tells of.
    let all = [&[Some(but(says(0, &ops), 2, DENIED))][..], &others].concat();
    assert_eq!(choose_from(&all), cut(&ops[..1]));
    assert_eq!(choose_with(&all, &ops, &[], &[]), whole(&ops));
    assert_eq!(choose_with(&all, &[], &ops[1..], &[]), whole(&ops));
    let other = with_other_end(&ops, 0);
    assert_eq!(choose_with(&all, &other, &other[1..], &[]), cut(&ops[..1]), "a copy of another entry");
}

#[test]
fn above_an_uncertain_end_nothing_is_denied() {
    let ops = log(&[0, 0]);
    let (denies, shorter) = (Some(but(says(0, &ops), 2, DENIED)), says(0, &ops[..1]));
    assert_eq!(choose_from(&[denies.clone(), Some(shorter.clone()), None]), cut(&ops[..1]));
    assert_eq!(choose_from(&[denies, Some(uncertain(shorter)), None]), waits_for(&ops[1], false));
}

#[test]
fn another_intact_content_denies_from_an_older_log() {
    // View 1 has taken over the op of view 0.
    let ops = log(&[0, 0]);
    let other = says(0, &with_other_end(&ops, 0));
    let denies = Some(but(says(1, &ops), 2, DENIED));
    assert_eq!(choose_from(&[denies.clone(), Some(other.clone()), None]), cut(&ops[..1]));
    // Damaged, it may have been the op itself.
    assert_eq!(choose_from(&[denies, Some(but(other, 2, DAMAGED)), None]), waits_for(&ops[1], false));
}

#[test]
fn logs_that_end_before_the_commit_number_are_waited_for() {
    let ops = log(&[0, 0]);
    let (newest, knows) = (says(1, &ops[..1]), committed(says(0, &ops), 2));
    assert_eq!(choose_from(&[Some(newest), Some(knows), None]), Choice::EndsBeforeCommit);
}

#[test]
fn ops_at_or_below_the_commit_number_are_not_judged() {
    let ops = log(&[0, 0]);
    let (lost, knows) = (but(says(0, &ops), 1, DAMAGED), committed(says(0, &ops), 1));
    let expected = Choice::Log { head: OpNumber(2), headers: ops.clone(), commit: CommitNumber(1), truncated: false };
    assert_eq!(choose_from(&[Some(lost), Some(knows), None]), expected);
}

#[test]
fn the_header_at_the_commit_number_comes_from_any_log() {
    let ops = log(&[0, 0]);
    let nameless = DoViewChange { headers: Vec::new(), ..committed(says(1, &ops), 2) };
    let knows = committed(says(0, &ops), 2);
    let expected =
        Choice::Log { head: OpNumber(2), headers: ops[1..].to_vec(), commit: CommitNumber(2), truncated: false };
    assert_eq!(choose_from(&[Some(nameless.clone()), Some(knows), None]), expected);
    let expected = Choice::HeadUnnamed { head: OpNumber(2), missing: Missing::Unnamed, truncated: false };
    assert_eq!(choose_from(&[Some(nameless.clone()), Some(nameless), None]), expected);
}

#[test]
fn a_head_without_a_name_is_asked_for_by_the_name_that_the_op_above_gives() {
    let ops = log(&[0, 0]);
    let denies = but(committed(says(1, &ops), 1), 2, DENIED);
    let nameless = DoViewChange { headers: ops[1..].to_vec(), ..denies };
    let shorter = DoViewChange { headers: Vec::new(), ..committed(says(1, &ops[..1]), 1) };
    let missing = Missing::Headers { op: OpNumber(1), checksum: ops[0].checksum() };
    let expected = Choice::HeadUnnamed { head: OpNumber(1), missing, truncated: true };
    assert_eq!(choose_from(&[Some(nameless), Some(shorter), None]), expected);
}

#[test]
fn a_blank_takes_the_header_that_the_op_above_names() {
    let ops = log(&[1, 1, 1]);
    let dvcs = |other: DoViewChange| [Some(blank(says(1, &ops), 2, DAMAGED)), Some(other), None];
    // The copy is in an older log, and its header, too.
    assert_eq!(choose_from(&dvcs(says(0, &ops[..2]))), whole(&ops));
    let alone = dvcs(says(0, &ops[..1]));
    let missing = Missing::Headers { op: OpNumber(2), checksum: ops[1].checksum() };
    let nameless = Choice::Undecided { op: OpNumber(2), missing, all_answered: false };
    assert_eq!(choose_from(&alone), nameless);
    assert_eq!(choose_with(&alone, &[], &[], &ops[1..2]), waits_for(&ops[1], false), "found by repair");
    assert_eq!(choose_with(&alone, &ops[..2], &[], &[]), whole(&ops), "in its own log");
    let other = with_other_end(&ops[..2], 1);
    assert_eq!(choose_with(&alone, &other, &[], &other), nameless, "another header than the one that is named");
}

#[test]
fn a_blank_without_a_name_is_denied_by_older_logs() {
    let ops = log(&[0, 1, 1]);
    let nameless = Some(blank(says(1, &ops), 2, DENIED));
    let other = says(0, &with_other_end(&ops[..2], 0));
    let lost = uncertain(says(0, &ops[..1]));
    for older in [other.clone(), but(other, 2, DAMAGED), lost.clone()] {
        assert_eq!(choose_from(&[nameless.clone(), Some(older), None]), cut(&ops[..1]));
    }
    // A log of the same view may have lost the op.
    let missing = Missing::Headers { op: OpNumber(2), checksum: ops[1].checksum() };
    let waits = Choice::Undecided { op: OpNumber(2), missing, all_answered: false };
    let lost_of_view_1 = DoViewChange { log_view: view(1), ..lost };
    assert_eq!(choose_from(&[nameless, Some(lost_of_view_1), None]), waits);
}

#[test]
fn what_a_later_view_prepared_is_denied_by_older_logs_whatever_they_have_lost() {
    type Older = fn(u64, &[Header]) -> Option<DoViewChange>;
    let lost_end: Older = |log_view, ops| Some(uncertain(says(log_view, &ops[..1])));
    let damaged: Older = |log_view, ops| Some(but(says(log_view, &with_other_end(ops, 0)), 2, DAMAGED));
    for older in [lost_end, damaged] {
        // View 2 has taken over an op of view 1.
        let ops = log(&[0, 1]);
        let denies = Some(but(says(2, &ops), 2, DENIED));
        assert_eq!(choose_from(&[denies.clone(), older(0, &ops), None]), cut(&ops[..1]));
        // A log of view 1 may have had it.
        assert_eq!(choose_from(&[denies, older(1, &ops), None]), waits_for(&ops[1], false));
        // So may any log, of an op of view 0; and one nack alone drops nothing.
        let ops = log(&[0, 0]);
        let denies = Some(but(says(2, &ops), 2, DENIED));
        assert_eq!(choose_from(&[denies, older(0, &ops), None]), waits_for(&ops[1], false));
        let ops = log(&[0, 1]);
        let may_have_had_it = Some(but(says(2, &ops), 2, DAMAGED));
        assert_eq!(choose_from(&[may_have_had_it, older(0, &ops), None]), waits_for(&ops[1], false));
    }
}

#[test]
fn a_lost_end_of_a_newest_log_is_waited_for_until_certain_ends_suffice() {
    let ops = log(&[0]);
    let (lost, certain) = (Some(uncertain(says(1, &ops))), Some(says(0, &ops)));
    assert_eq!(choose_from(&[lost.clone(), certain.clone(), None]), Choice::EndUncertain);
    assert_eq!(choose_from(&[lost, certain.clone(), certain.clone()]), whole(&ops));
    // What an older log had at its end is not in question.
    assert_eq!(choose_from(&[Some(says(1, &ops)), Some(uncertain(says(0, &ops))), None]), whole(&ops));
}

#[test]
fn a_lost_end_does_not_matter_above_an_op_that_was_dropped() {
    let ops = log(&[0, 0]);
    let lost = uncertain(but(says(0, &ops), 2, DENIED));
    assert_eq!(choose_from(&[Some(lost), Some(says(0, &ops[..1])), None]), cut(&ops[..1]));
}

#[test]
fn an_empty_cluster_chooses_the_empty_log() {
    assert_eq!(choose_from(&[Some(says(0, &[])), Some(says(0, &[])), None]), whole(&[]));
}
