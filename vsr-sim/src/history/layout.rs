//! One part of a history, laid out for the search.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::rc::Rc;

use super::{Completion, Effect, Model, Operation};

/// A `HashMap` without random state, never iterated.
#[allow(clippy::disallowed_types, reason = "the hasher is fixed, and iteration is denied by a lint")]
pub(super) type FastMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<FastHasher>>;

/// Multiply and fold: quick on long texts.
#[derive(Default)]
pub(super) struct FastHasher(u64);

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(word) ^ (rest.len() as u64) << 56);
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xbf58_476d_1ce4_e5b9;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Gives equal values the same number.
pub(super) struct Numbered<T> {
    numbers: FastMap<Rc<T>, u32>,
    values: Vec<Rc<T>>,
}

impl<T: Eq + Hash> Numbered<T> {
    pub(super) fn new() -> Numbered<T> {
        Numbered { numbers: FastMap::default(), values: Vec::new() }
    }

    pub(super) fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let (number, value) = (self.values.len() as u32, Rc::new(value));
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    pub(super) fn find(&self, value: &T) -> Option<u32> {
        self.numbers.get(value).copied()
    }

    pub(super) fn get(&self, number: u32) -> Rc<T> {
        self.values[number as usize].clone()
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// An operation as it looks at some moment of the history. Times are positions in the order of all
/// invocations and returns.
pub(super) struct Seen<'a, I, O> {
    pub(super) input: &'a I,
    /// None if it has not returned, or never will.
    pub(super) answer: Option<(&'a O, u32)>,
    pub(super) called: u32,
}

impl<'a, I, O> Seen<'a, I, O> {
    /// These operations of a history at the moment at which so many have returned. What is in flight then
    /// has an unknown outcome.
    pub(super) fn all(history: &'a [Operation<I, O>], part: &[usize], returns: usize) -> Vec<Seen<'a, I, O>> {
        let mut moments = Vec::with_capacity(part.len() * 2);
        for &index in part {
            let Operation { invoked, outcome, .. } = &history[index];
            // What returns at the moment of an invocation is concurrent with it, so invocations go first.
            moments.push((*invoked, false, index));
            if let Completion::Returned { at, .. } = outcome {
                moments.push((*at.max(invoked), true, index));
            }
        }
        moments.sort_unstable();
        let mut seen: Vec<Seen<'a, I, O>> = Vec::with_capacity(part.len());
        let mut places = FastMap::default();
        let mut left = returns;
        for (position, (_, returned, index)) in moments.into_iter().enumerate() {
            let (Operation { input, outcome, .. }, position) = (&history[index], position as u32);
            match outcome {
                Completion::Returned { output, .. } if returned => {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    let place: Option<usize> = places.remove(&index);
                    if let Some(seen) = place.and_then(|place| seen.get_mut(place)) {
                        seen.answer = Some((output, position));
                    }
                }
                _ => {
                    places.insert(index, seen.len());
                    seen.push(Seen { input, answer: None, called: position });
                }
            }
        }
        seen
    }

    pub(super) fn output(&self) -> Option<&'a O> {
        self.answer.map(|(output, _)| output)
    }
}

/// An operation with a known outcome.
pub(super) struct Known {
    pub(super) class: u32,
    pub(super) called: u32,
    pub(super) returned: u32,
    /// A number that no other operation has between the two moments.
    pub(super) slot: u32,
    /// How many operations that feed what it needs are invoked before it returns.
    pub(super) supply: u32,
}

/// What all operations with the same input and output have in common.
pub(super) struct Class<'a, M: Model> {
    pub(super) input: &'a M::Input,
    pub(super) output: Option<&'a M::Output>,
    /// It leaves every state as it was.
    pub(super) reads: bool,
    /// It is possible in every state, and what it leads to does not depend on that.
    pub(super) replaces: bool,
    /// It can only lead to the states that it feeds.
    pub(super) makes: bool,
    /// The number of the state that it needs to be possible or, with an unknown outcome, to have an effect.
    pub(super) needs: Option<u32>,
    /// The numbers of the needed states that can follow from what it makes.
    pub(super) feeds: Rc<[u32]>,
    /// Of unknown operations, when each was invoked. Equal ones can stand for each other, so they are used
    /// in this order.
    pub(super) calls: Vec<u32>,
}

/// What is known of a state that some operation needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// Known operations that need it.
    pub(super) known: u32,
    /// All operations that need it.
    pub(super) all: u32,
    /// Operations that feed it.
    pub(super) fed: u32,
}

