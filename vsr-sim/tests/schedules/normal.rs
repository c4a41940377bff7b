//! Normal operation.

use std::time::Duration;

use vsr::Message;
use vsr_sim::script::Script;

/// NO-01: a backup without op 2 does not acknowledge op 3, as long as op 2 is not committed without it.
#[test]
fn no_01_a_gap_is_not_acknowledged() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let gap = s.hold(|f| f.is(0, 2) && matches!(&f.message, Message::Prepare { entry, .. } if entry.header.op.0 == 2));
    let repair = s.lose(|f| f.is(2, 0) && f.name().starts_with("RequestEntries"));
    let repair_too = s.lose(|f| f.is(2, 1) && f.name().starts_with("Request"));
    let others = s.hold(|f| f.is(1, 0) && f.name() == "PrepareOk");
    let acks = s.hold(|f| f.is(2, 0) && f.name() == "PrepareOk");
    s.submit(0, client, 1, b"x=1");
    s.run();
    s.submit(0, client, 2, b"x=2");
    s.run();
    for flight in s.held(acks) {
        let Message::PrepareOk { op, .. } = flight.message else { continue };
        assert!(op.0 < 2, "op {op} is acknowledged without op 2");
    }
    assert_eq!(s.reply(client, 1), None);
    s.forget(gap);
    for rule in [repair, repair_too, acks, others] {
        s.release(rule);
    }
    s.run();
    s.settle();
    assert_eq!(s.executed(2), ["x=1", "x=2"]);
}

/// NO-02: reordered and repeated `Prepare`s.
#[test]
fn no_02_reordered_and_repeated_prepares_are_executed_once_and_in_order() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let prepares = s.hold(|f| f.is(0, 1) && f.name() == "Prepare");
    for number in 1..=3 {
        s.submit(0, client, number, format!("{number}").as_bytes());
        s.run();
    }
    let held = s.held(prepares);
    s.forget(prepares);
    for at in [2, 0, 1] {
        for _ in 0..5 {
            s.inject(held[at].clone());
        }
    }
    s.run();
    s.settle();
    assert_eq!(s.executed(1), ["1", "2", "3"]);
    assert_eq!(s.core(1).head().0, 4);
}

/// NO-06: one acknowledgement of the last op commits the whole pipeline, in order.
#[test]
fn no_06_an_acknowledgement_covers_everything_below_it() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    let acks = s.hold(|f| f.is(1, 0) && f.name() == "PrepareOk");
    for number in 1..=20 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    assert_eq!(s.reply(client, 1), None);
    let last = s.held(acks).into_iter().max_by_key(|f| match &f.message {
        Message::PrepareOk { op, .. } => op.0,
        _ => 0,
    });
    s.forget(acks);
    s.inject(last.expect("r1 has acknowledged"));
    s.run();
    for number in 1..=20 {
        assert_eq!(s.reply(client, number), Some(number.to_string().into_bytes()));
    }
}

/// NO-07: in an idle cluster the backups execute the last op soon.
#[test]
fn no_07_backups_execute_the_last_op_of_an_idle_cluster() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.submit(0, client, 1, b"last");
    s.run();
    s.pass(Duration::from_secs(10));
    assert_eq!((s.executed(1), s.executed(2)), (vec!["last".to_owned()], vec!["last".to_owned()]));
    assert_eq!(s.views_entered(), 0);
}
