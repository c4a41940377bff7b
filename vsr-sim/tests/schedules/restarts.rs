//! Restarts: what a crash leaves behind, and what a replica promises, takes and denies after it.

use std::time::Duration;

use vsr::Timing;
use vsr::protocol::{DoViewChange, Life, Message, OpNumber, StartView};
use vsr_sim::Damage;
use vsr_sim::script::Script;

use crate::support::{
    crash_at, depose, describe, eventually, leader, leave_an_op_at_r2, log_of, ms, next_view, replied, until, watch,
    write,
};

/// RC-01: power fails everywhere at once.
#[test]
fn rc_01_d10_a_whole_cluster_restarts() {
    for n in [3, 5] {
        let mut s = Script::new(n);
        let client = s.register(0);
        for number in 1..=5 {
            s.submit(0, client, number, b"w");
            s.run();
        }
        for at in 0..n {
            s.crash(at);
        }
        for at in 0..n {
            s.restart(at);
        }
        s.pass(vsr::Timing::default().primary_timeout * 2);
        assert!((0..n).any(|at| s.core(at).is_primary()));
        s.settle();
        assert_eq!(s.executed(n - 1).len(), 5);
    }
}

/// RC-02: a majority restarts while the rest stands by.
#[test]
fn rc_02_a_majority_restarts() {
    let mut s = Script::new(5);
    let client = s.register(0);
    for number in 1..=3 {
        write(&mut s, 0, client, number, b"w");
    }
    for at in 0..3 {
        s.crash(at);
    }
    s.pass(Duration::from_secs(1));
    assert!(!s.core(3).is_primary() && !s.core(4).is_primary(), "{}", s.describe(3));
    for at in 0..3 {
        s.restart(at);
    }
    let passed = until(&mut s, "a primary", |s| (0..5).any(|at| s.core(at).is_primary()));
    assert!(passed <= Timing::default().view_change_timeout * 2, "{passed:?}");
    let primary = leader(&s, &[0, 1, 2, 3, 4]);
    write(&mut s, primary, client, 4, b"w");
    assert_eq!(s.reply(client, 4), Some(b"4".to_vec()));
    s.settle();
    assert_eq!(s.executed(4).len(), 4);
}

/// F5: power fails everywhere while all disks write. Nobody's head is uncertain by that, and the cluster goes on.
#[test]
fn f5_a_power_cut_of_the_whole_cluster_leaves_certain_heads() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.submit(0, client, 1, b"a");
    s.run();
    for at in 0..3 {
        s.hold_disk(at);
    }
    for number in 2..=4 {
        s.submit_with_floor(0, client, number, 2, b"w");
        s.run();
    }
    assert_eq!(s.reply(client, 2), None);
    s.crash(0);
    s.crash_after_write(1);
    s.crash(2);
    for at in 0..3 {
        s.release_disk(at);
        s.restart(at);
    }
    s.run();
    assert!((0..3).all(|at| s.disk(at).state().head_certain));
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    assert_eq!(s.core(1).head().0, 3, "what one disk held is kept");
    for number in 2..=4 {
        s.submit_with_floor(1, client, number, 2, b"w");
    }
    s.pass(ms(500));
    assert!((2..=4).all(|number| s.reply(client, number).is_some()), "{}", s.describe(1));
    s.settle();
    assert_eq!(s.executed(0), ["a", "w", "w", "w"]);
}

/// F5: of two replicas that have both restarted, one has an uncertain head: it votes, and takes the other's log.
#[test]
fn f5_two_replicas_go_on_when_one_of_them_has_an_uncertain_head() {
    let mut s = Script::new(2);
    let client = s.register(0);
    for number in 1..=3 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    s.crash(0);
    s.crash(1);
    s.rot(1, 4, Damage::Both);
    s.restart(0);
    s.restart(1);
    s.run();
    assert!(!s.disk(1).state().head_certain && s.view(1) == 1, "r1 is to lead view 1, and must not");
    s.pass(Duration::from_secs(4));
    assert!(s.core(0).is_primary(), "{}", s.describe(0));
    assert_eq!(s.executed(0).len(), 3);
    s.settle();
    assert!(s.disk(1).state().head_certain && s.disk(1).intact(OpNumber(4)).is_some());
    assert_eq!(s.executed(1).len(), 3);
}

