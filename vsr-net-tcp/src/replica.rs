//! The transport of a replica.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use metrics::{Counter, counter, gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use vsr::wire::{Limits, encode};
use vsr::{
    Arrival, Checksum, ClientId, ClusterId, Config, Envelope, Identity, Membership, Network, NetworkError, Peer,
    ReplicaId,
};

use crate::connection::run;
use crate::dial::{Pause, dial, note, resolve};
use crate::handshake::{Answer, HandshakeError, Hello, Rejection, Speaker, receive, send, within};
use crate::mailbox::Mailbox;
use crate::options::{TcpError, TcpOptions};
use crate::queue::Queue;

/// Handshakes at a time; whoever comes then waits to be accepted.
const HANDSHAKES_MAX: usize = 64;

/// TCP between replicas, and for the clients that connect to this one.
pub struct TcpNetwork {
    shared: Arc<Shared>,
    address: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
}

struct Shared {
    me: ReplicaId,
    cluster: ClusterId,
    membership: Membership,
    checksum: Checksum,
    options: TcpOptions,
    limits: Limits,
    mailbox: Mailbox,
    links: Mutex<Links>,
    identity: watch::Sender<Option<Identity>>,
    queue_full: Counter,
    not_connected: Counter,
}

#[derive(Default)]
struct Links {
    replicas: BTreeMap<ReplicaId, Arc<Queue>>,
    clients: BTreeMap<ClientId, Arc<Queue>>,
    /// The disks that were seen under each replica id, for as long as this process lives.
    known: BTreeMap<ReplicaId, Identity>,
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
        let me = config.replica;
        let member = config.membership.members.iter().find(|member| member.id == me);
        let address = resolve(&member.ok_or(TcpError::NotAMember(me))?.address, options.allow_insecure).await?;
        let listener = TcpListener::bind(address).await.map_err(|error| TcpError::Listen { address, error })?;
        TcpNetwork::start(config, options, listener)
    }

    /// Uses a listener that is open already, whatever its address is.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn start(config: &Config, options: TcpOptions, listener: TcpListener) -> Result<TcpNetwork, TcpError> {
        tokio::runtime::Handle::try_current().map_err(|_| TcpError::NoRuntime)?;
        config.check_transport("TcpOptions::queue_bytes_max", options.queue_bytes_max)?;
        let me = config.replica;
        let index = config.membership.index_of(me).ok_or(TcpError::NotAMember(me))?;
        let address = listener
            .local_addr()
            .map_err(|error| TcpError::Listen { address: SocketAddr::from(([127, 0, 0, 1], 0)), error })?;
        let dropped = |reason: &'static str| counter!("vsr_net_dropped_total", "reason" => reason);
        let shared = Arc::new(Shared {
            me,
            cluster: config.cluster,
            membership: config.membership.clone(),
            checksum: config.membership.checksum(),
            limits: Limits::of(&config.membership.constants),
            mailbox: Mailbox::new(options.inbox_bytes_max),
            options,
            links: Mutex::default(),
            identity: watch::Sender::new(None),
            queue_full: dropped("queue_full"),
            not_connected: dropped("not_connected"),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(shared.clone(), listener));
        // One connection for each pair: the later member makes it.
        for member in &config.membership.members[..index] {
            tasks.spawn(keep_connected(shared.clone(), member.id, member.address.clone()));
        }
        Ok(TcpNetwork { shared, address, tasks: Mutex::new(tasks) })
    }

    /// Where it listens.
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
                Peer::Replica(id) => links.replicas.get(&id),
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

    async fn recv(&self) -> Result<Vec<Arrival>, NetworkError> {
        self.shared.mailbox.recv().await
    }

    fn introduce(&self, identity: Identity) {
        self.shared.identity.send_replace(Some(identity));
    }

    /// The tasks have ended, the one that listens too: the port is free.
    async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the replica has read its disk.
    async fn speaker(&self) -> Speaker {
        let mut identity = self.identity.subscribe();
        // The sender lives in `self`.
        let known = identity.wait_for(Option::is_some).await.ok().and_then(|identity| *identity);
        let identity = known.unwrap_or(Identity { incarnation: vsr::Incarnation(0), starts: 0 });
        Speaker::Replica { id: self.me, membership: self.checksum, identity }
    }

    /// Whether the other side may be who it says.
    fn check(&self, speaker: &Speaker) -> Result<(), Rejection> {
        let Speaker::Replica { id, membership, identity } = *speaker else {
            let full = self.links().clients.len() >= self.options.clients_max;
            return if full { Err(Rejection::TooManyClients) } else { Ok(()) };
        };
        if id == self.me {
            return Err(Rejection::SameReplica);
        }
        if self.membership.index_of(id).is_none() {
            return Err(Rejection::NotAMember);
        }
        if membership != self.checksum {
            return Err(Rejection::Membership);
        }
        let mut links = self.links();
        let known = links.known.entry(id).or_insert(identity);
        if known.incarnation != identity.incarnation {
            return Err(Rejection::OtherIncarnation);
        }
        if identity.starts < known.starts {
            return Err(Rejection::OldCopy);
        }
        *known = identity;
        Ok(())
    }

    /// Runs a connection whose handshake is done, as the only one to its peer.
    async fn serve(&self, stream: TcpStream, peer: Peer) {
        let queue = Arc::new(Queue::new(self.options.queue_bytes_max));
        let kind = if matches!(peer, Peer::Replica(_)) { "replica" } else { "client" };
        {
            let mut links = self.links();
            let before = match peer {
                Peer::Replica(id) => links.replicas.insert(id, queue.clone()),
                Peer::Client(id) => links.clients.insert(id, queue.clone()),
            };
            if let Some(before) = before {
                before.close();
            }
        }
        gauge!("vsr_net_connections", "kind" => kind).increment(1.0);
        self.mailbox.hint(Arrival::PeerUp(peer));
        let guard = Guard { shared: self, peer, queue: queue.clone(), kind };
        run(stream, peer, queue, &self.mailbox, &self.options, self.limits).await;
        drop(guard);
    }
}

