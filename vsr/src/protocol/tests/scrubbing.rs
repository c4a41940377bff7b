//! Damage that nothing asks for (rule 9.13).

use std::time::Duration;

use super::cluster::Cluster;
use crate::protocol::types::checkpoint::{CheckpointId, Past};
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::event::Event;
use crate::protocol::types::number::{OpNumber, ReplicaId};

const LETTERS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Replicas that have restarted: all of their log is on the disk alone.
fn cold(every: u64) -> Cluster {
    let mut c = Cluster::with_checkpoints(every);
    c.cache_bytes = 0;
    for letter in LETTERS {
        c.submit(0, letter);
        c.run();
        c.pass(Duration::from_millis(20));
    }
    for at in [2, 1, 0] {
        c.crash(at);
        c.start(at);
        c.pass_until(|c| c.executed(at).len() == LETTERS.len());
    }
    c
}

fn pass(c: &mut Cluster, time: Duration) {
    for _ in 0..time.as_millis() / 50 {
        c.pass(Duration::from_millis(50));
    }
}

fn damaged(c: &Cluster, at: usize) -> Vec<&Event> {
    let is = |event: &&Event| matches!(event, Event::Damaged { .. } | Event::CheckpointDamaged { .. });
    c.events(at).iter().filter(is).collect()
}

/// Rule 9.13: an entry that nothing reads is found damaged, and fetched from a peer.
#[test]
fn a_damaged_entry_that_nothing_asks_for_is_found_and_fetched() {
    let mut c = cold(0);
    for (at, op) in [(2, 3), (1, 5), (0, 4)] {
        let intact = c.stored(at, op).unwrap().clone();
        c.harm_entry(at, op);
        pass(&mut c, Duration::from_secs(5));
        assert_eq!(damaged(&c, at), [&Event::Damaged { op: OpNumber(op) }], "r{at}");
        assert_eq!(c.stored(at, op), Some(&intact), "r{at}: {}", c.core(at).explain());
        assert!(c.core(at).entry_in_memory(OpNumber(op)).is_none(), "r{at}: it is on the disk again, and there alone");
    }
}

/// Rule 9.13: checkpoints may come faster than they are read. The log is looked at all the same.
#[test]
fn checkpoints_that_are_replaced_before_they_are_read_do_not_keep_the_log_waiting() {
    let mut c = cold(6);
    pass(&mut c, Duration::from_secs(2));
    let op = c.core(1).log_base().next();
    c.harm_entry(1, op.0);
    for _ in 0..100 {
        // The checkpoint of which a part was read last is named no more whenever the next one is due.
        let gone = CheckpointId { op: OpNumber(1), manifest: Checksum(7) };
        c.core_mut(1).repair.scrub.part = Some((gone, 5));
        c.pass(Duration::from_millis(50));
    }
    assert_eq!(damaged(&c, 1), [&Event::Damaged { op }]);
}

/// Rule 9.13: where nobody has another copy, a damaged entry is told once, however often it is read.
#[test]
fn damage_that_stays_is_told_once() {
    let mut c = Cluster::of(1, 0);
    for letter in LETTERS {
        c.submit(0, letter);
        c.run();
    }
    c.cache_bytes = 0;
    c.crash(0);
    c.start(0);
    c.pass_until(|c| c.executed(0).len() == LETTERS.len());
    c.harm_entry(0, 3);
    pass(&mut c, Duration::from_secs(20));
    assert_eq!(damaged(&c, 0), [&Event::Damaged { op: OpNumber(3) }]);
    c.submit(0, "i");
    c.pass_until(|c| c.executed(0).len() == LETTERS.len() + 1);
}

/// Rules 9.6, 9.13: a checkpoint that nothing reads is found damaged, and a new one takes its place, though no op makes one due.
#[test]
fn a_damaged_checkpoint_that_nothing_asks_for_is_found_and_replaced() {
    for at in 0..3 {
        let mut c = cold(3);
        pass(&mut c, Duration::from_secs(2));
        let before = c.core(at).checkpoint();
        c.harm_checkpoints(at);
        pass(&mut c, Duration::from_secs(20));
        assert!(damaged(&c, at).contains(&&Event::CheckpointDamaged { op: before }), "r{at}: {:?}", damaged(&c, at));
        assert!(c.has_whole_checkpoint(at), "r{at}");
        // A start goes on from it.
        c.crash(at);
        c.start(at);
        assert!(!c.core(at).lacks_state(), "r{at}");
    }
}

/// Rules 9.6, 9.13: the older checkpoint is intact, so nothing forces a new one; the scrubber asks for it.
#[test]
fn a_damaged_checkpoint_beside_an_intact_one_is_replaced() {
    let mut c = cold(3);
    pass(&mut c, Duration::from_secs(2));
    let before = c.core(1).checkpoint();
    c.harm_newest_checkpoint(1);
    assert!(!c.has_whole_checkpoint(1));
    pass(&mut c, Duration::from_secs(20));
    assert_eq!(damaged(&c, 1), [&Event::CheckpointDamaged { op: before }]);
    assert!(c.has_whole_checkpoint(1), "{}", c.core(1).explain());
}

/// Rule 9.6, seed 7862 with lost disks: a peer has asked for the newest checkpoint, and it could not be read; nothing looks at it again, and the older one
/// does not help that peer.
#[test]
fn a_checkpoint_that_a_peer_could_not_be_given_is_replaced_though_an_older_one_is_intact() {
    let mut c = cold(3);
    pass(&mut c, Duration::from_secs(2));
    let newest = *c.core(1).state.checkpoints.last().unwrap();
    c.core_mut(1).checkpoints.doubt(newest);
    pass(&mut c, Duration::from_secs(20));
    assert!(!c.core(1).offered().contains(&newest), "nobody needs it");
    for _ in 0..200 {
        // Whose own are gone.
        let view = c.core(1).view();
        let past = Past { base: newest.op, checkpoints: Vec::new(), is_whole: false };
        c.core_mut(1).note_past(ReplicaId(2), view, past);
        c.pass(Duration::from_millis(50));
    }
    assert!(c.core(1).offered().last().is_some_and(|id| id.op >= newest.op), "{}", c.core(1).explain());
}

/// Rule 9.13: what is intact is read again and again, and nothing comes of it.
#[test]
fn what_is_intact_is_left_alone() {
    let mut c = cold(3);
    pass(&mut c, Duration::from_secs(2));
    c.take_sent();
    let checkpoints: Vec<_> = (0..3).map(|at| c.core(at).checkpoint()).collect();
    pass(&mut c, Duration::from_secs(30));
    assert!((0..3).all(|at| damaged(&c, at).is_empty()));
    assert_eq!((0..3).map(|at| c.core(at).checkpoint()).collect::<Vec<_>>(), checkpoints);
    let asks = |line: &String| line.contains("RequestEntries") || line.contains("RequestCheckpoint");
    assert_eq!(c.take_sent().into_iter().find(asks), None);
}