/// RC-03 (D08 with disks): a replica that has sent a `DoViewChange` never returns to the view before it, however often it
/// restarts; so an old one of it harms nothing.
#[test]
fn rc_03_a_promise_survives_restarts() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let votes = s.hold(|f| f.name() == "StartViewChange");
    let promises = s.hold(|f| f.name() == "DoViewChange");
    // What an earlier life has said counts as long as nobody has heard of the next.
    let unheard = s.lose(|f| (f.is(1, 2) || f.is(2, 1)) && f.name() == "Ping");
    s.peer_down(1, 0, true);
    s.peer_down(2, 0, true);
    s.run();
    let vote = s.held(votes).into_iter().find(|f| f.is(1, 2)).expect("r1 votes");
    s.crash(1);
    s.restart(1);
    s.inject(vote);
    s.run();
    assert_eq!((s.view(1), s.view(2)), (0, 1), "{:?}", describe(&s));
    s.crash(2);
    s.restart(2);
    s.run();
    assert_eq!(s.view(2), 1);
    let missed = s.hold(|f| f.is(0, 1) && f.name() == "Prepare");
    write(&mut s, 0, client, 1, b"x");
    assert_eq!(s.reply(client, 1), None, "r2 acknowledges nothing in view 0 any more");
    s.release(missed);
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    // What r2 promised before x reaches r1; r0 does not learn what comes of it.
    s.hold(|f| f.is(1, 0) && f.name() == "StartView");
    let promise = s.held(promises).into_iter().find(|f| f.is(2, 1)).expect("r2 has sent its DoViewChange");
    s.inject(promise);
    s.run();
    assert!(s.core(1).is_primary() && s.view(1) == 1, "{}", s.describe(1));
    s.forget(unheard);
    s.crash(2);
    s.restart(2);
    s.run();
    write(&mut s, 1, client, 2, b"y");
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.settle();
    assert_eq!(s.executed(0), ["x", "y"]);
}

/// D08: a replica that has sent a `DoViewChange` never operates in a lower view again, over restarts too: no op is
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
    write(&mut s, 0, client, 1, b"x");
    assert_eq!((s.view(0), s.core(0).head().0, s.core(0).commit().0), (0, 2, 1));
    assert!(s.outcomes(client, 1).is_empty());
    let old = s.held(delayed).into_iter().find(|f| f.is(2, 1)).expect("r2 has sent its log");
    s.inject(old);
    s.run();
    assert!(s.core(1).is_primary() && s.view(0) == 1, "{}", s.describe(1));
    s.heal();
    write(&mut s, 1, client, 1, b"x");
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.crash(2);
    s.restart(2);
    s.settle();
    assert_eq!(s.executed(2), ["x"]);
}

/// RC-05, H5-10: a replica whose log is unreadable votes, and its `DoViewChange` claims nothing: no view starts
/// without what was acknowledged.
#[test]
fn rc_05_an_unreadable_log_claims_nothing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.is(0, 1) && f.name() == "Prepare");
    write(&mut s, 0, client, 1, b"x");
    assert!(s.reply(client, 1).is_some());
    s.crash(2);
    s.crash(0);
    for op in 1..=2 {
        s.rot(2, op, Damage::Both);
    }
    s.heal();
    s.restart(2);
    let promises = watch(&mut s, |f| f.is(2, 1) && f.name() == "DoViewChange");
    s.peer_down(1, 0, true);
    s.peer_down(2, 0, true);
    s.pass(Duration::from_secs(3));
    assert!(!promises.borrow().is_empty(), "it takes part: {}", s.describe(2));
    for flight in promises.borrow().iter() {
        let Message::DoViewChange(dvc) = &flight.message else { continue };
        assert!(!dvc.head_certain && dvc.evidence.iter().all(|evidence| !evidence.nack), "{dvc:?}");
    }
    assert!(!s.core(1).is_primary() && !s.core(2).is_primary(), "{:?}", describe(&s));
    s.settle();
    assert_eq!(s.executed(1), ["x"]);
}

