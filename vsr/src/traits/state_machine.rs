//! What an application implements: a deterministic state machine.

use std::any::Any;
use std::error::Error;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cause::Cause;
use crate::codec::{self, CodecError};
use crate::log;
use crate::protocol::{ApplyContext, Checksum, Halt, Machine, OpNumber, Timestamp};

/// A deterministic service. Every replica holds one and applies the same commands in the same order, so
/// all go through the same states (VRR section 3).
///
/// Use nothing but the machine's own state, the command and the [`ApplyContext`]: no clock, no random
/// number, no iteration over a `HashMap`, no file. A machine that differs between replicas is a bug that
/// `vsr-sim` is built to find.
///
/// A command of type [`Bytes`] passes through without a codec; all others are encoded by [`crate::codec`], which
/// takes values of a bounded depth, and comes with the feature `msgpack`.
pub trait StateMachine: Sized + Send + 'static {
    /// A request that changes the state.
    type Command: Value;
    /// The answer to a command. Its encoding must be deterministic too: no `HashMap` in it. A reply that has no
    /// encoding (it is too deep, or its type refuses) is lost, though the command was executed.
    type Reply: Value;
    /// A request that reads the state.
    type Query: Value;
    /// The answer to a query.
    type Answer: Value;

    /// Applies one command. A panic stops this replica with a typed error; the host lives.
    fn apply(&mut self, context: &ApplyContext, command: Self::Command) -> Self::Reply;

    /// Answers a query. Runs between ops, never inside one.
    fn query(&self, context: &QueryContext, query: Self::Query) -> Self::Answer;

    /// An owned copy of the state, for a checkpoint: it is written out elsewhere while applying goes on. Taking it stops the replica for
    /// as long as it takes: a large state is best kept in maps that share their parts with their copies (`examples/kv`).
    fn snapshot(&self) -> Snapshot;

    /// A new machine from what a snapshot wrote. A half-restored one cannot exist.
    ///
    /// # Errors
    /// When the bytes are not a snapshot of this machine.
    fn restore(from: &mut dyn Read) -> Result<Self, RestoreError>;

    /// One number for the whole state, or `None` (the default). Where it is given replicas compare it at every checkpoint, and one whose state
    /// differs from that of the majority stops ([`Halt::StateDiffers`]); the simulator compares it after every command. It is best kept up to date by
    /// `apply`: what takes long here holds the replica up.
    fn digest(&self) -> Option<Checksum> {
        None
    }
}

/// A type of command, reply, query or answer: with the feature `msgpack`, which is on by default, every one that serde can write and read
/// and that may go to another thread; without it [`Bytes`] alone, which the application encodes as it likes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a command, reply, query or answer",
    note = "such a type is `Send + 'static`, and serde can serialize and deserialize it; without the feature `msgpack` it is `Bytes`"
)]
pub trait Value: Serialize + DeserializeOwned + Send + 'static + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

#[cfg(feature = "msgpack")]
impl<T: Serialize + DeserializeOwned + Send + 'static> sealed::Sealed for T {}
#[cfg(feature = "msgpack")]
impl<T: Serialize + DeserializeOwned + Send + 'static> Value for T {}

#[cfg(not(feature = "msgpack"))]
impl sealed::Sealed for Bytes {}
#[cfg(not(feature = "msgpack"))]
impl Value for Bytes {}

/// What a query may know beside the state. Later versions have more fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryContext {
    /// The last op that the state contains.
    pub applied: OpNumber,
    /// The timestamp of that op.
    pub timestamp: Timestamp,
}

impl QueryContext {
    /// What a query is told after this op, with this timestamp; for a state machine's own tests.
    #[must_use]
    pub fn new(applied: OpNumber, timestamp: Timestamp) -> QueryContext {
        QueryContext { applied, timestamp }
    }
}

/// An owned view of a state that writes itself out when asked.
pub struct Snapshot(Box<WriteOut>);

type WriteOut = dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send;

impl Snapshot {
    /// A snapshot of a value that serde can write, by [`crate::codec`]. A state that is deeper than that takes
    /// needs [`with`](Self::with).
    #[cfg(feature = "msgpack")]
    pub fn of<T: Serialize + Send + 'static>(value: T) -> Snapshot {
        Snapshot(Box::new(move |to| {
            let bytes = codec::to_vec(&value).map_err(io::Error::other)?;
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
    #[cfg(feature = "msgpack")]
    pub fn read<T: DeserializeOwned>(from: &mut dyn Read) -> Result<T, RestoreError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        codec::from_slice(&bytes).map_err(RestoreError::new)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

/// The bytes are not a snapshot of this machine.
#[derive(Debug, thiserror::Error)]
#[error("not a snapshot of this state machine: {0}")]
pub struct RestoreError(#[source] Cause);

impl RestoreError {
    /// A snapshot that cannot be read for this cause: an error, or words.
    #[must_use]
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> RestoreError {
        RestoreError(Cause::new(cause))
    }
}

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> RestoreError {
        RestoreError::new(error)
    }
}

/// Encodes a command, reply, query or answer. `Bytes` passes through.
pub(crate) fn encode<T: Serialize + 'static>(value: T) -> Result<Bytes, CodecError> {
    let any: &dyn Any = &value;
    match any.downcast_ref::<Bytes>() {
        Some(bytes) => Ok(bytes.clone()),
        None => codec::to_vec(&value).map(Bytes::from),
    }
}

/// Decodes what [`encode`] has written.
pub(crate) fn decode<T: DeserializeOwned + 'static>(bytes: Bytes) -> Result<T, CodecError> {
    let mut raw: Option<Bytes> = Some(bytes);
    let any: &mut dyn Any = &mut raw;
    if let Some(same) = any.downcast_mut::<Option<T>>()
        && let Some(value) = same.take()
    {
        return Ok(value);
    }
    codec::from_slice(&raw.unwrap_or_default())
}

/// Runs code of the application: a panic in it becomes an error, and ends nothing else.
fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let message = panic_message(&*panic);
        // What was thrown is the application's as well, and may panic when it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
        message
    })
}

