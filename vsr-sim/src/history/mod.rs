//! Whether a recorded history is linearizable: could its operations have happened one at a time, each at
//! some moment between its invocation and its return?
//!
//! [`check`] answers for any object that has a [`Model`]. It looks only at what clients saw, so it judges a
//! system without trusting anything that the system says of itself. [`check_file`] reads the formats in
//! which the field records histories.
//!
//! The search is that of Wing and Gong with Lowe's improvements: it places one operation after the other,
//! remembers which situations led nowhere, and looks at each key on its own. Operations whose outcome is
//! unknown may have taken effect at any time after their invocation, or never.
//!
//! # Your own object
//!
//! ```
//! use vsr_sim::history::{Limits, Model, Operation, Verdict, check};
//!
//! /// A counter that clients add to; the answer is the sum.
//! struct Counter;
//!
//! impl Model for Counter {
//!     type Input = u64;
//!     type Output = u64;
//!     type State = u64;
//!     type Key = ();
//!
//!     fn key(&self, _: &u64) {}
//!
//!     fn initial(&self, _: &()) -> u64 {
//!         0
//!     }
//!
//!     fn step(&self, sum: &u64, add: &u64, answer: Option<&u64>) -> Option<u64> {
//!         let sum = sum + add;
//!         answer.is_none_or(|answer| *answer == sum).then_some(sum)
//!     }
//! }
//!
//! // Process 1 adds 5 and never hears whether that was done. Process 2 adds 1 at time 20 and is told at
//! // time 30 that the sum is 6: so it was.
//! let mut history = vec![Operation::unknown(1, 5, 10), Operation::returned(2, 1, 20, 6, 30)];
//! assert_eq!(check(&Counter, &history, &Limits::default()), Verdict::Linearizable);
//!
//! // After that, no addition can give 2.
//! history.push(Operation::returned(3, 1, 40, 2, 50));
//! let Verdict::NotLinearizable { operation, why } = check(&Counter, &history, &Limits::default()) else {
//!     panic!("a sum became smaller");
//! };
//! assert_eq!(operation, 2);
//! assert_eq!(why, "process 3: 1 -> 2 fits nowhere, after 1 of 2 operations that can be ordered");
//! ```
//!
//! # Objects that the field records
//!
//! ```
//! use vsr_sim::history::{Keyed, Limits, Operation, Register, RegisterInput, RegisterOutput, Verdict, check};
//!
//! // Any number of registers, each with a name, all of them 0 at first.
//! let model = Keyed::<&str, _>::new(Register::new(0));
//! let history = [
//!     Operation::returned(1, ("x", RegisterInput::Write(7)), 0, RegisterOutput::Done, 10),
//!     Operation::returned(2, ("x", RegisterInput::Read), 20, RegisterOutput::Value(7), 30),
//!     Operation::returned(2, ("y", RegisterInput::Read), 40, RegisterOutput::Value(0), 50),
//! ];
//! assert_eq!(check(&model, &history, &Limits::default()), Verdict::Linearizable);
//! ```

mod edn;
mod files;
mod jepsen;
mod memo;
mod models;
mod plan;
mod search;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;

pub use files::{HistoryError, Problem, check_file, check_files, check_text};
pub use models::{Keyed, Register, RegisterInput, RegisterOutput, Text, TextInput, TextOutput};

use plan::Plan;
use search::{Conclusion, Search};

/// What the object under test does when it does one thing at a time.
///
/// The first four methods are enough. The others have defaults that are always right; they make the search
/// faster, and must keep to what is said of each, or the verdict is wrong.
pub trait Model {
    /// What a client asked for.
    type Input: Eq + Hash + Debug;
    /// What it was answered.
    type Output: Eq + Hash + Debug;
    /// What the object holds.
    type State: Clone + Eq + Hash;
    /// The name of an independent part of the object. `()` if it has no parts.
    type Key: Ord + Debug;

    /// The part that an operation touches. A history is linearizable if that of every part is.
    fn key(&self, input: &Self::Input) -> Self::Key;

    /// What a part holds before the first operation.
    fn initial(&self, key: &Self::Key) -> Self::State;

    /// Does an operation: the state after it, or `None` if it cannot have this output in this state.
    /// Without an output the outcome is unknown, and any is right.
    fn step(&self, state: &Self::State, input: &Self::Input, output: Option<&Self::Output>) -> Option<Self::State>;

    /// True if the operation leaves every state as it was. Such an operation is placed at the first
    /// moment at which it fits, and left out if its outcome is unknown.
    fn only_reads(&self, _input: &Self::Input, _output: Option<&Self::Output>) -> bool {
        false
    }

    /// The only state in which an operation can have this output, if there is only one.
    fn needs(&self, _input: &Self::Input, _output: &Self::Output) -> Option<Self::State> {
        None
    }

    /// The only state that an operation can lead to from another state, if there is only one.
    fn makes(&self, _input: &Self::Input, _output: Option<&Self::Output>) -> Option<Self::State> {
        None
    }

    /// False if the operations for which [`Model::makes`] knows no state cannot lead from one state to the
    /// other, in any number and order. True if the states are equal.
    fn leads(&self, _from: &Self::State, _to: &Self::State) -> bool {
        true
    }

    /// The bytes that a state holds on the heap, for [`Limits::bytes`].
    fn heap_bytes(&self, _state: &Self::State) -> usize {
        0
    }

