//! Schedules that broke other implementations, or an earlier wording of the design: one test for each entry
//! of the ledger (`docs/hazards.md`), named after it.

mod clients;
mod defects;
mod disks;
mod normal;
mod paper;
mod partial;
mod reads;
mod views;
