//! One turn of a replica: the only way in and out of [`Core`].
//!
//! A caller repeats four steps:
//!
//! 1. Fill [`Inputs`] with the time, with the write that became durable, and with everything that has arrived since the
//!    last turn.
//! 2. Call [`Core::turn`].
//! 3. Carry out the [`Effects`], in the order of the fields: tell replies, answer queries, start the write and the reads,
//!    take the digest and the checkpoint, take up a state machine that was restored, hand the messages to the network, show events and marks to observers. Leave every buffer empty.
//! 4. Look at [`Core::halted`]: after `Some` there is no further turn. Else make the next turn at once if
//!    [`Effects::again`] says so, and else when something arrives or [`Core::next_deadline`] has come.
//!
//! Within a turn the core works in a fixed order: the write that became durable, the room of the disk, the inputs as they
//! stand in [`Inputs::arrived`], due timers, applying, a new op of the requests that wait, read rounds, repair, a look at its
//! own numbers, the next write.
//! Inputs come first so that the batching follows from the load: what has arrived together becomes one op, one write and
//! one message to each peer.
//!
//! # What is safe, and why
//!
//! - **Messages may leave at once.** A message that needs a durable write stays in the core until the end of that write
//!   has been an input (rule 6.4; `docs/messages.md` has the write that each message waits for). So the order between
//!   [`Effects::write`] and [`Effects::messages`] is free, and the disks of primary and backups work at the same time.
//! - **A write is reported when it is durable, and not before.** [`Inputs::written`] is what releases messages. One write is
//!   in flight at a time: the next one comes out only after the last one went in as `written`.
//! - **Replies may be told at once.** They are of committed ops, or say that a request was not taken.
//! - **Queries are answered before the next turn**, from the state machine as the turn has left it: the next turn may
//!   apply further ops, and may stop inside one (rule 8.6).
//! - **A lost effect is allowed only where a crash is.** Messages may be lost. A write, a read or a reply that is dropped
//!   leaves the core waiting for it.
//!
//! After a [`Halt`](crate::protocol::Halt) the core takes in nothing and sends nothing. One write may still be handed out then: that its disk is an
//! old copy has to be durable before the replica says that it has stopped.
//!
//! # A cluster of one, by hand
//!
//! ```
//! use bytes::Bytes;
//! use vsr::protocol::{
//!     ApplyContext, ClientId, ClusterId, Core, DiskId, Effects, Halt, Input, Inputs, Machine, Membership,
//!     Monotonic, Options, Outcome, Recovered, Reply, ReplicaId, Request, RequestNumber, SessionId, Timestamp, Timing,
//!     VsrState,
//! };
//!
//! /// Answers how many bytes the commands had so far.
//! struct Length(usize);
//!
//! impl Machine for Length {
//!     fn can_decode(&self, _: &Bytes) -> bool {
//!         true
//!     }
//!     fn apply(&mut self, _: &ApplyContext, command: Bytes, reply: &mut Vec<u8>) -> Result<(), Halt> {
//!         self.0 += command.len();
//!         reply.extend(self.0.to_string().bytes());
//!         Ok(())
//!     }
//! }
//!
//! let state = VsrState::formatted(ClusterId(1), ReplicaId(0), DiskId(1), Membership::new(["here"]).unwrap());
//! let options = Options {
//!     timing: Timing::default(),
//!     seed: 1,
//!     local_client: ClientId(7),
//!     machine_version: 1,
//!     log_bytes_max: 1 << 20,
//!     cache_bytes: 1 << 20,
//!     queue_bytes_max: 1 << 20,
//!     checkpoints: false,
//! };
//! let recovered = Recovered { state, slots: Vec::new(), head_certain: true };
//! let mut core = Core::recover(options, recovered, Monotonic(0), Timestamp(0)).unwrap();
//! let (mut machine, mut disk) = (Length(0), Vec::new());
//!
//! // Makes turns until nothing is left to do.
//! let mut run = |requests: Vec<Request>| -> Vec<Reply> {
//!     let mut inputs = Inputs { arrived: vec![Input::Requests(requests)], ..Inputs::default() };
//!     let mut effects = Effects::default();
//!     let mut replies = Vec::new();
//!     loop {
//!         core.turn(&mut inputs, &mut machine, &mut effects);
//!         replies.append(&mut effects.replies);
//!         if let Some((number, batch)) = effects.write.take() {
//!             disk.push(batch); // durable from here on
//!             inputs.written = Some(number);
//!         } else if !effects.again {
//!             return replies;
//!         }
//!         effects.events.clear(); // not shown to an observer; without peers there are no messages
//!         effects.marks.clear();
//!     }
//! };
//!
//! run(Vec::new()); // it starts, and becomes the primary
//! let register = Request {
//!     client: ClientId(7),
//!     session: SessionId::default(),
//!     number: RequestNumber(0),
//!     floor: RequestNumber(0),
//!     command: Bytes::new(),
//! };
//! let Outcome::Registered(session) = run(vec![register.clone()])[0].outcome else { panic!("no session") };
//! let number = RequestNumber(1);
//! let command = Request { session, number, floor: number, command: Bytes::from_static(b"abc"), ..register };
//! assert_eq!(run(vec![command])[0].outcome, Outcome::Reply(Bytes::from_static(b"3")));
//! ```

