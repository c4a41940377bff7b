//! What repair asks for: what is missing in the log, and has not been asked for of late (rules 6.7, 6.9).
//!
//! Invariants:
//! - Only what is missing is asked for, by its checksum: headers below the lowest proven op, and bodies of proven ops.
//! - What is asked for finds room: in one message, at the replica that answers, and on the disk, beside what was asked for
//!   before and has not come.
//! - A question is repeated after a time-out that doubles with each round of members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::protocol::log::log::{Body, Log};
use crate::protocol::log::writes::Writes;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::Header;
use crate::protocol::types::limits::disk_bytes;
use crate::protocol::types::number::{Monotonic, OpNumber};

/// Headers that are asked for, and served, at most in one message.
pub(crate) const HEADERS_MAX: u32 = 256;
/// Entries that are asked for, and served, at most in one message.
pub(crate) const ENTRIES_MAX: usize = 64;
/// Ops that are looked at for missing bodies.
const LOOK_AHEAD: u64 = 2048;
/// How often the time-out of a question doubles.
const ASKS_DOUBLED: u32 = 4;

/// What says whether an answer may still be on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) now: Monotonic,
    /// The time-out of the first question.
    pub(crate) timeout: Duration,
    /// The number of other members.
    pub(crate) peers: u32,
}

/// What was asked for, and what was found damaged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions {
    /// When each op was asked for last, and how often.
    asked: BTreeMap<OpNumber, (Monotonic, u32)>,
    headers_asked: Option<(OpNumber, Monotonic)>,
    /// Entries that were found damaged in this life.
    damaged: BTreeSet<OpNumber>,
}

impl Questions {
    /// Whether an answer may still be on its way. The time-out doubles each time that as many questions were asked as there are
    /// peers: what is asked for again travels again, and the one that has it may be the last that is asked.
    pub(crate) fn is_asked(&self, op: OpNumber, pace: Pace) -> bool {
        let Pace { now, timeout, peers } = pace;
        let waits = |&(at, times): &(Monotonic, u32)| {
            let rounds = times.saturating_sub(1) / peers.max(1);
            now.since(at) < timeout * (1 << rounds.min(ASKS_DOUBLED))
        };
        self.asked.get(&op).is_some_and(waits)
    }

    /// An op is asked for now.
    pub(crate) fn note_asked(&mut self, op: OpNumber, now: Monotonic) {
        let (at, times) = self.asked.entry(op).or_insert((now, 0));
        (*at, *times) = (now, *times + 1);
    }

    /// An op has come.
    pub(crate) fn note_found(&mut self, op: OpNumber) {
        self.asked.remove(&op);
    }

    /// An op has come and could not be taken in: the member that was asked has answered. It is not asked for again at once, which
    /// would go on as fast as the network can.
    pub(crate) fn note_no_room(&mut self, op: OpNumber) {
        if let Some((_, times)) = self.asked.get_mut(&op) {
            *times = 1;
        }
    }

    /// In another view it is another question.
    pub(crate) fn forget_asked(&mut self) {
        self.asked.clear();
    }

    /// Forgets questions that were asked long ago, when it does not matter any more how often.
    pub(crate) fn forget_old(&mut self, pace: Pace) {
        let forget = pace.timeout * (2 << ASKS_DOUBLED);
        self.asked.retain(|_, (at, _)| pace.now.since(*at) < forget);
    }

    /// Ops up to this one were dropped.
    pub(crate) fn drop_up_to(&mut self, op: OpNumber) {
        self.asked = self.asked.split_off(&op.next());
        self.damaged = self.damaged.split_off(&op.next());
    }

    /// A stored entry turned out to be damaged.
    pub(crate) fn note_damaged(&mut self, op: OpNumber) {
        self.damaged.insert(op);
    }

    /// Whether a damaged entry was not fetched again yet.
    pub(crate) fn has_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// The headers that are missing below the lowest proven op: the highest of them, its checksum, and how many to ask for.
    pub(crate) fn headers_wanted(log: &Log, applied: OpNumber) -> Option<(OpNumber, Checksum, u32)> {
        let lowest = log.proven_from();
        let wanted = lowest.prev();
        let parent = log.header(lowest)?.parent;
        if wanted <= applied || log.header(wanted).is_some() {
            return None;
        }
        let count = (wanted.0 - applied.0).min(u64::from(HEADERS_MAX)) as u32;
        Some((wanted, parent, count))
    }

    /// Whether an answer to a question for headers from this op down may still be on its way.
    pub(crate) fn are_headers_asked(&self, from: OpNumber, pace: Pace) -> bool {
        self.headers_asked.is_some_and(|(op, at)| op == from && pace.now.since(at) < pace.timeout)
    }

    /// Headers are asked for now, from this op down.
    pub(crate) fn note_headers_asked(&mut self, from: OpNumber, now: Monotonic) {
        self.headers_asked = Some((from, now));
    }

