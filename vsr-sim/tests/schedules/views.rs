//! View changes and restarts.

use std::time::Duration;

use vsr::Message;
use vsr_sim::script::Script;

/// VC-01, VC-02: one crash of three, two of five.
#[test]
fn vc_01_vc_02_a_minority_dies_and_nothing_acknowledged_is_lost() {
    for (n, dead) in [(3, vec![0]), (5, vec![0, 1])] {
        let mut s = Script::new(n);
        let client = s.register(0);
        for number in 1..=5 {
            s.submit(0, client, number, b"w");
            s.run();
        }
        for &at in &dead {
            s.crash(at);
        }
        s.pass(vsr::Timing::default().suspect * 4);
        let alive = dead.len();
        assert!(s.is_normal(alive) && s.view(alive) as usize >= dead.len(), "{}", s.describe(alive));
        assert_eq!(s.executed(alive).len(), 5);
        s.settle();
    }
}

/// VC-03, D03 a: the `StartView` of an older view arrives late.
#[test]
fn vc_03_d03_a_late_start_view_is_ignored() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let late = s.hold(|f| f.is(1, 2) && matches!(&f.message, Message::StartView(start) if start.view.number == 1));
    s.crash(0);
    s.pass(Duration::from_secs(2));
    s.restart(0);
    s.pass(Duration::from_secs(4));
    // Whatever view they are in now, something is acknowledged in it.
    for at in 0..3 {
        s.submit(at, client, 1, b"acknowledged");
    }
    s.pass(Duration::from_secs(2));
    assert!(s.reply(client, 1).is_some());
    let (view, head) = (s.view(2), s.core(2).head());
    for flight in s.held(late) {
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.view(2), s.core(2).head()), (view, head));
    s.settle();
    assert_eq!(s.executed(2), ["acknowledged"]);
}

/// VC-07, D05: a vote for the view that has started changes nothing.
#[test]
fn vc_07_d05_a_late_vote_does_not_disturb_its_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.crash(0);
    s.pass(Duration::from_secs(2));
    s.restart(0);
    s.pass(Duration::from_secs(2));
    let view = s.core(2).view();
    let entered = s.views_entered();
    for _ in 0..2 {
        s.inject(Script::flight(0, 2, Message::StartViewChange { view }));
    }
    s.run();
    assert!(s.is_normal(2));
    let primary = view.number as usize % 3;
    s.submit(primary, client, 1, b"w");
    s.run();
    assert!(s.reply(client, 1).is_some());
    assert_eq!(s.views_entered(), entered);
}

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
        s.pass(vsr::Timing::default().suspect * 2);
        assert!((0..n).any(|at| s.core(at).is_primary()));
        s.settle();
        assert_eq!(s.executed(n - 1).len(), 5);
    }
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

/// Found by review: a stale slot at or below the commit number made a new primary truncate ops above it that
/// were acknowledged, and of which it held the last copy.
#[test]
fn a_stale_slot_below_the_commit_number_truncates_nothing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    // r2 holds ops 2 to 4 that nobody else has: it was primary of view 2 for a moment.
    s.crash(0);
    s.pass(Duration::from_secs(2));
    s.crash(1);
    s.restart(0);
    s.pass(Duration::from_secs(3));
    let primary = (0..3).filter(|&at| at != 1).find(|&at| s.core(at).is_primary()).expect("a primary");
    assert_eq!(primary, 2, "{}", s.describe(2));
    s.isolate(2);
    for number in 10..13 {
        s.submit_with_floor(2, client, number, 1, b"stale");
        s.run();
    }
    let head = s.core(2).head();
    // r0 and r1 go on without it: more ops, committed.
    s.restart(1);
    s.pass(Duration::from_secs(4));
    let leader = (0..2).find(|&at| s.core(at).is_primary()).expect("a primary");
    let other = 1 - leader;
    let told = s.lose(move |f| f.is(leader, other) && f.name() == "Commit");
    for number in 1..=6 {
        s.submit_with_floor(leader, client, number, 1, b"good");
        s.run();
        assert!(s.reply(client, number).is_some());
    }
    assert!(s.core(leader).head() > head);
    // r2 learns only of the newest ops, and acknowledges them; the other backup does not get them.
    s.heal();
    s.lose(move |f| f.is(leader, other));
    s.lose(|f| f.from == vsr::Peer::Replica(vsr::ReplicaId(2)) && f.name() == "RequestHeaders");
    s.forget(told);
    s.pass(Duration::from_millis(150));
    for number in 7..=8 {
        s.submit_with_floor(leader, client, number, 1, b"good");
        s.run();
    }
    let acknowledged = (1..=8).filter(|&number| s.reply(client, number).is_some()).count();
    // The primary dies for good; r2 and the other one must keep all of it.
    s.crash(leader);
    s.heal();
    s.pass(Duration::from_secs(10));
    assert!(s.executed(2).iter().filter(|command| *command == "good").count() >= acknowledged, "{}", s.describe(2));
    s.settle();
}
