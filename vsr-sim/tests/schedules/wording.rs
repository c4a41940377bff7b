//! Schedules that an earlier wording of the design allowed: views, durability and repair (F).

use std::time::Duration;

use vsr::protocol::{DoViewChange, Life, Ping};
use vsr::{
    ClientId, CommitNumber, Epoch, Membership, MembershipError, Message, OpNumber, Peer, Quorums, ReplicaId, Timestamp,
    View,
};
use vsr_sim::Damage;
use vsr_sim::script::{Flight, Script};

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn replica(at: usize) -> Peer {
    Peer::Replica(ReplicaId(at as u8))
}

/// A membership of this size with constants or quorums of its own.
pub(crate) fn members(n: usize, change: impl FnOnce(&mut Membership)) -> Membership {
    let mut membership = Membership::new((0..n).map(|at| format!("replica {at}"))).expect("1 to 9 members");
    change(&mut membership);
    membership
}

/// A ping as this replica would send it, but for a change.
pub(crate) fn ping(s: &Script, from: usize, change: impl FnOnce(&mut Ping)) -> Message {
    let core = s.core(from);
    let mut ping = Ping {
        view: core.view(),
        normal: true,
        commit: core.commit(),
        head: core.head(),
        wall: Timestamp(0),
        checkpoint: OpNumber::ZERO,
        machine_version: 1,
        head_certain: true,
        has_room: true,
        life: core.life(),
        known: Vec::new(),
    };
    change(&mut ping);
    Message::Ping(ping)
}

/// Restarts the primary: it moves to the next view by itself, and the others join. No time passes.
pub(crate) fn next_view(s: &mut Script) {
    let primary = (0..s.len()).find(|&at| s.core(at).is_primary()).expect("a primary");
    s.crash(primary);
    s.restart(primary);
    s.run();
}

/// r2 holds so many ops of view 0 from op 2 on, each an `A`, that nobody else has, and is cut off by the rule that is
/// returned. r1 is the primary of view 1, in which r0 and r1 have committed `B` as op 2, under number 100.
pub(crate) fn stale(ops: u64) -> (Script, ClientId, usize) {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(0);
    s.cut(0, 1);
    s.lose(|f| f.is(2, 0) && f.name() == "PrepareOk");
    for number in 1..=ops {
        s.submit_with_floor(0, client, number, 1, b"A");
        s.run();
    }
    assert!(s.durable(2, 1 + ops).is_some() && s.durable(0, 2).is_none() && s.durable(1, 2).is_none());
    s.crash(0);
    s.release_disk(0);
    s.heal();
    let alone = s.isolate(2);
    s.restart(0);
    s.run();
    assert!(s.core(1).is_primary() && s.view(1) == 1, "{}", s.describe(1));
    s.submit_with_floor(1, client, 100, 1, b"B");
    s.run();
    assert_eq!(s.reply(client, 100), Some(b"1".to_vec()));
    (s, client, alone)
}

pub(crate) fn log_of(flight: Flight) -> Option<DoViewChange> {
    match flight.message {
        Message::DoViewChange(dvc) => Some(dvc),
        _ => None,
    }
}

/// F1: an older entry that fits on the last applied op proves nothing, neither after a `StartView` nor at a restart.
#[test]
fn f1_a_stale_entry_that_fits_the_last_applied_op_is_not_applied() {
    let (mut s, client, alone) = stale(1);
    s.submit_with_floor(1, client, 101, 1, b"C");
    s.run();
    s.lose(|f| f.is(0, 1) && f.name() == "PrepareOk");
    for number in 102..=104 {
        s.submit_with_floor(1, client, number, 1, b"D");
        s.run();
    }
    assert_eq!((s.core(1).commit().0, s.core(1).head().0), (3, 6));
    // r2 learns the end of the log, and that op 3 is committed; what lies between it may not ask for.
    s.release(alone);
    s.lose(|f| f.from == replica(2) && matches!(f.name(), "RequestHeaders" | "RequestEntries"));
    let ask = Message::RequestStartView { view: s.core(1).view(), nonce: 1 };
    s.inject(Script::flight(2, 1, ask));
    s.run();
    assert_eq!((s.view(2), s.core(2).commit().0, s.core(2).head().0), (1, 3, 6), "{}", s.describe(2));
    assert_ne!(s.durable(2, 2), s.durable(1, 2), "A is still on its disk");
    assert!(s.executed(2).is_empty(), "{:?}", s.executed(2));
    s.crash(2);
    s.restart(2);
    s.run();
    assert!(s.core(2).commit().0 >= 3 && s.executed(2).is_empty(), "{:?}", s.executed(2));
    s.settle();
    assert_eq!(s.executed(2), ["B", "C", "D", "D", "D"]);
}

