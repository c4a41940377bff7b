//! The votes to leave a view (rule 7.1): whose, and until when each counts.
//!
//! Invariants:
//! - All of them are votes to leave exactly the present view: they end with it.
//! - A member has one vote, however often it is cast.
//! - The votes of others alone count for nothing: only a replica that votes itself leaves its view by a quorum.

use crate::protocol::types::event::ViewChangeReason;
use crate::protocol::types::number::Monotonic;

/// The votes to leave the present view.
#[derive(Clone, Debug)]
pub(crate) struct Votes {
    /// Why this replica votes, if it does.
    own: Option<ViewChangeReason>,
    /// Until when each other member's vote counts, by its place.
    until: Vec<Option<Monotonic>>,
}

impl Votes {
    pub(crate) fn new(members: usize) -> Votes {
        Votes { own: None, until: vec![None; members] }
    }

    /// Why this replica votes, if it does.
    pub(crate) fn own(&self) -> Option<ViewChangeReason> {
        self.own
    }

    /// Casts this replica's vote. Returns whether it is new: a second one keeps the reason of the first.
    pub(crate) fn cast_own(&mut self, why: ViewChangeReason) -> bool {
        let is_new = self.own.is_none();
        self.own.get_or_insert(why);
        is_new
    }

    /// Withdraws this replica's vote. Those of the others stay.
    pub(crate) fn withdraw(&mut self) {
        self.own = None;
    }

    /// Another member has voted; its vote counts up to this time, in place of the one before.
    pub(crate) fn cast(&mut self, member: usize, until: Monotonic) {
        self.until[member] = Some(until);
    }

    /// A member's vote counts no more.
    pub(crate) fn forget(&mut self, member: usize) {
        self.until[member] = None;
    }

    /// The view is another one, or has started: no vote counts any more.
    pub(crate) fn clear(&mut self) {
        self.until.fill(None);
        self.own = None;
    }

    /// The votes that count, this replica's included; none before it votes itself.
    pub(crate) fn count(&self, now: Monotonic) -> usize {
        if self.own.is_none() {
            return 0;
        }
        let others = self.until.iter().flatten().filter(|until| **until >= now).count();
        others + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The votes of five members, of which this replica has cast its own.
    fn votes() -> Votes {
        let mut votes = Votes::new(5);
        assert!(votes.cast_own(ViewChangeReason::Silence));
        votes
    }

    /// Rule 7.1.
    #[test]
    fn a_vote_counts_until_it_expires() {
        let mut votes = votes();
        votes.cast(1, Monotonic(10));
        votes.cast(2, Monotonic(20));
        let counts = [0, 10, 11, 20, 21].map(|now| votes.count(Monotonic(now)));
        assert_eq!(counts, [3, 3, 2, 2, 1], "its own does not expire");
        votes.cast(1, Monotonic(30));
        assert_eq!(votes.count(Monotonic(30)), 2, "it was cast again");
    }

    /// Rule 7.1.
    #[test]
    fn a_member_has_one_vote_however_often_it_is_cast() {
        let mut votes = votes();
        for until in [10, 20, 15] {
            votes.cast(3, Monotonic(until));
        }
        assert_eq!((votes.count(Monotonic(15)), votes.count(Monotonic(16))), (2, 1));
        votes.cast(3, Monotonic(20));
        votes.forget(3);
        assert_eq!(votes.count(Monotonic(0)), 1);
    }

    /// Rule 7.1.
    #[test]
    fn the_votes_of_others_alone_count_for_nothing() {
        let mut votes = Votes::new(3);
        votes.cast(1, Monotonic(10));
        votes.cast(2, Monotonic(10));
        assert_eq!(votes.count(Monotonic(0)), 0);
        assert!(votes.cast_own(ViewChangeReason::Forward) && !votes.cast_own(ViewChangeReason::Silence));
        assert_eq!(votes.own(), Some(ViewChangeReason::Forward), "the first reason stays");
        assert_eq!(votes.count(Monotonic(0)), 3);
        votes.withdraw();
        assert_eq!((votes.own(), votes.count(Monotonic(0))), (None, 0));
        votes.cast_own(ViewChangeReason::Silence);
        assert_eq!(votes.count(Monotonic(0)), 3, "those of the others stay when it withdraws its own");
    }

    #[test]
    fn no_vote_is_taken_along_into_another_view() {
        let mut votes = votes();
        votes.cast(1, Monotonic(10));
        votes.clear();
        assert_eq!(votes.own(), None);
        votes.cast_own(ViewChangeReason::Silence);
        assert_eq!(votes.count(Monotonic(0)), 1);
    }
}
