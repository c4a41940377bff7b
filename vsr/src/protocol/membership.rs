//! Who belongs to the cluster, and the constants that all its members share.

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::number::{Epoch, ReplicaId, View};

/// The most members that a cluster may have.
pub const MEMBERS_MAX: usize = 9;

/// What decides a replicated effect. Set when the disks are formatted, compared on every connection,
/// never a replica's own configuration: two replicas that evict at different sizes diverge (DESIGN 5.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constants {
    /// Ops after the commit number that may be in flight. Default 32. More hides latency and makes
    /// view changes heavier.
    pub pipeline_max: u32,
    /// Requests of one session that may be in flight. Default 1024.
    pub window: u32,
    /// Sessions kept. Default 10,000. Over it the longest unused one is evicted.
    pub sessions_max: u32,
    /// Ops for which a session must be idle before it may be evicted. Default 1,000.
    pub session_idle_min: u64,
    /// The longest command, in bytes. Default 256 KiB.
    pub request_max: u32,
    /// The longest reply, in bytes; a longer one becomes a typed error, executed. Default 256 KiB.
    pub reply_max: u32,
    /// Reply bytes kept for one session. Default 1 MiB.
    pub session_replies_max: u32,
    /// Reply bytes kept for all sessions. Default 64 MiB.
    pub table_replies_max: u64,
    /// Requests in one op. Default 4,096.
    pub batch_requests_max: u32,
    /// Bytes in the body of one op. Default 1 MiB; not less than one longest command.
    pub batch_bytes_max: u32,
}

impl Default for Constants {
    fn default() -> Constants {
        Constants {
            pipeline_max: 32,
            window: 1024,
            sessions_max: 10_000,
            session_idle_min: 1_000,
            request_max: 256 << 10,
            reply_max: 256 << 10,
            session_replies_max: 1 << 20,
            table_replies_max: 64 << 20,
            batch_requests_max: 4096,
            batch_bytes_max: 1 << 20,
        }
    }
}

/// How many members must agree. Two replicated facts are safe when the sets that hold them meet:
/// replication + view change > n, view change > n/2, nack + replication > n (DESIGN 7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorums {
    /// Durable copies that commit an op.
    pub replication: u8,
    /// Votes that leave a view, and `DoViewChange`s that begin one.
    pub view_change: u8,
    /// Members that never acknowledged an op, after which it cannot have been committed.
    pub nack: u8,
}

impl Quorums {
    /// The defaults of DESIGN 7.8: replication is the smaller half of an even cluster.
    #[must_use]
    pub fn of(n: usize) -> Quorums {
        let n = n as u8;
        let replication = if n <= 2 { n } else { n.div_ceil(2) };
        let view_change = if n == 2 { 2 } else { n - replication + 1 };
        Quorums { replication, view_change, nack: n - replication + 1 }
    }
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub id: ReplicaId,
    /// Where the transport finds it; a hint, never who counts (DESIGN 10.5).
    pub address: String,
}

/// The membership record: who counts, in which order, under which constants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The generation.
    pub epoch: Epoch,
    /// The voting members in the order that decides whose turn it is to be primary.
    pub members: Vec<Member>,
    /// How many must agree.
    pub quorums: Quorums,
    /// What all share.
    pub constants: Constants,
}

/// Why a membership is refused. The operator has to change the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// No member, or more than [`MEMBERS_MAX`].
    #[error("a cluster has 1 to {MEMBERS_MAX} members, not {0}: list each replica once")]
    Size(usize),
    /// An id stands twice.
    #[error("replica {0} is listed twice: give each member an id of its own")]
    Duplicate(ReplicaId),
    /// Quorums that do not meet.
    #[error(
        "quorums of {replication} (replication), {view_change} (view change) and {nack} (nack) of {n} members do not \
         meet: replication + view change must exceed {n}, view change must exceed {n}/2, nack + replication must \
         exceed {n}, and none may exceed {n}"
    )]
    Quorums {
        /// Members.
        n: u8,
        /// As given.
        replication: u8,
        /// As given.
        view_change: u8,
        /// As given.
        nack: u8,
    },
    /// A constant out of its range.
    #[error("{name} = {value} is out of range: {why}")]
    Constant {
        /// The field of [`Constants`].
        name: &'static str,
        /// As given.
        value: u64,
        /// The range, and the reason for it.
        why: &'static str,
    },
}

impl Membership {
    /// The first membership of a cluster, with ids in the order of the addresses.
    ///
    /// # Errors
    /// A [`MembershipError`] that says what to change.
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Membership, MembershipError> {
        let members: Vec<Member> = addresses
            .into_iter()
            .enumerate()
            .map(|(id, address)| Member { id: ReplicaId(u8::try_from(id).unwrap_or(u8::MAX)), address: address.into() })
            .collect();
        let n = members.len();
        if n == 0 || n > MEMBERS_MAX {
            return Err(MembershipError::Size(n));
        }
        let membership =
            Membership { epoch: Epoch(0), quorums: Quorums::of(n), members, constants: Constants::default() };
        membership.validate()?;
        Ok(membership)
    }

