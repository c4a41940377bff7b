//! Checkpoints: taken between two turns, written beside everything else.

use std::task::{Context, Poll};

use super::{Checkpointing, Driver};
use crate::log;
use crate::protocol::{Input, Monotonic, OpNumber, TakeCheckpoint};
use crate::traits::clock::Clock;
use crate::traits::network::Network;
use crate::traits::state_machine::StateMachine;
use crate::traits::storage::Storage;

impl<S: StateMachine, D: Storage, N: Network, C: Clock> Driver<'_, S, D, N, C> {
    /// Gives the core the digest of the state, which is that after this op.
    pub(super) fn take_digest(&mut self, op: OpNumber) {
        match self.machine.digest() {
            Ok(digest) => self.inputs.arrived.push(Input::Digest { op, digest }),
            Err(panic) => log::error!(%op, %panic, "no digest: the state machine panicked while it was asked for it"),
        }
    }

    /// Takes the digest and the checkpoint that the last turn has asked for: the state is that after their op until the next turn.
    pub(super) fn take_checkpoint(&mut self, now: Monotonic) {
        if let Some(op) = self.effects.digest.take() {
            self.take_digest(op);
        }
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
        self.metrics.checkpoint_ended(now, *since, result.is_ok());
        self.checkpoint = None;
        let written = result.map_err(
            |error| log::warn!(%op, %error, "a checkpoint is not written, and the log is not dropped; another is tried when it is due, or when the log is full"),
        );
        self.inputs.arrived.push(Input::Checkpoint { op, written: written.ok() });
        true
    }
}
