//! Repair: headers down the hash chain, then bodies by checksum, from random peers (rule 6.7).
//!
//! Repair never moves the head, never replaces what a view has fixed, and compares by checksum alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::protocol::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::log::log::{Body, LogSlot};
use crate::protocol::normal::forwards::Forwards;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::{Entry, Header};
use crate::protocol::types::message::Message;
use crate::protocol::types::number::{Monotonic, OpNumber, ReplicaId, View};

const HEADERS_MAX: u32 = 256;
const ENTRIES_MAX: usize = 64;
const ENTRIES_BYTES_MAX: usize = 1 << 20;
/// How often the time-out of a question doubles.
const ASKS_DOUBLED: u32 = 4;

/// Entries that the driver reads from storage for the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRequest {
    /// To apply them.
    Apply {
        /// From this op.
        first: OpNumber,
        /// To this op.
        last: OpNumber,
    },
    /// For a peer that asked.
    Serve {
        /// The peer.
        to: ReplicaId,
        /// The op.
        op: OpNumber,
        /// The checksum of the entry that the peer asked for.
        checksum: Checksum,
    },
}

impl ReadRequest {
    /// The ops to read.
    #[must_use]
    pub fn ops(&self) -> std::ops::RangeInclusive<OpNumber> {
        match *self {
            ReadRequest::Apply { first, last } => first..=last,
            ReadRequest::Serve { op, .. } => op..=op,
        }
    }
}

/// What is being repaired.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repair {
    pub(crate) due: bool,
    /// When each op was asked for last, and how often.
    asked: BTreeMap<OpNumber, (Monotonic, u32)>,
    headers_asked: Option<(OpNumber, Monotonic)>,
    pub(crate) reads: VecDeque<ReadRequest>,
    pub(crate) forwards: Forwards,
    /// When the commit number rose last.
    pub(crate) committed_at: Monotonic,
    /// Since when the primary is known to be ahead.
    pub(crate) lagging_since: Option<Monotonic>,
    start_view_asked: Option<(View, Monotonic)>,
    /// The nonce of this life: an answer to an earlier one is not accepted (hazard B18).
    pub(crate) nonce: u64,
    /// Entries that were found damaged in this life.
    damaged: BTreeSet<OpNumber>,
    /// Members that were asked for headers, and for bodies, in this round: no member is asked twice before all were asked.
    tried_for_headers: Tried,
    tried_for_bodies: Tried,
}

/// A set of members, by their places.
#[derive(Clone, Copy, Debug, Default)]
struct Tried(u16);

impl Tried {
    fn has(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }

    fn add(&mut self, at: usize) {
        self.0 |= 1 << at;
    }
}

impl Repair {
    pub(crate) fn new(nonce: u64) -> Repair {
        Repair { nonce, ..Repair::default() }
    }

    pub(crate) fn note_lag(&mut self, now: Monotonic) {
        self.lagging_since.get_or_insert(now);
    }

    /// Whether an answer may still be on its way. The time-out doubles each time that as many questions were asked as there are
    /// peers: what is asked for again travels again, and the one that has it may be the last that is asked.
    fn is_asked(&self, op: OpNumber, now: Monotonic, timeout: Duration, peers: u32) -> bool {
        let waits = |&(at, times): &(Monotonic, u32)| {
            let rounds = times.saturating_sub(1) / peers.max(1);
            now.since(at) < timeout * (1 << rounds.min(ASKS_DOUBLED))
        };
        self.asked.get(&op).is_some_and(waits)
    }

    /// In another view it is another question.
    pub(crate) fn forget_asked(&mut self) {
        self.asked.clear();
    }

    fn note_asked(&mut self, op: OpNumber, now: Monotonic) {
        let (at, times) = self.asked.entry(op).or_insert((now, 0));
        (*at, *times) = (now, *times + 1);
    }
}

impl Core {
    /// Something is missing: look at the end of this turn.
    pub(crate) fn repair_soon(&mut self) {
        self.repair.due = true;
    }

    /// Asks a peer for what is missing, if anything is.
    pub(crate) fn run_repair(&mut self) {
        if !std::mem::take(&mut self.repair.due) {
            return;
        }
        if let Err(diverged) = self.log.prove(self.applied) {
            return self.stop(diverged.into());
        }
        let now = self.now;
        // Long enough to remember how often.
        let forget = self.options.timing.retry * (2 << ASKS_DOUBLED);
        self.repair.asked.retain(|_, (at, _)| now.since(*at) < forget);
        self.repair_headers();
        self.repair_bodies();
    }

