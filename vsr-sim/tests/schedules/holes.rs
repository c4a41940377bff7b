//! Hazards H5-01 to H5-15: holes that other implementations in Rust share.

use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::{DoViewChange, HeaderFields, Life, OpKind, Outcome, Ping, Refusal, StartView};
use vsr::{Checksum, CommitNumber, Entry, Header, Message, OpNumber, Timestamp, Timing, View};
use vsr_sim::script::{Flight, Script};

use crate::support::*;

/// H5-01: no `DoViewChange` leaves before the view is durable, no acknowledgement before log_view is.
#[test]
fn h5_01_nothing_is_promised_before_it_is_durable() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.crash(0);
    s.hold_disk(2);
    let said = watch(&mut s, |f| f.from == replica(2));
    // What it says again of the view that it is durably in is no promise of the next one.
    let of_view_1 = |f: &Flight| match &f.message {
        Message::PrepareOk { view, .. } | Message::CommitOk { view, .. } => view.number == 1,
        _ => true,
    };
    let has_said = |kinds: &[&str]| said.borrow().iter().any(|f| kinds.contains(&f.name()) && of_view_1(f));
    until(&mut s, "view 1", |s| s.view(2) == 1);
    assert_eq!(s.disk(2).state().view.number, 0);
    assert!(!has_said(&["DoViewChange", "PrepareOk", "CommitOk"]));
    // The record of what was committed may be on its way before it.
    for _ in 0..2 {
        if s.disk(2).state().view.number == 0 {
            s.write_once(2);
            s.run();
        }
    }
    assert!(has_said(&["DoViewChange"]) && s.disk(2).state().view.number == 1);
    // r1 has started the view, and r2 is writing that down.
    assert!(s.core(1).is_primary() && s.disk(2).is_writing(), "{:?}", describe(&s));
    assert_eq!(s.disk(2).state().log_view.number, 0);
    assert!(!has_said(&["PrepareOk", "CommitOk"]));
    s.write_once(2);
    s.run();
    assert!(has_said(&["PrepareOk"]) && s.disk(2).state().log_view.number == 1);
    s.settle();
    assert_eq!(s.executed(2), ["a"]);
}

/// H5-04: a `StartView`, `Prepare` or `Commit` of another than the primary of its view is not believed.
#[test]
fn h5_04_only_the_primary_of_a_view_is_believed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    let late = s.hold(|f| f.is(0, 2) && f.name() == "Prepare");
    write(&mut s, 0, client, 2, b"b");
    let before = s.describe(2);
    let prepare = s.held(late).swap_remove(0).message;
    let (view, head) = (s.core(0).view(), s.core(0).head());
    let start = StartView {
        view: Script::view_of(4),
        commit: CommitNumber(0),
        head: OpNumber::ZERO,
        headers: Vec::new(),
        nonce: 0,
        checkpoint: OpNumber::ZERO,
    };
    s.inject(Script::flight(1, 2, prepare));
    s.inject(Script::flight(1, 2, Message::Commit { view, commit: CommitNumber(head.0), head, number: 99 }));
    s.inject(Script::flight(0, 2, Message::StartView(start)));
    assert_eq!(s.describe(2), before);
    s.run();
    assert_eq!(s.describe(2), before);
    s.release(late);
    s.run();
    assert_eq!(s.core(2).head(), head);
    s.settle();
    assert_eq!(s.executed(2), ["a", "b"]);
}

/// H5-05: a `Prepare` of a later view truncates nothing; until that view's log is here, the `DoViewChange` carries
/// the old one with the old log_view.
#[test]
fn h5_05_nothing_is_truncated_before_the_log_of_the_later_view_is_here() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.is(0, 1) && f.name() == "Prepare");
    write(&mut s, 0, client, 1, b"x");
    assert!(s.reply(client, 1).is_some(), "r0 and r2 have x");
    s.heal();
    // View 1 begins without r2; r2 hears of it by a Prepare only.
    let island = s.isolate(2);
    s.crash(0);
    s.restart(0);
    s.run();
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    s.release(island);
    let starts = s.hold(|f| f.is(1, 2) && f.name() == "StartView");
    write(&mut s, 1, client, 2, b"y");
    assert!(s.reply(client, 2).is_some() && !s.held(starts).is_empty());
    assert_eq!((s.core(2).log_view().number, s.core(2).head().0), (0, 2), "{}", s.describe(2));
    assert_eq!(s.durable(2, 2), s.durable(1, 2));
    s.forget(starts);
    s.crash(1);
    let promises = watch(&mut s, |f| f.is(2, 0) && f.name() == "DoViewChange");
    until(&mut s, "a view of r0 and r2", |s| s.core(0).is_primary() || s.core(2).is_primary());
    assert!(!promises.borrow().is_empty());
    for flight in promises.borrow().iter() {
        let Message::DoViewChange(dvc) = &flight.message else { continue };
        assert_eq!((dvc.log_view.number, dvc.head.0), (0, 2), "{dvc:?}");
    }
    s.settle();
    assert_eq!(s.executed(1), ["x", "y"]);
}

