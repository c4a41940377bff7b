//! Trials of a whole cluster on simulated files.

use std::sync::PoisonError;

use vsr::protocol::OpNumber;

use super::cluster::Run;
use super::simulation::Simulation;
use crate::faults::Unsynced;
use crate::options::Options;
use crate::report::{Report, Verdict};
use crate::workload::Registers;
use crate::world::{lock, site};

/// Answers after which the disks are harmed.
const ANSWERS: u64 = 80;

/// Three replicas on file storage are stopped, one sector goes bad on each disk, each of another op, and they start
/// again. Every op has two intact copies: all three must serve, whatever the seed.
#[must_use]
pub fn three_bad_sectors(seed: u64) -> Report {
    let mut options = Options::calm(seed, 3);
    options.files = true;
    let mut run = Run::new(Simulation::with_queries(options, Registers::default, Registers::step));
    run.start_all();
    let until = run.options.safety.as_nanos() as u64;
    let recorder = run.recorder.clone();
    let answered = || recorder.lock().unwrap_or_else(PoisonError::into_inner).acknowledged >= ANSWERS;
    run.advance(until, |_| answered());
    if let Some(verdict) = run.violation() {
        return run.report(verdict);
    }
    let core = vec![0, 1, 2];
    core.iter().for_each(|replica| run.stop(*replica, Unsynced::Lost));
    let harmed = {
        let mut world = lock(&run.world);
        let mut random = world.draw(site::SECTOR, 3, 3);
        let head = core.iter().map(|at| world.disks[*at].head().0).min().unwrap_or_default();
        let mut harmed: Vec<OpNumber> = Vec::new();
        let mut count = 0;
        for (replica, percent) in core.iter().zip([30, 50, 70]) {
            let wanted = head * percent / 100 + random.below(4);
            // The nearest op that was not written together with one that another disk has lost.
            let one = (wanted.max(1)..=head).map(OpNumber).find(|op| {
                let with = world.written_with(*replica, *op);
                !with.is_empty() && with.iter().all(|op| !harmed.contains(op))
            });
            if let Some(op) = one {
                harmed.extend(world.bad_sector(*replica, op, &mut random));
                world.fault(*replica, None, || format!("a sector of op {op} on r{replica}'s disk goes bad"));
                count += 1;
            }
        }
        count
    };
    let verdict = if harmed == core.len() {
        run.serve(core)
    } else {
        Verdict::Liveness(format!("only {harmed} disks could be harmed: the log is too short"))
    };
    run.report(verdict)
}
