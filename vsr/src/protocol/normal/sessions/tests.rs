use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::protocol::types::random::Random;

/// Small enough for every bound to be met.
fn constants() -> Constants {
    Constants {
        window: 4,
        sessions_max: 2,
        session_idle_min: 10,
        reply_max: 100,
        session_replies_max: 150,
        table_replies_max: 300,
        ..Constants::default()
    }
}

fn at(op: u64) -> Position {
    Position { op: OpNumber(op), index: 0 }
}

/// The content of a client's request of this number.
fn content(number: u64) -> Checksum {
    Checksum::of(&number.to_le_bytes())
}

fn register(table: &mut SessionTable, client: u128, op: u64) -> Option<SessionId> {
    match table.register(at(op), ClientId(client)) {
        Outcome::Registered(session) => Some(session),
        Outcome::Busy(Busy::Sessions) => None,
        other => panic!("{other:?}"),
    }
}

/// A table with one session, opened by op 1.
fn opened() -> (SessionTable, SessionId) {
    let mut table = SessionTable::new(constants());
    let session = register(&mut table, 7, 1).expect("there is a place");
    (table, session)
}

fn look_up(table: &SessionTable, session: SessionId, number: u64, floor: u64) -> Lookup {
    table.look_up(session, RequestNumber(number), RequestNumber(floor), content(number))
}

/// Executes a request that was not executed before, as applying op `op` does. Whether its reply is kept.
fn execute(table: &mut SessionTable, session: SessionId, (number, floor): (u64, u64), op: u64, reply: &[u8]) -> bool {
    let (content, number) = (content(number), RequestNumber(number));
    assert_eq!(table.begin(session, number, RequestNumber(floor), content), Lookup::New, "{number}");
    table.finish(session, number, content, at(op), reply)
}

fn replied(reply: &'static [u8], op: u64) -> Lookup {
    Lookup::Known(Outcome::Reply(Bytes::from_static(reply)), at(op))
}

fn lost(op: u64) -> Lookup {
    Lookup::Known(Outcome::ReplyLost, at(op))
}

fn refused(refusal: Refusal) -> Lookup {
    Lookup::Known(Outcome::Refused(refusal), Position::default())
}

