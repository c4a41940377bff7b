//! The cores of a cluster, their disks in memory, and the messages between them, moved by hand.
//!
//! Messages are delivered in the order in which they left. Every message that leaves is held to the disk of its sender at
//! that moment: nothing may be said before it is durable (rule 6.4).
//!
//! The simulator's scripts and explorer share a harness for this (`vsr-sim/src/harness.rs`). A test of this crate cannot use it: `vsr-sim`
//! depends on `vsr`, so its harness drives the `Core` of another build of the crate, whose types are not those of this test.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::super::core::Core;
use super::super::turn::{Effects, Input, Inputs};
use crate::protocol::health::halt::Halt;
use crate::protocol::normal::apply::{ApplyContext, Machine};
use crate::protocol::normal::checkpoints::CheckpointHead;
use crate::protocol::recovery::fetching::StorePart;
use crate::protocol::types::checkpoint::{CheckpointId, Chunk, Manifest};
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::Entry;
use crate::protocol::types::event::Event;
use crate::protocol::types::membership::Membership;
use crate::protocol::types::message::{Message, Outcome, Peer, Reply, Request};
use crate::protocol::types::number::{
    BatchNumber, ClientId, ClusterId, DiskId, Monotonic, OpNumber, ReplicaId, RequestNumber, SessionId, Timestamp,
};
use crate::protocol::types::options::{Options, Timing};
use crate::protocol::types::vsr_state::{Batch, Recovered, Slot, VsrState};

const CLIENT: ClientId = ClientId(100);
/// The longest time that [`Cluster::pass_until`] waits for something: ten time-outs at least.
const PATIENCE: Duration = Duration::from_secs(10);

/// The commands that were executed, in order. The reply to each is how many there are.
#[derive(Clone, Default)]
struct Executed(Vec<Bytes>);

impl Machine for Executed {
    fn can_decode(&self, _: &Bytes) -> bool {
        true
    }

    fn apply(&mut self, _: &ApplyContext, command: Bytes, reply: &mut Vec<u8>) -> Result<(), Halt> {
        self.0.push(command);
        reply.extend(self.0.len().to_string().bytes());
        Ok(())
    }
}

/// A chunk for what comes before the machine, and one for each command.
struct Checkpoint {
    manifest: Manifest,
    chunks: Vec<Bytes>,
}

impl Checkpoint {
    fn is_whole(&self, id: CheckpointId) -> bool {
        let is = |(chunk, bytes): (&Chunk, &Bytes)| chunk.checksum == Checksum::of(bytes);
        let all = self.manifest.chunks.len() == self.chunks.len();
        self.manifest.id() == id && all && self.manifest.chunks.iter().zip(&self.chunks).all(is)
    }

    /// `None`: there is no part of that number.
    fn part(&self, part: u32) -> Option<Bytes> {
        match part.checked_sub(1) {
            None => Some(self.manifest.encode().into()),
            Some(at) => self.chunks.get(at as usize).cloned(),
        }
    }
}

/// What survives a crash.
struct Disk {
    state: VsrState,
    log: Vec<Entry>,
    checkpoints: BTreeMap<CheckpointId, Checkpoint>,
    /// The beginning of another replica's.
    coming: Option<(CheckpointId, Checkpoint)>,
}

impl Disk {
    fn put(&mut self, batch: Batch) {
        if let Some(above) = batch.truncate_above {
            self.log.retain(|entry| entry.header.op <= above);
        }
        if let Some(state) = batch.state {
            self.log.retain(|entry| entry.header.op > state.base());
            self.state = state;
        }
        for entry in batch.entries {
            self.log.retain(|old| old.header.op != entry.header.op);
            self.log.push(entry);
        }
        self.log.sort_by_key(|entry| entry.header.op);
    }

    fn get(&self, op: u64) -> Option<&Entry> {
        self.log.iter().find(|entry| entry.header.op == OpNumber(op))
    }

    fn recover(&self) -> Recovered {
        let base = self.state.base().0;
        let head = self.log.last().map_or(base, |entry| entry.header.op.0);
        let slot = |op| self.get(op).map_or(Slot::Absent, |entry| Slot::Clean(entry.header));
        Recovered { state: self.state.clone(), slots: (base + 1..=head).map(slot).collect(), head_certain: true }
    }

