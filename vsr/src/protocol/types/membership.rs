//! Who belongs to the cluster, and the constants that all its members share.

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::limits::{
    BATCH_BYTES_MAX, BATCH_REQUESTS_MAX, CHECKPOINT_BYTES, CHECKPOINT_OPS, Limit, PIPELINE_MAX, REPLY_MAX, REQUEST_MAX,
    SESSION_IDLE_MIN, SESSION_REPLIES_MAX, SESSIONS_MAX, TABLE_REPLIES_MAX, WINDOW, disk_bytes,
};
use super::number::{Epoch, ReplicaId, View};
use super::quorum::{MEMBERS_MAX, Quorums};

/// What a request adds to its command in the body of an op, at most.
const REQUEST_OVERHEAD: u64 = 64;

/// What decides a replicated effect. Set when the disks are formatted, compared on every connection,
/// never a replica's own configuration: two replicas that evict at different sizes diverge (rule 5.4).
///
/// Made by `Constants::default()`, and changed field by field, or by [`with`](Constants::with); later versions have more fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Constants {
    /// Ops after the commit number that may be in flight. Default 32. More hides latency and makes
    /// view changes heavier.
    pub pipeline_max: u32,
    /// Requests of one session that may be in flight. Default 1024.
    pub window: u32,
    /// Sessions kept. Default 10,000. Over it the longest unused one is evicted.
    pub sessions_max: u32,
    /// Ops for which a session must be idle before it may be evicted. Default 1,000; at least 1.
    pub session_idle_min: u64,
    /// The longest command, in bytes. Default 256 KiB.
    pub request_max: u32,
    /// The longest reply, in bytes; a longer one becomes a typed error, executed. Default 256 KiB.
    pub reply_max: u32,
    /// Reply bytes kept for one session. Default 1 MiB.
    pub session_replies_max: u32,
    /// Reply bytes kept for all sessions. Default 64 MiB; not less than one longest reply.
    pub table_replies_max: u64,
    /// Requests in one op. Default 4,096.
    pub batch_requests_max: u32,
    /// Bytes in the body of one op. Default 1 MiB; not less than one longest command.
    pub batch_bytes_max: u32,
    /// Ops after which a checkpoint is due. Default 1,000,000. 0: there are none, a start applies the whole log, and nothing is dropped from it.
    pub checkpoint_ops: u64,
    /// Bytes of ops (their bodies, and 512 for each) after which a checkpoint is due, if the ops are fewer. Default 256 MiB.
    pub checkpoint_bytes: u64,
}

impl Default for Constants {
    fn default() -> Constants {
        Constants {
            pipeline_max: PIPELINE_MAX.default as u32,
            window: WINDOW.default as u32,
            sessions_max: SESSIONS_MAX.default as u32,
            session_idle_min: SESSION_IDLE_MIN.default,
            request_max: REQUEST_MAX.default as u32,
            reply_max: REPLY_MAX.default as u32,
            session_replies_max: SESSION_REPLIES_MAX.default as u32,
            table_replies_max: TABLE_REPLIES_MAX.default,
            batch_requests_max: BATCH_REQUESTS_MAX.default as u32,
            batch_bytes_max: BATCH_BYTES_MAX.default as u32,
            checkpoint_ops: CHECKPOINT_OPS.default,
            checkpoint_bytes: CHECKPOINT_BYTES.default,
        }
    }
}

