//! What must hold in a replica, what stops it where that does not hold, and what it says of its state.

pub(super) mod audit;
pub(super) mod explain;
pub(super) mod halt;
pub(super) mod invariants;
