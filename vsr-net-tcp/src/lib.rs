//! TCP transport for `vsr`: one ordered connection for each pair of replicas, connections for clients, and a
//! small HTTP endpoint for metrics.
//!
//! Connections begin with a handshake that checks protocol version, cluster, membership, replica id and
//! incarnation; then they carry the frames of [`vsr::wire`]. Queues are bounded and drop what does not fit:
//! sending never waits. A broken connection is reported as a hint, and made again with back-off and jitter.
//!
//! Nothing is encrypted or authenticated yet: addresses other than loopback are refused unless
//! [`TcpOptions::allow_insecure`] says that the network is trusted.

mod client;
mod connection;
mod dial;
mod handshake;
mod mailbox;
mod metrics_server;
mod options;
mod queue;
mod replica;

pub use client::TcpClient;
pub use handshake::Rejection;
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
        "frames over the limits, and connections closed for bytes that are no frame, by `reason`",
    ),
    ("vsr_net_connections", "gauge", "open connections, by `kind`: replica, client"),
];
