//! Old, cloned and re-formatted disks, and lost ends of logs (rules 7.5, 7.7, 7.15).

use std::time::Duration;

use vsr::protocol::{Batch, DiskId, Halt, Message, OpNumber, Slot, VsrState};
use vsr_sim::script::Script;
use vsr_sim::{Damage, SimDisk};

use crate::support::{depose, describe, log_of, ms, replica, until, watch, write};

/// r1 has acknowledged op 3 and lost the end of its log; the `StartView` of the primary has named op 3 since, and no body came. Whether
/// r1 was started once more after that.
fn a_lost_tail(again: bool) {
    let mut s = Script::new(3);
    let client = s.register(0); // op 1
    write(&mut s, 0, client, 1, b"b"); // op 2
    s.lose(|f| f.is(0, 2) && ["Prepare", "StartView", "Entries", "Headers"].contains(&f.name()));
    // The primary does not hear that r1 was started anew: the acknowledgement of its earlier life stands.
    let unheard = s.lose(|f| f.is(1, 0) && ["Ping", "DoViewChange"].contains(&f.name()));
    s.hold_disk(0);
    write(&mut s, 0, client, 2, b"x"); // op 3: durable on r1, not yet on r0
    assert_eq!((s.reply(client, 2), s.durable(1, 3).is_some()), (None, true));
    s.crash(1);
    s.rot(1, 3, Damage::End);
    s.restart(1);
    assert_eq!(s.core(1).head().0, 2);
    let bodies = s.lose(|f| f.is(0, 1) && ["Prepare", "Entries", "Commit", "Headers"].contains(&f.name()));
    s.pass(ms(150));
    assert_eq!(s.core(1).head().0, 3, "the StartView has named it");
    if again {
        s.crash(1);
        s.restart(1);
        s.pass(ms(50));
    }
    s.release_disk(0);
    s.run();
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()), "committed with the acknowledgement of r1's earlier life");
    s.crash(0);
    s.forget(bodies);
    s.forget(unheard);
    s.peer_down(1, 0, true);
    s.peer_down(2, 0, true);
    s.pass(Duration::from_secs(3));
    s.restart(0);
    s.pass(Duration::from_secs(3));
    s.settle();
    assert_eq!(s.executed(1), ["b", "x"]);
}

/// Rules 7.5 c, 7.15: what a `StartView` adds to a log whose head was uncertain is damaged until its body is durable, and is never denied.
#[test]
fn a1_a_lost_tail_is_not_denied_after_the_start_view_that_names_it() {
    a_lost_tail(false);
}

/// As above, and the disk reads as certain at the next start.
#[test]
fn a1_nor_is_it_after_one_more_start() {
    a_lost_tail(true);
}

/// r2 has ops 2 and 3 by the `StartView` of view 1, and has lost both with the end of its log. It got op 3 back, crashed before r1 had
/// told it of the log, and is down. How a storage on files reads then: op 3 is the end, for certain, and op 2 is absent.
fn put_above_a_lost_end() -> Script {
    let mut s = Script::new(3);
    let client = s.register(0); // op 1
    s.hold_disk(0);
    s.cut(0, 2);
    for number in 1..=2 {
        s.submit_with_floor(0, client, number, 1, b"x"); // ops 2 and 3: on r1 alone
        s.run();
    }
    s.crash(0);
    s.release_disk(0);
    s.heal();
    // Nothing gets about but headers, and nothing more is committed.
    s.lose(|f| ["Prepare", "Entries", "PrepareOk"].contains(&f.name()));
    s.restart(0);
    s.run();
    assert!(s.core(1).is_primary() && s.view(2) == 1 && s.is_normal(2), "{:?}", describe(&s));
    let bodies: Vec<_> = (2..=3).filter_map(|op| s.disk(1).intact(OpNumber(op)).cloned()).collect();
    let last = bodies[1..].to_vec();
    s.inject(Script::flight(1, 2, Message::Entries { entries: bodies }));
    s.run();
    assert!(s.disk(2).intact(OpNumber(2)).is_some() && s.disk(2).intact(OpNumber(3)).is_some());
    s.crash(2);
    s.rot(2, 2, Damage::End);
    s.rot(2, 3, Damage::End);
    let alone = s.isolate(2);
    s.restart(2);
    s.run();
    assert_eq!(s.core(2).head().0, 3, "its vsr state names what was lost");
    s.inject(Script::flight(1, 2, Message::Entries { entries: last.clone() }));
    s.run();
    assert!(s.disk(2).intact(OpNumber(2)).is_none() && s.disk(2).intact(OpNumber(3)).is_some());
    s.crash(2);
    s.forget(alone);
    let mut disk = s.disk(2).clone();
    for (truncate_above, entries) in [(Some(OpNumber(1)), Vec::new()), (None, last)] {
        disk.begin(Batch { truncate_above, entries, ..Batch::default() });
        disk.complete();
    }
    let found = disk.recover();
    assert!(found.head_certain && found.slots[1] == Slot::Absent && matches!(found.slots[2], Slot::Clean(_)));
    s.replace_disk(2, disk);
    s
}

