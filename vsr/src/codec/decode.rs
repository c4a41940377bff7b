//! From bytes to values: the deserializer of the [codec](super).

use serde::de::{self, DeserializeSeed, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::error::{CodecError, DEPTH_MAX};
use super::format::{NIL, SOME, TRANSPARENT_MAX};

/// Reads from a slice. Nothing is allocated for a length that is claimed.
pub(super) struct Decoder<'de> {
    bytes: &'de [u8],
    at: usize,
    /// Levels that may still be entered.
    depth: usize,
    /// Newtypes and options since the last byte, and where that was.
    transparent: (usize, usize),
}

impl<'de> Decoder<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Decoder<'de> {
        Decoder { bytes, at: 0, depth: DEPTH_MAX, transparent: (0, 0) }
    }

    /// Bytes that were not read.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn enter(&mut self) -> Result<(), CodecError> {
        self.depth = self.depth.checked_sub(1).ok_or(CodecError::TooDeep)?;
        Ok(())
    }

    /// A newtype or an option begins, without a byte.
    fn pass(&mut self) -> Result<(), CodecError> {
        let (count, at) = self.transparent;
        let count = if at == self.at { count + 1 } else { 1 };
        self.transparent = (count, self.at);
        if count > TRANSPARENT_MAX { Err(CodecError::TooDeep) } else { Ok(()) }
    }

    fn peek(&self) -> Result<u8, CodecError> {
        self.bytes.get(self.at).copied().ok_or(CodecError::Short)
    }

    fn take(&mut self, len: usize) -> Result<&'de [u8], CodecError> {
        let end = self.at.checked_add(len).ok_or(CodecError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(CodecError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        self.take(N)?.try_into().map_err(|_| CodecError::Short)
    }

    fn length8(&mut self) -> Result<usize, CodecError> {
        Ok(u8::from_be_bytes(self.array()?).into())
    }

    fn length16(&mut self) -> Result<usize, CodecError> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn length32(&mut self) -> Result<usize, CodecError> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| CodecError::Short)
    }

    fn text<V: Visitor<'de>>(&mut self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        let at = self.at;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| CodecError::NotText(at))?;
        visitor.visit_borrowed_str(text)
    }

    fn binary<V: Visitor<'de>>(&mut self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_bytes(self.take(len)?)
    }

    fn sequence<V: Visitor<'de>>(&mut self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.compound(len, |elements| visitor.visit_seq(elements))
    }

    /// A sequence of elements without names, each of which has to be there: a field that serde skips moves the others, and
    /// one that it fills in at the end hides that.
    fn positional<V: Visitor<'de>>(&mut self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        let at = self.at;
        let byte = self.peek()?;
        self.at += 1;
        let promised = match byte {
            0x90..=0x9f => Some((byte & 0x0f).into()),
            0xdc => Some(self.length16()?),
            0xdd => Some(self.length32()?),
            _ => None,
        };
        self.at = at;
        match promised {
            Some(promised) if promised != len => Err(CodecError::Count { promised, given: len }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn map<V: Visitor<'de>>(&mut self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.compound(len, |elements| visitor.visit_map(elements))
    }

    /// A level of its own with so many elements, all of which have to be taken.
    fn compound<T>(
        &mut self,
        len: usize,
        visit: impl FnOnce(&mut Elements<'_, 'de>) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        self.enter()?;
        let mut elements = Elements { decoder: &mut *self, left: len };
        let value = visit(&mut elements)?;
        let given = len - elements.left;
        self.depth += 1;
        if given == len { Ok(value) } else { Err(CodecError::Count { promised: len, given }) }
    }

    /// A `Some` with its mark before it.
    fn marked<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, CodecError> {
        self.enter()?;
        let value = visitor.visit_some(&mut *self)?;
        self.depth += 1;
        Ok(value)
    }

    /// The 16 bytes of a 128-bit number, if it is one; small ones of other writers are numbers like others.
    fn wide(&mut self) -> Result<Option<[u8; 16]>, CodecError> {
        if self.peek()? != 0xc4 {
            return Ok(None);
        }
        let at = self.at;
        self.at += 1;
        match self.length8()? {
            16 => self.array().map(Some),
            len => Err(CodecError::Type(format!("{len} bytes at {at} are not a 128-bit number"))),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = CodecError;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let at = self.at;
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            0x00..=0x7f => visitor.visit_u8(byte),
            0x80..=0x8f => self.map((byte & 0x0f).into(), visitor),
            0x90..=0x9f => self.sequence((byte & 0x0f).into(), visitor),
            0xa0..=0xbf => self.text((byte & 0x1f).into(), visitor),
            NIL => visitor.visit_unit(),
            SOME => self.marked(visitor),
            0xc2 => visitor.visit_bool(false),
            0xc3 => visitor.visit_bool(true),
            0xc4 => self.length8().and_then(|len| self.binary(len, visitor)),
            0xc5 => self.length16().and_then(|len| self.binary(len, visitor)),
            0xc6 => self.length32().and_then(|len| self.binary(len, visitor)),
            0xca => visitor.visit_f32(f32::from_be_bytes(self.array()?)),
            0xcb => visitor.visit_f64(f64::from_be_bytes(self.array()?)),
            0xcc => visitor.visit_u8(u8::from_be_bytes(self.array()?)),
            0xcd => visitor.visit_u16(u16::from_be_bytes(self.array()?)),
            0xce => visitor.visit_u32(u32::from_be_bytes(self.array()?)),
            0xcf => visitor.visit_u64(u64::from_be_bytes(self.array()?)),
            0xd0 => visitor.visit_i8(i8::from_be_bytes(self.array()?)),
            0xd1 => visitor.visit_i16(i16::from_be_bytes(self.array()?)),
            0xd2 => visitor.visit_i32(i32::from_be_bytes(self.array()?)),
            0xd3 => visitor.visit_i64(i64::from_be_bytes(self.array()?)),
            0xd9 => self.length8().and_then(|len| self.text(len, visitor)),
            0xda => self.length16().and_then(|len| self.text(len, visitor)),
            0xdb => self.length32().and_then(|len| self.text(len, visitor)),
            0xdc => self.length16().and_then(|len| self.sequence(len, visitor)),
            0xdd => self.length32().and_then(|len| self.sequence(len, visitor)),
            0xde => self.length16().and_then(|len| self.map(len, visitor)),
            0xdf => self.length32().and_then(|len| self.map(len, visitor)),
            0xe0..=0xff => visitor.visit_i8(i8::from_be_bytes([byte])),
            0xc7..=0xc9 | 0xd4..=0xd8 => Err(CodecError::NotAValue { byte, at }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.pass()?;
        match self.peek()? {
            NIL => {
                self.at += 1;
                visitor.visit_none()
            }
            SOME => {
                self.at += 1;
                self.marked(visitor)
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        self.pass()?;
        visitor.visit_newtype_struct(self)
    }

    /// An empty array stands for a unit struct in what other writers have written.
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        if self.peek()? == 0x90 {
            self.at += 1;
            return visitor.visit_unit();
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.positional(len, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        match self.peek()? {
            0x81 => {
                self.at += 1;
                self.enter()?;
                let value = visitor.visit_enum(Variant { decoder: &mut *self, has_content: true })?;
                self.depth += 1;
                Ok(value)
            }
            0xa0..=0xbf | 0xd9..=0xdb => visitor.visit_enum(Variant { decoder: self, has_content: false }),
            byte => Err(CodecError::Type(format!("byte {byte:#04x} at {} begins no {name}", self.at))),
        }
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.wide()? {
            Some(bytes) => visitor.visit_i128(i128::from_be_bytes(bytes)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.wide()? {
            Some(bytes) => visitor.visit_u128(u128::from_be_bytes(bytes)),
            None => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit seq tuple map struct
        identifier ignored_any
    }
}

/// The rest of a sequence or a map.
struct Elements<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        // Each element takes a byte at least.
        Some(self.left.min(self.decoder.left()))
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_, 'de> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CodecError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CodecError> {
        seed.deserialize(&mut *self.decoder)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.decoder.left() / 2))
    }
}

/// An enum: its variant's name, and perhaps content.
struct Variant<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    has_content: bool,
}

impl Variant<'_, '_> {
    fn check(&self, wanted: &str) -> Result<(), CodecError> {
        if self.has_content {
            Ok(())
        } else {
            Err(CodecError::Type(format!("a variant without content, not {wanted}")))
        }
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = CodecError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), CodecError> {
        let variant = seed.deserialize(&mut *self.decoder)?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        if self.has_content { <()>::deserialize(self.decoder) } else { Ok(()) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CodecError> {
        self.check("one with a value")?;
        seed.deserialize(self.decoder)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.check("one with a tuple")?;
        self.decoder.positional(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, CodecError> {
        self.check("one with fields")?;
        self.decoder.deserialize_any(visitor)
    }
}
