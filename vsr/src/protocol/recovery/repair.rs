//! Repair: headers down the hash chain, then bodies by checksum, from random peers (rule 6.7).
//!
//! Repair never moves the head, never replaces what a view has fixed, and compares by checksum alone.

use std::collections::{BTreeSet, VecDeque};

use super::questions::{ENTRIES_MAX, HEADERS_MAX, Pace, Questions};
use crate::protocol::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::log::log::{Body, Log, LogSlot};
use crate::protocol::normal::forwards::Forwards;
use crate::protocol::types::checkpoint::CheckpointId;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::{Entry, Header};
use crate::protocol::types::event::Event;
use crate::protocol::types::message::Message;
use crate::protocol::types::number::{Monotonic, OpNumber, ReplicaId, View};

/// Bytes of bodies in one message of entries, beside its last one.
const ENTRIES_BYTES_MAX: usize = 1 << 20;

/// Entries that the driver reads from storage for the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRequest {
    /// Entries to apply.
    Apply {
        /// The first op.
        first: OpNumber,
        /// The last op.
        last: OpNumber,
    },
    /// Entries that nobody has asked for: whether they are intact.
    Scrub {
        /// The first op.
        first: OpNumber,
        /// The last op.
        last: OpNumber,
    },
    /// An entry for a peer that asked.
    Serve {
        /// The peer that asked.
        to: ReplicaId,
        /// The op that it asked for.
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
            ReadRequest::Apply { first, last } | ReadRequest::Scrub { first, last } => first..=last,
            ReadRequest::Serve { op, .. } => op..=op,
        }
    }
}

/// What is being repaired.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repair {
    pub(crate) due: bool,
    questions: Questions,
    pub(crate) reads: VecDeque<ReadRequest>,
    pub(crate) forwards: Forwards,
    /// When the commit number rose last.
    pub(crate) committed_at: Monotonic,
    /// Since when the primary is known to be ahead.
    pub(crate) lagging_since: Option<Monotonic>,
    start_view_asked: Option<(View, Monotonic)>,
    /// Members that were asked for headers, and for bodies, in this round: no member is asked twice before all were asked.
    tried_for_headers: Tried,
    tried_for_bodies: Tried,
    pub(crate) scrub: Scrub,
}

