//! Checkpoints as files of chunks: for storages that keep them in a folder.
//!
//! A file holds the chunks one behind the other, then the [`Manifest`], its length (4 bytes, little endian) and 8 bytes that say what it is.
//! It is written under another name, synced, and renamed: under its name it is whole, unless the disk damages it. Its name is that of the
//! checkpoint, so that what a folder holds can be told without opening anything.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::future::poll_fn;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use futures::channel::oneshot;

use crate::log;
use crate::protocol::{CHUNK_BYTES_MAX, CheckpointId, Checksum, Chunk, Manifest, OpNumber};
use crate::traits::state_machine::Snapshot;
use crate::traits::storage::{CheckpointReader, StorageError};

const END: &[u8; 8] = b"vsr ckpt";
/// The length of the manifest, and [`END`].
const TRAILER: usize = 4 + 8;
/// More than any manifest has: the bound of what is read for one.
const MANIFEST_MAX: u32 = 32 << 20;

/// Cuts what is written to it into chunks, and passes it on.
#[derive(Debug)]
pub struct ChunkWriter<W> {
    to: W,
    chunk: Vec<u8>,
    manifest: Manifest,
    /// Something was not written: what is written after it makes no checkpoint, also where the state machine did not look.
    has_failed: bool,
}

impl<W: Write> ChunkWriter<W> {
    /// The beginning of a checkpoint after this op.
    pub fn new(to: W, op: OpNumber) -> ChunkWriter<W> {
        ChunkWriter { to, chunk: Vec::new(), manifest: Manifest { op, chunks: Vec::new() }, has_failed: false }
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.has_failed {
            return Err(io::Error::other("an earlier write of this checkpoint has failed"));
        }
        if !self.chunk.is_empty() {
            let (checksum, len) = (Checksum::of(&self.chunk), self.chunk.len() as u32);
            self.to.write_all(&self.chunk).inspect_err(|_| self.has_failed = true)?;
            self.manifest.chunks.push(Chunk { checksum, len });
            self.chunk.clear();
        }
        Ok(())
    }

    /// Writes the last chunk and the manifest. What names the checkpoint, and where it was written to.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<(CheckpointId, W)> {
        self.end_chunk()?;
        let manifest = self.manifest.encode();
        self.to.write_all(&manifest)?;
        self.to.write_all(&(manifest.len() as u32).to_le_bytes())?;
        self.to.write_all(END)?;
        self.to.flush()?;
        Ok((self.manifest.id(), self.to))
    }
}

impl<W: Write> Write for ChunkWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_failed {
            return self.end_chunk().map(|()| 0);
        }
        let take = bytes.len().min(CHUNK_BYTES_MAX - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..take]);
        if self.chunk.len() == CHUNK_BYTES_MAX {
            self.end_chunk()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the bytes of a checkpoint, each after the checksum of its chunk was compared.
#[derive(Debug)]
pub struct ChunkReader<R> {
    from: R,
    manifest: Manifest,
    next: usize,
    chunk: Vec<u8>,
    at: usize,
}

impl<R: Read + Seek> ChunkReader<R> {
    /// Finds the manifest, and compares it with the name of the checkpoint.
    ///
    /// # Errors
    /// Those of the reader, and `InvalidData` when this is not that checkpoint, whole.
    pub fn new(mut from: R, id: CheckpointId) -> io::Result<ChunkReader<R>> {
        let end = from.seek(SeekFrom::End(0))?;
        let Some(trailer_at) = end.checked_sub(TRAILER as u64) else { return Err(damaged("it is cut off")) };
        let mut trailer = [0; TRAILER];
        from.seek(SeekFrom::Start(trailer_at))?;
        from.read_exact(&mut trailer)?;
        let len = u32::from_le_bytes(trailer[..4].try_into().unwrap_or_default());
        let manifest_at = trailer_at.checked_sub(len.into()).filter(|_| len <= MANIFEST_MAX);
        let Some(manifest_at) = manifest_at.filter(|_| &trailer[4..] == END) else {
            return Err(damaged("its end is not that of a checkpoint"));
        };
        let mut bytes = vec![0; len as usize];
        from.seek(SeekFrom::Start(manifest_at))?;
        from.read_exact(&mut bytes)?;
        let manifest = Manifest::decode(&bytes).filter(|manifest| manifest.id() == id);
        let Some(manifest) = manifest.filter(|manifest| manifest.bytes() == manifest_at) else {
            return Err(damaged("its manifest is not the one that it is named after"));
        };
        from.seek(SeekFrom::Start(0))?;
        Ok(ChunkReader { from, manifest, next: 0, chunk: Vec::new(), at: 0 })
    }

    /// Compares what was not read yet, too.
    ///
    /// # Errors
    /// As those of reading.
    pub fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink()).map(|_| ())
    }
}

