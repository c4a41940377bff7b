//! The driver, handles and clients on in-memory storage and network, on one thread.

use std::io::Read;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::{LocalPool, block_on};
use futures::future::{Either, join_all, pending, poll_immediate, select};
use futures::task::LocalSpawnExt;
use serde::{Deserialize, Serialize};

use crate::adapters::memory::{MemoryNetwork, MemoryStorage};
use crate::protocol::limits::{ANSWER_MAX, BATCH_BYTES_MAX, QUERY_MAX, REPLY_MAX, REQUEST_MAX};
use crate::protocol::{Batch, Busy, Entry, Health, Monotonic, OpNumber, Recovered, Timestamp};
use crate::traits::storage::StorageError;
use crate::{
    ApplyContext, Client, ClientConfig, ClientId, Clock, ClusterId, Config, ConfigError, Handle, QueryContext,
    QueryError, Replica, ReplicaId, RestoreError, Snapshot, StateMachine, Storage, SubmitError, SystemClock,
};

/// Of 8 bytes it replies, and answers, with as many bytes as they say; of others with their length in 8 bytes.
struct Lengths;

const DIE: &[u8] = b"die!";

fn bytes_of(len: u64) -> Bytes {
    Bytes::copy_from_slice(&len.to_le_bytes())
}

fn lengths(given: &Bytes) -> Bytes {
    assert!(given != DIE, "as it was told to");
    match <[u8; 8]>::try_from(&given[..]) {
        Ok(len) => Bytes::from(vec![7; u64::from_le_bytes(len) as usize]),
        Err(_) => bytes_of(given.len() as u64),
    }
}

impl StateMachine for Lengths {
    type Command = Bytes;
    type Reply = Bytes;
    type Query = Bytes;
    type Answer = Bytes;
    fn apply(&mut self, _: &ApplyContext, command: Bytes) -> Bytes {
        lengths(&command)
    }
    fn query(&self, _: &QueryContext, query: Bytes) -> Bytes {
        lengths(&query)
    }
    fn snapshot(&self) -> Snapshot {
        Snapshot::of(())
    }
    fn restore(_: &mut dyn Read) -> Result<Lengths, RestoreError> {
        Ok(Lengths)
    }
}

/// Commands that contain commands.
#[derive(Debug, Serialize, Deserialize)]
enum Expr {
    Not(Box<Expr>),
    True,
}

struct Evaluator;

impl StateMachine for Evaluator {
    type Command = Expr;
    type Reply = bool;
    type Query = Expr;
    type Answer = bool;
    fn apply(&mut self, _: &ApplyContext, expr: Expr) -> bool {
        matches!(expr, Expr::True)
    }
    fn query(&self, _: &QueryContext, expr: Expr) -> bool {
        matches!(expr, Expr::True)
    }
    fn snapshot(&self) -> Snapshot {
        Snapshot::of(())
    }
    fn restore(_: &mut dyn Read) -> Result<Evaluator, RestoreError> {
        Ok(Evaluator)
    }
}

struct Replicas<S> {
    pool: LocalPool,
    network: MemoryNetwork,
    configs: Vec<Config>,
    handles: Vec<Handle<S>>,
}

pub(super) fn config_of(id: usize, n: usize) -> Config {
    Config::new(ClusterId(1), ReplicaId(id as u8), (0..n).map(|id| format!("r{id}"))).unwrap()
}

/// Starts the first `running` of `n` replicas.
fn start<S: StateMachine>(
    (running, n): (usize, usize),
    configure: impl Fn(&mut Config),
    machine: impl Fn() -> S,
) -> Replicas<S> {
    let (pool, network) = (LocalPool::new(), MemoryNetwork::new(n));
    let (mut handles, mut configs) = (Vec::new(), Vec::new());
    for id in 0..running {
        let mut config = config_of(id, n);
        configure(&mut config);
        let storage = MemoryStorage::format(&config);
        let builder = Replica::builder(config.clone(), machine()).storage(storage);
        let (replica, handle) = builder.network(network.endpoint(ReplicaId(id as u8))).build().unwrap();
        let run = async move { drop(replica.run().await) };
        pool.spawner().spawn_local(run).unwrap();
        handles.push(handle);
        configs.push(config);
    }
    Replicas { pool, network, configs, handles }
}

