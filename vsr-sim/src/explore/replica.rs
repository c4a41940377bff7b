//! One replica: the protocol, its disk, and what only this replica can contradict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use vsr::protocol::{
    self, BatchNumber, CommitNumber, Core, DiskId, DoViewChange, Event, Message, Monotonic, OpNumber, Outcome, Peer,
    Phase, Position, Status, Timestamp, View, VsrState,
};
use vsr::{Checksum, ClientId, Membership, ReplicaId, Timing};

use super::crash_disk::{CrashDisk, CrashOutcome};
use super::facts::{Broken, Fact};
use super::{CLUSTER, FIRST_CLIENT};
use crate::harness::{Execution, Harness, ReplyWith, Start};

/// Time stands still but for the timer that fires, so what may happen is a nanosecond away (too short for
/// jitter), and what shall not happen is never reached.
const SOON: Duration = Duration::from_nanos(1);
/// What passes when a timer fires: more than what is soon, with every back-off.
const MOMENT: Duration = Duration::from_nanos(16);
const NEVER: Duration = Duration::from_secs(1_000_000);
const LATER: u64 = 1_000_000_000;
const START: Monotonic = Monotonic(LATER);
/// The time of day stands still altogether.
const WALL: Timestamp = Timestamp(LATER);

fn timing() -> Timing {
    Timing::default().with(|timing| {
        (timing.heartbeat, timing.primary_timeout, timing.view_change_timeout) = (SOON, SOON, SOON);
        (timing.retry, timing.ping, timing.quorum_timeout) = (NEVER, NEVER, NEVER);
        (timing.disk_stall_timeout, timing.forward_timeout) = (NEVER, NEVER);
        timing.scrub = Duration::ZERO;
    })
}

/// What the replica has said that it must not contradict, over restarts too.
#[derive(Clone, Debug, Default)]
struct Said {
    /// What its `DoViewChange` for each view said of its log.
    logs: BTreeMap<View, Checksum>,
    /// The ops it has acknowledged with the log of each log_view.
    acknowledged: BTreeMap<View, BTreeSet<OpNumber>>,
}

/// What the firing of a replica's next timer would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    None,
    Heartbeat,
    Vote,
}

/// What happens to a replica.
pub(super) enum Input {
    Start,
    Messages(Vec<(Peer, Message)>),
    Written,
    Timer,
    Crash { outcome: CrashOutcome, forget_above: Option<OpNumber> },
}

/// A message that leaves.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) to: usize,
    /// The receiver was drawn by chance: it might have been any other replica.
    pub(super) drawn: bool,
    pub(super) message: Message,
}

/// What comes of a step beside the replica's new state.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) sent: Vec<Sent>,
    pub(super) facts: Vec<Fact>,
}

#[derive(Clone)]
pub(super) struct Replica {
    at: usize,
    harness: Harness,
    disk: CrashDisk,
    /// The last durable batch of this life.
    written: BatchNumber,
    now: Monotonic,
    said: Said,
    /// This life has told the others how far its log reaches.
    introduced: bool,
}

impl Replica {
    pub(super) fn new(at: usize, membership: &Membership) -> Result<Replica, Broken> {
        let disk_id = DiskId(1000 + at as u128);
        let state = VsrState::formatted(CLUSTER, ReplicaId(at as u8), disk_id, membership.clone());
        let disk = CrashDisk::new(state);
        let harness = recover(at, &disk, START)?;
        let said = Said::default();
        Ok(Replica { at, harness, disk, written: BatchNumber(0), now: START, said, introduced: false })
    }

    pub(super) fn core(&self) -> &Core {
        self.harness.core()
    }

    pub(super) fn disk(&self) -> &CrashDisk {
        &self.disk
    }

    pub(super) fn is_writing(&self) -> bool {
        self.harness.is_writing()
    }

    pub(super) fn timer(&self) -> Timer {
        if self.core().next_deadline().since(self.now) >= Duration::from_nanos(LATER) {
            Timer::None
        } else if self.core().is_primary() {
            Timer::Heartbeat
        } else {
            Timer::Vote
        }
    }

