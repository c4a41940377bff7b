//! A made-up run that looks like a real one, of any length: three replicas, two clients, losses, duplicates, partitions and crashes.

use std::collections::BTreeMap;

use vsr_sim::report::timeline::{Breach, CLUSTER, Lane, Record, State, Timeline, What};

const MS: u64 = 1_000_000;
const REPLICAS: u32 = 3;
const CLIENTS: u32 = 2;

/// What is to happen.
#[derive(Clone)]
enum Next {
    Arrive(u32),
    Ask(u32),
    Retry(u32, u32),
    Beat,
    Trouble,
    Restart(u32),
    Heal,
    Suspect(u32),
}

#[derive(Default)]
struct Replica {
    view: u64,
    head: u64,
    commit: u64,
    normal: bool,
    up: bool,
}

/// A message's numbers, by the record that sent it.
#[derive(Clone, Copy)]
struct Body {
    to: u32,
    kind: &'static str,
    view: u64,
    op: u64,
}

#[derive(Default)]
struct World {
    now: u64,
    random: u64,
    records: Vec<Record>,
    queue: BTreeMap<(u64, u64), (Next, Option<u32>)>,
    queued: u64,
    replicas: Vec<Replica>,
    bodies: BTreeMap<u32, Body>,
    oks: BTreeMap<u64, u32>,
    votes: BTreeMap<(u64, &'static str), u32>,
    /// The open operation of each client, and the op that holds it.
    asked: BTreeMap<u32, (u32, u64)>,
    isolated: Option<u32>,
}

/// A timeline of about so many records, with a violation in it.
pub(crate) fn timeline(records: usize) -> Timeline {
    let mut world = World { random: 0x5eed, ..World::default() };
    for lane in 0..REPLICAS {
        world.replicas.push(Replica { normal: true, up: true, ..Replica::default() });
        world.status(lane, State::Normal, None);
    }
    world.later(MS, Next::Beat, None);
    world.later(70 * MS, Next::Trouble, None);
    (0..CLIENTS).for_each(|client| world.later(MS * u64::from(1 + client), Next::Ask(REPLICAS + client), None));
    while world.records.len() < records {
        let Some(((now, _), (next, cause))) = world.queue.pop_first() else { break };
        world.now = now;
        world.step(next, cause);
    }
    world.finish()
}

impl World {
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn later(&mut self, delay: u64, next: Next, cause: Option<u32>) {
        self.queued += 1;
        self.queue.insert((self.now + delay, self.queued), (next, cause));
    }

    fn record(&mut self, lane: u32, cause: Option<u32>, what: What) -> u32 {
        self.records.push(Record { at: self.now, lane, cause, what });
        self.records.len() as u32 - 1
    }

    fn status(&mut self, lane: u32, state: State, cause: Option<u32>) {
        let view = self.replicas[lane as usize].view;
        let primary = state == State::Normal && view % u64::from(REPLICAS) == u64::from(lane);
        self.record(lane, cause, What::Status { view, state, primary });
    }

    fn numbers(&mut self, lane: u32, cause: Option<u32>) -> u32 {
        let Replica { head, commit, .. } = self.replicas[lane as usize];
        self.record(lane, cause, What::Numbers { head, commit })
    }

    fn send(&mut self, from: u32, to: u32, kind: &'static str, view: u64, op: u64, cause: Option<u32>) {
        let text =
            format!("{kind} view {view} op {op} (9f3a{op:04x} on 77c1{view:04x}) commit {}", op.saturating_sub(1));
        let sent = self.record(from, cause, What::Sent { to, kind, text });
        self.bodies.insert(sent, Body { to, kind, view, op });
        let delay = 700_000 + self.draw(2 * MS) + if self.draw(40) == 0 { 12 * MS } else { 0 };
        self.later(delay, Next::Arrive(sent), None);
        if self.draw(40) == 0 {
            self.later(delay + 2 * MS, Next::Arrive(sent), None);
        }
    }

    fn broadcast(&mut self, from: u32, kind: &'static str, view: u64, op: u64, cause: Option<u32>) {
        (0..REPLICAS).filter(|to| *to != from).for_each(|to| self.send(from, to, kind, view, op, cause));
    }