    fn repair_headers(&mut self) {
        let top = self.log.proven_from();
        let Some(header) = self.log.header(top).copied() else { return };
        let wanted = top.prev();
        if wanted <= self.applied || self.log.header(wanted).is_some() {
            return;
        }
        let recently = self
            .repair
            .headers_asked
            .is_some_and(|(op, at)| op == wanted && self.now.since(at) < self.options.timing.retry);
        let mut tried = self.repair.tried_for_headers;
        if let (false, Some(peer)) = (recently, self.pick_peer(&mut tried)) {
            self.repair.tried_for_headers = tried;
            self.repair.headers_asked = Some((wanted, self.now));
            let count = (wanted.0 - self.applied.0).min(u64::from(HEADERS_MAX)) as u32;
            self.send(peer, Message::RequestHeaders { op: wanted, checksum: header.parent, count });
        }
    }

    fn repair_bodies(&mut self) {
        let (mut wanted, mut again) = (Vec::new(), BTreeSet::new());
        if self.is_disk_behind() {
            return;
        }
        let (now, timeout, peers) = (self.now, self.options.timing.retry, self.membership.size() as u32 - 1);
        let from = self.log.proven_from().max(self.applied.next());
        let mut op = from;
        while op <= self.log.head() && op.0 < from.0 + 2048 && wanted.len() < ENTRIES_MAX {
            if let Some(slot) = self.log.slot(op)
                && let (Some(header), Body::Missing) = (&slot.header, &slot.body)
                && !self.repair.is_asked(op, now, timeout, peers)
            {
                wanted.push((op, header.checksum()));
            }
            op = op.next();
        }
        // What turned out to be damaged after it was applied is fetched as well: others may need this copy.
        while let Some(op) = self.repair.damaged.pop_first() {
            if op >= from {
                continue;
            }
            let Some(slot) = self.log.slot(op) else { continue };
            if let (Some(header), Body::Missing) = (&slot.header, &slot.body) {
                if !self.repair.is_asked(op, now, timeout, peers) && wanted.len() < ENTRIES_MAX {
                    wanted.push((op, header.checksum()));
                }
                again.insert(op);
            }
        }
        self.repair.damaged = again;
        if wanted.is_empty() {
            return;
        }
        for (op, _) in &wanted {
            self.repair.note_asked(*op, now);
        }
        if self.is_repairing_primary() {
            self.broadcast(&Message::RequestEntries { wanted });
        } else {
            let mut tried = self.repair.tried_for_bodies;
            if let Some(peer) = self.pick_peer(&mut tried) {
                self.repair.tried_for_bodies = tried;
                self.send(peer, Message::RequestEntries { wanted });
            }
        }
    }

    /// The primary half of the time, else any other member; one whose connection is up, if there is
    /// one. Random, so that repair never keeps asking the wrong one in step (hazard B33), and each at most once in a round.
    fn pick_peer(&mut self, tried: &mut Tried) -> Option<ReplicaId> {
        let n = self.membership.size();
        if n == 1 {
            return None;
        }
        if (0..n).all(|at| at == self.index || tried.has(at)) {
            *tried = Tried::default();
        }
        let primary = self.membership.index_of(self.primary_id()).unwrap_or(0);
        let is_up = |at: usize| self.progress.is_up(self.membership.members[at].id);
        let prefer = primary != self.index && is_up(primary) && self.random.chance(1, 2);
        let start = self.random.below(n as u64) as usize;
        // Now and then a member that is hinted to be down: hints may be wrong.
        let believe = self.random.chance(3, 4);
        let ring = || (0..n).map(|step| (start + step) % n).filter(|&at| at != self.index && !tried.has(at));
        let up = ring().find(|&at| !believe || is_up(at));
        let at = Some(primary).filter(|&at| prefer && !tried.has(at)).or(up).or_else(|| ring().next())?;
        tried.add(at);
        Some(self.membership.members[at].id)
    }

    /// Whether everybody was asked for an op within the retry interval; notes that they are now.
    pub(crate) fn repair_asked_recently(&mut self, op: OpNumber) -> bool {
        let (now, timeout, peers) = (self.now, self.options.timing.retry, self.membership.size() as u32 - 1);
        let recently = self.repair.is_asked(op, now, timeout, peers);
        if !recently {
            self.repair.note_asked(op, now);
        }
        recently
    }

    /// Serves headers by checksum, in any status.
    pub(crate) fn on_request_headers(&mut self, from: ReplicaId, op: OpNumber, checksum: Checksum, count: u32) {
        let mut headers = Vec::new();
        let (mut op, mut checksum) = (op, checksum);
        while headers.len() < count.min(HEADERS_MAX) as usize {
            let Some(header) = self.log.header(op).filter(|header| header.checksum() == checksum) else { break };
            headers.push(*header);
            (op, checksum) = (op.prev(), header.parent);
        }
        if !headers.is_empty() {
            self.send(from, Message::Headers { headers });
        }
    }

    /// Headers for blanks: each is the one that the slot above names.
    pub(crate) fn on_headers(&mut self, headers: Vec<Header>) {
        for header in headers {
            self.view_change.found.insert((header.op, header.checksum()), header);
            if self.view_change.found.len() > 4 * HEADERS_MAX as usize {
                self.view_change.found.pop_first();
            }
            if self.log.header(header.op).is_none()
                && header.op < self.log.head()
                && self.log.name(header.op) == Some(header.checksum())
            {
                self.log.adopt(header);
                self.repair.asked.remove(&header.op);
                if let Err(diverged) = self.log.prove(self.applied) {
                    return self.stop(diverged.into());
                }
            }
        }
        self.repair_soon();
        self.try_decide();
    }

