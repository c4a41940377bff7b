//! What faults that have a moment do to the world.

use vsr::network::NetworkEvent;
use vsr::protocol::OpNumber;

use super::{Planned, World, site};
use crate::faults::{Damage, TimedFault};
use crate::report::TraceKind;
use crate::report::timeline::State;

impl World {
    /// Carries out a fault, but for those that end or begin a process. Whether it had any effect.
    pub(crate) fn carry_out(&mut self, happening: &TimedFault) -> bool {
        if !self.has_nodes_of(happening) {
            return false;
        }
        match happening {
            TimedFault::Crash(..)
            | TimedFault::Restart(_)
            | TimedFault::Resume(_)
            | TimedFault::LoseDisk(_)
            | TimedFault::ReplaceDisk(_)
            | TimedFault::CopyDisk(_)
            | TimedFault::RestoreDisk(_)
            | TimedFault::Impostor(..) => {
                return false;
            }
            TimedFault::Partition { side, one_way, noticed } => self.begin_partition(side, *one_way, *noticed),
            TimedFault::Cut(from, to) => self.cut(*from, *to),
            TimedFault::Mend(from, to) => self.mend(*from, *to),
            TimedFault::Heal => self.heal_partition(),
            TimedFault::Clog { from, to, lasts } => self.clog(*from, *to, *lasts),
            TimedFault::Mute(node, kind, lasts) => self.mute(*node, kind, *lasts),
            TimedFault::Pause(replica) => return self.stand_still(*replica, false),
            TimedFault::Suspend(replica) => return self.stand_still(*replica, true),
            TimedFault::JumpWall(node, by) => self.jump_wall(*node, *by),
            TimedFault::LeapClock(node, by) => self.leap_clock(*node, *by),
            TimedFault::Rot(replica, op, damage) => return self.rot(*replica, *op, *damage),
            TimedFault::SlowDisk { replica, times, lasts } => self.slow_disk(*replica, *times, *lasts),
            TimedFault::StallDisk(replica) => self.stall_disk(*replica),
            TimedFault::ReleaseDisk(replica) => {
                self.release_disk(*replica);
                self.fault(*replica, None, || format!("r{replica}'s disk goes on"));
            }
            TimedFault::FullDisk(replica, lasts) => self.fill_disk(*replica, *lasts),
            TimedFault::BadSector(replica, op, puts) => return self.spoil(*replica, *op, *puts),
            TimedFault::NoSpace(replica, lasts) => self.take_space(*replica, *lasts),
            TimedFault::PeerDown { node, peer, refused } => {
                let peer = self.nodes[*peer].peer;
                self.arrive(*node, NetworkEvent::PeerDown { peer, refused: *refused });
            }
        }
        true
    }

    /// Whether this run has the nodes that a fault names.
    fn has_nodes_of(&self, happening: &TimedFault) -> bool {
        let (nodes, replicas) = (self.nodes.len(), self.replicas);
        match *happening {
            TimedFault::Partition { .. } | TimedFault::Heal => true,
            TimedFault::Cut(a, b)
            | TimedFault::Mend(a, b)
            | TimedFault::Clog { from: a, to: b, .. }
            | TimedFault::PeerDown { node: a, peer: b, .. } => a < nodes && b < nodes,
            TimedFault::Mute(node, ..) | TimedFault::JumpWall(node, _) | TimedFault::LeapClock(node, _) => node < nodes,
            TimedFault::Crash(replica, _)
            | TimedFault::Restart(replica)
            | TimedFault::Pause(replica)
            | TimedFault::Resume(replica)
            | TimedFault::Suspend(replica)
            | TimedFault::Rot(replica, ..)
            | TimedFault::SlowDisk { replica, .. }
            | TimedFault::StallDisk(replica)
            | TimedFault::ReleaseDisk(replica)
            | TimedFault::FullDisk(replica, _)
            | TimedFault::LoseDisk(replica)
            | TimedFault::ReplaceDisk(replica)
            | TimedFault::CopyDisk(replica)
            | TimedFault::RestoreDisk(replica)
            | TimedFault::Impostor(replica, _)
            | TimedFault::BadSector(replica, ..)
            | TimedFault::NoSpace(replica, _) => replica < replicas,
        }
    }

    // ---- links ----

