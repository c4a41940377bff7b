//! View changes: who votes, who joins, what a `StartView` may replace, and what must be durable before it is said.

use std::time::Duration;

use vsr::Membership;
use vsr::protocol::{CommitNumber, Epoch, Message, OpNumber, Quorums, View};
use vsr_sim::script::{Flight, Script};

use crate::support::{crash_at, depose, describe, eventually, leader, ms, ping, replica, split, until, watch, write};

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
        s.pass(vsr::Timing::default().primary_timeout * 4);
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

/// D03 b: a repeated `StartView` of the present view replaces nothing.
#[test]
fn d03_b_a_repeated_start_view_does_not_drop_what_came_since() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let copies = s.hold(|f| f.is(1, 2) && f.name() == "StartView");
    s.crash(0);
    s.pass(Duration::from_millis(700));
    let start = s.held(copies);
    assert!(!start.is_empty(), "{}", s.describe(1));
    s.release(copies);
    s.run();
    assert!(s.is_normal(2), "{}", s.describe(2));
    for number in 1..=2 {
        s.submit(1, client, number, b"w");
        s.run();
        assert!(s.reply(client, number).is_some());
    }
    let head = s.core(2).head();
    for flight in start {
        s.inject(flight);
    }
    s.run();
    assert_eq!(s.core(2).head(), head);
    s.settle();
    assert_eq!(s.executed(0).len(), 2);
}

/// D06: the `StartView` of a primary that knows less to be committed does not turn the commit number back.
#[test]
fn d06_a_start_view_with_a_smaller_commit_number_executes_nothing_twice() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"w");
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

/// VC-08, H5-03: a `StartView` with a smaller commit number lowers nothing, and nothing is executed again.
#[test]
fn vc_08_a_smaller_commit_number_in_a_start_view_lowers_nothing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let starts = s.hold(|f| f.is(1, 0) && f.name() == "StartView");
    s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    write(&mut s, 0, client, 1, b"w");
    assert_eq!((s.core(0).commit().0, s.core(1).commit().0), (2, 1));
    s.isolate(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    let first = s.held(starts).swap_remove(0);
    assert!(matches!(&first.message, Message::StartView(start) if start.commit.0 == 1), "{first:?}");
    s.inject(first);
    s.run();
    assert_eq!((s.view(0), s.core(0).commit().0, s.core(0).applied().0), (1, 2, 2));
    assert_eq!(s.executed(0), ["w"]);
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
}

/// F13: a `StartView` of the view that is installed may extend the log, and never shortens it.
#[test]
fn f13_a_start_view_of_the_same_view_only_extends() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let ask = Message::RequestStartView { view: s.core(0).view(), nonce: 7 };
    let copies = s.hold(|f| f.is(0, 2) && f.name() == "StartView");
    s.inject(Script::flight(2, 0, ask.clone()));
    s.run();
    let old = s.held(copies);
    assert_eq!(old.len(), 1);
    s.forget(copies);
    for number in 1..=3 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    for flight in old {
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.core(2).head().0, s.durable(2, 4)), (4, s.durable(0, 4)));
    let lost = s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    for number in 4..=5 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    assert_eq!(s.core(2).head().0, 4, "r2 has missed two");
    s.forget(lost);
    s.inject(Script::flight(2, 0, ask));
    s.run();
    assert_eq!((s.core(2).head().0, s.views_entered()), (6, 0), "{}", s.describe(2));
    s.settle();
    assert_eq!(s.executed(2).len(), 5);
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
        s.inject(Script::flight(0, 2, Message::StartViewChange { leaving: view, life: s.life(0) }));
    }
    s.run();
    assert!(s.is_normal(2));
    let primary = view.number as usize % 3;
    s.submit(primary, client, 1, b"w");
    s.run();
    assert!(s.reply(client, 1).is_some());
    assert_eq!(s.views_entered(), entered);
}

/// VC-11: two primaries of different views meet when the third replica has gone: the older one follows, as views
/// travel in pings and heartbeats, and what it had committed is committed again.
#[test]
fn vc_11_the_duel_of_two_primaries_ends() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.crash(0);
    s.restart(0);
    s.run();
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    s.isolate(2);
    write(&mut s, 1, client, 2, b"b");
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    assert_eq!((s.core(0).commit().0, s.core(1).commit().0), (2, 3), "no Commit was told");
    s.heal();
    s.isolate(1);
    s.lose(|f| f.is(0, 2) && f.name() == "PrepareOk");
    until(&mut s, "view 2", |s| s.core(2).is_primary());
    assert!(s.core(1).is_primary() && s.view(1) == 1, "{}", s.describe(1));
    assert_eq!((s.view(2), s.core(2).commit().0, s.core(2).head().0), (2, 2, 3));
    s.heal();
    s.isolate(0);
    s.pass(Duration::from_secs(2));
    assert!(s.view(1) == s.view(2) && s.view(1) >= 2, "{:?}", describe(&s));
    assert_eq!((s.core(1).commit().0, s.core(2).commit().0), (3, 3));
    s.settle();
    assert_eq!(s.executed(0), ["a", "b"]);
}

