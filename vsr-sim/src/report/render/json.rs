//! The trace as lines of JSON.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use crate::report::timeline::{Timeline, What};

/// The version of the format of [`json_lines`]. Another field does not change it; another meaning does.
pub const VERSION: u32 = 1;

#[derive(Serialize)]
struct Header<'a> {
    version: u32,
    title: &'a str,
    repeat: &'a str,
    verdict: &'a str,
    lanes: Vec<Participant<'a>>,
    records: usize,
    counters: BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
struct Participant<'a> {
    name: &'a str,
    replica: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    record: usize,
    at: u64,
    lane: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<u32>,
    what: &'static str,
    #[serde(flatten)]
    fields: Fields<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Fields<'a> {
    Sent { to: &'a str, kind: &'a str, text: &'a str },
    Delivered { sent: u32 },
    Lost { sent: u32, why: &'a str },
    Status { view: u64, state: &'static str, primary: bool },
    Numbers { head: u64, commit: u64 },
    Fault { text: &'a str, until: Option<u64> },
    Heard { asked: u32, text: &'a str },
    Text { text: &'a str },
}

#[derive(Serialize)]
struct Last<'a> {
    violation: Violation<'a>,
}

#[derive(Serialize)]
struct Violation<'a> {
    at: u64,
    lane: Option<&'a str>,
    checker: &'a str,
    message: &'a str,
    record: Option<u32>,
}

/// Writes a timeline as one JSON object a line.
///
/// - The first line: `version` ([`VERSION`]), `title`, `repeat` (the command that runs it again), `verdict`, `lanes` (each a `name` and
///   whether it is a `replica`), `records` (how many follow), `counters`.
/// - A line for each record: `record` (its index, from 0), `at` (nanoseconds of virtual time), `lane` (a name, or `cluster`), `cause` (the
///   index of the record that led to it; absent if there is none), `what`, and by `what`:
///   `sent`: `to`, `kind`, `text`; `delivered`: `sent` (the index of that record); `lost`: `sent`, `why`; `status`: `view`, `state`
///   (`normal`, `view change`, `down`, `paused`), `primary`; `numbers`: `head`, `commit`; `fault`: `text`, `until` (nanoseconds or null);
///   `asked` and `note`: `text`; `heard`: `asked` (the index of that record), `text`.
/// - If a rule was broken, a last line with the one field `violation`: `at`, `lane` (or null), `checker`, `message`, `record` (or null).
///
/// # Errors
/// Those of `out`.
pub fn json_lines(timeline: &Timeline, out: &mut dyn io::Write) -> io::Result<()> {
    let lanes = timeline.lanes.iter().map(|lane| Participant { name: &lane.name, replica: lane.replica }).collect();
    let header = Header {
        version: VERSION,
        title: &timeline.title,
        repeat: &timeline.repeat,
        verdict: &timeline.verdict,
        lanes,
        records: timeline.records.len(),
        counters: timeline.counters.iter().map(|(name, count)| (name.as_str(), *count)).collect(),
    };
    line(out, &header)?;
    for (index, record) in timeline.records.iter().enumerate() {
        let (lane, what) = (timeline.lane_name(record.lane), record.what.name());
        let fields = fields(timeline, &record.what);
        line(out, &Line { record: index, at: record.at, lane, cause: record.cause, what, fields })?;
    }
    if let Some(breach) = &timeline.violation {
        let lane = breach.lane.map(|lane| timeline.lane_name(lane));
        let (checker, message) = (&breach.checker, &breach.message);
        line(out, &Last { violation: Violation { at: breach.at, lane, checker, message, record: breach.record } })?;
    }
    Ok(())
}

fn line(out: &mut dyn io::Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn fields<'a>(timeline: &'a Timeline, what: &'a What) -> Fields<'a> {
    match what {
        What::Sent { to, kind, text } => Fields::Sent { to: timeline.lane_name(*to), kind, text },
        What::Delivered { sent } => Fields::Delivered { sent: *sent },
        What::Lost { sent, why } => Fields::Lost { sent: *sent, why },
        What::Status { view, state, primary } => Fields::Status { view: *view, state: state.name(), primary: *primary },
        What::Numbers { head, commit } => Fields::Numbers { head: *head, commit: *commit },
        What::Fault { text, until } => Fields::Fault { text, until: *until },
        What::Heard { asked, text } => Fields::Heard { asked: *asked, text },
        What::Asked { text } | What::Note { text } => Fields::Text { text },
    }
}
