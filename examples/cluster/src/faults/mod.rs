//! Real processes through what operators, disks and strangers do to them: each case shows what an operator sees, and says whether
//! nothing that was acknowledged is lost, and whether every client that should be served is.

mod folders;
mod ground;
mod history;
mod large;
mod load;
mod pressure;
mod rounds;
mod tally;

use std::time::Duration;

use clap::ValueEnum;
use vsr::{Clock, SystemClock};

use crate::output::say;
use crate::{App, Error, StorageKind};
use folders::Back;
use ground::within;
pub(crate) use tally::TallyApp;

/// Cases that are played one after the other.
pub(crate) trait Cases: ValueEnum + PartialEq + 'static {
    /// What they show together.
    const NAME: &'static str;
    /// No case may take longer.
    const TIME_MAX: Duration;

    fn play<A: App>(&self, setting: Setting) -> impl Future<Output = Result<(), Error>>;
}

/// How a case is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Shorter loads and fewer trials.
    quick: bool,
    /// Where the replicas keep what they have.
    storage: StorageKind,
}

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

/// What becomes of a long history, of a large state, and of disks that lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckpointCase {
    /// Many commands: memory, disk and the time of a start stay as they are; a replica that was away fetches a checkpoint.
    Endless,
    /// A large state: commits go on while checkpoints of it are written.
    Pauses,
    /// A large state of the example's own: a checkpoint of it beside writes, and its transfer to a replica that has lost its disk.
    Large,
    /// A replica's files are damaged, lost, old or another one's, at random, round after round.
    Rounds,
    /// The primary's disk is full.
    FullDisk,
}

/// Which cases are played.
#[derive(Clone, Debug, clap::Args)]
pub struct CaseOptions<C: ValueEnum + Send + Sync + 'static> {
    /// Shorter loads and fewer trials: everything within five minutes.
    #[arg(long)]
    pub quick: bool,
    /// Where the replicas keep what they have.
    #[arg(long, value_enum, default_value = "file")]
    pub storage: StorageKind,
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<C>,
}

/// Plays the cases. Whether all are as they should be.
pub(crate) async fn play<A: App, C: Cases + Send + Sync>(options: &CaseOptions<C>) -> Result<bool, Error> {
    let setting = Setting { quick: options.quick, storage: options.storage };
    let clock = SystemClock::new();
    let mut failed = 0;
    let chosen = C::value_variants().iter().filter(|case| options.only.is_empty() || options.only.contains(case));
    for case in chosen {
        let name = case.to_possible_value();
        let (name, what) = match &name {
            Some(value) => (value.get_name(), value.get_help().map(ToString::to_string).unwrap_or_default()),
            None => ("", String::new()),
        };
        say(format_args!("== {name}: {what}"));
        let begin = clock.now();
        let played = within(C::TIME_MAX, case.play::<A>(setting)).await;
        let time = clock.now().since(begin).as_secs_f64();
        match played {
            Ok(()) => say(format_args!("PASS {name} ({time:.1} s)")),
            Err(error) => {
                failed += 1;
                say(format_args!("FAIL {name} ({time:.1} s): {error}"));
            }
        }
    }
    if !options.only.is_empty() {
        say("only some of the cases were played");
    }
    say(format_args!("accept={} verdict={}", C::NAME, if failed == 0 { "pass" } else { "fail" }));
    Ok(failed == 0)
}

impl Cases for Case {
    const NAME: &'static str = "faults";
    const TIME_MAX: Duration = Duration::from_secs(600);

    async fn play<A: App>(&self, setting: Setting) -> Result<(), Error> {
        if setting.storage != StorageKind::File && *self != Case::FullDisk {
            return Err(
                "this case is of the file storage; `checkpoints --storage rocksdb` plays what is of both".into()
            );
        }
        match self {
            Case::Restore => folders::restore(Back::Copied).await,
            Case::Rollback => folders::restore(Back::RolledBack).await,
            Case::Clone => folders::clone().await,
            Case::Reformat => folders::reformat().await,
            Case::FullDisk => load::full_disk(setting).await,
            Case::FullLog => load::full_log().await,
            Case::MessageOfDeath => load::death().await,
            Case::Crowd => load::crowd().await,
            Case::Memory => load::memory(setting.quick).await,
            Case::Damage => folders::damage(setting.quick).await,
        }
    }
}

impl Cases for CheckpointCase {
    const NAME: &'static str = "checkpoints";
    const TIME_MAX: Duration = Duration::from_secs(3600);

    async fn play<A: App>(&self, setting: Setting) -> Result<(), Error> {
        match self {
            CheckpointCase::Endless => history::endless(setting).await,
            CheckpointCase::Pauses => history::pauses(setting).await,
            CheckpointCase::Large => large::large::<A>(setting).await,
            CheckpointCase::Rounds => rounds::rounds(setting).await,
            CheckpointCase::FullDisk => load::full_disk(setting).await,
        }
    }
}
