//! Who counts in no quorum (hazard I14; rules 6.4, 7.6).

use vsr::protocol::{DoViewChange, Event, Message, OpNumber, Slot, View};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// A replica whose storage could not say where its log ends has no part in a quorum until a primary has told it: it
/// acknowledges no op and confirms no read, says so in its `DoViewChange`, nacks nothing beyond what it can read, and
/// leads no view.
#[derive(Debug, Default)]
pub(super) struct UncertainIsSilent {
    uncertain: ByReplica<Option<Uncertain>>,
    /// The last op that each has acknowledged, and the view.
    acknowledged: ByReplica<(View, OpNumber)>,
}

#[derive(Clone, Copy, Debug)]
struct Uncertain {
    /// Starts counted on the disk before this one.
    starts: u64,
    /// The last op whose slot can be read.
    readable: OpNumber,
}

impl UncertainIsSilent {
    fn started(&mut self, scene: &Scene<'_>, replica: usize) {
        let disk = &scene.disks[replica];
        let (_, is_certain) = disk.end();
        if is_certain && disk.state().head_certain {
            *self.uncertain.of(replica) = None;
            return;
        }
        let recovered = disk.recover();
        let readable = recovered.slots.iter().rposition(|slot| !matches!(slot, Slot::Corrupt(_)));
        let base = recovered.state.base();
        let readable = OpNumber(readable.map_or(base.0, |at| base.0 + at as u64 + 1));
        *self.uncertain.of(replica) = Some(Uncertain { starts: recovered.state.starts, readable });
    }

    /// Forgets the doubt once the disk has the log of a view that another replica has started.
    fn look_again(&mut self, scene: &Scene<'_>, replica: usize) -> Result<Option<Uncertain>, String> {
        let Some(Uncertain { starts, readable }) = *self.uncertain.of(replica) else { return Ok(None) };
        let state = scene.disks[replica].state();
        if state.starts > starts && state.head_certain {
            let log_view = state.log_view;
            if state.membership.primary(log_view) == state.replica {
                return Err(format!(
                    "r{replica} calls its head certain as primary of view {log_view}, its log was readable to op \
                     {readable}"
                ));
            }
            let (view, acknowledged) = *self.acknowledged.of(replica);
            let head = state.suffix.head;
            if view == log_view && head < acknowledged {
                return Err(format!(
                    "r{replica} calls its head {head} certain in view {log_view}, it has acknowledged op {acknowledged} \
                     there: what told it is older than its doubt"
                ));
            }
            *self.uncertain.of(replica) = None;
        }
        Ok(*self.uncertain.of(replica))
    }
}

fn uncertain_do_view_change(replica: usize, readable: OpNumber, dvc: &DoViewChange) -> Result<(), String> {
    let view = dvc.view;
    if dvc.head_certain {
        let head = dvc.head;
        return Err(format!(
            "r{replica} calls its head {head} certain for view {view}, its log is readable to op {readable}"
        ));
    }
    let mut evidence = (dvc.commit.0 + 1..).map(OpNumber).zip(&dvc.evidence);
    match evidence.find(|(op, evidence)| evidence.nack && *op > readable) {
        Some((op, _)) => Err(format!(
            "r{replica} nacks op {op} for view {view}, its head is uncertain and its log readable to op {readable}"
        )),
        None => Ok(()),
    }
}

impl Checker for UncertainIsSilent {
    fn name(&self) -> &'static str {
        "uncertain-head-counts-for-nothing"
    }

    fn wants(&self) -> Interests {
        Interests::SENT | Interests::OTHER_EVENTS | Interests::STARTED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => self.started(scene, replica),
            Observation::Sent { replica, message } => {
                let uncertain = self.look_again(scene, replica)?;
                if let Message::PrepareOk { view, op, .. } = message {
                    let last = self.acknowledged.of(replica);
                    *last = (*last).max((*view, *op));
                }
                let Some(Uncertain { readable, .. }) = uncertain else { return Ok(()) };
                match message {
                    Message::PrepareOk { .. }
                    | Message::CommitOk { .. }
                    | Message::Prepare { .. }
                    | Message::Commit { .. }
                    | Message::StartView(_)
                    | Message::ReadIndexOk { .. } => {
                        let name = message.name();
                        return Err(format!(
                            "r{replica} sends {name}, its head is uncertain, its log readable to op {readable}"
                        ));
                    }
                    Message::DoViewChange(dvc) => return uncertain_do_view_change(replica, readable, dvc),
                    _ => {}
                }
            }
            Observation::Event { replica, core, event: Event::ViewStarted { view, .. } } => {
                if let Some(Uncertain { readable, .. }) = self.look_again(scene, replica)? {
                    let role = if core.is_primary() { "primary" } else { "backup" };
                    return Err(format!(
                        "r{replica} is {role} of view {view}, its head is uncertain, its log readable to op {readable}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A replica that has left its view, and has not the log of the next one, acknowledges nothing, confirms nothing and
/// leads nothing: what it says as a member of a view needs a disk with exactly that view and its log.
#[derive(Debug)]
pub(super) struct ViewChangeIsSilent;

impl Checker for ViewChangeIsSilent {
    fn name(&self) -> &'static str {
        "view-change-counts-for-nothing"
    }

    fn wants(&self) -> Interests {
        Interests::SENT
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent { replica, message } = *observation else { return Ok(()) };
        let said = match message {
            Message::Prepare { view, .. }
            | Message::PrepareOk { view, .. }
            | Message::Commit { view, .. }
            | Message::CommitOk { view, .. } => Some(*view),
            Message::StartView(start) => Some(start.view),
            Message::ReadIndexOk { .. } => None,
            _ => return Ok(()),
        };
        let state = scene.disks[replica].state();
        let (view, log_view) = (state.view, state.log_view);
        if view == log_view && said.is_none_or(|said| said == view) {
            return Ok(());
        }
        let (name, said) = (message.name(), said.map_or(String::new(), |said| format!(" of view {said}")));
        Err(format!("r{replica} sends {name}{said}, its disk has view {view} and log_view {log_view}"))
    }
}
