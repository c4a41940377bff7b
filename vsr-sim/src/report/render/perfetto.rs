//! The trace in the format of Chrome's tracing, which Perfetto reads.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::report::timeline::{CLUSTER, State, Timeline, What};

/// How long a message's sending and arrival are drawn, in nanoseconds: the arrows of the format bind to slices.
const TOUCH_NS: u64 = 1_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace<'a> {
    display_time_unit: &'static str,
    trace_events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    ph: &'static str,
    pid: u32,
    tid: u32,
    name: Cow<'a, str>,
    /// Microseconds.
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'static str>,
    /// Binds the two ends of an arrow.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    /// The end of an arrow binds to the slice around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
    /// How far an instant reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

impl<'a> Event<'a> {
    fn new(ph: &'static str, tid: u32, ns: u64, name: impl Into<Cow<'a, str>>) -> Event<'a> {
        let (ts, name) = (micros(ns), name.into());
        Event { ph, pid: 1, tid, name, ts, dur: None, cat: None, id: None, bp: None, s: None, args: Value::Null }
    }

    fn slice(tid: u32, from: u64, to: u64, name: impl Into<Cow<'a, str>>) -> Event<'a> {
        Event { dur: Some(micros(to.saturating_sub(from))), ..Event::new("X", tid, from, name) }
    }

    fn instant(tid: u32, at: u64, name: impl Into<Cow<'a, str>>) -> Event<'a> {
        Event { s: Some(if tid == 0 { "p" } else { "t" }), ..Event::new("i", tid, at, name) }
    }
}

/// A timeline in Chrome's trace event format: process 1 is the cluster. Each lane has a thread for its status or its operations, and one
/// beside it for its messages, which are joined by arrows; thread 0 is what concerns the whole cluster. Times are virtual.
#[must_use]
pub fn perfetto(timeline: &Timeline) -> String {
    let mut events = names(timeline);
    periods(timeline, &mut events);
    messages(timeline, &mut events);
    rest(timeline, &mut events);
    let trace = Trace { display_time_unit: "ns", trace_events: events };
    serde_json::to_string(&trace).unwrap_or_default()
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1_000.0
}

/// The thread of a lane's status, operations, faults and notes; 0 is the cluster's.
fn thread(timeline: &Timeline, lane: u32) -> u32 {
    if (lane as usize) < timeline.lanes.len() { 2 * lane + 1 } else { 0 }
}

fn names(timeline: &Timeline) -> Vec<Event<'_>> {
    let meta = |tid, kind, args| Event { args, ..Event::new("M", tid, 0, kind) };
    let mut events = vec![meta(0, "process_name", json!({ "name": timeline.title }))];
    let mut name = |tid: u32, name: &str| {
        events.push(meta(tid, "thread_name", json!({ "name": name })));
        events.push(meta(tid, "thread_sort_index", json!({ "sort_index": tid })));
    };
    name(0, timeline.lane_name(CLUSTER));
    for (lane, participant) in timeline.lanes.iter().enumerate() {
        let tid = thread(timeline, lane as u32);
        name(tid, &participant.name);
        name(tid + 1, &format!("{} messages", participant.name));
    }
    events
}

/// Slices for statuses and client operations: each lasts until the next status, or until its answer, or until the end.
fn periods<'a>(timeline: &'a Timeline, events: &mut Vec<Event<'a>>) {
    let mut status_ends = BTreeMap::new();
    let mut answers = BTreeMap::new();
    let from = events.len();
    for (index, record) in timeline.records.iter().enumerate().rev() {
        let tid = thread(timeline, record.lane);
        match &record.what {
            What::Status { view, state, primary } => {
                let until = status_ends.insert(record.lane, record.at).unwrap_or(timeline.end());
                let name = match (state, primary) {
                    (State::Normal, true) => format!("view {view} · primary"),
                    (State::Normal, false) => format!("view {view}"),
                    (State::ViewChange, _) => format!("view change to {view}"),
                    (State::Down | State::Paused, _) => state.name().to_owned(),
                };
                events.push(Event { cat: Some("status"), ..Event::slice(tid, record.at, until, name) });
            }
            What::Heard { asked, text } => {
                answers.insert(*asked as usize, (record.at, text));
            }
            What::Asked { text } => {
                let (until, args) = match answers.get(&index) {
                    Some((until, answer)) => (*until, json!({ "answer": answer })),
                    None => (timeline.end(), json!({ "answer": null })),
                };
                let slice = Event::slice(tid, record.at, until, text);
                events.push(Event { cat: Some("operation"), args, ..slice });
            }
            _ => {}
        }
    }
    events[from..].reverse();
}