/// F2: of several logs with the highest log_view, the longest counts: a shorter one drops nothing acknowledged.
#[test]
fn f2_the_longest_of_the_newest_logs_is_chosen() {
    let mut s = Script::new(3);
    let client = s.register(0);
    next_view(&mut s);
    s.submit(1, client, 1, b"a");
    s.run();
    let missed = s.cut_one_way(1, 2);
    s.submit(1, client, 2, b"b");
    s.run();
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.crash(1);
    s.release(missed);
    assert_eq!((s.core(2).head().0, s.core(0).head().0), (2, 3));
    s.pass(Duration::from_secs(2));
    assert!(s.core(2).is_primary() && s.view(2) == 2, "{}", s.describe(2));
    assert_eq!(s.executed(2), ["a", "b"]);
    s.settle();
    assert_eq!(s.executed(1), ["a", "b"]);
}

/// F2: the logs with the highest log_view are merged: what is blank in the longest stands in another.
#[test]
fn f2_a_blank_in_the_longest_log_is_filled_from_the_others() {
    let mut s = Script::new(3);
    let client = s.register(0);
    next_view(&mut s);
    s.submit(1, client, 1, b"a");
    s.run();
    let acks = s.hold(|f| f.name() == "PrepareOk");
    s.submit(1, client, 2, b"b");
    s.run();
    let missed = s.cut_one_way(1, 2);
    s.submit_with_floor(1, client, 3, 2, b"c");
    s.run();
    s.release(acks);
    s.run();
    assert_eq!(s.reply(client, 3), Some(b"3".to_vec()));
    s.crash(1);
    s.crash(0);
    s.rot(0, 3, Damage::Both);
    s.forget(missed);
    let repair = s.lose(|f| f.is(0, 2) && matches!(f.name(), "RequestHeaders" | "RequestEntries"));
    s.restart(0);
    s.pass(Duration::from_secs(2));
    assert!(s.core(2).is_primary() && s.view(2) == 2, "{}", s.describe(2));
    assert_eq!(s.core(2).head().0, 4, "r0 had op 4, r2 had op 3");
    s.release(repair);
    s.settle();
    assert_eq!(s.executed(0), ["a", "b", "c"]);
}

/// F4: a put that was under way when a view with that very entry began counts in that view: nobody waits for ever.
#[test]
fn f4_a_put_that_ends_in_a_later_view_is_acknowledged_there() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(2);
    let missed = s.lose(|f| f.is(0, 1) && f.name() == "Prepare");
    s.submit(0, client, 1, b"A");
    s.run();
    s.forget(missed);
    s.lose(|f| f.is(0, 1) && f.name() == "PrepareOk");
    next_view(&mut s);
    assert!(s.core(1).is_primary() && s.core(1).head().0 == 2, "{}", s.describe(1));
    s.crash(0);
    s.write_once(2);
    s.run();
    assert!(s.durable(2, 2).is_some(), "the put of view 0 is durable");
    assert_eq!(s.core(1).commit().0, 1, "r2 is not durably in view 1");
    s.write_once(2);
    s.run();
    assert_eq!(s.core(1).commit().0, 2, "{}", s.describe(2));
    s.submit(1, client, 1, b"A");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
    assert_eq!(s.executed(2), ["A"]);
}

