//! What the transport is told, and why it cannot start.

use std::net::SocketAddr;
use std::time::Duration;

use vsr::ReplicaId;

/// The options of the transport. Every field has a default.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// Bytes that may wait for one connection; beyond them the newest messages are dropped. Default 64 MiB. Not less
    /// than the longest message of the replica's configuration.
    pub queue_bytes_max: usize,
    /// Client connections at a time; further ones are refused. Default 1,024.
    pub clients_max: usize,
    /// Bytes of arrivals that may wait for the replica; beyond them connections are not read. Default 64 MiB.
    pub inbox_bytes_max: usize,
    /// After so long without anything else a keep-alive is sent; after four times as long without
    /// anything from the other side the connection is given up. Default 500 ms.
    pub keep_alive: Duration,
    /// How long a handshake, or an attempt to connect, may take. Default 2 s.
    pub handshake: Duration,
    /// The first pause before connecting again. It doubles up to `reconnect_max`, with jitter. Default 10 ms.
    pub reconnect_min: Duration,
    /// The longest pause. Default 300 ms.
    pub reconnect_max: Duration,
    /// Listen on, and connect to, addresses other than loopback although nothing is encrypted. Default
    /// false.
    pub allow_insecure: bool,
}

impl Default for TcpOptions {
    fn default() -> TcpOptions {
        TcpOptions {
            queue_bytes_max: 64 << 20,
            clients_max: 1024,
            inbox_bytes_max: 64 << 20,
            keep_alive: Duration::from_millis(500),
            handshake: Duration::from_secs(2),
            reconnect_min: Duration::from_millis(10),
            reconnect_max: Duration::from_millis(300),
            allow_insecure: false,
        }
    }
}

/// Why the transport cannot start. The operator has to act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TcpError {
    /// The replica is none of the members.
    #[error("replica {0} is none of the members")]
    NotAMember(ReplicaId),
    /// An address has no meaning here.
    #[error("the address {address:?} cannot be resolved: {error}; write host:port")]
    Address {
        /// As configured.
        address: String,
        /// The resolver's words.
        error: String,
    },
    /// An address that others can reach, without encryption.
    #[error("{0} is not a loopback address, and nothing is encrypted: set `allow_insecure` if the network is trusted")]
    NotLoopback(SocketAddr),
    /// The port is taken: most likely by another process of this replica.
    #[error("cannot listen on {address}: {error}; is this replica running already?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The operating system's words.
        error: std::io::Error,
    },
    /// The options do not fit the configuration of the replica.
    #[error(transparent)]
    Config(#[from] vsr::ConfigError),
    /// There is no tokio runtime.
    #[error("vsr-net-tcp needs a tokio runtime: call this from within one")]
    NoRuntime,
}
