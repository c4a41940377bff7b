//! What the rules of the protocol, the glossary and the page of messages say of the tree is true: the code and the tests that each
//! names are there. And each rule has its reason and its source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sources::tests;

mod sources;

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..")
}

/// Every file below a folder whose name ends so, with its text.
fn files(folder: &Path, end: &str, into: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder of the project") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, end, into);
        } else if path.is_file() && name.ends_with(end) {
            let text = fs::read_to_string(&path).expect("a text");
            into.push((path, text));
        }
    }
}

/// The rules, by number: each the text from its heading to the next.
fn rules(page: &str) -> Vec<(String, String)> {
    let sections = page.split("\n### ").skip(1);
    let numbered = |section: &str| {
        let number = section.split_whitespace().next().unwrap_or_default().to_owned();
        // The last rule of a chapter ends where the next chapter begins.
        let text = section.split("\n## ").next().unwrap_or_default().replace('\n', " ");
        (number, text)
    };
    sections.map(numbered).collect()
}

/// The names in backticks after `*Code:*` or `*Tests:*`.
fn names<'a>(rule: &'a str, kind: &str) -> Vec<&'a str> {
    let Some((_, list)) = rule.split_once(kind) else { return Vec::new() };
    let list = list.split("*Tests:*").next().unwrap_or_default();
    list.split('`').skip(1).step_by(2).collect()
}

/// Whether the source has an item, a variant or a field of this name.
fn defines(source: &str, name: &str) -> bool {
    let is_definition = |line: &str| {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let follows = |kind: &str| words.windows(2).any(|pair| pair == [kind, name]);
        let is_item = ["fn", "struct", "enum", "trait", "const", "type"].into_iter().any(follows);
        is_item || line.strip_prefix("    ").is_some_and(|line| line.starts_with(name) && !line.contains('='))
    };
    source.lines().filter(|line| !line.trim_start().starts_with("//")).any(is_definition)
}

struct Tree {
    sources: Vec<(PathBuf, String)>,
    scenarios: Vec<(PathBuf, String)>,
    planted: Vec<(PathBuf, String)>,
    /// The names of all test functions.
    tests: BTreeSet<String>,
}

impl Tree {
    fn read() -> Tree {
        let mut tree = Tree { sources: Vec::new(), scenarios: Vec::new(), planted: Vec::new(), tests: BTreeSet::new() };
        files(&root(), ".rs", &mut tree.sources);
        files(&root().join("vsr-sim/scenarios"), ".vsr", &mut tree.scenarios);
        files(&root().join("vsr-sim/planted"), ".patch", &mut tree.planted);
        tree.tests = tree.sources.iter().flat_map(|(_, text)| tests(text)).map(str::to_owned).collect();
        tree
    }

    /// A function that is a test, a case of a conformance suite, a scenario, a planted bug, or a checker.
    fn has_test(&self, name: &str) -> bool {
        let is_file = |(path, _): &(PathBuf, String)| path.file_stem().is_some_and(|stem| stem == name);
        let (case, checker) = (format!("{name} =>"), format!("\"{name}\""));
        self.tests.contains(name)
            || self.scenarios.iter().chain(&self.planted).any(is_file)
            || self.sources.iter().any(|(path, text)| {
                let is_checker = || path.starts_with(root().join("vsr-sim/src")) && text.contains(&checker);
                text.contains(&case) || is_checker()
            })
    }

    /// The source files that a rule means: one of the protocol by its bare name, any other by its path in the repository.
    fn named(&self, name: &str) -> Vec<&str> {
        let protocol = root().join("vsr/src/protocol");
        let is_meant = |path: &Path| {
            if name.contains('/') {
                path == root().join(name)
            } else {
                path.starts_with(&protocol) && path.file_name().is_some_and(|file| file == name)
            }
        };
        self.sources.iter().filter(|(path, _)| is_meant(path)).map(|(_, text)| text.as_str()).collect()
    }

    /// What is wrong with what a rule says of the tree.
    fn wrong(&self, number: &str, rule: &str) -> Vec<String> {
        let (mut wrong, mut source) = (Vec::new(), String::new());
        let parts = [("*Why", "reason"), ("*Source:*", "source")];
        let missing = parts.iter().filter(|(mark, _)| !rule.contains(mark));
        wrong.extend(missing.map(|(_, part)| format!("rule {number} has no {part}")));
        for name in names(rule, "*Code:*") {
            if name.ends_with(".rs") {
                let found = self.named(name);
                if found.len() > 1 {
                    wrong.push(format!("rule {number}: {} files have the name {name}", found.len()));
                }
                source = found.first().map(|text| (*text).to_owned()).unwrap_or_default();
                if source.is_empty() {
                    wrong.push(format!("rule {number}: there is no {name}"));
                }
            } else if !source.is_empty() && !defines(&source, name) {
                wrong.push(format!("rule {number}: {name} is not in the file named before it"));
            }
        }
        let tests = names(rule, "*Tests:*").into_iter().filter(|name| !self.has_test(name));
        wrong.extend(tests.map(|name| format!("rule {number}: there is no test {name}")));
        wrong
    }
}

#[test]
fn every_rule_names_code_and_tests_that_are_there() {
    let tree = Tree::read();
    let (mut pages, mut wrong, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    files(&root().join("docs/protocol"), ".md", &mut pages);
    let index = fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md");
    for (number, rule) in pages.iter().flat_map(|(_, page)| rules(page)) {
        wrong.extend(tree.wrong(&number, &rule));
        // What is not built yet has neither.
        let is_built = !rule.contains("(not built yet)");
        if is_built && (names(&rule, "*Code:*").is_empty() || names(&rule, "*Tests:*").is_empty()) {
            wrong.push(format!("rule {number} names no code, or no test"));
        }
        if !index.contains(&format!("[{number}]")) {
            wrong.push(format!("rule {number} is not in docs/protocol.md"));
        }
        numbers.push(number);
    }
    let count = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), count, "a number stands twice");
    assert!(count >= 60, "{count} rules");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The tests of a source whose comment begins with a rule: its number, the first one of several, and the name of the test.
