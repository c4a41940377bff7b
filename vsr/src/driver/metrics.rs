//! Metrics and log of a replica: through the facade `metrics`, with names and meanings in [`METRICS`](crate::METRICS), and through `tracing`; each where
//! its feature is on.

use std::collections::VecDeque;
use std::time::Duration;

#[cfg(feature = "metrics")]
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

#[cfg(not(feature = "metrics"))]
use self::silent::{Counter, Gauge, Histogram, counter, gauge, histogram};
use crate::log;
use crate::protocol::{Batch, Core, Event, Health, Mark, Monotonic, OpNumber, Refusals, ReplicaId};

/// Every metric of this crate: name, kind, meaning. All carry the label `replica`. Without the feature `metrics` there are none.
#[cfg(feature = "metrics")]
pub const METRICS: &[(&str, &str, &str)] = &[
    ("vsr_commit_seconds", "histogram", "from the preparation of an op to its commit, at the primary"),
    ("vsr_sync_seconds", "histogram", "one storage write, synced"),
    ("vsr_sync_entries", "histogram", "entries in one storage write: how well the group commit works"),
    (
        "vsr_checkpoint_seconds",
        "histogram",
        "one checkpoint, from the copy of the state to the last sync, also if it failed",
    ),
    ("vsr_checkpoint_op", "gauge", "last op of the newest checkpoint that a start goes on from; 0 without one"),
    ("vsr_checkpoints_skipped", "gauge", "checkpoints that were due while one was not done, since the start"),
    ("vsr_checkpoints_failed_total", "counter", "checkpoints that could not be written"),
    ("vsr_log_base", "gauge", "last op that was dropped from the log: checkpoints have it"),
    (
        "vsr_damaged_total",
        "counter",
        "entries and checkpoints on the disk that were found damaged, and are repaired: see to the disk",
    ),
    ("vsr_transfers_total", "counter", "checkpoints of other replicas that were begun to be fetched"),
    ("vsr_transfer_progress", "gauge", "part of the checkpoint that is being fetched, from 0 to 1; 1 while none is"),
    ("vsr_view_changes_total", "counter", "views entered"),
    ("vsr_votes_total", "counter", "votes to leave a view"),
    ("vsr_view", "gauge", "number of the view"),
    ("vsr_is_primary", "gauge", "1 at the primary in normal operation"),
    ("vsr_commit_number", "gauge", "ops known to be committed"),
    ("vsr_applied_op", "gauge", "last op applied to the state machine"),
    ("vsr_head_op", "gauge", "last op in the log"),
    ("vsr_queue_depth", "gauge", "requests that wait for a place in the pipeline"),
    ("vsr_sessions", "gauge", "open sessions"),
    ("vsr_log_bytes", "gauge", "bytes of entries in the log"),
    ("vsr_quorum", "gauge", "1 while enough members are heard, 0 while nothing can commit for want of them"),
    ("vsr_normal", "gauge", "1 while nothing stands in the way of commands, as far as this replica sees it"),
    ("vsr_commit_stalled_seconds", "gauge", "for how long ops have waited for a commit; 0 while none waits"),
    ("vsr_write_under_way_seconds", "gauge", "age of the storage write under way; 0 without one"),
    ("vsr_log_room_bytes", "gauge", "bytes that the log can still take, by its limit and by what its storage says"),
    ("vsr_refused_by", "gauge", "peers that refuse this replica"),
    ("vsr_messages_ignored_total", "counter", "messages without effect: old views, repeats, strangers"),
];

/// Looked up once; nothing here is done per request.
pub(crate) struct Metrics {
    commit_seconds: Histogram,
    sync_seconds: Histogram,
    sync_entries: Histogram,
    checkpoint_seconds: Histogram,
    checkpoint_op: Gauge,
    checkpoints_skipped: Gauge,
    checkpoints_failed: Counter,
    log_base: Gauge,
    transfers: Counter,
    damaged: Counter,
    transfer_progress: Gauge,
    view_changes: Counter,
    votes: Counter,
    ignored: Counter,
    view: Gauge,
    is_primary: Gauge,
    commit_number: Gauge,
    applied_op: Gauge,
    head_op: Gauge,
    queue_depth: Gauge,
    sessions: Gauge,
    log_bytes: Gauge,
    quorum: Gauge,
    normal: Gauge,
    commit_stalled: Gauge,
    write_under_way: Gauge,
    log_room: Gauge,
    refused_by: Gauge,
    /// The trouble that the log was told of last, if it has not passed.
    told: Option<(Health, Monotonic)>,
    /// Since when a missing quorum is an alarm: at a start no peer has been heard yet.
    started: Option<Monotonic>,
    write_since: Monotonic,
    prepared: VecDeque<(OpNumber, Monotonic)>,
    gauges_at: Monotonic,
}

const GAUGES_EVERY_NANOS: u64 = 20_000_000;
/// After a start it takes a moment until the others are heard.
const START_MAX: Duration = Duration::from_secs(2);

