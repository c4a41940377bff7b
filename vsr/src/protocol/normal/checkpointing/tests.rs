use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::protocol::documented::{Nothing, any_core};
use crate::protocol::health::halt::Halt;
use crate::protocol::normal::checkpoints::CheckpointHead;
use crate::protocol::recovery::fetching::ReadPart;
use crate::protocol::turn::{Effects, Input, Inputs};
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::life::{Life, Succession};
use crate::protocol::types::membership::Membership;
use crate::protocol::types::message::{Busy, Message, Outcome, Peer, Ping, Request};
use crate::protocol::types::number::{
    ClientId, ClusterId, CommitNumber, DiskId, Monotonic, ReplicaId, RequestNumber, SessionId, Timestamp, View,
};
use crate::protocol::types::options::{Options, Timing};
use crate::protocol::types::vsr_state::{Batch, Recovered, Slot, VsrState};

/// A cluster of one, with a checkpoint after every third op.
struct One {
    core: Core,
    disk: Vec<Batch>,
    taken: Vec<TakeCheckpoint>,
    events: Vec<Event>,
    session: SessionId,
    number: u64,
    time: u64,
}

const EVERY: u64 = 3;

fn options(checkpoints: bool) -> Options {
    Options {
        timing: Timing::default(),
        seed: 1,
        local_client: ClientId(7),
        machine_version: 1,
        log_bytes_max: 1 << 30,
        cache_bytes: 1 << 20,
        queue_bytes_max: 1 << 20,
        checkpoints,
    }
}

fn formatted(checkpoint_bytes: u64) -> VsrState {
    let mut membership = Membership::new(["here"]).unwrap();
    (membership.constants.checkpoint_ops, membership.constants.checkpoint_bytes) = (EVERY, checkpoint_bytes);
    VsrState::formatted(ClusterId(1), ReplicaId(0), DiskId(1), membership)
}

impl One {
    fn start(checkpoints: bool, checkpoint_bytes: u64) -> One {
        One::start_with(options(checkpoints), checkpoint_bytes)
    }

    fn start_with(options: Options, checkpoint_bytes: u64) -> One {
        let recovered = Recovered { state: formatted(checkpoint_bytes), slots: Vec::new(), head_certain: true };
        let core = Core::recover(options, recovered, Monotonic(0), Timestamp(0)).unwrap();
        let (disk, taken, events, session) = (Vec::new(), Vec::new(), Vec::new(), SessionId::default());
        let mut one = One { core, disk, taken, events, session, number: 0, time: 0 };
        one.run(Vec::new());
        let register = one.request(Bytes::new());
        let replies = one.run(vec![Input::Requests(vec![register])]);
        let Some(Outcome::Registered(session)) = replies.first() else { panic!("no session: {replies:?}") };
        one.session = *session;
        one
    }

    fn request(&mut self, command: Bytes) -> Request {
        let number = RequestNumber(self.number);
        self.number += 1;
        Request { client: ClientId(7), session: self.session, number, floor: number, command }
    }

    /// Makes turns until there is nothing left to do; what they answer.
    fn run(&mut self, arrived: Vec<Input>) -> Vec<Outcome> {
        self.time += 1_000_000;
        let mut inputs = Inputs { now: Monotonic(self.time), arrived, ..Inputs::default() };
        let (mut effects, mut replies) = (Effects::default(), Vec::new());
        for _ in 0..1_000 {
            self.core.turn(&mut inputs, &mut Nothing, &mut effects);
            replies.extend(effects.replies.drain(..).map(|reply| reply.outcome));
            self.events.append(&mut effects.events);
            self.taken.extend(effects.checkpoint.take());
            let digest = effects.digest.take();
            inputs.arrived.extend(digest.map(|op| Input::Digest { op, digest: None }));
            effects.marks.clear();
            for request in effects.reads.drain(..) {
                let entries = self.disk.iter().flat_map(|batch| &batch.entries);
                let entries = entries.filter(|entry| request.ops().contains(&entry.header.op));
                let entries = entries.map(|entry| (entry.header.op, Some(entry.clone()))).collect();
                inputs.arrived.push(Input::Read { request, entries });
            }
            if let Some((number, batch)) = effects.write.take() {
                self.disk.push(batch);
                inputs.written = Some(number);
            } else if !effects.again && inputs.arrived.is_empty() {
                assert_eq!(self.core.halted(), None);
                return replies;
            }
        }
        panic!("it does not come to rest");
    }

