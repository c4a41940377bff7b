//! The options of the transport, and the errors of its start.

use std::net::SocketAddr;
use std::time::Duration;

use vsr::{Cause, ReplicaId};

/// The options of the transport. Every field has a default. Made by `TcpOptions::default()`, and changed field by field, or by
/// [`with`](TcpOptions::with); later versions have more fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Bytes that may wait for one connection; beyond them the newest messages are dropped. Default 64 MiB. Not less
    /// than the longest message of the replica's configuration. A connection for which nothing waits takes a message of
    /// any length.
    pub queue_bytes_max: usize,
    /// Bytes that may wait for all clients together, however many there are and whether they read or not.
    /// Default 512 MiB. What one of `clients_max` has a right to is kept free for each.
    pub clients_queue_bytes_max: usize,
    /// Client connections at a time; further ones are refused. Default 1,024; 0: no client is served.
    pub clients_max: usize,
    /// Bytes of arrivals that may wait for the replica; beyond them connections are not read. Default 64 MiB.
    pub inbox_bytes_max: usize,
    /// Bytes for messages of which only a part has arrived, of all connections together. A quarter is for
    /// clients, the rest for replicas: whatever strangers begin to send, replicas get through. A connection
    /// whose message finds no room is not read until there is some; a message that is longer than its share is
    /// taken when nothing else of its share is held. Default 128 MiB.
    pub receive_bytes_max: usize,
    /// After so long without anything else a keep-alive is sent; after four times as long without
    /// anything from the other side the connection is given up. Default 500 ms.
    pub keep_alive: Duration,
    /// How long a handshake, or an attempt to connect to one address, may take. Default 2 s.
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
            clients_queue_bytes_max: 512 << 20,
            clients_max: 1024,
            inbox_bytes_max: 64 << 20,
            receive_bytes_max: 128 << 20,
            keep_alive: Duration::from_millis(500),
            handshake: Duration::from_secs(2),
            reconnect_min: Duration::from_millis(10),
            reconnect_max: Duration::from_millis(300),
            allow_insecure: false,
        }
    }
}

const TIME_MIN: Duration = Duration::from_millis(1);
const TIME_MAX: Duration = Duration::from_secs(3600);
const BYTES_MIN: usize = 64 << 10;

impl TcpOptions {
    /// These options with a change: `TcpOptions::default().with(|options| options.clients_max = 0)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut TcpOptions)) -> TcpOptions {
        change(&mut self);
        self
    }

    /// Checks every field. Whatever starts with these options has called it.
    ///
    /// # Errors
    /// [`TcpError::Option`] for the first field that cannot work.
    pub fn validate(&self) -> Result<(), TcpError> {
        let TcpOptions { keep_alive, handshake, reconnect_min, reconnect_max, .. } = *self;
        let TcpOptions { queue_bytes_max, clients_queue_bytes_max, inbox_bytes_max, receive_bytes_max, .. } = *self;
        let times = [
            ("keep_alive", keep_alive),
            ("handshake", handshake),
            ("reconnect_min", reconnect_min),
            ("reconnect_max", reconnect_max),
        ];
        for (name, time) in times {
            if !(TIME_MIN..=TIME_MAX).contains(&time) {
                return Err(TcpError::Option { name, why: "1 ms to 1 hour" });
            }
        }
        if reconnect_max < reconnect_min {
            return Err(TcpError::Option { name: "reconnect_max", why: "not less than reconnect_min" });
        }
        let bounds = [
            ("queue_bytes_max", queue_bytes_max),
            ("clients_queue_bytes_max", clients_queue_bytes_max),
            ("inbox_bytes_max", inbox_bytes_max),
            ("receive_bytes_max", receive_bytes_max),
        ];
        for (name, bytes) in bounds {
            if bytes < BYTES_MIN {
                return Err(TcpError::Option { name, why: "at least 64 KiB" });
            }
        }
        Ok(())
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
    #[error("the address {address:?} cannot be used: {cause}; write host:port, with a name that is known")]
    Address {
        /// The configured address.
        address: String,
        /// What is wrong with it, or what the resolver said.
        #[source]
        cause: Cause,
    },
    /// One address stands for two replicas.
    #[error("the address {0:?} is listed twice: each replica has an address of its own")]
    Duplicate(String),
    /// A client needs between 1 and 255 replicas to connect to.
    #[error("a client needs the addresses of 1 to 255 replicas, not {0}: list each replica of the cluster once")]
    Addresses(usize),
    /// A field of [`TcpOptions`] is out of its range.
    #[error("TcpOptions::{name} is out of its range: {why}")]
    Option {
        /// The name of the field.
        name: &'static str,
        /// The range that it has to be in.
        why: &'static str,
    },
    /// An address that others can reach, without encryption.
    #[error("{0} is not a loopback address, and nothing is encrypted: set `allow_insecure` if the network is trusted")]
    NotLoopback(SocketAddr),
    /// The operating system does not let us listen; most likely the port is taken by another process of this
    /// replica.
    #[error("cannot listen on {address}: {error}; {}", way_on(.error))]
    Listen {
        /// The address to listen on.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        error: std::io::Error,
    },
    /// The options do not fit the configuration of the replica.
    #[error(transparent)]
    Config(#[from] vsr::ConfigError),
    /// There is no tokio runtime.
    #[error("vsr-net-tcp needs a tokio runtime: call this from within one")]
    NoRuntime,
}

/// What an operator does about it.
pub(crate) fn way_on(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    match error.kind() {
        AddrInUse => "is this replica running already?",
        AddrNotAvailable => "the address of a replica has to be one of its own machine's",
        PermissionDenied => "choose a port that this user may listen on",
        _ => "if too many files are open, raise `ulimit -n`",
    }
}
