//! A state as a file: kept as a backup, carried to other machines, or all that is left of a cluster that has lost its majority. A new cluster
//! begins with it.
//!
//! [`export`] writes the state that a replica's storage holds: machine and session table after one op. The replica is not running then. [`restore`]
//! puts such a file into a storage that was formatted for it, and a cluster all of whose replicas begin with the same file goes on from there, under
//! a name of its own: replicas and clients of the cluster that the file comes from are refused by it, so that the two never mix.
//!
//! How far the file reaches is the caller's choice. What a record calls [`Committed`](Reach::Committed) is, and stays, a part of the old cluster's
//! history. What lies above it in the log may be, or may never become one: only where no majority is left to say which, a state that
//! reaches to the [`Head`](Reach::Head) is the best that can be had. [`examine`] says what each storage that is left holds, and [`ranked`] which of them
//! know most.
//!
//! Both block while they read and write the file: they are for tools, not for a replica's runtime.

mod error;
mod file;
mod replay;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;

pub use self::error::{Backup, BackupError};
use self::file::Opened;
use self::replay::Replayed;
use crate::driver::replica::newest_checkpoint;
use crate::protocol::{
    Batch, CheckpointId, ClusterId, CommitNumber, Header, OpNumber, Recovered, ReplicaId, Slot, Succession, Suffix,
    View, VsrState,
};
use crate::traits::state_machine::{Snapshot, StateMachine, Typed};
use crate::traits::storage::Storage;

/// How far a state reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To the last op that the storage knows to be committed. Its replica may have known of a few more.
    Committed,
    /// To the end of the intact log, whether that is committed or not.
    Head,
}

/// Writes the state that a storage holds to a file. `first`: the state machine before the first op, of this version
/// ([`Config::machine_version`](crate::Config::machine_version)). The file is whole and durable under its name, or there is none.
///
/// # Errors
/// A [`BackupError`]; the storage is as it was.
pub async fn export<S: StateMachine>(
    storage: &impl Storage,
    (first, machine_version): (S, u32),
    reach: Reach,
    to: &Path,
) -> Result<Backup, BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let recovered = storage.recover().await?;
    let held = Held::of(&recovered);
    let (cluster, commit) = (recovered.state.cluster, held.committed(&recovered.state));
    let base = recovered.state.base();
    let (machine, head) = match newest_checkpoint::<S, _>(storage, &recovered).await {
        Some((machine, head)) => (machine, Some(head)),
        None if base > OpNumber::ZERO => return Err(BackupError::NoState { base }),
        None => (first, None),
    };
    let from = head.as_ref().map_or(base, |head| head.header().op);
    let until = match reach {
        Reach::Committed => commit.op(),
        Reach::Head => held.intact_above(from),
    };
    let gap = held.first_gap(from, until).or_else(|| held.stale_end(until, &recovered.state));
    if let Some(op) = gap {
        return Err(BackupError::Incomplete { op, commit });
    }
    if until.max(from) == OpNumber::ZERO {
        return Err(BackupError::Empty);
    }
    let Replayed { machine, header, head } =
        replay::replay(storage, recovered, (Typed(machine), machine_version), head, until).await?;
    let snapshot = machine.checkpoint(head).map_err(BackupError::Stuck)?;
    let bytes = file::write(to, (cluster, commit), header.op, snapshot)?;
    Ok(Backup { cluster, op: header.op, view: header.view, commit, bytes })
}

/// Reads a file to its end, and says what it is.
///
/// # Errors
/// When it cannot be read, or is not whole.
pub fn verify(from: &Path) -> Result<Backup, BackupError> {
    Opened::open(from)?.verify()
}

/// Puts a state into a storage that was formatted to take one ([`FormatFor::Backup`](crate::config::FormatFor::Backup)). After that a replica
/// can be started on it. A crash before the end leaves a storage that counts for nothing: format another one.
///
/// # Errors
/// A [`BackupError`]; only after [`BackupError::Storage`] something of it may be in the storage.
pub async fn restore(storage: &impl Storage, from: &Path) -> Result<Backup, BackupError> {
    let Recovered { state, slots, .. } = storage.recover().await?;
    if !slots.is_empty() || state.starts > 0 || state.base.is_some() || state.succession != Succession::Asking {
        return Err(BackupError::NotForIt);
    }
    // All of it is looked at before anything of it is written.
    let backup = verify(from)?;
    if backup.cluster == state.cluster {
        return Err(BackupError::SameCluster(backup.cluster));
    }
    let header = Opened::open(from)?.head(&state.membership.constants)?;
    let mut content = Opened::open(from)?.content();
    let copy = Snapshot::with(move |to| io::copy(&mut content, to).map(|_| ()));
    let id = storage.write_checkpoint(backup.op, Vec::new(), copy).await?;
    let state = VsrState {
        view: header.view,
        log_view: header.view,
        commit: CommitNumber(header.op.0),
        checkpoints: vec![id],
        base: Some(header),
        suffix: Suffix { head: header.op, headers: vec![header] },
        succession: Succession::First,
        ..state
    };
    storage.write(Batch { state: Some(state), ..Batch::default() }).await?;
    Ok(backup)
}

