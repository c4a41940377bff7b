//! A storage under test: its disk, the model that it is compared with, and the log that a replica would have it hold.

use bytes::Bytes;
use futures::FutureExt;
use vsr::protocol::{Batch, CommitNumber, Entry, OpNumber, Random, Recovered, Slot, Suffix, View, VsrState};
use vsr::storage::StorageError;
use vsr::{Checksum, Storage};

use super::folder::{Kept, SimFolder};
use super::ledger::Ledger;
use crate::conformance::storage::entry;

/// Why a storage cannot go on: its refusal, or what it did wrong.
#[derive(Debug)]
pub(crate) enum Stop {
    Refused(StorageError),
    Wrong(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Wrong(why)
    }
}

impl Stop {
    /// A refusal is wrong, too.
    pub(super) fn wrong(self) -> String {
        match self {
            Stop::Refused(error) => format!("it refuses: {error}"),
            Stop::Wrong(why) => why,
        }
    }
}

/// What a future gives that must not wait: on simulated files there is nothing to wait for.
pub(crate) fn now<T>(future: impl Future<Output = Result<T, StorageError>>) -> Result<T, Stop> {
    match future.now_or_never() {
        Some(result) => result.map_err(Stop::Refused),
        None => Err(Stop::Wrong("it waits for something that is not on its disk".to_owned())),
    }
}

/// The log as a replica means it: chained, from op 1 on, with what it has not put yet.
#[derive(Clone)]
struct Chain {
    entries: Vec<Entry>,
    /// Nothing up to here is ever truncated.
    commit: u64,
}

impl Chain {
    fn parent(&self) -> Checksum {
        self.entries.last().map_or(Checksum(1), |entry| entry.header.checksum())
    }

    fn extend_to(&mut self, op: u64, view: u64, random: &mut Random) {
        while (self.entries.len() as u64) < op {
            // Around the ends of sectors and their payloads, and over several.
            let len = [0, 20, 100, 440, 487, 488, 489, 512, 1400, 3000][random.below(10) as usize];
            let mut body = Vec::with_capacity(len + 8);
            while body.len() < len {
                body.extend(random.next_u64().to_le_bytes());
            }
            body.truncate(len);
            let next = entry(self.entries.len() as u64 + 1, view, self.parent(), Bytes::from(body));
            self.entries.push(next);
        }
    }

    fn get(&self, op: u64) -> Option<&Entry> {
        self.entries.get((op as usize).checked_sub(1)?)
    }
}

/// A disk, with all that is known of it.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) folder: SimFolder,
    pub(super) ledger: Ledger,
    chain: Chain,
}

impl Subject {
    /// A disk that was formatted.
    pub(super) fn new(folder: SimFolder, state: VsrState) -> Subject {
        let chain = Chain { entries: Vec::new(), commit: 0 };
        Subject { folder, ledger: Ledger::new(state), chain }
    }

    /// The same, on a disk of its own.
    pub(super) fn fork(&self) -> Subject {
        Subject { folder: self.folder.fork(), ..self.clone() }
    }

    /// Opens the storage, and holds what it recovers against the ledger.
    pub(super) fn open<S: Storage>(&mut self, open: &impl Fn(SimFolder) -> Result<S, StorageError>) -> Result<S, Stop> {
        self.folder.idle();
        let storage = open(self.folder.clone()).map_err(Stop::Refused)?;
        let recovered = now(storage.recover())?;
        self.ledger.judge(&recovered)?;
        self.read_all(&storage, &recovered)?;
        Ok(storage)
    }

    /// Every entry that is called clean can be read, and no other one.
    fn read_all<S: Storage>(&self, storage: &S, recovered: &Recovered) -> Result<(), Stop> {
        let last = recovered.head().0;
        let mut op = recovered.state.base().0 + 1;
        while op <= last {
            let read = now(storage.read(OpNumber(op)..=OpNumber(last), 8000))?;
            if read.is_empty() {
                return Err(Stop::Wrong(format!("a read from op {op} on gives nothing")));
            }
            for (at, found) in read {
                if at.0 != op {
                    return Err(Stop::Wrong(format!("a read gives op {at} in the place of op {op}")));
                }
                let clean = matches!(recovered.slot(at), Some(Slot::Clean(_)));
                let known = self.ledger.entry(at);
                match found {
                    Some(entry) if clean && known == Some(&entry) => {}
                    Some(entry) => {
                        let checksum = entry.header.checksum();
                        return Err(Stop::Wrong(format!("clause 9: op {at} reads as {checksum}; it is not that")));
                    }
                    None if clean => {
                        return Err(Stop::Wrong(format!("clause 9: op {at} is clean, and cannot be read")));
                    }
                    None => {}
                }
                op += 1;
            }
        }
        Ok(())
    }

    /// Writes a batch; what becomes of it is the caller's to settle.
    pub(super) fn write<S: Storage>(&mut self, storage: &S, batch: Batch) -> Result<(), Stop> {
        let write = self.folder.begin(batch.entries.iter().map(|entry| entry.header.op).collect());
        self.ledger.begin(batch.clone(), write);
        let written = now(storage.write(batch));
        self.folder.idle();
        written
    }

