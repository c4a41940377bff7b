//! Liveness: hazards L-01 to L-27, and the schedules of `docs/hazards.md` about networks, clocks and processes. What partial
//! connectivity costs stands in `partial`.

use std::cell::RefCell;
use std::io::Read;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::{join, join_all};
use vsr::memory::{MemoryNetwork, MemoryStorage};
use vsr::protocol::{Ping, Random};
use vsr::{
    ApplyContext, ClientId, Clock, Config, Handle, Message, OpNumber, Peer, QueryContext, Replica, RestoreError,
    Snapshot, StateMachine, SubmitError, SystemClock, Timestamp, Timing,
};
use vsr_sim::script::Script;

use crate::support::{between_replicas, leader, membership, ms, replica, until, watch, write};

/// Sends a request to every replica, again and again, until it is answered. Says how long that took.
fn until_answered(s: &mut Script, client: ClientId, number: u64) -> Duration {
    let mut passed = Duration::ZERO;
    while s.reply(client, number).is_none() {
        assert!(passed < Duration::from_secs(10), "request {number} is not answered in {passed:?}");
        for at in 0..s.len() {
            s.submit(at, client, number, b"w");
        }
        s.pass(ms(20));
        passed += ms(20);
    }
    passed
}

/// The numbers from 1 to `last`, as commands.
fn numbers(last: usize) -> Vec<String> {
    (1..=last).map(|number| number.to_string()).collect()
}

// ---- section 3 ----

/// L-07: a primary that hears everything but requests (a hole in another implementation): what backups forward
/// is neither prepared nor answered, and they vote.
#[test]
fn l_07_a_primary_that_no_request_reaches_is_replaced() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.to == replica(0) && f.name() == "Requests");
    let passed = until_answered(&mut s, client, 1);
    assert!(passed <= Timing::default().forward * 2, "{passed:?}");
    assert!(!s.core(0).is_primary(), "{}", s.describe(0));
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
}

/// L-07 with clients that back off: each backup hears the request once. It asks the primary again by itself.
#[test]
fn l_07_a_primary_that_no_request_reaches_is_replaced_though_its_client_backs_off() {
    let mut s = Script::new(3);
    let (client, Timing { forward, .. }) = (s.register(0), Timing::default());
    s.lose(|f| f.to == replica(0) && f.name() == "Requests");
    s.submit(1, client, 1, b"w");
    s.pass(ms(400)); // the second pause of a client that asks one replica after the other
    s.submit(2, client, 1, b"w");
    let passed = ms(400) + until(&mut s, "r0 is replaced", |s| s.core(1).is_primary());
    assert!(passed >= forward && passed <= forward * 2, "{passed:?}");
    assert!(s.reply(client, 1).is_none());
    write(&mut s, 1, client, 1, b"w");
    assert!(s.reply(client, 1).is_some());
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
}

/// B-08 with L-07: one lost message is no reason to vote. The request is passed on again, and answered.
#[test]
fn l_07_a_forward_that_is_lost_once_is_passed_on_again() {
    let mut s = Script::new(3);
    let (client, Timing { forward, .. }) = (s.register(0), Timing::default());
    s.lose(|f| f.is(1, 0) && f.name() == "Requests");
    write(&mut s, 1, client, 1, b"w");
    s.heal();
    s.pass(forward * 3 / 4);
    assert!(s.reply(client, 1).is_some(), "{}", s.describe(1));
    s.pass(forward * 3);
    assert_eq!(s.views_entered(), 0);
    s.settle();
    assert_eq!(s.executed(1), ["w"]);
}

/// L-07: what a backup passes on of its own accord is one request in a time-out, however many are unanswered.
#[test]
fn l_07_requests_that_are_passed_on_again_are_no_storm() {
    let mut s = Script::new(3);
    let (client, Timing { forward, .. }) = (s.register(0), Timing::default());
    let seen = watch(&mut s, |f| f.is(1, 0) && f.name() == "Requests");
    s.lose(|f| f.is(1, 0) && f.name() == "Requests");
    (1..=50).for_each(|number| s.submit_with_floor(1, client, number, 1, b"w"));
    s.run();
    assert_eq!(seen.borrow().len(), 50);
    s.pass(forward * 4);
    let again = seen.borrow()[50..].to_vec();
    assert!((3..=4).contains(&again.len()), "{again:?}");
    for flight in again {
        let Message::Requests { requests, forwarded } = &flight.message else { panic!("{flight:?}") };
        assert_eq!((requests.len(), *forwarded), (1, true));
    }
    assert_eq!(s.views_entered(), 0, "one vote is no quorum");
    s.settle();
}