    /// Serves entries by checksum, in any status: a copy is a copy, from whomever (hazard B25, schedule F6).
    pub(crate) fn on_request_entries(&mut self, from: ReplicaId, wanted: Vec<(OpNumber, Checksum)>) {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (op, checksum) in wanted.into_iter().take(ENTRIES_MAX) {
            let Some(slot) = self.log.slot(op) else { continue };
            let Some(header) = slot.header.filter(|header| header.checksum() == checksum) else { continue };
            match &slot.body {
                Body::Memory(body) => {
                    bytes += body.len();
                    entries.push(Entry { header, body: body.clone() });
                    if bytes > ENTRIES_BYTES_MAX {
                        self.send(from, Message::Entries { entries: std::mem::take(&mut entries) });
                        bytes = 0;
                    }
                }
                Body::Stored if self.repair.reads.len() < 4 * ENTRIES_MAX => {
                    self.repair.reads.push_back(ReadRequest::Serve { to: from, op, checksum });
                }
                Body::Stored | Body::Missing => {}
            }
        }
        if !entries.is_empty() {
            self.send(from, Message::Entries { entries });
        }
    }

    /// Copies have arrived.
    pub(crate) fn on_entries(&mut self, entries: Vec<Entry>) {
        let copies_max = self.pipeline_bytes_max();
        for entry in entries {
            let op = entry.header.op;
            if self.phase.awaits_log() {
                self.view_change.note_copy(&entry, copies_max);
            }
            // What finds no room is not asked for again at once: that would go on as fast as the network can.
            if self.take_in(entry) || self.log.slot(op).is_some_and(LogSlot::is_present) {
                self.repair.asked.remove(&op);
            } else if let Some((_, times)) = self.repair.asked.get_mut(&op) {
                // The member that was asked has answered.
                *times = 1;
            }
        }
        self.repair_soon();
        self.try_decide();
        self.try_become_primary();
    }

    /// A read that was asked for has ended; `None` is an entry that storage cannot give.
    pub(crate) fn on_read(&mut self, request: &ReadRequest, entries: Vec<(OpNumber, Option<Entry>)>) {
        match *request {
            ReadRequest::Apply { .. } => {
                self.applying.reading = false;
                for (op, entry) in entries {
                    let Some(slot) = self.log.slot_mut(op) else { continue };
                    if slot.body != Body::Stored {
                        continue;
                    }
                    match entry {
                        Some(entry) if slot.header.is_some_and(|own| own.checksum() == entry.header.checksum()) => {
                            slot.body = Body::Memory(entry.body);
                        }
                        _ => self.on_damage(op),
                    }
                }
            }
            ReadRequest::Serve { to, op, checksum } => {
                for (_, entry) in entries {
                    match entry {
                        Some(entry) if entry.header.checksum() == checksum => {
                            self.send(to, Message::Entries { entries: vec![entry] });
                        }
                        _ if self.log.slot(op).is_some_and(|slot| slot.body == Body::Stored) => self.on_damage(op),
                        _ => {}
                    }
                }
            }
        }
    }

    /// A stored entry turned out to be damaged: it is fetched from a peer, and never nacked.
    fn on_damage(&mut self, op: OpNumber) {
        self.mark("a stored entry is damaged");
        if let Some(slot) = self.log.slot_mut(op) {
            slot.body = Body::Missing;
            slot.staged = None;
            slot.corrupt = true;
        }
        self.repair.damaged.insert(op);
        if self.membership.size() == 1 {
            return self.stop(Halt::SoloDamaged { op });
        }
        self.repair_soon();
    }

    /// Asks the primary of a view for its `StartView`; at most once a retry interval.
    pub(crate) fn ask_for_start_view(&mut self, view: View) {
        let primary = self.membership.primary(view);
        let recently = self
            .repair
            .start_view_asked
            .is_some_and(|(asked, at)| asked >= view && self.now.since(at) < self.options.timing.retry);
        if primary == self.id || recently {
            return;
        }
        self.repair.start_view_asked = Some((view, self.now));
        self.send(primary, Message::RequestStartView { view, nonce: self.repair.nonce });
    }

    /// Called at each retry.
    pub(crate) fn retry_repair(&mut self) {
        if self.log.head() > self.applied || !self.repair.damaged.is_empty() {
            self.repair_soon();
        }
    }

    pub(crate) fn entry_in_memory(&self, op: OpNumber) -> Option<Entry> {
        let slot = self.log.slot(op)?;
        match (&slot.body, slot.header) {
            (Body::Memory(body), Some(header)) => Some(Entry { header, body: body.clone() }),
            _ => None,
        }
    }
}
