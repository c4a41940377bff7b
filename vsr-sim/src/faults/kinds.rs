//! The kinds of faults, as values.

use std::fmt;

use vsr::protocol::{Message, OpNumber};

/// What a message is, so that the same one is recognised in another run of the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageKey {
    /// The sending node.
    pub from: usize,
    /// The node it is addressed to.
    pub to: usize,
    /// [`Message::name`].
    pub kind: &'static str,
    /// Its op, view or number.
    pub subject: u64,
    /// Its number among the messages of this kind and subject on this link, counted from 1.
    pub nth: u32,
}

impl MessageKey {
    pub(crate) fn hash(&self) -> u64 {
        let mut hash = (self.from as u64) << 40 | (self.to as u64) << 20 | u64::from(self.nth);
        for byte in self.kind.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash ^ self.subject.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The op, view or number that a message is about.
#[must_use]
pub fn subject(message: &Message) -> u64 {
    match message {
        Message::Requests { requests, .. } => requests.first().map_or(0, |request| request.number.0),
        Message::Replies { replies, .. } => replies.first().map_or(0, |reply| reply.number.0),
        Message::Prepare { entry, .. } => entry.header.op.0,
        Message::PrepareOk { op, .. } | Message::RequestHeaders { op, .. } => op.0,
        Message::Commit { number, .. } | Message::CommitOk { number, .. } => *number,
        Message::StartViewChange { leaving: view, .. } | Message::RequestStartView { view, .. } => view.number,
        Message::DoViewChange(dvc) => dvc.view.number,
        Message::StartView(start) => start.view.number,
        Message::Headers { headers } => headers.first().map_or(0, |header| header.op.0),
        Message::RequestEntries { wanted } => wanted.first().map_or(0, |(op, _)| op.0),
        Message::Entries { entries } => entries.first().map_or(0, |entry| entry.header.op.0),
        _ => 0,
    }
}

/// What time did to a stored entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    Intact,
    /// The body is gone; the header survived in its own place.
    Body,
    /// Header and body are gone; that there was something is known.
    Both,
    /// As the last entry: it is not even known that there was something, only that the end cannot be read. Elsewhere as `Both`.
    End,
}

/// What becomes of a write that is under way when its process dies or its disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing of it is on the disk.
    Lost,
    /// All of it is on the disk.
    Kept,
    /// Some of its entries are on the disk, drawn from this number.
    Torn(u64),
}

/// As the time of [`MessageFate::Again`]: a copy is kept until a later term, and the time is not known yet.
pub(crate) const KEPT: u64 = u64::MAX;

/// What happens to a message beside being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFate {
    /// It is lost.
    Drop,
    /// It is delivered once more, so many nanoseconds later.
    Again(u64),
    /// One bit of its frame is flipped on the way.
    Corrupt(u64),
    /// It is delivered to another node.
    Misdeliver(usize),
    /// Its sender dies right after sending it.
    CrashAfter(Unsynced),
}

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFate {
    /// The process dies while it is under way.
    CrashIn(Unsynced),
    /// The process dies when it is durable, before it hears of it.
    CrashAfter,
    /// It fails with an error, and this is what the disk kept of it.
    Fail(Unsynced),
    /// It takes so many nanoseconds more.
    Hang(u64),
    /// It succeeds, and its bodies are not there.
    Silent,
    /// It succeeds, and lands on this op's slot instead.
    Misdirect(OpNumber),
    /// It succeeds, and its records are lost whole.
    Vanish,
    /// Its sync fails, and every other one for so many nanoseconds; it can be read until power is lost.
    FailSync(u64),
}

/// What happens to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFate {
    /// It fails with an error.
    Fail,
    /// It finds the entry of another place; the storage notices, and has nothing for the first op that was asked for.
    Astray,
}