    /// A turn as the driver makes it, and those that follow from what it reads, with every check that needs this replica
    /// only. Timers fire when the search says so.
    ///
    /// # Errors
    /// The property that was broken.
    pub(super) fn step(&mut self, input: Input) -> Result<Effects, Broken> {
        let (mut known, mut timers, mut arrived) = (Some(self.core().commit()), false, Vec::new());
        match input {
            Input::Start => (known, timers) = (None, true),
            Input::Messages(messages) => arrived = messages,
            Input::Written => self.complete_write()?,
            Input::Timer => {
                self.now = self.now.after(MOMENT);
                timers = true;
            }
            Input::Crash { outcome, forget_above } => {
                (known, timers) = (None, true);
                self.restart(outcome, forget_above)?;
            }
        }
        let inputs = self.harness.inputs(self.now, WALL);
        inputs.timers = timers;
        let arrived = arrived.into_iter();
        inputs.arrived.extend(arrived.map(|(from, message)| protocol::Input::Message { from, message }));
        let protocol::Effects { events, messages, .. } = self.harness.settle(&mut self.disk);
        let mut effects = Effects { sent: Vec::new(), facts: self.observe(known, &events)? };
        for envelope in messages {
            self.check_message(&envelope.message)?;
            self.send(envelope.to, envelope.message, &mut effects)?;
        }
        self.introduced |= effects.sent.iter().any(|sent| matches!(sent.message, Message::Ping(_)));
        let asks =
            |sent: &Sent| matches!(sent.message, Message::RequestEntries { .. } | Message::RequestHeaders { .. });
        for at in 0..effects.sent.len() {
            let kind = effects.sent[at].message.name();
            let of_kind = effects.sent.iter().filter(|sent| sent.message.name() == kind).count();
            effects.sent[at].drawn = of_kind == 1 && asks(&effects.sent[at]);
        }
        let VsrState { log_view, commit, .. } = *self.disk.state();
        self.said.logs.retain(|said, _| *said > log_view);
        self.said.acknowledged.retain(|said, _| *said >= log_view);
        self.said.acknowledged.values_mut().for_each(|ops| ops.retain(|op| *op > commit.op()));
        Ok(effects)
    }

    fn complete_write(&mut self) -> Result<(), Broken> {
        let before = numbers(self.disk.state());
        let Some(batch) = self.harness.complete_write(&mut self.disk) else { return Ok(()) };
        let after = numbers(self.disk.state());
        if after.0 < before.0 || after.1 < before.1 || after.2 < before.2 {
            let ((view, log_view, commit), (v, l, c)) = (after, before);
            let message = format!(
                "the disk of r{} went from view {v}, log_view {l}, commit {c} back to {view}, {log_view}, {commit}",
                self.at
            );
            return Err(Broken::new("monotone-view-log-view-commit", message));
        }
        self.written = batch;
        Ok(())
    }

    /// The process dies and comes back at once: how long it is down makes no difference to the others, who
    /// cannot tell it from a slow one.
    fn restart(&mut self, outcome: CrashOutcome, forget_above: Option<OpNumber>) -> Result<(), Broken> {
        self.disk.crash(outcome);
        if let Some(op) = forget_above {
            self.disk.forget_above(op);
        }
        (self.written, self.introduced) = (BatchNumber(0), false);
        self.harness = recover(self.at, &self.disk, self.now)?;
        Ok(())
    }

