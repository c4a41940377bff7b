//! Lives: by which disk, and which start on it, each member is known, and whether its messages count (rule 7.7).
//!
//! What a member promised is on its disk. A disk that was restored from an older copy, formatted anew, or
//! cloned has forgotten some of it, and its acknowledgements and votes would stand beside those of its
//! better half. So each member remembers of each other one, durably, the life that it last heard of and the
//! highest committed op that it acknowledged; every acknowledgement and vote names the life that gives it;
//! and `Ping` and `DoViewChange` say what their sender remembers, so that an old disk learns that it is one
//! before it can lead: a view starts with the `DoViewChange`s of a quorum only.
//!
//! Invariants:
//! - A member's messages of an older life never count beside, or after, those of a newer one.
//! - A life that is new here counts once it has said, in a `Ping` or a `DoViewChange`, that its log reaches
//!   as far as what the member acknowledged. One that has said that it does not never counts: what is sent to an
//!   old disk makes its log longer, and gives it back no promise.
//! - What is remembered as acknowledged was acknowledged in the life that is remembered, or in earlier ones: so
//!   a later one had it on its disk when it began.
//! - Nothing of a life is said before its start is durable: no later life has the same number.
//! - A disk that was told that it is an old one writes that down before its replica stops, as what is remembered of
//!   its own id, and is not started again: else its starts would soon outnumber those of its better half. That is so
//!   also if the others have heard another start of the same number: what that one has promised to them is not here.
//!
//! While no member that remembers can be reached, an old disk is not recognised.

use crate::protocol::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::types::event::Event;
use crate::protocol::types::life::{Distrust, Known, Life, Succession};
use crate::protocol::types::number::{OpNumber, ReplicaId};
use crate::protocol::view_change::phase::Status;

/// What is told apart by the present start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThisLife {
    /// Its nonce: an answer to an earlier life is not accepted (hazard B18).
    pub(crate) nonce: u64,
    /// Where the log ended when it began; at the end of all numbers if that was uncertain.
    pub(crate) began_with: OpNumber,
}

impl Core {
    /// This start on this disk.
    #[must_use]
    pub fn life(&self) -> Life {
        Life { disk_id: self.state.disk_id, starts: self.state.starts, nonce: self.this_life.nonce }
    }

    /// What is remembered of the other members; and of this one, if it was told that its disk is an old one.
    #[must_use]
    pub fn known(&self) -> &[Known] {
        &self.state.known
    }

