//! Clients that break the rules of a client harm nobody but themselves.

use vsr_sim::run::sweep::FAULT_CLASSES;
use vsr_sim::{Options, Registers, Simulation, Verdict};

const MISDEEDS: [&str; 8] = [
    "ids used twice",
    "ids that return",
    "floors above the number",
    "numbers beyond the window",
    "numbers beyond any",
    "commands over request_max",
    "sessions of others",
    "commands that do not decode",
];

fn run(options: Options) -> vsr_sim::Report {
    Simulation::with_queries(options, Registers::default, Registers::step).run()
}

/// Each kind of misdeed, at a healthy cluster: what is asked is refused or executed once, nobody is given another's reply, and
/// those who keep the rules are served.
#[test]
fn clients_that_break_their_own_rule_are_refused_and_nobody_is_given_anothers_reply() {
    let mut counts = [0; MISDEEDS.len()];
    for seed in 0..16 {
        let options = Options { rogues: 3, requests: 30, ..Options::calm(seed, 3) };
        let report = run(options);
        assert_eq!(report.verdict, Verdict::Pass, "seed {seed}");
        assert!(report.acknowledged >= 30, "seed {seed}: {}", report.acknowledged);
        for (count, name) in counts.iter_mut().zip(MISDEEDS) {
            *count += report.trace.counted(name);
        }
    }
    for (count, name) in counts.into_iter().zip(MISDEEDS) {
        assert!(count > 0, "{name} never happened");
        assert!(FAULT_CLASSES.contains(&name), "a sweep does not count {name}");
    }
}

/// The same with small windows and a table of few sessions, where ids are evicted and come back.
#[test]
fn clients_that_break_their_own_rule_are_harmless_where_sessions_are_few() {
    for seed in 0..8 {
        let options = Options { rogues: 3, requests: 30, sessions_max: 4, window: 2, ..Options::calm(seed, 3) };
        assert_eq!(run(options).verdict, Verdict::Pass, "seed {seed}");
    }
}
