//! Breadth first through all states, and the way back from one that breaks a property.

use vsr::{Checksum, Membership};

use super::cluster::{Cluster, Failure, Step};
use super::facts::Broken;
use super::graph::Graph;
use super::visited::Visited;
use super::{Bounds, BoundsError, Counterexample, Exploration, Progress, REPLICAS_MAX, REQUESTS_MAX};

/// States between two reports of progress.
const REPORT: usize = 1 << 16;

/// Explores every schedule within the bounds. `progress` is told now and then how far it is.
///
/// # Errors
/// When the bounds cannot be explored.
pub fn explore(bounds: &Bounds, mut progress: impl FnMut(&Progress)) -> Result<Exploration, BoundsError> {
    if !(1..=REPLICAS_MAX).contains(&bounds.replicas) {
        return Err(BoundsError::Replicas(bounds.replicas));
    }
    if bounds.requests > REQUESTS_MAX {
        return Err(BoundsError::Requests(bounds.requests));
    }
    let addresses = (0..bounds.replicas).map(|id| format!("replica {id}"));
    let membership = Membership::new(addresses).map_err(|_| BoundsError::Replicas(bounds.replicas))?;
    let mut explorer = Explorer {
        graph: Graph::new(bounds, membership),
        visited: Visited::new(),
        origins: Vec::new(),
        start: Cluster::default(),
        progress: Progress::default(),
        bytes: Vec::new(),
    };
    let (complete, violation) = match explorer.run(&mut progress) {
        Ok(complete) => (complete, None),
        Err((state, steps, broken)) => (false, Some(explorer.explain(state, steps, broken))),
    };
    let Progress { states, transitions, depth, replica_states } = explorer.progress;
    Ok(Exploration { states, transitions, depth, replica_states, complete, violation })
}

struct Explorer {
    graph: Graph,
    visited: Visited,
    /// From which state, and as which of those that follow it, each state was met first. States are numbered
    /// as they are met.
    origins: Vec<(u32, u32)>,
    start: Cluster,
    progress: Progress,
    bytes: Vec<u8>,
}

impl Explorer {
    /// Whether everything was looked at. Fails with a state, and with steps that break a property after it.
    fn run(&mut self, progress: &mut dyn FnMut(&Progress)) -> Result<bool, (u32, Vec<Step>, Broken)> {
        let (nodes, history) = self.graph.boot().map_err(|broken| (0, Vec::new(), broken))?;
        self.start = Cluster::new(&self.graph.bounds, &nodes, history);
        let mut cluster = self.start.clone();
        let (mut level, mut next_level) = (Level::default(), Level::default());
        self.meet(&cluster, &mut level, (0, 0));
        let mut state = 0;
        while !level.ends.is_empty() {
            for place in 0..level.ends.len() {
                cluster.decode(level.words_of(place));
                self.follow(state, &cluster, &mut next_level).map_err(|(steps, broken)| (state, steps, broken))?;
                state += 1;
                if (state as usize).is_multiple_of(REPORT) {
                    progress(&self.progress);
                }
                if self.origins.len() >= self.graph.bounds.states_max {
                    return Ok(false);
                }
            }
            self.progress.depth += usize::from(!next_level.ends.is_empty());
            std::mem::swap(&mut level, &mut next_level);
            next_level.clear();
        }
        progress(&self.progress);
        Ok(true)
    }

    /// Meets everything that one round makes of a state.
    fn follow(&mut self, state: u32, cluster: &Cluster, next_level: &mut Level) -> Result<(), Failure> {
        let Explorer { graph, visited, origins, bytes, .. } = self;
        let mut ordinal = 0;
        self.progress.transitions += cluster.rounds(graph, &mut |next, _| {
            meet(next, next_level, (state, ordinal), visited, origins, bytes);
            ordinal += 1;
        })?;
        self.progress.states = self.origins.len();
        self.progress.replica_states = self.graph.replica_states();
        Ok(())
    }