use bytes::Bytes;

use super::core::Core;
use crate::protocol::normal::apply::Machine;
use crate::protocol::normal::checkpoints::{CheckpointHead, TakeCheckpoint};
use crate::protocol::recovery::fetching::{ReadPart, StorePart};
use crate::protocol::recovery::repair::ReadRequest;
use crate::protocol::types::checkpoint::CheckpointId;
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::entry::Entry;
use crate::protocol::types::event::{Event, Mark};
use crate::protocol::types::message::{Envelope, Message, Peer, Refusal, Reply, Request};
use crate::protocol::types::number::{BatchNumber, ClientId, Monotonic, OpNumber, ReplicaId, Timestamp};
use crate::protocol::types::vsr_state::Batch;

/// Something that has arrived since the last turn.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message, from a sender that the transport vouches for. What a client may not send, what is no member's, and what
    /// is implausible is ignored, with a [`Mark::Ignored`].
    Message {
        /// The sender.
        from: Peer,
        /// The content.
        message: Message,
    },
    /// A read of [`Effects::reads`] has ended.
    Read {
        /// As it was handed out.
        request: ReadRequest,
        /// What storage gave: at least the first of the ops, in their order. `None` is an entry that it cannot give: damaged or gone.
        entries: Vec<(OpNumber, Option<Entry>)>,
    },
    /// The transport has a connection to this member.
    PeerUp(ReplicaId),
    /// The transport lost its connection to this member. A hint: it speeds up suspicion and is never believed (rule 7.9).
    PeerDown {
        /// The member.
        peer: ReplicaId,
        /// A reconnect was refused: most likely its process is gone.
        refused: bool,
    },
    /// Requests of the replica's own handle. Their answers are in [`Effects::replies`].
    Requests(Vec<Request>),
    /// A query that is to be linearizable, under a number of the caller's choice. The number comes back in [`Effects::queries`], in this
    /// turn or a later one, or never if the core stops.
    Query(u64),
    /// A query of a client that the caller does not take: the client is told so.
    RefuseQuery {
        /// The client.
        client: ClientId,
        /// The number that the client gave its query.
        nonce: u64,
        /// The reason that the client is told.
        refusal: Refusal,
    },
    /// The state machine's digest that [`Effects::digest`] has asked for; and, at a start from a checkpoint, that of the restored one.
    Digest {
        /// The op after which it is the digest.
        op: OpNumber,
        /// The digest of the state after that op; `None` from a state machine that gives none.
        digest: Option<Checksum>,
    },
    /// A checkpoint of [`Effects::checkpoint`] has ended.
    Checkpoint {
        /// The op of the checkpoint.
        op: OpNumber,
        /// What names it, once it is durable and whole. `None` when it could not be taken or written: another one is, later.
        written: Option<CheckpointId>,
    },
    /// A read of [`Effects::read_parts`] has ended.
    PartRead {
        /// As it was handed out.
        request: ReadPart,
        /// The bytes of the part; `None` when storage cannot give them.
        bytes: Option<Bytes>,
        /// Whether storage says that the checkpoint is damaged: it is offered to nobody then.
        is_damaged: bool,
    },
    /// [`Effects::store_part`] has ended.
    PartStored {
        /// The checkpoint.
        id: CheckpointId,
        /// The part.
        part: u32,
        /// The part that storage wants next; one more than the last when the checkpoint is whole and durable. `None` when it could not be stored.
        next: Option<u32>,
    },
    /// The checkpoint of [`Effects::restore`] was read. The caller holds the state machine until [`Effects::take_up`].
    Restored {
        /// The checkpoint.
        id: CheckpointId,
        /// What it has beside the state machine; `None` when it cannot be read.
        head: Option<CheckpointHead>,
    },
    /// A checkpoint is wanted of what is applied, whether one is due or not. It is taken when the one under way is done, and not at all where the
    /// newest one contains everything.
    WantCheckpoint,
    /// The process is going to stop: a primary gives up its role, so that the cluster loses no time-out.
    HandOver,
}

