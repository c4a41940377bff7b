//! What the storage needs of a file, so that tests can lose power between any two sectors.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file of a fixed set of operations.
///
/// # The contract
/// 1. What [`sync`](Self::sync) has returned `Ok` for survives a power loss; what was written since may
///    survive in any subset of its 512-byte sectors.
/// 2. Reads see every write that has returned.
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
    /// Those of the disk. Afterwards nothing that was not synced before can be believed.
    fn sync(&self) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    /// Those of the operating system.
    fn len(&self) -> io::Result<u64>;

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
    pub(crate) fn open(path: &Path) -> io::Result<Disk> {
        OpenOptions::new().read(true).write(true).open(path).map(Disk)
    }

    pub(crate) fn create(path: &Path) -> io::Result<Disk> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).map(Disk)
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
}
