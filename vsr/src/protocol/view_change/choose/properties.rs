//! What holds for the choice whatever has happened before. A model of replicas that prepare, acknowledge, crash, lose
//! and repair goes through some views; at each change of view the log is chosen from every set of the `DoViewChange`s.
//!
//! - What a replication quorum has acknowledged is in every choice of every view-change quorum. So one more
//!   `DoViewChange` never makes the choice lose it.
//! - The order of the members does not change the choice.
//! - Newest logs never contradict each other.
//! - Without damage, a log is chosen as soon as all members have answered.

use bytes::Bytes;

use super::tests::{ROOT, after, view};
use super::*;
use crate::protocol::log::log::{Body, LogSlot};
use crate::protocol::types::life::Life;
use crate::protocol::types::random::Random;

const SEEDS: u64 = 3000;

/// Where the body of an op is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Nowhere,
    Memory,
    Disk,
}

#[derive(Clone, Copy)]
struct Slot {
    header: Option<Header>,
    held: Held,
    corrupt: bool,
}

impl Slot {
    fn with(header: Option<Header>, held: Held) -> Slot {
        Slot { header, held, corrupt: false }
    }
}

/// A replica: its log, and what is fixed on its disk for the view.
struct Member {
    view: u64,
    log_view: u64,
    slots: Vec<Slot>,
    commit: u64,
    head_certain: bool,
    /// The headers that were installed with log_view.
    installed: BTreeMap<u64, Header>,
    /// Head and headers of the `DoViewChange`s since, while log_view < view.
    promised: Option<(u64, BTreeMap<u64, Header>)>,
}

impl Member {
    fn new() -> Member {
        Member {
            view: 0,
            log_view: 0,
            slots: Vec::new(),
            commit: 0,
            head_certain: true,
            installed: BTreeMap::new(),
            promised: None,
        }
    }

    fn head(&self) -> u64 {
        self.slots.len() as u64
    }