/// F4: A is put, truncated, and put again, with the disk behind: the first put proves nothing for the last.
#[test]
fn f4_an_older_put_of_the_same_entry_proves_nothing() {
    let mut s = Script::new(5);
    let client = s.register(0);
    let acks = s.hold(|f| f.from == replica(2) && f.name() == "PrepareOk");
    let acked = |s: &Script| {
        s.held(acks).iter().any(|f| matches!(&f.message, Message::PrepareOk { op, .. } if *op == OpNumber(2)))
    };
    s.hold_disk(2);
    s.lose(|f| f.from == replica(0) && f.to != replica(2) && f.name() == "Prepare");
    s.submit(0, client, 1, b"A");
    s.run();
    let a = s.durable(0, 2);
    assert!(a.is_some() && s.durable(2, 2).is_none());
    // View 1 of r1 does without A; only r2 hears of its start.
    s.lose(|f| f.is(0, 1) && f.name() == "DoViewChange");
    s.lose(|f| f.from == replica(1) && f.to != replica(2) && f.name() == "StartView");
    next_view(&mut s);
    assert_eq!((s.view(2), s.core(2).log_view().number, s.core(2).head().0), (1, 1, 1), "{}", s.describe(2));
    // View 3 of r0, r3 and r4 has A again, and not enough acknowledgements.
    s.isolate(1);
    let alone = s.isolate(2);
    s.lose(|f| f.to == replica(3) && f.name() == "PrepareOk");
    s.pass(Duration::from_secs(5));
    assert!(s.core(3).is_primary() && s.view(3) == 3, "{}", s.describe(3));
    s.release(alone);
    let ask = Message::RequestStartView { view: s.core(3).view(), nonce: 1 };
    s.inject(Script::flight(2, 3, ask));
    s.pass(ms(500));
    assert_eq!((s.view(2), s.core(2).head().0, s.core(2).commit().0), (3, 2, 1), "{}", s.describe(2));
    for (durable, acknowledged) in [(a, false), (None, false), (a, true)] {
        s.write_once(2);
        s.run();
        assert_eq!((s.durable(2, 2), acked(&s)), (durable, acknowledged), "{}", s.describe(2));
    }
    s.settle();
    assert_eq!(s.executed(2), ["A"]);
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

/// F6: the only copy is on a replica whose head is uncertain, and whose `DoViewChange` is not heard: it serves it.
#[test]
fn f6_the_only_copy_is_served_by_a_replica_that_does_not_count() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.cut(0, 1);
    s.submit(0, client, 1, b"x");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.hold_disk(0);
    s.submit(0, client, 2, b"y");
    s.run();
    assert!(s.durable(2, 3).is_some() && s.reply(client, 2).is_none());
    for at in 0..3 {
        s.crash(at);
    }
    s.release_disk(0);
    s.heal();
    s.rot(0, 2, Damage::Body);
    s.rot(2, 3, Damage::Both);
    s.lose(|f| f.from == replica(2) && f.name() == "DoViewChange");
    for at in 0..3 {
        s.restart(at);
    }
    s.run();
    assert!(s.core(1).is_primary() && s.core(1).head().0 == 2, "{}", s.describe(1));
    assert!(!s.disk(2).state().head_certain, "r2 has only served");
    s.settle();
    assert_eq!(s.executed(2), ["x"]);
    assert_eq!(s.executed(1), ["x"]);
}

/// F7 a: whoever is in a view change votes, too: the next primary is dead as well.
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