/// What a storage holds, as far as a choice between several needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survivor {
    /// The cluster.
    pub cluster: ClusterId,
    /// Whose storage it is.
    pub replica: ReplicaId,
    /// How many members the cluster has.
    pub members: usize,
    /// Members that have to have an op before it is committed.
    pub replication_quorum: u8,
    /// The view that was promised.
    pub view: View,
    /// The view whose log this is.
    pub log_view: View,
    /// What is known to be committed.
    pub commit: CommitNumber,
    /// The last op up to which the log is intact, above the newest checkpoint.
    pub intact: OpNumber,
    /// The last op of the log.
    pub head: OpNumber,
    /// The newest checkpoint.
    pub checkpoint: Option<CheckpointId>,
    /// Why its word did not count in the old cluster, if it did not.
    pub distrusted: Option<&'static str>,
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survivor { replica, view, log_view, commit, intact, head, .. } = self;
        write!(
            f,
            "replica {}: view {view}, log of view {log_view}, op {commit} is known to be committed, ",
            replica.0
        )?;
        match self.checkpoint {
            Some(id) => write!(f, "checkpoint after op {}, ", id.op)?,
            None => f.write_str("no checkpoint, ")?,
        }
        write!(f, "log up to op {head}")?;
        if intact < head {
            write!(f, ", damaged above op {intact}")?;
        }
        self.distrusted.map_or(Ok(()), |why| write!(f, "; {why}"))
    }
}

/// Says what a storage holds. Its replica is not running.
///
/// # Errors
/// Those of the storage.
pub async fn examine(storage: &impl Storage) -> Result<Survivor, BackupError> {
    let recovered = storage.recover().await?;
    let held = Held::of(&recovered);
    let Recovered { state, head_certain, .. } = &recovered;
    let checkpoint = state.checkpoints.last().copied();
    let from = checkpoint.map_or(state.base(), |id| id.op.max(state.base()));
    let is_told = state.known.iter().any(|known| known.replica == state.replica);
    let distrusted = match state.succession {
        _ if is_told => Some("the others have called it an old disk"),
        Succession::Asking | Succession::Appointed { .. } => {
            Some("it took the place of a lost disk, and was not whole yet")
        }
        _ if !(*head_certain && state.head_certain) => Some("the end of its log is lost"),
        _ => None,
    };
    Ok(Survivor {
        cluster: state.cluster,
        replica: state.replica,
        members: state.membership.size(),
        replication_quorum: state.membership.quorums.replication,
        view: state.view,
        log_view: state.log_view,
        commit: held.committed(state),
        intact: held.intact_above(from),
        head: held.head(),
        checkpoint,
        distrusted,
    })
}

/// Their places, the one that knows most first. What one record calls committed is, whoever has it: first come those that have all of that. Then those
/// whose word counted, those with the log of the highest view, and of these the longest (rule 7.4).
#[must_use]
pub fn ranked(survivors: &[Survivor]) -> Vec<usize> {
    let committed = survivors.iter().map(|survivor| survivor.commit.op()).max().unwrap_or_default();
    let knows = |at: &usize| {
        let Survivor { log_view, intact, commit, distrusted, .. } = &survivors[*at];
        (*intact >= committed, distrusted.is_none(), *log_view, *intact, *commit)
    };
    let mut places: Vec<usize> = (0..survivors.len()).collect();
    places.sort_by_key(|at| std::cmp::Reverse(knows(at)));
    places
}

/// What a storage has of the log.
struct Held<'a> {
    base: OpNumber,
    slots: &'a [Slot],
}

impl Held<'_> {
    fn of(recovered: &Recovered) -> Held<'_> {
        Held { base: recovered.state.base(), slots: &recovered.slots }
    }

    fn head(&self) -> OpNumber {
        OpNumber(self.base.0 + self.slots.len() as u64)
    }

    /// The last op of a range that the view has fixed otherwise: its slot is left from an older view.
    fn stale_end(&self, until: OpNumber, state: &VsrState) -> Option<OpNumber> {
        let Some(Slot::Clean(own)) = self.slot(until) else { return None };
        let names = |fixed: &Header| match fixed.op {
            op if op == until => Some(fixed.checksum()),
            op if op == until.next() => Some(fixed.parent),
            _ => None,
        };
        let is_stale = state.suffix.headers.iter().filter_map(names).any(|name| name != own.checksum());
        is_stale.then_some(until)
    }

    /// What is known to be committed: by the record, and by what each header says of the time when its op was prepared. All of a log that needs no
    /// other copy is.
    fn committed(&self, state: &VsrState) -> CommitNumber {
        let said = self
            .slots
            .iter()
            .filter_map(|slot| if let Slot::Clean(header) = slot { Some(header.commit) } else { None });
        let said = said.max().filter(|_| state.log_view == state.view).unwrap_or_default();
        let all = if state.membership.quorums.replication == 1 {
            self.intact_above(state.checkpoint().max(state.base()))
        } else {
            OpNumber::ZERO
        };
        state.commit.max(said).max(CommitNumber(all.0))
    }

    fn slot(&self, op: OpNumber) -> Option<&Slot> {
        let at = op.0.checked_sub(self.base.0 + 1).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.slots.get(at))
    }

    fn is_intact(&self, op: OpNumber) -> bool {
        matches!(self.slot(op), Some(Slot::Clean(_)))
    }

    /// The first op above one, up to another, that is not intact.
    fn first_gap(&self, from: OpNumber, to: OpNumber) -> Option<OpNumber> {
        (from.0 + 1..=to.0).map(OpNumber).find(|op| !self.is_intact(*op))
    }

    /// The last op up to which all above one are intact.
    fn intact_above(&self, from: OpNumber) -> OpNumber {
        self.first_gap(from, self.head()).map_or_else(|| self.head().max(from), OpNumber::prev)
    }
}