/// What a replica is told in one turn. The buffers are kept from turn to turn: a turn empties `written` and `arrived`, and leaves
/// the other fields as they are.
///
/// Default: time 0, nothing has arrived, unlimited room, timers fire, no limits of applying and reading.
///
/// Not `non_exhaustive`: that would forbid `Inputs { now, ..Inputs::default() }` outside of this crate, and what is written so goes on
/// to compile when a later version adds an input.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The monotonic time. An earlier one than that of the last turn counts as equal to it.
    pub now: Monotonic,
    /// The time of day, for timestamps; it may jump.
    pub wall: Timestamp,
    /// The write that became durable since the last turn, by the number that [`Effects::write`] gave it.
    pub written: Option<BatchNumber>,
    /// Bytes that storage can still take, without what is in flight.
    pub room: u64,
    /// Everything else that has arrived, in the order in which the core is to take it.
    pub arrived: Vec<Input>,
    /// Whether the timers that are due fire in this turn. `false` is for tests that choose the moment of a time-out: what is due then
    /// fires in the next turn in which this is `true`.
    pub timers: bool,
    /// Requests applied at most in this turn. At least 1.
    pub apply_max: usize,
    /// Reads handed out at most in this turn.
    pub reads_max: usize,
}

impl Default for Inputs {
    fn default() -> Inputs {
        Inputs {
            now: Monotonic(0),
            wall: Timestamp(0),
            written: None,
            room: u64::MAX,
            arrived: Vec::new(),
            timers: true,
            apply_max: usize::MAX,
            reads_max: usize::MAX,
        }
    }
}

/// What a turn wants done, in the order in which the caller does it. A turn adds to the buffers; the caller empties them.
///
/// Not `non_exhaustive`: where a caller takes the effects apart, the compiler names one that a later version adds; the core would wait
/// for one that is left out.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Whether the caller makes another turn before it waits: a timer fired, more can be applied, or the turn handed out
    /// what may end at once. Events and messages alone do not count.
    pub again: bool,
    /// Answers to the requests of the replica's own handle.
    pub replies: Vec<Reply>,
    /// Queries to answer now, from the state machine as it is, by the numbers of [`Input::Query`]. A client's answer goes out through
    /// [`Core::tell_client`].
    pub queries: Vec<u64>,
    /// The next write, with its number: the group commit. At most one is in flight.
    pub write: Option<(BatchNumber, Batch)>,
    /// Entries to read from storage, beside the write.
    pub reads: Vec<ReadRequest>,
    /// The state machine's digest is wanted before the next turn, as it is after this op; [`Input::Digest`] gives it, or says that
    /// there is none. Without a word, each checkpoint is offered to others only after a wait.
    pub digest: Option<OpNumber>,
    /// A checkpoint to take of the state machine before the next turn, and to write beside everything else. At most one is under way; its end
    /// is [`Input::Checkpoint`]. None comes without [`Options::checkpoints`](crate::protocol::Options::checkpoints).
    pub checkpoint: Option<TakeCheckpoint>,
    /// Parts of checkpoints to read from storage for peers, beside everything else. Each ends with an [`Input::PartRead`].
    pub read_parts: Vec<ReadPart>,
    /// A part of another member's checkpoint, to be stored beside everything else. One at a time; its end is [`Input::PartStored`].
    pub store_part: Option<StorePart>,
    /// A checkpoint to restore another state machine from, beside the one in use. Its end is [`Input::Restored`].
    pub restore: Option<CheckpointId>,
    /// The state machine that was restored takes the place of the one in use, before the next turn: its state is that after this op.
    pub take_up: Option<OpNumber>,
    /// Messages that may leave now. Their order is that in which they should leave; none depends on it.
    pub messages: Vec<Envelope>,
    /// What happened, for observers, in order.
    pub events: Vec<Event>,
    /// Which ways the code has gone, for tests and simulators, in order.
    pub marks: Vec<Mark>,
}

