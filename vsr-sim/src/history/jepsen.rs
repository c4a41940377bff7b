//! Recorded histories, as Jepsen and the checkers around it write them.

use std::collections::BTreeMap;

use super::edn::{Edn, Reader, SyntaxError};
use super::error::Problem;
use super::{Operation, RegisterInput, RegisterOutput, TextInput, TextOutput};

/// A problem and its line, counted from 1; line 0 is the file as a whole.
pub(super) type Located = (usize, Problem);

impl From<SyntaxError> for Problem {
    fn from(error: SyntaxError) -> Problem {
        Problem::Syntax(error.message)
    }
}

/// The operations of a file. The first part of an input is the name of the object, `nil` if it has none.
#[derive(Debug)]
pub(super) enum Recorded {
    /// Registers, and the value that they hold at first.
    Registers(Edn, Vec<OnRegister>),
    /// Texts.
    Texts(Vec<OnText>),
}

type OnRegister = Operation<(Edn, RegisterInput<Edn>), RegisterOutput<Edn>>;
type OnText = Operation<(Edn, TextInput), TextOutput>;

/// Which lines an operation was invoked and completed in, in the order of [`Recorded`].
pub(super) type Lines = Vec<(usize, Option<usize>)>;

/// How the same words are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// The log lines of Jepsen's test of etcd: `nil` is what a register holds that was never written, and a
    /// failed cas found another value than the one that it expected.
    EtcdLog,
    /// Maps: a read of `nil` may have read anything, and what failed did not happen and tells nothing. A
    /// register holds 0 at first.
    Maps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Read,
    Write,
    Cas,
    Get,
    Put,
    Append,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

/// One event of a history.
#[derive(Debug)]
struct Record {
    line: usize,
    process: u64,
    kind: Kind,
    function: Function,
    key: Edn,
    value: Edn,
}

/// An invocation and what became of it, with their places in the order of all records.
#[derive(Debug)]
struct Paired {
    invoked: usize,
    invocation: Record,
    completion: Option<(usize, Record)>,
}

impl Record {
    /// None for what no client did.
    fn new(
        line: usize,
        process: &Edn,
        kind: &Edn,
        function: &Edn,
        key: Edn,
        value: Edn,
    ) -> Result<Option<Record>, Problem> {
        let process = match process {
            Edn::Integer(process) => u64::try_from(*process).map_err(|_| Problem::Process(process.to_string()))?,
            // The part of a test that breaks things is a process with a name.
            Edn::Keyword(_) => return Ok(None),
            _ => return Err(Problem::Process(format!("{process:?}"))),
        };
        let name = |edn: &Edn| match edn {
            Edn::Keyword(name) => name.clone(),
            _ => format!("{edn:?}"),
        };
        let kind = match name(kind).as_str() {
            "invoke" => Kind::Invoke,
            "ok" => Kind::Ok,
            "fail" => Kind::Fail,
            "info" => Kind::Info,
            other => return Err(Problem::Kind(other.to_owned())),
        };
        let function = match name(function).as_str() {
            "read" => Function::Read,
            "write" => Function::Write,
            "cas" => Function::Cas,
            "get" => Function::Get,
            "put" => Function::Put,
            "append" => Function::Append,
            other => return Err(Problem::Function(other.to_owned())),
        };
        Ok(Some(Record { line, process, kind, function, key, value }))
    }
}

/// Reads a history in any of the formats. They are told apart by their content.
pub(super) fn parse(text: &str) -> Result<(Recorded, Lines), Located> {
    let lines = text.lines().enumerate();
    let mut logged = lines.filter_map(|(index, line)| Some((index + 1, log_event(line)?))).peekable();
    let begins = text.trim_start().chars().next();
    // A map may quote a line of a log, but a log has no line that begins with a map.
    let maps = matches!(begins, Some('{' | '[' | '(' | ';' | '#'));
    let (dialect, records) = match logged.peek() {
        Some(_) if !maps => (Dialect::EtcdLog, log_records(logged)?),
        _ if maps => (Dialect::Maps, map_records(text)?),
        _ => return Err((0, Problem::Unrecognised)),
    };
    recorded(dialect, pair(records)?)
}

