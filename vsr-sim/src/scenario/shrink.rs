//! Reduces a failing run to a scenario: fewer replicas, clients and requests, fewer faults, the same failure.
//!
//! Faults are keyed by what they happen to, so that leaving some out leaves the others what they were; those that remain are found
//! by delta debugging (Zeller and Hildebrandt, 2002).

use std::fmt::Write;

use super::base;
use super::parse::write_fault;
use crate::faults::{Fault, TimedFault};
use crate::options::{DelayShape, Limits, Options};
use crate::report::Verdict;
use crate::run::Simulation;
use crate::workload::{Registers, Simulated, machine_name};

/// How long shrinking may take.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs at most.
    pub runs: usize,
    /// Runs in the neighbourhood (other delays) that are tried for a candidate which no longer fails.
    pub salts: u64,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort { runs: 3000, salts: 2 }
    }
}

/// A failing run, reduced.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The scenario file, that fails in the same way.
    pub text: String,
    /// How it fails.
    pub verdict: Verdict,
    /// Faults that are left.
    pub faults: usize,
    /// Faults that there were.
    pub faults_before: usize,
    /// Runs that it took.
    pub runs: usize,
}

impl Shrunk {
    /// Lines of the scenario, without its comments.
    #[must_use]
    pub fn lines(&self) -> usize {
        lines_of(&self.text)
    }
}

/// Lines of a scenario, without its comments.
pub(crate) fn lines_of(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

/// Operations of clients that a scenario shows.
const SHOWN_MAX: usize = 40;

struct Shrinker<'a, S: Simulated> {
    simulation: Simulation<S>,
    class: &'static str,
    effort: Effort,
    runs: usize,
    best: Candidate,
    progress: &'a mut dyn FnMut(usize, usize),
}

#[derive(Clone)]
struct Candidate {
    options: Options,
    faults: Vec<Fault>,
    verdict: Verdict,
    operations: Vec<String>,
}

/// Reduces the failure of a simulation; `None` when it does not fail. `progress` is told the runs so far and the faults left.
pub fn shrink<S: Simulated>(
    simulation: &Simulation<S>,
    effort: Effort,
    mut progress: impl FnMut(usize, usize),
) -> Option<Shrunk> {
    let first = simulation.clone().run();
    if !first.verdict.is_failure() {
        return None;
    }
    let class = first.verdict.class();
    let faults_before = first.faults.len();
    let seed = simulation.options.seed;
    let best = Candidate {
        options: first.options.without_faults(),
        faults: first.faults,
        verdict: first.verdict,
        operations: first.operations,
    };
    let mut shrinker =
        Shrinker { simulation: simulation.clone(), class, effort, runs: 1, best, progress: &mut progress };
    shrinker.cut_after_the_failure();
    // Each success makes room for others.
    loop {
        let before = shrinker.size();
        shrinker.smaller_load();
        shrinker.fewer_faults();
        shrinker.simpler_world();
        if shrinker.size() >= before || shrinker.is_tired() {
            break;
        }
    }
    let Shrinker { best, runs, .. } = shrinker;
    let text = text_of(&best, seed, &machine_name::<S>());
    Some(Shrunk { text, verdict: best.verdict, faults: best.faults.len(), faults_before, runs })
}

