//! The clocks of the machine.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::protocol::{Monotonic, Timestamp};
use crate::traits::clock::Clock;

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
            // Without a thread there is no wake-up: polling again is slow, and correct.
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
