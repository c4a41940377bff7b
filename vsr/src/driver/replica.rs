//! The driver: one future that feeds the protocol from the four traits and carries out its effects.
//!
//! It has a fixed set of slots (one storage write, a few reads, the network, the timer, the handles'
//! inbox), polled in a fixed order, and spawns nothing: run it on any executor. One turn takes in
//! everything that is ready, lets the protocol act, and starts what it wants done; the group commit and
//! the batching of requests come from that.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{BoxFuture, join, select};

use self::full::{FULL_PAUSE, FULL_PAUSE_MAX, Full, keep};
use self::parts::{Transferring, WantedCheckpoint};
use super::handle::Handle;
use super::metrics::Metrics;
use crate::adapters::system_clock::SystemClock;
use crate::client::inbox::{
    Bounds, Caller, Charge, Inbox, QueryAnswer, QueryError, QuerySubmission, ReplicaStatus, Shared, Submission,
    WatchQueue, close_watch,
};
use crate::client::session::{ClientSession, SubmitError, Submitted};
use crate::config::{Config, ConfigError};
use crate::log;
use crate::protocol::{
    Batch, BatchNumber, CheckpointId, Checksum, ClientId, ClusterId, Core, Effects, Entry, Event, Halt, Input, Inputs,
    Mark, Message, Monotonic, OpNumber, Options, Peer, ReadRequest, Refusal, ReplicaId, Request, Status, View,
    VsrState,
};
use crate::traits::clock::{Alarm, Clock};
use crate::traits::network::{Identity, Network, NetworkError, NetworkEvent};
use crate::traits::state_machine::{QueryContext, QueryFailure, StateMachine, Typed, drop_guarded};
use crate::traits::storage::{Storage, StorageError};

/// Why a replica's future has ended other than by `shutdown`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The storage has failed, or refuses to start. Its words say who must act.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The transport has stopped.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The protocol cannot go on safely.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The disk belongs to another cluster.
    #[error("the disk belongs to cluster {disk}, the configuration names cluster {configured}: use the right folder")]
    WrongCluster {
        /// On the disk.
        disk: ClusterId,
        /// In the configuration.
        configured: ClusterId,
    },
    /// The disk belongs to another replica.
    #[error("the disk belongs to replica {disk}, the configuration names replica {configured}: use the right folder")]
    WrongReplica {
        /// On the disk.
        disk: ReplicaId,
        /// In the configuration.
        configured: ReplicaId,
    },
    /// Members, quorums or constants are not those that the disk was formatted with.
    #[error(
        "members, quorums or cluster constants differ from those the disk was formatted with: they decide what is \
         replicated, and may not be changed in a configuration: use the one that the disk was formatted with"
    )]
    MembershipDiffers,
}

/// Sees every event of the protocol as it happens. For simulators and tests.
pub trait Observer: Send {
    /// Something happened; `core` is the state right after the turn in which it did.
    fn on_event(&mut self, core: &Core, event: &Event);

    /// The code has gone a way that tests count; told after the events of the turn.
    fn on_mark(&mut self, _core: &Core, _mark: &Mark) {}

    /// A turn has ended.
    fn on_turn(&mut self, _core: &Core) {}
}

/// A replica that is ready to [`run`](Replica::run). Dropped, run or not, it stops: its handles hear so.
pub struct Replica<S, D, N, C = SystemClock> {
    config: Config,
    machine: S,
    storage: D,
    network: N,
    clock: Arc<C>,
    observer: Option<Box<dyn Observer>>,
    /// The last to be dropped: a caller that hears that the replica has stopped finds disk and network free.
    closer: CloseOnDrop,
}

/// Gathers the parts of a [`Replica`].
pub struct ReplicaBuilder<S, D, N, C> {
    config: Config,
    machine: S,
    storage: D,
    network: N,
    clock: C,
    observer: Option<Box<dyn Observer>>,
}

