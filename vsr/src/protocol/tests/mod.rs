//! Three cores on three disks in memory, played message by message: normal operation, a view change, a lost end of a log,
//! reads. What needs damage, forged messages or many faults is in `vsr-sim/tests/schedules` and `vsr-sim/scenarios`.

mod cluster;
mod rejoins;
mod scrubbing;
mod transfers;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::types::event::Event;
use crate::protocol::types::message::Outcome;
use crate::protocol::types::number::OpNumber;
use cluster::Cluster;

/// How long a primary waits with the commit number for a `Prepare` that carries it.
const COMMIT_DELAY: Duration = Duration::from_millis(1);

/// Rules 6.1, 6.2, 6.4 and 6.6: the way of one op, and what each step waits for.
#[test]
fn an_op_is_committed_when_a_quorum_has_it_on_its_disks() {
    let mut c = Cluster::new();
    c.submit(0, "a");
    assert_eq!(c.take_sent(), ["r0>r1 Prepare", "r0>r2 Prepare"], "while the primary's own write is under way");
    c.deliver();
    assert!(c.take_sent().is_empty(), "nothing is acknowledged before it is durable");
    c.complete_write(1);
    assert_eq!(c.take_sent(), ["r1>r0 PrepareOk"]);
    c.deliver();
    assert!(c.executed(0).is_empty(), "one disk of three has it");
    c.complete_write(0);
    assert_eq!(c.executed(0), ["a"], "the primary's own disk is a vote like any other");
    let outcomes: Vec<_> = c.replies(0).iter().map(|reply| reply.outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Reply(Bytes::from_static(b"1"))]);
    c.run();
    assert_eq!(c.take_sent(), ["r2>r0 PrepareOk"]);
    assert!(c.executed(1).is_empty(), "the backups do not know yet that it is committed");
    c.pass(COMMIT_DELAY);
    assert_eq!(c.take_sent(), ["r0>r1 Commit", "r0>r2 Commit", "r1>r0 CommitOk", "r2>r0 CommitOk"]);
    assert_eq!((c.executed(1), c.executed(2)), (vec!["a"], vec!["a"]));
}

/// Rule 6.2: the acknowledgement of an op acknowledges everything below it.
#[test]
fn an_op_above_a_gap_is_not_acknowledged_before_the_gap_is_filled() {
    let mut c = Cluster::new();
    c.cut_off(0, true);
    c.submit(0, "a");
    c.run();
    c.cut_off(0, false);
    c.submit(0, "b");
    c.deliver();
    c.complete_write(1);
    let sent = c.take_sent();
    assert!(c.stored(1, 3).is_some(), "it is on the disk");
    assert!(!sent.iter().any(|line| line.ends_with(" PrepareOk")), "{sent:#?}");
    assert!(sent.iter().any(|line| line.starts_with("r1>") && line.ends_with(" RequestHeaders")), "{sent:#?}");
    c.pass_until(|c| (0..3).all(|at| c.executed(at) == ["a", "b"]));
}

/// Rules 5.2, 5.3: the session table and the requests in flight make a request execute once, however often it is sent.
#[test]
fn a_request_that_is_sent_again_is_executed_once_and_gets_the_same_reply() {
    let mut c = Cluster::new();
    c.submit(0, "a");
    c.send_again(0);
    c.run();
    assert_eq!((c.executed(0), c.replies(0).len()), (vec!["a"], 1));
    c.send_again(0);
    c.run();
    assert_eq!((c.executed(0), c.replies(0).len()), (vec!["a"], 2));
    assert_eq!(c.replies(0)[0], c.replies(0)[1]);
    assert_eq!(c.core(0).head(), OpNumber(2), "the second copy is no op");
}