/// L-07: a client that asked and has gone is no reason to vote for ever: the votes of two backups do not add up.
#[test]
fn l_07_a_client_that_has_gone_is_no_reason_to_vote() {
    let mut s = Script::new(3);
    let (client, Timing { forward, .. }) = (s.register(0), Timing::default());
    s.lose(|f| f.to == replica(0) && f.name() == "Requests");
    s.submit(1, client, 1, b"w");
    s.pass(forward * 5 + ms(200)); // a round of the three, with a pause of a second before each, and two pauses more
    s.submit(2, client, 1, b"w");
    s.pass(forward * 3);
    assert_eq!(s.views_entered(), 0);
    s.settle();
}

/// B-08 with L-07: no request that backups pass on arrives, and the client is answered by the primary itself.
#[test]
fn l_07_a_client_that_was_answered_elsewhere_is_no_reason_to_vote() {
    let mut s = Script::new(3);
    let (client, Timing { forward, .. }) = (s.register(0), Timing::default());
    s.lose(|f| (f.is(1, 0) || f.is(2, 0)) && f.name() == "Requests");
    for at in [1, 2, 0] {
        write(&mut s, at, client, 1, b"w");
    }
    assert!(s.reply(client, 1).is_some());
    s.pass(forward * 4);
    assert_eq!(s.views_entered(), 0);
    s.settle();
    assert_eq!(s.executed(1), ["w"]);
}

/// B-08 with L-07: requests that are prepared, and cannot be committed for long, are not the primary's fault.
#[test]
fn l_07_a_prepared_request_is_no_reason_to_vote() {
    let mut s = Script::new(3);
    let (client, Timing { forward, .. }) = (s.register(0), Timing::default());
    s.lose(|f| f.name() == "PrepareOk");
    s.submit_with_floor(1, client, 1, 1, b"w");
    s.submit_with_floor(2, client, 2, 1, b"w");
    s.pass(forward * 3);
    assert!(s.core(1).head().0 > 1 && s.core(0).commit().0 == 1, "{}", s.describe(1));
    assert_eq!(s.views_entered(), 0);
    s.heal();
    s.pass(ms(500));
    assert!(s.reply(client, 1).is_some() && s.reply(client, 2).is_some(), "{}", s.describe(0));
    s.settle();
}

/// B-08 with L-07: requests that backups pass on wait in the primary's queue for longer than `forward`, behind others that
/// are committed one after the other. A primary that works through its queue is not deposed.
#[test]
fn l_07_a_request_in_the_queue_of_a_primary_that_commits_is_no_reason_to_vote() {
    let mut members = membership(3);
    (members.constants.pipeline_max, members.constants.batch_requests_max) = (1, 1);
    let mut s = Script::with_membership(members);
    let Timing { forward, .. } = Timing::default();
    let (busy, first, second) = (s.register(0), s.register(0), s.register(0));
    let before = s.core(0).commit().0;
    let mut acks = s.hold(|f| f.name() == "PrepareOk");
    (1..=30).for_each(|number| s.submit_with_floor(0, busy, number, 1, b"w"));
    s.run();
    write(&mut s, 1, first, 1, b"1");
    write(&mut s, 2, second, 1, b"2");
    let mut waited = Duration::ZERO;
    for op in 1..=30 {
        // Nobody has acknowledged the next op yet.
        s.pass(ms(100));
        waited += ms(100);
        assert_eq!(s.core(0).commit().0, before + op - 1, "{}", s.describe(0));
        let held = s.held(acks);
        s.forget(acks);
        held.into_iter().for_each(|flight| s.inject(flight));
        acks = s.hold(|f| f.name() == "PrepareOk");
    }
    assert!(waited >= forward * 3 && s.reply(first, 1).is_none() && s.reply(second, 1).is_none());
    assert!(s.marks("a request is passed on again") >= 2, "the backups have asked again");
    assert_eq!(s.views_entered(), 0);
    s.forget(acks);
    s.pass(ms(500));
    assert!(s.reply(first, 1).is_some() && s.reply(second, 1).is_some(), "{}", s.describe(0));
    assert_eq!(s.views_entered(), 0);
    s.settle();
}

