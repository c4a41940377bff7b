//! The faults of a run: when they come, and what they do.

use std::time::Duration;

use vsr::OpNumber;

use crate::machine::Simulated;
use crate::options::Options;
use crate::run::Run;
use crate::world::{FaultEvent, Planned, lock};

/// Every ordered pair of replicas.
fn pairs(replicas: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..replicas).flat_map(move |node| (0..replicas).filter(move |&peer| peer != node).map(move |peer| (node, peer)))
}

impl<S: Simulated> Run<S> {
    pub(crate) fn plan_faults(&mut self) {
        let Options { crash_every, partition_every, pause_every, rot_every, .. } = self.options;
        let classes = [
            (crash_every, FaultEvent::Crash),
            (partition_every, FaultEvent::Partition),
            (pause_every, FaultEvent::Pause),
            (rot_every, FaultEvent::Rot),
        ];
        for (every, fault) in classes {
            self.plan_next(every, fault);
        }
    }

    pub(crate) fn plan_next(&mut self, every: Duration, fault: FaultEvent) {
        if !every.is_zero() {
            let mut world = lock(&self.world);
            let at = world.now + world.random.below(2 * every.as_nanos() as u64);
            world.plan(at, Planned::Fault(fault));
        }
    }

    pub(crate) fn fault(&mut self, fault: FaultEvent) {
        if !lock(&self.world).faults_on {
            return;
        }
        match fault {
            FaultEvent::Crash => {
                self.crash_some();
                self.plan_next(self.options.crash_every, fault);
            }
            FaultEvent::Restart(replica) => self.restart(replica),
            FaultEvent::Partition => {
                self.partition();
                self.plan_next(self.options.partition_every, fault);
            }
            FaultEvent::HealPartition(which) => {
                let mut world = lock(&self.world);
                if world.partition == which {
                    world.blocked.iter_mut().for_each(|row| row.fill(false));
                    let now = world.now;
                    world.trace.line(now, || "the partition heals".to_owned());
                    let replicas = world.replicas;
                    for (node, peer) in pairs(replicas) {
                        if world.nodes[peer].up {
                            let at = now + 1_000_000 + world.random.below(50_000_000);
                            world.plan(at, Planned::PeerUp { node, peer });
                        }
                    }
                }
            }
            FaultEvent::Pause => {
                self.pause();
                self.plan_next(self.options.pause_every, fault);
            }
            FaultEvent::Resume(node) => self.resume(node),
            FaultEvent::Rot => {
                self.rot();
                self.plan_next(self.options.rot_every, fault);
            }
        }
    }

    pub(crate) fn restart(&mut self, replica: usize) {
        if !lock(&self.world).nodes[replica].up {
            let mut world = lock(&self.world);
            world.trace.count("restarts");
            let now = world.now;
            world.trace.line(now, || format!("r{replica} restarts"));
            drop(world);
            self.start(replica);
        }
    }

    pub(crate) fn crash_some(&mut self) {
        let replicas = self.options.replicas;
        let mut world = lock(&self.world);
        let all = world.random.below(100) < self.options.crash_all_percent;
        let up: Vec<usize> = (0..replicas).filter(|&replica| world.nodes[replica].up).collect();
        let writing: Vec<usize> = up.iter().copied().filter(|&replica| world.disks[replica].is_writing()).collect();
        let primary = (world.highest_view % replicas as u64) as usize;
        // A crash of the primary, or in the middle of a write, is where the bugs are.
        let from = if up.contains(&primary) && world.random.chance(1, 3) {
            vec![primary]
        } else if !writing.is_empty() && world.random.chance(3, 4) {
            writing
        } else {
            up.clone()
        };
        let victims = if all {
            up
        } else if from.is_empty() {
            Vec::new()
        } else {
            vec![from[world.random.below(from.len() as u64) as usize]]
        };
        drop(world);
        for victim in victims {
            self.stop(victim);
            let mut world = lock(&self.world);
            let at = world.now + world.random.below(2 * self.options.restart_after.as_nanos() as u64 + 1);
            world.plan(at, Planned::Fault(FaultEvent::Restart(victim)));
        }
    }

