//! Contracts of the traits as tests that any implementation can run: of a storage, a network and a clock by their clauses, of a
//! state machine by what [`determinism`] asks of it.

pub mod checkpoints;
pub mod clock;
pub mod determinism;
mod messages;
pub mod network;
pub mod storage;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::Poll;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};

/// How long what a contract promises may take: far longer than it does on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a future on this thread, for implementations that need no runtime around them.
///
/// # Panics
/// When it has not ended within [`PATIENCE`]: something that was promised did not happen.
#[allow(clippy::disallowed_methods, reason = "nothing under test may be what notices that a test hangs")]
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let (ring, alarm) = oneshot::channel();
    let (_ended, watch) = channel::<()>();
    std::thread::spawn(move || {
        if watch.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = ring.send(());
        }
    });
    match futures::executor::block_on(select(pin!(future), alarm)) {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("nothing has happened for {PATIENCE:?}"),
    }
}

/// Polls a future this often, then drops it.
async fn poll_few<T>(future: impl Future<Output = T>, times: u64) -> Option<T> {
    let mut future = pin!(future);
    for time in 0..times {
        if time > 0 {
            yield_now().await;
        }
        if let Poll::Ready(output) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
            return Some(output);
        }
    }
    None
}

/// Lets everything else that the executor has to do go first.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
