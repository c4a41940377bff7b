//! Disks that tear, rot, hang, slow down and fill up; and the schedules of state transfer that `StartView` and
//! repair must survive.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use vsr::{Entry, Fault, Header, Message, OpNumber, Peer, ReplicaId};
use vsr_sim::Damage;
use vsr_sim::script::Script;

/// SF-01: power fails at a backup within the write of op 9. The op is dropped there, and repaired.
#[test]
fn sf_01_an_unfinished_append_is_dropped_and_repaired() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=7 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    let acks = s.hold(|f| f.is(2, 0) && f.name() == "PrepareOk");
    s.hold_disk(2);
    s.submit(0, client, 8, b"torn");
    s.run();
    assert!(s.reply(client, 8).is_some(), "two disks are enough");
    assert!(s.held(acks).is_empty(), "r2 acknowledges what is not durable");
    s.crash(2);
    s.release(acks);
    s.release_disk(2);
    s.restart(2);
    assert_eq!((s.core(2).head().0, s.durable(2, 9)), (8, None));
    assert!(s.is_normal(2), "{}", s.describe(2));
    s.pass(Duration::from_millis(500));
    assert!(s.durable(2, 9).is_some());
    assert_eq!((s.executed(2).len(), s.views_entered()), (8, 0));
    s.settle();
}

