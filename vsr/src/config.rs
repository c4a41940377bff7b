//! The configuration of one replica.

use std::time::Duration;

use crate::protocol::limits::{ANSWER_MAX, Limit, QUERY_MAX};
use crate::protocol::{
    ClusterId, Constants, DiskId, Membership, MembershipError, ReplicaId, Succession, Timing, TooFewToRejoin, VsrState,
};
#[cfg(feature = "msgpack")]
use crate::wire;

/// The configuration of a replica. Every field but `cluster`, `replica` and `membership` has a default. Made by [`Config::new`], and
/// changed field by field, or by [`with`](Config::with); later versions have more fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of the cluster. Messages and disks of another one are refused.
    pub cluster: ClusterId,
    /// Which of the members this replica is.
    pub replica: ReplicaId,
    /// The members of the cluster. Decided when the disk is formatted. The addresses say where the transport looks for a member; they
    /// do not identify it.
    pub membership: Membership,
    /// How long the replica waits before it acts. Each replica may have its own.
    pub timing: Timing,
    /// Bytes of entries that the log may hold; beyond them requests are answered `LogFull`. Default 1 GiB. At least
    /// [`Constants::log_room_min`], and three times `checkpoint_bytes` beside it where checkpoints are on: the log is dropped behind them. A storage
    /// that holds less sets the limit instead.
    pub log_bytes_max: u64,
    /// Bytes of applied entries that are kept in memory for slow peers. Default 64 MiB. Entries that are not kept are read from the disk.
    pub cache_bytes: u64,
    /// Bytes of requests that may wait for a place in the pipeline. Default 32 MiB; beyond them clients are answered `Busy`, and send
    /// the request again.
    pub queue_bytes_max: usize,
    /// Requests that a handle keeps for callers, and queries that may wait here, those of clients included. Default
    /// 65,536; beyond it a submit fails with `Busy`, certainly not executed, and a query with `Busy`.
    pub handle_queue_max: usize,
    /// Bytes of the commands that a handle keeps for callers; beyond them `Busy`, too. Default 256 MiB.
    pub handle_bytes_max: usize,
    /// The longest query, in bytes. Default 1 MiB.
    pub query_max: u32,
    /// The longest answer, in bytes; a longer one becomes a typed error. Default 16 MiB.
    pub answer_max: u32,
    /// Bytes of queries that may wait here, those of clients included; beyond them `Busy`. Default 64 MiB.
    pub queries_bytes_max: usize,
    /// The version of the state machine that this build applies. Default 1. An op names the version that must apply it.
    pub machine_version: u32,
    /// Requests that are applied before the network is looked at again. Default 512. With more, heartbeats wait longer behind a slow
    /// state machine.
    pub apply_slice: usize,
    /// The seed of jitter, nonces and client ids. Default: drawn from the operating system's entropy
    /// when the configuration is made. Fix it to repeat a run.
    pub seed: u64,
}

/// What a disk that is formatted begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatFor {
    /// Nothing: the cluster has never run.
    NewCluster,
    /// Nothing: it takes the place of a disk that is lost, or must not be used any more: an older copy, a foreign one, one without its vsr state. The
    /// replica takes log and state from the others, and counts once they have put this disk in the place of the lost one (rule 7.19). The lost disk must
    /// never be used again, and no process may run on it.
    LostDisk,
    /// The state of another cluster: [`backup::restore`](crate::backup::restore) puts it there. Until then the replica's word counts for nothing.
    Backup,
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The membership is wrong.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The replica is none of the members.
    #[error("replica {replica} is none of the {members} members: ids count from 0 in the order of the addresses")]
    NotAMember {
        /// The configured id of this replica.
        replica: ReplicaId,
        /// The number of members.
        members: usize,
    },
    /// The cluster is too small for a lost disk to be replaced.
    #[error(transparent)]
    Rejoin(#[from] TooFewToRejoin),
    /// A field is out of its range.
    #[error("{field} = {value}: {why}")]
    Field {
        /// The field of [`Config`], [`Timing`] or [`ClientConfig`](crate::ClientConfig), or of a transport's options.
        field: &'static str,
        /// The configured value, as text.
        value: String,
        /// What it has to be, and why.
        why: String,
    },
    /// Two fields that do not fit together.
    #[error(
        "{field} = {value} cannot hold one of {other} = {other_value}: raise {field} to {least} at least, or lower \
         {other}"
    )]
    Misfit {
        /// The field that is too small.
        field: &'static str,
        /// Its configured value, in bytes.
        value: u64,
        /// The field that it has to hold.
        other: &'static str,
        /// The configured value of that field, in bytes.
        other_value: u64,
        /// The lowest value of `field` that holds it, in bytes.
        least: u64,
    },
}

