//! A client from outside the cluster: finds the primary, keeps its session, sends again until answered.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use crate::clock::{Alarm, Clock};
use crate::handle::{
    Inbox, Positioned, QueryAnswer, QueryError, QuerySubmission, ReplicaStatus, Shared, send_query, send_query_within,
    submit_command, submit_within,
};
use crate::network::{Arrival, Network, NetworkError};
use crate::protocol::{
    Busy, ClientId, CommitNumber, Envelope, Health, Message, Monotonic, OpNumber, Outcome, Peer, Position, Random,
    ReplicaId, Reply, Request, View, in_messages,
};
use crate::session::{ClientSession, SubmitError, Submitted};
use crate::state_machine::{StateMachine, decode};

/// What a client is told.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Its id: fresh for each client that is built, never used again.
    pub id: ClientId,
    /// The ids of the cluster's members in their order.
    pub members: Vec<ReplicaId>,
    /// Requests in flight; not more than the cluster's `window`. Default 1,024.
    pub window: u32,
    /// How long an answer is waited for before another replica is asked. Default 200 ms.
    pub patience: Duration,
    /// How long after a replica said that it knows no primary. Default 5 ms.
    pub pause: Duration,
    /// Requests that wait here for callers; beyond it a submit fails with `Busy`. Default 65,536.
    pub queue_max: usize,
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
            window: 1024,
            patience: Duration::from_millis(200),
            pause: Duration::from_millis(5),
            queue_max: 65_536,
            seed: id.0 as u64,
        }
    }
}

/// Submits and queries from outside the cluster. Cheap to clone; all clones share one session.
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

/// The future that does a client's work; spawn it beside the application.
pub struct ClientRunner<N> {
    config: ClientConfig,
    network: N,
    shared: Arc<Shared>,
}

impl<S: StateMachine> Client<S> {
    /// A client, and the future that has to run for it.
    pub fn new<N: Network, C: Clock>(config: ClientConfig, network: N, clock: C) -> (Client<S>, ClientRunner<N>) {
        let shared = Shared::new(config.queue_max, no_status(), Arc::new(clock));
        let client = Client { shared: shared.clone(), machine: PhantomData };
        (client, ClientRunner { config, network, shared })
    }

    /// As [`Handle::submit`](crate::Handle::submit).
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting, not the request.
    ///
    /// # Errors
    /// A [`SubmitError`]; each says whether the command may have been executed.
    pub async fn submit(&self, command: S::Command) -> Result<S::Reply, SubmitError> {
        submit_command::<S>(&self.shared, command).await.map(|reply| reply.value)
    }

    /// As [`submit`](Self::submit), with the position at which the command was executed.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn submit_positioned(&self, command: S::Command) -> Result<Positioned<S::Reply, Position>, SubmitError> {
        submit_command::<S>(&self.shared, command).await
    }

    /// As [`submit_positioned`](Self::submit_positioned), for a limited time.
    ///
    /// # Errors
    /// [`SubmitError::TimedOut`] means that the outcome is unknown; else as [`submit`](Self::submit).
    pub async fn submit_within(
        &self,
        command: S::Command,
        limit: Duration,
    ) -> Result<Positioned<S::Reply, Position>, SubmitError> {
        submit_within::<S>(&self.shared, command, limit).await
    }

    /// As [`Handle::query`](crate::Handle::query): linearizable.
    ///
    /// # Errors
    /// A [`QueryError`].
    pub async fn query(&self, query: S::Query) -> Result<S::Answer, QueryError> {
        send_query::<S>(&self.shared, query).await.map(|answer| answer.value)
    }

    /// As [`query`](Self::query), for a limited time, with the last op that the answer contains.
    ///
    /// # Errors
    /// A [`QueryError`].
    pub async fn query_within(
        &self,
        query: S::Query,
        limit: Duration,
    ) -> Result<Positioned<S::Answer, OpNumber>, QueryError> {
        send_query_within::<S>(&self.shared, query, limit).await
    }

    /// What a replica says of itself, and why there is no progress, if there is none. `None` when it does not
    /// answer in time.
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

    /// Ends the client's future. What is in flight stays unknown.
    pub fn close(&self) {
        self.shared.close();
        self.shared.waker.wake();
    }
}

