//! Starting from a disk: what was promised there is kept, and no primary resumes (rule 7.6).

use super::fetching::Transfer;
use super::lives::ThisLife;
use super::repair::Repair;
use super::replacements::Rejoin;
use crate::protocol::core::{Core, News};
use crate::protocol::health::explain::Stall;
use crate::protocol::health::halt::Halt;
use crate::protocol::health::invariants::Numbers;
use crate::protocol::log::log::{Body, Log, LogSlot};
use crate::protocol::log::outbox::Outbox;
use crate::protocol::log::writes::Writes;
use crate::protocol::normal::apply::Applying;
use crate::protocol::normal::backup::Backup;
use crate::protocol::normal::checkpoints::{CheckpointHead, Checkpoints};
use crate::protocol::normal::pipeline::Primary;
use crate::protocol::normal::progress::Tracker;
use crate::protocol::normal::read_rounds::ReadRounds;
use crate::protocol::normal::sessions::SessionTable;
use crate::protocol::timers::Timers;
use crate::protocol::types::entry::Header;
use crate::protocol::types::event::Event;
use crate::protocol::types::number::{BatchNumber, CommitNumber, Monotonic, OpNumber, Timestamp, View};
use crate::protocol::types::options::Options;
use crate::protocol::types::random::Random;
use crate::protocol::types::vsr_state::{Doubted, Recovered, Slot, VsrState};
use crate::protocol::view_change::phase::{LogSource, Phase, Status};
use crate::protocol::view_change::view_change::ViewChange;

impl Core {
    /// A replica that goes on where its disk says it was.
    ///
    /// With log_view < view it is in a view change and sends the durable `DoViewChange` again. Else a
    /// backup is in normal operation, and a primary moves to the next view: it never resumes, as it may
    /// have sent what its disk does not hold (hazard D31). A disk that was told that it is an old one is refused.
    ///
    /// # Errors
    /// [`Halt::NotAMember`] for the disk of a replica that its own membership does not list, [`Halt::SoloDamaged`] for a cluster of one whose
    /// disk is damaged, [`Halt::OldDisk`] for a disk that the other replicas have called an old one.
    pub fn recover(options: Options, recovered: Recovered, now: Monotonic, wall: Timestamp) -> Result<Core, Halt> {
        Core::recover_from(options, recovered, None, now, wall)
    }

    /// As [`recover`](Self::recover), with a state machine that was restored from a checkpoint: one that this log
    /// [`continues`](Recovered::continues). What it contains is not applied again (rule 9.11).
    ///
    /// # Errors
    /// As [`recover`](Self::recover), and [`Halt::ForeignCheckpoint`] for a checkpoint that the log does not continue.
    pub fn recover_from(
        options: Options,
        recovered: Recovered,
        checkpoint: Option<CheckpointHead>,
        now: Monotonic,
        wall: Timestamp,
    ) -> Result<Core, Halt> {
        if let Some(head) = checkpoint.as_ref().filter(|head| !recovered.continues(head)) {
            return Err(Halt::ForeignCheckpoint { op: head.header().op });
        }
        let checkpoint = checkpoint.map(CheckpointHead::into_parts);
        let Recovered { mut state, slots, head_certain } = recovered;
        let head_certain = head_certain && state.head_certain;
        state.starts += 1;
        let membership = state.membership.clone();
        let index = membership.index_of(state.replica).ok_or(Halt::NotAMember { replica: state.replica })?;
        let restored = checkpoint.as_ref().map(|(header, ..)| *header);
        refuse_disk(&state, &slots, head_certain, restored.map(|header| header.op))?;
        let log = rebuild(slots, &state, head_certain, restored);
        let head = log.head();
        let (view, log_view) = (state.view, state.log_view);
        let commit = known_commit(&state, &log);
        if !head_certain {
            state.doubted = lost_end(&log, &state);
        }
        let mut random = Random::new(options.seed);
        let nonce = random.next_u64().max(1);
        let this_life = ThisLife { nonce, began_with: if head_certain { head } else { OpNumber(u64::MAX) } };
        // Without a checkpoint of what was dropped there is no state: nothing is applied before one was fetched (rule 9.3).
        let has_state = restored.is_some() || state.base.is_none();
        let begins_at = restored.or(state.base);
        let (applied, timestamp) = begins_at.map_or_else(Default::default, |header| (header.op, header.timestamp));
        let (sessions, replacements) =
            checkpoint.map_or_else(Default::default, |(_, sessions, replacements)| (Some(sessions), replacements));
        let mut core = Core {
            id: state.replica,
            index,
            sessions: sessions.unwrap_or_else(|| SessionTable::new(membership.constants.clone())),
            options,
            phase: Phase::Recovering { was: status_of(&state) },
            view,
            log_view,
            commit,
            applied,
            head_certain,
            writes: Writes { durable: commit.op().min(head), room: u64::MAX, ..Writes::default() },
            outbox: Outbox::default(),
            timers: Timers::new(now, commit),
            primary: Primary::new(),
            backup: Backup { heard_at: now, last_heartbeat: 0 },
            view_change: ViewChange::new(membership.size()),
            repair: Repair::after_start(&log, applied),
            this_life,
            reads: ReadRounds::default(),
            applying: Applying::after(applied, timestamp),
            checkpoints: Checkpoints::of(&state, restored.map(|header| header.op), now),
            transfer: Transfer::new(has_state),
            progress: Tracker::new(membership.members.iter().map(|member| member.id)),
            random,
            now,
            wall,
            halted: None,
            rests: false,
            checked: Numbers::default(),
            news: News::default(),
            record_due: false,
            stall: Stall::new(commit, now),
            rejoin: Rejoin::at(view),
            membership,
            state,
            log,
        };
        if let Some(header) = restored {
            core.news.events.push(Event::Restored { op: header.op, checksum: header.checksum() });
        }
        core.take_replacements(replacements)?;
        core.arm_deadline();
        core.begin_life();
        Ok(core)
    }

