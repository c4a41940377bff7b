//! What a start makes of the log: every sector is judged, records are put together from them, and every slot
//! gets a verdict. The rules are those of the crate's documentation, by number.

use bytes::Bytes;
use vsr::protocol::Header;
use vsr::protocol::limits::LEAP_MAX;
use vsr::storage::StorageError;

use crate::io_error;
use crate::log::{Location, Place, STEP, read};
use crate::medium::{Medium, read_sectors};
use crate::ranges::Lost;
use crate::record::{GENERATION, RECORD, RecordHeader, front};
use crate::ring::Ring;
use crate::sector::{PAYLOAD, SECTOR, Sector, Stamp, judge};
use crate::slots::Slots;
use crate::state::{SKIPPED_MAX, StateRecord};

/// Rotten sectors at the end of the log that are left alone: they may go bad again. More than that is no bad spot of
/// a disk, but a file that was cut or overwritten, and is prepared anew.
const SKIP_MAX: usize = 128;

/// Sectors behind those that a state calls prepared, in which there may be records of its generation: before there are more a state says so.
pub(crate) const AHEAD: u64 = (64 << 20) / SECTOR as u64;

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) places: Slots,
    pub(crate) head_certain: bool,
    /// The newest generation that a sector names.
    pub(crate) newest: u64,
    /// The sector at which the next record begins.
    pub(crate) tail: u64,
    /// The last complete write.
    pub(crate) last: u64,
    /// Sectors that are prepared, as far as they can be used.
    pub(crate) prepared: u64,
    /// The headers of the last record, if that is one sector.
    pub(crate) copy: Vec<u8>,
    /// The last record, if nothing says that it was synced.
    pub(crate) unproved: Option<Candidate>,
    /// Rotten sectors at the end, from and to, behind which the next record begins.
    pub(crate) stepped: Option<(u64, u64)>,
    /// Ops of a lost record that is known by a copy in one that never completed: that is written over.
    pub(crate) orphans: Vec<u64>,
}

/// Sectors that say of themselves that they are a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) start: u64,
    pub(crate) count: u32,
    pub(crate) write: u64,
    /// All its sectors are there.
    is_whole: bool,
    /// A sector of it holds something older, intact.
    is_torn: bool,
}

impl Candidate {
    pub(crate) fn end(&self) -> u64 {
        self.start + u64::from(self.count)
    }

    fn payload(&self) -> u64 {
        u64::from(self.count) * PAYLOAD as u64
    }
}

struct Sectors {
    /// The first.
    from: u64,
    list: Vec<Sector>,
    /// Of the sectors that begin a record: where, the write before it, what was prepared.
    firsts: Vec<(u64, RecordHeader)>,
}

impl Sectors {
    fn push(&mut self, at: u64, judged: Sector, sector: &[u8]) {
        if matches!(judged, Sector::Valid(stamp) if stamp.write > 0 && stamp.index == 0)
            && let Some(record) = RecordHeader::decode(sector)
        {
            self.firsts.push((at, record));
        }
        self.list.push(judged);
    }

    fn get(&self, at: u64) -> Option<Sector> {
        self.list.get(usize::try_from(at.checked_sub(self.from)?).ok()?).copied()
    }

    fn end(&self) -> u64 {
        self.from + self.list.len() as u64
    }

    /// Those from one to another, as far as they are here.
    fn range_mut(&mut self, from: u64, to: u64) -> &mut [Sector] {
        let place = |at: u64| at.clamp(self.from, self.end()) - self.from;
        let (from, to) = (place(from) as usize, place(to.max(from)) as usize);
        &mut self.list[from..to]
    }

    fn first(&self, at: u64) -> Option<RecordHeader> {
        let found = self.firsts.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        self.firsts.get(found).map(|(_, record)| *record)
    }

    fn of_generation(&self, generation: u64) -> impl Iterator<Item = &RecordHeader> {
        let is_of = move |at: u64| match self.get(at) {
            Some(Sector::Valid(stamp)) => stamp.write >> GENERATION == generation,
            _ => false,
        };
        self.firsts.iter().filter(move |(at, _)| is_of(*at)).map(|(_, record)| record)
    }
}

