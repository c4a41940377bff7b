//! Why there is no progress, in one sentence.

use super::core::{Core, Status};
use super::number::OpNumber;

impl Core {
    /// One sentence for a person who asks why nothing moves.
    #[must_use]
    pub fn explain(&self) -> String {
        if let Some(fault) = &self.fault {
            return format!("stopped: {fault}");
        }
        let view = self.view;
        if !self.head_certain {
            return format!(
                "view {view}: the end of this replica's log is damaged; waiting for {} to answer with its StartView",
                self.primary_id()
            );
        }
        match self.status {
            Status::ViewChange => self.explain_view_change(),
            Status::Normal if self.is_abdicating() => {
                format!("view {view}: primary without a quorum; {}", self.silent_peers())
            }
            Status::Normal => {
                let blocked = self.applied.next();
                if !blocked.is_committed(self.commit) {
                    format!("view {view}: normal, {} of {} ops applied", self.applied, self.commit)
                } else if self.log.slot(blocked).is_some_and(super::log::LogSlot::is_present) {
                    format!("view {view}: applying op {blocked} of {}", self.commit)
                } else {
                    format!("view {view}: op {blocked} is committed, and no intact copy has been found yet")
                }
            }
        }
    }

    fn explain_view_change(&self) -> String {
        let (view, primary) = (self.view, self.primary_id());
        if self.writes.view_batch > self.writes.completed {
            return format!("view {view}: writing it to disk");
        }
        if self.is_repairing_primary() {
            let missing = (self.commit.0 + 1..=self.log.head().0)
                .map(OpNumber)
                .find(|op| !self.log.slot(*op).is_some_and(super::log::LogSlot::is_present));
            let missing = missing.map_or_else(|| "nothing".to_owned(), |op| format!("op {op}"));
            return format!("view {view}: new primary, waiting for a copy of {missing}");
        }
        if primary != self.id {
            return format!("view {view}: waiting for the StartView of {primary}; {}", self.silent_peers());
        }
        let have = self.view_change.dvcs.iter().flatten().count();
        let need = self.membership.quorums.view_change;
        let missing: Vec<String> = self
            .view_change
            .dvcs
            .iter()
            .enumerate()
            .filter(|(_, dvc)| dvc.is_none())
            .map(|(at, _)| self.membership.members[at].id.to_string())
            .collect();
        if have < usize::from(need) {
            format!(
                "view {view}: {have} of {need} DoViewChanges; waiting for one of {}; {}",
                missing.join(", "),
                self.silent_peers()
            )
        } else {
            let op = self.undecided().map_or_else(|| "an op above its end".to_owned(), |op| format!("op {op}"));
            format!(
                "view {view}: choosing the log; {op} has neither an intact copy nor a nack quorum yet, waiting for {}",
                if missing.is_empty() {
                    "an operator, as every replica has answered".to_owned()
                } else {
                    missing.join(", ")
                }
            )
        }
    }

    fn silent_peers(&self) -> String {
        let silent: Vec<String> = self
            .peers
            .iter()
            .enumerate()
            .filter(|(at, peer)| *at != self.index && self.now.since(peer.heard_at) >= self.options.timing.suspect)
            .map(|(at, peer)| {
                let ago = self.now.since(peer.heard_at).as_millis();
                format!("last heard of {} {}.{} s ago", self.membership.members[at].id, ago / 1000, ago % 1000 / 100)
            })
            .collect();
        if silent.is_empty() { "every other replica is heard".to_owned() } else { silent.join(", ") }
    }
}
