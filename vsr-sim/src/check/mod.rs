//! The properties that must hold at every moment, one small type each.

mod agreement;
mod content;
mod durability;
mod exactly_once;
mod honesty;
pub mod linearizability;
mod monotone;

use vsr::protocol::{Core, Event};
use vsr::{Checksum, Message, Position, Quorums};

use crate::disk::SimDisk;

/// A property was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker's name.
    pub checker: &'static str,
    /// One sentence with the replica and both values.
    pub message: String,
    /// When, in nanoseconds of virtual time.
    pub at: u64,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, micros) = (self.at / 1_000_000_000, self.at / 1_000 % 1_000_000);
        write!(f, "{}: at {seconds}.{micros:06} s: {}", self.checker, self.message)
    }
}

/// Something that a checker may look at.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// A replica hands a message to the network.
    Sent {
        /// Which replica.
        replica: usize,
        /// The message.
        message: &'a Message,
    },
    /// A write has become durable.
    Written {
        /// Which replica's.
        replica: usize,
    },
    /// A replica's protocol reports an event.
    Event {
        /// Which replica.
        replica: usize,
        /// Its state after the turn.
        core: &'a Core,
        /// The event.
        event: &'a Event,
    },
    /// A replica's turn has ended.
    Turn {
        /// Which replica.
        replica: usize,
        /// Its state.
        core: &'a Core,
    },
    /// A replica has started (again), and will apply its log from the start.
    Started {
        /// Which replica.
        replica: usize,
    },
    /// A state machine has executed a command.
    Executed {
        /// On which replica.
        replica: usize,
        /// Where in the log.
        position: Position,
        /// The command's own number, unique in the run.
        command: u64,
        /// The reply's checksum.
        reply: Checksum,
    },
    /// A state machine's digest after an op.
    Digest {
        /// On which replica.
        replica: usize,
        /// The op.
        op: u64,
        /// The digest of state machine and session table.
        digest: Checksum,
    },
    /// A client has a reply.
    Acknowledged {
        /// The command's own number.
        command: u64,
        /// Where it was executed, as the reply says.
        position: Position,
        /// The reply's checksum.
        reply: Checksum,
    },
}

/// What every checker may use.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The replicas' disks as they are now.
    pub disks: &'a [SimDisk],
    /// The cluster's quorums.
    pub quorums: Quorums,
}

/// One property.
pub trait Checker: Send {
    /// Its name, for messages and for shrinking.
    fn name(&self) -> &'static str;

    /// Looks at something that happened.
    ///
    /// # Errors
    /// A sentence when the property is broken.
    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String>;
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(agreement::Agreement::default()),
        Box::new(content::OneContent::default()),
        Box::new(durability::CommittedOnQuorum::default()),
        Box::new(durability::AcknowledgedIsDurable::default()),
        Box::new(honesty::NothingBeforeItIsDurable),
        Box::new(honesty::SameDoViewChange::default()),
        Box::new(honesty::NackedNeverAcknowledged::default()),
        Box::new(monotone::Monotone::default()),
        Box::new(monotone::StateOrder),
        Box::new(exactly_once::ExactlyOnce::default()),
        Box::new(exactly_once::SameReplies::default()),
        Box::new(exactly_once::SameDigests::default()),
    ]
}
