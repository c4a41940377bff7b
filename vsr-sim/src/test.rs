//! A user's state machine in the hostile world, in one test.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vsr::protocol::Random;
use vsr::storage::StorageError;
use vsr::{Network, Storage};

use crate::check::linearizability::ReferenceModel;
use crate::files::SimFolder;
use crate::options::Options;
use crate::report::{Detail, Report, Verdict, render};
use crate::run::{DIFFERS, Simulation};
use crate::scenario::Played;
use crate::scenario::shrink::{Effort, lines_of, shrink};
use crate::workload::{Simulated, Step};
use crate::world::SimSocket;

/// A test of a state machine: see [`simulate`].
pub struct SimTest<S: Simulated> {
    simulation: Simulation<S>,
    seeds: Range<u64>,
    tune: Arc<dyn Fn(&mut Options) + Send + Sync>,
    effort: Effort,
    folder: PathBuf,
}

/// What the seeds of a test came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimReport {
    /// Seeds that passed.
    pub seeds: u64,
    /// Seeds whose faults took the last intact copy of something: waiting was right.
    pub unrecoverable: u64,
    /// Requests that were answered.
    pub acknowledged: u64,
}

/// The first seed of a test that failed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}seed {seed}: {}: {verdict}\n  scenario: {} ({lines} lines)\n  picture: {}",
    if *repeats { "" } else { DOES_NOT_REPEAT }, verdict.name(), scenario.display(), picture.display()
)]
pub struct SimFailure {
    /// The seed.
    pub seed: u64,
    /// Whether the run repeats: no, when the state machine makes something else of the same commands. Then nothing that is
    /// said of the run, the scenario and the picture has to be so in another one.
    pub repeats: bool,
    /// What went wrong, in the reduced run.
    pub verdict: Verdict,
    /// The scenario that still fails, as text; [`SimTest::play`] plays it.
    pub text: String,
    /// Its lines, without comments.
    pub lines: usize,
    /// Where it was written.
    pub scenario: PathBuf,
    /// Where the picture of it was written: a page for a browser.
    pub picture: PathBuf,
}

const DOES_NOT_REPEAT: &str = "the run does not repeat: the state machine is not deterministic, it makes something else of the same \
    commands (a clock, a random number, the order of a HashMap, something outside of it); check_determinism looks for it without \
    a cluster\n";

