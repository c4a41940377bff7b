//! How RocksDB is set up for a log: keys only grow, values are written once, read rarely, dropped in ranges.

use rocksdb::{BlockBasedOptions, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options};

pub(crate) const LOG: &str = "log";
pub(crate) const HEADERS: &str = "headers";
pub(crate) const STATE: &str = "state";

/// What a start after a failed sync stands on (see the crate's documentation): the defaults of 11.8, which the two newer options are meant
/// to change. There are no setters for them.
const RECOVERY: &str =
    "avoid_flush_during_recovery=false;reuse_manifest_on_open=false;optimize_manifest_for_recovery=false";

/// Options with some that have no setter. A test finds them in the file that the database writes.
fn options_with(text: &str) -> Options {
    Options::default().get_options_from_string(text).unwrap_or_default()
}

pub(crate) fn database(create: bool) -> Options {
    let mut options = options_with(RECOVERY);
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
    // The least there is: with all tables open for ever, each one has to be whole for the database to open at all. So a damaged one costs
    // what is in it.
    options.set_max_open_files(20);
    // RocksDB's own text log, which is not rotated otherwise.
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(1 << 20);
    options
}

/// How many tables lie side by side before they are merged. A merge that meets a damaged block, in what nobody reads any more too, stops
/// the database at this start and at each after it; and what a peer has repaired overlaps the damage. Seldom, then: keys grow, values are
/// written once, so that there is next to nothing to be gained by it. Not never: each start leaves tables, and a scan opens all at once.
const TABLES_MAX: i32 = 256;

fn column(block: usize) -> Options {
    // Nor is a table merged because it is 30 days old.
    let mut options = options_with("ttl=0");
    options.set_level_zero_file_num_compaction_trigger(TABLES_MAX);
    // By their number only, not by their size; and no write waits for it.
    options.set_max_bytes_for_level_base(1 << 50);
    options.set_level_zero_slowdown_writes_trigger(1 << 20);
    options.set_level_zero_stop_writes_trigger(1 << 20);
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
