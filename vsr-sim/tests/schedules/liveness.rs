//! Liveness: a primary that does not serve is replaced in time, one that serves is not, and trouble costs no more than
//! it must.

use std::io::Read;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::{join, join_all};
use vsr::memory::{MemoryNetwork, MemoryStorage};
use vsr::protocol::{Busy, Message, Outcome, Ping, Random, Timestamp};
use vsr::{
    ApplyContext, ClientId, Clock, ClusterId, Config, Handle, QueryContext, Replica, ReplicaId, RestoreError, Snapshot,
    StateMachine, SubmitError, SystemClock, Timing,
};
use vsr_sim::Damage;
use vsr_sim::script::Script;

use crate::support::{clogged, leader, membership, ms, numbers, replica, submit, times, until, watch, write};

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

/// L-21, L-22: a dead primary is replaced within two time-outs; with the next one dead as well, within four.
#[test]
fn l_21_l_22_dead_primaries_are_replaced_in_time() {
    let time_out = Timing::default().view_change_timeout;
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
    let Timing { disk_stall_timeout: disk, primary_timeout: suspect, .. } = Timing::default();
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

/// F7 a: a replica in a view change votes, too: the next primary is dead as well.
#[test]
fn f7_a_a_view_whose_primary_is_dead_is_left() {
    let mut s = Script::new(5);
    let client = s.register(0);
    s.crash(0);
    s.crash(1);
    s.pass(Duration::from_secs(3));
    assert!((2..5).all(|at| s.view(at) == 2 && s.is_normal(at)), "{}", s.describe(2));
    s.submit(2, client, 1, b"w");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// F7 b: the only copy of an op dies while the new primary repairs it. That primary votes as well, and the op, which
/// nobody else ever held, goes.
#[test]
fn f7_b_a_new_primary_whose_repair_is_hopeless_votes() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(0);
    s.lose(|f| f.is(0, 1) && f.name() == "Prepare");
    s.lose(|f| f.is(2, 0) && f.name() == "PrepareOk");
    s.submit(0, client, 1, b"x");
    s.run();
    assert!(s.durable(2, 2).is_some());
    s.crash(0);
    s.release_disk(0);
    s.heal();
    s.lose(|f| f.is(0, 1) && f.name() == "DoViewChange"); // r1 has to choose with the word of r2
    s.lose(|f| f.from == replica(2) && f.name() == "Entries");
    s.restart(0);
    s.run();
    assert_eq!((s.view(1), s.core(1).log_view().number, s.core(1).head().0), (1, 1, 2), "{}", s.describe(1));
    assert!(!s.is_normal(1) && s.is_normal(0) && s.core(0).head().0 == 2);
    s.crash(2);
    s.heal();
    s.pass(Duration::from_secs(5));
    assert!(s.core(0).is_primary(), "{}", s.describe(0));
    assert!(s.marks("truncated by a nack quorum") > 0 && s.core(0).head().0 == 1);
    s.submit(0, client, 1, b"x");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()), "its client is not locked out");
    s.settle();
    assert_eq!(s.executed(2), ["x"]);
}

/// F7 c: one is dead, one votes, and the primary has abdicated: its own vote makes the quorum.
#[test]
fn f7_c_an_abdicated_primary_votes() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.crash(2);
    let link = s.cut(0, 1);
    s.pass(Duration::from_secs(1));
    assert!(s.core(0).explain().contains("without a quorum"), "{}", s.describe(0));
    assert_eq!(s.views_entered(), 0, "neither is a quorum");
    s.release(link);
    s.pass(Duration::from_secs(1));
    assert!(s.core(1).is_primary() && s.view(0) == 1, "{}", s.describe(1));
    s.submit(1, client, 1, b"w");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// M10: two backups whose repair makes no progress depose no healthy primary.
#[test]
fn m10_a_stuck_repair_of_backups_is_no_reason_to_vote() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=2 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    for at in [1, 2] {
        s.crash(at);
        s.rot(at, 2, Damage::Body);
    }
    s.lose(|f| f.name() == "Entries");
    for at in [1, 2] {
        s.restart(at);
    }
    s.pass(Duration::from_secs(3));
    assert_eq!((s.core(1).applied().0, s.core(2).applied().0), (1, 1), "op 2 cannot be repaired");
    s.submit(0, client, 3, b"w");
    s.run();
    assert_eq!((s.reply(client, 3), s.views_entered()), (Some(b"3".to_vec()), 0));
    s.settle();
    assert_eq!(s.executed(1).len(), 3);
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

