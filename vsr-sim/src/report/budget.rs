//! How long a healed core may take, and what it may cost. A seed that serves, but over its budget, fails.
//!
//! Worlds differ: some have slow disks and far links, some replicas with long time-outs. So times are measured in rounds: one is
//! what it takes, in that world, until a dead primary is noticed, a view change has been tried in vain until its time-out has
//! doubled as often as it may, and one that nothing hinders has come through. The budgets are above what many seeds of a correct
//! tree take: `vsr-sim --seeds A..B --calibrate` prints the most that a sweep has seen of each.

use std::fmt;
use std::time::Duration;

use crate::options::Options;

/// Rounds until the first answer after the core was healed, in thousandths; once more for each replica outside it, and for each in it
/// that cannot lead, since the end of its log is lost: the view in which it would passes in vain.
pub const FIRST_ANSWER: u64 = 2_000;
/// Until the last one, beside what the work itself takes, in thousandths.
pub const ALL_ANSWERS: u64 = 6_000;
/// Views that are entered meanwhile, in thousandths; for each replica outside the core once more.
pub const VIEWS: u64 = 12_000;
/// Views that a core enters which is rightly stuck, for each that its time-outs allow, in thousandths: they have to back off.
pub const VIEWS_STUCK: u64 = 1_000;
/// Bytes sent after the heal for each byte of payload of the run and each replica, in thousandths. Of 20,000 seeds one needs
/// 3,212: its queue holds one batch and its log 19 KB, so that most of what is sent is refused and comes again.
pub const COPIES: u64 = 3_500;
/// Bytes sent for each byte of payload and each replica in a run without faults, in thousandths.
pub const COPIES_CALM: u64 = 3_000;
/// Heartbeats and pings for each that is due in a run without faults, in thousandths.
pub const BEATS_CALM: u64 = 1_200;
/// Views that are entered in a run without faults, whose time-outs fit its delays.
pub const VIEWS_CALM: u64 = 0;

/// What a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether the core was healed while requests were waiting.
    pub was_healed: bool,
    /// Replicas outside the core, and those in it that cannot lead.
    pub outside: usize,
    /// From the heal until a client heard an answer.
    pub first_answer: Duration,
    /// From the heal until every client had its answers.
    pub all_answers: Duration,
    /// Views entered from the heal on.
    pub views: u64,
    /// Views entered before the heal.
    pub views_before: u64,
    /// For how long the core was rightly stuck after the heal; zero when it was not.
    pub stuck_for: Duration,
    /// Bytes of requests and entries that were sent before the heal.
    pub carried_before: u64,
    /// Bytes of requests and entries that were sent in the whole run.
    pub carried: u64,
    /// Bytes of the ops, each counted once.
    pub payload: u64,
    /// The time before the heal.
    pub before: Duration,
    /// Heartbeats and pings that were sent before the heal.
    pub beats_before: u64,
    /// Ops that were prepared before the heal, and questions that may each have needed a heartbeat.
    pub reasons_before: u64,
}

/// One figure beside its budget, both in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// What is measured.
    pub name: &'static str,
    /// The figure.
    pub value: u64,
    /// The most that it may be.
    pub budget: u64,
}

impl Measure {
    /// Whether it is more than it may be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.value > self.budget
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measure { name, value, budget } = self;
        let whole = |thousandths: &u64| format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        write!(f, "{name}: {}, {} are allowed", whole(value), whole(budget))
    }
}

