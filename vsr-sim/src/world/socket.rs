//! Simulated sockets: a user's own network under the faults of the simulated one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::poll_fn;
use vsr::Network;
use vsr::network::{Identity, NetworkError, NetworkEvent};
use vsr::protocol::{Envelope, Peer};

use super::network::{LATE, delay};
use super::{Life, Planned, World, lock, site};
use crate::check::Observation;
use crate::faults::{FRAME, MessageFate, MessageKey};
use crate::report::TraceKind;

/// How a network is made on its socket.
pub(crate) type NetworkOf = Arc<dyn Fn(SimSocket) -> Box<dyn Network> + Send + Sync>;

/// One node's end of the simulated network, for another implementation of [`Network`]: it carries frames of bytes, as datagrams
/// are, of any size. A frame may be lost, repeated, delayed for long, reordered, delivered to another node, or have a bit
/// flipped; what it says is the network's to check.
pub struct SimSocket {
    life: Life,
    own: Peer,
}

/// What a socket hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// A frame, and who sent it.
    Frame {
        /// The sender.
        from: Peer,
        /// The content, as far as the faults left it.
        bytes: Bytes,
    },
    /// There is a connection to this peer now.
    Up(Peer),
    /// The connection to this peer broke.
    Down {
        /// The peer.
        peer: Peer,
        /// A reconnect was refused.
        refused: bool,
    },
}

impl SimSocket {
    /// Whose end this is.
    #[must_use]
    pub fn own(&self) -> Peer {
        self.own
    }

    /// Sends a frame. Never waits.
    pub fn send(&self, to: Peer, frame: Bytes) {
        lock(&self.life.world).send_frame(self.life.node, to, frame);
    }

    /// What has arrived; waits for something. Dropping the future loses nothing.
    pub async fn recv(&self) -> Vec<SocketEvent> {
        poll_fn(|_: &mut Context<'_>| {
            let mut world = lock(&self.life.world);
            let heard = world.take_heard(self.life.node);
            if heard.is_empty() {
                world.nodes[self.life.node].inbox_flag = Some(self.life.flag.clone());
                return Poll::Pending;
            }
            Poll::Ready(heard)
        })
        .await
    }
}

impl std::fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimSocket").field(&self.own).finish()
    }
}

/// The frames of all sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    arrived: BTreeMap<usize, Vec<SocketEvent>>,
    /// How many frames went from one node to another.
    counts: BTreeMap<(usize, usize), u32>,
}

impl World {
    fn take_heard(&mut self, node: usize) -> Vec<SocketEvent> {
        let mut heard = self.sockets.arrived.remove(&node).unwrap_or_default();
        // Hints come the way they do without sockets.
        heard.extend(std::mem::take(&mut self.nodes[node].inbox).into_iter().filter_map(|arrival| match arrival {
            NetworkEvent::PeerUp(peer) => Some(SocketEvent::Up(peer)),
            NetworkEvent::PeerDown { peer, refused } => Some(SocketEvent::Down { peer, refused }),
            NetworkEvent::Message { .. } | NetworkEvent::Refused { .. } => None,
        }));
        heard
    }

    fn send_frame(&mut self, from: usize, to: Peer, bytes: Bytes) {
        let Some(to) = self.node_of(to).filter(|_| self.nodes[from].dying.is_none()) else { return };
        let nth = self.sockets.counts.entry((from, to)).or_default();
        *nth += 1;
        let key = MessageKey { from, to, kind: FRAME, subject: 0, nth: *nth };
        let mut random = self.draw(site::DELAY, key.hash(), 0);
        let mut at = self.now + delay(&self.options, &mut random);
        let (mut to, mut bytes) = (to, bytes);
        if self.faults_on {
            match self.message_fate(key, false) {
                Some(MessageFate::Drop) => return self.trace.count("drops"),
                Some(MessageFate::Again(after)) => {
                    self.trace.count(if after > LATE { "replays" } else { "duplicates" });
                    self.plan(at + after, Planned::Frame { from, to, bytes: bytes.clone() });
                }
                Some(MessageFate::Corrupt(bit)) => {
                    self.trace.count("corrupted frames");
                    bytes = flipped(&bytes, bit);
                }
                Some(MessageFate::Misdeliver(other)) => {
                    self.trace.count("misdeliveries");
                    to = other.min(self.nodes.len() - 1);
                }
                Some(MessageFate::CrashAfter(unsynced)) => self.die(from, unsynced, "crashes after a message"),
                None => {}
            }
        }
        let clogged = self.links.clogged_until(from, to);
        if clogged > at {
            at = clogged + random.below(1000);
        }
        self.plan(at, Planned::Frame { from, to, bytes });
    }

    pub(crate) fn deliver_frame(&mut self, from: usize, to: usize, bytes: Bytes) {
        if !self.links.passes(from, to) {
            return self.trace.count("partitioned");
        }
        if !self.nodes[to].up {
            return self.trace.count("receiver is down");
        }
        self.trace.count("deliveries");
        self.trace.note(self.now, TraceKind::FrameDelivered, from as u64, to as u64, bytes.len() as u64);
        let from = self.nodes[from].peer;
        self.sockets.arrived.entry(to).or_default().push(SocketEvent::Frame { from, bytes });
        if let Some(flag) = &self.nodes[to].inbox_flag {
            flag.set();
        }
    }
}

fn flipped(bytes: &Bytes, bit: u64) -> Bytes {
    let mut flipped = BytesMut::from(&bytes[..]);
    if !flipped.is_empty() {
        let bit = bit % (flipped.len() as u64 * 8);
        flipped[bit as usize / 8] ^= 1 << (bit % 8);
    }
    flipped.freeze()
}

/// A user's network in the simulated world: what is sent through it is observed, as what is sent without it is.
pub(crate) struct OnSocket {
    life: Life,
    network: Box<dyn Network>,
}

impl OnSocket {
    pub(crate) fn new(life: Life, network: &NetworkOf) -> OnSocket {
        let own = {
            let mut world = lock(&life.world);
            // What an earlier life has not taken is gone.
            world.sockets.arrived.remove(&life.node);
            world.nodes[life.node].peer
        };
        let network = network(SimSocket { life: life.clone(), own });
        OnSocket { life, network }
    }
}

#[async_trait]
impl Network for OnSocket {
    fn send(&self, batch: &mut Vec<Envelope>) {
        let node = self.life.node;
        {
            let mut world = lock(&self.life.world);
            if world.nodes[node].dying.is_some() {
                batch.clear();
            }
            for envelope in batch.iter() {
                world.trace.count("messages");
                if node < world.replicas {
                    world.observe(&Observation::Sent { replica: node, message: &envelope.message });
                }
            }
        }
        if !batch.is_empty() {
            self.network.send(batch);
        }
    }

    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
        let arrivals = self.network.recv().await?;
        let mut world = lock(&self.life.world);
        let node = self.life.node;
        for arrival in &arrivals {
            if let NetworkEvent::Message { from, message } = arrival
                && node < world.replicas
            {
                world.observe(&Observation::Received { replica: node, from: *from, message });
            }
        }
        drop(world);
        Ok(arrivals)
    }

    fn set_identity(&self, identity: Identity) {
        self.network.set_identity(identity);
    }
}
