//! A replica as a process, and a client.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::net::lookup_host;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vsr::protocol::{Health, Monotonic};
use vsr::{Client, ClientConfig, Clock, Replica, ReplicaError, ReplicaId, StateMachine, SystemClock};
use vsr_net_tcp::{MetricsServer, TcpClient, TcpNetwork, TcpOptions};

use crate::exit::{self, failure};
use crate::output::{complain, tell};
use crate::{App, ClusterConfig, Error};

fn options(config: &ClusterConfig) -> TcpOptions {
    TcpOptions::default().with(|options| options.allow_insecure = config.allow_insecure)
}

/// The signals that ask a program to end.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, Error> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them. Its number.
    pub(crate) async fn next(&mut self) -> u8 {
        let number = tokio::select! {
            _ = self.terminate.recv() => Number::TERM,
            _ = self.interrupt.recv() => Number::INT,
        };
        u8::try_from(number.as_raw()).unwrap_or(0)
    }
}

/// A write over the limit of a file's size is an error of the disk, and no reason to be killed.
fn survive_file_limit() -> Result<(), Error> {
    // The handler stays when the stream of signals is dropped.
    drop(signal(SignalKind::from_raw(Number::XFSZ.as_raw()))?);
    Ok(())
}

/// For how long a start waits for peers that may refuse the replica, before it says that it is ready.
const HEARING_MAX: Duration = Duration::from_millis(500);
/// Once a peer is heard: it says at once what it remembers of this replica, and that may be the end of it.
const SETTLED: Duration = Duration::from_millis(100);
/// For how long a replica lets itself be refused, where those that are left are no quorum.
const REFUSED_MAX: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// Runs a replica until it is told to end, by Ctrl-C or SIGTERM. SIGUSR1 wants a checkpoint.
pub(crate) async fn replica<A: App>(path: &Path, id: u8) -> Result<(), Error> {
    let cluster = ClusterConfig::read(path)?;
    let config = cluster.replica(id)?;
    survive_file_limit()?;
    let mut signals = Signals::new()?;
    let mut checkpoint_wanted = signal(SignalKind::user_defined1())?;
    // First of all: a second process of this replica ends here.
    let storage = cluster.open(id)?;
    // Before anything looks a metric up.
    let metrics = match cluster.metrics.get(usize::from(id)) {
        Some(address) => {
            let bad = |why: &dyn Display| format!("{}: `metrics`: {address:?}: {why}", path.display());
            let found = lookup_host(address).await.map_err(|error| bad(&error))?;
            let found = found.into_iter().next().ok_or_else(|| bad(&"the name has no address"))?;
            Some(MetricsServer::start(found).await?)
        }
        None => None,
    };
    let network = TcpNetwork::bind_with(&config, options(&cluster)).await?;
    let address = network.address();
    let (replica, handle) =
        Replica::builder(config, A::Machine::default()).storage(storage).network(network).build()?;
    let mut running = tokio::spawn(replica.run());
    tell(format_args!("replica {id} listens on {address}"));
    if let Some(metrics) = &metrics {
        tell(format_args!("metrics http://{}/metrics", metrics.address()));
    }
    let mut watched = Watched::new();
    loop {
        tokio::select! {
            biased;
            ended = &mut running => return ended?.map_err(|error| named(error, path, &cluster.folder_of(id))),
            _ = signals.next() => break,
            _ = checkpoint_wanted.recv() => {
                let handle = handle.clone();
                tokio::spawn(async move {
                    match handle.checkpoint().await {
                        Ok(op) => tell(format_args!("there is a checkpoint after op {op}")),
                        Err(error) => complain(format_args!("no checkpoint: {error}")),
                    }
                });
            }
            () = tokio::time::sleep(watched.pause()) => {}
        }
        match watched.look(watched.clock.now(), handle.status().health) {
            Seen::Nothing => {}
            Seen::Ready => tell("ready"),
            Seen::Refused => {
                let why = handle.explain().await;
                handle.shutdown().await;
                running.await??;
                return Err(failure(exit::REFUSED, format!("replica {id} ends, as its peers refuse it: {why}")));
            }
        }
    }
    // Hands the primary role over first.
    handle.shutdown().await;
    Ok(running.await??)
}

