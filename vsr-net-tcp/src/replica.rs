//! The transport of a replica.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use metrics::counter;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use vsr::network::{Identity, NetworkError, NetworkEvent};
use vsr::protocol::{Envelope, Peer};
use vsr::wire::{Limits, encode};
use vsr::{Cause, Config, Network, ReplicaId};

use crate::dial::{Backoff, check_distinct, check_peers, dial, log_failure, resolve};
use crate::handshake::{HandshakeError, Hello, process_number};
use crate::listen::{accept, listen};
use crate::mailbox::Mailbox;
use crate::options::{TcpError, TcpOptions};
use crate::queue::{Queue, Total};
use crate::receive::Room;
use crate::shared::Shared;
use crate::told::Told;

/// TCP between replicas, and for the clients that connect to this one.
pub struct TcpNetwork {
    shared: Arc<Shared>,
    address: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for TcpNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpNetwork of replica {} on {}", self.shared.me, self.address)
    }
}

impl TcpNetwork {
    /// Listens on the replica's address, with default options. Needs a tokio runtime around it; connections
    /// are made once the replica runs.
    ///
    /// # Errors
    /// A [`TcpError`] that says what to change.
    pub async fn bind(config: &Config) -> Result<TcpNetwork, TcpError> {
        TcpNetwork::bind_with(config, TcpOptions::default()).await
    }

    /// As [`bind`](Self::bind), with options.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with(config: &Config, options: TcpOptions) -> Result<TcpNetwork, TcpError> {
        tokio::runtime::Handle::try_current().map_err(|_| TcpError::NoRuntime)?;
        options.validate()?;
        let me = config.replica;
        let member = config.membership.members.iter().find(|member| member.id == me);
        let name = &member.ok_or(TcpError::NotAMember(me))?.address;
        let mut listeners = Vec::new();
        let mut failed = None;
        for address in resolve(name, options.allow_insecure).await? {
            if address.port() == 0 {
                let cause = Cause::new("no peer can connect to port 0");
                return Err(TcpError::Address { address: name.clone(), cause });
            }
            match listen(address) {
                Ok(listener) => listeners.push(listener),
                Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => {
                    return Err(TcpError::Listen { address, error });
                }
                // A name may stand for addresses that this machine does not have: IPv6 is switched off often.
                Err(error) => failed = Some(TcpError::Listen { address, error }),
            }
        }
        match failed {
            Some(failed) if listeners.is_empty() => Err(failed),
            _ => TcpNetwork::start_on(config, options, listeners),
        }
    }

    /// Uses a listener that is open already, whatever its address is.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn start(config: &Config, options: TcpOptions, listener: TcpListener) -> Result<TcpNetwork, TcpError> {
        TcpNetwork::start_on(config, options, vec![listener])
    }

    fn start_on(config: &Config, options: TcpOptions, listeners: Vec<TcpListener>) -> Result<TcpNetwork, TcpError> {
        tokio::runtime::Handle::try_current().map_err(|_| TcpError::NoRuntime)?;
        options.validate()?;
        config.check_transport("TcpOptions::queue_bytes_max", options.queue_bytes_max)?;
        config.check_transport("TcpOptions::clients_queue_bytes_max", options.clients_queue_bytes_max)?;
        let me = config.replica;
        let members = &config.membership.members;
        let index = config.membership.index_of(me).ok_or(TcpError::NotAMember(me))?;
        check_distinct(members.iter().map(|member| member.address.as_str()))?;
        check_peers(members.iter().filter(|member| member.id != me).map(|member| member.address.as_str()))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = listeners.first().map_or(Ok(nowhere), TcpListener::local_addr);
        let address = address.map_err(|error| TcpError::Listen { address: nowhere, error })?;
        let dropped = |reason: &'static str| counter!("vsr_net_dropped_total", "reason" => reason);
        let shared = Arc::new(Shared {
            me,
            cluster: config.cluster,
            membership: config.membership.clone(),
            checksum: config.membership.checksum(),
            process: process_number(),
            limits: Limits::of(&config.membership.constants),
            mailbox: Mailbox::new(options.inbox_bytes_max),
            room: Room::new(options.receive_bytes_max),
            clients_total: Total::new(options.clients_queue_bytes_max, options.clients_max),
            options,
            links: Mutex::default(),
            told: Mutex::new(Told::new()),
            identity: watch::Sender::new(None),
            queue_full: dropped("queue_full"),
            not_connected: dropped("not_connected"),
        });
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(accept(shared.clone(), listener));
        }
        // One connection for each pair: the later member makes it.
        for member in &members[..index] {
            tasks.spawn(keep_connected(shared.clone(), member.id, member.address.clone()));
        }
        Ok(TcpNetwork { shared, address, tasks: Mutex::new(tasks) })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[async_trait]
