//! What the programs end with. A supervisor tells by it whether starting again can help.

use std::fmt;
use std::future::Future;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vsr::backup::BackupError;
use vsr::protocol::Halt;
use vsr::storage::StorageError;
use vsr::{QueryError, ReplicaError, SubmitError};
use vsr_net_tcp::{MetricsServerError, TcpError};

use crate::Error;
use crate::output::complain;

/// The answer is no: there is no such key, a demo has found something wrong, or an inspection damage that a replica repairs.
pub const NO: u8 = 1;
/// Command line, configuration or surroundings: change them first.
pub const USAGE: u8 = 2;
/// No replica has answered in time, there is no quorum, too much waits, or the log is full. Asking again may help.
pub const NO_ANSWER: u8 = 3;
/// The replica's disk or folder. The message says whether it can be used again.
pub const STORAGE: u8 = 4;
/// The replica has stopped because going on could spread damage. Starting it again does not help.
pub const FAULT: u8 = 5;
/// Peers refuse the replica, or know that its folder is old, a copy, or another one's.
pub const REFUSED: u8 = 6;
/// The network: a port that is taken, most likely by another process, or a name that is not known.
pub const NETWORK: u8 = 7;
/// The reader of the output has gone: as a shell shows it of a program that was ended by SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;
/// A signal has ended the program: 128 and its number, as a shell shows it.
pub(crate) const SIGNAL: u8 = 128;

/// An error whose exit code is known.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) words: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Failure {}

pub(crate) fn failure(code: u8, words: impl Into<String>) -> Error {
    Failure { code, words: words.into() }.into()
}

/// Whether the disk, or the file, has to be another one.
fn is_of_the_storage(error: &BackupError) -> bool {
    !matches!(
        error,
        BackupError::SameCluster(_) | BackupError::Exists(_) | BackupError::OtherLimits | BackupError::Empty
    )
}

/// The exit code for an error.
fn code_of(error: &Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.code;
    }
    match error.downcast_ref::<ReplicaError>() {
        Some(ReplicaError::Storage(_)) => return STORAGE,
        Some(ReplicaError::Halt(halt)) => return if is_of_the_disk(halt) { REFUSED } else { FAULT },
        Some(ReplicaError::Network(_)) => return NETWORK,
        _ => {}
    }
    use SubmitError::{Busy, Evicted, LogFull, Stopped, TimedOut};
    let submitted = error.downcast_ref::<SubmitError>();
    let asked = error.downcast_ref::<QueryError>();
    let again = matches!(submitted, Some(TimedOut | LogFull | Evicted | Stopped | Busy))
        || matches!(asked, Some(QueryError::TimedOut | QueryError::Stopped | QueryError::Busy));
    if again {
        NO_ANSWER
    } else if error.downcast_ref::<StorageError>().is_some_and(|error| !matches!(error, StorageError::Config(_)))
        || error.downcast_ref::<BackupError>().is_some_and(is_of_the_storage)
    {
        STORAGE
    } else if error.is::<MetricsServerError>() || error.downcast_ref::<TcpError>().is_some_and(is_of_the_network) {
        NETWORK
    } else {
        USAGE
    }
}

/// Whether peers know more of the replica than its disk does, or an earlier start was told so.
fn is_of_the_disk(halt: &Halt) -> bool {
    use Halt::{OldDisk, OlderDisk, OlderStart, OtherDisk};
    matches!(halt, OtherDisk { .. } | OlderStart { .. } | OlderDisk { .. } | OldDisk { .. })
}

/// Whether it may pass without a change of the configuration.
fn is_of_the_network(error: &TcpError) -> bool {
    matches!(error, TcpError::Listen { .. } | TcpError::Address { .. })
}

/// What a program's `main` ends with: an error is told on standard error.
pub fn exit_code(program: &str, result: Result<ExitCode, Error>) -> ExitCode {
    result.unwrap_or_else(|error| {
        complain(format_args!("{program}: {error}"));
        ExitCode::from(code_of(&error))
    })
}

/// Runs a program: a runtime around its future, and its exit code.
pub fn main<F: Future<Output = Result<ExitCode, Error>>>(program: &str, run: impl FnOnce() -> F) -> ExitCode {
    exit_code(program, in_runtime(run))
}

fn in_runtime<F: Future<Output = Result<ExitCode, Error>>>(run: impl FnOnce() -> F) -> Result<ExitCode, Error> {
    raise_file_limit()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let result = runtime.block_on(async { run().await });
    // A look-up of a name may hang for long; its result is not needed any more.
    runtime.shutdown_background();
    result
}

/// Files and connections without which nothing works; with fewer the runtime itself cannot be made, and panics.
const FILES_MIN: u64 = 64;

/// The limit of open files as high as it may be: each client is a connection.
fn raise_file_limit() -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where it is not allowed the limit stays what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < FILES_MIN => Err(failure(
            USAGE,
            format!(
                "only {files} files may be open (ulimit -n): a replica needs {FILES_MIN} and one for each client; raise the limit"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use vsr::protocol::{DiskId, OpNumber};
    use vsr::{ConfigError, ReplicaId};

    use super::*;

    /// A supervisor decides by the code: start again, ask again, or call an operator.
    #[test]
    fn each_error_has_the_code_that_the_book_says() {
        let io = || std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let address = ([127, 0, 0, 1], 1).into();
        let by = ReplicaId(0);
        let older = Halt::OlderDisk { by, acknowledged: OpNumber(2), head: OpNumber(1) };
        let unfit = ConfigError::NotAMember { replica: ReplicaId(3), members: 3 };
        let cases: Vec<(Error, u8)> = vec![
            (SubmitError::TimedOut.into(), NO_ANSWER),
            (SubmitError::LogFull.into(), NO_ANSWER),
            (SubmitError::Evicted.into(), NO_ANSWER),
            (SubmitError::Busy.into(), NO_ANSWER),
            (SubmitError::TooLarge.into(), USAGE),
            (SubmitError::Undecodable.into(), USAGE),
            (QueryError::TimedOut.into(), NO_ANSWER),
            (QueryError::Busy.into(), NO_ANSWER),
            (QueryError::AnswerTooLarge.into(), USAGE),
            (StorageError::InUse("data".to_owned()).into(), STORAGE),
            (ReplicaError::Storage(StorageError::StateLost("data".to_owned())).into(), STORAGE),
            (ReplicaError::Halt(Halt::UnknownKind { op: OpNumber(1) }).into(), FAULT),
            (ReplicaError::Halt(Halt::OlderStart { by, known: 3, own: 2 }).into(), REFUSED),
            (ReplicaError::Halt(older).into(), REFUSED),
            (ReplicaError::Halt(Halt::OldDisk { heard: 3, acknowledged: OpNumber(2) }).into(), REFUSED),
            (ReplicaError::Halt(Halt::OtherDisk { by, known: DiskId(1), own: DiskId(2) }).into(), REFUSED),
            (StorageError::Config(unfit.clone()).into(), USAGE),
            (ReplicaError::MembershipDiffers.into(), USAGE),
            (TcpError::Listen { address, error: io() }.into(), NETWORK),
            (TcpError::NotLoopback(address).into(), USAGE),
            (MetricsServerError::Listen { address, error: io() }.into(), NETWORK),
            (unfit.into(), USAGE),
            (failure(REFUSED, "its peers refuse it"), REFUSED),
            ("something".into(), USAGE),
        ];
        for (error, code) in cases {
            assert_eq!(code_of(&error), code, "{error}");
        }
    }
}
