//! Checkpoints: what is in one beside the state machine, where the next one stands, and which log one belongs to (rules 9.1, 9.10, 9.11).

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf, BufMut};

use super::digests::{Digests, Standing};
use super::sessions::SessionTable;
use crate::protocol::recovery::replacements::Replacements;
use crate::protocol::types::checkpoint::{CheckpointId, Span};
use crate::protocol::types::entry::Header;
use crate::protocol::types::membership::Constants;
use crate::protocol::types::number::{BatchNumber, Monotonic, OpNumber};
use crate::protocol::types::vsr_state::{Recovered, Slot, VsrState};

/// Checkpoints that the record names at most: the newest, and the one before, should the newest be damaged.
const NAMED: usize = 2;
const MAGIC: &[u8; 8] = b"vsr head";
const VERSION: u32 = 2;
/// More bytes than all members' disks can take.
const REPLACEMENTS_BYTES_MAX: u64 = 1 << 16;
/// More bytes than a table of sessions can have: the bound of what is read for one.
const SESSIONS_BYTES_MAX: u64 = 1 << 40;

/// What a checkpoint has beside the state machine: where in the log it stands, and the session table of that moment.
#[derive(Clone, Debug)]
pub struct CheckpointHead {
    header: Header,
    sessions: SessionTable,
    replacements: Replacements,
}

impl CheckpointHead {
    /// The header of its last op, whose checksum names the log up to there.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn into_parts(self) -> (Header, SessionTable, Replacements) {
        (self.header, self.sessions, self.replacements)
    }

    /// Reads the head from the beginning of a checkpoint of a cluster with these constants; what follows is the state machine's.
    ///
    /// # Errors
    /// Those of the reader, and `InvalidData` for bytes that are no such head.
    pub fn read(from: &mut dyn Read, constants: &Constants) -> io::Result<CheckpointHead> {
        let (header, of_sessions, of_replacements) = CheckpointHead::read_fixed(from)?;
        let mut bytes = Vec::new();
        from.take(of_sessions).read_to_end(&mut bytes)?;
        let sessions = SessionTable::decode(&bytes, constants).ok_or_else(|| wrong("no table of sessions"))?;
        bytes.clear();
        from.take(of_replacements).read_to_end(&mut bytes)?;
        let replacements = Replacements::decode(&bytes).ok_or_else(|| wrong("no table of disks"))?;
        Ok(CheckpointHead { header, sessions, replacements })
    }

    /// Reads no more than the header of its last op.
    pub(crate) fn header_of(from: &mut dyn Read) -> io::Result<Header> {
        CheckpointHead::read_fixed(from).map(|(header, ..)| header)
    }

    /// The header, and the lengths of the tables that follow.
    fn read_fixed(from: &mut dyn Read) -> io::Result<(Header, u64, u64)> {
        let mut fixed = [0; 8 + 4 + Header::LEN + 2 * 8];
        from.read_exact(&mut fixed)?;
        let (magic, mut rest) = fixed.split_at(8);
        let version = rest.try_get_u32_le().unwrap_or_default();
        if magic != MAGIC || version != VERSION {
            return Err(wrong(&format!("a checkpoint of version {version}, this program reads {VERSION}")));
        }
        let layout: &[u8; Header::LEN] = rest.first_chunk().ok_or_else(|| wrong("a header that is cut off"))?;
        let header = Header::decode(layout).ok_or_else(|| wrong("a header with a field of no meaning"))?;
        let mut lengths = &rest[Header::LEN..];
        let mut length = |max: u64| lengths.try_get_u64_le().ok().filter(|len| *len <= max);
        let (of_sessions, of_replacements) = (length(SESSIONS_BYTES_MAX), length(REPLACEMENTS_BYTES_MAX));
        let (of_sessions, of_replacements) =
            of_sessions.zip(of_replacements).ok_or_else(|| wrong("an absurd length of a table"))?;
        Ok((header, of_sessions, of_replacements))
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

pub(super) fn encode(header: &Header, sessions: &SessionTable, replacements: &Replacements) -> Vec<u8> {
    let (sessions, replacements) = (sessions.encode(), replacements.encode());
    let mut out = Vec::with_capacity(sessions.len() + replacements.len() + 128);
    out.extend(MAGIC);
    out.put_u32_le(VERSION);
    out.extend(header.encode());
    out.put_u64_le(sessions.len() as u64);
    out.put_u64_le(replacements.len() as u64);
    out.extend(sessions);
    out.extend(replacements);
    out
}

/// A checkpoint to be taken of the state machine as it is after the turn that says so.
#[derive(Clone, PartialEq, Eq)]
pub struct TakeCheckpoint {
    /// The last op that the state machine has applied.
    pub op: OpNumber,
    /// What comes before the state machine's own bytes: [`CheckpointHead::read`] reads it.
    pub head: Vec<u8>,
    /// The checkpoints that the durable record names. Storage removes every other one.
    pub keep: Vec<CheckpointId>,
}

impl fmt::Debug for TakeCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TakeCheckpoint { op, head, keep } = self;
        write!(f, "a checkpoint after op {op}, with {} bytes beside the state machine, keeping {keep:?}", head.len())
    }
}

