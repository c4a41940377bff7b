//! What must hold of a replica's numbers at the end of every turn, whatever has arrived. A broken invariant is a defect of
//! this library, or of what drives it: the replica stops and says the numbers, before it spreads what is wrong (rule
//! 12.2). Each check is a comparison or two.

use std::fmt;

use crate::protocol::types::number::{BatchNumber, CommitNumber, OpNumber, View};

/// An invariant that does not hold, with the numbers that say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenInvariant {
    /// A write completed that is not under way.
    #[error("batch {completed} completed, and {flight} is in flight", flight = named(*in_flight))]
    UnknownWrite {
        /// The batch that is said to be durable.
        completed: BatchNumber,
        /// The batch that is being written.
        in_flight: Option<BatchNumber>,
    },
    /// A view is left for a later one only.
    #[error("view {entered} was to be entered from view {view}")]
    ViewNotRaised {
        /// The present view.
        view: View,
        /// The view that was to be entered.
        entered: View,
    },
    /// Only what is committed, and in the log, is applied.
    #[error("op {applied} is applied, the commit number is {commit}, and the log ends at op {head}")]
    AppliedAhead {
        /// The last applied op.
        applied: OpNumber,
        /// The commit number.
        commit: CommitNumber,
        /// The last op of the log.
        head: OpNumber,
    },
    /// Only what is applied, or what a checkpoint has to be fetched for, is dropped from the log.
    #[error("op {base} is dropped from the log, and op {applied} is the last that is applied")]
    DroppedUnapplied {
        /// The last op that was dropped.
        base: OpNumber,
        /// The last applied op.
        applied: OpNumber,
    },
    /// The log is never that of a later view; in normal operation it is that of the view.
    #[error("the log is that of view {log_view}, in view {view}, normal operation: {is_normal}")]
    LogViewMismatch {
        /// The present view.
        view: View,
        /// The view whose log the replica holds.
        log_view: View,
        /// Whether the replica is in normal operation.
        is_normal: bool,
    },
    /// In normal operation nothing is durable above the end of the log.
    #[error("the log is durable up to op {durable}, and ends at op {head}")]
    DurableAheadOfLog {
        /// The last op up to which everything is durable, or committed.
        durable: OpNumber,
        /// The last op of the log.
        head: OpNumber,
    },
    /// A primary has every op that it knows to be committed, and knows where its log ends.
    #[error(
        "the primary of view {view} has the commit number {commit}, and its log ends at op {head}, certainly: \
         {head_certain}"
    )]
    PrimaryWithoutLog {
        /// The present view.
        view: View,
        /// The commit number.
        commit: CommitNumber,
        /// The last op of the log.
        head: OpNumber,
        /// Whether nothing above that can have been lost.
        head_certain: bool,
    },
    /// The record that is written to the disk is not ahead of the replica.
    #[error("the record says {record}, and the replica is at {replica}")]
    RecordAhead {
        /// The numbers of the record that was staged last.
        record: Promises,
        /// The numbers of the replica.
        replica: Promises,
    },
    /// What only rises in the life of a replica.
    #[error("the replica went back from {from}, applied {applied_before}, to {to}, applied {applied}")]
    WentBack {
        /// The numbers at the end of the turn before.
        from: Promises,
        /// The numbers at the end of this turn.
        to: Promises,
        /// The last applied op at the end of the turn before.
        applied_before: OpNumber,
        /// The last applied op now.
        applied: OpNumber,
    },
    /// One batch is in flight at a time, and nothing waits for one that will not come.
    #[error(
        "batch {completed} of {issued} is durable, {flight} is in flight, and batch {awaited} is waited for",
        flight = named(*in_flight)
    )]
    WritesOutOfStep {
        /// The last batch that was handed out.
        issued: BatchNumber,
        /// The last durable batch.
        completed: BatchNumber,
        /// The batch that is being written.
        in_flight: Option<BatchNumber>,
        /// The last batch that view and log_view wait for.
        awaited: BatchNumber,
    },
}

