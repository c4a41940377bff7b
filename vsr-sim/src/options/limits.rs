//! The configuration of a run's cluster: its quorums, its limits, its time-outs; and what a seed draws of it.

use std::time::Duration;

use vsr::protocol::limits::{CHECKPOINT_BYTES, CHECKPOINT_OPS};
use vsr::protocol::{Constants, Quorums, Random};
use vsr::{Config, Membership, Timing};

use super::values::Value;
use super::{Options, Ppm, log_uniform};
use crate::faults::draw;

/// What the cluster is told, beside its size, pipeline, window and table of sessions. Half of the seeds draw some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Quorums of its own; the defaults of its size when none are given.
    pub quorums: Option<Quorums>,
    /// [`Constants::session_idle_min`].
    pub session_idle_min: u64,
    /// [`Constants::request_max`].
    pub request_max: u32,
    /// [`Constants::reply_max`].
    pub reply_max: u32,
    /// [`Constants::session_replies_max`].
    pub session_replies_max: u32,
    /// [`Constants::table_replies_max`].
    pub table_replies_max: u64,
    /// [`Constants::batch_requests_max`].
    pub batch_requests_max: u32,
    /// [`Constants::batch_bytes_max`].
    pub batch_bytes_max: u32,
    /// [`Constants::checkpoint_ops`]; 0 for no checkpoints.
    pub checkpoint_ops: u64,
    /// [`Config::log_bytes_max`].
    pub log_bytes_max: u64,
    /// [`Config::cache_bytes`].
    pub cache_bytes: u64,
    /// [`Config::queue_bytes_max`].
    pub queue_bytes_max: usize,
    /// Requests that wait in a handle, or a client, for callers.
    pub queue_max: usize,
    /// [`Config::apply_slice`].
    pub apply_slice: usize,
    /// The time-outs of every replica.
    pub timing: Timing,
}

/// A log of this size is full before the clients are done: one seed in so many has one.
const FULL_LOG_ONE_IN: u64 = 48;
const LOG_BYTES: u64 = 1 << 30;

impl Limits {
    /// The defaults; a small cache in some seeds, so that entries are read back from the disk.
    #[must_use]
    pub fn default_of(seed: u64) -> Limits {
        let constants = Constants::default();
        Limits {
            quorums: None,
            session_idle_min: 20,
            request_max: constants.request_max,
            reply_max: constants.reply_max,
            session_replies_max: constants.session_replies_max,
            table_replies_max: constants.table_replies_max,
            batch_requests_max: constants.batch_requests_max,
            batch_bytes_max: constants.batch_bytes_max,
            checkpoint_ops: 0,
            log_bytes_max: LOG_BYTES,
            cache_bytes: if seed.is_multiple_of(3) { 2048 } else { 1 << 20 },
            queue_bytes_max: 32 << 20,
            queue_max: 65_536,
            apply_slice: if seed.is_multiple_of(5) { 3 } else { 4096 },
            timing: Timing::default(),
        }
    }

    /// As long commands and replies, and as many of them, as the defaults allow: for machines whose sizes are not known.
    #[must_use]
    pub fn with_default_sizes(self, seed: u64) -> Limits {
        let Limits {
            quorums,
            session_idle_min,
            batch_requests_max,
            checkpoint_ops,
            cache_bytes,
            queue_max,
            apply_slice,
            timing,
            ..
        } = self;
        Limits {
            quorums,
            session_idle_min,
            batch_requests_max,
            checkpoint_ops,
            cache_bytes,
            queue_max,
            apply_slice,
            timing,
            ..Limits::default_of(seed)
        }
    }

    pub(super) fn fields(&mut self) -> Vec<(&'static str, &mut dyn Value)> {
        vec![
            ("quorums", &mut self.quorums),
            ("idle-min", &mut self.session_idle_min),
            ("request-max", &mut self.request_max),
            ("reply-max", &mut self.reply_max),
            ("session-replies", &mut self.session_replies_max),
            ("table-replies", &mut self.table_replies_max),
            ("batch-requests", &mut self.batch_requests_max),
            ("batch-bytes", &mut self.batch_bytes_max),
            ("checkpoint-ops", &mut self.checkpoint_ops),
            ("log-bytes", &mut self.log_bytes_max),
            ("cache-bytes", &mut self.cache_bytes),
            ("queue-bytes", &mut self.queue_bytes_max),
            ("queue", &mut self.queue_max),
            ("apply-slice", &mut self.apply_slice),
            ("heartbeat", &mut self.timing.heartbeat),
            ("primary-timeout", &mut self.timing.primary_timeout),
            ("view-change-timeout", &mut self.timing.view_change_timeout),
            ("retry", &mut self.timing.retry),
            ("ping", &mut self.timing.ping),
            ("quorum-timeout", &mut self.timing.quorum_timeout),
            ("disk-stall-timeout", &mut self.timing.disk_stall_timeout),
            ("forward-timeout", &mut self.timing.forward_timeout),
            ("scrub", &mut self.timing.scrub),
        ]
    }