impl<S: StateMachine> Replica<S, (), (), SystemClock> {
    /// A replica of this state machine, in its first state: what came later is in the log.
    #[must_use]
    pub fn builder(config: Config, machine: S) -> ReplicaBuilder<S, (), (), SystemClock> {
        ReplicaBuilder { config, machine, storage: (), network: (), clock: SystemClock::new(), observer: None }
    }
}

impl<S, D, N, C> ReplicaBuilder<S, D, N, C> {
    /// The storage of the log and of the vsr state.
    #[must_use]
    pub fn storage<D2: Storage>(self, storage: D2) -> ReplicaBuilder<S, D2, N, C> {
        let ReplicaBuilder { config, machine, network, clock, observer, .. } = self;
        ReplicaBuilder { config, machine, storage, network, clock, observer }
    }

    /// The transport to the other replicas and to clients.
    #[must_use]
    pub fn network<N2: Network>(self, network: N2) -> ReplicaBuilder<S, D, N2, C> {
        let ReplicaBuilder { config, machine, storage, clock, observer, .. } = self;
        ReplicaBuilder { config, machine, storage, network, clock, observer }
    }

    /// The clock; [`SystemClock`] if none is given.
    #[must_use]
    pub fn clock<C2: Clock>(self, clock: C2) -> ReplicaBuilder<S, D, N, C2> {
        let ReplicaBuilder { config, machine, storage, network, observer, .. } = self;
        ReplicaBuilder { config, machine, storage, network, clock, observer }
    }

    /// An observer that is told every event of the protocol. None if none is given.
    #[must_use]
    pub fn observer(mut self, observer: Box<dyn Observer>) -> ReplicaBuilder<S, D, N, C> {
        self.observer = Some(observer);
        self
    }
}

impl<S: StateMachine, D: Storage, N: Network, C: Clock> ReplicaBuilder<S, D, N, C> {
    /// Builds the replica, which has to be run, and the handle for the application.
    ///
    /// # Errors
    /// A [`ConfigError`] for a configuration that cannot work.
    #[allow(clippy::type_complexity, reason = "the two parts that building makes")]
    pub fn build(self) -> Result<(Replica<S, D, N, C>, Handle<S>), ConfigError> {
        let ReplicaBuilder { config, machine, storage, network, clock, observer } = self;
        config.validate()?;
        let status = ReplicaStatus::unknown(config.replica, config.membership.primary(View::default()));
        let clock = Arc::new(clock);
        let bounds = Bounds {
            request_max: config.membership.constants.request_max as usize,
            query_max: config.query_max as usize,
            count_max: config.handle_queue_max,
            commands_bytes_max: config.handle_bytes_max,
            queries_bytes_max: config.queries_bytes_max,
        };
        let shared = Shared::new(bounds, status, clock.clone());
        let handle = Handle { shared: shared.clone(), machine: PhantomData };
        Ok((Replica { config, machine, storage, network, clock, observer, closer: CloseOnDrop(shared) }, handle))
    }
}

impl<S: StateMachine, D: Storage, N: Network, C: Clock> Replica<S, D, N, C> {
    /// Runs until `shutdown`, or until something makes it unsafe to go on. Needs no particular runtime.
    ///
    /// # Cancel safety
    /// Dropping the future stops the replica as a crash would: nothing durable is lost, and callers of
    /// its handle are told that it has stopped.
    ///
    /// # Errors
    /// A [`ReplicaError`] that says who must act.
    pub async fn run(self) -> Result<(), ReplicaError> {
        // Bound first, the closer goes last, also when this future is dropped.
        let Replica { closer, config, machine, storage, network, clock, observer } = self;
        let shared = closer.0.clone();
        let result = drive(config, machine, &storage, &network, &*clock, &shared, observer).await;
        if let Err(error) = &result {
            shared.remember(format!("stopped: {error}"));
        }
        {
            // A disk that hangs lets go when it answers again; the shutdown does not wait for that.
            let closing = std::pin::pin!(join(storage.close(), network.close()));
            let _ = select(closing, clock.sleep_until(clock.now().after(CLOSE_MAX))).await;
        }
        drop(network);
        drop(storage);
        drop(closer);
        result
    }
}