/// D11: a replica whose log is unreadable sends no `DoViewChange` that claims an empty log, and what it has
/// acknowledged survives.
#[test]
fn d11_an_unreadable_log_is_not_claimed_to_be_empty() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(1);
    write(&mut s, 0, client, 1, b"x");
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
        assert!(dvc.evidence.iter().all(|evidence| !evidence.nack), "{:?}", dvc.evidence);
    }
    s.release(logs);
    s.pass(Duration::from_secs(2));
    assert!(!s.is_normal(1) && !s.is_normal(2), "no view starts without x: {}", s.describe(1));
    s.settle();
    assert_eq!(s.executed(1), ["x"]);
    assert_eq!(s.executed(2), ["x"]);
}

/// RC-07: a replica with an uncertain head takes no `StartView` that it did not ask for in this life, and nacks
/// nothing that it may have acknowledged.
#[test]
fn rc_07_an_old_start_view_does_not_hide_a_damaged_head() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"b");
    let old = s.hold(|f| f.is(0, 1) && f.name() == "StartView");
    s.inject(Script::flight(1, 0, Message::RequestStartView { view: Script::view_of(0), nonce: 7 }));
    s.run();
    assert!(matches!(&s.held(old)[0].message, Message::StartView(start) if start.head.0 == 2));
    s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    write(&mut s, 0, client, 2, b"x");
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()), "r0 and r1 have op 3");
    s.crash(1);
    s.rot(1, 3, Damage::Both);
    s.restart(1);
    s.crash(0);
    s.release(old);
    s.run();
    assert_eq!(s.core(1).head().0, 3);
    assert!(s.core(1).explain().contains("damaged"), "{}", s.describe(1));
    s.pass(Duration::from_secs(3));
    assert!(!s.core(1).is_primary() && !s.core(2).is_primary(), "{:?}", describe(&s));
    s.settle();
    assert_eq!(s.executed(2), ["b", "x"]);
}

/// D15, TigerBeetle PR 828: a replica that lost the end of its log takes no `StartView` that it has not asked for in this life.
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
        write(&mut s, 1, client, number, b"w");
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
    eventually(&mut s, |s| s.view(2) >= 3);
    s.pass(Duration::from_millis(300));
    assert!(!s.is_normal(0) && !s.is_normal(2), "op 3 is not nacked: {}", s.describe(0));
    s.settle();
    assert_eq!(s.executed(0), ["w", "w"]);
}

/// RC-09: the primary of a view that was left long ago answers a damaged replica: the answer is not taken.
#[test]
fn rc_09_a_deposed_primary_helps_nobody_back_into_its_view() {
    let mut s = Script::new(5);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    let island = s.isolate(0);
    write(&mut s, 0, client, 2, b"stale");
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    for at in 1..3 {
        s.crash(at);
        s.restart(at);
        s.run();
    }
    assert!(s.core(3).is_primary() && s.view(3) == 3, "{:?}", describe(&s));
    s.submit_with_floor(3, client, 3, 2, b"b");
    s.run();
    assert_eq!(s.reply(client, 3), Some(b"2".to_vec()));
    s.crash(4);
    s.rot(4, 3, Damage::Both);
    s.restart(4);
    s.release(island);
    for at in 1..4 {
        s.cut(0, at);
    }
    let asks = s.hold(|f| f.is(4, 3) && f.name() == "RequestStartView");
    let answers = watch(&mut s, |f| f.is(0, 4) && f.name() == "StartView");
    s.pass(ms(100));
    let ask = s.held(asks).swap_remove(0);
    let Message::RequestStartView { nonce, .. } = ask.message else { panic!("it is held by its kind") };
    s.inject(Script::flight(4, 0, Message::RequestStartView { view: Script::view_of(0), nonce }));
    s.run();
    assert!(!answers.borrow().is_empty(), "r0 is primary of view 0 still: {}", s.describe(0));
    assert_eq!(s.view(4), 3);
    assert!(s.core(4).explain().contains("damaged"), "{}", s.describe(4));
    s.release(asks);
    s.run();
    assert!(!s.core(4).explain().contains("damaged"), "{}", s.describe(4));
    s.settle();
    assert_eq!(s.executed(4), ["a", "b"]);
}

