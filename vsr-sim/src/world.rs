//! One value that owns everything of a run: time, messages in flight, disks, links, checkers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use vsr::protocol::Random;
use vsr::{Arrival, ClientId, Envelope, Message, Peer, Quorums};

use crate::check::{Checker, Observation, Scene, Violation};
use crate::disk::SimDisk;
use crate::options::Options;
use crate::trace::Trace;

/// A task's "poll me".
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.set();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
    }
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Planned {
    Deliver { from: usize, to: usize, message: Message },
    PeerDown { node: usize, peer: usize, refused: bool },
    PeerUp { node: usize, peer: usize },
    DiskDone { node: usize, life: u64 },
    Wake { flag: Arc<Flag> },
    Fault(FaultEvent),
}

/// What the fault controller has planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultEvent {
    Crash,
    Restart(usize),
    Partition,
    HealPartition(u64),
    Pause,
    Resume(usize),
    Rot,
}

/// A replica or a client, as the network and the disk see it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) peer: Peer,
    /// Counts the starts; what an earlier life has planned is void.
    pub(crate) life: u64,
    pub(crate) up: bool,
    pub(crate) paused: bool,
    pub(crate) inbox: Vec<Arrival>,
    pub(crate) inbox_flag: Option<Arc<Flag>>,
    pub(crate) write_done: bool,
    pub(crate) write_flag: Option<Arc<Flag>>,
    /// The local clock: `start + time * rate / 1000` nanoseconds.
    pub(crate) clock_start: u64,
    pub(crate) clock_rate: u64,
    /// The wall clock is the local one and this.
    pub(crate) wall_offset: i64,
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slab: Vec<Option<Planned>>,
    free: Vec<usize>,
    sequence: u64,
    pub(crate) random: Random,
    pub(crate) options: Options,
    pub(crate) replicas: usize,
    pub(crate) quorums: Quorums,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: BTreeMap<ClientId, usize>,
    pub(crate) disks: Vec<SimDisk>,
    /// `blocked[from][to]`: the partition in force.
    pub(crate) blocked: Vec<Vec<bool>>,
    pub(crate) partition: u64,
    pub(crate) faults_on: bool,
    pub(crate) trace: Trace,
    checkers: Vec<Box<dyn Checker>>,
    pub(crate) violation: Option<Violation>,
    /// The highest view that was seen to start.
    pub(crate) highest_view: u64,
}

/// The world, as every part of it holds it.
pub(crate) type Shared = Arc<Mutex<World>>;

