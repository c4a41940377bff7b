//! The page in a browser without a window, where there is one.

mod synthetic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vsr_sim::report::render::html;
use vsr_sim::report::timeline::{CLUSTER, Lane, Record, State, Timeline, What};

const RECORDS: usize = 100_000;
/// For a machine without graphics hardware that does ten other things.
const FRAME_MS_MAX: f64 = 250.0;

/// A browser that starts.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let starts = |program: &PathBuf| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|program| program.is_file() && starts(program))
}

/// What the page's body says of itself after it was drawn, by attribute; none without a browser.
fn opened(name: &str, timeline: &Timeline) -> Option<impl Fn(&str) -> String + use<>> {
    let Some(browser) = browser() else {
        println!("skipped: no chromium, chromium-browser or google-chrome on the PATH");
        return None;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("the folder can be made");
    let page = folder.join("page.html");
    fs::write(&page, html(timeline)).expect("the page can be written");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--window-size=1600,1000", "--timeout=60000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}#bench", page.display()))
        .output()
        .expect("the browser runs");
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(dom.contains("<body"), "the browser printed no page: {}", String::from_utf8_lossy(&output.stderr));
    Some(move |attribute: &str| {
        let body = dom.split_once("<body").map_or("", |(_, rest)| rest);
        let value = body.split_once(&format!("{attribute}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        value.map_or_else(|| panic!("the body has no {attribute}"), |(value, _)| value.to_owned())
    })
}

#[test]
fn a_hundred_thousand_records_are_drawn_and_stay_fluid() {
    let mut timeline = synthetic::timeline(RECORDS);
    timeline.records.truncate(RECORDS);
    let Some(body) = opened("large", &timeline) else { return };
    assert_eq!(body("data-error"), "");
    assert_eq!(body("data-drawn"), RECORDS.to_string());
    let frame: f64 = body("data-frame-median").parse().expect("a number");
    println!("the median of 60 frames took {frame} ms, the slowest {} ms", body("data-frame-worst"));
    assert!(frame < FRAME_MS_MAX, "the median frame took {frame} ms");
}

#[test]
fn an_empty_story_is_drawn() {
    let Some(body) = opened("empty", &Timeline::default()) else { return };
    assert_eq!((body("data-error"), body("data-drawn")), (String::new(), "0".to_owned()));
}

#[test]
fn a_story_of_odd_ends_is_drawn() {
    let text =
        || "</script><script>document.body.dataset.error='owned'</script><img src=x onerror=\"throw 1\">".to_owned();
    let whats = [
        What::Sent { to: 1, kind: "Prepare", text: text() },
        What::Sent { to: 9, kind: "Unheard of", text: text() },
        What::Delivered { sent: 0 },
        What::Delivered { sent: 0 },
        What::Delivered { sent: 4 },
        What::Lost { sent: 0, why: "receiver is down" },
        What::Lost { sent: 77, why: "dropped" },
        What::Status { view: u64::MAX, state: State::Paused, primary: false },
        What::Status { view: 3, state: State::ViewChange, primary: false },
        What::Numbers { head: 7, commit: 9 },
        What::Fault { text: text(), until: Some(0) },
        What::Asked { text: text() },
        What::Heard { asked: 11, text: text() },
        What::Heard { asked: 2, text: text() },
        What::Note { text: text() },
    ];
    let record = |(index, what): (usize, What)| Record {
        at: 5,
        lane: [0, 1, 2, 40, CLUSTER][index % 5],
        cause: Some(index as u32),
        what,
    };
    let timeline = Timeline {
        title: text(),
        verdict: text(),
        lanes: [true, false, true].map(|replica| Lane { name: text(), replica }).to_vec(),
        records: whats.into_iter().cycle().take(150).enumerate().map(record).collect(),
        counters: vec![(text(), 1)],
        ..Timeline::default()
    };
    let Some(body) = opened("odd", &timeline) else { return };
    assert_eq!((body("data-error"), body("data-drawn")), (String::new(), "150".to_owned()));
}
