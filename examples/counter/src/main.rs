//! The counter's command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use counter::{Add, CounterApp};
use example_cluster::{ClusterConfig, Error, connect, exit_code};

/// A replicated counter. Start with `counter demo`.
#[derive(Parser)]
#[command(name = "counter", version)]
enum Cli {
    /// Adds to the counter, and prints the sum.
    Add {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// How much.
        #[arg(allow_negative_numbers = true)]
        n: i64,
    },
    /// Prints the counter: linearizable.
    Get {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
    },
    #[command(flatten)]
    Cluster(example_cluster::Command),
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    exit_code("counter", run(Cli::parse()).await)
}

async fn run(cli: Cli) -> Result<ExitCode, Error> {
    match cli {
        Cli::Add { config, n } => {
            let counter = connect::<CounterApp>(&ClusterConfig::read(&config)?).await?;
            println!("{}", counter.submit(Add(n)).await?);
        }
        Cli::Get { config } => {
            let counter = connect::<CounterApp>(&ClusterConfig::read(&config)?).await?;
            println!("{}", counter.query(()).await?);
        }
        Cli::Cluster(command) => return example_cluster::run::<CounterApp>(command).await,
    }
    Ok(ExitCode::SUCCESS)
}
