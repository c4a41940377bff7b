//! The search of Wing and Gong, as Lowe made it fast.
//!
//! A situation is: which known operations are placed, the state that they leave behind, and how many
//! unknown operations of each class were used for that. Whatever the search leaves out is left out because
//! another order, no longer than that, does without it:
//!
//! - An operation that only reads and fits now can be placed now.
//! - Of equal operations in flight, the one that returns first can go first. Equal unknown ones are
//!   used in the order of their invocations.
//! - An unknown operation that changes nothing, or whose effect the next operation undoes, need not
//!   have happened. Neither need those that a situation used beyond what another one, else equal, used.
//! - An operation that replaces a state, and whose result is not needed any more, goes directly before
//!   the next one that replaces a state, or waits until it has to return.
//!
//! So a shortest order that explains the history survives all of this, step by step.
//!
//! A situation is given up early if an operation needs a state that neither is nor can come again.

use std::rc::Rc;

use super::layout::{Demand, Layout, Numbered};
use super::memo::{Memo, Visit};
use super::{Model, SearchLimits};

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// With all known operations placed.
    Linearizable,
    /// With nothing left to try.
    Stuck {
        /// How many known operations, in the order of their returns, are before the last one that the
        /// search had to give up.
        reached: usize,
    },
    /// At a limit.
    Spent {
        /// Which one.
        limit: &'static str,
        /// The most known operations that one order placed.
        placed: usize,
    },
}

/// One operation to place. In the order in which they are tried: what returns first comes first, and the
/// unknown ones, which nothing calls for, come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Choice {
    /// By its number in the layout.
    Known(u32),
    /// By its place among the classes of unknown operations.
    Unknown(u32),
}

/// What it takes to undo a choice.
#[derive(Debug)]
struct Frame {
    choice: Choice,
    state: u32,
    first: u32,
    maker: Option<u32>,
    /// There was nothing else worth trying.
    forced: bool,
}

pub(super) struct Search<'a, M: Model> {
    model: &'a M,
    layout: &'a Layout<'a, M>,
    states: Numbered<M::State>,
    state_bytes: usize,
    memo: Memo,
    /// Circular lists of the known operations that are not placed, by invocation. The last element
    /// is the head.
    next: Vec<u32>,
    previous: Vec<u32>,
    placed: Vec<bool>,
    /// What identifies a situation, but for the unknown operations: a word for `first` and the state, and a bit
    /// for the slot of each operation that is placed and returns after `first`.
    key: Vec<u64>,
    /// Of each class of unknown operations, how many are placed.
    used: Vec<u16>,
    /// What is not placed, of each needed state.
    demands: Vec<Demand>,
    /// The first known operation, by return, that is not placed.
    first: u32,
    state: u32,
    /// The class that made the state, or another state from which it follows.
    maker: Option<u32>,
    stack: Vec<Frame>,
    known_placed: usize,
    steps: u64,
    candidates: Vec<u32>,
    unknown_candidates: Vec<u32>,
    /// Of each class and of each needed state, in which round of candidates it was last met.
    met: Vec<u64>,
    met_state: Vec<u64>,
    round: u64,
    most: usize,
    reached: u32,
}

/// How many operations that need a state are looked at ahead.
const LOOK_AHEAD: usize = 4;
/// Bytes of a state that take as long to handle as one step.
const BYTES_A_STEP: usize = 256;
/// Bytes that a numbered state takes beyond its own.
const STATE_OVERHEAD: usize = 48;

