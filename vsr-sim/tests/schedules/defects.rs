//! The defects of section 1 of the hazards, each replayed: D01 to D28. The others of that section stand in
//! `views`, `paper` and `partial`.

use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::{Busy, Outcome, Ping, Refusal, StartView};
use vsr::{
    Checksum, ClientId, CommitNumber, Epoch, Membership, Message, OpNumber, Peer, Quorums, ReplicaId, Timestamp, View,
};
use vsr_sim::Damage;
use vsr_sim::script::{Flight, Script};

/// The connections of these replicas to the primary of their view are refused: they vote at once, and the next
/// view starts without any time passing.
fn depose(s: &mut Script, voters: &[usize]) {
    let primary = usize::from(s.core(voters[0]).primary_id().0);
    for &at in voters {
        s.peer_down(at, primary, true);
    }
    s.run();
}

/// Sends a request, and delivers everything that it causes.
fn submit(s: &mut Script, at: usize, client: ClientId, number: u64, command: &[u8]) {
    s.submit(at, client, number, command);
    s.run();
}

/// Lets time pass until something holds.
fn until(s: &mut Script, holds: impl Fn(&Script) -> bool) {
    for _ in 0..1000 {
        if holds(s) {
            return;
        }
        s.pass(Duration::from_millis(10));
    }
    let states: Vec<String> = (0..s.len()).map(|at| s.describe(at)).collect();
    panic!("nothing came of it in ten seconds: {states:#?}");
}

/// r2 alone has a durable `A` as op 2 of view 0: r0 has sent it to r2 only, and died before its own write.
fn leave_an_op_at_r2(s: &mut Script, client: ClientId) {
    s.hold_disk(0);
    s.cut(0, 1);
    submit(s, 0, client, 1, b"A");
    assert!(s.durable(2, 2).is_some(), "r2 has acknowledged A");
    s.crash(0);
    s.release_disk(0);
    s.heal();
}

fn reply(bytes: &'static [u8]) -> Outcome {
    Outcome::Reply(Bytes::from_static(bytes))
}

/// D01: a `Prepare` of a later view truncates nothing; until that view's log is installed, the `DoViewChange`
/// carries the old log with the old log_view.
#[test]
fn d01_a_later_view_heard_of_leaves_log_and_log_view_alone() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let alone = s.isolate(2);
    submit(&mut s, 0, client, 1, b"v1");
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.forget(alone);
    // r0 and r2 move on to view 2; r1 hears nothing of it, and r0 never gets the log of view 2.
    let later = s.hold(|f| f.is(2, 1) && f.name() == "Prepare");
    s.hold(|f| f.is(2, 0) && f.name() == "StartView");
    s.lose(|f| matches!(f.name(), "Prepare" | "PrepareOk" | "Commit"));
    s.isolate(1);
    submit(&mut s, 0, client, 2, b"v2");
    until(&mut s, |s| s.view(2) == 2 && s.core(2).is_primary());
    submit(&mut s, 2, client, 3, b"v3");
    let prepares = s.held(later);
    assert!(!prepares.is_empty(), "v3 is on its way to r1");
    for flight in prepares {
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.view(1), s.core(1).log_view().number, s.core(1).head().0), (0, 0, 2));
    assert_eq!(s.durable(1, 2), s.durable(0, 2));
    // Before it can get that log, view 3 is formed by r0 and r1.
    s.heal();
    s.lose(|f| f.is(2, 0) && f.name() != "StartViewChange");
    s.cut(1, 2);
    let logs = s.hold(|f| f.is(1, 0) && matches!(&f.message, Message::DoViewChange(dvc) if dvc.view.number == 3));
    until(&mut s, |s| !s.held(logs).is_empty());
    let Message::DoViewChange(dvc) = s.held(logs).remove(0).message else { panic!("it is held by its kind") };
    assert_eq!((dvc.log_view.number, dvc.head.0), (0, 2), "r1 sends its old log under its old log_view");
    s.release(logs);
    s.run();
    s.settle();
    assert_eq!(s.executed(1), ["v1", "v2"]);
}

