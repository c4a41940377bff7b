//! The storage of a replica: the trait, and its errors.

use std::error::Error;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::cause::Cause;
use crate::config::ConfigError;
use crate::protocol::{Batch, CheckpointId, Entry, OpNumber, Recovered};
use crate::traits::state_machine::Snapshot;

/// A durable log, and a small durable record beside it.
///
/// # The contract
/// Each clause has a test of its number in the conformance suite (`vsr_sim::conformance::storage`).
///
/// 1. **Durable.** When [`write`](Self::write) has returned `Ok`, what it wrote survives a crash and a
///    power loss.
/// 2. **In order.** Batches take effect in the order of the calls; the caller keeps one in flight.
/// 3. **Truncate, then put.** Within a batch `truncate_above` comes first. A truncated entry never comes
///    back, not behind a re-put of its old parent either: [`recover`](Self::recover) reports nothing
///    above the head that the last durable batch left.
/// 4. **Atomic state.** After a crash inside a batch the vsr state is the old or the new one, whole.
/// 5. **Honest slots.** After a crash inside a batch, a slot that it touched is old, new or `Corrupt`,
///    never silently `Absent` when it held an older entry; every other slot is untouched.
/// 6. **State and log agree.** A batch carries a state or entries, never both. If it truncates and
///    carries a state, then after a crash inside it the old state comes with the old log or `Corrupt`
///    slots, the new state with the truncated log.
/// 7. **A crash is not rot.** After a crash at any point of a write, with nothing else damaged, the head
///    is certain: the storage proves that the last batch never completed, and reports slots that only it
///    would have filled as `Absent`.
/// 8. **Absence is a claim.** `Absent` is reported only if the storage would know of a lost write. Where
///    it may have lost one, the slot is `Corrupt`, or the head uncertain. What one start found lost is
///    `Corrupt` at every later one, until a batch has put it again or truncated it.
/// 9. **Damage is found.** An entry that is not exactly what was put is never returned, by `recover` or
///    by [`read`](Self::read). A header that survived is reported with the `Corrupt` slot. Damage takes
///    what lies in it, and no more: every other entry is `Clean`.
/// 10. **Poisoned after a failure.** After a failed write or sync every further call fails
///     ([`StorageError::Poisoned`]): a retried sync lies (Rebello et al., ATC 2020). For the same reason a
///     start believes nothing of what may not be on the disk before it has written it again and synced it.
/// 11. **Reads run beside a write** and see the entries of completed batches.
/// 12. **Formatted once.** Opening never creates. A disk that was never formatted, or belongs to another
///     format version, is refused with an error that says so. A part that is missing or damaged is never
///     "not formatted" ([`StorageError::Missing`], [`StorageError::Damaged`]).
/// 13. **Full is an error.** A batch that does not fit fails with [`StorageError::Full`], nothing of it
///     counts, and the storage is not poisoned. The same batch is written again until it fits; a crash before that leaves it done or not done,
///     as one in the middle of it does.
/// 14. **`recover` changes nothing** that a second `recover` would see, the power being lost in between or not.
///
/// 19. **What was dropped is gone, and nothing else.** From a state on whose [`base`](crate::protocol::VsrState::base) is higher, `recover`
///     reports the slots after the base, and `read` gives nothing of those up to it. Their room is free again, sooner or later.
///
/// A storage that [keeps checkpoints](Self::keeps_checkpoints) has four more:
///
/// 15. **A checkpoint is whole, or it is none.** What [`write_checkpoint`](Self::write_checkpoint) has named is durable, byte by byte, also
///     after a crash in the middle of a later one.
/// 16. **What is kept stays.** `write_checkpoint` removes every checkpoint that is not among those to keep, and nothing else does: beside those
///     no more than two take room at a time, unfinished ones.
/// 17. **A damaged checkpoint is an error.** [`read_checkpoint`](Self::read_checkpoint) gives a byte only after the checksum of its chunk was
///     compared, and an error where that differs.
/// 18. **Parts make the same checkpoint.** What [`read_part`](Self::read_part) gives, put together by [`write_part`](Self::write_part) elsewhere,
///     is that checkpoint; parts that were stored before a crash need not be sent again; a wrong part changes nothing.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Reads everything once, after opening.
    ///
    /// # Errors
    /// After [`StorageError::Full`] the replica asks again until there is room; after any other error it stops with it.
    async fn recover(&self) -> Result<Recovered, StorageError>;

    /// Writes a batch; durable when it returns `Ok`. One call at a time. Dropping the future midway
    /// leaves the batch done or not done.
    ///
    /// # Errors
    /// After [`StorageError::Full`] the replica writes the same batch again until there is room; after any other error it stops with it.
    async fn write(&self, batch: Batch) -> Result<(), StorageError>;

    /// Reads entries, at least one and no more than about `bytes_max` bytes; fewer than asked for is no
    /// error. `None` stands for an entry that is damaged or not there.
    ///
    /// # Errors
    /// After [`StorageError::Io`] the replica tries again; when that does not help it takes the first of the entries for damaged, and
    /// fetches it from a peer, if it has any. After any other error it stops with it.
    async fn read(
        &self,
        ops: RangeInclusive<OpNumber>,
        bytes_max: usize,
    ) -> Result<Vec<(OpNumber, Option<Entry>)>, StorageError>;

    /// Whether it keeps checkpoints. `false`, the default: none is taken, and a start applies the whole log.
    fn keeps_checkpoints(&self) -> bool {
        false
    }

    /// Writes a checkpoint, whole and durable when it returns, and says what names it. Removes all checkpoints but those to keep, before it
    /// begins. Runs beside every other call, and may take long; one call at a time. Dropping the future leaves the checkpoint done or not
    /// done.
    ///
    /// # Errors
    /// Whatever the error, the log and the checkpoints that are kept are as good as before: the replica goes on, and takes the next one.
    async fn write_checkpoint(
        &self,
        op: OpNumber,
        keep: Vec<CheckpointId>,
        content: Snapshot,
    ) -> Result<CheckpointId, StorageError> {
        let _ = (op, keep, content);
        Err(StorageError::Contract("a checkpoint for a storage that keeps none"))
    }

    /// Gives a checkpoint to a reader, where that may block.
    ///
    /// # Errors
    /// [`StorageError::CheckpointDamaged`] when it is not there or not whole: then the reader's success counts for nothing. Or the disk's
    /// refusal.
    async fn read_checkpoint(&self, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
        let _ = (id, reader);
        Err(StorageError::Contract("a checkpoint of a storage that keeps none"))
    }

    /// Reads a part of a checkpoint, for another replica: part 0 is the encoded [`Manifest`](crate::protocol::Manifest), the others are its chunks,
    /// counted from 1. Runs beside every other call.
    ///
    /// # Errors
    /// [`StorageError::NoSuchPart`] for a part that the checkpoint does not have, which says nothing against it; and
    /// [`StorageError::CheckpointDamaged`] when it is not there, or not what it was.
    async fn read_part(&self, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
        let _ = (id, part);
        Err(StorageError::Contract("a part of a checkpoint of a storage that keeps none"))
    }

    /// Adds a part of another replica's checkpoint: its manifest first, as part 0, then its chunks in their order. Returns the part that it
    /// wants next; after the manifest that is the first one of which an earlier, unfinished attempt has left nothing. When it is one more than the
    /// last, the checkpoint is whole and durable, as one of [`write_checkpoint`](Self::write_checkpoint). Part 0 removes what is left of other
    /// unfinished ones. Runs beside every other call; one call at a time.
    ///
    /// # Errors
    /// [`StorageError::CheckpointDamaged`] for bytes that are not that part, and for one that is not the next. Whatever the error, the log and the
    /// checkpoints are as good as before.
    async fn write_part(
        &self,
        id: CheckpointId,
        part: u32,
        bytes: Bytes,
        keep: Vec<CheckpointId>,
    ) -> Result<u32, StorageError> {
        let _ = (id, part, bytes, keep);
        Err(StorageError::Contract("a part of a checkpoint for a storage that keeps none"))
    }

    /// Bytes that the log can still take, for entries with all that the storage adds to them. The replica
    /// refuses requests before it is used up. Asked often: it must not wait.
    fn room(&self) -> u64 {
        u64::MAX
    }

    /// Closes the storage: when this returns, the same disk may be opened again. Called once, at the orderly end of a replica,
    /// before the storage is dropped. It does not return while a write hangs; the replica waits a second at most.
    async fn close(&self) {}
}

