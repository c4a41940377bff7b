//! Replicas that are busy while next to no time passes (hazard I18).

use std::collections::BTreeMap;
use std::time::Duration;

use vsr::protocol::{Core, Mark, Monotonic};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// The name of this checker. The world says the same of what takes no turns: clients, and polls that do not end.
pub(crate) const NAME: &str = "time-moves-on";
/// A stretch of time, in which so much and no more is done: the busiest replica of a hundred seeds has a thirtieth of that to do.
pub(crate) const STRETCH: Duration = Duration::from_millis(200);
/// Turns of one replica, and polls of one node, in a stretch.
pub(crate) const STEPS_MAX: u64 = 100_000;
/// The last turns of a stretch that has too many are looked at more closely.
const LOOKED_AT: u64 = 1_000;

/// Between its turns a replica waits for time to pass, for messages that take their time, and for its disk. One that takes
/// turn after turn at the same instant, or at instants that hardly differ, does the same again and again: a timer that is due
/// when it has just fired, a question that is asked again before an answer can be here. On a machine it would take the whole
/// processor and fill the network; here the run would never end.
#[derive(Debug, Default)]
pub(super) struct TimeMovesOn {
    replicas: ByReplica<Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    /// When the stretch began, by the replica's own clock.
    since: Option<Monotonic>,
    turns: u64,
    /// What was done in the last turns of the stretch, and how often.
    did: BTreeMap<(&'static str, &'static str), u64>,
}

impl Pace {
    fn does(&mut self, what: &'static str, which: impl FnOnce() -> &'static str) {
        if self.turns > STEPS_MAX - LOOKED_AT {
            *self.did.entry((what, which())).or_default() += 1;
        }
    }

    /// How long the stretch has lasted, when it has too many turns.
    fn turn_ends(&mut self, now: Monotonic) -> Option<Duration> {
        let passed = now.since(*self.since.get_or_insert(now));
        if passed >= STRETCH {
            *self = Pace { since: Some(now), ..Pace::default() };
        }
        self.turns += 1;
        (self.turns > STEPS_MAX).then_some(passed)
    }

    /// What it does again and again.
    fn in_words(&self, core: &Core) -> String {
        let mut did: Vec<_> = self.did.iter().collect();
        did.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        let did = did.iter().take(4).map(|((what, which), times)| format!("{what} {which} {times} times"));
        let mut parts: Vec<String> = did.collect();
        if parts.is_empty() {
            parts.push("takes in and sends nothing".to_owned());
        }
        if core.next_deadline() <= core.time() {
            parts.push("its timer is due again at once".to_owned());
        }
        parts.join(", ")
    }
}

impl Checker for TimeMovesOn {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wants(&self) -> Interests {
        Interests::STARTED | Interests::TURN | Interests::SENT | Interests::RECEIVED | Interests::OTHER_EVENTS
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => *self.replicas.of(replica) = Pace::default(),
            Observation::Received { replica, message, .. } => {
                self.replicas.of(replica).does("takes in", || message.name());
            }
            Observation::Sent { replica, message } => self.replicas.of(replica).does("sends", || message.name()),
            Observation::Mark { replica, mark: Mark::Path(name) } => self.replicas.of(replica).does("notes", || name),
            Observation::Mark { replica, mark: Mark::Ignored { message, .. } } => {
                self.replicas.of(replica).does("ignores", || message);
            }
            Observation::Turn { replica, core } => {
                let pace = self.replicas.of(replica);
                if let Some(passed) = pace.turn_ends(core.time()) {
                    let (turns, does) = (pace.turns, pace.in_words(core));
                    return Err(format!(
                        "r{replica} takes {turns} turns in {passed:?}, {STEPS_MAX} in {STRETCH:?} are more than it can have \
                         to do: in the last {LOOKED_AT} it {does}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
