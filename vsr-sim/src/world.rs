//! One value that owns everything of a run: time, messages in flight, disks, links, checkers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use vsr::ClientId;
use vsr::network::Arrival;
use vsr::protocol::{Peer, Quorums, Random, SessionId};

use crate::atlas::Atlas;
use crate::check::{Checkers, ClockRange, Observation, Scene, Violation};
use crate::disk::SimDisk;
use crate::files::FileDisks;
use crate::net::{Links, Traffic};
use crate::options::Options;
use crate::pace::Pace;
use crate::plan::{Happening, Plan, ReadFate, Unsynced, WriteFate, draw};
use crate::sequences::Moment;
use crate::socket::Sockets;
use crate::story::{Record, State, What};
use crate::trace::{Detail, Trace};

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
    Deliver(Box<crate::net::Delivery>),
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
    Class(usize),
    /// A fault that was written down, or that ends another.
    Happening(Happening),
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
    pub(crate) inbox: Vec<Arrival>,
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
    pub(crate) ruled: Option<u64>,
    /// The record that made it do what it does now.
    pub(crate) cause: Option<u32>,
    write_cause: Option<u32>,
    status: Option<(u64, State, bool)>,
    numbers: (u64, u64),
    /// What it does wrong as a client, if it does.
    pub(crate) misdeed: Option<crate::rogue::Misdeed>,
    /// The session that it asked under last, where there are clients that break the rules.
    pub(crate) session: SessionId,
    /// Commands that its state machine has executed in this turn.
    pub(crate) executed: usize,
    /// Until when its disk has no room, and a write is how it is known.
    pub(crate) no_space_until: u64,
    /// Until when no sync of its disk succeeds.
    pub(crate) no_sync_until: u64,
    /// Whether time passes while it works.
    pub(crate) pace: Pace,
}

