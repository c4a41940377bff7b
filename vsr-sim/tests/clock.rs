//! The conformance suite on the machine's own clock, and on clocks that break a clause each.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use vsr::protocol::{Monotonic, Random, Timestamp};
use vsr::{Clock, SystemClock};
use vsr_sim::conformance::clock::{self, Clocks};

struct System;

impl Clocks for System {
    type Clock = SystemClock;

    fn clock(&mut self) -> SystemClock {
        SystemClock::new()
    }
}

vsr_sim::clock_conformance!(System);

/// One thread wakes the sleepers of all the others.
#[test]
fn sleepers_of_many_threads_all_wake() {
    let clock = SystemClock::new();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let clock = &clock;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..50 {
                    let deadline = clock.now().after(std::time::Duration::from_micros(random.below(1000)));
                    vsr_sim::conformance::block_on(clock.sleep_until(deadline));
                    assert!(clock.now() >= deadline);
                }
            });
        }
    });
}

#[derive(Clone, Copy, PartialEq)]
enum Defect {
    GoesBackwards,
    WakesEarly,
    StartsIn1970,
    WaitsForThePast,
}

struct Defective {
    clock: SystemClock,
    calls: AtomicU64,
    defect: Defect,
}

#[async_trait]
impl Clock for Defective {
    fn now(&self) -> Monotonic {
        let back = self.defect == Defect::GoesBackwards && self.calls.fetch_add(1, Ordering::Relaxed) % 1000 == 999;
        Monotonic(self.clock.now().0 - if back { 1_000_000 } else { 0 })
    }

    fn wall(&self) -> Timestamp {
        if self.defect == Defect::StartsIn1970 { Timestamp(self.clock.now().0) } else { self.clock.wall() }
    }

    async fn sleep_until(&self, deadline: Monotonic) {
        match self.defect {
            Defect::WakesEarly => self.clock.sleep_until(Monotonic(deadline.0 - deadline.0 % 4_000_000)).await,
            Defect::WaitsForThePast if deadline < self.clock.now() => {
                self.clock.sleep_until(self.clock.now().after(std::time::Duration::from_millis(50))).await;
            }
            _ => self.clock.sleep_until(deadline).await,
        }
    }
}

impl Clocks for Defect {
    type Clock = Defective;

    fn clock(&mut self) -> Defective {
        let clock = SystemClock::new();
        // Time enough to go backwards.
        vsr_sim::conformance::block_on(clock.sleep_until(Monotonic(10_000_000)));
        Defective { clock, calls: AtomicU64::new(0), defect: *self }
    }
}

#[test]
#[should_panic(expected = "came after")]
fn a_clock_that_goes_backwards_is_found() {
    clock::never_backwards(&mut Defect::GoesBackwards);
}

#[test]
#[should_panic(expected = "has ended at")]
fn a_clock_that_wakes_early_is_found() {
    clock::never_early(&mut Defect::WakesEarly);
}

#[test]
#[should_panic(expected = "it waits for")]
fn a_clock_that_waits_for_what_is_over_is_found() {
    clock::deadline_in_the_past(&mut Defect::WaitsForThePast);
}

#[test]
#[should_panic(expected = "is not now")]
fn a_clock_without_the_time_of_day_is_found() {
    clock::wall(&mut Defect::StartsIn1970);
}