    /// The newest checkpoint that can be used.
    fn restore(&self) -> Option<(Executed, CheckpointHead)> {
        let named = self.state.checkpoints.iter().rev();
        named.into_iter().find_map(|id| self.read(*id))
    }

    fn read(&self, id: CheckpointId) -> Option<(Executed, CheckpointHead)> {
        let checkpoint = self.checkpoints.get(&id).filter(|checkpoint| checkpoint.is_whole(id))?;
        let (head, commands) = checkpoint.chunks.split_first()?;
        let head = CheckpointHead::read(&mut &head[..], &self.state.membership.constants).ok()?;
        Some((Executed(commands.to_vec()), head))
    }

    fn write(&mut self, op: OpNumber, head: &[u8], machine: &Executed) -> CheckpointId {
        let chunks: Vec<Bytes> = [Bytes::copy_from_slice(head)].into_iter().chain(machine.0.iter().cloned()).collect();
        let list = chunks.iter().map(|bytes| Chunk { checksum: Checksum::of(bytes), len: bytes.len() as u32 });
        let manifest = Manifest { op, chunks: list.collect() };
        let id = manifest.id();
        self.checkpoints.insert(id, Checkpoint { manifest, chunks });
        id
    }

    fn store(&mut self, StorePart { id, part, bytes, .. }: &StorePart) -> u32 {
        let (of, mut coming) = match self.coming.take().filter(|(of, _)| of == id) {
            Some(coming) => coming,
            None => (*id, Checkpoint { manifest: Manifest::decode(bytes).unwrap(), chunks: Vec::new() }),
        };
        if *part > 0 {
            assert_eq!(coming.chunks.len() as u32 + 1, *part, "parts are stored in their order");
            coming.chunks.push(bytes.clone());
        }
        let next = coming.chunks.len() as u32 + 1;
        if coming.is_whole(of) {
            self.checkpoints.insert(of, coming);
        } else {
            self.coming = Some((of, coming));
        }
        next
    }

    /// Fails when a replica with this disk says what would be forgotten in a crash.
    fn check(&self, core: &Core, message: &Message) {
        let VsrState { view, log_view, .. } = self.state;
        let is_durable = match message {
            Message::StartViewChange { leaving: left, .. } => view >= *left,
            Message::DoViewChange(dvc) => view >= dvc.view,
            Message::StartView(start) => log_view >= start.view,
            Message::PrepareOk { view: of, op, .. } => {
                // What is committed need not be on this disk: others have it.
                let is_stored = (core.commit().0 + 1..=op.0).all(|op| self.get(op).is_some());
                log_view >= *of && is_stored
            }
            _ => true,
        };
        assert!(is_durable, "{} says what its disk does not hold: {message:?}", core.id());
    }
}

struct Node {
    /// `None` after a crash.
    core: Option<Core>,
    machine: Executed,
    disk: Disk,
    writing: Option<(BatchNumber, Batch)>,
    /// No message reaches it or leaves it.
    is_cut_off: bool,
    /// The state machine of a checkpoint that was fetched.
    restored: Option<Executed>,
    starts: u64,
    replies: Vec<Reply>,
    queries: Vec<u64>,
    events: Vec<Event>,
}

pub(super) struct Cluster {
    nodes: Vec<Node>,
    flights: VecDeque<(usize, usize, Message)>,
    sent: Vec<String>,
    /// Whether storage keeps checkpoints, and writes them.
    checkpoints: bool,
    /// Bytes of applied entries that stay in memory.
    pub(super) cache_bytes: u64,
    now: Monotonic,
    session: SessionId,
    /// The last request, to send it again.
    request: Request,
}

impl Cluster {
    /// Three replicas in view 0, replica 0 its primary, with one session that all of them know of.
    pub(super) fn new() -> Cluster {
        Cluster::with_checkpoints(0)
    }

    /// The same, with a checkpoint after so many ops.
    pub(super) fn with_checkpoints(every: u64) -> Cluster {
        Cluster::of(3, every)
    }

