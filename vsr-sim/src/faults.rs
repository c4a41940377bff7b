//! The faults of a run that have a moment: when they come, and what they do.

use std::time::Duration;

use vsr::network::Arrival;
use vsr::protocol::{OpNumber, Random};

use crate::disk::Damage;
use crate::machine::Simulated;
use crate::options::Options;
use crate::plan::{Fault, Happening, KINDS, Unsynced};
use crate::run::Run;
use crate::story::State;
use crate::world::{Planned, World, lock, site, unsynced};

/// Every ordered pair of replicas.
fn pairs(replicas: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..replicas).flat_map(move |node| (0..replicas).filter(move |&peer| peer != node).map(move |peer| (node, peer)))
}

/// What is drawn again and again, each class with its mean time between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Crash,
    Partition,
    Flap,
    Clog,
    Mute,
    Pause,
    SlowDisk,
    FullDisk,
    LoseDisk,
    Rot,
    ClockJump,
    Depose,
    LostTail,
    BadSector,
    NoSpace,
    Doubt,
}

const CLASSES: [Class; 16] = [
    Class::Crash,
    Class::Partition,
    Class::Flap,
    Class::Clog,
    Class::Mute,
    Class::Pause,
    Class::SlowDisk,
    Class::FullDisk,
    Class::LoseDisk,
    Class::Rot,
    Class::ClockJump,
    Class::Depose,
    Class::LostTail,
    Class::BadSector,
    Class::NoSpace,
    Class::Doubt,
];

impl Class {
    fn every(self, options: &Options) -> Duration {
        match self {
            Class::Crash => options.crash_every,
            Class::Partition => options.partition_every,
            Class::Flap => options.flap_every,
            Class::Clog => options.clog_every,
            Class::Mute => options.mute_every,
            Class::Pause => options.pause_every,
            Class::SlowDisk => options.slow_disk_every,
            Class::FullDisk => options.full_disk_every,
            Class::LoseDisk if options.lost_disks > 0 => Duration::from_secs(1),
            Class::LoseDisk => Duration::ZERO,
            Class::Rot => options.rot_every,
            Class::ClockJump => options.clock_jump_every,
            Class::Depose => options.depose_every,
            Class::LostTail => options.lost_tail_every,
            Class::BadSector => options.bad_sector_every,
            Class::NoSpace => options.no_space_every,
            Class::Doubt => options.doubts_every,
        }
    }
}

impl World {
    fn any_replica(&self, random: &mut Random) -> usize {
        random.below(self.replicas as u64) as usize
    }

    fn any_link(&self, random: &mut Random) -> (usize, usize) {
        let (from, other) = (random.below(self.nodes.len() as u64) as usize, self.any_replica(random));
        if from == other { (from, (other + 1) % self.nodes.len()) } else { (from, other) }
    }

    /// The primary, as far as anybody knows.
    pub(crate) fn primary(&self) -> usize {
        (self.highest_view % self.replicas as u64) as usize
    }

    /// A crash of the primary, or in the middle of a write, is where the bugs are.
    fn victims(&self, random: &mut Random) -> Vec<usize> {
        let up: Vec<usize> = (0..self.replicas).filter(|&replica| self.nodes[replica].up).collect();
        if random.below(100) < self.options.crash_all_percent {
            return up;
        }
        let writing: Vec<usize> = up.iter().copied().filter(|&replica| self.disks[replica].is_writing()).collect();
        let from = if up.contains(&self.primary()) && random.chance(1, 3) {
            vec![self.primary()]
        } else if !writing.is_empty() && random.chance(3, 4) {
            writing
        } else {
            up
        };
        let one = (!from.is_empty()).then(|| from[random.below(from.len() as u64) as usize]);
        one.into_iter().collect()
    }