/// SF-02: op 4 is committed on r0 and r1, it rots at r1, and r0 stops. r2 never had it, r1 must not say so: both
/// wait for r0, also when r1 has lost the header with the body, and has learnt it again from r0.
#[test]
fn sf_02_a_rotten_copy_is_no_proof_that_there_was_none() {
    for damage in [Damage::Body, Damage::Both] {
        let mut s = Script::new(3);
        let client = s.register(0);
        for number in 1..=2 {
            s.submit(0, client, number, b"w");
            s.run();
        }
        s.pass(Duration::from_millis(100));
        s.isolate(2);
        s.submit(0, client, 3, b"op 4");
        s.run();
        assert_eq!(s.reply(client, 3), Some(b"3".to_vec()));
        let entry = s.durable(1, 4);
        s.crash(1);
        s.rot(1, 4, damage);
        s.lose(|f| f.name() == "Entries");
        s.restart(1);
        s.run();
        if damage == Damage::Both {
            s.pass(Duration::from_millis(200));
        }
        assert_eq!(s.core(1).checksum(OpNumber(4)), entry, "r1 knows the header: {}", s.describe(1));
        s.crash(0);
        s.heal();
        s.pass(Duration::from_secs(3));
        assert!(damage == Damage::Both || (!s.is_normal(1) && !s.is_normal(2)), "{}", s.describe(1));
        for at in 1..3 {
            s.submit(at, client, 4, b"next");
        }
        s.run();
        assert_eq!(s.reply(client, 4), None, "{}", s.describe(1));
        assert_eq!((s.durable(1, 4), s.executed(1).len(), s.executed(2).len()), (entry, 2, 2));
        assert!(s.core(1).head().0 >= 4 && s.marks("truncated by a nack quorum") == 0);
        s.restart(0);
        s.settle();
        assert_eq!(s.executed(2)[..3], ["w", "w", "op 4"]);
        assert!(s.disk(1).intact(OpNumber(4)).is_some());
        for at in 0..3 {
            s.submit(at, client, 4, b"next");
        }
        s.run();
        assert_eq!(s.reply(client, 4), Some(b"4".to_vec()));
        s.settle();
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

/// Damages one op on all three disks while the cluster is down, then waits, and asks for more: nothing is executed
/// past the op, answered, or truncated. Returns a copy that an operator might have.
fn without_any_copy(op: u64) -> (Script, Entry) {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=3 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    let copy = s.disk(0).intact(OpNumber(op)).cloned().expect("the op is there");
    for at in 0..3 {
        s.crash(at);
        s.rot(at, op, Damage::Body);
    }
    for at in 0..3 {
        s.restart(at);
    }
    s.pass(Duration::from_secs(3));
    for at in 0..3 {
        s.submit(at, client, 4, b"more");
    }
    s.run();
    assert_eq!(s.reply(client, 4), None);
    for at in 0..3 {
        assert!(s.core(at).head().0 >= 4 && s.core(at).applied().0 < op, "{}", s.describe(at));
        assert!(s.durable(at, 4).is_some(), "{}", s.describe(at));
        assert_eq!(s.durable(at, op), Some(copy.header.checksum()));
    }
    (s, copy)
}

/// The copy turns up; nothing else was missing.
fn goes_on_with(mut s: Script, copy: &Entry) {
    for at in 0..3 {
        s.inject(Script::flight((at + 1) % 3, at, Message::Entries { entries: vec![copy.clone()] }));
    }
    s.settle();
    for at in 0..3 {
        assert_eq!(s.executed(at)[..3], ["w", "w", "w"]);
        assert!(s.disk(at).intact(copy.header.op).is_some(), "r{at} keeps the copy");
    }
}

/// SF-04: no replica has a copy of a committed op. All name it, nothing above it is executed, nothing is dropped.
#[test]
fn sf_04_a_committed_op_without_any_copy_is_named_and_not_given_up() {
    let (s, copy) = without_any_copy(3);
    for at in 0..3 {
        let words = "op 3 is committed, and no intact copy has been found yet";
        assert!(s.is_normal(at) && s.describe(at).contains(words), "{}", s.describe(at));
    }
    goes_on_with(s, &copy);
}

/// SF-04: the same with the last op, of which nobody knows whether it is committed: no view starts without it.
#[test]
fn sf_04_a_head_without_any_copy_is_waited_for() {
    let (s, copy) = without_any_copy(4);
    let words = "op 4 has neither an intact copy nor a nack quorum yet, waiting for an operator";
    assert!((0..3).all(|at| !s.is_normal(at)), "{}", s.describe(0));
    assert!((0..3).any(|at| s.describe(at).contains(words)), "{}", s.describe(0));
    assert_eq!(s.marks("truncated by a nack quorum"), 0);
    goes_on_with(s, &copy);
}

/// SF-04: a cluster of one has nobody to ask. It refuses to start, and names the op.
#[test]
fn sf_04_a_cluster_of_one_refuses_a_damaged_op() {
    let mut s = Script::new(1);
    let client = s.register(0);
    for number in 1..=3 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    let before = s.durable(0, 3);
    s.crash(0);
    s.rot(0, 3, Damage::Body);
    let refused = s.try_restart(0);
    assert_eq!(refused, Err(Fault::SoloDamaged { op: OpNumber(3) }));
    assert_eq!((s.durable(0, 3), s.durable(0, 4).is_some()), (before, true));
}

/// SF-09: a crash after any message or write, with the write under way lost or just done. Every op that was
/// acknowledged is on the disk, and every answered request survives.
#[test]
fn sf_09_every_acknowledged_op_is_on_the_disk_after_a_crash_anywhere() {
    let plan = "sswswsww"; // requests sent, and writes completed
    let crashes = (0..3).flat_map(|at| (0..=8).flat_map(move |steps| [(at, steps, false), (at, steps, true)]));
    for (at, steps, kept) in crashes {
        let mut s = Script::new(3);
        let client = s.register(0);
        let acknowledged = Rc::new(Cell::new(0_u64));
        let seen = Rc::clone(&acknowledged);
        s.lose(move |f| {
            if let Message::PrepareOk { op, .. } = &f.message
                && f.from == Peer::Replica(ReplicaId(at as u8))
            {
                seen.set(seen.get().max(op.0));
            }
            false
        });
        s.hold_disk(at);
        let mut number = 0;
        for step in plan.chars().take(steps) {
            if step == 's' {
                number += 1;
                s.submit_with_floor(0, client, number, 1, b"w");
            } else {
                s.write_once(at);
            }
            s.run();
        }
        if kept {
            s.crash_after_write(at);
        } else {
            s.crash(at);
        }
        let (acknowledged, case) = (acknowledged.get(), format!("r{at}, {steps} steps, kept: {kept}"));
        let answered = (1..=number).filter(|&number| s.reply(client, number).is_some()).count();
        s.release_disk(at);
        s.restart(at);
        assert!(s.core(at).head().0 >= acknowledged, "{case}: {}", s.describe(at));
        assert!((1..=acknowledged).all(|op| s.durable(at, op).is_some()), "{case}: up to {acknowledged}");
        s.settle();
        assert!(s.executed(at).len() >= answered, "{case}: {answered} answered");
    }
}

/// SF-13: the disk of a backup is full. It vouches for nothing that it cannot store, the others go on, and it
/// comes back as it is when there is room.
#[test]
fn sf_13_a_backup_without_room_vouches_for_nothing_and_rejoins() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.set_room(2, 0);
    for number in 1..=20 {
        s.submit(0, client, number, b"w");
        s.pass(Duration::from_millis(500));
        assert!(s.reply(client, number).is_some(), "request {number}: {}", s.describe(0));
    }
    assert_eq!(s.durable(2, 2), None);
    let alone = s.isolate(1);
    s.submit(0, client, 21, b"w");
    s.pass(Duration::from_millis(100));
    assert_eq!(s.reply(client, 21), None, "r2 has no room for it, and r1 does not know of it");
    s.release(alone);
    s.pass(Duration::from_millis(500));
    assert!(s.reply(client, 21).is_some(), "{}", s.describe(0));
    s.set_room(2, u64::MAX);
    s.pass(Duration::from_secs(1));
    assert!((1..=22).all(|op| s.disk(2).intact(OpNumber(op)).is_some()), "{}", s.describe(2));
    assert_eq!((s.executed(2).len(), s.views_entered()), (21, 0));
    s.settle();
}

/// SF-15: a write of the primary never ends. The others commit without its disk; after a bound it gives up.
#[test]
fn sf_15_a_primary_whose_disk_hangs_abdicates() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(0);
    s.submit(0, client, 1, b"w");
    s.run();
    assert!(s.reply(client, 1).is_some(), "two disks are enough");
    let bound = vsr::Timing::default().disk;
    s.pass(bound - Duration::from_millis(500));
    s.submit(0, client, 2, b"w");
    s.run();
    assert_eq!((s.reply(client, 2), s.views_entered()), (Some(b"2".to_vec()), 0));
    s.pass(Duration::from_millis(500) + vsr::Timing::default().suspect * 3);
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    assert_eq!(s.durable(0, 2), None, "its disk still hangs");
    s.submit(1, client, 3, b"w");
    s.run();
    assert_eq!(s.reply(client, 3), Some(b"3".to_vec()));
    s.settle();
    assert_eq!(s.executed(0).len(), 3);
}

/// SF-16: one disk takes 100 ms for a write, that of a backup or that of the primary.
#[test]
fn sf_16_a_slow_disk_delays_nobody() {
    for slow in [2, 0] {
        let mut s = Script::new(3);
        let client = s.register(0);
        s.hold_disk(slow);
        for number in 1..=50 {
            s.submit(0, client, number, b"w");
            s.run();
            assert!(s.reply(client, number).is_some(), "r{slow} is slow, request {number}: {}", s.describe(0));
            s.pass(Duration::from_millis(20));
            if number % 5 == 1 {
                s.write_once(slow);
            }
        }
        assert_eq!(s.views_entered(), 0, "r{slow} is slow");
        s.settle();
        assert_eq!(s.executed(slow).len(), 50);
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
    s.inject(Script::flight(1, 2, Message::StartViewChange { view: Script::view_of(2), life: s.life(1) }));
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
    s.inject(Script::flight(1, 0, Message::StartViewChange { view: Script::view_of(3), life: s.life(1) }));
    s.run();
    assert_eq!((s.view(0), s.view(1)), (3, 3));
    (s, start, vote)
}

/// ST-01, step 11: r1 brings its old log with its old log_view, and what it acknowledged survives.
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
