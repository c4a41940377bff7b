//! Whether a process has a storage open, without a lock: one that is taken, if only for a moment, could refuse a
//! replica that starts just then.

use std::fs::File;
use std::io::{self, Read};

use crate::site::FileSite;

/// How often the list of locks is read before nobody is said to be in it.
const LOOKS: u32 = 3;

/// Whether another process has the folder open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Usage {
    /// No process is seen that has. One in another container, or on another machine that has mounted the same disk, is not seen.
    NotSeen,
    /// A process has it: a replica most likely.
    By {
        /// Its id, where the operating system tells it.
        process: Option<u32>,
    },
    /// This operating system does not tell.
    Unknown,
}

/// Who has the state file locked, as Linux lists it.
pub(crate) fn usage(state: &FileSite) -> Usage {
    // A lock that is given back between two reads of the list hides the one after it.
    for _ in 0..LOOKS {
        let Ok(locks) = locks() else { return Usage::Unknown };
        if let Some(process) = holder(&locks, state) {
            return Usage::By { process };
        }
    }
    Usage::NotSeen
}

/// The list, in as few reads as there can be: the kernel gives a page at once, and only that is of one moment.
fn locks() -> io::Result<String> {
    let (mut file, mut list, mut page) = (File::open("/proc/locks")?, Vec::new(), [0; 4096]);
    loop {
        match file.read(&mut page)? {
            0 => return Ok(String::from_utf8_lossy(&list).into_owned()),
            len => list.extend_from_slice(&page[..len]),
        }
    }
}

/// The process that holds a lock of this file: `1: FLOCK ADVISORY WRITE 4711 fe:00:10010661 0 EOF`.
fn holder(locks: &str, file: &FileSite) -> Option<Option<u32>> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Of those that wait there is no process in this place, but an arrow before.
        let [_, "FLOCK", _, "WRITE", process, place, ..] = words[..] else { return None };
        let mut place = place.split(':');
        let mut device = || u64::from_str_radix(place.next()?, 16).ok();
        let (major, minor) = (device()?, device()?);
        let inode: u64 = place.next()?.parse().ok()?;
        (inode == file.inode && is_device(file.device, major, minor)).then(|| process.parse().ok())
    })
}

/// File systems without a device of their own (btrfs, overlays) have two numbers, both of major 0, and tell one to
/// `stat` and the other here. Better to warn once too often.
fn is_device(device: u64, major: u64, minor: u64) -> bool {
    let own_major = (device >> 32) & 0xffff_f000 | (device >> 8) & 0xfff;
    let own_minor = (device >> 12) & 0xffff_ff00 | device & 0xff;
    (own_major, own_minor) == (major, minor) || (own_major, major) == (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_that_of_its_file_alone() {
        let locks = "1: POSIX  ADVISORY  WRITE 5 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 6 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 7 fe:00:78 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 8 fe:00:79 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE -1 00:2b:80 0 EOF\n";
        let file = |device, inode| FileSite { device, inode, born: None };
        assert_eq!(holder(locks, &file(0xfe00, 78)), Some(Some(7)));
        assert_eq!(holder(locks, &file(0xfe01, 78)), None, "another device");
        for inode in [77, 79] {
            assert_eq!(holder(locks, &file(0xfe00, inode)), None, "no lock that a storage takes");
        }
        assert_eq!(holder(locks, &file(0x31, 80)), Some(None), "a file system without a device, and nobody to name");
        assert_eq!(holder("", &file(0xfe00, 78)), None);
    }
}