/// D02: a `Prepare` of a later view that leaves no gap to the own head is not appended: the op below it is another
/// one in that view.
#[test]
fn d02_a_later_views_prepare_is_never_appended() {
    let mut s = Script::new(3);
    let client = s.register(0);
    leave_an_op_at_r2(&mut s, client);
    let later =
        s.hold(|f| f.is(1, 2) && matches!(&f.message, Message::Prepare { entry, .. } if entry.header.op.0 == 3));
    let acks = s.hold(|f| f.is(2, 1) && f.name() == "PrepareOk");
    s.isolate(2);
    s.restart(0);
    s.run();
    submit(&mut s, 1, client, 2, b"B");
    submit(&mut s, 1, client, 3, b"C");
    assert!(s.reply(client, 3).is_some(), "view 1 has chosen B and C: {}", s.describe(1));
    let prepares = s.held(later);
    assert!(!prepares.is_empty(), "op 3 of view 1 is on its way to r2");
    for flight in prepares {
        s.inject(flight);
    }
    s.run();
    assert!(s.held(acks).is_empty(), "r2 acknowledges nothing on top of A");
    assert_eq!((s.view(2), s.core(2).head().0, s.durable(2, 3)), (0, 2, None));
    s.settle();
    assert_eq!(s.executed(2), ["B", "C"]);
    assert_eq!((s.durable(2, 2), s.reply(client, 1)), (s.durable(1, 2), None));
}

/// D04: a replica adopts exactly the higher view, and `DoViewChange`s of different views make no quorum.
#[test]
fn d04_do_view_changes_of_two_views_are_no_quorum() {
    let mut s = Script::new(5);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, b"w");
    let logs = s.hold(|f| f.name() == "DoViewChange");
    s.isolate(4);
    s.crash(0);
    depose(&mut s, &[1, 2, 3]);
    until(&mut s, |s| (1..4).all(|at| s.view(at) == 2));
    let sent = |s: &Script, from: usize, to: usize, view: u64| -> Vec<Flight> {
        let of_view = |f: &Flight| matches!(&f.message, Message::DoViewChange(dvc) if dvc.view.number == view);
        let flights: Vec<Flight> = s.held(logs).into_iter().filter(|f| f.is(from, to) && of_view(f)).collect();
        assert!(!flights.is_empty(), "r{from} has sent its DoViewChange for view {view} to r{to}");
        flights
    };
    // r2 needs three for view 2. It has its own, two of view 1, and that of r1, again and again.
    for (from, view) in [(1, 1), (3, 1), (1, 2), (1, 2)] {
        for flight in sent(&s, from, 2, view) {
            s.inject(flight);
        }
    }
    s.run();
    assert_eq!((s.view(2), s.core(2).log_view().number, s.is_normal(2)), (2, 0, false));
    s.inject(sent(&s, 2, 4, 2).remove(0));
    s.run();
    assert_eq!((s.view(4), s.is_normal(4)), (2, false), "r4 was in view 0");
    s.inject(sent(&s, 3, 2, 2).remove(0));
    s.run();
    assert!(s.view(2) == 2 && s.core(2).is_primary(), "{}", s.describe(2));
    s.settle();
    assert_eq!(s.executed(4), ["w"]);
}

/// D06: the `StartView` of a primary that knows less to be committed does not turn the commit number back.
#[test]
fn d06_a_start_view_with_a_smaller_commit_number_executes_nothing_twice() {
    let mut s = Script::new(3);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, b"w");
    assert_eq!((s.core(0).commit().0, s.core(1).commit().0), (2, 1), "only r0 knows that op 2 is committed");
    let starts = s.hold(|f| f.is(1, 0) && f.name() == "StartView");
    s.isolate(0);
    depose(&mut s, &[1, 2]);
    let start = s.held(starts).first().cloned().expect("r1 has started view 1");
    assert!(matches!(&start.message, Message::StartView(start) if start.commit.0 == 1));
    s.inject(start);
    s.run();
    assert!(s.is_normal(0) && s.view(0) == 1, "{}", s.describe(0));
    assert_eq!((s.core(0).commit().0, s.core(0).applied().0), (2, 2));
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
    assert_eq!(s.executed(1), ["w"]);
}

