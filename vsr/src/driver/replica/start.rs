//! The start of a replica: what its disk says, however long that takes, and the state machine that it goes on with.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use super::full::{FULL_PAUSE, FULL_PAUSE_MAX};
use crate::client::inbox::Shared;
use crate::log;
use crate::protocol::{CheckpointHead, CheckpointId, Constants, Recovered};
use crate::traits::state_machine::{StateMachine, Typed, drop_guarded};
use crate::traits::storage::{CheckpointReader, Storage, StorageError};

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

/// The state machine that a start goes on with: from the newest checkpoint that is whole and of this log, with what it has beside the machine;
/// else as it was given. `None`: a shutdown was asked for.
pub(super) async fn restore<S: StateMachine, D: Storage>(
    storage: &D,
    recovered: &Recovered,
    first: S,
    shared: &Shared,
) -> Option<(S, Option<CheckpointHead>)> {
    let words = "starting: a checkpoint is read";
    Some(match unless_shut_down(newest_checkpoint::<S, D>(storage, recovered), shared, words).await? {
        Some((machine, head)) => {
            drop_guarded(first);
            (machine, Some(head))
        }
        None => (first, None),
    })
}

/// The newest checkpoint that the record names, and that is whole, readable, and of this log.
pub(crate) async fn newest_checkpoint<S: StateMachine, D: Storage>(
    storage: &D,
    recovered: &Recovered,
) -> Option<(S, CheckpointHead)> {
    if !storage.keeps_checkpoints() {
        return None;
    }
    for id in recovered.state.checkpoints.iter().rev().copied() {
        let constants = recovered.state.membership.constants.clone();
        match read::<S, D>(storage, id, constants).await {
            Ok((machine, head)) if recovered.continues(&head) => return Some((machine, head)),
            Ok(other) => {
                drop_guarded(other);
                log::warn!(%id, "a checkpoint is none of this log: an older one, the whole log, or one of another replica takes its place");
            }
            Err(error) => {
                log::warn!(%id, %error, "a checkpoint cannot be used: an older one, the whole log, or one of another replica takes its place");
            }
        }
    }
    None
}

/// The state machine of a checkpoint, and what it has beside the machine.
pub(super) async fn read<S: StateMachine, D: Storage>(
    storage: &D,
    id: CheckpointId,
    constants: Constants,
) -> Result<(S, CheckpointHead), StorageError> {
    let restored = Arc::new(Mutex::new(None));
    let into = restored.clone();
    let reader: CheckpointReader = Box::new(move |from| {
        let head = CheckpointHead::read(from, &constants)?;
        let machine = Typed::<S>::restore(from)?;
        *into.lock().unwrap_or_else(PoisonError::into_inner) = Some((machine, head));
        Ok(())
    });
    storage.read_checkpoint(id, reader).await?;
    let restored = restored.lock().unwrap_or_else(PoisonError::into_inner).take();
    restored.ok_or(StorageError::Contract("a checkpoint that was read without its reader"))
}

/// Waits for a step of a start; `explain` gives these words meanwhile. `None`: a shutdown was asked for.
async fn unless_shut_down<T>(step: impl Future<Output = T>, shared: &Shared, words: &str) -> Option<T> {
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
