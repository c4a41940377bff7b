//! What a replica knows of the members of its cluster: one [`Progress`] a member.
//!
//! Keyed by the member's id, not by its place: in a later epoch a member that stays may have another place.

use std::time::Duration;

use super::agreed_clock::Sample;
use crate::protocol::types::checkpoint::Past;
use crate::protocol::types::life::{Distrust, Life};
use crate::protocol::types::message::Ping;
use crate::protocol::types::number::{Monotonic, OpNumber, ReplicaId, View};

/// A connection that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Down {
    pub(crate) since: Monotonic,
    /// A reconnect was refused.
    pub(crate) refused: bool,
}

/// What is known of one member. Of this replica itself only its id: what it is to itself, `Core` knows.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) id: ReplicaId,
    /// When a message of it arrived last; 0 when none did since the start.
    pub(crate) heard_at: Monotonic,
    /// The connection is down now: a hint.
    pub(crate) down: Option<Down>,

    // What its last `Ping` said.
    pub(crate) clock: Option<Sample>,
    pub(crate) machine_version: Option<u32>,
    /// The view that it is in, in normal operation, and the head of its log there.
    pub(crate) log: Option<(View, OpNumber)>,
    /// What it has said of the past.
    pub(crate) past: Option<SaidOfPast>,
    /// Whether it has room for more ops, and when it said so.
    pub(crate) has_room: Option<(bool, Monotonic)>,

    // Whether its word counts (rule 7.7).
    /// How far its log is known to reach in this life: what it says may arrive late.
    pub(crate) reach: OpNumber,
    /// A life of it that began with less than the member had acknowledged.
    pub(crate) older: Option<Life>,
    /// Why its word does not count.
    pub(crate) distrust: Option<Distrust>,

    // What it has answered this primary in this view. It starts from nothing in each (hazard B8).
    /// The highest op that it has acknowledged.
    pub(crate) acknowledged: OpNumber,
    /// The highest op of this view that it has on its disk, as its acknowledgements prove.
    pub(crate) vouched: OpNumber,
    /// The highest `Commit` that it has answered.
    pub(crate) confirmed: u64,
    /// When it last answered at all.
    pub(crate) confirmed_at: Monotonic,
    resend: Resend,
}

/// What a member has of the past.
#[derive(Clone, Debug)]
pub(crate) struct SaidOfPast {
    pub(crate) past: Past,
    /// The view that it was in.
    pub(crate) view: View,
    pub(crate) at: Monotonic,
}

/// How long a backup that is stuck waits for the next copy of what it lacks: twice as long each time, so that a slow disk or line is
/// not filled with copies (rule 6.9).
#[derive(Clone, Copy, Debug)]
struct Resend {
    /// What it had acknowledged at the last retry.
    acknowledged: OpNumber,
    /// Retries between the last copy and the next.
    pause: u32,
    /// Retries until the next copy.
    left: u32,
}

/// Retries between two copies, at the most.
const RESEND_PAUSE_MAX: u32 = 16;

impl Resend {
    fn soon(acknowledged: OpNumber) -> Resend {
        Resend { acknowledged, pause: 1, left: 1 }
    }
}

impl Progress {
    fn new(id: ReplicaId) -> Progress {
        Progress {
            id,
            heard_at: Monotonic(0),
            down: None,
            clock: None,
            machine_version: None,
            log: None,
            past: None,
            has_room: None,
            reach: OpNumber::ZERO,
            older: None,
            distrust: None,
            acknowledged: OpNumber::ZERO,
            vouched: OpNumber::ZERO,
            confirmed: 0,
            confirmed_at: Monotonic(0),
            resend: Resend::soon(OpNumber::ZERO),
        }
    }

    /// A message of it has arrived. A member that is heard is not down, whatever a hint said: hints may be wrong, and their
    /// end may be lost.
    pub(crate) fn on_heard(&mut self, now: Monotonic) {
        self.down = None;
        self.heard_at = now;
    }

    /// The connection is down. Said again, only a refusal is news.
    pub(crate) fn on_down(&mut self, now: Monotonic, refused: bool) {
        let Down { since, refused: before } = self.down.unwrap_or(Down { since: now, refused: false });
        self.down = Some(Down { since, refused: before || refused });
    }

