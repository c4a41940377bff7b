//! The commands in README and book are commands that there are.

use std::path::PathBuf;
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..")
}

/// Each page, and its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let chapters = std::fs::read_dir(root().join("book/src")).expect("the book");
    pages.extend(chapters.map(|chapter| chapter.expect("a chapter").path()));
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

/// Paths of the project in backticks, and links from page to page.
#[test]
fn every_path_of_the_book_is_there() {
    const FOLDERS: [&str; 8] =
        ["book", "examples", "scripts", "vsr", "vsr-net-tcp", "vsr-sim", "vsr-storage-file", "vsr-storage-rocksdb"];
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
        for link in links.filter(|link| link.ends_with(".md")) {
            assert!(page.parent().expect("a folder").join(link).exists(), "{}: a link to {link}", page.display());
            checked += 1;
        }
    }
    assert!(checked >= 40, "only {checked} paths were found in the book");
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
