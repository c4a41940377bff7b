//! Linearizable reads: an answer contains everything that was acknowledged before the question.

use std::time::Duration;

use vsr::protocol::{Message, OpNumber, Random};
use vsr_sim::script::Script;

use crate::support::{depose, eventually, ms, replica, stale, submit, until, write};

/// LR-01: a primary is cut off, or stood still, and x = 2 is acknowledged in the next view. It never answers
/// from x = 1.
#[test]
fn lr_01_a_deposed_primary_never_answers_with_an_old_value() {
    for asleep in [false, true] {
        let mut s = Script::new(3);
        let client = s.register(0);
        s.submit(0, client, 1, b"x = 1");
        s.run();
        s.pause(0, asleep);
        s.isolate(0);
        s.pass(Duration::from_secs(2));
        assert!(s.core(1).is_primary(), "{}", s.describe(1));
        s.submit(1, client, 2, b"x = 2");
        s.run();
        assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
        s.pause(0, false);
        s.query(0, 1);
        s.run();
        assert_eq!((s.answer(0, 1), s.executed(0).len()), (None, 1), "asleep: {asleep}");
        s.pass(Duration::from_secs(1));
        assert_eq!(s.answer(0, 1), None, "asleep: {asleep}");
        s.settle();
        s.pass(Duration::from_millis(500));
        assert_eq!(s.answer(0, 1), Some(2), "asleep: {asleep}");
    }
}

/// D20: a new primary serves no read before what it inherited is committed.
#[test]
fn d20_a_new_primary_reads_nothing_before_its_inherited_log_is_committed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"w");
    assert!(s.reply(client, 1).is_some(), "op 2 is acknowledged, as only r0 knows");
    let acks = s.hold(|f| f.is(2, 1) && f.name() == "PrepareOk");
    s.crash(0);
    depose(&mut s, &[1, 2]);
    assert!(s.core(1).is_primary(), "{}", s.describe(1));
    s.query(1, 7);
    s.run();
    assert_eq!((s.core(1).commit().0, s.core(1).applied().0), (1, 1));
    assert_eq!(s.answer(1, 7), None, "a state without w would be stale");
    s.release(acks);
    s.run();
    assert_eq!(s.answer(1, 7), Some(1));
    s.settle();
}

/// LR-09: x = 9 is prepared and never committed; the view change drops it. Nobody ever reads it.
#[test]
fn lr_09_a_prepared_write_is_not_read_before_it_is_committed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.submit(0, client, 1, b"x = 1");
    s.run();
    s.lose(|f| f.name() == "Prepare");
    s.submit(0, client, 2, b"x = 9");
    s.run();
    assert!(s.durable(0, 3).is_some() && s.reply(client, 2).is_none());
    s.query(0, 1);
    s.query(2, 2);
    s.run();
    assert_eq!((s.answer(0, 1), s.answer(2, 2)), (Some(1), Some(1)));
    s.isolate(0);
    s.query(0, 3);
    s.pass(Duration::from_secs(2));
    assert!(s.core(1).is_primary() && s.core(1).head().0 == 2, "{}", s.describe(1));
    s.query(1, 4);
    s.run();
    assert_eq!((s.answer(0, 3), s.answer(1, 4)), (None, Some(1)));
    s.settle();
    s.pass(Duration::from_millis(500));
    assert_eq!(s.answer(0, 3), Some(1));
    for at in 0..3 {
        assert_eq!(s.executed(at), ["x = 1"]);
    }
}

/// D21: a query at a backup that is behind waits; it is never answered from what happens to be there.
#[test]
fn d21_a_query_at_a_backup_that_is_cut_off_waits() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    write(&mut s, 0, client, 1, b"w");
    assert!(s.reply(client, 1).is_some());
    s.query(2, 7);
    s.query(0, 8);
    s.pass(Duration::from_secs(1));
    assert_eq!((s.answer(2, 7), s.answer(0, 8)), (None, Some(1)));
    s.heal();
    eventually(&mut s, |s| s.answer(2, 7).is_some());
    assert_eq!(s.answer(2, 7), Some(1));
    s.settle();
}

