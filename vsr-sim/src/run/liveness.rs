//! The two phases of a run: first faults, then a core that is healed and must serve.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vsr::protocol::{OpNumber, Timestamp};
use vsr::{Handle, QueryContext};

use super::cluster::{Run, Slot, Task};
use super::instrument::{Borrowed, Logged, Replay};
use super::simulation::{Oracle, Simulation};
use super::unrecoverable::{Unrecoverable, unrecoverable};
use crate::check::Violation;
use crate::check::linearizability::{ReferenceModel, check_model, check_real_time};
use crate::faults::Unsynced;
use crate::files::SimDisk;
use crate::report::budget::Measure;
use crate::report::{Report, Verdict};
use crate::workload::Simulated;
use crate::world::{Flag, World, lock, site};

impl<S: Simulated> Simulation<S> {
    /// Runs it. The same options give the same report.
    #[must_use]
    pub fn run(self) -> Report {
        Run::new(self).run()
    }
}

impl<S: Simulated> Run<S> {
    pub(crate) fn run(mut self) -> Report {
        let given = self.given.take();
        self.start_all();
        self.plan_faults(&given.unwrap_or_default());
        let safety_ends = self.options.safety.as_nanos() as u64;
        self.advance(safety_ends, Run::clients_are_done);
        let verdict = match self.violation() {
            Some(verdict) => verdict,
            None => self.liveness(),
        };
        let verdict = self.examine(verdict);
        self.report(verdict)
    }

    /// A run that has gone well: would its storages also say the truth of worse damage?
    fn examine(&self, verdict: Verdict) -> Verdict {
        if verdict.is_failure() {
            return verdict;
        }
        lock(&self.world).examine_files().map_or(verdict, Verdict::Safety)
    }

    /// Heals a core that is large enough to go on; what is broken outside it stays broken. Every
    /// request must now complete, and the core must agree.
    pub(crate) fn liveness(&mut self) -> Verdict {
        let core = self.choose_core();
        self.serve(core)
    }

    /// As [`liveness`](Self::liveness), with this core.
    pub(crate) fn serve(&mut self, core: Vec<usize>) -> Verdict {
        self.core.clone_from(&core);
        self.heal(&core);
        let healed = lock(&self.world).now;
        let until = healed + self.options.liveness.as_nanos() as u64;
        let entered = lock(&self.world).highest_entered;
        let before = self.answered();
        let is_asked = !self.clients_are_done();
        let cannot_lead = {
            let world = lock(&self.world);
            core.iter().filter(|&&at| !world.is_head_certain(at) || !world.disks[at].counts()).count()
        };
        self.figures.outside = self.options.replicas - core.len() + cannot_lead;
        self.figures.was_healed = is_asked;
        let traffic = lock(&self.world).traffic;
        let asked = self.recorder.lock().unwrap_or_else(PoisonError::into_inner).history.len() as u64;
        self.figures.carried_before = traffic.carried;
        self.figures.before = Duration::from_nanos(healed);
        self.figures.beats_before = traffic.beats;
        self.figures.reasons_before = traffic.highest + traffic.questions + asked;
        self.figures.views_before = entered;
        self.advance(until, |run| run.answered() > before || run.clients_are_done());
        self.figures.first_answer = Duration::from_nanos(lock(&self.world).now - healed);
        // A core that answers has the time that its work may take in this world: a far one is slow, and not stuck.
        let answers = self.answered() - before;
        let in_time = self.options.time_to_serve(self.figures.outside).as_nanos();
        let in_time = healed.saturating_add(u64::try_from(in_time).unwrap_or(u64::MAX));
        let until = if answers > 0 { until.max(in_time) } else { until };
        self.advance(until, Run::clients_are_done);
        self.figures.all_answers = Duration::from_nanos(lock(&self.world).now - healed);
        if let Some(verdict) = self.violation() {
            return verdict;
        }
        let done = self.clients_are_done();
        let mut agree = false;
        if done {
            // The last commit number, and what an unacknowledged request left, settle down.
            for _ in 0..40 {
                let until = lock(&self.world).now + 250_000_000;
                self.advance(until, |_| false);
                if let Some(verdict) = self.violation() {
                    return verdict;
                }
                agree = self.agree(&core);
                if agree {
                    break;
                }
            }
        }
        self.figures.views = lock(&self.world).highest_entered - entered;
        if done
            && agree
            && let Some(verdict) = self.impostors_end()
        {
            return verdict;
        }
        if done && agree {
            return self.check_history().map_or_else(|| self.check_budgets(), Verdict::Safety);
        }
        let stuck_for = Duration::from_nanos(lock(&self.world).now - healed);
        let answers = self.answered() - before;
        let why = self.explain(&core);
        match self.unrecoverable(&core) {
            Some(why) => self.rightly_stuck(&why, stuck_for),
            None => Verdict::Liveness(format!("core {core:?} does not go on, after {answers} answers: {why}")),
        }
    }

