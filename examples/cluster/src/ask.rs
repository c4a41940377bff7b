//! One question to a cluster from a command line: never without a limit, never without a word.

use std::fmt::Display;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures::future::join_all;
use vsr::handle::ReplicaStatus;
use vsr::{Client, QueryError, ReplicaId, StateMachine, SubmitError};

use crate::exit::{self, failure};
use crate::output::complain;
use crate::serve::connect;
use crate::{App, ClusterConfig, Error};

/// Which cluster is asked, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// The configuration file of the cluster.
    #[arg(long)]
    pub config: PathBuf,
    /// Seconds to wait for the answer.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// Asks a cluster for a limited time. When there is no answer the error says what each replica says of itself.
pub struct Asker<A: App> {
    config: ClusterConfig,
    client: Client<A::Machine>,
    limit: Duration,
}

/// What a replica says of itself, if it does.
pub(crate) type Said = Option<(ReplicaStatus, String)>;

const STATUS_MAX: Duration = Duration::from_secs(1);

type Machine<A> = <A as App>::Machine;

impl<A: App> Asker<A> {
    /// Reads the configuration, and begins to connect.
    ///
    /// # Errors
    /// In words for people.
    pub async fn new(target: &Target) -> Result<Asker<A>, Error> {
        let config = ClusterConfig::read(&target.config)?;
        let limit = Duration::from_secs(target.timeout);
        let what = format!("the addresses {}", config.replicas.join(", "));
        let connecting = tokio::time::timeout(limit, connect::<A>(&config));
        let connected = waiting(&what, limit, connecting).await;
        let client = connected
            .map_err(|_| failure(exit::NO_ANSWER, format!("within {limit:?} nothing is known of {what}")))??;
        Ok(Asker { config, client, limit })
    }

    /// Executes a command.
    ///
    /// # Errors
    /// In words for people.
    pub async fn submit(
        &self,
        command: <Machine<A> as StateMachine>::Command,
    ) -> Result<<Machine<A> as StateMachine>::Reply, Error> {
        let asked = self.client.submit_within(command, self.limit);
        match waiting(&self.what("a reply"), self.limit, asked).await {
            Ok(reply) => Ok(reply.value),
            Err(error @ (SubmitError::TimedOut | SubmitError::LogFull)) => Err(self.silence(&error).await),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks a query.
    ///
    /// # Errors
    /// In words for people.
    pub async fn query(
        &self,
        query: <Machine<A> as StateMachine>::Query,
    ) -> Result<<Machine<A> as StateMachine>::Answer, Error> {
        let asked = self.client.query_within(query, self.limit);
        match waiting(&self.what("an answer"), self.limit, asked).await {
            Ok(answer) => Ok(answer.value),
            Err(error @ QueryError::TimedOut) => Err(self.silence(&error).await),
            Err(error) => Err(error.into()),
        }
    }

    /// What every replica says of itself: all are asked at once.
    pub(crate) async fn status(&self) -> Vec<Said> {
        let asked = ask_all(&self.client, &self.config, self.limit);
        waiting(&self.what("the status"), self.limit, asked).await
    }

    /// What they say, a line for each.
    pub(crate) fn rows(&self, said: &[Said]) -> Vec<String> {
        rows(&self.client, said)
    }

    fn what(&self, what: &str) -> String {
        format!("{what} of the cluster at {}", self.config.replicas.join(", "))
    }

    /// Why there is no answer, as far as the replicas know.
    async fn silence(&self, error: &(dyn std::error::Error + Sync)) -> Error {
        let said = ask_all(&self.client, &self.config, STATUS_MAX).await;
        let mut words = format!("{error} ({} s)", self.limit.as_secs());
        for row in self.rows(&said) {
            words.push_str("\n  ");
            words.push_str(&row);
        }
        failure(exit::NO_ANSWER, words)
    }
}

/// Asks every replica at once.
pub(crate) async fn ask_all<S: StateMachine>(client: &Client<S>, config: &ClusterConfig, limit: Duration) -> Vec<Said> {
    join_all((0..config.replicas.len()).map(|id| client.status(ReplicaId(id as u8), limit))).await
}

/// Each replica in a line: what it says of itself, or why it says nothing.
pub(crate) fn rows<S>(client: &Client<S>, said: &[Said]) -> Vec<String> {
    let refused_by = client.refused_by();
    let line = |(id, said): (usize, &Said)| match said {
        Some((status, explain)) => row(id, status, explain),
        None => match refused_by.iter().find(|(by, _)| usize::from(by.0) == id) {
            Some((_, why)) => format!("replica {id}: refuses this client: {why}"),
            None => format!("replica {id}: does not answer"),
        },
    };
    said.iter().enumerate().map(line).collect()
}

fn row(id: usize, status: &ReplicaStatus, explain: &str) -> String {
    let role = if status.is_primary { "primary" } else { "backup" };
    let ReplicaStatus {
        health,
        view,
        commit,
        applied,
        head,
        sessions,
        starts,
        log_bytes,
        log_base,
        checkpoint,
        transfer,
        ..
    } = status;
    let fetched =
        transfer.map_or_else(String::new, |(op, parts, of)| format!(" fetching checkpoint {op} ({parts} of {of}),"));
    format!(
        "replica {id}: {role}, {health}, view {view}, commit {commit}, applied {applied}, head {head}, {sessions} sessions, \
         {log_bytes} bytes of log after op {log_base}, checkpoint {checkpoint},{fetched} start {starts}: {explain}"
    )
}

/// Whether a primary says that nothing stands in the way of commands.
pub(crate) fn is_served(said: &[Said]) -> bool {
    said.iter().flatten().any(|(status, _)| status.is_primary && status.health.is_normal())
}

/// Waits for an answer, and says so when it takes more than a moment.
async fn waiting<T>(what: &(impl Display + ?Sized), limit: Duration, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    if let Ok(answer) = tokio::time::timeout((limit / 2).min(STATUS_MAX), answer.as_mut()).await {
        return answer;
    }
    complain(format_args!("waiting for {what}, for {} s at most", limit.as_secs()));
    answer.await
}
