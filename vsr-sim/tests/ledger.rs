//! The ledger of hazards: every known way in which other implementations lost data or stalled, and every schedule that an earlier wording
//! of the design allowed, has a test of its name, or says which feature it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every id that must be there: the hazards by section, then the schedules.
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
    range("SF-", &[1, 2, 3, 4, 6, 9, 10, 11, 13, 15, 16, 17, 19, 20, 21, 23, 25], 2);
    range("CL-", &[1, 2, 4, 5, 6, 7, 10, 11, 12, 13, 15], 2);
    range("LR-", &[1, 4, 5, 6, 7, 9, 10], 2);
    range("RF-", &[1, 2, 3, 4, 6, 7, 9, 12, 13, 15], 2);
    range("CP-", &[1, 2, 3, 5, 7], 2);
    range("NW-", &[1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 17, 18, 20], 2);
    range("CK-", &[1, 2, 4], 2);
    range("UP-", &[1, 2, 4, 5], 2);
    range("PR-", &[1, 3, 6], 2);
    range("F", &up_to(20), 1);
    range("G", &up_to(21), 1);
    range("M", &up_to(19), 1);
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

#[test]
fn every_hazard_has_a_test_or_says_what_it_waits_for() {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let text = fs::read_to_string(here.join("tests/ledger.txt")).expect("the ledger");
    let mut code = String::new();
    sources(here.parent().expect("the workspace"), &mut code);
    let mut ledger = BTreeMap::new();
    let (mut wrong, mut played) = (Vec::new(), BTreeSet::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let (Some(id), Some(kind), Some(rest)) = (words.next(), words.next(), words.next()) else {
            wrong.push(format!("not an entry: {line}"));
            continue;
        };
        match kind {
            "test" => {
                for test in rest.split(' ') {
                    if let Some(scenario) = test.strip_prefix("scenario:") {
                        if !here.join("scenarios").join(format!("{scenario}.vsr")).exists() {
                            wrong.push(format!("{id}: there is no scenario {scenario}"));
                        }
                        played.insert(scenario.to_owned());
                        continue;
                    }
                    // A function, or a name that the conformance suite's macro makes one of.
                    if !code.contains(&format!("fn {test}(")) && !code.contains(&format!("{test} =>")) {
                        wrong.push(format!("{id}: there is no test {test}"));
                    }
                }
            }
            "waits" | "simulator" | "program" => {}
            _ => wrong.push(format!("{id}: neither test nor waits, simulator, program: {kind}")),
        }
        if ledger.insert(id.to_owned(), kind.to_owned()).is_some() {
            wrong.push(format!("{id} stands twice"));
        }
    }
    let files = fs::read_dir(here.join("scenarios")).expect("the scenarios");
    let names =
        files.filter_map(|file| file.ok()?.file_name().into_string().ok()?.strip_suffix(".vsr").map(str::to_owned));
    wrong.extend(names.filter(|name| !played.contains(name)).map(|name| format!("scenario {name} is in no entry")));
    wrong.extend(ids().into_iter().filter(|id| !ledger.contains_key(id)).map(|id| format!("{id} is missing")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
