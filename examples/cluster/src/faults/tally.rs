//! The state machine of the fault cases: it counts commands, which may be as long, or as deep, as a case wants.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vsr::protocol::Random;
use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};
use vsr_sim::Step;

use crate::App;

/// One more, whatever it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum One {
    /// So many bytes.
    Ballast(Bytes),
    /// So many bytes that are kept.
    Keep(Bytes),
    /// Another one inside: a type that may be nested without end.
    Deep(Box<One>),
}

impl One {
    pub(crate) fn of(bytes: usize) -> One {
        One::Ballast(Bytes::from(vec![7; bytes]))
    }

    /// The encoding of one that is nested so deeply that no honest program could have made it.
    pub(crate) fn deep(levels: usize) -> Bytes {
        let mut bytes = b"\x81\xa4Deep".repeat(levels);
        bytes.extend_from_slice(b"\x81\xa7Ballast\xc4\x00");
        Bytes::from(bytes)
    }
}

/// How many there were, and what they have brought to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    count: u64,
    /// A snapshot shares them.
    kept: Arc<Vec<Bytes>>,
}

impl StateMachine for Tally {
    type Command = One;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &ApplyContext, one: One) -> u64 {
        if let One::Keep(bytes) = one {
            Arc::make_mut(&mut self.kept).push(bytes);
        }
        self.count += 1;
        self.count
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.count
    }

    fn snapshot(&self) -> Snapshot {
        let Tally { count, kept } = self.clone();
        Snapshot::with(move |to| {
            to.write_all(&count.to_le_bytes())?;
            for bytes in kept.iter() {
                to.write_all(&(bytes.len() as u64).to_le_bytes())?;
                to.write_all(bytes)?;
            }
            Ok(())
        })
    }

    fn restore(from: &mut dyn Read) -> Result<Tally, RestoreError> {
        let mut number = [0; 8];
        from.read_exact(&mut number)?;
        let (count, mut kept) = (u64::from_le_bytes(number), Vec::new());
        loop {
            let mut len = Vec::new();
            from.take(8).read_to_end(&mut len)?;
            let Ok(len) = len.try_into() else { break };
            let mut bytes = Vec::new();
            from.take(u64::from_le_bytes(len)).read_to_end(&mut bytes)?;
            kept.push(bytes.into());
        }
        Ok(Tally { count, kept: kept.into() })
    }

    fn digest(&self) -> Option<Checksum> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        bytes.extend(self.kept.len().to_le_bytes());
        Some(Checksum::of(&bytes))
    }
}

/// The tally as an application of replica processes.
pub(crate) struct TallyApp;

impl App for TallyApp {
    type Machine = Tally;

    fn step(_: &mut Random) -> Step<One, ()> {
        Step::Command(One::of(16))
    }

    fn count_query() {}

    fn count(answer: &u64) -> u64 {
        *answer
    }
}

/// What a client takes the tally for that sends any bytes as they are.
pub(crate) struct Raw;

impl StateMachine for Raw {
    type Command = Bytes;
    type Reply = Bytes;
    type Query = Bytes;
    type Answer = Bytes;

    fn apply(&mut self, _: &ApplyContext, command: Bytes) -> Bytes {
        command
    }

    fn query(&self, _: &QueryContext, query: Bytes) -> Bytes {
        query
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(())
    }

    fn restore(from: &mut dyn Read) -> Result<Raw, RestoreError> {
        Snapshot::read(from).map(|()| Raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that are sent are those that the type would have, or the case would prove nothing.
    #[test]
    fn what_is_nested_without_end_is_a_command() {
        struct Writer(Vec<u8>);
        impl std::io::Write for Writer {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut nested = One::Ballast(Bytes::new());
        for _ in 0..3 {
            nested = One::Deep(Box::new(nested));
        }
        let mut written = Writer(Vec::new());
        Snapshot::of(nested).write_to(&mut written).expect("it is written");
        assert_eq!(written.0, One::deep(3));
    }
}
