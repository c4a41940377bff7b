//! Of frames: what is encoded is decoded, and what is damaged, cut or forged is refused.

use super::*;
use crate::protocol::*;
use proptest::prelude::*;

pub(crate) fn messages() -> Vec<Message> {
    let body = Bytes::from_static(b"a body of some bytes");
    let header = Header::new(HeaderFields {
        view: View::default(),
        op: OpNumber(1),
        parent: Checksum(3),
        body: Checksum::of(&body),
        body_len: body.len() as u32,
        requests: 1,
        timestamp: Timestamp(9),
        commit: CommitNumber(0),
        machine_version: 1,
        kind: OpKind::Requests,
    });
    let entry = Entry { header, body };
    let (view, op, commit) = (View { epoch: Epoch(0), number: 4 }, OpNumber(1), CommitNumber(1));
    let request = Request {
        client: ClientId(5),
        session: SessionId::default(),
        number: RequestNumber(2),
        floor: RequestNumber(1),
        command: Bytes::from_static(b"command"),
    };
    let reply = Reply {
        client: ClientId(5),
        session: SessionId::default(),
        number: RequestNumber(2),
        outcome: Outcome::Reply(Bytes::from_static(b"reply")),
        position: Position::default(),
        request: Checksum::of(b"command"),
    };
    let life = Life { disk_id: DiskId(7), starts: 2, nonce: 3 };
    let known = vec![Known { replica: ReplicaId(1), life, acknowledged: OpNumber(1), since: OpNumber(2) }];
    let ping = Ping {
        view,
        normal: true,
        commit,
        head: op,
        wall: Timestamp(1),
        past: past(),
        machine_version: 1,
        head_certain: true,
        has_room: true,
        life,
        succession: Succession::Appointed { op: OpNumber(4), view },
        known: known.clone(),
        digests: vec![StateDigest { op: OpNumber(1), digest: Checksum(5) }],
    };
    vec![
        Message::Requests { requests: vec![request], forwarded: true },
        Message::Replies { view, replies: vec![reply] },
        Message::Prepare { view, commit, entry: entry.clone() },
        Message::PrepareOk { view, op, checksum: Checksum(1), life },
        Message::Commit { view, commit, head: op, number: 3 },
        Message::CommitOk { view, number: 3, life },
        Message::StartViewChange { leaving: view, life },
        Message::DoViewChange(
            DoViewChange {
                view,
                log_view: View::default(),
                commit: CommitNumber(0),
                head: op,
                head_certain: true,
                headers: vec![header],
                evidence: vec![SlotEvidence { present: true, nack: false }],
                past: past(),
                life,
                known,
            }
            .into(),
        ),
        Message::StartView(StartView { view, commit, head: op, headers: vec![header], nonce: 7, past: past() }),
        Message::RequestStartView { view, nonce: 7 },
        Message::RequestHeaders { op, checksum: Checksum(1), count: 3 },
        Message::Headers { headers: vec![header] },
        Message::RequestEntries { wanted: vec![(op, Checksum(1))] },
        Message::Entries { entries: vec![entry.clone(), entry] },
        Message::RequestCheckpoint { id: checkpoint(), parts: vec![0, 3] },
        Message::CheckpointPart { id: checkpoint(), part: 3, bytes: Some(Bytes::from_static(b"chunk")) },
        Message::Ping(ping.into()),
        Message::ReadIndex { nonce: 1 },
        Message::ReadIndexOk { nonce: 1, index: op },
        Message::RequestStatus { nonce: 3 },
        Message::Status { nonce: 3, status: Bytes::from_static(b"fine") },
        Message::Query { client: ClientId(5), nonce: 1, query: Bytes::from_static(b"q") },
        Message::Answer { client: ClientId(5), nonce: 1, answer: Err(Refusal::Undecodable), position: op, view },
    ]
}

fn checkpoint() -> CheckpointId {
    CheckpointId { op: OpNumber(1), manifest: Checksum(9) }
}

fn past() -> Past {
    Past { base: OpNumber(1), checkpoints: vec![checkpoint()], is_whole: true }
}

