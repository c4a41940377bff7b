//! The schedules of HAZARDS section 7 that are about normal operation, views and restarts, and the holes of its
//! section 5.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::{DoViewChange, HeaderFields, OpKind, Outcome, Ping, Refusal, StartView};
use vsr::{
    Checksum, ClientId, CommitNumber, Entry, Header, Membership, MembershipError, Message, OpNumber, Peer, Quorums,
    ReplicaId, Timestamp, Timing, View,
};
use vsr_sim::Damage;
use vsr_sim::script::{Flight, Script};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn replica(at: usize) -> Peer {
    Peer::Replica(ReplicaId(at as u8))
}

/// Whether a message goes from a replica to a replica.
pub(crate) fn between_replicas(flight: &Flight) -> bool {
    matches!((flight.from, flight.to), (Peer::Replica(_), Peer::Replica(_)))
}

/// Sends a request, and delivers everything that comes of it. No time passes.
pub(crate) fn write(s: &mut Script, at: usize, client: ClientId, number: u64, command: &[u8]) {
    s.submit(at, client, number, command);
    s.run();
}

/// Lets time pass until something is so. Says how long that took.
pub(crate) fn until(s: &mut Script, what: &str, done: impl Fn(&Script) -> bool) -> Duration {
    let mut passed = Duration::ZERO;
    loop {
        let now: &Script = s;
        if done(now) {
            return passed;
        }
        assert!(passed < Duration::from_secs(10), "{what}: not in {passed:?}");
        s.pass(ms(5));
        passed += ms(5);
    }
}

/// The primary of the newest view, of these replicas.
pub(crate) fn leader(s: &Script, alive: &[usize]) -> usize {
    let primaries = alive.iter().copied().filter(|&at| s.core(at).is_primary());
    primaries.max_by_key(|&at| s.view(at)).expect("one of them is primary")
}

/// No message crosses the border of a group.
fn split(s: &mut Script, group: &'static [usize]) {
    let inside = move |peer: Peer| match peer {
        Peer::Replica(id) => Some(group.contains(&usize::from(id.0))),
        Peer::Client(_) => None,
    };
    s.lose(move |f| matches!((inside(f.from), inside(f.to)), (Some(from), Some(to)) if from != to));
}

type Seen = Rc<RefCell<Vec<Flight>>>;

/// Notes the messages that fit, and lets them go on. Sees nothing that an earlier rule has taken.
fn watch(s: &mut Script, filter: impl Fn(&Flight) -> bool + 'static) -> Seen {
    let seen = Seen::default();
    let notes = Rc::clone(&seen);
    s.lose(move |flight| {
        if filter(flight) {
            notes.borrow_mut().push(flight.clone());
        }
        false
    });
    seen
}

fn replied(text: &'static str) -> Outcome {
    Outcome::Reply(Bytes::from_static(text.as_bytes()))
}

fn membership(replicas: usize) -> Membership {
    Membership::new((0..replicas).map(|id| format!("replica {id}"))).expect("a membership")
}

/// Every replica in a line.
fn describe(s: &Script) -> Vec<String> {
    (0..s.len()).map(|at| s.describe(at)).collect()
}

/// Lets a replica make its writes one by one while so many steps of 5 ms pass, and crashes it at a point: 2w is
/// before its write w is durable, 2w + 1 right after. Starts it again. False when there were fewer writes.
fn crash_at(s: &mut Script, victim: usize, point: usize, steps: usize) -> bool {
    s.hold_disk(victim);
    let mut writes = 0;
    for _ in 0..steps {
        while s.disk(victim).is_writing() {
            if writes == point / 2 {
                if point % 2 == 1 {
                    s.crash_after_write(victim);
                } else {
                    s.crash(victim);
                }
                s.restart(victim);
                s.release_disk(victim);
                return true;
            }
            s.write_once(victim);
            s.run();
            writes += 1;
        }
        s.pass(ms(5));
    }
    false
}

// ---- normal operation ----

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

// ---- view changes ----

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

// ---- restart ----

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

// ---- the network ----

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

// ---- the holes of section 5 ----

/// H5-01: no `DoViewChange` leaves before the view is durable, no acknowledgement before log_view is.
#[test]
fn h5_01_nothing_is_promised_before_it_is_durable() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.crash(0);
    s.hold_disk(2);
    let said = watch(&mut s, |f| f.from == replica(2));
    let has_said = |kinds: &[&str]| said.borrow().iter().any(|f| kinds.contains(&f.name()));
    until(&mut s, "view 1", |s| s.view(2) == 1);
    assert_eq!(s.disk(2).state().view.number, 0);
    assert!(!has_said(&["DoViewChange", "PrepareOk", "CommitOk"]));
    s.write_once(2);
    s.run();
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

