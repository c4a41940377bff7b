//! A whole run: a cluster of production replicas on a deterministic executor, under faults, then
//! healed.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::future::join_all;
use vsr::protocol::Random;
use vsr::{
    Checksum, Client, ClientConfig, ClientId, ClusterId, Config, Handle, Incarnation, Membership, Monotonic, OpNumber,
    Peer, Position, QueryContext, Replica, ReplicaId, SubmitError, Timestamp, VsrState,
};

use crate::check::linearizability::{Asked, Heard, check_model, check_real_time};
use crate::check::{self, Observation, Violation};
use crate::disk::SimDisk;
use crate::machine::{Recorder, Replay, Simulated, Step, Witnessed, asked_command};
use crate::node::{Life, SimClock, SimNetwork, SimStorage, Witness};
use crate::options::Options;
use crate::trace::{Detail, Trace};
use crate::world::{FaultEvent, Flag, Planned, Shared, World, lock};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every property held, and every request was answered.
    Pass,
    /// A property was broken.
    Safety(Violation),
    /// The healed core did not serve, though it could.
    Liveness(String),
    /// Something panicked.
    Crash(String),
    /// The core is rightly stuck: it holds no intact copy of something that may be committed.
    Unrecoverable(String),
}

impl Verdict {
    /// One word for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Safety(_) => "safety",
            Verdict::Liveness(_) => "liveness",
            Verdict::Crash(_) => "crash",
            Verdict::Unrecoverable(_) => "unrecoverable",
        }
    }
}

/// What a run was like.
#[derive(Debug)]
pub struct Report {
    /// What the seed drew.
    pub options: Options,
    /// How it ended.
    pub verdict: Verdict,
    /// What happened.
    pub trace: Trace,
    /// Virtual time that passed.
    pub simulated: Duration,
    /// Requests that were answered.
    pub acknowledged: u64,
}

type Task = Pin<Box<dyn Future<Output = Option<String>> + Send>>;
type Workload<S> =
    Arc<dyn Fn(&mut Random) -> Step<<S as vsr::StateMachine>::Command, <S as vsr::StateMachine>::Query> + Send + Sync>;

struct Slot {
    node: usize,
    flag: Arc<Flag>,
    task: Task,
}

/// A simulated cluster of a user's state machine.
pub struct Simulation<S: Simulated> {
    options: Options,
    machine: Arc<dyn Fn() -> S + Send + Sync>,
    workload: Workload<S>,
    detail: Detail,
}

impl<S: Simulated> Simulation<S> {
    /// A run with these options of this machine, under this load.
    pub fn new(
        options: Options,
        machine: impl Fn() -> S + Send + Sync + 'static,
        workload: impl Fn(&mut Random) -> Step<S::Command, S::Query> + Send + Sync + 'static,
    ) -> Simulation<S> {
        Simulation { options, machine: Arc::new(machine), workload: Arc::new(workload), detail: Detail::Counters }
    }

    /// How much of the run is kept for a person to read. Changes nothing else.
    #[must_use]
    pub fn detail(mut self, detail: Detail) -> Simulation<S> {
        self.detail = detail;
        self
    }

    /// Runs it. The same options give the same report.
    #[must_use]
    pub fn run(self) -> Report {
        Run::new(self).run()
    }
}

struct Run<S: Simulated> {
    world: Shared,
    options: Options,
    membership: Membership,
    machine: Arc<dyn Fn() -> S + Send + Sync>,
    workload: Workload<S>,
    recorder: Arc<Mutex<Recorder<S>>>,
    slots: Vec<Option<Slot>>,
    handles: Vec<Option<Handle<Witnessed<S>>>>,
    random: Random,
    polls_at_once: u64,
    crash: Option<String>,
}

const POLLS_AT_ONCE_MAX: u64 = 200_000;

