//! What is left on a disk to show that a write was lost.

use std::collections::BTreeSet;

use crate::files::Place;

/// The sectors that show that a write was lost without an error: those of the writes to the log after it.
///
/// What stands in the place of the lost write is intact. So a disk that has lost the last of these sectors, too, reads
/// like one on which none of these writes was begun, with bad sectors where nothing is written yet. No storage can tell
/// the two apart, and the replica on it would deny what it has acknowledged. From the next durable vsr state on a
/// storage knows how far the log had come.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence(BTreeSet<Place>);

impl Evidence {
    /// Whether nothing has to be kept.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A write was lost, and the next one is durable, in these sectors.
    pub(super) fn begin(&mut self, next: impl IntoIterator<Item = Place>) {
        self.0 = next.into_iter().collect();
    }

    /// One more write to the log is durable, in these sectors.
    pub(super) fn add(&mut self, next: impl IntoIterator<Item = Place>) {
        if !self.0.is_empty() {
            self.0.extend(next);
        }
    }

    /// A vsr state is durable.
    pub(super) fn end(&mut self) {
        self.0.clear();
    }

    /// Whether there is still some when these sectors are bad, or none is needed.
    pub(super) fn outlives(&self, bad: &[Place]) -> bool {
        self.0.is_empty() || self.0.iter().any(|place| !bad.contains(place))
    }

    /// These sectors are bad.
    pub(super) fn take(&mut self, bad: &[Place]) {
        self.0.retain(|place| !bad.contains(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(sectors: std::ops::Range<u64>) -> Vec<Place> {
        sectors.map(|sector| Place { file: 0, sector }).collect()
    }

    #[test]
    fn only_the_last_sector_that_shows_a_lost_write_has_to_stay() {
        let mut evidence = Evidence::default();
        evidence.add(places(0..4));
        assert!(evidence.is_empty() && evidence.outlives(&places(0..4)), "nothing was lost yet");
        evidence.begin(places(4..6));
        assert!(evidence.outlives(&places(5..9)) && !evidence.outlives(&places(4..6)));
        evidence.take(&places(5..9));
        assert!(!evidence.outlives(&places(4..5)), "the other one went bad before");
        evidence.add(places(6..7));
        assert!(evidence.outlives(&places(4..5)), "a later write shows it, too");
        // The one before is lost in its turn: what came before that says nothing of it.
        evidence.begin(places(7..8));
        assert!(evidence.outlives(&places(4..7)) && !evidence.outlives(&places(7..8)));
        evidence.end();
        assert!(evidence.outlives(&places(7..8)), "a state says how far the log had come");
    }
}
