//! A deterministic simulator for `vsr`: the production replica, with your state machine in it, on seeded storage, network and clock.
//!
//! A *seed* is a number that decides a whole run: the size of the cluster, what its clients do, which faults come and when. All
//! replicas and clients of a run are futures on one thread, time is a number that jumps to the next thing that happens, and every
//! random draw is a hash of the seed and of what it is for. So a seed does the same on every machine, a run of minutes takes
//! milliseconds, and a failure can be reduced. After every event some thirty checkers look at the replicas, their disks and their
//! messages.
//!
//! # A first test
//!
//! [`simulate`] takes a state machine and its load, and [`check`](SimTest::check) runs thirty seeds and panics at the first that
//! fails:
//!
//! ```
//! use std::io::Read;
//! use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};
//! use vsr_sim::{Step, simulate};
//!
//! #[derive(Default)]
//! struct Counter(i64);
//!
//! impl StateMachine for Counter {
//!     type Command = i64;
//!     type Reply = i64;
//!     type Query = ();
//!     type Answer = i64;
//!
//!     fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 {
//!         self.0 += n;
//!         self.0
//!     }
//!     fn query(&self, _: &QueryContext, (): ()) -> i64 {
//!         self.0
//!     }
//!     fn snapshot(&self) -> Snapshot {
//!         Snapshot::of(self.0)
//!     }
//!     fn restore(from: &mut dyn Read) -> Result<Counter, RestoreError> {
//!         Snapshot::read(from).map(Counter)
//!     }
//!     // Optional: with it, states are compared after every op, and not only replies.
//!     fn digest(&self) -> Option<Checksum> {
//!         Some(Checksum::of(&self.0.to_le_bytes()))
//!     }
//! }
//!
//! simulate(Counter::default, |random| match random.below(4) {
//!     0 => Step::Query(()),
//!     _ => Step::Command(random.below(10) as i64),
//! })
//! .seeds(0..3) // 0..30 if nothing is said
//! .options(|options| options.requests = 20) // what a seed draws may be changed
//! .check();
//! ```
//!
//! The load is called for each step of a client; it must draw from `random` alone. The requirements of [`Simulated`] (commands that
//! can be cloned, replies that can be compared) are met by most machines as they are. Whether a machine computes the same
//! everywhere can be asked without a cluster, too: [`conformance::determinism`].
//!
//! # Your own storage or network inside
//!
//! [`Simulation`] is one run, and [`SimTest`] has the same methods: [`storage`](Simulation::storage) puts a storage of yours under
//! the replicas, on a simulated disk of files ([`files::SimFolder`]), and [`network`](Simulation::network) lets replicas and clients
//! talk through a network of yours, on a simulated socket ([`SimSocket`]). Both run their own code, without threads, under the same
//! faults:
//!
//! ```
//! use std::time::Duration;
//! use vsr_sim::files::file_storage;
//! use vsr_sim::{Options, Registers, Simulation, Verdict};
//!
//! // Three replicas of the simulator's own machine, which crash about once a second.
//! let options = Options { crash_every: Duration::from_secs(1), ..Options::calm(1, 3) };
//! let report = Simulation::with_queries(options, Registers::default, Registers::step)
//!     .storage(file_storage) // any function from a `SimFolder` to a `vsr::Storage`
//!     .run();
//! assert_eq!(report.verdict, Verdict::Pass);
//! ```
//!
//! Before that, the contract alone: [`storage_conformance!`], [`network_conformance!`] and [`clock_conformance!`] are test suites
//! with a test for each clause, and [`files::Torture`] harms the files of a storage at every point of every write.
//!
//! # Reading a failure
//!
//! A failure is a [`Verdict`]: the property that broke, and one sentence with the replica and both values.
//! [`check`](SimTest::check) reduces the run to a scenario with the same failure and leaves two files in `target/vsr-sim`: the
//! scenario, and a page for a browser with a lane for each replica and client. Read the sentence, then the scenario, then look on
//! the page at what the replica in question knew.
//!
//! - `safety`: a checker refused something; [`check`](mod@check) lists them all. `equal-state-after-equal-ops` and
//!   `one-reply-per-command` mostly mean that the state machine is not deterministic, and the message says so.
//! - `liveness`: every replica of a core was healed, and it does not serve, or not within its [budget](report::budget). The message
//!   says what each replica waits for.
//! - `crash`: something panicked.
//! - `unrecoverable` is no failure: the faults have taken the last copy of something that may be committed, and to wait is right.
//!
//! # Seeds, scenarios, scripts
//!
//! | what | how | when |
//! |---|---|---|
//! | a seed | [`run_seed`], `vsr-sim 42`, `vsr-sim --seeds 0..10000` | to find what is not known; a seed is good for one commit only |
//! | a reduced run | [`scenario::shrink`], `vsr-sim shrink 42` | to understand a seed that fails |
//! | a scenario | [`scenario`], [`SimTest::play`], `vsr-sim run FILE` | to keep it: a text file that says what happens and what is to come of it |
//! | a script | [`script`] | on the protocol alone, in Rust: every message and write happens when the test says so; messages can be forged |
//! | every schedule | [`explore`], `vsr-sim explore` | of very small clusters |
//! | a recorded history | [`history`], `vsr-sim check-history FILE` | of a system outside the simulator |
//!
//! The program `vsr-sim` is the feature `cli`, which is on by default; a test does without it
//! (`vsr-sim = { …, default-features = false }`).
//!
//! # The modules, in the order to read them
//!
//! Each uses only those before it; `tests/layout.rs` keeps it so.
//!
//! | module | what is in it |
//! |---|---|
//! | `workload` | [`Simulated`], [`Step`], and the simulator's own machine, [`Registers`] |
//! | [`faults`] | the kinds of faults as values, the plan of a run, and the atlas of what may be damaged |
//! | `options` | [`Options`] and [`Limits`]: what a seed draws |
//! | [`conformance`] | the contracts of the traits as tests |
//! | [`files`] | simulated disks: of entries ([`SimDisk`]), or of files under a storage's own code |
//! | `harness` | one protocol core moved by hand, without the driver: what `explore` and scripts run |
//! | [`check`](mod@check) | the checkers, one small type for each property |
//! | [`report`] | what comes of a run: verdict, trace, timeline, pages, budgets |
//! | [`explore`] | every schedule of a small cluster, up to stated bounds |
//! | [`history`] | whether a recorded history is linearizable |
//! | `world` | one value that owns time, messages in flight, disks, links and clocks; the traits of `vsr` on it |
//! | [`run`] | replicas, clients and faults in that world: [`Simulation`] |
//! | [`scenario`] | schedules as text files and as Rust; shrinking |
//! | `test` | [`simulate`], for tests of a state machine |
//!
//! Rules are those of `docs/protocol.md` in the repository: `rule 7.5 c` in a comment is part c of rule 7.5 there.

