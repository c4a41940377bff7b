//! What the log says of sessions is what becomes of requests (hazards I11, D14; rules 5.1 to 5.5).

use std::collections::{BTreeMap, BTreeSet};

use vsr::protocol::{
    Constants, Entry, Event, LoggedRequest, Message, OpNumber, Outcome, Position, Refusal, Reply, RequestKind,
    RequestNumber, SessionId,
};
use vsr::{Checksum, ClientId};

use super::table::{ByPosition, ByReplica};
use super::{Checker, Interests, Observation, Scene};

/// A table of its own, made from the bodies of the ops as they are applied first, says which sessions are open and which
/// commands execute. Whatever else a replica does is wrong: it executes what is a repeat, below the floor, beyond the window or
/// of a session that is not open; it leaves out what is new; it ends a session that is in use; it calls one gone that is open,
/// a number passed that is not, a reply lost that never was.
#[derive(Debug, Default)]
pub(super) struct SessionsFollowTheLog {
    table: BTreeMap<SessionId, Open>,
    by_client: BTreeMap<ClientId, SessionId>,
    /// The one longest unused first.
    by_use: BTreeSet<(Position, SessionId)>,
    /// Every op up to here was followed.
    followed: OpNumber,
    /// No disk has the content of the next op any more: nothing can be said from there on.
    is_lost: bool,
    /// Whether executions are told of at all.
    is_watched: bool,
    /// What was executed of ops that are not followed yet.
    seen: BTreeSet<Position>,
    /// What executes, by the log.
    due: ByPosition<()>,
    /// What each has told clients in this turn.
    told: ByReplica<Vec<Said>>,
}

#[derive(Debug)]
struct Open {
    client: ClientId,
    floor: RequestNumber,
    executed: BTreeSet<RequestNumber>,
    last_used: Position,
}

/// An answer that the table can judge.
#[derive(Clone, Copy, Debug)]
struct Said {
    client: ClientId,
    session: SessionId,
    number: RequestNumber,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Gone,
    Passed,
    ReplyLost,
}

impl Said {
    fn of(reply: &Reply) -> Option<Said> {
        let what = match reply.outcome {
            Outcome::Refused(Refusal::Evicted) => What::Gone,
            Outcome::Refused(Refusal::BelowFloor) => What::Passed,
            Outcome::ReplyLost => What::ReplyLost,
            _ => return None,
        };
        Some(Said { client: reply.client, session: reply.session, number: reply.number, what })
    }
}

