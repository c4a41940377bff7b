//! The conformance suite over sockets of this machine.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use vsr::protocol::{Message, Peer};
use vsr::{ClientId, ClusterId, Config, Network, ReplicaId};
use vsr_net_tcp::{TcpClient, TcpError, TcpNetwork, TcpOptions};
use vsr_sim::conformance::PATIENCE;
use vsr_sim::conformance::network::{Networks, REPLICAS};

const CLUSTER: ClusterId = ClusterId(7);
const OTHER_CLUSTER: ClusterId = ClusterId(8);

/// A cluster whose replicas listen on ports that the system has chosen.
struct Tcp {
    runtime: Runtime,
    addresses: Vec<String>,
    /// Held for each replica until its first start.
    listeners: Vec<Option<TcpListener>>,
}

fn tcp() -> Tcp {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let listeners: Vec<TcpListener> = (0..REPLICAS).map(|_| bind()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().expect("an address").to_string()).collect();
    Tcp { runtime, addresses, listeners: listeners.into_iter().map(Some).collect() }
}

fn options() -> TcpOptions {
    TcpOptions::default().with(|options| {
        options.inbox_bytes_max = 8 << 20;
        // No connection is given up because the machine is busy.
        options.keep_alive = Duration::from_secs(10);
        options.handshake = Duration::from_millis(500);
        options.reconnect_max = Duration::from_millis(50);
    })
}

impl Tcp {
    fn start(&mut self, cluster: ClusterId, id: ReplicaId) -> Arc<dyn Network> {
        let config = Config::new(cluster, id, self.addresses.iter().cloned()).expect("a configuration");
        let listener = self.listeners[usize::from(id.0)].take();
        let network = self.block_on(async {
            if let Some(listener) = listener {
                return TcpNetwork::start(&config, options(), listener).expect("a network");
            }
            loop {
                match TcpNetwork::bind_with(&config, options()).await {
                    Ok(network) => return network,
                    // The tasks of the life before have not all ended yet.
                    Err(TcpError::Listen { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        Arc::new(network)
    }

    fn connect(&mut self, cluster: ClusterId, id: ClientId) -> Arc<dyn Network> {
        let client = TcpClient::connect(cluster, id, self.addresses.clone(), options());
        Arc::new(self.block_on(client).expect("a client"))
    }
}

impl Networks for Tcp {
    fn replica(&mut self, id: ReplicaId) -> Arc<dyn Network> {
        self.start(CLUSTER, id)
    }

    fn client(&mut self, id: ClientId) -> Arc<dyn Network> {
        self.connect(CLUSTER, id)
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        let bounded = async { tokio::time::timeout(PATIENCE, future).await };
        self.runtime.block_on(bounded).expect("something happens in time")
    }

    /// Far more than the queue of the one, the inbox of the other and the sockets between them hold.
    fn flood(&mut self) -> Option<(u64, usize)> {
        Some((2000, 100_000))
    }

    fn oversized(&mut self) -> Option<Message> {
        Some(Message::Query { client: ClientId(1), nonce: 1, query: Bytes::from(vec![1; 20 << 20]) })
    }

    fn garbage(&mut self, to: ReplicaId, bytes: &[u8]) -> bool {
        let mut stream = TcpStream::connect(&self.addresses[usize::from(to.0)]).expect("a connection");
        // It may be closed before all of it was written.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        true
    }

    fn foreign(&mut self, name: Peer) -> Option<Arc<dyn Network>> {
        Some(match name {
            Peer::Replica(id) => self.start(OTHER_CLUSTER, id),
            Peer::Client(id) => self.connect(OTHER_CLUSTER, id),
        })
    }
}

vsr_sim::network_conformance!(tcp(), reliable, hints, bounded, oversized, garbage, foreign);