/// D08: whoever has sent a `DoViewChange` never operates in a lower view again, over restarts too: no op is
/// acknowledged there with its help.
#[test]
fn d08_a_restarted_replica_never_returns_to_a_lower_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.is(1, 2) && f.name() == "StartViewChange");
    // What an earlier life has said counts as long as nobody has heard of the next.
    s.lose(|f| (f.is(1, 2) || f.is(2, 1)) && f.name() == "Ping");
    let delayed = s.hold(|f| f.name() == "DoViewChange");
    depose(&mut s, &[1, 2]);
    assert_eq!((s.view(1), s.view(2)), (1, 0), "r1 has left view 0, r2 has not");
    s.crash(1);
    s.restart(1);
    s.run();
    let old = s.held(delayed).into_iter().find(|f| f.is(1, 2)).expect("r1 has sent its log");
    s.inject(old);
    s.run();
    s.crash(2);
    s.restart(2);
    s.run();
    assert_eq!((s.view(1), s.view(2)), (1, 1), "both remember what they have promised");
    // r0 knows of nothing, and nobody helps it to acknowledge x in view 0.
    submit(&mut s, 0, client, 1, b"x");
    assert_eq!((s.view(0), s.core(0).head().0, s.core(0).commit().0), (0, 2, 1));
    assert!(s.outcomes(client, 1).is_empty());
    let old = s.held(delayed).into_iter().find(|f| f.is(2, 1)).expect("r2 has sent its log");
    s.inject(old);
    s.run();
    assert!(s.core(1).is_primary() && s.view(0) == 1, "{}", s.describe(1));
    s.heal();
    submit(&mut s, 1, client, 1, b"x");
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.crash(2);
    s.restart(2);
    s.settle();
    assert_eq!(s.executed(2), ["x"]);
}

/// D09: a replica that lost the end of its log takes the log of no view below its own, even if the deposed primary
/// answers the question that it has asked.
#[test]
fn d09_the_answer_of_a_deposed_primary_is_not_adopted() {
    let mut s = Script::new(5);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, b"w1");
    s.isolate(0);
    depose(&mut s, &[1, 2, 3, 4]);
    submit(&mut s, 1, client, 2, b"w2");
    assert!(s.reply(client, 2).is_some() && s.durable(4, 3).is_some(), "{}", s.describe(4));
    s.crash(4);
    s.rot(4, 3, Damage::Both);
    let asked = s.hold(|f| f.is(4, 1) && f.name() == "RequestStartView");
    s.isolate(4);
    s.restart(4);
    s.pass(Duration::from_millis(100));
    let question = s.held(asked).first().cloned().expect("r4 asks for the log of its view");
    let Message::RequestStartView { nonce, .. } = question.message else { panic!("it is held by its kind") };
    assert!(s.core(0).is_primary() && s.view(0) == 0, "r0 still believes");
    let (commit, head) = (s.core(0).commit(), s.core(0).head());
    let headers = (1..=head.0).filter_map(|op| s.disk(0).durable_header(OpNumber(op))).collect();
    let view = Script::view_of(0);
    let start = StartView { view, commit, head, headers, nonce, checkpoint: OpNumber::ZERO };
    s.inject(Script::flight(0, 4, Message::StartView(start)));
    s.run();
    assert_eq!((s.view(4), s.core(4).log_view().number, s.core(4).head().0), (1, 1, 3));
    assert!(!s.disk(4).state().head_certain, "it goes on waiting");
    s.settle();
    assert!(s.disk(4).state().head_certain, "it has asked again");
    assert_eq!(s.executed(4), ["w1", "w2"]);
}

