//! The network of the world: what becomes of a message between its sender and its receiver.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use vsr::network::Arrival;
use vsr::protocol::{Account, Busy, Envelope, Message, Outcome, Peer, Refusal, Reply};
use vsr::wire::{self, Limits};

use crate::check::{Observation, Violation};
use crate::options::{DelayShape, Options};
use crate::plan::{Fault, KEPT, MessageFate, MessageKey, subject};
use crate::story::{Record, What};
use crate::trace::Detail;
use crate::world::{Planned, World, site, unsynced};

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Who sent it.
    pub(crate) from: usize,
    /// Who gets it.
    pub(crate) to: usize,
    pub(crate) message: Message,
    /// The record of its sending.
    pub(crate) sent: Option<u32>,
    /// Whether it counts among what its link holds.
    counted: bool,
}

/// A copy that waits until the replica that it is from, or for, leads again.
#[derive(Debug)]
struct Kept {
    copy: Delivery,
    /// When the message itself arrives.
    at: u64,
    /// The newest view then.
    view: u64,
    /// Where its fate stands among what has happened.
    fault: usize,
}

/// Copies that are kept at a time; the oldest goes.
const KEPT_MAX: usize = 128;

/// What speaks of a term, so that a replica may take it for a word of a later one.
const OF_A_TERM: &[&str] = &[
    "PrepareOk",
    "CommitOk",
    "Prepare",
    "Commit",
    "StartViewChange",
    "DoViewChange",
    "StartView",
    "ReadIndex",
    "ReadIndexOk",
];

/// Bytes of commands and entries that were sent, and how many of them had to be; and how many messages there were of some kinds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// In requests, prepares and entries.
    pub(crate) carried: u64,
    /// In ops, each counted once.
    pub(crate) payload: u64,
    /// The highest op that was prepared.
    pub(crate) highest: u64,
    /// Heartbeats and pings.
    pub(crate) beats: u64,
    /// Questions that may need a round of heartbeats each.
    pub(crate) questions: u64,
}

impl Traffic {
    fn count(&mut self, message: &Message) {
        match message {
            Message::Prepare { entry, .. } => {
                let bytes = entry.body.len() as u64;
                self.carried += bytes;
                if entry.header.op.0 > self.highest {
                    self.highest = entry.header.op.0;
                    self.payload += bytes;
                }
            }
            Message::Entries { entries } => {
                self.carried += entries.iter().map(|entry| entry.body.len() as u64).sum::<u64>()
            }
            Message::Requests { requests, .. } => {
                self.carried += requests.iter().map(|request| request.command.len() as u64 + 32).sum::<u64>();
            }
            Message::Commit { .. } | Message::Ping(_) => self.beats += 1,
            Message::Query { .. } | Message::ReadIndex { .. } => self.questions += 1,
            _ => {}
        }
    }
}

/// What a scenario does to the messages that fit.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) filter: Filter,
    /// They wait until they are released; else they are lost.
    pub(crate) holds: bool,
    /// It takes no more.
    pub(crate) stopped: bool,
    pub(crate) held: Vec<Delivery>,
}

impl Rule {
    fn fits(&self, from: usize, to: usize, message: &Message) -> bool {
        !self.stopped && self.filter.fits(from, to, message)
    }
}

/// Which messages; an empty list fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) from: Option<usize>,
    pub(crate) to: Option<usize>,
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) subject: Option<u64>,
}

impl Filter {
    fn fits(&self, from: usize, to: usize, message: &Message) -> bool {
        self.from.is_none_or(|wanted| wanted == from)
            && self.to.is_none_or(|wanted| wanted == to)
            && (self.kinds.is_empty() || self.kinds.contains(&message.name()))
            && self.subject.is_none_or(|wanted| wanted == subject(message))
    }
}

/// The links between all nodes.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// `blocked[from][to]`: the partition in force.
    pub(crate) blocked: Vec<Vec<bool>>,
    /// `cut[from][to]`: links cut one by one.
    pub(crate) cut: Vec<Vec<bool>>,
    /// `clogged[from][to]`: until when messages wait.
    pub(crate) clogged: Vec<Vec<u64>>,
    /// `holds[from][to]`: messages on their way.
    holds: Vec<Vec<usize>>,
    /// Until when a node sends no message of a kind.
    pub(crate) muted: Vec<Option<(&'static str, u64)>>,
    /// How many messages of a kind and subject went over a link.
    counts: BTreeMap<(usize, usize, &'static str, u64), u32>,
    pub(crate) rules: Vec<Rule>,
    kept: VecDeque<Kept>,
    /// Counts the partitions.
    pub(crate) partition: u64,
}

impl Links {
    pub(crate) fn add_node(&mut self) {
        let nodes = self.muted.len() + 1;
        for table in [&mut self.blocked, &mut self.cut] {
            table.iter_mut().for_each(|row| row.push(false));
            table.push(vec![false; nodes]);
        }
        self.clogged.iter_mut().for_each(|row| row.push(0));
        self.clogged.push(vec![0; nodes]);
        self.holds.iter_mut().for_each(|row| row.push(0));
        self.holds.push(vec![0; nodes]);
        self.muted.push(None);
    }

    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        !self.blocked[from][to] && !self.cut[from][to]
    }

    pub(crate) fn heal(&mut self) {
        for table in [&mut self.blocked, &mut self.cut] {
            table.iter_mut().for_each(|row| row.fill(false));
        }
        self.clogged.iter_mut().for_each(|row| row.fill(0));
        self.muted.fill(None);
        self.rules.clear();
    }
}

