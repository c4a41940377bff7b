//! How a new primary chooses the log of its view (rule 7.4).
//!
//! Safe because: an op that may be committed was acknowledged by a replication quorum, each of whose
//! members holds it in the log of its log_view; the quorum of `DoViewChange`s meets it, so the highest
//! log_view's logs contain it; and an op goes only when so many members never acknowledged it that no
//! replication quorum can have (a nack quorum).

use std::collections::BTreeMap;

use super::checksum::Checksum;
use super::core::{Core, Status};
use super::entry::Header;
use super::event::Event;
use super::fault::Fault;
use super::message::{DoViewChange, Message};
use super::number::{CommitNumber, OpNumber, View};

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

/// What is to be done about one op.
enum Verdict {
    Keep,
    Drop,
    /// Neither a copy nor a nack quorum yet.
    Wait,
}

impl Core {
    /// Chooses the log, if enough is known. Called whenever more is.
    pub(crate) fn try_decide(&mut self) {
        let quorum = usize::from(self.membership.quorums.view_change);
        let waits = self.status == Status::ViewChange && self.primary_id() == self.id && !self.view_change.installed;
        if !waits || self.view_change.dvcs.iter().flatten().count() < quorum {
            return;
        }
        if !self.head_certain {
            // Never a primary: whoever is next may be. The others vote as this view does not start.
            return;
        }
        let mut candidates = match self.candidates() {
            Ok(candidates) => candidates,
            Err(fault) => return self.stop(fault),
        };
        if candidates.head < candidates.commit.op() {
            return self.mark("the logs at hand end before the commit number");
        }
        let Some(head) = self.choose_head(&mut candidates) else { return };
        if head > OpNumber::ZERO && !candidates.headers.contains_key(&head) {
            let above = candidates.headers.range(head.next()..).next().map(|(_, above)| *above);
            return self.ask_everybody(head, None, above);
        }
        let headers: Vec<Header> =
            candidates.headers.into_values().filter(|header| header.op <= head && header.op > self.applied).collect();
        self.install(self.view, head, &headers, candidates.commit);
    }