/// D11: a replica whose log is unreadable sends no `DoViewChange` that claims an empty log, and what it has
/// acknowledged survives.
#[test]
fn d11_an_unreadable_log_is_not_claimed_to_be_empty() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(1);
    submit(&mut s, 0, client, 1, b"x");
    assert!(s.reply(client, 1).is_some(), "r0 and r2 have acknowledged x");
    s.crash(2);
    s.rot(2, 2, Damage::Both);
    s.crash(0);
    s.heal();
    let logs = s.hold(|f| f.is(2, 1) && f.name() == "DoViewChange");
    s.restart(2);
    depose(&mut s, &[1, 2]);
    assert!(!s.held(logs).is_empty(), "{}", s.describe(2));
    for flight in s.held(logs) {
        let Message::DoViewChange(dvc) = flight.message else { panic!("it is held by its kind") };
        assert_eq!((dvc.head.0, dvc.head_certain), (2, false));
        assert!(dvc.facts.iter().all(|fact| !fact.nack), "{:?}", dvc.facts);
    }
    s.release(logs);
    s.pass(Duration::from_secs(2));
    assert!(!s.is_normal(1) && !s.is_normal(2), "no view starts without x: {}", s.describe(1));
    s.settle();
    assert_eq!(s.executed(1), ["x"]);
    assert_eq!(s.executed(2), ["x"]);
}

/// D12: the tail of a log that was persisted before a restart is not kept because ops above it arrive.
#[test]
fn d12_a_persisted_tail_of_an_older_view_is_replaced() {
    let mut s = Script::new(3);
    let client = s.register(0);
    leave_an_op_at_r2(&mut s, client);
    s.crash(2);
    s.restart(0);
    s.run();
    for (number, command) in [(2, b"B"), (3, b"C"), (4, b"D")] {
        submit(&mut s, 1, client, number, command);
        assert!(s.reply(client, number).is_some(), "{}", s.describe(1));
    }
    let stale = s.durable(2, 2);
    assert!(stale.is_some() && stale != s.durable(1, 2), "r2 still has A where B is committed");
    s.restart(2);
    submit(&mut s, 1, client, 5, b"E");
    s.settle();
    assert_eq!(s.executed(2), ["B", "C", "D", "E"]);
    assert_eq!(s.durable(2, 2), s.durable(1, 2));
}

/// D14 a: a number that an earlier life of the client has used, with another command, brings nobody another's
/// reply.
#[test]
fn d14_a_the_reply_to_another_life_is_never_received() {
    let mut s = Script::new(3);
    let (second, third) = (s.register(0), s.register(0));
    let delayed = s.hold(move |f| f.from == Peer::Client(second));
    submit(&mut s, 0, second, 7, b"B");
    submit(&mut s, 0, third, 7, b"C");
    assert_eq!(s.outcomes(third, 7), [reply(b"1")]);
    s.release(delayed);
    s.run();
    assert_eq!((s.outcomes(second, 7), s.outcomes(third, 7)), (vec![reply(b"2")], vec![reply(b"1")]));
    // A client that does use its number again, for something else, is told so; after the first was executed,
    submit(&mut s, 0, second, 7, b"C");
    assert_eq!(s.outcomes(second, 7), [reply(b"2"), Outcome::Refused(Refusal::Conflict)]);
    // and while it is in flight, that it has to wait for what becomes of the first.
    let acks = s.hold(|f| f.name() == "PrepareOk");
    submit(&mut s, 0, third, 8, b"D");
    submit(&mut s, 0, third, 8, b"E");
    assert_eq!(s.outcomes(third, 8), [Outcome::Busy(Busy::Queue)]);
    s.release(acks);
    s.run();
    submit(&mut s, 0, third, 8, b"E");
    let (wait, conflict) = (Outcome::Busy(Busy::Queue), Outcome::Refused(Refusal::Conflict));
    assert_eq!(s.outcomes(third, 8), [wait, reply(b"3"), conflict]);
    s.settle();
    assert_eq!(s.executed(2), ["C", "B", "D"]);
}

