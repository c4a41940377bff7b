//! What drives a replica: its future, the application's handle of it, and its figures.
//!
//! The session of the handle and its inbox are those of a client, and are in `client`. The configuration is in `config`, beside this, since
//! storages are formatted with it.

pub mod handle;
pub(crate) mod metrics;
pub mod replica;
