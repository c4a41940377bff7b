//! Sessions: a request is executed at most once, and its client is told the truth about it.

use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::{Busy, Message, OpNumber, Outcome, Peer, Position, Refusal, Request, RequestNumber, SessionId};
use vsr::{ClientId, Membership, ReplicaId};
use vsr_sim::script::Script;

use crate::support::{
    clogged, depose, eventually, members, membership, ms, refused, replied, request, submit, submit_together, times,
    until, write,
};

/// B-01: two `Register`s in one op open two sessions.
#[test]
fn b_01_two_registers_in_one_op_get_two_sessions() {
    let mut s = Script::new(3);
    let clients = [ClientId(901), ClientId(902)];
    let register = |client| Request {
        client,
        session: SessionId::default(),
        number: RequestNumber(0),
        floor: RequestNumber(0),
        command: Bytes::new(),
    };
    submit_together(&mut s, clients.map(register).to_vec());
    let [first, second] = clients.map(|client| s.session(client).expect("the session is open"));
    assert_eq!((first.0.op, second.0.op), (OpNumber(1), OpNumber(1)));
    assert!(first < second, "{first} and {second}");
    for client in clients {
        submit(&mut s, 0, client, 1, 1);
    }
    assert_eq!(clients.map(|client| s.outcomes(client, 1)), [vec![replied(b"1")], vec![replied(b"2")]]);
    s.settle();
}

/// B-11: a repeated `Register` changes nothing, and answers with the session that is there.
#[test]
fn b_11_a_repeated_register_opens_no_second_session() {
    let mut s = Script::new(3);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, 1);
    let opened = Outcome::Registered(s.session(client).expect("the session is open"));
    for at in [1, 2, 1] {
        s.send_register(at, client);
        s.run();
    }
    assert_eq!(s.outcomes(client, 0), times(4, opened));
    submit(&mut s, 1, client, 1, 1);
    assert_eq!(s.outcomes(client, 1), [replied(b"1"), replied(b"1")]);
    s.settle();
    assert_eq!((s.executed(2).len(), s.core(2).sessions()), (1, 1));
}

/// B-11: only a replica that has applied a session's own op may call it evicted.
#[test]
fn b_11_a_young_session_is_not_called_evicted() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let young = SessionId(Position { op: OpNumber(2), index: 0 });
    let early = Request { session: young, ..request(&s, client, 1, b"w") };
    s.request(0, early.clone());
    s.run();
    assert_eq!(s.outcomes(client, 1), [Outcome::Busy(Busy::Queue)]);
    s.register(0); // op 2, and the session of another client
    s.request(0, early);
    submit(&mut s, 0, client, 1, 1);
    assert_eq!(s.outcomes(client, 1)[1..], [Outcome::Refused(Refusal::Evicted), replied(b"1")]);
    s.settle();
    assert_eq!(s.executed(1).len(), 1);
}

/// D14 c: what a client learns of its session comes from the log, not from the replica that it happens to ask.
#[test]
fn d14_c_a_lagging_backup_opens_sessions_by_the_log() {
    let mut s = Script::new(3);
    s.lose(|f| f.is(0, 2) && f.name() == "Prepare");
    let first = s.register(2);
    let session = s.session(first);
    let second = s.register(2);
    assert!(s.session(second) > session, "sessions are in the order of the log");
    s.send_register(2, first);
    s.run();
    assert_eq!(s.core(2).sessions(), 0, "r2 itself knows of neither");
    assert_eq!((s.session(first), s.outcomes(first, 0).len()), (session, 2));
    write(&mut s, 2, first, 1, b"w");
    assert_eq!(s.outcomes(first, 1), [replied(b"1")]);
    s.settle();
    assert_eq!((s.executed(2), s.core(2).sessions()), (vec!["w".to_owned()], 2));
}

