//! How commands, replies, queries, answers and snapshots become bytes, and become what they were again.
//!
//! It is MessagePack with the names of fields: a struct is a map, so that a field which serde skips moves no
//! other one, and `flatten`, `untagged` and tagged enums have the names that they look for. Two things
//! differ from other writers of MessagePack:
//!
//! - **`Some` is never lost.** `None` and `()` are `nil`. A `Some` whose content begins with `nil` has the byte
//!   `0xc1` before it, which MessagePack uses for nothing; every other `Some` is its content. So `Some(None)`
//!   and `Some(())` arrive as what they were.
//! - **Depth is bounded**, when writing and when reading: [`DEPTH_MAX`] sequences, maps and enums with content
//!   one in the other. What is deeper is refused before the stack of a thread can overflow, which no
//!   `catch_unwind` would catch.
//!
//! Fields without names (of tuple structs and tuple variants) stand by their place: a value of which serde has skipped one is refused when it
//! is decoded, so a command of that kind is refused as `Undecodable` before it is logged.
//!
//! What serde itself cannot bring back (128-bit numbers inside `flatten`, `untagged` or internally tagged enums)
//! is an error when it is decoded, never another value. Structs that were written as arrays, by position, are read
//! as well.
//!
//! All but the errors comes with the feature `msgpack`, which is on by default.

#[cfg(feature = "msgpack")]
mod decode;
#[cfg(feature = "msgpack")]
mod encode;
mod error;
#[cfg(any(feature = "msgpack", test))]
mod format;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[cfg(feature = "msgpack")]
use self::decode::Decoder;
#[cfg(feature = "msgpack")]
use self::encode::Encoder;

pub use self::error::{CodecError, DEPTH_MAX};

/// The encoding of a value.
///
/// # Errors
/// A [`CodecError`], when the value has none.
#[cfg(feature = "msgpack")]
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    write(&mut bytes, value)?;
    Ok(bytes)
}

/// Appends the encoding of a value; after an error nothing is appended.
///
/// # Errors
/// A [`CodecError`], when the value has none.
#[cfg(feature = "msgpack")]
pub fn write<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
    let before = bytes.len();
    let written = value.serialize(&mut Encoder::new(bytes));
    if written.is_err() {
        bytes.truncate(before);
    }
    written
}

/// Reads a value; all bytes must belong to it.
///
/// # Errors
/// A [`CodecError`], when the bytes are no such value.
#[cfg(feature = "msgpack")]
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut decoder = Decoder::new(bytes);
    let value: T = Deserialize::deserialize(&mut decoder)?;
    match decoder.left() {
        0 => Ok(value),
        left => Err(CodecError::LeftOver(left)),
    }
}

/// Without the codec the types of a state machine are `Bytes` (see [`Value`](crate::state_machine::Value)), which pass through: these are compiled
/// and never called.
#[cfg(not(feature = "msgpack"))]
mod absent {
    use super::CodecError;

    fn absent<T>() -> Result<T, CodecError> {
        Err(CodecError::Type("this build has no codec: turn the feature `msgpack` on".to_owned()))
    }

    pub(crate) fn to_vec<T: ?Sized>(_: &T) -> Result<Vec<u8>, CodecError> {
        absent()
    }

    pub(crate) fn write<T: ?Sized>(_: &mut Vec<u8>, _: &T) -> Result<(), CodecError> {
        absent()
    }

    pub(crate) fn from_slice<T>(_: &[u8]) -> Result<T, CodecError> {
        absent()
    }
}

#[cfg(not(feature = "msgpack"))]
pub(crate) use self::absent::{from_slice, to_vec, write};

#[cfg(test)]
mod tests;
