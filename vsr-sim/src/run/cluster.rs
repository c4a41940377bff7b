//! A whole run: a cluster of production replicas on a deterministic executor.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::future::join_all;
use vsr::protocol::{DiskId, Halt, Peer, Random, VsrState};
use vsr::{
    Client, ClientConfig, ClientId, ClusterId, Handle, Membership, Network, Replica, ReplicaError, ReplicaId, Storage,
};

use super::client::Worker;
use super::instrument::{Instrumented, Recorder, Watch};
use super::simulation::{Invariant, Oracle, Simulation};
use crate::check::{self, Observation, Violation};
use crate::faults::{Fault, KEPT, MessageFate, Plan, TimedFault, Unsynced};
use crate::files::{Grain, SimDisk, boxed_file_storage};
use crate::options::{Limits, Options};
use crate::report::budget::Figures;
use crate::report::timeline::State;
use crate::report::{Report, Trace, TraceKind, Verdict};
use crate::workload::{Registers, Simulated, Workload, machine_name};
use crate::world::{
    CheckerObserver, Endless, FileDisks, Flag, Life, NetworkOf, OnFiles, OnSocket, Open, Planned, Shared, SimClock,
    SimNetwork, SimStorage, World, lock, site,
};

pub(crate) type Task = Pin<Box<dyn Future<Output = Option<Stopped>> + Send>>;

/// Why a task has ended that was to go on.
pub(crate) enum Stopped {
    /// A storage refused, as a storage may.
    Storage(String),
    /// Its disk is an older copy: it has to get a new one.
    OldDisk(String),
    /// Anything else.
    Other(String),
}

pub(crate) struct Slot {
    pub(crate) node: usize,
    pub(crate) flag: Arc<Flag>,
    pub(crate) task: Task,
}

pub(crate) struct Run<S: Simulated> {
    pub(crate) world: Shared,
    pub(crate) options: Options,
    pub(crate) membership: Membership,
    pub(crate) machine: Arc<dyn Fn() -> S + Send + Sync>,
    pub(crate) workload: Workload<S>,
    pub(crate) invariants: Vec<Invariant<S>>,
    pub(crate) oracle: Oracle<S>,
    pub(crate) given: Option<Vec<Fault>>,
    pub(crate) recorder: Arc<Mutex<Recorder<S>>>,
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) handles: Vec<Option<Handle<Instrumented<S>>>>,
    pub(crate) clients: Vec<(Life, Client<Instrumented<S>>)>,
    /// The replicas that must go on, once they are healed.
    pub(crate) core: Vec<usize>,
    /// How many faults of each class were drawn.
    pub(crate) drawn: [u64; 16],
    pub(crate) polls_at_once: u64,
    pub(crate) crash: Option<String>,
    /// How long the liveness phase took, and what it cost.
    pub(crate) figures: Figures,
    network: Option<NetworkOf>,
    /// Clients that break their own rule.
    pub(crate) rogues: Vec<Life>,
}

