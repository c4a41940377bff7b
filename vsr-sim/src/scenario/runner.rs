//! Plays a scenario, line by line.

use std::fmt::Write;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::condition::Condition;
use super::parse::{Words, write_fault, write_happening};
use super::{Failure, Played, Speak, base};
use crate::faults::{Fault, TimedFault};
use crate::options::{Options, parse_duration};
use crate::report::timeline::What;
use crate::report::{Detail, Verdict, describe};
use crate::run::{Run, Simulation};
use crate::workload::{Registers, Simulated, Step, machine_name};
use crate::world::{Flag, Life, Planned, lock};

/// What a line may begin with.
const COMMANDS: &str = "machine, cluster, request, load, tick, until, expect, crash, restart, pause, suspend, resume, skew-clock, \
    leap-clock, peer-down, partition, cut, mend, heal, clog, mute, hold, lose, release, deliver, stop, forget, corrupt, stall-disk, \
    release-disk, slow-disk, fill-disk, no-space, bad-sector, wipe, recover, copy-disk, restore-disk, impostor, at, drop, again, flip, misdeliver, crash-after, write, read, \
    maybe, settle, go, check, show, trace";

/// What is planned, and so may come about or not.
const PLANNED: [&str; 8] = ["at", "drop", "again", "flip", "misdeliver", "crash-after", "write", "read"];

/// How long `until` waits, and `settle`: twenty time-outs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Player<'a, S: Simulated> {
    simulation: &'a Simulation<S>,
    speak: Speak<S>,
    run: Option<Run<S>>,
    /// What `check` and `go` found, beside what the checkers see.
    verdict: Option<Verdict>,
    shown: usize,
    level: Detail,
    /// The machine that the file names.
    machine: Option<String>,
    /// Faults that were written down, with their lines, and have to come about.
    planned: Vec<(usize, Fault)>,
}

/// A command with its place, and what the file says that it shows.
struct Line<'a> {
    number: usize,
    command: &'a str,
    expected: Vec<(usize, &'a str)>,
}

/// Why a line cannot be followed.
enum Wrong {
    Unreadable(String),
    Unmet(String),
}

impl From<String> for Wrong {
    fn from(why: String) -> Wrong {
        Wrong::Unreadable(why)
    }
}

impl Wrong {
    fn at(self, line: usize) -> Failure {
        match self {
            Wrong::Unreadable(why) => Failure::Unreadable { line, why },
            Wrong::Unmet(why) => Failure::Unmet { line, why },
        }
    }
}

pub(super) fn play<S: Simulated>(simulation: &Simulation<S>, text: &str, speak: Speak<S>) -> Played {
    let compared = text.lines().any(|line| line.starts_with('>'));
    let mut player = Player {
        simulation,
        speak,
        run: None,
        verdict: None,
        shown: 0,
        level: Detail::Events,
        machine: None,
        planned: Vec::new(),
    };
    let (mut output, mut failure) = (String::new(), None);
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
    while let Some((number, line)) = lines.next() {
        let _ = writeln!(output, "{line}");
        let command = line.trim();
        if command.is_empty() || command.starts_with('#') || line.starts_with('>') {
            continue;
        }
        let mut expected = Vec::new();
        while let Some((number, shown)) = lines.next_if(|(_, line)| line.starts_with('>')) {
            expected.push((number, shown));
        }
        if failure.is_some() {
            expected.iter().for_each(|(_, line)| _ = writeln!(output, "{line}"));
            continue;
        }
        let line = Line { number, command, expected };
        let result = player.command(&line);
        let shown = player.show_new();
        shown.iter().for_each(|line| _ = writeln!(output, "{line}"));
        let violation_is_next = lines
            .clone()
            .map(|(_, line)| line.trim())
            .find(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with('>'))
            .is_some_and(expects_violation);
        let violated = player.violation().filter(|_| !violation_is_next && !expects_violation(command));
        failure = result.err();
        if failure.is_none()
            && let Some(verdict) = violated
        {
            failure = Some(Failure::Violated { line: number, class: verdict.class(), why: verdict.to_string() });
        }
        if failure.is_none() && compared {
            failure = differs(&line, &shown);
        }
    }
    if player.run.is_none() {
        let why = "there is no cluster: a scenario begins with `cluster 3`".to_owned();
        failure.get_or_insert(Failure::Unreadable { line: 1, why });
    }
    // A fault that was to happen and did not: what the story was to prove is not proven.
    if failure.is_none() && player.violation().is_none() {
        failure = player.never_happened();
    }
    let verdict = player.violation().or(player.verdict).unwrap_or(Verdict::Pass);
    let run = player.run.unwrap_or_else(|| Run::new(Simulation { options: base(1), ..simulation.clone() }));
    Played { text: output, failure, report: run.report(verdict) }
}

