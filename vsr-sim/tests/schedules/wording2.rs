//! Schedules that an earlier wording of the design allowed: sessions, reads and the rest (B, G and M12).

use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::{Busy, Outcome, Refusal, Request};
use vsr::{
    ClientId, CommitNumber, Epoch, Membership, Message, OpNumber, Position, RequestNumber, SessionId, Timestamp, View,
};
use vsr_sim::script::Script;

use super::wording::{members, ms, next_view, ping, replica, stale};

fn reply(bytes: &'static [u8]) -> Outcome {
    Outcome::Reply(Bytes::from_static(bytes))
}

fn times(count: usize, outcome: Outcome) -> Vec<Outcome> {
    vec![outcome; count]
}

/// Sends a request, and delivers everything that it causes.
fn submit(s: &mut Script, at: usize, client: ClientId, number: u64, floor: u64) {
    s.submit_with_floor(at, client, number, floor, b"w");
    s.run();
}

fn request(s: &Script, client: ClientId, number: u64, command: &'static [u8]) -> Request {
    Request {
        client,
        session: s.session(client).expect("the session is open"),
        number: RequestNumber(number),
        floor: RequestNumber(1),
        command: Bytes::from_static(command),
    }
}

/// Requests that arrive together are one op: here through r1, which has forwarded them.
fn submit_together(s: &mut Script, requests: Vec<Request>) {
    s.inject(Script::flight(1, 0, Message::Requests { requests, forwarded: true }));
    s.run();
}

/// A session whose replies are bounded at 64 bytes has 33 bytes of them, all answered, under a floor of 1.
fn clogged() -> (Script, ClientId) {
    let mut s = Script::with_membership(members(3, |membership| {
        membership.constants.reply_max = 64;
        membership.constants.session_replies_max = 64;
    }));
    let client = s.register(0);
    for number in 1..=21 {
        submit(&mut s, 0, client, number, 1);
        assert!(s.reply(client, number).is_some(), "request {number}");
    }
    (s, client)
}

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
    assert_eq!(clients.map(|client| s.outcomes(client, 1)), [vec![reply(b"1")], vec![reply(b"2")]]);
    s.settle();
}

/// B-02: a late copy of a request whose reply was forgotten is below the floor, and never executed again.
#[test]
fn b_02_a_request_below_the_floor_is_never_executed_again() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let delayed = s.hold(|f| f.is(1, 0) && f.name() == "Requests");
    submit(&mut s, 1, client, 1, 1);
    submit(&mut s, 2, client, 1, 1);
    assert_eq!(s.outcomes(client, 1), [reply(b"1")]);
    submit(&mut s, 0, client, 2, 2);
    assert_eq!(s.outcomes(client, 2), [reply(b"2")]);
    s.release(delayed);
    s.run();
    assert_eq!(s.outcomes(client, 1), [reply(b"1"), Outcome::Refused(Refusal::BelowFloor)]);
    assert_eq!(s.executed(0).len(), 2);
    s.settle();
    assert_eq!(s.executed(2).len(), 2);
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
    assert_eq!(s.outcomes(client, 1), [Outcome::Busy(Busy::LogFull), reply(b"1"), reply(b"1")]);
    s.settle();
    assert_eq!(s.executed(1).len(), 1);
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
    assert_eq!(s.outcomes(first, 1), [reply(b"1"), evicted.clone(), evicted.clone(), evicted]);
    // Its client may go on in a new session, with requests that it never sent before.
    let gone = s.session(first);
    s.send_register(0, first);
    s.run();
    assert!(s.session(first) > gone);
    submit(&mut s, 0, others[1], 1, 1);
    assert_eq!(s.outcomes(others[1], 1), [reply(b"2")]);
    s.settle();
    assert_eq!((s.executed(2).len(), s.core(2).sessions()), (2, 2));
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
    assert_eq!(s.outcomes(client, 1), [reply(b"4")], "its caller has long stopped waiting");
    submit(&mut s, 0, client, 5, 5);
    assert_eq!(s.reply(client, 5), Some(b"5".to_vec()));
    submit(&mut s, 0, client, 1, 1);
    assert_eq!(s.outcomes(client, 1), [reply(b"4"), Outcome::Refused(Refusal::BelowFloor)]);
    s.settle();
    assert_eq!(s.executed(1).len(), 5);
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
    assert_eq!(s.outcomes(client, 1), [wait, reply(b"1"), conflict]);
    s.settle();
    assert_eq!(s.executed(1), ["a"]);
}

