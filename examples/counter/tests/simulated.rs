//! The counter in the simulator: the production replica, under faults.

use counter::{Add, Counter};
use vsr_sim::{Options, Simulation, Step, Verdict};

#[test]
fn the_counter_survives_what_the_simulator_does_to_it() {
    for seed in 0..30 {
        let workload = |random: &mut vsr::protocol::Random| {
            if random.below(10) == 0 { Step::Query(()) } else { Step::Command(Add(random.below(5) as i64)) }
        };
        let report = Simulation::new(Options::from_seed(seed), Counter::default, workload).run();
        assert!(
            matches!(report.verdict, Verdict::Pass | Verdict::Unrecoverable(_)),
            "seed {seed}: {:?}",
            report.verdict
        );
    }
}
