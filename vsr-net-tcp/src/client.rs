//! The transport of a client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use metrics::counter;
use tokio::task::JoinSet;
use vsr::wire::{Limits, encode};
use vsr::{Arrival, ClientId, ClusterId, Envelope, Network, NetworkError, Peer, ReplicaId};

use crate::connection::run;
use crate::dial::{Pause, dial, note, resolve};
use crate::handshake::{Hello, Speaker};
use crate::mailbox::Mailbox;
use crate::options::{TcpError, TcpOptions};
use crate::queue::Queue;

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
    /// A [`TcpError`]; that a replica cannot be reached is none.
    pub async fn connect<A: Into<String>>(
        cluster: u128,
        client: ClientId,
        addresses: impl IntoIterator<Item = A>,
        options: TcpOptions,
    ) -> Result<TcpClient, TcpError> {
        tokio::runtime::Handle::try_current().map_err(|_| TcpError::NoRuntime)?;
        let shared = Arc::new(Shared {
            cluster: ClusterId(cluster),
            client,
            mailbox: Mailbox::new(options.inbox_bytes_max),
            options,
            links: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for (id, address) in addresses.into_iter().enumerate() {
            let address = address.into();
            resolve(&address, shared.options.allow_insecure).await?;
            tasks.spawn(keep_connected(shared.clone(), ReplicaId(id as u8), address));
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

    async fn recv(&self) -> Result<Vec<Arrival>, NetworkError> {
        self.shared.mailbox.recv().await
    }
}

async fn keep_connected(shared: Arc<Shared>, to: ReplicaId, address: String) {
    let mut pause = Pause::new(&shared.options, shared.client.0 as u64 ^ u64::from(to.0));
    let peer = Peer::Replica(to);
    loop {
        let hello = Hello { cluster: shared.cluster, from: Speaker::Client { id: shared.client }, to };
        match dial(&shared.options, &address, hello).await {
            Ok((stream, _)) => {
                pause.reset();
                let queue = Arc::new(Queue::new(shared.options.queue_bytes_max));
                shared.links().insert(to, queue.clone());
                shared.mailbox.hint(Arrival::PeerUp(peer));
                run(stream, peer, queue, &shared.mailbox, &shared.options, Limits::of_client()).await;
                shared.links().remove(&to);
                shared.mailbox.hint(Arrival::PeerDown { peer, refused: false });
            }
            Err(error) => {
                note(&error);
                shared.mailbox.hint(Arrival::PeerDown { peer, refused: error.is_refused_connection() });
                pause.after(&error).await;
            }
        }
    }
}
