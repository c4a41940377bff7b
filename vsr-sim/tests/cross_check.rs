//! Two judges of every history: the positions in the replies, and a search that believes nobody.

use vsr_sim::history::Linearizability;
use vsr_sim::{Options, Verdict, cross_check, simulation_of};

#[test]
fn the_search_agrees_with_the_positions() {
    let (mut found, mut gave_up) = (0, 0);
    // Where requests end with an unknown outcome by the dozen, the search has to try too much: logs that are full, and clients that break
    // their own rule.
    let is_searchable = |seed: &u64| {
        let options = Options::from_seed(*seed);
        options.rogues == 0 && options.limits == Options::calm(*seed, options.replicas).limits
    };
    for seed in (0..400).filter(is_searchable).take(40) {
        let checked = cross_check(simulation_of(seed));
        assert!(matches!(checked.report.verdict, Verdict::Pass | Verdict::Unrecoverable(_)), "seed {seed}");
        assert!(checked.operations > 100, "seed {seed} has {} operations", checked.operations);
        match checked.searched {
            Linearizability::Linearizable => found += 1,
            Linearizability::Unknown { .. } => gave_up += 1,
            Linearizability::NotLinearizable { why, .. } => panic!("seed {seed}: {why}"),
        }
    }
    assert!(found >= 30, "the search found an order for {found}, and gave up on {gave_up}");
}
