//! What a new primary does about the choice of the log (rule 7.4): installs it, or asks for what is missing. The
//! choice itself is in `choose`.

use super::choose::{Choice, Missing, Own, choose, undecided};
use crate::protocol::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::types::event::Event;
use crate::protocol::types::message::Message;
use crate::protocol::types::number::OpNumber;

impl Core {
    /// Chooses the log, if enough is known. Called whenever more is.
    pub(crate) fn try_decide(&mut self) {
        if self.phase.has_log() || self.primary_id() != self.id {
            return;
        }
        if !self.head_certain {
            // This replica never becomes the primary; the next one in turn may. The others vote, as this view does not start.
            return;
        }
        match choose(&self.view_change.dvcs, &self.membership.quorums, self.own()) {
            Choice::NoQuorum => {}
            Choice::Contradiction { log_view, op } => self.stop(Halt::ContradictoryLogs { log_view, op }),
            Choice::EndsBeforeCommit => self.mark("the logs at hand end before the commit number"),
            Choice::Undecided { op, missing, all_answered } => {
                if all_answered && !self.view_change.lost_told {
                    self.view_change.lost_told = true;
                    self.news.events.push(Event::Lost { op });
                }
                self.ask_everybody(op, missing);
            }
            Choice::EndUncertain => self.mark("waits: the end of a log is uncertain"),
            Choice::HeadUnnamed { head, missing, truncated } => {
                self.mark_truncation(truncated);
                self.ask_everybody(head, missing);
            }
            Choice::Log { head, mut headers, commit, truncated } => {
                self.mark_truncation(truncated);
                let begins_with = if self.transfer.fits(self.view) { self.transfer.reaches() } else { OpNumber::ZERO };
                if self.needs_transfer() && begins_with <= self.applied {
                    // It has a quorum, and lacks what the log of the view begins with: another member leads, if one can. Else the
                    // checkpoint comes first (rule 9.5).
                    return if self.another_is_whole() {
                        self.hand_on("a primary without the state hands on");
                    } else {
                        self.mark("a new primary waits for a checkpoint");
                    };
                }
                headers.retain(|header| header.op > self.applied);
                self.install(self.view, head, &headers, commit);
            }
        }
    }

    /// The first op of which neither a copy nor a nack quorum is known, for people.
    pub(crate) fn undecided(&self) -> Option<OpNumber> {
        undecided(&self.view_change.dvcs, &self.membership.quorums, self.own())
    }

    fn own(&self) -> Own<'_> {
        Own { log: &self.log, copies: &self.view_change.copies, found: &self.view_change.found }
    }

    fn mark_truncation(&mut self, truncated: bool) {
        if truncated {
            self.mark("truncated by a nack quorum");
        }
    }

    /// Asks every other member for what would decide the op.
    fn ask_everybody(&mut self, op: OpNumber, missing: Missing) {
        self.mark("a new primary waits for a copy or a nack quorum");
        let message = match missing {
            Missing::Entry(checksum) => Message::RequestEntries { wanted: vec![(op, checksum)] },
            Missing::Headers { op, checksum } => Message::RequestHeaders { op, checksum, count: 64 },
            Missing::Unnamed => return,
        };
        if self.repair_asked_recently(op) {
            return;
        }
        self.broadcast(&message);
    }
}