/// Whether a command is about a property that is to be broken.
fn expects_violation(command: &str) -> bool {
    command.starts_with("expect violation") || command.starts_with("until violation")
}

/// The first line that shows something else than was expected.
fn differs(line: &Line<'_>, shown: &[String]) -> Option<Failure> {
    let expected = line.expected.iter().map(|(number, text)| (*number, (*text).to_owned()));
    let nothing = (line.number, String::new());
    let mut pairs =
        expected.chain(std::iter::repeat(nothing)).zip(shown.iter().cloned().chain(std::iter::repeat(String::new())));
    let count = line.expected.len().max(shown.len());
    pairs
        .by_ref()
        .take(count)
        .find(|((_, expected), found)| expected != found)
        .map(|((number, expected), found)| Failure::Differs { line: number, expected, found })
}

impl<S: Simulated> Player<'_, S> {
    fn violation(&self) -> Option<Verdict> {
        let seen = self.run.as_ref().and_then(Run::violation);
        seen.or_else(|| self.verdict.clone()).filter(Verdict::is_failure)
    }

    /// The first planned fault that has not come about.
    fn never_happened(&self) -> Option<Failure> {
        let run = self.run.as_ref()?;
        let world = lock(&run.world);
        let mut happened: Vec<&Fault> = world.plan.happened.iter().collect();
        for (line, fault) in &self.planned {
            // One that was planned for a moment which had passed comes at once.
            let is_it = |other: &&Fault| match (fault, *other) {
                (Fault::At(due, what), Fault::At(at, done)) => at >= due && what == done,
                (planned, other) => planned == other,
            };
            match happened.iter().position(is_it) {
                // In its order: the first one of a kind is not to take the last one's place.
                Some(at) => _ = happened.remove(at),
                None => {
                    let text = write_fault(fault, world.replicas);
                    let why = format!("`{text}` never came about; remove it, or write `maybe` before it");
                    return Some(Failure::Unmet { line: *line, why });
                }
            }
        }
        None
    }

    /// What has been recorded since the last command.
    fn show_new(&mut self) -> Vec<String> {
        let Some(run) = &self.run else { return Vec::new() };
        let world = lock(&run.world);
        let records = world.trace.records();
        let wanted = |what: &What| match what {
            What::Sent { .. } | What::Delivered { .. } | What::Lost { .. } | What::Numbers { .. } => {
                self.level == Detail::Messages
            }
            What::Note { text } => {
                self.level == Detail::Messages || (self.level == Detail::Events && !text.contains("ignores a"))
            }
            _ => self.level != Detail::Counters,
        };
        let new = records.iter().skip(self.shown).filter(|record| wanted(&record.what));
        let lines = new.filter_map(|record| {
            let text = describe::line(record, records, world.replicas)?;
            let micros = record.at / 1000;
            Some(format!("> {:>8}.{} ms  {text}", micros / 1000, micros % 1000 / 100))
        });
        let lines = lines.collect();
        self.shown = records.len();
        lines
    }

    fn command(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        self.obey(line).map_err(|wrong| wrong.at(line.number))
    }

    fn obey(&mut self, line: &Line<'_>) -> Result<(), Wrong> {
        let options = self.run.as_ref().map(|run| &run.options);
        let (replicas, clients) =
            options.map_or((0, 0), |options| (options.replicas, options.clients + options.rogues));
        let mut words = Words::new(line.command, replicas, clients);
        let words = &mut words;
        let mut verb = words.next("a command")?;
        match verb {
            "machine" => return self.machine(words).map_err(Wrong::Unreadable),
            "cluster" => {
                self.is_for_this_machine()?;
                return self.cluster(words).map_err(Wrong::Unreadable);
            }
            _ if self.run.is_none() => {
                let why = "the first command is `cluster N`, with at most `machine NAME` before it";
                return Err(Wrong::Unreadable(why.to_owned()));
            }
            "until" | "expect" => return self.condition(verb, words, line.command),
            _ => {}
        }
        let is_sure = verb != "maybe";
        if !is_sure {
            verb = words.next("a planned fault")?;
            if !PLANNED.contains(&verb) {
                let planned = PLANNED.join(", ");
                return Err(Wrong::Unreadable(format!("{verb} is not planned; what may come about is {planned}")));
            }
        }
        match verb {
            "request" => {
                let node = words.node()?;
                let step = (self.speak)(&words.rest())?;
                self.request(node, step).map_err(Wrong::Unmet)?;
            }
            "load" => self.load(),
            "tick" => self.tick(words.nanos()?),
            "hold" | "lose" => self.add_rule(verb, words)?,
            "release" | "deliver" | "forget" | "stop" => self.follow_rule(verb, words)?,
            "settle" => self.settle().map_err(Wrong::Unmet)?,
            "go" => self.go(),
            "check" => self.check(),
            "show" => self.show(),
            "trace" => self.level = level(words)?,
            _ => self.fault(verb, is_sure, line.number, words)?,
        }
        words.end()?;
        if let Some(run) = &mut self.run {
            run.poll_ready();
        }
        Ok(())
    }

    /// `until` and `expect`.
    fn condition(&mut self, verb: &str, words: &mut Words<'_>, command: &str) -> Result<(), Wrong> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let condition = Condition::read(words)?;
        let mut patience = PATIENCE;
        if words.peek() == Some("within") {
            if verb == "expect" {
                return Err(Wrong::Unreadable("`expect` is of this moment; write `until … within …`".to_owned()));
            }
            words.maybe();
            patience = parse_duration(words.next("a time")?)?;
        }
        words.end()?;
        if verb == "until" {
            let end = lock(&run.world).now + patience.as_nanos() as u64;
            run.advance(end, |run| condition.holds(run));
        }
        if let Condition::Violation(name) = &condition {
            let class = self.violation().map(|verdict| verdict.class());
            let met = class.is_some_and(|class| name.as_ref().is_none_or(|name| name == class));
            let found = class.unwrap_or("no property is broken");
            return if met { Ok(()) } else { Err(Wrong::Unmet(format!("{command} does not hold: {found}"))) };
        }
        if condition.holds(run) || run.violation().is_some() {
            return Ok(());
        }
        let all: Vec<usize> = (0..run.options.replicas).collect();
        let why = run.explain(&all);
        Err(Wrong::Unmet(format!("{command} does not hold: {why}")))
    }

    fn load(&mut self) {
        let Some(run) = &mut self.run else { return };
        (0..run.options.clients).for_each(|client| run.put_to_work(client));
        (0..run.options.rogues).for_each(|rogue| run.let_loose(rogue));
    }

    fn tick(&mut self, nanos: u64) {
        let Some(run) = &mut self.run else { return };
        let end = lock(&run.world).now + nanos;
        run.advance(end, |_| false);
    }

    /// `hold` and `lose`: a rule for messages begins.
    fn add_rule(&mut self, verb: &str, words: &mut Words<'_>) -> Result<(), String> {
        let Some(run) = &self.run else { return Ok(()) };
        let name = words.next("a name")?.to_owned();
        let filter = words.filter()?;
        lock(&run.world).links.add_rule(name, filter, verb == "hold");
        Ok(())
    }

    /// `release`, `deliver`, `forget` and `stop`: what waits under a rule, and what becomes of the rule.
    fn follow_rule(&mut self, verb: &str, words: &mut Words<'_>) -> Result<(), String> {
        let Some(run) = &self.run else { return Ok(()) };
        let name = words.next("a name")?;
        let times = if words.peek().is_some() { words.number("how often")? } else { 1 };
        if times > 1000 {
            return Err(format!("{times} times is too often; 1000 are enough"));
        }
        let mut world = lock(&run.world);
        let held = world.links.held(name).map(<[_]>::to_vec);
        let held = held.ok_or_else(|| format!("nothing is held or lost under the name {name}"))?;
        match verb {
            "deliver" => {}
            "stop" => world.links.stop_rule(name),
            _ => world.links.remove_rule(name),
        }
        let times = if matches!(verb, "forget" | "stop") { 0 } else { times };
        for _ in 0..times {
            held.iter().for_each(|delivery| world.hand_over(delivery.clone()));
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let all: Vec<usize> = (0..run.options.replicas).collect();
        run.heal(&all);
        let end = lock(&run.world).now + PATIENCE.as_nanos() as u64;
        run.advance(end, |run| Condition::Settled.holds(run) && run.clients_are_done());
        lock(&run.world).faults_on = true;
        if run.violation().is_none() && !(Condition::Settled.holds(run) && run.clients_are_done()) {
            return Err(format!("twenty time-outs were not enough: {}", run.explain(&all)));
        }
        Ok(())
    }

    fn go(&mut self) {
        let Some(run) = &mut self.run else { return };
        let until = run.options.safety.as_nanos() as u64;
        run.advance(until, Run::clients_are_done);
        let verdict = run.violation().unwrap_or_else(|| run.liveness());
        self.verdict = Some(verdict);
    }

    fn check(&mut self) {
        let Some(run) = &self.run else { return };
        self.verdict = run.check_history().map(Verdict::Safety).or(self.verdict.take());
    }

    fn show(&mut self) {
        let Some(run) = &self.run else { return };
        let lines: Vec<String> = (0..run.options.replicas).map(|replica| describe_replica(run, replica)).collect();
        let mut world = lock(&run.world);
        lines.into_iter().enumerate().for_each(|(replica, line)| world.say(replica, || line));
    }

    /// A fault: one that is planned, or one that happens now.
    fn fault(&mut self, verb: &str, is_sure: bool, number: usize, words: &mut Words<'_>) -> Result<(), Wrong> {
        let Some(faults) = words.planned(verb)? else {
            let happenings = words.happening(verb)?;
            let happenings = happenings.ok_or_else(|| format!("{verb} is not a command; there are {COMMANDS}"))?;
            return self.happen(happenings).map_err(Wrong::Unmet);
        };
        let Some(run) = &self.run else { return Ok(()) };
        let mut world = lock(&run.world);
        for fault in faults {
            world.plan.add(&fault);
            if is_sure {
                self.planned.push((number, fault.clone()));
            }
            if let Fault::At(at, happening) = fault {
                world.plan(at, Planned::TimedFault(happening));
            }
        }
        Ok(())
    }

    fn machine(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        if self.run.is_some() || self.machine.is_some() {
            return Err("the machine is named once, before `cluster`".to_owned());
        }
        self.machine = Some(words.next("the name of a state machine")?.to_owned());
        words.end()?;
        self.is_for_this_machine()
    }

    /// A scenario says something of one state machine: another one passes, or fails, for nothing.
    fn is_for_this_machine(&self) -> Result<(), String> {
        let (own, default) = (machine_name::<S>(), machine_name::<Registers>());
        match &self.machine {
            Some(named) if *named == own => Ok(()),
            None if own == default => Ok(()),
            Some(named) if own == default => Err(format!(
                "this scenario is for the state machine {named}, and here is {own}; play it in the test of {named}, with \
                 `SimTest::play`"
            )),
            Some(named) => Err(format!("this scenario is for the state machine {named}; here is {own}")),
            None => Err(format!(
                "this scenario names no state machine, so it is for {default}, and here is {own}; if it is for {own}, write \
                 `machine {own}` before `cluster`"
            )),
        }
    }

    fn cluster(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        if self.run.is_some() {
            return Err("there is a cluster already".to_owned());
        }
        let replicas = usize::try_from(words.number("the number of replicas")?).unwrap_or(0);
        if !(1..=9).contains(&replicas) {
            return Err("a cluster has 1 to 9 replicas".to_owned());
        }
        let mut options = base(replicas);
        while let Some(word) = words.maybe() {
            let (name, value) =
                word.split_once('=').ok_or_else(|| format!("{word} is not an option; options are NAME=VALUE"))?;
            options.set_load(name, value)?;
        }
        options.validate()?;
        // With a class of faults on, the seed draws them; else nothing happens but what the file says.
        let faults = (options == options.without_faults()).then(Vec::new);
        let simulation = Simulation { options, faults, detail: Detail::Messages, ..self.simulation.clone() };
        let mut run = Run::new(simulation);
        (0..replicas).for_each(|replica| run.start(replica));
        (0..run.options.clients).for_each(|client| run.add_client(client));
        (0..run.options.rogues).for_each(|rogue| run.add_rogue(rogue));
        run.plan_faults(&[]);
        run.poll_ready();
        // From the start on the replicas know each other: the story begins with a cluster that serves.
        self.shown = 0;
        self.run = Some(run);
        Ok(())
    }

    fn happen(&mut self, happenings: Vec<TimedFault>) -> Result<(), String> {
        let Some(run) = &mut self.run else { return Ok(()) };
        for happening in happenings {
            if !run.carry_out(&happening) {
                let text = write_happening(&happening, run.options.replicas);
                return Err(format!("`{text}` has no effect; what it needs is not there, or has happened already"));
            }
        }
        Ok(())
    }

    fn request(&mut self, node: usize, step: Step<S::Command, S::Query>) -> Result<(), String> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let replicas = run.options.replicas;
        if let Some(at) = node.checked_sub(replicas) {
            let Some((life, client)) = run.clients.get(at).cloned() else {
                return Err(format!(
                    "c{at} asks what it likes, against the rules; only c0 and its like are told what to ask"
                ));
            };
            let life = Life { flag: Arc::new(Flag::default()), ..life };
            let mut worker = run.worker(life, (at * 8) as u64);
            let recorder = run.recorder.clone();
            recorder.lock().unwrap_or_else(PoisonError::into_inner).active += 1;
            let task = async move {
                worker.ask_client(&client, step, Duration::from_secs(1_000_000)).await;
                recorder.lock().unwrap_or_else(PoisonError::into_inner).active -= 1;
                None
            };
            run.spawn(node, Box::pin(task));
            return Ok(());
        }
        let handle = run.handles[node].clone().ok_or_else(|| format!("r{node} is down"))?;
        let life = Life { world: run.world.clone(), node, life: 0, flag: Arc::new(Flag::default()) };
        let mut worker = run.worker(life, 1000 + node as u64);
        let task = async move {
            worker.ask_handle(&handle, step).await;
            None
        };
        run.spawn(node, Box::pin(task));
        Ok(())
    }
}

