//! The clauses of [`vsr::Network`], each as a test of its number, for any transport.
//!
//! Implement [`Networks`] for a way to start the ends of a cluster, then `vsr_sim::network_conformance!(MyNetworks::new())` writes one
//! `#[test]` for each clause:
//!
//! ```
//! use std::sync::Arc;
//! use vsr::memory::MemoryNetwork;
//! use vsr::{ClientId, Network, ReplicaId};
//! use vsr_sim::conformance::network::{Networks, REPLICAS};
//!
//! struct Memory(MemoryNetwork);
//!
//! impl Networks for Memory {
//!     fn replica(&mut self, id: ReplicaId) -> Arc<dyn Network> {
//!         Arc::new(self.0.endpoint(id))
//!     }
//!     fn client(&mut self, id: ClientId) -> Arc<dyn Network> {
//!         Arc::new(self.0.client(id))
//!     }
//! }
//!
//! vsr_sim::network_conformance!(Memory(MemoryNetwork::new(usize::from(REPLICAS))), reliable);
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use vsr::network::{Identity, NetworkError, NetworkEvent};
use vsr::protocol::{DiskId, Envelope, Message, Peer, Random, View};
use vsr::{ClientId, Clock, Network, ReplicaId, SystemClock};

use super::{PATIENCE, messages, poll_few, yield_now};

/// The members of each cluster under test: replicas 0 to 2.
pub const REPLICAS: u8 = 3;

/// One cluster of [`REPLICAS`] replicas on a kind of network, and what can be done to it. None of its ends has been started.
pub trait Networks {
    /// Starts the end of a replica, for the first time or again: what was started under this id before is gone by now. The suite
    /// introduces it.
    fn replica(&mut self, id: ReplicaId) -> Arc<dyn Network>;

    /// Starts the end of a client.
    fn client(&mut self, id: ClientId) -> Arc<dyn Network>;

    /// Runs a future to its end; panics when that takes absurdly long. To be replaced where ends need a runtime around them.
    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        super::block_on(future)
    }

    /// More messages of so many bytes than may wait for a peer that takes none: how many, and of how many bytes. For `bounded`.
    fn flood(&mut self) -> Option<(u64, usize)> {
        None
    }

    /// A message that is over the limit of the transport. For `oversized`.
    fn oversized(&mut self) -> Option<Message> {
        None
    }

    /// Throws bytes at a running replica, as a stranger would. `false` when there is nothing to throw them at. For `garbage`.
    fn garbage(&mut self, _to: ReplicaId, _bytes: &[u8]) -> bool {
        false
    }

    /// An end that has this cluster's addresses, and belongs to another cluster, where it goes by this name. For `foreign`.
    fn foreign(&mut self, _name: Peer) -> Option<Arc<dyn Network>> {
        None
    }
}

/// Writes a test for each clause that any transport can be held to; then those that need a promise or a harm of the [`Networks`], named
/// behind a comma: `reliable` (clauses 2 and 3: a link that stands loses, repeats and reorders nothing), `hints` (6), `bounded` (5),
/// `oversized` (10), `garbage` and `foreign` (4). What is not named is not tested: the list says what a transport was held to.
#[macro_export]
macro_rules! network_conformance {
    ($networks:expr $(, $harm:ident)*) => {
        $crate::network_conformance! { @tests $networks;
            clause_01_sending_never_waits => sending_never_waits,
            clause_02_recv_can_be_dropped => recv_can_be_dropped,
            clause_03_every_kind_of_message_arrives_unchanged => every_kind,
            clause_03_the_largest_messages_arrive_unchanged => largest,
            clause_03_everybody_is_heard_under_the_right_name => right_names,
            clause_03_a_batch_reaches_everybody_whom_it_names => batches,
            clause_07_a_peer_that_was_restarted_is_reached_again => restarts,
            clause_08_clients_are_answered => clients,
            clause_09_a_message_to_nobody_does_no_harm => nobody,
        }
        $($crate::network_conformance! { @$harm $networks })*
    };
    (@reliable $networks:expr) => {
        $crate::network_conformance! { @tests $networks;
            clause_02_dropping_recv_loses_nothing => dropping_recv_loses_nothing,
            clause_03_a_link_that_stands_keeps_everything_in_order => in_order,
        }
    };
    (@bounded $networks:expr) => {
        $crate::network_conformance! { @tests $networks; clause_05_memory_is_bounded => bounded, }
    };
    (@hints $networks:expr) => {
        $crate::network_conformance! { @tests $networks; clause_06_a_broken_connection_is_told => hints, }
    };
    (@oversized $networks:expr) => {
        $crate::network_conformance! { @tests $networks; clause_10_what_is_too_large_is_dropped_alone => oversized, }
    };
    (@garbage $networks:expr) => {
        $crate::network_conformance! { @tests $networks; clause_04_garbage_does_no_harm => garbage, }
    };
    (@foreign $networks:expr) => {
        $crate::network_conformance! { @tests $networks; clause_04_another_cluster_is_not_heard => foreign, }
    };
    (@tests $networks:expr; $($name:ident => $check:ident,)*) => {
        $(#[test]
        fn $name() {
            $crate::conformance::network::$check(&mut $networks);
        })*
    };
}

