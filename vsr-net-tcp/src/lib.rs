//! TCP transport for `vsr`: one ordered connection for each pair of replicas, connections for clients, and a
//! small HTTP endpoint for metrics.
//!
//! Connections begin with a handshake that checks protocol version, cluster, membership and replica id, and
//! lets in one process of each replica at a time; then they carry the frames of [`vsr::wire`]. What waits to be
//! sent, what has arrived and what has arrived in part is bounded: sending never waits, and drops what does not
//! fit. A broken connection, and a refused one, is reported as a hint, and made again with back-off and jitter.
//!
//! Nothing is encrypted or authenticated yet: addresses other than loopback are refused unless
//! [`TcpOptions::allow_insecure`] says that the network is trusted.
//!
//! The endpoint for metrics, `MetricsServer`, comes with the feature `metrics-server`, which is on by default.

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
