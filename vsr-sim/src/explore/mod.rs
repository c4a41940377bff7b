//! Every schedule of a small cluster, up to stated bounds: the production protocol, without the driver.
//!
//! ```
//! use vsr_sim::explore::{Bounds, explore};
//!
//! let bounds = Bounds { requests: 1, view_changes: 1, timeouts: 2, crashes: 0, ..Bounds::default() };
//! let exploration = explore(&bounds, |_| ()).unwrap();
//! assert!(exploration.complete && exploration.violation.is_none());
//! println!("{exploration}"); // … states
//! ```
//!
//! The cluster is idle in view 0, with a session open for each request. Then everything happens that the bounds
//! allow, in every order that they allow: a request arrives at the primary, a message is taken, a write
//! becomes durable, a timer fires, a replica crashes with each possible outcome for its write, messages are late,
//! lost, or come twice. After every step the properties are checked that the simulator's checkers stand for. The
//! exploration ends at the first step that breaks one, after the fewest rounds, and tells the steps that lead there.
//!
//! # What is not tried
//!
//! - Time stands still but for the timer that fires. So nothing is said again because an answer is slow; a
//!   message is late, or comes twice, instead.
//! - A crash and the restart after it are one step: to the others a replica that is down for long is one that
//!   is slow for long.
//! - Messages that reads, clocks and the health of links need (`CommitOk`, `Ping`) are all lost.
//! - Requests of one turn: each arrives in a turn of its own.
//!
//! # Orders
//!
//! Steps of two replicas have the same outcome in both orders, unless one sends the message that the other
//! takes. So of all schedules that differ only in the order of such steps, one is enough: that in which each step
//! comes as early as it can. It goes in *rounds*. In a round each replica makes one step or none, and one that has
//! made none in the last round can make only a step that a message of the last round has brought about
//! (the normal form of Foata). This loses nothing: no property depends on the order of steps that do not depend on
//! each other, as facts that contradict each other do so in either order; and each limit counts the steps of a
//! whole schedule. [`Bounds::interleave`] goes without it, to compare.
//!
//! Within a round the *stated bound* applies: a replica with something to do does it, its own write first,
//! then the oldest message of the lowest-numbered sender. Every queue (the disk of a replica, or the messages from
//! one replica to another) can be held back at any time, for any time, until the replica takes from it again; so
//! any order can come about, and how often that is done is bounded by [`Bounds::holds`]. Messages from one
//! replica to another arrive in order but for [`Bounds::strays`].
//!
//! # States
//!
//! Two states are one when they have equal 128-bit fingerprints. What cannot have an influence on anything that
//! follows is left out of a replica's: how much time has passed, how many writes there were, and the state of
//! its random generator (each peer that it could draw is tried). A message that has become void is taken off at
//! once.

mod cluster;
mod crash_disk;
mod explorer;
mod facts;
mod graph;
mod replica;
mod visited;

use std::fmt;

use vsr::ClusterId;

pub use self::explorer::explore;

const CLUSTER: ClusterId = ClusterId(1);
const FIRST_CLIENT: u128 = 1 << 64;

/// The most replicas that can be explored.
pub const REPLICAS_MAX: usize = 5;
/// The most requests that can be explored.
pub const REQUESTS_MAX: u8 = 8;

/// How far to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Replicas, 1 to [`REPLICAS_MAX`]. Default 3.
    pub replicas: usize,
    /// Requests, each of a client of its own, up to [`REQUESTS_MAX`]. Default 2.
    pub requests: u8,
    /// The highest view: what would enter a higher one is not tried. Default 2.
    pub view_changes: u8,
    /// Crashes, at any step, with every outcome that the storage contract allows the write under way. Default 1.
    pub crashes: u8,
    /// Time-outs of a replica that is not a primary in normal operation. A view change takes a quorum of them, or
    /// the crash of a primary. Default 4.
    pub timeouts: u8,
    /// Heartbeats of a primary. Default 1.
    pub heartbeats: u8,
    /// Requests that arrive once more, at the same or another primary. Default 1.
    pub resends: u8,
    /// Times that a queue is held back, see the [module](self). Default 1.
    pub holds: u8,
    /// Messages that leave their order: they arrive later, or never, or now and again later. Default 1.
    pub strays: u8,
    /// What all of these may cost together: one for each time-out, heartbeat and repeated request, two for each
    /// queue that is held back and each message that leaves its order. Default 4.
    pub trouble: u8,
    /// States after which the exploration gives up. Default 30,000,000; each takes about 100 bytes of memory.
    pub states_max: usize,
    /// One step at a time instead of rounds, in every order, without a limit of holds: to compare the two. The
    /// replicas reach the same states as in rounds with enough holds. Default false.
    pub interleave: bool,
    /// A planted fault: at a crash, disks lose every entry of the run, also those whose write they said was durable. No
    /// protocol survives that, and the exploration must find out. Default false.
    pub forgetful_disks: bool,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            replicas: 3,
            requests: 2,
            view_changes: 2,
            crashes: 1,
            timeouts: 4,
            heartbeats: 1,
            resends: 1,
            holds: 1,
            strays: 1,
            trouble: 4,
            states_max: 30_000_000,
            interleave: false,
            forgetful_disks: false,
        }
    }
}

/// Bounds that cannot be explored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoundsError {
    /// Too many replicas, or none.
    #[error("{0} replicas: 1 to {REPLICAS_MAX} can be explored")]
    Replicas(usize),
    /// Too many requests.
    #[error("{0} requests: up to {REQUESTS_MAX} can be explored")]
    Requests(u8),
}

/// How far an exploration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// States of the cluster that were met.
    pub states: usize,
    /// Steps that were looked at.
    pub transitions: u64,
    /// Rounds from the start to the last state.
    pub depth: usize,
    /// States of single replicas that were met.
    pub replica_states: usize,
}

/// A property was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The name of the property.
    pub rule: &'static str,
    /// One sentence with the replica and both values.
    pub message: String,
    /// The steps that lead to it, none of which can be left out.
    pub trace: Vec<String>,
    /// Each replica before the last step.
    pub replicas: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, line) in (1..).zip(&self.trace) {
            writeln!(f, "{step:>3}. {line}")?;
        }
        for replica in &self.replicas {
            writeln!(f, "     {replica}")?;
        }
        write!(f, "{}: {}", self.rule, self.message)
    }
}

/// What an exploration has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exploration {
    /// States of the cluster that were met, each once.
    pub states: usize,
    /// Steps that were looked at.
    pub transitions: u64,
    /// Rounds from the start to the state furthest away.
    pub depth: usize,
    /// States of single replicas that were met, each once.
    pub replica_states: usize,
    /// Whether everything within the bounds was looked at.
    pub complete: bool,
    /// The property that is broken, if one is.
    pub violation: Option<Counterexample>,
}

impl fmt::Display for Exploration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exploration { states, transitions, depth, replica_states, complete, violation } = self;
        write!(f, "{states} states, {transitions} steps, {depth} rounds deep, {replica_states} states of replicas: ")?;
        match violation {
            Some(violation) => write!(f, "a property is broken\n{violation}"),
            None if *complete => write!(f, "complete, every property holds"),
            None => write!(f, "not complete, every property holds so far"),
        }
    }
}