/// The other half: when nothing is committed any more, what waits in the queue is a reason to vote.
#[test]
fn l_07_a_request_in_the_queue_of_a_primary_that_commits_nothing_is_a_reason_to_vote() {
    let mut members = membership(3);
    (members.constants.pipeline_max, members.constants.batch_requests_max) = (1, 1);
    let mut s = Script::with_membership(members);
    let Timing { forward, .. } = Timing::default();
    let (busy, first, second) = (s.register(0), s.register(0), s.register(0));
    s.lose(|f| f.to == replica(0) && f.name() == "PrepareOk");
    s.submit(0, busy, 1, b"w");
    write(&mut s, 1, first, 1, b"1");
    write(&mut s, 2, second, 1, b"2");
    let passed = until(&mut s, "r0 is replaced", |s| s.core(1).is_primary());
    assert!(passed >= forward && passed <= forward * 2, "{passed:?}");
    s.settle();
}

/// L-09: a new primary whose bodies come one by one, for many time-outs, is given the time while they come.
#[test]
fn l_09_a_view_change_outlasts_its_time_out_while_repair_progresses() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| (f.is(0, 1) && f.name() == "Prepare") || (f.is(2, 0) && f.name() == "PrepareOk"));
    for number in 1..=10 {
        s.submit_with_floor(0, client, number, 1, b"w");
        s.run();
    }
    assert_eq!((s.core(2).head().0, s.core(0).commit().0), (11, 1));
    s.crash(0);
    s.heal();
    let slow = s.hold(|f| f.is(2, 1) && f.name() == "Entries");
    until(&mut s, "r1 asks for the bodies", |s| !s.held(slow).is_empty());
    let entries = s.held(slow).swap_remove(0).message.entries().to_vec();
    assert_eq!((entries.len(), s.view(1)), (10, 1));
    for entry in entries {
        assert!(s.view(1) == 1 && !s.core(1).is_primary(), "{}", s.describe(1));
        s.inject(Script::flight(2, 1, Message::Entries { entries: vec![entry] }));
        s.pass(ms(300));
    }
    assert!(s.view(1) == 1 && s.core(1).is_primary(), "{}", s.describe(1));
    s.settle();
    assert_eq!(s.executed(1).len(), 10);
}

/// L-11: an old primary that returns becomes a backup, and nobody else notices.
#[test]
fn l_11_an_old_primary_returns_as_a_backup() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    write(&mut s, 1, client, 1, b"w");
    assert!(s.reply(client, 1).is_some());
    let entered = s.views_entered();
    s.heal();
    s.pass(Duration::from_secs(2));
    assert!(s.is_normal(0) && !s.core(0).is_primary(), "{}", s.describe(0));
    assert_eq!((s.view(0), s.view(1), s.view(2)), (1, 1, 1));
    assert!(s.views_entered() <= entered + 1);
    assert_eq!(s.executed(0), ["w"]);
    s.settle();
}

/// L-13: a primary whose disk hangs and whose network lives stops its heartbeats, and is replaced.
#[test]
fn l_13_a_primary_with_a_hung_disk_is_replaced() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(0);
    write(&mut s, 0, client, 1, b"a");
    let passed = until(&mut s, "a new primary", |s| (1..3).any(|at| s.core(at).is_primary()));
    let Timing { disk, suspect, .. } = Timing::default();
    assert!((disk..=disk + suspect * 3).contains(&passed), "{passed:?}");
    let primary = leader(&s, &[1, 2]);
    write(&mut s, primary, client, 2, b"b");
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.settle();
    assert_eq!(s.executed(0), ["a", "b"]);
}

/// L-15: a backup with a slow disk holds nobody up, and catches up.
#[test]
fn l_15_a_slow_backup_holds_nobody_up() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(2);
    for number in 1..=100 {
        write(&mut s, 0, client, number, b"w");
        assert!(s.reply(client, number).is_some(), "request {number} waits for a slow disk");
    }
    assert_eq!(s.disk(2).head().0, 1);
    s.settle();
    assert_eq!((s.executed(2).len(), s.disk(2).head().0), (100, 101));
    assert_eq!(s.views_entered(), 0);
}

