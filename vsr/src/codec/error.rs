//! What has no encoding, and what is none.

/// Sequences, maps and enums with content that may stand one in the other. A debug build takes up to some
/// 25 KiB of stack for a level of an enum with many variants; threads often have 2 MiB.
pub const DEPTH_MAX: usize = 64;

/// Why a value has no encoding, or bytes are no value of the type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Deeper than [`DEPTH_MAX`].
    #[error("the value is nested more than {DEPTH_MAX} levels deep: make it flatter")]
    TooDeep,
    /// The bytes end inside the value.
    #[error("the bytes end in the middle of the value")]
    Short,
    /// There are more bytes than the value has.
    #[error("{0} bytes are left over behind the value")]
    LeftOver(usize),
    /// A byte that begins no value.
    #[error("no value that is understood here begins with byte {byte:#04x}, at {at}")]
    NotAValue {
        /// The byte that was found.
        byte: u8,
        /// Its offset in the encoded value, in bytes.
        at: usize,
    },
    /// A text that is not UTF-8.
    #[error("the text at byte {0} is not UTF-8")]
    NotText(usize),
    /// More elements or bytes than 32 bits can count.
    #[error("a length of {0} is more than can be encoded")]
    TooLong(usize),
    /// A sequence or a map that has more or fewer elements than it said, or than its type has. Of a tuple struct or a tuple variant
    /// serde has skipped a field: give the fields names.
    #[error(
        "{promised} elements were announced, {given} are used (fields without names cannot be skipped: give them names)"
    )]
    Count {
        /// The number of elements that was announced.
        promised: usize,
        /// The number of elements that was written, or read.
        given: usize,
    },
    /// The type itself refuses the value.
    #[error("{0}")]
    Type(String),
}

impl serde::ser::Error for CodecError {
    fn custom<T: std::fmt::Display>(message: T) -> CodecError {
        CodecError::Type(message.to_string())
    }
}

impl serde::de::Error for CodecError {
    fn custom<T: std::fmt::Display>(message: T) -> CodecError {
        CodecError::Type(message.to_string())
    }
}
