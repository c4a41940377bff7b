//! Processes that take themselves for a replica, on a disk that is not its newest one (rule 7.7): an older copy of it while it runs, a disk that was
//! formatted once more, the disk of another member.

use std::io::Read;
use std::sync::{Arc, Mutex};

use vsr::protocol::Halt;
use vsr::{ApplyContext, QueryContext, Replica, ReplicaError, RestoreError, Snapshot, StateMachine};

use super::cluster::{Run, Slot, Stopped};
use super::instrument::{marked, read_mark};
use crate::check::Violation;
use crate::faults::Impostor;
use crate::report::Verdict;
use crate::workload::Simulated;
use crate::world::{ImpostorStorage, SimClock, SimNetwork, lock};

/// How often one is started: it is refused each time.
const STARTS: u64 = 3;

/// How long it rests in between, in nanoseconds.
const REST: u64 = 200_000_000;

/// How long one may run when all can be reached, in nanoseconds.
const HEARD_WITHIN: u64 = 10_000_000_000;

impl<S: Simulated> Run<S> {
    /// Whether one could be started.
    pub(crate) fn start_impostor(&mut self, replica: usize, of: Impostor) -> bool {
        if replica >= self.options.replicas || self.speaks_its_own_language() {
            return false;
        }
        let mut world = lock(&self.world);
        let Some(disk) = world.disk_of_impostor(replica, of) else { return false };
        let node = world.add_impostor(replica);
        drop(world);
        let life = self.life(node);
        let (disk, machine, flag) = (Arc::new(Mutex::new(disk)), self.machine.clone(), life.flag.clone());
        let configs: Result<Vec<_>, _> = (0..STARTS)
            .map(|start| self.options.config(replica, (node as u64) << 32 | start, &self.membership))
            .collect();
        let configs = configs.expect("valid");
        let task = async move {
            for config in configs {
                let storage = ImpostorStorage { life: life.clone(), disk: disk.clone() };
                let builder = Replica::builder(config, Unwatched((machine)())).storage(storage);
                let builder = builder.network(SimNetwork(life.clone())).clock(SimClock(life.clone()));
                let (running, handle) = builder.build().expect("valid");
                let stopped = running.run().await;
                drop(handle);
                match stopped {
                    Err(error) if is_refusal(&error, of) => {}
                    Err(error) => return Some(Stopped::Other(format!("another r{replica} stopped: {error}"))),
                    Ok(()) => return Some(Stopped::Other(format!("another r{replica} ended"))),
                }
                let rested = lock(&life.world).now + REST;
                life.until(rested).await;
            }
            lock(&life.world).end_impostor(life.node);
            None
        };
        self.slots.push(Some(Slot { node, flag, task: Box::pin(task) }));
        true
    }

    /// All can be reached: none of them goes on for long.
    pub(crate) fn impostors_end(&mut self) -> Option<Verdict> {
        let until = lock(&self.world).now + HEARD_WITHIN;
        self.advance(until, |run| lock(&run.world).impostors.is_empty());
        let mut world = lock(&self.world);
        let (at, left) = (world.now, world.impostors.values().next().copied());
        if let Some(replica) = left {
            let message = format!("another process runs as r{replica}, and is not refused");
            world.breach(Violation { checker: "impostors-are-refused", message, at });
        }
        drop(world);
        self.violation()
    }
}

/// Whether this is how a process on such a disk stops: its words name the disk.
fn is_refusal(error: &ReplicaError, of: Impostor) -> bool {
    match (error, of) {
        (ReplicaError::WrongReplica { .. }, Impostor::Of(_)) => true,
        (ReplicaError::Halt(halt), Impostor::Copy) => {
            let is_older = matches!(halt, Halt::OlderStart { .. } | Halt::OlderDisk { .. } | Halt::OldDisk { .. });
            // The replica may have got a new disk meanwhile.
            is_older || matches!(halt, Halt::OtherDisk { .. } | Halt::Replaced { .. })
        }
        (ReplicaError::Halt(halt), Impostor::New) => matches!(halt, Halt::OtherDisk { .. } | Halt::Replaced { .. }),
        _ => false,
    }
}

/// The user's machine, which nobody watches. Its snapshots are those of a watched one.
struct Unwatched<S>(S);

impl<S: Simulated> StateMachine for Unwatched<S> {
    type Command = (u64, S::Command);
    type Reply = S::Reply;
    type Query = S::Query;
    type Answer = S::Answer;

    fn apply(&mut self, context: &ApplyContext, (_, command): (u64, S::Command)) -> S::Reply {
        self.0.apply(context, command)
    }

    fn query(&self, context: &QueryContext, query: S::Query) -> S::Answer {
        self.0.query(context, query)
    }

    fn snapshot(&self) -> Snapshot {
        marked(false, self.0.snapshot())
    }

    fn digest(&self) -> Option<vsr::Checksum> {
        self.0.digest()
    }

    fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> {
        read_mark(from)?;
        S::restore(from).map(Unwatched)
    }
}
