//! Checkpoints as files of chunks: for storages that keep them in a folder.
//!
//! A file holds the chunks one behind the other, then the [`Manifest`], its length (4 bytes, little endian) and 8 bytes that say what it is.
//! It is written under another name, synced, and renamed: under its name it is whole, unless the disk damages it. Its name is that of the
//! checkpoint, so that what a folder holds can be told without opening anything.

use std::fs::{self, File};
use std::future::poll_fn;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;

use super::system_clock::SystemClock;
use crate::log;
use crate::protocol::{CHUNK_BYTES_MAX, CheckpointId, Checksum, Chunk, Manifest, Monotonic, OpNumber};
use crate::traits::clock::Clock;
use crate::traits::state_machine::Snapshot;
use crate::traits::storage::{CheckpointReader, StorageError};

const END: &[u8; 8] = b"vsr ckpt";
/// The length of the manifest, and [`END`].
const TRAILER: usize = 4 + 8;
const OTHER_MANIFEST: &str = "its manifest is not the one that it is named after";
/// More than any manifest has: the bound of what is read for one.
const MANIFEST_MAX: u32 = 32 << 20;

/// Cuts what is written to it into chunks, and passes it on.
#[derive(Debug)]
pub struct ChunkWriter<W> {
    to: W,
    chunk: Vec<u8>,
    /// Bytes of a chunk, at most.
    longest: usize,
    manifest: Manifest,
    /// Something was not written: what is written after it makes no checkpoint, also where the state machine did not look.
    has_failed: bool,
}

impl<W: Write> ChunkWriter<W> {
    /// The beginning of a checkpoint after this op.
    pub fn new(to: W, op: OpNumber) -> ChunkWriter<W> {
        ChunkWriter::with_chunks_of(to, op, CHUNK_BYTES_MAX)
    }

    /// The same, in chunks of so many bytes, [`CHUNK_BYTES_MAX`] at most: for tests, whose states are small.
    pub fn with_chunks_of(to: W, op: OpNumber, bytes: usize) -> ChunkWriter<W> {
        let (manifest, longest) = (Manifest { op, chunks: Vec::new() }, bytes.clamp(1, CHUNK_BYTES_MAX));
        ChunkWriter { to, chunk: Vec::new(), longest, manifest, has_failed: false }
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
        write_end(&mut self.to, &self.manifest)?;
        Ok((self.manifest.id(), self.to))
    }
}