fn bytes_of(message: &Message) -> Bytes {
    let frame = encode(message).unwrap();
    let mut bytes = BytesMut::from(&frame.head[..]);
    frame.bodies.iter().for_each(|body| bytes.extend_from_slice(body));
    bytes.freeze()
}

#[test]
fn every_message_survives_the_wire() {
    for message in messages() {
        assert_eq!(decode_frame(&bytes_of(&message), Limits::default()), Ok(message));
    }
}

/// What stands in `golden/frames.txt` is version 4 of the format: a build that writes anything else needs another version.
/// `VSR_GOLDEN=write cargo test -p vsr golden` writes the file anew.
#[test]
fn golden_frames_have_not_changed() {
    let path =
        std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("golden/frames.txt");
    let hex = |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text: String =
        messages().iter().map(|message| format!("{} {}\n", message.name(), hex(&bytes_of(message)))).collect();
    if std::env::var("VSR_GOLDEN").is_ok_and(|wish| wish == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (now, then) in text.lines().zip(golden.lines()) {
        assert_eq!(now, then, "the wire format has changed");
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

/// Hazard NW-11.
#[test]
fn nw_11_no_flipped_bit_of_any_message_gets_through() {
    for message in messages() {
        let bytes = bytes_of(&message);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = BytesMut::from(&bytes[..]);
            damaged[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode_frame(&damaged.freeze(), Limits::default());
            // Two reserved bytes of the header are covered by its checksum as well.
            assert!(decoded.is_err(), "{} with bit {bit} flipped was accepted", message.name());
        }
    }
}

/// Hazard NW-12.
#[test]
fn nw_12_lengths_are_checked_before_anything_is_allocated() {
    let limits = Limits { meta_max: 100, bodies_max: 100 };
    for len in [0_u32, 1, 100, 101, u32::MAX] {
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..6].copy_from_slice(&VERSION.to_le_bytes());
        header[8..12].copy_from_slice(&len.to_le_bytes());
        let checksum = header_checksum(&header);
        header[32..40].copy_from_slice(&checksum.to_le_bytes());
        let decoded = FrameHeader::decode(&header, limits);
        assert_eq!(decoded.is_err(), len > 100, "{len}: {decoded:?}");
    }
    let mut other = [0; HEADER_LEN];
    assert_eq!(FrameHeader::decode(&other, limits), Err(WireError::NotAFrame));
    other[..4].copy_from_slice(&MAGIC.to_le_bytes());
    other[4] = 9;
    assert_eq!(FrameHeader::decode(&other, limits), Err(WireError::Version { found: 9 }));
}

/// A stranger's frame cannot overflow the stack either: a field that no message has, as deep as a frame can
/// hold.
#[test]
fn frames_that_are_too_deep_are_refused() {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
        for depth in [DEPTH_MAX, 1023, 100_000] {
            let mut meta = BytesMut::from(&[0x81, 0xa7][..]);
            meta.extend_from_slice(b"Replies");
            meta.extend_from_slice(&[0x81, 0xa1, b'x']);
            meta.put_bytes(0x91, depth);
            meta.put_u8(0xc0);
            let meta_checksum = Checksum::of(&meta).0;
            let header = FrameHeader { meta_len: meta.len() as u32, bodies_len: 0, meta_checksum };
            let refused = decode(&header, meta.freeze());
            assert!(
                matches!(&refused, Err(WireError::Malformed(why)) if why.to_string().contains("depth")),
                "{refused:?}"
            );
        }
    });
    thread.expect("a thread").join().expect("no panic");
}

