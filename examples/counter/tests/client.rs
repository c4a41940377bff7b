//! The example of a client from outside, against replicas that are processes of their own.

#[path = "../examples/client.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod client;
mod support;

use std::path::Path;
use std::time::Duration;

use client::{Executed, NoAnswer, add_and_read, connect, executed};
use counter::Add;
use example_cluster::ClusterConfig;
use support::{Replica, configure, counter, start, until};
use tokio::runtime::Runtime;
use vsr::codec::CodecError;
use vsr::{ClusterId, SubmitError};

/// For what has to come, on a busy machine too.
const LONG: Duration = Duration::from_secs(30);
/// For what cannot come.
const SHORT: Duration = Duration::from_millis(300);

/// A formatted cluster: its configuration, and the addresses of its replicas.
fn cluster(folder: &Path) -> (String, ClusterConfig) {
    let config = configure(folder);
    let formatted = counter(&["format", "--config", &config]);
    assert!(formatted.status.success(), "{formatted:?}");
    let cluster = ClusterConfig::read(Path::new(&config)).expect("the configuration");
    (config, cluster)
}

fn kill(replica: &mut Replica) {
    replica.child.kill().expect("it runs");
    let _ = replica.wait();
}

/// The chapter "A client from outside" in one walk: a command is executed once, a query sees it, also while the primary dies;
/// without a quorum the outcome is unknown, and it is known once there is one again.
#[test]
fn a_client_counts_exactly_while_replicas_die_and_return() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, cluster) = cluster(folder.path());
    let mut replicas: Vec<Replica> = ["0", "1", "2"].map(|id| start(&config, id)).into();
    let runtime = Runtime::new().expect("a runtime");
    let number = cluster.cluster;
    let client = runtime.block_on(connect(number, &cluster.replicas)).expect("a client");
    let first = runtime.block_on(add_and_read(&client, LONG)).expect("an answer");
    assert_eq!((first.added.value, first.read.value), (1, 1));
    assert!(first.read.position >= first.added.position.op, "a client reads its own writes: {first:?}");

    let primary = usize::try_from(client.view().number % 3).expect("a replica");
    kill(&mut replicas[primary]);
    let second = runtime.block_on(add_and_read(&client, LONG)).expect("the others go on");
    assert_eq!((second.added.value, second.read.value), (2, 2));
    assert!(second.added.position > first.added.position, "{second:?}");

    let other = (primary + 1) % 3;
    kill(&mut replicas[other]);
    let none = runtime.block_on(add_and_read(&client, SHORT)).expect_err("one of three is no quorum");
    let NoAnswer::Submit(error) = none else { panic!("{none:?}") };
    assert_eq!((&error, executed(&error)), (&SubmitError::TimedOut, Executed::Unknown));
    assert!(runtime.block_on(client.query_within((), SHORT)).is_err(), "nor is a query answered without one");

    // It was waited for no longer, and sent on: it is executed once there is a quorum, and only once.
    replicas[primary] = start(&config, &primary.to_string());
    let read = || runtime.block_on(client.query_within((), LONG)).map(|read| read.value);
    until("the command that had timed out is executed", || read() == Ok(3));
    replicas[other] = start(&config, &other.to_string());
    assert_eq!(runtime.block_on(client.submit(Add(10))), Ok(13));
    // A client that comes later is another session of the same counter.
    let later = runtime.block_on(connect(number, &cluster.replicas)).expect("a client");
    let last = runtime.block_on(add_and_read(&later, LONG)).expect("an answer");
    assert_eq!((last.added.value, last.read.value), (14, 14));
}

#[test]
fn a_client_of_another_cluster_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, cluster) = cluster(folder.path());
    let _replicas = ["0", "1", "2"].map(|id| start(&config, id));
    let runtime = Runtime::new().expect("a runtime");
    let stranger = runtime.block_on(connect(ClusterId(cluster.cluster.0 + 1), &cluster.replicas)).expect("a client");
    until("each replica refuses it", || stranger.refused_by().len() == 3);
    let words = format!("the other side belongs to cluster {}", cluster.cluster);
    assert!(stranger.refused_by().iter().all(|(_, why)| why.starts_with(&words)), "{:?}", stranger.refused_by());
    let refused = runtime.block_on(add_and_read(&stranger, SHORT));
    assert!(matches!(refused, Err(NoAnswer::Submit(SubmitError::TimedOut))), "{refused:?}");
}

#[test]
fn what_an_error_says_of_the_command_is_what_the_crate_says() {
    let of = |errors: &[SubmitError]| errors.iter().map(executed).collect::<Vec<_>>();
    let unencodable = SubmitError::Encode(CodecError::TooDeep);
    let no = [SubmitError::Busy, SubmitError::TooLarge, unencodable, SubmitError::Undecodable, SubmitError::Conflict];
    assert_eq!(of(&no), [Executed::No; 5]);
    let once = [SubmitError::ReplyLost, SubmitError::Unencodable, SubmitError::Decode(CodecError::TooDeep)];
    assert_eq!(of(&once), [Executed::Once; 3]);
    let open = [SubmitError::TimedOut, SubmitError::Evicted, SubmitError::LogFull, SubmitError::Stopped];
    assert_eq!(of(&open), [Executed::Unknown; 4]);
}
