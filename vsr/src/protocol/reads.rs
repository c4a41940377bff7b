//! Linearizable reads without a log entry: a round of confirmations (rules 8.1, 8.2).

use std::collections::VecDeque;

use super::core::Core;
use super::message::Message;
use super::number::{Monotonic, OpNumber, ReplicaId};

const ROUNDS_MAX: usize = 8;

/// Who waits for an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiter {
    /// A query of this replica, by its token.
    Query(u64),
    /// A peer that runs a round through this primary.
    Peer(ReplicaId, u64),
}

#[derive(Clone, Debug)]
struct Round {
    number: u64,
    index: OpNumber,
    waiters: Vec<Waiter>,
}

#[derive(Clone, Debug)]
struct Ask {
    nonce: u64,
    sent_at: Monotonic,
    queries: Vec<u64>,
}

/// Queries on their way to an index at which they may be served.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    /// Arrived, and in no round yet.
    arrived: Vec<Waiter>,
    /// Rounds of this primary that are not confirmed yet. Each serves only what had arrived before it
    /// was sent (schedule B-20).
    rounds: VecDeque<Round>,
    asks: VecDeque<Ask>,
    /// Confirmed: to be served once this op is applied.
    confirmed: Vec<(OpNumber, u64)>,
    /// The head that the view inherited: until it is applied, a new primary may not know of everything
    /// that was acknowledged (hazard D20).
    pub(crate) inherited_head: OpNumber,
}

impl Core {
    /// A query has arrived; the token comes back from [`take_ready_queries`](Self::take_ready_queries)
    /// when it may be served from the state machine as it then is.
    pub fn query(&mut self, token: u64) {
        self.reads.arrived.push(Waiter::Query(token));
    }

    /// Queries that may be served now.
    pub fn take_ready_queries(&mut self) -> Vec<u64> {
        if self.reads.confirmed.is_empty() || self.fault.is_some() {
            return Vec::new();
        }
        let applied = self.applied;
        let mut ready = Vec::new();
        self.reads.confirmed.retain(|&(index, token)| {
            let serve = index <= applied;
            if serve {
                ready.push(token);
            }
            !serve
        });
        ready
    }

    /// Starts a round for everything that has arrived, or asks the primary for one.
    pub(crate) fn flush_reads(&mut self) {
        if self.reads.arrived.is_empty() {
            return;
        }
        if self.is_primary() {
            if self.reads.rounds.len() < ROUNDS_MAX && !self.is_abdicating() {
                let index = self.commit.op().max(self.reads.inherited_head);
                let waiters = std::mem::take(&mut self.reads.arrived);
                self.send_commit();
                let number = self.primary.commit_number;
                self.reads.rounds.push_back(Round { number, index, waiters });
                self.on_round_confirmed();
            }
        } else if self.status() == super::phase::Status::Normal
            && self.reads.asks.len() < ROUNDS_MAX
            && self.head_certain
        {
            let nonce = self.random.next_u64();
            let queries = self.reads.arrived.drain(..).filter_map(|waiter| match waiter {
                Waiter::Query(token) => Some(token),
                Waiter::Peer(..) => None,
            });
            let ask = Ask { nonce, sent_at: self.now, queries: queries.collect() };
            if !ask.queries.is_empty() {
                self.reads.asks.push_back(ask);
                self.send(self.primary_id(), Message::ReadIndex { nonce });
            }
        }
    }

    /// A peer wants an index that is confirmed from now on.
    pub(crate) fn on_read_index(&mut self, from: ReplicaId, nonce: u64) {
        if self.is_primary() {
            // Asked again: any round that begins from now on answers both.
            let waiter = Waiter::Peer(from, nonce);
            if !self.reads.arrived.contains(&waiter) {
                self.reads.arrived.push(waiter);
            }
        } else {
            self.ignore("ReadIndex", "not the primary");
        }
    }

    /// The primary was confirmed after the ask had left.
    pub(crate) fn on_read_index_ok(&mut self, nonce: u64, index: OpNumber) {
        let Some(at) = self.reads.asks.iter().position(|ask| ask.nonce == nonce) else {
            return self.ignore("ReadIndexOk", "no such ask");
        };
        if let Some(ask) = self.reads.asks.remove(at) {
            self.reads.confirmed.extend(ask.queries.into_iter().map(|token| (index, token)));
        }
    }

    /// A `Commit` was answered by one more member: rounds up to the confirmed one are done.
    pub(crate) fn on_round_confirmed(&mut self) {
        if self.reads.rounds.is_empty() {
            return;
        }
        let confirmed = self.confirmed_round();
        while self.reads.rounds.front().is_some_and(|round| round.number <= confirmed) {
            let Some(Round { index, waiters, .. }) = self.reads.rounds.pop_front() else { return };
            for waiter in waiters {
                match waiter {
                    Waiter::Query(token) => self.reads.confirmed.push((index, token)),
                    Waiter::Peer(peer, nonce) => {
                        self.send(peer, Message::ReadIndexOk { nonce, index });
                    }
                }
            }
        }
    }

    /// Asks that were not answered are asked again, with the same nonce: a round that began after the first
    /// time serves them as well, however long the answer takes.
    pub(crate) fn retry_reads(&mut self) {
        let (now, patience) = (self.now, self.options.timing.retry);
        let mut again = Vec::new();
        for ask in &mut self.reads.asks {
            if now.since(ask.sent_at) >= patience {
                ask.sent_at = now;
                again.push(ask.nonce);
            }
        }
        for nonce in again {
            self.send(self.primary_id(), Message::ReadIndex { nonce });
        }
    }

    /// The view is left: no round of it counts any more, and every query starts again.
    pub(crate) fn restart_reads(&mut self) {
        let rounds = std::mem::take(&mut self.reads.rounds);
        let waiters = rounds.into_iter().flat_map(|round| round.waiters);
        let own = waiters.filter(|waiter| matches!(waiter, Waiter::Query(_)));
        self.reads.arrived.retain(|waiter| matches!(waiter, Waiter::Query(_)));
        self.reads.arrived.extend(own);
        // An op up to a confirmed index may be dropped with the view, if it was only inherited.
        let commit = self.commit.op();
        let lost = self.reads.confirmed.extract_if(.., |(index, _)| *index > commit);
        self.reads.arrived.extend(lost.map(|(_, token)| Waiter::Query(token)));
        let asks = std::mem::take(&mut self.reads.asks);
        self.reads.arrived.extend(asks.into_iter().flat_map(|ask| ask.queries).map(Waiter::Query));
    }

    /// The number of queries that wait.
    #[must_use]
    pub fn waiting_queries(&self) -> usize {
        self.reads.arrived.len()
            + self.reads.confirmed.len()
            + self.reads.rounds.iter().map(|round| round.waiters.len()).sum::<usize>()
            + self.reads.asks.iter().map(|ask| ask.queries.len()).sum::<usize>()
    }
}