/// F9: damage is no nack, with the header known or not: an acknowledged op is waited for.
#[test]
fn f9_a_damaged_op_is_not_nacked() {
    for damage in [Damage::Body, Damage::Both] {
        let mut s = Script::new(3);
        let client = s.register(0);
        s.cut(0, 1);
        s.submit(0, client, 1, b"x");
        s.run();
        assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
        s.crash(0);
        s.crash(2);
        s.heal();
        s.rot(2, 2, damage);
        s.restart(2);
        s.pass(Duration::from_secs(6));
        assert!(!s.is_normal(1) && !s.is_normal(2), "{damage:?}: {}", s.describe(1));
        assert_eq!(s.marks("truncated by a nack quorum"), 0);
        s.restart(0);
        s.settle();
        assert_eq!(s.executed(1), ["x"], "{damage:?}");
    }
}

/// F9: a nack quorum is n - replication quorum + 1, not a majority: of four, two that never had an op prove nothing.
#[test]
fn f9_a_nack_quorum_follows_from_the_replication_quorum() {
    let mut s = Script::new(4);
    let client = s.register(0);
    s.lose(|f| (f.is(0, 1) || f.is(0, 2)) && f.name() == "Prepare");
    s.submit(0, client, 1, b"x");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()), "two of four commit");
    s.crash(0);
    s.crash(3);
    s.heal();
    s.rot(3, 2, Damage::Body);
    s.restart(3);
    s.pass(Duration::from_secs(6));
    assert!((1..4).all(|at| !s.is_normal(at)), "{}", s.describe(1));
    assert_eq!(s.marks("truncated by a nack quorum"), 0);
    s.restart(0);
    s.settle();
    assert_eq!(s.executed(3), ["x"]);
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

/// F11, M19: whoever restarts with log_view < view stays in that view, sends the same `DoViewChange` again, and takes
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

/// F15: quorums that let a single vote move the cluster are refused; with others, a single vote moves nobody.
#[test]
fn f15_a_single_vote_moves_no_cluster() {
    for n in 2..=9_u8 {
        let quorums = Quorums { replication: n, view_change: 1, nack: 1 };
        let mut membership = members(usize::from(n), |membership| membership.quorums = quorums);
        let refused = MembershipError::Quorums { n, replication: n, view_change: 1, nack: 1 };
        assert_eq!(membership.validate(), Err(refused));
        membership.quorums.view_change = n / 2 + 1;
        assert_eq!(membership.validate(), Ok(()));
    }
    let quorums = Quorums { replication: 3, view_change: 2, nack: 1 };
    let mut s = Script::with_membership(members(3, |membership| membership.quorums = quorums));
    let client = s.register(0);
    for to in [0, 1, 0, 1] {
        s.inject(Script::flight(2, to, Message::StartViewChange { view: Script::view_of(0), life: s.life(2) }));
    }
    s.submit(0, client, 1, b"w");
    s.pass(Duration::from_secs(1));
    assert_eq!((s.reply(client, 1), s.views_entered()), (Some(b"1".to_vec()), 0));
    s.settle();
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

/// F17, M14: a primary with a hanging disk commits no more than a pipeline on the others' copies, and abdicates.
#[test]
fn f17_a_primary_whose_disk_hangs_fills_its_pipeline_and_abdicates() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(0);
    for number in 1..=100 {
        s.submit_with_floor(0, client, number, 1, b"w");
        s.run();
    }
    assert_eq!((s.core(0).commit().0, s.core(0).head().0, s.core(0).queued()), (33, 33, 68));
    s.pass(Duration::from_secs(4));
    assert!(s.core(1).is_primary() && s.view(1) == 1, "{}", s.describe(1));
    for number in 1..=100 {
        s.submit_with_floor(1, client, number, 1, b"w");
        s.run();
        assert!(s.reply(client, number).is_some(), "request {number}");
    }
    s.settle();
    assert_eq!(s.executed(0).len(), 100);
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
        assert_eq!((dvc.commit.0, dvc.head.0, dvc.facts.len()), (61, 93, 32));
        assert!(dvc.headers.len() <= 33, "{} headers", dvc.headers.len());
    }
    s.release(logs);
    s.settle();
    assert_eq!(s.executed(1).len(), 92);
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
        let vote = Message::StartViewChange { view: new, life: s.life(from) };
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
