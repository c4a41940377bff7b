//! Memory that does not grow without end (hazard I17; rules 5.12, 6.11).

use std::collections::BTreeSet;

use vsr::protocol::{
    BodyBuilder, Constants, Core, DiskId, Header, Message, OpNumber, Outcome, Replacement, Reply, Succession,
};

use super::{Checker, Interests, Observation, Scene};

/// Copies, headers and reads that repair and view changes may keep: 8192, 1024 and 257.
const REPAIR_MAX: u64 = 8192 + 1024 + 257;

/// Entries that one message asks for or carries, and headers that one carries.
const ENTRIES_MAX: usize = 64;
const HEADERS_MAX: usize = 256;

/// What a replica keeps stays within what its configuration allows: the ops of a primary that are not committed, the
/// requests that wait for a place among them, the sessions, the log, what repair holds, the requests and bytes of an op, the
/// bytes of a reply, and what one message of repair asks for or brings.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    /// The highest op up to which a log was dropped.
    base: OpNumber,
    /// Disks that have asked for the place of a lost one.
    new_disks: BTreeSet<DiskId>,
}

impl Bounded {
    /// What is held, how much, and how much may be.
    fn bounds(&self, core: &Core) -> [(&'static str, u64, u64); 5] {
        let (constants, options) = (&core.membership().constants, core.options());
        let uncommitted = if core.is_primary() { core.head().0.saturating_sub(core.commit().0) } else { 0 };
        // A primary takes in what fits beside what it has not dropped; whose checkpoints come later has more below.
        let is_more = core.log_bytes() > options.log_bytes_max;
        let logged = if is_more { core.log_bytes_above(self.base) } else { core.log_bytes() };
        let queued = core.queued() * BodyBuilder::encoded_len(0);
        [
            ("uncommitted ops as primary", uncommitted, constants.pipeline_max.into()),
            ("bytes of waiting requests at least", queued as u64, options.queue_bytes_max as u64),
            ("sessions", core.sessions() as u64, constants.sessions_max.into()),
            // An op that puts a disk in the place of a lost one may be what it takes to have room again.
            ("bytes in its log", logged, options.log_bytes_max + (self.new_disks.len() * Replacement::LEN) as u64),
            ("entries, headers and reads for repair", core.kept_for_repair() as u64, REPAIR_MAX),
        ]
    }
}

impl Checker for Bounded {
    fn name(&self) -> &'static str {
        "queues-are-bounded"
    }

    fn wants(&self) -> Interests {
        Interests::TURN | Interests::PREPARE | Interests::ANSWERS | Interests::OTHER_MESSAGES | Interests::STARTED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Started { replica } => {
                let state = scene.disks[replica].state();
                if state.succession != Succession::First {
                    self.new_disks.insert(state.disk_id);
                }
                Ok(())
            }
            Observation::Turn { replica, core } => {
                self.base = self.base.max(core.log_base());
                match self.bounds(core).iter().find(|(_, held, bound)| held > bound) {
                    Some((what, held, bound)) => Err(format!("r{replica} has {held} {what}, {bound} are allowed")),
                    None => Ok(()),
                }
            }
            Observation::Sent { replica, message } => {
                sent(replica, &scene.disks[replica].state().membership.constants, message)
            }
            _ => Ok(()),
        }
    }
}

fn sent(replica: usize, constants: &Constants, message: &Message) -> Result<(), String> {
    let (count, most) = match message {
        Message::Prepare { entry, .. } => return prepared(replica, constants, &entry.header),
        Message::Replies { replies, .. } => {
            let length = |reply: &Reply| if let Outcome::Reply(bytes) = &reply.outcome { bytes.len() } else { 0 };
            let (longest, most) = (replies.iter().map(length).max().unwrap_or(0), constants.reply_max);
            if longest > most as usize {
                return Err(format!("r{replica} sends a reply of {longest} bytes, {most} are allowed"));
            }
            return Ok(());
        }
        Message::RequestEntries { wanted } => (wanted.len(), ENTRIES_MAX),
        Message::Entries { entries } => (entries.len(), ENTRIES_MAX),
        Message::Headers { headers } => (headers.len(), HEADERS_MAX),
        _ => return Ok(()),
    };
    if count > most {
        return Err(format!("r{replica} sends {} of {count}, {most} are allowed", message.name()));
    }
    Ok(())
}

fn prepared(replica: usize, constants: &Constants, header: &Header) -> Result<(), String> {
    let (op, requests, bytes) = (header.op, header.requests, header.body_len);
    let (requests_max, bytes_max) = (constants.batch_requests_max, constants.batch_bytes_max);
    // One request is an op, however long it is.
    if requests > requests_max || (requests > 1 && bytes > bytes_max) {
        return Err(format!(
            "r{replica} prepares op {op} of {requests} requests and {bytes} bytes, {requests_max} and {bytes_max} are \
             allowed"
        ));
    }
    Ok(())
}
