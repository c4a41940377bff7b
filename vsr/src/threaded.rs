//! Storage on threads of its own, for implementations that block.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use futures::channel::oneshot;

use crate::protocol::{Batch, Entry, OpNumber, Recovered};
use crate::storage::{Storage, StorageError};

/// What a read gives: ops in order, each with its entry if that is intact.
pub type Entries = Vec<(OpNumber, Option<Entry>)>;

/// The writing half of a storage that blocks. [`ThreadedStorage`] makes a [`Storage`] of it.
pub trait BlockingWriter: Send + 'static {
    /// As [`Storage::recover`].
    ///
    /// # Errors
    /// As there.
    fn recover(&mut self) -> Result<Recovered, StorageError>;

    /// As [`Storage::write`].
    ///
    /// # Errors
    /// As there.
    fn write(&mut self, batch: Batch) -> Result<(), StorageError>;

    /// As [`Storage::room`]; asked after each call.
    fn room(&self) -> u64 {
        u64::MAX
    }

    /// Work that nobody waits for, after a write was answered, and once a second when there are none.
    ///
    /// # Errors
    /// Poison the storage as those of a write do.
    fn after_write(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// The reading half of a storage that blocks. Runs beside the writing one.
pub trait BlockingReader: Send + 'static {
    /// As [`Storage::read`].
    ///
    /// # Errors
    /// As there.
    fn read(&mut self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError>;
}

enum WriteJob {
    Recover(oneshot::Sender<Result<Recovered, StorageError>>),
    Write(Box<Batch>, oneshot::Sender<Result<(), StorageError>>),
}

struct ReadJob {
    ops: RangeInclusive<OpNumber>,
    bytes_max: usize,
    answer: oneshot::Sender<Result<Entries, StorageError>>,
}

/// A [`Storage`] whose work is done by one thread that writes and one that reads, so that no executor is
/// ever blocked. Poisons itself after a failed write (clause 10), and refuses batches that the contract
/// does not allow. Dropping it waits for the write under way.
#[derive(Debug)]
pub struct ThreadedStorage {
    shared: Arc<Shared>,
    writes: Option<Sender<WriteJob>>,
    reads: Option<Sender<ReadJob>>,
    threads: Vec<JoinHandle<()>>,
}

/// How often a storage without writes gets a chance to look after itself.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Shared {
    poison: OnceLock<String>,
    room: AtomicU64,
}

impl Shared {
    fn check(&self) -> Result<(), StorageError> {
        match self.poison.get() {
            Some(why) => Err(StorageError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    /// After a failed write or sync nothing can be believed, a repeated sync least of all.
    fn poison<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result
            && !matches!(error, StorageError::Full { .. } | StorageError::Contract(_) | StorageError::Poisoned(_))
        {
            tracing::error!(%error, "storage is poisoned");
            let _ = self.poison.set(error.to_string());
        }
        result
    }

    fn write_all(&self, mut writer: impl BlockingWriter, jobs: &Receiver<WriteJob>) {
        let mut is_recovered = false;
        loop {
            match jobs.recv_timeout(IDLE) {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(WriteJob::Recover(answer)) => {
                    let recovered = self.poison(self.check().and_then(|()| writer.recover()));
                    is_recovered |= recovered.is_ok();
                    self.room.store(writer.room(), Ordering::Release);
                    let _ = answer.send(recovered);
                }
                Ok(WriteJob::Write(batch, answer)) => {
                    let written = self.check().and_then(|()| match () {
                        () if !is_recovered => Err(StorageError::Contract("a write before recover")),
                        () if batch.state.is_some() && !batch.entries.is_empty() => {
                            Err(StorageError::Contract("a state and entries in one batch"))
                        }
                        () => {
                            let span = tracing::debug_span!(
                                "write",
                                entries = batch.entries.len(),
                                state = batch.state.is_some()
                            );
                            span.in_scope(|| writer.write(*batch))
                        }
                    });
                    let written = self.poison(written);
                    self.room.store(writer.room(), Ordering::Release);
                    let _ = answer.send(written);
                }
            }
            if is_recovered && self.check().is_ok() {
                let _ = self.poison(writer.after_write());
                self.room.store(writer.room(), Ordering::Release);
            }
        }
    }

    fn read_all(&self, mut reader: impl BlockingReader, jobs: &Receiver<ReadJob>) {
        while let Ok(ReadJob { ops, bytes_max, answer }) = jobs.recv() {
            let _ = answer.send(self.check().and_then(|()| reader.read(ops, bytes_max)));
        }
    }
}

impl ThreadedStorage {
    /// Starts the two threads.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(writer: impl BlockingWriter, reader: impl BlockingReader) -> Result<ThreadedStorage, StorageError> {
        let shared = Arc::new(Shared::default());
        shared.room.store(writer.room(), Ordering::Release);
        let (writes, write_jobs) = channel();
        let (reads, read_jobs) = channel();
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let failed = |error: std::io::Error| StorageError::Io {
            doing: "starting the storage's threads".to_owned(),
            error: error.to_string(),
        };
        let (of_writer, of_reader) = (shared.clone(), shared.clone());
        let threads = vec![
            thread("vsr-writer").spawn(move || of_writer.write_all(writer, &write_jobs)).map_err(failed)?,
            thread("vsr-reader").spawn(move || of_reader.read_all(reader, &read_jobs)).map_err(failed)?,
        ];
        Ok(ThreadedStorage { shared, writes: Some(writes), reads: Some(reads), threads })
    }
}

impl Drop for ThreadedStorage {
    fn drop(&mut self) {
        self.writes = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn gone() -> StorageError {
    StorageError::Poisoned("the storage's thread has ended".to_owned())
}

#[async_trait]
impl Storage for ThreadedStorage {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        let (answer, recovered) = oneshot::channel();
        let writes = self.writes.as_ref().ok_or_else(gone)?;
        writes.send(WriteJob::Recover(answer)).map_err(|_| gone())?;
        recovered.await.map_err(|_| gone())?
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let (answer, written) = oneshot::channel();
        let writes = self.writes.as_ref().ok_or_else(gone)?;
        writes.send(WriteJob::Write(Box::new(batch), answer)).map_err(|_| gone())?;
        written.await.map_err(|_| gone())?
    }

    async fn read(&self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        let (answer, entries) = oneshot::channel();
        let reads = self.reads.as_ref().ok_or_else(gone)?;
        reads.send(ReadJob { ops, bytes_max, answer }).map_err(|_| gone())?;
        entries.await.map_err(|_| gone())?
    }

    fn room(&self) -> u64 {
        self.shared.room.load(Ordering::Acquire)
    }
}
