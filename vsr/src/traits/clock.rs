//! The clock of a replica. No rule of safety depends on it.

use std::sync::Arc;
use std::task::Context;

use async_trait::async_trait;

use crate::protocol::{Monotonic, Timestamp};

/// A source of time.
///
/// # The contract
/// Each clause has a test of its number in the conformance suite (`vsr_sim::conformance::clock`).
///
/// 1. [`now`](Self::now) never goes backwards, nor between threads.
/// 2. [`sleep_until`](Self::sleep_until) never ends early; it may end late, but waits for no deadline that
///    has passed. Dropping it is harmless, any number may wait at once, and the task that polled one last is
///    woken.
/// 3. [`wall`](Self::wall) is the time of day, as well as the machine knows it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The time since some start, in nanoseconds.
    fn now(&self) -> Monotonic;

    /// The time of day, in nanoseconds since the Unix epoch, for timestamps. It may jump.
    fn wall(&self) -> Timestamp;

    /// Waits until [`now`](Self::now) has reached the deadline.
    async fn sleep_until(&self, deadline: Monotonic);
}

#[async_trait]
impl<T: Clock + ?Sized> Clock for Arc<T> {
    fn now(&self) -> Monotonic {
        (**self).now()
    }

    fn wall(&self) -> Timestamp {
        (**self).wall()
    }

    async fn sleep_until(&self, deadline: Monotonic) {
        (**self).sleep_until(deadline).await;
    }
}

#[async_trait]
impl<T: Clock + ?Sized> Clock for Box<T> {
    fn now(&self) -> Monotonic {
        (**self).now()
    }

    fn wall(&self) -> Timestamp {
        (**self).wall()
    }

    async fn sleep_until(&self, deadline: Monotonic) {
        (**self).sleep_until(deadline).await;
    }
}

/// The one timer of a driver. A later deadline keeps the armed timer: it wakes once for nothing, which costs less than a new timer for
/// each turn.
#[derive(Default)]
pub(crate) struct Alarm<'a> {
    armed: Option<(Monotonic, futures::future::BoxFuture<'a, ()>)>,
}

impl<'a> Alarm<'a> {
    /// Has the task woken at the deadline, or at once when it has passed; never for `Monotonic(u64::MAX)`.
    pub(crate) fn wake_at(&mut self, clock: &'a (impl Clock + ?Sized), deadline: Monotonic, context: &mut Context<'_>) {
        if deadline == Monotonic(u64::MAX) {
            self.armed = None;
            return;
        }
        loop {
            if self.armed.as_ref().is_none_or(|(armed, _)| *armed > deadline) {
                self.armed = Some((deadline, clock.sleep_until(deadline)));
            }
            let Some((armed, sleep)) = &mut self.armed else { return };
            let armed = *armed;
            if sleep.as_mut().poll(context).is_pending() {
                return;
            }
            self.armed = None;
            if armed >= deadline {
                return context.waker().wake_by_ref();
            }
        }
    }
}
