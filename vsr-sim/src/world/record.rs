//! What is kept of a run for a person to read.

use vsr::protocol::Peer;

use super::World;
use crate::report::Detail;
use crate::report::timeline::{CLUSTER, Record, State, What};

impl World {
    pub(crate) fn name_of(&self, node: usize) -> String {
        match self.nodes.get(node).map(|node| node.peer) {
            Some(Peer::Replica(id)) if node >= self.replicas => format!("another r{id}"),
            _ if node < self.replicas => format!("r{node}"),
            _ => format!("c{}", node - self.replicas),
        }
    }

    pub(crate) fn fault(&mut self, node: usize, until: Option<u64>, text: impl FnOnce() -> String) {
        let (at, lane) = (self.now, u32::try_from(node).unwrap_or(CLUSTER));
        self.trace.record(Detail::Events, || Record {
            at,
            lane,
            cause: None,
            what: What::Fault { text: text(), until },
        });
    }

    pub(crate) fn say(&mut self, node: usize, text: impl FnOnce() -> String) {
        let (at, cause) = (self.now, self.nodes[node].cause);
        self.trace.say(at, node as u32, cause, text);
    }

    /// Keeps the status of a replica, if it is another one than before.
    pub(crate) fn status(&mut self, node: usize, view: u64, state: State, primary: bool) {
        let (at, cause) = (self.now, self.nodes[node].cause);
        if self.nodes[node].status.replace((view, state, primary)) != Some((view, state, primary)) {
            let what = What::Status { view, state, primary };
            self.trace.record(Detail::Events, || Record { at, lane: node as u32, cause, what });
        }
    }

    /// As [`status`](Self::status), with the view that it had.
    pub(crate) fn state(&mut self, node: usize, state: State) {
        let (view, _, primary) = self.nodes[node].status.unwrap_or((0, state, false));
        self.status(node, view, state, primary && state == State::Normal);
    }

    /// Keeps head and commit number of a replica, if they are others than before.
    pub(crate) fn numbers(&mut self, node: usize, head: u64, commit: u64) {
        if !self.trace.keeps(Detail::Messages) || self.nodes[node].numbers == (head, commit) {
            return;
        }
        self.nodes[node].numbers = (head, commit);
        let (at, cause) = (self.now, self.nodes[node].cause);
        let what = What::Numbers { head, commit };
        self.trace.record(Detail::Messages, || Record { at, lane: node as u32, cause, what });
    }
}