/// The longest messages that a cluster of any constants makes are within the limits of their receivers.
#[test]
fn the_longest_legal_messages_pass() {
    use crate::protocol::limits::REQUEST_MAX;
    let filled = |len: u64| Bytes::from(vec![7; usize::try_from(len).unwrap()]);
    let largest = Constants {
        request_max: REQUEST_MAX.max as u32,
        reply_max: REPLY_MAX.max as u32,
        session_replies_max: REPLY_MAX.max as u32,
        batch_bytes_max: BATCH_BYTES_MAX.max as u32,
        ..Constants::default()
    };
    for constants in [Constants::default(), largest] {
        let request = |number: u64, len: u64| Request {
            client: ClientId(u128::MAX),
            session: SessionId(Position { op: OpNumber(u64::MAX), index: u32::MAX }),
            number: RequestNumber(number),
            floor: RequestNumber(u64::MAX),
            command: filled(len),
        };
        let reply = |len: u64| Reply {
            client: ClientId(u128::MAX),
            session: SessionId(Position { op: OpNumber(u64::MAX), index: u32::MAX }),
            number: RequestNumber(u64::MAX),
            outcome: Outcome::Reply(filled(len)),
            position: Position { op: OpNumber(u64::MAX), index: u32::MAX },
            request: Checksum(u128::MAX),
        };
        let entry = |len: u64| {
            let body = filled(len);
            let fields = HeaderFields {
                view: View::default(),
                op: OpNumber(1),
                parent: Checksum(3),
                body: Checksum::of(&body),
                body_len: body.len() as u32,
                requests: 1,
                timestamp: Timestamp(9),
                commit: CommitNumber(0),
                machine_version: 1,
                kind: OpKind::Requests,
            };
            Entry { header: Header::new(fields), body }
        };
        let (view, commit) = (View::default(), CommitNumber(0));
        let request_max = u64::from(constants.request_max);
        // The batches that are cut off behind a mebibyte, each with the longest last.
        let requests = crate::protocol::in_messages(vec![request(1, request_max), request(2, 1)]);
        let small = (0..16_384).map(|_| reply(0)).chain([reply(constants.reply_max.into())]).collect();
        let bodies = vec![entry((1 << 20) - 1), entry(constants.batch_bytes_max.into())];
        let (client, query) = (ClientId(u128::MAX), filled(QUERY_MAX.max));
        let for_replica = requests.map(|requests| Message::Requests { requests, forwarded: true }).chain([
            Message::Replies { view, replies: small },
            Message::Prepare { view, commit, entry: entry(constants.batch_bytes_max.into()) },
            Message::Entries { entries: bodies },
            Message::Query { client, nonce: u64::MAX, query },
        ]);
        for message in for_replica {
            let decoded = decode_frame(&bytes_of(&message), Limits::of(&constants));
            assert!(decoded.as_ref() == Ok(&message), "{} of {constants:?}: {:?}", message.name(), decoded.err());
        }
        let answer = Ok(filled(ANSWER_MAX.max));
        let answer = Message::Answer { client, nonce: u64::MAX, answer, position: OpNumber(u64::MAX), view };
        for message in [Message::Replies { view, replies: vec![reply(constants.reply_max.into())] }, answer] {
            let decoded = decode_frame(&bytes_of(&message), Limits::of_client());
            assert!(decoded.as_ref() == Ok(&message), "{} of {constants:?}: {:?}", message.name(), decoded.err());
        }
        let longest = longest_frame(&constants, 64);
        let prepare = Message::Prepare { view, commit, entry: entry(constants.batch_bytes_max.into()) };
        assert!(bytes_of(&prepare).len() as u64 <= longest);
    }
    assert!(Limits::of(&Constants::default()).meta_max < 20 << 20, "strangers may have that much kept for them");
}

proptest! {
    /// Hazard NW-18: arbitrary bytes, and arbitrary MessagePack behind a right header.
    #[test]
    fn nw_18_arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_frame(&Bytes::from(bytes.clone()), Limits::default());
        let header = FrameHeader {
            meta_len: bytes.len() as u32,
            bodies_len: 0,
            meta_checksum: Checksum::of(&bytes).0,
        };
        let _ = decode(&header, Bytes::from(bytes));
    }

    #[test]
    fn damaged_messagepack_never_panics(which in 0..21_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let message = &messages()[which];
        let frame = encode(message).unwrap();
        let mut meta = BytesMut::from(&frame.head[HEADER_LEN..]);
        let at = at.index(meta.len());
        meta[at] = byte;
        let header = FrameHeader {
            meta_len: meta.len() as u32,
            bodies_len: frame.bodies.iter().map(Bytes::len).sum::<usize>() as u32,
            meta_checksum: Checksum::of(&meta).0,
        };
        frame.bodies.iter().for_each(|body| meta.extend_from_slice(body));
        let _ = decode(&header, meta.freeze());
    }
}
