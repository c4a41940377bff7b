//! The network of the world: what becomes of a message between its sender and its receiver.

use bytes::{Bytes, BytesMut};
use vsr::network::NetworkEvent;
use vsr::protocol::{Account, Busy, Envelope, Message, Outcome, Peer, Random, Refusal, Reply};
use vsr::wire::{self, Limits};

use super::disks::unsynced;
use super::links::{Delivery, Kept, Ruled};
use super::{Planned, World, site};
use crate::check::{Observation, Violation};
use crate::faults::{Fault, KEPT, MessageFate, MessageKey};
use crate::options::{DelayShape, Options};
use crate::report::timeline::{Record, What};
use crate::report::{Detail, TraceKind, describe};

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
            if matches!(self.nodes[from].peer, Peer::Client(_)) {
                self.look_at_client(from, &message);
            }
            self.trace.count("messages");
            let Some(to) = self.node_of(to).map(|to| self.or_impostor(to)) else { continue };
            self.traffic.count(&message);
            if from < self.replicas {
                match &message {
                    Message::Prepare { .. } => self.look_at_clocks(),
                    Message::Replies { replies, .. } => self.count_outcomes(from, replies),
                    _ => {}
                }
                self.observe(&Observation::Sent { replica: from, message: &message });
            } else if self.impostors.contains_key(&from) {
                self.observe(&Observation::ByImpostor { message: &message });
            }
            self.send_one(from, to, message);
        }
    }

    fn send_one(&mut self, from: usize, to: usize, message: Message) {
        let key = self.links.key(from, to, &message);
        let mut random = self.draw(site::DELAY, key.hash(), 0);
        let at = self.now + delay(&self.options, &mut random);
        let sent = self.record_sent(from, to, &message);
        let message = if self.options.wire { self.through_the_wire(message) } else { message };
        let delivery = Box::new(Delivery { from, to, message, sent, counted: true });
        let Some(mut delivery) = self.past_the_rules(delivery) else { return };
        // A fate names the nodes that a scenario can name.
        let is_named = from.max(to) < self.parties();
        if self.faults_on && is_named {
            if self.links.is_muted(from, key.kind, self.now) {
                return self.lose(&delivery, "muted");
            }
            if self.options.link_max > 0 && self.links.load(from, to) >= self.options.link_max {
                return self.lose(&delivery, "link is full");
            }
            match self.message_fate(key, asks_for_its_place(&delivery.message)) {
                Some(MessageFate::Drop) => return self.lose(&delivery, "drops"),
                Some(MessageFate::Corrupt(bit)) => return self.corrupt(delivery, bit, at),
                Some(MessageFate::Again(KEPT)) => self.keep(&delivery, at),
                Some(MessageFate::Again(after)) => {
                    self.trace.count(if after > LATE { "replays" } else { "duplicates" });
                    let mut again = delivery.clone();
                    again.counted = false;
                    self.plan(at + after, Planned::Deliver(again));
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
        let clogged = self.links.clogged_until(from, to);
        let at = if clogged > at { clogged + random.below(1000) } else { at };
        self.links.depart(&delivery);
        self.plan(at, Planned::Deliver(delivery));
    }

    /// `asks`: its sender's disk takes the place of a lost one.
    pub(crate) fn message_fate(&mut self, key: MessageKey, asks: bool) -> Option<MessageFate> {
        let mut random = self.draw(site::FATE, key.hash(), 0);
        let (options, nodes, replicas) = (&self.options, self.parties() as u64, self.replicas);
        let rates = [options.loss, options.duplicates, options.replays, options.corruption, options.misdelivery];
        let others = [options.crash_on_send, options.late_terms];
        // What tells a replica where its log ends, so that it may be told again when it has lost that end.
        let of_a_doubt = key.kind == "StartView" && !options.doubts_every.is_zero();
        if !of_a_doubt && !asks && rates.iter().chain(&others).all(|rate| rate.0 == 0) && self.plan.has_no_messages() {
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
            } else if of_a_term && options.late_terms.happens(&mut random)
                || (of_a_doubt || asks) && random.chance(1, 2)
            {
                Some(MessageFate::Again(KEPT))
            } else {
                None
            }
        })
    }

    /// A copy arrives in a later term. Its fate has just been noted.
    fn keep(&mut self, delivery: &Delivery, at: u64) {
        let Some(fault) = self.plan.happened.len().checked_sub(1) else { return };
        let copy = Delivery { counted: false, ..delivery.clone() };
        self.links.keep(Kept { copy, at, view: self.highest_view, fault });
    }

    /// A replica leads a view, or is about to (then it waits for `DoViewChange`s): most of what was kept of its earlier terms
    /// arrives within the time that the first answers of this one take.
    pub(super) fn release_kept(&mut self, replica: usize, view: u64, started: bool) {
        if !self.faults_on || !self.links.keeps_copies() {
            return;
        }
        let mut random = self.draw(site::LATE, view << 4 | replica as u64, u64::from(started));
        let within = 2 * self.options.delay_longest().as_nanos() as u64 + 2_000_000;
        let now = self.now;
        let released = self.links.release(|kept| {
            let waits = matches!(kept.copy.message, Message::DoViewChange(_) | Message::StartViewChange { .. });
            let of_it = kept.copy.to == replica || kept.copy.from == replica;
            let arrives = now + 1 + random.below(within);
            let stays = !of_it || waits == started || kept.view >= view || kept.at >= arrives || random.chance(1, 4);
            (!stays).then_some(arrives)
        });
        for (arrives, kept) in released {
            self.trace.count("copies of an earlier term");
            self.arrives_late(arrives, kept);
        }
    }

    /// A replica starts from a log whose end it has lost: what it was told of that log in an earlier life arrives before it can have
    /// an answer of this one.
    pub(crate) fn release_start_views(&mut self, replica: usize) {
        if !self.faults_on || !self.links.keeps_copies() {
            return;
        }
        let mut random = self.draw(site::LATE, 1 << 32 | replica as u64, self.now);
        let within = self.options.delay_longest().as_nanos() as u64 + 1;
        let now = self.now;
        let released = self.links.release(|kept| {
            let is_told = kept.copy.to == replica && matches!(kept.copy.message, Message::StartView(_));
            let arrives = now + 1 + random.below(within);
            (is_told && kept.at < arrives).then_some(arrives)
        });
        for (arrives, kept) in released {
            self.trace.count("views that are told again");
            self.arrives_late(arrives, kept);
        }
    }

    /// A copy that was kept arrives then; its fate says so.
    fn arrives_late(&mut self, arrives: u64, kept: Kept) {
        if let Some(Fault::Message(_, fate)) = self.plan.happened.get_mut(kept.fault) {
            *fate = MessageFate::Again(arrives - kept.at);
        }
        self.plan(arrives, Planned::Deliver(Box::new(kept.copy)));
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

    /// A message that no rule of a scenario takes.
    fn past_the_rules(&mut self, delivery: Box<Delivery>) -> Option<Box<Delivery>> {
        match self.links.take(delivery) {
            Ruled::Passes(delivery) => Some(delivery),
            Ruled::Held => None,
            Ruled::Lost(delivery) => {
                self.lose(&delivery, "lost by a rule");
                None
            }
        }
    }

    fn record_sent(&mut self, from: usize, to: usize, message: &Message) -> Option<u32> {
        let (at, cause) = (self.now, self.nodes[from].cause);
        self.trace.record(Detail::Messages, || {
            let text = describe::message(message);
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
    fn corrupt(&mut self, mut delivery: Box<Delivery>, bit: u64, at: u64) {
        let Some(frame) = frame_of(&delivery.message) else { return self.lose(&delivery, "drops") };
        let mut bytes = BytesMut::from(&frame[..]);
        let bit = bit % (bytes.len() as u64 * 8);
        bytes[bit as usize / 8] ^= 1 << (bit % 8);
        match wire::decode_frame(&bytes.freeze(), Limits::default()) {
            Err(_) => self.lose(&delivery, "corrupted frames refused"),
            Ok(message) if message == delivery.message => {
                delivery.counted = false;
                self.plan(at, Planned::Deliver(delivery));
            }
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

    /// No message crosses from these nodes to the others; nor back, unless it is one-way.
    pub(crate) fn partition(&mut self, side: &[usize], one_way: bool, noticed: bool) {
        let (now, nodes) = (self.now, self.nodes.len());
        let inside = |node: usize| side.contains(&node);
        let number = self.links.divide(|from, to| inside(from) != inside(to) && !(one_way && inside(to)));
        self.trace.count(if one_way { "one-way partitions" } else { "partitions" });
        self.trace.note(now, TraceKind::Partitioned, number, u64::from(one_way), 0);
        let names: Vec<String> = side.iter().filter(|&&node| node < nodes).map(|&node| self.name_of(node)).collect();
        let sign = if one_way { ">" } else { "|" };
        self.fault(usize::MAX, None, || format!("partition: {} {sign} the rest", names.join(" ")));
        if !noticed {
            return;
        }
        let mut random = self.draw(site::HINT, now, 0);
        for (node, peer) in pairs(self.replicas) {
            if inside(node) != inside(peer) && random.chance(2, 3) {
                let refused = random.chance(1, 2);
                let at = now + 100_000 + random.below(5_000_000);
                self.plan(at, Planned::PeerDown { node, peer, refused });
            }
        }
    }

    pub(crate) fn heal_partition(&mut self) {
        self.links.mend_all();
        self.fault(usize::MAX, None, || "the partition heals".to_owned());
        let mut random = self.draw(site::HINT, self.now, 2);
        for (node, peer) in pairs(self.replicas) {
            if self.nodes[peer].up {
                let at = self.now + 1_000_000 + random.below(50_000_000);
                self.plan(at, Planned::PeerUp { node, peer });
            }
        }
    }

    pub(crate) fn arrive(&mut self, node: usize, arrival: NetworkEvent) {
        let node = &mut self.nodes[node];
        if node.up {
            node.inbox.push(arrival);
            if let Some(flag) = &node.inbox_flag {
                flag.set();
            }
        }
    }

    pub(crate) fn deliver(&mut self, mut delivery: Box<Delivery>) {
        self.links.arrive(&delivery);
        delivery.counted = false;
        // A rule may have come after the message left.
        if let Some(delivery) = self.past_the_rules(delivery) {
            self.hand_over(*delivery);
        }
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
        let kind = TraceKind::Delivered(delivery.message.name());
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
        self.arrive(to, NetworkEvent::Message { from, message: delivery.message });
    }
}

/// Every ordered pair of replicas.
fn pairs(replicas: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..replicas).flat_map(move |node| (0..replicas).filter(move |&peer| peer != node).map(move |peer| (node, peer)))
}

/// What a disk asks may be heard in a later view, when it was given up and another one is there.
fn asks_for_its_place(message: &Message) -> bool {
    matches!(message, Message::Ping(ping) if !ping.succession.counts())
}

/// Repeats that come later than this are replays: a view, or a life, may have passed.
pub(crate) const LATE: u64 = 500_000_000;

pub(crate) fn delay(options: &Options, random: &mut Random) -> u64 {
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
