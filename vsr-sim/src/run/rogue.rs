//! Clients that break the rules of a client (rules 5.1, 5.2): an id used by two at once, an id that comes back, numbers, floors
//! and commands that no library sends. Their requests are refused, or executed once, and no other client is given the reply.

use std::sync::Arc;

use futures::future::{Either, select};
use vsr::protocol::Peer;
use vsr::{Client, ClientConfig, ClientId};

use super::cluster::{Run, Slot};
use super::instrument::Instrumented;
use crate::workload::Simulated;
use crate::world::{Flag, Life, Misdeed, SimClock, SimNetwork, lock, site};

impl<S: Simulated> Run<S> {
    /// A client that will break its rule, under an id of its own or under that of another client.
    pub(crate) fn add_rogue(&mut self, rogue: usize) {
        let mut world = lock(&self.world);
        let mut random = world.draw(site::ROGUE, rogue as u64, 0);
        let another = self.options.replicas + random.below(self.options.clients as u64) as usize;
        let misdeed = Misdeed::draw(&mut random, self.membership.constants.request_max, another);
        let own = Peer::Client(ClientId((u128::from(random.next_u64()) << 32) | (0x1_0000 + rogue as u128)));
        let shares = misdeed == Misdeed::SharesId || (misdeed != Misdeed::Returns && random.chance(1, 3));
        let peer = world.nodes.get(another).filter(|_| shares).map_or(own, |node| node.peer);
        let node = world.add_node(peer);
        world.nodes[node].misdeed = Some(misdeed);
        drop(world);
        let life = self.life(node);
        self.rogues.push(life);
    }

    /// Puts it to work while faults are on: again and again a new client under the id that it has, that knows of none before it.
    pub(crate) fn let_loose(&mut self, rogue: usize) {
        let Some(life) = self.rogues.get(rogue).cloned() else { return };
        let life = Life { flag: Arc::new(Flag::default()), ..life };
        life.flag.set();
        let (peer, mut random) = {
            let world = lock(&self.world);
            (world.nodes[life.node].peer, world.draw(site::ROGUE, rogue as u64, 1))
        };
        let Peer::Client(id) = peer else { return };
        let mut worker = self.worker(life.clone(), ((self.options.clients + rogue) * 8) as u64);
        let (members, window, node, flag) = (self.options.replicas, self.options.window, life.node, life.flag.clone());
        let task = async move {
            loop {
                let mut config = ClientConfig::new(members);
                (config.id, config.seed, config.window) = (id, random.next_u64(), window);
                let (client, runner) =
                    Client::<Instrumented<S>>::new(config, SimNetwork(life.clone()), SimClock(life.clone()));
                let requests = 1 + random.below(8) as u32;
                let work = std::pin::pin!(worker.on_rogue(client, requests));
                let run = std::pin::pin!(runner.run());
                match select(work, run).await {
                    Either::Left((true, _)) => {}
                    Either::Left((false, _)) | Either::Right(_) => return None,
                }
            }
        };
        self.slots.push(Some(Slot { node, flag, task: Box::pin(task) }));
    }
}
