//! Every checker can fail: for each, the shortest sequence of observations that breaks its property, and one that
//! differs from it in one point and keeps it.

use std::fmt::Display;

use bytes::Bytes;
use vsr::protocol::{
    Account, ApplyContext, Batch, BodyBuilder, CheckpointId, CommitNumber, Core, DiskId, DoViewChange, Effects, Entry,
    Event, Halt, Header, HeaderFields, Input, Inputs, Life, Machine, Message, Monotonic, OpKind, OpNumber, Options,
    Outcome, Peer, Position, Quorums, Refusal, Reply, Request, RequestNumber, SessionId, SlotEvidence, StartView,
    Succession, Timestamp, View, VsrState,
};
use vsr::{Checksum, ClientId, ClusterId, Membership, ReplicaId, Timing};
use vsr_sim::check::{Checker, Checkers, ClockRange, Digested, Interests, Observation, Scene};
use vsr_sim::{Damage, SimDisk};

const CLUSTER: ClusterId = ClusterId(1);

fn membership(n: usize) -> Membership {
    Membership::new((0..n).map(|id| format!("r{id}"))).unwrap()
}

fn formatted(id: usize, membership: &Membership) -> VsrState {
    VsrState::formatted(CLUSTER, ReplicaId(id as u8), DiskId(id as u128), membership.clone())
}

fn view(number: u64) -> View {
    View { number, ..View::default() }
}

/// An op prepared in this view after that parent; the salt tells contents apart.
fn fields(op: u64, of: u64, parent: Checksum, salt: u128) -> HeaderFields {
    HeaderFields {
        view: view(of),
        op: OpNumber(op),
        parent,
        body: Checksum(salt),
        body_len: 0,
        requests: 0,
        timestamp: Timestamp(op * 10),
        commit: CommitNumber(0),
        machine_version: 1,
        kind: OpKind::Requests,
    }
}

fn header(op: u64, of: u64, parent: Checksum, salt: u128) -> Header {
    Header::new(fields(op, of, parent, salt))
}

fn first(salt: u128) -> Header {
    header(1, 0, Header::root(CLUSTER), salt)
}

fn entry(header: Header) -> Entry {
    Entry { header, body: Bytes::new() }
}

fn prepare(of: u64, header: Header) -> Message {
    Message::Prepare { view: view(of), commit: CommitNumber(0), entry: entry(header) }
}

fn prepare_ok(of: u64, header: Header) -> Message {
    Message::PrepareOk { view: view(of), op: header.op, checksum: header.checksum(), life: Life::default() }
}

fn start_view(of: u64, headers: &[Header]) -> Message {
    Message::StartView(StartView {
        view: view(of),
        commit: CommitNumber(0),
        head: headers.last().map(|last| last.op).unwrap_or_default(),
        headers: headers.to_vec(),
        nonce: 0,
        past: vsr::protocol::Past::default(),
    })
}

/// For view 1, by a replica that holds these headers of view 0.
fn do_view_change(headers: &[Header], nack: bool) -> DoViewChange {
    DoViewChange {
        view: view(1),
        log_view: view(0),
        commit: CommitNumber(0),
        head: headers.last().map(|last| last.op).unwrap_or_default(),
        head_certain: true,
        headers: headers.to_vec(),
        evidence: headers.iter().map(|_| SlotEvidence { present: !nack, nack }).collect(),
        past: vsr::protocol::Past::default(),
        life: Life::default(),
        known: Vec::new(),
    }
}

fn replies(of: u64, client: u128, session: SessionId, outcome: Outcome, op: u64) -> Message {
    let (client, position, request) = (ClientId(client), Position { op: OpNumber(op), index: 0 }, Checksum::default());
    let reply = Reply { client, session, number: RequestNumber(1), outcome, position, request };
    Message::Replies { view: view(of), replies: vec![reply] }
}

/// A client is told that op 1 was executed.
fn reply(of: u64) -> Message {
    replies(of, 7, SessionId::default(), Outcome::Reply(Bytes::new()), 1)
}

/// The session that the first request of this op has opened.
fn opened_at(op: u64) -> SessionId {
    SessionId(Position { op: OpNumber(op), index: 0 })
}

