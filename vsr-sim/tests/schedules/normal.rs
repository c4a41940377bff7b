//! Normal operation: a request is prepared, acknowledged, committed, and executed once everywhere, in the order of the
//! log.

use std::time::Duration;

use vsr::protocol::{Busy, CommitNumber, Epoch, Message, OpNumber, Outcome, Peer, Ping, Position, Timestamp, View};
use vsr::{Checksum, ReplicaId};
use vsr_sim::script::{Flight, Script};

use crate::support::{
    depose, ms, next_view, ping, replica, replied, request, stale, submit, submit_together, times, until, watch, write,
};

/// NO-01: a backup without op 2 does not acknowledge op 3, as long as op 2 is not committed without it.
#[test]
fn no_01_a_gap_is_not_acknowledged() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let gap = s.hold(|f| f.is(0, 2) && matches!(&f.message, Message::Prepare { entry, .. } if entry.header.op.0 == 2));
    let repair = s.lose(|f| f.is(2, 0) && f.name().starts_with("RequestEntries"));
    let repair_too = s.lose(|f| f.is(2, 1) && f.name().starts_with("Request"));
    let others = s.hold(|f| f.is(1, 0) && f.name() == "PrepareOk");
    let acks = s.hold(|f| f.is(2, 0) && f.name() == "PrepareOk");
    s.submit(0, client, 1, b"x=1");
    s.run();
    s.submit(0, client, 2, b"x=2");
    s.run();
    for flight in s.held(acks) {
        let Message::PrepareOk { op, .. } = flight.message else { continue };
        assert!(op.0 < 2, "op {op} is acknowledged without op 2");
    }
    assert_eq!(s.reply(client, 1), None);
    s.forget(gap);
    for rule in [repair, repair_too, acks, others] {
        s.release(rule);
    }
    s.run();
    s.settle();
    assert_eq!(s.executed(2), ["x=1", "x=2"]);
}

/// NO-02: reordered and repeated `Prepare`s.
#[test]
fn no_02_reordered_and_repeated_prepares_are_executed_once_and_in_order() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let prepares = s.hold(|f| f.is(0, 1) && f.name() == "Prepare");
    for number in 1..=3 {
        s.submit(0, client, number, format!("{number}").as_bytes());
        s.run();
    }
    let held = s.held(prepares);
    s.forget(prepares);
    for at in [2, 0, 1] {
        for _ in 0..5 {
            s.inject(held[at].clone());
        }
    }
    s.run();
    s.settle();
    assert_eq!(s.executed(1), ["1", "2", "3"]);
    assert_eq!(s.core(1).head().0, 4);
}

/// NO-05: with a commit number beyond its log, then an op behind a gap, a backup executes what is here and
/// connected, and the rest when it is repaired.
#[test]
fn no_05_a_commit_number_ahead_of_the_log_executes_only_what_is_here() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"2");
    write(&mut s, 0, client, 2, b"3");
    let lost = s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    let repair = s.hold(|f| (f.is(2, 0) || f.is(2, 1)) && f.name().starts_with("Request"));
    let commits = s.hold(|f| f.is(0, 2) && f.name() == "Commit");
    for (number, command) in (3..).zip([b"4", b"5", b"6", b"7"]) {
        write(&mut s, 0, client, number, command);
    }
    s.pass(ms(20));
    let commit = s.held(commits).pop().expect("the primary tells the commit number");
    s.forget(commits);
    s.inject(commit);
    assert_eq!((s.core(2).commit().0, s.core(2).head().0), (7, 3));
    assert_eq!(s.executed(2), ["2", "3"]);
    s.forget(lost);
    write(&mut s, 0, client, 7, b"8");
    assert_eq!((s.core(2).head().0, s.core(2).applied().0), (8, 3), "{}", s.describe(2));
    assert_eq!(s.executed(2), ["2", "3"]);
    s.release(repair);
    s.pass(ms(200));
    assert_eq!(s.executed(2), ["2", "3", "4", "5", "6", "7", "8"]);
    s.settle();
}

