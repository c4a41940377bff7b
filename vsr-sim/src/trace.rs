//! What happened in a run: a rolling hash over every event, counters, and lines for a person.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The record of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    counters: BTreeMap<&'static str, u64>,
    lines: Vec<String>,
    detail: Detail,
}

/// How much is kept for a person to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Hash and counters.
    #[default]
    Counters,
    /// A line for each interesting event.
    Events,
    /// A line for each message, too.
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
        self.add(name, 1);
    }

    /// Counts several.
    pub fn add(&mut self, name: &'static str, more: u64) {
        *self.counters.entry(name).or_default() += more;
    }

    /// A line about an interesting event; the closure runs only when such lines are kept.
    pub fn line(&mut self, at: u64, text: impl FnOnce() -> String) {
        self.line_of(Detail::Events, at, text);
    }

    /// A line about a message, or about something as frequent.
    pub fn fine_line(&mut self, at: u64, text: impl FnOnce() -> String) {
        self.line_of(Detail::Messages, at, text);
    }

    fn line_of(&mut self, detail: Detail, at: u64, text: impl FnOnce() -> String) {
        if self.detail >= detail {
            let mut line = String::new();
            let _ = write!(line, "{:>5}.{:06} s  {}", at / 1_000_000_000, at / 1_000 % 1_000_000, text());
            self.lines.push(line);
        }
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
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// All counters, by name.
    #[must_use]
    pub fn counters(&self) -> &BTreeMap<&'static str, u64> {
        &self.counters
    }

    /// The lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