/// VC-18: what a client sends into a minority is never acknowledged; after the heal its retries execute once.
#[test]
fn vc_18_writes_into_a_minority_are_replaced_and_execute_once_later() {
    let mut s = Script::new(5);
    let (stuck, other) = (s.register(0), s.register(0));
    s.pass(ms(100));
    split(&mut s, &[0, 1]);
    let commands = [b"a", b"b", b"c", b"d", b"e"];
    for (number, command) in (1..).zip(commands) {
        s.submit_with_floor(0, stuck, number, 1, command);
        s.run();
    }
    assert_eq!((s.core(0).head().0, s.core(1).head().0), (7, 7));
    until(&mut s, "a view of the majority", |s| (2..5).any(|at| s.core(at).is_primary()));
    let primary = leader(&s, &[2, 3, 4]);
    write(&mut s, primary, other, 1, b"x");
    assert_eq!(s.reply(other, 1), Some(b"1".to_vec()));
    s.heal();
    s.pass(Duration::from_secs(2));
    assert!((1..=5).all(|number| s.reply(stuck, number).is_none()));
    for at in 0..2 {
        assert_eq!((s.core(at).head().0, s.durable(at, 3)), (3, s.durable(2, 3)), "{}", s.describe(at));
    }
    let primary = leader(&s, &[0, 1, 2, 3, 4]);
    for (number, command) in (1..).zip(commands).chain((1..).zip(commands)) {
        s.submit_with_floor(primary, stuck, number, 1, command);
        s.run();
        assert_eq!(s.reply(stuck, number), Some((number + 1).to_string().into_bytes()));
    }
    s.settle();
    assert_eq!(s.executed(0), ["x", "a", "b", "c", "d", "e"]);
}

/// PR-01: what a primary had prepared before it was stopped arrives after it was replaced, ten times: it changes
/// nothing, and the requests in it execute once, when they are sent again.
#[test]
fn pr_01_what_a_stopped_primary_left_behind_is_harmless() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for round in 1..=10_u64 {
        let old = leader(&s, &[0, 1, 2]);
        let others: Vec<usize> = (0..3).filter(|&at| at != old).collect();
        let (first, second) = (2 * round - 1, 2 * round);
        let late = s.hold(move |f| f.from == replica(old) && f.name() == "Prepare");
        write(&mut s, old, client, first, first.to_string().as_bytes());
        assert!(s.reply(client, first).is_none() && !s.held(late).is_empty());
        s.pause(old, true);
        until(&mut s, "a new primary", |s| others.iter().any(|&at| s.core(at).is_primary()));
        let new = leader(&s, &others);
        s.submit_with_floor(new, client, second, first, second.to_string().as_bytes());
        s.run();
        assert!(s.reply(client, second).is_some(), "request {second}");
        s.pass(Duration::from_secs(10));
        s.pause(old, false);
        s.release(late);
        s.pass(Duration::from_secs(1));
        assert!(!s.core(old).is_primary() && s.core(new).is_primary(), "{}", s.describe(old));
        write(&mut s, new, client, first, first.to_string().as_bytes());
        assert!(s.reply(client, first).is_some(), "request {first}");
    }
    s.settle();
    let mut executed: Vec<u64> = s.executed(0).iter().map(|text| text.parse().expect("a number")).collect();
    executed.sort_unstable();
    assert_eq!(executed, (1..=20).collect::<Vec<u64>>());
}

/// The last op is acknowledged, a replication quorum and no more has it, and its primary has died.
fn without_a_primary(replicas: usize) -> Script {
    let mut s = Script::new(replicas);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    write(&mut s, 0, client, 2, b"b");
    let quorum = replicas / 2 + 1;
    s.lose(move |f| f.name() == "Prepare" && (quorum..replicas).any(|at| f.is(0, at)));
    write(&mut s, 0, client, 3, b"c");
    assert_eq!(s.reply(client, 3), Some(b"3".to_vec()));
    s.crash(0);
    s.heal();
    s
}

