//! Sessions: a request is executed at most once, and its client is told the truth about it.

use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::{Busy, Outcome, Refusal};
use vsr::{Membership, Message, Peer, ReplicaId};
use vsr_sim::script::{Flight, Script};

fn replied(reply: &'static str) -> Outcome {
    Outcome::Reply(Bytes::from_static(reply.as_bytes()))
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

/// CL-01: ten copies of a request at every replica make one op, and every replica answers the same.
#[test]
fn cl_01_the_same_request_at_every_replica_executes_once() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for _ in 0..10 {
        for at in 0..3 {
            s.submit(at, client, 1, b"once");
        }
    }
    s.run();
    let outcomes = s.outcomes(client, 1);
    assert!(outcomes.len() >= 3 && outcomes.iter().all(|outcome| *outcome == replied("1")), "{outcomes:?}");
    assert_eq!(s.core(0).head().0, 2);
    s.settle();
    for at in 0..3 {
        assert_eq!(s.executed(at), ["once"]);
    }
}

/// CL-02: the reply is lost with the primary. The next one gives the stored reply.
#[test]
fn cl_02_a_retry_after_a_view_change_gets_the_stored_reply() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let lost = s.lose(|f| f.name() == "Replies");
    for number in 1..=2 {
        s.submit_with_floor(0, client, number, 1, b"w");
        s.run();
    }
    assert_eq!((s.executed(0).len(), s.reply(client, 1)), (2, None));
    s.crash(0);
    s.forget(lost);
    s.pass(Duration::from_secs(2));
    let head = s.core(1).head();
    for at in 1..3 {
        s.submit_with_floor(at, client, 1, 1, b"w");
    }
    s.run();
    let outcomes = s.outcomes(client, 1);
    assert!(!outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == replied("1")), "{outcomes:?}");
    assert_eq!((s.core(1).head(), s.executed(1).len()), (head, 2));
    s.settle();
    assert_eq!(s.executed(0).len(), 2);
}

/// CL-04, D14 b: a view change drops a request that a backup holds. That backup, when it is primary, executes
/// the retry.
#[test]
fn cl_04_d14_b_a_dropped_request_is_not_locked_out() {
    let mut s = Script::new(5);
    let client = s.register(0);
    for number in 2..=5 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    s.pass(Duration::from_millis(100));
    for at in 1..4 {
        s.cut(0, at);
    }
    s.submit(0, client, 6, b"six");
    s.run();
    assert!(s.durable(0, 6).is_some() && s.durable(4, 6).is_some() && s.durable(1, 6).is_none());
    assert_eq!(s.reply(client, 6), None);
    s.crash(0);
    let alone = s.isolate(4);
    s.pass(Duration::from_secs(2));
    assert!(s.core(1).is_primary() && s.view(1) == 1 && s.core(1).head().0 == 5, "{}", s.describe(1));
    s.release(alone);
    s.pass(Duration::from_millis(300));
    assert!(s.is_normal(4) && s.view(4) == 1, "{}", s.describe(4));
    assert_eq!((s.core(4).head().0, s.durable(4, 6)), (5, None));
    for at in 1..4 {
        let alone = s.isolate(at);
        s.pass(Duration::from_secs(2));
        s.release(alone);
        s.pass(Duration::from_millis(500));
    }
    assert!(s.core(4).is_primary() && s.view(4) == 4, "{}", s.describe(4));
    s.submit(4, client, 6, b"six");
    s.run();
    assert_eq!(s.reply(client, 6), Some(b"5".to_vec()), "{:?}", s.outcomes(client, 6));
    s.settle();
    for at in 0..5 {
        assert_eq!(s.executed(at), ["w", "w", "w", "w", "six"]);
    }
}

/// CL-05, D14 a: two lives of a client end, and a request of the second one comes late. The third life never
/// hears the reply to it, also when it uses a number twice.
#[test]
fn cl_05_d14_a_a_later_life_never_receives_the_reply_of_an_earlier_one() {
    let mut s = Script::new(3);
    let life_1 = s.register(0);
    for number in 1..=5 {
        s.submit(0, life_1, number, b"w");
        s.run();
    }
    let lost = s.lose(|f| f.name() == "Requests");
    s.submit(0, life_1, 6, b"A");
    s.run();
    s.forget(lost);
    let life_2 = s.register(0);
    let delayed = s.hold(|f| f.name() == "Requests");
    s.submit(0, life_2, 1, b"B");
    s.run();
    let late = s.held(delayed);
    s.forget(delayed);
    let life_3 = s.register(0);
    assert!(s.session(life_1) != s.session(life_2) && s.session(life_2) != s.session(life_3));
    s.submit(0, life_3, 1, b"C");
    s.run();
    assert_eq!(late.len(), 1);
    for flight in late {
        s.inject(flight);
    }
    s.run();
    assert_eq!(s.outcomes(life_2, 1), [replied("7")]);
    s.submit(0, life_3, 1, b"D");
    s.run();
    assert_eq!(s.outcomes(life_3, 1), [replied("6"), refused(Refusal::Conflict)]);
    s.settle();
    assert_eq!(s.executed(2), ["w", "w", "w", "w", "w", "C", "B"]);
}

