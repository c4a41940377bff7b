//! The conformance suite on storage in memory. What outlives a process is out of its reach.

use vsr::memory::MemoryStorage;
use vsr::protocol::VsrState;
use vsr::storage::StorageError;
use vsr_sim::conformance::storage::Disks;

#[derive(Default)]
struct Memory;

impl Disks for Memory {
    type Storage = MemoryStorage;
    type Disk = MemoryStorage;

    fn format(&mut self, state: &VsrState, _: u64) -> MemoryStorage {
        MemoryStorage::with_state(state.clone())
    }

    fn open(&mut self, disk: &MemoryStorage) -> Result<MemoryStorage, StorageError> {
        Ok(disk.clone())
    }
}

vsr_sim::storage_conformance!(Memory);

/// Those of its checkpoints that need no harm.
#[test]
fn clauses_15_16_and_18_of_checkpoints() {
    vsr_sim::conformance::checkpoints::whole_checkpoints(&mut Memory);
    vsr_sim::conformance::checkpoints::kept_checkpoints(&mut Memory);
    vsr_sim::conformance::checkpoints::parts_of_checkpoints(&mut Memory);
}
