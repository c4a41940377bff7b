//! Checkpoints: taken between two turns, written beside everything else, and what a start goes on from.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;

use super::Driver;
use super::start::unless_shut_down;
use crate::client::inbox::Shared;
use crate::log;
use crate::protocol::{CheckpointHead, CheckpointId, Input, Monotonic, OpNumber, Recovered, TakeCheckpoint};
use crate::traits::clock::Clock;
use crate::traits::network::Network;
use crate::traits::state_machine::{StateMachine, Typed, drop_guarded};
use crate::traits::storage::{CheckpointReader, Storage, StorageError};

/// A checkpoint that is being written.
pub(super) struct Checkpointing<'a> {
    op: OpNumber,
    since: Monotonic,
    write: BoxFuture<'a, Result<CheckpointId, StorageError>>,
}

/// The state machine that a start goes on with: from the newest checkpoint that is whole and of this log, with what it has beside the machine;
/// else as it was given. `None`: a shutdown was asked for.
pub(super) async fn restore<S: StateMachine, D: Storage>(
    storage: &D,
    recovered: &Recovered,
    first: S,
    shared: &Shared,
) -> Option<(S, Option<CheckpointHead>)> {
    if !storage.keeps_checkpoints() {
        return Some((first, None));
    }
    for id in recovered.state.checkpoints.iter().rev() {
        let constants = recovered.state.membership.constants.clone();
        let restored = Arc::new(Mutex::new(None));
        let into = restored.clone();
        let reader: CheckpointReader = Box::new(move |from| {
            let head = CheckpointHead::read(from, &constants)?;
            let machine = Typed::<S>::restore(from)?;
            *into.lock().unwrap_or_else(PoisonError::into_inner) = Some((machine, head));
            Ok(())
        });
        let words = "starting: a checkpoint is read";
        let read = unless_shut_down(storage.read_checkpoint(*id, reader), shared, words).await?;
        if let Err(error) = read {
            log::warn!(%id, %error, "a checkpoint cannot be used: an older one, or the whole log, takes its place");
            continue;
        }
        let restored = restored.lock().unwrap_or_else(PoisonError::into_inner).take();
        match restored {
            Some((machine, head)) if recovered.continues(&head) => {
                drop_guarded(first);
                return Some((machine, Some(head)));
            }
            other => {
                drop_guarded(other);
                log::warn!(%id, "the log below a checkpoint is damaged: it is applied from its beginning, and repaired");
            }
        }
    }
    Some((first, None))
}

impl<S: StateMachine, D: Storage, N: Network, C: Clock> Driver<'_, S, D, N, C> {
    /// Takes the checkpoint that the last turn has asked for: the state is that after its op until the next turn.
    pub(super) fn take_checkpoint(&mut self, now: Monotonic) {
        let Some(TakeCheckpoint { op, head, keep }) = self.effects.checkpoint.take() else { return };
        match self.machine.checkpoint(head) {
            Ok(content) => {
                let write = self.storage.write_checkpoint(op, keep, content);
                self.checkpoint = Some(Checkpointing { op, since: now, write });
            }
            Err(panic) => {
                log::error!(%op, %panic, "no checkpoint: the state machine panicked while its snapshot was taken");
                self.inputs.arrived.push(Input::Checkpoint { op, written: None });
            }
        }
    }

    /// Whether a checkpoint has ended.
    pub(super) fn poll_checkpoint(&mut self, context: &mut Context<'_>, now: Monotonic) -> bool {
        let Some(Checkpointing { op, since, write }) = &mut self.checkpoint else { return false };
        let Poll::Ready(result) = write.as_mut().poll(context) else { return false };
        let op = *op;
        self.metrics.checkpoint_ended(now, *since);
        self.checkpoint = None;
        let written = result.map_err(
            |error| log::warn!(%op, %error, "a checkpoint is not written; the next one is tried when it is due"),
        );
        self.inputs.arrived.push(Input::Checkpoint { op, written: written.ok() });
        true
    }
}
