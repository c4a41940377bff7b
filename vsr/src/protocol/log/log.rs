//! The log in memory: what is known of each op, and what of it is durable.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::{Entry, Header};
use crate::protocol::types::message::SlotEvidence;
use crate::protocol::types::number::{BatchNumber, CommitNumber, OpNumber, View};
use crate::protocol::types::vsr_state::{Doubted, Suffix};

/// What is here of an op's body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// Nothing.
    Missing,
    /// In memory; durable or not.
    Memory(Bytes),
    /// On disk only; durable.
    Stored,
}

/// One op as this replica knows it.
#[derive(Clone, Debug)]
pub(crate) struct LogSlot {
    /// `None` for a blank.
    pub(crate) header: Option<Header>,
    pub(crate) body: Body,
    /// The batch of the last put staged for this very content; `None` when none was, or when the
    /// content came from elsewhere since.
    pub(crate) staged: Option<BatchNumber>,
    /// The disk may have held an acknowledged entry here that is damaged. Stays as long as the slot does:
    /// a header adopted over it proves nothing (hazards B17, D15), nor does a copy that came by repair
    /// and is not durable yet.
    pub(crate) corrupt: bool,
}

impl LogSlot {
    fn blank() -> LogSlot {
        LogSlot { header: None, body: Body::Missing, staged: None, corrupt: false }
    }

    pub(crate) fn is_present(&self) -> bool {
        self.body != Body::Missing
    }

    /// Durable: the last put staged for this content has completed. As a truncation removes the slot,
    /// and a re-put is staged anew, A-B-A is told apart by batch numbers (rule 6.8).
    pub(crate) fn is_durable(&self, completed: BatchNumber) -> bool {
        self.is_present() && self.staged.is_some_and(|batch| batch <= completed)
    }
}

/// The ops after the base, up to the head. What came before the base was dropped: a checkpoint has taken its place (rule 9.2).
#[derive(Clone, Debug)]
pub(crate) struct Log {
    slots: VecDeque<LogSlot>,
    /// The header of the last op that was dropped; `None` while all are here.
    base: Option<Header>,
    /// The name of the log before op 1.
    root: Checksum,
    /// The lowest op from which the headers are unbroken up to the head. Everything below it is
    /// unproven, however well it fits to what was applied (rule 6.6, schedule F1).
    proven_from: OpNumber,
    bytes: u64,
    /// Slots without a header.
    blanks: u64,
}

impl Log {
    /// An empty log, of which all up to a base was dropped.
    pub(crate) fn new(root: Checksum, base: Option<Header>) -> Log {
        let proven_from = base.map_or(OpNumber(1), |base| base.op.next());
        Log { slots: VecDeque::new(), base, root, proven_from, bytes: 0, blanks: 0 }
    }

    pub(crate) fn head(&self) -> OpNumber {
        OpNumber(self.base().0 + self.slots.len() as u64)
    }

    /// The last op that was dropped; 0 while all are here.
    pub(crate) fn base(&self) -> OpNumber {
        self.base.map_or(OpNumber::ZERO, |base| base.op)
    }

    /// Drops every op up to this one, which is committed: a checkpoint contains it. Where the log ends below, it ends there from now on.
    pub(crate) fn drop_up_to(&mut self, base: Header) {
        let count = self.place(base.op).map_or(0, |last| (last + 1).min(self.slots.len()));
        for slot in self.slots.drain(..count) {
            self.bytes -= slot.header.map_or(0, |own| u64::from(own.body_len));
            self.blanks -= u64::from(slot.header.is_none());
        }
        self.base = Some(base);
        self.proven_from = self.proven_from.max(base.op.next());
    }

    /// Bytes of all bodies in the log whose headers are known.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most that all bodies in the log take, of which none is longer than `longest`.
    pub(crate) fn bytes_at_most(&self, longest: u64) -> u64 {
        self.bytes.saturating_add(self.blanks.saturating_mul(longest))
    }

    fn place(&self, op: OpNumber) -> Option<usize> {
        usize::try_from(op.0.checked_sub(self.base().0 + 1)?).ok()
    }

    pub(crate) fn slot(&self, op: OpNumber) -> Option<&LogSlot> {
        self.slots.get(self.place(op)?)
    }

    pub(crate) fn slot_mut(&mut self, op: OpNumber) -> Option<&mut LogSlot> {
        let place = self.place(op)?;
        self.slots.get_mut(place)
    }

