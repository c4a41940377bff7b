//! A new disk in the place of a lost one (rule 7.19).

use std::time::Duration;

use vsr::ClientId;
use vsr::protocol::{DiskId, Halt, Message, Succession, VsrState};
use vsr_sim::SimDisk;
use vsr_sim::script::Script;

use crate::support::{eventually, leader, membership, ms, replica, until, watch, write};

/// The disk of this replica, which is down, is gone, and it has a new one with this id.
fn give_new_disk(s: &mut Script, at: usize, disk_id: u128) {
    let VsrState { cluster, replica, membership, .. } = s.disk(at).state().clone();
    let state = VsrState::replacing(cluster, replica, DiskId(disk_id), membership).expect("it can be replaced");
    s.replace_disk(at, SimDisk::new(state));
}

fn counts(s: &Script, at: usize) -> bool {
    s.disk(at).state().succession.counts()
}

/// Three replicas that have executed one command of this client; the third has just started on a new disk.
fn with_a_new_disk() -> (Script, ClientId) {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.settle();
    s.crash(2);
    give_new_disk(&mut s, 2, 77);
    s.restart(2);
    (s, client)
}

/// Everything by which a replica has a part in a quorum.
const WORDS: [&str; 5] = ["PrepareOk", "CommitOk", "StartViewChange", "DoViewChange", "StartView"];

/// Schedule F12: the new disk says nothing that counts before the others have put it in the place of the lost one, and a view has started
/// that is two above; then it is as good as the lost one.
#[test]
fn f12_a_new_disk_counts_when_no_promise_of_the_lost_one_binds() {
    for lost in 0..3 {
        let mut s = Script::new(3);
        let client = s.register(0);
        for number in 1..=3 {
            write(&mut s, 0, client, number, b"w");
        }
        s.settle();
        s.crash(lost);
        give_new_disk(&mut s, lost, 77);
        let early = watch(&mut s, move |f| f.from == replica(lost) && WORDS.contains(&f.name()));
        s.restart(lost);
        until(&mut s, "the op", |s| s.core(lost).succession() != Succession::Asking);
        assert!(early.borrow().is_empty(), "r{lost}: {:?}", early.borrow());
        let Succession::Appointed { view, .. } = s.core(lost).succession() else { panic!("it is not whole yet") };
        until(&mut s, "it counts", |s| counts(s, lost));
        assert!(s.core(lost).log_view() >= view, "the log of view {view}");
        s.heal();
        s.settle();
        // The other two can go, one after the other.
        for gone in (0..3).filter(|at| *at != lost) {
            s.crash(gone);
            let alive: Vec<usize> = (0..3).filter(|at| *at != gone).collect();
            eventually(&mut s, |s| alive.iter().any(|at| s.core(*at).is_primary()));
            s.pass(Duration::from_secs(1));
            let primary = leader(&s, &alive);
            let number = 4 + gone as u64;
            s.submit_with_floor(primary, client, number, number, b"w");
            s.run();
            assert!(s.reply(client, number).is_some(), "r{lost} without r{gone}");
            s.restart(gone);
            s.settle();
        }
        assert_eq!(s.executed(lost), ["w"; 5]);
    }
}

/// Schedule F12: what the lost disk has promised may still be on its way. It starts no view without what its successor has acknowledged.
#[test]
fn f12_a_promise_of_a_lost_disk_that_arrives_late_starts_no_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    // r1 and r2 vote to leave view 0. r2 alone hears of both votes, and promises view 1; nobody hears it.
    let late = s.hold(|f| f.is(2, 1) || f.is(2, 0));
    s.peer_down(1, 0, true);
    s.peer_down(2, 0, true);
    s.run();
    assert_eq!((s.view(0), s.view(1), s.view(2)), (0, 0, 1));
    s.crash(2);
    give_new_disk(&mut s, 2, 77);
    let promised = s.held(late);
    s.forget(late);
    assert!(promised.iter().any(|flight| flight.name() == "DoViewChange"));
    s.restart(2);
    until(&mut s, "it counts", |s| counts(s, 2));
    s.settle();
    assert!(s.view(2) >= 2);
    let primary = leader(&s, &[0, 1, 2]);
    s.submit_with_floor(primary, client, 2, 2, b"b");
    s.run();
    assert!(s.reply(client, 2).is_some());
    let views: Vec<u64> = (0..3).map(|at| s.view(at)).collect();
    promised.into_iter().for_each(|flight| s.inject(flight));
    s.run();
    assert_eq!((0..3).map(|at| s.view(at)).collect::<Vec<_>>(), views, "nobody follows it");
    s.settle();
    assert!((0..3).all(|at| s.executed(at) == ["a", "b"]));
}

/// Two of five, at the same time.
#[test]
fn f12_a_minority_of_lost_disks_is_replaced() {
    let mut s = Script::new(5);
    let client = s.register(0);
    for number in 1..=3 {
        write(&mut s, 0, client, number, b"w");
    }
    for lost in [1, 4] {
        s.crash(lost);
        give_new_disk(&mut s, lost, 70 + lost as u128);
        s.restart(lost);
    }
    until(&mut s, "both count", |s| counts(s, 1) && counts(s, 4));
    s.settle();
    for gone in [2, 3] {
        s.crash(gone);
    }
    s.pass(Duration::from_secs(2));
    let primary = leader(&s, &[0, 1, 4]);
    s.submit_with_floor(primary, client, 4, 4, b"w");
    s.run();
    assert!(s.reply(client, 4).is_some(), "{}", s.describe(primary));
}

