//! The timeline of a run: what every lane did and why, for pictures and exports.

/// The lane of what concerns the whole cluster.
pub const CLUSTER: u32 = u32::MAX;

/// A run as a list of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// What was run: `seed 1729 · 3 replicas · crash, partition`.
    pub title: String,
    /// The command that runs it again.
    pub repeat: String,
    /// `pass`, or the class of the failure and its sentence.
    pub verdict: String,
    /// Who takes part; a record names its lane by the index here.
    pub lanes: Vec<Lane>,
    /// What happened, ordered by time and then as it happened.
    pub records: Vec<Record>,
    /// What the checkers refused.
    pub violation: Option<Breach>,
    /// How often each thing happened.
    pub counters: Vec<(String, u64)>,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The moment at which it was noticed, in nanoseconds of virtual time.
    pub at: u64,
    /// The lane, if it is about one: an index into [`Timeline::lanes`].
    pub lane: Option<u32>,
    /// The checker's name.
    pub checker: String,
    /// The checker's sentence.
    pub message: String,
    /// The record at which it was noticed: an index into [`Timeline::records`].
    pub record: Option<u32>,
}

/// A replica or a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// A short name: `r0`, `c1`.
    pub name: String,
    /// Whether it is a replica; else it is a client.
    pub replica: bool,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The moment, in nanoseconds of virtual time.
    pub at: u64,
    /// The lane: an index into [`Timeline::lanes`], or [`CLUSTER`].
    pub lane: u32,
    /// The index of the earlier record that led to this one.
    pub cause: Option<u32>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The lane sent a message.
    Sent {
        /// The receiving lane.
        to: u32,
        /// The message's name, `Prepare`.
        kind: &'static str,
        /// The message in one line.
        text: String,
    },
    /// A message reached the lane; a second record of the same message is a duplicate.
    Delivered {
        /// The index of the [`What::Sent`] record.
        sent: u32,
    },
    /// A message did not reach the lane.
    Lost {
        /// The index of the [`What::Sent`] record.
        sent: u32,
        /// The reason: `dropped`, `partition`, `receiver is down`.
        why: &'static str,
    },
    /// The lane's status from now on.
    Status {
        /// The view it is in, or wants to enter.
        view: u64,
        /// Whether it serves.
        state: State,
        /// Whether it leads the view.
        primary: bool,
    },
    /// The lane's op numbers from now on.
    Numbers {
        /// The newest op of its log.
        head: u64,
        /// The newest op that it knows to be committed.
        commit: u64,
    },
    /// The simulator did harm, or ended it.
    Fault {
        /// The harm, in words.
        text: String,
        /// When it ends, in nanoseconds of virtual time, if it lasts.
        until: Option<u64>,
    },
    /// A client began an operation.
    Asked {
        /// The operation.
        text: String,
    },
    /// A client learnt the outcome of an operation.
    Heard {
        /// The index of the [`What::Asked`] record.
        asked: u32,
        /// The outcome.
        text: String,
    },
    /// Something else that helps a reader: a vote, a truncation.
    Note {
        /// A sentence about it.
        text: String,
    },
}

/// Whether a replica serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes part in its view.
    Normal,
    /// It wants to enter its view.
    ViewChange,
    /// Its process does not run.
    Down,
    /// Its process runs, but stands still.
    Paused,
}

/// A message as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted<'a> {
    /// The moment, in nanoseconds of virtual time.
    pub at: u64,
    /// The sending lane.
    pub from: u32,
    /// The receiving lane.
    pub to: u32,
    /// The message's name.
    pub kind: &'static str,
    /// The message in one line.
    pub text: &'a str,
}

impl Timeline {
    /// A lane's name; `cluster` for [`CLUSTER`], as for a lane that does not exist.
    #[must_use]
    pub fn lane_name(&self, lane: u32) -> &str {
        self.lanes.get(lane as usize).map_or("cluster", |lane| &lane.name)
    }

    /// When the last thing happened, in nanoseconds of virtual time.
    #[must_use]
    pub fn end(&self) -> u64 {
        let noticed = self.violation.as_ref().map_or(0, |breach| breach.at);
        self.records.last().map_or(0, |record| record.at).max(noticed)
    }

    /// The message that was sent at a record; none if something else happened there.
    #[must_use]
    pub fn posted(&self, sent: u32) -> Option<Posted<'_>> {
        match self.records.get(sent as usize)? {
            Record { at, lane, what: What::Sent { to, kind, text }, .. } => {
                Some(Posted { at: *at, from: *lane, to: *to, kind, text })
            }
            _ => None,
        }
    }
}

impl What {
    /// Its name in exports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            What::Sent { .. } => "sent",
            What::Delivered { .. } => "delivered",
            What::Lost { .. } => "lost",
            What::Status { .. } => "status",
            What::Numbers { .. } => "numbers",
            What::Fault { .. } => "fault",
            What::Asked { .. } => "asked",
            What::Heard { .. } => "heard",
            What::Note { .. } => "note",
        }
    }
}

impl State {
    /// Its name in exports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Normal => "normal",
            State::ViewChange => "view change",
            State::Down => "down",
            State::Paused => "paused",
        }
    }
}