/// A client is told that the session that op 1 has opened is gone.
fn gone(client: u128) -> Message {
    replies(0, client, opened_at(1), Outcome::Refused(Refusal::Evicted), 0)
}

fn applied(header: Header) -> Event {
    Event::Applied { op: header.op, checksum: header.checksum() }
}

struct Nothing;

impl Machine for Nothing {
    fn can_decode(&self, _: &Bytes) -> bool {
        true
    }

    fn apply(&mut self, _: &ApplyContext, _: Bytes, _: &mut Vec<u8>) -> Result<(), Halt> {
        Ok(())
    }
}

/// A protocol core that is driven by hand, with its disk.
struct Replica {
    core: Core,
    disk: SimDisk,
}

impl Replica {
    fn on(disk: SimDisk, log_bytes_max: u64) -> Replica {
        let options = Options {
            timing: Timing::default(),
            seed: 1,
            local_client: ClientId(1),
            machine_version: 1,
            log_bytes_max,
            cache_bytes: 1 << 20,
            queue_bytes_max: 1 << 20,
            checkpoints: false,
        };
        let core = Core::recover(options, disk.recover(), Monotonic(1), Timestamp(1)).unwrap();
        let mut replica = Replica { core, disk };
        replica.turn(None);
        replica
    }

    /// The only member of a cluster, as its primary, with so many ops.
    fn alone(ops: u128) -> Replica {
        let mut replica = Replica::on(SimDisk::new(formatted(0, &membership(1))), 1 << 30);
        for client in (100..).map(ClientId).take(ops as usize) {
            replica.register(client);
        }
        assert!(replica.core.is_primary() && u128::from(replica.core.commit().0) == ops);
        replica
    }

    fn register(&mut self, client: ClientId) {
        let request = Request {
            client,
            session: SessionId::default(),
            number: RequestNumber(0),
            floor: RequestNumber(0),
            command: Bytes::new(),
        };
        let requests = Message::Requests { requests: vec![request], forwarded: false };
        self.turn(Some(Input::Message { from: Peer::Client(client), message: requests }));
    }

    /// The primary of view 1 of three, which has inherited five ops of which it knows none as committed.
    fn heir(pipeline_max: u32) -> Replica {
        Replica::heir_of(1, pipeline_max)
    }

    /// As [`heir`](Self::heir), in view 1, 4, 7 and so on.
    fn heir_of(of: u64, pipeline_max: u32) -> Replica {
        let (mut replica, _) = Replica::with_five_ops(pipeline_max);
        let other = DoViewChange { view: view(of), ..do_view_change(&[], false) };
        replica.turn(Some(Input::Message {
            from: Peer::Replica(ReplicaId(2)),
            message: Message::DoViewChange(other.into()),
        }));
        assert!(replica.core.is_primary() && replica.core.head() == OpNumber(5));
        replica
    }

    /// The primary of view 1 of three that has chosen a sixth op, which only r2 has.
    fn heir_of_what_another_has() -> Replica {
        let (mut replica, mut headers) = Replica::with_five_ops(32);
        headers.push(header(6, 0, headers[4].checksum(), 0));
        let message = Message::DoViewChange(do_view_change(&headers, false).into());
        replica.turn(Some(Input::Message { from: Peer::Replica(ReplicaId(2)), message }));
        assert!(!replica.core.is_primary() && replica.core.head() == OpNumber(6));
        replica
    }

    /// The member r1 of three, with five ops of view 0, and these.
    fn with_five_ops(pipeline_max: u32) -> (Replica, Vec<Header>) {
        let mut membership = membership(3);
        membership.constants.pipeline_max = pipeline_max;
        let (mut disk, mut headers) = (SimDisk::new(formatted(1, &membership)), Vec::new());
        let mut parent = Header::root(CLUSTER);
        for op in 1..=5 {
            headers.push(header(op, 0, parent, 0));
            put(&mut disk, headers[headers.len() - 1]);
            parent = headers[headers.len() - 1].checksum();
        }
        (Replica::on(disk, 1 << 30), headers)
    }

    /// Turns until nothing is written any more. Nothing is read.
    fn turn(&mut self, input: Option<Input>) {
        let arrived = input.into_iter().collect();
        let mut inputs = Inputs { arrived, reads_max: 0, ..standing_still(&self.core) };
        loop {
            let mut effects = Effects::default();
            self.core.turn(&mut inputs, &mut Nothing, &mut effects);
            let Some((number, batch)) = effects.write else { return };
            write(&mut self.disk, batch);
            inputs.written = Some(number);
        }
    }
}