    /// One op of one command.
    fn op(&mut self) {
        let request = self.request(Bytes::from_static(b"abc"));
        let replies = self.run(vec![Input::Requests(vec![request])]);
        assert!(matches!(&replies[..], [Outcome::Reply(_)]), "{replies:?}");
    }

    fn end_checkpoint(&mut self, written: Option<CheckpointId>) {
        let op = self.taken.last().expect("one was taken").op;
        self.run(vec![Input::Checkpoint { op, written }]);
    }

    /// What is on the disk.
    fn recovered(&self) -> Recovered {
        let mut states = self.disk.iter().filter_map(|batch| batch.state.clone());
        let headers = self.disk.iter().flat_map(|batch| &batch.entries).map(|entry| Slot::Clean(entry.header));
        Recovered { state: states.next_back().expect("a state"), slots: headers.collect(), head_certain: true }
    }

    fn named(&self) -> Vec<u64> {
        self.recovered().state.checkpoints.iter().map(|id| id.op.0).collect()
    }

    fn head_of(&self, at: usize) -> CheckpointHead {
        let constants = &self.core.membership().constants;
        CheckpointHead::read(&mut &self.taken[at].head[..], constants).expect("a head")
    }
}

fn id(op: u64) -> CheckpointId {
    CheckpointId { op: OpNumber(op), manifest: Checksum(op.into()) }
}

/// Rule 9.1: by ops and by bytes, at the same ops everywhere, with the session table of that op.
#[test]
fn a_checkpoint_is_due_by_ops_or_bytes_of_the_log() {
    let mut one = One::start(true, 1 << 30);
    (0..8).for_each(|_| {
        one.op();
        if !one.taken.is_empty() {
            one.end_checkpoint(None);
        }
    });
    let ops: Vec<u64> = one.taken.iter().map(|taken| taken.op.0).collect();
    assert_eq!(ops, [3, 6, 9], "the register is op 1");
    let head = one.head_of(2);
    assert_eq!(head.header().op, OpNumber(9));
    assert_eq!(head.clone().into_parts().1.digest(), one.core.sessions_digest());
    let mut by_bytes = One::start(true, 1);
    (0..2).for_each(|_| by_bytes.op());
    assert_eq!(by_bytes.taken.iter().map(|taken| taken.op.0).collect::<Vec<_>>(), [1], "the others are skipped");
    assert_eq!(by_bytes.core.skipped_checkpoints(), 2);
}

#[test]
fn a_storage_without_checkpoints_is_asked_for_none() {
    let mut one = One::start(false, 1);
    (0..8).for_each(|_| one.op());
    assert!(one.taken.is_empty() && one.core.skipped_checkpoints() == 0);
}

/// Rule 9.10: the record names it once it is durable, and the two newest; what it names is what storage is told to keep.
#[test]
fn the_record_names_the_two_newest_checkpoints_once_they_are_durable() {
    let mut one = One::start(true, 1 << 30);
    (0..2).for_each(|_| one.op());
    assert_eq!((one.taken.len(), one.named()), (1, vec![]));
    one.end_checkpoint(Some(id(3)));
    assert_eq!(one.named(), [3]);
    assert!(one.recovered().state.commit.op() >= OpNumber(3), "it names no more than what it calls committed");
    assert_eq!(one.core.checkpoint(), OpNumber(3));
    assert!(one.events.contains(&Event::Checkpointed { op: OpNumber(3) }));
    for op in [6, 9] {
        (0..3).for_each(|_| one.op());
        one.end_checkpoint(Some(id(op)));
    }
    assert_eq!(one.named(), [6, 9]);
    assert_eq!(one.taken.last().map(|taken| taken.keep.clone()), Some(vec![id(3), id(6)]));
    (0..3).for_each(|_| one.op());
    one.end_checkpoint(None);
    assert_eq!(one.named(), [6, 9], "one that fails changes nothing");
}