/// D14 b: a request whose op was dropped by a view change does not lock its client out (CL-04).
#[test]
fn d14_b_a_dropped_request_is_executed_when_it_is_sent_again() {
    let mut s = Script::new(5);
    let client = s.register(0);
    for number in 1..=4 {
        submit(&mut s, 0, client, number, b"w");
    }
    for at in 1..4 {
        s.cut(0, at);
    }
    submit(&mut s, 0, client, 5, b"dropped");
    assert!(s.durable(4, 6).is_some() && s.reply(client, 5).is_none(), "op 6 is at r0 and r4 only");
    s.crash(0);
    s.heal();
    let alone = s.isolate(4);
    depose(&mut s, &[1, 2, 3]);
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    s.forget(alone);
    until(&mut s, |s| s.view(4) == 1 && s.is_normal(4));
    assert_eq!((s.core(4).head().0, s.durable(4, 6)), (5, None), "r4 has dropped op 6");
    for voters in [[2, 3, 4], [1, 3, 4], [1, 2, 4]] {
        depose(&mut s, &voters);
    }
    assert!(s.view(4) == 4 && s.core(4).is_primary(), "{}", s.describe(4));
    submit(&mut s, 4, client, 5, b"dropped");
    assert_eq!(s.outcomes(client, 5), [reply(b"5")]);
    s.settle();
    assert_eq!(s.executed(0), ["w", "w", "w", "w", "dropped"]);
}

/// D14 c: what a client learns of its session comes from the log, not from the replica that it happens to ask.
#[test]
fn d14_c_a_lagging_backup_opens_sessions_by_the_log() {
    let mut s = Script::new(3);
    s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    let first = s.register(2);
    let session = s.session(first);
    let second = s.register(2);
    assert!(s.session(second) > session, "sessions are in the order of the log");
    s.send_register(2, first);
    s.run();
    assert_eq!(s.core(2).sessions(), 0, "r2 itself knows of neither");
    assert_eq!((s.session(first), s.outcomes(first, 0).len()), (session, 2));
    submit(&mut s, 2, first, 1, b"w");
    assert_eq!(s.outcomes(first, 1), [reply(b"1")]);
    s.settle();
    assert_eq!((s.executed(2), s.core(2).sessions()), (vec!["w".to_owned()], 2));
}

/// D14: an evicted client is told so; what it had executed is not executed again.
#[test]
fn d14_d_an_evicted_client_hears_it_and_nothing_is_executed_again() {
    let mut membership = Membership::new(["r0", "r1", "r2"]).expect("three members");
    membership.constants.sessions_max = 2;
    membership.constants.session_idle_min = 0;
    let mut s = Script::with_membership(membership);
    let first = s.register(0);
    submit(&mut s, 0, first, 1, b"a");
    let second = s.register(0);
    s.register(0);
    submit(&mut s, 0, first, 1, b"a");
    submit(&mut s, 1, first, 2, b"b");
    assert_eq!(s.outcomes(first, 1), [reply(b"1"), Outcome::Refused(Refusal::Evicted)]);
    assert_eq!(s.outcomes(first, 2), [Outcome::Refused(Refusal::Evicted)]);
    submit(&mut s, 0, second, 1, b"c");
    assert_eq!(s.outcomes(second, 1), [reply(b"2")]);
    s.settle();
    assert_eq!(s.executed(2), ["a", "c"]);
    assert_eq!(s.core(2).sessions(), 2);
}

