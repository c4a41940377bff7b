//! Whether what clients saw could have happened in one order (hazard I16).
//!
//! Every reply says at which position its command was executed, and every answer which ops it contains.
//! That is a complete witness, so no search is needed: the order must agree with real time, and the
//! answers with a model that executes the commands in that order.

use std::collections::BTreeMap;
use std::fmt::Debug;

use vsr::protocol::{OpNumber, Position};
use vsr::{ApplyContext, QueryContext, StateMachine};

use crate::workload::Simulated;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<C, Q> {
    /// A command.
    Command(C),
    /// A query.
    Query(Q),
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<R, A> {
    /// The reply, and where the command was executed.
    Reply(R, Position),
    /// The answer, and the last op that it contains.
    Answer(A, OpNumber),
    /// Nothing, or that the outcome is unknown.
    Unknown,
    /// That it was certainly not executed.
    NotExecuted,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<C, R, Q, A> {
    /// The client; handles have numbers of their own.
    pub client: u64,
    /// The moment of the call, in any unit that all calls share.
    pub invoked: u64,
    /// The moment of the answer, in the same unit; without meaning for an unknown outcome.
    pub returned: u64,
    /// What was asked.
    pub asked: Asked<C, Q>,
    /// What the client was told.
    pub heard: Heard<R, A>,
}

/// A state machine as the checker replays it.
pub trait ReferenceModel<C, R, Q, A> {
    /// Executes a command.
    fn apply(&mut self, command: &C) -> R;
    /// Answers a query.
    fn query(&self, query: &Q) -> A;
}

/// What a history lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotLinearizable(pub String);

/// Checks that the positions agree with real time: whatever had returned before an operation was
/// invoked comes before it.
///
/// # Errors
/// The first pair of operations that contradict each other.
pub fn check_real_time<C: Debug, R: Debug, Q: Debug, A: Debug>(
    history: &[Call<C, R, Q, A>],
) -> Result<(), NotLinearizable> {
    // The place in the order: a query comes after every command of the last op that it contains.
    let place = |operation: &Call<C, R, Q, A>| match &operation.heard {
        Heard::Reply(_, position) => Some((position.op, position.index)),
        Heard::Answer(_, op) => Some((*op, u32::MAX)),
        _ => None,
    };
    let mut by_return: Vec<_> = history.iter().filter_map(|op| Some((op.returned, place(op)?, op))).collect();
    by_return.sort_by_key(|(returned, ..)| *returned);
    let mut by_invocation: Vec<_> = history.iter().filter_map(|op| Some((op.invoked, place(op)?, op))).collect();
    by_invocation.sort_by_key(|(invoked, ..)| *invoked);
    let mut returned = by_return.into_iter().peekable();
    type Latest<'a, C, R, Q, A> = Option<((OpNumber, u32), &'a Call<C, R, Q, A>)>;
    let mut latest: Latest<'_, C, R, Q, A> = None;
    for (invoked, at, operation) in by_invocation {
        while let Some((_, place, earlier)) = returned.next_if(|(when, ..)| *when < invoked) {
            if latest.is_none_or(|(newest, _)| place > newest) {
                latest = Some((place, earlier));
            }
        }
        let query = matches!(operation.asked, Asked::Query(_));
        if let Some((before, earlier)) = latest
            && (at < before || (at == before && !query))
        {
            return Err(NotLinearizable(format!(
                "{} was asked after {} had returned, and comes before it in the log",
                in_words(operation),
                in_words(earlier)
            )));
        }
    }
    Ok(())
}

/// An operation as a person would tell of it.
fn in_words<C: Debug, R: Debug, Q: Debug, A: Debug>(operation: &Call<C, R, Q, A>) -> String {
    let asked = match &operation.asked {
        Asked::Command(command) => format!("{command:?}"),
        Asked::Query(query) => format!("{query:?}?"),
    };
    let heard = match &operation.heard {
        Heard::Reply(reply, position) => format!("{reply:?} at {position}"),
        Heard::Answer(answer, op) => format!("{answer:?} as of op {op}"),
        Heard::Unknown => "nothing".to_owned(),
        Heard::NotExecuted => "that it is not executed".to_owned(),
    };
    let Call { client, invoked, returned, .. } = operation;
    format!("{asked} of client {client} (asked at {invoked}, heard {heard} at {returned})")
}

/// Checks replies and answers against a model that executes the commands in log order. `executed` are
/// all commands of the log, in order: also those whose clients heard nothing.
///
/// # Errors
/// The first reply or answer that the model does not give.
pub fn check_model<C: Debug, R: Debug + PartialEq, Q: Debug, A: Debug + PartialEq>(
    history: &[Call<C, R, Q, A>],
    executed: &[(Position, C)],
    model: &mut dyn ReferenceModel<C, R, Q, A>,
) -> Result<(), NotLinearizable> {
    let mut replies: Vec<(Position, &R)> = Vec::new();
    let mut answers: Vec<(OpNumber, &Q, &A)> = Vec::new();
    for operation in history {
        match (&operation.asked, &operation.heard) {
            (Asked::Command(_), Heard::Reply(reply, position)) => replies.push((*position, reply)),
            (Asked::Query(query), Heard::Answer(answer, op)) => answers.push((*op, query, answer)),
            _ => {}
        }
    }
    replies.sort_by_key(|(position, _)| *position);
    answers.sort_by_key(|(op, ..)| *op);
    let (mut replies, mut answers) = (replies.into_iter().peekable(), answers.into_iter().peekable());
    let mut answer_up_to = |op: OpNumber, model: &dyn ReferenceModel<C, R, Q, A>| {
        while let Some((at, query, answer)) = answers.next_if(|(at, ..)| *at < op) {
            let expected = model.query(query);
            if expected != *answer {
                return Err(NotLinearizable(format!(
                    "{query:?} was answered {answer:?} at op {at}, the model says {expected:?}"
                )));
            }
        }
        Ok(())
    };
    for (position, command) in executed {
        answer_up_to(position.op, model)?;
        let expected = model.apply(command);
        while let Some((at, reply)) = replies.next_if(|(at, _)| at <= position) {
            if at != *position || *reply != expected {
                return Err(NotLinearizable(format!(
                    "{command:?} at {position} was answered {reply:?} (at {at}), the model says {expected:?}"
                )));
            }
        }
    }
    if let Some((at, reply)) = replies.next() {
        return Err(NotLinearizable(format!("{reply:?} was acknowledged at {at}, which was never executed")));
    }
    answer_up_to(OpNumber(u64::MAX), model)
}

/// A history in which every command was answered, with the state machine as its own model.
pub type HistoryOf<S> = Vec<
    Call<
        <S as StateMachine>::Command,
        <S as StateMachine>::Reply,
        <S as StateMachine>::Query,
        <S as StateMachine>::Answer,
    >,
>;

/// Checks the history of a run outside the simulator: positions against real time, replies and answers
/// against the state machine, executed from its first state. Every command of the log must be in the history,
/// with its reply.
///
/// # Errors
/// The first thing that does not fit.
pub fn check_history<S: Simulated>(history: &HistoryOf<S>, machine: S) -> Result<(), NotLinearizable> {
    let mut executed: BTreeMap<Position, S::Command> = BTreeMap::new();
    for operation in history {
        match (&operation.asked, &operation.heard) {
            (Asked::Command(command), Heard::Reply(_, position)) => {
                if executed.insert(*position, command.clone()).is_some() {
                    return Err(NotLinearizable(format!("two commands were executed at {position}")));
                }
            }
            (Asked::Command(command), _) => {
                return Err(NotLinearizable(format!("the outcome of {command:?} is not known")));
            }
            (Asked::Query(_), _) => {}
        }
    }
    check_real_time(history)?;
    let executed: Vec<(Position, S::Command)> = executed.into_iter().collect();
    check_model(history, &executed, &mut OwnModel(machine))
}

struct OwnModel<S>(S);

impl<S: Simulated> ReferenceModel<S::Command, S::Reply, S::Query, S::Answer> for OwnModel<S> {
    fn apply(&mut self, command: &S::Command) -> S::Reply {
        let (position, session) = (Position::default(), vsr::protocol::SessionId::default());
        let context = ApplyContext::new(position, vsr::protocol::Timestamp(0), session);
        self.0.apply(&context, command.clone())
    }

    fn query(&self, query: &S::Query) -> S::Answer {
        let context = QueryContext::new(OpNumber::ZERO, vsr::protocol::Timestamp(0));
        self.0.query(&context, query.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Op = Call<i64, i64, (), i64>;

    struct Sum(i64);
    impl ReferenceModel<i64, i64, (), i64> for Sum {
        fn apply(&mut self, n: &i64) -> i64 {
            self.0 += n;
            self.0
        }
        fn query(&self, (): &()) -> i64 {
            self.0
        }
    }

    fn at(op: u64, index: u32) -> Position {
        Position { op: OpNumber(op), index }
    }

    fn add(invoked: u64, returned: u64, n: i64, reply: i64, op: u64) -> Op {
        Call { client: 1, invoked, returned, asked: Asked::Command(n), heard: Heard::Reply(reply, at(op, 0)) }
    }

    fn get(invoked: u64, returned: u64, answer: i64, op: u64) -> Op {
        Call { client: 2, invoked, returned, asked: Asked::Query(()), heard: Heard::Answer(answer, OpNumber(op)) }
    }

    #[test]
    fn an_order_that_agrees_with_real_time_passes() {
        let history = [add(1, 4, 5, 5, 1), add(2, 3, 1, 6, 2), get(5, 6, 6, 2), get(5, 6, 6, 2)];
        check_real_time(&history).unwrap();
        check_model(&history, &[(at(1, 0), 5), (at(2, 0), 1)], &mut Sum(0)).unwrap();
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [add(1, 2, 5, 5, 1), get(3, 4, 0, 0)];
        assert!(check_real_time(&history).is_err());
    }

    #[test]
    fn a_later_command_that_comes_earlier_is_found() {
        assert!(check_real_time(&[add(1, 2, 5, 6, 2), add(3, 4, 1, 1, 1)]).is_err());
        assert!(check_real_time(&[get(1, 2, 1, 1), add(3, 4, 1, 1, 1)]).is_err());
    }

    #[test]
    fn wrong_replies_answers_and_phantoms_are_found() {
        let executed = [(at(1, 0), 5)];
        assert!(check_model(&[add(1, 2, 5, 7, 1)], &executed, &mut Sum(0)).is_err());
        assert!(check_model(&[get(1, 2, 4, 1)], &executed, &mut Sum(0)).is_err());
        assert!(check_model(&[get(1, 2, 5, 0)], &executed, &mut Sum(0)).is_err());
        assert!(check_model(&[add(1, 2, 5, 5, 2)], &executed, &mut Sum(0)).is_err());
    }
}
