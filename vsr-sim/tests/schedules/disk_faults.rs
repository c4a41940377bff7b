//! Disks that tear, rot, hang, slow down and fill up.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use vsr::ReplicaId;
use vsr::protocol::{Busy, Entry, Halt, Message, OpNumber, Outcome, Peer, Request, RequestNumber};
use vsr_sim::Damage;
use vsr_sim::script::{Flight, Script};

use crate::support::{describe, members, ms, replica, submit, watch, write};

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
    assert_eq!(refused, Err(Halt::SoloDamaged { op: OpNumber(3) }));
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

/// B-33: a replica without room takes in nothing, and says so; the others go on, and it catches up.
#[test]
fn b_33_without_room_nothing_is_taken_in() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.set_room(2, 0);
    for number in 1..=3 {
        submit(&mut s, 0, client, number, number);
        assert!(s.reply(client, number).is_some());
    }
    assert_eq!((s.core(2).head().0, s.durable(2, 2)), (1, None), "it has accepted nothing");
    s.set_room(0, 0);
    s.pass(ms(300)); // r2 has said that it has no room: one other that has makes no quorum
    submit(&mut s, 0, client, 4, 4);
    assert_eq!((s.outcomes(client, 4), s.core(0).head().0), (vec![Outcome::Busy(Busy::LogFull)], 4));
    s.set_room(0, u64::MAX);
    s.set_room(2, u64::MAX);
    submit(&mut s, 0, client, 4, 4);
    assert_eq!(s.reply(client, 4), Some(b"4".to_vec()));
    s.settle();
    assert_eq!((s.executed(2).len(), s.views_entered()), (4, 0));
}

/// B14: a backup asks for no more than its disk has room for. It asked for everything that it lacked, at each retry, and threw it away.
#[test]
fn b14_a_backup_asks_for_no_more_than_finds_room() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.set_room(2, 0);
    let asks = watch(&mut s, |f| f.from == replica(2) && f.name() == "RequestEntries");
    for number in 1..=20 {
        write(&mut s, 0, client, number, b"w");
        s.pass(ms(100));
        assert!(s.reply(client, number).is_some(), "request {number}: {}", s.describe(0));
    }
    s.pass(Duration::from_secs(3));
    assert!(s.core(2).head().0 > 1, "a StartView has told it of what it lacks: {}", s.describe(2));
    assert!(asks.borrow().is_empty(), "{:?}", asks.borrow());
    // Each of these ops takes some 2,100 bytes.
    s.set_room(2, 10_000);
    s.pass(Duration::from_secs(3));
    let bodies = |flight: &Flight| match &flight.message {
        Message::RequestEntries { wanted } => wanted.len(),
        _ => 0,
    };
    let most = asks.borrow().iter().map(bodies).max();
    assert!(most.is_some_and(|most| (1..=4).contains(&most)), "{most:?} in one question");
    assert_eq!((s.executed(2).len(), s.views_entered()), (20, 0), "{}", s.describe(2));
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
    let bound = vsr::Timing::default().disk_stall_timeout;
    s.pass(bound - Duration::from_millis(500));
    s.submit(0, client, 2, b"w");
    s.run();
    assert_eq!((s.reply(client, 2), s.views_entered()), (Some(b"2".to_vec()), 0));
    s.pass(Duration::from_millis(500) + vsr::Timing::default().primary_timeout * 3);
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    assert_eq!(s.durable(0, 2), None, "its disk still hangs");
    s.submit(1, client, 3, b"w");
    s.run();
    assert_eq!(s.reply(client, 3), Some(b"3".to_vec()));
    s.settle();
    assert_eq!(s.executed(0).len(), 3);
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

fn weight(message: &Message) -> usize {
    match message {
        Message::Requests { requests, .. } => requests.iter().map(|request| request.command.len()).sum(),
        Message::Prepare { entry, .. } => entry.body.len(),
        Message::Entries { entries } => entries.iter().map(|entry| entry.body.len()).sum(),
        _ => 64,
    }
}

