//! The smallest real cluster: a counter. The state machine is all there is to it; what runs it is in
//! `examples/cluster`.

mod machine;

pub use machine::{Add, Counter};

use example_cluster::App;
use vsr::protocol::Random;
use vsr_sim::Step;

/// The counter as an example application.
#[derive(Debug)]
pub struct CounterApp;

impl App for CounterApp {
    type Machine = Counter;

    fn step(random: &mut Random) -> Step<Add, ()> {
        if random.below(20) == 0 { Step::Query(()) } else { Step::Command(Add(1)) }
    }

    fn count_query() {}

    fn count(answer: &i64) -> u64 {
        u64::try_from(*answer).unwrap_or(0)
    }
}
