//! Requests that a backup has passed on to its primary: when they are asked about again, and when they are a reason to
//! vote (rules 5.7, 7.2).
//!
//! Invariant: a backup votes for the sake of a request only when all of these hold.
//!
//! - The primary is bound to answer it: a request that no replica may admit is refused where it arrives, and is never
//!   passed on.
//! - [`Timing::forward_timeout`](crate::protocol::Timing::forward_timeout) has passed since it was passed on first, and it is neither in the log
//!   of this replica nor answered. A refusal is an answer.
//! - It was passed on at least once more, and half of that time has passed since: one lost message is not enough.
//! - Its client has asked this replica for it within the longest time that a client goes without asking. A client that
//!   gave up, or was answered elsewhere, does not come back.
//! - The primary does not work through a queue in which it stands: either the commit number has not risen for a whole
//!   `forward_timeout` time, or the log has grown by more than a queue may hold
//!   ([`Options::queue_bytes_max`](crate::protocol::Options::queue_bytes_max)) since it was passed on again. The queue is first in,
//!   first out, so a request that was in it would be in the log by then.
//!
//! The client need not ask twice: it backs off, and asks one replica after the other. The backup itself passes a copy
//! on again, at most one request in each `forward_timeout` time. So a primary that no request reaches is voted against at most
//! one and a half such times, and one retry, after the first request was passed on; and one that commits what others ask
//! of it, and never hears what is passed on, when these have filled a queue once.

use std::collections::btree_map::{BTreeMap, Entry};
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::types::message::{Reply, Request};
use crate::protocol::types::number::{ClientId, Monotonic, RequestNumber, SessionId};

/// The longest pause after which a client asks again for a short request.
pub(crate) const CLIENT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Requests that are remembered at the same time.
const FORWARDS_MAX: usize = 8192;
/// Bytes of the copies that are kept to pass them on again, beside a single one.
const COPIES_BYTES_MAX: usize = 1 << 20;

pub(crate) type ForwardKey = (ClientId, SessionId, RequestNumber);

fn key_of(request: &Request) -> ForwardKey {
    (request.client, request.session, request.number)
}

/// About the bytes that a copy takes in memory.
fn weight(copy: &Request) -> usize {
    copy.command.len() + size_of::<Request>()
}

/// A request that was passed on and is not answered yet.
#[derive(Clone, Debug)]
struct Forward {
    /// When it was passed on first.
    first: Monotonic,
    /// When it was passed on for the second time, because its client asked again, or by this replica alone; and the
    /// bytes in the log then.
    again: Option<(Monotonic, u64)>,
    /// When it was passed on last.
    last: Monotonic,
    /// When its client asked last.
    asked: Monotonic,
    /// What is passed on again; `None` where there was no room for it.
    copy: Option<Request>,
}

impl Forward {
    fn weight(&self) -> usize {
        self.copy.as_ref().map_or(0, weight)
    }

    fn is_overdue(&self, now: Monotonic, limit: Duration, work: &Work) -> bool {
        let Some((again, log_bytes)) = self.again else { return false };
        let has_waited = now.since(self.first) >= limit && now.since(again) >= limit / 2;
        let is_passed_over = work.log_bytes.saturating_sub(log_bytes) > work.queue_bytes_max;
        has_waited && (is_passed_over || now.since(work.committed_at) >= limit)
    }
}

/// What shows that the primary works through its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// When the commit number rose last.
    pub(crate) committed_at: Monotonic,
    /// Bytes in the log.
    pub(crate) log_bytes: u64,
    /// Bytes that the primary's queue may hold. Each replica is told its own number; that of the others is taken for
    /// the same.
    pub(crate) queue_bytes_max: u64,
}

/// Requests that were passed on to the primary and are not answered yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forwards {
    pending: BTreeMap<ForwardKey, Forward>,
    /// The weight of the copies in `pending`.
    copies_bytes: usize,
    /// When this replica last passed a request on of its own accord.
    asked_again_at: Option<Monotonic>,
}

impl Forwards {
    /// A client has asked, and its request was passed on, when the log had so many bytes.
    pub(crate) fn sent(&mut self, request: &Request, now: Monotonic, log_bytes: u64) {
        let has_place = self.pending.len() < FORWARDS_MAX;
        let forward = match self.pending.entry(key_of(request)) {
            Entry::Occupied(entry) => {
                let forward = entry.into_mut();
                forward.again.get_or_insert((now, log_bytes));
                (forward.last, forward.asked) = (now, now);
                forward
            }
            Entry::Vacant(entry) if has_place => {
                entry.insert(Forward { first: now, again: None, last: now, asked: now, copy: None })
            }
            Entry::Vacant(_) => return,
        };
        let bytes = weight(request);
        if forward.copy.is_none() && (self.copies_bytes == 0 || self.copies_bytes + bytes <= COPIES_BYTES_MAX) {
            let Request { client, session, number, floor, ref command } = *request;
            // Bytes of its own: a part of a read buffer would keep the whole buffer in memory.
            let command = Bytes::copy_from_slice(command);
            forward.copy = Some(Request { client, session, number, floor, command });
            self.copies_bytes += bytes;
        }
    }

