//! Making connections: the way of a replica to the members before it, and of a client to all of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use metrics::counter;
use tokio::net::TcpStream;
use vsr::Cause;

use crate::handshake::{HandshakeError, Hello, Rejection, Speaker, call, within};
use crate::options::{TcpError, TcpOptions};
use crate::receive::reason;

/// The pause after a refusal that an operator has to resolve.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// A connection that has stood so long was a good one.
const STEADY: Duration = Duration::from_secs(1);

/// Connects and says hello. The name is looked up each time: what it stands for may change, or be known only
/// later. Each of its addresses is tried, for as long as a handshake may take.
pub(crate) async fn dial(
    options: &TcpOptions,
    address: &str,
    hello: Hello,
) -> Result<(TcpStream, Speaker), HandshakeError> {
    let looked_up = async { Ok::<_, HandshakeError>(resolve(address, options.allow_insecure).await?) };
    dial_any(options.handshake, within(options.handshake, looked_up).await?, hello).await
}

async fn dial_any(
    limit: Duration,
    addresses: Vec<SocketAddr>,
    hello: Hello,
) -> Result<(TcpStream, Speaker), HandshakeError> {
    let mut failed: Option<HandshakeError> = None;
    for address in addresses {
        let attempt = async {
            let mut stream = TcpStream::connect(address).await?;
            let speaker = call(&mut stream, hello).await?;
            Ok::<_, HandshakeError>((stream, speaker))
        };
        match within(limit, attempt).await {
            Ok(connected) => return Ok(connected),
            Err(error) if failed.as_ref().is_none_or(|failed| error.weight() > failed.weight()) => failed = Some(error),
            Err(_) => {}
        }
    }
    Err(failed.unwrap_or(HandshakeError::TimedOut))
}

/// The addresses of a name, each once: those that may be used.
pub(crate) async fn resolve(address: &str, allow_insecure: bool) -> Result<Vec<SocketAddr>, TcpError> {
    let bad = |cause: Cause| TcpError::Address { address: address.to_owned(), cause };
    let mut usable = Vec::new();
    let mut other = None;
    for found in tokio::net::lookup_host(address).await.map_err(|error| bad(Cause::new(error)))? {
        if !found.ip().is_loopback() && !allow_insecure {
            other.get_or_insert(found);
        } else if !usable.contains(&found) {
            usable.push(found);
        }
    }
    match other {
        _ if !usable.is_empty() => Ok(usable),
        Some(other) => Err(TcpError::NotLoopback(other)),
        None => Err(bad(Cause::new("the name has no address"))),
    }
}

/// Whether these can be meant as addresses to connect to. Whether a name is known is found out at each attempt.
pub(crate) fn check_peers<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<(), TcpError> {
    for address in addresses {
        let bad = |cause: &str| Err(TcpError::Address { address: address.to_owned(), cause: Cause::new(cause) });
        let Some((host, port)) = address.rsplit_once(':') else { return bad("it has no port") };
        if host.is_empty() {
            return bad("it has no host");
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return bad("its port is none of 1 to 65535");
        }
        if address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified()) {
            return bad("it stands for every machine, and no peer can connect to it");
        }
    }
    Ok(())
}

/// Whether none is listed twice.
pub(crate) fn check_distinct<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<(), TcpError> {
    let mut seen = BTreeSet::new();
    match addresses.into_iter().find(|address| !seen.insert(*address)) {
        Some(twice) => Err(TcpError::Duplicate(twice.to_owned())),
        None => Ok(()),
    }
}

