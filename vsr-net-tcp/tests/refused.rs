//! Two processes of one replica id: who is let in, and who is told.

mod support;

use std::io::Read;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use vsr::memory::MemoryStorage;
use vsr::network::{Identity, NetworkEvent};
use vsr::protocol::{Envelope, Peer};
use vsr::wire::is_keep_alive;
use vsr::{ApplyContext, Checksum, Network, QueryContext, Replica, ReplicaId, RestoreError, Snapshot, StateMachine};
use vsr_net_tcp::{Rejection, TcpNetwork, TcpOptions};

use support::{
    Answer, Speaker, WAIT, answer, assert_connected, cluster, config, greet, identity, is_closed, knock, listeners,
    options, read_frame, replica, until, vote,
};

/// Replica 0 of two, its address, and the checksum that its peer has to name.
async fn alone(options: TcpOptions) -> (TcpNetwork, String, Checksum) {
    let (mut listeners, addresses) = listeners(2).await;
    let config = config(0, &addresses);
    let network = TcpNetwork::start(&config, options, listeners.remove(0)).expect("a network");
    network.set_identity(identity(0));
    (network, addresses[0].clone(), config.membership.checksum())
}

/// Knocks until it is let in, as a process that was refused does.
async fn let_in(address: &str, speaker: Speaker) -> TcpStream {
    let knocking = async {
        loop {
            if let (stream, Answer::Welcome(_)) = knock(address, 7, speaker, 0).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, knocking).await.expect("it is let in")
}

fn restarted(times: u64) -> Identity {
    let Identity { disk_id, starts, .. } = identity(1);
    Identity::new(disk_id, starts + times)
}

/// A copy that was started later shut the original out.
#[tokio::test]
async fn a6_a_copy_does_not_take_the_place_of_a_process_that_is_connected() {
    let (networks, addresses) = cluster(2).await;
    assert_connected(&networks[0], &networks[1], 1).await;
    let membership = config(0, &addresses).membership.checksum();
    for starts in 0..3 {
        let copy = replica(1, membership, restarted(starts), 99);
        let answer = greet(&addresses[0], 7, copy, 0).await;
        assert_eq!(answer, Answer::Rejected(Rejection::AlreadyConnected));
    }
    // The original has not noticed.
    networks[0].send(&mut vec![Envelope { to: Peer::Replica(ReplicaId(1)), message: vote(77) }]);
    until(&networks[1], |arrival| match arrival {
        NetworkEvent::PeerDown { .. } => panic!("the original has lost its connection"),
        NetworkEvent::Message { message, .. } => (message == vote(77)).then_some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a6_a_process_that_connects_again_replaces_its_own_connection() {
    let (_network, address, membership) = alone(options()).await;
    let me = replica(1, membership, identity(1), 5);
    let (mut first, answer) = knock(&address, 7, me, 0).await;
    assert!(matches!(answer, Answer::Welcome(_)), "{answer:?}");
    let (_second, answer) = knock(&address, 7, me, 0).await;
    assert!(matches!(answer, Answer::Welcome(_)), "{answer:?}");
    assert!(is_closed(&mut first).await);
}

/// Nothing is held against anybody whose opponent is gone: the healthy replica stayed shut out until a restart.
#[tokio::test]
async fn a6_who_was_refused_is_let_in_when_the_other_process_is_gone() {
    let (_network, address, membership) = alone(options()).await;
    let copy = replica(1, membership, restarted(50), 5);
    let first = let_in(&address, copy).await;
    let older = replica(1, membership, identity(1), 6);
    assert_eq!(greet(&address, 7, older, 0).await, Answer::Rejected(Rejection::OldCopy));
    let reformatted = replica(1, membership, identity(9), 7);
    assert_eq!(greet(&address, 7, reformatted, 0).await, Answer::Rejected(Rejection::OtherIncarnation));
    let later = replica(1, membership, restarted(51), 8);
    assert_eq!(greet(&address, 7, later, 0).await, Answer::Rejected(Rejection::AlreadyConnected));
    drop(first);
    for speaker in [older, reformatted, later] {
        drop(let_in(&address, speaker).await);
    }
}

/// A machine that lost its power closes no connection. What comes up again in its place is refused at first, for the
/// other may be alive, and does not wait for long: the old connection is given up after four keep-alives of silence.
#[tokio::test]
async fn a6_a_silent_connection_is_given_up_for_its_successor() {
    let keep_alive = Duration::from_millis(50);
    let begun = Instant::now();
    let (_network, address, membership) = alone(options().with(|options| options.keep_alive = keep_alive)).await;
    let mut first = let_in(&address, replica(1, membership, identity(1), 5)).await;
    let_in(&address, replica(1, membership, restarted(1), 6)).await;
    let waited = begun.elapsed();
    assert!(waited >= keep_alive * 4, "the first one was shut out after {waited:?}");
    assert!(is_closed(&mut first).await);
}

/// A machine that is up again answers what comes on a connection of its earlier life with a reset. So something is
/// written on the old connection as soon as a successor is refused for its sake.
#[tokio::test]
async fn a6_a_connection_that_keeps_a_successor_out_is_probed_at_once() {
    // Nothing else is written in the time of this test, and nothing is given up.
    let patient = options().with(|options| options.keep_alive = Duration::from_secs(600));
    let (_network, address, membership) = alone(patient).await;
    let mut first = let_in(&address, replica(1, membership, identity(1), 5)).await;
    let successor = replica(1, membership, restarted(1), 6);
    assert_eq!(greet(&address, 7, successor, 0).await, Answer::Rejected(Rejection::AlreadyConnected));
    let (header, payload) = read_frame(&mut first).await;
    assert!(is_keep_alive(&header, &payload), "{header:?}");
    drop(first);
    let_in(&address, successor).await;
}

#[tokio::test]
async fn a6_a_refused_replica_hears_by_whom_and_why_once_and_when_it_is_over() {
    let (mut networks, addresses) = cluster(2).await;
    assert_connected(&networks[0], &networks[1], 1).await;
    let (mut spare, _) = listeners(1).await;
    // No handshake fails for any other reason.
    let patient = options().with(|options| options.handshake = WAIT);
    let copy = TcpNetwork::start(&config(1, &addresses), patient, spare.remove(0)).expect("a network");
    copy.set_identity(restarted(1));
    let (by, why) = until(&copy, |arrival| match arrival {
        NetworkEvent::Refused { by, why } => Some((by, why)),
        _ => None,
    })
    .await;
    assert_eq!((by, why), (ReplicaId(0), Rejection::AlreadyConnected.to_string()));
    assert_connected(&networks[0], &networks[1], 1).await;
    assert_connected(&networks[1], &networks[0], 0).await;
    drop(networks.pop());
    until(&copy, |arrival| match arrival {
        NetworkEvent::PeerUp(peer) => (peer == Peer::Replica(ReplicaId(0))).then_some(()),
        NetworkEvent::Refused { why, .. } => panic!("it was told twice: {why}"),
        _ => None,
    })
    .await;
}

/// A refusal ends with its cause, also if the peer is not heard of again: a machine that lost its power answers nothing. The refusal
/// stayed in the status of the other one.
#[tokio::test]
async fn a6_a_refusal_is_over_when_the_peer_answers_no_more() {
    let (mut listening, addresses) = listeners(2).await;
    let (own, peer) = (listening.remove(1), listening.remove(0));
    let network = TcpNetwork::start(&config(1, &addresses), options(), own).expect("a network");
    network.set_identity(identity(1));
    let _first = answer(&peer, &Answer::Rejected(Rejection::AlreadyConnected)).await;
    let by = until(&network, |arrival| match arrival {
        NetworkEvent::Refused { by, .. } => Some(by),
        _ => None,
    })
    .await;
    assert_eq!(by, ReplicaId(0));
    // From here on nobody accepts a connection: the handshakes time out.
    let over = until(&network, |arrival| match arrival {
        NetworkEvent::PeerDown { peer, refused } => Some((peer, refused)),
        NetworkEvent::Refused { why, .. } => panic!("it was told twice: {why}"),
        _ => None,
    })
    .await;
    assert_eq!(over, (Peer::Replica(ReplicaId(0)), false));
}

#[derive(Default)]
struct Counter(i64);

impl StateMachine for Counter {
    type Command = i64;
    type Reply = i64;
    type Query = ();
    type Answer = i64;

    fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 {
        self.0 += n;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> i64 {
        self.0
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0)
    }

    fn restore(from: &mut dyn Read) -> Result<Counter, RestoreError> {
        Snapshot::read(from).map(Counter)
    }
}

/// It looked like a replica that waits for its peers, and said nothing.
#[tokio::test]
async fn a6_a_refused_replica_says_so_in_its_status_and_says_it_first() {
    let (mut networks, addresses) = cluster(2).await;
    assert_connected(&networks[0], &networks[1], 1).await;
    let (mut spare, _) = listeners(1).await;
    let config = config(1, &addresses);
    let storage = MemoryStorage::format(&config);
    let network = TcpNetwork::start(&config, options(), spare.remove(0)).expect("a network");
    let builder = Replica::builder(config, Counter::default()).storage(storage).network(network);
    let (refused, handle) = builder.build().expect("a replica");
    let running = tokio::spawn(refused.run());
    let becomes = async |is_refused: bool| {
        let waiting = async {
            while handle.status().refused_by.is_empty() == is_refused {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(WAIT, waiting).await.expect("in time");
    };
    becomes(true).await;
    // Its disk is another one.
    let why = Rejection::OtherIncarnation.to_string();
    assert_eq!(handle.status().refused_by, [(ReplicaId(0), why.clone())]);
    let explained = handle.explain().await;
    assert!(explained.starts_with(&format!("refused by replica 0: {why}; ")), "{explained}");
    drop(networks.pop());
    becomes(false).await;
    let explained = handle.explain().await;
    assert!(!explained.contains("refused"), "{explained}");
    running.abort();
}
