//! The picture of a run, and its exports.

mod synthetic;

use std::collections::BTreeMap;

use serde_json::Value;
use vsr_sim::report::render::{VERSION, html, json_lines, perfetto};
use vsr_sim::report::timeline::{Breach, CLUSTER, Lane, Record, State, Timeline, What};

const HOSTILE: &str =
    "</script><script>document.body.dataset.error='owned'</script><!-- \u{2028}\u{2029} /* story */ \\ \" \u{0}";

/// A timeline whose every text is hostile, and whose every reference leads nowhere or to the wrong place.
fn hostile() -> Timeline {
    let text = || HOSTILE.to_owned();
    let whats = [
        What::Sent { to: 1, kind: "Prepare", text: text() },
        What::Sent { to: 77, kind: "Unheard<!--Of", text: text() },
        What::Delivered { sent: 0 },
        What::Delivered { sent: 4 },
        What::Delivered { sent: 2 },
        What::Delivered { sent: u32::MAX },
        What::Lost { sent: 1, why: "</script>" },
        What::Lost { sent: 6, why: "</script>" },
        What::Status { view: u64::MAX, state: State::Down, primary: true },
        What::Numbers { head: 0, commit: u64::MAX },
        What::Fault { text: text(), until: Some(0) },
        What::Asked { text: text() },
        What::Heard { asked: 11, text: text() },
        What::Heard { asked: 3, text: text() },
        What::Note { text: text() },
    ];
    let lanes = [CLUSTER, 0, 1, 2, 99];
    let record =
        |(index, what)| Record { at: index as u64 / 3, lane: lanes[index % 5], cause: Some(index as u32 + 7), what };
    Timeline {
        title: text(),
        repeat: text(),
        verdict: text(),
        lanes: (0..3).map(|lane| Lane { name: text(), replica: lane < 2 }).collect(),
        records: whats.into_iter().cycle().take(60).enumerate().map(record).collect(),
        violation: Some(Breach { at: 1, lane: Some(9), checker: text(), message: text(), record: Some(4_000) }),
        counters: vec![(text(), u64::MAX)],
    }
}

/// The data of a page.
fn data_of(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"story\">").expect("the page has data");
    let (data, _) = rest.split_once("</script>").expect("the data ends");
    serde_json::from_str(data).expect("the data is JSON")
}

