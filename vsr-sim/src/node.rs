//! The traits of `vsr`, implemented on the simulated world.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::future::poll_fn;
use vsr::protocol::{Core, Event};
use vsr::{
    Arrival, Batch, Clock, Entry, Envelope, Monotonic, Network, NetworkError, Observer, OpNumber, Recovered, Storage,
    StorageError, Timestamp,
};

use crate::check::Observation;
use crate::world::{Flag, Planned, Shared, lock};

/// One life of a node: its end of the network, its disk, its clock.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) world: Shared,
    pub(crate) node: usize,
    pub(crate) life: u64,
    pub(crate) flag: Arc<Flag>,
}

/// The seeded network of one node.
pub(crate) struct SimNetwork(pub(crate) Life);

#[async_trait]
impl Network for SimNetwork {
    fn send(&self, batch: &mut Vec<Envelope>) {
        if !batch.is_empty() {
            lock(&self.0.world).send(self.0.node, batch);
        }
    }

    async fn recv(&self) -> Result<Vec<Arrival>, NetworkError> {
        poll_fn(|_: &mut Context<'_>| {
            let mut world = lock(&self.0.world);
            let node = &mut world.nodes[self.0.node];
            if node.inbox.is_empty() {
                node.inbox_flag = Some(self.0.flag.clone());
                Poll::Pending
            } else {
                Poll::Ready(Ok(std::mem::take(&mut node.inbox)))
            }
        })
        .await
    }
}

/// The seeded disk of one replica.
pub(crate) struct SimStorage(pub(crate) Life);

#[async_trait]
impl Storage for SimStorage {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        Ok(lock(&self.0.world).disks[self.0.node].recover())
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        {
            let mut world = lock(&self.0.world);
            let (node, life) = (self.0.node, self.0.life);
            let at = world.now + world.write_latency();
            world.disks[node].begin(batch);
            world.nodes[node].write_done = false;
            world.plan(at, Planned::DiskDone { node, life });
            world.trace.count("writes");
        }
        poll_fn(|_: &mut Context<'_>| {
            let mut world = lock(&self.0.world);
            let node = &mut world.nodes[self.0.node];
            if std::mem::take(&mut node.write_done) {
                Poll::Ready(Ok(()))
            } else {
                node.write_flag = Some(self.0.flag.clone());
                Poll::Pending
            }
        })
        .await
    }

    async fn read(
        &self,
        ops: RangeInclusive<OpNumber>,
        _bytes_max: usize,
    ) -> Result<Vec<(OpNumber, Option<Entry>)>, StorageError> {
        let due = {
            let mut world = lock(&self.0.world);
            world.trace.count("reads");
            let due = world.now + world.write_latency() / 2;
            world.plan(due, Planned::Wake { flag: self.0.flag.clone() });
            due
        };
        poll_fn(|_: &mut Context<'_>| {
            let world = lock(&self.0.world);
            if world.now < due {
                return Poll::Pending;
            }
            let disk = &world.disks[self.0.node];
            // Short reads are within the contract; they are the rule here.
            let last = ops.end().0.min(ops.start().0 + 15);
            let ops = (ops.start().0..=last).map(OpNumber);
            Poll::Ready(Ok(ops.map(|op| (op, disk.intact(op).cloned())).collect()))
        })
        .await
    }
}

/// The skewed and drifting clock of one node.
pub(crate) struct SimClock(pub(crate) Life);

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Monotonic {
        Monotonic(lock(&self.0.world).local_time(self.0.node))
    }

    fn wall(&self) -> Timestamp {
        let world = lock(&self.0.world);
        let wall = 1_700_000_000_000_000_000_u64 + world.local_time(self.0.node);
        Timestamp(wall.saturating_add_signed(world.nodes[self.0.node].wall_offset))
    }

    async fn sleep_until(&self, deadline: Monotonic) {
        let mut planned = false;
        poll_fn(|_: &mut Context<'_>| {
            let mut world = lock(&self.0.world);
            if world.local_time(self.0.node) >= deadline.0 {
                return Poll::Ready(());
            }
            if !planned {
                planned = true;
                let at = world.when_local(self.0.node, deadline.0);
                world.plan(at, Planned::Wake { flag: self.0.flag.clone() });
            }
            Poll::Pending
        })
        .await;
    }
}

/// Tells the checkers what a replica's protocol reports.
pub(crate) struct Witness(pub(crate) Life);

impl Observer for Witness {
    fn on_event(&mut self, core: &Core, event: &Event) {
        let mut world = lock(&self.0.world);
        let (replica, now) = (self.0.node, world.now);
        world.observe(&Observation::Event { replica, core, event });
        match event {
            Event::ViewEntered { view } => {
                world.trace.count("views entered");
                world.trace.note(now, 1001, replica as u64, view.number, 0);
                world.trace.line(now, || format!("r{replica} enters view {view}"));
            }
            Event::ViewStarted { view, primary } => {
                world.trace.count("views started");
                world.highest_view = world.highest_view.max(view.number);
                world.trace.note(now, 1002, replica as u64, view.number, 0);
                world.trace.line(now, || format!("r{replica} is normal in view {view}, primary {primary}"));
            }
            Event::Voted { view, why } => {
                world.trace.count("votes");
                world.trace.line(now, || format!("r{replica} votes to leave view {view}: {why}"));
            }
            Event::Truncated { above, head } => {
                world.trace.count("truncations");
                world.trace.line(now, || format!("r{replica} drops ops {}..{head}", above.next()));
            }
            Event::Committed { commit } => {
                world.trace.note(now, 1003, replica as u64, commit.0, 0);
                world.trace.fine_line(now, || format!("r{replica} commits up to {commit}"));
            }
            Event::Applied { op, checksum } => {
                world.trace.note(now, 1004, replica as u64, op.0, checksum.0 as u64);
                world.trace.fine_line(now, || format!("r{replica} applies op {op} ({checksum})"));
                if op.0.is_multiple_of(16) {
                    let digest = core.sessions_digest();
                    if core.applied() == *op && core.is_between_ops() {
                        world.observe(&Observation::Digest { replica, op: op.0, digest });
                    }
                }
            }
            Event::Ignored { message, why } => {
                world.trace.count("messages ignored");
                world.trace.fine_line(now, || format!("r{replica} ignores a {message}: {why}"));
            }
            Event::Mark(mark) => world.trace.count(mark),
            _ => {}
        }
    }

    fn on_turn(&mut self, core: &Core) {
        let replica = self.0.node;
        lock(&self.0.world).observe(&Observation::Turn { replica, core });
    }
}
