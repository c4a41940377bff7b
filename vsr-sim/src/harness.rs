//! One protocol core, moved by hand: the core, a state machine, and the disk's side of the contract, without a driver.
//!
//! [`script`](crate::scenario::script) and [`explore`](crate::explore) choose every moment themselves, so they cannot run the
//! driver, which waits for its storage and its network. Both drive their cores with this instead: it is the one place in the
//! simulator that calls [`Core::turn`] and [`Core::recover`]. It differs from the driver in two things: timers fire only in
//! turns that ask for them, and a read ends at once, as the input of the next turn. A write stays under way until
//! [`Harness::complete_write`]; where a message goes is the caller's business.

use bytes::Bytes;
use vsr::protocol::{
    ApplyContext, Batch, BatchNumber, Core, Effects, Entry, Halt, Input, Inputs, Machine, Monotonic, OpNumber, Options,
    Position, Recovered, Timestamp,
};
use vsr::{ClientId, Timing};

use crate::files::SimDisk;

/// What a harness needs of a disk. One write is under way at most.
pub(crate) trait Disk {
    /// A write begins.
    fn begin(&mut self, batch: Batch);

    /// The write under way is durable.
    fn complete(&mut self);

    /// The durable entry of an op, if it can be read.
    fn entry(&self, op: OpNumber) -> Option<&Entry>;
}

impl Disk for SimDisk {
    fn begin(&mut self, batch: Batch) {
        SimDisk::begin(self, batch);
    }

    fn complete(&mut self) {
        SimDisk::complete(self);
    }

    fn entry(&self, op: OpNumber) -> Option<&Entry> {
        self.intact(op)
    }
}

/// What the state machine replies to a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReplyWith {
    /// The number of commands executed so far, as text.
    Count,
    /// All commands executed so far, one behind the other.
    Commands,
}

/// A command that was executed.
#[derive(Clone, Debug)]
pub(crate) struct Execution {
    pub(crate) position: Position,
    pub(crate) command: Bytes,
    pub(crate) reply: Vec<u8>,
}

/// A state machine whose state is the list of the commands executed, in order.
#[derive(Clone, Debug)]
struct Listing {
    reply_with: ReplyWith,
    executed: Vec<Bytes>,
    /// What was executed since the present step began.
    fresh: Vec<Execution>,
}

impl Machine for Listing {
    fn can_decode(&self, command: &Bytes) -> bool {
        !command.starts_with(b"undecodable")
    }

    fn apply(&mut self, context: &ApplyContext, command: Bytes, reply: &mut Vec<u8>) -> Result<(), Halt> {
        self.executed.push(command.clone());
        match self.reply_with {
            ReplyWith::Count => reply.extend(self.executed.len().to_string().bytes()),
            ReplyWith::Commands => self.executed.iter().for_each(|command| reply.extend_from_slice(command)),
        }
        self.fresh.push(Execution { position: context.position, command, reply: reply.clone() });
        Ok(())
    }
}

/// How a process is started.
pub(crate) struct Start {
    /// The number of the replica.
    pub(crate) at: usize,
    /// What sets the random draws of this process apart from those of the replica's others.
    pub(crate) starts: u64,
    /// The client id of the replica's own handle.
    pub(crate) local_client: ClientId,
    pub(crate) timing: Timing,
    pub(crate) reply_with: ReplyWith,
}

/// What a turn has done with the disk.
pub(crate) struct Turn {
    /// Bytes of the bodies in the write that it began; 0 when it began none.
    pub(crate) bytes: u64,
    /// Whether it has read something: the next turn takes that in, and is due at once.
    pub(crate) again: bool,
}

/// One core from its start to its crash.
#[derive(Clone)]
pub(crate) struct Harness {
    core: Core,
    machine: Listing,
    /// The batch that is being written.
    writing: Option<BatchNumber>,
    /// What the next turn is told.
    inputs: Inputs,
    /// What turns wanted done and nobody has taken so far.
    effects: Effects,
}

impl Harness {
    /// Starts a process from what its disk gave.
    ///
    /// # Errors
    /// Why the core refuses to start.
    pub(crate) fn recover(
        start: &Start,
        recovered: Recovered,
        now: Monotonic,
        wall: Timestamp,
    ) -> Result<Harness, Halt> {
        let options = Options {
            timing: start.timing,
            seed: start.starts * 7919 + start.at as u64,
            local_client: start.local_client,
            machine_version: 1,
            log_bytes_max: 1 << 30,
            cache_bytes: 1 << 20,
            queue_bytes_max: 32 << 20,
            checkpoints: false,
        };
        let core = Core::recover(options, recovered, now, wall)?;
        Ok(Harness {
            core,
            machine: Listing { reply_with: start.reply_with, executed: Vec::new(), fresh: Vec::new() },
            writing: None,
            inputs: Inputs::default(),
            effects: Effects::default(),
        })
    }

    // ---- what happens ----

    /// A step begins: what its first turn is told, with nothing arrived and no timer that fires. A write that was completed
    /// just before is reported in it, and the room is that of the last step (at first unlimited).
    pub(crate) fn inputs(&mut self, now: Monotonic, wall: Timestamp) -> &mut Inputs {
        self.machine.fresh.clear();
        (self.inputs.now, self.inputs.wall, self.inputs.timers) = (now, wall, false);
        &mut self.inputs
    }

