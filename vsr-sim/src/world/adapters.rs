//! The traits of `vsr`, implemented on the simulated world.

use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::poll_fn;
use vsr::network::{NetworkError, NetworkEvent};
use vsr::protocol::{
    Account, Batch, CheckpointId, Core, Entry, Envelope, Event, Mark, Monotonic, OpNumber, Recovered, Status, Timestamp,
};
use vsr::replica::Observer;
use vsr::storage::{CheckpointReader, StorageError};
use vsr::{Clock, Network, Snapshot, Storage};

use super::checkpoints;
use super::life::{Life, io_error, until};
use super::pace::Endless;
use super::{Planned, Wrote, lock, site};
use crate::check::{Digested, Observation};
use crate::faults::ReadFate;
use crate::report::timeline::State;
use crate::report::{Detail, TraceKind};

/// The seeded network of one node.
pub(crate) struct SimNetwork(pub(crate) Life);

#[async_trait]
impl Network for SimNetwork {
    fn send(&self, batch: &mut Vec<Envelope>) {
        if !batch.is_empty() {
            lock(&self.0.world).send(self.0.node, batch);
        }
    }

    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
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
        let node = self.0.node;
        {
            let world = lock(&self.0.world);
            // What may not be on the disk is written again before it is believed.
            if world.now < world.nodes[node].no_sync_until {
                return Err(io_error("the sync of a start"));
            }
            if world.disks[node].is_lost() {
                return Err(StorageError::NotFormatted("the disk".to_owned()));
            }
        }
        start_time(&self.0).await;
        Ok(lock(&self.0.world).disks[node].start())
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        {
            let mut world = lock(&self.0.world);
            if world.nodes[self.0.node].poisoned {
                return Err(StorageError::Poisoned("an injected error".to_owned()));
            }
            if !batch.entries.is_empty() && world.finds_no_room(self.0.node) {
                return Err(StorageError::Full { used: 1 << 20, limit: 1 << 20 });
            }
            world.begin_write(self.0.node, self.0.life, batch);
        }
        write_time(&self.0).await
    }

    async fn read(
        &self,
        ops: RangeInclusive<OpNumber>,
        _bytes_max: usize,
    ) -> Result<Vec<(OpNumber, Option<Entry>)>, StorageError> {
        let fate = read_time(&self.0, *ops.start()).await;
        if fate == Some(ReadFate::Fail) {
            return Err(io_error("a read"));
        }
        let world = lock(&self.0.world);
        let disk = &world.disks[self.0.node];
        // Short reads are within the contract; they are the rule here.
        let last = ops.end().0.min(ops.start().0 + 15);
        let ops = (ops.start().0..=last).map(OpNumber);
        let mut entries: Vec<_> = ops.map(|op| (op, disk.intact(op).cloned())).collect();
        if let (Some(ReadFate::Astray), Some((_, entry))) = (fate, entries.first_mut()) {
            *entry = None;
        }
        Ok(entries)
    }

    fn keeps_checkpoints(&self) -> bool {
        true
    }

    async fn write_checkpoint(
        &self,
        op: OpNumber,
        keep: Vec<CheckpointId>,
        content: Snapshot,
    ) -> Result<CheckpointId, StorageError> {
        checkpoints::write(&self.0, op, keep, content).await
    }

    async fn read_checkpoint(&self, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
        checkpoints::read(&self.0, id, reader).await
    }

    async fn read_part(&self, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
        checkpoints::read_part(&self.0, id, part).await
    }

    async fn write_part(
        &self,
        id: CheckpointId,
        part: u32,
        bytes: Bytes,
        keep: Vec<CheckpointId>,
    ) -> Result<u32, StorageError> {
        checkpoints::write_part(&self.0, id, part, bytes, keep).await
    }

    fn room(&self) -> u64 {
        let world = lock(&self.0.world);
        if world.now < world.nodes[self.0.node].full_until { 0 } else { u64::MAX }
    }
}