pub(crate) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(options: Options, quorums: Quorums, trace: Trace, checkers: Vec<Box<dyn Checker>>) -> World {
        let replicas = options.replicas;
        World {
            now: 0,
            heap: BinaryHeap::new(),
            slab: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            random: Random::new(options.seed),
            options,
            replicas,
            quorums,
            nodes: Vec::new(),
            clients: BTreeMap::new(),
            disks: Vec::new(),
            blocked: Vec::new(),
            partition: 0,
            faults_on: true,
            trace,
            checkers,
            violation: None,
            highest_view: 0,
        }
    }

    pub(crate) fn add_node(&mut self, peer: Peer) -> usize {
        let skew = self.options.skew_max.as_nanos() as u64;
        let drift = self.options.drift_max;
        let wall_offset = self.random.below(2 * skew + 1) as i64 - skew as i64;
        let clock_rate = 1000 + self.random.below(2 * drift + 1) - drift;
        let clock_start = self.random.below(1_000_000_000);
        self.nodes.push(Node {
            peer,
            life: 0,
            up: true,
            paused: false,
            inbox: Vec::new(),
            inbox_flag: None,
            write_done: false,
            write_flag: None,
            clock_start,
            clock_rate,
            wall_offset,
        });
        if let Peer::Client(client) = peer {
            self.clients.insert(client, self.nodes.len() - 1);
        }
        for row in &mut self.blocked {
            row.push(false);
        }
        self.blocked.push(vec![false; self.nodes.len()]);
        self.nodes.len() - 1
    }

    pub(crate) fn plan(&mut self, at: u64, planned: Planned) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slab[slot] = Some(planned);
                slot
            }
            None => {
                self.slab.push(Some(planned));
                self.slab.len() - 1
            }
        };
        self.sequence += 1;
        self.heap.push(Reverse((at.max(self.now), self.sequence, slot)));
    }

    /// The next thing that happens; time moves to it.
    pub(crate) fn next(&mut self, until: u64) -> Option<Planned> {
        let Reverse((at, _, slot)) = *self.heap.peek()?;
        if at > until {
            self.now = until;
            return None;
        }
        self.heap.pop();
        self.now = at;
        self.free.push(slot);
        self.slab[slot].take()
    }

    pub(crate) fn observe(&mut self, observation: &Observation<'_>) {
        if self.violation.is_some() {
            return;
        }
        let scene = Scene { disks: &self.disks, quorums: self.quorums };
        for checker in &mut self.checkers {
            if let Err(message) = checker.observe(&scene, observation) {
                self.violation = Some(Violation { checker: checker.name(), message, at: self.now });
                return;
            }
        }
    }

    /// The local time of a node.
    pub(crate) fn local_time(&self, node: usize) -> u64 {
        let Node { clock_start, clock_rate, .. } = self.nodes[node];
        clock_start + (u128::from(self.now) * u128::from(clock_rate) / 1000) as u64
    }

    /// When a node's clock will show `local`.
    pub(crate) fn when_local(&self, node: usize, local: u64) -> u64 {
        let Node { clock_start, clock_rate, .. } = self.nodes[node];
        let ahead = u128::from(local.saturating_sub(clock_start)) * 1000;
        u64::try_from(ahead.div_ceil(u128::from(clock_rate))).unwrap_or(u64::MAX / 2)
    }

    fn node_of(&self, peer: Peer) -> Option<usize> {
        match peer {
            Peer::Replica(id) => Some(usize::from(id.0)).filter(|&at| at < self.replicas),
            Peer::Client(client) => self.clients.get(&client).copied(),
        }
    }

    /// A node hands its messages to the network.
    pub(crate) fn send(&mut self, from: usize, batch: &mut Vec<Envelope>) {
        for Envelope { to, message } in batch.drain(..) {
            self.trace.count("messages");
            let Some(to) = self.node_of(to) else { continue };
            if from < self.replicas {
                self.observe(&Observation::Sent { replica: from, message: &message });
            }
            let (loss, duplicates) = (self.options.loss, self.options.duplicates);
            if self.faults_on && loss.happens(&mut self.random) {
                self.trace.count("drops");
                continue;
            }
            if self.faults_on && duplicates.happens(&mut self.random) {
                self.trace.count("duplicates");
                let at = self.now + self.delay() * 3;
                self.plan(at, Planned::Deliver { from, to, message: message.clone() });
            }
            let at = self.now + self.delay();
            self.plan(at, Planned::Deliver { from, to, message });
        }
    }

    fn delay(&mut self) -> u64 {
        let spread = self.options.delay_spread.as_nanos() as u64;
        // Mostly short, with a long tail.
        let fraction = 1 << self.random.below(4);
        self.options.delay_min.as_nanos() as u64 + self.random.below(spread / fraction + 1)
    }

    pub(crate) fn write_latency(&mut self) -> u64 {
        let spread = self.options.write_spread.as_nanos() as u64;
        let fraction = 1 << self.random.below(4);
        self.options.write_min.as_nanos() as u64 + self.random.below(spread / fraction + 1)
    }

    fn name_of(&self, node: usize) -> String {
        if node < self.replicas { format!("r{node}") } else { format!("c{}", node - self.replicas) }
    }

    pub(crate) fn arrive(&mut self, node: usize, arrival: Arrival) {
        let node = &mut self.nodes[node];
        if node.up {
            node.inbox.push(arrival);
            if let Some(flag) = &node.inbox_flag {
                flag.set();
            }
        }
    }

    pub(crate) fn deliver(&mut self, from: usize, to: usize, message: Message) {
        if self.blocked[from][to] || !self.nodes[to].up {
            self.trace.count("drops");
            return;
        }
        self.trace.count("deliveries");
        let kind = message.name().len() as u64 * 131 + u64::from(message.name().as_bytes()[0]);
        self.trace.note(self.now, kind, from as u64, to as u64, 0);
        let (sender, receiver) = (self.name_of(from), self.name_of(to));
        self.trace.fine_line(self.now, || format!("{sender} -> {receiver}  {}", crate::describe::message(&message)));
        let from = self.nodes[from].peer;
        self.arrive(to, Arrival::Message { from, message });
    }
}
