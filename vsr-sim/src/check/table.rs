//! Where checkers keep what they remember: by op, by command, by replica.

use std::collections::BTreeMap;

const PAGE: u64 = 128;

/// Values by a number, where most numbers near a used one are used, too.
#[derive(Debug)]
pub(super) struct Table<T>(BTreeMap<u64, Box<[Option<T>]>>);

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table(BTreeMap::new())
    }
}

impl<T: Copy> Table<T> {
    pub(super) fn get(&self, at: u64) -> Option<T> {
        self.0.get(&(at / PAGE)).and_then(|page| page[(at % PAGE) as usize])
    }

    /// The value that was put first.
    pub(super) fn get_or_put(&mut self, at: u64, value: T) -> T {
        let page = self.0.entry(at / PAGE).or_insert_with(|| vec![None; PAGE as usize].into_boxed_slice());
        *page[(at % PAGE) as usize].get_or_insert(value)
    }
}

/// A value for each replica.
#[derive(Debug)]
pub(super) struct ByReplica<T>(Vec<T>);

impl<T> Default for ByReplica<T> {
    fn default() -> ByReplica<T> {
        ByReplica(Vec::new())
    }
}

impl<T: Default> ByReplica<T> {
    pub(super) fn of(&mut self, replica: usize) -> &mut T {
        if replica >= self.0.len() {
            self.0.resize_with(replica + 1, T::default);
        }
        &mut self.0[replica]
    }
}