/// H5-04: a `StartView`, `Prepare` or `Commit` of another than the primary of its view is not believed.
#[test]
fn h5_04_only_the_primary_of_a_view_is_believed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    let late = s.hold(|f| f.is(0, 2) && f.name() == "Prepare");
    write(&mut s, 0, client, 2, b"b");
    let before = s.describe(2);
    let prepare = s.held(late).swap_remove(0).message;
    let (view, head) = (s.core(0).view(), s.core(0).head());
    let start = StartView {
        view: Script::view_of(4),
        commit: CommitNumber(0),
        head: OpNumber::ZERO,
        headers: Vec::new(),
        nonce: 0,
        checkpoint: OpNumber::ZERO,
    };
    s.inject(Script::flight(1, 2, prepare));
    s.inject(Script::flight(1, 2, Message::Commit { view, commit: CommitNumber(head.0), head, number: 99 }));
    s.inject(Script::flight(0, 2, Message::StartView(start)));
    assert_eq!(s.describe(2), before);
    s.run();
    assert_eq!(s.describe(2), before);
    s.release(late);
    s.run();
    assert_eq!(s.core(2).head(), head);
    s.settle();
    assert_eq!(s.executed(2), ["a", "b"]);
}

/// H5-05: a `Prepare` of a later view truncates nothing; until that view's log is here, the `DoViewChange` carries
/// the old one with the old log_view.
#[test]
fn h5_05_nothing_is_truncated_before_the_log_of_the_later_view_is_here() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.is(0, 1) && f.name() == "Prepare");
    write(&mut s, 0, client, 1, b"x");
    assert!(s.reply(client, 1).is_some(), "r0 and r2 have x");
    s.heal();
    // View 1 begins without r2; r2 hears of it by a Prepare only.
    let island = s.isolate(2);
    s.crash(0);
    s.restart(0);
    s.run();
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    s.release(island);
    let starts = s.hold(|f| f.is(1, 2) && f.name() == "StartView");
    write(&mut s, 1, client, 2, b"y");
    assert!(s.reply(client, 2).is_some() && !s.held(starts).is_empty());
    assert_eq!((s.core(2).log_view().number, s.core(2).head().0), (0, 2), "{}", s.describe(2));
    assert_eq!(s.durable(2, 2), s.durable(1, 2));
    s.forget(starts);
    s.crash(1);
    let promises = watch(&mut s, |f| f.is(2, 0) && f.name() == "DoViewChange");
    until(&mut s, "a view of r0 and r2", |s| s.core(0).is_primary() || s.core(2).is_primary());
    assert!(!promises.borrow().is_empty());
    for flight in promises.borrow().iter() {
        let Message::DoViewChange(dvc) = &flight.message else { continue };
        assert_eq!((dvc.log_view.number, dvc.head.0), (0, 2), "{dvc:?}");
    }
    s.settle();
    assert_eq!(s.executed(1), ["x", "y"]);
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
    let Message::PrepareOk { view, op, checksum } = first else { panic!("it is held by its kind") };
    for from in 2..5 {
        s.inject(Script::flight(from, 0, Message::PrepareOk { view, op, checksum: Checksum(1) }));
        s.inject(Script::flight(from, 0, Message::PrepareOk { view: Script::view_of(5), op, checksum }));
        s.inject(Script::flight(from, 0, Message::PrepareOk { view, op: op.next(), checksum }));
    }
    s.run();
    assert_eq!((s.reply(client, 1), s.core(0).commit().0), (None, 1));
    s.release(acks);
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// H5-07: the session table is the same everywhere: the next primary knows who was evicted, and who was not.
#[test]
fn h5_07_every_replica_has_the_same_session_table() {
    let mut members = membership(3);
    members.constants.sessions_max = 2;
    members.constants.session_idle_min = 1;
    let mut s = Script::with_membership(members);
    let first = s.register(0);
    write(&mut s, 0, first, 1, b"a");
    let second = s.register(0);
    write(&mut s, 0, second, 1, b"b");
    s.register(0);
    assert_eq!(s.core(0).sessions(), 2);
    s.crash(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    // Evicted, by the log: neither the old request nor a new one is executed.
    write(&mut s, 1, first, 1, b"a");
    write(&mut s, 1, first, 2, b"c");
    assert_eq!(s.outcomes(first, 1), [replied("1"), Outcome::Refused(Refusal::Evicted)]);
    assert_eq!(s.outcomes(first, 2), [Outcome::Refused(Refusal::Evicted)]);
    write(&mut s, 1, second, 1, b"b");
    assert_eq!(s.outcomes(second, 1), [replied("2"), replied("2")]);
    s.settle();
    assert_eq!(s.core(0).sessions_digest(), s.core(2).sessions_digest());
    assert_eq!(s.executed(2), ["a", "b"]);
}

/// H5-09: pings do not keep a primary alive that neither prepares nor commits.
#[test]
fn h5_09_pings_do_not_keep_a_mute_primary() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let pings = watch(&mut s, |f| f.is(0, 1) && f.name() == "Ping");
    s.lose(|f| (f.is(0, 1) || f.is(0, 2)) && f.name() != "Ping");
    let passed = until(&mut s, "a new primary", |s| (1..3).any(|at| s.core(at).is_primary()));
    assert!(!pings.borrow().is_empty() && passed <= Timing::default().suspect * 2, "{passed:?}");
    let primary = leader(&s, &[1, 2]);
    write(&mut s, primary, client, 1, b"w");
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
}

