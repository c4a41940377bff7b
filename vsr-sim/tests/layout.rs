//! How the source is laid out: no circle between the modules at the top of a crate, none between files but those that are listed with a
//! reason, no use of what stands below in the crate's guide, parts of the protocol that know nothing of its core, no long file, no long
//! function, little nesting.
//! What is read is the source itself, without comments, literals and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates whose functions are measured.
const LIBRARIES: [&str; 5] = ["vsr", "vsr-sim", "vsr-storage-file", "vsr-storage-rocksdb", "vsr-net-tcp"];
/// Lines of a file.
const FILE_MAX: usize = 800;
/// Lines of a function, from its name to its last brace.
const FUNCTION_MAX: usize = 80;
/// Braces that are open at once within the body of a function.
const NESTING_MAX: usize = 5;

/// Functions that may be longer, or nested deeper: crate, name, and why.
const FUNCTIONS: &[(&str, &str, &str)] = &[];

/// Uses of one module by another that may close a circle: crate, the module that uses, the one that is used, and why.
const USES: &[(&str, &str, &str, &str)] = &[];

/// Uses of files by a file of the same crate that may close a circle: crate, the file that uses, those that are used, and why.
const FILE_USES: &[(&str, &str, &[&str], &str)] = &[
    (
        "vsr",
        "protocol/core",
        &[
            "protocol/health/explain",
            "protocol/normal/apply",
            "protocol/normal/backup",
            "protocol/recovery/lives",
            "protocol/recovery/repair",
            "protocol/view_change/view_change",
        ],
        "Core owns the state of each role; the file of a role has that state and the methods of Core that work on it",
    ),
    (
        "vsr-sim",
        "options",
        &["options/limits"],
        "Options has a field of Limits; what a seed draws for Options fills two files, and limits.rs is the second",
    ),
    (
        "vsr-sim",
        "world",
        &["world/misdeeds", "world/on_files", "world/pace", "world/socket"],
        "World owns the state of each of its parts; the file of a part has that state and the methods of World that work on it",
    ),
];

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..")
}

/// Every Rust file below a folder, with its text.
fn rust_files(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    for path in fs::read_dir(folder).expect("a folder of the project").map(|entry| entry.expect("an entry").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, into);
        } else if path.is_file() && name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("a text");
            into.push((path, text));
        }
    }
}

// ---- code ----

fn starts(chars: &[char], with: &str) -> bool {
    with.chars().enumerate().all(|(at, c)| chars.get(at) == Some(&c))
}

/// How many characters there are up to the end of a text, if it is found from `from` on.
fn through(chars: &[char], from: usize, text: &str) -> usize {
    (from..chars.len()).find(|at| starts(&chars[*at..], text)).map_or(chars.len(), |at| at + text.chars().count())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the comment or the literal that begins here; 0 when none does.
fn length(chars: &[char], before: Option<char>) -> usize {
    if starts(chars, "//") {
        return chars.iter().position(|c| *c == '\n').unwrap_or(chars.len());
    }
    if starts(chars, "/*") {
        return through(chars, 2, "*/");
    }
    if starts(chars, "\"") {
        return 1 + quoted(&chars[1..], '"');
    }
    if starts(chars, "'") {
        // Else it is a lifetime.
        let is_char = chars.get(1) == Some(&'\\') || chars.get(2) == Some(&'\'');
        return if is_char { 1 + quoted(&chars[1..], '\'') } else { 0 };
    }
    let prefix = usize::from(starts(chars, "b")) + 1;
    if chars.get(prefix - 1) == Some(&'r') && !before.is_some_and(is_word) {
        let marks = chars[prefix..].iter().take_while(|c| **c == '#').count();
        if chars.get(prefix + marks) == Some(&'"') {
            return through(chars, prefix + marks + 1, &format!("\"{}", "#".repeat(marks)));
        }
    }
    0
}

/// The length of a literal behind its first quote, with the last one.
fn quoted(chars: &[char], quote: char) -> usize {
    let mut at = 0;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The text without comments and literals; its lines stay where they are.
fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut at) = (String::new(), 0);
    while at < chars.len() {
        let length = length(&chars[at..], at.checked_sub(1).map(|before| chars[before]));
        if length == 0 {
            code.push(chars[at]);
        }
        code.extend(chars[at..at + length].iter().filter(|c| **c == '\n'));
        at += length.max(1);
    }
    code
}