/// B-07: whether a command decodes is decided at admission: what does not never gets into the log.
#[test]
fn b_07_an_undecodable_command_is_refused_before_the_log() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for at in 0..3 {
        s.submit(at, client, 1, b"undecodable");
        s.run();
    }
    assert_eq!(s.outcomes(client, 1), times(3, Outcome::Refused(Refusal::Undecodable)));
    assert!((0..3).all(|at| s.core(at).head().0 == 1));
    submit(&mut s, 0, client, 2, 2);
    assert_eq!(s.outcomes(client, 2), [reply(b"1")]);
    s.settle();
}

/// B-08: a forwarded request that is refused, time after time, is answered: that is no reason to vote.
#[test]
fn b_08_a_primary_that_refuses_forwards_is_not_deposed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    (0..3).for_each(|at| s.set_room(at, 0));
    s.pass(ms(300)); // each has said that it has no room: nobody would lead better
    for _ in 0..30 {
        for at in 1..3 {
            s.submit(at, client, 1, b"w");
            s.submit(at, client, 2, b"undecodable");
        }
        s.pass(ms(100));
    }
    let busy = s.outcomes(client, 1);
    assert!(busy.len() == 60 && busy.iter().all(|outcome| *outcome == Outcome::Busy(Busy::LogFull)), "{busy:?}");
    assert_eq!(s.views_entered(), 0);
    (0..3).for_each(|at| s.set_room(at, u64::MAX));
    submit(&mut s, 1, client, 1, 1);
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// B-09: a forwarded request is not forwarded again: a replica that is not primary says so.
#[test]
fn b_09_a_forwarded_request_is_not_forwarded_again() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let passed_on = s.hold(|f| f.name() == "Requests");
    let requests = vec![request(&s, client, 1, b"w")];
    for (from, to) in [(2, 1), (1, 2), (0, 1)] {
        let requests = requests.clone();
        s.inject(Script::flight(from, to, Message::Requests { requests, forwarded: true }));
        s.run();
    }
    assert!(s.held(passed_on).is_empty(), "{:?}", s.held(passed_on));
    assert_eq!(s.outcomes(client, 1), times(3, Outcome::Busy(Busy::NoPrimary)));
    s.forget(passed_on);
    submit(&mut s, 1, client, 1, 1);
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
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
    assert_eq!(again, [Outcome::ReplyLost, Outcome::ReplyLost, reply(b"29"), reply(b"60")]);
    s.settle();
    assert_eq!(s.executed(1).len(), 60);
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
    assert_eq!(s.outcomes(client, 1), [reply(b"1"), reply(b"1")]);
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
    assert_eq!(s.outcomes(client, 1)[1..], [Outcome::Refused(Refusal::Evicted), reply(b"1")]);
    s.settle();
    assert_eq!(s.executed(1).len(), 1);
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
    assert_eq!((s.outcomes(client, 1), s.outcomes(client, 2)), (vec![reply(b"1"), reply(b"1")], vec![reply(b"2")]));
    s.settle();
    assert_eq!((s.executed(2).len(), s.core(2).sessions()), (2, 1));
}

