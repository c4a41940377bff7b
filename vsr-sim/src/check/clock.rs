//! Time as the replicas agree on it (hazard D24; rule 5.11).

use vsr::protocol::Message;

use super::chain::Neighbours;
use super::{Checker, ClockRange, Interests, Observation, Scene};

/// The timestamp of an op that a primary prepares is the one after the last, or no further ahead than the median of the wall
/// clocks of a quorum, its own among them, can be: a minority of mad clocks moves it nowhere. Where every report arrives, it is
/// the median of all, and no further behind, either.
#[derive(Debug, Default)]
pub(super) struct WithinTheClocks(Neighbours);

impl Checker for WithinTheClocks {
    fn name(&self) -> &'static str {
        "timestamps-within-the-clocks"
    }

    fn wants(&self) -> Interests {
        Neighbours::wants()
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        // A StartView repeats what was prepared before it.
        let is_prepared = matches!(observation, Observation::Sent { message: Message::Prepare { .. }, .. });
        self.0.look(scene, observation, |replica, before, header| {
            let author = (header.view.number % scene.disks.len() as u64) as usize;
            // What was prepared elsewhere was looked at there.
            if !is_prepared || author != replica || scene.clocks.is_empty() {
                return Ok(());
            }
            // Where every report arrives, all of them count.
            let all = scene.clocks.iter().all(|clock| clock.lowest > 0);
            let count = if all { scene.clocks.len() } else { usize::from(scene.quorums.replication) };
            let (op, timestamp) = (header.op, header.timestamp.0);
            let least = before.map_or(1, |before| before.timestamp.0 + 1);
            let highest = highest_median(scene.clocks, replica, count);
            if timestamp > highest.max(least) {
                return Err(format!(
                    "r{replica} gives op {op} the timestamp {timestamp}, the median of a quorum's clocks is at most {highest}"
                ));
            }
            let lowest = lowest_median(scene.clocks, replica, count);
            if timestamp < lowest {
                return Err(format!(
                    "r{replica} gives op {op} the timestamp {timestamp}, the median of a quorum's clocks is at least {lowest}"
                ));
            }
            Ok(())
        })
    }
}

/// The lower median of `count` clocks: the replica's own, and the first of the others.
fn median(own: u64, others: &[u64], count: usize) -> u64 {
    let mut clocks = others[..count - 1].to_vec();
    clocks.push(own);
    clocks.sort_unstable();
    clocks[(count - 1) / 2]
}

fn of_others(clocks: &[ClockRange], own: usize, which: impl Fn(&ClockRange) -> u64) -> Vec<u64> {
    let others = clocks.iter().enumerate().filter(|(at, _)| *at != own);
    let mut others: Vec<u64> = others.map(|(_, clock)| which(clock)).collect();
    others.sort_unstable();
    others
}

/// The highest median of so many clocks, or more.
fn highest_median(clocks: &[ClockRange], own: usize, count: usize) -> u64 {
    let mut others = of_others(clocks, own, |clock| clock.highest);
    others.reverse();
    let medians = (count.max(1)..=clocks.len()).map(|count| median(clocks[own].highest, &others, count));
    medians.max().unwrap_or(u64::MAX)
}

fn lowest_median(clocks: &[ClockRange], own: usize, count: usize) -> u64 {
    let others = of_others(clocks, own, |clock| clock.lowest);
    let medians = (count.max(1)..=clocks.len()).map(|count| median(clocks[own].lowest, &others, count));
    medians.min().unwrap_or(0)
}