fn named(batch: Option<BatchNumber>) -> String {
    batch.map_or_else(|| "none".to_owned(), |batch| batch.to_string())
}

/// What a replica has promised: none of these ever goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Promises {
    /// The view that the replica is in.
    pub view: View,
    /// The last view whose log it holds as its own.
    pub log_view: View,
    /// The commit number.
    pub commit: CommitNumber,
}

impl Promises {
    /// Whether these are the other ones, or ahead of them, in each number.
    fn include(&self, other: &Promises) -> bool {
        self.view >= other.view && self.log_view >= other.log_view && self.commit >= other.commit
    }
}

impl fmt::Display for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "view {}, log_view {}, commit {}", self.view, self.log_view, self.commit)
    }
}

/// The numbers of a replica at the end of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) promises: Promises,
    /// Those of the record that was staged last.
    pub(crate) record: Promises,
    pub(crate) is_normal: bool,
    pub(crate) is_primary: bool,
    pub(crate) head_certain: bool,
    pub(crate) applied: OpNumber,
    pub(crate) durable: OpNumber,
    pub(crate) head: OpNumber,
    /// The last op that was dropped from the log.
    pub(crate) base: OpNumber,
    pub(crate) issued: BatchNumber,
    pub(crate) completed: BatchNumber,
    pub(crate) in_flight: Option<BatchNumber>,
    /// The last batch that view and log_view wait for.
    pub(crate) awaited: BatchNumber,
}

impl Numbers {
    /// # Errors
    /// The first invariant that does not hold. `before` are the numbers at the end of the last turn.
    pub(crate) fn check(&self, before: &Numbers) -> Result<(), BrokenInvariant> {
        let Numbers { promises: to, record, applied, durable, head, .. } = *self;
        let Promises { view, log_view, commit } = to;
        if !applied.is_committed(commit) || applied > head {
            return Err(BrokenInvariant::AppliedAhead { applied, commit, head });
        }
        if self.base > applied {
            return Err(BrokenInvariant::DroppedUnapplied { base: self.base, applied });
        }
        let is_normal = self.is_normal;
        if log_view > view || (is_normal && log_view != view) {
            return Err(BrokenInvariant::LogViewMismatch { view, log_view, is_normal });
        }
        if is_normal && durable > head {
            return Err(BrokenInvariant::DurableAheadOfLog { durable, head });
        }
        let head_certain = self.head_certain;
        if self.is_primary && (commit.op() > head || !head_certain) {
            return Err(BrokenInvariant::PrimaryWithoutLog { view, commit, head, head_certain });
        }
        if !to.include(&record) {
            return Err(BrokenInvariant::RecordAhead { record, replica: to });
        }
        if !to.include(&before.promises) || applied < before.applied {
            let (from, applied_before) = (before.promises, before.applied);
            return Err(BrokenInvariant::WentBack { from, to, applied_before, applied });
        }
        self.check_writes()
    }

