//! Every state of a replica, message, fact and history that was met, each once and under a number; and what
//! each input makes of each state of a replica, computed once.
//!
//! The states of the cluster are far more than those of its replicas: a step of the cluster is then a look-up
//! and a few numbers moved.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use vsr::protocol::{Message, OpNumber, Peer, Request, RequestNumber, SessionId, View};
use vsr::{Checksum, ClientId, Membership, ReplicaId};

use super::crash_disk::CrashOutcome;
use super::facts::{Broken, Fact, Facts};
use super::replica::{Effects, Input, Replica, Sent, Timer, session};
use super::{Bounds, FIRST_CLIENT};

/// An input of a replica, with numbers for what was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    Message(u32),
    Written,
    Timer,
    Crash(CrashOutcome),
    Request(u8),
}

/// A message on its way, as a link carries it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    pub(super) to: u8,
    pub(super) drawn: bool,
    pub(super) message: u32,
}

/// What an input makes of a state of a replica.
#[derive(Clone, Debug)]
pub(super) enum Edge {
    /// The replica's next state, what leaves it, and facts.
    Moves {
        to: u32,
        leaving: Box<[Leaving]>,
        facts: u32,
    },
    /// Nothing changes.
    Idle,
    /// The replica would enter a view above the bound.
    Beyond,
    Breaks(Box<Broken>),
}

/// What the search asks of a state of a replica all the time.
#[derive(Clone, Debug)]
pub(super) struct Face {
    pub(super) view: View,
    pub(super) durable: View,
    pub(super) is_primary: bool,
    pub(super) is_writing: bool,
    pub(super) timer: Timer,
    /// The entries on the disk.
    pub(super) log: Box<[Checksum]>,
    /// What a crash can make of the disk.
    pub(super) outcomes: Vec<CrashOutcome>,
}

struct Known {
    face: Face,
    /// The state from which it was met first, and by what; its own number for one of the start.
    origin: (u32, Cause),
    /// The state itself, if it is kept: it can be made again from its origin.
    node: Option<Box<Replica>>,
    /// Sorted by cause.
    edges: Vec<(Cause, Edge)>,
}

/// States of replicas that are kept, beside those of the start: 8 KB each.
const KEPT_MAX: usize = 1 << 15;

/// See the module.
pub(super) struct Graph {
    pub(super) bounds: Bounds,
    pub(super) membership: Membership,
    nodes: Vec<Known>,
    /// Those that are kept, longest first.
    kept: VecDeque<u32>,
    node_numbers: BTreeMap<Checksum, u32>,
    messages: Vec<(u8, Message)>,
    message_numbers: BTreeMap<Checksum, Vec<u32>>,
    facts: Vec<Vec<Fact>>,
    fact_numbers: BTreeMap<Vec<Fact>, u32>,
    histories: Vec<Facts>,
    history_numbers: BTreeMap<Facts, u32>,
    /// What facts make of a history.
    additions: BTreeMap<(u32, u32), u32>,
    text: String,
    canonical: String,
}

/// Facts under this number are none.
const NO_FACTS: u32 = 0;

impl Graph {
    pub(super) fn new(bounds: &Bounds, membership: Membership) -> Graph {
        Graph {
            bounds: bounds.clone(),
            membership,
            nodes: Vec::new(),
            kept: VecDeque::new(),
            node_numbers: BTreeMap::new(),
            messages: Vec::new(),
            message_numbers: BTreeMap::new(),
            facts: vec![Vec::new()],
            fact_numbers: BTreeMap::from([(Vec::new(), NO_FACTS)]),
            histories: vec![Facts::default()],
            history_numbers: BTreeMap::from([(Facts::default(), 0)]),
            additions: BTreeMap::new(),
            text: String::new(),
            canonical: String::new(),
        }
    }

    /// The cluster after its start, idle in view 0, with a session for each client, everything applied: the state of each replica,
    /// and the facts so far.
    pub(super) fn boot(&mut self) -> Result<(Vec<u32>, u32), Broken> {
        let mut nodes = Vec::new();
        for at in 0..self.membership.size() {
            nodes.push(Replica::new(at, &self.membership)?);
        }
        let mut facts = Vec::new();
        for at in 0..nodes.len() {
            let effects = nodes[at].step(Input::Start)?;
            run_until_idle(&mut nodes, at, effects, &mut facts)?;
        }
        let registers = (0..self.bounds.requests).map(|request| self.request(request, None)).collect();
        let effects = nodes[0].step(Input::Messages(registers))?;
        run_until_idle(&mut nodes, 0, effects, &mut facts)?;
        let effects = nodes[0].step(Input::Timer)?;
        run_until_idle(&mut nodes, 0, effects, &mut facts)?;
        let facts = self.number_facts(facts);
        let history = self.add(0, facts)?;
        Ok((nodes.into_iter().map(|node| self.number_node(node, None)).collect(), history))
    }

