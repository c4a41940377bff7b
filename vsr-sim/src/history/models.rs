//! Models of the objects that recorded histories are about.

use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

use super::Model;

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

    fn only_reads(&self, input: &RegisterInput<V>, output: Option<&RegisterOutput<V>>) -> bool {
        *input == RegisterInput::Read || output == Some(&RegisterOutput::NotEqual)
    }

    fn needs(&self, input: &RegisterInput<V>, output: &RegisterOutput<V>) -> Option<V> {
        match (input, output) {
            (RegisterInput::Read, RegisterOutput::Value(value)) => Some(value.clone()),
            (RegisterInput::CompareAndSet(expected, _), RegisterOutput::Done) => Some(expected.clone()),
            _ => None,
        }
    }

    fn makes(&self, input: &RegisterInput<V>, output: Option<&RegisterOutput<V>>) -> Option<V> {
        match input {
            _ if self.only_reads(input, output) => None,
            RegisterInput::Read => None,
            RegisterInput::Write(new) | RegisterInput::CompareAndSet(_, new) => Some(new.clone()),
        }
    }

    fn leads(&self, from: &V, to: &V) -> bool {
        from == to
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

/// What a client asks of a [`Text`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextInput {
    /// The text.
    Get,
    /// To hold this text.
    Put(String),
    /// To add this at the end.
    Append(String),
}

/// What a [`Text`] answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextOutput {
    /// Of a get.
    Value(String),
    /// Of a put and an append.
    Done,
}

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

    fn only_reads(&self, input: &TextInput, _: Option<&TextOutput>) -> bool {
        *input == TextInput::Get
    }

    fn needs(&self, _: &TextInput, output: &TextOutput) -> Option<String> {
        match output {
            TextOutput::Value(text) => Some(text.clone()),
            TextOutput::Done => None,
        }
    }

    fn makes(&self, input: &TextInput, _: Option<&TextOutput>) -> Option<String> {
        match input {
            TextInput::Put(text) => Some(text.clone()),
            TextInput::Get | TextInput::Append(_) => None,
        }
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

    fn only_reads(&self, (_, input): &(K, M::Input), output: Option<&M::Output>) -> bool {
        self.each.only_reads(input, output)
    }

    fn needs(&self, (_, input): &(K, M::Input), output: &M::Output) -> Option<M::State> {
        self.each.needs(input, output)
    }

    fn makes(&self, (_, input): &(K, M::Input), output: Option<&M::Output>) -> Option<M::State> {
        self.each.makes(input, output)
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
