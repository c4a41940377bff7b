//! Requests execute once, with one reply, to one state (hazards I10, I11).

use vsr::Checksum;
use vsr::protocol::Position;

use super::table::{ByPosition, ByReplica, Table};
use super::{Checker, Digested, Interests, Observation, Scene};

/// A command is executed at one position of the log only, on every replica, in every life; and in each life once, in
/// log order.
#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    positions: Table<Position>,
    last: ByReplica<Option<Position>>,
}

impl Checker for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly-once"
    }

    fn wants(&self) -> Interests {
        Interests::EXECUTED | Interests::STARTED
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => *self.last.of(replica) = None,
            Observation::Executed { replica, position, command, .. } => {
                let first = self.positions.get_or_put(command, position);
                if first != position {
                    return Err(format!(
                        "r{replica} executed command {command} at {position}, it was executed at {first} before"
                    ));
                }
                if let Some(last) = self.last.of(replica).replace(position).filter(|last| *last >= position) {
                    return Err(format!("r{replica} executed command {command} at {position}, after that at {last}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Every replica computes the same reply to a command, and a client is told that one.
#[derive(Debug, Default)]
pub(super) struct SameReplies {
    replies: Table<(usize, Position, Checksum)>,
}

impl Checker for SameReplies {
    fn name(&self) -> &'static str {
        "one-reply-per-command"
    }

    fn wants(&self) -> Interests {
        Interests::EXECUTED | Interests::ACKNOWLEDGED
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Executed { replica, position, command, reply } => {
                let (by, _, first) = self.replies.get_or_put(command, (replica, position, reply));
                if first != reply {
                    return Err(format!("r{replica} replies {reply} to command {command}, r{by} replied {first}"));
                }
            }
            Observation::Acknowledged { command, position, reply } => match self.replies.get(command) {
                Some((_, at, executed)) if (at, executed) == (position, reply) => {}
                Some((by, at, executed)) => {
                    return Err(format!(
                        "command {command} was acknowledged at {position} with {reply}, executed by r{by} at {at} with \
                         {executed}"
                    ));
                }
                None => {
                    return Err(format!(
                        "command {command} was acknowledged at {position} with {reply}, no replica has executed it"
                    ));
                }
            },
            _ => {}
        }
        Ok(())
    }
}

/// After the same op, state machine and session table have the same digest everywhere.
#[derive(Debug, Default)]
pub(super) struct SameDigests {
    machine: ByPosition<(usize, Checksum)>,
    sessions: Table<(usize, Checksum)>,
}

impl Checker for SameDigests {
    fn name(&self) -> &'static str {
        "equal-state-after-equal-ops"
    }

    fn wants(&self) -> Interests {
        Interests::DIGEST
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Digest { replica, of, digest } = *observation else { return Ok(()) };
        let (first, expected) = match of {
            Digested::Machine(position) => self.machine.get_or_put(position, (replica, digest)),
            Digested::Sessions(op) => self.sessions.get_or_put(op.0, (replica, digest)),
        };
        if expected == digest {
            Ok(())
        } else {
            Err(format!("{of} of r{replica} has digest {digest}, that of r{first} has {expected}"))
        }
    }
}
