//! The choice of the log: which of the logs in a quorum of `DoViewChange`s a view begins with, and which ops it may
//! drop.

use std::time::Duration;

use vsr::protocol::{DoViewChange, Message, OpNumber, SlotEvidence};
use vsr_sim::Damage;
use vsr_sim::script::Script;

use crate::support::{depose, leader, log_of, ms, next_view, replica, split, stale, until, write};

/// VC-05, H5-02: a shorter log of a higher log_view wins over a longer one of a lower. (Here log_view 2 against
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

/// M8: a longer log of a lower log_view gives no headers to the log that is chosen.
#[test]
fn m8_a_longer_log_of_a_lower_log_view_gives_no_headers() {
    let (mut s, _, alone) = stale(3);
    s.crash(0);
    s.release(alone);
    s.crash(1);
    s.restart(1);
    s.pass(ms(300));
    assert!(s.core(2).is_primary() && s.view(2) == 2, "{}", s.describe(2));
    assert_eq!((s.core(2).head().0, s.durable(2, 2)), (2, s.durable(1, 2)), "its own three were of view 0");
    assert_eq!(s.executed(2), ["B"]);
    s.settle();
    assert_eq!(s.executed(0), ["B"]);
}

/// M8: those of a lower log_view do nack: an op of the chosen log that only a dead replica held goes.
#[test]
fn m8_a_lower_log_view_nacks() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let lost = s.lose(|f| f.name() == "Prepare");
    s.submit(0, client, 1, b"C");
    s.run();
    s.forget(lost);
    s.lose(|f| f.from == replica(0) && f.name() == "Entries");
    s.lose(|f| f.is(1, 2) && f.name() == "StartView");
    next_view(&mut s);
    assert_eq!((s.is_normal(1), s.core(1).log_view().number, s.core(1).head().0), (false, 1, 2), "{}", s.describe(1));
    assert_eq!((s.view(2), s.core(2).log_view().number), (1, 0));
    s.crash(0);
    s.pass(Duration::from_secs(5));
    assert!(s.core(2).is_primary() && s.core(2).head().0 == 1, "{}", s.describe(2));
    assert!(s.marks("truncated by a nack quorum") > 0);
    s.submit(2, client, 1, b"C");
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
    assert_eq!(s.executed(0), ["C"]);
}

/// Rule 7.14: r2, of log_view 0, has lost the end of its log. It cannot have acknowledged what view 1 has prepared: of its
/// op 3 no copy and no header is left, and r0 goes on with r2.
#[test]
fn m8_a_lower_log_view_nacks_though_its_end_is_lost() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a"); // op 2
    s.isolate(2);
    next_view(&mut s);
    assert!(s.core(1).is_primary() && s.is_normal(0), "{}", s.describe(1));
    let lost = s.lose(|f| f.is(1, 0) && f.name() == "Prepare");
    s.submit(1, client, 2, b"b"); // op 3, on r1 alone
    s.run();
    s.forget(lost);
    s.lose(|f| f.is(1, 0) && ["Headers", "Entries", "StartView"].contains(&f.name()));
    s.submit_with_floor(1, client, 3, 2, b"c"); // op 4
    s.run();
    assert_eq!((s.core(0).head().0, s.core(0).checksum(OpNumber(3))), (4, None), "{}", s.describe(0));
    s.crash(1);
    s.crash(2);
    s.rot(2, 2, Damage::End);
    s.restart(2);
    s.run();
    assert_eq!((s.core(2).log_view().number, s.disk(2).state().head_certain), (0, false), "{}", s.describe(2));
    s.heal();
    until(&mut s, "a view of r0 and r2", |s| s.core(0).is_primary());
    assert_eq!(s.core(0).head().0, 2, "{}", s.describe(0));
    assert!(s.marks("truncated by a nack quorum") > 0);
    s.settle();
    assert_eq!(s.executed(1), ["a"]);
}

/// As above, of an op that view 0 has prepared and view 1 has taken over: r2 may have acknowledged it, and it is waited for.
#[test]
fn m8_a_lost_end_does_not_nack_what_its_own_view_prepared() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a"); // op 2
    let lost = s.lose(|f| f.name() == "Prepare");
    s.submit(0, client, 2, b"b"); // op 3, on r0 alone
    s.run();
    s.forget(lost);
    s.lose(|f| f.from == replica(0) && f.name() == "Entries");
    s.lose(|f| f.is(1, 2) && f.name() == "StartView");
    next_view(&mut s);
    assert_eq!((s.core(1).log_view().number, s.core(1).head().0), (1, 3), "{}", s.describe(1));
    assert_eq!((s.view(2), s.core(2).log_view().number), (1, 0));
    s.crash(0);
    s.crash(2);
    s.rot(2, 2, Damage::End);
    s.restart(2);
    s.pass(Duration::from_secs(5));
    assert!(!s.is_normal(1) && !s.is_normal(2), "{}", s.describe(1));
    assert_eq!((s.core(1).head().0, s.marks("truncated by a nack quorum")), (3, 0));
    s.settle();
    assert_eq!(s.executed(2), ["a", "b"]);
}

