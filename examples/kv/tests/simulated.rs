//! The store in the simulator: the production replica, under faults.

use example_cluster::App;
use kv::{KvApp, Map};
use vsr_sim::simulate;

#[test]
fn the_store_survives_what_the_simulator_does_to_it() {
    simulate(Map::default, KvApp::step).check();
}