/// No time has passed, and no timer fires.
fn standing_still(core: &Core) -> Inputs {
    Inputs { now: core.time(), wall: Timestamp(1), timers: false, ..Inputs::default() }
}

fn write(disk: &mut SimDisk, batch: Batch) {
    disk.begin(batch);
    disk.complete();
}

fn put(disk: &mut SimDisk, header: Header) {
    write(disk, Batch { entries: vec![entry(header)], ..Batch::default() });
}

/// One checker, three disks, and what its sentence must name.
struct Bench {
    checkers: Checkers,
    disks: Vec<SimDisk>,
    clocks: Vec<ClockRange>,
    words: Vec<String>,
}

type Seen = Result<(), String>;

impl Bench {
    fn new(checker: &str) -> Bench {
        let membership = membership(3);
        let disks = (0..3).map(|id| SimDisk::new(formatted(id, &membership))).collect();
        Bench { checkers: Checkers::only(&[checker]), disks, clocks: Vec::new(), words: Vec::new() }
    }

    /// What the checker must say when the property is broken: the replica, and both values.
    fn names(&mut self, words: &[&dyn Display]) {
        self.words = words.iter().map(ToString::to_string).collect();
    }

    fn put(&mut self, replicas: &[usize], header: Header) {
        replicas.iter().for_each(|&replica| put(&mut self.disks[replica], header));
    }

    fn change_state(&mut self, replica: usize, change: impl Fn(&mut VsrState)) {
        let mut state = self.disks[replica].state().clone();
        change(&mut state);
        write(&mut self.disks[replica], Batch { state: Some(state), ..Batch::default() });
    }

    fn see(&mut self, observation: &Observation<'_>) -> Seen {
        let scene = Scene { disks: &self.disks, quorums: Quorums::of(3), clocks: &self.clocks };
        match self.checkers.observe(&scene, observation) {
            Some((_, replica, message)) => {
                assert_eq!(replica, observation.replica());
                Err(message)
            }
            None => Ok(()),
        }
    }

    fn sent(&mut self, replica: usize, message: &Message) -> Seen {
        self.see(&Observation::Sent { replica, message })
    }

    fn received(&mut self, replica: usize, from: u8, message: &Message) -> Seen {
        self.see(&Observation::Received { replica, from: Peer::Replica(ReplicaId(from)), message })
    }

    fn audited(&mut self, replica: usize, counted: u64, held: u64) -> Seen {
        let account = Account { name: "bytes of queued requests", counted, held, bound: 10 };
        self.see(&Observation::Audited { replica, account: &account })
    }

    /// Each replica's wall clock shows at least and at most so much.
    fn set_clocks(&mut self, ranges: [(u64, u64); 3]) {
        self.clocks = ranges.into_iter().map(|(lowest, highest)| ClockRange { lowest, highest }).collect();
    }

    fn event(&mut self, replica: usize, core: &Core, event: &Event) -> Seen {
        self.see(&Observation::Event { replica, core, event })
    }

    fn turn(&mut self, replica: usize, core: &Core) -> Seen {
        self.see(&Observation::Turn { replica, core })
    }

    fn written(&mut self, replica: usize) -> Seen {
        self.see(&Observation::Written { replica })
    }

    fn started(&mut self, replica: usize) -> Seen {
        self.see(&Observation::Started { replica })
    }

    fn executed(&mut self, replica: usize, op: u64, command: u64, reply: u128) -> Seen {
        let position = Position { op: OpNumber(op), index: 0 };
        self.see(&Observation::Executed { replica, position, command, reply: Checksum(reply << 96) })
    }

