//! How each header follows from the one before (hazard I12; rules 5.11, 6.1).

use vsr::protocol::{Event, Header, Message, OpNumber, View};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// Neighbours in the log: what a primary prepares one after the other, what stands in a `StartView`, and what is
/// applied for the first time.
#[derive(Debug)]
pub(super) struct Neighbours {
    prepared: ByReplica<Prepared>,
    applied: Tip,
}

/// The end of a log that is known up to there.
type Tip = Option<(OpNumber, Option<Header>)>;

#[derive(Debug, Default)]
struct Prepared {
    view: View,
    tip: Tip,
}

const ROOT: Tip = Some((OpNumber::ZERO, None));

impl Default for Neighbours {
    fn default() -> Neighbours {
        Neighbours { prepared: ByReplica::default(), applied: ROOT }
    }
}

impl Neighbours {
    pub(super) fn wants() -> Interests {
        Interests::PREPARE | Interests::VIEW_CHANGE | Interests::APPLIED
    }

    /// Shows each new pair: the replica, the header before (none before op 1), the header.
    pub(super) fn look(
        &mut self,
        scene: &Scene<'_>,
        observation: &Observation<'_>,
        look: impl Fn(usize, Option<&Header>, &Header) -> Result<(), String>,
    ) -> Result<(), String> {
        match *observation {
            Observation::Sent { replica, message: Message::Prepare { view, entry, .. } } => {
                let header = &entry.header;
                let tip = self.prepared.of(replica).in_view(*view);
                match tip {
                    Some((op, _)) if header.op <= *op => return Ok(()),
                    Some((op, before)) if header.op == op.next() => look(replica, before.as_ref(), header)?,
                    _ => {}
                }
                *tip = Some((header.op, Some(*header)));
            }
            Observation::Sent { replica, message: Message::StartView(start) } => {
                for pair in start.headers.windows(2).filter(|pair| pair[0].op.next() == pair[1].op) {
                    look(replica, Some(&pair[0]), &pair[1])?;
                }
                let tip = self.prepared.of(replica).in_view(start.view);
                let last = start.headers.last().filter(|last| last.op == start.head).copied();
                if tip.is_none() && (last.is_some() || start.head == OpNumber::ZERO) {
                    *tip = Some((start.head, last));
                }
            }
            Observation::Event { replica, event: Event::Applied { op, checksum }, .. } => {
                let Some((_, before)) = self.applied.filter(|(applied, _)| applied.next() == *op) else {
                    return Ok(());
                };
                let on = |disk: &crate::SimDisk| disk.durable_header(*op).filter(|own| own.checksum() == *checksum);
                let header = scene.disks.iter().find_map(on);
                self.applied = Some((*op, header));
                if let Some(header) = header
                    && (before.is_some() || *op == OpNumber(1))
                {
                    look(replica, before.as_ref(), &header)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Prepared {
    fn in_view(&mut self, view: View) -> &mut Tip {
        if self.view != view {
            *self = Prepared { view, tip: None };
        }
        &mut self.tip
    }
}

/// Every header names the checksum of the one before; the first names the root of its cluster's log. So one checksum
/// names a whole log.
#[derive(Debug, Default)]
pub(super) struct HashChain(Neighbours);

impl Checker for HashChain {
    fn name(&self) -> &'static str {
        "hash-chain"
    }

    fn wants(&self) -> Interests {
        Neighbours::wants()
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        self.0.look(scene, observation, |replica, before, header| {
            let root = || Header::root(scene.disks[replica].state().cluster);
            let (op, parent, own) = (header.op, before.map_or_else(root, Header::checksum), header.parent);
            if own == parent {
                return Ok(());
            }
            Err(format!("r{replica} has op {op} after {own}, op {} is {parent}", op.prev()))
        })
    }
}

/// Along the log, the views in which ops were prepared never go back.
#[derive(Debug, Default)]
pub(super) struct ViewsInOrder(Neighbours);

impl Checker for ViewsInOrder {
    fn name(&self) -> &'static str {
        "views-in-op-order"
    }

    fn wants(&self) -> Interests {
        Neighbours::wants()
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        self.0.look(scene, observation, |replica, before, header| match before {
            Some(before) if before.view > header.view => Err(format!(
                "r{replica} has op {} of view {} before op {} of view {}",
                before.op, before.view, header.op, header.view
            )),
            _ => Ok(()),
        })
    }
}

/// Along the log, timestamps go up with every op.
#[derive(Debug, Default)]
pub(super) struct TimestampsInOrder(Neighbours);

impl Checker for TimestampsInOrder {
    fn name(&self) -> &'static str {
        "timestamps-in-op-order"
    }

    fn wants(&self) -> Interests {
        Neighbours::wants()
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        self.0.look(scene, observation, |replica, before, header| match before {
            Some(before) if before.timestamp >= header.timestamp => Err(format!(
                "r{replica} has op {} with timestamp {} before op {} with timestamp {}",
                before.op, before.timestamp, header.op, header.timestamp
            )),
            _ => Ok(()),
        })
    }
}
