//! Making connections: the way of a replica to the members before it, and of a client to all of them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use metrics::counter;
use tokio::net::TcpStream;

use crate::connection::reason;
use crate::handshake::{HandshakeError, Hello, Speaker, call, within};
use crate::options::{TcpError, TcpOptions};

/// The pause after a refusal that an operator has to resolve.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Connects and says hello, within the time that a handshake may take.
pub(crate) async fn dial(
    options: &TcpOptions,
    address: &str,
    hello: Hello,
) -> Result<(TcpStream, Speaker), HandshakeError> {
    within(options.handshake, async {
        let address = resolve(address, options.allow_insecure).await.map_err(io::Error::other)?;
        let mut stream = TcpStream::connect(address).await?;
        let speaker = call(&mut stream, hello).await?;
        Ok((stream, speaker))
    })
    .await
}

pub(crate) async fn resolve(address: &str, allow_insecure: bool) -> Result<SocketAddr, TcpError> {
    let bad = |error: String| TcpError::Address { address: address.to_owned(), error };
    let mut found = tokio::net::lookup_host(address).await.map_err(|error| bad(error.to_string()))?;
    let found = found.next().ok_or_else(|| bad("no address".to_owned()))?;
    if found.ip().is_loopback() || allow_insecure { Ok(found) } else { Err(TcpError::NotLoopback(found)) }
}

/// Counts and tells why there is no connection.
pub(crate) fn note(error: &HandshakeError) {
    match error {
        HandshakeError::Refused(rejection) | HandshakeError::Rejected(rejection) => {
            counter!("vsr_net_rejected_total", "reason" => rejection.reason()).increment(1);
            tracing::warn!(%error, "connection refused");
        }
        HandshakeError::Wire(wire) => {
            counter!("vsr_net_bad_frames_total", "reason" => reason(wire)).increment(1);
            tracing::warn!(%error, "no handshake");
        }
        HandshakeError::Io(_) | HandshakeError::TimedOut => tracing::debug!(%error, "no handshake"),
    }
}

/// Back-off with jitter.
pub(crate) struct Pause {
    min: Duration,
    max: Duration,
    now: Duration,
    random: vsr::protocol::Random,
}

impl Pause {
    pub(crate) fn new(options: &TcpOptions, seed: u64) -> Pause {
        let TcpOptions { reconnect_min: min, reconnect_max: max, .. } = *options;
        Pause { min, max, now: min, random: vsr::protocol::Random::new(seed) }
    }

    pub(crate) fn reset(&mut self) {
        self.now = self.min;
    }

    /// Waits before the next attempt. A refusal that an operator has to resolve is not asked for again at once.
    pub(crate) async fn after(&mut self, error: &HandshakeError) {
        let refused = matches!(error, HandshakeError::Refused(_) | HandshakeError::Rejected(_));
        let extra = if refused { REFUSED_PAUSE } else { Duration::ZERO };
        tokio::time::sleep(extra + self.next()).await;
    }

    fn next(&mut self) -> Duration {
        let pause = self.now / 2 + self.now.mul_f64(self.random.below(1000) as f64 / 2000.0);
        self.now = (self.now * 2).min(self.max);
        pause
    }
}