/// Where the next checkpoint stands. There is one at a time from the moment that it is due until the record that names it is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpoints {
    /// What was applied since the last one was due, taken or skipped.
    pub(super) since: Span,
    pub(super) stage: Stage,
    /// One is wanted, whether it is due or not.
    pub(crate) is_wanted: bool,
    /// How many were due while another one was not done.
    pub(super) skipped: u64,
    /// When the last one could not be written; `None` once one was.
    pub(super) failed_at: Option<Monotonic>,
    /// After this op the state machine's digest is wanted, at the end of this turn.
    pub(super) digest_due: Option<OpNumber>,
    /// Of the states at the last ones.
    pub(super) digests: Digests,
    /// Those that the durable record names, in ascending order of their ops.
    pub(super) durable: Vec<CheckpointId>,
    /// Those of them that could not be read.
    doubted: Vec<CheckpointId>,
    /// When they were named, or this life began.
    named_at: Vec<(CheckpointId, Monotonic)>,
    /// What can be dropped from the log may be more than before.
    pub(crate) drop_due: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Stage {
    #[default]
    Idle,
    /// To be handed out at the end of this turn.
    Due(TakeCheckpoint),
    /// Storage writes it.
    Writing(OpNumber),
    /// It is durable. The record does not name it yet.
    Written(CheckpointId),
    /// It is named by the record of this batch.
    Naming(CheckpointId, BatchNumber),
}

impl Checkpoints {
    /// Those that the record of a start names, which goes on after the op of one of them: the newer ones could not be used.
    pub(crate) fn of(state: &VsrState, restored: Option<OpNumber>, now: Monotonic) -> Checkpoints {
        let is_unusable = |id: &CheckpointId| restored.is_none_or(|restored| id.op > restored);
        let doubted = state.checkpoints.iter().copied().filter(is_unusable).collect();
        // What the others say of them was forgotten.
        let named_at = state.checkpoints.iter().map(|id| (*id, now)).collect();
        let digests = Digests::remembered(&state.digests, restored);
        Checkpoints { durable: state.checkpoints.clone(), doubted, named_at, digests, ..Checkpoints::default() }
    }

    /// Those that this replica can give to others: durable, not known to be damaged, and of a state that the digests of the others do not
    /// dispute. One that they say nothing of is held back for this wait after it was named: a wrong state that spreads could outvote the right one
    /// (rule 9.8).
    pub(crate) fn offered(&self, members: usize, now: Monotonic, wait: Duration) -> Vec<CheckpointId> {
        let has_waited =
            |id: &CheckpointId| self.named_at.iter().any(|(named, at)| named == id && now.since(*at) >= wait);
        let is_disputed = self.digests.is_disputed(members);
        let may = |id: &&CheckpointId| {
            !self.is_doubted(id)
                && match self.digests.standing(id.op, members) {
                    Standing::Confirmed | Standing::NoDigests => true,
                    Standing::Unknown => has_waited(id) && !is_disputed,
                    Standing::Differs => false,
                }
        };
        self.durable.iter().filter(may).copied().collect()
    }

    /// One could not be read. Whether it was offered until now.
    pub(crate) fn doubt(&mut self, id: CheckpointId) -> bool {
        let is_news = self.durable.contains(&id) && !self.doubted.contains(&id);
        if is_news {
            self.doubted.push(id);
        }
        is_news
    }

