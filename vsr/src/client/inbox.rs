//! What an application leaves for the future that works for it, a replica's or a client's, and what that tells it: the two ends
//! [`Handle`](crate::Handle) and [`Client`](crate::Client) share it.

use std::any::TypeId;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::task::AtomicWaker;

use super::session::{SubmitError, Submitted};
use crate::codec::CodecError;
use crate::config::{Config, ConfigError};
use crate::log;
use crate::protocol::{Busy, CommitNumber, Event, Health, OpNumber, Position, ReplicaId, View};
use crate::traits::clock::Clock;
use crate::traits::state_machine::{StateMachine, decode, encode};

/// Why a query has no answer. Asking again is always safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Too many queries wait already, here or at the replica that was asked, or too many bytes of them.
    #[error("too many queries are waiting; ask again later")]
    Busy,
    /// The query is longer than `query_max`. It was not sent.
    #[error("the query is longer than query_max (of Config, or of ClientConfig): ask for less at once, or raise it")]
    TooLarge,
    /// The answer is longer than `answer_max`.
    #[error("the answer is longer than answer_max (of the replicas' Config): ask for less at once, or raise it")]
    AnswerTooLarge,
    /// The client's configuration cannot work.
    #[error("the client cannot work: {0}")]
    Config(#[source] ConfigError),
    /// The query has no encoding: it is too deep, or its type refuses. It was not sent.
    #[error("the query has no encoding: {0}")]
    Encode(#[source] CodecError),
    /// The replica's state machine cannot decode the query.
    #[error("the query cannot be decoded by the replica's state machine")]
    Undecodable,
    /// The state machine's answer has no encoding; why is in the log of the replica that was asked.
    #[error("the answer has no encoding: ask for something flatter, or change the type of the answer")]
    Unencodable,
    /// The answer does not decode as the type of this state machine.
    #[error("the answer does not decode: {0}")]
    Decode(#[source] CodecError),
    /// The state machine panicked while answering.
    #[error("the state machine panicked while answering: {0}")]
    Panicked(String),
    /// There was no answer in time.
    #[error("no answer before the deadline")]
    TimedOut,
    /// The replica of the handle, or the client, has stopped.
    #[error("the replica, or the client, has stopped")]
    Stopped,
}

/// What a replica says of itself at the end of a poll, and every 10 ms within a longer one. Later versions have more fields.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// The id of the replica.
    pub replica: ReplicaId,
    /// The view that it is in.
    pub view: View,
    /// Whether it takes part in normal operation.
    pub normal: bool,
    /// Whether it is the primary, in normal operation.
    pub is_primary: bool,
    /// The primary of the view.
    pub primary: ReplicaId,
    /// What it knows to be committed.
    pub commit: CommitNumber,
    /// What it has applied.
    pub applied: OpNumber,
    /// The head of its log.
    pub head: OpNumber,
    /// The number of open sessions.
    pub sessions: usize,
    /// How often it was started on this disk.
    pub starts: u64,
    /// Bytes of entries in the log.
    pub log_bytes: u64,
    /// The last op of the newest checkpoint that a start goes on from; 0 without one.
    pub checkpoint: OpNumber,
    /// The last op that was dropped from its log; 0 while it begins with op 1.
    pub log_base: OpNumber,
    /// The checkpoint that it fetches from others: its last op, the parts that are here, and how many there are.
    pub transfer: Option<(OpNumber, u32, u32)>,
    /// Whether commands can commit, as far as this replica sees it, and what stands in the way if not.
    pub health: Health,
    /// The members that refuse this replica, each with its reason; an operator has to act.
    pub refused_by: Vec<(ReplicaId, String)>,
    /// Whether the replica's future has ended.
    pub stopped: bool,
}

impl ReplicaStatus {
    /// The status of a replica that has not read its disk yet.
    pub(crate) fn unknown(replica: ReplicaId, primary: ReplicaId) -> ReplicaStatus {
        ReplicaStatus {
            replica,
            view: View::default(),
            normal: false,
            is_primary: false,
            primary,
            commit: CommitNumber(0),
            applied: OpNumber::ZERO,
            head: OpNumber::ZERO,
            sessions: 0,
            starts: 0,
            log_bytes: 0,
            checkpoint: OpNumber::ZERO,
            log_base: OpNumber::ZERO,
            transfer: None,
            health: Health::default(),
            refused_by: Vec::new(),
            stopped: false,
        }
    }
}

/// How much memory the things of one kind that wait may take.
#[derive(Debug)]
pub(crate) struct Account {
    count_max: usize,
    bytes_max: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// What one thing takes of an [`Account`]. Dropping it gives that back.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Account {
    fn new(count_max: usize, bytes_max: usize) -> Arc<Account> {
        Arc::new(Account { count_max, bytes_max, count: AtomicUsize::new(0), bytes: AtomicUsize::new(0) })
    }

    /// Room for one more of this many bytes, if there is.
    pub(crate) fn take(self: &Arc<Account>, bytes: usize) -> Option<Charge> {
        let bytes = bytes.saturating_add(Config::OVERHEAD as usize);
        let count_before = self.count.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Dropped again, it gives back what it took.
        let charge = Charge { account: self.clone(), bytes };
        let fits = count_before < self.count_max && bytes_before.saturating_add(bytes) <= self.bytes_max;
        fits.then_some(charge)
    }

    /// How many things wait, and their bytes.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.count.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.count.fetch_sub(1, Ordering::Relaxed);
        self.account.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Who waits for the outcome of a command.
#[derive(Debug)]
pub(crate) struct Caller {
    answer: oneshot::Sender<Submitted>,
    charge: Charge,
}

impl Caller {
    /// The place is free before the caller hears: it may use it at once.
    pub(crate) fn tell(self, result: Submitted) {
        let Caller { answer, charge } = self;
        drop(charge);
        let _ = answer.send(result);
    }
}

pub(crate) struct Submission {
    pub(crate) command: Bytes,
    pub(crate) caller: Caller,
}

/// Why there is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The storage keeps none.
    #[error("this storage keeps no checkpoints")]
    Unsupported,
    /// It could not be written, or the state machine gave no snapshot. The log of the replica says why; nothing is lost by it.
    #[error("the checkpoint was not written: the replica's log says why; ask again when that is over")]
    Failed,
    /// The replica has stopped.
    #[error("the replica has stopped")]
    Stopped,
}

pub(crate) type CheckpointAnswer = Result<OpNumber, CheckpointError>;

pub(crate) type QueryAnswer = Result<(Bytes, OpNumber), QueryError>;

pub(crate) struct QuerySubmission {
    pub(crate) query: Bytes,
    pub(crate) answer: oneshot::Sender<QueryAnswer>,
    /// `None`: there was no room for it, unless queries whose callers have gone are forgotten.
    pub(crate) charge: Option<Charge>,
}

/// What a handle, or a client, takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) request_max: usize,
    pub(crate) query_max: usize,
    pub(crate) count_max: usize,
    pub(crate) commands_bytes_max: usize,
    pub(crate) queries_bytes_max: usize,
}

