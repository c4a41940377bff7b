//! Committed prefixes agree (hazards I1, I9).

use vsr::Checksum;
use vsr::protocol::{Event, OpNumber};

use super::table::{ByReplica, Table};
use super::{Checker, Interests, Observation, Scene};

/// Whatever one replica commits or applies at an op number, every replica commits and applies there:
/// the same checksum, and so the same log up to there. Ops are applied in order, each once in a life.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    committed: Table<(Checksum, usize)>,
    replicas: ByReplica<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    applied: OpNumber,
    /// The commit number when the last turn ended; none before the first one.
    known: Option<OpNumber>,
}

impl Agreement {
    fn agree(&mut self, replica: usize, op: OpNumber, checksum: Checksum) -> Result<(), String> {
        let (first, by) = self.committed.get_or_put(op.0, (checksum, replica));
        if first == checksum {
            return Ok(());
        }
        Err(format!("r{replica} committed op {op} as {checksum}, r{by} as {first}"))
    }
}

impl Checker for Agreement {
    fn name(&self) -> &'static str {
        "committed-prefixes-agree"
    }

    fn wants(&self) -> Interests {
        Interests::EVENT | Interests::TURN | Interests::STARTED
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => *self.replicas.of(replica) = Progress::default(),
            Observation::Turn { replica, core } => self.replicas.of(replica).known = Some(core.commit().op()),
            // It goes on where a checkpoint ends: what that contains is of this log, too.
            Observation::Event { replica, event: Event::Restored { op, checksum }, .. } => {
                self.replicas.of(replica).applied = *op;
                return self.agree(replica, *op, *checksum);
            }
            Observation::Event { replica, event: Event::Applied { op, checksum }, .. } => {
                let last = std::mem::replace(&mut self.replicas.of(replica).applied, *op);
                if last.next() != *op {
                    return Err(format!("r{replica} applied op {op} after op {last}"));
                }
                return self.agree(replica, *op, *checksum);
            }
            Observation::Event { replica, core, event: Event::Committed { commit } } if core.is_primary() => {
                let known = &mut self.replicas.of(replica).known;
                let Some(from) = *known else { return Ok(()) };
                *known = Some(from.max(commit.op()));
                for op in (from.0 + 1..=commit.0).map(OpNumber) {
                    if let Some(checksum) = core.checksum(op) {
                        self.agree(replica, op, checksum)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
