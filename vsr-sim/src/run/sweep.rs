//! Many seeds at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::report::budget::Measure;
use crate::report::{Report, Verdict};

/// What one seed took and did.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeedFigures {
    /// The real time that the run took.
    pub elapsed: Duration,
    /// Events of the protocol.
    pub events: u64,
    /// Requests answered.
    pub acknowledged: u64,
}

/// What the seeds of a sweep came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Those that passed.
    pub passed: u64,
    /// Those that were rightly stuck.
    pub unrecoverable: u64,
    /// Those that failed, in order, with their verdict.
    pub failed: BTreeMap<u64, Verdict>,
    /// Seeds without any fault.
    pub calm: u64,
    /// Seeds with a view change and a crash.
    pub eventful: u64,
    /// In how many seeds each thing happened, and how often in all.
    pub counters: BTreeMap<&'static str, (u64, u64)>,
    /// Virtual time that passed.
    pub simulated: Duration,
    /// Events of all runs.
    pub events: u64,
    /// Messages delivered in all runs.
    pub deliveries: u64,
    /// Real time of all runs, one after the other.
    pub busy: Duration,
    /// The most that was measured of each thing that has a budget, and at which seed.
    pub measures: BTreeMap<&'static str, (Measure, u64)>,
    figures: Vec<SeedFigures>,
}

impl Summary {
    fn add(&mut self, report: &Report, elapsed: Duration) {
        self.seeds += 1;
        match &report.verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Unrecoverable(_) => self.unrecoverable += 1,
            verdict => {
                self.failed.insert(report.options.seed, verdict.clone());
            }
        }
        self.calm += u64::from(report.options.is_calm());
        let happened = |name| report.trace.counted(name) > 0;
        self.eventful += u64::from(happened("views entered") && happened("crashes"));
        for (name, count) in report.trace.counters() {
            let (seeds, total) = self.counters.entry(name).or_default();
            *seeds += 1;
            *total += count;
        }
        self.simulated += report.simulated;
        self.events += report.trace.events();
        self.deliveries += report.trace.counted("deliveries");
        self.busy += elapsed;
        for measure in report.figures.measures(&report.options, false) {
            let most = self.measures.entry(measure.name).or_insert((measure, report.options.seed));
            if measure.value > most.0.value {
                *most = (measure, report.options.seed);
            }
        }
        self.figures.push(SeedFigures { elapsed, events: report.trace.events(), acknowledged: report.acknowledged });
    }

    /// A figure at the median of all seeds.
    pub fn median<T: Ord + Copy + Default>(&self, figure: impl Fn(&SeedFigures) -> T) -> T {
        let mut all: Vec<T> = self.figures.iter().map(figure).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    }
}

/// Fault classes that a sweep of some size must have seen, by the name of their counter.
pub const FAULT_CLASSES: &[&str] = &[
    "drops",
    "duplicates",
    "replays",
    "corrupted frames refused",
    "misdeliveries",
    "link is full",
    "clogged links",
    "cut links",
    "muted",
    "partitions",
    "one-way partitions",
    "crashes",
    "restarts",
    "crashes in a write",
    "crashes after a write",
    "crashes after a message",
    "pauses",
    "suspended machines",
    "wall clock jumps",
    "monotonic clock leaps",
    "slow disks",
    "disks that hang for good",
    "hanging writes",
    "write errors",
    "stopped by its disk",
    "read errors",
    "misdirected reads",
    "full disks",
    "writes lost without an error",
    "misdirected writes",
    "rotten slots",
    "lost disks",
    "replaced disks",
    "older disks",
    "stopped with an older disk",
    "impostors on copies",
    "impostors on new disks",
    "impostors on disks of others",
    "impostors refused",
    "new disks that count",
    "unsynced write lost",
    "unsynced write kept",
    "unsynced write torn",
    "encoded and decoded",
    "own quorums",
    "small limits",
    "own time-outs",
    "view changes longer than their time-out",
    "copies of an earlier term",
    "deposed primaries",
    "led again",
    "lost tails",
    "reigns cut short",
    "doubted tails",
    "starts with an uncertain head",
    "starts that take long",
    "views that are told again",
    "drops in the core",
    "storages on files",
    "damaged sectors",
    "copies of disks harmed after a run",
    "bad sectors",
    "writes without room",
    "starts without room",
    "failed syncs",
    "checkpoints that fail",
    "checkpoints that rot",
    "states that go wrong",
    "stopped with a wrong state",
    "records lost whole",
    "ids used twice",
    "ids that return",
    "floors above the number",
    "numbers beyond the window",
    "numbers beyond any",
    "commands over request_max",
    "sessions of others",
    "commands that do not decode",
];

/// Interesting paths of the protocol that a sweep of some size must have taken, by the name of their mark.
pub const PATHS: &[&str] = &[
    "a new primary repairs bodies",
    "a new primary waits for a copy or a nack quorum",
    "a stored entry is damaged",
    "joined a view by a DoViewChange",
    "joined a view by a vote",
    "lagging behind the primary",
    "no room for a repaired entry",
    "prepare beyond the next op",
    "request again while in flight",
    "truncated by a nack quorum",
    "truncations",
    "views started",
    "checkpoints named",
    "states from a checkpoint",
    "a checkpoint is skipped, as the one before is not done",
    "busy: the queue is full",
    "busy: the table is full of sessions in use",
    "busy: the log is full",
    "busy: unseen replies fill half their bound",
    "replies whose bytes are gone",
    "refused: the command is too long",
    "refused: the session was evicted",
];

/// Runs every seed of a range on so many threads; `run` says how long it took. `each` is called after each seed. Stops early at
/// the first failure if told to.
pub fn sweep(
    seeds: Range<u64>,
    threads: usize,
    stop_at_failure: bool,
    run: impl Fn(u64) -> (Report, Duration) + Sync,
    each: impl Fn() + Sync,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || seed < seeds.start {
                        return;
                    }
                    let (report, elapsed) = run(seed);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.add(&report, elapsed);
                    let failed = !summary.failed.is_empty();
                    drop(summary);
                    each();
                    if stop_at_failure && failed {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}
