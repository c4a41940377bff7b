//! The configuration of the protocol core of one replica.

use std::time::Duration;

use super::number::ClientId;

/// Time-outs and intervals of one replica. They may differ from replica to replica: no rule of safety
/// depends on any of them.
///
/// Made by `Timing::default()`, and changed field by field, or by [`with`](Timing::with); later versions have more fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// The interval of the heartbeats of an idle primary. Default 50 ms.
    pub heartbeat: Duration,
    /// How long a backup waits for a heartbeat before it votes against the primary. Default 400 ms. Too low: a loaded
    /// machine changes views for nothing. Too high: a stalled primary is replaced late.
    pub primary_timeout: Duration,
    /// How long a view change may make no progress before the next view is tried. Default 500 ms;
    /// doubles with each view change that fails, up to eightfold.
    pub view_change_timeout: Duration,
    /// The interval at which anything that is not answered is sent again. Default 60 ms.
    pub retry: Duration,
    /// The interval of the pings. Default 250 ms.
    pub ping: Duration,
    /// How long a primary stays one without answers from a quorum. Default 400 ms.
    pub quorum_timeout: Duration,
    /// How long a primary's own write may take before it gives up the role. Default 2 s.
    pub disk_stall_timeout: Duration,
    /// How long a forwarded request may be neither prepared nor answered, while nothing is committed, before it is a
    /// reason to vote. After half of it the primary is asked again. Default 1 s.
    pub forward_timeout: Duration,
    /// The interval at which a mebibyte of the log and of the checkpoints on the disk is read, to see whether it is intact. Default 1 s; zero: never,
    /// damage is found when something is needed.
    pub scrub: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(50),
            primary_timeout: Duration::from_millis(400),
            view_change_timeout: Duration::from_millis(500),
            retry: Duration::from_millis(60),
            ping: Duration::from_millis(250),
            quorum_timeout: Duration::from_millis(400),
            disk_stall_timeout: Duration::from_secs(2),
            forward_timeout: Duration::from_secs(1),
            scrub: Duration::from_secs(1),
        }
    }
}

impl Timing {
    /// These times with a change: `Timing::default().with(|timing| timing.disk_stall_timeout = Duration::from_secs(5))`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Timing)) -> Timing {
        change(&mut self);
        self
    }
}

/// The configuration of the core of one replica: all that is not on its disk.
///
/// Not `non_exhaustive`: a driver has to say where each field comes from, also one that a later version adds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time-outs and intervals.
    pub timing: Timing,
    /// The seed of the replica's jitter and nonces.
    pub seed: u64,
    /// The client id of the replica's own handle.
    pub local_client: ClientId,
    /// The version of the state machine that this build applies.
    pub machine_version: u32,
    /// Bytes of bodies the log may hold before requests are answered `LogFull`.
    pub log_bytes_max: u64,
    /// Bytes of applied entries that stay in memory for slow peers.
    pub cache_bytes: u64,
    /// Bytes of requests that may wait for a place in the pipeline.
    pub queue_bytes_max: usize,
    /// Whether storage keeps checkpoints ([`Storage::keeps_checkpoints`](crate::Storage::keeps_checkpoints)): without, none is taken.
    pub checkpoints: bool,
}
