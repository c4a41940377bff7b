//! Replicas that take checkpoints, start from them, and compare their states, on storage in memory.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;

use super::tests::config_of;
use crate::adapters::memory::{MemoryNetwork, MemoryStorage};
use crate::protocol::OpNumber;
use crate::{
    ApplyContext, Checksum, Clock, Config, Handle, QueryContext, Replica, ReplicaId, RestoreError, Snapshot,
    StateMachine, SystemClock,
};

/// Adds up, and counts what it has applied in this life.
struct Adds {
    sum: u64,
    applied: Arc<AtomicU64>,
}

thread_local! {
    /// How often a machine was restored on this thread, and whether its snapshots fail.
    static RESTORED: (Cell<u64>, Cell<bool>) = const { (Cell::new(0), Cell::new(false)) };
}

impl StateMachine for Adds {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;
    fn apply(&mut self, _: &ApplyContext, more: u64) -> u64 {
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.sum += more;
        self.sum
    }
    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.sum
    }
    fn snapshot(&self) -> Snapshot {
        assert!(!RESTORED.with(|restored| restored.1.get()), "no snapshot");
        Snapshot::of(self.sum)
    }
    fn restore(from: &mut dyn Read) -> Result<Adds, RestoreError> {
        RESTORED.with(|restored| restored.0.set(restored.0.get() + 1));
        Snapshot::read(from).map(|sum| Adds { sum, applied: Arc::default() })
    }
}

/// Runs a cluster of one on this disk for some commands. The sum at its end, how many commands the given machine has applied, and the
/// checkpoint that it leaves.
fn add(storage: &MemoryStorage, config: &Config, commands: u64) -> (u64, u64, OpNumber) {
    let (mut pool, applied) = (LocalPool::new(), Arc::new(AtomicU64::new(0)));
    let machine = Adds { sum: 0, applied: applied.clone() };
    let builder = Replica::builder(config.clone(), machine).storage(storage.clone());
    let (replica, handle) = builder.network(MemoryNetwork::new(1).endpoint(ReplicaId(0))).build().unwrap();
    pool.spawner().spawn_local(async move { replica.run().await.unwrap() }).unwrap();
    pool.run_until(async move {
        for _ in 0..commands {
            handle.submit(1).await.unwrap();
        }
        let sum = handle.query(()).await.unwrap();
        let checkpoint = handle.status().checkpoint;
        handle.shutdown().await;
        (sum, applied.load(Ordering::Relaxed), checkpoint)
    })
}

/// Rule 9.11: a start goes on from the newest checkpoint, and applies what came after it.
#[test]
fn a_start_restores_the_machine_and_applies_the_rest() {
    let mut config = config_of(0, 1);
    config.membership.constants.checkpoint_ops = 10;
    let storage = MemoryStorage::format(&config);
    let restored = || RESTORED.with(|restored| restored.0.take());
    let (sum, applied, checkpoint) = add(&storage, &config, 35);
    assert_eq!((sum, applied, checkpoint.0, restored()), (35, 35, 30, 0));
    let (sum, applied, _) = add(&storage, &config, 1);
    assert_eq!((sum, applied, restored()), (36, 0, 1), "the machine that was given has applied nothing");
}

/// A machine whose snapshots panic costs its checkpoints, not its replica.
#[test]
fn a_machine_without_snapshots_runs_without_checkpoints() {
    let mut config = config_of(0, 1);
    config.membership.constants.checkpoint_ops = 10;
    let storage = MemoryStorage::format(&config);
    RESTORED.with(|restored| restored.1.set(true));
    let (sum, applied, checkpoint) = add(&storage, &config, 35);
    RESTORED.with(|restored| restored.1.set(false));
    assert_eq!((sum, applied, checkpoint), (35, 35, OpNumber::ZERO));
    let (sum, applied, _) = add(&storage, &config, 0);
    assert_eq!((sum, applied), (35, 35));
}

