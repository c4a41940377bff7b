//! Frames: how messages travel on any transport (format described in the book, byte by byte).
//!
//! A frame is a header of [`HEADER_LEN`] bytes, a MessagePack part, and the bodies of the entries that the
//! message carries, uncopied. Everything is checked before it is believed: the header by its checksum,
//! lengths against limits before anything is allocated, the MessagePack part by its checksum, each body
//! by the checksum in its entry's header.

use bytes::{BufMut, Bytes, BytesMut};

use crate::cause::Cause;
use crate::protocol::limits::{ANSWER_MAX, BATCH_BYTES_MAX, QUERY_MAX, REPLY_MAX};
use crate::protocol::{Checksum, Constants, Message};

/// The version of the frame format. A peer of another version is refused with a typed error.
pub const VERSION: u16 = 2;

/// The length of a frame's header in bytes.
pub const HEADER_LEN: usize = 40;

const MAGIC: u32 = u32::from_le_bytes(*b"VSRF");

/// Arrays one in the other in the MessagePack part: more than any message has, and few enough for any stack.
const DEPTH_MAX: usize = 32;

/// What a message adds to the longest thing that it carries: the rest of a batch of requests or replies, which
/// ends behind the first byte over 1 MiB, and their numbers.
const META_OVERHEAD: u64 = 2 << 20;

/// What may travel beside the body of one op: the other entries of a repair, which end behind the first byte over
/// 1 MiB, with room for the larger steps of later versions.
const BODIES_OVERHEAD: u64 = 8 << 20;

/// No message of the protocol itself, the longest list of headers included, is longer.
const META_MIN: u64 = 16 << 20;

/// What a frame may carry at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the MessagePack part.
    pub meta_max: u32,
    /// Bytes of the bodies.
    pub bodies_max: u32,
}

impl Default for Limits {
    /// What any cluster may need: 66 MiB and 40 MiB.
    fn default() -> Limits {
        Limits::with(ANSWER_MAX.max, BATCH_BYTES_MAX.max)
    }
}

impl Limits {
    /// What a replica of a cluster with these constants takes: whatever a client or another replica has to send.
    #[must_use]
    pub fn of(constants: &Constants) -> Limits {
        let longest = u64::from(constants.request_max.max(constants.reply_max)).max(QUERY_MAX.max);
        Limits::with(longest, constants.batch_bytes_max.into())
    }

    /// What a client takes: replies and answers, as long as any cluster may make them.
    #[must_use]
    pub fn of_client() -> Limits {
        Limits::with(REPLY_MAX.max.max(ANSWER_MAX.max), 0)
    }

    fn with(longest: u64, body: u64) -> Limits {
        let capped = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let meta_max = capped((longest + META_OVERHEAD).max(META_MIN));
        Limits { meta_max, bodies_max: if body == 0 { 0 } else { capped(body + BODIES_OVERHEAD) } }
    }
}

/// Bytes of the longest frame that a replica of this cluster sends, when its answers to queries are as long as
/// this at most. A queue that holds less could never send it.
#[must_use]
pub fn longest_frame(constants: &Constants, answer_max: u32) -> u64 {
    let meta = u64::from(constants.request_max.max(constants.reply_max).max(answer_max));
    META_OVERHEAD + meta.max(constants.batch_bytes_max.into())
}

/// Why bytes are no frame, or one that is not taken. The sender is at fault, or the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Not our protocol at all.
    #[error("these bytes are not a vsr frame")]
    NotAFrame,
    /// Another version of it.
    #[error("frame version {found}, this program speaks {VERSION}: run versions that are one step apart")]
    Version {
        /// As found.
        found: u16,
    },
    /// Damaged on the way.
    #[error("the frame's {0} does not fit its checksum")]
    Damaged(&'static str),
    /// Larger than the limits.
    #[error("a frame of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// As claimed.
        len: u64,
        /// See [`Limits`].
        limit: u64,
    },
    /// The MessagePack part is no message.
    #[error("the frame holds no message: {0}")]
    Malformed(#[source] Cause),
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    meta_len: u32,
    bodies_len: u32,
    meta_checksum: u128,
}

