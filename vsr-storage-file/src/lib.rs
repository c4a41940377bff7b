//! Durable storage for `vsr` on two preallocated files; pure Rust.
//!
//! `log` holds one record for each batch of entries, `state` the vsr state in two pairs of copies. Every
//! 512-byte sector is stamped with the write that it belongs to, its place and a checksum, so that a torn
//! write is told from rot, and a stale or misdirected sector from the right one, with a single sync for
//! each batch.
//!
//! - [In a replica](#in-a-replica)
//! - [What it guarantees](#what-it-guarantees), [what that rests on](#what-it-rests-on), and
//!   [what it cannot prove](#what-it-cannot-prove)
//! - [Options](#options), [where there is no room](#where-there-is-no-room)
//! - [Errors, and what an operator does](#errors-and-what-an-operator-does), [a look at a folder](#a-look-at-a-folder), [metrics](#metrics),
//!   [format](#format)
//!
//! # In a replica
//!
//! A folder belongs to one replica. It is formatted once, by an operator, and opened at each start; opening never creates anything.
//!
//! ```
//! # use std::io::Read;
//! # use vsr::{ApplyContext, QueryContext, RestoreError, Snapshot, StateMachine};
//! # #[derive(Default)]
//! # struct Counter(i64);
//! # impl StateMachine for Counter {
//! #     type Command = i64;
//! #     type Reply = i64;
//! #     type Query = ();
//! #     type Answer = i64;
//! #     fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 { self.0 += n; self.0 }
//! #     fn query(&self, _: &QueryContext, (): ()) -> i64 { self.0 }
//! #     fn snapshot(&self) -> Snapshot { Snapshot::of(self.0) }
//! #     fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> { Snapshot::read(from).map(Counter) }
//! # }
//! use futures::executor::block_on;
//! use futures::future::join;
//! use vsr::memory::MemoryNetwork;
//! use vsr::{ClusterId, Config, Replica, ReplicaId};
//! use vsr_storage_file::FileStorage;
//!
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path().join("replica-0");
//! let config = Config::new(ClusterId(7), ReplicaId(0), ["127.0.0.1:4000"])?; // a cluster of one
//! FileStorage::format(&folder, &config)?;
//!
//! for start in 1..=2 {
//!     let storage = FileStorage::open(&folder)?;
//!     let network = MemoryNetwork::new(1).endpoint(ReplicaId(0)); // or a `vsr_net_tcp::TcpNetwork`
//!     let (replica, counter) =
//!         Replica::builder(config.clone(), Counter::default()).storage(storage).network(network).build()?;
//!     let application = async {
//!         let sum = counter.submit(5).await;
//!         counter.shutdown().await; // the folder is free when this returns
//!         sum
//!     };
//!     let (ended, sum) = block_on(join(replica.run(), application));
//!     ended?;
//!     assert_eq!(sum?, 5 * start); // what was answered is there at the next start
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Its work is done by two threads of its own: one writes and syncs, one reads. No executor is blocked, and a disk that hangs blocks no
//! thread but these. [`InlineFileStorage`] and [`blocking_on`] are for other executors and media, in tests above all.
//!
//! # What it guarantees
//!
//! All clauses of [`Storage`](vsr::Storage)'s contract (`tests/conformance.rs` runs the suite against it, on files whose power is cut between any two
//! sectors), on a disk that keeps what it says it has synced. In the words of a replica:
//!
//! - **Durable and in order** (1, 2): when a write has returned, its batch and all before it survive a crash and a power loss.
//! - **Atomic** (3, 4, 6): after a crash the vsr state is the old or the new one. An entry that was truncated does not come back.
//! - **A crash is not rot, and rot is not absence** (5, 7, 8): what a crash left unfinished is `Absent`, and the head is certain. What may have been acknowledged and cannot
//!   be read is `Corrupt`, at every later start as well, until the protocol has put it again. So a replica denies only what it never had.
//! - **Damage takes what lies in it** (9): one bad sector costs the entries in it. Headers and the state stand twice.
//! - **Poisoned after a failure** (10): no sync is retried. The next start writes anew what the failure may have kept from the disk.
//! - **Full is an error** (13) with which nothing is lost, and the replica goes on.
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
//! of a thin volume) every write needs room: one that is refused is `Full` as well, and so is one that was taken, and fails in
//! the sync. What it took can then be read, and is not on the disk; so nothing of it counts, and it is written again, from the batch, until there is room. A start
//! that finds none reads again, and writes again, from its beginning.
//!
//! A limit on the size of files (`ulimit -f`) is a full disk as well, if the process handles the signal `SIGXFSZ`; where it does not, the
//! operating system ends it at the first write over the limit. The programs in `examples` handle it.
//!
//! On the hot path a batch is one contiguous write and one sync, and a small op one sector of 512 bytes, at most
//! two. A state is written beside at a start, by the replica, and in the rare cases of 4 and 5.
//!
//! The log grows by extents that are written and synced before they are used, up to the limit given when the disk was formatted; where it comes to that it goes on
//! at the beginning of the file, over what the replica has dropped (the base of the vsr state). A state says at which sector the first record
//! begins that is needed; what is before is given back to the file system, where that can make holes. Checkpoints ([`CheckpointFolder`](vsr::checkpoints::CheckpointFolder)) lie in a
//! folder `checkpoints` beside it; a start goes on from the newest that is whole.
//!
//! # Options
//!
//! [`FileOptions`], decided by [`format_with`](FileStorage::format_with) and kept on the disk.
//!
//! | field | unit | default | range |
//! |---|---|---|---|
//! | `log_limit` | bytes of the file `log` | 1 GiB | at least [`Constants::log_room_min`](vsr::protocol::Constants::log_room_min) of the cluster |
//! | `extent` | bytes by which it grows, doubling up to 64 MiB | 4 MiB | 64 KiB to 64 MiB; other values are taken for the nearest of these |
//!
//! `state` has a fixed size of about 4 MiB. A replica refuses requests before the log is full
//! ([`Config::log_bytes_max`](vsr::Config::log_bytes_max), [`Storage::room`](vsr::Storage::room)), with
//! [`SubmitError::LogFull`](vsr::SubmitError::LogFull); queries go on.
//!
//! # Errors, and what an operator does
//!
//! An error of [`open`](FileStorage::open), or of a running replica, names the file and who must act. Formatting again is never the cure: it makes a disk that
//! has forgotten what it acknowledged.
//!
//! | error | what is the matter | what to do |
//! |---|---|---|
//! | [`NotFormatted`](vsr::storage::StorageError::NotFormatted) | the folder is not there or empty, or formatting it was interrupted | format it if the replica has never run; else mount its disk |
//! | [`Missing`](vsr::storage::StorageError::Missing) | one of the two files is gone | put it back if it was moved away; else give the replica a new disk (`format_for`) |
//! | [`Damaged`](vsr::storage::StorageError::Damaged) | a file is another disk's, or none of this crate's | put the right one back; else give the replica a new disk (`format_for`) |
//! | [`StateLost`](vsr::storage::StorageError::StateLost) | no copy of the newest state is intact | give the replica a new disk (`format_for`) |
//! | [`OtherPlace`](vsr::storage::StorageError::OtherPlace) | the folder is a copy, or was restored | [`accept_place`](FileStorage::accept_place) if it is the only copy and nothing ran since; else give the replica a new disk (`format_for`) |
//! | [`InUse`](vsr::storage::StorageError::InUse) | another process has it open | end that one |
//! | [`Version`](vsr::storage::StorageError::Version) | another version wrote it | run that version |
//! | [`NotEmpty`](vsr::storage::StorageError::NotEmpty), [`LogTooSmall`](vsr::storage::StorageError::LogTooSmall), [`StateTooLarge`](vsr::storage::StorageError::StateTooLarge) | `format` refuses | an empty folder; a higher limit; shorter addresses |
//! | [`Full`](vsr::storage::StorageError::Full) | the log is at its limit, or the disk has no room | make room; the replica goes on by itself |
//! | [`Io`](vsr::storage::StorageError::Io), [`Poisoned`](vsr::storage::StorageError::Poisoned) | the disk refused a write or a sync | start the replica again once the disk works |
//!
//! A log that was cut, emptied, or has bad sectors is not an error: the replica fetches from its peers what is lost. "Replace the replica" is not built
//! yet: until then the cluster goes on without it.
//!
//! # A look at a folder
//!
//! [`inspect`] shows what a folder holds, and changes nothing: it opens the files for reading only, and takes no lock. So it works on a copy, without
//! permission to write, beside a running replica, and where no replica starts.
//!
//! ```
//! # use vsr::{ClusterId, Config, ReplicaId};
//! # use vsr_storage_file::{FileStorage, inspect};
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path().join("replica-0");
//! # FileStorage::format(&folder, &Config::new(ClusterId(7), ReplicaId(0), ["127.0.0.1:4000"])?)?;
//! let found = inspect(&folder)?;
//! if let Some(refusal) = &found.refusal {
//!     eprintln!("no replica starts here: {refusal}");
//! }
//! for run in found.log.iter().flat_map(|log| log.runs()) {
//!     println!("ops {} to {}: {}", run.first, run.last, run.verdict);
//! }
//! assert!(found.is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Every slot is judged by the code that judges it at a start, so both say the same. Beside a running replica ([`Usage`]) the log goes on while it is read:
//! what is durable is shown as it is, and what is in the making may look damaged. Files that changed are read again, three times at most, until what
//! was read fits together; [`Inspection::has_changed`] tells when it may not. To refuse such a folder would hide it just when a replica that hangs is to be understood,
//! and a lock, taken only for the look, could refuse a replica that starts then.
//!
//! # Metrics
//!
//! The replica measures its storage: `vsr_sync_seconds` (one write with its sync), `vsr_sync_entries` (entries in it), `vsr_write_under_way_seconds`,
//! `vsr_log_room_bytes` (`vsr::METRICS`). What a start finds lost or unreadable is one warning of `tracing`.
//!
//! # Format
//!
//! Both files, byte by byte, are in the guide's chapter "Formats" (`book/src/formats.md`). Only this version's format is read.

