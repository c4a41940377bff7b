//! The application's end of a replica.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::oneshot;

pub use crate::client::inbox::{CheckpointError, Events, Positioned, QueryError, ReplicaStatus, WatchEvent};
use crate::client::inbox::{
    Shared, WatchQueue, close_watch, send_query, send_query_within, submit_command, submit_within,
};
use crate::client::session::SubmitError;
use crate::protocol::{Busy, OpNumber, Position};
use crate::traits::state_machine::StateMachine;

/// Submits and queries, beside a replica and in its process. It has the methods of a [`Client`](crate::Client) for that, and others for
/// the replica itself. Cheap to clone; all clones share one session.
pub struct Handle<S> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) machine: PhantomData<fn() -> S>,
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Handle<S> {
        Handle { shared: self.shared.clone(), machine: PhantomData }
    }
}

impl<S> std::fmt::Debug for Handle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("status", &self.status()).finish()
    }
}

impl<S: StateMachine> Handle<S> {
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
}

impl<S> Handle<S> {
    /// What the replica said of itself when its future was last polled, at the end of that poll. A caller on another thread can have
    /// the reply to a command a little before the status says that the command is applied.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        self.shared.status()
    }

    /// Why requests have to wait, as the cluster said last. `None` while they are taken, and while nothing is heard.
    #[must_use]
    pub fn trouble(&self) -> Option<Busy> {
        self.shared.trouble()
    }

    /// One sentence that says why there is no progress. After the replica has stopped: why it stopped.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn explain(&self) -> String {
        let (answer, receiver) = oneshot::channel();
        {
            let mut inbox = self.shared.inbox();
            if inbox.closed {
                return self.shared.last_words();
            }
            inbox.explain.push(answer);
        }
        self.shared.waker.wake();
        receiver.await.unwrap_or_else(|_| self.shared.last_words())
    }

    /// Takes a checkpoint, whether one is due or not: before a backup, or an upgrade. Returns, when it is durable, its last op: it contains all that
    /// this replica had applied at the call. The newest one will do where it contains that. While the replica fetches a state from the others, it
    /// waits.
    ///
    /// # Errors
    /// A [`CheckpointError`].
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting, not the checkpoint.
    pub async fn checkpoint(&self) -> Result<OpNumber, CheckpointError> {
        let (answer, receiver) = oneshot::channel();
        {
            let mut inbox = self.shared.inbox();
            if inbox.closed {
                return Err(CheckpointError::Stopped);
            }
            inbox.checkpoints.push(answer);
        }
        self.shared.waker.wake();
        receiver.await.unwrap_or(Err(CheckpointError::Stopped))
    }

    /// What happens from now on, as it happens. A reader that is too slow is told how much it missed.
    #[must_use]
    pub fn watch(&self) -> Events {
        let queue = Arc::new(Mutex::new(WatchQueue::default()));
        let mut inbox = self.shared.inbox();
        if inbox.closed {
            close_watch(&queue);
        } else {
            inbox.watchers.push(queue.clone());
        }
        drop(inbox);
        self.shared.waker.wake();
        Events { queue }
    }

    /// Stops the replica. A primary hands its role over first, so that the cluster loses no time-out.
    /// Returns when the replica has let go of its storage and its network: another one may use them at once. (Unless
    /// the disk hangs: then it returns after two seconds, and the storage stays in use until the disk answers.)
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting, not the shutdown.
    pub async fn shutdown(&self) {
        let (answer, receiver) = oneshot::channel();
        {
            let mut inbox = self.shared.inbox();
            if inbox.closed {
                return;
            }
            inbox.shutdown.push(answer);
        }
        self.shared.waker.wake();
        let _ = receiver.await;
    }

    /// Stops the replica at once, as a crash would. Returns when its future has ended.
    pub(crate) async fn stop(&self) {
        let (answer, receiver) = oneshot::channel();
        {
            let mut inbox = self.shared.inbox();
            if inbox.closed {
                return;
            }
            inbox.stop_now = true;
            inbox.shutdown.push(answer);
        }
        self.shared.waker.wake();
        let _ = receiver.await;
    }
}

#[cfg(test)]
mod tests {
    /// A method with its documentation, as it stands in the source.
    fn method<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
        let lines: Vec<&str> = source.lines().collect();
        let begins = |line: &&str| line.starts_with(&format!("    pub async fn {name}("));
        let at = lines.iter().position(begins).expect("the method");
        let documentation = lines[..at].iter().rev().take_while(|line| line.starts_with("    ///")).count();
        let body = lines[at..].iter().take_while(|line| **line != "    }").count();
        lines[at - documentation..at + body].to_vec()
    }

    #[test]
    fn a_handle_and_a_client_submit_and_query_by_the_same_methods_with_the_same_documentation() {
        let (handle, client) = (include_str!("handle.rs"), include_str!("../client/mod.rs"));
        for name in ["submit", "submit_positioned", "submit_within", "query", "query_positioned", "query_within"] {
            let of_handle = method(handle, name);
            assert!(of_handle.iter().any(|line| line.contains("# Errors")), "{name}: {of_handle:?}");
            assert_eq!(of_handle, method(client, name), "{name}");
        }
    }
}
