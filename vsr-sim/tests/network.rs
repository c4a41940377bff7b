//! The conformance suite on the network in memory, and on networks that break a clause each.

use std::sync::Arc;

use async_trait::async_trait;
use vsr::memory::{MemoryEndpoint, MemoryNetwork};
use vsr::network::{NetworkError, NetworkEvent};
use vsr::protocol::{Envelope, Message, Peer};
use vsr::{ClientId, Network, ReplicaId};
use vsr_sim::conformance::network::{self, Networks, REPLICAS};

struct Memory(MemoryNetwork);

fn memory() -> Memory {
    Memory(MemoryNetwork::new(usize::from(REPLICAS)))
}

impl Networks for Memory {
    fn replica(&mut self, id: ReplicaId) -> Arc<dyn Network> {
        Arc::new(self.0.endpoint(id))
    }

    fn client(&mut self, id: ClientId) -> Arc<dyn Network> {
        Arc::new(self.0.client(id))
    }

    /// It counts messages, not bytes.
    fn flood(&mut self) -> Option<(u64, usize)> {
        Some((100_000, 0))
    }
}

// It has no connections that could break, no port, and no limit to a message.
vsr_sim::network_conformance!(memory(), reliable, bounded);

#[derive(Clone, Copy, PartialEq)]
enum Defect {
    LosesWhatItTookWhenDropped,
    LeavesTheBatch,
    ConfusesSenders,
    ConfusesReceivers,
    ChangesContent,
    Repeats,
}

struct Defective(MemoryNetwork, Defect);

struct End(MemoryEndpoint, Defect);

fn defective(defect: Defect) -> Defective {
    Defective(memory().0, defect)
}

impl Networks for Defective {
    fn replica(&mut self, id: ReplicaId) -> Arc<dyn Network> {
        Arc::new(End(self.0.endpoint(id), self.1))
    }

    fn client(&mut self, id: ClientId) -> Arc<dyn Network> {
        Arc::new(End(self.0.client(id), self.1))
    }
}

#[async_trait]
impl Network for End {
    fn send(&self, batch: &mut Vec<Envelope>) {
        for envelope in &mut *batch {
            match (self.1, &mut envelope.to, &mut envelope.message) {
                (Defect::ConfusesReceivers, Peer::Replica(id), _) if id.0 == 2 => id.0 = 1,
                (Defect::ChangesContent, _, Message::Prepare { entry, .. }) if entry.body.len() > 1 => {
                    let mut body = entry.body.to_vec();
                    body[1] ^= 1;
                    entry.body = body.into();
                }
                _ => {}
            }
        }
        match self.1 {
            Defect::LeavesTheBatch if batch.len() > 1 => self.0.send(&mut batch.split_off(1)),
            Defect::Repeats => {
                self.0.send(&mut batch.clone());
                self.0.send(batch);
            }
            _ => self.0.send(batch),
        }
    }

    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
        let mut arrivals = self.0.recv().await?;
        if self.1 == Defect::LosesWhatItTookWhenDropped && arrivals.len() % 3 == 0 {
            let mut yielded = false;
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::replace(&mut yielded, true) {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
        }
        for arrival in &mut arrivals {
            if let (Defect::ConfusesSenders, NetworkEvent::Message { from, .. }) = (self.1, arrival)
                && *from == Peer::Replica(ReplicaId(2))
            {
                *from = Peer::Replica(ReplicaId(1));
            }
        }
        Ok(arrivals)
    }
}

#[test]
#[should_panic(expected = "dropping recv has lost")]
fn a_network_whose_recv_cannot_be_dropped_is_found() {
    network::dropping_recv_loses_nothing(&mut defective(Defect::LosesWhatItTookWhenDropped));
}

#[test]
#[should_panic(expected = "in the batch")]
fn a_network_that_leaves_messages_in_the_batch_is_found() {
    network::batches(&mut defective(Defect::LeavesTheBatch));
}

#[test]
#[should_panic(expected = "never sent to it")]
fn a_network_that_confuses_senders_is_found() {
    network::right_names(&mut defective(Defect::ConfusesSenders));
}

#[test]
#[should_panic(expected = "never sent to it")]
fn a_network_that_confuses_receivers_is_found() {
    network::batches(&mut defective(Defect::ConfusesReceivers));
}

#[test]
#[should_panic(expected = "has heard a Prepare")]
fn a_network_that_changes_a_body_is_found() {
    network::every_kind(&mut defective(Defect::ChangesContent));
}

#[test]
#[should_panic(expected = "out of order")]
fn a_network_that_repeats_is_not_a_reliable_one() {
    network::in_order(&mut defective(Defect::Repeats));
}

#[test]
fn a_network_that_repeats_keeps_the_contract() {
    network::right_names(&mut defective(Defect::Repeats));
    network::batches(&mut defective(Defect::Repeats));
    network::restarts(&mut defective(Defect::Repeats));
}
