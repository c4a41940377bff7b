//! Whose word counts (hazard I18; rule 7.7).

use vsr::protocol::{Core, Life, MEMBERS_MAX, Message, OpNumber, Peer};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// A member that has said, in the life that it is known by, that its log reaches as far as what it has acknowledged counts again:
/// an earlier word that said less was late, or of an earlier life.
#[derive(Debug, Default)]
pub(super) struct BelievedAgain {
    listeners: ByReplica<Listener>,
}

#[derive(Debug, Default)]
struct Listener {
    /// The members that have said in this turn how far their logs reach, if that was their last word that can change it.
    said: Vec<(usize, Life, OpNumber)>,
    /// The last life of each member that was not taken for its newest one when it said so: it may never count.
    refused: [Option<Life>; MEMBERS_MAX],
}

impl Listener {
    fn hears(&mut self, from: usize, message: &Message) {
        match message {
            Message::Ping(ping) if ping.succession.counts() => {
                self.said.retain(|(of, ..)| *of != from);
                self.said.push((from, ping.life, ping.head));
            }
            Message::Ping(_) | Message::DoViewChange(_) => self.said.retain(|(of, ..)| *of != from),
            Message::PrepareOk { life, .. }
            | Message::CommitOk { life, .. }
            | Message::StartViewChange { life, .. } => self.said.retain(|(of, known, _)| *of != from || known == life),
            _ => {}
        }
    }

    /// A member that has to count when a turn ends, and does not; what it has said, and what it has acknowledged.
    fn turn_ends(&mut self, core: &Core) -> Option<(usize, OpNumber, OpNumber)> {
        for (from, life, head) in std::mem::take(&mut self.said) {
            let Some(member) = core.membership().members.get(from) else { continue };
            let Some(known) = core.known().iter().find(|known| known.replica == member.id) else { continue };
            let refused = &mut self.refused[from];
            if known.life != life {
                *refused = Some(life);
            } else if *refused != Some(life)
                && head >= known.acknowledged
                && core.distrusted().any(|(id, _)| id == member.id)
            {
                return Some((from, head, known.acknowledged));
            }
        }
        None
    }
}

impl Checker for BelievedAgain {
    fn name(&self) -> &'static str {
        "members-are-believed-again"
    }

    fn wants(&self) -> Interests {
        Interests::STARTED | Interests::TURN | Interests::RECEIVED
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => *self.listeners.of(replica) = Listener::default(),
            Observation::Received { replica, from: Peer::Replica(id), message } if usize::from(id.0) < MEMBERS_MAX => {
                self.listeners.of(replica).hears(usize::from(id.0), message);
            }
            Observation::Turn { replica, core } if core.halted().is_none() => {
                if let Some((from, head, acknowledged)) = self.listeners.of(replica).turn_ends(core) {
                    return Err(format!(
                        "r{replica} does not believe r{from}, which has said that its log reaches to op {head}; it has \
                         acknowledged up to op {acknowledged}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