    /// The primary has answered.
    pub(crate) fn answered(&mut self, reply: &Reply) {
        if let Some(forward) = self.pending.remove(&(reply.client, reply.session, reply.number)) {
            self.copies_bytes -= forward.weight();
        }
    }

    fn retain(&mut self, keep: impl Fn(&ForwardKey, &Forward) -> bool) {
        let Forwards { pending, copies_bytes, .. } = self;
        pending.retain(|key, forward| {
            let keep = keep(key, forward);
            if !keep {
                *copies_bytes -= forward.weight();
            }
            keep
        });
    }

    /// Drops those that the primary has prepared.
    pub(crate) fn forget(&mut self, is_prepared: impl Fn(&ForwardKey) -> bool) {
        self.retain(|key, _| !is_prepared(key));
    }

    /// Drops what is answered elsewhere, or was not asked for again within `timeout`: its client has gone.
    pub(crate) fn prune(&mut self, now: Monotonic, timeout: Duration, is_answered: impl Fn(&ForwardKey) -> bool) {
        self.retain(|key, forward| now.since(forward.asked) < timeout && !is_answered(key));
    }

    /// The request to pass on again: of those that have waited for half of `limit`, the one that was passed on longest
    /// ago. At most one in each `limit`.
    pub(crate) fn to_ask_again(&self, now: Monotonic, limit: Duration) -> Option<Request> {
        if self.asked_again_at.is_some_and(|at| now.since(at) < limit) {
            return None;
        }
        let due = self.pending.values().filter(|forward| now.since(forward.last) >= limit / 2);
        let copies = due.filter_map(|forward| forward.copy.as_ref().map(|copy| (forward.last, copy)));
        copies.min_by_key(|(last, _)| *last).map(|(_, copy)| copy.clone())
    }

    /// This replica has passed a request on again.
    pub(crate) fn asked_again(&mut self, request: &Request, now: Monotonic, log_bytes: u64) {
        self.asked_again_at = Some(now);
        if let Some(forward) = self.pending.get_mut(&key_of(request)) {
            forward.again.get_or_insert((now, log_bytes));
            forward.last = now;
        }
    }

    /// Whether one of them is a reason to vote, as far as time and the primary's work go.
    pub(crate) fn is_overdue(&self, now: Monotonic, limit: Duration, work: &Work) -> bool {
        self.pending.values().any(|forward| forward.is_overdue(now, limit, work))
    }

