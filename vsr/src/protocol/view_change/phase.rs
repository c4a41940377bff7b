//! Where a replica stands between two views: one phase at a time, and which phase may follow which.
//!
//! A phase says what the replica waits for. A vote to leave a view is not a phase: it changes neither status nor view
//! (rule 7.1), and is cast in any of them.

use std::fmt;

use crate::protocol::types::number::BatchNumber;

/// Whether a replica takes part in normal operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It follows, or is, the primary of its view.
    Normal,
    /// It waits for a view to start.
    ViewChange,
}

/// Where the log comes from that a replica installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// The empty log of a disk on which nothing was ever done, at the primary of the first view.
    FreshDisk,
    /// The choice of the new primary from the `DoViewChange`s of a quorum.
    Chosen,
    /// The `StartView` of the view's primary.
    StartView,
}

/// Where a replica stands between two views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The disk was read. What it says of the views decides how the replica goes on. Over when the start is.
    Recovering {
        /// The status when the disk was written last.
        was: Status,
    },
    /// It follows, or is, the primary of its view.
    Normal,
    /// The view is being left: what was said as a member of it is taken back. Over within the same call.
    LeavingView,
    /// A view was entered. It is being written, with the headers of the `DoViewChange`, which waits for the write.
    WritingView {
        /// The write.
        write: BatchNumber,
    },
    /// The primary of a view that has not started: it waits until the `DoViewChange`s decide the log.
    CollectingDoViewChanges,
    /// Another member of a view that has not started: its `DoViewChange` has left, and it waits for the `StartView`.
    AwaitingStartView,
    /// The log of the view is being written, with view and log_view.
    Installing {
        /// The write.
        write: BatchNumber,
        /// Whose log it is.
        log: LogSource,
    },
    /// The primary of the first view, on a fresh disk: it leads when a quorum has said that it is as fresh (rule 7.17).
    AwaitingMembers,
    /// The primary of a view that has started: it waits for the bodies of the ops that it has inherited.
    RepairingPrimary,
}

impl Phase {
    /// Whether a replica in this phase takes part in normal operation.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Phase::Recovering { was } => was,
            Phase::Normal => Status::Normal,
            Phase::LeavingView
            | Phase::WritingView { .. }
            | Phase::CollectingDoViewChanges
            | Phase::AwaitingStartView
            | Phase::Installing { .. }
            | Phase::AwaitingMembers
            | Phase::RepairingPrimary => Status::ViewChange,
        }
    }

    /// Whether the log of the view is chosen, or received: durable or not.
    pub(crate) fn has_log(self) -> bool {
        let installed = matches!(self, Phase::Installing { .. } | Phase::AwaitingMembers | Phase::RepairingPrimary);
        installed || self.status() == Status::Normal
    }

    /// Whether the `DoViewChange` of the view was sent, and the log of the view is not known yet.
    pub(crate) fn awaits_log(self) -> bool {
        matches!(self, Phase::CollectingDoViewChanges | Phase::AwaitingStartView)
    }

    /// Whether the present view, or its log, is not durable yet.
    pub(crate) fn is_writing(self) -> bool {
        matches!(self, Phase::WritingView { .. } | Phase::Installing { .. })
    }

    /// Whether the first view is about to be led from a fresh disk.
    pub(crate) fn is_first_start(self) -> bool {
        matches!(self, Phase::Installing { log: LogSource::FreshDisk, .. } | Phase::AwaitingMembers)
    }

    /// The next phase, if it may follow this one.
    ///
    /// # Errors
    /// It may not: a defect of the caller, who must not go on.
    pub(crate) fn step(self, next: Phase) -> Result<Phase, IllegalTransition> {
        if self.leads_to(next) { Ok(next) } else { Err(IllegalTransition { from: self, to: next }) }
    }

    /// Each phase, with those that lead to it.
    fn leads_to(self, next: Phase) -> bool {
        match next {
            Phase::Recovering { .. } => false,
            // A replica that starts in a view change repeats the `DoViewChange` of that view, before it leaves it.
            Phase::LeavingView => !matches!(self, Phase::LeavingView | Phase::Recovering { was: Status::ViewChange }),
            Phase::WritingView { .. } => matches!(self, Phase::LeavingView),
            Phase::CollectingDoViewChanges | Phase::AwaitingStartView => {
                matches!(self, Phase::WritingView { .. } | Phase::Recovering { was: Status::ViewChange })
            }
            Phase::Installing { log: LogSource::FreshDisk, .. } => {
                matches!(self, Phase::Recovering { was: Status::Normal })
            }
            // The others may be a quorum before this replica's own `DoViewChange` is durable.
            Phase::Installing { log: LogSource::Chosen, .. } => {
                matches!(self, Phase::WritingView { .. } | Phase::CollectingDoViewChanges)
            }
            Phase::Installing { log: LogSource::StartView, .. } => matches!(self, Phase::LeavingView),
            Phase::AwaitingMembers => matches!(self, Phase::Installing { log: LogSource::FreshDisk, .. }),
            Phase::RepairingPrimary => match self {
                Phase::Installing { log, .. } => log != LogSource::StartView,
                _ => self == Phase::AwaitingMembers,
            },
            Phase::Normal => match self {
                Phase::Installing { log, .. } => log == LogSource::StartView,
                Phase::Recovering { was } => was == Status::Normal,
                _ => self == Phase::RepairingPrimary,
            },
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Phase::Recovering { was: Status::Normal } => f.write_str("recovering in its view"),
            Phase::Recovering { was: Status::ViewChange } => f.write_str("recovering in a view change"),
            Phase::Normal => f.write_str("normal operation"),
            Phase::LeavingView => f.write_str("leaving a view"),
            Phase::WritingView { write } => write!(f, "writing the view in {write}"),
            Phase::CollectingDoViewChanges => f.write_str("collecting DoViewChanges"),
            Phase::AwaitingStartView => f.write_str("waiting for the StartView"),
            Phase::Installing { write, log } => {
                let log = match log {
                    LogSource::FreshDisk => "the empty log",
                    LogSource::Chosen => "the chosen log",
                    LogSource::StartView => "the log of the StartView",
                };
                write!(f, "writing {log} in {write}")
            }
            Phase::AwaitingMembers => f.write_str("waiting until the other members are known to be as fresh"),
            Phase::RepairingPrimary => f.write_str("waiting for inherited ops as the primary"),
        }
    }
}

