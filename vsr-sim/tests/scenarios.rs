//! Every scenario file passes, and shows what it says; a scenario can fail in every way that it should.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vsr_sim::scenario::{Failure, files, play};

fn here() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
}

/// Every scenario of the project, with its text.
fn scenarios() -> BTreeMap<PathBuf, String> {
    let text = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).expect("a scenario");
        (file, text)
    };
    files(&here().join("scenarios")).expect("the scenarios").into_iter().map(text).collect()
}

#[test]
fn every_scenario_passes_and_shows_what_it_says() {
    let files = scenarios();
    assert!(files.len() >= 130, "there are {} scenarios", files.len());
    let mut failed = Vec::new();
    for (file, text) in &files {
        let played = play(text);
        if let Some(why) = played.failure {
            failed.push(format!("{}: {why}", file.display()));
        } else if played.text != *text && text.lines().any(|line| line.starts_with('>')) {
            failed.push(format!("{}: it shows something else now", file.display()));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The ways in which the id of a scenario is written: of `no-01-a-gap…` it is `NO-01`, of `d-03-…` `D03`, of `b-08-…` `B8`.
fn ids(name: &str) -> Option<[String; 3]> {
    let (series, rest) = name.split_once('-')?;
    let series = series.to_uppercase();
    let digits = rest.split('-').next()?;
    let number: u32 = digits.parse().ok()?;
    Some([format!("{series}-{digits}"), format!("{series}{digits}"), format!("{series}{number}")])
}

#[test]
fn every_scenario_is_in_the_folder_of_a_behaviour_and_names_its_id_in_its_first_line() {
    let mut wrong = Vec::new();
    for (file, text) in scenarios() {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let folder = file.strip_prefix(here().join("scenarios")).ok().and_then(Path::parent).unwrap_or(Path::new(""));
        // Forged messages are tried in Rust, in the module of the same name.
        if folder == Path::new("") || !here().join("tests/schedules").join(folder).with_extension("rs").is_file() {
            wrong.push(format!("{name} is in `{}`, and the schedules have no such module", folder.display()));
        }
        let first = text.lines().next().unwrap_or_default();
        let words: Vec<&str> = first.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
        let is_named = ids(&name).is_some_and(|ids| ids.iter().any(|id| words.contains(&id.as_str())));
        if !first.starts_with('#') || !is_named {
            wrong.push(format!("{name} does not begin with a comment that names its id"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a section of the course shows: the path of a scenario in the repository.
fn shown(section: &str) -> Option<&str> {
    let (_, rest) = section.split_once("{{#include ../../")?;
    Some(rest.split_once("}}")?.0)
}

#[test]
fn the_course_of_the_book_shows_ten_scenarios_and_points_at_what_is_in_them() {
    let course = std::fs::read_to_string(here().join("../book/src/course.md")).expect("the chapter");
    let (played, mut seen, mut wrong) = (scenarios(), BTreeSet::new(), Vec::new());
    for section in course.split("\n## ").skip(1) {
        let Some(path) = shown(section) else { continue };
        seen.insert(path);
        // Those that are played in `every_scenario_passes_and_shows_what_it_says`.
        let file = here().join(path.strip_prefix("vsr-sim/").unwrap_or(path));
        let Some(text) = played.get(&file) else {
            wrong.push(format!("there is no {path}"));
            continue;
        };
        if !section.contains(&format!("\ncargo run --release -p vsr-sim -- run {path}\n")) {
            wrong.push(format!("{path}: its section does not say how to play it"));
        }
        let points: Vec<&str> = section.lines().filter(|line| line.starts_with("- ")).collect();
        if points.is_empty() {
            wrong.push(format!("{path}: its section does not say what to look for"));
        }
        let spans = points.into_iter().flat_map(|line| line.split('`').skip(1).step_by(2));
        wrong.extend(spans.filter(|span| !text.contains(*span)).map(|span| format!("{path}: it has no `{span}`")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(seen.len(), 10, "{seen:?}");
}

fn failure(text: &str) -> Failure {
    play(text).failure.unwrap_or_else(|| panic!("this passes: {text}"))
}

#[test]
fn a_line_that_is_no_command_is_refused_with_its_number_and_what_would_be_right() {
    for (text, line, says) in [
        ("", 1, "begins with `cluster 3`"),
        ("tick 10ms", 1, "the first command is `cluster N`"),
        ("cluster", 1, "the number of replicas is missing"),
        ("cluster 0", 1, "1 to 9"),
        ("cluster 3 dealy=1ms", 1, "there is no option dealy"),
        ("cluster 3 clients=1000000", 1, "64 are enough"),
        ("cluster 3 pipeline=0", 1, "pipeline_max"),
        ("cluster 3 window=4294967295", 1, "window"),
        ("cluster 3 drift=5000", 1, "half as fast"),
        ("cluster 3 delay=5000000h", 1, "too long"),
        ("cluster 3\ntick 5000000h", 2, "too long"),
        ("cluster 3\nslow-disk r0 x18446744073709551615 1s", 2, "x100000"),
        ("cluster 3\nhold late Ping\ndeliver late 18446744073709551615", 3, "1000 are enough"),
        ("cluster 3\ncluster 3", 2, "a cluster already"),
        ("cluster 3\n\n# a comment\nflush r1", 4, "flush is not a command"),
        ("cluster 3\ncrash r3", 2, "r3 is not a node"),
        ("cluster 3\ncrash c0", 2, "is a client"),
        ("cluster 3\ncrash r1 softly", 2, "lose-unsynced"),
        ("cluster 3\ntick soon", 2, "is not a time"),
        ("cluster 3\ntick 1ms 2ms", 2, "2ms is too much"),
        ("cluster 3\nrequest c0 increment 5", 2, "add R N"),
        ("cluster 3\npartition r0 | r1", 2, "r2 is on neither side"),
        ("cluster 3\npartition r0 r1 | r1 r2", 2, "on both sides"),
        ("cluster 3\nhold late Prepar r0>r1", 2, "not a kind of message"),
        ("cluster 3\nrelease late", 2, "nothing is held"),
        ("cluster 3\nuntil r1 happy", 2, "a replica is normal"),
        ("cluster 3\nat 5ms tick 1ms", 2, "nothing that can be planned"),
        ("cluster 3\ndrop Prepare r0>r1", 2, "is a number"),
        ("cluster 3\nwrite r1 5 explode", 2, "misdirect"),
        ("cluster 3\nexpect r1 normal within 2s", 2, "write `until"),
        ("cluster 3\nexpect c0 heard 5 within 2s", 2, "write `until"),
        ("cluster 3\nexpect c0 heard", 2, "what it heard is missing"),
        ("cluster 3\ncrash-after Requests 1 c0>r0", 2, "c0 is a client"),
        ("cluster 3\nmaybe crash r1", 2, "crash is not planned"),
        ("cluster 3\nbad-sector r1 op=0", 2, "is not an op"),
        ("cluster 3 rogues=99", 1, "16 are enough"),
        ("cluster 3\nmachine Stock", 2, "before `cluster`"),
        ("machine Stock\ncluster 3", 1, "for the state machine Stock, and here is Registers"),
    ] {
        let Failure::Unreadable { line: at, why } = failure(text) else { panic!("{text}: {:?}", failure(text)) };
        assert_eq!(at, line, "{text}: {why}");
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[test]
fn what_does_not_come_to_hold_fails_with_the_state_of_the_cluster() {
    let why = failure("cluster 3\ntick 10ms\ncrash r1\ncrash r2\nrequest c0 add 0 1\nuntil c0 idle within 2s");
    assert!(matches!(&why, Failure::Unmet { line: 6, why } if why.contains("r0 (head")), "{why}");
    let why = failure("cluster 3\ntick 10ms\nexpect r1 primary");
    assert!(matches!(why, Failure::Unmet { line: 3, .. }), "{why}");
    let why = failure("cluster 3\nrestart r1");
    assert!(matches!(why, Failure::Unmet { line: 2, .. }), "it runs already: {why}");
}

#[test]
fn a_scenario_that_shows_something_else_fails_at_the_line_that_differs() {
    let text = "cluster 3\ntick 10ms\nrequest c0 add 0 5\nuntil c0 idle\n";
    let recorded = play(text).text;
    assert_eq!(play(text).failure, None);
    let expected = play(&format!("{text}> nothing\n")).failure;
    assert!(matches!(expected, Some(Failure::Differs { .. })), "{expected:?}");
    assert!(!recorded.contains('>') || recorded.lines().any(|line| line.starts_with("> ")), "{recorded}");
}

#[test]
fn a_lost_disk_is_refused_and_the_others_go_on() {
    let played = play(
        "cluster 3\ntick 10ms\nrequest c0 add 0 5\nuntil c0 idle\nwipe r0\nexpect r0 down\nrequest c0 add 0 1\nuntil c0 idle\n\
         expect c0 heard 6\ncheck\n",
    );
    assert_eq!(played.failure, None);
}

#[test]
fn when_every_disk_is_lost_waiting_is_right() {
    let played = play("cluster 3 liveness=5s\ntick 10ms\nwipe r0\nwipe r1\nwipe r2\nrequest c0 add 0 1\ngo\n");
    assert_eq!(played.failure, None);
    assert_eq!(played.report.verdict.name(), "unrecoverable");
    assert!(played.report.verdict.to_string().contains("0 disks are left"), "{}", played.report.verdict);
}

#[test]
fn a_cluster_has_the_quorums_limits_and_time_outs_that_its_line_gives_it() {
    let played = play(
        "cluster 3 quorums=3/2/1 pipeline=2 batch-requests=1 idle-min=5 heartbeat=20ms primary-timeout=100ms quorum-timeout=80ms view-change-timeout=100ms\n\
         tick 10ms\nrequest c0 add 0 5\nuntil c0 idle\ncut r2|r0\ncut r2|r1\nrequest c0 add 0 1\ntick 500ms\nexpect c0 waits\n\
         heal\nuntil c0 idle\nexpect c0 heard 6\nsettle\ncheck\n",
    );
    assert_eq!(played.failure, None, "of three that must all hold a copy, two are too few");
    let refused = play("cluster 3 quorums=1/1/1\n").failure;
    let Some(Failure::Unreadable { why, .. }) = refused else { panic!("{refused:?}") };
    assert!(why.contains("do not meet"), "{why}");
}

/// It used to wait for a client that hears the words `5 within 2s`.
#[test]
fn until_a_client_has_heard_something_within_a_time_ends_when_it_has_or_when_the_time_is_over() {
    let heard = play("cluster 3\nrequest c0 add 0 5\nuntil c0 heard 5 within 2s\nexpect c0 idle\n");
    assert_eq!(heard.failure, None);
    let why = failure("cluster 3\nrequest c0 add 0 5\nuntil c0 heard 6 within 2s");
    assert!(matches!(why, Failure::Unmet { line: 3, .. }), "{why}");
    let long = play("cluster 3\nrequest c0 add 0 5\nuntil c0 heard 6 within 2s").report.simulated;
    assert!(long.as_secs() >= 2 && long.as_secs() < 4, "it took {long:?}");
}

/// A fault that is misspelled, or comes too late, proves nothing, and used to say nothing.
#[test]
fn a_planned_fault_that_never_comes_about_fails_the_scenario_unless_it_may() {
    for fault in ["drop Prepare 700 r0>r1", "write r1 500 fail", "read r1 500 fail", "at 5s crash r1"] {
        let text = |maybe: &str| format!("cluster 3\n{maybe}{fault}\nrequest c0 add 0 5\nuntil c0 idle\n");
        let why = failure(&text(""));
        assert!(matches!(&why, Failure::Unmet { line: 2, why } if why.contains(fault)), "{why}");
        assert_eq!(play(&text("maybe ")).failure, None, "{fault}");
    }
    assert_eq!(play("cluster 3\nat 5ms crash r2\ntick 10ms\nexpect r2 down\n").failure, None);
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let why = failure("cluster 3\nrestart r1").to_string();
    assert!(why.contains("`restart r1` has no effect"), "{why}");
    let why = failure("cluster 3\ntick 10ms\nexpect violation").to_string();
    assert!(why.contains("no property is broken"), "{why}");
    let why = failure("cluster 3\n> something\n").to_string();
    assert!(why.contains("the file says `> something`"), "{why}");
}