impl<W: Write> Write for ChunkWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_failed {
            return self.end_chunk().map(|()| 0);
        }
        let take = bytes.len().min(self.longest - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..take]);
        if self.chunk.len() == self.longest {
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
    pub fn new(from: R, id: CheckpointId) -> io::Result<ChunkReader<R>> {
        let chunks = ChunkReader::of_any(from)?;
        if chunks.manifest.id() == id { Ok(chunks) } else { Err(damaged(OTHER_MANIFEST)) }
    }

    /// Finds the manifest, whichever checkpoint it is of.
    ///
    /// # Errors
    /// Those of the reader, and `InvalidData` when this is no whole checkpoint.
    pub fn of_any(mut from: R) -> io::Result<ChunkReader<R>> {
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
        let manifest = Manifest::decode(&bytes).filter(|manifest| manifest.bytes() == manifest_at);
        let Some(manifest) = manifest else {
            return Err(damaged(OTHER_MANIFEST));
        };
        from.seek(SeekFrom::Start(0))?;
        Ok(ChunkReader { from, manifest, next: 0, chunk: Vec::new(), at: 0 })
    }

    /// The last op that the checkpoint contains.
    pub fn op(&self) -> OpNumber {
        self.manifest.op
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

/// A part of a checkpoint file, after its checksum was compared: part 0 is the manifest, the others are the chunks, counted from 1.
///
/// # Errors
/// [`StorageError::NoSuchPart`], and [`StorageError::CheckpointDamaged`] when this is not that checkpoint, not that part of it, or cannot be read.
pub fn read_part<R: Read + Seek>(from: R, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
    let is_damaged = |error: io::Error| StorageError::CheckpointDamaged { id, what: error.to_string() };
    let ChunkReader { mut from, manifest, .. } = ChunkReader::new(from, id).map_err(is_damaged)?;
    let Some(at) = part.checked_sub(1) else { return Ok(manifest.encode().into()) };
    let Some((before, [chunk, ..])) = manifest.chunks.split_at_checked(at as usize) else {
        return Err(StorageError::NoSuchPart { id, part });
    };
    let before: u64 = before.iter().map(|chunk| u64::from(chunk.len)).sum();
    let read = from.seek(SeekFrom::Start(before)).and_then(|_| read_chunk(&mut from, *chunk));
    let what = || damaged(&format!("chunk {part} of {} is damaged", manifest.chunks.len()));
    read.and_then(|bytes| bytes.ok_or_else(what)).map_err(is_damaged)
}

/// How many parts a checkpoint file has, if it is that checkpoint, whole: every byte is read.
pub fn whole_parts<R: Read + Seek>(from: R, id: CheckpointId) -> Option<u32> {
    let chunks = ChunkReader::new(from, id).ok()?;
    let parts = chunks.manifest.chunks.len() as u32 + 1;
    chunks.finish().ok().map(|()| parts)
}

/// The bytes of the next chunk; `None` when they are others.
fn read_chunk(from: &mut impl Read, chunk: Chunk) -> io::Result<Option<Bytes>> {
    let mut bytes = vec![0; chunk.len as usize];
    from.read_exact(&mut bytes)?;
    Ok((Checksum::of(&bytes) == chunk.checksum).then(|| bytes.into()))
}

/// Puts a checkpoint together from its parts, in their order.
#[derive(Debug)]
pub struct PartWriter<W> {
    to: W,
    manifest: Manifest,
    next: u32,
    /// Bytes of the chunks that are there.
    len: u64,
}

impl<W: Read + Write + Seek> PartWriter<W> {
    /// Begins with the manifest, and goes on behind what an earlier attempt has left, as far as that is right.
    ///
    /// # Errors
    /// Those of the file, and `InvalidData` for bytes that are not the manifest of that checkpoint.
    pub fn new(mut to: W, id: CheckpointId, manifest: &[u8]) -> io::Result<PartWriter<W>> {
        let manifest = Manifest::decode(manifest).filter(|manifest| manifest.id() == id);
        let manifest = manifest.ok_or_else(|| damaged("the bytes are not its manifest"))?;
        to.seek(SeekFrom::Start(0))?;
        let (mut left, mut len) = (0, 0);
        for chunk in &manifest.chunks {
            match read_chunk(&mut to, *chunk) {
                Ok(Some(_)) => (left, len) = (left + 1, len + u64::from(chunk.len)),
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(PartWriter { to, manifest, next: left + 1, len })
    }

    /// The bytes that are there.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no chunk is there yet.
    pub fn is_empty(&self) -> bool {
        self.next == 1
    }

    /// The part that is wanted next: one more than the last when all are there.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Whether all chunks are there.
    pub fn is_whole(&self) -> bool {
        self.next as usize > self.manifest.chunks.len()
    }

    /// Adds the next chunk.
    ///
    /// # Errors
    /// Those of the file, and `InvalidData` for another part than the next one, or other bytes than those of that part.
    pub fn add(&mut self, part: u32, bytes: &[u8]) -> io::Result<()> {
        let chunk = (part == self.next).then(|| self.manifest.chunks.get(part as usize - 1)).flatten();
        let Some(chunk) = chunk else { return Err(damaged("a part that is not the next one")) };
        if bytes.len() != chunk.len as usize || Checksum::of(bytes) != chunk.checksum {
            return Err(damaged(&format!("the bytes are not those of part {part}")));
        }
        // A write that failed midway is written over.
        self.to.seek(SeekFrom::Start(self.len))?;
        self.to.write_all(bytes)?;
        (self.next, self.len) = (self.next + 1, self.len + bytes.len() as u64);
        Ok(())
    }

    /// Ends it: what [`ChunkWriter`] would have written.
    ///
    /// # Errors
    /// Those of the file, and `InvalidData` while a part is missing.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.is_whole() {
            return Err(damaged("a part is missing"));
        }
        self.to.seek(SeekFrom::Start(self.len))?;
        write_end(&mut self.to, &self.manifest)?;
        Ok(self.to)
    }
}

/// What has come of another replica's checkpoint: of one at a time.
#[derive(Debug)]
pub struct Incoming<W>(Option<(CheckpointId, PartWriter<W>)>);

impl<W> Default for Incoming<W> {
    fn default() -> Self {
        Incoming(None)
    }
}

impl<W: Read + Write + Seek> Incoming<W> {
    /// Takes in a part, the manifest first. `begin` gives what to write to, with what an earlier, unfinished attempt has left there; it is given
    /// what this one has of that checkpoint. The part that is wanted next; and the file, which is whole then, when that was the last one.
    ///
    /// # Errors
    /// Those of [`PartWriter`] and of `begin`: what had come before is as good as it was.
    pub fn take_in(
        &mut self,
        (id, part): (CheckpointId, u32),
        bytes: &[u8],
        begin: impl FnOnce(Option<W>) -> io::Result<W>,
    ) -> io::Result<(u32, Option<W>)> {
        if part == 0 {
            let left = self.0.take().filter(|(of, _)| *of == id).map(|(_, parts)| parts.to);
            self.0 = Some((id, PartWriter::new(begin(left)?, id, bytes)?));
        }
        let Some((_, parts)) = self.0.as_mut().filter(|(of, _)| *of == id) else {
            return Err(damaged("a part of a checkpoint of which the manifest has not come"));
        };
        if part > 0 {
            parts.add(part, bytes)?;
        }
        let next = parts.next();
        let whole = if parts.is_whole() { self.0.take() } else { None };
        Ok((next, whole.map(|(_, parts)| parts.finish()).transpose()?))
    }
}

fn write_end(to: &mut impl Write, manifest: &Manifest) -> io::Result<()> {
    let manifest = manifest.encode();
    to.write_all(&manifest)?;
    to.write_all(&(manifest.len() as u32).to_le_bytes())?;
    to.write_all(END)?;
    to.flush()
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
    /// What has come of another replica's checkpoint.
    coming: Arc<Mutex<Incoming<Sliced>>>,
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

/// Bytes of a checkpoint that are written within a second, at most: the log has the disk, and the replica the processors, most of the time.
const BYTES_PER_SECOND: u64 = 128 << 20;
/// Bytes that are written at a time, and synced: a sync of the log that comes meanwhile waits behind no more than these.
const SLICE: usize = 64 << 10;
/// The same of another replica's checkpoint: who fetches one acknowledges nothing meanwhile.
const SLICE_FETCHED: usize = 1 << 20;

/// A checkpoint file that is written slice by slice, and whose writing ends when the storage is closed.
#[derive(Debug)]
struct Sliced {
    file: File,
    /// Bytes after which it is synced.
    slice: usize,
    /// Bytes that were written since.
    unsynced: usize,
    jobs: Arc<Jobs>,
}

impl Write for Sliced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.jobs.check()?;
        let written = self.file.write(&bytes[..bytes.len().min(self.slice - self.unsynced)])?;
        self.unsynced += written;
        if self.unsynced == self.slice {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for Sliced {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.jobs.check()?;
        self.file.read(to)
    }
}

impl Seek for Sliced {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// As slowly as leaves room for others. (What is fetched comes at the pace of the network.)
struct Paced {
    to: Sliced,
    clock: SystemClock,
    begin: Monotonic,
    written: u64,
}

impl Write for Paced {
    #[allow(clippy::disallowed_methods, reason = "a thread of its own, which has nothing else to do")]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let due = Duration::from_micros(self.written.saturating_mul(1_000_000) / BYTES_PER_SECOND);
        std::thread::sleep(due.saturating_sub(self.clock.now().since(self.begin)));
        let written = self.to.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
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
        CheckpointFolder { folder: folder.into(), jobs: Arc::default(), coming: Arc::default() }
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
        written.map_err(|error| write_error(doing, error))
    }

    /// As [`Storage::read_part`](crate::Storage::read_part).
    ///
    /// # Errors
    /// As there.
    pub async fn read_part(&self, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
        let path = self.folder.join(name_of(id));
        let read = self.run(move |_| Ok(read_part(BufReader::new(File::open(path)?), id, part))).await?;
        read.unwrap_or_else(|error| Err(StorageError::CheckpointDamaged { id, what: error.to_string() }))
    }

    /// As [`Storage::write_part`](crate::Storage::write_part).
    ///
    /// # Errors
    /// As there.
    pub async fn write_part(
        &self,
        id: CheckpointId,
        part: u32,
        bytes: Bytes,
        keep: Vec<CheckpointId>,
    ) -> Result<u32, StorageError> {
        let (folder, coming) = (self.folder.clone(), self.coming.clone());
        let doing = format!("writing a part of a checkpoint to {}", folder.display());
        let written = self.run(move |jobs| {
            // One that panicked has left nothing that counts.
            let mut coming = coming.lock().unwrap_or_else(PoisonError::into_inner);
            write_part(&folder, &mut coming, (id, part), &bytes, &keep, jobs)
        });
        written.await?.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => StorageError::CheckpointDamaged { id, what: error.to_string() },
            _ => write_error(doing, error),
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
        work: impl FnOnce(&Arc<Jobs>) -> io::Result<T> + Send + 'static,
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

fn write_error(doing: String, error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StorageError::Full { used: 0, limit: 0 }
        }
        _ => StorageError::io(doing, error),
    }
}

/// Behind the name of a checkpoint that is fetched and not whole.
const COMING: &str = ".part";

fn write_part(
    folder: &Path,
    coming: &mut Incoming<Sliced>,
    (id, part): (CheckpointId, u32),
    bytes: &[u8],
    keep: &[CheckpointId],
    jobs: &Arc<Jobs>,
) -> io::Result<u32> {
    let (whole, unfinished) = (folder.join(name_of(id)), folder.join(name_of(id) + COMING));
    if part == 0 {
        fs::create_dir_all(folder)?;
        let keep: Vec<String> = keep.iter().chain([&id]).map(|id| name_of(*id) + COMING).collect();
        for file in fs::read_dir(folder)? {
            let (path, name) = file.map(|file| (file.path(), file.file_name()))?;
            let is_coming = name.to_string_lossy().ends_with(COMING);
            if is_coming && !keep.iter().any(|name| path.ends_with(name)) {
                fs::remove_file(path)?;
            }
        }
        // An earlier life may have ended before it was named.
        let there = File::open(&whole).ok().and_then(|file| whole_parts(BufReader::new(file), id));
        if let Some(parts) = there {
            return Ok(parts);
        }
    }
    let begin = |_| {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&unfinished)?;
        Ok(Sliced { file, slice: SLICE_FETCHED, unsynced: 0, jobs: jobs.clone() })
    };
    let (next, file) = coming.take_in((id, part), bytes, begin).inspect_err(|error| {
        if error.kind() != io::ErrorKind::InvalidData {
            // What a failed sync has left may never reach the disk, and is read as if it had.
            let _ = fs::remove_file(&unfinished);
        }
    })?;
    if let Some(Sliced { mut file, .. }) = file {
        // An earlier attempt may have left more behind its end.
        let end = file.stream_position()?;
        file.set_len(end)?;
        file.sync_all()?;
        fs::rename(unfinished, whole)?;
        File::open(folder)?.sync_all()?;
        folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())?;
    }
    Ok(next)
}

fn write(
    folder: &Path,
    op: OpNumber,
    keep: &[CheckpointId],
    content: Snapshot,
    jobs: &Arc<Jobs>,
) -> io::Result<CheckpointId> {
    fs::create_dir_all(folder)?;
    let keep: Vec<String> = keep.iter().copied().map(name_of).collect();
    for file in fs::read_dir(folder)? {
        // A disk that hung here may answer when a successor has checkpoints of its own.
        jobs.check()?;
        let file = file?;
        // A folder (`lost+found`, where this is the root of a file system) is none of ours.
        let is_file = file.file_type()?.is_file();
        let name = file.file_name();
        let name = name.to_str().map(|name| name.strip_suffix(COMING).unwrap_or(name));
        if is_file && !name.is_some_and(|name| keep.iter().any(|keep| keep == name)) {
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

fn write_file(path: &Path, op: OpNumber, content: Snapshot, jobs: &Arc<Jobs>) -> io::Result<CheckpointId> {
    let file = File::options().write(true).create_new(true).open(path)?;
    let (to, clock) = (Sliced { file, slice: SLICE, unsynced: 0, jobs: jobs.clone() }, SystemClock::new());
    let begin = clock.now();
    let mut to = ChunkWriter::new(Paced { to, clock, begin, written: 0 }, op);
    content.write_to(&mut to)?;
    let (id, Paced { to: Sliced { file, .. }, .. }) = to.finish()?;
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
mod tests;
