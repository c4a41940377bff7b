//! What the replica asks of time. No rule of safety depends on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::protocol::{Monotonic, Timestamp};

/// A source of time.
///
/// # The contract
/// Each clause has a test of its number in the conformance suite (`vsr_sim::conformance::clock`).
///
/// 1. [`now`](Self::now) never goes backwards, nor between threads.
/// 2. [`sleep_until`](Self::sleep_until) never ends early; it may end late, but waits for no deadline that
///    has passed. Dropping it is harmless, any number may wait at once, and whoever polled one last is
///    woken.
/// 3. [`wall`](Self::wall) is the time of day, as well as the machine knows it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The time since some start.
    fn now(&self) -> Monotonic;

    /// The time of day, for timestamps. It may jump.
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

/// The machine's own clocks. Needs no runtime: one thread of its own wakes the sleepers.
#[derive(Clone)]
pub struct SystemClock {
    start: Instant,
    timer: Arc<Timer>,
}

/// How long the timer thread outlives its last sleeper.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Timer {
    sleepers: Mutex<Sleepers>,
    changed: Condvar,
}

#[derive(Default)]
struct Sleepers {
    by_deadline: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
    running: bool,
}

impl SystemClock {
    /// The clocks of this machine.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place where real time enters")]
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now(), timer: Arc::default() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl std::fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SystemClock")
    }
}

impl Timer {
    fn lock(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[allow(clippy::disallowed_methods, reason = "the timer thread belongs to the real clock")]
    fn run(&self) {
        let mut sleepers = self.lock();
        loop {
            let now = Instant::now();
            let due = sleepers.by_deadline.first_key_value().map(|((deadline, _), _)| *deadline);
            sleepers = match due {
                Some(deadline) if deadline <= now => {
                    if let Some((_, waker)) = sleepers.by_deadline.pop_first() {
                        drop(sleepers);
                        waker.wake();
                    }
                    self.lock()
                }
                Some(deadline) => {
                    let wait = self.changed.wait_timeout(sleepers, deadline - now);
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let wait = self.changed.wait_timeout(sleepers, IDLE);
                    let (mut sleepers, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() && sleepers.by_deadline.is_empty() {
                        sleepers.running = false;
                        return;
                    }
                    sleepers
                }
            };
        }
    }
}

/// A sleeper, registered under its id while it waits.
struct Sleep {
    timer: Arc<Timer>,
    deadline: Instant,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    #[allow(clippy::disallowed_methods, reason = "this is the real clock")]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let timer = self.timer.clone();
        let mut sleepers = timer.lock();
        if !sleepers.running {
            sleepers.running = true;
            let of_thread = timer.clone();
            let spawned = std::thread::Builder::new().name("vsr-clock".into()).spawn(move || of_thread.run());
            // Without a thread nobody would ever wake: polling again is slow, and correct.
            if spawned.is_err() {
                sleepers.running = false;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let id = *self.id.get_or_insert_with(|| {
            sleepers.next_id += 1;
            sleepers.next_id
        });
        let first = sleepers.by_deadline.first_key_value().map(|((deadline, _), _)| *deadline);
        sleepers.by_deadline.insert((self.deadline, id), context.waker().clone());
        if first.is_none_or(|first| self.deadline < first) {
            timer.changed.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.timer.lock().by_deadline.remove(&(self.deadline, id));
        }
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the real clock")]
    fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the real clock")]
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, deadline: Monotonic) {
        // Centuries ahead is "never": an `Instant` cannot hold every deadline.
        let ahead = Duration::from_nanos(deadline.0.min(u64::MAX / 8));
        Sleep { timer: self.timer.clone(), deadline: self.start + ahead, id: None }.await;
    }
}
