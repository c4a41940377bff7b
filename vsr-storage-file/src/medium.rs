//! What the storage needs of a file, so that tests can lose power between any two sectors.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use crate::sector::SECTOR;
use crate::site::FileSite;

/// The grain at which a kernel reads, and disks fail.
pub(crate) const PAGE: usize = 4096;

/// Sectors of a page.
pub(crate) const PAGE_SECTORS: u64 = (PAGE / SECTOR) as u64;

/// What could not be read of something.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    pub(crate) sectors: u64,
    /// Why the first of them could not.
    pub(crate) error: Option<io::Error>,
}

/// Fills `buf`, whole sectors, from `offset`. What cannot be read is read again by page, then by sector; a
/// sector that cannot is left zero, and so is judged rotten: damage of what lies in it and of nothing else,
/// never a reason not to start.
pub(crate) fn read_sectors<M: Medium>(medium: &M, buf: &mut [u8], offset: u64) -> Unreadable {
    let mut unreadable = Unreadable::default();
    unreadable.read(medium, buf, offset, &[PAGE, SECTOR]);
    unreadable
}

impl Unreadable {
    fn read<M: Medium>(&mut self, medium: &M, buf: &mut [u8], offset: u64, grains: &[usize]) {
        let Err(error) = medium.read_at(buf, offset) else { return };
        let Some((&grain, finer)) = grains.split_first() else {
            buf.fill(0);
            self.sectors += 1;
            self.error.get_or_insert(error);
            return;
        };
        let mut at = 0;
        while at < buf.len() {
            let within = ((offset + at as u64) % grain as u64) as usize;
            let take = (grain - within).min(buf.len() - at);
            self.read(medium, &mut buf[at..at + take], offset + at as u64, finer);
            at += take;
        }
    }
}

/// A file of a fixed set of operations.
///
/// # The contract
/// 1. What [`sync`](Self::sync) has returned `Ok` for survives a power loss; what was written since may
///    survive in any subset of its 512-byte sectors.
/// 2. Reads see every write that has returned.
/// 3. After a `sync` that failed, what it was to make durable may be read until the power is lost, by later
///    processes as well, and no later `sync` need write it: kernels mark the pages clean. A caller that relies on it
///    writes it again first.
/// 4. A read fails when any part of it cannot be read. A smaller one may still succeed; an empty one always does.
/// 5. A `sync` fails for what was written since the one before. So where a sector cannot be written, others that are
///    written anew can still be made durable.
pub trait Medium: Send + Sync + 'static {
    /// Fills `buf` from `offset`; an error at the end of the file.
    ///
    /// # Errors
    /// Those of the disk.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, and makes the file longer when it ends behind the end.
    ///
    /// # Errors
    /// Those of the disk.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes durable what was written.
    ///
    /// # Errors
    /// Those of the disk. Afterwards nothing that was not synced before can be believed, though it can be
    /// read (3).
    fn sync(&self) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    /// Those of the operating system.
    fn len(&self) -> io::Result<u64>;

    /// These bytes are not needed any more, and may be given back to the file system. What is read there from now on may be anything.
    ///
    /// # Errors
    /// Those of the disk: none of them does harm.
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// Those of the operating system.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}

/// A file of the operating system.
#[derive(Debug)]
pub struct Disk(File);

impl Disk {
    pub(crate) fn site(&self) -> io::Result<FileSite> {
        self.0.metadata().map(|metadata| FileSite::of(&metadata))
    }

    pub(crate) fn open(path: &Path) -> io::Result<Disk> {
        OpenOptions::new().read(true).write(true).open(path).map(Disk)
    }

    /// For somebody who only looks: the operating system refuses every write.
    pub(crate) fn open_read_only(path: &Path) -> io::Result<Disk> {
        File::open(path).map(Disk)
    }

    pub(crate) fn create(path: &Path) -> io::Result<Disk> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).map(Disk)
    }

    /// What a write changes: the length, and the moment of the last one, as exactly as the file system keeps it.
    pub(crate) fn stamp(&self) -> io::Result<(u64, SystemTime)> {
        let metadata = self.0.metadata()?;
        Ok((metadata.len(), metadata.modified()?))
    }

    /// Takes the file for this process; `false` when another one has it.
    pub(crate) fn lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Medium for Disk {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // The length of the file is metadata that fdatasync writes where it is needed to read the data.
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    /// A hole, where the file system can make one. Where it cannot, the file takes its room until it is written over.
    #[cfg(target_os = "linux")]
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        Ok(fallocate(&self.0, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
    }
}

impl<M: Medium> Medium for std::sync::Arc<M> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }

    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).discard(offset, len)
    }
}