impl Checker for SessionsFollowTheLog {
    fn name(&self) -> &'static str {
        "sessions-follow-the-log"
    }

    fn wants(&self) -> Interests {
        Interests::EXECUTED | Interests::APPLIED | Interests::ANSWERS | Interests::TURN | Interests::STARTED
    }

    fn observe(&mut self, scene: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        if self.is_lost {
            return Ok(());
        }
        match *observation {
            Observation::Started { replica } => self.told.of(replica).clear(),
            Observation::Executed { replica, position, command, .. } => {
                self.is_watched = true;
                if position.op > self.followed {
                    self.seen.insert(position);
                } else if !self.due.contains(position) {
                    return Err(format!(
                        "r{replica} executes command {command} at {position}, by the log nothing executes there"
                    ));
                }
            }
            Observation::Event { replica, core, event: Event::Applied { op, checksum } }
                if *op == self.followed.next() =>
            {
                match entry_of(scene, *op, *checksum) {
                    Some(entry) => return self.follow(replica, entry, &core.membership().constants),
                    None => self.is_lost = true,
                }
            }
            Observation::Sent { replica, message: Message::Replies { replies, .. } } => {
                self.told.of(replica).extend(replies.iter().filter_map(Said::of));
            }
            // In the middle of an op the table is ahead of what was seen to be applied.
            Observation::Turn { core, .. } if !core.is_between_ops() => {}
            Observation::Turn { replica, core } => {
                for said in std::mem::take(self.told.of(replica)) {
                    self.judge(replica, said)?;
                }
                let (open, sessions) = (self.table.len(), core.sessions());
                if core.applied() == self.followed && core.is_between_ops() && open != sessions {
                    let op = self.followed;
                    return Err(format!(
                        "r{replica} has {sessions} sessions after op {op}, by the log {open} are open"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// An op, from whichever disk has it.
fn entry_of(scene: &Scene<'_>, op: OpNumber, checksum: Checksum) -> Option<Entry> {
    let mut entries = scene.disks.iter().filter_map(|disk| disk.durable_entry(op));
    entries.find(|entry| entry.header.checksum() == checksum).cloned()
}

impl SessionsFollowTheLog {
    /// Does with an op what every replica must do, and compares what was done.
    fn follow(&mut self, replica: usize, entry: Entry, constants: &Constants) -> Result<(), String> {
        let op = entry.header.op;
        self.followed = op;
        for request in entry.into_requests() {
            let Ok((position, LoggedRequest { session, number, floor, kind })) = request else {
                self.is_lost = true;
                return Ok(());
            };
            match kind {
                RequestKind::Register(client) => self.register(position, client, constants),
                RequestKind::Command(command) => {
                    let (len, longest) = (command.len(), constants.request_max);
                    if len > longest as usize {
                        return Err(format!(
                            "r{replica} applies a command of {len} bytes at {position}, request_max is {longest}"
                        ));
                    }
                    if self.executes(position, session, number, floor, constants) {
                        self.due.get_or_put(position, ());
                    }
                }
            }
        }
        let later = self.seen.split_off(&Position { op: op.next(), index: 0 });
        let seen = std::mem::replace(&mut self.seen, later);
        if !self.is_watched {
            return Ok(());
        }
        if let Some(position) = seen.iter().find(|position| !self.due.contains(**position)) {
            return Err(format!("r{replica} has executed a command at {position}, by the log nothing executes there"));
        }
        let mut due = self.due.of(op).iter().map(|(index, ())| Position { op, index: *index });
        match due.find(|position| !seen.contains(position)) {
            Some(position) => {
                Err(format!("r{replica} has left out the command at {position}, by the log its number is new"))
            }
            None => Ok(()),
        }
    }

    /// A `Register` opens a session, evicts the one longest unused for it if that was idle for long enough, or is refused.
    fn register(&mut self, position: Position, client: ClientId, constants: &Constants) {
        if let Some(&session) = self.by_client.get(&client) {
            return self.use_at(session, position);
        }
        if self.table.len() >= constants.sessions_max as usize {
            let Some(&(last_used, idle)) = self.by_use.first() else { return };
            if position.op.0.saturating_sub(last_used.op.0) < constants.session_idle_min {
                return;
            }
            self.by_use.remove(&(last_used, idle));
            if let Some(gone) = self.table.remove(&idle) {
                self.by_client.remove(&gone.client);
            }
        }
        let session = SessionId(position);
        let open = Open { client, floor: RequestNumber(1), executed: BTreeSet::new(), last_used: position };
        self.table.insert(session, open);
        self.by_client.insert(client, session);
        self.by_use.insert((position, session));
    }

    /// Whether a command executes. The floor that it carries takes effect first, up to its own number.
    fn executes(
        &mut self,
        position: Position,
        session: SessionId,
        number: RequestNumber,
        floor: RequestNumber,
        constants: &Constants,
    ) -> bool {
        let Some(open) = self.table.get_mut(&session) else { return false };
        let floor = floor.min(number);
        if floor > open.floor {
            open.floor = floor;
            open.executed = open.executed.split_off(&floor);
        }
        let is_new = number >= open.floor
            && number.0 - open.floor.0 < u64::from(constants.window)
            && open.executed.insert(number);
        if is_new {
            self.use_at(session, position);
        }
        is_new
    }

    fn use_at(&mut self, session: SessionId, position: Position) {
        let Some(open) = self.table.get_mut(&session) else { return };
        self.by_use.remove(&(open.last_used, session));
        open.last_used = position;
        self.by_use.insert((position, session));
    }

    /// What a client was told, by the table as it is now: sessions never open again, floors never sink, and what was executed
    /// stays so.
    fn judge(&self, replica: usize, said: Said) -> Result<(), String> {
        let Said { client, session, number, what } = said;
        let Some(open) = self.table.get(&session) else {
            let applied = self.followed;
            return match what {
                What::Gone if session.0.op > applied => Err(format!(
                    "r{replica} tells {client} that session {session} is gone, no replica has applied more than op {applied}"
                )),
                _ => Ok(()),
            };
        };
        let (floor, last_used) = (open.floor, open.last_used);
        match what {
            // Whose it is not is told the same as whose it was.
            What::Gone if open.client == client => Err(format!(
                "r{replica} tells {client} that session {session} is gone, by the log it is open and was used at {last_used}"
            )),
            What::Passed if number >= floor => Err(format!(
                "r{replica} tells {client} that number {number} of session {session} is below the floor, that is {floor}"
            )),
            What::ReplyLost if number >= floor && !open.executed.contains(&number) => Err(format!(
                "r{replica} tells {client} that number {number} of session {session} was executed, by the log it was not"
            )),
            _ => Ok(()),
        }
    }
}
