//! What a client was told stays, on disks and in the logs of later views (hazard I2).

use vsr::Checksum;
use vsr::protocol::{Event, Message, OpNumber, Outcome, Reply, StartView, View};

use super::table::{ByReplica, Table};
use super::{Checker, Interests, Observation, Scene};

/// The highest op that a reply speaks of as executed, or zero.
pub(super) fn highest_executed(replies: &[Reply]) -> OpNumber {
    let executed =
        |reply: &&Reply| matches!(reply.outcome, Outcome::Reply(_) | Outcome::Registered(_) | Outcome::ReplyLost);
    replies.iter().filter(executed).map(|reply| reply.position.op).max().unwrap_or_default()
}

/// Every op that was acknowledged to a client is held by a replication quorum of disks, at that moment and at every
/// later one; no replica drops its copy, or applies something else in its place. Rotten copies count, and so does what
/// a lost disk or a torn write has taken, and a lost end of a log, as long as the storage or the vsr state says of it that it
/// may have been here.
///
/// Each op is looked at when it is acknowledged and when its end of the log is truncated; after each write, a few in
/// turn.
#[derive(Debug, Default)]
pub(super) struct AcknowledgedStays {
    /// What was applied first.
    contents: Table<Checksum>,
    acknowledged: OpNumber,
    /// Who said so; none when a client heard it from its own replica.
    by: Option<usize>,
    /// Every op up to here was looked at.
    checked: OpNumber,
    /// Where each replica's disk was last looked at.
    sampled: ByReplica<u64>,
}

/// Ops looked at again after each write.
const SAMPLE: u64 = 2;
/// Newest ops looked at again at a start: the write that a crash cut short was about them.
const NEWEST: u64 = 64;

impl AcknowledgedStays {
    fn acknowledge(&mut self, op: OpNumber, by: Option<usize>) {
        if op > self.acknowledged {
            (self.acknowledged, self.by) = (op, by);
        }
    }

    fn look_at(&self, scene: &Scene<'_>, replica: usize, op: OpNumber) -> Result<(), String> {
        let Some(content) = self.contents.get(op.0) else { return Ok(()) };
        let (held, perhaps) = scene.copies(op, content);
        let need = usize::from(scene.quorums.replication);
        if held + perhaps >= need {
            return Ok(());
        }
        let by = self.by.map_or("a client's replica".to_owned(), |by| format!("r{by}"));
        let own = scene.disks[replica].durable(op).map_or("nothing".to_owned(), |durable| durable.to_string());
        Err(format!(
            "op {op} ({content}), acknowledged by {by}, is on {held} of {need} disks; r{replica} has {own} there"
        ))
    }

    fn look_at_sample(&mut self, scene: &Scene<'_>, replica: usize) -> Result<(), String> {
        let count = self.checked.0;
        for _ in 0..SAMPLE.min(count) {
            let sampled = self.sampled.of(replica);
            *sampled = *sampled % count + 1;
            let op = OpNumber(*sampled);
            // A replica that lacks a copy may have lost it by this write.
            if scene.disks[replica].durable(op) != self.contents.get(op.0) {
                self.look_at(scene, replica, op)?;
            }
        }
        Ok(())
    }

    /// Looks at what was acknowledged and is known by now.
    fn look_at_new(&mut self, scene: &Scene<'_>, replica: usize) -> Result<(), String> {
        while self.checked < self.acknowledged && self.contents.get(self.checked.next().0).is_some() {
            self.checked = self.checked.next();
            self.look_at(scene, replica, self.checked)?;
        }
        Ok(())
    }

    fn truncated(&self, scene: &Scene<'_>, replica: usize, above: OpNumber, head: OpNumber) -> Result<(), String> {
        for op in (above.0 + 1..=head.min(self.acknowledged).0).map(OpNumber) {
            if let (Some(content), Some(durable)) = (self.contents.get(op.0), scene.disks[replica].durable(op))
                && content == durable
            {
                return Err(format!(
                    "r{replica} drops ops {}..{head}; op {op} ({content}) among them was acknowledged",
                    above.next()
                ));
            }
        }
        Ok(())
    }
}