/// Everything.
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
            executed: 0,
            no_space_until: 0,
            no_sync_until: 0,
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

    // ---- clocks ----

    /// The local time of a node.
    pub(crate) fn local_time(&self, node: usize) -> u64 {
        let Node { clock_start, clock_rate, suspended, .. } = self.nodes[node];
        let now = suspended.unwrap_or(self.now);
        (i128::from(clock_start) + i128::from(now) * i128::from(clock_rate) / 1000) as u64
    }

    /// When a node's clock will show `local`.
    pub(crate) fn when_local(&self, node: usize, local: u64) -> u64 {
        let Node { clock_start, clock_rate, .. } = self.nodes[node];
        let ahead = u128::try_from(i128::from(local) - i128::from(clock_start)).unwrap_or(0) * 1000;
        u64::try_from(ahead.div_ceil(u128::from(clock_rate))).unwrap_or(u64::MAX / 2)
    }

    /// A machine that stood still goes on, with a clock that did not see the time pass.
    pub(crate) fn wake_up(&mut self, node: usize) {
        let now = self.now;
        let node = &mut self.nodes[node];
        if let Some(since) = node.suspended.take() {
            node.clock_start -= ((now - since) * node.clock_rate / 1000) as i64;
        }
    }

    /// The wall clock of a node.
    pub(crate) fn wall(&self, node: usize) -> u64 {
        let wall = 1_700_000_000_000_000_000_u64 + self.local_time(node);
        wall.saturating_add_signed(self.nodes[node].wall_offset)
    }

    /// Looks at a wall clock: before and after it jumps, and whenever it matters. In between it only drifts.
    pub(crate) fn note_clock(&mut self, node: usize) {
        let ahead = self.wall(node).saturating_sub(self.now);
        let (least, most) = &mut self.nodes[node].ahead;
        (*least, *most) = ((*least).min(ahead), (*most).max(ahead));
        self.clocks.0 = u64::MAX;
    }

    /// What a replica can think that the others' wall clocks show now: a report goes on at the pace of the replica's own clock
    /// while it is eight pings old or less.
    pub(crate) fn look_at_clocks(&mut self) {
        if self.clocks.0 == self.now {
            return;
        }
        (0..self.replicas).for_each(|replica| self.note_clock(replica));
        let old = self.options.limits.timing.ping.as_nanos() as u64 * 8;
        let drift = if self.has_leapt { old } else { old * self.options.drift_max / 400 };
        // A Ping that says something new of the replica's record waits for that: for the write under way, and the next.
        let waits = self.options.delay_longest() + self.options.write_longest() * 2;
        let late = waits.as_nanos() as u64 + 1_000_000;
        // Afterwards some replicas may be cut off for good.
        let is_reported = self.is_calm && self.faults_on && self.now > 2_000_000_000;
        let now = self.now;
        let range = |node: &Node| ClockRange {
            lowest: if is_reported { (node.ahead.0 + now).saturating_sub(late) } else { 0 },
            highest: node.ahead.1 + now + drift + 1_000_000,
        };
        self.clocks = (now, self.nodes[..self.replicas].iter().map(range).collect());
    }

    // ---- terms ----

    /// A replica leads a view (`started`), or is about to: what was kept of earlier terms arrives.
    pub(crate) fn leads(&mut self, replica: usize, view: u64, started: bool) {
        if view % self.replicas as u64 != replica as u64 {
            return;
        }
        if started {
            let before = self.nodes[replica].led.replace(view);
            if before.is_some_and(|before| before < view) {
                self.trace.count("led again");
            }
        }
        self.release_kept(replica, view, started);
        self.shorten_reign(replica, view, if started { Moment::Started } else { Moment::Elected });
    }

    // ---- disks ----

    /// Whether a replica that starts now from this disk knows where its log ends.
    pub(crate) fn is_head_certain(&self, replica: usize) -> bool {
        let disk = &self.disks[replica];
        disk.is_head_certain() && disk.state().head_certain
    }

    /// A write begins: how long it takes, and what happens to it.
    pub(crate) fn begin_write(&mut self, node: usize, life: u64, batch: vsr::protocol::Batch) {
        self.trace.count("writes");
        self.nodes[node].writes += 1;
        let nth = self.nodes[node].writes;
        let ops: Vec<_> = batch.entries.iter().map(|entry| entry.header.op).collect();
        let names_end = batch.state.as_ref().is_some_and(|state| state.head_certain) && !self.knows_end(node);
        self.disks[node].begin(batch);
        let fate = if self.faults_on { self.write_fate(node, nth, &ops, names_end) } else { None };
        let mut latency = self.write_latency(node, site::WRITE, nth);
        self.nodes[node].wrote = None;
        self.nodes[node].write_cause = self.nodes[node].cause;
        match fate {
            Some(WriteFate::CrashIn(unsynced)) => return self.die(node, unsynced, "crashes in a write"),
            Some(WriteFate::Hang(more)) => {
                self.trace.count("hanging writes");
                let until = self.now + latency + more;
                self.fault(node, Some(until), || format!("r{node}'s write hangs"));
                latency += more;
            }
            _ => {}
        }
        let at = self.now + latency;
        self.plan(at, Planned::DiskDone { node, life, fate });
    }

    pub(crate) fn write_latency(&self, node: usize, site: u64, nth: u64) -> u64 {
        let mut random = self.draw(site, node as u64, nth);
        let spread = self.options.write_spread.as_nanos() as u64;
        let fraction = 1 << random.below(4);
        let (times, until) = self.nodes[node].slow;
        let times = if self.now < until { times } else { 1 };
        (self.options.write_min.as_nanos() as u64 + random.below(spread / fraction + 1)).saturating_mul(times)
    }

    fn write_fate(
        &mut self,
        node: usize,
        nth: u64,
        ops: &[vsr::protocol::OpNumber],
        names_end: bool,
    ) -> Option<WriteFate> {
        let mut random = self.draw(site::WRITE_FATE, node as u64, nth);
        let named = if names_end { self.fate_of_named_end(node, nth) } else { None };
        let options = &self.options;
        let (atlas, head) = (&self.atlas, self.disks[node].head());
        let (torn, on_files) = (options.torn_writes, self.files.is_some());
        self.plan.write(node, nth, || {
            if options.crash_in_write.happens(&mut random) {
                if random.chance(1, 3) {
                    return Some(WriteFate::CrashAfter);
                }
                return Some(WriteFate::CrashIn(unsynced(&mut random, torn)));
            }
            if options.write_errors.happens(&mut random) {
                return Some(WriteFate::Fail(unsynced(&mut random, true)));
            }
            if options.write_hangs.happens(&mut random) {
                return Some(WriteFate::Hang(random.below(3_000_000_000)));
            }
            let may_rot = |op: &vsr::protocol::OpNumber| atlas.may_rot(*op, node);
            // On files all of a write goes.
            let may_go = if on_files { !ops.is_empty() && ops.iter().all(may_rot) } else { ops.iter().any(may_rot) };
            if options.silent_writes.happens(&mut random) && may_go {
                return Some(WriteFate::Silent);
            }
            if options.misdirected_writes.happens(&mut random) && !ops.is_empty() && ops.iter().all(may_rot) {
                let onto = vsr::protocol::OpNumber(1 + random.below(head.0));
                return (may_rot(&onto) && !ops.contains(&onto)).then_some(WriteFate::Misdirect(onto));
            }
            if options.lost_records.happens(&mut random) && may_go {
                return Some(WriteFate::Vanish);
            }
            let fails = options.failed_syncs.happens(&mut random);
            fails.then(|| WriteFate::FailSync(random.below(2) * random.below(1_000_000_000))).or(named)
        })
    }

    /// A write has ended, in one way or another. Whether the replica is to hear of it.
    pub(crate) fn end_write(&mut self, node: usize, fate: Option<WriteFate>) {
        let (wrote, given) = (Wrote::Done, self.plan.given);
        let fate = self.end_on_files(node, fate);
        self.nodes[node].wrote = Some(wrote);
        match fate {
            Some(WriteFate::CrashAfter) => {
                let knew_end = self.knows_end(node);
                self.disks[node].complete();
                self.written(node);
                if !given && !knew_end && self.knows_end(node) {
                    self.doubt_what_was_named(node);
                }
                return self.die(node, Unsynced::Kept, "crashes after a write");
            }
            Some(WriteFate::Fail(unsynced)) => {
                self.trace.count("write errors");
                self.fault(node, None, || format!("r{node}'s write fails"));
                self.disks[node].crash(unsynced);
                self.nodes[node].wrote = Some(Wrote::Failed);
                self.poison(node, "its write failed");
            }
            Some(WriteFate::FailSync(lasts)) => {
                self.trace.count("failed syncs");
                self.fault(node, None, || format!("r{node}'s sync fails, what it wrote can still be read"));
                self.disks[node].fail_sync();
                self.nodes[node].wrote = Some(Wrote::Failed);
                self.nodes[node].no_sync_until = self.now + lasts;
                self.poison(node, "its sync failed");
                let mut random = self.draw(site::WRITE_FATE, node as u64, self.now);
                if !given && random.chance(1, 2) {
                    let after = random.below(2 * self.options.restart_after.as_nanos() as u64 + 1);
                    let lost = Happening::Crash(node, unsynced(&mut random, true));
                    self.plan(self.now + after, Planned::Happening(lost));
                }
            }
            Some(WriteFate::Silent) => {
                self.trace.count("writes lost without an error");
                self.fault(node, None, || format!("r{node}'s write is lost without an error"));
                let atlas = self.atlas.clone();
                self.disks[node].complete_silently(|op| !given && !atlas.may_rot(op, node));
            }
            Some(WriteFate::Vanish) => {
                self.trace.count("records lost whole");
                self.fault(node, None, || format!("r{node}'s records are lost without a trace"));
                let atlas = self.atlas.clone();
                self.disks[node].complete_without_a_trace(|op| !given && !atlas.may_rot(op, node));
            }
            Some(WriteFate::Misdirect(onto)) => {
                self.trace.count("misdirected writes");
                self.fault(node, None, || format!("r{node}'s write lands on the slot of op {onto}"));
                self.disks[node].complete_silently(|_| false);
                self.disks[node].rot(onto, crate::disk::Damage::Both);
            }
            _ => self.disks[node].complete(),
        }
        self.nodes[node].cause = self.nodes[node].write_cause;
        self.written(node);
        if let Some(flag) = &self.nodes[node].write_flag {
            flag.set();
        }
    }

    /// Nothing that the storage of a replica says in this life is to be believed any more.
    fn poison(&mut self, node: usize, how: &str) {
        self.nodes[node].poisoned = true;
        self.observe(&Observation::Broke { replica: node, must: true, how });
    }

    /// Whether a write of entries finds no room now. From then on the storage knows.
    pub(crate) fn finds_no_room(&mut self, node: usize) -> bool {
        let until = self.nodes[node].no_space_until;
        if !self.faults_on || self.now >= until {
            return false;
        }
        self.trace.count("writes without room");
        if self.nodes[node].full_until < until {
            self.fault(node, Some(until), || format!("r{node}'s write finds no room"));
            self.nodes[node].full_until = until;
        }
        true
    }

    fn written(&mut self, node: usize) {
        let now = self.now;
        self.trace.note(now, 1005, node as u64, 0, 0);
        self.observe(&Observation::Written { replica: node });
    }

    /// What happens to a read that begins with this op.
    pub(crate) fn read_fate(&mut self, node: usize, first: vsr::protocol::OpNumber) -> Option<ReadFate> {
        self.trace.count("reads");
        self.nodes[node].reads += 1;
        let nth = self.nodes[node].reads;
        if !self.faults_on {
            return None;
        }
        let mut random = self.draw(site::READ, node as u64, nth);
        let (errors, astray) = (self.options.read_errors, self.options.misdirected_reads);
        let may_rot = self.atlas.may_rot(first, node);
        let fate = self.plan.read(node, nth, || {
            if errors.happens(&mut random) {
                Some(ReadFate::Fail)
            } else {
                (may_rot && astray.happens(&mut random)).then_some(ReadFate::Astray)
            }
        });
        match fate {
            Some(ReadFate::Fail) => {
                self.trace.count("read errors");
                if self.replicas == 1 {
                    let how = "a read failed, and nobody else has the entry";
                    self.observe(&Observation::Broke { replica: node, must: false, how });
                }
                self.fault(node, None, || format!("r{node}'s read fails"));
            }
            Some(ReadFate::Astray) => {
                self.trace.count("misdirected reads");
                self.fault(node, None, || format!("r{node}'s read of op {first} finds another entry"));
            }
            None => {}
        }
        fate
    }

    /// The process of a node ends before it does anything else.
    pub(crate) fn die(&mut self, node: usize, unsynced: Unsynced, counted: &'static str) {
        if self.nodes[node].dying.is_none() {
            self.trace.count(counted);
            self.nodes[node].dying = Some(unsynced);
            self.dying.push(node);
        }
    }

    // ---- the record for a person ----

    pub(crate) fn name_of(&self, node: usize) -> String {
        if node < self.replicas { format!("r{node}") } else { format!("c{}", node - self.replicas) }
    }

    pub(crate) fn fault(&mut self, node: usize, until: Option<u64>, text: impl FnOnce() -> String) {
        let (at, lane) = (self.now, u32::try_from(node).unwrap_or(crate::story::CLUSTER));
        self.trace.record(Detail::Events, || Record {
            at,
            lane,
            cause: None,
            what: What::Fault { text: text(), until },
        });
    }

    pub(crate) fn say(&mut self, node: usize, text: impl FnOnce() -> String) {
        let (at, cause) = (self.now, self.nodes[node].cause);
        self.trace.say(at, node as u32, cause, text);
    }

    /// Keeps the status of a replica, if it is another one than before.
    pub(crate) fn status(&mut self, node: usize, view: u64, state: State, primary: bool) {
        let (at, cause) = (self.now, self.nodes[node].cause);
        if self.nodes[node].status.replace((view, state, primary)) != Some((view, state, primary)) {
            let what = What::Status { view, state, primary };
            self.trace.record(Detail::Events, || Record { at, lane: node as u32, cause, what });
        }
    }

    /// As [`status`](Self::status), with the view that it had.
    pub(crate) fn state(&mut self, node: usize, state: State) {
        let (view, _, primary) = self.nodes[node].status.unwrap_or((0, state, false));
        self.status(node, view, state, primary && state == State::Normal);
    }

    /// Keeps head and commit number of a replica, if they are others than before.
    pub(crate) fn numbers(&mut self, node: usize, head: u64, commit: u64) {
        if !self.trace.keeps(Detail::Messages) || self.nodes[node].numbers == (head, commit) {
            return;
        }
        self.nodes[node].numbers = (head, commit);
        let (at, cause) = (self.now, self.nodes[node].cause);
        let what = What::Numbers { head, commit };
        self.trace.record(Detail::Messages, || Record { at, lane: node as u32, cause, what });
    }
}

/// What becomes of an unsynced write.
pub(crate) fn unsynced(random: &mut Random, torn: bool) -> Unsynced {
    match random.below(if torn { 3 } else { 2 }) {
        0 => Unsynced::Lost,
        1 => Unsynced::Kept,
        _ => Unsynced::Torn(random.below(1000)),
    }
}
