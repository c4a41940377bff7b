//! The transport over real sockets, and against strangers that connect.

mod support;

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vsr::network::{Identity, NetworkEvent};
use vsr::protocol::{Envelope, Message, Peer, Request, RequestNumber, SessionId};
use vsr::wire::{encode, is_keep_alive};
use vsr::{ClientId, ClusterId, Config, Network, ReplicaId};
use vsr_net_tcp::{Rejection, TcpClient, TcpError, TcpNetwork};

use support::{
    Answer, WAIT, assert_connected, client, cluster, greet, hello, identity, listeners, options, read_frame, replica,
    until, up, vote, welcome,
};

#[tokio::test]
async fn replicas_and_clients_exchange_messages_in_order() {
    let (networks, addresses) = cluster(3).await;
    assert_connected(&networks[0], &networks[2], 2).await;
    let mut batch: Vec<Envelope> =
        (100..200).map(|number| Envelope { to: Peer::Replica(ReplicaId(2)), message: vote(number) }).collect();
    networks[0].send(&mut batch);
    assert!(batch.is_empty(), "the contract: send empties the batch");
    let mut expected = 100;
    until(&networks[2], |arrival| match arrival {
        NetworkEvent::Message { from, message: Message::StartViewChange { leaving: view, .. } }
            if view.number >= 100 =>
        {
            assert_eq!((from, view.number), (Peer::Replica(ReplicaId(0)), expected));
            expected += 1;
            (expected == 200).then_some(())
        }
        _ => None,
    })
    .await;
    let id = ClientId(77);
    let client = TcpClient::connect(ClusterId(7), id, addresses, options()).await.expect("a client");
    up(&client, Peer::Replica(ReplicaId(1))).await;
    let request = Request {
        client: id,
        session: SessionId::default(),
        number: RequestNumber(0),
        floor: RequestNumber(0),
        command: Bytes::new(),
    };
    let message = Message::Requests { requests: vec![request], forwarded: false };
    client.send(&mut vec![Envelope { to: Peer::Replica(ReplicaId(1)), message: message.clone() }]);
    until(&networks[1], |arrival| match arrival {
        NetworkEvent::Message { from: Peer::Client(from), message: arrived } => {
            assert_eq!((from, &arrived), (id, &message));
            Some(())
        }
        _ => None,
    })
    .await;
    networks[1].send(&mut vec![Envelope { to: Peer::Client(id), message: vote(9) }]);
    until(&client, |arrival| matches!(arrival, NetworkEvent::Message { .. }).then_some(())).await;
}

#[tokio::test]
async fn a_dead_peer_is_reported_with_a_refusal_and_found_again() {
    let (mut networks, addresses) = cluster(2).await;
    assert_connected(&networks[0], &networks[1], 1).await;
    drop(networks.pop());
    // Replica 0 does not make the connection, and learns the refusal all the same.
    let mut refusals = Vec::new();
    until(&networks[0], |arrival| match arrival {
        NetworkEvent::PeerDown { peer, refused } => {
            assert_eq!(peer, Peer::Replica(ReplicaId(1)));
            refusals.push(refused);
            refused.then_some(())
        }
        _ => None,
    })
    .await;
    assert_eq!(refusals, [false, true]);
    let config = Config::new(ClusterId(7), ReplicaId(1), addresses.iter().cloned()).expect("a configuration");
    let second = TcpNetwork::bind_with(&config, options()).await.expect("the port is free again");
    second.set_identity(Identity::new(identity(1).disk_id, 2));
    assert_connected(&networks[0], &second, 1).await;
}