/// Runs the protocol to its end; storage and network are still open then.
async fn drive<S: StateMachine, D: Storage, N: Network, C: Clock>(
    config: Config,
    machine: S,
    storage: &D,
    network: &N,
    clock: &C,
    shared: &Shared,
    observer: Option<Box<dyn Observer>>,
) -> Result<(), ReplicaError> {
    let Some(recovered) = start::recover(storage, shared).await? else { return Ok(()) };
    check_identity(&config, &recovered.state)?;
    let Some((machine, checkpoint)) = start::restore(storage, &recovered, machine, shared).await else {
        return Ok(());
    };
    let (disk_id, starts) = (recovered.state.disk_id, recovered.state.starts + 1);
    network.set_identity(Identity { disk_id, starts });
    let local_client = local_client(&config, &recovered.state);
    let options = options_of(&config, &recovered.state, storage.keeps_checkpoints());
    let core = Core::recover_from(options, recovered, checkpoint, clock.now(), clock.wall())?;
    let (room, needed) = (storage.room(), config.membership.constants.log_room_min());
    if core.head() == OpNumber::ZERO && room < needed {
        log::warn!(room, needed, "the storage has too little room for a log: every request will hear that it is full");
    }
    let session = ClientSession::new(
        local_client,
        config.membership.constants.window,
        config.timing.retry * 8,
        Duration::from_millis(5),
    );
    let mut driver = Driver {
        metrics: Metrics::new(config.replica),
        core,
        inputs: Inputs { apply_max: config.apply_slice, ..Inputs::default() },
        effects: Effects::default(),
        machine: Typed(machine),
        storage,
        network,
        clock,
        shared,
        session,
        observer,
        watchers: Vec::new(),
        queries: BTreeMap::new(),
        client_queries: BTreeMap::new(),
        explain_asked: Vec::new(),
        checkpoints_asked: Vec::new(),
        status_asked: Vec::new(),
        query_max: config.query_max as usize,
        answer_max: config.answer_max as usize,
        forget_at: Monotonic(0),
        next_query: 0,
        write: None,
        kept: Batch::default(),
        published_at: Monotonic(0),
        full: None,
        full_pause: FULL_PAUSE,
        reads: Vec::new(),
        checkpoint: None,
        transfer: Transferring::default(),
        recv: None,
        refused_by: BTreeMap::new(),
        alarm: Alarm::default(),
        stopping: None,
        requests: Vec::new(),
        settled: Vec::new(),
    };
    if driver.core.applied() > OpNumber::ZERO && !driver.core.lacks_state() {
        // What was restored is compared like what was applied.
        driver.take_digest(driver.core.applied());
    }
    let span = log::info_span!("replica", id = %driver.core.id());
    let result = std::future::poll_fn(|context| span.in_scope(|| driver.poll(context))).await;
    if let Err(error) = &result {
        shared.remember(format!("stopped: {error}"));
    }
    driver.stop();
    let Driver { machine: Typed(machine), .. } = driver;
    drop_guarded(machine);
    result
}

/// What the core is told at this start.
fn options_of(config: &Config, disk: &VsrState, checkpoints: bool) -> Options {
    Options {
        timing: config.timing,
        seed: config.seed ^ disk.starts.rotate_left(32),
        local_client: local_client(config, disk),
        machine_version: config.machine_version,
        log_bytes_max: config.log_bytes_max,
        cache_bytes: config.cache_bytes,
        queue_bytes_max: config.queue_bytes_max,
        checkpoints,
    }
}

