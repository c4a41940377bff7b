//! The simulated world: one value that owns everything of a run, its time, its messages in flight, its disks, links, clocks and
//! checkers.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`World`]: the queue of what is planned, and the nodes |
//! | `links.rs`, `network.rs` | what passes, waits or is lost; what becomes of a message between its sender and its receiver |
//! | `disks.rs`, `on_files.rs`, `evidence.rs` | how long writes take and what becomes of them; the same for storages on simulated files |
//! | `checkpoints.rs` | how long checkpoints take, which fail, which rot |
//! | `examine.rs` | what storages on simulated files say of worse damage, after a run |
//! | `clocks.rs` | clocks that drift, jump and stand still |
//! | `life.rs` | one life of a node, and how it waits |
//! | `adapters.rs`, `socket.rs` | the traits of `vsr` on this world; a user's own network on it |
//! | `draws.rs`, `harm.rs` | which faults are drawn, and what they hit; what they do |
//! | `impostors.rs` | processes that take themselves for a replica |
//! | `sequences.rs` | faults that follow each other, as they hardly would by themselves |
//! | `misdeeds.rs` | what clients do that break their rules |
//! | `pace.rs` | whether time passes while the nodes work |
//! | `record.rs`, `traffic.rs` | what is kept of it for a person, and counted |

mod adapters;
mod checkpoints;
mod clocks;
mod disks;
mod draws;
mod evidence;
mod examine;
mod harm;
mod impostors;
mod life;
mod links;
mod misdeeds;
mod network;
mod on_files;
mod pace;
mod record;
mod sequences;
mod socket;
mod traffic;

use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use vsr::checkpoints::Incoming;
use vsr::network::NetworkEvent;
use vsr::protocol::{CheckpointId, OpNumber, Peer, Quorums, Random, RequestNumber, SessionId};
use vsr::{Checksum, ClientId};

use self::links::{Delivery, Links};
use self::pace::Pace;
use self::socket::Sockets;
use self::traffic::Traffic;
use crate::check::{Checkers, ClockRange, Observation, Scene, Violation};
use crate::faults::{Atlas, Plan, TimedFault, Unsynced, WriteFate, draw};
use crate::files::SimDisk;
use crate::options::Options;
use crate::report::Trace;
use crate::report::timeline::State;

pub use self::socket::{SimSocket, SocketEvent};

pub(crate) use self::adapters::{CheckerObserver, SimClock, SimNetwork, SimStorage};
pub(crate) use self::checkpoints::being_restored;
pub(crate) use self::draws::{CLASSES, Class, Drawn};
pub(crate) use self::impostors::ImpostorStorage;
pub(crate) use self::life::Life;
pub(crate) use self::links::MessageFilter;
pub(crate) use self::misdeeds::Misdeed;
pub(crate) use self::on_files::{FileDisks, OnFiles, Open};
pub(crate) use self::pace::Endless;
pub(crate) use self::socket::{NetworkOf, OnSocket};

/// What a random number is for; see [`draw`].
pub(crate) mod site {
    pub(crate) const DELAY: u64 = 1;
    pub(crate) const FATE: u64 = 2;
    pub(crate) const WRITE: u64 = 3;
    pub(crate) const WRITE_FATE: u64 = 4;
    pub(crate) const READ: u64 = 5;
    pub(crate) const FAULT: u64 = 6;
    pub(crate) const HINT: u64 = 7;
    pub(crate) const RESTART: u64 = 8;
    pub(crate) const NODE: u64 = 9;
    pub(crate) const ORDER: u64 = 10;
    pub(crate) const CLIENT: u64 = 11;
    pub(crate) const CORE: u64 = 12;
    pub(crate) const CLASS: u64 = 13;
    pub(crate) const LATE: u64 = 14;
    pub(crate) const CORE_LOSS: u64 = 15;
    pub(crate) const SECTOR: u64 = 16;
    pub(crate) const ROGUE: u64 = 17;
    pub(crate) const EXAMINE: u64 = 18;
    pub(crate) const REIGN: u64 = 19;
    pub(crate) const DOUBT: u64 = 20;
    pub(crate) const NAMED: u64 = 21;
    pub(crate) const START: u64 = 22;
    pub(crate) const CHECKPOINT: u64 = 23;
    pub(crate) const PART: u64 = 24;
    pub(crate) const IMPOSTOR: u64 = 25;
}

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
    Deliver(Box<Delivery>),
    /// A frame of a user's own network arrives.
    Frame {
        from: usize,
        to: usize,
        bytes: bytes::Bytes,
    },
    PeerDown {
        node: usize,
        peer: usize,
        refused: bool,
    },
    PeerUp {
        node: usize,
        peer: usize,
    },
    DiskDone {
        node: usize,
        life: u64,
        fate: Option<WriteFate>,
    },
    Wake {
        waker: Waker,
    },
    /// The next fault of a class is drawn.
    Draw(usize),
    /// A fault that was written down, or that ends another.
    TimedFault(TimedFault),
    /// A partition ends, unless another one came since.
    EndOfPartition(u64),
    /// A replica loses what it has acknowledged; tried again so often where the atlas does not let it go.
    LoseTail {
        victim: usize,
        tries: u32,
    },
}