/// Never two owned views of the state at once.
#[test]
fn g6_a_checkpoint_that_is_due_while_one_is_written_is_skipped() {
    let mut one = One::start(true, 1 << 30);
    (0..9).for_each(|_| one.op());
    assert_eq!((one.taken.len(), one.core.skipped_checkpoints()), (1, 2));
    // The end of another one ends nothing.
    one.run(vec![Input::Checkpoint { op: OpNumber(6), written: Some(id(6)) }]);
    assert!(one.named().is_empty());
    one.end_checkpoint(Some(id(3)));
    (0..2).for_each(|_| one.op());
    assert_eq!(one.taken.iter().map(|taken| taken.op.0).collect::<Vec<_>>(), [3, 12]);
}

/// Rule 9.11: what a checkpoint contains is not applied again, and its sessions answer what they have answered.
#[test]
fn a_start_goes_on_from_a_checkpoint_of_its_log() {
    let mut one = One::start(true, 1 << 30);
    (0..4).for_each(|_| one.op());
    one.end_checkpoint(Some(id(3)));
    let (recovered, head) = (one.recovered(), one.head_of(0));
    assert!(recovered.continues(&head));
    let last = Request { number: RequestNumber(one.number - 1), ..one.request(Bytes::from_static(b"abc")) };
    let before = one.core.sessions_digest();
    one.core = Core::recover_from(options(true), recovered, Some(head), Monotonic(0), Timestamp(0)).unwrap();
    assert_eq!((one.core.applied(), one.core.sessions()), (OpNumber(3), 1));
    one.events.clear();
    one.time = 0;
    one.run(Vec::new());
    assert_eq!((one.core.applied(), one.core.sessions_digest()), (OpNumber(5), before));
    let replies = one.run(vec![Input::Requests(vec![last])]);
    assert!(matches!(&replies[..], [Outcome::Reply(_)]), "{replies:?}");
    assert_eq!(one.core.applied(), OpNumber(5), "it was answered, and not executed again");
    assert!(matches!(one.events[0], Event::Restored { op: OpNumber(3), .. }), "{:?}", one.events);
    let applied: Vec<u64> = one
        .events
        .iter()
        .filter_map(|event| if let Event::Applied { op, .. } = event { Some(op.0) } else { None })
        .collect();
    assert_eq!(applied.first(), Some(&4));
}

/// Rule 9.11: not where the log has another op there, or where that op is not known to be committed. What is damaged below is no reason: the record
/// has named the checkpoint.
#[test]
fn a_checkpoint_is_used_where_its_op_is_committed_and_of_the_log() {
    let mut one = One::start(true, 1 << 30);
    (0..5).for_each(|_| one.op());
    one.end_checkpoint(Some(id(3)));
    let (whole, head) = (one.recovered(), one.head_of(0));
    assert!(whole.continues(&head));
    let harms: [fn(&mut Recovered); 4] = [
        |recovered| recovered.slots.swap(1, 2),
        |recovered| recovered.state.commit.0 = 2,
        |recovered| {
            let Slot::Clean(other) = recovered.slots[0] else { panic!() };
            recovered.slots[2] = Slot::Corrupt(Some(other));
        },
        |recovered| {
            let Slot::Clean(above) = recovered.slots[3] else { panic!() };
            recovered.state.base = Some(above);
        },
    ];
    for (at, harm) in harms.into_iter().enumerate() {
        let mut recovered = whole.clone();
        harm(&mut recovered);
        assert!(!recovered.continues(&head), "{at}");
        let refused = Core::recover_from(options(true), recovered, Some(head.clone()), Monotonic(0), Timestamp(0));
        assert_eq!(refused.map(|_| ()), Err(Halt::ForeignCheckpoint { op: OpNumber(3) }), "{at}");
    }
    let damages: [fn(&mut Recovered); 4] = [
        |recovered| recovered.slots[1] = Slot::Corrupt(None),
        |recovered| recovered.slots[2] = Slot::Corrupt(None),
        |recovered| recovered.slots[0] = Slot::Absent,
        |recovered| recovered.slots.truncate(1),
    ];
    for (at, damage) in damages.into_iter().enumerate() {
        let mut recovered = whole.clone();
        damage(&mut recovered);
        assert!(recovered.continues(&head), "{at}");
        let core =
            Core::recover_from(options(true), recovered, Some(head.clone()), Monotonic(0), Timestamp(0)).unwrap();
        assert_eq!((core.applied(), core.checksum(OpNumber(3))), (OpNumber(3), Some(head.header().checksum())), "{at}");
    }
}

