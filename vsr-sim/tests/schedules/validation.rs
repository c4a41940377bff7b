//! What is refused or ignored: requests and messages out of bounds, messages of the wrong sender, and memberships that
//! are not safe.

use std::time::Duration;

use bytes::Bytes;
use vsr::protocol::{
    CheckpointId, CommitNumber, DoViewChange, Entry, Header, HeaderFields, Life, MembershipError, Message, OpKind,
    OpNumber, Outcome, Peer, Ping, Position, Quorums, Refusal, Request, RequestNumber, SessionId, StartView, Timestamp,
    View,
};
use vsr::{Checksum, Membership};
use vsr_sim::script::{Flight, Script};

use crate::support::{
    between_replicas, describe, members, membership, ms, refused, replica, replied, submit, times, watch, write,
};

/// CL-15: the longest and the shortest request are executed. Longer ones, undecodable ones and those beyond the
/// window are refused in words and leave no trace.
#[test]
fn cl_15_requests_out_of_bounds_are_refused_and_not_logged() {
    let mut membership = Membership::new((0..3).map(|id| format!("replica {id}"))).expect("three members");
    membership.constants.request_max = 100;
    let mut s = Script::with_membership(membership);
    let client = s.register(0);
    s.submit(0, client, 1, &[b'x'; 100]);
    s.submit(0, client, 2, b"");
    s.run();
    assert_eq!((s.reply(client, 1), s.reply(client, 2)), (Some(b"1".to_vec()), Some(b"2".to_vec())));
    let head = s.core(0).head();
    s.submit(0, client, 3, &[b'x'; 101]);
    s.submit(1, client, 4, &[b'x'; 101]);
    s.submit(0, client, 5, b"undecodable");
    s.submit_with_floor(0, client, 2 + 1024, 2, b"x");
    s.run();
    assert_eq!(s.outcomes(client, 3), [refused(Refusal::TooLarge)]);
    assert_eq!(s.outcomes(client, 4), [refused(Refusal::TooLarge)], "through a backup");
    assert_eq!(s.outcomes(client, 5), [refused(Refusal::Undecodable)]);
    assert_eq!(s.outcomes(client, 2 + 1024), [refused(Refusal::BeyondWindow)]);
    assert_eq!(s.core(0).head(), head);
    s.submit(0, client, 3, b"shorter");
    s.run();
    assert_eq!(s.reply(client, 3), Some(b"3".to_vec()));
    s.settle();
    assert_eq!(s.executed(2), ["x".repeat(100), String::new(), "shorter".to_owned()]);
}

/// B-07: whether a command decodes is decided at admission: what does not never gets into the log.
#[test]
fn b_07_an_undecodable_command_is_refused_before_the_log() {
    let mut s = Script::new(3);
    let client = s.register(0);
    for at in 0..3 {
        s.submit(at, client, 1, b"undecodable");
        s.run();
    }
    assert_eq!(s.outcomes(client, 1), times(3, Outcome::Refused(Refusal::Undecodable)));
    assert!((0..3).all(|at| s.core(at).head().0 == 1));
    submit(&mut s, 0, client, 2, 2);
    assert_eq!(s.outcomes(client, 2), [replied(b"1")]);
    s.settle();
}

/// H5-04: a `StartView`, `Prepare` or `Commit` of another than the primary of its view is not believed.
#[test]
fn h5_04_only_the_primary_of_a_view_is_believed() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    let late = s.hold(|f| f.is(0, 2) && f.name() == "Prepare");
    write(&mut s, 0, client, 2, b"b");
    let before = s.describe(2);
    let prepare = s.held(late).swap_remove(0).message;
    let (view, head) = (s.core(0).view(), s.core(0).head());
    let start = StartView {
        view: Script::view_of(4),
        commit: CommitNumber(0),
        head: OpNumber::ZERO,
        headers: Vec::new(),
        nonce: 0,
        past: vsr::protocol::Past::default(),
    };
    s.inject(Script::flight(1, 2, prepare));
    s.inject(Script::flight(1, 2, Message::Commit { view, commit: CommitNumber(head.0), head, number: 99 }));
    s.inject(Script::flight(0, 2, Message::StartView(start)));
    assert_eq!(s.describe(2), before);
    s.run();
    assert_eq!(s.describe(2), before);
    s.release(late);
    s.run();
    assert_eq!(s.core(2).head(), head);
    s.settle();
    assert_eq!(s.executed(2), ["a", "b"]);
}