/// Rules 7.1 to 7.5: votes, promises, the new log, in this order; and what was answered is in it.
#[test]
fn what_was_answered_in_one_view_is_in_the_log_of_the_next() {
    let mut c = Cluster::new();
    c.submit(0, "a");
    c.run();
    assert_eq!((c.executed(0), c.replies(0).len()), (vec!["a"], 1));
    assert!(c.executed(1).is_empty() && c.executed(2).is_empty(), "only the primary knows that it is committed");
    c.crash(0);
    c.take_sent();
    c.pass_until(|c| c.is_primary(1));
    let sent = c.take_sent();
    let of_kind = |kind: &str| -> Vec<usize> {
        let is_one = |line: &String| line.split(' ').nth(1) == Some(kind);
        sent.iter().enumerate().filter(|(_, line)| is_one(line)).map(|(at, _)| at).collect()
    };
    let (votes, promises, starts) = (of_kind("StartViewChange"), of_kind("DoViewChange"), of_kind("StartView"));
    assert!(!promises.is_empty() && !starts.is_empty(), "{sent:#?}");
    let voters: BTreeSet<&str> = votes.iter().filter(|at| **at < promises[0]).map(|at| &sent[*at][..2]).collect();
    assert_eq!(voters, BTreeSet::from(["r1", "r2"]), "a quorum votes before anybody promises: {sent:#?}");
    let promised: BTreeSet<&str> = promises.iter().filter(|at| **at < starts[0]).map(|at| &sent[*at][..2]).collect();
    assert_eq!(promised, BTreeSet::from(["r1", "r2"]), "a quorum promises before the view starts: {sent:#?}");
    assert!(starts.iter().all(|at| sent[*at].starts_with("r1>")), "the primary of view 1 starts it: {sent:#?}");
    c.submit(1, "b");
    c.pass_until(|c| (1..3).all(|at| c.executed(at) == ["a", "b"]));
    assert_eq!(c.core(1).view().number, 1);
    assert_eq!(c.replies(1).last().map(|reply| reply.outcome.clone()), Some(Outcome::Reply(Bytes::from_static(b"2"))));
}

/// Rules 7.4 and 7.6: what only a primary had that is gone is dropped, there too when it comes back, and its place is
/// taken by another op.
#[test]
fn an_op_that_only_a_dead_primary_had_is_dropped_everywhere() {
    let mut c = Cluster::new();
    c.submit(0, "a");
    c.run();
    c.pass(COMMIT_DELAY);
    c.cut_off(0, true);
    c.submit(0, "lost");
    c.run();
    assert!(c.stored(0, 3).is_some(), "it is on the primary's own disk");
    assert_eq!((c.executed(0), c.replies(0).len()), (vec!["a"], 1), "and nobody was told that it is done");
    c.crash(0);
    c.pass_until(|c| c.is_primary(1));
    c.submit(1, "b");
    c.pass_until(|c| (1..3).all(|at| c.executed(at) == ["a", "b"]));
    c.start(0);
    c.pass_until(|c| c.executed(0) == ["a", "b"]);
    let dropped = Event::Truncated { above: OpNumber(2), head: OpNumber(3) };
    assert!(c.events(0).contains(&dropped), "{:#?}", c.events(0));
    assert_eq!(c.stored(0, 3), c.stored(1, 3));
    assert_eq!(c.core(0).view(), c.core(1).view());
}

/// Rule 8.1: a primary serves a query when a quorum has answered a `Commit` that left after the query came.
#[test]
fn a_query_at_the_primary_waits_for_a_round_of_confirmations() {
    let mut c = Cluster::new();
    c.query(0, 7);
    assert_eq!(c.take_sent(), ["r0>r1 Commit", "r0>r2 Commit"]);
    assert!(c.served(0).is_empty(), "nobody has confirmed that it still is the primary");
    c.deliver();
    c.deliver();
    assert_eq!(c.served(0), [7]);
    assert_eq!(c.core(0).head(), OpNumber(1), "no op was made for it");
}

/// Rule 8.2.
#[test]
fn a_query_at_a_backup_asks_the_primary_for_an_index() {
    let mut c = Cluster::new();
    c.query(1, 7);
    c.run();
    let expected =
        ["r1>r0 ReadIndex", "r0>r1 Commit", "r0>r2 Commit", "r1>r0 CommitOk", "r2>r0 CommitOk", "r0>r1 ReadIndexOk"];
    assert_eq!(c.take_sent(), expected);
    assert_eq!(c.served(1), [7]);
}

/// Rule 8.1: a primary that was replaced and does not know it serves nothing; when it does, the query is served in the new view.
#[test]
fn a_query_at_a_primary_that_was_replaced_sees_what_was_answered_since() {
    let mut c = Cluster::new();
    c.cut_off(0, true);
    c.query(0, 7);
    c.pass_until(|c| c.is_primary(1));
    c.submit(1, "b");
    c.pass_until(|c| (1..3).all(|at| c.executed(at) == ["b"]));
    assert!(c.served(0).is_empty() && c.executed(0).is_empty());
    c.cut_off(0, false);
    c.pass_until(|c| c.served(0) == [7]);
    assert_eq!(c.executed(0), ["b"]);
}
