//! The command line of the simulator.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use vsr_sim::explore::{self, Bounds};
use vsr_sim::report::render;
use vsr_sim::run::sweep::{FAULT_CLASSES, PATHS, Summary, sweep};
use vsr_sim::scenario::{self, Failure, shrink};
use vsr_sim::{Detail, Options, Registers, Report, Simulation, Verdict};

mod mutants;
mod torture;

/// Runs the production replica in a simulated world with seeded faults, and checks every property.
///
/// Exit codes: 0 pass, 1 safety (or a scenario that fails), 2 usage, 3 liveness, 5 crash, 7 unrecoverable (rightly stuck) or unknown.
#[derive(Debug, Parser)]
#[command(name = "vsr-sim", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    seed: Seed,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays scenario files, and compares what they show with what they say.
    Run(RunFiles),
    /// Reduces a failing seed to a scenario file.
    Shrink {
        /// The seed.
        seed: u64,
        #[command(flatten)]
        changes: Changes,
        /// Where the scenario goes; by default into `target/vsr-sim`.
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Checks recorded histories: one line for each, `FILE: linearizable`, `FILE: not linearizable` or `FILE: unknown`, and why.
    CheckHistory {
        /// Jepsen logs of the etcd test, or EDN.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Tries every schedule of a small cluster, up to stated bounds.
    Explore(Explore),
    /// Plants every bug of `vsr-sim/planted`, and says which checker finds it, at which seed.
    Mutants(mutants::Arguments),
    /// Tortures a storage alone, on simulated files.
    Torture(torture::Arguments),
}

#[derive(Debug, Args)]
struct Seed {
    /// The seed; a random one when none is given.
    seed: Option<u64>,
    /// Runs a range of seeds, A..B without B, in parallel.
    #[arg(long, value_name = "A..B", value_parser = parse_range, conflicts_with_all = ["seed", "html", "json", "perfetto"])]
    seeds: Option<Range<u64>>,
    /// Threads of a sweep.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Stops a sweep at its first failure.
    #[arg(long)]
    stop: bool,
    /// Fails a sweep in which a class of faults, or an interesting path of the protocol, never happened.
    #[arg(long, requires = "seeds", conflicts_with = "seed")]
    all_classes: bool,
    /// Prints the most that a sweep has seen of each thing that has a budget: how long a healed core takes, what it costs.
    #[arg(long, requires = "seeds", conflicts_with = "seed")]
    calibrate: bool,
    #[command(flatten)]
    changes: Changes,
    /// Prints no event lines.
    #[arg(long, short)]
    quiet: bool,
    /// Prints a line for each message, too.
    #[arg(long, short, conflicts_with = "quiet")]
    verbose: bool,
    #[command(flatten)]
    pictures: Pictures,
}

#[derive(Debug, Clone, Default, Args)]
struct Changes {
    /// Gives an option this value in every seed, whatever the seed has drawn, as in `lost-disks=1`; may be given again.
    #[arg(long = "set", value_name = "OPTION=VALUE", value_parser = parse_change)]
    changes: Vec<(String, String)>,
}

/// Whether there is such an option with such a value; of each seed the rest may be another one.
fn parse_change(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text} is not OPTION=VALUE"))?;
    Options::calm(0, 3).set(name, value)?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Changes {
    /// The options of a seed, and these.
    fn options_of(&self, seed: u64) -> Result<Options, String> {
        let mut options = Options::from_seed(seed);
        self.changes.iter().try_for_each(|(name, value)| options.set(name, value))?;
        options.validate().map_err(|why| format!("seed {seed}: {why}"))?;
        Ok(options)
    }

    fn simulation_of(&self, seed: u64) -> Result<Simulation<Registers>, String> {
        Ok(vsr_sim::simulation_with(self.options_of(seed)?))
    }
}

/// As they are given again.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|(name, value)| write!(f, " --set {name}={value}"))
    }
}