impl<S: Simulated> Run<S> {
    fn new(simulation: Simulation<S>) -> Run<S> {
        let Simulation { options, machine, workload, detail } = simulation;
        let addresses = (0..options.replicas).map(|id| format!("r{id}"));
        let mut membership = Membership::new(addresses).expect("a seed draws 1 to 9 replicas");
        membership.constants.pipeline_max = options.pipeline_max;
        membership.constants.window = options.window;
        membership.constants.sessions_max = options.sessions_max;
        membership.constants.session_idle_min = 20;
        let mut world = World::new(options.clone(), membership.quorums, Trace::new(detail), check::all());
        for id in 0..options.replicas {
            let replica = ReplicaId(id as u8);
            world.add_node(Peer::Replica(replica));
            let incarnation = Incarnation(u128::from(world.random.next_u64()));
            let state = VsrState::formatted(ClusterId(1), replica, incarnation, membership.clone());
            world.disks.push(SimDisk::new(state));
        }
        let random = Random::new(options.seed.rotate_left(17) ^ 0x7363_6865_6475_6c65);
        Run {
            world: Arc::new(Mutex::new(world)),
            slots: (0..options.replicas).map(|_| None).collect(),
            handles: (0..options.replicas).map(|_| None).collect(),
            options,
            membership,
            machine,
            workload,
            recorder: Arc::new(Mutex::new(Recorder::new())),
            random,
            polls_at_once: 0,
            crash: None,
        }
    }

    fn run(mut self) -> Report {
        for replica in 0..self.options.replicas {
            self.start(replica);
        }
        for client in 0..self.options.clients {
            self.add_client(client);
        }
        self.plan_faults();
        let safety_ends = self.options.safety.as_nanos() as u64;
        self.advance(safety_ends, Run::clients_are_done);
        let mut verdict = self.violation();
        if verdict.is_none() {
            verdict = Some(self.liveness());
        }
        let verdict = verdict.unwrap_or(Verdict::Pass);
        let mut world = lock(&self.world);
        let trace = std::mem::take(&mut world.trace);
        let simulated = Duration::from_nanos(world.now);
        drop(world);
        let acknowledged = self.recorder.lock().unwrap_or_else(PoisonError::into_inner).acknowledged;
        Report { options: self.options, verdict, trace, simulated, acknowledged }
    }

    fn violation(&self) -> Option<Verdict> {
        if let Some(crash) = &self.crash {
            return Some(Verdict::Crash(crash.clone()));
        }
        lock(&self.world).violation.clone().map(Verdict::Safety)
    }

    // ---- the executor ----

