//! The commands that every example has.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use vsr::ReplicaId;

use crate::demo::{DemoOptions, Summary, demo, soak};
use crate::serve::{connect, replica};
use crate::{App, ClusterConfig, Error};

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
    },
    /// Runs a replica until Ctrl-C.
    Replica {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// Which replica, counted from 0.
        #[arg(long)]
        id: u8,
    },
    /// Shows what each replica says of itself.
    Status {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
    },
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
}

/// Runs a command.
///
/// # Errors
/// In words for people.
pub async fn run<A: App>(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Format { config, id } => {
            let config = ClusterConfig::read(&config)?;
            let all = 0..config.replicas.len() as u8;
            for id in id.map_or(all, |id| id..id + 1) {
                config.format(id)?;
                println!("replica {id} is formatted");
            }
        }
        Command::Replica { config, id } => {
            // `RUST_LOG` sets what is told; warnings if it is not set.
            let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
            replica::<A>(&config, id).await?;
        }
        Command::Status { config } => {
            let config = ClusterConfig::read(&config)?;
            let client = connect::<A>(&config).await?;
            for id in 0..config.replicas.len() {
                match client.status(ReplicaId(id as u8), Duration::from_secs(2)).await {
                    Some((status, explain)) => {
                        let role = if status.is_primary { "primary" } else { "backup" };
                        let vsr::ReplicaStatus { view, commit, applied, head, sessions, starts, log_bytes, .. } =
                            status;
                        println!(
                            "replica {id}: {role}, view {view}, commit {commit}, applied {applied}, head {head}, \
                             {sessions} sessions, {log_bytes} bytes of log, start {starts}: {explain}"
                        );
                    }
                    None => println!("replica {id}: does not answer"),
                }
            }
        }
        Command::Demo(options) => return Ok(report(&demo::<A>(&options).await?)),
        Command::Soak { rounds, options } => return Ok(report(&soak::<A>(&options, rounds).await?)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What a program's `main` ends with: an error is told on standard error, with exit code 2.
pub fn exit_code(program: &str, result: Result<ExitCode, Error>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("{program}: {error}");
        ExitCode::from(2)
    })
}

fn report(summary: &Summary) -> ExitCode {
    for wrong in summary.wrong.iter().take(20) {
        println!("WRONG: {wrong}");
    }
    println!("{}", summary.line());
    if summary.is_pass() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