impl<R: Read> Read for ChunkReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Some(Chunk { checksum, len }) = self.manifest.chunks.get(self.next).copied() else { return Ok(0) };
            self.chunk.resize(len as usize, 0);
            self.at = self.chunk.len();
            self.from.read_exact(&mut self.chunk)?;
            if Checksum::of(&self.chunk) != checksum {
                return Err(damaged(&format!("chunk {} of {} is damaged", self.next + 1, self.manifest.chunks.len())));
            }
            (self.next, self.at) = (self.next + 1, 0);
        }
        let take = to.len().min(self.chunk.len() - self.at);
        to[..take].copy_from_slice(&self.chunk[self.at..self.at + take]);
        self.at += take;
        Ok(take)
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The checkpoints of a storage, each in a file of a folder, written and read by threads of their own: beside the log, and without a place in
/// the order of its writes.
#[derive(Debug)]
pub struct CheckpointFolder {
    folder: PathBuf,
    jobs: Arc<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    /// What is under way ends with an error.
    closing: AtomicBool,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    count: usize,
    wakers: Vec<Waker>,
}

/// Something under way; ends with its thread.
struct Job(Arc<Jobs>);

impl Jobs {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> io::Result<()> {
        if self.closing.load(Ordering::Acquire) { Err(io::Error::other("the storage is closed")) } else { Ok(()) }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut running = self.0.running();
        running.count -= 1;
        let wakers = if running.count == 0 { std::mem::take(&mut running.wakers) } else { Vec::new() };
        drop(running);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for CheckpointFolder {
    fn drop(&mut self) {
        self.jobs.closing.store(true, Ordering::Release);
    }
}

/// Ends a write when the storage is closed.
struct UnlessClosed<'a, W>(W, &'a Jobs);

impl<W: Write> Write for UnlessClosed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.check()?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// So that two writes of one process never share a file: one that hangs may end after the next has begun.
static WRITES: AtomicU64 = AtomicU64::new(0);

fn name_of(id: CheckpointId) -> String {
    format!("{:020}-{:032x}", id.op.0, id.manifest.0)
}

impl CheckpointFolder {
    /// The checkpoints in this folder, which is made with the first of them.
    pub fn new(folder: impl Into<PathBuf>) -> CheckpointFolder {
        CheckpointFolder { folder: folder.into(), jobs: Arc::default() }
    }

