//! The first frames of a connection: who is there, and whether the two belong together.

use std::time::Duration;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use vsr::wire::{FrameHeader, HEADER_LEN, Limits, WireError, decode_value, encode_value};
use vsr::{Checksum, ClientId, ClusterId, Identity, Peer, ReplicaId};

/// A handshake is small, and comes from anybody.
const LIMITS: Limits = Limits { meta_max: 4096, bodies_max: 0 };

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Speaker {
    Replica { id: ReplicaId, membership: Checksum, identity: Identity },
    Client { id: ClientId },
}

impl Speaker {
    pub(crate) fn peer(&self) -> Peer {
        match *self {
            Speaker::Replica { id, .. } => Peer::Replica(id),
            Speaker::Client { id } => Peer::Client(id),
        }
    }
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
    /// Another cluster's address.
    #[error("the other side belongs to cluster {0}: check the addresses")]
    Cluster(ClusterId),
    /// Another replica's address.
    #[error("replica {0} is at this address: check the order of the addresses")]
    OtherReplica(ReplicaId),
    /// Nobody of this id is a member.
    #[error("no member has this replica id: check the configuration")]
    NotAMember,
    /// Members, quorums or constants differ.
    #[error("members, quorums or cluster constants differ: all replicas must be formatted with the same ones")]
    Membership,
    /// This very replica.
    #[error("a second process with this replica's id: end one of the two")]
    SameReplica,
    /// The disk is not the one that this id had.
    #[error("this replica id belongs to another disk (incarnation): a replaced disk must not rejoin under its old id")]
    OtherIncarnation,
    /// An earlier life of the same disk, or a copy of it.
    #[error("a later start of the same disk is known: this is an old copy, end it")]
    OldCopy,
    /// No room for more clients.
    #[error("too many clients: connect to another replica, or try later")]
    TooManyClients,
}

impl Rejection {
    /// A word for metrics.
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
    #[error("the handshake took too long")]
    TimedOut,
    #[error("refused by the other side: {0}")]
    Rejected(Rejection),
    #[error("refused here: {0}")]
    Refused(Rejection),
}

impl HandshakeError {
    /// Whether nobody listens at the other side.
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

/// The side that connected: says who it is, and whom it expects.
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