impl<S: StateMachine> Replicas<S> {
    /// A client whose types may be others than those of the replicas.
    fn client<T: StateMachine>(&self, configure: impl Fn(&mut ClientConfig)) -> Client<T> {
        let mut config = ClientConfig::new(self.configs[0].membership.size());
        configure(&mut config);
        let (client, runner) = Client::new(config.clone(), self.network.client(config.id), SystemClock::new());
        let run = async move { drop(runner.run().await) };
        self.pool.spawner().spawn_local(run).unwrap();
        client
    }
}

/// A command of a client that would overflow the stack is refused, and stops no replica; so is a query.
#[test]
fn a_command_that_is_too_deep_kills_nobody() {
    let mut replicas = start((3, 3), |_| (), || Evaluator);
    let stranger: Client<Lengths> = replicas.client(|_| ());
    let deep = [b"\x81\xa3Not".repeat(20_000), b"\xa4True".to_vec()].concat();
    let (commands, handle) = (stranger.clone(), replicas.handles[0].clone());
    replicas.pool.run_until(async move {
        assert_eq!(commands.submit(Bytes::from(deep.clone())).await, Err(SubmitError::Undecodable));
        assert_eq!(commands.query(Bytes::from(deep)).await, Err(QueryError::Undecodable));
        assert_eq!(handle.submit(Expr::True).await, Ok(true));
        assert_eq!(handle.submit(Expr::Not(Box::new(Expr::True))).await, Ok(false));
        assert_eq!(handle.query(Expr::True).await, Ok(true));
    });
}

/// A client and a handle ask in the same words, and are told the same positions.
#[test]
fn a_client_and_a_handle_are_told_the_same_positions() {
    let mut replicas = start((3, 3), |_| (), || Lengths);
    let (client, handle): (Client<Lengths>, _) = (replicas.client(|_| ()), replicas.handles[1].clone());
    replicas.pool.run_until(async move {
        let executed = client.submit_positioned(Bytes::from_static(b"x")).await.unwrap();
        let seen = client.query_positioned(Bytes::from_static(b"xyz")).await.unwrap();
        assert_eq!((&seen.value, seen.position), (&bytes_of(3), executed.position.op));
        assert_eq!(handle.query_positioned(Bytes::from_static(b"xyz")).await, Ok(seen));
    });
}

/// With the constants as they are, and with the largest: what is as long as it may be goes through, from a
/// backup's handle and from a client; what is a byte longer is refused at once, in the right words, and blocks nobody.
#[test]
fn the_longest_goes_through_and_a_byte_more_is_refused() {
    for is_large in [false, true] {
        let configure = |config: &mut Config| {
            let constants = &mut config.membership.constants;
            if is_large {
                constants.request_max = REQUEST_MAX.max as u32;
                constants.reply_max = REPLY_MAX.max as u32;
                constants.session_replies_max = REPLY_MAX.max as u32 * 2;
                constants.batch_bytes_max = BATCH_BYTES_MAX.max as u32;
                config.query_max = QUERY_MAX.max as u32;
                config.answer_max = ANSWER_MAX.max as u32;
                config.log_bytes_max = 2 << 30;
            }
        };
        let mut replicas = start((3, 3), configure, || Lengths);
        let of_replica = replicas.configs[0].clone();
        let client: Client<Lengths> = replicas.client(|config| {
            config.request_max = of_replica.membership.constants.request_max;
            config.query_max = of_replica.query_max;
        });
        let handle = replicas.handles[1].clone();
        let constants = of_replica.membership.constants.clone();
        let (request_max, reply_max) = (u64::from(constants.request_max), u64::from(constants.reply_max));
        let (query_max, answer_max) = (u64::from(of_replica.query_max), u64::from(of_replica.answer_max));
        let filled = |len: u64| Bytes::from(vec![1; len as usize]);
        replicas.pool.run_until(async move {
            assert_eq!(handle.submit(filled(request_max)).await, Ok(bytes_of(request_max)));
            assert_eq!(client.submit(filled(request_max)).await, Ok(bytes_of(request_max)));
            assert_eq!(handle.submit(filled(request_max + 1)).await, Err(SubmitError::TooLarge));
            assert_eq!(client.submit(filled(request_max + 1)).await, Err(SubmitError::TooLarge));
            for submitted in [handle.submit(bytes_of(reply_max)).await, client.submit(bytes_of(reply_max)).await] {
                assert_eq!(submitted.map(|reply| reply.len() as u64), Ok(reply_max));
            }
            assert_eq!(handle.submit(bytes_of(reply_max + 1)).await, Err(SubmitError::ReplyLost));
            assert_eq!(client.submit(bytes_of(reply_max + 1)).await, Err(SubmitError::ReplyLost));
            assert_eq!(handle.query(filled(query_max)).await, Ok(bytes_of(query_max)));
            assert_eq!(client.query(filled(query_max)).await, Ok(bytes_of(query_max)));
            assert_eq!(handle.query(filled(query_max + 1)).await, Err(QueryError::TooLarge));
            assert_eq!(client.query(filled(query_max + 1)).await, Err(QueryError::TooLarge));
            for answered in [handle.query(bytes_of(answer_max)).await, client.query(bytes_of(answer_max)).await] {
                assert_eq!(answered.map(|answer| answer.len() as u64), Ok(answer_max));
            }
            assert_eq!(handle.query(bytes_of(answer_max + 1)).await, Err(QueryError::AnswerTooLarge));
            assert_eq!(client.query(bytes_of(answer_max + 1)).await, Err(QueryError::AnswerTooLarge));
            assert_eq!(client.submit(Bytes::from_static(b"x")).await, Ok(bytes_of(1)));
        });
    }
}