/// A slice for each message sent and each that arrived, and an arrow for each arrival.
fn messages<'a>(timeline: &'a Timeline, events: &mut Vec<Event<'a>>) {
    let mut arrivals: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (index, record) in timeline.records.iter().enumerate() {
        if let What::Delivered { sent } = record.what {
            arrivals.entry(sent).or_default().push(index as u32);
        }
    }
    let ends = touch_ends(timeline);
    for (index, (record, end)) in timeline.records.iter().zip(ends).enumerate() {
        let (index, tid) = (index as u32, thread(timeline, record.lane) + 1);
        let sent = match record.what {
            What::Sent { .. } => index,
            What::Delivered { sent } => sent,
            _ => continue,
        };
        let Some(posted) = timeline.posted(sent) else { continue };
        let (from, to) = (timeline.lane_name(posted.from), timeline.lane_name(posted.to));
        let args = json!({ "from": from, "to": to, "text": posted.text });
        events.push(Event { cat: Some("message"), args, ..Event::slice(tid, record.at, end, posted.kind) });
        let arrow =
            |ph, id| Event { cat: Some("message"), id: Some(id), ..Event::new(ph, tid, record.at, posted.kind) };
        if sent == index {
            events.extend(arrivals.get(&sent).into_iter().flatten().map(|arrival| arrow("s", *arrival)));
        } else {
            events.push(Event { bp: Some("e"), ..arrow("f", index) });
        }
    }
}

/// When the slice of each record's message ends: before the lane's next one begins, as slices of a thread may only nest.
fn touch_ends(timeline: &Timeline) -> Vec<u64> {
    let mut ends = vec![0; timeline.records.len()];
    let mut next: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for (record, end) in timeline.records.iter().zip(&mut ends).rev() {
        if !matches!(record.what, What::Sent { .. } | What::Delivered { .. }) {
            continue;
        }
        *end = match next.get(&record.lane) {
            Some((at, end)) if *at == record.at => *end,
            Some((at, _)) => record.at.saturating_add(TOUCH_NS).min(*at),
            None => record.at.saturating_add(TOUCH_NS),
        };
        next.insert(record.lane, (record.at, *end));
    }
    ends
}

/// Instants for losses, faults, notes and the violation; counters for op numbers.
fn rest<'a>(timeline: &'a Timeline, events: &mut Vec<Event<'a>>) {
    for record in &timeline.records {
        let tid = thread(timeline, record.lane);
        match &record.what {
            What::Lost { sent, why } => {
                let (kind, text) = timeline.posted(*sent).map_or(("message", ""), |posted| (posted.kind, posted.text));
                let args = json!({ "why": why, "text": text });
                events.push(Event { args, ..Event::instant(tid, record.at, format!("lost {kind}")) });
            }
            What::Fault { text, until } => {
                let args = json!({ "until": until.map(micros) });
                events.push(Event { cat: Some("fault"), args, ..Event::instant(tid, record.at, text) });
            }
            What::Note { text } => {
                events.push(Event { cat: Some("note"), ..Event::instant(tid, record.at, text) });
            }
            What::Numbers { head, commit } => {
                let name = format!("{} op numbers", timeline.lane_name(record.lane));
                let args = json!({ "head": head, "commit": commit });
                events.push(Event { args, ..Event::new("C", tid, record.at, name) });
            }
            _ => {}
        }
    }
    if let Some(breach) = &timeline.violation {
        let name = format!("violation {}", breach.checker);
        let args = json!({ "message": breach.message });
        events.push(Event { s: Some("g"), args, ..Event::instant(0, breach.at, name) });
    }
}
