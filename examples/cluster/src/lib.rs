//! What the example clusters share, so that each of them is little more than its state machine: the
//! configuration file, a replica as a process, a client, and a demo that kills processes and checks what
//! clients saw.

mod ask;
mod backup;
mod cli;
mod config;
mod demo;
pub mod exit;
mod faults;
mod inspect;
mod output;
mod processes;
mod serve;

pub use ask::{Asker, Target};
pub use cli::{Command, run};
pub use config::{ClusterConfig, StorageKind};
pub use demo::{DemoOptions, Harm, Summary};
pub use exit::main;
pub use faults::{Case, CaseOptions, CheckpointCase};
pub use inspect::InspectOptions;
pub use output::{complain, say};
pub use serve::{connect, connect_to};

use vsr::StateMachine;
use vsr::protocol::Random;
use vsr_sim::{Simulated, Step};

/// Whatever went wrong, for people.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// An application of these examples.
pub trait App: Send + Sync + 'static {
    /// Its state machine.
    type Machine: Simulated + Default;

    /// What a client of the demo does next.
    fn step(
        random: &mut Random,
    ) -> Step<<Self::Machine as StateMachine>::Command, <Self::Machine as StateMachine>::Query>;

    /// Stores so many bytes at one of many places; `None` where no state is large.
    fn store(_place: u64, _bytes: usize) -> Option<<Self::Machine as StateMachine>::Command> {
        None
    }

    /// Asks how many commands of the demo are in the state.
    fn count_query() -> <Self::Machine as StateMachine>::Query;

    /// Reads the answer to that.
    fn count(answer: &<Self::Machine as StateMachine>::Answer) -> u64;
}
