//! The choice of the log of a new view (rule 7.4): a function of the `DoViewChange`s that have arrived and of what
//! this replica holds. It sends nothing and changes nothing; `decide` does what it says.
//!
//! # Why no committed op is dropped
//!
//! Let op c be committed in view w: each member of a replication quorum R acknowledged it in w, and with it every op
//! below. The view whose log is chosen is a later one. The claim is proven view by view: assume it for those between.
//!
//! 1. *No member of R denies c.* A `DoViewChange` is a durable promise, after which its sender acknowledges nothing in
//!    an older view. So when a member of R makes its promise, it has acknowledged c; its log_view is w, or a later
//!    view whose log was chosen with c; and c is durable in its log, unless damage has taken it. What is durable or
//!    damaged is not a nack, nor is what may have been above an uncertain head. A log_view
//!    that denies c by itself is lower than the view that prepared c, so lower than w: no member of R has it (rule 7.14).
//! 2. *The newest logs hold c.* The view-change quorum meets R (rule 7.8), so the highest log_view is w or later. If it
//!    is later, its log was chosen with c, and each log of it holds c. If it is w, then a member of R is among the
//!    newest logs, and its log reaches c unless its end was lost. All logs of one log_view are parts of one log, as one
//!    primary made it: their union is what is chosen from.
//! 3. *No nack quorum denies c, or an op below it.* By 1 the members that deny c are not in R: they are n - R at most,
//!    which is less than a nack quorum (rule 7.8). An op below c is committed as well.
//! 4. *The chosen log does not end below c.* It ends below an op that a nack quorum denies, which by 3 is above c, or
//!    at the highest head of the newest logs. By 2 that is below c only if one of them has lost its end; then the
//!    choice waits until so many ends are certain that c cannot be committed (`certain_ends_suffice`).
//! 5. *The content is c's.* By 2 the union has c's header, or a blank there that damage has made. A blank is named by
//!    the hash chain from above, or is waited for.
//!
//! An op that is not committed stays if a copy is found, and goes if a nack quorum denies it: until either is so, the
//! choice waits for more.

use std::collections::BTreeMap;

use crate::protocol::log::log::Log;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::{Entry, Header};
use crate::protocol::types::message::{DoViewChange, SlotEvidence};
use crate::protocol::types::number::{CommitNumber, OpNumber, View};
use crate::protocol::types::quorum::Quorums;

/// What the `DoViewChange`s decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Fewer `DoViewChange`s than a view-change quorum are here.
    NoQuorum,
    /// Two logs of the highest log_view differ in this op: agreement is broken.
    Contradiction { log_view: View, op: OpNumber },
    /// The newest logs end before the highest commit number: one that reaches it has to arrive.
    EndsBeforeCommit,
    /// This op has neither a copy nor a nack quorum.
    Undecided { op: OpNumber, missing: Missing, all_answered: bool },
    /// One of the newest logs has lost its end, which may have held one op more that is committed (rule 7.6).
    EndUncertain,
    /// The last op of the log is a blank whose header is not known. `truncated`: ops above it were dropped.
    HeadUnnamed { head: OpNumber, missing: Missing, truncated: bool },
    /// The log: its head, every known header up to the head, and what is committed of it. `truncated`: a nack quorum
    /// has dropped the ops above the head.
    Log { head: OpNumber, headers: Vec<Header>, commit: CommitNumber, truncated: bool },
}

/// What would decide an op, if a member supplied it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The entry whose header has this checksum.
    Entry(Checksum),
    /// The headers from this one downwards: the lowest known header above names it as its parent.
    Headers { op: OpNumber, checksum: Checksum },
    /// Nothing can be asked for: no header above the op is known.
    Unnamed,
}

/// What the replica that chooses holds itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    pub(crate) log: &'a Log,
    /// Entries that have arrived while the log was being chosen.
    pub(crate) copies: &'a BTreeMap<(OpNumber, Checksum), Entry>,
    /// Headers that have arrived by repair.
    pub(crate) found: &'a BTreeMap<(OpNumber, Checksum), Header>,
}

/// Chooses the log of a view. `dvcs` has one place for each member, in any order. The order of the places does not
/// change the choice, except for which op of several a [`Choice::Contradiction`] names.
pub(crate) fn choose(dvcs: &[Option<DoViewChange>], quorums: &Quorums, own: Own<'_>) -> Choice {
    Evidence { dvcs, quorums, own }.choose()
}

/// The first op that has neither a copy nor a nack quorum, for people.
pub(crate) fn undecided(dvcs: &[Option<DoViewChange>], quorums: &Quorums, own: Own<'_>) -> Option<OpNumber> {
    Evidence { dvcs, quorums, own }.undecided()
}