/// CL-01: ten copies of a request at every replica make one op, and every replica answers the same.
#[test]
fn cl_01_the_same_request_at_every_replica_executes_once() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for _ in 0..10 {
        for at in 0..3 {
            s.submit(at, client, 1, b"once");
        }
    }
    s.run();
    let outcomes = s.outcomes(client, 1);
    assert!(outcomes.len() >= 3 && outcomes.iter().all(|outcome| *outcome == replied("1")), "{outcomes:?}");
    assert_eq!(s.core(0).head().0, 2);
    s.settle();
    for at in 0..3 {
        assert_eq!(s.executed(at), ["once"]);
    }
}

/// CL-02: the reply is lost with the primary. The next one gives the stored reply.
#[test]
fn cl_02_a_retry_after_a_view_change_gets_the_stored_reply() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let lost = s.lose(|f| f.name() == "Replies");
    for number in 1..=2 {
        s.submit_with_floor(0, client, number, 1, b"w");
        s.run();
    }
    assert_eq!((s.executed(0).len(), s.reply(client, 1)), (2, None));
    s.crash(0);
    s.forget(lost);
    s.pass(Duration::from_secs(2));
    let head = s.core(1).head();
    for at in 1..3 {
        s.submit_with_floor(at, client, 1, 1, b"w");
    }
    s.run();
    let outcomes = s.outcomes(client, 1);
    assert!(!outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == replied("1")), "{outcomes:?}");
    assert_eq!((s.core(1).head(), s.executed(1).len()), (head, 2));
    s.settle();
    assert_eq!(s.executed(0).len(), 2);
}

/// NO-09: the primary dies after a reply that was lost, before any `Commit`: a retry gets the same reply, and
/// executes nothing.
#[test]
fn no_09_a_retry_at_the_next_primary_gets_the_lost_reply() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let lost = s.lose(|f| matches!(f.to, Peer::Client(_)));
    write(&mut s, 0, client, 1, b"w");
    assert_eq!((s.core(0).commit().0, s.core(1).commit().0, s.core(2).commit().0), (2, 1, 1));
    assert!(s.outcomes(client, 1).is_empty());
    s.crash(0);
    s.release(lost);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    for at in 1..3 {
        write(&mut s, at, client, 1, b"w");
    }
    assert_eq!(s.outcomes(client, 1), [replied("1"), replied("1")]);
    s.settle();
    assert_eq!(s.executed(0), ["w"]);
}

/// D23: a request that is in flight is not admitted again, neither by way of the backups, nor by the primary that
/// has inherited it.
#[test]
fn d23_a_request_in_flight_is_not_prepared_again() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    for at in 0..3 {
        write(&mut s, at, client, 1, b"w1");
    }
    assert_eq!((s.core(0).head().0, s.outcomes(client, 1).len()), (2, 0));
    s.release(acks);
    s.run();
    assert_eq!(s.outcomes(client, 1), [replied(b"1"), replied(b"1"), replied(b"1")]);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    write(&mut s, 0, client, 2, b"w2");
    s.crash(0);
    depose(&mut s, &[1, 2]);
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    for at in [1, 2, 1] {
        write(&mut s, at, client, 2, b"w2");
    }
    assert_eq!((s.core(1).head().0, s.core(1).commit().0), (3, 2), "op 3 is inherited, and is the only one");
    s.release(acks);
    s.run();
    assert_eq!(s.outcomes(client, 2), [replied(b"2"), replied(b"2")]);
    s.settle();
    assert_eq!(s.executed(0), ["w1", "w2"]);
}

/// CL-06: a copy of request 5 comes after 6 is committed, a copy of 6 much later.
#[test]
fn cl_06_late_copies_execute_nothing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for number in 1..=6 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    s.submit(0, client, 5, b"w");
    s.run();
    assert_eq!(s.outcomes(client, 5), [replied("5"), refused(Refusal::BelowFloor)]);
    s.pass(Duration::from_secs(60));
    for at in 0..3 {
        s.submit(at, client, 6, b"w");
    }
    s.run();
    assert_eq!(s.outcomes(client, 6), [replied("6"), replied("6"), replied("6"), replied("6")]);
    assert_eq!(s.core(0).head().0, 7);
    s.settle();
    assert_eq!(s.executed(2).len(), 6);
}