impl World {
    pub(crate) fn node_of(&self, peer: Peer) -> Option<usize> {
        match peer {
            Peer::Replica(id) => Some(usize::from(id.0)).filter(|&at| at < self.replicas),
            Peer::Client(client) => self.clients.get(&client).copied(),
        }
    }

    /// A node hands its messages to the network.
    pub(crate) fn send(&mut self, from: usize, batch: &mut Vec<Envelope>) {
        if from >= self.replicas && self.options.rogues > 0 {
            self.speak_as_client(from);
        }
        for Envelope { to, mut message } in batch.drain(..) {
            if self.nodes[from].dying.is_some() {
                continue;
            }
            self.misbehave(from, &mut message);
            if from >= self.replicas {
                self.look_at_client(from, &message);
            }
            self.trace.count("messages");
            let Some(to) = self.node_of(to) else { continue };
            self.traffic.count(&message);
            if from < self.replicas {
                match &message {
                    Message::Prepare { .. } => self.look_at_clocks(),
                    Message::Replies { replies, .. } => self.count_outcomes(from, replies),
                    _ => {}
                }
                self.observe(&Observation::Sent { replica: from, message: &message });
            }
            self.send_one(from, to, message);
        }
    }

    fn send_one(&mut self, from: usize, to: usize, message: Message) {
        let count = self.links.counts.entry((from, to, message.name(), subject(&message))).or_default();
        *count += 1;
        let key = MessageKey { from, to, kind: message.name(), subject: subject(&message), nth: *count };
        let mut random = self.draw(site::DELAY, key.hash(), 0);
        let at = self.now + delay(&self.options, &mut random);
        let sent = self.record_sent(from, to, &message);
        let message = if self.options.wire { self.through_the_wire(message) } else { message };
        let mut delivery = Delivery { from, to, message, sent, counted: true };
        if let Some(rule) = self.links.rules.iter().position(|rule| rule.fits(from, to, &delivery.message)) {
            return self.follow_rule(rule, delivery);
        }
        if self.faults_on {
            if self.links.muted[from].is_some_and(|(kind, until)| kind == key.kind && self.now < until) {
                return self.lose(&delivery, "muted");
            }
            if self.options.link_max > 0 && self.links.holds[from][to] >= self.options.link_max {
                return self.lose(&delivery, "link is full");
            }
            match self.message_fate(key) {
                Some(MessageFate::Drop) => return self.lose(&delivery, "drops"),
                Some(MessageFate::Corrupt(bit)) => return self.corrupt(delivery, bit, at),
                Some(MessageFate::Again(KEPT)) => self.keep(&delivery, at),
                Some(MessageFate::Again(after)) => {
                    self.trace.count(if after > LATE { "replays" } else { "duplicates" });
                    let again = Delivery { counted: false, ..delivery.clone() };
                    self.plan(at + after, Planned::Deliver(Box::new(again)));
                }
                Some(MessageFate::Misdeliver(other)) => {
                    self.trace.count("misdeliveries");
                    delivery.to = other.min(self.nodes.len() - 1);
                    delivery.counted = false;
                }
                Some(MessageFate::CrashAfter(unsynced)) => self.die(from, unsynced, "crashes after a message"),
                None => {}
            }
        } else if self.options.core_loss.0 > 0
            && self.options.core_loss.happens(&mut self.draw(site::CORE_LOSS, key.hash(), 0))
        {
            return self.lose(&delivery, "drops in the core");
        }
        // Time-outs must bear with this much, too.
        let later = if self.faults_on { 0 } else { self.options.core_delay.as_nanos() as u64 };
        let at = if later > 0 { at + random.below(later) } else { at };
        let clogged = self.links.clogged[from][to];
        let at = if clogged > at { clogged + random.below(1000) } else { at };
        if delivery.counted {
            self.links.holds[from][to] += 1;
        }
        self.plan(at, Planned::Deliver(Box::new(delivery)));
    }

