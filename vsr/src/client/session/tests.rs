//! The session against made-up clusters, in virtual time.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;
use crate::protocol::OpNumber;

const SESSION: SessionId = SessionId(Position { op: OpNumber(1), index: 0 });
const PATIENCE: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(5);
const RTT: Duration = Duration::from_millis(1);

fn session() -> ClientSession<u64> {
    ClientSession::new(ClientId(7), 1024, PATIENCE, PAUSE)
}

fn seconds(seconds: u64) -> Monotonic {
    Monotonic(0).after(Duration::from_secs(seconds))
}

fn executed() -> Outcome {
    Outcome::Reply(Bytes::new())
}

/// A client's way to a cluster, of which `server` decides when it answers a request, and what.
struct Way<S> {
    server: S,
    now: Monotonic,
    answers: BTreeMap<(Monotonic, u64), Reply>,
    requests: u64,
    bytes: u64,
    settled: Vec<(u64, Submitted)>,
}

impl<S: FnMut(Monotonic, &Request) -> Option<(Monotonic, Outcome)>> Way<S> {
    fn new(server: S) -> Way<S> {
        let (answers, settled) = (BTreeMap::new(), Vec::new());
        Way { server, now: Monotonic(0), answers, requests: 0, bytes: 0, settled }
    }

    fn send(&mut self, session: &mut ClientSession<u64>) {
        let mut requests = Vec::new();
        let _ = session.poll(self.now, &mut requests);
        session.take_told(&mut self.settled);
        for request in requests {
            self.requests += 1;
            self.bytes += request.command.len() as u64;
            if let Some((when, outcome)) = (self.server)(self.now, &request) {
                let Request { client, session, number, command, .. } = request;
                let (position, request) = (Position::default(), Checksum::of(&command));
                let reply = Reply { client, session, number, outcome, position, request };
                self.answers.insert((when, self.requests), reply);
            }
        }
    }

    fn play(&mut self, session: &mut ClientSession<u64>, until: Monotonic) {
        for turn in 0.. {
            assert!(turn < 1_000_000, "it never rests");
            self.send(session);
            let answer = self.answers.first_key_value().map_or(NEVER, |((when, _), _)| *when);
            let next = answer.min(session.next_due());
            if next > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            while let Some(first) = self.answers.first_entry().filter(|first| first.key().0 <= self.now) {
                session.on_reply(first.remove(), self.now, &mut self.settled);
            }
        }
    }

    /// Bytes sent for each byte of payload.
    fn amplification(&self, payload: u64) -> f64 {
        self.bytes as f64 / payload as f64
    }
}

fn submit(session: &mut ClientSession<u64>, count: u64, command: &Bytes) -> u64 {
    (0..count).for_each(|tag| session.submit(command.clone(), tag));
    count * command.len() as u64
}

/// Executes one request after the other, each in so much time, and keeps so many bytes of them waiting.
fn slow(step: Duration, queue_max: u64) -> impl FnMut(Monotonic, &Request) -> Option<(Monotonic, Outcome)> {
    let mut free_at = Monotonic(0);
    let mut taken: BTreeMap<u64, (Monotonic, u64)> = BTreeMap::new();
    move |now, request| {
        let soon = now.after(RTT);
        if request.number == RequestNumber(0) {
            return Some((soon, Outcome::Registered(SESSION)));
        }
        if let Some((when, _)) = taken.get(&request.number.0) {
            // A copy of one that waits joins it; of one that is executed, it is answered from the table.
            return (*when <= now).then(|| (soon, executed()));
        }
        let len = request.command.len() as u64;
        let queued: u64 = taken.values().filter(|(when, _)| *when > now).map(|(_, bytes)| bytes).sum();
        if queued + len > queue_max {
            return Some((soon, Outcome::Busy(Busy::Queue)));
        }
        free_at = free_at.max(now).after(step);
        taken.insert(request.number.0, (free_at, len));
        Some((free_at, executed()))
    }
}

fn all_executed(way: &Way<impl FnMut(Monotonic, &Request) -> Option<(Monotonic, Outcome)>>, count: usize) {
    assert_eq!(way.settled.len(), count);
    assert!(way.settled.iter().all(|(_, result)| result.is_ok()));
}

/// A slow disk is no reason to send the payload many times over (it was 40 times, once).
#[test]
fn a_slow_primary_is_not_sent_everything_again_and_again() {
    let command = Bytes::from(vec![7; 256 << 10]);
    for (count, step) in [(240, 250), (60, 1000), (900, 60)] {
        let (mut session, mut way) = (session(), Way::new(slow(Duration::from_millis(step), u64::MAX)));
        let payload = submit(&mut session, count, &command);
        way.play(&mut session, seconds(62));
        all_executed(&way, count as usize);
        assert!(way.amplification(payload) <= 2.0, "{count} each {step} ms: {}", way.amplification(payload));
    }
}