/// D09: a replica that lost the end of its log takes the log of no view below its own, even if the deposed primary
/// answers the question that it has asked.
#[test]
fn d09_the_answer_of_a_deposed_primary_is_not_adopted() {
    let mut s = Script::new(5);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"w1");
    s.isolate(0);
    depose(&mut s, &[1, 2, 3, 4]);
    write(&mut s, 1, client, 2, b"w2");
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
    let start = StartView { view, commit, head, headers, nonce, past: vsr::protocol::Past::default() };
    s.inject(Script::flight(0, 4, Message::StartView(start)));
    s.run();
    assert_eq!((s.view(4), s.core(4).log_view().number, s.core(4).head().0), (1, 1, 3));
    assert!(!s.disk(4).state().head_certain, "it goes on waiting");
    s.settle();
    assert!(s.disk(4).state().head_certain, "it has asked again");
    assert_eq!(s.executed(4), ["w1", "w2"]);
}

/// RC-11: a tail that was written in an older view and never committed is replaced, not kept for its number.
#[test]
fn rc_11_a_persisted_tail_of_an_older_view_is_replaced() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for (number, command) in (1..).zip([b"2", b"3", b"4"]) {
        write(&mut s, 0, client, number, command);
    }
    s.hold_disk(0);
    s.lose(|f| f.is(0, 1) && f.name() == "Prepare");
    write(&mut s, 0, client, 4, b"stale");
    let stale = s.durable(2, 5);
    assert!(stale.is_some() && s.reply(client, 4).is_none());
    s.crash(0);
    s.crash(2);
    s.release_disk(0);
    s.heal();
    s.restart(0);
    s.run();
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    for number in 5..=9_u64 {
        if number == 7 {
            s.restart(2);
        }
        s.submit_with_floor(1, client, number, 4, number.to_string().as_bytes());
        s.run();
        assert!(s.reply(client, number).is_some());
    }
    s.pass(ms(500));
    assert!(s.durable(2, 5) == s.durable(1, 5) && s.durable(2, 5) != stale, "{}", s.describe(2));
    assert_eq!(s.executed(2), ["2", "3", "4", "5", "6", "7", "8", "9"]);
    s.settle();
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
        write(&mut s, 1, client, number, command);
        assert!(s.reply(client, number).is_some(), "{}", s.describe(1));
    }
    let stale = s.durable(2, 2);
    assert!(stale.is_some() && stale != s.durable(1, 2), "r2 still has A where B is committed");
    s.restart(2);
    write(&mut s, 1, client, 5, b"E");
    s.settle();
    assert_eq!(s.executed(2), ["B", "C", "D", "E"]);
    assert_eq!(s.durable(2, 2), s.durable(1, 2));
}

