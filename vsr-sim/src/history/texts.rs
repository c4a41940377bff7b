//! Texts that can be read in one way only.
//!
//! Where every appended text is unique, a text tells which operations it comes from, and in which order. So
//! an append whose text was read can only have happened to one text, as a compare-and-set; one whose text was never
//! read left behind a text that was never read. A number for each text that was seen makes a register of it all.

use super::Effect;
use super::layout::FastMap;

/// What a client asks of a [`Text`](super::Text).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextInput {
    /// The text.
    Get,
    /// To hold this text.
    Put(String),
    /// To add this at the end.
    Append(String),
}

/// What a [`Text`](super::Text) answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextOutput {
    /// Of a get.
    Value(String),
    /// Of a put and an append.
    Done,
}

type Asked<'a> = (&'a TextInput, Option<&'a TextOutput>);

/// The text at first, and after a put of nothing.
const EMPTY: u32 = 0;
/// Any text that was never read.
const UNSEEN: u32 = 1;
/// What was read but cannot have been there.
const IMPOSSIBLE: u32 = 2;

/// The texts that operations put or append, and where they are in the texts that were read.
#[derive(Default)]
struct Pieces<'a> {
    /// By text, the operation that appends it; none if there are several.
    appended: FastMap<&'a str, Option<usize>>,
    /// By text, its number if it was seen.
    put: FastMap<&'a str, Option<u32>>,
    appended_lengths: Vec<usize>,
    put_lengths: Vec<usize>,
    /// Of each append that was seen, the numbers of the text before and after it.
    moves: FastMap<usize, (u32, u32)>,
    numbers: u32,
    /// The text that was read last, and what is known of each place in it.
    last: &'a str,
    places: Vec<Place>,
}

/// How the text before some place can have come about.
#[derive(Clone, Copy, Default)]
struct Place {
    /// In how many ways; 2 for more.
    ways: u8,
    /// The length of what was appended last; 0 if nothing was.
    appended: usize,
    /// The number of the text before it, once it has one.
    number: Option<u32>,
}

/// As [`super::Model::rephrase`]. None if a text can be read in several ways.
pub(super) fn rephrase(operations: &[Asked<'_>]) -> Option<Vec<Effect<u32>>> {
    let mut pieces = Pieces { numbers: IMPOSSIBLE + 1, ..Pieces::default() };
    for (index, (input, _)) in operations.iter().enumerate() {
        match input {
            TextInput::Get => {}
            TextInput::Append(text) if text.is_empty() => return None,
            TextInput::Append(text) => {
                pieces.appended_lengths.push(text.len());
                pieces.appended.entry(text).and_modify(|only| *only = None).or_insert(Some(index));
            }
            TextInput::Put(text) => {
                pieces.put_lengths.push(text.len());
                pieces.put.insert(text, None);
            }
        }
    }
    pieces.put.insert("", Some(EMPTY));
    pieces.put_lengths.push(0);
    for lengths in [&mut pieces.appended_lengths, &mut pieces.put_lengths] {
        lengths.sort_unstable();
        lengths.dedup();
    }
    let mut effects = vec![Effect::Reads(None); operations.len()];
    for (effect, (_, output)) in effects.iter_mut().zip(operations) {
        if let Some(TextOutput::Value(text)) = output {
            *effect = Effect::Reads(Some(pieces.read(text)?));
        }
    }
    for (index, (effect, (input, _))) in effects.iter_mut().zip(operations).enumerate() {
        match input {
            TextInput::Get => {}
            TextInput::Put(text) => {
                *effect = Effect::Replaces(pieces.put.get(text.as_str()).copied().flatten().unwrap_or(UNSEEN));
            }
            TextInput::Append(_) => {
                let seen = pieces.moves.get(&index);
                *effect = seen.map_or(Effect::Replaces(UNSEEN), |(from, to)| Effect::Moves(*from, *to));
            }
        }
    }
    Some(effects)
}

impl<'a> Pieces<'a> {
    /// The number of a text that was read. None if it can be read in several ways.
    fn read(&mut self, text: &'a str) -> Option<u32> {
        self.find_ways(text);
        match self.places[text.len()].ways {
            0 => return Some(IMPOSSIBLE),
            1 => {}
            _ => return None,
        }
        let mut place = text.len();
        let mut path = Vec::new();
        while self.places[place].number.is_none() && self.places[place].appended > 0 {
            path.push(place);
            place -= self.places[place].appended;
        }
        if self.places[place].number.is_none() {
            let put = self.put.get_mut(&text[..place])?;
            self.places[place].number = Some(*put.get_or_insert_with(|| next(&mut self.numbers)));
        }
        for after in path.into_iter().rev() {
            let number = self.places[place].number?;
            // Of several operations that append the same, one may be seen and the others not.
            let append = self.appended.get(&text[place..after]).copied().flatten()?;
            let (from, to) = *self.moves.entry(append).or_insert_with(|| (number, next(&mut self.numbers)));
            if from != number {
                // Another text was read to which the same operation happened.
                return Some(IMPOSSIBLE);
            }
            place = after;
            self.places[place].number = Some(to);
        }
        self.places[place].number
    }

    /// Most texts continue the one that was read before, of which everything is known.
    fn find_ways(&mut self, text: &'a str) {
        let same = self.last.bytes().zip(text.bytes()).take_while(|(last, this)| last == this).count();
        self.places.truncate(same + 1);
        for end in self.places.len()..=text.len() {
            let mut place = Place::default();
            let put = self.put_lengths.binary_search(&end).is_ok();
            if put && text.get(..end).is_some_and(|start| self.put.contains_key(start)) {
                place.ways = 1;
            }
            for length in self.appended_lengths.iter().take_while(|length| **length <= end) {
                let ways = self.places[end - length].ways;
                if ways > 0 && text.get(end - length..end).is_some_and(|piece| self.appended.contains_key(piece)) {
                    place.ways = (place.ways + ways).min(2);
                    place.appended = *length;
                }
            }
            self.places.push(place);
        }
        self.last = text;
    }
}

fn next(numbers: &mut u32) -> u32 {
    *numbers += 1;
    *numbers - 1
}
