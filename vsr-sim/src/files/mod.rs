//! Simulated disks: of entries, as the protocol sees them, or of files, as a storage's own code does.
//!
//! A [`SimDisk`] holds entries in slots, and is what most seeds run on. A [`SimFolder`] stands for a disk at the grain of
//! sectors: a storage that keeps its files there through [`Medium`](vsr_storage_file::medium::Medium) can be tortured alone
//! ([`Torture`]) under power losses, bad sectors, lost writes and full disks, and run under replicas in the simulated cluster
//! ([`Simulation::storage`](crate::Simulation::storage)); the file storage of this project is, in a part of all seeds.

mod disk;
mod file_storage;
mod folder;
mod inline;
mod ledger;
mod pages;
mod subject;
mod torture;

pub use disk::SimDisk;
pub use file_storage::file_storage;
pub use folder::{Harm, Kept, Place, SimFile, SimFolder};
pub use inline::Inline;
pub use ledger::{Grain, Ledger};
pub use pages::{PAGE, SECTOR};
pub use torture::{Broken, Torture, Tortured};

pub(crate) use file_storage::boxed_file_storage;
pub(crate) use folder::Lost;
pub(crate) use pages::SECTORS_PER_PAGE;
pub(crate) use subject::{Stop, now};
