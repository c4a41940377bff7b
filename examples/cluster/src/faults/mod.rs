//! Real processes through what operators, disks and strangers do to them: each case shows what an operator sees, and says whether
//! nothing that was acknowledged is lost, and whether every client that should be served is.

mod folders;
mod ground;
mod load;
mod tally;

use std::time::Duration;

use clap::ValueEnum;
use vsr::{Clock, SystemClock};

use crate::Error;
use crate::output::say;
use folders::Back;
use ground::within;
pub(crate) use tally::TallyApp;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// An old copy of a folder is put back.
    Restore,
    /// A disk is rolled back in place.
    Rollback,
    /// Two processes on copies of one folder.
    Clone,
    /// A disk is formatted again under the same id.
    Reformat,
    /// The primary's disk is full.
    FullDisk,
    /// Every log is full.
    FullLog,
    /// Commands and queries that no honest program has made.
    MessageOfDeath,
    /// 1,100 clients at once.
    Crowd,
    /// Memory of backups and primary under load.
    Memory,
    /// A flipped bit in the log of each replica.
    Damage,
}

/// Which cases are played.
#[derive(Clone, Debug, clap::Args)]
pub struct FaultOptions {
    /// Shorter loads and fewer trials: everything within five minutes.
    #[arg(long)]
    pub quick: bool,
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Case>,
}

/// No case may take longer.
const CASE_MAX: Duration = Duration::from_secs(600);

/// Plays the cases. Whether all are as they should be.
pub(crate) async fn faults(options: &FaultOptions) -> Result<bool, Error> {
    let clock = SystemClock::new();
    let mut failed = 0;
    let chosen = Case::value_variants().iter().filter(|case| options.only.is_empty() || options.only.contains(case));
    for case in chosen {
        let name = case.to_possible_value();
        let (name, what) = match &name {
            Some(value) => (value.get_name(), value.get_help().map(ToString::to_string).unwrap_or_default()),
            None => ("", String::new()),
        };
        say(format_args!("== {name}: {what}"));
        let begin = clock.now();
        let played = within(CASE_MAX, play(*case, options.quick)).await;
        let time = clock.now().since(begin).as_secs_f64();
        match played {
            Ok(()) => say(format_args!("PASS {name} ({time:.1} s)")),
            Err(error) => {
                failed += 1;
                say(format_args!("FAIL {name} ({time:.1} s): {error}"));
            }
        }
    }
    say(format_args!("accept=faults verdict={}", if failed == 0 { "pass" } else { "fail" }));
    Ok(failed == 0)
}

async fn play(case: Case, quick: bool) -> Result<(), Error> {
    match case {
        Case::Restore => folders::restore(Back::Copied).await,
        Case::Rollback => folders::restore(Back::RolledBack).await,
        Case::Clone => folders::clone().await,
        Case::Reformat => folders::reformat().await,
        Case::FullDisk => load::full_disk().await,
        Case::FullLog => load::full_log().await,
        Case::MessageOfDeath => load::death().await,
        Case::Crowd => load::crowd().await,
        Case::Memory => load::memory(quick).await,
        Case::Damage => folders::damage(quick).await,
    }
}
