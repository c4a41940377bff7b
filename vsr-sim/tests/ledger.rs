//! The ledger of hazards, `docs/hazards.md`: every known way in which other implementations lost data or stalled, every schedule that an
//! earlier wording of the rules allowed, and every invariant has a guard that is in the tree, or says which feature it waits for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sources::tests;

mod sources;

/// Every id that must be there: the hazards by series, then the schedules, then the invariants.
fn ids() -> Vec<String> {
    let mut ids = Vec::new();
    let mut range = |prefix: &str, numbers: &[u32], width: usize| {
        ids.extend(numbers.iter().map(|number| format!("{prefix}{number:0width$}")));
    };
    let up_to = |last: u32| (1..=last).collect::<Vec<_>>();
    range("D", &up_to(31), 2);
    range("B", &up_to(49), 1);
    range("H5-", &up_to(15), 2);
    range("NO-", &[1, 2, 5, 6, 7, 8, 9, 12], 2);
    range("VC-", &[1, 2, 3, 5, 7, 8, 10, 11, 13, 15, 18, 20, 21], 2);
    range("RC-", &[1, 2, 3, 5, 7, 9, 10, 11, 12, 14], 2);
    range("ST-", &[1, 2, 4, 6, 7, 9, 10, 12, 13], 2);
    range("SF-", &[1, 2, 3, 4, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 25, 26], 2);
    range("CL-", &[1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15], 2);
    range("LR-", &[1, 4, 5, 6, 7, 9, 10], 2);
    range("RF-", &[1, 2, 3, 4, 6, 7, 9, 12, 13, 15], 2);
    range("CP-", &[1, 2, 3, 5, 7], 2);
    range("NW-", &[1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 17, 18, 20], 2);
    range("CK-", &[1, 2, 4], 2);
    range("UP-", &[1, 2, 4, 5], 2);
    range("PR-", &[1, 3, 6], 2);
    range("L-", &up_to(27), 2);
    range("LV-", &[1, 2], 2);
    range("F", &up_to(20), 1);
    range("G", &up_to(21), 1);
    range("M", &up_to(19), 1);
    range("I", &up_to(18), 1);
    range("B-", &up_to(9), 2);
    range("B-", &[10, 11, 12, 13, 14, 15, 16], 2);
    range("B-", &[20, 21, 22, 23, 24, 25, 26], 2);
    range("B-", &[30, 31, 32, 33, 34, 35, 36, 37, 38, 39], 2);
    ids.push("B-3A".to_owned());
    let mut range =
        |prefix: &str, numbers: &[u32]| ids.extend(numbers.iter().map(|number| format!("{prefix}{number}")));
    range("B-", &[40, 41, 42, 43, 44, 45, 46]);
    ids
}

/// The text of every source file below the folder.
fn sources(folder: &Path, into: &mut String) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, into);
        } else if name.ends_with(".rs") && name != "ledger.rs" {
            into.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

/// The names of the scenarios, in whatever folder they are.
fn scenarios(folder: &Path, into: &mut BTreeSet<String>) {
    for path in fs::read_dir(folder).expect("the scenarios").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            scenarios(&path, into);
        } else if path.extension().is_some_and(|end| end == "vsr") {
            into.insert(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
}

/// What the tree has to guard against hazards.
struct Tree {
    code: String,
    /// The names of all test functions.
    tests: BTreeSet<String>,
    simulator: String,
    scenarios: BTreeSet<String>,
    /// Those that guard something.
    played: BTreeSet<String>,
}

impl Tree {
    fn read() -> Tree {
        let here = here();
        let (mut code, mut simulator, mut names) = (String::new(), String::new(), BTreeSet::new());
        sources(here.parent().expect("the workspace"), &mut code);
        sources(&here.join("src"), &mut simulator);
        scenarios(&here.join("scenarios"), &mut names);
        let tests = tests(&code).into_iter().map(str::to_owned).collect();
        Tree { code, tests, simulator, scenarios: names, played: BTreeSet::new() }
    }

    /// What is wrong with the guard of a row: ``test `a`, `b`; scenario `c`; waits for …``.
    fn check(&mut self, guard: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for part in guard.split("; ") {
            let said = part.strip_prefix("waits for ").or(part.strip_prefix("simulator: "));
            if said.is_some_and(|said| !said.is_empty()) {
                continue;
            }
            let (kind, names) = part.split_once(' ').unwrap_or_default();
            for name in names.split(", ") {
                let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else {
                    wrong.push(format!("not a guard: {part}"));
                    continue;
                };
                let is_there = match kind {
                    // A function that is a test, or a name that the conformance suite's macro makes one of.
                    "test" => self.tests.contains(name) || self.code.contains(&format!("{name} =>")),
                    "scenario" => {
                        self.played.insert(name.to_owned());
                        self.scenarios.contains(name)
                    }
                    "checker" => self.simulator.contains(&format!("\"{name}\"")),
                    _ => false,
                };
                if !is_there {
                    wrong.push(format!("there is no {kind} {name}"));
                }
            }
        }
        wrong
    }
}

#[test]
fn a_guard_that_is_no_test_is_found() {
    let source =
        "fn helper() {}\n\n/// Why.\n#[test]\nfn guards() {}\n\n#[tokio::test]\nasync fn waits() {}\nfn below() {}\n";
    assert_eq!(tests(source), ["guards", "waits"]);
}

fn here() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
}

#[test]
fn every_hazard_has_a_guard_or_says_what_it_waits_for() {
    let text = fs::read_to_string(here().join("../docs/hazards.md")).expect("docs/hazards.md");
    let mut tree = Tree::read();
    let (mut wrong, mut known) = (Vec::new(), BTreeSet::new());
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            // The heads of the tables, and the table of the series.
            ["", "id", ..] | ["", _, _, _, ""] => {}
            ["", id, what, _, guard, ""] => {
                wrong.extend(tree.check(guard).into_iter().map(|why| format!("{id}: {why}")));
                if what.is_empty() {
                    wrong.push(format!("{id} does not say what goes wrong"));
                }
                if !known.insert(id.to_owned()) {
                    wrong.push(format!("{id} stands twice"));
                }
            }
            _ => wrong.push(format!("not a row: {line}")),
        }
    }
    let idle = tree.scenarios.difference(&tree.played);
    wrong.extend(idle.map(|name| format!("scenario {name} guards nothing")));
    wrong.extend(ids().into_iter().filter(|id| !known.contains(id)).map(|id| format!("{id} is missing")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