fn cited(source: &str) -> Vec<(&str, &str)> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for at in (0..lines.len()).filter(|at| lines[*at] == "#[test]") {
        let comment = lines[..at].iter().rposition(|line| !line.starts_with("///")).map_or(0, |before| before + 1);
        let mut words = lines[comment].trim_start_matches('/').split_whitespace();
        let is_rule = words.next().is_some_and(|word| word == "Rule" || word == "Rules");
        let number = words.next().unwrap_or_default().trim_end_matches([':', ',', '.', ';']);
        let function = lines[at..].iter().copied().find_map(|line| line.split_once("fn "));
        if let Some((name, _)) = function.and_then(|(_, rest)| rest.split_once('('))
            && is_rule
        {
            found.push((number, name));
        }
    }
    found
}

#[test]
fn a_test_of_the_protocol_is_named_by_the_rule_that_it_is_for() {
    let tree = Tree::read();
    let mut pages = Vec::new();
    files(&root().join("docs/protocol"), ".md", &mut pages);
    let all: Vec<(String, String)> = pages.iter().flat_map(|(_, page)| rules(page)).collect();
    let protocol = root().join("vsr/src/protocol");
    let (mut count, mut wrong) = (0, Vec::new());
    for (_, source) in tree.sources.iter().filter(|(path, _)| path.starts_with(&protocol)) {
        for (number, name) in cited(source) {
            count += 1;
            if !all.iter().any(|(of, rule)| of == number && names(rule, "*Tests:*").contains(&name)) {
                wrong.push(format!("rule {number} does not name {name}"));
            }
        }
    }
    assert!(count > 30, "{count} tests");
    assert!(wrong.is_empty(), "{wrong:#?}");
    let source = "/// Rules 6.4 and 6.6: why.\n/// More.\n#[test]\nfn one() {}\n/// Why.\n#[test]\nfn other() {}\n#[test]\nfn third() {}\n";
    assert_eq!(cited(source), [("6.4", "one")]);
}

#[test]
fn a_rule_that_names_what_is_gone_is_found() {
    let tree = Tree::read();
    let page = "# A page\n\n### 6.4 A rule\n\nText.\n\nSource: own · *Code:* `outbox.rs` `Outbox`,\n`gone`, `gone.rs`, `tests.rs` · \
                *Tests:*\n`a_rule_that_names_what_is_gone_is_found`, `hash-chain`, `no-such-thing`, `defines`\n\n## Next\n\n`beside`\n";
    let found = rules(page);
    assert_eq!(found.len(), 1);
    let wrong = tree.wrong(&found[0].0, &found[0].1);
    let expected = [
        "rule 6.4 has no reason",
        "rule 6.4 has no source",
        "rule 6.4: gone is not in the file named before it",
        "rule 6.4: there is no gone.rs",
        "rule 6.4: 4 files have the name tests.rs",
        "rule 6.4: there is no test no-such-thing",
        "rule 6.4: there is no test defines",
    ];
    assert_eq!(wrong, expected);
}

/// What is wrong with the rows of a glossary: the word, the meaning, and where it lives.
fn wrong_words(tree: &Tree, page: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| word |"));
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let ["", word, meaning, places, ""] = cells[..] else {
            wrong.push(format!("not a row: {row}"));
            continue;
        };
        let places: Vec<&str> = places.split('`').skip(1).step_by(2).collect();
        if word.is_empty() || meaning.is_empty() || places.is_empty() {
            wrong.push(format!("{word}: an empty cell"));
        }
        let is_gone = |place: &&str| !root().join(place).exists() && tree.named(place).len() != 1;
        wrong.extend(places.into_iter().filter(is_gone).map(|place| format!("{word}: {place}")));
    }
    wrong
}

#[test]
fn every_word_of_the_glossary_lives_where_it_says() {
    let tree = Tree::read();
    let page = fs::read_to_string(root().join("docs/glossary.md")).expect("docs/glossary.md");
    assert!(page.lines().filter(|line| line.starts_with("| ")).count() > 80, "the glossary was not read");
    assert_eq!(wrong_words(&tree, &page), Vec::<String>::new());
    let page = "| word | meaning | module |\n| a | one | `outbox.rs`, `vsr-sim/src/check` |\n| b | two | `gone.rs` |\n| c | three | |\n";
    assert_eq!(wrong_words(&tree, page), ["b: gone.rs", "c: an empty cell"]);
}

#[test]
fn the_page_of_messages_names_functions_and_files_that_are_there() {
    let tree = Tree::read();
    let page = fs::read_to_string(root().join("docs/messages.md")).expect("docs/messages.md");
    let protocol = root().join("vsr/src/protocol");
    let sources: Vec<&str> =
        tree.sources.iter().filter(|(path, _)| path.starts_with(&protocol)).map(|(_, text)| text.as_str()).collect();
    let (mut count, mut wrong) = (0, Vec::new());
    for name in page.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
        let is_there = if let Some((owner, item)) = name.split_once("::") {
            let field = format!("pub {item}: ");
            let has = |source: &&str| source.contains(owner) && (defines(source, item) || source.contains(&field));
            sources.iter().any(has)
        } else if name.ends_with(".rs") {
            tree.named(name).len() == 1
        } else {
            continue;
        };
        count += 1;
        if !is_there {
            wrong.push(name);
        }
    }
    assert!(count >= 10, "{count} names");
    assert_eq!(wrong, Vec::<&str>::new());
}
