//! Where a folder was formatted. A copy of it, or what was restored from a backup, has other files: it refuses to start, as the replica may
//! have gone on with the original.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use vsr::storage::StorageError;
use xxhash_rust::xxh3::xxh3_64;

use crate::folder::{PLACE, failed, missing};

const MAGIC: &[u8; 8] = b"vsrplace";
const LEN: usize = 64;
/// Each copy in a page of its own.
const APART: u64 = 4096;

/// What tells a file from a copy of it, whatever is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not tell.
    born: u64,
}

impl Identity {
    fn of(file: &File) -> io::Result<Identity> {
        let metadata = file.metadata()?;
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |born| born.as_nanos() as u64);
        Ok(Identity { device: metadata.dev(), inode: metadata.ino(), born })
    }
}

impl Identity {
    /// The device does not decide: many file systems number it anew at each mount, and an ordinary reboot would be refused.
    fn is_same(&self, other: &Identity) -> bool {
        let other_birth = self.born != 0 && other.born != 0 && self.born != other.born;
        self.inode == other.inode && !other_birth
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} inode {} born {}", self.device, self.inode, self.born)
    }
}

/// The two files of the storage that are only ever written in place. The database renames and replaces its own. Two, as tools that restore
/// a backup leave a file alone that has not changed since: this one never does, the seal always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    own: Identity,
    seal: Identity,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "place: {}, seal: {}", self.own, self.seal)
    }
}

impl Place {
    fn encode(&self) -> [u8; LEN] {
        let Place { own, seal } = self;
        let mut out = [0; LEN];
        out[..8].copy_from_slice(MAGIC);
        let words = [own.device, own.inode, own.born, seal.device, seal.inode, seal.born];
        for (to, word) in out[8..56].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let checksum = xxh3_64(&out[..56]);
        out[56..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; LEN]) -> Option<Place> {
        let mut words =
            bytes.chunks_exact(8).filter_map(|word| word.first_chunk::<8>().copied()).map(u64::from_le_bytes);
        let magic = words.next()?;
        let mut identity = || Some(Identity { device: words.next()?, inode: words.next()?, born: words.next()? });
        let place = Place { own: identity()?, seal: identity()? };
        let checksum = words.next()?;
        (magic == u64::from_le_bytes(*MAGIC) && checksum == xxh3_64(&bytes[..56])).then_some(place)
    }
}

/// The file `place`. The process that has it open owns the folder, until it is closed.
#[derive(Debug)]
pub(crate) struct PlaceFile {
    file: File,
    folder: PathBuf,
}

impl PlaceFile {
    pub(crate) fn create(folder: &Path) -> Result<PlaceFile, StorageError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        PlaceFile::lock(options.open(folder.join(PLACE)), folder)
    }

    pub(crate) fn open(folder: &Path) -> Result<PlaceFile, StorageError> {
        PlaceFile::lock(OpenOptions::new().read(true).write(true).open(folder.join(PLACE)), folder)
    }

    /// A lock of our own: that of RocksDB is told from other refusals by its English words only.
    fn lock(opened: io::Result<File>, folder: &Path) -> Result<PlaceFile, StorageError> {
        let path = folder.join(PLACE);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(&path),
            _ => failed(format!("opening {}", path.display()))(error),
        })?;
        match file.try_lock() {
            Ok(()) => Ok(PlaceFile { file, folder: folder.to_owned() }),
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse(folder.display().to_string())),
            Err(TryLockError::Error(error)) => Err(failed(format!("locking {}", path.display()))(error)),
        }
    }

    /// Records where the folder is now.
    pub(crate) fn record(&self, seal: &File) -> Result<(), StorageError> {
        let bytes = self.found(seal)?.encode();
        let written = (0..2).try_for_each(|copy| {
            // One after the other: a torn one leaves what the other says.
            self.file.write_all_at(&bytes, copy * APART)?;
            self.file.sync_all()
        });
        written.map_err(|error| failed(format!("writing {}", self.path().display()))(error))
    }

    /// Refuses a folder that is not where it was formatted, or was accepted.
    pub(crate) fn check(&self, seal: &File) -> Result<(), StorageError> {
        let recorded = (0..2).find_map(|copy| {
            let mut bytes = [0; LEN];
            self.file.read_exact_at(&mut bytes, copy * APART).ok()?;
            Place::decode(&bytes)
        });
        let found = self.found(seal)?;
        let path = self.folder.display().to_string();
        let Some(recorded) = recorded else {
            let recorded = "nothing that can be read".to_owned();
            return Err(StorageError::OtherPlace { path, recorded, found: found.to_string() });
        };
        if recorded.own.is_same(&found.own) && recorded.seal.is_same(&found.seal) {
            if recorded != found {
                tracing::warn!(path, %recorded, %found, "the storage is on another device, or was mounted anew");
            }
            return Ok(());
        }
        Err(StorageError::OtherPlace { path, recorded: recorded.to_string(), found: found.to_string() })
    }

    fn found(&self, seal: &File) -> Result<Place, StorageError> {
        let found = Identity::of(&self.file).and_then(|own| Ok(Place { own, seal: Identity::of(seal)? }));
        found.map_err(|error| failed(format!("looking where {} is", self.folder.display()))(error))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(PLACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inode_and_birth_decide_and_the_device_does_not() {
        let here = Identity { device: 1, inode: 2, born: 3 };
        assert!(here.is_same(&Identity { device: 9, ..here }), "a reboot may number the devices anew");
        assert!(!here.is_same(&Identity { inode: 9, ..here }));
        assert!(!here.is_same(&Identity { born: 9, ..here }), "an inode number that is used again");
        assert!(here.is_same(&Identity { born: 0, ..here }), "a kernel that does not tell");
    }

    #[test]
    fn a_place_round_trips_and_a_flipped_bit_is_noticed() {
        let own = Identity { device: 1, inode: 2, born: 3 };
        let place = Place { own, seal: Identity { inode: 4, ..own } };
        let bytes = place.encode();
        assert_eq!(Place::decode(&bytes), Some(place));
        for bit in 0..LEN * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Place::decode(&bytes), None, "bit {bit}");
        }
    }
}
