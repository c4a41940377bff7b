//! Whether a state machine is deterministic, asked without a cluster: the same log through several machines.
//!
//! Every replica applies the same commands in the same order and must go through the same states. What breaks that is rarely seen on one
//! machine: the order of a `HashMap`, a clock, a random number, an address, a global counter, a field that a snapshot leaves out.
//! [`check_determinism`] finds those within one process:
//!
//! ```
//! # use std::io::Read;
//! # use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};
//! use vsr_sim::conformance::determinism::{DeterminismOptions, check_determinism};
//!
//! #[derive(Default)]
//! struct Counter(i64);
//!
//! impl StateMachine for Counter {
//!     type Command = i64;
//!     type Reply = i64;
//!     // … as in any application
//! #     type Query = ();
//! #     type Answer = i64;
//! #     fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 { self.0 += n; self.0 }
//! #     fn query(&self, _: &QueryContext, (): ()) -> i64 { self.0 }
//! #     fn snapshot(&self) -> Snapshot { Snapshot::of(self.0) }
//! #     fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> { Snapshot::read(from).map(Counter) }
//! #     fn digest(&self) -> Option<Checksum> { Some(Checksum::of(&self.0.to_le_bytes())) }
//! }
//!
//! let report = check_determinism(Counter::default, |random| random.below(10) as i64, &DeterminismOptions::default())?;
//! assert_eq!(report.commands, 1000);
//! # Ok::<(), vsr_sim::conformance::determinism::NotDeterministic>(())
//! ```
//!
//! The report of one that is not names the op, what both have replied, and both digests:
//!
//! ```
//! # use std::io::Read;
//! # use vsr::{ApplyContext, QueryContext, RestoreError, Snapshot, StateMachine};
//! use std::collections::HashMap;
//! use vsr_sim::conformance::determinism::{DeterminismOptions, NotDeterministic, check_determinism};
//!
//! /// Gives away tickets: the newest of those that are left, or so it seems.
//! #[derive(Default)]
//! struct Tickets(HashMap<u32, u64>);
//!
//! impl StateMachine for Tickets {
//!     type Command = Option<u32>;
//!     type Reply = Option<u32>;
//! #     type Query = ();
//! #     type Answer = ();
//!     fn apply(&mut self, _: &ApplyContext, command: Option<u32>) -> Option<u32> {
//!         match command {
//!             Some(ticket) => {
//!                 self.0.insert(ticket, 1);
//!                 None
//!             }
//!             // The order of a `HashMap` is another one in every process, and for every map.
//!             None => self.0.keys().next().copied().inspect(|ticket| _ = self.0.remove(ticket)),
//!         }
//!     }
//!     // …
//! #     fn query(&self, _: &QueryContext, (): ()) {}
//! #     fn snapshot(&self) -> Snapshot { Snapshot::of(self.0.iter().map(|(k, v)| (*k, *v)).collect::<std::collections::BTreeMap<_, _>>()) }
//! #     fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> { Snapshot::read(from).map(Tickets) }
//! }
//!
//! let commands = |random: &mut vsr::protocol::Random| random.chance(3, 4).then(|| random.below(100) as u32);
//! let found = check_determinism(Tickets::default, commands, &DeterminismOptions::default());
//! let Err(NotDeterministic::Diverged { position, digests, .. }) = &found else { panic!("{found:?}") };
//! assert!(position.op.0 > 0);
//! assert_ne!(digests[0], digests[1]);
//! println!("{}", found.unwrap_err());
//! // op 12.3: None was answered Some(71), with digest 1f0c66b3, and by another machine Some(4), with digest 90aa7e51
//! ```
//!
//! # The same log on two builds
//! A seed determines a log, and a deterministic machine turns a log into one number, see [`log_digest`]: the same in debug and release, on
//! every computer, with every version of the compiler. Write the number into a test and have the test run wherever replicas will:
//!
//! ```
//! # use std::io::Read;
//! # use vsr::{ApplyContext, Checksum, QueryContext, RestoreError, Snapshot, StateMachine};
//! # use vsr_sim::conformance::determinism::{DeterminismOptions, log_digest};
//! # #[derive(Default)]
//! # struct Counter(i64);
//! # impl StateMachine for Counter {
//! #     type Command = i64;
//! #     type Reply = i64;
//! #     type Query = ();
//! #     type Answer = i64;
//! #     fn apply(&mut self, _: &ApplyContext, n: i64) -> i64 { self.0 += n; self.0 }
//! #     fn query(&self, _: &QueryContext, (): ()) -> i64 { self.0 }
//! #     fn snapshot(&self) -> Snapshot { Snapshot::of(self.0) }
//! #     fn restore(from: &mut dyn Read) -> Result<Self, RestoreError> { Snapshot::read(from).map(Counter) }
//! #     fn digest(&self) -> Option<Checksum> { Some(Checksum::of(&self.0.to_le_bytes())) }
//! # }
//! let number = log_digest(Counter::default(), |random| random.below(10) as i64, &DeterminismOptions::default())?;
//! assert_eq!(number.to_string(), "bd28b1b1", "this build applies the log of seed 1 in another way");
//! # Ok::<(), vsr_sim::conformance::determinism::NotDeterministic>(())
//! ```

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vsr::protocol::{OpNumber, Position, Random, SessionId, Timestamp};
use vsr::{ApplyContext, Checksum, Snapshot, StateMachine};