/// D15, PR 650: a cluster of one is not in normal operation before the view that it has moved to is durable.
#[test]
fn d15_a_a_cluster_of_one_waits_for_its_durable_view() {
    let mut s = Script::new(1);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, b"a");
    s.crash(0);
    s.hold_disk(0);
    s.restart(0);
    submit(&mut s, 0, client, 2, b"b");
    assert_eq!((s.view(0), s.disk(0).state().view.number, s.is_normal(0)), (1, 0, false));
    assert!(s.outcomes(client, 2).is_empty());
    s.crash(0);
    s.release_disk(0);
    s.restart(0);
    s.run();
    submit(&mut s, 0, client, 2, b"b");
    assert_eq!(s.outcomes(client, 2), [reply(b"2")]);
    s.crash(0);
    s.settle();
    assert_eq!(s.executed(0), ["a", "b"]);
}

/// D15, PR 768: nothing is acknowledged in a view before it is durable that the log is that view's.
#[test]
fn d15_b_nothing_is_acknowledged_before_log_view_is_durable() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let starts = s.hold(|f| f.is(1, 2) && f.name() == "StartView");
    s.crash(0);
    depose(&mut s, &[1, 2]);
    assert!(s.core(1).is_primary() && s.view(2) == 1, "{}", s.describe(1));
    let acks = s.hold(|f| f.is(2, 1) && f.name() == "PrepareOk");
    s.hold_disk(2);
    s.release(starts);
    s.run();
    submit(&mut s, 1, client, 1, b"w");
    assert_eq!((s.core(2).log_view().number, s.disk(2).state().log_view.number), (1, 0));
    assert!(s.held(acks).is_empty(), "r2 has acknowledged what a crash would take back");
    s.crash(2);
    s.release_disk(2);
    s.restart(2);
    assert_eq!((s.view(2), s.core(2).log_view().number), (1, 0), "it crashed in the middle of the view change");
    s.release(acks);
    s.pass(Duration::from_millis(100));
    // Before r2 could acknowledge anything, r1 had not even applied what opened the session: it is asked again.
    submit(&mut s, 1, client, 1, b"w");
    until(&mut s, |s| s.reply(client, 1).is_some());
    s.settle();
    assert_eq!(s.executed(2), ["w"]);
}

/// D15, PR 645: an acknowledged entry that is damaged is not nacked, though its header is known.
#[test]
fn d15_c_a_damaged_entry_with_a_known_header_is_not_nacked() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    submit(&mut s, 0, client, 1, b"x");
    assert!(s.reply(client, 1).is_some(), "r0 and r1 have acknowledged x");
    s.crash(1);
    s.rot(1, 2, Damage::Body);
    s.lose(|f| f.is(0, 1) && f.name() == "Entries");
    s.restart(1);
    s.run();
    assert_eq!(s.core(1).checksum(OpNumber(2)), s.durable(0, 2), "r1 knows the header");
    s.crash(0);
    s.heal();
    depose(&mut s, &[1, 2]);
    s.pass(Duration::from_secs(2));
    assert!(!s.is_normal(1) && !s.is_normal(2), "neither can say that x was not acknowledged: {}", s.describe(1));
    assert_eq!(s.core(1).head().0, 2);
    s.settle();
    assert_eq!(s.executed(1), ["x"]);
    assert_eq!(s.executed(2), ["x"]);
}

/// D15, PR 828: a replica that lost the end of its log takes no `StartView` that it has not asked for in this life.
#[test]
fn d15_d_an_outdated_start_view_does_not_hide_a_damaged_head() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let copies = s.hold(|f| f.is(1, 2) && f.name() == "StartView");
    s.crash(0);
    depose(&mut s, &[1, 2]);
    let outdated = s.held(copies);
    assert!(!outdated.is_empty(), "{}", s.describe(1));
    s.release(copies);
    s.run();
    for number in 1..=2 {
        submit(&mut s, 1, client, number, b"w");
        assert!(s.reply(client, number).is_some());
    }
    s.crash(2);
    s.rot(2, 3, Damage::Both);
    s.isolate(2);
    s.restart(2);
    for flight in outdated {
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.core(2).head().0, s.disk(2).state().head_certain), (3, false));
    // With r0, which has neither op, it waits for r1.
    s.crash(1);
    s.heal();
    s.restart(0);
    until(&mut s, |s| s.view(2) >= 3);
    s.pass(Duration::from_millis(300));
    assert!(!s.is_normal(0) && !s.is_normal(2), "op 3 is not nacked: {}", s.describe(0));
    s.settle();
    assert_eq!(s.executed(0), ["w", "w"]);
}

