//! The checkpoints of the simulated disks: how long they take, which fail, and what becomes of their bytes.

use std::cell::RefCell;
use std::io::Cursor;

use bytes::Bytes;
use vsr::Snapshot;
use vsr::checkpoints::{ChunkReader, ChunkWriter};
use vsr::protocol::{CheckpointId, OpNumber};
use vsr::storage::{CheckpointReader, StorageError};

use super::life::{Life, io_error, until};
use super::{World, lock, site};
use crate::check::{Observation, Violation};
use crate::files::SimDisk;

/// Of so many checkpoints one is not written.
const FAIL_ONE_OF: u64 = 12;
/// Of so many parts one is not stored, and of so many that are read for another replica one cannot be read.
const PART_FAILS_ONE_OF: u64 = 24;
/// Of so many that are read one has rotted, where it may.
const ROT_ONE_OF: u64 = 10;

thread_local! {
    /// Whose checkpoint a state machine is being restored from, and after which op it was taken.
    static READING: RefCell<Option<(Life, OpNumber)>> = const { RefCell::new(None) };
}

/// Whose state machine is being restored on this thread, and after which op.
pub(crate) fn being_restored() -> Option<(Life, OpNumber)> {
    READING.with_borrow(Clone::clone)
}

/// As [`vsr::Storage::write_checkpoint`], on the disk of this replica.
pub(crate) async fn write(
    life: &Life,
    op: OpNumber,
    keep: Vec<CheckpointId>,
    content: Snapshot,
) -> Result<CheckpointId, StorageError> {
    let node = life.node;
    let longest = 128 << lock(&life.world).draw(site::PART, u64::MAX, 0).below(6);
    let mut to = ChunkWriter::with_chunks_of(Vec::new(), op, longest);
    let written = content.write_to(&mut to).and_then(|()| to.finish());
    let (id, file) = written.map_err(|error| StorageError::io("writing a checkpoint", error))?;
    let (due, fails) = {
        let mut world = lock(&life.world);
        world.keeps_named(node, &keep);
        world.checkpoints.retain(|(of, id), _| *of != node || keep.contains(id));
        let mut random = world.draw(site::CHECKPOINT, node as u64, op.0 ^ life.life << 40);
        let times = 1 + random.below(20);
        let due = world.now + world.write_latency(node, site::CHECKPOINT, op.0).saturating_mul(times);
        (due, world.faults_on && random.chance(1, FAIL_ONE_OF))
    };
    until(life, due).await;
    let mut world = lock(&life.world);
    if world.nodes[node].poisoned {
        return Err(StorageError::Poisoned("an injected error".to_owned()));
    }
    if fails {
        world.trace.count("checkpoints that fail");
        return Err(io_error("a checkpoint"));
    }
    world.trace.count("checkpoints written");
    world.checkpoints.insert((node, id), file);
    Ok(id)
}

/// As [`vsr::Storage::read_checkpoint`].
pub(crate) async fn read(life: &Life, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
    let node = life.node;
    let due = {
        let world = lock(&life.world);
        world.now + world.write_latency(node, site::CHECKPOINT, life.life)
    };
    until(life, due).await;
    let file = {
        let mut world = lock(&life.world);
        let mut random = world.draw(site::CHECKPOINT, node as u64, id.op.0 ^ life.life << 40 ^ 1 << 63);
        // Of each checkpoint as many copies as of an op.
        let may_rot = world.replicas == 1 || world.atlas.may_rot(id.op, node);
        let rots = world.faults_on && random.chance(1, ROT_ONE_OF) && may_rot;
        let file = world.checkpoints.get_mut(&(node, id)).map(|file| {
            if rots {
                let at = random.below(file.len() as u64) as usize;
                file[at] ^= 1 << random.below(8);
            }
            file.clone()
        });
        world.trace.count("checkpoints read");
        if rots {
            world.trace.count("checkpoints that rot");
            world.fault(node, None, || format!("r{node}'s checkpoint after op {} rots", id.op));
        }
        if file.is_none() {
            let message = format!("r{node}'s record names the checkpoint after {id}, which is not there");
            let at = world.now;
            world.breach(Violation { checker: "named-checkpoints-are-kept", message, at });
        }
        file.unwrap_or_default()
    };
    READING.replace(Some((life.clone(), id.op)));
    let read = ChunkReader::new(Cursor::new(file), id).and_then(|mut chunks| {
        reader(&mut chunks)?;
        chunks.finish()
    });
    READING.take();
    let mut world = lock(&life.world);
    if read.is_err() && world.replicas == 1 {
        let how = "a checkpoint has rotted, and no other replica has one";
        world.observe(&Observation::Broke { replica: node, must: false, how });
    }
    drop(world);
    read.map_err(|error| StorageError::CheckpointDamaged { id, what: error.to_string() })
}