    /// The entries to ask for now, by op and checksum: what is missing, finds room, and was not asked for of late. They count as asked
    /// for from now on. What has come again of the damaged ones is forgotten.
    pub(crate) fn wanted(
        &mut self,
        log: &Log,
        writes: &Writes,
        applied: OpNumber,
        pace: Pace,
    ) -> Vec<(OpNumber, Checksum)> {
        let mut wanted = Vec::new();
        let from = log.proven_from().max(applied.next());
        // What was asked for and has not come, and what is asked for now: what finds no room is thrown away when it comes,
        // and would be asked for again at each retry.
        let mut bytes = 0;
        let mut op = from;
        while op <= log.head() && op.0 < from.0 + LOOK_AHEAD && wanted.len() < ENTRIES_MAX {
            if let Some(header) = missing(log, op) {
                let with = bytes + disk_bytes(header.body_len.into());
                if !writes.has_room(with) {
                    break;
                }
                bytes = with;
                if !self.is_asked(op, pace) {
                    wanted.push((op, header.checksum()));
                }
            }
            op = op.next();
        }
        // What turned out to be damaged after it was applied is fetched as well: others may need this copy.
        self.damaged.retain(|op| *op < from && log.slot(*op).is_some_and(|slot| slot.body == Body::Missing));
        // From the highest down: each names the one below.
        for op in self.damaged.iter().rev() {
            let Some(checksum) = log.name(*op) else { continue };
            let len = log.header(*op).map_or(0, |header| header.body_len);
            let with = bytes + disk_bytes(len.into());
            // What finds no room is not asked for, and takes no room from one that would find some.
            if !writes.has_room(with) {
                continue;
            }
            bytes = with;
            if wanted.len() < ENTRIES_MAX && !self.is_asked(*op, pace) {
                wanted.push((*op, checksum));
            }
        }
        for (op, _) in &wanted {
            self.note_asked(*op, pace.now);
        }
        wanted
    }
}

