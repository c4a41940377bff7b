//! Every message of the protocol.
//!
//! | message | from | to | purpose |
//! |---|---|---|---|
//! | [`Requests`](Message::Requests) | client, backup | replica | execute these, exactly once |
//! | [`Replies`](Message::Replies) | replica | client, backup | what became of them |
//! | [`Prepare`](Message::Prepare) | primary | backups | put this op into your log |
//! | [`PrepareOk`](Message::PrepareOk) | backup | primary | my log is durable up to this op |
//! | [`Commit`](Message::Commit) | primary | backups | heartbeat, commit number, confirmation round |
//! | [`CommitOk`](Message::CommitOk) | backup | primary | I am in your view |
//! | [`StartViewChange`](Message::StartViewChange) | any | all | a vote to leave the view it names |
//! | [`DoViewChange`](Message::DoViewChange) | any | all | the sender's log, for the new view |
//! | [`StartView`](Message::StartView) | new primary | all | the log of the new view |
//! | [`RequestStartView`](Message::RequestStartView) | any | primary | send me your `StartView` |
//! | [`RequestHeaders`](Message::RequestHeaders), [`Headers`](Message::Headers) | any | any | repair down the hash chain |
//! | [`RequestEntries`](Message::RequestEntries), [`Entries`](Message::Entries) | any | any | repair of bodies by checksum |
//! | [`RequestCheckpoint`](Message::RequestCheckpoint), [`CheckpointPart`](Message::CheckpointPart) | any | any | state transfer |
//! | [`Ping`](Message::Ping) | any | all | view, clock and health |
//! | [`ReadIndex`](Message::ReadIndex), [`ReadIndexOk`](Message::ReadIndexOk) | any, primary | primary, any | a confirmed index for linearizable reads |
//! | [`RequestStatus`](Message::RequestStatus), [`Status`](Message::Status) | client, replica | replica, client | how it is, for people |
//! | [`Query`](Message::Query), [`Answer`](Message::Answer) | client, replica | replica, client | a linearizable read |
//!
//! The last two rows are between a client and the driver of a replica: the protocol ignores them. They stand in the same enum, since a
//! transport carries one type, to replicas and to clients.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::checkpoint::{CheckpointId, Past, StateDigest};
use super::checksum::Checksum;
use super::entry::{Entry, Header};
use super::life::{Known, Life, Succession};
use super::number::{ClientId, CommitNumber, OpNumber, Position, ReplicaId, RequestNumber, SessionId, Timestamp, View};

/// A sender or receiver of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// A member of the cluster.
    Replica(ReplicaId),
    /// A client from outside.
    Client(ClientId),
}

/// A message and where it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The receiver.
    pub to: Peer,
    /// The message to send.
    pub message: Message,
}

/// A request on its way to the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The client that sends it.
    pub client: ClientId,
    /// Its session; all zero for a `Register`.
    pub session: SessionId,
    /// The number within the session; 0 asks to open a session.
    pub number: RequestNumber,
    /// The lowest number that the client still waits for; at most `number`.
    pub floor: RequestNumber,
    /// The encoded command.
    pub command: Bytes,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Outcome {
    /// Executed; the encoded reply.
    Reply(Bytes),
    /// The session that is open for this client.
    Registered(SessionId),
    /// Executed, but the bytes of the reply are no longer kept, or were over `reply_max`.
    ReplyLost,
    /// Flow control: send the same number again after a pause.
    Busy(Busy),
    /// Refused for good; not executed by this attempt.
    Refused(Refusal),
}

/// Why a request has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Busy {
    /// The queue of the primary is full.
    Queue,
    /// The session's replies that its client has not seen fill half their bound.
    Replies,
    /// The replica is not the primary, and knows none to forward to.
    NoPrimary,
    /// The log is full and nothing may be dropped yet.
    LogFull,
    /// The table is full of sessions that are in use.
    Sessions,
}