/// One part of a history. Known operations have the order of their returns: the first one that is not
/// placed is what the search has to reach next.
pub(super) struct Layout<'a, M: Model> {
    pub(super) known: Vec<Known>,
    /// The known operations in the order of their invocations.
    pub(super) by_call: Vec<u32>,
    pub(super) slots: usize,
    pub(super) classes: Vec<Class<'a, M>>,
    /// The classes of unknown operations.
    pub(super) unknown: Vec<u32>,
    /// The states that some operation needs.
    pub(super) needed: Numbered<M::State>,
    pub(super) demands: Vec<Demand>,
    /// Of each needed state, the places in `unknown` of what feeds it.
    pub(super) unknown_feeds: Vec<Vec<u32>>,
    /// The needed states that can follow from the initial state.
    pub(super) from_initial: Rc<[u32]>,
    /// From each known operation on, the first one that needs a state; one more than there are operations.
    pub(super) next_need: Vec<u32>,
    /// Whether [`Model::leads`] says which state can follow from which. Else only equal ones can.
    pub(super) by_leads: bool,
    /// Nothing depends on a state but what needs it.
    pub(super) strict: bool,
}

/// Unknown operations in one class; more of the same make another class.
const CLASS_MAX: usize = u16::MAX as usize;
/// States made times states needed, above which looking ahead is not worth its preparation.
const PAIRS_MAX: usize = 4_000_000;