/// A message may be lost: it is sent again after this pause, which doubles up to the longest one.
const AGAIN: Duration = Duration::from_millis(2);
const AGAIN_MAX: Duration = Duration::from_millis(50);

/// The end of a replica or a client.
struct End {
    me: Peer,
    network: Arc<dyn Network>,
    clock: SystemClock,
    /// A number that no life of this end has used; tests choose lower ones than [`FRESH`] for themselves.
    fresh: Cell<u64>,
    /// What may be heard here beside [`numbered`] messages and [`ballast`], and from whom.
    sent_here: RefCell<Vec<(Peer, Message)>>,
    hints: RefCell<Vec<NetworkEvent>>,
}

const FRESH: u64 = 1 << 32;

fn end(me: Peer, start: u64, network: Arc<dyn Network>) -> End {
    let (clock, fresh) = (SystemClock::new(), Cell::new(start * FRESH));
    End { me, network, clock, fresh, sent_here: RefCell::default(), hints: RefCell::default() }
}

/// The `start`th life of a replica.
fn replica<N: Networks>(networks: &mut N, id: u8, start: u64) -> End {
    let network = networks.replica(ReplicaId(id));
    network.set_identity(Identity::new(DiskId(u128::from(id) + 100), start));
    end(Peer::Replica(ReplicaId(id)), start, network)
}

fn client<N: Networks>(networks: &mut N, id: u128) -> End {
    end(Peer::Client(ClientId(id)), 1, networks.client(ClientId(id)))
}

fn code(peer: Peer) -> u64 {
    match peer {
        Peer::Replica(id) => u64::from(id.0),
        Peer::Client(id) => 128 + (id.0 as u64 & 0x7f),
    }
}

/// A message that says which one it is, from whom and for whom.
fn numbered(from: Peer, to: Peer, number: u64) -> Message {
    let nonce = code(from) << 56 | code(to) << 48 | number;
    match (from, to) {
        (Peer::Client(_), _) => Message::RequestStatus { nonce },
        (_, Peer::Client(_)) => Message::Status { nonce, status: Bytes::new() },
        _ => Message::ReadIndex { nonce },
    }
}

fn numbers(from: &End, to: &End, range: Range<u64>) -> Vec<Message> {
    range.map(|number| numbered(from.me, to.me, number)).collect()
}

/// A message of so many bytes.
fn ballast(number: u64, len: usize) -> Message {
    Message::Query { client: ClientId(9), nonce: number, query: Bytes::from(vec![number as u8; len]) }
}

/// The number of a [`numbered`] message; `None` for [`ballast`]. Nothing else, and nothing that was not for `to`, may be heard.
fn number_of(from: Peer, to: Peer, message: &Message) -> Option<u64> {
    match message {
        Message::RequestStatus { nonce } | Message::Status { nonce, .. } | Message::ReadIndex { nonce } => {
            let number = nonce & ((1 << 48) - 1);
            let sent = numbered(from, to, number);
            assert_eq!(*message, sent, "{to:?} has heard from {from:?} what was never sent to it");
            Some(number)
        }
        Message::Query { nonce, query, .. } => {
            assert!(*message == ballast(*nonce, query.len()), "{to:?} has heard a message that was changed");
            None
        }
        other => panic!("{to:?} has heard a {} from {from:?} that nobody sent", other.name()),
    }
}

