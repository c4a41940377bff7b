//! Durable storage for `vsr` on two preallocated files; pure Rust.
//!
//! `log` holds one record for each batch of entries, `state` the vsr state in two pairs of copies. Every
//! 512-byte sector is stamped with the write that it belongs to, its place and a checksum, so that a torn
//! write is told from rot, and a stale or misdirected sector from the right one, with a single sync for
//! each batch. The formats are described in the book, byte by byte.
//!
//! Until checkpoints exist nothing is ever dropped: the log grows by extents that are written and synced
//! before they are used, up to the limit given when the disk was formatted.

mod inline;
mod log;
pub mod medium;
mod sector;
mod state;
mod storage;

pub use inline::InlineFileStorage;
pub use storage::{FileOptions, FileStorage, blocking_on};

use vsr::StorageError;

/// Says what was being done when the disk refused.
pub(crate) fn io_error(doing: &'static str) -> impl Fn(std::io::Error) -> StorageError {
    move |error| StorageError::Io { doing: doing.to_owned(), error: error.to_string() }
}