/// Simulates clusters of a state machine under a load, with the faults that seeds draw, and checks every property: nothing
/// acknowledged is lost, everything is executed exactly once and in one order, what clients see is linearizable, and all replicas
/// compute the same. The load draws one step of a client at a time.
///
/// ```
/// # use std::io::Read;
/// # use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};
/// # #[derive(Default)]
/// # struct Tally(u64);
/// # impl StateMachine for Tally {
/// #     type Command = u64;
/// #     type Reply = u64;
/// #     type Query = ();
/// #     type Answer = u64;
/// #     fn apply(&mut self, _: &ApplyContext, more: u64) -> u64 { self.0 += more; self.0 }
/// #     fn query(&self, _: &QueryContext, (): ()) -> u64 { self.0 }
/// #     fn snapshot(&self) -> Snapshot { Snapshot::of(self.0) }
/// #     fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> { Snapshot::read(from).map(Tally) }
/// #     fn digest(&self) -> Option<Checksum> { Some(Checksum::of(&self.0.to_le_bytes())) }
/// # }
/// use vsr_sim::{Step, simulate};
///
/// simulate(Tally::default, |random| match random.below(4) {
///     0 => Step::Query(()),
///     _ => Step::Command(random.below(10)),
/// })
/// .seeds(0..5)
/// .invariant("stays-small", |tally| if tally.0 < 1_000_000 { Ok(()) } else { Err(format!("{}", tally.0)) })
/// .check();
/// ```
///
/// A machine that does not compute the same everywhere is caught, with the op, the command and its replies; the first words are
/// that its runs do not repeat:
///
/// ```
/// # use std::io::Read;
/// # use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// static CALLS: AtomicU64 = AtomicU64::new(0);
///
/// /// Counts its calls in a static: in the process, not in the replica.
/// #[derive(Default)]
/// struct Shared(u64);
///
/// impl StateMachine for Shared {
///     // …
/// #   type Command = ();
/// #   type Reply = ();
/// #   type Query = ();
/// #   type Answer = ();
///     fn apply(&mut self, _: &ApplyContext, (): ()) {
///         self.0 = CALLS.fetch_add(1, Ordering::Relaxed);
///     }
/// #   fn query(&self, _: &QueryContext, (): ()) {}
/// #   fn snapshot(&self) -> Snapshot { Snapshot::of(self.0) }
/// #   fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> { Snapshot::read(from).map(Shared) }
///     fn digest(&self) -> Option<Checksum> {
///         Some(Checksum::of(&self.0.to_le_bytes()))
///     }
/// }
///
/// use vsr_sim::{Step, simulate};
/// let failed = simulate(Shared::default, |_| Step::Command(())).seeds(0..10).run().unwrap_err();
/// assert_eq!(failed.verdict.class(), "equal-state-after-equal-ops");
/// assert!(failed.to_string().starts_with("the run does not repeat"), "{failed}");
/// let sentence = failed.verdict.to_string();
/// assert!(sentence.contains("after op") && sentence.contains("() was answered ()"), "{sentence}");
/// ```
pub fn simulate<S: Simulated>(
    machine: impl Fn() -> S + Send + Sync + 'static,
    workload: impl Fn(&mut Random) -> Step<S::Command, S::Query> + Send + Sync + 'static,
) -> SimTest<S> {
    SimTest {
        simulation: Simulation::new(Options::calm(0, 3), machine, workload),
        seeds: 0..30,
        tune: Arc::new(|options| options.requests = options.requests.min(300 / options.clients as u32)),
        effort: Effort { runs: 600, ..Effort::default() },
        folder: target_folder().join("vsr-sim"),
    }
}

impl<S: Simulated> SimTest<S> {
    /// Which seeds; 0 to 29 if none are given.
    #[must_use]
    pub fn seeds(mut self, seeds: Range<u64>) -> SimTest<S> {
        self.seeds = seeds;
        self
    }

    /// Something that must hold of the state machine after every command, on every replica.
    #[must_use]
    pub fn invariant(
        mut self,
        name: &'static str,
        holds: impl Fn(&S) -> Result<(), String> + Send + Sync + 'static,
    ) -> SimTest<S> {
        self.simulation = self.simulation.invariant(name, holds);
        self
    }

