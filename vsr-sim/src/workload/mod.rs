//! What a simulated cluster is asked to do: a state machine, and the steps of its clients.

mod registers;

use std::fmt::Debug;
use std::sync::Arc;

use vsr::StateMachine;
use vsr::protocol::Random;

pub use registers::{Change, Registers, Replied};

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

/// Draws the next step of a client; it is told how many queries, in percent, the options want.
pub(crate) type Workload<S> =
    Arc<dyn Fn(&mut Random, u64) -> Step<<S as StateMachine>::Command, <S as StateMachine>::Query> + Send + Sync>;

/// The name of a state machine in scenario files: that of its type, without its path.
pub(crate) fn machine_name<S>() -> String {
    let full = std::any::type_name::<S>();
    let plain = full.split('<').next().unwrap_or(full);
    plain.rsplit("::").next().unwrap_or(plain).to_owned()
}
