//! One slot of the log: a header that chains to the one before, and a body that is a batch of
//! requests.

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de};

use super::checksum::Checksum;
use super::number::{
    ClientId, ClusterId, CommitNumber, DiskId, Epoch, OpNumber, Position, ReplicaId, RequestNumber, SessionId,
    Timestamp, View,
};

/// What an op holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpKind {
    /// A batch of requests.
    Requests = 0,
    /// A tick of the agreed clock; reserved (rule 5.10).
    Pulse = 1,
    /// A change of membership; reserved (rule 10.2).
    Reconfigure = 2,
    /// A new disk in the place of a lost one (rule 7.19): the body is a [`Replacement`].
    Recover = 3,
}

impl OpKind {
    fn from_byte(byte: u8) -> Option<OpKind> {
        match byte {
            0 => Some(OpKind::Requests),
            1 => Some(OpKind::Pulse),
            2 => Some(OpKind::Reconfigure),
            3 => Some(OpKind::Recover),
            _ => None,
        }
    }
}

/// The identity of an op. The log is a hash chain: a header names the checksum of the one before, so
/// equal checksums mean equal logs up to there.
///
/// Its [`HeaderFields`] are read as its own. They cannot be changed, so that the checksum is always theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    fields: HeaderFields,
    checksum: Checksum,
}

/// Everything of a [`Header`] but its checksum, which is a function of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// The view in which the op was prepared. It stays when later views inherit the op.
    pub view: View,
    /// The place in the log.
    pub op: OpNumber,
    /// The checksum of the header before.
    pub parent: Checksum,
    /// The checksum of the body.
    pub body: Checksum,
    /// The length of the body in bytes.
    pub body_len: u32,
    /// The number of requests in the body.
    pub requests: u32,
    /// Assigned by the primary; greater than that of the op before.
    pub timestamp: Timestamp,
    /// What the primary knew to be committed when it prepared the op.
    pub commit: CommitNumber,
    /// The version of the state machine that must apply the op (rule 5.9).
    pub machine_version: u32,
    /// What the body is.
    pub kind: OpKind,
}

impl Deref for Header {
    type Target = HeaderFields;

    fn deref(&self) -> &HeaderFields {
        &self.fields
    }
}

impl Header {
    /// The length of an encoded header in bytes.
    pub const LEN: usize = 96;

    /// A header of these fields.
    #[must_use]
    pub fn new(fields: HeaderFields) -> Header {
        Header { fields, checksum: Checksum::of(&fields.encode()) }
    }

    /// What the first op's header has as parent: a function of the cluster, so that the logs of two
    /// clusters never fit together.
    #[must_use]
    pub fn root(cluster: ClusterId) -> Checksum {
        let mut bytes = *b"vsr log root................";
        bytes[12..28].copy_from_slice(&cluster.0.to_le_bytes());
        Checksum::of(&bytes)
    }

    /// The checksum of the header: the identity of the op and of the whole log up to it.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// The fixed layout, little endian.
    #[must_use]
    pub fn encode(&self) -> [u8; Header::LEN] {
        self.fields.encode()
    }

    /// Reads the layout of [`encode`](Self::encode). The checksum is computed, never read, so a header
    /// cannot carry a wrong one. `None` when a field has no meaning.
    #[must_use]
    pub fn decode(bytes: &[u8; Header::LEN]) -> Option<Header> {
        let u128_at = |at: usize| u128::from_le_bytes(bytes[at..at + 16].try_into().unwrap_or_default());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        if bytes[81..].iter().any(|&byte| byte != 0) {
            return None;
        }
        let fields = HeaderFields {
            parent: Checksum(u128_at(0)),
            body: Checksum(u128_at(16)),
            op: OpNumber(u64_at(32)),
            view: View { number: u64_at(40), epoch: Epoch(u32_at(64)) },
            commit: CommitNumber(u64_at(48)),
            timestamp: Timestamp(u64_at(56)),
            body_len: u32_at(68),
            requests: u32_at(72),
            machine_version: u32_at(76),
            kind: OpKind::from_byte(bytes[80])?,
        };
        Some(Header { fields, checksum: Checksum::of(bytes) })
    }
}

