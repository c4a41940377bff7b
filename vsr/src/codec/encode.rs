//! From values to bytes: the serializer of the [codec](super).

use serde::{Serialize, Serializer, ser};

use super::error::{CodecError, DEPTH_MAX};
use super::format::{NIL, SOME, TRANSPARENT_MAX};

/// Appends to a buffer.
pub(super) struct Encoder<'b> {
    bytes: &'b mut Vec<u8>,
    /// Levels that may still be entered.
    depth: usize,
    /// Newtypes and options since the last byte, and the length then.
    transparent: (usize, usize),
}

impl<'b> Encoder<'b> {
    pub(super) fn new(bytes: &'b mut Vec<u8>) -> Encoder<'b> {
        Encoder { bytes, depth: DEPTH_MAX, transparent: (0, 0) }
    }

    fn enter(&mut self) -> Result<(), CodecError> {
        self.depth = self.depth.checked_sub(1).ok_or(CodecError::TooDeep)?;
        Ok(())
    }

    /// A newtype or an option begins, without a byte.
    fn pass(&mut self) -> Result<(), CodecError> {
        let (count, at) = self.transparent;
        let count = if at == self.bytes.len() { count + 1 } else { 1 };
        self.transparent = (count, self.bytes.len());
        if count > TRANSPARENT_MAX { Err(CodecError::TooDeep) } else { Ok(()) }
    }

    fn put<const N: usize>(&mut self, marker: u8, bytes: [u8; N]) {
        self.bytes.push(marker);
        self.bytes.extend_from_slice(&bytes);
    }

    /// A length in one, two or four bytes, behind the marker for so many.
    fn put_len(&mut self, markers: [u8; 3], len: usize) -> Result<(), CodecError> {
        match len {
            0..=0xff => self.put(markers[0], (len as u8).to_be_bytes()),
            0x100..=0xffff => self.put(markers[1], (len as u16).to_be_bytes()),
            _ => self.put(markers[2], count(len)?.to_be_bytes()),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), CodecError> {
        match text.len() {
            len @ 0..=31 => self.bytes.push(0xa0 | len as u8),
            len => self.put_len([0xd9, 0xda, 0xdb], len)?,
        }
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn header(&mut self, kind: Kind, len: usize) -> Result<(), CodecError> {
        let (fix, wide, wider) = match kind {
            Kind::Array => (0x90, 0xdc, 0xdd),
            Kind::Map => (0x80, 0xde, 0xdf),
        };
        match len {
            0..=15 => self.bytes.push(fix | len as u8),
            16..=0xffff => self.put(wide, (len as u16).to_be_bytes()),
            _ => self.put(wider, count(len)?.to_be_bytes()),
        }
        Ok(())
    }

    /// Begins a sequence or a map. Without a length, one is put in at its end.
    fn compound<'a>(&'a mut self, kind: Kind, len: Option<usize>) -> Result<Compound<'a, 'b>, CodecError> {
        self.enter()?;
        let at = self.bytes.len();
        match len {
            Some(len) => self.header(kind, len)?,
            None => self.put(if kind == Kind::Map { 0xdf } else { 0xdd }, [0; 4]),
        }
        Ok(Compound { encoder: self, at, promised: len, given: 0, levels: 1 })
    }

    /// Begins the content of an enum: a map of one, from the variant's name.
    fn variant(&mut self, variant: &str) -> Result<(), CodecError> {
        self.enter()?;
        self.header(Kind::Map, 1)?;
        self.text(variant)
    }

    /// Begins an enum's content of several fields.
    fn variant_of<'a>(&'a mut self, variant: &str, kind: Kind, len: usize) -> Result<Compound<'a, 'b>, CodecError> {
        self.variant(variant)?;
        let content = self.compound(kind, Some(len))?;
        Ok(Compound { levels: 2, ..content })
    }
}

fn count(len: usize) -> Result<u32, CodecError> {
    u32::try_from(len).map_err(|_| CodecError::TooLong(len))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Map,
}

/// A sequence or a map that is being written.
pub(super) struct Compound<'a, 'b> {
    encoder: &'a mut Encoder<'b>,
    /// Where its header stands.
    at: usize,
    promised: Option<usize>,
    given: usize,
    /// Levels that it has entered.
    levels: usize,
}

impl Compound<'_, '_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.given += 1;
        value.serialize(&mut *self.encoder)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), CodecError> {
        self.encoder.text(name)?;
        self.element(value)
    }

    fn finish(self) -> Result<(), CodecError> {
        self.encoder.depth += self.levels;
        match self.promised {
            Some(promised) if promised != self.given => Err(CodecError::Count { promised, given: self.given }),
            Some(_) => Ok(()),
            None => {
                let len = count(self.given)?.to_be_bytes();
                if let Some(header) = self.encoder.bytes.get_mut(self.at + 1..self.at + 5) {
                    header.copy_from_slice(&len);
                }
                Ok(())
            }
        }
    }
}

