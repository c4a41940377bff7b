//! The clauses of [`vsr::Clock`], each as a test of its number, for any clock that runs by itself.
//!
//! Implement [`Clocks`], then `vsr_sim::clock_conformance!(MyClocks)` writes one `#[test]` for each clause:
//!
//! ```
//! struct System;
//!
//! impl vsr_sim::conformance::clock::Clocks for System {
//!     type Clock = vsr::SystemClock;
//!
//!     fn clock(&mut self) -> vsr::SystemClock {
//!         vsr::SystemClock::new()
//!     }
//! }
//!
//! vsr_sim::clock_conformance!(System);
//! ```

use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{join_all, select};
use vsr::Clock;
use vsr::protocol::{Monotonic, Random, Timestamp};

use super::poll_few;

/// A kind of clock.
pub trait Clocks {
    /// What is tested.
    type Clock: Clock;

    /// A clock.
    fn clock(&mut self) -> Self::Clock;

    /// Runs a future to its end; panics when that takes absurdly long. To be replaced where clocks need a runtime around them.
    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        super::block_on(future)
    }
}

/// Writes a test for each clause of [`vsr::Clock`].
#[macro_export]
macro_rules! clock_conformance {
    ($clocks:expr) => {
        $crate::clock_conformance! { @tests $clocks;
            clause_01_time_never_goes_backwards => never_backwards,
            clause_01_nor_between_threads => never_backwards_between_threads,
            clause_02_sleep_is_never_early => never_early,
            clause_02_a_deadline_in_the_past_is_over_at_once => deadline_in_the_past,
            clause_02_dropping_a_sleep_is_harmless => dropped_sleeps,
            clause_02_many_sleep_at_once_in_any_order => many_sleepers,
            clause_02_who_polled_last_is_woken => last_waker,
            clause_03_wall_is_the_time_of_day => wall,
        }
    };
    (@tests $clocks:expr; $($name:ident => $check:ident,)*) => {
        $(#[test]
        fn $name() {
            $crate::conformance::clock::$check(&mut $clocks);
        })*
    };
}

/// A deadline so far ahead that no test gets there.
const FAR: Duration = Duration::from_secs(3600);
/// A deadline that a test waits for.
const NEAR: Duration = Duration::from_millis(20);

/// Sleeps, and sees what the clock says then.
async fn sleep(clock: &impl Clock, deadline: Monotonic) {
    clock.sleep_until(deadline).await;
    let now = clock.now();
    assert!(now >= deadline, "a sleep until {} ns has ended at {} ns", deadline.0, now.0);
}

/// Clause 1.
pub fn never_backwards<C: Clocks>(clocks: &mut C) {
    let clock = clocks.clock();
    let start = clock.now();
    let mut last = start;
    for _ in 0..100_000 {
        let now = clock.now();
        assert!(now >= last, "{} ns came after {} ns", now.0, last.0);
        last = now;
    }
    clocks.block_on(clock.sleep_until(last.after(NEAR)));
    assert!(clock.now() >= last.after(NEAR), "it stands still");
}

/// Clause 1: what one thread has read is not in the future of another one that was told of it.
pub fn never_backwards_between_threads<C: Clocks>(clocks: &mut C) {
    let clock = clocks.clock();
    let last = std::sync::Mutex::new(clock.now());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    let mut last = last.lock().expect("no other thread has failed");
                    let now = clock.now();
                    assert!(now >= *last, "{} ns came after {} ns", now.0, last.0);
                    *last = now;
                }
            });
        }
    });
}

/// Clause 2.
pub fn never_early<C: Clocks>(clocks: &mut C) {
    let clock = clocks.clock();
    let mut random = Random::new(1);
    clocks.block_on(async {
        for _ in 0..100 {
            // From nanoseconds to milliseconds.
            let ahead = Duration::from_nanos(1 << random.below(23));
            sleep(&clock, clock.now().after(ahead)).await;
        }
    });
}