    fn check_writes(&self) -> Result<(), BrokenInvariant> {
        let Numbers { issued, completed, in_flight, awaited, .. } = *self;
        let in_step = match in_flight {
            Some(batch) => batch == issued && completed.next() == issued,
            None => completed == issued,
        };
        if in_step && awaited <= issued.next() {
            Ok(())
        } else {
            Err(BrokenInvariant::WritesOutOfStep { issued, completed, in_flight, awaited })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::halt::Halt;
    use super::*;
    use crate::protocol::core::Core;
    use crate::protocol::documented::{Nothing, any_core, any_state, start};
    use crate::protocol::turn::{Effects, Inputs};
    use crate::protocol::types::vsr_state::VsrState;
    use crate::protocol::view_change::phase::Phase;

    fn view(number: u64) -> View {
        View { number, ..View::default() }
    }

    /// A primary in the middle of its work.
    fn sound() -> Numbers {
        Numbers {
            promises: Promises { view: view(3), log_view: view(3), commit: CommitNumber(7) },
            record: Promises { view: view(3), log_view: view(3), commit: CommitNumber(5) },
            is_normal: true,
            is_primary: true,
            head_certain: true,
            applied: OpNumber(6),
            durable: OpNumber(8),
            head: OpNumber(9),
            base: OpNumber::ZERO,
            issued: BatchNumber(4),
            completed: BatchNumber(3),
            in_flight: Some(BatchNumber(4)),
            awaited: BatchNumber(2),
        }
    }

    fn check(change: impl FnOnce(&mut Numbers)) -> Result<(), BrokenInvariant> {
        let (before, mut now) = (sound(), sound());
        change(&mut now);
        now.check(&before)
    }

    #[test]
    fn what_a_replica_may_be_at_breaks_nothing() {
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(sound().check(&Numbers::default()), Ok(()));
        assert_eq!(Numbers::default().check(&Numbers::default()), Ok(()));
        let left = check(|now| {
            (now.promises.view, now.is_normal, now.is_primary) = (view(4), false, false);
            (now.record.view, now.awaited) = (view(4), BatchNumber(5));
            (now.durable, now.head) = (OpNumber(8), OpNumber(7));
        });
        assert_eq!(left, Ok(()), "in a view change what was durable may be dropped");
        let behind = check(|now| {
            now.is_primary = false;
            now.promises.commit = CommitNumber(100);
        });
        assert_eq!(behind, Ok(()), "a backup hears of commits before it has the ops");
        assert_eq!(check(|now| (now.completed, now.in_flight) = (BatchNumber(4), None)), Ok(()));
    }

    #[test]
    fn each_invariant_that_is_broken_is_named() {
        use BrokenInvariant::{
            AppliedAhead, DurableAheadOfLog, LogViewMismatch, PrimaryWithoutLog, RecordAhead, WentBack, WritesOutOfStep,
        };
        let applied = check(|now| now.applied = OpNumber(8));
        assert!(
            matches!(applied, Err(AppliedAhead { applied: OpNumber(8), commit: CommitNumber(7), .. })),
            "{applied:?}"
        );
        let applied = check(|now| (now.is_primary, now.head, now.durable) = (false, OpNumber(5), OpNumber(5)));
        assert!(matches!(applied, Err(AppliedAhead { applied: OpNumber(6), head: OpNumber(5), .. })), "{applied:?}");
        for later in [true, false] {
            let found = check(|now| (now.promises.log_view, now.is_normal) = (view(4), later));
            assert!(matches!(found, Err(LogViewMismatch { .. })), "{found:?}");
        }
        let found = check(|now| now.promises.view = view(4));
        assert!(matches!(found, Err(LogViewMismatch { is_normal: true, .. })), "{found:?}");
        let found = check(|now| now.durable = OpNumber(10));
        assert_eq!(found, Err(DurableAheadOfLog { durable: OpNumber(10), head: OpNumber(9) }));
        let found = check(|now| now.promises.commit = CommitNumber(10));
        assert!(matches!(found, Err(PrimaryWithoutLog { commit: CommitNumber(10), .. })), "{found:?}");
        let found = check(|now| now.head_certain = false);
        assert!(matches!(found, Err(PrimaryWithoutLog { head_certain: false, .. })), "{found:?}");
        let changes: [fn(&mut Promises); 3] = [
            |record| record.view = view(4),
            |record| record.log_view = view(4),
            |record| record.commit = CommitNumber(8),
        ];
        for ahead in changes {
            let found = check(|now| ahead(&mut now.record));
            assert!(matches!(found, Err(RecordAhead { .. })), "{found:?}");
        }
        let found = check(|now| now.applied = OpNumber(5));
        assert!(matches!(found, Err(WentBack { applied: OpNumber(5), applied_before: OpNumber(6), .. })), "{found:?}");
        let found = check(|now| now.promises.commit = CommitNumber(6));
        assert!(matches!(found, Err(WentBack { to: Promises { commit: CommitNumber(6), .. }, .. })), "{found:?}");
        let found = check(|now| {
            (now.promises.view, now.promises.log_view) = (view(2), view(2));
            (now.record.view, now.record.log_view) = (view(2), view(2));
        });
        assert!(matches!(found, Err(WentBack { .. })), "{found:?}");
        for (completed, in_flight, awaited) in
            [(4, Some(4), 2), (2, Some(4), 2), (3, Some(3), 2), (3, None, 2), (3, Some(4), 6)]
        {
            let found = check(|now| {
                (now.completed, now.in_flight) = (BatchNumber(completed), in_flight.map(BatchNumber));
                now.awaited = BatchNumber(awaited);
            });
            assert!(matches!(found, Err(WritesOutOfStep { .. })), "{found:?}");
        }
    }

    fn turn(core: &mut Core, written: Option<BatchNumber>) -> Effects {
        let (mut inputs, mut effects) = (Inputs { written, ..Inputs::default() }, Effects::default());
        core.turn(&mut inputs, &mut Nothing, &mut effects);
        effects
    }

    /// What a core says and does that has just been stopped.
    fn assert_silent(effects: &Effects) {
        let Effects { replies, queries, write, reads, messages, .. } = effects;
        assert!(replies.is_empty() && queries.is_empty() && write.is_none(), "{effects:?}");
        assert!(reads.is_empty() && messages.is_empty(), "{effects:?}");
    }

    #[test]
    fn a_replica_whose_numbers_contradict_each_other_halts_with_them() {
        let mut core = any_core();
        let (batch, _) = turn(&mut core, None).write.expect("a start writes its record");
        assert_eq!(core.halted(), None);
        core.applied = OpNumber(7);
        // The write of the start lets the first pings out: they stay.
        assert_silent(&turn(&mut core, Some(batch)));
        let (applied, commit, head) = (OpNumber(7), CommitNumber(0), OpNumber::ZERO);
        let halt = Halt::Broken(BrokenInvariant::AppliedAhead { applied, commit, head });
        assert_eq!(core.halted(), Some(&halt));
        assert!(halt.to_string().contains("op 7 is applied, the commit number is 0"), "{halt}");
    }

    #[test]
    fn a_replica_that_goes_back_halts() {
        let mut core = any_core();
        core.raise_commit(CommitNumber(5));
        turn(&mut core, None);
        assert_eq!(core.halted(), None, "a backup hears of commits before it has the ops");
        core.commit = CommitNumber(4);
        assert_silent(&turn(&mut core, None));
        assert!(matches!(core.halted(), Some(Halt::Broken(BrokenInvariant::WentBack { .. }))), "{:?}", core.halted());
    }

    #[test]
    fn a_view_that_is_no_later_one_is_not_entered() {
        for entered in [2, 3] {
            let mut core = start(VsrState { view: view(3), log_view: view(3), ..any_state() });
            turn(&mut core, None);
            core.enter_view(view(entered));
            assert_eq!((core.view(), core.phase()), (view(3), Phase::Normal));
            let halt = Halt::Broken(BrokenInvariant::ViewNotRaised { view: view(3), entered: view(entered) });
            assert_eq!(core.halted(), Some(&halt));
            assert!(halt.to_string().contains(&format!("view {entered} was to be entered from view 3")), "{halt}");
            assert_silent(&turn(&mut core, None));
        }
    }

    #[test]
    fn a_write_that_is_not_under_way_halts_the_replica_with_the_numbers() {
        let mut core = any_core();
        let (batch, _) = turn(&mut core, None).write.expect("a start writes its record");
        let (completed, in_flight) = (batch.next(), Some(batch));
        assert_silent(&turn(&mut core, Some(completed)));
        let halt = Halt::Broken(BrokenInvariant::UnknownWrite { completed, in_flight });
        assert_eq!(core.halted(), Some(&halt));
        assert!(halt.to_string().contains("batch b2 completed, and b1 is in flight"), "{halt}");
    }
}
