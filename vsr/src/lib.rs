//! Viewstamped Replication for your own state machine.
//!
//! Several replicas hold the same deterministic state machine and apply the same commands in the same order. The crate agrees on the
//! order, makes it durable, and keeps answering while a minority of the replicas is down. It is a library: a replica is
//! one future inside your process, without a runtime of its own, and disk, transport and clock are traits.
//!
//! - [A state machine](#a-state-machine), [a cluster in memory](#a-cluster-in-memory),
//!   [replicas and clients by hand](#replicas-and-clients-by-hand)
//! - [What the four traits ask](#what-the-four-traits-ask)
//! - [What an application may rely on](#what-an-application-may-rely-on), [what each error means](#what-each-error-means)
//! - [The way of a request](#the-way-of-a-request) and [of a view change](#the-way-of-a-view-change) through the code
//! - [Where the names are](#where-the-names-are), [features](#features), [where the rules are](#where-the-rules-are)
//!
//! # A state machine
//!
//! Commands change the state and are replicated; queries read it and are not. All types go through serde.
//!
//! ```
//! use std::io::Read;
//! use vsr::{ApplyContext, QueryContext, RestoreError, Snapshot, StateMachine};
//!
//! #[derive(Default)]
//! struct Counter(i64);
//!
//! impl StateMachine for Counter {
//!     type Command = i64; // what to add
//!     type Reply = i64; // the sum after it
//!     type Query = ();
//!     type Answer = i64; // the sum now
//!
//!     fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 {
//!         self.0 += n;
//!         self.0
//!     }
//!     fn query(&self, _: &QueryContext, (): ()) -> i64 {
//!         self.0
//!     }
//!     fn snapshot(&self) -> Snapshot {
//!         Snapshot::of(self.0)
//!     }
//!     fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> {
//!         Snapshot::read(from).map(Counter)
//!     }
//! }
//! ```
//!
//! # A cluster in memory
//!
//! [`testing::cluster`] starts replicas on threads of this process, for tests and first steps.
//!
//! ```
//! # use std::io::Read;
//! # use vsr::{ApplyContext, QueryContext, RestoreError, Snapshot, StateMachine};
//! # #[derive(Default)]
//! # struct Counter(i64);
//! # impl StateMachine for Counter {
//! #     type Command = i64;
//! #     type Reply = i64;
//! #     type Query = ();
//! #     type Answer = i64;
//! #     fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 { self.0 += n; self.0 }
//! #     fn query(&self, _: &QueryContext, (): ()) -> i64 { self.0 }
//! #     fn snapshot(&self) -> Snapshot { Snapshot::of(self.0) }
//! #     fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> { Snapshot::read(from).map(Counter) }
//! # }
//! let cluster = vsr::testing::cluster(3, Counter::default)?;
//! futures::executor::block_on(async {
//!     assert_eq!(cluster.handle(0).submit(2).await, Ok(2));
//!     assert_eq!(cluster.handle(1).submit(3).await, Ok(5)); // any replica takes commands
//!     assert_eq!(cluster.handle(2).query(()).await, Ok(5)); // and answers queries, linearizably
//! });
//! # Ok::<(), vsr::ConfigError>(())
//! ```
//!
//! # Replicas and clients by hand
//!
//! A [`Replica`] is built of a [`Config`], a state machine, a [`Storage`] and a [`Network`]. [`Replica::run`] is its future; the [`Handle`]
//! is the application's end. A [`Client`] does the same from outside the cluster, and has a future of its own.
//!
//! ```
//! # use std::io::Read;
//! # use vsr::{ApplyContext, QueryContext, RestoreError, Snapshot, StateMachine};
//! # #[derive(Default)]
//! # struct Counter(i64);
//! # impl StateMachine for Counter {
//! #     type Command = i64;
//! #     type Reply = i64;
//! #     type Query = ();
//! #     type Answer = i64;
//! #     fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 { self.0 += n; self.0 }
//! #     fn query(&self, _: &QueryContext, (): ()) -> i64 { self.0 }
//! #     fn snapshot(&self) -> Snapshot { Snapshot::of(self.0) }
//! #     fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> { Snapshot::read(from).map(Counter) }
//! # }
//! use futures::executor::block_on;
//! use futures::future::{Either, join, join_all, select};
//! use vsr::memory::{MemoryNetwork, MemoryStorage};
//! use vsr::{Client, ClientConfig, ClusterId, Config, Replica, ReplicaId, SystemClock};
//!
//! let network = MemoryNetwork::new(3);
//! let (mut replicas, mut handles) = (Vec::new(), Vec::new());
//! for id in (0..3).map(ReplicaId) {
//!     let config = Config::new(ClusterId(1), id, ["a", "b", "c"])?; // the cluster, this member, the addresses of all members
//!     let storage = MemoryStorage::format(&config); // a disk is formatted once, and opened at each start
//!     let endpoint = network.endpoint(id);
//!     let (replica, handle) =
//!         Replica::builder(config, Counter::default()).storage(storage).network(endpoint).build()?;
//!     replicas.push(replica.run());
//!     handles.push(handle);
//! }
//! let config = ClientConfig::new(3);
//! let endpoint = network.client(config.id);
//! let (client, runner) = Client::<Counter>::new(config, endpoint, SystemClock::new());
//!
//! let cluster = std::pin::pin!(join(join_all(replicas), runner.run()));
//! let application = std::pin::pin!(async {
//!     assert_eq!(handles[0].submit(2).await, Ok(2));
//!     assert_eq!(client.submit(3).await, Ok(5));
//!     assert_eq!(client.query(()).await, Ok(5));
//! });
//! // One thread is enough. To drop the future of a replica stops it as a crash would; `Handle::shutdown` hands its role over.
//! assert!(matches!(block_on(select(application, cluster)), Either::Left(_)));
//! # Ok::<(), vsr::ConfigError>(())
//! ```
//!
//! With files and sockets, `storage` is a `vsr_storage_file::FileStorage` and `network` a `vsr_net_tcp::TcpNetwork`; nothing else
//! changes. `vsr_sim::simulate` runs the same state machine in a simulated cluster under faults.
//!
//! What a client has to know, what it may rely on, and what it does while there is no answer, is in the guide's chapter "A client from outside"
//! (`book/src/client.md`); a whole program that uses one is the example `client` of `counter` (`examples/counter/examples/client.rs`).
//!
//! # What the four traits ask
//!
//! - [`StateMachine`]: determinism. Equal commands in equal order give equal states and equal encoded replies. No clock, no randomness, no
//!   iteration over a `HashMap`; time and position are in the [`ApplyContext`]. A panic stops the replica with an error, not the process.
//! - [`Storage`]: durable, ordered, atomic writes, and reads that tell the truth. After a crash a slot is old, new or known to be damaged;
//!   "nothing was here" is a claim that the protocol relies on. After a failed write or sync nothing is believed until the next start.
//!   [`ThreadedStorage`](threaded::ThreadedStorage) makes one of code that blocks.
//! - [`Network`]: little. Messages may be lost, delayed, repeated and reordered; none is changed or attributed to another sender.
//!   Sending never waits, and memory is bounded. Reports of broken connections are hints.
//! - [`Clock`]: a monotonic time that does not go backwards, and a time of day that may be wrong. No rule of safety depends on either.
//!
//! Each contract is a list of numbered clauses on its trait. `vsr_sim::conformance` has a test for each clause, to be run against an
//! implementation of your own. Whether a state machine is deterministic, `vsr_sim`'s simulation finds out.
//!
//! # What an application may rely on
//!
//! - **Exactly once.** A command that was submitted through a [`Handle`] or a [`Client`] is executed at most once, however often it is sent, and
//!   once if its reply arrives (rules 5.1 to 5.8).
//! - **Linearizable.** A reply, or the answer to a query, at any replica reflects every command whose reply a caller had before the
//!   call (rules 8.1, 8.2). Commands that are in flight together have no order: await the reply to have one (rule 5.6).
//! - **Durable.** A command is answered when a replication quorum has it on its disks. It survives crashes and power cuts of all replicas, and damage
//!   to disks while one intact copy is left. Where none is, the cluster waits and names the op; it does not go on without it (rule
//!   7.16).
//! - **Available.** A cluster of 2f + 1 replicas answers while f + 1 of them run and reach each other. A primary that fails is replaced after a time-out of
//!   its [`Timing`].
//! - **Errors and reasons.** A replica that cannot go on safely stops with an error that says who must act. One that only makes no progress says why, in
//!   [`Handle::explain`] and [`ReplicaStatus::health`](handle::ReplicaStatus::health).
//!
//! - **Disks that are lost.** Those of a minority are replaced while the cluster goes on ([`FormatFor::LostDisk`](config::FormatFor::LostDisk), rule 7.19). Of what is left when a
//!   majority is gone, and of any replica that stands still, [`backup`] makes a file that a new cluster begins with (rule 9.12).
//!
//! Not covered: replicas or clients that lie (messages are checked against damage, not against forgery; nothing is encrypted). Not built yet:
//! changes of the membership.
//!
//! # What each error means
//!
//! Of a command ([`SubmitError`]), the first question is whether it was executed:
//!
//! | executed? | errors | what to do |
//! |---|---|---|
//! | no | [`Busy`](SubmitError::Busy) | submit again later |
//! | no | [`TooLarge`](SubmitError::TooLarge), [`Encode`](SubmitError::Encode), [`Undecodable`](SubmitError::Undecodable) | change the command, or the version or limits of the cluster |
//! | no | [`Config`](SubmitError::Config), [`Conflict`](SubmitError::Conflict) | correct the client's configuration; a client id is used by one client |
//! | yes, once | [`ReplyLost`](SubmitError::ReplyLost), [`Unencodable`](SubmitError::Unencodable), [`Decode`](SubmitError::Decode) | query what came of it |
//! | unknown | [`TimedOut`](SubmitError::TimedOut), [`Evicted`](SubmitError::Evicted), [`LogFull`](SubmitError::LogFull), [`Stopped`](SubmitError::Stopped) | query before submitting it again: a second submit is a second command |
//!
//! A query ([`QueryError`]) changes nothing: to ask again is always safe.
//!
//! The words of an error end with those of its cause, so that one line says all; a program finds the cause itself (an [`std::io::Error`], say) with
//! [`source`](std::error::Error::source). It is kept in a [`Cause`].
//!
//! [`Replica::run`] ends with a [`ReplicaError`]: the disk ([`StorageError`](storage::StorageError)), the transport ([`NetworkError`](network::NetworkError)), a configuration that does not fit the disk, or a
//! [`Halt`](protocol::Halt).
//! The process lives on. `Storage` and `Network` errors may pass with a restart once their cause is gone; a `Halt` does not: its words
//! say whether an operator has to bring back the right disk, run a newer version, or give the replica a new disk. After [`StorageError::NotFormatted`](storage::StorageError::NotFormatted),
//! format only if this replica has never run: an empty disk under a known id has forgotten what it promised.
//!
//! # The way of a request
//!
//! Through the primary's own handle; the files are those below `vsr/src`. At another replica `forward` passes the request on, and a [`Client`]'s comes in
//! through `poll_network`.
//!
//! | file | functions | what they do |
//! |---|---|---|
//! | `driver/handle.rs` | `submit` | the application's call |
//! | `client/inbox.rs` | `submit_command`, `submit` | encode the command, charge it to the bounds of the handle, leave it in the inbox, wake the driver |
//! | `driver/replica.rs` | `poll`, `turn`, `poll_inbox` | gather what is ready for one turn of the core |
//! | `client/session.rs` | `submit`, `poll`, `send_new` | give it a number in the session, and the floor |
//! | `protocol/turn.rs` | `turn`, `on_input` | take the turn's inputs in |
//! | `protocol/normal/primary.rs` | `refuse_absurd`, `on_requests`, `admit` | carry out what is decided about it; a backup: `forward` |
//! | `protocol/normal/pipeline.rs` | `admit`, `join`, `enqueue` | answer it, join it to a copy that is in flight, or queue it |
//! | `protocol/normal/sessions.rs` | `look_up` | was it executed, is its session known |
//! | `protocol/turn.rs` | `act` | when all inputs are in |
//! | `protocol/normal/primary.rs` | `prepare_queued`, `prepare_one`, `append` | while the pipeline has room |
//! | `protocol/normal/pipeline.rs` | `close_batch` | make one op of all that is queued |
//! | `protocol/log/writes.rs` | `stage_put`, `needs` | stage its write; which writes the `Prepare` has to wait for |
//! | `protocol/core.rs` | `broadcast` | to every backup |
//! | `protocol/log/outbox.rs` | `send` | keep the message back, or let it go |
//! | `protocol/core.rs` | `check_invariants` | at the end of the turn: do its numbers fit together |
//! | `protocol/turn.rs` | `hand_out` | give the driver the write and the messages |
//! | `protocol/log/writes.rs` | `take` | the write: all that was staged, when none is in flight |
//! | `driver/replica.rs` | `start_io` | start the write; the messages go to the network in the same turn |
//! | `protocol/core.rs` | `on_message` | at a backup, validated |
//! | `protocol/normal/backup.rs` | `on_prepare`, `accepts_from_primary` | take the op into the log |
//! | `protocol/log/log.rs` | `extend`, `fill` | header and body |
//! | `driver/replica.rs` | `poll_write` | the write is durable |
//! | `protocol/turn.rs` | `end_write` | which is an input of the next turn |
//! | `protocol/core.rs` | `on_written` | |
//! | `protocol/log/outbox.rs` | `release` | what waited for it may leave |
//! | `protocol/core.rs` | `on_slots_durable`, `advance_durable` | how far the log is durable now; at the primary this counts its own copy |
//! | `protocol/normal/backup.rs` | `send_prepare_ok` | acknowledge the log up to the last durable op |
//! | `protocol/normal/primary.rs` | `on_prepare_ok`, `advance_commit` | count acknowledgements |
//! | `protocol/normal/progress.rs` | `acknowledge`, `acknowledged` | what each member has acknowledged in this view |
//! | `protocol/types/quorum.rs` | `committed` | what a quorum of them has is committed |
//! | `protocol/normal/apply.rs` | `apply`, `next_to_apply`, `begin_op`, `apply_some`, `apply_request` | apply the op, in slices |
//! | `protocol/normal/sessions.rs` | `begin`, `finish` | once, with the reply kept |
//! | `traits/state_machine.rs` | `apply` | the application's code, guarded |
//! | `protocol/normal/primary.rs` | `answer_to`, `flush_answers` | the reply to its origin |
//! | `driver/replica.rs` | `settle_replies` | to the session of the handle |
//! | `client/session.rs` | `on_reply`, `settle` | match it with the request |
//! | `client/inbox.rs` | `tell` | wake the caller, who decodes the reply |
//!
//! The backups learn the commit number from the next `Prepare`, or from a `Commit` (`tell_commit_when_idle`, `send_commit`, `on_commit`), and apply in the same way.
//!
//! # The way of a view change
//!
//! | file | functions | what they do |
//! |---|---|---|
//! | `protocol/core.rs` | `on_timer`, `on_peer_down` | the primary was silent, or its connection broke |
//! | `protocol/view_change/view_change.rs` | `on_view_change_timeout`, `on_hint`, `vote` | a vote to leave the view: `StartViewChange` |
//! | `protocol/view_change/view_change.rs` | `on_start_view_change`, `count_votes` | a vote of another member |
//! | `protocol/view_change/votes.rs` | `cast`, `count` | a quorum of votes for this view |
//! | `protocol/view_change/view_change.rs` | `enter_view`, `leave_view` | up to the next view; what was said as a member of the old one ends |
//! | `protocol/log/outbox.rs` | `discard_waiting` | messages that still wait are dropped |
//! | `protocol/normal/primary.rs` | `leave_primary` | what the role kept is dropped; queued requests are answered "no primary" |
//! | `protocol/normal/reads.rs` | `restart_reads` | queries start again |
//! | `protocol/core.rs` | `stage_state` | the new view and the uncommitted headers are written |
//! | `protocol/core.rs` | `on_written` | when they are durable |
//! | `protocol/view_change/view_change.rs` | `on_view_durable`, `await_log`, `send_do_view_change` | `DoViewChange`: |
//! | `protocol/log/log.rs` | `suffix`, `evidence` | the log of log_view, and what is known of each op |
//! | `protocol/view_change/view_change.rs` | `on_do_view_change` | at the primary of the new view |
//! | `protocol/view_change/decide.rs` | `try_decide` | a quorum of them is here |
//! | `protocol/view_change/choose.rs` | `choose`, `candidates`, `name_blanks`, `judge` | the choice of the log, with its proof: a function of what has arrived |
//! | `protocol/view_change/view_change.rs` | `install` | truncation, headers, view and log_view in one write |
//! | `protocol/view_change/view_change.rs` | `on_install_durable`, `start_view` | when it is durable: `StartView` |
//! | `protocol/normal/primary.rs` | `begin_as_primary` | heartbeats, while bodies are repaired |
//! | `protocol/recovery/repair.rs` | `run_repair`, `repair_bodies`, `on_entries` | bodies of inherited ops that are not here: asked for, and taken when they come |
//! | `protocol/recovery/questions.rs` | `wanted` | which of them, that were not asked for of late |
//! | `protocol/log/intake.rs` | `take_in` | into the log, and to the disk |
//! | `protocol/view_change/view_change.rs` | `try_become_primary`, `enter_normal` | all are here: normal operation |
//! | `protocol/normal/primary.rs` | `index_inherited`, `advance_commit` | inherited requests are in flight; acknowledgements start from nothing |
//! | `protocol/view_change/view_change.rs` | `on_start_view`, `become_backup` | at a backup: the same `install`, then normal operation |
//!
//! Where a replica stands on this way is its [`Phase`](protocol::Phase); `enter_phase` in `view_change.rs` makes every step, and refuses one that there is not.
//! A replica that missed the view asks for it: `ask_for_start_view` in `repair.rs`, `on_request_start_view` in `view_change.rs`. After a restart,
//! `recover` and `begin_life` in `restart.rs` go on with what the disk says; a primary moves to the next view.
//!
//! # Where the names are
//!
//! What an application writes stands here, at the root. The rest is in the module that it belongs to:
//!
//! | module | who needs it | what is in it |
//! |---|---|---|
//! | [`handle`] | applications that watch a replica, or want to know where a command stands in the log | [`ReplicaStatus`](handle::ReplicaStatus), [`Events`](handle::Events), [`Positioned`](handle::Positioned) |
//! | [`client`], [`config`], [`replica`], [`state_machine`], [`clock`] | applications | what belongs to the names at the root |
//! | [`storage`], [`threaded`], [`checkpoints`] | authors of a storage | the trait's errors; a storage made of code that blocks; checkpoints as files |
//! | [`network`], [`wire`] | authors of a transport | arrivals, errors; frames |
//! | [`protocol`] | both, simulators and tests | ops, entries, messages, the vsr state, and the protocol without I/O |
//! | [`codec`] | programs that read encoded commands elsewhere | how commands and replies become bytes |
//! | [`backup`] | tools of operators | a state as a file, a new cluster from it |
//! | [`memory`], [`testing`] | tests and first steps | storage, network, and a whole cluster in memory |
//!
//! Below `vsr/src` each folder or module uses only those that stand above it here:
//!
//! | folder or module | what is in it |
//! |---|---|
//! | `cause`, `codec`, `log` | causes of errors; how values become bytes; where log lines go |
//! | `protocol` | the protocol as a value without I/O: `core.rs`, `turn.rs`, and folders for what it is about (listed in its `mod.rs`) |
//! | `wire` | frames |
//! | `config` | what a replica is told, and the checks of it and of a client's configuration |
//! | `traits` | the four traits |
//! | `adapters` | what the crate brings to put behind them: memory, threads, checkpoints in a folder, the clocks of the machine |
//! | `client` | a client from outside; with the session and the inbox that the handle of a replica shares with it |
//! | `driver` | the future of a replica, its handle, its figures |
//! | `backup` | a state as a file |
//! | `testing` | a cluster in memory |
//!
//! # Features
//!
//! Each is on by default; the core, its driver, handles and clients are there without any.
//!
//! | feature | what it brings |
//! |---|---|
//! | `metrics` | figures of a replica through the facade of the crate `metrics`, and their list, [`METRICS`] |
//! | `tracing` | log lines and spans through the crate `tracing` |
//! | `msgpack` | [`codec`], so that the types of a state machine may be any that serde knows (without it they are [`Bytes`](bytes::Bytes)), [`Snapshot::of`] and [`Snapshot::read`]; [`wire`], the frames of transports; [`Client::status`] |
//!
//! # Where the rules are
//!
//! In `docs/` of the repository: `protocol.md` has the numbered rules with the reason for each, `messages.md` the messages and what must be durable before each
//! leaves, `hazards.md` the known ways to lose data and what guards against each, `glossary.md` the words. `rule 7.5 c` in a comment is part c of
//! rule 7.5 there. [`protocol`] is the protocol as a value without I/O, and [`protocol::turn`] how it is driven. The guide for users and operators is `book/`.