/// Two logs of the highest log_view differ.
struct Contradiction {
    log_view: View,
    op: OpNumber,
}

/// What the `DoViewChange`s of a quorum say.
struct Candidates {
    log_view: View,
    commit: CommitNumber,
    head: OpNumber,
    /// The headers of every log of the highest log_view, together.
    headers: BTreeMap<OpNumber, Header>,
    /// Whether a log of the highest log_view may have had more at its end that is committed.
    head_uncertain: bool,
}

impl Candidates {
    /// The entry; or, for a blank, the headers down from the lowest known one above.
    fn missing(&self, op: OpNumber) -> Missing {
        if let Some(header) = self.headers.get(&op) {
            return Missing::Entry(header.checksum());
        }
        let above = self.headers.range(op.next()..).next();
        above.map_or(Missing::Unnamed, |(at, above)| Missing::Headers { op: at.prev(), checksum: above.parent })
    }
}

/// What is to be done about one op.
enum Verdict {
    Keep,
    Drop,
    /// Neither a copy nor a nack quorum yet.
    Wait,
}

/// What a choice is made from.
struct Evidence<'a> {
    dvcs: &'a [Option<DoViewChange>],
    quorums: &'a Quorums,
    own: Own<'a>,
}

impl Evidence<'_> {
    fn dvcs(&self) -> impl Iterator<Item = &DoViewChange> {
        self.dvcs.iter().flatten()
    }

    /// Goes upwards from the commit number: an op stays that has a copy, the first one with a nack quorum and all
    /// above it go.
    fn choose(&self) -> Choice {
        let quorum = usize::from(self.quorums.view_change);
        if self.dvcs().count() < quorum {
            return Choice::NoQuorum;
        }
        let mut candidates = match self.candidates() {
            Ok(candidates) => candidates,
            Err(Contradiction { log_view, op }) => return Choice::Contradiction { log_view, op },
        };
        if candidates.head < candidates.commit.op() {
            return Choice::EndsBeforeCommit;
        }
        self.name_blanks(&mut candidates);
        let (mut head, mut truncated) = (candidates.head, false);
        let mut op = candidates.commit.op().next();
        while op <= head {
            match self.judge(op, candidates.headers.get(&op), candidates.log_view) {
                Verdict::Keep => op = op.next(),
                Verdict::Drop => (head, truncated) = (op.prev(), true),
                Verdict::Wait => {
                    let all_answered = self.dvcs.iter().all(Option::is_some);
                    return Choice::Undecided { op, missing: candidates.missing(op), all_answered };
                }
            }
        }
        // A log whose end is uncertain may have had one op more (rule 7.6).
        if candidates.head_uncertain && !truncated {
            return Choice::EndUncertain;
        }
        if head > OpNumber::ZERO && !candidates.headers.contains_key(&head) {
            return Choice::HeadUnnamed { head, missing: candidates.missing(head), truncated };
        }
        let headers = candidates.headers.into_values().filter(|header| header.op <= head).collect();
        Choice::Log { head, headers, commit: candidates.commit, truncated }
    }

    /// The union of the logs of the highest log_view.
    fn candidates(&self) -> Result<Candidates, Contradiction> {
        let dvcs = || self.dvcs();
        let log_view = dvcs().map(|dvc| dvc.log_view).max().unwrap_or_default();
        let commit = dvcs().map(|dvc| dvc.commit).max().unwrap_or_default();
        let mut headers: BTreeMap<OpNumber, Header> = BTreeMap::new();
        let (mut head, mut head_uncertain) = (OpNumber::ZERO, false);
        for dvc in dvcs().filter(|dvc| dvc.log_view == log_view) {
            head = head.max(dvc.head);
            head_uncertain |= !dvc.head_certain;
            for header in &dvc.headers {
                let known = headers.insert(header.op, *header);
                if known.is_some_and(|known| known.checksum() != header.checksum()) {
                    return Err(Contradiction { log_view, op: header.op });
                }
            }
        }
        // What is committed is in the log, whichever member says so: those of the highest log_view may have lost its header, and
        // with a blank above it no member would name the head of the log.
        let at_commit = dvcs().filter(|dvc| dvc.commit == commit).find_map(|dvc| self::header(dvc, commit.op()));
        if let Some(header) = at_commit {
            headers.entry(header.op).or_insert(*header);
        }
        head_uncertain &= !self.certain_ends_suffice();
        Ok(Candidates { log_view, commit, head, headers, head_uncertain })
    }

    /// Whether the members whose logs have a certain end rule out that an op above the chosen head is committed.
    ///
    /// Such an op was prepared in the highest log_view: what that view inherited is in every log of it. A member with a certain
    /// end did not acknowledge the op: its log is of that log_view and ends below the op, or its log is of a lower log_view,
    /// whatever its length. A nack quorum of these members excludes a replication quorum. A view-change quorum of them does so,
    /// too, as each replication quorum meets it; with this rule, a `DoViewChange` with an uncertain end does not stop a view
    /// that the others start without it (rule 7.6).
    fn certain_ends_suffice(&self) -> bool {
        let certain = self.dvcs().filter(|dvc| dvc.head_certain).count();
        certain >= usize::from(self.quorums.nack.min(self.quorums.view_change))
    }

    /// A blank is named by the slot above it; a header found by repair under that name fills it.
    fn name_blanks(&self, candidates: &mut Candidates) {
        let mut op = candidates.head;
        while op > candidates.commit.op() {
            let below = op.prev();
            if let Some(header) = candidates.headers.get(&op)
                && !candidates.headers.contains_key(&below)
            {
                let name = header.parent;
                let own = self.own.log.header(below).filter(|own| own.checksum() == name).copied();
                let found = own.or_else(|| self.own.found.get(&(below, name)).copied());
                let lower = || {
                    let headers = self.dvcs().flat_map(|dvc| &dvc.headers);
                    headers.copied().find(|header| header.op == below && header.checksum() == name)
                };
                if let Some(found) = found.or_else(lower) {
                    candidates.headers.insert(below, found);
                }
            }
            op = below;
        }
    }

    fn undecided(&self) -> Option<OpNumber> {
        let mut candidates = self.candidates().ok()?;
        self.name_blanks(&mut candidates);
        let mut op = candidates.commit.op().next();
        while op <= candidates.head {
            if let Verdict::Wait = self.judge(op, candidates.headers.get(&op), candidates.log_view) {
                return Some(op);
            }
            op = op.next();
        }
        None
    }

    fn judge(&self, op: OpNumber, named: Option<&Header>, log_view: View) -> Verdict {
        if named.is_some_and(|named| self.has_copy(op, named.checksum())) {
            Verdict::Keep
        } else if self.nacks(op, named, log_view) >= self.nack_quorum() {
            Verdict::Drop
        } else {
            Verdict::Wait
        }
    }

    fn nack_quorum(&self) -> usize {
        usize::from(self.quorums.nack)
    }

    /// Whether a member holds the entry: this replica, one that says so, or one that has sent it.
    fn has_copy(&self, op: OpNumber, checksum: Checksum) -> bool {
        let own = self.own.log.slot(op).filter(|slot| slot.is_present()).and_then(|slot| slot.header);
        own.is_some_and(|own| own.checksum() == checksum)
            || self.own.copies.contains_key(&(op, checksum))
            || self.dvcs().any(|dvc| {
                evidence(dvc, op).is_some_and(|evidence| evidence.present)
                    && header(dvc, op).is_some_and(|header| header.checksum() == checksum)
            })
    }

    /// How many members certainly never acknowledged the op. With no header: any op in this slot.
    ///
    /// A member acknowledges in the view that it has installed, so one whose log_view is lower than the view that prepared the
    /// op did not, whatever its disk has lost. A replica that installed log_view took over a complete chain of headers: a
    /// blank in its log was prepared in log_view itself (rule 7.14).
    fn nacks(&self, op: OpNumber, named: Option<&Header>, log_view: View) -> usize {
        let checksum = named.map(Header::checksum);
        let prepared_in = named.map_or(log_view, |named| named.view);
        self.dvcs().filter(|dvc| dvc.log_view < prepared_in || nacks(dvc, op, checksum, log_view)).count()
    }
}

fn header(dvc: &DoViewChange, op: OpNumber) -> Option<&Header> {
    dvc.headers.binary_search_by_key(&op, |header| header.op).ok().map(|at| &dvc.headers[at])
}

fn evidence(dvc: &DoViewChange, op: OpNumber) -> Option<SlotEvidence> {
    dvc.evidence.get(usize::try_from(op.0.checked_sub(dvc.commit.0 + 1)?).ok()?).copied()
}

/// Whether the sender's log shows that it never acknowledged (op, checksum) in a view that matters (rule 7.3).
/// Never for an op at or below its commit number, nor above an uncertain head.
fn nacks(dvc: &DoViewChange, op: OpNumber, checksum: Option<Checksum>, log_view: View) -> bool {
    if op <= dvc.commit.op() {
        return false;
    }
    if op > dvc.head {
        return dvc.head_certain;
    }
    let Some(evidence) = evidence(dvc, op) else { return false };
    match (header(dvc, op), checksum) {
        (Some(own), Some(checksum)) if own.checksum() != checksum => {
            // Another content: intact, or never durable, and of an older log.
            dvc.log_view < log_view && (evidence.present || evidence.nack)
        }
        _ => evidence.nack,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