    /// r0 applies an op of these requests, by the op of their session, number and floor; with no session, by the client that
    /// opens one.
    fn applies(&mut self, op: u64, requests: &[(u64, u64, u64)], command: &[u8]) -> Seen {
        let mut body = BodyBuilder::default();
        for &(session, number, floor) in requests {
            match session {
                0 => body.push_register(ClientId(number.into())),
                _ => body.push(opened_at(session), RequestNumber(number), RequestNumber(floor), command),
            }
        }
        let (body, requests) = body.take();
        let header = Header::new(HeaderFields {
            body: Checksum::of(&body),
            body_len: body.len() as u32,
            requests,
            ..fields(op, 0, Header::root(CLUSTER), 1)
        });
        write(&mut self.disks[0], Batch { entries: vec![Entry { header, body }], ..Batch::default() });
        self.event(0, &Replica::alone(0).core, &applied(header))
    }

    fn told(&mut self, command: u64, executed: bool) -> Seen {
        self.see(&Observation::Told { command, executed, words: "these words" })
    }

    fn acknowledged(&mut self, op: u64, command: u64, reply: u128) -> Seen {
        let position = Position { op: OpNumber(op), index: 0 };
        self.see(&Observation::Acknowledged { command, position, reply: Checksum(reply << 96) })
    }
}

/// The broken sequence is noticed, in words that name what they must; the other one passes.
fn prove(checker: &str, run: fn(&mut Bench, bool) -> Seen) {
    let mut bench = Bench::new(checker);
    let message = run(&mut bench, true).expect_err("the property is broken");
    assert!(!bench.words.is_empty(), "the case says what must be named");
    for word in &bench.words {
        assert!(message.contains(word), "{checker}: {message:?} does not name {word:?}");
    }
    let mut bench = Bench::new(checker);
    assert_eq!(run(&mut bench, false), Ok(()), "{checker}: the property is kept");
}

macro_rules! cases {
    ($($test:ident: $checker:literal, $run:expr;)*) => {
        pub(crate) const PROVEN: &[&str] = &[$($checker),*];
        $(#[test] fn $test() { prove($checker, $run); })*
    };
}

mod clients;
mod later;

#[test]
fn every_checker_has_a_case_here_and_a_name_of_its_own() {
    let mut names: Vec<_> = Checkers::all().names().collect();
    let proven: Vec<&str> = PROVEN.iter().chain(later::PROVEN).chain(clients::PROVEN).copied().collect();
    let missing: Vec<_> = names.iter().filter(|name| !proven.contains(name)).collect();
    assert!(missing.is_empty(), "no case here proves that these can fail: {missing:?}");
    let unknown: Vec<_> = proven.iter().filter(|name| !names.contains(name)).collect();
    assert!(unknown.is_empty(), "no such checkers: {unknown:?}");
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn a_checker_is_told_of_what_it_wants_and_of_nothing_else() {
    struct Starts;
    impl Checker for Starts {
        fn name(&self) -> &'static str {
            "starts"
        }
        fn wants(&self) -> Interests {
            Interests::STARTED | Interests::COMMIT
        }
        fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
            Err(format!("{observation:?}"))
        }
    }
    let mut bench = Bench::new("none");
    bench.checkers.add(Box::new(Starts));
    assert_eq!(bench.checkers.names().collect::<Vec<_>>(), ["starts"]);
    assert!(bench.started(0).is_err());
    assert!(bench.sent(0, &Message::CommitOk { view: view(0), number: 1, life: Life::default() }).is_err());
    assert_eq!(bench.written(0), Ok(()));
    assert_eq!(bench.sent(0, &prepare_ok(0, first(1))), Ok(()));
}

