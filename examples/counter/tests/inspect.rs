//! `inspect`, as an operator meets it: what it prints, its exit codes, and that it changes nothing.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::SystemTime;

use support::{configure, counter, last_line, start, stderr, until};

fn inspect(folder: &Path, more: &[&str]) -> Output {
    counter(&[&["inspect", folder.to_str().expect("a path")], more].concat())
}

/// Ended with this exit code, and said each of these texts on standard output.
fn assert_shown(output: &Output, code: i32, texts: &[&str]) {
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(!stderr(output).contains("panicked"), "{output:?}");
    for text in texts {
        assert!(shown.contains(text), "no {text:?} in {shown}");
    }
}

fn picture(folder: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let mut files: Vec<_> = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.push(folder.to_owned());
    let modified = |path: &Path| fs::metadata(path).and_then(|of| of.modified()).expect("metadata");
    files.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap_or_default(), modified(&path))).collect()
}

/// As [`inspect`], of a folder that has to be afterwards as it was.
fn looked_at(folder: &Path, more: &[&str]) -> Output {
    let before = picture(folder);
    let output = inspect(folder, more);
    assert!(picture(folder) == before, "something was changed in {}", folder.display());
    output
}

/// What happens to a folder from its format to its loss.
#[test]
fn a_folder_is_shown_new_in_use_spoiled_copied_and_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path());
    assert!(counter(&["format", "--config", &config]).status.success());
    let data = folder.path().join("data/replica-1");
    let new = looked_at(&data, &[]);
    assert_shown(
        &new,
        0,
        &[
            "cluster       77",
            "replica       1",
            "member        0 at 127.",
            "(this one)",
            "started 0 times",
            "head 0, for certain",
        ],
    );
    {
        let replicas = [start(&config, "0"), start(&config, "1"), start(&config, "2")];
        assert_eq!(last_line(&counter(&["add", "--config", &config, "--timeout", "20", "5"])), "5");
        assert_eq!(last_line(&counter(&["add", "--config", &config, "--timeout", "20", "2"])), "7");
        let process = format!("by process {}", replicas[1].child.id());
        until("both ops are on its disk", || {
            let found = inspect(&data, &[]);
            assert_shown(&found, 0, &[&process, "where it belongs", "started once"]);
            String::from_utf8_lossy(&found.stdout).lines().last().is_some_and(|line| line.contains("to 4: clean"))
        });
    }
    assert_shown(
        &looked_at(&data, &[]),
        0,
        &["by no process that can be seen", "known         of replica 0", "ops 1 to 4: clean"],
    );
    let each = looked_at(&data, &["--from", "2", "--to", "3"]);
    assert_shown(&each, 0, &["op 2: clean; view 0, header ", "op 3: clean; view 0, header "]);
    assert!(!String::from_utf8_lossy(&each.stdout).contains("op 4: "), "{each:?}");
    assert_shown(&looked_at(&data, &["--from", "9"]), 0, &["no op from 9 on"]);

    let copied = folder.path().join("copied");
    fs::create_dir(&copied).expect("a folder");
    for file in ["log", "state"] {
        fs::copy(data.join(file), copied.join(file)).expect("a copy");
    }
    assert_shown(
        &looked_at(&copied, &[]),
        0,
        &["a copy, or restored", "place         log has inode", "ops 1 to 4: clean"],
    );

    let mut log = fs::read(data.join("log")).expect("the log");
    log[300] ^= 1;
    fs::write(data.join("log"), log).expect("the log");
    let spoiled = looked_at(&data, &[]);
    assert_shown(&spoiled, 1, &["op 1: body damaged, header intact", "ops 2 to 4: clean"]);
    let words = stderr(&spoiled);
    assert!(words.contains("is damaged (1 op)") && words.contains("start the replica"), "{words}");

    let mut state = fs::read(data.join("state")).expect("the state");
    state[4096..].fill(0);
    fs::write(data.join("state"), state).expect("the state");
    let lost = looked_at(&data, &[]);
    assert_shown(&lost, 4, &["none can be read: its copies: damaged, damaged, damaged, damaged"]);
    assert!(stderr(&lost).contains("no replica starts here: no intact copy of the newest vsr state"), "{lost:?}");
}

#[test]
fn what_cannot_be_inspected_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    for (more, code, words) in [
        (&[][..], 4, "is not formatted"),
        (&["--from", "3", "--to", "2"], 2, "no op is between"),
        (&["--from", "x"], 2, "invalid value"),
    ] {
        let output = looked_at(folder.path(), more);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stderr(&output).contains(words) && output.stdout.is_empty(), "{output:?}");
    }
    fs::write(folder.path().join("seal"), "").expect("a file");
    let output = looked_at(folder.path(), &[]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("holds a RocksDB storage"), "{output:?}");
}