// Without a feature some values are computed and some items are there that only it uses: one text serves all builds.
#![cfg_attr(
    not(all(feature = "metrics", feature = "msgpack", feature = "tracing")),
    allow(dead_code, unused_imports, unused_variables, reason = "what uses it comes with a feature")
)]

#[cfg(all(test, not(all(feature = "metrics", feature = "msgpack", feature = "tracing"))))]
compile_error!("the tests of vsr need its default features");

mod adapters;
pub mod backup;
mod cause;
pub mod client;
pub mod codec;
pub mod config;
mod driver;
mod log;
pub mod protocol;
pub mod testing;
mod traits;
#[cfg(feature = "msgpack")]
pub mod wire;

/// A source of time: the trait, and the clocks of the machine.
pub mod clock {
    pub use crate::adapters::system_clock::SystemClock;
    pub use crate::traits::clock::Clock;
}

pub use adapters::system_clock::SystemClock;
pub use adapters::{checkpoints, memory, threaded};
pub use cause::Cause;
pub use client::session::SubmitError;
pub use client::{Client, ClientConfig, ClientRunner};
pub use config::{Config, ConfigError};
pub use driver::handle::{Handle, QueryError};
#[cfg(feature = "metrics")]
pub use driver::metrics::METRICS;
pub use driver::replica::{Replica, ReplicaError};
pub use driver::{handle, replica};
pub use protocol::{ApplyContext, Checksum, ClientId, ClusterId, Membership, ReplicaId, Timing};
pub use traits::clock::Clock;
pub use traits::network::Network;
pub use traits::state_machine::{QueryContext, RestoreError, Snapshot, StateMachine};
pub use traits::storage::Storage;
pub use traits::{network, state_machine, storage};