    pub(crate) fn message_fate(&mut self, key: MessageKey) -> Option<MessageFate> {
        let mut random = self.draw(site::FATE, key.hash(), 0);
        let (options, nodes, replicas) = (&self.options, self.nodes.len() as u64, self.replicas);
        let rates = [options.loss, options.duplicates, options.replays, options.corruption, options.misdelivery];
        let others = [options.crash_on_send, options.late_terms];
        if rates.iter().chain(&others).all(|rate| rate.0 == 0) && self.plan.has_no_messages() {
            return None;
        }
        let is_register = key.kind == "Requests" && key.subject == 0;
        let of_a_term = is_register || OF_A_TERM.contains(&key.kind);
        self.plan.message(key, || {
            if options.loss.happens(&mut random) {
                Some(MessageFate::Drop)
            } else if options.duplicates.happens(&mut random) {
                Some(MessageFate::Again(delay(options, &mut random) * 3))
            } else if options.replays.happens(&mut random) {
                Some(MessageFate::Again(LATE + 1 + random.below(8_000_000_000)))
            } else if options.corruption.happens(&mut random) {
                Some(MessageFate::Corrupt(random.next_u64()))
            } else if options.misdelivery.happens(&mut random) {
                Some(MessageFate::Misdeliver(random.below(nodes) as usize))
            } else if key.from < replicas && options.crash_on_send.happens(&mut random) {
                Some(MessageFate::CrashAfter(unsynced(&mut random, options.torn_writes)))
            } else if of_a_term && options.late_terms.happens(&mut random) {
                Some(MessageFate::Again(KEPT))
            } else {
                None
            }
        })
    }

    /// A copy arrives in a later term. Its fate has just been noted.
    fn keep(&mut self, delivery: &Delivery, at: u64) {
        let Some(fault) = self.plan.happened.len().checked_sub(1) else { return };
        if self.links.kept.len() >= KEPT_MAX {
            self.links.kept.pop_front();
        }
        let copy = Delivery { counted: false, ..delivery.clone() };
        self.links.kept.push_back(Kept { copy, at, view: self.highest_view, fault });
    }

    /// A replica leads a view, or is about to (then it waits for `DoViewChange`s): most of what was kept of its earlier terms
    /// arrives within the time that the first answers of this one take.
    pub(crate) fn release_kept(&mut self, replica: usize, view: u64, started: bool) {
        if !self.faults_on || self.links.kept.is_empty() {
            return;
        }
        let mut random = self.draw(site::LATE, view << 4 | replica as u64, u64::from(started));
        let within = 2 * self.options.delay_longest().as_nanos() as u64 + 2_000_000;
        for kept in std::mem::take(&mut self.links.kept) {
            let waits = matches!(kept.copy.message, Message::DoViewChange(_) | Message::StartViewChange { .. });
            let of_it = kept.copy.to == replica || kept.copy.from == replica;
            let arrives = self.now + 1 + random.below(within);
            if !of_it || waits == started || kept.view >= view || kept.at >= arrives || random.chance(1, 4) {
                self.links.kept.push_back(kept);
                continue;
            }
            if let Some(Fault::Message(_, fate)) = self.plan.happened.get_mut(kept.fault) {
                *fate = MessageFate::Again(arrives - kept.at);
            }
            self.trace.count("copies of an earlier term");
            self.plan(arrives, Planned::Deliver(Box::new(kept.copy)));
        }
    }

    /// What bounds have done to requests.
    fn count_outcomes(&mut self, replica: usize, replies: &[Reply]) {
        for reply in replies {
            let name = match &reply.outcome {
                Outcome::Busy(Busy::Queue) => "busy: the queue is full",
                Outcome::Busy(Busy::Replies) => "busy: unseen replies fill half their bound",
                Outcome::Busy(Busy::LogFull) => "busy: the log is full",
                Outcome::Busy(Busy::Sessions) => "busy: the table is full of sessions in use",
                Outcome::ReplyLost => "replies whose bytes are gone",
                Outcome::Refused(Refusal::TooLarge) => "refused: the command is too long",
                Outcome::Refused(Refusal::Evicted) => "refused: the session was evicted",
                _ => continue,
            };
            self.trace.count(name);
            if self.replies_fit && reply.outcome == Outcome::ReplyLost {
                let name = "replies that were lost though all of the run fit";
                let account = Account { name, counted: 1, held: 0, bound: 0 };
                self.observe(&Observation::Audited { replica, account: &account });
            }
        }
    }

    fn follow_rule(&mut self, rule: usize, delivery: Delivery) {
        if self.links.rules[rule].holds {
            self.links.rules[rule].held.push(delivery);
        } else {
            self.lose(&delivery, "lost by a rule");
        }
    }

