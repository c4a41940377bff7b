//! The store's command line.

use std::process::ExitCode;

use bytes::Bytes;
use clap::Parser;
use example_cluster::{Asker, Error, Target, exit, say};
use kv::{Answer, Command, KvApp, Query};

/// A replicated key-value store. Start with `kv demo`.
#[derive(Parser)]
#[command(name = "kv", version)]
enum Cli {
    /// Sets a key, and prints the value that was there.
    Put {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Prints the value of a key: linearizable. Exit code 1 when there is none.
    Get {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The key.
        key: String,
    },
    /// Removes a key, and prints the value that was there.
    Delete {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
        /// The key.
        key: String,
    },
    /// Prints entries in the order of their keys: linearizable.
    List {
        /// Which cluster.
        #[command(flatten)]
        target: Target,
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    example_cluster::main("kv", || run(cli))
}

fn text(bytes: &Bytes) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

async fn run(cli: Cli) -> Result<ExitCode, Error> {
    let (target, command) = match cli {
        Cli::Put { target, key, value } => (target, Command::Put(key.into(), value.into())),
        Cli::Delete { target, key } => (target, Command::Delete(key.into())),
        Cli::Get { target, key } => {
            let answer = Asker::<KvApp>::new(&target).await?.query(Query::Get(key.into())).await?;
            let Answer::Value(Some(value)) = answer else { return Ok(ExitCode::from(exit::NO)) };
            say(text(&value));
            return Ok(ExitCode::SUCCESS);
        }
        Cli::List { target, prefix, limit } => {
            let answer = Asker::<KvApp>::new(&target).await?.query(Query::List(prefix.into(), limit)).await?;
            if let Answer::Entries(entries) = answer {
                for (key, value) in &entries {
                    say(format_args!("{} = {}", text(key), text(value)));
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        Cli::Cluster(command) => return example_cluster::run::<KvApp>(command).await,
    };
    match Asker::<KvApp>::new(&target).await?.submit(command).await? {
        Some(before) => say(format_args!("before: {}", text(&before))),
        None => say("before: nothing"),
    }
    Ok(ExitCode::SUCCESS)
}
