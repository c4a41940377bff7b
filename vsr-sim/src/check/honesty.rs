//! What a replica says is what its disk would say after a crash (hazards I7, I8, I13; rule 6.4).

use vsr::Checksum;
use vsr::protocol::{CommitNumber, DoViewChange, Message, OpNumber, View};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// No message carries a view that is not durable; what speaks of the log, or as a member of a started
/// view, needs the durable log_view as well.
#[derive(Debug)]
pub(super) struct NothingBeforeItIsDurable;

impl Checker for NothingBeforeItIsDurable {
    fn name(&self) -> &'static str {
        "nothing-leaves-before-it-is-durable"
    }

    fn wants(&self) -> Interests {
        Interests::SENT
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent { replica, message } = *observation else { return Ok(()) };
        let (view, log_view) = match message {
            Message::Prepare { view, .. }
            | Message::PrepareOk { view, .. }
            | Message::Commit { view, .. }
            | Message::CommitOk { view, .. } => (*view, Some(*view)),
            Message::StartViewChange { leaving: view, .. } => (*view, None),
            Message::Ping(ping) => (ping.view, None),
            Message::DoViewChange(dvc) => (dvc.view, Some(dvc.log_view)),
            Message::StartView(start) => (start.view, Some(start.view)),
            _ => return Ok(()),
        };
        let state = scene.disks[replica].state();
        let name = message.name();
        if view > state.view {
            let durable = state.view;
            return Err(format!("r{replica} sends {name} of view {view}, its disk has view {durable}"));
        }
        if log_view.is_some_and(|log_view| log_view != state.log_view) {
            let (said, durable) = (log_view.unwrap_or_default(), state.log_view);
            return Err(format!("r{replica} sends {name} with log_view {said}, its disk has log_view {durable}"));
        }
        Ok(())
    }
}

/// Every `DoViewChange` of one replica for one view says the same of its log, over restarts too.
#[derive(Debug, Default)]
pub(super) struct SameDoViewChange {
    /// What each said first for its newest view: it never goes back to an older one.
    said: ByReplica<Option<Said>>,
}

#[derive(Debug)]
struct Said {
    view: View,
    log_view: View,
    commit: CommitNumber,
    head: OpNumber,
    headers: Vec<Checksum>,
}

impl Said {
    fn of(dvc: &DoViewChange) -> Said {
        let DoViewChange { view, log_view, commit, head, ref headers, .. } = *dvc;
        Said { view, log_view, commit, head, headers: headers.iter().map(vsr::protocol::Header::checksum).collect() }
    }

    fn is(&self, dvc: &DoViewChange) -> bool {
        (self.log_view, self.commit, self.head) == (dvc.log_view, dvc.commit, dvc.head)
            && self.headers.iter().copied().eq(dvc.headers.iter().map(vsr::protocol::Header::checksum))
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Said { log_view, commit, head, headers, .. } = self;
        write!(f, "log_view {log_view}, commit {commit}, head {head}, headers {headers:?}")
    }
}

impl Checker for SameDoViewChange {
    fn name(&self) -> &'static str {
        "one-do-view-change-per-view"
    }

    fn wants(&self) -> Interests {
        Interests::VIEW_CHANGE | Interests::STARTED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        if let Observation::Started { replica } = *observation
            && scene.disks[replica].is_old()
        {
            // Nobody counts what it says.
            *self.said.of(replica) = None;
        }
        let Observation::Sent { replica, message: Message::DoViewChange(dvc) } = *observation else { return Ok(()) };
        match self.said.of(replica) {
            Some(said) if said.view > dvc.view => Ok(()),
            Some(said) if said.view == dvc.view && said.is(dvc) => Ok(()),
            Some(said) if said.view == dvc.view => {
                let (view, says) = (dvc.view, Said::of(dvc));
                Err(format!("r{replica} says in a DoViewChange for view {view}: {says}; it said before: {said}"))
            }
            said => {
                *said = Some(Said::of(dvc));
                Ok(())
            }
        }
    }
}

/// A replica never nacks what it has acknowledged in the same log. Acknowledged is what its disk held of
/// the chain when it said so: of what was committed before it may lack a copy.
#[derive(Debug, Default)]
pub(super) struct NackedNeverAcknowledged {
    acknowledged: ByReplica<Acknowledged>,
}

/// What a replica has acknowledged in the newest view in which it did.
#[derive(Debug, Default)]
struct Acknowledged {
    view: View,
    /// Stretches of ops: the one before the first, and the last.
    stretches: Vec<(OpNumber, OpNumber)>,
}

impl Acknowledged {
    fn contains(&self, op: OpNumber) -> bool {
        self.stretches.iter().any(|(before, last)| (before.next()..=*last).contains(&op))
    }

    fn acknowledge(&mut self, scene: &Scene<'_>, replica: usize, view: View, last: OpNumber, checksum: Checksum) {
        if self.view != view {
            *self = Acknowledged { view, stretches: Vec::new() };
        }
        let disk = &scene.disks[replica];
        // Nothing up to the durable commit number is ever nacked.
        let floor = disk.state().commit.op();
        let (mut op, mut name) = (last, checksum);
        while op > floor
            && !self.contains(op)
            && let Some(header) = disk.durable_header(op).filter(|header| header.checksum() == name)
        {
            (op, name) = (op.prev(), header.parent);
        }
        if op == last {
            return;
        }
        match self.stretches.iter_mut().find(|(_, end)| *end == op) {
            Some((_, end)) => *end = last,
            None => self.stretches.push((op, last)),
        }
    }
}

impl Checker for NackedNeverAcknowledged {
    fn name(&self) -> &'static str {
        "nacked-never-acknowledged"
    }

    fn wants(&self) -> Interests {
        Interests::PREPARE_OK | Interests::VIEW_CHANGE | Interests::STARTED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        if let Observation::Started { replica } = *observation
            && !scene.disks[replica].counts()
        {
            // What the lost disk acknowledged is committed, or never will be, when this one counts (rule 7.19). An older copy counts never.
            *self.acknowledged.of(replica) = Acknowledged::default();
        }
        let Observation::Sent { replica, message } = *observation else { return Ok(()) };
        let acknowledged = self.acknowledged.of(replica);
        match message {
            Message::PrepareOk { view, op, checksum, .. } => {
                acknowledged.acknowledge(scene, replica, *view, *op, *checksum);
            }
            Message::DoViewChange(dvc) if dvc.log_view == acknowledged.view => {
                let view = dvc.view;
                let highest = acknowledged.stretches.iter().map(|(_, last)| *last).max().unwrap_or_default();
                if dvc.head_certain && dvc.head < highest {
                    let head = dvc.head;
                    return Err(format!(
                        "r{replica} acknowledged op {highest}, its DoViewChange for view {view} ends at {head}"
                    ));
                }
                let evidence = (dvc.commit.0 + 1..).map(OpNumber).zip(&dvc.evidence);
                for (op, _) in evidence.filter(|(_, evidence)| evidence.nack) {
                    if acknowledged.contains(op) {
                        let log_view = dvc.log_view;
                        return Err(format!(
                            "r{replica} nacks op {op} of log_view {log_view} for view {view}, it acknowledged up to op \
                             {highest}"
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
