//! State machines around the user's: one that the checkers can see into, and the default workload.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use vsr::protocol::{Position, Random, Timestamp};
use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};

use crate::check::linearizability::{Asked, Heard, Model, Operation};
use crate::check::{Digested, Observation, Violation};
use crate::node::Life;
use crate::simulation::{Invariant, ModelOf};
use crate::world::lock;

/// What a client does next.
#[derive(Clone, Debug)]
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
    /// The first replica that executed it, what it replied, and the checksum that it goes by.
    replica: usize,
    reply: S::Reply,
    checksum: Checksum,
}
pub(crate) type Recorded<S> =
    Operation<InContextOption<S>, <S as StateMachine>::Reply, <S as StateMachine>::Query, <S as StateMachine>::Answer>;
type InContextOption<S> = Logged<<S as StateMachine>::Command>;

/// A command, with what it was executed with, once it was.
#[derive(Clone)]
pub(crate) struct Logged<C>(pub(crate) Option<ApplyContext>, pub(crate) C);

/// As people wrote the command.
impl<C: Debug> Debug for Logged<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.1.fmt(f)
    }
}

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
    fn note(
        &mut self,
        replica: usize,
        context: &ApplyContext,
        command: Option<S::Command>,
        reply: &S::Reply,
    ) -> Checksum {
        let checksum = || Checksum::of(format!("{reply:?}").as_bytes());
        match (self.executed.get(&context.position), command) {
            (Some(first), _) if first.reply == *reply => first.checksum,
            (None, Some(command)) => {
                let checksum = checksum();
                let first = InContext { context: *context, command, replica, reply: reply.clone(), checksum };
                self.executed.insert(context.position, first);
                checksum
            }
            _ => checksum(),
        }
    }

    /// What every client asked and heard, in the order in which it was asked.
    pub(crate) fn in_words(&self) -> Vec<String> {
        let line = |operation: &Recorded<S>| {
            let who = match operation.client {
                client @ 1000.. => format!("r{}", client - 1000),
                client => format!("c{}", client / 8),
            };
            let asked = match &operation.asked {
                Asked::Command(Logged(_, command)) => format!("{command:?}"),
                Asked::Query(query) => format!("{query:?}?"),
            };
            let heard = match &operation.heard {
                Heard::Reply(reply, position) => format!("{reply:?} at {position}"),
                Heard::Answer(answer, op) => format!("{answer:?} as of op {op}"),
                Heard::NotExecuted => "that it is not executed".to_owned(),
                Heard::Unknown => "no reply".to_owned(),
            };
            format!("{who} asks {}, hears {}", shortened(&asked, 80), shortened(&heard, 80))
        };
        self.history.iter().map(line).collect()
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
        let (replica, position) = (self.life.node, context.position);
        let checksum = recorder.note(replica, context, kept, &reply);
        drop(recorder);
        let mut world = lock(&self.life.world);
        let was_broken = world.violation.is_some();
        world.trace.count("commands executed");
        world.nodes[replica].executed += 1;
        world.observe(&Observation::Executed { replica, position, command: id, reply: checksum });
        if let Some(digest) = self.inner.digest() {
            world.observe(&Observation::Digest { replica, of: Digested::Machine(position), digest });
        }
        if !was_broken
            && let Some(violation) = &mut world.violation
            && DIFFERS.contains(&violation.checker)
            && let Some(message) = self.difference(position, &reply)
        {
            violation.message = message;
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
        self.look_at_context(context);
        self.inner.query(context, query)
    }

    fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }

    fn restore(_: &mut dyn Read) -> Result<Self, RestoreError> {
        Err(RestoreError::new("a watched machine is not restored"))
    }
}

/// The checkers that notice when two replicas make different things of the same command.
pub(crate) const DIFFERS: [&str; 2] = ["equal-state-after-equal-ops", "one-reply-per-command"];

impl<S: Simulated> Witnessed<S> {
    /// A query is told of the timestamp of the last op: that with which its commands were executed.
    fn look_at_context(&self, QueryContext { applied, timestamp, .. }: &QueryContext) {
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let of_op = Position { op: *applied, index: 0 }..=Position { op: *applied, index: u32::MAX };
        let executed = recorder.executed.range(of_op).next().map(|(_, first)| first.context.timestamp);
        drop(recorder);
        if let Some(executed) = executed.filter(|executed| executed != timestamp) {
            let mut world = lock(&self.life.world);
            let (replica, at) = (self.life.node, world.now);
            let message =
                format!("r{replica} answers a query as of op {applied} and {timestamp}, the op is of {executed}");
            world.breach(Violation { checker: "queries-see-their-op", message, at });
        }
    }

