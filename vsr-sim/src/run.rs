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
    Client, ClientConfig, ClientId, ClusterId, Config, Handle, Incarnation, Membership, OpNumber, Peer, QueryContext,
    Replica, ReplicaId, Timestamp, VsrState,
};

use crate::check::linearizability::{check_model, check_real_time};
use crate::check::{self, Observation, Violation};
use crate::disk::SimDisk;
use crate::machine::{Recorder, Replay, Simulated, Step, Witnessed};
use crate::node::{Life, SimClock, SimNetwork, SimStorage, Witness};
use crate::options::Options;
use crate::trace::{Detail, Trace};
use crate::worker::Worker;
use crate::world::{Flag, Planned, Shared, World, lock};

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
pub(crate) type Workload<S> =
    Arc<dyn Fn(&mut Random) -> Step<<S as vsr::StateMachine>::Command, <S as vsr::StateMachine>::Query> + Send + Sync>;

pub(crate) struct Slot {
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

pub(crate) struct Run<S: Simulated> {
    pub(crate) world: Shared,
    pub(crate) options: Options,
    pub(crate) membership: Membership,
    pub(crate) machine: Arc<dyn Fn() -> S + Send + Sync>,
    pub(crate) workload: Workload<S>,
    pub(crate) recorder: Arc<Mutex<Recorder<S>>>,
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) handles: Vec<Option<Handle<Witnessed<S>>>>,
    pub(crate) random: Random,
    pub(crate) polls_at_once: u64,
    pub(crate) crash: Option<String>,
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
                if !world.nodes[peer].up || world.blocked[peer][node] || world.blocked[node][peer] {
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

    pub(crate) fn start(&mut self, replica: usize) {
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

    pub(crate) fn stop(&mut self, replica: usize) {
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
