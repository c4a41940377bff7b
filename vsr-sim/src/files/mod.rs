//! Simulated files: a storage's own code under power losses, bad sectors, lost writes and full disks.
//!
//! A [`SimFolder`] stands for a disk, at the grain of sectors. A storage that keeps its files there through
//! [`Medium`](vsr_storage_file::medium::Medium) can be tortured alone ([`Torture`]), and run under replicas in the
//! simulated cluster ([`Simulation::storage`](crate::Simulation::storage)); the file storage of this project is, in a
//! part of all seeds.

mod cluster;
mod evidence;
mod examine;
mod file_storage;
mod folder;
mod inline;
mod ledger;
mod pages;
mod subject;
mod torture;
mod trials;

pub use file_storage::file_storage;
pub use folder::{Harm, Kept, Place, SimFile, SimFolder};
pub use inline::Inline;
pub use ledger::{Grain, Ledger};
pub use pages::{PAGE, SECTOR};
pub use torture::{Broken, Torture, Tortured};
pub use trials::three_bad_sectors;

pub(crate) use cluster::{FileDisks, OnFiles, Open};
pub(crate) use file_storage::boxed_file_storage;