    pub(crate) fn partition(&mut self) {
        let mut guard = lock(&self.world);
        let world = &mut *guard;
        let (nodes, replicas) = (world.nodes.len(), world.replicas);
        world.blocked.iter_mut().for_each(|row| row.fill(false));
        let one_way = world.random.below(100) < self.options.one_way_percent;
        let isolate = world.random.chance(1, 2);
        // The primary in a minority, with some of the clients, is what deposes it unawares.
        let primary = (world.highest_view % replicas as u64) as usize;
        let alone = if world.random.chance(1, 2) { primary } else { world.random.below(replicas as u64) as usize };
        let side: Vec<bool> = (0..nodes)
            .map(|node| if isolate && node < replicas { node == alone } else { world.random.chance(1, 2) })
            .collect();
        for from in 0..nodes {
            for to in 0..nodes {
                world.blocked[from][to] = from != to && side[from] != side[to] && !(one_way && side[from]);
            }
        }
        world.partition += 1;
        world.trace.count(if one_way { "one-way partitions" } else { "partitions" });
        let (now, which) = (world.now, world.partition);
        world.trace.note(now, 1007, which, u64::from(one_way), 0);
        world.trace.line(now, || {
            let cut: Vec<String> = (0..replicas).filter(|&at| side[at]).map(|at| format!("r{at}")).collect();
            format!("partition{}: {} | the rest", if one_way { " (one way)" } else { "" }, cut.join(" "))
        });
        // Transports notice some of it: then the other side votes at once, and the cut-off one does not know.
        let hints = world.random.chance(1, 2);
        for (node, peer) in pairs(replicas) {
            if hints && side[node] != side[peer] && world.random.chance(2, 3) {
                let refused = world.random.chance(1, 2);
                let at = now + 100_000 + world.random.below(5_000_000);
                world.plan(at, Planned::PeerDown { node, peer, refused });
            }
        }
        let lasts = 50_000_000 + world.random.below(2 * self.options.partition_every.as_nanos() as u64);
        world.plan(now + lasts, Planned::Fault(FaultEvent::HealPartition(which)));
    }

    pub(crate) fn pause(&mut self) {
        let mut world = lock(&self.world);
        let replica = world.random.below(self.options.replicas as u64) as usize;
        if world.nodes[replica].up && !world.nodes[replica].paused {
            world.nodes[replica].paused = true;
            world.trace.count("pauses");
            let now = world.now;
            world.trace.line(now, || format!("r{replica} is paused"));
            let lasts = world.random.below(self.options.pause_max.as_nanos() as u64) + 1;
            world.plan(now + lasts, Planned::Fault(FaultEvent::Resume(replica)));
        }
    }

    pub(crate) fn resume(&mut self, node: usize) {
        let mut world = lock(&self.world);
        if world.nodes[node].paused {
            world.nodes[node].paused = false;
            let now = world.now;
            world.trace.line(now, || format!("r{node} goes on"));
        }
    }

    /// Rots one slot, within what the atlas allows: of each op, fewer copies than a replication quorum.
    pub(crate) fn rot(&mut self) {
        let mut guard = lock(&self.world);
        let world = &mut *guard;
        let replica = world.random.below(self.options.replicas as u64) as usize;
        let head = world.disks[replica].head().0;
        if head == 0 {
            return;
        }
        // Mostly near the end, where it hurts.
        let back = if world.random.chance(2, 3) { world.random.below(head.min(8)) } else { world.random.below(head) };
        let op = OpNumber(head - back);
        if !crate::atlas::may_rot(self.options.seed, op, replica, world.replicas, world.quorums) {
            return;
        }
        let both = world.random.chance(1, 6);
        let damage = if both { crate::disk::Damage::Both } else { crate::disk::Damage::Body };
        if world.disks[replica].rot(op, damage) {
            world.trace.count("rotten slots");
            let now = world.now;
            world.trace.note(now, 1008, replica as u64, op.0, u64::from(both));
            world.trace.line(now, || format!("r{replica}'s copy of op {op} rots"));
        }
    }

    // ---- the liveness phase ----
}
