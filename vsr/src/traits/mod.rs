//! The four traits: what a replica asks of its application and of the machine that it runs on.

pub(crate) mod clock;
pub mod network;
pub mod state_machine;
pub mod storage;
