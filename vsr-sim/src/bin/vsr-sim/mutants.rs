//! Proof that the simulator bites: every patch in `vsr-sim/planted` plants one bug, and each must be found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::say;

/// Which bugs, and how long they are looked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The patches, by name without `.patch`; all of them when none is given.
    names: Vec<String>,
    /// Seeds that may be needed for each.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// So many of all, taken in turn by this number: for a few in each run of the tests.
    #[arg(long, value_name = "NUMBER/OF")]
    share: Option<String>,
    /// Bugs that may stay unfound.
    #[arg(long, default_value_t = 2)]
    missed_max: usize,
    /// Writes the kill table, as Markdown.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Where trees, builds and results are kept, so that an interrupted run goes on where it was.
    #[arg(long, value_name = "FOLDER", default_value = "target/mutants")]
    folder: PathBuf,
    /// Reduces each failure to a scenario, too; they are left in the folder.
    #[arg(long)]
    shrink: bool,
    /// Forgets what earlier runs found of these.
    #[arg(long)]
    again: bool,
}

/// What became of one bug.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hunt {
    /// The verdict and the checker; `None` when it was not found.
    found: Option<(u64, String)>,
    seeds: u64,
    /// Lines of the scenario it was reduced to.
    lines: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let patches = PathBuf::from("vsr-sim/planted");
    let names = chosen(arguments, &patches)?;
    let results = arguments.folder.join("results.txt");
    std::fs::create_dir_all(&arguments.folder).map_err(|error| format!("{}: {error}", arguments.folder.display()))?;
    let tree = arguments.folder.join("tree");
    clone_tree(&tree)?;
    let commit = output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&tree))?;
    let mut known = read_results(&results, commit.trim(), arguments.seeds);
    known.retain(|name, _| !(arguments.again && names.contains(name)));
    let mut untried = 0;
    for (at, name) in names.iter().enumerate() {
        if let Some(outcome) = known.get(name) {
            say!("{}/{} {} (known)", at + 1, names.len(), line(name, outcome));
            continue;
        }
        let patch = std::path::absolute(patches.join(format!("{name}.patch"))).map_err(|error| error.to_string())?;
        let outcome = match try_one(arguments, &tree, &patch) {
            Ok(outcome) => outcome,
            // The others can be tried all the same; this run fails at its end.
            Err(why) => {
                say!("{}/{} {name}: NOT TRIED: {why}", at + 1, names.len());
                untried += 1;
                continue;
            }
        };
        say!("{}/{} {}", at + 1, names.len(), line(name, &outcome));
        known.insert(name.clone(), outcome);
        write_results(&results, commit.trim(), &known)?;
    }
    known.retain(|name, _| names.contains(name));
    if let Some(path) = &arguments.table {
        std::fs::write(path, table(commit.trim(), &known, &patches)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let missed = known.values().filter(|outcome| outcome.found.is_none()).count();
    say!("planted={} found={} missed={missed} untried={untried}", names.len(), known.len() - missed);
    Ok(if missed > arguments.missed_max || untried > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(arguments: &Arguments, patches: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(patches)
        .map_err(|error| format!("{}: {error}; run this from the root of the project", patches.display()))?;
    let files = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut all: Vec<String> = files.filter_map(|file| file.strip_suffix(".patch").map(str::to_owned)).collect();
    all.sort();
    if let Some(unknown) = arguments.names.iter().find(|name| !patches.join(format!("{name}.patch")).exists()) {
        return Err(format!("there is no {}/{unknown}.patch", patches.display()));
    }
    if !arguments.names.is_empty() {
        return Ok(arguments.names.clone());
    }
    let Some(share) = &arguments.share else { return Ok(all) };
    let numbers =
        share.split_once('/').and_then(|(number, of)| Some((number.parse::<usize>().ok()?, of.parse::<usize>().ok()?)));
    let (number, of) = numbers.filter(|(_, of)| *of > 0).ok_or("a share is written as NUMBER/OF, as in 3/10")?;
    Ok(all.into_iter().skip(number % of).step_by(of).collect())
}

/// The committed tree, in a folder of its own: it may be there from another checkout.
fn clone_tree(tree: &Path) -> Result<(), String> {
    if !tree.join(".git").exists() {
        output(Command::new("git").args(["clone", "-q", "."]).arg(tree))?;
    }
    let here = std::env::current_dir().map_err(|error| error.to_string())?;
    output(Command::new("git").args(["fetch", "-q"]).arg(here).arg("HEAD").current_dir(tree))?;
    output(Command::new("git").args(["reset", "-q", "--hard", "FETCH_HEAD"]).current_dir(tree)).map(|_| ())
}

fn try_one(arguments: &Arguments, tree: &Path, patch: &Path) -> Result<Hunt, String> {
    output(Command::new("git").args(["checkout", "-q", "--", "."]).current_dir(tree))?;
    output(Command::new("git").arg("apply").arg(patch).current_dir(tree))
        .map_err(|why| format!("{} no longer applies: {why}", patch.display()))?;
    let target = std::path::absolute(arguments.folder.join("build")).map_err(|error| error.to_string())?;
    let mut build = Command::new("cargo");
    build.args(["build", "-q", "--release", "-p", "vsr-sim", "--bin", "vsr-sim"]).current_dir(tree);
    // One line has changed since the last build; optimising the rest again takes longer than most bugs live.
    build
        .envs([
            ("CARGO_INCREMENTAL", "1"),
            ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
        ])
        .env("CARGO_TARGET_DIR", &target);
    output(&mut build).map_err(|why| format!("{} does not compile: {why}", patch.display()))?;
    let mut sweep = Command::new(target.join("release/vsr-sim"));
    sweep.args(["--stop", "--quiet", "--seeds", &format!("0..{}", arguments.seeds)]).stdin(Stdio::null());
    let text = sweep.output().map_err(|error| format!("the patched simulator: {error}"))?.stdout;
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().find_map(|line| {
        let (seed, why) = line.strip_prefix("FAIL seed=")?.split_once(' ')?;
        Some((seed.parse::<u64>().ok()?, why.to_owned()))
    });
    let seeds = text.lines().find_map(|line| line.strip_prefix("seeds=")?.split(' ').next()?.parse().ok());
    let mut lines = None;
    if let (true, Some((seed, _))) = (arguments.shrink, &found) {
        let scenario = arguments.folder.join(patch.with_extension("vsr").file_name().unwrap_or_default());
        let mut shrink = Command::new(target.join("release/vsr-sim"));
        shrink.args(["shrink", &seed.to_string(), "--output"]).arg(&scenario).stdin(Stdio::null());
        let text = shrink.output().map_err(|error| format!("the patched simulator: {error}"))?.stdout;
        let last = |line: &str| line.split_once("lines=").and_then(|(_, lines)| lines.trim().parse().ok());
        lines = String::from_utf8_lossy(&text).lines().find_map(last);
    }
    Ok(Hunt { found, seeds: seeds.unwrap_or(0), lines })
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn line(name: &str, outcome: &Hunt) -> String {
    match &outcome.found {
        Some((seed, why)) => {
            let why: String = why.chars().take(160).collect();
            format!("{name}: found at seed {seed}, after {} seeds: {why}", outcome.seeds)
        }
        None => format!("{name}: MISSED in {} seeds", outcome.seeds),
    }
}

fn read_results(path: &Path, commit: &str, seeds: u64) -> BTreeMap<String, Hunt> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(commit) {
        return BTreeMap::new();
    }
    let result = |line: &str| {
        let mut parts = line.splitn(5, '\t');
        let (name, ran, seed) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let (lines, why) = (parts.next()?.parse().ok(), parts.next()?);
        let found = seed.parse().ok().map(|seed| (seed, why.to_owned()));
        // A bug that was looked for less long is looked for again.
        (found.is_some() || ran >= seeds).then(|| (name.to_owned(), Hunt { found, seeds: ran, lines }))
    };
    lines.filter_map(result).collect()
}

fn write_results(path: &Path, commit: &str, results: &BTreeMap<String, Hunt>) -> Result<(), String> {
    let mut text = format!("{commit}\n");
    for (name, Hunt { found, seeds, lines }) in results {
        let lines = lines.map_or(String::new(), |lines| lines.to_string());
        let (seed, why) = found.as_ref().map_or((String::new(), ""), |(seed, why)| (seed.to_string(), why.as_str()));
        let _ = writeln!(text, "{name}\t{seeds}\t{seed}\t{lines}\t{why}");
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn table(commit: &str, results: &BTreeMap<String, Hunt>, patches: &Path) -> Result<String, String> {
    let short: String = commit.chars().take(10).collect();
    let mut text =
        format!("Made by `vsr-sim mutants` on commit {short}; a seed means something on its own commit only.\n\n");
    let shrunk = results.values().any(|outcome| outcome.lines.is_some());
    let (head, rule) = if shrunk { (" scenario, lines |", "---|") } else { ("", "") };
    let _ = writeln!(text, "| bug | rule | found by | at seed | after seeds |{head}\n|---|---|---|---|---|{rule}");
    for (name, Hunt { found, seeds, lines }) in results {
        let lines = lines.map_or(String::new(), |lines| format!(" {lines}"));
        let lines = if shrunk { format!("{lines} |") } else { String::new() };
        let path = patches.join(format!("{name}.patch"));
        let patch = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let bug = patch.lines().next().unwrap_or_default().trim_end_matches('.');
        let rule = patch.lines().find_map(|line| line.strip_prefix("Rule: ")).unwrap_or_default();
        let (by, seed) = match found {
            // `safety: checker: at 1.2 s: …`, `liveness: …`
            Some((seed, why)) => {
                let mut words = why.split(": ");
                let (verdict, checker) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                (if verdict == "safety" { checker.to_owned() } else { verdict.to_owned() }, seed.to_string())
            }
            None => ("not found".to_owned(), String::new()),
        };
        let _ = writeln!(text, "| {bug} | {rule} | {by} | {seed} | {seeds} |{lines}");
    }
    Ok(text)
}
