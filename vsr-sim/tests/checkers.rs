//! Every checker can fail: for each, the shortest sequence of observations that breaks its property, and one that
//! differs from it in one point and keeps it.

use std::fmt::Display;

use bytes::Bytes;
use vsr::protocol::{
    Account, ApplyContext, BodyBuilder, Core, DoViewChange, Event, Fact, Fault, HeaderFields, Life, Machine, OpKind,
    Options, Outcome, Refusal, Reply, Request, StartView,
};
use vsr::{
    Batch, Checksum, ClientId, ClusterId, CommitNumber, Entry, Header, Incarnation, Membership, Message, Monotonic,
    OpNumber, Peer, Position, Quorums, ReplicaId, RequestNumber, SessionId, Timestamp, Timing, View, VsrState,
};
use vsr_sim::check::{Checker, Checkers, ClockRange, Digested, Interests, Observation, Scene};
use vsr_sim::{Damage, SimDisk};

const CLUSTER: ClusterId = ClusterId(1);

fn membership(n: usize) -> Membership {
    Membership::new((0..n).map(|id| format!("r{id}"))).unwrap()
}

fn formatted(id: usize, membership: &Membership) -> VsrState {
    VsrState::formatted(CLUSTER, ReplicaId(id as u8), Incarnation(id as u128), membership.clone())
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
        checkpoint: OpNumber::ZERO,
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
        facts: headers.iter().map(|_| Fact { present: !nack, nack }).collect(),
        checkpoint: OpNumber::ZERO,
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
    fn decodes(&self, _: &Bytes) -> bool {
        true
    }

    fn apply(&mut self, _: &ApplyContext, _: Bytes, _: &mut Vec<u8>) -> Result<(), Fault> {
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
        };
        let core = Core::recover(options, disk.recover(), Monotonic(1), Timestamp(1)).unwrap();
        let mut replica = Replica { core, disk };
        replica.turn();
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
        self.core.on_message(Peer::Client(client), requests, &Nothing);
        self.turn();
    }

    /// The primary of view 1 of three, which has inherited five ops of which it knows none as committed.
    fn heir(pipeline_max: u32) -> Replica {
        Replica::heir_of(1, pipeline_max)
    }

    /// As [`heir`](Self::heir), in view 1, 4, 7 and so on.
    fn heir_of(of: u64, pipeline_max: u32) -> Replica {
        let mut membership = membership(3);
        membership.constants.pipeline_max = pipeline_max;
        let mut disk = SimDisk::new(formatted(1, &membership));
        let mut parent = Header::root(CLUSTER);
        for op in 1..=5 {
            let next = header(op, 0, parent, 0);
            put(&mut disk, next);
            parent = next.checksum();
        }
        let mut replica = Replica::on(disk, 1 << 30);
        let other = Message::DoViewChange(DoViewChange { view: view(of), ..do_view_change(&[], false) });
        replica.core.on_message(Peer::Replica(ReplicaId(2)), other, &Nothing);
        replica.turn();
        assert!(replica.core.is_primary() && replica.core.head() == OpNumber(5));
        replica
    }

    fn turn(&mut self) {
        loop {
            self.core.apply(&mut Nothing, 100);
            self.core.end_turn();
            let Some((number, batch)) = self.core.take_batch() else { return };
            write(&mut self.disk, batch);
            self.core.on_written(number);
        }
    }
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
        const PROVEN: &[&str] = &[$($checker),*];
        $(#[test] fn $test() { prove($checker, $run); })*
    };
}