/// Rule 6.10: what waits for a disk that hangs has a bound, however long it hangs and whatever clients ask.
#[test]
fn b14_what_waits_for_a_hung_disk_is_bounded() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"b");
    s.crash(2);
    s.hold_disk(2);
    s.restart(2); // its first write hangs
    let session = s.session(client).expect("it is registered");
    for _ in 0..500 {
        let (number, floor) = (RequestNumber(2), RequestNumber(2));
        s.request(2, Request { client, session, number, floor, command: Bytes::from(vec![7; 100_000]) });
        s.pass(ms(200));
    }
    let seen = watch(&mut s, |f| f.from == replica(2));
    s.release_disk(2);
    s.run();
    // Each is seen as it is sent, and as it arrives.
    let bytes = seen.borrow().iter().map(|f| weight(&f.message)).sum::<usize>() / 2;
    assert!(bytes < 9 << 20 && seen.borrow().len() < 600, "{bytes} bytes in {} messages", seen.borrow().len());
}

/// A cluster whose pipeline is short, so that 4 MiB may wait for a disk.
fn with_a_short_pipeline() -> Script {
    Script::with_membership(members(3, |membership| {
        let constants = &mut membership.constants;
        (constants.pipeline_max, constants.request_max, constants.batch_bytes_max) = (4, 100_000, 100_200);
    }))
}

/// r2's disk hangs, and 20 MB are committed without it: some of it waits in its memory, and not all.
fn assert_little_waits(mut s: Script) {
    let accounts = s.core(2).audit();
    let waits: u64 =
        accounts.iter().filter(|account| account.name.starts_with("bytes that ")).map(|account| account.held).sum();
    assert!((1 << 20..5 << 20).contains(&waits), "{waits} bytes wait for the disk: {}", s.describe(2));
    s.release_disk(2);
    s.settle();
    assert_eq!(s.executed(2).len(), 200);
}

/// Rule 6.11: a backup whose disk hangs repairs no more than a disk can be expected to write, too: 4 MiB, here, of 20.
#[test]
fn b14_repair_waits_for_a_disk_that_hangs() {
    let mut s = with_a_short_pipeline();
    let client = s.register(0);
    let missed = s.isolate(2);
    for number in 1..=200 {
        write(&mut s, 0, client, number, &[7; 100_000]);
    }
    assert!(s.reply(client, 200).is_some(), "{}", s.describe(0));
    s.hold_disk(2);
    s.release(missed);
    s.pass(Duration::from_secs(3));
    assert_little_waits(s);
}

/// The same bound holds for what the primary sends while the disk hangs: the others go on, and it would take all that they commit.
#[test]
fn b14_prepares_wait_for_a_disk_that_hangs() {
    let mut s = with_a_short_pipeline();
    let client = s.register(0);
    s.hold_disk(2);
    for number in 1..=200 {
        write(&mut s, 0, client, number, &[7; 100_000]);
    }
    assert!(s.reply(client, 200).is_some(), "{}", s.describe(0));
    assert_little_waits(s);
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

/// Rule 6.11: what is taken in before a view is durable counts against the room of the disk, too.
#[test]
fn b14_entries_that_wait_for_a_view_count_against_the_room() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"b");
    let missed = s.lose(|f| f.is(0, 2));
    for number in 2..=11 {
        write(&mut s, 0, client, number, &[7; 2000]);
    }
    s.crash(0);
    s.forget(missed);
    s.set_room(2, 15_000);
    s.peer_down(1, 0, true);
    s.peer_down(2, 0, true);
    let start = s.hold(|f| f.is(1, 2) && f.name() == "StartView");
    s.pass(ms(300));
    assert!(!s.held(start).is_empty(), "{:?}", describe(&s));
    s.hold_disk(2);
    s.release(start);
    s.pass(ms(300));
    s.release_disk(2);
    s.run();
    s.pass(ms(300));
    assert_eq!(s.over_room(2), 0);
}

/// Resending backs off. The disks of the backups hang for a minute, so that nothing commits; of what a backup holds already it is sent a
/// few copies.
#[test]
fn b11_a_backup_with_a_slow_disk_is_not_filled_with_copies() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let sent = watch(&mut s, |f| f.is(0, 1) && ["Prepare", "Entries"].contains(&f.name()));
    s.hold_disk(1);
    s.hold_disk(2);
    for number in 1..=10 {
        write(&mut s, 0, client, number, &[7; 50_000]);
    }
    s.pass(Duration::from_secs(60));
    // Each is seen as it is sent, and as it arrives.
    let bytes = sent.borrow().iter().map(|f| weight(&f.message)).sum::<usize>() / 2;
    assert!(bytes < 700_000, "{bytes} bytes for a payload of 500,000");
    s.release_disk(1);
    s.release_disk(2);
    s.settle();
    assert_eq!(s.executed(1).len(), 10);
}
