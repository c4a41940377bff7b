//! Cases of the checkers of what clients send and hear, of time-outs, of votes, and of time that does not pass.

use std::time::Duration;

use vsr::protocol::{Known, Ping, ViewChangeReason};
use vsr::{QueryError, SubmitError};
use vsr_sim::check::Unheard;

use super::*;

/// A client asks under the session that an op has opened.
fn request(session: u64, number: u64, floor: u64, command: &'static [u8]) -> Request {
    Request {
        client: ClientId(7),
        session: opened_at(session),
        number: RequestNumber(number),
        floor: RequestNumber(floor),
        command: Bytes::from_static(command),
    }
}

impl Bench {
    fn asked(&mut self, request: Request) -> Seen {
        self.see(&Observation::Asked { requests: &[request] })
    }

    /// A client hears of no reply, after so many milliseconds of two seconds.
    fn refused(&mut self, error: &SubmitError, millis: u64) -> Seen {
        let (client, why, limit) = (Some(ClientId(7)), Unheard::Command(error), Some(2_000_000_000));
        self.see(&Observation::Refused { client, why, waited: millis * 1_000_000, limit })
    }
}

/// So much later.
fn pass(core: &mut Core, millis: u64) {
    pass_time(core, Duration::from_millis(millis));
}

fn pass_time(core: &mut Core, time: Duration) {
    let now = core.time().after(time);
    core.turn(&mut Inputs { now, ..standing_still(core) }, &mut Nothing, &mut Effects::default());
}

/// So much later, and the timers that are due fire.
fn fire(core: &mut Core, millis: u64) {
    let now = core.time().after(Duration::from_millis(millis));
    core.turn(&mut Inputs { now, timers: true, ..standing_still(core) }, &mut Nothing, &mut Effects::default());
}

fn take_in(core: &mut Core, from: u8, message: Message) {
    let arrived = vec![Input::Message { from: Peer::Replica(ReplicaId(from)), message }];
    core.turn(&mut Inputs { arrived, ..standing_still(core) }, &mut Nothing, &mut Effects::default());
}

fn voted(of: u64, why: ViewChangeReason) -> Event {
    Event::Voted { view: view(of), why }
}

fn vote(of: u64) -> Message {
    Message::StartViewChange { leaving: view(of), life: Life::default() }
}

/// A `Ping` of a start of its sender: how far the log reaches, and what is remembered of others.
fn ping(starts: u64, head: u64, known: Vec<Known>) -> Message {
    let ping = Ping {
        view: view(0),
        normal: true,
        commit: CommitNumber(0),
        head: OpNumber(head),
        wall: Timestamp(1),
        past: vsr::protocol::Past::default(),
        machine_version: 1,
        head_certain: true,
        has_room: true,
        life: Life { starts, ..Life::default() },
        succession: vsr::protocol::Succession::First,
        known,
        digests: Vec::new(),
    };
    Message::Ping(ping.into())
}