    fn slot(&self, op: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(op.checked_sub(1)?).ok()?)
    }

    fn slot_mut(&mut self, op: u64) -> &mut Slot {
        &mut self.slots[(op - 1) as usize]
    }

    fn header(&self, op: u64) -> Option<Header> {
        self.slot(op)?.header
    }

    fn checksum(&self, op: u64) -> Option<Checksum> {
        if op == 0 { Some(ROOT) } else { self.header(op).map(|header| header.checksum()) }
    }

    /// Whether the body of this very op is here, in memory or on the disk.
    fn holds(&self, op: u64, checksum: Checksum) -> bool {
        self.checksum(op) == Some(checksum) && self.slot(op).is_some_and(|slot| slot.held != Held::Nowhere)
    }

    /// Whether the chain of headers is unbroken from the head down to `op`.
    fn is_proven(&self, op: u64) -> bool {
        let linked = |at: u64| match (self.header(at), self.header(at - 1)) {
            (Some(above), Some(below)) => above.parent == below.checksum(),
            _ => false,
        };
        self.header(self.head()).is_some() && (op + 1..=self.head()).all(linked)
    }

    /// Head and headers for a `DoViewChange` or a `StartView`.
    fn suffix(&self) -> (u64, BTreeMap<u64, Header>) {
        let head = self.head();
        let last = self.commit.min(head);
        let is_known = |header: Header| {
            let installed = self.installed.get(&last).is_some_and(|own| own.checksum() == header.checksum());
            header.view.number == self.log_view || installed || self.is_proven(last)
        };
        let from = if self.header(last).is_some_and(is_known) { last } else { last + 1 };
        (head, (from..=head).filter_map(|op| Some((op, self.header(op)?))).collect())
    }

    fn promise(&mut self, number: u64) {
        if self.log_view == self.view {
            self.promised = Some(self.suffix());
        }
        self.view = number;
    }

    fn do_view_change(&self) -> DoViewChange {
        let (head, headers) = self.promised.clone().unwrap_or_default();
        let evidence = |op: u64| {
            let Some(slot) = self.slot(op) else { return SlotEvidence { present: false, nack: true } };
            let same = match (headers.get(&op), slot.header) {
                (Some(named), Some(own)) => named.checksum() == own.checksum(),
                _ => false,
            };
            SlotEvidence {
                present: same && slot.held != Held::Nowhere,
                nack: !(slot.corrupt || (same && slot.held == Held::Disk)),
            }
        };
        DoViewChange {
            view: view(self.view),
            log_view: view(self.log_view),
            commit: CommitNumber(self.commit),
            head: OpNumber(head),
            head_certain: self.head_certain,
            evidence: (self.commit + 1..=head).map(evidence).collect(),
            headers: headers.into_values().collect(),
            past: crate::protocol::types::checkpoint::Past::default(),
            life: Life::default(),
            known: Vec::new(),
        }
    }

    /// The op up to which the log is durable here, or known to be committed.
    fn durable(&self) -> u64 {
        let mut op = self.commit.min(self.head());
        while self.slot(op + 1).is_some_and(|slot| slot.held == Held::Disk || op < self.commit) {
            op += 1;
        }
        op
    }

    /// Takes over the log of a view, with its promise.
    fn install(&mut self, number: u64, head: u64, headers: &[Header], commit: u64) {
        let old_head = self.head();
        let differs =
            |header: &&Header| self.header(header.op.0).is_some_and(|own| own.checksum() != header.checksum());
        let first = headers.iter().filter(|header| header.op.0 > self.commit).find(differs);
        let keep = first.map_or(head, |header| header.op.0 - 1).min(head);
        assert!(keep >= self.commit, "what is committed is dropped");
        self.slots.truncate(keep as usize);
        for header in headers {
            let op = header.op.0;
            if op > self.head() {
                self.slots.resize(op as usize - 1, Slot::with(None, Held::Nowhere));
                self.slots.push(Slot::with(Some(*header), Held::Nowhere));
            } else if self.checksum(op) != Some(header.checksum()) {
                let slot = self.slot_mut(op);
                *slot = Slot { header: Some(*header), held: Held::Nowhere, corrupt: slot.corrupt };
            }
        }
        if !self.head_certain {
            let from = (keep.min(old_head) as usize).min(self.slots.len());
            for slot in &mut self.slots[from..] {
                slot.corrupt |= slot.held == Held::Nowhere;
            }
        }
        self.commit = self.commit.max(commit);
        (self.view, self.log_view) = (number, number);
        self.head_certain = true;
        (_, self.installed) = self.suffix();
        self.promised = None;
    }

    /// The head and the headers that the vsr state names: a start reads them again.
    fn fixed(&self) -> (u64, BTreeMap<u64, Header>) {
        let installed = || (self.installed.keys().next_back().copied().unwrap_or(0), self.installed.clone());
        self.promised.clone().unwrap_or_else(installed)
    }

    /// A crash and a start: what was in memory only is gone. With `lost_above`, the end of the log is lost as well.
    fn restart(&mut self, lost_above: Option<u64>) {
        let (top, named) = self.fixed();
        let commit = self.commit;
        let mut last = 0;
        for (op, slot) in (1..).zip(&mut self.slots) {
            if lost_above.is_some_and(|above| op > above) {
                *slot = Slot { header: named.get(&op).copied(), held: Held::Nowhere, corrupt: true };
                continue;
            }
            if slot.held == Held::Memory {
                slot.held = Held::Nowhere;
            }
            if slot.held == Held::Disk || slot.corrupt {
                last = op;
            } else if op > commit {
                slot.header = named.get(&op).copied();
            }
        }
        self.slots.truncate(last.max(top) as usize);
        while self.head() < top {
            let header = named.get(&(self.head() + 1)).copied();
            self.slots.push(Slot { header, held: Held::Nowhere, corrupt: lost_above.is_some() });
        }
        self.head_certain &= lost_above.is_none();
    }

    fn log(&self) -> Log {
        let mut log = Log::new(ROOT, None);
        for slot in &self.slots {
            let body = if slot.held == Held::Nowhere { Body::Missing } else { Body::Memory(Bytes::new()) };
            log.push_recovered(LogSlot { header: slot.header, body, staged: None, corrupt: slot.corrupt });
        }
        log
    }
}

/// How often each outcome came about.
#[derive(Debug, Default)]
struct Seen {
    logs: u64,
    truncated: u64,
    undecided: u64,
    ends_uncertain: u64,
    committed: u64,
}