/// B-06: the same number with other content is a conflict, in flight and executed; it never sees another's reply.
#[test]
fn b_06_the_same_number_with_other_content_is_a_conflict() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    s.submit(0, client, 1, b"a");
    s.run();
    s.submit(2, client, 1, b"other");
    s.run();
    // Refused for good once the first is executed: until then a view change may drop it, and a late copy of this one may be
    // executed in its place.
    let (wait, conflict) = (Outcome::Busy(Busy::Queue), Outcome::Refused(Refusal::Conflict));
    assert_eq!(s.outcomes(client, 1), vec![wait.clone()]);
    s.release(acks);
    s.run();
    s.submit(1, client, 1, b"third");
    s.run();
    assert_eq!(s.outcomes(client, 1), [wait, replied(b"1"), conflict]);
    s.settle();
    assert_eq!(s.executed(1), ["a"]);
}

/// CL-04, D14 b: a view change drops a request that a backup holds. That backup, when it is primary, executes
/// the retry.
#[test]
fn cl_04_d14_b_a_dropped_request_is_not_locked_out() {
    let mut s = Script::new(5);
    let client = s.register(0);
    for number in 2..=5 {
        s.submit(0, client, number, b"w");
        s.run();
    }
    s.pass(Duration::from_millis(100));
    for at in 1..4 {
        s.cut(0, at);
    }
    s.submit(0, client, 6, b"six");
    s.run();
    assert!(s.durable(0, 6).is_some() && s.durable(4, 6).is_some() && s.durable(1, 6).is_none());
    assert_eq!(s.reply(client, 6), None);
    s.crash(0);
    let alone = s.isolate(4);
    s.pass(Duration::from_secs(2));
    assert!(s.core(1).is_primary() && s.view(1) == 1 && s.core(1).head().0 == 5, "{}", s.describe(1));
    s.release(alone);
    s.pass(Duration::from_millis(300));
    assert!(s.is_normal(4) && s.view(4) == 1, "{}", s.describe(4));
    assert_eq!((s.core(4).head().0, s.durable(4, 6)), (5, None));
    for at in 1..4 {
        let alone = s.isolate(at);
        s.pass(Duration::from_secs(2));
        s.release(alone);
        s.pass(Duration::from_millis(500));
    }
    assert!(s.core(4).is_primary() && s.view(4) == 4, "{}", s.describe(4));
    s.submit(4, client, 6, b"six");
    s.run();
    assert_eq!(s.reply(client, 6), Some(b"5".to_vec()), "{:?}", s.outcomes(client, 6));
    s.settle();
    for at in 0..5 {
        assert_eq!(s.executed(at), ["w", "w", "w", "w", "six"]);
    }
}

/// D14 b: a request whose op was dropped by a view change does not lock its client out (hazard CL-04).
#[test]
fn d14_b_a_dropped_request_is_executed_when_it_is_sent_again() {
    let mut s = Script::new(5);
    let client = s.register(0);
    for number in 1..=4 {
        write(&mut s, 0, client, number, b"w");
    }
    for at in 1..4 {
        s.cut(0, at);
    }
    write(&mut s, 0, client, 5, b"dropped");
    assert!(s.durable(4, 6).is_some() && s.reply(client, 5).is_none(), "op 6 is at r0 and r4 only");
    s.crash(0);
    s.heal();
    let alone = s.isolate(4);
    depose(&mut s, &[1, 2, 3]);
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    s.forget(alone);
    eventually(&mut s, |s| s.view(4) == 1 && s.is_normal(4));
    assert_eq!((s.core(4).head().0, s.durable(4, 6)), (5, None), "r4 has dropped op 6");
    for voters in [[2, 3, 4], [1, 3, 4], [1, 2, 4]] {
        depose(&mut s, &voters);
    }
    assert!(s.view(4) == 4 && s.core(4).is_primary(), "{}", s.describe(4));
    write(&mut s, 4, client, 5, b"dropped");
    assert_eq!(s.outcomes(client, 5), [replied(b"5")]);
    s.settle();
    assert_eq!(s.executed(0), ["w", "w", "w", "w", "dropped"]);
}

