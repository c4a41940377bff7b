//! The commands that every example has.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::ask::{Asker, Target, is_served};
use crate::backup::{self, RescueOptions};
use crate::demo::{DemoOptions, Summary, demo, soak};
use crate::exit;
use crate::faults::{Case, CaseOptions, CheckpointCase, TallyApp, play};
use crate::inspect::{self, InspectOptions};
use crate::output::{complain, say};
use crate::serve::{Signals, replica};
use crate::{App, ClusterConfig, Error, StorageKind};

/// What every example cluster can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Prepares the disk of a replica. Done once for each.
    Format {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// Which replica, counted from 0; all of them if left out.
        #[arg(long)]
        id: Option<u8>,
        /// A file of `export` or `rescue`: the new cluster goes on from its state. The same one for all replicas.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Writes the state of a replica to a file, while it does not run: everything that it knows to be committed. A new cluster begins with it
    /// (`format --from`).
    Export {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// Which replica, counted from 0.
        #[arg(long)]
        id: u8,
        /// The file, which must not be there yet.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// For the day on which a majority of the disks is gone for good: shows what each of those that are left holds, and writes the state of the one
    /// that knows most to a file. A new cluster begins with it (`format --from`). What may be lost by it is written down.
    Rescue(RescueOptions),
    /// Gives a replica a new disk, in the place of one that is lost, old, foreign or beyond repair. What is in its folder is moved aside, and must
    /// never be used again. Started then, the replica takes everything from the others, and counts once it is whole.
    Recover {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// Which replica, counted from 0.
        #[arg(long)]
        id: u8,
    },
    /// Runs a replica until Ctrl-C; takes a checkpoint on SIGUSR1. Prints "ready" once it is recovered from its disk, and not refused by its peers.
    Replica {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// Which replica, counted from 0.
        #[arg(long)]
        id: u8,
        /// The machine of the fault cases instead of the example's own.
        #[arg(long, hide = true)]
        tally: bool,
    },
    /// Shows what each replica says of itself. Exit code 3 when no primary says that commands can commit.
    Status(Target),
    /// Tells a replica's folder that the place where it is now is meant: after a move, or a copy whose original is gone for
    /// good. The folder must be the newest there is of this replica.
    AcceptPlace {
        /// The folder of the one replica, as data/replica-1.
        #[arg(long)]
        data: PathBuf,
        /// What the folder holds; found out if left out.
        #[arg(long, value_enum)]
        storage: Option<StorageKind>,
    },
    /// Shows what a replica's folder holds, and changes nothing in it: identity, vsr state, the verdict of each slot of the log. Exit code 1
    /// when something is damaged that a replica repairs, 4 when no replica starts there.
    Inspect(InspectOptions),
    /// Three replica processes under load: the primary is killed, another takes over, the dead one returns.
    Demo(DemoOptions),
    /// As the demo, with many deaths of random replicas.
    Soak {
        /// How many rounds.
        #[arg(long, default_value_t = 100)]
        rounds: u64,
        /// As those of the demo.
        #[command(flatten)]
        options: DemoOptions,
    },
    /// Real processes through restored, copied and damaged folders, full disks and logs, hostile messages, crowds and load; shows
    /// what an operator sees of each.
    Faults(CaseOptions<Case>),
    /// Real processes with a long history, a large state, and disks that lie: what grows, what stands still, and what becomes of each replica.
    Checkpoints(CaseOptions<CheckpointCase>),
}

/// Runs a command.
///
/// # Errors
/// In words for people.
pub async fn run<A: App>(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Format { config, id, from } => {
            let config = ClusterConfig::read(&config)?;
            let ids = match id {
                Some(id) => vec![id],
                None => (0..config.replicas.len()).filter_map(|id| u8::try_from(id).ok()).collect(),
            };
            if let Some(from) = from {
                backup::restore(&config, &ids, &from).await?;
                return Ok(ExitCode::SUCCESS);
            }
            for id in ids {
                config.format(id)?;
                say(format_args!("replica {id} is formatted"));
            }
        }
        Command::Export { config, id, to } => backup::export::<A>(&config, id, &to).await?,
        Command::Rescue(options) => backup::rescue::<A>(&options).await?,
        Command::Recover { config, id } => {
            let config = ClusterConfig::read(&config)?;
            if let Some(aside) = config.recover(id)? {
                say(format_args!("what was there is now in {}: never start a replica on it again", aside.display()));
            }
            say(format_args!("replica {id} has a new disk: start it, and it takes everything from the others"));
        }
        Command::Replica { config, id, tally } => {
            // `RUST_LOG` sets what is told; warnings if it is not set.
            let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
            if tally {
                replica::<TallyApp>(&config, id).await?;
            } else {
                replica::<A>(&config, id).await?;
            }
        }
        Command::Status(target) => {
            let asker = Asker::<A>::new(&target).await?;
            let said = asker.status().await;
            asker.rows(&said).iter().for_each(say);
            if !is_served(&said) {
                complain("no primary says that commands can commit");
                return Ok(ExitCode::from(exit::NO_ANSWER));
            }
        }
        Command::AcceptPlace { data, storage } => {
            storage.unwrap_or_else(|| StorageKind::of(&data)).accept_place(&data)?;
            say(format_args!("{} belongs where it is now", data.display()));
        }
        Command::Inspect(options) => return inspect::run(&options),
        Command::Demo(options) => {
            return until_told(async { Ok::<_, Error>(report(&demo::<A>(&options).await?)) }).await;
        }
        Command::Soak { rounds, options } => {
            return until_told(async { Ok::<_, Error>(report(&soak::<A>(&options, rounds).await?)) }).await;
        }
        Command::Faults(options) => {
            return until_told(async { Ok::<_, Error>(verdict(play::<A, _>(&options).await?)) }).await;
        }
        Command::Checkpoints(options) => {
            return until_told(async { Ok::<_, Error>(verdict(play::<A, _>(&options).await?)) }).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a demo to its end, or until a signal says that it is over: then its replicas are ended, and its folder is removed.
async fn until_told(work: impl Future<Output = Result<ExitCode, Error>>) -> Result<ExitCode, Error> {
    let mut signals = Signals::new()?;
    // The work is dropped, with its processes and its folder, before anything is said.
    tokio::select! {
        ended = work => ended,
        number = signals.next() => {
            complain(format_args!("ended by signal {number}: the replicas have ended, too"));
            Ok(ExitCode::from(exit::SIGNAL.saturating_add(number)))
        }
    }
}

fn verdict(is_pass: bool) -> ExitCode {
    ExitCode::from(if is_pass { 0 } else { exit::NO })
}

fn report(summary: &Summary) -> ExitCode {
    for wrong in summary.wrong.iter().take(20) {
        say(format_args!("WRONG: {wrong}"));
    }
    say(summary.line());
    if summary.is_pass() { ExitCode::SUCCESS } else { ExitCode::from(exit::NO) }
}