    fn meet(&mut self, cluster: &Cluster, level: &mut Level, origin: (u32, u32)) {
        meet(cluster, level, origin, &mut self.visited, &mut self.origins, &mut self.bytes);
    }

    /// The steps from the start to a state.
    fn way_to(&mut self, mut state: u32) -> Vec<Step> {
        let mut ordinals = Vec::new();
        while state != 0 {
            let (before, ordinal) = self.origins[state as usize];
            ordinals.push(ordinal);
            state = before;
        }
        let mut cluster = self.start.clone();
        let mut way = Vec::new();
        for wanted in ordinals.into_iter().rev() {
            let (mut ordinal, mut next) = (0, cluster.clone());
            // Every round of a state that was left behind is within the properties.
            let _ = cluster.rounds(&mut self.graph, &mut |after, steps| {
                if ordinal == wanted {
                    next.clone_from(after);
                    way.extend_from_slice(steps);
                }
                ordinal += 1;
            });
            cluster = next;
        }
        way
    }

    /// The story of a violation, without the steps that can be left out.
    fn explain(&mut self, state: u32, last: Vec<Step>, broken: Broken) -> Counterexample {
        let mut steps = self.way_to(state);
        steps.extend(last);
        let mut message = broken.message;
        let mut at = steps.len();
        while at > 0 {
            at -= 1;
            let mut fewer = steps.clone();
            fewer.remove(at);
            let (made, _, still) = self.replay(&fewer);
            if let Some(still) = still.filter(|still| still.rule == broken.rule) {
                (steps, message) = (made, still.message);
                // What depended on it may be superfluous now.
                at = steps.len();
            }
        }
        let (_, cluster, _) = self.replay(&steps);
        let replicas = (0..self.graph.bounds.replicas).map(|at| cluster.describe_replica(at, &mut self.graph));
        let replicas = replicas.collect();
        Counterexample { rule: broken.rule, message, trace: self.describe(&steps), replicas }
    }

    /// Makes those of the steps that are possible, up to one that breaks a property: what was made, the state
    /// before the last, and what that broke.
    fn replay(&mut self, steps: &[Step]) -> (Vec<Step>, Cluster, Option<Broken>) {
        let (mut cluster, mut made) = (self.start.clone(), Vec::new());
        for step in steps {
            cluster.wake_all();
            if !cluster.can(*step, &self.graph) {
                continue;
            }
            made.push(*step);
            let mut next = cluster.clone();
            match next.step(*step, &mut self.graph) {
                Ok(_) => cluster = next,
                Err(broken) => return (made, cluster, Some(broken)),
            }
        }
        (made, cluster, None)
    }

    fn describe(&mut self, steps: &[Step]) -> Vec<String> {
        let mut cluster = self.start.clone();
        let mut lines = Vec::new();
        for step in steps {
            lines.push(cluster.describe(*step, &self.graph));
            let _ = cluster.step(*step, &mut self.graph);
        }
        lines
    }
}

fn meet(
    cluster: &Cluster,
    level: &mut Level,
    origin: (u32, u32),
    visited: &mut Visited,
    origins: &mut Vec<(u32, u32)>,
    bytes: &mut Vec<u8>,
) {
    level.push(cluster);
    bytes.clear();
    for word in level.words_of(level.ends.len() - 1) {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    if visited.insert(Checksum::of(bytes).0) {
        origins.push(origin);
    } else {
        level.pop();
    }
}

/// The states that are equally far from the start, one behind the other.
#[derive(Default)]
struct Level {
    words: Vec<u32>,
    ends: Vec<usize>,
}

impl Level {
    fn start_of(&self, place: usize) -> usize {
        place.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn words_of(&self, place: usize) -> &[u32] {
        &self.words[self.start_of(place)..self.ends[place]]
    }

    fn push(&mut self, cluster: &Cluster) {
        cluster.encode(&mut self.words);
        self.ends.push(self.words.len());
    }

    fn pop(&mut self) {
        self.ends.pop();
        self.words.truncate(self.start_of(self.ends.len()));
    }

    fn clear(&mut self) {
        self.words.clear();
        self.ends.clear();
    }
}