    fn record_sent(&mut self, from: usize, to: usize, message: &Message) -> Option<u32> {
        let (at, cause) = (self.now, self.nodes[from].cause);
        self.trace.record(Detail::Messages, || {
            let text = crate::describe::message(message);
            Record { at, lane: from as u32, cause, what: What::Sent { to: to as u32, kind: message.name(), text } }
        })
    }

    fn lose(&mut self, delivery: &Delivery, why: &'static str) {
        self.trace.count(why);
        let (at, lane) = (self.now, delivery.to as u32);
        if let Some(sent) = delivery.sent {
            let record = Record { at, lane, cause: Some(sent), what: What::Lost { sent, why } };
            self.trace.record(Detail::Messages, || record);
        }
    }

    /// A bit flips: the frame must be refused.
    fn corrupt(&mut self, delivery: Delivery, bit: u64, at: u64) {
        let Some(frame) = frame_of(&delivery.message) else { return self.lose(&delivery, "drops") };
        let mut bytes = BytesMut::from(&frame[..]);
        let bit = bit % (bytes.len() as u64 * 8);
        bytes[bit as usize / 8] ^= 1 << (bit % 8);
        match wire::decode_frame(&bytes.freeze(), Limits::default()) {
            Err(_) => self.lose(&delivery, "corrupted frames refused"),
            Ok(message) if message == delivery.message => self.plan(at, Planned::Deliver(Box::new(delivery))),
            Ok(_) => {
                let (name, at) = (delivery.message.name(), self.now);
                let message = format!("a {name} with bit {bit} flipped passed for another one");
                self.breach(Violation { checker: "corruption-is-noticed", message, at });
            }
        }
    }

    fn through_the_wire(&mut self, message: Message) -> Message {
        self.trace.count("encoded and decoded");
        let decoded = frame_of(&message).and_then(|frame| wire::decode_frame(&frame, Limits::default()).ok());
        match decoded {
            Some(decoded) if decoded == message => decoded,
            _ => {
                let (name, at) = (message.name(), self.now);
                let message_text = format!("a {name} is not itself after it was encoded and decoded");
                self.breach(Violation { checker: "encoding-keeps-messages", message: message_text, at });
                message
            }
        }
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

    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        let (from, to) = (delivery.from, delivery.to);
        if delivery.counted {
            self.links.holds[from][to] -= 1;
        }
        // A rule may have come after the message left.
        if let Some(rule) = self.links.rules.iter().position(|rule| rule.fits(from, to, &delivery.message)) {
            return self.follow_rule(rule, Delivery { counted: false, ..delivery });
        }
        self.hand_over(delivery);
    }

    /// A message arrives, past every rule, if the link and its receiver are up.
    pub(crate) fn hand_over(&mut self, delivery: Delivery) {
        let (from, to) = (delivery.from, delivery.to);
        if !self.links.passes(from, to) {
            return self.lose(&delivery, "partitioned");
        }
        if !self.nodes[to].up {
            return self.lose(&delivery, "receiver is down");
        }
        self.trace.count("deliveries");
        let name = delivery.message.name();
        let kind = name.len() as u64 * 131 + u64::from(name.as_bytes()[0]);
        self.trace.note(self.now, kind, from as u64, to as u64, 0);
        let (at, lane) = (self.now, to as u32);
        if let Some(sent) = delivery.sent {
            let record = Record { at, lane, cause: Some(sent), what: What::Delivered { sent } };
            self.nodes[to].cause = self.trace.record(Detail::Messages, || record);
        }
        let from = self.nodes[from].peer;
        if to < self.replicas {
            self.observe(&Observation::Received { replica: to, from, message: &delivery.message });
        }
        self.arrive(to, Arrival::Message { from, message: delivery.message });
    }
}

/// Repeats that come later than this are replays: a view, or a life, may have passed.
pub(crate) const LATE: u64 = 500_000_000;

pub(crate) fn delay(options: &Options, random: &mut vsr::protocol::Random) -> u64 {
    let spread = options.delay_spread.as_nanos() as u64;
    let least = options.delay_min.as_nanos() as u64;
    least
        + match options.delay_shape {
            DelayShape::LongTail => {
                let fraction = 1 << random.below(4);
                random.below(spread / fraction + 1)
            }
            DelayShape::Uniform => random.below(spread + 1),
            DelayShape::Bimodal => {
                let near = random.below(spread / 64 + 1);
                if random.chance(1, 16) { spread - near } else { near }
            }
        }
}

fn frame_of(message: &Message) -> Option<Bytes> {
    let frame = wire::encode(message).ok()?;
    let mut bytes = BytesMut::with_capacity(frame.len());
    bytes.extend_from_slice(&frame.head);
    frame.bodies.iter().for_each(|body| bytes.extend_from_slice(body));
    Some(bytes.freeze())
}