    /// A checkpoint of another member was installed: it is the newest once this batch is durable, and the next one is as far away as after one
    /// that was taken here.
    pub(crate) fn installed(&mut self, newest: CheckpointId, batch: BatchNumber) {
        (self.since, self.digest_due) = (Span::default(), None);
        self.stage = Stage::Naming(newest, batch);
    }

    /// Whether none of those that the durable record names can be read, and the newest was named so long ago.
    pub(super) fn are_all_damaged(&self, now: Monotonic, wait: Duration) -> bool {
        self.is_newest_damaged(now, wait) && self.durable.iter().all(|id| self.is_doubted(id))
    }

    /// Whether the newest that the durable record names cannot be read, and was named so long ago.
    pub(super) fn is_newest_damaged(&self, now: Monotonic, wait: Duration) -> bool {
        let is_old = |id: &CheckpointId| self.named_at.iter().all(|(named, at)| named != id || now.since(*at) >= wait);
        self.durable.last().is_some_and(|newest| self.is_doubted(newest) && is_old(newest))
    }

    /// Whether one could not be read.
    pub(crate) fn is_doubted(&self, id: &CheckpointId) -> bool {
        self.doubted.contains(id)
    }

    /// These are what the durable record names from now on.
    pub(super) fn are_named(&mut self, named: &[CheckpointId], now: Monotonic) {
        self.drop_due = true;
        self.named_at.retain(|(id, _)| named.contains(id));
        let is_news = |id: &&CheckpointId| self.named_at.iter().all(|(named, _)| named != *id);
        let news: Vec<_> = named.iter().filter(is_news).map(|id| (*id, now)).collect();
        self.named_at.extend(news);
        self.durable = named.to_vec();
        self.doubted.retain(|id| named.contains(id));
    }

    /// Whether the state as it is now is wanted, before anything more is applied.
    pub(crate) fn is_due(&self) -> bool {
        self.digest_due.is_some() || matches!(self.stage, Stage::Due(_))
    }

    /// What is wanted of the state: its digest after this op, and perhaps a checkpoint.
    pub(crate) fn take_due(&mut self) -> (Option<OpNumber>, Option<TakeCheckpoint>) {
        let checkpoint = match std::mem::take(&mut self.stage) {
            Stage::Due(due) => {
                self.stage = Stage::Writing(due.op);
                Some(due)
            }
            other => {
                self.stage = other;
                None
            }
        };
        (self.digest_due.take(), checkpoint)
    }

    /// The end of what storage was asked for.
    pub(super) fn on_written(&mut self, op: OpNumber, written: Option<CheckpointId>, now: Monotonic) {
        if matches!(self.stage, Stage::Writing(writing) if writing == op) {
            self.failed_at = written.is_none().then_some(now);
            if let Some(id) = written {
                // It may have been written anew, where it was damaged.
                self.doubted.retain(|doubted| *doubted != id);
                self.named_at.retain(|(named, _)| *named != id);
            }
            self.stage = written.map_or(Stage::Idle, Stage::Written);
        }
    }
}

impl VsrState {
    /// The op of the newest checkpoint that it names; 0 for none.
    #[must_use]
    pub fn checkpoint(&self) -> OpNumber {
        self.checkpoints.last().map_or(OpNumber::ZERO, |newest| newest.op)
    }

    pub(in crate::protocol::normal) fn name(&mut self, checkpoint: CheckpointId) {
        // One that is taken again in a replay is no newer than those that are named.
        self.checkpoints.retain(|named| named.op != checkpoint.op);
        self.checkpoints.push(checkpoint);
        self.checkpoints.sort();
        let more = self.checkpoints.len().saturating_sub(NAMED);
        self.checkpoints.drain(..more);
    }
}

impl Recovered {
    /// Whether a replica can go on from this checkpoint: it is of no more than the record calls committed, and of no less than what was dropped
    /// from the log; and what the log has at its op, if it can be read, is that op. The record has named it: that it is of this log was certain
    /// then.
    #[must_use]
    pub fn continues(&self, checkpoint: &CheckpointHead) -> bool {
        let header = checkpoint.header();
        let is_within = header.op.is_committed(self.state.commit) && header.op >= self.state.base();
        let own = match self.slot(header.op) {
            Some(Slot::Clean(own) | Slot::Corrupt(Some(own))) => Some(own),
            _ => self.state.base.as_ref().filter(|base| base.op == header.op),
        };
        is_within && own.is_none_or(|own| own.checksum() == header.checksum())
    }
}
