//! What others can make this end hold, wait for, and do again and again.

mod support;

use std::time::Duration;

use bytes::Bytes;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use vsr::network::NetworkEvent;
use vsr::protocol::{CommitNumber, Entry, Envelope, Message, Peer, View};
use vsr::wire::{HEADER_LEN, encode, encode_value};
use vsr::{Checksum, ClientId, ClusterId, Network, ReplicaId};
use vsr_net_tcp::{TcpClient, TcpError, TcpNetwork, TcpOptions};
use vsr_sim::conformance::storage::entry;

use support::{
    Answer, client, cluster, cluster_with, config, greet, identity, knock, listeners, options, replica, until, up,
    welcome,
};

/// Sends a message from replica 0 to replica 1 until it arrives.
async fn carry(networks: &[TcpNetwork], message: &Message) -> Message {
    let again = async {
        loop {
            networks[0].send(&mut vec![Envelope { to: Peer::Replica(ReplicaId(1)), message: message.clone() }]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let arrives = until(&networks[1], |arrival| match arrival {
        NetworkEvent::Message { message: arrived, .. } => (arrived == *message).then_some(arrived),
        _ => None,
    });
    tokio::select! { () = again => unreachable!("it goes on"), arrived = arrives => arrived }
}

/// The memory that stays allocated as long as these bytes are kept.
fn pinned(kept: Bytes) -> usize {
    kept.try_into_mut().expect("nothing else is kept in the same memory").capacity()
}

/// Each small body kept a read buffer of 256 KiB: backups grew to three times the primary.
#[tokio::test]
async fn b14_a_kept_body_keeps_about_as_much_memory_as_it_is_long() {
    let (networks, _) = cluster(2).await;
    let body = |op: u64, len: usize| Bytes::from(vec![op as u8; len]);
    for len in [1, 200, 20_000, 60_000, 70_000, 300_000, 900_000] {
        let entry = entry(1, 0, Checksum(3), body(1, len));
        let prepare = Message::Prepare { view: View::default(), commit: CommitNumber(0), entry };
        let Message::Prepare { entry: Entry { body, .. }, .. } = carry(&networks, &prepare).await else {
            panic!("another kind of message")
        };
        let pinned = pinned(body);
        assert!(pinned <= 2 * len, "a body of {len} bytes keeps {pinned} bytes");
    }
    for len in [200, 20_000] {
        let entries = (1..=50).map(|op| entry(op, 0, Checksum(3), body(op, len))).collect();
        let Message::Entries { mut entries } = carry(&networks, &Message::Entries { entries }).await else {
            panic!("another kind of message")
        };
        let Entry { body, .. } = entries.swap_remove(25);
        drop(entries);
        let pinned = pinned(body);
        assert!(pinned <= 2 * len, "one of 50 bodies of {len} bytes keeps {pinned} bytes");
    }
}

/// The bytes that are set aside for unfinished messages of clients, as the metric says.
fn receiving_of_clients(recorder: &PrometheusRecorder) -> usize {
    let text = recorder.handle().render();
    let mut values = text.lines().filter_map(|line| line.strip_prefix("vsr_net_receiving_bytes{kind=\"client\"} "));
    values.next().expect("the metric is there").parse().expect("a number of bytes")
}

/// Strangers begin long messages and do not end them: together they hold no more than the clients' quarter, and a long
/// message of a replica finds the rest free.
#[tokio::test]
async fn b14_replicas_get_through_whatever_strangers_begin_to_send() {
    const LEN: usize = 300 << 10;
    let recorder = PrometheusBuilder::new().build_recorder();
    let _here = metrics::set_default_local_recorder(&recorder);
    // 512 KiB for clients: one of these messages, not two. 1.5 MiB for replicas.
    let small = options().with(|options| {
        options.receive_bytes_max = 2 << 20;
        options.keep_alive = Duration::from_secs(10);
    });
    let (networks, addresses) = cluster_with(2, &small).await;
    let long = Message::Query { client: ClientId(1), nonce: 1, query: Bytes::from(vec![0; LEN]) };
    let long = encode(&long).expect("a frame").head;
    let mut strangers = Vec::new();
    for id in 1..=8 {
        let (mut stream, answer) = knock(&addresses[1], 7, client(id), 1).await;
        assert!(matches!(answer, Answer::Welcome(_)), "{answer:?}");
        // Both are read at once, and room for the second is asked for before anybody sees the first.
        let first = Message::RequestStatus { nonce: id as u64 };
        let frame = encode(&first).expect("a frame").head;
        stream.write_all(&[&frame[..], &long[..10_000]].concat()).await.expect("writing");
        until(&networks[1], |arrival| match arrival {
            NetworkEvent::Message { message, .. } => (message == first).then_some(()),
            _ => None,
        })
        .await;
        strangers.push(stream);
        assert_eq!(receiving_of_clients(&recorder), long.len() - HEADER_LEN, "after {id} strangers");
    }
    let entry = entry(1, 0, Checksum(3), Bytes::from(vec![1; 1_000_000]));
    carry(&networks, &Message::Prepare { view: View::default(), commit: CommitNumber(0), entry }).await;
    assert_eq!(receiving_of_clients(&recorder), long.len() - HEADER_LEN, "the first one still waits for its end");
    drop(strangers);
}

/// A newer version may send what this one does not know.
#[tokio::test]
async fn b16_a_message_of_an_unknown_kind_is_passed_over() {
    #[derive(serde::Serialize)]
    enum Later {
        Tomorrow { number: u64 },
    }
    let (networks, addresses) = cluster(2).await;
    let (mut stream, answer) = knock(&addresses[0], 7, client(5), 0).await;
    assert!(matches!(answer, Answer::Welcome(_)), "{answer:?}");
    let unknown = encode_value(&Later::Tomorrow { number: 1 }, Vec::new()).expect("a frame").head;
    let known = Message::RequestStatus { nonce: 77 };
    let frame = encode(&known).expect("a frame").head;
    stream.write_all(&[&unknown[..], &unknown[..], &frame[..]].concat()).await.expect("writing");
    until(&networks[0], |arrival| match arrival {
        NetworkEvent::PeerDown { peer: Peer::Client(_), .. } => panic!("the connection was closed"),
        NetworkEvent::Message { from: Peer::Client(ClientId(5)), message } => (message == known).then_some(()),
        _ => None,
    })
    .await;
}

/// The handshake succeeds each time, and the connection breaks at once.
#[tokio::test]
async fn b16_a_connection_that_breaks_at_once_is_made_again_after_a_growing_pause() {
    let (mut listeners, addresses) = listeners(2).await;
    let own = listeners.pop().expect("a listener");
    let other = listeners.pop().expect("a listener");
    let config = config(1, &addresses);
    let slow = options().with(|options| {
        options.reconnect_min = Duration::from_millis(50);
        options.reconnect_max = Duration::from_millis(400);
    });
    let network = TcpNetwork::start(&config, slow, own).expect("a network");
    network.set_identity(identity(1));
    let me = replica(0, config.membership.checksum(), identity(0), 1);
    let begun = Instant::now();
    for _ in 0..4 {
        drop(welcome(&other, me).await);
    }
    // At least half of 50, 100 and 200 ms.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(174), "four connections in {took:?}");
}

/// A peer that connects and says nothing took one of 64 places until its time was over.
#[tokio::test]
async fn b16_strangers_that_say_nothing_keep_nobody_out() {
    let patient = options().with(|options| options.handshake = Duration::from_secs(60));
    let (_networks, addresses) = cluster_with(1, &patient).await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        strangers.push(TcpStream::connect(&addresses[0]).await.expect("a connection"));
    }
    assert!(matches!(greet(&addresses[0], 7, client(5), 0).await, Answer::Welcome(_)));
    drop(strangers);
}

#[tokio::test]
async fn b16_a_name_that_is_not_known_keeps_no_client_from_the_others() {
    let (_networks, mut addresses) = cluster(2).await;
    // No resolver has to be asked: a label has at most 63 letters.
    addresses[0] = format!("{}.invalid:4000", "x".repeat(70));
    let client = TcpClient::connect(ClusterId(7), ClientId(9), addresses, options()).await.expect("a client");
    up(&client, Peer::Replica(ReplicaId(1))).await;
}

#[tokio::test]
async fn b17_a_client_of_no_replica_and_addresses_without_meaning_are_refused() {
    let connect = async |addresses: &[&str]| {
        let addresses = addresses.iter().copied();
        TcpClient::connect(ClusterId(7), ClientId(9), addresses, options()).await.expect_err("it cannot work")
    };
    assert!(matches!(connect(&[]).await, TcpError::Addresses(0)));
    assert!(matches!(connect(&["127.0.0.1:4000", "127.0.0.1:4000"]).await, TcpError::Duplicate(_)));
    for nonsense in ["127.0.0.1", "127.0.0.1:0", ":4000", "0.0.0.0:4000", "127.0.0.1:99999"] {
        assert!(matches!(connect(&[nonsense]).await, TcpError::Address { .. }), "{nonsense}");
    }
    assert!(matches!(connect(&["192.0.2.1:4000"]).await, TcpError::NotLoopback(_)));
}

/// Some of them panicked, later and elsewhere.
#[tokio::test]
async fn b17_options_that_cannot_work_are_refused_by_name() {
    let (mut listeners, addresses) = listeners(1).await;
    let listener = listeners.pop().expect("a listener");
    let mut bad: Vec<(&str, TcpOptions)> = Vec::new();
    for time in [Duration::ZERO, Duration::MAX] {
        bad.push(("keep_alive", options().with(|o| o.keep_alive = time)));
        bad.push(("handshake", options().with(|o| o.handshake = time)));
        bad.push(("reconnect_min", options().with(|o| o.reconnect_min = time)));
        bad.push(("reconnect_max", options().with(|o| o.reconnect_max = time)));
    }
    bad.push(("reconnect_max", options().with(|o| o.reconnect_max = Duration::from_millis(1))));
    bad.push(("queue_bytes_max", options().with(|o| o.queue_bytes_max = 0)));
    bad.push(("clients_queue_bytes_max", options().with(|o| o.clients_queue_bytes_max = 0)));
    bad.push(("inbox_bytes_max", options().with(|o| o.inbox_bytes_max = 0)));
    bad.push(("receive_bytes_max", options().with(|o| o.receive_bytes_max = 0)));
    for (field, options) in bad {
        let refused = [
            TcpNetwork::bind_with(&config(0, &addresses), options.clone()).await.expect_err(field),
            TcpClient::connect(ClusterId(7), ClientId(9), addresses.clone(), options).await.expect_err(field),
        ];
        for refused in refused {
            assert!(matches!(refused, TcpError::Option { name, .. } if name == field), "{field}: {refused}");
            assert!(refused.to_string().contains(field), "{refused}");
        }
    }
    let extreme = options().with(|options| {
        options.queue_bytes_max = usize::MAX;
        options.clients_queue_bytes_max = usize::MAX;
        options.inbox_bytes_max = usize::MAX;
        options.receive_bytes_max = usize::MAX;
        options.clients_max = usize::MAX;
    });
    let network = TcpNetwork::start(&config(0, &addresses), extreme, listener).expect("there is nothing wrong with it");
    network.set_identity(identity(0));
    assert!(matches!(greet(&addresses[0], 7, client(5), 0).await, Answer::Welcome(_)));
}
