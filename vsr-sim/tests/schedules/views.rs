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
        s.inject(Script::flight(0, 2, Message::StartViewChange { view, life: s.life(0) }));
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

/// Found by review: a stale slot at or below the commit number made a new primary truncate ops above it that were acknowledged, and of which it
/// held the last copy.
#[test]
fn a_stale_slot_below_the_commit_number_truncates_nothing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=3 {
        s.submit(0, client, number, b"old");
        s.run();
    }
    s.pass(Duration::from_millis(50));
    // Ops 5 to 7 of view 0 reach r2's disk only.
    s.hold_disk(0);
    s.cut(0, 1);
    s.lose(|f| f.is(2, 0));
    for number in 4..=6 {
        s.submit_with_floor(0, client, number, 4, b"stale");
        s.run();
    }
    assert!(s.durable(2, 7).is_some());
    s.crash(0);
    s.release_disk(0);
    s.heal();
    // View 1, without r2: ops 5 to 8, prepared before any of them is committed; r0 does not learn that they are.
    s.isolate(2);
    s.restart(0);
    s.pass(Duration::from_millis(100));
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    let acks = s.hold(|f| f.is(0, 1) && f.name() == "PrepareOk");
    for number in 11..=14 {
        s.submit_with_floor(1, client, number, 4, b"new");
        s.run();
    }
    s.lose(|f| f.is(1, 0));
    s.release(acks);
    s.run();
    assert_eq!((s.core(1).commit().0, s.core(0).commit().0), (8, 4));
    // r2 takes the StartView of view 1, whose headers begin above its stale slots, and asks for the others in vain.
    s.heal();
    s.lose(|f| f.is(1, 0) || f.name() == "RequestHeaders");
    s.pass(Duration::from_millis(150));
    for number in 15..=16 {
        s.submit_with_floor(1, client, number, 4, b"last copy");
        s.run();
        assert!(s.reply(client, number).is_some(), "{} {}", s.describe(1), s.describe(2));
    }
    s.crash(1);
    s.heal();
    let in_vain = s.lose(|f| f.name() == "RequestHeaders");
    s.peer_down(2, 1, true);
    s.peer_down(0, 1, true);
    s.run();
    s.pass(Duration::from_millis(100));
    s.release(in_vain);
    s.pass(Duration::from_secs(4));
    assert_eq!(s.executed(2).iter().filter(|command| *command == "last copy").count(), 2, "{}", s.describe(2));
    s.settle();
}

/// Found by the simulator (seed 5437 of its time): after a restart nobody could name the op at the commit number, as the chain down from the
/// head was broken by blanks that only the dead primary could fill.
#[test]
fn blanks_above_the_commit_number_do_not_hide_the_head_of_the_next_log() {
    let mut s = Script::new(4);
    let client = s.register(0);
    s.isolate(1);
    for number in 1..=3 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    s.pass(Duration::from_millis(50));
    let lost = s.lose(|f| {
        matches!(&f.message, Message::Prepare { entry, .. } if (5..=6).contains(&entry.header.op.0))
            || f.name() == "RequestHeaders"
    });
    for number in 4..=6 {
        s.submit_with_floor(0, client, number, 4, b"lost");
        s.run();
    }
    assert_eq!(s.core(2).head().0, 7, "{}", s.describe(2));
    for at in [0, 2, 3] {
        s.crash(at);
    }
    s.heal();
    s.forget(lost);
    s.restart(2);
    s.restart(3);
    s.pass(Duration::from_secs(5));
    for at in 1..4 {
        s.submit_with_floor(at, client, 4, 4, b"lost");
    }
    s.pass(Duration::from_secs(1));
    assert!(s.reply(client, 4).is_some(), "{} {} {}", s.describe(1), s.describe(2), s.describe(3));
    s.settle();
}
