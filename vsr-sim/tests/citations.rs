//! Every citation in the tree points somewhere: of a rule to `docs/protocol.md` (or a page of `docs/protocol/`), of a hazard or a
//! schedule to a row of `docs/hazards.md`. And every kind of message has a row in `docs/messages.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..")
}

/// Every file below the folder that may hold text of the project, with the text.
fn texts(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    let entries = fs::read_dir(folder).expect("a folder of the project");
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                texts(&path, into);
            }
            continue;
        }
        let end = name.rsplit_once('.').map(|(_, end)| end);
        let is_text = end.is_none_or(|end| ["rs", "md", "vsr", "patch", "toml", "txt"].contains(&end));
        // What is no UTF-8 is no text.
        if is_text && let Ok(text) = fs::read_to_string(&path) {
            into.push((path, text));
        }
    }
}

/// What may be cited.
#[derive(Default)]
struct Targets {
    rules: BTreeSet<String>,
    rows: BTreeSet<String>,
}

impl Targets {
    fn of_the_tree() -> Targets {
        let docs = root().join("docs");
        let mut pages = vec![docs.join("protocol.md")];
        if let Ok(entries) = fs::read_dir(docs.join("protocol")) {
            pages.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        let rules: Vec<String> = pages.iter().filter_map(|page| fs::read_to_string(page).ok()).collect();
        assert!(!rules.is_empty(), "the rules are missing: docs/protocol.md, or pages in docs/protocol/");
        let hazards = fs::read_to_string(docs.join("hazards.md")).expect("docs/hazards.md");
        Targets::new(&rules.join("\n"), &hazards)
    }

    /// A rule stands where a line begins with its number, a hazard where a row of a table begins with its id.
    fn new(rules: &str, hazards: &str) -> Targets {
        let number = |line: &str| {
            let line = line.trim_start_matches(|c: char| "#*|-`".contains(c) || c.is_whitespace());
            split_number(line).0.to_owned()
        };
        let rules = rules.lines().map(number).filter(|number| !number.is_empty()).collect();
        let id = |line: &str| line.strip_prefix("| ").map(|row| split_id(row).0.to_owned());
        let rows = hazards.lines().filter_map(id).filter(|id| is_id(id)).collect();
        Targets { rules, rows }
    }

    fn has(&self, kind: Kind, id: &str) -> bool {
        match kind {
            // A number without a point is that of some other list.
            Kind::Rule => !id.contains('.') || self.rules.contains(id),
            Kind::Hazard => self.rows.contains(id) && !is_schedule(id),
            Kind::Schedule => self.rows.contains(id) && is_schedule(id),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rule,
    Hazard,
    Schedule,
}

impl Kind {
    /// The word that a citation begins with.
    fn of(word: &str) -> Option<Kind> {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        match word.to_ascii_lowercase().as_str() {
            "rule" | "rules" => Some(Kind::Rule),
            "hazard" | "hazards" => Some(Kind::Hazard),
            "schedule" | "schedules" => Some(Kind::Schedule),
            _ => None,
        }
    }

    /// The id that a word begins with, and what follows it.
    fn split(self, word: &str) -> Option<(&str, &str)> {
        let word = word.trim_start_matches(['`', '[', '*']);
        let (id, rest) = if self == Kind::Rule { split_number(word) } else { split_id(word) };
        let is_one = if self == Kind::Rule { !id.is_empty() } else { is_id(id) };
        is_one.then_some((id, rest))
    }
}

/// Digits and points, without a point at the end.
fn split_number(word: &str) -> (&str, &str) {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let number = word[..end].trim_end_matches('.');
    word.split_at(number.len())
}

fn split_id(word: &str) -> (&str, &str) {
    let end = word.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '-').unwrap_or(word.len());
    word.split_at(end)
}

fn is_id(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase()) && word.contains(|c: char| c.is_ascii_digit())
}

/// Whether the row is cited as a schedule: `F1`, `G1`, `M1`, `B-01`. `B1` is a hazard.
fn is_schedule(id: &str) -> bool {
    let is_numbered = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    id.starts_with("B-") || ["F", "G", "M"].iter().any(|series| id.strip_prefix(series).is_some_and(is_numbered))
}

/// A part of what is cited: `b`, `(d)`, `(768)`.
fn is_part(word: &str) -> bool {
    let word = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != ')');
    let inner = word.strip_prefix('(').and_then(|word| word.strip_suffix(')'));
    let letter = inner.unwrap_or(word.trim_end_matches(')'));
    let is_letter = letter.len() == 1 && letter.chars().all(|c| c.is_ascii_lowercase());
    is_letter || inner.is_some_and(|inner| !inner.is_empty() && inner.chars().all(|c| c.is_ascii_digit()))
}

