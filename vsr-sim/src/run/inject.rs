//! The faults of a run that have a moment: when they come, and what they do.

use vsr::protocol::{DiskId, VsrState};

use super::cluster::Run;
use crate::check::Violation;
use crate::faults::{Fault, TimedFault, Unsynced};
use crate::workload::Simulated;
use crate::world::{CLASSES, Class, Drawn, Planned, lock, site};

impl<S: Simulated> Run<S> {
    /// Plans what was written down, or the first fault of every class.
    pub(crate) fn plan_faults(&mut self, given: &[Fault]) {
        let mut world = lock(&self.world);
        for fault in given {
            if let Fault::At(at, happening) = fault {
                world.plan(*at, Planned::TimedFault(happening.clone()));
            }
        }
        drop(world);
        if !self.is_planned() {
            (0..CLASSES.len()).for_each(|class| self.plan_next(class));
        }
    }

    /// Whether the faults of this run were written down, and none is drawn.
    pub(crate) fn is_planned(&self) -> bool {
        lock(&self.world).plan.given
    }

    fn plan_next(&mut self, class: usize) {
        let every = CLASSES[class].every(&self.options);
        if !every.is_zero() {
            self.drawn[class] += 1;
            let mut world = lock(&self.world);
            let mut random = world.draw(site::CLASS, class as u64, self.drawn[class]);
            let at = world.now + random.below(2 * every.as_nanos() as u64);
            world.plan(at, Planned::Draw(class));
        }
    }

    /// Draws a fault of a class, and lets it happen.
    pub(crate) fn draw_class(&mut self, class: usize) {
        if !lock(&self.world).faults_on {
            return;
        }
        let Drawn { now, later } = lock(&self.world).draw_class(class, self.drawn[class]);
        now.into_iter().for_each(|happening| self.happen_now(happening));
        let mut world = lock(&self.world);
        let moment = world.now;
        later.into_iter().for_each(|(after, happening)| world.plan(moment + after, Planned::TimedFault(happening)));
        drop(world);
        if CLASSES[class] != Class::LoseDisk || self.drawn[class] < 2 {
            self.plan_next(class);
        }
    }

    /// A replica loses the end of its log, if it may, and starts again soon.
    pub(crate) fn lose_tail(&mut self, victim: usize, tries: u32) {
        let lost = lock(&self.world).lose_tail(victim, tries);
        lost.into_iter().for_each(|happening| self.happen_now(happening));
    }

    /// Lets a fault happen, while faults are on, and notes that it did.
    pub(crate) fn happen_now(&mut self, happening: TimedFault) {
        if lock(&self.world).faults_on && self.carry_out(&happening) {
            let mut world = lock(&self.world);
            let now = world.now;
            world.plan.happened.push(Fault::At(now, happening));
        }
    }

    /// Whether it had any effect.
    pub(crate) fn carry_out(&mut self, happening: &TimedFault) -> bool {
        match happening {
            TimedFault::Crash(replica, unsynced) => self.crash(*replica, *unsynced),
            TimedFault::Restart(replica) => self.restart(*replica),
            TimedFault::Resume(replica) => self.resume(*replica),
            TimedFault::LoseDisk(replica) => self.lose_disk(*replica),
            TimedFault::ReplaceDisk(replica) => self.replace_disk(*replica),
            TimedFault::CopyDisk(replica) => lock(&self.world).copy_disk(*replica),
            TimedFault::RestoreDisk(replica) => self.restore_disk(*replica),
            TimedFault::Impostor(replica, of) => self.start_impostor(*replica, *of),
            _ => lock(&self.world).carry_out(happening),
        }
    }

    fn lose_disk(&mut self, replica: usize) -> bool {
        if replica >= self.options.replicas || lock(&self.world).disks[replica].is_lost() {
            return false;
        }
        self.stop(replica, Unsynced::Lost);
        let mut world = lock(&self.world);
        world.disks[replica].lose();
        world.trace.count("lost disks");
        world.fault(replica, None, || format!("r{replica}'s disk is gone"));
        true
    }

