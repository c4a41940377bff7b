//! The picture: one page that needs nothing else.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::timeline::{Breach, State, Timeline, What};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(include_str!("decode.js"), include_str!("draw.js"), include_str!("page.js"));

/// A timeline as the page reads it: a column for each field that every record has, and the rest in one list. What is a text is an index into
/// `texts`, what points to another record is the distance back to it (0: there is none), so that most numbers have few digits.
#[derive(Default, Serialize)]
struct Columns<'a> {
    title: &'a str,
    repeat: &'a str,
    verdict: &'a str,
    /// Name, and whether it is a replica.
    lanes: Vec<(&'a str, bool)>,
    counters: Vec<(&'a str, u64)>,
    violation: Option<Violation<'a>>,
    texts: Vec<&'a str>,
    /// A digit for each record; the page knows how many fields follow from each.
    what: String,
    /// Nanoseconds since the record before.
    at: Vec<u64>,
    /// The number of lanes for the whole cluster.
    lane: Vec<usize>,
    cause: Vec<usize>,
    fields: Vec<u64>,
}

#[derive(Serialize)]
struct Violation<'a> {
    at: u64,
    lane: Option<u32>,
    checker: &'a str,
    message: &'a str,
    record: Option<u32>,
}

/// A timeline as one page of HTML with a space-time diagram. The page asks no network for anything, and what the timeline's texts contain
/// stays text.
#[must_use]
pub fn html(timeline: &Timeline) -> String {
    // The data goes in last: no later step searches it for marks.
    PAGE.replacen("/* style */", STYLE, 1).replacen("/* script */", SCRIPT, 1).replacen(
        "/* story */",
        &data(timeline),
        1,
    )
}

/// JSON that may stand inside a script element: outside of strings it has no such characters, and inside it may escape them.
fn data(timeline: &Timeline) -> String {
    let json = serde_json::to_string(&columns(timeline)).unwrap_or_default();
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn columns(timeline: &Timeline) -> Columns<'_> {
    let mut texts = Texts::default();
    let lanes = timeline.lanes.len();
    let lane_of = |lane: u32| (lane as usize).min(lanes);
    let mut columns = Columns {
        title: &timeline.title,
        repeat: &timeline.repeat,
        verdict: &timeline.verdict,
        lanes: timeline.lanes.iter().map(|lane| (lane.name.as_str(), lane.replica)).collect(),
        counters: timeline.counters.iter().map(|(name, count)| (name.as_str(), *count)).collect(),
        violation: timeline.violation.as_ref().map(violation),
        ..Columns::default()
    };
    let mut before = 0;
    for (index, record) in timeline.records.iter().enumerate() {
        let back = |to: u32| index.saturating_sub(to as usize) as u64;
        columns.at.push(record.at.saturating_sub(before));
        before = record.at.max(before);
        columns.lane.push(lane_of(record.lane));
        columns.cause.push(record.cause.map_or(0, |cause| index.saturating_sub(cause as usize)));
        let fields = &mut columns.fields;
        columns.what.push(match &record.what {
            What::Sent { to, kind, text } => {
                fields.extend([lane_of(*to) as u64, texts.index(kind), texts.index(text)]);
                '0'
            }
            What::Delivered { sent } => {
                fields.push(back(*sent));
                '1'
            }
            What::Lost { sent, why } => {
                fields.extend([back(*sent), texts.index(why)]);
                '2'
            }
            What::Status { view, state, primary } => {
                fields.extend([*view, state_number(*state), u64::from(*primary)]);
                '3'
            }
            What::Numbers { head, commit } => {
                fields.extend([*head, *commit]);
                '4'
            }
            What::Fault { text, until } => {
                // 0 stands for one that has no end.
                let lasts = until.map_or(0, |until| until.saturating_sub(record.at).max(1));
                fields.extend([texts.index(text), lasts]);
                '5'
            }
            What::Asked { text } => {
                fields.push(texts.index(text));
                '6'
            }
            What::Heard { asked, text } => {
                fields.extend([back(*asked), texts.index(text)]);
                '7'
            }
            What::Note { text } => {
                fields.push(texts.index(text));
                '8'
            }
        });
    }
    columns.texts = texts.list;
    columns
}

fn violation(breach: &Breach) -> Violation<'_> {
    let Breach { at, lane, checker, message, record } = breach;
    Violation { at: *at, lane: *lane, checker, message, record: *record }
}

fn state_number(state: State) -> u64 {
    match state {
        State::Normal => 0,
        State::ViewChange => 1,
        State::Down => 2,
        State::Paused => 3,
    }
}

/// Each text once.
#[derive(Default)]
struct Texts<'a> {
    list: Vec<&'a str>,
    indices: BTreeMap<&'a str, u64>,
}

impl<'a> Texts<'a> {
    fn index(&mut self, text: &'a str) -> u64 {
        *self.indices.entry(text).or_insert_with(|| {
            self.list.push(text);
            self.list.len() as u64 - 1
        })
    }
}