/// NO-06: one acknowledgement of the last op commits the whole pipeline, in order.
#[test]
fn no_06_an_acknowledgement_covers_everything_below_it() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    let acks = s.hold(|f| f.is(1, 0) && f.name() == "PrepareOk");
    for number in 1..=20 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    assert_eq!(s.reply(client, 1), None);
    let last = s.held(acks).into_iter().max_by_key(|f| match &f.message {
        Message::PrepareOk { op, .. } => op.0,
        _ => 0,
    });
    s.forget(acks);
    s.inject(last.expect("r1 has acknowledged"));
    s.run();
    for number in 1..=20 {
        assert_eq!(s.reply(client, number), Some(number.to_string().into_bytes()));
    }
}

/// NO-07: in an idle cluster the backups execute the last op soon.
#[test]
fn no_07_backups_execute_the_last_op_of_an_idle_cluster() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.submit(0, client, 1, b"last");
    s.run();
    s.pass(Duration::from_secs(10));
    assert_eq!((s.executed(1), s.executed(2)), (vec!["last".to_owned()], vec!["last".to_owned()]));
    assert_eq!(s.views_entered(), 0);
}

/// NO-08: a primary commits with the copies of others, and dies before its own is durable: what it acknowledged
/// survives.
#[test]
fn no_08_what_a_quorum_acknowledged_survives_a_primary_that_never_wrote_it() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(0);
    write(&mut s, 0, client, 1, b"x=1");
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()), "two backups are a replication quorum");
    assert_eq!(s.durable(0, 2), None);
    s.crash(0);
    s.release_disk(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    write(&mut s, 1, client, 1, b"x=1");
    assert_eq!(s.outcomes(client, 1), [replied("1"), replied("1")]);
    s.settle();
    assert_eq!(s.executed(0), ["x=1"]);
}