/// Rule 9.2: what both checkpoints contain is dropped, with the record that says so; a start goes on from there.
#[test]
fn the_log_is_dropped_up_to_the_older_of_two_checkpoints() {
    let mut one = One::start(true, 1 << 30);
    let base = |one: &One| (one.core.log_base().0, one.recovered().state.base().0);
    (0..2).for_each(|_| one.op());
    one.end_checkpoint(Some(id(3)));
    one.run(Vec::new());
    assert_eq!(base(&one), (0, 0), "there is only one");
    (0..3).for_each(|_| one.op());
    one.end_checkpoint(Some(id(6)));
    one.run(Vec::new());
    assert_eq!(base(&one), (3, 3));
    assert!(one.events.contains(&Event::LogDropped { base: OpNumber(3) }));
    assert_eq!((one.core.head(), one.core.checksum(OpNumber(2))), (OpNumber(6), None));
    assert!(one.core.checksum(OpNumber(3)).is_some() && !one.core.holds(OpNumber(3)) && one.core.holds(OpNumber(4)));
    (0..2).for_each(|_| one.op());
    let mut recovered = one.recovered();
    recovered.slots.drain(..3);
    let head = one.head_of(1);
    assert!(recovered.continues(&head));
    one.core = Core::recover_from(options(true), recovered.clone(), Some(head), Monotonic(0), Timestamp(0)).unwrap();
    one.time = 0;
    one.run(Vec::new());
    assert_eq!((one.core.applied(), one.core.log_base()), (OpNumber(8), OpNumber(3)));
    let lost = Core::recover_from(options(true), recovered, None, Monotonic(0), Timestamp(0));
    assert_eq!(lost.map(|_| ()), Err(Halt::SoloCheckpointLost { op: OpNumber(3) }), "there is no state to begin with");
}

/// Rule 9.1: in a full log no op makes another one due.
#[test]
fn a_full_log_is_dropped_once_a_checkpoint_can_be_written_again() {
    let batch = Membership::new(["here"]).unwrap().constants.batch_bytes_max;
    let mut one = One::start_with(Options { log_bytes_max: u64::from(batch) + 600, ..options(true) }, 1 << 30);
    let mut failed = 0;
    loop {
        let request = one.request(Bytes::from_static(b"abc"));
        let replies = one.run(vec![Input::Requests(vec![request])]);
        if one.taken.len() > failed {
            failed += 1;
            one.end_checkpoint(None);
        }
        if replies == [Outcome::Busy(Busy::LogFull)] {
            break;
        }
    }
    assert!(failed >= 2, "{failed} attempts");
    for written in [false, true] {
        one.run(Vec::new());
        assert_eq!((one.taken.len(), one.core.log_base()), (failed, OpNumber::ZERO), "not at once");
        assert!(one.core.explain().contains("the last checkpoint could not be written here"), "{}", one.core.explain());
        one.time += 5_000_000_000;
        one.run(Vec::new());
        failed += 1;
        let op = one.core.applied();
        assert_eq!((one.taken.len(), one.taken.last().map(|taken| taken.op)), (failed, Some(op)));
        one.end_checkpoint(written.then(|| id(op.0)));
    }
    one.run(Vec::new());
    assert_eq!(one.core.log_base(), one.core.applied());
    one.op();
}

