//! Schedules that were found after the design's parts had been merged (M).

use std::time::Duration;

use vsr::protocol::{DoViewChange, Fact};
use vsr::{CommitNumber, Message, OpNumber};
use vsr_sim::Damage;
use vsr_sim::script::Script;

use crate::wording::*;

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

/// M7: only acknowledgements move a primary's commit number, and only the word of its own primary, in normal
/// operation, that of a backup.
#[test]
fn m7_no_other_message_moves_the_commit_number() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    s.submit(0, client, 1, b"a");
    s.run();
    let knows = ping(&s, 1, |ping| ping.commit = CommitNumber(2));
    for to in [0, 2] {
        s.inject(Script::flight(1, to, knows.clone()));
    }
    let (view, commit, head) = (Script::view_of(0), CommitNumber(2), OpNumber(2));
    let beat = Message::Commit { view, commit, head, number: 1 << 40 };
    s.inject(Script::flight(1, 2, beat));
    s.inject(Script::flight(1, 2, Message::ReadIndexOk { nonce: 1, index: OpNumber(2) }));
    s.run();
    assert_eq!([0, 1, 2].map(|at| s.core(at).commit().0), [1, 1, 1]);
    s.release(acks);
    s.run();
    // r0 and r1 know op 2 as committed. r2 hears of it in a view change, and takes it for nobody's word.
    let missed = s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    s.submit(0, client, 2, b"b");
    s.run();
    s.forget(missed);
    let logs = s.hold(|f| f.is(0, 2) && f.name() == "DoViewChange");
    s.lose(|f| f.is(1, 2) && f.name() == "StartView");
    next_view(&mut s);
    assert_eq!(s.held(logs).len(), 1);
    for flight in s.held(logs) {
        assert!(matches!(&flight.message, Message::DoViewChange(dvc) if dvc.commit == CommitNumber(2)));
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.view(2), s.is_normal(2), s.core(2).commit().0), (1, false, 1), "{}", s.describe(2));
    s.settle();
    assert_eq!(s.executed(2), ["a", "b"]);
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
    assert_eq!(before.facts, [Fact { present: true, nack: false }]);
    assert_eq!(after.facts, [Fact { present: false, nack: false }], "damaged, and not nacked");
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
