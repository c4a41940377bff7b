//! Clients that submit, and how long they wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use vsr::{Client, Clock, SystemClock};

use super::ground::{ANSWER_MAX, Ground};
use super::tally::{One, TallyApp};
use crate::serve::connect;
use crate::{App, Error};

/// When a lane submits its next command.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// So long after the answer to the last one.
    AfterAnswer(Duration),
    /// So long after the last one was due. What waits for a slow one waits from the moment at which it was due.
    Every(Duration),
}

/// Until it ends.
pub(super) struct Load<A: App> {
    shared: Arc<Shared>,
    clients: Vec<Client<A::Machine>>,
    lanes: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    begun: AtomicU64,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    /// How long the commands of this stretch took, in microseconds.
    times: Mutex<Vec<u32>>,
}

/// How long the commands of a stretch took.
pub(super) struct Times {
    pub(super) count: usize,
    pub(super) p99: Duration,
    pub(super) longest: Duration,
}

type CommandOf<A> = <<A as App>::Machine as vsr::StateMachine>::Command;

impl Load<TallyApp> {
    /// So many clients, each with so many commands at a time, and a pause between an answer and the next command.
    pub(super) async fn begin(
        ground: &Ground,
        clients: usize,
        lanes: usize,
        pause: Duration,
    ) -> Result<Load<TallyApp>, Error> {
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(connect::<TallyApp>(&ground.config).await?);
        }
        Ok(Load::of(connected, lanes, Pace::AfterAnswer(pause), |_| Some(One::of(16))))
    }

    /// Waits for the commands under way. How many were acknowledged: all, or it is an error.
    pub(super) async fn end(self, ground: &mut Ground) -> Result<u64, Error> {
        let (acknowledged, unknown) = self.stop().await?;
        ground.heard(acknowledged, unknown);
        all_of(acknowledged, unknown)
    }
}

/// How many were acknowledged: all, or it is an error.
pub(super) fn all_of(acknowledged: u64, unknown: u64) -> Result<u64, Error> {
    if acknowledged == 0 || unknown > 0 {
        return Err(format!("{acknowledged} commands of the load had a reply, {unknown} had none").into());
    }
    Ok(acknowledged)
}

impl<A: App> Load<A> {
    /// Each of these clients has so many commands at a time. `command` gives them by their number; a lane ends where it gives none.
    pub(super) fn of(
        clients: Vec<Client<A::Machine>>,
        lanes: usize,
        pace: Pace,
        command: impl Fn(u64) -> Option<CommandOf<A>> + Clone + Send + 'static,
    ) -> Load<A> {
        let shared: Arc<Shared> = Arc::default();
        let lanes = clients.iter().flat_map(|client| std::iter::repeat_n(client, lanes));
        let lanes = lanes.map(|client| tokio::spawn(shared.clone().run::<A>(client.clone(), pace, command.clone())));
        Load { lanes: lanes.collect(), shared, clients }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// How long the commands took that were answered since this was asked last.
    pub(super) fn times(&self) -> Times {
        let mut times = std::mem::take(&mut *self.shared.times());
        times.sort_unstable();
        // Of none it is not known.
        let at = |at: usize| Duration::from_micros(times.get(at).copied().unwrap_or(u32::MAX).into());
        Times { count: times.len(), p99: at(times.len() * 99 / 100), longest: at(times.len().saturating_sub(1)) }
    }

    /// Waits for the commands under way. How many were acknowledged, and of how many nothing is known.
    pub(super) async fn stop(self) -> Result<(u64, u64), Error> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for lane in self.lanes {
            lane.await?;
        }
        self.clients.iter().for_each(Client::close);
        Ok((self.shared.acknowledged.load(Ordering::Relaxed), self.shared.unknown.load(Ordering::Relaxed)))
    }
}

impl Shared {
    async fn run<A: App>(
        self: Arc<Shared>,
        client: Client<A::Machine>,
        pace: Pace,
        command: impl Fn(u64) -> Option<CommandOf<A>> + Send,
    ) {
        let clock = SystemClock::new();
        let mut due = clock.now();
        while !self.stop.load(Ordering::Relaxed) {
            let Some(command) = command(self.begun.fetch_add(1, Ordering::Relaxed)) else { return };
            let counter = match client.submit_within(command, ANSWER_MAX).await {
                Ok(_) => &self.acknowledged,
                Err(_) => &self.unknown,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            let now = clock.now();
            self.times().push(u32::try_from(now.since(due).as_micros()).unwrap_or(u32::MAX));
            due = match pace {
                Pace::AfterAnswer(pause) => now.after(pause),
                Pace::Every(interval) => due.after(interval),
            };
            if due > now {
                clock.sleep_until(due).await;
            }
            if matches!(pace, Pace::AfterAnswer(_)) {
                due = clock.now();
            }
        }
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
