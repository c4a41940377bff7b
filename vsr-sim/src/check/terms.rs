//! What a quorum has said in this very term (hazards I2, I16, B8; rules 6.5, 6.6, 8.1): a replica may be primary again, while
//! answers to its earlier terms still arrive.

use std::collections::{BTreeMap, VecDeque};

use vsr::ClientId;
use vsr::protocol::{Event, MEMBERS_MAX, Message, OpNumber, Peer, View};

use super::table::ByReplica;
use super::{Checker, Interests, Observation, Scene};

/// Whose turn it is to be primary of a view.
fn primary_of(scene: &Scene<'_>, view: View) -> usize {
    (view.number % scene.disks.len() as u64) as usize
}

fn member(peer: Peer) -> Option<usize> {
    match peer {
        Peer::Replica(id) => Some(usize::from(id.0)).filter(|&at| at < MEMBERS_MAX),
        Peer::Client(_) => None,
    }
}

/// Whoever knows an op to be committed is in the view in which it was committed, or in a later one: what a new disk knows to be committed bounds
/// what the lost one has promised (rule 7.19).
#[derive(Debug, Default)]
pub(super) struct KnownInItsView {
    /// Ops up to which primaries have committed, and the lowest view of one that has. In ascending order of both.
    committed: Vec<(OpNumber, View)>,
}

impl KnownInItsView {
    /// The view in which an op was committed, as far as its primary knew.
    fn view_of(&self, op: OpNumber) -> Option<View> {
        let at = self.committed.partition_point(|(up_to, _)| *up_to < op);
        self.committed.get(at).map(|(_, view)| *view)
    }

    /// A primary has the acknowledgements of its view: perhaps later than one of a later view has its own.
    fn commit(&mut self, op: OpNumber, view: View) {
        if self.view_of(op).is_none_or(|of| view < of) {
            self.committed.retain(|(up_to, of)| *up_to > op || *of < view);
            let at = self.committed.partition_point(|(up_to, _)| *up_to < op);
            self.committed.insert(at, (op, view));
        }
    }
}

impl Checker for KnownInItsView {
    fn name(&self) -> &'static str {
        "known-in-no-earlier-view"
    }

    fn wants(&self) -> Interests {
        Interests::COMMITTED
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Event { replica, core, event: Event::Committed { commit } } = observation else {
            return Ok(());
        };
        let (op, own) = (commit.op(), core.view());
        if core.is_primary() {
            self.commit(op, own);
        }
        match self.view_of(op).filter(|view| own < *view) {
            Some(view) => Err(format!(
                "r{replica} knows in view {own} that op {op} is committed, which it was in view {view} first"
            )),
            None => Ok(()),
        }
    }
}

/// A primary counts an op as committed when a replication quorum has acknowledged it in the present view: by a `PrepareOk` of
/// that view which has arrived, or by its own durable copy.
#[derive(Debug, Default)]
pub(super) struct CommittedInThisView {
    /// Of each view that a replica leads, the highest op that each member has acknowledged.
    heard: ByReplica<BTreeMap<View, [OpNumber; MEMBERS_MAX]>>,
}

