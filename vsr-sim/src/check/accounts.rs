//! What is counted is what is held (hazard I17; rule 5.12).

use super::{Checker, Interests, Observation, Scene};

/// Every running count says what is there, and what is there is within its bound: bytes of queues, log, replies and caches,
/// sessions, requests in flight. They fall back when something is truncated, forgotten or applied, and when the role is left.
#[derive(Debug)]
pub(super) struct TrueAccounts;

impl Checker for TrueAccounts {
    fn name(&self) -> &'static str {
        "accounts-are-true"
    }

    fn wants(&self) -> Interests {
        Interests::AUDITED
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Audited { replica, account } = *observation else { return Ok(()) };
        let (name, counted, held) = (account.name, account.counted, account.held);
        if counted != held {
            return Err(format!("r{replica} counts {counted} {name}, there are {held}"));
        }
        if held > account.bound {
            return Err(format!("r{replica} has {held} {name}, {} are allowed", account.bound));
        }
        Ok(())
    }
}