    /// As [`new`](Self::new), of so many replicas.
    pub(super) fn of(members: u8, every: u64) -> Cluster {
        let mut membership = Membership::new((0..members).map(|id| format!("r{id}"))).unwrap();
        membership.constants.checkpoint_ops = every;
        let node = |id: u8| {
            let disk_id = DiskId(1000 + u128::from(id));
            let state = VsrState::formatted(ClusterId(1), ReplicaId(id), disk_id, membership.clone());
            Node {
                core: None,
                machine: Executed::default(),
                disk: Disk { state, log: Vec::new(), checkpoints: BTreeMap::new(), coming: None },
                writing: None,
                is_cut_off: false,
                restored: None,
                starts: 0,
                replies: Vec::new(),
                queries: Vec::new(),
                events: Vec::new(),
            }
        };
        let register = Request {
            client: CLIENT,
            session: SessionId::default(),
            number: RequestNumber(0),
            floor: RequestNumber(0),
            command: Bytes::new(),
        };
        let mut cluster = Cluster {
            nodes: (0..members).map(node).collect(),
            flights: VecDeque::new(),
            sent: Vec::new(),
            checkpoints: every > 0,
            cache_bytes: 1 << 20,
            now: Monotonic(1_000_000_000),
            session: SessionId::default(),
            request: register,
        };
        (0..cluster.nodes.len()).for_each(|at| cluster.start(at));
        cluster.run();
        assert!(cluster.is_primary(0), "{}", cluster.describe());
        // Timers that are due at the start are no part of what a test looks at.
        cluster.pass(Duration::ZERO);
        cluster.send_again(0);
        cluster.run();
        let Outcome::Registered(session) = cluster.nodes[0].replies.remove(0).outcome else { panic!("no session") };
        cluster.session = session;
        // The backups hear that it is committed.
        cluster.pass(Duration::from_millis(2));
        cluster.take_sent();
        cluster
    }

    // ---- what happens ----