/// RC-12: three crashes, one inside another, at the writes of a restart with repair: each start goes on from what
/// is durable.
#[test]
fn rc_12_a_restart_may_crash_at_any_write() {
    let mut complete = 0;
    for points in 0..64_usize {
        let mut s = Script::new(3);
        let client = s.register(0);
        write(&mut s, 0, client, 1, b"a");
        write(&mut s, 0, client, 2, b"b");
        s.crash(1);
        write(&mut s, 0, client, 3, b"c");
        write(&mut s, 0, client, 4, b"d");
        s.rot(1, 2, Damage::Body);
        s.restart(1);
        let crashes = [points % 4, points / 4 % 4, points / 16];
        complete += usize::from(crashes.into_iter().all(|point| crash_at(&mut s, 1, point, 60)));
        s.settle();
        assert_eq!(s.executed(1), ["a", "b", "c", "d"], "{crashes:?}");
        assert!(s.disk(1).intact(OpNumber(2)).is_some(), "{crashes:?}: op 2 is repaired");
    }
    assert!(complete >= 32, "{complete} of 64 have crashed three times");
}

/// F11, M19: a replica that restarts with log_view < view stays in that view, sends the same `DoViewChange` again, and takes
/// the commit number from nothing but the durable record.
#[test]
fn f11_a_restart_in_a_view_change_goes_on_with_it() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.submit(0, client, 1, b"a");
    s.run();
    let logs = s.hold(|f| f.is(2, 0) && f.name() == "DoViewChange");
    s.lose(|f| f.is(1, 2) && f.name() == "StartView");
    next_view(&mut s);
    for life in 1..=3 {
        assert_eq!((s.view(2), s.core(2).log_view().number, s.is_normal(2)), (1, 0, false), "life {life}");
        assert_eq!(s.core(2).commit(), s.disk(2).state().commit, "life {life}");
        // Another life says the same, and that it is another one.
        let fixed = |dvc: DoViewChange| DoViewChange { life: Life::default(), known: Vec::new(), ..dvc };
        let said: Vec<DoViewChange> = s.held(logs).into_iter().filter_map(log_of).map(fixed).collect();
        assert_eq!((said.len(), &said[life - 1]), (life, &said[0]));
        s.crash(2);
        s.restart(2);
        s.run();
    }
    s.settle();
    assert_eq!(s.executed(2), ["a"]);
}

/// F19: a durable head names a commit number that is near: after a restart of all, a `DoViewChange` carries one
/// pipeline, however long the log is.
#[test]
fn f19_a_do_view_change_after_a_restart_carries_one_pipeline() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=60 {
        s.submit_with_floor(0, client, number, 1, b"w");
        s.run();
    }
    let acks = s.hold(|f| f.name() == "PrepareOk");
    for number in 61..=160 {
        s.submit_with_floor(0, client, number, 1, b"w");
        s.run();
    }
    assert_eq!((s.core(0).commit().0, s.core(0).head().0), (61, 93));
    for at in 0..3 {
        s.crash(at);
    }
    s.forget(acks);
    let logs = s.hold(|f| f.name() == "DoViewChange");
    for at in 0..3 {
        s.restart(at);
    }
    s.run();
    for flight in s.held(logs) {
        s.inject(flight); // those of r0, which was the primary
    }
    s.run();
    let said: Vec<DoViewChange> = s.held(logs).into_iter().filter_map(log_of).collect();
    assert_eq!(said.len(), 6);
    for dvc in said {
        assert_eq!((dvc.commit.0, dvc.head.0, dvc.evidence.len()), (61, 93, 32));
        assert!(dvc.headers.len() <= 33, "{} headers", dvc.headers.len());
    }
    s.release(logs);
    s.settle();
    assert_eq!(s.executed(1).len(), 92);
}

/// D31: a restarted primary does not resume its view. Its `Prepare` left before it was durable there.
#[test]
fn d31_a_restarted_primary_moves_to_the_next_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(0);
    let to_2 = s.cut(0, 2);
    s.submit(0, client, 1, b"A");
    s.run();
    assert!(s.durable(1, 2).is_some(), "r1 has acknowledged A");
    s.crash(0);
    s.release(to_2);
    s.release_disk(0);
    s.restart(0);
    assert!(s.view(0) > 0, "it never resumes as primary of view 0");
    s.pass(Duration::from_secs(3));
    s.settle();
    assert_eq!(s.executed(2), ["A"]);
}

