//! Memory that does not grow without end (hazard I17; rules 5.12, 6.11).

use vsr::Message;
use vsr::protocol::{BodyBuilder, Core};

use super::{Checker, Interests, Observation, Scene};

/// Copies, headers and reads that repair and view changes may keep: 8192, 1024 and 257.
const REPAIR_MAX: u64 = 8192 + 1024 + 257;

/// What a replica keeps stays within what its configuration allows: the ops of a primary that are not committed, the
/// requests that wait for a place among them, the sessions, the log, what repair holds, and the requests and bytes of an op.
#[derive(Debug)]
pub(super) struct Bounded;

impl Bounded {
    /// What is held, how much, and how much may be.
    fn bounds(core: &Core) -> [(&'static str, u64, u64); 5] {
        let (constants, options) = (&core.membership().constants, core.options());
        let uncommitted = if core.is_primary() { core.head().0.saturating_sub(core.commit().0) } else { 0 };
        let queued = core.queued() * BodyBuilder::encoded_len(0);
        [
            ("uncommitted ops as primary", uncommitted, constants.pipeline_max.into()),
            ("bytes of waiting requests at least", queued as u64, options.queue_bytes_max as u64),
            ("sessions", core.sessions() as u64, constants.sessions_max.into()),
            ("bytes in its log", core.log_bytes(), options.log_bytes_max),
            ("entries, headers and reads for repair", core.kept_for_repair() as u64, REPAIR_MAX),
        ]
    }
}

impl Checker for Bounded {
    fn name(&self) -> &'static str {
        "queues-are-bounded"
    }

    fn wants(&self) -> Interests {
        Interests::TURN | Interests::PREPARE
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Turn { replica, core } => {
                match Bounded::bounds(core).iter().find(|(_, held, bound)| held > bound) {
                    Some((what, held, bound)) => Err(format!("r{replica} has {held} {what}, {bound} are allowed")),
                    None => Ok(()),
                }
            }
            Observation::Sent { replica, message: Message::Prepare { entry, .. } } => {
                let constants = &scene.disks[replica].state().membership.constants;
                let (op, requests, bytes) = (entry.header.op, entry.header.requests, entry.header.body_len);
                let (requests_max, bytes_max) = (constants.batch_requests_max, constants.batch_bytes_max);
                // One request is an op, however long it is.
                if requests > requests_max || (requests > 1 && bytes > bytes_max) {
                    return Err(format!(
                        "r{replica} prepares op {op} of {requests} requests and {bytes} bytes, {requests_max} and \
                         {bytes_max} are allowed"
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
