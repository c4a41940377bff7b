//! What was said already.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Tells a thing when it begins and when it changes, not each time that it is noticed.
pub(crate) struct Told<K> {
    /// What was said last, and when it was noticed last.
    last: BTreeMap<K, (String, Instant)>,
}

/// Things that are kept apart. Strangers may come from anywhere: then all is forgotten, and told once more.
const TOLD_MAX: usize = 256;

/// What was not noticed for so long was over meanwhile. That a stranger gives up is not noticed.
const OVER_AFTER: Duration = Duration::from_secs(60);

impl<K: Ord> Told<K> {
    pub(crate) fn new() -> Told<K> {
        Told { last: BTreeMap::new() }
    }

    /// Whether this was not said of it last.
    pub(crate) fn is_new(&mut self, of: K, what: &str) -> bool {
        self.is_new_at(of, what, Instant::now())
    }

    fn is_new_at(&mut self, of: K, what: &str, now: Instant) -> bool {
        if let Some((last, noticed)) = self.last.get_mut(&of)
            && last == what
            && now.duration_since(*noticed) < OVER_AFTER
        {
            *noticed = now;
            return false;
        }
        if self.last.len() >= TOLD_MAX {
            self.last.clear();
        }
        self.last.insert(of, (what.to_owned(), now));
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

    /// A program that is left alone is refused each second, for days.
    #[test]
    fn what_goes_on_is_told_once_and_what_comes_back_is_told_again() {
        let (mut told, mut now) = (Told::new(), Instant::now());
        assert!(told.is_new_at(1, "another cluster", now));
        for _ in 0..1000 {
            now += Duration::from_secs(1);
            assert!(!told.is_new_at(1, "another cluster", now));
        }
        now += OVER_AFTER;
        assert!(told.is_new_at(1, "another cluster", now));
    }

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
