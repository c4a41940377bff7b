//! The checkpoints of the simulated disks: how long they take, which fail, and what becomes of their bytes.

use std::cell::RefCell;
use std::io::Cursor;

use vsr::Snapshot;
use vsr::checkpoints::{ChunkReader, ChunkWriter};
use vsr::protocol::{CheckpointId, OpNumber};
use vsr::storage::{CheckpointReader, StorageError};

use super::life::{Life, io_error, until};
use super::{World, lock, site};
use crate::check::{Observation, Violation};

/// Of so many checkpoints one is not written.
const FAIL_ONE_OF: u64 = 12;
/// Of so many that are read one has rotted.
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
    let mut to = ChunkWriter::new(Vec::new(), op);
    let written = content.write_to(&mut to).and_then(|()| to.finish());
    let (id, file) = written.map_err(|error| StorageError::io("writing a checkpoint", error))?;
    let (due, fails) = {
        let mut world = lock(&life.world);
        let named = world.disks[node].state().checkpoints.clone();
        if let Some(dropped) = named.iter().find(|named| !keep.contains(named)) {
            let message = format!("r{node} does not keep the checkpoint after {dropped}, which its record names");
            let at = world.now;
            world.breach(Violation { checker: "named-checkpoints-are-kept", message, at });
        }
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
        let rots = world.faults_on && random.chance(1, ROT_ONE_OF);
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
    read.map_err(|error| StorageError::CheckpointDamaged { id, what: error.to_string() })
}

impl World {
    /// Whether a bit of the state of this replica flips as it applies this op: once in a run, in some runs.
    pub(crate) fn goes_wrong(&mut self, node: usize, op: OpNumber) -> bool {
        let Some((victim, from)) = self.options.wrong_state else { return false };
        if node != victim || op.0 < from || self.went_wrong || !self.faults_on {
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
        self.observe(&Observation::Broke { replica: node, must: false, how: "a bit of its state has flipped" });
    }
}