    fn candidates(&self) -> Result<Candidates, Fault> {
        let dvcs = || self.view_change.dvcs.iter().flatten();
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
                    return Err(Fault::ContradictoryLogs { log_view, op: header.op });
                }
            }
        }
        // What is committed stands in the log, whoever says so: those of the highest log_view may have lost its header, and
        // with a blank above it nobody would name the head of the log.
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
        let certain = self.view_change.dvcs.iter().flatten().filter(|dvc| dvc.head_certain).count();
        let quorums = &self.membership.quorums;
        certain >= usize::from(quorums.nack.min(quorums.view_change))
    }

    /// Names every slot after the commit number, and goes upwards: an op stays that has a copy, the
    /// first one with a nack quorum and all above it go. `None` while something is not known yet.
    fn choose_head(&mut self, candidates: &mut Candidates) -> Option<OpNumber> {
        self.name_blanks(candidates);
        let mut op = candidates.commit.op().next();
        while op <= candidates.head {
            let header = candidates.headers.get(&op).copied();
            match self.judge(op, header.map(|header| header.checksum()), candidates.log_view) {
                Verdict::Keep => op = op.next(),
                Verdict::Drop => {
                    self.mark("truncated by a nack quorum");
                    return Some(op.prev());
                }
                Verdict::Wait => {
                    if self.view_change.dvcs.iter().all(Option::is_some) && !self.view_change.lost_told {
                        self.view_change.lost_told = true;
                        self.events.push(Event::Lost { op });
                    }
                    let above = candidates.headers.range(op.next()..).next().map(|(_, above)| *above);
                    self.ask_everybody(op, header, above);
                    return None;
                }
            }
        }
        // A log whose end is uncertain may have had one op more (rule 7.6).
        if candidates.head_uncertain {
            self.mark("waits: the end of a log is uncertain");
            return None;
        }
        Some(candidates.head)
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
                let own = self.log.header(below).filter(|own| own.checksum() == name).copied();
                let found = own.or_else(|| self.view_change.found.get(&(below, name)).copied());
                let lower = || {
                    let headers = self.view_change.dvcs.iter().flatten().flat_map(|dvc| &dvc.headers);
                    headers.copied().find(|header| header.op == below && header.checksum() == name)
                };
                if let Some(found) = found.or_else(lower) {
                    candidates.headers.insert(below, found);
                }
            }
            op = below;
        }
    }

    /// The first op of which neither a copy nor a nack quorum is known, for people.
    pub(crate) fn undecided(&self) -> Option<OpNumber> {
        let mut candidates = self.candidates().ok()?;
        self.name_blanks(&mut candidates);
        let mut op = candidates.commit.op().next();
        while op <= candidates.head {
            let checksum = candidates.headers.get(&op).map(Header::checksum);
            if let Verdict::Wait = self.judge(op, checksum, candidates.log_view) {
                return Some(op);
            }
            op = op.next();
        }
        None
    }

    fn judge(&self, op: OpNumber, checksum: Option<Checksum>, log_view: View) -> Verdict {
        if checksum.is_some_and(|checksum| self.has_copy(op, checksum)) {
            Verdict::Keep
        } else if self.nacks(op, checksum, log_view).max(self.nacks_of_blank(op, checksum, log_view))
            >= self.nack_quorum()
        {
            Verdict::Drop
        } else {
            Verdict::Wait
        }
    }

    fn nack_quorum(&self) -> usize {
        usize::from(self.membership.quorums.nack)
    }

    /// Whether somebody holds the entry: this replica, one that says so, or one that has sent it.
    fn has_copy(&self, op: OpNumber, checksum: Checksum) -> bool {
        let own = self
            .log
            .slot(op)
            .is_some_and(|slot| slot.is_present() && slot.header.is_some_and(|header| header.checksum() == checksum));
        own || self.view_change.copies.contains_key(&(op, checksum))
            || self.view_change.dvcs.iter().flatten().any(|dvc| {
                fact(dvc, op).is_some_and(|fact| fact.present)
                    && header(dvc, op).is_some_and(|header| header.checksum() == checksum)
            })
    }

    /// How many members certainly never acknowledged the op. With no checksum: any op in this slot.
    fn nacks(&self, op: OpNumber, checksum: Option<Checksum>, log_view: View) -> usize {
        self.view_change.dvcs.iter().flatten().filter(|dvc| nacks(dvc, op, checksum, log_view)).count()
    }

    /// For an op of which not even the name is known. Whoever installed log_view took over a complete chain of headers, so a blank in
    /// its log was prepared in log_view itself: a log of a lower log_view that holds anything else there never acknowledged it (rule 7.14).
    fn nacks_of_blank(&self, op: OpNumber, checksum: Option<Checksum>, log_view: View) -> usize {
        let other = |dvc: &DoViewChange| {
            let holds_another = dvc.log_view < log_view && op > dvc.commit.op() && header(dvc, op).is_some();
            holds_another && fact(dvc, op).is_some_and(|fact| fact.present || fact.nack)
        };
        let dvcs = self.view_change.dvcs.iter().flatten();
        dvcs.filter(|dvc| checksum.is_none() && (nacks(dvc, op, None, log_view) || other(dvc))).count()
    }

    /// The entry that is missing; or, for a blank, the headers down from the lowest known one above.
    fn ask_everybody(&mut self, op: OpNumber, header: Option<Header>, above: Option<Header>) {
        self.mark("a new primary waits for a copy or a nack quorum");
        let message = match (header, above) {
            (Some(header), _) => Message::RequestEntries { wanted: vec![(op, header.checksum())] },
            (None, Some(above)) => Message::RequestHeaders { op: above.op.prev(), checksum: above.parent, count: 64 },
            (None, None) => return,
        };
        if self.repair_asked_recently(op) {
            return;
        }
        self.broadcast(&message);
    }
}

fn header(dvc: &DoViewChange, op: OpNumber) -> Option<&Header> {
    dvc.headers.binary_search_by_key(&op, |header| header.op).ok().map(|at| &dvc.headers[at])
}

fn fact(dvc: &DoViewChange, op: OpNumber) -> Option<super::message::Fact> {
    dvc.facts.get(usize::try_from(op.0.checked_sub(dvc.commit.0 + 1)?).ok()?).copied()
}

/// Whether the sender certainly never acknowledged (op, checksum) in a view that matters (rule 7.3).
/// Never for an op at or below its commit number, nor above an uncertain head.
fn nacks(dvc: &DoViewChange, op: OpNumber, checksum: Option<Checksum>, log_view: View) -> bool {
    if op <= dvc.commit.op() {
        return false;
    }
    if op > dvc.head {
        return dvc.head_certain;
    }
    let Some(fact) = fact(dvc, op) else { return false };
    match (header(dvc, op), checksum) {
        (Some(own), Some(checksum)) if own.checksum() != checksum => {
            // Another content: intact, or never durable, and of an older log.
            dvc.log_view < log_view && (fact.present || fact.nack)
        }
        _ => fact.nack,
    }
}
