//! Storage for `vsr` on RocksDB, for applications that run it already.
//!
//! Three column families: `log` (op → the whole entry: an op with all its requests is one value),
//! `headers` (op → the header again, so that a damaged entry is still named) and `state` (the vsr state,
//! and what ties it to the log). One synced `WriteBatch` for each storage write.
//!
//! - [In a replica](#in-a-replica)
//! - [What it guarantees](#what-it-guarantees), and how: [lost tails](#lost-tails), [holes](#holes),
//!   [a start after a failed sync](#a-start-after-a-failed-sync), [copies](#a-copy-is-refused), [bad sectors](#bad-sectors),
//!   [a full disk](#a-full-disk)
//! - [Options](#options), [errors, and what an operator does](#errors-and-what-an-operator-does), [metrics](#metrics),
//!   [format](#format)
//!
//! # In a replica
//!
//! A folder belongs to one replica. It is formatted once, by an operator, and opened at each start; opening never creates anything.
//!
//! ```no_run
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
//! use vsr::memory::MemoryNetwork;
//! use vsr::{ClusterId, Config, Replica, ReplicaId};
//! use vsr_storage_rocksdb::RocksStorage;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new(ClusterId(7), ReplicaId(0), ["127.0.0.1:4000"])?; // a cluster of one
//! if std::env::args().nth(1).as_deref() == Some("format") {
//!     return Ok(RocksStorage::format("data/replica-0", &config)?);
//! }
//! let storage = RocksStorage::open("data/replica-0")?;
//! let network = MemoryNetwork::new(1).endpoint(ReplicaId(0)); // or a `vsr_net_tcp::TcpNetwork`
//! let (replica, _counter) =
//!     Replica::builder(config, Counter::default()).storage(storage).network(network).build()?;
//! futures::executor::block_on(replica.run())?;
//! # Ok(())
//! # }
//! ```
//!
//! The database is the storage's own: it sets it up, opens it, and locks the folder. Its work is done by two threads, beside those of RocksDB;
//! no executor is blocked.
//!
//! # What it guarantees
//!
//! All clauses of [`Storage`](vsr::Storage)'s contract (`tests/conformance.rs` runs the suite against it), with one limit, at
//! [lost tails](#lost-tails): after rot of the log's tail *and* a power loss the loss may pass for a crash.
//!
//! - **Durable and atomic** (1 to 4, 6): a batch is one write of RocksDB, synced before it is answered.
//! - **Absence is a claim** (5, 7, 8): RocksDB drops what it cannot read at the end of its log, and says nothing. A seal beside the database, and fingerprints of its batches in it, notice that:
//!   what may have been lost is `Corrupt`, and the head uncertain.
//! - **Damage is found** (9): an entry is checked against its header, and the header stands twice.
//! - **Poisoned after a failure** (10), and what a start believes after one: see [there](#a-start-after-a-failed-sync).
//! - **Full is an error** (13): see [a full disk](#a-full-disk).
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
//! acknowledged more since, elsewhere. [`RocksStorage::accept_place`] is for an operator who knows better. A difference in the device alone is only
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
//! The write waits for that and is made again, so that the replica sees a disk that hangs, not one that fails. A start for which RocksDB
//! finds no room (it writes anew what it reads) is asked again until there is some. A *quota* (`EDQUOT`) is to RocksDB a disk that fails: it ends the replica, so give
//! that a file system of its own instead. A *file-size limit* (`ulimit -f`) under 256 MiB is refused at start: the operating system enforces it with
//! the signal `SIGXFSZ`, which ends a process that does not handle it.
//!
//! # Options
//!
//! [`RocksOptions`], decided by [`format_with`](RocksStorage::format_with) and kept on the disk. How RocksDB itself is set up is not an option: the
//! guarantees rest on it.
//!
//! | field | unit | default | range |
//! |---|---|---|---|
//! | `log_limit` | bytes of entries, with 512 for each op | 1 GiB | at least [`Constants::log_room_min`](vsr::protocol::Constants::log_room_min) of the cluster |
//!
//! # Errors, and what an operator does
//!
//! An error names the file and who must act. Formatting again is never the cure: it makes a disk that has forgotten what it acknowledged.
//!
//! | error | what is the matter | what to do |
//! |---|---|---|
//! | [`NotFormatted`](vsr::storage::StorageError::NotFormatted) | the folder is not there or empty, or formatting it was interrupted | format it if the replica has never run; else mount its disk |
//! | [`Missing`](vsr::storage::StorageError::Missing) | a part of the folder is gone | put it back if it was moved away; else give the replica a new disk (`format_for`) |
//! | [`Damaged`](vsr::storage::StorageError::Damaged) | RocksDB cannot open the database, or no copy of the seal is intact | give the replica a new disk (`format_for`) |
//! | [`StateLost`](vsr::storage::StorageError::StateLost) | the newest vsr state was in what is lost | give the replica a new disk (`format_for`) |
//! | [`OtherPlace`](vsr::storage::StorageError::OtherPlace) | the folder is a copy, or was restored | [`accept_place`](RocksStorage::accept_place) if it is the only copy and nothing ran since; else give the replica a new disk (`format_for`) |
//! | [`InUse`](vsr::storage::StorageError::InUse) | another process has it open | end that one |
//! | [`Version`](vsr::storage::StorageError::Version) | another version wrote it | run that version |
//! | [`NotEmpty`](vsr::storage::StorageError::NotEmpty), [`LogTooSmall`](vsr::storage::StorageError::LogTooSmall) | `format` refuses | an empty folder; a higher limit |
//! | [`Full`](vsr::storage::StorageError::Full) | the log is at its limit, or entries would take of the last 128 MiB of the disk | make room; the replica goes on by itself |
//! | [`Io`](vsr::storage::StorageError::Io), [`Poisoned`](vsr::storage::StorageError::Poisoned) | the disk refused, or the process may not write files of 256 MiB (`ulimit -f`) | start the replica again once the cause is gone |
//!
//! "Replace the replica" is not built yet: until then the cluster goes on without it.
//!
//! # Metrics
//!
//! The replica measures its storage: `vsr_sync_seconds` (one write with its sync), `vsr_sync_entries` (entries in it), `vsr_write_under_way_seconds`,
//! `vsr_log_room_bytes` (`vsr::METRICS`). RocksDB's own text log is `db/LOG`.
//!
//! # Format
//!
//! The folder, byte by byte, is in the guide's chapter "Formats" (`book/src/formats.md`).

mod folder;
mod options;
mod place;
mod seal;
mod storage;

pub use storage::{RocksOptions, RocksStorage};