/// How much is shown from here on.
fn level(words: &mut Words<'_>) -> Result<Detail, String> {
    match words.next("quiet, events or messages")? {
        "quiet" => Ok(Detail::Counters),
        "events" => Ok(Detail::Events),
        "messages" => Ok(Detail::Messages),
        word => Err(format!("{word} is not a level; there are quiet, events and messages")),
    }
}

fn describe_replica<S: Simulated>(run: &Run<S>, replica: usize) -> String {
    let Some(status) = run.handles[replica].as_ref().map(vsr::Handle::status) else {
        return format!("r{replica}: down");
    };
    let role = match (status.normal, status.is_primary) {
        (true, true) => "primary",
        (true, false) => "backup",
        (false, _) => "waiting",
    };
    let (view, head, commit, applied) = (status.view, status.head, status.commit, status.applied);
    format!("r{replica}: {role}, view {view}, head {head}, commit {commit}, applied {applied}")
}

impl Options {
    /// As [`set`](Options::set), with the load and the clients, too.
    fn set_load(&mut self, name: &str, text: &str) -> Result<(), String> {
        let number = || text.parse::<u32>().map_err(|_| format!("{name}={text} is not a number"));
        match name {
            "clients" => self.clients = number()? as usize,
            "requests" => self.requests = number()?,
            "queries" => self.queries_percent = number()?.into(),
            "handles" => self.handles = text.parse().map_err(|_| format!("{name}={text}: true or false"))?,
            _ => return self.set(name, text),
        }
        Ok(())
    }
}