/// Crashes one replica at every point of a view change, and after each, one at every point of what follows. Says
/// how many runs that were.
fn two_crashes(replicas: usize, [first, second]: [usize; 2]) -> usize {
    let mut runs = 0;
    for point in 0..100 {
        for later_point in 0..100 {
            let mut s = without_a_primary(replicas);
            let crashed = crash_at(&mut s, first, point, 160);
            let crashed_again = crashed && crash_at(&mut s, second, later_point, 160);
            s.settle();
            assert_eq!(s.executed(0), ["a", "b", "c"], "r{first} at {point}, r{second} at {later_point}");
            if !crashed {
                return runs;
            }
            runs += 1;
            if !crashed_again {
                break;
            }
        }
    }
    panic!("the view change writes for ever");
}

/// VC-13: of three, one is dead, and one or two others crash at any two writes of the view change.
#[test]
fn vc_13_a_view_change_of_three_survives_crashes_at_any_two_writes() {
    for victims in [[1, 1], [1, 2], [2, 1], [2, 2]] {
        let runs = two_crashes(3, victims);
        assert!(runs >= 6, "{victims:?}: {runs} runs");
    }
}

/// VC-13 with five replicas.
#[test]
fn vc_13_a_view_change_of_five_survives_crashes_at_any_two_writes() {
    for victims in [[1, 1], [1, 3], [2, 2], [3, 3]] {
        let runs = two_crashes(5, victims);
        assert!(runs >= 6, "{victims:?}: {runs} runs");
    }
}

/// D04: a replica adopts exactly the higher view, and `DoViewChange`s of different views make no quorum.
#[test]
fn d04_do_view_changes_of_two_views_are_no_quorum() {
    let mut s = Script::new(5);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"w");
    let logs = s.hold(|f| f.name() == "DoViewChange");
    s.isolate(4);
    s.crash(0);
    depose(&mut s, &[1, 2, 3]);
    eventually(&mut s, |s| (1..4).all(|at| s.view(at) == 2));
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
        write(&mut s, 0, client, 1, b"x");
        assert!(s.reply(client, 1).is_some(), "two of {n} commit");
        s.pass(Duration::from_secs(3));
        assert!((0..n).all(|at| s.view(at) == 0 && s.is_normal(at)), "{} of {n} start no view", n - 2);
        write(&mut s, 0, client, 2, b"y");
        assert!(s.reply(client, 2).is_some(), "{}", s.describe(0));
        s.crash(0);
        s.heal();
        eventually(&mut s, |s| (1..n).all(|at| s.is_normal(at) && s.view(at) > 0));
        s.settle();
        assert_eq!(s.executed(2), ["x", "y"]);
    }
}

/// F20: views are ordered by their epoch first, and a message of another epoch moves nobody.
#[test]
fn f20_a_view_is_ordered_by_its_epoch_first() {
    let old = View { epoch: Epoch(0), number: 7 };
    let new = View { epoch: Epoch(1), number: 0 };
    assert!(new > old && new > old.next() && new.next() > new);
    let mut s = Script::new(3);
    let client = s.register(0);
    for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2)] {
        let ping = ping(&s, from, |ping| ping.view = new);
        let vote = Message::StartViewChange { leaving: new, life: s.life(from) };
        let beat = Message::Commit { view: new, commit: CommitNumber(1), head: OpNumber(1), number: 1 << 40 };
        for message in [ping, vote, beat] {
            s.inject(Script::flight(from, to, message));
        }
    }
    s.submit(0, client, 1, b"w");
    s.pass(Duration::from_secs(1));
    assert_eq!((s.reply(client, 1), s.views_entered()), (Some(b"1".to_vec()), 0));
    assert!((0..3).all(|at| s.core(at).view() == View::default()));
    s.settle();
}

/// M3: one replica is normal in a view whose primary is dead, the other is below: the vote of the first brings it up.
#[test]
fn m3_a_vote_for_a_higher_view_is_a_reason_to_join() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(0);
    s.pass(Duration::from_secs(1));
    assert_eq!((s.view(0), s.view(2), s.is_normal(2)), (0, 1, true), "{}", s.describe(2));
    s.crash(1);
    s.heal();
    s.pass(Duration::from_secs(4));
    assert!(s.marks("joined a view by a vote") > 0, "{}", s.describe(0));
    let primary = [0, 2].into_iter().find(|&at| s.core(at).is_primary()).expect("a primary");
    s.submit(primary, client, 1, b"w");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// H5-01: no `DoViewChange` leaves before the view is durable, no acknowledgement before log_view is.
