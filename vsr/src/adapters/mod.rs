//! What the crate brings to put behind the traits: a storage and a network in memory, a storage made of code that blocks, checkpoints as
//! files, and the clocks of the machine.

pub mod checkpoints;
pub mod memory;
pub(crate) mod system_clock;
pub mod threaded;