impl Constants {
    /// These constants with a change: `Constants::default().with(|constants| constants.window = 64)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Constants)) -> Constants {
        change(&mut self);
        self
    }

    /// Bytes that a storage needs for a log in which anything at all can be done: what is kept back for what a
    /// later primary inherits, and some ops. With less every request is answered `LogFull`, so formatting refuses it.
    #[must_use]
    pub fn log_room_min(&self) -> u64 {
        8 * disk_bytes(self.batch_bytes_max.into())
    }

    /// Holds each to its range, and all to each other.
    fn validate(&self) -> Result<(), MembershipError> {
        let ranges: [(Limit, u64); 12] = [
            (PIPELINE_MAX, self.pipeline_max.into()),
            (WINDOW, self.window.into()),
            (SESSIONS_MAX, self.sessions_max.into()),
            (SESSION_IDLE_MIN, self.session_idle_min),
            (REQUEST_MAX, self.request_max.into()),
            (REPLY_MAX, self.reply_max.into()),
            (SESSION_REPLIES_MAX, self.session_replies_max.into()),
            (TABLE_REPLIES_MAX, self.table_replies_max),
            (BATCH_REQUESTS_MAX, self.batch_requests_max.into()),
            (BATCH_BYTES_MAX, self.batch_bytes_max.into()),
            (CHECKPOINT_OPS, self.checkpoint_ops),
            (CHECKPOINT_BYTES, self.checkpoint_bytes),
        ];
        for (limit, value) in ranges {
            if !limit.holds(value) {
                let Limit { field: name, min, max, why, .. } = limit;
                return Err(MembershipError::Constant { name, value, min, max, why });
            }
        }
        // What has to hold another: field, its value, the other, its value, and the least that holds it.
        let pairs = [
            (
                ("batch_bytes_max", u64::from(self.batch_bytes_max)),
                ("request_max", u64::from(self.request_max)),
                u64::from(self.request_max) + REQUEST_OVERHEAD,
            ),
            (
                ("session_replies_max", u64::from(self.session_replies_max)),
                ("reply_max", u64::from(self.reply_max)),
                u64::from(self.reply_max),
            ),
            (
                ("table_replies_max", self.table_replies_max),
                ("reply_max", u64::from(self.reply_max)),
                u64::from(self.reply_max),
            ),
        ];
        for ((name, value), (other, other_value), least) in pairs {
            if value < least {
                return Err(MembershipError::Misfit { name, value, other, other_value, least });
            }
        }
        Ok(())
    }
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Its id, unique in the cluster.
    pub id: ReplicaId,
    /// The address at which the transport looks for it. A hint: who counts is decided by the id (rule 10.5).
    pub address: String,
}

/// The membership record: who counts, in which order, under which constants. Made by [`Membership::new`], and changed field by
/// field; later versions have more fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Membership {
    /// The generation of the membership; always 0 until memberships can change.
    pub epoch: Epoch,
    /// The voting members in the order that decides whose turn it is to be primary.
    pub members: Vec<Member>,
    /// The sizes of the quorums.
    pub quorums: Quorums,
    /// The limits that all members share.
    pub constants: Constants,
}