/// What a line of a log says after the name of the logger.
fn log_event(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("INFO")?;
    let rest = rest.trim_start().strip_prefix("jepsen.util")?;
    rest.trim_start().strip_prefix("- ")
}

fn log_records<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Vec<Record>, Located> {
    let mut records = Vec::new();
    for (line, event) in lines {
        let locate = |problem: Problem| (line, problem);
        // Other things are logged under the same name.
        if !event.trim_start().starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let mut reader = Reader::new(event, line);
        let mut value = || reader.value().map_err(Problem::from).map_err(locate);
        let (process, kind, function, value) = (value()?, value()?, value()?, value()?);
        records.extend(Record::new(line, &process, &kind, &function, Edn::Nil, value).map_err(locate)?);
    }
    Ok(records)
}

/// Maps one after the other, or all of them in one vector or list.
fn map_records(text: &str) -> Result<Vec<Record>, Located> {
    let syntax = |error: SyntaxError| (error.line, Problem::from(error));
    let mut reader = Reader::new(text, 1);
    let mut records = Vec::new();
    let mut close = None;
    loop {
        let next = reader.peek().map_err(syntax)?;
        let line = reader.line();
        match (next, close) {
            (None, None) => return Ok(records),
            (None, Some(close)) => return Err((line, Problem::Syntax(format!("the text ends before its {close:?}")))),
            (Some(next), Some(expected)) if next == expected => {
                reader.bump();
                close = None;
            }
            (Some(open @ ('[' | '(')), None) => {
                reader.bump();
                close = Some(if open == '[' { ']' } else { ')' });
            }
            _ => {
                let map = reader.value().map_err(syntax)?;
                records.extend(map_record(line, &map).map_err(|problem| (line, problem))?);
            }
        }
    }
}

fn map_record(line: usize, map: &Edn) -> Result<Option<Record>, Problem> {
    if !matches!(map, Edn::Map(_)) {
        return Err(Problem::NoMap(format!("{map:?}")));
    }
    let required = |key: &'static str| map.get(key).ok_or(Problem::Missing(key));
    let optional = |key| map.get(key).cloned().unwrap_or(Edn::Nil);
    let process = required("process")?;
    if matches!(process, Edn::Keyword(_)) {
        return Ok(None);
    }
    Record::new(line, process, required("type")?, required("f")?, optional("key"), optional("value"))
}

/// Joins invocations and completions, which must name the same function, object and value.
fn pair(records: Vec<Record>) -> Result<Vec<Paired>, Located> {
    let mut paired: Vec<Paired> = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, record) in records.into_iter().enumerate() {
        let (line, process) = (record.line, record.process);
        if record.kind == Kind::Invoke {
            if let Some(other) = open.insert(process, paired.len()) {
                let since = paired[other].invocation.line;
                return Err((line, Problem::Busy { process, since }));
            }
            paired.push(Paired { invoked: at, invocation: record, completion: None });
            continue;
        }
        let index = open.remove(&process).ok_or((line, Problem::NotInvoked { process }))?;
        let Paired { invocation, completion, .. } = &mut paired[index];
        let other_key = record.key != Edn::Nil && record.key != invocation.key;
        if record.function != invocation.function || other_key {
            return Err((line, Problem::Mismatch { invoked: invocation.line }));
        }
        *completion = Some((at, record));
    }
    Ok(paired)
}

