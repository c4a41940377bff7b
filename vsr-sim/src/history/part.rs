//! The independent parts of a history, and one verdict for all of them.

use std::collections::BTreeMap;

use super::layout::{Layout, Seen};
use super::search::{Conclusion, Search};
use super::{Completion, Effect, Linearizability, Model, Operation, SearchLimits};

/// Checks a history against a model. The operations may stand in any order.
#[must_use]
pub fn check<M: Model>(
    model: &M,
    history: &[Operation<M::Input, M::Output>],
    limits: &SearchLimits,
) -> Linearizability {
    let mut parts: BTreeMap<M::Key, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.iter().enumerate() {
        parts.entry(model.key(&operation.input)).or_default().push(index);
    }
    // The small ones first: what they leave of the budget goes to the large ones.
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by_key(|(_, part)| part.len());
    let (mut left, mut spent) = (limits.steps, None);
    for (index, (key, part)) in parts.iter().enumerate() {
        let share = left / (parts.len() - index) as u64;
        let mut part = Part { model, history, part, key, limits: SearchLimits { steps: share, ..*limits } };
        match part.verdict() {
            Linearizability::Linearizable => {}
            Linearizability::Unknown { why } => spent = Some(why),
            refuted => return refuted,
        }
        left -= share - part.limits.steps;
    }
    spent.map_or(Linearizability::Linearizable, |why| Linearizability::Unknown { why })
}

/// One part, and what is left of its budget.
struct Part<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Input, M::Output>],
    part: &'a [usize],
    key: &'a M::Key,
    limits: SearchLimits,
}

impl<M: Model> Part<'_, M> {
    fn verdict(&mut self) -> Linearizability {
        let returned = |index: &&usize| matches!(self.history[**index].outcome, Completion::Returned { .. });
        let total = self.part.iter().filter(returned).count();
        match self.search(total) {
            Conclusion::Linearizable => Linearizability::Linearizable,
            Conclusion::Spent { limit, placed } => Linearizability::Unknown {
                why: format!("reached the limit of {limit} with {placed} of {total} operations in order"),
            },
            Conclusion::Stuck { reached } => self.refuted(reached, total),
        }
    }

    /// Searches the history up to the moment at which so many operations have returned.
    fn search(&mut self, returns: usize) -> Conclusion {
        let seen = Seen::all(self.history, self.part, returns);
        let operations: Vec<_> = seen.iter().map(|seen| (seen.input, seen.output())).collect();
        let whole = |effects: &Vec<_>| effects.len() == operations.len() && !effects.contains(&Effect::Other);
        let (conclusion, steps) = match self.model.rephrase(&operations).filter(whole) {
            Some(effects) => {
                let translate = |(seen, input): (&Seen<'_, _, _>, _)| Seen {
                    input,
                    answer: seen.answer.map(|(_, returned)| (&(), returned)),
                    called: seen.called,
                };
                let seen: Vec<_> = seen.iter().zip(&effects).map(translate).collect();
                search(&Rephrased, 0, &seen, &self.limits)
            }
            None => search(self.model, self.model.initial(self.key), &seen, &self.limits),
        };
        self.limits.steps = self.limits.steps.saturating_sub(steps);
        conclusion
    }

    fn refuted(&mut self, guess: usize, total: usize) -> Linearizability {
        let (last, exact) = self.shortest(guess, total);
        let mut returns: Vec<_> = self
            .part
            .iter()
            .filter_map(|index| {
                let Operation { invoked, outcome: Completion::Returned { at, .. }, .. } = &self.history[*index] else {
                    return None;
                };
                Some((at.max(invoked), *index))
            })
            .collect();
        returns.sort_unstable();
        let operation = returns[last].1;
        let Operation { process, input, outcome, .. } = &self.history[operation];
        let output = match outcome {
            Completion::Returned { output, .. } => Some(output),
            Completion::Unknown => None,
        };
        let name = self.model.describe(input, output);
        let mut why = format!("process {process}: {name} fits nowhere");
        if exact {
            why += &format!("; up to it the history has an order, with {last} of {total} operations");
        }
        Linearizability::NotLinearizable { operation, why }
    }

    /// The operation with whose return a history that is not linearizable ceases to be, counted by returns.
    /// False if the budget does not suffice to be sure.
    fn shortest(&mut self, guess: usize, total: usize) -> (usize, bool) {
        // The first `good` returns can be explained, the first `bad` cannot.
        let (mut good, mut bad) = (0, total);
        let mut next = guess;
        while bad - good > 1 {
            let middle = next.clamp(good + 1, bad - 1);
            match self.search(middle) {
                Conclusion::Linearizable => good = middle,
                Conclusion::Stuck { .. } => bad = middle,
                Conclusion::Spent { .. } => return (guess, false),
            }
            // The guess is mostly right, which takes two searches.
            next = if middle == guess { guess + 1 } else { good.midpoint(bad) };
        }
        (good, true)
    }
}

fn search<M: Model>(
    model: &M,
    initial: M::State,
    seen: &[Seen<'_, M::Input, M::Output>],
    limits: &SearchLimits,
) -> (Conclusion, u64) {
    let layout = Layout::new(model, &initial, seen);
    Search::new(model, &layout, initial).run(limits)
}

/// The model of operations that [`Model::rephrase`] put in other words.
struct Rephrased;

impl Model for Rephrased {
    type Input = Effect<u32>;
    type Output = ();
    type State = u32;
    type Key = ();

    fn key(&self, _: &Effect<u32>) {}

    fn initial(&self, (): &()) -> u32 {
        0
    }

    fn step(&self, state: &u32, effect: &Effect<u32>, answer: Option<&()>) -> Option<u32> {
        match effect {
            Effect::Reads(None) => Some(*state),
            Effect::Reads(Some(needed)) => (answer.is_none() || needed == state).then_some(*state),
            Effect::Replaces(result) => Some(*result),
            Effect::Moves(from, to) if from == state => Some(*to),
            Effect::Moves(..) => answer.is_none().then_some(*state),
            Effect::Other => None,
        }
    }

    fn effect(&self, effect: &Effect<u32>, _: Option<&()>) -> Effect<u32> {
        *effect
    }
}
