//! The seal: what the database must not have lost.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

/// The version of the layout of database and seal.
pub(crate) const VERSION: u32 = 5;

const MAGIC: &[u8; 8] = b"vsr seal";
const SECTOR: usize = 512;
/// Each copy in a page of its own: an unreadable page takes one of them.
const APART: u64 = 4096;

/// Numbers of durable batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    /// The last one.
    pub(crate) batch: u64,
    /// The last one with a vsr state.
    pub(crate) state_batch: u64,
}

/// Why there is no seal to be read.
#[derive(Debug)]
pub(crate) enum NoSeal {
    Missing,
    Version(u32),
    Damaged,
    Io(io::Error),
}

/// Two copies, written in turn.
#[derive(Debug)]
pub(crate) struct SealFile {
    file: File,
    copy: u64,
}

impl SealFile {
    /// Makes an empty file, under a name that [`open`](Self::open) does not look for.
    pub(crate) fn create(path: &Path) -> io::Result<SealFile> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(SealFile { file, copy: 0 })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Both copies, and synced.
    pub(crate) fn write_all(&mut self, seal: Seal) -> io::Result<()> {
        self.write(seal)?;
        self.write(seal)?;
        self.sync()
    }

    pub(crate) fn open(path: &Path) -> Result<(SealFile, Seal), NoSeal> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NoSeal::Missing,
            _ => NoSeal::Io(error),
        })?;
        let mut newest: Option<(u64, Seal)> = None;
        for copy in 0..2 {
            let mut bytes = [0; SECTOR];
            if file.read_exact_at(&mut bytes, copy * APART).is_err() {
                continue;
            }
            let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
            if &bytes[..8] != MAGIC || u64_at(32) != xxh3_64(&bytes[..32]) {
                continue;
            }
            let version = u64_at(8) as u32;
            if version != VERSION {
                return Err(NoSeal::Version(version));
            }
            let seal = Seal { batch: u64_at(16), state_batch: u64_at(24) };
            if newest.is_none_or(|(_, newest)| seal.batch > newest.batch) {
                newest = Some((copy, seal));
            }
        }
        let (copy, seal) = newest.ok_or(NoSeal::Damaged)?;
        Ok((SealFile { file, copy: 1 - copy }, seal))
    }

    pub(crate) fn write(&mut self, seal: Seal) -> io::Result<()> {
        let mut bytes = [0; SECTOR];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&u64::from(VERSION).to_le_bytes());
        bytes[16..24].copy_from_slice(&seal.batch.to_le_bytes());
        bytes[24..32].copy_from_slice(&seal.state_batch.to_le_bytes());
        let checksum = xxh3_64(&bytes[..32]);
        bytes[32..40].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all_at(&bytes, self.copy * APART)?;
        self.copy = 1 - self.copy;
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