/// CL-05, D14 a: two lives of a client end, and a request of the second one comes late. The third life never
/// hears the reply to it, also when it uses a number twice.
#[test]
fn cl_05_d14_a_a_later_life_never_receives_the_reply_of_an_earlier_one() {
    let mut s = Script::new(3);
    let life_1 = s.register(0);
    for number in 1..=5 {
        s.submit(0, life_1, number, b"w");
        s.run();
    }
    let lost = s.lose(|f| f.name() == "Requests");
    s.submit(0, life_1, 6, b"A");
    s.run();
    s.forget(lost);
    let life_2 = s.register(0);
    let delayed = s.hold(|f| f.name() == "Requests");
    s.submit(0, life_2, 1, b"B");
    s.run();
    let late = s.held(delayed);
    s.forget(delayed);
    let life_3 = s.register(0);
    assert!(s.session(life_1) != s.session(life_2) && s.session(life_2) != s.session(life_3));
    s.submit(0, life_3, 1, b"C");
    s.run();
    assert_eq!(late.len(), 1);
    for flight in late {
        s.inject(flight);
    }
    s.run();
    assert_eq!(s.outcomes(life_2, 1), [replied("7")]);
    s.submit(0, life_3, 1, b"D");
    s.run();
    assert_eq!(s.outcomes(life_3, 1), [replied("6"), refused(Refusal::Conflict)]);
    s.settle();
    assert_eq!(s.executed(2), ["w", "w", "w", "w", "w", "C", "B"]);
}

/// D14 a: a number that an earlier life of the client has used, with another command, brings nobody another's
/// reply.
#[test]
fn d14_a_the_reply_to_another_life_is_never_received() {
    let mut s = Script::new(3);
    let (second, third) = (s.register(0), s.register(0));
    let delayed = s.hold(move |f| f.from == Peer::Client(second));
    write(&mut s, 0, second, 7, b"B");
    write(&mut s, 0, third, 7, b"C");
    assert_eq!(s.outcomes(third, 7), [replied(b"1")]);
    s.release(delayed);
    s.run();
    assert_eq!((s.outcomes(second, 7), s.outcomes(third, 7)), (vec![replied(b"2")], vec![replied(b"1")]));
    // A client that does use its number again, for something else, is told so; after the first was executed,
    write(&mut s, 0, second, 7, b"C");
    assert_eq!(s.outcomes(second, 7), [replied(b"2"), Outcome::Refused(Refusal::Conflict)]);
    // and while it is in flight, that it has to wait for what becomes of the first.
    let acks = s.hold(|f| f.name() == "PrepareOk");
    write(&mut s, 0, third, 8, b"D");
    write(&mut s, 0, third, 8, b"E");
    assert_eq!(s.outcomes(third, 8), [Outcome::Busy(Busy::Queue)]);
    s.release(acks);
    s.run();
    write(&mut s, 0, third, 8, b"E");
    let (wait, conflict) = (Outcome::Busy(Busy::Queue), Outcome::Refused(Refusal::Conflict));
    assert_eq!(s.outcomes(third, 8), [wait, replied(b"3"), conflict]);
    s.settle();
    assert_eq!(s.executed(2), ["C", "B", "D"]);
}