/// Queries without room that may wait for the decision whether there is some.
const UNDECIDED_MAX: usize = 16;

/// What handles leave for the replica to take.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) submissions: Vec<Submission>,
    pub(crate) queries: Vec<QuerySubmission>,
    pub(crate) explain: Vec<oneshot::Sender<String>>,
    pub(crate) checkpoints: Vec<oneshot::Sender<CheckpointAnswer>>,
    /// A client's questions to single replicas.
    pub(crate) status: Vec<(ReplicaId, oneshot::Sender<(ReplicaStatus, String)>)>,
    pub(crate) watchers: Vec<Arc<Mutex<WatchQueue>>>,
    pub(crate) shutdown: Vec<oneshot::Sender<()>>,
    /// Stop at once, as a crash would.
    pub(crate) stop_now: bool,
    /// Queries among those above for which there was no room.
    undecided: usize,
    pub(crate) closed: bool,
}

impl Inbox {
    /// Whether there is nothing to take out: at almost every look.
    pub(crate) fn is_empty(&self) -> bool {
        self.submissions.is_empty()
            && self.queries.is_empty()
            && self.explain.is_empty()
            && self.checkpoints.is_empty()
            && self.status.is_empty()
            && self.watchers.is_empty()
            && self.shutdown.is_empty()
            && !self.stop_now
    }

    /// Takes everything out; what stays is whether it is closed.
    pub(crate) fn take(&mut self) -> Inbox {
        let closed = self.closed;
        std::mem::replace(self, Inbox { closed, ..Inbox::default() })
    }
}