/// CL-06: a copy of request 5 comes after 6 is committed, a copy of 6 much later.
#[test]
fn cl_06_late_copies_execute_nothing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=6 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    s.submit(0, client, 5, b"w");
    s.run();
    assert_eq!(s.outcomes(client, 5), [replied("5"), refused(Refusal::BelowFloor)]);
    s.pass(Duration::from_secs(60));
    for at in 0..3 {
        s.submit(at, client, 6, b"w");
    }
    s.run();
    assert_eq!(s.outcomes(client, 6), [replied("6"), replied("6"), replied("6"), replied("6")]);
    assert_eq!(s.core(0).head().0, 7);
    s.settle();
    assert_eq!(s.executed(2).len(), 6);
}

/// CL-07: one client more than there are places. The one that was idle longest is evicted, everywhere, is told
/// so by every primary, and executes nothing more.
#[test]
fn cl_07_an_evicted_client_is_told_and_executes_nothing() {
    let mut membership = Membership::new((0..3).map(|id| format!("replica {id}"))).expect("three members");
    membership.constants.sessions_max = 3;
    membership.constants.session_idle_min = 2;
    let mut s = Script::with_membership(membership);
    let evicted = s.register(0);
    s.submit(0, evicted, 1, b"acknowledged");
    s.run();
    for _ in 0..3 {
        s.register(0);
    }
    let head = s.core(0).head();
    for number in 1..=2 {
        s.submit(0, evicted, number, b"acknowledged");
    }
    s.run();
    s.crash(0);
    s.pass(Duration::from_secs(2));
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    s.submit(1, evicted, 1, b"acknowledged");
    s.run();
    let gone = refused(Refusal::Evicted);
    assert_eq!(s.outcomes(evicted, 1), [replied("1"), gone.clone(), gone.clone()]);
    assert_eq!(s.outcomes(evicted, 2), [gone]);
    assert_eq!(s.core(1).head(), head);
    s.settle();
    for at in 0..3 {
        assert_eq!((s.core(at).sessions(), s.executed(at)), (3, vec!["acknowledged".to_owned()]));
    }
}

/// CL-11: ten seconds without any quorum, during which a client gives up. Its request is executed once or not
/// at all, alike everywhere; and once when the same number is sent again.
#[test]
fn cl_11_a_request_of_an_outage_is_executed_at_most_once() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        s.cut(a, b);
    }
    s.submit(0, client, 1, b"once");
    s.pass(Duration::from_secs(10));
    assert_eq!(s.reply(client, 1), None);
    assert!((0..3).all(|at| s.executed(at).is_empty()));
    s.settle();
    assert!(s.executed(0).len() <= 1, "{:?}", s.executed(0));
    for at in 0..3 {
        s.submit(at, client, 1, b"once");
    }
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()), "{:?}", s.outcomes(client, 1));
    s.settle();
    assert_eq!(s.executed(2), ["once"]);
}

/// CL-12, D28: a replica alone is in a view that never started. It tells clients only the last one that did,
/// and the others serve the retry.
#[test]
fn cl_12_d28_clients_hear_of_started_views_only() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    s.inject(Script::flight(1, 2, Message::StartViewChange { view: Script::view_of(2), life: s.life(1) }));
    s.run();
    assert!(s.view(2) == 2 && !s.is_normal(2), "{}", s.describe(2));
    let told = s.hold(|f| f.from == Peer::Replica(ReplicaId(2)) && f.name() == "Replies");
    s.submit(2, client, 1, b"w");
    s.run();
    let held = s.held(told);
    let Some(Message::Replies { view, replies }) = held.first().map(|f| &f.message) else { panic!("r2 answers") };
    assert_eq!((view.number, &replies[0].outcome), (0, &Outcome::Busy(Busy::NoPrimary)));
    s.release(told);
    s.submit(0, client, 1, b"w");
    s.run();
    assert_eq!((s.reply(client, 1), s.view(0)), (Some(b"1".to_vec()), 0));
    s.settle();
    assert_eq!(s.executed(2), ["w"]);
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

/// CL-15: the longest and the shortest request are executed. Longer ones, undecodable ones and those beyond the
/// window are refused in words and leave no trace.
#[test]
fn cl_15_requests_out_of_bounds_are_refused_and_not_logged() {
    let mut membership = Membership::new((0..3).map(|id| format!("replica {id}"))).expect("three members");
    membership.constants.request_max = 100;
    let mut s = Script::with_membership(membership);
    let client = s.register(0);
    s.submit(0, client, 1, &[b'x'; 100]);
    s.submit(0, client, 2, b"");
    s.run();
    assert_eq!((s.reply(client, 1), s.reply(client, 2)), (Some(b"1".to_vec()), Some(b"2".to_vec())));
    let head = s.core(0).head();
    s.submit(0, client, 3, &[b'x'; 101]);
    s.submit(1, client, 4, &[b'x'; 101]);
    s.submit(0, client, 5, b"undecodable");
    s.submit_with_floor(0, client, 2 + 1024, 2, b"x");
    s.run();
    assert_eq!(s.outcomes(client, 3), [refused(Refusal::TooLarge)]);
    assert_eq!(s.outcomes(client, 4), [refused(Refusal::TooLarge)], "through a backup");
    assert_eq!(s.outcomes(client, 5), [refused(Refusal::Undecodable)]);
    assert_eq!(s.outcomes(client, 2 + 1024), [refused(Refusal::BeyondWindow)]);
    assert_eq!(s.core(0).head(), head);
    s.submit(0, client, 3, b"shorter");
    s.run();
    assert_eq!(s.reply(client, 3), Some(b"3".to_vec()));
    s.settle();
    assert_eq!(s.executed(2), ["x".repeat(100), String::new(), "shorter".to_owned()]);
}
