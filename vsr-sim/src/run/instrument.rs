//! The user's state machine, watched: what it executes is told to the checkers, and what clients ask and hear is recorded.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use vsr::protocol::{Position, Timestamp};
use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};

use super::simulation::{Invariant, ModelOf};
use crate::check::linearizability::{Asked, Call, Heard, ReferenceModel};
use crate::check::{Digested, Observation, Violation};
use crate::workload::Simulated;
use crate::world::{Life, being_restored, lock};

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
    Call<InContextOption<S>, <S as StateMachine>::Reply, <S as StateMachine>::Query, <S as StateMachine>::Answer>;
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
        self.history.push(Call { client, invoked: now, returned: u64::MAX, asked, heard });
        self.history.len() - 1
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

/// What a reply goes by: equal replies have equal checksums.
fn checksum_of(reply: &impl Debug) -> Checksum {
    Checksum::of(format!("{reply:?}").as_bytes())
}

/// What a machine that is restored is watched by.
pub(crate) struct Watch<S: StateMachine> {
    pub(crate) recorder: Arc<Mutex<Recorder<S>>>,
    pub(crate) invariants: Vec<Invariant<S>>,
}

impl<S: StateMachine> Clone for Watch<S> {
    fn clone(&self) -> Watch<S> {
        Watch { recorder: self.recorder.clone(), invariants: self.invariants.clone() }
    }
}

/// The user's machine, watched.
pub(crate) struct Instrumented<S: StateMachine> {
    pub(crate) inner: S,
    pub(crate) life: Life,
    pub(crate) recorder: Arc<Mutex<Recorder<S>>>,
    pub(crate) invariants: Vec<Invariant<S>>,
    /// A bit of its state has flipped: it gives another digest from then on, and so do its snapshots.
    pub(crate) wrong: bool,
}

/// The snapshot of a machine, behind whether its state is wrong.
pub(super) fn marked(wrong: bool, inner: Snapshot) -> Snapshot {
    Snapshot::with(move |to| {
        to.write_all(&[wrong.into()])?;
        inner.write_to(to)
    })
}

/// What [`marked`] has put before a snapshot.
pub(super) fn read_mark(from: &mut dyn Read) -> Result<bool, RestoreError> {
    let mut wrong = [0];
    from.read_exact(&mut wrong)?;
    Ok(wrong != [0])
}

impl<S: Simulated> StateMachine for Instrumented<S> {
    type Command = (u64, S::Command);
    type Reply = S::Reply;
    type Query = S::Query;
    type Answer = S::Answer;

    fn apply(&mut self, context: &ApplyContext, (id, command): (u64, S::Command)) -> S::Reply {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let (replica, position) = (self.life.node, context.position);
        let (reply, checksum) = match recorder.executed.entry(position) {
            Entry::Occupied(first) => {
                let (first, reply) = (first.get(), self.inner.apply(context, command));
                let checksum = if first.reply == reply { first.checksum } else { checksum_of(&reply) };
                (reply, checksum)
            }
            Entry::Vacant(place) => {
                let reply = self.inner.apply(context, command.clone());
                let checksum = checksum_of(&reply);
                place.insert(InContext { context: *context, command, replica, reply: reply.clone(), checksum });
                (reply, checksum)
            }
        };
        drop(recorder);
        let mut world = lock(&self.life.world);
        let was_broken = world.violation.is_some();
        world.trace.count("commands executed");
        world.nodes[replica].executed += 1;
        self.wrong |= world.goes_wrong(replica, position.op);
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
        marked(self.wrong, self.inner.snapshot())
    }

    fn digest(&self) -> Option<Checksum> {
        self.inner.digest().map(|digest| Checksum(digest.0 ^ u128::from(self.wrong) << 127))
    }

    fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> {
        let Some((life, op)) = being_restored() else {
            return Err(RestoreError::new("a watched machine is restored by a simulated storage only"));
        };
        let watch = lock(&life.world).watch.clone();
        let watch = watch.and_then(|watch| watch.downcast::<Watch<S>>().ok());
        let Some(watch) = watch else { return Err(RestoreError::new("nobody watches machines of this kind")) };
        let Watch { recorder, invariants } = (*watch).clone();
        let wrong = read_mark(from)?;
        if wrong {
            lock(&life.world).is_wrong(life.node);
        }
        let inner = S::restore(from)?;
        let last = {
            let recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
            let up_to = ..=Position { op, index: u32::MAX };
            recorder.executed.range(up_to).next_back().map(|(position, _)| *position)
        };
        // As if it had executed what came before: its state is held to that of the others.
        if let (Some(last), Some(digest)) = (last, inner.digest()) {
            let (replica, of) = (life.node, Digested::Machine(last));
            lock(&life.world).observe(&Observation::Digest { replica, of, digest });
        }
        Ok(Instrumented { inner, life, recorder, invariants, wrong })
    }
}

/// The checkers that notice when two replicas make different things of the same command.
pub(crate) const DIFFERS: [&str; 2] = ["equal-state-after-equal-ops", "one-reply-per-command"];

impl<S: Simulated> Instrumented<S> {
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

/// A text of no more than so many characters.
fn shortened(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The user's machine as the model of its own history.
pub(crate) struct Replay<S>(pub(crate) S, pub(crate) QueryContext);

impl<S: Simulated> ReferenceModel<InContextOption<S>, S::Reply, S::Query, S::Answer> for Replay<S> {
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

impl<S: Simulated> ReferenceModel<InContextOption<S>, S::Reply, S::Query, S::Answer> for Borrowed<S> {
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
