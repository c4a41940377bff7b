//! Storage on threads of its own, for implementations that block.

use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use futures::channel::oneshot;

use crate::log;
use crate::protocol::{Batch, Entry, OpNumber, Recovered};
use crate::traits::storage::{Storage, StorageError};

/// What a read gives: ops in order, each with its entry if that is intact.
pub type Entries = Vec<(OpNumber, Option<Entry>)>;

/// The writing half of a storage that blocks. [`ThreadedStorage`] makes a [`Storage`] of it.
pub trait BlockingWriter: Send + 'static {
    /// As [`Storage::recover`].
    ///
    /// # Errors
    /// As [`Storage::recover`].
    fn recover(&mut self) -> Result<Recovered, StorageError>;

    /// As [`Storage::write`].
    ///
    /// # Errors
    /// As [`Storage::write`].
    fn write(&mut self, batch: Batch) -> Result<(), StorageError>;

    /// As [`Storage::room`]; asked after each call.
    fn room(&self) -> u64 {
        u64::MAX
    }

    /// Background work: called after each write was answered, and once a second while there are no writes.
    ///
    /// # Errors
    /// They poison the storage, as errors of a write do.
    fn after_write(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// The reading half of a storage that blocks. Runs beside the writing one.
pub trait BlockingReader: Send + 'static {
    /// As [`Storage::read`].
    ///
    /// # Errors
    /// As [`Storage::read`].
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
/// does not allow.
///
/// [`close`](Storage::close) returns when both halves are dropped, with their files and locks. Dropping the storage
/// waits for that as well, but no longer than a quarter of a second for a call under way: a disk that hangs does
/// not block the caller. The half that hangs is dropped when the call returns, and keeps its files, and their locks, until then.
#[derive(Debug)]
pub struct ThreadedStorage {
    shared: Arc<Shared>,
    /// `None` once it is closed.
    jobs: Mutex<Option<Jobs>>,
}

#[derive(Debug)]
struct Jobs {
    writes: Sender<WriteJob>,
    reads: Sender<ReadJob>,
}

/// How often a storage without writes gets a chance to look after itself.
const IDLE: Duration = Duration::from_secs(1);

/// How long dropping waits for a call that is under way: longer than a healthy disk takes.
const CALL_MAX: Duration = Duration::from_millis(250);
/// How long it waits for files to be closed, when no call is under way.
const END_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Shared {
    poison: OnceLock<String>,
    room: AtomicU64,
    /// Jobs that have not begun are not begun any more.
    closing: AtomicBool,
    threads: Mutex<Threads>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Threads {
    /// Those that have not dropped their half yet.
    alive: usize,
    /// Those that are inside a call.
    busy: usize,
    wakers: Vec<Waker>,
}

/// One of the threads; the last thing that it drops.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        let wakers = {
            let mut threads = self.0.threads();
            threads.alive -= 1;
            std::mem::take(&mut threads.wakers)
        };
        self.0.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A call of a half, which may hang.
struct Call<'a>(&'a Shared);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.threads().busy -= 1;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self) -> Call<'_> {
        self.threads().busy += 1;
        Call(self)
    }

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
            log::error!(%error, "storage is poisoned");
            let _ = self.poison.set(error.to_string());
        }
        result
    }

    fn write_all(&self, mut writer: impl BlockingWriter, jobs: &Receiver<WriteJob>) {
        let mut is_recovered = false;
        loop {
            let job = jobs.recv_timeout(IDLE);
            let _call = self.call();
            if self.closing.load(Ordering::Acquire) {
                return;
            }
            match job {
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
                            let span =
                                log::debug_span!("write", entries = batch.entries.len(), state = batch.state.is_some());
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
            let _call = self.call();
            if self.closing.load(Ordering::Acquire) {
                return;
            }
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
        let failed = |error: std::io::Error| StorageError::io("starting the storage's threads", error);
        let alive = |shared: &Arc<Shared>| {
            shared.threads().alive += 1;
            Alive(shared.clone())
        };
        let (of_writer, of_reader) = (alive(&shared), alive(&shared));
        let write_all = move || {
            let alive = of_writer;
            alive.0.write_all(writer, &write_jobs);
        };
        let read_all = move || {
            let alive = of_reader;
            alive.0.read_all(reader, &read_jobs);
        };
        thread("vsr-writer").spawn(write_all).map_err(failed)?;
        thread("vsr-reader").spawn(read_all).map_err(failed)?;
        Ok(ThreadedStorage { shared, jobs: Mutex::new(Some(Jobs { writes, reads })) })
    }

    fn jobs(&self) -> MutexGuard<'_, Option<Jobs>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more work. Whether it took any before.
    fn begin_closing(&self) -> bool {
        self.shared.closing.store(true, Ordering::Release);
        self.jobs().take().is_some()
    }

    fn send<T>(&self, send: impl FnOnce(&Jobs) -> Result<(), T>) -> Result<(), StorageError> {
        self.jobs().as_ref().and_then(|jobs| send(jobs).ok()).ok_or_else(gone)
    }
}

impl Drop for ThreadedStorage {
    fn drop(&mut self) {
        if !self.begin_closing() {
            // Closed before: who did that has waited as long as it wanted to.
            return;
        }
        let threads = self.shared.threads();
        let in_a_call = |threads: &mut Threads| threads.alive > 0 && threads.busy > 0;
        let waited = self.shared.changed.wait_timeout_while(threads, CALL_MAX, in_a_call);
        let (mut threads, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if in_a_call(&mut threads) {
            log::warn!("the disk hangs: the storage stays in use until it answers");
            return;
        }
        let _ = self.shared.changed.wait_timeout_while(threads, END_MAX, |threads| threads.alive > 0);
    }
}

fn gone() -> StorageError {
    StorageError::Poisoned("the storage's thread has ended".to_owned())
}

#[async_trait]
impl Storage for ThreadedStorage {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        let (answer, recovered) = oneshot::channel();
        self.send(|jobs| jobs.writes.send(WriteJob::Recover(answer)))?;
        recovered.await.map_err(|_| gone())?
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let (answer, written) = oneshot::channel();
        self.send(|jobs| jobs.writes.send(WriteJob::Write(Box::new(batch), answer)))?;
        written.await.map_err(|_| gone())?
    }

    async fn read(&self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        let (answer, entries) = oneshot::channel();
        self.send(|jobs| jobs.reads.send(ReadJob { ops, bytes_max, answer }))?;
        entries.await.map_err(|_| gone())?
    }

    fn room(&self) -> u64 {
        self.shared.room.load(Ordering::Acquire)
    }

    async fn close(&self) {
        self.begin_closing();
        poll_fn(|context| {
            let mut threads = self.shared.threads();
            if threads.alive == 0 {
                return Poll::Ready(());
            }
            threads.wakers.retain(|waker| !waker.will_wake(context.waker()));
            threads.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::protocol::{ClusterId, ReplicaId, VsrState};
    use futures::executor::block_on;
    use futures::future::poll_immediate;

    /// Each write waits until the test lets it go on.
    struct Gated {
        state: VsrState,
        entered: Sender<()>,
        gate: Receiver<()>,
        /// Held like a lock on a file.
        _lock: Arc<()>,
    }

    impl BlockingWriter for Gated {
        fn recover(&mut self) -> Result<Recovered, StorageError> {
            Ok(Recovered { state: self.state.clone(), slots: Vec::new(), head_certain: true })
        }
        fn write(&mut self, _: Batch) -> Result<(), StorageError> {
            let _ = self.entered.send(());
            let _ = self.gate.recv();
            Ok(())
        }
    }

    struct Nothing(#[allow(dead_code, reason = "it is held like a lock on a file")] Arc<()>);

    impl BlockingReader for Nothing {
        fn read(&mut self, ops: RangeInclusive<OpNumber>, _: usize) -> Result<Entries, StorageError> {
            Ok(vec![(*ops.start(), None)])
        }
    }

    fn gated() -> (ThreadedStorage, Sender<()>, Receiver<()>, Arc<()>) {
        let ((open, gate), (entered, begun), lock) = (channel(), channel(), Arc::new(()));
        let state = Config::new(ClusterId(1), ReplicaId(0), ["a"]).expect("a configuration").formatted_state();
        let writer = Gated { state, entered, gate, _lock: lock.clone() };
        let storage = ThreadedStorage::start(writer, Nothing(lock.clone())).expect("threads");
        block_on(storage.recover()).expect("a state");
        (storage, open, begun, lock)
    }

    /// What the halves held is free when `close`, or a drop, has returned, also with a write under way.
    #[test]
    fn what_it_held_is_free_when_it_is_closed_or_dropped() {
        for closes in [true, false] {
            let (storage, open, _begun, lock) = gated();
            open.send(()).expect("it waits for it");
            block_on(storage.write(Batch::default())).expect("written");
            assert_eq!(Arc::strong_count(&lock), 3);
            if closes {
                block_on(storage.close());
                assert_eq!(Arc::strong_count(&lock), 1);
                assert!(matches!(block_on(storage.write(Batch::default())), Err(StorageError::Poisoned(_))));
                block_on(storage.close());
            }
            drop(storage);
            assert_eq!(Arc::strong_count(&lock), 1);
        }
    }

    /// Dropping the storage of a disk that hangs does not block; its files are in use until the disk answers.
    #[test]
    fn a_disk_that_hangs_blocks_nobody() {
        let (storage, open, begun, lock) = gated();
        let write = block_on(poll_immediate(storage.write(Batch::default())));
        assert!(write.is_none(), "it hangs");
        begun.recv().expect("the writer has it");
        let threads = storage.shared.clone();
        drop(storage);
        assert!(Arc::strong_count(&lock) >= 2, "it is still in use");
        drop(open);
        let waited = threads.changed.wait_while(threads.threads(), |threads| threads.alive > 0);
        assert_eq!(waited.expect("no panic").alive, 0);
        assert_eq!(Arc::strong_count(&lock), 1, "the disk has answered");
    }

    /// `close` waits for a disk that hangs; a caller that cannot wait drops the future.
    #[test]
    fn closing_waits_for_the_disk_and_can_be_given_up() {
        let (storage, open, begun, lock) = gated();
        assert!(block_on(poll_immediate(storage.write(Batch::default()))).is_none());
        begun.recv().expect("the writer has it");
        assert!(block_on(poll_immediate(storage.close())).is_none());
        let threads = storage.shared.clone();
        drop(storage);
        assert!(Arc::strong_count(&lock) >= 2, "it is still in use");
        drop(open);
        let waited = threads.changed.wait_while(threads.threads(), |threads| threads.alive > 0);
        assert_eq!(waited.expect("no panic").alive, 0);
        assert_eq!(Arc::strong_count(&lock), 1);
    }
}
