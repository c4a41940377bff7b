//! A client without a reply is told the truth about it (hazard I11; rules 5.8, 5.15).

use vsr::protocol::Position;

use super::table::Table;
use super::{Checker, Interests, Observation, Scene};

/// A command of which its client was told that it is not executed never is: not before, and not later by a copy that was under
/// way. One that is said to be executed, with its reply lost, was. What is unknown may be either, once: that is `exactly-once`.
#[derive(Debug, Default)]
pub(super) struct OutcomesAreKept {
    executed: Table<Position>,
    denied: Table<()>,
}

impl Checker for OutcomesAreKept {
    fn name(&self) -> &'static str {
        "outcomes-are-kept"
    }

    fn wants(&self) -> Interests {
        Interests::EXECUTED | Interests::TOLD
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Executed { replica, position, command, .. } => {
                self.executed.get_or_put(command, position);
                if self.denied.get(command).is_some() {
                    return Err(format!(
                        "r{replica} executes command {command} at {position}, its client was told that it is not executed"
                    ));
                }
            }
            Observation::Told { command, executed, words } => match (executed, self.executed.get(command)) {
                (true, None) => {
                    return Err(format!(
                        "the client of command {command} hears \"{words}\", no replica has executed it"
                    ));
                }
                (false, Some(position)) => {
                    return Err(format!(
                        "the client of command {command} hears \"{words}\", it was executed at {position}"
                    ));
                }
                (true, Some(_)) => {}
                (false, None) => self.denied.get_or_put(command, ()),
            },
            _ => {}
        }
        Ok(())
    }
}
