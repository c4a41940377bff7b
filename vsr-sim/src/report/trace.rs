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

impl Trace {
    /// An empty record.
    #[must_use]
    pub fn new(detail: Detail) -> Trace {
        Trace { hash: 0x0076_7372, detail, ..Trace::default() }
    }

    /// Adds an event to the hash.
    pub fn note(&mut self, at: u64, kind: u64, node: u64, a: u64, b: u64) {
        self.events += 1;
        for word in [at, kind, node, a, b] {
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
