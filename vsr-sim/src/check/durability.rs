//! What is committed, or acknowledged, is durable at that moment (hazards I2, I7).

use vsr::Checksum;
use vsr::protocol::{Event, Message, OpNumber, View};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// When a primary counts an op as committed, a replication quorum of disks holds that very entry.
/// Rotten copies count: rot comes after the acknowledgement.
#[derive(Debug, Default)]
pub(super) struct CommittedOnQuorum {
    /// The commit number when the last turn ended; none before the first one.
    known: ByReplica<Option<OpNumber>>,
}

impl Checker for CommittedOnQuorum {
    fn name(&self) -> &'static str {
        "committed-on-a-quorum-of-disks"
    }

    fn wants(&self) -> Interests {
        Interests::COMMITTED | Interests::TURN | Interests::STARTED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let (replica, core) = match *observation {
            Observation::Started { replica } => {
                *self.known.of(replica) = None;
                return Ok(());
            }
            Observation::Turn { replica, core } => {
                *self.known.of(replica) = Some(core.commit().op());
                return Ok(());
            }
            Observation::Event { replica, core, event: Event::Committed { .. } } if core.is_primary() => {
                (replica, core)
            }
            _ => return Ok(()),
        };
        let Some(known) = self.known.of(replica).replace(core.commit().op()) else { return Ok(()) };
        let need = usize::from(scene.quorums.replication);
        for op in (known.0 + 1..=core.commit().0).map(OpNumber) {
            let Some(checksum) = core.checksum(op) else { continue };
            let (held, perhaps) = scene.copies(op, checksum);
            if held + perhaps < need {
                return Err(format!("r{replica} committed op {op} ({checksum}), durable on {held} of {need} disks"));
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
    replicas: ByReplica<Acknowledger>,
}

#[derive(Debug, Default)]
struct Acknowledger {
    /// Whether the view was its to lead when its last turn ended: it may begin to lead it, count, and leave it within one
    /// turn.
    was_primary: bool,
    /// What its last acknowledgement said, and was found true: from there on down need not be looked at again.
    found: Option<(View, OpNumber, Checksum)>,
}

impl Checker for AcknowledgedIsDurable {
    fn name(&self) -> &'static str {
        "acknowledged-is-durable"
    }

    fn wants(&self) -> Interests {
        Interests::PREPARE_OK | Interests::COMMITTED | Interests::TURN | Interests::STARTED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => *self.replicas.of(replica) = Acknowledger::default(),
            Observation::Turn { replica, core } => {
                self.replicas.of(replica).was_primary = core.primary_id() == core.id();
            }
            Observation::Event { replica, core, event: Event::Committed { commit } }
                if core.is_primary() || self.replicas.of(replica).was_primary =>
            {
                self.committed = self.committed.max(commit.op());
            }
            Observation::Sent { replica, message: Message::PrepareOk { view, op, checksum, .. } } => {
                return self.acknowledges(scene, replica, *view, *op, *checksum);
            }
            _ => {}
        }
        Ok(())
    }
}

impl AcknowledgedIsDurable {
    fn acknowledges(
        &mut self,
        scene: &Scene<'_>,
        replica: usize,
        view: View,
        op: OpNumber,
        checksum: Checksum,
    ) -> Result<(), String> {
        let disk = &scene.disks[replica];
        let state = disk.state();
        if state.view != view || state.log_view != view {
            let (durable, log_view) = (state.view, state.log_view);
            return Err(format!(
                "r{replica} acknowledges op {op} in view {view}, its disk has view {durable}, log_view {log_view}"
            ));
        }
        let found = &mut self.replicas.of(replica).found;
        // What is committed may be acknowledged without a copy: others have it.
        let (mut at, mut name) = (op, checksum);
        while at > self.committed && *found != Some((view, at, name)) {
            let header = disk.durable_header(at).filter(|header| header.checksum() == name);
            let Some(header) = header else {
                let durable = disk.durable(at).map_or("nothing".to_owned(), |durable| durable.to_string());
                return Err(format!(
                    "r{replica} acknowledges op {op}, so op {at} as {name}, its disk has {durable} there"
                ));
            };
            (at, name) = (at.prev(), header.parent);
        }
        *found = Some((view, op, checksum));
        Ok(())
    }
}
