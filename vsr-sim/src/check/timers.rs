//! When replicas act against their view (hazard I18; rules 7.2, 7.9).

use std::time::Duration;

use vsr::protocol::{Core, Event, MEMBERS_MAX, Message, Monotonic, Peer, Status, View, ViewChangeReason};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// No replica votes against a view before its time-out is over, by the clock of the replica, and none waits for longer than that
/// time-out and the quarter of it that is drawn. The time-out of a view change doubles with each one that came to nothing since
/// something was committed, three times at most.
#[derive(Debug, Default)]
pub(super) struct TimeOutsAreKept {
    replicas: ByReplica<Timed>,
}

#[derive(Debug, Default)]
struct Timed {
    /// When its last turn ended; none before the first one of a life.
    turned: Option<Monotonic>,
    /// When it has entered its view, and when that has started here.
    entered: Option<Monotonic>,
    started: Option<Monotonic>,
    /// When it said last that it hears its primary, in an answer that waited for no write.
    heard: Option<Monotonic>,
    /// When a write of this life was complete last: not later than that.
    wrote: Option<Monotonic>,
    /// The turn before the last one had a write behind it, and the last one had.
    settled: (bool, bool),
    /// View changes that came to nothing.
    failed: u32,
    /// Time-outs of view changes that were over since something was committed, or one more than there were.
    over: u32,
    /// Something was committed in this turn.
    got_on: bool,
    /// The time-out that runs, and whether it is that of a view change.
    runs: Option<(Monotonic, bool)>,
}

/// How often the time-out of a view change doubles (rule 7.2).
const DOUBLED_MAX: u32 = 3;

/// The later of two moments, when both are known.
fn later(a: Option<Monotonic>, b: Option<Monotonic>) -> Option<Monotonic> {
    a.max(b)
}

impl Timed {
    /// How long a vote has to wait at least, and since when.
    fn least(&self, core: &Core, why: ViewChangeReason) -> Option<(Duration, Monotonic)> {
        let timing = core.options().timing;
        let (least, since) = match why {
            ViewChangeReason::Silence => (timing.primary_timeout, later(self.started, self.heard)),
            ViewChangeReason::NoProgress => {
                (timing.view_change_timeout * (1 << self.failed.min(DOUBLED_MAX)), self.entered)
            }
            // What a primary waits for begins when it says that its view has started: before that was durable here.
            ViewChangeReason::Unanswered => (timing.quorum_timeout, self.entered),
            ViewChangeReason::Disk => (timing.disk_stall_timeout, self.wrote),
            ViewChangeReason::Forward => (timing.forward_timeout, self.started),
            _ => return None,
        };
        Some((least, since?))
    }

    /// A time-out that was set in this turn to more than it may be: how long it is, and the most.
    fn too_long(&mut self, core: &Core) -> Option<(Duration, Duration)> {
        let (now, deadline, timing) = (core.time(), core.view_deadline(), core.options().timing);
        let is_changing = core.status() == Status::ViewChange;
        let before = self.runs.replace((deadline, is_changing));
        // What came before the first turn of a life is not known.
        self.over += u32::from(before.is_none_or(|(before, was_changing)| was_changing && before <= now));
        let doubled = self.over.min(DOUBLED_MAX);
        if std::mem::take(&mut self.got_on) {
            // It may have been set before, in the same turn.
            self.over = 0;
        }
        let base = if is_changing { timing.view_change_timeout * (1 << doubled) } else { timing.primary_timeout };
        let (waits, most) = (deadline.since(now), base + base / 4);
        let is_set = before.is_some_and(|(before, _)| before != deadline);
        let acts = !core.is_primary() && core.halted().is_none();
        (is_set && acts && waits > most).then_some((waits, most))
    }

    fn turn_ends(&mut self, now: Monotonic) {
        // A replica is in its view from its start on.
        self.entered.get_or_insert(now);
        self.started.get_or_insert(now);
        self.turned = Some(now);
        self.settled = (self.settled.1, self.wrote.is_some());
    }
}