/// L-16: with one backup dead, commits take no time-out and no second attempt.
#[test]
fn l_16_a_dead_backup_costs_no_time() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.crash(1);
    for number in 1..=50 {
        write(&mut s, 0, client, number, b"w");
        assert!(s.reply(client, number).is_some(), "request {number}");
    }
    s.settle();
    assert_eq!(s.executed(1).len(), 50);
}

/// L-19: a request without a quorum ends, after the caller's time, with an error that says that its outcome is
/// unknown.
#[test]
fn l_19_a_request_without_a_quorum_times_out_as_unknown() {
    let cluster = vsr::testing::cluster(3, Sum::default).expect("a cluster");
    block_on(async {
        assert_eq!(cluster.handle(0).submit(1).await, Ok(1));
        cluster.handle(1).shutdown().await;
        cluster.handle(2).shutdown().await;
        let reply = cluster.handle(0).submit_within(1, ms(300)).await;
        assert_eq!(reply.map(|reply| reply.value), Err(SubmitError::TimedOut));
    });
}

/// L-20: a client that is cut off from the primary alone makes progress through a backup.
#[test]
fn l_20_a_client_that_cannot_reach_the_primary_goes_through_a_backup() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let own = Peer::Client(client);
    s.lose(move |f| (f.from == own && f.to == replica(0)) || (f.from == replica(0) && f.to == own));
    for number in 1..=10 {
        write(&mut s, 0, client, number, b"w");
        assert_eq!(s.reply(client, number), None);
        write(&mut s, 1, client, number, b"w");
        assert_eq!(s.reply(client, number), Some(number.to_string().into_bytes()));
    }
    assert_eq!(s.views_entered(), 0);
    s.settle();
    assert_eq!(s.executed(0).len(), 10);
}

/// L-21, L-22: a dead primary is replaced within two time-outs; with the next one dead as well, within four.
#[test]
fn l_21_l_22_dead_primaries_are_replaced_in_time() {
    let time_out = Timing::default().view_change;
    for (replicas, dead, time_outs) in [(3, 1, 2), (5, 2, 4)] {
        for wait in 0..5 {
            let mut s = Script::new(replicas);
            let client = s.register(0);
            s.pass(ms(100 + 13 * wait));
            for at in 0..dead {
                s.crash(at);
            }
            let passed = until_answered(&mut s, client, 1);
            assert!(passed <= time_out * time_outs, "{dead} of {replicas} dead: {passed:?}");
            s.settle();
            assert_eq!(s.executed(0), ["w"]);
        }
    }
}

/// L-26: an idle cluster changes no view. (Five minutes of virtual time here, not a day.)
#[test]
fn l_26_an_idle_cluster_changes_no_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.pass(Duration::from_secs(300));
    assert_eq!(s.views_entered(), 0);
    write(&mut s, 0, client, 1, b"w");
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// L-27: with 30 % of all messages lost there is progress, and at most one view change in a minute.
#[test]
fn l_27_loss_stops_nothing_and_hardly_changes_views() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let dice = RefCell::new(Random::new(27));
    // Asked as a message leaves and, if it does not stay away for good, as it arrives: a quarter makes 30 %.
    s.lose(move |f| between_replicas(f) && dice.borrow_mut().chance(1, 4));
    let mut number = 1;
    for _ in 0..300 {
        let primary = (0..3).find(|&at| s.core(at).is_primary()).unwrap_or(0);
        s.submit(primary, client, number, number.to_string().as_bytes());
        s.pass(ms(200));
        number += u64::from(s.reply(client, number).is_some());
    }
    assert!(number > 150, "{number} requests in a minute");
    assert!(s.views_entered() <= s.len(), "{} views entered in a minute", s.views_entered());
    s.settle();
    assert_eq!(s.executed(0), numbers(s.executed(0).len()));
}

// ---- networks ----