/// H5-06: acknowledgements are a set, matched by view, op and content.
#[test]
fn h5_06_acknowledgements_are_a_set_and_match_the_op() {
    let mut s = Script::new(5);
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    write(&mut s, 0, client, 1, b"w");
    let first = s.held(acks).into_iter().find(|f| f.is(1, 0)).expect("r1 acknowledges").message;
    for _ in 0..5 {
        s.inject(Script::flight(1, 0, first.clone()));
    }
    assert_eq!(s.reply(client, 1), None, "r0 and r1 are two of three");
    let Message::PrepareOk { view, op, checksum, life } = first else { panic!("it is held by its kind") };
    for from in 2..5 {
        s.inject(Script::flight(from, 0, Message::PrepareOk { view, op, checksum: Checksum(1), life }));
        s.inject(Script::flight(from, 0, Message::PrepareOk { view: Script::view_of(5), op, checksum, life }));
        s.inject(Script::flight(from, 0, Message::PrepareOk { view, op: op.next(), checksum, life }));
    }
    s.run();
    assert_eq!((s.reply(client, 1), s.core(0).commit().0), (None, 1));
    s.release(acks);
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// H5-07: the session table is the same everywhere: the next primary knows who was evicted, and who was not.
#[test]
fn h5_07_every_replica_has_the_same_session_table() {
    let mut members = membership(3);
    members.constants.sessions_max = 2;
    members.constants.session_idle_min = 1;
    let mut s = Script::with_membership(members);
    let first = s.register(0);
    write(&mut s, 0, first, 1, b"a");
    let second = s.register(0);
    write(&mut s, 0, second, 1, b"b");
    s.register(0);
    assert_eq!(s.core(0).sessions(), 2);
    s.crash(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    // Evicted, by the log: neither the old request nor a new one is executed.
    write(&mut s, 1, first, 1, b"a");
    write(&mut s, 1, first, 2, b"c");
    assert_eq!(s.outcomes(first, 1), [replied("1"), Outcome::Refused(Refusal::Evicted)]);
    assert_eq!(s.outcomes(first, 2), [Outcome::Refused(Refusal::Evicted)]);
    write(&mut s, 1, second, 1, b"b");
    assert_eq!(s.outcomes(second, 1), [replied("2"), replied("2")]);
    s.settle();
    assert_eq!(s.core(0).sessions_digest(), s.core(2).sessions_digest());
    assert_eq!(s.executed(2), ["a", "b"]);
}

/// H5-09: pings do not keep a primary alive that neither prepares nor commits.
#[test]
fn h5_09_pings_do_not_keep_a_mute_primary() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let pings = watch(&mut s, |f| f.is(0, 1) && f.name() == "Ping");
    s.lose(|f| (f.is(0, 1) || f.is(0, 2)) && f.name() != "Ping");
    let passed = until(&mut s, "a new primary", |s| (1..3).any(|at| s.core(at).is_primary()));
    assert!(!pings.borrow().is_empty() && passed <= Timing::default().suspect * 2, "{passed:?}");
    let primary = leader(&s, &[1, 2]);
    write(&mut s, primary, client, 1, b"w");
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
}

/// H5-11: messages with absurd numbers, of strangers, or that contradict themselves are ignored, whoever they
/// reach.
#[test]
fn h5_11_absurd_messages_are_ignored() {
    const HUGE: u64 = u64::MAX;
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    let header = |op: u64, commit: u64| {
        Header::new(HeaderFields {
            view: View::default(),
            op: OpNumber(op),
            parent: Checksum(0),
            body: Checksum(0),
            body_len: u32::MAX,
            requests: u32::MAX,
            timestamp: Timestamp(1),
            commit: CommitNumber(commit),
            machine_version: u32::MAX,
            kind: OpKind::Requests,
        })
    };
    let (view, later, absurd) = (View::default(), Script::view_of(1), Script::view_of(HUGE));
    let (huge, checksum, commit) = (OpNumber(HUGE), Checksum(0), CommitNumber(HUGE));
    let far = 1 << 40;
    let entry = |op: u64, commit: u64| Entry { header: header(op, commit), body: Bytes::new() };
    let ping = Ping {
        view: absurd,
        normal: true,
        commit,
        head: huge,
        wall: Timestamp(HUGE),
        checkpoint: huge,
        machine_version: u32::MAX,
        head_certain: true,
        has_room: true,
        life: Life::default(),
        known: Vec::new(),
    };
    let dvc = DoViewChange {
        view: later,
        log_view: view,
        commit: CommitNumber(0),
        head: OpNumber(far),
        head_certain: true,
        headers: Vec::new(),
        facts: Vec::new(),
        checkpoint: OpNumber::ZERO,
        life: Life::default(),
        known: Vec::new(),
    };
    let start = |op: u64| StartView {
        view: later,
        commit: CommitNumber(op - 1),
        head: OpNumber(op),
        headers: vec![header(op, 0)],
        nonce: 0,
        checkpoint: OpNumber::ZERO,
    };
    let messages = |life: Life| {
        [
            Message::Prepare { view, commit, entry: entry(HUGE, HUGE) },
            Message::Prepare { view, commit: CommitNumber(0), entry: entry(far, 0) },
            Message::PrepareOk { view, op: huge, checksum, life },
            Message::Commit { view, commit, head: huge, number: HUGE },
            Message::Commit { view, commit: CommitNumber(5), head: OpNumber(4), number: HUGE },
            Message::CommitOk { view, number: HUGE, life },
            Message::StartViewChange { view: absurd, life },
            Message::DoViewChange(DoViewChange { life, ..dvc.clone() }),
            Message::StartView(start(HUGE)),
            Message::StartView(start(far)),
            Message::RequestStartView { view: absurd, nonce: 0 },
            Message::RequestHeaders { op: huge, checksum, count: u32::MAX },
            Message::Headers { headers: vec![header(HUGE, 0), header(far, 0)] },
            Message::RequestEntries { wanted: vec![(huge, checksum); 1000] },
            Message::Entries { entries: vec![entry(HUGE, 0), entry(far, 0)] },
            Message::Ping(Ping { life, ..ping.clone() }),
            Message::ReadIndexOk { nonce: 0, index: huge },
        ]
    };
    let before = describe(&s);
    for (from, to) in (0..3).flat_map(|to| [0, 1, 2, 9].map(|from| (from, to))) {
        for message in messages(s.life(from.min(2))) {
            s.inject(Script::flight(from, to, message));
        }
    }
    s.run();
    assert_eq!(describe(&s), before);
    write(&mut s, 0, client, 2, b"b");
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.settle();
    assert_eq!(s.executed(2), ["a", "b"]);
}

/// H5-13: what a view change sends does not grow with the log.
#[test]
fn h5_13_a_view_change_sends_the_end_of_the_log_only() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=200 {
        write(&mut s, 0, client, number, b"w");
    }
    let seen = watch(&mut s, |f| matches!(f.name(), "DoViewChange" | "StartView"));
    s.crash(0);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    s.restart(0);
    s.pass(ms(500));
    let headers = |f: &Flight| match &f.message {
        Message::DoViewChange(dvc) => dvc.headers.len(),
        Message::StartView(start) => start.headers.len(),
        _ => 0,
    };
    let longest = seen.borrow().iter().map(headers).max();
    let pipeline = s.core(1).membership().constants.pipeline_max as usize;
    assert!(longest.is_some_and(|longest| (1..=pipeline + 1).contains(&longest)), "{longest:?}");
    assert_eq!(s.core(1).head().0, 201);
    s.settle();
    assert_eq!(s.executed(0).len(), 200);
}

