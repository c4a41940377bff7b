//! What happens in a run, and who looks at it.

use std::ops::BitOr;

use vsr::protocol::{Account, Core, Event, Mark, Message, OpNumber, Peer, Position, Quorums, Request};
use vsr::{Checksum, ClientId, QueryError, SubmitError};

use crate::files::SimDisk;

/// A property was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker's name.
    pub checker: &'static str,
    /// One sentence with the replica and both values.
    pub message: String,
    /// The moment, in nanoseconds of virtual time.
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
    /// A replica hands a message to the network. It may come before the events of the turn that made it.
    Sent {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// The message.
        message: &'a Message,
    },
    /// A process that takes itself for a replica answers a client, which cannot tell: what needs no state, as that a command is too long, it may say.
    ByImpostor {
        /// The message.
        message: &'a Message,
    },
    /// A message has arrived at a replica, which will take it in its next turn, if it lives so long.
    Received {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// The sender.
        from: Peer,
        /// The message.
        message: &'a Message,
    },
    /// A write has become durable.
    Written {
        /// The replica, by its place in the cluster.
        replica: usize,
    },
    /// A replica's protocol reports an event.
    Event {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// Its state after the turn.
        core: &'a Core,
        /// The event.
        event: &'a Event,
    },
    /// A replica's protocol has gone a way that is counted. Told after the events of the turn.
    Mark {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// The way.
        mark: &'a Mark,
    },
    /// A replica's turn has ended; its events and marks were told before.
    Turn {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// Its state.
        core: &'a Core,
    },
    /// A replica starts (again) from its disk as it is now, and will apply its log from the start, or from a checkpoint on, which an event
    /// then says.
    Started {
        /// The replica, by its place in the cluster.
        replica: usize,
    },
    /// A state machine has executed a command.
    Executed {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// The command's place in the log.
        position: Position,
        /// The command's own number, unique in the run.
        command: u64,
        /// The reply's checksum.
        reply: Checksum,
    },
    /// A state machine's digest after an op.
    Digest {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// What the digest is of.
        of: Digested,
        /// The digest.
        digest: Checksum,
    },
    /// Something that a replica counts was counted anew. Now and then, and when it takes up or leaves the primary's role.
    Audited {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// The count, and what is there.
        account: &'a Account,
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
    /// A client has no reply, but is told whether its command was executed.
    Told {
        /// The command's own number.
        command: u64,
        /// True: it was executed. False: it was not, and never will be.
        executed: bool,
        /// The words of the error.
        words: &'a str,
    },
    /// A client that keeps the rules, and is the only one of its id, hands requests to the network.
    Asked {
        /// The requests.
        requests: &'a [Request],
    },
    /// Such a client, or the handle of a replica, has no reply or no answer, and is told why.
    Refused {
        /// The client; `None` for a handle.
        client: Option<ClientId>,
        /// The error.
        why: Unheard<'a>,
        /// How long it has waited, in nanoseconds of virtual time.
        waited: u64,
        /// How long it wanted to wait at most; `None` without a limit.
        limit: Option<u64>,
    },
    /// The world has failed a replica's disk in a way that is a reason to stop.
    Broke {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// True: the replica must stop, as what its storage says after this is not to be believed. False: it may stop.
        must: bool,
        /// What happened to it.
        how: &'a str,
    },
    /// A replica has stopped by itself.
    Stopped {
        /// The replica, by its place in the cluster.
        replica: usize,
        /// Whether it names its storage as the reason.
        by_storage: bool,
        /// The words of its error.
        why: &'a str,
    },
}

