//! A replicated key-value store. It speaks its own command line so far; what runs it is in
//! `examples/cluster`.

mod machine;

pub use machine::{Answer, Command, Map, Query};

use bytes::Bytes;
use example_cluster::App;
use vsr::protocol::Random;
use vsr_sim::Step;

/// The store as an example application.
#[derive(Debug)]
pub struct KvApp;

impl App for KvApp {
    type Machine = Map;

    fn step(random: &mut Random) -> Step<Command, Query> {
        let key = Bytes::from(format!("key-{}", random.below(40)));
        match random.below(20) {
            0 => Step::Query(Query::Get(key)),
            1 => Step::Query(Query::List(Bytes::from_static(b"key-1"), 20)),
            2..=4 => Step::Command(Command::Delete(key)),
            _ => Step::Command(Command::Put(key, Bytes::from(random.next_u64().to_string()))),
        }
    }

    fn store(place: u64, bytes: usize) -> Option<Command> {
        Some(Command::Put(Bytes::from(format!("place-{place:010}")), Bytes::from(vec![place as u8; bytes])))
    }

    fn count_query() -> Query {
        Query::Revision
    }

    fn count(answer: &Answer) -> u64 {
        if let Answer::Revision(revision) = answer { *revision } else { 0 }
    }
}
