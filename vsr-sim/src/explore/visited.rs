//! The states that were met, as 128 bits each.

/// A set of fingerprints: open addressing, 16 bytes a slot.
pub(super) struct Visited {
    slots: Vec<u128>,
    len: usize,
}

impl Visited {
    pub(super) fn new() -> Visited {
        Visited { slots: vec![0; 1 << 16], len: 0 }
    }

    /// Adds a fingerprint; false when it was there.
    pub(super) fn insert(&mut self, fingerprint: u128) -> bool {
        if self.len * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        let slot = find(&self.slots, fingerprint.max(1));
        if self.slots[slot] != 0 {
            return false;
        }
        self.slots[slot] = fingerprint.max(1);
        self.len += 1;
        true
    }

    fn grow(&mut self) {
        let mut slots = vec![0; self.slots.len() * 2];
        for &fingerprint in self.slots.iter().filter(|slot| **slot != 0) {
            let slot = find(&slots, fingerprint);
            slots[slot] = fingerprint;
        }
        self.slots = slots;
    }
}

/// Where a fingerprint is, or would be.
fn find(slots: &[u128], fingerprint: u128) -> usize {
    let mask = slots.len() - 1;
    let mut at = fingerprint as usize & mask;
    while slots[at] != 0 && slots[at] != fingerprint {
        at = (at + 1) & mask;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fingerprint_is_new_once_also_when_the_set_has_grown() {
        let mut visited = Visited::new();
        let fingerprints = || (0..200_000_u128).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        assert!(fingerprints().all(|fingerprint| visited.insert(fingerprint)));
        assert!(fingerprints().all(|fingerprint| !visited.insert(fingerprint)));
    }
}