impl Observation<'_> {
    /// The replica that it is about; none for what a client sees.
    #[must_use]
    pub fn replica(&self) -> Option<usize> {
        match *self {
            Observation::Sent { replica, .. }
            | Observation::Received { replica, .. }
            | Observation::Written { replica }
            | Observation::Event { replica, .. }
            | Observation::Mark { replica, .. }
            | Observation::Turn { replica, .. }
            | Observation::Started { replica }
            | Observation::Executed { replica, .. }
            | Observation::Digest { replica, .. }
            | Observation::Audited { replica, .. }
            | Observation::Broke { replica, .. }
            | Observation::Stopped { replica, .. } => Some(replica),
            Observation::Acknowledged { .. }
            | Observation::Told { .. }
            | Observation::Asked { .. }
            | Observation::ByImpostor { .. }
            | Observation::Refused { .. } => None,
        }
    }

    fn kind(&self) -> Interests {
        match self {
            Observation::Sent { message, .. } | Observation::ByImpostor { message } => match message {
                Message::Prepare { .. } => Interests::PREPARE,
                Message::PrepareOk { .. } => Interests::PREPARE_OK,
                Message::Commit { .. } | Message::CommitOk { .. } => Interests::COMMIT,
                Message::StartViewChange { .. } | Message::DoViewChange(_) | Message::StartView(_) => {
                    Interests::VIEW_CHANGE
                }
                Message::Replies { .. } | Message::Answer { .. } => Interests::ANSWERS,
                _ => Interests::OTHER_MESSAGES,
            },
            Observation::Event { event: Event::Applied { .. }, .. } => Interests::APPLIED,
            Observation::Event { event: Event::Committed { .. }, .. } => Interests::COMMITTED,
            Observation::Event { .. } | Observation::Mark { .. } => Interests::OTHER_EVENTS,
            Observation::Written { .. } => Interests::WRITTEN,
            Observation::Turn { .. } => Interests::TURN,
            Observation::Started { .. } => Interests::STARTED,
            Observation::Executed { .. } => Interests::EXECUTED,
            Observation::Digest { .. } => Interests::DIGEST,
            Observation::Acknowledged { .. } => Interests::ACKNOWLEDGED,
            Observation::Received { .. } => Interests::RECEIVED,
            Observation::Audited { .. } => Interests::AUDITED,
            Observation::Told { .. } => Interests::TOLD,
            Observation::Asked { .. } => Interests::ASKED,
            Observation::Refused { .. } => Interests::REFUSED,
            Observation::Broke { .. } | Observation::Stopped { .. } => Interests::STOPS,
        }
    }
}

/// Why a client gets no answer.
#[derive(Clone, Copy, Debug)]
pub enum Unheard<'a> {
    /// Of a command.
    Command(&'a SubmitError),
    /// Of a query.
    Query(&'a QueryError),
}

impl std::fmt::Display for Unheard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unheard::Command(error) => write!(f, "{error}"),
            Unheard::Query(error) => write!(f, "{error}"),
        }
    }
}

/// What a digest is of. Every replica has the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Digested {
    /// The state machine, after the command at this position.
    Machine(Position),
    /// The session table, after this op.
    Sessions(OpNumber),
}

impl std::fmt::Display for Digested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Digested::Machine(position) => write!(f, "after op {position} the state"),
            Digested::Sessions(op) => write!(f, "after op {op} the session table"),
        }
    }
}

/// The kinds of observations that a checker looks at: a set, put together with `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interests(u32);

const KINDS: usize = 21;

impl Interests {
    /// `Prepare` is sent.
    pub const PREPARE: Interests = Interests(1);
    /// `PrepareOk` is sent.
    pub const PREPARE_OK: Interests = Interests(1 << 1);
    /// `Commit` or `CommitOk` is sent.
    pub const COMMIT: Interests = Interests(1 << 2);
    /// `StartViewChange`, `DoViewChange` or `StartView` is sent.
    pub const VIEW_CHANGE: Interests = Interests(1 << 3);
    /// `Replies` or `Answer` is sent.
    pub const ANSWERS: Interests = Interests(1 << 4);
    /// Any other message is sent.
    pub const OTHER_MESSAGES: Interests = Interests(1 << 5);
    /// Any message is sent.
    pub const SENT: Interests = Interests(0b11_1111);
    /// An op was applied.
    pub const APPLIED: Interests = Interests(1 << 6);
    /// A commit number rose.
    pub const COMMITTED: Interests = Interests(1 << 7);
    /// Any other event of the protocol, and any mark.
    pub const OTHER_EVENTS: Interests = Interests(1 << 8);
    /// Any event of the protocol, and any mark.
    pub const EVENT: Interests = Interests(0b111 << 6);
    /// [`Observation::Written`].
    pub const WRITTEN: Interests = Interests(1 << 9);
    /// [`Observation::Turn`].
    pub const TURN: Interests = Interests(1 << 10);
    /// [`Observation::Started`].
    pub const STARTED: Interests = Interests(1 << 11);
    /// [`Observation::Executed`].
    pub const EXECUTED: Interests = Interests(1 << 12);
    /// [`Observation::Digest`].
    pub const DIGEST: Interests = Interests(1 << 13);
    /// [`Observation::Acknowledged`].
    pub const ACKNOWLEDGED: Interests = Interests(1 << 14);
    /// [`Observation::Received`].
    pub const RECEIVED: Interests = Interests(1 << 15);
    /// [`Observation::Audited`].
    pub const AUDITED: Interests = Interests(1 << 16);
    /// [`Observation::Told`].
    pub const TOLD: Interests = Interests(1 << 17);
    /// [`Observation::Broke`] and [`Observation::Stopped`].
    pub const STOPS: Interests = Interests(1 << 18);
    /// [`Observation::Asked`].
    pub const ASKED: Interests = Interests(1 << 19);
    /// [`Observation::Refused`].
    pub const REFUSED: Interests = Interests(1 << 20);
    /// All observations.
    pub const ALL: Interests = Interests((1 << KINDS) - 1);
}

