//! What is wrong with a file that is to hold a history.

use std::io;
use std::path::{Path, PathBuf};

/// A file that holds no history that can be understood.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", place(.file, *.line))]
pub struct HistoryError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; 0 is the file as a whole.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

fn place(file: &Path, line: usize) -> String {
    if line == 0 { file.display().to_string() } else { format!("{}:{line}", file.display()) }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It cannot be read, or is no text.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It has neither log lines of Jepsen nor maps.
    #[error("neither a log of Jepsen nor maps of events")]
    Unrecognised,
    /// It breaks the rules of the notation.
    #[error("{0}")]
    Syntax(String),
    /// Something else stands where an event should be.
    #[error("an event is a map, not {0}")]
    NoMap(String),
    /// An event lacks something.
    #[error("the event has no :{0}")]
    Missing(&'static str),
    /// A process that has neither a number nor a name.
    #[error("{0} is not a process")]
    Process(String),
    /// A type of event that does not exist.
    #[error("the type :{0} is none of :invoke, :ok, :fail and :info")]
    Kind(String),
    /// A function that is not known.
    #[error("the function :{0} is none of :read, :write, :cas, :get, :put and :append")]
    Function(String),
    /// The function has another kind of value.
    #[error("the value has to be {needed}, not {found}")]
    Value {
        /// The values that the function takes.
        needed: &'static str,
        /// The value in the file.
        found: String,
    },
    /// A process invokes an operation while another one is in flight.
    #[error("process {process} still has the operation in flight that it invoked in line {since}")]
    Busy {
        /// The number of the process.
        process: u64,
        /// The line in which the other operation was invoked, from 1.
        since: usize,
    },
    /// A completion without an invocation.
    #[error("process {process} completes what it did not invoke")]
    NotInvoked {
        /// The number of the process.
        process: u64,
    },
    /// A completion of something else than what was invoked.
    #[error("this completes something else than what line {invoked} invoked")]
    Mismatch {
        /// The line of the invocation, from 1.
        invoked: usize,
    },
    /// Functions of registers beside those of texts.
    #[error("one history has :read, :write and :cas, or :get, :put and :append, not both")]
    Mixed,
}