/// H5-11: messages with absurd numbers, of strangers, or that contradict themselves are ignored, whoever they
/// reach.
#[test]
fn h5_11_absurd_messages_are_ignored() {
    const HUGE: u64 = u64::MAX;
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    let header = |op: u64, commit: u64| {
        Header::new(HeaderFields {
            view: View::default(),
            op: OpNumber(op),
            parent: Checksum(0),
            body: Checksum(0),
            body_len: u32::MAX,
            requests: u32::MAX,
            timestamp: Timestamp(1),
            commit: CommitNumber(commit),
            machine_version: u32::MAX,
            kind: OpKind::Requests,
        })
    };
    let (view, later, absurd) = (View::default(), Script::view_of(1), Script::view_of(HUGE));
    let (huge, checksum, commit) = (OpNumber(HUGE), Checksum(0), CommitNumber(HUGE));
    let far = 1 << 40;
    let entry = |op: u64, commit: u64| Entry { header: header(op, commit), body: Bytes::new() };
    let ping = Ping {
        view: absurd,
        normal: true,
        commit,
        head: huge,
        wall: Timestamp(HUGE),
        checkpoint: huge,
        machine_version: u32::MAX,
    };
    let dvc = DoViewChange {
        view: later,
        log_view: view,
        commit: CommitNumber(0),
        head: OpNumber(far),
        head_certain: true,
        headers: Vec::new(),
        facts: Vec::new(),
        checkpoint: OpNumber::ZERO,
    };
    let start = |op: u64| StartView {
        view: later,
        commit: CommitNumber(op - 1),
        head: OpNumber(op),
        headers: vec![header(op, 0)],
        nonce: 0,
        checkpoint: OpNumber::ZERO,
    };
    let messages = [
        Message::Prepare { view, commit, entry: entry(HUGE, HUGE) },
        Message::Prepare { view, commit: CommitNumber(0), entry: entry(far, 0) },
        Message::PrepareOk { view, op: huge, checksum },
        Message::Commit { view, commit, head: huge, number: HUGE },
        Message::Commit { view, commit: CommitNumber(5), head: OpNumber(4), number: HUGE },
        Message::CommitOk { view, number: HUGE },
        Message::StartViewChange { view: absurd },
        Message::DoViewChange(dvc),
        Message::StartView(start(HUGE)),
        Message::StartView(start(far)),
        Message::RequestStartView { view: absurd, nonce: 0 },
        Message::RequestHeaders { op: huge, checksum, count: u32::MAX },
        Message::Headers { headers: vec![header(HUGE, 0), header(far, 0)] },
        Message::RequestEntries { wanted: vec![(huge, checksum); 1000] },
        Message::Entries { entries: vec![entry(HUGE, 0), entry(far, 0)] },
        Message::Ping(ping),
        Message::ReadIndexOk { nonce: 0, index: huge },
    ];
    let before = describe(&s);
    for message in &messages {
        for (from, to) in (0..3).flat_map(|to| [0, 1, 2, 9].map(|from| (from, to))) {
            s.inject(Script::flight(from, to, message.clone()));
        }
    }
    s.run();
    assert_eq!(describe(&s), before);
    write(&mut s, 0, client, 2, b"b");
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.settle();
    assert_eq!(s.executed(2), ["a", "b"]);
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

/// H5-15: failed view changes make the next time-out longer; a view that starts and commits nothing does not make
/// it short again.
#[test]
fn h5_15_only_progress_resets_the_back_off() {
    let mut s = Script::new(3);
    s.register(0);
    s.pass(ms(100));
    s.crash(0);
    let lost = s.lose(|f| f.name() == "DoViewChange");
    let mut last = Duration::ZERO;
    for view in 1..=4 {
        let waited = until(&mut s, "the next view", |s| s.view(1) == view && s.view(2) == view);
        assert!(view < 3 || waited > last, "view {view} after {waited:?}, the one before after {last:?}");
        last = waited;
    }
    s.release(lost);
    until(&mut s, "view 4 starts", |s| s.core(1).is_primary() && s.is_normal(2));
    assert_eq!((s.view(2), s.core(2).commit().0), (4, 1), "nothing new is committed");
    // r1 leaves it at once, and nobody can start view 5. r2 alone remembers the failures.
    s.lose(|f| f.name() == "DoViewChange");
    s.crash(1);
    s.restart(1);
    until(&mut s, "view 5", |s| s.view(2) == 5);
    let waited = until(&mut s, "view 6", |s| s.view(2) == 6);
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    s.settle();
}