impl Core {
    /// Makes one turn: takes the inputs in, lets the protocol act, and adds what it wants done to the effects. The
    /// [module](self) says what the caller does with them, in which order, and why that is safe.
    ///
    /// Applies committed commands to `machine`; [`Machine::can_decode`] is asked about each command that is admitted.
    ///
    /// At the end the core compares its own numbers, and stops with [`Halt::Broken`](crate::protocol::Halt::Broken) where they
    /// contradict each other, or where [`Inputs::written`] names another write than the one in flight.
    pub fn turn(&mut self, inputs: &mut Inputs, machine: &mut dyn Machine, effects: &mut Effects) {
        if self.is_idle(inputs) {
            self.now = self.now.max(inputs.now);
            self.tell_commit_when_idle();
            self.note_stall();
            self.check_invariants();
            self.rests = self.halted.is_none();
            effects.again = false;
            return;
        }
        self.now = self.now.max(inputs.now);
        self.wall = inputs.wall;
        if let Some(batch) = inputs.written.take() {
            self.end_write(batch);
        }
        self.writes.room = inputs.room;
        if !inputs.arrived.is_empty() {
            for input in inputs.arrived.drain(..) {
                // The one door: a core that has stopped takes nothing in.
                if self.halted.is_none() {
                    self.on_input(input, machine);
                }
            }
        }
        let goes_on = self.act(inputs, machine);
        self.hand_out(inputs.reads_max, effects);
        effects.again = goes_on
            || !effects.replies.is_empty()
            || !effects.queries.is_empty()
            || effects.write.is_some()
            || !effects.reads.is_empty()
            || effects.digest.is_some()
            || effects.checkpoint.is_some()
            || !effects.read_parts.is_empty()
            || effects.store_part.is_some()
            || effects.restore.is_some()
            || effects.take_up.is_some();
        self.rests = self.has_nothing_left();
    }

    /// Whether a turn with these inputs moves nothing but the time: nothing has arrived, no timer is due, and the last turn
    /// has left nothing to go on with. The last turn before a caller waits is such a one.
    pub(crate) fn is_idle(&self, inputs: &Inputs) -> bool {
        self.rests
            && inputs.arrived.is_empty()
            && inputs.written.is_none()
            && inputs.room == self.writes.room
            && !(inputs.timers && self.now.max(inputs.now) >= self.next_deadline())
    }

    /// Whether each step of [`act`](Self::act) would find nothing to do, if nothing arrives. What is only late (an op that is
    /// committed and not here, a request that finds the pipeline full) counts as something to do.
    fn has_nothing_left(&self) -> bool {
        let next = self.applied.next();
        self.halted.is_none()
            && self.is_between_ops()
            && !(next.is_committed(self.commit) && next <= self.log.head())
            && self.primary.queue.is_empty()
            && !self.reads.has_arrivals()
            && !self.record_due
            && !self.repair.due
            && self.repair.reads.is_empty()
            && !self.transfer.serves()
            && (self.writes.in_flight.is_some() || self.writes.staging.is_empty())
    }

    /// Sends a client what the caller has made: the answer to a query of these effects, or the replica's status. It takes the way of
    /// every message, and waits for the same writes; what may leave now is added to the effects.
    pub fn tell_client(&mut self, client: ClientId, message: Message, effects: &mut Effects) {
        if self.halted.is_none() {
            self.send_to(Peer::Client(client), message);
            move_all(self.outbox.ready(), &mut effects.messages);
        }
    }

    /// A core that has stopped waits for its last write, if it has one, and for nothing else.
    fn end_write(&mut self, batch: BatchNumber) {
        if self.halted.is_none() {
            return self.on_written(batch);
        }
        self.writes.in_flight = None;
        self.writes.before_stop = self.writes.before_stop.filter(|last| *last > batch);
    }