    fn clients_are_done(&mut self) -> bool {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).active == 0
    }

    /// Runs until a moment, or until something holds.
    fn advance(&mut self, until: u64, done: fn(&mut Run<S>) -> bool) {
        loop {
            self.poll_ready();
            if self.violation().is_some() || done(self) {
                return;
            }
            let planned = lock(&self.world).next(until);
            match planned {
                Some(planned) => self.happen(planned),
                None => return,
            }
        }
    }

    /// Polls every task that wants it, until none does. Time stands still meanwhile.
    fn poll_ready(&mut self) {
        self.polls_at_once = 0;
        loop {
            let mut polled = false;
            let start = self.random.below(self.slots.len() as u64) as usize;
            for step in 0..self.slots.len() {
                let at = (start + step) % self.slots.len();
                let Some(slot) = &self.slots[at] else { continue };
                if !slot.flag.is_set() || lock(&self.world).nodes[slot.node].paused {
                    continue;
                }
                polled = true;
                self.poll_one(at);
                if self.violation().is_some() {
                    return;
                }
            }
            if !polled {
                return;
            }
        }
    }

    fn poll_one(&mut self, at: usize) {
        let Some(slot) = &mut self.slots[at] else { return };
        slot.flag.take();
        let waker = Waker::from(slot.flag.clone());
        let mut context = Context::from_waker(&waker);
        let result = catch_unwind(AssertUnwindSafe(|| slot.task.as_mut().poll(&mut context)));
        self.polls_at_once += 1;
        if self.polls_at_once > POLLS_AT_ONCE_MAX {
            self.crash = Some("livelock: time does not move on".to_owned());
        }
        match result {
            Ok(std::task::Poll::Pending) => {}
            Ok(std::task::Poll::Ready(error)) => {
                self.slots[at] = None;
                if let Some(message) = error {
                    let mut world = lock(&self.world);
                    let at = world.now;
                    world.violation.get_or_insert(Violation { checker: "replica-runs", message, at });
                }
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                self.crash = Some(text.unwrap_or_else(|| "a panic without a message".to_owned()));
                self.slots[at] = None;
            }
        }
    }

    fn happen(&mut self, planned: Planned) {
        match planned {
            Planned::Deliver { from, to, message } => lock(&self.world).deliver(from, to, message),
            Planned::PeerDown { node, peer, refused } => {
                let mut world = lock(&self.world);
                if !world.nodes[peer].up {
                    let peer = world.nodes[peer].peer;
                    world.arrive(node, vsr::Arrival::PeerDown { peer, refused });
                }
            }
            Planned::PeerUp { node, peer } => {
                let mut world = lock(&self.world);
                let peer = world.nodes[peer].peer;
                world.arrive(node, vsr::Arrival::PeerUp(peer));
            }
            Planned::DiskDone { node, life } => {
                let mut world = lock(&self.world);
                if world.nodes[node].life == life && world.nodes[node].up {
                    world.disks[node].complete();
                    world.nodes[node].write_done = true;
                    let now = world.now;
                    world.trace.note(now, 1005, node as u64, 0, 0);
                    world.observe(&Observation::Written { replica: node });
                    if let Some(flag) = &world.nodes[node].write_flag {
                        flag.set();
                    }
                }
            }
            Planned::Wake { flag } => flag.set(),
            Planned::Fault(fault) => self.fault(fault),
        }
    }

    // ---- replicas and clients ----

    fn life(&mut self, node: usize) -> Life {
        let flag = Arc::new(Flag::default());
        flag.set();
        let mut world = lock(&self.world);
        world.nodes[node].life += 1;
        world.nodes[node].up = true;
        let life = world.nodes[node].life;
        drop(world);
        Life { world: self.world.clone(), node, life, flag }
    }

    fn start(&mut self, replica: usize) {
        let life = self.life(replica);
        {
            let mut world = lock(&self.world);
            world.observe(&Observation::Started { replica });
            for peer in (0..self.options.replicas).filter(|&peer| peer != replica) {
                let at = world.now + 200_000;
                world.plan(at, Planned::PeerUp { node: peer, peer: replica });
            }
        }
        let id = ReplicaId(replica as u8);
        let mut config = Config::with_membership(ClusterId(1), id, self.membership.clone()).expect("valid");
        config.seed = self.options.seed ^ (replica as u64) << 56;
        // A small cache, so that entries are read back from the disk.
        config.cache_bytes = if self.options.seed.is_multiple_of(3) { 2048 } else { 1 << 20 };
        config.apply_slice = if self.options.seed.is_multiple_of(5) { 3 } else { 4096 };
        let machine = Witnessed { inner: (self.machine)(), life: life.clone(), recorder: self.recorder.clone() };
        let builder = Replica::builder(config, machine).storage(SimStorage(life.clone()));
        let builder = builder.network(SimNetwork(life.clone())).clock(SimClock(life.clone()));
        let (running, handle) = builder.observer(Box::new(Witness(life.clone()))).build().expect("valid");
        if self.options.handles {
            let handle = handle.clone();
            let mut work = self.worker(life.clone(), 1000 + replica as u64);
            let task = async move {
                work.on_handle(handle).await;
                None
            };
            self.spawn_life(&life, Box::pin(task));
        }
        self.handles[replica] = Some(handle);
        let task = async move { running.run().await.err().map(|error| format!("r{replica} stopped: {error}")) };
        self.slots[replica] = Some(Slot { node: replica, flag: life.flag, task: Box::pin(task) });
    }

    /// A task beside a replica, that ends with its life.
    fn spawn_life(&mut self, life: &Life, task: Task) {
        let flag = Arc::new(Flag::default());
        flag.set();
        self.slots.push(Some(Slot { node: life.node, flag, task }));
    }

    fn worker(&self, life: Life, client: u64) -> Worker<S> {
        let seed = self.options.seed ^ client.wrapping_mul(0x9e37_79b9) ^ life.life << 40;
        Worker {
            life,
            client,
            random: Random::new(seed),
            workload: self.workload.clone(),
            recorder: self.recorder.clone(),
        }
    }

    fn add_client(&mut self, client: usize) {
        let id = ClientId((u128::from(self.random.next_u64()) << 32) | (client as u128 + 1));
        let node = lock(&self.world).add_node(Peer::Client(id));
        let life = self.life(node);
        let mut config = ClientConfig::new(self.options.replicas);
        config.id = id;
        config.seed = self.random.next_u64();
        config.window = self.options.window;
        let (handle, runner) = Client::<Witnessed<S>>::new(config, SimNetwork(life.clone()), SimClock(life.clone()));
        let task = async move { runner.run().await.err().map(|error| format!("client {client} stopped: {error}")) };
        self.slots.push(Some(Slot { node, flag: life.flag.clone(), task: Box::pin(task) }));
        let lanes = 1 + self.random.below(4) as u32;
        let requests = self.options.requests / lanes;
        let recorder = self.recorder.clone();
        recorder.lock().unwrap_or_else(PoisonError::into_inner).active += 1;
        let of_work = Life { flag: Arc::new(Flag::default()), ..life.clone() };
        of_work.flag.set();
        let workers: Vec<_> =
            (0..lanes).map(|lane| self.worker(of_work.clone(), (client as u64) * 8 + u64::from(lane))).collect();
        let task = async move {
            join_all(workers.into_iter().map(|mut worker| {
                let handle = handle.clone();
                async move { worker.on_client(handle, requests).await }
            }))
            .await;
            recorder.lock().unwrap_or_else(PoisonError::into_inner).active -= 1;
            None
        };
        self.slots.push(Some(Slot { node, flag: of_work.flag, task: Box::pin(task) }));
    }

    fn stop(&mut self, replica: usize) {
        self.slots[replica] = None;
        self.handles[replica] = None;
        let clients_from = self.options.replicas;
        for slot in self.slots.iter_mut().skip(clients_from) {
            if slot.as_ref().is_some_and(|slot| slot.node == replica) {
                *slot = None;
            }
        }
        let mut world = lock(&self.world);
        let torn = world.options.torn_writes;
        let World { disks, random, nodes, trace, now, .. } = &mut *world;
        let lost = disks[replica].crash(random, torn);
        let node = &mut nodes[replica];
        (node.up, node.paused) = (false, false);
        node.inbox.clear();
        trace.count("crashes");
        trace.note(*now, 1006, replica as u64, 0, 0);
        if let Some(lost) = lost {
            trace.count(lost);
        }
        trace.line(*now, || format!("r{replica} crashes ({})", lost.unwrap_or("no write under way")));
        for peer in (0..self.options.replicas).filter(|&peer| peer != replica) {
            let hint = world.random.below(3);
            if hint > 0 {
                let at = world.now + 100_000 + world.random.below(1_000_000);
                world.plan(at, Planned::PeerDown { node: peer, peer: replica, refused: hint == 1 });
            }
        }
    }

    // ---- faults ----

    fn plan_faults(&mut self) {
        let Options { crash_every, partition_every, pause_every, rot_every, .. } = self.options;
        let classes = [
            (crash_every, FaultEvent::Crash),
            (partition_every, FaultEvent::Partition),
            (pause_every, FaultEvent::Pause),
            (rot_every, FaultEvent::Rot),
        ];
        for (every, fault) in classes {
            self.plan_next(every, fault);
        }
    }

    fn plan_next(&mut self, every: Duration, fault: FaultEvent) {
        if !every.is_zero() {
            let mut world = lock(&self.world);
            let at = world.now + world.random.below(2 * every.as_nanos() as u64);
            world.plan(at, Planned::Fault(fault));
        }
    }

    fn fault(&mut self, fault: FaultEvent) {
        if !lock(&self.world).faults_on {
            return;
        }
        match fault {
            FaultEvent::Crash => {
                self.crash_some();
                self.plan_next(self.options.crash_every, fault);
            }
            FaultEvent::Restart(replica) => self.restart(replica),
            FaultEvent::Partition => {
                self.partition();
                self.plan_next(self.options.partition_every, fault);
            }
            FaultEvent::HealPartition(which) => {
                let mut world = lock(&self.world);
                if world.partition == which {
                    world.blocked.iter_mut().for_each(|row| row.fill(false));
                    let now = world.now;
                    world.trace.line(now, || "the partition heals".to_owned());
                }
            }
            FaultEvent::Pause => {
                self.pause();
                self.plan_next(self.options.pause_every, fault);
            }
            FaultEvent::Resume(node) => self.resume(node),
            FaultEvent::Rot => {
                self.rot();
                self.plan_next(self.options.rot_every, fault);
            }
        }
    }

    fn restart(&mut self, replica: usize) {
        if !lock(&self.world).nodes[replica].up {
            let mut world = lock(&self.world);
            world.trace.count("restarts");
            let now = world.now;
            world.trace.line(now, || format!("r{replica} restarts"));
            drop(world);
            self.start(replica);
        }
    }

    fn crash_some(&mut self) {
        let replicas = self.options.replicas;
        let mut world = lock(&self.world);
        let all = world.random.below(100) < self.options.crash_all_percent;
        let up: Vec<usize> = (0..replicas).filter(|&replica| world.nodes[replica].up).collect();
        let writing: Vec<usize> = up.iter().copied().filter(|&replica| world.disks[replica].is_writing()).collect();
        let primary = (world.highest_view % replicas as u64) as usize;
        // A crash of the primary, or in the middle of a write, is where the bugs are.
        let from = if up.contains(&primary) && world.random.chance(1, 3) {
            vec![primary]
        } else if !writing.is_empty() && world.random.chance(3, 4) {
            writing
        } else {
            up.clone()
        };
        let victims = if all {
            up
        } else if from.is_empty() {
            Vec::new()
        } else {
            vec![from[world.random.below(from.len() as u64) as usize]]
        };
        drop(world);
        for victim in victims {
            self.stop(victim);
            let mut world = lock(&self.world);
            let at = world.now + world.random.below(2 * self.options.restart_after.as_nanos() as u64 + 1);
            world.plan(at, Planned::Fault(FaultEvent::Restart(victim)));
        }
    }

    fn partition(&mut self) {
        let mut guard = lock(&self.world);
        let world = &mut *guard;
        let (nodes, replicas) = (world.nodes.len(), world.replicas);
        world.blocked.iter_mut().for_each(|row| row.fill(false));
        let one_way = world.random.below(100) < self.options.one_way_percent;
        let isolate = world.random.chance(1, 3);
        let alone = world.random.below(replicas as u64) as usize;
        let side: Vec<bool> =
            (0..nodes).map(|node| if isolate { node == alone } else { world.random.chance(1, 2) }).collect();
        for from in 0..nodes {
            for to in 0..nodes {
                world.blocked[from][to] = from != to && side[from] != side[to] && !(one_way && side[from]);
            }
        }
        world.partition += 1;
        world.trace.count(if one_way { "one-way partitions" } else { "partitions" });
        let (now, which) = (world.now, world.partition);
        world.trace.note(now, 1007, which, u64::from(one_way), 0);
        world.trace.line(now, || {
            let cut: Vec<String> = (0..replicas).filter(|&at| side[at]).map(|at| format!("r{at}")).collect();
            format!("partition{}: {} | the rest", if one_way { " (one way)" } else { "" }, cut.join(" "))
        });
        let lasts = 50_000_000 + world.random.below(2 * self.options.partition_every.as_nanos() as u64);
        world.plan(now + lasts, Planned::Fault(FaultEvent::HealPartition(which)));
    }

    fn pause(&mut self) {
        let mut world = lock(&self.world);
        let replica = world.random.below(self.options.replicas as u64) as usize;
        if world.nodes[replica].up && !world.nodes[replica].paused {
            world.nodes[replica].paused = true;
            world.trace.count("pauses");
            let now = world.now;
            world.trace.line(now, || format!("r{replica} is paused"));
            let lasts = world.random.below(self.options.pause_max.as_nanos() as u64) + 1;
            world.plan(now + lasts, Planned::Fault(FaultEvent::Resume(replica)));
        }
    }

    fn resume(&mut self, node: usize) {
        let mut world = lock(&self.world);
        if world.nodes[node].paused {
            world.nodes[node].paused = false;
            let now = world.now;
            world.trace.line(now, || format!("r{node} goes on"));
        }
    }

    /// Rots one slot, within what the atlas allows: of each op, fewer copies than a replication quorum.
    fn rot(&mut self) {
        let mut guard = lock(&self.world);
        let world = &mut *guard;
        let replica = world.random.below(self.options.replicas as u64) as usize;
        let head = world.disks[replica].head().0;
        if head == 0 {
            return;
        }
        // Mostly near the end, where it hurts.
        let back = if world.random.chance(2, 3) { world.random.below(head.min(8)) } else { world.random.below(head) };
        let op = OpNumber(head - back);
        if !crate::atlas::may_rot(self.options.seed, op, replica, world.replicas, world.quorums) {
            return;
        }
        let both = world.random.chance(1, 6);
        let damage = if both { crate::disk::Damage::Both } else { crate::disk::Damage::Body };
        if world.disks[replica].rot(op, damage) {
            world.trace.count("rotten slots");
            let now = world.now;
            world.trace.note(now, 1008, replica as u64, op.0, u64::from(both));
            world.trace.line(now, || format!("r{replica}'s copy of op {op} rots"));
        }
    }

    // ---- the liveness phase ----

    /// Heals a core that is large enough to go on; what is broken outside it stays broken. Every
    /// request must now complete, and the core must agree.
    fn liveness(&mut self) -> Verdict {
        let core = self.choose_core();
        self.heal(&core);
        let until = lock(&self.world).now + self.options.liveness.as_nanos() as u64;
        self.advance(until, Run::clients_are_done);
        if let Some(verdict) = self.violation() {
            return verdict;
        }
        let done = self.clients_are_done();
        let mut agree = false;
        if done {
            // The last commit number, and what an unacknowledged request left, settle down.
            for _ in 0..40 {
                let until = lock(&self.world).now + 250_000_000;
                self.advance(until, |_| false);
                if let Some(verdict) = self.violation() {
                    return verdict;
                }
                agree = self.core_agrees(&core);
                if agree {
                    break;
                }
            }
        }
        if done && agree {
            return self.check_history().map_or(Verdict::Pass, Verdict::Safety);
        }
        let why = self.explain(&core);
        match self.excuse(&core) {
            Some(excuse) => Verdict::Unrecoverable(excuse),
            None => Verdict::Liveness(format!("core {core:?} does not go on: {why}")),
        }
    }

    fn choose_core(&mut self) -> Vec<usize> {
        let n = self.options.replicas;
        let quorums = self.membership.quorums;
        let least = usize::from(quorums.view_change.max(quorums.replication));
        let mut core = Vec::new();
        for _ in 0..20 {
            let size = least + self.random.below((n - least) as u64 + 1) as usize;
            let mut all: Vec<usize> = (0..n).collect();
            while all.len() > size {
                let gone = self.random.below(all.len() as u64) as usize;
                all.remove(gone);
            }
            core = all;
            if self.excuse(&core).is_none() {
                break;
            }
        }
        core
    }

    fn heal(&mut self, core: &[usize]) {
        let n = self.options.replicas;
        let nodes = {
            let mut world = lock(&self.world);
            world.faults_on = false;
            let now = world.now;
            world.trace.line(now, || format!("liveness: core {core:?} is healed, the rest stays as it is"));
            for from in 0..world.nodes.len() {
                for to in 0..world.nodes.len() {
                    let outside = |node: usize| node < n && !core.contains(&node);
                    world.blocked[from][to] &= outside(from) || outside(to);
                }
            }
            world.nodes.len()
        };
        for node in 0..nodes {
            self.resume(node);
        }
        for replica in 0..n {
            if core.contains(&replica) {
                self.restart(replica);
            } else {
                self.damage_for_good(replica);
            }
        }
    }

    /// A replica outside the core: dead, deaf, mute or cut off, for ever.
    fn damage_for_good(&mut self, replica: usize) {
        let kind = self.random.below(4);
        if kind == 0 && lock(&self.world).nodes[replica].up {
            self.stop(replica);
        }
        let mut world = lock(&self.world);
        for node in (0..world.nodes.len()).filter(|&node| node != replica) {
            world.blocked[node][replica] |= kind != 2;
            world.blocked[replica][node] |= kind >= 2;
        }
    }

    fn core_agrees(&self, core: &[usize]) -> bool {
        let statuses: Vec<_> = core.iter().filter_map(|&at| self.handles[at].as_ref().map(Handle::status)).collect();
        let Some(first) = statuses.first() else { return false };
        statuses.len() == core.len()
            && statuses.iter().all(|status| {
                status.normal
                    && status.view == first.view
                    && status.applied == first.applied
                    && status.commit == first.commit
                    && status.applied == status.commit.op()
            })
    }

    fn explain(&mut self, core: &[usize]) -> String {
        let answers: Arc<Mutex<Vec<String>>> = Arc::default();
        for &replica in core {
            if let Some(handle) = self.handles[replica].clone() {
                let answers = answers.clone();
                let flag = Arc::new(Flag::default());
                flag.set();
                let task: Task = Box::pin(async move {
                    let status = handle.status();
                    let text = handle.explain().await;
                    let (head, commit, applied) = (status.head, status.commit, status.applied);
                    let line = format!("r{replica} (head {head}, commit {commit}, applied {applied}): {text}");
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    None
                });
                self.slots.push(Some(Slot { node: replica, flag, task }));
            }
        }
        let until = lock(&self.world).now + 50_000_000;
        self.advance(until, |_| false);
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        answers.sort();
        answers.join("; ")
    }

    /// Why a core may rightly be stuck: something that may be committed has no intact copy in it.
    fn excuse(&self, core: &[usize]) -> Option<String> {
        let world = lock(&self.world);
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = recorder.executed.last_key_value().map_or(0, |(position, _)| position.op.0);
        let disks = || core.iter().map(|&at| &world.disks[at]);
        crate::atlas::excuse(disks().collect(), OpNumber(committed), world.quorums)
    }

    /// The whole history is linearizable, and every reply is the model's.
    fn check_history(&self) -> Option<Violation> {
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let executed: Vec<_> = recorder
            .executed
            .iter()
            .map(|(position, (context, command))| (*position, (Some(*context), command.clone())))
            .collect();
        let mut model = Replay((self.machine)(), QueryContext { applied: OpNumber(0), timestamp: Timestamp(0) });
        let result =
            check_real_time(&recorder.history).and_then(|()| check_model(&recorder.history, &executed, &mut model));
        let message = result.err()?.to_string();
        Some(Violation { checker: "linearizable", message, at: lock(&self.world).now })
    }
}