/// A phase was to follow one that does not lead to it: a defect of this library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the phase \"{to}\" cannot follow the phase \"{from}\": a defect of this library")]
pub struct IllegalTransition {
    /// The phase before.
    pub from: Phase,
    /// The phase that was to follow.
    pub to: Phase,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::core::Core;
    use crate::protocol::documented::{any_core, any_state, start};
    use crate::protocol::health::halt::Halt;
    use crate::protocol::types::checkpoint::Past;
    use crate::protocol::types::event::ViewChangeReason;
    use crate::protocol::types::life::Life;
    use crate::protocol::types::message::{DoViewChange, StartView};
    use crate::protocol::types::number::{CommitNumber, NEVER, OpNumber, ReplicaId, View};

    const RECOVERING_IN_VIEW: Phase = Phase::Recovering { was: Status::Normal };
    const RECOVERING_IN_VIEW_CHANGE: Phase = Phase::Recovering { was: Status::ViewChange };
    const WRITING_VIEW: Phase = Phase::WritingView { write: BatchNumber(3) };
    const INSTALLING_FRESH: Phase = Phase::Installing { write: BatchNumber(3), log: LogSource::FreshDisk };
    const INSTALLING_CHOSEN: Phase = Phase::Installing { write: BatchNumber(3), log: LogSource::Chosen };
    const INSTALLING_RECEIVED: Phase = Phase::Installing { write: BatchNumber(3), log: LogSource::StartView };

    /// Every phase, its status, and those that may follow it.
    const STEPS: [(Phase, Status, &[Phase]); 12] = [
        (RECOVERING_IN_VIEW, Status::Normal, &[Phase::Normal, Phase::LeavingView, INSTALLING_FRESH]),
        (RECOVERING_IN_VIEW_CHANGE, Status::ViewChange, &[Phase::CollectingDoViewChanges, Phase::AwaitingStartView]),
        (Phase::Normal, Status::Normal, &[Phase::LeavingView]),
        (Phase::LeavingView, Status::ViewChange, &[WRITING_VIEW, INSTALLING_RECEIVED]),
        (
            WRITING_VIEW,
            Status::ViewChange,
            &[Phase::LeavingView, Phase::CollectingDoViewChanges, Phase::AwaitingStartView, INSTALLING_CHOSEN],
        ),
        (Phase::CollectingDoViewChanges, Status::ViewChange, &[Phase::LeavingView, INSTALLING_CHOSEN]),
        (Phase::AwaitingStartView, Status::ViewChange, &[Phase::LeavingView]),
        (INSTALLING_FRESH, Status::ViewChange, &[Phase::LeavingView, Phase::AwaitingMembers, Phase::RepairingPrimary]),
        (INSTALLING_CHOSEN, Status::ViewChange, &[Phase::LeavingView, Phase::RepairingPrimary]),
        (INSTALLING_RECEIVED, Status::ViewChange, &[Phase::LeavingView, Phase::Normal]),
        (Phase::AwaitingMembers, Status::ViewChange, &[Phase::LeavingView, Phase::RepairingPrimary]),
        (Phase::RepairingPrimary, Status::ViewChange, &[Phase::LeavingView, Phase::Normal]),
    ];

