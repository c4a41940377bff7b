//! A state of the whole cluster, and what the next round can make of it.

use vsr::protocol::{Message, OpNumber, View};

use super::crash_disk::{self, CrashOutcome};
use super::facts::{Broken, Fact, name};
use super::graph::{Cause, Edge, Graph, Leaving};
use super::replica::Timer;
use super::{Bounds, REPLICAS_MAX};
use crate::report::describe;

/// What has a limit of its own, and a price within the common one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Timeout,
    Heartbeat,
    Resend,
    Hold,
    Stray,
}

impl Trouble {
    const KINDS: usize = 5;

    fn price(self) -> u8 {
        match self {
            Trouble::Timeout | Trouble::Heartbeat | Trouble::Resend => 1,
            Trouble::Hold | Trouble::Stray => 2,
        }
    }
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    crashes: u8,
    each: [u8; Trouble::KINDS],
    trouble: u8,
    /// Requests that did not arrive anywhere yet, a bit each.
    requests: u8,
    /// Requests that did not arrive at the first primary yet.
    requests_at_first: u8,
}

impl Left {
    fn allows(&self, trouble: Trouble) -> bool {
        self.each[trouble as usize] > 0 && self.trouble >= trouble.price()
    }

    fn spend(&mut self, trouble: Trouble) -> bool {
        let allowed = self.allows(trouble);
        if allowed {
            self.each[trouble as usize] -= 1;
            self.trouble -= trouble.price();
        }
        allowed
    }
}

/// A message on its way, in one word: its link, whether it was sent in the last round, and its number.
type Flight = u32;

const LINK: u32 = 25;
const FRESH: Flight = 1 << 24;
pub(super) const MESSAGE: Flight = FRESH - 1;
/// The links of messages that have left their order.
const STRAY: u32 = 64;

fn link(from: usize, to: usize) -> u32 {
    (from * REPLICAS_MAX + to) as u32
}

fn link_of(flight: Flight) -> u32 {
    flight >> LINK
}

fn is_stray(flight: Flight) -> bool {
    link_of(flight) >= STRAY
}

fn sender(flight: Flight) -> usize {
    (link_of(flight) % STRAY) as usize / REPLICAS_MAX
}

fn receiver(flight: Flight) -> usize {
    (link_of(flight) % STRAY) as usize % REPLICAS_MAX
}

/// Something that one replica can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Its write becomes durable.
    Write,
    /// It takes a message.
    Take(Flight),
    /// It takes a message, and will again later, or not.
    TakeTwice(Flight),
    /// A message to it leaves its order: it arrives at any time, or never.
    Stray(Flight),
    /// Its next timer fires.
    Timer,
    /// It crashes, and is back.
    Crash(CrashOutcome),
    /// A client's request arrives.
    Request(u8),
}

/// An action of a replica, and its draw, if whom it asks for repair is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    at: usize,
    action: Action,
    draw: usize,
}

/// Steps, and the property that the last of them broke.
pub(super) type Failure = (Vec<Step>, Broken);

/// What a replica can do next.
#[derive(Default)]
struct Choices {
    /// What it may do, or not.
    free: Vec<Action>,
    /// Its queues: what it does, in this order, unless they are held back.
    queues: Vec<Action>,
}

/// A state of the cluster, in numbers of the [`Graph`].
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    replicas: usize,
    nodes: [u32; REPLICAS_MAX],
    history: u32,
    left: Left,
    /// The replicas that have done something in the last round, a bit each.
    awake: u8,
    /// The queues that are held back, a bit each.
    held: u32,
    /// Grouped by link, each link in order.
    flights: Vec<Flight>,
}

