//! What a replica's folder holds, in words, without changing anything in it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vsr::protocol::{OpNumber, VsrState};
use vsr_storage_file::{
    FolderPlace, InspectedLog, InspectedSlot, InspectedState, Inspection, SlotRun, StateCopy, Usage, inspect,
};

use crate::exit::{self, failure};
use crate::output::{complain, say};
use crate::{Error, StorageKind};

/// Runs of slots that a summary shows. More than that is a log whose damage is told in numbers.
const RUNS_MAX: usize = 40;

/// What is looked at.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectOptions {
    /// The folder of the one replica, as data/replica-1, or a copy of it.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Shows each op from this one on, with its header, instead of runs of ops.
    #[arg(long, value_name = "OP")]
    from: Option<u64>,
    /// Shows each op up to this one.
    #[arg(long, value_name = "OP")]
    to: Option<u64>,
}

/// Shows a folder. The exit code is 0 when all of it is intact, 1 when there is damage with which a replica starts, and 4, with the
/// error that the replica would end with, when none does.
pub(crate) fn run(options: &InspectOptions) -> Result<ExitCode, Error> {
    let InspectOptions { folder, from, to } = options;
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(failure(exit::USAGE, format!("--from {from} is above --to {to}: no op is between them")));
    }
    if StorageKind::of(folder) == StorageKind::Rocksdb {
        return Err(failure(exit::USAGE, not_of_files(folder)));
    }
    let found = inspect(folder)?;
    summary(&found);
    if let Some(log) = &found.log {
        match (*from, *to) {
            (None, None) => runs(log),
            (from, to) => slots(log, from.unwrap_or(1), to.unwrap_or(u64::MAX)),
        }
    }
    Ok(verdict(&found))
}

fn not_of_files(folder: &Path) -> String {
    format!("{} holds a RocksDB storage: inspect reads that of files only; nothing was changed", folder.display())
}

fn row(name: &str, text: &str) {
    say(format_args!("{name:<13} {text}"));
}

fn summary(found: &Inspection) {
    row("folder", &found.path);
    row("in use", &in_use(found));
    match &found.place {
        Some(place) => about_place(place),
        None => row("place", "not known: a file is missing"),
    }
    if found.superblocks_damaged > 0 {
        row("superblock", &format!("{} of 2 copies damaged", found.superblocks_damaged));
    }
    match &found.state {
        Some(state) => about_state(state, &found.copies),
        None => row("vsr state", &format!("none can be read: {}", copies(&found.copies))),
    }
    for checkpoint in &found.checkpoints {
        match &checkpoint.bytes {
            Ok(bytes) => row("checkpoint", &format!("after op {}, {bytes} bytes, whole", checkpoint.id.op)),
            Err(why) => row("checkpoint", &format!("after op {}: {why}; a start does without it", checkpoint.id.op)),
        }
    }
    match &found.log {
        Some(log) => about_log(log, found.options.log_limit),
        None => row("log", "cannot be judged"),
    }
}

fn in_use(found: &Inspection) -> String {
    let end = "what stands at the end of the log may be in the making";
    match found.usage {
        Usage::By { process: Some(process) } => format!("by process {process}: {end}"),
        Usage::By { process: None } => format!("by a process: {end}"),
        _ if found.has_changed => format!("its files were written to while they were read: {end}"),
        Usage::NotSeen => "by no process that can be seen from here".to_owned(),
        _ => "not known: this operating system does not tell".to_owned(),
    }
}

fn about_place(place: &FolderPlace) {
    match (place.is_own, place.recorded.is_some()) {
        (true, _) if place.differences.is_empty() => row("place", "where it belongs"),
        (true, _) => row("place", "where it belongs, on another device or mounted anew"),
        (false, true) => row("place", "another one than was recorded: a copy, or restored; no replica starts here"),
        (false, false) => row("place", &format!("no record of it can be read; found is {}", place.found)),
    }
    for difference in &place.differences {
        row("place", difference);
    }
}

fn copies(copies: &[StateCopy]) -> String {
    let each = copies.iter().map(|copy| match copy {
        StateCopy::Intact { generation } => format!("generation {generation}"),
        StateCopy::Unfinished => "unfinished".to_owned(),
        _ => "damaged".to_owned(),
    });
    format!("its copies: {}", each.collect::<Vec<_>>().join(", "))
}

fn about_state(found: &InspectedState, all: &[StateCopy]) {
    let InspectedState { state, generation, is_newest, .. } = found;
    row("cluster", &state.cluster.to_string());
    row("replica", &state.replica.0.to_string());
    for member in &state.membership.members {
        let own = if member.id == state.replica { " (this one)" } else { "" };
        row("member", &format!("{} at {}{own}", member.id.0, member.address));
    }
    row("disk", &format!("{}, on which the replica was started {}", state.disk_id, times(state.starts)));
    let age = if *is_newest { "" } else { " (a newer one was there, or may have been)" };
    row("vsr state", &format!("generation {generation}{age}; {}", copies(all)));
    row(
        "view",
        &format!("{}, log_view {}; commit number {} when this was written", state.view, state.log_view, state.commit),
    );
    row("suffix", &suffix(state));
    if let Some(doubted) = state.doubted {
        row(
            "doubted",
            &format!("ops {} to {}: they may have been here, and are never denied", doubted.above.next(), doubted.to),
        );
    }
    for known in &state.known {
        let life = format!("its start {} on disk {}", known.life.starts, known.life.disk_id);
        row("known", &format!("of replica {}: {life}, acknowledged op {}", known.replica.0, known.acknowledged));
    }
}