/// Which log is made up. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeterminismOptions {
    /// Determines commands, contexts and where snapshots are taken. Default 1.
    pub seed: u64,
    /// The length of the log. Default 1,000.
    pub commands: u64,
    /// The longest op, in commands. Default 8.
    pub batch_max: u32,
    /// Snapshots that are taken and gone on from. Each applies the rest of the log once more. Default 10.
    pub snapshots: u32,
}

impl Default for DeterminismOptions {
    fn default() -> DeterminismOptions {
        DeterminismOptions { seed: 1, commands: 1000, batch_max: 8, snapshots: 10 }
    }
}

/// What was compared without a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeterminismReport {
    /// Commands that each of two machines has applied.
    pub commands: u64,
    /// Ops that they came in.
    pub ops: u64,
    /// Snapshots that were restored and gone on from, one of a machine that had applied nothing among them.
    pub snapshots: u64,
    /// As [`log_digest`] gives it for the same options.
    pub log_digest: Checksum,
}

/// The machine would part the replicas of a cluster. Digests are [`StateMachine::digest`], or where there is none the checksum of what a
/// snapshot writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotDeterministic {
    /// Two machines that have applied nothing differ.
    #[error("two new machines have the digests {} and {}", digests[0], digests[1])]
    Start {
        /// Of the one, and of the other.
        digests: [Checksum; 2],
    },
    /// The same command was answered differently, or has led to another state.
    #[error(
        "op {position}: {command} was answered {}, with digest {}, and by {} {}, with digest {}",
        replies[0], digests[0], other(*restored), replies[1], digests[1]
    )]
    Diverged {
        /// Where the command stands in the log.
        position: Position,
        /// The command.
        command: String,
        /// Of a machine that has applied all of the log, and of the other one.
        replies: Box<[String; 2]>,
        /// The states after the command, of the one and of the other.
        digests: [Checksum; 2],
        /// The last op of the snapshot, where the other machine comes from one.
        restored: Option<Position>,
    },
    /// What was restored is not what the snapshot was taken of.
    #[error(
        "a snapshot of digest {} was taken after op {position}; {}what was restored from it has digest {}", digests[0],
        if *is_shared { "while it waited to be written, more was applied; " } else { "" }, digests[1]
    )]
    Restored {
        /// The last op of the snapshot.
        position: Position,
        /// Of the machine when the snapshot was taken, and of the restored one.
        digests: [Checksum; 2],
        /// Written at once it would have been right: the snapshot is no view of its own, it changes with the machine.
        is_shared: bool,
    },
    /// A snapshot cannot be written, or read again.
    #[error("the snapshot that was taken after op {position}: {error}")]
    Snapshot {
        /// The last op of the snapshot.
        position: Position,
        /// The machine's words.
        error: String,
    },
    /// A command or reply cannot be encoded, or not be decoded again: it would never reach another replica.
    #[error("a {what} does not survive its encoding: {error}")]
    Encoding {
        /// Command or reply.
        what: &'static str,
        /// The codec's words.
        error: String,
    },
}