/// A client at work.
struct Worker<S: Simulated> {
    life: Life,
    client: u64,
    random: Random,
    workload: Workload<S>,
    recorder: Arc<Mutex<Recorder<S>>>,
}

impl<S: Simulated> Worker<S> {
    fn now(&self) -> u64 {
        lock(&self.life.world).now
    }

    async fn pause(&mut self) {
        let nanos = self.random.below(1 << (12 + self.random.clone().below(16)));
        let clock = SimClock(self.life.clone());
        let local = lock(&self.life.world).local_time(self.life.node);
        vsr::Clock::sleep_until(&clock, Monotonic(local + nanos)).await;
    }

    async fn on_client(&mut self, client: Client<Witnessed<S>>, requests: u32) {
        for _ in 0..requests {
            self.pause().await;
            let safety = lock(&self.life.world).faults_on;
            // In the liveness phase every request must complete, however long it takes.
            let limit = if safety && self.random.chance(1, 2) { 2 } else { 1_000_000 };
            let limit = Duration::from_secs(limit);
            match (self.workload)(&mut self.random) {
                Step::Command(command) => {
                    let (at, id) = self.invoke_command(&command);
                    let result = client.submit_within((id, command), limit).await;
                    self.hear_reply(at, id, result.map(|reply| (reply.value, reply.position)));
                }
                Step::Query(query) => {
                    let at = self.invoke_query(&query);
                    let result = client.query_within(query, limit).await;
                    self.hear_answer(at, result.ok().map(|answer| (answer.value, answer.position)));
                }
            }
        }
    }

