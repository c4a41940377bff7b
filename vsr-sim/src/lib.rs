//! A deterministic simulator for `vsr`: the production replica on seeded storage, network and clock.
//!
//! Rules are those of `docs/protocol.md` in the repository: `rule 7.5 c` in a comment is part c of rule 7.5 there.

pub mod atlas;
pub mod budget;
pub mod check;
pub mod conformance;
mod cross_check;
mod describe;
pub mod determinism;
mod disk;
pub mod explore;
mod faults;
pub mod files;
pub mod history;
mod limits;
mod machine;
mod net;
mod node;
mod options;
mod pace;
mod phases;
pub mod picture;
pub mod plan;
mod rogue;
mod run;
pub mod scenario;
pub mod script;
mod sequences;
pub mod shrink;
mod simulation;
mod socket;
pub mod story;
pub mod sweep;
mod trace;
mod trial;
mod worker;
mod world;

pub use cross_check::{CrossCheck, cross_check};
pub use disk::{Damage, SimDisk};
pub use limits::Limits;
pub use machine::{Change, Registers, Replied, Simulated, Step};
pub use options::{Options, Ppm};
pub use simulation::{Report, Simulation, Verdict};
pub use socket::{Heard, SimSocket};
pub use trace::{Detail, Trace};
pub use trial::{Failed, Passed, Trial, simulate};

/// The run of a seed, with the simulator's own state machine.
#[must_use]
pub fn simulation_of(seed: u64) -> Simulation<Registers> {
    Simulation::with_queries(Options::from_seed(seed), Registers::default, Registers::step)
}

/// Runs a seed with the simulator's own state machine.
#[must_use]
pub fn run_seed(seed: u64, detail: Detail) -> Report {
    simulation_of(seed).detail(detail).run()
}