    pub(super) fn face(&self, node: u32) -> &Face {
        &self.nodes[node as usize].face
    }

    /// A state of a replica, made again if it is not kept.
    pub(super) fn revive(&mut self, number: u32) -> Replica {
        let mut causes = Vec::new();
        let mut at = number;
        let mut node = loop {
            let Known { node, origin, .. } = &self.nodes[at as usize];
            if let Some(node) = node {
                break (**node).clone();
            }
            causes.push(origin.1);
            at = origin.0;
        };
        for cause in causes.iter().rev() {
            // It broke nothing the first time.
            let _ = node.step(self.input(*cause));
        }
        if !causes.is_empty() {
            self.keep(number, node.clone());
        }
        node
    }

    fn keep(&mut self, number: u32, node: Replica) {
        self.nodes[number as usize].node = Some(Box::new(node));
        self.kept.push_back(number);
        if self.kept.len() > KEPT_MAX
            && let Some(oldest) = self.kept.pop_front()
        {
            self.nodes[oldest as usize].node = None;
        }
    }

    pub(super) fn message(&self, message: u32) -> &Message {
        &self.messages[message as usize].1
    }

    pub(super) fn facts(&self, facts: u32) -> &[Fact] {
        &self.facts[facts as usize]
    }

    pub(super) fn replica_states(&self) -> usize {
        self.nodes.len()
    }

    /// Whether a message cannot have an effect on its receiver any more, whatever happens to that: it is of
    /// an older view than the receiver will ever be in, or a `DoViewChange` that is another's to collect. Only if
    /// the receiver, as it is, does ignore it: that it must is not taken for granted.
    pub(super) fn is_void(&mut self, message: u32, to: usize, node: u32, view: View) -> bool {
        let is_old = match self.message(message) {
            Message::Prepare { view: of, .. }
            | Message::PrepareOk { view: of, .. }
            | Message::Commit { view: of, .. }
            | Message::StartViewChange { leaving: of, .. } => *of < view,
            Message::StartView(start) => start.view < view,
            Message::DoViewChange(dvc) => {
                let collects = usize::from(self.membership.primary(dvc.view).0) == to;
                dvc.view < view || (dvc.view == view && !collects)
            }
            _ => false,
        };
        is_old && matches!(self.edge(node, Cause::Message(message)), Edge::Idle)
    }

    /// What an input makes of a state of a replica.
    pub(super) fn edge(&mut self, node: u32, cause: Cause) -> &Edge {
        let found = self.nodes[node as usize].edges.binary_search_by_key(&cause, |(cause, _)| *cause);
        let at = match found {
            Ok(at) => at,
            Err(at) => {
                let edge = self.compute(node, cause);
                self.nodes[node as usize].edges.insert(at, (cause, edge));
                at
            }
        };
        &self.nodes[node as usize].edges[at].1
    }

    fn compute(&mut self, number: u32, cause: Cause) -> Edge {
        let mut node = self.revive(number);
        let input = self.input(cause);
        let stepped = catch_unwind(AssertUnwindSafe(|| node.step(input)));
        let effects = match stepped {
            Ok(Ok(effects)) => effects,
            Ok(Err(broken)) => return Edge::Breaks(Box::new(broken)),
            Err(panic) => {
                let words = panic.downcast_ref::<String>().cloned();
                let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                return Edge::Breaks(Box::new(Broken::new("no-panic", words.unwrap_or_default())));
            }
        };
        if node.core().view().number > self.bounds.view_changes.into() {
            return Edge::Beyond;
        }
        let from = node.core().id().0;
        let Effects { sent, facts } = effects;
        let to = self.number_node(node, Some((number, cause)));
        let leaving: Box<[Leaving]> = sent.into_iter().map(|sent| self.number_message(from, sent)).collect();
        let facts = self.number_facts(facts);
        if to == number && leaving.is_empty() && facts == NO_FACTS {
            return Edge::Idle;
        }
        Edge::Moves { to, leaving, facts }
    }

    fn input(&self, cause: Cause) -> Input {
        match cause {
            Cause::Message(message) => {
                let (from, message) = &self.messages[message as usize];
                Input::Messages(vec![(Peer::Replica(ReplicaId(*from)), message.clone())])
            }
            Cause::Written => Input::Written,
            Cause::Timer => Input::Timer,
            Cause::Crash(outcome) => {
                // Op 1 opened the sessions.
                let forget_above = self.bounds.forgetful_disks.then_some(OpNumber(1));
                Input::Crash { outcome, forget_above }
            }
            Cause::Request(request) => Input::Messages(vec![self.request(request, Some(session(request)))]),
        }
    }