struct Cluster {
    random: Random,
    members: Vec<Member>,
    quorums: Quorums,
    /// Whether disks lose what was durable.
    damages: bool,
    damaged: bool,
    view: u64,
    /// The primary of the view has begun, and has not crashed.
    leads: bool,
    /// The members that messages reach.
    up: Vec<bool>,
    /// What a replication quorum has acknowledged.
    committed: BTreeMap<u64, Header>,
    /// Every header that was ever made.
    made: BTreeMap<(OpNumber, Checksum), Header>,
    seen: Seen,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let mut random = Random::new(seed);
        let n = if random.chance(1, 4) { 1 + random.below(5) } else { 3 + 2 * random.below(2) };
        let mut quorums = Quorums::of(n as usize);
        if n >= 3 && random.chance(1, 4) {
            let replication = 1 + random.below(n);
            let nack = n - replication + 1;
            let view_change = nack.max(n / 2 + 1);
            quorums = Quorums { replication: replication as u8, view_change: view_change as u8, nack: nack as u8 };
        }
        Cluster {
            random,
            members: (0..n).map(|_| Member::new()).collect(),
            quorums,
            damages: seed % 2 == 1,
            damaged: false,
            view: 0,
            leads: true,
            up: vec![true; n as usize],
            committed: BTreeMap::new(),
            made: BTreeMap::new(),
            seen: Seen::default(),
        }
    }

    fn primary(&self) -> usize {
        (self.view % self.members.len() as u64) as usize
    }

    fn any_member(&mut self) -> usize {
        self.random.below(self.members.len() as u64) as usize
    }

    fn is_normal(&self, at: usize) -> bool {
        self.members[at].view == self.view && self.members[at].log_view == self.view
    }

    fn prepare(&mut self) {
        let (at, content) = (self.primary(), self.made.len() as u64);
        if !self.leads || !self.members[at].head_certain {
            return;
        }
        let below = self.members[at].header(self.members[at].head());
        if below.is_some() || self.members[at].head() == 0 {
            let header = after(below.as_ref(), self.view, content);
            self.made.insert((header.op, header.checksum()), header);
            self.members[at].slots.push(Slot::with(Some(header), Held::Memory));
        }
    }

    /// The `StartView` of the view, asked for.
    fn start_view(&mut self, at: usize) {
        let primary = self.primary();
        let is_due = self.members[at].view <= self.view && !(self.is_normal(at) && self.members[at].head_certain);
        if at == primary || !self.leads || !is_due {
            return;
        }
        let (head, headers) = self.members[primary].suffix();
        let commit = self.members[primary].commit;
        let headers: Vec<Header> = headers.into_values().collect();
        let is_linked = |pair: &[Header]| pair[0].op.next() == pair[1].op && pair[1].parent == pair[0].checksum();
        let is_whole = match (headers.first(), headers.last()) {
            (Some(first), Some(last)) => first.op.0 <= commit + 1 && last.op.0 == head,
            _ => head == 0,
        };
        if is_whole && headers.windows(2).all(is_linked) && head >= self.members[at].commit {
            self.members[at].install(self.view, head, &headers, commit);
        }
    }

    /// The next `Prepare`, or the one after it.
    fn replicate(&mut self, at: usize) {
        let primary = self.primary();
        if !self.leads || at == primary || !self.is_normal(at) || !self.members[at].head_certain {
            return;
        }
        let skipped = u64::from(self.random.chance(1, 10));
        let own_head = self.members[at].head();
        let op = (own_head + 1 + skipped).min(self.members[primary].head());
        let Some(header) = self.members[primary].header(op).filter(|_| op > own_head) else { return };
        let fits = self.members[at].checksum(own_head).is_none_or(|own| own == header.parent);
        if op == own_head + 1 && !fits {
            return;
        }
        let sent = self.members[primary].holds(op, header.checksum());
        let member = &mut self.members[at];
        member.slots.resize(op as usize - 1, Slot::with(None, Held::Nowhere));
        member.slots.push(Slot::with(Some(header), if sent { Held::Memory } else { Held::Nowhere }));
    }

    /// Entries by the names that headers give, from any member.
    fn repair(&mut self, at: usize) {
        if !self.is_normal(at) {
            return;
        }
        for op in 1..=self.members[at].head() {
            let own = &self.members[at];
            let name = own.checksum(op).or_else(|| own.header(op + 1).map(|above| above.parent));
            let is_missing = own.slot(op).is_some_and(|slot| slot.held == Held::Nowhere);
            let Some(name) = name.filter(|_| is_missing) else { continue };
            if let Some(from) = self.members.iter().position(|member| member.holds(op, name)) {
                let header = self.members[from].header(op);
                let slot = self.members[at].slot_mut(op);
                *slot = Slot { header, held: Held::Memory, corrupt: slot.corrupt };
            }
        }
    }

    fn flush(&mut self, at: usize) {
        let (member, random) = (&mut self.members[at], &mut self.random);
        if member.view == member.log_view {
            for slot in member.slots.iter_mut().filter(|slot| slot.held == Held::Memory) {
                if random.chance(2, 3) {
                    slot.held = Held::Disk;
                }
            }
        }
    }

    fn commit(&mut self) {
        let primary = self.primary();
        let counts = |at: usize| self.is_normal(at) && self.members[at].head_certain;
        let acknowledged = |at: usize| if counts(at) { self.members[at].durable() } else { 0 };
        let mut acknowledged: Vec<u64> = (0..self.members.len()).map(acknowledged).collect();
        acknowledged.sort_unstable_by(|a, b| b.cmp(a));
        let commit = acknowledged[usize::from(self.quorums.replication) - 1];
        if !self.leads {
            return;
        }
        for op in self.members[primary].commit + 1..=commit {
            let header = self.members[primary].header(op).expect("the primary has its whole log");
            let before = self.committed.insert(op, header);
            assert!(before.is_none_or(|before| before == header), "op {op} is committed twice");
        }
        self.members[primary].commit = self.members[primary].commit.max(commit);
        let told = self.members[primary].commit;
        for at in 0..self.members.len() {
            if self.is_normal(at) && self.random.chance(1, 3) {
                let heard = self.random.below(told + 1);
                self.members[at].commit = self.members[at].commit.max(heard);
            }
        }
    }

    fn crash(&mut self, at: usize, lost_above: Option<u64>) {
        self.leads &= at != self.primary();
        self.damaged |= lost_above.is_some();
        self.members[at].restart(lost_above);
    }

    fn lose_end(&mut self, at: usize) {
        let above = self.random.below(self.members[at].head() + 1);
        self.crash(at, Some(above));
    }

    /// A start finds one entry damaged; of half of them the header, too.
    fn rot(&mut self, at: usize) {
        self.crash(at, None);
        let op = 1 + self.random.below(self.members[at].head());
        let takes_header = self.random.chance(1, 2);
        let (_, named) = self.members[at].fixed();
        if self.members[at].slot(op).is_some_and(|slot| slot.held == Held::Disk) {
            self.damaged = true;
            let slot = self.members[at].slot_mut(op);
            let header = if takes_header { named.get(&op).copied() } else { slot.header };
            *slot = Slot { header, held: Held::Nowhere, corrupt: true };
        }
    }

    fn traffic(&mut self) {
        for _ in 1..self.random.below(4).max(1) {
            self.prepare();
        }
        for at in 0..self.members.len() {
            if !self.up[at] {
                continue;
            }
            if self.random.chance(3, 4) {
                self.start_view(at);
            }
            for _ in 0..self.random.below(4) {
                self.replicate(at);
            }
            if self.random.chance(1, 4) {
                self.repair(at);
            }
            if self.random.chance(3, 4) {
                self.flush(at);
            }
        }
        if self.random.chance(3, 4) {
            self.commit();
        }
    }

    fn faults(&mut self) {
        let at = self.any_member();
        if self.random.chance(1, 8) {
            self.crash(at, None);
        }
        if self.damages && self.random.chance(1, 8) {
            self.rot(at);
        }
        if self.damages && self.random.chance(1, 8) {
            self.lose_end(at);
        }
    }

    /// Some members promise the next view; the log is chosen from each set of what they say, and one of the choices
    /// becomes the log.
    fn view_change(&mut self) {
        let n = self.members.len();
        let next = self.view + 1 + self.random.below(n as u64);
        for member in &mut self.members {
            if self.random.chance(2, 3) {
                member.promise(next);
            }
        }
        let is_in: Vec<bool> = self.members.iter().map(|member| member.view == next).collect();
        let damages = self.damages;
        for at in (0..n).filter(|at| damages && is_in[*at]) {
            if self.random.chance(1, 12) {
                self.rot(at);
            }
            if self.random.chance(1, 12) {
                self.lose_end(at);
            }
        }
        let said = self.members.iter().zip(&is_in).map(|(member, is_in)| is_in.then(|| member.do_view_change()));
        let said: Vec<Option<DoViewChange>> = said.collect();
        (self.view, self.leads) = (next, false);
        let primary = self.primary();
        let log = self.members[primary].log();
        let copies = BTreeMap::new();
        let found = if self.random.chance(1, 2) { self.made.clone() } else { BTreeMap::new() };
        let own = Own { log: &log, copies: &copies, found: &found };
        let mut chosen = None;
        for set in 0..1_usize << n {
            let of_set = said.iter().enumerate().map(|(at, dvc)| dvc.clone().filter(|_| set & (1 << at) != 0));
            let mut dvcs: Vec<Option<DoViewChange>> = of_set.collect();
            let choice = choose(&dvcs, &self.quorums, own);
            self.check(&choice);
            let all_answered = dvcs.iter().all(Option::is_some);
            dvcs.reverse();
            assert_eq!(choose(&dvcs, &self.quorums, own), choice, "the order of the members counts");
            if let Choice::Log { head, headers, commit, .. } = choice {
                if chosen.is_none() || self.random.chance(1, 2) {
                    chosen = Some((head, headers, commit));
                }
            } else {
                assert!(!all_answered || self.damaged, "all have answered, and there is no damage: {choice:?}");
            }
        }
        if let Some((head, headers, commit)) = chosen.filter(|_| is_in[primary] && self.members[primary].head_certain) {
            self.members[primary].install(next, head.0, &headers, commit.0);
            self.repair(primary);
            self.leads = true;
        }
    }

    fn check(&mut self, choice: &Choice) {
        match choice {
            Choice::NoQuorum | Choice::EndsBeforeCommit | Choice::HeadUnnamed { .. } => {}
            Choice::Contradiction { .. } => panic!("{choice:?}"),
            Choice::Undecided { .. } => self.seen.undecided += 1,
            Choice::EndUncertain => self.seen.ends_uncertain += 1,
            Choice::Log { head, headers, commit, truncated } => {
                self.seen.logs += 1;
                self.seen.truncated += u64::from(*truncated);
                let known: BTreeMap<u64, Header> = headers.iter().map(|header| (header.op.0, *header)).collect();
                assert!(commit.0 <= self.committed.len() as u64, "more is called committed than is: {choice:?}");
                for (op, header) in &self.committed {
                    assert!(*op <= head.0, "op {op} is committed, and the log ends before it: {choice:?}");
                    let is_other = known.get(op).map_or(*op > commit.0, |own| own != header);
                    assert!(!is_other, "op {op} is committed with another content: {choice:?}");
                }
                for op in commit.0 + 1..=head.0 {
                    let parent = known.get(&op).map(|header| header.parent);
                    assert!(parent.is_some(), "op {op} has no header: {choice:?}");
                    let below = known.get(&(op - 1)).map(|below| below.checksum());
                    assert!(below.is_none() || below == parent, "op {op} does not fit the one below: {choice:?}");
                }
            }
        }
    }

    fn run(&mut self) {
        for _ in 0..8 {
            let all_up = self.random.chance(1, 2);
            for at in 0..self.members.len() {
                self.up[at] = all_up || self.random.chance(1, 2);
            }
            for _ in 0..self.random.below(5) {
                self.traffic();
                self.faults();
            }
            self.view_change();
        }
        self.seen.committed = self.committed.len() as u64;
    }
}

/// Names the seed of a failure.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed of the model is {}", self.0);
        }
    }
}

#[test]
fn every_choice_holds_what_is_committed() {
    let mut all = Seen::default();
    for seed in 0..SEEDS {
        let named = Seed(seed);
        let mut cluster = Cluster::new(seed);
        cluster.run();
        drop(named);
        let Seen { logs, truncated, undecided, ends_uncertain, committed } = cluster.seen;
        all.logs += logs;
        all.truncated += truncated;
        all.undecided += undecided;
        all.ends_uncertain += ends_uncertain;
        all.committed += committed;
    }
    // Else the model has not come where a wrong choice would show.
    let least = [all.logs / 10, all.truncated, all.undecided, all.ends_uncertain, all.committed];
    assert!(least.iter().all(|count| *count >= SEEDS / 4), "{all:?}");
}