    fn some_partition(&self, random: &mut Random) -> Happening {
        let one_way = random.below(100) < self.options.one_way_percent;
        let isolate = random.chance(1, 2);
        // The primary in a minority, with some of the clients, is what deposes it unawares.
        let alone = if random.chance(1, 2) { self.primary() } else { self.any_replica(random) };
        let inside = |node: usize, random: &mut Random| {
            if isolate && node < self.replicas { node == alone } else { random.chance(1, 2) }
        };
        let side = (0..self.nodes.len()).filter(|&node| inside(node, random)).collect();
        // Transports notice some of it: then the other side votes at once, and the cut-off one does not know.
        Happening::Partition { side, one_way, noticed: random.chance(1, 2) }
    }

    /// A slot that the atlas lets rot, mostly near the end, where it hurts.
    fn some_rot(&self, random: &mut Random) -> Option<Happening> {
        let replica = self.any_replica(random);
        let head = self.disks[replica].head().0;
        let back = if random.chance(2, 3) { random.below(head.min(8)) } else { random.below(head) };
        let op = OpNumber(head.checked_sub(back).filter(|op| *op > 0)?);
        let damage = match random.below(12) {
            0 => Damage::Both,
            1 => Damage::End,
            _ => Damage::Body,
        };
        self.atlas.may_rot(op, replica).then_some(Happening::Rot(replica, op, damage))
    }

    /// Power is lost, and with it the last records, whole, of a log whose copies the atlas lets go: they were acknowledged, and
    /// all that is left is that the end cannot be read. Mostly one log at a time, as two of three may be too many.
    fn some_lost_tail(&self, random: &mut Random) -> Vec<Happening> {
        let all_certain = (0..self.replicas).all(|replica| self.is_head_certain(replica));
        let may_lose = |replica: usize, op: OpNumber| op > OpNumber::ZERO && self.atlas.may_rot(op, replica);
        let fits = |&replica: &usize| self.nodes[replica].up && may_lose(replica, self.disks[replica].head());
        let victims: Vec<usize> = (0..self.replicas).filter(fits).collect();
        if victims.is_empty() || !(all_certain || random.chance(1, 8)) {
            return Vec::new();
        }
        let victim = victims[random.below(victims.len() as u64) as usize];
        self.lost_tail(victim, 1 + random.below(3))
    }

    /// Power is lost at a replica, and with it so many of the last records, as far as the atlas lets them go.
    pub(crate) fn lost_tail(&self, victim: usize, length: u64) -> Vec<Happening> {
        let head = self.disks[victim].head().0;
        let tail = (0..length).map(|back| OpNumber(head.saturating_sub(back)));
        let may_lose = |op: &OpNumber| *op > OpNumber::ZERO && self.atlas.may_rot(*op, victim);
        let tail = tail.take_while(may_lose).map(|op| Happening::Rot(victim, op, Damage::End));
        // What was not synced is gone, too: else it would come after them.
        std::iter::once(Happening::Crash(victim, Unsynced::Lost)).chain(tail).collect()
    }

    /// Cuts the primary off from the other replicas, for about as long as it takes them to notice; its clients still reach it.
    /// Says what happens now, and what later.
    fn some_deposition(&self, random: &mut Random) -> (Vec<Happening>, Vec<(u64, Happening)>) {
        let primary = self.primary();
        let suspect = self.options.limits.timing.suspect.as_nanos() as u64;
        let lasts = suspect / 2 + random.below(2 * suspect);
        let (deaf, mute) = match random.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for other in (0..self.replicas).filter(|&other| other != primary) {
            for (from, to) in [(other, primary), (primary, other)] {
                let is_cut = if to == primary { deaf } else { mute };
                if is_cut {
                    now.push(Happening::Cut(from, to));
                    later.push((lasts, Happening::Mend(from, to)));
                }
            }
            if random.chance(1, 2) {
                later.push((200_000 + random.below(3_000_000), Happening::PeerDown(other, primary, true)));
            }
        }
        (now, later)
    }

    /// A place that the atlas lets go bad, for a while or for ever: with what is there, or before anything is.
    fn some_bad_sector(&self, random: &mut Random) -> Option<Happening> {
        let replica = self.any_replica(random);
        let op = OpNumber((self.disks[replica].head().0 + random.below(24)).saturating_sub(8).max(1));
        let puts = [1, 2, 5, u64::MAX][random.below(4) as usize];
        self.atlas.may_rot(op, replica).then_some(Happening::BadSector(replica, op, puts))
    }
}

