//! Every limit on lengths at its documented maximum, over sockets: what is as long as it may be arrives, and the least queue that the
//! configuration allows is enough for it.

mod support;

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use vsr::memory::MemoryStorage;
use vsr::network::NetworkEvent;
use vsr::protocol::limits::{ANSWER_MAX, BATCH_BYTES_MAX, PIPELINE_MAX, QUERY_MAX, REPLY_MAX, REQUEST_MAX};
use vsr::protocol::{
    CommitNumber, Envelope, Message, OpNumber, Outcome, Peer, Position, Reply, Request, RequestNumber, SessionId, View,
};
use vsr::wire::longest_frame;
use vsr::{
    ApplyContext, Checksum, Client, ClientConfig, ClientId, ClusterId, Config, ConfigError, Network, QueryContext,
    QueryError, Replica, ReplicaId, RestoreError, Snapshot, StateMachine, SubmitError, SystemClock,
};
use vsr_net_tcp::{TcpClient, TcpError, TcpNetwork, TcpOptions};
use vsr_sim::conformance::storage::entry;

use support::{config, identity, listeners, until, up};

/// A configuration in which every length is as large as it may be.
fn largest(replica: u8, addresses: &[String]) -> Config {
    config(replica, addresses).with(|config| {
        let constants = &mut config.membership.constants;
        constants.pipeline_max = PIPELINE_MAX.max as u32;
        constants.request_max = REQUEST_MAX.max as u32;
        constants.reply_max = REPLY_MAX.max as u32;
        constants.session_replies_max = 2 * REPLY_MAX.max as u32;
        constants.batch_bytes_max = BATCH_BYTES_MAX.max as u32;
        config.query_max = QUERY_MAX.max as u32;
        config.answer_max = ANSWER_MAX.max as u32;
        config.log_bytes_max = 2 << 30;
        // A machine that is busy with messages of 64 MiB is not a dead one.
        config.timing.heartbeat = Duration::from_secs(1);
        config.timing.primary_timeout = Duration::from_secs(60);
        config.timing.quorum_timeout = Duration::from_secs(60);
    })
}

/// Queues that are as short as the configuration allows.
fn tight(config: &Config) -> TcpOptions {
    let least = longest_frame(&config.membership.constants, config.answer_max) as usize;
    support::options().with(|options| {
        (options.queue_bytes_max, options.clients_queue_bytes_max) = (least, least);
        options.clients_max = 4;
        options.keep_alive = Duration::from_secs(10);
    })
}

fn start(replica: u8, addresses: &[String], listener: TcpListener) -> (Config, TcpNetwork) {
    let config = largest(replica, addresses);
    let network = TcpNetwork::start(&config, tight(&config), listener).expect("a network");
    (config, network)
}

fn filled(len: u64) -> Bytes {
    Bytes::from(vec![7; len as usize])
}

/// Sends a message once; it arrives, and so does a short one behind it: then nothing of the long one waits in the queue any more.
async fn arrives(from: &impl Network, to: Peer, at: &impl Network, message: Message) {
    for message in [message, Message::RequestStatus { nonce: 1 }] {
        from.send(&mut vec![Envelope { to, message: message.clone() }]);
        let name = message.name();
        until(at, |arrival| match arrival {
            NetworkEvent::Message { message: arrived, .. } => {
                assert!(arrived == message, "{} arrived in place of {name}", arrived.name());
                Some(())
            }
            NetworkEvent::PeerDown { .. } => panic!("{name} has ended the connection"),
            _ => None,
        })
        .await;
    }
}