    /// An application beside a replica uses its handle, until the replica is gone.
    async fn on_handle(&mut self, handle: Handle<Witnessed<S>>) {
        for _ in 0..20 {
            self.pause().await;
            if !lock(&self.life.world).faults_on {
                return;
            }
            match (self.workload)(&mut self.random) {
                Step::Command(command) => {
                    let (at, id) = self.invoke_command(&command);
                    let result = handle.submit_positioned((id, command)).await;
                    let stopped = result.as_ref().is_err_and(|error| *error == SubmitError::Stopped);
                    self.hear_reply(at, id, result.map(|reply| (reply.value, reply.position)));
                    if stopped {
                        return;
                    }
                }
                Step::Query(query) => {
                    let at = self.invoke_query(&query);
                    let Ok(answer) = handle.query_positioned(query).await else { return };
                    self.hear_answer(at, Some((answer.value, answer.position)));
                }
            }
        }
    }

    fn record<T>(&self, f: impl FnOnce(&mut Recorder<S>) -> T) -> T {
        f(&mut self.recorder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn invoke_command(&self, command: &S::Command) -> (usize, u64) {
        let (client, now) = (self.client, self.now());
        self.record(|recorder| {
            recorder.next_command += 1;
            let id = recorder.next_command;
            (recorder.invoke(client, now, asked_command::<S>(command.clone())), id)
        })
    }

    fn invoke_query(&self, query: &S::Query) -> usize {
        let (client, now) = (self.client, self.now());
        self.record(|recorder| recorder.invoke(client, now, Asked::Query(query.clone())))
    }

    fn hear_reply(&self, at: usize, id: u64, result: Result<(S::Reply, Position), SubmitError>) {
        let now = self.now();
        match result {
            Ok((reply, position)) => {
                let checksum = Checksum::of(format!("{reply:?}").as_bytes());
                self.record(|recorder| {
                    recorder.acknowledged += 1;
                    recorder.hear(at, now, Heard::Reply(reply, position));
                });
                let acknowledged = Observation::Acknowledged { command: id, position, reply: checksum };
                let mut world = lock(&self.life.world);
                world.trace.count("acknowledged");
                world.observe(&acknowledged);
            }
            Err(SubmitError::Busy) => self.record(|recorder| recorder.hear(at, now, Heard::NotExecuted)),
            Err(_) => self.record(|recorder| {
                recorder.timeouts += 1;
                recorder.hear(at, now, Heard::Unknown);
            }),
        }
    }

    fn hear_answer(&self, at: usize, answer: Option<(S::Answer, OpNumber)>) {
        let now = self.now();
        self.record(|recorder| {
            let heard = answer.map_or(Heard::Unknown, |(answer, op)| Heard::Answer(answer, op));
            recorder.acknowledged += 1;
            recorder.hear(at, now, heard);
        });
    }
}