/// As [`vsr::Storage::read_part`].
pub(crate) async fn read_part(life: &Life, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
    let node = life.node;
    let (due, fails) = {
        let world = lock(&life.world);
        let mut random = world.draw(site::PART, node as u64, world.now ^ u64::from(part) << 48);
        (
            world.now + world.write_latency(node, site::PART, part.into()),
            world.faults_on && random.chance(1, PART_FAILS_ONE_OF),
        )
    };
    until(life, due).await;
    let mut world = lock(&life.world);
    world.trace.count("parts of checkpoints read");
    let damaged = |what: String| StorageError::CheckpointDamaged { id, what };
    if fails {
        return Err(damaged("an injected error".to_owned()));
    }
    let file = world.checkpoints.get(&(node, id)).cloned().ok_or_else(|| damaged("it is not there".to_owned()))?;
    vsr::checkpoints::read_part(Cursor::new(file), id, part)
}

/// As [`vsr::Storage::write_part`].
pub(crate) async fn write_part(
    life: &Life,
    id: CheckpointId,
    part: u32,
    bytes: Bytes,
    keep: Vec<CheckpointId>,
) -> Result<u32, StorageError> {
    let node = life.node;
    let (due, fails) = {
        let mut world = lock(&life.world);
        world.keeps_named(node, &keep);
        let mut random = world.draw(site::PART, node as u64, !world.now ^ u64::from(part) << 48);
        (
            world.now + world.write_latency(node, site::PART, u64::from(part)),
            world.faults_on && random.chance(1, PART_FAILS_ONE_OF),
        )
    };
    until(life, due).await;
    let mut world = lock(&life.world);
    if world.nodes[node].poisoned {
        return Err(StorageError::Poisoned("an injected error".to_owned()));
    }
    if fails {
        world.trace.count("parts of checkpoints that are not stored");
        return Err(io_error("a part of a checkpoint"));
    }
    world.trace.count("parts of checkpoints stored");
    let coming = world.coming.entry(node).or_default();
    let taken = coming.take_in((id, part), &bytes, |left| Ok(left.unwrap_or_default()));
    let (next, whole) = taken.map_err(|error| StorageError::CheckpointDamaged { id, what: error.to_string() })?;
    world.checkpoints.extend(whole.map(|file| ((node, id), file.into_inner())));
    Ok(next)
}

impl World {
    /// What the durable record of this replica names has to stay.
    fn keeps_named(&mut self, node: usize, keep: &[CheckpointId]) {
        let named = self.disks[node].state().checkpoints.clone();
        if let Some(dropped) = named.iter().find(|named| !keep.contains(named)) {
            let message = format!("r{node} does not keep the checkpoint after {dropped}, which its record names");
            let at = self.now;
            self.breach(Violation { checker: "named-checkpoints-are-kept", message, at });
        }
    }

