//! Dropping the log, and what takes its place, message by message (rules 9.2 to 9.5). Names are those of the hazards and of the schedules against
//! earlier wordings of the rules.

use std::time::Duration;

use super::cluster::Cluster;
use crate::protocol::types::event::Event;
use crate::protocol::types::number::OpNumber;
use crate::protocol::view_change::phase::Status;

const LETTERS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
/// A checkpoint after so many ops; the first op opens the session.
const EVERY: u64 = 3;

/// Replicas 0 and 1 commit these commands without replica 2, and drop what their checkpoints have.
fn without_the_third(from: usize, to: usize) -> Cluster {
    let mut c = Cluster::with_checkpoints(EVERY);
    for letter in &LETTERS[..from] {
        submit(&mut c, letter);
    }
    c.cut_off(2, true);
    for letter in &LETTERS[from..to] {
        submit(&mut c, letter);
    }
    c
}

fn submit(c: &mut Cluster, command: &'static str) {
    c.submit(0, command);
    c.run();
    c.pass(Duration::from_millis(20));
}

fn base(c: &Cluster, at: usize) -> u64 {
    c.core(at).log_base().0
}

fn is_transferring(c: &Cluster) -> bool {
    c.core(2).transfer().is_some()
}

/// Passes time until replica 2 fetches a checkpoint, no part of which arrives.
fn begin(c: &mut Cluster) {
    for _ in 0..400 {
        if is_transferring(c) {
            return;
        }
        c.pass_without_parts(Duration::from_millis(5));
    }
    panic!("{}", c.core(2).explain());
}

/// Passes pings until the others know what each has, and time for comparisons and for questions.
fn settle(c: &mut Cluster) {
    for _ in 0..40 {
        c.pass(Duration::from_millis(50));
    }
}

/// Hazard CP-02, rule 9.2: nothing is dropped before a replication quorum has checkpoints of it, and no replica that is away holds the log.
#[test]
fn cp_02_the_log_is_dropped_when_a_quorum_has_checkpoints_of_it() {
    let mut c = Cluster::with_checkpoints(EVERY);
    c.write_checkpoints(false);
    for letter in &LETTERS[..9] {
        submit(&mut c, letter);
    }
    settle(&mut c);
    assert_eq!((base(&c, 0), base(&c, 1), c.core(0).checkpoint().0), (0, 0, 0), "none is written");
    let mut c = without_the_third(1, 9);
    settle(&mut c);
    // Op 10 is the last; the checkpoints are those after ops 6 and 9, and the log from the older one stays.
    assert_eq!((base(&c, 0), base(&c, 1), base(&c, 2)), (6, 6, 0));
    assert!(c.stored(0, 6).is_none() && c.stored(0, 7).is_some() && c.stored(2, 1).is_some());
    c.cut_off(1, true);
    for letter in &LETTERS[9..] {
        c.submit(0, letter);
    }
    settle(&mut c);
    assert_eq!(base(&c, 0), 6, "one of three has no quorum");
}

/// Rule 9.3: what is in no log any more comes as a checkpoint, the rest from the logs.
#[test]
fn a_replica_that_lacks_what_was_dropped_fetches_a_checkpoint() {
    let mut c = without_the_third(2, 11);
    settle(&mut c);
    assert!(base(&c, 0) > 3, "{}", base(&c, 0));
    c.cut_off(2, false);
    c.pass_until(|c| c.executed(2) == LETTERS[..11]);
    let restored: Vec<_> = c.events(2).iter().filter(|event| matches!(event, Event::Restored { .. })).collect();
    assert!(matches!(restored[..], [Event::Restored { .. }]), "{restored:?}");
    submit(&mut c, LETTERS[11]);
    c.pass_until(|c| c.executed(2) == LETTERS);
}

/// Schedule B-39, rule 9.4: it acknowledges nothing and confirms nothing meanwhile, and acknowledges when it is whole.
#[test]
fn b_39_a_replica_in_transfer_acknowledges_nothing() {
    let mut c = without_the_third(2, 11);
    settle(&mut c);
    c.cut_off(2, false);
    begin(&mut c);
    c.take_sent();
    // The parts do not come.
    for _ in 0..100 {
        c.pass_without_parts(Duration::from_millis(5));
    }
    assert!(is_transferring(&c), "{}", c.core(2).explain());
    let said = c.take_sent();
    let acknowledges =
        |line: &&String| line.starts_with("r2>") && (line.ends_with("PrepareOk") || line.ends_with("CommitOk"));
    assert_eq!(said.iter().find(acknowledges), None);
    assert!(c.core(2).explain().contains("fetching the checkpoint after op"), "{}", c.core(2).explain());
    c.pass_until(|c| c.executed(2) == LETTERS[..11]);
    submit(&mut c, LETTERS[11]);
    let said = c.take_sent();
    assert!(said.iter().any(|line| line == "r2>r0 PrepareOk"), "{said:?}");
}

