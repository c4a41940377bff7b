//! The store in the simulator: the production replica, under faults.

use example_cluster::App;
use kv::{KvApp, Map};
use vsr_sim::{Options, Simulation, Verdict};

#[test]
fn the_store_survives_what_the_simulator_does_to_it() {
    for seed in 0..30 {
        let report = Simulation::new(Options::from_seed(seed), Map::default, KvApp::step).run();
        assert!(
            matches!(report.verdict, Verdict::Pass | Verdict::Unrecoverable(_)),
            "seed {seed}: {:?}",
            report.verdict
        );
    }
}