/// What a full queue refuses is not sent again every few milliseconds.
#[test]
fn a_full_queue_is_filled_as_fast_as_it_empties() {
    let command = Bytes::from(vec![7; 256 << 10]);
    for (queue_max, step) in [(32 << 20, 60), (4 << 20, 60), (256 << 10, 60), (32 << 20, 1)] {
        let (mut session, mut way) = (session(), Way::new(slow(Duration::from_millis(step), queue_max)));
        let payload = submit(&mut session, 1000, &command);
        way.play(&mut session, seconds(120));
        all_executed(&way, 1000);
        let amplification = way.amplification(payload);
        assert!(amplification <= 3.0, "a queue of {queue_max} bytes, {step} ms each: {amplification}");
    }
}

/// No replica answers for a minute.
#[test]
fn silence_is_not_shouted_at() {
    for len in [1 << 10, 64 << 10] {
        let server = |now: Monotonic, request: &Request| match request.number {
            RequestNumber(0) => Some((now.after(RTT), Outcome::Registered(SESSION))),
            _ => (now >= seconds(60)).then(|| (now.after(RTT), executed())),
        };
        let (mut session, mut way) = (session(), Way::new(server));
        let payload = submit(&mut session, 250, &Bytes::from(vec![7; len]));
        way.play(&mut session, seconds(59));
        assert!(way.settled.is_empty());
        assert!(way.amplification(payload) <= 3.0, "{len} bytes each: {}", way.amplification(payload));
        // The new primary says that it is there, or the connection does.
        way.now = seconds(60);
        session.resend_now(way.now, true);
        way.play(&mut session, seconds(61));
        all_executed(&way, 250);
        assert!(way.amplification(payload) <= 4.0, "{len} bytes each: {}", way.amplification(payload));
    }
}

/// A lossy line: whatever is lost is sent again, in little time.
#[test]
fn what_is_lost_is_sent_again() {
    for seed in 0..50 {
        let mut random = Random::new(seed);
        let server = move |now: Monotonic, request: &Request| {
            let outcome = if request.number.0 == 0 { Outcome::Registered(SESSION) } else { executed() };
            (!random.chance(30, 100)).then(|| (now.after(RTT), outcome))
        };
        let (mut session, mut way) = (session(), Way::new(server));
        submit(&mut session, 40, &Bytes::from_static(b"command"));
        way.play(&mut session, seconds(20));
        all_executed(&way, 40);
    }
}

/// Every caller hears that the log is full, also behind a window full of requests that wait for room; little is
/// sent; when there is room, what was sent is executed.
#[test]
fn a_full_log_is_heard_by_everybody_and_costs_little() {
    let is_full = Rc::new(Cell::new(true));
    let of_server = is_full.clone();
    let server = move |now: Monotonic, request: &Request| {
        let outcome = match request.number {
            RequestNumber(0) => Outcome::Registered(SESSION),
            _ if of_server.get() => Outcome::Busy(Busy::LogFull),
            _ => executed(),
        };
        Some((now.after(RTT), outcome))
    };
    let (mut session, mut way) = (session(), Way::new(server));
    let command = Bytes::from(vec![7; 100_000]);
    let payload = submit(&mut session, 3000, &command);
    way.play(&mut session, seconds(1));
    assert_eq!(way.settled.len(), 3000);
    assert!(way.settled.iter().all(|(_, result)| *result == Err(SubmitError::LogFull)));
    assert_eq!(session.trouble(), Some(Busy::LogFull));
    let (before, told) = (way.bytes, way.settled.len());
    assert!(before <= payload);
    way.play(&mut session, seconds(61));
    let again = (way.bytes - before) / command.len() as u64;
    assert!((30..=90).contains(&again), "{again} requests in a minute, one at a time");
    submit(&mut session, 1, &command);
    way.play(&mut session, seconds(62));
    assert_eq!(way.settled.len(), told + 1, "one that is submitted later hears it as well");
    is_full.set(false);
    way.play(&mut session, seconds(70));
    assert_eq!((session.pending(), session.trouble()), (0, None));
    way.settled.clear();
    submit(&mut session, 10, &command);
    way.play(&mut session, seconds(71));
    all_executed(&way, 10);
}