/// H5-06: acknowledgements are a set, matched by view, op and content.
#[test]
fn h5_06_acknowledgements_are_a_set_and_match_the_op() {
    let mut s = Script::new(5);
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    write(&mut s, 0, client, 1, b"w");
    let first = s.held(acks).into_iter().find(|f| f.is(1, 0)).expect("r1 acknowledges").message;
    for _ in 0..5 {
        s.inject(Script::flight(1, 0, first.clone()));
    }
    assert_eq!(s.reply(client, 1), None, "r0 and r1 are two of three");
    let Message::PrepareOk { view, op, checksum, life } = first else { panic!("it is held by its kind") };
    for from in 2..5 {
        s.inject(Script::flight(from, 0, Message::PrepareOk { view, op, checksum: Checksum(1), life }));
        s.inject(Script::flight(from, 0, Message::PrepareOk { view: Script::view_of(5), op, checksum, life }));
        s.inject(Script::flight(from, 0, Message::PrepareOk { view, op: op.next(), checksum, life }));
    }
    s.run();
    assert_eq!((s.reply(client, 1), s.core(0).commit().0), (None, 1));
    s.release(acks);
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// D25: repeated acknowledgements, and those of other contents, views, epochs and strangers, commit nothing.
#[test]
fn d25_only_distinct_members_acknowledge_this_very_op() {
    let mut s = Script::new(5);
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    write(&mut s, 0, client, 1, b"w");
    let from = |at: usize| s.held(acks).into_iter().find(|f| f.is(at, 0)).expect("it has acknowledged");
    let (first, second) = (from(1), from(2));
    let Message::PrepareOk { view, op, checksum, life } = first.message else { panic!("it is held by its kind") };
    assert_eq!(op.0, 2);
    for _ in 0..3 {
        s.inject(first.clone());
    }
    let other_content = Checksum(checksum.0 ^ 1);
    let other_epoch = View { epoch: Epoch(1), ..view };
    for (view, checksum) in [(view, other_content), (view.next(), checksum), (other_epoch, checksum)] {
        for from in [2, 3] {
            s.inject(Script::flight(from, 0, Message::PrepareOk { view, op, checksum, life }));
        }
    }
    for stranger in [0, 7] {
        s.inject(Script::flight(stranger, 0, Message::PrepareOk { view, op, checksum, life }));
    }
    s.run();
    assert_eq!((s.core(0).commit().0, s.outcomes(client, 1).len()), (1, 0), "r0 and r1 are two of three");
    s.inject(second);
    s.run();
    assert_eq!(s.outcomes(client, 1), [replied(b"1")]);
    s.settle();
    assert_eq!(s.executed(4), ["w"]);
}

/// G19: a sender that is not a voting member, or that speaks of another epoch or an earlier view, acknowledges nothing.
#[test]
fn g19_acknowledgements_of_others_do_not_count() {
    let mut s = Script::new(3);
    let client = s.register(0);
    next_view(&mut s);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    submit(&mut s, 1, client, 1, 1);
    let view = s.core(1).view();
    let op = s.core(1).head();
    let checksum = s.core(1).checksum(op).expect("the head is known");
    let earlier = Script::view_of(0);
    for (from, view) in [(3, view), (7, view), (2, View { epoch: Epoch(1), ..view }), (2, earlier), (0, earlier)] {
        s.inject(Script::flight(from, 1, Message::PrepareOk { view, op, checksum, life: s.life(from.min(2)) }));
    }
    s.run();
    assert_eq!((op.0, s.core(1).commit().0, s.reply(client, 1)), (2, 1, None));
    s.release(acks);
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// H5-14: a repeated `Prepare` is acknowledged again, a repeated request answered again, a repeated ask for the
/// `StartView` too.
#[test]
fn h5_14_what_is_said_again_is_answered_again() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let prepares = watch(&mut s, |f| f.is(0, 1) && f.name() == "Prepare");
    let lost = s.lose(|f| f.name() == "PrepareOk");
    write(&mut s, 0, client, 1, b"w");
    assert_eq!(s.reply(client, 1), None);
    s.release(lost);
    let again = prepares.borrow()[0].clone();
    s.inject(again);
    s.run();
    assert_eq!(s.outcomes(client, 1), [replied("1")]);
    write(&mut s, 0, client, 1, b"w");
    assert_eq!(s.outcomes(client, 1), [replied("1"), replied("1")]);
    let starts = s.hold(|f| f.is(0, 2) && f.name() == "StartView");
    for _ in 0..2 {
        s.inject(Script::flight(2, 0, Message::RequestStartView { view: Script::view_of(0), nonce: 5 }));
    }
    s.run();
    assert_eq!(s.held(starts).len(), 2);
    s.settle();
    assert_eq!(s.executed(1), ["w"]);
}

/// D07: a commit number beyond what is here executes nothing that is missing or unconnected.
#[test]
fn d07_a_commit_number_beyond_the_log_executes_nothing_missing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let lost = s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    for number in 1..=5 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    assert!(s.executed(2).is_empty());
    s.forget(lost);
    let (view, head) = (s.core(0).view(), s.core(0).head());
    s.inject(Script::flight(0, 2, Message::Commit { view, commit: CommitNumber(head.0), head, number: 1 << 40 }));
    s.run();
    s.pass(Duration::from_millis(500));
    s.settle();
    assert_eq!(s.executed(2).len(), 5);
}

/// M7: only acknowledgements move a primary's commit number, and only the word of its own primary, in normal
/// operation, that of a backup.
#[test]
fn m7_no_other_message_moves_the_commit_number() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    s.submit(0, client, 1, b"a");
    s.run();
    let knows = ping(&s, 1, |ping| ping.commit = CommitNumber(2));
    for to in [0, 2] {
        s.inject(Script::flight(1, to, knows.clone()));
    }
    let (view, commit, head) = (Script::view_of(0), CommitNumber(2), OpNumber(2));
    let beat = Message::Commit { view, commit, head, number: 1 << 40 };
    s.inject(Script::flight(1, 2, beat));
    s.inject(Script::flight(1, 2, Message::ReadIndexOk { nonce: 1, index: OpNumber(2) }));
    s.run();
    assert_eq!([0, 1, 2].map(|at| s.core(at).commit().0), [1, 1, 1]);
    s.release(acks);
    s.run();
    // r0 and r1 know op 2 as committed. r2 hears of it in a view change, and takes it for nobody's word.
    let missed = s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    s.submit(0, client, 2, b"b");
    s.run();
    s.forget(missed);
    let logs = s.hold(|f| f.is(0, 2) && f.name() == "DoViewChange");
    s.lose(|f| f.is(1, 2) && f.name() == "StartView");
    next_view(&mut s);
    assert_eq!(s.held(logs).len(), 1);
    for flight in s.held(logs) {
        assert!(matches!(&flight.message, Message::DoViewChange(dvc) if dvc.commit == CommitNumber(2)));
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.view(2), s.is_normal(2), s.core(2).commit().0), (1, false, 1), "{}", s.describe(2));
    s.settle();
    assert_eq!(s.executed(2), ["a", "b"]);
}