#[derive(Debug, Default, Args)]
struct Pictures {
    /// Writes the run as a page to look at in a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes the run as lines of JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the run as a trace for Perfetto or chrome://tracing.
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Explore {
    /// Replicas.
    #[arg(long, default_value_t = Bounds::default().replicas)]
    replicas: usize,
    /// Requests, each of a client of its own.
    #[arg(long, default_value_t = Bounds::default().requests)]
    requests: u8,
    /// The highest view.
    #[arg(long, default_value_t = Bounds::default().view_changes)]
    view_changes: u8,
    /// Crashes, at any step.
    #[arg(long, default_value_t = Bounds::default().crashes)]
    crashes: u8,
    /// What time-outs, repeats, late and lost messages may cost together.
    #[arg(long, default_value_t = Bounds::default().trouble)]
    trouble: u8,
    /// States after which it gives up.
    #[arg(long, default_value_t = Bounds::default().states_max)]
    states_max: usize,
}

#[derive(Debug, Args)]
struct RunFiles {
    /// The scenarios: files, or folders of files that end in `.vsr`, at any depth.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Writes what each shows now into the file.
    #[arg(long)]
    rewrite: bool,
    #[command(flatten)]
    pictures: Pictures,
}

/// As `println!`, but a reader that has gone away (`| head`) is no reason to panic.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
pub(crate) use say;

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write a range as A..B, as in 0..1000")?;
    let parse = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let range = parse(from)?..parse(to)?;
    if range.is_empty() { Err("the range is empty: B must be greater than A".to_owned()) } else { Ok(range) }
}

fn main() -> ExitCode {
    let Arguments { command, seed } = Arguments::parse();
    let result = match command {
        Some(Command::Run(files)) => run_files(&files),
        Some(Command::Shrink { seed, changes, output }) => shrink_seed(seed, &changes, output),
        Some(Command::CheckHistory { files }) => {
            Ok(ExitCode::from(vsr_sim::history::check_files(&files, &mut std::io::stdout())))
        }
        Some(Command::Explore(arguments)) => explore_bounds(&arguments),
        Some(Command::Mutants(arguments)) => mutants::run(&arguments),
        Some(Command::Torture(arguments)) => Ok(torture::run(&arguments)),
        None => match seed.seeds.clone() {
            Some(seeds) => run_many(seeds, &seed),
            None => run_one(seed.seed.unwrap_or_else(fresh_seed), &seed),
        },
    };
    result.unwrap_or_else(|why| {
        let _ = writeln!(std::io::stderr(), "{why}");
        ExitCode::from(2)
    })
}

#[allow(clippy::disallowed_methods, reason = "a fresh seed comes from outside; everything after it does not")]
fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
}

fn exit_code(verdict: &Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Pass => 0,
        Verdict::Safety(_) => 1,
        Verdict::Liveness(_) => 3,
        Verdict::Crash(_) => 5,
        Verdict::Unrecoverable(_) => 7,
    })
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    std::fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))?;
    say!("wrote {}", path.display());
    Ok(())
}

impl Pictures {
    fn are_wanted(&self) -> bool {
        self.html.is_some() || self.json.is_some() || self.perfetto.is_some()
    }

    fn write(&self, report: &mut Report, repeat: &str) -> Result<(), String> {
        if !self.are_wanted() {
            return Ok(());
        }
        let timeline = report.timeline(repeat);
        if let Some(path) = &self.html {
            write_file(path, render::html(&timeline).as_bytes())?;
        }
        if let Some(path) = &self.perfetto {
            write_file(path, render::perfetto(&timeline).as_bytes())?;
        }
        if let Some(path) = &self.json {
            let mut lines = Vec::new();
            render::json_lines(&timeline, &mut lines).map_err(|error| error.to_string())?;
            write_file(path, &lines)?;
        }
        Ok(())
    }
}

fn run_one(seed: u64, arguments: &Seed) -> Result<ExitCode, String> {
    let detail = match (arguments.quiet, arguments.verbose || arguments.pictures.are_wanted()) {
        (_, true) => Detail::Messages,
        (true, _) => Detail::Counters,
        _ => Detail::Events,
    };
    say!("seed {seed}");
    let changes = &arguments.changes;
    say!("options {}", changes.options_of(seed)?);
    let mut report = changes.simulation_of(seed)?.detail(detail).run();
    if !arguments.quiet && (arguments.verbose || !arguments.pictures.are_wanted()) {
        for line in report.lines() {
            say!("{line}");
        }
    }
    arguments.pictures.write(&mut report, &format!("cargo run --release -p vsr-sim -- {seed}{changes}"))?;
    let Report { verdict, trace, simulated, acknowledged, .. } = report;
    say!("what happened in {:.3} s of virtual time:", simulated.as_secs_f64());
    for (name, count) in trace.counters() {
        say!("  {count:>8}  {name}");
    }
    say!("{}: {verdict}", verdict.name());
    if verdict.is_failure() {
        say!("a scenario of it, as short as can be: cargo run --release -p vsr-sim -- shrink {seed}{changes}");
    }
    say!("acknowledged={acknowledged}");
    let (hash, events) = (trace.hash(), trace.events());
    say!("seed={seed} verdict={} hash={hash:016x} events={events}", verdict.name());
    Ok(exit_code(&verdict))
}

