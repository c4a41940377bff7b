//! The state machine: an ordered map of bytes.

use std::io::{self, Read};

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};
use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};

/// Keys with values, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// A copy of it shares everything that did not change since: a snapshot costs no time, however many entries there are.
    entries: RedBlackTreeMapSync<Bytes, Bytes>,
    /// Commands executed.
    revision: u64,
    /// The sum of a checksum of each entry, kept by `apply`: the digest costs no walk.
    sum: u128,
}

/// What an entry adds to the sum.
fn weight(key: &Bytes, value: &Bytes) -> u128 {
    let len = (key.len() as u64).to_le_bytes();
    Checksum::of(&[&len[..], key, value].concat()).0
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
        let (Command::Put(key, _) | Command::Delete(key)) = &command;
        let before = self.entries.get(key).cloned();
        if let Some(before) = &before {
            self.sum = self.sum.wrapping_sub(weight(key, before));
        }
        if let Command::Put(key, value) = &command {
            self.sum = self.sum.wrapping_add(weight(key, value));
        }
        match command {
            Command::Put(key, value) => self.entries.insert_mut(key, value),
            Command::Delete(key) => _ = self.entries.remove_mut(&key),
        }
        before
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

    /// Written entry by entry, so that a large map is never in memory twice.
    fn snapshot(&self) -> Snapshot {
        let Map { entries, revision, .. } = self.clone();
        Snapshot::with(move |to| {
            to.write_all(&revision.to_le_bytes())?;
            to.write_all(&(entries.size() as u64).to_le_bytes())?;
            for (key, value) in &entries {
                for part in [key, value] {
                    to.write_all(&(part.len() as u64).to_le_bytes())?;
                    to.write_all(part)?;
                }
            }
            Ok(())
        })
    }

    fn restore(from: &mut dyn Read) -> Result<Map, RestoreError> {
        let mut map = Map { revision: number(from)?, ..Map::default() };
        for _ in 0..number(from)? {
            let (key, value) = (part(from)?, part(from)?);
            map.sum = map.sum.wrapping_add(weight(&key, &value));
            map.entries.insert_mut(key, value);
        }
        Ok(map)
    }

    fn digest(&self) -> Option<Checksum> {
        Some(Checksum(self.sum ^ u128::from(self.revision) << 64))
    }
}

fn number(from: &mut dyn Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A key or a value: its length, and its bytes.
fn part(from: &mut dyn Read) -> io::Result<Bytes> {
    let (len, mut bytes) = (number(from)?, Vec::new());
    // Never more memory than there are bytes.
    from.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