/// NW-01: loss, repetition, delays up to 0.3 s and any order: progress, and everything once, in order. (The
/// seeds of the simulator go on for longer.)
#[test]
fn nw_01_loss_repetition_and_reordering_stop_nothing() {
    let mut s = Script::new(5);
    let client = s.register(0);
    let dice = RefCell::new(Random::new(1));
    s.lose(move |f| between_replicas(f) && dice.borrow_mut().chance(1, 4));
    let mut random = Random::new(2);
    let mut number = 1;
    for round in 0..200 {
        let dice = RefCell::new(Random::new(1000 + round));
        let late = s.hold(move |_| dice.borrow_mut().chance(1, 3));
        for at in 0..5 {
            s.submit(at, client, number, number.to_string().as_bytes());
        }
        s.pass(ms(random.below(300)));
        let mut held = s.held(late);
        s.forget(late);
        while !held.is_empty() {
            let any = random.below(held.len() as u64) as usize;
            let flight = held.swap_remove(any);
            if random.chance(1, 2) {
                s.inject(flight.clone());
            }
            s.inject(flight);
        }
        s.run();
        number += u64::from(s.reply(client, number).is_some());
    }
    assert!(number > 20, "{number} requests in 200 rounds");
    s.settle();
    let executed = s.executed(0);
    assert!(executed.len() as u64 >= number - 1 && executed == numbers(executed.len()), "{executed:?}");
}

/// NW-09: the link between primary and one backup flaps: nobody waits, and no view changes.
#[test]
fn nw_09_a_flapping_link_changes_no_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let (mut number, mut cut) = (0, 0);
    for (span, times) in [(100, 300), (900, 34)] {
        for time in 0..times {
            if time % 2 == 1 {
                s.release(cut);
            } else {
                cut = s.cut(0, 1);
            }
            s.pass(ms(span));
            number += 1;
            write(&mut s, 0, client, number, b"w");
            assert!(s.reply(client, number).is_some(), "request {number}");
        }
    }
    assert!(s.views_entered() <= s.len(), "{} views entered in a minute", s.views_entered());
    s.settle();
    assert_eq!(s.executed(1).len() as u64, number);
}

/// NW-10: a replica that was isolated for long votes alone and raises no view; its return disturbs nobody.
#[test]
fn nw_10_an_isolated_replica_returns_without_a_view_change() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    for number in 1..=120 {
        write(&mut s, 0, client, number, b"w");
        s.pass(Duration::from_secs(1));
    }
    assert_eq!((s.view(2), s.core(2).head().0), (0, 1), "{}", s.describe(2));
    s.heal();
    for number in 121..=140 {
        write(&mut s, 0, client, number, b"w");
        assert!(s.reply(client, number).is_some(), "request {number}");
        s.pass(ms(100));
    }
    assert_eq!(s.views_entered(), 0);
    s.settle();
    assert_eq!(s.executed(2).len(), 140);
}

// ---- clocks ----

/// CK-01: wall clocks that are hours off, one or all, change no view; one alone does not move the timestamps, and
/// they never go back, in the next view either.
#[test]
fn ck_01_wall_clocks_that_are_off_harm_nothing() {
    const SECOND: u64 = 1_000_000_000;
    const HOUR: u64 = 3600 * SECOND;
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.name() == "Ping");
    let mut last = s.core(0).applied_timestamp();
    // Every replica was started at one second. The fifth time all three differ; then all are right again.
    let walls = [(HOUR, SECOND), (0, SECOND), (SECOND, HOUR), (SECOND, 0), (HOUR, 2 * HOUR), (SECOND, SECOND)];
    for (number, (of_1, of_2)) in (1..).zip(walls) {
        for (from, wall) in [(1, of_1), (2, of_2)] {
            let core = s.core(from);
            let ping = Ping {
                view: core.view(),
                normal: true,
                commit: core.commit(),
                head: core.head(),
                wall: Timestamp(wall),
                checkpoint: OpNumber::ZERO,
                machine_version: 1,
                head_certain: true,
                has_room: true,
                life: core.life(),
                known: Vec::new(),
            };
            s.inject(Script::flight(from, 0, Message::Ping(ping)));
        }
        write(&mut s, 0, client, number, b"w");
        let now = s.core(0).applied_timestamp();
        assert!(s.reply(client, number).is_some() && now > last, "{now:?} after {last:?}");
        assert!(number >= 5 || now < Timestamp(2 * SECOND), "one clock has moved the timestamps: {now:?}");
        assert!(now < Timestamp(HOUR + SECOND), "the middle one of three counts: {now:?}");
        last = now;
    }
    assert_eq!(s.views_entered(), 0);
    s.crash(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    write(&mut s, 1, client, 7, b"w");
    assert!(s.reply(client, 7).is_some() && s.core(1).applied_timestamp() > last);
    s.settle();
    assert_eq!(s.executed(0).len(), 7);
}

