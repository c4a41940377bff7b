//! How RocksDB is set up for a log: keys only grow, values are written once, read rarely, dropped in ranges.

use rocksdb::{BlockBasedOptions, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options};

pub(crate) const LOG: &str = "log";
pub(crate) const HEADERS: &str = "headers";
pub(crate) const STATE: &str = "state";

pub(crate) fn database(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    // See the crate's documentation; the seal notices what this mode drops.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A recycled log has old records behind the new ones: the end would be told by luck.
    options.set_recycle_log_file_num(0);
    options.set_paranoid_checks(true);
    // Bounds the time of a restart: that much is replayed at most.
    options.set_max_total_wal_size(64 << 20);
    options.set_max_background_jobs(2);
    // RocksDB's own text log, which nobody rotates otherwise.
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(1 << 20);
    options
}

/// Keys grow, so new files never overlap old ones: a compaction only moves them.
fn column(block: usize) -> Options {
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(32 << 20);
    options.set_max_write_buffer_number(3);
    let mut table = BlockBasedOptions::default();
    table.set_block_size(block);
    // The replica keeps what it needs in memory; what it reads from disk it reads once.
    table.disable_cache();
    options.set_block_based_table_factory(&table);
    options
}

pub(crate) fn columns() -> Vec<ColumnFamilyDescriptor> {
    vec![
        // A block for each op: it is read alone, and damage stays with one op.
        ColumnFamilyDescriptor::new(LOG, column(512)),
        ColumnFamilyDescriptor::new(HEADERS, column(4096)),
        ColumnFamilyDescriptor::new(STATE, column(4096)),
    ]
}