    /// Checks every rule that the protocol relies on.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn validate(&self) -> Result<(), MembershipError> {
        let n = self.members.len();
        if n == 0 || n > MEMBERS_MAX {
            return Err(MembershipError::Size(n));
        }
        for (at, member) in self.members.iter().enumerate() {
            if self.members[..at].iter().any(|other| other.id == member.id) {
                return Err(MembershipError::Duplicate(member.id));
            }
        }
        let (n, Quorums { replication, view_change, nack }) = (n as u8, self.quorums);
        let in_range = [replication, view_change, nack].iter().all(|&quorum| (1..=n).contains(&quorum));
        let meet = u16::from(replication) + u16::from(view_change) > u16::from(n)
            && u16::from(view_change) * 2 > u16::from(n)
            && u16::from(nack) + u16::from(replication) > u16::from(n);
        if !in_range || !meet {
            return Err(MembershipError::Quorums { n, replication, view_change, nack });
        }
        let c = &self.constants;
        let ranges: [(&'static str, u64, u64, u64, &'static str); 8] = [
            ("pipeline_max", c.pipeline_max.into(), 1, 1024, "1 to 1024: a DoViewChange carries that many headers"),
            ("window", c.window.into(), 1, 1 << 16, "1 to 65536: each session keeps a mark for each number in it"),
            ("sessions_max", c.sessions_max.into(), 1, 1 << 24, "1 to 16777216: the table is kept in memory"),
            ("request_max", c.request_max.into(), 1, 64 << 20, "1 byte to 64 MiB: a request travels in one message"),
            ("reply_max", c.reply_max.into(), 64, 64 << 20, "64 bytes to 64 MiB: a reply travels in one message"),
            ("batch_requests_max", c.batch_requests_max.into(), 1, 1 << 20, "1 to 1048576"),
            (
                "session_replies_max",
                c.session_replies_max.into(),
                u64::from(c.reply_max),
                1 << 30,
                "at least reply_max and at most 1 GiB: a session keeps at least one reply",
            ),
            (
                "batch_bytes_max",
                c.batch_bytes_max.into(),
                u64::from(c.request_max) + 64,
                128 << 20,
                "at least request_max + 64 and at most 128 MiB: one longest command must fit into an op",
            ),
        ];
        for (name, value, min, max, why) in ranges {
            if !(min..=max).contains(&value) {
                return Err(MembershipError::Constant { name, value, why });
            }
        }
        Ok(())
    }

    /// The number of voting members.
    #[must_use]
    pub fn n(&self) -> usize {
        self.members.len()
    }

    /// The primary of a view: member `number mod n` (VRR section 4).
    #[must_use]
    pub fn primary(&self, view: View) -> ReplicaId {
        self.members[(view.number % self.members.len() as u64) as usize].id
    }

    /// The place of a member in the order; `None` for a stranger.
    #[must_use]
    pub fn index_of(&self, id: ReplicaId) -> Option<usize> {
        self.members.iter().position(|member| member.id == id)
    }

    /// One number for the whole record, compared on every connection.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        let mut bytes = Vec::new();
        bytes.extend(self.epoch.0.to_le_bytes());
        for member in &self.members {
            bytes.push(member.id.0);
        }
        bytes.extend([0xff, self.quorums.replication, self.quorums.view_change, self.quorums.nack]);
        let c = &self.constants;
        for value in [
            u64::from(c.pipeline_max),
            u64::from(c.window),
            u64::from(c.sessions_max),
            c.session_idle_min,
            u64::from(c.request_max),
            u64::from(c.reply_max),
            u64::from(c.session_replies_max),
            c.table_replies_max,
            u64::from(c.batch_requests_max),
            u64::from(c.batch_bytes_max),
        ] {
            bytes.extend(value.to_le_bytes());
        }
        Checksum::of(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_quorums_are_the_table_of_the_design() {
        let table = [(1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 3, 3), (3, 3, 3), (3, 4, 4), (4, 4, 4), (4, 5, 5), (5, 5, 5)];
        for (n, (replication, view_change, nack)) in (1..).zip(table) {
            assert_eq!(Quorums::of(n), Quorums { replication, view_change, nack }, "n = {n}");
        }
    }

    /// HAZARDS VC-20, D26; SCHEDULES F15.
    #[test]
    fn vc_20_quorums_that_do_not_meet_are_refused() {
        let addresses = |n: usize| (0..n).map(|i| format!("127.0.0.1:{i}"));
        assert_eq!(Membership::new(addresses(0)), Err(MembershipError::Size(0)));
        assert_eq!(Membership::new(addresses(10)), Err(MembershipError::Size(10)));
        let four = Membership::new(addresses(4)).unwrap();
        for (replication, view_change, nack) in [(2, 2, 3), (3, 2, 2), (4, 1, 1), (2, 3, 2), (0, 4, 4), (5, 3, 3)] {
            let mut bad = four.clone();
            bad.quorums = Quorums { replication, view_change, nack };
            assert!(matches!(bad.validate(), Err(MembershipError::Quorums { .. })), "{:?}", bad.quorums);
        }
        let mut twice = four;
        twice.members[2].id = ReplicaId(1);
        assert_eq!(twice.validate(), Err(MembershipError::Duplicate(ReplicaId(1))));
    }
}