/// One file of a crate.
struct Source {
    path: PathBuf,
    /// Its module: `["world", "links"]`.
    module: Vec<String>,
    code: String,
}

/// The source of a crate's library, without its tests.
fn library(name: &str) -> Vec<Source> {
    let folder = root().join(name).join("src");
    let mut files = Vec::new();
    rust_files(&folder, &mut files);
    let mut sources: Vec<Source> = files
        .into_iter()
        .filter(|(path, _)| !path.starts_with(folder.join("bin")))
        .map(|(path, text)| {
            let inside = path.strip_prefix(&folder).expect("a file of the folder").with_extension("");
            let mut module: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            module.pop_if(|last| ["mod", "lib"].contains(&last.as_str()));
            Source { path, module, code: code(&text) }
        })
        .collect();
    let tests: BTreeSet<String> = sources.iter().flat_map(|source| test_files(&source.code)).collect();
    sources.retain(|source| !source.module.last().is_some_and(|last| tests.contains(last)));
    for source in &mut sources {
        source.code = without_tests(&source.code).to_owned();
    }
    sources
}

/// The modules of tests that have a file of their own.
fn test_files(code: &str) -> Vec<String> {
    let after = code.split("#[cfg(test)]").skip(1);
    let name = |text: &str| {
        let text = text.trim_start();
        let text = text.strip_prefix("pub(crate) ").unwrap_or(text);
        text.strip_prefix("mod ")?.split_once(';').map(|(name, _)| name.to_owned())
    };
    after.filter_map(name).filter(|name| name.chars().all(is_word)).collect()
}

/// A module of tests is the last thing of its file.
fn without_tests(code: &str) -> &str {
    let is_module = |at: &usize| {
        let rest = code[*at..].trim_start_matches("#[cfg(test)]").trim_start();
        let rest = rest.strip_prefix("pub(crate) ").unwrap_or(rest);
        rest.strip_prefix("mod ").is_some_and(|rest| rest.trim_start_matches(is_word).trim_start().starts_with('{'))
    };
    code.match_indices("#[cfg(test)]").map(|(at, _)| at).find(is_module).map_or(code, |at| &code[..at])
}

// ---- modules ----