/// Why a request is refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The session is gone from the table. Whether the request was executed is unknown.
    Evicted,
    /// The number was used with other content. Nothing was executed by this one.
    Conflict,
    /// The number is below the session's floor: the client has said that it has the answer.
    BelowFloor,
    /// The number is beyond the window.
    BeyondWindow,
    /// The command is longer than `request_max`, or the query than `query_max`.
    TooLarge,
    /// The state machine cannot decode the command.
    Undecodable,
    /// The state machine panicked while it answered a query; the words are in the replica's log.
    Panicked,
    /// The answer to a query is longer than `answer_max`.
    AnswerTooLarge,
    /// The answer to a query has no encoding.
    Unencodable,
    /// Too many queries wait, or too many bytes of them. Only for queries: asking again later is safe.
    Busy,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The client that sent the request.
    pub client: ClientId,
    /// The session of the request; all zero for a `Register`.
    pub session: SessionId,
    /// The number of the request.
    pub number: RequestNumber,
    /// What became of it.
    pub outcome: Outcome,
    /// Where it was executed; all zero when it was not.
    pub position: Position,
    /// The checksum of the command that it answers: a client that sent another command under this number does not take it
    /// for an answer (rule 5.2). Zero for a `Register`, and when the outcome is that of the number, not of a command.
    pub request: Checksum,
}

/// What a `DoViewChange` says of one op's slot, as of the moment of sending (rule 7.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotEvidence {
    /// The entry is here, intact.
    pub present: bool,
    /// The entry was never acknowledged here: the slot is certainly empty, or was never yet durable.
    /// Damage never turns no-nack into nack.
    pub nack: bool,
}

/// The sender's log, for the primary of a new view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoViewChange {
    /// The new view.
    pub view: View,
    /// The last view whose log the sender holds as its own.
    pub log_view: View,
    /// What the sender knows to be committed.
    pub commit: CommitNumber,
    /// The highest op of the sender's log.
    pub head: OpNumber,
    /// False when rot or a lost write at the end of the log leaves open whether there was more.
    pub head_certain: bool,
    /// The headers from `commit` + 1 to `head` in ascending order, and the one at `commit` before them where it is known to be of this log
    /// (rule 7.13). A blank slot is left out.
    pub headers: Vec<Header>,
    /// What the sender has of each op from `commit` + 1 to `head`, in this order: one element for each.
    pub evidence: Vec<SlotEvidence>,
    /// What the sender has of the past: whether it could lead from this log.
    pub past: Past,
    /// The life of the sender.
    pub life: Life,
    /// What the sender remembers of the members: an old disk learns that it is one before it can lead.
    pub known: Vec<Known>,
}

/// The log of a view that has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartView {
    /// The view that has started.
    pub view: View,
    /// What its primary knows to be committed.
    pub commit: CommitNumber,
    /// The last op of the log.
    pub head: OpNumber,
    /// The headers up to `head` in ascending order, without a gap. The first is that of `commit`, or of `commit` + 1.
    pub headers: Vec<Header>,
    /// The nonce of the request that this answers; 0 when it answers none.
    pub nonce: u64,
    /// What the sender has of the past: the checkpoints to begin with, where its log no longer reaches back.
    pub past: Past,
}

/// A replica's report of itself, sent to all members at an interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The sender's durable view.
    pub view: View,
    /// Whether that view has started, as far as the sender knows.
    pub normal: bool,
    /// What the sender knows to be committed.
    pub commit: CommitNumber,
    /// The head of the sender's log.
    pub head: OpNumber,
    /// The sender's wall clock, in nanoseconds since the Unix epoch.
    pub wall: Timestamp,
    /// What the sender has of the past.
    pub past: Past,
    /// The newest version of the state machine that the sender can apply.
    pub machine_version: u32,
    /// Whether the sender knows where its log ends.
    pub head_certain: bool,
    /// Whether the sender's disk and log have room for more ops.
    pub has_room: bool,
    /// The life of the sender.
    pub life: Life,
    /// How its disk has come to its place: one that does not count yet asks for its place with this.
    pub succession: Succession,
    /// What the sender remembers of the members.
    pub known: Vec<Known>,
    /// The digests of the sender's state machine at its last checkpoints, where it gives any.
    pub digests: Vec<StateDigest>,
}