    fn step(&mut self, next: Next, cause: Option<u32>) {
        match next {
            Next::Arrive(sent) => self.arrive(sent),
            Next::Ask(client) => {
                let text = format!("put k{}={}", self.draw(9), self.draw(100));
                let asked = self.record(client, cause, What::Asked { text });
                self.asked.insert(client, (asked, 0));
                self.step(Next::Retry(client, asked), Some(asked));
            }
            Next::Retry(client, asked) => {
                if self.asked.get(&client).is_some_and(|open| open.0 == asked) {
                    let view = self.replicas.iter().map(|replica| replica.view).max().unwrap_or(0);
                    self.send(client, (view % u64::from(REPLICAS)) as u32, "Requests", view, 0, cause);
                    self.later(25 * MS, Next::Retry(client, asked), Some(asked));
                }
            }
            Next::Beat => {
                for lane in 0..REPLICAS {
                    let Replica { view, head, commit, normal, up } = self.replicas[lane as usize];
                    if up && !normal {
                        self.vote(lane, "DoViewChange", view, head, None);
                    } else if up && view % u64::from(REPLICAS) == u64::from(lane) {
                        self.broadcast(lane, "Commit", view, commit, None);
                    }
                }
                self.later(15 * MS, Next::Beat, None);
            }
            Next::Trouble => self.trouble(),
            Next::Heal => self.isolated = None,
            Next::Restart(lane) => {
                let text = format!("restart {} (torn tail)", name(lane));
                let fault = self.record(lane, cause, What::Fault { text, until: None });
                self.replicas[lane as usize].up = true;
                self.status(lane, State::Normal, Some(fault));
                self.numbers(lane, Some(fault));
            }
            Next::Suspect(lane) => {
                let view = self.replicas[lane as usize].view + 1;
                self.leave(lane, view, cause);
            }
        }
    }

    fn trouble(&mut self) {
        let lane = self.draw(u64::from(REPLICAS)) as u32;
        let length = (20 + self.draw(40)) * MS;
        if self.draw(2) == 0 {
            let text = format!("partition {} | the others", name(lane));
            let until = Some(self.now + length);
            let fault = self.record(CLUSTER, None, What::Fault { text, until });
            self.isolated = Some(lane);
            self.later(length, Next::Heal, None);
            self.later(12 * MS, Next::Suspect((lane + 1) % REPLICAS), Some(fault));
        } else {
            let text = format!("crash {}", name(lane));
            let fault = self.record(lane, None, What::Fault { text, until: None });
            let replica = &mut self.replicas[lane as usize];
            replica.up = false;
            replica.head = replica.head.saturating_sub(1).max(replica.commit);
            self.status(lane, State::Down, Some(fault));
            self.later(length, Next::Restart(lane), Some(fault));
            self.later(10 * MS, Next::Suspect((lane + 1) % REPLICAS), Some(fault));
        }
        self.later(300 * MS, Next::Trouble, None);
    }

    fn leave(&mut self, lane: u32, view: u64, cause: Option<u32>) {
        let replica = &mut self.replicas[lane as usize];
        if !replica.up || view <= replica.view {
            return;
        }
        (replica.view, replica.normal) = (view, false);
        let head = replica.head;
        self.status(lane, State::ViewChange, cause);
        self.broadcast(lane, "StartViewChange", view, 0, cause);
        self.vote(lane, "DoViewChange", view, head, cause);
    }

    fn vote(&mut self, lane: u32, kind: &'static str, view: u64, head: u64, cause: Option<u32>) {
        let primary = (view % u64::from(REPLICAS)) as u32;
        if primary == lane {
            *self.votes.entry((view, kind)).or_default() += 1;
        } else {
            self.send(lane, primary, kind, view, head, cause);
        }
    }

    fn arrive(&mut self, sent: u32) {
        let Body { to, kind, view, op } = self.bodies[&sent];
        let from = self.records[sent as usize].lane;
        let cut = self.isolated.is_some_and(|lane| from < REPLICAS && (lane == from || lane == to));
        let down = to < REPLICAS && !self.replicas[to as usize].up;
        if cut || down || self.draw(60) == 0 {
            let why = if cut {
                "partition"
            } else if down {
                "receiver is down"
            } else {
                "dropped"
            };
            self.record(to, None, What::Lost { sent, why });
            return;
        }
        let cause = Some(self.record(to, None, What::Delivered { sent }));
        if to >= REPLICAS {
            if self.asked.get(&to).is_some_and(|open| open.1 == op) {
                let (asked, _) = self.asked.remove(&to).unwrap_or_default();
                self.record(to, cause, What::Heard { asked, text: format!("op {op}") });
                let pause = MS / 2 + self.draw(4 * MS);
                self.later(pause, Next::Ask(to), cause);
            }
            return;
        }
        self.receive(from, to, kind, view, op, cause);
    }

