//! The start of a replica: what its disk says, and how long that may take.

use std::task::Poll;

use super::full::{FULL_PAUSE, FULL_PAUSE_MAX};
use crate::client::inbox::Shared;
use crate::log;
use crate::protocol::Recovered;
use crate::traits::storage::{Storage, StorageError};

/// What the disk says, however long it takes to say it. One that has no room for what a start writes again is asked until there
/// is some. `None`: a shutdown was asked for.
pub(super) async fn recover<D: Storage>(storage: &D, shared: &Shared) -> Result<Option<Recovered>, StorageError> {
    let mut pause = FULL_PAUSE;
    loop {
        let words = "starting: the disk has not said yet what is on it";
        let Some(recovered) = unless_shut_down(storage.recover(), shared, words).await else { return Ok(None) };
        let full = match recovered {
            Err(full @ StorageError::Full { .. }) => full,
            recovered => return recovered.map(Some),
        };
        if pause == FULL_PAUSE {
            log::warn!(error = %full, "a start waits for room");
        }
        let words = "starting: the disk has no room for what a start writes again; make room on it";
        let again = (*shared.clock).sleep_until(shared.clock.now().after(pause));
        if unless_shut_down(again, shared, words).await.is_none() {
            return Ok(None);
        }
        pause = (pause * 2).min(FULL_PAUSE_MAX);
    }
}

/// Waits for a step of a start; `explain` gives these words meanwhile. `None`: a shutdown was asked for.
pub(super) async fn unless_shut_down<T>(step: impl Future<Output = T>, shared: &Shared, words: &str) -> Option<T> {
    let mut step = std::pin::pin!(step);
    std::future::poll_fn(|context| {
        if let Poll::Ready(done) = step.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        shared.waker.register(context.waker());
        let (is_over, asked) = {
            let mut inbox = shared.inbox();
            (!inbox.shutdown.is_empty(), std::mem::take(&mut inbox.explain))
        };
        for answer in asked {
            let _ = answer.send(words.to_owned());
        }
        if is_over { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}
