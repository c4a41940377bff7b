//! Scripted schedules on the protocol core: every message, write, crash and time-out happens when a test
//! says so.
//!
//! ```
//! use std::time::Duration;
//! use vsr_sim::script::Script;
//!
//! let mut s = Script::new(3);
//! let client = s.register(0);
//! s.submit(0, client, 1, b"a");
//! s.run();
//! assert_eq!(s.reply(client, 1), Some(b"1".to_vec())); // the number of commands executed so far
//! s.crash(0); // what was not synced is gone
//! s.pass(Duration::from_secs(3)); // the others time out, and a new view starts
//! s.restart(0);
//! s.settle(); // everything is healed: all are normal, in one view, with one log
//! assert_eq!(s.executed(0), ["a"]);
//! ```
//!
//! The checkers of the simulator look at every step, and a broken property fails the test.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::{
    Core, DiskId, Effects, Envelope, Event, Halt, Input, Inputs, Mark, Message, Monotonic, OpNumber, Outcome, Peer,
    Reply, Request, RequestNumber, SessionId, Status, Timestamp, Timing, View, VsrState,
};
use vsr::{Checksum, ClientId, ClusterId, Membership, ReplicaId};

use crate::check::{Checkers, Observation, Scene};
use crate::faults::{Damage, Unsynced};
use crate::files::SimDisk;
use crate::harness::{Harness, ReplyWith, Start};

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// Its sender.
    pub from: Peer,
    /// Its receiver.
    pub to: Peer,
    /// What it says.
    pub message: Message,
}

impl Flight {
    /// Whether it goes from one replica to another.
    #[must_use]
    pub fn is(&self, from: usize, to: usize) -> bool {
        self.from == replica(from) && self.to == replica(to)
    }

    /// The kind of its message, as [`Message::name`] says.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.message.name()
    }
}

type Filter = Box<dyn Fn(&Flight) -> bool>;

enum Fate {
    Hold,
    Drop,
}

struct Rule {
    id: usize,
    filter: Filter,
    fate: Fate,
}

struct Node {
    /// The process, while it is up.
    harness: Option<Harness>,
    /// What the last process had executed when it died.
    left: Vec<Bytes>,
    disk_held: bool,
    paused: bool,
    /// Tokens of queries that may be served, with what had been executed then.
    answers: BTreeMap<u64, usize>,
    room: u64,
    /// Bytes by which a batch was larger than the room that the replica was told of.
    over_room: u64,
    may_stop: bool,
    stopped: Option<Halt>,
}

/// A cluster of protocol cores, moved by hand.
pub struct Script {
    nodes: Vec<Node>,
    disks: Vec<SimDisk>,
    disks_replaced: bool,
    membership: Membership,
    timing: Timing,
    flights: Vec<Flight>,
    held: Vec<(usize, Flight)>,
    /// Messages for processes that stand still.
    waiting: Vec<(usize, Flight)>,
    rules: Vec<Rule>,
    next_rule: usize,
    now: Monotonic,
    replies: BTreeMap<(ClientId, RequestNumber), Vec<Reply>>,
    sessions: BTreeMap<ClientId, SessionId>,
    next_client: u128,
    checkers: Checkers,
    /// Time-outs that voted, view changes, and so on, for tests that count.
    events: Vec<(usize, Event)>,
    marks: Vec<Mark>,
    starts: u64,
}

const CLUSTER: ClusterId = ClusterId(1);

fn replica(at: usize) -> Peer {
    Peer::Replica(ReplicaId(at as u8))
}

/// How long [`Script::settle`] waits: twenty time-outs.
const SETTLE: Duration = Duration::from_secs(20);

impl Script {
    /// A cluster of this size, started and idle in view 0.
    #[must_use]
    pub fn new(replicas: usize) -> Script {
        let addresses = (0..replicas).map(|id| format!("replica {id}"));
        Script::with_membership(Membership::new(addresses).expect("a cluster has 1 to 9 members"))
    }