/// F1: an older entry that fits on the last applied op proves nothing, neither after a `StartView` nor at a restart.
#[test]
fn f1_a_stale_entry_that_fits_the_last_applied_op_is_not_applied() {
    let (mut s, client, alone) = stale(1);
    s.submit_with_floor(1, client, 101, 1, b"C");
    s.run();
    s.lose(|f| f.is(0, 1) && f.name() == "PrepareOk");
    for number in 102..=104 {
        s.submit_with_floor(1, client, number, 1, b"D");
        s.run();
    }
    assert_eq!((s.core(1).commit().0, s.core(1).head().0), (3, 6));
    // r2 learns the end of the log, and that op 3 is committed; what lies between it may not ask for.
    s.release(alone);
    s.lose(|f| f.from == replica(2) && matches!(f.name(), "RequestHeaders" | "RequestEntries"));
    let ask = Message::RequestStartView { view: s.core(1).view(), nonce: 1 };
    s.inject(Script::flight(2, 1, ask));
    s.run();
    assert_eq!((s.view(2), s.core(2).commit().0, s.core(2).head().0), (1, 3, 6), "{}", s.describe(2));
    assert_ne!(s.durable(2, 2), s.durable(1, 2), "A is still on its disk");
    assert!(s.executed(2).is_empty(), "{:?}", s.executed(2));
    s.crash(2);
    s.restart(2);
    s.run();
    assert!(s.core(2).commit().0 >= 3 && s.executed(2).is_empty(), "{:?}", s.executed(2));
    s.settle();
    assert_eq!(s.executed(2), ["B", "C", "D", "D", "D"]);
}

/// G3: a commit number of a later view says nothing of the entries that are here of an earlier one.
#[test]
fn g3_the_commit_number_of_a_later_view_applies_no_stale_entry() {
    let (mut s, _, _) = stale(1);
    for number in 1..=3 {
        let commit = Message::Commit { view: s.core(1).view(), commit: CommitNumber(2), head: OpNumber(2), number };
        s.inject(Script::flight(1, 2, commit));
    }
    s.run();
    assert_eq!((s.view(2), s.core(2).commit().0, s.core(2).applied().0), (0, 1, 1), "{}", s.describe(2));
    assert!(s.executed(2).is_empty(), "{:?}", s.executed(2));
    s.settle();
    assert_eq!(s.executed(2), ["B"]);
}

/// F4: a put that was under way when a view with that very entry began counts in that view: nobody waits for ever.
#[test]
fn f4_a_put_that_ends_in_a_later_view_is_acknowledged_there() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(2);
    let missed = s.lose(|f| f.is(0, 1) && f.name() == "Prepare");
    s.submit(0, client, 1, b"A");
    s.run();
    s.forget(missed);
    s.lose(|f| f.is(0, 1) && f.name() == "PrepareOk");
    next_view(&mut s);
    assert!(s.core(1).is_primary() && s.core(1).head().0 == 2, "{}", s.describe(1));
    s.crash(0);
    s.write_once(2);
    s.run();
    assert!(s.durable(2, 2).is_some(), "the put of view 0 is durable");
    assert_eq!(s.core(1).commit().0, 1, "r2 is not durably in view 1");
    s.write_once(2);
    s.run();
    assert_eq!(s.core(1).commit().0, 2, "{}", s.describe(2));
    s.submit(1, client, 1, b"A");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
    assert_eq!(s.executed(2), ["A"]);
}