    /// Members whose word does not count at present, and why.
    pub fn distrusted(&self) -> impl Iterator<Item = (ReplicaId, Distrust)> + '_ {
        self.progress.iter().filter_map(|member| member.distrust.map(|why| (member.id, why)))
    }

    /// Whether an acknowledgement or vote of this life counts.
    pub(crate) fn counts(&mut self, from: ReplicaId, life: Life) -> bool {
        let Ok(at) = self.find(from) else {
            self.remember(from, life);
            return true;
        };
        let known = self.state.known[at].life;
        if known == life {
            return self.progress.get(from).is_some_and(|member| member.distrust != Some(Distrust::OlderDisk));
        }
        if known.disk_id != life.disk_id {
            self.distrust(from, Distrust::OtherDisk);
        } else if life.starts <= known.starts {
            self.distrust(from, Distrust::OlderStart);
        }
        // A newer life says in a Ping or a DoViewChange how far its log reaches, first.
        false
    }

    /// A life that says how far its log reaches. Whether it counts.
    pub(crate) fn introduce(&mut self, from: ReplicaId, life: Life, head: OpNumber, head_certain: bool) -> bool {
        if let Ok(at) = self.find(from) {
            let known = self.state.known[at];
            let same_disk = known.life.disk_id == life.disk_id;
            let newer = same_disk && life.starts > known.life.starts;
            if known.life != life && !newer {
                return self.counts(from, life);
            }
            let Some(member) = self.progress.get_mut(from) else { return false };
            let reach = if known.life == life { head.max(member.reach) } else { head };
            let is_older = head_certain && reach < known.acknowledged;
            if is_older && newer {
                member.older = Some(life);
            }
            if is_older || member.older == Some(life) {
                self.distrust(from, Distrust::OlderDisk);
                return false;
            }
        }
        self.remember(from, life);
        if let Some(member) = self.progress.get_mut(from) {
            member.reaches(head);
            member.distrust = None;
        }
        true
    }

    /// What another member remembers of other ones, where that is more than what is remembered here.
    pub(crate) fn on_known(&mut self, known: &[Known]) {
        let id = self.id;
        for known in known.iter().filter(|known| known.replica != id) {
            if self.progress.get(known.replica).is_none() {
                continue;
            }
            match self.find(known.replica) {
                Ok(at) => {
                    let own = &mut self.state.known[at];
                    if own.life.disk_id != known.life.disk_id {
                        self.know_replacement(*known);
                        continue;
                    }
                    own.since = own.since.max(known.since);
                    if known.life.starts <= own.life.starts {
                        own.acknowledged = own.acknowledged.max(known.acknowledged);
                        continue;
                    }
                    if known.acknowledged < own.acknowledged {
                        // The member that recorded that life did not know what must be on its disk: it says so itself.
                        continue;
                    }
                    *own = Known { since: own.since, ..*known };
                }
                Err(at) => self.state.known.insert(at, *known),
            }
            self.on_new_life(known.replica);
        }
    }

    /// Another disk is a member's, if its op is later than that of the one that is known: what the lost one says counts no more (rule 7.19).
    pub(crate) fn know_replacement(&mut self, known: Known) {
        match self.find(known.replica) {
            Ok(at) if self.state.known[at].since >= known.since => return,
            Ok(at) if self.state.known[at].life.disk_id == known.life.disk_id => {
                self.state.known[at].since = known.since;
                self.record_due = true;
                return;
            }
            Ok(at) => self.state.known[at] = known,
            Err(at) => self.state.known.insert(at, known),
        }
        self.on_new_life(known.replica);
    }

    /// What another member remembers of this one: whether this disk is the newest under its id. That is so also if the
    /// word of the other one does not count here, unless it is a stranger.
    pub(crate) fn check_own(&mut self, by: ReplicaId, life: Life, known: &[Known]) {
        let is_stranger = self.find(by).is_ok_and(|at| self.state.known[at].life.disk_id != life.disk_id);
        let Some(known) = known.iter().find(|known| known.replica == self.id).filter(|_| !is_stranger) else { return };
        let own = self.life();
        // What was acknowledged in earlier lives was there when this one began; what came since proves nothing.
        let reach = if known.life == own { self.log.head() } else { self.this_life.began_with };
        if known.life.disk_id != own.disk_id {
            let succession = self.state.succession;
            if succession == Succession::Asking || known.since < succession.since() {
                // It has not heard yet, or not applied, that this disk is the one.
                return;
            }
            self.stop(Halt::OtherDisk { by, known: known.life.disk_id, own: own.disk_id });
        } else if known.life.starts > own.starts || (known.life.starts == own.starts && known.life.nonce != own.nonce) {
            // A start is named only when it is durable, so that no later start of the same disk has its number. Whatever
            // has made another start of this number, a disk before it was rolled back or a process on a copy: the
            // promises that it gave are not on this disk.
            self.stop_for_good(*known, Halt::OlderStart { by, known: known.life.starts, own: own.starts });
        } else if self.head_certain && reach < known.acknowledged {
            let acknowledged = known.acknowledged;
            self.stop_for_good(*known, Halt::OlderDisk { by, acknowledged, head: reach });
        }
    }

    /// Stops when it is durable that this disk is an old one: then no later start of it goes on.
    fn stop_for_good(&mut self, known: Known, halt: Halt) {
        if self.halted.is_some() {
            return;
        }
        let mut record = self.state.clone();
        if let Err(at) = self.find(self.id) {
            record.known.insert(at, known);
        }
        self.writes.before_stop = Some(self.writes.next());
        self.stage_state(record);
        self.stop(halt);
    }

    /// Remembers what a member has acknowledged, as far as it is committed: only that can never be dropped.
    pub(crate) fn note_acknowledged(&mut self, from: ReplicaId) {
        let Some(member) = self.progress.get(from) else { return };
        let committed = member.vouched.min(self.commit.op());
        if let Ok(at) = self.find(from) {
            let known = &mut self.state.known[at];
            known.acknowledged = known.acknowledged.max(committed);
        }
    }

    fn find(&self, id: ReplicaId) -> Result<usize, usize> {
        self.state.known.binary_search_by_key(&id, |known| known.replica)
    }

    fn remember(&mut self, from: ReplicaId, life: Life) {
        match self.find(from) {
            Ok(at) if self.state.known[at].life == life => return,
            Ok(at) => self.state.known[at].life = life,
            Err(at) => {
                let first = Known { replica: from, life, acknowledged: OpNumber::ZERO, since: OpNumber::ZERO };
                self.state.known.insert(at, first);
            }
        }
        self.on_new_life(from);
    }

    /// A life of a member that is new here is remembered from now on.
    fn on_new_life(&mut self, of: ReplicaId) {
        let life = self.find(of).ok().map(|at| self.state.known[at].life);
        if let Some(member) = self.progress.get_mut(of) {
            member.reach = OpNumber::ZERO;
            // Its disk may be another one.
            member.past = None;
            if member.older.is_none() || member.older != life {
                // What was held against it was that this life was not known.
                member.distrust = None;
            }
        }
        self.record_due = true;
        self.forget_votes(of);
    }

    pub(crate) fn distrust(&mut self, from: ReplicaId, why: Distrust) {
        let Some(member) = self.progress.get_mut(from) else { return };
        if member.distrust != Some(why) {
            member.distrust = Some(why);
            self.news.events.push(Event::Distrusted { replica: from, why });
        }
        if why == Distrust::OlderDisk {
            // Else what counts was said by the life that is known.
            self.forget_votes(from);
        }
    }

    /// What a member has said in an older life counts no more.
    fn forget_votes(&mut self, from: ReplicaId) {
        if let Some(member) = self.progress.get_mut(from) {
            member.forget_answers();
        }
        if let Some(at) = self.membership.index_of(from) {
            self.view_change.forget(at);
        }
    }

    /// Writes the record again when the lives that it remembers have changed. Nothing that a view has fixed changes by it.
    pub(crate) fn refresh_record(&mut self) {
        if std::mem::take(&mut self.record_due) {
            self.restage_state();
        }
    }

    /// Called at the interval of the pings. The commit number on the disk says which ops a damaged sector
    /// may not put in doubt; it follows when the log rests, which costs no request a write, and when it is far behind.
    pub(crate) fn refresh_commit(&mut self) {
        let commit = self.recordable_commit();
        let rests = std::mem::replace(&mut self.timers.commit_at_ping, self.commit) == self.commit
            && self.writes.in_flight.is_none()
            && self.writes.staging.is_empty();
        let behind = commit.0.saturating_sub(self.state.commit.0);
        if self.status() == Status::Normal && self.views_are_durable() && (behind > 0 && rests || behind >= BEHIND_MAX)
        {
            self.restage_state();
        }
    }
}