    pub(crate) fn set_constants(&self, membership: &mut Membership) {
        if let Some(quorums) = self.quorums {
            membership.quorums = quorums;
        }
        let constants = &mut membership.constants;
        constants.session_idle_min = self.session_idle_min;
        constants.request_max = self.request_max;
        constants.reply_max = self.reply_max;
        constants.session_replies_max = self.session_replies_max;
        constants.table_replies_max = self.table_replies_max;
        constants.batch_requests_max = self.batch_requests_max;
        constants.batch_bytes_max = self.batch_bytes_max;
        constants.checkpoint_ops = self.checkpoint_ops;
        if self.log_may_be_full() {
            // With checkpoints three intervals fit into the log; without, it may become full.
            let interval = self.log_bytes_max.saturating_sub(constants.log_room_min()) / 3;
            constants.checkpoint_bytes = interval.max(CHECKPOINT_BYTES.min);
            if self.checkpoint_ops == CHECKPOINT_OPS.default {
                constants.checkpoint_ops = 0;
            }
        }
    }

    /// Whether checkpoints are taken in a run.
    pub(crate) fn takes_checkpoints(&self) -> bool {
        self.checkpoint_ops > 0 && self.checkpoint_ops != CHECKPOINT_OPS.default
    }

    pub(crate) fn set_config(&self, config: &mut Config) {
        config.timing = self.timing;
        let constants = &config.membership.constants;
        let least = constants.log_room_min() + 3 * constants.checkpoint_bytes;
        let may_be_full = self.log_may_be_full() && constants.checkpoint_ops > 0;
        config.log_bytes_max = if may_be_full { self.log_bytes_max.max(least) } else { self.log_bytes_max };
        config.cache_bytes = self.cache_bytes;
        config.queue_bytes_max = self.queue_bytes_max;
        config.handle_queue_max = self.queue_max;
        config.apply_slice = self.apply_slice;
    }

    /// Whether a log of this size may be full before the clients are done.
    pub(crate) fn log_may_be_full(&self) -> bool {
        self.log_bytes_max < LOG_BYTES
    }

    /// What is not a default, by the name of its counter.
    pub(crate) fn counters(&self, options: &Options) -> Vec<&'static str> {
        let plain = Limits::default_of(options.seed);
        let Limits { checkpoint_ops, .. } = plain;
        let small = Limits { quorums: plain.quorums, timing: plain.timing, checkpoint_ops, ..*self };
        let of = [
            (self.quorums.is_some(), "own quorums"),
            (small != plain, "small limits"),
            (self.timing != plain.timing, "own time-outs"),
            (self.timing.view_change_timeout < options.view_change_time(), "view changes longer than their time-out"),
        ];
        of.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
    }
}

impl Value for Option<(usize, u64)> {
    fn show(&self) -> String {
        self.map_or("none".to_owned(), |(replica, op)| format!("r{replica}@{op}"))
    }

    fn parse(&mut self, text: &str) -> Result<(), String> {
        if text == "none" {
            *self = None;
            return Ok(());
        }
        let parts = text.strip_prefix('r').and_then(|text| text.split_once('@'));
        let numbers = parts.and_then(|(replica, op)| Some((replica.parse().ok()?, op.parse().ok()?)));
        *self = Some(numbers.ok_or("write none, or a replica and an op, as in r1@200")?);
        Ok(())
    }
}

impl Value for Option<Quorums> {
    fn show(&self) -> String {
        self.map_or("default".to_owned(), |quorums| {
            format!("{}/{}/{}", quorums.replication, quorums.view_change, quorums.nack)
        })
    }

    fn parse(&mut self, text: &str) -> Result<(), String> {
        if text == "default" {
            *self = None;
            return Ok(());
        }
        let numbers: Option<Vec<u8>> = text.split('/').map(|number| number.parse().ok()).collect();
        let Some(&[replication, view_change, nack]) = numbers.as_deref() else {
            return Err("write default, or replication, view change and nack quorum, as in 2/2/2".to_owned());
        };
        *self = Some(Quorums { replication, view_change, nack });
        Ok(())
    }
}

fn one_of<T: Copy>(random: &mut Random, values: &[T]) -> T {
    values[random.below(values.len() as u64) as usize]
}

