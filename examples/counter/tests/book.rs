//! The commands in README and book are commands that there are; paths and links in them and in `docs` lead somewhere.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..")
}

/// Each page, and its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for folder in ["book/src", "docs", "docs/protocol"] {
        let chapters = std::fs::read_dir(root().join(folder)).expect("a folder of pages");
        let chapters = chapters.map(|chapter| chapter.expect("a page").path());
        pages.extend(chapters.filter(|page| page.extension().is_some_and(|end| end == "md")));
    }
    let read = |page: PathBuf| {
        let text = std::fs::read_to_string(&page).expect("a page");
        (page, text)
    };
    pages.into_iter().map(read).collect()
}

fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    for (_, text) in pages() {
        commands.extend(text.lines().filter(|line| line.starts_with("cargo run")).map(str::to_owned));
    }
    commands
}

/// The anchor of a heading, as it stands in a link.
fn anchor(heading: &str) -> String {
    let letters = heading.trim_start_matches('#').trim().chars().flat_map(char::to_lowercase);
    letters.filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Whether a link from page to page leads to a page, and to a heading that is there.
fn leads_somewhere(page: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = page.parent().expect("a folder").join(file);
    let Ok(text) = std::fs::read_to_string(target) else { return false };
    let mut headings = text.lines().filter(|line| line.starts_with('#'));
    heading.is_empty() || headings.any(|line| anchor(line) == heading)
}

/// Paths of the project in backticks, and links from page to page.
#[test]
fn every_path_of_the_book_is_there() {
    const FOLDERS: [&str; 9] = [
        "book",
        "docs",
        "examples",
        "scripts",
        "vsr",
        "vsr-net-tcp",
        "vsr-sim",
        "vsr-storage-file",
        "vsr-storage-rocksdb",
    ];
    let is_path = |word: &&str| {
        let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
        is_plain && word.split_once('/').is_some_and(|(folder, _)| FOLDERS.contains(&folder))
    };
    let mut checked = 0;
    for (page, text) in pages() {
        let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        for path in quoted.flat_map(str::split_whitespace).filter(is_path) {
            assert!(root().join(path).exists(), "{}: there is no {path}", page.display());
            checked += 1;
        }
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| link.split('#').next().is_some_and(|file| file.ends_with(".md"))) {
            assert!(leads_somewhere(&page, link), "{}: a link to {link}", page.display());
            checked += 1;
        }
    }
    assert!(checked >= 140, "only {checked} paths were found in the book");
    let page = root().join("docs/protocol.md");
    assert!(leads_somewhere(&page, "protocol/reads.md#83-leases-not-built-yet"));
    assert!(!leads_somewhere(&page, "protocol/reads.md#83-leases") && !leads_somewhere(&page, "reads.md"));
}

/// Each `cargo run … -p counter -- <arguments>` is understood by the program: with `--help` at its end it explains itself, and every option
/// that the book gives stands in that explanation.
#[test]
fn every_command_of_the_book_is_understood() {
    let mut checked = 0;
    for command in commands() {
        let command = command.split(" #").next().unwrap_or_default();
        let Some((cargo, arguments)) = command.split_once(" -- ") else { continue };
        if !cargo.contains("-p counter") {
            continue;
        }
        if let Some((_, example)) = cargo.split_once(" --example ") {
            // It has no help of its own; tests/client.rs plays it.
            assert!(root().join(format!("examples/counter/examples/{example}.rs")).exists(), "{command}");
            continue;
        }
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let help =
            Command::new(env!("CARGO_BIN_EXE_counter")).args([arguments[0], "--help"]).output().expect("the program");
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.status.success(), "{command}: {help:?}");
        for option in arguments.iter().filter(|argument| argument.starts_with("--")) {
            assert!(text.contains(option), "{command}: there is no {option}");
        }
        checked += 1;
    }
    assert!(checked >= 8, "only {checked} commands were found in the book");
}