    fn observe(&mut self, known: Option<CommitNumber>, events: &[Event]) -> Result<Vec<Fact>, Broken> {
        let (at, core) = (self.at, self.harness.core());
        if let Some(fault) = core.halted() {
            return Err(Broken::new("replica-stopped", format!("r{at} has stopped: {fault}")));
        }
        let (view, log_view, commit, applied) = (core.view(), core.log_view(), core.commit(), core.applied());
        let normal = core.status() == Status::Normal;
        if log_view > view || (normal && log_view != view) || applied > commit.op() || applied > core.head() {
            let message = format!(
                "r{at}: {:?} in view {view}, log_view {log_view}, applied {applied}, commit {commit}, head {}",
                core.status(),
                core.head()
            );
            return Err(Broken::new("state-order", message));
        }
        if known.is_some_and(|known| commit < known) {
            let message = format!("r{at} went from commit {known:?} back to {commit}");
            return Err(Broken::new("monotone-view-log-view-commit", message));
        }
        let mut facts = Vec::new();
        for event in events {
            match event {
                Event::Applied { op, checksum } => facts.push(Fact::Applied { op: *op, checksum: *checksum }),
                Event::ViewStarted { view, primary } if usize::from(primary.0) == at => {
                    let log = (1..=core.head().0).map(|op| core.checksum(OpNumber(op))).collect();
                    facts.push(Fact::Started { view: *view, log });
                }
                Event::Truncated { above, head } if known.is_some_and(|known| *above < known.op()) => {
                    let message = format!("r{at} drops ops above {above} up to {head}, commit {known:?}");
                    return Err(Broken::new("committed-is-never-dropped", message));
                }
                _ => {}
            }
        }
        if let Some(known) = known.filter(|_| core.is_primary()) {
            let counted = (known.0 + 1..=commit.0).map(OpNumber);
            let counted = counted.filter_map(|op| core.checksum(op).map(|checksum| (op, checksum)));
            facts.extend(counted.map(|(op, checksum)| Fact::Counted { view, op, checksum }));
        }
        facts.extend(self.harness.take_executions().into_iter().map(executed));
        Ok(facts)
    }

    fn send(&self, to: Peer, message: Message, effects: &mut Effects) -> Result<(), Broken> {
        let to = match to {
            Peer::Replica(id) => usize::from(id.0),
            Peer::Client(client) => return self.reply(client, message, &mut effects.facts),
        };
        match &message {
            // For reads, and for clocks and the health of links: nothing here depends on them, but for the first ping of a life.
            Message::CommitOk { .. } => return Ok(()),
            Message::Ping(_) if self.introduced => return Ok(()),
            Message::Prepare { view, entry, .. } => {
                let header = &entry.header;
                let (of, op, checksum) = (header.view, header.op, header.checksum());
                effects.facts.push(Fact::Prepared { replica: self.at, view: *view, of, op, checksum });
            }
            _ => {}
        }
        effects.sent.push(Sent { to, drawn: false, message });
        Ok(())
    }

