//! State transfer: parts of checkpoints are read for others and stored for this replica, beside everything else.

use std::task::{Context, Poll};

use super::{Driver, ReplicaError, start};
use crate::log;
use crate::protocol::{Input, StorePart};
use crate::traits::clock::Clock;
use crate::traits::network::Network;
use crate::traits::state_machine::{StateMachine, Typed, drop_guarded};
use crate::traits::storage::{Storage, StorageError};

impl<S: StateMachine, D: Storage, N: Network, C: Clock> Driver<'_, S, D, N, C> {
    /// Begins what the last turn wants done.
    ///
    /// # Errors
    /// When the core takes up a state machine that is not here: to go on with the old one would be to go on with a wrong state.
    pub(super) fn go_on_with_transfer(&mut self) -> Result<(), ReplicaError> {
        if self.core.transfer().is_none() && self.effects.take_up.is_none() {
            // What was restored is not wanted any more.
            drop_guarded(self.transfer.restored.take());
        }
        let storage = self.storage;
        for request in self.effects.read_parts.drain(..) {
            self.transfer.reads.push((request, storage.read_part(request.id, request.part)));
        }
        if let Some(StorePart { id, part, bytes, keep }) = self.effects.store_part.take() {
            self.transfer.store = Some((id, part, storage.write_part(id, part, bytes, keep)));
        }
        if let Some(id) = self.effects.restore.take() {
            let constants = self.core.membership().constants.clone();
            self.transfer.restore = Some((id, Box::pin(start::read::<S, D>(storage, id, constants))));
        }
        if let Some(op) = self.effects.take_up.take() {
            let restored = self.transfer.restored.take();
            let restored = restored.ok_or(StorageError::Contract("a checkpoint that is taken up was not read"))?;
            let Typed(before) = std::mem::replace(&mut self.machine, Typed(restored));
            drop_guarded(before);
            self.take_digest(op);
        }
        Ok(())
    }

    /// Whether something of it has ended.
    pub(super) fn poll_transfer(&mut self, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        let mut at = 0;
        while at < self.transfer.reads.len() {
            let (request, read) = &mut self.transfer.reads[at];
            let Poll::Ready(result) = read.as_mut().poll(context) else {
                at += 1;
                continue;
            };
            let request = *request;
            drop(self.transfer.reads.remove(at));
            let is_damaged = matches!(result, Err(StorageError::CheckpointDamaged { .. }));
            let bytes = result.map_err(|error| match error {
                // Nothing is wrong: so a reader that does not know how many there are finds the end.
                StorageError::NoSuchPart { .. } => log::debug!(id = %request.id, %error, "no such part"),
                error => log::warn!(id = %request.id, %error, "a part of a checkpoint cannot be read"),
            });
            self.inputs.arrived.push(Input::PartRead { request, bytes: bytes.ok(), is_damaged });
            progress = true;
        }
        if let Some((id, part, store)) = &mut self.transfer.store
            && let Poll::Ready(result) = store.as_mut().poll(context)
        {
            let (id, part) = (*id, *part);
            self.transfer.store = None;
            let next = result.map_err(|error| log::warn!(%id, part, %error, "a part of a checkpoint is not stored"));
            self.inputs.arrived.push(Input::PartStored { id, part, next: next.ok() });
            progress = true;
        }
        if let Some((id, restore)) = &mut self.transfer.restore
            && let Poll::Ready(result) = restore.as_mut().poll(context)
        {
            let id = *id;
            self.transfer.restore = None;
            let restored =
                result.map_err(|error| log::error!(%id, %error, "a checkpoint that was fetched cannot be read"));
            let head = restored.ok().map(|(machine, head)| {
                drop_guarded(self.transfer.restored.replace(machine));
                head
            });
            self.inputs.arrived.push(Input::Restored { id, head });
            progress = true;
        }
        progress
    }
}
