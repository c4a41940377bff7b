//! What was said and done in a run, as far as a later step could contradict it.

use std::collections::BTreeMap;

use vsr::Checksum;
use vsr::protocol::{OpNumber, Position, View};

/// A property is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) rule: &'static str,
    pub(super) message: String,
}

impl Broken {
    pub(super) fn new(rule: &'static str, message: String) -> Broken {
        Broken { rule, message }
    }
}

/// Something that happened at one replica, and must fit what happens at all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    /// A primary sent this op; `of` is the view in which it was made.
    Prepared { replica: usize, view: View, of: View, op: OpNumber, checksum: Checksum },
    /// A replica applied this op.
    Applied { op: OpNumber, checksum: Checksum },
    /// A primary counted this op as committed, by acknowledgements.
    Counted { view: View, op: OpNumber, checksum: Checksum },
    /// A primary began its view with this log, from op 1 on.
    Started { view: View, log: Vec<Option<Checksum>> },
    /// A request was executed.
    Executed { request: u8, position: Position, reply: Vec<u8> },
    /// A client was told of it.
    Acknowledged { request: u8, position: Position, reply: Vec<u8> },
}

/// All facts so far, without those that no later one can contradict.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Facts {
    primaries: BTreeMap<View, usize>,
    contents: BTreeMap<(View, OpNumber), Checksum>,
    committed: BTreeMap<OpNumber, Checksum>,
    /// The lowest view in which a primary counted each op.
    counted: BTreeMap<OpNumber, View>,
    started: BTreeMap<View, Vec<Option<Checksum>>>,
    executed: BTreeMap<u8, (Position, Vec<u8>)>,
}

impl Facts {
    /// Adds a fact.
    ///
    /// # Errors
    /// The property that it breaks.
    pub(super) fn add(&mut self, fact: &Fact) -> Result<(), Broken> {
        match fact {
            Fact::Prepared { replica, view, of, op, checksum } => self.prepared(*replica, *view, *of, *op, *checksum),
            Fact::Applied { op, checksum } => self.commit(*op, *checksum),
            Fact::Counted { view, op, checksum } => {
                self.commit(*op, *checksum)?;
                let first = self.counted.entry(*op).or_insert(*view);
                *first = (*first).min(*view);
                self.all_leaders_are_complete()
            }
            Fact::Started { view, log } => {
                self.started.insert(*view, log.clone());
                self.all_leaders_are_complete()
            }
            Fact::Executed { request, position, reply } => {
                let executed = self.executed.entry(*request).or_insert_with(|| (*position, reply.clone()));
                if *executed == (*position, reply.clone()) {
                    return Ok(());
                }
                let (name, first) = (name(*request), &*executed);
                Err(Broken::new(
                    "exactly-once",
                    format!("{name} is executed at {position} with reply {reply:?}, it was at {first:?} before"),
                ))
            }
            Fact::Acknowledged { request, position, reply } => {
                let is_committed = self.committed.contains_key(&position.op);
                if is_committed && self.executed.get(request) == Some(&(*position, reply.clone())) {
                    return Ok(());
                }
                let (name, executed) = (name(*request), self.executed.get(request));
                Err(Broken::new(
                    "acknowledged-is-committed",
                    format!(
                        "{name} is answered {reply:?} at {position}; executed: {executed:?}, committed: {is_committed}"
                    ),
                ))
            }
        }
    }

    fn prepared(
        &mut self,
        replica: usize,
        view: View,
        of: View,
        op: OpNumber,
        checksum: Checksum,
    ) -> Result<(), Broken> {
        let primary = *self.primaries.entry(view).or_insert(replica);
        if primary != replica {
            let message = format!("r{replica} and r{primary} both prepare in view {view}");
            return Err(Broken::new("one-primary-per-view", message));
        }
        let content = *self.contents.entry((of, op)).or_insert(checksum);
        if content != checksum {
            let message = format!("op {op} of view {of} is {checksum}, it was {content} before");
            return Err(Broken::new("one-content-per-view-and-op", message));
        }
        Ok(())
    }

    fn commit(&mut self, op: OpNumber, checksum: Checksum) -> Result<(), Broken> {
        let committed = *self.committed.entry(op).or_insert(checksum);
        if committed == checksum {
            return Ok(());
        }
        let message = format!("op {op} is committed as {checksum}, it was committed as {committed} before");
        Err(Broken::new("committed-prefixes-agree", message))
    }

    /// Whatever was committed in a view stands in the log of every later one from its start.
    fn all_leaders_are_complete(&self) -> Result<(), Broken> {
        for (op, counted) in &self.counted {
            let committed = self.committed.get(op).copied();
            for (view, log) in self.started.range(counted.next()..) {
                let there = usize::try_from(op.0 - 1).ok().and_then(|at| log.get(at).copied());
                // A blank below its commit number is named by what stands above it.
                if there != Some(committed) && there != Some(None) {
                    let there = there.flatten();
                    let message = format!(
                        "op {op} was committed in view {counted} as {committed:?}, but view {view} began with {there:?}"
                    );
                    return Err(Broken::new("later-views-hold-what-is-committed", message));
                }
            }
        }
        Ok(())
    }
}

/// A request's name for people.
pub(super) fn name(request: u8) -> char {
    char::from(b'a' + request)
}
