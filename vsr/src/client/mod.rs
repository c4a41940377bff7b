//! A client from outside the cluster: finds the primary, keeps its session, sends again until answered.

pub(crate) mod inbox;
pub(crate) mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use self::inbox::{
    Bounds, Caller, Charge, Inbox, Positioned, QueryAnswer, QueryError, QuerySubmission, ReplicaStatus, Shared,
    Submission, send_query, send_query_within, submit_command, submit_within,
};
use self::session::{ClientSession, SubmitError, Submitted};
use crate::config::{ConfigError, bad, check_count, check_holds, check_limit, check_time};
use crate::protocol::limits::{QUERY_MAX, REQUEST_MAX, WINDOW};
use crate::protocol::{
    Busy, ClientId, Envelope, MEMBERS_MAX, Message, Monotonic, OpNumber, Outcome, Peer, Position, Random, Refusal,
    ReplicaId, Reply, Request, View, in_messages,
};
use crate::traits::clock::{Alarm, Clock};
use crate::traits::network::{Network, NetworkError, NetworkEvent};
use crate::traits::state_machine::{StateMachine, decode};

/// The configuration of a client. Made by [`ClientConfig::new`], and changed field by field, or by [`with`](ClientConfig::with); later
/// versions have more fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Its id: fresh for each client that is built, never used again.
    pub id: ClientId,
    /// The ids of the cluster's members, in the order of the membership.
    pub members: Vec<ReplicaId>,
    /// Requests that may be in flight; not more than the cluster's `window`. Default 1,024.
    pub window: u32,
    /// How long to wait for an answer before another replica is asked; longer where answers take longer. Default
    /// 200 ms.
    pub reply_timeout: Duration,
    /// How long to wait before a request is sent again after a replica said that it knows no primary, and a quarter of the wait after any
    /// other refusal for now. It doubles each time, up to half of `reply_timeout` and up to a second. Default 5 ms.
    pub retry_backoff: Duration,
    /// Requests that wait here for callers, and queries; beyond it a submit, or a query, fails with `Busy`. Default
    /// 65,536.
    pub queue_max: usize,
    /// Bytes of the requests that wait here, and of the queries; beyond them `Busy`, too. Default 256 MiB.
    pub queue_bytes_max: usize,
    /// The longest command, in bytes: the `request_max` that the cluster was formatted with. Default 256 KiB, as there.
    /// A longer one is refused at once.
    pub request_max: u32,
    /// The longest query, in bytes: the `query_max` of the replicas. Default 1 MiB, as there.
    pub query_max: u32,
    /// The seed of jitter. Default: the client's id.
    pub seed: u64,
}

impl ClientConfig {
    /// A client of a cluster of `n` members with ids 0 to `n` - 1, under a fresh random id.
    #[must_use]
    pub fn new(n: usize) -> ClientConfig {
        let id = ClientId((u128::from(crate::config::entropy()) << 64) | u128::from(crate::config::entropy()));
        ClientConfig {
            id,
            members: (0..n).map(|id| ReplicaId(id as u8)).collect(),
            window: WINDOW.default as u32,
            reply_timeout: Duration::from_millis(200),
            retry_backoff: Duration::from_millis(5),
            queue_max: 65_536,
            queue_bytes_max: 256 << 20,
            request_max: REQUEST_MAX.default as u32,
            query_max: QUERY_MAX.default as u32,
            seed: id.0 as u64,
        }
    }

    /// This configuration with a change: `ClientConfig::new(3).with(|config| config.window = 64)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut ClientConfig)) -> ClientConfig {
        change(&mut self);
        self
    }

    /// Checks every field. A client that is built of others refuses every call with this error.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id == ClientId(0) {
            return bad("ClientConfig::id", 0, "any number but 0, which means \"no client\" and would get no answer");
        }
        let n = self.members.len();
        if n == 0 || n > MEMBERS_MAX {
            return bad("ClientConfig::members", n, format!("1 to {MEMBERS_MAX} members: list each replica once"));
        }
        for (at, member) in self.members.iter().enumerate() {
            if self.members[..at].contains(member) {
                return bad("ClientConfig::members", member, "listed twice: list each replica once");
            }
        }
        check_limit(WINDOW, self.window.into())?;
        check_limit(REQUEST_MAX, self.request_max.into())?;
        check_limit(QUERY_MAX, self.query_max.into())?;
        let millisecond = Duration::from_millis(1);
        check_time(
            "ClientConfig::reply_timeout",
            self.reply_timeout,
            millisecond,
            "another replica is asked after it",
        )?;
        let microsecond = Duration::from_micros(1);
        check_time(
            "ClientConfig::retry_backoff",
            self.retry_backoff,
            microsecond,
            "a primary is asked for again after it",
        )?;
        check_count("ClientConfig::queue_max", self.queue_max, "no caller would ever be served")?;
        let longest = u64::from(self.request_max.max(self.query_max));
        let other = if self.request_max >= self.query_max { "request_max" } else { "query_max" };
        let held = ("ClientConfig::queue_bytes_max", self.queue_bytes_max as u64);
        check_holds(held, (other, longest), longest + crate::config::Config::OVERHEAD)
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            request_max: self.request_max as usize,
            query_max: self.query_max as usize,
            count_max: self.queue_max,
            commands_bytes_max: self.queue_bytes_max,
            queries_bytes_max: self.queue_bytes_max,
        }
    }
}