mod inline;
mod inspection;
mod log;
pub mod medium;
mod ranges;
mod record;
mod recover;
mod ring;
mod scan;
mod sector;
mod site;
mod slots;
mod state;
mod storage;
mod usage;

pub use inline::InlineFileStorage;
pub use inspection::{
    FolderPlace, InspectedCheckpoint, InspectedLog, InspectedSlot, InspectedState, Inspection, SlotRun, Verdict,
    inspect, inspect_on,
};
pub use state::StateCopy;
pub use storage::{FileOptions, FileStorage, blocking_on};
pub use usage::Usage;

use std::io::{Error, ErrorKind};

use vsr::storage::StorageError;

/// Says what was being done when the disk refused.
pub(crate) fn io_error(doing: impl Into<String>) -> impl Fn(Error) -> StorageError {
    let doing = doing.into();
    move |error| StorageError::io(doing.clone(), error)
}

/// As [`io_error`], for a write, or the sync of one, that can be tried again when it found no room: nothing that was durable is changed, and what
/// it wrote counts for nothing until it is written again. (What a file system has taken, and then has no room for, can be read, and no later sync
/// writes it.)
pub(crate) fn write_error(doing: impl Into<String>, used: u64, limit: u64) -> impl Fn(Error) -> StorageError {
    let failed = io_error(doing);
    move |error| if is_no_room(&error) { StorageError::Full { used, limit } } else { failed(error) }
}

fn is_no_room(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A quota, and a limit on the size of files, are a full disk like any other; a disk that fails is none.
    #[test]
    fn b8_no_room_is_a_full_disk_whatever_its_name() {
        let (doing, full) = ("writing", StorageError::Full { used: 3, limit: 5 });
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
            assert_eq!(write_error(doing, 3, 5)(kind.into()), full);
        }
        let told = write_error(doing, 3, 5)(Error::other("input/output error"));
        assert!(matches!(&told, StorageError::Io { .. }) && !told.to_string().contains("make room"), "{told}");
    }
}