#[test]
fn every_checker_has_a_case_here_and_a_name_of_its_own() {
    let mut names: Vec<_> = Checkers::all().names().collect();
    let missing: Vec<_> = names.iter().filter(|name| !PROVEN.contains(name)).collect();
    assert!(missing.is_empty(), "no case here proves that these can fail: {missing:?}");
    let unknown: Vec<_> = PROVEN.iter().filter(|name| !names.contains(name)).collect();
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
        bench.sent(2, &Message::StartViewChange { view: view(1), life: Life::default() })
    };
    a_message_with_a_log_view_that_is_not_durable_is_noticed: "nothing-leaves-before-it-is-durable", |bench, broken| {
        bench.names(&[&"r2", &"DoViewChange", &"log_view 0", &"log_view 1"]);
        bench.change_state(2, |state| (state.view, state.log_view) = (view(1), view(u64::from(broken))));
        bench.sent(2, &Message::DoViewChange(do_view_change(&[], false)))
    };
    a_second_story_in_a_do_view_change_is_noticed: "one-do-view-change-per-view", |bench, broken| {
        let (a, b) = (first(1), first(if broken { 2 } else { 1 }));
        bench.names(&[&"r1", &"view 1", &a.checksum(), &b.checksum()]);
        bench.sent(1, &Message::DoViewChange(do_view_change(&[a], false)))?;
        // The facts are of the moment; the headers are not.
        bench.sent(1, &Message::DoViewChange(do_view_change(&[b], true)))
    };
    a_nack_of_an_acknowledged_op_is_noticed: "nacked-never-acknowledged", |bench, broken| {
        let second = header(2, 0, first(1).checksum(), 1);
        bench.put(&[1], first(1));
        bench.put(&[1], second);
        bench.names(&[&"r1", &"op 1", &"up to op 2"]);
        bench.sent(1, &prepare_ok(0, second))?;
        bench.sent(1, &Message::DoViewChange(do_view_change(&[first(1), second], broken)))
    };
    a_log_that_ends_before_what_was_acknowledged_is_noticed: "nacked-never-acknowledged", |bench, broken| {
        let held = [first(1)];
        bench.put(&[1], first(1));
        bench.names(&[&"r1", &"op 1", &"ends at 0"]);
        bench.sent(1, &prepare_ok(0, first(1)))?;
        bench.sent(1, &Message::DoViewChange(do_view_change(if broken { &[] } else { &held }, false)))
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
        bench.sent(1, &Message::DoViewChange(dvc))
    };
    a_nack_above_an_uncertain_head_is_noticed: "uncertain-head-counts-for-nothing", |bench, broken| {
        let second = header(2, 0, first(1).checksum(), 1);
        bench.put(&[1], first(1));
        bench.put(&[1], second);
        bench.disks[1].rot(OpNumber(2), Damage::Both);
        bench.names(&[&"r1", &"op 2", &"view 1", &"op 1"]);
        bench.started(1)?;
        let mut dvc = DoViewChange { head_certain: false, ..do_view_change(&[first(1), second], true) };
        dvc.facts[1].nack = broken;
        bench.sent(1, &Message::DoViewChange(dvc))
    };
    a_primary_that_makes_itself_certain_is_noticed: "uncertain-head-counts-for-nothing", |bench, broken| {
        bench.change_state(1, |state| state.head_certain = false);
        bench.names(&[&"r1", &"view 4", &"op 0"]);
        bench.started(1)?;
        let of = view(if broken { 4 } else { 5 });
        bench.change_state(1, |state| (state.starts, state.head_certain, state.log_view) = (1, true, of));
        bench.sent(1, &Message::RequestStartView { view: of, nonce: 1 })
    };
    normal_operation_with_an_uncertain_head_is_noticed: "uncertain-head-counts-for-nothing", |bench, broken| {
        let core = Replica::heir(32).core;
        bench.change_state(1, |state| state.head_certain = !broken);
        bench.names(&[&"r1", &"primary of view 1", &"op 0"]);
        bench.started(1)?;
        bench.event(1, &core, &Event::ViewStarted { view: view(1), primary: ReplicaId(1) })
    };
    a_confirmation_between_two_views_is_noticed: "view-change-counts-for-nothing", |bench, broken| {
        bench.names(&[&"r1", &"CommitOk of view 0", &"view 1", &"log_view 0"]);
        if broken {
            bench.change_state(1, |state| state.view = view(1));
        }
        bench.sent(1, &Message::CommitOk { view: view(0), number: 1, life: Life::default() })
    };
    a_read_that_is_confirmed_between_two_views_is_noticed: "view-change-counts-for-nothing", |bench, broken| {
        bench.names(&[&"r1", &"ReadIndexOk", &"view 1", &"log_view 0"]);
        bench.change_state(1, |state| (state.view, state.log_view) = (view(1), view(u64::from(!broken))));
        bench.sent(1, &Message::ReadIndexOk { nonce: 1, index: OpNumber(1) })
    };
    a_prepare_that_does_not_fit_the_one_before_is_noticed: "hash-chain", |bench, broken| {
        let parent = first(if broken { 2 } else { 1 }).checksum();
        bench.names(&[&"r0", &"op 2", &parent, &first(1).checksum()]);
        bench.sent(0, &start_view(0, &[]))?;
        bench.sent(0, &prepare(0, first(1)))?;
        bench.sent(0, &prepare(0, header(2, 0, parent, 1)))
    };
    a_start_view_whose_headers_do_not_fit_is_noticed: "hash-chain", |bench, broken| {
        let parent = first(if broken { 2 } else { 1 }).checksum();
        bench.names(&[&"r1", &"op 2", &parent, &first(1).checksum()]);
        bench.sent(1, &start_view(1, &[first(1), header(2, 0, parent, 1)]))
    };
    an_applied_op_that_does_not_fit_the_root_is_noticed: "hash-chain", |bench, broken| {
        let (core, root) = (Replica::alone(0).core, Header::root(CLUSTER));
        let parent = if broken { Checksum(9 << 96) } else { root };
        let op = header(1, 0, parent, 1);
        bench.put(&[0, 2], op);
        bench.names(&[&"r1", &"op 1", &parent, &root]);
        bench.event(1, &core, &applied(op))
    };
    a_view_that_goes_back_along_the_log_is_noticed: "views-in-op-order", |bench, broken| {
        let before = header(1, 2, Header::root(CLUSTER), 1);
        let of = if broken { 1 } else { 2 };
        bench.names(&[&"r2", &"op 1 of view 2", &"op 2 of view 1"]);
        bench.sent(2, &prepare(2, before))?;
        bench.sent(2, &prepare(2, header(2, of, before.checksum(), 1)))
    };
    a_timestamp_that_stands_still_is_noticed: "timestamps-in-op-order", |bench, broken| {
        let core = Replica::alone(0).core;
        let timestamp = Timestamp(if broken { 10 } else { 11 });
        let second = Header::new(HeaderFields { timestamp, ..fields(2, 0, first(1).checksum(), 1) });
        bench.put(&[0, 1], first(1));
        bench.put(&[0, 1], second);
        bench.names(&[&"r2", &"op 1 with timestamp 10", &"op 2 with timestamp 10"]);
        bench.event(2, &core, &applied(first(1)))?;
        bench.event(2, &core, &applied(second))
    };
    a_reply_before_the_commit_is_noticed: "replies-are-committed", |bench, broken| {
        let core = Replica::alone(u128::from(!broken)).core;
        bench.names(&[&"r0", &"op 1", &"commit number is 0"]);
        bench.sent(0, &reply(0))?;
        bench.turn(0, &core)
    };
    a_client_that_has_a_reply_before_the_commit_is_noticed: "replies-are-committed", |bench, broken| {
        let core = Replica::alone(u128::from(!broken)).core;
        bench.names(&[&"command 5", &"1.0", &"commit number is 0"]);
        bench.turn(0, &core)?;
        bench.acknowledged(1, 5, 0)
    };
    a_client_that_is_told_of_a_view_that_has_not_started_is_noticed: "clients-see-started-views", |bench, broken| {
        bench.change_state(2, |state| state.view = view(2));
        bench.names(&[&"r2", &"view 2", &"is 0"]);
        bench.sent(2, &reply(if broken { 2 } else { 0 }))
    };
    a_pipeline_over_its_bound_is_noticed: "queues-are-bounded", |bench, broken| {
        bench.names(&[&"r1", &"5 uncommitted ops", &"2 are allowed"]);
        bench.turn(1, &Replica::heir(if broken { 2 } else { 5 }).core)
    };
    a_log_over_its_bound_is_noticed: "queues-are-bounded", |bench, broken| {
        bench.names(&[&"r1", &"100 bytes in its log", &"99 are allowed"]);
        let long = Header::new(HeaderFields { body_len: 100, ..fields(1, 0, Header::root(CLUSTER), 1) });
        bench.put(&[1], long);
        let core = Replica::on(bench.disks[1].clone(), if broken { 99 } else { 100 }).core;
        bench.turn(1, &core)
    };
    an_op_over_its_bounds_is_noticed: "queues-are-bounded", |bench, broken| {
        bench.change_state(0, |state| state.membership.constants.batch_requests_max = 2);
        let requests = if broken { 3 } else { 2 };
        let op = Header::new(HeaderFields { requests, ..fields(1, 0, Header::root(CLUSTER), 1) });
        bench.names(&[&"r0", &"op 1 of 3 requests", &"2 and"]);
        bench.sent(0, &prepare(0, op))
    };
    a_count_that_is_not_what_is_there_is_noticed: "accounts-are-true", |bench, broken| {
        bench.names(&[&"r2", &"counts 7 bytes of queued requests", &"there are 5"]);
        bench.audited(2, if broken { 7 } else { 5 }, 5)
    };
    an_account_over_its_bound_is_noticed: "accounts-are-true", |bench, broken| {
        let held = if broken { 11 } else { 10 };
        bench.names(&[&"r2", &"11 bytes of queued requests", &"10 are allowed"]);
        bench.audited(2, held, held)
    };
    a_commit_with_an_acknowledgement_of_another_view_is_noticed: "committed-in-this-view", |bench, broken| {
        // It leads view 4, and may have led view 1.
        let heir = Replica::heir_of(4, 32);
        let op = heir.disk.durable_header(OpNumber(5)).unwrap();
        bench.disks[1] = heir.disk;
        bench.names(&[&"r1", &"op 5", &"view 4", &"1 of 2"]);
        bench.received(1, 2, &prepare_ok(if broken { 1 } else { 4 }, op))?;
        bench.event(1, &heir.core, &Event::Committed { commit: CommitNumber(5) })
    };
    a_commit_without_the_own_copy_is_noticed: "committed-in-this-view", |bench, broken| {
        let heir = Replica::heir_of(4, 32);
        let op = heir.disk.durable_header(OpNumber(5)).unwrap();
        if !broken {
            bench.disks[1] = heir.disk;
        }
        bench.names(&[&"r1", &"op 5", &"view 4", &"1 of 2"]);
        bench.received(1, 2, &prepare_ok(4, op))?;
        bench.event(1, &heir.core, &Event::Committed { commit: CommitNumber(5) })
    };
    an_index_that_a_round_of_an_earlier_term_confirms_is_noticed: "reads-are-confirmed", |bench, broken| {
        let round = |of: u64, number: u64| Message::Commit {
            view: view(of),
            commit: CommitNumber(0),
            head: OpNumber(0),
            number,
        };
        bench.names(&[&"r0", &"index 4", &"view 3", &"1 are not"]);
        bench.sent(0, &round(0, 9))?;
        bench.received(0, 1, &Message::ReadIndex { nonce: 7 })?;
        bench.sent(0, &round(3, 1))?;
        let of = if broken { 0 } else { 3 };
        bench.received(0, 2, &Message::CommitOk { view: view(of), number: 1, life: Life::default() })?;
        bench.sent(0, &Message::ReadIndexOk { nonce: 7, index: OpNumber(4) })
    };
    an_index_from_a_round_that_was_sent_before_the_question_is_noticed: "reads-are-confirmed", |bench, broken| {
        let round = |number: u64| Message::Commit {
            view: view(0),
            commit: CommitNumber(0),
            head: OpNumber(0),
            number,
        };
        bench.names(&[&"r0", &"index 4", &"view 0", &"0 are not"]);
        bench.sent(0, &round(1))?;
        bench.received(0, 1, &Message::ReadIndex { nonce: 7 })?;
        if !broken {
            bench.sent(0, &round(2))?;
        }
        bench.received(0, 2, &Message::CommitOk { view: view(0), number: if broken { 1 } else { 2 }, life: Life::default() })?;
        bench.sent(0, &Message::ReadIndexOk { nonce: 7, index: OpNumber(4) })
    };
    an_answer_to_a_client_that_nobody_confirms_is_noticed: "reads-are-confirmed", |bench, broken| {
        let client = ClientId(7);
        let query = Message::Query { client, nonce: 3, query: Bytes::new() };
        let answer =
            Message::Answer { client, nonce: 3, answer: Ok(Bytes::new()), position: OpNumber(2), view: view(0) };
        bench.names(&[&"r1", &"op 2"]);
        let ask = Message::ReadIndex { nonce: 5 };
        if broken {
            // The ask had left before the query came.
            bench.sent(1, &ask)?;
        }
        bench.see(&Observation::Received { replica: 1, from: Peer::Client(client), message: &query })?;
        bench.sent(1, &ask)?;
        bench.received(1, 0, &Message::ReadIndexOk { nonce: 5, index: OpNumber(2) })?;
        bench.sent(1, &answer)
    };
    a_timestamp_ahead_of_the_median_is_noticed: "timestamps-within-the-clocks", |bench, broken| {
        // One clock of three is mad; with a quorum of two the lower of two counts.
        bench.set_clocks([(0, 5000), (0, 100), (0, 90)]);
        let timestamp = if broken { 101 } else { 100 };
        let op = Header::new(HeaderFields { timestamp: Timestamp(timestamp), ..fields(1, 0, Header::root(CLUSTER), 1) });
        bench.names(&[&"r0", &"op 1", &"101", &"at most 100"]);
        bench.sent(0, &start_view(0, &[]))?;
        bench.sent(0, &prepare(0, op))
    };
    a_timestamp_behind_every_median_is_noticed: "timestamps-within-the-clocks", |bench, broken| {
        bench.set_clocks([(80, 5000), (70, 5000), (90, 5000)]);
        let timestamp = if broken { 69 } else { 70 };
        let op = Header::new(HeaderFields { timestamp: Timestamp(timestamp), ..fields(1, 0, Header::root(CLUSTER), 1) });
        bench.names(&[&"r0", &"op 1", &"69", &"at least 70"]);
        bench.sent(0, &start_view(0, &[]))?;
        bench.sent(0, &prepare(0, op))
    };
    a_commit_number_that_goes_back_is_noticed: "monotone-view-log-view-commit", |bench, broken| {
        bench.names(&[&"r0", &"commit 2", &"back to 1"]);
        bench.turn(0, &Replica::alone(2).core)?;
        if !broken {
            bench.started(0)?;
        }
        bench.turn(0, &Replica::alone(1).core)
    };
    a_durable_view_that_goes_back_is_noticed: "monotone-view-log-view-commit", |bench, broken| {
        bench.names(&[&"r1", &"view 2", &"to 1"]);
        bench.change_state(1, |state| state.view = view(2));
        bench.written(1)?;
        bench.change_state(1, |state| state.view = view(if broken { 1 } else { 3 }));
        bench.started(1)
    };
    a_committed_op_that_is_dropped_is_noticed: "monotone-view-log-view-commit", |bench, broken| {
        let core = Replica::alone(2).core;
        bench.names(&[&"r0", &"ops 2..3", &"op 2"]);
        bench.turn(0, &core)?;
        let above = OpNumber(if broken { 1 } else { 2 });
        bench.event(0, &core, &Event::Truncated { above, head: OpNumber(3) })
    };
    a_log_view_above_the_view_is_noticed: "state-order", |bench, broken| {
        bench.names(&[&"r1", &"log_view 1", &"view 0"]);
        bench.change_state(1, |state| (state.view, state.log_view) = (view(u64::from(!broken)), view(1)));
        let core = Replica::on(bench.disks[1].clone(), 1 << 30).core;
        bench.turn(1, &core)
    };
    a_command_that_is_executed_at_two_positions_is_noticed: "exactly-once", |bench, broken| {
        bench.names(&[&"r1", &"command 5", &"at 2.0", &"at 1.0"]);
        bench.executed(0, 1, 5, 0)?;
        bench.executed(1, if broken { 2 } else { 1 }, 5, 0)
    };
    a_command_that_is_executed_twice_in_a_life_is_noticed: "exactly-once", |bench, broken| {
        bench.names(&[&"r0", &"command 5", &"at 1.0"]);
        bench.executed(0, 1, 5, 0)?;
        if !broken {
            bench.started(0)?;
        }
        bench.executed(0, 1, 5, 0)
    };
    a_second_reply_to_a_command_is_noticed: "one-reply-per-command", |bench, broken| {
        bench.names(&[&"r1", &"command 5", &Checksum(7 << 96), &"r0", &Checksum(6 << 96)]);
        bench.executed(0, 1, 5, 6)?;
        bench.executed(1, 1, 5, if broken { 7 } else { 6 })
    };
    a_reply_that_nobody_computed_is_noticed: "one-reply-per-command", |bench, broken| {
        bench.names(&[&"command 5", &Checksum(7 << 96), &"r0", &Checksum(6 << 96)]);
        bench.executed(0, 1, 5, 6)?;
        bench.acknowledged(1, 5, if broken { 7 } else { 6 })
    };
    states_that_differ_after_an_op_are_noticed: "equal-state-after-equal-ops", |bench, broken| {
        let digest = |salt: u128| Checksum(salt << 96);
        bench.names(&[&"op 16", &"r1", &digest(2), &"r0", &digest(1)]);
        bench.see(&Observation::Digest { replica: 0, of: Digested::Sessions(OpNumber(16)), digest: digest(1) })?;
        bench.see(&Observation::Digest { replica: 1, of: Digested::Sessions(OpNumber(16)), digest: digest(if broken { 2 } else { 1 }) })
    };
    a_command_that_executes_after_its_client_was_told_that_it_does_not_is_noticed: "outcomes-are-kept", |bench, broken| {
        bench.names(&[&"r0", &"command 5", &"at 1.0"]);
        bench.told(5, false)?;
        bench.executed(0, 1, if broken { 5 } else { 6 }, 0)
    };
    a_client_that_is_told_that_what_was_executed_is_not_is_noticed: "outcomes-are-kept", |bench, broken| {
        bench.names(&[&"command 5", &"these words", &"at 1.0"]);
        bench.executed(0, 1, if broken { 5 } else { 6 }, 0)?;
        bench.told(5, false)
    };
    a_lost_reply_to_what_was_never_executed_is_noticed: "outcomes-are-kept", |bench, broken| {
        bench.names(&[&"command 5", &"these words"]);
        bench.executed(0, 1, if broken { 6 } else { 5 }, 0)?;
        bench.told(5, true)
    };
    a_repeat_that_executes_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"at 3.0"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, 1, 1)], b"a")?;
        if broken {
            bench.executed(0, 3, 6, 0)?;
        }
        bench.applies(3, &[(1, 1, 1)], b"other content")
    };
    a_repeat_that_executes_on_another_replica_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r1", &"command 5", &"at 3.0"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, 1, 1)], b"a")?;
        bench.applies(3, &[(1, 1, 1)], b"a")?;
        bench.executed(1, if broken { 3 } else { 2 }, 5, 0)
    };
    a_new_command_that_is_left_out_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"at 3.0", &"is new"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, 1, 1)], b"a")?;
        if !broken {
            bench.executed(0, 3, 6, 0)?;
        }
        bench.applies(3, &[(1, 2, 1)], b"b")
    };
    a_number_below_the_floor_that_executes_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"at 3.0"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        // A floor above its number takes effect up to the number.
        bench.applies(2, &[(1, 5, 9)], b"a")?;
        bench.executed(0, 3, 6, 0)?;
        bench.applies(3, &[(1, if broken { 4 } else { 6 }, 1)], b"b")
    };
    a_number_beyond_the_window_that_executes_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"at 2.0"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, if broken { 1025 } else { 1024 }, 1)], b"a")
    };
    a_command_over_the_longest_that_gets_into_the_log_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"262145 bytes", &"262144"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, 1, 1)], &vec![0; (256 << 10) + usize::from(broken)])
    };
    an_open_session_that_is_called_gone_is_noticed: "sessions-follow-the-log", |bench, broken| {
        let core = Replica::alone(0).core;
        bench.names(&[&"r1", &ClientId(7), &opened_at(1)]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        // Another's session is none of that client's business.
        bench.sent(1, &gone(if broken { 7 } else { 8 }))?;
        bench.turn(1, &core)
    };
    a_session_that_has_ended_too_early_is_noticed: "sessions-follow-the-log", |bench, broken| {
        let core = Replica::alone(1).core;
        let both = [(0, 7, 0), (0, 8, 0)];
        bench.names(&[&"r0", &"1 sessions", &"op 1", &"2 are open"]);
        bench.applies(1, if broken { &both } else { &both[..1] }, b"")?;
        bench.turn(0, &core)
    };
    a_replica_that_stops_while_its_disk_is_well_is_noticed: "replica-runs", |bench, broken| {
        bench.names(&[&"r1 stopped", &"without a cause"]);
        bench.see(&Observation::Broke { replica: 1, must: true, how: "its write failed" })?;
        if broken {
            // In an earlier life.
            bench.started(1)?;
        }
        bench.see(&Observation::Stopped { replica: 1, by_storage: true, why: "r1 stopped: the disk is full" })
    };
    a_replica_that_stops_for_another_reason_than_its_disk_is_noticed: "replica-runs", |bench, broken| {
        bench.names(&[&"r1 stopped: two contents"]);
        bench.see(&Observation::Broke { replica: 1, must: false, how: "its disk cannot be used" })?;
        bench.see(&Observation::Stopped { replica: 1, by_storage: !broken, why: "r1 stopped: two contents" })
    };
    a_replica_that_goes_on_after_a_failed_write_is_noticed: "replica-runs", |bench, broken| {
        bench.names(&[&"r1", &"CommitOk", &"its write failed"]);
        bench.see(&Observation::Broke { replica: 1, must: broken, how: "its write failed" })?;
        bench.sent(1, &Message::CommitOk { view: view(0), number: 1 })
    };
}