impl End {
    fn send(&self, to: Peer, messages: impl IntoIterator<Item = Message>) {
        self.send_batch(messages.into_iter().map(|message| Envelope { to, message }).collect());
    }

    fn send_batch(&self, mut batch: Vec<Envelope>) {
        self.network.send(&mut batch);
        assert!(batch.is_empty(), "send has left {} messages in the batch", batch.len());
    }

    /// The messages among these arrivals; hints are noted.
    fn messages(&self, arrivals: Result<Vec<NetworkEvent>, NetworkError>) -> Vec<(Peer, Message)> {
        let arrivals = arrivals.expect("the network goes on");
        assert!(!arrivals.is_empty(), "recv has ended without an arrival");
        let mut messages = Vec::new();
        for arrival in arrivals {
            match arrival {
                NetworkEvent::Message { from, message } => messages.push((from, message)),
                NetworkEvent::PeerUp(peer) | NetworkEvent::PeerDown { peer, .. } => {
                    assert!(peer != self.me, "{peer:?} was told about itself");
                    self.hints.borrow_mut().push(arrival);
                }
                NetworkEvent::Refused { by, .. } => {
                    assert!(Peer::Replica(by) != self.me, "{by} was told that it refuses itself");
                    self.hints.borrow_mut().push(arrival);
                }
            }
        }
        messages
    }

    /// Whether there was such a hint since they were last forgotten.
    fn was_told(&self, fits: impl Fn(&NetworkEvent) -> bool) -> bool {
        self.hints.borrow().iter().any(fits)
    }

    /// Receives until it is done; does `again` at first, and after each pause.
    async fn until(&self, mut again: impl FnMut(), mut hear: impl FnMut(Peer, Message), done: impl Fn() -> bool) {
        let mut length = AGAIN;
        while !done() {
            again();
            let mut pause = self.clock.sleep_until(self.clock.now().after(length));
            length = (length * 2).min(AGAIN_MAX);
            while !done()
                && let Either::Left((arrivals, _)) = select(self.network.recv(), &mut pause).await
            {
                self.messages(arrivals).into_iter().for_each(|(from, message)| hear(from, message));
            }
        }
    }
}

/// Sends messages until each was heard at the other end, as any one of them may be lost.
async fn deliver(from: &End, to: &End, messages: &[Message]) {
    to.sent_here.borrow_mut().extend(messages.iter().map(|message| (from.me, message.clone())));
    let missing = RefCell::new(messages.to_vec());
    let again = || from.send(to.me, missing.borrow().iter().cloned());
    let hear = |sender, message: Message| {
        let mut missing = missing.borrow_mut();
        if let Some(at) = missing.iter().position(|wanted| sender == from.me && *wanted == message) {
            missing.remove(at);
        } else if !to.sent_here.borrow().contains(&(sender, message.clone())) {
            number_of(sender, to.me, &message);
        }
    };
    to.until(again, hear, || missing.borrow().is_empty()).await;
}

/// There is a way from each of the two to the other.
async fn connect(a: &End, b: &End) {
    for (from, to) in [(a, b), (b, a)] {
        let number = from.fresh.replace(from.fresh.get() + 1);
        deliver(from, to, &[numbered(from.me, to.me, number)]).await;
    }
}

/// Sends on a thread of its own, so that a call that waits is noticed.
#[allow(clippy::disallowed_methods, reason = "a call that never returns cannot be noticed on its own thread")]
fn send_apart(from: &End, to: Peer, batches: impl Iterator<Item = Vec<Message>> + Send + 'static) {
    let (done, wait) = channel();
    let network = from.network.clone();
    let thread = std::thread::spawn(move || {
        for messages in batches {
            let mut batch = messages.into_iter().map(|message| Envelope { to, message }).collect::<Vec<_>>();
            network.send(&mut batch);
            assert!(batch.is_empty(), "send has left {} messages in the batch", batch.len());
        }
        drop(network);
        let _ = done.send(());
    });
    let sent = wait.recv_timeout(PATIENCE);
    assert!(sent != Err(RecvTimeoutError::Timeout), "{:?} waits within send", from.me);
    thread.join().expect("sending");
}