/// Submits and queries, from outside the cluster. It has the methods of a [`Handle`](crate::Handle) for that. Cheap to clone; all clones
/// share one session.
pub struct Client<S> {
    shared: Arc<Shared>,
    machine: PhantomData<fn() -> S>,
}

impl<S> Clone for Client<S> {
    fn clone(&self) -> Client<S> {
        Client { shared: self.shared.clone(), machine: PhantomData }
    }
}

impl<S> std::fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// The future that does a client's work; spawn it beside the application. Dropped, run or not, it closes the client.
pub struct ClientRunner<N> {
    config: ClientConfig,
    network: N,
    closer: ClientCloser,
}

impl<S: StateMachine> Client<S> {
    /// A client, and the future that has to run for it. With a configuration that cannot work
    /// ([`ClientConfig::validate`]) every call says so, and the future ends at once.
    pub fn new<N: Network, C: Clock>(config: ClientConfig, network: N, clock: C) -> (Client<S>, ClientRunner<N>) {
        let nothing = ReplicaStatus::unknown(ReplicaId(0), ReplicaId(0));
        let shared = Shared::new(config.bounds(), nothing, Arc::new(clock));
        if let Err(unfit) = config.validate() {
            shared.close_unfit(unfit);
        }
        let client = Client { shared: shared.clone(), machine: PhantomData };
        (client, ClientRunner { config, network, closer: ClientCloser(shared) })
    }

    /// Executes a command exactly once and returns its reply. Works through any replica and through view changes: the request is sent
    /// again until it is answered (rules 5.7, 5.8). Commands that are in flight together have no order (rule 5.6).
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting, not the request: it may still be executed, once.
    ///
    /// # Errors
    /// A [`SubmitError`]; each says whether the command may have been executed.
    pub async fn submit(&self, command: S::Command) -> Result<S::Reply, SubmitError> {
        submit_command::<S>(&self.shared, command).await.map(|reply| reply.value)
    }

    /// As [`submit`](Self::submit), with the position in the log at which the command was executed.
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn submit_positioned(&self, command: S::Command) -> Result<Positioned<S::Reply, Position>, SubmitError> {
        submit_command::<S>(&self.shared, command).await
    }

    /// As [`submit_positioned`](Self::submit_positioned), and stops waiting `limit` after the call.
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    ///
    /// # Errors
    /// [`SubmitError::TimedOut`] when there is no reply in time: whether the command is executed, then or later, is unknown. Else as
    /// [`submit`](Self::submit).
    pub async fn submit_within(
        &self,
        command: S::Command,
        limit: Duration,
    ) -> Result<Positioned<S::Reply, Position>, SubmitError> {
        submit_within::<S>(&self.shared, command, limit).await
    }

    /// Answers a query from a state that contains every command that was acknowledged, to any client, before the call (linearizable;
    /// rules 8.1, 8.2). Works through any replica, and writes nothing to the log.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless: a query changes nothing.
    ///
    /// # Errors
    /// A [`QueryError`]. To ask again is always safe.
    pub async fn query(&self, query: S::Query) -> Result<S::Answer, QueryError> {
        send_query::<S>(&self.shared, query).await.map(|answer| answer.value)
    }