fn recorded(dialect: Dialect, paired: Vec<Paired>) -> Result<(Recorded, Lines), Located> {
    let (mut registers, mut texts, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for pair in paired {
        let line = pair.invocation.line;
        let completed = pair.completion.as_ref().map(|(_, record)| record.line);
        match pair.invocation.function {
            Function::Read | Function::Write | Function::Cas => registers.extend(register(dialect, pair)?),
            Function::Get | Function::Put | Function::Append => texts.extend(text(pair)?),
        }
        if !registers.is_empty() && !texts.is_empty() {
            return Err((line, Problem::Mixed));
        }
        if registers.len() + texts.len() > lines.len() {
            lines.push((line, completed));
        }
    }
    let initial = if dialect == Dialect::EtcdLog { Edn::Nil } else { Edn::Integer(0) };
    Ok((if texts.is_empty() { Recorded::Registers(initial, registers) } else { Recorded::Texts(texts) }, lines))
}

fn operation<I, O>(process: u64, input: I, invoked: usize, output: Option<(usize, O)>) -> Operation<I, O> {
    match output {
        Some((at, output)) => Operation::returned(process, input, invoked as u64, output, at as u64),
        None => Operation::unknown(process, input, invoked as u64),
    }
}

/// None if the operation did not happen, or tells nothing.
fn register(dialect: Dialect, pair: Paired) -> Result<Option<OnRegister>, Located> {
    let Paired { invoked, invocation: Record { line, process, function, key, value, .. }, completion } = pair;
    let (at, ended) = match completion {
        Some((at, record)) if record.kind != Kind::Info => (at, Some(record)),
        _ => (invoked, None),
    };
    let input = match (function, &value) {
        (Function::Read, _) => RegisterInput::Read,
        (Function::Cas, Edn::Sequence(pair)) if pair.len() == 2 => {
            RegisterInput::CompareAndSet(pair[0].clone(), pair[1].clone())
        }
        (Function::Cas, _) => {
            return Err((line, Problem::Value { needed: "[expected new]", found: format!("{value:?}") }));
        }
        _ => RegisterInput::Write(value.clone()),
    };
    let output = match (&input, ended) {
        (RegisterInput::Read, Some(Record { kind: Kind::Ok, value, .. }))
            if value != Edn::Nil || dialect == Dialect::EtcdLog =>
        {
            Some((at, RegisterOutput::Value(value)))
        }
        (RegisterInput::Read, _) => return Ok(None),
        (_, Some(Record { kind: Kind::Ok, value: echo, line: completed, .. })) => {
            same(&value, &echo).map_err(|()| (completed, Problem::Mismatch { invoked: line }))?;
            Some((at, RegisterOutput::Done))
        }
        // A time-out that Jepsen calls a failure says nothing of the register: the value must be there.
        (RegisterInput::CompareAndSet(..), Some(Record { kind: Kind::Fail, value: echo, .. }))
            if dialect == Dialect::EtcdLog && echo == value =>
        {
            Some((at, RegisterOutput::NotEqual))
        }
        (_, Some(_)) => return Ok(None),
        (_, None) => None,
    };
    Ok(Some(operation(process, (key, input), invoked, output)))
}

/// None if the operation did not happen, or tells nothing.
fn text(pair: Paired) -> Result<Option<OnText>, Located> {
    let Paired { invoked, invocation: Record { line, process, function, key, value, .. }, completion } = pair;
    if key == Edn::Nil {
        return Err((line, Problem::Missing("key")));
    }
    let string = |line: usize, value: &Edn| match value {
        Edn::Text(text) => Ok(text.clone()),
        _ => Err((line, Problem::Value { needed: "a string", found: format!("{value:?}") })),
    };
    let input = match function {
        Function::Put => TextInput::Put(string(line, &value)?),
        Function::Append => TextInput::Append(string(line, &value)?),
        _ => TextInput::Get,
    };
    let output = match (&input, completion) {
        (TextInput::Get, Some((at, Record { kind: Kind::Ok, value, line, .. }))) if value != Edn::Nil => {
            Some((at, TextOutput::Value(string(line, &value)?)))
        }
        (TextInput::Get, _) | (_, Some((_, Record { kind: Kind::Fail, .. }))) => return Ok(None),
        (_, Some((at, Record { kind: Kind::Ok, value: echo, line: completed, .. }))) => {
            same(&value, &echo).map_err(|()| (completed, Problem::Mismatch { invoked: line }))?;
            Some((at, TextOutput::Done))
        }
        _ => None,
    };
    Ok(Some(operation(process, (key, input), invoked, output)))
}

/// A completion repeats the value of its invocation, or says nothing of it.
fn same(value: &Edn, echo: &Edn) -> Result<(), ()> {
    if *echo == Edn::Nil || echo == value { Ok(()) } else { Err(()) }
}