/// Clause 1: not for a peer that was never there, nor for one that is gone, nor for one that takes nothing.
pub fn sending_never_waits<N: Networks>(networks: &mut N) {
    let (zero, two) = (replica(networks, 0, 1), replica(networks, 2, 1));
    let flood = || (0..200).map(|round| vec![ballast(round, 50), ballast(round, 50_000), ballast(round, 0)]);
    let absent = Peer::Replica(ReplicaId(1));
    send_apart(&zero, absent, flood());
    let one = replica(networks, 1, 1);
    networks.block_on(connect(&zero, &one));
    send_apart(&zero, one.me, flood());
    drop(one);
    send_apart(&zero, absent, flood());
    networks.block_on(connect(&zero, &two));
    send_apart(&zero, two.me, flood());
    networks.block_on(deliver(&zero, &two, &numbers(&zero, &two, 1..2)));
}

/// Clause 2, where messages may be lost.
pub fn recv_can_be_dropped<N: Networks>(networks: &mut N) {
    drop_recv(networks, false);
}

/// Clause 2, to the last message.
pub fn dropping_recv_loses_nothing<N: Networks>(networks: &mut N) {
    drop_recv(networks, true);
}

fn drop_recv<N: Networks>(networks: &mut N, is_reliable: bool) {
    let (zero, one) = (replica(networks, 0, 1), replica(networks, 1, 1));
    let mut random = Random::new(1);
    networks.block_on(async {
        connect(&zero, &one).await;
        let mut next = 0;
        let mut heard = Vec::new();
        let numbers_in = |arrivals| {
            let messages = one.messages(arrivals);
            let numbers = messages.into_iter().filter_map(|(from, message)| number_of(from, one.me, &message));
            numbers.filter(|number| *number < FRESH).collect::<Vec<u64>>()
        };
        for _ in 0..10_000 {
            if random.chance(1, 4) {
                let after = next + 1 + random.below(5);
                zero.send(one.me, numbers(&zero, &one, next..after));
                next = after;
            }
            match poll_few(one.network.recv(), 1 + random.below(3)).await {
                Some(arrivals) => heard.extend(numbers_in(arrivals)),
                None => yield_now().await,
            }
        }
        if is_reliable {
            // Behind the last one nothing is on its way any more.
            zero.send(one.me, numbers(&zero, &one, next..next + 1));
            while !heard.contains(&next) {
                heard.extend(numbers_in(one.network.recv().await));
            }
            assert!(heard.into_iter().eq(0..=next), "dropping recv has lost, repeated or reordered something");
        } else {
            // Who was polled and dropped does not swallow the wake of who comes after.
            deliver(&zero, &one, &numbers(&zero, &one, next..next + 100)).await;
        }
    });
}

/// Clause 3: content.
pub fn every_kind<N: Networks>(networks: &mut N) {
    let (zero, one) = (replica(networks, 0, 1), replica(networks, 1, 1));
    let client = client(networks, 1);
    let id = ClientId(1);
    networks.block_on(async {
        deliver(&zero, &one, &messages::of_every_kind()).await;
        deliver(&one, &zero, &messages::of_every_kind()).await;
        deliver(&client, &one, &messages::of_a_client(id)).await;
        deliver(&one, &client, &messages::for_a_client(id)).await;
    });
}

/// Clause 3: content of the greatest length.
pub fn largest<N: Networks>(networks: &mut N) {
    let (zero, one) = (replica(networks, 0, 1), replica(networks, 1, 1));
    networks.block_on(async {
        connect(&zero, &one).await;
        for message in messages::of_the_largest() {
            deliver(&zero, &one, std::slice::from_ref(&message)).await;
            deliver(&one, &zero, &[message]).await;
        }
    });
}