/// How a write that has ended ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    Done,
    Failed,
}

/// A replica or a client, as the network and the disk see it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) peer: Peer,
    /// Counts the starts; what an earlier life has planned is void.
    pub(crate) life: u64,
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// It dies before it is polled again.
    pub(crate) dying: Option<Unsynced>,
    pub(crate) inbox: Vec<NetworkEvent>,
    pub(crate) inbox_flag: Option<Arc<Flag>>,
    pub(crate) wrote: Option<Wrote>,
    pub(crate) write_flag: Option<Arc<Flag>>,
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    pub(crate) poisoned: bool,
    /// No write completes.
    pub(crate) stalled: bool,
    /// The write that would be complete.
    pub(crate) waiting: Option<(u64, Option<WriteFate>)>,
    /// Times as slow, until then.
    pub(crate) slow: (u64, u64),
    pub(crate) full_until: u64,
    /// The local clock: `start + time * rate / 1000` nanoseconds.
    pub(crate) clock_start: i64,
    pub(crate) clock_rate: u64,
    /// Since when the machine stands still.
    pub(crate) suspended: Option<u64>,
    /// The wall clock is the local one and this.
    pub(crate) wall_offset: i64,
    /// The least and the most that the wall clock was ahead of the time of the world.
    ahead: (u64, u64),
    /// The last view that it led.
    led: Option<u64>,
    /// The last view in which it has committed something as primary.
    ruled: Option<u64>,
    /// The record that made it do what it does now.
    pub(crate) cause: Option<u32>,
    write_cause: Option<u32>,
    status: Option<(u64, State, bool)>,
    numbers: (u64, u64),
    /// What it does wrong as a client, if it does.
    pub(crate) misdeed: Option<Misdeed>,
    /// The session that it asked under last, where there are clients that break the rules.
    pub(crate) session: SessionId,
    /// The sessions of another client under which it has sent its requests, by number and content.
    borrowed: BTreeMap<(RequestNumber, Checksum), SessionId>,
    /// Commands that its state machine has executed in this turn.
    pub(crate) executed: usize,
    /// The state of its machine is wrong, in this life.
    pub(crate) wrong: bool,
    /// Until when its disk has no room, and a write is how it is known.
    pub(crate) no_space_until: u64,
    /// Until when no sync of its disk succeeds.
    pub(crate) no_sync_until: u64,
    /// The first and the last of the ops that its disk has dropped last.
    dropped: (OpNumber, OpNumber),
    /// Ops that it has dropped and put again, the last few: there a rotten record may uncover an older one.
    put_again: VecDeque<OpNumber>,
    /// Whether time passes while it works.
    pace: Pace,
}

/// A copy of a disk, and of the files of its checkpoints.
type KeptDisk = (SimDisk, Vec<(CheckpointId, Vec<u8>)>, Option<on_files::FileDisk>);

/// A run, as everything in it sees it: the time, what is planned, the nodes, their disks and links.
pub(crate) struct World {
    pub(crate) now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slab: Vec<Option<Planned>>,
    free: Vec<usize>,
    sequence: u64,
    pub(crate) options: Options,
    pub(crate) replicas: usize,
    pub(crate) quorums: Quorums,
    pub(crate) atlas: Atlas,
    pub(crate) plan: Plan,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: BTreeMap<ClientId, usize>,
    pub(crate) disks: Vec<SimDisk>,
    /// The files of the checkpoints on each disk.
    pub(crate) checkpoints: BTreeMap<(usize, CheckpointId), Vec<u8>>,
    /// Copies of disks that were kept, with the files of their checkpoints.
    kept_disks: BTreeMap<usize, KeptDisk>,
    /// The beginning of another replica's, on each disk: what has come of it.
    pub(crate) coming: BTreeMap<usize, Incoming<Cursor<Vec<u8>>>>,
    /// The nodes that take themselves for a replica and run, with that replica.
    pub(crate) impostors: BTreeMap<usize, usize>,
    /// How many there were in this run.
    impostors_ever: usize,
    /// A bit of a state has flipped.
    went_wrong: bool,
    /// What a state machine that is restored is watched by.
    pub(crate) watch: Option<Arc<dyn Any + Send + Sync>>,
    /// The files below, where the storages are on simulated files; `disks` has what is durable on them.
    pub(crate) files: Option<FileDisks>,
    pub(crate) links: Links,
    /// Frames that have arrived at networks of a user's own.
    pub(crate) sockets: Sockets,
    pub(crate) faults_on: bool,
    pub(crate) trace: Trace,
    checkers: Checkers,
    pub(crate) violation: Option<Violation>,
    /// The highest view that was seen to start.
    pub(crate) highest_view: u64,
    /// The highest view that was seen at all.
    pub(crate) highest_entered: u64,
    /// What was sent.
    pub(crate) traffic: Traffic,
    /// What the checkers may know of the clocks, and at which moment.
    clocks: (u64, Vec<ClockRange>),
    /// A monotonic clock has leapt: what it says of the age of a report is wrong.
    pub(crate) has_leapt: bool,
    /// No fault is on: every report of a clock arrives.
    is_calm: bool,
    /// All replies of the run together are shorter than any bound for them.
    pub(crate) replies_fit: bool,
    /// Nodes whose task must end before it is polled again.
    pub(crate) dying: Vec<usize>,
}

