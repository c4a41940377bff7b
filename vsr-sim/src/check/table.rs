//! Where checkers keep what they remember: by op, by command, by replica.

use std::collections::BTreeMap;

use vsr::protocol::{OpNumber, Position};

const PAGE: u64 = 128;

/// Values by a number, where most numbers near a used one are used, too.
#[derive(Clone, Debug)]
pub(crate) struct Table<T> {
    /// By page, from 0.
    near: Vec<Page<T>>,
    far: BTreeMap<u64, Page<T>>,
}

/// Empty, or `PAGE` values.
type Page<T> = Vec<Option<T>>;

/// Pages that are found by their place.
const NEAR: u64 = 1 << 12;

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { near: Vec::new(), far: BTreeMap::new() }
    }
}

impl<T> Table<T> {
    fn of(&self, at: u64) -> Option<&T> {
        let page = at / PAGE;
        let page = if page < NEAR { self.near.get(page as usize) } else { self.far.get(&page) };
        page?.get((at % PAGE) as usize)?.as_ref()
    }

    /// The place of a value; made if there is none.
    pub(crate) fn place(&mut self, at: u64) -> &mut Option<T> {
        let page = at / PAGE;
        let page = if page < NEAR {
            if self.near.len() as u64 <= page {
                self.near.resize_with(page as usize + 1, Vec::new);
            }
            &mut self.near[page as usize]
        } else {
            self.far.entry(page).or_default()
        };
        if page.is_empty() {
            page.resize_with(PAGE as usize, || None);
        }
        &mut page[(at % PAGE) as usize]
    }
}

impl<T: Copy> Table<T> {
    pub(super) fn get(&self, at: u64) -> Option<T> {
        self.of(at).copied()
    }

    /// The value that was put first.
    pub(super) fn get_or_put(&mut self, at: u64, value: T) -> T {
        *self.place(at).get_or_insert(value)
    }
}

/// Values by a position in the log: of an op there are few, and they come in order.
#[derive(Debug)]
pub(super) struct ByPosition<T>(Table<Vec<(u32, T)>>);

impl<T> Default for ByPosition<T> {
    fn default() -> ByPosition<T> {
        ByPosition(Table::default())
    }
}

impl<T: Copy> ByPosition<T> {
    /// The values of an op, by their index in it.
    pub(super) fn of(&self, op: OpNumber) -> &[(u32, T)] {
        self.0.of(op.0).map_or(&[], Vec::as_slice)
    }

    pub(super) fn contains(&self, position: Position) -> bool {
        self.of(position.op).binary_search_by_key(&position.index, |(index, _)| *index).is_ok()
    }

    /// The value that was put first.
    pub(super) fn get_or_put(&mut self, position: Position, value: T) -> T {
        let values = self.0.place(position.op.0).get_or_insert_default();
        match values.binary_search_by_key(&position.index, |(index, _)| *index) {
            Ok(at) => values[at].1,
            Err(at) => {
                values.insert(at, (position.index, value));
                value
            }
        }
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
