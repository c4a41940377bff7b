//! What one replica is told.

use crate::protocol::{ClusterId, Constants, Incarnation, Membership, MembershipError, ReplicaId, Timing, VsrState};

/// The configuration of a replica. Every field has a default but who it is and who the others are.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the cluster. Messages and disks of another one are refused.
    pub cluster: ClusterId,
    /// Which of the members this replica is.
    pub replica: ReplicaId,
    /// Who belongs to the cluster. Decided when the disk is formatted; the addresses are hints where to
    /// look, never who counts.
    pub membership: Membership,
    /// How long the replica waits before it acts. Its own business; see [`Timing`].
    pub timing: Timing,
    /// Bytes of entries the log may hold; then requests are answered with a typed error. Default 1 GiB,
    /// or what the storage can hold, if that is less. Until checkpoints exist nothing is dropped.
    pub log_bytes_max: u64,
    /// Bytes of applied entries kept in memory for slow peers. Default 64 MiB. Less: they are read from
    /// disk instead.
    pub cache_bytes: u64,
    /// Bytes of requests that may wait for a place in the pipeline. Default 32 MiB; beyond it callers
    /// are told to wait.
    pub queue_bytes_max: usize,
    /// Requests that a handle keeps for callers. Default 65,536; beyond it a submit fails with `Busy`,
    /// certainly not executed.
    pub handle_queue_max: usize,
    /// The version of the state machine. Default 1. An op names the version that must apply it.
    pub machine_version: u32,
    /// Requests applied before the network is looked at again. Default 512. More: heartbeats wait
    /// longer behind a slow state machine.
    pub apply_slice: usize,
    /// The seed of jitter, nonces and client ids. Default: drawn from the operating system's entropy
    /// when the configuration is made. Fix it to repeat a run.
    pub seed: u64,
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The membership is at fault.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The replica is none of the members.
    #[error("replica {replica} is none of the {members} members: ids count from 0 in the order of the addresses")]
    NotAMember {
        /// As given.
        replica: ReplicaId,
        /// How many there are.
        members: usize,
    },
    /// A field is out of its range.
    #[error("{field}: {why}")]
    Field {
        /// The field of [`Config`].
        field: &'static str,
        /// What it has to be.
        why: &'static str,
    },
}

impl Config {
    /// A configuration with every default.
    ///
    /// # Errors
    /// A [`ConfigError`] that says what to change.
    pub fn new<A: Into<String>>(
        cluster: u128,
        replica: u8,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Config, ConfigError> {
        Config::with_membership(ClusterId(cluster), ReplicaId(replica), Membership::new(addresses)?)
    }

    /// A configuration for a membership with constants or quorums of one's own.
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
            machine_version: 1,
            apply_slice: 512,
            seed: entropy(),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.membership.validate()?;
        if self.membership.index_of(self.replica).is_none() {
            return Err(ConfigError::NotAMember { replica: self.replica, members: self.membership.n() });
        }
        let Timing { heartbeat, suspect, view_change, retry, ping, abdicate, disk, forward } = self.timing;
        let bad = |field, why| Err(ConfigError::Field { field, why });
        if [heartbeat, suspect, view_change, retry, ping, abdicate, disk, forward].iter().any(|time| time.is_zero()) {
            return bad("timing", "every time must be greater than zero");
        }
        if suspect < heartbeat * 3 {
            return bad("timing.suspect", "at least three heartbeats, or one late heartbeat changes the view");
        }
        if abdicate < heartbeat * 2 {
            return bad("timing.abdicate", "at least two heartbeats, or one lost answer ends the primary's view");
        }
        let Constants { batch_bytes_max, .. } = self.membership.constants;
        if self.log_bytes_max < u64::from(batch_bytes_max) * 2 {
            return bad("log_bytes_max", "at least two ops of batch_bytes_max");
        }
        if self.queue_bytes_max < batch_bytes_max as usize {
            return bad("queue_bytes_max", "at least one op of batch_bytes_max");
        }
        if self.apply_slice == 0 || self.handle_queue_max == 0 {
            return bad("apply_slice, handle_queue_max", "at least 1");
        }
        Ok(())
    }

    /// The first durable record of this replica, for [`Storage`](crate::Storage) implementations that
    /// format a disk.
    #[must_use]
    pub fn formatted_state(&self) -> VsrState {
        let incarnation = (u128::from(entropy()) << 64) | u128::from(entropy());
        VsrState::formatted(self.cluster, self.replica, Incarnation(incarnation), self.membership.clone())
    }
}

/// 64 bits that no other call has got, most likely. Only for identities and jitter, never for secrets.
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
        let stranger = Config::new(1, 3, addresses).unwrap_err();
        assert_eq!(stranger, ConfigError::NotAMember { replica: ReplicaId(3), members: 3 });
        let mut config = Config::new(1, 0, addresses).unwrap();
        config.timing.suspect = config.timing.heartbeat;
        assert!(config.validate().unwrap_err().to_string().contains("three heartbeats"));
        config = Config::new(1, 0, addresses).unwrap();
        config.log_bytes_max = 10;
        assert!(config.validate().is_err());
    }
}