impl Metrics {
    pub(crate) fn new(replica: ReplicaId) -> Metrics {
        let replica = replica.0.to_string();
        let label = || [("replica", replica.clone())];
        Metrics {
            commit_seconds: histogram!("vsr_commit_seconds", &label()),
            sync_seconds: histogram!("vsr_sync_seconds", &label()),
            sync_entries: histogram!("vsr_sync_entries", &label()),
            checkpoint_seconds: histogram!("vsr_checkpoint_seconds", &label()),
            checkpoint_op: gauge!("vsr_checkpoint_op", &label()),
            checkpoints_skipped: gauge!("vsr_checkpoints_skipped", &label()),
            checkpoints_failed: counter!("vsr_checkpoints_failed_total", &label()),
            log_base: gauge!("vsr_log_base", &label()),
            transfers: counter!("vsr_transfers_total", &label()),
            damaged: counter!("vsr_damaged_total", &label()),
            transfer_progress: gauge!("vsr_transfer_progress", &label()),
            view_changes: counter!("vsr_view_changes_total", &label()),
            votes: counter!("vsr_votes_total", &label()),
            ignored: counter!("vsr_messages_ignored_total", &label()),
            view: gauge!("vsr_view", &label()),
            is_primary: gauge!("vsr_is_primary", &label()),
            commit_number: gauge!("vsr_commit_number", &label()),
            applied_op: gauge!("vsr_applied_op", &label()),
            head_op: gauge!("vsr_head_op", &label()),
            queue_depth: gauge!("vsr_queue_depth", &label()),
            sessions: gauge!("vsr_sessions", &label()),
            log_bytes: gauge!("vsr_log_bytes", &label()),
            quorum: gauge!("vsr_quorum", &label()),
            normal: gauge!("vsr_normal", &label()),
            commit_stalled: gauge!("vsr_commit_stalled_seconds", &label()),
            write_under_way: gauge!("vsr_write_under_way_seconds", &label()),
            log_room: gauge!("vsr_log_room_bytes", &label()),
            refused_by: gauge!("vsr_refused_by", &label()),
            told: None,
            started: None,
            write_since: Monotonic(0),
            prepared: VecDeque::new(),
            gauges_at: Monotonic(0),
        }
    }

    pub(crate) fn write_started(&mut self, now: Monotonic, batch: &Batch) {
        self.write_since = now;
        self.sync_entries.record(batch.entries.len() as f64);
    }

    pub(crate) fn write_ended(&mut self, now: Monotonic) {
        self.sync_seconds.record(now.since(self.write_since));
    }

    pub(crate) fn checkpoint_ended(&mut self, now: Monotonic, since: Monotonic, is_written: bool) {
        self.checkpoint_seconds.record(now.since(since));
        self.checkpoints_failed.increment((!is_written).into());
    }

    pub(crate) fn turn_ended(&mut self, now: Monotonic, core: &Core, events: &[Event], marks: &[Mark]) {
        if core.is_primary() {
            let known = self.prepared.back().map_or(core.commit().op(), |(op, _)| *op);
            for op in known.0 + 1..=core.head().0 {
                self.prepared.push_back((OpNumber(op), now));
            }
        } else {
            self.prepared.clear();
        }
        while self.prepared.front().is_some_and(|(op, _)| op.is_committed(core.commit())) {
            if let Some((_, since)) = self.prepared.pop_front() {
                self.commit_seconds.record(now.since(since));
            }
        }
        for event in events {
            match event {
                Event::ViewEntered { view } => {
                    self.view_changes.increment(1);
                    log::info!(replica = %core.id(), %view, "view entered");
                }
                Event::ViewStarted { view, primary } => {
                    log::info!(replica = %core.id(), %view, %primary, "view started");
                }
                Event::Voted { view, why } => {
                    self.votes.increment(1);
                    log::info!(replica = %core.id(), %view, %why, "voted to leave the view");
                }
                Event::HandedOn { view } => {
                    log::info!(replica = %core.id(), %view, "its view is left to the next primary: this one lacks the state, or a disk that rejoins waits for a later view");
                }
                Event::Appointed { op, view } => {
                    log::warn!(
                        replica = %core.id(), %op, %view,
                        "the others have put this disk in the place of the lost one: it counts from this view on, when it is whole"
                    );
                }
                Event::Rejoined { .. } => {
                    log::warn!(replica = %core.id(), "this disk is whole, and counts from now on")
                }
                Event::Lost { op } => {
                    log::error!(replica = %core.id(), %op, "no replica holds an intact copy of an op that may be committed");
                }
                Event::Distrusted { replica, why } => {
                    log::warn!(replica = %core.id(), peer = %replica, %why, "the word of a member does not count any more");
                }
                Event::Truncated { above, head } => {
                    log::info!(replica = %core.id(), %above, %head, "log truncated");
                }
                Event::StatesDiffer { with, op, own, other } => {
                    log::error!(
                        replica = %core.id(), peer = %with, %op, %own, %other,
                        "the state machine of another replica has another digest: one of the two is wrong"
                    );
                }
                Event::Restored { op, .. } => {
                    log::info!(replica = %core.id(), %op, "the state is that of a checkpoint; what came after it is applied from the log");
                }
                Event::LogDropped { base } => {
                    log::info!(replica = %core.id(), %base, "the log is dropped up to this op: checkpoints have it");
                }
                Event::Damaged { op } => {
                    self.damaged.increment(1);
                    log::warn!(replica = %core.id(), %op, "an entry on the disk is damaged: it is fetched from a peer, if there is one; see to the disk");
                }
                Event::CheckpointDamaged { op } => {
                    self.damaged.increment(1);
                    log::warn!(replica = %core.id(), %op, "a checkpoint on the disk is damaged: a new one takes its place; see to the disk");
                }
                Event::TransferBegan { op } => {
                    self.transfers.increment(1);
                    log::warn!(replica = %core.id(), %op, "what is missing here is in no log any more: a checkpoint of the others is fetched");
                }
                Event::Checkpointed { op } => log::info!(replica = %core.id(), %op, "checkpoint"),
                Event::Committed { .. } | Event::Applied { .. } => {}
            }
        }
        self.marks(core, marks);
    }

