//! The change of the view: votes, the choice of the log, and the start of the new view.

pub(super) mod choose;
pub(super) mod decide;
pub(super) mod phase;
#[allow(clippy::module_inception, reason = "the folder is named after what it is about")]
pub(super) mod view_change;
pub(super) mod votes;