/// B-13: no order is promised between requests in flight together, and each is executed once; those of one op are
/// executed in their order.
#[test]
fn b_13_requests_in_flight_together_have_no_order() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let delayed = s.hold(|f| f.is(1, 0) && f.name() == "Requests");
    for (number, command) in [(1, b"a"), (2, b"b"), (3, b"c")] {
        s.submit_with_floor(1, client, number, 1, command);
        s.run();
    }
    let mut copies = s.held(delayed);
    s.forget(delayed);
    copies.reverse();
    for flight in copies.iter().chain(&copies) {
        s.inject(flight.clone());
        s.run();
    }
    assert_eq!(s.executed(0), ["c", "b", "a"]);
    assert_eq!([1, 2, 3].map(|number| s.reply(client, number)), [b"3", b"2", b"1"].map(|bytes| Some(bytes.to_vec())));
    let together = [(6, b"d"), (5, b"e"), (4, b"f")].map(|(number, command)| request(&s, client, number, command));
    submit_together(&mut s, together.to_vec());
    s.settle();
    assert_eq!(s.executed(2), ["c", "b", "a", "d", "e", "f"]);
}

/// B-14, G18: the position of a request is unique and ordered, also among those of one op.
#[test]
fn b_14_requests_of_one_op_have_positions_of_their_own() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let replies = s.hold(|f| f.is(0, 1) && f.name() == "Replies");
    let together = [1, 2, 3].map(|number| request(&s, client, number, b"w"));
    submit_together(&mut s, together.to_vec());
    let mut positions = Vec::new();
    for flight in s.held(replies) {
        let Message::Replies { replies, .. } = flight.message else { panic!("it is held by its kind") };
        positions.extend(replies.into_iter().map(|reply| (reply.number.0, reply.position)));
    }
    let at = |index| Position { op: OpNumber(2), index };
    assert_eq!(positions, [(1, at(0)), (2, at(1)), (3, at(2))]);
    s.release(replies);
    s.settle();
    assert_eq!(s.executed(1).len(), 3);
}

/// B-16: timestamps follow the median of a quorum's clocks: neither a primary nor a backup with a mad one leads.
#[test]
fn b_16_one_mad_clock_does_not_lead() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let stamp = |s: &Script, op: u64| s.disk(0).durable_header(OpNumber(op)).expect("the op is durable").timestamp;
    assert_eq!(stamp(&s, 1), Timestamp(1_000_000_000), "every clock was started at one second");
    // The primary is ten seconds ahead of both others.
    s.pass(Duration::from_secs(10));
    for from in [1, 2] {
        let behind = ping(&s, from, |ping| ping.wall = Timestamp(1_500_000_000));
        s.inject(Script::flight(from, 0, behind));
    }
    submit(&mut s, 0, client, 1, 1);
    assert_eq!(stamp(&s, 2), Timestamp(1_500_000_000));
    // A backup is years ahead.
    s.pass(ms(300));
    let ahead = ping(&s, 2, |ping| ping.wall = Timestamp(1 << 60));
    s.inject(Script::flight(2, 0, ahead));
    submit(&mut s, 0, client, 2, 2);
    assert!(stamp(&s, 3) > stamp(&s, 2) && stamp(&s, 3) < Timestamp(60_000_000_000), "{}", stamp(&s, 3));
    s.settle();
}

/// B-20: a round of confirmations serves the queries that came before it was sent, and no later one.
#[test]
fn b_20_a_round_serves_no_query_that_came_after_it() {
    let mut s = Script::new(3);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, 1);
    let old = s.hold(|f| f.to == replica(0) && f.name() == "CommitOk");
    s.query(0, 1);
    s.run();
    let confirmations = s.held(old);
    assert_eq!((confirmations.len(), s.answer(0, 1)), (2, None));
    s.isolate(0);
    s.pause(0, true);
    s.pass(Duration::from_secs(2));
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    submit(&mut s, 1, client, 2, 2);
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.pause(0, false);
    s.query(0, 2);
    assert!(s.core(0).is_primary() && s.view(0) == 0, "r0 believes in itself");
    for flight in confirmations {
        s.inject(flight);
    }
    s.run();
    assert_eq!((s.answer(0, 1), s.answer(0, 2)), (Some(1), None));
    s.settle();
    s.pass(ms(500));
    assert_eq!(s.answer(0, 2), Some(2));
}

