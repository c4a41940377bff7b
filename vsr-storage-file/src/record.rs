//! The layout of a record: what a batch of entries is in the log.
//!
//! Front: record header, headers of the entries. Then, if the record before is one sector, a copy of *its*
//! headers. Then the bodies. A record of several sectors ends with a second copy of its own headers, in
//! sectors that hold none of the first. So the headers of every record that has one behind it stand in two
//! sectors, and one that goes bad takes no more than the bodies in it.

use vsr::protocol::Header;

use crate::medium::PAGE_SECTORS;
use crate::sector::{PAYLOAD, sectors_for};

/// Bytes of a record header.
pub(crate) const RECORD: usize = 48;
const MAGIC: u32 = u32::from_le_bytes(*b"vsrL");

/// The number of a write is the generation of the state that it was written under, and a counter. So the
/// writes of two starts never have one number, and a number says which state has to be there.
pub(crate) const GENERATION: u32 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// The complete write before this one.
    pub(crate) previous: u64,
    /// The head of the log before the entries, truncation done.
    pub(crate) base: u64,
    pub(crate) head: u64,
    /// Sectors of the log that were durably prepared. Records lie below what an earlier one says.
    pub(crate) prepared: u64,
    /// The number of entries.
    pub(crate) count: u32,
    /// Bytes of the copy of the headers of the write before; 0 when these have two copies there.
    pub(crate) copied: u32,
}

impl RecordHeader {
    pub(crate) fn encode(&self) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&self.count.to_le_bytes());
        out[8..16].copy_from_slice(&self.previous.to_le_bytes());
        out[16..24].copy_from_slice(&self.base.to_le_bytes());
        out[24..32].copy_from_slice(&self.head.to_le_bytes());
        out[32..40].copy_from_slice(&self.prepared.to_le_bytes());
        out[40..44].copy_from_slice(&self.copied.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<RecordHeader> {
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        (u32_at(0)? == MAGIC).then_some(())?;
        Some(RecordHeader {
            previous: u64_at(8)?,
            base: u64_at(16)?,
            head: u64_at(24)?,
            prepared: u64_at(32)?,
            count: u32_at(4)?,
            copied: u32_at(40)?,
        })
    }

    /// Bytes of itself and the headers of its entries.
    pub(crate) fn own(&self) -> usize {
        own(self.count as usize)
    }
}

/// What a record begins with: its header, and those of its entries.
pub(crate) fn front<'a>(record: &RecordHeader, headers: impl Iterator<Item = &'a Header>) -> Vec<u8> {
    let mut front = Vec::with_capacity(record.own());
    front.extend_from_slice(&record.encode());
    headers.for_each(|header| front.extend_from_slice(&header.encode()));
    front
}

/// Bytes of the headers of a record of so many entries.
pub(crate) fn own(entries: usize) -> usize {
    RECORD + entries * Header::LEN
}

/// The sectors of a record. An op of up to 200 bytes is one, with a copy for the record before as well; one of up
/// to 544 is two. `apart`: what a lost record may have replaced is lost with it, so its headers are in two pages from the
/// beginning, and do not wait for the record behind it.
pub(crate) fn sectors_of(own: usize, copied: usize, bodies: usize, apart: bool) -> usize {
    let front = own + copied + bodies;
    let sectors = sectors_for(front + own).max(2 * sectors_for(own));
    match apart {
        // As far as a page is long: one that cannot be read has only one of them.
        true => sectors.max(2 * sectors_for(own) + PAGE_SECTORS as usize - 1),
        false if front <= PAYLOAD => 1,
        false => sectors,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One bad sector never takes both copies of a record's own headers.
    #[test]
    fn the_copies_of_the_headers_share_no_sector() {
        for entries in 0..40 {
            for copied in [0, own(1), own(3)] {
                for bodies in (0..3000).step_by(61) {
                    let own = own(entries);
                    let sectors = sectors_of(own, copied, bodies, bodies % 2 == 0);
                    if sectors > 1 {
                        assert!(2 * own + copied + bodies <= sectors * PAYLOAD);
                        let (front_ends, back_begins) = ((own - 1) / PAYLOAD, (sectors * PAYLOAD - own) / PAYLOAD);
                        assert!(front_ends < back_begins, "{entries} entries, {copied} copied, {bodies} in bodies");
                    }
                }
            }
        }
    }

    #[test]
    fn one_small_op_is_at_most_two_sectors() {
        for (body, most) in [(0, 1), (200, 1), (500, 2)] {
            for copied in [0, own(1)] {
                assert!(sectors_of(own(1), copied, body, false) <= most, "{body} bytes, {copied} copied");
            }
        }
    }

    #[test]
    fn a_record_header_comes_back() {
        let record = RecordHeader { previous: 1, base: 2, head: 3, prepared: 4, count: 5, copied: 6 };
        assert_eq!(RecordHeader::decode(&record.encode()), Some(record));
        assert_eq!(RecordHeader::decode(&[0; RECORD]), None);
    }
}