    /// As [`query`](Self::query), with the last op that the answer contains.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn query_positioned(&self, query: S::Query) -> Result<Positioned<S::Answer, OpNumber>, QueryError> {
        send_query::<S>(&self.shared, query).await
    }

    /// As [`query_positioned`](Self::query_positioned), and stops waiting `limit` after the call.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    ///
    /// # Errors
    /// [`QueryError::TimedOut`] when there is no answer in time. Else as [`query`](Self::query).
    pub async fn query_within(
        &self,
        query: S::Query,
        limit: Duration,
    ) -> Result<Positioned<S::Answer, OpNumber>, QueryError> {
        send_query_within::<S>(&self.shared, query, limit).await
    }

    /// Asks one replica what it says of itself, and for its sentence on why there is no progress, as
    /// [`Handle::explain`](crate::Handle::explain) gives it. `None` when there is no answer `limit` after the call, and when the client is
    /// closed. The answer travels encoded, so this comes with the feature `msgpack`.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    #[cfg(feature = "msgpack")]
    pub async fn status(&self, replica: ReplicaId, limit: Duration) -> Option<(ReplicaStatus, String)> {
        let (answer, receiver) = oneshot::channel();
        {
            let mut inbox = self.shared.inbox();
            if inbox.closed {
                return None;
            }
            inbox.status.push((replica, answer));
        }
        self.shared.waker.wake();
        let deadline = self.shared.clock.sleep_until(self.shared.clock.now().after(limit));
        match futures::future::select(receiver, deadline).await {
            futures::future::Either::Left((status, _)) => status.ok(),
            futures::future::Either::Right(_) => None,
        }
    }

    /// Ends the client's future. Callers that wait get [`SubmitError::Stopped`] or [`QueryError::Stopped`]: whether their commands are
    /// executed is unknown.
    pub fn close(&self) {
        self.shared.close();
        self.shared.waker.wake();
    }
}

impl<S> Client<S> {
    /// The newest view that an answer has named; view 0 before the first answer.
    #[must_use]
    pub fn view(&self) -> View {
        self.shared.status().view
    }

    /// The replicas that refuse this client's connection, each with its reason in words. An operator has to act.
    #[must_use]
    pub fn refused_by(&self) -> Vec<(ReplicaId, String)> {
        self.shared.status().refused_by
    }

    /// Why requests have to wait, as the cluster said last. `None` while they are taken, and while nothing is heard.
    #[must_use]
    pub fn trouble(&self) -> Option<Busy> {
        self.shared.trouble()
    }
}

struct WaitingQuery {
    query: Bytes,
    answer: oneshot::Sender<QueryAnswer>,
    due: Monotonic,
    /// How often it was sent.
    sent: u32,
    _charge: Charge,
}

/// This many of the oldest queries are sent again when there is no answer, each after times that double up to a second.
const PROBES: usize = 4;
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The error that a caller gets for a refusal.
fn refused(refusal: Refusal) -> QueryError {
    match refusal {
        Refusal::TooLarge => QueryError::TooLarge,
        Refusal::AnswerTooLarge => QueryError::AnswerTooLarge,
        Refusal::Busy => QueryError::Busy,
        Refusal::Panicked => QueryError::Panicked("its words are in the log of the replica that was asked".to_owned()),
        Refusal::Unencodable => QueryError::Unencodable,
        _ => QueryError::Undecodable,
    }
}

impl<N: Network> ClientRunner<N> {
    /// Runs until the client is closed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the client.
    ///
    /// # Errors
    /// When the network has stopped.
    pub async fn run(self) -> Result<(), NetworkError> {
        // Bound first, the closer is dropped last: a caller that hears that the client is closed finds its network free.
        let ClientRunner { closer, config, network } = self;
        let shared = closer.0.clone();
        let clock = shared.clock.clone();
        if let Err(unfit) = config.validate() {
            return Err(NetworkError::new(format!("the client cannot work: {unfit}")));
        }
        let mut random = Random::new(config.seed);
        let target = random.below(config.members.len() as u64) as usize;
        let mut worker = Worker {
            session: ClientSession::new(config.id, config.window, config.reply_timeout, config.retry_backoff),
            config,
            network: &network,
            shared: &shared,
            clock: &*clock,
            target,
            view: View::default(),
            view_known: false,
            rotated_at: Monotonic(0),
            up: BTreeSet::new(),
            asked: BTreeSet::new(),
            queries: BTreeMap::new(),
            status: BTreeMap::new(),
            next_nonce: random.next_u64() >> 1,
            queries_due: Monotonic(u64::MAX),
            recv: None,
            alarm: Alarm::default(),
            outgoing: Vec::new(),
            requests: Vec::new(),
            settled: Vec::new(),
        };
        let result = std::future::poll_fn(|context| worker.poll(context)).await;
        for caller in worker.session.drain() {
            caller.tell(Err(SubmitError::Stopped));
        }
        result
    }
}

struct ClientCloser(Arc<Shared>);