/// A state of another version of the machine: the log has all of it.
#[test]
fn a_checkpoint_that_the_machine_does_not_read_gives_way_to_the_log() {
    let mut config = config_of(0, 1);
    config.membership.constants.checkpoint_ops = 10;
    let storage = MemoryStorage::format(&config);
    add(&storage, &config, 35);
    storage.harm_checkpoints();
    let (sum, applied, _) = add(&storage, &config, 0);
    assert_eq!((sum, applied), (35, 35));
}

/// Adds up. One of them may flip a bit of its sum behind everybody's back, once.
struct Flips {
    sum: u64,
    flip_at: Option<Arc<AtomicU64>>,
}

impl StateMachine for Flips {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;
    fn apply(&mut self, _: &ApplyContext, more: u64) -> u64 {
        self.sum += more;
        let is_due = |at: &mut Arc<AtomicU64>| at.load(Ordering::Relaxed) == self.sum;
        if let Some(at) = self.flip_at.take_if(is_due) {
            at.store(0, Ordering::Relaxed);
            self.sum ^= 1 << 40;
        }
        self.sum
    }
    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.sum
    }
    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.sum)
    }
    fn restore(from: &mut dyn Read) -> Result<Flips, RestoreError> {
        Snapshot::read(from).map(|sum| Flips { sum, flip_at: None })
    }
    fn digest(&self) -> Option<Checksum> {
        Some(Checksum(self.sum.into()))
    }
}

/// Rule 9.8: of three replicas one goes wrong at the twentieth command. It stops, alone, with both digests; its next start applies the whole log, and has
/// the state of the others again.
#[test]
fn a_replica_whose_state_differs_stops_alone_and_is_healed_by_its_log() {
    let (mut pool, network, flip_at) = (LocalPool::new(), MemoryNetwork::new(3), Arc::new(AtomicU64::new(20)));
    let spawner = pool.spawner();
    let ended = Rc::new(RefCell::new(Vec::new()));
    let config = |id: usize| {
        let mut config = config_of(id, 3);
        config.membership.constants.checkpoint_ops = 10;
        config.timing.ping = Duration::from_millis(5);
        config
    };
    let configs: Vec<Config> = (0..3).map(config).collect();
    let disks: Vec<MemoryStorage> = configs.iter().map(MemoryStorage::format).collect();
    let start = |id: usize| {
        let machine = Flips { sum: 0, flip_at: (id == 2).then(|| flip_at.clone()) };
        let builder = Replica::builder(configs[id].clone(), machine).storage(disks[id].clone());
        let (replica, handle) = builder.network(network.endpoint(ReplicaId(id as u8))).build().unwrap();
        let ended = ended.clone();
        let run = async move {
            let result = replica.run().await;
            ended.borrow_mut().push((id, result.map_err(|error| error.to_string())));
        };
        spawner.spawn_local(run).unwrap();
        handle
    };
    let mut handles: Vec<Handle<Flips>> = (0..3).map(start).collect();
    let clock = SystemClock::new();
    let pause = || clock.sleep_until(clock.now().after(Duration::from_millis(1)));
    pool.run_until(async {
        let mut sum = 0;
        while ended.borrow().is_empty() {
            assert_eq!(handles[0].submit(1).await, Ok(sum + 1));
            sum += 1;
            pause().await;
            assert!(sum < 5_000, "it is not noticed");
        }
        let (id, stopped) = ended.borrow_mut().pop().unwrap();
        let words = stopped.unwrap_err();
        assert!(id == 2 && words.contains("has the digest") && words.contains("Start the replica again"), "{words}");
        assert!(handles[2].status().stopped);
        handles[2] = start(2);
        // It passes further checkpoints, and answers as the others do.
        for _ in 0..50 {
            sum = handles[0].submit(1).await.unwrap();
            pause().await;
        }
        assert_eq!(handles[2].query(()).await, Ok(sum));
        assert!(handles[2].status().checkpoint > OpNumber::ZERO && ended.borrow().is_empty(), "{:?}", ended.borrow());
        for handle in &handles {
            handle.shutdown().await;
        }
    });
}
