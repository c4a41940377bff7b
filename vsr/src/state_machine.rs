//! What an application implements: a deterministic state machine.

use std::any::Any;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{ApplyContext, Checksum, Fault, Machine, OpNumber, Timestamp};

/// A deterministic service. Every replica holds one and applies the same commands in the same order, so
/// all go through the same states (VRR section 3).
///
/// Use nothing but the machine's own state, the command and the [`ApplyContext`]: no clock, no random
/// number, no iteration over a `HashMap`, no file. A machine that differs between replicas is a bug that
/// `vsr-sim` is built to find.
///
/// A command of type [`Bytes`] passes through without a codec; all others are encoded with MessagePack.
pub trait StateMachine: Sized + Send + 'static {
    /// What changes the state.
    type Command: Serialize + DeserializeOwned + Send + 'static;
    /// What the change answers. Its encoding must be deterministic too: no `HashMap` in it.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// What asks about the state.
    type Query: Serialize + DeserializeOwned + Send + 'static;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Applies one command. A panic stops this replica with a typed error; the host lives.
    fn apply(&mut self, context: &ApplyContext, command: Self::Command) -> Self::Reply;

    /// Answers a query. Runs between ops, never inside one.
    fn query(&self, context: &QueryContext, query: Self::Query) -> Self::Answer;

    /// An owned copy of the state, to be written out elsewhere while applying goes on. Checkpoints will
    /// use it; the simulator compares it today.
    fn snapshot(&self) -> Snapshot;

    /// A new machine from what a snapshot wrote. A half-restored one cannot exist.
    ///
    /// # Errors
    /// When the bytes are no snapshot of this machine.
    fn restore(from: &mut dyn Read) -> Result<Self, RestoreError>;

    /// One number for the whole state. Compared between replicas where it is given.
    fn digest(&self) -> Option<Checksum> {
        None
    }
}

/// What a query may know beside the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryContext {
    /// The last op that the state contains.
    pub applied: OpNumber,
    /// The timestamp of that op.
    pub timestamp: Timestamp,
}

/// An owned view of a state that writes itself out when asked.
pub struct Snapshot(Box<WriteOut>);

type WriteOut = dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send;

impl Snapshot {
    /// A snapshot of a value that serde can write.
    pub fn of<T: Serialize + Send + 'static>(value: T) -> Snapshot {
        Snapshot(Box::new(move |to| {
            let bytes = rmp_serde::to_vec(&value).map_err(io::Error::other)?;
            to.write_all(&bytes)
        }))
    }

    /// A snapshot that a function writes.
    pub fn with(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Snapshot {
        Snapshot(Box::new(write))
    }

    /// Writes it out.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_to(self, to: &mut dyn Write) -> io::Result<()> {
        (self.0)(to)
    }

    /// Reads a value that [`of`](Self::of) has written.
    ///
    /// # Errors
    /// When the bytes are not such a value.
    pub fn read<T: DeserializeOwned>(from: &mut dyn Read) -> Result<T, RestoreError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        rmp_serde::from_slice(&bytes).map_err(|error| RestoreError(error.to_string()))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

/// The bytes are no snapshot of this machine.
#[derive(Debug, thiserror::Error)]
#[error("not a snapshot of this state machine: {0}")]
pub struct RestoreError(pub String);

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> RestoreError {
        RestoreError(error.to_string())
    }
}

/// Encodes a command, reply, query or answer. `Bytes` passes through.
pub(crate) fn encode<T: Serialize + 'static>(value: T) -> Result<Bytes, rmp_serde::encode::Error> {
    let any: &dyn Any = &value;
    match any.downcast_ref::<Bytes>() {
        Some(bytes) => Ok(bytes.clone()),
        None => rmp_serde::to_vec(&value).map(Bytes::from),
    }
}

/// Decodes what [`encode`] has written.
pub(crate) fn decode<T: DeserializeOwned + 'static>(bytes: Bytes) -> Result<T, rmp_serde::decode::Error> {
    let mut raw: Option<Bytes> = Some(bytes);
    let any: &mut dyn Any = &mut raw;
    if let Some(same) = any.downcast_mut::<Option<T>>()
        && let Some(value) = same.take()
    {
        return Ok(value);
    }
    rmp_serde::from_slice(&raw.unwrap_or_default())
}

/// The application's machine as the protocol sees it.
pub(crate) struct Typed<S>(pub(crate) S);

impl<S: StateMachine> Typed<S> {
    pub(crate) fn query(&self, context: &QueryContext, query: Bytes) -> Option<Result<Bytes, String>> {
        let query = decode::<S::Query>(query).ok()?;
        let answer = catch_unwind(AssertUnwindSafe(|| self.0.query(context, query)));
        Some(match answer {
            Ok(answer) => encode(answer).map_err(|error| error.to_string()),
            Err(panic) => Err(panic_message(&*panic)),
        })
    }
}

impl<S: StateMachine> Machine for Typed<S> {
    fn decodes(&self, command: &Bytes) -> bool {
        decode::<S::Command>(command.clone()).is_ok()
    }

    fn apply(&mut self, context: &ApplyContext, command: Bytes, reply: &mut Vec<u8>) -> Result<(), Fault> {
        let position = context.position;
        let command = decode::<S::Command>(command).map_err(|_| Fault::Undecodable { position })?;
        let panicked = |message| Fault::Panicked { position, session: context.session, message };
        let value = catch_unwind(AssertUnwindSafe(|| self.0.apply(context, command)))
            .map_err(|panic| panicked(panic_message(&*panic)))?;
        let any: &dyn Any = &value;
        match any.downcast_ref::<Bytes>() {
            Some(bytes) => reply.extend_from_slice(bytes),
            None => rmp_serde::encode::write(reply, &value)
                .map_err(|error| panicked(format!("the reply cannot be encoded: {error}")))?,
        }
        Ok(())
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_through_without_a_codec() {
        let bytes = Bytes::from_static(b"raw");
        assert_eq!(encode(bytes.clone()).unwrap().as_ptr(), bytes.as_ptr());
        assert_eq!(decode::<Bytes>(bytes.clone()).unwrap().as_ptr(), bytes.as_ptr());
        assert_eq!(decode::<i64>(encode(-7_i64).unwrap()).unwrap(), -7);
    }
}
