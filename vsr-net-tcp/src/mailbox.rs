//! What has arrived and waits for the replica, or client.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures::task::AtomicWaker;
use tokio::sync::Notify;
use vsr::{Arrival, NetworkError};

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
    arrivals: Vec<Arrival>,
    bytes: usize,
}

impl Mailbox {
    pub(crate) fn new(bytes_max: usize) -> Mailbox {
        Mailbox { inner: Mutex::default(), waker: AtomicWaker::new(), room: Notify::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers messages of so many bytes; waits while too much is here.
    pub(crate) async fn deliver(&self, arrivals: &mut Vec<Arrival>, bytes: usize) {
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

    /// Delivers a hint; there are few of them.
    pub(crate) fn hint(&self, arrival: Arrival) {
        self.lock().arrivals.push(arrival);
        self.waker.wake();
    }

    pub(crate) async fn recv(&self) -> Result<Vec<Arrival>, NetworkError> {
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
