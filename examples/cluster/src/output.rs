//! Output: results on standard output, and words for people on standard error. A reader that has gone does not cause a panic.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _, stderr, stdout};

use crate::exit;

/// Prints a line. When the reader has gone the program ends quietly, as others in a pipe do; when the output cannot be written it
/// says so, and ends.
pub fn say(line: impl Display) {
    let mut out = stdout().lock();
    let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) else { return };
    if error.kind() != ErrorKind::BrokenPipe {
        complain(format_args!("cannot write the output: {error}"));
        std::process::exit(exit::USAGE.into());
    }
    std::process::exit(exit::BROKEN_PIPE.into());
}

/// Prints a line. An output that is closed is no error: a replica goes on without a reader, and a command that has started processes
/// ends them before it ends itself.
pub(crate) fn tell(line: impl Display) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Says something to people, on standard error.
pub fn complain(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