impl Checker for AcknowledgedStays {
    fn name(&self) -> &'static str {
        "acknowledged-stays"
    }

    fn wants(&self) -> Interests {
        Interests::ANSWERS
            | Interests::ACKNOWLEDGED
            | Interests::EVENT
            | Interests::TURN
            | Interests::WRITTEN
            | Interests::STARTED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Sent { replica, message: Message::Replies { replies, .. } } => {
                self.acknowledge(highest_executed(replies), Some(replica));
            }
            Observation::Acknowledged { position, .. } => self.acknowledge(position.op, None),
            Observation::Event { replica, event: Event::Applied { op, checksum }, .. } => {
                let content = self.contents.get_or_put(op.0, *checksum);
                if content != *checksum && *op <= self.acknowledged {
                    return Err(format!("r{replica} applies op {op} as {checksum}, it was acknowledged as {content}"));
                }
            }
            Observation::Event { replica, event: Event::Truncated { above, head }, .. } => {
                return self.truncated(scene, replica, *above, *head);
            }
            Observation::Turn { replica, .. } => return self.look_at_new(scene, replica),
            Observation::Written { replica } => return self.look_at_sample(scene, replica),
            Observation::Started { replica } => {
                let newest = self.checked.0.saturating_sub(NEWEST) + 1..=self.checked.0;
                return newest.map(OpNumber).try_for_each(|op| self.look_at(scene, replica, op));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The log of a view holds every op that was committed in the views before it: its `StartView` names each with the
/// committed content, and its primary prepares nothing else in their place.
#[derive(Debug, Default)]
pub(super) struct NewViewHoldsCommitted {
    contents: Table<Checksum>,
    /// Up to which op was committed in which view or before; both go up.
    frontier: Vec<(View, OpNumber)>,
}

impl NewViewHoldsCommitted {
    /// What was committed in the views before this one.
    fn committed_before(&self, view: View) -> OpNumber {
        let before = self.frontier.iter().rev().find(|(of, _)| *of < view);
        before.map_or(OpNumber::ZERO, |(_, op)| *op)
    }

    /// A replica with the log of this view applied an op: it was committed in this view or before.
    fn committed(&mut self, view: View, op: OpNumber) {
        let mut at = self.frontier.partition_point(|(of, _)| *of <= view);
        match at.checked_sub(1).map(|before| &mut self.frontier[before]) {
            Some((_, known)) if *known >= op => return,
            Some((of, known)) if *of == view => *known = op,
            _ => {
                self.frontier.insert(at, (view, op));
                at += 1;
            }
        }
        while self.frontier.get(at).is_some_and(|(_, known)| *known <= op) {
            self.frontier.remove(at);
        }
    }

    /// What was committed at an op, if it is something else.
    fn instead_of(&self, op: OpNumber, checksum: Checksum) -> Option<Checksum> {
        self.contents.get(op.0).filter(|content| *content != checksum)
    }

    fn start_view(&self, replica: usize, start: &StartView) -> Result<(), String> {
        let (view, head) = (start.view, start.head);
        let committed = self.committed_before(view);
        if head < committed {
            return Err(format!("r{replica} starts view {view} with head {head}, op {committed} was committed before"));
        }
        for header in start.headers.iter().filter(|header| header.op <= committed) {
            let (op, checksum) = (header.op, header.checksum());
            if let Some(content) = self.instead_of(op, checksum) {
                return Err(format!(
                    "r{replica} starts view {view} with op {op} as {checksum}, it was committed before as {content}"
                ));
            }
        }
        Ok(())
    }
}

impl Checker for NewViewHoldsCommitted {
    fn name(&self) -> &'static str {
        "new-view-holds-what-was-committed"
    }

    fn wants(&self) -> Interests {
        Interests::APPLIED | Interests::VIEW_CHANGE | Interests::PREPARE
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Event { core, event: Event::Applied { op, checksum }, .. } => {
                self.contents.get_or_put(op.0, *checksum);
                self.committed(core.log_view(), *op);
            }
            Observation::Sent { replica, message: Message::StartView(start) } => {
                return self.start_view(replica, start);
            }
            Observation::Sent { replica, message: Message::Prepare { view, entry, .. } } => {
                let (op, checksum) = (entry.header.op, entry.header.checksum());
                if op <= self.committed_before(*view)
                    && let Some(content) = self.instead_of(op, checksum)
                {
                    return Err(format!(
                        "r{replica} prepares op {op} in view {view} as {checksum}, it was committed before as {content}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
