//! Viewstamped Replication without I/O: no async, no clock, no thread, no entropy of its own. The same
//! inputs give the same effects, byte for byte.
//!
//! The way of a request: `primary` (admission, `Prepare`) → `core` (the batch, `outbox`) →
//! `backup` (`PrepareOk`) → `primary` (commit) → `apply` (`sessions`, reply). When the primary
//! fails: `view_change` (votes, `DoViewChange`, `StartView`), `choose` (the choice of the log, a pure
//! function) and `decide` (what is done about it); `phase` names where a replica stands, and what may
//! follow. After a crash: `restart`. What is missing comes by `repair`. Reads go by `reads`. Requests
//! that a backup passes on are watched by `forwards`.

mod apply;
mod audit;
mod backup;
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
pub mod limits;
mod lives;
mod log;
mod map;
mod membership;
mod message;
mod number;
mod outbox;
mod phase;
mod primary;
mod random;
mod reads;
mod repair;
mod restart;
mod sessions;
mod view_change;
mod vsr_state;
mod writes;

pub use self::apply::{ApplyContext, Machine};
pub use self::audit::Account;
pub use self::checksum::Checksum;
pub use self::core::{Core, Options, Timing};
pub use self::entry::{
    BodyBuilder, BodyError, BodyReader, Entry, Header, HeaderFields, LoggedRequest, OpKind, RequestKind,
};
pub use self::event::{Event, Suspicion};
pub use self::explain::{Health, Refusals};
pub use self::fault::Fault;
pub(crate) use self::forwards::CLIENT_PAUSE_MAX;
pub use self::lives::{Distrust, Known, Life};
pub use self::log::Diverged;
pub use self::membership::{Constants, MEMBERS_MAX, Member, Membership, MembershipError, Quorums};
pub use self::message::{
    Busy, DoViewChange, Envelope, Fact, Message, Outcome, Peer, Ping, Refusal, Reply, Request, StartView,
};
pub use self::number::{
    BatchNumber, ClientId, ClusterId, CommitNumber, Epoch, Incarnation, Monotonic, OpNumber, Position, ReplicaId,
    RequestNumber, SessionId, Timestamp, View,
};
pub use self::phase::{IllegalTransition, LogSource, Phase, Status};
pub(crate) use self::primary::in_messages;
pub use self::random::Random;
pub use self::repair::ReadRequest;
pub use self::vsr_state::{Batch, Doubted, Recovered, Slot, Suffix, VsrState};
