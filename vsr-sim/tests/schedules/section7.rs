//! The schedules of `docs/hazards.md` that are about normal operation and views.

use std::time::Duration;

use vsr::{MembershipError, Message, Peer, Quorums};
use vsr_sim::script::Script;

use crate::support::*;

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

/// NO-09: the primary dies after a reply that was lost, before any `Commit`: a retry gets the same reply, and
/// executes nothing.
#[test]
fn no_09_a_retry_at_the_next_primary_gets_the_lost_reply() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let lost = s.lose(|f| matches!(f.to, Peer::Client(_)));
    write(&mut s, 0, client, 1, b"w");
    assert_eq!((s.core(0).commit().0, s.core(1).commit().0, s.core(2).commit().0), (2, 1, 1));
    assert!(s.outcomes(client, 1).is_empty());
    s.crash(0);
    s.release(lost);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    for at in 1..3 {
        write(&mut s, at, client, 1, b"w");
    }
    assert_eq!(s.outcomes(client, 1), [replied("1"), replied("1")]);
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
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

/// VC-05, hole 2: a shorter log of a higher log_view wins over a longer one of a lower. (Here log_view 2 against
/// 1: r3, which has the longer one, cannot be behind in the view of which it is primary.)
#[test]
fn vc_05_the_log_of_the_highest_log_view_wins() {
    let mut s = Script::new(5);
    let client = s.register(0);
    s.crash(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    s.restart(0);
    s.run();
    for number in 1..=4 {
        write(&mut s, 1, client, number, b"a");
    }
    assert_eq!(s.core(0).head().0, 5, "{}", s.describe(0));
    // Ops 6 to 10 of view 1 reach r3 only, and the others start view 2.
    split(&mut s, &[1, 3]);
    for number in 5..=9 {
        s.submit_with_floor(1, client, number, 5, b"tail");
        s.run();
    }
    until(&mut s, "view 2", |s| s.core(2).is_primary());
    s.heal();
    s.isolate(3);
    until(&mut s, "r1 in view 2", |s| s.view(1) == 2 && s.is_normal(1));
    s.isolate(4);
    for number in 10..=11 {
        s.submit_with_floor(2, client, number, 5, b"kept");
        s.run();
    }
    assert_eq!(s.reply(client, 11), Some(b"6".to_vec()));
    let log = |s: &Script, at: usize| (s.core(at).log_view().number, s.core(at).head().0);
    assert_eq!((log(&s, 1), log(&s, 3), log(&s, 4)), ((2, 7), (1, 10), (2, 5)));
    s.crash(0);
    s.crash(2);
    s.heal();
    until(&mut s, "a view of r1, r3 and r4", |s| [1, 3, 4].iter().any(|&at| s.view(at) > 2 && s.core(at).is_primary()));
    s.pass(ms(200));
    for at in [1, 3, 4] {
        assert_eq!(s.core(at).head().0, 7, "{}", s.describe(at));
    }
    s.settle();
    assert_eq!(s.executed(3), ["a", "a", "a", "a", "kept", "kept"]);
}

/// VC-08, hole 3: a `StartView` with a smaller commit number lowers nothing, and nothing is executed again.
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

/// VC-10: a primary tells one backup of its view and dies: what the two have prepared is in the highest log_view.
#[test]
fn vc_10_a_view_that_one_backup_knows_of_is_not_forgotten() {
    let mut s = Script::new(5);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.crash(0);
    s.lose(|f| (f.is(1, 3) || f.is(1, 4)) && !matches!(f.name(), "StartViewChange" | "DoViewChange"));
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    write(&mut s, 1, client, 2, b"z");
    assert_eq!(s.reply(client, 2), None, "two of five are no replication quorum");
    assert!(s.durable(2, 3).is_some() && s.durable(3, 3).is_none());
    let log_view = |s: &Script, at: usize| s.core(at).log_view().number;
    assert_eq!((log_view(&s, 2), log_view(&s, 3), log_view(&s, 4)), (1, 0, 0));
    s.crash(1);
    s.heal();
    until(&mut s, "a view of r2, r3 and r4", |s| (2..5).any(|at| s.core(at).is_primary()));
    s.pass(ms(500));
    assert_eq!(s.durable(3, 3), s.durable(2, 3));
    let primary = leader(&s, &[2, 3, 4]);
    write(&mut s, primary, client, 2, b"z");
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.settle();
    assert_eq!(s.executed(0), ["a", "z"]);
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

/// VC-20: quorums that do not meet are refused; all that do keep what was acknowledged, with as few copies of it
/// as they allow.
#[test]
fn vc_20_quorums_that_meet_work_and_others_are_refused() {
    for n in 2..=6_u8 {
        for replication in 1..=n {
            let mut members = membership(n.into());
            members.quorums = Quorums { replication, view_change: n - replication, nack: n };
            assert!(matches!(members.validate(), Err(MembershipError::Quorums { .. })), "{:?}", members.quorums);
            let view_change = (n - replication + 1).max(n / 2 + 1);
            members.quorums = Quorums { replication, view_change, nack: n - replication + 1 };
            let mut s = Script::with_membership(members);
            let client = s.register(0);
            s.lose(move |f| f.name() == "Prepare" && (replication..n).any(|at| f.is(0, at.into())));
            write(&mut s, 0, client, 1, b"w");
            assert_eq!(s.reply(client, 1), Some(b"1".to_vec()), "{replication} of {n} have it");
            s.crash(0);
            s.heal();
            s.pass(Duration::from_secs(2));
            s.settle();
            assert_eq!(s.executed(n as usize - 1), ["w"], "{replication} of {n} had it");
        }
    }
    // The default of two: nothing commits without both.
    let mut s = Script::new(2);
    let client = s.register(0);
    s.crash(1);
    write(&mut s, 0, client, 1, b"w");
    assert_eq!(s.reply(client, 1), None);
    s.settle();
    assert_eq!(s.executed(1), ["w"]);
}
