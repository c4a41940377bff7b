//! The counter of the examples, and a defect in it, through the determinism check.

use std::io::Read;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};
use vsr::protocol::Random;
use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};
use vsr_sim::conformance::determinism::{DeterminismOptions, NotDeterministic, check_determinism, log_digest};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counter(i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Add(i64);

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

fn add(random: &mut Random) -> Add {
    Add(random.below(100) as i64)
}

#[test]
fn the_counter_is_deterministic() {
    for seed in 0..10 {
        let options = DeterminismOptions { seed, ..DeterminismOptions::default() };
        check_determinism(Counter::default, add, &options).expect("a deterministic machine");
    }
}

/// The number is the same in debug and release, on every machine: whatever changes it parts replicas of two builds.
#[test]
fn this_build_applies_the_log_as_every_other_one_does() {
    let number = log_digest(Counter::default(), add, &DeterminismOptions::default()).expect("a number");
    assert_eq!(number.to_string(), "12a228ed");
}

#[test]
fn the_default_machine_of_the_simulator_is_deterministic() {
    let change = |random: &mut Random| loop {
        if let vsr_sim::Step::Command(change) = vsr_sim::Registers::step(random, 0) {
            break change;
        }
    };
    check_determinism(vsr_sim::Registers::default, change, &DeterminismOptions::default()).expect("determinism");
}

/// A counter that adds what it finds outside of itself.
#[derive(Default)]
struct Distracted(Counter);

static ELSEWHERE: AtomicI64 = AtomicI64::new(0);

impl StateMachine for Distracted {
    type Command = Add;
    type Reply = i64;
    type Query = ();
    type Answer = i64;

    fn apply(&mut self, context: &ApplyContext, Add(n): Add) -> i64 {
        // Only now and then, and the reply does not show it.
        let more = if n == 99 { ELSEWHERE.fetch_add(1, Ordering::Relaxed) } else { 0 };
        self.0.apply(context, Add(n + more));
        n
    }

    fn query(&self, context: &QueryContext, (): ()) -> i64 {
        self.0.query(context, ())
    }

    fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    fn restore(from: &mut dyn Read) -> Result<Distracted, RestoreError> {
        Counter::restore(from).map(Distracted)
    }

    fn digest(&self) -> Option<Checksum> {
        self.0.digest()
    }
}

#[test]
fn a_machine_that_looks_elsewhere_is_found_with_op_and_both_digests() {
    let found = check_determinism(Distracted::default, add, &DeterminismOptions::default());
    let Err(NotDeterministic::Diverged { position, command, replies, digests, restored: None }) = &found else {
        panic!("{found:?}");
    };
    assert_eq!(command, "Add(99)");
    assert_eq!(replies[0], replies[1], "only the digest can tell");
    assert_ne!(digests[0], digests[1]);
    let text = found.as_ref().expect_err("it was found").to_string();
    assert!(text.starts_with(&format!("op {position}: Add(99)")), "{text}");
    assert!(digests.iter().all(|digest| text.contains(&digest.to_string())), "{text}");
}
