//! Checkpoints: taken between two turns, written beside everything else.

use std::task::{Context, Poll};

use futures::channel::oneshot;

use super::parts::WantedCheckpoint;
use super::{Checkpointing, Driver};
use crate::client::inbox::{CheckpointAnswer, CheckpointError};
use crate::log;
use crate::protocol::{Input, Monotonic, OpNumber, TakeCheckpoint};
use crate::traits::clock::Clock;
use crate::traits::network::Network;
use crate::traits::state_machine::StateMachine;
use crate::traits::storage::Storage;

fn tell(asked: impl IntoIterator<Item = oneshot::Sender<CheckpointAnswer>>, answer: CheckpointAnswer) {
    for to in asked {
        let _ = to.send(answer);
    }
}

impl<S: StateMachine, D: Storage, N: Network, C: Clock> Driver<'_, S, D, N, C> {
    /// Gives the core the digest of the state, which is that after this op.
    pub(super) fn take_digest(&mut self, op: OpNumber) {
        match self.machine.digest() {
            Ok(digest) => self.inputs.arrived.push(Input::Digest { op, digest }),
            Err(panic) => log::error!(%op, %panic, "no digest: the state machine panicked while it was asked for it"),
        }
    }

    /// Callers of the handle want checkpoints of what is applied now.
    pub(super) fn want_checkpoints(&mut self, asked: Vec<oneshot::Sender<CheckpointAnswer>>) {
        if asked.is_empty() {
            return;
        }
        if !self.storage.keeps_checkpoints() {
            return tell(asked, Err(CheckpointError::Unsupported));
        }
        let applied = self.core.applied();
        self.checkpoints_asked.extend(asked.into_iter().map(|answer| WantedCheckpoint { applied, answer }));
        self.inputs.arrived.push(Input::WantCheckpoint);
    }

    /// Those that are there now.
    fn answer_checkpoints(&mut self) {
        let newest = self.core.durable_checkpoint();
        for WantedCheckpoint { answer, .. } in self.checkpoints_asked.extract_if(.., |asked| asked.applied <= newest) {
            let _ = answer.send(Ok(newest));
        }
    }

    /// No further one is tried for those that wait.
    fn fail_checkpoints(&mut self) {
        tell(self.checkpoints_asked.drain(..).map(|asked| asked.answer), Err(CheckpointError::Failed));
    }

    /// Takes the digest and the checkpoint that the last turn has asked for: the state is that after their op until the next turn.
    pub(super) fn take_checkpoint(&mut self, now: Monotonic) {
        if !self.checkpoints_asked.is_empty() {
            self.answer_checkpoints();
        }
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
                self.fail_checkpoints();
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
        if written.is_err() {
            self.fail_checkpoints();
        }
        self.inputs.arrived.push(Input::Checkpoint { op, written: written.ok() });
        true
    }
}