/// The parts of a group, of which the first brace stands before this text.
fn parts(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                parts.push(group[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
        if c == '}' && from > at {
            break;
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// The names behind a path: one, or those of a group.
fn names(after: &str) -> Vec<String> {
    let first = |text: &str| -> String { text.chars().take_while(|c| is_word(*c)).collect() };
    after.strip_prefix('{').map_or_else(|| vec![first(after)], |group| parts(group).into_iter().map(first).collect())
}

/// What a file names behind this path.
fn named(source: &Source, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices(path) {
        let before = source.code[..at].chars().next_back();
        if !before.is_some_and(|c| is_word(c) || c == '$' || c == ':') {
            found.extend(names(&source.code[at + path.len()..]));
        }
    }
    found
}

/// What a file names of the root of its crate.
fn named_at_the_root(source: &Source) -> Vec<String> {
    let up = "super::".repeat(source.module.len());
    let paths = ["crate::", up.as_str()].into_iter().filter(|path| !path.is_empty());
    paths.flat_map(|path| named(source, path)).collect()
}

/// The modules at the top of a crate, and what its root exports, each with the module that it is from.
fn root_of(sources: &[Source]) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let modules: BTreeSet<String> = sources.iter().filter_map(|source| source.module.first().cloned()).collect();
    let lib = sources.iter().find(|source| source.module.is_empty()).map_or("", |source| source.code.as_str());
    let mut exported: BTreeMap<String, String> = BTreeMap::new();
    for export in lib.split("pub use ").skip(1).filter_map(|text| text.split(';').next()) {
        let words: Vec<&str> =
            export.split(|c| !is_word(c)).filter(|word| !["", "self", "crate"].contains(word)).collect();
        if let Some((module, names)) = words.split_first() {
            exported.extend(names.iter().map(|name| ((*name).to_owned(), (*module).to_owned())));
        }
    }
    (modules, exported)
}

/// What is named of the root and is neither a module nor exported there: it may be a use that goes unseen.
fn unseen(sources: &[Source]) -> Vec<String> {
    let (modules, exported) = root_of(sources);
    let is_unseen = |name: &String| !modules.contains(name) && !exported.contains_key(name);
    let of = |source: &Source| named(source, "crate::").into_iter().filter(is_unseen).collect::<Vec<_>>();
    sources.iter().flat_map(of).collect()
}

/// The modules at the top of a crate, and which of the others each uses, with a file that does.
type Uses = BTreeMap<String, BTreeMap<String, PathBuf>>;

fn uses(sources: &[Source]) -> Uses {
    // What the root exports is a use of the module that it is from.
    let (modules, exported) = root_of(sources);
    let mut uses: Uses = modules.iter().map(|module| (module.clone(), BTreeMap::new())).collect();
    for source in sources {
        let Some(own) = source.module.first() else { continue };
        for name in named_at_the_root(source) {
            let used = if modules.contains(&name) { Some(&name) } else { exported.get(&name) };
            if let (Some(used), Some(of_own)) = (used.filter(|used| *used != own), uses.get_mut(own)) {
                of_own.entry(used.clone()).or_insert_with(|| source.path.clone());
            }
        }
    }
    uses
}

/// The uses between modules of which each leads back to itself, or lies between two such.
fn circles(mut uses: Uses) -> Vec<String> {
    loop {
        let used: BTreeSet<String> = uses.values().flat_map(BTreeMap::keys).cloned().collect();
        let left: BTreeSet<String> = uses.keys().cloned().collect();
        let is_done = |module: &String, of: &BTreeMap<String, PathBuf>| {
            !used.contains(module) || !of.keys().any(|other| left.contains(other))
        };
        let before = uses.len();
        uses.retain(|module, of| !is_done(module, of));
        if uses.len() == before {
            break;
        }
        let left: BTreeSet<String> = uses.keys().cloned().collect();
        uses.values_mut().for_each(|of| of.retain(|other, _| left.contains(other)));
    }
    let line = |(module, of): (&String, &BTreeMap<String, PathBuf>)| {
        of.iter().map(|(other, path)| format!("{module} uses {other} in {}", path.display())).collect::<Vec<_>>()
    };
    uses.iter().flat_map(line).collect()
}

#[test]
fn no_circle_goes_through_the_modules_at_the_top() {
    for name in ["vsr", "vsr-sim"] {
        let sources = library(name);
        assert_eq!(unseen(&sources), Vec::<String>::new(), "{name}: a path that this test does not follow");
        let mut uses = uses(&sources);
        assert!(uses.len() >= 5 && uses.values().map(BTreeMap::len).sum::<usize>() >= 10, "{name}: {uses:?}");
        for (_, from, to, why) in USES.iter().filter(|(of, ..)| *of == name) {
            let removed = uses.get_mut(*from).and_then(|of| of.remove(*to));
            assert!(removed.is_some(), "{name}: {from} does not use {to} any more ({why}): remove it from the list");
        }
        assert_eq!(circles(uses), Vec::<String>::new(), "{name}");
    }
}

// ---- files ----

/// The paths that begin with this text: one, or those of a group, down to the last name. A `*` stands for the module before it.
fn paths(text: &str) -> Vec<Vec<String>> {
    if let Some(group) = text.strip_prefix('{') {
        return parts(group).into_iter().flat_map(paths).collect();
    }
    let name: String = text.chars().take_while(|c| is_word(*c)).collect();
    if name.is_empty() {
        return vec![Vec::new()];
    }
    let ends = text[name.len()..].strip_prefix("::").map_or_else(|| vec![Vec::new()], paths);
    ends.into_iter().map(|end| [vec![name.clone()], end].concat()).collect()
}

/// The place that a path in this module names, from the root of the crate on.
fn place(module: &[String], path: &[String]) -> Vec<String> {
    let mut place = module.to_vec();
    for name in path {
        match name.as_str() {
            "crate" => place.clear(),
            "super" => drop(place.pop()),
            "self" => {}
            _ => place.push(name.clone()),
        }
    }
    place
}

/// What a file re-exports, and its code without the lines that do.
fn reexports(code: &str) -> (Vec<Vec<String>>, String) {
    let (mut found, mut rest, mut done) = (Vec::new(), String::new(), 0);
    for (at, text) in code.match_indices("use ") {
        let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
        let is_public = ["pub", "pub(crate)", "pub(super)"].contains(&code[line..at].trim());
        if is_public && at >= done {
            found.extend(paths(&code[at + text.len()..]));
            rest.push_str(&code[done..at]);
            done = code[at..].find(';').map_or(code.len(), |end| at + end);
        }
    }
    rest.push_str(&code[done..]);
    (found, rest)
}

/// The files of a crate by their modules, and, for each name that a file only re-exports, the place that it is from.
struct Files {
    modules: BTreeSet<Vec<String>>,
    exported: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl Files {
    /// The module of the file in which something stands.
    fn of(&self, mut place: Vec<String>) -> Vec<String> {
        loop {
            let depth = (0..=place.len()).rev().find(|depth| self.modules.contains(&place[..*depth])).unwrap_or(0);
            let name = place.get(depth).cloned().unwrap_or_default();
            let elsewhere = self.exported.get(&(place[..depth].to_vec(), name));
            let next = elsewhere.map(|start| [start.as_slice(), &place[depth + 1..]].concat());
            match next.filter(|next| *next != place) {
                Some(next) => place = next,
                None => return place[..depth].to_vec(),
            }
        }
    }
}

/// The files of a crate, and which of the others each uses. A path uses the file in which the item is written, also where it names
/// another file that only re-exports the item. To re-export a name uses no file, unless the rest of the code has the name as well.
fn file_uses(sources: &[Source]) -> Uses {
    let read: Vec<(&Source, Vec<Vec<String>>, String)> = sources
        .iter()
        .map(|source| {
            let (exported, code) = reexports(&source.code);
            let exported: Vec<_> = exported.iter().map(|path| place(&source.module, path)).collect();
            (source, exported, code)
        })
        .collect();
    let modules = sources.iter().map(|source| source.module.clone()).collect();
    let mut files = Files { modules, exported: BTreeMap::new() };
    for (source, exported, _) in &read {
        for to in exported {
            if let Some(name) = to.last().cloned() {
                files.exported.insert((source.module.clone(), name), to.clone());
            }
        }
    }
    let name = |module: &[String]| if module.is_empty() { "lib".to_owned() } else { module.join("/") };
    let mut uses = Uses::new();
    for (source, exported, code) in &read {
        let own = &source.module;
        let words: BTreeSet<&str> = code.split(|c| !is_word(c)).collect();
        let is_used = |to: &&Vec<String>| to.last().is_some_and(|name| words.contains(name.as_str()));
        let mut places: Vec<Vec<String>> = exported.iter().filter(is_used).cloned().collect();
        let inner =
            files.modules.iter().filter_map(|module| module.split_last().filter(|(_, outer)| *outer == own.as_slice()));
        let inner: Vec<&str> = inner.map(|(last, _)| last.as_str()).collect();
        for start in ["crate", "self", "super"].into_iter().chain(inner) {
            for (at, _) in code.match_indices(&format!("{start}::")) {
                if !code[..at].ends_with(|c: char| is_word(c) || c == '$' || c == ':') {
                    places.extend(paths(&code[at..]).iter().map(|path| place(own, path)));
                }
            }
        }
        let of_own = uses.entry(name(own)).or_default();
        for used in places.into_iter().map(|place| files.of(place)).filter(|used| used != own) {
            of_own.entry(name(&used)).or_insert_with(|| source.path.clone());
        }
    }
    uses
}

#[test]
fn no_circle_goes_through_files_but_those_with_a_reason() {
    for name in LIBRARIES {
        let mut uses = file_uses(&library(name));
        let count: usize = uses.values().map(BTreeMap::len).sum();
        assert!(count >= 5, "{name}: {count} uses between files: this test has read nothing");
        let listed: Vec<_> = FILE_USES.iter().filter(|(of, ..)| *of == name).collect();
        for (_, from, used, why) in &listed {
            for to in *used {
                let removed = uses.get_mut(*from).and_then(|of| of.remove(*to));
                assert!(
                    removed.is_some(),
                    "{name}: {from} does not use {to} any more ({why}): remove it from the list"
                );
            }
        }
        assert_eq!(circles(uses.clone()), Vec::<String>::new(), "{name}");
        for (_, from, used, why) in &listed {
            for to in *used {
                let mut with = uses.clone();
                with.entry((*from).to_owned()).or_default().insert((*to).to_owned(), PathBuf::new());
                let closes = !circles(with).is_empty();
                assert!(closes, "{name}: {from} may use {to} without a reason ({why}): remove it from the list");
            }
        }
    }
}

/// The table of the modules in a guide begins so.
const TABLES: [(&str, &str); 2] = [("vsr", "//! | folder or module |"), ("vsr-sim", "//! | module |")];

#[test]
fn each_module_uses_only_those_before_it_in_the_guide_of_its_crate() {
    for (name, table) in TABLES {
        let lib = fs::read_to_string(root().join(name).join("src/lib.rs")).expect("the root of the crate");
        let uses = uses(&library(name));
        let rows = lib.lines().skip_while(|line| !line.starts_with(table)).take_while(|line| line.starts_with("//! |"));
        let mut order: Vec<&str> = Vec::new();
        for row in rows {
            let cell = row.trim_start_matches("//! | ").split(" | ").next().unwrap_or_default();
            let named = cell.split('`').skip(1).step_by(2);
            order.extend(named.filter(|name| uses.contains_key(*name)));
        }
        let all: BTreeSet<&str> = uses.keys().map(String::as_str).collect();
        assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), all, "{name}: the guide names every module");
        assert_eq!(order.len(), uses.len(), "{name}: each once: {order:?}");
        for (at, module) in order.iter().enumerate() {
            let is_later = |other: &String| !order[..at].contains(&other.as_str());
            let later: Vec<_> = uses[*module].iter().filter(|(other, _)| is_later(other)).collect();
            assert!(later.is_empty(), "{name}: {module} uses what comes after it: {later:?}");
        }
    }
}

/// What `Core` is composed of, besides the folder `types`: below `vsr/src/protocol`.
const PARTS: [&str; 17] = [
    "timers",
    "log/log",
    "log/body_cache",
    "log/outbox",
    "log/writes",
    "normal/agreed_clock",
    "normal/forwards",
    "normal/pipeline",
    "normal/progress",
    "normal/read_rounds",
    "normal/sessions",
    "recovery/questions",
    "view_change/choose",
    "view_change/phase",
    "view_change/votes",
    "health/halt",
    "health/invariants",
];

/// The words that a source of the protocol may not use, as it stands below it.
fn strange(place: &[String], code: &str) -> Vec<&'static str> {
    let is_type = place.first().is_some_and(|folder| folder == "types");
    let is_part = PARTS.contains(&place.join("/").as_str());
    let has_core = (is_type || is_part) && code.split(|c| !is_word(c)).any(|word| word == "Core");
    let leads_out = |path: &&str| is_type && code.contains(*path);
    ["crate::", "super::super::"].into_iter().filter(leads_out).chain(has_core.then_some("Core")).collect()
}

/// Whether a source names this file of the protocol, which stands below it as `normal/apply` does.
fn names_file(place: &[String], code: &str, file: &str) -> bool {
    let has = |path: &str| code.match_indices(path).any(|(at, _)| !code[at + path.len()..].starts_with(is_word));
    let beside = file.rsplit_once('/').filter(|(folder, _)| place.len() > 1 && place[0] == *folder);
    has(&format!("protocol::{}", file.replace('/', "::")))
        || beside.is_some_and(|(_, name)| has(&format!("super::{name}")))
}

#[test]
fn parts_of_the_protocol_use_none_of_its_roles() {
    let sources = library("vsr");
    let places = sources.iter().filter_map(|source| {
        let (top, place) = source.module.split_first()?;
        (top == "protocol" && !place.is_empty()).then_some((place, source))
    });
    let (mut parts, mut roles) = (Vec::new(), Vec::new());
    for (place, source) in places {
        let file = place.join("/");
        if PARTS.contains(&file.as_str()) || place[0] == "types" {
            parts.push((place, source));
        } else if !source.path.ends_with("mod.rs") {
            // The head of a folder is no role.
            roles.push(file);
        }
    }
    assert!(roles.len() >= 10 && roles.iter().any(|role| role == "normal/apply"), "{roles:?}");
    for (place, source) in parts {
        let named: Vec<_> = roles.iter().filter(|role| names_file(place, &source.code, role)).collect();
        assert!(named.is_empty(), "{} uses {named:?}", source.path.display());
    }
    let place = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    assert!(names_file(&place("log/log"), "use crate::protocol::normal::apply::Machine;", "normal/apply"));
    assert!(names_file(&place("normal/progress"), "use super::apply::Machine;", "normal/apply"));
    assert!(!names_file(&place("log/log"), "use super::apply::Machine;", "normal/apply"));
    assert!(!names_file(&place("normal/progress"), "use super::applying::Machine;", "normal/apply"));
}

#[test]
fn parts_of_the_protocol_know_nothing_of_its_core_and_types_nothing_of_its_parts() {
    let (mut parts, mut types) = (0, 0);
    for source in library("vsr") {
        if let Some((_, place)) = source.module.split_first().filter(|(top, _)| *top == "protocol") {
            assert_eq!(strange(place, &source.code), Vec::<&str>::new(), "{}", source.path.display());
            parts += usize::from(PARTS.contains(&place.join("/").as_str()));
            types += usize::from(place.first().is_some_and(|folder| folder == "types"));
        }
    }
    assert_eq!(parts, PARTS.len(), "each is there");
    assert!(types > 10, "{types} files of types");
    let place = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(strange(&place("log/writes"), "impl Core {"), ["Core"]);
    assert_eq!(strange(&place("types/entry"), "use crate::protocol::log::log::Log;"), ["crate::"]);
    assert!(strange(&place("normal/primary"), "impl Core {").is_empty());
}

// ---- sizes ----

/// A function as it is measured.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
    nesting: usize,
}

