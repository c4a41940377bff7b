//! Requests execute once, with one reply, to one state (HAZARDS I10, I11).

use std::collections::BTreeMap;

use vsr::{Checksum, Position};

use super::{Checker, Observation, Scene};

/// A command is executed at one position of the log only, on every replica, in every life.
#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    positions: BTreeMap<u64, Position>,
}

impl Checker for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly-once"
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Executed { replica, position, command, .. } = *observation else { return Ok(()) };
        let first = *self.positions.entry(command).or_insert(position);
        if first == position {
            Ok(())
        } else {
            Err(format!("r{replica} executed command {command} at {position}, it was executed at {first} before"))
        }
    }
}

/// Every replica computes the same reply to a command, and a client is told that one.
#[derive(Debug, Default)]
pub(super) struct SameReplies {
    replies: BTreeMap<u64, (Position, Checksum)>,
}

impl Checker for SameReplies {
    fn name(&self) -> &'static str {
        "one-reply-per-command"
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Executed { replica, position, command, reply } => {
                let (_, first) = *self.replies.entry(command).or_insert((position, reply));
                if first != reply {
                    return Err(format!("r{replica} replies {reply} to command {command}, another replied {first}"));
                }
            }
            Observation::Acknowledged { command, position, reply } => {
                let executed = self.replies.get(&command);
                if executed != Some(&(position, reply)) {
                    return Err(format!(
                        "command {command} was acknowledged at {position} with {reply}, it was executed as {executed:?}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// After the same op, state machine and session table have the same digest everywhere.
#[derive(Debug, Default)]
pub(super) struct SameDigests {
    digests: BTreeMap<u64, (usize, Checksum)>,
}

impl Checker for SameDigests {
    fn name(&self) -> &'static str {
        "equal-state-after-equal-ops"
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Digest { replica, op, digest } = *observation else { return Ok(()) };
        let (first, expected) = *self.digests.entry(op).or_insert((replica, digest));
        if expected == digest {
            Ok(())
        } else {
            Err(format!("after op {op} the state of r{replica} has digest {digest}, that of r{first} has {expected}"))
        }
    }
}
