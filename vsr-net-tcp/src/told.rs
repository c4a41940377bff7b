//! What was said already.

use std::collections::BTreeMap;

/// Tells a thing when it begins and when it changes, not each time that it is noticed.
pub(crate) struct Told<K> {
    last: BTreeMap<K, String>,
}

/// Things that are kept apart. Strangers may come from anywhere: then all is forgotten, and told once more.
const TOLD_MAX: usize = 256;

impl<K: Ord> Told<K> {
    pub(crate) fn new() -> Told<K> {
        Told { last: BTreeMap::new() }
    }

    /// Whether this was not said of it last.
    pub(crate) fn is_new(&mut self, of: K, what: &str) -> bool {
        if self.last.get(&of).is_some_and(|last| last == what) {
            return false;
        }
        if self.last.len() >= TOLD_MAX {
            self.last.clear();
        }
        self.last.insert(of, what.to_owned());
        true
    }

    /// It is over; when it begins again, that is news.
    pub(crate) fn over(&mut self, of: &K) {
        self.last.remove(of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_when_it_begins_and_when_its_reason_changes() {
        let mut told = Told::new();
        assert!(told.is_new(1, "an old copy"));
        assert!(!told.is_new(1, "an old copy"));
        assert!(told.is_new(2, "an old copy"));
        assert!(told.is_new(1, "another disk"));
        told.over(&1);
        assert!(told.is_new(1, "another disk"));
        for stranger in 0..10_000 {
            told.is_new(stranger, "who is this?");
        }
        assert!(told.last.len() <= TOLD_MAX);
    }
}
