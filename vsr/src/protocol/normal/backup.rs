//! Normal operation at a backup: `Prepare`, `PrepareOk`, `Commit` (rules 6.2, 6.6, VRR 4.1).

use std::collections::BTreeSet;

use super::forwards::{CLIENT_PAUSE_MAX, Work};
use crate::protocol::core::Core;
use crate::protocol::types::entry::{Entry, RequestKind};
use crate::protocol::types::event::ViewChangeReason;
use crate::protocol::types::limits::{LEAP_MAX, disk_bytes};
use crate::protocol::types::message::Message;
use crate::protocol::types::number::{CommitNumber, Monotonic, OpNumber, ReplicaId, RequestNumber, View};
use crate::protocol::view_change::phase::Status;

/// What a backup keeps of its primary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backup {
    /// When it gave its last sign, or the view started.
    pub(crate) heard_at: Monotonic,
    /// The number of its newest `Commit` in this view.
    pub(crate) last_heartbeat: u64,
}

impl Core {
    /// An op for the log, from the primary of the view.
    pub(crate) fn on_prepare(&mut self, from: ReplicaId, view: View, commit: CommitNumber, entry: Entry) {
        if !self.accepts_from_primary("Prepare", from, view) {
            return;
        }
        let header = entry.header;
        if header.op == OpNumber::ZERO || header.view > view {
            return self.ignore("Prepare", "an impossible header");
        }
        let head = self.log.head();
        if header.op <= head {
            self.on_prepare_again(entry);
        } else {
            if header.op == head.next() && self.log.checksum(head).is_some_and(|own| own != header.parent) {
                self.ignore("Prepare", "the chain does not fit the head");
                return self.ask_for_start_view(view);
            }
            if header.op.0 - head.0 > LEAP_MAX {
                return self.ignore("Prepare", "too far ahead");
            }
            if !self.writes.has_room(disk_bytes(header.body_len.into())) {
                return self.ignore("Prepare", "the log is full");
            }
            if self.is_disk_behind() {
                // The primary sends it again, or repair fetches it, when the disk has caught up.
                self.repair.note_lag(self.now);
                return self.ignore("Prepare", "this replica's disk is behind");
            }
            if header.op.0 - head.0 > 1 {
                self.mark("prepare beyond the next op");
            }
            self.log.extend(header);
            self.log.fill(entry);
            self.writes.stage_put(&mut self.log, header.op);
            self.on_sign_of_primary();
            if header.op > head.next() {
                self.repair_soon();
            }
        }
        self.raise_commit(commit);
    }

    /// The most that the bodies of a pipeline take.
    pub(crate) fn pipeline_bytes_max(&self) -> u64 {
        let constants = &self.membership.constants;
        u64::from(constants.pipeline_max) * u64::from(constants.batch_bytes_max)
    }

    /// A `Prepare` within the log: a repeated one is acknowledged again, a missing body is filled.
    fn on_prepare_again(&mut self, entry: Entry) {
        let op = entry.header.op;
        let name = self.log.name(op);
        if name != Some(entry.header.checksum()) {
            return self.ignore("Prepare", "other content than the log's");
        }
        if !self.take_in(entry) && op <= self.writes.durable {
            self.send_prepare_ok();
        }
    }

    /// The heartbeat and the commit number.
    pub(crate) fn on_commit(&mut self, from: ReplicaId, view: View, commit: CommitNumber, head: OpNumber, number: u64) {
        let repairing = view == self.view && self.status() == Status::ViewChange && from == self.primary_id();
        if repairing && number > self.backup.last_heartbeat {
            // The primary of a view that this replica has not installed yet: it exists, that is all.
            self.backup.last_heartbeat = number;
            self.on_sign_of_primary();
        }
        if !self.accepts_from_primary("Commit", from, view) {
            return;
        }
        if number <= self.backup.last_heartbeat {
            return self.ignore("Commit", "not the newest");
        }
        self.backup.last_heartbeat = number;
        self.on_sign_of_primary();
        if commit < self.commit {
            // It lacks acknowledgements that this replica gave, or would not give for what is committed.
            self.send_prepare_ok();
        }
        self.raise_commit(commit);
        if self.transfer.is_over() && self.counts_in_quorums() {
            let life = self.life();
            self.send(from, Message::CommitOk { view, number, life });
        }
        if head > self.log.head() {
            self.repair.note_lag(self.now);
        } else {
            self.repair.lagging_since = None;
        }
    }

