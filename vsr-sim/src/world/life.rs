//! One life of a node, and what all its adapters need: to wait, and to fail.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::poll_fn;
use vsr::storage::StorageError;

use super::{Flag, Planned, Shared, lock};

/// One life of a node: its end of the network, its disk, its clock.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) world: Shared,
    pub(crate) node: usize,
    pub(crate) life: u64,
    pub(crate) flag: Arc<Flag>,
}

impl Life {
    /// Lets the time pass up to a moment of the world.
    pub(crate) async fn until(&self, due: u64) {
        until(self, due).await;
    }
}

/// As [`Life::until`].
pub(crate) async fn until(life: &Life, due: u64) {
    let mut planned = false;
    poll_fn(|context: &mut Context<'_>| {
        let mut world = lock(&life.world);
        if world.now >= due {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut planned, true) {
            world.plan(due, Planned::Wake { waker: context.waker().clone() });
        }
        Poll::Pending
    })
    .await;
}

pub(crate) fn io_error(doing: &str) -> StorageError {
    StorageError::io(doing, "an injected error")
}