impl FrameHeader {
    /// The bytes that follow the header.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.meta_len as usize + self.bodies_len as usize
    }

    /// Reads a header, and holds it to the limits. Nothing is allocated before this has succeeded.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`check`](Self::check).
    pub fn decode(bytes: &[u8; HEADER_LEN], limits: Limits) -> Result<FrameHeader, WireError> {
        let header = FrameHeader::read(bytes)?;
        header.check(limits)?;
        Ok(header)
    }

    /// Whether the frame is within the limits.
    ///
    /// # Errors
    /// [`WireError::TooLarge`]; the stream goes on behind the payload, which can be passed over.
    pub fn check(&self, limits: Limits) -> Result<(), WireError> {
        for (len, limit) in [(self.meta_len, limits.meta_max), (self.bodies_len, limits.bodies_max)] {
            if len > limit {
                return Err(WireError::TooLarge { len: len.into(), limit: limit.into() });
            }
        }
        Ok(())
    }

    /// Reads a header of any lengths.
    ///
    /// # Errors
    /// A [`WireError`]; the stream cannot be followed any further.
    pub fn read(bytes: &[u8; HEADER_LEN]) -> Result<FrameHeader, WireError> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        if u32_at(0) != MAGIC {
            return Err(WireError::NotAFrame);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != VERSION {
            return Err(WireError::Version { found: version });
        }
        if header_checksum(bytes).to_le_bytes() != bytes[32..40] {
            return Err(WireError::Damaged("header"));
        }
        let meta_checksum = u128::from_le_bytes(bytes[16..32].try_into().unwrap_or_default());
        Ok(FrameHeader { meta_len: u32_at(8), bodies_len: u32_at(12), meta_checksum })
    }
}

fn header_checksum(bytes: &[u8; HEADER_LEN]) -> u64 {
    Checksum::of(&bytes[..32]).0 as u64
}

/// A message as it is written: one buffer, and the bodies behind it, uncopied.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Header and MessagePack part.
    pub head: Bytes,
    /// The bodies, in order.
    pub bodies: Vec<Bytes>,
}

impl Frame {
    /// The bytes of the whole frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.bodies.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is nothing; a frame always has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }
}

/// Encodes any value with a frame's header; transports use it for their handshakes.
///
/// # Errors
/// When the value cannot be encoded.
pub fn encode_value<T: serde::Serialize>(value: &T, bodies: Vec<Bytes>) -> Result<Frame, WireError> {
    let mut head = BytesMut::with_capacity(256);
    head.put_bytes(0, HEADER_LEN);
    let mut writer = head.writer();
    rmp_serde::encode::write(&mut writer, value).map_err(|error| WireError::Malformed(Cause::new(error)))?;
    let mut head = writer.into_inner();
    let too_large = |len: usize| WireError::TooLarge { len: len as u64, limit: u32::MAX.into() };
    let meta = head.len() - HEADER_LEN;
    let bodies_len: usize = bodies.iter().map(Bytes::len).sum();
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[8..12].copy_from_slice(&u32::try_from(meta).map_err(|_| too_large(meta))?.to_le_bytes());
    header[12..16].copy_from_slice(&u32::try_from(bodies_len).map_err(|_| too_large(bodies_len))?.to_le_bytes());
    header[16..32].copy_from_slice(&Checksum::of(&head[HEADER_LEN..]).0.to_le_bytes());
    let checksum = header_checksum(&header);
    header[32..40].copy_from_slice(&checksum.to_le_bytes());
    head[..HEADER_LEN].copy_from_slice(&header);
    Ok(Frame { head: head.freeze(), bodies })
}

/// Reads the value of a frame, and the bytes of the bodies behind it.
///
/// # Errors
/// A [`WireError`].
pub fn decode_value<T: serde::de::DeserializeOwned>(
    header: &FrameHeader,
    mut payload: Bytes,
) -> Result<(T, Bytes), WireError> {
    if payload.len() != header.payload_len() {
        return Err(WireError::Damaged("length"));
    }
    let meta = payload.split_to(header.meta_len as usize);
    if Checksum::of(&meta).0 != header.meta_checksum {
        return Err(WireError::Damaged("content"));
    }
    let mut decoder = rmp_serde::Deserializer::from_read_ref(&meta[..]);
    decoder.set_max_depth(DEPTH_MAX);
    let value = <T as serde::Deserialize<'_>>::deserialize(&mut decoder);
    let value = value.map_err(|error| WireError::Malformed(Cause::new(error)))?;
    Ok((value, payload))
}

/// Encodes a message.
///
/// # Errors
/// When it is larger than any frame can be.
pub fn encode(message: &Message) -> Result<Frame, WireError> {
    let bodies = message.entries().iter().map(|entry| entry.body.clone()).collect();
    encode_value(message, bodies)
}