impl<S: Simulated> Run<S> {
    pub(crate) fn new(simulation: Simulation<S>) -> Run<S> {
        let Simulation { mut options, machine, workload, detail, faults, invariants, oracle, storage, network } =
            simulation;
        if network.is_some() {
            // They speak the simulated network's own language.
            options.rogues = 0;
        }
        let membership = options.validate().and_then(|()| options.membership()).unwrap_or_else(|why| panic!("{why}"));
        let plan = faults.as_deref().map(Plan::of).unwrap_or_default();
        let mut world =
            World::new(options.clone(), membership.quorums, plan, Trace::new(detail), check::Checkers::all());
        let open = storage.map(|open| (open, Grain::Log));
        let open = open.or_else(|| options.files.then(|| (Arc::new(boxed_file_storage) as Open, Grain::Sector)));
        let mut files = open.map(|(open, grain)| FileDisks::new(open, grain));
        let mut crash = None;
        for id in 0..options.replicas {
            let replica = ReplicaId(id as u8);
            world.add_node(Peer::Replica(replica));
            let disk_id = DiskId(u128::from(world.draw(site::NODE, id as u64, 1).next_u64()));
            let state = VsrState::formatted(ClusterId(1), replica, disk_id, membership.clone());
            if let Some(Err(error)) = files.as_mut().map(|files| files.add(&state)) {
                crash = Some(format!("formatting the disk of r{id}: {error}"));
                files = None;
            }
            world.disks.push(SimDisk::new(state));
        }
        let Limits { reply_max, session_replies_max, table_replies_max, .. } = options.limits;
        world.replies_fit = machine_name::<S>() == machine_name::<Registers>()
            && reply_max >= 4096
            && u64::from(session_replies_max).min(table_replies_max) >= 1 << 20;
        for name in options.limits.counters(&options) {
            world.trace.count(name);
        }
        if files.is_some() {
            world.trace.count("storages on files");
        }
        world.files = files;
        let recorder = Arc::new(Mutex::new(Recorder::new()));
        world.watch = Some(Arc::new(Watch { recorder: recorder.clone(), invariants: invariants.clone() }));
        Run {
            world: Arc::new(Mutex::new(world)),
            slots: (0..options.replicas).map(|_| None).collect(),
            handles: (0..options.replicas).map(|_| None).collect(),
            clients: Vec::new(),
            options,
            membership,
            machine,
            workload,
            invariants,
            oracle,
            given: faults,
            recorder,
            core: Vec::new(),
            drawn: [0; 16],
            polls_at_once: 0,
            figures: Figures::default(),
            crash,
            network,
            rogues: Vec::new(),
        }
    }

    /// Starts every replica and every client, with its work.
    pub(crate) fn start_all(&mut self) {
        for replica in 0..self.options.replicas {
            self.start(replica);
        }
        for client in 0..self.options.clients {
            self.add_client(client);
        }
        for rogue in 0..self.options.rogues {
            self.add_rogue(rogue);
        }
        for client in 0..self.options.clients {
            self.put_to_work(client);
        }
        for rogue in 0..self.options.rogues {
            self.let_loose(rogue);
        }
    }

    pub(crate) fn report(self, verdict: Verdict) -> Report {
        let mut world = lock(&self.world);
        let trace = std::mem::take(&mut world.trace);
        let simulated = Duration::from_nanos(world.now);
        let mut faults = std::mem::take(&mut world.plan.happened);
        // A copy whose time did not come.
        faults.retain(|fault| !matches!(fault, Fault::Message(_, MessageFate::Again(KEPT))));
        drop(world);
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let acknowledged = recorder.acknowledged;
        // Those of the other runs are not read, and there are many.
        let operations = if verdict.is_failure() { recorder.in_words() } else { Vec::new() };
        drop(recorder);
        let figures = self.figures;
        Report { options: self.options, verdict, trace, simulated, acknowledged, faults, operations, figures }
    }

    pub(crate) fn violation(&self) -> Option<Verdict> {
        if let Some(crash) = &self.crash {
            return Some(Verdict::Crash(crash.clone()));
        }
        lock(&self.world).violation.clone().map(Verdict::Safety)
    }

    // ---- the executor ----

    /// Every request was answered; in the liveness phase those of applications beside the replicas of the core, too.
    pub(crate) fn clients_are_done(&mut self) -> bool {
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        recorder.active == 0 && !self.core.iter().any(|replica| recorder.waiting.contains(replica))
    }

