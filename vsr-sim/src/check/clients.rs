//! What clients are told (hazards I2, D28; rule 6.4).

use vsr::protocol::{Message, OpNumber};

use super::acknowledged::highest_executed;
use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// No client hears of an execution before the op is committed. A backup may pass on a reply before it knows itself.
#[derive(Debug, Default)]
pub(super) struct RepliesAreCommitted {
    /// The highest commit number of any replica.
    committed: OpNumber,
    /// What each has told a client in this turn and was not known as committed before it.
    told: ByReplica<OpNumber>,
}

impl Checker for RepliesAreCommitted {
    fn name(&self) -> &'static str {
        "replies-are-committed"
    }

    fn wants(&self) -> Interests {
        Interests::ANSWERS | Interests::TURN | Interests::STARTED | Interests::ACKNOWLEDGED
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Sent { replica, message: Message::Replies { replies, .. } } => {
                let told = highest_executed(replies);
                if told > self.committed {
                    let before = self.told.of(replica);
                    *before = told.max(*before);
                }
            }
            Observation::Turn { replica, core } => {
                self.committed = self.committed.max(core.commit().op());
                let told = std::mem::take(self.told.of(replica));
                if told > self.committed {
                    let (own, committed) = (core.commit(), self.committed);
                    return Err(format!(
                        "r{replica} tells a client of op {told}, its commit number is {own}, the highest {committed}"
                    ));
                }
            }
            Observation::Started { replica } => *self.told.of(replica) = OpNumber::ZERO,
            Observation::Acknowledged { command, position, .. } if position.op > self.committed => {
                let committed = self.committed;
                return Err(format!(
                    "command {command} is acknowledged at {position}, the highest commit number is {committed}"
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The view that a client is told is one whose log the sender durably holds: it has started. A view that was only
/// entered may come to nothing, and a client that believed in it would turn away from the primary that still serves.
#[derive(Debug)]
pub(super) struct StartedViewsOnly;

impl Checker for StartedViewsOnly {
    fn name(&self) -> &'static str {
        "clients-see-started-views"
    }

    fn wants(&self) -> Interests {
        Interests::ANSWERS
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent { replica, message } = *observation else { return Ok(()) };
        let (Message::Replies { view, .. } | Message::Answer { view, .. }) = message else { return Ok(()) };
        let started = scene.disks[replica].state().log_view;
        if *view <= started {
            return Ok(());
        }
        Err(format!("r{replica} tells a client of view {view}, the last that it knows as started is {started}"))
    }
}