/// A client that knows of larger limits than the cluster has: the cluster refuses, and the client does not ask
/// again.
#[test]
fn what_only_the_cluster_knows_to_be_too_long_is_refused_there() {
    let mut replicas = start((3, 3), |_| (), || Lengths);
    let client: Client<Lengths> = replicas.client(|config| {
        config.request_max = REQUEST_MAX.max as u32;
        config.query_max = QUERY_MAX.max as u32;
    });
    replicas.pool.run_until(async move {
        let long = Bytes::from(vec![1; 2 << 20]);
        assert_eq!(client.submit(long.clone()).await, Err(SubmitError::TooLarge));
        assert_eq!(client.query(long).await, Err(QueryError::TooLarge));
        assert_eq!(client.submit(Bytes::from_static(b"x")).await, Ok(bytes_of(1)));
    });
}

/// A panic while answering reaches an outside client as what it is; one in `apply` is named by `explain`
/// when the replica has stopped.
#[test]
fn panics_are_told_as_panics() {
    let mut replicas = start((1, 1), |_| (), || Lengths);
    let client: Client<Lengths> = replicas.client(|_| ());
    let handle = replicas.handles[0].clone();
    replicas.pool.run_until(async move {
        assert!(matches!(client.query(Bytes::from_static(DIE)).await, Err(QueryError::Panicked(_))));
        let told = handle.query(Bytes::from_static(DIE)).await;
        assert_eq!(told, Err(QueryError::Panicked("as it was told to".to_owned())));
        assert_eq!(handle.submit(Bytes::from_static(b"x")).await, Ok(bytes_of(1)));
        let op = handle.status().head.next();
        assert_eq!(handle.submit(Bytes::from_static(DIE)).await, Err(SubmitError::Stopped));
        let words = handle.explain().await;
        assert!(words.starts_with("stopped: ") && words.contains("as it was told to"), "{words}");
        assert!(words.contains(&format!("panicked at {op}.0")), "{words}");
        while !handle.status().stopped {
            handle.shutdown().await;
        }
        assert_eq!(handle.explain().await, words);
    });
}

