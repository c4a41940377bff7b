//! What a seed draws: the cluster, its load, and which faults are on and how strong (swarm testing,
//! Groce et al. 2012).

use std::fmt;
use std::time::Duration;

use vsr::protocol::Random;

/// A chance of some in a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ppm(pub u32);

impl Ppm {
    /// Draws.
    pub fn happens(self, random: &mut Random) -> bool {
        self.0 > 0 && random.below(1_000_000) < u64::from(self.0)
    }
}

/// The options of one run. A seed draws them; a test may set them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything that is random comes from it.
    pub seed: u64,
    /// Voting members.
    pub replicas: usize,
    /// Clients outside the cluster.
    pub clients: usize,
    /// Requests of each client.
    pub requests: u32,
    /// Queries among a client's operations, in percent.
    pub queries_percent: u64,
    /// Whether applications on the replicas submit through their handles, too.
    pub handles: bool,
    /// Ops in flight.
    pub pipeline_max: u32,
    /// Requests of a session in flight.
    pub window: u32,
    /// Sessions kept.
    pub sessions_max: u32,
    /// The most virtual time that the safety phase takes.
    pub safety: Duration,
    /// The most virtual time that the liveness phase takes.
    pub liveness: Duration,
    /// Messages: the shortest delay.
    pub delay_min: Duration,
    /// Messages: what is added at most; more than the gap between two messages reorders them.
    pub delay_spread: Duration,
    /// Messages lost.
    pub loss: Ppm,
    /// Messages delivered twice.
    pub duplicates: Ppm,
    /// Mean time between two partitions; zero for none.
    pub partition_every: Duration,
    /// Partitions in one direction only, in percent.
    pub one_way_percent: u64,
    /// Mean time between two crashes; zero for none.
    pub crash_every: Duration,
    /// Mean time until a crashed replica starts again.
    pub restart_after: Duration,
    /// Whole-cluster crashes among the crashes, in percent.
    pub crash_all_percent: u64,
    /// Mean time between two pauses; zero for none.
    pub pause_every: Duration,
    /// How long a pause takes at most.
    pub pause_max: Duration,
    /// The shortest write.
    pub write_min: Duration,
    /// What is added to a write at most.
    pub write_spread: Duration,
    /// Mean time between two rotten slots; zero for none.
    pub rot_every: Duration,
    /// Whether a crash may leave a part of the write that was under way.
    pub torn_writes: bool,
    /// Clocks: the most that a wall clock is off.
    pub skew_max: Duration,
    /// Clocks: the most that one runs fast or slow, in parts per thousand.
    pub drift_max: u64,
}

fn log_uniform(random: &mut Random, min: Duration, max: Duration) -> Duration {
    let (min, max) = (min.as_nanos() as u64, max.as_nanos() as u64);
    let doublings = u64::from((max / min.max(1)).max(1).ilog2());
    let base = min << random.below(doublings + 1);
    Duration::from_nanos((base + random.below(base)).min(max))
}

impl Options {
    /// A cluster of this size in a world without faults.
    #[must_use]
    pub fn calm(seed: u64, replicas: usize) -> Options {
        Options {
            seed,
            replicas,
            clients: 3,
            requests: 60,
            queries_percent: 20,
            handles: false,
            pipeline_max: 32,
            window: 1024,
            sessions_max: 1000,
            safety: Duration::from_secs(30),
            liveness: Duration::from_secs(120),
            delay_min: Duration::from_micros(100),
            delay_spread: Duration::from_micros(100),
            loss: Ppm(0),
            duplicates: Ppm(0),
            partition_every: Duration::ZERO,
            one_way_percent: 0,
            crash_every: Duration::ZERO,
            restart_after: Duration::from_millis(500),
            crash_all_percent: 0,
            pause_every: Duration::ZERO,
            pause_max: Duration::from_millis(500),
            write_min: Duration::from_micros(50),
            write_spread: Duration::from_micros(200),
            rot_every: Duration::ZERO,
            torn_writes: false,
            skew_max: Duration::ZERO,
            drift_max: 0,
        }
    }