/// A function whose end has not come.
struct Begun {
    name: String,
    line: usize,
    /// How many braces are open within its body; `None` before it.
    body: Option<usize>,
    nesting: usize,
}

fn name_of_function(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split(|c| !is_word(c)).collect();
    let at = words.windows(2).position(|pair| pair[0] == "fn" && !pair[1].is_empty())?;
    line.contains(&format!("fn {}", words[at + 1])).then(|| words[at + 1].to_owned())
}

fn functions(code: &str) -> Vec<Function> {
    let (mut depth, mut begun, mut found) = (0_usize, Vec::<Begun>::new(), Vec::new());
    for (line, text) in (1..).zip(code.lines()) {
        begun.extend(name_of_function(text).map(|name| Begun { name, line, body: None, nesting: 0 }));
        for c in text.chars() {
            if c == '{' {
                depth += 1;
                if let Some(last) = begun.last_mut() {
                    let body = *last.body.get_or_insert(depth);
                    last.nesting = last.nesting.max(depth - body);
                }
            } else if c == '}' {
                if let Some(Begun { name, line: from, nesting, .. }) = begun.pop_if(|last| last.body == Some(depth)) {
                    found.push(Function { name, line: from, lines: line - from + 1, nesting });
                }
                depth = depth.saturating_sub(1);
            }
        }
        // A declaration has no body.
        if text.ends_with(';') {
            begun.pop_if(|last| last.body.is_none());
        }
    }
    found
}

