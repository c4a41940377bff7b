//! Repair and state transfer: how a replica gets what it lacks, and what it keeps until then.

use std::time::Duration;

use vsr::ReplicaId;
use vsr::protocol::{Header, Message, OpNumber, Peer};
use vsr_sim::Damage;
use vsr_sim::script::Script;

use crate::support::{eventually, leave_an_op_at_r2, ms, next_view, replica, until, watch, write};

/// M4: a backup that lost the last `Prepare`s, which the others have committed, catches up within its view.
#[test]
fn m4_a_backup_that_lost_the_last_prepares_catches_up() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let lost = s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    for number in 1..=3 {
        s.submit(0, client, number, b"w");
        s.run();
        assert!(s.reply(client, number).is_some());
    }
    assert_eq!(s.core(2).head().0, 1);
    s.forget(lost);
    s.pass(ms(500));
    assert_eq!((s.executed(2).len(), s.views_entered()), (3, 0), "{}", s.describe(2));
    s.settle();
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

/// D16: each op is damaged on all disks but one, never the same one: everything is repaired.
#[test]
fn d16_disks_that_are_damaged_in_turn_repair_each_other() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for (number, command) in [(1, b"a"), (2, b"b"), (3, b"c")] {
        write(&mut s, 0, client, number, command);
    }
    for at in 0..3 {
        s.crash(at);
    }
    for (op, at) in [(2, 0), (2, 1), (3, 1), (3, 2), (4, 0), (4, 2)] {
        s.rot(at, op, Damage::Body);
    }
    for at in 0..3 {
        s.restart(at);
    }
    s.settle();
    for at in 0..3 {
        assert_eq!(s.executed(at), ["a", "b", "c"]);
        for op in 1..=4 {
            assert!(s.disk(at).intact(OpNumber(op)).is_some(), "op {op} on r{at}");
        }
    }
}

/// SF-03: every op is damaged on all disks but one, each time another one.
#[test]
fn sf_03_a_helix_of_damage_is_repaired() {
    for n in [3, 5] {
        let mut s = Script::new(n);
        let client = s.register(0);
        for number in 1..=9 {
            s.submit(0, client, number, format!("{number}").as_bytes());
            s.run();
        }
        s.pass(Duration::from_millis(100));
        for at in 0..n {
            s.crash(at);
        }
        for at in 0..n {
            for op in (1..=10_usize).filter(|op| op % n != at) {
                let damage = if op < 10 && op % 2 == 1 { Damage::Both } else { Damage::Body };
                s.rot(at, op as u64, damage);
            }
        }
        for at in 0..n {
            s.restart(at);
        }
        s.settle();
        for at in 0..n {
            assert_eq!(s.executed(at), ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
            for op in 1..=10 {
                assert!(s.disk(at).intact(OpNumber(op)).is_some(), "op {op} is not repaired on the disk of r{at}");
            }
        }
    }
}

/// SF-20: an old entry cannot be read when a peer asks for it. It comes from another one, to both.
#[test]
fn sf_20_an_unreadable_entry_is_repaired_while_a_peer_asks_for_it() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let alone = s.isolate(2);
    let big = "x".repeat(200 << 10); // ten of them do not stay in memory
    for number in 1..=10 {
        s.submit(0, client, number, big.as_bytes());
        s.run();
    }
    s.rot(0, 3, Damage::Body);
    s.release(alone);
    s.cut(1, 2);
    s.pass(Duration::from_secs(3));
    assert!(s.marks("a stored entry is damaged") > 0, "r2 can ask r0 only");
    assert_eq!((s.executed(2).len(), s.views_entered()), (10, 0), "{}", s.describe(2));
    assert!(s.disk(0).intact(OpNumber(3)).is_some() && s.disk(2).intact(OpNumber(3)).is_some());
    s.settle();
}