cases! {
    two_contents_applied_at_one_op_are_noticed: "committed-prefixes-agree", |bench, broken| {
        let (a, b, core) = (first(1), first(2), Replica::alone(0).core);
        bench.names(&[&"r1", &"op 1", &"r0", &a.checksum(), &b.checksum()]);
        bench.event(0, &core, &applied(a))?;
        bench.event(1, &core, &applied(if broken { b } else { a }))
    };
    an_op_that_is_left_out_is_noticed: "committed-prefixes-agree", |bench, broken| {
        let core = Replica::alone(0).core;
        bench.names(&[&"r0", &"op 2", &"after op 0"]);
        if !broken {
            bench.event(0, &core, &applied(first(1)))?;
        }
        bench.event(0, &core, &applied(header(2, 0, first(1).checksum(), 1)))
    };
    a_primary_that_commits_what_was_not_applied_elsewhere_is_noticed: "committed-prefixes-agree", |bench, broken| {
        let (before, after) = (Replica::alone(0).core, Replica::alone(1).core);
        let (own, other) = (after.checksum(OpNumber(1)).unwrap(), first(1).checksum());
        bench.names(&[&"r0", &"op 1", &own, &"r2", &other]);
        let checksum = if broken { other } else { own };
        bench.event(2, &before, &Event::Applied { op: OpNumber(1), checksum })?;
        bench.turn(0, &before)?;
        bench.event(0, &after, &Event::Committed { commit: after.commit() })
    };
    a_second_primary_of_a_view_is_noticed: "one-primary-per-view", |bench, broken| {
        let heartbeat = Message::Commit { view: view(3), commit: CommitNumber(0), head: OpNumber(0), number: 1 };
        bench.names(&[&"r1", &"Prepare", &"view 3", &"r0"]);
        bench.sent(0, &heartbeat)?;
        bench.sent(1, &prepare(if broken { 3 } else { 4 }, first(1)))
    };
    a_second_content_of_an_op_in_a_view_is_noticed: "one-content-per-view-and-op", |bench, broken| {
        let (a, b) = (first(1), header(1, u64::from(!broken), Header::root(CLUSTER), 2));
        bench.names(&[&"r0", &"op 1 of view 0", &a.checksum(), &b.checksum()]);
        bench.sent(0, &prepare(0, a))?;
        bench.sent(0, &prepare(1, b))
    };
    a_commit_without_a_quorum_of_disks_is_noticed: "committed-on-a-quorum-of-disks", |bench, broken| {
        let (before, after) = (Replica::alone(0), Replica::alone(1));
        let op = after.disk.intact(OpNumber(1)).unwrap().header;
        bench.put(if broken { &[1] } else { &[1, 2] }, op);
        bench.names(&[&"r0", &"op 1", &op.checksum(), &"1 of 2"]);
        bench.turn(0, &before.core)?;
        bench.event(0, &after.core, &Event::Committed { commit: after.core.commit() })
    };
    an_acknowledgement_of_what_is_not_on_the_disk_is_noticed: "acknowledged-is-durable", |bench, broken| {
        let (said, held) = (first(1), first(2));
        bench.put(&[1], if broken { held } else { said });
        bench.names(&[&"r1", &"op 1", &said.checksum(), &held.checksum()]);
        bench.sent(1, &prepare_ok(0, said))
    };
    an_acknowledgement_above_a_hole_is_noticed: "acknowledged-is-durable", |bench, broken| {
        let second = header(2, 0, first(1).checksum(), 1);
        bench.put(&[1], second);
        bench.names(&[&"r1", &"op 2", &"op 1", &first(1).checksum(), &"nothing"]);
        if !broken {
            bench.put(&[1], first(1));
        }
        bench.sent(1, &prepare_ok(0, second))
    };
    an_acknowledgement_with_the_log_of_another_view_is_noticed: "acknowledged-is-durable", |bench, broken| {
        bench.put(&[1], first(1));
        bench.change_state(1, |state| state.view = view(u64::from(broken)));
        bench.names(&[&"r1", &"in view 0", &"view 1"]);
        bench.sent(1, &prepare_ok(0, first(1)))
    };
    an_acknowledged_op_that_vanishes_from_a_disk_is_noticed: "acknowledged-stays", |bench, broken| {
        let core = Replica::alone(1).core;
        bench.put(&[0, 1], first(1));
        bench.names(&[&"r0", &first(1).checksum(), &"1 of 2", &"r1 has nothing there"]);
        bench.event(0, &core, &applied(first(1)))?;
        bench.sent(0, &reply(0))?;
        bench.turn(0, &core)?;
        if broken {
            write(&mut bench.disks[1], Batch { truncate_above: Some(OpNumber::ZERO), ..Batch::default() });
        } else {
            bench.disks[1].rot(OpNumber(1), Damage::Both);
        }
        bench.written(1)
    };
    an_acknowledged_op_that_is_on_too_few_disks_at_once_is_noticed: "acknowledged-stays", |bench, broken| {
        let core = Replica::alone(1).core;
        bench.put(if broken { &[0] } else { &[0, 2] }, first(1));
        bench.names(&[&"r0", &first(1).checksum(), &"1 of 2"]);
        bench.event(0, &core, &applied(first(1)))?;
        bench.acknowledged(1, 1, 0)?;
        bench.turn(0, &core)
    };
    an_acknowledged_op_that_is_truncated_is_noticed: "acknowledged-stays", |bench, broken| {
        let core = Replica::alone(1).core;
        let second = header(2, 0, first(1).checksum(), 1);
        bench.put(&[0, 1, 2], first(1));
        bench.put(&[0, 1, 2], second);
        bench.names(&[&"r2", &"ops 1..2", &"op 1", &first(1).checksum()]);
        bench.event(0, &core, &applied(first(1)))?;
        bench.sent(0, &reply(0))?;
        let above = OpNumber(u64::from(!broken));
        bench.event(2, &core, &Event::Truncated { above, head: OpNumber(2) })
    };
    another_op_in_the_place_of_an_acknowledged_one_is_noticed: "acknowledged-stays", |bench, broken| {
        let (core, other) = (Replica::alone(1).core, first(if broken { 2 } else { 1 }));
        bench.put(&[0, 1], first(1));
        bench.names(&[&"r2", &"op 1", &first(1).checksum(), &other.checksum()]);
        bench.event(0, &core, &applied(first(1)))?;
        bench.sent(0, &reply(0))?;
        bench.event(2, &core, &applied(other))
    };
    a_view_that_begins_without_a_committed_op_is_noticed: "new-view-holds-what-was-committed", |bench, broken| {
        let (core, whole) = (Replica::alone(1).core, [first(1)]);
        bench.names(&[&"r1", &"view 1", &"head 0", &"op 1"]);
        bench.event(0, &core, &applied(first(1)))?;
        bench.sent(1, &start_view(1, if broken { &[] } else { &whole }))
    };
    a_view_that_begins_with_another_op_than_the_committed_is_noticed:
        "new-view-holds-what-was-committed", |bench, broken| {
        let (core, other) = (Replica::alone(1).core, first(if broken { 2 } else { 1 }));
        bench.names(&[&"r1", &"view 1", &"op 1", &first(1).checksum(), &other.checksum()]);
        bench.event(0, &core, &applied(first(1)))?;
        bench.sent(1, &start_view(1, &[other]))
    };
    an_op_prepared_in_the_place_of_a_committed_one_is_noticed: "new-view-holds-what-was-committed", |bench, broken| {
        let (core, other) = (Replica::alone(1).core, first(if broken { 2 } else { 1 }));
        bench.names(&[&"r1", &"view 1", &"op 1", &first(1).checksum(), &other.checksum()]);
        bench.event(0, &core, &applied(first(1)))?;
        bench.sent(1, &prepare(1, other))
    };
    a_message_of_a_view_that_is_not_durable_is_noticed: "nothing-leaves-before-it-is-durable", |bench, broken| {
        bench.names(&[&"r2", &"StartViewChange", &"view 1", &"view 0"]);
        if !broken {
            bench.change_state(2, |state| state.view = view(1));
        }
        bench.sent(2, &Message::StartViewChange { leaving: view(1), life: Life::default() })
    };
    a_message_with_a_log_view_that_is_not_durable_is_noticed: "nothing-leaves-before-it-is-durable", |bench, broken| {
        bench.names(&[&"r2", &"DoViewChange", &"log_view 0", &"log_view 1"]);
        bench.change_state(2, |state| (state.view, state.log_view) = (view(1), view(u64::from(broken))));
        bench.sent(2, &Message::DoViewChange(do_view_change(&[], false).into()))
    };
    a_second_story_in_a_do_view_change_is_noticed: "one-do-view-change-per-view", |bench, broken| {
        let (a, b) = (first(1), first(if broken { 2 } else { 1 }));
        bench.names(&[&"r1", &"view 1", &a.checksum(), &b.checksum()]);
        bench.sent(1, &Message::DoViewChange(do_view_change(&[a], false).into()))?;
        // The facts are of the moment; the headers are not.
        bench.sent(1, &Message::DoViewChange(do_view_change(&[b], true).into()))
    };
    a_nack_of_an_acknowledged_op_is_noticed: "nacked-never-acknowledged", |bench, broken| {
        let second = header(2, 0, first(1).checksum(), 1);
        bench.put(&[1], first(1));
        bench.put(&[1], second);
        bench.names(&[&"r1", &"op 1", &"up to op 2"]);
        bench.sent(1, &prepare_ok(0, second))?;
        bench.sent(1, &Message::DoViewChange(do_view_change(&[first(1), second], broken).into()))
    };
    a_log_that_ends_before_what_was_acknowledged_is_noticed: "nacked-never-acknowledged", |bench, broken| {
        let held = [first(1)];
        bench.put(&[1], first(1));
        bench.names(&[&"r1", &"op 1", &"ends at 0"]);
        bench.sent(1, &prepare_ok(0, first(1)))?;
        bench.sent(1, &Message::DoViewChange(do_view_change(if broken { &[] } else { &held }, false).into()))
    };
    an_acknowledgement_with_an_uncertain_head_is_noticed: "uncertain-head-counts-for-nothing", |bench, broken| {
        bench.put(&[1], first(1));
        bench.disks[1].rot(OpNumber(1), Damage::Both);
        bench.names(&[&"r1", &"PrepareOk", &"op 0"]);
        bench.started(1)?;
        if !broken {
            // It has the log of view 2, which r2 has started.
            bench.change_state(1, |state| (state.starts, state.view, state.log_view) = (1, view(2), view(2)));
        }
        bench.sent(1, &prepare_ok(2, first(1)))
    };
    an_uncertain_head_that_is_called_certain_is_noticed: "uncertain-head-counts-for-nothing", |bench, broken| {
        bench.put(&[1], first(1));
        bench.disks[1].rot(OpNumber(1), Damage::Both);
        bench.names(&[&"r1", &"head 1 certain", &"view 1", &"op 0"]);
        bench.started(1)?;
        let dvc = DoViewChange { head_certain: broken, ..do_view_change(&[first(1)], false) };
        bench.sent(1, &Message::DoViewChange(dvc.into()))
    };
    a_nack_above_an_uncertain_head_is_noticed: "uncertain-head-counts-for-nothing", |bench, broken| {
        let second = header(2, 0, first(1).checksum(), 1);
        bench.put(&[1], first(1));
        bench.put(&[1], second);
        bench.disks[1].rot(OpNumber(2), Damage::Both);
        bench.names(&[&"r1", &"op 2", &"view 1", &"op 1"]);
        bench.started(1)?;
        let mut dvc = DoViewChange { head_certain: false, ..do_view_change(&[first(1), second], true) };
        dvc.evidence[1].nack = broken;
        bench.sent(1, &Message::DoViewChange(dvc.into()))
    };
    a_primary_that_makes_itself_certain_is_noticed: "uncertain-head-counts-for-nothing", |bench, broken| {
        bench.change_state(1, |state| state.head_certain = false);
        bench.names(&[&"r1", &"view 4", &"op 0"]);
        bench.started(1)?;
        let of = view(if broken { 4 } else { 5 });
        bench.change_state(1, |state| (state.starts, state.head_certain, state.log_view) = (1, true, of));
        bench.sent(1, &Message::RequestStartView { view: of, nonce: 1 })
    };
    a_head_that_an_old_start_view_calls_certain_is_noticed: "uncertain-head-counts-for-nothing", |bench, broken| {
        let second = header(2, 2, first(1).checksum(), 1);
        bench.put(&[1], first(1));
        bench.put(&[1], second);
        bench.sent(1, &prepare_ok(2, second))?;
        bench.disks[1].rot(OpNumber(2), Damage::Both);
        bench.names(&[&"r1", &"head 1 certain", &"view 2", &"op 2"]);
        bench.started(1)?;
        let head = OpNumber(if broken { 1 } else { 2 });
        bench.change_state(1, |state| {
            (state.starts, state.head_certain, state.log_view, state.suffix.head) = (1, true, view(2), head);
        });
        bench.sent(1, &Message::RequestStartView { view: view(2), nonce: 1 })
    };
    normal_operation_with_an_uncertain_head_is_noticed: "uncertain-head-counts-for-nothing", |bench, broken| {
        let core = Replica::heir(32).core;
        bench.change_state(1, |state| state.head_certain = !broken);
        bench.names(&[&"r1", &"primary of view 1", &"op 0"]);
        bench.started(1)?;
        bench.event(1, &core, &Event::ViewStarted { view: view(1), primary: ReplicaId(1) })
    };
}