impl Figures {
    /// What is measured of a run with these options. `planned`: its faults were written down, it may look calm and is not.
    #[must_use]
    pub fn measures(&self, options: &Options, planned: bool) -> Vec<Measure> {
        let mut measures = Vec::new();
        let mut add = |name, value, budget| measures.push(Measure { name, value, budget });
        let each_outside = 1 + self.outside as u64;
        if !self.stuck_for.is_zero() {
            // Each view takes eight times the time-out of a view change, once it has doubled as often as it may; clocks differ.
            let slowest = (options.limits.timing.view_change_timeout * 5).as_nanos().max(1);
            let turns = u64::try_from(self.stuck_for.as_nanos() / slowest).unwrap_or(u64::MAX);
            let allowed = (VIEWS / 1000 * each_outside).saturating_add(turns);
            add("views of a stuck core for each that its time-outs allow", self.views * 1000 / allowed, VIEWS_STUCK);
            return measures;
        }
        // A full log refuses: no client hears of an execution.
        if self.was_healed && !options.limits.log_may_be_full() {
            let round = options.round();
            let first = thousandths(self.first_answer, round * each_outside as u32);
            add("rounds to the first answer after the heal", first, FIRST_ANSWER);
            // The work itself may take what it takes.
            let all = thousandths(self.all_answers.saturating_sub(options.work()), round * each_outside as u32);
            add("rounds to the last answer after the heal", all, ALL_ANSWERS);
            add("views after the heal", self.views * 1000 / each_outside, VIEWS);
        }
        // A cluster of one sends no ops, and where there are few, everything else weighs more.
        let for_each = self.payload * options.replicas as u64;
        // What clients send that break their own rule is no payload: commands that are too long, and sent again.
        if options.replicas > 1 && self.payload > 10_000 && options.rogues == 0 {
            if self.was_healed {
                let after = (self.carried - self.carried_before) * 1000 / for_each;
                add("bytes after the heal for each byte and replica", after, COPIES);
            }
            if options.is_calm() && !planned && options.is_patient() {
                let before = self.carried_before * 1000 / for_each;
                add("bytes for each byte and replica without faults", before, COPIES_CALM);
            }
        }
        if options.is_calm() && !planned && options.is_patient() {
            add("views without faults", self.views_before * 1000, VIEWS_CALM);
            let due = self.beats_due(options);
            add("heartbeats and pings for each that is due without faults", self.beats_before * 1000 / due, BEATS_CALM);
        }
        measures
    }
}

impl Figures {
    /// Pings at their interval, and when a connection is new; heartbeats at theirs, and for what cannot wait for the next one.
    fn beats_due(&self, options: &Options) -> u64 {
        let (n, timing) = (options.replicas as u64, options.limits.timing);
        let times = |interval: Duration| thousandths(self.before, interval) / 1000;
        let pings = n * n.saturating_sub(1) * (times(timing.ping) + n + 2);
        let heartbeats = n.saturating_sub(1) * (times(timing.heartbeat) + self.reasons_before + 2);
        (pings + heartbeats).max(1)
    }
}

fn thousandths(time: Duration, of: Duration) -> u64 {
    u64::try_from(time.as_nanos() * 1000 / of.as_nanos().max(1)).unwrap_or(u64::MAX)
}

/// A client asks another replica after this long, and may ask two in vain.
const CLIENT: Duration = Duration::from_millis(600);

impl Options {
    /// A round of time-outs in this world, see [`budget`](self).
    fn round(&self) -> Duration {
        let timing = self.limits.timing;
        let (delay, write) = (self.delay_longest() + self.core_delay, self.write_longest());
        let noticed = timing.primary_timeout + timing.quorum_timeout + timing.disk_stall_timeout;
        // With jitter, a quarter of each.
        let tried = (timing.view_change_timeout * 15 + timing.retry * 8 + timing.ping) * 5 / 4;
        // A log is read back in pieces, each a read.
        let works = (delay + write) * 12 + write * 40;
        // A table that is full of dead sessions lets newcomers in when these are old enough, in ops.
        let aged = if self.sessions_max < 100 { CLIENT * self.limits.session_idle_min as u32 } else { Duration::ZERO };
        noticed * 5 / 4 + tried + works + aged + CLIENT * 2 + self.start_max
    }

    /// What the requests of this world take where nothing goes wrong: those of a client one after the other; and all of them, as
    /// many at a time as fit into the pipeline.
    fn work(&self) -> Duration {
        let of_one =
            self.delay_longest() * 6 + self.core_delay * 4 + self.write_longest() * 3 + Duration::from_millis(100);
        let at_once = self.pipeline_max.saturating_mul(self.limits.batch_requests_max).max(1);
        let of_all = self.op_time() * self.requests.saturating_mul(self.clients as u32) / at_once;
        of_one * self.requests + of_all
    }

    /// How long a healed core, with so many replicas outside it, may take until every client has an answer.
    pub(crate) fn time_to_serve(&self, outside: usize) -> Duration {
        self.work() + self.round() * (1 + outside as u32) * ALL_ANSWERS as u32 / 1000
    }

    fn op_time(&self) -> Duration {
        self.delay_longest() * 3 + self.write_longest() * 2
    }