fn other(restored: Option<Position>) -> String {
    match restored {
        Some(position) => format!("a machine restored from a snapshot after op {position}"),
        None => "another machine".to_owned(),
    }
}

/// Applies one made-up log to two machines, and the rest of it to machines that are restored from snapshots on the way; compares every reply,
/// byte for byte, and the digest after every command. Snapshots are written only after more was applied, as those of a replica are.
///
/// `commands` makes up the next command; use nothing but the generator in it.
///
/// # Errors
/// The first difference.
pub fn check_determinism<S>(
    machine: impl Fn() -> S,
    commands: impl Fn(&mut Random) -> S::Command,
    options: &DeterminismOptions,
) -> Result<DeterminismReport, NotDeterministic>
where
    S: StateMachine<Command: Debug, Reply: Debug>,
{
    let log = Log::<S>::new(commands, options)?;
    let mut random = Random::new(!options.seed);
    let count = log.logged.len() as u64;
    let picked: BTreeSet<usize> = (1..options.snapshots).map(|_| random.below(count) as usize).chain([0]).collect();
    let (mut first, mut second) = (machine(), machine());
    let start = log.state(&first, 0)?;
    let digests = [start, log.state(&second, 0)?];
    if digests[0] != digests[1] {
        return Err(NotDeterministic::Start { digests });
    }
    let (mut steps, mut waiting, mut views) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..log.logged.len() {
        if picked.contains(&at) {
            let (early, late) = (log.write(first.snapshot(), at)?, first.snapshot());
            waiting.push((at as u64 + random.below(20), at, early, late));
        }
        let step = log.apply(&mut first, at)?;
        log.compare(at, &step, &log.apply(&mut second, at)?, None)?;
        steps.push(step);
        let is_last = at + 1 == log.logged.len();
        for (_, taken, early, late) in waiting.extract_if(.., |(due, ..)| is_last || *due <= at as u64) {
            views.push((taken, early, log.write(late, taken)?));
        }
    }
    for (taken, early, late) in &views {
        let expected = taken.checked_sub(1).map_or(start, |last| steps[last].digest);
        let mut restored = log.restore(late, *taken)?;
        let digests = [expected, log.state(&restored, *taken)?];
        if digests[0] != digests[1] {
            let is_shared = log.restore(early, *taken).and_then(|early| log.state(&early, *taken)) == Ok(expected);
            return Err(NotDeterministic::Restored { position: log.position(*taken), digests, is_shared });
        }
        for (at, step) in steps.iter().enumerate().skip(*taken) {
            log.compare(at, step, &log.apply(&mut restored, at)?, Some(log.position(*taken)))?;
        }
    }
    Ok(DeterminismReport {
        commands: count,
        ops: log.ops,
        snapshots: views.len() as u64,
        log_digest: log.digest(start, &steps),
    })
}

/// One number for a machine and the log of a seed: every command, every reply and every state are in it. Two builds that give different
/// numbers must not replicate each other. Also a cheap way to compare two versions of a machine that ought to be the same.
///
/// # Errors
/// [`NotDeterministic::Encoding`] and [`NotDeterministic::Snapshot`]; nothing is compared.
pub fn log_digest<S>(
    mut machine: S,
    commands: impl Fn(&mut Random) -> S::Command,
    options: &DeterminismOptions,
) -> Result<Checksum, NotDeterministic>
where
    S: StateMachine<Command: Debug, Reply: Debug>,
{
    let log = Log::<S>::new(commands, options)?;
    let start = log.state(&machine, 0)?;
    let steps: Vec<Step> = (0..log.logged.len()).map(|at| log.apply(&mut machine, at)).collect::<Result<_, _>>()?;
    Ok(log.digest(start, &steps))
}