/// A fault that has a moment. The first number of a variant is the node that it comes to: replicas are counted from 0 in the order of the
/// members, and clients after them. Where a variant has two nodes, the second is the other end: of a link the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimedFault {
    /// The process dies.
    Crash(usize, Unsynced),
    /// It is started again.
    Restart(usize),
    /// No message crosses from these nodes to the others; nor back, unless it is one-way.
    Partition {
        /// The nodes of one side.
        side: Vec<usize>,
        /// Messages from the others to this side pass.
        one_way: bool,
        /// The transports of some notice.
        noticed: bool,
    },
    /// No message passes from one node to another.
    Cut(usize, usize),
    /// Messages pass again.
    Mend(usize, usize),
    /// All partitions end.
    Heal,
    /// Messages on a link wait, and arrive together.
    Clog {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
        /// How long they wait, in nanoseconds.
        lasts: u64,
    },
    /// For so many nanoseconds, no message of this kind leaves the node.
    Mute(usize, &'static str, u64),
    /// The process stands still.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// The machine stands still, its clock too, until it goes on.
    Suspend(usize),
    /// The wall clock jumps by so many nanoseconds.
    JumpWall(usize, i64),
    /// The monotonic clock leaps forward by so many nanoseconds.
    LeapClock(usize, u64),
    /// A stored entry rots.
    Rot(usize, OpNumber, Damage),
    /// Writes and reads take longer for a while.
    SlowDisk {
        /// The replica.
        replica: usize,
        /// How many times as long they take.
        times: u64,
        /// How long the disk is slow, in nanoseconds.
        lasts: u64,
    },
    /// No write completes until the disk is released.
    StallDisk(usize),
    /// Writes complete again.
    ReleaseDisk(usize),
    /// There is no room on the disk, for so many nanoseconds.
    FullDisk(usize, u64),
    /// The disk is gone, with everything on it.
    LoseDisk(usize),
    /// A new disk takes the place of one that is gone, or old, and its replica starts on it.
    ReplaceDisk(usize),
    /// A copy of the disk is kept.
    CopyDisk(usize),
    /// The copy that was kept takes the place of the disk, and its replica starts on it: where every other member remembers a later start.
    RestoreDisk(usize),
    /// A process is started beside a replica, under its id, on a disk that is not its newest one (rule 7.7): where every other member remembers the
    /// replica.
    Impostor(usize, Impostor),
    /// A connection breaks, and one of its ends notices.
    PeerDown {
        /// The end that notices.
        node: usize,
        /// The other end.
        peer: usize,
        /// Whether a reconnect was refused.
        refused: bool,
    },
    /// The place of an op's body keeps nothing any more: so many puts come to nothing there.
    BadSector(usize, OpNumber, u64),
    /// For so many nanoseconds writes of entries fail for want of room, and the first that does is how it is known.
    NoSpace(usize, u64),
}

/// Which disk a process has that takes itself for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impostor {
    /// The copy of the replica's own that was kept.
    Copy,
    /// One that was formatted as if for a new cluster.
    New,
    /// A copy of that of this replica, as it is now.
    Of(usize),
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A fault at this moment, in nanoseconds of virtual time from the start of the run.
    At(u64, TimedFault),
    /// What happens to this message.
    Message(MessageKey, MessageFate),
    /// What happens to a write: the replica, and the number of the write among those of this replica, from 1.
    Write(usize, u64, WriteFate),
    /// What happens to a read: the replica, and the number of the read among those of this replica, from 1.
    Read(usize, u64, ReadFate),
}

/// The kinds of messages, by name, so that a text can be turned into one.
pub(crate) const KINDS: &[&str] = &[
    "Requests",
    "Replies",
    "Prepare",
    "PrepareOk",
    "Commit",
    "CommitOk",
    "StartViewChange",
    "DoViewChange",
    "StartView",
    "RequestStartView",
    "RequestHeaders",
    "Headers",
    "RequestEntries",
    "Entries",
    "Ping",
    "ReadIndex",
    "ReadIndexOk",
    "RequestStatus",
    "Status",
    "Query",
    "Answer",
    FRAME,
];

/// What scenario files call a frame of a user's own network, which alone knows what is in it.
pub(crate) const FRAME: &str = "Frame";

/// A kind of message by its name.
pub(crate) fn kind_of(name: &str) -> Option<&'static str> {
    KINDS.iter().find(|kind| **kind == name).copied()
}

/// Nanoseconds as a person writes them.
pub(crate) struct Nanos(pub(crate) u64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0ms"),
            nanos if nanos.is_multiple_of(1_000_000_000) => write!(f, "{}s", nanos / 1_000_000_000),
            nanos if nanos.is_multiple_of(1_000_000) => write!(f, "{}ms", nanos / 1_000_000),
            nanos if nanos.is_multiple_of(1_000) => write!(f, "{}us", nanos / 1_000),
            nanos => write!(f, "{nanos}ns"),
        }
    }
}
