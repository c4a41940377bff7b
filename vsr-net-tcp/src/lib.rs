//! TCP transport for `vsr`: one ordered connection for each pair of replicas, connections for clients, and a
//! small HTTP endpoint for metrics.
//!
//! [`TcpNetwork`] is the [`Network`](vsr::Network) of a replica, [`TcpClient`] that of a [`vsr::Client`], [`MetricsServer`] serves the
//! metrics of the process. All three need a tokio runtime around them; the replica itself runs on any executor.
//!
//! - [In a replica](#in-a-replica), [in a client](#in-a-client)
//! - [What it guarantees](#what-it-guarantees), and [what it does not](#what-it-does-not-guarantee)
//! - [Connections](#connections), [options](#options), [memory](#memory)
//! - [Errors, and what an operator does](#errors-and-what-an-operator-does), [metrics](#metrics), [format](#format)
//!
//! # In a replica
//!
//! ```no_run
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
//! use vsr::{ClusterId, Config, Replica, ReplicaId};
//! use vsr_net_tcp::{TcpNetwork, TcpOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The same list at every replica: member 0 is the first one. This is replica 1, and it listens on its own address.
//! let config = Config::new(ClusterId(7), ReplicaId(1), ["10.0.0.1:4000", "10.0.0.2:4000", "10.0.0.3:4000"])?;
//! # let storage = vsr::memory::MemoryStorage::format(&config);
//! let options = TcpOptions::default().with(|options| options.allow_insecure = true); // a trusted network
//! let network = TcpNetwork::bind_with(&config, options).await?; // `bind` for loopback
//! let (replica, counter) =
//!     Replica::builder(config, Counter::default()).storage(storage).network(network).build()?;
//! tokio::spawn(replica.run()); // connections are made from here on
//! println!("{}", counter.submit(1).await?);
//! # Ok(())
//! # }
//! ```
//!
//! # In a client
//!
//! A client connects to every replica, in the order of their ids. Here with a cluster beside it, on ports that the system chooses:
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
//! use std::time::Duration;
//! use tokio::net::TcpListener;
//! use vsr::memory::MemoryStorage;
//! use vsr::{Client, ClientConfig, ClusterId, Config, Replica, ReplicaId, SystemClock};
//! use vsr_net_tcp::{TcpClient, TcpNetwork, TcpOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
//! for _ in 0..3 {
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     addresses.push(listener.local_addr()?.to_string());
//!     listeners.push(listener);
//! }
//! for (id, listener) in (0..).map(ReplicaId).zip(listeners) {
//!     let config = Config::new(ClusterId(7), id, addresses.clone())?;
//!     let storage = MemoryStorage::format(&config);
//!     let network = TcpNetwork::start(&config, TcpOptions::default(), listener)?; // one that is open already
//!     let builder = Replica::builder(config, Counter::default()).storage(storage);
//!     let (replica, _handle) = builder.network(network).build()?;
//!     tokio::spawn(replica.run());
//! }
//!
//! let config = ClientConfig::new(3);
//! let network = TcpClient::connect(ClusterId(7), config.id, addresses, TcpOptions::default()).await?;
//! let (client, runner) = Client::<Counter>::new(config, network, SystemClock::new());
//! tokio::spawn(runner.run());
//! let reply = client.submit_within(5, Duration::from_secs(30)).await?;
//! assert_eq!(reply.value, 5);
//! # Ok(())
//! # }
//! ```
//!
//! The guide's chapter "A client from outside" (`book/src/client.md`) says what a client may rely on.
//!
//! # What it guarantees
//!
//! The clauses of [`Network`](vsr::Network)'s contract, as they hold here (`tests/conformance.rs` runs the suite against it):
//!
//! | clause | here |
//! |---|---|
//! | 1. sending never waits | `send` puts frames into the queue of each connection, and drops what does not fit, or has no connection |
//! | 2. `recv` is cancel-safe | what has arrived stays in the mailbox until a call returns it |
//! | 3. nothing is invented | a frame has checksums of all its bytes; its sender is the peer that the handshake of its connection has named |
//! | 4. strangers do no harm | what does not pass the handshake delivers nothing; its bytes are bounded, and counted |
//! | 5. memory is bounded | see [memory](#memory) |
//! | 6. hints | [`PeerUp`](vsr::network::NetworkEvent::PeerUp) after the handshake, [`PeerDown`](vsr::network::NetworkEvent::PeerDown) at the end of a connection and when a peer that refused does not answer any more, [`Refused`](vsr::network::NetworkEvent::Refused) with the reason of the other side |
//! | 7. who comes back is reached again | connections are made again for as long as the transport lives, with back-off and jitter |
//! | 8. clients are answered | a replica answers over the connection that the client has made to it |
//! | 9. a message to an unknown peer does no harm | it is dropped and counted |
//! | 10. what is too large is dropped alone | the frame is passed over, and the connection goes on |
//!
//! On one connection messages arrive in the order in which they were sent, each once. Those of a connection that broke may be lost. The protocol
//! relies on neither order nor number.
//!
//! # What it does not guarantee
//!
//! Nothing is encrypted or authenticated. Checksums find damage, not forgery: a program that reaches a port can pretend to be a replica. Addresses other than
//! loopback are refused unless [`TcpOptions::allow_insecure`] says that the network is trusted.
//!
//! # Connections
//!
//! - **One for each pair of replicas**: the later member connects to the earlier one. A client connects to every replica.
//! - **A name may stand for several addresses.** A replica listens on each that its machine has; the other side tries each, and looks the
//!   name up again at each attempt.
//! - **The handshake** compares the version of the format, cluster, replica id, and the checksum of the membership: members, quorums and constants. It tells the
//!   other side the id of the disk, the number of starts, and a number that each process draws.
//! - **One process for each replica id.** While one is connected, a second one is refused, whichever of the two started first ([`Rejection`] says
//!   why: another disk, an older copy, a second process). When the first one is gone, the other is let in.
//! - **A silent connection** is given up after four times [`TcpOptions::keep_alive`].
//! - **After a failure** the next attempt comes after a pause that doubles up to [`TcpOptions::reconnect_max`]; after a refusal that an operator has to
//!   resolve, a second later than that.
//!
//! # Options
//!
//! Fields of [`TcpOptions`]; each is checked by [`TcpOptions::validate`].
//!
//! | field | unit | default | range |
//! |---|---|---|---|
//! | `queue_bytes_max` | bytes, each connection | 64 MiB | at least 64 KiB, and 2 MiB more than the longest request, reply, answer or op |
//! | `clients_queue_bytes_max` | bytes, all clients | 512 MiB | as above |
//! | `clients_max` | connections | 1,024 | 0: no client is served |
//! | `inbox_bytes_max` | bytes, all arrivals | 64 MiB | at least 64 KiB |
//! | `receive_bytes_max` | bytes, messages that have arrived in part | 128 MiB | at least 64 KiB |
//! | `keep_alive` | time | 500 ms | 1 ms to 1 h |
//! | `handshake` | time | 2 s | 1 ms to 1 h |
//! | `reconnect_min` | time | 10 ms | 1 ms to 1 h |
//! | `reconnect_max` | time | 300 ms | `reconnect_min` to 1 h |
//! | `allow_insecure` | | `false` | |
//!
//! Four times `keep_alive` is how long the replica id of a machine that is gone stays in use at its peers: a start of that replica from
//! another machine is refused until then.
//!
//! # Memory
//!
//! Three places hold bytes, and each has a bound: what waits to be sent, what has arrived and was not taken yet, and what has arrived in part.
//! When the first is full the newest messages are dropped; when one of the others is, connections are not read, so that the other side's queue fills. A quarter
//! of the room for partial messages is for clients: whatever strangers begin to send, replicas get through.
//!
//! # Errors, and what an operator does
//!
//! A [`TcpError`] says why the transport cannot start. Once it runs it does not fail: what goes wrong is reported as a hint, counted, and logged when it
//! begins and when its reason changes.
//!
//! | error | what to do |
//! |---|---|
//! | [`Listen`](TcpError::Listen) | end the other process on this port (most likely one of this replica), or correct the replica's own address |
//! | [`Address`](TcpError::Address), [`Addresses`](TcpError::Addresses), [`Duplicate`](TcpError::Duplicate) | write each replica's address once, as host:port |
//! | [`NotLoopback`](TcpError::NotLoopback) | use a trusted network, and say so |
//! | [`NotAMember`](TcpError::NotAMember), [`Config`](TcpError::Config), [`Option`](TcpError::Option) | correct the configuration |
//! | [`NoRuntime`](TcpError::NoRuntime) | call it from within a tokio runtime |
//!
//! A connection that is refused has a [`Rejection`] with its cure in words. Both ends log it; the refused replica shows it in
//! [`ReplicaStatus::refused_by`](vsr::handle::ReplicaStatus::refused_by), a client in [`Client::refused_by`](vsr::Client::refused_by). Most likely a copy of a folder runs elsewhere, or the
//! addresses are those of another cluster.
//!
//! # Metrics
//!
//! [`METRICS`] lists those of this crate, `vsr::METRICS` those of the replica. [`MetricsServer`] serves both, for Prometheus, as `GET /metrics`. It is started first: a
//! metric that was looked up before the recorder was installed goes nowhere. It comes with the feature `metrics-server`, which is on by default.
//!
//! ```no_run
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let metrics = vsr_net_tcp::MetricsServer::start("127.0.0.1:9100".parse()?).await?;
//! println!("http://{}/metrics", metrics.address());
//! // … then the replica, as above. The server ends when it is dropped.
//! # Ok(())
//! # }
//! ```
//!
//! # Format
//!
//! A connection carries the frames of [`vsr::wire`]: a `Hello`, its answer, then messages and keep-alives. Byte by byte they are in the guide's chapter
//! "Formats" (`book/src/formats.md`).