/// Why storage does not do what it was asked to do. Each variant says who must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk, or the operating system, refused. The storage is poisoned. A start after it writes what
    /// it relies on again before it believes it, for what is read then may never have reached the disk.
    #[error(
        "{doing} failed: {cause}; start the replica again once the disk works (a start writes anew what the failure \
         may have kept from the disk)"
    )]
    Io {
        /// What was being done.
        doing: String,
        /// What the operating system, or the library below, said.
        #[source]
        cause: Cause,
    },
    /// An earlier write or sync failed, and nothing after it can be believed.
    #[error("storage is poisoned by an earlier failure ({0}): restart the replica")]
    Poisoned(String),
    /// There is no room for the batch: the log is at its limit, or the disk is full. Nothing of it counts.
    #[error("no room: {used} of {limit} bytes are used; raise the limit of the log, or make room on the disk")]
    Full {
        /// Bytes in use.
        used: u64,
        /// The configured limit, or what the disk had room for.
        limit: u64,
    },
    /// A vsr state of this cluster can take, or takes, more than the storage has room for.
    #[error(
        "a vsr state of this cluster can take {bytes} bytes, this storage has room for {room}: use shorter addresses of \
         the members"
    )]
    StateTooLarge {
        /// Bytes that it can take, or takes.
        bytes: u64,
        /// Bytes that there are for it.
        room: u64,
    },
    /// The log would be too small for anything to be done in it: every request would hear that it is full.
    #[error(
        "a log of at most {limit} bytes is too small: batches of this cluster's size need {needed}; raise the limit of the \
         log, or lower `batch_bytes_max`"
    )]
    LogTooSmall {
        /// Bytes that the log may grow to, as asked for.
        limit: u64,
        /// Bytes that it needs: [`Constants::log_room_min`](crate::protocol::Constants::log_room_min).
        needed: u64,
    },
    /// The configuration cannot work: nothing was formatted. A disk keeps what it was formatted with.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing was ever formatted here, as far as can be seen: a disk that is not mounted looks the same.
    #[error(
        "{0} is not formatted: if this replica has never run, run the format command once, on an empty folder; if it has, \
         its disk is not here (is it mounted?): bring it back, and do not format, that would forget what the replica has \
         acknowledged; if it is gone for good, give the replica a new disk (recover)"
    )]
    NotFormatted(String),
    /// A part of a storage that was formatted is not there. Never [`NotFormatted`](Self::NotFormatted):
    /// formatting again would forget what this replica has promised.
    #[error(
        "{path} is missing, and the rest of this replica's storage is here: do not format it again, that would forget \
         what the replica has acknowledged; put the file back if it was moved away (never from a backup), else give the \
         replica a new disk (recover)"
    )]
    Missing {
        /// What is not there.
        path: String,
    },
    /// A part of the storage is not what was written, beyond what can be reported slot by slot.
    #[error(
        "{path} is damaged: {what}; do not format it again, that would forget what the replica has acknowledged; put \
         the right file back if another one was put in its place (never from a backup), else give the replica a \
         new disk (recover)"
    )]
    Damaged {
        /// What is damaged.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The folder is a copy, or was restored: the replica that it belongs to may have gone on elsewhere,
    /// and two that run on copies of one disk acknowledge different things under one name.
    #[error(
        "{path} is not where it was formatted (recorded {recorded}, found {found}): it is a copy, or was restored. If \
         it is the only copy, and nothing ran on the original since the copy was made, accept the place on purpose \
         (accept-place --data {path}); else do not use it: give the replica a new \
         disk (recover)"
    )]
    OtherPlace {
        /// The folder.
        path: String,
        /// What identifies the place that was recorded.
        recorded: String,
        /// What identifies the place that it is in now.
        found: String,
    },
    /// The folder to be formatted is not empty.
    #[error(
        "{0} is not empty: formatting would destroy what is there; a replica that was formatted is only started, a new \
         one gets an empty folder"
    )]
    NotEmpty(String),
    /// Another version of this program, or another program, wrote the storage.
    #[error("{path} has format version {found}, this program reads {known}: run a version that reads it")]
    Version {
        /// The file or folder.
        path: String,
        /// The version that stands there.
        found: u32,
        /// The version that this program reads.
        known: u32,
    },
    /// A checkpoint is not there, or not whole. The log has what it contains.
    #[error("the checkpoint after {id} cannot be used: {what}")]
    CheckpointDamaged {
        /// What names it.
        id: CheckpointId,
        /// What is wrong with it.
        what: String,
    },
    /// Somebody asks for a part that a checkpoint does not have. Nothing is wrong with the checkpoint.
    #[error("the checkpoint after {id} has no part {part}")]
    NoSuchPart {
        /// What names it.
        id: CheckpointId,
        /// The part.
        part: u32,
    },
    /// No copy of the newest vsr state is intact: the replica does not know what it has promised.
    #[error(
        "no intact copy of the newest vsr state in {0}: the replica cannot know what it has promised; do not format it \
         again, give the replica a new disk (recover)"
    )]
    StateLost(String),
    /// Another process has the storage open.
    #[error("{0} is in use by another process: end that one first, a replica runs once")]
    InUse(String),
    /// The batch breaks the contract: a bug of the caller.
    #[error("a batch that the contract does not allow: {0}")]
    Contract(&'static str),
}

