//! Running counts, as an observer of a replica is shown them.

/// Something that is counted as it comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// What is counted, in words.
    pub name: &'static str,
    /// What the running count says.
    pub counted: u64,
    /// What it counts, counted anew.
    pub held: u64,
    /// The most that may be there.
    pub bound: u64,
}

impl Account {
    /// Whether count and content differ, or there is more than may be.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.counted != self.held || self.held > self.bound
    }

    /// The account of something of which nothing should be left.
    pub(crate) fn leftover(name: &'static str, counted: usize) -> Account {
        Account { name, counted: counted as u64, held: 0, bound: 0 }
    }
}
