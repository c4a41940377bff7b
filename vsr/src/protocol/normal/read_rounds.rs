//! Queries on their way to an index at which they may be served (rules 8.1, 8.2).
//!
//! At the primary: a query arrives, a round begins with everything that has arrived, so many members confirm it, and the
//! query waits until its index is applied. At a backup: it arrives, an ask leaves for everything that has arrived, and is
//! answered with an index. When the view is left, whatever has no index that is committed arrives anew.
//!
//! Invariant: each query is in one place at a time, and none is lost. Those that a peer asks for are the peer's.

use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::types::number::{Monotonic, OpNumber, ReplicaId};

/// Rounds, or asks, under way at the same time; what arrives meanwhile waits for the next one.
const ROUNDS_MAX: usize = 8;

/// Who waits for an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadWaiter {
    /// A query of this replica, by its token.
    Query(u64),
    /// A peer that runs a round through this primary, with the nonce of its ask.
    Peer(ReplicaId, u64),
}

#[derive(Clone, Debug)]
struct Round {
    number: u64,
    index: OpNumber,
    waiters: Vec<ReadWaiter>,
}

#[derive(Clone, Debug)]
struct PendingReadIndex {
    nonce: u64,
    sent_at: Monotonic,
    queries: Vec<u64>,
}

/// The index that a peer asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confirmed {
    pub(crate) peer: ReplicaId,
    pub(crate) nonce: u64,
    pub(crate) index: OpNumber,
}

/// Queries on their way to an index at which they may be served.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadRounds {
    /// Arrived, and in no round yet.
    queued: Vec<ReadWaiter>,
    /// Rounds of this primary that are not confirmed yet. Each serves only what had arrived before it
    /// was sent (schedule B-20).
    rounds: VecDeque<Round>,
    asks: VecDeque<PendingReadIndex>,
    /// Confirmed: to be served once this op is applied.
    confirmed: Vec<(OpNumber, u64)>,
    /// The head that the view inherited: until it is applied, a new primary may not know of everything
    /// that was acknowledged (hazard D20).
    pub(crate) inherited_head: OpNumber,
}

impl ReadRounds {
    /// A query of this replica.
    pub(crate) fn arrive(&mut self, token: u64) {
        self.queued.push(ReadWaiter::Query(token));
    }

    /// A peer asks. Asked again: any round that begins from now on answers both.
    pub(crate) fn arrive_from(&mut self, peer: ReplicaId, nonce: u64) {
        let waiter = ReadWaiter::Peer(peer, nonce);
        if !self.queued.contains(&waiter) {
            self.queued.push(waiter);
        }
    }

    pub(crate) fn has_arrivals(&self) -> bool {
        !self.queued.is_empty()
    }

    pub(crate) fn has_place_for_a_round(&self) -> bool {
        self.rounds.len() < ROUNDS_MAX
    }

    pub(crate) fn has_place_for_an_ask(&self) -> bool {
        self.asks.len() < ROUNDS_MAX
    }

    /// The `Commit` of this number was sent after everything that has arrived.
    pub(crate) fn begin_round(&mut self, number: u64, index: OpNumber) {
        let waiters = std::mem::take(&mut self.queued);
        self.rounds.push_back(Round { number, index, waiters });
    }

