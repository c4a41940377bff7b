//! Viewstamped Replication without I/O: no async, no clock, no thread, no entropy of its own. The same
//! inputs give the same effects, byte for byte.
//!
//! [`turn`] is the one way in and out of [`Core`]; it says what a caller passes, what comes back, and in which order it is
//! carried out. The [guide of the crate](crate#the-way-of-a-request) has the ways through the code function by function.
//!
//! - `core`: the state of a replica, and what all roles share: dispatch, staging, the way out. `timers`: when something is due. `tick`:
//!   what is not answered is said again.
//! - `types`: numbers, entries, messages, the membership, the vsr state, limits, and the arithmetic of quorums. It uses nothing else of the
//!   protocol.
//! - `log`: the log and its way to the disk. `log` (slots, headers, the hash chain), `body_cache`, `writes` (staged, in flight,
//!   durable), `intake` (what comes by a primary or a repair goes into the log), `outbox` (messages wait for writes).
//! - `normal`: normal operation. `pipeline` (what becomes of a request at the primary; its queue), `primary` (`Prepare`, commit), `backup`
//!   (`PrepareOk`), `apply`, `sessions`, `checkpoints` (what is in one, which log one belongs to) with `checkpointing` (when one is due, when the record names it) and `digests` (whose state differs), `forwards` (requests that a backup has passed on), `reads` with `read_rounds`, `progress` (one struct a member), `agreed_clock`.
//! - `view_change`: when the primary fails. `view_change` (`StartViewChange`, `DoViewChange`, `StartView`), `votes` (whose
//!   counts, and until when), `phase` (where a replica stands between two views, and what may follow), `choose` (the choice of the log),
//!   `decide` (what is done about it).
//! - `recovery`: what is lost or forgotten. `restart` (a start on what the disk holds), `repair` (what is missing is asked for and served),
//!   `questions` (what is missing, and was not asked for of late), `lives` (whose word counts), `transfer` (a checkpoint of another member takes the place
//!   of what was dropped) with `fetching` (what has come of one, what is lent).
//! - `health`: `invariants` (what must hold of all numbers together), `halt` (why a replica has stopped), `explain` (why there is no
//!   progress), `audit` (running counts, to be counted anew).
//!
//! The way of a request: `primary` → `core` (the batch, `outbox`) → `backup` → `primary` → `apply` (`sessions`, reply).
//!
//! `Core` composes parts that know nothing of it, each with its tests: all of `types`, `timers`, `log`, `body_cache`, `writes`, `outbox`, `progress`,
//! `agreed_clock`, `forwards`, `sessions`, `pipeline`, `digests`, `checkpoints`, `read_rounds`, `questions`, `fetching`, `votes`, `phase`, `choose`, `invariants`, `halt`. The others are the roles: each
//! adds to `Core` what it does in that role, so they and `core` use each other. `tests` plays three cores on three disks in memory, message by message.

mod core;
#[cfg(test)]
mod documented;
mod health;
mod log;
mod normal;
mod recovery;
#[cfg(test)]
mod tests;
mod tick;
mod timers;
pub mod turn;
mod types;
mod view_change;

pub use self::core::Core;
pub use self::health::explain::{Health, Refusals};
pub use self::health::halt::Halt;
pub use self::health::invariants::{BrokenInvariant, Promises};
pub use self::log::log::Diverged;
pub use self::normal::apply::{ApplyContext, Machine};
pub use self::normal::checkpoints::{CheckpointHead, TakeCheckpoint};
pub(crate) use self::normal::forwards::CLIENT_PAUSE_MAX;
pub use self::recovery::fetching::{ReadPart, StorePart};
pub use self::recovery::repair::ReadRequest;
pub use self::turn::{Effects, Input, Inputs};
pub use self::types::account::Account;
pub use self::types::checkpoint::{CHUNK_BYTES_MAX, CheckpointId, Chunk, Manifest, Past, StateDigest};
pub use self::types::checksum::Checksum;
pub use self::types::entry::{
    BodyBuilder, BodyError, BodyReader, Entry, Header, HeaderFields, LoggedRequest, OpKind, Replacement, RequestKind,
};
pub use self::types::event::{Event, Mark, ViewChangeReason};
pub use self::types::life::{Distrust, Known, Life, Succession};
pub use self::types::limits;
pub use self::types::membership::{Constants, Member, Membership, MembershipError};
pub(crate) use self::types::message::in_messages;
pub use self::types::message::{
    Busy, DoViewChange, Envelope, Message, Outcome, Peer, Ping, Refusal, Reply, Request, SlotEvidence, StartView,
};
pub use self::types::number::{
    BatchNumber, ClientId, ClusterId, CommitNumber, DiskId, Epoch, Monotonic, OpNumber, Position, ReplicaId,
    RequestNumber, SessionId, Timestamp, View,
};
pub(crate) use self::types::number::{NEVER, nanos};
pub use self::types::options::{Options, Timing};
pub use self::types::quorum::{MEMBERS_MAX, Quorums};
pub use self::types::random::Random;
pub use self::types::vsr_state::{Batch, Doubted, Recovered, Slot, Suffix, TooFewToRejoin, VsrState};
pub use self::view_change::phase::{IllegalTransition, LogSource, Phase, Status};