impl HeaderFields {
    /// The layout of a header.
    fn encode(&self) -> [u8; Header::LEN] {
        let mut out = [0; Header::LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.parent.0.to_le_bytes());
        put(&self.body.0.to_le_bytes());
        put(&self.op.0.to_le_bytes());
        put(&self.view.number.to_le_bytes());
        put(&self.commit.0.to_le_bytes());
        put(&self.timestamp.0.to_le_bytes());
        put(&self.view.epoch.0.to_le_bytes());
        put(&self.body_len.to_le_bytes());
        put(&self.requests.to_le_bytes());
        put(&self.machine_version.to_le_bytes());
        put(&[self.kind as u8]);
        out
    }
}

impl Serialize for Header {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Header;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} bytes of an op header", Header::LEN)
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Header, E> {
                let layout = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
                Header::decode(layout).ok_or_else(|| E::custom("a header with a field of no meaning"))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// A header and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The header: what identifies the entry.
    pub header: Header,
    /// The batch of requests, encoded once, on the primary.
    pub body: Bytes,
}

impl Entry {
    /// Whether the body is the one that the header names.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.body.len() == self.header.body_len as usize && Checksum::of(&self.body) == self.header.body
    }

    /// The requests in it; none in an op of another kind.
    #[must_use]
    pub fn into_requests(self) -> BodyReader {
        let body = if self.header.kind == OpKind::Requests { self.body } else { Bytes::new() };
        BodyReader::new(self.header.op, body)
    }
}

/// What the body of an op of the kind [`OpKind::Recover`] says: this disk is the replica's from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The replica.
    pub replica: ReplicaId,
    /// Its new disk.
    pub disk_id: DiskId,
}

impl Replacement {
    /// The length of the body in bytes.
    pub const LEN: usize = 1 + 16;

    /// The body of the op.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Replacement::LEN);
        out.put_u8(self.replica.0);
        out.put_u128_le(self.disk_id.0);
        out.freeze()
    }

    /// Reads the body of the op; `None` if it is none.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Replacement> {
        let (replica, disk_id) = body.split_first()?;
        Some(Replacement {
            replica: ReplicaId(*replica),
            disk_id: DiskId(u128::from_le_bytes(disk_id.try_into().ok()?)),
        })
    }
}

/// What a request in a body asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Opens a session for a client.
    Register(ClientId),
    /// Executes a command of the state machine.
    Command(Bytes),
}

/// A request as it stands in the body of an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// The session; all zero for a `Register`.
    pub session: SessionId,
    /// The number within the session; 0 for a `Register`.
    pub number: RequestNumber,
    /// The lowest number that its client still waits for (rule 5.2).
    pub floor: RequestNumber,
    /// What it asks for.
    pub kind: RequestKind,
}

const REQUEST_PREFIX: usize = 8 + 4 + 8 + 8 + 1 + 4;

/// Encodes requests one behind the other into the body of an op.
#[derive(Clone, Debug, Default)]
pub struct BodyBuilder {
    bytes: BytesMut,
    requests: u32,
}

impl BodyBuilder {
    /// What a command of this length adds to a body, in bytes.
    #[must_use]
    pub fn encoded_len(command_len: usize) -> usize {
        REQUEST_PREFIX + command_len
    }

    /// Adds a request.
    pub fn push(&mut self, session: SessionId, number: RequestNumber, floor: RequestNumber, command: &[u8]) {
        self.push_kind(session, number, floor, 0, command);
    }

    /// Adds a `Register`.
    pub fn push_register(&mut self, client: ClientId) {
        self.push_kind(SessionId::default(), RequestNumber(0), RequestNumber(0), 1, &client.0.to_le_bytes());
    }

    fn push_kind(&mut self, session: SessionId, number: RequestNumber, floor: RequestNumber, kind: u8, bytes: &[u8]) {
        let mut prefix = [0; REQUEST_PREFIX];
        prefix[..8].copy_from_slice(&session.0.op.0.to_le_bytes());
        prefix[8..12].copy_from_slice(&session.0.index.to_le_bytes());
        prefix[12..20].copy_from_slice(&number.0.to_le_bytes());
        prefix[20..28].copy_from_slice(&floor.0.to_le_bytes());
        prefix[28] = kind;
        prefix[29..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.bytes.reserve(REQUEST_PREFIX + bytes.len());
        self.bytes.put_slice(&prefix);
        self.bytes.put_slice(bytes);
        self.requests += 1;
    }

    /// The number of requests so far.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// The number of bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was added yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// The body; the builder is empty afterwards and keeps no part of it.
    pub fn take(&mut self) -> (Bytes, u32) {
        let requests = std::mem::take(&mut self.requests);
        (self.bytes.split().freeze(), requests)
    }
}

/// Walks the requests of a body without copying their commands.
#[derive(Clone, Debug)]
pub struct BodyReader {
    body: Bytes,
    at: usize,
    index: u32,
    op: OpNumber,
}

impl BodyReader {
    /// A walk over the body of op `op`.
    #[must_use]
    pub fn new(op: OpNumber, body: Bytes) -> BodyReader {
        BodyReader { body, at: 0, index: 0, op }
    }

