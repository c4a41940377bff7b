//! Linearizable reads: an answer contains everything that was acknowledged before the question.

use std::time::Duration;

use vsr::protocol::Random;
use vsr_sim::script::Script;

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