#[test]
fn what_is_no_head_of_a_checkpoint_is_refused() {
    let mut one = One::start(true, 1 << 30);
    (0..2).for_each(|_| one.op());
    let (bytes, constants) = (one.taken[0].head.clone(), &one.core.membership().constants);
    for cut in 0..bytes.len() {
        assert!(CheckpointHead::read(&mut &bytes[..cut], constants).is_err(), "cut at {cut}");
    }
    // Magic, version, the unused end of the header, the length of the table: behind each something has no meaning.
    for at in [0, 8, 12 + 90, 12 + Header::LEN + 7] {
        let mut other = bytes.clone();
        other[at] ^= 0x80;
        assert!(CheckpointHead::read(&mut &other[..], constants).is_err(), "byte {at}");
    }
    let mut followed = bytes.clone();
    followed.extend(b"the machine");
    let mut rest = &followed[..];
    CheckpointHead::read(&mut rest, constants).expect("a head");
    assert_eq!(rest, b"the machine");
}

/// Rule 9.8: a version that computes its digest in another way stops nobody.
#[test]
fn digests_of_another_version_of_the_machine_do_not_count() {
    for (machine_version, stops) in [(2, false), (1, true)] {
        let mut core = any_core();
        core.on_own_digest(OpNumber(5), Some(Checksum(1)));
        for from in [0, 2] {
            let ping = Ping {
                view: View::default(),
                normal: true,
                commit: CommitNumber(0),
                head: OpNumber::ZERO,
                wall: Timestamp(1),
                past: crate::protocol::types::checkpoint::Past::default(),
                machine_version,
                head_certain: true,
                has_room: true,
                life: Life { starts: 1, ..Life::default() },
                succession: Succession::First,
                known: Vec::new(),
                digests: vec![StateDigest { op: OpNumber(5), digest: Checksum(2) }],
            };
            core.on_message(Peer::Replica(ReplicaId(from)), Message::Ping(ping.into()), &Nothing);
        }
        let (op, own, other) = (OpNumber(5), Checksum(1), Checksum(2));
        assert_eq!(core.halted, stops.then_some(Halt::StateDiffers { op, own, other }), "version {machine_version}");
        assert_eq!(core.writes.before_stop.is_some(), stops);
    }
}

/// Rule 9.10: what a replay takes again takes the place of the one of its op, and of no newer one.
#[test]
fn the_newest_checkpoints_stay_named_when_older_ones_are_taken_again() {
    let mut state = formatted(1 << 30);
    let named = |state: &VsrState| state.checkpoints.iter().map(|id| id.op.0).collect::<Vec<_>>();
    for (op, expected) in [(3, vec![3]), (6, vec![3, 6]), (9, vec![6, 9]), (3, vec![6, 9]), (12, vec![9, 12])] {
        state.name(id(op));
        assert_eq!((named(&state), state.checkpoint().0), (expected.clone(), expected[expected.len() - 1]));
    }
    let again = CheckpointId { manifest: Checksum(99), ..id(9) };
    state.name(again);
    assert_eq!(state.checkpoints, [again, id(12)]);
}

