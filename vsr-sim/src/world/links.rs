//! The links between all nodes: what passes, what waits, and what the rules of a scenario take.

use std::collections::VecDeque;

use vsr::protocol::Message;

use crate::check::table::Table;
use crate::faults::{MessageKey, subject};

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Who sent it.
    pub(super) from: usize,
    /// Who gets it.
    pub(super) to: usize,
    pub(super) message: Message,
    /// The record of its sending.
    pub(super) sent: Option<u32>,
    /// Whether it counts among what its link holds.
    pub(super) counted: bool,
}

/// A copy that waits until the replica that it is from, or for, leads again.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) copy: Delivery,
    /// When the message itself arrives.
    pub(super) at: u64,
    /// The newest view then.
    pub(super) view: u64,
    /// Where its fate stands among what has happened.
    pub(super) fault: usize,
}

/// Copies that are kept at a time; the oldest goes.
const KEPT_MAX: usize = 128;

/// What a scenario does to the messages that fit.
#[derive(Debug)]
struct LinkRule {
    name: String,
    filter: MessageFilter,
    /// They wait until they are released; else they are lost.
    holds: bool,
    /// It takes no more.
    stopped: bool,
    held: Vec<Delivery>,
}

impl LinkRule {
    fn fits(&self, delivery: &Delivery) -> bool {
        !self.stopped && self.filter.fits(delivery.from, delivery.to, &delivery.message)
    }
}

/// Which messages; an empty list fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageFilter {
    pub(crate) from: Option<usize>,
    pub(crate) to: Option<usize>,
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) subject: Option<u64>,
}

impl MessageFilter {
    fn fits(&self, from: usize, to: usize, message: &Message) -> bool {
        self.from.is_none_or(|wanted| wanted == from)
            && self.to.is_none_or(|wanted| wanted == to)
            && (self.kinds.is_empty() || self.kinds.contains(&message.name()))
            && self.subject.is_none_or(|wanted| wanted == subject(message))
    }
}

/// What the rules make of a message.
pub(super) enum Ruled {
    /// No rule fits.
    Passes(Box<Delivery>),
    /// A rule keeps it.
    Held,
    /// A rule loses it.
    Lost(Box<Delivery>),
}

