//! Writes: the batch that is gathered, the one in flight, which batches made what durable, and the bytes on their way to
//! the disk.

use std::collections::BTreeMap;

use super::log::{Body, Log};
use crate::protocol::types::entry::Entry;
use crate::protocol::types::limits::disk_bytes;
use crate::protocol::types::message::Message;
use crate::protocol::types::number::{BatchNumber, CommitNumber, Monotonic, OpNumber};
use crate::protocol::types::vsr_state::Batch;

/// What is on its way to the disk, and what has arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    pub(crate) staging: Batch,
    /// The batch that is being written, and since when.
    pub(crate) in_flight: Option<(BatchNumber, Monotonic)>,
    /// Every op from the commit number up to here is durable and connected, here.
    pub(crate) durable: OpNumber,
    /// Every op from the record's commit number up to here was found durable here; a hint that saves a second look.
    pub(crate) stored: OpNumber,
    /// The write that a replica which has stopped still waits for, before it says so.
    pub(crate) before_stop: Option<BatchNumber>,
    /// The last batch handed out.
    pub(crate) issued: BatchNumber,
    /// The last durable batch.
    pub(crate) completed: BatchNumber,
    /// The batch that made the view durable.
    pub(crate) view_batch: BatchNumber,
    /// The batch that made log_view durable.
    pub(crate) log_view_batch: BatchNumber,
    /// Ops whose put gave way to a vsr state, or waits for a view, with the bytes that each will take; they are put when
    /// the view has started.
    pub(crate) unstaged: BTreeMap<OpNumber, u64>,
    /// The sum of these bytes.
    pub(crate) unstaged_bytes: u64,
    /// Bytes that storage can still take, as it said last.
    pub(crate) room: u64,
    /// Bytes of it that the batch being gathered will take.
    pub(crate) staged_bytes: u64,
    /// Bytes of it that the batch in flight may not have taken yet.
    pub(crate) in_flight_bytes: u64,
}

impl Writes {
    /// The number that the batch being gathered will have.
    pub(crate) fn next(&self) -> BatchNumber {
        self.issued.next()
    }

    /// Adds the put of an entry to the batch being gathered. Of its slot the caller says in which batch it is.
    pub(crate) fn stage(&mut self, entry: Entry) {
        self.staged_bytes += disk_bytes(entry.body.len() as u64);
        self.staging.entries.push(entry);
    }

    /// Stages the put of a slot whose body is in memory and not durable yet. An entry that is durable
    /// with its checksum is never put again (rule 6.8). Beside a vsr state it is kept for later.
    pub(crate) fn stage_put(&mut self, log: &mut Log, op: OpNumber) {
        let next = self.next();
        let Some(slot) = log.slot_mut(op) else { return };
        if slot.staged.is_some() {
            return;
        }
        if let (Some(header), Body::Memory(body)) = (slot.header, &slot.body) {
            if self.staging.state.is_some() {
                let bytes = disk_bytes(body.len() as u64);
                return self.unstage(op, bytes);
            }
            slot.staged = Some(next);
            self.stage(Entry { header, body: body.clone() });
        }
    }

    /// Takes the puts that were not handed out yet out of the batch being gathered. They count as not staged, and are kept for later.
    pub(crate) fn postpone_puts(&mut self, log: &mut Log) {
        let entries = std::mem::take(&mut self.staging.entries);
        for entry in entries {
            if let Some(slot) = log.slot_mut(entry.header.op) {
                slot.staged = None;
                self.unstage(entry.header.op, disk_bytes(entry.body.len() as u64));
            }
        }
        self.staged_bytes = 0;
    }

    /// Hands out what was gathered, when no batch is in flight: the group commit.
    pub(crate) fn take(&mut self, now: Monotonic) -> Option<(BatchNumber, Batch)> {
        if self.in_flight.is_some() || self.staging.is_empty() {
            return None;
        }
        self.issued = self.next();
        self.in_flight = Some((self.issued, now));
        self.in_flight_bytes = std::mem::take(&mut self.staged_bytes);
        let Batch { state, truncate_above, entries } = &mut self.staging;
        let batch =
            Batch { state: state.take(), truncate_above: truncate_above.take(), entries: std::mem::take(entries) };
        Some((self.issued, batch))
    }