/// Ops by which the durable commit number may be behind while the log is busy.
const BEHIND_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::documented::any_core;
    use crate::protocol::types::number::DiskId;

    const FROM: ReplicaId = ReplicaId(0);

    fn life(starts: u64) -> Life {
        Life { disk_id: DiskId(100), starts, nonce: starts * 10 }
    }

    /// A core of replica 1 that knows the third life of replica 0, and that it has acknowledged op 5.
    fn core_that_knows() -> Core {
        let mut core = any_core();
        assert!(core.introduce(FROM, life(3), OpNumber(5), true));
        core.state.known[0].acknowledged = OpNumber(5);
        core
    }

    fn why(core: &Core) -> Option<Distrust> {
        core.distrusted().find(|(id, _)| *id == FROM).map(|(_, why)| why)
    }

    /// Rule 7.7: the promises of a newer life count when it has said how far its log reaches; then those of the older one end.
    #[test]
    fn a_newer_start_counts_when_it_has_said_how_far_its_log_reaches() {
        let mut core = core_that_knows();
        assert!(core.counts(FROM, life(3)));
        assert!(!core.counts(FROM, life(4)), "it has not said it");
        assert!(core.introduce(FROM, life(4), OpNumber(5), true));
        assert!(core.counts(FROM, life(4)) && !core.counts(FROM, life(3)));
        assert_eq!(why(&core), Some(Distrust::OlderStart));
        assert_eq!(core.known()[0].life, life(4));
    }

    /// Rule 7.7: a log that was made longer since gives back no promise.
    #[test]
    fn a_life_that_began_with_less_than_was_acknowledged_never_counts() {
        let mut core = core_that_knows();
        assert!(!core.introduce(FROM, life(4), OpNumber(4), true));
        assert_eq!(why(&core), Some(Distrust::OlderDisk));
        assert!(!core.introduce(FROM, life(4), OpNumber(9), true), "what it was sent meanwhile proves nothing");
        assert!(!core.counts(FROM, life(4)));
        assert!(core.introduce(FROM, life(5), OpNumber(9), true), "a later start has it on its disk");
        assert_eq!(why(&core), None);
    }

    /// Rule 7.7: where a log ends that is damaged at its end is not known, and says nothing about the disk.
    #[test]
    fn an_uncertain_end_is_no_reason_to_take_a_disk_for_an_old_one() {
        let mut core = core_that_knows();
        assert!(core.introduce(FROM, life(4), OpNumber(2), false));
    }

    /// Rule 7.7: two disks, or two processes, under one id.
    #[test]
    fn another_disk_and_a_second_process_of_the_same_start_do_not_count() {
        for (other, expected) in [
            (Life { disk_id: DiskId(101), ..life(9) }, Distrust::OtherDisk),
            (Life { nonce: 1, ..life(3) }, Distrust::OlderStart),
            (life(2), Distrust::OlderStart),
        ] {
            let mut core = core_that_knows();
            assert!(!core.counts(FROM, other) && !core.introduce(FROM, other, OpNumber(99), true));
            assert_eq!(why(&core), Some(expected));
            assert!(core.counts(FROM, life(3)), "the one that is known still does");
        }
    }

    /// Rule 7.7: what others remember is believed where it is more, and never takes anything back.
    #[test]
    fn what_others_remember_adds_to_what_is_remembered_here() {
        let known = |starts, acknowledged| Known {
            replica: FROM,
            life: life(starts),
            acknowledged: OpNumber(acknowledged),
            since: OpNumber::ZERO,
        };
        for (told, expected) in [
            (known(3, 8), known(3, 8)),
            (known(3, 4), known(3, 5)),
            (known(2, 9), known(3, 9)),
            (known(4, 6), known(4, 6)),
            // The member that recorded that life did not know what must be on its disk.
            (known(4, 4), known(3, 5)),
            (Known { life: Life { disk_id: DiskId(101), ..life(9) }, ..known(9, 9) }, known(3, 5)),
        ] {
            let mut core = core_that_knows();
            core.on_known(&[told]);
            assert_eq!(core.known(), [expected], "{told:?}");
        }
        let mut core = core_that_knows();
        let (stranger, own) =
            (Known { replica: ReplicaId(9), ..known(1, 1) }, Known { replica: ReplicaId(1), ..known(9, 9) });
        core.on_known(&[stranger, own]);
        assert_eq!(core.known(), [known(3, 5)]);
    }

    /// Rule 7.7: a disk that is not the newest under its id stops, and remembers it; another disk than the known one need not: its id stays
    /// another one.
    #[test]
    fn a_disk_that_hears_of_its_better_half_stops() {
        let own = any_core().life();
        let cases = [
            (own, OpNumber::ZERO, None),
            (Life { starts: own.starts + 1, ..own }, OpNumber::ZERO, Some(true)),
            (own, OpNumber(1), Some(true)),
            (Life { nonce: own.nonce + 1, ..own }, OpNumber::ZERO, Some(true)),
            (Life { disk_id: DiskId(9), ..own }, OpNumber::ZERO, Some(false)),
        ];
        for (life_of_own, acknowledged, stops) in cases {
            let mut core = any_core();
            let told = Known { replica: core.id, life: life_of_own, acknowledged, since: OpNumber::ZERO };
            core.check_own(FROM, life(1), &[told]);
            let writes_it_down = core.writes.before_stop.is_some();
            assert_eq!(core.halted.is_some().then_some(writes_it_down), stops, "{told:?}: {:?}", core.halted);
            assert_eq!(core.known().contains(&told), writes_it_down);
        }
    }

    /// Rule 7.19: a member that has heard of a newer start, and not of the op that put the disk in its place, takes nothing back.
    #[test]
    fn a_newer_start_keeps_the_op_by_which_its_disk_has_its_place() {
        let mut core = core_that_knows();
        core.state.known[0].since = OpNumber(7);
        core.on_known(&[Known { replica: FROM, life: life(4), acknowledged: OpNumber(6), since: OpNumber(0) }]);
        let known = core.known()[0];
        assert_eq!((known.life, known.acknowledged, known.since), (life(4), OpNumber(6), OpNumber(7)));
    }
}