#[tokio::test]
async fn whoever_does_not_belong_here_is_told_why() {
    let (networks, addresses) = cluster(2).await;
    assert_connected(&networks[0], &networks[1], 1).await;
    let config = Config::new(ClusterId(7), ReplicaId(0), addresses.iter().cloned()).expect("a configuration");
    let membership = config.membership.checksum();
    let other =
        Config::new(ClusterId(7), ReplicaId(0), ["a", "b", "c"]).expect("a configuration").membership.checksum();
    let replica = |id, membership, identity| replica(id, membership, identity, 99);
    let to_0 = |cluster, speaker| greet(&addresses[0], cluster, speaker, 0);
    let rejected = |rejection| Answer::Rejected(rejection);
    // Another cluster, another replica's address, no member, another membership, the replica itself, another
    // disk under a known id, an old copy of the disk.
    let stranger = replica(1, membership, identity(1));
    assert_eq!(to_0(8, stranger).await, rejected(Rejection::Cluster(ClusterId(7))));
    let lost = greet(&addresses[0], 7, replica(1, membership, identity(1)), 1).await;
    assert_eq!(lost, rejected(Rejection::OtherReplica(ReplicaId(0))));
    assert_eq!(to_0(7, replica(5, membership, identity(5))).await, rejected(Rejection::NotAMember));
    assert_eq!(to_0(7, replica(1, other, identity(1))).await, rejected(Rejection::Membership));
    assert_eq!(to_0(7, replica(0, membership, identity(0))).await, rejected(Rejection::SameReplica));
    assert_eq!(to_0(7, replica(1, membership, identity(9))).await, rejected(Rejection::OtherIncarnation));
    let old = Identity::new(identity(1).disk_id, 0);
    assert_eq!(to_0(7, replica(1, membership, old)).await, rejected(Rejection::OldCopy));
    assert!(matches!(to_0(7, client(1)).await, Answer::Welcome(_)));
    // The rest goes on.
    assert_connected(&networks[0], &networks[1], 1).await;
    assert_connected(&networks[1], &networks[0], 0).await;
}