/// B-21: a backup's query waits for a confirmation of the primary that it asks: a deposed one has none to give.
#[test]
fn b_21_a_deposed_primary_gives_no_index() {
    let mut s = Script::new(5);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, 1);
    for (a, b) in [0, 4].into_iter().flat_map(|a| [1, 2, 3].map(|b| (a, b))) {
        s.cut(a, b);
    }
    for at in [0, 4] {
        s.pause(at, true);
    }
    s.pass(Duration::from_secs(2));
    submit(&mut s, 1, client, 2, 2);
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()), "{}", s.describe(1));
    for at in [0, 4] {
        s.pause(at, false);
    }
    s.query(4, 7);
    s.query(0, 8);
    s.run();
    assert!(s.core(0).is_primary() && s.view(4) == 0, "both believe in view 0");
    assert_eq!((s.answer(4, 7), s.answer(0, 8)), (None, None));
    s.settle();
    s.pass(ms(500));
    assert_eq!((s.answer(4, 7), s.answer(0, 8)), (Some(2), Some(2)));
}

/// B-21: the late answer to an ask serves no query that came after the ask had left.
#[test]
fn b_21_a_late_index_serves_its_own_ask_only() {
    let mut s = Script::new(3);
    let client = s.register(0);
    submit(&mut s, 0, client, 1, 1);
    let late = s.hold(|f| f.is(0, 2) && f.name() == "ReadIndexOk");
    s.query(2, 1);
    s.run();
    submit(&mut s, 0, client, 2, 2);
    s.query(2, 2);
    s.run();
    let answers = s.held(late);
    assert_eq!((answers.len(), s.answer(2, 1), s.answer(2, 2)), (2, None, None));
    s.inject(answers[0].clone());
    assert!(s.answer(2, 1).is_some());
    assert_eq!(s.answer(2, 2), None);
    s.release(late);
    s.run();
    assert_eq!(s.answer(2, 2), Some(2));
    s.settle();
}

/// B-22: the index in an answer is something to wait for, and no commit number: a stale entry is not applied for it.
#[test]
fn b_22_a_read_index_commits_nothing() {
    let (mut s, _, alone) = stale(1);
    s.release(alone);
    let asks = s.hold(|f| f.from == replica(2) && f.name() == "ReadIndex");
    s.isolate(2);
    s.query(2, 5);
    s.run();
    let ask = s.held(asks).pop().expect("r2 asks for an index");
    let Message::ReadIndex { nonce } = ask.message else { panic!("it is held by its kind") };
    s.inject(Script::flight(1, 2, Message::ReadIndexOk { nonce, index: OpNumber(2) }));
    s.run();
    assert_eq!((s.core(2).commit().0, s.executed(2).len(), s.answer(2, 5)), (1, 0, None), "{}", s.describe(2));
    s.settle();
    s.pass(ms(500));
    assert_eq!((s.executed(2), s.answer(2, 5)), (vec!["B".to_owned()], Some(1)));
}

/// B-30: every constant that decides a replicated effect counts in what the members compare on a connection.
#[test]
fn b_30_every_constant_counts_in_the_checksum_of_the_membership() {
    let changes: [fn(&mut Membership); 13] = [
        |m| m.constants.pipeline_max += 1,
        |m| m.constants.window += 1,
        |m| m.constants.sessions_max += 1,
        |m| m.constants.session_idle_min += 1,
        |m| m.constants.request_max += 1,
        |m| m.constants.reply_max += 1,
        |m| m.constants.session_replies_max += 1,
        |m| m.constants.table_replies_max += 1,
        |m| m.constants.batch_requests_max += 1,
        |m| m.constants.batch_bytes_max += 1,
        |m| m.quorums.replication += 1,
        |m| m.quorums.view_change += 1,
        |m| m.quorums.nack += 1,
    ];
    let same = members(4, |_| ());
    assert_eq!(same.checksum(), members(4, |_| ()).checksum());
    for (at, change) in changes.into_iter().enumerate() {
        assert_ne!(members(4, change).checksum(), same.checksum(), "change {at}");
    }
}

