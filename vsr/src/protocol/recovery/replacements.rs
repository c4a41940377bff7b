//! Which disks have taken the place of lost ones, and what a replica keeps of those that want to (rule 7.19).
//!
//! Invariant: of two ops that put disks in the place of one, the later decides.

use crate::protocol::types::entry::Replacement;
use crate::protocol::types::number::{BatchNumber, CommitNumber, DiskId, OpNumber, ReplicaId, View};

/// Which disks have taken the place of lost ones, and by which op each. In ascending order of the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replacements(Vec<(ReplicaId, DiskId, OpNumber)>);

impl Replacements {
    pub(super) fn note(&mut self, op: OpNumber, Replacement { replica, disk_id }: Replacement) {
        match self.0.binary_search_by_key(&replica, |(id, ..)| *id) {
            Ok(at) => self.0[at] = (replica, disk_id, op),
            Err(at) => self.0.insert(at, (replica, disk_id, op)),
        }
    }

    pub(super) fn all(&self) -> Vec<(ReplicaId, DiskId, OpNumber)> {
        self.0.clone()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let entry = |(replica, disk_id, op): &(ReplicaId, DiskId, OpNumber)| {
            let mut out = vec![replica.0];
            out.extend(disk_id.0.to_le_bytes());
            out.extend(op.0.to_le_bytes());
            out
        };
        self.0.iter().flat_map(entry).collect()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Replacements> {
        let (entries, rest) = bytes.as_chunks::<25>();
        let entry = |bytes: &[u8; 25]| {
            let (disk_id, op) = bytes[1..].split_at(16);
            let disk_id = DiskId(u128::from_le_bytes(disk_id.try_into().ok()?));
            Some((ReplicaId(bytes[0]), disk_id, OpNumber(u64::from_le_bytes(op.try_into().ok()?))))
        };
        let entries: Vec<_> = entries.iter().map(entry).collect::<Option<_>>()?;
        (rest.is_empty() && entries.is_sorted_by_key(|(id, ..)| *id)).then_some(Replacements(entries))
    }
}

/// What a replica keeps of disks that take the place of lost ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rejoin {
    pub(crate) replacements: Replacements,
    /// The highest view that was heard of.
    pub(crate) highest_view: View,
    /// What was known to be committed when nothing else was missing: once that is on this disk, it counts.
    pub(super) whole_at: Option<CommitNumber>,
    /// All ops up to this one were found on this disk.
    pub(super) stored: OpNumber,
    /// This disk counts once this batch is durable.
    pub(super) counts_from: Option<BatchNumber>,
    /// Members for which this primary has an op in its log that is not applied yet.
    pub(crate) prepared: Vec<(ReplicaId, OpNumber)>,
}

impl Rejoin {
    pub(crate) fn at(view: View) -> Rejoin {
        Rejoin { highest_view: view, ..Rejoin::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two claims the later one decides, and a checkpoint gives back what was put into it; nothing else passes for it.
    #[test]
    fn replacements_come_back_and_the_later_decides() {
        let mut replacements = Replacements::default();
        for (op, replica, disk) in [(3, 2, 7), (5, 0, 8), (9, 2, 9)] {
            replacements.note(OpNumber(op), Replacement { replica: ReplicaId(replica), disk_id: DiskId(disk) });
        }
        assert_eq!(
            replacements.all(),
            [(ReplicaId(0), DiskId(8), OpNumber(5)), (ReplicaId(2), DiskId(9), OpNumber(9))]
        );
        let bytes = replacements.encode();
        assert_eq!(Replacements::decode(&bytes), Some(replacements));
        assert_eq!(Replacements::decode(&bytes[1..]), None, "cut off");
        let swapped = [&bytes[25..], &bytes[..25]].concat();
        assert_eq!(Replacements::decode(&swapped), None, "out of order");
        assert_eq!(Replacements::decode(&[]), Some(Replacements::default()));
    }

    #[test]
    fn the_body_of_a_replacement_comes_back() {
        let replacement = Replacement { replica: ReplicaId(3), disk_id: DiskId(u128::MAX - 5) };
        let body = replacement.encode();
        assert_eq!((body.len(), Replacement::decode(&body)), (Replacement::LEN, Some(replacement)));
        assert_eq!(Replacement::decode(&body[1..]), None);
        assert_eq!(Replacement::decode(b""), None);
    }
}
