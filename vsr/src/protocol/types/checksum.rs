//! The checksum that names headers, bodies, requests and frames.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A 128-bit XXH3 of some bytes. It finds damage and tells contents apart; it does not protect against
/// an attacker, which is the transport's work (mutual TLS).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Checksum(pub u128);

impl Checksum {
    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Checksum {
        Checksum(xxhash_rust::xxh3::xxh3_128(bytes))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Disk and wire formats depend on this function: it never changes.
    #[test]
    fn the_function_is_pinned_by_a_golden_value() {
        // The published test vector of XXH3-128 for the empty input, and one of our own.
        assert_eq!(Checksum::of(b"").0, 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
        assert_eq!(Checksum::of(b"vsr").0, 157_310_254_756_969_995_767_251_552_508_437_803_973);
    }
}