    /// The header of an op of the log, or of the last one that was dropped.
    pub(crate) fn header(&self, op: OpNumber) -> Option<&Header> {
        match &self.base {
            Some(base) if base.op == op => Some(base),
            _ => self.slot(op)?.header.as_ref(),
        }
    }

    /// The checksum that names the log up to `op`.
    pub(crate) fn checksum(&self, op: OpNumber) -> Option<Checksum> {
        if op == OpNumber::ZERO { Some(self.root) } else { self.header(op).map(Header::checksum) }
    }

    /// The checksum that the slot must have: its header's, or what the slot above names as parent.
    pub(crate) fn name(&self, op: OpNumber) -> Option<Checksum> {
        self.checksum(op).or_else(|| self.header(op.next()).map(|above| above.parent))
    }

    pub(crate) fn proven_from(&self) -> OpNumber {
        self.proven_from
    }

    /// The highest commit number that a header here names, not above the head.
    pub(crate) fn commit_known(&self) -> CommitNumber {
        let named = self.slots.iter().filter_map(|slot| slot.header).map(|header| header.commit);
        named.max().unwrap_or_default().max(CommitNumber(self.base().0)).min(CommitNumber(self.head().0))
    }

    /// Appends a header at head + 1, or further up with blanks between.
    pub(crate) fn extend(&mut self, header: Header) -> &mut LogSlot {
        let fits = header.op == self.head().next() && self.checksum(self.head()) == Some(header.parent);
        while self.head().next() < header.op {
            self.slots.push_back(LogSlot::blank());
            self.blanks += 1;
        }
        if !fits {
            self.proven_from = header.op;
        }
        self.bytes += u64::from(header.body_len);
        self.slots.push_back(LogSlot { header: Some(header), ..LogSlot::blank() });
        let last = self.slots.len() - 1;
        &mut self.slots[last]
    }

    /// Adds blanks or verdicts at start.
    pub(crate) fn push_recovered(&mut self, slot: LogSlot) {
        self.bytes += slot.header.map_or(0, |header| u64::from(header.body_len));
        self.blanks += u64::from(slot.header.is_none());
        self.slots.push_back(slot);
    }

    /// Fills slots up to `op` with blanks.
    pub(crate) fn extend_blank(&mut self, op: OpNumber) {
        while self.head() < op {
            self.slots.push_back(LogSlot::blank());
            self.blanks += 1;
            self.proven_from = self.head().next();
        }
    }

    /// Sets the header of a slot within the log; what was there under another header is forgotten.
    /// Returns whether the slot changed.
    pub(crate) fn adopt(&mut self, header: Header) -> bool {
        let Some(slot) = self.slot_mut(header.op) else { return false };
        if slot.header.is_some_and(|own| own.checksum() == header.checksum()) {
            return false;
        }
        let (before, was_blank) = (slot.header.map_or(0, |own| u64::from(own.body_len)), slot.header.is_none());
        *slot = LogSlot { header: Some(header), corrupt: slot.corrupt, ..LogSlot::blank() };
        self.bytes = self.bytes - before + u64::from(header.body_len);
        self.blanks -= u64::from(was_blank);
        true
    }

    /// Forgets a stale entry below a proven one. Its header did not fit.
    fn forget(&mut self, op: OpNumber) {
        let Some(slot) = self.slot_mut(op) else { return };
        let (before, was_blank) = (slot.header.map_or(0, |own| u64::from(own.body_len)), slot.header.is_none());
        *slot = LogSlot { corrupt: slot.corrupt, ..LogSlot::blank() };
        self.bytes -= before;
        self.blanks += u64::from(!was_blank);
    }

    /// Above `op`: what is not here may have been, and was lost.
    pub(crate) fn mark_missing_as_damaged(&mut self, op: OpNumber) {
        let from = usize::try_from(op.0.saturating_sub(self.base().0)).unwrap_or(usize::MAX).min(self.slots.len());
        for slot in self.slots.range_mut(from..) {
            slot.corrupt |= !slot.is_present();
        }
    }

    /// The first op above `op` whose slot is damaged.
    pub(crate) fn first_damaged(&self, op: OpNumber) -> Option<OpNumber> {
        let from = op.max(self.base());
        (from.0 + 1..=self.head().0).map(OpNumber).find(|op| self.slot(*op).is_some_and(|slot| slot.corrupt))
    }