    /// The connection is a new one: what was sent on the old one may be lost.
    pub(crate) fn on_up(&mut self) {
        self.down = None;
        self.resend = Resend::soon(self.acknowledged);
    }

    /// What it says of itself every so often.
    pub(crate) fn on_ping(&mut self, ping: &Ping, now: Monotonic) {
        self.has_room = Some((ping.has_room, now));
        self.log = ping.normal.then_some((ping.view, ping.head));
        self.clock = Some(Sample { wall: ping.wall, heard_at: now });
        self.machine_version = Some(ping.machine_version);
    }

    /// The op of the newest checkpoint that it has, as it said last; 0 for none.
    pub(crate) fn checkpoint(&self) -> OpNumber {
        self.past.as_ref().map_or(OpNumber::ZERO, |said| said.past.newest())
    }

    /// The log of its present life reaches so far.
    pub(crate) fn reaches(&mut self, op: OpNumber) {
        self.reach = self.reach.max(op);
    }

    /// It acknowledges its log up to an op. `vouches`: the op is on its own disk, and not only known to be committed.
    /// Whether that is more than before.
    pub(crate) fn acknowledge(&mut self, op: OpNumber, vouches: bool, now: Monotonic) -> bool {
        self.reaches(op);
        self.confirmed_at = now;
        if vouches {
            self.vouched = op;
        }
        let is_more = op > self.acknowledged;
        if is_more {
            self.acknowledged = op;
        }
        is_more
    }

    /// It answers a `Commit`.
    pub(crate) fn confirm(&mut self, number: u64, now: Monotonic) {
        self.confirmed_at = now;
        self.confirmed = self.confirmed.max(number);
    }

    /// A term of this replica as primary begins: nothing is answered yet, and a time-out begins now.
    fn begin_term(&mut self, now: Monotonic) {
        self.acknowledged = OpNumber::ZERO;
        self.vouched = OpNumber::ZERO;
        self.confirmed = 0;
        self.confirmed_at = now;
        self.resend = Resend::soon(OpNumber::ZERO);
    }

    /// What it has answered in an older life counts no more.
    pub(crate) fn forget_answers(&mut self) {
        self.acknowledged = OpNumber::ZERO;
        self.vouched = OpNumber::ZERO;
        self.confirmed = 0;
        self.resend = Resend::soon(OpNumber::ZERO);
    }

    /// Called at each retry. Whether it lacks something up to `head`, is stuck, and is due for a copy of the next op.
    pub(crate) fn is_resend_due(&mut self, head: OpNumber) -> bool {
        if self.resend.acknowledged != self.acknowledged {
            self.resend = Resend::soon(self.acknowledged);
            return false;
        }
        if self.acknowledged >= head {
            return false;
        }
        let resend = &mut self.resend;
        resend.left -= 1;
        if resend.left > 0 {
            return false;
        }
        resend.pause = (resend.pause * 2).min(RESEND_PAUSE_MAX);
        resend.left = resend.pause;
        true
    }

    /// Whether it has said within `age_max` that it has room.
    pub(crate) fn has_room(&self, now: Monotonic, age_max: Duration) -> bool {
        self.has_room.is_some_and(|(has_room, when)| has_room && now.since(when) <= age_max)
    }
}

/// The members, in the order of the membership.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    members: Vec<Progress>,
}

impl Tracker {
    pub(crate) fn new(ids: impl Iterator<Item = ReplicaId>) -> Tracker {
        Tracker { members: ids.map(Progress::new).collect() }
    }