    fn receive(&mut self, from: u32, to: u32, kind: &'static str, view: u64, op: u64, cause: Option<u32>) {
        let mine = self.replicas[to as usize].view;
        let leads = mine % u64::from(REPLICAS) == u64::from(to);
        if kind != "Requests" && view > mine {
            if kind == "StartView" || kind == "Prepare" || kind == "Commit" {
                let replica = &mut self.replicas[to as usize];
                (replica.view, replica.normal) = (view, true);
                self.status(to, State::Normal, cause);
            } else {
                self.leave(to, view, cause);
            }
        }
        let replica = &mut self.replicas[to as usize];
        match kind {
            "Requests" if leads && replica.normal => {
                replica.head += 1;
                let (head, view) = (replica.head, replica.view);
                if let Some(open) = self.asked.get_mut(&from) {
                    open.1 = head;
                }
                self.numbers(to, cause);
                self.broadcast(to, "Prepare", view, head, cause);
            }
            "Prepare" if op == replica.head + 1 && view == replica.view => {
                replica.head = op;
                self.numbers(to, cause);
                self.send(to, from, "PrepareOk", view, op, cause);
            }
            "Prepare" | "Commit" if op > replica.head => {
                self.send(to, from, "RequestEntries", view, op, cause);
            }
            "Commit" if op > replica.commit => {
                replica.commit = op.min(replica.head);
                self.numbers(to, cause);
            }
            "RequestEntries" => self.send(to, from, "Entries", view, op, cause),
            "Entries" if op > replica.head => {
                replica.head = op;
                self.numbers(to, cause);
                self.send(to, from, "PrepareOk", view, op, cause);
            }
            "PrepareOk" if leads && op > replica.commit && op <= replica.head => {
                replica.commit = op;
                let oks = self.oks.entry(op).or_default();
                *oks += 1;
                self.numbers(to, cause);
                let waiting = self.asked.iter().find(|(_, open)| open.1 == op).map(|(client, _)| *client);
                if let Some(client) = waiting {
                    self.send(to, client, "Replies", view, op, cause);
                }
            }
            "StartViewChange" if !replica.normal => {
                let note = format!("vote {} for view {view}", name(from));
                self.record(to, cause, What::Note { text: note });
            }
            "DoViewChange" if leads && view == replica.view && !replica.normal => {
                replica.normal = true;
                replica.head = replica.head.max(op);
                let head = replica.head;
                self.status(to, State::Normal, cause);
                self.numbers(to, cause);
                self.broadcast(to, "StartView", view, head, cause);
            }
            "StartView" if view == replica.view => {
                replica.normal = true;
                replica.head = op.max(replica.commit);
                self.status(to, State::Normal, cause);
                self.numbers(to, cause);
            }
            _ => {}
        }
    }

    fn follows_an_ok(&self, index: usize) -> bool {
        let cause = self.records[index].cause.map(|cause| &self.records[cause as usize].what);
        matches!(cause, Some(What::Delivered { sent }) if self.bodies[sent].kind == "PrepareOk")
    }

    fn finish(self) -> Timeline {
        let noticed = (0..self.records.len() * 2 / 3).rev().find(|index| self.follows_an_ok(*index));
        let lanes = (0..REPLICAS + CLIENTS).map(|lane| Lane { name: name(lane), replica: lane < REPLICAS }).collect();
        let violation = noticed.map(|index| Breach {
            at: self.records[index].at,
            lane: Some(self.records[index].lane),
            checker: "committed-not-on-quorum".to_owned(),
            message: "op 7 was answered to c1, but is durable only on r1 (2 of r0, r1, r2 are needed)".to_owned(),
            record: Some(index as u32),
        });
        let count = |what: &str| self.records.iter().filter(|record| record.what.name() == what).count() as u64;
        Timeline {
            title: "seed 1729 · 3 replicas · crash, partition, duplicates".to_owned(),
            repeat: "cargo run -p vsr-sim -- 1729".to_owned(),
            verdict: "safety: committed-not-on-quorum: op 7 is durable only on r1".to_owned(),
            lanes,
            violation,
            counters: ["sent", "delivered", "lost", "fault"].map(|what| (what.to_owned(), count(what))).to_vec(),
            records: self.records,
        }
    }
}

fn name(lane: u32) -> String {
    if lane < REPLICAS { format!("r{lane}") } else { format!("c{}", lane - REPLICAS + 1) }
}