/// Every way to send bytes that are no frames: the connection is closed, the replica goes on.
#[tokio::test]
async fn nw_12_hostile_bytes_close_their_connection_only() {
    let (networks, addresses) = cluster(2).await;
    let vote_frame = encode(&vote(1)).expect("a frame").head.to_vec();
    let mut damaged = vote_frame.clone();
    damaged[45] ^= 1;
    let mut other_version = vote_frame.clone();
    other_version[4] = 99;
    let mut oversized = vote_frame.clone();
    oversized[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let hello = hello(7, client(5), 0).to_vec();
    let nothing = Vec::new();
    let hostile: Vec<(&str, &[u8], Vec<u8>)> = vec![
        ("nothing at all", &nothing, Vec::new()),
        ("a web browser", &nothing, b"GET / HTTP/1.1\r\nHost: replica\r\n\r\n                    ".to_vec()),
        ("zeros", &nothing, vec![0; 10_000]),
        ("a frame before the handshake", &nothing, vote_frame.clone()),
        ("half a handshake", &nothing, hello[..20].to_vec()),
        ("damaged after the handshake", &hello, damaged),
        ("another version after the handshake", &hello, other_version),
        ("oversized after the handshake", &hello, oversized),
        ("truncated after the handshake", &hello, vote_frame[..30].to_vec()),
        ("noise after the handshake", &hello, (0..50_000_u32).map(|at| (at * 31 % 251) as u8).collect()),
    ];
    for (what, first, then) in hostile {
        let mut stream = TcpStream::connect(&addresses[0]).await.expect("a connection");
        let _ = stream.write_all(first).await;
        let _ = stream.write_all(&then).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(WAIT, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{what}: the connection stays open");
        assert_connected(&networks[1], &networks[0], 0).await;
    }
}

#[tokio::test]
async fn addresses_that_cannot_work_are_refused_in_words() {
    let config = Config::new(ClusterId(7), ReplicaId(0), ["0.0.0.0:0"]).expect("a configuration");
    let refused = TcpNetwork::bind(&config).await.expect_err("not loopback");
    assert!(matches!(refused, TcpError::NotLoopback(_)) && refused.to_string().contains("allow_insecure"));
    let config = Config::new(ClusterId(7), ReplicaId(0), ["no port"]).expect("a configuration");
    assert!(matches!(TcpNetwork::bind(&config).await, Err(TcpError::Address { .. })));
    let (_taken, addresses) = listeners(1).await;
    let config = Config::new(ClusterId(7), ReplicaId(0), addresses).expect("a configuration");
    let refused = TcpNetwork::bind(&config).await.expect_err("the port is taken");
    assert!(refused.to_string().contains("running already"), "{refused}");
}

/// A queue in which the longest message would never find a place is refused, in words that name both fields.
#[tokio::test]
async fn a_queue_that_is_too_small_for_a_message_is_refused() {
    let (mut held, addresses) = listeners(1).await;
    let config = Config::new(ClusterId(7), ReplicaId(0), addresses).expect("a configuration");
    let small = options().with(|options| options.queue_bytes_max = 1 << 20);
    let refused = TcpNetwork::start(&config, small, held.pop().expect("a listener")).expect_err("too small");
    let words = refused.to_string();
    assert!(words.contains("TcpOptions::queue_bytes_max = 1048576") && words.contains("answer_max"), "{words}");
}

/// When a network is closed, its port is free.
#[tokio::test]
async fn the_port_is_free_when_the_network_is_closed() {
    let (mut held, addresses) = listeners(1).await;
    drop(held.pop());
    let config = Config::new(ClusterId(7), ReplicaId(0), addresses).expect("a configuration");
    for life in 0..20 {
        let network = TcpNetwork::bind_with(&config, options()).await;
        let network = network.unwrap_or_else(|error| panic!("life {life}: {error}"));
        network.close().await;
    }
}

/// A peer that does not read loses messages; nobody waits, and memory stays bounded.
#[tokio::test]
async fn a_full_queue_drops_and_never_blocks() {
    let (mut held, addresses) = listeners(2).await;
    let listener = held.pop().expect("a listener");
    // Replica 0 answers the handshake and then reads nothing.
    let deaf = held.pop().expect("a listener");
    let config = Config::new(ClusterId(7), ReplicaId(1), addresses).expect("a configuration");
    // 20 MiB: no less than the longest answer.
    let small = options().with(|options| {
        options.queue_bytes_max = 20 << 20;
        options.keep_alive = Duration::from_secs(60);
    });
    let network = TcpNetwork::start(&config, small, listener).expect("a network");
    network.set_identity(identity(1));
    let membership = config.membership.checksum();
    let mut stream = welcome(&deaf, replica(0, membership, identity(0), 99)).await;
    up(&network, Peer::Replica(ReplicaId(0))).await;
    let ballast = Message::Query { client: ClientId(1), nonce: 1, query: Bytes::from(vec![0; 100_000]) };
    for _ in 0..2000 {
        network.send(&mut vec![Envelope { to: Peer::Replica(ReplicaId(0)), message: ballast.clone() }]);
        tokio::task::yield_now().await;
    }
    // 200 MB were sent. Now it reads: what was kept arrives, then what is sent from now on.
    let mut kept = 0;
    let counted = async {
        loop {
            let (header, payload) = read_frame(&mut stream).await;
            if is_keep_alive(&header, &payload) {
                continue;
            }
            match vsr::wire::decode(&header, payload).expect("a message") {
                Message::Query { .. } => kept += 1,
                _ => return kept,
            }
        }
    };
    let again = async {
        loop {
            network.send(&mut vec![Envelope { to: Peer::Replica(ReplicaId(0)), message: vote(1) }]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let kept = tokio::select! {
        kept = tokio::time::timeout(WAIT, counted) => kept.expect("in time"),
        () = again => unreachable!("it goes on until the other ends"),
    };
    assert!(kept < 1000, "{kept} of 2000 messages were kept for a peer that did not read");
}
