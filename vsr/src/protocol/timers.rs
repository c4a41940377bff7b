//! When something is due at a replica.

use crate::protocol::types::number::{CommitNumber, Monotonic, NEVER};

/// The times at which a replica acts if nothing arrives before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timers {
    /// The next ping.
    pub(crate) ping_at: Monotonic,
    /// The next retry: what is not answered is said again.
    pub(crate) retry_at: Monotonic,
    /// The next heartbeat. Never, except at a primary.
    pub(crate) heartbeat_at: Monotonic,
    /// When a backup votes, or a view change is given up.
    pub(crate) view_deadline: Monotonic,
    /// When the next part of the disk is looked at.
    pub(crate) scrub_at: Monotonic,
    /// The commit number at the last ping, to tell whether the log rests.
    pub(crate) commit_at_ping: CommitNumber,
}

impl Timers {
    /// Those of a replica that starts now: pings and retries are due at once.
    pub(crate) fn new(now: Monotonic, commit: CommitNumber) -> Timers {
        Timers {
            ping_at: now,
            retry_at: now,
            heartbeat_at: NEVER,
            view_deadline: NEVER,
            scrub_at: now,
            commit_at_ping: commit,
        }
    }

    /// When the first of them is due.
    pub(crate) fn earliest(&self) -> Monotonic {
        self.ping_at.min(self.heartbeat_at).min(self.view_deadline).min(self.retry_at).min(self.scrub_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_of_the_timers_is_waited_for() {
        let start = Timers::new(Monotonic(9), CommitNumber(0));
        assert_eq!(start.earliest(), Monotonic(9));
        let later = Timers { ping_at: Monotonic(50), retry_at: Monotonic(40), scrub_at: NEVER, ..start };
        assert_eq!(later.earliest(), Monotonic(40));
        assert_eq!(Timers { ping_at: Monotonic(30), ..later }.earliest(), Monotonic(30));
        assert_eq!(Timers { scrub_at: Monotonic(30), ..later }.earliest(), Monotonic(30));
        assert_eq!(Timers { heartbeat_at: Monotonic(30), ..later }.earliest(), Monotonic(30));
        assert_eq!(Timers { view_deadline: Monotonic(30), ..later }.earliest(), Monotonic(30));
    }
}