/// The world, as every part of it holds it.
pub(crate) type Shared = Arc<Mutex<World>>;

pub(crate) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(options: Options, quorums: Quorums, plan: Plan, trace: Trace, checkers: Checkers) -> World {
        let replicas = options.replicas;
        World {
            now: 0,
            heap: BinaryHeap::new(),
            slab: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            atlas: Atlas::new(options.seed, replicas, quorums, options.lost_disks),
            is_calm: options.is_calm() && !plan.given,
            options,
            replicas,
            quorums,
            plan,
            nodes: Vec::new(),
            clients: BTreeMap::new(),
            disks: Vec::new(),
            files: None,
            links: Links::default(),
            sockets: Sockets::default(),
            faults_on: true,
            trace,
            checkers,
            violation: None,
            highest_view: 0,
            highest_entered: 0,
            traffic: Traffic::default(),
            clocks: (u64::MAX, Vec::new()),
            checkpoints: BTreeMap::new(),
            coming: BTreeMap::new(),
            kept_disks: BTreeMap::new(),
            impostors: BTreeMap::new(),
            impostors_ever: 0,
            went_wrong: false,
            watch: None,
            has_leapt: false,
            replies_fit: false,
            dying: Vec::new(),
        }
    }

    /// Random numbers for one purpose.
    pub(crate) fn draw(&self, site: u64, a: u64, b: u64) -> Random {
        draw(self.options.seed, site, a, b)
    }

    pub(crate) fn add_node(&mut self, peer: Peer) -> usize {
        let mut random = self.draw(site::NODE, self.nodes.len() as u64, 0);
        let skew = self.options.skew_max.as_nanos() as u64;
        let drift = self.options.drift_max;
        let wall_offset = random.below(2 * skew + 1) as i64 - skew as i64;
        let clock_rate = 1000 + random.below(2 * drift + 1) - drift;
        let clock_start = random.below(1_000_000_000) as i64;
        self.nodes.push(Node {
            peer,
            life: 0,
            up: true,
            paused: false,
            dying: None,
            inbox: Vec::new(),
            inbox_flag: None,
            wrote: None,
            write_flag: None,
            writes: 0,
            reads: 0,
            poisoned: false,
            stalled: false,
            waiting: None,
            slow: (1, 0),
            full_until: 0,
            clock_start,
            clock_rate,
            suspended: None,
            wall_offset,
            ahead: (u64::MAX, 0),
            led: None,
            ruled: None,
            cause: None,
            write_cause: None,
            status: None,
            numbers: (0, 0),
            misdeed: None,
            session: SessionId::default(),
            borrowed: BTreeMap::new(),
            executed: 0,
            wrong: false,
            no_space_until: 0,
            no_sync_until: 0,
            dropped: (OpNumber(1), OpNumber::ZERO),
            put_again: VecDeque::new(),
            pace: Pace::default(),
        });
        if let Peer::Client(client) = peer {
            self.clients.insert(client, self.nodes.len() - 1);
        }
        self.links.add_node();
        let node = self.nodes.len() - 1;
        self.note_clock(node);
        node
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
        let next = self.heap.peek().map(|Reverse(next)| *next);
        let Some((at, _, slot)) = next.filter(|(at, ..)| *at <= until) else {
            self.now = self.now.max(until);
            return None;
        };
        self.heap.pop();
        self.now = at;
        self.free.push(slot);
        self.slab[slot].take()
    }

    pub(crate) fn observe(&mut self, observation: &Observation<'_>) {
        if self.violation.is_some() {
            return;
        }
        let scene = Scene { disks: &self.disks, quorums: self.quorums, clocks: &self.clocks.1 };
        if let Some((checker, _, message)) = self.checkers.observe(&scene, observation) {
            self.breach(Violation { checker, message, at: self.now });
        }
    }

    /// A property was broken. The first one counts.
    pub(crate) fn breach(&mut self, violation: Violation) {
        if self.violation.is_none() {
            self.violation = Some(violation);
        }
    }

    /// The process of a node ends before it does anything else.
    pub(crate) fn die(&mut self, node: usize, unsynced: Unsynced, counted: &'static str) {
        if self.nodes[node].dying.is_none() {
            self.trace.count(counted);
            self.nodes[node].dying = Some(unsynced);
            self.dying.push(node);
        }
    }

    /// Whatever a node waits for, it looks again.
    pub(crate) fn set_flags(&mut self, node: usize) {
        let node = &self.nodes[node];
        for flag in [&node.inbox_flag, &node.write_flag].into_iter().flatten() {
            flag.set();
        }
    }
}