/// Every citation of a text: its line, its kind, its id. A line may end within one.
fn citations(text: &str) -> Vec<(usize, Kind, String)> {
    let marks = ["///", "//!", "//", "#", "+", "-"];
    let lines = (1..).zip(text.lines());
    let words: Vec<(usize, &str)> = lines
        .flat_map(|(at, line)| line.split_whitespace().map(move |word| (at, word)))
        .filter(|(_, word)| !marks.contains(word))
        .collect();
    let mut found = Vec::new();
    for (at, (line, word)) in words.iter().enumerate() {
        let Some(kind) = Kind::of(word) else { continue };
        let mut rest = words[at + 1..].iter().map(|(_, word)| *word).peekable();
        while let Some((id, after)) = rest.next().and_then(|word| kind.split(word)) {
            found.push((*line, kind, id.to_owned()));
            let mut last = after;
            if last.is_empty() {
                last = rest.next_if(|word| is_part(word)).unwrap_or_default();
            }
            let is_closed =
                last.ends_with(['.', ';', ':']) || last.starts_with(']') || (last.contains(')') && !last.contains('('));
            let goes_on = last.ends_with(',') || rest.peek().is_some_and(|word| ["and", "or", "to"].contains(word));
            if is_closed || !goes_on {
                break;
            }
            rest.next_if(|word| ["and", "or", "to"].contains(word));
        }
    }
    found
}

/// The id that a documentation begins with, without a word that says of what it is: `/// RC-03: …`.
fn bare_id(line: &str) -> Option<&str> {
    let (id, rest) = split_id(line.trim_start().strip_prefix("///")?.trim_start());
    (is_id(id) && rest.starts_with(':')).then_some(id)
}

/// The ids that a comment of a test or of a scenario begins with: `/// VC-05, D01 b: …`, `# CL-04, B38. …`.
fn listed(line: &str) -> Vec<&str> {
    let line = line.trim_start();
    let comment = line.strip_prefix("/// ").or(line.strip_prefix("# ")).unwrap_or_default();
    let mut found = Vec::new();
    let mut words = comment.split_whitespace().peekable();
    while let Some((id, rest)) = words.next().map(split_id).filter(|(id, _)| is_id(id)) {
        found.push(id);
        let part = if rest.is_empty() { words.next_if(|word| is_part(word)).unwrap_or_default() } else { rest };
        if !part.ends_with(',') {
            break;
        }
    }
    found
}

/// The ids in brackets that no word before them says the kind of: `a broken disk (SF-20)`.
fn alone(line: &str) -> Vec<&str> {
    let in_brackets = |word| {
        let (id, rest) = split_id(str::strip_prefix(word, "(")?);
        let letters = id.chars().take_while(char::is_ascii_uppercase).count();
        (is_id(id) && letters <= 2 && rest.starts_with(')')).then_some(id)
    };
    line.split_whitespace().filter_map(in_brackets).collect()
}

/// Names of documents that are not in the tree, and sections of them: what citations once looked like.
fn leftovers(text: &str) -> Vec<(usize, String)> {
    let gone = ["design", "hazards", "schedules"].map(str::to_uppercase);
    let mut found = Vec::new();
    for (at, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> =
            line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let cited = words.iter().filter(|word| gone.iter().any(|gone| gone == **word));
        found.extend(cited.map(|word| (at, (*word).to_owned())));
        let is_comment = ["//", "#"].iter().any(|mark| line.trim_start().starts_with(mark));
        let is_number = |word: &str| word.chars().all(|c| c.is_ascii_digit());
        let is_left = |pair: &&[&str]| match pair {
            ["hole", number] => is_comment && is_number(number),
            [kind, section] => Kind::of(kind).is_some() && *section == "section",
            _ => false,
        };
        let sections = words.windows(2).filter(is_left);
        found.extend(sections.map(|pair| (at, pair.join(" "))));
    }
    found
}