    /// Starts a replica from its disk.
    pub(super) fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.starts += 1;
        let options = Options {
            timing: Timing::default(),
            seed: node.starts * 100 + at as u64,
            local_client: ClientId(u128::from(node.starts) * 10 + at as u128),
            machine_version: 1,
            log_bytes_max: 1 << 30,
            cache_bytes: self.cache_bytes,
            queue_bytes_max: 1 << 20,
            checkpoints: self.checkpoints,
        };
        let wall = Timestamp(self.now.0);
        let (machine, head) = node.disk.restore().unzip();
        node.core = Some(Core::recover_from(options, node.disk.recover(), head, self.now, wall).unwrap());
        (node.machine, node.restored) = (machine.unwrap_or_default(), None);
        node.is_cut_off = false;
        self.turn(at, Inputs { timers: false, ..Inputs::default() });
    }

    /// The process dies. What it was writing is lost.
    pub(super) fn crash(&mut self, at: usize) {
        (self.nodes[at].core, self.nodes[at].writing) = (None, None);
    }

    pub(super) fn cut_off(&mut self, at: usize, is_cut_off: bool) {
        self.nodes[at].is_cut_off = is_cut_off;
    }

    /// The client's next request arrives at a replica, through its own handle.
    pub(super) fn submit(&mut self, at: usize, command: &'static str) {
        let number = self.request.number.next();
        let command = Bytes::from_static(command.as_bytes());
        let (session, floor) = (self.session, RequestNumber(1));
        self.request = Request { client: CLIENT, session, number, floor, command };
        self.send_again(at);
    }

    /// The client sends its last request once more.
    pub(super) fn send_again(&mut self, at: usize) {
        self.arrive(at, Input::Requests(vec![self.request.clone()]));
    }

    /// A message arrives that nobody has sent, or that was long on its way.
    pub(super) fn receive(&mut self, at: usize, from: u8, message: Message) {
        self.arrive(at, Input::Message { from: Peer::Replica(ReplicaId(from)), message });
    }

    pub(super) fn query(&mut self, at: usize, number: u64) {
        self.arrive(at, Input::Query(number));
    }

    /// The write of a replica becomes durable, if there is one.
    pub(super) fn complete_write(&mut self, at: usize) -> bool {
        let Some((number, batch)) = self.nodes[at].writing.take() else { return false };
        self.nodes[at].disk.put(batch);
        self.turn(at, Inputs { written: Some(number), timers: false, ..Inputs::default() });
        true
    }

    /// Every message that is on its way arrives; what is sent because of it does not. Whether there was one.
    pub(super) fn deliver(&mut self) -> bool {
        let flights = std::mem::take(&mut self.flights);
        let is_any = !flights.is_empty();
        for (from, to, message) in flights {
            if !self.nodes[from].is_cut_off && !self.nodes[to].is_cut_off {
                self.arrive(to, Input::Message { from: Peer::Replica(ReplicaId(from as u8)), message });
            }
        }
        is_any
    }

    /// Completes writes and delivers messages until nothing is left to do. No time passes.
    pub(super) fn run(&mut self) {
        loop {
            let mut is_busy = false;
            for at in 0..self.nodes.len() {
                is_busy |= self.complete_write(at);
            }
            is_busy |= self.deliver();
            if !is_busy {
                return;
            }
        }
    }

    /// Time passes, in one step; then timers fire, and what follows from them happens.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        for at in 0..self.nodes.len() {
            self.turn(at, Inputs::default());
        }
        self.run();
    }

    /// As [`pass`](Self::pass), where no part of a checkpoint arrives.
    pub(super) fn pass_without_parts(&mut self, time: Duration) {
        self.pass_without("CheckpointPart", time);
    }

    /// As [`pass`](Self::pass), where no message of this name arrives.
    pub(super) fn pass_without(&mut self, name: &str, time: Duration) {
        self.now = self.now.after(time);
        for at in 0..self.nodes.len() {
            self.turn(at, Inputs::default());
        }
        loop {
            let mut is_busy = false;
            for at in 0..self.nodes.len() {
                is_busy |= self.complete_write(at);
            }
            self.flights.retain(|(_, _, message)| message.name() != name);
            if !(is_busy | self.deliver()) {
                return;
            }
        }
    }

    /// The primary gives up its role.
    pub(super) fn hand_over(&mut self, at: usize) {
        self.arrive(at, Input::HandOver);
    }

    pub(super) fn pass_until(&mut self, done: impl Fn(&Cluster) -> bool) {
        let end = self.now.after(PATIENCE);
        while !done(self) {
            assert!(self.now < end, "not within {PATIENCE:?}: {}", self.describe());
            self.pass(Duration::from_millis(5));
        }
    }

    fn arrive(&mut self, at: usize, input: Input) {
        self.turn(at, Inputs { arrived: vec![input], timers: false, ..Inputs::default() });
    }

    /// Turns until the replica has nothing left to do at once. Reads are answered from the disk; the write stays under way.
    fn turn(&mut self, at: usize, mut inputs: Inputs) {
        (inputs.now, inputs.wall) = (self.now, Timestamp(self.now.0));
        let mut effects = Effects::default();
        loop {
            let Node { core: Some(core), machine, disk, writing, restored, replies, queries, events, .. } =
                &mut self.nodes[at]
            else {
                return;
            };
            core.turn(&mut inputs, machine, &mut effects);
            assert_eq!(core.halted(), None);
            inputs.timers = false;
            replies.append(&mut effects.replies);
            queries.append(&mut effects.queries);
            events.append(&mut effects.events);
            effects.marks.clear();
            if let Some(write) = effects.write.take() {
                assert!(writing.replace(write).is_none(), "one write is under way at a time");
            }
            for request in effects.reads.drain(..) {
                let (first, last) = request.ops().into_inner();
                let entries = (first.0..=last.0).map(|op| (OpNumber(op), disk.get(op).cloned())).collect();
                inputs.arrived.push(Input::Read { request, entries });
            }
            let none = effects.digest.take().map(|op| Input::Digest { op, digest: None });
            inputs.arrived.extend(none);
            if let Some(take) = effects.checkpoint.take() {
                let id = self.checkpoints.then(|| disk.write(take.op, &take.head, machine));
                inputs.arrived.push(Input::Checkpoint { op: take.op, written: id });
            }
            for request in effects.read_parts.drain(..) {
                let checkpoint = disk.checkpoints.get(&request.id).filter(|checkpoint| checkpoint.is_whole(request.id));
                let is_damaged = checkpoint.is_none();
                let bytes = checkpoint.and_then(|checkpoint| checkpoint.part(request.part));
                inputs.arrived.push(Input::PartRead { request, bytes, is_damaged });
            }
            if let Some(store) = effects.store_part.take() {
                let next = Some(disk.store(&store));
                inputs.arrived.push(Input::PartStored { id: store.id, part: store.part, next });
            }
            if let Some(id) = effects.restore.take() {
                let (machine, head) = disk.read(id).unzip();
                *restored = machine;
                inputs.arrived.push(Input::Restored { id, head });
            }
            if effects.take_up.take().is_some() {
                *machine = restored.take().unwrap();
            }
            for envelope in effects.messages.drain(..) {
                let Peer::Replica(to) = envelope.to else { panic!("there is no client outside") };
                disk.check(core, &envelope.message);
                // Pings are sent for timers alone, and would stand anywhere.
                if !matches!(envelope.message, Message::Ping(_)) {
                    self.sent.push(format!("r{at}>{to} {}", envelope.message.name()));
                }
                self.flights.push_back((at, usize::from(to.0), envelope.message));
            }
            if !effects.again {
                return;
            }
        }
    }

    /// Storage writes checkpoints, or not.
    pub(super) fn write_checkpoints(&mut self, writes: bool) {
        self.checkpoints = writes;
    }

    /// A byte of each of a replica's checkpoints changes.
    pub(super) fn harm_checkpoints(&mut self, at: usize) {
        self.nodes[at].disk.checkpoints.values_mut().for_each(|checkpoint| checkpoint.chunks[0] = Bytes::new());
    }

    /// The newest checkpoint on the disk of a replica is damaged; an older one is left.
    pub(super) fn harm_newest_checkpoint(&mut self, at: usize) {
        let disk = &mut self.nodes[at].disk;
        let [_, newest] = disk.state.checkpoints[..] else { panic!("two checkpoints") };
        disk.checkpoints.get_mut(&newest).expect("it is on the disk").chunks[0] = Bytes::new();
    }

    /// Whether the newest checkpoint that the record of a replica names is whole.
    pub(super) fn has_whole_checkpoint(&self, at: usize) -> bool {
        let disk = &self.nodes[at].disk;
        let newest = disk.state.checkpoints.last();
        newest.is_some_and(|id| disk.checkpoints.get(id).is_some_and(|checkpoint| checkpoint.is_whole(*id)))
    }

    /// An entry on the disk of a replica is damaged: its storage does not give it any more.
    pub(super) fn harm_entry(&mut self, at: usize, op: u64) {
        self.nodes[at].disk.log.retain(|entry| entry.header.op != OpNumber(op));
    }

    // ---- what is seen ----

    /// The messages since the last call, in the order in which they left: `r0>r1 Prepare`. Without pings.
    pub(super) fn take_sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent)
    }

    pub(super) fn core(&self, at: usize) -> &Core {
        self.nodes[at].core.as_ref().expect("the replica runs")
    }

    pub(super) fn core_mut(&mut self, at: usize) -> &mut Core {
        self.nodes[at].core.as_mut().expect("the replica runs")
    }

    pub(super) fn is_primary(&self, at: usize) -> bool {
        self.nodes[at].core.as_ref().is_some_and(Core::is_primary)
    }

    /// What a replica has executed since its start.
    pub(super) fn executed(&self, at: usize) -> Vec<&str> {
        self.nodes[at].machine.0.iter().map(|command| std::str::from_utf8(command).unwrap()).collect()
    }

    /// The replies that the handle of a replica was given.
    pub(super) fn replies(&self, at: usize) -> &[Reply] {
        &self.nodes[at].replies
    }

    /// The queries that a replica may serve, or could have served before.
    pub(super) fn served(&self, at: usize) -> &[u64] {
        &self.nodes[at].queries
    }

    pub(super) fn events(&self, at: usize) -> &[Event] {
        &self.nodes[at].events
    }

    /// The entry on the disk of a replica.
    pub(super) fn stored(&self, at: usize, op: u64) -> Option<&Entry> {
        self.nodes[at].disk.get(op)
    }

    fn describe(&self) -> String {
        let node = |node: &Node| match &node.core {
            Some(core) => {
                let (view, commit, head) = (core.view(), core.commit(), core.head());
                format!(
                    "{}: {:?} view {view} commit {commit} head {head}: {}",
                    core.id(),
                    core.status(),
                    core.explain()
                )
            }
            None => "down".to_owned(),
        };
        self.nodes.iter().map(node).collect::<Vec<_>>().join("\n")
    }
}
