//! Two judges of every history: the positions in the replies, and a search that believes nobody.

use vsr_sim::history::Verdict as Searched;
use vsr_sim::{Verdict, cross_check, simulation_of};

#[test]
fn the_search_agrees_with_the_positions() {
    let (mut found, mut gave_up) = (0, 0);
    for seed in 0..40 {
        let checked = cross_check(simulation_of(seed));
        assert!(matches!(checked.report.verdict, Verdict::Pass | Verdict::Unrecoverable(_)), "seed {seed}");
        assert!(checked.operations > 100, "seed {seed} has {} operations", checked.operations);
        match checked.searched {
            Searched::Linearizable => found += 1,
            Searched::Unknown { .. } => gave_up += 1,
            Searched::NotLinearizable { why, .. } => panic!("seed {seed}: {why}"),
        }
    }
    assert!(found >= 30, "the search found an order for {found}, and gave up on {gave_up}");
}
