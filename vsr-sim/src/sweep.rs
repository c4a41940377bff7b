//! Many seeds at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::run::{Report, Verdict};

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
}

impl Summary {
    fn add(&mut self, report: &Report) {
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
    }
}

/// Fault classes that a sweep of some size must have seen, by the name of their counter.
pub const FAULT_CLASSES: &[&str] = &[
    "drops",
    "duplicates",
    "partitions",
    "one-way partitions",
    "crashes",
    "restarts",
    "pauses",
    "rotten slots",
    "unsynced write lost",
    "unsynced write kept",
    "unsynced write torn",
];

/// Runs every seed of a range on so many threads. `each` is called after each seed. Stops early at the
/// first failure if told to.
pub fn sweep(
    seeds: Range<u64>,
    threads: usize,
    stop_at_failure: bool,
    run: impl Fn(u64) -> Report + Sync,
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
                    let report = run(seed);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.add(&report);
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
