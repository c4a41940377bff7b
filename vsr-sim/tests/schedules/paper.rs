//! Defects of the paper, and of common readings of it.

use std::time::Duration;

use vsr::{CommitNumber, Message};
use vsr_sim::script::Script;

/// D03 b: a repeated `StartView` of the present view replaces nothing.
#[test]
fn d03_b_a_repeated_start_view_does_not_drop_what_came_since() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let copies = s.hold(|f| f.is(1, 2) && f.name() == "StartView");
    s.crash(0);
    s.pass(Duration::from_millis(700));
    let start = s.held(copies);
    assert!(!start.is_empty(), "{}", s.describe(1));
    s.release(copies);
    s.run();
    assert!(s.is_normal(2), "{}", s.describe(2));
    for number in 1..=2 {
        s.submit(1, client, number, b"w");
        s.run();
        assert!(s.reply(client, number).is_some());
    }
    let head = s.core(2).head();
    for flight in start {
        s.inject(flight);
    }
    s.run();
    assert_eq!(s.core(2).head(), head);
    s.settle();
    assert_eq!(s.executed(0).len(), 2);
}

/// D07: a commit number beyond what is here executes nothing that is missing or unconnected.
#[test]
fn d07_a_commit_number_beyond_the_log_executes_nothing_missing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let lost = s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    for number in 1..=5 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    assert!(s.executed(2).is_empty());
    s.forget(lost);
    let (view, head) = (s.core(0).view(), s.core(0).head());
    s.inject(Script::flight(0, 2, Message::Commit { view, commit: CommitNumber(head.0), head, number: 1 << 40 }));
    s.run();
    s.pass(Duration::from_millis(500));
    s.settle();
    assert_eq!(s.executed(2).len(), 5);
}
