//! What has arrived and waits for the replica, or client.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures::task::AtomicWaker;
use tokio::sync::Notify;
use vsr::network::{NetworkError, NetworkEvent};
use vsr::protocol::Peer;

/// Arrivals of all connections. When too much waits, connections are not read: the other sides' queues fill
/// up and drop.
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    waker: AtomicWaker,
    room: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    arrivals: Vec<NetworkEvent>,
    bytes: usize,
}

/// Arrivals among which a hint's last word is looked for.
const LOOK_BACK: usize = 4096;

fn peer_of(arrival: &NetworkEvent) -> Peer {
    match *arrival {
        NetworkEvent::Message { from, .. } => from,
        NetworkEvent::PeerUp(peer) | NetworkEvent::PeerDown { peer, .. } => peer,
        NetworkEvent::Refused { by, .. } => Peer::Replica(by),
    }
}

impl Mailbox {
    pub(crate) fn new(bytes_max: usize) -> Mailbox {
        Mailbox { inner: Mutex::default(), waker: AtomicWaker::new(), room: Notify::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers messages of so many bytes; waits while too much is here.
    pub(crate) async fn deliver(&self, arrivals: &mut Vec<NetworkEvent>, bytes: usize) {
        loop {
            let room = self.room.notified();
            {
                let mut inner = self.lock();
                if inner.bytes < self.bytes_max {
                    inner.bytes += bytes;
                    inner.arrivals.append(arrivals);
                    break;
                }
            }
            room.await;
        }
        self.waker.wake();
    }

    /// Delivers a hint, unless it says of its peer what the last one that waits says: a replica that takes
    /// nothing is not told the same each time that a connection fails.
    pub(crate) fn hint(&self, arrival: NetworkEvent) {
        let mut inner = self.lock();
        let waiting = inner.arrivals.iter().rev().take(LOOK_BACK).find(|waiting| peer_of(waiting) == peer_of(&arrival));
        if waiting == Some(&arrival) {
            return;
        }
        inner.arrivals.push(arrival);
        drop(inner);
        self.waker.wake();
    }

    pub(crate) async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
        let arrivals = std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            let mut inner = self.lock();
            if inner.arrivals.is_empty() {
                return Poll::Pending;
            }
            inner.bytes = 0;
            Poll::Ready(std::mem::take(&mut inner.arrivals))
        })
        .await;
        self.room.notify_waiters();
        Ok(arrivals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vsr::ReplicaId;

    #[test]
    fn b14_a_replica_that_takes_nothing_does_not_gather_the_same_hints() {
        let mailbox = Mailbox::new(1 << 20);
        let peers = [1, 2, 3].map(|id| Peer::Replica(ReplicaId(id)));
        for _ in 0..1000 {
            for peer in peers {
                mailbox.hint(NetworkEvent::PeerDown { peer, refused: true });
            }
        }
        assert_eq!(mailbox.lock().arrivals.len(), 3);
        mailbox.hint(NetworkEvent::PeerUp(peers[0]));
        mailbox.hint(NetworkEvent::PeerDown { peer: peers[0], refused: true });
        assert_eq!(mailbox.lock().arrivals.len(), 5, "what has changed is told");
    }
}