/// F8: one replica is dead, and every message of one kind is lost once. It is sent again, and costs no view.
#[test]
fn f8_what_is_not_answered_is_sent_again() {
    for lost in ["StartView", "DoViewChange", "Prepare", "PrepareOk"] {
        let mut s = Script::new(3);
        let client = s.register(0);
        s.crash(2);
        let rule = s.lose(move |f| f.name() == lost);
        let primary = usize::from(!lost.starts_with("Prepare"));
        if primary == 1 {
            s.crash(0);
            s.restart(0);
            s.run();
        }
        s.submit(primary, client, 1, b"w");
        s.run();
        assert_eq!(s.reply(client, 1), None, "{lost} is lost");
        s.forget(rule);
        s.pass(ms(450));
        s.submit(primary, client, 1, b"w");
        s.run();
        assert_eq!(s.reply(client, 1), Some(b"1".to_vec()), "{lost}: {}", s.describe(primary));
        assert_eq!(s.view(primary), primary as u64, "{lost}");
        s.settle();
        assert_eq!(s.executed(2), ["w"]);
    }
}

/// F16: that a connection is down is a state: a primary that was down before its turn came is passed over at once.
#[test]
fn f16_a_next_primary_that_is_down_already_costs_no_time_out() {
    let mut s = Script::new(5);
    let client = s.register(0);
    s.crash(0);
    s.crash(1);
    for at in 2..5 {
        s.peer_down(at, 1, true);
        s.peer_down(at, 0, true);
    }
    s.run();
    assert!((2..5).all(|at| s.view(at) == 2 && s.is_normal(at)), "no time has passed: {}", s.describe(2));
    s.submit(2, client, 1, b"w");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// F16: a repeated `Commit` or `Prepare` is no sign of life of the primary.
#[test]
fn f16_repeated_messages_do_not_keep_a_dead_primary_alive() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let copies = s.hold(|f| f.from == replica(0) && matches!(f.name(), "Commit" | "Prepare"));
    s.submit(0, client, 1, b"a");
    s.pass(ms(100));
    let repeated = s.held(copies);
    assert!(["Commit", "Prepare"].iter().all(|kind| repeated.iter().any(|f| f.name() == *kind)));
    s.release(copies);
    s.run();
    s.crash(0);
    for _ in 0..20 {
        for flight in &repeated {
            s.inject(flight.clone());
        }
        s.pass(ms(50));
    }
    assert!(s.core(1).is_primary() && s.view(2) == 1, "{}", s.describe(1));
    s.settle();
    assert_eq!(s.executed(0), ["a"]);
}

/// H5-09: pings do not keep a primary alive that neither prepares nor commits.
#[test]
fn h5_09_pings_do_not_keep_a_mute_primary() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let pings = watch(&mut s, |f| f.is(0, 1) && f.name() == "Ping");
    s.lose(|f| (f.is(0, 1) || f.is(0, 2)) && f.name() != "Ping");
    let passed = until(&mut s, "a new primary", |s| (1..3).any(|at| s.core(at).is_primary()));
    assert!(!pings.borrow().is_empty() && passed <= Timing::default().primary_timeout * 2, "{passed:?}");
    let primary = leader(&s, &[1, 2]);
    write(&mut s, primary, client, 1, b"w");
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
}

/// G8: a deposed primary gives up also when nobody asks anything of it. (That a busy one is not deposed: B-08.)
#[test]
fn g8_an_idle_primary_that_nobody_answers_abdicates() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let beats = s.hold(|f| f.is(0, 1) && f.name() == "Commit");
    s.isolate(0);
    s.pass(Duration::from_secs(1));
    assert!(s.core(0).explain().contains("without a quorum"), "{}", s.describe(0));
    let sent = s.held(beats).len();
    assert!(sent > 0);
    s.pass(Duration::from_secs(1));
    assert_eq!((s.held(beats).len(), s.view(0)), (sent, 0), "its heartbeats have stopped");
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    submit(&mut s, 1, client, 1, 1);
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
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

/// L-07: a primary that hears everything but requests (a hole in another implementation): what backups forward
/// is neither prepared nor answered, and they vote.
#[test]
fn l_07_a_primary_that_no_request_reaches_is_replaced() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.to == replica(0) && f.name() == "Requests");
    let passed = until_answered(&mut s, client, 1);
    assert!(passed <= Timing::default().forward_timeout * 2, "{passed:?}");
    assert!(!s.core(0).is_primary(), "{}", s.describe(0));
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
}