/// NO-12: a cluster of one crashes at any two of its writes; it is never normal before its new view is durable.
#[test]
fn no_12_a_cluster_of_one_loses_nothing_wherever_it_crashes() {
    let mut crashed_twice = 0;
    for point in 0..48_usize {
        let (at_write, after_write) = ([point % 3, point / 3 % 4], [point / 12 % 2 == 1, point / 24 == 1]);
        let mut s = Script::new(1);
        let client = s.register(0);
        s.hold_disk(0);
        let (mut writes, mut crashes) = (0, 0);
        // Each request is sent until it is certain to be answered: a crash may have taken it, or its answer.
        for number in [1, 1, 1, 2, 2, 2, 3, 3, 3] {
            write(&mut s, 0, client, number, number.to_string().as_bytes());
            while s.disk(0).is_writing() {
                if crashes < 2 && writes == at_write[crashes] {
                    if after_write[crashes] {
                        s.crash_after_write(0);
                    } else {
                        s.crash(0);
                    }
                    s.restart(0);
                    assert!(!s.is_normal(0), "its view is not durable yet");
                    (writes, crashes) = (0, crashes + 1);
                } else {
                    s.write_once(0);
                    s.run();
                    writes += 1;
                }
            }
            let acknowledged = (1..=number).filter(|&number| s.reply(client, number).is_some()).count();
            assert!(s.executed(0).len() >= acknowledged, "{point}: {}", s.describe(0));
        }
        crashed_twice += usize::from(crashes == 2);
        assert!((1..=3).all(|number| s.reply(client, number) == Some(number.to_string().into_bytes())));
        s.settle();
        assert_eq!(s.executed(0), ["1", "2", "3"], "{point}");
    }
    assert!(crashed_twice >= 32, "{crashed_twice} of 48 have crashed twice");
}

/// D15, TigerBeetle PR 650: a cluster of one is not in normal operation before the view that it has moved to is durable.
#[test]
fn d15_a_a_cluster_of_one_waits_for_its_durable_view() {
    let mut s = Script::new(1);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.crash(0);
    s.hold_disk(0);
    s.restart(0);
    write(&mut s, 0, client, 2, b"b");
    assert_eq!((s.view(0), s.disk(0).state().view.number, s.is_normal(0)), (1, 0, false));
    assert!(s.outcomes(client, 2).is_empty());
    s.crash(0);
    s.release_disk(0);
    s.restart(0);
    s.run();
    write(&mut s, 0, client, 2, b"b");
    assert_eq!(s.outcomes(client, 2), [replied(b"2")]);
    s.crash(0);
    s.settle();
    assert_eq!(s.executed(0), ["a", "b"]);
}

/// F10: a cluster of one obeys its own durability: nothing is answered in a view that is not on its disk.
#[test]
fn f10_a_cluster_of_one_is_not_normal_before_its_view_is_durable() {
    let mut s = Script::new(1);
    let client = s.register(0);
    s.submit(0, client, 1, b"a");
    s.run();
    s.crash(0);
    s.hold_disk(0);
    s.restart(0);
    s.submit(0, client, 2, b"b");
    s.query(0, 9);
    s.run();
    assert_eq!((s.disk(0).state().view.number, s.is_normal(0)), (0, false));
    assert!(s.outcomes(client, 2).is_empty() && s.answer(0, 9).is_none(), "nothing has left");
    s.write_once(0);
    s.run();
    assert_eq!((s.disk(0).state().view.number, s.disk(0).state().log_view.number), (1, 0));
    assert!(!s.is_normal(0), "log_view is not durable yet");
    s.crash(0);
    s.release_disk(0);
    s.restart(0);
    s.run();
    assert!(s.core(0).is_primary() && s.view(0) == 1, "{}", s.describe(0));
    s.submit(0, client, 2, b"b");
    s.run();
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.crash(0);
    s.settle();
    assert_eq!(s.executed(0), ["a", "b"]);
}