/// Seed 26799: a disk that was given up asks, late, once its successor counts. The successor stays.
#[test]
fn a_disk_that_was_given_up_does_not_come_back_by_a_late_ping() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.crash(2);
    give_new_disk(&mut s, 2, 77);
    let asked = s.hold(|f| (f.is(2, 0) || f.is(2, 1)) && f.name() == "Ping");
    s.restart(2);
    s.pass(ms(20));
    s.crash(2);
    let pings = s.held(asked);
    s.forget(asked);
    assert!(!pings.is_empty());
    give_new_disk(&mut s, 2, 78);
    s.restart(2);
    until(&mut s, "it counts", |s| counts(s, 2));
    eventually(&mut s, |s| (0..2).all(|at| s.core(at).distrusted().next().is_none()));
    pings.into_iter().for_each(|flight| s.inject(flight));
    s.run();
    for at in 0..2 {
        assert_eq!(s.core(at).distrusted().next(), None, "nobody takes it for the one that is there");
    }
    s.pass(Duration::from_secs(2));
    assert!(s.stopped(2).is_none() && counts(&s, 2), "{}", s.describe(2));
    assert_eq!(s.disk(2).state().disk_id, DiskId(78));
    let primary = leader(&s, &[0, 1, 2]);
    s.submit_with_floor(primary, client, 2, 2, b"b");
    s.run();
    assert!(s.reply(client, 2).is_some());
}

/// The lost disk turns up again: whoever starts on it is told, and nothing that it says counts.
#[test]
fn a_lost_disk_that_turns_up_again_is_refused() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.settle();
    s.crash(2);
    let found_again = s.disk(2).clone();
    give_new_disk(&mut s, 2, 77);
    s.restart(2);
    until(&mut s, "it counts", |s| counts(s, 2));
    s.settle();
    s.crash(2);
    s.replace_disk(2, found_again);
    s.let_stop(2);
    s.restart(2);
    eventually(&mut s, |s| s.stopped(2).is_some());
    assert!(matches!(s.stopped(2), Some(Halt::OtherDisk { .. } | Halt::Replaced { .. })), "{:?}", s.stopped(2));
}

/// Two of two have to acknowledge everything.
#[test]
fn a_disk_of_two_is_not_replaced() {
    for (members, expected) in [(1, false), (2, false), (3, true), (4, true), (9, true)] {
        let membership = membership(members);
        let state = VsrState::replacing(vsr::ClusterId(1), vsr::ReplicaId(0), DiskId(1), membership);
        assert_eq!(state.is_ok(), expected, "{members}");
    }
}

/// A member that was away while a disk was replaced does not take the new one for a stranger.
#[test]
fn a_member_that_was_away_learns_which_disk_is_the_one() {
    let (mut s, _) = with_a_new_disk();
    until(&mut s, "the op", |s| matches!(s.core(2).succession(), Succession::Appointed { .. }));
    // r1 has not applied it: it misses every commit number from here on.
    let deaf = s.lose(|f| f.is(0, 1) && matches!(f.message, Message::Commit { .. }));
    s.pass(ms(200));
    s.forget(deaf);
    until(&mut s, "it counts", |s| counts(s, 2));
    s.settle();
    assert!(s.stopped(2).is_none());
    assert!(s.core(1).known().iter().any(|known| known.replica.0 == 2 && known.life.disk_id == DiskId(77)));
}

/// What others have committed comes with the log of a view, header by header. A new disk counts when it holds the bodies, too: else it would deny,
/// after a crash, what the lost one has acknowledged.
#[test]
fn a_new_disk_counts_when_it_holds_what_is_committed() {
    let (mut s, client) = with_a_new_disk();
    until(&mut s, "the op", |s| matches!(s.disk(2).state().succession, Succession::Appointed { .. }));
    let Succession::Appointed { view, .. } = s.core(2).succession() else { panic!("it is not whole yet") };
    // r0 commits it with r1. To r2 it comes with the log of a later view, and its body after that.
    let deaf = s.lose(|f| f.is(0, 2) || f.is(2, 0) || f.is(2, 1));
    write(&mut s, 0, client, 2, b"b");
    assert!(s.reply(client, 2).is_some());
    let committed = s.core(0).commit().0;
    s.forget(deaf);
    s.lose(|f| f.to == replica(2) && f.name() == "Prepare");
    let bodies = s.hold(|f| f.to == replica(2) && f.name() == "Entries");
    until(&mut s, "the log of a later view", |s| s.core(2).log_view() >= view && s.is_normal(2));
    s.hold_disk(2);
    s.release(bodies);
    let mut writes = 0;
    while !counts(&s, 2) {
        s.pass(ms(5));
        s.write_once(2);
        writes += 1;
        assert!(writes < 1000, "{}", s.describe(2));
    }
    let missing: Vec<u64> = (1..=committed).filter(|op| s.durable(2, *op) != s.durable(0, *op)).collect();
    assert!(missing.is_empty(), "ops {missing:?} of {committed}");
}