pub mod check;
pub mod conformance;
pub mod explore;
pub mod faults;
pub mod files;
mod harness;
pub mod history;
mod options;
pub mod report;
pub mod run;
pub mod scenario;
mod test;
mod workload;
mod world;

pub use faults::Damage;
pub use files::SimDisk;
pub use options::{DelayShape, Limits, Options, Ppm};
pub use report::{Detail, Report, Trace, Verdict};
pub use run::{CrossCheck, Simulation, cross_check};
pub use scenario::script;
pub use test::{SimFailure, SimReport, SimTest, simulate};
pub use workload::{Change, Registers, Replied, Simulated, Step};
pub use world::{SimSocket, SocketEvent};

/// The run of a seed, with the simulator's own state machine.
#[must_use]
pub fn simulation_of(seed: u64) -> Simulation<Registers> {
    simulation_with(Options::from_seed(seed))
}

/// A run with these options, with the simulator's own state machine.
#[must_use]
pub fn simulation_with(options: Options) -> Simulation<Registers> {
    Simulation::with_queries(options, Registers::default, Registers::step)
}

/// Runs a seed with the simulator's own state machine.
#[must_use]
pub fn run_seed(seed: u64, detail: Detail) -> Report {
    simulation_of(seed).detail(detail).run()
}
