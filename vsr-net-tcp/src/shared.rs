//! What the tasks of a replica's transport share: its options, its open connections, and who may have one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, gauge};
use tokio::net::TcpStream;
use tokio::sync::watch;
use vsr::network::{Identity, NetworkEvent};
use vsr::protocol::Peer;
use vsr::wire::Limits;
use vsr::{Checksum, ClientId, ClusterId, Membership, ReplicaId};

use crate::connection::run;
use crate::handshake::{Rejection, Speaker};
use crate::mailbox::Mailbox;
use crate::options::TcpOptions;
use crate::queue::{Queue, Total};
use crate::receive::{Room, kind};
use crate::told::Told;

/// The subject of a log line: each replica is one; clients, and peers without an identity, are one together for each reason, as those of
/// one machine are many.
type Whom = (IpAddr, Result<ReplicaId, &'static str>);

pub(crate) struct Shared {
    pub(crate) me: ReplicaId,
    pub(crate) cluster: ClusterId,
    pub(crate) membership: Membership,
    pub(crate) options: TcpOptions,
    pub(crate) mailbox: Mailbox,
    pub(crate) checksum: Checksum,
    pub(crate) process: u64,
    pub(crate) limits: Limits,
    pub(crate) room: Room,
    pub(crate) clients_total: Arc<Total>,
    pub(crate) links: Mutex<Links>,
    /// What was told of those that connect to this replica.
    pub(crate) told: Mutex<Told<Whom>>,
    pub(crate) identity: watch::Sender<Option<Identity>>,
    pub(crate) queue_full: Counter,
    pub(crate) not_connected: Counter,
}

/// The connections that are open now. Nothing is remembered of those that have ended: a wrong one would be
/// refused until the process ends, and a restart would forget what must not be forgotten.
#[derive(Default)]
pub(crate) struct Links {
    pub(crate) replicas: BTreeMap<ReplicaId, ReplicaLink>,
    pub(crate) clients: BTreeMap<ClientId, Arc<Queue>>,
}

pub(crate) struct ReplicaLink {
    pub(crate) queue: Arc<Queue>,
    identity: Identity,
    process: u64,
}

impl Links {
    /// Whether a process may have the connection of its replica id: not while another process has it. The one
    /// that is connected was here first, and is alive: a connection whose other end is gone is closed by its
    /// operating system, or given up after some silence. Two processes of one id would acknowledge and vote twice.
    fn check(&self, id: ReplicaId, identity: Identity, process: u64) -> Result<(), Rejection> {
        let Some(link) = self.replicas.get(&id).filter(|link| link.process != process) else { return Ok(()) };
        link.queue.probe();
        Err(if identity.disk_id != link.identity.disk_id {
            Rejection::OtherIncarnation
        } else if identity.starts < link.identity.starts {
            Rejection::OldCopy
        } else {
            Rejection::AlreadyConnected
        })
    }
}

impl Shared {
    pub(crate) fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, Told<Whom>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the replica has read its disk.
    pub(crate) async fn speaker(&self) -> Speaker {
        let mut identity = self.identity.subscribe();
        // The sender lives in `self`.
        let known = identity.wait_for(Option::is_some).await.ok().and_then(|identity| *identity);
        let identity = known.unwrap_or(Identity::new(vsr::protocol::DiskId(0), 0));
        Speaker::Replica { id: self.me, membership: self.checksum, identity, process: self.process }
    }

    /// Whether the other side belongs to this cluster.
    pub(crate) fn check(&self, speaker: &Speaker) -> Result<(), Rejection> {
        let Speaker::Replica { id, membership, .. } = *speaker else { return Ok(()) };
        if id == self.me {
            return Err(Rejection::SameReplica);
        }
        if self.membership.index_of(id).is_none() {
            return Err(Rejection::NotAMember);
        }
        if membership != self.checksum {
            return Err(Rejection::Membership);
        }
        Ok(())
    }

    /// Gives the other side the connection of its id, if it may have it; an older one of the same process, or
    /// client, ends. Check and admission are one step.
    pub(crate) fn admit(&self, speaker: &Speaker) -> Result<Guard<'_>, Rejection> {
        let peer = speaker.peer();
        let mut links = self.links();
        let (queue, before) = match *speaker {
            Speaker::Replica { id, identity, process, .. } => {
                links.check(id, identity, process)?;
                let queue = Arc::new(Queue::new(self.options.queue_bytes_max, None));
                let link = ReplicaLink { queue: queue.clone(), identity, process };
                (queue, links.replicas.insert(id, link).map(|link| link.queue))
            }
            Speaker::Client { id } => {
                if links.clients.len() >= self.options.clients_max && !links.clients.contains_key(&id) {
                    return Err(Rejection::TooManyClients);
                }
                let total = Some(self.clients_total.clone());
                let queue = Arc::new(Queue::new(self.options.queue_bytes_max, total));
                (queue.clone(), links.clients.insert(id, queue))
            }
        };
        drop(links);
        if let Some(before) = before {
            before.close();
        }
        gauge!("vsr_net_connections", "kind" => kind(peer)).increment(1.0);
        Ok(Guard { shared: self, peer, queue })
    }

    /// Runs a connection whose handshake is done.
    pub(crate) async fn serve(&self, stream: TcpStream, guard: Guard<'_>) {
        let (peer, queue) = (guard.peer, guard.queue.clone());
        let limits = match peer {
            Peer::Replica(_) => self.limits,
            // Nothing that clients send has bodies.
            Peer::Client(_) => Limits { bodies_max: 0, ..self.limits },
        };
        self.mailbox.hint(NetworkEvent::PeerUp(peer));
        run(stream, peer, queue, &self.mailbox, &self.room, &self.options, limits).await;
        drop(guard);
    }
}

/// Takes a connection off the list when it has ended, or its task is dropped.
pub(crate) struct Guard<'a> {
    shared: &'a Shared,
    pub(crate) peer: Peer,
    queue: Arc<Queue>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        gauge!("vsr_net_connections", "kind" => kind(self.peer)).decrement(1.0);
        let mut links = self.shared.links();
        let is_mine = |queue: &Arc<Queue>| Arc::ptr_eq(queue, &self.queue);
        let was_mine = match self.peer {
            Peer::Replica(id) => {
                links.replicas.get(&id).is_some_and(|link| is_mine(&link.queue)) && links.replicas.remove(&id).is_some()
            }
            Peer::Client(id) => links.clients.get(&id).is_some_and(is_mine) && links.clients.remove(&id).is_some(),
        };
        drop(links);
        if was_mine {
            self.shared.mailbox.hint(NetworkEvent::PeerDown { peer: self.peer, refused: false });
        }
    }
}