impl Checker for TimeOutsAreKept {
    fn name(&self) -> &'static str {
        "time-outs-are-kept"
    }

    fn wants(&self) -> Interests {
        Interests::STARTED
            | Interests::TURN
            | Interests::WRITTEN
            | Interests::COMMIT
            | Interests::COMMITTED
            | Interests::OTHER_EVENTS
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => *self.replicas.of(replica) = Timed::default(),
            Observation::Turn { replica, core } => {
                let timed = self.replicas.of(replica);
                timed.turn_ends(core.time());
                if let Some((waits, most)) = timed.too_long(core) {
                    let view = core.view();
                    return Err(format!("r{replica} waits {waits:?} in view {view}, its time-out is {most:?} at most"));
                }
            }
            Observation::Written { replica } => {
                let timed = self.replicas.of(replica);
                timed.wrote = timed.turned;
            }
            Observation::Sent { replica, message: Message::CommitOk { .. } } => {
                let timed = self.replicas.of(replica);
                if timed.settled.0 {
                    timed.heard = timed.turned;
                }
            }
            Observation::Event { replica, event: Event::Committed { .. }, .. } => {
                let timed = self.replicas.of(replica);
                (timed.failed, timed.got_on) = (0, true);
            }
            Observation::Event { replica, core, event: Event::ViewEntered { .. } } => {
                let timed = self.replicas.of(replica);
                (timed.entered, timed.started) = (Some(core.time()), Some(core.time()));
            }
            Observation::Event { replica, core, event: Event::ViewStarted { .. } } => {
                self.replicas.of(replica).started = Some(core.time());
            }
            Observation::Event { replica, core, event: Event::Voted { view, why } } => {
                let timed = self.replicas.of(replica);
                let least = timed.least(core, *why);
                if *why == ViewChangeReason::NoProgress {
                    timed.failed += 1;
                }
                if let Some((least, since)) = least
                    && core.time().since(since) < least
                {
                    let after = core.time().since(since);
                    return Err(format!(
                        "r{replica} votes to leave view {view} after {after:?} ({why}), its time-out is {least:?}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A replica leaves its view because it has heard of a later one, or because it votes to leave exactly this view and so many
/// others do of late that they are a view-change quorum. Only at a start it may move on by itself, and a primary that says that it
/// hands on.
#[derive(Debug, Default)]
pub(super) struct ViewsAreLeftByQuorums {
    replicas: ByReplica<Voter>,
}

#[derive(Debug, Default)]
struct Voter {
    /// It has ended a turn in this life.
    runs: bool,
    /// The newest view that a message to it was of.
    heard: View,
    /// The newest view that others have voted to leave, and each one's vote.
    left: View,
    votes: [Option<Vote>; MEMBERS_MAX],
    /// The last view that it voted to leave itself.
    own: Option<View>,
    /// The last view that it has left to the next primary.
    handed_on: Option<View>,
}

/// When a vote was taken in.
#[derive(Clone, Copy, Debug)]
enum Vote {
    /// In the turn that has not ended.
    Now,
    At(Monotonic),
}

impl Voter {
    fn hears(&mut self, from: Peer, message: &Message) {
        let (Peer::Replica(id), Some(view)) = (from, message.view()) else { return };
        self.heard = self.heard.max(view);
        if let Message::StartViewChange { .. } = message
            && view >= self.left
        {
            if view > self.left {
                (self.left, self.votes) = (view, [None; MEMBERS_MAX]);
            }
            if let Some(vote) = self.votes.get_mut(usize::from(id.0)) {
                *vote = Some(Vote::Now);
            }
        }
    }

    /// How many others vote to leave this view at a moment.
    fn others(&self, own: usize, view: View, now: Monotonic, lasts: Duration) -> usize {
        if self.left != view {
            return 0;
        }
        let counts = |vote: &Vote| match vote {
            Vote::Now => true,
            Vote::At(at) => now.since(*at) <= lasts,
        };
        let votes = self.votes.iter().enumerate().filter(|(from, _)| *from != own);
        votes.filter_map(|(_, vote)| *vote).filter(counts).count()
    }
}

impl Checker for ViewsAreLeftByQuorums {
    fn name(&self) -> &'static str {
        "views-are-left-by-quorums"
    }

    fn wants(&self) -> Interests {
        Interests::STARTED | Interests::TURN | Interests::RECEIVED | Interests::OTHER_EVENTS
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => *self.replicas.of(replica) = Voter::default(),
            Observation::Received { replica, from, message } => self.replicas.of(replica).hears(from, message),
            Observation::Turn { replica, core } => {
                let voter = self.replicas.of(replica);
                voter.runs = true;
                for vote in voter.votes.iter_mut().flatten() {
                    if let Vote::Now = vote {
                        *vote = Vote::At(core.time());
                    }
                }
            }
            Observation::Event { replica, event: Event::Voted { view, .. }, .. } => {
                self.replicas.of(replica).own = Some(*view);
            }
            Observation::Event { replica, event: Event::HandedOn { view }, .. } => {
                self.replicas.of(replica).handed_on = Some(*view);
                let (of, members) = (view.number % scene.disks.len() as u64, replica as u64);
                if of != members {
                    return Err(format!("r{replica} hands on view {view}, whose primary is r{of}"));
                }
            }
            Observation::Event { replica, core, event: Event::ViewEntered { view } } => {
                let voter = self.replicas.of(replica);
                // A replica that was formatted anew leaves the first view of all, too.
                if !voter.runs || voter.heard >= *view || view.number < 2 {
                    return Ok(());
                }
                let before = View { number: view.number - 1, ..*view };
                if voter.handed_on == Some(before) {
                    return Ok(());
                }
                let lasts = core.options().timing.retry * 6;
                let others = voter.others(replica, before, core.time(), lasts);
                let (own, quorum) = (usize::from(voter.own == Some(before)), usize::from(scene.quorums.view_change));
                if own == 0 || others + own < quorum {
                    return Err(format!(
                        "r{replica} leaves view {before} with {own} vote of its own and {others} of others, a quorum is \
                         {quorum}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