/// Clause 3: who speaks, and to whom.
pub fn right_names<N: Networks>(networks: &mut N) {
    let replicas: Vec<End> = (0..REPLICAS).map(|id| replica(networks, id, 1)).collect();
    let clients: Vec<End> = (1..=2).map(|id| client(networks, id)).collect();
    networks.block_on(async {
        for (at, a) in replicas.iter().enumerate() {
            for b in &replicas[at + 1..] {
                connect(a, b).await;
            }
            for client in &clients {
                connect(client, a).await;
            }
        }
        // Every peer sends at once; then each receives.
        let everybody = || replicas.iter().chain(&clients);
        for from in everybody() {
            let to: Vec<&End> = replicas.iter().filter(|to| to.me != from.me).collect();
            from.send_batch(mixed(from, &to, 1..50));
        }
        for from in &replicas {
            from.send_batch(mixed(from, &clients.iter().collect::<Vec<_>>(), 1..50));
        }
        for to in everybody() {
            for from in replicas.iter().filter(|from| from.me != to.me) {
                deliver(from, to, &numbers(from, to, 50..60)).await;
            }
        }
    });
}

fn to_one(from: &End, to: &End, number: u64) -> Envelope {
    Envelope { to: to.me, message: numbered(from.me, to.me, number) }
}

/// Messages for all of these in turn.
fn mixed(from: &End, to: &[&End], range: Range<u64>) -> Vec<Envelope> {
    range.flat_map(|number| to.iter().map(move |to| to_one(from, to, number))).collect()
}

/// Clause 3: batches, where messages may be lost.
pub fn batches<N: Networks>(networks: &mut N) {
    let (zero, one, two) = (replica(networks, 0, 1), replica(networks, 1, 1), replica(networks, 2, 1));
    let client = client(networks, 1);
    networks.block_on(async {
        connect(&client, &zero).await;
        let all = [&one, &client, &two];
        for to in all {
            let heard = RefCell::new(BTreeSet::new());
            let again = || zero.send_batch(mixed(&zero, &all, 1..100));
            let hear = |from, message| heard.borrow_mut().extend(number_of(from, to.me, &message));
            to.until(again, hear, || (1..100).all(|number| heard.borrow().contains(&number))).await;
        }
    });
}

/// Clause 3, where a link that stands loses, repeats and reorders nothing.
pub fn in_order<N: Networks>(networks: &mut N) {
    let (zero, one, two) = (replica(networks, 0, 1), replica(networks, 1, 1), replica(networks, 2, 1));
    let client = client(networks, 1);
    let all = [&one, &client, &two];
    networks.block_on(async {
        for to in all {
            connect(to, &zero).await;
        }
        let last = 3000;
        let (mut next, mut random) = (1, Random::new(3));
        while next < last {
            let after = (next + 1 + random.below(300)).min(last);
            zero.send_batch(mixed(&zero, &all, next..after));
            next = after;
        }
        for to in all {
            let mut expected = 1;
            while expected < last {
                for (from, message) in to.messages(to.network.recv().await) {
                    // What was sent until there was a link may have arrived more than once.
                    if let Some(number) = number_of(from, to.me, &message).filter(|number| *number < FRESH) {
                        assert_eq!(number, expected, "{:?} is missing some, or has heard them out of order", to.me);
                        expected += 1;
                    }
                }
            }
        }
    });
}

/// Clause 4: strangers' bytes.
pub fn garbage<N: Networks>(networks: &mut N) {
    let (zero, one) = (replica(networks, 0, 1), replica(networks, 1, 1));
    let client = client(networks, 1);
    let everything_works = async || {
        connect(&zero, &one).await;
        connect(&client, &zero).await;
    };
    networks.block_on(everything_works());
    forget_hints(&[&zero, &one, &client]);
    let frame =
        vsr::wire::encode(&Message::StartViewChange { leaving: View::default(), life: vsr::protocol::Life::default() })
            .expect("a frame")
            .head;
    let mut random = Random::new(4);
    let mut noise = |len: usize| (0..len).map(|_| random.next_u64() as u8).collect::<Vec<u8>>();
    let mut claims_too_much = frame.to_vec();
    claims_too_much[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut garbage = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nHost: replica\r\n\r\n".to_vec(),
        vec![0; 10_000],
        vec![0xff; 100],
        frame.to_vec(),
        frame.repeat(50),
        frame[..frame.len() / 2].to_vec(),
        claims_too_much,
    ];
    garbage.extend((0..8).map(|power| noise(3 << (2 * power))));
    for bytes in garbage {
        assert!(networks.garbage(ReplicaId(0), &bytes), "there is nothing that bytes can be thrown at");
        networks.block_on(everything_works());
    }
    assert_unbroken(&[&zero, &one, &client], "garbage");
}