fn is_too_large(function: &Function) -> bool {
    function.lines > FUNCTION_MAX || function.nesting > NESTING_MAX
}

#[test]
fn functions_of_libraries_are_short_and_flat() {
    let (mut wrong, mut needed, mut count) = (Vec::new(), BTreeSet::new(), 0);
    for name in LIBRARIES {
        for source in library(name) {
            let functions = functions(&source.code);
            count += functions.len();
            for Function { name: function, line, lines, nesting } in functions.into_iter().filter(is_too_large) {
                if FUNCTIONS.iter().any(|(of, known, _)| *of == name && *known == function) {
                    needed.insert((name, function));
                } else {
                    let place = format!("{}:{line}", source.path.display());
                    wrong.push(format!("{place}: {function} has {lines} lines, {nesting} braces deep"));
                }
            }
        }
    }
    assert!(count > 1000, "{count} functions: this test has read nothing");
    assert_eq!(wrong, Vec::<String>::new(), "at most {FUNCTION_MAX} lines, {NESTING_MAX} braces deep");
    for (of, function, why) in FUNCTIONS {
        let is_needed = needed.contains(&(*of, (*function).to_owned()));
        assert!(is_needed, "{of}: {function} is short enough now ({why}): remove it from the list");
    }
}

#[test]
fn files_are_short() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    assert!(files.len() > 100, "{} files", files.len());
    let long: Vec<_> = files.iter().filter(|(_, text)| text.lines().count() > FILE_MAX).map(|(path, _)| path).collect();
    assert!(long.is_empty(), "more than {FILE_MAX} lines: {long:?}");
}

