//! A simulated cluster of anybody's state machine, and what a run of it came to.

use std::sync::Arc;
use std::time::Duration;

use vsr::protocol::Random;
use vsr::storage::StorageError;
use vsr::{Network, StateMachine, Storage};

use crate::budget::Figures;
use crate::check::Violation;
use crate::check::linearizability::Model;
use crate::describe::moment;
use crate::files::{Open, SimFolder};
use crate::machine::{Simulated, Step};
use crate::options::Options;
use crate::plan::Fault;
use crate::run::Run;
use crate::socket::{NetworkOf, SimSocket};
use crate::story::{Breach, Lane, Story};
use crate::trace::{Detail, Trace};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every property held, and every request was answered.
    Pass,
    /// A property was broken.
    Safety(Violation),
    /// The healed core did not serve, though it could.
    Liveness(String),
    /// Something panicked.
    Crash(String),
    /// The core is rightly stuck: it holds no intact copy of something that may be committed.
    Unrecoverable(String),
}

impl Verdict {
    /// One word for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Safety(_) => "safety",
            Verdict::Liveness(_) => "liveness",
            Verdict::Crash(_) => "crash",
            Verdict::Unrecoverable(_) => "unrecoverable",
        }
    }

    /// What was broken, without the particulars: two failures of one class are the same bug, as far as anybody can tell.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Verdict::Safety(violation) => violation.checker,
            verdict => verdict.name(),
        }
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(self, Verdict::Pass | Verdict::Unrecoverable(_))
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Pass => f.write_str("every property held, every request was answered"),
            Verdict::Safety(violation) => violation.fmt(f),
            Verdict::Liveness(why) | Verdict::Unrecoverable(why) => f.write_str(why),
            Verdict::Crash(panic) => write!(f, "a panic: {panic}"),
        }
    }
}

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
    /// Every fault that happened, in order: given to [`Simulation::faults`], they make the same run.
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
        let line = move |record| crate::describe::line(record, records, replicas);
        records.iter().filter_map(move |record| Some(format!("{}  {}", moment(record.at), line(record)?)))
    }

    /// The run as a story, for pictures and exports. `repeat` is the command that makes it again.
    #[must_use]
    pub fn story(&mut self, repeat: &str) -> Story {
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
            let here = |record: &crate::story::Record| record.at <= at && lane.is_none_or(|lane| lane == record.lane);
            let record = records.iter().rposition(here).and_then(|record| u32::try_from(record).ok());
            Breach { at, lane, checker: checker.to_owned(), message, record }
        });
        let lane = |name: String, replica: bool| Lane { name, replica };
        let replicas = (0..options.replicas).map(|at| lane(format!("r{at}"), true));
        let clients = (0..options.clients + options.rogues).map(|at| lane(format!("c{at}"), false));
        Story {
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

pub(crate) type Workload<S> =
    Arc<dyn Fn(&mut Random, u64) -> Step<<S as StateMachine>::Command, <S as StateMachine>::Query> + Send + Sync>;
/// What a user says must hold of every state.
pub(crate) type Invariant<S> = (&'static str, Arc<dyn Fn(&S) -> Result<(), String> + Send + Sync>);
pub(crate) type ModelOf<S> = Box<
    dyn Model<
            <S as StateMachine>::Command,
            <S as StateMachine>::Reply,
            <S as StateMachine>::Query,
            <S as StateMachine>::Answer,
        >,
>;

/// What replies and answers are compared with.
pub(crate) enum Judge<S: StateMachine> {
    /// Another instance of the state machine.
    Machine,
    /// Nothing.
    Nobody,
    /// A model of the user's.
    Model(Arc<dyn Fn() -> ModelOf<S> + Send + Sync>),
}

impl<S: StateMachine> Clone for Judge<S> {
    fn clone(&self) -> Self {
        match self {
            Judge::Machine => Judge::Machine,
            Judge::Nobody => Judge::Nobody,
            Judge::Model(make) => Judge::Model(make.clone()),
        }
    }
}

/// A simulated cluster of a user's state machine.
pub struct Simulation<S: Simulated> {
    pub(crate) options: Options,
    pub(crate) machine: Arc<dyn Fn() -> S + Send + Sync>,
    pub(crate) workload: Workload<S>,
    pub(crate) detail: Detail,
    pub(crate) faults: Option<Vec<Fault>>,
    pub(crate) invariants: Vec<Invariant<S>>,
    pub(crate) judge: Judge<S>,
    /// How storages are opened on simulated files, when they are the user's own.
    pub(crate) storage: Option<Open>,
    /// How networks are made on simulated sockets, when they are the user's own.
    pub(crate) network: Option<NetworkOf>,
}

impl<S: Simulated> Clone for Simulation<S> {
    fn clone(&self) -> Self {
        Simulation {
            options: self.options.clone(),
            machine: self.machine.clone(),
            workload: self.workload.clone(),
            detail: self.detail,
            faults: self.faults.clone(),
            invariants: self.invariants.clone(),
            judge: self.judge.clone(),
            storage: self.storage.clone(),
            network: self.network.clone(),
        }
    }
}

impl<S: Simulated> Simulation<S> {
    /// A run with these options of this machine, under this load.
    pub fn new(
        options: Options,
        machine: impl Fn() -> S + Send + Sync + 'static,
        workload: impl Fn(&mut Random) -> Step<S::Command, S::Query> + Send + Sync + 'static,
    ) -> Simulation<S> {
        Simulation::with_queries(options, machine, move |random, _| workload(random))
    }

    /// As [`new`](Self::new), for a load that is told how many queries, in percent, the options want in it.
    pub fn with_queries(
        options: Options,
        machine: impl Fn() -> S + Send + Sync + 'static,
        workload: impl Fn(&mut Random, u64) -> Step<S::Command, S::Query> + Send + Sync + 'static,
    ) -> Simulation<S> {
        Simulation {
            options,
            machine: Arc::new(machine),
            workload: Arc::new(workload),
            detail: Detail::Counters,
            faults: None,
            invariants: Vec::new(),
            judge: Judge::Machine,
            storage: None,
            network: None,
        }
    }

    /// Runs the replicas on this storage, on simulated files. It is called with a new disk once, to format it, and
    /// with the disk as it was left at each start of a replica. It must not wait for anything, and have no threads
    /// (see [`Inline`](crate::files::Inline)). Faults that damage entries damage sectors; whatever the storage says
    /// after a crash is held against the clauses of [`Storage`].
    #[must_use]
    pub fn storage<D: Storage>(
        mut self,
        open: impl Fn(SimFolder) -> Result<D, StorageError> + Send + Sync + 'static,
    ) -> Simulation<S> {
        self.storage = Some(Arc::new(move |folder| open(folder).map(|storage| Box::new(storage) as Box<dyn Storage>)));
        self
    }

    /// Lets replicas and clients talk through this network, on simulated sockets. It is called for every start of a
    /// replica and for every client, and must have no threads.
    #[must_use]
    pub fn network<N: Network>(mut self, network: impl Fn(SimSocket) -> N + Send + Sync + 'static) -> Simulation<S> {
        self.network = Some(Arc::new(move |socket| Box::new(network(socket)) as Box<dyn Network>));
        self
    }

    /// How much of the run is kept for a person to read. Changes nothing else.
    #[must_use]
    pub fn detail(mut self, detail: Detail) -> Simulation<S> {
        self.detail = detail;
        self
    }

    /// Exactly these faults happen, whatever the options say of any.
    #[must_use]
    pub fn faults(mut self, faults: Vec<Fault>) -> Simulation<S> {
        self.faults = Some(faults);
        self
    }

    /// Something that must hold of the state machine after every command, on every replica.
    #[must_use]
    pub fn invariant(
        mut self,
        name: &'static str,
        holds: impl Fn(&S) -> Result<(), String> + Send + Sync + 'static,
    ) -> Simulation<S> {
        self.invariants.push((name, Arc::new(holds)));
        self
    }

    /// Compares replies and answers with this model, not with another instance of the state machine.
    #[must_use]
    pub fn model<M>(mut self, model: impl Fn() -> M + Send + Sync + 'static) -> Simulation<S>
    where
        M: Model<S::Command, S::Reply, S::Query, S::Answer> + 'static,
    {
        self.judge = Judge::Model(Arc::new(move || Box::new(model())));
        self
    }

    /// Compares replies and answers with nothing: the order of operations is still checked.
    #[must_use]
    pub fn without_model(mut self) -> Simulation<S> {
        self.judge = Judge::Nobody;
        self
    }

    /// Runs it. The same options give the same report.
    #[must_use]
    pub fn run(self) -> Report {
        Run::new(self).run()
    }
}
