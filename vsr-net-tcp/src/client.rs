//! The transport of a client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use metrics::counter;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use vsr::network::{NetworkError, NetworkEvent};
use vsr::protocol::{Envelope, Peer};
use vsr::wire::{Limits, encode};
use vsr::{ClientId, ClusterId, Network, ReplicaId};

use crate::connection::run;
use crate::dial::{Backoff, check_distinct, check_peers, dial, log_failure, resolve};
use crate::handshake::{HandshakeError, Hello, Speaker};
use crate::mailbox::Mailbox;
use crate::options::{TcpError, TcpOptions};
use crate::queue::Queue;
use crate::receive::Room;
use crate::told::Told;

/// TCP from a client to every replica of a cluster. Give it to [`vsr::Client::new`], with the id that stands
/// in the client's configuration.
pub struct TcpClient {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    cluster: ClusterId,
    client: ClientId,
    options: TcpOptions,
    mailbox: Mailbox,
    room: Room,
    links: Mutex<BTreeMap<ReplicaId, Arc<Queue>>>,
}

impl std::fmt::Debug for TcpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpClient {:?}", self.shared.client)
    }
}

impl TcpClient {
    /// Connects to the replicas at these addresses, in the order of their ids, and goes on connecting as
    /// long as it lives. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// A [`TcpError`]; that a replica cannot be reached, or its name is not known now, is none.
    pub async fn connect<A: Into<String>>(
        cluster: ClusterId,
        client: ClientId,
        addresses: impl IntoIterator<Item = A>,
        options: TcpOptions,
    ) -> Result<TcpClient, TcpError> {
        tokio::runtime::Handle::try_current().map_err(|_| TcpError::NoRuntime)?;
        options.validate()?;
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        let count = u8::try_from(addresses.len()).ok().filter(|count| *count > 0);
        let count = count.ok_or(TcpError::Addresses(addresses.len()))?;
        check_peers(addresses.iter().map(String::as_str))?;
        check_distinct(addresses.iter().map(String::as_str))?;
        let looked_up =
            addresses.iter().map(|address| timeout(options.handshake, resolve(address, options.allow_insecure)));
        for found in futures::future::join_all(looked_up).await {
            // A name that is not known is looked up again at each attempt.
            if let Ok(Err(error @ TcpError::NotLoopback(_))) = found {
                return Err(error);
            }
        }
        let shared = Arc::new(Shared {
            cluster,
            client,
            mailbox: Mailbox::new(options.inbox_bytes_max),
            room: Room::new(options.receive_bytes_max),
            options,
            links: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for (id, address) in (0..count).zip(addresses) {
            tasks.spawn(keep_connected(shared.clone(), ReplicaId(id), address));
        }
        Ok(TcpClient { shared, _tasks: tasks })
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Arc<Queue>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Network for TcpClient {
    fn send(&self, batch: &mut Vec<Envelope>) {
        for Envelope { to, message } in batch.drain(..) {
            let Peer::Replica(id) = to else { continue };
            let queue = self.shared.links().get(&id).cloned();
            let Some(queue) = queue else { continue };
            if encode(&message).is_ok_and(|frame| queue.push(frame)) {
                queue.notify();
            } else {
                counter!("vsr_net_dropped_total", "reason" => "queue_full").increment(1);
            }
        }
    }

    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
        self.shared.mailbox.recv().await
    }
}

async fn keep_connected(shared: Arc<Shared>, to: ReplicaId, address: String) {
    let mut backoff = Backoff::new(&shared.options, shared.client.0 as u64 ^ u64::from(to.0));
    let mut told = Told::new();
    let peer = Peer::Replica(to);
    let who = format!("replica {} at {address}", to.0);
    loop {
        let hello = Hello { cluster: shared.cluster, from: Speaker::Client { id: shared.client }, to };
        match dial(&shared.options, &address, hello).await {
            Ok((stream, _)) => {
                told.over(&());
                let since = Instant::now();
                let queue = Arc::new(Queue::new(shared.options.queue_bytes_max, None));
                shared.links().insert(to, queue.clone());
                shared.mailbox.hint(NetworkEvent::PeerUp(peer));
                let limits = Limits::of_client();
                run(stream, peer, queue, &shared.mailbox, &shared.room, &shared.options, limits).await;
                shared.links().remove(&to);
                shared.mailbox.hint(NetworkEvent::PeerDown { peer, refused: false });
                backoff.after_connection(since.elapsed()).await;
            }
            Err(error) => {
                let is_new = told.is_new((), &error.to_string());
                log_failure(&who, &error, is_new);
                shared.mailbox.hint(match &error {
                    HandshakeError::Rejected(rejection) => NetworkEvent::Refused { by: to, why: rejection.to_string() },
                    _ => NetworkEvent::PeerDown { peer, refused: error.is_refused_connection() },
                });
                backoff.after(&error).await;
            }
        }
    }
}
