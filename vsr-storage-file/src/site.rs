//! How a folder knows that it is a copy.
//!
//! Two replicas on copies of one folder acknowledge different things under one name, and a folder that was
//! restored from a backup has forgotten what it acknowledged since. So `format` records what identifies the
//! place of the two files, and every opening compares.
//!
//! Compared are inode and birth time. A copy has new ones, whatever copied it file by file; `mv` within a file
//! system, and a reboot, keep both. Birth times are compared where both are known (kernel and file system tell).
//! The device is recorded and shown, and a difference in it alone is only warned of: device numbers are given
//! anew at each mount by NFS, device mapper, btrfs and others, so that an ordinary reboot would be refused.
//!
//! What cannot be noticed so: an image of the whole file system (a snapshot of a virtual machine, of a volume,
//! of a subvolume), which has every number alike, and content that was written into the same files.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

/// Bytes of an encoded [`Site`].
pub(crate) const SITE: usize = 8 + 2 * FILE;
const FILE: usize = 8 + 8 + 8 + 4 + 4;
const MAGIC: &[u8; 8] = b"vsr site";

/// What identifies one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSite {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Seconds since 1970, and nanoseconds.
    pub(crate) born: Option<(u64, u32)>,
}

impl FileSite {
    pub(crate) fn of(metadata: &Metadata) -> FileSite {
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        // Some file systems say 1970 where they do not know.
        let born = born.filter(|born| !born.is_zero()).map(|born| (born.as_secs(), born.subsec_nanos()));
        FileSite { device: metadata.dev(), inode: metadata.ino(), born }
    }

    fn is_same(&self, other: &FileSite) -> bool {
        let other_birth = matches!((self.born, other.born), (Some(mine), Some(its)) if mine != its);
        self.inode == other.inode && !other_birth
    }

    /// In which numbers the file that was found differs from this one, which was recorded.
    fn differences(&self, name: &str, found: &FileSite) -> Vec<String> {
        let born = |site: &FileSite| site.born.map(|(seconds, nanos)| format!("{seconds}.{nanos:09}"));
        let mut all = Vec::new();
        if self.inode != found.inode {
            all.push(format!("{name} has inode {}, recorded was {}", found.inode, self.inode));
        }
        if let (Some(recorded), Some(found)) = (born(self), born(found))
            && recorded != found
        {
            all.push(format!("{name} was born {found}, recorded was {recorded} (seconds since 1970)"));
        }
        if self.device != found.device {
            all.push(format!("{name} is on device {}, recorded was {}", found.device, self.device));
        }
        all
    }

    fn encode(&self) -> [u8; FILE] {
        let (seconds, nanos) = self.born.unwrap_or_default();
        let mut out = [0; FILE];
        out[..8].copy_from_slice(&self.device.to_le_bytes());
        out[8..16].copy_from_slice(&self.inode.to_le_bytes());
        out[16..24].copy_from_slice(&seconds.to_le_bytes());
        out[24..28].copy_from_slice(&nanos.to_le_bytes());
        out[28..].copy_from_slice(&u32::from(self.born.is_some()).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; FILE]) -> FileSite {
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let born = (u32_at(28) == 1).then(|| (u64_at(16), u32_at(24)));
        FileSite { device: u64_at(0), inode: u64_at(8), born }
    }
}

impl fmt::Display for FileSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {} of device {}", self.inode, self.device)?;
        match self.born {
            Some((seconds, nanos)) => write!(f, " born {seconds}.{nanos:09}"),
            None => Ok(()),
        }
    }
}

/// What identifies the place of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) log: FileSite,
    pub(crate) state: FileSite,
}

impl Site {
    pub(crate) fn is_same(&self, other: &Site) -> bool {
        self.log.is_same(&other.log) && self.state.is_same(&other.state)
    }

    /// What the place that was found has different from this one, which was recorded.
    pub(crate) fn differences(&self, found: &Site) -> Vec<String> {
        [self.log.differences("log", &found.log), self.state.differences("state", &found.state)].concat()
    }

    pub(crate) fn encode(&self) -> [u8; SITE] {
        let mut out = [0; SITE];
        out[..8].copy_from_slice(MAGIC);
        out[8..8 + FILE].copy_from_slice(&self.log.encode());
        out[8 + FILE..].copy_from_slice(&self.state.encode());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Site> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (log, rest) = rest.split_first_chunk::<FILE>()?;
        let state = rest.first_chunk::<FILE>()?;
        Some(Site { log: FileSite::decode(log), state: FileSite::decode(state) })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log {}; state {}", self.log, self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: FileSite = FileSite { device: 1, inode: 2, born: Some((3, 4)) };

    #[test]
    fn inode_and_birth_decide_and_the_device_does_not() {
        assert!(HERE.is_same(&FileSite { device: 9, ..HERE }), "a reboot may number the devices anew");
        assert!(!HERE.is_same(&FileSite { inode: 9, ..HERE }));
        assert!(!HERE.is_same(&FileSite { born: Some((3, 5)), ..HERE }), "an inode number that is used again");
        assert!(HERE.is_same(&FileSite { born: None, ..HERE }), "a kernel that does not tell");
        assert!(!HERE.is_same(&FileSite { inode: 9, born: None, ..HERE }));
    }

    #[test]
    fn what_differs_is_named_with_its_file() {
        let here = Site { log: HERE, state: HERE };
        assert!(here.differences(&here).is_empty());
        let there =
            Site { log: FileSite { inode: 9, ..HERE }, state: FileSite { device: 9, born: Some((3, 5)), ..HERE } };
        let named = here.differences(&there);
        assert_eq!(named.len(), 3, "{named:?}");
        assert_eq!(named[0], "log has inode 9, recorded was 2");
        assert!(named[1].starts_with("state was born 3.000000005, recorded was 3.000000004"), "{named:?}");
        assert_eq!(named[2], "state is on device 9, recorded was 1");
        let unknown = Site { state: FileSite { born: None, ..HERE }, ..here };
        assert!(here.differences(&unknown).is_empty(), "a kernel that does not tell");
    }

    #[test]
    fn a_site_comes_back() {
        let site = Site { log: HERE, state: FileSite { born: None, inode: 7, ..HERE } };
        assert_eq!(Site::decode(&site.encode()), Some(site));
        assert_eq!(Site::decode(&[0; SITE]), None);
    }
}
