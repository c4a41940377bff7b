//! Processes that take themselves for a replica, on a disk that is not its newest one (rule 7.7). They stand beside the replica: of what is sent to it,
//! some reaches them. Nothing that they are told, or say, may do the cluster any harm, and they are refused.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use vsr::checkpoints::ChunkReader;
use vsr::protocol::{Batch, CheckpointId, DiskId, Entry, OpNumber, Peer, Recovered, VsrState};
use vsr::storage::{CheckpointReader, StorageError};
use vsr::{Snapshot, Storage};

use super::life::{Life, io_error, until};
use super::{World, lock, site};
use crate::faults::Impostor;
use crate::files::SimDisk;

/// The disk of one, over its starts.
#[derive(Debug)]
pub(crate) struct ImpostorDisk {
    disk: SimDisk,
    checkpoints: BTreeMap<CheckpointId, Vec<u8>>,
}

impl World {
    /// The nodes that faults can name: all but the impostors, which come last.
    pub(super) fn parties(&self) -> usize {
        self.nodes.len() - self.impostors_ever
    }

    /// Whom a message to this node reaches: two processes under one id take turns.
    pub(super) fn or_impostor(&self, to: usize) -> usize {
        if self.impostors.is_empty() {
            return to;
        }
        let mut others = self.impostors.iter().filter(|(_, replica)| **replica == to).map(|(node, _)| *node);
        let is_next = |node: &usize| self.draw(site::IMPOSTOR, self.now, *node as u64).chance(1, 2);
        others.find(is_next).unwrap_or(to)
    }

    /// The disk that an impostor is started on; none where nobody could tell it from the replica's own.
    pub(crate) fn disk_of_impostor(&mut self, replica: usize, of: Impostor) -> Option<ImpostorDisk> {
        let own = self.disks[replica].state();
        let (cluster, id, membership) = (own.cluster, own.replica, own.membership.clone());
        let (name, found) = match of {
            Impostor::Copy if self.may_restore(replica) => ("impostors on copies", self.copy_of(replica)),
            Impostor::New if self.is_remembered(replica) => {
                let nth = self.impostors_ever as u64;
                let disk_id = DiskId(2 << 64 | u128::from(self.draw(site::IMPOSTOR, replica as u64, !nth).next_u64()));
                let state = VsrState::formatted(cluster, id, disk_id, membership);
                (
                    "impostors on new disks",
                    Some(ImpostorDisk { disk: SimDisk::new(state), checkpoints: BTreeMap::new() }),
                )
            }
            Impostor::Of(other) if self.disks.get(other).is_some_and(|disk| !disk.is_lost()) => {
                let disk = self.disks[other].clone();
                ("impostors on disks of others", Some(ImpostorDisk { disk, checkpoints: BTreeMap::new() }))
            }
            _ => return None,
        };
        let disk = found?;
        self.trace.count(name);
        self.fault(replica, None, || match of {
            Impostor::Copy => format!("another process runs as r{replica}, on a copy of its disk"),
            Impostor::New => format!("another process runs as r{replica}, on a new disk"),
            Impostor::Of(other) => format!("another process runs as r{replica}, on a copy of r{other}'s disk"),
        });
        Some(disk)
    }

    fn copy_of(&self, replica: usize) -> Option<ImpostorDisk> {
        let (disk, files, _) = self.kept_disks.get(&replica)?;
        Some(ImpostorDisk { disk: disk.clone(), checkpoints: files.iter().cloned().collect() })
    }

    /// Whether each other member remembers this one, on its disk.
    fn is_remembered(&self, replica: usize) -> bool {
        let id = self.disks[replica].state().replica;
        let remembers = |disk: &SimDisk| disk.state().known.iter().any(|known| known.replica == id);
        let others = self.disks.iter().enumerate().filter(|(at, _)| *at != replica);
        others.map(|(_, disk)| disk).all(|disk| disk.counts() && remembers(disk))
    }

    /// A node for one.
    pub(crate) fn add_impostor(&mut self, replica: usize) -> usize {
        let node = self.add_node(Peer::Replica(self.disks[replica].state().replica));
        self.impostors.insert(node, replica);
        self.impostors_ever += 1;
        node
    }

    /// It is refused, and nobody starts it again.
    pub(crate) fn end_impostor(&mut self, node: usize) {
        self.impostors.remove(&node);
        self.nodes[node].up = false;
        self.trace.count("impostors refused");
    }
}

/// The storage of one: without faults, and without room for checkpoints.
pub(crate) struct ImpostorStorage {
    pub(crate) life: Life,
    pub(crate) disk: Arc<Mutex<ImpostorDisk>>,
}

impl ImpostorStorage {
    fn with<T>(&self, work: impl FnOnce(&mut ImpostorDisk) -> T) -> T {
        work(&mut self.disk.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn takes_time(&self) {
        let due = {
            let mut world = lock(&self.life.world);
            let node = &mut world.nodes[self.life.node];
            node.writes += 1;
            let nth = node.writes;
            world.now + world.write_latency(self.life.node, site::IMPOSTOR, nth)
        };
        until(&self.life, due).await;
    }

    fn file(&self, id: CheckpointId) -> Result<Vec<u8>, StorageError> {
        let file = self.with(|disk| disk.checkpoints.get(&id).cloned());
        file.ok_or_else(|| StorageError::CheckpointDamaged { id, what: "it is not there".to_owned() })
    }
}

#[async_trait]
impl Storage for ImpostorStorage {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        Ok(self.with(|disk| disk.disk.start()))
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.takes_time().await;
        self.with(|ImpostorDisk { disk, .. }| {
            disk.begin(batch);
            disk.complete();
        });
        Ok(())
    }

    async fn read(
        &self,
        ops: RangeInclusive<OpNumber>,
        _bytes_max: usize,
    ) -> Result<Vec<(OpNumber, Option<Entry>)>, StorageError> {
        self.takes_time().await;
        let ops = (ops.start().0..=ops.end().0.min(ops.start().0 + 15)).map(OpNumber);
        Ok(self.with(|ImpostorDisk { disk, .. }| ops.map(|op| (op, disk.intact(op).cloned())).collect()))
    }

    fn keeps_checkpoints(&self) -> bool {
        true
    }

    async fn write_checkpoint(
        &self,
        _op: OpNumber,
        _keep: Vec<CheckpointId>,
        _content: Snapshot,
    ) -> Result<CheckpointId, StorageError> {
        Err(io_error("a checkpoint"))
    }

    async fn read_checkpoint(&self, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
        let read = ChunkReader::new(Cursor::new(self.file(id)?), id).and_then(|mut chunks| {
            reader(&mut chunks)?;
            chunks.finish()
        });
        read.map_err(|error| StorageError::CheckpointDamaged { id, what: error.to_string() })
    }

    async fn read_part(&self, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
        self.takes_time().await;
        vsr::checkpoints::read_part(Cursor::new(self.file(id)?), id, part)
    }

    async fn write_part(
        &self,
        _id: CheckpointId,
        _part: u32,
        _bytes: Bytes,
        _keep: Vec<CheckpointId>,
    ) -> Result<u32, StorageError> {
        Err(io_error("a part of a checkpoint"))
    }

    fn room(&self) -> u64 {
        u64::MAX
    }
}
