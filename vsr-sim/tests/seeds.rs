//! Fixed seeds, and what a sweep of them must have seen.

use vsr_sim::sweep::{FAULT_CLASSES, sweep};
use vsr_sim::{Detail, Verdict, run_seed};

#[test]
fn two_hundred_fixed_seeds_pass_and_see_every_fault_class() {
    let summary = sweep(0..200, 2, false, |seed| run_seed(seed, Detail::Counters), || {});
    assert!(summary.failed.is_empty(), "{:?}", summary.failed);
    assert!(summary.unrecoverable <= 2, "{} of 200 are unrecoverable", summary.unrecoverable);
    assert!(summary.calm <= 30, "{} of 200 are calm", summary.calm);
    assert!(summary.eventful >= 100, "{} of 200 have a view change and a crash", summary.eventful);
    for class in FAULT_CLASSES {
        assert!(summary.counters.contains_key(class), "{class} never happened");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_hash() {
    for seed in [1, 7, 42, 99, 12345, 31337, 271_828, 1 << 32, u64::MAX, 8] {
        let (first, second) = (run_seed(seed, Detail::Counters), run_seed(seed, Detail::Messages));
        assert_eq!(first.trace.hash(), second.trace.hash(), "seed {seed}");
        assert_eq!(first.trace.events(), second.trace.events(), "seed {seed}");
    }
}

/// Each of these once failed; what went wrong stands beside it.
#[test]
fn seeds_that_found_bugs_pass() {
    for (seed, what) in [
        (93, "a new primary chose a head whose header nobody had sent"),
        (7560, "a repaired copy over a damaged slot was nacked"),
        (7735, "a restarted replica did not name its committed head"),
        (12764, "a cluster of one refused a log that only lacked an unfinished write"),
    ] {
        let report = run_seed(seed, Detail::Counters);
        assert_eq!(report.verdict, Verdict::Pass, "seed {seed}: {what}");
    }
}
