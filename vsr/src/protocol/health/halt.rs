//! Halts: why a replica has stopped. Each names what happened and who must act; the host process goes on.

use super::invariants::BrokenInvariant;
use crate::protocol::log::log::Diverged;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::number::{CommitNumber, DiskId, OpNumber, Position, ReplicaId, SessionId, View};
use crate::protocol::view_change::phase::IllegalTransition;

/// Why a replica has stopped for good. Going on could spread damage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Halt {
    /// The log of a view ends before what is known to be committed here.
    #[error("the log of the view ends at op {head}, but op {commit} is committed: agreement is broken")]
    CommittedDropped {
        /// The last op that is known here to be committed.
        commit: CommitNumber,
        /// The last op of the log of the view.
        head: OpNumber,
    },
    /// An op of a kind that this version does not know.
    #[error("op {op} is of a kind that this version cannot apply: run a newer version")]
    UnknownKind {
        /// The number of the op.
        op: OpNumber,
    },
    /// Agreement is broken. A defect of this library, or of the disks of more replicas than the quorums
    /// allow for.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// Two replicas that say they hold the log of one view hold different ones.
    #[error("two DoViewChanges with log_view {log_view} contradict each other at op {op}")]
    ContradictoryLogs {
        /// The view whose log both say they hold.
        log_view: View,
        /// The op at which the two logs differ.
        op: OpNumber,
    },
    /// A view change made a step that the table of phases does not have. A defect of this library.
    #[error(transparent)]
    IllegalTransition(#[from] IllegalTransition),
    /// A committed op cannot be read by this version.
    #[error("the body of committed op {op} cannot be read at byte {at}: run a version that knows it")]
    UnreadableBody {
        /// The number of the op.
        op: OpNumber,
        /// The offset in the body, in bytes.
        at: usize,
    },
    /// The state machine cannot decode a committed command.
    #[error("the command at {position} is committed, but this version cannot decode it: run one that can")]
    Undecodable {
        /// The position of the command in the log.
        position: Position,
    },
    /// The state machine panicked.
    #[error("the state machine panicked at {position} (session {session}): {message}")]
    Panicked {
        /// The position of the command in the log.
        position: Position,
        /// The session of the command.
        session: SessionId,
        /// The message of the panic.
        message: String,
    },
    /// An op needs a newer version of the state machine.
    #[error("op {op} must be applied by version {wanted} of the state machine, this is version {own}")]
    MachineVersion {
        /// The number of the op.
        op: OpNumber,
        /// The version that the op names.
        wanted: u32,
        /// The version of this build.
        own: u32,
    },
    /// The disk is not the one that the others know under this replica's id.
    #[error(
        "replica {by} knows this replica by disk {known:x}, and this is disk {own:x}: what the known disk acknowledged is not \
         here. Start the replica on its own disk; if that is lost, give the replica a new disk (recover)", known = known.0, own = own.0
    )]
    OtherDisk {
        /// The peer that reports it.
        by: ReplicaId,
        /// The disk by which that peer knows this replica.
        known: DiskId,
        /// The disk that this replica was started on.
        own: DiskId,
    },
    /// Another disk has taken the place of this one, by an op.
    #[error(
        "op {op} has put disk {disk:x} in the place of this replica's disk, and this is disk {own:x}: start the replica on the other \
         disk, and never on this one again; if that is lost, too, give the replica a new one (recover)", disk = disk.0, own = own.0
    )]
    Replaced {
        /// The op.
        op: OpNumber,
        /// The disk that is the replica's by it.
        disk: DiskId,
        /// The disk that this replica was started on.
        own: DiskId,
    },
    /// The disk is an older copy, or another process runs on a copy of it.
    #[error(
        "replica {by} has heard {heard} of this replica, and this is start {own}: the disk is an older copy (restored \
         from a backup or a snapshot), or another process runs on a copy of it. Stop the other process, or start the \
         replica on its newest disk; if that is lost, give the replica a new disk (recover)", heard = heard(*known, *own)
    )]
    OlderStart {
        /// The peer that reports it.
        by: ReplicaId,
        /// The number of the newest start that this peer has heard of.
        known: u64,
        /// The number of this start.
        own: u64,
    },
    /// The log ends before what this replica acknowledged.
    #[error(
        "replica {by} remembers that this replica acknowledged op {acknowledged}, and its log ends at op {head}: the disk is \
         an older copy. Start the replica on its newest disk; if that is lost, give the replica a new disk (recover)"
    )]
    OlderDisk {
        /// The peer that reports it.
        by: ReplicaId,
        /// The last committed op that this replica acknowledged.
        acknowledged: OpNumber,
        /// The last op of the log.
        head: OpNumber,
    },
    /// The others have told an earlier start of this disk that it is not the newest one.
    #[error(
        "the other replicas have told an earlier start of this disk that it is an older copy, or that another process has run on a \
         copy of it: they have heard start {heard} of this replica from there, and remember that it acknowledged op \
         {acknowledged}. Start the replica on its newest disk; if that is lost, give the replica a new disk (recover)"
    )]
    OldDisk {
        /// The number of the newest start that they had heard of.
        heard: u64,
        /// The last committed op that this replica acknowledged, as they remember it.
        acknowledged: OpNumber,
    },
    /// An invariant of the protocol does not hold here.
    #[error(
        "{0}: this replica's numbers contradict each other, which is a defect of this library, or of what runs it. Keep its \
         disk and its log, and report both; started again, the replica goes on from its disk"
    )]
    Broken(#[from] BrokenInvariant),
    /// The disk names a replica that is none of the members that it lists.
    #[error(
        "the disk is that of replica {replica}, which is none of the members that it lists: start the replica on its own disk"
    )]
    NotAMember {
        /// The replica that the disk names.
        replica: ReplicaId,
    },
    /// The state machine has another digest than those of the others: its memory was damaged, or it is not deterministic.
    #[error(
        "after op {op} the state machine has the digest {own}, and those of the others have {other}: this state is wrong, or nobody's is known to be right. \
         Start the replica again: it applies its whole log anew, or fetches a checkpoint of another member. If it stops in this way again, the state machine is not \
         deterministic: run a version that is"
    )]
    StateDiffers {
        /// The last op of the checkpoint at which they were compared.
        op: OpNumber,
        /// The digest here.
        own: Checksum,
        /// The digest of others.
        other: Checksum,
    },
    /// The state machine was restored from a checkpoint that the log does not continue: a defect of what drives the core.
    #[error("the checkpoint after op {op} is none of this log, or of more than is committed in it")]
    ForeignCheckpoint {
        /// The last op of the checkpoint.
        op: OpNumber,
    },
    /// A cluster of one whose checkpoints are damaged, and whose log does not reach back to its beginning: there is no peer to fetch one from.
    #[error(
        "no checkpoint can be read on the only disk of the cluster, and the log begins after op {op}: restore the disk from a \
         backup"
    )]
    SoloCheckpointLost {
        /// The last op that was dropped from the log.
        op: OpNumber,
    },
    /// A cluster of one whose disk is damaged: there is no peer to repair it from.
    #[error("op {op} is damaged on the only disk of the cluster: restore the disk from a backup")]
    SoloDamaged {
        /// The first damaged op.
        op: OpNumber,
    },
}

/// Two starts may have one number: one of each of two copies of a disk.
fn heard(known: u64, own: u64) -> String {
    if known == own { format!("another start {known}") } else { format!("start {known}") }
}