/// B27 of the hazards, in part: the small messages of the primary arrive, its `Prepare`s never do. Backups get the
/// ops by `StartView` and repair, and requests are answered.
#[test]
fn b27_a_primary_whose_prepares_are_lost_serves_by_repair() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.from == replica(0) && f.name() == "Prepare");
    for number in 1..=3 {
        for _ in 0..20 {
            for at in 0..3 {
                s.submit(at, client, number, b"w");
            }
            s.pass(ms(100));
        }
        assert!(s.reply(client, number).is_some(), "request {number}: {}", s.describe(0));
    }
    s.settle();
    assert_eq!(s.executed(2).len(), 3);
}

/// ST-12: a backup with a slow disk that misses every other `Prepare`. It has caught up soon after the load
/// ends, and then asks for nothing more.
#[test]
fn st_12_a_slow_backup_catches_up_when_the_load_ends() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.is(0, 2) && matches!(&f.message, Message::Prepare { entry, .. } if entry.header.op.0 % 2 == 1));
    s.hold_disk(2);
    for number in 1..=300 {
        s.submit(0, client, number, b"w");
        s.pass(Duration::from_millis(5));
        assert!(s.reply(client, number).is_some(), "request {number}: {}", s.describe(0));
        if number % 4 == 1 {
            s.write_once(2);
        }
    }
    s.release_disk(2);
    s.pass(Duration::from_secs(2));
    assert_eq!(s.executed(2).len(), 300, "{}", s.describe(2));
    assert!((1..=301).all(|op| s.durable(2, op).is_some()));
    let asks = s.hold(|f| {
        let asks = matches!(f.name(), "RequestStartView" | "RequestHeaders" | "RequestEntries");
        asks && f.from == Peer::Replica(ReplicaId(2))
    });
    s.pass(Duration::from_secs(1));
    assert!(s.held(asks).is_empty(), "{:?}", s.held(asks));
    assert_eq!(s.views_entered(), 0);
    s.settle();
}

/// M2: a `Prepare` of the view is not taken by a replica that waits for the view's `StartView`, though it fits.
#[test]
fn m2_a_prepare_is_not_accepted_before_the_log_of_its_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let acks = s.hold(|f| f.from == replica(2) && f.name() == "PrepareOk");
    s.lose(|f| f.is(1, 2) && f.name() == "StartView");
    next_view(&mut s);
    s.submit(1, client, 1, b"w");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()), "r0 and r1 are enough");
    assert_eq!((s.view(2), s.core(2).log_view().number, s.core(2).head().0), (1, 0, 1), "{}", s.describe(2));
    assert!(s.held(acks).is_empty() && s.durable(2, 2).is_none());
    s.crash(1);
    s.pass(Duration::from_secs(2));
    assert!(s.core(2).is_primary(), "{}", s.describe(2));
    assert_eq!(s.executed(2), ["w"]);
    s.settle();
}

/// D01: a `Prepare` of a later view truncates nothing; until that view's log is installed, the `DoViewChange`
/// carries the old log with the old log_view.
#[test]
fn d01_a_later_view_heard_of_leaves_log_and_log_view_alone() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let alone = s.isolate(2);
    write(&mut s, 0, client, 1, b"v1");
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.forget(alone);
    // r0 and r2 move on to view 2; r1 hears nothing of it, and r0 never gets the log of view 2.
    let later = s.hold(|f| f.is(2, 1) && f.name() == "Prepare");
    s.hold(|f| f.is(2, 0) && f.name() == "StartView");
    s.lose(|f| matches!(f.name(), "Prepare" | "PrepareOk" | "Commit"));
    s.isolate(1);
    write(&mut s, 0, client, 2, b"v2");
    eventually(&mut s, |s| s.view(2) == 2 && s.core(2).is_primary());
    write(&mut s, 2, client, 3, b"v3");
    let prepares = s.held(later);
    assert!(!prepares.is_empty(), "v3 is on its way to r1");
    for flight in prepares {
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.view(1), s.core(1).log_view().number, s.core(1).head().0), (0, 0, 2));
    assert_eq!(s.durable(1, 2), s.durable(0, 2));
    // Before it can get that log, view 3 is formed by r0 and r1.
    s.heal();
    s.lose(|f| f.is(2, 0) && f.name() != "StartViewChange");
    s.cut(1, 2);
    let logs = s.hold(|f| f.is(1, 0) && matches!(&f.message, Message::DoViewChange(dvc) if dvc.view.number == 3));
    eventually(&mut s, |s| !s.held(logs).is_empty());
    let Message::DoViewChange(dvc) = s.held(logs).remove(0).message else { panic!("it is held by its kind") };
    assert_eq!((dvc.log_view.number, dvc.head.0), (0, 2), "r1 sends its old log under its old log_view");
    s.release(logs);
    s.run();
    s.settle();
    assert_eq!(s.executed(1), ["v1", "v2"]);
}