    fn on_input(&mut self, input: Input, machine: &dyn Machine) {
        match input {
            Input::Message { from, message } => self.on_message(from, message, machine),
            Input::Read { request, entries } => self.on_read(&request, entries),
            Input::PeerUp(peer) => self.on_peer_up(peer),
            Input::PeerDown { peer, refused } => self.on_peer_down(peer, refused),
            Input::Requests(requests) => {
                let plausible = self.refuse_absurd(None, requests);
                self.on_requests(None, plausible, false, machine);
            }
            Input::Query(number) => self.query(number),
            Input::RefuseQuery { client, nonce, refusal } => {
                let (position, view) = (self.applied, self.started_view());
                self.send_to(
                    Peer::Client(client),
                    Message::Answer { client, nonce, answer: Err(refusal), position, view },
                );
            }
            Input::Digest { op, digest } => self.on_own_digest(op, digest),
            Input::Checkpoint { op, written } => self.on_checkpoint(op, written),
            Input::PartRead { request, bytes, is_damaged } => self.on_part_read(request, bytes, is_damaged),
            Input::PartStored { id, part, next } => self.on_part_stored(id, part, next),
            Input::Restored { id, head } => self.on_restored(id, head),
            Input::WantCheckpoint => self.checkpoints.is_wanted = true,
            Input::HandOver => self.hand_over(),
        }
    }

    /// What follows from the inputs. Whether the next turn can go on at once.
    fn act(&mut self, inputs: &Inputs, machine: &mut dyn Machine) -> bool {
        let is_due = inputs.timers && self.now >= self.next_deadline();
        if is_due {
            self.on_timer();
        }
        let is_more = self.apply(machine, inputs.apply_max);
        if self.halted.is_none() {
            self.prepare_queued();
            self.flush_reads();
            self.name_checkpoint();
            self.take_wanted_checkpoint();
            self.drop_covered();
            self.run_transfer();
            self.run_rejoin();
            self.refresh_record();
            self.note_stall();
            self.run_repair();
            self.check_invariants();
        }
        is_due || is_more
    }

    /// What has come of the turn. After a stop: what had been done before it, and the last write.
    fn hand_out(&mut self, reads_max: usize, effects: &mut Effects) {
        let runs = self.halted.is_none();
        move_all(&mut self.news.replies, &mut effects.replies);
        if runs && self.checkpoints.is_due() {
            (effects.digest, effects.checkpoint) = self.checkpoints.take_due();
        }
        if runs && self.is_between_ops() {
            self.take_ready_queries(&mut effects.queries);
        }
        if runs {
            self.hand_out_transfer(effects);
        }
        if (runs || self.writes.before_stop.is_some())
            && let Some(write) = self.writes.take(self.now)
        {
            effects.write = Some(write);
        }
        let reads = reads_max.min(self.repair.reads.len());
        if reads > 0 {
            effects.reads.extend(self.repair.reads.drain(..reads));
        }
        if !runs {
            self.outbox.ready().clear();
        }
        move_all(self.outbox.ready(), &mut effects.messages);
        move_all(&mut self.news.events, &mut effects.events);
        move_all(&mut self.news.marks, &mut effects.marks);
    }
}

impl Core {
    fn hand_out_transfer(&mut self, effects: &mut Effects) {
        while effects.read_parts.len() < PARTS_AT_ONCE
            && let Some(part) = self.transfer.next_served()
        {
            effects.read_parts.push(part);
        }
        if self.transfer.may_store() {
            let kept = self.kept_checkpoints();
            effects.store_part = self.transfer.part_to_store(&kept);
        }
        effects.restore = self.transfer.restore_due();
        effects.take_up = self.transfer.take_up();
    }
}

/// Parts of checkpoints that are handed out to be read in one turn, at most.
const PARTS_AT_ONCE: usize = 2;

