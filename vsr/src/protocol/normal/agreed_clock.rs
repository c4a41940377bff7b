//! The clock that timestamps are made of: the median of what a quorum of wall clocks say, so that one mad clock cannot
//! run away with the cluster (rule 5.11).

use std::time::Duration;

use crate::protocol::types::number::{Monotonic, Timestamp};
use crate::protocol::types::quorum::MEMBERS_MAX;

/// What a member's wall clock said, and when this replica heard of it, by its own monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) wall: Timestamp,
    pub(crate) heard_at: Monotonic,
}

impl Sample {
    /// What that clock says now, if it goes as fast as the one of this replica. In nanoseconds.
    fn moved_on(&self, now: Monotonic) -> u64 {
        self.wall.0.saturating_add(now.since(self.heard_at).as_nanos() as u64)
    }
}

/// The lower median of the samples, one a member, that are not older than `age_max`; 0 when they are fewer than `quorum`.
pub(crate) fn agree(samples: impl Iterator<Item = Sample>, now: Monotonic, age_max: Duration, quorum: u8) -> Timestamp {
    let mut clocks = [0; MEMBERS_MAX];
    let mut count = 0;
    for (place, sample) in clocks.iter_mut().zip(samples.filter(|sample| now.since(sample.heard_at) <= age_max)) {
        *place = sample.moved_on(now);
        count += 1;
    }
    clocks[..count].sort_unstable();
    if count >= usize::from(quorum.max(1)) { Timestamp(clocks[(count - 1) / 2]) } else { Timestamp(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::quorum::Quorums;
    use crate::protocol::types::random::Random;

    const NOW: Monotonic = Monotonic(1_000_000);
    const AGE_MAX: Duration = Duration::from_nanos(1_000);

    fn sample(wall: u64, age: u64) -> Sample {
        Sample { wall: Timestamp(wall), heard_at: Monotonic(NOW.0 - age) }
    }

    fn agreed(samples: &[Sample], quorum: u8) -> u64 {
        agree(samples.iter().copied(), NOW, AGE_MAX, quorum).0
    }

    #[test]
    fn of_an_even_number_the_slower_one_in_the_middle_counts() {
        let samples = [sample(40, 0), sample(10, 0), sample(30, 0), sample(20, 0)];
        assert_eq!(agreed(&samples, 2), 20);
        assert_eq!(agreed(&samples[..3], 2), 30);
        assert_eq!(agreed(&samples[..2], 2), 10);
    }

    #[test]
    fn a_report_moves_on_and_grows_too_old() {
        assert_eq!(agreed(&[sample(500, 1_000)], 1), 1_500);
        assert_eq!(agreed(&[sample(500, 1_001)], 1), 0, "an old report is none");
        assert_eq!(agreed(&[sample(u64::MAX, 1)], 1), u64::MAX, "an absurd clock does not wrap");
    }

    #[test]
    fn fewer_than_a_quorum_agree_on_nothing() {
        assert_eq!(agreed(&[sample(500, 0), sample(600, 0), sample(700, 2_000)], 3), 0);
        assert_eq!(agreed(&[], 0), 0);
    }

    /// While the clocks that are mad are fewer than half of those that count, the result lies between two sane ones.
    #[test]
    fn mad_clocks_in_the_minority_move_nothing_out_of_the_range_of_the_others() {
        let mut random = Random::new(11);
        for _ in 0..10_000 {
            let n = 1 + random.below(MEMBERS_MAX as u64);
            let mad = random.below(n.div_ceil(2));
            let sane = |random: &mut Random| sample(1_000_000 + random.below(1_000), random.below(1_000));
            let sane: Vec<Sample> = (mad..n).map(|_| sane(&mut random)).collect();
            let clocks = sane.iter().map(|sample| sample.moved_on(NOW));
            let (least, most) = (clocks.clone().min().unwrap_or(0), clocks.max().unwrap_or(0));
            let mut samples = sane;
            for _ in 0..mad {
                let at = random.below(samples.len() as u64 + 1) as usize;
                samples.insert(at, sample(random.next_u64(), 0));
            }
            let result = agreed(&samples, Quorums::of(n as usize).replication);
            assert!((least..=most).contains(&result), "{samples:?}: {result}");
        }
    }
}
