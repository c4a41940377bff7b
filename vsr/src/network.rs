//! What the replica asks of a transport.

use async_trait::async_trait;

use crate::protocol::{Envelope, Incarnation, Message, Peer};

/// Carries messages between replicas and clients.
///
/// # The contract
/// 1. [`send`](Self::send) never waits and never fails: it queues, or drops. It empties the batch.
/// 2. [`recv`](Self::recv) is cancel-safe: dropping its future loses nothing.
/// 3. Messages may be lost, delayed, repeated and reordered; they are never changed and never
///    attributed to anybody but their sender.
/// 4. What does not decode, or comes from another cluster, is dropped and counted.
/// 5. Memory is bounded: a peer that does not take its messages loses the newest ones.
/// 6. A broken connection is reported as [`Arrival::PeerDown`], its end as [`Arrival::PeerUp`]. These
///    are hints.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Sends every message of the batch, in order, and leaves it empty.
    fn send(&self, batch: &mut Vec<Envelope>);

    /// The next arrivals; waits for at least one.
    async fn recv(&self) -> Result<Vec<Arrival>, NetworkError>;

    /// Who speaks through this end, called once before anything is sent. Transports show it to their
    /// peers, so that a copied or replaced disk under a known replica id is noticed (DESIGN 7.7).
    fn introduce(&self, _identity: Identity) {}
}

/// Which life of which disk speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Given at random when the disk was formatted.
    pub incarnation: Incarnation,
    /// How often the replica was started on it, this start included.
    pub starts: u64,
}

/// What a transport reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// A message, from a sender that the transport vouches for.
    Message {
        /// The sender.
        from: Peer,
        /// The content.
        message: Message,
    },
    /// There is a connection to this peer now.
    PeerUp(Peer),
    /// The connection to this peer broke.
    PeerDown {
        /// The peer.
        peer: Peer,
        /// A reconnect was refused: most likely its process is gone.
        refused: bool,
    },
}

/// The transport cannot go on. The replica stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network has stopped: {0}")]
pub struct NetworkError(pub String);

#[async_trait]
impl<T: Network + ?Sized> Network for std::sync::Arc<T> {
    fn send(&self, batch: &mut Vec<Envelope>) {
        (**self).send(batch);
    }
    async fn recv(&self) -> Result<Vec<Arrival>, NetworkError> {
        (**self).recv().await
    }
    fn introduce(&self, identity: Identity) {
        (**self).introduce(identity);
    }
}

#[async_trait]
impl<T: Network + ?Sized> Network for Box<T> {
    fn send(&self, batch: &mut Vec<Envelope>) {
        (**self).send(batch);
    }
    async fn recv(&self) -> Result<Vec<Arrival>, NetworkError> {
        (**self).recv().await
    }
    fn introduce(&self, identity: Identity) {
        (**self).introduce(identity);
    }
}
