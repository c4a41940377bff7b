//! State machines around the user's: one that the checkers can see into, and the default workload.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vsr::protocol::Random;
use vsr::{ApplyContext, Checksum, Position, QueryContext, RestoreError, Snapshot, StateMachine, Timestamp};

use crate::check::linearizability::{Asked, Heard, Model, Operation};
use crate::check::{Digested, Observation, Violation};
use crate::node::Life;
use crate::simulation::{Invariant, ModelOf};
use crate::world::lock;

/// What a client does next.
#[derive(Debug)]
pub enum Step<C, Q> {
    /// It submits a command.
    Command(C),
    /// It asks a query.
    Query(Q),
}

/// A state machine that the simulator can drive and check: its commands and queries can be repeated,
/// its replies and answers compared.
pub trait Simulated:
    StateMachine<
        Command: Clone + Debug + Sync,
        Reply: Clone + Debug + PartialEq + Sync,
        Query: Clone + Debug + Sync,
        Answer: Clone + Debug + PartialEq + Sync,
    >
{
}

impl<S> Simulated for S where
    S: StateMachine<
            Command: Clone + Debug + Sync,
            Reply: Clone + Debug + PartialEq + Sync,
            Query: Clone + Debug + Sync,
            Answer: Clone + Debug + PartialEq + Sync,
        >
{
}

/// A command with its context, as the log orders it.
pub(crate) struct InContext<S: StateMachine> {
    pub(crate) context: ApplyContext,
    pub(crate) command: S::Command,
    /// What the first replica replied, and the checksum that it goes by.
    reply: S::Reply,
    checksum: Checksum,
}
pub(crate) type Recorded<S> =
    Operation<InContextOption<S>, <S as StateMachine>::Reply, <S as StateMachine>::Query, <S as StateMachine>::Answer>;
type InContextOption<S> = (Option<ApplyContext>, <S as StateMachine>::Command);

/// What clients saw, and what was executed.
pub(crate) struct Recorder<S: StateMachine> {
    pub(crate) history: Vec<Recorded<S>>,
    pub(crate) executed: BTreeMap<Position, InContext<S>>,
    pub(crate) next_command: u64,
    pub(crate) active: usize,
    /// Replicas beside which an application waits for an answer.
    pub(crate) waiting: BTreeSet<usize>,
    pub(crate) acknowledged: u64,
    pub(crate) timeouts: u64,
}

impl<S: Simulated> Recorder<S> {
    pub(crate) fn new() -> Recorder<S> {
        Recorder {
            history: Vec::new(),
            executed: BTreeMap::new(),
            next_command: 0,
            active: 0,
            waiting: BTreeSet::new(),
            acknowledged: 0,
            timeouts: 0,
        }
    }

    pub(crate) fn invoke(&mut self, client: u64, now: u64, asked: Asked<InContextOption<S>, S::Query>) -> usize {
        let heard = Heard::Unknown;
        self.history.push(Operation { client, invoked: now, returned: u64::MAX, asked, heard });
        self.history.len() - 1
    }

    /// A replica has executed a command. Whoever replies the same has the same checksum.
    fn note(&mut self, context: &ApplyContext, command: Option<S::Command>, reply: &S::Reply) -> Checksum {
        let checksum = || Checksum::of(format!("{reply:?}").as_bytes());
        match (self.executed.get(&context.position), command) {
            (Some(first), _) if first.reply == *reply => first.checksum,
            (None, Some(command)) => {
                let checksum = checksum();
                let first = InContext { context: *context, command, reply: reply.clone(), checksum };
                self.executed.insert(context.position, first);
                checksum
            }
            _ => checksum(),
        }
    }

    pub(crate) fn hear(&mut self, at: usize, now: u64, heard: Heard<S::Reply, S::Answer>) {
        self.history[at].returned = now;
        self.history[at].heard = heard;
    }
}

/// The user's machine, watched.
pub(crate) struct Witnessed<S: StateMachine> {
    pub(crate) inner: S,
    pub(crate) life: Life,
    pub(crate) recorder: Arc<Mutex<Recorder<S>>>,
    pub(crate) invariants: Vec<Invariant<S>>,
}

impl<S: Simulated> StateMachine for Witnessed<S> {
    type Command = (u64, S::Command);
    type Reply = S::Reply;
    type Query = S::Query;
    type Answer = S::Answer;

    fn apply(&mut self, context: &ApplyContext, (id, command): (u64, S::Command)) -> S::Reply {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = (!recorder.executed.contains_key(&context.position)).then(|| command.clone());
        let reply = self.inner.apply(context, command);
        let checksum = recorder.note(context, kept, &reply);
        drop(recorder);
        let (replica, position) = (self.life.node, context.position);
        let mut world = lock(&self.life.world);
        world.trace.count("commands executed");
        world.observe(&Observation::Executed { replica, position, command: id, reply: checksum });
        if let Some(digest) = self.inner.digest() {
            world.observe(&Observation::Digest { replica, of: Digested::Machine(position), digest });
        }
        for (checker, holds) in &self.invariants {
            if let Err(message) = holds(&self.inner) {
                let (at, message) = (world.now, format!("r{replica} after {position}: {message}"));
                world.breach(Violation { checker, message, at });
            }
        }
        reply
    }

