//! Messages of every kind, for transports to carry.

use bytes::Bytes;
use vsr::protocol::{
    Busy, CHUNK_BYTES_MAX, CheckpointId, CommitNumber, Constants, DiskId, DoViewChange, Entry, Epoch, Header, Known,
    Life, Message, OpNumber, Outcome, Past, Ping, Position, Random, Refusal, Reply, Request, RequestNumber, SessionId,
    SlotEvidence, StartView, StateDigest, Succession, Timestamp, View,
};
use vsr::{Checksum, ClientId, ReplicaId};

use super::storage::entry;

const VIEW: View = View { epoch: Epoch(0), number: 4 };
const SESSION: SessionId = SessionId(Position { op: OpNumber(3), index: 1 });

/// Bytes that nothing makes shorter.
fn noise(seed: u64, len: usize) -> Bytes {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.next_u64() as u8).collect::<Vec<u8>>().into()
}

fn request(client: ClientId, number: u64, command: Bytes) -> Request {
    let number = RequestNumber(number);
    Request { client, session: SESSION, number, floor: RequestNumber(1), command }
}

fn reply(client: ClientId, number: u64, outcome: Outcome) -> Reply {
    let position = Position { op: OpNumber(9), index: number as u32 };
    Reply { client, session: SESSION, number: RequestNumber(number), outcome, position, request: Checksum(5) }
}

/// Entries of consecutive ops, each with a body of so many bytes.
fn entries(lens: impl IntoIterator<Item = usize>) -> Vec<Entry> {
    let mut parent = Checksum(3);
    let chained = (1..).zip(lens).map(|(op, len)| {
        let entry = entry(op, 2, parent, noise(op, len));
        parent = entry.header.checksum();
        entry
    });
    chained.collect()
}

fn headers(count: usize) -> Vec<Header> {
    entries(vec![0; count]).iter().map(|entry| entry.header).collect()
}

const LIFE: Life = Life { disk_id: DiskId(u128::MAX - 1), starts: 1 << 40, nonce: u64::MAX };
const KNOWN: Known = Known { replica: ReplicaId(1), life: LIFE, acknowledged: OpNumber(9), since: OpNumber(3) };

fn checkpoint() -> CheckpointId {
    CheckpointId { op: OpNumber(1 << 40), manifest: Checksum(u128::MAX - 7) }
}

fn past() -> Past {
    Past { base: OpNumber(1 << 39), checkpoints: vec![checkpoint(), checkpoint()], is_whole: true }
}

fn do_view_change(headers: Vec<Header>) -> Message {
    let evidence = (0..headers.len()).map(|at| SlotEvidence { present: at % 2 == 0, nack: at % 3 == 0 }).collect();
    let (commit, head) = (CommitNumber(0), OpNumber(headers.len() as u64));
    let log_view = View::default();
    Message::DoViewChange(
        DoViewChange {
            view: VIEW,
            log_view,
            commit,
            head,
            head_certain: false,
            headers,
            evidence,
            past: past(),
            life: LIFE,
            known: vec![KNOWN, Known { replica: ReplicaId(2), ..KNOWN }],
        }
        .into(),
    )
}

fn start_view(headers: Vec<Header>) -> Message {
    let head = OpNumber(headers.len() as u64);
    Message::StartView(StartView { view: VIEW, commit: CommitNumber(0), head, headers, nonce: 7, past: past() })
}

/// What a client sends.
pub(super) fn of_a_client(client: ClientId) -> Vec<Message> {
    let requests = vec![request(client, 1, Bytes::new()), request(client, 2, noise(2, 900))];
    vec![
        Message::Requests { requests, forwarded: false },
        Message::Query { client, nonce: 1, query: noise(3, 60) },
        Message::RequestStatus { nonce: u64::MAX },
    ]
}

