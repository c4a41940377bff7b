//! What came of a run: its verdict, what it counted, and what is kept of it for a person to read.

pub mod budget;
pub(crate) mod describe;
pub mod render;
pub mod timeline;
mod trace;
mod verdict;

use std::time::Duration;

use crate::faults::Fault;
use crate::options::Options;

use budget::Figures;
use describe::moment;
use timeline::{Breach, Lane, Record, Timeline};

pub(crate) use trace::TraceKind;
pub use trace::{Detail, Trace};
pub use verdict::Verdict;

/// What a run was like.
#[derive(Debug)]
pub struct Report {
    /// What the seed drew.
    pub options: Options,
    /// How it ended.
    pub verdict: Verdict,
    /// What happened.
    pub trace: Trace,
    /// Virtual time that passed.
    pub simulated: Duration,
    /// Requests that were answered.
    pub acknowledged: u64,
    /// Every fault that happened, in order: given to [`Simulation::faults`](crate::Simulation::faults), they make the same run.
    pub faults: Vec<Fault>,
    /// How long the healed core took, and what it cost.
    pub figures: Figures,
    /// What the clients asked and heard, a line for each, when the run has failed.
    pub operations: Vec<String>,
}

impl Report {
    /// What was kept of the run, in lines for a terminal.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let (records, replicas) = (self.trace.records(), self.options.replicas);
        let line = move |record| describe::line(record, records, replicas);
        records.iter().filter_map(move |record| Some(format!("{}  {}", moment(record.at), line(record)?)))
    }

    /// The run as a timeline, for pictures and exports. `repeat` is the command that makes it again.
    #[must_use]
    pub fn timeline(&mut self, repeat: &str) -> Timeline {
        let (options, verdict) = (&self.options, &self.verdict);
        let violation = match verdict {
            Verdict::Safety(violation) => Some((violation.at, violation.checker, violation.message.clone())),
            Verdict::Liveness(why) => Some((self.simulated.as_nanos() as u64, "liveness", why.clone())),
            Verdict::Crash(why) => Some((self.simulated.as_nanos() as u64, "crash", why.clone())),
            Verdict::Pass | Verdict::Unrecoverable(_) => None,
        };
        let counters = self.trace.counters();
        let records = self.trace.take_records();
        // Checkers name the replica in their sentence.
        let named = |message: &str| {
            let digits: String = message.strip_prefix('r')?.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().ok().filter(|lane| (*lane as usize) < options.replicas)
        };
        let violation = violation.map(|(at, checker, message)| {
            let lane = named(&message);
            let here = |record: &Record| record.at <= at && lane.is_none_or(|lane| lane == record.lane);
            let record = records.iter().rposition(here).and_then(|record| u32::try_from(record).ok());
            Breach { at, lane, checker: checker.to_owned(), message, record }
        });
        let lane = |name: String, replica: bool| Lane { name, replica };
        let replicas = (0..options.replicas).map(|at| lane(format!("r{at}"), true));
        let clients = (0..options.clients + options.rogues).map(|at| lane(format!("c{at}"), false));
        Timeline {
            title: format!("seed {} · {} replicas · {} clients", options.seed, options.replicas, options.clients),
            repeat: repeat.to_owned(),
            verdict: match verdict {
                Verdict::Pass => verdict.name().to_owned(),
                verdict => format!("{}: {verdict}", verdict.name()),
            },
            lanes: replicas.chain(clients).collect(),
            records,
            violation,
            counters: counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        }
    }
}
