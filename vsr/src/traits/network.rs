//! The transport of a replica: the trait, and what it reports.

use std::error::Error;

use async_trait::async_trait;

use crate::cause::Cause;
use crate::protocol::{DiskId, Envelope, Message, Peer, ReplicaId};

/// Carries messages between replicas and clients.
///
/// # The contract
/// Each clause has a test of its number in the conformance suite (`vsr_sim::conformance::network`).
///
/// 1. **Sending never waits** and never fails: [`send`](Self::send) queues, or drops, whatever state the
///    receivers are in. It empties the batch, and may be called on any thread.
/// 2. **[`recv`](Self::recv) is cancel-safe**: dropping its future loses nothing, polled or not.
/// 3. **Nothing is invented.** Messages may be lost, delayed, repeated and reordered; they are never
///    changed, go only to the receiver that they name, and are never attributed to any peer but
///    their sender. Every message that the constants of the cluster allow is carried. What is sent again
///    and again to a peer that is there arrives.
/// 4. **Strangers do no harm.** What does not decode, or comes from another cluster, is dropped and
///    counted; what others send is not affected.
/// 5. **Memory is bounded**: a peer that does not take its messages loses the newest ones.
/// 6. **Hints.** A broken connection is reported as [`NetworkEvent::PeerDown`], its end as
///    [`NetworkEvent::PeerUp`], where there are connections; that a peer refuses this end as
///    [`NetworkEvent::Refused`]. Hints may be wrong: no rule of safety depends on them.
/// 7. **Reconnects.** A peer that comes back, also one that was restarted, is reached again without a call by the replica.
/// 8. **Clients are answered**: what a replica sends to a client that has reached it goes there for as
///    long as the client lives.
/// 9. **A message to an unknown peer does no harm.** It is dropped, as one to a peer that was never there;
///    the rest of the batch is sent.
/// 10. **What is too large is dropped alone.** A message over the transport's limit breaks no connection
///     and takes no other message with it.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Sends every message of the batch, in order, and leaves it empty.
    fn send(&self, batch: &mut Vec<Envelope>);

    /// Waits for at least one event, and returns those that have arrived.
    ///
    /// # Errors
    /// When the transport cannot go on: the replica stops with the error.
    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError>;

    /// Sets the identity of the replica that uses this transport. Called once, before anything is sent. Transports show it to
    /// their peers, so that a copied or replaced disk under a known replica id is noticed (rule 7.7).
    fn set_identity(&self, _identity: Identity) {}

    /// Closes the transport: it sends and receives nothing more, and when this returns its address is free. Called
    /// once, at the orderly end of a replica, before the transport is dropped.
    async fn close(&self) {}
}

/// The identity of a replica for its peers: its disk, and the start on that disk. Later versions have more fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Identity {
    /// The id of the disk, drawn at random when it was formatted.
    pub disk_id: DiskId,
    /// How often the replica was started on it, this start included.
    pub starts: u64,
}

impl Identity {
    /// This start of a replica on this disk.
    #[must_use]
    pub fn new(disk_id: DiskId, starts: u64) -> Identity {
        Identity { disk_id, starts }
    }
}

/// An event of a transport: a message, or a hint about a connection.
///
/// Not `non_exhaustive`: a transport that wraps another one has to pass on every kind, also one that a later version adds.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkEvent {
    /// A message, from a sender that the transport vouches for.
    Message {
        /// The sender.
        from: Peer,
        /// The content.
        message: Message,
    },
    /// There is a connection to this peer now.
    PeerUp(Peer),
    /// The connection to this peer broke. Or the peer refused this replica, and does not answer any more.
    PeerDown {
        /// The peer.
        peer: Peer,
        /// A reconnect was refused: most likely its process is gone.
        refused: bool,
    },
    /// This peer runs and refuses this replica: an operator has to act. Reported when it begins and when
    /// the reason changes, to a client at each attempt; over with the next [`PeerUp`](Self::PeerUp) or [`PeerDown`](Self::PeerDown) of
    /// the peer.
    Refused {
        /// The peer that refuses.
        by: ReplicaId,
        /// Its reason, and what can be done, in words.
        why: String,
    },
}

/// The transport cannot go on. The replica stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network has stopped: {0}")]
pub struct NetworkError(#[source] Cause);

impl NetworkError {
    /// A network that has stopped for this cause: an error, or words.
    #[must_use]
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> NetworkError {
        NetworkError(Cause::new(cause))
    }
}

#[async_trait]
impl<T: Network + ?Sized> Network for std::sync::Arc<T> {
    fn send(&self, batch: &mut Vec<Envelope>) {
        (**self).send(batch);
    }
    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
        (**self).recv().await
    }
    fn set_identity(&self, identity: Identity) {
        (**self).set_identity(identity);
    }
    async fn close(&self) {
        (**self).close().await;
    }
}

#[async_trait]
impl<T: Network + ?Sized> Network for Box<T> {
    fn send(&self, batch: &mut Vec<Envelope>) {
        (**self).send(batch);
    }
    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
        (**self).recv().await
    }
    fn set_identity(&self, identity: Identity) {
        (**self).set_identity(identity);
    }
    async fn close(&self) {
        (**self).close().await;
    }
}