/// L-07 with clients that back off: each backup hears the request once. It asks the primary again by itself.
#[test]
fn l_07_a_primary_that_no_request_reaches_is_replaced_though_its_client_backs_off() {
    let mut s = Script::new(3);
    let (client, Timing { forward_timeout: forward, .. }) = (s.register(0), Timing::default());
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
    let (client, Timing { forward_timeout: forward, .. }) = (s.register(0), Timing::default());
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
    let (client, Timing { forward_timeout: forward, .. }) = (s.register(0), Timing::default());
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
    let (client, Timing { forward_timeout: forward, .. }) = (s.register(0), Timing::default());
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
    let (client, Timing { forward_timeout: forward, .. }) = (s.register(0), Timing::default());
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
    let (client, Timing { forward_timeout: forward, .. }) = (s.register(0), Timing::default());
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

/// B-08 with L-07: requests that backups pass on wait in the primary's queue for longer than `forward_timeout`, behind others that
/// are committed one after the other. A primary that works through its queue is not deposed.
#[test]
fn l_07_a_request_in_the_queue_of_a_primary_that_commits_is_no_reason_to_vote() {
    let mut members = membership(3);
    (members.constants.pipeline_max, members.constants.batch_requests_max) = (1, 1);
    let mut s = Script::with_membership(members);
    let Timing { forward_timeout: forward, .. } = Timing::default();
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
    let Timing { forward_timeout: forward, .. } = Timing::default();
    let (busy, first, second) = (s.register(0), s.register(0), s.register(0));
    s.lose(|f| f.to == replica(0) && f.name() == "PrepareOk");
    s.submit(0, busy, 1, b"w");
    write(&mut s, 1, first, 1, b"1");
    write(&mut s, 2, second, 1, b"2");
    let passed = until(&mut s, "r0 is replaced", |s| s.core(1).is_primary());
    assert!(passed >= forward && passed <= forward * 2, "{passed:?}");
    s.settle();
}

/// B-08: a forwarded request that is refused, time after time, is answered: that is no reason to vote.
#[test]
fn b_08_a_primary_that_refuses_forwards_is_not_deposed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    (0..3).for_each(|at| s.set_room(at, 0));
    s.pass(ms(300)); // each has said that it has no room: nobody would lead better
    for _ in 0..30 {
        for at in 1..3 {
            s.submit(at, client, 1, b"w");
            s.submit(at, client, 2, b"undecodable");
        }
        s.pass(ms(100));
    }
    let busy = s.outcomes(client, 1);
    assert!(busy.len() == 60 && busy.iter().all(|outcome| *outcome == Outcome::Busy(Busy::LogFull)), "{busy:?}");
    assert_eq!(s.views_entered(), 0);
    (0..3).for_each(|at| s.set_room(at, u64::MAX));
    submit(&mut s, 1, client, 1, 1);
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// M12: a request that is held back is answered: no backup that forwards it votes.
#[test]
fn m12_a_request_that_is_held_back_deposes_nobody() {
    let (mut s, client) = clogged();
    for _ in 0..30 {
        for at in 1..3 {
            s.submit_with_floor(at, client, 22, 1, b"w");
        }
        s.pass(ms(100));
    }
    assert_eq!((s.outcomes(client, 22), s.views_entered()), (times(60, Outcome::Busy(Busy::Replies)), 0));
    submit(&mut s, 1, client, 22, 22);
    assert_eq!(s.reply(client, 22), Some(b"22".to_vec()));
    s.settle();
}

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
                past: vsr::protocol::Past::default(),
                machine_version: 1,
                head_certain: true,
                has_room: true,
                life: core.life(),
                succession: vsr::protocol::Succession::First,
                known: Vec::new(),
                digests: Vec::new(),
            };
            s.inject(Script::flight(from, 0, Message::Ping(ping.into())));
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

/// PR-06: the primary is shut down, and the others while its hand-over is under way: all end, and go on from
/// their disks. (On one thread, with the real clock.)
#[test]
fn pr_06_a_shutdown_in_a_view_change_returns_and_the_restart_is_clean() {
    let config = |id: u8| Config::new(ClusterId(1), ReplicaId(id), ["a", "b", "c"]).expect("a configuration");
    let disks: Vec<MemoryStorage> = (0..3).map(|id| MemoryStorage::format(&config(id))).collect();
    let clock = SystemClock::new();
    for life in 1..=2 {
        let network = MemoryNetwork::new(3);
        let (mut replicas, mut handles) = (Vec::new(), Vec::new());
        for (id, disk) in (0..).zip(&disks) {
            let builder = Replica::builder(config(id), Sum::default()).storage(disk.clone());
            let (replica, handle) = builder.network(network.endpoint(ReplicaId(id))).build().expect("a replica");
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