/// Rule 7.15: what the vsr state names at a lost end of the log is never denied, though storage is certain of a newer end since.
#[test]
fn a1_a_body_above_a_lost_end_does_not_hide_what_was_lost() {
    let mut s = put_above_a_lost_end();
    s.crash(1);
    s.restart(2);
    s.run();
    let seen = watch(&mut s, |f| f.is(2, 0) && f.name() == "DoViewChange");
    depose(&mut s, &[0, 2]);
    let said = seen.borrow().iter().cloned().find_map(log_of).expect("r2 leaves view 1");
    assert_eq!((said.commit.0, said.head.0, said.evidence.len()), (1, 3, 2), "{said:?}");
    assert!(!said.evidence[0].nack, "r2 has held op 2: {said:?}");
    assert!(said.evidence[1].present, "{said:?}");
}

/// Rule 7.7: when a newer start of a member is heard, what it acknowledged before counts no more.
#[test]
fn a6_acknowledgements_of_an_older_start_do_not_count_beside_a_newer_one() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.is(0, 2) && ["Prepare", "Entries"].contains(&f.name()));
    s.hold_disk(0);
    let late = s.hold(|f| f.is(1, 0) && f.name() == "PrepareOk");
    write(&mut s, 0, client, 1, b"x");
    let old = s.held(late);
    assert!(!old.is_empty() && s.durable(1, 2).is_some());
    s.crash(1);
    s.rot(1, 2, Damage::End);
    let told = s.hold(|f| f.is(0, 1) && f.name() != "Ping");
    s.restart(1);
    s.run();
    for flight in old {
        s.inject(flight);
    }
    s.release_disk(0);
    s.run();
    assert_eq!((s.reply(client, 1), s.core(0).commit().0), (None, 1), "r1 has lost what it acknowledged");
    s.release(told);
    s.forget(late);
    s.settle();
    assert_eq!(s.executed(0), ["x"]);
}

/// A cluster in which r2 misses op 3, and an image of r1's disk from before it.
fn with_an_old_image() -> (Script, SimDisk) {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a"); // op 2
    let image = s.disk(1).clone();
    s.lose(|f| f.is(0, 2) && ["Prepare", "Entries", "StartView"].contains(&f.name()));
    write(&mut s, 0, client, 2, b"x"); // op 3
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()), "acknowledged by r0 and r1");
    // The log rests: who has acknowledged what is written down.
    s.pass(Duration::from_secs(2));
    (s, image)
}

/// Rule 7.7: a disk that was restored from an older copy is noticed, also when it counts as a newer start and those who remember were
/// restarted: it stops, in words, and nothing is lost with it.
#[test]
fn a6_a_restored_disk_is_noticed_by_what_it_acknowledged() {
    let (mut s, image) = with_an_old_image();
    s.let_stop(1);
    s.crash(1);
    s.replace_disk(1, image);
    s.crash(0);
    s.restart(0);
    s.restart(1);
    s.pass(Duration::from_secs(1));
    assert!(
        matches!(s.stopped(1), Some(Halt::OlderDisk { acknowledged: OpNumber(3), head: OpNumber(2), .. })),
        "{:?}",
        s.stopped(1)
    );
}