/// Each kind of message with the longest thing that it may carry, sent once, through queues as short as they may be.
#[tokio::test]
async fn b10_the_longest_messages_arrive_over_sockets() {
    let (held, addresses) = listeners(2).await;
    let networks: Vec<TcpNetwork> = (0..).zip(held).map(|(id, listener)| start(id, &addresses, listener).1).collect();
    (0..).zip(&networks).for_each(|(id, network)| network.set_identity(identity(id)));
    let ids = [0, 1].map(|id| Peer::Replica(ReplicaId(id)));
    up(&networks[0], ids[1]).await;
    up(&networks[1], ids[0]).await;
    let id = ClientId(77);
    let of_client = TcpClient::connect(ClusterId(7), id, addresses.iter().cloned(), tight(&largest(0, &addresses)));
    let of_client = of_client.await.expect("a client");
    up(&of_client, ids[0]).await;
    up(&networks[0], Peer::Client(id)).await;

    let session = SessionId(Position { op: OpNumber(u64::MAX), index: u32::MAX });
    let requests = |forwarded| {
        let (number, floor) = (RequestNumber(2), RequestNumber(1));
        let request = Request { client: id, session, number, floor, command: filled(REQUEST_MAX.max) };
        Message::Requests { requests: vec![request], forwarded }
    };
    let replies = || {
        let (number, outcome) = (RequestNumber(2), Outcome::Reply(filled(REPLY_MAX.max)));
        let reply = Reply { client: id, session, number, outcome, position: session.0, request: Checksum(9) };
        Message::Replies { view: View::default(), replies: vec![reply] }
    };
    let query = || Message::Query { client: id, nonce: u64::MAX, query: filled(QUERY_MAX.max) };
    let of_op = |op| entry(op, 0, Checksum(3), filled(BATCH_BYTES_MAX.max));
    // The bodies of a repair end behind the first byte over a mebibyte.
    let bodies = vec![entry(1, 0, Checksum(3), filled((1 << 20) - 1)), of_op(2)];
    let headers = (0..PIPELINE_MAX.max).map(|op| entry(op + 1, 0, Checksum(u128::MAX), Bytes::new()).header).collect();
    for message in [
        requests(true),
        replies(),
        Message::Prepare { view: View::default(), commit: CommitNumber(0), entry: of_op(1) },
        Message::Entries { entries: bodies },
        Message::Headers { headers },
    ] {
        arrives(&networks[1], ids[0], &networks[0], message).await;
    }
    for message in [requests(false), query()] {
        arrives(&of_client, ids[0], &networks[0], message).await;
    }
    let (answer, position, view) = (Ok(filled(ANSWER_MAX.max)), OpNumber(u64::MAX), View::default());
    for message in [replies(), Message::Answer { client: id, nonce: u64::MAX, answer, position, view }] {
        arrives(&networks[0], Peer::Client(id), &of_client, message).await;
    }
}

/// A byte less than the longest frame is refused when the transport starts: for one connection, and for all clients together. With the
/// defaults of both, the largest answers are refused as well.
#[tokio::test]
async fn b10_a_queue_that_could_never_send_the_longest_message_is_refused() {
    let (mut held, addresses) = listeners(4).await;
    let config = largest(0, &addresses);
    let least = longest_frame(&config.membership.constants, config.answer_max);
    let short = |change: fn(&mut TcpOptions)| tight(&config).with(change);
    for (expected, options) in [
        ("TcpOptions::queue_bytes_max", short(|options| options.queue_bytes_max -= 1)),
        ("TcpOptions::clients_queue_bytes_max", short(|options| options.clients_queue_bytes_max -= 1)),
        ("TcpOptions::queue_bytes_max", TcpOptions::default()),
    ] {
        let refused = TcpNetwork::start(&config, options, held.pop().expect("a listener")).expect_err(expected);
        let TcpError::Config(ConfigError::Misfit { field, other, least: named, .. }) = refused else {
            panic!("{refused}")
        };
        assert_eq!((field, other, named), (expected, "answer_max", least));
    }
}

/// Of 8 bytes it replies, and answers, with as many bytes as they say; of others with their length in 8 bytes.
struct Lengths;

fn bytes_of(len: u64) -> Bytes {
    Bytes::copy_from_slice(&len.to_le_bytes())
}