    /// Nothing can be served: then nothing may be made of it, either.
    fn rightly_stuck(&mut self, why: &Unrecoverable, stuck_for: Duration) -> Verdict {
        self.figures.stuck_for = stuck_for;
        match self.check_budgets() {
            Verdict::Pass => Verdict::Unrecoverable(why.to_string()),
            over => over,
        }
    }

    /// Answers that clients have heard so far.
    fn answered(&self) -> u64 {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).acknowledged
    }

    /// It serves, or is rightly stuck: but not as fast, or not as cheaply, as it should?
    fn check_budgets(&mut self) -> Verdict {
        let world = lock(&self.world);
        (self.figures.carried, self.figures.payload) = (world.traffic.carried, world.traffic.payload);
        drop(world);
        let measures = self.figures.measures(&self.options, self.is_planned());
        match measures.into_iter().find(Measure::is_over) {
            Some(over) => Verdict::Liveness(format!("over budget: {over}")),
            None => Verdict::Pass,
        }
    }

    fn choose_core(&mut self) -> Vec<usize> {
        let world = lock(&self.world);
        let mut random = world.draw(site::CORE, 0, 0);
        let counts = |at: &usize| world.disks[*at].counts();
        let here = (0..world.replicas).filter(|&at| !world.disks[at].is_lost());
        // Disks that have to rejoin are a burden on those that count.
        let (whole, mut joining): (Vec<usize>, Vec<usize>) = here.partition(counts);
        joining.retain(|_| random.chance(3, 4));
        // Fewer could not tell of an op without a copy that it is not committed.
        let least = usize::from(world.quorums.view_change.max(world.quorums.replication).max(world.quorums.nack));
        drop(world);
        let mut core = Vec::new();
        for _ in 0..20 {
            let size = least + random.below(whole.len().saturating_sub(least) as u64 + 1) as usize;
            core = whole.clone();
            while core.len() > size.min(whole.len()) {
                let gone = random.below(core.len() as u64) as usize;
                core.remove(gone);
            }
            if self.unrecoverable(&core).is_none() {
                break;
            }
        }
        core.extend(joining);
        core.sort_unstable();
        core
    }

    pub(crate) fn heal(&mut self, core: &[usize]) {
        let n = self.options.replicas;
        let nodes = {
            let mut world = lock(&self.world);
            world.faults_on = false;
            world.fault(usize::MAX, None, || format!("the core {core:?} is healed, the rest stays as it is"));
            world.links.heal();
            for &replica in core {
                world.release_disk(replica);
                world.nodes[replica].full_until = 0;
                (world.nodes[replica].no_space_until, world.nodes[replica].no_sync_until) = (0, 0);
                world.nodes[replica].slow = (1, 0);
            }
            world.nodes.len()
        };
        for node in 0..nodes {
            self.resume(node);
        }
        for replica in 0..n {
            if core.contains(&replica) {
                self.restart(replica);
            } else {
                self.damage_for_good(replica);
            }
        }
    }

    /// Harms a replica outside the core until the run ends: it is dead, deaf, mute or cut off, or its disk hangs.
    fn damage_for_good(&mut self, replica: usize) {
        let kind = lock(&self.world).draw(site::CORE, 1, replica as u64).below(6);
        let up = lock(&self.world).nodes[replica].up;
        if kind == 0 && up {
            self.stop(replica, Unsynced::Lost);
        }
        let mut world = lock(&self.world);
        if kind >= 4 {
            world.nodes[replica].stalled = true;
            world.trace.count("disks that hang for good");
            return;
        }
        for node in (0..world.nodes.len()).filter(|&node| node != replica) {
            if kind != 2 {
                world.links.cut(node, replica);
            }
            if kind >= 2 {
                world.links.cut(replica, node);
            }
        }
    }

    /// Whether these replicas are normal, in one view, with everything applied.
    pub(crate) fn agree(&self, core: &[usize]) -> bool {
        let statuses: Vec<_> = core.iter().filter_map(|&at| self.handles[at].as_ref().map(Handle::status)).collect();
        let Some(first) = statuses.first() else { return false };
        let world = lock(&self.world);
        statuses.len() == core.len()
            && core.iter().all(|&at| world.disks[at].counts())
            && statuses.iter().all(|status| {
                status.normal
                    && status.view == first.view
                    && status.applied == first.applied
                    && status.commit == first.commit
                    && status.applied == status.commit.op()
            })
    }

    /// What each of these replicas waits for, in its own words.
    pub(crate) fn explain(&mut self, core: &[usize]) -> String {
        let answers: Arc<Mutex<Vec<String>>> = Arc::default();
        for &replica in core {
            let Some(handle) = self.handles[replica].clone() else { continue };
            let answers = answers.clone();
            let flag = Arc::new(Flag::default());
            flag.set();
            let task: Task = Box::pin(async move {
                let status = handle.status();
                let text = handle.explain().await;
                let (head, commit, applied) = (status.head, status.commit, status.applied);
                let line = format!("r{replica} (head {head}, commit {commit}, applied {applied}): {text}");
                answers.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                None
            });
            self.slots.push(Some(Slot { node: replica, flag, task }));
        }
        let until = lock(&self.world).now + 50_000_000;
        self.advance(until, |_| false);
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        answers.sort();
        answers.join("; ")
    }

    /// Why a core may rightly be stuck: something that may be committed has no intact copy in it.
    fn unrecoverable(&self, core: &[usize]) -> Option<Unrecoverable> {
        let world = lock(&self.world);
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = recorder.executed.last_key_value().map_or(0, |(position, _)| position.op.0);
        let counts = |disk: &&SimDisk| disk.counts();
        let disks: Vec<_> = core.iter().map(|&at| &world.disks[at]).filter(counts).collect();
        let checkpoint = core.iter().map(|&at| world.newest_whole_checkpoint(at)).max().unwrap_or_default();
        unrecoverable(&disks, OpNumber(committed), checkpoint, world.quorums)
            .or_else(|| self.different_states(&world, core))
    }

    /// Whether a replica of the core lacks what is in no log any more, and nobody can be said to have the right state (rule 9.8).
    fn different_states(&self, world: &World, core: &[usize]) -> Option<Unrecoverable> {
        let applied = |at: &usize| self.handles[*at].as_ref().map_or(OpNumber::ZERO, |handle| handle.status().applied);
        let op = core.iter().map(|&at| world.disks[at].state().base()).max().unwrap_or_default();
        let (lacking, whole): (Vec<usize>, Vec<usize>) = core.iter().copied().partition(|at| applied(at) < op);
        // One outside the core may have told of a difference before it was cut off.
        let is_disputed = world.nodes.iter().any(|node| node.wrong);
        let right = whole.iter().filter(|&&at| !world.nodes[at].wrong).count();
        let is_undecided = is_disputed && right <= self.options.replicas / 2;
        (is_undecided && !lacking.is_empty()).then_some(Unrecoverable::DifferentStates { op })
    }

    /// The whole history is linearizable, and every reply is the model's.
    pub(crate) fn check_history(&self) -> Option<Violation> {
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let history = &recorder.history;
        let executed: Vec<_> = recorder
            .executed
            .iter()
            .map(|(position, done)| (*position, Logged(Some(done.context), done.command.clone())))
            .collect();
        let check = |model: &mut dyn ReferenceModel<_, _, _, _>| check_model(history, &executed, model);
        let result = check_real_time(history).and_then(|()| match &self.oracle {
            Oracle::None => Ok(()),
            Oracle::Machine => check(&mut Replay((self.machine)(), QueryContext::new(OpNumber(0), Timestamp(0)))),
            Oracle::Model(make) => check(&mut Borrowed::<S>(make())),
        });
        let message = result.err()?.to_string();
        Some(Violation { checker: "linearizable", message, at: lock(&self.world).now })
    }
}
