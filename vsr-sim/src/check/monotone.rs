//! Numbers that never go back (hazards I3, I4, I9).

use vsr::protocol::{CommitNumber, Event, Mark, OpNumber, Status, Succession, View};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// Durable view, log_view and commit number of a replica never decrease, over restarts too; and nothing up to
/// the commit number is ever dropped.
#[derive(Debug, Default)]
pub(super) struct Monotone {
    durable: ByReplica<(View, View, CommitNumber)>,
    commit: ByReplica<CommitNumber>,
}

impl Checker for Monotone {
    fn name(&self) -> &'static str {
        "monotone-view-log-view-commit"
    }

    fn wants(&self) -> Interests {
        Interests::WRITTEN | Interests::STARTED | Interests::TURN | Interests::OTHER_EVENTS
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Turn { replica, core } => {
                let before = std::mem::replace(self.commit.of(replica), core.commit());
                if core.commit() < before {
                    return Err(format!("r{replica} went from commit {before} back to {}", core.commit()));
                }
            }
            // A write may have become durable in a crash, before it was reported.
            Observation::Written { replica } | Observation::Started { replica } => {
                if let Observation::Started { .. } = observation {
                    *self.commit.of(replica) = CommitNumber(0);
                }
                let state = scene.disks[replica].state();
                let is_new = state.succession == Succession::Asking && state.starts == 0;
                if is_new || scene.disks[replica].is_old() {
                    *self.durable.of(replica) = Default::default();
                }
                let now = (state.view, state.log_view, state.commit);
                let before = std::mem::replace(self.durable.of(replica), now);
                if now.0 < before.0 || now.1 < before.1 || now.2 < before.2 {
                    let ((view, log_view, commit), (v, l, c)) = (now, before);
                    return Err(format!(
                        "r{replica}'s disk went from view {v}, log_view {l}, commit {c} to {view}, {log_view}, {commit}"
                    ));
                }
            }
            // What stood there may have been stale; what stood above it belonged to the log.
            Observation::Event { replica, event: Event::Truncated { above, head }, .. } => {
                let commit = *self.commit.of(replica);
                if *above < commit.op() {
                    return Err(format!(
                        "r{replica} drops ops {}..{head}, and knows op {commit} as committed",
                        above.next()
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A primary starts its view with every op of its log: of one that it has not there may be no other copy, and while it sends
/// heartbeats no member chooses again.
#[derive(Debug, Default)]
pub(super) struct PrimaryHoldsItsLog {
    /// Of each replica an op that it lacks as it starts a view; what it finds damaged in the same turn it had until then.
    lacks: ByReplica<Option<(View, OpNumber)>>,
}

impl Checker for PrimaryHoldsItsLog {
    fn name(&self) -> &'static str {
        "primary-holds-its-log"
    }

    fn wants(&self) -> Interests {
        Interests::OTHER_EVENTS | Interests::TURN
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            // In the same turn it may have gone on to another view.
            Observation::Event { replica, core, event: Event::ViewStarted { view, primary } }
                if core.id() == *primary && core.view() == *view =>
            {
                let mut uncommitted = (core.commit().0 + 1..=core.head().0).map(OpNumber);
                *self.lacks.of(replica) = uncommitted.find(|op| !core.holds(*op)).map(|op| (*view, op));
            }
            Observation::Mark { replica, mark: Mark::Path(DAMAGE), .. } => *self.lacks.of(replica) = None,
            Observation::Turn { replica, .. } => {
                if let Some((view, op)) = self.lacks.of(replica).take() {
                    return Err(format!("r{replica} starts view {view} as its primary without the body of op {op}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The mark of an entry that was on the disk, and cannot be read.
const DAMAGE: &str = "a stored entry is damaged";

/// log_view ≤ view; in normal operation they are equal; nothing is applied that is not committed.
#[derive(Debug)]
pub(super) struct StateOrder;

impl Checker for StateOrder {
    fn name(&self) -> &'static str {
        "state-order"
    }

    fn wants(&self) -> Interests {
        Interests::TURN
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Turn { replica, core } = *observation else { return Ok(()) };
        let (view, log_view) = (core.view(), core.log_view());
        if log_view > view {
            return Err(format!("r{replica} has log_view {log_view} above its view {view}"));
        }
        if core.status() == Status::Normal && log_view != view {
            return Err(format!("r{replica} is in normal operation in view {view} with log_view {log_view}"));
        }
        if core.applied() > core.commit().op() || core.applied() > core.head() {
            let (applied, commit, head) = (core.applied(), core.commit(), core.head());
            return Err(format!("r{replica} has applied op {applied}, commit number {commit}, head {head}"));
        }
        Ok(())
    }
}