/// Rule 7.7: a disk whose start counter is behind what was heard is noticed, too, by whoever has heard it.
#[test]
fn a6_an_older_start_is_noticed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    let image = s.disk(1).clone();
    for _ in 0..2 {
        s.crash(1);
        s.restart(1);
        s.pass(ms(300));
    }
    s.let_stop(1);
    s.crash(1);
    s.replace_disk(1, image);
    // Both who remember are restarted, and still do.
    for at in [0, 2] {
        s.crash(at);
        s.restart(at);
    }
    s.restart(1);
    s.pass(Duration::from_secs(1));
    assert!(matches!(s.stopped(1), Some(Halt::OlderStart { known: 3, own: 2, .. })), "{:?}", s.stopped(1));
    s.pass(Duration::from_secs(2));
    assert!(s.is_normal(0) && s.is_normal(2), "{:?}", describe(&s));
}

/// Rule 7.7: two starts of one number, on a disk and on a copy of it, are told apart by what each has drawn: the one that was not heard first does
/// not count, and is told so in words that say it.
#[test]
fn a6_another_start_of_the_same_number_is_noticed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    let image = s.disk(1).clone();
    s.crash(1);
    s.restart(1);
    s.pass(ms(300));
    s.let_stop(1);
    s.crash(1);
    s.replace_disk(1, image);
    s.lose(|f| f.is(0, 2) && ["Prepare", "Entries"].contains(&f.name()));
    let told = s.hold(|f| f.to == replica(1) && ["Ping", "DoViewChange"].contains(&f.name()));
    s.restart(1);
    write(&mut s, 0, client, 2, b"x");
    assert!(s.durable(1, 3).is_some(), "it takes what it is sent: {}", s.describe(1));
    assert_eq!(s.reply(client, 2), None, "committed with a copy: {}", s.describe(0));
    s.release(told);
    s.run();
    s.pass(Duration::from_secs(1));
    let Some(why @ Halt::OlderStart { known: 2, own: 2, .. }) = s.stopped(1) else { panic!("{:?}", s.stopped(1)) };
    assert!(why.to_string().contains("has heard another start 2 of this replica"), "{why}");
    let again = s.try_restart(1);
    assert!(matches!(again, Err(Halt::OldDisk { heard: 2, .. })), "started again, it refuses at once: {again:?}");
}