impl BitOr for Interests {
    type Output = Interests;

    fn bitor(self, other: Interests) -> Interests {
        Interests(self.0 | other.0)
    }
}

/// What every checker may use.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The replicas' disks as they are now.
    pub disks: &'a [SimDisk],
    /// The cluster's quorums.
    pub quorums: Quorums,
    /// What the replicas' wall clocks can be thought to show, when an op is prepared; empty where nothing is known of them.
    pub clocks: &'a [ClockRange],
}

/// What any member can believe that a replica's wall clock shows, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockRange {
    /// At least this; 0 when reports may be late, or lost.
    pub lowest: u64,
    /// At most this.
    pub highest: u64,
}

impl Scene<'_> {
    /// How many disks hold this very entry, rotten or not (rot comes after the acknowledgement), or have dropped it for a checkpoint that contains
    /// it; and how many others
    /// may have held it: lost ones, and those where a torn write left the slot unreadable.
    #[must_use]
    pub fn copies(&self, op: OpNumber, checksum: Checksum) -> (usize, usize) {
        let (mut held, mut perhaps) = (0, 0);
        for disk in self.disks {
            match disk.durable(op) {
                Some(durable) => held += usize::from(durable == checksum || disk.has_held(op, checksum)),
                None if !disk.is_lost() && disk.state().base() >= op => held += 1,
                None if disk.has_held(op, checksum) => held += 1,
                None => perhaps += usize::from(disk.is_lost() || disk.is_damaged(op)),
            }
        }
        (held, perhaps)
    }
}

/// One property, looked at as the run goes.
///
/// It is told of everything that [`wants`](Self::wants) names, in the order in which it happens, and keeps what it
/// needs to remember itself. It must not take longer as the run grows: a run makes hundreds of thousands of
/// observations a second. The first one that breaks the property ends the run.
///
/// An application adds its own invariants beside those that ship:
///
/// ```
/// use vsr::protocol::Event;
/// use vsr_sim::check::{Checker, Checkers, Interests, Observation, Scene};
///
/// /// Views start at most so many times: a cluster that changes views all the time serves no client.
/// struct FewViews(u64);
///
/// impl Checker for FewViews {
///     fn name(&self) -> &'static str {
///         "few-views"
///     }
///
///     fn wants(&self) -> Interests {
///         Interests::OTHER_EVENTS
///     }
///
///     fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
///         match *observation {
///             Observation::Event { replica, event: Event::ViewStarted { view, .. }, .. } if view.number > self.0 => {
///                 Err(format!("r{replica} starts view {view}, {} are enough", self.0))
///             }
///             _ => Ok(()),
///         }
///     }
/// }
///
/// let mut checkers = Checkers::all();
/// checkers.add(Box::new(FewViews(100)));
/// assert!(checkers.names().any(|name| name == "few-views"));
/// ```
pub trait Checker: Send {
    /// Its name, for messages and for shrinking.
    fn name(&self) -> &'static str;

    /// What it is told of; everything, if it does not say. Asked once.
    fn wants(&self) -> Interests {
        Interests::ALL
    }

    /// Looks at something that happened.
    ///
    /// # Errors
    /// A sentence with the replica and both values when the property is broken.
    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String>;
}

/// Checkers, each told only of what it wants.
#[derive(Default)]
pub struct Checkers {
    checkers: Vec<Box<dyn Checker>>,
    /// Who wants each kind.
    wanted: [Vec<usize>; KINDS],
}

impl Checkers {
    /// One more.
    pub fn add(&mut self, checker: Box<dyn Checker>) {
        let Interests(wants) = checker.wants();
        for (kind, wanted) in self.wanted.iter_mut().enumerate() {
            if wants >> kind & 1 == 1 {
                wanted.push(self.checkers.len());
            }
        }
        self.checkers.push(checker);
    }

    /// Their names, in the order in which they look.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.checkers.iter().map(|checker| checker.name())
    }

    /// Tells those who want it of something that happened. When a property is broken: the checker, the replica that the
    /// observation is about, and the checker's sentence.
    pub fn observe(
        &mut self,
        scene: &Scene<'_>,
        observation: &Observation<'_>,
    ) -> Option<(&'static str, Option<usize>, String)> {
        let Interests(kind) = observation.kind();
        for &at in &self.wanted[kind.trailing_zeros() as usize] {
            let checker = &mut self.checkers[at];
            if let Err(message) = checker.observe(scene, observation) {
                return Some((checker.name(), observation.replica(), message));
            }
        }
        None
    }
}