fn shrink_seed(seed: u64, changes: &Changes, output: Option<PathBuf>) -> Result<ExitCode, String> {
    std::panic::set_hook(Box::new(|_| {}));
    let bar = progress(0);
    bar.set_message("shrinking");
    let simulation = changes.simulation_of(seed)?;
    let shrunk = shrink::shrink(&simulation, shrink::Effort::default(), |runs, faults| {
        bar.set_message(format!("{runs} runs, {faults} faults left"));
    });
    bar.finish_and_clear();
    let Some(shrunk) = shrunk else {
        say!("seed {seed} does not fail: there is nothing to shrink");
        return Ok(ExitCode::SUCCESS);
    };
    let path = output.unwrap_or_else(|| PathBuf::from(format!("target/vsr-sim/seed-{seed}.vsr")));
    write_file(&path, shrunk.text.as_bytes())?;
    say!("{}", shrunk.text.trim_end());
    say!("runs={} faults={} of {} lines={}", shrunk.runs, shrunk.faults, shrunk.faults_before, shrunk.lines());
    say!("play it: cargo run --release -p vsr-sim -- run {} --html target/vsr-sim/seed-{seed}.html", path.display());
    Ok(exit_code(&shrunk.verdict))
}

#[allow(clippy::disallowed_methods, reason = "the speed of the simulator is measured in real time")]
fn explore_bounds(arguments: &Explore) -> Result<ExitCode, String> {
    let &Explore { replicas, requests, view_changes, crashes, trouble, states_max } = arguments;
    let bounds = Bounds { replicas, requests, view_changes, crashes, trouble, states_max, ..Bounds::default() };
    say!(
        "{replicas} replicas, {requests} requests, views up to {view_changes}, {crashes} crashes, trouble {trouble}, {states_max} \
         states at most"
    );
    let start = std::time::Instant::now();
    let bar = progress(0);
    let exploration = explore::explore(&bounds, |so_far| {
        bar.set_message(format!("{} states, {} rounds deep", so_far.states, so_far.depth));
        bar.tick();
    });
    bar.finish_and_clear();
    let exploration = exploration.map_err(|error| error.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    say!("{exploration}");
    let (states, steps, complete) = (exploration.states, exploration.transitions, exploration.complete);
    say!(
        "states={states} steps={steps} complete={complete} seconds={seconds:.0} states_per_second={:.0}",
        states as f64 / seconds
    );
    Ok(ExitCode::from(match (exploration.violation.is_some(), complete) {
        (true, _) => 1,
        (false, false) => 7,
        (false, true) => 0,
    }))
}

fn run_files(arguments: &RunFiles) -> Result<ExitCode, String> {
    let mut files = Vec::new();
    for path in &arguments.files {
        let name = path.display();
        let found = scenario::files(path).map_err(|error| format!("{name}: {error}"))?;
        if found.is_empty() {
            return Err(format!("{name}: there is no file in it that ends in .vsr"));
        }
        files.extend(found);
    }
    let mut worst = ExitCode::SUCCESS;
    for path in &files {
        let name = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        let mut played = scenario::play(&text);
        if arguments.rewrite && played.failure.as_ref().is_none_or(|why| matches!(why, Failure::Differs { .. })) {
            played = scenario::play(&without_expectations(&text));
            write_file(path, played.text.as_bytes())?;
        } else if !arguments.rewrite && files.len() == 1 {
            say!("{}", played.text.trim_end());
        }
        arguments.pictures.write(&mut played.report, &format!("cargo run --release -p vsr-sim -- run {name}"))?;
        match &played.failure {
            None if played.report.verdict == Verdict::Pass => say!("{name}: pass"),
            None => say!("{name}: pass, and rightly stuck: {}", played.report.verdict),
            Some(failure) => {
                say!("{name}:{}: {}", failure.line(), failure.why());
                worst = match failure {
                    Failure::Violated { .. } => exit_code(&played.report.verdict),
                    _ => ExitCode::from(1),
                };
            }
        }
    }
    Ok(worst)
}

fn without_expectations(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('>')).map(|line| format!("{line}\n")).collect()
}