fn lines_of(timeline: &Timeline) -> Vec<Value> {
    let mut out = Vec::new();
    json_lines(timeline, &mut out).expect("a vector takes everything");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn events_of(timeline: &Timeline) -> Vec<Value> {
    let trace: Value = serde_json::from_str(&perfetto(timeline)).expect("the trace is JSON");
    trace["traceEvents"].as_array().expect("the trace has events").clone()
}

#[test]
fn the_page_asks_the_network_for_nothing() {
    let page = html(&synthetic::timeline(2_000));
    for fetch in ["http:", "https:", "src=", "@import", "url(", "fetch(", "XMLHttpRequest", "WebSocket", "import("] {
        assert!(!page.contains(fetch), "the page contains {fetch}");
    }
}

#[test]
fn the_page_itself_is_small() {
    assert!(html(&Timeline::default()).len() < 100_000);
}

#[test]
fn a_hundred_thousand_records_take_a_few_megabytes() {
    assert!(html(&synthetic::timeline(100_000)).len() < 5_000_000);
}

#[test]
fn hostile_texts_stay_texts() {
    let (page, innocent) = (html(&hostile()), html(&Timeline::default()));
    let count = |page: &str, what: &str| page.matches(what).count();
    for mark in ["<script", "</script", "<!--"] {
        assert_eq!(count(&page, mark), count(&innocent, mark), "{mark}");
    }
    assert!(!page.contains(['\u{2028}', '\u{2029}']));
    let data = data_of(&page);
    assert_eq!(data["title"], HOSTILE);
    assert!(data["texts"].as_array().expect("texts").iter().any(|text| text == HOSTILE));
}

#[test]
fn the_page_holds_every_record_and_each_text_once() {
    let timeline = synthetic::timeline(5_000);
    let data = data_of(&html(&timeline));
    let length = |name: &str| data[name].as_array().map_or(0, Vec::len);
    assert_eq!(data["what"].as_str().map(str::len), Some(timeline.records.len()));
    assert_eq!([length("at"), length("lane"), length("cause")], [timeline.records.len(); 3]);
    let end: u64 = data["at"].as_array().into_iter().flatten().filter_map(Value::as_u64).sum();
    assert_eq!(Some(end), timeline.records.last().map(|record| record.at));
    let mut texts: Vec<&str> = data["texts"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    texts.sort_unstable();
    assert!(texts.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn json_lines_parse_back_one_for_each_record() {
    let timeline = synthetic::timeline(5_000);
    let lines = lines_of(&timeline);
    assert_eq!(lines.len(), 1 + timeline.records.len() + 1);
    assert_eq!(lines[0]["version"], VERSION);
    assert_eq!(lines[0]["lanes"][0]["name"], "r0");
    assert_eq!(lines[0]["records"], timeline.records.len());
    for (index, (line, record)) in lines[1..].iter().zip(&timeline.records).enumerate() {
        assert_eq!(line["record"], index);
        assert_eq!(line["at"], record.at);
        assert_eq!(line["lane"], timeline.lane_name(record.lane));
        assert_eq!(line["what"], record.what.name());
        assert_eq!(line.get("cause").and_then(Value::as_u64), record.cause.map(u64::from));
        match &record.what {
            What::Sent { to, kind, text } => {
                assert_eq!(
                    (&line["to"], &line["kind"], &line["text"]),
                    (&timeline.lane_name(*to).into(), &(*kind).into(), &text.as_str().into())
                );
            }
            What::Lost { sent, why } => assert_eq!((&line["sent"], &line["why"]), (&(*sent).into(), &(*why).into())),
            What::Status { view, state, .. } => {
                assert_eq!((&line["view"], &line["state"]), (&(*view).into(), &state.name().into()))
            }
            _ => {}
        }
    }
    assert_eq!(lines[lines.len() - 1]["violation"]["checker"], "committed-not-on-quorum");
}

#[test]
fn every_flow_of_the_perfetto_trace_that_starts_also_ends() {
    for timeline in [synthetic::timeline(5_000), hostile()] {
        let events = events_of(&timeline);
        let ends = |phase: &str| {
            let mut ids = BTreeMap::new();
            for event in events.iter().filter(|event| event["ph"] == phase) {
                let before = ids.insert(event["id"].as_u64().expect("an id"), event["ts"].as_f64().expect("a time"));
                assert_eq!(before, None, "one arrow, one id");
            }
            ids
        };
        let (starts, finishes) = (ends("s"), ends("f"));
        assert!(!starts.is_empty());
        assert_eq!(starts.keys().collect::<Vec<_>>(), finishes.keys().collect::<Vec<_>>());
        assert!(starts.iter().all(|(id, start)| *start <= finishes[id]));
    }
}

#[test]
fn slices_of_a_perfetto_thread_only_nest() {
    let mut open: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let mut slices: Vec<(u64, f64, f64)> = Vec::new();
    for event in events_of(&synthetic::timeline(5_000)).iter().filter(|event| event["ph"] == "X") {
        let number = |name: &str| event[name].as_f64().expect("a number");
        slices.push((event["tid"].as_u64().expect("a thread"), number("ts"), number("ts") + number("dur")));
    }
    assert!(slices.iter().any(|(thread, ..)| thread % 2 == 0) && slices.iter().any(|(thread, ..)| thread % 2 == 1));
    // The longer of two that begin together is the outer one.
    slices.sort_by(|one, other| {
        (one.0, one.1).partial_cmp(&(other.0, other.1)).expect("numbers").then(other.2.total_cmp(&one.2))
    });
    for (thread, start, end) in slices {
        let open = open.entry(thread).or_default();
        open.retain(|outer| *outer > start + 1e-6);
        assert!(
            open.iter().all(|outer| end <= outer + 1e-6),
            "thread {thread}: {start} to {end} does not fit into {open:?}"
        );
        open.push(end);
    }
}

#[test]
fn each_lane_has_a_name_in_the_perfetto_trace() {
    let events = events_of(&synthetic::timeline(500));
    let names: Vec<&str> = events
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .filter_map(|event| event["args"]["name"].as_str())
        .collect();
    for name in ["cluster", "r0", "r0 messages", "r2", "c1", "c2 messages"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

#[test]
fn an_empty_story_breaks_nothing() {
    let timeline = Timeline::default();
    assert_eq!(data_of(&html(&timeline))["what"], "");
    assert_eq!(lines_of(&timeline).len(), 1);
    assert!(events_of(&timeline).iter().all(|event| event["ph"] == "M"));
}

#[test]
fn references_that_lead_nowhere_break_nothing() {
    let timeline = hostile();
    assert_eq!(data_of(&html(&timeline))["what"].as_str().map(str::len), Some(60));
    assert_eq!(lines_of(&timeline).len(), 62);
    assert!(!events_of(&timeline).is_empty());
}