/// Steps 1 to 10 of the trace of D01, with replicas and views counted from 0: r0 is primary of views 0 and 3, r2
/// of view 2. v1 is acknowledged by r0 and r1; r2 leads view 2, which r1 hears of by a `Prepare` only; the
/// `StartView` that r1 asks for (the first rule) is on its way when r1 joins view 3, and so is r1's
/// `DoViewChange` (the second one).
fn trace_of_d01() -> (Script, usize, usize) {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.pass(Duration::from_millis(100));
    let to_2 = s.cut(0, 2);
    s.submit(0, client, 1, b"v1");
    s.run();
    assert!(s.reply(client, 1).is_some());
    let to_1 = s.cut(0, 1);
    s.submit_with_floor(0, client, 2, 1, b"v2");
    s.run();
    s.release(to_2);
    let unheard = s.cut(1, 2);
    s.lose(|f| f.is(2, 0) && f.name() == "StartView");
    s.inject(Script::flight(1, 2, Message::StartViewChange { leaving: Script::view_of(2), life: s.life(1) }));
    s.pass(Duration::from_millis(200));
    assert!(s.core(2).is_primary() && s.view(2) == 2, "{}", s.describe(2));
    assert_eq!((s.view(0), s.core(0).log_view().number, s.view(1)), (2, 0, 0));
    s.release(unheard);
    let start = s.hold(|f| f.is(2, 1) && f.name() == "StartView");
    s.submit_with_floor(2, client, 3, 1, b"v3");
    s.run();
    assert!(!s.held(start).is_empty(), "r1 asks for the log of the view that it has heard of");
    assert_eq!((s.view(1), s.core(1).head().0), (0, 2), "and keeps its own until then");
    s.release(to_1);
    s.cut(0, 2);
    s.lose(|f| f.is(1, 2));
    let vote = s.hold(|f| f.is(1, 0) && f.name() == "DoViewChange");
    s.inject(Script::flight(1, 0, Message::StartViewChange { leaving: Script::view_of(3), life: s.life(1) }));
    s.run();
    assert_eq!((s.view(0), s.view(1)), (3, 3));
    (s, start, vote)
}

/// ST-01, at its last step: r1 brings its old log with its old log_view, and what it acknowledged survives.
#[test]
fn st_01_d01_an_unfinished_transfer_drops_nothing() {
    let (mut s, _, vote) = trace_of_d01();
    let held = s.held(vote);
    let Some(Message::DoViewChange(said)) = held.first().map(|f| &f.message) else { panic!("r1 sends its log") };
    assert_eq!((said.view.number, said.log_view.number, said.head.0), (3, 0, 2));
    let v1 = s.core(0).checksum(OpNumber(2));
    assert_eq!(said.headers.last().map(Header::checksum), v1);
    s.release(vote);
    s.run();
    assert!(s.core(0).is_primary(), "{}", s.describe(0));
    assert_eq!(s.core(0).checksum(OpNumber(2)), v1);
    s.settle();
    for at in 0..3 {
        assert_eq!(s.executed(at)[0], "v1");
    }
}

