//! Why a replica stops. Each names what happened and who must act; the host process lives on.

use super::log::Diverged;
use super::number::{CommitNumber, OpNumber, Position, SessionId, View};

/// A reason to stop for good. Going on could spread damage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The log of a view ends before what is known to be committed here.
    #[error("the log of the view ends at op {head}, but op {commit} is committed: agreement is broken")]
    CommittedDropped {
        /// What is committed.
        commit: CommitNumber,
        /// Where the log of the view ends.
        head: OpNumber,
    },
    /// An op of a kind that this version does not know.
    #[error("op {op} is of a kind that this version cannot apply: run a newer version")]
    UnknownKind {
        /// The op.
        op: OpNumber,
    },
    /// Agreement is broken. A defect of this library, or of the disks of more replicas than the quorums
    /// allow for.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// Two replicas that say they hold the log of one view hold different ones.
    #[error("two DoViewChanges with log_view {log_view} contradict each other at op {op}")]
    ContradictoryLogs {
        /// The log_view.
        log_view: View,
        /// The op.
        op: OpNumber,
    },
    /// A committed op cannot be read by this version.
    #[error("the body of committed op {op} cannot be read at byte {at}: run a version that knows it")]
    UnreadableBody {
        /// The op.
        op: OpNumber,
        /// Where in the body.
        at: usize,
    },
    /// The state machine cannot decode a committed command.
    #[error("the command at {position} is committed, but this version cannot decode it: run one that can")]
    Undecodable {
        /// Where in the log.
        position: Position,
    },
    /// The state machine panicked.
    #[error("the state machine panicked at {position} (session {session}): {message}")]
    Panicked {
        /// Where in the log.
        position: Position,
        /// Whose command.
        session: SessionId,
        /// The panic's words.
        message: String,
    },
    /// An op needs a newer version of the state machine.
    #[error("op {op} must be applied by version {wanted} of the state machine, this is version {own}")]
    MachineVersion {
        /// The op.
        op: OpNumber,
        /// The version that the op names.
        wanted: u32,
        /// The version of this build.
        own: u32,
    },
    /// A cluster of one whose disk is damaged: there is nobody to repair it from.
    #[error("op {op} is damaged on the only disk of the cluster: restore the disk from a backup")]
    SoloDamaged {
        /// The first damaged op.
        op: OpNumber,
    },
}
