//! The end of runs in which next to no virtual time passes. What a replica does turn after turn, its checker says
//! (`check::pace`); here it is looked at whatever is polled, clients too, and at polls that do not end.

use super::World;
use crate::check::Violation;
use crate::check::pace::{NAME, STEPS_MAX, STRETCH};

/// Looks at its clock that a node may take at one instant. Each round of work begins with one, and a poll has a few
/// rounds: the node's checker, and the count of its polls, come first if the poll ends.
const LOOKS_MAX: u64 = 2 * STEPS_MAX;

/// How often a node was polled, and has looked at its clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When the stretch began, and the polls in it.
    polls: (u64, u64),
    /// The last instant of a look, and the looks at it.
    looks: (u64, u64),
}

/// Thrown where a poll goes on though the run has ended: there is no other way out of it.
#[derive(Debug)]
pub(crate) struct Endless;

impl World {
    /// A node is polled.
    pub(crate) fn polled(&mut self, node: usize) {
        let (now, stretch) = (self.now, STRETCH.as_nanos() as u64);
        let (since, polls) = &mut self.nodes[node].pace.polls;
        if now - *since >= stretch {
            (*since, *polls) = (now, 0);
        }
        *polls += 1;
        if *polls > STEPS_MAX {
            let (polls, passed) = (*polls, now - *since);
            let name = self.name_of(node);
            self.stands_still(format!(
                "{name} is polled {polls} times in {passed} ns, {STEPS_MAX} in {STRETCH:?} are more than it can have to do: it \
                 is woken again whenever it waits"
            ));
        }
    }

    /// A node looks at its clock. Whether it has done so too often: the poll that it is in does not end, and must be left.
    #[must_use]
    pub(crate) fn looks_at_clock(&mut self, node: usize) -> bool {
        let now = self.now;
        let (at, looks) = &mut self.nodes[node].pace.looks;
        if *at != now {
            (*at, *looks) = (now, 0);
        }
        *looks += 1;
        if *looks <= LOOKS_MAX {
            return false;
        }
        let name = self.name_of(node);
        self.stands_still(format!(
            "{name} has looked at its clock {LOOKS_MAX} times at one instant, and does so again: a poll of it does not end"
        ));
        true
    }

    fn stands_still(&mut self, message: String) {
        let at = self.now;
        self.breach(Violation { checker: NAME, message, at });
    }
}