    /// Whether a round waits for confirmations.
    pub(crate) fn has_rounds(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Rounds up to this number are confirmed by a quorum: the peers that are to be told.
    pub(crate) fn confirm(&mut self, number: u64) -> Vec<Confirmed> {
        let mut told = Vec::new();
        while self.rounds.front().is_some_and(|round| round.number <= number) {
            let Some(Round { index, waiters, .. }) = self.rounds.pop_front() else { break };
            for waiter in waiters {
                match waiter {
                    ReadWaiter::Query(token) => self.confirmed.push((index, token)),
                    ReadWaiter::Peer(peer, nonce) => told.push(Confirmed { peer, nonce, index }),
                }
            }
        }
        told
    }

    /// An ask for everything that has arrived. Whether there is anything to ask for: peers ask the primary themselves.
    pub(crate) fn begin_ask(&mut self, nonce: u64, now: Monotonic) -> bool {
        let queries = self.queued.drain(..).filter_map(|waiter| match waiter {
            ReadWaiter::Query(token) => Some(token),
            ReadWaiter::Peer(..) => None,
        });
        let ask = PendingReadIndex { nonce, sent_at: now, queries: queries.collect() };
        let is_one = !ask.queries.is_empty();
        if is_one {
            self.asks.push_back(ask);
        }
        is_one
    }

    /// An ask is answered: its queries are confirmed. Returns whether an ask of this nonce waits.
    pub(crate) fn answer_ask(&mut self, nonce: u64, index: OpNumber) -> bool {
        let Some(at) = self.asks.iter().position(|ask| ask.nonce == nonce) else { return false };
        if let Some(ask) = self.asks.remove(at) {
            self.confirmed.extend(ask.queries.into_iter().map(|token| (index, token)));
        }
        true
    }

    /// Asks that were not answered within `timeout` are asked again, with the same nonce: a round that began after the
    /// first time serves them as well, however long the answer takes.
    pub(crate) fn ask_again(&mut self, now: Monotonic, timeout: Duration) -> Vec<u64> {
        let mut again = Vec::new();
        for ask in &mut self.asks {
            if now.since(ask.sent_at) >= timeout {
                ask.sent_at = now;
                again.push(ask.nonce);
            }
        }
        again
    }

    /// The view is left: no round of it counts any more, and every query starts again. So does one with an index above
    /// the commit number: that op may be dropped with the view, if it was only inherited.
    pub(crate) fn restart(&mut self, commit: OpNumber) {
        let rounds = std::mem::take(&mut self.rounds);
        let waiters = rounds.into_iter().flat_map(|round| round.waiters);
        let own = waiters.filter(|waiter| matches!(waiter, ReadWaiter::Query(_)));
        self.queued.retain(|waiter| matches!(waiter, ReadWaiter::Query(_)));
        self.queued.extend(own);
        let lost = self.confirmed.extract_if(.., |(index, _)| *index > commit);
        self.queued.extend(lost.map(|(_, token)| ReadWaiter::Query(token)));
        let asks = std::mem::take(&mut self.asks);
        self.queued.extend(asks.into_iter().flat_map(|ask| ask.queries).map(ReadWaiter::Query));
    }

    /// Moves the queries whose index is applied to the end of `ready`.
    pub(crate) fn take_ready(&mut self, applied: OpNumber, ready: &mut Vec<u64>) {
        self.confirmed.retain(|&(index, token)| {
            let serve = index <= applied;
            if serve {
                ready.push(token);
            }
            !serve
        });
    }

    /// Queries and peers that wait, wherever they are.
    pub(crate) fn waiting(&self) -> usize {
        self.queued.len()
            + self.confirmed.len()
            + self.rounds.iter().map(|round| round.waiters.len()).sum::<usize>()
            + self.asks.iter().map(|ask| ask.queries.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protocol::types::random::Random;

    const PEER: ReplicaId = ReplicaId(2);

    fn ready(reads: &mut ReadRounds, applied: u64) -> Vec<u64> {
        let mut ready = Vec::new();
        reads.take_ready(OpNumber(applied), &mut ready);
        ready
    }

    /// Schedule B-20.
    #[test]
    fn a_round_serves_what_had_arrived_before_it_and_nothing_later() {
        let mut reads = ReadRounds::default();
        reads.arrive(1);
        reads.arrive_from(PEER, 77);
        reads.begin_round(5, OpNumber(3));
        reads.arrive(2);
        assert!(reads.confirm(4).is_empty());
        assert!(ready(&mut reads, 9).is_empty());
        assert_eq!(reads.confirm(5), [Confirmed { peer: PEER, nonce: 77, index: OpNumber(3) }]);
        assert!(ready(&mut reads, 2).is_empty(), "its index is not applied");
        assert_eq!(ready(&mut reads, 3), [1]);
        assert!(reads.has_arrivals() && !reads.has_rounds());
    }

    #[test]
    fn a_late_confirmation_confirms_every_round_up_to_its_number() {
        let mut reads = ReadRounds::default();
        for number in 1..=3 {
            reads.arrive(number);
            reads.begin_round(number, OpNumber(number));
        }
        assert!(reads.confirm(2).is_empty());
        assert_eq!(ready(&mut reads, 9), [1, 2]);
        assert!(reads.has_rounds());
    }

    /// Schedule B-21.
    #[test]
    fn an_index_serves_the_ask_that_it_answers() {
        let mut reads = ReadRounds::default();
        reads.arrive(1);
        assert!(reads.begin_ask(10, Monotonic(0)));
        reads.arrive(2);
        assert!(reads.begin_ask(20, Monotonic(5)));
        assert!(!reads.begin_ask(30, Monotonic(5)), "nothing has arrived");
        assert_eq!(reads.ask_again(Monotonic(8), Duration::from_nanos(8)), [10]);
        assert_eq!(reads.ask_again(Monotonic(13), Duration::from_nanos(8)), [20]);
        assert!(!reads.answer_ask(30, OpNumber(1)));
        assert!(reads.answer_ask(20, OpNumber(1)));
        assert_eq!(ready(&mut reads, 1), [2]);
        assert!(!reads.answer_ask(20, OpNumber(1)), "it is answered once");
    }

    #[test]
    fn what_a_peer_asks_twice_is_answered_once_and_not_asked_for_it() {
        let mut reads = ReadRounds::default();
        reads.arrive_from(PEER, 7);
        reads.arrive_from(PEER, 7);
        assert_eq!(reads.waiting(), 1);
        assert!(!reads.begin_ask(1, Monotonic(0)), "it asks the primary itself");
        assert_eq!(reads.waiting(), 0);
    }

    #[test]
    fn when_a_view_is_left_only_an_index_that_is_committed_counts() {
        let mut reads = ReadRounds::default();
        for (token, index) in [(1, 4), (2, 6)] {
            reads.arrive(token);
            reads.begin_round(token, OpNumber(index));
        }
        assert!(reads.confirm(2).is_empty());
        reads.arrive(3);
        reads.begin_round(3, OpNumber(6));
        reads.arrive_from(PEER, 9);
        reads.restart(OpNumber(5));
        assert!(reads.confirm(u64::MAX).is_empty(), "no round of the view is left, nor a peer that asked in it");
        assert_eq!(ready(&mut reads, 9), [1]);
        reads.begin_round(1, OpNumber(0));
        reads.confirm(1);
        let again: BTreeSet<u64> = ready(&mut reads, 9).into_iter().collect();
        assert_eq!(again, BTreeSet::from([2, 3]));
    }

    /// Whatever happens in whatever order: each query comes out once, or waits; and none before its index is applied.
    #[test]
    fn no_query_is_lost_or_served_twice() {
        let mut random = Random::new(17);
        for _ in 0..500 {
            let (mut reads, mut served, mut arrived) = (ReadRounds::default(), Vec::new(), 0);
            let (mut number, mut nonces) = (0, Vec::new());
            for now in 0..100 {
                let op = OpNumber(random.below(10));
                match random.below(6) {
                    0 => {
                        reads.arrive(arrived);
                        arrived += 1;
                    }
                    1 if reads.has_place_for_a_round() => {
                        number += 1;
                        reads.begin_round(number, op);
                    }
                    2 if reads.has_place_for_an_ask() && reads.begin_ask(now, Monotonic(now)) => nonces.push(now),
                    3 => assert!(reads.confirm(random.below(number + 1)).is_empty()),
                    4 if !nonces.is_empty() => {
                        reads.answer_ask(nonces.remove(random.below(nonces.len() as u64) as usize), op);
                    }
                    5 => {
                        if random.chance(1, 4) {
                            reads.restart(op);
                        }
                        reads.take_ready(op, &mut served);
                    }
                    _ => {}
                }
                assert_eq!(served.len() + reads.waiting(), arrived as usize);
            }
            reads.restart(OpNumber::ZERO);
            reads.begin_round(number + 1, OpNumber(10));
            reads.confirm(number + 1);
            reads.take_ready(OpNumber(10), &mut served);
            served.sort_unstable();
            assert_eq!(served, (0..arrived).collect::<Vec<_>>());
        }
    }
}
