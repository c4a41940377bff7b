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
    keep_lines: bool,
}

impl Trace {
    /// A record that keeps lines, or only hash and counters.
    #[must_use]
    pub fn new(keep_lines: bool) -> Trace {
        Trace { hash: 0x0076_7372, keep_lines, ..Trace::default() }
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

    /// A line for a person; the closure runs only when lines are kept.
    pub fn line(&mut self, at: u64, text: impl FnOnce() -> String) {
        if self.keep_lines {
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