/// A client without a session hears that the log is full, too, and asks again at most now and then.
#[test]
fn a_new_client_hears_that_the_log_is_full() {
    let is_full = Rc::new(Cell::new(true));
    let of_server = is_full.clone();
    let server = move |now: Monotonic, request: &Request| {
        let outcome = match request.number {
            _ if of_server.get() => Outcome::Busy(Busy::LogFull),
            RequestNumber(0) => Outcome::Registered(SESSION),
            _ => executed(),
        };
        Some((now.after(RTT), outcome))
    };
    let (mut session, mut way) = (session(), Way::new(server));
    for tenth in 0..100 {
        session.submit(Bytes::from_static(b"command"), tenth);
        let until = way.now.after(Duration::from_millis(100));
        way.play(&mut session, until);
        assert_eq!(way.settled.pop(), Some((tenth, Err(SubmitError::LogFull))));
    }
    assert!(way.requests <= 20, "{} attempts in ten seconds", way.requests);
    is_full.set(false);
    way.play(&mut session, seconds(12));
    session.submit(Bytes::from_static(b"command"), 1);
    way.play(&mut session, seconds(14));
    all_executed(&way, 1);
}

/// A connection that breaks again and again is no reason to send everything each time.
#[test]
fn a_flapping_connection_is_not_flooded() {
    let server = |now: Monotonic, request: &Request| {
        (request.number.0 == 0).then(|| (now.after(RTT), Outcome::Registered(SESSION)))
    };
    let (mut session, mut way) = (session(), Way::new(server));
    let payload = submit(&mut session, 60, &Bytes::from(vec![7; 256 << 10]));
    way.play(&mut session, seconds(0).after(RTT));
    for _ in 0..1000 {
        way.now = way.now.after(Duration::from_millis(10));
        session.resend_now(way.now, false);
        way.send(&mut session);
    }
    assert!(way.amplification(payload) <= 3.0, "{}", way.amplification(payload));
    // A new primary is a reason.
    let before = way.bytes;
    session.resend_now(way.now, true);
    way.send(&mut session);
    assert!(way.bytes - before >= payload / 2, "{} of {payload}", way.bytes - before);
}

/// While there is no primary one request asks for it, and the rest follows when it is there.
#[test]
fn without_a_primary_one_request_asks() {
    let has_primary = Rc::new(Cell::new(false));
    let of_server = has_primary.clone();
    let server = move |now: Monotonic, request: &Request| {
        let outcome = match request.number {
            RequestNumber(0) => Outcome::Registered(SESSION),
            _ if of_server.get() => executed(),
            _ => Outcome::Busy(Busy::NoPrimary),
        };
        Some((now.after(RTT), outcome))
    };
    let (mut session, mut way) = (session(), Way::new(server));
    let payload = submit(&mut session, 50, &Bytes::from(vec![7; 100_000]));
    way.play(&mut session, seconds(2));
    assert!(way.settled.is_empty());
    assert!(way.amplification(payload) <= 2.0, "{}", way.amplification(payload));
    has_primary.set(true);
    let until = way.now.after(PATIENCE);
    way.play(&mut session, until);
    all_executed(&way, 50);
    assert!(way.amplification(payload) <= 3.0, "{}", way.amplification(payload));
}

/// Two clients of one id use the same numbers, and a transport gives either what is for both.
#[test]
fn what_answers_anothers_command_under_the_same_number_is_not_taken() {
    let (client, now) = (ClientId(7), Monotonic(1));
    let session = SessionId(Position { op: OpNumber(3), index: 0 });
    let mut own = ClientSession::new(client, 4, Duration::from_millis(100), Duration::from_millis(5));
    let (mut requests, mut settled) = (Vec::new(), Vec::new());
    own.submit(Bytes::from_static(b"mine"), 'a');
    let _ = own.poll(now, &mut requests);
    let reply = |number, outcome, command: &[u8]| Reply {
        client,
        session: if number == 0 { SessionId::default() } else { session },
        number: RequestNumber(number),
        outcome,
        position: Position::default(),
        request: Checksum::of(command),
    };
    own.on_reply(reply(0, Outcome::Registered(session), b""), now, &mut settled);
    let _ = own.poll(now, &mut requests);
    assert_eq!(requests.last().map(|request| request.number), Some(RequestNumber(1)));
    for outcome in [
        Outcome::Reply(Bytes::from_static(b"for another")),
        Outcome::ReplyLost,
        Outcome::Refused(Refusal::Conflict),
        Outcome::Refused(Refusal::Undecodable),
    ] {
        own.on_reply(reply(1, outcome, b"another's"), now, &mut settled);
    }
    assert!(settled.is_empty(), "{settled:?}");
    own.on_reply(reply(1, Outcome::Refused(Refusal::Conflict), b"mine"), now, &mut settled);
    assert_eq!(settled, [('a', Err(SubmitError::Conflict))]);
}
