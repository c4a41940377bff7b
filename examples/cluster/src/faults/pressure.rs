//! Clients that submit as fast as they are answered, and how long they wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use vsr::{Client, Clock, SystemClock};

use super::ground::{ANSWER_MAX, Ground};
use super::tally::{One, Tally, TallyApp};
use crate::Error;
use crate::serve::connect;

/// Until it ends.
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<Client<Tally>>,
    lanes: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    /// How long the commands of this stretch took, in microseconds.
    times: Mutex<Vec<u32>>,
}

impl Load {
    /// So many clients, each with so many commands at a time, and a pause between an answer and the next command.
    pub(super) async fn begin(ground: &Ground, clients: usize, lanes: usize, pause: Duration) -> Result<Load, Error> {
        let mut load = Load { shared: Arc::default(), clients: Vec::new(), lanes: Vec::new() };
        for _ in 0..clients {
            let client = connect::<TallyApp>(&ground.config).await?;
            for _ in 0..lanes {
                load.lanes.push(tokio::spawn(load.shared.clone().run(client.clone(), pause)));
            }
            load.clients.push(client);
        }
        Ok(load)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// The time within which 99 of 100 commands were answered since this was asked last.
    pub(super) fn p99(&self) -> Duration {
        let mut times = std::mem::take(&mut *self.shared.times());
        times.sort_unstable();
        let at = (times.len() * 99 / 100).min(times.len().saturating_sub(1));
        Duration::from_micros(times.get(at).copied().unwrap_or(u32::MAX).into())
    }

    /// Waits for the commands under way. How many were acknowledged: all, or it is an error.
    pub(super) async fn end(self, ground: &mut Ground) -> Result<u64, Error> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for lane in self.lanes {
            lane.await?;
        }
        self.clients.iter().for_each(Client::close);
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        let unknown = self.shared.unknown.load(Ordering::Relaxed);
        ground.heard(acknowledged, unknown);
        if acknowledged == 0 || unknown > 0 {
            return Err(format!("{acknowledged} commands of the load had a reply, {unknown} had none").into());
        }
        Ok(acknowledged)
    }
}

impl Shared {
    async fn run(self: Arc<Shared>, client: Client<Tally>, pause: Duration) {
        let clock = SystemClock::new();
        while !self.stop.load(Ordering::Relaxed) {
            let begin = clock.now();
            let counter = match client.submit_within(One::of(16), ANSWER_MAX).await {
                Ok(_) => &self.acknowledged,
                Err(_) => &self.unknown,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            let time = u32::try_from(clock.now().since(begin).as_micros()).unwrap_or(u32::MAX);
            self.times().push(time);
            if !pause.is_zero() {
                clock.sleep_until(clock.now().after(pause)).await;
            }
        }
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
