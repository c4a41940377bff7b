//! What is under way of checkpoints that are lent and fetched, and who waits for one.

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use crate::client::inbox::CheckpointAnswer;
use crate::protocol::{CheckpointHead, CheckpointId, OpNumber, ReadPart};
use crate::traits::storage::StorageError;

type Reading<'a> = BoxFuture<'a, Result<Bytes, StorageError>>;
type Storing<'a> = BoxFuture<'a, Result<u32, StorageError>>;
type Restoring<'a, S> = BoxFuture<'a, Result<(S, CheckpointHead), StorageError>>;

/// What is under way.
pub(super) struct Transferring<'a, S> {
    pub(super) reads: Vec<(ReadPart, Reading<'a>)>,
    pub(super) store: Option<(CheckpointId, u32, Storing<'a>)>,
    pub(super) restore: Option<(CheckpointId, Restoring<'a, S>)>,
    /// The state machine of a checkpoint, until the core takes it up.
    pub(super) restored: Option<S>,
}

impl<S> Default for Transferring<'_, S> {
    fn default() -> Self {
        Transferring { reads: Vec::new(), store: None, restore: None, restored: None }
    }
}

/// Somebody waits for a checkpoint that contains this op.
pub(super) struct WantedCheckpoint {
    pub(super) applied: OpNumber,
    pub(super) answer: oneshot::Sender<CheckpointAnswer>,
}