/// Judges every sector from the first that is needed on, as far as there can be records.
fn judge_all<M: Medium>(medium: &Ring<M>, salt: u64, path: &str, state: &StateRecord) -> Result<Sectors, StorageError> {
    let len = medium.len().map_err(io_error(format!("reading {path}/log")))?;
    let (size, from) = (medium.size() / SECTOR as u64, state.start);
    // As long as the file was never full, nothing stands at its beginning that belongs behind its end. (A last piece of a sector is what a
    // crash left of a new extent.)
    let is_full = len >= medium.size() || state.prepared > size;
    let to = if is_full { (state.prepared + AHEAD).min(from + size) } else { len / SECTOR as u64 }.max(from);
    let mut sectors = Sectors { from, list: Vec::with_capacity((to - from) as usize), firsts: Vec::new() };
    let whole = to * SECTOR as u64;
    let mut offset = from * SECTOR as u64;
    let mut buffer = vec![0; (whole - offset).min(STEP as u64) as usize];
    let (mut unreadable, mut error, mut written) = (0, None, 0);
    while offset < whole {
        let take = (whole - offset).min(STEP as u64) as usize;
        let read = &mut buffer[..take];
        let missed = read_sectors(medium, read, offset);
        (unreadable, error) = (unreadable + missed.sectors, error.or(missed.error));
        for (at, sector) in (offset / SECTOR as u64..).zip(read.chunks_exact(SECTOR)) {
            let judged = judge(salt, at, sector);
            // It counts only where every sector is rotten.
            written += usize::from(judged == Sector::Rotten && sector.iter().any(|&byte| byte != 0));
            sectors.push(at, judged, sector);
        }
        offset += take as u64;
    }
    // Where everything was dropped, and nothing is prepared, there is nothing to be seen.
    if state.prepared <= from && from > 0 || sectors.list.iter().any(|sector| *sector != Sector::Rotten) {
        return Ok(sectors);
    }
    let what = match error {
        Some(error) if unreadable == sectors.list.len() as u64 => format!("none of it can be read ({error})"),
        // One that was cut in its first sector is no other's.
        _ if written <= 1 => {
            tracing::warn!(path, len, "the log is empty: all that was in it is lost");
            return Ok(sectors);
        }
        // To go on would destroy what is there.
        _ => "not one sector of it was written by this disk: it is the log of another one, or no log".to_owned(),
    };
    Err(StorageError::Damaged { path: format!("{path}/log"), what })
}

/// Judges the log as the state describes it. `given_up`: sectors, from and to, that are not believed.
pub(crate) fn scan<M: Medium>(
    medium: &Ring<M>,
    salt: u64,
    path: &str,
    state: &StateRecord,
    given_up: Option<(u64, u64)>,
) -> Result<Found, StorageError> {
    let mut sectors = judge_all(medium, salt, path, state)?;
    let newest = sectors.list.iter().filter_map(|sector| match sector {
        Sector::Valid(stamp) => Some(stamp.write >> GENERATION),
        Sector::Rotten => None,
    });
    let newest = newest.max().unwrap_or(0);
    for &(from, to) in state.skipped.iter().chain(&given_up) {
        // Unreadable once is lost for good.
        sectors.range_mut(from, to).fill(Sector::Rotten);
    }
    let mut lost = state.lost.runs(usize::MAX);
    lost.sort_unstable_by_key(|&(first, _, since)| std::cmp::Reverse((since, first)));
    let prepared = sectors.of_generation(state.generation).map(|record| record.prepared).max();
    let mut scan = Scanning {
        medium,
        salt,
        sectors: &sectors,
        state,
        prepared: prepared.unwrap_or(0).max(state.prepared),
        places: Slots::after(state.state.base().0),
        has_blanks: false,
        head_certain: true,
        is_reverted: false,
        last: state.before,
        taken: state.before,
        end: state.start,
        copy: None,
        unproved: None,
        lost,
        stepped: None,
        orphans: Vec::new(),
    };
    let since = scan.candidates(state.tail, u64::MAX, |write| write >> GENERATION == state.generation);
    scan.settled(since.first());
    scan.since(&since);
    let (tail, prepared) = (scan.end, scan.prepared.max(scan.end));
    // What is rotten of the unused rest is prepared again.
    let usable = (tail..prepared).find(|&at| scan.sector(at) == Sector::Rotten).unwrap_or(prepared);
    let Scanning { places, head_certain, taken, copy, unproved, stepped, orphans, .. } = scan;
    let copy = copy.map_or_else(Vec::new, |(record, headers)| front(&record, headers.iter()));
    Ok(Found { places, head_certain, newest, tail, last: taken, prepared: usable, copy, unproved, stepped, orphans })
}

