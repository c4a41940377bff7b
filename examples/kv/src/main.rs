//! The store's command line.

use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Parser;
use example_cluster::{ClusterConfig, Error, connect, exit_code};
use kv::{Answer, Command, KvApp, Query};

/// A replicated key-value store. Start with `kv demo`.
#[derive(Parser)]
#[command(name = "kv", version)]
enum Cli {
    /// Sets a key, and prints the value that was there.
    Put {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Prints the value of a key: linearizable. Exit code 1 when there is none.
    Get {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// The key.
        key: String,
    },
    /// Removes a key, and prints the value that was there.
    Delete {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// The key.
        key: String,
    },
    /// Prints entries in the order of their keys: linearizable.
    List {
        /// The configuration file of the cluster.
        #[arg(long)]
        config: PathBuf,
        /// Only keys that begin so.
        #[arg(default_value = "")]
        prefix: String,
        /// Not more than this many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    #[command(flatten)]
    Cluster(example_cluster::Command),
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    exit_code("kv", run(Cli::parse()).await)
}

fn text(bytes: &Bytes) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

async fn run(cli: Cli) -> Result<ExitCode, Error> {
    let (config, command) = match cli {
        Cli::Put { config, key, value } => (config, Command::Put(key.into(), value.into())),
        Cli::Delete { config, key } => (config, Command::Delete(key.into())),
        Cli::Get { config, key } => {
            let store = connect::<KvApp>(&ClusterConfig::read(&config)?).await?;
            let Answer::Value(Some(value)) = store.query(Query::Get(key.into())).await? else {
                return Ok(ExitCode::FAILURE);
            };
            println!("{}", text(&value));
            return Ok(ExitCode::SUCCESS);
        }
        Cli::List { config, prefix, limit } => {
            let store = connect::<KvApp>(&ClusterConfig::read(&config)?).await?;
            if let Answer::Entries(entries) = store.query(Query::List(prefix.into(), limit)).await? {
                for (key, value) in &entries {
                    println!("{} = {}", text(key), text(value));
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        Cli::Cluster(command) => return example_cluster::run::<KvApp>(command).await,
    };
    let store = connect::<KvApp>(&ClusterConfig::read(&config)?).await?;
    match store.submit(command).await? {
        Some(before) => println!("before: {}", text(&before)),
        None => println!("before: nothing"),
    }
    Ok(ExitCode::SUCCESS)
}
