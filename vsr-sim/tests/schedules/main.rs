//! Schedules that broke other implementations, or an earlier wording of the rules. A test is named after the entry of
//! the ledger (`docs/hazards.md`) that it guards, a module after the behaviour that its tests are about.

mod disk_faults;
mod health;
mod liveness;
mod lives;
mod log_choice;
mod network;
mod normal;
mod reads;
mod rejoin;
mod repair;
mod restarts;
mod sessions;
mod support;
mod validation;
mod view_change;