/// Numbers that are written as a wider type's: each takes the bytes that its value needs.
macro_rules! widened {
    ($($method:ident($narrow:ty) => $wide:ident,)*) => {$(
        fn $method(self, value: $narrow) -> Result<(), CodecError> {
            self.$wide(value.into())
        }
    )*};
}

impl<'a, 'b> Serializer for &'a mut Encoder<'b> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Compound<'a, 'b>;
    type SerializeTuple = Compound<'a, 'b>;
    type SerializeTupleStruct = Compound<'a, 'b>;
    type SerializeTupleVariant = Compound<'a, 'b>;
    type SerializeMap = Compound<'a, 'b>;
    type SerializeStruct = Compound<'a, 'b>;
    type SerializeStructVariant = Compound<'a, 'b>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        self.bytes.push(if value { 0xc3 } else { 0xc2 });
        Ok(())
    }

    widened! {
        serialize_i8(i8) => serialize_i64,
        serialize_i16(i16) => serialize_i64,
        serialize_i32(i32) => serialize_i64,
    }

    fn serialize_i64(self, value: i64) -> Result<(), CodecError> {
        match value {
            0.. => return self.serialize_u64(value.unsigned_abs()),
            -32..0 => self.bytes.push(value as u8),
            -0x80..-32 => self.put(0xd0, (value as i8).to_be_bytes()),
            -0x8000..-0x80 => self.put(0xd1, (value as i16).to_be_bytes()),
            -0x8000_0000..-0x8000 => self.put(0xd2, (value as i32).to_be_bytes()),
            _ => self.put(0xd3, value.to_be_bytes()),
        }
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), CodecError> {
        self.serialize_bytes(&value.to_be_bytes())
    }

    widened! {
        serialize_u8(u8) => serialize_u64,
        serialize_u16(u16) => serialize_u64,
        serialize_u32(u32) => serialize_u64,
    }

    fn serialize_u64(self, value: u64) -> Result<(), CodecError> {
        match value {
            0..=0x7f => self.bytes.push(value as u8),
            0x80..=0xff => self.put(0xcc, (value as u8).to_be_bytes()),
            0x100..=0xffff => self.put(0xcd, (value as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.put(0xce, (value as u32).to_be_bytes()),
            _ => self.put(0xcf, value.to_be_bytes()),
        }
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), CodecError> {
        self.serialize_bytes(&value.to_be_bytes())
    }

    fn serialize_f32(self, value: f32) -> Result<(), CodecError> {
        self.put(0xca, value.to_be_bytes());
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), CodecError> {
        self.put(0xcb, value.to_be_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        self.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        self.put_len([0xc4, 0xc5, 0xc6], value.len())?;
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        self.pass()?;
        let at = self.bytes.len();
        value.serialize(&mut *self)?;
        // What begins so is short: `nil` alone, or marks with `nil` behind them.
        if matches!(self.bytes.get(at), Some(&(NIL | SOME))) {
            self.bytes.insert(at, SOME);
        }
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        self.bytes.push(NIL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), CodecError> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), CodecError> {
        self.pass()?;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.depth += 1;
        Ok(())
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'a, 'b>, CodecError> {
        self.compound(Kind::Array, len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a, 'b>, CodecError> {
        self.compound(Kind::Array, Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Compound<'a, 'b>, CodecError> {
        self.compound(Kind::Array, Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a, 'b>, CodecError> {
        self.variant_of(variant, Kind::Array, len)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'a, 'b>, CodecError> {
        self.compound(Kind::Map, len)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Compound<'a, 'b>, CodecError> {
        self.compound(Kind::Map, Some(len))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a, 'b>, CodecError> {
        self.variant_of(variant, Kind::Map, len)
    }
}

/// What serde calls the several kinds of a sequence of values, with names or without.
macro_rules! compound {
    ($($kind:ident::$method:ident($($name:ident: $type:ty)?) => $write:ident;)*) => {$(
        impl ser::$kind for Compound<'_, '_> {
            type Ok = ();
            type Error = CodecError;

            fn $method<T: Serialize + ?Sized>(&mut self, $($name: $type,)? value: &T) -> Result<(), CodecError> {
                self.$write($($name,)? value)
            }

            fn end(self) -> Result<(), CodecError> {
                self.finish()
            }
        }
    )*};
}

impl ser::SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        key.serialize(&mut *self.encoder)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

compound! {
    SerializeSeq::serialize_element() => element;
    SerializeTuple::serialize_element() => element;
    SerializeTupleStruct::serialize_field() => element;
    SerializeTupleVariant::serialize_field() => element;
    SerializeStruct::serialize_field(name: &'static str) => field;
    SerializeStructVariant::serialize_field(name: &'static str) => field;
}
