//! Viewstamped Replication for your own state machine.
//!
//! Rules are those of `docs/protocol.md` in the repository: `rule 7.5 c` in a comment is part c of rule 7.5 there.

mod client;
mod clock;
pub mod codec;
mod config;
mod handle;
mod measure;
pub mod memory;
mod network;
pub mod protocol;
mod replica;
mod session;
mod state_machine;
mod storage;
pub mod testing;
mod threaded;
pub mod wire;

pub use client::{Client, ClientConfig, ClientRunner};
pub use clock::{Clock, SystemClock};
pub use config::{Config, ConfigError};
pub use handle::{Events, Handle, Positioned, QueryError, ReplicaStatus, Watched};
pub use measure::METRICS;
pub use network::{Arrival, Identity, Network, NetworkError};
pub use protocol::{
    ApplyContext, Batch, Checksum, ClientId, ClusterId, CommitNumber, Constants, Entry, Envelope, Epoch, Event, Fault,
    Header, Health, Incarnation, Member, Membership, MembershipError, Message, Monotonic, OpNumber, Peer, Position,
    Quorums, Recovered, ReplicaId, RequestNumber, SessionId, Slot, Suffix, Suspicion, Timestamp, Timing, View,
    VsrState,
};
pub use replica::{Observer, Replica, ReplicaBuilder, ReplicaError};
pub use session::SubmitError;
pub use state_machine::{QueryContext, RestoreError, Snapshot, StateMachine};
pub use storage::{Storage, StorageError};
pub use threaded::{BlockingReader, BlockingWriter, Entries, ThreadedStorage};