    /// A client hears at once: nothing that it does depends on when.
    fn reply(&self, client: ClientId, message: Message, facts: &mut Vec<Fact>) -> Result<(), Broken> {
        let Message::Replies { replies, .. } = message else { return Ok(()) };
        for reply in replies {
            let request = client.0.wrapping_sub(FIRST_CLIENT) as u8;
            match reply.outcome {
                Outcome::Reply(bytes) => {
                    facts.push(Fact::Acknowledged { request, position: reply.position, reply: bytes.to_vec() });
                }
                Outcome::Refused(refusal) => {
                    let message = format!("r{} refuses a request of an open session: {refusal:?}", self.at);
                    return Err(Broken::new("no-request-is-refused", message));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_message(&mut self, message: &Message) -> Result<(), Broken> {
        self.check_views(message)?;
        match message {
            Message::PrepareOk { view, op, checksum, .. } => self.check_acknowledged(*view, *op, *checksum),
            Message::DoViewChange(dvc) => self.check_do_view_change(dvc),
            _ => Ok(()),
        }
    }

    /// No message carries a view that is not durable; what speaks of the log, or as a member of a started
    /// view, needs the durable log_view as well.
    fn check_views(&self, message: &Message) -> Result<(), Broken> {
        let (view, log_view) = match message {
            Message::StartViewChange { leaving: view, .. } | Message::Replies { view, .. } => (*view, None),
            Message::DoViewChange(dvc) => (dvc.view, Some(dvc.log_view)),
            Message::StartView(start) => (start.view, Some(start.view)),
            Message::Prepare { view, .. } | Message::PrepareOk { view, .. } | Message::Commit { view, .. } => {
                (*view, Some(*view))
            }
            _ => return Ok(()),
        };
        let durable = self.disk.state();
        if view <= durable.view && log_view.is_none_or(|log_view| log_view == durable.log_view) {
            return Ok(());
        }
        let (name, at) = (message.name(), self.at);
        let message = format!(
            "r{at} sends {name} of view {view} (log_view {log_view:?}), its disk has view {}, log_view {}",
            durable.view, durable.log_view
        );
        Err(Broken::new("nothing-leaves-before-it-is-durable", message))
    }

    fn check_acknowledged(&mut self, view: View, op: OpNumber, checksum: Checksum) -> Result<(), Broken> {
        let (mut above, mut name) = (op, checksum);
        let acknowledged = self.said.acknowledged.entry(view).or_default();
        while above > OpNumber::ZERO {
            let Some(header) = self.disk.header(above).filter(|header| header.checksum() == name) else { break };
            acknowledged.insert(above);
            (above, name) = (above.prev(), header.parent);
        }
        // What is committed may be acknowledged without a copy: others have it.
        if above > self.core().commit().op() {
            let message = format!("r{} acknowledges op {op}, its disk lacks op {above} ({name})", self.at);
            return Err(Broken::new("acknowledged-is-durable", message));
        }
        Ok(())
    }

    fn check_do_view_change(&mut self, dvc: &DoViewChange) -> Result<(), Broken> {
        let (at, view, head) = (self.at, dvc.view, dvc.head);
        let mut bytes = format!("{} {} {head}", dvc.log_view, dvc.commit).into_bytes();
        dvc.headers.iter().for_each(|header| bytes.extend(header.checksum().0.to_le_bytes()));
        let says = Checksum::of(&bytes);
        if *self.said.logs.entry(view).or_insert(says) != says {
            let message = format!("r{at} sends a DoViewChange for view {view} that differs from its first");
            return Err(Broken::new("one-do-view-change-per-view", message));
        }
        let Some(acknowledged) = self.said.acknowledged.get(&dvc.log_view) else { return Ok(()) };
        for op in acknowledged.iter().filter(|op| **op > dvc.commit.op()) {
            let fact = dvc.evidence.get((op.0 - dvc.commit.0 - 1) as usize);
            if fact.map_or(dvc.head_certain, |fact| fact.nack) {
                let message = format!("r{at} nacks op {op} for view {view} (head {head}), and had acknowledged it");
                return Err(Broken::new("nacked-never-acknowledged", message));
            }
        }
        Ok(())
    }

    /// A text that is equal for two states of a replica only if they behave alike from now on.
    ///
    /// Left out is what has no influence on that: absolute times and batch numbers (only what is past or
    /// durable counts, and what is ahead), the state of the generator (every peer that it could draw is tried), and
    /// what is only left over from a role or a view change. Checksums stand in the text with 32 bits: enough to
    /// tell the few hundred contents apart that occur.
    pub(super) fn canonical(&self, text: &mut String, out: &mut String) {
        text.clear();
        out.clear();
        let Replica { at, harness, disk, written, now: _, said, introduced } = self;
        let (core, executed, writing) = harness.state();
        let no_write_yet = written.0 == 0;
        let _ = write!(text, "{at} {core:?} {executed:?} {disk:?} {writing:?} {no_write_yet} {said:?} {introduced}");
        // What a primary counts starts from nothing when a replica takes up the role; what a view change
        // gathers is forgotten when the next begins.
        if core.primary_id() != core.id() {
            cut_answers(text);
        }
        cut(text, "backoff: ", ", fast_votes");
        // What the last turn left behind is compared with, and decides nothing.
        cut(text, "checked: ", ", news");
        if core.is_primary() {
            // Those of the others: no primary votes here, and they are forgotten when its view ends.
            cut(text, "until: [", " }, dvcs");
        }
        if let Phase::Normal | Phase::Installing { .. } | Phase::AwaitingMembers | Phase::RepairingPrimary =
            core.phase()
        {
            cut(text, "dvcs: [", ", lost_told");
            cut(text, "copies: {", ", progress_at");
        }
        let mut done = 0;
        for (open, _) in text.match_indices('(') {
            let before = &text[..open];
            let number: fn(u64, &Replica) -> String = if before.ends_with("Monotonic") {
                |number, node| time(number, node.now.0)
            } else if before.ends_with("BatchNumber") {
                |number, node| number.saturating_sub(node.written.0).to_string()
            } else if before.ends_with("Random") {
                |_, _| String::new()
            } else {
                continue;
            };
            let digits = &text[open + 1..];
            let end = digits.find(')').unwrap_or(0);
            if let Ok(value) = digits[..end].parse() {
                out.push_str(&text[done..=open]);
                out.push_str(&number(value, self));
                done = open + 1 + end;
            }
        }
        out.push_str(&text[done..]);
    }
}

/// The place of a mark in a text, from there on. A field of the core that has another name now, or another neighbour, is noticed here:
/// nothing would be cut at its mark, or too much.
fn find(text: &str, from: usize, mark: &str) -> usize {
    match text[from..].find(mark) {
        Some(at) => from + at,
        None => panic!("the text of a replica has no {mark:?} where it is looked for: {}", &text[from..]),
    }
}

/// Takes everything from one mark to another out of a text.
fn cut(text: &mut String, from: &str, to: &str) {
    let start = find(text, 0, from);
    let end = find(text, start, to);
    text.drain(start..end);
}

/// Takes out what each member has answered: the last fields of its `Progress`.
fn cut_answers(text: &mut String) {
    let mut from = find(text, find(text, 0, "progress: "), ", acknowledged: ");
    loop {
        let end = text[from..].find(", random: ").map_or(text.len(), |end| from + end);
        let Some(start) = text[from..end].find(", acknowledged: ").map(|start| from + start) else { return };
        let last = find(text, start, " } }");
        text.drain(start..last);
        from = start;
    }
}

/// A moment as it stands to the present one. What is past has passed every limit that can be passed here.
fn time(moment: u64, now: u64) -> String {
    match moment.checked_sub(now) {
        None | Some(0) => "past".to_owned(),
        Some(ahead) if ahead < LATER => "soon".to_owned(),
        Some(_) => "later".to_owned(),
    }
}

/// What must never go down on a disk.
fn numbers(state: &VsrState) -> (View, View, CommitNumber) {
    (state.view, state.log_view, state.commit)
}

fn recover(at: usize, disk: &CrashDisk, now: Monotonic) -> Result<Harness, Broken> {
    let start = Start {
        at,
        starts: disk.state().starts,
        local_client: ClientId(1 + at as u128),
        timing: timing(),
        reply_with: ReplyWith::Commands,
    };
    Harness::recover(&start, disk.recover(), now, WALL)
        .map_err(|fault| Broken::new("replica-stopped", format!("r{at} does not start: {fault}")))
}

/// A command is the number of its request.
fn executed(Execution { position, command, reply }: Execution) -> Fact {
    Fact::Executed { request: command.first().copied().unwrap_or_default(), position, reply }
}

/// The place of a request of a client whose session is the `index`-th that was opened, all in op 1.
pub(super) fn session(index: u8) -> vsr::protocol::SessionId {
    vsr::protocol::SessionId(Position { op: OpNumber(1), index: index.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_two_marks_is_taken_out() {
        let mut text = "a: 1, b: 2, c: 3".to_owned();
        cut(&mut text, "b: ", ", c");
        assert_eq!(text, "a: 1, , c: 3");
    }

    #[test]
    #[should_panic(expected = "has no \", d\" where it is looked for")]
    fn a_mark_that_is_gone_is_noticed() {
        cut(&mut "a: 1, b: 2, c: 3".to_owned(), "b: ", ", d");
    }
}
