//! What a simulated client does, one request after the other, and what it records.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use vsr::protocol::{Monotonic, OpNumber, Peer, Position, Random};
use vsr::{Checksum, Client, Handle, QueryError, SubmitError};

use super::instrument::{Instrumented, Recorder, asked_command};
use crate::check::linearizability::{Asked, Heard};
use crate::check::{Observation, Unheard};
use crate::report::Detail;
use crate::report::timeline::{Record, What};
use crate::workload::{Simulated, Step, Workload};
use crate::world::{Life, SimClock, lock};

/// A client at work.
pub(crate) struct Worker<S: Simulated> {
    pub(crate) life: Life,
    pub(crate) client: u64,
    pub(crate) random: Random,
    pub(crate) workload: Workload<S>,
    pub(crate) queries_percent: u64,
    /// Whether it asks its replica for checkpoints.
    pub(crate) wants_checkpoints: bool,
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

    pub(crate) async fn on_client(&mut self, client: Client<Instrumented<S>>, requests: u32) {
        for _ in 0..requests {
            self.pause().await;
            let safety = lock(&self.life.world).faults_on;
            // In the liveness phase every request must complete, however long it takes.
            let limit = if safety && self.random.chance(1, 2) { 2 } else { 1_000_000 };
            let step = (self.workload)(&mut self.random, self.queries_percent);
            // A healed core has a place for every client, once it has served others.
            while self.ask_client(&client, step.clone(), Duration::from_secs(limit)).await && self.is_served() {
                self.pause().await;
            }
        }
    }

    /// Whether what is refused for now has to be taken in the end.
    fn is_served(&self) -> bool {
        let world = lock(&self.life.world);
        !world.faults_on && !world.options.limits.log_may_be_full()
    }

    /// A client that breaks its own rule waits for each answer for a while only, and ends with the faults. Whether it goes on.
    pub(crate) async fn on_rogue(&mut self, client: Client<Instrumented<S>>, requests: u32) -> bool {
        for _ in 0..requests {
            self.pause().await;
            if !lock(&self.life.world).faults_on {
                return false;
            }
            let limit = Duration::from_millis(300 + self.random.below(1500));
            let step = (self.workload)(&mut self.random, self.queries_percent);
            self.ask_client(&client, step, limit).await;
        }
        true
    }

    /// One operation of a client, answered within a limit or not. Whether there was no place for it.
    pub(crate) async fn ask_client(
        &mut self,
        client: &Client<Instrumented<S>>,
        step: Step<S::Command, S::Query>,
        limit: Duration,
    ) -> bool {
        match step {
            Step::Command(command) => {
                let (asked, id) = self.invoke_command(&command);
                let result = client.submit_within((id, command), limit).await;
                let is_busy = matches!(result, Err(SubmitError::Busy));
                self.hear_reply(asked, id, result.map(|reply| (reply.value, reply.position)), Some(limit));
                is_busy
            }
            Step::Query(query) => {
                let asked = self.invoke_query(&query);
                let result = client.query_within(query, limit).await;
                let is_busy = matches!(result, Err(QueryError::Busy));
                if let Err(error) = &result {
                    self.hear_refusal(asked, Unheard::Query(error), Some(limit));
                }
                self.hear_answer(asked, result.ok().map(|answer| (answer.value, answer.position)));
                is_busy
            }
        }
    }

    /// An application beside a replica uses its handle, until the replica is gone.
    pub(crate) async fn on_handle(&mut self, handle: Handle<Instrumented<S>>) {
        for _ in 0..20 {
            self.pause().await;
            if !lock(&self.life.world).faults_on {
                return;
            }
            if self.wants_checkpoints && self.random.chance(1, 4) {
                // Nobody waits for it.
                let _ = handle.checkpoint().now_or_never();
            }
            let step = (self.workload)(&mut self.random, self.queries_percent);
            let node = self.life.node;
            self.record(|recorder| recorder.waiting.insert(node));
            let goes_on = self.ask_handle(&handle, step).await;
            self.record(|recorder| recorder.waiting.remove(&node));
            if !goes_on {
                return;
            }
        }
    }

    /// One operation through the handle of a replica. False when the replica is gone.
    pub(crate) async fn ask_handle(
        &mut self,
        handle: &Handle<Instrumented<S>>,
        step: Step<S::Command, S::Query>,
    ) -> bool {
        match step {
            Step::Command(command) => {
                let (asked, id) = self.invoke_command(&command);
                let result = handle.submit_positioned((id, command)).await;
                let stopped = result.as_ref().is_err_and(|error| *error == SubmitError::Stopped);
                self.hear_reply(asked, id, result.map(|reply| (reply.value, reply.position)), None);
                !stopped
            }
            Step::Query(query) => {
                let asked = self.invoke_query(&query);
                match handle.query_positioned(query).await {
                    Ok(answer) => self.hear_answer(asked, Some((answer.value, answer.position))),
                    Err(error) => {
                        self.hear_refusal(asked, Unheard::Query(&error), None);
                        return false;
                    }
                }
                true
            }
        }
    }