/// D16: each op is damaged on all disks but one, never the same one: everything is repaired.
#[test]
fn d16_disks_that_are_damaged_in_turn_repair_each_other() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for (number, command) in [(1, b"a"), (2, b"b"), (3, b"c")] {
        submit(&mut s, 0, client, number, command);
    }
    for at in 0..3 {
        s.crash(at);
    }
    for (op, at) in [(2, 0), (2, 1), (3, 1), (3, 2), (4, 0), (4, 2)] {
        s.rot(at, op, Damage::Body);
    }
    for at in 0..3 {
        s.restart(at);
    }
    s.settle();
    for at in 0..3 {
        assert_eq!(s.executed(at), ["a", "b", "c"]);
        for op in 1..=4 {
            assert!(s.disk(at).intact(OpNumber(op)).is_some(), "op {op} on r{at}");
        }
    }
}

/// D20: a new primary serves no read before what it inherited is committed.
#[test]
fn d20_a_new_primary_reads_nothing_before_its_inherited_log_is_committed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, b"w");
    assert!(s.reply(client, 1).is_some(), "op 2 is acknowledged, as only r0 knows");
    let acks = s.hold(|f| f.is(2, 1) && f.name() == "PrepareOk");
    s.crash(0);
    depose(&mut s, &[1, 2]);
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    s.query(1, 7);
    s.run();
    assert_eq!((s.core(1).commit().0, s.core(1).applied().0), (1, 1));
    assert_eq!(s.answer(1, 7), None, "a state without w would be stale");
    s.release(acks);
    s.run();
    assert_eq!(s.answer(1, 7), Some(1));
    s.settle();
}

/// D21: a query at a backup that is behind waits; it is never answered from what happens to be there.
#[test]
fn d21_a_query_at_a_backup_that_is_cut_off_waits() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    submit(&mut s, 0, client, 1, b"w");
    assert!(s.reply(client, 1).is_some());
    s.query(2, 7);
    s.query(0, 8);
    s.pass(Duration::from_secs(1));
    assert_eq!((s.answer(2, 7), s.answer(0, 8)), (None, Some(1)));
    s.heal();
    until(&mut s, |s| s.answer(2, 7).is_some());
    assert_eq!(s.answer(2, 7), Some(1));
    s.settle();
}

/// D23: a request that is in flight is not admitted again, neither by way of the backups, nor by the primary that
/// has inherited it.
#[test]
fn d23_a_request_in_flight_is_not_prepared_again() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    for at in 0..3 {
        submit(&mut s, at, client, 1, b"w1");
    }
    assert_eq!((s.core(0).head().0, s.outcomes(client, 1).len()), (2, 0));
    s.release(acks);
    s.run();
    assert_eq!(s.outcomes(client, 1), [reply(b"1"), reply(b"1"), reply(b"1")]);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    submit(&mut s, 0, client, 2, b"w2");
    s.crash(0);
    depose(&mut s, &[1, 2]);
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    for at in [1, 2, 1] {
        submit(&mut s, at, client, 2, b"w2");
    }
    assert_eq!((s.core(1).head().0, s.core(1).commit().0), (3, 2), "op 3 is inherited, and is the only one");
    s.release(acks);
    s.run();
    assert_eq!(s.outcomes(client, 2), [reply(b"2"), reply(b"2")]);
    s.settle();
    assert_eq!(s.executed(0), ["w1", "w2"]);
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
            checkpoint: OpNumber::ZERO,
            machine_version: 1,
            head_certain: true,
            has_room: true,
            life: s.life(from),
            known: Vec::new(),
        };
        s.inject(Script::flight(from, 0, Message::Ping(ping)));
    }
    let acks = s.hold(|f| f.name() == "PrepareOk");
    submit(&mut s, 0, client, 1, b"A");
    let stamp = |s: &Script, at: usize, op: u64| s.disk(at).durable_header(OpNumber(op)).map(|header| header.timestamp);
    assert!(stamp(&s, 1, 2) >= Some(tomorrow), "r0 goes by the clocks of the others");
    let (inherited, stamped) = (s.durable(1, 2), stamp(&s, 1, 2));
    s.crash(0);
    s.forget(acks);
    depose(&mut s, &[1, 2]);
    submit(&mut s, 1, client, 2, b"B");
    assert_eq!(s.outcomes(client, 2), [reply(b"2")]);
    assert_eq!((s.durable(1, 2), s.durable(2, 2)), (inherited, inherited), "A is proposed as it was");
    assert!(stamp(&s, 1, 3) > stamped, "{:?} after {stamped:?}", stamp(&s, 1, 3));
    s.settle();
    assert!(Some(s.core(2).applied_timestamp()) > stamped);
    assert_eq!(s.executed(2), ["A", "B"]);
}