struct Scanning<'a, M> {
    medium: &'a Ring<M>,
    salt: u64,
    sectors: &'a Sectors,
    state: &'a StateRecord,
    /// Sectors that are durably prepared: what is not there was there.
    prepared: u64,
    places: Slots,
    /// Whether a slot may be absent.
    has_blanks: bool,
    head_certain: bool,
    /// Whether the log is older than the state.
    is_reverted: bool,
    /// The last write that is accounted for, though it may be lost.
    last: u64,
    /// The last record that was found, and where it ends.
    taken: u64,
    end: u64,
    /// What that record and its entries are headed by, if it is one sector.
    copy: Option<(RecordHeader, Vec<Header>)>,
    unproved: Option<Candidate>,
    /// What earlier starts found lost and was not come to yet, the oldest last.
    lost: Vec<Lost>,
    stepped: Option<(u64, u64)>,
    orphans: Vec<u64>,
}

impl<M: Medium> Scanning<'_, M> {
    /// What lies before the state (rule 2). `next`: the first record after it.
    fn settled(&mut self, next: Option<&Candidate>) {
        let (tail, log_write) = (self.state.tail, self.state.log_write);
        let before = self.state.before;
        let mut found = self.candidates(self.state.start, tail, |write| write > before && write <= log_write);
        // Downwards: each record names the one before it. What is not named had never completed, or was lost
        // when the state was written.
        let mut named = log_write;
        found.reverse();
        found.retain(|of| {
            if of.write > named {
                return false;
            }
            let previous = self.first(of).or_else(|| self.record(of));
            named = previous.map_or(of.write - 1, |record| record.previous.min(of.write - 1));
            true
        });
        found.reverse();
        for of in &found {
            self.take(of, true);
        }
        if self.last < log_write {
            self.is_reverted = (self.end..tail).any(|at| self.sector(at) != Sector::Rotten);
            match next.and_then(|of| Some((of, self.record(of)?))) {
                Some((of, record)) if record.previous == log_write => self.bridge(of, &record),
                _ => self.hole(log_write >> GENERATION),
            }
        }
        self.places.truncate(self.state.head);
        // A state that names an absurd head is not the protocol's; its log is not believed any further.
        let head = self.state.head.min(self.most());
        self.head_certain &= head == self.state.head;
        self.extend(head, Place::LOST);
        self.lose(u64::MAX);
        (self.last, self.end) = (log_write, tail);
    }

    /// Comes to what was lost when this generation began, whatever older records show.
    fn lose(&mut self, generation: u64) {
        while let Some((first, last, _)) = self.lost.pop_if(|&mut (_, _, since)| since <= generation) {
            let last = last.min(self.most());
            // The log was as long as that.
            self.extend(last, Place::LOST);
            let first = first.max(self.places.base() + 1);
            let count = (last + 1).saturating_sub(first);
            self.places.from(first).take(count as usize).for_each(|place| *place = Place::LOST);
        }
    }

    /// What was written since the state, by one process (rules 1 to 3).
    fn since(&mut self, found: &[Candidate]) {
        let generation = self.state.generation;
        if found.is_empty() && self.is_reverted {
            // A log that has lost writes, or is an older copy, cannot claim that nothing came after.
            self.head_certain = false;
        }
        for (at, of) in found.iter().enumerate() {
            let is_last = at + 1 == found.len();
            if is_last && of.is_torn {
                return self.never_completed(of);
            }
            let is_known = self.take(of, of.is_whole || !is_last);
            if is_last {
                self.unproved = Some(*of);
                self.head_certain &= is_known;
            }
        }
        if self.end < self.prepared && self.sector(self.end) == Sector::Rotten {
            // There may have been a record here, and more behind it.
            self.hole(generation);
            self.head_certain = false;
            let rotten = |at: &u64| self.sector(*at) == Sector::Rotten;
            let run = (self.end..self.prepared).take(SKIP_MAX + 1).take_while(rotten).count();
            let to = self.end + run as u64;
            if run <= SKIP_MAX && to < self.prepared && self.state.skipped.len() < SKIPPED_MAX {
                self.stepped = Some((self.end, to));
                self.end = to;
            }
        }
    }

    /// The last record was cut short by a crash: its ops are absent, for certain. Still it proves what was before
    /// it.
    fn never_completed(&mut self, of: &Candidate) {
        let since = self.last >> GENERATION == of.write >> GENERATION;
        let expected = if since { self.last + 1 } else { (of.write >> GENERATION << GENERATION) + 1 };
        match self.record(of) {
            Some(record) if record.base <= self.most() => {
                self.bridge(of, &record);
                self.extend(record.base, Place::LOST);
            }
            _ if of.write != expected => {
                self.hole(of.write >> GENERATION);
                self.head_certain = false;
            }
            _ => {}
        }
        self.end = of.start;
    }

    fn sector(&self, at: u64) -> Sector {
        match self.sectors.get(at) {
            Some(sector) => sector,
            // It was prepared, and the file ends before it: it was cut (rule 4).
            None if at < self.prepared => Sector::Rotten,
            None => Sector::Valid(Stamp::BLANK),
        }
    }

    /// Where the record of the sector at `at` begins, if that is at `from` or later, and its stamp.
    fn owner(&self, at: u64, from: u64, to: u64, counts: &impl Fn(u64) -> bool) -> Option<(u64, Stamp)> {
        let Sector::Valid(stamp) = self.sector(at) else { return None };
        let start = at.checked_sub(stamp.index.into()).filter(|&start| start >= from)?;
        let is_within = start.checked_add(stamp.count.into()).is_some_and(|end| end <= to);
        (is_within && stamp.index < stamp.count && stamp.write > 0 && counts(stamp.write)).then_some((start, stamp))
    }

    /// The records between `from` and `to` whose numbers count, whatever is left of them.
    fn candidates(&self, from: u64, to: u64, counts: impl Fn(u64) -> bool) -> Vec<Candidate> {
        let (mut from, mut at, mut found) = (from, from, Vec::new());
        while at < to.min(self.sectors.end()) {
            let Some((start, stamp)) = self.owner(at, from, to, &counts) else {
                at += 1;
                continue;
            };
            let end = start + u64::from(stamp.count);
            // A newer one that begins inside it was written over what is left of it.
            let newer = (at + 1..end).find_map(|inside| {
                let (begins, newer) = self.owner(inside, start + 1, to, &counts)?;
                (newer.write > stamp.write).then_some((inside, begins))
            });
            if let Some((inside, begins)) = newer {
                (at, from) = (inside, begins);
                continue;
            }
            found.push(self.candidate(start, stamp));
            (at, from) = (end, end);
        }
        found
    }

    fn candidate(&self, start: u64, stamp: Stamp) -> Candidate {
        let (mut is_whole, mut is_torn) = (true, false);
        for index in 0..stamp.count {
            match self.sector(start + u64::from(index)) {
                Sector::Valid(found) if found == (Stamp { index, ..stamp }) => {}
                Sector::Valid(_) => (is_whole, is_torn) = (false, true),
                Sector::Rotten => is_whole = false,
            }
        }
        Candidate { start, count: stamp.count, write: stamp.write, is_whole, is_torn }
    }

    /// The record header in the first sector of a record, if that is there. It was read when the sector was judged.
    fn first(&self, of: &Candidate) -> Option<RecordHeader> {
        let stamp = Stamp { write: of.write, index: 0, count: of.count };
        (self.sector(of.start) == Sector::Valid(stamp)).then(|| self.sectors.first(of.start)).flatten()
    }

    /// No op above is believed of a record.
    fn most(&self) -> u64 {
        self.places.head() + LEAP_MAX
    }

    /// Takes in a record, as far as it can be read. `is_complete`: it is certain that it completed. Whether
    /// anything is known of it.
    fn take(&mut self, of: &Candidate, is_complete: bool) -> bool {
        let record = self.record(of).filter(|record| record.base.max(record.head) <= self.most());
        self.copy = None;
        if let Some(record) = &record {
            self.bridge(of, record);
            // The record that holds the copy stays.
            self.orphans.clear();
            self.lose(of.write >> GENERATION);
            let headers = self.headers(of, record);
            if of.write >> GENERATION == self.state.generation {
                // Where the log is used again is the newest state's to say: a start may have found less of it usable.
                self.prepared = self.prepared.max(record.prepared);
            }
            self.put(of.write, record, &headers, Some(of), is_complete);
            let headers = (of.count == 1).then(|| headers.into_iter().collect::<Option<Vec<_>>>()).flatten();
            self.copy = headers.map(|headers| (*record, headers));
        } else {
            self.hole(of.write >> GENERATION);
        }
        (self.last, self.taken, self.end) = (of.write, of.write, of.end());
        record.is_some()
    }

    /// Takes in what is known of the records that are missing before this one.
    fn bridge(&mut self, of: &Candidate, record: &RecordHeader) {
        if record.previous == self.last {
            return;
        }
        self.copy = None;
        let Some((lost, headers)) = self.copied(of, record) else {
            return self.hole(record.previous >> GENERATION);
        };
        if lost.previous != self.last {
            self.hole(lost.previous >> GENERATION);
        }
        self.lose(record.previous >> GENERATION);
        self.put(record.previous, &lost, &headers, None, true);
        self.orphans = headers.iter().flatten().map(|header| header.op.0).chain(lost.base + 1..=lost.head).collect();
        self.last = record.previous;
    }

    /// Puts a record's entries into their slots. `of`: where its bodies are, if they are anywhere.
    fn put(
        &mut self,
        write: u64,
        record: &RecordHeader,
        headers: &[Option<Header>],
        of: Option<&Candidate>,
        is_complete: bool,
    ) {
        let is_known = headers.iter().all(Option::is_some);
        if !is_known {
            self.hole(write >> GENERATION);
        }
        if is_complete {
            self.places.truncate(record.base);
        } else {
            // Whether it dropped them is not known: it may never have completed.
            self.places.from(record.base + 1).for_each(|place| *place = Place::LOST);
        }
        self.extend(record.base, Place::LOST);
        let mut offset = Some(record.own() as u64 + u64::from(record.copied));
        for header in headers {
            let Some(header) = *header else {
                // Where the bodies behind this one begin is not known either.
                offset = None;
                continue;
            };
            let body = of.zip(offset).map(|(of, offset)| Location {
                record: of.start,
                write: of.write,
                count: of.count,
                offset,
            });
            let body = body.filter(|body| self.is_readable(body, header.body_len));
            offset = offset.map(|offset| offset + u64::from(header.body_len));
            self.extend(header.op.0 - 1, if is_known { Place::ABSENT } else { Place::LOST });
            self.places.put(header.op.0, Place { header: Some(header), body, damaged: body.is_none() });
        }
        if !is_known {
            self.extend(record.head, Place::LOST);
        }
    }

    fn extend(&mut self, head: u64, with: Place) {
        self.has_blanks |= self.places.extend(head, with) && with == Place::ABSENT;
    }

    /// Records are missing after the last one, of generations up to `to`. Slots that they can have filled,
    /// dropped or replaced are lost; every other is what it was (rule 5). What the state calls committed is no
    /// exception: a stale slot below that number is replaced where it stands.
    fn hole(&mut self, to: u64) {
        let floor = self.state.lowest(self.last, to);
        self.places.from(floor).for_each(|place| *place = Place::LOST);
        if std::mem::take(&mut self.has_blanks) {
            let absent = self.places.from(0).filter(|place| **place == Place::ABSENT);
            absent.for_each(|place| *place = Place::LOST);
        }
    }

    /// A part of a record's payload.
    fn read(&self, of: &Candidate, offset: u64, len: usize) -> Option<Bytes> {
        let location = Location { record: of.start, write: of.write, count: of.count, offset };
        let len = u32::try_from(len).ok()?;
        if !self.is_readable(&location, len) {
            return None;
        }
        read(self.medium, self.salt, location, len).ok().flatten()
    }

    fn is_readable(&self, location: &Location, len: u32) -> bool {
        let Location { record, write, count, offset } = *location;
        let mut sectors = offset / PAYLOAD as u64..(offset + u64::from(len)).div_ceil(PAYLOAD as u64);
        sectors.all(|index| {
            let stamp = Stamp { write, index: index as u32, count };
            index < u64::from(count) && self.sector(record + index) == Sector::Valid(stamp)
        })
    }

    /// The record header, from whichever copy is intact.
    fn record(&self, of: &Candidate) -> Option<RecordHeader> {
        let copy = |offset: u64| self.read(of, offset, RECORD).and_then(|bytes| RecordHeader::decode(&bytes));
        let back = || (of.count > 1).then(|| copy(of.payload() - RECORD as u64)).flatten();
        let record = self.first(of).or_else(back)?;
        let copies = if of.count > 1 { 2 } else { 1 };
        let len = copies * record.own() as u64 + u64::from(record.copied);
        (len <= of.payload()).then_some(record)
    }

    /// The headers of a record's entries, each from whichever copy is intact.
    fn headers(&self, of: &Candidate, record: &RecordHeader) -> Vec<Option<Header>> {
        let len = record.count as usize * Header::LEN;
        let front = RECORD as u64;
        let back = of.payload() - record.own() as u64;
        let copy = |offset: u64, len: usize| {
            self.read(of, front + offset, len)
                .or_else(|| (of.count > 1).then(|| self.read(of, back + offset, len)).flatten())
        };
        match copy(0, len) {
            Some(bytes) => self.decode(&bytes),
            None => (0..u64::from(record.count))
                .map(|index| {
                    let bytes = copy(index * Header::LEN as u64, Header::LEN)?;
                    self.decode(&bytes).into_iter().next().flatten()
                })
                .collect(),
        }
    }

    /// The headers of the record before, of which this one holds a copy.
    fn copied(&self, of: &Candidate, record: &RecordHeader) -> Option<(RecordHeader, Vec<Option<Header>>)> {
        let bytes = self.read(of, record.own() as u64, record.copied as usize)?;
        let (first, rest) = bytes.split_at_checked(RECORD)?;
        let lost = RecordHeader::decode(first)?;
        let headers = self.decode(rest);
        let is_plausible = lost.base.max(lost.head) <= self.most() && headers.len() == lost.count as usize;
        is_plausible.then_some((lost, headers))
    }

    /// Headers, but those of ops that no replica can have put: a slot is kept for each op up to the head.
    fn decode(&self, bytes: &[u8]) -> Vec<Option<Header>> {
        let ops = 1..=self.most();
        let headers = bytes.as_chunks::<{ Header::LEN }>().0.iter().map(Header::decode);
        headers.map(|header| header.filter(|header| ops.contains(&header.op.0))).collect()
    }
}