fn forget_hints(ends: &[&End]) {
    ends.iter().for_each(|end| end.hints.borrow_mut().clear());
}

/// None of these was told that a connection to another one of them broke.
fn assert_unbroken(ends: &[&End], by: &str) {
    for end in ends {
        let broken = ends.iter().find(|other| end.was_told(is_down(other.me)));
        assert!(broken.is_none(), "{by} has broken the connection of {:?} and {:?}", end.me, broken.map(|end| end.me));
    }
}

fn is_down(of: Peer) -> impl Fn(&NetworkEvent) -> bool {
    move |hint| matches!(hint, NetworkEvent::PeerDown { peer, .. } if *peer == of)
}

/// How long strangers try to be heard.
const STRANGERS: Duration = Duration::from_millis(300);

/// Clause 4: another cluster at the same addresses.
pub fn foreign<N: Networks>(networks: &mut N) {
    let (zero, two) = (replica(networks, 0, 1), replica(networks, 2, 1));
    let name = Peer::Replica(ReplicaId(1));
    let mut strangers = Vec::new();
    for peer in [name, Peer::Client(ClientId(50))] {
        let network = networks.foreign(peer).expect("an end of another cluster");
        network.set_identity(Identity::new(DiskId(7), 90));
        strangers.push(end(peer, 1, network));
    }
    networks.block_on(async {
        // Nothing tells when a stranger has given up: it has as long as the cluster's own messages take many times over.
        let end = zero.clock.now().after(STRANGERS);
        for round in 1.. {
            if zero.clock.now() > end {
                break;
            }
            for stranger in &strangers {
                for to in [&zero, &two] {
                    // It would be delivered as a message that no peer has sent.
                    stranger.send(to.me, [numbered(Peer::Replica(ReplicaId(77)), to.me, round)]);
                    to.send(stranger.me, [ballast(round, 10)]);
                }
                if let Some(arrivals) = poll_few(stranger.network.recv(), 1).await {
                    assert!(stranger.messages(arrivals).is_empty(), "another cluster's end has heard something");
                }
            }
            deliver(&zero, &two, &numbers(&zero, &two, round..round + 1)).await;
            deliver(&two, &zero, &numbers(&two, &zero, round..round + 1)).await;
        }
    });
    drop(strangers);
    let one = replica(networks, 1, 1);
    networks.block_on(async {
        connect(&zero, &one).await;
        connect(&one, &two).await;
    });
}

/// Clause 5.
pub fn bounded<N: Networks>(networks: &mut N) {
    let (count, len) = networks.flood().expect("more than may wait");
    let (zero, one) = (replica(networks, 0, 1), replica(networks, 1, 1));
    networks.block_on(connect(&zero, &one));
    let batches = (0..count)
        .step_by(50)
        .map(move |from| (from..count.min(from + 50)).map(|number| ballast(number, len)).collect());
    send_apart(&zero, one.me, batches);
    let (kept, last) = (RefCell::new(BTreeSet::new()), Cell::new(false));
    let again = || zero.send(one.me, numbers(&zero, &one, 1..2));
    let hear = |from, message: Message| match message {
        Message::Query { nonce, .. } => _ = kept.borrow_mut().insert(nonce),
        other => last.set(last.get() || number_of(from, one.me, &other) == Some(1)),
    };
    networks.block_on(one.until(again, hear, || last.get()));
    let kept = kept.take();
    assert!((kept.len() as u64) < count, "all of {count} messages of {len} bytes were kept for a peer that took none");
    assert!(kept.contains(&0), "the oldest one is gone: it is the newest ones that are dropped");
}