/// F4: A is put, truncated, and put again, with the disk behind: the first put proves nothing for the last.
#[test]
fn f4_an_older_put_of_the_same_entry_proves_nothing() {
    let mut s = Script::new(5);
    let client = s.register(0);
    let acks = s.hold(|f| f.from == replica(2) && f.name() == "PrepareOk");
    let acked = |s: &Script| {
        s.held(acks).iter().any(|f| matches!(&f.message, Message::PrepareOk { op, .. } if *op == OpNumber(2)))
    };
    s.hold_disk(2);
    s.lose(|f| f.from == replica(0) && f.to != replica(2) && f.name() == "Prepare");
    s.submit(0, client, 1, b"A");
    s.run();
    let a = s.durable(0, 2);
    assert!(a.is_some() && s.durable(2, 2).is_none());
    // View 1 of r1 does without A; only r2 hears of its start.
    s.lose(|f| f.is(0, 1) && f.name() == "DoViewChange");
    s.lose(|f| f.from == replica(1) && f.to != replica(2) && f.name() == "StartView");
    next_view(&mut s);
    assert_eq!((s.view(2), s.core(2).log_view().number, s.core(2).head().0), (1, 1, 1), "{}", s.describe(2));
    // View 3 of r0, r3 and r4 has A again, and not enough acknowledgements.
    s.isolate(1);
    let alone = s.isolate(2);
    s.lose(|f| f.to == replica(3) && f.name() == "PrepareOk");
    s.pass(Duration::from_secs(5));
    assert!(s.core(3).is_primary() && s.view(3) == 3, "{}", s.describe(3));
    s.release(alone);
    let ask = Message::RequestStartView { view: s.core(3).view(), nonce: 1 };
    s.inject(Script::flight(2, 3, ask));
    s.pass(ms(500));
    assert_eq!((s.view(2), s.core(2).head().0, s.core(2).commit().0), (3, 2, 1), "{}", s.describe(2));
    for (durable, acknowledged) in [(a, false), (None, false), (a, true)] {
        s.write_once(2);
        s.run();
        assert_eq!((s.durable(2, 2), acked(&s)), (durable, acknowledged), "{}", s.describe(2));
    }
    s.settle();
    assert_eq!(s.executed(2), ["A"]);
}

/// B-13: no order is promised between requests in flight together, and each is executed once; those of one op are
/// executed in their order.
#[test]
fn b_13_requests_in_flight_together_have_no_order() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let delayed = s.hold(|f| f.is(1, 0) && f.name() == "Requests");
    for (number, command) in [(1, b"a"), (2, b"b"), (3, b"c")] {
        s.submit_with_floor(1, client, number, 1, command);
        s.run();
    }
    let mut copies = s.held(delayed);
    s.forget(delayed);
    copies.reverse();
    for flight in copies.iter().chain(&copies) {
        s.inject(flight.clone());
        s.run();
    }
    assert_eq!(s.executed(0), ["c", "b", "a"]);
    assert_eq!([1, 2, 3].map(|number| s.reply(client, number)), [b"3", b"2", b"1"].map(|bytes| Some(bytes.to_vec())));
    let together = [(6, b"d"), (5, b"e"), (4, b"f")].map(|(number, command)| request(&s, client, number, command));
    submit_together(&mut s, together.to_vec());
    s.settle();
    assert_eq!(s.executed(2), ["c", "b", "a", "d", "e", "f"]);
}