/// Lets the time of the write under way pass.
pub(crate) async fn write_time(life: &Life) -> Result<(), StorageError> {
    poll_fn(|_: &mut Context<'_>| {
        let mut world = lock(&life.world);
        let node = &mut world.nodes[life.node];
        match node.wrote.take() {
            Some(Wrote::Done) => Poll::Ready(Ok(())),
            Some(Wrote::Failed) => Poll::Ready(Err(io_error("a write"))),
            None => {
                node.write_flag = Some(life.flag.clone());
                Poll::Pending
            }
        }
    })
    .await
}

/// Lets the time pass that a later start takes to read its disk: what arrives meanwhile is there at the first turn.
pub(crate) async fn start_time(life: &Life) {
    let due = {
        let world = lock(&life.world);
        let longest = world.options.start_max.as_nanos() as u64;
        let mut random = world.draw(site::START, life.node as u64, life.life);
        // Most find a short log.
        let takes_long = longest > 0 && life.life > 1 && random.chance(1, 2);
        if !takes_long {
            return;
        }
        world.now + random.below(longest)
    };
    lock(&life.world).trace.count("starts that take long");
    until(life, due).await;
}

/// Lets the time of a read that begins with this op pass. What becomes of it.
pub(crate) async fn read_time(life: &Life, first: OpNumber) -> Option<ReadFate> {
    let (due, fate) = {
        let mut world = lock(&life.world);
        let fate = world.read_fate(life.node, first);
        let nth = world.nodes[life.node].reads;
        let due = world.now + world.write_latency(life.node, site::READ, nth) / 2;
        (due, fate)
    };
    until(life, due).await;
    fate
}

/// The skewed and drifting clock of one node.
pub(crate) struct SimClock(pub(crate) Life);

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Monotonic {
        let mut world = lock(&self.0.world);
        if world.looks_at_clock(self.0.node) {
            drop(world);
            // Without a word from the panic hook: the world knows why.
            resume_unwind(Box::new(Endless));
        }
        Monotonic(world.local_time(self.0.node))
    }

    fn wall(&self) -> Timestamp {
        Timestamp(lock(&self.0.world).wall(self.0.node))
    }

    async fn sleep_until(&self, deadline: Monotonic) {
        let mut planned = 0;
        poll_fn(|context: &mut Context<'_>| {
            let mut world = lock(&self.0.world);
            if world.local_time(self.0.node) >= deadline.0 {
                return Poll::Ready(());
            }
            // A clock that stood still is late: it is looked at again.
            if planned <= world.now {
                planned = world.when_local(self.0.node, deadline.0).max(world.now + 1);
                // The task that polled last is woken: it may be another one than the node's own.
                world.plan(planned, Planned::Wake { waker: context.waker().clone() });
            }
            Poll::Pending
        })
        .await;
    }
}

/// Tells the checkers what a replica's protocol reports.
pub(crate) struct CheckerObserver {
    life: Life,
    turns: u64,
    was_primary: bool,
}

/// Turns of a replica after which its accounts are counted anew: that takes as long as much is held.
const AUDIT_EVERY: u64 = 128;

impl CheckerObserver {
    pub(crate) fn of(life: Life) -> CheckerObserver {
        CheckerObserver { life, turns: 0, was_primary: false }
    }
}