pub(crate) fn bad<T>(field: &'static str, value: impl ToString, why: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Field { field, value: value.to_string(), why: why.into() })
}

/// A number within the range of the table.
pub(crate) fn check_limit(limit: Limit, value: u64) -> Result<(), ConfigError> {
    let Limit { field, min, max, why, .. } = limit;
    if limit.holds(value) { Ok(()) } else { bad(field, value, format!("{min} to {max}: {why}")) }
}

/// At least 1.
pub(crate) fn check_count(field: &'static str, value: usize, why: &'static str) -> Result<(), ConfigError> {
    if value == 0 { bad(field, value, format!("at least 1: {why}")) } else { Ok(()) }
}

/// Checks that a time is at least `min`, and an hour at most.
pub(crate) fn check_time(
    field: &'static str,
    value: Duration,
    min: Duration,
    why: &'static str,
) -> Result<(), ConfigError> {
    if (min..=TIME_MAX).contains(&value) {
        return Ok(());
    }
    bad(field, format!("{value:?}"), format!("{min:?} to {TIME_MAX:?}: {why}"))
}

/// A field that has to hold one of another.
pub(crate) fn check_holds(
    (field, value): (&'static str, u64),
    (other, other_value): (&'static str, u64),
    least: u64,
) -> Result<(), ConfigError> {
    if value >= least { Ok(()) } else { Err(ConfigError::Misfit { field, value, other, other_value, least }) }
}

/// Every sum and every multiple of times that are no longer stays far below what a clock can count.
const TIME_MAX: Duration = Duration::from_secs(3600);
/// More often, and the disk would have nothing else to do.
const SCRUB_MIN: Duration = Duration::from_millis(1);
/// Shorter times are below what a timer can tell apart.
const TIME_MIN: Duration = Duration::from_micros(1);

impl Config {
    /// A configuration with every default, for a cluster of members with ids from 0 in the order of the addresses.
    ///
    /// # Errors
    /// A [`ConfigError`] that says what to change.
    pub fn new<A: Into<String>>(
        cluster: ClusterId,
        replica: ReplicaId,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Config, ConfigError> {
        Config::with_membership(cluster, replica, Membership::new(addresses)?)
    }

    /// A configuration for a membership with other constants or quorums than the defaults.
    ///
    /// # Errors
    /// A [`ConfigError`] that says what to change.
    pub fn with_membership(
        cluster: ClusterId,
        replica: ReplicaId,
        membership: Membership,
    ) -> Result<Config, ConfigError> {
        let config = Config {
            cluster,
            replica,
            membership,
            timing: Timing::default(),
            log_bytes_max: 1 << 30,
            cache_bytes: 64 << 20,
            queue_bytes_max: 32 << 20,
            handle_queue_max: 65_536,
            handle_bytes_max: 256 << 20,
            query_max: QUERY_MAX.default as u32,
            answer_max: ANSWER_MAX.default as u32,
            queries_bytes_max: 64 << 20,
            machine_version: 1,
            apply_slice: 512,
            seed: entropy(),
        };
        config.validate()?;
        Ok(config)
    }

    /// This configuration with a change: `config.with(|config| config.apply_slice = 64)`. Building the replica checks it.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Config {
        change(&mut self);
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.membership.validate()?;
        if self.membership.index_of(self.replica).is_none() {
            return Err(ConfigError::NotAMember { replica: self.replica, members: self.membership.size() });
        }
        self.validate_timing()?;
        let Constants { batch_bytes_max, request_max, .. } = self.membership.constants;
        let batch = ("batch_bytes_max", u64::from(batch_bytes_max));
        let request = ("request_max", u64::from(request_max));
        let query = ("query_max", u64::from(self.query_max));
        check_limit(QUERY_MAX, self.query_max.into())?;
        check_limit(ANSWER_MAX, self.answer_max.into())?;
        // What formatting asks of a storage: with less, hardly a request would be taken in.
        let log_room_min = self.membership.constants.log_room_min();
        check_holds(("log_bytes_max", self.log_bytes_max), batch, log_room_min)?;
        let Constants { checkpoint_ops, checkpoint_bytes, .. } = self.membership.constants;
        if checkpoint_ops > 0 {
            // The log from the older of two checkpoints on, and what comes while the next one is written.
            let least = checkpoint_bytes.saturating_mul(3).saturating_add(log_room_min);
            let intervals = ("checkpoint_bytes", checkpoint_bytes);
            check_holds(("log_bytes_max", self.log_bytes_max), intervals, least)?;
        }
        check_holds(("queue_bytes_max", self.queue_bytes_max as u64), batch, batch.1)?;
        check_holds(("handle_bytes_max", self.handle_bytes_max as u64), request, request.1 + Config::OVERHEAD)?;
        check_holds(("queries_bytes_max", self.queries_bytes_max as u64), query, query.1 + Config::OVERHEAD)?;
        check_count("apply_slice", self.apply_slice, "nothing would ever be applied")?;
        check_count("handle_queue_max", self.handle_queue_max, "no caller would ever be served")
    }

    /// What a waiting command or query is taken to need beside its bytes.
    pub(crate) const OVERHEAD: u64 = 64;

    fn validate_timing(&self) -> Result<(), ConfigError> {
        let Timing {
            heartbeat,
            primary_timeout,
            view_change_timeout,
            retry,
            ping,
            quorum_timeout,
            disk_stall_timeout,
            forward_timeout,
            scrub,
        } = self.timing;
        for (field, value, why) in [
            ("timing.heartbeat", heartbeat, "backups wait for it"),
            ("timing.primary_timeout", primary_timeout, "a dead primary is replaced after it"),
            ("timing.view_change_timeout", view_change_timeout, "a view change that hangs is given up after it"),
            ("timing.retry", retry, "what is lost is sent again after it"),
            ("timing.ping", ping, "clocks and health are told at this interval"),
            ("timing.quorum_timeout", quorum_timeout, "a primary without a quorum gives up after it"),
            ("timing.disk_stall_timeout", disk_stall_timeout, "a primary whose disk hangs gives up after it"),
            ("timing.forward_timeout", forward_timeout, "a primary that drops requests is replaced after it"),
        ] {
            check_time(field, value, TIME_MIN, why)?;
        }
        if !scrub.is_zero() {
            check_time(
                "timing.scrub",
                scrub,
                SCRUB_MIN,
                "a part of the disk is read at this interval, or zero: never",
            )?;
        }
        if primary_timeout < heartbeat * 3 {
            let why = format!("at least three heartbeats of {heartbeat:?}, or one late heartbeat changes the view");
            return bad("timing.primary_timeout", format!("{primary_timeout:?}"), why);
        }
        if quorum_timeout < heartbeat * 2 {
            let why = format!("at least two heartbeats of {heartbeat:?}, or one lost answer ends the primary's view");
            return bad("timing.quorum_timeout", format!("{quorum_timeout:?}"), why);
        }
        Ok(())
    }

    /// For transports, when they start: whether a queue of this many bytes takes every message of this replica. One that
    /// does not would drop the longest each time, and the cluster would wait for it without end.
    ///
    /// # Errors
    /// A [`ConfigError`] that names both fields.
    #[cfg(feature = "msgpack")]
    pub fn check_transport(&self, field: &'static str, queue_bytes_max: usize) -> Result<(), ConfigError> {
        let Constants { request_max, reply_max, batch_bytes_max, .. } = self.membership.constants;
        let longest = [
            ("request_max", request_max),
            ("reply_max", reply_max),
            ("answer_max", self.answer_max),
            ("batch_bytes_max", batch_bytes_max),
        ];
        let (other, value) = longest.into_iter().max_by_key(|(_, bytes)| *bytes).unwrap_or_default();
        let least = wire::longest_frame(&self.membership.constants, self.answer_max);
        check_holds((field, queue_bytes_max as u64), (other, value.into()), least)
    }

    /// The first durable record of this replica, for [`Storage`](crate::Storage) implementations that
    /// format a disk.
    #[must_use]
    pub fn formatted_state(&self) -> VsrState {
        let disk_id = (u128::from(entropy()) << 64) | u128::from(entropy());
        VsrState::formatted(self.cluster, self.replica, DiskId(disk_id), self.membership.clone())
    }

    /// As [`formatted_state`](Self::formatted_state), for a disk that begins otherwise.
    ///
    /// # Errors
    /// [`ConfigError::Rejoin`] for a lost disk in a cluster of one or two: the others cannot commit anything without this replica.
    pub fn first_state(&self, purpose: FormatFor) -> Result<VsrState, ConfigError> {
        let first = self.formatted_state();
        match purpose {
            FormatFor::NewCluster => Ok(first),
            FormatFor::LostDisk => {
                let VsrState { cluster, replica, disk_id, membership, .. } = first;
                Ok(VsrState::replacing(cluster, replica, disk_id, membership)?)
            }
            FormatFor::Backup => Ok(VsrState { succession: Succession::Asking, ..first }),
        }
    }
}

/// 64 bits that no other call has got, most likely. Only for identities and jitter, never for secrets. Not by the crate `getrandom`: that may fail,
/// and a configuration that could not be made for want of jitter would help no one.
#[allow(clippy::disallowed_types, reason = "the standard library's way to the operating system's entropy")]
pub(crate) fn entropy() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absurd_configuration_is_refused_in_words() {
        let addresses = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
        let stranger = Config::new(ClusterId(1), ReplicaId(3), addresses).unwrap_err();
        assert_eq!(stranger, ConfigError::NotAMember { replica: ReplicaId(3), members: 3 });
        let mut config = Config::new(ClusterId(1), ReplicaId(0), addresses).unwrap();
        config.timing.primary_timeout = config.timing.heartbeat;
        assert!(config.validate().unwrap_err().to_string().contains("three heartbeats"));
        config = Config::new(ClusterId(1), ReplicaId(0), addresses).unwrap();
        config.log_bytes_max = 10;
        assert!(config.validate().is_err());
    }

    fn config() -> Config {
        Config::new(ClusterId(1), ReplicaId(0), ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]).unwrap()
    }

    /// A time of zero is refused, and so is one that is too long; no time makes the check itself overflow.
    #[test]
    fn times_of_nothing_and_for_ever_are_refused_in_words() {
        type Set = fn(&mut Timing, Duration);
        let sets: [(&str, Set); 8] = [
            ("timing.heartbeat", |t, time| t.heartbeat = time),
            ("timing.primary_timeout", |t, time| t.primary_timeout = time),
            ("timing.view_change_timeout", |t, time| t.view_change_timeout = time),
            ("timing.retry", |t, time| t.retry = time),
            ("timing.ping", |t, time| t.ping = time),
            ("timing.quorum_timeout", |t, time| t.quorum_timeout = time),
            ("timing.disk_stall_timeout", |t, time| t.disk_stall_timeout = time),
            ("timing.forward_timeout", |t, time| t.forward_timeout = time),
        ];
        for (field, set) in sets {
            for (time, shown) in [(Duration::ZERO, "0ns"), (Duration::MAX, "18446744073709551615")] {
                let mut config = config();
                set(&mut config.timing, time);
                let words = config.validate().unwrap_err().to_string();
                assert!(words.starts_with(&format!("{field} = {shown}")) && words.contains("1µs to 3600s"), "{words}");
            }
        }
        let mut slow = config();
        let hour = TIME_MAX;
        slow.timing = Timing {
            heartbeat: hour / 3,
            primary_timeout: hour,
            view_change_timeout: hour,
            retry: hour,
            ping: hour,
            quorum_timeout: hour,
            disk_stall_timeout: hour,
            forward_timeout: hour,
            scrub: hour,
        };
        assert_eq!(slow.validate(), Ok(()));
        for (scrub, is_right) in [(Duration::ZERO, true), (SCRUB_MIN, true), (SCRUB_MIN / 2, false), (hour * 2, false)]
        {
            slow.timing.scrub = scrub;
            assert_eq!(slow.validate().is_ok(), is_right, "{scrub:?}");
        }
    }

    /// Every number out of its range is refused with its name, its value, and what it should be.
    #[test]
    fn numbers_that_cannot_be_are_refused_in_words() {
        type Set = fn(&mut Config);
        let sets: [(Set, &[&str]); 9] = [
            (|c| c.log_bytes_max = 10, &["log_bytes_max = 10", "batch_bytes_max = 1048576", "to 8929280"]),
            (|c| c.queue_bytes_max = 0, &["queue_bytes_max = 0", "batch_bytes_max = 1048576", "to 1048576"]),
            (|c| c.handle_bytes_max = 0, &["handle_bytes_max = 0", "request_max = 262144", "to 262208"]),
            (|c| c.queries_bytes_max = 9, &["queries_bytes_max = 9", "query_max = 1048576", "to 1048640"]),
            (|c| c.query_max = 0, &["query_max = 0", "1 to 16777216"]),
            (|c| c.answer_max = u32::MAX, &["answer_max = 4294967295", "64 to 67108864"]),
            (|c| c.apply_slice = 0, &["apply_slice = 0", "at least 1"]),
            (|c| c.handle_queue_max = 0, &["handle_queue_max = 0", "at least 1"]),
            (|c| c.membership.constants.window = 0, &["window = 0", "1 to 65536"]),
        ];
        for (set, parts) in sets {
            let mut config = config();
            set(&mut config);
            let words = config.validate().unwrap_err().to_string();
            assert!(parts.iter().all(|part| words.contains(part)), "{words}");
        }
    }

    /// The log of a configuration is held to the least that formatting asks of a storage, and names it.
    #[test]
    fn a_log_in_which_hardly_anything_can_be_done_is_refused() {
        let mut config = config();
        config.membership.constants.request_max = 1000;
        config.membership.constants.batch_bytes_max = 4096;
        config.membership.constants.checkpoint_bytes = 1 << 20;
        let room = config.membership.constants.log_room_min();
        // Between the older of two checkpoints and the next one, the log has to have room.
        let least = room + (3 << 20);
        config.log_bytes_max = least;
        assert_eq!(config.validate(), Ok(()));
        config.log_bytes_max = least - 1;
        let (field, other) = ("log_bytes_max", "checkpoint_bytes");
        let misfit = ConfigError::Misfit { field, value: least - 1, other, other_value: 1 << 20, least };
        assert_eq!(config.validate(), Err(misfit));
        config.membership.constants.checkpoint_ops = 0;
        let least = room;
        config.log_bytes_max = least;
        assert_eq!(config.validate(), Ok(()));
        config.log_bytes_max = least - 1;
        let (field, other) = ("log_bytes_max", "batch_bytes_max");
        let misfit = ConfigError::Misfit { field, value: least - 1, other, other_value: 4096, least };
        assert_eq!(config.validate(), Err(misfit.clone()));
        assert!(misfit.to_string().contains(&format!("raise log_bytes_max to {least} at least")), "{misfit}");
    }

    /// A transport that could never send the longest message is refused when it starts.
    #[test]
    fn a_queue_that_cannot_hold_the_longest_message_is_refused() {
        let mut config = config();
        assert_eq!(config.check_transport("queue", 64 << 20), Ok(()));
        let words = config.check_transport("queue", 1 << 20).unwrap_err().to_string();
        for part in ["queue = 1048576", "answer_max = 16777216", "raise queue to 18874368", "lower answer_max"] {
            assert!(words.contains(part), "{words}");
        }
        config.answer_max = 64;
        config.membership.constants.batch_bytes_max = 32 << 20;
        let words = config.check_transport("queue", 32 << 20).unwrap_err().to_string();
        assert!(words.contains("batch_bytes_max = 33554432"), "{words}");
        assert_eq!(config.check_transport("queue", 34 << 20), Ok(()));
    }
}