    /// The guards that `Prepare` and `Commit` share. A newer view, or this one before it was installed
    /// here, is a reason to ask for its `StartView`, never to go on with the old log (hazard D02).
    fn accepts_from_primary(&mut self, kind: &'static str, from: ReplicaId, view: View) -> bool {
        if from != self.membership.primary(view) {
            self.ignore(kind, "not from the primary of its view");
            return false;
        }
        if view < self.view {
            self.ignore(kind, "an older view");
            return false;
        }
        if view > self.view || self.status() != Status::Normal || self.log_view != self.view {
            self.ignore(kind, "its view is not installed here");
            self.ask_for_start_view(view);
            return false;
        }
        if !self.head_certain {
            self.ignore(kind, "the head is uncertain");
            self.ask_for_start_view(view);
            return false;
        }
        true
    }

    /// Acknowledges the log up to the last durable op, if it is connected to the log of this view.
    pub(crate) fn send_prepare_ok(&mut self) {
        if self.status() != Status::Normal || self.log_view != self.view || !self.views_are_durable() {
            return;
        }
        let (op, primary) = (self.writes.durable, self.primary_id());
        if op == OpNumber::ZERO || primary == self.id || !self.head_certain || !self.transfer.is_over() {
            return;
        }
        if !self.counts_in_quorums() {
            return;
        }
        let Some(checksum) = self.log.checksum(op) else { return };
        let life = self.life();
        self.send(primary, Message::PrepareOk { view: self.view, op, checksum, life });
    }
}

// ---- what was passed on ----

impl Core {
    /// Asks the primary again for a request that it has not answered, and votes when it goes on not answering. See the
    /// invariant of `forwards`.
    pub(crate) fn check_forwards(&mut self) {
        let (now, limit) = (self.now, self.options.timing.forward_timeout);
        // A client that asks one member after the other is back here after a round.
        let timeout = limit.max(CLIENT_PAUSE_MAX) * (2 + self.membership.size() as u32);
        let (sessions, applied) = (&self.sessions, self.applied);
        self.repair
            .forwards
            .prune(now, timeout, |&(client, session, number)| sessions.is_answered(client, session, number, applied));
        if let Some(request) = self.repair.forwards.to_ask_again(now, limit) {
            let again = Message::Requests { requests: vec![request.clone()], forwarded: true };
            // A message that is not sent does not count as a question.
            if self.send(self.primary_id(), again) {
                self.mark("a request is passed on again");
                let log_bytes = self.log.bytes();
                self.repair.forwards.asked_again(&request, now, log_bytes);
            }
        }
        let work = Work {
            committed_at: self.repair.committed_at,
            log_bytes: self.log.bytes(),
            queue_bytes_max: self.options.queue_bytes_max as u64,
        };
        if self.repair.forwards.is_overdue(now, limit, &work) {
            self.forget_prepared_forwards();
        }
        if self.repair.forwards.is_overdue(now, limit, &work) {
            self.vote(ViewChangeReason::Forward);
        } else {
            self.forwards_are_answered();
        }
    }

    /// What stands in the log has reached the primary, and is its to commit.
    fn forget_prepared_forwards(&mut self) {
        let (mut prepared, mut registering) = (BTreeSet::new(), BTreeSet::new());
        let mut op = self.applied.next();
        while op <= self.log.head() {
            if let Some(entry) = self.entry_in_memory(op) {
                for (_, request) in entry.into_requests().flatten() {
                    match request.kind {
                        RequestKind::Register(client) => registering.insert(client),
                        RequestKind::Command(_) => prepared.insert((request.session, request.number)),
                    };
                }
            }
            op = op.next();
        }
        self.repair.forwards.forget(|&(client, session, number)| {
            let is_register = number == RequestNumber(0);
            if is_register { registering.contains(&client) } else { prepared.contains(&(session, number)) }
        });
    }
}