/// Why a membership is refused. The operator has to change the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// No member, or more than [`MEMBERS_MAX`].
    #[error("a cluster has 1 to {MEMBERS_MAX} members, not {0}: list each replica once")]
    Size(usize),
    /// Two members have the same id.
    #[error("replica {0} is listed twice: give each member an id of its own")]
    Duplicate(ReplicaId),
    /// Quorums that do not meet.
    #[error(
        "quorums of {replication} (replication), {view_change} (view change) and {nack} (nack) of {n} members do not \
         meet: replication + view change must exceed {n}, view change must exceed {n}/2, nack + replication must \
         exceed {n}, and none may exceed {n}"
    )]
    Quorums {
        /// The number of members.
        n: u8,
        /// The configured size of a replication quorum.
        replication: u8,
        /// The configured size of a view-change quorum.
        view_change: u8,
        /// The configured size of a nack quorum.
        nack: u8,
    },
    /// Two members with one address: each would be taken for the other.
    #[error("replicas {first} and {second} have the same address, {address:?}: give each member its own")]
    SameAddress {
        /// The earlier one in the list of members.
        first: ReplicaId,
        /// The later one in the list of members.
        second: ReplicaId,
        /// The address that both have.
        address: String,
    },
    /// The address of a member is empty.
    #[error("replica {0} has no address: write where the others reach it")]
    NoAddress(ReplicaId),
    /// A constant out of its range.
    #[error("{name} = {value} is out of range, {min} to {max}: {why}")]
    Constant {
        /// The field of [`Constants`].
        name: &'static str,
        /// The configured value, in the unit of the field.
        value: u64,
        /// The lowest value that is allowed.
        min: u64,
        /// The highest value that is allowed.
        max: u64,
        /// The reason for the range.
        why: &'static str,
    },
    /// Two constants that do not fit together.
    #[error(
        "{name} = {value} cannot hold one of {other} = {other_value}: raise {name} to {least} at least, or lower \
         {other}"
    )]
    Misfit {
        /// The field of [`Constants`] that is too small.
        name: &'static str,
        /// Its configured value, in bytes.
        value: u64,
        /// The field that it has to hold.
        other: &'static str,
        /// The configured value of that field, in bytes.
        other_value: u64,
        /// The lowest value of `name` that holds it, in bytes.
        least: u64,
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
            let before = &self.members[..at];
            if before.iter().any(|other| other.id == member.id) {
                return Err(MembershipError::Duplicate(member.id));
            }
            if member.address.is_empty() {
                return Err(MembershipError::NoAddress(member.id));
            }
            if let Some(other) = before.iter().find(|other| other.address == member.address) {
                let (first, second, address) = (other.id, member.id, member.address.clone());
                return Err(MembershipError::SameAddress { first, second, address });
            }
        }
        let (n, Quorums { replication, view_change, nack }) = (n as u8, self.quorums);
        if !self.quorums.intersect(n) {
            return Err(MembershipError::Quorums { n, replication, view_change, nack });
        }
        self.constants.validate()
    }

    /// The number of voting members.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Whether a lost disk can be replaced: the others are a replication quorum, and can move to another view, without it (rule 7.19).
    #[must_use]
    pub fn can_replace(&self) -> bool {
        self.size() > usize::from(self.quorums.replication.max(self.quorums.view_change))
    }

    /// The primary of a view: member `number mod n` (VRR section 4).
    ///
    /// # Panics
    /// Without members, which [`validate`](Self::validate) refuses.
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
            c.checkpoint_ops,
            c.checkpoint_bytes,
        ] {
            bytes.extend(value.to_le_bytes());
        }
        Checksum::of(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazards VC-20, D26; schedule F15.
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

    /// Members that cannot be told apart, or found.
    #[test]
    fn addresses_that_cannot_be_meant_are_refused() {
        let (first, second) = (ReplicaId(0), ReplicaId(2));
        let same = MembershipError::SameAddress { first, second, address: "a:1".to_owned() };
        assert_eq!(Membership::new(["a:1", "b:1", "a:1"]), Err(same));
        assert_eq!(Membership::new(["a:1", "", "c:1"]), Err(MembershipError::NoAddress(ReplicaId(1))));
        assert_eq!(Membership::new((0..300).map(|at| format!("{at}"))), Err(MembershipError::Size(300)));
    }

    /// VRR section 4: the role goes round in the order of the list, whatever the ids are.
    #[test]
    fn the_primary_of_a_view_is_the_member_at_its_number_modulo_n() {
        let mut membership = Membership::new(["a", "b", "c"]).unwrap();
        for (member, id) in membership.members.iter_mut().zip([7, 2, 5]) {
            member.id = ReplicaId(id);
        }
        let primaries = [0, 1, 2, 3, u64::MAX].map(|number| membership.primary(View { number, ..View::default() }).0);
        assert_eq!(primaries, [7, 2, 5, 7, 7], "the largest number is divisible by 3");
        assert_eq!([7, 2, 5, 0].map(|id| membership.index_of(ReplicaId(id))), [Some(0), Some(1), Some(2), None]);
    }

    type Change = fn(&mut Membership);

    /// Rules 5.4, 10.5: two replicas that count or refuse differently do not connect; where a member lives is not compared.
    #[test]
    fn the_checksum_covers_members_quorums_and_constants_and_no_address() {
        let membership = Membership::new(["a", "b", "c"]).unwrap();
        let changes: [Change; 17] = [
            |_| {},
            |m| m.epoch = Epoch(1),
            |m| m.members[2].id = ReplicaId(9),
            |m| m.members.swap(0, 1),
            |m| m.quorums.replication += 1,
            |m| m.quorums.view_change += 1,
            |m| m.quorums.nack += 1,
            |m| m.constants.pipeline_max += 1,
            |m| m.constants.window += 1,
            |m| m.constants.sessions_max += 1,
            |m| m.constants.session_idle_min += 1,
            |m| (m.constants.request_max, m.constants.reply_max) = (1, 2),
            |m| (m.constants.request_max, m.constants.reply_max) = (2, 1),
            |m| m.constants.session_replies_max += 1,
            |m| m.constants.table_replies_max += 1,
            |m| (m.constants.batch_requests_max, m.constants.batch_bytes_max) = (1, 2),
            |m| (m.constants.checkpoint_ops, m.constants.checkpoint_bytes) = (1, 2),
        ];
        let mut checksums: Vec<Checksum> = Vec::new();
        for change in changes {
            let mut changed = membership.clone();
            change(&mut changed);
            assert!(!checksums.contains(&changed.checksum()), "{changed:?}");
            checksums.push(changed.checksum());
        }
        let mut moved = membership.clone();
        moved.members[1].address = "elsewhere".to_owned();
        assert_eq!(moved.checksum(), membership.checksum());
    }

    type Set = fn(&mut Constants, u64);

    /// Each constant at its least and at its most, one beyond on either side, and with what has to hold it.
    #[test]
    fn every_constant_is_held_to_its_range_and_to_the_others() {
        let sets: [(Limit, Set); 12] = [
            (PIPELINE_MAX, |c, n| c.pipeline_max = n as u32),
            (WINDOW, |c, n| c.window = n as u32),
            (SESSIONS_MAX, |c, n| c.sessions_max = n as u32),
            (SESSION_IDLE_MIN, |c, n| c.session_idle_min = n),
            (REQUEST_MAX, |c, n| (c.request_max, c.batch_bytes_max) = (n as u32, n as u32 + 128)),
            (REPLY_MAX, |c, n| (c.reply_max, c.session_replies_max) = (n as u32, n.max(64) as u32)),
            (SESSION_REPLIES_MAX, |c, n| (c.session_replies_max, c.reply_max) = (n as u32, 64)),
            (TABLE_REPLIES_MAX, |c, n| (c.table_replies_max, c.reply_max) = (n, 64)),
            (BATCH_REQUESTS_MAX, |c, n| c.batch_requests_max = n as u32),
            (BATCH_BYTES_MAX, |c, n| (c.batch_bytes_max, c.request_max) = (n as u32, 1)),
            (CHECKPOINT_OPS, |c, n| c.checkpoint_ops = n),
            (CHECKPOINT_BYTES, |c, n| c.checkpoint_bytes = n),
        ];
        for (limit, set) in sets {
            let with = |value: u64| {
                let mut membership = Membership::new(["a"]).unwrap();
                set(&mut membership.constants, value);
                membership.validate()
            };
            assert_eq!((with(limit.min), with(limit.max)), (Ok(()), Ok(())), "{limit:?}");
            for value in limit.min.checked_sub(1).into_iter().chain([limit.max + 1]) {
                let words = with(value).unwrap_err().to_string();
                assert!(words.contains(&format!("{} = {value} is out of range", limit.field)), "{words}");
            }
        }
        let mut membership = Membership::new(["a"]).unwrap();
        membership.constants.request_max = 2 << 20;
        let words = membership.validate().unwrap_err().to_string();
        for part in ["batch_bytes_max = 1048576", "request_max = 2097152", "raise batch_bytes_max to 2097216"] {
            assert!(words.contains(part), "{words}");
        }
        membership.constants.batch_bytes_max = 2_097_216;
        assert_eq!(membership.validate(), Ok(()));
        membership.constants.reply_max = 2 << 20;
        let words = membership.validate().unwrap_err().to_string();
        assert!(words.contains("session_replies_max = 1048576") && words.contains("reply_max = 2097152"), "{words}");
        (membership.constants.session_replies_max, membership.constants.table_replies_max) = (2 << 20, 1 << 20);
        let words = membership.validate().unwrap_err().to_string();
        assert!(words.contains("table_replies_max = 1048576") && words.contains("reply_max = 2097152"), "{words}");
        membership.constants.table_replies_max = 2 << 20;
        assert_eq!(membership.validate(), Ok(()));
    }
}