    fn query(&self, context: &QueryContext, query: S::Query) -> S::Answer {
        self.inner.query(context, query)
    }

    fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }

    fn restore(_: &mut dyn Read) -> Result<Self, RestoreError> {
        Err(RestoreError("a watched machine is not restored".to_owned()))
    }
}

/// The user's machine as the model of its own history.
pub(crate) struct Replay<S>(pub(crate) S, pub(crate) QueryContext);

impl<S: Simulated> Model<InContextOption<S>, S::Reply, S::Query, S::Answer> for Replay<S> {
    fn apply(&mut self, (context, command): &InContextOption<S>) -> S::Reply {
        let context = context.unwrap_or(ApplyContext {
            position: Position::default(),
            timestamp: Timestamp(0),
            session: vsr::SessionId::default(),
        });
        self.1 = QueryContext { applied: context.position.op, timestamp: context.timestamp };
        self.0.apply(&context, command.clone())
    }

    fn query(&self, query: &S::Query) -> S::Answer {
        self.0.query(&self.1, query.clone())
    }
}

/// A user's model, which knows nothing of contexts.
pub(crate) struct Borrowed<S: StateMachine>(pub(crate) ModelOf<S>);

impl<S: Simulated> Model<InContextOption<S>, S::Reply, S::Query, S::Answer> for Borrowed<S> {
    fn apply(&mut self, (_, command): &InContextOption<S>) -> S::Reply {
        self.0.apply(command)
    }

    fn query(&self, query: &S::Query) -> S::Answer {
        self.0.query(query)
    }
}

pub(crate) fn asked_command<S: Simulated>(command: S::Command) -> Asked<InContextOption<S>, S::Query> {
    Asked::Command((None, command))
}

/// The default state machine of the simulator: a few registers, with commands whose replies tell
/// every order apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registers {
    values: BTreeMap<u8, i64>,
    changes: u64,
    /// When the last change was, as the replicas agreed on it.
    changed_at: Timestamp,
}

/// A command of [`Registers`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// Sets a register; replies its old value.
    Write(u8, i64),
    /// Adds to a register; replies the new value.
    Add(u8, i64),
    /// Sets a register if it holds the first value; replies what it held.
    CompareAndSet(u8, i64, i64),
    /// Changes nothing; replies how many changes there were. Carries ballast.
    Ballast(Bytes),
}

impl StateMachine for Registers {
    type Command = Change;
    type Reply = i64;
    type Query = u8;
    type Answer = (i64, u64);

    fn apply(&mut self, context: &ApplyContext, change: Change) -> i64 {
        self.changes += 1;
        self.changed_at = context.timestamp;
        match change {
            Change::Write(at, value) => self.values.insert(at, value).unwrap_or(0),
            Change::Add(at, more) => {
                let value = self.values.entry(at).or_default();
                *value = value.wrapping_add(more);
                *value
            }
            Change::CompareAndSet(at, expected, value) => {
                let held = self.values.get(&at).copied().unwrap_or(0);
                if held == expected {
                    self.values.insert(at, value);
                }
                held
            }
            Change::Ballast(_) => self.changes as i64,
        }
    }

    fn query(&self, _: &QueryContext, at: u8) -> (i64, u64) {
        (self.values.get(&at).copied().unwrap_or(0), self.changes)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.clone())
    }

    fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> {
        Snapshot::read(from)
    }

    fn digest(&self) -> Option<Checksum> {
        let mut bytes = self.changes.to_le_bytes().to_vec();
        bytes.extend(self.changed_at.0.to_le_bytes());
        for (at, value) in &self.values {
            bytes.push(*at);
            bytes.extend(value.to_le_bytes());
        }
        Some(Checksum::of(&bytes))
    }
}

impl Registers {
    /// A step of a client: a change, or in `queries_percent` of the cases a query.
    pub fn step(random: &mut Random, queries_percent: u64) -> Step<Change, u8> {
        let at = random.below(4) as u8;
        let value = random.below(10) as i64;
        if random.below(100) < queries_percent {
            return Step::Query(at);
        }
        Step::Command(match random.below(8) {
            0..=2 => Change::Add(at, value + 1),
            3..=4 => Change::Write(at, value),
            5..=6 => Change::CompareAndSet(at, random.below(10) as i64, value),
            _ => Change::Ballast(Bytes::from(vec![at; random.below(600) as usize])),
        })
    }
}