/// Commands as they travel, and where they stand.
struct Log<S> {
    logged: Vec<(ApplyContext, Vec<u8>)>,
    ops: u64,
    machine: std::marker::PhantomData<S>,
}

/// What came of a command.
#[derive(PartialEq)]
struct Step {
    reply: Vec<u8>,
    digest: Checksum,
}

impl<S: StateMachine<Command: Debug, Reply: Debug>> Log<S> {
    /// Makes one up: ops of some commands each, from a few sessions, at times that are sometimes far apart.
    fn new(
        commands: impl Fn(&mut Random) -> S::Command,
        options: &DeterminismOptions,
    ) -> Result<Log<S>, NotDeterministic> {
        const SESSIONS: u64 = 5;
        let mut random = Random::new(options.seed);
        let mut logged = Vec::new();
        let mut timestamp = 1_700_000_000_000_000_000;
        let mut ops = 0;
        while (logged.len() as u64) < options.commands {
            ops += 1;
            let pause_max = if random.chance(1, 50) { 1 << 42 } else { 1 << 24 };
            timestamp += 1 + random.below(pause_max);
            let size = 1 + random.below(options.batch_max.max(1).into());
            for index in 0..size.min(options.commands - logged.len() as u64) {
                // The sessions were opened by the first ops.
                let position = Position { op: OpNumber(SESSIONS + ops), index: index as u32 };
                let session = SessionId(Position { op: OpNumber(1 + random.below(SESSIONS)), index: 0 });
                let context = ApplyContext::new(position, Timestamp(timestamp), session);
                logged.push((context, encode("command", &commands(&mut random))?));
            }
        }
        Ok(Log { logged, ops, machine: std::marker::PhantomData })
    }

    /// The last op of so many commands.
    fn position(&self, applied: usize) -> Position {
        applied.checked_sub(1).map_or(Position::default(), |last| self.logged[last].0.position)
    }

    fn apply(&self, machine: &mut S, at: usize) -> Result<Step, NotDeterministic> {
        let (context, command) = &self.logged[at];
        let reply = encode("reply", &machine.apply(context, decode("command", command)?))?;
        decode::<S::Reply>("reply", &reply)?;
        Ok(Step { reply, digest: self.state(machine, at + 1)? })
    }

    fn state(&self, machine: &S, applied: usize) -> Result<Checksum, NotDeterministic> {
        match machine.digest() {
            Some(digest) => Ok(digest),
            None => Ok(Checksum::of(&self.write(machine.snapshot(), applied)?)),
        }
    }

