//! Proof that the simulator bites: every patch in `vsr-sim/planted` plants one bug, and each must be found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::say;

/// Which bugs, and how long they are looked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The patches, by name without `.patch`; all of them when none is given.
    names: Vec<String>,
    /// Seeds that may be needed for each.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Only a share of the bugs, taken in turn by this number: for a few in each run of the tests.
    #[arg(long, value_name = "NUMBER/OF")]
    share: Option<String>,
    /// Bugs that may stay unfound.
    #[arg(long, default_value_t = 2)]
    missed_max: usize,
    /// Writes the kill table, as Markdown.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Seconds of real time for the seeds of each bug, its build not counted: one that takes longer is ended, and not found.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    patch_timeout: u64,
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
    /// The seed, the verdict and the checker; `None` when it was not found.
    found: Option<(u64, String)>,
    /// The seconds after which its seeds were ended, if they had to be.
    timed_out: Option<u64>,
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
    let mut known = read_results(&results, commit.trim(), arguments.seeds, arguments.patch_timeout);
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
    let unfound = known.values().filter(|outcome| outcome.found.is_none());
    let (timed_out, missed): (Vec<_>, Vec<_>) = unfound.partition(|outcome| outcome.timed_out.is_some());
    let (timed_out, missed) = (timed_out.len(), missed.len());
    let found = known.len() - missed - timed_out;
    say!("planted={} found={found} missed={missed} timed_out={timed_out} untried={untried}", names.len());
    let is_enough = missed + timed_out <= arguments.missed_max && untried == 0;
    Ok(if is_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256"),
        ])
        .env("CARGO_TARGET_DIR", &target);
    output(&mut build).map_err(|why| format!("{} does not compile: {why}", patch.display()))?;
    let mut sweep = Command::new(target.join("release/vsr-sim"));
    sweep.args(["--stop", "--quiet", "--seeds", &format!("0..{}", arguments.seeds)]).stdin(Stdio::null());
    let limit = Duration::from_secs(arguments.patch_timeout);
    let (text, ended) = output_within(&mut sweep, limit).map_err(|error| format!("the patched simulator: {error}"))?;
    let mut outcome = judge(&text, (!ended).then_some(arguments.patch_timeout));
    if let (true, Some((seed, _))) = (arguments.shrink, &outcome.found) {
        let scenario = arguments.folder.join(patch.with_extension("vsr").file_name().unwrap_or_default());
        let mut shrink = Command::new(target.join("release/vsr-sim"));
        shrink.args(["shrink", &seed.to_string(), "--output"]).arg(&scenario).stdin(Stdio::null());
        let (text, _) = output_within(&mut shrink, limit).map_err(|error| format!("the patched simulator: {error}"))?;
        let last = |line: &str| line.split_once("lines=").and_then(|(_, lines)| lines.trim().parse().ok());
        outcome.lines = text.lines().find_map(last);
    }
    Ok(outcome)
}

/// The verdicts of a run that has failed: see the exit codes of the program.
const VERDICTS: [&str; 3] = ["safety", "liveness", "crash"];

/// What the output of a sweep says. One that had to be ended has found the bug if it had said so before.
fn judge(text: &str, timed_out: Option<u64>) -> Hunt {
    let failure = |mark: &str| {
        text.lines().find_map(|line| {
            let (seed, why) = line.strip_prefix(mark)?.strip_prefix(" seed=")?.split_once(' ')?;
            let is_verdict = VERDICTS.contains(&why.split(':').next()?);
            Some((seed.parse::<u64>().ok()?, why.to_owned())).filter(|_| is_verdict)
        })
    };
    let found = failure("FAIL").or_else(|| failure("STOP"));
    let seeds = text.lines().find_map(|line| line.strip_prefix("seeds=")?.split(' ').next()?.parse().ok());
    let timed_out = timed_out.filter(|_| found.is_none());
    Hunt { found, timed_out, seeds: seeds.unwrap_or(0), lines: None }
}