/// What a client is sent.
pub(super) fn for_a_client(client: ClientId) -> Vec<Message> {
    let busy = [Busy::Queue, Busy::Replies, Busy::NoPrimary, Busy::LogFull, Busy::Sessions].map(Outcome::Busy);
    let refused = [Refusal::Evicted, Refusal::Conflict, Refusal::BelowFloor, Refusal::BeyondWindow, Refusal::TooLarge];
    let outcomes = [Outcome::Reply(noise(4, 300)), Outcome::Registered(SESSION), Outcome::ReplyLost];
    let outcomes = outcomes.into_iter().chain(busy).chain(refused.map(Outcome::Refused));
    let replies = (1..).zip(outcomes).map(|(number, outcome)| reply(client, number, outcome)).collect();
    let answer = |nonce, answer| Message::Answer { client, nonce, answer, position: OpNumber(8), view: VIEW };
    vec![
        Message::Replies { view: VIEW, replies },
        answer(1, Ok(noise(5, 70))),
        answer(2, Err(Refusal::Undecodable)),
        Message::Status { nonce: 3, status: noise(6, 200) },
    ]
}

/// One message of each kind at least, as one replica sends them to another.
pub(super) fn of_every_kind() -> Vec<Message> {
    let (view, commit, op, checksum) = (VIEW, CommitNumber(1), OpNumber(2), Checksum(u128::MAX));
    let client = ClientId(u128::MAX);
    let ping = Ping {
        view,
        normal: true,
        commit,
        head: op,
        wall: Timestamp(1 << 60),
        past: past(),
        machine_version: 3,
        head_certain: true,
        has_room: false,
        life: LIFE,
        succession: Succession::Whole { op: OpNumber(4) },
        known: vec![KNOWN],
        digests: vec![StateDigest { op: OpNumber(1), digest: Checksum(5) }],
    };
    let mut messages = of_a_client(client);
    messages.extend(for_a_client(client));
    messages.extend(entries([0, 1, 5000]).into_iter().map(|entry| Message::Prepare { view, commit, entry }));
    messages.extend([
        Message::PrepareOk { view, op, checksum, life: LIFE },
        Message::RequestCheckpoint { id: checkpoint(), parts: vec![0, 7, u32::MAX] },
        Message::CheckpointPart { id: checkpoint(), part: 1, bytes: Some(noise(11, CHUNK_BYTES_MAX)) },
        Message::CheckpointPart { id: checkpoint(), part: 2, bytes: None },
        Message::Commit { view, commit, head: op, number: 5 },
        Message::CommitOk { view, number: 5, life: LIFE },
        Message::StartViewChange { leaving: view, life: LIFE },
        do_view_change(headers(9)),
        start_view(headers(9)),
        Message::RequestStartView { view, nonce: 8 },
        Message::RequestHeaders { op, checksum, count: 6 },
        Message::Headers { headers: headers(6) },
        Message::RequestEntries { wanted: vec![(op, checksum), (OpNumber(1), Checksum(0))] },
        Message::Entries { entries: entries([700, 0, 3]) },
        Message::Entries { entries: Vec::new() },
        Message::Ping(ping.into()),
        Message::ReadIndex { nonce: 0 },
        Message::ReadIndexOk { nonce: u64::MAX, index: op },
    ]);
    messages
}

/// Messages as large as a cluster with the default constants can make them.
pub(super) fn of_the_largest() -> Vec<Message> {
    let constants = Constants::default();
    let client = ClientId(5);
    let command = noise(1, constants.request_max as usize);
    let outcome = Outcome::Reply(noise(2, constants.reply_max as usize));
    let body = constants.batch_bytes_max as usize;
    let entry = entries([body]).swap_remove(0);
    let many = (0..u64::from(constants.batch_requests_max)).map(|number| request(client, number, noise(number, 200)));
    vec![
        Message::Requests { requests: vec![request(client, 1, command.clone())], forwarded: true },
        Message::Requests { requests: many.collect(), forwarded: false },
        Message::Replies { view: VIEW, replies: vec![reply(client, 1, outcome)] },
        Message::Prepare { view: VIEW, commit: CommitNumber(0), entry },
        Message::Entries { entries: entries([body, body]) },
        Message::Query { client, nonce: 1, query: command },
        do_view_change(headers(2048)),
        start_view(headers(2048)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_kind_of_message_is_left_out() {
        // One line for each kind, its name first.
        let golden = include_str!("../../../vsr/golden/frames.txt");
        let known: BTreeSet<&str> = golden.lines().filter_map(|line| line.split(' ').next()).collect();
        let carried: BTreeSet<&str> = of_every_kind().iter().map(Message::name).collect();
        assert_eq!(carried, known);
    }
}