    fn begin_life(&mut self) {
        self.view_change.note_progress(self.now);
        self.repair_soon();
        if let Err(diverged) = self.log.prove(self.applied) {
            return self.stop(diverged.into());
        }
        if self.status() == Status::ViewChange {
            let suffix = self.state.suffix.clone();
            self.stage_state(self.record(suffix));
            self.await_log();
        } else if self.primary_id() == self.id && self.is_first_life() {
            // Nothing was ever sent from this disk, so there is nothing to take back. What is sent now
            // waits until the start is durable: the next life is not the first.
            let batch = self.writes.next();
            (self.writes.view_batch, self.writes.log_view_batch) = (batch, batch);
            if !self.enter_phase(Phase::Installing { write: batch, log: LogSource::FreshDisk }) {
                return;
            }
            self.arm_deadline();
            self.stage_state(self.record(self.state.suffix.clone()));
        } else if self.primary_id() == self.id {
            self.enter_view(self.view.next());
        } else if self.enter_phase(Phase::Normal) {
            // The record keeps its own commit number: the suffix begins after it.
            let commit = self.state.commit;
            self.stage_state(VsrState { commit, ..self.record(self.state.suffix.clone()) });
            self.advance_durable();
        }
        // Before anything else of this life counts with the others, they have to know how far its log reaches.
        self.on_ping_due();
    }
}

impl Core {
    fn is_first_life(&self) -> bool {
        let fresh = self.log.head() == OpNumber::ZERO && self.view == View::default() && self.head_certain;
        fresh && self.state.starts == 1
    }
}

/// A replica waits for the log of a view that it has promised. A disk that does not count yet leads no view, not even the first: it waits, too.
fn status_of(state: &VsrState) -> Status {
    let leads = state.membership.primary(state.view) == state.replica;
    let waits = state.log_view < state.view || (leads && !state.succession.counts());
    if waits { Status::ViewChange } else { Status::Normal }
}

/// What is committed, as far as the disk says. Each header says what was when its op was prepared: a fact, also of an op that was dropped since.
fn known_commit(state: &VsrState, log: &Log) -> CommitNumber {
    if state.log_view == state.view { state.commit.max(log.commit_known()) } else { state.commit }
}

/// A disk that nobody can repair, or that the others have called an old one.
fn refuse_disk(state: &VsrState, slots: &[Slot], head_certain: bool, restored: Option<OpNumber>) -> Result<(), Halt> {
    if state.membership.size() == 1 {
        if restored.is_none() && state.base.is_some() {
            return Err(Halt::SoloCheckpointLost { op: state.base() });
        }
        refuse_damage(state.base(), slots, head_certain, restored.unwrap_or_default())?;
    }
    match state.known.iter().find(|known| known.replica == state.replica) {
        Some(told) => Err(Halt::OldDisk { heard: told.life.starts, acknowledged: told.acknowledged }),
        None => Ok(()),
    }
}

/// What the checkpoint contains needs no copy.
fn refuse_damage(base: OpNumber, slots: &[Slot], head_certain: bool, restored: OpNumber) -> Result<(), Halt> {
    // An absent slot was never durable: its op was never acknowledged, and goes as the view starts.
    let of = |at: usize| OpNumber(base.0 + 1 + at as u64);
    let damaged = (0..).map(of).zip(slots).find(|(op, slot)| *op > restored && matches!(slot, Slot::Corrupt(_)));
    match damaged.map(|(op, _)| op).or((!head_certain).then_some(of(slots.len()))) {
        Some(op) => Err(Halt::SoloDamaged { op }),
        None => Ok(()),
    }
}

