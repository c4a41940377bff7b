//! The same storage without threads: for a deterministic executor, as the simulator's.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use vsr::Storage;
use vsr::protocol::{Batch, OpNumber, Recovered};
use vsr::storage::StorageError;
use vsr::threaded::{BlockingReader, BlockingWriter, Entries};

use crate::medium::Medium;
use crate::storage::{Reader, Writer, parts};

/// [`FileStorage`](crate::FileStorage) on any [`Medium`], every call of which is done when its future is polled
/// first. What blocks in the medium blocks the executor: not for production.
pub struct InlineFileStorage<M: Medium> {
    writer: Mutex<Writer<M>>,
    reader: Mutex<Reader<M>>,
    is_recovered: AtomicBool,
    room: AtomicU64,
    poison: OnceLock<String>,
}

impl<M: Medium> fmt::Debug for InlineFileStorage<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineFileStorage").field("poison", &self.poison).finish_non_exhaustive()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Medium> InlineFileStorage<M> {
    /// Opens what [`FileStorage::format_on`](crate::FileStorage::format_on) has made; `name` stands in error
    /// messages.
    ///
    /// # Errors
    /// As [`FileStorage::open`](crate::FileStorage::open).
    pub fn open_on(log: M, state: M, name: &str) -> Result<InlineFileStorage<M>, StorageError> {
        let (writer, reader) = parts(log, state, name)?;
        Ok(InlineFileStorage {
            room: AtomicU64::new(writer.room()),
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            is_recovered: AtomicBool::new(false),
            poison: OnceLock::new(),
        })
    }

    fn check(&self) -> Result<(), StorageError> {
        self.poison.get().map_or(Ok(()), |why| Err(StorageError::Poisoned(why.clone())))
    }

    fn poison<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result
            && !matches!(error, StorageError::Full { .. } | StorageError::Contract(_) | StorageError::Poisoned(_))
        {
            let _ = self.poison.set(error.to_string());
        }
        result
    }

    /// What a thread would do once a second while there are no writes: tries again what found no space.
    pub fn tend(&self) {
        self.look_after(&mut lock(&self.writer));
    }

    /// The work that a thread would do behind the answer.
    fn look_after(&self, writer: &mut Writer<M>) {
        if self.is_recovered.load(Ordering::Acquire) && self.check().is_ok() {
            let _ = self.poison(writer.after_write());
        }
        self.room.store(writer.room(), Ordering::Release);
    }
}

#[async_trait]
impl<M: Medium> Storage for InlineFileStorage<M> {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.check()?;
        let mut writer = lock(&self.writer);
        let recovered = self.poison(writer.recover())?;
        self.is_recovered.store(true, Ordering::Release);
        self.look_after(&mut writer);
        Ok(recovered)
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.check()?;
        if batch.state.is_some() && !batch.entries.is_empty() {
            return Err(StorageError::Contract("a state and entries in one batch"));
        }
        let mut writer = lock(&self.writer);
        let written = self.poison(writer.write(batch));
        self.look_after(&mut writer);
        written
    }

    async fn read(&self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        self.check()?;
        lock(&self.reader).read(ops, bytes_max)
    }

    fn room(&self) -> u64 {
        self.room.load(Ordering::Acquire)
    }
}
