//! Every schedule of a small cluster.

use vsr_sim::explore::{Bounds, BoundsError, explore};

/// What the full bounds have, less trouble at once: `vsr-sim explore` goes all the way.
fn small() -> Bounds {
    Bounds { trouble: 2, ..Bounds::default() }
}

#[test]
fn every_schedule_within_small_bounds_keeps_every_property() {
    let exploration = explore(&small(), |_| ()).unwrap();
    assert!(exploration.complete, "{exploration}");
    assert_eq!(exploration.violation, None, "{exploration}");
    assert!(exploration.states > 100_000, "{exploration}");
    assert!(exploration.replica_states > 5_000, "{exploration}");
}

#[test]
fn the_same_bounds_give_the_same_exploration() {
    let bounds = Bounds { requests: 1, ..small() };
    assert_eq!(explore(&bounds, |_| ()), explore(&bounds, |_| ()));
}

/// The reduction to rounds loses nothing: with enough holds the replicas reach every state that they reach when
/// each step is tried after each other.
#[test]
fn rounds_reach_every_state_of_a_replica_that_single_steps_reach() {
    let bounds = Bounds {
        requests: 1,
        view_changes: 1,
        timeouts: 2,
        crashes: 0,
        heartbeats: 0,
        strays: 0,
        trouble: u8::MAX,
        ..Bounds::default()
    };
    let rounds = explore(&Bounds { holds: 100, ..bounds.clone() }, |_| ()).unwrap();
    let steps = explore(&Bounds { interleave: true, ..bounds }, |_| ()).unwrap();
    assert!(rounds.complete && steps.complete, "{rounds}\n{steps}");
    assert_eq!(rounds.replica_states, steps.replica_states, "{rounds}\n{steps}");
}

#[test]
fn disks_that_forget_what_they_said_was_durable_are_found_out() {
    let bounds = Bounds { forgetful_disks: true, ..small() };
    let exploration = explore(&bounds, |_| ()).unwrap();
    let violation = exploration.violation.expect("it is found");
    let story = violation.to_string();
    assert!(violation.trace.iter().any(|step| step.contains("crashes")), "{story}");
    assert!(violation.trace.len() <= 8, "it is short: {story}");
    assert!(story.contains("committed-on-a-quorum-of-disks"), "{story}");
}

#[test]
fn disks_that_forget_only_at_a_crash_do_no_harm_without_one() {
    let bounds = Bounds { forgetful_disks: true, crashes: 0, ..small() };
    let exploration = explore(&bounds, |_| ()).unwrap();
    assert!(exploration.complete && exploration.violation.is_none(), "{exploration}");
}

#[test]
fn a_limit_of_states_ends_the_exploration_and_says_so() {
    let bounds = Bounds { states_max: 90_000, ..small() };
    let exploration = explore(&bounds, |_| ()).unwrap();
    assert!(!exploration.complete && exploration.violation.is_none(), "{exploration}");
    assert!(exploration.states >= 90_000 && exploration.states < 91_000, "{exploration}");
}

#[test]
fn absurd_bounds_are_refused() {
    let refusal = |bounds: Bounds| explore(&bounds, |_| ()).unwrap_err();
    assert_eq!(refusal(Bounds { replicas: 0, ..small() }), BoundsError::Replicas(0));
    assert_eq!(refusal(Bounds { replicas: 6, ..small() }), BoundsError::Replicas(6));
    assert_eq!(refusal(Bounds { requests: 9, ..small() }), BoundsError::Requests(9));
}