/// Of each kind of message, and each subject, how many there were.
type Counts = Vec<(&'static str, Table<u32>)>;

/// The links between all nodes.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// `blocked[from][to]`: the partition in force.
    blocked: Vec<Vec<bool>>,
    /// `cut[from][to]`: links cut one by one.
    cut: Vec<Vec<bool>>,
    /// `clogged[from][to]`: until when messages wait.
    clogged: Vec<Vec<u64>>,
    /// `load[from][to]`: messages on their way.
    load: Vec<Vec<usize>>,
    /// Until when a node sends no message of a kind.
    muted: Vec<Option<(&'static str, u64)>>,
    /// `counts[from][to]`: by kind and subject, how many messages went over the link.
    counts: Vec<Vec<Counts>>,
    rules: Vec<LinkRule>,
    kept: VecDeque<Kept>,
    /// Counts the partitions.
    partitions: u64,
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
        self.load.iter_mut().for_each(|row| row.push(0));
        self.load.push(vec![0; nodes]);
        self.counts.iter_mut().for_each(|row| row.push(Vec::new()));
        self.counts.push(vec![Vec::new(); nodes]);
        self.muted.push(None);
    }

    // ---- what passes ----

    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        !self.blocked[from][to] && !self.cut[from][to]
    }

    /// No message passes from one node to another.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut[from][to] = true;
    }

    /// Messages pass again, if no partition is between the nodes.
    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        self.cut[from][to] = false;
    }

    /// A new partition takes the place of the one in force. The number of the partition.
    pub(crate) fn divide(&mut self, is_blocked: impl Fn(usize, usize) -> bool) -> u64 {
        for (from, row) in self.blocked.iter_mut().enumerate() {
            row.iter_mut().enumerate().for_each(|(to, blocked)| *blocked = is_blocked(from, to));
        }
        self.partitions += 1;
        self.partitions
    }

    /// The number of the partition that came last.
    pub(crate) fn partitions(&self) -> u64 {
        self.partitions
    }

    /// The partition ends, and every link that was cut is whole.
    pub(crate) fn mend_all(&mut self) {
        for table in [&mut self.blocked, &mut self.cut] {
            table.iter_mut().for_each(|row| row.fill(false));
        }
    }

    /// Nothing is cut, clogged or muted any more, and no rule is left.
    pub(crate) fn heal(&mut self) {
        self.mend_all();
        self.clogged.iter_mut().for_each(|row| row.fill(0));
        self.muted.fill(None);
        self.rules.clear();
    }

    // ---- what waits ----

    /// Messages on a link wait until this moment, and then arrive together.
    pub(crate) fn clog(&mut self, from: usize, to: usize, until: u64) {
        self.clogged[from][to] = until;
    }

    /// Until when messages on a link wait; 0, or a moment that has passed, when they do not.
    pub(super) fn clogged_until(&self, from: usize, to: usize) -> u64 {
        self.clogged[from][to]
    }

    /// No message of this kind leaves the node until this moment.
    pub(crate) fn mute(&mut self, node: usize, kind: &'static str, until: u64) {
        self.muted[node] = Some((kind, until));
    }

    pub(super) fn is_muted(&self, node: usize, kind: &'static str, now: u64) -> bool {
        self.muted[node].is_some_and(|(muted, until)| muted == kind && now < until)
    }

    /// Messages that are on their way over a link.
    pub(super) fn load(&self, from: usize, to: usize) -> usize {
        self.load[from][to]
    }

    /// A message begins its way, if it counts.
    pub(super) fn depart(&mut self, delivery: &Delivery) {
        self.load[delivery.from][delivery.to] += usize::from(delivery.counted);
    }

    /// Its way has ended.
    pub(super) fn arrive(&mut self, delivery: &Delivery) {
        self.load[delivery.from][delivery.to] -= usize::from(delivery.counted);
    }

    /// A message is sent: what it is, so that the same one is recognised in another run of the seed.
    pub(super) fn key(&mut self, from: usize, to: usize, message: &Message) -> MessageKey {
        let (kind, subject) = (message.name(), subject(message));
        let counts = &mut self.counts[from][to];
        let of_kind = counts.iter().position(|(known, _)| std::ptr::eq(*known, kind) || *known == kind);
        let of_kind = of_kind.unwrap_or_else(|| {
            counts.push((kind, Table::default()));
            counts.len() - 1
        });
        let nth = counts[of_kind].1.place(subject).get_or_insert(0);
        *nth += 1;
        MessageKey { from, to, kind, subject, nth: *nth }
    }

    // ---- copies for a later term ----

    pub(super) fn keep(&mut self, kept: Kept) {
        if self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(kept);
    }

    pub(super) fn keeps_copies(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Takes the copies whose time has come: those for which `arrives` has a moment, with it. It is asked of each, in order.
    pub(super) fn release(&mut self, mut arrives: impl FnMut(&Kept) -> Option<u64>) -> Vec<(u64, Kept)> {
        let mut released = Vec::new();
        for kept in std::mem::take(&mut self.kept) {
            match arrives(&kept) {
                Some(at) => released.push((at, kept)),
                None => self.kept.push_back(kept),
            }
        }
        released
    }

    // ---- rules ----

    /// From now on messages that fit wait (`holds`), or are lost.
    pub(crate) fn add_rule(&mut self, name: String, filter: MessageFilter, holds: bool) {
        self.rules.push(LinkRule { name, filter, holds, stopped: false, held: Vec::new() });
    }

    /// The first rule that fits takes the message.
    pub(super) fn take(&mut self, delivery: Box<Delivery>) -> Ruled {
        if self.rules.is_empty() {
            return Ruled::Passes(delivery);
        }
        match self.rules.iter_mut().find(|rule| rule.fits(&delivery)) {
            None => Ruled::Passes(delivery),
            Some(rule) if rule.holds => {
                rule.held.push(*delivery);
                Ruled::Held
            }
            Some(_) => Ruled::Lost(delivery),
        }
    }

    /// What waits under the first rule of this name; `None` when there is no such rule.
    pub(crate) fn held(&self, name: &str) -> Option<&[Delivery]> {
        self.rules.iter().find(|rule| rule.name == name).map(|rule| rule.held.as_slice())
    }

    /// How many messages wait under all rules of this name.
    pub(crate) fn count_held(&self, name: &str) -> u64 {
        self.rules.iter().filter(|rule| rule.name == name).map(|rule| rule.held.len() as u64).sum()
    }

    /// The first rule of this name takes no more; what it holds still waits.
    pub(crate) fn stop_rule(&mut self, name: &str) {
        if let Some(rule) = self.rules.iter_mut().find(|rule| rule.name == name) {
            rule.stopped = true;
        }
    }

    /// The first rule of this name ends, with what it holds.
    pub(crate) fn remove_rule(&mut self, name: &str) {
        if let Some(at) = self.rules.iter().position(|rule| rule.name == name) {
            self.rules.remove(at);
        }
    }
}