    /// Whether the time-outs are long enough for this world: then nothing is suspected that goes as it should.
    pub(crate) fn is_patient(&self) -> bool {
        let timing = self.limits.timing;
        let round_trip = (self.delay_longest() + self.write_longest()) * 2;
        // Every client has up to four requests waiting, every replica one.
        let waiting = (self.clients * 4 + self.replicas) as u32;
        let at_once = self.pipeline_max.saturating_mul(self.limits.batch_requests_max).max(1);
        let queue = self.op_time() * waiting / at_once + self.op_time() * 2;
        timing.primary_timeout >= timing.heartbeat * 2 + round_trip
            && timing.quorum_timeout >= timing.heartbeat + timing.retry + round_trip
            && timing.disk_stall_timeout >= self.write_longest() * 2
            && timing.forward_timeout >= queue * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(figures: Figures, options: &Options, planned: bool) -> Vec<&'static str> {
        let measures = figures.measures(options, planned).into_iter();
        measures.filter(Measure::is_over).map(|measure| measure.name).collect()
    }

    #[test]
    fn a_run_within_its_budgets_is_over_none_and_each_of_them_can_be_exceeded() {
        let options = Options::calm(1, 3);
        let second = Duration::from_secs(1);
        let fine = Figures {
            was_healed: true,
            first_answer: second,
            all_answers: second * 2,
            views: 2,
            carried_before: 100_000,
            carried: 200_000,
            payload: 50_000,
            ..Figures::default()
        };
        assert_eq!(over(fine, &options, false), Vec::<&str>::new());
        let slow = Figures { first_answer: second * 1000, ..fine };
        assert_eq!(over(slow, &options, false), ["rounds to the first answer after the heal"]);
        let slow = Figures { all_answers: second * 1000, ..fine };
        assert_eq!(over(slow, &options, false), ["rounds to the last answer after the heal"]);
        let restless = Figures { views: 1000, ..fine };
        assert_eq!(over(restless, &options, false), ["views after the heal"]);
        let stuck = Figures { stuck_for: second * 120, views: 40, ..slow };
        assert_eq!(over(stuck, &options, false), Vec::<&str>::new(), "it answers nobody, and its views back off");
        let restless = Figures { views: 80, ..stuck };
        assert_eq!(over(restless, &options, false), ["views of a stuck core for each that its time-outs allow"]);
        let loud = Figures { carried: 20_000_000, ..fine };
        assert_eq!(over(loud, &options, false), ["bytes after the heal for each byte and replica"]);
        let loud = Figures { carried_before: 20_000_000, carried: 20_000_000, ..fine };
        assert_eq!(over(loud, &options, false), ["bytes for each byte and replica without faults"]);
        let loud = Figures { beats_before: 1_000_000, before: second * 10, reasons_before: 1000, ..fine };
        assert_eq!(over(loud, &options, false), ["heartbeats and pings for each that is due without faults"]);
        let restless = Figures { views_before: 1, ..fine };
        assert_eq!(over(restless, &options, false), ["views without faults"]);
        assert_eq!(over(restless, &options, true), Vec::<&str>::new(), "its faults were written down");
        let with_faults = Options { crash_every: second, ..options };
        assert_eq!(over(restless, &with_faults, false), Vec::<&str>::new());
    }

    #[test]
    fn a_core_may_take_as_long_as_its_budget_says() {
        let mut options = Options::calm(1, 3);
        options.delay_spread = Duration::from_millis(40);
        options.requests = 900;
        for outside in 0..2 {
            let all_answers = options.time_to_serve(outside);
            let figures = Figures { was_healed: true, outside, all_answers, ..Figures::default() };
            assert_eq!(over(figures, &options, false), Vec::<&str>::new());
            let late = Figures { all_answers: all_answers + Duration::from_secs(1), ..figures };
            assert_eq!(over(late, &options, false), ["rounds to the last answer after the heal"]);
            assert!(all_answers > options.liveness);
        }
    }

    #[test]
    fn time_outs_that_do_not_fit_the_world_are_not_patient() {
        let mut options = Options::calm(1, 3);
        assert!(options.is_patient());
        options.delay_spread = Duration::from_millis(300);
        assert!(!options.is_patient());
    }

    #[test]
    fn what_a_seed_draws_fits_its_world_but_for_queues() {
        let drawn = (0..2000).map(Options::from_seed).filter(|options| options.limits.timing != vsr::Timing::default());
        let mut patient = (0, 0);
        for options in drawn {
            patient.0 += u32::from(options.is_patient());
            patient.1 += 1;
        }
        assert!(patient.0 * 10 > patient.1 * 6, "{patient:?}");
    }
}
