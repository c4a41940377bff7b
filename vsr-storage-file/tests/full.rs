//! A cluster whose logs are full: typed errors, and nothing is lost.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use vsr::memory::MemoryNetwork;
use vsr::{
    ApplyContext, ClusterId, Config, Handle, QueryContext, Replica, ReplicaId, RestoreError, Snapshot, StateMachine,
    SubmitError, SystemClock,
};
use vsr_storage_file::{FileOptions, FileStorage};

#[derive(Default)]
struct Sizes(Vec<u64>);

impl StateMachine for Sizes {
    type Command = Bytes;
    type Reply = u64;
    type Query = ();
    type Answer = u64;
    fn apply(&mut self, _: &ApplyContext, command: Bytes) -> u64 {
        self.0.push(command.len() as u64);
        self.0.len() as u64
    }
    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0.len() as u64
    }
    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0.clone())
    }
    fn restore(from: &mut dyn Read) -> Result<Sizes, RestoreError> {
        Snapshot::read(from).map(Sizes)
    }
}

type Running = std::thread::JoinHandle<Result<(), vsr::ReplicaError>>;

fn start(folder: &std::path::Path, network: &MemoryNetwork, id: u8, format: bool) -> (Handle<Sizes>, Running) {
    let config = Config::new(ClusterId(1), ReplicaId(id), ["a", "b", "c"]).expect("a configuration");
    let path = folder.join(id.to_string());
    if format {
        let options = FileOptions::default().with(|options| (options.log_limit, options.extent) = (16 << 20, 1 << 20));
        FileStorage::format_with(&path, &config, options).expect("formatting");
    }
    let storage = FileStorage::open(&path).expect("opening");
    let builder = Replica::builder(config, Sizes::default()).storage(storage).network(network.endpoint(ReplicaId(id)));
    let (replica, handle) = builder.clock(SystemClock::new()).build().expect("a replica");
    let running = std::thread::Builder::new().spawn(move || block_on(replica.run())).expect("a thread");
    (handle, running)
}

#[test]
fn a_full_log_refuses_requests_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let network = MemoryNetwork::new(3);
    let replicas: Vec<_> = (0..3).map(|id| start(folder.path(), &network, id, true)).collect();
    let mut acknowledged = 0;
    let error = loop {
        match block_on(replicas[0].0.submit(Bytes::from(vec![7; 100_000]))) {
            Ok(count) => acknowledged = count,
            Err(error) => break error,
        }
        assert!(acknowledged < 1000, "16 MiB hold more than 100 MB");
    };
    assert_eq!(error, SubmitError::LogFull);
    assert!(acknowledged > 50, "{acknowledged}");
    // Queries go on, and so does everything after a restart.
    assert_eq!(block_on(replicas[1].0.query(())), Ok(acknowledged));
    for (handle, running) in replicas {
        block_on(handle.shutdown());
        running.join().expect("no panic").expect("no error");
    }
    let network = MemoryNetwork::new(3);
    let replicas: Vec<_> = (0..3).map(|id| start(folder.path(), &network, id, false)).collect();
    let counted = block_on(replicas[2].0.query(()));
    assert_eq!(counted, Ok(acknowledged));
    let refused = block_on(replicas[2].0.submit_within(Bytes::from(vec![7; 100_000]), Duration::from_secs(20)));
    assert_eq!(refused.map(|reply| reply.value), Err(SubmitError::LogFull));
    for (handle, running) in replicas {
        block_on(handle.shutdown());
        running.join().expect("no panic").expect("no error");
    }
}