fn suffix(state: &VsrState) -> String {
    let headers = &state.suffix.headers;
    match (headers.first(), headers.last()) {
        (Some(first), Some(last)) => {
            let headers = count(headers.len() as u64, "header");
            format!("head {}, {headers} from op {} to {}", state.suffix.head, first.op, last.op)
        }
        _ => format!("head {}, no headers", state.suffix.head),
    }
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn about_log(log: &InspectedLog, limit: u64) {
    let head = match log.head_certain {
        true => format!("head {}, for certain", log.head),
        false => format!("head {}, uncertain: ops above it may be lost", log.head),
    };
    row(
        "log",
        &format!("{head}; {} bytes used, {} prepared, {} in the file, limit {limit}", log.used, log.prepared, log.len),
    );
    for (from, to) in &log.skipped {
        row("bad sectors", &format!("bytes {from} to {to} of the log were stepped over"));
    }
}

/// The slots, folded. Where there are too many runs, the rest is counted.
fn runs(log: &InspectedLog) {
    let mut all = log.runs();
    for SlotRun { first, last, verdict, .. } in all.by_ref().take(RUNS_MAX) {
        let ops = if first == last { format!("op {first}") } else { format!("ops {first} to {last}") };
        row("slots", &format!("{ops}: {verdict}"));
    }
    let (mut more, mut damaged, mut from) = (0, 0, None);
    for SlotRun { first, last, verdict, .. } in all {
        more += 1;
        from.get_or_insert(first);
        damaged += if verdict.is_damage() { last.0 - first.0 + 1 } else { 0 };
    }
    if let Some(from) = from {
        let (more, damaged) = (count(more, "more run"), count(damaged, "damaged op"));
        row("slots", &format!("from op {from} on: {more}, with {damaged} (--from {from} shows each op)"));
    }
}

/// A line for each slot, as it is come to: nothing is gathered, however many there are.
fn slots(log: &InspectedLog, from: u64, to: u64) {
    if from > log.head.0 {
        row("slots", &format!("no op from {from} on: the head is op {}", log.head));
    }
    log.slots_of(OpNumber(from), OpNumber(to)).map(slot).for_each(say);
}

fn slot(slot: InspectedSlot) -> String {
    let InspectedSlot { op, verdict, header, .. } = slot;
    match header {
        Some(header) => format!(
            "op {op}: {verdict}; view {}, header {:032x}, parent {:032x}, body of {} bytes, {}",
            header.view,
            header.checksum().0,
            header.parent.0,
            header.body_len,
            count(header.requests.into(), "request")
        ),
        None => format!("op {op}: {verdict}"),
    }
}

/// What it means, and who has to do something.
fn verdict(found: &Inspection) -> ExitCode {
    if found.is_clean() {
        return ExitCode::SUCCESS;
    }
    if found.has_changed || matches!(found.usage, Usage::By { .. }) {
        complain(
            "a process writes to this folder: what looks damaged may be in the making; look again, or stop the replica first",
        );
    }
    if let Some(refusal) = &found.refusal {
        complain(format_args!("no replica starts here: {refusal}"));
        return ExitCode::from(exit::STORAGE);
    }
    let is_copy = found.place.as_ref().is_some_and(|place| !place.is_own);
    let cure = if is_copy { CURE_OF_A_COPY } else { CURE };
    complain(format_args!("{} is damaged ({}): {cure}", found.path, damage(found)));
    ExitCode::from(exit::NO)
}

const CURE: &str = "start the replica, it writes its state anew and fetches from its peers what is lost; do not format the folder \
                    again, and have the disk looked at";
const CURE_OF_A_COPY: &str = "this is a copy, or was restored, and nothing mends it as long as no replica starts here: look at the \
                              original";

fn damage(found: &Inspection) -> String {
    let mut parts = Vec::new();
    if found.superblocks_damaged > 0 {
        parts.push("one of two copies of the superblock, the other one serves".to_owned());
    }
    if found.place.as_ref().is_some_and(|place| place.copies_damaged > 0) {
        parts.push("one of two copies of the recorded place, the other one serves".to_owned());
    }
    let rotten = found.copies.iter().filter(|copy| **copy == StateCopy::Damaged).count();
    if rotten > 0 {
        parts.push(format!("{rotten} of {} copies of the vsr state", found.copies.len()));
    }
    let useless = found.checkpoints.iter().filter(|checkpoint| checkpoint.bytes.is_err()).count();
    if useless > 0 {
        parts.push(count(useless as u64, "checkpoint"));
    }
    if let Some(log) = &found.log {
        let damaged: u64 =
            log.runs().filter(|run| run.verdict.is_damage()).map(|run| run.last.0 - run.first.0 + 1).sum();
        if damaged > 0 {
            parts.push(count(damaged, "op"));
        }
        let is_told = found.state.as_ref().is_none_or(|found| found.state.head_certain);
        if !log.head_certain {
            parts.push("the end of the log".to_owned());
        } else if !is_told {
            parts.push("the end of the log, as an earlier start found, and no primary has told it since".to_owned());
        }
    }
    parts.join(", ")
}