// ---- this test can fail ----

#[test]
fn what_is_too_long_too_deep_or_in_a_circle_is_found() {
    let deep = "fn deep<'a>(c: char) {\n    if c == '{' { loop { match c { _ => { loop { if c == '}' { // {\n \"{\" } } } } } }\n}\n";
    let long = format!(
        "trait T {{\n    fn declared(&self);\n    fn long(&self) {{\n{}    }}\n}}\n",
        "        a();\n".repeat(79)
    );
    let found = functions(&code(&format!("{deep}{long}")));
    let measured: Vec<_> =
        found.iter().map(|function| (function.name.as_str(), function.lines, function.nesting)).collect();
    assert_eq!(measured, [("deep", 4, 6), ("long", 81, 0)]);
    assert!(found.iter().all(is_too_large));

    let source = |module: &str, text: &str| Source {
        path: PathBuf::from(module),
        module: module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        code: without_tests(&code(text)).to_owned(),
    };
    let sources = |b: &str| {
        [
            source("", "pub use c::{Thing, Other};"),
            source("a", "use crate::{b::{self, X}, d};"),
            source("b::inner", b),
            source("c", "use crate::a; // crate::b"),
            source("d", "let text = \"crate::a\"; $crate::a"),
        ]
    };
    let of = |b: &str| circles(uses(&sources(b)));
    for harmless in ["use super::other;", "use crate::d;", "// crate::c", "#[cfg(test)]\nmod tests { use crate::c; }"] {
        assert_eq!(of(harmless), Vec::<String>::new(), "{harmless}");
    }
    for harmful in ["use crate::c;", "use super::super::c;", "fn f() -> crate::Thing {}", "use crate::{d, Other};"] {
        assert_eq!(of(harmful).len(), 3, "{harmful}");
    }
    assert_eq!(unseen(&sources("use crate::{d, Other, elsewhere::c};")), ["elsewhere"]);
}

