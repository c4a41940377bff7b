//! The disks of the replicas: how long a write takes, and what becomes of it.

use vsr::protocol::{Batch, OpNumber, Random};

use super::{Planned, World, Wrote, site};
use crate::check::Observation;
use crate::faults::{Damage, ReadFate, TimedFault, Unsynced, WriteFate};
use crate::report::TraceKind;

/// Ops that are remembered of those that a disk has dropped and put again.
const PUT_AGAIN_MAX: usize = 8;

impl World {
    /// Whether a replica that starts now from this disk knows where its log ends.
    pub(crate) fn is_head_certain(&self, replica: usize) -> bool {
        let disk = &self.disks[replica];
        disk.is_head_certain() && disk.state().head_certain
    }

    /// A write begins: how long it takes, and what happens to it.
    pub(crate) fn begin_write(&mut self, node: usize, life: u64, batch: Batch) {
        self.trace.count("writes");
        self.nodes[node].writes += 1;
        let nth = self.nodes[node].writes;
        let ops: Vec<_> = batch.entries.iter().map(|entry| entry.header.op).collect();
        let names_end = batch.state.as_ref().is_some_and(|state| state.head_certain) && !self.knows_end(node);
        self.note_put_again(node, &batch);
        self.disks[node].begin(batch);
        let fate = if self.faults_on { self.write_fate(node, nth, &ops, names_end) } else { None };
        let mut latency = self.write_latency(node, site::WRITE, nth);
        self.nodes[node].wrote = None;
        self.nodes[node].write_cause = self.nodes[node].cause;
        match fate {
            Some(WriteFate::CrashIn(unsynced)) => return self.die(node, unsynced, "crashes in a write"),
            Some(WriteFate::Hang(more)) => {
                self.trace.count("hanging writes");
                let until = self.now + latency + more;
                self.fault(node, Some(until), || format!("r{node}'s write hangs"));
                latency += more;
            }
            _ => {}
        }
        let at = self.now + latency;
        self.plan(at, Planned::DiskDone { node, life, fate });
    }

    /// Where a disk drops an op and puts another one, the record of the older one is still there, under the newer one.
    fn note_put_again(&mut self, node: usize, batch: &Batch) {
        let head = self.disks[node].head();
        let node = &mut self.nodes[node];
        if let Some(above) = batch.truncate_above.filter(|above| *above < head) {
            node.dropped = (above.next(), head);
        }
        let (first, last) = node.dropped;
        for op in batch.entries.iter().map(|entry| entry.header.op).filter(|op| (first..=last).contains(op)) {
            if node.put_again.len() >= PUT_AGAIN_MAX {
                node.put_again.pop_front();
            }
            node.put_again.push_back(op);
        }
    }

    pub(crate) fn write_latency(&self, node: usize, site: u64, nth: u64) -> u64 {
        let mut random = self.draw(site, node as u64, nth);
        let spread = self.options.write_spread.as_nanos() as u64;
        let fraction = 1 << random.below(4);
        let (times, until) = self.nodes[node].slow;
        let times = if self.now < until { times } else { 1 };
        (self.options.write_min.as_nanos() as u64 + random.below(spread / fraction + 1)).saturating_mul(times)
    }

    fn write_fate(&mut self, node: usize, nth: u64, ops: &[OpNumber], names_end: bool) -> Option<WriteFate> {
        let mut random = self.draw(site::WRITE_FATE, node as u64, nth);
        let named = if names_end { self.fate_of_named_end(node, nth) } else { None };
        let options = &self.options;
        let (atlas, head) = (&self.atlas, self.disks[node].head());
        let (torn, on_files) = (options.torn_writes, self.files.is_some());
        self.plan.write(node, nth, || {
            if options.crash_in_write.happens(&mut random) {
                if random.chance(1, 3) {
                    return Some(WriteFate::CrashAfter);
                }
                return Some(WriteFate::CrashIn(unsynced(&mut random, torn)));
            }
            if options.write_errors.happens(&mut random) {
                return Some(WriteFate::Fail(unsynced(&mut random, true)));
            }
            if options.write_hangs.happens(&mut random) {
                return Some(WriteFate::Hang(random.below(3_000_000_000)));
            }
            let may_rot = |op: &OpNumber| atlas.may_rot(*op, node);
            // On files all of a write goes.
            let may_go = if on_files { !ops.is_empty() && ops.iter().all(may_rot) } else { ops.iter().any(may_rot) };
            if options.silent_writes.happens(&mut random) && may_go {
                return Some(WriteFate::Silent);
            }
            if options.misdirected_writes.happens(&mut random) && !ops.is_empty() && ops.iter().all(may_rot) {
                let onto = OpNumber(1 + random.below(head.0));
                return (may_rot(&onto) && !ops.contains(&onto)).then_some(WriteFate::Misdirect(onto));
            }
            if options.lost_records.happens(&mut random) && may_go {
                return Some(WriteFate::Vanish);
            }
            let fails = options.failed_syncs.happens(&mut random);
            fails.then(|| WriteFate::FailSync(random.below(2) * random.below(1_000_000_000))).or(named)
        })
    }

