//! Which slots are lost, and since when, kept as runs.

use std::collections::BTreeMap;

/// First and last of a run of slots, and the generation of the state that was the first to call them lost: what
/// older records put there does not count, what its own and later ones put there does.
pub(crate) type Lost = (u64, u64, u64);

/// Runs by the first of each: the last, and the generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostSlots(BTreeMap<u64, (u64, u64)>);

impl LostSlots {
    pub(crate) fn of(runs: &[Lost]) -> LostSlots {
        LostSlots(runs.iter().map(|&(first, last, since)| (first, (last, since))).collect())
    }

    /// These slots are lost since `generation`, whatever was known of them.
    pub(crate) fn add(&mut self, first: u64, last: u64, generation: u64) {
        self.split(first);
        self.split(last.saturating_add(1));
        let inside: Vec<u64> = self.0.range(first..=last).map(|(&at, _)| at).collect();
        for at in inside {
            self.0.remove(&at);
        }
        if let Some((_, (end, since))) = self.0.range_mut(..first).next_back()
            && *since == generation
            && end.checked_add(1) == Some(first)
        {
            *end = last;
            return;
        }
        self.0.insert(first, (last, generation));
    }

    /// Removes what is above `op`.
    pub(crate) fn truncate(&mut self, op: u64) {
        self.split(op.saturating_add(1));
        self.0.split_off(&op.saturating_add(1));
    }

    /// Removes what is not above `op`.
    pub(crate) fn drop_up_to(&mut self, op: u64) {
        self.split(op.saturating_add(1));
        self.0 = self.0.split_off(&op.saturating_add(1));
    }

    /// The runs, but `most` of them at most: where there are more, what lies between two is taken in.
    pub(crate) fn runs(&self, most: usize) -> Vec<Lost> {
        let mut runs: Vec<Lost> = Vec::new();
        let surplus = self.0.len().saturating_sub(most);
        for (at, (&first, &(last, since))) in self.0.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if at <= surplus => (run.1, run.2) = (last, since.max(run.2)),
                _ => runs.push((first, last, since)),
            }
        }
        runs
    }

    /// Makes a run begin at `at`, if it lies inside of one.
    fn split(&mut self, at: u64) {
        let Some((&first, &(last, since))) = self.0.range(..at).next_back() else { return };
        if last >= at {
            self.0.insert(first, (at - 1, since));
            self.0.insert(at, (last, since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_generation_of_each_of_its_slots() {
        let mut slots = LostSlots::default();
        let mut model = BTreeMap::new();
        let add = |slots: &mut LostSlots, model: &mut BTreeMap<u64, u64>, first: u64, last: u64, since: u64| {
            slots.add(first, last, since);
            model.extend((first..=last).map(|op| (op, since)));
        };
        let check = |slots: &LostSlots, model: &BTreeMap<u64, u64>| {
            let runs = slots.runs(usize::MAX);
            let all = runs.iter().flat_map(|&(first, last, since)| (first..=last).map(move |op| (op, since)));
            assert_eq!(all.collect::<Vec<_>>(), model.iter().map(|(&op, &since)| (op, since)).collect::<Vec<_>>());
            assert_eq!(LostSlots::of(&runs), *slots);
        };
        for (first, last, since) in
            [(5, 9, 1), (10, 12, 1), (20, 20, 1), (8, 15, 2), (6, 6, 3), (1, 1, 3), (2, 3, 3), (1, 40, 4), (7, 7, 5)]
        {
            add(&mut slots, &mut model, first, last, since);
            check(&slots, &model);
        }
        let (mut above, mut of_model) = (slots.clone(), model.clone());
        for op in [0, 1, 5, 7, 20] {
            above.drop_up_to(op);
            of_model = of_model.split_off(&(op + 1));
            check(&above, &of_model);
        }
        for above in [39, 20, 7, 6, 1, 0] {
            slots.truncate(above);
            model.split_off(&(above + 1));
            check(&slots, &model);
        }
    }

    #[test]
    fn neighbours_of_one_generation_are_one_run() {
        let mut slots = LostSlots::default();
        (3..2000).for_each(|op| slots.add(op, op, 7));
        assert_eq!(slots.runs(usize::MAX), [(3, 1999, 7)]);
    }

    #[test]
    fn too_many_runs_become_fewer_that_hold_them_all() {
        let mut slots = LostSlots::default();
        (0..10).for_each(|op| slots.add(2 * op + 1, 2 * op + 1, op));
        assert_eq!(slots.runs(3), [(1, 15, 7), (17, 17, 8), (19, 19, 9)]);
        assert_eq!(slots.runs(10).len(), 10);
    }
}