/// Runs a command to its end, or ends it, and nothing else, when its time is over. What it has said, and whether it came to
/// its end.
fn output_within(command: &mut Command, limit: Duration) -> std::io::Result<(String, bool)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdout = child.stdout.take();
    let (closes, closed) = mpsc::channel();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut bytes = Vec::new();
            let result = stdout.as_mut().map_or(Ok(0), |stdout| stdout.read_to_end(&mut bytes));
            // The receiver is gone when the time is over.
            let _ = closes.send(());
            result.map(|_| bytes)
        });
        let ended = closed.recv_timeout(limit).is_ok();
        if !ended {
            child.kill()?;
        }
        child.wait()?;
        let bytes = reader.join().unwrap_or_else(|_| Ok(Vec::new()))?;
        Ok((String::from_utf8_lossy(&bytes).into_owned(), ended))
    })
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
        None => match outcome.timed_out {
            Some(seconds) => format!("{name}: TIMED OUT, its seeds were ended after {seconds} s"),
            None => format!("{name}: MISSED in {} seeds", outcome.seeds),
        },
    }
}

/// In the place of a seed, with the seconds in that of its verdict.
const TIMED_OUT: &str = "timed-out";

fn read_results(path: &Path, commit: &str, seeds: u64, patch_timeout: u64) -> BTreeMap<String, Hunt> {
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
        let timed_out = (seed == TIMED_OUT).then(|| why.parse().ok()).flatten();
        // A bug that was looked for less long is looked for again.
        let is_known = found.is_some() || timed_out.map_or(ran >= seeds, |seconds: u64| seconds >= patch_timeout);
        is_known.then(|| (name.to_owned(), Hunt { found, timed_out, seeds: ran, lines }))
    };
    lines.filter_map(result).collect()
}

fn write_results(path: &Path, commit: &str, results: &BTreeMap<String, Hunt>) -> Result<(), String> {
    let mut text = format!("{commit}\n");
    for (name, Hunt { found, timed_out, seeds, lines }) in results {
        let lines = lines.map_or(String::new(), |lines| lines.to_string());
        let (seed, why) = match (found, timed_out) {
            (Some((seed, why)), _) => (seed.to_string(), why.clone()),
            (None, Some(seconds)) => (TIMED_OUT.to_owned(), seconds.to_string()),
            (None, None) => (String::new(), String::new()),
        };
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
    for (name, Hunt { found, timed_out, seeds, lines }) in results {
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
            None if timed_out.is_some() => ("timed out".to_owned(), String::new()),
            None => ("not found".to_owned(), String::new()),
        };
        let _ = writeln!(text, "| {bug} | {rule} | {by} | {seed} | {seeds} |{lines}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_that_had_to_be_ended_has_found_only_what_it_had_said() {
        let found = judge("STOP seed=9 safety: a: b\nFAIL seed=7 liveness: c\nseeds=12 passed=10\n", None);
        assert_eq!((found.found, found.seeds), (Some((7, "liveness: c".to_owned())), 12));
        let ended = judge("STOP seed=9 safety: a: b\n", Some(600));
        assert_eq!((ended.found, ended.timed_out), (Some((9, "safety: a: b".to_owned())), None));
        for text in ["", "seeds=3", "STOP seed=9 killed: by the system", "STOP seed=x safety: a"] {
            let ended = judge(text, Some(600));
            assert_eq!((ended.found.clone(), ended.timed_out), (None, Some(600)), "{text}");
            assert!(line("bug", &ended).contains("TIMED OUT, its seeds were ended after 600 s"));
        }
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let mut endless = Command::new("sh");
        endless.args(["-c", "echo said; exec sleep 1000"]).stdin(Stdio::null());
        let (text, ended) = output_within(&mut endless, Duration::from_millis(1)).expect("a shell");
        assert!(!ended && (text.is_empty() || text == "said\n"), "{text}");
        let mut short = Command::new("sh");
        short.args(["-c", "echo said"]).stdin(Stdio::null());
        assert_eq!(output_within(&mut short, Duration::from_secs(600)).expect("a shell"), ("said\n".to_owned(), true));
    }

    #[test]
    fn what_timed_out_is_remembered_until_more_time_is_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("results.txt");
        let timed_out = Hunt { found: None, timed_out: Some(600), seeds: 0, lines: None };
        let found = Hunt { found: Some((3, "safety: a: b".to_owned())), timed_out: None, seeds: 4, lines: Some(9) };
        let results = BTreeMap::from([("a".to_owned(), timed_out), ("b".to_owned(), found.clone())]);
        write_results(&path, "commit", &results).expect("written");
        assert_eq!(read_results(&path, "commit", 10_000, 600), results);
        let rest = BTreeMap::from([("b".to_owned(), found)]);
        assert_eq!(read_results(&path, "commit", 10_000, 601), rest);
        assert_eq!(read_results(&path, "another", 10_000, 600), BTreeMap::new());
    }
}
