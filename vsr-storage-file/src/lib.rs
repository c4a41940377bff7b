//! Durable storage for `vsr` on two preallocated files; pure Rust.
//!
//! `log` holds one record for each batch of entries, `state` the vsr state in two pairs of copies. Every
//! 512-byte sector is stamped with the write that it belongs to, its place and a checksum, so that a torn
//! write is told from rot, and a stale or misdirected sector from the right one, with a single sync for
//! each batch. The formats are described in the book, byte by byte.
//!
//! # What it rests on
//!
//! 1. **One write at a time.** A record is begun when everything before it is synced. So at a start only the
//!    last record can be incomplete, or readable and yet not on the disk (the sync of it failed, and the kernel
//!    keeps it until the power is lost). That one, and the state, are written again and synced before anything
//!    is said of them.
//! 2. **A start settles what it found.** Its first write is a state of a new *generation*, which says where the
//!    log ended (last complete write, sector), and which slots are lost. What lies before that sector is
//!    complete, but for what was noted as lost or rots since; what else was left there, of whatever start,
//!    never counts again. Records carry the generation that they were written under, so behind that sector only
//!    those of the newest state count, all of one process. Nothing is written over that a start may need to see that
//!    something was lost, before its state is durable. A lost slot is named with the generation that lost it: what
//!    older records show in it does not count, should the record that has put it again be lost in its turn.
//! 3. **Rot proves nothing.** A record is complete when all its sectors are there, or when a later write names
//!    it. It never completed when a sector of it holds something older, intact, and nothing came after it. In
//!    between, its damaged slots are corrupt; and where nothing at all can be read, a record may have been, and
//!    the head is uncertain.
//! 4. **Records lie below the watermark.** Every record and state says how much of the file is durably prepared
//!    (the first extent is since `format`), and no record reaches above what an earlier one says. So a file that
//!    ends below it, or holds zeros there, was damaged; what is above it was never in use.
//! 5. **What a lost record can have done is bounded.** A record only adds: ops above the head, slots that
//!    held nothing or were lost, the same entry again. One that drops or replaces entries is preceded by a state that
//!    says how far down it reaches; what the replica calls committed is replaced like the rest. So a hole takes the
//!    ops in it: entries from before it, below that reach, and all that were put after it stay clean.
//! 6. **Copies lie apart.** The headers of a record stand twice, in different sectors: a record of one sector
//!    has its second copy in the next record, at no further write. The state has its copies, and its
//!    superblocks, in different pages.
//! 7. **A sector that cannot be read is rot**, of that sector alone, and what it shows when it can be read again
//!    counts only if the log did not go on without it. **One that cannot be written, ever again**, takes one copy of
//!    the state, and the state is in two others then; in the unused log it is stepped over; under a record that was
//!    being written it ends the process, as every failed sync does, and the next start goes on behind it. A failure
//!    that does not repeat is none of these: it poisons the storage.
//! 8. **A folder knows its place** ([`FileStorage::accept_place`]): a copy, or a restored one, does not start.
//!
//! # What it cannot prove
//!
//! A disk that says of a write that it is done, and never does it, leaves intact old sectors there. The record after
//! it notices, as long as a sector of that one, or of a later one, can be read: bad sectors where nothing is written yet
//! are no loss, and those of the last record behind a lost one look alike. A whole *suffix* of records that was lost so, nobody notices: say 41 to 43 are acknowledged, their
//! sectors hold the blanks from before, and the power is lost; the log then ends after 40, for certain, exactly as
//! if 41 had never been begun. So does a log file that was put back, alone and in place, as it was earlier in the
//! same generation. Only a second durable write for each batch, elsewhere, could tell: one more sync, which is what a
//! batch costs. (The RocksDB storage pays it.) The next state closes the window: it says how far the log had come,
//! and from then on such a loss is damage. Against the disk's cache: switch off what it does not flush.
//!
//! # Where there is no room
//!
//! Extents are written and synced before they are used, with content, not holes. So on a file system that overwrites
//! in place (ext4, XFS) a batch or a state never needs room, and a full disk is [`Full`](vsr::storage::StorageError::Full) at
//! the preparation of an extent, where nothing is lost. On one that copies on write (btrfs, ZFS, bcachefs, snapshots
//! of a thin volume) every write needs room: one that is refused is `Full` as well; one that was taken, and fails in
//! the sync, is [`Io`](vsr::storage::StorageError::Io), ends the process, and says so in its text. Keep room free there, or
//! switch copying off for the folder.
//!
//! On the hot path a batch is one contiguous write and one sync, and a small op one sector of 512 bytes, at most
//! two. A state is written beside at a start, by the replica, and in the rare cases of 4 and 5.
//!
//! Until checkpoints exist nothing is ever dropped: the log grows by extents that are written and synced
//! before they are used, up to the limit given when the disk was formatted.

mod inline;
mod log;
pub mod medium;
mod ranges;
mod record;
mod scan;
mod sector;
mod site;
mod state;
mod storage;

pub use inline::InlineFileStorage;
pub use storage::{FileOptions, FileStorage, blocking_on};

use std::io::{Error, ErrorKind};

use vsr::storage::StorageError;

/// Says what was being done when the disk refused.
pub(crate) fn io_error(doing: impl Into<String>) -> impl Fn(Error) -> StorageError {
    let doing = doing.into();
    move |error| StorageError::io(doing.clone(), error)
}

/// As [`io_error`], for a write that can be tried again when it found no room: nothing that was there is changed,
/// and nothing that it wrote counts.
pub(crate) fn write_error(doing: impl Into<String>, used: u64, limit: u64) -> impl Fn(Error) -> StorageError {
    let failed = io_error(doing);
    move |error| if is_no_room(&error) { StorageError::Full { used, limit } } else { failed(error) }
}

/// As [`io_error`], for a sync. When that finds no room, what the file system had taken before is gone, though it
/// can be read: it cannot be tried again, as no later sync writes it.
pub(crate) fn sync_error(doing: impl Into<String>) -> impl Fn(Error) -> StorageError {
    let doing = doing.into();
    move |error| {
        if !is_no_room(&error) {
            return StorageError::io(doing.clone(), error);
        }
        let words = format!(
            "{error} (the file system took a write that it then had no room for, as one does that copies on write or \
             compresses: make room on it, and keep some free)"
        );
        StorageError::io(doing.clone(), Error::new(error.kind(), words))
    }
}

fn is_no_room(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}