/// Clause 2: what is over does not wait for anything.
pub fn deadline_in_the_past<C: Clocks>(clocks: &mut C) {
    let clock = clocks.clock();
    clocks.block_on(async {
        clock.sleep_until(clock.now().after(NEAR)).await;
        let now = clock.now();
        for past in [Monotonic(0), Monotonic(1), Monotonic(now.0 / 2), now] {
            let slept = poll_few(clock.sleep_until(past), 10).await;
            assert!(slept.is_some(), "at {} ns it waits for {} ns", now.0, past.0);
        }
    });
}

/// Clause 2: never polled, polled, woken or over, in any order.
pub fn dropped_sleeps<C: Clocks>(clocks: &mut C) {
    let clock = clocks.clock();
    let mut random = Random::new(2);
    clocks.block_on(async {
        let mut kept = Vec::new();
        for _ in 0..2000 {
            let ahead = if random.chance(1, 2) { FAR } else { Duration::from_micros(random.below(20_000)) };
            let mut sleeper = clock.sleep_until(clock.now().after(ahead));
            if random.chance(2, 3) {
                let _ = poll_few(&mut sleeper, 1).await;
            }
            kept.push(sleeper);
            if random.chance(2, 3) {
                drop(kept.swap_remove(random.below(kept.len() as u64) as usize));
            }
        }
        drop(kept);
        // "Never" is a deadline as well.
        let never = poll_few(clock.sleep_until(Monotonic(u64::MAX)), 3).await;
        assert!(never.is_none(), "the end of time has come");
        // A task that waits beside them is woken all the same.
        sleep(&clock, clock.now().after(NEAR)).await;
        let (far, near) = (pin!(clock.sleep_until(clock.now().after(FAR))), clock.now().after(NEAR));
        select(far, pin!(sleep(&clock, near))).await;
        assert!(clock.now() < near.after(FAR / 2), "the wrong one has ended");
    });
}

/// Clause 2: deadlines in no order, many of them equal.
pub fn many_sleepers<C: Clocks>(clocks: &mut C) {
    let clock = clocks.clock();
    let mut random = Random::new(3);
    let start = clock.now();
    let sleepers = (0..1000).map(|_| sleep(&clock, start.after(Duration::from_millis(random.below(60)))));
    clocks.block_on(join_all(sleepers));
}

/// Clause 2: a sleep that has moved to another task.
pub fn last_waker<C: Clocks>(clocks: &mut C) {
    let clock = clocks.clock();
    clocks.block_on(async {
        for _ in 0..20 {
            let deadline = clock.now().after(NEAR / 4);
            let mut moved = clock.sleep_until(deadline);
            // Polled without a task that could be woken.
            let _ = (&mut moved).now_or_never();
            moved.await;
            assert!(clock.now() >= deadline, "a sleep that was polled twice has ended early");
        }
    });
}

/// Clause 3. It may jump: a jump of an hour is too much for a test.
pub fn wall<C: Clocks>(clocks: &mut C) {
    const SECOND: u64 = 1_000_000_000;
    /// The first second of 2020, and of 2200.
    const SENSIBLE: std::ops::Range<Timestamp> = Timestamp(1_577_836_800 * SECOND)..Timestamp(7_258_118_400 * SECOND);
    let clock = clocks.clock();
    let mut last = clock.wall();
    for _ in 0..3 {
        assert!(SENSIBLE.contains(&last), "{} ns since 1970 is not now", last.0);
        clocks.block_on(clock.sleep_until(clock.now().after(NEAR)));
        let now = clock.wall();
        assert!(now.0.abs_diff(last.0) < 3600 * SECOND, "from {} ns to {} ns within a moment", last.0, now.0);
        last = now;
    }
    let other = clocks.clock().wall();
    assert!(other.0.abs_diff(last.0) < 3600 * SECOND, "two clocks of a machine are {} ns and {} ns", last.0, other.0);
}