/// Of a log whose end is lost, the range of ops in which some may have been here. A storage says of its end once that it is lost:
/// where something is put above it, the next start finds absent slots below a certain head (rule 7.15).
fn lost_end(log: &Log, state: &VsrState) -> Option<Doubted> {
    log.first_damaged(state.commit.op()).map(|first| Doubted { above: first.prev(), to: log.head() })
}

/// The log that the disk and the vsr state describe together. Where the state's suffix names an op, it
/// is right: it was fixed for this view, or log_view, by the last durable view change.
/// The op of the checkpoint is known by its header in any case.
fn rebuild(slots: Vec<Slot>, state: &VsrState, head_certain: bool, restored: Option<Header>) -> Log {
    let mut log = Log::new(Header::root(state.cluster), state.base);
    let read = state.base().0 + slots.len() as u64;
    for slot in slots {
        log.push_recovered(match slot {
            Slot::Clean(header) => {
                LogSlot { header: Some(header), body: Body::Stored, staged: Some(BatchNumber(0)), corrupt: false }
            }
            Slot::Corrupt(header) => LogSlot { header, body: Body::Missing, staged: None, corrupt: true },
            Slot::Absent => LogSlot { header: None, body: Body::Missing, staged: None, corrupt: false },
        });
    }
    let suffix = &state.suffix;
    if state.log_view < state.view {
        // What came after this view's DoViewChange counts for nothing.
        log.truncate(suffix.head.max(state.commit.op()));
        log.extend_blank(suffix.head);
    }
    for header in &suffix.headers {
        if header.op > log.head() {
            log.extend(*header);
        } else {
            log.adopt(*header);
        }
    }
    if !head_certain {
        // What the suffix names above the last slot may have been here, and lost.
        for op in (read + 1..=log.head().0).map(OpNumber) {
            if let Some(slot) = log.slot_mut(op) {
                slot.corrupt = true;
            }
        }
    }
    if let Some(doubted) = state.doubted {
        // A StartView named these when the head was uncertain: what is not here may have been, and was lost.
        for op in (doubted.above.0 + 1..=doubted.to.0.min(log.head().0)).map(OpNumber) {
            if let Some(slot) = log.slot_mut(op) {
                slot.corrupt |= !slot.is_present();
            }
        }
    }
    if let Some(header) = restored {
        let damaged_from = log.head().next();
        log.extend_blank(header.op);
        log.adopt(header);
        for op in (damaged_from.0..=header.op.0).map(OpNumber) {
            if let Some(slot) = log.slot_mut(op) {
                slot.corrupt = true;
            }
        }
    }
    log.doubt();
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::documented::{Nothing, any_state, try_start};
    use crate::protocol::turn::{Effects, Inputs};
    use crate::protocol::types::life::Life;
    use crate::protocol::types::message::{DoViewChange, Message, Peer};
    use crate::protocol::types::number::ReplicaId;
    /// Rule 6.4: what has arrived while the disk was read is taken in by the first turn, before the record of the start is written. A
    /// `DoViewChange` of that start would leave when the disk has the log of the view already.
    #[test]
    fn a_log_that_is_chosen_before_the_start_is_written_leaves_no_do_view_change_behind() {
        let view = View { number: 1, ..View::default() };
        let state = VsrState { view, ..any_state() };
        assert_eq!(state.membership.primary(view), state.replica);
        let from = ReplicaId(2);
        let mut core = try_start(state).expect("a member");
        let dvc = DoViewChange {
            view,
            log_view: View::default(),
            commit: CommitNumber(0),
            head: OpNumber::ZERO,
            head_certain: true,
            headers: Vec::new(),
            evidence: Vec::new(),
            past: crate::protocol::types::checkpoint::Past::default(),
            life: Life { starts: 1, ..Life::default() },
            known: Vec::new(),
        };
        core.on_message(Peer::Replica(from), Message::DoViewChange(dvc.into()), &Nothing);
        let (mut inputs, mut effects) = (Inputs::default(), Effects::default());
        core.turn(&mut inputs, &mut Nothing, &mut effects);
        let (number, batch) = effects.write.take().expect("the record of the start");
        assert_eq!(batch.state.map(|state| state.log_view), Some(view));
        inputs.written = Some(number);
        core.turn(&mut inputs, &mut Nothing, &mut effects);
        let names: Vec<_> = effects.messages.iter().map(|envelope| envelope.message.name()).collect();
        assert!(names.contains(&"Ping") && !names.contains(&"DoViewChange"), "{names:?}");
    }

    /// It would take the place of member 0.
    #[test]
    fn a_disk_whose_replica_is_no_member_is_refused() {
        let replica = ReplicaId(7);
        let state = VsrState { replica, ..any_state() };
        assert!(state.membership.index_of(replica).is_none());
        assert_eq!(try_start(state).err(), Some(Halt::NotAMember { replica }));
        assert!(try_start(any_state()).is_ok());
    }
}
