//! The clocks of the nodes, and what checkers may know of them.

use super::{Node, World};
use crate::check::ClockRange;

impl World {
    /// The local time of a node.
    pub(crate) fn local_time(&self, node: usize) -> u64 {
        let Node { clock_start, clock_rate, suspended, .. } = self.nodes[node];
        let now = suspended.unwrap_or(self.now);
        match now.checked_mul(clock_rate) {
            Some(passed) => (passed / 1000).wrapping_add_signed(clock_start),
            None => (i128::from(clock_start) + i128::from(now) * i128::from(clock_rate) / 1000) as u64,
        }
    }

    /// When a node's clock will show `local`.
    pub(crate) fn when_local(&self, node: usize, local: u64) -> u64 {
        let Node { clock_start, clock_rate, .. } = self.nodes[node];
        let ahead = u128::try_from(i128::from(local) - i128::from(clock_start)).unwrap_or(0) * 1000;
        if let Ok(ahead) = u64::try_from(ahead) {
            return ahead.div_ceil(clock_rate);
        }
        u64::try_from(ahead.div_ceil(u128::from(clock_rate))).unwrap_or(u64::MAX / 2)
    }

    /// A machine that stood still goes on, with a clock that did not see the time pass.
    pub(crate) fn wake_up(&mut self, node: usize) {
        let now = self.now;
        let node = &mut self.nodes[node];
        if let Some(since) = node.suspended.take() {
            node.clock_start -= ((now - since) * node.clock_rate / 1000) as i64;
        }
    }

    /// The wall clock of a node.
    pub(crate) fn wall(&self, node: usize) -> u64 {
        let wall = 1_700_000_000_000_000_000_u64 + self.local_time(node);
        wall.saturating_add_signed(self.nodes[node].wall_offset)
    }

    /// Looks at a wall clock: before and after it jumps, and whenever it matters. In between it only drifts.
    pub(crate) fn note_clock(&mut self, node: usize) {
        let ahead = self.wall(node).saturating_sub(self.now);
        let (least, most) = &mut self.nodes[node].ahead;
        (*least, *most) = ((*least).min(ahead), (*most).max(ahead));
        self.clocks.0 = u64::MAX;
    }

    /// What a replica can think that the others' wall clocks show now: a report goes on at the pace of the replica's own clock
    /// while it is eight pings old or less.
    pub(crate) fn look_at_clocks(&mut self) {
        if self.clocks.0 == self.now {
            return;
        }
        (0..self.replicas).for_each(|replica| self.note_clock(replica));
        let old = self.options.limits.timing.ping.as_nanos() as u64 * 8;
        let drift = if self.has_leapt { old } else { old * self.options.drift_max / 400 };
        // A Ping that says something new of the replica's record waits for that: for the write under way, and the next.
        let waits = self.options.delay_longest() + self.options.write_longest() * 2;
        let late = waits.as_nanos() as u64 + 1_000_000;
        // Afterwards some replicas may be cut off for good.
        let is_reported = self.is_calm && self.faults_on && self.now > 2_000_000_000;
        let now = self.now;
        let range = |node: &Node| ClockRange {
            lowest: if is_reported { (node.ahead.0 + now).saturating_sub(late) } else { 0 },
            highest: node.ahead.1 + now + drift + 1_000_000,
        };
        self.clocks = (now, self.nodes[..self.replicas].iter().map(range).collect());
    }
}