/// One message between replicas, or between a client and a replica. `RequestStatus`, `Status`, `Query` and `Answer` are handled by the driver
/// and the client: the protocol ignores them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Message {
    /// Requests of clients.
    Requests {
        /// The requests; independent of each other.
        requests: Vec<Request>,
        /// Set by a replica that passes them on: they are not passed on again (rule 5.7).
        forwarded: bool,
    },
    /// Answers to requests.
    Replies {
        /// The last view that is known to have started: where to send the next request.
        view: View,
        /// The answers, each to one request.
        replies: Vec<Reply>,
    },
    /// An op for the log.
    Prepare {
        /// The view of the primary; the header's is that of the first preparation.
        view: View,
        /// What the primary knows to be committed.
        commit: CommitNumber,
        /// The op, with its body.
        #[serde(with = "super::message::header_only")]
        entry: Entry,
    },
    /// The sender's log is durable, and connected, up to this op.
    PrepareOk {
        /// The view of the log.
        view: View,
        /// The last op up to which the log is durable.
        op: OpNumber,
        /// The checksum of this op, and so that of the log up to it.
        checksum: Checksum,
        /// The life of the sender.
        life: Life,
    },
    /// The commit number; also the heartbeat, and the confirmation round of reads.
    Commit {
        /// The view of the primary.
        view: View,
        /// The last committed op.
        commit: CommitNumber,
        /// The head, so that a lost last `Prepare` is noticed.
        head: OpNumber,
        /// Counts up within the view.
        number: u64,
    },
    /// A `Commit` of the receiver's view has arrived.
    CommitOk {
        /// The view of the sender and of the `Commit`.
        view: View,
        /// The number of the `Commit`.
        number: u64,
        /// The life of the sender.
        life: Life,
    },
    /// A vote to leave a view; it promises nothing. VRR's message of this name carries the view to enter.
    StartViewChange {
        /// The view to leave: the sender's durable one.
        leaving: View,
        /// The life of the sender.
        life: Life,
    },
    /// The sender's log, for the primary of a new view: [`DoViewChange`].
    DoViewChange(Box<DoViewChange>),
    /// The log of a view that has started: [`StartView`].
    StartView(StartView),
    /// Asks the primary of a view for its `StartView`.
    RequestStartView {
        /// The view, or an older one.
        view: View,
        /// Comes back in the answer.
        nonce: u64,
    },
    /// Asks for headers down the hash chain.
    RequestHeaders {
        /// The op of the highest header.
        op: OpNumber,
        /// The checksum of the highest header.
        checksum: Checksum,
        /// The number of headers, at most.
        count: u32,
    },
    /// Headers, downwards, each the parent of the one before.
    Headers {
        /// The headers, the highest first.
        headers: Vec<Header>,
    },
    /// Asks for entries.
    RequestEntries {
        /// Their ops and checksums.
        wanted: Vec<(OpNumber, Checksum)>,
    },
    /// Entries that were asked for.
    Entries {
        /// The entries, each with its body.
        #[serde(with = "super::message::headers_only")]
        entries: Vec<Entry>,
    },
    /// Asks for parts of a checkpoint.
    RequestCheckpoint {
        /// The checkpoint.
        id: CheckpointId,
        /// The parts: 0 for the manifest, else chunks, counted from 1.
        parts: Vec<u32>,
    },
    /// A part of a checkpoint that was asked for.
    CheckpointPart {
        /// The checkpoint.
        id: CheckpointId,
        /// The part: 0 for the manifest, else the chunk of this number, counted from 1.
        part: u32,
        /// Its bytes; `None` when the sender cannot give them.
        bytes: Option<Bytes>,
    },
    /// A replica's report of itself: [`Ping`].
    Ping(Box<Ping>),
    /// Asks the primary to confirm an index for reads.
    ReadIndex {
        /// Comes back in the answer.
        nonce: u64,
    },
    /// The primary was confirmed after `nonce` was received; reads may be served from `index` on.
    ReadIndexOk {
        /// That of the question.
        nonce: u64,
        /// The op that must be applied first.
        index: OpNumber,
    },
    /// A client's query.
    Query {
        /// The client that sends it.
        client: ClientId,
        /// Comes back in the answer.
        nonce: u64,
        /// The encoded query.
        query: Bytes,
    },
    /// A client asks how the replica is; for people, never for the protocol.
    RequestStatus {
        /// Comes back in the answer.
        nonce: u64,
    },
    /// What the replica says of itself.
    Status {
        /// That of the question.
        nonce: u64,
        /// An encoded status and a sentence; opaque here.
        status: Bytes,
    },
    /// The answer to a query.
    Answer {
        /// The client that sent the query.
        client: ClientId,
        /// That of the query.
        nonce: u64,
        /// The encoded answer, or why there is none.
        answer: Result<Bytes, Refusal>,
        /// The last op that the answer has seen.
        position: OpNumber,
        /// The last view that is known to have started.
        view: View,
    },
}

impl Reply {
    /// About the bytes that it takes in a message.
    pub(crate) fn weight(&self) -> usize {
        64 + if let Outcome::Reply(bytes) = &self.outcome { bytes.len() } else { 0 }
    }
}

/// No number of a cluster reaches this one.
const NUMBER_MAX: u64 = 1 << 60;

