//! What the schedules share.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::{DoViewChange, Message, Outcome, Peer, Ping, Refusal, Request, RequestNumber, Timestamp};
use vsr::{ClientId, Membership, ReplicaId};
use vsr_sim::script::{Flight, Script};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn replica(at: usize) -> Peer {
    Peer::Replica(ReplicaId(at as u8))
}

/// A membership of this size with constants or quorums of its own.
pub(crate) fn members(n: usize, change: impl FnOnce(&mut Membership)) -> Membership {
    let mut membership = Membership::new((0..n).map(|at| format!("replica {at}"))).expect("1 to 9 members");
    change(&mut membership);
    membership
}

pub(crate) fn membership(replicas: usize) -> Membership {
    members(replicas, |_| {})
}

pub(crate) fn replied(reply: impl AsRef<[u8]>) -> Outcome {
    Outcome::Reply(Bytes::copy_from_slice(reply.as_ref()))
}

pub(crate) fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

pub(crate) fn times(count: usize, outcome: Outcome) -> Vec<Outcome> {
    vec![outcome; count]
}

/// The numbers from 1 to `last`, as commands.
pub(crate) fn numbers(last: usize) -> Vec<String> {
    (1..=last).map(|number| number.to_string()).collect()
}

/// Whether a message goes from a replica to a replica.
pub(crate) fn between_replicas(flight: &Flight) -> bool {
    matches!((flight.from, flight.to), (Peer::Replica(_), Peer::Replica(_)))
}

pub(crate) fn log_of(flight: Flight) -> Option<DoViewChange> {
    match flight.message {
        Message::DoViewChange(dvc) => Some(*dvc),
        _ => None,
    }
}

/// Sends a request, and delivers everything that comes of it. No time passes.
pub(crate) fn write(s: &mut Script, at: usize, client: ClientId, number: u64, command: &[u8]) {
    s.submit(at, client, number, command);
    s.run();
}

/// Sends the command `w` with this floor, and delivers everything that comes of it. No time passes.
pub(crate) fn submit(s: &mut Script, at: usize, client: ClientId, number: u64, floor: u64) {
    s.submit_with_floor(at, client, number, floor, b"w");
    s.run();
}

/// Requests that arrive together are one op: here through r1, which has forwarded them.
pub(crate) fn submit_together(s: &mut Script, requests: Vec<Request>) {
    s.inject(Script::flight(1, 0, Message::Requests { requests, forwarded: true }));
    s.run();
}

/// Lets time pass until something is so. Says how long that took.
pub(crate) fn until(s: &mut Script, what: &str, done: impl Fn(&Script) -> bool) -> Duration {
    pass_until(s, ms(5), what, done)
}

/// As `until`, in steps of 10 ms, where what is waited for needs no words.
pub(crate) fn eventually(s: &mut Script, done: impl Fn(&Script) -> bool) {
    pass_until(s, ms(10), "what the test waits for", done);
}

fn pass_until(s: &mut Script, step: Duration, what: &str, done: impl Fn(&Script) -> bool) -> Duration {
    let mut passed = Duration::ZERO;
    loop {
        let now: &Script = s;
        if done(now) {
            return passed;
        }
        assert!(passed < Duration::from_secs(10), "{what}: not in {passed:?}: {:#?}", describe(now));
        s.pass(step);
        passed += step;
    }
}

/// Every replica in a line.
pub(crate) fn describe(s: &Script) -> Vec<String> {
    (0..s.len()).map(|at| s.describe(at)).collect()
}

/// The primary of the newest view, of these replicas.
pub(crate) fn leader(s: &Script, alive: &[usize]) -> usize {
    let primaries = alive.iter().copied().filter(|&at| s.core(at).is_primary());
    primaries.max_by_key(|&at| s.view(at)).expect("one of them is primary")
}

/// The connections of these replicas to the primary of their view are refused: they vote at once, and the next
/// view starts without any time passing.
pub(crate) fn depose(s: &mut Script, voters: &[usize]) {
    let primary = usize::from(s.core(voters[0]).primary_id().0);
    for &at in voters {
        s.peer_down(at, primary, true);
    }
    s.run();
}

/// Restarts the primary: it moves to the next view by itself, and the others join. No time passes.
pub(crate) fn next_view(s: &mut Script) {
    let primary = (0..s.len()).find(|&at| s.core(at).is_primary()).expect("a primary");
    s.crash(primary);
    s.restart(primary);
    s.run();
}