    /// Of the ops that a record with this commit number calls lost, perhaps, the range in which some are not on the disk again.
    pub(crate) fn still_doubted(
        &self,
        doubted: Doubted,
        commit: CommitNumber,
        completed: BatchNumber,
    ) -> Option<Doubted> {
        // An op that is known to be committed is never denied.
        let above = doubted.above.max(commit.op()).max(self.base());
        let to = doubted.to.min(self.head());
        let is_missing = |op: &OpNumber| !self.slot(*op).is_some_and(|slot| slot.is_durable(completed));
        let first = (above.0 + 1..=to.0).map(OpNumber).find(is_missing)?;
        Some(Doubted { above: first.prev(), to })
    }

    /// Puts a body into the slot that its header names. `false` when it fits nowhere.
    pub(crate) fn fill(&mut self, entry: Entry) -> bool {
        let Some(slot) = self.slot_mut(entry.header.op) else { return false };
        if slot.is_present() || slot.header.is_none_or(|own| own.checksum() != entry.header.checksum()) {
            return false;
        }
        slot.body = Body::Memory(entry.body);
        slot.staged = None;
        true
    }

    /// The first op up to `applied` of which these headers, of another log, name another content.
    pub(crate) fn contradiction(&self, headers: &[Header], applied: OpNumber) -> Option<Diverged> {
        let header = headers.iter().filter(|header| header.op <= applied).find(|header| self.differs(header))?;
        let own = self.checksum(header.op).unwrap_or_default();
        Some(Diverged { op: header.op, own, log: header.checksum() })
    }

    /// The op up to which this log stays when a log with these headers, and with this head, takes its place. Only what is not known
    /// to be committed may be dropped. A slot below that holds another content is stale, and is replaced where it stands: the ops
    /// above it belong to the log, and this may be their last copy.
    pub(crate) fn stays_under(&self, headers: &[Header], head: OpNumber, commit: CommitNumber) -> OpNumber {
        let mut uncommitted = headers.iter().filter(|header| header.op > commit.op());
        let other = uncommitted.find(|header| self.differs(header));
        other.map_or(head, |header| header.op.prev()).min(head)
    }

    fn differs(&self, header: &Header) -> bool {
        self.header(header.op).is_some_and(|own| own.checksum() != header.checksum())
    }

    /// Drops every op above `op`.
    pub(crate) fn truncate(&mut self, op: OpNumber) {
        while self.head() > op.max(self.base()) {
            if let Some(slot) = self.slots.pop_back() {
                self.bytes -= slot.header.map_or(0, |own| u64::from(own.body_len));
                self.blanks -= u64::from(slot.header.is_none());
            }
        }
        self.proven_from = self.proven_from.min(op.max(self.base()).next());
    }

    /// Everything below the head is to be proven again, from the head down.
    pub(crate) fn doubt(&mut self) {
        self.proven_from = self.head().next();
    }

