//! A client from outside the cluster: it adds one to the counter, and reads the counter back.
//!
//! With the cluster of the book's chapter "Run a cluster":
//!
//! ```sh
//! cargo run --release -p counter --example client -- 7 127.0.0.1:4000 127.0.0.1:4001 127.0.0.1:4002
//! ```
//!
//! It needs to know three things: the number of the cluster, the addresses of all replicas in the order of their ids, and
//! the types of the state machine. What `counter add` and `counter get` do beside it is to read these from the configuration
//! file, and to ask each replica for its status when there is no answer.

use std::process::ExitCode;
use std::time::Duration;

use counter::{Add, Counter};
use vsr::handle::Positioned;
use vsr::protocol::{OpNumber, Position};
use vsr::{Client, ClientConfig, ClusterId, QueryError, SubmitError, SystemClock};
use vsr_net_tcp::{TcpClient, TcpError, TcpOptions};

/// How long the program waits for a reply, and for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// A client of the whole cluster. A program needs one: clones are cheap, and share its session.
///
/// # Errors
/// When an address cannot be used. A replica that cannot be reached is not an error: it is tried again.
pub(crate) async fn connect(cluster: ClusterId, replicas: &[String]) -> Result<Client<Counter>, TcpError> {
    // With a fresh id. No two clients may have the same one, not even one after the other.
    let config = ClientConfig::new(replicas.len());
    let network = TcpClient::connect(cluster, config.id, replicas.iter().cloned(), TcpOptions::default()).await?;
    let (client, runner) = Client::new(config, network, SystemClock::new());
    // The future that does the client's work, until the client is closed.
    tokio::spawn(runner.run());
    Ok(client)
}

/// What became of a command that has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executed {
    /// It may be submitted again.
    No,
    /// It must not be submitted again.
    Once,
    /// It may be executed now, later, or never: a query has to find out before it is submitted again.
    Unknown,
}

pub(crate) fn executed(error: &SubmitError) -> Executed {
    match error {
        SubmitError::Busy
        | SubmitError::TooLarge
        | SubmitError::Encode(_)
        | SubmitError::Undecodable
        | SubmitError::Config(_)
        | SubmitError::Conflict => Executed::No,
        SubmitError::ReplyLost | SubmitError::Unencodable | SubmitError::Decode(_) => Executed::Once,
        // `TimedOut`, `Evicted`, `LogFull` and `Stopped` leave it open, and so does any error that a later version adds.
        _ => Executed::Unknown,
    }
}

/// What the counter said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// The sum, and the place of the command in the log.
    pub(crate) added: Positioned<i64, Position>,
    /// The counter later on, and the last op that the answer has seen.
    pub(crate) read: Positioned<i64, OpNumber>,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) enum NoAnswer {
    /// To the command.
    Submit(SubmitError),
    /// To the query, which changes nothing: it may always be asked again.
    Query(QueryError),
}

/// Adds one, and reads the counter.
///
/// # Errors
/// When one of the two has no answer within the limit.
pub(crate) async fn add_and_read(client: &Client<Counter>, limit: Duration) -> Result<Done, NoAnswer> {
    let added = client.submit_within(Add(1), limit).await.map_err(NoAnswer::Submit)?;
    // It sees every command that was answered before it was asked, to this client or another one.
    let read = client.query_within((), limit).await.map_err(NoAnswer::Query)?;
    Ok(Done { added, read })
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let cluster = arguments.next().and_then(|number| number.parse().ok().map(ClusterId));
    let replicas: Vec<String> = arguments.collect();
    let Some(cluster) = cluster.filter(|_| !replicas.is_empty()) else {
        eprintln!("usage: client CLUSTER ADDRESS...; the addresses of all replicas, in the order of their ids");
        return ExitCode::from(2);
    };
    let client = match connect(cluster, &replicas).await {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let done = add_and_read(&client, LIMIT).await;
    let code = match done {
        Ok(Done { added, read }) => {
            println!("{} after the command at {} of the log", added.value, added.position);
            println!("{} read from a state that contains the log up to op {}", read.value, read.position);
            ExitCode::SUCCESS
        }
        Err(NoAnswer::Submit(error)) => {
            eprintln!("{error}");
            match executed(&error) {
                Executed::No => eprintln!("it was not executed, and may be submitted again"),
                Executed::Once => eprintln!("it was executed: look at the counter"),
                Executed::Unknown => {
                    eprintln!("it may still be executed: look at the counter before you submit it again")
                }
            }
            for (replica, why) in client.refused_by() {
                eprintln!("replica {} refuses this client: {why}", replica.0);
            }
            ExitCode::from(3)
        }
        Err(NoAnswer::Query(error)) => {
            eprintln!("{error}; to ask again is always safe");
            ExitCode::from(3)
        }
    };
    client.close();
    code
}
