//! Requests per second of three replicas in one process: memory storage, in-process network, empty command,
//! empty reply. All three replicas and all submitters share one thread and one executor, so the figure is
//! what the protocol, the driver and the handle cost, with no hop between threads.
//!
//! `cargo bench -p vsr --bench throughput` prints the table; each row is the median of three runs of two
//! seconds after a warm-up of half a second, submitters waiting for each reply before the next request.

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use vsr::memory::{MemoryNetwork, MemoryStorage};
use vsr::{
    ApplyContext, Clock, ClusterId, Config, Handle, QueryContext, Replica, ReplicaId, RestoreError, Snapshot,
    StateMachine, SystemClock,
};

struct Nothing;

impl StateMachine for Nothing {
    type Command = Bytes;
    type Reply = Bytes;
    type Query = Bytes;
    type Answer = Bytes;
    fn apply(&mut self, _: &ApplyContext, _: Bytes) -> Bytes {
        Bytes::new()
    }
    fn query(&self, _: &QueryContext, _: Bytes) -> Bytes {
        Bytes::new()
    }
    fn snapshot(&self) -> Snapshot {
        Snapshot::of(())
    }
    fn restore(_: &mut dyn Read) -> Result<Nothing, RestoreError> {
        Ok(Nothing)
    }
}

const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);

fn run(submitters: usize) -> f64 {
    let mut pool = LocalPool::new();
    let network = MemoryNetwork::new(3);
    let mut primary: Option<Handle<Nothing>> = None;
    for id in 0..3 {
        let mut config = Config::new(ClusterId(1), ReplicaId(id), ["a", "b", "c"]).expect("a configuration");
        config.log_bytes_max = u64::MAX;
        let storage = MemoryStorage::format(&config);
        let builder = Replica::builder(config, Nothing).storage(storage).network(network.endpoint(ReplicaId(id)));
        let (replica, handle) = builder.build().expect("a replica");
        primary.get_or_insert(handle);
        let spawned = pool.spawner().spawn_local(async move {
            replica.run().await.expect("the replica runs");
        });
        spawned.expect("the executor lives");
    }
    let handle = primary.expect("the first replica");
    let count = Rc::new(Cell::new(0_u64));
    for _ in 0..submitters {
        let (handle, count) = (handle.clone(), count.clone());
        let spawned = pool.spawner().spawn_local(async move {
            loop {
                handle.submit(Bytes::new()).await.expect("a reply");
                count.set(count.get() + 1);
            }
        });
        spawned.expect("the executor lives");
    }
    let clock = SystemClock::new();
    pool.run_until(async {
        clock.sleep_until(clock.now().after(WARM_UP)).await;
        let (before, since) = (count.get(), clock.now());
        clock.sleep_until(since.after(MEASURED)).await;
        (count.get() - before) as f64 / clock.now().since(since).as_secs_f64()
    })
}

fn main() {
    println!(
        "three replicas, one process, one thread; memory storage, in-process network, empty command; each submitter waits for its reply; \
         median of three runs of {MEASURED:?} after {WARM_UP:?}"
    );
    println!("submitters   requests/s");
    for submitters in [1, 64, 256, 1024, 4096] {
        let mut runs = [run(submitters), run(submitters), run(submitters)];
        runs.sort_by(f64::total_cmp);
        println!("{submitters:>10} {:>12.0}", runs[1]);
    }
}