    /// A write has ended, in one way or another. Whether the replica is to hear of it.
    pub(crate) fn end_write(&mut self, node: usize, fate: Option<WriteFate>) {
        let (wrote, given) = (Wrote::Done, self.plan.given);
        let fate = self.end_on_files(node, fate);
        self.nodes[node].wrote = Some(wrote);
        match fate {
            Some(WriteFate::CrashAfter) => {
                let knew_end = self.knows_end(node);
                self.disks[node].complete();
                self.written(node);
                if !given && !knew_end && self.knows_end(node) {
                    self.doubt_what_was_named(node);
                }
                return self.die(node, Unsynced::Kept, "crashes after a write");
            }
            Some(WriteFate::Fail(unsynced)) => {
                self.trace.count("write errors");
                self.fault(node, None, || format!("r{node}'s write fails"));
                self.disks[node].crash(unsynced);
                self.nodes[node].wrote = Some(Wrote::Failed);
                self.poison(node, "its write failed");
            }
            Some(WriteFate::FailSync(lasts)) => {
                self.trace.count("failed syncs");
                self.fault(node, None, || format!("r{node}'s sync fails, what it wrote can still be read"));
                self.disks[node].fail_sync();
                self.nodes[node].wrote = Some(Wrote::Failed);
                self.nodes[node].no_sync_until = self.now + lasts;
                self.poison(node, "its sync failed");
                let mut random = self.draw(site::WRITE_FATE, node as u64, self.now);
                if !given && random.chance(1, 2) {
                    let after = random.below(2 * self.options.restart_after.as_nanos() as u64 + 1);
                    let lost = TimedFault::Crash(node, unsynced(&mut random, true));
                    self.plan(self.now + after, Planned::TimedFault(lost));
                }
            }
            Some(WriteFate::Silent) => {
                self.trace.count("writes lost without an error");
                self.fault(node, None, || format!("r{node}'s write is lost without an error"));
                let atlas = self.atlas.clone();
                self.disks[node].complete_silently(|op| !given && !atlas.may_rot(op, node));
            }
            Some(WriteFate::Vanish) => {
                self.trace.count("records lost whole");
                self.fault(node, None, || format!("r{node}'s records are lost without a trace"));
                let atlas = self.atlas.clone();
                self.disks[node].complete_without_a_trace(|op| !given && !atlas.may_rot(op, node));
            }
            Some(WriteFate::Misdirect(onto)) => {
                self.trace.count("misdirected writes");
                self.fault(node, None, || format!("r{node}'s write lands on the slot of op {onto}"));
                self.disks[node].complete_silently(|_| false);
                self.disks[node].rot(onto, Damage::Both);
            }
            _ => self.disks[node].complete(),
        }
        self.nodes[node].cause = self.nodes[node].write_cause;
        self.written(node);
        if let Some(flag) = &self.nodes[node].write_flag {
            flag.set();
        }
    }

    /// Nothing that the storage of a replica says in this life is to be believed any more.
    fn poison(&mut self, node: usize, how: &str) {
        self.nodes[node].poisoned = true;
        self.observe(&Observation::Broke { replica: node, must: true, how });
    }

    /// Whether a write of entries finds no room now. From then on the storage knows.
    pub(crate) fn finds_no_room(&mut self, node: usize) -> bool {
        let until = self.nodes[node].no_space_until;
        if !self.faults_on || self.now >= until {
            return false;
        }
        self.trace.count("writes without room");
        if self.nodes[node].full_until < until {
            self.fault(node, Some(until), || format!("r{node}'s write finds no room"));
            self.nodes[node].full_until = until;
        }
        true
    }

    fn written(&mut self, node: usize) {
        let now = self.now;
        self.trace.note(now, TraceKind::Written, node as u64, 0, 0);
        self.observe(&Observation::Written { replica: node });
    }

    /// What happens to a read that begins with this op.
    pub(crate) fn read_fate(&mut self, node: usize, first: OpNumber) -> Option<ReadFate> {
        self.trace.count("reads");
        self.nodes[node].reads += 1;
        let nth = self.nodes[node].reads;
        if !self.faults_on {
            return None;
        }
        let mut random = self.draw(site::READ, node as u64, nth);
        let (errors, astray) = (self.options.read_errors, self.options.misdirected_reads);
        let may_rot = self.atlas.may_rot(first, node);
        let fate = self.plan.read(node, nth, || {
            if errors.happens(&mut random) {
                Some(ReadFate::Fail)
            } else {
                (may_rot && astray.happens(&mut random)).then_some(ReadFate::Astray)
            }
        });
        match fate {
            Some(ReadFate::Fail) => {
                self.trace.count("read errors");
                if self.replicas == 1 {
                    let how = "a read failed, and no other replica has the entry";
                    self.observe(&Observation::Broke { replica: node, must: false, how });
                }
                self.fault(node, None, || format!("r{node}'s read fails"));
            }
            Some(ReadFate::Astray) => {
                self.trace.count("misdirected reads");
                self.fault(node, None, || format!("r{node}'s read of op {first} finds another entry"));
            }
            None => {}
        }
        fate
    }

    /// Writes complete again, and the one that waits does at once.
    pub(crate) fn release_disk(&mut self, replica: usize) {
        self.nodes[replica].stalled = false;
        if let Some((life, fate)) = self.nodes[replica].waiting.take() {
            self.plan(self.now, Planned::DiskDone { node: replica, life, fate });
        }
    }
}

/// What becomes of an unsynced write.
pub(super) fn unsynced(random: &mut Random, torn: bool) -> Unsynced {
    match random.below(if torn { 3 } else { 2 }) {
        0 => Unsynced::Lost,
        1 => Unsynced::Kept,
        _ => Unsynced::Torn(random.below(1000)),
    }
}
