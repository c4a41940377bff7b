//! A storage that blocks, without threads.

use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use vsr::Storage;
use vsr::protocol::{Batch, OpNumber, Recovered};
use vsr::storage::StorageError;
use vsr::threaded::{BlockingReader, BlockingWriter, Entries};

use super::folder::SimFolder;

/// A [`Storage`] made of the two halves of one that blocks, as [`vsr::threaded::ThreadedStorage`] is, but without threads: all its
/// work is done where it is asked for, and so in the same order in every run.
#[derive(Debug)]
pub struct Inline<W, R> {
    writer: Mutex<W>,
    reader: Mutex<R>,
    state: Mutex<State>,
    folder: SimFolder,
}

#[derive(Debug, Default)]
struct State {
    poison: Option<String>,
    is_recovered: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: BlockingWriter, R: BlockingReader> Inline<W, R> {
    /// The storage of these halves, whose files are in this folder.
    #[must_use]
    pub fn new(writer: W, reader: R, folder: SimFolder) -> Inline<W, R> {
        Inline { writer: Mutex::new(writer), reader: Mutex::new(reader), state: Mutex::default(), folder }
    }

    fn check(&self) -> Result<(), StorageError> {
        match &lock(&self.state).poison {
            Some(why) => Err(StorageError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    fn poison<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result
            && !matches!(error, StorageError::Full { .. } | StorageError::Contract(_) | StorageError::Poisoned(_))
        {
            lock(&self.state).poison.get_or_insert_with(|| error.to_string());
        }
        result
    }

    /// What a thread would do once the write was answered, and after a second without one.
    fn after_write(&self) {
        let is_recovered = lock(&self.state).is_recovered;
        if is_recovered && self.check().is_ok() {
            self.folder.idle();
            let done = lock(&self.writer).after_write();
            let _ = self.poison(done);
        }
    }
}

#[async_trait]
impl<W: BlockingWriter, R: BlockingReader> Storage for Inline<W, R> {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.check()?;
        let recovered = lock(&self.writer).recover();
        let recovered = self.poison(recovered)?;
        lock(&self.state).is_recovered = true;
        self.after_write();
        Ok(recovered)
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.check()?;
        if !lock(&self.state).is_recovered {
            return Err(StorageError::Contract("a write before recover"));
        }
        if batch.state.is_some() && !batch.entries.is_empty() {
            return Err(StorageError::Contract("a state and entries in one batch"));
        }
        let written = lock(&self.writer).write(batch);
        let written = self.poison(written);
        self.after_write();
        written
    }

    async fn read(&self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        self.check()?;
        lock(&self.reader).read(ops, bytes_max)
    }

    fn room(&self) -> u64 {
        // No thread does it in a second without a write: it is done here, as this is asked often.
        if self.folder.take_idle_second() {
            self.after_write();
        }
        lock(&self.writer).room()
    }
}