/// ST-02: the `StartView` that r1 has asked for arrives after it has joined a later view.
#[test]
fn st_02_d01_a_late_answer_is_dropped() {
    let (mut s, start, vote) = trace_of_d01();
    for flight in s.held(start) {
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.view(1), s.core(1).log_view().number, s.core(1).head().0), (3, 0, 2));
    s.release(vote);
    s.run();
    for flight in s.held(start) {
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.view(1), s.core(1).log_view().number), (3, 3), "{}", s.describe(1));
    s.settle();
    for at in 0..3 {
        assert_eq!(s.executed(at)[0], "v1");
    }
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

/// D02: a `Prepare` of a later view that leaves no gap to the replica's head is not appended: the op below it is another
/// one in that view.
#[test]
fn d02_a_later_views_prepare_is_never_appended() {
    let mut s = Script::new(3);
    let client = s.register(0);
    leave_an_op_at_r2(&mut s, client);
    let later =
        s.hold(|f| f.is(1, 2) && matches!(&f.message, Message::Prepare { entry, .. } if entry.header.op.0 == 3));
    let acks = s.hold(|f| f.is(2, 1) && f.name() == "PrepareOk");
    s.isolate(2);
    s.restart(0);
    s.run();
    write(&mut s, 1, client, 2, b"B");
    write(&mut s, 1, client, 3, b"C");
    assert!(s.reply(client, 3).is_some(), "view 1 has chosen B and C: {}", s.describe(1));
    let prepares = s.held(later);
    assert!(!prepares.is_empty(), "op 3 of view 1 is on its way to r2");
    for flight in prepares {
        s.inject(flight);
    }
    s.run();
    assert!(s.held(acks).is_empty(), "r2 acknowledges nothing on top of A");
    assert_eq!((s.view(2), s.core(2).head().0, s.durable(2, 3)), (0, 2, None));
    s.settle();
    assert_eq!(s.executed(2), ["B", "C"]);
    assert_eq!((s.durable(2, 2), s.reply(client, 1)), (s.durable(1, 2), None));
}

/// ST-04, D02: r2 holds A of view 0 at op 3, view 1 has B there. The `Prepare` of op 4 fits r2's head by its
/// number only, and is not acknowledged before B has replaced A.
#[test]
fn st_04_d02_a_prepare_of_a_later_view_waits_for_its_log() {
    let mut s = Script::new(3);
    let (client, other) = (s.register(0), s.register(0));
    s.pass(Duration::from_millis(100));
    s.hold_disk(0);
    let to_1 = s.cut(0, 1);
    s.submit(0, client, 1, b"A");
    s.run();
    let a = s.durable(2, 3);
    assert!(a.is_some() && s.durable(0, 3).is_none() && s.reply(client, 1).is_none());
    let alone = s.isolate(2);
    s.crash(0);
    s.release(to_1);
    s.release_disk(0);
    s.restart(0);
    s.run();
    s.submit(1, other, 1, b"B");
    s.run();
    assert_eq!(s.reply(other, 1), Some(b"1".to_vec()), "{}", s.describe(1));
    let start = s.hold(|f| f.is(1, 2) && f.name() == "StartView");
    let acks = s.hold(|f| f.is(2, 1) && f.name() == "PrepareOk");
    s.release(alone);
    s.submit(1, other, 2, b"C");
    s.run();
    assert!(!s.held(start).is_empty() && s.held(acks).is_empty(), "{}", s.describe(2));
    assert_eq!((s.durable(2, 3), s.durable(2, 4), s.core(2).head().0), (a, None, 3));
    s.release(start);
    s.run();
    assert_eq!(s.durable(2, 3), s.durable(1, 3), "{}", s.describe(2));
    for flight in s.held(acks) {
        let Message::PrepareOk { op, checksum, .. } = flight.message else { continue };
        assert_eq!(Some(checksum), s.core(1).checksum(op), "op {op}");
    }
    s.release(acks);
    s.settle();
    assert_eq!(s.executed(2), ["B", "C"]);
}
