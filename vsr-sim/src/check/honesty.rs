//! What a replica says is what its disk would say after a crash (HAZARDS I7, I8, I13; DESIGN 6.4).

use std::collections::{BTreeMap, BTreeSet};

use vsr::{Checksum, Message, OpNumber, View};

use super::{Checker, Observation, Scene};

/// No message carries a view that is not durable; what speaks of the log, or as a member of a started
/// view, needs the durable log_view as well.
#[derive(Debug)]
pub(super) struct NothingBeforeItIsDurable;

impl Checker for NothingBeforeItIsDurable {
    fn name(&self) -> &'static str {
        "nothing-leaves-before-it-is-durable"
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent { replica, message } = *observation else { return Ok(()) };
        let state = scene.disks[replica].state();
        let (view, log_view) = match message {
            Message::StartViewChange { view } => (*view, None),
            Message::Ping(ping) => (ping.view, None),
            Message::DoViewChange(dvc) => (dvc.view, Some(dvc.log_view)),
            Message::StartView(start) => (start.view, Some(start.view)),
            Message::Prepare { view, .. }
            | Message::PrepareOk { view, .. }
            | Message::Commit { view, .. }
            | Message::CommitOk { view, .. } => (*view, Some(*view)),
            Message::Replies { view, .. } | Message::Answer { view, .. } => (*view, None),
            _ => return Ok(()),
        };
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
    said: BTreeMap<(usize, View), Checksum>,
}

impl Checker for SameDoViewChange {
    fn name(&self) -> &'static str {
        "one-do-view-change-per-view"
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent { replica, message: Message::DoViewChange(dvc) } = *observation else { return Ok(()) };
        let mut bytes = format!("{} {} {}", dvc.log_view, dvc.commit, dvc.head).into_bytes();
        dvc.headers.iter().for_each(|header| bytes.extend(header.checksum().0.to_le_bytes()));
        let says = Checksum::of(&bytes);
        let said = *self.said.entry((replica, dvc.view)).or_insert(says);
        if said == says {
            return Ok(());
        }
        let (view, log_view, head) = (dvc.view, dvc.log_view, dvc.head);
        Err(format!(
            "r{replica} sends a DoViewChange for view {view} (log_view {log_view}, head {head}) that differs from its first"
        ))
    }
}

/// A replica never nacks what it has acknowledged in the same log. Acknowledged is what its disk held of
/// the chain when it said so: of what was committed before it may lack a copy.
#[derive(Debug, Default)]
pub(super) struct NackedNeverAcknowledged {
    acknowledged: BTreeMap<(usize, View), BTreeSet<OpNumber>>,
}

impl Checker for NackedNeverAcknowledged {
    fn name(&self) -> &'static str {
        "nacked-never-acknowledged"
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent { replica, message } = *observation else { return Ok(()) };
        match message {
            Message::PrepareOk { view, op, checksum } => {
                let acknowledged = self.acknowledged.entry((replica, *view)).or_default();
                let (mut op, mut name) = (*op, *checksum);
                while let Some(header) = scene.disks[replica].durable_header(op) {
                    if header.checksum() != name || !acknowledged.insert(op) {
                        break;
                    }
                    (op, name) = (op.prev(), header.parent);
                }
            }
            Message::DoViewChange(dvc) => {
                let Some(acknowledged) = self.acknowledged.get(&(replica, dvc.log_view)) else { return Ok(()) };
                let Some(&highest) = acknowledged.last() else { return Ok(()) };
                if dvc.head_certain && dvc.head < highest {
                    let (view, head) = (dvc.view, dvc.head);
                    return Err(format!(
                        "r{replica} acknowledged op {highest}, its DoViewChange for view {view} ends at {head}"
                    ));
                }
                for (at, fact) in dvc.facts.iter().enumerate() {
                    let op = OpNumber(dvc.commit.0 + 1 + at as u64);
                    if fact.nack && acknowledged.contains(&op) {
                        let view = dvc.view;
                        return Err(format!("r{replica} nacks op {op} for view {view}, and had acknowledged it"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
