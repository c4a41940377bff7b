//! A replica as a process, and a client.

use std::path::Path;

use tokio::net::lookup_host;
use vsr::{Client, ClientConfig, Replica, ReplicaId, SystemClock};
use vsr_net_tcp::{MetricsServer, TcpClient, TcpNetwork, TcpOptions};

use crate::{App, ClusterConfig, Error};

fn options(config: &ClusterConfig) -> TcpOptions {
    TcpOptions { allow_insecure: config.allow_insecure, ..TcpOptions::default() }
}

/// Runs a replica until it is told to end, by Ctrl-C or SIGTERM.
pub(crate) async fn replica<A: App>(path: &Path, id: u8) -> Result<(), Error> {
    let cluster = ClusterConfig::read(path)?;
    let config = cluster.replica(id)?;
    // First of all: a second process of this replica ends here.
    let storage = cluster.open(id)?;
    // Before anything looks a metric up.
    let metrics = match cluster.metrics.get(usize::from(id)) {
        Some(address) => {
            let address = lookup_host(address).await?.next().ok_or("no such address for metrics")?;
            Some(MetricsServer::start(address).await?)
        }
        None => None,
    };
    let network = TcpNetwork::bind_with(&config, options(&cluster)).await?;
    let address = network.address();
    let (replica, handle) =
        Replica::builder(config, A::Machine::default()).storage(storage).network(network).build()?;
    let mut running = tokio::spawn(replica.run());
    println!("replica {id} listens on {address}");
    if let Some(metrics) = &metrics {
        println!("metrics http://{}/metrics", metrics.address());
    }
    println!("ready");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = &mut running => return Ok(ended??),
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    // Hands the primary role over first.
    handle.shutdown().await;
    Ok(running.await??)
}

/// A client of the whole cluster. Needs a tokio runtime around it.
///
/// # Errors
/// When an address has no meaning.
pub async fn connect<A: App>(config: &ClusterConfig) -> Result<Client<A::Machine>, Error> {
    let members = (0..config.replicas.len()).map(|id| ReplicaId(id as u8)).collect();
    connect_to::<A>(config, members).await
}

/// A client that asks some of the replicas only.
///
/// # Errors
/// When an address has no meaning.
pub async fn connect_to<A: App>(config: &ClusterConfig, members: Vec<ReplicaId>) -> Result<Client<A::Machine>, Error> {
    let client_config = ClientConfig { members, ..ClientConfig::new(config.replicas.len()) };
    let addresses = config.replicas.iter().cloned();
    let network = TcpClient::connect(config.cluster.into(), client_config.id, addresses, options(config)).await?;
    let (client, runner) = Client::new(client_config, network, SystemClock::new());
    tokio::spawn(runner.run());
    Ok(client)
}