    /// A cluster with other constants or quorums than the defaults.
    #[must_use]
    pub fn with_membership(membership: Membership) -> Script {
        membership.validate().expect("the membership works");
        let nodes = (0..membership.size()).map(|id| {
            let disk_id = DiskId(1000 + id as u128);
            let state = VsrState::formatted(CLUSTER, ReplicaId(id as u8), disk_id, membership.clone());
            let node = Node {
                harness: None,
                left: Vec::new(),
                disk_held: false,
                paused: false,
                answers: BTreeMap::new(),
                room: u64::MAX,
                over_room: 0,
                may_stop: false,
                stopped: None,
            };
            (node, SimDisk::new(state))
        });
        let (nodes, disks): (Vec<Node>, Vec<SimDisk>) = nodes.unzip();
        let mut script = Script {
            nodes,
            disks,
            membership,
            timing: Timing::default(),
            flights: Vec::new(),
            held: Vec::new(),
            waiting: Vec::new(),
            disks_replaced: false,
            rules: Vec::new(),
            next_rule: 0,
            now: Monotonic(1_000_000_000),
            replies: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_client: 1 << 64,
            checkers: Checkers::all(),
            events: Vec::new(),
            marks: Vec::new(),
            starts: 0,
        };
        for at in 0..script.nodes.len() {
            script.restart(at);
        }
        script.run();
        script
    }

    /// The number of replicas.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a cluster has a member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    // ---- what happens ----

    /// Delivers messages and completes writes, in order, until nothing is left to do. No time passes.
    pub fn run(&mut self) {
        loop {
            let mut progress = false;
            for at in 0..self.nodes.len() {
                progress |= self.complete_write(at);
            }
            let flights = std::mem::take(&mut self.flights);
            progress |= !flights.is_empty();
            for flight in flights {
                self.deliver(flight);
            }
            if !progress {
                return;
            }
        }
    }