/// r1's disk is put back as it was so many starts ago, and a supervisor starts it again and again. r0, which has heard the newest of these
/// starts, is its only peer. r0 and r1 would commit op 3 in view 0, while r1's better half and r2 have committed another in view 1.
fn started_again_and_again(starts: u64) {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a"); // op 2
    let image = s.disk(1).clone();
    for _ in 0..starts {
        s.crash(1);
        s.restart(1);
        s.pass(ms(300));
    }
    s.isolate(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    write(&mut s, 1, client, 2, b"y"); // op 3
    assert!(s.reply(client, 2).is_some());
    s.let_stop(1);
    s.crash(1);
    s.crash(2);
    s.replace_disk(1, image);
    s.heal();
    let mut refused = Vec::new();
    for _ in 0..5 {
        refused.extend(s.try_restart(1).err());
        s.pass(ms(600));
        write(&mut s, 0, client, 3, b"x");
    }
    assert_eq!(s.reply(client, 3), None, "committed with an old disk");
    let newest = 1 + starts;
    assert!(
        matches!(s.stopped(1), Some(Halt::OlderStart { known, own: 2, .. }) if *known == newest),
        "{:?}",
        s.stopped(1)
    );
    assert_eq!(refused.len(), 4, "{refused:?}");
    let is_told = |why: &Halt| matches!(why, Halt::OldDisk { heard, .. } if *heard == newest);
    assert!(refused.iter().all(is_told), "{refused:?}");
    let words = s.core(0).explain();
    assert!(words.contains("the word of r1 does not count here: a newer start of it"), "{words}");
}

/// Rule 7.7: a supervisor that starts an old disk again and again does not get it in when its starts outnumber those that were heard.
#[test]
fn a6_an_older_start_stays_out_however_often_it_is_started() {
    started_again_and_again(2);
}

/// Rule 7.7: nor does it get in a disk that is older by exactly one start: its first start has the number that was heard, and the next one would
/// have a higher one.
#[test]
fn a6_a_disk_that_is_older_by_one_start_stays_out_however_often_it_is_started() {
    started_again_and_again(1);
}

/// Rule 7.7: an old disk is noticed also when it has been sent more ops than it had acknowledged, before it is told: these give it back
/// no promise that it has forgotten.
#[test]
fn a6_a_restored_disk_is_noticed_although_its_log_has_grown_again() {
    let (mut s, image) = with_an_old_image();
    let client = s.register(0); // op 4, without r2's disk: it hears of it, and lacks op 3
    s.let_stop(1);
    s.crash(1);
    s.replace_disk(1, image);
    let told = s.hold(|f| f.to == replica(1) && ["Ping", "DoViewChange"].contains(&f.name()));
    s.restart(1);
    write(&mut s, 0, client, 1, b"y");
    s.pass(ms(700));
    assert!(s.core(1).head().0 > 4, "{}", s.describe(1));
    assert_eq!(s.reply(client, 1), None, "committed with an old disk: {}", s.describe(0));
    s.release(told);
    s.run();
    s.pass(ms(100));
    assert!(
        matches!(s.stopped(1), Some(Halt::OlderDisk { acknowledged, head: OpNumber(2), .. }) if acknowledged.0 >= 3),
        "{:?}",
        s.stopped(1)
    );
    assert!(matches!(s.try_restart(1), Err(Halt::OldDisk { .. })));
}

/// Rule 7.7: two old disks that take each other's word for nothing still tell each other that they are old.
#[test]
fn a6_two_old_disks_tell_each_other() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.pass(ms(300));
    let images = [1, 2].map(|at| s.disk(at).clone());
    for at in [1, 2] {
        for _ in 0..2 {
            s.crash(at);
            s.restart(at);
            s.pass(ms(600));
        }
    }
    // Each comes back as it was before its newest starts, and has heard of those of the other one.
    let newer = [1, 2].map(|at| s.disk(at).state().known.clone());
    for (at, (image, known)) in [1, 2].into_iter().zip(images.into_iter().zip(newer)) {
        let state = VsrState { known, ..image.state().clone() };
        s.let_stop(at);
        s.crash(at);
        s.replace_disk(at, SimDisk::new(state));
    }
    s.crash(0);
    s.restart(1);
    s.restart(2);
    s.pass(Duration::from_secs(1));
    for at in [1, 2] {
        assert!(matches!(s.stopped(at), Some(Halt::OlderStart { known: 3, own: 2, .. })), "{:?}", s.stopped(at));
    }
}

/// Rule 7.7: a disk that was formatted anew under a known id is noticed, over restarts of the others.
#[test]
fn a6_a_formatted_disk_is_noticed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.pass(ms(300));
    let state = s.disk(1).state().clone();
    let fresh = VsrState::formatted(state.cluster, state.replica, DiskId(99), state.membership);
    s.let_stop(1);
    s.crash(1);
    s.replace_disk(1, SimDisk::new(fresh));
    for at in [0, 2] {
        s.crash(at);
        s.restart(at);
    }
    s.restart(1);
    s.pass(Duration::from_secs(1));
    assert!(matches!(s.stopped(1), Some(Halt::OtherDisk { own: DiskId(99), .. })), "{:?}", s.stopped(1));
    write(&mut s, 2, client, 2, b"b");
    s.pass(Duration::from_secs(1));
    assert_eq!(s.core(0).applied(), s.core(2).applied());
}