    fn begin_partition(&mut self, side: &[usize], one_way: bool, noticed: bool) {
        self.partition(side, one_way, noticed);
        if !self.plan.given {
            let mut random = self.draw(site::HINT, self.now, 1);
            let lasts = 50_000_000 + random.below(2 * self.options.partition_every.as_nanos() as u64 + 1);
            let which = self.links.partitions();
            self.plan(self.now + lasts, Planned::EndOfPartition(which));
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.links.cut(from, to);
        self.trace.count("cut links");
        let (a, b) = (self.name_of(from), self.name_of(to));
        self.fault(usize::MAX, None, || format!("the link {a} > {b} is cut"));
    }

    fn mend(&mut self, from: usize, to: usize) {
        self.links.mend(from, to);
        let (a, b) = (self.name_of(from), self.name_of(to));
        self.fault(usize::MAX, None, || format!("the link {a} > {b} is whole again"));
    }

    fn clog(&mut self, from: usize, to: usize, lasts: u64) {
        let until = self.now + lasts;
        self.links.clog(from, to, until);
        self.trace.count("clogged links");
        let (a, b) = (self.name_of(from), self.name_of(to));
        self.fault(usize::MAX, Some(until), || format!("the link {a} > {b} is clogged"));
    }

    fn mute(&mut self, node: usize, kind: &'static str, lasts: u64) {
        let until = self.now + lasts;
        self.links.mute(node, kind, until);
        self.trace.count("muted senders");
        self.fault(node, Some(until), || format!("no {kind} of r{node} arrives"));
    }

    // ---- processes and clocks ----

    fn stand_still(&mut self, replica: usize, suspended: bool) -> bool {
        if !self.nodes[replica].up || self.nodes[replica].paused {
            return false;
        }
        self.note_clock(replica);
        self.nodes[replica].paused = true;
        self.nodes[replica].suspended = suspended.then_some(self.now);
        self.trace.count(if suspended { "suspended machines" } else { "pauses" });
        let clock = if suspended { ", its clock too" } else { "" };
        self.fault(replica, None, || format!("r{replica} stands still{clock}"));
        self.state(replica, State::Paused);
        true
    }

    fn jump_wall(&mut self, node: usize, by: i64) {
        self.note_clock(node);
        self.nodes[node].wall_offset = self.nodes[node].wall_offset.saturating_add(by);
        self.note_clock(node);
        self.trace.count("wall clock jumps");
        self.fault(node, None, || format!("r{node}'s wall clock jumps by {} ms", by / 1_000_000));
    }

    fn leap_clock(&mut self, node: usize, by: u64) {
        self.note_clock(node);
        self.nodes[node].clock_start += i64::try_from(by).unwrap_or(0);
        self.note_clock(node);
        self.has_leapt = true;
        self.trace.count("monotonic clock leaps");
        self.fault(node, None, || format!("r{node}'s clock leaps by {} ms", by / 1_000_000));
    }

    // ---- disks ----

    fn rot(&mut self, replica: usize, op: OpNumber, damage: Damage) -> bool {
        let hit = if self.files.is_some() {
            self.rot_on_files(replica, op, damage)
        } else {
            self.disks[replica].rot(op, damage)
        };
        if !hit {
            return false;
        }
        self.trace.count("rotten slots");
        self.trace.note(self.now, TraceKind::Rotten, replica as u64, op.0, u64::from(damage != Damage::Body));
        self.fault(replica, None, || format!("r{replica}'s copy of op {op} rots"));
        true
    }

    fn slow_disk(&mut self, replica: usize, times: u64, lasts: u64) {
        let until = self.now + lasts;
        self.nodes[replica].slow = (times, until);
        self.trace.count("slow disks");
        self.fault(replica, Some(until), || format!("r{replica}'s disk is {times} times as slow"));
    }

    fn stall_disk(&mut self, replica: usize) {
        self.nodes[replica].stalled = true;
        self.trace.count("stalled disks");
        self.fault(replica, None, || format!("r{replica}'s disk stalls"));
    }

    fn fill_disk(&mut self, replica: usize, lasts: u64) {
        let until = self.now + lasts;
        self.nodes[replica].full_until = until;
        self.trace.count("full disks");
        self.fault(replica, Some(until), || format!("r{replica}'s disk is full"));
    }

    fn spoil(&mut self, replica: usize, op: OpNumber, puts: u64) -> bool {
        let hit = if self.files.is_some() {
            self.rot_on_files(replica, op, Damage::Body)
        } else {
            self.disks[replica].spoil(op, puts)
        };
        if !hit {
            return false;
        }
        self.trace.count("bad sectors");
        self.trace.note(self.now, TraceKind::BadSector, replica as u64, op.0, puts);
        self.fault(replica, None, || format!("r{replica}'s place for op {op} is bad"));
        true
    }

    fn take_space(&mut self, replica: usize, lasts: u64) {
        let until = self.now + lasts;
        self.nodes[replica].no_space_until = until;
        self.fault(replica, Some(until), || format!("r{replica}'s disk has no room, and does not say so"));
    }
}
