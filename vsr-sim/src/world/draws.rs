//! What is drawn: classes of faults, and what each hits, where it hurts and where the atlas allows it.

use std::time::Duration;

use vsr::protocol::{OpNumber, Random};

use super::disks::unsynced;
use super::{World, site};
use crate::faults::{Damage, Impostor, TimedFault, Unsynced};
use crate::options::Options;

/// What is drawn again and again, each class with its mean time between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
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

/// Every class; its place here is its number.
pub(crate) const CLASSES: [Class; 16] = [
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
    pub(crate) fn every(self, options: &Options) -> Duration {
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

/// Faults that were drawn.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    /// What happens now.
    pub(crate) now: Vec<TimedFault>,
    /// What happens later, and after how many nanoseconds.
    pub(crate) later: Vec<(u64, TimedFault)>,
}

impl Drawn {
    fn now(faults: impl IntoIterator<Item = TimedFault>) -> Drawn {
        Drawn { now: faults.into_iter().collect(), later: Vec::new() }
    }
}

/// The kinds of messages that are muted.
const MUTED: [&str; 8] =
    ["PrepareOk", "Prepare", "StartView", "DoViewChange", "StartViewChange", "Commit", "CommitOk", "Replies"];

/// Up to so many milliseconds, in nanoseconds.
fn millis(random: &mut Random, max: u64) -> u64 {
    1_000_000 * (1 + random.below(max))
}

impl World {
    /// Draws a fault of a class, for the `nth` time.
    pub(crate) fn draw_class(&mut self, class: usize, nth: u64) -> Drawn {
        let random = &mut self.draw(site::FAULT, class as u64, nth);
        match CLASSES[class] {
            Class::Crash => self.some_crashes(random),
            Class::Partition => Drawn::now([self.some_partition(random)]),
            Class::Flap => self.some_flapping(random),
            Class::Clog => {
                let (from, to) = self.any_link(random);
                let (from, to) = if random.chance(1, 2) { (from, to) } else { (to, from) };
                Drawn::now([TimedFault::Clog { from, to, lasts: millis(random, 1000) }])
            }
            Class::Mute => {
                let kind = MUTED[random.below(MUTED.len() as u64) as usize];
                Drawn::now([TimedFault::Mute(self.any_replica(random), kind, millis(random, 2000))])
            }
            Class::Pause => self.some_pause(random),
            Class::SlowDisk => {
                let (replica, times) = (self.any_replica(random), 10 + random.below(90));
                Drawn::now([TimedFault::SlowDisk { replica, times, lasts: millis(random, 2000) }])
            }
            Class::FullDisk => Drawn::now([TimedFault::FullDisk(self.any_replica(random), millis(random, 3000))]),
            // The first time is only the moment from which on they may go.
            Class::LoseDisk if nth > 1 => self.some_losses(random),
            Class::LoseDisk => Drawn::default(),
            Class::Rot => Drawn::now(self.some_rot(random)),
            Class::BadSector => Drawn::now(self.some_bad_sector(random)),
            Class::Doubt => self.some_doubt(random),
            Class::NoSpace => Drawn::now([TimedFault::NoSpace(self.any_replica(random), millis(random, 2000))]),
            Class::ClockJump => Drawn::now([self.some_clock_jump(random)]),
            Class::Depose => {
                self.trace.count("deposed primaries");
                self.some_deposition(random)
            }
            Class::LostTail => {
                let lost = self.some_lost_tail(random);
                if !lost.is_empty() {
                    self.trace.count("lost tails");
                }
                Drawn::now(lost)
            }
        }
    }

    /// Crashes of some replicas; of each of them four more, later, when it is the first of a loop.
    fn some_crashes(&self, random: &mut Random) -> Drawn {
        let torn = self.options.torn_writes;
        let (victims, mut later) = (self.victims(random), Vec::new());
        if random.below(100) < self.options.crash_loop_percent {
            let step = self.options.restart_after.as_nanos() as u64 * 2 + 20_000_000;
            for victim in &victims {
                let moments: Vec<u64> = (1..=4).map(|turn| turn * step + random.below(20_000_000)).collect();
                later.extend(moments.iter().map(|at| (*at, TimedFault::Crash(*victim, unsynced(random, torn)))));
            }
        }
        let now = victims.into_iter().map(|victim| TimedFault::Crash(victim, unsynced(random, torn))).collect();
        Drawn { now, later }
    }

    /// A link that is cut and mended again and again.
    fn some_flapping(&self, random: &mut Random) -> Drawn {
        let (from, to) = self.any_link(random);
        let (period, both) = (millis(random, 200), random.chance(1, 2));
        let mut later = Vec::new();
        for turn in 0..=(2 + random.below(10)) * 2 {
            let happening = |a, b| if turn % 2 == 0 { TimedFault::Cut(a, b) } else { TimedFault::Mend(a, b) };
            later.push((turn * period, happening(from, to)));
            if both {
                later.push((turn * period, happening(to, from)));
            }
        }
        let end = later.last().map_or(0, |(at, _)| *at) + period;
        later.extend([(end, TimedFault::Mend(from, to)), (end, TimedFault::Mend(to, from))]);
        Drawn { now: Vec::new(), later }
    }

    /// A replica stands still, in some pauses with its clock.
    fn some_pause(&self, random: &mut Random) -> Drawn {
        let replica = self.any_replica(random);
        let lasts = random.below(self.options.pause_max.as_nanos() as u64) + 1;
        let suspend = random.below(100) < self.options.suspend_percent;
        let pause = if suspend { TimedFault::Suspend(replica) } else { TimedFault::Pause(replica) };
        Drawn { now: vec![pause], later: vec![(lasts, TimedFault::Resume(replica))] }
    }

    fn some_clock_jump(&self, random: &mut Random) -> TimedFault {
        let (replica, by) = (self.any_replica(random), millis(random, 3_600_000));
        match random.below(3) {
            0 => TimedFault::JumpWall(replica, by as i64),
            1 => TimedFault::JumpWall(replica, -(by as i64)),
            _ => TimedFault::LeapClock(replica, by / 1000),
        }
    }
}

impl World {
    fn any_replica(&self, random: &mut Random) -> usize {
        random.below(self.replicas as u64) as usize
    }

    /// The disks that may go are gone. Most get a successor, and some successors go, too.
    fn some_losses(&self, random: &mut Random) -> Drawn {
        let lost = self.atlas.may_lose();
        let mut later = self.some_impostors(lost, random);
        if random.chance(1, 3) {
            // They are copied, and go on; older copies of them come back.
            for replica in lost {
                let mut at = 0;
                for _ in 0..=random.below(3) {
                    let (restart, restored) = (TimedFault::Restart(*replica), TimedFault::RestoreDisk(*replica));
                    later.push((at, TimedFault::CopyDisk(*replica)));
                    // After one start the copy has another one of the same number.
                    for _ in 0..=random.below(2) {
                        at += millis(random, 2000);
                        later.push((at, TimedFault::Crash(*replica, Unsynced::Kept)));
                        at += millis(random, 300);
                        later.push((at, restart.clone()));
                    }
                    at += millis(random, 3000);
                    let beside = random.chance(1, 2).then_some(TimedFault::Impostor(*replica, Impostor::Copy));
                    later.push((at, beside.unwrap_or(restored)));
                    at += millis(random, 3000);
                }
            }
            return Drawn { now: Vec::new(), later };
        }
        for replica in lost {
            let mut at = 0;
            while random.chance(3, 4) {
                at += millis(random, 2000);
                later.push((at, TimedFault::ReplaceDisk(*replica)));
                if random.chance(1, 2) {
                    break;
                }
                // Early ones are lost before they count, and leave pings behind them that ask for their place.
                let within = if random.chance(1, 2) { 60 } else { 2000 };
                at += millis(random, within);
                later.push((at, TimedFault::LoseDisk(*replica)));
            }
        }
        Drawn { now: lost.iter().map(|at| TimedFault::LoseDisk(*at)).collect(), later }
    }

    /// Disks that were never those of a replica whose own may go are taken for its own.
    fn some_impostors(&self, lost: &[usize], random: &mut Random) -> Vec<(u64, TimedFault)> {
        let mut later = Vec::new();
        for replica in lost {
            while random.chance(1, 3) {
                let other = self.any_replica(random);
                let of = if random.chance(1, 4) && other != *replica { Impostor::Of(other) } else { Impostor::New };
                later.push((millis(random, 8000), TimedFault::Impostor(*replica, of)));
            }
        }
        later
    }

    fn any_link(&self, random: &mut Random) -> (usize, usize) {
        let (from, other) = (random.below(self.parties() as u64) as usize, self.any_replica(random));
        if from == other { (from, (other + 1) % self.parties()) } else { (from, other) }
    }

    /// The primary, as far as any replica knows.
    pub(super) fn primary(&self) -> usize {
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

    fn some_partition(&self, random: &mut Random) -> TimedFault {
        let one_way = random.below(100) < self.options.one_way_percent;
        let isolate = random.chance(1, 2);
        // The primary in a minority, with some of the clients, is what deposes it unawares.
        let alone = if random.chance(1, 2) { self.primary() } else { self.any_replica(random) };
        let inside = |node: usize, random: &mut Random| {
            if isolate && node < self.replicas { node == alone } else { random.chance(1, 2) }
        };
        let side = (0..self.parties()).filter(|&node| inside(node, random)).collect();
        // Transports notice some of it: then the other side votes at once, and the cut-off one does not know.
        TimedFault::Partition { side, one_way, noticed: random.chance(1, 2) }
    }

    /// A slot that the atlas lets rot, mostly near the end, where it hurts.
    fn some_rot(&self, random: &mut Random) -> Vec<TimedFault> {
        let replica = self.any_replica(random);
        let put_again = &self.nodes[replica].put_again;
        if !put_again.is_empty() && random.chance(1, 4) {
            // With the next one goes the second copy of what is said of it.
            let op = put_again[random.below(put_again.len() as u64) as usize];
            let both = [op, op.next()].into_iter().filter(|op| self.atlas.may_rot(*op, replica));
            return both.map(|op| TimedFault::Rot(replica, op, Damage::Both)).collect();
        }
        self.any_rot(replica, random).into_iter().collect()
    }

    fn any_rot(&self, replica: usize, random: &mut Random) -> Option<TimedFault> {
        let head = self.disks[replica].head().0;
        let back = if random.chance(2, 3) { random.below(head.min(8)) } else { random.below(head) };
        let op = OpNumber(head.checked_sub(back).filter(|op| *op > 0)?);
        let damage = match random.below(12) {
            0 => Damage::Both,
            1 => Damage::End,
            _ => Damage::Body,
        };
        self.atlas.may_rot(op, replica).then_some(TimedFault::Rot(replica, op, damage))
    }

    /// Power is lost, and with it the last records, whole, of a log whose copies the atlas lets go: they were acknowledged, and
    /// all that is left is that the end cannot be read. Mostly one log at a time, as two of three may be too many.
    fn some_lost_tail(&self, random: &mut Random) -> Vec<TimedFault> {
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
    pub(super) fn lost_tail(&self, victim: usize, length: u64) -> Vec<TimedFault> {
        let head = self.disks[victim].head().0;
        let tail = (0..length).map(|back| OpNumber(head.saturating_sub(back)));
        let may_lose = |op: &OpNumber| *op > OpNumber::ZERO && self.atlas.may_rot(*op, victim);
        let tail = tail.take_while(may_lose).map(|op| TimedFault::Rot(victim, op, Damage::End));
        // What was not synced is gone, too: else it would come after them.
        std::iter::once(TimedFault::Crash(victim, Unsynced::Lost)).chain(tail).collect()
    }

    /// Cuts the primary off from the other replicas, for about as long as it takes them to notice; its clients still reach it.
    fn some_deposition(&self, random: &mut Random) -> Drawn {
        let primary = self.primary();
        let suspect = self.options.limits.timing.primary_timeout.as_nanos() as u64;
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
                    now.push(TimedFault::Cut(from, to));
                    later.push((lasts, TimedFault::Mend(from, to)));
                }
            }
            if random.chance(1, 2) {
                let down = TimedFault::PeerDown { node: other, peer: primary, refused: true };
                later.push((200_000 + random.below(3_000_000), down));
            }
        }
        Drawn { now, later }
    }

    /// A place that the atlas lets go bad, for some puts or for all that come: with what is there, or before anything is.
    fn some_bad_sector(&self, random: &mut Random) -> Option<TimedFault> {
        let replica = self.any_replica(random);
        let op = OpNumber((self.disks[replica].head().0 + random.below(24)).saturating_sub(8).max(1));
        let puts = [1, 2, 5, u64::MAX][random.below(4) as usize];
        self.atlas.may_rot(op, replica).then_some(TimedFault::BadSector(replica, op, puts))
    }
}