    /// One turn, with what it wants of the disk. The rest of the effects is to be [taken](Self::take_effects).
    pub(crate) fn turn(&mut self, disk: &mut impl Disk) -> Turn {
        let Harness { core, machine, writing, inputs, effects } = self;
        core.turn(inputs, machine, effects);
        inputs.timers = false;
        let mut bytes: u64 = 0;
        if let Some((number, batch)) = effects.write.take() {
            bytes = batch.entries.iter().map(|entry| entry.body.len() as u64).sum();
            disk.begin(batch);
            *writing = Some(number);
        }
        for request in effects.reads.drain(..) {
            let ops = (request.ops().start().0..=request.ops().end().0).map(OpNumber);
            let entries = ops.map(|op| (op, disk.entry(op).cloned())).collect();
            inputs.arrived.push(Input::Read { request, entries });
        }
        Turn { bytes, again: !inputs.arrived.is_empty() }
    }

    /// Turns until nothing is left to do at once; a write stays under way. Returns what all of them wanted done.
    pub(crate) fn settle(&mut self, disk: &mut impl Disk) -> Effects {
        while self.turn(disk).again {}
        self.take_effects()
    }

    /// What turns wanted done since this was last called, but for writes and reads: they are done.
    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// The write under way becomes durable; the next turn is told. `None` when there is no write.
    pub(crate) fn complete_write(&mut self, disk: &mut impl Disk) -> Option<BatchNumber> {
        let batch = self.writing.take()?;
        disk.complete();
        self.inputs.written = Some(batch);
        Some(batch)
    }

    // ---- what is ----

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// The commands executed since the start, in order.
    pub(crate) fn executed(&self) -> &[Bytes] {
        &self.machine.executed
    }

    /// What was executed in the present step, if it was not taken before.
    pub(crate) fn take_executions(&mut self) -> Vec<Execution> {
        std::mem::take(&mut self.machine.fresh)
    }

    /// All that a later step can depend on: core, executed commands, write under way. Between two steps the buffers are empty.
    pub(crate) fn state(&self) -> (&Core, &[Bytes], Option<BatchNumber>) {
        let Harness { core, machine, writing, inputs: _, effects: _ } = self;
        (core, machine.executed.as_slice(), *writing)
    }
}

#[cfg(test)]
mod tests {
    use vsr::protocol::{DiskId, Outcome, Reply, Request, RequestNumber, SessionId, VsrState};
    use vsr::{ClusterId, Membership, ReplicaId};

    use super::*;

    const NOW: Monotonic = Monotonic(1_000_000_000);
    const CLIENT: ClientId = ClientId(9);

    /// A cluster of one, before its first step.
    fn solo(reply_with: ReplyWith) -> (Harness, SimDisk) {
        let membership = Membership::new(["here"]).unwrap();
        let mut disk = SimDisk::new(VsrState::formatted(ClusterId(1), ReplicaId(0), DiskId(1), membership));
        let start = Start { at: 0, starts: 1, local_client: CLIENT, timing: Timing::default(), reply_with };
        let harness = Harness::recover(&start, disk.start(), NOW, Timestamp(1)).unwrap();
        (harness, disk)
    }

    /// A step with requests of the own handle, and a step for each write that follows from it.
    fn run(harness: &mut Harness, disk: &mut SimDisk, requests: Vec<Request>) -> Vec<Reply> {
        let inputs = harness.inputs(NOW, Timestamp(1));
        inputs.timers = true;
        inputs.arrived.push(Input::Requests(requests));
        let mut replies = harness.settle(disk).replies;
        while harness.complete_write(disk).is_some() {
            harness.inputs(NOW, Timestamp(1));
            replies.extend(harness.settle(disk).replies);
        }
        replies
    }

    fn request(session: SessionId, number: u64, command: &'static [u8]) -> Request {
        let number = RequestNumber(number);
        Request { client: CLIENT, session, number, floor: number, command: Bytes::from_static(command) }
    }

    /// The replies to the commands `a` and `b`.
    fn replies(reply_with: ReplyWith) -> Vec<Outcome> {
        let (mut harness, mut disk) = solo(reply_with);
        run(&mut harness, &mut disk, Vec::new());
        let register = request(SessionId::default(), 0, b"");
        let Outcome::Registered(session) = run(&mut harness, &mut disk, vec![register])[0].outcome else {
            panic!("no session")
        };
        let commands = [(1, b"a"), (2, b"b")].map(|(number, command)| request(session, number, command));
        let all = commands.into_iter().flat_map(|command| run(&mut harness, &mut disk, vec![command]));
        let outcomes = all.map(|reply| reply.outcome).collect();
        assert_eq!(harness.executed(), ["a", "b"]);
        outcomes
    }

    #[test]
    fn the_machine_replies_with_the_number_or_the_list_of_what_was_executed() {
        let reply = |text: &'static str| Outcome::Reply(Bytes::from_static(text.as_bytes()));
        assert_eq!(replies(ReplyWith::Count), [reply("1"), reply("2")]);
        assert_eq!(replies(ReplyWith::Commands), [reply("a"), reply("ab")]);
    }

    #[test]
    fn a_write_is_under_way_until_it_is_completed_and_is_told_once() {
        let (mut harness, mut disk) = solo(ReplyWith::Count);
        assert!(!harness.is_writing() && harness.complete_write(&mut disk).is_none());
        harness.inputs(NOW, Timestamp(1));
        let effects = harness.settle(&mut disk);
        // The write was begun here, and is not for the caller to carry out.
        assert!(harness.is_writing() && disk.is_writing() && effects.write.is_none());
        assert_eq!(harness.complete_write(&mut disk), Some(BatchNumber(1)));
        assert!(!harness.is_writing() && !disk.is_writing());
        assert_eq!(harness.complete_write(&mut disk), None);
        harness.inputs(NOW, Timestamp(1));
        harness.settle(&mut disk);
        assert_eq!(harness.core().halted(), None);
        assert_eq!(harness.inputs.written, None);
    }
}
