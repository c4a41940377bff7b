//! The program, as a person meets it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    Command::new(env!("CARGO_BIN_EXE_vsr-sim")).args(arguments).current_dir(root).output().expect("the program")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_seed_a_sweep_a_scenario_and_a_history_end_with_their_lines_and_exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("7.html");
    let seed = run(&["7", "--quiet", "--html", page.to_str().expect("a path")]);
    assert_eq!(seed.status.code(), Some(0), "{seed:?}");
    assert!(text(&seed).trim_end().lines().last().is_some_and(|line| line.starts_with("seed=7 verdict=pass hash=")));
    assert!(std::fs::read_to_string(&page).expect("the page").contains("<canvas"));

    let sweep = run(&["--seeds", "0..4", "--quiet"]);
    assert_eq!(sweep.status.code(), Some(0), "{sweep:?}");
    assert!(text(&sweep).contains("seeds=4 passed=4 failed=0 unrecoverable=0"), "{}", text(&sweep));

    let file = "vsr-sim/scenarios/normal/no-01-a-gap-is-not-acknowledged.vsr";
    let scenario = run(&["run", file]);
    assert_eq!(scenario.status.code(), Some(0), "{scenario:?}");
    assert!(text(&scenario).ends_with(&format!("{file}: pass\n")));

    let (good, bad) = ("vsr-sim/tests/histories/etcd/etcd_002.log", "vsr-sim/tests/histories/etcd/etcd_000.log");
    let histories = run(&["check-history", good, bad]);
    assert_eq!(histories.status.code(), Some(1), "{histories:?}");
    let lines = text(&histories);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[0], format!("{good}: linearizable"));
    assert!(lines[1].starts_with(&format!("{bad}: not linearizable")) && lines.len() == 2, "{lines:?}");
}

#[test]
fn a_folder_of_scenarios_is_played_with_the_folders_in_it_and_one_without_any_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("b/c");
    std::fs::create_dir_all(&inner).expect("a folder");
    for file in [folder.path().join("a.vsr"), inner.join("d.vsr"), folder.path().join("b/notes.md")] {
        std::fs::write(file, "# Nothing happens.\ncluster 3\n").expect("a file");
    }
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    let output = run(&["run", &path(folder.path())]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let passed = [folder.path().join("a.vsr"), inner.join("d.vsr")].map(|file| format!("{}: pass\n", file.display()));
    assert_eq!(text(&output), passed.concat());

    std::fs::remove_file(inner.join("d.vsr")).expect("the file is there");
    let output = run(&["run", &path(&folder.path().join("b"))]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no file in it that ends in .vsr"), "{output:?}");
}

/// It used to be played with the simulator's own machine, and to pass.
#[test]
fn a_scenario_of_a_users_machine_is_refused_with_file_and_line_and_an_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stock.vsr");
    std::fs::write(&file, "# Of a stock.\nmachine Stock\ncluster 3\nload\ngo\n").expect("a file");
    let output = run(&["run", file.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let last = text(&output).lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with(&format!("{}:2: ", file.display())), "{last}");
    assert!(last.contains("is for the state machine Stock, and here is Registers"), "{last}");
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    for (arguments, says) in [
        (&["--seeds", "5..5"][..], "the range is empty"),
        (&["--seeds", "0..5", "--html", "x.html"], "cannot be used with"),
        (&["--all-classes", "7"], "cannot be used with"),
        (&["run", "no-such-file.vsr"], "no-such-file.vsr"),
        (&["explore", "--replicas", "0"], "can be explored"),
        (&["mutants", "no-such-bug"], "there is no"),
        (&["7", "--set", "no-such-option=1"], "there is no option no-such-option; there are"),
        (&["7", "--set", "lost-disks"], "is not OPTION=VALUE"),
        (&["--seeds", "0..9", "--set", "drift=900"], "seed 0: drift=900"),
    ] {
        let output = run(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {words}");
        assert!(words.contains(says), "{arguments:?}: {words}");
    }
}

/// Each `cargo run … -p vsr-sim -- <arguments>` of the guide is understood.
#[test]
fn every_command_of_the_book_is_understood() {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    let chapters = std::fs::read_dir(root.join("book/src")).expect("the book");
    pages.extend(chapters.map(|chapter| chapter.expect("a chapter").path()));
    let mut checked = 0;
    for page in pages {
        let page = std::fs::read_to_string(&page).expect("a page");
        for line in page.lines().filter(|line| line.starts_with("cargo run") && line.contains("-p vsr-sim")) {
            let arguments = line.split_once(" -- ").map_or("", |(_, arguments)| arguments);
            let mut words: Vec<&str> = arguments.split_whitespace().collect();
            words.push("--help");
            let output = run(&words);
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(text(&output).contains(option), "{line}: there is no {option}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 12, "only {checked} commands were found");
}