impl StorageError {
    /// [`StorageError::Io`]: this was being done, and this came of it.
    #[must_use]
    pub fn io(doing: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> StorageError {
        StorageError::Io { doing: doing.into(), cause: Cause::new(cause) }
    }
}

/// Takes a checkpoint from its first byte on.
pub type CheckpointReader = Box<dyn FnOnce(&mut dyn Read) -> io::Result<()> + Send>;

/// A pointer to a storage is one.
macro_rules! storage_behind {
    ($pointer:ident) => {
        #[async_trait]
        impl<T: Storage + ?Sized> Storage for $pointer<T> {
            async fn recover(&self) -> Result<Recovered, StorageError> {
                (**self).recover().await
            }
            async fn write(&self, batch: Batch) -> Result<(), StorageError> {
                (**self).write(batch).await
            }
            async fn read(
                &self,
                ops: RangeInclusive<OpNumber>,
                bytes_max: usize,
            ) -> Result<Vec<(OpNumber, Option<Entry>)>, StorageError> {
                (**self).read(ops, bytes_max).await
            }
            fn keeps_checkpoints(&self) -> bool {
                (**self).keeps_checkpoints()
            }
            async fn write_checkpoint(
                &self,
                op: OpNumber,
                keep: Vec<CheckpointId>,
                content: Snapshot,
            ) -> Result<CheckpointId, StorageError> {
                (**self).write_checkpoint(op, keep, content).await
            }
            async fn read_checkpoint(&self, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
                (**self).read_checkpoint(id, reader).await
            }
            async fn read_part(&self, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
                (**self).read_part(id, part).await
            }
            async fn write_part(
                &self,
                id: CheckpointId,
                part: u32,
                bytes: Bytes,
                keep: Vec<CheckpointId>,
            ) -> Result<u32, StorageError> {
                (**self).write_part(id, part, bytes, keep).await
            }
            fn room(&self) -> u64 {
                (**self).room()
            }
            async fn close(&self) {
                (**self).close().await;
            }
        }
    };
}

storage_behind!(Arc);
storage_behind!(Box);