/// The header of an op whose body is not here.
fn missing(log: &Log, op: OpNumber) -> Option<&Header> {
    log.slot(op).filter(|slot| slot.body == Body::Missing)?.header.as_ref()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::log::log::LogSlot;
    use crate::protocol::log::log::tests::{header, log_of};

    const TIMEOUT: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Pace {
        Pace { now: Monotonic(millis * 1_000_000), timeout: TIMEOUT, peers: 2 }
    }

    fn with_room(bytes: u64) -> Writes {
        Writes { room: bytes, ..Writes::default() }
    }

    /// Four ops, of which the bodies of these are not here.
    fn log_without(missing: &[u64]) -> Log {
        let mut log = log_of(4, 10);
        for op in missing {
            log.slot_mut(OpNumber(*op)).unwrap().body = Body::Missing;
        }
        log
    }

    fn ops(wanted: &[(OpNumber, Checksum)]) -> Vec<u64> {
        wanted.iter().map(|(op, _)| op.0).collect()
    }

    /// Rule 6.7: by checksum, and only what is missing.
    #[test]
    fn bodies_that_are_missing_above_what_is_applied_are_wanted_by_their_checksums() {
        let (log, writes) = (log_without(&[1, 2, 4]), with_room(u64::MAX));
        let mut questions = Questions::default();
        let wanted = questions.wanted(&log, &writes, OpNumber(1), at(0));
        let expected = [2, 4].map(|op| (OpNumber(op), log.checksum(OpNumber(op)).unwrap()));
        assert_eq!(wanted, expected);
        assert!(questions.wanted(&log, &writes, OpNumber(4), at(0)).is_empty(), "all is applied");
    }

    /// Rule 6.7: what is below the lowest proven op may be of another log: its headers come first.
    #[test]
    fn headers_are_wanted_below_what_is_proven_and_bodies_are_not() {
        let mut log = log_without(&[1]);
        log.extend(header(6, Checksum(9), &Bytes::new()));
        let applied = OpNumber::ZERO;
        assert_eq!(Questions::headers_wanted(&log, applied), Some((OpNumber(5), Checksum(9), 5)));
        assert_eq!(Questions::headers_wanted(&log, OpNumber(5)), None, "everything below is applied");
        assert_eq!(Questions::headers_wanted(&log_without(&[1]), applied), None, "all are here");
        let mut questions = Questions::default();
        assert_eq!(ops(&questions.wanted(&log, &with_room(u64::MAX), applied, at(0))), [6]);
        questions.note_headers_asked(OpNumber(5), at(0).now);
        assert!(questions.are_headers_asked(OpNumber(5), at(99)) && !questions.are_headers_asked(OpNumber(4), at(99)));
        assert!(!questions.are_headers_asked(OpNumber(5), at(100)));
    }

    /// Rule 6.7: what finds no room is thrown away when it comes, and is asked for at each retry.
    #[test]
    fn no_more_is_wanted_than_finds_room_with_what_has_not_come() {
        let log = log_without(&[1, 2, 3, 4]);
        let writes = with_room(2 * disk_bytes(10));
        let mut questions = Questions::default();
        assert_eq!(ops(&questions.wanted(&log, &writes, OpNumber::ZERO, at(0))), [1, 2]);
        assert!(questions.wanted(&log, &writes, OpNumber::ZERO, at(50)).is_empty(), "these two have not come");
        let mut long = log_of(ENTRIES_MAX as u64 + 9, 10);
        (1..=long.head().0).for_each(|op| long.slot_mut(OpNumber(op)).unwrap().body = Body::Missing);
        let wanted = Questions::default().wanted(&long, &with_room(u64::MAX), OpNumber::ZERO, at(0));
        assert_eq!(wanted.len(), ENTRIES_MAX, "as many as one message takes");
    }

    /// Rule 6.7: others may need the copy of an op that is applied here, whatever is too long for this disk.
    #[test]
    fn what_finds_no_room_keeps_no_damaged_entry_from_being_wanted() {
        let mut log = log_without(&[2, 3]);
        let long = Bytes::from(vec![0; 1 << 20]);
        log.extend(header(5, log.checksum(OpNumber(4)).unwrap(), &long));
        log.extend(header(6, log.checksum(OpNumber(5)).unwrap(), &Bytes::from(vec![0; 10])));
        let writes = with_room(2 * disk_bytes(10));
        let wanted = |damaged: &[u64], applied| {
            let mut questions = Questions::default();
            damaged.iter().for_each(|op| questions.note_damaged(OpNumber(*op)));
            ops(&questions.wanted(&log, &writes, OpNumber(applied), at(0)))
        };
        assert!(wanted(&[], 4).is_empty(), "op 5 finds no room, and op 6 is of no use before it");
        assert_eq!(wanted(&[2, 3], 4), [3, 2], "nor does op 5 take any");
        assert_eq!(wanted(&[5, 6], 6), [6], "nor does it where it is damaged itself");
        assert_eq!(wanted(&[2, 3, 6], 6), [6, 3], "two find room");
    }

    /// Rule 9.11: below a checkpoint a header may be lost as well; the one above names it.
    #[test]
    fn a_damaged_entry_without_a_header_is_wanted_by_the_name_that_the_one_above_gives_it() {
        let mut log = log_of(4, 10);
        let name = log.checksum(OpNumber(2)).unwrap();
        for op in [1, 2] {
            *log.slot_mut(OpNumber(op)).unwrap() = LogSlot { header: None, ..log.slot(OpNumber(4)).unwrap().clone() };
            log.slot_mut(OpNumber(op)).unwrap().body = Body::Missing;
        }
        let mut questions = Questions::default();
        [1, 2].into_iter().for_each(|op| questions.note_damaged(OpNumber(op)));
        let wanted = questions.wanted(&log, &with_room(u64::MAX), OpNumber(4), at(0));
        assert_eq!(wanted, [(OpNumber(2), name)], "op 1 has no name before op 2 is here");
        questions.drop_up_to(OpNumber(2));
        assert!(!questions.has_damaged(), "what was dropped is not wanted");
    }

    /// Rule 6.9.
    #[test]
    fn a_question_is_repeated_after_a_time_out_that_doubles_with_each_round_of_members() {
        let (log, writes) = (log_without(&[3]), with_room(u64::MAX));
        let mut questions = Questions::default();
        let mut asked = Vec::new();
        for millis in 0..900 {
            if !questions.wanted(&log, &writes, OpNumber::ZERO, at(millis)).is_empty() {
                asked.push(millis);
            }
        }
        assert_eq!(asked, [0, 100, 200, 400, 600], "two members, one after the other, then each later");
        questions.note_no_room(OpNumber(3));
        assert!(questions.is_asked(OpNumber(3), at(699)) && !questions.is_asked(OpNumber(3), at(700)));
        questions.note_found(OpNumber(3));
        assert!(!questions.is_asked(OpNumber(3), at(699)));
        questions.note_asked(OpNumber(3), at(700).now);
        questions.forget_old(at(700 + 3199));
        assert!(questions.asked.contains_key(&OpNumber(3)), "how often is remembered for longer than any time-out");
        questions.forget_old(at(700 + 3200));
        assert!(questions.asked.is_empty());
    }

    /// Rule 6.7: others may need a copy that is applied here.
    #[test]
    fn what_was_found_damaged_is_wanted_until_it_is_here_again() {
        let (mut log, writes) = (log_without(&[2]), with_room(u64::MAX));
        let mut questions = Questions::default();
        questions.note_damaged(OpNumber(2));
        questions.note_damaged(OpNumber(9));
        assert_eq!(ops(&questions.wanted(&log, &writes, OpNumber(4), at(0))), [2]);
        assert!(questions.wanted(&log, &writes, OpNumber(4), at(50)).is_empty() && questions.has_damaged());
        assert_eq!(ops(&questions.wanted(&log, &writes, OpNumber(4), at(100))), [2]);
        log.slot_mut(OpNumber(2)).unwrap().body = Body::Stored;
        assert!(questions.wanted(&log, &writes, OpNumber(4), at(200)).is_empty() && !questions.has_damaged());
    }
}