/// What handles and their replica (or client) share.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    pub(crate) waker: AtomicWaker,
    pub(crate) status: Mutex<ReplicaStatus>,
    bounds: Bounds,
    commands: Arc<Account>,
    pub(crate) queries: Arc<Account>,
    /// Why requests have to wait.
    trouble: Mutex<Option<Busy>>,
    /// Why it has stopped, once it has.
    last_words: OnceLock<String>,
    /// Why it can never work.
    unfit: OnceLock<ConfigError>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Shared {
    pub(crate) fn new(bounds: Bounds, status: ReplicaStatus, clock: Arc<dyn Clock>) -> Arc<Shared> {
        Arc::new(Shared {
            inbox: Mutex::default(),
            waker: AtomicWaker::new(),
            status: Mutex::new(status),
            bounds,
            commands: Account::new(bounds.count_max, bounds.commands_bytes_max),
            queries: Account::new(bounds.count_max, bounds.queries_bytes_max),
            trouble: Mutex::default(),
            last_words: OnceLock::new(),
            unfit: OnceLock::new(),
            clock,
        })
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_view(&self, view: View) {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).view = view;
    }

    /// A replica refuses the client's connection, for this reason; `None`: it does not any more.
    pub(crate) fn set_refused(&self, by: ReplicaId, why: Option<String>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.refused_by.retain(|(known, _)| *known != by);
        status.refused_by.extend(why.map(|why| (by, why)));
    }

    pub(crate) fn trouble(&self) -> Option<Busy> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the requests of this `whose` session have to wait now. What only an operator can end is said once.
    pub(crate) fn set_trouble(&self, whose: &str, trouble: Option<Busy>) {
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == trouble {
            return;
        }
        match (*known, trouble) {
            (_, Some(Busy::LogFull)) => {
                log::warn!(whose, "the cluster's log is full: requests are refused until there is room");
            }
            (_, Some(Busy::Sessions)) => {
                log::warn!(whose, "the cluster has no place for another session: requests wait for one");
            }
            (Some(Busy::LogFull | Busy::Sessions), None) => log::info!(whose, "requests are taken again"),
            _ => {}
        }
        *known = trouble;
    }

    /// Keeps the reason of the stop, for calls that come later. The first reason counts.
    pub(crate) fn remember(&self, why: String) {
        let _ = self.last_words.set(why);
    }

    pub(crate) fn last_words(&self) -> String {
        self.last_words.get().cloned().unwrap_or_else(|| "the replica has stopped".to_owned())
    }

    /// It can never work, for this reason.
    pub(crate) fn close_unfit(&self, why: ConfigError) {
        let _ = self.unfit.set(why);
        self.close();
    }

    /// Nothing is accepted any more; callers that wait get an error.
    pub(crate) fn close(&self) {
        let mut inbox = self.inbox();
        inbox.closed = true;
        let Inbox { submissions, queries, explain, shutdown, watchers, .. } = inbox.take();
        drop(inbox);
        {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            (status.health, status.stopped) = (Health::Stopped, true);
        }
        for Submission { caller, .. } in submissions {
            caller.tell(Err(SubmitError::Stopped));
        }
        for query in queries {
            let _ = query.answer.send(Err(QueryError::Stopped));
        }
        for watcher in watchers {
            close_watch(&watcher);
        }
        for asked in explain {
            let _ = asked.send(self.last_words());
        }
        for done in shutdown {
            let _ = done.send(());
        }
    }

    pub(crate) fn submit(&self, command: Bytes) -> Result<oneshot::Receiver<Submitted>, SubmitError> {
        if let Some(unfit) = self.unfit.get() {
            return Err(SubmitError::Config(unfit.clone()));
        }
        if command.len() > self.bounds.request_max {
            return Err(SubmitError::TooLarge);
        }
        let (answer, receiver) = oneshot::channel();
        let mut inbox = self.inbox();
        if inbox.closed {
            return Err(SubmitError::Stopped);
        }
        let charge = self.commands.take(command.len()).ok_or(SubmitError::Busy)?;
        inbox.submissions.push(Submission { command, caller: Caller { answer, charge } });
        drop(inbox);
        self.waker.wake();
        Ok(receiver)
    }

    pub(crate) fn query(&self, query: Bytes) -> Result<oneshot::Receiver<QueryAnswer>, QueryError> {
        if let Some(unfit) = self.unfit.get() {
            return Err(QueryError::Config(unfit.clone()));
        }
        if query.len() > self.bounds.query_max {
            return Err(QueryError::TooLarge);
        }
        let (answer, receiver) = oneshot::channel();
        let mut inbox = self.inbox();
        if inbox.closed {
            return Err(QueryError::Stopped);
        }
        let charge = self.queries.take(query.len());
        if charge.is_none() {
            if inbox.undecided >= UNDECIDED_MAX {
                return Err(QueryError::Busy);
            }
            inbox.undecided += 1;
        }
        inbox.queries.push(QuerySubmission { query, answer, charge });
        drop(inbox);
        self.waker.wake();
        Ok(receiver)
    }
}