/// A client that fills the log is told so, and so is one that comes later.
#[test]
fn a_full_log_is_heard_also_by_a_new_client() {
    let configure = |config: &mut Config| {
        // Without checkpoints nothing makes room.
        (config.log_bytes_max, config.membership.constants.checkpoint_ops) = (9 << 20, 0);
    };
    let mut replicas = start((3, 3), configure, || Lengths);
    let handle = replicas.handles[0].clone();
    let late: Client<Lengths> = replicas.client(|_| ());
    replicas.pool.run_until(async move {
        for len in [200_000, 10_000, 500, 20, 1] {
            let command = Bytes::from(vec![1; len]);
            let full = loop {
                match handle.submit(command.clone()).await {
                    Ok(_) => {}
                    Err(full) => break full,
                }
            };
            assert_eq!(full, SubmitError::LogFull);
        }
        assert_eq!(handle.trouble(), Some(Busy::LogFull));
        // Operators hear it as well: the limit is the log's own, and the disk has room.
        assert_eq!(handle.status().health, Health::NoRoom);
        let words = handle.explain().await;
        assert!(words.contains("no room for further ops") && !words.contains("normal"), "{words}");
        assert_eq!(late.submit(Bytes::from_static(b"x")).await, Err(SubmitError::LogFull));
        assert_eq!(late.query(Bytes::from_static(b"x")).await, Ok(bytes_of(1)));
    });
}

/// Queries are bounded in bytes, those of handles and of clients together; those without a caller make
/// room.
#[test]
fn queries_that_wait_are_bounded_in_bytes() {
    // No quorum: every query waits.
    let configure = |config: &mut Config| config.queries_bytes_max = 3 << 20;
    let mut replicas = start((1, 3), configure, || Lengths);
    let client: Client<Lengths> = replicas.client(|_| ());
    let handle = replicas.handles[0].clone();
    let account = handle.shared.queries.clone();
    replicas.pool.run_until(async move {
        let query = Bytes::from(vec![1; 1 << 20]);
        let mut kept: Vec<_> = (0..2).map(|_| Box::pin(handle.query(query.clone()))).collect();
        for query in &mut kept {
            assert!(poll_immediate(query).await.is_none());
        }
        assert_eq!(account.held(), (2, 2 * ((1 << 20) + 64)));
        assert_eq!(handle.query(query.clone()).await, Err(QueryError::Busy));
        assert_eq!(client.query(query.clone()).await, Err(QueryError::Busy));
        drop(kept);
        // Looked for at most every 20 ms.
        let clock = SystemClock::new();
        clock.sleep_until(clock.now().after(Duration::from_millis(30))).await;
        let kept = Box::pin(handle.query_within(query.clone(), Duration::from_millis(50)));
        assert_eq!(kept.await.map(|answer| answer.value), Err(QueryError::TimedOut));
    });
}

/// The commands that callers leave are bounded in bytes, and so are a client's queries.
#[test]
fn commands_that_wait_are_bounded_in_bytes() {
    let mut replicas = start((1, 3), |config| config.handle_bytes_max = 1 << 20, || Lengths);
    let client: Client<Lengths> = replicas.client(|config| (config.queue_max, config.queue_bytes_max) = (100, 2 << 20));
    let handle = replicas.handles[0].clone();
    replicas.pool.run_until(async move {
        let command = Bytes::from(vec![1; 200_000]);
        let mut kept: Vec<_> = (0..5).map(|_| Box::pin(handle.submit(command.clone()))).collect();
        for submit in &mut kept {
            assert!(poll_immediate(submit).await.is_none());
        }
        assert_eq!(handle.submit(command).await, Err(SubmitError::Busy));
        // By number, and by bytes.
        for (count, len) in [(100, 100), (9, 200_000)] {
            let query = Bytes::from(vec![1; len]);
            let mut kept: Vec<_> = (0..count).map(|_| Box::pin(client.query(query.clone()))).collect();
            for query in &mut kept {
                assert!(poll_immediate(query).await.is_none());
            }
            // One may find a place that the last round has left.
            let limit = Duration::from_millis(50);
            let told = join_all((0..200).map(|_| client.query_within(query.clone(), limit))).await;
            let busy = told.iter().filter(|told| matches!(told, Err(QueryError::Busy))).count();
            assert!(busy >= 199, "{busy} of 200");
        }
    });
}