/// Decodes a message; its bodies are slices of the payload.
///
/// # Errors
/// A [`WireError`].
pub fn decode(header: &FrameHeader, payload: Bytes) -> Result<Message, WireError> {
    let (mut message, mut bodies): (Message, Bytes) = decode_value(header, payload)?;
    for entry in message.entries_mut() {
        let len = entry.header.body_len as usize;
        if len > bodies.len() {
            return Err(WireError::Malformed(Cause::new("a body is missing")));
        }
        entry.body = bodies.split_to(len);
        if !entry.is_intact() {
            return Err(WireError::Damaged("body"));
        }
    }
    if bodies.is_empty() { Ok(message) } else { Err(WireError::Malformed(Cause::new("bytes behind the last body"))) }
}

/// A frame that says nothing but that its sender is there.
///
/// # Errors
/// None that can happen.
pub fn keep_alive() -> Result<Frame, WireError> {
    encode_value(&(), Vec::new())
}

/// Whether a frame is a [`keep_alive`].
#[must_use]
pub fn is_keep_alive(header: &FrameHeader, payload: &[u8]) -> bool {
    header.payload_len() == 1 && payload.first() == Some(&0xc0)
}

/// Decodes a whole frame from one buffer; for tests and for transports of datagrams.
///
/// # Errors
/// A [`WireError`].
pub fn decode_frame(bytes: &Bytes, limits: Limits) -> Result<Message, WireError> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(WireError::NotAFrame)?;
    decode(&FrameHeader::decode(header, limits)?, bytes.slice(HEADER_LEN..))
}

#[cfg(test)]
pub(crate) mod tests {
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
        let life = Life { incarnation: Incarnation(7), starts: 2, nonce: 3 };
        let known = vec![Known { replica: ReplicaId(1), life, acknowledged: OpNumber(1) }];
        let ping = Ping {
            view,
            normal: true,
            commit,
            head: op,
            wall: Timestamp(1),
            checkpoint: OpNumber(0),
            machine_version: 1,
            head_certain: true,
            has_room: true,
            life,
            known: known.clone(),
        };
        vec![
            Message::Requests { requests: vec![request], forwarded: true },
            Message::Replies { view, replies: vec![reply] },
            Message::Prepare { view, commit, entry: entry.clone() },
            Message::PrepareOk { view, op, checksum: Checksum(1), life },
            Message::Commit { view, commit, head: op, number: 3 },
            Message::CommitOk { view, number: 3, life },
            Message::StartViewChange { view, life },
            Message::DoViewChange(DoViewChange {
                view,
                log_view: View::default(),
                commit: CommitNumber(0),
                head: op,
                head_certain: true,
                headers: vec![header],
                facts: vec![Fact { present: true, nack: false }],
                checkpoint: OpNumber(0),
                life,
                known,
            }),
            Message::StartView(StartView {
                view,
                commit,
                head: op,
                headers: vec![header],
                nonce: 7,
                checkpoint: OpNumber(0),
            }),
            Message::RequestStartView { view, nonce: 7 },
            Message::RequestHeaders { op, checksum: Checksum(1), count: 3 },
            Message::Headers { headers: vec![header] },
            Message::RequestEntries { wanted: vec![(op, Checksum(1))] },
            Message::Entries { entries: vec![entry.clone(), entry] },
            Message::Ping(ping),
            Message::ReadIndex { nonce: 1 },
            Message::ReadIndexOk { nonce: 1, index: op },
            Message::RequestStatus { nonce: 3 },
            Message::Status { nonce: 3, status: Bytes::from_static(b"fine") },
            Message::Query { client: ClientId(5), nonce: 1, query: Bytes::from_static(b"q") },
            Message::Answer { client: ClientId(5), nonce: 1, answer: Err(Refusal::Undecodable), position: op, view },
        ]
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

    /// What stands in `golden/frames.txt` is version 2 of the format: a build that writes anything else needs another version.
    /// `VSR_GOLDEN=write cargo test -p vsr golden` writes the file anew.
    #[test]
    fn golden_frames_have_not_changed() {
        let path = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
            .join("golden/frames.txt");
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

    /// B9: a stranger's frame cannot overflow the stack either: a field that no message has, as deep as a frame can
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

    /// B10: the longest messages that a cluster of any constants makes are within the limits of whoever takes them.
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
}