/// A value, and the place in the log that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positioned<T, P> {
    /// The reply, or the answer.
    pub value: T,
    /// A reply's own position, or the last op that an answer contains.
    pub position: P,
}

pub(crate) async fn submit_command<S: StateMachine>(
    shared: &Shared,
    command: S::Command,
) -> Result<Positioned<S::Reply, Position>, SubmitError> {
    let command = encode(command).map_err(SubmitError::Encode)?;
    let receiver = shared.submit(command)?;
    let (reply, position) = receiver.await.unwrap_or_else(|_| Err(SubmitError::Stopped))?;
    // No value of a codec is empty: it is how a reply that had no encoding arrives.
    let is_lost = reply.is_empty() && TypeId::of::<S::Reply>() != TypeId::of::<Bytes>();
    if is_lost {
        return Err(SubmitError::Unencodable);
    }
    let value = decode::<S::Reply>(reply).map_err(SubmitError::Decode)?;
    Ok(Positioned { value, position })
}

/// As [`submit_command`], for a limited time. The request goes on being sent: the floor may not pass a
/// number that is not answered (rule 5.8).
pub(crate) async fn submit_within<S: StateMachine>(
    shared: &Shared,
    command: S::Command,
    limit: Duration,
) -> Result<Positioned<S::Reply, Position>, SubmitError> {
    let deadline = shared.clock.now().after(limit);
    let submit = std::pin::pin!(submit_command::<S>(shared, command));
    // The clock itself, not the `Arc`, which would box the sleep once more.
    match select(submit, (*shared.clock).sleep_until(deadline)).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(SubmitError::TimedOut),
    }
}

pub(crate) async fn send_query_within<S: StateMachine>(
    shared: &Shared,
    query: S::Query,
    limit: Duration,
) -> Result<Positioned<S::Answer, OpNumber>, QueryError> {
    let deadline = shared.clock.now().after(limit);
    let query = std::pin::pin!(send_query::<S>(shared, query));
    match select(query, (*shared.clock).sleep_until(deadline)).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(QueryError::TimedOut),
    }
}

pub(crate) async fn send_query<S: StateMachine>(
    shared: &Shared,
    query: S::Query,
) -> Result<Positioned<S::Answer, OpNumber>, QueryError> {
    let query = encode(query).map_err(QueryError::Encode)?;
    let receiver = shared.query(query)?;
    let (answer, position) = receiver.await.unwrap_or_else(|_| Err(QueryError::Stopped))?;
    let value = decode::<S::Answer>(answer).map_err(QueryError::Decode)?;
    Ok(Positioned { value, position })
}

const WATCH_MAX: usize = 1024;

/// What a watcher has not read yet.
#[derive(Default)]
pub(crate) struct WatchQueue {
    events: VecDeque<Event>,
    missed: u64,
    waker: Option<std::task::Waker>,
    closed: bool,
}

pub(crate) fn offer(queue: &Mutex<WatchQueue>, event: &Event) {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    if queue.events.len() < WATCH_MAX {
        queue.events.push_back(event.clone());
    } else {
        queue.missed += 1;
    }
    if let Some(waker) = queue.waker.take() {
        waker.wake();
    }
}

pub(crate) fn close_watch(queue: &Mutex<WatchQueue>) {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.closed = true;
    if let Some(waker) = queue.waker.take() {
        waker.wake();
    }
}

/// An event of a replica, or the number of events that were lost because they were not read in time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// The next event.
    Event(Event),
    /// The number of events that were lost here because they were not read in time.
    Lagged(u64),
}

/// The events of a replica, in order. Ends when the replica stops.
pub struct Events {
    pub(crate) queue: Arc<Mutex<WatchQueue>>,
}

impl Stream for Events {
    type Item = WatchEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = queue.events.pop_front() {
            return Poll::Ready(Some(WatchEvent::Event(event)));
        }
        if queue.missed > 0 {
            return Poll::Ready(Some(WatchEvent::Lagged(std::mem::take(&mut queue.missed))));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Events {
    /// The next event; `None` when the replica has stopped.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    #[allow(clippy::should_implement_trait, reason = "the name that every stream's next has")]
    pub fn next(&mut self) -> impl Future<Output = Option<WatchEvent>> + '_ {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context))
    }
}