impl<'a, M: Model> Search<'a, M> {
    pub(super) fn new(model: &'a M, layout: &'a Layout<'a, M>, initial: M::State) -> Search<'a, M> {
        let count = layout.known.len();
        let (mut next, mut previous) = (vec![0; count + 1], vec![0; count + 1]);
        let mut last = count as u32;
        for known in layout.by_call.iter().copied().chain([count as u32]) {
            next[last as usize] = known;
            previous[known as usize] = last;
            last = known;
        }
        let words = 1 + layout.slots.div_ceil(64);
        let mut states = Numbered::new();
        let state = states.number(initial);
        Search {
            model,
            layout,
            states,
            state_bytes: 0,
            memo: Memo::new(words, layout.unknown.len()),
            next,
            previous,
            placed: vec![false; count],
            key: vec![0; words],
            used: vec![0; layout.unknown.len()],
            demands: layout.demands.clone(),
            first: 0,
            state,
            maker: None,
            stack: Vec::new(),
            known_placed: 0,
            steps: 0,
            candidates: Vec::new(),
            unknown_candidates: Vec::new(),
            met: vec![0; layout.classes.len()],
            met_state: vec![0; layout.needed.len()],
            round: 0,
            most: 0,
            reached: 0,
        }
    }

    /// Searches within the limits; also says how many steps it took.
    pub(super) fn run(mut self, limits: &SearchLimits) -> (Conclusion, u64) {
        let conclusion = self.search(limits);
        (conclusion, self.steps + self.memo.cost)
    }

    fn search(&mut self, limits: &SearchLimits) -> Conclusion {
        // Where to go on among the choices; none in a situation that was just reached.
        let mut after = None;
        while (self.first as usize) < self.layout.known.len() {
            if self.steps + self.memo.cost > limits.steps {
                return Conclusion::Spent { limit: "steps", placed: self.most };
            }
            if self.memo.bytes() + self.state_bytes > limits.bytes {
                return Conclusion::Spent { limit: "memory", placed: self.most };
            }
            if after.is_none() {
                self.most = self.most.max(self.known_placed);
                self.reached = self.reached.max(self.first);
                if let Some(read) = self.fitting_read() {
                    self.push(Choice::Known(read), true);
                    continue;
                }
            }
            if (after.is_some() || self.remember() == Visit::New) && self.advance(after) {
                after = None;
                continue;
            }
            after = self.back();
            if after.is_none() {
                return Conclusion::Stuck { reached: self.reached as usize };
            }
        }
        Conclusion::Linearizable
    }

    fn remember(&mut self) -> Visit {
        self.steps += 1;
        self.key[0] = u64::from(self.first) << 32 | u64::from(self.state);
        self.memo.visit(&self.key, &self.used)
    }

    /// The known operations that are not placed and were invoked before this moment, by invocation.
    fn invoked_before(&self, moment: u32) -> impl Iterator<Item = u32> {
        let mut known = self.next[self.layout.known.len()];
        std::iter::from_fn(move || {
            let this = known;
            let called = self.layout.known.get(this as usize)?.called;
            known = self.next[this as usize];
            (called < moment).then_some(this)
        })
    }

    /// When the next operation has to be placed. What is invoked before may be placed now.
    fn deadline(&self) -> u32 {
        self.layout.known[self.first as usize].returned
    }

    fn class(&self, choice: Choice) -> u32 {
        match choice {
            Choice::Known(known) => self.layout.known[known as usize].class,
            Choice::Unknown(unknown) => self.layout.unknown[unknown as usize],
        }
    }

    fn step(&mut self, state: &M::State, class: u32) -> Option<M::State> {
        let class = &self.layout.classes[class as usize];
        self.steps += 1 + (self.model.heap_bytes(state) / BYTES_A_STEP) as u64;
        self.model.step(state, class.input, class.output)
    }

    fn fitting_read(&mut self) -> Option<u32> {
        let state = self.states.get(self.state);
        let mut steps = 0;
        let read = self.invoked_before(self.deadline()).find(|known| {
            let class = &self.layout.classes[self.layout.known[*known as usize].class as usize];
            steps += 1;
            class.reads && self.model.step(&state, class.input, class.output).is_some()
        });
        self.steps += steps;
        read
    }

    /// True if the operation could be left out, but for its return.
    fn idle(&self, class: u32) -> bool {
        let class = &self.layout.classes[class as usize];
        self.layout.strict && class.replaces && class.feeds.iter().all(|state| self.demands[*state as usize].all == 0)
    }

    /// Makes the next choice that is worth trying. False if there is none.
    fn advance(&mut self, after: Option<Choice>) -> bool {
        let deadline = self.deadline();
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        candidates.extend(self.invoked_before(deadline));
        candidates.sort_unstable();
        let state = self.states.get(self.state);
        // If the last choice was an unknown operation: what was before it.
        let before = match self.stack.last() {
            Some(Frame { choice: Choice::Unknown(_), state, .. }) => Some(self.states.get(*state)),
            _ => None,
        };
        self.round += 1;
        let known = candidates.iter().find(|known| {
            let choice = Choice::Known(**known);
            let class = self.class(choice);
            let twin = std::mem::replace(&mut self.met[class as usize], self.round) == self.round;
            let worth = !twin && !self.layout.classes[class as usize].reads && Some(choice) > after;
            worth && (**known == self.first || !self.idle(class)) && self.attempt(choice, &state, before.as_ref())
        });
        let advanced = known.is_some() || {
            let mut unknown = std::mem::take(&mut self.unknown_candidates);
            self.find_unknown(&mut unknown, &candidates, deadline);
            let advanced = unknown.iter().map(|unknown| Choice::Unknown(*unknown)).any(|choice| {
                let worth = Some(choice) > after && !self.idle(self.class(choice));
                worth && self.attempt(choice, &state, before.as_ref())
            });
            self.unknown_candidates = unknown;
            advanced
        };
        self.candidates = candidates;
        advanced
    }

    /// The unknown operations that something in flight may be waiting for.
    fn find_unknown(&mut self, found: &mut Vec<u32>, in_flight: &[u32], deadline: u32) {
        let layout = self.layout;
        found.clear();
        let invoked = |unknown: &u32| {
            let call = layout.classes[layout.unknown[*unknown as usize] as usize]
                .calls
                .get(usize::from(self.used[*unknown as usize]));
            call.is_some_and(|call| *call < deadline)
        };
        let classes = || in_flight.iter().map(|known| &layout.classes[layout.known[*known as usize].class as usize]);
        if layout.by_leads || classes().any(|class| class.reads && class.needs.is_none()) {
            found.extend((0..layout.unknown.len() as u32).filter(invoked));
            return;
        }
        let mut states: Vec<u32> = classes().filter_map(|class| class.needs).collect();
        while let Some(state) = states.pop() {
            if std::mem::replace(&mut self.met_state[state as usize], self.round) < self.round {
                for unknown in layout.unknown_feeds[state as usize].iter().filter(|unknown| invoked(unknown)) {
                    found.push(*unknown);
                    states.extend(layout.classes[layout.unknown[*unknown as usize] as usize].needs);
                }
            }
        }
        found.sort_unstable();
    }

    fn attempt(&mut self, choice: Choice, state: &M::State, before: Option<&Rc<M::State>>) -> bool {
        let class = self.class(choice);
        let Some(result) = self.step(state, class) else { return false };
        if matches!(choice, Choice::Unknown(_)) && result == *state && !self.takes_idle(class) {
            return false;
        }
        if before.is_some_and(|before| self.step(before, class).as_ref() == Some(&result)) {
            return false;
        }
        let deadline = self.deadline();
        self.push(choice, false);
        if self.hopeless(&result) {
            self.back();
            return false;
        }
        let (count, bytes) = (self.states.len(), self.model.heap_bytes(&result));
        self.state = self.states.number(result);
        if self.states.len() > count {
            self.state_bytes += size_of::<M::State>() + STATE_OVERHEAD + bytes;
        }
        if self.layout.classes[class as usize].replaces {
            self.place_idle(deadline);
        }
        true
    }

    /// The operations in flight that can be placed directly before what replaces their results.
    fn idle_before(&self, deadline: u32) -> impl Iterator<Item = u32> {
        self.invoked_before(deadline).filter(|known| self.idle(self.layout.known[*known as usize].class))
    }

    fn takes_idle(&self, class: u32) -> bool {
        self.layout.classes[class as usize].replaces && self.idle_before(self.deadline()).next().is_some()
    }

    /// Places what is idle directly before the last choice.
    fn place_idle(&mut self, deadline: u32) {
        let maker = self.maker;
        for known in self.idle_before(deadline).collect::<Vec<_>>() {
            self.push(Choice::Known(known), true);
            self.maker = maker;
        }
    }

    /// True if an operation that needs a state can no longer have it, after the last choice led to this one.
    fn hopeless(&mut self, state: &M::State) -> bool {
        let layout = self.layout;
        let follows = |needed: u32| {
            let needed = layout.needed.get(needed);
            if layout.by_leads { self.model.leads(state, &needed) } else { *state == *needed }
        };
        // What could follow from the state before, and from nothing that is left.
        if let Some(Frame { choice, maker, .. }) = self.stack.last()
            && layout.classes[self.class(*choice) as usize].makes
        {
            let left_behind = maker.map_or(&layout.from_initial, |maker| &layout.classes[maker as usize].feeds);
            let lost = |needed: &&u32| {
                let demand = self.demands[**needed as usize];
                demand.known > 0 && demand.fed == 0 && !follows(**needed)
            };
            if left_behind.iter().any(|needed| lost(&needed)) {
                return true;
            }
        }
        // What is needed next, and from nothing that is invoked in time.
        let mut known = layout.next_need[self.first as usize] as usize;
        let mut looked_at = 0;
        while known < layout.known.len() && looked_at < LOOK_AHEAD {
            if let (false, Some(needs)) = (self.placed[known], layout.classes[layout.known[known].class as usize].needs)
            {
                looked_at += 1;
                let fed = layout.demands[needs as usize].fed - self.demands[needs as usize].fed;
                if layout.known[known].supply <= fed && !follows(needs) {
                    self.reached = self.reached.max(known as u32);
                    return true;
                }
            }
            known = layout.next_need[known + 1] as usize;
        }
        false
    }

    /// Places an operation. The state stays as it was.
    fn push(&mut self, choice: Choice, forced: bool) {
        let (state, first, maker) = (self.state, self.first, self.maker);
        self.stack.push(Frame { choice, state, first, maker, forced });
        let class = self.class(choice);
        self.count(class, u32::wrapping_sub);
        if self.layout.classes[class as usize].makes {
            self.maker = Some(class);
        }
        match choice {
            Choice::Unknown(unknown) => self.used[unknown as usize] += 1,
            Choice::Known(known) => {
                let (next, previous) = (self.next[known as usize], self.previous[known as usize]);
                self.next[previous as usize] = next;
                self.previous[next as usize] = previous;
                self.placed[known as usize] = true;
                self.known_placed += 1;
                self.flip(known);
                while self.placed.get(self.first as usize) == Some(&true) {
                    self.flip(self.first);
                    self.first += 1;
                }
            }
        }
    }

    /// Undoes choices up to the last one that had alternatives, and says which one that was.
    fn back(&mut self) -> Option<Choice> {
        while let Some(Frame { choice, state, first, maker, forced }) = self.stack.pop() {
            (self.state, self.maker) = (state, maker);
            self.count(self.class(choice), u32::wrapping_add);
            match choice {
                Choice::Unknown(unknown) => self.used[unknown as usize] -= 1,
                Choice::Known(known) => {
                    while self.first > first {
                        self.first -= 1;
                        self.flip(self.first);
                    }
                    self.flip(known);
                    self.known_placed -= 1;
                    self.placed[known as usize] = false;
                    let (next, previous) = (self.next[known as usize], self.previous[known as usize]);
                    self.next[previous as usize] = known;
                    self.previous[next as usize] = known;
                }
            }
            if !forced {
                return Some(choice);
            }
        }
        None
    }

    /// Takes one operation of a class out of the demands, or puts it back.
    fn count(&mut self, class: u32, change: impl Fn(u32, u32) -> u32) {
        let class = &self.layout.classes[class as usize];
        for state in class.feeds.iter() {
            let fed = &mut self.demands[*state as usize].fed;
            *fed = change(*fed, 1);
        }
        if let Some(state) = class.needs {
            let demand = &mut self.demands[state as usize];
            demand.all = change(demand.all, 1);
            demand.known = change(demand.known, u32::from(class.output.is_some()));
        }
    }

    fn flip(&mut self, known: u32) {
        let slot = self.layout.known[known as usize].slot;
        self.key[1 + slot as usize / 64] ^= 1 << (slot % 64);
    }
}
