//! A deterministic simulator for `vsr`: the production replica on seeded storage, network and clock.

pub mod atlas;
pub mod check;
pub mod conformance;
mod describe;
mod disk;
mod faults;
mod machine;
mod node;
mod options;
mod run;
pub mod script;
pub mod sweep;
mod trace;
mod worker;
mod world;

pub use disk::{Damage, SimDisk};
pub use machine::{Change, Registers, Simulated, Step};
pub use options::{Options, Ppm};
pub use run::{Report, Simulation, Verdict};
pub use trace::{Detail, Trace};

/// Runs a seed with the default state machine.
#[must_use]
pub fn run_seed(seed: u64, detail: Detail) -> Report {
    let options = Options::from_seed(seed);
    let queries = options.queries_percent;
    let workload = move |random: &mut vsr::protocol::Random| Registers::step(random, queries);
    Simulation::new(options, Registers::default, workload).detail(detail).run()
}