    #[test]
    fn every_legal_step_is_made_and_every_other_one_is_refused() {
        for (from, status, followers) in STEPS {
            assert_eq!(from.status(), status, "{from}");
            for (to, ..) in STEPS {
                let legal = followers.contains(&to);
                let expected = if legal { Ok(to) } else { Err(IllegalTransition { from, to }) };
                assert_eq!(from.step(to), expected, "{from} to {to}");
            }
        }
    }

    #[test]
    fn an_illegal_step_stops_the_replica_and_names_both_phases() {
        let mut core = any_core();
        assert!(!core.enter_phase(Phase::RepairingPrimary));
        assert_eq!(core.phase(), Phase::Normal);
        let (from, to) = (Phase::Normal, Phase::RepairingPrimary);
        let halt = Halt::from(IllegalTransition { from, to });
        assert_eq!(core.halted(), Some(&halt));
        let text = halt.to_string();
        assert!(text.contains(&from.to_string()) && text.contains(&to.to_string()), "{text}");
        assert_eq!(core.next_deadline(), NEVER);
    }

    fn view(number: u64) -> View {
        View { number, ..View::default() }
    }

    /// Completes the write of everything that is staged.
    fn write(core: &mut Core) {
        let (batch, _) = core.writes.take(core.now).expect("something to write");
        core.on_written(batch);
    }

    #[test]
    fn a_start_goes_on_where_the_vsr_state_says() {
        let phase = |replica: u8, number: u64, starts: u64| {
            let mut state = any_state();
            (state.replica, state.view, state.starts) = (ReplicaId(replica), view(number), starts);
            start(state).phase()
        };
        let first = BatchNumber(1);
        assert_eq!(phase(1, 0, 0), Phase::Normal);
        assert_eq!(phase(1, 1, 0), Phase::CollectingDoViewChanges);
        assert_eq!(phase(1, 2, 0), Phase::AwaitingStartView);
        assert_eq!(phase(0, 0, 0), Phase::Installing { write: first, log: LogSource::FreshDisk });
        assert_eq!(phase(0, 0, 1), Phase::WritingView { write: first });
        let mut state = any_state();
        state.replica = ReplicaId(0);
        let mut core = start(state);
        write(&mut core);
        assert_eq!(core.phase(), Phase::AwaitingMembers);
    }

    /// Replica 1 of three leads view 1, and follows in view 2.
    #[test]
    fn a_view_change_goes_through_its_phases() {
        let mut core = any_core();
        write(&mut core);
        core.vote(ViewChangeReason::Silence);
        assert_eq!(core.phase(), Phase::Normal, "a vote is no phase");
        core.on_start_view_change(2, view(0));
        assert_eq!(core.phase(), Phase::WritingView { write: BatchNumber(2) });
        write(&mut core);
        assert_eq!(core.phase(), Phase::CollectingDoViewChanges);
        core.on_do_view_change(
            2,
            DoViewChange {
                view: view(1),
                log_view: view(0),
                commit: CommitNumber(0),
                head: OpNumber::ZERO,
                head_certain: true,
                headers: Vec::new(),
                evidence: Vec::new(),
                past: crate::protocol::types::checkpoint::Past::default(),
                life: Life::default(),
                known: Vec::new(),
            },
        );
        assert_eq!(core.phase(), Phase::Installing { write: BatchNumber(3), log: LogSource::Chosen });
        write(&mut core);
        assert!(core.phase() == Phase::Normal && core.is_primary(), "nothing is inherited, so nothing is repaired");
        core.on_start_view_change(2, view(2));
        assert_eq!(core.phase(), Phase::WritingView { write: BatchNumber(4) });
        write(&mut core);
        assert_eq!(core.phase(), Phase::AwaitingStartView);
        let (commit, head, nonce) = (CommitNumber(0), OpNumber::ZERO, 0);
        let (headers, past) = (Vec::new(), Past::default());
        core.on_start_view(ReplicaId(2), StartView { view: view(2), commit, head, headers, nonce, past });
        assert_eq!(core.phase(), Phase::Installing { write: BatchNumber(5), log: LogSource::StartView });
        write(&mut core);
        assert!(core.phase() == Phase::Normal && !core.is_primary());
        assert_eq!(core.halted(), None);
    }
}