    fn write(&self, snapshot: Snapshot, applied: usize) -> Result<Vec<u8>, NotDeterministic> {
        let mut bytes = Vec::new();
        let failed = |error: std::io::Error| NotDeterministic::Snapshot {
            position: self.position(applied),
            error: error.to_string(),
        };
        snapshot.write_to(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn restore(&self, mut bytes: &[u8], applied: usize) -> Result<S, NotDeterministic> {
        S::restore(&mut bytes)
            .map_err(|error| NotDeterministic::Snapshot { position: self.position(applied), error: error.to_string() })
    }

    fn compare(&self, at: usize, a: &Step, b: &Step, restored: Option<Position>) -> Result<(), NotDeterministic> {
        if a == b {
            return Ok(());
        }
        let (context, command) = &self.logged[at];
        let command: S::Command = decode("command", command)?;
        let [first, second]: [S::Reply; 2] = [decode("reply", &a.reply)?, decode("reply", &b.reply)?];
        Err(NotDeterministic::Diverged {
            position: context.position,
            command: format!("{command:?}"),
            replies: Box::new([format!("{first:?}"), format!("{second:?}")]),
            digests: [a.digest, b.digest],
            restored,
        })
    }

    fn digest(&self, start: Checksum, steps: &[Step]) -> Checksum {
        self.logged.iter().zip(steps).fold(start, |before, ((_, command), step)| {
            let parts = [&before.0.to_le_bytes()[..], command, &step.reply, &step.digest.0.to_le_bytes()];
            Checksum::of(&parts.map(|part| Checksum::of(part).0.to_le_bytes()).concat())
        })
    }
}

fn encode(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, NotDeterministic> {
    vsr::codec::to_vec(value).map_err(|error| NotDeterministic::Encoding { what, error: error.to_string() })
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, NotDeterministic> {
    vsr::codec::from_slice(bytes).map_err(|error| NotDeterministic::Encoding { what, error: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use vsr::{QueryContext, RestoreError};

    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    enum Defect {
        #[default]
        None,
        HashOrder,
        CountsForTheProcess,
        KnowsItsAddress,
        IsBornDifferent,
        LeavesSomethingOut,
        LeavesOutWhatTheDigestSees,
        SharesItsView,
        CannotBeRestored,
    }

    static PROCESS: AtomicU64 = AtomicU64::new(0);

    /// Sums up by key.
    #[derive(Default)]
    struct Sums {
        defect: Defect,
        has_digest: bool,
        sums: Arc<Mutex<BTreeMap<u64, u64>>>,
        last: u64,
        #[allow(clippy::disallowed_types, reason = "its order is the defect")]
        hashed: std::collections::HashMap<u64, u64>,
    }

    impl Sums {
        fn of(defect: Defect) -> Sums {
            let born = if defect == Defect::IsBornDifferent { PROCESS.fetch_add(1, Ordering::Relaxed) } else { 0 };
            Sums { defect, has_digest: true, last: born, ..Sums::default() }
        }
    }

    impl StateMachine for Sums {
        type Command = (u64, u64);
        type Reply = (u64, u64);
        type Query = ();
        type Answer = ();

        fn apply(&mut self, context: &ApplyContext, (key, value): (u64, u64)) -> (u64, u64) {
            let mut sums = self.sums.lock().unwrap();
            let sum = sums.entry(key).or_default();
            *sum += value + context.position.op.0;
            let before = std::mem::replace(&mut self.last, key);
            self.hashed.insert(key, value);
            match self.defect {
                Defect::HashOrder => (*sum, self.hashed.keys().next().copied().unwrap_or(0)),
                Defect::CountsForTheProcess => (*sum, PROCESS.fetch_add(1, Ordering::Relaxed)),
                Defect::KnowsItsAddress => (*sum, std::ptr::from_ref(self).addr() as u64),
                _ => (*sum, before),
            }
        }

        fn query(&self, _: &QueryContext, (): ()) {}

        fn snapshot(&self) -> Snapshot {
            let (defect, has_digest) = (self.defect as u8, self.has_digest);
            let leaves_out = matches!(self.defect, Defect::LeavesSomethingOut | Defect::LeavesOutWhatTheDigestSees);
            let last = if leaves_out { 0 } else { self.last };
            if self.defect == Defect::SharesItsView {
                let sums = self.sums.clone();
                return Snapshot::with(move |to| {
                    let sums = sums.lock().unwrap().clone();
                    Snapshot::of((defect, has_digest, sums, last)).write_to(to)
                });
            }
            Snapshot::of((defect, has_digest, self.sums.lock().unwrap().clone(), last))
        }

        fn restore(from: &mut dyn Read) -> Result<Sums, RestoreError> {
            let (defect, has_digest, sums, last): (u8, bool, BTreeMap<u64, u64>, u64) = Snapshot::read(from)?;
            let all = [
                Defect::LeavesSomethingOut,
                Defect::LeavesOutWhatTheDigestSees,
                Defect::SharesItsView,
                Defect::CannotBeRestored,
            ];
            let defect = all.into_iter().find(|known| *known as u8 == defect).unwrap_or_default();
            if defect == Defect::CannotBeRestored {
                return Err(RestoreError::new("no"));
            }
            Ok(Sums { defect, has_digest, sums: Arc::new(Mutex::new(sums)), last, ..Sums::default() })
        }

        fn digest(&self) -> Option<Checksum> {
            let seen = if self.defect == Defect::LeavesSomethingOut { 0 } else { self.last };
            let text = format!("{seen} {:?}", self.sums.lock().unwrap());
            (self.has_digest && self.defect != Defect::None).then(|| Checksum::of(text.as_bytes()))
        }
    }

    fn command(random: &mut Random) -> (u64, u64) {
        (random.below(50), random.below(1000))
    }

    fn check(defect: Defect) -> Result<DeterminismReport, NotDeterministic> {
        check_determinism(|| Sums::of(defect), command, &DeterminismOptions::default())
    }

    #[test]
    fn a_deterministic_machine_passes_and_has_one_number_for_each_seed() {
        for seed in 0..20 {
            let options = DeterminismOptions { seed, commands: 200, ..DeterminismOptions::default() };
            let report = check_determinism(Sums::default, command, &options).unwrap();
            assert_eq!(report.commands, 200);
            assert!(report.ops > 30 && report.snapshots > 5, "{report:?}");
            assert_eq!(log_digest(Sums::default(), command, &options).unwrap(), report.log_digest);
            let other = DeterminismOptions { seed: seed + 1, ..options };
            assert_ne!(log_digest(Sums::default(), command, &other).unwrap(), report.log_digest);
        }
        let none = DeterminismOptions { commands: 0, ..DeterminismOptions::default() };
        assert_eq!(check_determinism(Sums::default, command, &none).unwrap().snapshots, 0);
    }

    #[test]
    fn what_differs_from_machine_to_machine_is_found_with_op_and_replies_and_digests() {
        for defect in [Defect::HashOrder, Defect::CountsForTheProcess, Defect::KnowsItsAddress] {
            let error = check(defect).unwrap_err();
            let NotDeterministic::Diverged { position, replies, digests, restored: None, .. } = &error else {
                panic!("{defect:?}: {error}");
            };
            assert_ne!(replies[0], replies[1]);
            let text = error.to_string();
            for part in [position.to_string(), replies[0].clone(), replies[1].clone(), digests[0].to_string()] {
                assert!(text.contains(&part), "{text} does not name {part}");
            }
        }
        let born = check(Defect::IsBornDifferent).unwrap_err();
        assert!(matches!(born, NotDeterministic::Start { digests } if digests[0] != digests[1]), "{born}");
    }

    #[test]
    fn what_a_snapshot_leaves_out_is_found_in_what_comes_after_it() {
        let unseen = check(Defect::LeavesSomethingOut).unwrap_err();
        assert!(matches!(unseen, NotDeterministic::Diverged { restored: Some(_), .. }), "{unseen}");
        let seen = check(Defect::LeavesOutWhatTheDigestSees).unwrap_err();
        assert!(matches!(seen, NotDeterministic::Restored { is_shared: false, .. }), "{seen}");
    }

    #[test]
    fn a_snapshot_that_changes_with_its_machine_is_found() {
        let shared = check(Defect::SharesItsView).unwrap_err();
        assert!(matches!(shared, NotDeterministic::Restored { is_shared: true, .. }), "{shared}");
        assert!(shared.to_string().contains("more was applied"), "{shared}");
    }

    #[test]
    fn a_machine_that_cannot_be_restored_is_found() {
        let error = check(Defect::CannotBeRestored).unwrap_err();
        assert!(matches!(&error, NotDeterministic::Snapshot { error, .. } if error.contains("no")), "{error}");
    }

    #[test]
    fn states_without_a_digest_are_compared_by_their_snapshots() {
        for defect in [Defect::IsBornDifferent, Defect::SharesItsView] {
            let machine = || Sums { has_digest: false, ..Sums::of(defect) };
            let error = check_determinism(machine, command, &DeterminismOptions::default()).unwrap_err();
            let found =
                matches!(error, NotDeterministic::Start { .. } | NotDeterministic::Restored { is_shared: true, .. });
            assert!(found, "{defect:?}: {error}");
        }
    }
}
