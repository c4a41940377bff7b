//! A set of op numbers, kept as ranges.

use std::collections::BTreeMap;

/// Ops, as first and last of each run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds an op above all that are in it.
    pub(crate) fn push(&mut self, op: u64) {
        match self.0.iter_mut().next_back() {
            Some((_, last)) if *last + 1 >= op => *last = op.max(*last),
            _ => {
                self.0.insert(op, op);
            }
        }
    }

    pub(crate) fn remove(&mut self, op: u64) {
        let Some((&first, &last)) = self.0.range(..=op).next_back() else { return };
        if last < op {
            return;
        }
        self.0.remove(&first);
        if first < op {
            self.0.insert(first, op - 1);
        }
        if op < last {
            self.0.insert(op + 1, last);
        }
    }

    /// Removes what is above `op`.
    pub(crate) fn truncate(&mut self, op: u64) {
        self.0.split_off(&op.saturating_add(1));
        if let Some(mut last) = self.0.last_entry() {
            *last.get_mut() = (*last.get()).min(op);
        }
    }

    /// First and last of each run, of at most `most` runs: where there are more, what lies between two is taken
    /// in.
    pub(crate) fn runs(&self, most: usize) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let surplus = self.0.len().saturating_sub(most);
        for (at, (&first, &last)) in self.0.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if at <= surplus => run.1 = last,
                _ => runs.push((first, last)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_set_of_its_ops() {
        let mut ranges = Ranges::default();
        let mut set = std::collections::BTreeSet::new();
        for op in (3..40).filter(|op| op % 7 != 0) {
            ranges.push(op);
            set.insert(op);
        }
        let ops = |ranges: &Ranges| ranges.runs(usize::MAX).into_iter().flat_map(|(a, b)| a..=b).collect::<Vec<_>>();
        for remove in [3, 5, 13, 20, 39, 2, 50] {
            ranges.remove(remove);
            set.remove(&remove);
            assert_eq!(ops(&ranges), set.iter().copied().collect::<Vec<_>>(), "without {remove}");
        }
        for above in [30, 27, 10, 0] {
            ranges.truncate(above);
            set.split_off(&(above + 1));
            assert_eq!(ops(&ranges), set.iter().copied().collect::<Vec<_>>(), "up to {above}");
        }
    }

    #[test]
    fn too_many_runs_become_fewer_that_hold_them_all() {
        let mut ranges = Ranges::default();
        (0..10).for_each(|op| ranges.push(2 * op + 1));
        assert_eq!(ranges.runs(3), [(1, 15), (17, 17), (19, 19)]);
        assert_eq!(ranges.runs(10).len(), 10);
    }
}
