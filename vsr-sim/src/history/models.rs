//! Models of the objects that recorded histories are about.

use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

use super::texts::{TextInput, TextOutput, rephrase};
use super::{Effect, Model};

/// A register with compare-and-set.
#[derive(Clone, Debug)]
pub struct Register<V> {
    initial: V,
}

impl<V> Register<V> {
    /// A register that holds this value at first.
    pub fn new(initial: V) -> Register<V> {
        Register { initial }
    }
}

/// What a client asks of a [`Register`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegisterInput<V> {
    /// The value.
    Read,
    /// To hold this value.
    Write(V),
    /// To hold the second value if it holds the first.
    CompareAndSet(V, V),
}

/// What a [`Register`] answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegisterOutput<V> {
    /// Of a read.
    Value(V),
    /// Of a write, and of a compare-and-set that found what it expected.
    Done,
    /// Of a compare-and-set that found another value.
    NotEqual,
}

impl<V: Clone + Eq + Hash + Debug> Model for Register<V> {
    type Input = RegisterInput<V>;
    type Output = RegisterOutput<V>;
    type State = V;
    type Key = ();

    fn key(&self, _: &RegisterInput<V>) {}

    fn initial(&self, _: &()) -> V {
        self.initial.clone()
    }

    fn step(&self, value: &V, input: &RegisterInput<V>, output: Option<&RegisterOutput<V>>) -> Option<V> {
        match (input, output) {
            (RegisterInput::Read, None) => Some(value.clone()),
            (RegisterInput::Read, Some(RegisterOutput::Value(read))) => (read == value).then(|| value.clone()),
            (RegisterInput::Write(new), None | Some(RegisterOutput::Done)) => Some(new.clone()),
            (RegisterInput::CompareAndSet(expected, new), None | Some(RegisterOutput::Done)) if expected == value => {
                Some(new.clone())
            }
            (RegisterInput::CompareAndSet(..), None) => Some(value.clone()),
            (RegisterInput::CompareAndSet(expected, _), Some(RegisterOutput::NotEqual)) if expected != value => {
                Some(value.clone())
            }
            _ => None,
        }
    }

    fn effect(&self, input: &RegisterInput<V>, output: Option<&RegisterOutput<V>>) -> Effect<V> {
        match (input, output) {
            (RegisterInput::Read, Some(RegisterOutput::Value(value))) => Effect::Reads(Some(value.clone())),
            (RegisterInput::Read, None) | (_, Some(RegisterOutput::NotEqual)) => Effect::Reads(None),
            (RegisterInput::Write(new), None | Some(RegisterOutput::Done)) => Effect::Replaces(new.clone()),
            (RegisterInput::CompareAndSet(expected, new), None | Some(RegisterOutput::Done)) => {
                Effect::Moves(expected.clone(), new.clone())
            }
            _ => Effect::Other,
        }
    }

    fn describe(&self, input: &RegisterInput<V>, output: Option<&RegisterOutput<V>>) -> String {
        let failed = if output == Some(&RegisterOutput::NotEqual) { " not equal" } else { "" };
        match (input, output) {
            (RegisterInput::Read, Some(RegisterOutput::Value(value))) => format!("read {value:?}"),
            (RegisterInput::Read, _) => "read".to_owned(),
            (RegisterInput::Write(value), _) => format!("write {value:?}"),
            (RegisterInput::CompareAndSet(expected, new), _) => format!("cas {expected:?} {new:?}{failed}"),
        }
    }
}

/// A text that can be replaced and added to; empty at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text;

impl Model for Text {
    type Input = TextInput;
    type Output = TextOutput;
    type State = String;
    type Key = ();

    fn key(&self, _: &TextInput) {}

    fn initial(&self, _: &()) -> String {
        String::new()
    }