cases! {
    a_number_beyond_the_own_window_is_noticed: "clients-keep-their-rule", |bench, broken| {
        bench.names(&[&ClientId(7), &"number #1025", &"window 1024"]);
        bench.asked(request(1, if broken { 1025 } else { 1024 }, 1, b"a"))
    };
    a_floor_that_passes_what_is_not_answered_is_noticed: "clients-keep-their-rule", |bench, broken| {
        bench.names(&[&ClientId(7), &"floor to #2", &"number 1"]);
        bench.asked(request(1, 1, 1, b"a"))?;
        let busy = Outcome::Busy(vsr::protocol::Busy::Queue);
        let outcome = if broken { busy } else { Outcome::ReplyLost };
        bench.sent(0, &replies(0, 7, opened_at(1), outcome, 2))?;
        bench.asked(request(1, 2, 2, b"b"))
    };
    a_floor_that_goes_back_is_noticed: "clients-keep-their-rule", |bench, broken| {
        bench.names(&[&ClientId(7), &"number #2 with floor #1", &"was 2"]);
        bench.asked(request(1, 2, 2, b"a"))?;
        bench.asked(request(1, 2, if broken { 1 } else { 2 }, b"a"))
    };
    another_content_under_a_number_is_noticed: "clients-keep-their-rule", |bench, broken| {
        bench.names(&[&ClientId(7), &"2 bytes under number #1", &"1 others"]);
        bench.asked(request(1, 1, 1, b"a"))?;
        bench.asked(request(1, 1, 1, if broken { b"bb" } else { b"a" }))
    };
    a_session_that_was_left_and_is_used_again_is_noticed: "clients-keep-their-rule", |bench, broken| {
        bench.names(&[&ClientId(7), &opened_at(1), &opened_at(2)]);
        bench.asked(request(2, 1, 1, b"a"))?;
        bench.asked(request(if broken { 1 } else { 3 }, 1, 1, b"a"))
    };
    a_time_out_before_the_time_is_over_is_noticed: "refusals-have-a-cause", |bench, broken| {
        bench.names(&[&ClientId(7), &"after 400 ms", &"deadline"]);
        bench.refused(&SubmitError::TimedOut, if broken { 400 } else { 1900 })
    };
    an_eviction_of_which_no_replica_has_spoken_is_noticed: "refusals-have-a-cause", |bench, broken| {
        bench.names(&[&ClientId(7), &"evicted"]);
        bench.sent(0, &gone(if broken { 8 } else { 7 }))?;
        bench.refused(&SubmitError::Evicted, 1)
    };
    a_conflict_of_a_client_that_keeps_the_rules_is_noticed: "refusals-have-a-cause", |bench, broken| {
        bench.names(&[&ClientId(7), &"another client uses the same client id"]);
        bench.refused(if broken { &SubmitError::Conflict } else { &SubmitError::Busy }, 1)
    };
    a_query_without_an_answer_before_its_time_is_over_is_noticed: "refusals-have-a-cause", |bench, broken| {
        bench.names(&[&"the handle of a replica", &"after 5 ms", &"deadline"]);
        let error = if broken { QueryError::TimedOut } else { QueryError::Stopped };
        let why = Unheard::Query(&error);
        bench.see(&Observation::Refused { client: None, why, waited: 5_000_000, limit: None })
    };
    a_command_that_is_refused_as_too_long_and_is_not_is_noticed: "refusals-have-a-cause", |bench, broken| {
        static LONGEST: [u8; (256 << 10) + 1] = [0; (256 << 10) + 1];
        let command = if broken { &LONGEST[1..] } else { &LONGEST[..] };
        let requests = Message::Requests { requests: vec![request(1, 1, 1, command)], forwarded: false };
        bench.names(&[&"r0", &ClientId(7), &"request #1"]);
        bench.see(&Observation::Received { replica: 0, from: Peer::Client(ClientId(7)), message: &requests })?;
        bench.sent(0, &replies(0, 7, opened_at(1), Outcome::Refused(Refusal::TooLarge), 0))
    };
    a_vote_before_the_time_out_of_the_primary_is_noticed: "time-outs-are-kept", |bench, broken| {
        let mut core = Replica::alone(0).core;
        bench.names(&[&"r1", &"view 0", &"200ms", &"400ms"]);
        bench.turn(1, &core)?;
        pass(&mut core, if broken { 200 } else { 400 });
        bench.event(1, &core, &voted(0, ViewChangeReason::Silence))
    };
    a_vote_soon_after_a_sign_of_the_primary_is_noticed: "time-outs-are-kept", |bench, broken| {
        let mut core = Replica::alone(0).core;
        bench.names(&[&"r1", &"view 0", &"399ms", &"400ms"]);
        bench.turn(1, &core)?;
        bench.written(1)?;
        bench.turn(1, &core)?;
        bench.turn(1, &core)?;
        pass(&mut core, 300);
        bench.turn(1, &core)?;
        bench.sent(1, &Message::CommitOk { view: view(0), number: 1, life: Life::default() })?;
        pass(&mut core, if broken { 399 } else { 400 });
        bench.event(1, &core, &voted(0, ViewChangeReason::Silence))
    };
    a_second_view_change_that_is_given_up_as_soon_as_the_first_is_noticed: "time-outs-are-kept", |bench, broken| {
        let mut core = Replica::alone(0).core;
        bench.names(&[&"r1", &"view 1", &"600ms", &"1s"]);
        bench.turn(1, &core)?;
        pass(&mut core, 500);
        bench.event(1, &core, &voted(0, ViewChangeReason::NoProgress))?;
        if !broken {
            // It got on meanwhile.
            bench.event(1, &core, &Event::Committed { commit: CommitNumber(1) })?;
        }
        bench.event(1, &core, &Event::ViewEntered { view: view(1) })?;
        pass(&mut core, 600);
        bench.event(1, &core, &voted(1, ViewChangeReason::NoProgress))
    };
    a_time_out_that_outlasts_progress_is_noticed: "time-outs-are-kept", |bench, broken| {
        let mut core = Replica::on(SimDisk::new(formatted(1, &membership(3))), 1 << 30).core;
        bench.names(&[&"r1", &"view 1", &"1.25s at most"]);
        take_in(&mut core, 0, vote(1));
        bench.turn(1, &core)?;
        fire(&mut core, 700);
        bench.turn(1, &core)?;
        if broken {
            // The back-off stays what it was.
            bench.event(1, &core, &Event::Committed { commit: CommitNumber(1) })?;
            bench.turn(1, &core)?;
        }
        fire(&mut core, 1300);
        bench.turn(1, &core)
    };
    a_member_that_is_not_believed_after_a_late_ping_is_noticed: "members-are-believed-again", |bench, broken| {
        let mut core = Replica::on(SimDisk::new(formatted(1, &membership(3))), 1 << 30).core;
        let life = Life { starts: 1, ..Life::default() };
        let known = Known { replica: ReplicaId(0), life, acknowledged: OpNumber(9), since: OpNumber(0) };
        let mut hears = |bench: &mut Bench, from: u8, message: Message| {
            take_in(&mut core, from, message.clone());
            bench.received(1, from, &message)?;
            bench.turn(1, &core)
        };
        bench.names(&[&"r1", &"r0", &"op 9"]);
        hears(bench, 0, ping(1, 5, Vec::new()))?;
        hears(bench, 2, ping(2, 5, vec![known]))?;
        hears(bench, 0, ping(1, 7, Vec::new()))?;
        assert!(core.distrusted().any(|(id, _)| id == ReplicaId(0)));
        // It says so, and the replica goes on as it is.
        let late = if broken { 9 } else { 8 };
        bench.received(1, 0, &ping(1, late, Vec::new()))?;
        bench.turn(1, &core)
    };
    a_view_that_is_left_without_a_quorum_is_noticed: "views-are-left-by-quorums", |bench, broken| {
        let core = Replica::alone(0).core;
        bench.names(&[&"r1", &"view 1", &"1 vote of its own and 0 of others", &"is 2"]);
        bench.turn(1, &core)?;
        bench.event(1, &core, &voted(1, ViewChangeReason::Silence))?;
        // A vote to leave another view is none to leave this one.
        bench.received(1, 2, &vote(if broken { 0 } else { 1 }))?;
        bench.event(1, &core, &Event::ViewEntered { view: view(2) })
    };
    a_view_that_is_left_by_the_votes_of_others_alone_is_noticed: "views-are-left-by-quorums", |bench, broken| {
        let core = Replica::alone(0).core;
        bench.names(&[&"r1", &"view 1", &"0 vote of its own and 2 of others"]);
        bench.turn(1, &core)?;
        bench.received(1, 2, &vote(1))?;
        bench.received(1, 0, &vote(1))?;
        if !broken {
            bench.event(1, &core, &voted(1, ViewChangeReason::Silence))?;
        }
        bench.event(1, &core, &Event::ViewEntered { view: view(2) })
    };
    a_view_that_is_left_by_an_old_vote_is_noticed: "views-are-left-by-quorums", |bench, broken| {
        let mut core = Replica::alone(0).core;
        bench.names(&[&"r1", &"view 1", &"0 of others"]);
        bench.turn(1, &core)?;
        bench.received(1, 2, &vote(1))?;
        bench.turn(1, &core)?;
        pass(&mut core, if broken { 361 } else { 360 });
        bench.event(1, &core, &voted(1, ViewChangeReason::Silence))?;
        bench.event(1, &core, &Event::ViewEntered { view: view(2) })
    };
    a_replica_that_takes_turn_after_turn_is_noticed: "time-moves-on", |bench, broken| {
        let mut core = Replica::alone(0).core;
        bench.names(&[&"r1 takes 100001 turns in 100ms", &"in the last 1000", &"sends CommitOk 1000 times"]);
        for _ in 0..=100_000 {
            bench.sent(1, &Message::CommitOk { view: view(0), number: 1, life: Life::default() })?;
            bench.turn(1, &core)?;
            pass_time(&mut core, Duration::from_micros(if broken { 1 } else { 3 }));
        }
        Ok(())
    };
    a_timer_that_is_due_again_at_once_is_noticed: "time-moves-on", |bench, broken| {
        let mut core = Replica::alone(0).core;
        pass(&mut core, 10_000);
        bench.names(&[&"r1", &"in 0ns", &"takes in and sends nothing", &"its timer is due again at once"]);
        for turn in 0..=100_000 {
            if !broken && turn == 50_000 {
                pass(&mut core, 200);
            }
            bench.turn(1, &core)?;
        }
        Ok(())
    };
    a_message_that_asks_for_too_many_entries_is_noticed: "queues-are-bounded", |bench, broken| {
        let count = if broken { 65 } else { 64 };
        let wanted = (1..=count).map(|op| (OpNumber(op), Checksum(1))).collect();
        bench.names(&[&"r2", &"RequestEntries of 65", &"64"]);
        bench.sent(2, &Message::RequestEntries { wanted })
    };
    a_reply_over_the_longest_is_noticed: "queues-are-bounded", |bench, broken| {
        bench.change_state(2, |state| state.membership.constants.reply_max = 64);
        let bytes = Bytes::from(vec![0; if broken { 65 } else { 64 }]);
        bench.names(&[&"r2", &"65 bytes", &"64 are allowed"]);
        bench.sent(2, &replies(0, 7, opened_at(1), Outcome::Reply(bytes), 2))
    };
}
