//! The faults of a run, as values: what a seed drew, what a scenario file says, and what shrinking leaves out.
//!
//! Every fault is keyed by what it happens to (a moment, a message, a write), never by its place in a stream of random
//! numbers: leaving one out does not change what the others mean. Here they are only named and planned: `run::inject` carries
//! out those that have a moment, the world those of messages, writes and reads.

mod atlas;
mod kinds;
mod plan;

pub use atlas::Atlas;
pub use kinds::{Damage, Fault, Impostor, MessageFate, MessageKey, ReadFate, TimedFault, Unsynced, WriteFate, subject};

pub(crate) use kinds::{FRAME, KEPT, KINDS, Nanos, kind_of};
pub(crate) use plan::{Plan, draw};
