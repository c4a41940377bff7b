//! What a seed draws: the cluster, its load, and which faults are on and how strong (swarm testing,
//! Groce et al. 2012).

mod limits;
mod values;

use std::fmt;
use std::time::Duration;

use vsr::protocol::Random;
use vsr::{ClusterId, Config, Membership, ReplicaId};

use self::values::Value;
use crate::faults::draw;

pub use self::limits::Limits;
pub use self::values::{DelayShape, Ppm};

pub(crate) use self::values::parse_duration;

/// The options of one run. [`from_seed`](Options::from_seed) draws them; a test begins with [`calm`](Options::calm), which has no faults, and
/// sets fields. Times are virtual. A [`Ppm`] is the chance that the fault comes to one message, write or read; a field in percent is a
/// share, 0 to 100. A time, a chance or a count of zero turns a fault off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The seed: everything that is random in the run comes from it.
    pub seed: u64,
    /// The number of replicas, 1 to 9.
    pub replicas: usize,
    /// The number of clients outside the cluster.
    pub clients: usize,
    /// Requests of each client.
    pub requests: u32,
    /// Queries among a client's operations, in percent.
    pub queries_percent: u64,
    /// Whether applications on the replicas submit through their handles, too.
    pub handles: bool,
    /// Ops that may be in flight at a time.
    pub pipeline_max: u32,
    /// Requests of one session that may be in flight at a time.
    pub window: u32,
    /// Sessions that the cluster keeps.
    pub sessions_max: u32,
    /// Quorums, further limits and time-outs.
    pub limits: Limits,
    /// The most virtual time that the safety phase takes.
    pub safety: Duration,
    /// The most virtual time that the liveness phase takes.
    pub liveness: Duration,
    /// Messages: the shortest delay.
    pub delay_min: Duration,
    /// Messages: what is added at most; more than the gap between two messages reorders them.
    pub delay_spread: Duration,
    /// Messages: how the delays are spread.
    pub delay_shape: DelayShape,
    /// Messages that a link holds at a time; what is beyond it is lost.
    pub link_max: usize,
    /// Whether every message goes through its encoding.
    pub wire: bool,
    /// Messages lost.
    pub loss: Ppm,
    /// Messages delivered twice.
    pub duplicates: Ppm,
    /// Messages delivered again much later: in another view, in another life.
    pub replays: Ppm,
    /// Messages with a bit flipped.
    pub corruption: Ppm,
    /// Messages delivered to the wrong node.
    pub misdelivery: Ppm,
    /// Messages after which their sender dies.
    pub crash_on_send: Ppm,
    /// Mean time between two partitions.
    pub partition_every: Duration,
    /// Partitions in one direction only, in percent.
    pub one_way_percent: u64,
    /// Mean time between two links that begin to flap.
    pub flap_every: Duration,
    /// Mean time between two links that clog: what is sent waits, and arrives together.
    pub clog_every: Duration,
    /// Mean time between two replicas of which one kind of message is lost for a while.
    pub mute_every: Duration,
    /// Mean time between two crashes.
    pub crash_every: Duration,
    /// Mean time until a crashed replica starts again.
    pub restart_after: Duration,
    /// Crashes of the whole cluster, in percent.
    pub crash_all_percent: u64,
    /// Crashes that are the first of a loop, in percent.
    pub crash_loop_percent: u64,
    /// Writes during or right after which the process dies.
    pub crash_in_write: Ppm,
    /// Whether a crash may leave a part of the write that was under way.
    pub torn_writes: bool,
    /// Mean time between two pauses.
    pub pause_every: Duration,
    /// How long a pause takes at most.
    pub pause_max: Duration,
    /// Pauses in which the clock stands still, too, in percent.
    pub suspend_percent: u64,
    /// The shortest time that a write takes.
    pub write_min: Duration,
    /// The most that is added to the time of a write.
    pub write_spread: Duration,
    /// Mean time between two disks that become slow for a while.
    pub slow_disk_every: Duration,
    /// Writes that hang for a while.
    pub write_hangs: Ppm,
    /// Writes, or their syncs, that fail.
    pub write_errors: Ppm,
    /// Writes that succeed and are not there.
    pub silent_writes: Ppm,
    /// Writes that land in another place.
    pub misdirected_writes: Ppm,
    /// Reads that fail.
    pub read_errors: Ppm,
    /// Reads that find another place's entry, which the storage notices.
    pub misdirected_reads: Ppm,
    /// Mean time between two disks that are full for a while.
    pub full_disk_every: Duration,
    /// Disks that are lost for good.
    pub lost_disks: usize,
    /// Mean time between two rotten slots.
    pub rot_every: Duration,
    /// Clocks: the most that a wall clock is off.
    pub skew_max: Duration,
    /// Clocks: the most that one runs fast or slow, in parts per thousand.
    pub drift_max: u64,
    /// Mean time between two clocks that jump.
    pub clock_jump_every: Duration,
    /// Messages of a term of which a copy is kept, until the replica that it is from or for leads again.
    pub late_terms: Ppm,
    /// Mean time between two primaries that are cut off from the others, and not from their clients: so the same ones lead again.
    pub depose_every: Duration,
    /// Mean time between two power losses that take the last records of a log whole, though they were acknowledged.
    pub lost_tail_every: Duration,
    /// Views in percent whose primary is cut off when its reign has just begun.
    pub short_reigns: u64,
    /// Mean time between two replicas that are told of what they have acknowledged and lost, and die before they have it again.
    pub doubts_every: Duration,
    /// The longest that a start which is not the first takes to read its disk; what arrives meanwhile waits.
    pub start_max: Duration,
    /// The replica of whose state a bit flips, and the op from which on it does.
    pub wrong_state: Option<(usize, u64)>,
    /// Messages that are lost in the liveness phase, too.
    pub core_loss: Ppm,
    /// The most that is added to the delays of messages in the liveness phase.
    pub core_delay: Duration,
    /// Whether replicas run on file storage, its own code on simulated files, instead of a simulated disk.
    pub files: bool,
    /// The number of further clients, each of which breaks the rules of a client in another way.
    pub rogues: usize,
    /// Mean time between two places of a disk that go bad, and stay so when they are written again.
    pub bad_sector_every: Duration,
    /// Mean time between two disks that have no room for a while, which only a failed write says.
    pub no_space_every: Duration,
    /// Writes whose sync fails, and that can be read until power is lost.
    pub failed_syncs: Ppm,
    /// Writes that succeed, and whose records are lost whole.
    pub lost_records: Ppm,
}