    /// Keeps the beginning of an operation for the picture.
    fn tell_asked(&self, text: impl FnOnce() -> String) -> Option<u32> {
        let mut world = lock(&self.life.world);
        let (at, lane) = (world.now, self.life.node as u32);
        let short = |text: String| match text.char_indices().nth(60) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        };
        let what = || Record { at, lane, cause: None, what: What::Asked { text: short(text()) } };
        let asked = world.trace.record(Detail::Events, what);
        world.nodes[self.life.node].cause = asked;
        asked
    }

    fn tell_heard(&self, asked: Asking, text: impl FnOnce() -> String) {
        let mut world = lock(&self.life.world);
        let (at, lane, cause) = (world.now, self.life.node as u32, world.nodes[self.life.node].cause);
        if let Some(asked) = asked.record {
            world.trace.record(Detail::Events, || Record {
                at,
                lane,
                cause,
                what: What::Heard { asked, text: text() },
            });
        }
    }

    fn record<T>(&self, f: impl FnOnce(&mut Recorder<S>) -> T) -> T {
        f(&mut self.recorder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn invoke_command(&self, command: &S::Command) -> (Asking, u64) {
        let (client, now) = (self.client, self.now());
        let record = self.tell_asked(|| format!("{command:?}"));
        self.record(|recorder| {
            recorder.next_command += 1;
            let id = recorder.next_command;
            let at = recorder.invoke(client, now, asked_command::<S>(command.clone()));
            (Asking { at, record, since: now }, id)
        })
    }

    fn invoke_query(&self, query: &S::Query) -> Asking {
        let (client, now) = (self.client, self.now());
        let record = self.tell_asked(|| format!("{query:?}?"));
        self.record(|recorder| {
            let at = recorder.invoke(client, now, Asked::Query(query.clone()));
            Asking { at, record, since: now }
        })
    }

    /// A client gets no answer, and why.
    fn hear_refusal(&self, asked: Asking, why: Unheard<'_>, limit: Option<Duration>) {
        let mut world = lock(&self.life.world);
        let node = self.life.node;
        if !world.keeps_the_rules(node) {
            return;
        }
        let client = match world.nodes[node].peer {
            Peer::Client(client) => Some(client),
            Peer::Replica(_) => None,
        };
        let (waited, limit) = (world.now - asked.since, limit.map(|limit| limit.as_nanos() as u64));
        world.observe(&Observation::Refused { client, why, waited, limit });
    }

    fn hear_reply(
        &self,
        asked: Asking,
        id: u64,
        result: Result<(S::Reply, Position), SubmitError>,
        limit: Option<Duration>,
    ) {
        let now = self.now();
        self.tell_heard(asked, || match &result {
            Ok((reply, position)) => format!("{reply:?} at {position}"),
            Err(error) => error.to_string(),
        });
        match result {
            Ok((reply, position)) => {
                let checksum = Checksum::of(format!("{reply:?}").as_bytes());
                self.record(|recorder| {
                    recorder.acknowledged += 1;
                    recorder.hear(asked.at, now, Heard::Reply(reply, position));
                });
                let acknowledged = Observation::Acknowledged { command: id, position, reply: checksum };
                let mut world = lock(&self.life.world);
                world.trace.count("acknowledged");
                world.observe(&acknowledged);
            }
            Err(error) => {
                self.hear_refusal(asked, Unheard::Command(&error), limit);
                let words = error.to_string();
                let executed = executed_by(&words);
                self.record(|recorder| {
                    recorder.timeouts += u64::from(executed.is_none());
                    let heard = if executed == Some(false) { Heard::NotExecuted } else { Heard::Unknown };
                    recorder.hear(asked.at, now, heard);
                });
                let Some(executed) = executed else { return };
                let mut world = lock(&self.life.world);
                world.trace.count(if executed { "told that it was executed" } else { "told that it is not executed" });
                world.observe(&Observation::Told { command: id, executed, words: &words });
            }
        }
    }

    fn hear_answer(&self, asked: Asking, answer: Option<(S::Answer, OpNumber)>) {
        let now = self.now();
        self.tell_heard(asked, || match &answer {
            Some((answer, op)) => format!("{answer:?} as of op {op}"),
            None => "nothing".to_owned(),
        });
        self.record(|recorder| {
            let heard = answer.map_or(Heard::Unknown, |(answer, op)| Heard::Answer(answer, op));
            recorder.acknowledged += 1;
            recorder.hear(asked.at, now, heard);
        });
    }
}

/// Whether a command was executed, by the words that its client is told; none if they say that it is not known. A person acts on
/// nothing but these words, so they are what is held to be true, whichever kind of error says them.
fn executed_by(words: &str) -> Option<bool> {
    match words {
        words if words.contains("unknown") || words.contains("may ") => None,
        words if words.contains("not executed") => Some(false),
        words if words.contains("was executed") => Some(true),
        _ => None,
    }
}

/// An operation that waits for its outcome: where it stands in the history, and in the picture; and since when.
#[derive(Clone, Copy)]
struct Asking {
    at: usize,
    record: Option<u32>,
    since: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_whether_the_command_was_executed_or_that_it_is_unknown() {
        for (error, executed) in [
            (SubmitError::Busy, Some(false)),
            (SubmitError::TooLarge, Some(false)),
            (SubmitError::Undecodable, Some(false)),
            (SubmitError::Conflict, Some(false)),
            (SubmitError::Encode(vsr::codec::CodecError::TooDeep), Some(false)),
            (SubmitError::Unencodable, Some(true)),
            (SubmitError::Decode(vsr::codec::CodecError::TooDeep), Some(true)),
            (SubmitError::ReplyLost, Some(true)),
            (SubmitError::TimedOut, None),
            (SubmitError::Evicted, None),
            (SubmitError::LogFull, None),
            (SubmitError::Stopped, None),
        ] {
            assert_eq!(executed_by(&error.to_string()), executed, "{error}");
        }
    }
}