    /// A batch is durable.
    ///
    /// # Errors
    /// When another batch is in flight, or none: that one.
    pub(crate) fn complete(&mut self, batch: BatchNumber) -> Result<(), Option<BatchNumber>> {
        let in_flight = self.in_flight.map(|(number, _)| number);
        if in_flight != Some(batch) {
            return Err(in_flight);
        }
        self.in_flight = None;
        self.in_flight_bytes = 0;
        self.completed = batch;
        Ok(())
    }

    /// The last batch that the view and log_view wait for.
    pub(crate) fn awaited(&self) -> BatchNumber {
        self.view_batch.max(self.log_view_batch)
    }

    /// Walks up from `from` over the ops of the log that are durable here, or at most `believed`: committed, as others
    /// have them. The last op of the walk.
    pub(crate) fn durable_up_to(&self, log: &Log, from: OpNumber, believed: CommitNumber) -> OpNumber {
        let mut durable = from;
        loop {
            let op = durable.next();
            let is_durable = log.slot(op).is_some_and(|slot| slot.is_durable(self.completed));
            let is_known = op.is_committed(believed) && op <= log.head();
            if !is_durable && !is_known {
                return durable;
            }
            durable = op;
        }
    }

    /// What a record may call committed, of what is committed and what the record before calls so: it is on this disk, too (rule 6.12).
    pub(crate) fn recordable(&mut self, log: &Log, recorded: CommitNumber, commit: CommitNumber) -> CommitNumber {
        let commit = commit.op().min(log.head());
        let is_stored = |op| log.slot(op).is_some_and(|slot| slot.is_durable(self.completed));
        let mut stored = recorded.op().max(self.stored.min(commit));
        while stored < commit && is_stored(stored.next()) {
            stored = stored.next();
        }
        self.stored = stored;
        CommitNumber(stored.0)
    }

    /// The batch that a message has to wait for: everything that speaks of the log or of a view waits
    /// for the durable view, and what speaks as a member of a started view for the durable log_view.
    pub(crate) fn needs(&self, message: &Message) -> BatchNumber {
        match message {
            Message::RequestHeaders { .. }
            | Message::Headers { .. }
            | Message::RequestEntries { .. }
            | Message::Entries { .. }
            | Message::RequestCheckpoint { .. }
            | Message::CheckpointPart { .. }
            | Message::RequestStatus { .. }
            | Message::Status { .. }
            | Message::Query { .. } => BatchNumber(0),
            // The number of the start is in the client id and in the nonces: until it is durable, the next
            // life may have the same ones, and take an answer to this one for its own.
            Message::Requests { .. } | Message::ReadIndex { .. } => BatchNumber(1),
            Message::RequestStartView { .. } => self.view_batch,
            // These name the life.
            Message::StartViewChange { .. } | Message::Ping(_) => self.view_batch.max(BatchNumber(1)),
            Message::PrepareOk { .. } | Message::CommitOk { .. } | Message::DoViewChange(_) => {
                self.view_batch.max(self.log_view_batch).max(BatchNumber(1))
            }
            Message::Replies { .. }
            | Message::Prepare { .. }
            | Message::Commit { .. }
            | Message::StartView(_)
            | Message::ReadIndexOk { .. }
            | Message::Answer { .. } => self.view_batch.max(self.log_view_batch),
        }
    }