fn assert_accounts(table: &SessionTable) {
    let wrong: Vec<Account> = table.audit().into_iter().filter(Account::is_wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rule 5.3: every copy of an executed request gets the reply of the first, and the place where that was executed.
#[test]
fn a_number_is_executed_once_and_its_copies_get_the_first_reply() {
    let (mut table, session) = opened();
    assert_eq!(look_up(&table, session, 1, 1), Lookup::New);
    assert!(execute(&mut table, session, (1, 1), 2, b"one"));
    // Longer than what is kept in place.
    assert!(execute(&mut table, session, (3, 1), 3, b"a reply of more than 22 bytes"));
    assert_eq!(look_up(&table, session, 1, 1), replied(b"one", 2));
    assert_eq!(table.begin(session, RequestNumber(1), RequestNumber(1), content(1)), replied(b"one", 2));
    assert_eq!(look_up(&table, session, 3, 1), replied(b"a reply of more than 22 bytes", 3));
    assert_eq!(look_up(&table, session, 2, 1), Lookup::New, "numbers are executed in any order");
    assert_accounts(&table);
}

/// Rule 5.2: a number that was used with other content is no copy.
#[test]
fn other_content_under_an_executed_number_is_a_conflict() {
    let (mut table, session) = opened();
    execute(&mut table, session, (1, 1), 2, b"one");
    let other = table.look_up(session, RequestNumber(1), RequestNumber(1), content(99));
    assert_eq!(other, refused(Refusal::Conflict));
}

/// Rule 5.2: the floor ends the life of a number for good, and never goes down.
#[test]
fn nothing_below_the_floor_is_executed_and_the_floor_only_rises() {
    let (mut table, session) = opened();
    execute(&mut table, session, (1, 1), 2, b"one");
    execute(&mut table, session, (3, 3), 3, b"three");
    assert_eq!(look_up(&table, session, 1, 1), refused(Refusal::BelowFloor), "executed before");
    assert_eq!(look_up(&table, session, 2, 1), refused(Refusal::BelowFloor), "never executed, and never will be");
    execute(&mut table, session, (4, 1), 4, b"four");
    assert_eq!(look_up(&table, session, 2, 1), refused(Refusal::BelowFloor), "a late floor lowers nothing");
    assert_eq!(look_up(&table, session, 3, 3), replied(b"three", 3));
    assert_accounts(&table);
}

/// Rule 5.2: a request never puts itself below the floor that it carries.
#[test]
fn a_carried_floor_counts_up_to_the_number_that_carries_it() {
    let (mut table, session) = opened();
    assert_eq!(look_up(&table, session, 3, u64::MAX), Lookup::New);
    execute(&mut table, session, (3, u64::MAX), 2, b"three");
    assert_eq!(look_up(&table, session, 3, 3), replied(b"three", 2));
    assert_eq!(look_up(&table, session, 2, 1), refused(Refusal::BelowFloor));
}

/// Rule 5.2: marks are kept for as many numbers as the window has, whatever a client sends.
#[test]
fn a_number_beyond_the_window_is_refused() {
    let (mut table, session) = opened();
    assert_eq!(look_up(&table, session, 4, 1), Lookup::New);
    assert_eq!(look_up(&table, session, 5, 1), refused(Refusal::BeyondWindow));
    assert_eq!(look_up(&table, session, 5, 2), Lookup::New, "with the floor that it carries it is within");
    assert_eq!(look_up(&table, session, 5, 1), refused(Refusal::BeyondWindow), "to look changes nothing");
    for floor in [1, u64::MAX] {
        assert_eq!(look_up(&table, session, u64::MAX, floor), refused(Refusal::BeyondWindow), "no sum overflows");
    }
    execute(&mut table, session, (5, 2), 2, b"five");
    assert_eq!(look_up(&table, session, 5, 2), replied(b"five", 2));
    assert_accounts(&table);
}

/// Rule 5.4: a reply that is too long is lost, its request is executed all the same.
#[test]
fn a_reply_over_its_bound_is_not_kept_and_the_number_stays_executed() {
    let (mut table, session) = opened();
    assert!(execute(&mut table, session, (1, 1), 2, &[1; 100]));
    assert!(!execute(&mut table, session, (2, 1), 3, &[2; 101]));
    assert_eq!(look_up(&table, session, 2, 1), lost(3));
    assert_eq!(look_up(&table, session, 1, 1), replied(&[1; 100], 2), "nothing else went for it");
    assert_accounts(&table);
}

/// Rule 5.3: over the bound of a session its oldest replies lose their bytes, never their marks.
#[test]
fn the_oldest_replies_of_a_session_give_way() {
    let (mut table, session) = opened();
    for number in 1..=3 {
        assert!(execute(&mut table, session, (number, 1), number + 1, &[7; 60]));
        assert_accounts(&table);
    }
    assert_eq!(look_up(&table, session, 1, 1), lost(2));
    assert_eq!(look_up(&table, session, 2, 1), replied(&[7; 60], 3));
    assert_eq!(look_up(&table, session, 3, 1), replied(&[7; 60], 4));
}

/// Rule 5.4: over the bound of the table the session longest unused loses bytes first.
#[test]
fn the_session_longest_unused_gives_way_first() {
    let mut table = SessionTable::new(Constants { sessions_max: 5, ..constants() });
    let sessions: Vec<SessionId> = (1..=5_u64).map(|op| register(&mut table, op.into(), op).unwrap()).collect();
    let [_, used_again, unused, third, fourth] = sessions[..] else { panic!("five sessions") };
    for (op, session) in [(11, used_again), (12, unused), (13, third)] {
        execute(&mut table, session, (1, 1), op, &[7; 100]);
    }
    execute(&mut table, used_again, (2, 1), 14, b"");
    execute(&mut table, fourth, (1, 1), 15, &[7; 100]);
    assert_eq!(look_up(&table, unused, 1, 1), lost(12));
    for (session, op) in [(used_again, 11), (third, 13), (fourth, 15)] {
        assert_eq!(look_up(&table, session, 1, 1), replied(&[7; 100], op));
    }
    assert_accounts(&table);
}

/// Rule 5.5: a full table takes a newcomer only for a session that was idle for long, the one longest unused.
#[test]
fn an_idle_session_gives_its_place_to_a_newcomer() {
    let mut table = SessionTable::new(constants());
    let first = register(&mut table, 1, 1).unwrap();
    let second = register(&mut table, 2, 2).unwrap();
    execute(&mut table, first, (1, 1), 3, b"one");
    assert!(!table.can_register(ClientId(3), OpNumber(11)));
    assert_eq!(register(&mut table, 3, 11), None, "the second was last used by op 2");
    assert!(table.can_register(ClientId(3), OpNumber(12)) && table.can_register(ClientId(1), OpNumber(4)));
    let third = register(&mut table, 3, 12).unwrap();
    assert_eq!((table.len(), table.client_of(second), table.client_of(third)), (2, None, Some(ClientId(3))));
    assert_eq!(look_up(&table, second, 1, 1), Lookup::NoSession);
    assert_eq!(look_up(&table, first, 1, 1), replied(b"one", 3), "a use keeps a session");
    assert_accounts(&table);
}

/// Rule 5.5: the place of an evicted session hands nothing on.
#[test]
fn a_newcomer_inherits_nothing_from_the_session_that_was_evicted_for_it() {
    let mut table = SessionTable::new(Constants { sessions_max: 1, ..constants() });
    let before = register(&mut table, 1, 1).unwrap();
    execute(&mut table, before, (1, 1), 2, b"one");
    let after = register(&mut table, 2, 12).unwrap();
    assert_eq!(look_up(&table, after, 1, 1), Lookup::New);
    let number = RequestNumber(2);
    assert_eq!(table.begin(before, number, RequestNumber(1), content(2)), Lookup::NoSession);
    assert!(!table.finish(before, number, content(2), at(13), b"two"), "there is nowhere to keep it");
    let again = register(&mut table, 1, 22).unwrap();
    assert_ne!(again, before, "an evicted client that comes back has another session");
    assert_accounts(&table);
}

/// Rule 5.1: a client has one session. A repeated `Register` finds it, and counts as a use.
#[test]
fn a_repeated_register_finds_the_session() {
    let mut table = SessionTable::new(Constants { sessions_max: 1, ..constants() });
    let session = register(&mut table, 1, 1).unwrap();
    assert_eq!(register(&mut table, 1, 9), Some(session));
    assert_eq!((table.len(), register(&mut table, 2, 18)), (1, None));
    assert!(register(&mut table, 2, 19).is_some());
}

/// What a backup goes by when it watches a request that it has forwarded.
#[test]
fn a_request_is_answered_when_it_is_marked_or_can_no_longer_be_executed() {
    let (mut table, session) = opened();
    let client = ClientId(7);
    execute(&mut table, session, (3, 2), 2, b"three");
    let is_answered = |number, applied| table.is_answered(client, session, RequestNumber(number), OpNumber(applied));
    assert_eq!([1, 2, 3, 4].map(|number| is_answered(number, 2)), [true, false, true, false]);
    assert!(is_answered(0, 2), "its session is open");
    let of = |client, session, number, applied| {
        table.is_answered(ClientId(client), SessionId(at(session)), RequestNumber(number), OpNumber(applied))
    };
    assert!(!of(8, 0, 0, 2), "no session is open for this client");
    assert!(!of(8, 9, 1, 8), "its session may still be opened by an op that is not applied here");
    assert!(of(8, 9, 1, 9), "its session is gone");
}

/// Rule 5.13: a client that does not say what it has seen is held back before bytes have to go.
#[test]
fn a_session_is_clogged_when_unseen_replies_fill_half_their_bound() {
    let (mut table, session) = opened();
    execute(&mut table, session, (1, 1), 2, &[7; 50]);
    assert!(!table.replies_over_budget(session, RequestNumber(1)));
    execute(&mut table, session, (2, 1), 3, &[7; 50]);
    assert!(table.replies_over_budget(session, RequestNumber(1)), "100 of 150 bytes");
    assert!(!table.replies_over_budget(session, RequestNumber(2)), "it has seen the first");
    assert!(!table.replies_over_budget(SessionId(at(99)), RequestNumber(1)));
}

type Change = fn(&mut SessionTable, [SessionId; 2]);

/// Replicas that have applied the same ops have equal tables, and any difference shows.
#[test]
fn the_digest_covers_sessions_floors_marks_replies_and_the_order_of_use() {
    let base = || {
        let mut table = SessionTable::new(constants());
        let sessions = [1_u64, 2].map(|client| register(&mut table, client.into(), client).unwrap());
        execute(&mut table, sessions[0], (1, 1), 3, b"one");
        (table, sessions)
    };
    assert_eq!(base().0.digest(), base().0.digest());
    let changes: [Change; 7] = [
        |_, _| {},
        |table, [first, _]| assert!(execute(table, first, (2, 1), 4, b"two")),
        |table, [first, _]| assert!(execute(table, first, (2, 1), 4, b"owt")),
        |table, [first, _]| assert!(execute(table, first, (2, 2), 4, b"two")),
        |table, [first, _]| assert!(execute(table, first, (3, 1), 4, b"two")),
        |table, [_, second]| assert!(execute(table, second, (2, 1), 4, b"two")),
        |table, _| assert!(register(table, 2, 5).is_some()),
    ];
    let digests: BTreeSet<Checksum> = changes
        .iter()
        .map(|change| {
            let (mut table, sessions) = base();
            change(&mut table, sessions);
            table.digest()
        })
        .collect();
    assert_eq!(digests.len(), changes.len());
}

/// Clients that send anything, again and again, late and with any floor: no number is executed twice, every reply that is
/// given is the first one, and every count is right.
#[test]
fn whatever_is_sent_no_number_is_executed_twice() {
    let mut random = Random::new(21);
    let mut table = SessionTable::new(Constants { sessions_max: 3, ..constants() });
    let mut sessions: Vec<SessionId> = Vec::new();
    let mut executed: BTreeMap<(SessionId, u64), (u64, Vec<u8>)> = BTreeMap::new();
    let mut met = [0; 4];
    for op in 1..20_000 {
        if sessions.is_empty() || random.chance(1, 10) {
            sessions.extend(register(&mut table, random.below(6).into(), op));
            continue;
        }
        // The newest sessions mostly: others are evicted.
        let session = sessions[sessions.len() - 1 - random.below(sessions.len().min(5) as u64) as usize];
        let newest =
            executed.range((session, 0)..=(session, u64::MAX)).next_back().map_or(0, |((_, number), _)| *number);
        let number = (newest + random.below(3)).saturating_sub(random.below(4)).max(1);
        let floor = number.saturating_sub(random.below(4));
        match table.begin(session, RequestNumber(number), RequestNumber(floor), content(number)) {
            Lookup::New => {
                let reply = vec![op as u8; random.below(120) as usize];
                let is_kept = table.finish(session, RequestNumber(number), content(number), at(op), &reply);
                assert_eq!(is_kept, reply.len() <= 100);
                assert_eq!(executed.insert((session, number), (op, reply)), None, "{session} {number} twice");
                met[0] += 1;
            }
            Lookup::Known(Outcome::Reply(reply), position) => {
                assert_eq!(executed.get(&(session, number)), Some(&(position.op.0, reply.to_vec())));
                met[1] += 1;
            }
            Lookup::Known(Outcome::ReplyLost, position) => {
                assert_eq!(executed.get(&(session, number)).map(|(op, _)| *op), Some(position.op.0));
                met[2] += 1;
            }
            Lookup::Known(Outcome::Refused(Refusal::BelowFloor | Refusal::BeyondWindow), _) => met[3] += 1,
            Lookup::NoSession => assert_eq!(table.client_of(session), None),
            other => panic!("{other:?}"),
        }
        assert_accounts(&table);
    }
    assert!(met.iter().all(|times| *times > 100), "{met:?}");
}

/// Rule 9.1: what a checkpoint keeps of the table answers as the table does, and goes on as it does.
#[test]
fn a_table_that_was_saved_goes_on_as_it_was() {
    let mut random = Random::new(11);
    for round in 0..200 {
        let mut table = SessionTable::new(constants());
        let mut sessions: Vec<(SessionId, u64)> = Vec::new();
        let mut op = 0;
        for _ in 0..random.below(60) {
            op += 1 + random.below(4);
            play(&mut table, &mut sessions, &mut random, op);
        }
        let bytes = table.encode();
        let mut again = SessionTable::decode(&bytes, &constants()).expect("a table");
        assert_accounts(&again);
        for cut in 0..bytes.len() {
            assert!(SessionTable::decode(&bytes[..cut], &constants()).is_none(), "round {round}, cut at {cut}");
        }
        // The same requests find the same answers, and leave the same table.
        let (mut of_again, mut twin) = (sessions.clone(), random.clone());
        for more in 1..20 {
            play(&mut table, &mut sessions, &mut random, op + more);
            play(&mut again, &mut of_again, &mut twin, op + more);
            assert_eq!((sessions.clone(), table.encode()), (of_again.clone(), again.encode()), "round {round}");
        }
        assert_accounts(&again);
    }
}

/// A client comes, or a request is executed, as it happens.
fn play(table: &mut SessionTable, sessions: &mut Vec<(SessionId, u64)>, random: &mut Random, op: u64) {
    if sessions.is_empty() || random.chance(1, 5) {
        let session = register(table, u128::from(random.below(4)), op);
        sessions.extend(session.map(|session| (session, 0)));
        return;
    }
    let at = random.below(sessions.len() as u64) as usize;
    let (session, last) = &mut sessions[at];
    let number = *last + 1 + random.below(2);
    let floor = number.saturating_sub(random.below(4)).max(1);
    let found = table.begin(*session, RequestNumber(number), RequestNumber(floor), content(number));
    if found == Lookup::New {
        let reply = vec![op as u8; random.below(130) as usize];
        table.finish(*session, RequestNumber(number), content(number), Position { op: OpNumber(op), index: 0 }, &reply);
        *last = number;
    }
}