/// LR-07: the primary is deposed between the index that it gives a backup and the backup's answer, before or
/// after the index arrives. The backup does not know yet that what it has to contain is committed.
#[test]
fn lr_07_an_index_of_a_deposed_primary_is_reached_or_asked_for_again() {
    for late in [false, true] {
        let mut s = Script::new(3);
        let client = s.register(0);
        s.lose(|f| f.is(0, 2) && f.name() == "Commit");
        for number in 1..=2 {
            s.submit(0, client, number, b"w");
            s.run();
            assert!(s.reply(client, number).is_some());
        }
        let index = s.hold(move |f| late && f.is(0, 2) && f.name() == "ReadIndexOk");
        s.query(2, 1);
        s.run();
        let held = s.held(index);
        assert_eq!(held.len(), usize::from(late));
        assert_eq!((s.executed(2).len(), s.answer(2, 1)), (1, None), "r2 does not know that op 3 is committed");
        s.crash(0);
        s.run();
        assert_eq!(s.answer(2, 1), None);
        for flight in held {
            s.inject(flight);
        }
        s.run();
        assert_eq!(s.answer(2, 1), None);
        s.pass(Duration::from_secs(2));
        assert_eq!(s.answer(2, 1), Some(2), "{}", s.describe(2));
        s.settle();
    }
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

/// CK-02: a primary stands still for a minute: on its return it answers no query from its old state, becomes a
/// backup, and starts no election. (Its monotonic clock went on here.)
#[test]
fn ck_02_a_suspended_primary_returns_without_a_stale_read() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"old");
    s.pass(ms(100));
    s.pause(0, true);
    until(&mut s, "view 1", |s| s.core(1).is_primary());
    write(&mut s, 1, client, 2, b"new");
    assert!(s.reply(client, 2).is_some());
    s.pass(Duration::from_secs(60));
    let entered = s.views_entered();
    s.pause(0, false);
    // The first thing that it does, before it takes any message.
    s.query(0, 1);
    assert_eq!(s.answer(0, 1), None, "nobody has confirmed that it is primary");
    s.pass(Duration::from_secs(2));
    assert_eq!(s.answer(0, 1), Some(2), "{}", s.describe(0));
    assert!(s.is_normal(0) && !s.core(0).is_primary(), "{}", s.describe(0));
    assert_eq!((s.view(0), s.view(1), s.view(2)), (1, 1, 1));
    assert!(s.views_entered() <= entered + 1);
    s.settle();
}

/// LR-10: queries at every replica, two writers, and a crash, an isolation or nothing each round. An answer
/// contains whatever anybody had seen before its question.
#[test]
fn lr_10_queries_under_a_nemesis_contain_what_was_seen_before() {
    let mut s = Script::new(5);
    let mut random = Random::new(10);
    let mut writers = [(s.register(0), 1), (s.register(1), 1)];
    // The newest state that anybody has seen; and the queries that wait, with what it was when they were asked.
    let (mut seen, mut asked, mut answered) = (0_usize, Vec::new(), 0);
    for round in 0..50 {
        s.heal();
        let victim = random.below(5) as usize;
        match random.below(3) {
            0 => {
                s.isolate(victim);
            }
            1 => {
                s.crash(victim);
                s.restart(victim);
            }
            _ => {}
        }
        for (writer, number) in &mut writers {
            *number += u64::from(s.reply(*writer, *number).is_some());
            for at in 0..5 {
                s.submit(at, *writer, *number, b"w");
            }
        }
        for at in 0..5 {
            let token = round * 5 + at as u64;
            s.query(at, token);
            asked.push((at, token, seen));
        }
        s.pass(Duration::from_millis(700));
        asked.retain(|&(at, token, before)| {
            let Some(answer) = s.answer(at, token) else { return true };
            assert!(answer >= before, "round {round}: r{at} answers {answer}, {before} had been seen");
            seen = seen.max(answer);
            answered += 1;
            false
        });
        for (writer, number) in &writers {
            let reply = s.reply(*writer, *number).and_then(|reply| String::from_utf8(reply).ok());
            seen = seen.max(reply.and_then(|reply| reply.parse().ok()).unwrap_or(0));
        }
    }
    s.settle();
    assert!(seen >= 50 && s.executed(0).len() >= seen, "{seen} seen");
    assert!(answered >= 150, "{answered} of 250 answered");
}
