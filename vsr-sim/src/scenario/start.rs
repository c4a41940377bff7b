//! How a scenario is started: on the simulator's own state machine, or on any other.

use super::{Played, base, runner};
use crate::run::Simulation;
use crate::workload::{Change, Registers, Simulated, Step};

/// Plays a scenario on the simulator's own state machine.
#[must_use]
pub fn play(text: &str) -> Played {
    let simulation = Simulation::with_queries(base(3), Registers::default, Registers::step);
    runner::play(&simulation, text, speak_registers)
}

impl<S: Simulated> Simulation<S> {
    /// Plays a scenario on this state machine, under its workload; `request` by hand needs the simulator's own machine. A scenario
    /// that does not name this machine is refused.
    #[must_use]
    pub fn play(&self, text: &str) -> Played {
        runner::play(self, text, |_| {
            Err("requests by hand are for the simulator's own state machine; `load` begins those of this one"
                .to_owned())
        })
    }
}

/// `add 1 5` and so on: commands of [`Registers`].
fn speak_registers(text: &str) -> Result<Step<Change, u8>, String> {
    let wrong = || format!("{text} is not a request; there are add R N, write R N, cas R OLD NEW, ballast N and get R");
    let mut words = text.split_whitespace();
    let verb = words.next().ok_or_else(wrong)?;
    let numbers = words.map(str::parse).collect::<Result<Vec<i64>, _>>().map_err(|_| wrong())?;
    let register = |number: i64| u8::try_from(number).map_err(|_| wrong());
    match (verb, numbers.as_slice()) {
        ("add", [at, more]) => Ok(Step::Command(Change::Add(register(*at)?, *more))),
        ("write", [at, value]) => Ok(Step::Command(Change::Write(register(*at)?, *value))),
        ("cas", [at, old, new]) => Ok(Step::Command(Change::CompareAndSet(register(*at)?, *old, *new))),
        ("ballast", [size]) => {
            let size = usize::try_from(*size).ok().filter(|size| *size <= 1 << 20).ok_or_else(wrong)?;
            Ok(Step::Command(Change::Ballast(vec![0; size].into())))
        }
        ("get", [at]) => Ok(Step::Query(register(*at)?)),
        _ => Err(wrong()),
    }
}
