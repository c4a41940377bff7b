//! What a simulated client does, one request after the other, and what it records.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vsr::protocol::Random;
use vsr::{Checksum, Client, Handle, Monotonic, OpNumber, Position, SubmitError};

use crate::check::Observation;
use crate::check::linearizability::{Asked, Heard};
use crate::machine::{Recorder, Simulated, Step, Witnessed, asked_command};
use crate::node::{Life, SimClock};
use crate::run::Workload;
use crate::world::lock;

/// A client at work.
pub(crate) struct Worker<S: Simulated> {
    pub(crate) life: Life,
    pub(crate) client: u64,
    pub(crate) random: Random,
    pub(crate) workload: Workload<S>,
    pub(crate) recorder: Arc<Mutex<Recorder<S>>>,
}

impl<S: Simulated> Worker<S> {
    fn now(&self) -> u64 {
        lock(&self.life.world).now
    }

    pub(crate) async fn pause(&mut self) {
        let nanos = self.random.below(1 << (12 + self.random.clone().below(16)));
        let clock = SimClock(self.life.clone());
        let local = lock(&self.life.world).local_time(self.life.node);
        vsr::Clock::sleep_until(&clock, Monotonic(local + nanos)).await;
    }

    pub(crate) async fn on_client(&mut self, client: Client<Witnessed<S>>, requests: u32) {
        for _ in 0..requests {
            self.pause().await;
            let safety = lock(&self.life.world).faults_on;
            // In the liveness phase every request must complete, however long it takes.
            let limit = if safety && self.random.chance(1, 2) { 2 } else { 1_000_000 };
            let limit = Duration::from_secs(limit);
            match (self.workload)(&mut self.random) {
                Step::Command(command) => {
                    let (at, id) = self.invoke_command(&command);
                    let result = client.submit_within((id, command), limit).await;
                    self.hear_reply(at, id, result.map(|reply| (reply.value, reply.position)));
                }
                Step::Query(query) => {
                    let at = self.invoke_query(&query);
                    let result = client.query_within(query, limit).await;
                    self.hear_answer(at, result.ok().map(|answer| (answer.value, answer.position)));
                }
            }
        }
    }

    /// An application beside a replica uses its handle, until the replica is gone.
    pub(crate) async fn on_handle(&mut self, handle: Handle<Witnessed<S>>) {
        for _ in 0..20 {
            self.pause().await;
            if !lock(&self.life.world).faults_on {
                return;
            }
            match (self.workload)(&mut self.random) {
                Step::Command(command) => {
                    let (at, id) = self.invoke_command(&command);
                    let result = handle.submit_positioned((id, command)).await;
                    let stopped = result.as_ref().is_err_and(|error| *error == SubmitError::Stopped);
                    self.hear_reply(at, id, result.map(|reply| (reply.value, reply.position)));
                    if stopped {
                        return;
                    }
                }
                Step::Query(query) => {
                    let at = self.invoke_query(&query);
                    let Ok(answer) = handle.query_positioned(query).await else { return };
                    self.hear_answer(at, Some((answer.value, answer.position)));
                }
            }
        }
    }

    fn record<T>(&self, f: impl FnOnce(&mut Recorder<S>) -> T) -> T {
        f(&mut self.recorder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn invoke_command(&self, command: &S::Command) -> (usize, u64) {
        let (client, now) = (self.client, self.now());
        self.record(|recorder| {
            recorder.next_command += 1;
            let id = recorder.next_command;
            (recorder.invoke(client, now, asked_command::<S>(command.clone())), id)
        })
    }

    fn invoke_query(&self, query: &S::Query) -> usize {
        let (client, now) = (self.client, self.now());
        self.record(|recorder| recorder.invoke(client, now, Asked::Query(query.clone())))
    }

    fn hear_reply(&self, at: usize, id: u64, result: Result<(S::Reply, Position), SubmitError>) {
        let now = self.now();
        match result {
            Ok((reply, position)) => {
                let checksum = Checksum::of(format!("{reply:?}").as_bytes());
                self.record(|recorder| {
                    recorder.acknowledged += 1;
                    recorder.hear(at, now, Heard::Reply(reply, position));
                });
                let acknowledged = Observation::Acknowledged { command: id, position, reply: checksum };
                let mut world = lock(&self.life.world);
                world.trace.count("acknowledged");
                world.observe(&acknowledged);
            }
            Err(SubmitError::Busy) => self.record(|recorder| recorder.hear(at, now, Heard::NotExecuted)),
            Err(_) => self.record(|recorder| {
                recorder.timeouts += 1;
                recorder.hear(at, now, Heard::Unknown);
            }),
        }
    }

    fn hear_answer(&self, at: usize, answer: Option<(S::Answer, OpNumber)>) {
        let now = self.now();
        self.record(|recorder| {
            let heard = answer.map_or(Heard::Unknown, |(answer, op)| Heard::Answer(answer, op));
            recorder.acknowledged += 1;
            recorder.hear(at, now, heard);
        });
    }
}