/// H5-14: a repeated `Prepare` is acknowledged again, a repeated request answered again, a repeated ask for the
/// `StartView` too.
#[test]
fn h5_14_what_is_said_again_is_answered_again() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let prepares = watch(&mut s, |f| f.is(0, 1) && f.name() == "Prepare");
    let lost = s.lose(|f| f.name() == "PrepareOk");
    write(&mut s, 0, client, 1, b"w");
    assert_eq!(s.reply(client, 1), None);
    s.release(lost);
    let again = prepares.borrow()[0].clone();
    s.inject(again);
    s.run();
    assert_eq!(s.outcomes(client, 1), [replied("1")]);
    write(&mut s, 0, client, 1, b"w");
    assert_eq!(s.outcomes(client, 1), [replied("1"), replied("1")]);
    let starts = s.hold(|f| f.is(0, 2) && f.name() == "StartView");
    for _ in 0..2 {
        s.inject(Script::flight(2, 0, Message::RequestStartView { view: Script::view_of(0), nonce: 5 }));
    }
    s.run();
    assert_eq!(s.held(starts).len(), 2);
    s.settle();
    assert_eq!(s.executed(1), ["w"]);
}

/// H5-15: failed view changes make the next time-out longer; a view that starts and commits nothing does not make
/// it short again.
#[test]
fn h5_15_only_progress_resets_the_back_off() {
    let mut s = Script::new(3);
    s.register(0);
    s.pass(ms(100));
    s.crash(0);
    let lost = s.lose(|f| f.name() == "DoViewChange");
    let mut last = Duration::ZERO;
    for view in 1..=4 {
        let waited = until(&mut s, "the next view", |s| s.view(1) == view && s.view(2) == view);
        assert!(view < 3 || waited > last, "view {view} after {waited:?}, the one before after {last:?}");
        last = waited;
    }
    s.release(lost);
    until(&mut s, "view 4 starts", |s| s.core(1).is_primary() && s.is_normal(2));
    assert_eq!((s.view(2), s.core(2).commit().0), (4, 1), "nothing new is committed");
    // r1 leaves it at once, and nobody can start view 5. r2 alone remembers the failures.
    s.lose(|f| f.name() == "DoViewChange");
    s.crash(1);
    s.restart(1);
    until(&mut s, "view 5", |s| s.view(2) == 5);
    let waited = until(&mut s, "view 6", |s| s.view(2) == 6);
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    s.settle();
}
