//! The state machine: an ordered map of bytes.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};

/// Keys with values, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    entries: BTreeMap<Bytes, Bytes>,
    /// Commands executed.
    revision: u64,
}

/// What changes the map. Each replies the value that was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key.
    Delete(Bytes),
}

/// What asks about the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The value of a key.
    Get(Bytes),
    /// The entries whose keys begin so, in order, not more than this many.
    List(Bytes, u32),
    /// How many commands were executed.
    Revision,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Get`.
    Value(Option<Bytes>),
    /// To `List`.
    Entries(Vec<(Bytes, Bytes)>),
    /// To `Revision`.
    Revision(u64),
}

/// Bytes of entries in one answer at most: it travels in one message.
const LIST_BYTES_MAX: usize = 1 << 20;

impl StateMachine for Map {
    type Command = Command;
    type Reply = Option<Bytes>;
    type Query = Query;
    type Answer = Answer;

    fn apply(&mut self, _: &ApplyContext, command: Command) -> Option<Bytes> {
        self.revision += 1;
        match command {
            Command::Put(key, value) => self.entries.insert(key, value),
            Command::Delete(key) => self.entries.remove(&key),
        }
    }

    fn query(&self, _: &QueryContext, query: Query) -> Answer {
        match query {
            Query::Get(key) => Answer::Value(self.entries.get(&key).cloned()),
            Query::List(prefix, limit) => {
                let mut bytes = 0;
                let found = self
                    .entries
                    .range(prefix.clone()..)
                    .take_while(|(key, _)| key.starts_with(&prefix))
                    .take(limit as usize)
                    .take_while(|(key, value)| {
                        bytes += key.len() + value.len();
                        bytes <= LIST_BYTES_MAX
                    });
                Answer::Entries(found.map(|(key, value)| (key.clone(), value.clone())).collect())
            }
            Query::Revision => Answer::Revision(self.revision),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.clone())
    }

    fn restore(from: &mut dyn Read) -> Result<Map, RestoreError> {
        Snapshot::read(from)
    }

    /// The sum of a checksum for each entry would be cheaper; this is simple.
    fn digest(&self) -> Option<Checksum> {
        let mut bytes = self.revision.to_le_bytes().to_vec();
        for (key, value) in &self.entries {
            for part in [key, value] {
                bytes.extend((part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Some(Checksum::of(&bytes))
    }
}
