//! The one way out for messages: nothing leaves before what it says is durable (rule 6.4).

use std::collections::VecDeque;

use crate::protocol::types::message::{Envelope, Message, Peer};
use crate::protocol::types::number::BatchNumber;

/// A message bound to the batch that makes it true.
#[derive(Clone, Debug)]
struct Bound {
    after: BatchNumber,
    envelope: Envelope,
}

/// Messages that wait for a write, and those that may go. As writes are ordered, "may it go?" is one
/// comparison of batch numbers.
///
/// While a disk hangs, what waits has a bound: a message that says all that an earlier one said takes its place, and what
/// is over [`WAITING_BYTES_MAX`] is dropped, as a network may; everything is said again until it is answered (rule 6.10).
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Bound>,
    /// The weight of `waiting`.
    waiting_bytes: usize,
    ready: Vec<Envelope>,
}

/// Messages that may wait for one write, beside one of each kind to each member.
const WAITING_MAX: usize = 256;
/// Bytes of messages that may wait for one write, beside one of each kind to each member.
pub(crate) const WAITING_BYTES_MAX: usize = 8 << 20;

impl Outbox {
    /// Binds a message to a batch. `completed` is the last durable one. Whether it was kept.
    pub(crate) fn send(&mut self, after: BatchNumber, completed: BatchNumber, to: Peer, message: Message) -> bool {
        if after <= completed {
            self.ready.push(Envelope { to, message });
            return true;
        }
        let weight = message.weight();
        if message.is_superseded_by_the_next() {
            let kind = std::mem::discriminant(&message);
            let older =
                |bound: &Bound| bound.envelope.to == to && std::mem::discriminant(&bound.envelope.message) == kind;
            if let Some(at) = self.waiting.iter().position(older)
                && let Some(older) = self.waiting.remove(at)
            {
                self.waiting_bytes -= older.envelope.message.weight();
            }
        } else if self.waiting.len() >= WAITING_MAX
            || (self.waiting_bytes > 0 && self.waiting_bytes + weight > WAITING_BYTES_MAX)
        {
            return false;
        }
        self.waiting_bytes += weight;
        self.waiting.push_back(Bound { after, envelope: Envelope { to, message } });
        true
    }

    /// Bytes of messages that wait, as counted, and as they are.
    pub(crate) fn waiting_bytes(&self) -> (usize, usize) {
        (self.waiting_bytes, self.waiting.iter().map(|bound| bound.envelope.message.weight()).sum())
    }

