//! The slots of the log: one for each op after the base, up to the head.

use std::collections::VecDeque;

use crate::log::Place;

/// Where the entry of each op is, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    /// The last op that was dropped.
    base: u64,
    places: VecDeque<Place>,
}

impl Slots {
    /// None yet, of a log of which all up to `base` was dropped.
    pub(crate) fn after(base: u64) -> Slots {
        Slots { base, places: VecDeque::new() }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn head(&self) -> u64 {
        self.base + self.places.len() as u64
    }

    fn at(&self, op: u64) -> Option<usize> {
        usize::try_from(op.checked_sub(self.base + 1)?).ok()
    }

    /// `None` for an op that was dropped, and above the head.
    pub(crate) fn get(&self, op: u64) -> Option<&Place> {
        self.places.get(self.at(op)?)
    }

    /// Every slot in the order of the ops.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Place)> {
        (self.base + 1..).zip(&self.places)
    }

    /// The slots from this op on.
    pub(crate) fn from(&mut self, op: u64) -> impl Iterator<Item = &mut Place> {
        let skip = usize::try_from(op.saturating_sub(self.base + 1)).unwrap_or(usize::MAX);
        self.places.iter_mut().skip(skip)
    }

    pub(crate) fn truncate(&mut self, head: u64) {
        self.places.truncate(usize::try_from(head.saturating_sub(self.base)).unwrap_or(usize::MAX));
    }

    /// Slots up to this op, with this in those that are new. Whether there are new ones.
    pub(crate) fn extend(&mut self, head: u64, with: Place) -> bool {
        let is_more = head > self.head();
        if is_more {
            self.places.resize((head - self.base) as usize, with);
        }
        is_more
    }

    /// Puts something into the slot of an op, which is the next one, or is there; an op that was dropped has none.
    pub(crate) fn put(&mut self, op: u64, place: Place) {
        let Some(at) = self.at(op) else { return };
        match self.places.get_mut(at) {
            Some(slot) => *slot = place,
            None => self.places.push_back(place),
        }
    }

    /// Drops the slots up to this op. A log that ended below ends there then.
    pub(crate) fn drop_up_to(&mut self, base: u64) {
        let gone = base.saturating_sub(self.base).min(self.places.len() as u64);
        self.places.drain(..gone as usize);
        self.base = self.base.max(base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_ops_after_the_base() {
        let mut slots = Slots::after(10);
        assert_eq!((slots.head(), slots.get(10), slots.get(11)), (10, None, None));
        assert!(slots.extend(12, Place::ABSENT) && !slots.extend(11, Place::LOST));
        slots.put(12, Place::LOST);
        slots.put(13, Place::LOST);
        slots.put(10, Place::LOST);
        let ops = |slots: &Slots| slots.iter().map(|(op, place)| (op, *place == Place::LOST)).collect::<Vec<_>>();
        assert_eq!(ops(&slots), [(11, false), (12, true), (13, true)]);
        slots.from(13).for_each(|place| *place = Place::ABSENT);
        assert_eq!(ops(&slots), [(11, false), (12, true), (13, false)]);
        slots.drop_up_to(11);
        slots.drop_up_to(5);
        assert_eq!((slots.base(), slots.head(), slots.get(11), slots.get(12)), (11, 13, None, Some(&Place::LOST)));
        slots.truncate(3);
        assert_eq!((slots.base(), slots.head()), (11, 11));
        slots.drop_up_to(20);
        assert_eq!((slots.base(), slots.head()), (20, 20), "a log that ended below");
    }
}