/// Hazard ST-01, rule 9.4: its `DoViewChange` has the log that it has, and the log_view of that log.
#[test]
fn st_01_a_replica_in_transfer_promises_with_its_old_log() {
    let mut c = without_the_third(2, 11);
    settle(&mut c);
    c.cut_off(2, false);
    begin(&mut c);
    let (head, log_view) = (c.core(2).head(), c.core(2).log_view());
    // The primary dies, and the two others change the view.
    c.crash(0);
    let promise = |c: &Cluster| {
        let dvc = c.core(1).view_change.dvcs[2].as_ref();
        dvc.map(|dvc| (dvc.head, dvc.log_view, dvc.past.is_whole))
    };
    for _ in 0..400 {
        if promise(&c).is_none() {
            c.pass_without_parts(Duration::from_millis(5));
        }
    }
    assert_eq!(promise(&c), Some((head, log_view, false)));
    // The other one has everything, and leads whenever it is its turn; with the parts replica 2 is whole as well.
    c.pass_until(|c| c.executed(2) == LETTERS[..11] && c.core(2).status() == Status::Normal);
    assert!(c.is_primary(1) || c.is_primary(2));
}

/// Schedule B-32, rule 9.5: a new primary that could not apply what it would commit hands on, by one view.
#[test]
fn b_32_a_new_primary_without_the_state_hands_on() {
    let mut c = without_the_third(2, 11);
    settle(&mut c);
    // View 1 is replica 1's, view 2 replica 2's.
    c.cut_off(2, false);
    c.pass_without_parts(Duration::from_millis(200));
    for _ in 0..200 {
        c.pass_without_parts(Duration::from_millis(5));
    }
    let view = c.core(0).view().number;
    while c.core(0).view().number < 2 || c.core(2).view().number < 2 {
        // The primary gives up its role, twice.
        let primary = (c.core(0).view().number % 3) as usize;
        c.hand_over(primary);
        for _ in 0..20 {
            c.pass_without_parts(Duration::from_millis(5));
        }
        assert!(c.core(0).view().number < view + 8);
    }
    let handed: Vec<u64> = c
        .events(2)
        .iter()
        .filter_map(|event| if let Event::HandedOn { view } = event { Some(view.number) } else { None })
        .collect();
    assert_eq!(handed, [2], "{:?}", c.events(2));
    assert_eq!(c.core(0).view().number, 3, "by one view");
    c.pass_until(|c| c.executed(2) == LETTERS[..11]);
}

/// Hazards ST-07, ST-13: whatever end a life of the receiver comes to, and whoever the source is, it is the old or the new state, and parts that are
/// stored are not asked for again.
#[test]
fn st_07_a_crash_at_any_moment_of_a_transfer_leaves_the_old_or_the_new_state() {
    for moment in 0..40 {
        let mut c = without_the_third(2, 11);
        settle(&mut c);
        c.cut_off(2, false);
        begin(&mut c);
        for _ in 0..moment {
            if !(c.complete_write(2) || c.deliver()) {
                c.pass(Duration::from_millis(5));
            }
        }
        let stored = c.core(2).transfer().map_or(0, |(_, stored, _)| stored);
        c.crash(2);
        if moment % 2 == 1 {
            c.crash(0);
            c.start(0);
        }
        c.take_sent();
        c.start(2);
        c.pass_until(|c| c.executed(2) == LETTERS[..11]);
        let asked =
            c.take_sent().iter().filter(|line| line.starts_with("r2>") && line.ends_with("RequestCheckpoint")).count();
        assert!(asked as u32 + stored <= 40, "moment {moment}: {asked} questions, {stored} parts were stored");
    }
}