/// CL-11: ten seconds without any quorum, during which a client gives up. Its request is executed once or not
/// at all, alike everywhere; and once when the same number is sent again.
#[test]
fn cl_11_a_request_of_an_outage_is_executed_at_most_once() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        s.cut(a, b);
    }
    s.submit(0, client, 1, b"once");
    s.pass(Duration::from_secs(10));
    assert_eq!(s.reply(client, 1), None);
    assert!((0..3).all(|at| s.executed(at).is_empty()));
    s.settle();
    assert!(s.executed(0).len() <= 1, "{:?}", s.executed(0));
    for at in 0..3 {
        s.submit(at, client, 1, b"once");
    }
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()), "{:?}", s.outcomes(client, 1));
    s.settle();
    assert_eq!(s.executed(2), ["once"]);
}

/// B-12: no session expires by time: power is off for an hour, and the retry gets its reply.
#[test]
fn b_12_no_session_expires_by_time() {
    let mut s = Script::new(3);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, 1);
    for at in 0..3 {
        s.crash(at);
    }
    s.pass(Duration::from_secs(3600));
    for at in 0..3 {
        s.restart(at);
    }
    s.pass(Duration::from_secs(1));
    submit(&mut s, 1, client, 1, 1);
    submit(&mut s, 1, client, 2, 1);
    assert_eq!(
        (s.outcomes(client, 1), s.outcomes(client, 2)),
        (vec![replied(b"1"), replied(b"1")], vec![replied(b"2")])
    );
    s.settle();
    assert_eq!((s.executed(2).len(), s.core(2).sessions()), (2, 1));
}

/// B-03: `Busy` from a replica is flow control, no verdict: another copy may be on its way. The same number is sent
/// again, and is executed once.
#[test]
fn b_03_a_busy_request_keeps_its_number() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let delayed = s.hold(|f| f.is(1, 0) && f.name() == "Requests");
    submit(&mut s, 1, client, 1, 1);
    (0..3).for_each(|at| s.set_room(at, 0));
    s.pass(ms(300)); // each has said that it has no room: nobody would lead better
    submit(&mut s, 2, client, 1, 1);
    assert_eq!(s.outcomes(client, 1), [Outcome::Busy(Busy::LogFull)]);
    (0..3).for_each(|at| s.set_room(at, u64::MAX));
    s.release(delayed);
    s.run();
    submit(&mut s, 2, client, 1, 1);
    assert_eq!(s.outcomes(client, 1), [Outcome::Busy(Busy::LogFull), replied(b"1"), replied(b"1")]);
    s.settle();
    assert_eq!(s.executed(1).len(), 1);
}

/// B-02: a late copy of a request whose reply was forgotten is below the floor, and never executed again.
#[test]
fn b_02_a_request_below_the_floor_is_never_executed_again() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let delayed = s.hold(|f| f.is(1, 0) && f.name() == "Requests");
    submit(&mut s, 1, client, 1, 1);
    submit(&mut s, 2, client, 1, 1);
    assert_eq!(s.outcomes(client, 1), [replied(b"1")]);
    submit(&mut s, 0, client, 2, 2);
    assert_eq!(s.outcomes(client, 2), [replied(b"2")]);
    s.release(delayed);
    s.run();
    assert_eq!(s.outcomes(client, 1), [replied(b"1"), Outcome::Refused(Refusal::BelowFloor)]);
    assert_eq!(s.executed(0).len(), 2);
    s.settle();
    assert_eq!(s.executed(2).len(), 2);
}

/// B-05: a number that is not answered holds the floor, and with it the window; sent again, it frees both.
#[test]
fn b_05_the_floor_never_passes_an_unanswered_number() {
    let mut s = Script::with_membership(members(3, |membership| membership.constants.window = 4));
    let client = s.register(0);
    for number in 2..=4 {
        submit(&mut s, 0, client, number, 1);
        assert!(s.reply(client, number).is_some());
    }
    submit(&mut s, 0, client, 5, 1);
    assert_eq!(s.outcomes(client, 5), [Outcome::Refused(Refusal::BeyondWindow)]);
    submit(&mut s, 0, client, 1, 1);
    assert_eq!(s.outcomes(client, 1), [replied(b"4")], "its caller has long stopped waiting");
    submit(&mut s, 0, client, 5, 5);
    assert_eq!(s.reply(client, 5), Some(b"5".to_vec()));
    submit(&mut s, 0, client, 1, 1);
    assert_eq!(s.outcomes(client, 1), [replied(b"4"), Outcome::Refused(Refusal::BelowFloor)]);
    s.settle();
    assert_eq!(s.executed(1).len(), 5);
}

