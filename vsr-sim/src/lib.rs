//! A deterministic simulator for `vsr`: the production replica on seeded storage, network and clock.
//!
//! Rules are those of `docs/protocol.md` in the repository: `rule 7.5 c` in a comment is part c of rule 7.5 there.

pub mod check;
pub mod conformance;
pub mod explore;
pub mod faults;
pub mod files;
pub mod history;
mod options;
pub mod report;
pub mod run;
pub mod scenario;
mod test;
mod workload;
mod world;

pub use faults::Damage;
pub use files::SimDisk;
pub use options::{DelayShape, Limits, Options, Ppm};
pub use report::{Detail, Report, Trace, Verdict};
pub use run::{CrossCheck, Simulation, cross_check};
pub use scenario::script;
pub use test::{SimFailure, SimReport, SimTest, simulate};
pub use workload::{Change, Registers, Replied, Simulated, Step};
pub use world::{SimSocket, SocketEvent};

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