/// A future that was never polled, and a replica that never ran, leave no caller waiting.
#[test]
fn what_never_ran_leaves_nobody_waiting() {
    for drops_the_future in [true, false] {
        let config = config_of(0, 1);
        let (storage, network) = (MemoryStorage::format(&config), MemoryNetwork::new(1).endpoint(ReplicaId(0)));
        let builder = Replica::builder(config, Lengths).storage(storage).network(network);
        let (replica, handle) = builder.build().unwrap();
        let early = handle.submit(Bytes::new());
        let mut early = Box::pin(early);
        assert!(block_on(poll_immediate(&mut early)).is_none());
        if drops_the_future {
            drop(replica.run());
        } else {
            drop(replica);
        }
        block_on(async {
            assert_eq!(early.await, Err(SubmitError::Stopped));
            assert_eq!(handle.submit(Bytes::new()).await, Err(SubmitError::Stopped));
            assert_eq!(handle.query(Bytes::new()).await, Err(QueryError::Stopped));
            assert_eq!(handle.explain().await, "the replica has stopped");
            handle.shutdown().await;
            assert!(handle.status().stopped);
        });
    }
    let config = ClientConfig::new(1);
    let network = MemoryNetwork::new(1).client(config.id);
    let (client, runner) = Client::<Lengths>::new(config, network, SystemClock::new());
    drop(runner.run());
    assert_eq!(block_on(client.submit(Bytes::new())), Err(SubmitError::Stopped));
    assert_eq!(block_on(client.query(Bytes::new())), Err(QueryError::Stopped));
}

/// A storage that somebody else can see being held.
struct Held(MemoryStorage, #[allow(dead_code, reason = "it is counted")] Arc<()>);

#[async_trait]
impl Storage for Held {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.0.recover().await
    }
    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.0.write(batch).await
    }
    async fn read(
        &self,
        ops: RangeInclusive<OpNumber>,
        bytes_max: usize,
    ) -> Result<Vec<(OpNumber, Option<Entry>)>, StorageError> {
        self.0.read(ops, bytes_max).await
    }
}

/// When `shutdown` has returned, and when a caller hears of the end, disk and network are not held any more.
#[test]
fn what_a_replica_held_is_free_when_shutdown_returns() {
    let (mut pool, config, held) = (LocalPool::new(), config_of(0, 1), Arc::new(()));
    let disk = MemoryStorage::format(&config);
    for life in 1..=3 {
        let storage = Held(disk.clone(), held.clone());
        let builder = Replica::builder(config.clone(), Lengths).storage(storage);
        let (replica, handle) = builder.network(MemoryNetwork::new(1).endpoint(ReplicaId(0))).build().unwrap();
        pool.spawner().spawn_local(async move { drop(replica.run().await) }).unwrap();
        pool.run_until(async {
            assert_eq!(handle.submit(Bytes::from_static(b"x")).await, Ok(bytes_of(1)));
            assert_eq!(Arc::strong_count(&held), 2);
            handle.shutdown().await;
            assert_eq!(Arc::strong_count(&held), 1, "life {life}");
        });
    }
}

/// A storage whose disk never answers.
struct Silent;

#[async_trait]
impl Storage for Silent {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        pending().await
    }
    async fn write(&self, _: Batch) -> Result<(), StorageError> {
        pending().await
    }
    async fn read(
        &self,
        _: RangeInclusive<OpNumber>,
        _: usize,
    ) -> Result<Vec<(OpNumber, Option<Entry>)>, StorageError> {
        pending().await
    }
}

/// A disk that does not answer when a replica starts keeps no caller waiting: `explain` says so, and `shutdown` returns.
#[test]
fn a_start_that_hangs_can_be_asked_and_ended() {
    let mut pool = LocalPool::new();
    let builder = Replica::builder(config_of(0, 1), Lengths).storage(Silent);
    let (replica, handle) = builder.network(MemoryNetwork::new(1).endpoint(ReplicaId(0))).build().unwrap();
    pool.spawner().spawn_local(async move { drop(replica.run().await) }).unwrap();
    let clock = SystemClock::new();
    pool.run_until(async {
        let asking = std::pin::pin!(async {
            assert_eq!(handle.explain().await, "starting: the disk has not said yet what is on it");
            handle.shutdown().await;
            assert_eq!(handle.submit(Bytes::new()).await, Err(SubmitError::Stopped));
        });
        let reply_timeout = clock.sleep_until(clock.now().after(Duration::from_secs(30)));
        assert!(matches!(select(asking, reply_timeout).await, Either::Left(_)), "nobody answers");
    });
}

/// A storage that has no room so many times for what a start writes again.
struct Crowded(MemoryStorage, AtomicUsize);