    /// A new disk is formatted for a replica whose disk is gone, and the replica starts on it (rule 7.19).
    pub(crate) fn replace_disk(&mut self, replica: usize) -> bool {
        let world = lock(&self.world);
        let is_wanted = world.disks.get(replica).is_some_and(|disk| disk.is_lost() || disk.is_old());
        if !is_wanted {
            return false;
        }
        let is_up = world.nodes[replica].up;
        drop(world);
        if is_up {
            self.stop(replica, Unsynced::Lost);
        }
        let mut world = lock(&self.world);
        let VsrState { cluster, replica: id, membership, .. } = world.disks[replica].state().clone();
        let nth = world.nodes[replica].life;
        let disk_id = DiskId(1 << 64 | u128::from(world.draw(site::RESTART, replica as u64, !nth).next_u64()));
        let Ok(state) = VsrState::replacing(cluster, id, disk_id, membership) else { return false };
        if let Some(files) = &mut world.files {
            match files.formatted(&state) {
                Ok(disk) => files.disks[replica] = disk,
                Err(error) => {
                    let (at, message) = (world.now, format!("r{replica}'s new disk is not formatted: {error}"));
                    world.breach(Violation { checker: "storage-keeps-its-contract", message, at });
                    return true;
                }
            }
        }
        world.disks[replica].replace(state);
        world.checkpoints.retain(|(node, _), _| *node != replica);
        world.coming.remove(&replica);
        world.trace.count("replaced disks");
        world.fault(replica, None, || format!("r{replica} gets a new disk"));
        drop(world);
        self.restart(replica)
    }

    /// An older copy of a disk takes its place, and the replica starts on it. Only where every other member remembers a later start of the replica,
    /// on its disk: else nobody could tell that it is one (rule 7.7).
    fn restore_disk(&mut self, replica: usize) -> bool {
        if !lock(&self.world).may_restore(replica) {
            return false;
        }
        if lock(&self.world).nodes[replica].up {
            self.stop(replica, Unsynced::Lost);
        }
        let mut world = lock(&self.world);
        world.put_copy_back(replica);
        drop(world);
        self.start(replica);
        true
    }

    fn crash(&mut self, replica: usize, unsynced: Unsynced) -> bool {
        if replica >= self.options.replicas {
            return false;
        }
        let up = lock(&self.world).nodes[replica].up;
        if up {
            self.stop(replica, unsynced);
        }
        // A machine that only lost its process still had what it wrote.
        let mut world = lock(&self.world);
        let lost = if world.files.is_some() {
            !up && world.lose_power_on_files(replica)
        } else {
            world.disks[replica].lose_power(unsynced)
        };
        if lost {
            world.trace.count("power lost after a failed sync");
            world.fault(replica, None, || format!("r{replica} loses power, and what was not synced"));
        }
        drop(world);
        if up {
            self.plan_restart(replica);
        }
        up || lost
    }

    /// A replica is started again, some time after it stopped.
    pub(crate) fn plan_restart(&mut self, replica: usize) {
        let mut world = lock(&self.world);
        if world.plan.given || !world.faults_on {
            return;
        }
        let mut random = world.draw(site::RESTART, replica as u64, world.nodes[replica].life);
        let at = world.now + random.below(2 * self.options.restart_after.as_nanos() as u64 + 1);
        world.plan(at, Planned::TimedFault(TimedFault::Restart(replica)));
    }

    pub(crate) fn restart(&mut self, replica: usize) -> bool {
        let mut world = lock(&self.world);
        if replica >= world.replicas || world.nodes[replica].up || world.disks[replica].is_lost() {
            return false;
        }
        if world.disks[replica].is_old() {
            // One that was told by nobody what it is, and is started again and again, would in the end have had more starts than the newest.
            drop(world);
            return self.replace_disk(replica);
        }
        world.trace.count("restarts");
        world.fault(replica, None, || format!("r{replica} restarts"));
        drop(world);
        self.start(replica);
        true
    }

    pub(crate) fn resume(&mut self, node: usize) -> bool {
        let mut world = lock(&self.world);
        if !world.nodes[node].paused {
            return false;
        }
        world.nodes[node].paused = false;
        world.wake_up(node);
        world.fault(node, None, || format!("r{node} goes on"));
        // Timers were planned for a clock that did not stand still.
        world.set_flags(node);
        true
    }
}