/// Any of the legal ones; mostly with the smallest second and third of the first.
fn own_quorums(random: &mut Random, n: u64) -> Quorums {
    let replication = 1 + random.below(n);
    let at_least = |random: &mut Random, least: u64| {
        if random.chance(2, 3) { least } else { least + random.below(n - least + 1) }
    };
    let view_change = at_least(random, (n - replication + 1).max(n / 2 + 1));
    let nack = at_least(random, n - replication + 1);
    Quorums { replication: replication as u8, view_change: view_change as u8, nack: nack as u8 }
}

/// What a seed's configuration is drawn for: apart from its faults, so that either can change and the other stays.
const CONFIGURATION: u64 = 0x636f_6e66;

impl Options {
    /// The longest that a message takes.
    pub(crate) fn delay_longest(&self) -> Duration {
        self.delay_min + self.delay_spread
    }

    /// The longest that a write takes, on a disk that is not slow.
    pub(crate) fn write_longest(&self) -> Duration {
        self.write_min + self.write_spread
    }

    /// The longest that a view change takes in which nothing goes wrong: three writes one after the other, three messages.
    pub(crate) fn view_change_time(&self) -> Duration {
        (self.write_longest() + self.delay_longest()) * 3
    }

    /// A few seeds are of eight or nine replicas.
    pub(crate) fn draw_size(seed: u64, replicas: usize) -> usize {
        let mut random = draw(seed, CONFIGURATION, 0, 0);
        if random.chance(1, 32) { 8 + random.below(2) as usize } else { replicas }
    }

    /// Half of the seeds have a cluster with quorums, limits or time-outs of its own.
    pub(crate) fn draw_configuration(&mut self) {
        let mut random = draw(self.seed, CONFIGURATION, 1, 0);
        let random = &mut random;
        if random.chance(1, 2) {
            return;
        }
        if self.replicas > 1 && random.chance(1, 2) {
            self.limits.quorums = Some(own_quorums(random, self.replicas as u64));
        }
        if random.chance(2, 3) {
            self.draw_sizes(random);
        }
        if random.chance(1, 2) {
            self.draw_timing(random);
        }
    }

    fn draw_sizes(&mut self, random: &mut Random) {
        let limits = &mut self.limits;
        if random.chance(1, 3) {
            limits.session_idle_min = one_of(random, &[5, 20, 60]);
        }
        if random.chance(1, 2) {
            limits.request_max = one_of(random, &[300, 700, 4096]);
            limits.batch_bytes_max = limits.request_max + 64 + one_of(random, &[0, 200, 2000]);
        }
        if random.chance(1, 2) {
            limits.reply_max = 64;
            limits.session_replies_max = one_of(random, &[64, 128, 1024]);
            limits.table_replies_max = u64::from(limits.session_replies_max) * one_of(random, &[1, 2, 8]);
        }
        if random.chance(1, 2) {
            limits.batch_requests_max = one_of(random, &[1, 2, 4, 16]);
        }
        if random.chance(1, 2) {
            limits.cache_bytes = one_of(random, &[0, 700, 2048, 1 << 20]);
        }
        if random.chance(1, 2) {
            limits.queue_bytes_max = limits.batch_bytes_max as usize * one_of(random, &[1, 2, 8]);
        }
        if random.chance(1, 3) {
            limits.queue_max = one_of(random, &[2, 8, 64]);
        }
        if random.chance(1, 3) {
            limits.apply_slice = one_of(random, &[1, 3, 64]);
        }
        // A third of all seeds comes here.
        if random.chance(3, FULL_LOG_ONE_IN) {
            let constants = Constants::default().with(|constants| constants.batch_bytes_max = limits.batch_bytes_max);
            limits.log_bytes_max = constants.log_room_min().max(16_384 << random.below(3));
        }
    }

