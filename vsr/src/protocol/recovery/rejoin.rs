//! A new disk in the place of a lost one (rule 7.19): how a replica gets its word back without what it has promised.
//!
//! What the lost disk acknowledged, and which views it promised, is written nowhere. So an op names the new disk, prepared when the lost one
//! was gone, and committed by the others in some view v. From then on everything that the lost disk acknowledged is committed, or never will be;
//! and as a replication quorum of others was still in v, no view-change quorum was in v + 1: the lost disk has promised v + 1 at the most. In
//! v + 2 and above its promises bind nobody.
//!
//! Invariants:
//! - A disk that does not count acknowledges nothing, confirms no read, votes for nothing, sends no `DoViewChange`, and never leads.
//! - It counts once the record that says so is durable: it is whole then, and has installed the log of a view that is two above every one it had
//!   heard of when it knew that its op is committed.
//! - Which disk is whose, by which op, is a part of the replicated state: it is in the checkpoints, and of two claims the later op decides.

use bytes::Bytes;

use super::replacements::Replacements;
use crate::protocol::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::types::entry::{OpKind, Replacement};
use crate::protocol::types::event::Event;
use crate::protocol::types::life::{Distrust, Known, Life, Succession};
use crate::protocol::types::limits::disk_bytes;
use crate::protocol::types::message::Ping;
use crate::protocol::types::number::{OpNumber, ReplicaId, View};
use crate::protocol::view_change::phase::Status;

/// Views by which the promises of a lost disk may be ahead of the view in which its successor's op is committed; and one more.
const PROMISED_MAX: u64 = 2;

impl Core {
    /// How this disk has come to its place, as far as that is durable.
    #[must_use]
    pub fn succession(&self) -> Succession {
        match self.state.succession {
            Succession::Whole { op } if !self.counts_in_quorums() => Succession::Appointed { op, view: self.view },
            succession => succession,
        }
    }

    /// Whether the word of this replica counts in quorums: not that of a disk which takes the place of a lost one, before it is whole.
    pub(crate) fn counts_in_quorums(&self) -> bool {
        self.state.succession.counts() && self.rejoin.counts_from.is_none_or(|batch| batch <= self.writes.completed)
    }

    /// A member says that its disk takes the place of a lost one, and does not count yet.
    pub(crate) fn on_rejoining_ping(&mut self, from: ReplicaId, ping: &Ping) {
        let Life { disk_id, starts, .. } = ping.life;
        let known = self.state.known.iter().find(|known| known.replica == from).copied();
        let is_known = known.is_some_and(|known| known.life.disk_id == disk_id);
        if is_known && known.is_some_and(|known| known.life.starts >= starts) {
            return self.ignore("Ping", "its sender was not whole when it said so, and is by now");
        }
        // Who takes the place of a successor learns of that one's op before it asks for its own.
        let is_later = |known: Known| known.since > OpNumber::ZERO && !known.since.is_committed(ping.commit);
        if !is_known && known.is_some_and(is_later) {
            return self.ignore("Ping", "its disk was given up, or does not know yet which one was before it");
        }
        self.distrust(from, Distrust::Rejoins);
        if ping.view > self.view || (ping.view == self.view && ping.normal && self.status() == Status::ViewChange) {
            self.ask_for_start_view(ping.view);
        }
        if from == self.primary_id() {
            return self.vote_if_primary_is_down();
        }
        if !self.is_primary() || self.is_abdicating() {
            return;
        }
        match ping.succession {
            // One that is known has its op.
            Succession::Asking if is_known => {}
            Succession::Asking => self.prepare_replacement(Replacement { replica: from, disk_id }),
            // It is as far as a backup can be: the views that are left to go are the last thing that it waits for.
            Succession::Appointed { view, .. } if view > self.view && ping.past.is_whole => {
                let behind = self.commit.0.saturating_sub(ping.commit.0);
                if behind <= u64::from(self.membership.constants.pipeline_max) {
                    self.hand_on("a primary hands over, for a disk that rejoins");
                }
            }
            _ => {}
        }
    }

