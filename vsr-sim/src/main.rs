//! The command line of the simulator.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use vsr_sim::sweep::{FAULT_CLASSES, Summary, sweep};
use vsr_sim::{Detail, Report, Verdict, run_seed};

/// Runs the production replica in a simulated world with seeded faults, and checks every property.
///
/// Exit codes: 0 pass, 1 safety, 2 usage, 3 liveness, 5 crash, 7 unrecoverable (rightly stuck).
#[derive(Debug, Parser)]
#[command(name = "vsr-sim", version)]
struct Arguments {
    /// The seed; a random one when none is given.
    seed: Option<u64>,
    /// Runs a range of seeds, A..B without B, in parallel.
    #[arg(long, value_name = "A..B", value_parser = parse_range, conflicts_with = "seed")]
    seeds: Option<Range<u64>>,
    /// Threads of a sweep.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Stops a sweep at its first failure.
    #[arg(long)]
    stop: bool,
    /// Prints no event lines.
    #[arg(long, short)]
    quiet: bool,
    /// Prints a line for each message, too.
    #[arg(long, short, conflicts_with = "quiet")]
    verbose: bool,
}

/// As `println!`, but a reader that has gone away (`| head`) is no reason to panic.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write a range as A..B, as in 0..1000")?;
    let parse = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let range = parse(from)?..parse(to)?;
    if range.is_empty() { Err("the range is empty: B must be greater than A".to_owned()) } else { Ok(range) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seeds.clone() {
        Some(seeds) => run_many(seeds, &arguments),
        None => run_one(arguments.seed.unwrap_or_else(fresh_seed), &arguments),
    }
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

fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => "every property held, every request was answered".to_owned(),
        Verdict::Safety(violation) => violation.to_string(),
        Verdict::Liveness(why) | Verdict::Unrecoverable(why) => why.clone(),
        Verdict::Crash(panic) => format!("a panic: {panic}"),
    }
}

fn run_one(seed: u64, arguments: &Arguments) -> ExitCode {
    let detail = match (arguments.quiet, arguments.verbose) {
        (true, _) => Detail::Counters,
        (_, true) => Detail::Messages,
        _ => Detail::Events,
    };
    say!("seed {seed}");
    say!("options {}", vsr_sim::Options::from_seed(seed));
    let Report { verdict, trace, simulated, acknowledged, .. } = run_seed(seed, detail);
    for line in trace.lines() {
        say!("{line}");
    }
    say!("what happened in {:.3} s of virtual time:", simulated.as_secs_f64());
    for (name, count) in trace.counters() {
        say!("  {count:>8}  {name}");
    }
    say!("{}: {}", verdict.name(), describe(&verdict));
    say!("acknowledged={acknowledged}");
    let (hash, events) = (trace.hash(), trace.events());
    say!("seed={seed} verdict={} hash={hash:016x} events={events}", verdict.name());
    exit_code(&verdict)
}

#[allow(clippy::disallowed_methods, reason = "the speed of the simulator is measured in real time")]
fn run_many(seeds: Range<u64>, arguments: &Arguments) -> ExitCode {
    let start = std::time::Instant::now();
    // Panics of a run are caught and reported with their seed.
    std::panic::set_hook(Box::new(|_| {}));
    let bar =
        if std::io::stderr().is_terminal() { ProgressBar::new(seeds.end - seeds.start) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {eta} left") {
        bar.set_style(style);
    }
    let summary =
        sweep(seeds, arguments.jobs.max(1), arguments.stop, |seed| run_seed(seed, Detail::Counters), || bar.inc(1));
    bar.finish_and_clear();
    print_summary(&summary, start.elapsed().as_secs_f64());
    match summary.failed.values().next() {
        Some(verdict) => exit_code(verdict),
        None => ExitCode::SUCCESS,
    }
}

fn print_summary(summary: &Summary, seconds: f64) {
    for (seed, verdict) in &summary.failed {
        say!("FAIL {} {}", verdict.name(), describe(verdict));
        say!("  repeat: cargo run --release -p vsr-sim -- {seed}");
    }
    say!("what happened (in so many seeds, so often in all):");
    for (name, (seeds, total)) in &summary.counters {
        say!("  {seeds:>6} {total:>10}  {name}");
    }
    let missing: Vec<_> = FAULT_CLASSES.iter().filter(|class| !summary.counters.contains_key(*class)).collect();
    if !missing.is_empty() {
        say!("fault classes that never happened: {missing:?}");
    }
    let share = |part: u64| 100.0 * part as f64 / summary.seeds.max(1) as f64;
    say!(
        "calm {:.1} %, with a view change and a crash {:.1} %, unrecoverable {:.2} %",
        share(summary.calm),
        share(summary.eventful),
        share(summary.unrecoverable)
    );
    say!(
        "{:.0} seeds/minute, {:.0} simulated seconds/second, {:.0} events/second",
        summary.seeds as f64 / seconds * 60.0,
        summary.simulated.as_secs_f64() / seconds,
        summary.events as f64 / seconds
    );
    say!(
        "seeds={} passed={} failed={} unrecoverable={}",
        summary.seeds,
        summary.passed,
        summary.failed.len(),
        summary.unrecoverable
    );
}