/// Takes a connection off the list when it has ended, or its task is dropped.
struct Guard<'a> {
    shared: &'a Shared,
    peer: Peer,
    queue: Arc<Queue>,
    kind: &'static str,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        gauge!("vsr_net_connections", "kind" => self.kind).decrement(1.0);
        let mut links = self.shared.links();
        let is_mine = |queue: Option<&Arc<Queue>>| queue.is_some_and(|queue| Arc::ptr_eq(queue, &self.queue));
        let was_mine = match self.peer {
            Peer::Replica(id) => is_mine(links.replicas.get(&id)) && links.replicas.remove(&id).is_some(),
            Peer::Client(id) => is_mine(links.clients.get(&id)) && links.clients.remove(&id).is_some(),
        };
        drop(links);
        if was_mine {
            self.shared.mailbox.hint(Arrival::PeerDown { peer: self.peer, refused: false });
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let handshakes = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: it passes.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = shared.clone();
        connections.spawn(async move {
            let mut stream = stream;
            let greeted = within(shared.options.handshake, answer(&shared, &mut stream)).await;
            drop(permit);
            match greeted {
                Ok(peer) => {
                    shared.serve(stream, peer).await;
                    if let Peer::Replica(id) = peer {
                        probe(&shared, id).await;
                    }
                }
                Err(error) => note(&error),
            }
        });
    }
}

/// The side that was connected to.
async fn answer(shared: &Shared, stream: &mut TcpStream) -> Result<Peer, HandshakeError> {
    let hello: Hello = receive(stream).await?;
    let checked = if hello.cluster != shared.cluster {
        Err(Rejection::Cluster(shared.cluster))
    } else if hello.to != shared.me {
        Err(Rejection::OtherReplica(shared.me))
    } else {
        shared.check(&hello.from)
    };
    match checked {
        Ok(()) => {
            send(stream, &Answer::Welcome(shared.speaker().await)).await?;
            Ok(hello.from.peer())
        }
        Err(rejection) => {
            send(stream, &Answer::Rejected(rejection)).await?;
            Err(HandshakeError::Refused(rejection))
        }
    }
}

/// Whether a peer whose connection broke is still there: only the side that connects would find out.
async fn probe(shared: &Shared, id: ReplicaId) {
    let Some(member) = shared.membership.members.iter().find(|member| member.id == id) else { return };
    let Ok(address) = resolve(&member.address, shared.options.allow_insecure).await else { return };
    let connecting = tokio::time::timeout(shared.options.handshake, TcpStream::connect(address));
    if connecting
        .await
        .is_ok_and(|connected| connected.is_err_and(|error| HandshakeError::Io(error).is_refused_connection()))
    {
        shared.mailbox.hint(Arrival::PeerDown { peer: Peer::Replica(id), refused: true });
    }
}

/// Connects to a peer, and again whenever the connection has ended.
async fn keep_connected(shared: Arc<Shared>, to: ReplicaId, address: String) {
    let mut pause = Pause::new(&shared.options, u64::from(shared.me.0) << 8 | u64::from(to.0));
    loop {
        let hello = Hello { cluster: shared.cluster, from: shared.speaker().await, to };
        let dialled = dial(&shared.options, &address, hello).await;
        let checked = dialled.and_then(|(stream, speaker)| match shared.check(&speaker) {
            Ok(()) => Ok(stream),
            Err(rejection) => Err(HandshakeError::Refused(rejection)),
        });
        match checked {
            Ok(stream) => {
                pause.reset();
                shared.serve(stream, Peer::Replica(to)).await;
            }
            Err(error) => {
                note(&error);
                if error.is_refused_connection() {
                    shared.mailbox.hint(Arrival::PeerDown { peer: Peer::Replica(to), refused: true });
                }
                pause.after(&error).await;
            }
        }
    }
}