/// The files and folders of the repository that the guide of a crate names.
fn named_in_guide(guide: &str) -> BTreeSet<&str> {
    let lines = guide.lines().filter_map(|line| line.strip_prefix("//!"));
    let quoted = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter(|text| ["book/", "docs/", "examples/", "scripts/"].iter().any(|at| text.starts_with(at))).collect()
}

#[test]
fn the_guides_of_the_crates_name_files_that_are_there() {
    for name in ["vsr", "vsr-net-tcp", "vsr-storage-file", "vsr-storage-rocksdb", "vsr-sim"] {
        let guide = fs::read_to_string(root().join(name).join("src/lib.rs")).expect("the root of the crate");
        let named = named_in_guide(&guide);
        let gone: Vec<_> = named.iter().filter(|path| !root().join(path).exists()).collect();
        assert!(gone.is_empty(), "{name}: {gone:?}");
        // A program beside the cluster has a chapter and an example of its own.
        if name == "vsr" {
            for path in ["book/src/client.md", "examples/counter/examples/client.rs"] {
                assert!(named.contains(path), "{path} is not named");
            }
        }
    }
    let found = named_in_guide("//! See `docs/gone.md`, `vsr` and\n// `docs/beside.md`\n//! `book/`.\n");
    assert_eq!(found, BTreeSet::from(["book/", "docs/gone.md"]));
}

