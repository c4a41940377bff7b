//! Storage for `vsr` on RocksDB, for applications that run it already.
//!
//! Three column families: `log` (op → the whole entry: an op with all its requests is one value),
//! `headers` (op → the header again, so that a damaged entry is still named) and `state` (the vsr state,
//! and what ties it to the log). One synced `WriteBatch` for each storage write.
//!
//! # Lost tails
//! RocksDB recovers its write-ahead log up to the first record that does not read
//! ([`PointInTime`](rocksdb::DBRecoveryMode::PointInTime)) and says nothing of what came after. That mode is
//! chosen knowingly: the others either refuse to open a log that a crash has cut, or go on past a hole. So
//! that a cut is told from rot, a seal is kept in a file beside the database: the number of the last durable
//! batch, written after each batch, and synced whenever the vsr state changes. If the database comes back
//! with a lower number, its tail was lost: ops that are not known to be committed are reported corrupt and
//! the head uncertain, and if a vsr state was in the lost tail, the disk is refused. After a *power loss* the
//! seal may be as old as the last vsr state, or what the operating system wrote since: rot of the log's tail
//! together with a power loss may then pass for a crash.
//!
//! # Holes
//! A manifest whose end is cut, or an older write-ahead log that is gone, is no error to RocksDB either: the database opens with what came
//! before and after, so that the newest batch is there, older entries have come back, and some are missing. Each batch therefore leaves
//! the number of the batch that wrote the vsr state, and a checksum over which batch wrote which op. If the state is another one the disk is
//! refused; if the log is another one all of it is reported corrupt.
//!
//! # A start after a failed sync
//! When a sync fails, Linux marks the pages clean: they can be read until they are dropped from the page cache, and no later sync of the file
//! writes them. What a start reads of a file whose sync may have failed is therefore believed only after it was written to another place, and
//! synced there. RocksDB (11.8.1, the source that `librocksdb-sys` 0.19.0 brings) does so:
//! - *Write-ahead logs.* `DBImpl::Open` replays them, and writes what it found into new tables
//!   (`MaybeFlushFinalMemtableOrRestoreActiveLogFiles`, `WriteLevel0TableForRecovery`; `BuildTable` syncs each), as
//!   `avoid_flush_during_recovery` is off. No later start reads the old logs: the log number in the manifest is beyond them.
//! - *The manifest.* Each start writes a new one from what it has read, syncs it, and only then points `CURRENT` to it with a file of its own,
//!   a rename and a sync of the folder (`VersionSet::ProcessManifestWrites`, `SetCurrentFile`), as `reuse_manifest_on_open` and
//!   `optimize_manifest_for_recovery` are off.
//! - *Tables.* One whose sync has failed is not in the manifest, and is never read: it is written again from the memtable.
//! - *While it runs*, a failed write or sync of a log is an error of the whole database (`WALIOStatusCheck`, `ErrorHandler`), and poisons
//!   this storage.
//!
//! The three options are set here by name, and a test reads them back, as later versions mean to change two of them. The seal is written
//! anew, and synced, at each start.
//!
//! # A copy is refused
//! `place` holds device, inode and birth time of itself and of the seal. A folder that was copied, moved to another file system, or restored
//! from a backup has other inodes or birth times, and is refused with [`OtherPlace`](vsr::storage::StorageError::OtherPlace): the replica may have
//! acknowledged more since, elsewhere. [`RocksStorage::accept_place`] is for whoever knows better. A difference in the device alone is only
//! logged, as a reboot may number devices anew. Not noticed: a snapshot of the whole file system or virtual machine, and files that are
//! overwritten in place. The file is locked while the folder is in use.
//!
//! # Bad sectors
//! Tables are opened when they are needed and merged seldom (256 of them), so that a damaged or unreadable block costs the ops in it, an
//! unreadable index of a table the ops of this table, and a damaged block of headers nothing. An unreadable page of a write-ahead log ends the
//! log there: the seal knows how much is lost. What remains: with an unreadable `CURRENT` or manifest, or both pages of the seal, or the
//! newest vsr state, the replica does not start and has to be replaced; the same for a damaged index of one of the two tables that RocksDB
//! opens at once; and a merge that meets a damaged table stops the replica.
//!
//! # A full disk
//! 128 MiB of the file system stay free: what entries would take of them is refused as [`Full`](vsr::storage::StorageError::Full), with nothing
//! written, and [`room`](vsr::Storage::room) says so before. If others use them up, too, and RocksDB finds no space in the middle of a write,
//! it takes nothing in until there is room (it looks every 5 seconds for 32 MiB), flushes what it holds into new tables, and begins a new log.
//! The write waits for that and is made again, so that the replica sees a disk that hangs, not one that fails. A *quota* (`EDQUOT`) is a
//! failed write like any other. A *file-size limit* (`ulimit -f`) under 256 MiB is refused at start: the operating system enforces it with
//! the signal `SIGXFSZ`, which ends a process that does not handle it.

mod folder;
mod options;
mod place;
mod seal;
mod storage;

pub use storage::{RocksOptions, RocksStorage};