    /// The request of a client, or its `Register`.
    fn request(&self, request: u8, session: Option<SessionId>) -> (Peer, Message) {
        let client = ClientId(FIRST_CLIENT + u128::from(request));
        let number = RequestNumber(session.map_or(0, |_| 1));
        let command = if session.is_some() { Bytes::copy_from_slice(&[request]) } else { Bytes::new() };
        let session = session.unwrap_or_default();
        let request = Request { client, session, number, floor: number, command };
        (Peer::Client(client), Message::Requests { requests: vec![request], forwarded: false })
    }

    /// The history after some facts.
    ///
    /// # Errors
    /// The property that they break.
    pub(super) fn add(&mut self, history: u32, facts: u32) -> Result<u32, Broken> {
        if facts == NO_FACTS {
            return Ok(history);
        }
        if let Some(known) = self.additions.get(&(history, facts)) {
            return Ok(*known);
        }
        let mut after = self.histories[history as usize].clone();
        for fact in &self.facts[facts as usize] {
            after.add(fact)?;
        }
        let next = self.histories.len() as u32;
        let number = *self.history_numbers.entry(after).or_insert_with_key(|after| {
            self.histories.push(after.clone());
            next
        });
        self.additions.insert((history, facts), number);
        Ok(number)
    }

    fn number_node(&mut self, node: Replica, origin: Option<(u32, Cause)>) -> u32 {
        node.canonical(&mut self.text, &mut self.canonical);
        let fingerprint = Checksum::of(self.canonical.as_bytes());
        if let Some(number) = self.node_numbers.get(&fingerprint) {
            return *number;
        }
        let number = self.nodes.len() as u32;
        self.node_numbers.insert(fingerprint, number);
        let (core, disk) = (node.core(), node.disk());
        let face = Face {
            view: core.view(),
            durable: disk.state().view,
            is_primary: core.is_primary(),
            is_writing: node.is_writing(),
            timer: node.timer(),
            log: disk.checksums().collect(),
            outcomes: disk.outcomes(),
        };
        let edges = Vec::new();
        match origin {
            Some(origin) => {
                self.nodes.push(Known { face, origin, node: None, edges });
                self.keep(number, node);
            }
            None => {
                let origin = (number, Cause::Written);
                self.nodes.push(Known { face, origin, node: Some(Box::new(node)), edges });
            }
        }
        number
    }

    fn number_message(&mut self, from: u8, sent: Sent) -> Leaving {
        let Sent { to, drawn, message } = sent;
        let same = self.message_numbers.entry(Checksum::of(format!("{from} {message:?}").as_bytes())).or_default();
        let known = same.iter().find(|number| {
            let (of, known) = &self.messages[**number as usize];
            *of == from && *known == message
        });
        let number = match known {
            Some(number) => *number,
            None => {
                let number = self.messages.len() as u32;
                same.push(number);
                self.messages.push((from, message));
                number
            }
        };
        Leaving { to: to as u8, drawn, message: number }
    }

    fn number_facts(&mut self, facts: Vec<Fact>) -> u32 {
        let next = self.facts.len() as u32;
        *self.fact_numbers.entry(facts).or_insert_with_key(|facts| {
            self.facts.push(facts.clone());
            next
        })
    }
}

/// Delivers and writes everything, in order.
fn run_until_idle(nodes: &mut [Replica], from: usize, effects: Effects, facts: &mut Vec<Fact>) -> Result<(), Broken> {
    let mut flights: Vec<(usize, Sent)> = Vec::new();
    let mut take = |from: usize, effects: Effects, flights: &mut Vec<(usize, Sent)>| {
        facts.extend(effects.facts);
        flights.extend(effects.sent.into_iter().map(|sent| (from, sent)));
    };
    take(from, effects, &mut flights);
    loop {
        let writing = nodes.iter().position(Replica::is_writing);
        if let Some(at) = writing {
            let effects = nodes[at].step(Input::Written)?;
            take(at, effects, &mut flights);
        } else if !flights.is_empty() {
            let (from, Sent { to, message, .. }) = flights.remove(0);
            let peer = Peer::Replica(ReplicaId(from as u8));
            let effects = nodes[to].step(Input::Messages(vec![(peer, message)]))?;
            take(to, effects, &mut flights);
        } else {
            return Ok(());
        }
    }
}