/// G2: the window begins at the larger of the session's floor and the carried one.
#[test]
fn g2_the_window_begins_at_the_carried_floor() {
    let mut s = Script::with_membership(members(3, |membership| membership.constants.window = 4));
    let client = s.register(0);
    for number in 1..=4 {
        submit(&mut s, 0, client, number, 1);
        assert!(s.reply(client, number).is_some());
    }
    for number in [5, 5000] {
        submit(&mut s, 0, client, number, 1);
        assert_eq!(s.outcomes(client, number), [Outcome::Refused(Refusal::BeyondWindow)]);
    }
    submit(&mut s, 0, client, 6, 5);
    submit(&mut s, 0, client, 5, 5);
    assert_eq!((s.reply(client, 6), s.reply(client, 5)), (Some(b"5".to_vec()), Some(b"6".to_vec())));
    s.settle();
    assert_eq!(s.executed(1).len(), 6);
}

/// G1: replies that the client has seen hold it back no longer, though its floor is not committed yet.
#[test]
fn g1_the_carried_floor_frees_a_session_that_is_held_back() {
    let (mut s, client) = clogged();
    submit(&mut s, 0, client, 22, 1);
    let held_back = Outcome::Busy(Busy::Replies);
    assert_eq!(s.outcomes(client, 22), vec![held_back.clone()]);
    submit(&mut s, 0, client, 23, 22);
    assert_eq!(s.outcomes(client, 23), [replied(b"22")]);
    submit(&mut s, 0, client, 22, 22);
    assert_eq!(s.outcomes(client, 22), [held_back, replied(b"23")]);
    s.settle();
    assert_eq!(s.executed(1).len(), 23);
}

/// B-10: over the bound the oldest replies lose their bytes, never the mark that they were executed.
#[test]
fn b_10_a_lost_reply_is_not_a_second_execution() {
    let mut s = Script::with_membership(members(3, |membership| {
        membership.constants.reply_max = 64;
        membership.constants.session_replies_max = 64;
    }));
    let client = s.register(0);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    for number in 1..=60 {
        submit(&mut s, 0, client, number, 1); // 111 bytes of replies, once they are executed
    }
    s.release(acks);
    s.run();
    assert!((1..=60).all(|number| s.reply(client, number).is_some()));
    for number in [1, 28, 29, 60] {
        submit(&mut s, 0, client, number, 1);
    }
    let again = [1, 28, 29, 60].map(|number| s.outcomes(client, number)[1].clone());
    assert_eq!(again, [Outcome::ReplyLost, Outcome::ReplyLost, replied(b"29"), replied(b"60")]);
    s.settle();
    assert_eq!(s.executed(1).len(), 60);
}