    /// Whether every request was given out.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.at >= self.body.len()
    }
}

/// A body that does not decode as a sequence of requests, though its checksum is right: a defect, or a newer version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body of op {op} cannot be read at byte {at}")]
pub struct BodyError {
    /// The op.
    pub op: OpNumber,
    /// The offset in the body, in bytes.
    pub at: usize,
}

impl Iterator for BodyReader {
    type Item = Result<(Position, LoggedRequest), BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        let error = BodyError { op: self.op, at: self.at };
        let Some(prefix) = self.body.get(self.at..self.at + REQUEST_PREFIX) else {
            self.at = self.body.len();
            return Some(Err(error));
        };
        let u64_at = |at: usize| u64::from_le_bytes(prefix[at..at + 8].try_into().unwrap_or_default());
        let u32_at = |at: usize| u32::from_le_bytes(prefix[at..at + 4].try_into().unwrap_or_default());
        let session = SessionId(Position { op: OpNumber(u64_at(0)), index: u32_at(8) });
        let (number, floor) = (RequestNumber(u64_at(12)), RequestNumber(u64_at(20)));
        let (kind, len) = (prefix[28], u32_at(29) as usize);
        let start = self.at + REQUEST_PREFIX;
        let Some(end) = start.checked_add(len).filter(|&end| end <= self.body.len()) else {
            self.at = self.body.len();
            return Some(Err(error));
        };
        let kind = match kind {
            0 => RequestKind::Command(self.body.slice(start..end)),
            1 if len == 16 => {
                let bytes = self.body[start..end].try_into().unwrap_or_default();
                RequestKind::Register(ClientId(u128::from_le_bytes(bytes)))
            }
            _ => {
                self.at = self.body.len();
                return Some(Err(error));
            }
        };
        let position = Position { op: self.op, index: self.index };
        self.at = end;
        self.index += 1;
        Some(Ok((position, LoggedRequest { session, number, floor, kind })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(op: u64) -> Header {
        Header::new(fields(op))
    }

    fn fields(op: u64) -> HeaderFields {
        HeaderFields {
            view: View { epoch: Epoch(0), number: 3 },
            op: OpNumber(op),
            parent: Checksum(7),
            body: Checksum(9),
            body_len: 11,
            requests: 2,
            timestamp: Timestamp(5),
            commit: CommitNumber(4),
            machine_version: 1,
            kind: OpKind::Requests,
        }
    }

    #[test]
    fn a_header_survives_its_layout_and_every_bit_counts() {
        let header = header(8);
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for bit in 0..Header::LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = Header::decode(&damaged);
            assert!(read.is_none_or(|read| read.checksum() != header.checksum()), "bit {bit} does not count");
        }
    }

    #[test]
    fn requests_come_back_from_a_body_in_order() {
        let mut builder = BodyBuilder::default();
        let session = SessionId(Position { op: OpNumber(4), index: 1 });
        builder.push_register(ClientId(77));
        builder.push(session, RequestNumber(2), RequestNumber(1), b"add");
        builder.push(session, RequestNumber(3), RequestNumber(1), b"");
        let (body, requests) = builder.take();
        assert_eq!(requests, 3);
        let read: Vec<_> = BodyReader::new(OpNumber(9), body.clone()).collect::<Result<_, _>>().unwrap();
        assert_eq!(read[0].1.kind, RequestKind::Register(ClientId(77)));
        assert_eq!(read[1].1.kind, RequestKind::Command(Bytes::from_static(b"add")));
        assert_eq!(read[1].1.session, session);
        assert_eq!(read[2].0, Position { op: OpNumber(9), index: 2 });
        for cut in 1..body.len() {
            let whole = BodyReader::new(OpNumber(9), body.slice(..cut)).all(|request| request.is_ok());
            assert!(!whole || cut == 49 || cut == 85, "a body cut at {cut} was read as whole");
        }
    }

    /// Rule 4.2: a body that is not exactly the one that was put is never taken for it.
    #[test]
    fn an_entry_is_intact_only_with_the_body_that_its_header_names() {
        let body = Bytes::from_static(b"three requests");
        let fields = HeaderFields { body: Checksum::of(&body), body_len: body.len() as u32, ..fields(8) };
        let entry = |body: &[u8]| Entry { header: Header::new(fields), body: Bytes::copy_from_slice(body) };
        assert!(entry(&body).is_intact());
        for bit in 0..body.len() * 8 {
            let mut damaged = body.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!entry(&damaged).is_intact(), "bit {bit}");
        }
        assert!(!entry(&body[1..]).is_intact() && !entry(b"").is_intact());
        let longer = HeaderFields { body_len: 15, ..fields };
        assert!(!Entry { header: Header::new(longer), body }.is_intact(), "the length is part of the name");
    }

