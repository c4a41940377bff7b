//! What the schedules share.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::Outcome;
use vsr::{ClientId, Membership, Peer, ReplicaId};
use vsr_sim::script::{Flight, Script};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn replica(at: usize) -> Peer {
    Peer::Replica(ReplicaId(at as u8))
}

/// Whether a message goes from a replica to a replica.
pub(crate) fn between_replicas(flight: &Flight) -> bool {
    matches!((flight.from, flight.to), (Peer::Replica(_), Peer::Replica(_)))
}

/// Sends a request, and delivers everything that comes of it. No time passes.
pub(crate) fn write(s: &mut Script, at: usize, client: ClientId, number: u64, command: &[u8]) {
    s.submit(at, client, number, command);
    s.run();
}

/// Lets time pass until something is so. Says how long that took.
pub(crate) fn until(s: &mut Script, what: &str, done: impl Fn(&Script) -> bool) -> Duration {
    let mut passed = Duration::ZERO;
    loop {
        let now: &Script = s;
        if done(now) {
            return passed;
        }
        assert!(passed < Duration::from_secs(10), "{what}: not in {passed:?}");
        s.pass(ms(5));
        passed += ms(5);
    }
}

/// The primary of the newest view, of these replicas.
pub(crate) fn leader(s: &Script, alive: &[usize]) -> usize {
    let primaries = alive.iter().copied().filter(|&at| s.core(at).is_primary());
    primaries.max_by_key(|&at| s.view(at)).expect("one of them is primary")
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

pub(crate) fn replied(text: &'static str) -> Outcome {
    Outcome::Reply(Bytes::from_static(text.as_bytes()))
}

pub(crate) fn membership(replicas: usize) -> Membership {
    Membership::new((0..replicas).map(|id| format!("replica {id}"))).expect("a membership")
}

/// Every replica in a line.
pub(crate) fn describe(s: &Script) -> Vec<String> {
    (0..s.len()).map(|at| s.describe(at)).collect()
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