/// Of so many seeds one has its replicas on file storage.
const FILES_ONE_OF: u64 = 6;

pub(crate) fn log_uniform(random: &mut Random, min: Duration, max: Duration) -> Duration {
    let (min, max) = (min.as_nanos() as u64, max.as_nanos() as u64);
    let doublings = u64::from((max / min.max(1)).max(1).ilog2());
    let base = min << random.below(doublings + 1);
    Duration::from_nanos((base + random.below(base)).min(max))
}

/// One in a million to some in a hundred, all orders of magnitude alike.
fn rate(random: &mut Random, doublings: u64) -> Ppm {
    Ppm(1 << (6 + random.below(doublings)))
}

/// What the seeds of later starts are drawn for.
const STARTS: u64 = 0x7374_6172_7473;

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
            limits: Limits::default_of(seed),
            safety: Duration::from_secs(30),
            liveness: Duration::from_secs(120),
            delay_min: Duration::from_micros(100),
            delay_spread: Duration::from_micros(100),
            delay_shape: DelayShape::LongTail,
            link_max: 0,
            wire: false,
            loss: Ppm(0),
            duplicates: Ppm(0),
            replays: Ppm(0),
            corruption: Ppm(0),
            misdelivery: Ppm(0),
            crash_on_send: Ppm(0),
            partition_every: Duration::ZERO,
            one_way_percent: 0,
            flap_every: Duration::ZERO,
            clog_every: Duration::ZERO,
            mute_every: Duration::ZERO,
            crash_every: Duration::ZERO,
            restart_after: Duration::from_millis(500),
            crash_all_percent: 0,
            crash_loop_percent: 0,
            crash_in_write: Ppm(0),
            torn_writes: false,
            pause_every: Duration::ZERO,
            pause_max: Duration::from_millis(500),
            suspend_percent: 0,
            write_min: Duration::from_micros(50),
            write_spread: Duration::from_micros(200),
            slow_disk_every: Duration::ZERO,
            write_hangs: Ppm(0),
            write_errors: Ppm(0),
            silent_writes: Ppm(0),
            misdirected_writes: Ppm(0),
            read_errors: Ppm(0),
            misdirected_reads: Ppm(0),
            full_disk_every: Duration::ZERO,
            lost_disks: 0,
            rot_every: Duration::ZERO,
            skew_max: Duration::ZERO,
            drift_max: 0,
            clock_jump_every: Duration::ZERO,
            late_terms: Ppm(0),
            depose_every: Duration::ZERO,
            lost_tail_every: Duration::ZERO,
            short_reigns: 0,
            doubts_every: Duration::ZERO,
            start_max: Duration::ZERO,
            wrong_state: None,
            core_loss: Ppm(0),
            core_delay: Duration::ZERO,
            files: false,
            rogues: 0,
            bad_sector_every: Duration::ZERO,
            no_space_every: Duration::ZERO,
            failed_syncs: Ppm(0),
            lost_records: Ppm(0),
        }
    }

    /// What this seed draws: each class of faults is on or off, and as strong as it happens; some seeds are calm, some
    /// have everything.
    #[must_use]
    pub fn from_seed(seed: u64) -> Options {
        let mut random = Random::new(seed ^ 0x0076_7372_5f73_696d);
        let random = &mut random;
        let sizes = [1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7];
        let size = sizes[random.below(sizes.len() as u64) as usize];
        let mut options = Options::calm(seed, Options::draw_size(seed, size));
        options.draw_load(random);
        let calm = random.chance(1, 12);
        let all = !calm && random.chance(1, 16);
        // A third of the seeds has few faults: too many at once hide each other.
        let few = random.chance(1, 3);
        let mut on = |random: &mut Random, percent: u64| {
            let percent = if few { percent / 3 } else { percent };
            !calm && (random.chance(percent, 100) || all)
        };
        options.draw_network(random, &mut on);
        options.draw_processes(random, &mut on);
        options.draw_disks(random, &mut on);
        options.draw_terms(random, &mut on);
        options.draw_configuration();
        // By a generator of its own: whether a seed is on files changes nothing else of it.
        options.files = Random::new(seed ^ 0x6669_6c65_7300).chance(1, FILES_ONE_OF);
        options.draw_lasting_damage(random, &mut on);
        if on(random, 25) {
            options.rogues = 1 + random.below(3) as usize;
        }
        if !calm {
            options.draw_sequences();
        }
        // Clocks that are off are no fault: every report of them arrives, so that their median is known.
        let mut clocks = Random::new(seed ^ 0x736b_6577);
        if calm && clocks.chance(1, 2) {
            options.skew_max = log_uniform(&mut clocks, Duration::from_millis(1), Duration::from_secs(3600));
        }
        options
    }

    fn draw_load(&mut self, random: &mut Random) {
        let (micros, millis) = (Duration::from_micros, Duration::from_millis);
        self.clients = 1 + random.below(5) as usize;
        self.requests = (900 / self.clients as u32).max(30);
        self.queries_percent = random.below(40);
        self.handles = random.chance(1, 2);
        self.pipeline_max = [1, 2, 4, 8, 32][random.below(5) as usize];
        self.window = [1, 4, 64, 1024][random.below(4) as usize];
        self.sessions_max = if random.chance(1, 4) { 8 } else { 1000 };
        self.delay_min = log_uniform(random, micros(20), millis(5));
        self.delay_spread = log_uniform(random, micros(20), millis(40));
        self.delay_shape = [DelayShape::LongTail, DelayShape::Uniform, DelayShape::Bimodal][random.below(3) as usize];
        self.write_min = log_uniform(random, micros(10), millis(2));
        self.write_spread = log_uniform(random, micros(10), millis(30));
        self.wire = random.chance(1, 16);
    }

    fn draw_network(&mut self, random: &mut Random, on: &mut impl FnMut(&mut Random, u64) -> bool) {
        let (millis, secs) = (Duration::from_millis, Duration::from_secs);
        if on(random, 50) {
            self.loss = rate(random, 12);
        }
        if on(random, 40) {
            self.duplicates = rate(random, 12);
        }
        if on(random, 35) {
            self.replays = rate(random, 9);
        }
        if on(random, 25) {
            self.corruption = rate(random, 9);
        }
        if on(random, 25) {
            self.misdelivery = rate(random, 9);
        }
        if on(random, 15) {
            self.link_max = 1 << (2 + random.below(6));
        }
        if on(random, 50) {
            self.partition_every = log_uniform(random, millis(400), secs(8));
            self.one_way_percent = random.below(101);
        }
        if on(random, 20) {
            self.flap_every = log_uniform(random, millis(500), secs(8));
        }
        if on(random, 25) {
            self.clog_every = log_uniform(random, millis(200), secs(4));
        }
        if on(random, 25) {
            self.mute_every = log_uniform(random, millis(400), secs(4));
        }
    }

    fn draw_processes(&mut self, random: &mut Random, on: &mut impl FnMut(&mut Random, u64) -> bool) {
        let (millis, secs) = (Duration::from_millis, Duration::from_secs);
        if on(random, 80) {
            self.crash_every = log_uniform(random, millis(150), secs(2));
            self.restart_after = log_uniform(random, millis(5), secs(3));
            self.crash_all_percent = if random.chance(1, 2) { random.below(30) } else { 0 };
            self.crash_loop_percent = if random.chance(1, 3) { random.below(30) } else { 0 };
            self.torn_writes = random.chance(2, 3);
        }
        if on(random, 30) {
            self.crash_in_write = rate(random, 8);
        }
        if on(random, 30) {
            self.crash_on_send = rate(random, 6);
        }
        if on(random, 35) {
            self.pause_every = log_uniform(random, millis(500), secs(5));
            self.pause_max = log_uniform(random, millis(50), secs(2));
            self.suspend_percent = random.below(101);
        }
        if on(random, 40) {
            self.skew_max = log_uniform(random, millis(1), secs(3600));
            self.drift_max = random.below(60);
        }
        if on(random, 20) {
            self.clock_jump_every = log_uniform(random, millis(300), secs(5));
        }
    }

    fn draw_disks(&mut self, random: &mut Random, on: &mut impl FnMut(&mut Random, u64) -> bool) {
        let (millis, secs) = (Duration::from_millis, Duration::from_secs);
        if on(random, 25) {
            self.slow_disk_every = log_uniform(random, millis(300), secs(5));
        }
        if on(random, 20) {
            self.write_hangs = rate(random, 6);
        }
        if on(random, 20) {
            self.write_errors = rate(random, 6);
        }
        if on(random, 25) {
            self.read_errors = rate(random, 10);
        }
        if on(random, 15) {
            self.full_disk_every = log_uniform(random, millis(500), secs(8));
        }
        // What damages a copy for good, only where another copy is sure to be left.
        if self.replicas < 3 {
            return;
        }
        if on(random, 40) {
            self.rot_every = log_uniform(random, millis(200), secs(4));
        }
        if on(random, 20) {
            self.silent_writes = rate(random, 8);
        }
        if on(random, 20) {
            self.misdirected_writes = rate(random, 8);
        }
        if on(random, 16) {
            self.lost_disks = 1;
        }
        if on(random, 20) {
            self.misdirected_reads = rate(random, 10);
        }
    }

    fn draw_lasting_damage(&mut self, random: &mut Random, on: &mut impl FnMut(&mut Random, u64) -> bool) {
        let (millis, secs) = (Duration::from_millis, Duration::from_secs);
        if on(random, 20) {
            self.no_space_every = log_uniform(random, millis(500), secs(8));
        }
        if on(random, 20) {
            self.failed_syncs = rate(random, 6);
        }
        if self.replicas >= 3 && on(random, 25) {
            self.bad_sector_every = log_uniform(random, millis(200), secs(4));
        }
        if self.replicas >= 3 && on(random, 20) {
            self.lost_records = rate(random, 8);
        }
    }

    /// Every option that is not a part of the load, by name.
    fn fields(&mut self) -> Vec<(&'static str, &mut dyn Value)> {
        let mut fields: Vec<(&'static str, &mut dyn Value)> = vec![
            ("seed", &mut self.seed),
            ("pipeline", &mut self.pipeline_max),
            ("window", &mut self.window),
            ("sessions", &mut self.sessions_max),
            ("safety", &mut self.safety),
            ("liveness", &mut self.liveness),
            ("delay", &mut self.delay_min),
            ("delay-spread", &mut self.delay_spread),
            ("delay-shape", &mut self.delay_shape),
            ("link-max", &mut self.link_max),
            ("wire", &mut self.wire),
            ("write", &mut self.write_min),
            ("write-spread", &mut self.write_spread),
            ("skew", &mut self.skew_max),
            ("drift", &mut self.drift_max),
            ("loss", &mut self.loss),
            ("duplicates", &mut self.duplicates),
            ("replays", &mut self.replays),
            ("corruption", &mut self.corruption),
            ("misdelivery", &mut self.misdelivery),
            ("crash-on-send", &mut self.crash_on_send),
            ("partition", &mut self.partition_every),
            ("one-way", &mut self.one_way_percent),
            ("flap", &mut self.flap_every),
            ("clog", &mut self.clog_every),
            ("mute", &mut self.mute_every),
            ("crash", &mut self.crash_every),
            ("restart", &mut self.restart_after),
            ("crash-all", &mut self.crash_all_percent),
            ("crash-loop", &mut self.crash_loop_percent),
            ("crash-in-write", &mut self.crash_in_write),
            ("torn", &mut self.torn_writes),
            ("pause", &mut self.pause_every),
            ("pause-max", &mut self.pause_max),
            ("suspend", &mut self.suspend_percent),
            ("slow-disk", &mut self.slow_disk_every),
            ("write-hangs", &mut self.write_hangs),
            ("write-errors", &mut self.write_errors),
            ("silent-writes", &mut self.silent_writes),
            ("misdirected-writes", &mut self.misdirected_writes),
            ("read-errors", &mut self.read_errors),
            ("misdirected-reads", &mut self.misdirected_reads),
            ("full-disk", &mut self.full_disk_every),
            ("lost-disks", &mut self.lost_disks),
            ("rot", &mut self.rot_every),
            ("clock-jump", &mut self.clock_jump_every),
            ("late-terms", &mut self.late_terms),
            ("depose", &mut self.depose_every),
            ("lost-tail", &mut self.lost_tail_every),
            ("short-reigns", &mut self.short_reigns),
            ("doubts", &mut self.doubts_every),
            ("start-max", &mut self.start_max),
            ("wrong-state", &mut self.wrong_state),
            ("core-loss", &mut self.core_loss),
            ("core-delay", &mut self.core_delay),
            ("files", &mut self.files),
            ("rogues", &mut self.rogues),
            ("bad-sector", &mut self.bad_sector_every),
            ("no-space", &mut self.no_space_every),
            ("failed-syncs", &mut self.failed_syncs),
            ("lost-records", &mut self.lost_records),
        ];
        fields.extend(self.limits.fields());
        fields
    }

    /// Sets an option by the name that [`pairs`](Self::pairs) and scenario files give it.
    ///
    /// # Errors
    /// There is no such option, or the text is no value of it.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let names = || self.clone().fields().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let unknown = || format!("there is no option {name}; there are {}", names());
        let unknown = unknown();
        let (_, field) = self.fields().into_iter().find(|(known, _)| *known == name).ok_or(unknown)?;
        field.parse(text).map_err(|why| format!("{name}={text}: {why}"))
    }

    /// The options that differ from those of `base`, as texts.
    #[must_use]
    pub fn pairs(&self, base: &Options) -> Vec<(&'static str, String)> {
        let (mut own, mut other) = (self.clone(), base.clone());
        let (own, other) = (own.fields(), other.fields());
        let both = own.into_iter().zip(other).map(|((name, own), (_, other))| (name, own.show(), other.show()));
        both.filter(|(_, own, other)| own != other).map(|(name, own, _)| (name, own)).collect()
    }

    /// Whether a run with these options makes sense.
    ///
    /// # Errors
    /// What does not, in words.
    pub fn validate(&self) -> Result<(), String> {
        if self.clients > 64 {
            return Err(format!("{} clients: 64 are enough", self.clients));
        }
        if self.rogues > 16 {
            return Err(format!("rogues={}: 16 are enough", self.rogues));
        }
        if self.drift_max > 500 {
            return Err(format!("drift={}: a clock runs at least half as fast as another, 500", self.drift_max));
        }
        if self.limits.queue_max == 0 {
            return Err("queue=0: a handle keeps at least one request".to_owned());
        }
        // A round of time-outs that ends at once would keep the simulator busy without end.
        let timing = self.limits.timing;
        if [timing.heartbeat, timing.retry, timing.ping, timing.view_change_timeout]
            .iter()
            .any(|time| time.as_micros() < 1000)
        {
            return Err("heartbeat, retry, ping and view-change take 1ms at least".to_owned());
        }
        self.config(0, 1, &self.membership()?).map(|_| ())
    }

    /// What a replica is told at one of its starts, which are counted from 1. Each has random numbers of its own: on a real machine a
    /// start whose count did not become durable shares that count with the next one, and nothing else.
    pub(crate) fn config(&self, replica: usize, start: u64, membership: &Membership) -> Result<Config, String> {
        let id = ReplicaId(replica as u8);
        let config = Config::with_membership(ClusterId(1), id, membership.clone());
        let mut config = config.map_err(|error| error.to_string())?;
        config.seed = self.seed ^ (replica as u64) << 56;
        if start > 1 {
            // Hashed: seeds that are the generator's own step apart draw the same numbers, one later.
            config.seed = draw(config.seed, STARTS, start, 0).next_u64();
        }
        self.limits.set_config(&mut config);
        config.validate().map_err(|error| error.to_string())?;
        Ok(config)
    }

    /// The cluster that they describe.
    pub(crate) fn membership(&self) -> Result<Membership, String> {
        let addresses = (0..self.replicas).map(|id| format!("r{id}"));
        let mut membership = Membership::new(addresses).map_err(|error| error.to_string())?;
        membership.constants.pipeline_max = self.pipeline_max;
        membership.constants.window = self.window;
        membership.constants.sessions_max = self.sessions_max;
        self.limits.set_constants(&mut membership);
        membership.validate().map_err(|error| error.to_string())?;
        Ok(membership)
    }

    /// Turns every fault that the seed would draw off; delays, disks and clocks stay as they are.
    #[must_use]
    pub fn without_faults(&self) -> Options {
        let calm = Options::calm(self.seed, self.replicas);
        Options {
            clients: self.clients,
            requests: self.requests,
            queries_percent: self.queries_percent,
            handles: self.handles,
            pipeline_max: self.pipeline_max,
            window: self.window,
            sessions_max: self.sessions_max,
            limits: self.limits,
            safety: self.safety,
            liveness: self.liveness,
            delay_min: self.delay_min,
            delay_spread: self.delay_spread,
            delay_shape: self.delay_shape,
            link_max: self.link_max,
            wire: self.wire,
            write_min: self.write_min,
            write_spread: self.write_spread,
            skew_max: self.skew_max,
            drift_max: self.drift_max,
            core_loss: self.core_loss,
            core_delay: self.core_delay,
            files: self.files,
            rogues: self.rogues,
            ..calm
        }
    }

    /// Whether no fault is on.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.without_faults().pairs(self).iter().all(|(name, _)| *name == "restart" || *name == "pause-max")
            && self.drift_max == 0
            && self.link_max == 0
            && self.core_loss.0 == 0
            && self.core_delay.is_zero()
            && self.rogues == 0
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "replicas={} clients={} requests={} queries={}% handles={}",
            self.replicas, self.clients, self.requests, self.queries_percent, self.handles,
        )?;
        for (name, text) in self.pairs(&Options::calm(self.seed, self.replicas)) {
            write!(f, " {name}={text}")?;
        }
        if self.is_calm() { write!(f, " calm") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_seed_draws_can_be_written_down_and_read_again() {
        for seed in 0..300 {
            let drawn = Options::from_seed(seed);
            let mut read = Options { replicas: drawn.replicas, ..Options::calm(0, drawn.replicas) };
            for (name, text) in drawn.pairs(&read.clone()) {
                read.set(name, &text).unwrap();
            }
            let load = Options {
                clients: drawn.clients,
                requests: drawn.requests,
                queries_percent: drawn.queries_percent,
                handles: drawn.handles,
                ..read
            };
            assert_eq!(load, drawn);
        }
    }

    /// A message of an earlier start may only be known as such by its random number, as when the start did not become durable.
    #[test]
    fn no_two_starts_of_the_replicas_of_a_run_draw_the_same_numbers() {
        let options = Options::calm(7, 3);
        let membership = options.membership().unwrap();
        let seed = |(replica, start)| options.config(replica, start, &membership).unwrap().seed;
        let starts = (0..3).flat_map(|at| (1..100).map(move |start| (at, start)));
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(move |_| random.next_u64())
        };
        let mut drawn: Vec<u64> = starts.map(seed).flat_map(numbers).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 3 * 99 * 200);
    }

    #[test]
    fn a_wrong_option_is_refused_in_words() {
        let mut options = Options::calm(1, 3);
        assert!(options.set("dealy", "1ms").unwrap_err().contains("there is no option dealy"));
        assert!(options.set("delay", "soon").unwrap_err().contains("is not a time"));
        assert!(options.set("delay", "99999999999999999999s").is_err());
        assert!(options.set("loss", "-1").is_err());
        assert!(options.set("delay-shape", "round").is_err());
        assert!(options.set("quorums", "2/2").unwrap_err().contains("as in 2/2/2"));
        options.set("quorums", "1/1/1").unwrap();
        assert!(options.validate().unwrap_err().contains("do not meet"));
        options.set("quorums", "default").unwrap();
        options.set("primary-timeout", "60ms").unwrap();
        assert!(options.validate().unwrap_err().contains("three heartbeats"));
    }
}