/// B-33: a replica without room takes in nothing, and says so; the others go on, and it catches up.
#[test]
fn b_33_without_room_nothing_is_taken_in() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.set_room(2, 0);
    for number in 1..=3 {
        submit(&mut s, 0, client, number, number);
        assert!(s.reply(client, number).is_some());
    }
    assert_eq!((s.core(2).head().0, s.durable(2, 2)), (1, None), "it has accepted nothing");
    s.set_room(0, 0);
    s.pass(ms(300)); // r2 has said that it has no room: one other that has makes no quorum
    submit(&mut s, 0, client, 4, 4);
    assert_eq!((s.outcomes(client, 4), s.core(0).head().0), (vec![Outcome::Busy(Busy::LogFull)], 4));
    s.set_room(0, u64::MAX);
    s.set_room(2, u64::MAX);
    submit(&mut s, 0, client, 4, 4);
    assert_eq!(s.reply(client, 4), Some(b"4".to_vec()));
    s.settle();
    assert_eq!((s.executed(2).len(), s.views_entered()), (4, 0));
}

/// G1: replies that the client has seen hold it back no longer, though its floor is not committed yet.
#[test]
fn g1_the_carried_floor_frees_a_session_that_is_held_back() {
    let (mut s, client) = clogged();
    submit(&mut s, 0, client, 22, 1);
    let held_back = Outcome::Busy(Busy::Replies);
    assert_eq!(s.outcomes(client, 22), vec![held_back.clone()]);
    submit(&mut s, 0, client, 23, 22);
    assert_eq!(s.outcomes(client, 23), [reply(b"22")]);
    submit(&mut s, 0, client, 22, 22);
    assert_eq!(s.outcomes(client, 22), [held_back, reply(b"23")]);
    s.settle();
    assert_eq!(s.executed(1).len(), 23);
}

/// G1: the bound of the whole table holds nobody back: it takes bytes from the session longest unused.
#[test]
fn g1_idle_sessions_hold_nobody_back() {
    let mut s = Script::with_membership(members(3, |membership| membership.constants.table_replies_max = 20));
    let (idle, busy) = (s.register(0), s.register(0));
    for number in 1..=21 {
        submit(&mut s, 0, idle, number, 1);
        assert!(s.reply(idle, number).is_some());
    }
    for number in 1..=30 {
        submit(&mut s, 0, busy, number, number);
        assert_eq!(s.outcomes(busy, number).len(), 1);
        assert!(s.reply(busy, number).is_some(), "request {number}");
    }
    submit(&mut s, 0, idle, 1, 1);
    assert_eq!(s.outcomes(idle, 1), [reply(b"1"), Outcome::ReplyLost]);
    s.settle();
    assert_eq!(s.executed(1).len(), 51);
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

/// G3: a commit number of a later view says nothing of the entries that are here of an earlier one.
#[test]
fn g3_the_commit_number_of_a_later_view_applies_no_stale_entry() {
    let (mut s, _, _) = stale(1);
    for number in 1..=3 {
        let commit = Message::Commit { view: s.core(1).view(), commit: CommitNumber(2), head: OpNumber(2), number };
        s.inject(Script::flight(1, 2, commit));
    }
    s.run();
    assert_eq!((s.view(2), s.core(2).commit().0, s.core(2).applied().0), (0, 1, 1), "{}", s.describe(2));
    assert!(s.executed(2).is_empty(), "{:?}", s.executed(2));
    s.settle();
    assert_eq!(s.executed(2), ["B"]);
}

/// G8: a deposed primary gives up also when nobody asks anything of it. (That a busy one is not deposed: B-08.)
#[test]
fn g8_an_idle_primary_that_nobody_answers_abdicates() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let beats = s.hold(|f| f.is(0, 1) && f.name() == "Commit");
    s.isolate(0);
    s.pass(Duration::from_secs(1));
    assert!(s.core(0).explain().contains("without a quorum"), "{}", s.describe(0));
    let sent = s.held(beats).len();
    assert!(sent > 0);
    s.pass(Duration::from_secs(1));
    assert_eq!((s.held(beats).len(), s.view(0)), (sent, 0), "its heartbeats have stopped");
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    submit(&mut s, 1, client, 1, 1);
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// G12: an op names the lowest version of the state machine that the members have announced, never a lower one than
/// the op before.
#[test]
fn g12_a_primary_stamps_the_version_that_all_members_have() {
    let mut s = Script::new(3);
    for from in [1, 2] {
        let older = ping(&s, from, |ping| ping.machine_version = 0);
        s.inject(Script::flight(from, 0, older));
    }
    let client = s.register(0);
    let version = |s: &Script, op: u64| s.disk(2).durable_header(OpNumber(op)).map(|header| header.machine_version);
    assert_eq!(version(&s, 1), Some(0), "r0 itself has version 1");
    s.pass(ms(300)); // all announce version 1
    submit(&mut s, 0, client, 1, 1);
    assert_eq!(version(&s, 2), Some(1));
    let older = ping(&s, 2, |ping| ping.machine_version = 0);
    s.inject(Script::flight(2, 0, older));
    submit(&mut s, 0, client, 2, 2);
    assert_eq!(version(&s, 3), Some(1));
    s.settle();
}

/// G15: a repeated `Register` counts as use: whoever only asked after its session is not the next to be evicted.
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
    assert_eq!(s.outcomes(asks, 1), [reply(b"1")]);
    assert_eq!(s.outcomes(idle, 1), [Outcome::Refused(Refusal::Evicted)]);
    assert_eq!(s.outcomes(third, 1), [reply(b"2")]);
    s.settle();
}