    /// What this replica made of a command, and what the first one did: in values, which say more than their checksums.
    fn difference(&self, position: Position, reply: &S::Reply) -> Option<String> {
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let first = recorder.executed.get(&position)?;
        let (replica, by, command, other) = (self.life.node, first.replica, &first.command, &first.reply);
        Some(if other == reply {
            format!(
                "r{replica} after op {position}: {command:?} was answered {reply:?}, as by r{by}, and has led to another state"
            )
        } else {
            format!("r{replica} after op {position}: {command:?} was answered {reply:?}, and by r{by} {other:?}")
        })
    }
}

/// The name of a state machine in scenario files: that of its type, without its path.
pub(crate) fn machine_name<S>() -> String {
    let full = std::any::type_name::<S>();
    let plain = full.split('<').next().unwrap_or(full);
    plain.rsplit("::").next().unwrap_or(plain).to_owned()
}

/// A text of no more than so many characters.
fn shortened(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The user's machine as the model of its own history.
pub(crate) struct Replay<S>(pub(crate) S, pub(crate) QueryContext);

impl<S: Simulated> Model<InContextOption<S>, S::Reply, S::Query, S::Answer> for Replay<S> {
    fn apply(&mut self, Logged(context, command): &InContextOption<S>) -> S::Reply {
        let (position, session) = (Position::default(), vsr::protocol::SessionId::default());
        let context = context.unwrap_or(ApplyContext::new(position, Timestamp(0), session));
        self.1 = QueryContext::new(context.position.op, context.timestamp);
        self.0.apply(&context, command.clone())
    }

    fn query(&self, query: &S::Query) -> S::Answer {
        self.0.query(&self.1, query.clone())
    }
}

/// A user's model, which knows nothing of contexts.
pub(crate) struct Borrowed<S: StateMachine>(pub(crate) ModelOf<S>);

impl<S: Simulated> Model<InContextOption<S>, S::Reply, S::Query, S::Answer> for Borrowed<S> {
    fn apply(&mut self, Logged(_, command): &InContextOption<S>) -> S::Reply {
        self.0.apply(command)
    }

    fn query(&self, query: &S::Query) -> S::Answer {
        self.0.query(query)
    }
}

pub(crate) fn asked_command<S: Simulated>(command: S::Command) -> Asked<InContextOption<S>, S::Query> {
    Asked::Command(Logged(None, command))
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
    /// Changes nothing; replies how many changes there were. Carries ballast; an eighth of it comes back, unless it is long.
    Ballast(Bytes),
}

/// Ballast that is longer does not come back.
const BALLAST_MAX: usize = 640;

/// A reply of [`Registers`]: a number, and what comes back of the ballast of a command. Without any it is encoded as the number
/// is; people are shown the number alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Replied {
    /// The number.
    pub number: i64,
    /// The ballast.
    pub ballast: Bytes,
}

impl From<i64> for Replied {
    fn from(number: i64) -> Replied {
        Replied { number, ballast: Bytes::new() }
    }
}

impl Debug for Replied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number.fmt(f)
    }
}

impl Serialize for Replied {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.ballast.is_empty() {
            self.number.serialize(serializer)
        } else {
            (self.number, &self.ballast).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Replied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Replied, D::Error> {
        deserializer.deserialize_any(NumberOrBoth)
    }
}

struct NumberOrBoth;

impl<'de> Visitor<'de> for NumberOrBoth {
    type Value = Replied;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number, alone or with ballast")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Replied, E> {
        Ok(number.into())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Replied, E> {
        i64::try_from(number).map(Replied::from).map_err(de::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut both: A) -> Result<Replied, A::Error> {
        let number = both.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let ballast = both.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
        Ok(Replied { number, ballast })
    }
}

impl StateMachine for Registers {
    type Command = Change;
    type Reply = Replied;
    type Query = u8;
    type Answer = (i64, u64);

    fn apply(&mut self, context: &ApplyContext, change: Change) -> Replied {
        self.changes += 1;
        self.changed_at = context.timestamp;
        match change {
            Change::Write(at, value) => self.values.insert(at, value).unwrap_or(0).into(),
            Change::Add(at, more) => {
                let value = self.values.entry(at).or_default();
                *value = value.wrapping_add(more);
                (*value).into()
            }
            Change::CompareAndSet(at, expected, value) => {
                let held = self.values.get(&at).copied().unwrap_or(0);
                if held == expected {
                    self.values.insert(at, value);
                }
                held.into()
            }
            Change::Ballast(ballast) => {
                let back = if ballast.len() < BALLAST_MAX { ballast.len() / 8 } else { 0 };
                Replied { number: self.changes as i64, ballast: ballast.slice(..back) }
            }
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
