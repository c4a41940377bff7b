//! Events: what an observer of a replica is shown.

use super::checksum::Checksum;
use super::life::Distrust;
use super::number::{CommitNumber, OpNumber, ReplicaId, View};

/// A reason to vote to leave a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViewChangeReason {
    /// A backup heard no heartbeat.
    Silence,
    /// The connection to the primary is down.
    Disconnected,
    /// A request that was forwarded is neither prepared nor answered. Heartbeats do not withdraw this vote.
    Forward,
    /// A view change has timed out.
    NoProgress,
    /// This primary has no answers from a quorum.
    Unanswered,
    /// This primary's own disk does not answer.
    Disk,
    /// This primary's disk or log has no room, and those of a quorum of others have.
    NoRoom,
    /// The disk of the primary takes the place of a lost one, and does not count yet.
    Rejoins,
}

impl std::fmt::Display for ViewChangeReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ViewChangeReason::Silence => "the primary is silent",
            ViewChangeReason::Disconnected => "the connection to the primary is down",
            ViewChangeReason::Forward => "a forwarded request is neither prepared nor answered",
            ViewChangeReason::NoProgress => "the view change makes no progress",
            ViewChangeReason::Unanswered => "no quorum answers",
            ViewChangeReason::Disk => "its disk does not answer",
            ViewChangeReason::NoRoom => "its disk has no room, and those of others have",
            ViewChangeReason::Rejoins => "the primary's disk takes the place of a lost one, and cannot lead yet",
        })
    }
}

/// An event of the protocol, for observers. Emitted as it happens, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An op has put this replica's disk in the place of a lost one. It counts from a view on (rule 7.19).
    Appointed {
        /// The op.
        op: OpNumber,
        /// The view.
        view: View,
    },
    /// An entry on the disk is damaged. It is fetched from a peer, where there is one.
    Damaged {
        /// Its op.
        op: OpNumber,
    },
    /// A checkpoint on the disk is damaged. It is offered to nobody, and a new one takes its place.
    CheckpointDamaged {
        /// Its op.
        op: OpNumber,
    },
    /// This replica's disk, which takes the place of a lost one, is whole and counts.
    Rejoined {
        /// The op that has put it there.
        op: OpNumber,
    },
    /// A view was entered; it has not started.
    ViewEntered {
        /// The view that was entered.
        view: View,
    },
    /// Normal operation in a view.
    ViewStarted {
        /// The view that this replica is in.
        view: View,
        /// The primary of the view.
        primary: ReplicaId,
    },
    /// The primary of a view leaves it to the next one: it lacks what it would have to apply, and another member does not (rule 9.5).
    HandedOn {
        /// The view that is left.
        view: View,
    },
    /// A vote to leave the view was cast.
    Voted {
        /// The view that this replica wants to leave.
        view: View,
        /// The reason of the vote.
        why: ViewChangeReason,
    },
    /// The commit number rose.
    Committed {
        /// The new commit number.
        commit: CommitNumber,
    },
    /// An op was applied.
    Applied {
        /// The op that was applied.
        op: OpNumber,
        /// The checksum of its header, which names the whole log up to it.
        checksum: Checksum,
    },
    /// The replica has begun with a checkpoint, or has installed one of another member: its state machine and its sessions are those after this op.
    Restored {
        /// The last op that the checkpoint contains.
        op: OpNumber,
        /// The checksum of its header.
        checksum: Checksum,
    },
    /// A checkpoint is durable, and the record names it: a later start goes on from there.
    Checkpointed {
        /// The last op that it contains.
        op: OpNumber,
    },
    /// Ops were dropped from the log: checkpoints of a replication quorum contain them.
    LogDropped {
        /// The last op that was dropped.
        base: OpNumber,
    },
    /// This replica fetches a checkpoint of other members: what it lacks is in no log any more. [`Restored`](Event::Restored) is the end of it.
    TransferBegan {
        /// The last op that the checkpoint contains.
        op: OpNumber,
    },
    /// At a checkpoint the state machine of another member has another digest, and it cannot be said yet whose is wrong.
    StatesDiffer {
        /// The other member.
        with: ReplicaId,
        /// The last op of the checkpoint.
        op: OpNumber,
        /// The digest of this replica's state.
        own: Checksum,
        /// The digest of the other's.
        other: Checksum,
    },
    /// Every replica has answered, and none of them holds an intact copy of an op that may be committed. The cluster waits: only an
    /// operator can give the op up (rule 7.16).
    Lost {
        /// The op of which no copy is left.
        op: OpNumber,
    },
    /// Messages of a member do not count any more.
    Distrusted {
        /// The member whose messages do not count.
        replica: ReplicaId,
        /// The reason.
        why: Distrust,
    },
    /// Ops above this one were dropped.
    Truncated {
        /// The last op that stays.
        above: OpNumber,
        /// The head before the truncation.
        head: OpNumber,
    },
}

/// What tests and simulators count beside the [`Event`]s: which way the code has gone. Names and reasons change with the code, so no
/// application is shown them; observers of a replica are ([`Observer::on_mark`](crate::replica::Observer::on_mark)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mark {
    /// A message had no effect.
    Ignored {
        /// The kind of the message: [`Message::name`](super::message::Message::name).
        message: &'static str,
        /// The reason, in words.
        why: &'static str,
    },
    /// An interesting path was taken: its name.
    Path(&'static str),
}