/// Moves everything from one buffer to the end of another. Where the other one is empty they change places, so that neither
/// has to allocate anew in the next turn.
fn move_all<T>(from: &mut Vec<T>, to: &mut Vec<T>) {
    if to.is_empty() {
        std::mem::swap(from, to);
    } else {
        to.append(from);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::documented::{Nothing, any_core};
    use super::*;
    use crate::protocol::Halt;
    use crate::protocol::types::number::{RequestNumber, SessionId};

    fn turn(core: &mut Core, inputs: &mut Inputs) -> Effects {
        let mut effects = Effects::default();
        core.turn(inputs, &mut Nothing, &mut effects);
        effects
    }

    #[test]
    fn the_first_ping_leaves_when_the_write_of_the_start_is_reported_and_not_before() {
        let (mut core, mut inputs) = (any_core(), Inputs::default());
        let first = turn(&mut core, &mut inputs);
        assert_eq!(first.write.map(|(number, _)| number), Some(BatchNumber(1)));
        assert!(first.messages.is_empty(), "{:?}", first.messages);
        let second = turn(&mut core, &mut inputs);
        assert!(second.write.is_none() && second.messages.is_empty(), "{second:?}");
        inputs.written = Some(BatchNumber(1));
        let third = turn(&mut core, &mut inputs);
        let names: Vec<_> = third.messages.iter().map(|envelope| envelope.message.name()).collect();
        assert_eq!(names, ["Ping", "Ping"]);
        assert_eq!(inputs.written, None);
    }

    /// A turn that is told at once leaves the core as the whole turn would: only the time has gone on.
    #[test]
    fn a_turn_without_inputs_is_idle_until_something_arrives_or_a_timer_is_due() {
        let (mut core, mut inputs) = (any_core(), Inputs::default());
        assert!(!core.is_idle(&inputs), "the start has its record to write");
        inputs.written = turn(&mut core, &mut inputs).write.map(|(number, _)| number);
        assert!(!core.is_idle(&inputs), "a write is done");
        turn(&mut core, &mut inputs);
        while !core.is_idle(&inputs) {
            turn(&mut core, &mut inputs);
        }
        let mut whole = core.clone();
        whole.rests = false;
        inputs.now = Monotonic(core.next_deadline().0 - 1);
        for core in [&mut core, &mut whole] {
            let effects = turn(core, &mut inputs);
            assert!(!effects.again && effects.messages.is_empty() && effects.marks.is_empty(), "{effects:?}");
        }
        // What was looked at as a whole knows the time of day, which the next turn is told anyway.
        core.wall = whole.wall;
        assert_eq!(format!("{core:?}"), format!("{whole:?}"));
        inputs.room -= 1;
        assert!(!core.is_idle(&inputs), "the disk has less room");
        inputs.room += 1;
        inputs.arrived.push(Input::PeerUp(ReplicaId(0)));
        assert!(!core.is_idle(&inputs), "something has arrived");
        inputs.arrived.clear();
        inputs.now = core.next_deadline();
        assert!(!core.is_idle(&inputs), "a timer is due");
        inputs.timers = false;
        assert!(core.is_idle(&inputs), "timers wait");
        core.repair_soon();
        core.rests = core.has_nothing_left();
        assert!(!core.is_idle(&inputs), "something is missing");
    }

    #[test]
    fn a_core_that_has_stopped_takes_nothing_in_and_hands_nothing_out() {
        let mut core = any_core();
        core.stop(Halt::SoloDamaged { op: OpNumber(1) });
        let request = Request {
            client: ClientId(1),
            session: SessionId::default(),
            number: RequestNumber(0),
            floor: RequestNumber(0),
            command: Bytes::new(),
        };
        let from = Peer::Replica(ReplicaId(0));
        let mut inputs = Inputs {
            // Long after every time-out.
            now: Monotonic(u64::MAX / 2),
            arrived: vec![
                Input::Message { from, message: Message::ReadIndex { nonce: 1 } },
                Input::Requests(vec![request]),
                Input::Query(1),
                Input::PeerUp(ReplicaId(0)),
                Input::WantCheckpoint,
                Input::HandOver,
            ],
            ..Inputs::default()
        };
        let mut effects = turn(&mut core, &mut inputs);
        core.tell_client(ClientId(9), Message::Status { nonce: 1, status: Bytes::new() }, &mut effects);
        assert!(inputs.arrived.is_empty());
        assert!(!effects.again && effects.replies.is_empty() && effects.write.is_none(), "{effects:?}");
        assert!(effects.messages.is_empty() && effects.events.is_empty(), "{effects:?}");
        assert_eq!((core.waiting_queries(), core.next_deadline()), (0, Monotonic(u64::MAX)));
        assert_eq!(core.halted(), Some(&Halt::SoloDamaged { op: OpNumber(1) }));
    }

    #[test]
    fn a_core_with_a_last_write_says_that_it_has_stopped_when_that_is_durable() {
        let mut core = any_core();
        core.writes.before_stop = Some(core.writes.next());
        core.stop(Halt::SoloDamaged { op: OpNumber(1) });
        let mut inputs = Inputs::default();
        let effects = turn(&mut core, &mut inputs);
        assert_eq!(effects.write.map(|(number, _)| number), Some(BatchNumber(1)));
        assert_eq!(core.halted(), None);
        inputs.written = Some(BatchNumber(1));
        let effects = turn(&mut core, &mut inputs);
        assert!(effects.messages.is_empty() && effects.write.is_none(), "{effects:?}");
        assert!(core.halted().is_some());
    }
}