    /// As [`Storage::write_checkpoint`](crate::Storage::write_checkpoint).
    ///
    /// # Errors
    /// As there.
    pub async fn write(
        &self,
        op: OpNumber,
        keep: Vec<CheckpointId>,
        content: Snapshot,
    ) -> Result<CheckpointId, StorageError> {
        let folder = self.folder.clone();
        let doing = format!("writing a checkpoint to {}", folder.display());
        let written = self.run(move |jobs| write(&folder, op, &keep, content, jobs)).await?;
        written.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StorageError::Full { used: 0, limit: 0 }
            }
            _ => StorageError::io(doing, error),
        })
    }

    /// As [`Storage::read_checkpoint`](crate::Storage::read_checkpoint).
    ///
    /// # Errors
    /// As there.
    pub async fn read(&self, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
        let path = self.folder.join(name_of(id));
        let read = self.run(move |_| read(&path, id, reader)).await?;
        read.map_err(|error| StorageError::CheckpointDamaged { id, what: error.to_string() })
    }

    /// Reads a checkpoint of a folder whole, at once, and compares every byte. How many there are, beside the manifest.
    ///
    /// # Errors
    /// Those of the disk, and `InvalidData` for what is not that checkpoint, whole.
    pub fn check(folder: impl AsRef<Path>, id: CheckpointId) -> io::Result<u64> {
        let file = File::open(folder.as_ref().join(name_of(id)))?;
        let chunks = ChunkReader::new(BufReader::new(file), id)?;
        let bytes = chunks.manifest.bytes();
        chunks.finish().map(|()| bytes)
    }

    /// Ends what is under way, and waits for that.
    pub async fn close(&self) {
        self.jobs.closing.store(true, Ordering::Release);
        poll_fn(|context| {
            let mut running = self.jobs.running();
            if running.count == 0 {
                return Poll::Ready(());
            }
            running.wakers.retain(|waker| !waker.will_wake(context.waker()));
            running.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Jobs) -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>, StorageError> {
        let (answer, done) = oneshot::channel();
        self.jobs.running().count += 1;
        let job = Job(self.jobs.clone());
        let work = move || {
            let _ = answer.send(job.0.check().and_then(|()| work(&job.0)));
        };
        let thread = std::thread::Builder::new().name("vsr-checkpoint".to_owned()).spawn(work);
        thread.map_err(|error| StorageError::io("starting a thread for a checkpoint", error))?;
        done.await.map_err(|_| StorageError::io("a checkpoint", "its thread has ended"))
    }
}

fn write(
    folder: &Path,
    op: OpNumber,
    keep: &[CheckpointId],
    content: Snapshot,
    jobs: &Jobs,
) -> io::Result<CheckpointId> {
    fs::create_dir_all(folder)?;
    let keep: Vec<String> = keep.iter().copied().map(name_of).collect();
    for file in fs::read_dir(folder)? {
        // A disk that hung here may answer when a successor has checkpoints of its own.
        jobs.check()?;
        let file = file?;
        // A folder (`lost+found`, where this is the root of a file system) is none of ours.
        let is_file = file.file_type()?.is_file();
        if is_file && !keep.iter().any(|name| OsStr::new(name) == file.file_name()) {
            fs::remove_file(file.path())?;
        }
    }
    let unfinished = folder.join(format!("{}-{}.new", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    let written = write_file(&unfinished, op, content, jobs).and_then(|id| {
        fs::rename(&unfinished, folder.join(name_of(id)))?;
        File::open(folder)?.sync_all()?;
        // The folder may be new, too.
        folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())?;
        Ok(id)
    });
    if written.is_err() {
        // The next one removes it, else.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_file(path: &Path, op: OpNumber, content: Snapshot, jobs: &Jobs) -> io::Result<CheckpointId> {
    let file = File::options().write(true).create_new(true).open(path)?;
    let mut to = ChunkWriter::new(UnlessClosed(file, jobs), op);
    content.write_to(&mut to)?;
    let (id, UnlessClosed(file, _)) = to.finish()?;
    file.sync_all()?;
    Ok(id)
}

fn read(path: &Path, id: CheckpointId, reader: CheckpointReader) -> io::Result<()> {
    let mut chunks = ChunkReader::new(BufReader::new(File::open(path)?), id)?;
    // The application's code: its panic ends this thread alone, and nobody would hear of it.
    let read = catch_unwind(AssertUnwindSafe(|| reader(&mut chunks)));
    read.unwrap_or_else(|_| {
        log::error!(path = %path.display(), "the state machine panicked while it was restored");
        Err(io::Error::other("the state machine panicked while it was restored"))
    })?;
    chunks.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use futures::executor::block_on;
    use futures::future::join;

    use super::*;

    fn content(bytes: Vec<u8>) -> Snapshot {
        Snapshot::with(move |to| to.write_all(&bytes))
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at / 7) as u8).collect()
    }

    fn chunked(content: &[u8]) -> (CheckpointId, Vec<u8>) {
        let mut to = ChunkWriter::new(Vec::new(), OpNumber(3));
        to.write_all(content).unwrap();
        to.finish().unwrap()
    }

    fn read_back(file: &[u8], id: CheckpointId) -> io::Result<Vec<u8>> {
        let mut chunks = ChunkReader::new(Cursor::new(file), id)?;
        let mut found = Vec::new();
        chunks.read_to_end(&mut found)?;
        chunks.finish()?;
        Ok(found)
    }

    #[test]
    fn what_is_written_in_chunks_is_read_as_it_was() {
        for len in [0, 1, CHUNK_BYTES_MAX - 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 3 * CHUNK_BYTES_MAX + 5] {
            let content = bytes(len);
            let (id, file) = chunked(&content);
            assert_eq!(read_back(&file, id).unwrap(), content, "{len} bytes");
        }
    }

    /// Clause 17: whatever is changed, cut or added, no byte of it is given as good.
    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let content = bytes(300);
        let (id, file) = chunked(&content);
        for at in 0..file.len() {
            let mut harmed = file.clone();
            harmed[at] ^= 0x10;
            assert!(read_back(&harmed, id).is_err(), "byte {at} of {}", file.len());
            assert!(read_back(&file[..at], id).is_err(), "cut at {at}");
        }
        let longer = [&file[..], &[0]].concat();
        assert!(read_back(&longer, id).is_err());
        let other = CheckpointId { op: OpNumber(4), ..id };
        assert!(read_back(&file, other).is_err(), "the checkpoint of another op");
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .map(|found| found.map(|file| file.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    fn read_all(folder: &CheckpointFolder, id: CheckpointId) -> Result<Vec<u8>, StorageError> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let into = found.clone();
        let reader: CheckpointReader = Box::new(move |from| from.read_to_end(&mut into.lock().unwrap()).map(|_| ()));
        block_on(folder.read(id, reader))?;
        let found = found.lock().unwrap().clone();
        Ok(found)
    }

    /// Clauses 15 and 16.
    #[test]
    fn g21_a_folder_keeps_what_it_is_told_to_and_removes_the_rest() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("checkpoints");
        let folder = CheckpointFolder::new(&path);
        let write = |op: u64, keep: &[CheckpointId]| {
            block_on(folder.write(OpNumber(op), keep.to_vec(), content(bytes(op as usize)))).unwrap()
        };
        let first = write(10, &[]);
        let second = write(20, &[first]);
        fs::write(path.join("17-3.new"), b"what a crash has left").unwrap();
        fs::create_dir(path.join("lost+found")).unwrap();
        let third = write(30, &[second]);
        assert_eq!(files(&path), [name_of(second), name_of(third), "lost+found".to_owned()]);
        assert_eq!(CheckpointFolder::check(&path, third).unwrap(), 30);
        assert_eq!((read_all(&folder, second).unwrap(), read_all(&folder, third).unwrap()), (bytes(20), bytes(30)));
        let gone = read_all(&folder, first).unwrap_err();
        assert!(matches!(&gone, StorageError::CheckpointDamaged { id, .. } if *id == first), "{gone}");
    }

    /// A state machine that does not look at an error leaves no checkpoint without what was lost by it.
    #[test]
    fn a_write_that_failed_is_not_forgotten() {
        struct Full(u32);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 == 2 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut to = ChunkWriter::new(Full(0), OpNumber(1));
        let written = to.write_all(&bytes(2 * CHUNK_BYTES_MAX)).map_err(|error| error.kind());
        assert_eq!(written, Err(io::ErrorKind::StorageFull));
        assert!(to.write_all(&[1]).is_err() && to.finish().is_err());
    }

    /// A write that fails leaves what was there, and no file; nor does a panic of the state machine hang anybody.
    #[test]
    fn a_checkpoint_that_fails_leaves_the_others() {
        let parent = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::new(parent.path().join("checkpoints"));
        let first = block_on(folder.write(OpNumber(1), Vec::new(), content(bytes(9)))).unwrap();
        let fails = Snapshot::with(|to| {
            to.write_all(&[1; 100])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        let failed = block_on(folder.write(OpNumber(2), vec![first], fails));
        assert!(matches!(failed, Err(StorageError::Full { .. })), "{failed:?}");
        assert_eq!(files(&parent.path().join("checkpoints")), [name_of(first)]);
        let panics: CheckpointReader = Box::new(|_| panic!("while it is restored"));
        let failed = block_on(folder.read(first, panics)).unwrap_err();
        assert!(failed.to_string().contains("panicked"), "{failed}");
        assert_eq!(read_all(&folder, first).unwrap(), bytes(9));
    }

    /// Closing ends a long checkpoint, and waits until its thread has let go of the folder.
    #[test]
    fn closing_ends_what_is_under_way() {
        let parent = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::new(parent.path().join("checkpoints"));
        let endless = Snapshot::with(|to| {
            loop {
                to.write_all(&[0; 1 << 16])?;
                std::thread::yield_now();
            }
        });
        let (written, ()) = block_on(join(folder.write(OpNumber(1), Vec::new(), endless), folder.close()));
        assert!(written.is_err(), "{written:?}");
        assert_eq!(files(&parent.path().join("checkpoints")), Vec::<String>::new());
    }
}
