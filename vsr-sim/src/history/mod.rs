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
//! use vsr_sim::history::{Linearizability, Model, Operation, SearchLimits, check};
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
//! assert_eq!(check(&Counter, &history, &SearchLimits::default()), Linearizability::Linearizable);
//!
//! // After that, no addition can give 2.
//! history.push(Operation::returned(3, 1, 40, 2, 50));
//! let Linearizability::NotLinearizable { operation, why } = check(&Counter, &history, &SearchLimits::default()) else {
//!     panic!("a sum became smaller");
//! };
//! assert_eq!(operation, 2);
//! assert_eq!(why, "process 3: 1 -> 2 fits nowhere; up to it the history has an order, with 1 of 2 operations");
//! ```
//!
//! # Objects that the field records
//!
//! ```
//! use vsr_sim::history::{Keyed, Linearizability, Operation, Register, RegisterInput, RegisterOutput, SearchLimits, check};
//!
//! // Any number of registers, each with a name, all of them 0 at first.
//! let model = Keyed::<&str, _>::new(Register::new(0));
//! let history = [
//!     Operation::returned(1, ("x", RegisterInput::Write(7)), 0, RegisterOutput::Done, 10),
//!     Operation::returned(2, ("x", RegisterInput::Read), 20, RegisterOutput::Value(7), 30),
//!     Operation::returned(2, ("y", RegisterInput::Read), 40, RegisterOutput::Value(0), 50),
//! ];
//! assert_eq!(check(&model, &history, &SearchLimits::default()), Linearizability::Linearizable);
//! ```

mod edn;
mod error;
mod files;
mod jepsen;
mod layout;
mod memo;
mod models;
mod part;
mod search;
mod texts;

use std::fmt::Debug;
use std::hash::Hash;

pub use error::{HistoryError, Problem};
pub use files::{check_file, check_files, check_text};
pub use models::{Keyed, Register, RegisterInput, RegisterOutput, Text};
pub use part::check;
pub use texts::{TextInput, TextOutput};

/// What the object under test does when it does one thing at a time.
///
/// The first three methods are enough. The others have defaults that are always right; they make the search
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

    /// What [`Model::step`] does with an operation, whatever the state is.
    fn effect(&self, _input: &Self::Input, _output: Option<&Self::Output>) -> Effect<Self::State> {
        Effect::Other
    }

    /// False if operations whose effect is [`Effect::Other`] cannot lead from one state to the other, in any
    /// number and order. True if the states are equal.
    fn leads(&self, _from: &Self::State, _to: &Self::State) -> bool {
        true
    }

    /// Other words for all operations of a part, where numbers stand for its states. With them the part has to be
    /// linearizable exactly if it was before. At first the state is 0. None if there are no such words;
    /// [`Effect::Other`] is none.
    fn rephrase(&self, _operations: &[(&Self::Input, Option<&Self::Output>)]) -> Option<Vec<Effect<u32>>> {
        None
    }

    /// The bytes that a state holds on the heap, for [`SearchLimits::bytes`].
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

/// What an operation does, whatever the state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect<S> {
    /// It leaves every state as it was. If it is possible in one state only: in that one.
    Reads(Option<S>),
    /// It is possible in every state, and leads to this one.
    Replaces(S),
    /// It leads from the first state to the second. In any other it is impossible or, if its outcome is unknown,
    /// changes nothing.
    Moves(S, S),
    /// Anything else.
    Other,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion<O> {
    /// It was answered.
    Returned {
        /// The answer.
        output: O,
        /// The moment of the answer, in the unit of [`Operation::invoked`], and not before that.
        at: u64,
    },
    /// It may have taken effect at any time after its invocation, or never.
    Unknown,
}

/// One operation of a client. One that certainly had no effect and told nothing does not belong in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<I, O> {
    /// The number of the client, for messages only.
    pub process: u64,
    /// What was asked.
    pub input: I,
    /// The moment of the call, in any unit that all operations share. What returns at the moment at which
    /// another is invoked counts as concurrent with it.
    pub invoked: u64,
    /// How it ended.
    pub outcome: Completion<O>,
}

impl<I, O> Operation<I, O> {
    /// An operation that was invoked at one time and answered at another.
    pub fn returned(process: u64, input: I, invoked: u64, output: O, at: u64) -> Operation<I, O> {
        Operation { process, input, invoked, outcome: Completion::Returned { output, at } }
    }

    /// An operation whose outcome is unknown.
    pub fn unknown(process: u64, input: I, invoked: u64) -> Operation<I, O> {
        Operation { process, input, invoked, outcome: Completion::Unknown }
    }
}

/// The limits at which the search gives up. Both are for a whole history, so that the verdict is the same on
/// every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchLimits {
    /// How much may be tried: roughly the calls of [`Model::step`]. Default 10 million, which
    /// take about half a second with a small model.
    pub steps: u64,
    /// Bytes that the memory of what has been tried may take. Default 100 MiB.
    pub bytes: usize,
}

impl Default for SearchLimits {
    fn default() -> SearchLimits {
        SearchLimits { steps: 10_000_000, bytes: 100 << 20 }
    }
}

/// What can be said of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linearizability {
    /// Its operations could have happened one at a time.
    Linearizable,
    /// No order of its operations explains what was answered.
    NotLinearizable {
        /// The operation, counted from 0, that no order reaches: each fails at it or before.
        operation: usize,
        /// One sentence that names it.
        why: String,
    },
    /// The search gave up.
    Unknown {
        /// The limit at which it gave up, and how far it had come.
        why: String,
    },
}
