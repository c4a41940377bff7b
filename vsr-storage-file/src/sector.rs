//! Stamped sectors: the unit that a disk writes whole or not at all.
//!
//! Each sector says which write it belongs to, which part of it it is and how many parts there are, and
//! carries a checksum over all that, its own position and the disk's salt. So after a crash a sector is
//! *blank or old* (valid, of an earlier write), *new* (valid, of this one), or *rotten* (it fits no write
//! at this place: damaged, or meant for another place or another disk). A mix of valid old and valid new
//! sectors is a torn write; a rotten one is rot (rule 4.2).

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a sector. Disks promise to write that much atomically.
pub(crate) const SECTOR: usize = 512;

/// Bytes of a sector that carry content.
pub(crate) const PAYLOAD: usize = SECTOR - 24;

/// What stands at the end of each sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which write; 0 for a sector that was only prepared.
    pub(crate) write: u64,
    /// Which sector of the write.
    pub(crate) index: u32,
    /// How many sectors the write has.
    pub(crate) count: u32,
}

/// What a sector turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    Valid(Stamp),
    Rotten,
}

impl Stamp {
    pub(crate) const BLANK: Stamp = Stamp { write: 0, index: 0, count: 0 };
}

/// The sectors that a payload fills.
pub(crate) fn sectors_for(bytes: usize) -> usize {
    bytes.div_ceil(PAYLOAD)
}

fn checksum(salt: u64, position: u64, sector: &[u8]) -> u64 {
    xxh3_64_with_seed(&sector[..SECTOR - 8], salt.wrapping_add(position))
}

/// Stamps a sector whose payload is in place.
pub(crate) fn seal(salt: u64, position: u64, stamp: Stamp, sector: &mut [u8]) {
    sector[PAYLOAD..PAYLOAD + 8].copy_from_slice(&stamp.write.to_le_bytes());
    sector[PAYLOAD + 8..PAYLOAD + 12].copy_from_slice(&stamp.index.to_le_bytes());
    sector[PAYLOAD + 12..PAYLOAD + 16].copy_from_slice(&stamp.count.to_le_bytes());
    let checksum = checksum(salt, position, sector);
    sector[SECTOR - 8..].copy_from_slice(&checksum.to_le_bytes());
}

/// Judges a sector that was read from `position`.
pub(crate) fn judge(salt: u64, position: u64, sector: &[u8]) -> Sector {
    if checksum(salt, position, sector).to_le_bytes() != sector[SECTOR - 8..] {
        return Sector::Rotten;
    }
    let u32_at = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().unwrap_or_default());
    let write = u64::from_le_bytes(sector[PAYLOAD..PAYLOAD + 8].try_into().unwrap_or_default());
    Sector::Valid(Stamp { write, index: u32_at(PAYLOAD + 8), count: u32_at(PAYLOAD + 12) })
}

/// Spreads a payload, given in pieces, over stamped sectors that begin at `position`.
pub(crate) fn spread<'a>(
    salt: u64,
    position: u64,
    write: u64,
    pieces: impl Iterator<Item = &'a [u8]> + Clone,
) -> Vec<u8> {
    let bytes = pieces.clone().map(<[u8]>::len).sum();
    let mut out = Vec::with_capacity(sectors_for(bytes) * SECTOR);
    for piece in pieces {
        let mut rest = piece;
        while !rest.is_empty() {
            let at = out.len() % SECTOR;
            let take = rest.len().min(PAYLOAD - at);
            out.extend_from_slice(&rest[..take]);
            if at + take == PAYLOAD {
                out.resize(out.len() + SECTOR - PAYLOAD, 0);
            }
            rest = &rest[take..];
        }
    }
    out.resize(out.len().next_multiple_of(SECTOR), 0);
    let count = (out.len() / SECTOR) as u32;
    for (index, sector) in out.chunks_exact_mut(SECTOR).enumerate() {
        seal(salt, position + index as u64, Stamp { write, index: index as u32, count }, sector);
    }
    out
}

/// Blank sectors, valid at their places.
pub(crate) fn blank(salt: u64, position: u64, sectors: usize) -> Vec<u8> {
    let mut out = vec![0; sectors * SECTOR];
    for (index, sector) in out.chunks_exact_mut(SECTOR).enumerate() {
        seal(salt, position + index as u64, Stamp::BLANK, sector);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_is_valid_at_its_own_place_of_its_own_disk_only() {
        let bytes = spread(7, 40, 3, [&[1_u8; 1000][..], &[2; 500]].into_iter());
        assert_eq!(bytes.len(), 4 * SECTOR);
        for (index, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            let position = 40 + index as u64;
            let stamp = Stamp { write: 3, index: index as u32, count: 4 };
            assert_eq!(judge(7, position, sector), Sector::Valid(stamp));
            assert_eq!(judge(7, position + 1, sector), Sector::Rotten);
            assert_eq!(judge(8, position, sector), Sector::Rotten);
        }
        for bit in 0..SECTOR * 8 {
            let mut damaged = bytes[..SECTOR].to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(judge(7, 40, &damaged), Sector::Rotten);
        }
        assert_eq!(judge(7, 40, &[0; SECTOR]), Sector::Rotten);
    }
}
