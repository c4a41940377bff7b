//! The memory of what has been tried: flat, exact and of a known size.

/// What [`Memo::visit`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// Nothing like it was tried.
    New,
    /// It was tried with as much left, or more.
    Seen,
}

/// A set of situations. Each has a key of a fixed number of words, and says how many unknown operations
/// of each class it has used up. One that used no more of any class can do all that another one can, so
/// of each key only the frugal ones matter.
///
/// Keys are compared in full: a collision of hashes costs time and never a verdict.
#[derive(Debug)]
pub(super) struct Memo {
    words: usize,
    classes: usize,
    keys: Vec<u64>,
    /// Of each key, its latest entry in `used` and `older`; only kept when there are classes.
    latest: Vec<u32>,
    used: Vec<u16>,
    older: Vec<u32>,
    /// Open addressing by hash. The number of a key, plus 1; 0 is a free place.
    table: Vec<u32>,
    /// How many entries were compared.
    pub(super) compared: u64,
}

const NONE: u32 = u32::MAX;

impl Memo {
    pub(super) fn new(words: usize, classes: usize) -> Memo {
        let (keys, latest, used, older) = Default::default();
        Memo { words, classes, keys, latest, used, older, table: vec![0; 64], compared: 0 }
    }

    /// The bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        let numbers = self.latest.capacity() + self.older.capacity() + self.table.capacity();
        self.keys.capacity() * 8 + numbers * 4 + self.used.capacity() * 2
    }

    /// Adds a situation, unless it is no better than one that is there.
    pub(super) fn visit(&mut self, key: &[u64], used: &[u16]) -> Visit {
        let place = self.place(key);
        let number = match self.table[place] {
            0 => {
                let number = self.keys.len() / self.words;
                self.table[place] = number as u32 + 1;
                self.keys.extend_from_slice(key);
                if self.classes > 0 {
                    self.latest.push(NONE);
                }
                if (number + 1) * 2 > self.table.len() {
                    self.grow();
                }
                number
            }
            _ if self.classes == 0 => return Visit::Seen,
            number => number as usize - 1,
        };
        if self.classes > 0 { self.add(number, used) } else { Visit::New }
    }

    fn add(&mut self, number: usize, used: &[u16]) -> Visit {
        let mut entry = self.latest[number];
        while entry != NONE {
            self.compared += 1;
            let at = entry as usize * self.classes;
            let other = &mut self.used[at..at + self.classes];
            if other.iter().zip(used).all(|(other, used)| other <= used) {
                return Visit::Seen;
            }
            if other.iter().zip(used).all(|(other, used)| other >= used) {
                other.copy_from_slice(used);
                return Visit::New;
            }
            entry = self.older[entry as usize];
        }
        self.older.push(self.latest[number]);
        self.latest[number] = self.older.len() as u32 - 1;
        self.used.extend_from_slice(used);
        Visit::New
    }

    fn key(&self, number: u32) -> &[u64] {
        let at = number as usize * self.words;
        &self.keys[at..at + self.words]
    }

    /// Where the key is, or belongs.
    fn place(&self, key: &[u64]) -> usize {
        let mask = self.table.len() - 1;
        let mut place = hash(key) as usize & mask;
        while self.table[place] != 0 && self.key(self.table[place] - 1) != key {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        self.table = vec![0; self.table.len() * 2];
        for number in 0..(self.keys.len() / self.words) as u32 {
            let place = self.place(self.key(number));
            self.table[place] = number + 1;
        }
    }
}

fn hash(words: &[u64]) -> u64 {
    let mut hash = 0_u64;
    for word in words {
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}
