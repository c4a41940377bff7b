//! The numbers of the protocol, each a type of its own: a view and an op number cannot be swapped.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

number!(
    /// The place of an op in the log. The first op is 1; 0 stands for "before the first".
    OpNumber(u64), ""
);
number!(
    /// The number of ops, from the first on, that are known to be committed.
    CommitNumber(u64), ""
);
number!(
    /// A generation of the membership (VRR section 7).
    Epoch(u32), "e"
);
number!(
    /// The number of a request within its session, from 1.
    RequestNumber(u64), "#"
);
number!(
    /// The name of a replica within its cluster. Never given twice.
    ReplicaId(u8), "r"
);
number!(
    /// The number of a storage batch since this replica started, from 1. Writes are ordered, so
    /// "is it durable?" is one comparison of batch numbers.
    BatchNumber(u64), "b"
);
number!(
    /// A moment on a replica's own monotonic clock, in nanoseconds from an arbitrary start.
    Monotonic(u64), ""
);
number!(
    /// Wall time in nanoseconds since the Unix epoch, as the replicas agreed on it.
    Timestamp(u64), ""
);

/// A moment that does not come: the deadline of a timer that is not set.
pub(crate) const NEVER: Monotonic = Monotonic(u64::MAX);

impl OpNumber {
    /// The op before the first: the root of the hash chain.
    pub const ZERO: OpNumber = OpNumber(0);

    /// The op after this one.
    #[must_use]
    pub fn next(self) -> OpNumber {
        OpNumber(self.0 + 1)
    }

    /// The op before this one; op 0 has none and stays.
    #[must_use]
    pub fn prev(self) -> OpNumber {
        OpNumber(self.0.saturating_sub(1))
    }

    /// Whether the op lies within the committed ones.
    #[must_use]
    pub fn is_committed(self, commit: CommitNumber) -> bool {
        self.0 <= commit.0
    }
}

impl CommitNumber {
    /// The highest committed op.
    #[must_use]
    pub fn op(self) -> OpNumber {
        OpNumber(self.0)
    }
}

impl RequestNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> RequestNumber {
        RequestNumber(self.0 + 1)
    }
}

impl BatchNumber {
    /// The batch after this one.
    #[must_use]
    pub fn next(self) -> BatchNumber {
        BatchNumber(self.0 + 1)
    }
}

impl Monotonic {
    /// This moment and `nanos` more; saturates.
    #[must_use]
    pub fn after(self, duration: std::time::Duration) -> Monotonic {
        self.after_nanos(nanos(duration))
    }

    /// As [`after`](Self::after), for what is counted often.
    pub(crate) fn after_nanos(self, nanos: u64) -> Monotonic {
        Monotonic(self.0.saturating_add(nanos))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Monotonic) -> std::time::Duration {
        std::time::Duration::from_nanos(self.nanos_since(earlier))
    }

    /// As [`since`](Self::since), for what is counted often.
    pub(crate) fn nanos_since(self, earlier: Monotonic) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A duration in nanoseconds; saturates.
pub(crate) fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A view: who is primary, and of which generation of members. Ordered by epoch first, so that a
/// member that missed a reconfiguration cannot reach the new epoch, however far it raises the numbers of the old one (rule 10.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct View {
    /// The membership that the view belongs to.
    pub epoch: Epoch,
    /// The number within the epoch; member `number mod n` is the primary.
    pub number: u64,
}

impl View {
    /// The view after this one, in the same epoch.
    #[must_use]
    pub fn next(self) -> View {
        View { epoch: self.epoch, number: self.number + 1 }
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch.0 == 0 { write!(f, "{}", self.number) } else { write!(f, "{}.{}", self.epoch.0, self.number) }
    }
}

/// The place of a request in the log: its op, and its index within the op's batch. Unique, and
/// ordered as the requests are executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The op.
    pub op: OpNumber,
    /// The index within the op, from 0.
    pub index: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.op, self.index)
    }
}

/// A session: the position of the `Register` request that opened it (rule 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub Position);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident, $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

identity!(
    /// The name of a cluster. Messages and disks of another cluster are refused. It is shown as it is written in
    /// programs and configurations: as a decimal number.
    ClusterId, "{}"
);
identity!(
    /// A random number that a disk is given when it is formatted: two disks are never the same.
    DiskId, "{:x}"
);
identity!(
    /// A random number, fresh for each handle or client that is built (rule 5.1).
    ClientId, "{:x}"
);

impl std::str::FromStr for ClusterId {
    type Err = std::num::ParseIntError;

    /// Reads what is shown.
    fn from_str(text: &str) -> Result<ClusterId, std::num::ParseIntError> {
        text.parse().map(ClusterId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator compares the number in a message with the one in the file.
    #[test]
    fn a_cluster_id_is_shown_as_it_is_written() {
        for number in [0, 7, 77, u128::from(u64::MAX), u128::MAX] {
            let shown = ClusterId(number).to_string();
            assert_eq!(shown, number.to_string());
            assert_eq!(shown.parse(), Ok(ClusterId(number)));
        }
        assert!("4d".parse::<ClusterId>().is_err());
    }
}