impl<S: Simulated> Run<S> {
    /// Plans what was written down, or the first fault of every class.
    pub(crate) fn plan_faults(&mut self, given: &[Fault]) {
        let mut world = lock(&self.world);
        for fault in given {
            if let Fault::At(at, happening) = fault {
                world.plan(*at, Planned::Happening(happening.clone()));
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
            world.plan(at, Planned::Class(class));
        }
    }

    /// Draws a fault of a class, and lets it happen.
    pub(crate) fn draw_class(&mut self, class: usize) {
        if !lock(&self.world).faults_on {
            return;
        }
        let mut random = lock(&self.world).draw(site::FAULT, class as u64, self.drawn[class]);
        let random = &mut random;
        let millis = |random: &mut Random, max: u64| 1_000_000 * (1 + random.below(max));
        let mut world = lock(&self.world);
        let mut later = Vec::new();
        let now = match CLASSES[class] {
            Class::Crash => {
                let torn = self.options.torn_writes;
                let victims = world.victims(random);
                if random.below(100) < self.options.crash_loop_percent {
                    let step = self.options.restart_after.as_nanos() as u64 * 2 + 20_000_000;
                    for victim in &victims {
                        let moments: Vec<u64> = (1..=4).map(|turn| turn * step + random.below(20_000_000)).collect();
                        later.extend(moments.iter().map(|at| (*at, Happening::Crash(*victim, unsynced(random, torn)))));
                    }
                }
                victims.into_iter().map(|victim| Happening::Crash(victim, unsynced(random, torn))).collect()
            }
            Class::Partition => vec![world.some_partition(random)],
            Class::Flap => {
                let (from, to) = world.any_link(random);
                let (period, both) = (millis(random, 200), random.chance(1, 2));
                for turn in 0..=(2 + random.below(10)) * 2 {
                    let happening = |a, b| if turn % 2 == 0 { Happening::Cut(a, b) } else { Happening::Mend(a, b) };
                    later.push((turn * period, happening(from, to)));
                    if both {
                        later.push((turn * period, happening(to, from)));
                    }
                }
                let end = later.last().map_or(0, |(at, _)| *at) + period;
                later.extend([(end, Happening::Mend(from, to)), (end, Happening::Mend(to, from))]);
                Vec::new()
            }
            Class::Clog => {
                let (from, to) = world.any_link(random);
                let (from, to) = if random.chance(1, 2) { (from, to) } else { (to, from) };
                vec![Happening::Clog(from, to, millis(random, 1000))]
            }
            Class::Mute => {
                let kinds = [
                    "PrepareOk",
                    "Prepare",
                    "StartView",
                    "DoViewChange",
                    "StartViewChange",
                    "Commit",
                    "CommitOk",
                    "Replies",
                ];
                let kind = kinds[random.below(kinds.len() as u64) as usize];
                vec![Happening::Mute(world.any_replica(random), kind, millis(random, 2000))]
            }
            Class::Pause => {
                let replica = world.any_replica(random);
                let lasts = random.below(self.options.pause_max.as_nanos() as u64) + 1;
                later.push((lasts, Happening::Resume(replica)));
                let suspend = random.below(100) < self.options.suspend_percent;
                vec![if suspend { Happening::Suspend(replica) } else { Happening::Pause(replica) }]
            }
            Class::SlowDisk => {
                let (replica, times) = (world.any_replica(random), 10 + random.below(90));
                vec![Happening::SlowDisk(replica, times, millis(random, 2000))]
            }
            Class::FullDisk => vec![Happening::FullDisk(world.any_replica(random), millis(random, 3000))],
            Class::LoseDisk if self.drawn[class] > 1 => {
                world.atlas.may_lose().iter().map(|at| Happening::LoseDisk(*at)).collect()
            }
            Class::LoseDisk => Vec::new(),
            Class::Rot => world.some_rot(random).into_iter().collect(),
            Class::BadSector => world.some_bad_sector(random).into_iter().collect(),
            Class::Doubt => world.some_doubt(random, &mut later),
            Class::NoSpace => vec![Happening::NoSpace(world.any_replica(random), millis(random, 2000))],
            Class::ClockJump => {
                let (replica, by) = (world.any_replica(random), millis(random, 3_600_000));
                match random.below(3) {
                    0 => vec![Happening::JumpWall(replica, by as i64)],
                    1 => vec![Happening::JumpWall(replica, -(by as i64))],
                    _ => vec![Happening::LeapClock(replica, by / 1000)],
                }
            }
            Class::Depose => {
                world.trace.count("deposed primaries");
                let (now, mended) = world.some_deposition(random);
                later.extend(mended);
                now
            }
            Class::LostTail => {
                let lost = world.some_lost_tail(random);
                if !lost.is_empty() {
                    world.trace.count("lost tails");
                }
                lost
            }
        };
        drop(world);
        now.into_iter().for_each(|happening| self.happen_now(happening));
        let mut world = lock(&self.world);
        let moment = world.now;
        later.into_iter().for_each(|(after, happening)| world.plan(moment + after, Planned::Happening(happening)));
        drop(world);
        if CLASSES[class] != Class::LoseDisk || self.drawn[class] < 2 {
            self.plan_next(class);
        }
    }

    /// Lets a fault happen, while faults are on, and notes that it did.
    pub(crate) fn happen_now(&mut self, happening: Happening) {
        if lock(&self.world).faults_on && self.carry_out(&happening) {
            let mut world = lock(&self.world);
            let now = world.now;
            world.plan.happened.push(Fault::At(now, happening));
        }
    }

    /// Whether it had any effect.
    #[allow(clippy::too_many_lines, reason = "one arm for each fault")]
    pub(crate) fn carry_out(&mut self, happening: &Happening) -> bool {
        let nodes = lock(&self.world).nodes.len();
        match happening {
            Happening::Crash(replica, unsynced) => return self.crash(*replica, *unsynced),
            Happening::Restart(replica) => return self.restart(*replica),
            Happening::Resume(replica) => return self.resume(*replica),
            _ => {}
        }
        let mut guard = lock(&self.world);
        let world = &mut *guard;
        let now = world.now;
        match happening {
            Happening::Crash(..) | Happening::Restart(_) | Happening::Resume(_) => {}
            Happening::Partition { side, one_way, noticed } => {
                world.partition(side, *one_way, *noticed);
                if !world.plan.given {
                    let mut random = world.draw(site::HINT, now, 1);
                    let lasts = 50_000_000 + random.below(2 * world.options.partition_every.as_nanos() as u64 + 1);
                    let which = world.links.partition;
                    world.plan(now + lasts, Planned::EndOfPartition(which));
                }
            }
            Happening::Cut(from, to) if *from < nodes && *to < nodes => {
                world.links.cut[*from][*to] = true;
                world.trace.count("cut links");
                let (a, b) = (world.name_of(*from), world.name_of(*to));
                world.fault(usize::MAX, None, || format!("the link {a} > {b} is cut"));
            }
            Happening::Mend(from, to) if *from < nodes && *to < nodes => {
                world.links.cut[*from][*to] = false;
                let (a, b) = (world.name_of(*from), world.name_of(*to));
                world.fault(usize::MAX, None, || format!("the link {a} > {b} is whole again"));
            }
            Happening::Heal => world.heal_partition(),
            Happening::Clog(from, to, lasts) if *from < nodes && *to < nodes => {
                world.links.clogged[*from][*to] = now + lasts;
                world.trace.count("clogged links");
                let (a, b) = (world.name_of(*from), world.name_of(*to));
                world.fault(usize::MAX, Some(now + lasts), || format!("the link {a} > {b} is clogged"));
            }
            Happening::Mute(node, kind, lasts) if *node < nodes => {
                world.links.muted[*node] = Some((kind, now + lasts));
                world.trace.count("muted senders");
                world.fault(*node, Some(now + lasts), || format!("no {kind} of r{node} arrives"));
            }
            Happening::Pause(replica) | Happening::Suspend(replica) if *replica < world.replicas => {
                if !world.nodes[*replica].up || world.nodes[*replica].paused {
                    return false;
                }
                let suspended = matches!(happening, Happening::Suspend(_));
                world.note_clock(*replica);
                world.nodes[*replica].paused = true;
                world.nodes[*replica].suspended = suspended.then_some(now);
                world.trace.count(if suspended { "suspended machines" } else { "pauses" });
                let clock = if suspended { ", its clock too" } else { "" };
                world.fault(*replica, None, || format!("r{replica} stands still{clock}"));
                world.state(*replica, State::Paused);
            }
            Happening::JumpWall(node, by) if *node < nodes => {
                world.note_clock(*node);
                world.nodes[*node].wall_offset = world.nodes[*node].wall_offset.saturating_add(*by);
                world.note_clock(*node);
                world.trace.count("wall clock jumps");
                world.fault(*node, None, || format!("r{node}'s wall clock jumps by {} ms", by / 1_000_000));
            }
            Happening::LeapClock(node, by) if *node < nodes => {
                world.note_clock(*node);
                world.nodes[*node].clock_start += i64::try_from(*by).unwrap_or(0);
                world.note_clock(*node);
                world.has_leapt = true;
                world.trace.count("monotonic clock leaps");
                world.fault(*node, None, || format!("r{node}'s clock leaps by {} ms", by / 1_000_000));
            }
            Happening::Rot(replica, op, damage) if *replica < world.replicas => {
                let hit = if world.files.is_some() {
                    world.rot_on_files(*replica, *op, *damage)
                } else {
                    world.disks[*replica].rot(*op, *damage)
                };
                if !hit {
                    return false;
                }
                world.trace.count("rotten slots");
                world.trace.note(now, 1008, *replica as u64, op.0, u64::from(*damage != Damage::Body));
                world.fault(*replica, None, || format!("r{replica}'s copy of op {op} rots"));
            }
            Happening::SlowDisk(replica, times, lasts) if *replica < world.replicas => {
                world.nodes[*replica].slow = (*times, now + lasts);
                world.trace.count("slow disks");
                world.fault(*replica, Some(now + lasts), || format!("r{replica}'s disk is {times} times as slow"));
            }
            Happening::StallDisk(replica) if *replica < world.replicas => {
                world.nodes[*replica].stalled = true;
                world.trace.count("stalled disks");
                world.fault(*replica, None, || format!("r{replica}'s disk stalls"));
            }
            Happening::ReleaseDisk(replica) if *replica < world.replicas => {
                world.release_disk(*replica);
                world.fault(*replica, None, || format!("r{replica}'s disk goes on"));
            }
            Happening::FullDisk(replica, lasts) if *replica < world.replicas => {
                world.nodes[*replica].full_until = now + lasts;
                world.trace.count("full disks");
                world.fault(*replica, Some(now + lasts), || format!("r{replica}'s disk is full"));
            }
            Happening::LoseDisk(replica) if *replica < world.replicas => {
                if world.disks[*replica].is_lost() {
                    return false;
                }
                drop(guard);
                self.stop(*replica, Unsynced::Lost);
                let mut world = lock(&self.world);
                world.disks[*replica].lose();
                world.trace.count("lost disks");
                world.fault(*replica, None, || format!("r{replica}'s disk is gone"));
            }
            Happening::BadSector(replica, op, puts) if *replica < world.replicas => {
                let hit = if world.files.is_some() {
                    world.rot_on_files(*replica, *op, Damage::Body)
                } else {
                    world.disks[*replica].spoil(*op, *puts)
                };
                if !hit {
                    return false;
                }
                world.trace.count("bad sectors");
                world.trace.note(now, 1009, *replica as u64, op.0, *puts);
                world.fault(*replica, None, || format!("r{replica}'s place for op {op} is bad"));
            }
            Happening::NoSpace(replica, lasts) if *replica < world.replicas => {
                world.nodes[*replica].no_space_until = now + lasts;
                world.fault(*replica, Some(now + lasts), || {
                    format!("r{replica}'s disk has no room, and does not say so")
                });
            }
            Happening::PeerDown(node, peer, refused) if *node < nodes && *peer < nodes => {
                let peer = world.nodes[*peer].peer;
                world.arrive(*node, Arrival::PeerDown { peer, refused: *refused });
            }
            // It names a node that this run does not have.
            _ => return false,
        }
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

    /// Somebody starts a replica again, some time after it stopped.
    pub(crate) fn plan_restart(&mut self, replica: usize) {
        let mut world = lock(&self.world);
        if world.plan.given || !world.faults_on {
            return;
        }
        let mut random = world.draw(site::RESTART, replica as u64, world.nodes[replica].life);
        let at = world.now + random.below(2 * self.options.restart_after.as_nanos() as u64 + 1);
        world.plan(at, Planned::Happening(Happening::Restart(replica)));
    }

    pub(crate) fn restart(&mut self, replica: usize) -> bool {
        let mut world = lock(&self.world);
        if replica >= world.replicas || world.nodes[replica].up || world.disks[replica].is_lost() {
            return false;
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

impl World {
    /// No message crosses from these nodes to the others; nor back, unless it is one-way.
    pub(crate) fn partition(&mut self, side: &[usize], one_way: bool, noticed: bool) {
        let (now, nodes) = (self.now, self.nodes.len());
        let inside = |node: usize| side.contains(&node);
        for from in 0..nodes {
            for to in 0..nodes {
                self.links.blocked[from][to] = inside(from) != inside(to) && !(one_way && inside(to));
            }
        }
        self.links.partition += 1;
        self.trace.count(if one_way { "one-way partitions" } else { "partitions" });
        self.trace.note(now, 1007, self.links.partition, u64::from(one_way), 0);
        let names: Vec<String> = side.iter().filter(|&&node| node < nodes).map(|&node| self.name_of(node)).collect();
        let sign = if one_way { ">" } else { "|" };
        self.fault(usize::MAX, None, || format!("partition: {} {sign} the rest", names.join(" ")));
        if !noticed {
            return;
        }
        let mut random = self.draw(site::HINT, now, 0);
        for (node, peer) in pairs(self.replicas) {
            if inside(node) != inside(peer) && random.chance(2, 3) {
                let refused = random.chance(1, 2);
                let at = now + 100_000 + random.below(5_000_000);
                self.plan(at, Planned::PeerDown { node, peer, refused });
            }
        }
    }

    pub(crate) fn heal_partition(&mut self) {
        for table in [&mut self.links.blocked, &mut self.links.cut] {
            table.iter_mut().for_each(|row| row.fill(false));
        }
        self.fault(usize::MAX, None, || "the partition heals".to_owned());
        let mut random = self.draw(site::HINT, self.now, 2);
        for (node, peer) in pairs(self.replicas) {
            if self.nodes[peer].up {
                let at = self.now + 1_000_000 + random.below(50_000_000);
                self.plan(at, Planned::PeerUp { node, peer });
            }
        }
    }

    /// Writes complete again, and the one that waits does at once.
    pub(crate) fn release_disk(&mut self, replica: usize) {
        self.nodes[replica].stalled = false;
        if let Some((life, fate)) = self.nodes[replica].waiting.take() {
            self.plan(self.now, Planned::DiskDone { node: replica, life, fate });
        }
    }

    /// Whatever a node waits for, it looks again.
    pub(crate) fn set_flags(&mut self, node: usize) {
        let node = &self.nodes[node];
        for flag in [&node.inbox_flag, &node.write_flag].into_iter().flatten() {
            flag.set();
        }
    }
}

/// A kind of message by its name.
pub(crate) fn kind_of(name: &str) -> Option<&'static str> {
    KINDS.iter().find(|kind| **kind == name).copied()
}
