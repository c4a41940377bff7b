//! Replicas that take checkpoints, start from them, and compare their states, on storage in memory.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::{LocalPool, LocalSpawner};
use futures::task::LocalSpawnExt;

use super::tests::config_of;
use crate::adapters::memory::{MemoryNetwork, MemoryStorage};
use crate::client::inbox::{CheckpointError, WatchEvent};
use crate::protocol::{Event, OpNumber};
use crate::traits::network::Network;
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

/// Rule 9.1: on request, whether one is due or not; and no second one of the same state.
#[test]
fn a_checkpoint_is_taken_on_request() {
    let mut config = config_of(0, 1);
    config.membership.constants.checkpoint_ops = 0;
    let storage = MemoryStorage::format(&config);
    let (mut pool, applied) = (LocalPool::new(), Arc::new(AtomicU64::new(0)));
    let builder = Replica::builder(config.clone(), Adds { sum: 0, applied }).storage(storage.clone());
    let (replica, handle) = builder.network(MemoryNetwork::new(1).endpoint(ReplicaId(0))).build().unwrap();
    pool.spawner().spawn_local(async move { replica.run().await.unwrap() }).unwrap();
    pool.run_until(async move {
        assert_eq!(handle.checkpoint().await, Ok(OpNumber::ZERO), "nothing is there yet");
        for _ in 0..5 {
            handle.submit(1).await.unwrap();
        }
        let first = handle.checkpoint().await.unwrap();
        assert!(first >= OpNumber(5) && handle.status().checkpoint == first);
        assert_eq!(handle.checkpoint().await, Ok(first), "nothing came since");
        handle.submit(1).await.unwrap();
        let (one, other) = futures::join!(handle.checkpoint(), handle.checkpoint());
        assert_eq!((one, other), (Ok(first.next()), Ok(first.next())));
        RESTORED.with(|restored| restored.1.set(true));
        handle.submit(1).await.unwrap();
        assert_eq!(handle.checkpoint().await, Err(CheckpointError::Failed));
        RESTORED.with(|restored| restored.1.set(false));
        assert_eq!(handle.checkpoint().await, Ok(first.next().next()));
        handle.shutdown().await;
        assert_eq!(handle.checkpoint().await, Err(CheckpointError::Stopped));
    });
    let (sum, applied, _) = add(&storage, &config, 0);
    assert_eq!((sum, applied), (7, 0), "a start goes on from it");
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

/// A state of another version of the machine: as long as nothing is dropped, the log has all of it.
#[test]
fn a_checkpoint_that_the_machine_does_not_read_gives_way_to_the_log() {
    let mut config = config_of(0, 1);
    config.membership.constants.checkpoint_ops = 10;
    let storage = MemoryStorage::format(&config);
    add(&storage, &config, 15);
    storage.harm_checkpoints();
    let (sum, applied, _) = add(&storage, &config, 0);
    assert_eq!((sum, applied), (15, 15));
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

/// A cluster with a checkpoint every ten ops, whose last replica goes wrong at the fifteenth command.
struct Cluster {
    spawner: LocalSpawner,
    network: MemoryNetwork,
    configs: Vec<Config>,
    disks: Vec<MemoryStorage>,
    flip_at: Arc<AtomicU64>,
    /// Those that have stopped, with their words.
    ended: Rc<RefCell<Vec<(usize, String)>>>,
}

impl Cluster {
    fn new(pool: &LocalPool, members: usize) -> Cluster {
        let config = |id: usize| {
            let mut config = config_of(id, members);
            config.membership.constants.checkpoint_ops = 10;
            config.timing.ping = Duration::from_millis(5);
            config
        };
        let configs: Vec<Config> = (0..members).map(config).collect();
        let disks = configs.iter().map(MemoryStorage::format).collect();
        let (network, flip_at) = (MemoryNetwork::new(members), Arc::new(AtomicU64::new(15)));
        Cluster { spawner: pool.spawner(), network, configs, disks, flip_at, ended: Rc::default() }
    }

    fn start(&self, id: usize) -> Handle<Flips> {
        let flip_at = (id + 1 == self.configs.len()).then(|| self.flip_at.clone());
        let builder =
            Replica::builder(self.configs[id].clone(), Flips { sum: 0, flip_at }).storage(self.disks[id].clone());
        let (replica, handle) = builder.network(self.network.endpoint(ReplicaId(id as u8))).build().unwrap();
        let ended = self.ended.clone();
        let run = async move {
            if let Err(error) = replica.run().await {
                ended.borrow_mut().push((id, error.to_string()));
            }
        };
        self.spawner.spawn_local(run).unwrap();
        handle
    }

    /// The replicas that have stopped, each with a wrong state.
    fn wrong(&self) -> Vec<usize> {
        let ended = self.ended.borrow();
        assert!(ended.iter().all(|(_, words)| words.contains("has the digest")), "{ended:?}");
        let mut ids: Vec<usize> = ended.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Submits a command to a replica, if it answers soon, until something holds.
    async fn submit_until(&self, handle: &Handle<Flips>, is_over: impl Fn(u64) -> bool) -> u64 {
        let (clock, mut sum) = (SystemClock::new(), 0);
        for _ in 0..5_000 {
            if is_over(sum) {
                return sum;
            }
            let reply = handle.submit_within(1, Duration::from_millis(50)).await;
            sum = reply.map_or(sum, |reply| reply.value);
            clock.sleep_until(clock.now().after(Duration::from_millis(1))).await;
        }
        panic!("{sum} commands are executed, and {:?} have stopped", self.ended.borrow());
    }
}

/// Rule 9.9: what is kept of the past does not grow with it.
#[test]
fn a_cluster_under_endless_load_keeps_its_log_short() {
    let mut pool = LocalPool::new();
    let cluster = Cluster::new(&pool, 3);
    cluster.flip_at.store(0, Ordering::Relaxed);
    let handles: Vec<Handle<Flips>> = (0..3).map(|id| cluster.start(id)).collect();
    pool.run_until(async {
        for round in 1..=8 {
            cluster.submit_until(&handles[0], |sum| sum >= 60 * round).await;
            for handle in &handles {
                let status = handle.status();
                let kept = status.head.0 - status.log_base.0;
                assert!(kept <= 60, "round {round}, replica {}: {kept} ops are kept", status.replica);
            }
        }
    });
}

/// Rules 9.2, 9.3: the others drop what one that is away lacks, and it takes a checkpoint. So does one whose checkpoints are damaged.
#[test]
fn a_replica_that_was_away_begins_with_a_checkpoint_of_the_others() {
    let mut pool = LocalPool::new();
    let cluster = Cluster::new(&pool, 3);
    cluster.flip_at.store(0, Ordering::Relaxed);
    let mut handles: Vec<Handle<Flips>> = (0..3).map(|id| cluster.start(id)).collect();
    let clock = SystemClock::new();
    pool.run_until(async {
        cluster.submit_until(&handles[0], |sum| sum >= 5).await;
        handles[2].shutdown().await;
        let has_dropped =
            |handles: &[Handle<Flips>]| handles[..2].iter().all(|handle| handle.status().log_base.0 >= 40);
        let sum = cluster.submit_until(&handles[0], |_| has_dropped(&handles)).await;
        for damaged in [false, true] {
            if damaged {
                handles[2].shutdown().await;
                cluster.disks[2].harm_checkpoints();
            }
            // What was sent to it while it was away is lost.
            let _ = cluster.network.endpoint(ReplicaId(2)).recv().now_or_never();
            handles[2] = cluster.start(2);
            let mut events = handles[2].watch();
            let deadline = clock.now().after(Duration::from_secs(20));
            while handles[2].status().applied < handles[0].status().applied {
                assert!(clock.now() < deadline, "{}", handles[2].explain().await);
                clock.sleep_until(clock.now().after(Duration::from_millis(1))).await;
            }
            assert_eq!(handles[2].query(()).await, Ok(sum), "damaged: {damaged}");
            let mut seen = Vec::new();
            while let Some(Some(event)) = events.next().now_or_never() {
                seen.push(event);
            }
            let began = |event: &WatchEvent| matches!(event, WatchEvent::Event(Event::TransferBegan { .. }));
            assert!(seen.iter().any(began), "{seen:?}");
            assert!(handles[2].status().log_base >= OpNumber(40) && handles[2].status().transfer.is_none());
        }
        assert_eq!(cluster.wrong(), []);
    });
}

/// Rule 9.8: the one that goes wrong stops, alone; its next start applies the whole log, and has the state of the others again.
#[test]
fn a_replica_whose_state_differs_stops_alone_and_is_healed_by_its_log() {
    let mut pool = LocalPool::new();
    let cluster = Cluster::new(&pool, 3);
    let mut handles: Vec<Handle<Flips>> = (0..3).map(|id| cluster.start(id)).collect();
    pool.run_until(async {
        let sum = cluster.submit_until(&handles[0], |_| !cluster.wrong().is_empty()).await;
        assert!(cluster.wrong() == [2] && handles[2].status().stopped);
        assert!(cluster.ended.borrow()[0].1.contains("Start the replica again"), "{:?}", cluster.ended.borrow());
        handles[2] = cluster.start(2);
        // It passes further checkpoints, and answers as the others do.
        let has_checkpoint = |handles: &[Handle<Flips>]| handles[2].status().checkpoint > OpNumber(sum + 20);
        let sum = cluster.submit_until(&handles[0], |_| has_checkpoint(&handles)).await;
        assert_eq!((handles[2].query(()).await, cluster.wrong()), (Ok(sum), vec![2]));
        for handle in &handles {
            handle.shutdown().await;
        }
    });
}

/// Rule 9.8: where nobody can say whose state is right nobody goes on: each hears it before the other stops.
#[test]
fn of_two_whose_states_differ_both_stop() {
    let mut pool = LocalPool::new();
    let cluster = Cluster::new(&pool, 2);
    let handles: Vec<Handle<Flips>> = (0..2).map(|id| cluster.start(id)).collect();
    pool.run_until(async {
        cluster.submit_until(&handles[0], |_| cluster.wrong() == [0, 1]).await;
    });
}

/// Rule 9.8: a wrong state that was saved before the others could say so is found when it is restored, not at the next checkpoint.
#[test]
fn a_state_that_is_restored_is_compared() {
    let mut pool = LocalPool::new();
    let cluster = Cluster::new(&pool, 3);
    let (first, last) = (cluster.start(0), cluster.start(2));
    pool.run_until(async {
        // With one member away it cannot be said whose state is wrong.
        cluster.submit_until(&first, |sum| sum >= 20 && last.status().checkpoint >= OpNumber(20)).await;
        assert_eq!(cluster.wrong(), []);
        last.shutdown().await;
        let restored = cluster.start(2);
        let _second = cluster.start(1);
        let clock = SystemClock::new();
        let deadline = clock.now().after(Duration::from_secs(20));
        // No command is submitted: there is no other checkpoint.
        while cluster.wrong().is_empty() {
            clock.sleep_until(clock.now().after(Duration::from_millis(1))).await;
            assert!(clock.now() < deadline, "{}", restored.explain().await);
        }
        assert_eq!(cluster.wrong(), [2]);
    });
}
