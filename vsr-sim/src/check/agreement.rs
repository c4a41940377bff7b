//! Committed prefixes agree (HAZARDS I1, I9).

use std::collections::BTreeMap;

use vsr::protocol::Event;
use vsr::{Checksum, OpNumber};

use super::{Checker, Observation, Scene};

/// Whatever one replica commits or applies at an op number, every replica commits and applies there:
/// the same checksum, and so the same log up to there. Ops are applied in order, each once in a life.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    committed: BTreeMap<OpNumber, (Checksum, usize)>,
    applied: BTreeMap<usize, OpNumber>,
    known: BTreeMap<usize, OpNumber>,
}

impl Agreement {
    fn agree(&mut self, replica: usize, op: OpNumber, checksum: Checksum) -> Result<(), String> {
        let (first, by) = *self.committed.entry(op).or_insert((checksum, replica));
        if first == checksum {
            Ok(())
        } else {
            Err(format!("r{replica} committed op {op} as {checksum}, r{by} as {first}"))
        }
    }
}

impl Checker for Agreement {
    fn name(&self) -> &'static str {
        "committed-prefixes-agree"
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => {
                self.applied.remove(&replica);
                self.known.remove(&replica);
            }
            Observation::Event { replica, event: Event::Applied { op, checksum }, .. } => {
                let last = self.applied.insert(replica, *op).unwrap_or_default();
                if last.next() != *op {
                    return Err(format!("r{replica} applied op {op} after op {last}"));
                }
                return self.agree(replica, *op, *checksum);
            }
            Observation::Event { replica, core, event: Event::Committed { commit } } if core.is_primary() => {
                let Some(known) = self.known.get(&replica).copied() else { return Ok(()) };
                for op in (known.0 + 1..=commit.0).map(OpNumber) {
                    if let Some(checksum) = core.checksum(op) {
                        self.agree(replica, op, checksum)?;
                    }
                }
            }
            Observation::Turn { replica, core } => {
                self.known.insert(replica, core.commit().op());
            }
            _ => {}
        }
        Ok(())
    }
}