    /// Walks down the hash chain from what is proven towards `applied`, and forgets entries that do
    /// not belong to the log that the head names.
    ///
    /// # Errors
    /// When the log that the head names does not contain what was applied here.
    pub(crate) fn prove(&mut self, applied: OpNumber) -> Result<(), Diverged> {
        if self.proven_from == self.head().next() && self.head() > applied {
            if self.header(self.head()).is_none() {
                return Ok(());
            }
            self.proven_from = self.head();
        }
        while self.proven_from > applied.next() {
            let Some(above) = self.header(self.proven_from) else { return Ok(()) };
            let (parent, below) = (above.parent, self.proven_from.prev());
            match self.checksum(below) {
                Some(checksum) if checksum == parent => self.proven_from = below,
                Some(_) => {
                    self.forget(below);
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
        if self.head() > applied
            && let Some(above) = self.header(applied.next())
            && self.proven_from <= applied.next()
            && let Some(checksum) = self.checksum(applied)
            && above.parent != checksum
        {
            return Err(Diverged { op: applied, own: checksum, log: above.parent });
        }
        Ok(())
    }

    /// Whether the chain is unbroken from the head down to `op`.
    pub(crate) fn is_proven(&self, op: OpNumber) -> bool {
        op >= self.proven_from && op <= self.head()
    }

    // ---- what is said of the log to others ----

    /// The headers after the commit number, and the one at it if it is known to be of the log of log_view: the primary that
    /// chooses the log has to know the header of its head, also when everything is committed (rule 7.13). Below the commit
    /// number slots may be stale. `recorded` are the headers that the record of this log_view names.
    pub(crate) fn suffix(
        &self,
        commit: CommitNumber,
        applied: OpNumber,
        log_view: View,
        recorded: &[Header],
    ) -> Suffix {
        let head = self.head();
        let last_committed = commit.op().min(head);
        // An op that was prepared in log_view is of its log by itself: one primary made it, once. With blanks
        // above it that no replica can fill, it may be the only op that can be the head of the next log.
        let of_log_view = self.header(last_committed).is_some_and(|header| header.view == log_view);
        // What the record of this log_view names was installed with it.
        let of_record = recorded
            .iter()
            .any(|named| named.op == last_committed && self.checksum(last_committed) == Some(named.checksum()));
        let known = last_committed <= applied || of_log_view || of_record || self.is_proven(last_committed);
        let from = if known { last_committed.0.max(1) } else { last_committed.0 + 1 };
        let headers = (from..=head.0).filter_map(|op| self.header(OpNumber(op)).copied());
        // An op of a checkpoint that was fetched may be of a later view than the log: it is committed, and says nothing of this log's.
        Suffix { head, headers: headers.filter(|header| header.view <= log_view).collect() }
    }

    /// What is known here of an op that may be named among these headers: whether its body is here, and whether the op was
    /// never acknowledged here. Damage is no reason to deny it (rule 7.3).
    pub(crate) fn evidence(&self, op: OpNumber, named: &[Header], completed: BatchNumber) -> SlotEvidence {
        let Some(slot) = self.slot(op) else { return SlotEvidence { present: false, nack: true } };
        let named = named.iter().find(|header| header.op == op);
        let same = match (named, slot.header) {
            (Some(named), Some(own)) => named.checksum() == own.checksum(),
            _ => false,
        };
        SlotEvidence {
            present: same && slot.is_present(),
            nack: !(slot.corrupt || (same && slot.is_durable(completed))),
        }
    }

    /// The headers from the op of this checksum down the hash chain, as far as they are here; at most `max`.
    pub(crate) fn headers_down(&self, op: OpNumber, checksum: Checksum, max: usize) -> Vec<Header> {
        let mut headers = Vec::new();
        let (mut op, mut checksum) = (op, checksum);
        while headers.len() < max {
            let Some(header) = self.header(op).filter(|header| header.checksum() == checksum) else { break };
            headers.push(*header);
            (op, checksum) = (op.prev(), header.parent);
        }
        headers
    }
}

/// The log of the view does not contain an op that was applied here: agreement is broken, and going on
/// would spread it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("op {op} was applied with checksum {own}, but the log of the view has {log}")]
pub struct Diverged {
    /// The op that was applied.
    pub op: OpNumber,
    /// The checksum of what was applied here.
    pub own: Checksum,
    /// The checksum that the log of the view names.
    pub log: Checksum,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::types::entry::{HeaderFields, OpKind};
    use crate::protocol::types::number::Timestamp;
    use crate::protocol::types::random::Random;

    /// The header of the op that follows `parent`, with a body of these bytes.
    pub(crate) fn header(op: u64, parent: Checksum, body: &Bytes) -> Header {
        Header::new(fields(op, parent, body))
    }

    fn fields(op: u64, parent: Checksum, body: &Bytes) -> HeaderFields {
        HeaderFields {
            view: View::default(),
            op: OpNumber(op),
            parent,
            body: Checksum::of(body),
            body_len: body.len() as u32,
            requests: 0,
            timestamp: Timestamp(op),
            commit: CommitNumber(0),
            machine_version: 1,
            kind: OpKind::Requests,
        }
    }

    /// A log of so many ops, each with a body of so many bytes in memory, of which none was put yet.
    pub(crate) fn log_of(ops: u64, body_len: usize) -> Log {
        let mut log = Log::new(Checksum(1), None);
        for op in 1..=ops {
            let body = Bytes::from(vec![op as u8; body_len]);
            let header = header(op, log.checksum(log.head()).unwrap(), &body);
            log.extend(header);
            log.fill(Entry { header, body });
        }
        log
    }

    #[test]
    fn a_truncation_takes_the_bytes_with_it_and_what_it_leaves_is_proven() {
        let mut log = log_of(5, 100);
        assert_eq!((log.head(), log.bytes(), log.proven_from()), (OpNumber(5), 500, OpNumber(1)));
        log.truncate(OpNumber(3));
        assert_eq!((log.head(), log.bytes()), (OpNumber(3), 300));
        assert!(log.is_proven(OpNumber(3)) && !log.is_proven(OpNumber(4)));
    }

    /// Rule 6.6, schedule F1: only the chain from the head down proves an entry.
    #[test]
    fn a_stale_entry_below_the_head_is_forgotten_when_the_chain_reaches_it() {
        let mut log = log_of(2, 100);
        let stale = log.checksum(OpNumber(2)).unwrap();
        let body = Bytes::from_static(b"other");
        let three = header(3, Checksum(99), &body);
        log.extend(three);
        assert_eq!(log.proven_from(), OpNumber(3), "its parent is another op 2");
        assert_ne!(log.name(OpNumber(2)), Some(Checksum(99)), "a header that is here names its op");
        assert_eq!(log.prove(OpNumber(0)), Ok(()));
        assert!(log.header(OpNumber(2)).is_none(), "{stale} does not belong to this log");
        assert_eq!(log.name(OpNumber(2)), Some(Checksum(99)));
        assert_eq!(log.bytes(), 105);
    }

    fn body_of(log: &Log, op: u64) -> &Body {
        &log.slot(OpNumber(op)).unwrap().body
    }

    /// A log whose ops 1 and 3 are known, with the entry that belongs between them.
    fn log_with_a_blank() -> (Log, Entry) {
        let mut log = log_of(1, 10);
        let body = Bytes::from_static(b"the second");
        let second = header(2, log.checksum(OpNumber(1)).unwrap(), &body);
        log.extend(header(3, second.checksum(), &Bytes::new()));
        (log, Entry { header: second, body })
    }

    /// Rule 6.7: what goes into a blank is decided by the slot above it, and by nothing else.
    #[test]
    fn a_blank_takes_the_entry_that_the_slot_above_names() {
        let (mut log, second) = log_with_a_blank();
        assert_eq!((log.head(), log.proven_from()), (OpNumber(3), OpNumber(3)));
        assert_eq!(log.name(OpNumber(2)), Some(second.header.checksum()));
        assert!(!log.fill(second.clone()), "a body needs its header first");
        assert!(log.adopt(second.header) && !log.adopt(second.header), "the second time it is no change");
        let other = Bytes::from_static(b"another 2nd");
        assert!(!log.fill(Entry { header: header(2, Checksum(5), &other), body: other }));
        assert!(log.fill(second.clone()) && !log.fill(second.clone()), "a body that is here is not replaced");
        assert_eq!(body_of(&log, 2), &Body::Memory(second.body));
        assert_eq!(log.prove(OpNumber(0)), Ok(()));
        assert_eq!((log.proven_from(), log.bytes()), (OpNumber(1), 20));
        assert!(!log.adopt(header(4, Checksum(1), &Bytes::new())), "repair never moves the head");
        assert_eq!(log.head(), OpNumber(3));
    }

    /// Rule 9.2.
    #[test]
    fn a_log_goes_on_after_what_was_dropped() {
        let mut log = log_of(5, 10);
        let (second, third) = (*log.header(OpNumber(2)).unwrap(), *log.header(OpNumber(3)).unwrap());
        log.drop_up_to(second);
        assert_eq!((log.base(), log.head(), log.bytes()), (OpNumber(2), OpNumber(5), 30));
        assert_eq!((log.header(OpNumber(1)), log.header(OpNumber(2))), (None, Some(&second)));
        assert!(log.slot(OpNumber(2)).is_none() && log.slot(OpNumber(3)).is_some());
        assert!(!log.adopt(second) && !log.fill(Entry { header: second, body: Bytes::new() }));
        log.doubt();
        assert_eq!(
            (log.prove(OpNumber(2)), log.proven_from()),
            (Ok(()), OpNumber(3)),
            "it begins with what op 2 names"
        );
        log.truncate(OpNumber(1));
        assert_eq!((log.head(), log.checksum(OpNumber(2))), (OpNumber(2), Some(second.checksum())));
        assert_eq!(log.commit_known(), CommitNumber(2), "what was dropped is committed");
        let tenth = header(10, Checksum(7), &Bytes::new());
        log.extend(third);
        log.drop_up_to(tenth);
        assert_eq!((log.base(), log.head(), log.bytes(), log.bytes_at_most(9)), (OpNumber(10), OpNumber(10), 0, 0));
        log.extend(header(11, tenth.checksum(), &Bytes::from(vec![0; 4])));
        assert!(log.is_proven(OpNumber(11)) && log.bytes() == 4);
    }

    /// Rule 6.8: content that came anew is durable by a put of its own; that an equal or another content was durable in this
    /// slot before proves nothing.
    #[test]
    fn a_slot_is_durable_by_the_last_put_of_what_is_in_it() {
        let mut log = log_of(2, 10);
        let is_durable = |log: &Log| log.slot(OpNumber(2)).unwrap().is_durable(BatchNumber(3));
        assert!(!is_durable(&log), "it was never put");
        for (batch, is_done) in [(3, true), (4, false)] {
            log.slot_mut(OpNumber(2)).unwrap().staged = Some(BatchNumber(batch));
            assert_eq!(is_durable(&log), is_done);
        }
        log.slot_mut(OpNumber(2)).unwrap().staged = Some(BatchNumber(3));
        let second = *log.header(OpNumber(2)).unwrap();
        log.adopt(header(2, second.parent, &Bytes::from_static(b"other")));
        assert!(!is_durable(&log) && body_of(&log, 2) == &Body::Missing, "another content");
        log.truncate(OpNumber(1));
        log.extend(second);
        log.fill(Entry { header: second, body: Bytes::from(vec![2; 10]) });
        assert!(!is_durable(&log), "the same content, after it was dropped");
    }

    /// Hazards B17, D15: what a damaged slot may have held is not known again because a header is.
    #[test]
    fn a_header_that_is_learnt_does_not_heal_a_damaged_slot() {
        let mut log = log_of(1, 10);
        let second = header(2, log.checksum(OpNumber(1)).unwrap(), &Bytes::new());
        log.push_recovered(LogSlot { header: None, body: Body::Missing, staged: None, corrupt: true });
        assert_eq!(log.first_damaged(OpNumber::ZERO), Some(OpNumber(2)));
        assert!(log.adopt(second) && log.fill(Entry { header: second, body: Bytes::new() }));
        assert!(log.slot(OpNumber(2)).unwrap().corrupt, "nor because a copy is");
        assert_eq!(log.first_damaged(OpNumber(2)), None);
        log.truncate(OpNumber(1));
        log.extend(second);
        assert!(!log.slot(OpNumber(2)).unwrap().corrupt, "a slot that was dropped is another one");
    }

    /// Rule 7.15.
    #[test]
    fn what_is_missing_above_an_uncertain_end_is_damaged_and_what_is_here_is_not() {
        let mut log = log_of(3, 10);
        log.slot_mut(OpNumber(1)).unwrap().body = Body::Missing;
        log.slot_mut(OpNumber(3)).unwrap().body = Body::Missing;
        log.extend_blank(OpNumber(4));
        log.mark_missing_as_damaged(OpNumber(1));
        let damaged: Vec<bool> = (1..=4).map(|op| log.slot(OpNumber(op)).unwrap().corrupt).collect();
        assert_eq!(damaged, [false, false, true, true]);
        assert_eq!(log.first_damaged(OpNumber::ZERO), Some(OpNumber(3)));
        log.mark_missing_as_damaged(OpNumber(u64::MAX));
    }

    /// Rule 7.18: what is committed stays; below the commit number a slot may be stale.
    #[test]
    fn another_log_takes_the_place_of_what_is_not_committed_only() {
        let log = log_of(4, 1);
        let own = |op| *log.header(OpNumber(op)).unwrap();
        let other = |op| header(op, Checksum(9), &Bytes::new());
        let stays = |headers: &[Header], head| log.stays_under(headers, OpNumber(head), CommitNumber(2)).0;
        assert_eq!(stays(&[own(3), own(4)], 4), 4);
        assert_eq!(stays(&[own(3), other(4)], 4), 3);
        assert_eq!(stays(&[other(3), other(4)], 4), 2);
        assert_eq!(stays(&[other(2), own(3), own(4)], 4), 4, "a stale op 2 is replaced where it stands");
        assert_eq!(stays(&[own(3)], 3), 3, "it ends there");
        assert_eq!(stays(&[own(3), own(4), other(5)], 5), 5, "it goes on");
        assert_eq!(stays(&[], 1), 1, "the caller looks whether that is below the commit number");
        let contradiction = |headers: &[Header], applied| log.contradiction(headers, OpNumber(applied));
        let diverged = Diverged { op: OpNumber(2), own: own(2).checksum(), log: other(2).checksum() };
        assert_eq!(contradiction(&[other(2), other(3)], 2), Some(diverged));
        assert_eq!(contradiction(&[other(2), other(3)], 1), None, "it was not applied");
        assert_eq!(contradiction(&[own(2), own(3)], 4), None);
    }

    /// Rule 7.15.
    #[test]
    fn an_op_is_doubted_until_it_is_committed_or_on_the_disk_again() {
        let mut log = log_of(4, 1);
        let doubted = |above, to| Doubted { above: OpNumber(above), to: OpNumber(to) };
        let still = |log: &Log, commit| log.still_doubted(doubted(0, 9), CommitNumber(commit), BatchNumber(3));
        assert_eq!(still(&log, 0), Some(doubted(0, 4)), "not above the head");
        assert_eq!(still(&log, 1), Some(doubted(1, 4)));
        log.slot_mut(OpNumber(2)).unwrap().staged = Some(BatchNumber(3));
        log.slot_mut(OpNumber(3)).unwrap().staged = Some(BatchNumber(4));
        assert_eq!(still(&log, 1), Some(doubted(2, 4)), "op 2 is durable, the write of op 3 is under way");
        assert_eq!(still(&log, 4), None);
    }

    /// Rule 6.6: an entry that was applied is never forgotten for a log that does not contain it.
    #[test]
    fn a_log_without_an_op_that_was_applied_is_an_error() {
        let mut log = log_of(2, 10);
        let own = log.checksum(OpNumber(2)).unwrap();
        log.extend(header(3, Checksum(99), &Bytes::new()));
        let diverged = Diverged { op: OpNumber(2), own, log: Checksum(99) };
        assert_eq!(log.prove(OpNumber(2)), Err(diverged));
        assert_eq!(log.checksum(OpNumber(2)), Some(own));
    }

    #[test]
    fn a_doubted_log_is_proven_from_its_head_down_and_no_further_than_a_blank() {
        let mut log = log_of(3, 10);
        log.doubt();
        assert!((1..=3).all(|op| !log.is_proven(OpNumber(op))));
        assert_eq!(log.prove(OpNumber(1)), Ok(()));
        assert_eq!(log.proven_from(), OpNumber(2), "what is applied needs no proof");
        let (mut log, _) = log_with_a_blank();
        log.doubt();
        assert_eq!(log.prove(OpNumber::ZERO), Ok(()));
        assert!(log.is_proven(OpNumber(3)) && !log.is_proven(OpNumber(2)) && !log.is_proven(OpNumber(4)));
        log.extend_blank(OpNumber(4));
        log.doubt();
        assert_eq!(log.prove(OpNumber::ZERO), Ok(()));
        assert!((1..=4).all(|op| !log.is_proven(OpNumber(op))), "a head without a header proves nothing");
    }

    #[test]
    fn the_commit_number_that_headers_name_ends_at_the_head() {
        let mut log = Log::new(Checksum(1), None);
        assert_eq!(log.commit_known(), CommitNumber(0));
        for (op, commit) in [(1, 0), (2, 1), (3, 0)] {
            let mut fields = fields(op, log.checksum(log.head()).unwrap(), &Bytes::new());
            fields.commit = CommitNumber(commit);
            log.extend(Header::new(fields));
        }
        assert_eq!(log.commit_known(), CommitNumber(1), "the highest, wherever it stands");
        let mut fields = fields(4, log.checksum(log.head()).unwrap(), &Bytes::new());
        fields.commit = CommitNumber(9);
        log.extend(Header::new(fields));
        assert_eq!(log.commit_known(), CommitNumber(4));
    }

    /// Rule 7.13: below the commit number, and at it, a slot may be stale.
    #[test]
    fn the_suffix_begins_at_the_commit_number_if_that_op_is_known_to_be_of_the_log() {
        let mut log = log_of(3, 10);
        let (own_view, later) = (View::default(), View::default().next());
        let second = *log.header(OpNumber(2)).unwrap();
        let other = header(2, Checksum(9), &Bytes::new());
        let ops = |log: &Log, commit, applied, log_view, recorded: &[Header]| {
            let Suffix { head, headers } = log.suffix(CommitNumber(commit), OpNumber(applied), log_view, recorded);
            assert_eq!(head, OpNumber(3));
            headers.iter().map(|header| header.op.0).collect::<Vec<_>>()
        };
        assert_eq!(ops(&log, 2, 0, later, &[]), [2, 3], "it is proven");
        log.doubt();
        assert_eq!(ops(&log, 2, 0, later, &[]), [3], "it may be stale");
        assert_eq!(ops(&log, 2, 2, later, &[]), [2, 3], "it was applied");
        assert_eq!(ops(&log, 2, 0, own_view, &[]), [2, 3], "it was prepared in log_view");
        assert_eq!(ops(&log, 2, 0, later, &[second]), [2, 3], "it was installed with log_view");
        assert_eq!(ops(&log, 2, 0, later, &[other]), [3], "another op 2 was");
        assert_eq!(ops(&log, 0, 0, later, &[]), [1, 2, 3], "there is no op 0");
        assert_eq!(ops(&log, 9, 9, later, &[]), [3], "the commit number may be above the head");
    }

    /// Rule 7.3: a replica denies what it never acknowledged, and nothing that a damaged slot may have held.
    #[test]
    fn an_op_is_denied_unless_it_is_durable_here_or_may_have_been() {
        let mut log = log_of(1, 10);
        let own = *log.header(OpNumber(1)).unwrap();
        let other = header(1, Checksum(9), &Bytes::new());
        let evidence = |log: &Log, op, named: &[Header]| {
            let SlotEvidence { present, nack } = log.evidence(OpNumber(op), named, BatchNumber(3));
            (present, nack)
        };
        assert_eq!(evidence(&log, 2, &[]), (false, true), "there is no such slot");
        assert_eq!(evidence(&log, 1, &[own]), (true, true), "a copy in memory, that was never acknowledged");
        log.slot_mut(OpNumber(1)).unwrap().staged = Some(BatchNumber(4));
        assert_eq!(evidence(&log, 1, &[own]), (true, true), "its write is under way");
        log.slot_mut(OpNumber(1)).unwrap().staged = Some(BatchNumber(3));
        assert_eq!(evidence(&log, 1, &[own]), (true, false));
        assert_eq!(evidence(&log, 1, &[other]), (false, true), "another op 1 is durable here");
        assert_eq!(evidence(&log, 1, &[]), (false, true));
        let slot = log.slot_mut(OpNumber(1)).unwrap();
        (slot.body, slot.staged, slot.corrupt) = (Body::Missing, None, true);
        let names: [&[Header]; 3] = [&[own], &[other], &[]];
        for named in names {
            assert_eq!(evidence(&log, 1, named), (false, false), "a damaged slot may have held it");
        }
    }

    /// Rule 6.7: what is served is what was asked for by its checksum.
    #[test]
    fn headers_are_served_down_the_chain_as_far_as_they_are_here() {
        let log = log_of(4, 10);
        let checksum = log.checksum(OpNumber(4)).unwrap();
        let ops = |log: &Log, op, checksum, max| {
            log.headers_down(OpNumber(op), checksum, max).iter().map(|header| header.op.0).collect::<Vec<_>>()
        };
        assert_eq!(ops(&log, 4, checksum, 2), [4, 3]);
        assert_eq!(ops(&log, 4, checksum, 9), [4, 3, 2, 1]);
        assert!(ops(&log, 3, checksum, 9).is_empty(), "that is another op 3");
        assert!(ops(&log, 5, Checksum(5), 9).is_empty() && ops(&log, 0, Checksum(1), 9).is_empty());
        let (log, _) = log_with_a_blank();
        assert_eq!(ops(&log, 3, log.checksum(OpNumber(3)).unwrap(), 9), [3], "a blank ends them");
    }

    /// Rule 5.12: what is counted is what is held, after any changes in any order.
    #[test]
    fn the_bytes_of_the_log_are_those_of_its_headers() {
        let mut random = Random::new(17);
        for _ in 0..500 {
            let mut log = log_of(random.below(4), 100);
            for _ in 0..30 {
                let op = 1 + random.below(log.head().0 + 3);
                let body = Bytes::from(vec![op as u8; random.below(50) as usize]);
                let parent = if random.chance(1, 2) { log.checksum(OpNumber(op - 1)) } else { None };
                let header = header(op, parent.unwrap_or(Checksum(5)), &body);
                match random.below(4) {
                    0 => log.truncate(OpNumber(op)),
                    1 if OpNumber(op) > log.head() => {
                        log.extend(header);
                    }
                    2 => {
                        let _ = log.prove(OpNumber(random.below(2)));
                    }
                    _ => {
                        log.adopt(header);
                    }
                }
                log.fill(Entry { header, body });
                let headers = || (1..=log.head().0).filter_map(|op| log.header(OpNumber(op)));
                assert_eq!(log.bytes(), headers().map(|header| u64::from(header.body_len)).sum::<u64>());
                let blanks = log.head().0 - headers().count() as u64;
                assert_eq!(log.bytes_at_most(1000), log.bytes() + 1000 * blanks);
                assert!((1..=log.head().next().0).contains(&log.proven_from().0), "{}", log.proven_from());
            }
        }
    }
}
