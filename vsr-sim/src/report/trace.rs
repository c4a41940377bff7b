//! What happened in a run: a rolling hash over every event, counters, and records for a person.

use std::collections::BTreeMap;

use super::timeline::{Record, What};

/// The record of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    counters: Vec<(&'static str, u64)>,
    records: Vec<Record>,
    detail: Detail,
}

/// How much is kept for a person to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Hash and counters.
    #[default]
    Counters,
    /// Every interesting event.
    Events,
    /// Every message, too.
    Messages,
}

/// What an event of the hash is. The numbers are part of the hash: another number of a kind changes the hash of every seed in which it happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TraceKind {
    /// A message of this name is delivered. Node: the sender; then the receiver.
    Delivered(&'static str),
    /// A replica enters a view. Node: the replica; then the view.
    ViewEntered,
    /// A view starts at a replica. Node: the replica; then the view.
    ViewStarted,
    /// The commit number of a replica rises. Node: the replica; then the commit number.
    Committed,
    /// A replica applies an op. Node: the replica; then the op and the low bits of its checksum.
    Applied,
    /// A write of a replica is durable. Node: the replica.
    Written,
    /// A replica crashes. Node: the replica.
    Crashed,
    /// A partition begins. Node: its number; then whether it is one-way.
    Partitioned,
    /// A stored entry rots. Node: the replica; then the op, and whether more than its body is gone.
    Rotten,
    /// The place of an op goes bad. Node: the replica; then the op and the number of puts that it loses.
    BadSector,
    /// A frame of a network under test is delivered. Node: the sender; then the receiver and the length in bytes.
    FrameDelivered,
}

impl TraceKind {
    fn number(self) -> u64 {
        match self {
            TraceKind::Delivered(name) => {
                name.len() as u64 * 131 + u64::from(name.as_bytes().first().copied().unwrap_or_default())
            }
            TraceKind::ViewEntered => 1001,
            TraceKind::ViewStarted => 1002,
            TraceKind::Committed => 1003,
            TraceKind::Applied => 1004,
            TraceKind::Written => 1005,
            TraceKind::Crashed => 1006,
            TraceKind::Partitioned => 1007,
            TraceKind::Rotten => 1008,
            TraceKind::BadSector => 1009,
            TraceKind::FrameDelivered => 1010,
        }
    }
}

impl Trace {
    /// An empty record.
    #[must_use]
    pub fn new(detail: Detail) -> Trace {
        Trace { hash: 0x0076_7372, detail, ..Trace::default() }
    }

    /// Adds an event to the hash: its moment in nanoseconds of virtual time, and what [`TraceKind`] says of the other numbers.
    pub(crate) fn note(&mut self, at: u64, kind: TraceKind, node: u64, a: u64, b: u64) {
        self.events += 1;
        for word in [at, kind.number(), node, a, b] {
            self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash ^= self.hash >> 29;
        }
    }

    /// Counts something.
    pub fn count(&mut self, name: &'static str) {
        // The same text may stand at several addresses; that costs an entry more, until they are read.
        match self.counters.iter().position(|(known, _)| std::ptr::eq(*known, name)) {
            Some(at) => {
                self.counters[at].1 += 1;
                // What is counted often moves to the front, and is found soon.
                self.counters.swap(at, at / 2);
            }
            None => self.counters.push((name, 1)),
        }
    }

    /// Whether this much is kept.
    #[must_use]
    pub fn keeps(&self, detail: Detail) -> bool {
        self.detail >= detail
    }

    /// Keeps a record, if so much is kept; the closure runs only then. Says which record it is.
    pub fn record(&mut self, detail: Detail, record: impl FnOnce() -> Record) -> Option<u32> {
        if self.detail < detail {
            return None;
        }
        self.records.push(record());
        u32::try_from(self.records.len() - 1).ok()
    }

    /// A sentence about a lane.
    pub fn say(&mut self, at: u64, lane: u32, cause: Option<u32>, text: impl FnOnce() -> String) {
        self.record(Detail::Events, || Record { at, lane, cause, what: What::Note { text: text() } });
    }

    /// The hash of every event so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How often something happened.
    #[must_use]
    pub fn counted(&self, name: &str) -> u64 {
        self.counters.iter().filter(|(known, _)| *known == name).map(|(_, count)| count).sum()
    }

    /// All counters, by name.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut counters = BTreeMap::new();
        for (name, count) in &self.counters {
            *counters.entry(*name).or_default() += count;
        }
        counters
    }

    /// What was kept, in order.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }
}