#[async_trait]
impl Storage for Crowded {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        let left = self.1.load(Ordering::Relaxed);
        if left > 0 {
            self.1.store(left - 1, Ordering::Relaxed);
            return Err(StorageError::Full { used: 1, limit: 1 });
        }
        self.0.recover().await
    }
    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.0.write(batch).await
    }
    async fn read(
        &self,
        ops: RangeInclusive<OpNumber>,
        bytes_max: usize,
    ) -> Result<Vec<(OpNumber, Option<Entry>)>, StorageError> {
        self.0.read(ops, bytes_max).await
    }
}

/// A start that finds no room waits for some, as a write does; meanwhile it can be asked and ended.
#[test]
fn a_start_without_room_waits_for_some() {
    for refusals in [2, usize::MAX] {
        let (mut pool, config) = (LocalPool::new(), config_of(0, 1));
        let storage = Crowded(MemoryStorage::format(&config), AtomicUsize::new(refusals));
        let builder = Replica::builder(config, Lengths).storage(storage);
        let (replica, handle) = builder.network(MemoryNetwork::new(1).endpoint(ReplicaId(0))).build().unwrap();
        pool.spawner().spawn_local(async move { drop(replica.run().await) }).unwrap();
        pool.run_until(async {
            if refusals < usize::MAX {
                assert_eq!(handle.submit(Bytes::from_static(b"x")).await, Ok(bytes_of(1)));
            } else {
                let words = handle.explain().await;
                assert!(words.starts_with("starting: ") && words.contains("make room"), "{words}");
            }
            handle.shutdown().await;
            assert_eq!(handle.submit(Bytes::new()).await, Err(SubmitError::Stopped));
        });
    }
}

/// A cluster for tests costs no second at its end.
#[test]
fn a_cluster_ends_at_once() {
    let clock = SystemClock::new();
    let begin = clock.now();
    for _ in 0..10 {
        let cluster = crate::testing::cluster(3, || Lengths).unwrap();
        assert_eq!(block_on(cluster.handle(0).submit(Bytes::from_static(b"x"))), Ok(bytes_of(1)));
    }
    let took = clock.now().since(begin);
    assert!(took < Duration::from_secs(9), "{took:?} for ten of them");
}

/// A client whose configuration cannot work says so at every call, and at once.
#[test]
fn a_client_that_cannot_work_says_why() {
    type Set = fn(&mut ClientConfig);
    let sets: [(Set, &[&str]); 12] = [
        (|c| c.id = ClientId(0), &["ClientConfig::id = 0", "any number but 0"]),
        (|c| c.members.clear(), &["ClientConfig::members = 0", "1 to 9"]),
        (|c| c.members = vec![ReplicaId(1), ReplicaId(1)], &["ClientConfig::members = r1", "twice"]),
        (|c| c.window = 0, &["window = 0", "1 to 65536"]),
        (|c| c.reply_timeout = Duration::ZERO, &["ClientConfig::reply_timeout = 0ns", "1ms to 3600s"]),
        (|c| c.reply_timeout = Duration::MAX, &["ClientConfig::reply_timeout = 184467", "1ms to 3600s"]),
        (|c| c.retry_backoff = Duration::ZERO, &["ClientConfig::retry_backoff = 0ns", "1µs to 3600s"]),
        (|c| c.retry_backoff = Duration::MAX, &["ClientConfig::retry_backoff = 184467"]),
        (|c| c.queue_max = 0, &["ClientConfig::queue_max = 0", "at least 1"]),
        (|c| c.queue_bytes_max = 9, &["ClientConfig::queue_bytes_max = 9", "query_max = 1048576", "to 1048640"]),
        (|c| c.request_max = 0, &["request_max = 0", "1 to 16777216"]),
        (|c| c.query_max = u32::MAX, &["query_max = 4294967295", "1 to 16777216"]),
    ];
    assert_eq!(ClientConfig::new(9).validate(), Ok(()));
    for (set, parts) in sets {
        let mut config = ClientConfig::new(3);
        set(&mut config);
        let network = MemoryNetwork::new(3).client(config.id);
        let (client, runner) = Client::<Lengths>::new(config, network, SystemClock::new());
        let Err(SubmitError::Config(unfit)) = block_on(client.submit(Bytes::new())) else { panic!("{parts:?}") };
        assert_eq!(block_on(client.query(Bytes::new())), Err(QueryError::Config(unfit.clone())));
        let ended = block_on(runner.run()).unwrap_err().to_string();
        let words = unfit.to_string();
        assert!(parts.iter().all(|part| words.contains(part)) && ended.contains(&words), "{words}; {ended}");
    }
}

