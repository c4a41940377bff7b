//! Viewstamped Replication without I/O: no async, no clock, no thread, no entropy of its own. The same
//! inputs give the same effects, byte for byte.
//!
//! [`turn`] is the one way in and out of [`Core`]; it says what a caller passes, what comes back, and in which order it is
//! carried out. The [guide of the crate](crate#the-way-of-a-request) has the ways through the code function by function.
//!
//! The way of a request: `primary` (admission, `Prepare`) → `core` (the batch, `outbox`) →
//! `backup` (`PrepareOk`) → `primary` (commit) → `apply` (`sessions`, reply). When the primary
//! fails: `view_change` (votes, `DoViewChange`, `StartView`), `choose` (the choice of the log) and
//! `decide` (what is done about it). After a crash: `restart`. What is missing comes by `repair`, and goes into the log
//! by `intake`. Reads go by `reads`. Requests that a backup passes on are watched by `forwards`. What is not answered is
//! said again by `tick`.
//!
//! `Core` composes parts that know nothing of it, each with its tests: `quorum` (arithmetic), `progress` (one struct a
//! member), `phase` (where a replica stands between two views, and what may follow), `choose`, `agreed_clock`, `log`,
//! `body_cache`, `writes` (staged, in flight, durable), `outbox`, `sessions`, `read_rounds`, `forwards`. `invariants`
//! says what must hold of all their numbers together. `tests` plays three cores on three disks in memory, message by
//! message.

mod agreed_clock;
mod apply;
mod audit;
mod backup;
mod body_cache;
mod checksum;
mod choose;
mod core;
mod decide;
#[cfg(test)]
mod documented;
mod entry;
mod event;
mod explain;
mod fault;
mod forwards;
mod intake;
mod invariants;
pub mod limits;
mod lives;
mod log;
mod map;
mod membership;
mod message;
mod number;
mod options;
mod outbox;
mod phase;
mod primary;
mod progress;
mod quorum;
mod random;
mod read_rounds;
mod reads;
mod repair;
mod restart;
mod sessions;
#[cfg(test)]
mod tests;
mod tick;
pub mod turn;
mod view_change;
mod vsr_state;
mod writes;

pub use self::apply::{ApplyContext, Machine};
pub use self::audit::Account;
pub use self::checksum::Checksum;
pub use self::core::Core;
pub use self::entry::{
    BodyBuilder, BodyError, BodyReader, Entry, Header, HeaderFields, LoggedRequest, OpKind, RequestKind,
};
pub use self::event::{Event, Mark, Suspicion};
pub use self::explain::{Health, Refusals};
pub use self::fault::Fault;
pub(crate) use self::forwards::CLIENT_PAUSE_MAX;
pub use self::invariants::{BrokenInvariant, Promises};
pub use self::lives::{Distrust, Known, Life};
pub use self::log::Diverged;
pub use self::membership::{Constants, Member, Membership, MembershipError};
pub(crate) use self::message::in_messages;
pub use self::message::{
    Busy, DoViewChange, Envelope, Fact, Message, Outcome, Peer, Ping, Refusal, Reply, Request, StartView,
};
pub(crate) use self::number::NEVER;
pub use self::number::{
    BatchNumber, ClientId, ClusterId, CommitNumber, Epoch, Incarnation, Monotonic, OpNumber, Position, ReplicaId,
    RequestNumber, SessionId, Timestamp, View,
};
pub use self::options::{Options, Timing};
pub use self::phase::{IllegalTransition, LogSource, Phase, Status};
pub use self::quorum::{MEMBERS_MAX, Quorums};
pub use self::random::Random;
pub use self::repair::ReadRequest;
pub use self::turn::{Effects, Input, Inputs};
pub use self::vsr_state::{Batch, Doubted, Recovered, Slot, Suffix, VsrState};
