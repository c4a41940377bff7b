//! The simulator's own state machine.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Read;

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use vsr::protocol::{Random, Timestamp};
use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};

use super::Step;

/// The default state machine of the simulator: a few registers, with commands whose replies tell
/// every order apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registers {
    values: BTreeMap<u8, i64>,
    changes: u64,
    /// When the last change was, as the replicas agreed on it.
    changed_at: Timestamp,
}

/// A command of [`Registers`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// Sets a register; replies its old value.
    Write(u8, i64),
    /// Adds to a register; replies the new value.
    Add(u8, i64),
    /// Sets a register if it holds the first value; replies what it held.
    CompareAndSet(u8, i64, i64),
    /// Changes nothing; replies how many changes there were. Carries ballast; an eighth of it comes back, unless it is long.
    Ballast(Bytes),
}

/// Ballast that is longer does not come back.
const BALLAST_MAX: usize = 640;

/// A reply of [`Registers`]: a number, and what comes back of the ballast of a command. Without any it is encoded as the number
/// is; people are shown the number alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Replied {
    /// The number.
    pub number: i64,
    /// The ballast.
    pub ballast: Bytes,
}

impl From<i64> for Replied {
    fn from(number: i64) -> Replied {
        Replied { number, ballast: Bytes::new() }
    }
}

impl Debug for Replied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number.fmt(f)
    }
}

impl Serialize for Replied {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.ballast.is_empty() {
            self.number.serialize(serializer)
        } else {
            (self.number, &self.ballast).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Replied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Replied, D::Error> {
        deserializer.deserialize_any(NumberOrBoth)
    }
}

struct NumberOrBoth;

impl<'de> Visitor<'de> for NumberOrBoth {
    type Value = Replied;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number, alone or with ballast")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Replied, E> {
        Ok(number.into())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Replied, E> {
        i64::try_from(number).map(Replied::from).map_err(de::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut both: A) -> Result<Replied, A::Error> {
        let number = both.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let ballast = both.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
        Ok(Replied { number, ballast })
    }
}

impl StateMachine for Registers {
    type Command = Change;
    type Reply = Replied;
    type Query = u8;
    type Answer = (i64, u64);

    fn apply(&mut self, context: &ApplyContext, change: Change) -> Replied {
        self.changes += 1;
        self.changed_at = context.timestamp;
        match change {
            Change::Write(at, value) => self.values.insert(at, value).unwrap_or(0).into(),
            Change::Add(at, more) => {
                let value = self.values.entry(at).or_default();
                *value = value.wrapping_add(more);
                (*value).into()
            }
            Change::CompareAndSet(at, expected, value) => {
                let held = self.values.get(&at).copied().unwrap_or(0);
                if held == expected {
                    self.values.insert(at, value);
                }
                held.into()
            }
            Change::Ballast(ballast) => {
                let back = if ballast.len() < BALLAST_MAX { ballast.len() / 8 } else { 0 };
                Replied { number: self.changes as i64, ballast: ballast.slice(..back) }
            }
        }
    }

    fn query(&self, _: &QueryContext, at: u8) -> (i64, u64) {
        (self.values.get(&at).copied().unwrap_or(0), self.changes)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.clone())
    }

    fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> {
        Snapshot::read(from)
    }

    fn digest(&self) -> Option<Checksum> {
        let mut bytes = Vec::with_capacity(16 + 9 * self.values.len());
        bytes.extend(self.changes.to_le_bytes());
        bytes.extend(self.changed_at.0.to_le_bytes());
        for (at, value) in &self.values {
            bytes.push(*at);
            bytes.extend(value.to_le_bytes());
        }
        Some(Checksum::of(&bytes))
    }
}

impl Registers {
    /// A step of a client: a change, or in `queries_percent` of the cases a query.
    pub fn step(random: &mut Random, queries_percent: u64) -> Step<Change, u8> {
        let at = random.below(4) as u8;
        let value = random.below(10) as i64;
        if random.below(100) < queries_percent {
            return Step::Query(at);
        }
        Step::Command(match random.below(8) {
            0..=2 => Change::Add(at, value + 1),
            3..=4 => Change::Write(at, value),
            5..=6 => Change::CompareAndSet(at, random.below(10) as i64, value),
            _ => Change::Ballast(Bytes::from(vec![at; random.below(600) as usize])),
        })
    }
}