    fn marks(&self, core: &Core, marks: &[Mark]) {
        for mark in marks {
            match mark {
                Mark::Ignored { message, why } => {
                    self.ignored.increment(1);
                    log::debug!(replica = %core.id(), message, why, "message ignored");
                }
                Mark::Path(mark) => log::debug!(replica = %core.id(), mark),
            }
        }
    }

    /// What stands in the way of commands, to the log once when it comes and once when it is gone; and all gauges.
    pub(crate) fn health(&mut self, now: Monotonic, core: &Core, health: Health, refused_by: &Refusals) {
        let started = *self.started.get_or_insert(now);
        let is_new = self.told.is_none_or(|(told, _)| told != health);
        let may_be_told = health != Health::NoQuorum || now.since(started) >= START_MAX;
        if health.is_alarm() && is_new && may_be_told {
            let since = self.told.map_or(now, |(_, since)| since);
            self.told = Some((health, since));
            log::warn!(replica = %core.id(), why = %core.explain_refused(refused_by), "{health}");
        } else if health.is_normal() {
            // Once everything was well a quorum can be lost at any moment.
            self.started = Some(Monotonic(now.0.saturating_sub(START_MAX.as_nanos() as u64)));
            if let Some((told, since)) = self.told.take() {
                log::warn!(replica = %core.id(), before = %told, after = ?now.since(since), "normal again");
            }
        }
        if now.0 - self.gauges_at.0 >= GAUGES_EVERY_NANOS {
            self.gauges_at = now;
            self.quorum.set(if core.hears_quorum() { 1.0 } else { 0.0 });
            self.normal.set(if health.is_normal() { 1.0 } else { 0.0 });
            self.commit_stalled.set(core.commit_stalled().as_secs_f64());
            self.write_under_way.set(core.write_age().as_secs_f64());
            self.log_room.set(core.log_room() as f64);
            self.refused_by.set(refused_by.len() as f64);
            self.view.set(core.view().number as f64);
            self.is_primary.set(if core.is_primary() { 1.0 } else { 0.0 });
            self.commit_number.set(core.commit().0 as f64);
            self.applied_op.set(core.applied().0 as f64);
            self.head_op.set(core.head().0 as f64);
            self.queue_depth.set(core.queued() as f64);
            self.sessions.set(core.sessions() as f64);
            self.log_bytes.set(core.log_bytes() as f64);
            self.checkpoint_op.set(core.checkpoint().0 as f64);
            self.checkpoints_skipped.set(core.skipped_checkpoints() as f64);
            self.log_base.set(core.log_base().0 as f64);
            self.transfer_progress.set(core.transfer().map_or(1.0, |(_, done, of)| f64::from(done) / f64::from(of)));
        }
    }
}

/// Metrics that are dropped.
#[cfg(not(feature = "metrics"))]
mod silent {
    pub(super) struct Counter;
    pub(super) struct Gauge;
    pub(super) struct Histogram;

    impl Counter {
        pub(super) fn increment(&self, _: u64) {}
    }

    impl Gauge {
        pub(super) fn set(&self, _: f64) {}
    }

    impl Histogram {
        pub(super) fn record<T>(&self, _: T) {}
    }

    macro_rules! counter {
        ($($labels:tt)*) => {
            $crate::driver::metrics::silent::Counter
        };
    }

    macro_rules! gauge {
        ($($labels:tt)*) => {
            $crate::driver::metrics::silent::Gauge
        };
    }

    macro_rules! histogram {
        ($($labels:tt)*) => {
            $crate::driver::metrics::silent::Histogram
        };
    }

    pub(super) use {counter, gauge, histogram};
}
