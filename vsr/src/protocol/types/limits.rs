//! Every limit that a command, a query, a reply, an answer or the log meets, in one table.
//!
//! The table says of each field what it may be; [`Membership::validate`](crate::protocol::Membership::validate) (when a disk is
//! formatted, and at each start), `Config::validate` and `ClientConfig::validate` hold it to that, and the fields to
//! each other. The limits of frames follow from it (`vsr::wire::Limits`). So whatever passes is carried, stored and
//! answered; what is too long is refused where it is made.

/// The range and the default of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name of the field.
    pub field: &'static str,
    /// The lowest value that is allowed, in the unit of the field.
    pub min: u64,
    /// The highest value that is allowed.
    pub max: u64,
    /// The value of a field that is not set.
    pub default: u64,
    /// Why there is a limit, in words.
    pub why: &'static str,
}

impl Limit {
    const fn new(field: &'static str, min: u64, max: u64, default: u64, why: &'static str) -> Limit {
        Limit { field, min, max, default, why }
    }

    /// Whether the value is in the range.
    #[must_use]
    pub const fn holds(&self, value: u64) -> bool {
        self.min <= value && value <= self.max
    }
}

/// Ops in flight; of the cluster.
pub const PIPELINE_MAX: Limit = Limit::new("pipeline_max", 1, 1024, 32, "a DoViewChange carries that many headers");
/// Requests of a session in flight; of the cluster, and of each client.
pub const WINDOW: Limit = Limit::new("window", 1, 1 << 16, 1024, "each session keeps a mark for each number in it");
/// Sessions kept; of the cluster.
pub const SESSIONS_MAX: Limit = Limit::new("sessions_max", 1, 1 << 24, 10_000, "the table is kept in memory");
/// Ops for which a session must be idle before it may be evicted; of the cluster.
pub const SESSION_IDLE_MIN: Limit = Limit::new(
    "session_idle_min",
    1,
    1 << 32,
    1000,
    "an op evicts no session that it uses, and a full table has to let newcomers in some time",
);
/// Bytes of a command; of the cluster, and of each client.
pub const REQUEST_MAX: Limit =
    Limit::new("request_max", 1, 16 << 20, 256 << 10, "a command travels in one message, and is kept in memory");
/// Bytes of a reply; of the cluster.
pub const REPLY_MAX: Limit =
    Limit::new("reply_max", 64, 16 << 20, 256 << 10, "a reply travels in one message, and is kept in memory");
/// Bytes of replies kept for a session; of the cluster.
pub const SESSION_REPLIES_MAX: Limit =
    Limit::new("session_replies_max", 64, 1 << 30, 1 << 20, "a session keeps one longest reply at least");
/// Bytes of replies kept for all sessions; of the cluster.
pub const TABLE_REPLIES_MAX: Limit = Limit::new(
    "table_replies_max",
    64,
    1 << 40,
    64 << 20,
    "the table is kept in memory, with one longest reply at least",
);
/// Requests in an op; of the cluster.
pub const BATCH_REQUESTS_MAX: Limit =
    Limit::new("batch_requests_max", 1, 1 << 20, 4096, "heartbeats wait while an op is taken apart");
/// Bytes of the body of an op; of the cluster.
pub const BATCH_BYTES_MAX: Limit =
    Limit::new("batch_bytes_max", 128, 32 << 20, 1 << 20, "an op travels in one message, and is written at once");
/// Ops between two checkpoints, 0 for none; of the cluster.
pub const CHECKPOINT_OPS: Limit =
    Limit::new("checkpoint_ops", 0, 1 << 40, 1_000_000, "a start applies what came after its checkpoint");
/// Bytes of ops between two checkpoints; of the cluster.
pub const CHECKPOINT_BYTES: Limit =
    Limit::new("checkpoint_bytes", 1 << 10, 1 << 50, 256 << 20, "a start reads what came after its checkpoint");
/// Bytes of a query; of each replica and of each client.
pub const QUERY_MAX: Limit =
    Limit::new("query_max", 1, 16 << 20, 1 << 20, "a query travels in one message, and waits in memory");
/// Bytes of an answer; of each replica.
pub const ANSWER_MAX: Limit =
    Limit::new("answer_max", 64, 64 << 20, 16 << 20, "an answer travels in one message, and waits for a slow client");

/// Ops by which a message, or a record on a disk, may be ahead of the log before it: blanks for the ops between are kept in
/// memory. A replica that is further behind will take a checkpoint, once there are any.
pub const LEAP_MAX: u64 = 1 << 21;

/// The most that a body of so many bytes takes on a disk: the entry's header in two copies, and what the
/// storage adds. An upper bound for the storages that ship.
pub(crate) fn disk_bytes(body: u64) -> u64 {
    body + body / 16 + 2048
}

/// All limits of this module.
pub const LIMITS: [Limit; 14] = [
    PIPELINE_MAX,
    WINDOW,
    SESSIONS_MAX,
    SESSION_IDLE_MIN,
    REQUEST_MAX,
    REPLY_MAX,
    SESSION_REPLIES_MAX,
    TABLE_REPLIES_MAX,
    BATCH_REQUESTS_MAX,
    BATCH_BYTES_MAX,
    CHECKPOINT_OPS,
    CHECKPOINT_BYTES,
    QUERY_MAX,
    ANSWER_MAX,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The book says the same. `VSR_BOOK=write cargo test -p vsr the_book` writes its table anew.
    #[test]
    fn the_book_has_this_table() {
        let path = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
            .join("../book/src/limits.md");
        let book = std::fs::read_to_string(&path).expect("the page");
        let row = |limit: &Limit| {
            let Limit { field, min, max, default, why } = limit;
            format!("| `{field}` | {min} | {max} | {default} | {why} |\n")
        };
        let table: String = LIMITS.iter().map(row).collect();
        if std::env::var("VSR_BOOK").is_ok_and(|wish| wish == "write") {
            let (before, rest) = book.split_once("|---|---|---|---|---|\n").expect("the table");
            let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
            std::fs::write(&path, format!("{before}|---|---|---|---|---|\n{table}\n{after}")).expect("writing");
            return;
        }
        assert!(book.contains(&table), "the page should have\n{table}");
    }

    #[test]
    fn every_default_is_within_its_range() {
        for limit in LIMITS {
            assert!(limit.holds(limit.default) && limit.holds(limit.min) && limit.holds(limit.max), "{limit:?}");
            assert!(!limit.holds(limit.max + 1) && (limit.min == 0 || !limit.holds(limit.min - 1)), "{limit:?}");
        }
    }
}
