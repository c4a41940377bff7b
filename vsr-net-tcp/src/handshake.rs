//! The first frames of a connection: who is there, and whether the two belong together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use vsr::network::Identity;
use vsr::protocol::Peer;
use vsr::wire::{FrameHeader, HEADER_LEN, Limits, WireError, decode_value, encode_value};
use vsr::{Checksum, ClientId, ClusterId, ReplicaId};

use crate::options::TcpError;
use crate::receive::reason;

/// What a handshake may hold: little, as its sender is not known yet.
const LIMITS: Limits = Limits { meta_max: 4096, bodies_max: 0 };

/// The end of a connection: a replica or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Speaker {
    /// `process` is drawn anew at each start: two that run on copies of one disk say the same otherwise.
    Replica {
        id: ReplicaId,
        membership: Checksum,
        identity: Identity,
        process: u64,
    },
    Client {
        id: ClientId,
    },
}

impl Speaker {
    pub(crate) fn peer(&self) -> Peer {
        match *self {
            Speaker::Replica { id, .. } => Peer::Replica(id),
            Speaker::Client { id } => Peer::Client(id),
        }
    }
}

/// A number for [`Speaker::Replica`], most likely no other process has it.
#[allow(clippy::disallowed_types, reason = "the standard library's way to the operating system's entropy")]
pub(crate) fn process_number() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(CALLS.fetch_add(1, Ordering::Relaxed));
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) cluster: ClusterId,
    pub(crate) from: Speaker,
    /// The replica that is meant to be at the other end.
    pub(crate) to: ReplicaId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Welcome(Speaker),
    Rejected(Rejection),
}

/// Why a connection was refused. The operator of one of the two has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The address is that of another cluster.
    #[error("the other side belongs to cluster {0}: check the addresses, and the number of the cluster")]
    Cluster(ClusterId),
    /// The address is that of another replica.
    #[error("replica {0} is at this address: check the order of the addresses")]
    OtherReplica(ReplicaId),
    /// No member has this id.
    #[error("no member has this replica id: check the configuration")]
    NotAMember,
    /// Members, quorums or constants differ.
    #[error("members, quorums or cluster constants differ: all replicas must be formatted with the same ones")]
    Membership,
    /// The address is that of the replica itself.
    #[error("the other side has this very replica's id: it is a second process of it, or a copy; end one of the two")]
    SameReplica,
    /// Another disk is connected under this id.
    #[error(
        "a replica on another disk (another disk id) is connected under this id: end one of the two, and never format \
         a disk under an id that has been in use: a lost one is replaced by `recover`"
    )]
    OtherIncarnation,
    /// A later life of the same disk, or of its original, is connected.
    #[error(
        "a later start of the same disk is connected: the one that was refused runs on an old copy of its folder; end \
         it"
    )]
    OldCopy,
    /// No room for more clients.
    #[error("too many clients: connect to another replica, or try later")]
    TooManyClients,
    /// Another process is connected under this id, and alive.
    #[error(
        "another process of this replica is connected and alive: a copy of its folder runs beside it; end one of the \
         two (after a restart this ends by itself, as soon as the old connection is found broken)"
    )]
    AlreadyConnected,
}

impl Rejection {
    /// The value of the label `reason` in metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Rejection::Cluster(_) => "cluster",
            Rejection::OtherReplica(_) => "other_replica",
            Rejection::NotAMember => "not_a_member",
            Rejection::Membership => "membership",
            Rejection::SameReplica => "same_replica",
            Rejection::OtherIncarnation => "other_incarnation",
            Rejection::OldCopy => "old_copy",
            Rejection::TooManyClients => "too_many_clients",
            Rejection::AlreadyConnected => "already_connected",
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Address(#[from] TcpError),
    #[error("the handshake took too long")]
    TimedOut,
    #[error("refused by the other side: {0}")]
    Rejected(Rejection),
    #[error("refused here: {0}")]
    Refused(Rejection),
}

impl HandshakeError {
    /// A word that changes when the failure is another one than before: then it is logged again.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            HandshakeError::Io(_) => "io",
            HandshakeError::Wire(error) => reason(error),
            HandshakeError::Address(_) => "address",
            HandshakeError::TimedOut => "timed_out",
            HandshakeError::Rejected(rejection) | HandshakeError::Refused(rejection) => rejection.reason(),
        }
    }

    /// Of the failures at several addresses of one name the one that tells most, and that only all of them
    /// together make a refused connection.
    pub(crate) fn weight(&self) -> u8 {
        match self {
            HandshakeError::Rejected(_) | HandshakeError::Refused(_) => 3,
            HandshakeError::Wire(_) | HandshakeError::Address(_) => 2,
            HandshakeError::Io(_) if self.is_refused_connection() => 0,
            HandshakeError::Io(_) | HandshakeError::TimedOut => 1,
        }
    }

    /// Whether no process listens at the other side.
    pub(crate) fn is_refused_connection(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
        matches!(self, HandshakeError::Io(error) if matches!(error.kind(), ConnectionRefused | ConnectionReset))
    }
}

pub(crate) async fn send<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    value: &T,
) -> Result<(), HandshakeError> {
    let frame = encode_value(value, Vec::new())?;
    stream.write_all(&frame.head).await?;
    Ok(())
}

pub(crate) async fn receive<T: serde::de::DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<T, HandshakeError> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let header = FrameHeader::decode(&header, LIMITS)?;
    let mut payload = BytesMut::zeroed(header.payload_len());
    stream.read_exact(&mut payload).await?;
    Ok(decode_value(&header, payload.freeze())?.0)
}

/// Bounds a handshake in time.
pub(crate) async fn within<T>(
    limit: Duration,
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(limit, handshake).await.unwrap_or(Err(HandshakeError::TimedOut))
}

/// The handshake of the side that connects: it names itself, and the replica that it expects.
pub(crate) async fn call(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    hello: Hello,
) -> Result<Speaker, HandshakeError> {
    send(stream, &hello).await?;
    match receive(stream).await? {
        Answer::Welcome(speaker) if speaker.peer() == Peer::Replica(hello.to) => Ok(speaker),
        Answer::Welcome(speaker) => {
            let id = if let Peer::Replica(id) = speaker.peer() { id } else { hello.to };
            Err(HandshakeError::Refused(Rejection::OtherReplica(id)))
        }
        Answer::Rejected(rejection) => Err(HandshakeError::Rejected(rejection)),
    }
}