impl<S> Client<S> {
    /// The newest view that an answer came from, once there was one.
    #[must_use]
    pub fn view(&self) -> View {
        self.shared.status().view
    }
}

fn no_status() -> ReplicaStatus {
    ReplicaStatus {
        replica: ReplicaId(0),
        view: View::default(),
        normal: false,
        is_primary: false,
        primary: ReplicaId(0),
        commit: CommitNumber(0),
        applied: OpNumber::ZERO,
        head: OpNumber::ZERO,
        sessions: 0,
        starts: 0,
        log_bytes: 0,
        health: Health::default(),
        refused_by: Vec::new(),
        stopped: false,
    }
}

struct WaitingQuery {
    query: Bytes,
    answer: oneshot::Sender<QueryAnswer>,
    due: Monotonic,
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
        let ClientRunner { config, network, shared } = self;
        let clock = shared.clock.clone();
        let closer = ClientCloser(shared.clone());
        if config.members.is_empty() {
            return Err(NetworkError("the client knows no member: set ClientConfig::members".to_owned()));
        }
        let mut random = Random::new(config.seed);
        let target = random.below(config.members.len() as u64) as usize;
        let mut worker = Worker {
            session: ClientSession::new(config.id, config.window, config.patience, config.pause),
            config,
            network: &network,
            shared: &shared,
            clock: &*clock,
            target,
            view: View::default(),
            view_known: false,
            rotated_at: Monotonic(0),
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
        for answer in worker.session.drain() {
            let _ = answer.send(Err(SubmitError::Stopped));
        }
        drop(closer);
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
    session: ClientSession<oneshot::Sender<Submitted>>,
    /// The member that is asked.
    target: usize,
    view: View,
    /// Whether any answer has named a view.
    view_known: bool,
    rotated_at: Monotonic,
    queries: BTreeMap<u64, WaitingQuery>,
    status: BTreeMap<u64, (ReplicaId, oneshot::Sender<(ReplicaStatus, String)>)>,
    next_nonce: u64,
    queries_due: Monotonic,
    recv: Option<BoxFuture<'a, Result<Vec<Arrival>, NetworkError>>>,
    alarm: Alarm<'a>,
    outgoing: Vec<Envelope>,
    requests: Vec<Request>,
    settled: Vec<(oneshot::Sender<Submitted>, Submitted)>,
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
            let Inbox { submissions, queries, status, closed, .. } = {
                let mut inbox = self.shared.inbox();
                let (pending, closed) = (inbox.pending, inbox.closed);
                std::mem::replace(&mut *inbox, Inbox { pending, closed, ..Inbox::default() })
            };
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
            for submission in submissions {
                self.session.submit(submission.command, submission.answer);
            }
            for QuerySubmission { query, answer } in queries {
                self.next_nonce += 1;
                self.queries.insert(self.next_nonce, WaitingQuery { query, answer, due: Monotonic(0) });
                self.queries_due = Monotonic(0);
            }
            self.send_due(now);
            self.settle();
            if !progress {
                return self.wait(context);
            }
        }
    }

    fn poll_network(&mut self, context: &mut Context<'_>, now: Monotonic) -> Result<bool, NetworkError> {
        let network = self.network;
        let recv = self.recv.get_or_insert_with(|| network.recv());
        let Poll::Ready(arrivals) = recv.as_mut().poll(context) else { return Ok(false) };
        self.recv = None;
        for arrival in arrivals? {
            match arrival {
                Arrival::Message { message: Message::Replies { view, replies }, .. } => {
                    for reply in replies {
                        self.on_reply(view, reply, now);
                    }
                }
                Arrival::Message { message: Message::Answer { nonce, answer, position, view, .. }, .. } => {
                    self.on_view(view);
                    if let Some(query) = self.queries.remove(&nonce) {
                        let answer = answer.map(|answer| (answer, position));
                        let refused = |_| QueryError::Codec("the query does not decode".to_owned());
                        let _ = query.answer.send(answer.map_err(refused));
                    }
                }
                Arrival::PeerDown { peer: Peer::Replica(peer), .. } if peer == self.config.members[self.target] => {
                    self.rotate(now);
                    self.hurry();
                }
                Arrival::Message { message: Message::Status { nonce, status }, .. } => {
                    if let Some((_, answer)) = self.status.remove(&nonce)
                        && let Ok(status) = decode(status)
                    {
                        let _ = answer.send(status);
                    }
                }
                // What was sent before there was a connection is lost.
                Arrival::PeerUp(Peer::Replica(peer)) => {
                    let asked: Vec<u64> =
                        self.status.iter().filter(|(_, (of, _))| *of == peer).map(|(nonce, _)| *nonce).collect();
                    asked.into_iter().for_each(|nonce| self.ask_status(peer, nonce));
                    if peer == self.config.members[self.target] {
                        self.hurry();
                    }
                }
                _ => {}
            }
        }
        Ok(true)
    }

    fn on_reply(&mut self, view: View, reply: Reply, now: Monotonic) {
        if let Outcome::Busy(Busy::NoPrimary) = reply.outcome {
            if now.since(self.rotated_at) >= self.config.pause {
                self.rotate(now);
            }
        } else {
            self.on_view(view);
        }
        self.session.on_reply(reply, now, &mut self.settled);
    }

    /// Only views that have started reach a client (HAZARDS D28); a newer one says who is primary.
    fn on_view(&mut self, view: View) {
        if view > self.view || !std::mem::replace(&mut self.view_known, true) {
            self.view = view;
            self.target = (view.number % self.config.members.len() as u64) as usize;
            self.shared.set_view(view);
        }
    }

    fn ask_status(&mut self, replica: ReplicaId, nonce: u64) {
        self.outgoing.push(Envelope { to: Peer::Replica(replica), message: Message::RequestStatus { nonce } });
    }

    fn rotate(&mut self, now: Monotonic) {
        self.rotated_at = now;
        self.target = (self.target + 1) % self.config.members.len();
    }

    fn hurry(&mut self) {
        self.session.hurry();
        for query in self.queries.values_mut() {
            query.due = Monotonic(0);
        }
        self.queries_due = Monotonic(0);
    }

    fn send_due(&mut self, now: Monotonic) {
        let again = self.session.poll(now, &mut self.requests);
        let queries_again =
            now >= self.queries_due && self.queries.values().any(|query| query.due > Monotonic(0) && query.due <= now);
        if (again || queries_again) && now.since(self.rotated_at) >= self.config.patience {
            // No answer in time: this replica may be cut off.
            self.rotate(now);
        }
        let to = Peer::Replica(self.config.members[self.target]);
        if !self.requests.is_empty() {
            for requests in in_messages(std::mem::take(&mut self.requests)) {
                self.outgoing.push(Envelope { to, message: Message::Requests { requests, forwarded: false } });
            }
        }
        if now >= self.queries_due {
            self.queries.retain(|_, waiting| !waiting.answer.is_canceled());
            self.queries_due = Monotonic(u64::MAX);
            for (nonce, waiting) in &mut self.queries {
                if waiting.due <= now {
                    waiting.due = now.after(self.config.patience);
                    let (client, nonce, query) = (self.config.id, *nonce, waiting.query.clone());
                    self.outgoing.push(Envelope { to, message: Message::Query { client, nonce, query } });
                }
                self.queries_due = self.queries_due.min(waiting.due);
            }
        }
        self.network.send(&mut self.outgoing);
    }

    fn settle(&mut self) {
        if !self.settled.is_empty() {
            self.shared.settled(self.settled.len());
            for (answer, result) in self.settled.drain(..) {
                let _ = answer.send(result);
            }
        }
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Result<(), NetworkError>> {
        let deadline = self.session.next_due().min(self.queries_due);
        self.alarm.wake_at(self.clock, deadline, context);
        Poll::Pending
    }
}
