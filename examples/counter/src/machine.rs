//! The state machine: all that this example is about.

use std::io::Read;

use serde::{Deserialize, Serialize};
use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};

/// A number that grows.
///
/// In the simulator, under faults that thirty seeds draw:
///
/// ```
/// use counter::{Add, Counter};
/// use vsr_sim::{Step, simulate};
///
/// simulate(Counter::default, |random| match random.below(5) {
///     0 => Step::Query(()),
///     _ => Step::Command(Add(random.below(10) as i64)),
/// })
/// .invariant("never-negative", |counter| if *counter >= Counter::default() { Ok(()) } else { Err(format!("{counter:?}")) })
/// .check();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter(i64);

/// The one command: adds to the number, and replies the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Add(pub i64);

impl StateMachine for Counter {
    type Command = Add;
    type Reply = i64;
    type Query = ();
    type Answer = i64;

    fn apply(&mut self, _: &ApplyContext, Add(n): Add) -> i64 {
        self.0 = self.0.wrapping_add(n);
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> i64 {
        self.0
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0)
    }

    fn restore(from: &mut dyn Read) -> Result<Counter, RestoreError> {
        Snapshot::read(from).map(Counter)
    }

    fn digest(&self) -> Option<Checksum> {
        Some(Checksum::of(&self.0.to_le_bytes()))
    }
}