/// CK-02: a primary stands still for a minute: on its return it answers no query from its old state, becomes a
/// backup, and starts no election. (Its monotonic clock went on here.)
#[test]
fn ck_02_a_suspended_primary_returns_without_a_stale_read() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"old");
    s.pass(ms(100));
    s.pause(0, true);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    write(&mut s, 1, client, 2, b"new");
    assert!(s.reply(client, 2).is_some());
    s.pass(Duration::from_secs(60));
    let entered = s.views_entered();
    s.pause(0, false);
    // The first thing that it does, before it takes any message.
    s.query(0, 1);
    assert_eq!(s.answer(0, 1), None, "nobody has confirmed that it is primary");
    s.pass(Duration::from_secs(2));
    assert_eq!(s.answer(0, 1), Some(2), "{}", s.describe(0));
    assert!(s.is_normal(0) && !s.core(0).is_primary(), "{}", s.describe(0));
    assert_eq!((s.view(0), s.view(1), s.view(2)), (1, 1, 1));
    assert!(s.views_entered() <= entered + 1);
    s.settle();
}

/// CK-04: each replica stalls for two seconds in every five, at any time: there is progress, and no livelock.
#[test]
fn ck_04_stalls_of_every_replica_leave_room_for_progress() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let mut random = Random::new(4);
    let (mut slots, mut number) = (0, 1);
    for _ in 0..12 {
        // In tenths of a second.
        let stalls: Vec<u64> = (0..3).map(|_| random.below(30)).collect();
        for slot in 0..50 {
            for (at, &begin) in stalls.iter().enumerate() {
                s.pause(at, (begin..begin + 20).contains(&slot));
                s.submit(at, client, number, number.to_string().as_bytes());
            }
            s.pass(ms(100));
            slots += 1;
            number += u64::from(s.reply(client, number).is_some());
        }
    }
    println!("{} of {slots} tenths of a second with progress, {} views entered", number - 1, s.views_entered());
    assert!((number - 1) * 100 >= slots * 30, "progress in {} of {slots}", number - 1);
    s.settle();
    assert_eq!(s.executed(0), numbers(s.executed(0).len()));
}

// ---- processes ----

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

/// The smallest state machine.
#[derive(Debug, Default)]
struct Sum(i64);

impl StateMachine for Sum {
    type Command = i64;
    type Reply = i64;
    type Query = ();
    type Answer = i64;

    fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 {
        self.0 += n;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> i64 {
        self.0
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0)
    }

    fn restore(from: &mut dyn Read) -> Result<Sum, RestoreError> {
        Snapshot::read(from).map(Sum)
    }
}

/// PR-06: the primary is shut down, and the others while its hand-over is under way: all end, and go on from
/// their disks. (On one thread, with the real clock.)
#[test]
fn pr_06_a_shutdown_in_a_view_change_returns_and_the_restart_is_clean() {
    let config = |id: u8| Config::new(1, id, ["a", "b", "c"]).expect("a configuration");
    let disks: Vec<MemoryStorage> = (0..3).map(|id| MemoryStorage::format(&config(id))).collect();
    let clock = SystemClock::new();
    for life in 1..=2 {
        let network = MemoryNetwork::new(3);
        let (mut replicas, mut handles) = (Vec::new(), Vec::new());
        for (id, disk) in (0..).zip(&disks) {
            let builder = Replica::builder(config(id), Sum::default()).storage(disk.clone());
            let (replica, handle) = builder.network(network.endpoint(id)).build().expect("a replica");
            replicas.push(replica.run());
            handles.push(handle);
        }
        let work = async {
            assert_eq!(handles[2].submit(5).await, Ok(5 * life));
            let begin = clock.now();
            join_all(handles.iter().map(Handle::shutdown)).await;
            clock.now().since(begin)
        };
        let (ended, took) = block_on(join(join_all(replicas), work));
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