/// Tells all callers that wait that the replica is gone, also when its future is dropped.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn check_identity(config: &Config, disk: &VsrState) -> Result<(), ReplicaError> {
    if disk.cluster != config.cluster {
        return Err(ReplicaError::WrongCluster { disk: disk.cluster, configured: config.cluster });
    }
    if disk.replica != config.replica {
        return Err(ReplicaError::WrongReplica { disk: disk.replica, configured: config.replica });
    }
    if disk.membership.checksum() != config.membership.checksum() {
        return Err(ReplicaError::MembershipDiffers);
    }
    Ok(())
}

/// A client id that no earlier life of this disk, and no other disk, has used (rule 5.1).
fn local_client(config: &Config, disk: &VsrState) -> ClientId {
    let mut bytes = Vec::new();
    bytes.extend(disk.disk_id.0.to_le_bytes());
    bytes.extend(disk.starts.to_le_bytes());
    bytes.extend(config.seed.to_le_bytes());
    ClientId(Checksum::of(&bytes).0.max(1))
}

enum Asker {
    Handle(oneshot::Sender<QueryAnswer>),
    Client { client: ClientId, nonce: u64 },
}

/// A query that waits for its index.
struct Waiting {
    query: Bytes,
    asker: Asker,
    _charge: Charge,
}

type ReadResult = Result<Vec<(OpNumber, Option<Entry>)>, StorageError>;

struct Driver<'a, S, D, N, C> {
    core: Core,
    /// What the next turn of the core is told, and what the last one wants done; empty between turns.
    inputs: Inputs,
    effects: Effects,
    machine: Typed<S>,
    storage: &'a D,
    network: &'a N,
    clock: &'a C,
    shared: &'a Shared,
    session: ClientSession<Caller>,
    observer: Option<Box<dyn Observer>>,
    watchers: Vec<Arc<Mutex<WatchQueue>>>,
    queries: BTreeMap<u64, Waiting>,
    /// Those of clients, and when each was asked last.
    client_queries: BTreeMap<(ClientId, u64), Monotonic>,
    /// Questions of handles and of clients about the replica's status, answered at the end of the turn.
    explain_asked: Vec<oneshot::Sender<String>>,
    checkpoints_asked: Vec<WantedCheckpoint>,
    status_asked: Vec<(ClientId, u64)>,
    query_max: usize,
    answer_max: usize,
    /// When queries of clients that have given up are looked for next: the search visits all that wait.
    forget_at: Monotonic,
    next_query: u64,
    write: Option<(BatchNumber, WriteFuture<'a>)>,
    /// What the write under way writes. A buffer: it is kept without an allocation for each write.
    kept: Batch,
    /// The time of the turn after which status and health were published last.
    published_at: Monotonic,
    /// A write that found no room.
    full: Option<Full>,
    full_pause: Duration,
    /// Reads that are under way, each with the number of times that it has failed.
    reads: Vec<(ReadRequest, u32, BoxFuture<'a, ReadResult>)>,
    /// The checkpoint that is being written.
    checkpoint: Option<Checkpointing<'a>>,
    /// A checkpoint that is fetched, or lent.
    transfer: Transferring<'a, S>,
    recv: Option<BoxFuture<'a, Result<Vec<NetworkEvent>, NetworkError>>>,
    /// The peers that refuse this replica, each with its reason, for status, `explain`, log and metrics.
    refused_by: BTreeMap<ReplicaId, String>,
    alarm: Alarm<'a>,
    stopping: Option<Monotonic>,
    metrics: Metrics,
    requests: Vec<Request>,
    settled: Vec<(Caller, Submitted)>,
}

/// A checkpoint that is being written.
struct Checkpointing<'a> {
    op: OpNumber,
    since: Monotonic,
    write: BoxFuture<'a, Result<CheckpointId, StorageError>>,
}

type WriteFuture<'a> = BoxFuture<'a, Result<(), StorageError>>;