impl Request {
    /// Whether every number is one that a session can reach. What is not is answered where it arrives: a primary would ignore it.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.number.0 < NUMBER_MAX && self.floor.0 < NUMBER_MAX && self.session.0.op.0 < NUMBER_MAX
    }
}

impl Message {
    /// The view that the message is of.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        match self {
            Message::Prepare { view, .. }
            | Message::PrepareOk { view, .. }
            | Message::Commit { view, .. }
            | Message::CommitOk { view, .. }
            | Message::StartViewChange { leaving: view, .. }
            | Message::RequestStartView { view, .. } => Some(*view),
            Message::DoViewChange(dvc) => Some(dvc.view),
            Message::StartView(start) => Some(start.view),
            Message::Ping(ping) => Some(ping.view),
            _ => None,
        }
    }

    /// About the bytes that it takes in memory.
    pub(crate) fn weight(&self) -> usize {
        const HEADER: usize = Header::LEN + 16;
        64 + match self {
            Message::Requests { requests, .. } => requests.iter().map(|request| 96 + request.command.len()).sum(),
            Message::Replies { replies, .. } => replies.iter().map(Reply::weight).sum(),
            Message::Prepare { entry, .. } => HEADER + entry.body.len(),
            Message::Entries { entries } => entries.iter().map(|entry| HEADER + entry.body.len()).sum(),
            Message::DoViewChange(dvc) => dvc.headers.len() * HEADER + dvc.evidence.len() * 2,
            Message::StartView(start) => start.headers.len() * HEADER,
            Message::Headers { headers } => headers.len() * HEADER,
            Message::RequestEntries { wanted } => wanted.len() * 24,
            Message::RequestCheckpoint { parts, .. } => parts.len() * 4,
            Message::CheckpointPart { bytes, .. } => bytes.as_ref().map_or(0, Bytes::len),
            Message::Query { query, .. } => query.len(),
            Message::Status { status, .. } => status.len(),
            Message::Answer { answer, .. } => answer.as_ref().map_or(0, Bytes::len),
            _ => 0,
        }
    }

    /// Whether a later message of the same kind says all that this one says.
    pub(crate) fn is_superseded_by_the_next(&self) -> bool {
        matches!(
            self,
            Message::PrepareOk { .. }
                | Message::Commit { .. }
                | Message::CommitOk { .. }
                | Message::StartViewChange { .. }
                | Message::DoViewChange(_)
                | Message::StartView(_)
                | Message::RequestStartView { .. }
                | Message::Ping(_)
        )
    }

    /// Whether every number is one that a cluster can reach, and every view of this epoch. What is not is
    /// ignored before any handler computes with it: no sum below can overflow.
    #[must_use]
    pub fn is_plausible(&self, epoch: super::number::Epoch) -> bool {
        const MAX: u64 = NUMBER_MAX;
        let op = |op: &OpNumber| op.0 < MAX;
        let view = |view: &View| view.epoch == epoch && view.number < MAX;
        let header = |header: &Header| {
            (1..MAX).contains(&header.op.0)
                && header.view.number < MAX
                && header.commit.0 < header.op.0
                && header.timestamp.0 < 1 << 63
        };
        match self {
            Message::Requests { requests, .. } => requests.iter().all(Request::is_plausible),
            Message::Replies { .. }
            | Message::ReadIndex { .. }
            | Message::Query { .. }
            | Message::RequestStatus { .. }
            | Message::Status { .. }
            | Message::Answer { .. } => true,
            Message::Prepare { view: v, commit, entry } => {
                view(v) && header(&entry.header) && commit.0 < entry.header.op.0
            }
            Message::PrepareOk { view: v, op: o, .. } => view(v) && op(o),
            Message::Commit { view: v, commit, head, .. } => view(v) && op(head) && commit.0 <= head.0,
            Message::CommitOk { view: v, .. }
            | Message::StartViewChange { leaving: v, .. }
            | Message::RequestStartView { view: v, .. } => view(v),
            Message::DoViewChange(dvc) => {
                view(&dvc.view)
                    && view(&dvc.log_view)
                    && op(&dvc.head)
                    && dvc.commit.0 < MAX
                    && dvc.headers.iter().all(header)
                    && dvc.past.is_plausible(MAX)
            }
            Message::StartView(start) => {
                view(&start.view)
                    && op(&start.head)
                    && start.commit.0 < MAX
                    && start.headers.iter().all(header)
                    && start.past.is_plausible(MAX)
            }
            Message::RequestHeaders { op: o, .. } | Message::ReadIndexOk { index: o, .. } => op(o),
            Message::Headers { headers } => headers.iter().all(header),
            Message::RequestEntries { wanted } => wanted.iter().all(|(o, _)| op(o)),
            Message::Entries { entries } => entries.iter().all(|entry| header(&entry.header)),
            Message::RequestCheckpoint { id, parts } => op(&id.op) && parts.len() <= 64,
            Message::CheckpointPart { id, .. } => op(&id.op),
            Message::Ping(ping) => {
                view(&ping.view)
                    && op(&ping.head)
                    && ping.commit.0 < MAX
                    && ping.wall.0 < 1 << 63
                    && ping.digests.len() <= 64
                    && ping.past.is_plausible(MAX)
                    && ping.succession.is_plausible(MAX)
            }
        }
    }

    /// The kind as a short word, for traces and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Message::Requests { .. } => "Requests",
            Message::Replies { .. } => "Replies",
            Message::Prepare { .. } => "Prepare",
            Message::PrepareOk { .. } => "PrepareOk",
            Message::Commit { .. } => "Commit",
            Message::CommitOk { .. } => "CommitOk",
            Message::StartViewChange { .. } => "StartViewChange",
            Message::DoViewChange(_) => "DoViewChange",
            Message::StartView(_) => "StartView",
            Message::RequestStartView { .. } => "RequestStartView",
            Message::RequestHeaders { .. } => "RequestHeaders",
            Message::Headers { .. } => "Headers",
            Message::RequestEntries { .. } => "RequestEntries",
            Message::Entries { .. } => "Entries",
            Message::RequestCheckpoint { .. } => "RequestCheckpoint",
            Message::CheckpointPart { .. } => "CheckpointPart",
            Message::Ping(_) => "Ping",
            Message::ReadIndex { .. } => "ReadIndex",
            Message::ReadIndexOk { .. } => "ReadIndexOk",
            Message::RequestStatus { .. } => "RequestStatus",
            Message::Status { .. } => "Status",
            Message::Query { .. } => "Query",
            Message::Answer { .. } => "Answer",
        }
    }

    /// The entries that the message carries, for transports that send bodies beside the rest.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match self {
            Message::Prepare { entry, .. } => std::slice::from_ref(entry),
            Message::Entries { entries } => entries,
            _ => &[],
        }
    }

    /// As [`entries`](Self::entries), to put the bodies back.
    pub fn entries_mut(&mut self) -> &mut [Entry] {
        match self {
            Message::Prepare { entry, .. } => std::slice::from_mut(entry),
            Message::Entries { entries } => entries,
            _ => &mut [],
        }
    }
}

