//! What is lost or forgotten: a start on what the disk holds, the repair of what is missing, and the members whose disk has forgotten
//! something.

pub(super) mod fetching;
pub(super) mod lives;
pub(super) mod questions;
pub(super) mod rejoin;
pub(super) mod repair;
pub(super) mod replacements;
pub(super) mod restart;
pub(super) mod scrub;
pub(super) mod transfer;