/// Where the next step of scrubbing goes on (rule 9.13).
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrub {
    /// The last op of the log that was looked at.
    pub(super) op: OpNumber,
    /// The part of a checkpoint that is looked at next.
    pub(crate) part: Option<(CheckpointId, u32)>,
    /// A step is under way.
    pub(super) is_reading: bool,
    /// When a checkpoint was last wanted because of damage.
    pub(super) wanted_at: Option<Monotonic>,
    /// Damaged ops of which there is no other copy: each is told once.
    pub(super) told: BTreeSet<OpNumber>,
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
    /// Of a start on this log, with the state after `applied`: what is damaged below is fetched as well, as others may need this copy.
    pub(crate) fn after_start(log: &Log, applied: OpNumber) -> Repair {
        let mut repair = Repair::default();
        let below = (log.base().0 + 1..=applied.0).map(OpNumber);
        let damaged = below.filter(|op| !log.slot(*op).is_some_and(LogSlot::is_present));
        damaged.for_each(|op| repair.questions.note_damaged(op));
        repair
    }

    /// Ops up to this one were dropped.
    pub(crate) fn drop_up_to(&mut self, op: OpNumber) {
        self.questions.drop_up_to(op);
    }

    pub(crate) fn note_lag(&mut self, now: Monotonic) {
        self.lagging_since.get_or_insert(now);
    }

    /// In another view it is another question.
    pub(crate) fn forget_asked(&mut self) {
        self.questions.forget_asked();
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
        let pace = self.pace();
        self.repair.questions.forget_old(pace);
        self.repair_headers(pace);
        self.repair_bodies(pace);
    }

    fn pace(&self) -> Pace {
        Pace { now: self.now, timeout: self.options.timing.retry, peers: self.membership.size() as u32 - 1 }
    }

    fn repair_headers(&mut self, pace: Pace) {
        let Some((op, checksum, count)) = Questions::headers_wanted(&self.log, self.applied) else { return };
        let recently = self.repair.questions.are_headers_asked(op, pace);
        let mut tried = self.repair.tried_for_headers;
        // A peer is drawn in any case.
        if let (false, Some(peer)) = (recently, self.pick_peer(&mut tried)) {
            self.repair.tried_for_headers = tried;
            self.repair.questions.note_headers_asked(op, pace.now);
            self.send(peer, Message::RequestHeaders { op, checksum, count });
        }
    }

    fn repair_bodies(&mut self, pace: Pace) {
        if self.is_disk_behind() {
            return;
        }
        let wanted = self.repair.questions.wanted(&self.log, &self.writes, self.applied, pace);
        if wanted.is_empty() {
            return;
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

    /// Whether all members were asked for an op within the retry interval. If not, notes that they are asked now.
    pub(crate) fn repair_asked_recently(&mut self, op: OpNumber) -> bool {
        let pace = self.pace();
        let recently = self.repair.questions.is_asked(op, pace);
        if !recently {
            self.repair.questions.note_asked(op, pace.now);
        }
        recently
    }

    /// Serves headers by checksum, in any status.
    pub(crate) fn on_request_headers(&mut self, from: ReplicaId, op: OpNumber, checksum: Checksum, count: u32) {
        let headers = self.log.headers_down(op, checksum, count.min(HEADERS_MAX) as usize);
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
                self.repair.questions.note_found(header.op);
                if let Err(diverged) = self.log.prove(self.applied) {
                    return self.stop(diverged.into());
                }
            }
        }
        self.repair_soon();
        self.try_decide();
    }

    /// Serves entries by checksum, in any status: a copy counts, whichever replica sends it (hazard B25, schedule F6).
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
            if self.take_in(entry) || self.log.slot(op).is_some_and(LogSlot::is_present) {
                self.repair.questions.note_found(op);
            } else {
                self.repair.questions.note_no_room(op);
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
                    self.keep_to_apply(op, entry);
                }
            }
            ReadRequest::Scrub { first, .. } => self.on_scrubbed(first, entries),
            ReadRequest::Serve { to, op, checksum } => {
                for (_, entry) in entries {
                    self.serve_read(to, op, checksum, entry);
                }
            }
        }
    }

    /// Keeps a stored entry that was read in memory, where it is applied from.
    fn keep_to_apply(&mut self, op: OpNumber, entry: Option<Entry>) {
        let Some(slot) = self.log.slot_mut(op) else { return };
        if slot.body != Body::Stored {
            return;
        }
        match entry {
            Some(entry) if slot.header.is_some_and(|own| own.checksum() == entry.header.checksum()) => {
                slot.body = Body::Memory(entry.body);
            }
            _ => self.on_damage(op),
        }
    }

    /// Sends a peer the entry that it asked for and that was read; what cannot be given is damaged, unless the log has changed since.
    fn serve_read(&mut self, to: ReplicaId, op: OpNumber, checksum: Checksum, entry: Option<Entry>) {
        match entry {
            Some(entry) if entry.header.checksum() == checksum => {
                self.send(to, Message::Entries { entries: vec![entry] });
            }
            _ if self.log.slot(op).is_some_and(|slot| slot.body == Body::Stored) => self.on_damage(op),
            _ => {}
        }
    }

    /// A stored entry turned out to be damaged: it is fetched from a peer, and never nacked.
    pub(crate) fn on_damage(&mut self, op: OpNumber) {
        self.mark("a stored entry is damaged");
        self.news.events.push(Event::Damaged { op });
        if let Some(slot) = self.log.slot_mut(op) {
            slot.body = Body::Missing;
            slot.staged = None;
            slot.corrupt = true;
        }
        self.repair.questions.note_damaged(op);
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
        self.send(primary, Message::RequestStartView { view, nonce: self.this_life.nonce });
    }

    /// Called at each retry.
    pub(crate) fn retry_repair(&mut self) {
        if self.log.head() > self.applied || self.repair.questions.has_damaged() {
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