    /// Lets time pass in small steps, with everything delivered after each.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(5)).min(end);
            for at in 0..self.nodes.len() {
                self.turn(at, |inputs| inputs.timers = true);
            }
            self.run();
        }
    }

    /// Heals everything, starts what is down, waits, and asserts what every schedule must end with: all
    /// normal, in one view, with one log, everything applied.
    pub fn settle(&mut self) {
        self.heal();
        for at in 0..self.nodes.len() {
            self.pause(at, false);
            self.nodes[at].disk_held = false;
            if self.nodes[at].harness.is_none() {
                self.restart(at);
            }
        }
        self.run();
        let end = self.now.after(SETTLE);
        while self.now < end && !self.is_settled() {
            self.pass(Duration::from_millis(50));
        }
        let states: Vec<String> = (0..self.nodes.len()).map(|at| self.describe(at)).collect();
        assert!(self.is_settled(), "twenty time-outs after everything was healed: {states:#?}");
    }

    fn is_settled(&self) -> bool {
        let of_first = self.harness(0);
        let first = of_first.core();
        self.nodes.iter().all(|node| {
            node.harness.as_ref().is_some_and(|harness| {
                let core = harness.core();
                core.status() == Status::Normal
                    && core.view() == first.view()
                    && core.head() == first.head()
                    && core.checksum(core.head()) == first.checksum(first.head())
                    && core.applied() == core.head()
                    && core.sessions_digest() == first.sessions_digest()
                    && harness.executed() == of_first.executed()
            })
        })
    }

    /// One replica in a line.
    #[must_use]
    pub fn describe(&self, at: usize) -> String {
        match self.nodes[at].harness.as_ref().map(Harness::core) {
            Some(core) => format!(
                "r{at}: {:?} view {} log_view {} commit {} applied {} head {}: {}",
                core.status(),
                core.view(),
                core.log_view(),
                core.commit(),
                core.applied(),
                core.head(),
                core.explain()
            ),
            None => format!("r{at}: down"),
        }
    }

    // ---- the network ----

    /// Messages that fit stay on their way until the rule is released.
    pub fn hold(&mut self, filter: impl Fn(&Flight) -> bool + 'static) -> usize {
        self.rule(Box::new(filter), Fate::Hold)
    }

    /// Messages that fit are lost.
    pub fn lose(&mut self, filter: impl Fn(&Flight) -> bool + 'static) -> usize {
        self.rule(Box::new(filter), Fate::Drop)
    }

    fn rule(&mut self, filter: Filter, fate: Fate) -> usize {
        self.next_rule += 1;
        self.rules.push(Rule { id: self.next_rule, filter, fate });
        self.next_rule
    }

    /// No message goes from one replica to the other.
    pub fn cut_one_way(&mut self, from: usize, to: usize) -> usize {
        self.lose(move |flight| flight.is(from, to))
    }

    /// No message goes between two replicas.
    pub fn cut(&mut self, a: usize, b: usize) -> usize {
        self.lose(move |flight| flight.is(a, b) || flight.is(b, a))
    }

    /// No message of other replicas reaches this one, or leaves it.
    pub fn isolate(&mut self, at: usize) -> usize {
        let other = |peer: Peer| matches!(peer, Peer::Replica(_));
        self.lose(move |flight| {
            (flight.from == replica(at) && other(flight.to)) || (flight.to == replica(at) && other(flight.from))
        })
    }

    /// Ends a rule. What it held is delivered by the next [`run`](Self::run), in order.
    pub fn release(&mut self, rule: usize) {
        self.rules.retain(|known| known.id != rule);
        let held = std::mem::take(&mut self.held);
        for (of, flight) in held {
            if of == rule { self.flights.push(flight) } else { self.held.push((of, flight)) }
        }
    }

    /// Ends a rule and forgets what it held.
    pub fn forget(&mut self, rule: usize) {
        self.rules.retain(|known| known.id != rule);
        self.held.retain(|(of, _)| *of != rule);
    }

    /// Ends every rule. What was held is lost.
    pub fn heal(&mut self) {
        self.rules.clear();
        self.held.clear();
    }

    /// What a rule holds.
    #[must_use]
    pub fn held(&self, rule: usize) -> Vec<Flight> {
        self.held.iter().filter(|(of, _)| *of == rule).map(|(_, flight)| flight.clone()).collect()
    }

    /// Delivers any message at once, as often as wanted, past every rule.
    pub fn inject(&mut self, flight: Flight) {
        self.receive(flight);
    }

    /// A message between two replicas, for [`inject`](Self::inject).
    #[must_use]
    pub fn flight(from: usize, to: usize, message: Message) -> Flight {
        Flight { from: replica(from), to: replica(to), message }
    }

    /// The transport of one replica reports that its connection to another is gone.
    pub fn peer_down(&mut self, at: usize, peer: usize, refused: bool) {
        self.turn(at, |inputs| inputs.arrived.push(Input::PeerDown { peer: ReplicaId(peer as u8), refused }));
    }

    // ---- processes and disks ----

    /// The process dies; writes under way are lost.
    pub fn crash(&mut self, at: usize) {
        if let Some(harness) = self.nodes[at].harness.take() {
            self.nodes[at].left = harness.executed().to_vec();
        }
        self.waiting.retain(|(of, _)| *of != at);
        // Of the outcomes that the contract allows, this is the harshest: nothing of it.
        self.disks[at].crash(Unsynced::Lost);
    }

    /// The process dies right after its write became durable, before it could say so.
    pub fn crash_after_write(&mut self, at: usize) {
        self.disks[at].complete();
        self.crash(at);
    }

    /// Starts a replica from its disk.
    ///
    /// # Panics
    /// When it refuses to start.
    pub fn restart(&mut self, at: usize) {
        self.try_restart(at).expect("the replica starts");
    }

    /// Starts a replica from its disk, if it does not refuse.
    ///
    /// # Errors
    /// Why it refuses.
    pub fn try_restart(&mut self, at: usize) -> Result<(), Halt> {
        self.starts += 1;
        let start = Start {
            at,
            starts: self.starts,
            local_client: ClientId(u128::from(self.starts)),
            timing: self.timing,
            reply_with: ReplyWith::Count,
        };
        let recovered = self.disks[at].start();
        let harness = Harness::recover(&start, recovered, self.now, Timestamp(self.now.0))?;
        let node = &mut self.nodes[at];
        node.harness = Some(harness);
        node.answers.clear();
        self.observe(&Observation::Started { replica: at });
        self.turn(at, |_| {});
        Ok(())
    }

    /// Writes of this replica do not complete until its disk is released.
    pub fn hold_disk(&mut self, at: usize) {
        self.nodes[at].disk_held = true;
    }

    /// Writes complete again.
    pub fn release_disk(&mut self, at: usize) {
        self.nodes[at].disk_held = false;
    }

    /// Completes the one write under way of a held disk.
    pub fn write_once(&mut self, at: usize) {
        let held = std::mem::replace(&mut self.nodes[at].disk_held, false);
        self.complete_write(at);
        self.nodes[at].disk_held = held;
    }

    /// The process stands still: no message is taken, no time-out noticed, until it goes on.
    pub fn pause(&mut self, at: usize, paused: bool) {
        self.nodes[at].paused = paused;
        if !paused {
            let waiting = self.waiting.extract_if(.., |(of, _)| *of == at);
            self.flights.extend(waiting.map(|(_, flight)| flight));
        }
    }

    /// Damages an entry on a disk. It is noticed at the next start, or read.
    pub fn rot(&mut self, at: usize, op: u64, damage: Damage) {
        assert!(self.disks[at].rot(OpNumber(op), damage), "there is something to rot");
    }

    /// The disk of a replica.
    #[must_use]
    pub fn disk(&self, at: usize) -> &SimDisk {
        &self.disks[at]
    }

    /// Bytes that a replica's disk can still take.
    pub fn set_room(&mut self, at: usize, bytes: u64) {
        self.nodes[at].room = bytes;
    }

    /// Bytes by which a batch of a replica was larger than the room that it was told of.
    #[must_use]
    pub fn over_room(&self, at: usize) -> u64 {
        self.nodes[at].over_room
    }

    /// Puts another disk in the place of a replica's, which is down: an older image of it, or one that was formatted anew. The checkers
    /// rely on disks that stay, and look away from here on: the schedule says what must be so.
    ///
    /// # Panics
    /// When the replica is up.
    pub fn replace_disk(&mut self, at: usize, disk: SimDisk) {
        assert!(self.nodes[at].harness.is_none(), "the replica is down");
        self.disks[at] = disk;
        self.disks_replaced = true;
    }

    /// From now on a replica may stop; why, [`stopped`](Self::stopped) says.
    pub fn let_stop(&mut self, at: usize) {
        self.nodes[at].may_stop = true;
    }

    /// Why a replica has stopped by itself.
    #[must_use]
    pub fn stopped(&self, at: usize) -> Option<&Halt> {
        self.nodes[at].stopped.as_ref()
    }

    // ---- clients ----

    /// Opens a session through a replica, and waits for it (no time passes).
    ///
    /// # Panics
    /// When it cannot be opened without time passing.
    pub fn register(&mut self, at: usize) -> ClientId {
        self.next_client += 1;
        let client = ClientId(self.next_client);
        self.send_register(at, client);
        self.run();
        self.session(client).expect("the session is open");
        client
    }

    /// Sends a `Register` of any client.
    pub fn send_register(&mut self, at: usize, client: ClientId) {
        self.request(
            at,
            Request {
                client,
                session: SessionId::default(),
                number: RequestNumber(0),
                floor: RequestNumber(0),
                command: Bytes::new(),
            },
        );
    }

    /// The session of a client, as the last answer to its `Register` said.
    #[must_use]
    pub fn session(&self, client: ClientId) -> Option<SessionId> {
        self.sessions.get(&client).copied()
    }

    /// Sends a request, with the floor at its own number.
    pub fn submit(&mut self, at: usize, client: ClientId, number: u64, command: &[u8]) {
        self.submit_with_floor(at, client, number, number, command);
    }

    /// Sends a request.
    pub fn submit_with_floor(&mut self, at: usize, client: ClientId, number: u64, floor: u64, command: &[u8]) {
        let session = self.session(client).expect("the session is open");
        self.request(
            at,
            Request {
                client,
                session,
                number: RequestNumber(number),
                floor: RequestNumber(floor),
                command: Bytes::copy_from_slice(command),
            },
        );
    }

    /// Sends any request.
    pub fn request(&mut self, at: usize, request: Request) {
        let from = Peer::Client(request.client);
        let message = Message::Requests { requests: vec![request], forwarded: false };
        self.send(Flight { from, to: replica(at), message });
    }

    /// Everything that was answered to a request, in order.
    #[must_use]
    pub fn outcomes(&self, client: ClientId, number: u64) -> Vec<Outcome> {
        let replies = self.replies.get(&(client, RequestNumber(number)));
        replies.into_iter().flatten().map(|reply| reply.outcome.clone()).collect()
    }

    /// The first reply of the state machine to a request.
    #[must_use]
    pub fn reply(&self, client: ClientId, number: u64) -> Option<Vec<u8>> {
        self.outcomes(client, number).into_iter().find_map(|outcome| match outcome {
            Outcome::Reply(bytes) => Some(bytes.to_vec()),
            _ => None,
        })
    }

    /// Asks a linearizable query at a replica. The token is a number of the test's own.
    pub fn query(&mut self, at: usize, token: u64) {
        self.turn(at, |inputs| inputs.arrived.push(Input::Query(token)));
    }

    /// How many commands the answer to a query contains, once it was served.
    #[must_use]
    pub fn answer(&self, at: usize, token: u64) -> Option<usize> {
        self.nodes[at].answers.get(&token).copied()
    }

    // ---- what is ----

    /// The protocol of a replica.
    ///
    /// # Panics
    /// When the replica is down.
    #[must_use]
    pub fn core(&self, at: usize) -> &Core {
        self.harness(at).core()
    }

    /// The life that a replica leads; the one after the last on its disk, while it is down.
    #[must_use]
    pub fn life(&self, at: usize) -> vsr::protocol::Life {
        let state = self.disks[at].state();
        let next = vsr::protocol::Life { disk_id: state.disk_id, starts: state.starts + 1, nonce: 0 };
        self.nodes[at].harness.as_ref().map_or(next, |harness| harness.core().life())
    }

    /// The number of a replica's view.
    #[must_use]
    pub fn view(&self, at: usize) -> u64 {
        self.core(at).view().number
    }

    /// Whether a replica is in normal operation.
    #[must_use]
    pub fn is_normal(&self, at: usize) -> bool {
        self.core(at).status() == Status::Normal
    }

    /// The commands that a replica has executed since its last start, as text.
    #[must_use]
    pub fn executed(&self, at: usize) -> Vec<String> {
        let node = &self.nodes[at];
        let executed = node.harness.as_ref().map_or(node.left.as_slice(), Harness::executed);
        executed.iter().map(|command| String::from_utf8_lossy(command).into_owned()).collect()
    }

    /// The checksum of the durable entry of an op on a replica's disk.
    #[must_use]
    pub fn durable(&self, at: usize, op: u64) -> Option<Checksum> {
        self.disks[at].durable(OpNumber(op))
    }

    /// How many views were entered so far, by all replicas.
    #[must_use]
    pub fn views_entered(&self) -> usize {
        self.events.iter().filter(|(_, event)| matches!(event, Event::ViewEntered { .. })).count()
    }

    /// How often a replica has gone the way that has this mark.
    #[must_use]
    pub fn marks(&self, mark: &str) -> usize {
        self.marks.iter().filter(|taken| matches!(taken, Mark::Path(name) if *name == mark)).count()
    }

    /// A view of epoch 0.
    #[must_use]
    pub fn view_of(number: u64) -> View {
        View { number, ..View::default() }
    }

    // ---- how it works ----

    fn harness(&self, at: usize) -> &Harness {
        self.nodes[at].harness.as_ref().expect("the replica is up")
    }

    fn send(&mut self, flight: Flight) {
        for rule in &self.rules {
            if (rule.filter)(&flight) {
                if let Fate::Hold = rule.fate {
                    self.held.push((rule.id, flight));
                }
                return;
            }
        }
        self.flights.push(flight);
    }

    fn deliver(&mut self, flight: Flight) {
        // A rule may have come after the message left.
        if self.rules.iter().any(|rule| (rule.filter)(&flight)) {
            return self.send(flight);
        }
        self.receive(flight);
    }

    fn receive(&mut self, Flight { from, to, message }: Flight) {
        match to {
            Peer::Replica(id) => {
                let at = usize::from(id.0);
                if self.nodes[at].paused {
                    self.waiting.push((at, Flight { from, to, message }));
                    return;
                }
                if self.nodes[at].harness.is_some() {
                    self.observe(&Observation::Received { replica: at, from, message: &message });
                }
                self.turn(at, |inputs| inputs.arrived.push(Input::Message { from, message }));
            }
            Peer::Client(client) => {
                let Message::Replies { replies, .. } = message else { return };
                for reply in replies {
                    if let Outcome::Registered(session) = reply.outcome {
                        self.sessions.insert(client, session);
                    }
                    self.replies.entry((client, reply.number)).or_default().push(reply);
                }
            }
        }
    }

    fn complete_write(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        if node.disk_held || node.paused {
            return false;
        }
        let Some(harness) = node.harness.as_mut() else { return false };
        if harness.complete_write(&mut self.disks[at]).is_none() {
            return false;
        }
        self.observe(&Observation::Written { replica: at });
        self.turn(at, |_| {});
        true
    }

    /// A step of a replica: turns until nothing is left to do at once, with a look at each. Timers fire only in
    /// [`pass`](Self::pass).
    fn turn(&mut self, at: usize, fill: impl FnOnce(&mut Inputs)) {
        if self.nodes[at].paused {
            return;
        }
        // The process is put aside so that the checkers can look at it and at the disks.
        let Some(mut harness) = self.nodes[at].harness.take() else { return };
        let inputs = harness.inputs(self.now, Timestamp(self.now.0));
        inputs.room = self.nodes[at].room;
        fill(inputs);
        loop {
            let turn = harness.turn(&mut self.disks[at]);
            let effects = harness.take_effects();
            let node = &mut self.nodes[at];
            node.over_room = node.over_room.max(turn.bytes.saturating_sub(node.room));
            node.answers.extend(effects.queries.iter().map(|token| (*token, harness.executed().len())));
            if let Some(fault) = harness.core().halted() {
                assert!(node.may_stop, "replica {at} has stopped: {fault}");
                node.stopped = Some(fault.clone());
                node.harness = Some(harness);
                return self.crash(at);
            }
            self.carry_out(at, harness.core(), effects);
            if !turn.again {
                break;
            }
        }
        self.nodes[at].harness = Some(harness);
    }

    /// What a turn has shown and sent.
    fn carry_out(&mut self, at: usize, core: &Core, effects: Effects) {
        self.observe_turn(at, core, &effects.events, &effects.marks);
        self.marks.extend(effects.marks);
        self.events.extend(effects.events.into_iter().map(|event| (at, event)));
        for Envelope { to, message } in effects.messages {
            self.observe(&Observation::Sent { replica: at, message: &message });
            self.send(Flight { from: replica(at), to, message });
        }
    }

    fn observe_turn(&mut self, at: usize, core: &Core, events: &[Event], marks: &[Mark]) {
        for event in events {
            self.observe(&Observation::Event { replica: at, core, event });
        }
        for mark in marks {
            self.observe(&Observation::Mark { replica: at, mark });
        }
        self.observe(&Observation::Turn { replica: at, core });
        for account in &core.audit() {
            self.observe(&Observation::Audited { replica: at, account });
        }
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        if self.disks_replaced {
            return;
        }
        let scene = Scene { disks: &self.disks, quorums: self.membership.quorums, clocks: &[] };
        if let Some((checker, _, broken)) = self.checkers.observe(&scene, observation) {
            panic!("{checker}: {broken}");
        }
    }
}