    /// Runs until a moment, or until something holds.
    pub(crate) fn advance(&mut self, until: u64, mut done: impl FnMut(&mut Run<S>) -> bool) {
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
    pub(crate) fn poll_ready(&mut self) {
        self.polls_at_once = 0;
        let is_set = |slot: &Slot| slot.flag.is_set();
        while self.slots.iter().flatten().any(is_set) {
            let mut polled = false;
            let start = {
                let world = lock(&self.world);
                let mut random = world.draw(site::ORDER, world.now, self.polls_at_once);
                random.below(self.slots.len() as u64) as usize
            };
            for at in (start..self.slots.len()).chain(0..start) {
                let Some(slot) = &self.slots[at] else { continue };
                if !slot.flag.is_set() || lock(&self.world).nodes[slot.node].paused {
                    continue;
                }
                polled = true;
                self.poll_one(at);
                self.reap();
                if self.crash.is_some() || lock(&self.world).violation.is_some() {
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
        let node = slot.node;
        self.polls_at_once += 1;
        lock(&self.world).polled(node);
        match result {
            Ok(std::task::Poll::Pending) => {}
            Ok(std::task::Poll::Ready(stopped)) => {
                self.slots[at] = None;
                if let Some(stopped) = stopped {
                    self.stopped(node, stopped);
                }
            }
            // The world has noted what it was that did not end.
            Err(endless) if endless.is::<Endless>() => self.slots[at] = None,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                self.crash = Some(text.unwrap_or_else(|| "a panic without a message".to_owned()));
                self.slots[at] = None;
            }
        }
    }

    /// A replica has stopped by itself: as it must when its disk fails, never otherwise. A checker says which it was.
    fn stopped(&mut self, node: usize, stopped: Stopped) {
        let mut is_old = false;
        let (message, by_storage) = match stopped {
            Stopped::Storage(message) => (message, true),
            Stopped::OldDisk(message) => {
                is_old = true;
                (message, true)
            }
            Stopped::Other(message) => (message, false),
        };
        let mut world = lock(&self.world);
        if node >= self.options.replicas {
            let at = world.now;
            return world.breach(Violation { checker: "replica-runs", message, at });
        }
        world.observe(&Observation::Stopped { replica: node, by_storage, why: &message });
        if world.violation.is_some() {
            return;
        }
        let is_by_state = message.contains("the state machine has the digest");
        world.trace.count(match () {
            () if is_by_state => "stopped with a wrong state",
            () if is_old => "stopped with an older disk",
            () => "stopped by its disk",
        });
        world.fault(node, None, || message);
        // A state that went wrong may be noticed when the rest is healed: somebody starts the replica again then, too.
        let restarts_in_core = is_by_state && !world.faults_on;
        drop(world);
        self.stop(node, Unsynced::Lost);
        if is_old {
            // The words say what the operator does.
            self.replace_disk(node);
        } else if restarts_in_core {
            self.restart(node);
        } else {
            self.plan_restart(node);
        }
    }

    /// Ends the processes that died while they were polled.
    fn reap(&mut self) {
        let dying = std::mem::take(&mut lock(&self.world).dying);
        for node in dying {
            let unsynced = lock(&self.world).nodes[node].dying.unwrap_or(Unsynced::Lost);
            if lock(&self.world).nodes[node].up {
                self.stop(node, unsynced);
                self.plan_restart(node);
            }
        }
    }

    fn happen(&mut self, planned: Planned) {
        match planned {
            Planned::Deliver(delivery) => lock(&self.world).deliver(delivery),
            Planned::Frame { from, to, bytes } => lock(&self.world).deliver_frame(from, to, bytes),
            Planned::PeerDown { node, peer, refused } => {
                let mut world = lock(&self.world);
                if !world.nodes[peer].up || !world.links.passes(peer, node) || !world.links.passes(node, peer) {
                    let peer = world.nodes[peer].peer;
                    world.arrive(node, vsr::network::NetworkEvent::PeerDown { peer, refused });
                }
            }
            Planned::PeerUp { node, peer } => {
                let mut world = lock(&self.world);
                let peer = world.nodes[peer].peer;
                world.arrive(node, vsr::network::NetworkEvent::PeerUp(peer));
            }
            Planned::DiskDone { node, life, fate } => {
                let mut world = lock(&self.world);
                if world.nodes[node].life != life || !world.nodes[node].up {
                    return;
                }
                // Once the world is healed, no write fails any more.
                let fate = fate.filter(|_| world.faults_on);
                if world.nodes[node].stalled {
                    world.nodes[node].waiting = Some((life, fate));
                } else {
                    world.end_write(node, fate);
                }
                drop(world);
                self.reap();
            }
            Planned::Wake { waker } => waker.wake(),
            Planned::Draw(class) => self.draw_class(class),
            Planned::TimedFault(happening) => self.happen_now(happening),
            Planned::LoseTail { victim, tries } => self.lose_tail(victim, tries),
            Planned::EndOfPartition(which) => {
                if lock(&self.world).links.partitions() == which {
                    self.happen_now(TimedFault::Heal);
                }
            }
        }
    }

    // ---- replicas and clients ----

    pub(crate) fn life(&mut self, node: usize) -> Life {
        let flag = Arc::new(Flag::default());
        flag.set();
        let mut world = lock(&self.world);
        let state = &mut world.nodes[node];
        state.life += 1;
        state.up = true;
        (state.poisoned, state.dying, state.cause) = (false, None, None);
        let life = state.life;
        drop(world);
        Life { world: self.world.clone(), node, life, flag }
    }

    fn storage(&self, life: &Life) -> Box<dyn Storage> {
        let opened = lock(&self.world).open_files(life.node);
        match opened {
            Some(opened) => Box::new(OnFiles::new(life.clone(), opened)),
            None => Box::new(SimStorage(life.clone())),
        }
    }

    /// Whether its replicas have a network of a user's own.
    pub(crate) fn speaks_its_own_language(&self) -> bool {
        self.network.is_some()
    }

    fn network(&self, life: &Life) -> Box<dyn Network> {
        match &self.network {
            Some(network) => Box::new(OnSocket::new(life.clone(), network)),
            None => Box::new(SimNetwork(life.clone())),
        }
    }

    pub(crate) fn start(&mut self, replica: usize) {
        let life = self.life(replica);
        let storage = self.storage(&life);
        {
            let mut world = lock(&self.world);
            if !world.is_head_certain(replica) {
                world.trace.count("starts with an uncertain head");
                world.release_start_views(replica);
            }
            let syncs_fail = world.now < world.nodes[replica].no_sync_until;
            if !syncs_fail {
                world.disks[replica].write_back();
            }
            world.nodes[replica].wrong = false;
            world.observe(&Observation::Started { replica });
            if world.disks[replica].is_old() {
                world.observe(&Observation::Broke { replica, must: false, how: "its disk is an older copy" });
            }
            if syncs_fail || world.disks[replica].is_lost() {
                world.observe(&Observation::Broke { replica, must: false, how: "its disk cannot be used" });
            }
            for peer in (0..self.options.replicas).filter(|&peer| peer != replica) {
                let at = world.now + 200_000;
                world.plan(at, Planned::PeerUp { node: peer, peer: replica });
            }
        }
        let config = self.options.config(replica, life.life, &self.membership).expect("valid");
        let machine = Instrumented {
            inner: (self.machine)(),
            life: life.clone(),
            recorder: self.recorder.clone(),
            invariants: self.invariants.clone(),
            wrong: false,
        };
        let builder = Replica::builder(config, machine).storage(storage);
        let builder = builder.network(self.network(&life)).clock(SimClock(life.clone()));
        let (running, handle) = builder.observer(Box::new(CheckerObserver::of(life.clone()))).build().expect("valid");
        if self.options.handles {
            let handle = handle.clone();
            let mut work = self.worker(life.clone(), 1000 + replica as u64);
            let task = async move {
                work.on_handle(handle).await;
                None
            };
            self.spawn(life.node, Box::pin(task));
        }
        self.handles[replica] = Some(handle);
        let task = async move {
            let error = running.run().await.err()?;
            let text = format!("r{replica} stopped: {error}");
            Some(match error {
                // What it holds is not to be used any more, on the disk or in memory.
                ReplicaError::Storage(_)
                | ReplicaError::Halt(Halt::StateDiffers { .. } | Halt::SoloCheckpointLost { .. }) => {
                    Stopped::Storage(text)
                }
                ReplicaError::Halt(Halt::OlderStart { .. } | Halt::OlderDisk { .. } | Halt::OldDisk { .. }) => {
                    Stopped::OldDisk(text)
                }
                _ => Stopped::Other(text),
            })
        };
        self.slots[replica] = Some(Slot { node: replica, flag: life.flag, task: Box::pin(task) });
    }

    /// A task on a node, that ends with its life.
    pub(crate) fn spawn(&mut self, node: usize, task: Task) {
        let flag = Arc::new(Flag::default());
        flag.set();
        let slot = Some(Slot { node, flag, task });
        let first = self.options.replicas;
        match self.slots.iter().skip(first).position(Option::is_none) {
            Some(free) => self.slots[first + free] = slot,
            None => self.slots.push(slot),
        }
    }

    pub(crate) fn worker(&self, life: Life, client: u64) -> Worker<S> {
        let seed = self.options.seed ^ client.wrapping_mul(0x9e37_79b9) ^ life.life << 40;
        Worker {
            life,
            client,
            random: Random::new(seed),
            workload: self.workload.clone(),
            queries_percent: self.options.queries_percent,
            wants_checkpoints: self.options.limits.takes_checkpoints(),
            recorder: self.recorder.clone(),
        }
    }

    /// A client that has nothing to do yet.
    pub(crate) fn add_client(&mut self, client: usize) {
        let mut random = lock(&self.world).draw(site::CLIENT, client as u64, 0);
        let id = ClientId((u128::from(random.next_u64()) << 32) | (client as u128 + 1));
        let node = lock(&self.world).add_node(Peer::Client(id));
        let life = self.life(node);
        let mut config = ClientConfig::new(self.options.replicas);
        config.id = id;
        config.seed = random.next_u64();
        config.window = self.options.window;
        config.queue_max = self.options.limits.queue_max;
        let (handle, runner) = Client::<Instrumented<S>>::new(config, self.network(&life), SimClock(life.clone()));
        let task = async move {
            runner.run().await.err().map(|error| Stopped::Other(format!("client {client} stopped: {error}")))
        };
        self.slots.push(Some(Slot { node, flag: life.flag.clone(), task: Box::pin(task) }));
        self.clients.push((life, handle));
    }

    pub(crate) fn put_to_work(&mut self, client: usize) {
        let (life, handle) = self.clients[client].clone();
        let lanes = 1 + lock(&self.world).draw(site::CLIENT, client as u64, 1).below(4) as u32;
        let requests = self.options.requests / lanes;
        let recorder = self.recorder.clone();
        recorder.lock().unwrap_or_else(PoisonError::into_inner).active += 1;
        let of_work = Life { flag: Arc::new(Flag::default()), ..life };
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
        self.slots.push(Some(Slot { node: of_work.node, flag: of_work.flag, task: Box::pin(task) }));
    }

    /// The process of a replica is gone, with everything that was not synced, or that the disk happened to keep.
    pub(crate) fn stop(&mut self, replica: usize, unsynced: Unsynced) {
        self.slots[replica] = None;
        self.handles[replica] = None;
        let others = self.options.replicas;
        for slot in self.slots.iter_mut().skip(others) {
            if slot.as_ref().is_some_and(|slot| slot.node == replica) {
                *slot = None;
            }
        }
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&replica);
        let mut world = lock(&self.world);
        let lost = if world.files.is_some() {
            world.crash_on_files(replica, unsynced)
        } else {
            world.disks[replica].crash(unsynced)
        };
        world.wake_up(replica);
        let node = &mut world.nodes[replica];
        (node.up, node.paused, node.waiting, node.wrote) = (false, false, None, None);
        node.inbox.clear();
        let now = world.now;
        world.trace.count("crashes");
        world.trace.note(now, TraceKind::Crashed, replica as u64, 0, 0);
        if let Some(lost) = lost {
            world.trace.count(lost);
        }
        let write = lost.unwrap_or("no write under way");
        world.fault(replica, None, || format!("r{replica} crashes ({write})"));
        world.state(replica, State::Down);
        let mut random = world.draw(site::HINT, replica as u64, world.nodes[replica].life);
        for peer in (0..self.options.replicas).filter(|&peer| peer != replica) {
            let hint = random.below(3);
            if hint > 0 {
                let at = now + 100_000 + random.below(1_000_000);
                world.plan(at, Planned::PeerDown { node: peer, peer: replica, refused: hint == 1 });
            }
        }
    }
}
