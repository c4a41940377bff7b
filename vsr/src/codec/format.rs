//! What the format adds to MessagePack.

/// Newtypes and options one in the other that take no byte of their own. A type that is nothing but itself in
/// an `Option` would never end otherwise.
pub(super) const TRANSPARENT_MAX: usize = 16;

pub(super) const NIL: u8 = 0xc0;
/// Before the content of a `Some` that begins with [`NIL`] or with this byte.
pub(super) const SOME: u8 = 0xc1;
