//! Linearizable reads without a log entry: a round of confirmations (rules 8.1, 8.2). What waits where is kept by
//! `read_rounds`.

use crate::protocol::core::Core;
use crate::protocol::types::message::Message;
use crate::protocol::types::number::{OpNumber, ReplicaId};
use crate::protocol::view_change::phase::Status;

impl Core {
    /// A query has arrived; the token comes back from [`take_ready_queries`](Self::take_ready_queries)
    /// when it may be served from the state machine as it then is.
    pub(crate) fn query(&mut self, token: u64) {
        self.reads.arrive(token);
    }

    /// Queries that may be served now.
    pub(crate) fn take_ready_queries(&mut self, ready: &mut Vec<u64>) {
        self.reads.take_ready(self.applied, ready);
    }

    /// Starts a round for everything that has arrived, or asks the primary for one.
    pub(crate) fn flush_reads(&mut self) {
        if !self.reads.has_arrivals() {
            return;
        }
        if self.is_primary() {
            if self.reads.has_place_for_a_round() && !self.is_abdicating() {
                let index = self.commit.op().max(self.reads.inherited_head);
                self.send_commit();
                self.reads.begin_round(self.primary.commit_number, index);
                self.on_round_confirmed();
            }
        } else if self.status() == Status::Normal && self.reads.has_place_for_an_ask() && self.head_certain {
            let nonce = self.random.next_u64();
            if self.reads.begin_ask(nonce, self.now) {
                self.send(self.primary_id(), Message::ReadIndex { nonce });
            }
        }
    }

    /// A peer wants an index that is confirmed from now on.
    pub(crate) fn on_read_index(&mut self, from: ReplicaId, nonce: u64) {
        if self.is_primary() {
            self.reads.arrive_from(from, nonce);
        } else {
            self.ignore("ReadIndex", "not the primary");
        }
    }

    /// The primary was confirmed after the ask had left.
    pub(crate) fn on_read_index_ok(&mut self, nonce: u64, index: OpNumber) {
        if !self.reads.answer_ask(nonce, index) {
            self.ignore("ReadIndexOk", "no such ask");
        }
    }

    /// A `Commit` was answered by one more member: rounds up to the confirmed one are done.
    pub(crate) fn on_round_confirmed(&mut self) {
        if !self.reads.has_rounds() {
            return;
        }
        for confirmed in self.reads.confirm(self.confirmed_round()) {
            let message = Message::ReadIndexOk { nonce: confirmed.nonce, index: confirmed.index };
            self.send(confirmed.peer, message);
        }
    }

    /// Asks that were not answered are asked again.
    pub(crate) fn retry_reads(&mut self) {
        for nonce in self.reads.ask_again(self.now, self.options.timing.retry) {
            self.send(self.primary_id(), Message::ReadIndex { nonce });
        }
    }

    /// The view is left: every query starts again that is not bound to what is committed.
    pub(crate) fn restart_reads(&mut self) {
        self.reads.restart(self.commit.op());
    }

    /// The number of queries that wait.
    #[must_use]
    pub fn waiting_queries(&self) -> usize {
        self.reads.waiting()
    }
}
