//! A run: a cluster of production replicas on a deterministic executor, in the simulated world.
//!
//! | file | what |
//! |---|---|
//! | `simulation.rs` | [`Simulation`]: what is to be run |
//! | `cluster.rs` | the executor, and the processes that it polls: replicas, clients, applications beside replicas |
//! | `client.rs`, `rogue.rs` | what clients do, those that keep their rules and those that do not |
//! | `instrument.rs` | the user's state machine, watched; what clients saw |
//! | `impostor.rs` | processes that take themselves for a replica |
//! | `inject.rs` | faults that have a moment: when they come, and what they do |
//! | `liveness.rs` | the two phases: first faults, then a core that is healed and must serve |
//! | `unrecoverable.rs` | when a core may rightly be stuck |
//! | `sweep.rs` | many seeds |
//! | `cross_check.rs`, `trials.rs` | runs of a kind of their own |

mod client;
mod cluster;
mod cross_check;
mod impostor;
mod inject;
mod instrument;
mod liveness;
mod rogue;
mod simulation;
pub mod sweep;
mod trials;
mod unrecoverable;

pub use cross_check::{CrossCheck, cross_check};
pub use simulation::Simulation;
pub use trials::three_bad_sectors;
pub use unrecoverable::{Unrecoverable, unrecoverable};

pub(crate) use cluster::Run;
pub(crate) use instrument::DIFFERS;
