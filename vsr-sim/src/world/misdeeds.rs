//! What clients do that break the rules of a client (rules 5.1, 5.2): an id used by two at once, an id that comes back, numbers,
//! floors and commands that no library sends.

use bytes::{Bytes, BytesMut};
use vsr::Checksum;
use vsr::protocol::{Message, Peer, Random, RequestNumber};

use super::World;
use crate::check::Observation;

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
    pub(crate) fn draw(random: &mut Random, request_max: u32, another: usize) -> Misdeed {
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

    /// Whether a node is a client that keeps the rules, under an id that no other client uses.
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
                // Beyond any window that its floor allows, and the same whenever it is sent again: under the id of another client it
                // may be let in one day, and one command under two numbers is executed twice, rightly.
                Misdeed::BeyondWindow => {
                    request.number = RequestNumber(request.number.0 + window + request.number.0 % 3);
                }
                Misdeed::BeyondAny => request.number = RequestNumber((1 << 60) + request.number.0),
                Misdeed::TooLong(len) => {
                    let mut command = BytesMut::from(&request.command[..]);
                    command.resize(len.max(command.len()), 0);
                    request.command = command.freeze();
                }
                // The same whenever it is sent again: else one command under two sessions is executed twice, rightly.
                Misdeed::AnothersSession(another) => {
                    let (theirs, of) = (self.nodes[another].session, (request.number, Checksum::of(&request.command)));
                    request.session = *self.nodes[node].borrowed.entry(of).or_insert(theirs);
                }
                Misdeed::Garbage => request.command = Bytes::from_static(b"\xc7"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vsr::ClientId;
    use vsr::protocol::{OpNumber, Position, Request, SessionId};

    use super::*;
    use crate::check::Checkers;
    use crate::faults::Plan;
    use crate::options::Options;
    use crate::report::{Detail, Trace};

    fn session(op: u64) -> SessionId {
        SessionId(Position { op: OpNumber(op), index: 0 })
    }

    /// Seeds 12134 and 13583: a request that is sent again, when the floor of its client has risen and the other client has another
    /// session, is the same request. As another one it would be executed twice, rightly.
    #[test]
    fn what_is_wrong_with_a_request_is_the_same_when_it_is_sent_again() {
        let options = Options { rogues: 1, ..Options::calm(1, 3) };
        let quorums = options.membership().unwrap().quorums;
        let trace = Trace::new(Detail::Counters);
        let mut world = World::new(options, quorums, Plan::default(), trace, Checkers::all());
        let another = world.add_node(Peer::Client(ClientId(8)));
        let rogue = world.add_node(Peer::Client(ClientId(9)));
        let misdeeds = [
            Misdeed::SharesId,
            Misdeed::Returns,
            Misdeed::FloorAbove,
            Misdeed::BeyondWindow,
            Misdeed::BeyondAny,
            Misdeed::TooLong(100),
            Misdeed::AnothersSession(another),
            Misdeed::Garbage,
        ];
        for misdeed in misdeeds {
            world.nodes[rogue].misdeed = Some(misdeed);
            let mut send = |floor: u64, theirs: SessionId| {
                world.nodes[another].session = theirs;
                let request = Request {
                    client: ClientId(9),
                    session: session(1),
                    number: RequestNumber(5),
                    floor: RequestNumber(floor),
                    command: Bytes::from_static(b"once"),
                };
                let mut message = Message::Requests { requests: vec![request], forwarded: false };
                world.misbehave(rogue, &mut message);
                let Message::Requests { mut requests, .. } = message else { unreachable!("it stays a request") };
                requests.remove(0)
            };
            let (first, again) = (send(2, session(7)), send(4, session(8)));
            let name = |request: &Request| (request.session, request.number, request.command.clone());
            assert_eq!(name(&first), name(&again), "{misdeed:?}");
            if misdeed == Misdeed::AnothersSession(another) {
                assert_eq!(first.session, session(7));
            }
            if misdeed == Misdeed::BeyondWindow {
                assert!(first.number.0 >= 5 + u64::from(world.options.window), "{first:?}");
            }
        }
    }
}