fn lengths(given: &Bytes) -> Bytes {
    match <[u8; 8]>::try_from(&given[..]) {
        Ok(len) => filled(u64::from_le_bytes(len)),
        Err(_) => bytes_of(given.len() as u64),
    }
}

impl StateMachine for Lengths {
    type Command = Bytes;
    type Reply = Bytes;
    type Query = Bytes;
    type Answer = Bytes;
    fn apply(&mut self, _: &ApplyContext, command: Bytes) -> Bytes {
        lengths(&command)
    }
    fn query(&self, _: &QueryContext, query: Bytes) -> Bytes {
        lengths(&query)
    }
    fn snapshot(&self) -> Snapshot {
        Snapshot::of(())
    }
    fn restore(_: &mut dyn Read) -> Result<Lengths, RestoreError> {
        Ok(Lengths)
    }
}

/// A whole cluster on sockets, with every length at its maximum: a client gets each of the longest through, is refused a byte more in the
/// right words, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_the_longest_of_each_goes_through_a_cluster_on_sockets() {
    let (held, addresses) = listeners(3).await;
    let mut handles = Vec::new();
    for (id, listener) in (0..).zip(held) {
        let (config, network) = start(id, &addresses, listener);
        let storage = MemoryStorage::format(&config);
        let builder = Replica::builder(config, Lengths).storage(storage).network(network);
        let (replica, handle) = builder.build().expect("a replica");
        tokio::spawn(replica.run());
        handles.push(handle);
    }
    let of_client = ClientConfig::new(3).with(|config| {
        (config.request_max, config.query_max) = (REQUEST_MAX.max as u32, QUERY_MAX.max as u32);
        config.reply_timeout = Duration::from_secs(20);
    });
    let network =
        TcpClient::connect(ClusterId(7), of_client.id, addresses.iter().cloned(), tight(&largest(0, &addresses)));
    let network = network.await.expect("a client");
    let (client, runner) = Client::<Lengths>::new(of_client, network, SystemClock::new());
    tokio::spawn(runner.run());

    let len = |bytes: Bytes| bytes.len() as u64;
    // From a client, and from a handle of whichever replica: the other two have to forward, and to ask.
    let (longest, longer) = (filled(REQUEST_MAX.max), filled(REQUEST_MAX.max + 1));
    assert_eq!(client.submit(longest.clone()).await, Ok(bytes_of(REQUEST_MAX.max)));
    assert_eq!(client.submit(longer.clone()).await, Err(SubmitError::TooLarge));
    assert_eq!(client.submit(bytes_of(REPLY_MAX.max)).await.map(len), Ok(REPLY_MAX.max));
    assert_eq!(client.submit(bytes_of(REPLY_MAX.max + 1)).await, Err(SubmitError::ReplyLost));
    for handle in &handles {
        assert_eq!(handle.submit(longest.clone()).await, Ok(bytes_of(REQUEST_MAX.max)));
        assert_eq!(handle.submit(bytes_of(REPLY_MAX.max)).await.map(len), Ok(REPLY_MAX.max));
        assert_eq!(handle.submit(longer.clone()).await, Err(SubmitError::TooLarge));
    }
    assert_eq!(client.query(filled(QUERY_MAX.max)).await, Ok(bytes_of(QUERY_MAX.max)));
    assert_eq!(client.query(filled(QUERY_MAX.max + 1)).await, Err(QueryError::TooLarge));
    assert_eq!(client.query(bytes_of(ANSWER_MAX.max)).await.map(len), Ok(ANSWER_MAX.max));
    assert_eq!(client.query(bytes_of(ANSWER_MAX.max + 1)).await, Err(QueryError::AnswerTooLarge));
    assert_eq!(client.submit(Bytes::from_static(b"x")).await, Ok(bytes_of(1)));
    for handle in handles {
        handle.shutdown().await;
    }
}