/// B-14, G18: the position of a request is unique and ordered, also among those of one op.
#[test]
fn b_14_requests_of_one_op_have_positions_of_their_own() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let replies = s.hold(|f| f.is(0, 1) && f.name() == "Replies");
    let together = [1, 2, 3].map(|number| request(&s, client, number, b"w"));
    submit_together(&mut s, together.to_vec());
    let mut positions = Vec::new();
    for flight in s.held(replies) {
        let Message::Replies { replies, .. } = flight.message else { panic!("it is held by its kind") };
        positions.extend(replies.into_iter().map(|reply| (reply.number.0, reply.position)));
    }
    let at = |index| Position { op: OpNumber(2), index };
    assert_eq!(positions, [(1, at(0)), (2, at(1)), (3, at(2))]);
    s.release(replies);
    s.settle();
    assert_eq!(s.executed(1).len(), 3);
}

/// CL-13: an old and a new primary are alive, and every backup forwards. Nobody forwards what was forwarded.
#[test]
fn cl_13_a_request_is_forwarded_once_and_executed_once() {
    let mut s = Script::new(5);
    let client = s.register(0);
    for (a, b) in (0..2).flat_map(|a| (2..5).map(move |b| (a, b))) {
        s.cut(a, b);
    }
    s.submit(0, client, 1, b"once");
    s.submit(1, client, 1, b"once");
    s.run();
    assert!(s.durable(1, 2).is_some() && s.reply(client, 1).is_none());
    s.pass(Duration::from_secs(4));
    assert!(s.core(2).is_primary() && s.view(0) == 0, "{}", s.describe(2));
    let forwarded = s.hold(|f| matches!(&f.message, Message::Requests { forwarded: true, .. }));
    for at in 0..5 {
        s.submit(at, client, 1, b"once");
    }
    s.run();
    let held = s.held(forwarded);
    assert_eq!(held.len(), 3, "r1, r3 and r4 pass it on: {held:?}");
    for flight in held {
        s.inject(Flight { to: Peer::Replica(ReplicaId(4)), ..flight.clone() }); // no primary
        s.inject(flight);
    }
    s.run();
    assert_eq!(s.held(forwarded).len(), 3, "{:?}", s.held(forwarded));
    let outcomes = s.outcomes(client, 1);
    assert!(outcomes.contains(&replied("1")), "{outcomes:?}");
    assert!(outcomes.iter().all(|o| [replied("1"), Outcome::Busy(Busy::NoPrimary)].contains(o)), "{outcomes:?}");
    s.settle();
    for at in 0..5 {
        assert_eq!((s.executed(at), s.core(at).head().0), (vec!["once".to_owned()], 2));
    }
}

/// B-09: a forwarded request is not forwarded again: a replica that is not primary says so.
#[test]
fn b_09_a_forwarded_request_is_not_forwarded_again() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let passed_on = s.hold(|f| f.name() == "Requests");
    let requests = vec![request(&s, client, 1, b"w")];
    for (from, to) in [(2, 1), (1, 2), (0, 1)] {
        let requests = requests.clone();
        s.inject(Script::flight(from, to, Message::Requests { requests, forwarded: true }));
        s.run();
    }
    assert!(s.held(passed_on).is_empty(), "{:?}", s.held(passed_on));
    assert_eq!(s.outcomes(client, 1), times(3, Outcome::Busy(Busy::NoPrimary)));
    s.forget(passed_on);
    submit(&mut s, 1, client, 1, 1);
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// D24: an op keeps its timestamp when another primary inherits it, and timestamps go on from there, however far
/// behind that primary's clock is.
#[test]
fn d24_timestamps_are_inherited_and_never_go_back() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let tomorrow = Timestamp(86_400_000_000_000);
    for from in [1, 2] {
        let ping = Ping {
            view: View::default(),
            normal: true,
            commit: CommitNumber(0),
            head: OpNumber(1),
            wall: tomorrow,
            past: vsr::protocol::Past::default(),
            machine_version: 1,
            head_certain: true,
            has_room: true,
            life: s.life(from),
            succession: vsr::protocol::Succession::First,
            known: Vec::new(),
            digests: Vec::new(),
        };
        s.inject(Script::flight(from, 0, Message::Ping(ping.into())));
    }
    let acks = s.hold(|f| f.name() == "PrepareOk");
    write(&mut s, 0, client, 1, b"A");
    let stamp = |s: &Script, at: usize, op: u64| s.disk(at).durable_header(OpNumber(op)).map(|header| header.timestamp);
    assert!(stamp(&s, 1, 2) >= Some(tomorrow), "r0 goes by the clocks of the others");
    let (inherited, stamped) = (s.durable(1, 2), stamp(&s, 1, 2));
    s.crash(0);
    s.forget(acks);
    depose(&mut s, &[1, 2]);
    write(&mut s, 1, client, 2, b"B");
    assert_eq!(s.outcomes(client, 2), [replied(b"2")]);
    assert_eq!((s.durable(1, 2), s.durable(2, 2)), (inherited, inherited), "A is proposed as it was");
    assert!(stamp(&s, 1, 3) > stamped, "{:?} after {stamped:?}", stamp(&s, 1, 3));
    s.settle();
    assert!(Some(s.core(2).applied_timestamp()) > stamped);
    assert_eq!(s.executed(2), ["A", "B"]);
}