/// G1: the bound of the whole table holds nobody back: it takes bytes from the session longest unused.
#[test]
fn g1_idle_sessions_hold_nobody_back() {
    let mut s = Script::with_membership(members(3, |membership| {
        (membership.constants.table_replies_max, membership.constants.reply_max) = (64, 64);
    }));
    let (idle, busy) = (s.register(0), s.register(0));
    // Replies of 91 bytes.
    for number in 1..=50 {
        submit(&mut s, 0, idle, number, 1);
        assert!(s.reply(idle, number).is_some());
    }
    for number in 1..=30 {
        submit(&mut s, 0, busy, number, number);
        assert_eq!(s.outcomes(busy, number).len(), 1);
        assert!(s.reply(busy, number).is_some(), "request {number}");
    }
    submit(&mut s, 0, idle, 1, 1);
    assert_eq!(s.outcomes(idle, 1), [replied(b"1"), Outcome::ReplyLost]);
    s.settle();
    assert_eq!(s.executed(1).len(), 80);
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

/// B-11: a storm of `Register`s evicts no session that is in use.
#[test]
fn b_11_a_session_in_use_is_not_evicted() {
    let mut s = Script::with_membership(members(3, |membership| {
        membership.constants.sessions_max = 2;
        membership.constants.session_idle_min = 8;
    }));
    let used = [s.register(0), s.register(0)];
    for number in 1..=10 {
        let stranger = ClientId(900 + u128::from(number));
        s.send_register(0, stranger);
        s.run();
        assert_eq!(s.outcomes(stranger, 0), [Outcome::Busy(Busy::Sessions)]);
        for client in used {
            submit(&mut s, 0, client, number, number);
            assert!(s.reply(client, number).is_some());
        }
    }
    s.settle();
    assert_eq!((s.executed(1).len(), s.core(1).sessions()), (20, 2));
}

/// G15: a repeated `Register` counts as use: a client that only asked after its session is not the next to be evicted.
#[test]
fn g15_a_repeated_register_counts_as_use() {
    let mut s = Script::with_membership(members(3, |membership| {
        membership.constants.sessions_max = 2;
        membership.constants.session_idle_min = 2;
    }));
    let (asks, idle) = (s.register(0), s.register(0));
    s.send_register(1, asks);
    s.run();
    let third = s.register(0);
    for client in [asks, idle, third] {
        submit(&mut s, 0, client, 1, 1);
    }
    assert_eq!(s.outcomes(asks, 1), [replied(b"1")]);
    assert_eq!(s.outcomes(idle, 1), [Outcome::Refused(Refusal::Evicted)]);
    assert_eq!(s.outcomes(third, 1), [replied(b"2")]);
    s.settle();
}

/// CL-07: one client more than there are places. The one that was idle longest is evicted, everywhere, is told
/// so by every primary, and executes nothing more.
#[test]
fn cl_07_an_evicted_client_is_told_and_executes_nothing() {
    let mut membership = Membership::new((0..3).map(|id| format!("replica {id}"))).expect("three members");
    membership.constants.sessions_max = 3;
    membership.constants.session_idle_min = 2;
    let mut s = Script::with_membership(membership);
    let evicted = s.register(0);
    s.submit(0, evicted, 1, b"acknowledged");
    s.run();
    for _ in 0..3 {
        s.register(0);
    }
    let head = s.core(0).head();
    for number in 1..=2 {
        s.submit(0, evicted, number, b"acknowledged");
    }
    s.run();
    s.crash(0);
    s.pass(Duration::from_secs(2));
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    s.submit(1, evicted, 1, b"acknowledged");
    s.run();
    let gone = refused(Refusal::Evicted);
    assert_eq!(s.outcomes(evicted, 1), [replied("1"), gone.clone(), gone.clone()]);
    assert_eq!(s.outcomes(evicted, 2), [gone]);
    assert_eq!(s.core(1).head(), head);
    s.settle();
    for at in 0..3 {
        assert_eq!((s.core(at).sessions(), s.executed(at)), (3, vec!["acknowledged".to_owned()]));
    }
}

/// D14: an evicted client is told so; what it had executed is not executed again.
#[test]
fn d14_d_an_evicted_client_hears_it_and_nothing_is_executed_again() {
    let mut membership = Membership::new(["r0", "r1", "r2"]).expect("three members");
    membership.constants.sessions_max = 2;
    membership.constants.session_idle_min = 1;
    let mut s = Script::with_membership(membership);
    let first = s.register(0);
    write(&mut s, 0, first, 1, b"a");
    let second = s.register(0);
    s.register(0);
    write(&mut s, 0, first, 1, b"a");
    write(&mut s, 1, first, 2, b"b");
    assert_eq!(s.outcomes(first, 1), [replied(b"1"), Outcome::Refused(Refusal::Evicted)]);
    assert_eq!(s.outcomes(first, 2), [Outcome::Refused(Refusal::Evicted)]);
    write(&mut s, 0, second, 1, b"c");
    assert_eq!(s.outcomes(second, 1), [replied(b"2")]);
    s.settle();
    assert_eq!(s.executed(2), ["a", "c"]);
    assert_eq!(s.core(2).sessions(), 2);
}

/// B-04: an evicted session's request was executed or not; its client is told `Evicted`, and nothing executes again.
#[test]
fn b_04_evicted_is_said_of_an_executed_request_too() {
    let mut s = Script::with_membership(members(3, |membership| {
        membership.constants.sessions_max = 2;
        membership.constants.session_idle_min = 1;
    }));
    let first = s.register(0);
    submit(&mut s, 0, first, 1, 1);
    let others = [s.register(0), s.register(0)];
    for at in 0..3 {
        submit(&mut s, at, first, 1, 1);
    }
    let evicted = Outcome::Refused(Refusal::Evicted);
    assert_eq!(s.outcomes(first, 1), [replied(b"1"), evicted.clone(), evicted.clone(), evicted]);
    // Its client may go on in a new session, with requests that it never sent before.
    let gone = s.session(first);
    s.send_register(0, first);
    s.run();
    assert!(s.session(first) > gone);
    submit(&mut s, 0, others[1], 1, 1);
    assert_eq!(s.outcomes(others[1], 1), [replied(b"2")]);
    s.settle();
    assert_eq!((s.executed(2).len(), s.core(2).sessions()), (2, 2));
}

/// CL-12, D28: a replica alone is in a view that never started. It tells clients only the last one that did,
/// and the others serve the retry.
#[test]
fn cl_12_d28_clients_hear_of_started_views_only() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    s.inject(Script::flight(1, 2, Message::StartViewChange { leaving: Script::view_of(2), life: s.life(1) }));
    s.run();
    assert!(s.view(2) == 2 && !s.is_normal(2), "{}", s.describe(2));
    let told = s.hold(|f| f.from == Peer::Replica(ReplicaId(2)) && f.name() == "Replies");
    s.submit(2, client, 1, b"w");
    s.run();
    let held = s.held(told);
    let Some(Message::Replies { view, replies }) = held.first().map(|f| &f.message) else { panic!("r2 answers") };
    assert_eq!((view.number, &replies[0].outcome), (0, &Outcome::Busy(Busy::NoPrimary)));
    s.release(told);
    s.submit(0, client, 1, b"w");
    s.run();
    assert_eq!((s.reply(client, 1), s.view(0)), (Some(b"1".to_vec()), 0));
    s.settle();
    assert_eq!(s.executed(2), ["w"]);
}

/// D28: a client is told of views that have started only, and a replica in the started one serves it.
#[test]
fn d28_a_view_that_has_not_started_is_not_told_to_clients() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.cut_one_way(2, 0);
    s.cut_one_way(2, 1);
    depose(&mut s, &[1, 2]);
    assert_eq!([0, 1, 2].map(|at| s.view(at)), [0, 0, 1], "r2 is alone in view 1");
    let told = s.hold(move |f| f.from == Peer::Replica(ReplicaId(2)) && f.to == Peer::Client(client));
    write(&mut s, 2, client, 1, b"w");
    assert!(!s.held(told).is_empty(), "r2 answers");
    for flight in s.held(told) {
        let Message::Replies { view, .. } = flight.message else { panic!("r2 answers with replies") };
        assert_eq!(view, Script::view_of(0));
    }
    write(&mut s, 0, client, 1, b"w");
    assert_eq!(s.outcomes(client, 1), [replied(b"1")]);
    s.settle();
    assert_eq!(s.executed(2), ["w"]);
}
