//! The state after an op of a log: applied by a core that is alone in its cluster, whose writes go nowhere.

use std::time::Duration;

use super::error::BackupError;
use crate::protocol::{
    CheckpointHead, ClientId, CommitNumber, Core, Effects, Header, Input, Inputs, Monotonic, OpNumber, Options,
    Quorums, Recovered, Succession, Timestamp, Timing, VsrState,
};
use crate::traits::state_machine::{StateMachine, Typed};
use crate::traits::storage::Storage;

/// Bytes that are read at once.
const READ_BYTES_MAX: usize = 4 << 20;
/// Reads that are under way at once: each is answered before the next turn.
const READS_MAX: usize = 4;
/// Turns in which nothing happens but that time passes, at most: a core that is alone waits for nothing.
const IDLE_MAX: u32 = 1000;

/// A state, and where it stands.
pub(super) struct Replayed<S> {
    pub(super) machine: Typed<S>,
    /// Of its last op.
    pub(super) header: Header,
    /// What comes before the machine's bytes.
    pub(super) head: Vec<u8>,
}

/// Applies the log up to an op. All of it is intact above the state that it begins with.
pub(super) async fn replay<S: StateMachine>(
    storage: &impl Storage,
    recovered: Recovered,
    (mut machine, machine_version): (Typed<S>, u32),
    head: Option<CheckpointHead>,
    until: OpNumber,
) -> Result<Replayed<S>, BackupError> {
    let mut now = Monotonic(1);
    let options = Options {
        timing: Timing::default().with(|timing| timing.scrub = Duration::ZERO),
        seed: 1,
        local_client: ClientId(1),
        machine_version,
        log_bytes_max: u64::MAX,
        cache_bytes: READ_BYTES_MAX as u64,
        queue_bytes_max: 0,
        checkpoints: false,
    };
    let until = head.as_ref().map_or(until, |head| head.header().op.max(until));
    let mut core =
        Core::recover_from(options, alone(recovered, until), head, now, Timestamp(0)).map_err(BackupError::Halt)?;
    let (mut inputs, mut effects, mut idle) = (Inputs::default(), Effects::default(), 0);
    loop {
        (inputs.now, inputs.reads_max) = (now, READS_MAX);
        core.turn(&mut inputs, &mut machine, &mut effects);
        if let Some(halt) = core.halted() {
            return Err(BackupError::Halt(halt.clone()));
        }
        if core.applied() >= until {
            let (header, head) = core.state_head().ok_or_else(|| BackupError::Stuck("it is empty".to_owned()))?;
            return Ok(Replayed { machine, header, head });
        }
        inputs.written = effects.write.take().map(|(number, _)| number);
        for request in std::mem::take(&mut effects.reads) {
            let entries = storage.read(request.ops(), READ_BYTES_MAX).await?;
            inputs.arrived.push(Input::Read { request, entries });
        }
        let is_idle = !effects.again && inputs.written.is_none() && inputs.arrived.is_empty();
        effects = Effects::default();
        if is_idle {
            (idle, now) = (idle + 1, now.after(Duration::from_millis(10)));
        }
        if idle > IDLE_MAX {
            return Err(BackupError::Stuck(core.explain()));
        }
    }
}

/// What the storage holds, cut off after an op, as that of the only member of a cluster: it commits all that it has.
fn alone(recovered: Recovered, until: OpNumber) -> Recovered {
    let Recovered { mut state, mut slots, .. } = recovered;
    let own = state.replica;
    slots.truncate(usize::try_from(until.0.saturating_sub(state.base().0)).unwrap_or(usize::MAX));
    state.membership.members.retain(|member| member.id == own);
    state.membership.quorums = Quorums::of(1);
    // What the view has fixed stays fixed: a slot of an older view does not pass for it.
    let mut suffix = state.suffix;
    suffix.head = suffix.head.min(until);
    suffix.headers.retain(|header| header.op <= until);
    let state = VsrState {
        view: state.log_view,
        commit: state.commit.min(CommitNumber(until.0)),
        head_certain: true,
        // Whichever disks have taken its place since: it is asked what it has, and not whether it counts.
        succession: Succession::Whole { op: OpNumber(u64::MAX) },
        doubted: None,
        known: Vec::new(),
        suffix,
        ..state
    };
    Recovered { state, slots, head_certain: true }
}
