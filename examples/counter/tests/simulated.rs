//! The counter in the simulator: the production replica, under faults.

use counter::{Add, Counter};
use vsr_sim::{Step, simulate};

#[test]
fn the_counter_survives_what_the_simulator_does_to_it() {
    simulate(Counter::default, |random| match random.below(10) {
        0 => Step::Query(()),
        _ => Step::Command(Add(random.below(5) as i64)),
    })
    .check();
}
