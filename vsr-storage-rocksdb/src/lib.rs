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

mod options;
mod seal;
mod storage;

pub use storage::{RocksOptions, RocksStorage};