    /// What this seed draws.
    #[must_use]
    pub fn from_seed(seed: u64) -> Options {
        let mut random = Random::new(seed ^ 0x0076_7372_5f73_696d);
        let random = &mut random;
        let sizes = [1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7];
        let mut options = Options::calm(seed, sizes[random.below(sizes.len() as u64) as usize]);
        options.clients = 1 + random.below(5) as usize;
        options.requests = (240 / options.clients as u32).max(30);
        options.queries_percent = random.below(40);
        options.handles = random.chance(1, 2);
        options.pipeline_max = [1, 2, 4, 8, 32][random.below(5) as usize];
        options.window = [1, 4, 64, 1024][random.below(4) as usize];
        options.sessions_max = if random.chance(1, 4) { 8 } else { 1000 };
        options.delay_min = log_uniform(random, Duration::from_micros(20), Duration::from_millis(5));
        options.delay_spread = log_uniform(random, Duration::from_micros(20), Duration::from_millis(40));
        options.write_min = log_uniform(random, Duration::from_micros(10), Duration::from_millis(2));
        options.write_spread = log_uniform(random, Duration::from_micros(10), Duration::from_millis(30));
        let calm = random.chance(1, 12);
        let all = !calm && random.chance(1, 16);
        let on = |random: &mut Random, percent: u64| !calm && (random.chance(percent, 100) || all);
        if on(random, 50) {
            options.loss = Ppm(1 << (8 + random.below(10)));
        }
        if on(random, 40) {
            options.duplicates = Ppm(1 << (8 + random.below(10)));
        }
        if on(random, 50) {
            options.partition_every = log_uniform(random, Duration::from_millis(400), Duration::from_secs(8));
            options.one_way_percent = random.below(101);
        }
        if on(random, 85) {
            options.crash_every = log_uniform(random, Duration::from_millis(150), Duration::from_secs(2));
            options.restart_after = log_uniform(random, Duration::from_millis(5), Duration::from_secs(3));
            options.crash_all_percent = if random.chance(1, 2) { random.below(30) } else { 0 };
            options.torn_writes = random.chance(2, 3);
        }
        if on(random, 35) {
            options.pause_every = log_uniform(random, Duration::from_millis(500), Duration::from_secs(5));
            options.pause_max = log_uniform(random, Duration::from_millis(50), Duration::from_secs(2));
        }
        if on(random, 40) && options.replicas >= 3 {
            options.rot_every = log_uniform(random, Duration::from_millis(200), Duration::from_secs(4));
        }
        if on(random, 40) {
            options.skew_max = log_uniform(random, Duration::from_millis(1), Duration::from_secs(3600));
            options.drift_max = random.below(60);
        }
        options
    }

    /// Whether no fault is on.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.loss.0 == 0
            && self.duplicates.0 == 0
            && self.partition_every.is_zero()
            && self.crash_every.is_zero()
            && self.pause_every.is_zero()
            && self.rot_every.is_zero()
            && self.drift_max == 0
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "replicas={} clients={} requests={} queries={}% handles={} pipeline={} window={} sessions={} delay={:?}+{:?} write={:?}+{:?}",
            self.replicas,
            self.clients,
            self.requests,
            self.queries_percent,
            self.handles,
            self.pipeline_max,
            self.window,
            self.sessions_max,
            self.delay_min,
            self.delay_spread,
            self.write_min,
            self.write_spread,
        )?;
        if self.is_calm() {
            return write!(f, " calm");
        }
        let rates = [("loss", self.loss), ("duplicates", self.duplicates)];
        for (name, ppm) in rates.into_iter().filter(|(_, ppm)| ppm.0 > 0) {
            write!(f, " {name}={}ppm", ppm.0)?;
        }
        let times = [
            ("partition", self.partition_every),
            ("crash", self.crash_every),
            ("pause", self.pause_every),
            ("rot", self.rot_every),
            ("skew", self.skew_max),
        ];
        for (name, every) in times.into_iter().filter(|(_, every)| !every.is_zero()) {
            write!(f, " {name}={every:?}")?;
        }
        if self.drift_max > 0 {
            write!(f, " drift={}/1000", self.drift_max)?;
        }
        if self.torn_writes {
            write!(f, " torn")?;
        }
        Ok(())
    }
}