    /// Compares replies and answers with this model, not with another instance of the state machine.
    #[must_use]
    pub fn model<M>(mut self, model: impl Fn() -> M + Send + Sync + 'static) -> SimTest<S>
    where
        M: ReferenceModel<S::Command, S::Reply, S::Query, S::Answer> + 'static,
    {
        self.simulation = self.simulation.model(model);
        self
    }

    /// Compares replies and answers with nothing: the order of operations is still checked.
    #[must_use]
    pub fn without_model(mut self) -> SimTest<S> {
        self.simulation = self.simulation.without_model();
        self
    }

    /// As [`Simulation::storage`].
    #[must_use]
    pub fn storage<D: Storage>(
        mut self,
        open: impl Fn(SimFolder) -> Result<D, StorageError> + Send + Sync + 'static,
    ) -> SimTest<S> {
        self.simulation = self.simulation.storage(open);
        self
    }

    /// As [`Simulation::network`].
    #[must_use]
    pub fn network<N: Network>(mut self, network: impl Fn(SimSocket) -> N + Send + Sync + 'static) -> SimTest<S> {
        self.simulation = self.simulation.network(network);
        self
    }

    /// Changes what the seeds draw: a larger load, a class of faults off, a cluster of five.
    #[must_use]
    pub fn options(mut self, tune: impl Fn(&mut Options) + Send + Sync + 'static) -> SimTest<S> {
        self.tune = Arc::new(tune);
        self
    }

    /// How long a failure is reduced.
    #[must_use]
    pub fn effort(mut self, effort: Effort) -> SimTest<S> {
        self.effort = effort;
        self
    }

    /// Where the scenario and the picture of a failure go; `vsr-sim` in the target folder if nothing is said.
    #[must_use]
    pub fn output(mut self, folder: impl Into<PathBuf>) -> SimTest<S> {
        self.folder = folder.into();
        self
    }

    /// Runs the seeds, up to the first that fails.
    ///
    /// # Errors
    /// The first failure, reduced to a scenario, with its picture.
    pub fn run(&self) -> Result<SimReport, Box<SimFailure>> {
        let mut passed = SimReport::default();
        for seed in self.seeds.clone() {
            let mut options = Options::from_seed(seed);
            // The machine's commands and replies may be longer than the simulator's own.
            options.limits = options.limits.with_default_sizes(seed);
            (self.tune)(&mut options);
            let simulation = Simulation { options, ..self.simulation.clone() };
            let report = simulation.clone().run();
            passed.acknowledged += report.acknowledged;
            match report.verdict {
                Verdict::Pass => passed.seeds += 1,
                Verdict::Unrecoverable(_) => passed.unrecoverable += 1,
                _ => return Err(Box::new(self.reduce(&simulation, seed, report))),
            }
        }
        Ok(passed)
    }

    /// As [`run`](Self::run), for a test.
    ///
    /// # Panics
    /// With the first failure, and where its scenario and its picture are.
    pub fn check(&self) {
        if let Err(failed) = self.run() {
            panic!("{failed}");
        }
    }

    /// Plays a scenario on this state machine, with its load and its invariants.
    #[must_use]
    pub fn play(&self, text: &str) -> Played {
        self.simulation.play(text)
    }

    fn reduce(&self, simulation: &Simulation<S>, seed: u64, first: Report) -> SimFailure {
        let repeats = repeats(&first, &simulation.clone().run());
        let verdict = first.verdict;
        let shrunk = shrink(simulation, self.effort, |_, _| {});
        let (text, verdict) = shrunk.map_or((String::new(), verdict), |shrunk| (shrunk.text, shrunk.verdict));
        let name = format!("{}-seed-{seed}", verdict.class());
        let (scenario, picture) = (self.folder.join(format!("{name}.vsr")), self.folder.join(format!("{name}.html")));
        let mut played = Simulation { detail: Detail::Messages, ..simulation.clone() }.play(&text);
        let page = render::html(&played.report.timeline(&format!("play {} in a test", scenario.display())));
        // A folder that cannot be written is no reason to hide the failure.
        let _ = std::fs::create_dir_all(&self.folder);
        let _ = std::fs::write(&scenario, &text).and_then(|()| std::fs::write(&picture, page));
        SimFailure { seed, repeats, verdict, lines: lines_of(&text), text, scenario, picture }
    }
}

/// Whether two runs of the same options are the same, to the last reply. Replicas that differ on one command say that they are
/// not, too: what one run shows is chance.
fn repeats(first: &Report, second: &Report) -> bool {
    let differs = |verdict: &Verdict| match verdict {
        Verdict::Safety(violation) => {
            DIFFERS.contains(&violation.checker) && !violation.message.contains("session table")
        }
        _ => false,
    };
    first.verdict == second.verdict
        && first.trace.hash() == second.trace.hash()
        && first.operations == second.operations
        && !differs(&first.verdict)
}

/// Where this build puts things.
fn target_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("CARGO_TARGET_DIR") {
        return PathBuf::from(folder);
    }
    let here = std::env::current_dir().unwrap_or_default();
    let root = here.ancestors().find(|folder| folder.join("Cargo.lock").exists()).map(Path::to_path_buf);
    root.unwrap_or(here).join("target")
}