#[test]
fn h5_01_nothing_is_promised_before_it_is_durable() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.crash(0);
    s.hold_disk(2);
    let said = watch(&mut s, |f| f.from == replica(2));
    // What it says again of the view that it is durably in is no promise of the next one.
    let of_view_1 = |f: &Flight| match &f.message {
        Message::PrepareOk { view, .. } | Message::CommitOk { view, .. } => view.number == 1,
        _ => true,
    };
    let has_said = |kinds: &[&str]| said.borrow().iter().any(|f| kinds.contains(&f.name()) && of_view_1(f));
    until(&mut s, "view 1", |s| s.view(2) == 1);
    assert_eq!(s.disk(2).state().view.number, 0);
    assert!(!has_said(&["DoViewChange", "PrepareOk", "CommitOk"]));
    // The record of what was committed may be on its way before it.
    for _ in 0..2 {
        if s.disk(2).state().view.number == 0 {
            s.write_once(2);
            s.run();
        }
    }
    assert!(has_said(&["DoViewChange"]) && s.disk(2).state().view.number == 1);
    // r1 has started the view, and r2 is writing that down.
    assert!(s.core(1).is_primary() && s.disk(2).is_writing(), "{:?}", describe(&s));
    assert_eq!(s.disk(2).state().log_view.number, 0);
    assert!(!has_said(&["PrepareOk", "CommitOk"]));
    s.write_once(2);
    s.run();
    assert!(has_said(&["PrepareOk"]) && s.disk(2).state().log_view.number == 1);
    s.settle();
    assert_eq!(s.executed(2), ["a"]);
}

/// D15, TigerBeetle PR 768: nothing is acknowledged in a view before it is durable that the log is that view's.
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
    write(&mut s, 1, client, 1, b"w");
    assert_eq!((s.core(2).log_view().number, s.disk(2).state().log_view.number), (1, 0));
    assert!(s.held(acks).is_empty(), "r2 has acknowledged what a crash would take back");
    s.crash(2);
    s.release_disk(2);
    s.restart(2);
    assert_eq!((s.view(2), s.core(2).log_view().number), (1, 0), "it crashed in the middle of the view change");
    s.release(acks);
    s.pass(Duration::from_millis(100));
    // Before r2 could acknowledge anything, r1 had not even applied what opened the session: it is asked again.
    write(&mut s, 1, client, 1, b"w");
    eventually(&mut s, |s| s.reply(client, 1).is_some());
    s.settle();
    assert_eq!(s.executed(2), ["w"]);
}

/// F10: a new primary prepares, confirms and answers nothing before it is durable that the log is that of its view.
#[test]
fn f10_a_new_primary_says_nothing_before_log_view_is_durable() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.submit(0, client, 1, b"a");
    s.run();
    s.hold_disk(1);
    let said = s.hold(|f| {
        let speaks = matches!(f.name(), "StartView" | "Prepare" | "PrepareOk" | "Commit" | "CommitOk" | "ReadIndexOk");
        f.from == replica(1) && (speaks || f.name() == "Replies")
    });
    // r1 hears of r0's new life by its DoViewChange only: that is no write of its own.
    s.lose(|f| f.is(0, 1) && f.name() == "Ping");
    s.crash(0);
    s.restart(0);
    s.run();
    s.write_once(1); // its view
    s.submit(1, client, 2, b"b");
    s.query(1, 9);
    s.inject(Script::flight(2, 1, Message::ReadIndex { nonce: 5 }));
    s.run();
    assert_eq!((s.core(1).log_view().number, s.disk(1).state().log_view.number), (1, 0), "{}", s.describe(1));
    assert!(s.held(said).is_empty(), "{:?}", s.held(said));
    s.crash(1);
    s.forget(said);
    s.release_disk(1);
    s.restart(1);
    assert_eq!((s.view(1), s.core(1).log_view().number, s.is_normal(1)), (1, 0, false), "it goes on where it was");
    s.pass(ms(200));
    assert!(s.core(1).is_primary() && s.view(1) == 1, "{}", s.describe(1));
    s.submit(1, client, 2, b"b");
    s.run();
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.settle();
    assert_eq!(s.executed(0), ["a", "b"]);
}

/// H5-13: what a view change sends does not grow with the log.
#[test]
fn h5_13_a_view_change_sends_the_end_of_the_log_only() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=200 {
        write(&mut s, 0, client, number, b"w");
    }
    let seen = watch(&mut s, |f| matches!(f.name(), "DoViewChange" | "StartView"));
    s.crash(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    s.restart(0);
    s.pass(ms(500));
    let headers = |f: &Flight| match &f.message {
        Message::DoViewChange(dvc) => dvc.headers.len(),
        Message::StartView(start) => start.headers.len(),
        _ => 0,
    };
    let longest = seen.borrow().iter().map(headers).max();
    let pipeline = s.core(1).membership().constants.pipeline_max as usize;
    assert!(longest.is_some_and(|longest| (1..=pipeline + 1).contains(&longest)), "{longest:?}");
    assert_eq!(s.core(1).head().0, 201);
    s.settle();
    assert_eq!(s.executed(0).len(), 200);
}