/// D15, TigerBeetle PR 645: an acknowledged entry that is damaged is not nacked, though its header is known.
#[test]
fn d15_c_a_damaged_entry_with_a_known_header_is_not_nacked() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    write(&mut s, 0, client, 1, b"x");
    assert!(s.reply(client, 1).is_some(), "r0 and r1 have acknowledged x");
    s.crash(1);
    s.rot(1, 2, Damage::Body);
    s.lose(|f| f.is(0, 1) && f.name() == "Entries");
    s.restart(1);
    s.run();
    assert_eq!(s.core(1).checksum(OpNumber(2)), s.durable(0, 2), "r1 knows the header");
    s.crash(0);
    s.heal();
    depose(&mut s, &[1, 2]);
    s.pass(Duration::from_secs(2));
    assert!(!s.is_normal(1) && !s.is_normal(2), "neither can say that x was not acknowledged: {}", s.describe(1));
    assert_eq!(s.core(1).head().0, 2);
    s.settle();
    assert_eq!(s.executed(1), ["x"]);
    assert_eq!(s.executed(2), ["x"]);
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

/// Found by the simulator (seed 700005117), hazard LV-01: r2 alone has the log of view 1, which ends behind a blank, and was restarted: by its chain of headers
/// nobody can tell what is below the blank. The head of the next log is op 2, of view 0. r0, the other one that is left, was cut off, or was
/// restarted and has forgotten that op 2 is committed.
#[test]
fn a_blank_above_what_an_older_view_committed_does_not_hide_the_head_of_the_next_log() {
    for forgets in [false, true] {
        let mut s = Script::new(3);
        let client = s.register(0);
        write(&mut s, 0, client, 1, b"a"); // op 2
        s.pass(ms(50));
        assert_eq!(s.core(2).commit().0, 2, "{}", s.describe(2));
        if forgets {
            s.crash(0);
            assert!(s.disk(0).state().commit.0 < 2);
        } else {
            s.isolate(0);
        }
        depose(&mut s, &[1, 2]);
        assert!(s.core(1).is_primary() && s.core(2).log_view().number == 1, "{}", s.describe(2));
        s.lose(|f| {
            let is_op_3 = matches!(&f.message, Message::Prepare { entry, .. } if entry.header.op.0 == 3);
            is_op_3 || f.name() == "RequestHeaders"
        });
        for number in 2..=3 {
            s.submit_with_floor(1, client, number, 2, b"lost");
            s.run();
        }
        assert_eq!((s.core(2).head().0, s.durable(2, 3), s.durable(2, 4).is_some()), (4, None, true));
        s.crash(1);
        s.crash(2);
        s.heal();
        s.restart(2);
        if forgets {
            s.restart(0);
        }
        until(&mut s, "a view of r0 and r2", |s| [0, 2].iter().any(|&at| s.core(at).is_primary() && s.view(at) > 1));
        let primary = leader(&s, &[0, 2]);
        write(&mut s, primary, client, 2, b"b");
        assert_eq!(s.reply(client, 2), Some(b"2".to_vec()), "{}", s.describe(primary));
        s.settle();
        assert_eq!(s.executed(1), ["a", "b"]);
    }
}

/// M11: what a `DoViewChange` says of the log stays, over a restart and damage; what it says of the copies is of the
/// moment.
#[test]
fn m11_the_headers_of_a_do_view_change_stay_and_its_facts_do_not() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=2 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    let logs = s.hold(|f| f.is(2, 0) && f.name() == "DoViewChange");
    s.lose(|f| f.is(1, 2) && f.name() == "StartView");
    next_view(&mut s);
    s.crash(2);
    s.rot(2, 3, Damage::Body);
    s.restart(2);
    s.run();
    let said: Vec<DoViewChange> = s.held(logs).into_iter().filter_map(log_of).collect();
    let (before, after) = (&said[0], &said[1]);
    let log = |dvc: &DoViewChange| (dvc.view, dvc.log_view, dvc.commit, dvc.head, dvc.headers.clone());
    assert_eq!(log(before), log(after));
    assert_eq!((before.commit.0, before.head.0, before.log_view.number), (2, 3, 0));
    assert_eq!(before.evidence, [SlotEvidence { present: true, nack: false }]);
    assert_eq!(after.evidence, [SlotEvidence { present: false, nack: false }], "damaged, and not nacked");
    s.settle();
    assert_eq!(s.executed(2).len(), 2);
}

/// M18: a new primary begins when the bodies above the commit number are here; one below that is missing is repaired
/// behind it.
#[test]
fn m18_a_new_primary_waits_for_the_uncommitted_bodies_only() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=3 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    s.crash(1);
    s.rot(1, 2, Damage::Body);
    let repair = s.lose(|f| f.to == replica(1) && f.name() == "Entries");
    s.restart(1);
    s.run();
    next_view(&mut s);
    assert!(s.core(1).is_primary() && s.view(1) == 1, "{}", s.describe(1));
    assert_eq!((s.core(1).commit().0, s.core(1).applied().0), (4, 1), "op 2 is not here");
    s.release(repair);
    s.pass(ms(500));
    assert_eq!((s.executed(1).len(), s.view(1)), (3, 1), "{}", s.describe(1));
    s.settle();
}
