//! Recorded histories in files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::edn::Edn;
use super::error::{HistoryError, Problem};
use super::jepsen::{Lines, Recorded, parse};
use super::{Keyed, Linearizability, Model, Operation, Register, SearchLimits, Text, check};

/// Checks the history in a file, within the default limits.
///
/// Understood are log lines of Jepsen's test of etcd, and events as EDN maps, one after the other
/// or all in one vector or list; the content tells which. The maps are of registers (`:read`, `:write`,
/// `:cas`; 0 at first, and a read of `nil` may have read anything) or of texts (`:get`, `:put`, `:append`;
/// empty at first), with a `:key` where there are several.
///
/// # Errors
///
/// The file cannot be read, or holds something else.
pub fn check_file(path: impl AsRef<Path>) -> Result<Linearizability, HistoryError> {
    let path = path.as_ref();
    let located = |(line, problem)| HistoryError { file: path.to_owned(), line, problem };
    let text = std::fs::read_to_string(path).map_err(|error| located((0, error.into())))?;
    check_text(&text, &SearchLimits::default()).map_err(located)
}

/// Checks the history in a text; as [`check_file`].
///
/// # Errors
///
/// The text is something else: the line, counted from 1 (0 is the text as a whole), and what is wrong there.
pub fn check_text(text: &str, limits: &SearchLimits) -> Result<Linearizability, (usize, Problem)> {
    let (recorded, lines) = parse(text)?;
    Ok(match recorded {
        Recorded::Texts(history) => check_lines(&Keyed::new(Text), &history, &lines, limits),
        Recorded::Registers(initial, history) if history.iter().all(|operation| operation.input.0 == Edn::Nil) => {
            let unnamed = |Operation { process, input, invoked, outcome }| {
                let (_, input): (Edn, _) = input;
                Operation { process, input, invoked, outcome }
            };
            let history: Vec<_> = history.into_iter().map(unnamed).collect();
            check_lines(&Register::new(initial), &history, &lines, limits)
        }
        Recorded::Registers(initial, history) => {
            check_lines(&Keyed::new(Register::new(initial)), &history, &lines, limits)
        }
    })
}

fn check_lines<M: Model>(
    model: &M,
    history: &[Operation<M::Input, M::Output>],
    lines: &Lines,
    limits: &SearchLimits,
) -> Linearizability {
    match check(model, history, limits) {
        Linearizability::NotLinearizable { operation, why } => {
            let at = match lines.get(operation) {
                Some((invoked, Some(completed))) => format!("lines {invoked} to {completed}: "),
                Some((invoked, None)) => format!("line {invoked}: "),
                None => String::new(),
            };
            Linearizability::NotLinearizable { operation, why: at + &why }
        }
        verdict => verdict,
    }
}

/// Checks files, and writes one line for each to `out`: `FILE: linearizable`, `FILE: not linearizable: WHY`
/// or `FILE: unknown: WHY`; for a file that cannot be understood, `FILE: error: WHY` to standard error. A reader of
/// `out` that has gone away is no failure.
///
/// Returns the exit code: 1 if a history is not linearizable, else 2 if a file cannot be
/// understood, else 7 if a verdict is unknown, else 0.
pub fn check_files(paths: &[PathBuf], out: &mut dyn Write) -> u8 {
    let (mut refuted, mut failed, mut unknown) = (false, false, false);
    for path in paths {
        let file = path.display();
        let line = match check_file(path) {
            Ok(Linearizability::Linearizable) => format!("{file}: linearizable"),
            Ok(Linearizability::NotLinearizable { why, .. }) => {
                refuted = true;
                format!("{file}: not linearizable: {why}")
            }
            Ok(Linearizability::Unknown { why }) => {
                unknown = true;
                format!("{file}: unknown: {why}")
            }
            Err(HistoryError { line, problem, .. }) => {
                failed = true;
                let at = if line == 0 { String::new() } else { format!("line {line}: ") };
                let _ = writeln!(io::stderr(), "{file}: error: {at}{problem}");
                continue;
            }
        };
        let _ = writeln!(out, "{line}");
    }
    match (refuted, failed, unknown) {
        (true, ..) => 1,
        (_, true, _) => 2,
        (_, _, true) => 7,
        _ => 0,
    }
}
