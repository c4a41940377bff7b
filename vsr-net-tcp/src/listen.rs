//! The listening side: accepting connections, and their handshakes.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use vsr::ReplicaId;
use vsr::network::NetworkEvent;
use vsr::protocol::Peer;

use crate::dial::{log_failure, resolve};
use crate::handshake::{Answer, HandshakeError, Hello, Rejection, receive, send, within};
use crate::shared::{Guard, Shared};
use crate::told::Told;

/// Connections that wait to be accepted. Each that does not fit is tried again only after a second, so that
/// all clients of a cluster may come at once. The operating system may allow fewer.
const BACKLOG: u32 = 4096;

/// Handshakes at a time. Beyond them the oldest one gives way: an honest one is over in no time.
const HANDSHAKES_MAX: usize = 1024;

/// Listens, as a process that was restarted as well.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_by(address, TcpSocket::listen)
}

fn listen_by(
    address: SocketAddr,
    listen: impl FnOnce(TcpSocket, u32) -> io::Result<TcpListener>,
) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Elsewhere it would let a second process take the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    listen(socket, BACKLOG)
}

pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut handshakes: VecDeque<oneshot::Sender<()>> = VecDeque::new();
    let mut told = Told::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if told.is_new((), &error.to_string()) {
                    tracing::warn!(%error, "cannot accept connections; if too many files are open, raise `ulimit -n`");
                }
                // Connections that are silent make room for those that speak.
                drop(handshakes.pop_front());
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        told.over(&());
        if handshakes.len() >= HANDSHAKES_MAX {
            handshakes.retain(|handshake| !handshake.is_closed());
        }
        if handshakes.len() >= HANDSHAKES_MAX {
            drop(handshakes.pop_front());
        }
        let (handshake, mut gives_way) = oneshot::channel();
        handshakes.push_back(handshake);
        let shared = shared.clone();
        connections.spawn(async move {
            let mut stream = stream;
            let greeted = tokio::select! {
                biased;
                greeted = within(shared.options.handshake, answer(&shared, &mut stream, from)) => greeted,
                _ = &mut gives_way => Err(HandshakeError::TimedOut),
            };
            drop(gives_way);
            match greeted {
                Ok(guard) => {
                    let peer = guard.peer;
                    shared.serve(stream, guard).await;
                    if let Peer::Replica(id) = peer {
                        probe(&shared, id).await;
                    }
                }
                // It was told where it is known who speaks.
                Err(HandshakeError::Refused(_)) => {}
                Err(error) => {
                    // Connections that end without a word are nothing to tell: peers look so whether this replica lives.
                    let is_noise = !matches!(error, HandshakeError::Wire(_));
                    let is_new = !is_noise && shared.told().is_new((from.ip(), Err(error.reason())), error.reason());
                    log_failure(&format!("a peer at {from}"), &error, is_new);
                }
            }
        });
    }
}

async fn answer<'a>(shared: &'a Shared, stream: &mut TcpStream, from: SocketAddr) -> Result<Guard<'a>, HandshakeError> {
    let hello: Hello = receive(stream).await?;
    let checked = if hello.cluster != shared.cluster {
        Err(Rejection::Cluster(shared.cluster))
    } else if hello.to != shared.me {
        Err(Rejection::OtherReplica(shared.me))
    } else {
        shared.check(&hello.from)
    };
    let admitted = match checked {
        Ok(()) => {
            let me = shared.speaker().await;
            shared.admit(&hello.from).map(|guard| (me, guard))
        }
        Err(rejection) => Err(rejection),
    };
    let id = if let Peer::Replica(id) = hello.from.peer() { Some(id) } else { None };
    match admitted {
        Ok((me, guard)) => {
            if let Some(id) = id {
                shared.told().over(&(from.ip(), Ok(id)));
            }
            send(stream, &Answer::Welcome(me)).await?;
            Ok(guard)
        }
        Err(rejection) => {
            let error = HandshakeError::Refused(rejection);
            let whom = (from.ip(), id.ok_or(rejection.reason()));
            let is_new = shared.told().is_new(whom, rejection.reason());
            let who = id.map_or_else(|| "a client".to_owned(), |id| format!("replica {}", id.0));
            log_failure(&format!("{who} at {from}"), &error, is_new);
            send(stream, &Answer::Rejected(rejection)).await?;
            Err(error)
        }
    }
}

/// Whether a peer whose connection broke is still there: only the side that connects would find out.
async fn probe(shared: &Shared, id: ReplicaId) {
    let Some(member) = shared.membership.members.iter().find(|member| member.id == id) else { return };
    let Ok(addresses) = resolve(&member.address, shared.options.allow_insecure).await else { return };
    for address in addresses {
        let connecting = tokio::time::timeout(shared.options.handshake, TcpStream::connect(address));
        let Ok(Err(error)) = connecting.await else { return };
        if !HandshakeError::Io(error).is_refused_connection() {
            return;
        }
    }
    shared.mailbox.hint(NetworkEvent::PeerDown { peer: Peer::Replica(id), refused: true });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::TcpOptions;

    /// While no connection is accepted, each that does not fit would wait for seconds. What the operating system does not
    /// allow cannot be tried, so what is asked of it counts as well.
    #[tokio::test]
    async fn b16_hundreds_of_clients_may_connect_at_once() {
        let mut asked = 0;
        let listener = listen_by(SocketAddr::from(([127, 0, 0, 1], 0)), |socket, backlog| {
            asked = backlog as usize;
            socket.listen(backlog)
        })
        .expect("a port");
        let clients_max = TcpOptions::default().clients_max;
        assert!(asked >= clients_max, "{asked} may wait, and {clients_max} may come at once");
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
        let clients = 256_usize.min(allowed.trim().parse().unwrap_or(128));
        let address = listener.local_addr().expect("an address");
        let connect = futures::future::join_all((0..clients).map(|_| TcpStream::connect(address)));
        let connected = tokio::time::timeout(Duration::from_secs(20), connect).await.expect("all fit");
        assert!(connected.iter().all(Result::is_ok));
    }
}
