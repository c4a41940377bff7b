//! A storage under every harm that files can come to, from the command line.

use std::io::Write as _;
use std::process::ExitCode;

use vsr_sim::files::{Torture, file_storage};
use vsr_sim::run::three_bad_sectors;
use vsr_sim::{Report, Verdict};

use crate::say;

/// Which storage, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The storage.
    #[arg(long, value_enum, default_value_t = Storage::File)]
    storage: Storage,
    /// Distinct crashes and damages.
    #[arg(long, default_value_t = 10_000)]
    points: u64,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this round of the seed, as a failure names it.
    #[arg(long)]
    round: Option<u64>,
    /// Instead, so many clusters of three with one bad sector on each disk, each of another op: all must serve.
    #[arg(long, value_name = "TRIALS", conflicts_with_all = ["points", "round"])]
    three_disks: Option<u64>,
}

/// A storage that the simulator knows.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Storage {
    /// `vsr-storage-file`.
    File,
}

#[allow(clippy::disallowed_methods, reason = "how long it takes is measured in real time")]
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let start = std::time::Instant::now();
    let passed = match (arguments.three_disks, arguments.storage) {
        (Some(trials), Storage::File) => three_disks(arguments.seed, trials),
        (None, Storage::File) => torture(arguments),
    };
    let verdict = if passed { "pass" } else { "fail" };
    say!("seconds={:.1} verdict={verdict}", start.elapsed().as_secs_f64());
    ExitCode::from(u8::from(!passed))
}

fn torture(arguments: &Arguments) -> bool {
    let mut torture = Torture::new(arguments.seed).points(arguments.points);
    if let Some(round) = arguments.round {
        torture = torture.round(round);
    }
    match torture.run(file_storage) {
        Ok(done) => {
            say!("what was done to the disks (so often; so often the storage refused, where it may):");
            for (harm, count) in &done.harms {
                say!("  {count:>8} {:>8}  {harm}", done.refusals.get(harm).copied().unwrap_or_default());
            }
            say!("seed={} points={} rounds={}", arguments.seed, done.points, done.rounds);
            true
        }
        Err(broken) => {
            say!("{broken}");
            let (seed, round) = (arguments.seed, broken.round);
            say!("  repeat: cargo run --release -p vsr-sim -- torture --seed {seed} --round {round}");
            false
        }
    }
}

fn three_disks(first: u64, trials: u64) -> bool {
    let mut served = 0;
    for seed in first..first.saturating_add(trials) {
        let Report { verdict, .. } = three_bad_sectors(seed);
        if verdict == Verdict::Pass {
            served += 1;
        } else {
            say!("seed {seed}: {}: {verdict}", verdict.name());
        }
    }
    say!("three disks with a bad sector each: trials={trials} served={served}");
    served == trials
}