/// An entry's serialised form is its header; the wire format carries the body beside it, uncopied.
mod header_only {
    use super::{Bytes, Entry, Header};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(entry: &Entry, serializer: S) -> Result<S::Ok, S::Error> {
        entry.header.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        Ok(Entry { header: Header::deserialize(deserializer)?, body: Bytes::new() })
    }
}

mod headers_only {
    use super::{Bytes, Entry, Header};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(entries: &[Entry], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(entries.iter().map(|entry| entry.header))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
        let headers = Vec::<Header>::deserialize(deserializer)?;
        Ok(headers.into_iter().map(|header| Entry { header, body: Bytes::new() }).collect())
    }
}

/// Bytes of requests or replies after which the next message begins: what one frame carries stays small.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;

/// Requests as messages of a bounded size.
pub(crate) fn in_messages(requests: Vec<Request>) -> impl Iterator<Item = Vec<Request>> {
    let mut rest = requests.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut message = vec![rest.next()?];
        let mut bytes = message[0].command.len() + 64;
        while bytes < MESSAGE_BYTES
            && let Some(request) = rest.next_if(|next| bytes + next.command.len() <= MESSAGE_BYTES)
        {
            bytes += request.command.len() + 64;
            message.push(request);
        }
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::super::number::Epoch;
    use super::super::random::Random;
    use super::*;
    use crate::wire::tests::messages;

    fn request(number: u64, len: usize) -> Request {
        Request {
            client: ClientId(1),
            session: SessionId::default(),
            number: RequestNumber(number),
            floor: RequestNumber(1),
            command: vec![0; len].into(),
        }
    }

    /// What one message carries stays small, and nothing is lost, repeated or put in another order.
    #[test]
    fn requests_are_packed_into_messages_of_a_bounded_size() {
        let mut random = Random::new(3);
        for _ in 0..100 {
            let lengths: Vec<usize> = (0..random.below(40)).map(|_| random.below(1 << 18) as usize).collect();
            let requests: Vec<Request> = (1..).zip(&lengths).map(|(number, len)| request(number, *len)).collect();
            let messages: Vec<Vec<Request>> = in_messages(requests.clone()).collect();
            assert!(messages.iter().all(|message| !message.is_empty()));
            for message in &messages {
                let bytes: usize = message.iter().map(|request| request.command.len() + 64).sum();
                assert!(bytes <= MESSAGE_BYTES + 64, "{bytes}");
            }
            assert_eq!(messages.concat(), requests);
        }
        let messages: Vec<Vec<Request>> = in_messages(vec![request(1, 4 * MESSAGE_BYTES), request(2, 0)]).collect();
        assert_eq!(messages.len(), 2, "a long one travels alone");
    }

    /// Every view that a message names is held to the epoch: in another one the members may be others (rule 10.1).
    #[test]
    fn a_message_of_another_epoch_is_not_plausible() {
        for mut message in messages() {
            if let Message::Prepare { commit, .. } = &mut message {
                // The sample calls its own op committed.
                *commit = CommitNumber(0);
            }
            let Some(view) = message.view() else { continue };
            assert!(message.is_plausible(view.epoch), "{}", message.name());
            assert!(!message.is_plausible(Epoch(view.epoch.0 + 1)), "{}", message.name());
        }
    }

    /// No handler has to compute with a number that no cluster reaches: no sum overflows.
    #[test]
    fn numbers_that_no_cluster_reaches_are_not_plausible() {
        let (view, epoch) = (View::default(), View::default().epoch);
        let (high, absurd) = (NUMBER_MAX - 1, NUMBER_MAX);
        let prepare_ok = |number: u64| Message::PrepareOk {
            view,
            op: OpNumber(number),
            checksum: Checksum(1),
            life: Life::default(),
        };
        let vote = |number: u64| Message::StartViewChange { leaving: View { number, ..view }, life: Life::default() };
        let ask = |number: u64| Message::RequestEntries { wanted: vec![(OpNumber(number), Checksum(1))] };
        let index = |number: u64| Message::ReadIndexOk { nonce: 1, index: OpNumber(number) };
        let of_session = |number: u64| {
            let session = SessionId(Position { op: OpNumber(number), index: 0 });
            Message::Requests { requests: vec![Request { session, ..request(1, 0) }], forwarded: true }
        };
        let kinds: [&dyn Fn(u64) -> Message; 5] = [&prepare_ok, &vote, &ask, &index, &of_session];
        for message in kinds {
            assert!(message(high).is_plausible(epoch), "{}", message(high).name());
            assert!(!message(absurd).is_plausible(epoch), "{}", message(absurd).name());
        }
        let commit =
            |commit, head| Message::Commit { view, commit: CommitNumber(commit), head: OpNumber(head), number: 1 };
        assert!(commit(4, 4).is_plausible(epoch) && !commit(5, 4).is_plausible(epoch), "no log ends before its commit");
    }

    /// What a later message of its kind may replace while it waits must not be part of a sequence: each of those says
    /// something of its own.
    #[test]
    fn only_messages_that_say_all_of_the_earlier_ones_replace_them() {
        let replaced = messages().into_iter().filter(Message::is_superseded_by_the_next);
        let names: Vec<&str> = replaced.map(|message| message.name()).collect();
        let expected = [
            "PrepareOk",
            "Commit",
            "CommitOk",
            "StartViewChange",
            "DoViewChange",
            "StartView",
            "RequestStartView",
            "Ping",
        ];
        assert_eq!(names, expected);
    }

    /// Rule 5.12: what waits is counted with at least the bytes that it holds.
    #[test]
    fn a_message_weighs_no_less_than_what_it_carries() {
        for message in messages() {
            let carried: usize = message.entries().iter().map(|entry| Header::LEN + entry.body.len()).sum();
            assert!(message.weight() >= 64 + carried, "{}", message.name());
        }
        let requests = vec![request(1, 1000), request(2, 500)];
        assert!(Message::Requests { requests, forwarded: false }.weight() >= 1500);
        let answer = Ok(Bytes::from(vec![0; 1000]));
        let position = OpNumber::ZERO;
        let answer = Message::Answer { client: ClientId(1), nonce: 1, answer, position, view: View::default() };
        assert!(answer.weight() >= 1000);
    }
}