impl Drop for ClientCloser {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Worker<'a, N> {
    config: ClientConfig,
    network: &'a N,
    shared: &'a Shared,
    clock: &'a dyn Clock,
    session: ClientSession<Caller>,
    /// The member that is asked, by its place in `members`.
    target: usize,
    view: View,
    /// Whether any answer has named a view.
    view_known: bool,
    rotated_at: Monotonic,
    /// The replicas to which there is a connection.
    up: BTreeSet<ReplicaId>,
    /// The replicas to which something was sent that may not be answered yet.
    asked: BTreeSet<ReplicaId>,
    queries: BTreeMap<u64, WaitingQuery>,
    status: BTreeMap<u64, (ReplicaId, oneshot::Sender<(ReplicaStatus, String)>)>,
    next_nonce: u64,
    queries_due: Monotonic,
    recv: Option<BoxFuture<'a, Result<Vec<NetworkEvent>, NetworkError>>>,
    alarm: Alarm<'a>,
    outgoing: Vec<Envelope>,
    requests: Vec<Request>,
    settled: Vec<(Caller, Submitted)>,
}

impl<N: Network> Worker<'_, N> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), NetworkError>> {
        loop {
            let now = self.clock.now();
            let mut progress = match self.poll_network(context, now) {
                Ok(progress) => progress,
                Err(error) => return Poll::Ready(Err(error)),
            };
            self.shared.waker.register(context.waker());
            let Inbox { submissions, queries, status, closed, .. } = self.shared.inbox().take();
            if closed {
                return Poll::Ready(Ok(()));
            }
            progress |= !(submissions.is_empty() && queries.is_empty() && status.is_empty());
            self.status.retain(|_, (_, answer)| !answer.is_canceled());
            for (replica, answer) in status {
                self.next_nonce += 1;
                self.status.insert(self.next_nonce, (replica, answer));
                self.ask_status(replica, self.next_nonce);
            }
            for Submission { command, caller } in submissions {
                self.session.submit(command, caller);
            }
            if queries.iter().any(|query| query.charge.is_none()) {
                self.queries.retain(|_, waiting| !waiting.answer.is_canceled());
            }
            for query in queries {
                self.take_query(query);
            }
            self.send_due(now);
            self.settle();
            if !progress {
                return self.wait(context);
            }
        }
    }

    fn take_query(&mut self, QuerySubmission { query, answer, charge }: QuerySubmission) {
        let Some(charge) = charge.or_else(|| self.shared.queries.take(query.len())) else {
            let _ = answer.send(Err(QueryError::Busy));
            return;
        };
        self.next_nonce += 1;
        let waiting = WaitingQuery { query, answer, due: Monotonic(0), sent: 0, _charge: charge };
        self.queries.insert(self.next_nonce, waiting);
        self.queries_due = Monotonic(0);
    }

    fn poll_network(&mut self, context: &mut Context<'_>, now: Monotonic) -> Result<bool, NetworkError> {
        let network = self.network;
        let recv = self.recv.get_or_insert_with(|| network.recv());
        let Poll::Ready(arrivals) = recv.as_mut().poll(context) else { return Ok(false) };
        self.recv = None;
        for arrival in arrivals? {
            match arrival {
                NetworkEvent::Message { message: Message::Replies { view, replies }, .. } => {
                    for reply in replies {
                        self.on_reply(view, reply, now);
                    }
                }
                NetworkEvent::Message { message: Message::Answer { nonce, answer, position, view, .. }, .. } => {
                    self.on_view(view, now);
                    if let Some(query) = self.queries.remove(&nonce) {
                        let answer = answer.map(|answer| (answer, position));
                        let _ = query.answer.send(answer.map_err(refused));
                        // Others are the oldest now.
                        self.queries_due = self.queries_due.min(now.after(self.config.reply_timeout));
                    }
                }
                NetworkEvent::PeerDown { peer: Peer::Replica(peer), .. } => {
                    self.shared.set_refused(peer, None);
                    self.on_peer_lost(peer, now);
                }
                NetworkEvent::Refused { by, why } => {
                    self.shared.set_refused(by, Some(why));
                    self.on_peer_lost(by, now);
                }
                NetworkEvent::Message { message: Message::Status { nonce, status }, .. } => {
                    if let Some((_, answer)) = self.status.remove(&nonce)
                        && let Ok(status) = decode(status)
                    {
                        let _ = answer.send(status);
                    }
                }
                // What was sent before there was a connection is lost.
                NetworkEvent::PeerUp(Peer::Replica(peer)) => {
                    self.shared.set_refused(peer, None);
                    self.up.insert(peer);
                    let asked: Vec<u64> =
                        self.status.iter().filter(|(_, (of, _))| *of == peer).map(|(nonce, _)| *nonce).collect();
                    asked.into_iter().for_each(|nonce| self.ask_status(peer, nonce));
                    if peer == self.config.members[self.target] {
                        self.resend_now(now, true);
                    }
                }
                _ => {}
            }
        }
        Ok(true)
    }

    fn on_peer_lost(&mut self, peer: ReplicaId, now: Monotonic) {
        // Hints of attempts to connect come again and again: only the first is a change.
        let was_up = self.up.remove(&peer);
        let was_asked = self.asked.remove(&peer);
        if peer == self.config.members[self.target] {
            self.rotate(now);
            self.resend_now(now, was_up);
        } else if was_up && was_asked {
            self.resend_now(now, true);
        }
    }

    fn on_reply(&mut self, view: View, reply: Reply, now: Monotonic) {
        if let Outcome::Busy(Busy::NoPrimary) = reply.outcome {
            if now.since(self.rotated_at) >= self.config.retry_backoff {
                self.rotate(now);
            }
        } else {
            self.on_view(view, now);
        }
        self.session.on_reply(reply, now, &mut self.settled);
    }

    /// Only views that have started reach a client (hazard D28); a newer one says who is primary.
    fn on_view(&mut self, view: View, now: Monotonic) {
        if view > self.view || !self.view_known {
            self.view = view;
            self.target = (view.number % self.config.members.len() as u64) as usize;
            self.shared.set_view(view);
            // What went to the primary of an earlier view may be lost with it.
            if std::mem::replace(&mut self.view_known, true) {
                self.resend_now(now, true);
            }
        }
    }

    fn ask_status(&mut self, replica: ReplicaId, nonce: u64) {
        self.outgoing.push(Envelope { to: Peer::Replica(replica), message: Message::RequestStatus { nonce } });
    }

    fn rotate(&mut self, now: Monotonic) {
        self.rotated_at = now;
        self.target = (self.target + 1) % self.config.members.len();
    }

    /// The connection or the primary has changed: everything is asked again.
    fn resend_now(&mut self, now: Monotonic, is_sure: bool) {
        self.session.resend_now(now, is_sure);
        let again = if is_sure { usize::MAX } else { PROBES };
        for query in self.queries.values_mut().take(again) {
            query.due = Monotonic(0);
            if is_sure {
                query.sent = 0;
            }
        }
        self.queries_due = Monotonic(0);
    }

    fn send_due(&mut self, now: Monotonic) {
        let again = self.session.poll(now, &mut self.requests);
        self.session.take_told(&mut self.settled);
        let queries_again =
            now >= self.queries_due && self.queries.values().any(|query| query.due > Monotonic(0) && query.due <= now);
        if (again || queries_again) && now.since(self.rotated_at) >= self.config.reply_timeout {
            // No answer in time: this replica may be cut off.
            self.rotate(now);
        }
        let to = Peer::Replica(self.config.members[self.target]);
        if !self.requests.is_empty() {
            self.asked.insert(self.config.members[self.target]);
            for requests in in_messages(std::mem::take(&mut self.requests)) {
                self.outgoing.push(Envelope { to, message: Message::Requests { requests, forwarded: false } });
            }
        }
        if now >= self.queries_due {
            self.send_queries(to, now);
        }
        self.network.send(&mut self.outgoing);
    }

    /// New queries, and a few of those without an answer for too long.
    fn send_queries(&mut self, to: Peer, now: Monotonic) {
        self.queries.retain(|_, waiting| !waiting.answer.is_canceled());
        self.queries_due = Monotonic(u64::MAX);
        let mut probes = 0;
        for (nonce, waiting) in &mut self.queries {
            let is_probe = waiting.sent > 0;
            if is_probe && probes == PROBES {
                continue;
            }
            probes += usize::from(is_probe);
            if waiting.due <= now {
                let longest = RETRY_MAX.max(self.config.reply_timeout);
                let doubled = self.config.reply_timeout.saturating_mul(1 << waiting.sent.min(10));
                waiting.due = now.after(doubled.min(longest));
                waiting.sent += 1;
                let (client, nonce, query) = (self.config.id, *nonce, waiting.query.clone());
                self.outgoing.push(Envelope { to, message: Message::Query { client, nonce, query } });
            }
            self.queries_due = self.queries_due.min(waiting.due);
        }
    }

    fn settle(&mut self) {
        for (caller, result) in self.settled.drain(..) {
            caller.tell(result);
        }
        if self.session.pending() == 0 {
            self.asked.clear();
        }
        self.shared.set_trouble("client", self.session.trouble());
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Result<(), NetworkError>> {
        let deadline = self.session.next_due().min(self.queries_due);
        self.alarm.wake_at(self.clock, deadline, context);
        Poll::Pending
    }
}