impl Cluster {
    pub(super) fn new(bounds: &Bounds, nodes: &[u32], history: u32) -> Cluster {
        let Bounds { timeouts, heartbeats, resends, holds, strays, crashes, trouble, requests, .. } = *bounds;
        let requests = ((1_u16 << requests) - 1) as u8;
        let each = [timeouts, heartbeats, resends, holds, strays];
        let left = Left { crashes, each, trouble, requests, requests_at_first: requests };
        let mut cluster = Cluster { replicas: nodes.len(), history, left, ..Cluster::default() };
        cluster.nodes[..nodes.len()].copy_from_slice(nodes);
        cluster.wake_all();
        cluster
    }

    /// Every replica may do anything next.
    pub(super) fn wake_all(&mut self) {
        self.awake = (1 << self.replicas) - 1;
    }

    /// Every word that tells this state from others.
    pub(super) fn encode(&self, words: &mut Vec<u32>) {
        let Left { crashes, each: [a, b, c, d, e], trouble, requests, requests_at_first } = self.left;
        words.extend_from_slice(&self.nodes[..self.replicas]);
        words.extend([
            self.history,
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, crashes, trouble, self.awake]),
            u32::from_le_bytes([requests, requests_at_first, 0, 0]),
            self.held,
        ]);
        words.extend_from_slice(&self.flights);
    }

    /// Takes on the state that some words tell.
    pub(super) fn decode(&mut self, words: &[u32]) {
        let (nodes, words) = words.split_at(self.replicas);
        self.nodes[..self.replicas].copy_from_slice(nodes);
        let [a, b, c, d] = words[1].to_le_bytes();
        let [e, crashes, trouble, awake] = words[2].to_le_bytes();
        let [requests, requests_at_first, ..] = words[3].to_le_bytes();
        self.left = Left { crashes, each: [a, b, c, d, e], trouble, requests, requests_at_first };
        (self.history, self.awake, self.held) = (words[0], awake, words[4]);
        self.flights.clear();
        self.flights.extend_from_slice(&words[5..]);
    }

    // ---- rounds ----

    /// Calls `visit` with every state that a round can make of this one, and the steps of that round. Says how
    /// many steps were looked at.
    ///
    /// # Errors
    /// The steps of a round that break a property.
    pub(super) fn rounds(&self, graph: &mut Graph, visit: &mut dyn FnMut(&Cluster, &[Step])) -> Result<u64, Failure> {
        let mut next = self.clone();
        next.awake = 0;
        next.flights.iter_mut().for_each(|flight| *flight &= !FRESH);
        let mut round = Round { before: self, graph, visit, done: Vec::with_capacity(self.replicas), steps: 0 };
        if round.graph.bounds.interleave {
            round.one_step(&next)?
        } else {
            round.from(0, &next)?
        }
        Ok(round.steps)
    }

    /// Of what was just sent only that matters by which a replica that stands still can be woken.
    fn end_round(&mut self) {
        let mut before = None;
        for flight in &mut self.flights {
            let is_head = before.replace(link_of(*flight)) != Some(link_of(*flight));
            if !is_head || self.awake & 1 << receiver(*flight) != 0 {
                *flight &= !FRESH;
            }
        }
    }

    /// What a replica can do in the next round: if it did nothing in the last one, only what a message of that
    /// round has brought about.
    fn choices(&self, at: usize, graph: &Graph) -> Choices {
        let (mut choices, face) = (Choices::default(), graph.face(self.nodes[at]));
        let awake = self.awake & 1 << at != 0;
        let offer = |choices: &mut Choices, action: Action| {
            let is_held = queue(at, action).is_none_or(|queue| self.held & queue != 0);
            if is_held { choices.free.push(action) } else { choices.queues.push(action) }
        };
        if awake && face.is_writing {
            offer(&mut choices, Action::Write);
        }
        let mut before = None;
        for &flight in &self.flights {
            let order = if is_stray(flight) { flight } else { link_of(flight) };
            let is_behind = before.replace(order) == Some(order);
            if receiver(flight) != at || is_behind || !(awake || flight & FRESH != 0) {
                continue;
            }
            let flight = flight & !FRESH;
            offer(&mut choices, Action::Take(flight));
            if !is_stray(flight) && self.left.allows(Trouble::Stray) {
                choices.free.extend([Action::Stray(flight), Action::TakeTwice(flight)]);
            }
        }
        if awake {
            self.unprompted(at, graph, &mut choices.free);
        }
        choices
    }

    /// What no message and no write has to bring about.
    fn unprompted(&self, at: usize, graph: &Graph, free: &mut Vec<Action>) {
        let (face, left) = (graph.face(self.nodes[at]), &self.left);
        let fires = match face.timer {
            Timer::None => false,
            Timer::Heartbeat => left.allows(Trouble::Heartbeat),
            Timer::Vote => left.allows(Trouble::Timeout) && face.view.number < graph.bounds.view_changes.into(),
        };
        if fires {
            free.push(Action::Timer);
        }
        if left.crashes > 0 {
            free.extend(face.outcomes.iter().map(|&outcome| Action::Crash(outcome)));
        }
        if face.is_primary {
            let arrives = |request: &u8| {
                let bit = 1 << request;
                // Requests are alike: at the first primary they arrive in the order of their numbers.
                let is_next = at > 0 || left.requests_at_first & (bit - 1) == 0;
                is_next && (left.requests & bit != 0 || left.allows(Trouble::Resend))
            };
            free.extend((0..graph.bounds.requests).filter(arrives).map(Action::Request));
        }
    }

    // ---- steps ----

    /// Whether a step can be made now, in whatever order.
    pub(super) fn can(&self, step: Step, graph: &Graph) -> bool {
        let Choices { free, queues } = self.choices(step.at, graph);
        free.contains(&step.action) || queues.contains(&step.action)
    }

    /// A replica does something. Says how many draws it might have made, or `None` when nothing comes of it
    /// within the bounds.
    ///
    /// # Errors
    /// The property that breaks.
    pub(super) fn step(&mut self, step: Step, graph: &mut Graph) -> Result<Option<usize>, Broken> {
        let Step { at, action, draw } = step;
        self.awake |= 1 << at;
        self.held &= !queue(at, action).unwrap_or(0);
        let left = &mut self.left;
        let (allowed, cause) = match action {
            Action::Write => (true, Cause::Written),
            Action::Take(flight) => (self.remove(flight), Cause::Message(flight & MESSAGE)),
            Action::TakeTwice(flight) => (self.stray(flight), Cause::Message(flight & MESSAGE)),
            Action::Stray(flight) => return Ok(self.stray(flight).then_some(1)),
            Action::Timer => {
                let is_heartbeat = graph.face(self.nodes[at]).timer == Timer::Heartbeat;
                let trouble = if is_heartbeat { Trouble::Heartbeat } else { Trouble::Timeout };
                (left.spend(trouble), Cause::Timer)
            }
            Action::Crash(outcome) => {
                let allowed = left.crashes > 0;
                left.crashes = left.crashes.saturating_sub(1);
                (allowed, Cause::Crash(outcome))
            }
            Action::Request(request) => {
                let bit = 1 << request;
                let is_new = left.requests & bit != 0;
                left.requests &= !bit;
                if at == 0 {
                    left.requests_at_first &= !bit;
                }
                (is_new || left.spend(Trouble::Resend), Cause::Request(request))
            }
        };
        if allowed { self.change(at, cause, draw, graph) } else { Ok(None) }
    }

    fn change(&mut self, at: usize, cause: Cause, draw: usize, graph: &mut Graph) -> Result<Option<usize>, Broken> {
        let before = self.settled_view(at, graph);
        let mut draws = 1;
        let facts = match graph.edge(self.nodes[at], cause) {
            Edge::Moves { to, leaving, facts } => {
                self.nodes[at] = *to;
                for Leaving { to, drawn, message } in leaving {
                    let mut to = usize::from(*to);
                    if *drawn {
                        draws = self.replicas - 1;
                        to = (0..self.replicas).filter(|peer| *peer != at).nth(draw).unwrap_or(to);
                    }
                    self.insert(link(at, to) << LINK | FRESH | message);
                }
                *facts
            }
            // Taking a message that says nothing new is a step; a timer that changes nothing is none.
            Edge::Idle => return Ok(matches!(cause, Cause::Message(_)).then_some(1)),
            Edge::Beyond => return Ok(None),
            Edge::Breaks(broken) => return Err((**broken).clone()),
        };
        let crashed = matches!(cause, Cause::Crash(_));
        self.drop_void(at, crashed || self.settled_view(at, graph) > before, crashed, graph);
        self.history = graph.add(self.history, facts)?;
        self.check_quorums(facts, graph)?;
        Ok(Some(draws))
    }

    /// The view below which a replica will never be again.
    fn settled_view(&self, at: usize, graph: &Graph) -> View {
        let face = graph.face(self.nodes[at]);
        if self.left.crashes > 0 { face.durable } else { face.view }
    }

    /// Messages that cannot have an effect any more are taken off at once, wherever they are.
    fn drop_void(&mut self, moved: usize, has_risen: bool, crashed: bool, graph: &mut Graph) {
        let mut views = [View::default(); REPLICAS_MAX];
        (0..self.replicas).for_each(|at| views[at] = self.settled_view(at, graph));
        let nodes = self.nodes;
        self.flights.retain(|flight| {
            let to = receiver(*flight);
            let is_suspect = crashed || sender(*flight) == moved || (has_risen && to == moved);
            !(is_suspect && graph.is_void(*flight & MESSAGE, to, nodes[to], views[to]))
        });
    }

    /// Takes a message off, if it is there.
    fn remove(&mut self, flight: Flight) -> bool {
        let place = self.flights.iter().position(|other| *other & !FRESH == flight);
        place.map(|place| self.flights.remove(place)).is_some()
    }

    fn insert(&mut self, flight: Flight) {
        let end = self.flights.partition_point(|other| link_of(*other) <= link_of(flight));
        self.flights.insert(end, flight);
    }

    /// Takes a message out of its order, if that is allowed.
    fn stray(&mut self, flight: Flight) -> bool {
        let allowed = self.left.spend(Trouble::Stray) && self.remove(flight);
        if allowed {
            let flight = flight | STRAY << LINK;
            let place = self.flights.partition_point(|other| *other < flight);
            self.flights.insert(place, flight);
        }
        allowed
    }

    /// When a primary counts an op as committed, a replication quorum of disks holds that very entry.
    fn check_quorums(&self, facts: u32, graph: &Graph) -> Result<(), Broken> {
        for fact in graph.facts(facts) {
            let Fact::Counted { view, op, checksum } = *fact else { continue };
            let holds = |node: &&u32| graph.face(**node).log.contains(&checksum);
            let copies = self.nodes[..self.replicas].iter().filter(holds).count();
            let need = usize::from(graph.membership.quorums.replication);
            if copies < need {
                let message =
                    format!("op {op} ({checksum}) is committed in view {view}, durable on {copies} of {need} disks");
                return Err(Broken::new("committed-on-a-quorum-of-disks", message));
            }
        }
        Ok(())
    }

    // ---- words ----

    /// A step in words.
    pub(super) fn describe(&self, step: Step, graph: &Graph) -> String {
        let Step { at, action, .. } = step;
        let message = |flight: Flight| -> (usize, String) {
            let message: &Message = graph.message(flight & MESSAGE);
            (sender(flight), describe::message(message))
        };
        match action {
            Action::Write => format!("the write of r{at} is durable"),
            Action::Take(flight) => {
                let (from, text) = message(flight);
                format!("r{from} to r{at}{}: {text}", if is_stray(flight) { ", late" } else { "" })
            }
            Action::TakeTwice(flight) => {
                let (from, text) = message(flight);
                format!("r{from} to r{at}, for the first time: {text}")
            }
            Action::Stray(flight) => {
                let (from, text) = message(flight);
                format!("r{from} to r{at}, late or lost: {text}")
            }
            Action::Timer => match graph.face(self.nodes[at]).timer {
                Timer::Heartbeat => format!("r{at} sends a heartbeat"),
                _ => format!("r{at} times out"),
            },
            Action::Crash(outcome) => {
                let is_writing = graph.face(self.nodes[at]).is_writing;
                format!("r{at} crashes{} and restarts", crash_disk::describe(outcome, is_writing))
            }
            Action::Request(request) => format!("request {} arrives at r{at}", name(request)),
        }
    }

    /// Where a replica stands, in words.
    pub(super) fn describe_replica(&self, at: usize, graph: &mut Graph) -> String {
        let node = graph.revive(self.nodes[at]);
        let core = node.core();
        let op = |op: OpNumber| core.checksum(op).map_or_else(|| "?".to_owned(), |checksum| checksum.to_string());
        let log: Vec<String> = (1..=core.head().0).map(|at| op(OpNumber(at))).collect();
        format!(
            "r{at}: {:?} view {} log_view {} commit {} applied {} log [{}]",
            core.status(),
            core.view(),
            core.log_view(),
            core.commit(),
            core.applied(),
            log.join(" ")
        )
    }
}

