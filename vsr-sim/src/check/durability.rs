//! What is committed is durable, and stays (HAZARDS I2, I7).

use std::collections::BTreeMap;

use vsr::Message;
use vsr::OpNumber;
use vsr::protocol::Event;

use super::{Checker, Observation, Scene};

/// When a primary counts an op as committed, a replication quorum of disks holds that very entry.
/// Rotten copies count: rot comes after the acknowledgement.
#[derive(Debug, Default)]
pub(super) struct CommittedOnQuorum {
    known: BTreeMap<usize, OpNumber>,
}

impl Checker for CommittedOnQuorum {
    fn name(&self) -> &'static str {
        "committed-on-a-quorum-of-disks"
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let (replica, core) = match *observation {
            Observation::Started { replica } => {
                self.known.remove(&replica);
                return Ok(());
            }
            Observation::Turn { replica, core } => {
                self.known.insert(replica, core.commit().op());
                return Ok(());
            }
            Observation::Event { replica, core, event: Event::Committed { .. } } if core.is_primary() => {
                (replica, core)
            }
            _ => return Ok(()),
        };
        let Some(known) = self.known.get(&replica) else { return Ok(()) };
        for op in (known.0 + 1..=core.commit().0).map(OpNumber) {
            let Some(checksum) = core.checksum(op) else { continue };
            let copies = scene.disks.iter().filter(|disk| disk.durable(op) == Some(checksum)).count();
            if copies < usize::from(scene.quorums.replication) {
                let need = scene.quorums.replication;
                return Err(format!("r{replica} committed op {op} ({checksum}), durable on {copies} of {need} disks"));
            }
        }
        Ok(())
    }
}

/// A replica that acknowledges an op holds it, and everything before it that is not committed yet, on
/// its disk, and its durable log is that of the view it acknowledges in.
#[derive(Debug, Default)]
pub(super) struct AcknowledgedIsDurable {
    /// The highest op that any primary has counted as committed.
    committed: OpNumber,
    /// Who was primary when its last turn ended: it may count and leave its view within one turn.
    primaries: BTreeMap<usize, bool>,
}

impl Checker for AcknowledgedIsDurable {
    fn name(&self) -> &'static str {
        "acknowledged-is-durable"
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Event { replica, core, event: Event::Committed { commit } }
                if core.is_primary() || self.primaries.get(replica) == Some(&true) =>
            {
                self.committed = self.committed.max(commit.op());
            }
            Observation::Turn { replica, core } => {
                self.primaries.insert(*replica, core.is_primary());
            }
            _ => {}
        }
        let Observation::Sent { replica, message: Message::PrepareOk { view, op, checksum } } = *observation else {
            return Ok(());
        };
        let disk = &scene.disks[replica];
        let state = disk.state();
        if state.view != *view || state.log_view != *view {
            let (durable, log_view) = (state.view, state.log_view);
            return Err(format!(
                "r{replica} acknowledges op {op} in view {view}, its disk has view {durable}, log_view {log_view}"
            ));
        }
        // What is committed may be acknowledged without a copy: others have it.
        let (mut at, mut name) = (*op, *checksum);
        while at > self.committed {
            let header = disk.durable_header(at).filter(|header| header.checksum() == name);
            let Some(header) = header else {
                let durable = disk.durable(at);
                return Err(format!(
                    "r{replica} acknowledges op {op}, so op {at} as {name}, its disk has {durable:?} there"
                ));
            };
            (at, name) = (at.prev(), header.parent);
        }
        Ok(())
    }
}