    /// The op of the newest checkpoint that the record of this replica names and that can be read; 0 for none.
    pub(crate) fn newest_whole_checkpoint(&self, node: usize) -> OpNumber {
        let named = self.disks[node].state().checkpoints.iter().rev();
        let is_whole = |id: &&CheckpointId| {
            let file = self.checkpoints.get(&(node, **id)).filter(|_| !self.disks[node].is_lost());
            file.is_some_and(|file| {
                ChunkReader::new(Cursor::new(file), **id).is_ok_and(|chunks| chunks.finish().is_ok())
            })
        };
        named.into_iter().find(is_whole).map_or(OpNumber::ZERO, |id| id.op)
    }

    /// A copy of this disk is kept, as it is durable now. Whether one can be.
    pub(crate) fn copy_disk(&mut self, node: usize) -> bool {
        let Some(disk) = self.disks.get(node).filter(|disk| disk.counts() && disk.is_settled()) else {
            return false;
        };
        if self.files.as_ref().is_some_and(|files| !files.disks[node].ledger.is_settled()) {
            return false;
        }
        let files = self.checkpoints.range((node, CheckpointId::default())..).take_while(|((of, _), _)| *of == node);
        let files = files.map(|((_, id), file)| (*id, file.clone())).collect();
        let on_files = self.files.as_ref().map(|files| files.disks[node].copy());
        self.kept_disks.insert(node, (disk.clone(), files, on_files));
        self.trace.count("copies of disks");
        self.fault(node, None, || format!("a copy of r{node}'s disk is kept"));
        true
    }

    /// Whether the copy that is kept is of the disk that the replica has, and each other member remembers a later start than the copy knows.
    pub(crate) fn may_restore(&self, node: usize) -> bool {
        let Some((copy, ..)) = self.kept_disks.get(&node) else { return false };
        let (copy, id) = (copy.state(), self.disks[node].state().replica);
        let remembers = |disk: &SimDisk| {
            let known = disk.state().known.iter().find(|known| known.replica == id);
            known.is_some_and(|known| known.life.disk_id == copy.disk_id && known.life.starts > copy.starts)
        };
        let others = self.disks.iter().enumerate().filter(|(at, _)| *at != node);
        let is_same = self.disks[node].state().disk_id == copy.disk_id && self.disks[node].counts();
        is_same && others.map(|(_, disk)| disk).all(|disk| disk.counts() && remembers(disk))
    }

    /// The copy that was kept takes the place of the disk.
    pub(crate) fn put_copy_back(&mut self, node: usize) {
        let Some((copy, files, on_files)) = self.kept_disks.remove(&node) else { return };
        if let (Some(files), Some(disk)) = (&mut self.files, on_files) {
            files.disks[node] = disk;
        }
        self.disks[node].restore(copy);
        self.checkpoints.retain(|(of, _), _| *of != node);
        self.checkpoints.extend(files.into_iter().map(|(id, file)| ((node, id), file)));
        self.coming.remove(&node);
        self.trace.count("older disks");
        self.fault(node, None, || format!("an older copy of r{node}'s disk is put back"));
    }

    /// Whether a bit of the state of this replica flips as it applies this op: once in a run, in some runs.
    pub(crate) fn goes_wrong(&mut self, node: usize, op: OpNumber) -> bool {
        let Some((victim, from)) = self.options.wrong_state else { return false };
        if node != victim || op.0 < from || self.went_wrong || !self.faults_on {
            return false;
        }
        // Of three, one without its disk and one with a wrong state are too many.
        let lost = self.atlas.may_lose();
        if !lost.is_empty() && !lost.contains(&node) {
            return false;
        }
        self.went_wrong = true;
        self.trace.count("states that go wrong");
        self.fault(node, None, || format!("a bit of r{node}'s state flips"));
        self.is_wrong(node);
        true
    }

    /// The state of this replica is wrong: it may stop.
    pub(crate) fn is_wrong(&mut self, node: usize) {
        self.nodes[node].wrong = true;
        self.observe(&Observation::Broke { replica: node, must: false, how: "a bit of its state has flipped" });
    }
}