/// Limits of time that never come do not overflow.
#[test]
fn a_limit_of_for_ever_is_no_limit() {
    let mut replicas = start((1, 1), |_| (), || Lengths);
    let handle = replicas.handles[0].clone();
    replicas.pool.run_until(async move {
        let reply = handle.submit_within(Bytes::from_static(b"x"), Duration::MAX).await;
        assert_eq!(reply.map(|reply| reply.value), Ok(bytes_of(1)));
        let answer = handle.query_within(Bytes::from_static(b"x"), Duration::MAX).await;
        assert_eq!(answer.map(|answer| answer.value), Ok(bytes_of(1)));
    });
}

#[test]
fn a_replica_that_cannot_work_is_not_built() {
    let mut config = config_of(0, 1);
    config.timing.heartbeat = Duration::MAX;
    let storage = MemoryStorage::format(&config);
    let builder =
        Replica::builder(config, Lengths).storage(storage).network(MemoryNetwork::new(1).endpoint(ReplicaId(0)));
    let refused = builder.build().map(|_| ()).unwrap_err();
    assert!(matches!(refused, ConfigError::Field { field: "timing.heartbeat", .. }), "{refused}");
}

/// A clock that stands still but for what is done to it.
#[derive(Default)]
struct ByHand(AtomicU64);

#[async_trait]
impl Clock for ByHand {
    fn now(&self) -> Monotonic {
        Monotonic(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    async fn sleep_until(&self, deadline: Monotonic) {
        if self.now() < deadline {
            pending::<()>().await;
        }
    }
}

/// Each command takes a millisecond. It notes how many ops the status is behind at most.
#[derive(Clone, Default)]
struct Slow {
    clock: Arc<ByHand>,
    handle: Arc<OnceLock<Handle<Slow>>>,
    behind: Arc<AtomicU64>,
}

impl StateMachine for Slow {
    type Command = ();
    type Reply = ();
    type Query = ();
    type Answer = ();
    fn apply(&mut self, context: &ApplyContext, (): ()) {
        self.clock.0.fetch_add(1_000_000, Ordering::Relaxed);
        if let Some(handle) = self.handle.get() {
            let behind = context.position.op.0 - handle.status().applied.0;
            self.behind.fetch_max(behind, Ordering::Relaxed);
        }
    }
    fn query(&self, _: &QueryContext, (): ()) {}
    fn snapshot(&self) -> Snapshot {
        Snapshot::of(())
    }
    fn restore(_: &mut dyn Read) -> Result<Slow, RestoreError> {
        Ok(Slow::default())
    }
}

/// One poll applies many slices of a slow state machine. Another thread sees in the status how far it is.
#[test]
fn the_status_follows_within_a_poll_that_takes_long() {
    let mut config = config_of(0, 1);
    config.apply_slice = 8;
    (config.membership.constants.batch_requests_max, config.membership.constants.pipeline_max) = (1, 128);
    let slow = Slow::default();
    let (storage, network) = (MemoryStorage::format(&config), MemoryNetwork::new(1));
    let builder = Replica::builder(config, slow.clone()).storage(storage).network(network.endpoint(ReplicaId(0)));
    let (replica, handle) = builder.clock(slow.clock.clone()).build().unwrap();
    assert!(slow.handle.set(handle.clone()).is_ok());
    let mut pool = LocalPool::new();
    pool.spawner().spawn_local(async move { drop(replica.run().await) }).unwrap();
    let replies = pool.run_until(join_all((0..200).map(|_| handle.submit(()))));
    assert!(replies.iter().all(Result::is_ok));
    // It is told at the end of the first turn that began ten milliseconds after the last time: of slices of eight the third. And the
    // op that is being applied.
    let behind = slow.behind.load(Ordering::Relaxed);
    assert!((8..=25).contains(&behind), "{behind} ops behind");
}