    /// Headers of another build with a field that this one does not know are none of this one.
    #[test]
    fn a_header_with_a_field_of_no_meaning_is_none() {
        let bytes = header(8).encode();
        for (kind, is_known) in [(0, true), (1, true), (2, true), (3, true), (4, false), (255, false)] {
            let mut other = bytes;
            other[80] = kind;
            assert_eq!(Header::decode(&other).is_some(), is_known, "kind {kind}");
        }
        for reserved in 81..Header::LEN {
            let mut other = bytes;
            other[reserved] = 1;
            assert_eq!(Header::decode(&other), None, "byte {reserved}");
        }
    }

    #[test]
    fn the_logs_of_two_clusters_begin_differently() {
        let roots = [0, 1, 1 << 64, u128::MAX].map(|cluster| Header::root(ClusterId(cluster)));
        for (at, root) in roots.iter().enumerate() {
            assert!(!roots[..at].contains(root));
        }
        assert_eq!(Header::root(ClusterId(7)), Header::root(ClusterId(7)));
    }

    /// Rule 5.9: what cannot be read ends the walk, with the place; nothing behind it is guessed at.
    #[test]
    fn a_body_that_is_no_sequence_of_requests_ends_with_an_error_that_names_the_byte() {
        let session = SessionId::default();
        let mut builder = BodyBuilder::default();
        builder.push(session, RequestNumber(1), RequestNumber(1), b"first");
        let at = builder.len();
        builder.push(session, RequestNumber(2), RequestNumber(1), b"second");
        let (body, _) = builder.take();
        let read = |change: fn(&mut [u8])| -> Vec<_> {
            let mut damaged = body.to_vec();
            change(&mut damaged[at..]);
            BodyReader::new(OpNumber(9), Bytes::from(damaged)).collect()
        };
        assert!(read(|_| {}).iter().all(Result::is_ok));
        let unreadable: [fn(&mut [u8]); 3] = [
            |second| second[28] = 2,
            // A `Register` is the 16 bytes of a client's id.
            |second| second[28] = 1,
            |second| second[29..33].copy_from_slice(&u32::MAX.to_le_bytes()),
        ];
        for change in unreadable {
            let requests = read(change);
            assert!(requests.len() == 2 && requests[0].is_ok(), "{requests:?}");
            assert_eq!(requests[1], Err(BodyError { op: OpNumber(9), at }));
        }
    }

    #[test]
    fn a_builder_gives_out_each_request_once_and_knows_its_length() {
        let mut builder = BodyBuilder::default();
        assert!(builder.is_empty());
        builder.push(SessionId::default(), RequestNumber(1), RequestNumber(1), b"command");
        builder.push_register(ClientId(3));
        let len = BodyBuilder::encoded_len(7) + BodyBuilder::encoded_len(16);
        assert_eq!((builder.requests(), builder.len(), builder.is_empty()), (2, len, false));
        let (body, requests) = builder.take();
        assert_eq!((body.len(), requests), (len, 2));
        assert_eq!((builder.take(), builder.requests()), ((Bytes::new(), 0), 0));
    }
}