/// Turns in one poll, before the executor gets a chance to run others.
const TURNS_MAX: usize = 32;
const READS_MAX: usize = 4;
/// How often a read that failed is tried again before its entry is taken for damaged.
const READ_RETRIES: u32 = 4;
const READ_BYTES_MAX: usize = 4 << 20;
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// How long the end of storage and network is waited for.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// A client that has not asked its query again for so long has given it up. One that waits asks every second.
const QUERY_FORGOTTEN: Duration = Duration::from_secs(5);
/// The status is not older than this and two turns.
const PUBLISH_AFTER: Duration = Duration::from_millis(10);
const FORGET_EVERY: Duration = Duration::from_millis(20);

impl<'a, S: StateMachine, D: Storage, N: Network, C: Clock> Driver<'a, S, D, N, C> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ReplicaError>> {
        let result = self.make_turns(context);
        self.publish_status();
        result
    }

    fn make_turns(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ReplicaError>> {
        for _ in 0..TURNS_MAX {
            let turn = self.turn(context);
            if self.inputs.now.since(self.published_at) >= PUBLISH_AFTER {
                // A poll behind a slow state machine can take long.
                self.publish_status();
            }
            match turn {
                Err(error) => return Poll::Ready(Err(error)),
                Ok(_) if self.is_stopped() => return Poll::Ready(Ok(())),
                Ok(true) => {}
                Ok(false) => return self.wait(context),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// One turn of the core: gathers what is ready, in a fixed order, and carries the effects out, in the order that
    /// [`turn`](crate::protocol::turn) gives. Whether anything happened.
    fn turn(&mut self, context: &mut Context<'_>) -> Result<bool, ReplicaError> {
        let now = self.clock.now();
        self.inputs.now = now;
        let mut progress = self.poll_write(context, now)?;
        self.inputs.room = self.storage.room();
        progress |= self.poll_reads(context)?;
        progress |= self.poll_checkpoint(context, now);
        progress |= self.poll_transfer(context);
        progress |= self.poll_network(context, now)?;
        progress |= self.poll_inbox(context, now);
        self.inputs.reads_max = READS_MAX.saturating_sub(self.reads.len());
        let is_idle = self.core.is_idle(&self.inputs);
        if !is_idle {
            self.inputs.wall = self.clock.wall();
        }
        self.core.turn(&mut self.inputs, &mut self.machine, &mut self.effects);
        progress |= self.effects.again;
        self.settle_replies(now);
        self.answer_queries();
        self.answer_questions();
        self.start_io(now);
        self.take_checkpoint(now);
        self.go_on_with_transfer()?;
        self.network.send(&mut self.effects.messages);
        if !is_idle {
            self.publish(now);
        }
        if let Some(observer) = &mut self.observer {
            observer.on_turn(&self.core);
        }
        match self.core.halted() {
            Some(halt) => Err(halt.clone().into()),
            None => Ok(progress),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, now: Monotonic) -> Result<bool, ReplicaError> {
        if let Some(full) = self.full.take_if(|full| now >= full.again_at) {
            self.write = Some((full.number, self.storage.write(full.batch.clone())));
            self.kept = full.batch;
            self.full_pause = (full.pause * 2).min(FULL_PAUSE_MAX);
        }
        let Some((number, write)) = &mut self.write else { return Ok(false) };
        let number = *number;
        let Poll::Ready(result) = write.as_mut().poll(context) else { return Ok(false) };
        self.write = None;
        match result {
            // Nothing of it was written, and the disk is as good as before: to the protocol it is one that does not
            // answer, until there is room again.
            Err(error @ StorageError::Full { .. }) => {
                let pause = self.full_pause;
                if pause == FULL_PAUSE {
                    log::warn!(%error, "a write waits for room");
                }
                let batch = std::mem::take(&mut self.kept);
                self.full = Some(Full { number, batch, again_at: now.after(pause), pause });
                return Ok(true);
            }
            result => result?,
        }
        // Bodies are not held longer than their write.
        self.kept.entries.clear();
        self.full_pause = FULL_PAUSE;
        self.metrics.write_ended(now);
        self.inputs.written = Some(number);
        Ok(true)
    }

    fn poll_reads(&mut self, context: &mut Context<'_>) -> Result<bool, ReplicaError> {
        let mut progress = false;
        let mut at = 0;
        while at < self.reads.len() {
            match self.reads[at].2.as_mut().poll(context) {
                Poll::Ready(result) => {
                    let (request, failed, _) = self.reads.remove(at);
                    let entries = match result {
                        Err(StorageError::Io { .. }) if failed < READ_RETRIES => {
                            let read = self.storage.read(request.ops(), READ_BYTES_MAX);
                            self.reads.push((request, failed + 1, read));
                            progress = true;
                            continue;
                        }
                        // An entry that cannot be read is as good as a damaged one: a peer has it. The rest is asked for again.
                        Err(StorageError::Io { .. })
                            if self.core.membership().size() > 1 || matches!(request, ReadRequest::Scrub { .. }) =>
                        {
                            vec![(*request.ops().start(), None)]
                        }
                        result => result?,
                    };
                    self.inputs.arrived.push(Input::Read { request, entries });
                    progress = true;
                }
                Poll::Pending => at += 1,
            }
        }
        Ok(progress)
    }

    fn poll_network(&mut self, context: &mut Context<'_>, now: Monotonic) -> Result<bool, ReplicaError> {
        let network = self.network;
        let recv = self.recv.get_or_insert_with(|| network.recv());
        let Poll::Ready(arrivals) = recv.as_mut().poll(context) else { return Ok(false) };
        self.recv = None;
        for arrival in arrivals? {
            match arrival {
                NetworkEvent::Message { from: Peer::Client(client), message: Message::Query { nonce, query, .. } } => {
                    self.ask_for_client(client, nonce, query, now);
                }
                NetworkEvent::Message { from: Peer::Client(client), message: Message::RequestStatus { nonce } } => {
                    self.status_asked.push((client, nonce));
                }
                NetworkEvent::Message { from, message } => self.inputs.arrived.push(Input::Message { from, message }),
                NetworkEvent::PeerUp(Peer::Replica(peer)) => {
                    self.refused_by.remove(&peer);
                    self.inputs.arrived.push(Input::PeerUp(peer));
                }
                NetworkEvent::PeerDown { peer: Peer::Replica(peer), refused } => {
                    self.refused_by.remove(&peer);
                    self.inputs.arrived.push(Input::PeerDown { peer, refused });
                }
                NetworkEvent::Refused { by, why } => _ = self.refused_by.insert(by, why),
                NetworkEvent::PeerUp(_) | NetworkEvent::PeerDown { .. } => {}
            }
        }
        Ok(true)
    }

    /// Takes in what handles have left in the inbox. Returns whether the core has work from it.
    fn poll_inbox(&mut self, context: &mut Context<'_>, now: Monotonic) -> bool {
        self.shared.waker.register(context.waker());
        let inbox = {
            let mut inbox = self.shared.inbox();
            (!inbox.is_empty()).then(|| inbox.take())
        };
        let progress = inbox.is_some_and(|inbox| self.take_in(inbox, now));
        let _ = self.session.poll(now, &mut self.requests);
        self.session.take_told(&mut self.settled);
        if !self.requests.is_empty() {
            self.inputs.arrived.push(Input::Requests(std::mem::take(&mut self.requests)));
        }
        progress
    }

    fn take_in(&mut self, inbox: Inbox, now: Monotonic) -> bool {
        let Inbox { submissions, queries, explain, checkpoints, watchers, shutdown, stop_now, .. } = inbox;
        let mut progress = !(submissions.is_empty() && queries.is_empty() && checkpoints.is_empty());
        for Submission { command, caller } in submissions {
            self.session.submit(command, caller);
        }
        if queries.iter().any(|query| query.charge.is_none()) {
            self.forget_queries(now);
        }
        for QuerySubmission { query, answer, charge } in queries {
            match charge.or_else(|| self.shared.queries.take(query.len())) {
                Some(charge) => self.ask(query, Asker::Handle(answer), charge),
                None => {
                    let _ = answer.send(Err(QueryError::Busy));
                }
            }
        }
        self.explain_asked.extend(explain);
        self.want_checkpoints(checkpoints);
        self.watchers.extend(watchers);
        if !shutdown.is_empty() {
            self.shared.inbox().shutdown.extend(shutdown);
            if self.stopping.is_none() {
                self.stopping = Some(now.after(HAND_OVER_MAX));
                self.inputs.arrived.push(Input::HandOver);
                progress = true;
            }
            if stop_now {
                self.stopping = Some(now);
            }
        }
        progress
    }

    fn ask(&mut self, query: Bytes, asker: Asker, charge: Charge) {
        self.next_query += 1;
        self.queries.insert(self.next_query, Waiting { query, asker, _charge: charge });
        self.inputs.arrived.push(Input::Query(self.next_query));
    }

    /// A client's query is held to the same bounds as that of a handle, and the client hears so.
    fn ask_for_client(&mut self, client: ClientId, nonce: u64, query: Bytes, now: Monotonic) {
        // Asked again before it is answered: one answer is enough.
        if let Some(asked_at) = self.client_queries.get_mut(&(client, nonce)) {
            *asked_at = now;
            return;
        }
        if query.len() > self.query_max {
            return self.refuse_client(client, nonce, Refusal::TooLarge);
        }
        let charge = self.shared.queries.take(query.len()).or_else(|| {
            self.forget_queries(now);
            self.shared.queries.take(query.len())
        });
        let Some(charge) = charge else { return self.refuse_client(client, nonce, Refusal::Busy) };
        self.client_queries.insert((client, nonce), now);
        self.ask(query, Asker::Client { client, nonce }, charge);
    }

    /// Drops queries whose callers have gone, to make room for others.
    fn forget_queries(&mut self, now: Monotonic) {
        if now < self.forget_at {
            return;
        }
        self.forget_at = now.after(FORGET_EVERY);
        self.client_queries.retain(|_, asked_at| now.since(*asked_at) < QUERY_FORGOTTEN);
        let asked = &self.client_queries;
        self.queries.retain(|_, waiting| match &waiting.asker {
            Asker::Handle(answer) => !answer.is_canceled(),
            Asker::Client { client, nonce } => asked.contains_key(&(*client, *nonce)),
        });
    }

    fn refuse_client(&mut self, client: ClientId, nonce: u64, refusal: Refusal) {
        self.inputs.arrived.push(Input::RefuseQuery { client, nonce, refusal });
    }

    fn answer_client(&mut self, client: ClientId, nonce: u64, answer: Result<Bytes, Refusal>) {
        let (position, view) = (self.core.applied(), self.core.started_view());
        let answer = Message::Answer { client, nonce, answer, position, view };
        self.core.tell_client(client, answer, &mut self.effects);
    }

    fn settle_replies(&mut self, now: Monotonic) {
        if !self.effects.replies.is_empty() {
            for reply in self.effects.replies.drain(..) {
                self.session.on_reply(reply, now, &mut self.settled);
            }
        }
        if self.settled.is_empty() {
            return;
        }
        for (caller, result) in self.settled.drain(..) {
            caller.tell(result);
        }
    }

    /// Queries whose index is confirmed and applied, from the state as it now is: between two ops.
    fn answer_queries(&mut self) {
        if self.effects.queries.is_empty() {
            return;
        }
        let mut ready = std::mem::take(&mut self.effects.queries);
        for token in ready.drain(..) {
            let Some(Waiting { query, asker, _charge }) = self.queries.remove(&token) else { continue };
            let applied = self.core.applied();
            let context = QueryContext { applied, timestamp: self.core.applied_timestamp() };
            let answer = self.machine.query(&context, query);
            if let Err(QueryFailure::Panicked(panic)) = &answer {
                log::error!(%panic, "the state machine panicked while answering a query");
            } else if let Err(QueryFailure::Unencodable(error)) = &answer {
                log::error!(%error, "an answer has no encoding");
            }
            let is_too_long = answer.as_ref().is_ok_and(|answer| answer.len() > self.answer_max);
            match asker {
                Asker::Handle(sender) => {
                    let answer = match answer {
                        Ok(_) if is_too_long => Err(QueryError::AnswerTooLarge),
                        Ok(answer) => Ok((answer, applied)),
                        Err(QueryFailure::Panicked(panic)) => Err(QueryError::Panicked(panic)),
                        Err(QueryFailure::Undecodable) => Err(QueryError::Undecodable),
                        Err(QueryFailure::Unencodable(_)) => Err(QueryError::Unencodable),
                    };
                    let _ = sender.send(answer);
                }
                Asker::Client { client, nonce } => {
                    self.client_queries.remove(&(client, nonce));
                    let answer = match answer {
                        Ok(_) if is_too_long => Err(Refusal::AnswerTooLarge),
                        Ok(answer) => Ok(answer),
                        Err(QueryFailure::Panicked(_)) => Err(Refusal::Panicked),
                        Err(QueryFailure::Undecodable) => Err(Refusal::Undecodable),
                        Err(QueryFailure::Unencodable(_)) => Err(Refusal::Unencodable),
                    };
                    self.answer_client(client, nonce, answer);
                }
            }
        }
        self.effects.queries = ready;
    }

    fn start_io(&mut self, now: Monotonic) {
        if let Some((number, batch)) = self.effects.write.take() {
            self.metrics.write_started(now, &batch);
            keep(&mut self.kept, &batch);
            self.write = Some((number, self.storage.write(batch)));
        }
        if !self.effects.reads.is_empty() {
            for request in self.effects.reads.drain(..) {
                let read = self.storage.read(request.ops(), READ_BYTES_MAX);
                self.reads.push((request, 0, read));
            }
        }
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ReplicaError>> {
        let mut deadline = self.core.next_deadline().min(self.session.next_due());
        deadline = deadline.min(self.stopping.unwrap_or(Monotonic(u64::MAX)));
        deadline = deadline.min(self.full.as_ref().map_or(Monotonic(u64::MAX), |full| full.again_at));
        self.alarm.wake_at(self.clock, deadline, context);
        Poll::Pending
    }

    /// A shutdown is complete when the role is handed over, or cannot be in time, and no write is under
    /// way.
    fn is_stopped(&self) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let handed_over = self.core.status() == Status::Normal && !self.core.is_primary();
        let alone = self.core.membership().size() == 1;
        // Past the deadline it stops as it is: a write that never ends must not hold it.
        (self.write.is_none() && (handed_over || alone)) || self.clock.now() >= deadline
    }

    fn stop(&mut self) {
        for caller in self.session.drain() {
            caller.tell(Err(SubmitError::Stopped));
        }
        for (_, Waiting { asker, .. }) in std::mem::take(&mut self.queries) {
            if let Asker::Handle(answer) = asker {
                let _ = answer.send(Err(QueryError::Stopped));
            }
        }
        for watcher in &self.watchers {
            close_watch(watcher);
        }
    }
}

mod checkpoint;
#[cfg(test)]
mod checkpoint_tests;
mod full;
mod parts;
mod publish;
mod start;
pub(crate) use start::newest_checkpoint;
#[cfg(test)]
mod tests;
mod transfer;
