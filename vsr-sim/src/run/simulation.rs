//! A simulated cluster of any state machine, and the result of a run.

use std::sync::Arc;

use vsr::protocol::Random;
use vsr::storage::StorageError;
use vsr::{Network, StateMachine, Storage};

use crate::check::linearizability::ReferenceModel;
use crate::faults::Fault;
use crate::files::SimFolder;
use crate::options::Options;
use crate::report::Detail;
use crate::workload::{Simulated, Step, Workload};
use crate::world::{NetworkOf, Open, SimSocket};

/// What a user says must hold of every state.
pub(crate) type Invariant<S> = (&'static str, Arc<dyn Fn(&S) -> Result<(), String> + Send + Sync>);
pub(crate) type ModelOf<S> = Box<
    dyn ReferenceModel<
            <S as StateMachine>::Command,
            <S as StateMachine>::Reply,
            <S as StateMachine>::Query,
            <S as StateMachine>::Answer,
        >,
>;

/// What replies and answers are compared with.
pub(crate) enum Oracle<S: StateMachine> {
    /// Another instance of the state machine.
    Machine,
    /// Nothing.
    None,
    /// A model of the user's.
    Model(Arc<dyn Fn() -> ModelOf<S> + Send + Sync>),
}

impl<S: StateMachine> Clone for Oracle<S> {
    fn clone(&self) -> Self {
        match self {
            Oracle::Machine => Oracle::Machine,
            Oracle::None => Oracle::None,
            Oracle::Model(make) => Oracle::Model(make.clone()),
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
    pub(crate) oracle: Oracle<S>,
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
            oracle: self.oracle.clone(),
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
            oracle: Oracle::Machine,
            storage: None,
            network: None,
        }
    }

    /// Runs the replicas on this storage, on simulated files. It is called with a new disk once, to format it, and
    /// with the disk as it was left at each start of a replica. It must not wait for anything, and have no threads
    /// (see [`Inline`](crate::files::Inline)). Faults that damage entries damage sectors; whatever the storage says
    /// after a crash is held against the clauses of [`Storage`]. A second without a write is over when
    /// [`SimFolder::take_idle_second`] says so: a storage that then looks for room, as one on threads does, asks it in
    /// [`Storage::room`].
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
        M: ReferenceModel<S::Command, S::Reply, S::Query, S::Answer> + 'static,
    {
        self.oracle = Oracle::Model(Arc::new(move || Box::new(model())));
        self
    }

    /// Compares replies and answers with nothing: the order of operations is still checked.
    #[must_use]
    pub fn without_model(mut self) -> Simulation<S> {
        self.oracle = Oracle::None;
        self
    }
}