/// No message crosses the border of a group.
pub(crate) fn split(s: &mut Script, group: &'static [usize]) {
    let inside = move |peer: Peer| match peer {
        Peer::Replica(id) => Some(group.contains(&usize::from(id.0))),
        Peer::Client(_) => None,
    };
    s.lose(move |f| matches!((inside(f.from), inside(f.to)), (Some(from), Some(to)) if from != to));
}

pub(crate) type Seen = Rc<RefCell<Vec<Flight>>>;

/// Notes the messages that fit, and lets them go on. Sees nothing that an earlier rule has taken.
pub(crate) fn watch(s: &mut Script, filter: impl Fn(&Flight) -> bool + 'static) -> Seen {
    let seen = Seen::default();
    let notes = Rc::clone(&seen);
    s.lose(move |flight| {
        if filter(flight) {
            notes.borrow_mut().push(flight.clone());
        }
        false
    });
    seen
}

/// Lets a replica make its writes one by one while so many steps of 5 ms pass, and crashes it at a point: 2w is
/// before its write w is durable, 2w + 1 right after. Starts it again. False when there were fewer writes.
pub(crate) fn crash_at(s: &mut Script, victim: usize, point: usize, steps: usize) -> bool {
    s.hold_disk(victim);
    let mut writes = 0;
    for _ in 0..steps {
        while s.disk(victim).is_writing() {
            if writes == point / 2 {
                if point % 2 == 1 {
                    s.crash_after_write(victim);
                } else {
                    s.crash(victim);
                }
                s.restart(victim);
                s.release_disk(victim);
                return true;
            }
            s.write_once(victim);
            s.run();
            writes += 1;
        }
        s.pass(ms(5));
    }
    false
}

/// A ping as this replica would send it, but for a change.
pub(crate) fn ping(s: &Script, from: usize, change: impl FnOnce(&mut Ping)) -> Message {
    let core = s.core(from);
    let mut ping = Ping {
        view: core.view(),
        normal: true,
        commit: core.commit(),
        head: core.head(),
        wall: Timestamp(0),
        past: vsr::protocol::Past::default(),
        machine_version: 1,
        head_certain: true,
        has_room: true,
        life: core.life(),
        succession: vsr::protocol::Succession::First,
        known: Vec::new(),
        digests: Vec::new(),
    };
    change(&mut ping);
    Message::Ping(ping.into())
}

/// r2 alone has a durable `A` as op 2 of view 0: r0 has sent it to r2 only, and died before its own write.
pub(crate) fn leave_an_op_at_r2(s: &mut Script, client: ClientId) {
    s.hold_disk(0);
    s.cut(0, 1);
    write(s, 0, client, 1, b"A");
    assert!(s.durable(2, 2).is_some(), "r2 has acknowledged A");
    s.crash(0);
    s.release_disk(0);
    s.heal();
}

/// r2 holds so many ops of view 0 from op 2 on, each an `A`, that nobody else has, and is cut off by the rule that is
/// returned. r1 is the primary of view 1, in which r0 and r1 have committed `B` as op 2, under number 100.
pub(crate) fn stale(ops: u64) -> (Script, ClientId, usize) {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(0);
    s.cut(0, 1);
    s.lose(|f| f.is(2, 0) && f.name() == "PrepareOk");
    for number in 1..=ops {
        s.submit_with_floor(0, client, number, 1, b"A");
        s.run();
    }
    assert!(s.durable(2, 1 + ops).is_some() && s.durable(0, 2).is_none() && s.durable(1, 2).is_none());
    s.crash(0);
    s.release_disk(0);
    s.heal();
    let alone = s.isolate(2);
    s.restart(0);
    s.run();
    assert!(s.core(1).is_primary() && s.view(1) == 1, "{}", s.describe(1));
    s.submit_with_floor(1, client, 100, 1, b"B");
    s.run();
    assert_eq!(s.reply(client, 100), Some(b"1".to_vec()));
    (s, client, alone)
}

/// A session whose replies are bounded at 64 bytes has 33 bytes of them, all answered, under a floor of 1.
pub(crate) fn clogged() -> (Script, ClientId) {
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

/// Request `number` of a client whose session is open.
pub(crate) fn request(s: &Script, client: ClientId, number: u64, command: &'static [u8]) -> Request {
    Request {
        client,
        session: s.session(client).expect("the session is open"),
        number: RequestNumber(number),
        floor: RequestNumber(1),
        command: Bytes::from_static(command),
    }
}
