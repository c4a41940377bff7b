//! The same history, judged twice: by the positions that replies carry, and by a search that believes none of them.

use vsr::protocol::{OpNumber, Position, SessionId, Timestamp};
use vsr::{ApplyContext, QueryContext, StateMachine};

use super::cluster::Run;
use super::instrument::{Logged, Recorded};
use super::simulation::Simulation;
use crate::check::linearizability::{Asked, Heard};
use crate::history::{self, Model, Operation, SearchLimits};
use crate::report::Report;
use crate::workload::{Change, Registers, Replied};

/// A run whose history was also searched for an order.
#[derive(Debug)]
pub struct CrossCheck {
    /// The run, with the verdict of the positions.
    pub report: Report,
    /// The verdict of the search.
    pub searched: history::Linearizability,
    /// Operations in the history.
    pub operations: usize,
}

/// Runs a simulation of [`Registers`], and searches an order for what its clients saw.
#[must_use]
pub fn cross_check(simulation: Simulation<Registers>) -> CrossCheck {
    let run = Run::new(simulation);
    let recorder = run.recorder.clone();
    let report = run.run();
    let recorder = recorder.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let history: Vec<_> = recorder.history.iter().filter_map(operation).collect();
    let searched = history::check(&Registry, &history, &SearchLimits::default());
    CrossCheck { report, searched, operations: history.len() }
}

type Searched = Operation<Input, Output>;

/// What a client asked the registers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Input {
    Change(Change),
    Get(u8),
}

/// What it heard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Output {
    Reply(Replied),
    Answer(i64, u64),
}

/// What was certainly not executed does not belong to a history.
fn operation(recorded: &Recorded<Registers>) -> Option<Searched> {
    let (process, invoked, returned) = (recorded.client, recorded.invoked, recorded.returned);
    let input = match &recorded.asked {
        Asked::Command(Logged(_, change)) => Input::Change(change.clone()),
        Asked::Query(at) => Input::Get(*at),
    };
    match &recorded.heard {
        Heard::Reply(reply, _) => {
            Some(Operation::returned(process, input, invoked, Output::Reply(reply.clone()), returned))
        }
        Heard::Answer((value, changes), _) => {
            Some(Operation::returned(process, input, invoked, Output::Answer(*value, *changes), returned))
        }
        // A query without an answer says nothing.
        Heard::Unknown if matches!(input, Input::Get(_)) => None,
        Heard::Unknown => Some(Operation::unknown(process, input, invoked)),
        Heard::NotExecuted => None,
    }
}

/// [`Registers`] as an object of the search.
struct Registry;

impl Model for Registry {
    type Input = Input;
    type Output = Output;
    type State = Registers;
    type Key = ();

    fn key(&self, _: &Input) {}

    fn initial(&self, (): &()) -> Registers {
        Registers::default()
    }

    fn step(&self, state: &Registers, input: &Input, output: Option<&Output>) -> Option<Registers> {
        let mut after = state.clone();
        let here = match input {
            Input::Change(change) => {
                let context = ApplyContext::new(Position::default(), Timestamp(0), SessionId::default());
                Output::Reply(after.apply(&context, change.clone()))
            }
            Input::Get(at) => {
                let context = QueryContext::new(OpNumber::ZERO, Timestamp(0));
                let (value, changes) = state.query(&context, *at);
                Output::Answer(value, changes)
            }
        };
        output.is_none_or(|output| *output == here).then_some(after)
    }
}