/// B-16: timestamps follow the median of a quorum's clocks: neither a primary nor a backup with a mad one leads.
#[test]
fn b_16_one_mad_clock_does_not_lead() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let stamp = |s: &Script, op: u64| s.disk(0).durable_header(OpNumber(op)).expect("the op is durable").timestamp;
    assert_eq!(stamp(&s, 1), Timestamp(1_000_000_000), "every clock was started at one second");
    // The primary is ten seconds ahead of both others.
    s.pass(Duration::from_secs(10));
    for from in [1, 2] {
        let behind = ping(&s, from, |ping| ping.wall = Timestamp(1_500_000_000));
        s.inject(Script::flight(from, 0, behind));
    }
    submit(&mut s, 0, client, 1, 1);
    assert_eq!(stamp(&s, 2), Timestamp(1_500_000_000));
    // A backup is years ahead.
    s.pass(ms(300));
    let ahead = ping(&s, 2, |ping| ping.wall = Timestamp(1 << 60));
    s.inject(Script::flight(2, 0, ahead));
    submit(&mut s, 0, client, 2, 2);
    assert!(stamp(&s, 3) > stamp(&s, 2) && stamp(&s, 3) < Timestamp(60_000_000_000), "{}", stamp(&s, 3));
    s.settle();
}

/// G12: an op names the lowest version of the state machine that the members have announced, never a lower one than
/// the op before.
#[test]
fn g12_a_primary_stamps_the_version_that_all_members_have() {
    let mut s = Script::new(3);
    for from in [1, 2] {
        let older = ping(&s, from, |ping| ping.machine_version = 0);
        s.inject(Script::flight(from, 0, older));
    }
    let client = s.register(0);
    let version = |s: &Script, op: u64| s.disk(2).durable_header(OpNumber(op)).map(|header| header.machine_version);
    assert_eq!(version(&s, 1), Some(0), "r0 itself has version 1");
    s.pass(ms(300)); // all announce version 1
    submit(&mut s, 0, client, 1, 1);
    assert_eq!(version(&s, 2), Some(1));
    let older = ping(&s, 2, |ping| ping.machine_version = 0);
    s.inject(Script::flight(2, 0, older));
    submit(&mut s, 0, client, 2, 2);
    assert_eq!(version(&s, 3), Some(1));
    s.settle();
}

/// Rule 6.12: the durable commit number does not stay where it was when the view began: it follows when the log rests, and names only what is on
/// this disk.
#[test]
fn a5_the_durable_commit_number_follows_the_log_within_a_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(2);
    for number in 1..=5 {
        write(&mut s, 0, client, number, b"w");
    }
    s.pass(Duration::from_secs(1));
    let durable = |s: &Script, at: usize| s.disk(at).state().commit.0;
    assert_eq!((durable(&s, 0), durable(&s, 1)), (6, 6));
    assert!(durable(&s, 2) < 2, "its disk hangs, and holds op 1 at most");
    s.release_disk(2);
    s.run();
    s.pass(Duration::from_secs(1));
    assert_eq!((durable(&s, 2), s.views_entered()), (6, 0));
    s.settle();
}
