//! The one way out for messages: nothing leaves before what it says is durable (DESIGN 6.4).

use std::collections::VecDeque;

use super::message::{Envelope, Message, Peer};
use super::number::BatchNumber;

/// A message bound to the batch that makes it true.
#[derive(Clone, Debug)]
struct Bound {
    after: BatchNumber,
    envelope: Envelope,
}

/// Messages that wait for a write, and those that may go. As writes are ordered, "may it go?" is one
/// comparison of batch numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Bound>,
    ready: Vec<Envelope>,
}

impl Outbox {
    /// Binds a message to a batch. `completed` is the last durable one.
    pub(crate) fn send(&mut self, after: BatchNumber, completed: BatchNumber, to: Peer, message: Message) {
        let envelope = Envelope { to, message };
        if after <= completed {
            self.ready.push(envelope);
        } else {
            self.waiting.push_back(Bound { after, envelope });
        }
    }

    /// A batch is durable: what waited for it may go.
    pub(crate) fn release(&mut self, completed: BatchNumber) {
        for _ in 0..self.waiting.len() {
            let Some(bound) = self.waiting.pop_front() else { break };
            if bound.after <= completed {
                self.ready.push(bound.envelope);
            } else {
                self.waiting.push_back(bound);
            }
        }
    }

    /// The view is left: what still waits was said as a member of it, and must not leave after the
    /// `DoViewChange` that ends it.
    pub(crate) fn discard_waiting(&mut self) {
        self.waiting.clear();
    }

    /// What may be sent now, in order.
    pub(crate) fn ready(&mut self) -> &mut Vec<Envelope> {
        &mut self.ready
    }
}

impl Outbox {
    /// Messages that still wait though their batch is durable.
    pub(crate) fn overdue(&self, completed: BatchNumber) -> usize {
        self.waiting.iter().filter(|bound| bound.after <= completed).count()
    }
}
