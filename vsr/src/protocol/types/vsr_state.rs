//! The small durable record beside the log (rule 6.3), and the batches that storage writes.

use serde::{Deserialize, Serialize};

use super::checkpoint::{CheckpointId, StateDigest};
use super::entry::{Entry, Header};
use super::life::{Known, Succession};
use super::membership::Membership;
use super::number::{ClusterId, CommitNumber, DiskId, OpNumber, ReplicaId, View};

/// Headers that are fixed for a view: those of this view's `DoViewChange` while log_view < view, else
/// those of the `StartView` that was installed or sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suffix {
    /// The head of the log that the suffix ends.
    pub head: OpNumber,
    /// The headers after the commit number of the record in ascending order, and the one at it where that is known to be of this log
    /// (rule 7.13). Blanks are left out.
    pub headers: Vec<Header>,
}

/// What a replica must remember to keep its promises. Durable and atomic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsrState {
    /// The cluster that this disk belongs to.
    pub cluster: ClusterId,
    /// The member that this disk belongs to.
    pub replica: ReplicaId,
    /// The id of the disk, drawn at random when it was formatted.
    pub disk_id: DiskId,
    /// How the disk has come to its place.
    pub succession: Succession,
    /// How often the replica was started on this disk.
    pub starts: u64,
    /// Who belongs to the cluster.
    pub membership: Membership,
    /// The view that the replica is in. It takes part in no lower one again.
    pub view: View,
    /// The last view whose log this replica holds as its own.
    pub log_view: View,
    /// What was known to be committed when the record was written. It is never more than what was committed then.
    pub commit: CommitNumber,
    /// The checkpoints that storage has to keep, in ascending order of their ops: the newest, and the one before.
    pub checkpoints: Vec<CheckpointId>,
    /// The digests of the states in them, where the state machine gives any.
    pub digests: Vec<StateDigest>,
    /// The header of the last op that was dropped from the log: storage keeps nothing of this op and of those before it. `None` while the log
    /// begins with op 1.
    pub base: Option<Header>,
    /// False from a start at which storage could not say where the log ended until a `StartView` has
    /// said it (rule 7.5 c). What is put in between proves nothing.
    pub head_certain: bool,
    /// The headers that the view has fixed.
    pub suffix: Suffix,
    /// Ops that this record, or a `StartView`, has named while the head was uncertain. This disk may have held and lost them.
    pub doubted: Option<Doubted>,
    /// What is remembered of the other members, in ascending order of their ids. Of this one only what others have told it, when
    /// that makes this disk an old one.
    pub known: Vec<Known>,
}

/// A range of ops in which one that is not intact here may have been acknowledged from here, and lost: it is never denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubted {
    /// The range begins after this op.
    pub above: OpNumber,
    /// The last op of it.
    pub to: OpNumber,
}

impl VsrState {
    /// The record of a disk that was just formatted.
    #[must_use]
    pub fn formatted(cluster: ClusterId, replica: ReplicaId, disk_id: DiskId, membership: Membership) -> VsrState {
        VsrState {
            cluster,
            replica,
            disk_id,
            succession: Succession::First,
            starts: 0,
            membership,
            view: View::default(),
            log_view: View::default(),
            commit: CommitNumber(0),
            checkpoints: Vec::new(),
            digests: Vec::new(),
            base: None,
            head_certain: true,
            suffix: Suffix::default(),
            doubted: None,
            known: Vec::new(),
        }
    }

    /// The record of a disk that shall take the place of one that is lost, and counts for nothing before the others have put it there
    /// (rule 7.19). The lost disk must never be used again, and no process may run on it.
    ///
    /// # Errors
    /// [`TooFewToRejoin`] for a cluster that cannot commit anything without this replica.
    pub fn replacing(
        cluster: ClusterId,
        replica: ReplicaId,
        disk_id: DiskId,
        membership: Membership,
    ) -> Result<VsrState, TooFewToRejoin> {
        if !membership.can_replace() {
            return Err(TooFewToRejoin { members: membership.size() });
        }
        let formatted = VsrState::formatted(cluster, replica, disk_id, membership);
        Ok(VsrState { succession: Succession::Asking, ..formatted })
    }
}

/// A disk cannot be replaced where the others are no replication quorum without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a disk of a cluster of {members} cannot be replaced: the others cannot commit anything without it. Start the replica on its own disk, or \
     restore that from a backup"
)]
pub struct TooFewToRejoin {
    /// The members of the cluster.
    pub members: usize,
}

impl VsrState {
    /// The last op that was dropped from the log; 0 while it begins with op 1.
    #[must_use]
    pub fn base(&self) -> OpNumber {
        self.base.map_or(OpNumber::ZERO, |base| base.op)
    }
}

impl Recovered {
    /// The slot of an op. `None` for one that was dropped, and for one above the last.
    #[must_use]
    pub fn slot(&self, op: OpNumber) -> Option<&Slot> {
        self.slots.get(usize::try_from(op.0.checked_sub(self.state.base().0)?.checked_sub(1)?).ok()?)
    }

    /// The last op that has a slot; the base, if there is none.
    #[must_use]
    pub fn head(&self) -> OpNumber {
        OpNumber(self.state.base().0.saturating_add(self.slots.len() as u64))
    }
}

/// What storage writes at once: the contract is at [`Storage::write`](crate::Storage::write).
///
/// Not `non_exhaustive`: a storage takes a batch apart, and one that left out a part which a later version adds would lose it
/// without an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The new vsr state. A batch with a state has no entries. Where its base is higher than that of the state before, storage drops what is not
    /// above it; a log that ended below ends at the base then.
    pub state: Option<VsrState>,
    /// Drop every op above this one, before anything is put.
    pub truncate_above: Option<OpNumber>,
    /// Entries, each op at most once.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.is_none() && self.truncate_above.is_none() && self.entries.is_empty()
    }
}

/// What storage knows of one op after a start. Not `non_exhaustive`: a caller has to handle each of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Slot {
    /// Here and intact.
    Clean(Header),
    /// Something was here, and is damaged. The header survived, or did not.
    Corrupt(Option<Header>),
    /// Certainly nothing: storage would know of a lost write.
    Absent,
}

/// What storage found when it was opened.
///
/// Not `non_exhaustive`: a storage that did not answer what a later version asks of it would be believed all the same.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The last durable state.
    pub state: VsrState,
    /// What storage knows of each op, from the one after the base of the state on (from op 1 on, where nothing was dropped): the element at
    /// index i is of op base + 1 + i, and the last one is the head.
    pub slots: Vec<Slot>,
    /// False when ops above the last slot may have been lost by rot or lost writes.
    pub head_certain: bool,
}