#[test]
fn a_circle_between_files_is_found_and_a_head_that_re_exports_closes_none() {
    let source = |module: &str, text: &str| Source {
        path: PathBuf::from(module),
        module: module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        code: code(text),
    };
    // `b` uses the inner file, whose `Thing` the head of its folder re-exports.
    let of = |head: &str, inner: &str| {
        let head = format!("mod inner;\npub use self::inner::{{Thing, Other}};\n{head}");
        circles(file_uses(&[
            source("", "pub use a::Face;"),
            source("a", &head),
            source("a::inner", inner),
            source("b", "use crate::a::Thing;"),
        ]))
    };
    for harmless in
        ["use super::Face;", "use crate::{a::Face, Face};", "use super::*;", "// crate::b", "use $crate::b;"]
    {
        assert_eq!(of("struct Face;", harmless), Vec::<String>::new(), "{harmless}");
    }
    for harmful in ["use crate::b;", "use super::super::{a::Face, b::X};", "fn f() -> crate::b::X {}"] {
        assert_eq!(of("struct Face;", harmful), ["a/inner uses b in a::inner", "b uses a/inner in b"], "{harmful}");
    }
    for head in ["struct Face(Thing);", "fn f() { inner::g() }", "use self::inner::g;", "use crate::a::inner::{g, h};"]
    {
        let found = of(head, "use super::Face;");
        assert_eq!(found, ["a uses a/inner in a", "a/inner uses a in a::inner"], "{head}");
    }
}
