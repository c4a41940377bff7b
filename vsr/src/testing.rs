//! A whole cluster inside one process, for an application's own tests.
//!
//! ```
//! # use std::io::Read;
//! # use vsr::{ApplyContext, QueryContext, RestoreError, Snapshot, StateMachine};
//! # #[derive(Default)]
//! # struct Counter(i64);
//! # impl StateMachine for Counter {
//! #     type Command = i64;
//! #     type Reply = i64;
//! #     type Query = ();
//! #     type Answer = i64;
//! #     fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 { self.0 += n; self.0 }
//! #     fn query(&self, _: &QueryContext, (): ()) -> i64 { self.0 }
//! #     fn snapshot(&self) -> Snapshot { Snapshot::of(self.0) }
//! #     fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> { Snapshot::read(from).map(Counter) }
//! # }
//! let cluster = vsr::testing::cluster(3, Counter::default)?;
//! futures::executor::block_on(async {
//!     assert_eq!(cluster.handle(1).submit(5).await, Ok(5)); // any replica will do
//!     assert_eq!(cluster.handle(2).query(()).await, Ok(5)); // linearizable
//! });
//! # Ok::<(), vsr::ConfigError>(())
//! ```

use std::thread::JoinHandle;

use crate::adapters::memory::{MemoryNetwork, MemoryStorage};
use crate::config::{Config, ConfigError};
use crate::driver::handle::Handle;
use crate::driver::replica::{Replica, ReplicaError};
use crate::protocol::{ClusterId, ReplicaId};
use crate::traits::state_machine::StateMachine;

/// Replicas in memory, each on a thread of its own. Dropping it stops them.
#[derive(Debug)]
pub struct Cluster<S: StateMachine> {
    handles: Vec<Handle<S>>,
    threads: Vec<JoinHandle<Result<(), ReplicaError>>>,
}

/// Starts `n` replicas of a state machine, with ids 0 to `n` - 1; `machine` makes the state of each.
///
/// # Errors
/// When a cluster cannot have `n` members.
#[allow(clippy::disallowed_methods, reason = "the replicas of a test run on threads; the simulator has none")]
pub fn cluster<S: StateMachine>(n: usize, machine: impl Fn() -> S) -> Result<Cluster<S>, ConfigError> {
    let network = MemoryNetwork::new(n);
    let mut cluster = Cluster { handles: Vec::new(), threads: Vec::new() };
    for id in (0..n).map(|id| ReplicaId(id as u8)) {
        let config = Config::new(ClusterId(1), id, (0..n).map(|id| format!("replica {id}")))?;
        let storage = MemoryStorage::format(&config);
        let builder = Replica::builder(config, machine()).storage(storage);
        let (replica, handle) = builder.network(network.endpoint(id)).build()?;
        cluster.handles.push(handle);
        cluster.threads.push(std::thread::spawn(move || futures::executor::block_on(replica.run())));
    }
    Ok(cluster)
}

impl<S: StateMachine> Cluster<S> {
    /// The handle of the replica with this id.
    ///
    /// # Panics
    /// When there is no such replica.
    #[must_use]
    pub fn handle(&self, replica: usize) -> &Handle<S> {
        &self.handles[replica]
    }

    /// The number of replicas.
    #[must_use]
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }
}

impl<S: StateMachine> Drop for Cluster<S> {
    /// At once: a primary that handed its role over would wait for backups that are being stopped as well.
    fn drop(&mut self) {
        let all = self.handles.iter().map(Handle::stop);
        futures::executor::block_on(futures::future::join_all(all));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