/// H5-11: messages with absurd numbers, of strangers, or that contradict themselves are ignored by every
/// replica.
#[test]
fn h5_11_absurd_messages_are_ignored() {
    const HUGE: u64 = u64::MAX;
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    let header = |op: u64, commit: u64| {
        Header::new(HeaderFields {
            view: View::default(),
            op: OpNumber(op),
            parent: Checksum(0),
            body: Checksum(0),
            body_len: u32::MAX,
            requests: u32::MAX,
            timestamp: Timestamp(1),
            commit: CommitNumber(commit),
            machine_version: u32::MAX,
            kind: OpKind::Requests,
        })
    };
    let (view, later, absurd) = (View::default(), Script::view_of(1), Script::view_of(HUGE));
    let (huge, checksum, commit) = (OpNumber(HUGE), Checksum(0), CommitNumber(HUGE));
    let far = 1 << 40;
    let entry = |op: u64, commit: u64| Entry { header: header(op, commit), body: Bytes::new() };
    let ping = Ping {
        view: absurd,
        normal: true,
        commit,
        head: huge,
        wall: Timestamp(HUGE),
        past: vsr::protocol::Past { base: huge, ..Default::default() },
        machine_version: u32::MAX,
        head_certain: true,
        has_room: true,
        life: Life::default(),
        succession: vsr::protocol::Succession::First,
        known: Vec::new(),
        digests: Vec::new(),
    };
    let dvc = DoViewChange {
        view: later,
        log_view: view,
        commit: CommitNumber(0),
        head: OpNumber(far),
        head_certain: true,
        headers: Vec::new(),
        evidence: Vec::new(),
        past: vsr::protocol::Past::default(),
        life: Life::default(),
        known: Vec::new(),
    };
    let start = |op: u64| StartView {
        view: later,
        commit: CommitNumber(op - 1),
        head: OpNumber(op),
        headers: vec![header(op, 0)],
        nonce: 0,
        past: vsr::protocol::Past::default(),
    };
    let checkpoint = |op| CheckpointId { op: OpNumber(op), manifest: checksum };
    let messages = |life: Life| {
        [
            Message::Prepare { view, commit, entry: entry(HUGE, HUGE) },
            Message::Prepare { view, commit: CommitNumber(0), entry: entry(far, 0) },
            Message::PrepareOk { view, op: huge, checksum, life },
            Message::Commit { view, commit, head: huge, number: HUGE },
            Message::Commit { view, commit: CommitNumber(5), head: OpNumber(4), number: HUGE },
            Message::CommitOk { view, number: HUGE, life },
            Message::StartViewChange { leaving: absurd, life },
            Message::DoViewChange(DoViewChange { life, ..dvc.clone() }.into()),
            Message::StartView(start(HUGE)),
            Message::StartView(start(far)),
            Message::RequestStartView { view: absurd, nonce: 0 },
            Message::RequestHeaders { op: huge, checksum, count: u32::MAX },
            Message::Headers { headers: vec![header(HUGE, 0), header(far, 0)] },
            Message::RequestEntries { wanted: vec![(huge, checksum); 1000] },
            Message::Entries { entries: vec![entry(HUGE, 0), entry(far, 0)] },
            Message::Ping(Ping { life, ..ping.clone() }.into()),
            Message::RequestCheckpoint { id: checkpoint(HUGE), parts: vec![u32::MAX; 1000] },
            Message::RequestCheckpoint { id: checkpoint(2), parts: vec![u32::MAX; 1000] },
            Message::CheckpointPart { id: checkpoint(2), part: u32::MAX, bytes: None },
            Message::CheckpointPart { id: checkpoint(2), part: 0, bytes: Some(Bytes::from_static(b"no manifest")) },
            Message::ReadIndexOk { nonce: 0, index: huge },
        ]
    };
    let before = describe(&s);
    for (from, to) in (0..3).flat_map(|to| [0, 1, 2, 9].map(|from| (from, to))) {
        for message in messages(s.life(from.min(2))) {
            s.inject(Script::flight(from, to, message));
        }
    }
    s.run();
    assert_eq!(describe(&s), before);
    write(&mut s, 0, client, 2, b"b");
    assert_eq!(s.reply(client, 2), Some(b"2".to_vec()));
    s.settle();
    assert_eq!(s.executed(2), ["a", "b"]);
}