/// Clause 6.
pub fn hints<N: Networks>(networks: &mut N) {
    let (zero, one) = (replica(networks, 0, 1), replica(networks, 1, 1));
    let client = client(networks, 1);
    networks.block_on(async {
        connect(&zero, &one).await;
        connect(&client, &one).await;
    });
    let name = one.me;
    // Waits for a hint about the one, who is spoken to: some connections are only found broken then.
    let told = async |end: &End, hint: &dyn Fn(&NetworkEvent) -> bool| {
        let again = || end.send(name, [numbered(end.me, name, 1)]);
        end.until(again, |from, message| _ = number_of(from, end.me, &message), || end.was_told(hint)).await;
        end.hints.borrow_mut().clear();
    };
    forget_hints(&[&zero, &client]);
    drop(one);
    networks.block_on(async {
        told(&zero, &is_down(name)).await;
        told(&client, &is_down(name)).await;
    });
    let one = replica(networks, 1, 2);
    networks.block_on(async {
        told(&zero, &|hint| *hint == NetworkEvent::PeerUp(name)).await;
        told(&client, &|hint| *hint == NetworkEvent::PeerUp(name)).await;
        connect(&zero, &one).await;
        connect(&client, &one).await;
    });
}

/// Clause 7.
pub fn restarts<N: Networks>(networks: &mut N) {
    let (mut zero, mut one) = (replica(networks, 0, 1), replica(networks, 1, 1));
    let client = client(networks, 1);
    for start in 2..=4 {
        networks.block_on(async {
            connect(&zero, &one).await;
            connect(&client, &one).await;
            connect(&client, &zero).await;
        });
        // One after the other, so that each is once the one that stays; the last time both at once.
        drop(one);
        if start == 4 {
            drop(zero);
            zero = replica(networks, 0, start);
            one = replica(networks, 1, start);
            continue;
        }
        one = replica(networks, 1, start);
        networks.block_on(connect(&zero, &one));
        drop(zero);
        zero = replica(networks, 0, start);
    }
    networks.block_on(async {
        connect(&zero, &one).await;
        connect(&client, &one).await;
    });
}

/// Clause 8.
pub fn clients<N: Networks>(networks: &mut N) {
    let replicas: Vec<End> = (0..REPLICAS).map(|id| replica(networks, id, 1)).collect();
    let first = client(networks, 1);
    for id in 2..=5 {
        let second = client(networks, id);
        networks.block_on(async {
            for replica in &replicas {
                connect(&first, replica).await;
                connect(&second, replica).await;
            }
        });
        let gone = second.me;
        drop(second);
        // An answer for a client that is gone reaches no other one.
        replicas.iter().for_each(|replica| replica.send(gone, [numbered(replica.me, gone, 1)]));
        networks.block_on(async {
            for replica in &replicas {
                connect(&first, replica).await;
            }
        });
    }
}

/// Clause 9.
pub fn nobody<N: Networks>(networks: &mut N) {
    let (zero, one) = (replica(networks, 0, 1), replica(networks, 1, 1));
    let client = client(networks, 1);
    let never_there = [Peer::Replica(ReplicaId(2)), Peer::Replica(ReplicaId(200)), Peer::Client(ClientId(60))];
    networks.block_on(async {
        for round in 0..20 {
            for (from, to) in [(&zero, &one), (&one, &zero), (&client, &zero)] {
                let nobody = never_there.map(|to| Envelope { to, message: numbered(from.me, to, round) });
                let wanted = to_one(from, to, round);
                from.send_batch(nobody.into_iter().chain([wanted.clone()]).collect());
                deliver(from, to, &[wanted.message]).await;
            }
        }
    });
}

/// Clause 10.
pub fn oversized<N: Networks>(networks: &mut N) {
    let message = networks.oversized().expect("a message that is too large");
    let (zero, one) = (replica(networks, 0, 1), replica(networks, 1, 1));
    let client = client(networks, 1);
    networks.block_on(async {
        connect(&zero, &one).await;
        connect(&client, &zero).await;
        forget_hints(&[&zero, &one, &client]);
        for round in 1..=5 {
            for (from, to) in [(&zero, &one), (&one, &zero), (&client, &zero)] {
                let around = numbers(from, to, 2 * round..2 * round + 2);
                from.send(to.me, [around[0].clone(), message.clone(), around[1].clone()]);
                deliver(from, to, &around).await;
                connect(from, to).await;
            }
        }
    });
    assert_unbroken(&[&zero, &one, &client], "a message that is too large");
}
