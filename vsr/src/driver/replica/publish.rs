//! What a replica tells of itself: events, figures, its status.

use std::sync::{Arc, PoisonError};

use super::Driver;
use crate::client::inbox::{ReplicaStatus, offer};
use crate::protocol::{Event, Message, Monotonic, Status};
use crate::traits::clock::Clock;
use crate::traits::network::Network;
use crate::traits::state_machine::{StateMachine, encode};
use crate::traits::storage::Storage;

impl<S: StateMachine, D: Storage, N: Network, C: Clock> Driver<'_, S, D, N, C> {
    /// Answers the questions of handles and clients about the replica's status.
    pub(super) fn answer_questions(&mut self) {
        if self.explain_asked.is_empty() && self.status_asked.is_empty() {
            return;
        }
        for answer in std::mem::take(&mut self.explain_asked) {
            let _ = answer.send(self.explain());
        }
        for (client, nonce) in std::mem::take(&mut self.status_asked) {
            let status = encode((self.status(), self.explain())).unwrap_or_default();
            self.core.tell_client(client, Message::Status { nonce, status }, &mut self.effects);
        }
    }

    /// Gives events to the watchers and figures to the metrics.
    pub(super) fn publish(&mut self, now: Monotonic) {
        let mut events = std::mem::take(&mut self.effects.events);
        for event in &events {
            if let Event::ViewStarted { .. } = event {
                self.session.resend_now(now, true);
            }
            if let Some(observer) = &mut self.observer {
                observer.on_event(&self.core, event);
            }
            for watcher in &self.watchers {
                offer(watcher, event);
            }
        }
        if let Some(observer) = &mut self.observer {
            for mark in &self.effects.marks {
                observer.on_mark(&self.core, mark);
            }
        }
        self.metrics.turn_ended(now, &self.core, &events, &self.effects.marks);
        self.effects.marks.clear();
        events.clear();
        self.effects.events = events;
    }

    /// Gives the status to the handles, and the health to the metrics: once a poll, for what a poll passes through is
    /// over before another future of its thread can run; and within a poll that takes long, for other threads.
    pub(super) fn publish_status(&mut self) {
        self.published_at = self.inputs.now;
        let status = self.status();
        self.metrics.health(self.inputs.now, &self.core, status.health, &self.refused_by);
        self.watchers.retain(|watcher| Arc::strong_count(watcher) > 1);
        self.shared.set_trouble("handle", self.session.trouble());
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    pub(super) fn status(&self) -> ReplicaStatus {
        let (_, starts) = self.core.disk_and_starts();
        ReplicaStatus {
            replica: self.core.id(),
            view: self.core.view(),
            normal: self.core.status() == Status::Normal,
            is_primary: self.core.is_primary(),
            primary: self.core.primary_id(),
            commit: self.core.commit(),
            applied: self.core.applied(),
            head: self.core.head(),
            sessions: self.core.sessions(),
            starts,
            log_bytes: self.core.log_bytes(),
            checkpoint: self.core.checkpoint(),
            log_base: self.core.log_base(),
            transfer: self.core.transfer(),
            health: self.core.health(&self.refused_by),
            refused_by: if self.refused_by.is_empty() {
                Vec::new()
            } else {
                self.refused_by.iter().map(|(by, why)| (*by, why.clone())).collect()
            },
            stopped: false,
        }
    }

    pub(super) fn explain(&self) -> String {
        self.core.explain_refused(&self.refused_by)
    }
}