/// Schedule B-37: what cannot be read counts for no quorum, is offered to nobody, and is named no longer when there is another one.
#[test]
fn b_37_a_checkpoint_that_cannot_be_read_is_offered_to_nobody() {
    let mut one = One::start(true, 1 << 30);
    (0..2).for_each(|_| one.op());
    one.end_checkpoint(Some(id(3)));
    (0..3).for_each(|_| one.op());
    one.end_checkpoint(Some(id(6)));
    assert_eq!((one.core.offered(), one.core.covered()), (vec![id(3), id(6)], OpNumber(6)));
    let wanted = ReadPart { to: ReplicaId(1), id: id(6), part: 1 };
    one.run(vec![Input::PartRead { request: wanted, bytes: Some(Bytes::new()), is_damaged: false }]);
    // Who asks for a part that there is not, says nothing against it.
    one.run(vec![Input::PartRead { request: wanted, bytes: None, is_damaged: false }]);
    assert_eq!(one.core.offered().len(), 2);
    one.run(vec![Input::PartRead { request: wanted, bytes: None, is_damaged: true }]);
    assert_eq!((one.core.offered(), one.core.covered()), (vec![id(3)], OpNumber(3)));
    assert_eq!(one.named(), [3, 6], "it is not removed before there is another one");
    (0..3).for_each(|_| one.op());
    one.end_checkpoint(Some(id(9)));
    assert_eq!((one.named(), one.core.offered()), (vec![3, 9], vec![id(3), id(9)]));
    // Where all are damaged, and no op makes another one due, one is taken all the same.
    for damaged in [3, 9] {
        let wanted = ReadPart { id: id(damaged), ..wanted };
        one.run(vec![Input::PartRead { request: wanted, bytes: None, is_damaged: true }]);
    }
    assert_eq!((one.core.offered(), one.taken.len()), (vec![], 3));
    one.time += 5_000_000_000;
    one.run(Vec::new());
    assert_eq!((one.taken.len(), one.core.applied()), (4, OpNumber(9)));
    one.end_checkpoint(Some(id(9)));
    assert_eq!((one.named(), one.core.offered()), (vec![9], vec![id(9)]), "the same, written anew");
}

/// Rule 9.8: after a start nobody has said anything of the checkpoints yet, nor of one that was written anew; and a replica of which one state is
/// disputed offers none that the others say nothing of.
#[test]
fn a_checkpoint_of_which_nothing_was_said_is_held_back() {
    let state = VsrState { checkpoints: vec![id(3), id(6)], ..formatted(1 << 30) };
    let (wait, late) = (Duration::from_secs(2), Monotonic(2_000_000_000));
    let started = || Checkpoints::of(&state, Some(OpNumber(6)), Monotonic(0));
    let mut checkpoints = started();
    assert_eq!(checkpoints.offered(3, Monotonic(1), wait), []);
    assert_eq!(checkpoints.offered(3, late, wait), [id(3), id(6)]);
    checkpoints.stage = Stage::Writing(OpNumber(6));
    checkpoints.on_written(OpNumber(6), Some(id(6)), late);
    assert_eq!(checkpoints.offered(3, late, wait), [id(3)], "it was written anew");
    checkpoints.are_named(&state.checkpoints, late);
    assert_eq!(checkpoints.offered(3, Monotonic(2 * late.0), wait), [id(3), id(6)]);

    let digest = |digest| StateDigest { op: OpNumber(6), digest: Checksum(digest) };
    let mut disputed = started();
    disputed.digests.note_own(digest(1));
    disputed.digests.note_reported(ReplicaId(1), vec![digest(2)]);
    assert_eq!(disputed.offered(3, late, wait), []);
    disputed.digests.note_reported(ReplicaId(2), vec![digest(1)]);
    assert_eq!(disputed.offered(3, late, wait), [id(3), id(6)]);

    let mut without = started();
    without.digests.note_none();
    assert_eq!(without.offered(3, Monotonic(1), wait), [id(3), id(6)]);

    // What the record says of a checkpoint below the restored one: nothing takes that digest again.
    let remembered = VsrState { digests: vec![StateDigest { op: OpNumber(3), digest: Checksum(1) }], ..state };
    let mut known = Checkpoints::of(&remembered, Some(OpNumber(6)), Monotonic(0));
    known.digests.note_reported(ReplicaId(1), vec![StateDigest { op: OpNumber(3), digest: Checksum(1) }]);
    assert_eq!(known.offered(3, Monotonic(1), wait), [id(3)], "two of three have it");
}