    /// Time-outs that fit the world: nothing is suspected that goes as it should. Only a view change may take longer than is
    /// waited for it, and succeeds when the time-out has doubled often enough.
    fn draw_timing(&mut self, random: &mut Random) {
        let (delay, write, change) = (self.delay_longest(), self.write_longest(), self.view_change_time());
        let millis = Duration::from_millis;
        let times = |random: &mut Random| 1 + random.below(4) as u32;
        let timing = &mut self.limits.timing;
        timing.heartbeat = log_uniform(random, millis(10), millis(100));
        timing.retry = log_uniform(random, millis(10), millis(150)).max(delay / 2);
        timing.ping = log_uniform(random, millis(50), millis(500));
        timing.primary_timeout = (timing.heartbeat * 3 + (delay + write) * 2) * times(random);
        timing.quorum_timeout = (timing.heartbeat * 2 + timing.retry + (delay + write) * 2) * times(random);
        let whole = change + timing.retry * 2;
        timing.view_change_timeout = if random.chance(1, 3) {
            (change / (2 + random.below(3) as u32)).max((change + timing.retry * 3) / 6).max(millis(5))
        } else {
            whole.max(millis(40)) * times(random)
        };
        timing.disk_stall_timeout = write * 4 + log_uniform(random, millis(200), Duration::from_secs(3));
        timing.forward_timeout = (delay + write) * 4 + log_uniform(random, millis(300), Duration::from_secs(2));
        // By a generator of its own. Half of the seeds leave damage until it is met.
        let mut random = draw(self.seed, CONFIGURATION, 6, 0);
        let scrub = log_uniform(&mut random, millis(20), Duration::from_secs(2));
        timing.scrub = if random.chance(1, 2) { Duration::ZERO } else { scrub };
    }

    /// Sequences of faults that hardly come about by themselves, each in a few seeds. By a generator of its own: they change nothing
    /// else of a seed.
    pub(crate) fn draw_sequences(&mut self) {
        let mut random = draw(self.seed, CONFIGURATION, 2, 0);
        let (short_reigns, doubts) = (random.chance(1, 10), random.chance(1, 10));
        if self.replicas >= 3 && short_reigns {
            self.short_reigns = one_of(&mut random, &[50, 75, 100]);
        }
        if self.replicas >= 3 && doubts {
            self.doubts_every = log_uniform(&mut random, Duration::from_secs(1), Duration::from_secs(6));
        }
        let mut random = draw(self.seed, CONFIGURATION, 3, 0);
        let mut checkpoints = draw(self.seed, CONFIGURATION, 4, 0);
        if checkpoints.chance(1, 3) {
            self.limits.checkpoint_ops = one_of(&mut checkpoints, &[5, 20, 60, 150]);
            if self.replicas >= 3 && checkpoints.chance(1, 6) {
                let replica = checkpoints.below(self.replicas as u64) as usize;
                self.wrong_state = Some((replica, 1 + checkpoints.below(400)));
            }
        }
        if random.chance(1, 2) {
            self.start_max = log_uniform(&mut random, Duration::from_millis(10), Duration::from_millis(300));
        }
    }

    /// Messages of earlier terms, terms that come again, and lost ends of logs.
    pub(crate) fn draw_terms(&mut self, random: &mut Random, on: &mut impl FnMut(&mut Random, u64) -> bool) {
        let (micros, millis, secs) = (Duration::from_micros, Duration::from_millis, Duration::from_secs);
        if on(random, 35) {
            self.late_terms = Ppm(1 << (12 + random.below(6)));
        }
        if self.replicas > 1 && on(random, 30) {
            self.depose_every = log_uniform(random, millis(300), secs(3));
        }
        if self.replicas >= 3 && on(random, 25) {
            self.lost_tail_every = log_uniform(random, millis(500), secs(6));
        }
        if on(random, 30) {
            self.core_loss = Ppm(1 << (8 + random.below(6)));
            self.core_delay = log_uniform(random, micros(100), millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quorums_that_are_drawn_are_legal_and_all_of_them_are_drawn() {
        for n in 1..=9_u64 {
            let mut random = Random::new(n);
            let legal = |(a, b, c): (u64, u64, u64)| a + b > n && b * 2 > n && c + a > n;
            let mut left = Vec::new();
            for a in 1..=n {
                for b in 1..=n {
                    left.extend((1..=n).map(|c| (a, b, c)).filter(|quorums| legal(*quorums)));
                }
            }
            for _ in 0..40_000 {
                let Quorums { replication, view_change, nack } = own_quorums(&mut random, n);
                let drawn = (u64::from(replication), u64::from(view_change), u64::from(nack));
                assert!(legal(drawn), "{drawn:?} of {n}");
                left.retain(|quorums| *quorums != drawn);
            }
            assert!(left.is_empty(), "of {n} never drawn: {left:?}");
        }
    }

    #[test]
    fn every_configuration_that_is_drawn_works_and_half_of_them_are_the_defaults() {
        let mut plain = 0;
        for seed in 0..3000 {
            let drawn = Options::from_seed(seed);
            assert_eq!(drawn.validate(), Ok(()), "seed {seed}: {drawn}");
            let limits = Limits { checkpoint_ops: 0, ..drawn.limits };
            plain += u32::from(limits == Limits::default_of(seed));
        }
        assert!((1300..1900).contains(&plain), "{plain} of 3000");
    }
}