    /// A batch is durable: what waited for it may go.
    pub(crate) fn release(&mut self, completed: BatchNumber) {
        for _ in 0..self.waiting.len() {
            let Some(bound) = self.waiting.pop_front() else { break };
            if bound.after <= completed {
                self.waiting_bytes -= bound.envelope.message.weight();
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
        self.waiting_bytes = 0;
    }

    /// A log was chosen or taken over: a `DoViewChange` that still waits names the log before it, and is not needed any more.
    pub(crate) fn withdraw_do_view_changes(&mut self) {
        self.withdraw(|message| matches!(message, Message::DoViewChange(_)));
    }

    /// This replica lacks what others have dropped: it takes back what it has acknowledged and not said yet.
    pub(crate) fn withdraw_acknowledgements(&mut self) {
        self.withdraw(|message| matches!(message, Message::PrepareOk { .. } | Message::CommitOk { .. }));
    }

    fn withdraw(&mut self, is_withdrawn: impl Fn(&Message) -> bool) {
        let Outbox { waiting, waiting_bytes, .. } = self;
        waiting.retain(|Bound { envelope: Envelope { message, .. }, .. }| {
            let stays = !is_withdrawn(message);
            *waiting_bytes -= if stays { 0 } else { message.weight() };
            stays
        });
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::types::life::Life;
    use crate::protocol::types::number::{ReplicaId, View};

    fn vote(number: u64) -> Message {
        Message::StartViewChange { leaving: View { number, ..View::default() }, life: Life::default() }
    }

    fn replies(bytes: usize) -> Message {
        let message = Message::Status { nonce: 1, status: vec![0; bytes].into() };
        assert!(!message.is_superseded_by_the_next());
        message
    }

    #[test]
    fn what_waits_for_a_hung_disk_has_a_bound_and_the_newest_vote_is_kept() {
        let (mut outbox, to) = (Outbox::default(), |id| Peer::Replica(ReplicaId(id)));
        for number in 0..10_000 {
            outbox.send(BatchNumber(1), BatchNumber(0), to(number as u8 % 2), vote(number));
            outbox.send(BatchNumber(1), BatchNumber(0), to(0), replies(1 << 16));
        }
        let (counted, real) = outbox.waiting_bytes();
        assert_eq!(counted, real);
        assert!(real <= WAITING_BYTES_MAX + 4096, "{real}");
        outbox.release(BatchNumber(1));
        let votes: Vec<_> =
            outbox.ready().drain(..).filter(|envelope| envelope.message.name() == "StartViewChange").collect();
        let expected = [(to(0), vote(9998)), (to(1), vote(9999))].map(|(to, message)| Envelope { to, message });
        assert_eq!(votes, expected);
        assert_eq!(outbox.waiting_bytes(), (0, 0));
    }

    #[test]
    fn a_message_larger_than_the_bound_is_kept_when_nothing_else_waits() {
        let mut outbox = Outbox::default();
        let peer = Peer::Replica(ReplicaId(0));
        assert!(outbox.send(BatchNumber(1), BatchNumber(0), peer, replies(WAITING_BYTES_MAX * 2)));
        assert!(!outbox.send(BatchNumber(1), BatchNumber(0), peer, replies(1)));
        outbox.discard_waiting();
        assert_eq!(outbox.waiting_bytes(), (0, 0));
    }

    const TO: Peer = Peer::Replica(ReplicaId(0));

    fn status(nonce: u64) -> Message {
        Message::Status { nonce, status: Bytes::new() }
    }

    fn ready(outbox: &mut Outbox) -> Vec<Message> {
        outbox.ready().drain(..).map(|envelope| envelope.message).collect()
    }

    /// Rule 6.4.
    #[test]
    fn a_message_leaves_when_its_write_is_durable_and_not_before() {
        let mut outbox = Outbox::default();
        outbox.send(BatchNumber(1), BatchNumber(1), TO, status(1));
        assert_eq!(ready(&mut outbox), [status(1)], "its write is done");
        outbox.send(BatchNumber(3), BatchNumber(1), TO, status(2));
        outbox.release(BatchNumber(2));
        assert!(ready(&mut outbox).is_empty());
        assert_eq!((outbox.overdue(BatchNumber(2)), outbox.overdue(BatchNumber(3))), (0, 1));
        outbox.release(BatchNumber(3));
        assert_eq!(ready(&mut outbox), [status(2)]);
    }

    #[test]
    fn what_a_write_releases_leaves_in_the_order_in_which_it_was_sent() {
        let mut outbox = Outbox::default();
        for (nonce, after) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1)] {
            outbox.send(BatchNumber(after), BatchNumber(0), TO, status(nonce));
        }
        outbox.release(BatchNumber(1));
        assert_eq!(ready(&mut outbox), [status(1), status(3), status(5)]);
        outbox.release(BatchNumber(2));
        assert_eq!(ready(&mut outbox), [status(2), status(4)]);
    }

    /// Rule 6.10: a newer one of a kind says more, and may need a later write.
    #[test]
    fn a_newer_message_takes_the_place_of_one_of_its_kind_to_the_same_member() {
        let (mut outbox, other) = (Outbox::default(), Peer::Replica(ReplicaId(1)));
        let ask = Message::RequestStartView { view: View::default(), nonce: 1 };
        outbox.send(BatchNumber(1), BatchNumber(0), TO, vote(1));
        outbox.send(BatchNumber(1), BatchNumber(0), other, vote(1));
        outbox.send(BatchNumber(1), BatchNumber(0), TO, ask.clone());
        outbox.send(BatchNumber(2), BatchNumber(0), TO, vote(2));
        outbox.release(BatchNumber(1));
        let left: Vec<Envelope> = outbox.ready().drain(..).collect();
        assert_eq!(left, [Envelope { to: other, message: vote(1) }, Envelope { to: TO, message: ask }]);
        outbox.release(BatchNumber(2));
        assert_eq!(ready(&mut outbox), [vote(2)]);
        assert_eq!(outbox.waiting_bytes(), (0, 0));
    }

    /// Rule 7.1: after the `DoViewChange` of the next view nothing may leave that was said as a member of the old one.
    #[test]
    fn what_waits_when_the_view_is_left_never_leaves() {
        let mut outbox = Outbox::default();
        outbox.send(BatchNumber(1), BatchNumber(1), TO, status(1));
        outbox.send(BatchNumber(2), BatchNumber(1), TO, status(2));
        outbox.discard_waiting();
        outbox.release(BatchNumber(9));
        assert_eq!(ready(&mut outbox), [status(1)], "what is true already may leave");
    }
}