    /// Prepares the op that puts a disk in the place of a lost one, if none is on its way: where the others can commit it.
    fn prepare_replacement(&mut self, replacement: Replacement) {
        let is_prepared = self.rejoin.prepared.iter().any(|(replica, _)| *replica == replacement.replica);
        let in_flight = self.log.head().0.saturating_sub(self.writes.durable.0.min(self.commit.0));
        let has_place = in_flight < u64::from(self.membership.constants.pipeline_max);
        let body = replacement.encode();
        let has_room = self.writes.has_room(disk_bytes(body.len() as u64));
        // What it has inherited may put a later disk there than the one that asks.
        let knows = self.applied >= self.reads.inherited_head;
        if is_prepared || !knows || !self.membership.can_replace() || !has_place || !has_room {
            return;
        }
        self.mark("an op puts a disk in the place of a lost one");
        self.prepare_alone(body, OpKind::Recover);
    }

    /// An op is in the log of this primary: perhaps one that puts a disk in the place of a lost one.
    pub(crate) fn note_prepared(&mut self, op: OpNumber, kind: OpKind, body: &[u8]) {
        if kind == OpKind::Recover
            && let Some(Replacement { replica, .. }) = Replacement::decode(body)
        {
            self.rejoin.prepared.push((replica, op));
        }
    }

    /// The op of a disk that takes the place of a lost one is committed.
    pub(crate) fn apply_replacement(&mut self, op: OpNumber, body: &Bytes) -> Result<(), Halt> {
        let replacement = Replacement::decode(body).ok_or(Halt::UnreadableBody { op, at: 0 })?;
        self.rejoin.prepared.retain(|(_, prepared)| *prepared > op);
        self.rejoin.replacements.note(op, replacement);
        self.heed_replacement(op, replacement)
    }

    /// The replacements of a checkpoint are those up to its op.
    pub(crate) fn take_replacements(&mut self, replacements: Replacements) -> Result<(), Halt> {
        self.rejoin.replacements = replacements;
        for (replica, disk_id, op) in self.rejoin.replacements.all() {
            self.heed_replacement(op, Replacement { replica, disk_id })?;
        }
        Ok(())
    }

    fn heed_replacement(&mut self, op: OpNumber, replacement: Replacement) -> Result<(), Halt> {
        let Replacement { replica, disk_id } = replacement;
        if replica != self.id {
            self.know_replacement(Known {
                replica,
                life: Life { disk_id, ..Life::default() },
                acknowledged: OpNumber::ZERO,
                since: op,
            });
            return Ok(());
        }
        let succession = self.state.succession;
        if disk_id == self.state.disk_id {
            if succession == Succession::Asking {
                let seen = self.rejoin.highest_view.max(self.view);
                let view = View { number: seen.number + PROMISED_MAX, ..seen };
                self.state.succession = Succession::Appointed { op, view };
                self.record_due = true;
                self.news.events.push(Event::Appointed { op, view });
            }
        } else if succession != Succession::Asking && op > succession.since() {
            return Err(Halt::Replaced { op, disk: disk_id, own: self.state.disk_id });
        }
        Ok(())
    }

    /// Called once a turn: a disk that is whole, and has the log of a view that no promise of the lost one reaches, counts.
    pub(crate) fn run_rejoin(&mut self) {
        if self.rejoin.counts_from.take_if(|batch| *batch <= self.writes.completed).is_some() {
            // Who this is has to be known before its word is.
            self.timers.ping_at = self.now;
            self.news.events.push(Event::Rejoined { op: self.state.succession.since() });
        }
        let Succession::Appointed { op, view } = self.state.succession else { return };
        let is_whole = self.transfer.is_over() && self.is_between_ops() && self.applied == self.commit.op();
        if is_whole
            && self.log_view >= view
            && self.status() == Status::Normal
            && self.views_are_durable()
            && self.head_certain
        {
            let goal = *self.rejoin.whole_at.get_or_insert(self.commit);
            if !self.is_on_disk(goal.max(self.state.commit).op()) {
                return;
            }
            let mut record = self.present_record();
            record.succession = Succession::Whole { op };
            self.rejoin.counts_from = Some(self.writes.next());
            self.stage_state(record);
        }
    }

    /// Whether every op up to this one is on this disk. The commit number of the record does not say so: it comes with the log of a view.
    fn is_on_disk(&mut self, goal: OpNumber) -> bool {
        let completed = self.writes.completed;
        let mut stored = self.rejoin.stored.max(self.log.base());
        while stored < goal && self.log.slot(stored.next()).is_some_and(|slot| slot.is_durable(completed)) {
            stored = stored.next();
        }
        self.rejoin.stored = stored;
        stored >= goal
    }
}
