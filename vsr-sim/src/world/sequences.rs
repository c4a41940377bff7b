//! Sequences of faults that hardly come about by themselves: reigns that end when they have just begun, and replicas that
//! are told of what they have lost, and die before they have it again.

use std::time::Duration;

use vsr::protocol::{OpNumber, Random};

use super::{Drawn, Planned, World, site};
use crate::faults::{TimedFault, WriteFate};

/// A moment of a reign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The replica is primary of the view that it has entered.
    Elected,
    /// The view has started there.
    Started,
    /// It has committed something in it for the first time.
    Committed,
}

/// A machine is started again within this time, in nanoseconds.
const SOON: u64 = 5_000_000;

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

// ---- short reigns ----

impl World {
    /// A replica leads a view (`started`), or is about to: what was kept of earlier terms arrives.
    pub(crate) fn leads(&mut self, replica: usize, view: u64, started: bool) {
        if view % self.replicas as u64 != replica as u64 {
            return;
        }
        if started {
            let before = self.nodes[replica].led.replace(view);
            if before.is_some_and(|before| before < view) {
                self.trace.count("led again");
            }
        }
        self.release_kept(replica, view, started);
        self.shorten_reign(replica, view, if started { Moment::Started } else { Moment::Elected });
    }

    /// Ends a reign that has just begun, in runs with short ones. Either its `StartView` is lost, and it is cut off from the
    /// other replicas as soon as it leads; or it is when it has committed what it has inherited. Its clients still reach
    /// it: so there are ops that only one replica has, of several views, and logs of a newer view whose ops are older.
    fn shorten_reign(&mut self, replica: usize, view: u64, moment: Moment) {
        if self.options.short_reigns == 0 || !self.faults_on || self.plan.given {
            return;
        }
        let mut random = self.draw(site::REIGN, view, 0);
        let (is_short, unheard) = (random.below(100) < self.options.short_reigns, random.chance(1, 2));
        if !is_short || unheard == (moment == Moment::Committed) {
            return;
        }
        let timing = self.options.limits.timing;
        let time_out = nanos(if unheard { timing.view_change_timeout } else { timing.primary_timeout });
        let lasts = 3 * time_out + random.below(3 * time_out);
        if moment == Moment::Elected {
            let at = self.now + 1;
            return self.plan(at, Planned::TimedFault(TimedFault::Mute(replica, "StartView", lasts)));
        }
        self.trace.count("reigns cut short");
        self.cut_off(replica, lasts);
    }

    /// A replica has committed something as primary.
    pub(super) fn commits_as_primary(&mut self, replica: usize, view: u64) {
        if self.nodes[replica].ruled.replace(view) != Some(view) {
            self.shorten_reign(replica, view, Moment::Committed);
        }
    }

    /// Cuts a replica off from the others, before anything that it sends now arrives.
    fn cut_off(&mut self, replica: usize, lasts: u64) {
        let at = self.now + 1;
        for other in (0..self.replicas).filter(|&other| other != replica) {
            for (from, to) in [(other, replica), (replica, other)] {
                self.plan(at, Planned::TimedFault(TimedFault::Cut(from, to)));
                self.plan(at + lasts, Planned::TimedFault(TimedFault::Mend(from, to)));
            }
        }
    }
}

// ---- what is told after it was lost ----

impl World {
    /// What a primary prepares reaches one replica alone, whose acknowledgements are lost. Soon it loses its log's end
    /// ([`Planned::LoseTail`]).
    pub(super) fn some_doubt(&mut self, random: &mut Random) -> Drawn {
        let primary = self.primary();
        let backups: Vec<usize> = (0..self.replicas).filter(|&at| at != primary).collect();
        let victim = backups[random.below(backups.len() as u64) as usize];
        let suspect = nanos(self.options.limits.timing.primary_timeout);
        let lasts = 3 * suspect + random.below(2 * suspect);
        let prepared = nanos((self.options.delay_longest() + self.options.write_longest()) * 2);
        let at = self.now + prepared + random.below(suspect / 4 + 1);
        self.plan(at, Planned::LoseTail { victim, tries: 4 });
        let (mut now, mut later) = (vec![TimedFault::Mute(victim, "PrepareOk", lasts)], Vec::new());
        for other in backups.into_iter().filter(|&other| other != victim) {
            now.push(TimedFault::Cut(primary, other));
            later.push((lasts, TimedFault::Mend(primary, other)));
        }
        Drawn { now, later }
    }

    /// Whether the vsr state on a disk calls the end of the log certain.
    pub(super) fn knows_end(&self, node: usize) -> bool {
        self.disks[node].state().head_certain
    }

    /// A replica writes down that its primary has told it of the lost end of its log: it may die before it has the bodies.
    pub(super) fn fate_of_named_end(&self, node: usize, nth: u64) -> Option<WriteFate> {
        let dies = !self.options.doubts_every.is_zero() && self.draw(site::NAMED, node as u64, nth).chance(3, 4);
        dies.then_some(WriteFate::CrashAfter)
    }

    /// It has died there. It starts again soon, and who has told it is cut off: the others begin a view without.
    pub(super) fn doubt_what_was_named(&mut self, node: usize) {
        if self.options.doubts_every.is_zero() {
            return;
        }
        let mut random = self.draw(site::NAMED, node as u64, self.now);
        let at = self.now + 1 + random.below(SOON);
        self.plan(at, Planned::TimedFault(TimedFault::Restart(node)));
        let (primary, suspect) = (self.primary(), nanos(self.options.limits.timing.primary_timeout));
        if primary != node {
            self.cut_off(primary, 3 * suspect + random.below(2 * suspect));
        }
    }

    /// The end of a log that may be lost now, so many records at most; nothing while it may not.
    fn tail_to_lose(&self, victim: usize, length: u64) -> Vec<TimedFault> {
        let head = self.disks[victim].head();
        let all_certain = (0..self.replicas).all(|replica| self.is_head_certain(replica));
        if !self.nodes[victim].up || !all_certain || head == OpNumber::ZERO || !self.atlas.may_rot(head, victim) {
            return Vec::new();
        }
        self.lost_tail(victim, length)
    }

    /// A replica loses the end of its log and starts again soon; while it may not lose it, that is tried again. What happens now.
    pub(crate) fn lose_tail(&mut self, victim: usize, tries: u32) -> Vec<TimedFault> {
        if !self.faults_on {
            return Vec::new();
        }
        let mut random = self.draw(site::DOUBT, victim as u64, self.now);
        let lost = self.tail_to_lose(victim, 1 + random.below(3));
        let at = self.now + 1 + random.below(SOON);
        if !lost.is_empty() {
            self.trace.count("doubted tails");
            self.plan(at, Planned::TimedFault(TimedFault::Restart(victim)));
        } else if tries > 0 {
            self.plan(at, Planned::LoseTail { victim, tries: tries - 1 });
        }
        lost
    }
}