impl Observer for CheckerObserver {
    fn on_event(&mut self, core: &Core, event: &Event) {
        let mut world = lock(&self.life.world);
        let (replica, now) = (self.life.node, world.now);
        world.observe(&Observation::Event { replica, core, event });
        match event {
            Event::ViewEntered { view } => {
                world.trace.count("views entered");
                world.highest_entered = world.highest_entered.max(view.number);
                world.leads(replica, view.number, false);
                world.trace.note(now, TraceKind::ViewEntered, replica as u64, view.number, 0);
            }
            Event::ViewStarted { view, primary } => {
                world.trace.count("views started");
                if usize::from(primary.0) == replica {
                    world.leads(replica, view.number, true);
                }
                world.highest_view = world.highest_view.max(view.number);
                world.trace.note(now, TraceKind::ViewStarted, replica as u64, view.number, 0);
            }
            Event::Voted { view, why } => {
                world.trace.count("votes");
                world.say(replica, || format!("r{replica} votes to leave view {view}: {why}"));
            }
            Event::Truncated { above, head } => {
                world.trace.count("truncations");
                world.say(replica, || format!("r{replica} drops ops {} to {head}", above.next()));
            }
            Event::Committed { commit } => {
                if core.is_primary() {
                    world.commits_as_primary(replica, core.view().number);
                }
                world.trace.note(now, TraceKind::Committed, replica as u64, commit.0, 0);
            }
            Event::Applied { op, checksum } => {
                world.trace.note(now, TraceKind::Applied, replica as u64, op.0, checksum.0 as u64);
                if op.0.is_multiple_of(16) {
                    let digest = core.sessions_digest();
                    if core.applied() == *op && core.is_between_ops() {
                        world.observe(&Observation::Digest { replica, of: Digested::Sessions(*op), digest });
                    }
                }
            }
            Event::Restored { op, .. } => {
                world.trace.count("states from a checkpoint");
                world.say(replica, || format!("r{replica} goes on from the checkpoint after op {op}"));
            }
            Event::LogDropped { base } => {
                world.trace.count("logs dropped");
                world.say(replica, || format!("r{replica} drops its log up to op {base}"));
            }
            Event::Appointed { op, view } => {
                world.trace.count("disks put in the place of lost ones");
                world.say(replica, || {
                    format!("r{replica}'s disk has its place by op {op}, and counts from view {view} on")
                });
            }
            Event::Rejoined { .. } => {
                world.trace.count("new disks that count");
                world.say(replica, || format!("r{replica} has rejoined with its new disk"));
            }
            Event::TransferBegan { op } => {
                world.trace.count("transfers begun");
                world.say(replica, || format!("r{replica} fetches the checkpoint after op {op}"));
            }
            Event::Checkpointed { op } => {
                world.trace.count("checkpoints named");
                world.say(replica, || format!("r{replica} has a checkpoint after op {op}"));
            }
            _ => {}
        }
    }

    fn on_mark(&mut self, _: &Core, mark: &Mark) {
        let mut world = lock(&self.life.world);
        let replica = self.life.node;
        world.observe(&Observation::Mark { replica, mark });
        match mark {
            Mark::Ignored { message, why } => {
                world.trace.count("messages ignored");
                if world.trace.keeps(Detail::Messages) {
                    world.say(replica, || format!("r{replica} ignores a {message}: {why}"));
                }
            }
            Mark::Path(name) => world.trace.count(name),
            _ => {}
        }
    }

    fn on_turn(&mut self, core: &Core) {
        let replica = self.life.node;
        let mut world = lock(&self.life.world);
        world.observe(&Observation::Turn { replica, core });
        let (executed, bound) =
            (std::mem::take(&mut world.nodes[replica].executed) as u64, world.options.limits.apply_slice);
        if executed > bound as u64 {
            let name = "commands applied in one turn";
            let account = Account { name, counted: executed, held: executed, bound: bound as u64 };
            world.observe(&Observation::Audited { replica, account: &account });
        }
        self.turns += 1;
        let is_primary = core.is_primary();
        if std::mem::replace(&mut self.was_primary, is_primary) != is_primary || self.turns.is_multiple_of(AUDIT_EVERY)
        {
            for account in &core.audit() {
                world.observe(&Observation::Audited { replica, account });
            }
        }
        if world.trace.keeps(Detail::Events) {
            let normal = core.status() == Status::Normal;
            let state = if normal { State::Normal } else { State::ViewChange };
            world.status(replica, core.view().number, state, normal && core.is_primary());
            world.numbers(replica, core.head().0, core.commit().0);
        }
    }
}