/// D25: repeated acknowledgements, and those of other contents, views, epochs and strangers, commit nothing.
#[test]
fn d25_only_distinct_members_acknowledge_this_very_op() {
    let mut s = Script::new(5);
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    submit(&mut s, 0, client, 1, b"w");
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
    assert_eq!(s.outcomes(client, 1), [reply(b"1")]);
    s.settle();
    assert_eq!(s.executed(4), ["w"]);
}

/// D26: with an even number of members, and with quorums of one's own, those that commit and those that start a
/// view always meet.
#[test]
fn d26_the_rest_starts_no_view_without_what_a_small_quorum_commits() {
    let flexible = Quorums { replication: 2, view_change: 4, nack: 4 };
    for (n, quorums) in [(4, Quorums::of(4)), (5, flexible)] {
        let mut membership = Membership::new((0..n).map(|id| format!("replica {id}"))).expect("members");
        membership.quorums = quorums;
        let mut s = Script::with_membership(membership);
        let client = s.register(0);
        for a in 0..2 {
            for b in 2..n {
                s.cut(a, b);
            }
        }
        submit(&mut s, 0, client, 1, b"x");
        assert!(s.reply(client, 1).is_some(), "two of {n} commit");
        s.pass(Duration::from_secs(3));
        assert!((0..n).all(|at| s.view(at) == 0 && s.is_normal(at)), "{} of {n} start no view", n - 2);
        submit(&mut s, 0, client, 2, b"y");
        assert!(s.reply(client, 2).is_some(), "{}", s.describe(0));
        s.crash(0);
        s.heal();
        until(&mut s, |s| (1..n).all(|at| s.is_normal(at) && s.view(at) > 0));
        s.settle();
        assert_eq!(s.executed(2), ["x", "y"]);
    }
}

/// D28: a client is told of views that have started only, and whoever is in the started one serves it.
#[test]
fn d28_a_view_that_has_not_started_is_not_told_to_clients() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.cut_one_way(2, 0);
    s.cut_one_way(2, 1);
    depose(&mut s, &[1, 2]);
    assert_eq!([0, 1, 2].map(|at| s.view(at)), [0, 0, 1], "r2 is alone in view 1");
    let told = s.hold(move |f| f.from == Peer::Replica(ReplicaId(2)) && f.to == Peer::Client(client));
    submit(&mut s, 2, client, 1, b"w");
    assert!(!s.held(told).is_empty(), "r2 answers");
    for flight in s.held(told) {
        let Message::Replies { view, .. } = flight.message else { panic!("r2 answers with replies") };
        assert_eq!(view, Script::view_of(0));
    }
    submit(&mut s, 0, client, 1, b"w");
    assert_eq!(s.outcomes(client, 1), [reply(b"1")]);
    s.settle();
    assert_eq!(s.executed(2), ["w"]);
}
