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
    /// The sum of each entry.
    sums: Vec<u32>,
    older: Vec<u32>,
    /// Open addressing by hash. The number of a key, plus 1; 0 is a free place.
    table: Vec<u32>,
    /// What entries cost, in steps.
    pub(super) cost: u64,
}

const NONE: u32 = u32::MAX;
/// Classes whose numbers take as long to handle as one step.
const CLASSES_A_STEP: u64 = 32;

impl Memo {
    pub(super) fn new(words: usize, classes: usize) -> Memo {
        let (keys, latest, used, sums, older) = Default::default();
        Memo { words, classes, keys, latest, used, sums, older, table: vec![0; 64], cost: 0 }
    }

    /// The bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        let numbers = self.latest.capacity() + self.sums.capacity() + self.older.capacity() + self.table.capacity();
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
        let sum = used.iter().map(|used| u32::from(*used)).sum();
        let cost = 1 + self.classes as u64 / CLASSES_A_STEP;
        self.cost += cost;
        let mut entry = self.latest[number];
        while entry != NONE {
            let at = entry as usize * self.classes;
            let (other, other_sum) = (&mut self.used[at..at + self.classes], &mut self.sums[entry as usize]);
            // What was used lately differs most.
            let mut pairs = other.iter().zip(used).rev();
            self.cost += cost;
            if *other_sum <= sum && pairs.clone().all(|(other, used)| other <= used) {
                return Visit::Seen;
            }
            if *other_sum >= sum && pairs.all(|(other, used)| other >= used) {
                other.copy_from_slice(used);
                *other_sum = sum;
                return Visit::New;
            }
            entry = self.older[entry as usize];
        }
        self.older.push(self.latest[number]);
        self.latest[number] = self.older.len() as u32 - 1;
        self.used.extend_from_slice(used);
        self.sums.push(sum);
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