/// G19: who is no voting member, and whoever speaks of another epoch or an earlier view, acknowledges nothing.
#[test]
fn g19_acknowledgements_of_others_do_not_count() {
    let mut s = Script::new(3);
    let client = s.register(0);
    next_view(&mut s);
    let acks = s.hold(|f| f.name() == "PrepareOk");
    submit(&mut s, 1, client, 1, 1);
    let view = s.core(1).view();
    let op = s.core(1).head();
    let checksum = s.core(1).checksum(op).expect("the head is known");
    let earlier = Script::view_of(0);
    for (from, view) in [(3, view), (7, view), (2, View { epoch: Epoch(1), ..view }), (2, earlier), (0, earlier)] {
        s.inject(Script::flight(from, 1, Message::PrepareOk { view, op, checksum, life: s.life(from.min(2)) }));
    }
    s.run();
    assert_eq!((op.0, s.core(1).commit().0, s.reply(client, 1)), (2, 1, None));
    s.release(acks);
    s.run();
    assert_eq!(s.reply(client, 1), Some(b"1".to_vec()));
    s.settle();
}

/// M12: a request that is held back is answered: no backup that forwards it votes.
#[test]
fn m12_a_request_that_is_held_back_deposes_nobody() {
    let (mut s, client) = clogged();
    for _ in 0..30 {
        for at in 1..3 {
            s.submit_with_floor(at, client, 22, 1, b"w");
        }
        s.pass(ms(100));
    }
    assert_eq!((s.outcomes(client, 22), s.views_entered()), (times(60, Outcome::Busy(Busy::Replies)), 0));
    submit(&mut s, 1, client, 22, 22);
    assert_eq!(s.reply(client, 22), Some(b"22".to_vec()));
    s.settle();
}

/// B27 of the hazards, in part: the small messages of the primary arrive, its `Prepare`s never do. Backups get the
/// ops by `StartView` and repair, and requests are answered.
#[test]
fn b27_a_primary_whose_prepares_are_lost_serves_by_repair() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.lose(|f| f.from == replica(0) && f.name() == "Prepare");
    for number in 1..=3 {
        for _ in 0..20 {
            for at in 0..3 {
                s.submit(at, client, number, b"w");
            }
            s.pass(ms(100));
        }
        assert!(s.reply(client, number).is_some(), "request {number}: {}", s.describe(0));
    }
    s.settle();
    assert_eq!(s.executed(2).len(), 3);
}