    /// Whether entries of so many bytes fit beside everything that is on its way to the disk. An entry
    /// is never taken in without room: a write that fails for want of it would stop the replica (rule 6.11).
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.room >= self.waiting().saturating_add(bytes)
    }

    /// Bytes on their way to the disk.
    pub(crate) fn waiting(&self) -> u64 {
        self.staged_bytes.saturating_add(self.in_flight_bytes).saturating_add(self.unstaged_bytes)
    }

    /// Keeps an op for later.
    pub(crate) fn unstage(&mut self, op: OpNumber, bytes: u64) {
        let before = self.unstaged.insert(op, bytes).unwrap_or(0);
        self.unstaged_bytes = self.unstaged_bytes - before + bytes;
    }

    /// The ops that were kept for later.
    pub(crate) fn take_unstaged(&mut self) -> BTreeMap<OpNumber, u64> {
        self.unstaged_bytes = 0;
        std::mem::take(&mut self.unstaged)
    }

    /// Ops above this one are gone.
    pub(crate) fn truncate(&mut self, above: OpNumber) {
        let gone = self.unstaged.split_off(&above.next());
        self.unstaged_bytes -= gone.into_values().sum::<u64>();
    }

    /// Ops up to this one were dropped.
    pub(crate) fn drop_up_to(&mut self, op: OpNumber) {
        let left = self.unstaged.split_off(&op.next());
        self.unstaged_bytes -= std::mem::replace(&mut self.unstaged, left).into_values().sum::<u64>();
    }

    /// Whether a slow disk lets too much wait in memory.
    pub(crate) fn is_congested(&self, bytes_max: u64) -> bool {
        self.waiting() > bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::tests::log_of;
    use super::*;
    use crate::protocol::documented::any_state;
    use crate::protocol::types::random::Random;

    fn entry(log: &Log, op: u64) -> Entry {
        let Body::Memory(body) = &log.slot(OpNumber(op)).unwrap().body else { panic!("a body") };
        Entry { header: *log.header(OpNumber(op)).unwrap(), body: body.clone() }
    }

    #[test]
    fn one_batch_is_in_flight_at_a_time_and_what_comes_meanwhile_is_the_next_one() {
        let log = log_of(3, 100);
        let mut writes = Writes::default();
        assert!(writes.take(Monotonic(1)).is_none(), "there is nothing to write");
        writes.stage(entry(&log, 1));
        let (first, batch) = writes.take(Monotonic(1)).unwrap();
        assert_eq!((first, batch.entries.len()), (BatchNumber(1), 1));
        writes.stage(entry(&log, 2));
        writes.stage(entry(&log, 3));
        assert!(writes.take(Monotonic(2)).is_none());
        assert_eq!(writes.waiting(), 3 * disk_bytes(100));
        assert_eq!(writes.complete(first), Ok(()));
        assert_eq!((writes.completed, writes.waiting()), (first, 2 * disk_bytes(100)));
        let (second, batch) = writes.take(Monotonic(3)).unwrap();
        assert_eq!((second, batch.entries.len()), (BatchNumber(2), 2));
    }

    #[test]
    fn a_batch_that_is_not_in_flight_completes_nothing() {
        let log = log_of(1, 100);
        let mut writes = Writes::default();
        assert_eq!(writes.complete(BatchNumber(1)), Err(None));
        writes.stage(entry(&log, 1));
        writes.take(Monotonic(1)).unwrap();
        assert_eq!(writes.complete(BatchNumber(2)), Err(Some(BatchNumber(1))));
        assert_eq!((writes.completed, writes.waiting()), (BatchNumber(0), disk_bytes(100)));
        assert_eq!(writes.complete(BatchNumber(1)), Ok(()));
        assert_eq!(writes.complete(BatchNumber(1)), Err(None), "it completes once");
    }

    /// Rule 6.2: the walk ends at the first op that is neither durable nor committed, whatever is above it.
    #[test]
    fn nothing_above_a_gap_is_durable() {
        let mut log = log_of(5, 100);
        let writes = Writes { completed: BatchNumber(3), ..Writes::default() };
        for (op, batch) in [(1, 1), (2, 3), (4, 2), (5, 4)] {
            log.slot_mut(OpNumber(op)).unwrap().staged = Some(BatchNumber(batch));
        }
        let up_to = |believed| writes.durable_up_to(&log, OpNumber::ZERO, CommitNumber(believed)).0;
        assert_eq!((up_to(0), up_to(1)), (2, 2), "op 3 was never put");
        assert_eq!(up_to(3), 4, "op 3 is committed, and batch 4 is under way");
        assert_eq!(up_to(100), 5, "the log ends there");
    }

    /// Whatever is durable and committed: the result is the last op before the first that is neither.
    #[test]
    fn the_walk_ends_before_the_first_op_that_is_missing() {
        let mut random = Random::new(13);
        for _ in 0..2_000 {
            let ops = random.below(12);
            let mut log = log_of(ops, 1);
            for op in 1..=ops {
                let batch = random.chance(2, 3).then(|| BatchNumber(random.below(4)));
                log.slot_mut(OpNumber(op)).unwrap().staged = batch;
            }
            let writes = Writes { completed: BatchNumber(random.below(4)), ..Writes::default() };
            let believed = CommitNumber(random.below(16));
            let is_missing = |op: &u64| {
                let slot = log.slot(OpNumber(*op)).unwrap();
                *op > believed.0 && slot.staged.is_none_or(|batch| batch > writes.completed)
            };
            let expected = (1..=ops).find(is_missing).unwrap_or(ops + 1) - 1;
            assert_eq!(writes.durable_up_to(&log, OpNumber::ZERO, believed), OpNumber(expected));
        }
    }

    fn staged(log: &Log, op: u64) -> Option<BatchNumber> {
        log.slot(OpNumber(op)).unwrap().staged
    }

    /// Rule 6.8: a put that gives way to a vsr state counts as not staged until it is staged again.
    #[test]
    fn a_put_that_gives_way_to_a_state_is_kept_for_later() {
        let (mut log, mut writes) = (log_of(2, 100), Writes::default());
        writes.stage_put(&mut log, OpNumber(1));
        writes.stage_put(&mut log, OpNumber(1));
        assert_eq!((writes.staging.entries.len(), staged(&log, 1)), (1, Some(BatchNumber(1))), "it is put once");
        writes.postpone_puts(&mut log);
        writes.staging.state = Some(any_state());
        assert_eq!((writes.staging.entries.len(), staged(&log, 1)), (0, None));
        writes.stage_put(&mut log, OpNumber(2));
        assert_eq!((writes.staging.entries.len(), staged(&log, 2)), (0, None), "nor is another one put beside it");
        assert_eq!(writes.waiting(), 2 * disk_bytes(100), "both are on their way to the disk");
        writes.take(Monotonic(1)).unwrap();
        for op in writes.take_unstaged().into_keys() {
            writes.stage_put(&mut log, op);
        }
        assert_eq!((staged(&log, 1), staged(&log, 2)), (Some(BatchNumber(2)), Some(BatchNumber(2))));
        assert_eq!(writes.waiting(), 2 * disk_bytes(100));
    }

    /// Rule 6.12.
    #[test]
    fn a_record_calls_committed_what_is_on_this_disk_without_a_gap() {
        let mut log = log_of(4, 1);
        for (op, batch) in [(1, 1), (2, 1), (3, 5), (4, 1)] {
            log.slot_mut(OpNumber(op)).unwrap().staged = Some(BatchNumber(batch));
        }
        let mut writes = Writes { completed: BatchNumber(3), ..Writes::default() };
        let recorded = CommitNumber(0);
        assert_eq!(writes.recordable(&log, recorded, CommitNumber(1)), CommitNumber(1), "what is committed");
        assert_eq!(writes.recordable(&log, recorded, CommitNumber(9)), CommitNumber(2), "op 3 is under way");
        writes.completed = BatchNumber(5);
        assert_eq!(writes.recordable(&log, recorded, CommitNumber(9)), CommitNumber(4), "the log ends there");
        log.truncate(OpNumber(2));
        assert_eq!(writes.recordable(&log, recorded, CommitNumber(9)), CommitNumber(2), "the hint is no proof");
        assert_eq!(writes.recordable(&log, CommitNumber(3), CommitNumber(9)), CommitNumber(3), "it never goes back");
    }

    #[test]
    fn bytes_that_wait_for_a_view_are_counted_once_an_op() {
        let mut writes = Writes::default();
        writes.unstage(OpNumber(1), 10);
        writes.unstage(OpNumber(2), 20);
        writes.unstage(OpNumber(1), 15);
        assert_eq!(writes.waiting(), 35);
        writes.truncate(OpNumber(1));
        assert_eq!(writes.waiting(), 15);
        writes.room = 25;
        assert!(writes.has_room(10) && !writes.has_room(11));
        assert_eq!(writes.take_unstaged().into_keys().collect::<Vec<_>>(), [OpNumber(1)]);
        assert_eq!(writes.waiting(), 0);
    }
}
