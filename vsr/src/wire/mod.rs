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
pub const VERSION: u16 = 4;

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

/// The longest frame that is accepted.
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

/// Why bytes are not a frame, or a frame is not accepted. The cause is the sender or the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The first bytes are not those of a frame: another protocol.
    #[error("these bytes are not a vsr frame")]
    NotAFrame,
    /// Another version of it.
    #[error("frame version {found}, this program speaks {VERSION}: run versions that are one step apart")]
    Version {
        /// The version in the frame's header.
        found: u16,
    },
    /// Damaged on the way.
    #[error("the frame's {0} does not fit its checksum")]
    Damaged(&'static str),
    /// Larger than the limits.
    #[error("a frame of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// The length that the frame's header gives, in bytes.
        len: u64,
        /// The limit, in bytes ([`Limits`]).
        limit: u64,
    },
    /// The MessagePack part does not decode as a message.
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

/// A frame without a message: it only shows that its sender is alive.
///
/// # Errors
/// The encoding of an empty value does not fail; the type is that of [`encode_value`].
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
pub(crate) mod tests;