/// Counts the failure of a connection, and logs it when it is new.
pub(crate) fn log_failure(who: &str, error: &HandshakeError, is_new: bool) {
    match error {
        HandshakeError::Refused(rejection) | HandshakeError::Rejected(rejection) => {
            counter!("vsr_net_rejected_total", "reason" => rejection.reason()).increment(1);
            if is_new {
                tracing::warn!(%who, %error, "connection refused; told again when the reason changes");
            }
        }
        HandshakeError::Wire(wire) => {
            counter!("vsr_net_bad_frames_total", "reason" => reason(wire)).increment(1);
            if is_new {
                tracing::warn!(%who, %error, "no handshake; told again when the reason changes");
            }
        }
        HandshakeError::Address(_) if is_new => tracing::warn!(%who, %error, "cannot connect; it is tried again"),
        HandshakeError::Io(_) | HandshakeError::TimedOut if is_new => tracing::info!(%who, %error, "no connection"),
        HandshakeError::Address(_) | HandshakeError::Io(_) | HandshakeError::TimedOut => {}
    }
}

/// Back-off with jitter.
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    now: Duration,
    random: vsr::protocol::Random,
}

impl Backoff {
    pub(crate) fn new(options: &TcpOptions, seed: u64) -> Backoff {
        let TcpOptions { reconnect_min: min, reconnect_max: max, .. } = *options;
        Backoff { min, max, now: min, random: vsr::protocol::Random::new(seed) }
    }

    /// Waits after a connection that has stood so long. One that broke at once is as good as none.
    pub(crate) async fn after_connection(&mut self, stood: Duration) {
        if stood >= STEADY {
            self.now = self.min;
        }
        tokio::time::sleep(self.next()).await;
    }

    /// Waits before the next attempt. A refusal that an operator has to resolve is not asked for again at once.
    pub(crate) async fn after(&mut self, error: &HandshakeError) {
        let extra = match error {
            // The old connection of a process that was restarted will be found broken soon.
            HandshakeError::Rejected(Rejection::AlreadyConnected) => Duration::ZERO,
            HandshakeError::Refused(_) | HandshakeError::Rejected(_) => REFUSED_PAUSE,
            _ => Duration::ZERO,
        };
        tokio::time::sleep(extra + self.next()).await;
    }

    fn next(&mut self) -> Duration {
        let pause = self.now / 2 + self.now.mul_f64(self.random.below(1000) as f64 / 2000.0);
        self.now = (self.now * 2).min(self.max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use vsr::network::Identity;
    use vsr::protocol::DiskId;
    use vsr::{Checksum, ClientId, ClusterId, ReplicaId};

    use super::*;
    use crate::handshake::{Answer, receive, send};

    /// A name with several addresses, as `localhost` has: the replica listens on one of them.
    #[tokio::test]
    async fn b16_every_address_of_a_name_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let right = listener.local_addr().expect("an address");
        let nobody = SocketAddr::from(([127, 0, 0, 2], right.port()));
        let identity = Identity::new(DiskId(1), 1);
        let to = ReplicaId(3);
        let speaker = Speaker::Replica { id: to, membership: Checksum(5), identity, process: 7 };
        let hello = Hello { cluster: ClusterId(7), from: Speaker::Client { id: ClientId(1) }, to };
        let answer = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let heard: Hello = receive(&mut stream).await.expect("a hello");
            assert_eq!(heard, hello);
            send(&mut stream, &Answer::Welcome(speaker)).await.expect("an answer");
        };
        let limit = Duration::from_secs(20);
        let (dialled, ()) = tokio::join!(dial_any(limit, vec![nobody, right], hello), answer);
        assert_eq!(dialled.expect("a connection").1, speaker);
    }

    #[test]
    fn b17_addresses_that_nobody_can_mean_are_refused_in_words() {
        let good = ["localhost:4000", "127.0.0.1:4001", "[::1]:65535", "replica-2.example.org:1"];
        assert!(check_peers(good).is_ok());
        for bad in ["", "localhost", "localhost:", ":4000", "localhost:0", "localhost:65536", "a:b", "0.0.0.0:40"] {
            let refused = check_peers([bad]).expect_err(bad).to_string();
            assert!(refused.contains("host:port"), "{bad}: {refused}");
        }
        assert!(check_distinct(good).is_ok());
        let twice = check_distinct(["a:1", "b:1", "a:1"]).expect_err("listed twice").to_string();
        assert!(twice.contains("\"a:1\" is listed twice"), "{twice}");
    }
}