impl<'a, M: Model> Layout<'a, M> {
    pub(super) fn new(model: &M, initial: &M::State, seen: &[Seen<'a, M::Input, M::Output>]) -> Layout<'a, M> {
        let mut layout = Layout {
            known: Vec::new(),
            by_call: Vec::new(),
            slots: 0,
            classes: Vec::new(),
            unknown: Vec::new(),
            needed: Numbered::new(),
            demands: Vec::new(),
            unknown_feeds: Vec::new(),
            from_initial: Rc::new([]),
            next_need: Vec::new(),
            by_leads: false,
            strict: true,
        };
        let effects = layout.sort_into_classes(model, seen);
        layout.assign_slots();
        layout.look_ahead(model, initial, effects);
        layout
    }

    /// Also says what each class does.
    fn sort_into_classes(&mut self, model: &M, seen: &[Seen<'a, M::Input, M::Output>]) -> Vec<Effect<M::State>> {
        let mut effects = Vec::new();
        let mut numbers = FastMap::default();
        for operation in seen {
            let (input, output) = (operation.input, operation.output());
            let next = self.classes.len() as u32;
            let number = numbers.entry((input, output)).or_insert(next);
            let full = self.classes.get(*number as usize).is_some_and(|class| class.calls.len() == CLASS_MAX);
            if *number == next || full {
                *number = next;
                let effect = model.effect(input, output);
                let reads = matches!(effect, Effect::Reads(_));
                let replaces = matches!(effect, Effect::Replaces(_));
                let makes = replaces || matches!(effect, Effect::Moves(..));
                let (feeds, calls) = (Rc::new([]), Vec::new());
                self.classes.push(Class { input, output, reads, replaces, makes, needs: None, feeds, calls });
                effects.push(effect);
                if output.is_none() && !reads {
                    self.unknown.push(next);
                }
            }
            let (class, called) = (*number, operation.called);
            match operation.answer {
                Some((_, returned)) => self.known.push(Known { class, called, returned, slot: 0, supply: 0 }),
                None => self.classes[class as usize].calls.push(called),
            }
        }
        self.known.sort_unstable_by_key(|known| known.returned);
        self.by_call = (0..self.known.len() as u32).collect();
        self.by_call.sort_unstable_by_key(|known| self.known[*known as usize].called);
        effects
    }

    fn assign_slots(&mut self) {
        let mut returned = 0;
        let mut free = Vec::new();
        for called in &self.by_call {
            while self.known[returned].returned < self.known[*called as usize].called {
                free.push(self.known[returned].slot);
                returned += 1;
            }
            self.known[*called as usize].slot = free.pop().unwrap_or_else(|| {
                self.slots += 1;
                self.slots as u32 - 1
            });
        }
    }

    /// Which operation needs which state, and which ones can help it to that.
    fn look_ahead(&mut self, model: &M, initial: &M::State, effects: Vec<Effect<M::State>>) {
        self.by_leads = effects.contains(&Effect::Other);
        // A read without an outcome is never placed.
        let vague =
            |(class, effect): (&Class<'_, M>, &Effect<_>)| class.output.is_some() && *effect == Effect::Reads(None);
        self.strict = !self.by_leads && !self.classes.iter().zip(&effects).any(vague);
        let mut made = Numbered::new();
        let from_initial = made.number(initial.clone());
        let mut makes = Vec::with_capacity(effects.len());
        for (class, effect) in self.classes.iter_mut().zip(effects) {
            let (needs, result) = match effect {
                Effect::Other => (None, None),
                Effect::Reads(state) => (state.filter(|_| class.output.is_some()), None),
                Effect::Replaces(state) => (None, Some(state)),
                Effect::Moves(from, to) => (Some(from), Some(to)),
            };
            class.needs = needs.map(|state| self.needed.number(state));
            makes.push(result.map(|state| made.number(state)));
        }
        if self.by_leads && self.needed.len() * made.len() > PAIRS_MAX {
            self.classes.iter_mut().for_each(|class| class.needs = None);
            self.needed = Numbered::new();
        }
        let feeds: Vec<Rc<[u32]>> = (0..made.len() as u32)
            .map(|made_number| {
                let state = made.get(made_number);
                if self.by_leads {
                    let needed = 0..self.needed.len() as u32;
                    needed.filter(|needed| model.leads(&state, &self.needed.get(*needed))).collect()
                } else {
                    self.needed.find(&state).into_iter().collect()
                }
            })
            .collect();
        self.from_initial = feeds[from_initial as usize].clone();
        for (class, made) in self.classes.iter_mut().zip(makes) {
            if let Some(made) = made {
                class.feeds = feeds[made as usize].clone();
            }
        }
        self.unknown_feeds = vec![Vec::new(); self.needed.len()];
        for (place, class) in self.unknown.iter().enumerate() {
            for state in self.classes[*class as usize].feeds.iter() {
                self.unknown_feeds[*state as usize].push(place as u32);
            }
        }
        self.count_demands();

        let mut next = self.known.len() as u32;
        self.next_need = vec![next; self.known.len() + 1];
        for (index, known) in self.known.iter().enumerate().rev() {
            if self.classes[known.class as usize].needs.is_some() {
                next = index as u32;
            }
            self.next_need[index] = next;
        }
    }

    fn count_demands(&mut self) {
        self.demands = vec![Demand::default(); self.needed.len()];
        let mut calls: Vec<(u32, u32)> = self.known.iter().map(|known| (known.called, known.class)).collect();
        for class in &self.unknown {
            calls.extend(self.classes[*class as usize].calls.iter().map(|call| (*call, *class)));
        }
        calls.sort_unstable();
        let mut returns = 0;
        for (called, class) in calls {
            while let Some(known) = self.known.get_mut(returns).filter(|known| known.returned < called) {
                let needs = self.classes[known.class as usize].needs;
                known.supply = needs.map_or(0, |state| self.demands[state as usize].fed);
                returns += 1;
            }
            let class = &self.classes[class as usize];
            for state in class.feeds.iter() {
                self.demands[*state as usize].fed += 1;
            }
            if let Some(state) = class.needs {
                let demand = &mut self.demands[state as usize];
                demand.all += 1;
                demand.known += u32::from(class.output.is_some());
            }
        }
        for known in &mut self.known[returns..] {
            let needs = self.classes[known.class as usize].needs;
            known.supply = needs.map_or(0, |state| self.demands[state as usize].fed);
        }
    }
}