impl Network for TcpNetwork {
    fn send(&self, batch: &mut Vec<Envelope>) {
        if batch.is_empty() {
            return;
        }
        let shared = &*self.shared;
        let links = shared.links();
        let mut pushed: Vec<&Arc<Queue>> = Vec::new();
        for Envelope { to, message } in batch.drain(..) {
            let queue = match to {
                Peer::Replica(id) => links.replicas.get(&id).map(|link| &link.queue),
                Peer::Client(id) => links.clients.get(&id),
            };
            let Some(queue) = queue else {
                shared.not_connected.increment(1);
                continue;
            };
            if encode(&message).is_ok_and(|frame| queue.push(frame)) {
                if !pushed.iter().any(|known| Arc::ptr_eq(known, queue)) {
                    pushed.push(queue);
                }
            } else {
                shared.queue_full.increment(1);
            }
        }
        for queue in pushed {
            queue.notify();
        }
    }

    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
        self.shared.mailbox.recv().await
    }

    fn set_identity(&self, identity: Identity) {
        self.shared.identity.send_replace(Some(identity));
    }

    /// The tasks have ended, the one that listens too: the port is free.
    async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

/// What the replica is told of an attempt to connect that has failed. `is_new`: it did not fail in these words before;
/// `was_rejected`: the peer refused the attempt before it.
fn after_failure(to: ReplicaId, error: &HandshakeError, is_new: bool, was_rejected: bool) -> Option<NetworkEvent> {
    if let HandshakeError::Rejected(why) = error {
        return is_new.then(|| NetworkEvent::Refused { by: to, why: why.to_string() });
    }
    let refused = error.is_refused_connection();
    // A peer that does not answer any more refuses nothing.
    (refused || was_rejected).then_some(NetworkEvent::PeerDown { peer: Peer::Replica(to), refused })
}

/// Connects to a peer, and again whenever the connection has ended.
async fn keep_connected(shared: Arc<Shared>, to: ReplicaId, address: String) {
    let mut backoff = Backoff::new(&shared.options, u64::from(shared.me.0) << 8 | u64::from(to.0));
    let mut told = Told::new();
    let who = format!("replica {} at {address}", to.0);
    // Whether the peer refused the last attempt.
    let mut was_rejected = false;
    loop {
        let hello = Hello { cluster: shared.cluster, from: shared.speaker().await, to };
        let dialled = dial(&shared.options, &address, hello).await;
        let admitted = dialled.and_then(|(stream, speaker)| {
            let admitted = shared.check(&speaker).and_then(|()| shared.admit(&speaker));
            admitted.map(|guard| (stream, guard)).map_err(HandshakeError::Refused)
        });
        match admitted {
            Ok((stream, guard)) => {
                told.over(&());
                was_rejected = false;
                let since = Instant::now();
                shared.serve(stream, guard).await;
                backoff.after_connection(since.elapsed()).await;
            }
            Err(error) => {
                let is_new = told.is_new((), &error.to_string());
                log_failure(&who, &error, is_new);
                if let Some(event) = after_failure(to, &error, is_new, was_rejected) {
                    shared.mailbox.hint(event);
                }
                was_rejected = matches!(error, HandshakeError::Rejected(_));
                backoff.after(&error).await;
            }
        }
    }
}
