//! What the tests of this crate share: clusters of sockets, and a stranger that speaks their language.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vsr::network::{Identity, NetworkEvent};
use vsr::protocol::{DiskId, Envelope, Message, Peer, View};
use vsr::wire::{FrameHeader, HEADER_LEN, Limits, decode_value, encode_value};
use vsr::{Checksum, ClientId, ClusterId, Config, Network, ReplicaId};
use vsr_net_tcp::{TcpNetwork, TcpOptions};

pub(crate) const WAIT: Duration = Duration::from_secs(20);

pub(crate) fn options() -> TcpOptions {
    TcpOptions::default().with(|options| options.handshake = Duration::from_millis(500))
}

pub(crate) async fn listeners(count: usize) -> (Vec<TcpListener>, Vec<String>) {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    }
    let addresses = listeners.iter().map(|listener| listener.local_addr().expect("an address").to_string());
    let addresses = addresses.collect();
    (listeners, addresses)
}

pub(crate) fn identity(replica: u8) -> Identity {
    Identity::new(DiskId(u128::from(replica) + 100), 1)
}

pub(crate) fn config(replica: u8, addresses: &[String]) -> Config {
    Config::new(ClusterId(7), ReplicaId(replica), addresses.iter().cloned()).expect("a configuration")
}

/// Replicas 0 to n - 1 of cluster 7.
pub(crate) async fn cluster(n: usize) -> (Vec<TcpNetwork>, Vec<String>) {
    cluster_with(n, &options()).await
}

pub(crate) async fn cluster_with(n: usize, options: &TcpOptions) -> (Vec<TcpNetwork>, Vec<String>) {
    let (listeners, addresses) = listeners(n).await;
    let start = |(id, listener)| {
        let network = TcpNetwork::start(&config(id, &addresses), options.clone(), listener).expect("a network");
        network.set_identity(identity(id));
        network
    };
    let networks = (0..).zip(listeners).map(start).collect();
    (networks, addresses)
}

/// Receives until something fits.
pub(crate) async fn until<T>(network: &impl Network, mut wanted: impl FnMut(NetworkEvent) -> Option<T>) -> T {
    let search = async {
        loop {
            for arrival in network.recv().await.expect("the network works") {
                if let Some(found) = wanted(arrival) {
                    return found;
                }
            }
        }
    };
    tokio::time::timeout(WAIT, search).await.expect("it arrives")
}

pub(crate) async fn up(network: &impl Network, peer: Peer) {
    until(network, |arrival| (arrival == NetworkEvent::PeerUp(peer)).then_some(())).await;
}

pub(crate) fn vote(number: u64) -> Message {
    Message::StartViewChange { leaving: View { number, ..View::default() }, life: vsr::protocol::Life::default() }
}

/// Sends until it arrives: a message may be lost, an alive connection must carry one soon.
pub(crate) async fn assert_connected(from: &TcpNetwork, to: &TcpNetwork, id: u8) {
    let send = async {
        loop {
            from.send(&mut vec![Envelope { to: Peer::Replica(ReplicaId(id)), message: vote(5) }]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let receive = until(to, |arrival| match arrival {
        NetworkEvent::Message { message, .. } if message == vote(5) => Some(()),
        _ => None,
    });
    tokio::select! { () = send => {}, () = receive => {} }
}

/// The handshake as another program would write it: the layout is part of the wire format.
mod serde_like {
    use serde::{Deserialize, Serialize};
    use vsr::network::Identity;
    use vsr::{Checksum, ClientId, ClusterId, ReplicaId};
    use vsr_net_tcp::Rejection;

    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) enum Speaker {
        Replica { id: ReplicaId, membership: Checksum, identity: Identity, process: u64 },
        Client { id: ClientId },
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Hello {
        pub(crate) cluster: ClusterId,
        pub(crate) from: Speaker,
        pub(crate) to: ReplicaId,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) enum Answer {
        Welcome(Speaker),
        Rejected(Rejection),
    }
}
pub(crate) use serde_like::{Answer, Hello, Speaker};

/// A replica as a stranger would play it.
pub(crate) fn replica(id: u8, membership: Checksum, identity: Identity, process: u64) -> Speaker {
    Speaker::Replica { id: ReplicaId(id), membership, identity, process }
}

pub(crate) fn client(id: u128) -> Speaker {
    Speaker::Client { id: ClientId(id) }
}

pub(crate) fn hello(cluster: u128, from: Speaker, to: u8) -> Bytes {
    let hello = Hello { cluster: vsr::ClusterId(cluster), from, to: ReplicaId(to) };
    encode_value(&hello, Vec::new()).expect("a frame").head
}

pub(crate) async fn read_frame(stream: &mut TcpStream) -> (FrameHeader, Bytes) {
    let mut header = [0; HEADER_LEN];
    tokio::time::timeout(WAIT, stream.read_exact(&mut header)).await.expect("in time").expect("a header");
    let header = FrameHeader::decode(&header, Limits::default()).expect("a header");
    let mut payload = vec![0; header.payload_len()];
    tokio::time::timeout(WAIT, stream.read_exact(&mut payload)).await.expect("in time").expect("a payload");
    (header, Bytes::from(payload))
}

/// Connects and says hello; the connection stays open.
pub(crate) async fn knock(address: &str, cluster: u128, from: Speaker, to: u8) -> (TcpStream, Answer) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(&hello(cluster, from, to)).await.expect("writing");
    let (header, payload) = read_frame(&mut stream).await;
    (stream, decode_value(&header, payload).expect("an answer").0)
}

pub(crate) async fn greet(address: &str, cluster: u128, from: Speaker, to: u8) -> Answer {
    knock(address, cluster, from, to).await.1
}

/// Plays a replica that is connected to: hears the hello, and welcomes any peer.
pub(crate) async fn welcome(listener: &TcpListener, me: Speaker) -> TcpStream {
    answer(listener, &Answer::Welcome(me)).await
}

/// Plays a replica that is connected to: hears the hello, and answers so whoever it is.
pub(crate) async fn answer(listener: &TcpListener, answer: &Answer) -> TcpStream {
    let accepted = tokio::time::timeout(WAIT, listener.accept()).await.expect("in time");
    let (mut stream, _) = accepted.expect("the connection");
    read_frame(&mut stream).await;
    let answer = encode_value(answer, Vec::new()).expect("a frame");
    stream.write_all(&answer.head).await.expect("writing");
    stream
}

/// Whether the other side closes the connection, whatever it writes before.
pub(crate) async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(WAIT, stream.read_to_end(&mut rest)).await.is_ok()
}