/// Drops something of the application's, whatever it does then.
pub(crate) fn drop_guarded<T>(value: T) {
    if let Err(message) = guarded(|| drop(value)) {
        log::error!(panic = %message, "the state machine panicked while it was dropped");
    }
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QueryFailure {
    /// The bytes do not decode as a query.
    Undecodable,
    /// The machine, or the type of the query or the answer, panicked.
    Panicked(String),
    /// The answer has no encoding.
    Unencodable(CodecError),
}

/// The application's machine as the protocol sees it. Everything that the application wrote runs guarded here:
/// its types' decoding, encoding and dropping, too.
pub(crate) struct Typed<S>(pub(crate) S);

impl<S: StateMachine> Typed<S> {
    /// A checkpoint's bytes: this head, and the state as it is now.
    ///
    /// # Errors
    /// The words of the machine's panic.
    pub(crate) fn checkpoint(&self, head: Vec<u8>) -> Result<Snapshot, String> {
        let snapshot = guarded(|| self.0.snapshot())?;
        Ok(Snapshot::with(move |to| {
            to.write_all(&head)?;
            guarded(|| snapshot.write_to(to)).unwrap_or_else(|panic| Err(io::Error::other(panic)))
        }))
    }

    /// The machine's digest, if it gives one.
    ///
    /// # Errors
    /// The words of its panic.
    pub(crate) fn digest(&self) -> Result<Option<Checksum>, String> {
        guarded(|| self.0.digest())
    }

    /// The machine that [`checkpoint`](Self::checkpoint) has written, behind its head.
    ///
    /// # Errors
    /// Its own, or the words of its panic.
    pub(crate) fn restore(from: &mut dyn Read) -> io::Result<S> {
        let restored = guarded(|| S::restore(from)).map_err(io::Error::other)?;
        restored.map_err(io::Error::other)
    }

    pub(crate) fn query(&self, context: &QueryContext, query: Bytes) -> Result<Bytes, QueryFailure> {
        let answered = guarded(|| {
            let query = decode::<S::Query>(query).map_err(|_| QueryFailure::Undecodable)?;
            encode(self.0.query(context, query)).map_err(QueryFailure::Unencodable)
        });
        answered.unwrap_or_else(|message| Err(QueryFailure::Panicked(message)))
    }
}

impl<S: StateMachine> Machine for Typed<S> {
    fn can_decode(&self, command: &Bytes) -> bool {
        guarded(|| decode::<S::Command>(command.clone()).is_ok()).unwrap_or_else(|message| {
            log::error!(panic = %message, "a command is refused: its type panicked while it was decoded");
            false
        })
    }

    /// A reply that has no encoding leaves no bytes, on every replica alike: its caller hears so, and no replica
    /// has to stop for it.
    fn apply(&mut self, context: &ApplyContext, command: Bytes, reply: &mut Vec<u8>) -> Result<(), Halt> {
        let position = context.position;
        let machine = &mut self.0;
        // Whether it decodes: what crosses the guard is small.
        let applied = guarded(|| {
            let Ok(command) = decode::<S::Command>(command) else { return false };
            let value = machine.apply(context, command);
            let any: &dyn Any = &value;
            match any.downcast_ref::<Bytes>() {
                Some(bytes) => reply.extend_from_slice(bytes),
                None => {
                    if let Err(error) = codec::write(reply, &value) {
                        log::error!(%position, %error, "a command was executed, and its reply cannot be encoded");
                    }
                }
            }
            true
        });
        match applied {
            Ok(true) => Ok(()),
            Ok(false) => Err(Halt::Undecodable { position }),
            Err(message) => Err(Halt::Panicked { position, session: context.session, message }),
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::DEPTH_MAX;
    use crate::protocol::{Position, SessionId};
    use serde::Deserialize;

    #[test]
    fn bytes_pass_through_without_a_codec() {
        let bytes = Bytes::from_static(b"raw");
        assert_eq!(encode(bytes.clone()).unwrap().as_ptr(), bytes.as_ptr());
        assert_eq!(decode::<Bytes>(bytes.clone()).unwrap().as_ptr(), bytes.as_ptr());
        assert_eq!(decode::<i64>(encode(-7_i64).unwrap()).unwrap(), -7);
    }

    /// Panics wherever the application's code runs.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Where {
        Nowhere(Box<Where>),
        End,
        #[serde(deserialize_with = "panics")]
        Decoding(u8),
        Applying,
        Encoding,
        Dropping(Bomb),
        Deep(usize),
    }

    fn panics<'de, D: serde::Deserializer<'de>>(_: D) -> Result<u8, D::Error> {
        panic!("while it is decoded")
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Bomb(u8);

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking() || self.0 == 0, "while it is dropped");
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Told(Where);

    impl Serialize for Told {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            assert!(self.0 != Where::Encoding, "while it is encoded");
            self.0.serialize(serializer)
        }
    }

    struct Tells;

    impl Tells {
        fn tell(what: Where) -> Told {
            assert!(what != Where::Applying, "while it is applied");
            match what {
                Where::Deep(levels) => Told((0..levels).fold(Where::End, |inner, _| Where::Nowhere(Box::new(inner)))),
                what => Told(what),
            }
        }
    }

    impl StateMachine for Tells {
        type Command = Where;
        type Reply = Told;
        type Query = Where;
        type Answer = Told;
        fn apply(&mut self, _: &ApplyContext, command: Where) -> Told {
            Tells::tell(command)
        }
        fn query(&self, _: &QueryContext, query: Where) -> Told {
            Tells::tell(query)
        }
        fn snapshot(&self) -> Snapshot {
            Snapshot::of(())
        }
        fn restore(_: &mut dyn Read) -> Result<Tells, RestoreError> {
            Ok(Tells)
        }
    }

    fn bytes_of(what: &Where) -> Bytes {
        codec::to_vec(what).unwrap().into()
    }

    fn apply(what: Bytes) -> Result<Vec<u8>, Halt> {
        let context =
            ApplyContext { position: Position::default(), timestamp: Timestamp(1), session: SessionId::default() };
        let mut reply = Vec::new();
        Typed(Tells).apply(&context, what, &mut reply).map(|()| reply)
    }

    /// Whatever the application's code does, it ends as a typed error.
    #[test]
    fn a_panic_in_any_code_of_the_application_is_a_typed_error() {
        let context = QueryContext { applied: OpNumber(0), timestamp: Timestamp(0) };
        let query = |what| Typed(Tells).query(&context, what);
        for (what, decodes, words) in [
            (Where::Decoding(1), false, "while it is decoded"),
            (Where::Applying, true, "while it is applied"),
            (Where::Encoding, true, "while it is encoded"),
        ] {
            let bytes = bytes_of(&what);
            assert_eq!(Typed(Tells).can_decode(&bytes), decodes, "{what:?}");
            let halt = apply(bytes.clone()).unwrap_err();
            assert!(matches!(&halt, Halt::Panicked { message, .. } if message == words), "{halt:?}");
            assert_eq!(query(bytes), Err(QueryFailure::Panicked(words.to_owned())));
        }
        let bomb = bytes_of(&Where::Dropping(Bomb(0)));
        let armed: Bytes = bomb.iter().map(|&byte| if byte == 0 { 1 } else { byte }).collect::<Vec<u8>>().into();
        assert!(Typed(Tells).can_decode(&bomb) && !Typed(Tells).can_decode(&armed));
        assert!(apply(bomb).is_ok() && matches!(apply(armed.clone()), Err(Halt::Panicked { .. })));
        assert!(matches!(query(armed), Err(QueryFailure::Panicked(_))));
        assert!(!Typed(Tells).can_decode(&Bytes::from_static(b"\xc7")));
        assert_eq!(query(Bytes::new()), Err(QueryFailure::Undecodable));
        drop_guarded(codec::from_slice::<Bomb>(&[1]));
    }

    /// A reply or an answer that is nested too deeply stops no replica.
    #[test]
    fn a_reply_that_cannot_be_encoded_stops_no_replica() {
        let context = QueryContext { applied: OpNumber(0), timestamp: Timestamp(0) };
        let deep = |levels| bytes_of(&Where::Deep(levels));
        assert!(!apply(deep(DEPTH_MAX)).unwrap().is_empty());
        assert!(apply(deep(DEPTH_MAX + 1)).unwrap().is_empty());
        let answer = Typed(Tells).query(&context, deep(DEPTH_MAX + 1));
        assert_eq!(answer, Err(QueryFailure::Unencodable(CodecError::TooDeep)));
    }

    /// A snapshot is written by the same codec.
    #[test]
    fn a_snapshot_brings_back_what_was_written() {
        let state = (Some(None::<u8>), Some(()), vec![(1_u128, "a".to_owned())]);
        let mut bytes = Vec::new();
        Snapshot::of(state.clone()).write_to(&mut bytes).unwrap();
        assert_eq!(
            Snapshot::read::<(Option<Option<u8>>, Option<()>, Vec<(u128, String)>)>(&mut &bytes[..]).unwrap(),
            state
        );
        let deep = [vec![0x91_u8; 100_000], vec![0xc0]].concat();
        assert!(Snapshot::read::<serde::de::IgnoredAny>(&mut &deep[..]).is_err());
    }
}
