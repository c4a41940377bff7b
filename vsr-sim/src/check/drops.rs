//! What takes the place of a log that was dropped (hazards CP-02, ST-01; rules 9.2, 9.4).

use vsr::protocol::{DiskId, Event, Message, OpNumber, Succession, View};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};
use crate::files::SimDisk;

/// What a replica drops from its log is in durable checkpoints of a replication quorum at that moment. One that has taken over the checkpoint of
/// another member begins its log there: what it drops then, it lacked.
#[derive(Debug, Default)]
pub(super) struct DroppedIsCovered {
    bases: ByReplica<OpNumber>,
    /// The newest that each has ever had: one may find out later that its state was wrong.
    checkpoints: ByReplica<OpNumber>,
    /// The last one of another member that each has begun its log with.
    restored: ByReplica<OpNumber>,
    /// Those that fetch one, or have, in this life.
    fetches: ByReplica<bool>,
}

impl Checker for DroppedIsCovered {
    fn name(&self) -> &'static str {
        "dropped-is-covered"
    }

    fn wants(&self) -> Interests {
        Interests::WRITTEN | Interests::STARTED | Interests::OTHER_EVENTS
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Event { replica, event: Event::TransferBegan { .. }, .. } => *self.fetches.of(replica) = true,
            Observation::Event { replica, event: Event::Restored { op, .. }, .. } if *self.fetches.of(replica) => {
                *self.restored.of(replica) = *op;
            }
            Observation::Started { replica } => *self.fetches.of(replica) = false,
            _ => {}
        }
        let (Observation::Written { replica } | Observation::Started { replica }) = *observation else { return Ok(()) };
        let state = scene.disks[replica].state();
        let newest = self.checkpoints.of(replica);
        *newest = (*newest).max(state.checkpoint());
        let base = state.base();
        let before = std::mem::replace(self.bases.of(replica), base);
        // It may be found wrong in the batch that begins the log with it, and is not named then.
        if base <= before || base == state.checkpoint() || base == *self.restored.of(replica) {
            return Ok(());
        }
        let mut count = 0;
        for (at, disk) in scene.disks.iter().enumerate() {
            let newest = disk.state().checkpoint().max(*self.checkpoints.of(at));
            count += usize::from(disk.is_lost() || newest >= base);
        }
        let need = usize::from(scene.quorums.replication);
        // One batch may have both: what is dropped, and that the state is wrong, so that no checkpoint is named any more.
        let is_given_up = state.checkpoints.is_empty();
        let is_own = if is_given_up { *self.checkpoints.of(replica) >= base } else { state.checkpoint() > base };
        if count >= need && is_own {
            return Ok(());
        }
        let own = state.checkpoint();
        Err(format!(
            "r{replica} drops its log up to op {base}: {count} of {need} disks have a checkpoint that reaches so far, its own reaches op {own}"
        ))
    }
}

/// A disk that takes the place of a lost one has no part in any quorum before the record that says so is durable; and then in views only that are
/// above all that the lost one has promised, and with everything that this has acknowledged: that is up to the op of the new one.
#[derive(Debug, Default)]
pub(super) struct NewDiskIsSilent {
    /// The highest view that each disk of a replica has promised: its own, and those before it.
    promised: ByReplica<(DiskId, View, View)>,
    /// The disk of each replica that has counted last.
    counted: ByReplica<DiskId>,
}

impl NewDiskIsSilent {
    /// A record says that a disk counts. What it calls committed is on that disk, up to the op of the disk at least.
    fn check_record(&mut self, disk: &SimDisk, replica: usize) -> Result<(), String> {
        let state = disk.state();
        let Succession::Whole { op } = state.succession else { return Ok(()) };
        if std::mem::replace(self.counted.of(replica), state.disk_id) == state.disk_id {
            return Ok(());
        }
        let is_missing = |op: &OpNumber| disk.durable(*op).is_none();
        match (state.base().0 + 1..=op.max(state.commit.op()).0).map(OpNumber).find(is_missing) {
            Some(missing) => Err(format!(
                "r{replica} has a new disk that counts, and does not hold op {missing}: the lost one may have acknowledged it"
            )),
            None => Ok(()),
        }
    }
}

impl Checker for NewDiskIsSilent {
    fn name(&self) -> &'static str {
        "new-disk-counts-for-nothing"
    }

    fn wants(&self) -> Interests {
        Interests::PREPARE_OK | Interests::COMMIT | Interests::VIEW_CHANGE | Interests::PREPARE | Interests::WRITTEN
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        if let Observation::Written { replica } = *observation {
            return self.check_record(&scene.disks[replica], replica);
        }
        let Observation::Sent { replica, message } = *observation else { return Ok(()) };
        let state = scene.disks[replica].state();
        let promised = self.promised.of(replica);
        if promised.0 != state.disk_id {
            *promised = (state.disk_id, View::default(), promised.2.max(promised.1));
        }
        promised.1 = promised.1.max(state.view);
        let counts = matches!(
            message,
            Message::Prepare { .. }
                | Message::PrepareOk { .. }
                | Message::Commit { .. }
                | Message::CommitOk { .. }
                | Message::StartViewChange { .. }
                | Message::DoViewChange(_)
                | Message::StartView(_)
        );
        let (name, succession) = (message.name(), state.succession);
        if counts && matches!(succession, Succession::Asking | Succession::Appointed { .. }) {
            return Err(format!("r{replica} sends {name}, and its disk takes the place of a lost one: {succession:?}"));
        }
        match message.view().filter(|view| counts && *view <= promised.2 && succession != Succession::First) {
            Some(view) => {
                let lost = promised.2;
                Err(format!(
                    "r{replica} sends {name} of view {view} with a new disk; the lost one has promised view {lost}"
                ))
            }
            None => Ok(()),
        }
    }
}

/// A replica that lacks what is in no log any more acknowledges no op and confirms no read, until a checkpoint has taken its place.
#[derive(Debug, Default)]
pub(super) struct TransferIsSilent {
    /// Those that fetch a checkpoint, or have no state, as their last turn ended.
    lacking: ByReplica<bool>,
}

impl Checker for TransferIsSilent {
    fn name(&self) -> &'static str {
        "transfer-counts-for-nothing"
    }

    fn wants(&self) -> Interests {
        Interests::TURN | Interests::PREPARE_OK | Interests::COMMIT | Interests::STARTED
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => *self.lacking.of(replica) = false,
            Observation::Turn { replica, core } => {
                *self.lacking.of(replica) = core.transfer().is_some() || core.lacks_state();
            }
            Observation::Sent { replica, message: Message::PrepareOk { .. } | Message::CommitOk { .. } }
                if *self.lacking.of(replica) =>
            {
                return Err(format!("r{replica} acknowledges, and fetches a checkpoint that it lacks"));
            }
            _ => {}
        }
        Ok(())
    }
}
