//! The chapters of the guide as documentation, so that their snippets are tested.

#[doc = include_str!("src/introduction.md")]
pub mod introduction {}

#[doc = include_str!("src/quick-start.md")]
pub mod quick_start {}

#[doc = include_str!("src/state-machine.md")]
pub mod state_machine {}

#[doc = include_str!("src/cluster.md")]
pub mod cluster {}

#[doc = include_str!("src/operate.md")]
pub mod operate {}

#[doc = include_str!("src/copies.md")]
pub mod copies {}

#[doc = include_str!("src/client.md")]
pub mod client {}

#[doc = include_str!("src/simulate.md")]
pub mod simulate {}

#[doc = include_str!("src/simulator.md")]
pub mod simulator {}

#[doc = include_str!("src/scenarios.md")]
pub mod scenarios {}

#[doc = include_str!("src/files.md")]
pub mod files {}

#[doc = include_str!("src/histories.md")]
pub mod histories {}

#[doc = include_str!("src/mutants.md")]
pub mod mutants {}

#[doc = include_str!("src/protocol.md")]
pub mod protocol {}

#[doc = include_str!("src/course.md")]
pub mod course {}

#[doc = include_str!("src/formats.md")]
pub mod formats {}

#[doc = include_str!("../README.md")]
pub mod readme {}
