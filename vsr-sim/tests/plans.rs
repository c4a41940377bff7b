//! A run is made again by the faults that happened in it.

use vsr_sim::{Detail, simulation_of};

#[test]
fn the_faults_that_happened_make_the_same_run_again() {
    for seed in 0..40 {
        let first = simulation_of(seed).detail(Detail::Counters).run();
        let mut again = simulation_of(seed);
        again = again.faults(first.faults.clone());
        let second = again.run();
        assert_eq!(first.verdict, second.verdict, "seed {seed}");
        assert_eq!(first.trace.hash(), second.trace.hash(), "seed {seed}: {} faults", first.faults.len());
    }
}