fn progress(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        0 => (ProgressBar::new_spinner(), "{spinner} {msg}"),
        length => (ProgressBar::new(length), "{bar:40} {pos}/{len} seeds, {eta} left"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[allow(clippy::disallowed_methods, reason = "the speed of the simulator is measured in real time")]
fn run_many(seeds: Range<u64>, arguments: &Seed) -> Result<ExitCode, String> {
    let changes = &arguments.changes;
    seeds.clone().try_for_each(|seed| changes.options_of(seed).map(|_| ()))?;
    let start = std::time::Instant::now();
    // Panics of a run are caught and reported with their seed.
    std::panic::set_hook(Box::new(|_| {}));
    let bar = progress(seeds.end - seeds.start);
    let run = |seed| {
        let start = std::time::Instant::now();
        let simulation = changes.simulation_of(seed).expect("the options of all seeds are valid");
        let report = simulation.detail(Detail::Counters).run();
        if arguments.stop && report.verdict.is_failure() {
            // Said at once: another thread may have a seed that does not end.
            say!("STOP seed={seed} {}: {}", report.verdict.name(), report.verdict);
        }
        (report, start.elapsed())
    };
    let summary = sweep(seeds, arguments.jobs.max(1), arguments.stop, run, || bar.inc(1));
    bar.finish_and_clear();
    if arguments.calibrate {
        for (measure, seed) in summary.measures.values() {
            say!("budget: {measure} (seed {seed})");
        }
    }
    let missing = print_summary(&summary, changes, start.elapsed().as_secs_f64());
    Ok(match summary.failed.values().next() {
        Some(verdict) => exit_code(verdict),
        None if missing && arguments.all_classes => ExitCode::from(1),
        None => ExitCode::SUCCESS,
    })
}

/// Whether a class of faults, or a path, is missing.
fn print_summary(summary: &Summary, changes: &Changes, seconds: f64) -> bool {
    for (seed, verdict) in &summary.failed {
        say!("FAIL seed={seed} {}: {verdict}", verdict.name());
        say!("  repeat: cargo run --release -p vsr-sim -- {seed}{changes}");
        say!("  shrink: cargo run --release -p vsr-sim -- shrink {seed}{changes}");
    }
    say!("what happened (in so many seeds, so often in all):");
    for (name, (seeds, total)) in &summary.counters {
        say!("  {seeds:>6} {total:>10}  {name}");
    }
    let missing = |names: &[&'static str]| -> Vec<_> {
        names.iter().copied().filter(|name| !summary.counters.contains_key(name)).collect()
    };
    let (classes, paths) = (missing(FAULT_CLASSES), missing(PATHS));
    if !classes.is_empty() {
        say!("fault classes that never happened: {}", classes.join(", "));
    }
    if !paths.is_empty() {
        say!("paths of the protocol that were never taken: {}", paths.join(", "));
    }
    let share = |part: u64| 100.0 * part as f64 / summary.seeds.max(1) as f64;
    say!(
        "calm {:.1} %, with a view change and a crash {:.1} %, unrecoverable {:.2} %",
        share(summary.calm),
        share(summary.eventful),
        share(summary.unrecoverable)
    );
    let (events, deliveries) = (summary.events as f64, summary.deliveries as f64);
    let busy = summary.busy.as_secs_f64().max(1e-9);
    say!(
        "{:.0} seeds/minute, {:.0} simulated seconds/second, {:.0} events/second; a core: {:.0} events/second, {:.0} deliveries/second",
        summary.seeds as f64 / seconds * 60.0,
        summary.simulated.as_secs_f64() / seconds,
        events / seconds,
        events / busy,
        deliveries / busy
    );
    say!(
        "a seed at the median: {:.1} ms, {} events, {} answers",
        summary.median(|seed| seed.elapsed).as_secs_f64() * 1000.0,
        summary.median(|seed| seed.events),
        summary.median(|seed| seed.acknowledged)
    );
    say!(
        "seeds={} passed={} failed={} unrecoverable={}",
        summary.seeds,
        summary.passed,
        summary.failed.len(),
        summary.unrecoverable
    );
    !classes.is_empty() || !paths.is_empty()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// What clap checks of its own in debug builds only.
    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }
}