mod client;
mod connection;
mod dial;
mod handshake;
mod listen;
mod mailbox;
#[cfg(feature = "metrics-server")]
mod metrics_server;
mod options;
mod queue;
mod receive;
mod replica;
mod shared;
mod told;

pub use client::TcpClient;
pub use handshake::Rejection;
#[cfg(feature = "metrics-server")]
pub use metrics_server::{MetricsServer, MetricsServerError};
pub use options::{TcpError, TcpOptions};
pub use replica::TcpNetwork;

/// Every metric of this crate: name, kind, meaning.
pub const METRICS: &[(&str, &str, &str)] = &[
    ("vsr_net_sent_bytes_total", "counter", "bytes written to connections"),
    ("vsr_net_received_bytes_total", "counter", "bytes read from connections"),
    (
        "vsr_net_dropped_total",
        "counter",
        "messages dropped before they were written, by `reason`: queue_full, not_connected",
    ),
    ("vsr_net_rejected_total", "counter", "connections refused at the handshake, by `reason`"),
    (
        "vsr_net_bad_frames_total",
        "counter",
        "frames passed over (too large, or of a kind that is not known), and connections closed for bytes that are no \
         frame, by `reason`",
    ),
    (
        "vsr_net_receiving_bytes",
        "gauge",
        "bytes set aside for long messages of which only a part has arrived, by `kind`: replica, client",
    ),
    ("vsr_net_connections", "gauge", "open connections, by `kind`: replica, client"),
];
