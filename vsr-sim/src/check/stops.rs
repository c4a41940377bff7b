//! Which replicas stop, and which go on (hazard SF-11; rules 4.2, 12.2).

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// A replica stops by itself only when its disk has failed it: a full one is no reason, nor is a slow one, or a copy that peers
/// have, too. And when a write or a sync has failed, it says nothing any more: what its storage holds is not what it believes.
#[derive(Debug, Default)]
pub(super) struct ReplicaRuns {
    broken: ByReplica<Broken>,
}

/// What the world has done to a disk in this life of its replica.
#[derive(Debug, Default)]
struct Broken {
    /// The replica may stop.
    may: bool,
    /// It must, and this is why.
    must: Option<String>,
}

impl Checker for ReplicaRuns {
    fn name(&self) -> &'static str {
        "replica-runs"
    }

    fn wants(&self) -> Interests {
        Interests::STARTED | Interests::STOPS | Interests::SENT
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => *self.broken.of(replica) = Broken::default(),
            Observation::Broke { replica, must, how } => {
                let broken = self.broken.of(replica);
                broken.may = true;
                if must {
                    broken.must.get_or_insert_with(|| how.to_owned());
                }
            }
            Observation::Stopped { replica, by_storage, why } => {
                if !by_storage {
                    return Err(why.to_owned());
                }
                if !self.broken.of(replica).may {
                    return Err(format!("{why}: stopped without a cause, nothing that its disk did is a reason to"));
                }
            }
            Observation::Sent { replica, message } => {
                if let Some(how) = &self.broken.of(replica).must {
                    let name = message.name();
                    return Err(format!(
                        "r{replica} goes on and sends {name} after {how}: nothing but a restart may follow"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