    fn step(&self, text: &String, input: &TextInput, output: Option<&TextOutput>) -> Option<String> {
        match (input, output) {
            (TextInput::Get, None) => Some(text.clone()),
            (TextInput::Get, Some(TextOutput::Value(read))) => (read == text).then(|| text.clone()),
            (TextInput::Put(new), None | Some(TextOutput::Done)) => Some(new.clone()),
            (TextInput::Append(end), None | Some(TextOutput::Done)) => Some([text.as_str(), end].concat()),
            _ => None,
        }
    }

    fn effect(&self, input: &TextInput, output: Option<&TextOutput>) -> Effect<String> {
        match (input, output) {
            (TextInput::Get, Some(TextOutput::Value(text))) => Effect::Reads(Some(text.clone())),
            (TextInput::Get, None) => Effect::Reads(None),
            (TextInput::Put(text), None | Some(TextOutput::Done)) => Effect::Replaces(text.clone()),
            _ => Effect::Other,
        }
    }

    fn rephrase(&self, operations: &[(&TextInput, Option<&TextOutput>)]) -> Option<Vec<Effect<u32>>> {
        rephrase(operations)
    }

    fn leads(&self, from: &String, to: &String) -> bool {
        to.starts_with(from.as_str())
    }

    fn heap_bytes(&self, text: &String) -> usize {
        text.len()
    }

    fn describe(&self, input: &TextInput, output: Option<&TextOutput>) -> String {
        match (input, output) {
            (TextInput::Get, Some(TextOutput::Value(text))) => format!("get {}", quote(text)),
            (TextInput::Get, _) => "get".to_owned(),
            (TextInput::Put(text), _) => format!("put {}", quote(text)),
            (TextInput::Append(text), _) => format!("append {}", quote(text)),
        }
    }
}

/// The end of a long text tells more than its beginning.
fn quote(text: &str) -> String {
    const SHOWN: usize = 40;
    let skipped = text.chars().count().saturating_sub(SHOWN);
    if skipped == 0 {
        return format!("{text:?}");
    }
    let end: String = text.chars().skip(skipped).collect();
    format!("({skipped} characters and) {end:?}")
}

/// Any number of objects of one kind, each with a name. The input of an operation is the name and what is
/// asked of the object.
#[derive(Clone, Debug)]
pub struct Keyed<K, M> {
    each: M,
    names: PhantomData<K>,
}

impl<K, M> Keyed<K, M> {
    /// Objects that each are as this model says.
    pub fn new(each: M) -> Keyed<K, M> {
        Keyed { each, names: PhantomData }
    }
}

impl<K: Ord + Clone + Hash + Debug, M: Model<Key = ()>> Model for Keyed<K, M> {
    type Input = (K, M::Input);
    type Output = M::Output;
    type State = M::State;
    type Key = K;

    fn key(&self, (key, _): &(K, M::Input)) -> K {
        key.clone()
    }

    fn initial(&self, _: &K) -> M::State {
        self.each.initial(&())
    }

    fn step(&self, state: &M::State, (_, input): &(K, M::Input), output: Option<&M::Output>) -> Option<M::State> {
        self.each.step(state, input, output)
    }

    fn effect(&self, (_, input): &(K, M::Input), output: Option<&M::Output>) -> Effect<M::State> {
        self.each.effect(input, output)
    }

    fn rephrase(&self, operations: &[(&(K, M::Input), Option<&M::Output>)]) -> Option<Vec<Effect<u32>>> {
        let unnamed: Vec<_> = operations.iter().map(|((_, input), output)| (input, *output)).collect();
        self.each.rephrase(&unnamed)
    }

    fn leads(&self, from: &M::State, to: &M::State) -> bool {
        self.each.leads(from, to)
    }

    fn heap_bytes(&self, state: &M::State) -> usize {
        self.each.heap_bytes(state)
    }

    fn describe(&self, (key, input): &(K, M::Input), output: Option<&M::Output>) -> String {
        format!("{} at {key:?}", self.each.describe(input, output))
    }
}