impl Checker for CommittedInThisView {
    fn name(&self) -> &'static str {
        "committed-in-this-view"
    }

    fn wants(&self) -> Interests {
        Interests::RECEIVED | Interests::COMMITTED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Received { replica, from, message: Message::PrepareOk { view, op, .. } } => {
                let Some(from) = member(from).filter(|_| primary_of(scene, *view) == replica) else { return Ok(()) };
                let heard = self.heard.of(replica).entry(*view).or_default();
                heard[from] = heard[from].max(*op);
            }
            Observation::Event { replica, core, event: Event::Committed { commit } } if core.is_primary() => {
                let (op, view, heard) = (commit.op(), core.view(), self.heard.of(replica));
                heard.retain(|of, _| *of >= view);
                let others = heard.get(&view).copied().unwrap_or_default();
                let others = others.iter().enumerate().filter(|(at, acked)| *at != replica && **acked >= op).count();
                let own = scene.disks[replica].durable(op).is_some_and(|durable| core.checksum(op) == Some(durable));
                let (count, need) = (others + usize::from(own), usize::from(scene.quorums.replication));
                if count < need {
                    return Err(format!(
                        "r{replica} commits op {op} in view {view}, in which {count} of {need} have acknowledged it"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A replica answers a query, or gives an index to a peer, only after a round of confirmations that was sent when the question
/// had arrived: a replication quorum has answered a `Commit` of that view with that number, or a higher one. A backup: after the
/// answer to an ask that it sent then.
#[derive(Debug, Default)]
pub(super) struct ReadsAreConfirmed {
    /// Counts the observations.
    moment: u64,
    readers: ByReplica<Reader>,
}

#[derive(Debug, Default)]
struct Reader {
    /// The newest view that it leads, or led.
    view: View,
    /// The number of each round that is not confirmed, and when it was sent.
    rounds: VecDeque<(u64, u64)>,
    /// The highest round that was sent in the view.
    sent: u64,
    /// The highest round that each member has confirmed in the view.
    confirmed: [u64; MEMBERS_MAX],
    /// When the newest round that is confirmed, or ask that is answered, was sent.
    since: (u64, u64),
    /// When each ask of its own was sent first.
    asks: BTreeMap<u64, u64>,
    /// When each question of a peer, or of a client, has arrived first.
    peers: BTreeMap<u64, u64>,
    clients: BTreeMap<(ClientId, u64), u64>,
}

impl Reader {
    fn sends_round(&mut self, view: View, number: u64, moment: u64) {
        if view > self.view {
            (self.view, self.sent, self.confirmed) = (view, 0, [0; MEMBERS_MAX]);
            self.rounds.clear();
        }
        if view == self.view && number > self.sent {
            self.sent = number;
            self.rounds.push_back((number, moment));
        }
    }

    fn is_confirmed(&mut self, own: usize, from: usize, view: View, number: u64, quorum: u8) {
        if view != self.view || number > self.sent {
            return;
        }
        self.confirmed[from] = self.confirmed[from].max(number);
        let mut numbers = self.confirmed;
        numbers[own] = self.sent;
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let confirmed = numbers[usize::from(quorum) - 1];
        while let Some((_, sent_at)) = self.rounds.front().copied().filter(|(number, _)| *number <= confirmed) {
            self.since.0 = self.since.0.max(sent_at);
            self.rounds.pop_front();
        }
    }

    fn newest(&self) -> u64 {
        self.since.0.max(self.since.1)
    }
}

impl Checker for ReadsAreConfirmed {
    fn name(&self) -> &'static str {
        "reads-are-confirmed"
    }

    fn wants(&self) -> Interests {
        Interests::RECEIVED | Interests::COMMIT | Interests::ANSWERS | Interests::OTHER_MESSAGES
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        // A cluster of one asks no other member.
        if scene.quorums.replication < 2 {
            return Ok(());
        }
        self.moment += 1;
        let moment = self.moment;
        match *observation {
            Observation::Received { replica, from, message } => {
                let reader = self.readers.of(replica);
                match message {
                    Message::CommitOk { view, number, .. } => {
                        if let Some(from) = member(from) {
                            reader.is_confirmed(replica, from, *view, *number, scene.quorums.replication);
                        }
                    }
                    Message::ReadIndex { nonce } => _ = reader.peers.entry(*nonce).or_insert(moment),
                    Message::Query { client, nonce, .. } => {
                        reader.clients.entry((*client, *nonce)).or_insert(moment);
                    }
                    Message::ReadIndexOk { nonce, .. } => {
                        let asked = reader.asks.get(nonce).copied().unwrap_or(0);
                        reader.since.1 = reader.since.1.max(asked);
                    }
                    _ => {}
                }
            }
            Observation::Sent { replica, message } => {
                let reader = self.readers.of(replica);
                match message {
                    Message::Commit { view, number, .. } => reader.sends_round(*view, *number, moment),
                    Message::ReadIndex { nonce } => _ = reader.asks.entry(*nonce).or_insert(moment),
                    Message::ReadIndexOk { nonce, index } => {
                        let asked = reader.peers.get(nonce).copied();
                        if asked.is_none_or(|asked| reader.since.0 <= asked) {
                            let (view, rounds) = (reader.view, reader.rounds.len());
                            return Err(format!(
                                "r{replica} gives index {index} to a peer, and no round of view {view} that was sent since \
                                 it asked is confirmed: {rounds} are not"
                            ));
                        }
                    }
                    Message::Answer { client, nonce, answer: Ok(_), position, .. } => {
                        let arrived = reader.clients.remove(&(*client, *nonce));
                        if arrived.is_some_and(|arrived| reader.newest() <= arrived) {
                            let view = reader.view;
                            return Err(format!(
                                "r{replica} answers a query at op {position}, and neither a round, of view {view} the \
                                 last, nor an ask that it sent since the query came is confirmed"
                            ));
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}
