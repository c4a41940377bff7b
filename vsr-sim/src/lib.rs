//! A deterministic simulator for `vsr`: the production replica on seeded storage, network and clock.

pub mod atlas;
pub mod check;
mod disk;
mod machine;
mod node;
mod options;
mod run;
pub mod sweep;
mod trace;
mod world;

pub use disk::{Damage, SimDisk};
pub use machine::{Change, Registers, Simulated, Step};
pub use options::{Options, Ppm};
pub use run::{Report, Simulation, Verdict};
pub use trace::Trace;

/// Runs a seed with the default state machine.
#[must_use]
pub fn run_seed(seed: u64, lines: bool) -> Report {
    let options = Options::from_seed(seed);
    let queries = options.queries_percent;
    let simulation = Simulation::new(options, Registers::default, move |random| Registers::step(random, queries));
    if lines { simulation.with_lines().run() } else { simulation.run() }
}
