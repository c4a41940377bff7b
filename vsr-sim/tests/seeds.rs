//! Fixed seeds, and what a sweep of them must have seen.

use std::time::Duration;

use vsr_sim::run::sweep::{FAULT_CLASSES, sweep};
use vsr_sim::{Detail, Verdict, run_seed, simulation_of};

#[test]
fn two_hundred_fixed_seeds_pass_and_see_every_fault_class() {
    let run = |seed| (run_seed(seed, Detail::Counters), Duration::ZERO);
    let summary = sweep(0..200, 2, false, run, || {});
    assert!(summary.failed.is_empty(), "{:?}", summary.failed);
    assert!(summary.unrecoverable <= 2, "{} of 200 are unrecoverable", summary.unrecoverable);
    assert!((4..=40).contains(&summary.calm), "{} of 200 are calm", summary.calm);
    assert!(summary.eventful >= 100, "{} of 200 have a view change and a crash", summary.eventful);
    for class in FAULT_CLASSES {
        assert!(summary.counters.contains_key(class), "{class} never happened");
    }
    assert!(summary.median(|seed| seed.events) >= 15_000, "a seed is short: {}", summary.median(|seed| seed.events));
    assert!(summary.median(|seed| seed.acknowledged) >= 200);
}

/// A nonce that came twice (98), a log over its bound (1041), cores that cannot lead for a while (11330, 19226), one that was rightly
/// stuck (19149), a majority that is smaller than the replication quorum (973), a state whose fault shows when the rest is healed (3560), a
/// delayed `StartView` that ends before a fetched checkpoint (4375), a state found wrong in the batch that drops the log (5046, 8102), bodies that were kept
/// for one that is dropped (6522), checkpoints that were offered before they were compared (9706), or as soon as they were written anew (14988), or by one that does not hear (10461).
#[test]
fn seeds_that_have_failed_pass() {
    for seed in [98, 973, 1041, 3560, 4375, 5046, 6522, 8102, 9706, 10_461, 11_330, 14_988, 19_149, 19_226] {
        assert_eq!(run_seed(seed, Detail::Counters).verdict, Verdict::Pass, "seed {seed}");
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

/// What came before in the same process changes nothing.
#[test]
fn a_seed_does_not_remember_the_seeds_before_it() {
    // On another thread, as one of a sweep is.
    let alone = std::thread::scope(|scope| scope.spawn(|| run_seed(77, Detail::Counters).trace.hash()).join());
    for seed in 70..77 {
        let _ = run_seed(seed, Detail::Counters);
    }
    assert_eq!(run_seed(77, Detail::Counters).trace.hash(), alone.expect("it runs"));
}

#[test]
fn the_faults_that_happened_make_the_same_run_again() {
    for seed in 0..20 {
        let first = simulation_of(seed).run();
        let second = simulation_of(seed).faults(first.faults.clone()).run();
        assert_eq!(first.verdict, second.verdict, "seed {seed}");
        assert_eq!(first.trace.hash(), second.trace.hash(), "seed {seed}: {} faults", first.faults.len());
        assert_eq!(first.faults, second.faults, "seed {seed}");
    }
}
