//! Clients that break the rules of a client (rules 5.1, 5.2): an id used by two at once, an id that comes back, numbers, floors
//! and commands that no library sends. What they ask is refused or executed once, and nobody else is given its reply.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use vsr::protocol::{Message, Peer, Random, RequestNumber};
use vsr::{Client, ClientConfig, ClientId};

use crate::check::Observation;
use crate::machine::{Simulated, Witnessed};
use crate::node::{Life, SimClock, SimNetwork};
use crate::run::{Run, Slot};
use crate::world::{Flag, World, lock, site};

/// What a client does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// It uses another client's id: the same session, the same numbers, with other content.
    SharesId,
    /// It comes back under its own id, with numbers from 1 and other content.
    Returns,
    /// Its floors are above the numbers that carry them.
    FloorAbove,
    /// Its numbers are beyond the window.
    BeyondWindow,
    /// Its numbers are beyond any that a cluster can reach.
    BeyondAny,
    /// Its commands have so many bytes: more than `request_max`.
    TooLong(usize),
    /// It names the session of another node's client.
    AnothersSession(usize),
    /// Its commands are none that the state machine knows.
    Garbage,
}

impl Misdeed {
    /// `another` is the node of a client that keeps the rules.
    fn draw(random: &mut Random, request_max: u32, another: usize) -> Misdeed {
        match random.below(10) {
            0..=2 => Misdeed::SharesId,
            3 => Misdeed::Returns,
            4 => Misdeed::FloorAbove,
            5 => Misdeed::BeyondWindow,
            6 => Misdeed::BeyondAny,
            7 => Misdeed::AnothersSession(another),
            8 => Misdeed::Garbage,
            _ => Misdeed::TooLong(request_max as usize + 1),
        }
    }

    /// Its name among the counters.
    fn counted(self) -> &'static str {
        match self {
            Misdeed::SharesId => "ids used twice",
            Misdeed::Returns => "ids that return",
            Misdeed::FloorAbove => "floors above the number",
            Misdeed::BeyondWindow => "numbers beyond the window",
            Misdeed::BeyondAny => "numbers beyond any",
            Misdeed::TooLong(_) => "commands over request_max",
            Misdeed::AnothersSession(_) => "sessions of others",
            Misdeed::Garbage => "commands that do not decode",
        }
    }
}

impl World {
    /// Of several clients of one id, answers reach the one that spoke last: so transports have it.
    pub(crate) fn speak_as_client(&mut self, node: usize) {
        if let Peer::Client(id) = self.nodes[node].peer {
            self.clients.insert(id, node);
        }
    }

    /// Whether a node is a client that keeps the rules, under an id that nobody else uses.
    pub(crate) fn keeps_the_rules(&self, node: usize) -> bool {
        let own = self.nodes[node].peer;
        self.options.rogues == 0 || !self.nodes.iter().any(|other| other.misdeed.is_some() && other.peer == own)
    }

    /// What a client hands to the network: the checkers look at it, if the client keeps the rules.
    pub(crate) fn look_at_client(&mut self, node: usize, message: &Message) {
        let Message::Requests { requests, .. } = message else { return };
        if self.options.rogues > 0
            && let Some(request) = requests.last().filter(|request| request.number > RequestNumber(0))
        {
            self.nodes[node].session = request.session;
        }
        if self.keeps_the_rules(node) {
            self.observe(&Observation::Asked { requests });
        }
    }

    /// Makes of what the library sends what its rule forbids.
    pub(crate) fn misbehave(&mut self, node: usize, message: &mut Message) {
        let Some(misdeed) = self.nodes[node].misdeed else { return };
        let Message::Requests { requests, .. } = message else { return };
        let window = u64::from(self.options.window);
        for request in requests.iter_mut().filter(|request| request.number > RequestNumber(0)) {
            self.trace.count(misdeed.counted());
            match misdeed {
                Misdeed::SharesId | Misdeed::Returns => {}
                Misdeed::FloorAbove => request.floor = RequestNumber(request.number.0 + 1 + request.number.0 % 3),
                // The first that is beyond it, or one a little further.
                Misdeed::BeyondWindow => {
                    request.number = RequestNumber(request.floor.0 + window + request.number.0 % 3);
                }
                Misdeed::BeyondAny => request.number = RequestNumber((1 << 60) + request.number.0),
                Misdeed::TooLong(len) => {
                    let mut command = BytesMut::from(&request.command[..]);
                    command.resize(len.max(command.len()), 0);
                    request.command = command.freeze();
                }
                Misdeed::AnothersSession(another) => request.session = self.nodes[another].session,
                Misdeed::Garbage => request.command = Bytes::from_static(b"\xc7"),
            }
        }
    }
}

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
                    Client::<Witnessed<S>>::new(config, SimNetwork(life.clone()), SimClock(life.clone()));
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