/// NW-17: a message that reaches another replica than the one it is for changes nothing. (Messages name no
/// sender: who speaks is who has shaken hands.)
#[test]
fn nw_17_a_misrouted_message_changes_nothing() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let seen = watch(&mut s, between_replicas);
    write(&mut s, 0, client, 1, b"a");
    s.pass(ms(300));
    s.crash(0);
    s.restart(0);
    s.pass(ms(300));
    let flights = seen.borrow().clone();
    for kind in ["Prepare", "PrepareOk", "Commit", "CommitOk", "DoViewChange", "StartView", "Ping"] {
        assert!(flights.iter().any(|f| f.name() == kind), "there is no {kind}");
    }
    let before = describe(&s);
    for Flight { from, to, message } in flights {
        let (Peer::Replica(from_id), Peer::Replica(to_id)) = (from, to) else { continue };
        let wrong = replica(3 - usize::from(from_id.0) - usize::from(to_id.0));
        s.inject(Flight { from, to: wrong, message });
    }
    s.run();
    assert_eq!(describe(&s), before);
    s.settle();
    assert_eq!(s.executed(2), ["a"]);
}

/// Rule 7.2: what the primary is not bound to answer is answered where it arrives, and is no reason to vote.
#[test]
fn b7_one_client_with_absurd_numbers_changes_no_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"b");
    let absurd = |session: u64, number: u64, floor: u64| Request {
        client,
        session: SessionId(Position { op: OpNumber(session), index: 0 }),
        number: RequestNumber(number),
        floor: RequestNumber(floor),
        command: Bytes::from_static(b"z"),
    };
    for _ in 0..200 {
        for (at, (session, number, floor)) in
            (0..3).flat_map(|at| [(1 << 60, 2, 2), (1, u64::MAX, 2), (1, 1 << 61, 1 << 60)].map(|of| (at, of)))
        {
            s.request(at, absurd(session, number, floor));
        }
        s.pass(ms(50));
    }
    assert_eq!(s.views_entered(), 0);
    let outcomes = s.outcomes(client, u64::MAX);
    assert!(
        outcomes.len() == 600 && outcomes.iter().all(|told| *told == Outcome::Refused(Refusal::BeyondWindow)),
        "each is answered: {outcomes:?}"
    );
}

/// Rule 7.12: one message with a view from the end of the numbers is not joined: the cluster has views left.
#[test]
fn b7_a_forged_view_is_not_joined() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let last = Script::view_of((1 << 60) - 1);
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let life = s.life(from);
        s.inject(Script::flight(from, to, Message::StartViewChange { leaving: last, life }));
        s.inject(Script::flight(from, to, Message::RequestStartView { view: last, nonce: 1 }));
    }
    s.run();
    assert_eq!(s.views_entered(), 0);
    s.crash(0);
    s.pass(Duration::from_secs(3));
    write(&mut s, 1, client, 1, b"b");
    assert_eq!((s.reply(client, 1), s.view(1)), (Some(b"1".to_vec()), 1));
}

