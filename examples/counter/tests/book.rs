//! The commands in README and book are commands that there are.

use std::path::PathBuf;
use std::process::Command;

fn commands() -> Vec<String> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..");
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    let chapters = std::fs::read_dir(root.join("book/src")).expect("the book");
    pages.extend(chapters.map(|chapter| chapter.expect("a chapter").path()));
    let mut commands = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a page");
        commands.extend(text.lines().filter(|line| line.starts_with("cargo run")).map(str::to_owned));
    }
    commands
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