    /// The write under way is durable.
    pub(super) fn settle(&mut self) {
        self.folder.settle();
        self.ledger.complete();
    }

    /// Power is lost, with everything that was synced on the disk.
    pub(super) fn power_loss(&self) {
        self.folder.power_loss(usize::MAX, Kept::Nothing);
    }

    fn next_state(&self) -> VsrState {
        let mut state = self.ledger.state().clone();
        state.commit = CommitNumber(self.chain.commit);
        let headers = self.chain.entries.iter().map(|entry| entry.header);
        let headers = headers.skip(self.chain.commit as usize).take(8).collect();
        state.suffix = Suffix { head: self.ledger.head(), headers };
        state
    }

    fn next_view(&self) -> VsrState {
        let state = self.next_state();
        let view: View = state.view.next();
        VsrState { view, log_view: view, ..state }
    }

    /// What a replica writes when it has started: that it has, and that it drops what does not belong to its log.
    pub(super) fn start_batches(&mut self) -> Vec<Batch> {
        let started = VsrState { starts: self.ledger.state().starts + 1, ..self.next_state() };
        let mut batches = vec![Batch { state: Some(started), ..Batch::default() }];
        // The longest log whose links hold. What was committed is there, or comes from a peer.
        let head = self.ledger.head().0;
        let mut entries: Vec<Entry> = Vec::new();
        for op in 1..=head.max(self.chain.commit) {
            let own = self.ledger.entry(OpNumber(op)).or_else(|| self.chain.get(op));
            let parent = entries.last().map_or(Checksum(1), |entry| entry.header.checksum());
            let fits = own.filter(|entry| entry.header.parent == parent);
            let Some(entry) = fits.or_else(|| self.chain.get(op).filter(|_| op <= self.chain.commit)) else { break };
            entries.push(entry.clone());
        }
        let known = entries.len() as u64;
        self.chain.entries = entries;
        if known < head {
            let starts = self.ledger.state().starts + 1;
            let state = VsrState { starts, ..self.next_view() };
            batches.push(Batch { state: Some(state), truncate_above: Some(OpNumber(known)), entries: Vec::new() });
        }
        batches
    }

    fn puts(&mut self, ops: std::ops::RangeInclusive<u64>, random: &mut Random) -> Vec<Entry> {
        let view = self.ledger.state().view.number;
        self.chain.extend_to(*ops.end(), view, random);
        ops.filter_map(|op| self.chain.get(op).cloned()).collect()
    }

    /// A batch of a kind that a replica writes.
    pub(super) fn next_batch(&mut self, random: &mut Random) -> Batch {
        let (head, base) = (self.ledger.head().0, self.ledger.state().base().0);
        let is_whole = |op: &u64| self.ledger.is_sure(OpNumber(*op));
        let whole = base + (base + 1..=head).take_while(is_whole).count() as u64;
        let hole = (base + 1..=head).find(|op| !self.ledger.is_sure(OpNumber(*op)));
        match random.below(10) {
            0 => {
                self.chain.commit = self.chain.commit.max(random.below(whole + 1));
                let mut state = self.next_state();
                // What is committed may be in a checkpoint, and is dropped.
                let dropped = base + random.below(self.chain.commit.saturating_sub(base) + 1);
                if dropped > base && random.chance(1, 2) {
                    state.base = self.chain.get(dropped).map(|entry| entry.header).or(state.base);
                }
                Batch { state: Some(state), ..Batch::default() }
            }
            1 => {
                let above = self.chain.commit + random.below(head.saturating_sub(self.chain.commit) + 1);
                self.chain.entries.truncate(above as usize);
                let state = Some(self.next_view());
                Batch { state, truncate_above: Some(OpNumber(above)), entries: Vec::new() }
            }
            2 => Batch { entries: self.puts(head + 2..=head + 2, random), ..Batch::default() },
            3 | 4 if head > base => {
                // A hole is filled, a damaged entry repaired, or one is put again.
                let op = hole.unwrap_or(base + 1 + random.below(head - base));
                Batch { entries: self.puts(op..=op, random), ..Batch::default() }
            }
            5 if head > self.chain.commit => {
                let above = head - 1 - random.below((head - self.chain.commit).min(3));
                self.chain.entries.truncate(above as usize);
                let entries = self.puts(above + 1..=above + 1 + random.below(2), random);
                Batch { truncate_above: Some(OpNumber(above)), entries, ..Batch::default() }
            }
            6 if head > self.chain.commit => {
                let above = head - 1;
                self.chain.entries.truncate(above as usize);
                Batch { truncate_above: Some(OpNumber(above)), ..Batch::default() }
            }
            _ => Batch { entries: self.puts(head + 1..=head + 1 + random.below(3), random), ..Batch::default() },
        }
    }

    /// A batch that is a write to the log.
    pub(super) fn next_append(&mut self, random: &mut Random) -> Batch {
        let head = self.ledger.head().0;
        Batch { entries: self.puts(head + 1..=head + 1 + random.below(2), random), ..Batch::default() }
    }
}