/// The queue that an action takes from, as a bit. A message that has left its order is in none.
fn queue(at: usize, action: Action) -> Option<u32> {
    match action {
        Action::Write => Some(1 << (REPLICAS_MAX * REPLICAS_MAX + at)),
        Action::Take(flight) if !is_stray(flight) => Some(1 << link_of(flight)),
        _ => None,
    }
}

/// The rounds that can follow a state.
struct Round<'a> {
    before: &'a Cluster,
    graph: &'a mut Graph,
    visit: &'a mut dyn FnMut(&Cluster, &[Step]),
    done: Vec<Step>,
    steps: u64,
}

impl Round<'_> {
    /// Every way in which the replicas from this one on can go on with a round.
    fn from(&mut self, at: usize, partial: &Cluster) -> Result<(), Failure> {
        if at == self.before.replicas {
            if !self.done.is_empty() {
                self.end(partial);
            }
            return Ok(());
        }
        let Choices { free, queues } = self.before.choices(at, self.graph);
        for action in free {
            self.try_draws(at, action, partial, &mut |round, next| round.from(at + 1, next))?;
        }
        let mut partial = partial.clone();
        for action in queues {
            self.try_draws(at, action, &partial, &mut |round, next| round.from(at + 1, next))?;
            if !partial.left.spend(Trouble::Hold) {
                return Ok(());
            }
            partial.held |= queue(at, action).unwrap_or(0);
        }
        self.from(at + 1, &partial)
    }

    /// Every step of any replica.
    fn one_step(&mut self, partial: &Cluster) -> Result<(), Failure> {
        for at in 0..self.before.replicas {
            let Choices { free, queues } = self.before.choices(at, self.graph);
            for action in free.into_iter().chain(queues) {
                self.try_draws(at, action, partial, &mut |round, next| {
                    let mut next = next.clone();
                    next.wake_all();
                    round.end(&next);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn try_draws(
        &mut self,
        at: usize,
        action: Action,
        partial: &Cluster,
        go_on: &mut dyn FnMut(&mut Self, &Cluster) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut draw, mut draws) = (0, 1);
        while draw < draws {
            let step = Step { at, action, draw };
            let mut next = partial.clone();
            self.done.push(step);
            self.steps += 1;
            match next.step(step, self.graph) {
                Ok(Some(possible)) => {
                    draws = possible;
                    go_on(self, &next)?;
                }
                Ok(None) => {}
                Err(broken) => return Err((std::mem::take(&mut self.done), broken)),
            }
            self.done.pop();
            draw += 1;
        }
        Ok(())
    }

    fn end(&mut self, partial: &Cluster) {
        let mut cluster = partial.clone();
        cluster.end_round();
        (self.visit)(&cluster, &self.done);
    }
}
