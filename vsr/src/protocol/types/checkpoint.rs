//! Checkpoints: what names one, and how its bytes are listed (rule 9.1).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::number::OpNumber;

/// What names a checkpoint: the op after which it was taken, and the checksum of its manifest, which names every byte of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointId {
    /// The last op that it contains.
    pub op: OpNumber,
    /// The checksum of the encoded [`Manifest`].
    pub manifest: Checksum,
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op {} ({})", self.op, self.manifest)
    }
}

/// The most bytes in one chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The most chunks of a checkpoint: 512 GiB in all. The list of them travels in one message.
const CHUNKS_MAX: usize = 1 << 19;

/// A piece of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The checksum of its bytes.
    pub checksum: Checksum,
    /// The number of its bytes: 1 to [`CHUNK_BYTES_MAX`].
    pub len: u32,
}

/// The list of the chunks of a checkpoint, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The last op that the checkpoint contains.
    pub op: OpNumber,
    /// Its chunks.
    pub chunks: Vec<Chunk>,
}

const MAGIC: &[u8; 8] = b"vsr ckpt";
const VERSION: u32 = 1;
const HEAD: usize = 8 + 4 + 8 + 4;
const CHUNK: usize = 16 + 4;

impl Manifest {
    /// The bytes of the whole checkpoint.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.len)).sum()
    }

    /// The fixed layout, little endian: magic, version, op, number of chunks, and of each its checksum and its length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.chunks.len() * CHUNK);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.op.0.to_le_bytes());
        out.extend((self.chunks.len() as u32).to_le_bytes());
        for chunk in &self.chunks {
            out.extend(chunk.checksum.0.to_le_bytes());
            out.extend(chunk.len.to_le_bytes());
        }
        out
    }

    /// Reads what [`encode`](Self::encode) has written. `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Manifest> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let op = OpNumber(u64::from_le_bytes(head.get(12..20)?.try_into().ok()?));
        let count = u32_at(20)? as usize;
        if &head[..8] != MAGIC || u32_at(8)? != VERSION || count > CHUNKS_MAX || rest.len() != count * CHUNK {
            return None;
        }
        let chunk = |bytes: &[u8]| {
            let checksum = Checksum(u128::from_le_bytes(bytes[..16].try_into().ok()?));
            let len = u32::from_le_bytes(bytes[16..].try_into().ok()?);
            (1..=CHUNK_BYTES_MAX as u32).contains(&len).then_some(Chunk { checksum, len })
        };
        let chunks = rest.chunks_exact(CHUNK).map(chunk).collect::<Option<Vec<Chunk>>>()?;
        Some(Manifest { op, chunks })
    }

    /// What names the checkpoint that this is the list of.
    #[must_use]
    pub fn id(&self) -> CheckpointId {
        CheckpointId { op: self.op, manifest: Checksum::of(&self.encode()) }
    }
}

/// A state machine's digest after an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDigest {
    /// The last op that was applied.
    pub op: OpNumber,
    /// The digest that the state machine gave.
    pub digest: Checksum,
}

/// What a member has of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The last op that it has dropped from its log; 0 while the log begins with op 1.
    pub base: OpNumber,
    /// Checkpoints that it has, whole and durable, in ascending order of their ops.
    pub checkpoints: Vec<CheckpointId>,
    /// Whether it can go on from what it has itself: it needs no checkpoint of another member.
    pub is_whole: bool,
}

impl Past {
    /// The op of its newest checkpoint; 0 for none.
    #[must_use]
    pub fn newest(&self) -> OpNumber {
        self.checkpoints.last().map_or(OpNumber::ZERO, |newest| newest.op)
    }

    /// Whether every number is below this one, and there are no more checkpoints than a member has.
    pub(crate) fn is_plausible(&self, most: u64) -> bool {
        self.base.0 < most && self.checkpoints.len() <= 8 && self.checkpoints.iter().all(|id| id.op.0 < most)
    }
}

/// How much of the log a checkpoint would save from being applied again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) ops: u64,
    /// Bytes of the bodies of these ops, and [`OP_BYTES`] for each.
    pub(crate) bytes: u64,
}

/// Bytes that an op counts for beside its body: on a disk it takes a sector at least.
const OP_BYTES: u64 = 512;

impl Span {
    /// One more op.
    pub(crate) fn add(&mut self, body_len: u32) {
        self.ops += 1;
        self.bytes += u64::from(body_len) + OP_BYTES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(chunks: usize) -> Manifest {
        let chunk = |at: usize| Chunk { checksum: Checksum::of(&at.to_le_bytes()), len: 1 + at as u32 };
        Manifest { op: OpNumber(7), chunks: (0..chunks).map(chunk).collect() }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_nothing_else_is_one() {
        for chunks in [0, 1, 5] {
            let manifest = manifest(chunks);
            let bytes = manifest.encode();
            assert_eq!(Manifest::decode(&bytes).as_ref(), Some(&manifest));
            assert_eq!(manifest.id().op, OpNumber(7));
            for len in 0..bytes.len() {
                assert_eq!(Manifest::decode(&bytes[..len]), None, "cut at {len}");
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert_eq!(Manifest::decode(&longer), None);
        }
        let mut version = manifest(1).encode();
        version[8] = 9;
        assert_eq!(Manifest::decode(&version), None);
        for len in [0_u32, CHUNK_BYTES_MAX as u32 + 1] {
            let mut bytes = manifest(1).encode();
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&len.to_le_bytes());
            assert_eq!(Manifest::decode(&bytes), None, "a chunk of {len} bytes");
        }
    }

    /// Disk formats depend on it.
    #[test]
    fn the_name_of_a_checkpoint_is_pinned_by_a_golden_value() {
        assert_eq!(manifest(2).bytes(), 3);
        assert_eq!(manifest(2).id().manifest.0, GOLDEN);
    }

    const GOLDEN: u128 = 149_993_900_616_162_410_443_774_049_172_565_835_446;
}
