//! Scenarios: schedules as text files, that tell a story, say what happens, and keep what came of it.
//!
//! ```text
//! # One of three dies, and nothing is lost.
//! cluster 3 clients=1
//! request c0 add 0 5
//! until c0 idle
//! >      3.2 ms  c0 hears 5 at 2.0
//! crash r0 lose-unsynced
//! until primary r1
//! settle
//! check
//! ```
//!
//! A line is a command, a comment (`#`), or, behind `>`, what the command before it is expected to show. A file without any such
//! line is only run. The production replica runs, as in every simulation; time passes only with `tick`, `until`, `settle` and `go`.
//!
//! | command | what it does |
//! |---|---|
//! | `machine NAME` | before `cluster`: the state machine that the scenario is for; the simulator's own when none is named; others refuse it |
//! | `cluster N [clients=N] [OPTION=VALUE…]` | the first command: a cluster of N, idle; the options are those that a seed draws; with a class of faults on, the seed draws them here, too |
//! | `request c0 add 1 5`, `write 1 5`, `cas 1 5 6`, `ballast 100`, `get 1` | a client, or the handle of a replica, submits |
//! | `load` | every client begins its `requests=` of the seed's workload |
//! | `tick 10ms` | time passes |
//! | `until CONDITION [within 5s]` | time passes until it holds; 20 s at most |
//! | `expect CONDITION` | it holds now; there is no `within` |
//! | `crash r1 [lose-unsynced, keep-unsynced, tear-unsynced=N]`, `restart r1` | the process |
//! | `pause r1`, `suspend r1`, `resume r1`, `skew-clock r1 +1h`, `leap-clock r1 5s` | process and clock |
//! | `partition r0 c0 \| rest`, `partition r0 > rest`, `cut r0>r1`, `cut r0\|r1`, `mend r0>r1`, `heal`, `clog r0>r1 1s`, `mute r1 PrepareOk 1s` | the network |
//! | `hold NAME FILTER`, `lose NAME FILTER` | messages that fit, as in `Prepare,Commit r0>* 7`, wait, or are lost |
//! | `release NAME`, `deliver NAME [TIMES]`, `stop NAME`, `forget NAME` | what waits arrives and the rule ends; arrives and is kept; the rule takes no more; all of it ends |
//! | `corrupt r2 op=7 [body, header, end]`, `stall-disk r1`, `release-disk r1`, `slow-disk r1 x50 1s`, `fill-disk r1 1s`, `no-space r1 1s`, `bad-sector r2 op=7 [puts=3]`, `wipe r1`, `recover r1`, `copy-disk r1`, `restore-disk r1`, `impostor r1 [copy, new, r2]` | the disk; a new one in the place of one that is gone or old; an older copy of it; a process that takes itself for r1, beside it, on a copy of its disk, on a new one, on that of r2 |
//! | `at 1.5s …` | any of these, later |
//! | `drop`, `again … after=3s`, `flip … bit=9`, `misdeliver … to=r2`, `crash-after` with `Prepare 7 r0>r1 [nth=2]` | one message |
//! | `write r1 5 crash, crash-after, fail, hang 1s, silent, misdirect op=3, vanish, sync-fails 1s`, `read r1 5 fail, astray` | one write or read |
//! | `maybe …` | one of the three above that need not come about; any other one that does not fails the scenario |
//! | `settle` | everything is healed; within twenty time-outs all replicas are normal, in one view, with equal logs |
//! | `go` | the rest of a run as of a seed: faults until the clients are done, then a core is healed, and must serve |
//! | `check` | what the clients saw is linearizable |
//! | `show` | the replicas, a line each |
//! | `trace quiet, events, messages` | how much is shown from here on |
//!
//! Conditions: `r1 normal, primary, backup, waiting, down`, `r1 view=1` (also `commit`, `head`, `applied`, and `>=`, `<=`), `c0 idle`,
//! `c0 waits`, `c0 heard TEXT` (a reply, `not executed`, or `nothing`), `done` (no client waits), `held NAME>=1`, `settled`, `views<=2`, `violation [NAME]`.

mod condition;
mod parse;
mod runner;
pub mod script;
pub mod shrink;
mod start;

use std::io;
use std::path::{Path, PathBuf};

use crate::options::Options;
use crate::report::Report;
use crate::workload::Step;

pub use self::start::play;

/// What a scenario came to.
#[derive(Debug)]
pub struct Played {
    /// The file with what it shows now.
    pub text: String,
    /// What went wrong first, with its line.
    pub failure: Option<Failure>,
    /// What the run was like.
    pub report: Report,
}

/// Why a scenario failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A line is not a command.
    #[error("line {line}: {why}")]
    Unreadable {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A condition did not come to hold, or a command could not be carried out.
    #[error("line {line}: {why}")]
    Unmet {
        /// The line, from 1.
        line: usize,
        /// What was there instead.
        why: String,
    },
    /// A property was broken.
    #[error("line {line}: {why}")]
    Violated {
        /// The line during which it was.
        line: usize,
        /// [`Verdict::class`](crate::Verdict::class).
        class: &'static str,
        /// The checker's words.
        why: String,
    },
    /// It shows something else than the file says.
    #[error("line {line}: {}", differs(expected, found))]
    Differs {
        /// The line.
        line: usize,
        /// What the file says.
        expected: String,
        /// What it shows.
        found: String,
    },
}

fn differs(expected: &str, found: &str) -> String {
    let quoted = |text: &str| if text.is_empty() { "nothing".to_owned() } else { format!("`{text}`") };
    let (expected, found) = (quoted(expected), quoted(found));
    format!("it shows {found}; the file says {expected}, and --rewrite keeps what it shows now")
}

impl Failure {
    /// The line at which it failed, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        match self {
            Failure::Unreadable { line, .. }
            | Failure::Unmet { line, .. }
            | Failure::Violated { line, .. }
            | Failure::Differs { line, .. } => *line,
        }
    }

    /// What is wrong, and what is allowed or was there instead.
    #[must_use]
    pub fn why(&self) -> String {
        match self {
            Failure::Unreadable { why, .. } | Failure::Unmet { why, .. } | Failure::Violated { why, .. } => why.clone(),
            Failure::Differs { expected, found, .. } => differs(expected, found),
        }
    }
}

type Speak<S> = fn(&str) -> Result<Step<<S as vsr::StateMachine>::Command, <S as vsr::StateMachine>::Query>, String>;

/// The cluster that scenarios begin with: everything takes the same time, every time.
#[must_use]
pub fn base(replicas: usize) -> Options {
    use std::time::Duration;
    Options {
        clients: 1,
        requests: 30,
        queries_percent: 0,
        delay_min: Duration::from_millis(1),
        delay_spread: Duration::ZERO,
        write_min: Duration::from_micros(200),
        write_spread: Duration::ZERO,
        safety: Duration::from_secs(30),
        ..Options::calm(0, replicas)
    }
}

/// The scenario files at a path: a file itself, or of a folder every file in it whose name ends in `.vsr`, at any depth, in the order
/// of their paths. An empty list if a folder has none.
///
/// # Errors
///
/// If a folder cannot be read. Whether a file can be read is not looked at.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut folders) = (Vec::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "vsr") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