    /// An operation as a person reads it.
    fn describe(&self, input: &Self::Input, output: Option<&Self::Output>) -> String {
        match output {
            Some(output) => format!("{input:?} -> {output:?}"),
            None => format!("{input:?}"),
        }
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<O> {
    /// It was answered.
    Returned {
        /// What.
        output: O,
        /// When, in the unit of [`Operation::invoked`]. Not before that.
        at: u64,
    },
    /// It may have taken effect at any time after its invocation, or never.
    Unknown,
}

/// One operation of a client. One that certainly had no effect and told nothing does not belong in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<I, O> {
    /// Who, for messages only.
    pub process: u64,
    /// What was asked.
    pub input: I,
    /// When it was asked, in any unit that all operations share. What returns at the moment at which
    /// another is invoked counts as concurrent with it.
    pub invoked: u64,
    /// How it ended.
    pub outcome: Outcome<O>,
}

impl<I, O> Operation<I, O> {
    /// An operation that was invoked at one time and answered at another.
    pub fn returned(process: u64, input: I, invoked: u64, output: O, at: u64) -> Operation<I, O> {
        Operation { process, input, invoked, outcome: Outcome::Returned { output, at } }
    }

    /// An operation whose outcome nobody knows.
    pub fn unknown(process: u64, input: I, invoked: u64) -> Operation<I, O> {
        Operation { process, input, invoked, outcome: Outcome::Unknown }
    }
}

/// Where the search gives up. Both limits are for a whole history, so that the verdict is the same on
/// every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How much may be tried: roughly the calls of [`Model::step`]. Default 10 million, which
    /// take about half a second with a small model.
    pub steps: u64,
    /// Bytes that the memory of what has been tried may take. Default 100 MiB.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { steps: 10_000_000, bytes: 100 << 20 }
    }
}

/// What can be said of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its operations could have happened one at a time.
    Linearizable,
    /// They could not.
    NotLinearizable {
        /// The operation, counted from 0, that no order reaches: each fails at it or before.
        operation: usize,
        /// One sentence that names it.
        why: String,
    },
    /// The search gave up.
    Unknown {
        /// At which limit, and how far it got.
        why: String,
    },
}

/// Checks a history against a model. The operations may stand in any order.
#[must_use]
pub fn check<M: Model>(model: &M, history: &[Operation<M::Input, M::Output>], limits: &Limits) -> Verdict {
    let mut parts: BTreeMap<M::Key, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.iter().enumerate() {
        parts.entry(model.key(&operation.input)).or_default().push(index);
    }
    // The small ones first: what they leave of the budget goes to the large ones.
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by_key(|(_, part)| part.len());
    let (mut left, mut spent) = (limits.steps, None);
    for (index, (key, part)) in parts.iter().enumerate() {
        let mut part = Part { model, history, part, key, limits: Limits { steps: 0, ..*limits } };
        let share = left / (parts.len() - index) as u64;
        part.limits.steps = share;
        match part.verdict() {
            Verdict::Linearizable => {}
            Verdict::Unknown { why } => spent = Some(why),
            refuted => return refuted,
        }
        left -= share - part.limits.steps;
    }
    spent.map_or(Verdict::Linearizable, |why| Verdict::Unknown { why })
}

/// One independent part of a history, and what is left of its budget.
struct Part<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Input, M::Output>],
    part: &'a [usize],
    key: &'a M::Key,
    limits: Limits,
}

impl<M: Model> Part<'_, M> {
    fn verdict(&mut self) -> Verdict {
        let plan = Plan::new(self.model, self.history, self.part, usize::MAX);
        let total = plan.known.len();
        match self.search(&plan) {
            Conclusion::Linearizable => Verdict::Linearizable,
            Conclusion::Spent { limit, placed } => Verdict::Unknown {
                why: format!("gave up at the limit of {limit}: {placed} of {total} operations with a known outcome were ordered"),
            },
            Conclusion::Stuck { reached } => {
                let (last, exact) = self.shortest(reached, total);
                let operation = plan.known[last].origin;
                let Operation { process, input, outcome, .. } = &self.history[operation];
                let output = match outcome {
                    Outcome::Returned { output, .. } => Some(output),
                    Outcome::Unknown => None,
                };
                let name = self.model.describe(input, output);
                let why = if exact {
                    format!("process {process}: {name} fits nowhere, after {last} of {total} operations that can be ordered")
                } else {
                    format!("process {process}: {name} is beyond what can be ordered of {total} operations")
                };
                Verdict::NotLinearizable { operation, why }
            }
        }
    }

    fn search(&mut self, plan: &Plan<'_, M>) -> Conclusion {
        let (conclusion, steps) = Search::new(self.model, plan, self.model.initial(self.key)).run(&self.limits);
        self.limits.steps = self.limits.steps.saturating_sub(steps);
        conclusion
    }

    /// The operation with whose return a history that is not linearizable ceases to be, counted by returns.
    /// False if the budget does not suffice to be sure.
    fn shortest(&mut self, guess: usize, total: usize) -> (usize, bool) {
        // The first `good` returns can be explained, the first `bad` cannot.
        let (mut good, mut bad) = (0, total);
        let mut next = guess;
        while bad - good > 1 {
            let middle = next.clamp(good + 1, bad - 1);
            match self.search(&Plan::new(self.model, self.history, self.part, middle)) {
                Conclusion::Linearizable => good = middle,
                Conclusion::Stuck { .. } => bad = middle,
                Conclusion::Spent { .. } => return (guess, false),
            }
            // The guess is mostly right, which takes two searches.
            next = if middle == guess { guess + 1 } else { good.midpoint(bad) };
        }
        (good, true)
    }
}