    /// `None` for a stranger.
    pub(crate) fn get(&self, id: ReplicaId) -> Option<&Progress> {
        self.members.iter().find(|member| member.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: ReplicaId) -> Option<&mut Progress> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Progress> {
        self.members.iter()
    }

    /// Whether the connection to a member is up, or not known to be down.
    pub(crate) fn is_up(&self, id: ReplicaId) -> bool {
        self.get(id).is_some_and(|member| member.down.is_none())
    }

    /// A term of this replica as primary begins.
    pub(crate) fn begin_term(&mut self, now: Monotonic) {
        self.members.iter_mut().for_each(|member| member.begin_term(now));
    }

    /// What each member has acknowledged; `own` has what is durable there: one vote among equals.
    pub(crate) fn acknowledged(&self, own: ReplicaId, durable: OpNumber) -> impl Iterator<Item = OpNumber> {
        self.members.iter().map(move |member| if member.id == own { durable } else { member.acknowledged })
    }

    /// The highest `Commit` that each member has answered; `own` was the sender, and has answered all up to `sent`.
    pub(crate) fn confirmed(&self, own: ReplicaId, sent: u64) -> impl Iterator<Item = u64> {
        self.members.iter().map(move |member| if member.id == own { sent } else { member.confirmed })
    }

    /// When each member last answered this primary; `own` does so `now`. In nanoseconds of [`Monotonic`].
    pub(crate) fn confirmed_at(&self, own: ReplicaId, now: Monotonic) -> impl Iterator<Item = u64> {
        self.members.iter().map(move |member| if member.id == own { now.0 } else { member.confirmed_at.0 })
    }

    /// The version of the state machine that the next op names: the lowest that the members announced
    /// last, never lower than that of the op `before` (rule 5.9). A member that has announced nothing since
    /// this replica's start holds a higher version back. `own` has the version `at`.
    pub(crate) fn op_version(&self, own: ReplicaId, at: u32, before: Option<u32>) -> u32 {
        let announced = self.members.iter();
        let mut versions = announced.map(|member| if member.id == own { Some(at) } else { member.machine_version });
        let lowest = versions.try_fold(at, |lowest, version| version.map(|version| lowest.min(version)));
        match (before, lowest) {
            (Some(before), Some(lowest)) => before.max(lowest),
            (Some(before), None) => before,
            (None, Some(lowest)) => lowest,
            (None, None) => self.members.iter().filter_map(|member| member.machine_version).fold(at, u32::min),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::random::Random;

    fn members() -> Tracker {
        Tracker::new([7, 3, 5].into_iter().map(ReplicaId))
    }

    fn member() -> Progress {
        Progress::new(ReplicaId(3))
    }

    #[test]
    fn a_member_is_found_by_its_id_whatever_its_place() {
        let mut members = members();
        for id in [7, 3, 5] {
            let member = members.get_mut(ReplicaId(id)).unwrap();
            member.acknowledge(OpNumber(u64::from(id)), false, Monotonic(1));
        }
        assert_eq!(members.get(ReplicaId(5)).unwrap().acknowledged, OpNumber(5));
        assert!(members.get(ReplicaId(0)).is_none() && !members.is_up(ReplicaId(0)), "a place is no id");
        let acknowledged: Vec<u64> = members.acknowledged(ReplicaId(3), OpNumber(100)).map(|op| op.0).collect();
        assert_eq!(acknowledged, [7, 100, 5], "of itself a replica knows what is durable");
        assert_eq!(members.confirmed(ReplicaId(7), 9).collect::<Vec<_>>(), [9, 0, 0]);
        assert_eq!(members.confirmed_at(ReplicaId(5), Monotonic(8)).collect::<Vec<_>>(), [1, 1, 8]);
    }

    /// Rule 5.9.
    #[test]
    fn an_op_names_the_lowest_version_that_all_have_announced() {
        let mut members = members();
        let own = ReplicaId(7);
        assert_eq!(members.op_version(own, 2, None), 2, "none is known of the others, and there is no op yet");
        assert_eq!(members.op_version(own, 2, Some(1)), 1, "who has announced nothing holds a higher version back");
        members.get_mut(ReplicaId(3)).unwrap().machine_version = Some(1);
        assert_eq!(members.op_version(own, 2, None), 1);
        members.get_mut(ReplicaId(5)).unwrap().machine_version = Some(3);
        assert_eq!(members.op_version(own, 2, Some(1)), 1);
        members.get_mut(ReplicaId(3)).unwrap().machine_version = Some(2);
        assert_eq!(members.op_version(own, 2, Some(1)), 2, "all have it");
        members.get_mut(ReplicaId(3)).unwrap().machine_version = Some(1);
        assert_eq!(members.op_version(own, 2, Some(2)), 2, "never lower than that of the op before");
    }

    /// Hazard B8: nothing that was answered in one term counts in the next.
    #[test]
    fn a_term_begins_with_no_answers() {
        let mut members = members();
        let member = members.get_mut(ReplicaId(7)).unwrap();
        member.acknowledge(OpNumber(4), true, Monotonic(5));
        member.confirm(6, Monotonic(5));
        members.begin_term(Monotonic(9));
        let member = members.get(ReplicaId(7)).unwrap();
        assert_eq!((member.acknowledged, member.vouched), (OpNumber::ZERO, OpNumber::ZERO));
        assert_eq!((member.confirmed, member.confirmed_at), (0, Monotonic(9)));
        assert_eq!(member.reach, OpNumber(4), "its log is as long as it was");
    }

    #[test]
    fn answers_of_an_older_life_are_forgotten_and_the_time_of_the_last_is_not() {
        let mut member = member();
        member.acknowledge(OpNumber(4), true, Monotonic(5));
        member.confirm(6, Monotonic(5));
        member.forget_answers();
        assert_eq!((member.acknowledged, member.vouched, member.confirmed), (OpNumber::ZERO, OpNumber::ZERO, 0));
        assert_eq!(member.confirmed_at, Monotonic(5));
    }

    /// Whatever arrives in whatever order: what is known only rises.
    #[test]
    fn late_answers_take_nothing_back() {
        let mut random = Random::new(3);
        let mut member = member();
        let (mut op_max, mut number_max) = (0, 0);
        for _ in 0..1_000 {
            let (op, number) = (random.below(100), random.below(100));
            let is_more = member.acknowledge(OpNumber(op), false, Monotonic(1));
            assert_eq!(is_more, op > op_max);
            member.confirm(number, Monotonic(1));
            (op_max, number_max) = (op_max.max(op), number_max.max(number));
            assert_eq!((member.acknowledged.0, member.reach.0, member.confirmed), (op_max, op_max, number_max));
        }
    }

    #[test]
    fn a_refusal_is_remembered_until_the_member_is_heard() {
        let mut member = member();
        member.on_down(Monotonic(5), true);
        member.on_down(Monotonic(6), false);
        assert_eq!(member.down, Some(Down { since: Monotonic(5), refused: true }));
        member.on_heard(Monotonic(7));
        assert_eq!((member.down, member.heard_at), (None, Monotonic(7)));
        member.on_down(Monotonic(8), false);
        assert_eq!(member.down, Some(Down { since: Monotonic(8), refused: false }));
    }

    /// Rule 6.9: the pauses double up to a bound, and start anew with progress, and with a new connection.
    #[test]
    fn a_backup_that_is_stuck_is_sent_copies_at_growing_pauses() {
        fn copies(member: &mut Progress, retries: u32) -> usize {
            (1..=retries).filter(|_| member.is_resend_due(OpNumber(9))).count()
        }
        let mut member = member();
        let mut due = Vec::new();
        for retry in 1..=64 {
            if copies(&mut member, 1) > 0 {
                due.push(retry);
            }
        }
        assert_eq!(due, [1, 3, 7, 15, 31, 47, 63]);
        member.acknowledge(OpNumber(4), false, Monotonic(1));
        assert_eq!(copies(&mut member, 1), 0, "it gets on");
        assert_eq!(copies(&mut member, 1), 1);
        assert_eq!(copies(&mut member, 1), 0);
        member.on_up();
        assert_eq!(copies(&mut member, 1), 1, "the line is a new one");
        member.acknowledge(OpNumber(9), false, Monotonic(1));
        assert_eq!(copies(&mut member, 64), 0, "it has everything");
    }

    #[test]
    fn room_that_was_told_long_ago_is_none() {
        let mut member = member();
        assert!(!member.has_room(Monotonic(0), Duration::from_nanos(5)));
        member.has_room = Some((true, Monotonic(10)));
        assert!(member.has_room(Monotonic(15), Duration::from_nanos(5)));
        assert!(!member.has_room(Monotonic(16), Duration::from_nanos(5)));
        member.has_room = Some((false, Monotonic(10)));
        assert!(!member.has_room(Monotonic(10), Duration::from_nanos(5)));
    }
}
