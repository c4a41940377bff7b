//! The counter's command line.

use std::process::ExitCode;

use clap::Parser;
use counter::{Add, CounterApp};
use example_cluster::{Asker, Error, Target, say};

/// A replicated counter. Start with `counter demo`.
#[derive(Parser)]
#[command(name = "counter", version)]
enum Cli {
    /// Adds to the counter, and prints the sum.
    Add {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// How much.
        #[arg(allow_negative_numbers = true)]
        n: i64,
    },
    /// Prints the counter: linearizable.
    Get(Target),
    #[command(flatten)]
    Cluster(example_cluster::Command),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    example_cluster::main("counter", || run(cli))
}

async fn run(cli: Cli) -> Result<ExitCode, Error> {
    match cli {
        Cli::Add { target, n } => say(Asker::<CounterApp>::new(&target).await?.submit(Add(n)).await?),
        Cli::Get(target) => say(Asker::<CounterApp>::new(&target).await?.query(()).await?),
        Cli::Cluster(command) => return example_cluster::run::<CounterApp>(command).await,
    }
    Ok(ExitCode::SUCCESS)
}
