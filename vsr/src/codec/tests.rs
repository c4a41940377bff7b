use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeSeq, Serializer};

use super::format::SOME;
use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
struct Skips {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(default)]
    name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(Option<Unit>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Empty {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair(u8, Option<()>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    A(u8),
    B(i64),
    C(String),
    D { deep: Option<Option<u8>> },
    E(Vec<Untagged>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t")]
enum Tagged {
    A { x: u8, y: Option<Option<u8>> },
    B(Skips),
    C,
    D { inner: Box<Tagged> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    A(u8, Option<()>),
    B { x: Option<Option<()>> },
    C,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    a: u8,
    #[serde(flatten)]
    skips: Skips,
    #[serde(flatten)]
    rest: BTreeMap<String, Option<u8>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Expr {
    True,
    Not(Box<Expr>),
    And(Vec<Expr>),
    If { condition: Option<Box<Expr>>, both: (Box<Expr>, Box<Expr>) },
    Pair(Box<Expr>, u8),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nested(Vec<Nested>);

/// Nothing but itself in an option.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Endless(Option<Box<Endless>>);

fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let bytes = to_vec(&value).unwrap_or_else(|error| panic!("{value:?}: {error}"));
    let back = from_slice::<T>(&bytes).unwrap_or_else(|error| panic!("{value:?} as {bytes:02x?}: {error}"));
    assert_eq!(back, value, "{bytes:02x?}");
    assert_eq!(to_vec(&back).as_ref(), Ok(&bytes), "the same value has the same bytes");
}

/// What a user writes arrives as it was.
#[test]
fn every_shape_arrives_as_it_was() {
    for skips in [(None, None), (None, Some(5)), (Some(1), None), (Some(1), Some(5))] {
        let skips = Skips { ttl: skips.0, limit: skips.1, name: "n".to_owned() };
        same(skips.clone());
        same(Tagged::B(skips.clone()));
        same(Flat { a: 1, skips: skips.clone(), rest: [("b".to_owned(), Some(2)), ("c".to_owned(), None)].into() });
        same(vec![(skips, 7_u8)]);
    }
    same((Unit, Newtype(None), Newtype(Some(Unit)), Empty {}, ()));
    same([Pair(1, None), Pair(2, Some(()))]);
    for value in [None, Some(None), Some(Some(7_u8))] {
        same(value);
        same(Untagged::D { deep: value });
        same(Tagged::A { x: 1, y: value });
        same(BTreeMap::from([(value, value)]));
    }
    for value in [None, Some(None), Some(Some(()))] {
        same(value);
        same(Adjacent::B { x: value });
    }
    same([None, Some(None), Some(Some(None)), Some(Some(Some(())))]);
    same((Untagged::A(7), Untagged::B(-7), Untagged::C("x".to_owned()), Untagged::E(vec![Untagged::A(1)])));
    same((Tagged::C, Tagged::D { inner: Box::new(Tagged::D { inner: Box::new(Tagged::C) }) }));
    same((Adjacent::A(1, Some(())), Adjacent::A(1, None), Adjacent::C));
    same(Expr::And(vec![
        Expr::Not(Box::new(Expr::True)),
        Expr::If { condition: None, both: (Box::new(Expr::True), Box::new(Expr::Pair(Box::new(Expr::True), 9))) },
        Expr::If { condition: Some(Box::new(Expr::True)), both: (Box::new(Expr::True), Box::new(Expr::True)) },
    ]));
    same(BTreeMap::from([((1_u8, -2_i16), "a".to_owned()), ((3, 4), String::new())]));
    same((u128::MAX, i128::MIN, i128::MAX, 0_u128, Some(1_u128)));
    same((f32::MIN_POSITIVE, 1.5_f32, f64::MAX, f64::NEG_INFINITY, -0.0_f64));
    same(('x', '\u{10ffff}', "ü".repeat(40), "y".repeat(300), "z".repeat(70_000)));
    same((Bytes::from_static(b"raw"), Bytes::from(vec![7; 300]), Bytes::from(vec![7; 70_000]), vec![0xff_u8; 20]));
    same((true, false, Ok::<u8, String>(1), Err::<u8, String>("e".to_owned())));
    same((vec![1_u16; 17], vec![(); 70_000], (0..20_u8).map(|n| (n, n)).collect::<BTreeMap<_, _>>()));
    same(Endless(Some(Box::new(Endless(Some(Box::new(Endless(None))))))));
}

/// Fields without names that serde skips would arrive as one another: such a value is refused.
#[test]
fn fields_without_names_that_are_skipped_are_refused_and_never_moved() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Two(
        #[serde(default, skip_serializing_if = "Option::is_none")] Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")] Option<u64>,
    );
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Either {
        Two(
            #[serde(default, skip_serializing_if = "Option::is_none")] Option<u64>,
            #[serde(default, skip_serializing_if = "Option::is_none")] Option<u64>,
        ),
    }
    for (first, second) in [(None, Some(5)), (Some(5), None), (None, None)] {
        let given = usize::from(first.is_some()) + usize::from(second.is_some());
        let refused = CodecError::Count { promised: given, given: 2 };
        assert_eq!(from_slice::<Two>(&to_vec(&Two(first, second)).unwrap()), Err(refused.clone()));
        assert_eq!(from_slice::<Either>(&to_vec(&Either::Two(first, second)).unwrap()), Err(refused));
    }
    let (two, either) = (Two(Some(1), Some(5)), Either::Two(Some(1), Some(5)));
    assert_eq!(from_slice::<Two>(&to_vec(&two).unwrap()), Ok(two));
    assert_eq!(from_slice::<Either>(&to_vec(&either).unwrap()), Ok(either));
}

#[test]
fn every_number_arrives_as_it_was() {
    for shift in 0..64 {
        for near in [(1_u64 << shift).wrapping_sub(1), 1 << shift, (1 << shift) + 1] {
            same((near, near as i64, (near as i64).wrapping_neg(), near as u32, near as i16, near as u8, near as i8));
            same((u128::from(near) << 64, i128::from(near as i64)));
        }
    }
}

/// What stands in logs that were written by position.
#[test]
fn structs_that_were_written_by_position_are_read() {
    let positional = rmp_serde::to_vec(&(Some(1_u64), None::<u64>, "n")).expect("an encoding");
    let expected = Skips { ttl: Some(1), limit: None, name: "n".to_owned() };
    assert_eq!(from_slice::<Skips>(&positional), Ok(expected));
    assert_eq!(from_slice::<Unit>(&rmp_serde::to_vec(&Unit).expect("an encoding")), Ok(Unit));
    let expr = Expr::If { condition: None, both: (Box::new(Expr::True), Box::new(Expr::True)) };
    assert_eq!(from_slice::<Expr>(&rmp_serde::to_vec(&expr).expect("an encoding")), Ok(expr));
}

/// What cannot be brought back is an error, never another value.
#[test]
fn what_serde_cannot_bring_back_is_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Wide {
        Number(u128),
    }
    let bytes = to_vec(&Wide::Number(1 << 100)).expect("an encoding");
    assert!(matches!(from_slice::<Wide>(&bytes), Err(CodecError::Type(_))));

    struct Liar;
    impl Serialize for Liar {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut sequence = serializer.serialize_seq(Some(3))?;
            sequence.serialize_element(&1)?;
            sequence.end()
        }
    }
    let mut bytes = vec![9];
    assert_eq!(write(&mut bytes, &Liar), Err(CodecError::Count { promised: 3, given: 1 }));
    assert_eq!(bytes, [9], "nothing is left of a value that has no encoding");

    let mut bytes = to_vec(&5_u8).expect("an encoding");
    bytes.push(0);
    assert_eq!(from_slice::<u8>(&bytes), Err(CodecError::LeftOver(1)));
    assert_eq!(from_slice::<u8>(&[]), Err(CodecError::Short));
}

/// As many levels as bytes of `Not` say, for any depth.
fn nots(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..depth {
        bytes.extend([0x81, 0xa3]);
        bytes.extend(b"Not");
    }
    bytes.push(0xa4);
    bytes.extend(b"True");
    bytes
}

/// On a thread with the stack that most threads have.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(test).expect("a thread");
    thread.join().expect("no panic");
}

/// A value that is too deep, of any depth, ends in an error, on a stack of 2 MiB; the deepest that is allowed passes.
#[test]
fn too_deep_is_an_error_before_the_stack_overflows() {
    on_a_small_stack(|| {
        let deep = |levels| (0..levels).fold(Expr::True, |inner, _| Expr::Not(Box::new(inner)));
        same(deep(DEPTH_MAX));
        assert_eq!(to_vec(&deep(DEPTH_MAX + 1)), Err(CodecError::TooDeep));
        assert!(from_slice::<Expr>(&nots(DEPTH_MAX)).is_ok());
        let nested = |levels| (1..levels).fold(Nested(vec![]), |inner, _| Nested(vec![inner]));
        same(nested(DEPTH_MAX));
        assert_eq!(to_vec(&nested(DEPTH_MAX + 1)), Err(CodecError::TooDeep));
        let tagged = |levels| (1..levels).fold(Tagged::C, |inner, _| Tagged::D { inner: Box::new(inner) });
        same(tagged(DEPTH_MAX));
        for depth in [DEPTH_MAX + 1, 350, 1024, 20_000, 200_000] {
            assert_eq!(from_slice::<Expr>(&nots(depth)), Err(CodecError::TooDeep), "{depth} enums");
            let mut arrays = vec![0x91_u8; depth];
            arrays.push(0x90);
            assert_eq!(from_slice::<Nested>(&arrays), Err(CodecError::TooDeep), "{depth} arrays");
            assert!(from_slice::<Untagged>(&arrays).is_err(), "{depth} arrays, untagged");
            let mut ignored = vec![0x82_u8, 0xa1, b'u'];
            ignored.extend(arrays);
            ignored.extend([0xa4, b'n', b'a', b'm', b'e', 0xa0]);
            assert_eq!(from_slice::<Skips>(&ignored), Err(CodecError::TooDeep), "a field that nobody knows");
            let maps = [0x81_u8, 0x01].repeat(depth);
            assert_eq!(from_slice::<serde::de::IgnoredAny>(&maps).err(), Some(CodecError::TooDeep), "{depth} maps");
            let marks = vec![SOME; depth];
            assert_eq!(from_slice::<Endless>(&marks), Err(CodecError::TooDeep), "{depth} marks");
        }
    });
}

/// One byte, and a type that takes none of it.
#[test]
fn a_type_that_takes_no_byte_ends() {
    on_a_small_stack(|| assert_eq!(from_slice::<Endless>(&[1]), Err(CodecError::TooDeep)));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = from_slice::<Expr>(&bytes);
        let _ = from_slice::<Flat>(&bytes);
        let _ = from_slice::<Tagged>(&bytes);
        let _ = from_slice::<Untagged>(&bytes);
        let _ = from_slice::<(u128, String, f32, Option<Option<()>>)>(&bytes);
        let _ = from_slice::<Vec<()>>(&bytes);
    }

    #[test]
    fn damaged_values_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let value = Flat { a: 1, skips: Skips::default(), rest: [("b".to_owned(), Some(2))].into() };
        let expr = Expr::And(vec![Expr::True, Expr::Pair(Box::new(Expr::True), 1)]);
        let mut bytes = to_vec(&(value, expr)).expect("an encoding");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = from_slice::<(Flat, Expr)>(&bytes);
    }
}
