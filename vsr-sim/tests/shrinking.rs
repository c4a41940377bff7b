//! A failure ends as a short scenario that fails in the same way.

use std::io::Read;

use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};
use vsr_sim::scenario::Failure;
use vsr_sim::{Step, simulate};

/// Adds what it is told; the second command of an op is added twice.
#[derive(Clone, Default)]
struct Hasty(u64);

impl StateMachine for Hasty {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, context: &ApplyContext, more: u64) -> u64 {
        self.0 += if context.position.index == 1 { 2 * more } else { more };
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0)
    }

    fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> {
        Snapshot::read(from).map(Hasty)
    }

    fn digest(&self) -> Option<Checksum> {
        Some(Checksum::of(&self.0.to_le_bytes()))
    }
}

/// What it should have been.
struct Sum(u64);

impl vsr_sim::check::linearizability::ReferenceModel<u64, u64, (), u64> for Sum {
    fn apply(&mut self, more: &u64) -> u64 {
        self.0 += more;
        self.0
    }

    fn query(&self, (): &()) -> u64 {
        self.0
    }
}

#[test]
fn a_bug_that_needs_two_commands_in_an_op_ends_as_a_short_scenario_that_still_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let trial =
        simulate(Hasty::default, |random| Step::Command(1 + random.below(5))).model(|| Sum(0)).output(folder.path());
    let failed = trial.run().expect_err("the model disagrees");
    assert_eq!(failed.verdict.class(), "linearizable", "{failed}");
    assert!(failed.lines <= 30, "{}", failed.text);
    let text = std::fs::read_to_string(&failed.scenario).expect("the scenario was written");
    assert_eq!(text, failed.text);
    // It is for this machine only, and shows what was asked.
    assert!(text.lines().any(|line| line == "machine Hasty"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("# c0 asks ") && line.contains(", hears ")), "{text}");
    let elsewhere = vsr_sim::scenario::play(&text).failure;
    assert!(matches!(&elsewhere, Some(Failure::Unreadable { why, .. }) if why.contains("Hasty")), "{elsewhere:?}");
    assert!(failed.repeats && failed.to_string().starts_with("seed "), "{failed}");
    let played = trial.play(&text);
    assert!(matches!(played.failure, Some(Failure::Violated { class: "linearizable", .. })), "{:?}", played.failure);
    let page = std::fs::read_to_string(&failed.picture).expect("the picture was written");
    assert!(page.contains("<canvas") && page.contains("linearizable"));
}

#[test]
fn a_machine_without_a_bug_passes_with_its_model_and_its_invariant() {
    let passed = simulate(|| Hasty(0), |random| Step::Command(random.below(5)))
        .options(|options| {
            (options.pipeline_max, options.window, options.requests, options.clients, options.handles) =
                (1, 1, 40, 1, false)
        })
        .invariant("never-odd-out", |machine| if machine.0 < 1_000_000 { Ok(()) } else { Err(machine.0.to_string()) })
        .seeds(0..5)
        .run();
    assert!(passed.is_ok_and(|passed| passed.seeds + passed.unrecoverable == 5));
}

#[test]
fn an_invariant_that_breaks_is_named_with_the_replica_and_the_position() {
    let folder = tempfile::tempdir().expect("a folder");
    let failed = simulate(Hasty::default, |random| Step::Command(1 + random.below(5)))
        .without_model()
        .invariant(
            "below-fifty",
            |machine| if machine.0 < 50 { Ok(()) } else { Err(format!("{} is too much", machine.0)) },
        )
        .output(folder.path())
        .run()
        .expect_err("it breaks");
    let sentence = failed.verdict.to_string();
    assert!(sentence.starts_with("below-fifty: at ") && sentence.contains("is too much"), "{sentence}");
    assert!(failed.lines <= 10, "{}", failed.text);
}

/// Answers with a number of its own, that no other run has.
#[derive(Clone, Default)]
struct Moody(u64);

static MOODS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

impl StateMachine for Moody {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &ApplyContext, more: u64) -> u64 {
        self.0 += more;
        MOODS.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0)
    }

    fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> {
        Snapshot::read(from).map(Moody)
    }
}

#[test]
fn of_a_machine_that_is_not_deterministic_the_first_words_are_that_the_run_does_not_repeat() {
    let folder = tempfile::tempdir().expect("a folder");
    let trial =
        simulate(Moody::default, |random| Step::Command(1 + random.below(5))).seeds(0..10).output(folder.path());
    let failed = trial.run().expect_err("no two replicas reply the same");
    assert!(!failed.repeats && failed.to_string().starts_with("the run does not repeat"), "{failed}");
    // What was asked and answered, not the checksums of it.
    let sentence = failed.verdict.to_string();
    assert!(sentence.contains("was answered") && !sentence.contains("digest"), "{sentence}");
}

#[test]
fn a_scenario_without_a_machine_is_not_for_another_one_than_the_simulators_own() {
    let trial = simulate(Hasty::default, |random| Step::Command(random.below(5)));
    let why = trial.play("cluster 3\nload\ngo\n").failure;
    assert!(
        matches!(&why, Some(Failure::Unreadable { line: 1, why }) if why.contains("write `machine Hasty`")),
        "{why:?}"
    );
    assert_eq!(trial.play("machine Hasty\ncluster 3 requests=5\ntick 10ms\n").failure, None);
}