/// A folder and a configuration that do not belong together are named: the replica itself knows neither.
fn named(error: ReplicaError, config: &Path, folder: &Path) -> Error {
    use ReplicaError::{MembershipDiffers, WrongCluster, WrongReplica};
    if matches!(error, WrongCluster { .. } | WrongReplica { .. } | MembershipDiffers) {
        return failure(exit::USAGE, format!("{} and {}: {error}", folder.display(), config.display()));
    }
    error.into()
}

/// Tells from a replica's health when it is ready, and when there is no use in going on.
struct Watched {
    clock: SystemClock,
    is_ready: bool,
    recovered: Option<Monotonic>,
    /// Since when it is neither alone nor refused.
    heard: Option<Monotonic>,
    refused: Option<Monotonic>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// It is recovered from its disk, and its peers had a moment to refuse it.
    Ready,
    /// It is refused for too long.
    Refused,
}

impl Watched {
    fn new() -> Watched {
        Watched { clock: SystemClock::new(), is_ready: false, recovered: None, heard: None, refused: None }
    }

    fn pause(&self) -> Duration {
        if self.is_ready { LOOK * 20 } else { LOOK }
    }

    fn look(&mut self, now: Monotonic, health: Health) -> Seen {
        if matches!(health, Health::Starting | Health::Stopped) {
            return Seen::Nothing;
        }
        let recovered = *self.recovered.get_or_insert(now);
        if health == Health::Refused {
            self.heard = None;
            let since = *self.refused.get_or_insert(now);
            return if now.since(since) >= REFUSED_MAX { Seen::Refused } else { Seen::Nothing };
        }
        self.refused = None;
        let may_be_refused = if health == Health::NoQuorum {
            now.since(recovered) < HEARING_MAX
        } else {
            now.since(*self.heard.get_or_insert(now)) < SETTLED
        };
        if self.is_ready || may_be_refused {
            return Seen::Nothing;
        }
        self.is_ready = true;
        Seen::Ready
    }
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
    client(config, members).await
}

/// A client of any machine.
pub(crate) async fn client<S: StateMachine>(
    config: &ClusterConfig,
    members: Vec<ReplicaId>,
) -> Result<Client<S>, Error> {
    let client_config = ClientConfig::new(config.replicas.len()).with(|config| config.members = members);
    let addresses = config.replicas.iter().cloned();
    let network = TcpClient::connect(config.cluster, client_config.id, addresses, options(config)).await?;
    let (client, runner) = Client::new(client_config, network, SystemClock::new());
    tokio::spawn(runner.run());
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(watched: &mut Watched, millis: u64, health: Health) -> Seen {
        watched.look(Monotonic(millis * 1_000_000), health)
    }

    /// A peer is heard first, and says a moment later that the folder is old.
    #[test]
    fn ready_is_not_said_before_peers_had_a_moment_to_refuse() {
        let mut watched = Watched::new();
        assert_eq!(look(&mut watched, 0, Health::Starting), Seen::Nothing);
        assert_eq!(look(&mut watched, 1000, Health::NoQuorum), Seen::Nothing);
        assert_eq!(look(&mut watched, 1010, Health::ViewChange), Seen::Nothing, "the first word of a peer");
        assert_eq!(look(&mut watched, 1060, Health::Normal), Seen::Nothing);
        assert_eq!(look(&mut watched, 1100, Health::Refused), Seen::Nothing);
        assert_eq!(look(&mut watched, 3000, Health::Refused), Seen::Nothing);
        assert_eq!(look(&mut watched, 3100, Health::Refused), Seen::Refused);
        // The cause is gone.
        assert_eq!(look(&mut watched, 3110, Health::Normal), Seen::Nothing);
        assert_eq!(look(&mut watched, 3210, Health::Normal), Seen::Ready);
        assert_eq!(look(&mut watched, 3220, Health::Normal), Seen::Nothing, "said once");
        let mut alone = Watched::new();
        assert_eq!(look(&mut alone, 0, Health::NoQuorum), Seen::Nothing);
        assert_eq!(look(&mut alone, 490, Health::NoQuorum), Seen::Nothing);
        assert_eq!(look(&mut alone, 500, Health::NoQuorum), Seen::Ready);
    }
}