/// Rule 9.11: where none of its checkpoints can be read, and its log does not reach back, a replica takes one of the others.
#[test]
fn a_replica_whose_checkpoints_are_damaged_takes_one_of_the_others() {
    let mut c = Cluster::with_checkpoints(EVERY);
    for letter in &LETTERS[..10] {
        submit(&mut c, letter);
    }
    settle(&mut c);
    assert!((0..3).all(|at| base(&c, at) > 0));
    for at in [1, 0] {
        c.crash(at);
        c.harm_checkpoints(at);
        c.start(at);
        assert!(c.core(at).lacks_state() && c.executed(at).is_empty());
        assert!(c.core(at).explain().contains("no checkpoint can be read here"), "{}", c.core(at).explain());
        c.pass_until(|c| c.executed(at) == LETTERS[..10]);
        assert!(!c.core(at).lacks_state());
    }
    c.pass_until(|c| (0..3).any(|at| c.is_primary(at)));
}

/// Schedule G7: no checkpoint is common to a quorum, and one member alone has any.
#[test]
fn g7_one_member_with_a_checkpoint_is_enough() {
    let mut c = Cluster::with_checkpoints(EVERY);
    for letter in &LETTERS[..10] {
        submit(&mut c, letter);
    }
    settle(&mut c);
    for at in [0, 1] {
        c.crash(at);
        c.harm_checkpoints(at);
    }
    (0..2).for_each(|at| c.start(at));
    assert!((0..2).all(|at| c.core(at).lacks_state()) && !c.core(2).lacks_state());
    c.pass_until(|c| (0..3).all(|at| c.executed(at) == LETTERS[..10]));
    c.pass_until(|c| (0..3).any(|at| c.is_primary(at)));
}

/// Rule 9.3: who offers a checkpoint is heard, and may not hear.
#[test]
fn a_checkpoint_of_which_nothing_comes_gives_way_to_another() {
    let mut c = without_the_third(2, 11);
    settle(&mut c);
    c.cut_off(2, false);
    begin(&mut c);
    let fetched = |c: &Cluster| c.core(2).transfer().map(|(op, ..)| op);
    let first = fetched(&c);
    for _ in 0..100 {
        c.pass_without_parts(Duration::from_millis(50));
    }
    let began: Vec<OpNumber> = c
        .events(2)
        .iter()
        .filter_map(|event| if let Event::TransferBegan { op } = event { Some(*op) } else { None })
        .collect();
    assert!(began.len() > 1 && began[1] != began[0] && Some(began[0]) == first, "{began:?}");
    c.pass_until(|c| c.executed(2) == LETTERS[..11]);
}

/// Rule 9.4: ops that it has acknowledged above the checkpoint stay.
#[test]
fn m5_a_checkpoint_drops_no_op_above_it() {
    let mut c = without_the_third(2, 9);
    settle(&mut c);
    c.cut_off(2, false);
    begin(&mut c);
    let held = OpNumber(10);
    c.pass_until(|c| c.core(2).holds(held) || c.executed(2).len() == 9);
    c.pass_until(|c| c.executed(2) == LETTERS[..9]);
    assert!(c.core(2).holds(held) && c.core(2).log_base() < held);
}

/// Rule 9.4: whoever is in a view knows nothing to be committed that was not committed in that view, or in an earlier one. So what was offered in
/// view 2 waits for the log of view 2.
#[test]
fn a_checkpoint_is_installed_in_no_view_below_that_of_its_offer() {
    let mut c = Cluster::with_checkpoints(EVERY);
    submit(&mut c, LETTERS[0]);
    c.cut_off(2, true);
    // View 1 is replica 1's, view 2 replica 2's, which is not there.
    c.hand_over(0);
    c.run();
    let mut number = 1;
    while number < 11 {
        c.pass_until(|c| c.is_primary(0) || c.is_primary(1));
        let primary = usize::from(c.is_primary(1));
        c.submit(primary, LETTERS[number]);
        c.run();
        c.pass(Duration::from_millis(20));
        number += 1;
    }
    settle(&mut c);
    let view = c.core(0).view();
    assert!(base(&c, 0) > 3 && view.number > 0 && c.core(2).view().number == 0, "{view}");
    c.cut_off(2, false);
    for _ in 0..200 {
        c.pass_without("StartView", Duration::from_millis(50));
    }
    assert_eq!((c.core(2).view().number, base(&c, 2), c.executed(2)), (0, 0, vec!["a"]), "{}", c.core(2).explain());
    // The view of an offer may be one that never starts here: then another checkpoint gets its chance.
    let began = c.events(2).iter().filter(|event| matches!(event, Event::TransferBegan { .. })).count();
    assert!((2..10).contains(&began), "{began} transfers in 10 s");
    c.pass_until(|c| c.executed(2) == LETTERS[..11]);
    assert!(c.core(2).view() >= view && base(&c, 2) > 3);
}