impl<S: Simulated> Shrinker<'_, S> {
    fn size(&self) -> (usize, usize, u32) {
        let Options { replicas, clients, rogues, requests, .. } = self.best.options;
        (self.best.faults.len(), replicas + clients + rogues, requests)
    }

    fn is_tired(&self) -> bool {
        self.runs >= self.effort.runs
    }

    /// Runs a candidate; whether it fails in the same way, and so is the best now.
    fn attempt(&mut self, options: &Options, faults: &[Fault]) -> bool {
        for salt in 0..=self.effort.salts {
            if self.is_tired() {
                return false;
            }
            let mut options = options.clone();
            // The faults stay what they are; only what is between them moves.
            options.seed = options.seed.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            self.runs += 1;
            (self.progress)(self.runs, self.best.faults.len());
            let simulation = Simulation { options: options.clone(), ..self.simulation.clone() };
            let report = simulation.faults(faults.to_vec()).run();
            if report.verdict.is_failure() && report.verdict.class() == self.class {
                // Faults that came to nothing, or after the failure, are not among those that happened.
                let faults = faults.iter().filter(|fault| report.faults.contains(fault)).cloned().collect();
                self.best = Candidate { options, faults, verdict: report.verdict, operations: report.operations };
                return true;
            }
        }
        false
    }

    fn attempt_options(&mut self, change: impl Fn(&mut Options)) -> bool {
        let mut options = self.best.options.clone();
        change(&mut options);
        let faults = self.best.faults.clone();
        options != self.best.options && options.validate().is_ok() && self.attempt(&options, &faults)
    }

    fn cut_after_the_failure(&mut self) {
        let (options, faults) = (self.best.options.clone(), self.best.faults.clone());
        self.attempt(&options, &faults);
        if let Verdict::Safety(violation) = &self.best.verdict {
            let ends = std::time::Duration::from_nanos(violation.at + 1_000_000);
            self.attempt_options(|options| options.safety = options.safety.min(ends));
        }
    }

    fn smaller_load(&mut self) {
        self.attempt_options(|options| options.handles = false);
        self.attempt_options(|options| options.queries_percent = 0);
        self.attempt_options(|options| options.rogues = 0);
        while self.best.options.clients > 1 && self.attempt_options(|options| options.clients -= 1) {}
        while self.best.options.requests > 1 && self.attempt_options(|options| options.requests /= 2) {}
        while self.best.options.requests > 1 && self.attempt_options(|options| options.requests -= 1) {}
        while self.best.options.replicas > 3 && self.attempt_options(|options| options.replicas -= 1) {}
        if self.attempt_options(|options| options.limits.quorums = None) {
            while self.best.options.replicas > 3 && self.attempt_options(|options| options.replicas -= 1) {}
        }
    }

    fn simpler_world(&mut self) {
        let calm = base(self.best.options.replicas);
        self.attempt_options(|options| (options.skew_max, options.drift_max) = (calm.skew_max, calm.drift_max));
        self.attempt_options(|options| options.wire = false);
        self.attempt_options(|options| options.link_max = 0);
        self.attempt_options(|options| options.delay_shape = DelayShape::LongTail);
        self.attempt_options(|options| {
            (options.write_min, options.write_spread) = (calm.write_min, calm.write_spread);
        });
        self.attempt_options(|options| {
            (options.delay_min, options.delay_spread) = (calm.delay_min, calm.delay_spread);
        });
        self.attempt_options(|options| {
            (options.pipeline_max, options.window) = (calm.pipeline_max, calm.window);
        });
        self.attempt_options(|options| options.sessions_max = calm.sessions_max);
        self.attempt_options(|options| {
            (options.core_loss, options.core_delay) = (calm.core_loss, calm.core_delay);
        });
        self.attempt_options(|options| options.limits = Limits { quorums: options.limits.quorums, ..calm.limits });
        self.attempt_options(|options| options.limits.timing = calm.limits.timing);
    }

    /// Delta debugging: without ever smaller parts of what is left.
    fn fewer_faults(&mut self) {
        if self.attempt(&self.best.options.clone(), &[]) {
            return;
        }
        let mut parts = 2;
        while self.best.faults.len() > 1 && !self.is_tired() {
            let (options, faults) = (self.best.options.clone(), self.best.faults.clone());
            let size = faults.len().div_ceil(parts);
            let reduced = (0..faults.len()).step_by(size).any(|from| {
                let to = (from + size).min(faults.len());
                let rest = [&faults[..from], &faults[to..]].concat();
                self.attempt(&options, &rest)
            });
            if reduced {
                parts = (parts - 1).max(2);
            } else if size == 1 {
                break;
            } else {
                parts = (parts * 2).min(faults.len());
            }
        }
    }
}

fn text_of(candidate: &Candidate, seed: u64, machine: &str) -> String {
    let Candidate { options, faults, verdict, operations } = candidate;
    let mut text = format!("# Seed {seed}, shrunk. {verdict}\n");
    if machine != machine_name::<Registers>() {
        let _ = writeln!(text, "machine {machine}");
    }
    let plain = base(options.replicas);
    let _ = write!(text, "cluster {} clients={} requests={}", options.replicas, options.clients, options.requests);
    if options.queries_percent > 0 {
        let _ = write!(text, " queries={}", options.queries_percent);
    }
    if options.handles {
        let _ = write!(text, " handles=true");
    }
    for (name, value) in options.pairs(&plain) {
        let _ = write!(text, " {name}={value}");
    }
    text.push('\n');
    let mut faults = faults.clone();
    // Those with a moment in order, each of the others as its own line before them.
    faults.sort_by_key(|fault| match fault {
        Fault::At(at, TimedFault::Restart(_)) => (1, *at, 1),
        Fault::At(at, _) => (1, *at, 0),
        _ => (0, 0, 0),
    });
    for fault in &faults {
        let _ = writeln!(text, "{}", write_fault(fault, options.replicas));
    }
    // What the workload draws is not for a person to guess.
    for operation in operations.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "# {operation}");
    }
    if operations.len() > SHOWN_MAX {
        let _ = writeln!(text, "# and {} more", operations.len() - SHOWN_MAX);
    }
    text.push_str("load\ngo\n");
    text
}
