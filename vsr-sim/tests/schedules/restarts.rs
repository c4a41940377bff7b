//! The schedules of `docs/hazards.md` that are about restarts and the network.

use std::time::Duration;

use vsr::{Message, OpNumber, Peer, Timing};
use vsr_sim::Damage;
use vsr_sim::script::{Flight, Script};

use crate::support::*;

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
    assert!(passed <= Timing::default().view_change * 2, "{passed:?}");
    let primary = leader(&s, &[0, 1, 2, 3, 4]);
    write(&mut s, primary, client, 4, b"w");
    assert_eq!(s.reply(client, 4), Some(b"4".to_vec()));
    s.settle();
    assert_eq!(s.executed(4).len(), 4);
}

/// RC-03 (D08 with disks): whoever has sent a `DoViewChange` never returns to the view before it, however often it
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

/// RC-05, hole 10: a replica whose log is unreadable votes, and its `DoViewChange` claims nothing: no view starts
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
        assert!(!dvc.head_certain && dvc.facts.iter().all(|fact| !fact.nack), "{dvc:?}");
    }
    assert!(!s.core(1).is_primary() && !s.core(2).is_primary(), "{:?}", describe(&s));
    s.settle();
    assert_eq!(s.executed(1), ["x"]);
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

/// NW-17: a message that reaches another replica than the one it is for changes nothing. (Messages name no
/// sender: who speaks is who has shaken hands.)
#[test]
fn nw_17_a_misrouted_message_changes_nothing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let seen = watch(&mut s, between_replicas);
    write(&mut s, 0, client, 1, b"a");
    s.pass(ms(300));
    s.crash(0);
    s.restart(0);
    s.pass(ms(300));
    let flights = seen.borrow().clone();
    for kind in ["Prepare", "PrepareOk", "Commit", "CommitOk", "DoViewChange", "StartView", "Ping"] {
        assert!(flights.iter().any(|f| f.name() == kind), "there is no {kind}");
    }
    let before = describe(&s);
    for Flight { from, to, message } in flights {
        let (Peer::Replica(from_id), Peer::Replica(to_id)) = (from, to) else { continue };
        let wrong = replica(3 - usize::from(from_id.0) - usize::from(to_id.0));
        s.inject(Flight { from, to: wrong, message });
    }
    s.run();
    assert_eq!(describe(&s), before);
    s.settle();
    assert_eq!(s.executed(2), ["a"]);
}
