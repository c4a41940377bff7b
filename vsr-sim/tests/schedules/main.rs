//! Schedules that broke other implementations, or an earlier wording of the design: one test for each entry of the ledger
//! (`docs/hazards.md`), named after it.

mod clients;
mod defects;
mod disks;
mod health;
mod holes;
mod liveness;
mod lives;
mod merging;
mod normal;
mod paper;
mod partial;
mod reads;
mod restarts;
mod section7;
mod support;
mod views;
mod wording;
mod wording2;