    /// Those that are still unanswered, in the order they were passed on first; none is kept.
    pub(crate) fn take(&mut self) -> Vec<ForwardKey> {
        let Forwards { pending, .. } = std::mem::take(self);
        let mut keys: Vec<_> = pending.into_iter().map(|(key, forward)| (forward.first, key)).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Bytes of copies, as counted, as they are, and at most beside a single one.
    pub(crate) fn copies_bytes(&self) -> (usize, usize, usize) {
        (self.copies_bytes, self.pending.values().map(Forward::weight).sum(), COPIES_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::checksum::Checksum;
    use crate::protocol::types::message::Outcome;
    use crate::protocol::types::number::Position;

    const LIMIT: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(5);
    /// Nothing was committed, ever.
    const IDLE: Work = Work { committed_at: Monotonic(0), log_bytes: 0, queue_bytes_max: 100 };

    fn at(millis: u64) -> Monotonic {
        Monotonic(millis * 1_000_000)
    }

    fn request(number: u64, bytes: usize) -> Request {
        Request {
            client: ClientId(7),
            session: SessionId::default(),
            number: RequestNumber(number),
            floor: RequestNumber(1),
            command: vec![0; bytes].into(),
        }
    }

    fn reply(number: u64) -> Reply {
        let Request { client, session, number, .. } = request(number, 0);
        let outcome = Outcome::ReplyLost;
        Reply { client, session, number, outcome, position: Position::default(), request: Checksum::default() }
    }

    /// Passes on what is due at a time, as a replica does. Says which.
    fn ask(forwards: &mut Forwards, millis: u64) -> Option<u64> {
        let request = forwards.to_ask_again(at(millis), LIMIT)?;
        forwards.asked_again(&request, at(millis), 0);
        Some(request.number.0)
    }

    #[test]
    fn time_alone_is_no_reason_and_the_first_question_is_none_either() {
        let mut forwards = Forwards::default();
        forwards.sent(&request(1, 8), at(0), 0);
        assert!(!forwards.is_overdue(at(4000), LIMIT, &IDLE), "it was passed on only once");
        assert_eq!((ask(&mut forwards, 499), ask(&mut forwards, 600)), (None, Some(1)));
        assert!(
            !forwards.is_overdue(at(1099), LIMIT, &IDLE),
            "the second question is younger than half of the time-out"
        );
        assert!(forwards.is_overdue(at(1100), LIMIT, &IDLE));
        forwards.answered(&reply(1));
        assert!(!forwards.is_overdue(at(1100), LIMIT, &IDLE));
    }

    #[test]
    fn a_client_that_asks_again_counts_as_a_second_question() {
        let mut forwards = Forwards::default();
        forwards.sent(&request(1, 8), at(0), 0);
        forwards.sent(&request(1, 8), at(100), 0);
        assert!(!forwards.is_overdue(at(999), LIMIT, &IDLE));
        assert!(forwards.is_overdue(at(1000), LIMIT, &IDLE));
    }

    #[test]
    fn a_primary_that_works_through_its_queue_is_given_the_time_that_a_full_one_takes() {
        let mut forwards = Forwards::default();
        forwards.sent(&request(1, 8), at(0), 10);
        forwards.sent(&request(1, 8), at(100), 40);
        let is_overdue = |millis, committed, log_bytes| {
            let work = Work { committed_at: at(committed), log_bytes, ..IDLE };
            forwards.is_overdue(at(millis), LIMIT, &work)
        };
        assert!(!is_overdue(2000, 1001, 41), "it has committed something within the time-out");
        assert!(is_overdue(2000, 1000, 41));
        assert!(!is_overdue(4000, 3999, 140), "as much as a queue holds may have stood before it");
        assert!(is_overdue(4000, 3999, 141));
        assert!(!is_overdue(999, 998, 1000), "time has to pass in any case");
        assert!(!is_overdue(4000, 3999, 0), "a log that was cut");
    }

    #[test]
    fn one_request_is_passed_on_again_in_each_time_out_and_each_has_its_turn() {
        let mut forwards = Forwards::default();
        for number in 1..=3 {
            forwards.sent(&request(number, 8), at(number), 0);
        }
        let asked: Vec<_> = (0..5000).filter_map(|now| ask(&mut forwards, now).map(|number| (now, number))).collect();
        assert_eq!(asked, [(501, 1), (1501, 2), (2501, 3), (3501, 1), (4501, 2)]);
    }

    #[test]
    fn a_client_that_has_gone_or_was_answered_elsewhere_is_forgotten() {
        let mut forwards = Forwards::default();
        (1..=3).for_each(|number| forwards.sent(&request(number, 8), at(number), 0));
        forwards.sent(&request(2, 8), at(4000), 0);
        forwards.prune(at(5002), PATIENCE, |(_, _, number)| number.0 == 3);
        assert_eq!(forwards.take().iter().map(|(_, _, number)| number.0).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn copies_are_bounded_in_bytes_and_a_question_is_no_ask_of_the_client() {
        let mut forwards = Forwards::default();
        let count = 2 * FORWARDS_MAX as u64;
        (1..=count).for_each(|number| forwards.sent(&request(number, 1000), at(number), 0));
        let (counted, held, bound) = forwards.copies_bytes();
        assert!(counted == held && held <= bound && held > bound / 2, "{counted} {held} {bound}");
        assert_eq!(forwards.pending.len(), FORWARDS_MAX);
        forwards.answered(&reply(1));
        forwards.prune(at(6000), PATIENCE, |(_, _, number)| number.0 % 2 == 0);
        let (counted, held, _) = forwards.copies_bytes();
        assert_eq!(counted, held);
        assert_eq!(forwards.take().len(), (1001..=FORWARDS_MAX as u64).filter(|number| number % 2 == 1).count());
        assert_eq!(forwards.copies_bytes(), (0, 0, COPIES_BYTES_MAX));
        forwards.sent(&request(1, 2 * COPIES_BYTES_MAX), at(0), 0);
        assert_eq!(ask(&mut forwards, 500), Some(1), "a single one is kept whatever its length");
        assert_eq!(ask(&mut forwards, 4999), Some(1));
        forwards.prune(at(5000), PATIENCE, |_| false);
        assert!(forwards.take().is_empty(), "its client asked at 0");
    }
}