#[test]
fn every_citation_points_somewhere() {
    let targets = Targets::of_the_tree();
    let mut files = Vec::new();
    texts(&root(), &mut files);
    let (mut wrong, mut count) = (Vec::new(), [0; 3]);
    for (path, text) in &files {
        // Its samples point nowhere.
        if path.ends_with("tests/citations.rs") {
            continue;
        }
        for (line, kind, id) in citations(text) {
            count[kind as usize] += 1;
            if !targets.has(kind, &id) {
                wrong.push(format!("{}:{line}: there is no {kind:?} {id}", path.display()));
            }
        }
        // The tests of the simulator are named after rows; elsewhere an id alone is that of some other list.
        let rows = path.starts_with(root().join("vsr-sim/tests")).then_some(&targets.rows);
        let bare = (1..).zip(text.lines()).filter_map(|(line, text)| Some((line, bare_id(text)?)));
        let bare = bare.filter(|(_, id)| !rows.is_some_and(|rows| rows.contains(*id)));
        let bare = bare
            .chain((1..).zip(text.lines()).flat_map(|(line, text)| alone(text).into_iter().map(move |id| (line, id))));
        wrong.extend(bare.map(|(line, id)| format!("{}:{line}: {id} of which list?", path.display())));
        if rows.is_some() || path.extension().is_some_and(|end| end == "vsr") {
            let listed =
                (1..).zip(text.lines()).flat_map(|(line, text)| listed(text).into_iter().map(move |id| (line, id)));
            let gone = listed.filter(|(_, id)| !targets.rows.contains(*id));
            wrong.extend(gone.map(|(line, id)| format!("{}:{line}: there is no row {id}", path.display())));
        }
        let left = leftovers(text);
        wrong.extend(left.into_iter().map(|(line, word)| format!("{}:{line}: {word}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Else this test has read nothing.
    let [rules, hazards, schedules] = count;
    assert!(
        rules >= 100 && hazards >= 100 && schedules >= 5,
        "{rules} rules, {hazards} hazards, {schedules} schedules"
    );
}

#[test]
fn a_citation_that_points_nowhere_is_found() {
    assert_eq!(bare_id("    /// B13: a port"), Some("B13"));
    for other in
        ["/// Rule 7.5: a view", "// B13: a port", "/// hazard B13: a port", "/// B: a port", "/// B13 of both"]
    {
        assert_eq!(bare_id(other), None, "{other}");
    }
    assert_eq!(listed("    /// VC-05, D01 b, B8: why, F2"), ["VC-05", "D01", "B8"]);
    assert_eq!(listed("# NW-05, L-04 (a paper). r1"), ["NW-05", "L-04"]);
    assert_eq!(listed("/// What it is of, F2: why"), Vec::<&str>::new());
    assert_eq!(alone("// a broken disk (SF-20), or two (I15)."), ["SF-20", "I15"]);
    assert_eq!(alone("// a disk (hazard SF-20), (XXH3-128), (d), f(B2), 5.3 (B)"), Vec::<&str>::new());
    let rules =
        "# The rules\n## 6. Normal operation\n**6.4** Nothing leaves.\n### 7.5 A view\n7.6. Restart\n- 8.1: a round";
    let hazards =
        "| id | what |\n|---|---|\n| D07 | a |\n| RC-03 | b |\n| B8 | c |\n| B-08 | d |\n| F1 | e |\n| B-3A | f |";
    let targets = Targets::new(rules, hazards);
    let wrong = |text: &str| {
        let cited = citations(text).into_iter().filter(|(_, kind, id)| !targets.has(*kind, id));
        cited.map(|(line, _, id)| format!("{line} {id}")).collect::<Vec<_>>()
    };
    for right in [
        "rule 6.4, 7.5 (d) and 8.1.",
        "(rules 6.4 to 7.6, hazards D07, RC-03; schedule F1)",
        "/// hazard D07 b, B8: and so on",
        "hazard D07 (768), RC-03 and schedule B-3A,\n    /// B-08",
        "[rule 7.5](protocol.md), 9.9 times",
        "the schedule of D99, a hazard to others, rule 2 of this file",
    ] {
        assert_eq!(wrong(right), Vec::<String>::new(), "{right}");
    }
    for (text, expected) in [
        ("rule 6.5", "1 6.5"),
        ("rules 6.4, 6.9", "1 6.9"),
        ("Rule: 7.5 d, 7.7", "1 7.7"),
        ("rule 7.5(d), 7.8", "1 7.8"),
        ("\nsee rules 6.4 to\n/// 6.8.", "2 6.8"),
        ("(hazard D99)", "1 D99"),
        ("hazards D07 a, D98", "1 D98"),
        ("hazards D07\n    //! and D97", "1 D97"),
        ("hazard B-08", "1 B-08"),
        ("schedule B8", "1 B8"),
        ("`hazard` `F1`", "1 F1"),
    ] {
        assert_eq!(wrong(text), [expected], "{text}");
    }
    let gone = "design".to_uppercase();
    assert_eq!(leftovers(&format!("a\n// ({gone} 6.4)\nhazards section 3\n// hole 2, a hole")).len(), 3);
}

/// The variants of the enum, as they stand in the source.
fn kinds_of_messages() -> BTreeSet<String> {
    let mut files = Vec::new();
    texts(&root().join("vsr/src"), &mut files);
    let holds = |(_, text): &&(PathBuf, String)| text.lines().any(|line| line == "pub enum Message {");
    let (_, text) = files.iter().find(holds).expect("the enum of messages");
    let variants =
        text.lines().skip_while(|line| *line != "pub enum Message {").skip(1).take_while(|line| *line != "}");
    let name = |line: &str| {
        let rest = line.strip_prefix("    ").filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))?;
        rest.split(|c: char| !c.is_ascii_alphanumeric()).next().map(str::to_owned)
    };
    variants.filter_map(name).collect()
}

#[test]
fn every_kind_of_message_has_a_row() {
    let text = fs::read_to_string(root().join("docs/messages.md")).expect("docs/messages.md");
    let table = text.lines().take_while(|line| !line.starts_with("## "));
    let mut rows = BTreeSet::new();
    for row in table.filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 8, "a row has seven cells: {row}");
        let name = cells[0].trim_end_matches('`');
        assert!(cells[1..6].iter().all(|cell| !cell.is_empty()), "{name} has an empty cell");
        assert!(rows.insert(name.to_owned()), "{name} stands twice");
    }
    let kinds = kinds_of_messages();
    assert!(kinds.len() > 10, "{kinds:?}");
    assert_eq!(rows, kinds);
}