/// VC-20: quorums that do not meet are refused; all that do keep what was acknowledged, with as few copies of it
/// as they allow.
#[test]
fn vc_20_quorums_that_meet_work_and_others_are_refused() {
    for n in 2..=6_u8 {
        for replication in 1..=n {
            let mut members = membership(n.into());
            members.quorums = Quorums { replication, view_change: n - replication, nack: n };
            assert!(matches!(members.validate(), Err(MembershipError::Quorums { .. })), "{:?}", members.quorums);
            let view_change = (n - replication + 1).max(n / 2 + 1);
            members.quorums = Quorums { replication, view_change, nack: n - replication + 1 };
            let mut s = Script::with_membership(members);
            let client = s.register(0);
            s.lose(move |f| f.name() == "Prepare" && (replication..n).any(|at| f.is(0, at.into())));
            write(&mut s, 0, client, 1, b"w");
            assert_eq!(s.reply(client, 1), Some(b"1".to_vec()), "{replication} of {n} have it");
            s.crash(0);
            s.heal();
            s.pass(Duration::from_secs(2));
            s.settle();
            assert_eq!(s.executed(n as usize - 1), ["w"], "{replication} of {n} had it");
        }
    }
    // The default of two: nothing commits without both.
    let mut s = Script::new(2);
    let client = s.register(0);
    s.crash(1);
    write(&mut s, 0, client, 1, b"w");
    assert_eq!(s.reply(client, 1), None);
    s.settle();
    assert_eq!(s.executed(1), ["w"]);
}

/// F15: quorums that let a single vote move the cluster are refused; with others, a single vote moves nobody.
#[test]
fn f15_a_single_vote_moves_no_cluster() {
    for n in 2..=9_u8 {
        let quorums = Quorums { replication: n, view_change: 1, nack: 1 };
        let mut membership = members(usize::from(n), |membership| membership.quorums = quorums);
        let refused = MembershipError::Quorums { n, replication: n, view_change: 1, nack: 1 };
        assert_eq!(membership.validate(), Err(refused));
        membership.quorums.view_change = n / 2 + 1;
        assert_eq!(membership.validate(), Ok(()));
    }
    let quorums = Quorums { replication: 3, view_change: 2, nack: 1 };
    let mut s = Script::with_membership(members(3, |membership| membership.quorums = quorums));
    let client = s.register(0);
    for to in [0, 1, 0, 1] {
        s.inject(Script::flight(2, to, Message::StartViewChange { leaving: Script::view_of(0), life: s.life(2) }));
    }
    s.submit(0, client, 1, b"w");
    s.pass(Duration::from_secs(1));
    assert_eq!((s.reply(client, 1), s.views_entered()), (Some(b"1".to_vec()), 0));
    s.settle();
}

/// B-30: every constant that decides a replicated effect counts in what the members compare on a connection.
#[test]
fn b_30_every_constant_counts_in_the_checksum_of_the_membership() {
    let changes: [fn(&mut Membership); 13] = [
        |m| m.constants.pipeline_max += 1,
        |m| m.constants.window += 1,
        |m| m.constants.sessions_max += 1,
        |m| m.constants.session_idle_min += 1,
        |m| m.constants.request_max += 1,
        |m| m.constants.reply_max += 1,
        |m| m.constants.session_replies_max += 1,
        |m| m.constants.table_replies_max += 1,
        |m| m.constants.batch_requests_max += 1,
        |m| m.constants.batch_bytes_max += 1,
        |m| m.quorums.replication += 1,
        |m| m.quorums.view_change += 1,
        |m| m.quorums.nack += 1,
    ];
    let same = members(4, |_| ());
    assert_eq!(same.checksum(), members(4, |_| ()).checksum());
    for (at, change) in changes.into_iter().enumerate() {
        assert_ne!(members(4, change).checksum(), same.checksum(), "change {at}");
    }
}
