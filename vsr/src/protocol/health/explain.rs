//! Why there is no progress: in one sentence for a person, as one [`Health`] for a program.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::core::Core;
use crate::protocol::log::log::LogSlot;
use crate::protocol::normal::progress::Progress;
use crate::protocol::types::life::{Distrust, Succession};
use crate::protocol::types::number::{CommitNumber, Monotonic, OpNumber, ReplicaId, nanos};
use crate::protocol::view_change::phase::Status;

/// Whether commands can commit, as far as one replica sees it, and what stands in the way if not. The primary
/// knows best: a cluster serves if its primary says [`Normal`](Health::Normal).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Health {
    /// The replica is being recovered from its disk.
    #[default]
    Starting,
    /// Nothing stands in the way.
    Normal,
    /// It has stopped; its error says why.
    Stopped,
    /// Its disk takes the place of a lost one, and does not count yet.
    Rejoining,
    /// Peers refuse this replica, and the rest is not a quorum.
    Refused,
    /// Too few members are heard to commit anything, or to change the view.
    NoQuorum,
    /// A write has been under way for longer than `timing.disk_stall_timeout`.
    DiskHangs,
    /// Disk or log have no room for further ops.
    NoRoom,
    /// The end of the log is damaged, and no primary has told the log anew yet.
    DamagedHead,
    /// No view has started, or the primary of this one has given it up.
    ViewChange,
    /// A committed op has no intact copy here yet.
    Repairing,
    /// What is missing here is in no log any more: a checkpoint of another member is fetched.
    Transferring,
    /// The primary is not heard, although a quorum is.
    PrimarySilent,
    /// Ops wait for their commit for longer than `timing.disk_stall_timeout`.
    Stalled,
}

impl Health {
    /// Whether nothing stands in the way.
    #[must_use]
    pub fn is_normal(self) -> bool {
        self == Health::Normal
    }

    /// Whether an operator has to look: it does not pass by itself within a view change.
    #[must_use]
    pub fn is_alarm(self) -> bool {
        use Health::{DiskHangs, NoQuorum, NoRoom, Refused, Stalled};
        matches!(self, Refused | NoQuorum | DiskHangs | NoRoom | Stalled)
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Health::Starting => "starting",
            Health::Normal => "normal",
            Health::Stopped => "stopped",
            Health::Refused => "refused by its peers",
            Health::Rejoining => "rejoining",
            Health::NoQuorum => "no quorum",
            Health::DiskHangs => "disk hangs",
            Health::NoRoom => "no room",
            Health::DamagedHead => "damaged log",
            Health::ViewChange => "view change",
            Health::Repairing => "repairing",
            Health::Transferring => "state transfer",
            Health::PrimarySilent => "primary silent",
            Health::Stalled => "stalled",
        })
    }
}

/// The peers that refuse a replica, each with its reason.
pub type Refusals = BTreeMap<ReplicaId, String>;

/// Since when ops wait for their commit. The moment moves on while none waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    commit: CommitNumber,
    since: Monotonic,
}

impl Stall {
    pub(crate) fn new(commit: CommitNumber, since: Monotonic) -> Stall {
        Stall { commit, since }
    }
}

impl Core {
    /// One sentence for a person who asks why nothing moves.
    #[must_use]
    pub fn explain(&self) -> String {
        self.explain_refused(&BTreeMap::new())
    }

    /// As [`explain`](Self::explain), where peers refuse this replica: only the transport knows of it.
    #[must_use]
    pub fn explain_refused(&self, refused_by: &Refusals) -> String {
        if let Some(halt) = &self.halted {
            return format!("stopped: {halt}");
        }
        // A refusal comes first: it is the cause of whatever else is missing, and only an operator can end it.
        let refused = refused_by.iter().map(|(by, why)| format!("refused by replica {}: {why}; ", by.0));
        let mut parts = vec![self.situation(refused_by)];
        parts.extend(self.obstacles());
        format!("{}view {}: {}", refused.collect::<String>(), self.view, parts.join("; "))
    }

    /// What stands in the way of commands, if anything does; the most telling of several.
    #[must_use]
    pub fn health(&self, refused_by: &Refusals) -> Health {
        let hears_primary = self.hears_primary();
        if self.halted.is_some() {
            Health::Stopped
        } else if self.is_shut_out(refused_by) {
            Health::Refused
        } else if !self.hears_quorum_with(hears_primary) {
            Health::NoQuorum
        } else if self.hung_write().is_some() {
            Health::DiskHangs
        } else if !self.has_room() {
            Health::NoRoom
        } else if !self.counts_in_quorums() {
            Health::Rejoining
        } else if !self.head_certain {
            Health::DamagedHead
        } else if self.needs_transfer() || self.transfer().is_some() {
            Health::Transferring
        } else if self.status() == Status::ViewChange || self.is_abdicating() {
            Health::ViewChange
        } else if self.missing_op().is_some() {
            Health::Repairing
        } else if !hears_primary {
            Health::PrimarySilent
        } else if self.commit_stalled() >= self.options.timing.disk_stall_timeout {
            Health::Stalled
        } else {
            Health::Normal
        }
    }

    /// For how long the oldest op that waits for its commit has waited, roughly; zero when none waits.
    #[must_use]
    pub fn commit_stalled(&self) -> Duration {
        self.now.since(self.stall.since)
    }

    /// For how long the write under way has been; zero without one.
    #[must_use]
    pub fn write_age(&self) -> Duration {
        self.writes.in_flight.map_or(Duration::ZERO, |(_, since)| self.now.since(since))
    }

    /// Bytes that the log can still take, by its own limit and by what its storage says.
    #[must_use]
    pub fn log_room(&self) -> u64 {
        self.writes.room.min(self.options.log_bytes_max.saturating_sub(self.log.bytes()))
    }

    /// Whether enough members are heard: for a primary, those that confirm its view; for others, a primary that
    /// has a quorum, or those that could change the view.
    #[must_use]
    pub fn hears_quorum(&self) -> bool {
        self.hears_quorum_with(self.hears_primary())
    }

    fn hears_quorum_with(&self, hears_primary: bool) -> bool {
        if self.is_primary() {
            return self.confirmations() >= usize::from(self.membership.quorums.replication);
        }
        // A primary without a quorum stops its heartbeats.
        let follows = self.status() == Status::Normal && hears_primary;
        follows || self.heard() >= usize::from(self.membership.quorums.view_change)
    }

    /// Called at the end of each turn.
    pub(crate) fn note_stall(&mut self) {
        let waits = self.log.head() > self.commit.op() || !self.primary.queue.is_empty();
        if !waits || self.commit != self.stall.commit {
            self.stall = Stall::new(self.commit, self.now);
        }
    }

    /// How recently a member has to be heard, in nanoseconds: three pings, so that one lost ping raises no alarm.
    fn hearing(&self) -> u64 {
        nanos(self.options.timing.primary_timeout).max(nanos(self.options.timing.ping).saturating_mul(3))
    }

    fn is_heard(&self, member: &Progress) -> bool {
        self.is_heard_within(member, self.hearing())
    }

    fn is_heard_within(&self, member: &Progress, hearing: u64) -> bool {
        let heard_at = member.heard_at;
        member.id == self.id || (heard_at > Monotonic(0) && self.now.nanos_since(heard_at) < hearing)
    }

    /// Members that are heard and whose word counts, this one included.
    fn heard(&self) -> usize {
        let hearing = self.hearing();
        let is_of_account = |member: &Progress| {
            if member.id == self.id { self.counts_in_quorums() } else { !is_of_no_account(member) }
        };
        let heard = |member: &&Progress| self.is_heard_within(member, hearing) && is_of_account(member);
        self.progress.iter().filter(heard).count()
    }

    /// Members that have confirmed this primary's view lately, itself included.
    fn confirmations(&self) -> usize {
        let timeout = nanos(self.options.timing.quorum_timeout);
        let recent = |when: Monotonic| self.now.nanos_since(when) < timeout;
        self.progress.iter().filter(|member| member.id == self.id || recent(member.confirmed_at)).count()
    }

    fn hears_primary(&self) -> bool {
        let primary = self.primary_id();
        if primary == self.id {
            return true;
        }
        let Some(primary) = self.progress.get(primary) else { return false };
        let hearing = self.hearing();
        self.is_heard_within(primary, hearing) && self.now.nanos_since(self.backup.heard_at) < hearing
    }

    fn is_shut_out(&self, refused_by: &Refusals) -> bool {
        if refused_by.is_empty() {
            return false;
        }
        let left = self.membership.size().saturating_sub(refused_by.len());
        let too_few = left < usize::from(self.membership.quorums.view_change);
        too_few || !self.hears_quorum()
    }

    fn hung_write(&self) -> Option<Duration> {
        let age = self.write_age();
        (age >= self.options.timing.disk_stall_timeout).then_some(age)
    }

    /// Room for a few ops is always kept back: without it requests are refused, the longest first.
    fn has_room(&self) -> bool {
        self.has_room_for_ops()
    }

    /// A committed op that is not here, and cannot be applied.
    fn missing_op(&self) -> Option<OpNumber> {
        let next = self.applied.next();
        (next.is_committed(self.commit) && !self.holds(next)).then_some(next)
    }

    /// What the replica is doing. It says "normal" only if no peer refuses it, and [`obstacles`](Self::obstacles) are none.
    fn situation(&self, refused_by: &Refusals) -> String {
        if let Some(rejoins) = self.explain_rejoin() {
            return rejoins;
        }
        if !self.head_certain {
            return format!(
                "the end of this replica's log is damaged; waiting for {} to answer with its StartView",
                self.primary_id()
            );
        }
        if self.needs_transfer() || self.transfer().is_some() {
            return self.explain_transfer();
        }
        match self.status() {
            Status::ViewChange => self.explain_view_change(),
            Status::Normal if self.is_abdicating() && !self.hears_quorum() => "primary without a quorum".to_owned(),
            Status::Normal if self.is_abdicating() => "primary, but it gives up the role".to_owned(),
            Status::Normal => {
                let role = if self.is_primary() { "primary" } else { "backup" };
                if let Some(op) = self.missing_op() {
                    format!("op {op} is committed, and no intact copy has been found yet")
                } else if self.applied.next().is_committed(self.commit) {
                    format!("{role}, applying op {} of {}", self.applied.next(), self.commit)
                } else if refused_by.is_empty() && self.obstacles().is_empty() {
                    format!("normal, {} of {} ops applied", self.applied, self.commit)
                } else {
                    format!("{role}, {} of {} ops applied", self.applied, self.commit)
                }
            }
        }
    }

    /// What a disk waits for that takes the place of a lost one (rule 7.19).
    fn explain_rejoin(&self) -> Option<String> {
        let takes_the_place = "this disk takes the place of a lost one, and counts for nothing yet";
        match self.succession() {
            Succession::First | Succession::Whole { .. } => None,
            Succession::Asking if !self.membership.can_replace() => Some(format!(
                "{takes_the_place}; the others are too few to commit without it: start the replica on its own disk"
            )),
            Succession::Asking | Succession::Appointed { .. } if self.needs_transfer() || self.transfer().is_some() => {
                Some(format!("{takes_the_place}: {}", self.explain_transfer()))
            }
            Succession::Asking => Some(format!(
                "{takes_the_place}: it waits until the others have committed an op that puts it there, op {} of {} is applied",
                self.applied, self.commit
            )),
            Succession::Appointed { op, view } if self.log_view < view => Some(format!(
                "{takes_the_place}: op {op} has put it there, and it counts from view {view} on; this is the log of view {}",
                self.log_view
            )),
            Succession::Appointed { .. } => {
                Some(format!("{takes_the_place}: op {} of {} is applied", self.applied, self.commit))
            }
        }
    }

    /// Everything that stands in the way of commands, or will soon; each names what an operator looks at.
    fn obstacles(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.hears_quorum() {
            let (heard, need) = if self.is_primary() {
                (self.confirmations(), self.membership.quorums.replication)
            } else {
                (self.heard(), self.membership.quorums.view_change)
            };
            found.push(format!("no quorum is heard, {heard} of {need}: nothing can commit; {}", self.silent_peers()));
        } else if self.status() == Status::Normal && !self.hears_primary() {
            found.push(format!("its primary {} is not heard; {}", self.primary_id(), self.silent_peers()));
        }
        if let Some(age) = self.hung_write() {
            found.push(format!("the disk hangs: a write has been under way for {}", seconds(age)));
        }
        if !self.has_room() {
            let room = self.log_room();
            found.push(format!(
                "no room for further ops: {room} bytes are left; {}; make room on the disk, or raise the limit",
                self.explain_kept()
            ));
        }
        let stalled = self.commit_stalled();
        if stalled >= self.options.timing.disk_stall_timeout {
            let (commit, head) = (self.commit, self.log.head());
            found.push(format!("nothing has committed for {}: commit {commit}, head {head}", seconds(stalled)));
        }
        found
    }

    /// Why the log is not dropped further (rule 9.2).
    fn explain_kept(&self) -> String {
        if !self.options.checkpoints || self.membership.constants.checkpoint_ops == 0 {
            return "no checkpoints are taken, so nothing is dropped from the log".to_owned();
        }
        let (base, newest) = (self.log.base(), self.checkpoint());
        if self.checkpoint_failed() {
            return format!(
                "the log begins after op {base}, and the last checkpoint could not be written here: what this replica logs says why; it is taken again"
            );
        }
        if newest <= base {
            return format!(
                "the log begins after op {base}, and this replica has no newer checkpoint: is its disk full, or too slow?"
            );
        }
        let is_behind = |member: &&Progress| member.id != self.id && member.checkpoint() <= base;
        let behind: Vec<ReplicaId> = self.progress.iter().filter(is_behind).map(|member| member.id).collect();
        let (have, need) = (self.membership.size() - behind.len(), self.membership.quorums.replication);
        if have < usize::from(need) {
            format!(
                "the log begins after op {base}, and is not dropped further before {need} replicas have newer checkpoints: {} have not",
                list(&behind)
            )
        } else {
            format!("the log begins after op {base}, and is dropped up to op {newest} at most")
        }
    }

    /// It acknowledges nothing meanwhile.
    fn explain_transfer(&self) -> String {
        let lacks = if self.lacks_state() {
            format!("no checkpoint can be read here, and the log begins after op {}", self.log.base())
        } else {
            let missing = self.lacks().unwrap_or(self.applied.next());
            format!("op {missing} is missing here, and no log that can be reached has it any more")
        };
        match self.transfer() {
            Some((op, ..)) if !self.transfer.fits(self.view) => {
                format!("{lacks}: the checkpoint after op {op} is here, and waits for the log of a later view")
            }
            Some((op, done, of)) => {
                format!("{lacks}: fetching the checkpoint after op {op}, {done} of {of} parts are here")
            }
            None => format!("{lacks}: no member that is heard has a checkpoint to fetch; {}", self.silent_peers()),
        }
    }

    fn explain_view_change(&self) -> String {
        let primary = self.primary_id();
        if self.phase.is_writing() {
            return "writing the view to disk".to_owned();
        }
        if self.is_repairing_primary() {
            let missing = (self.commit.0 + 1..=self.log.head().0)
                .map(OpNumber)
                .find(|op| !self.log.slot(*op).is_some_and(LogSlot::is_present));
            let missing = missing.map_or_else(|| "nothing".to_owned(), |op| format!("op {op}"));
            return format!("new primary, waiting for a copy of {missing}");
        }
        if primary != self.id {
            return format!("waiting for the StartView of {primary}; {}", self.silent_peers());
        }
        let have = self.view_change.dvcs.iter().flatten().count();
        let need = self.membership.quorums.view_change;
        let missing: Vec<ReplicaId> = self
            .view_change
            .dvcs
            .iter()
            .enumerate()
            .filter(|(_, dvc)| dvc.is_none())
            .map(|(at, _)| self.membership.members[at].id)
            .collect();
        if have < usize::from(need) {
            format!("{have} of {need} DoViewChanges; waiting for one of {}; {}", list(&missing), self.silent_peers())
        } else {
            let op = self.undecided().map_or_else(|| "an op above its end".to_owned(), |op| format!("op {op}"));
            format!(
                "choosing the log; {op} has neither an intact copy nor a nack quorum yet, waiting for {}",
                if missing.is_empty() {
                    "an operator, as every replica has answered".to_owned()
                } else {
                    list(&missing)
                }
            )
        }
    }

    /// The members that do not help, and why.
    fn silent_peers(&self) -> String {
        let when = |member: &Progress| {
            if member.heard_at == Monotonic(0) {
                format!("nothing heard of {} since the start", member.id)
            } else {
                format!("last heard of {} {} ago", member.id, seconds(self.now.since(member.heard_at)))
            }
        };
        let mut silent: Vec<String> = self.progress.iter().filter(|member| !self.is_heard(member)).map(when).collect();
        let distrusted = self.distrusted().map(|(id, why)| format!("the word of {id} does not count here: {why}"));
        silent.extend(distrusted);
        if silent.is_empty() { "every other replica is heard".to_owned() } else { silent.join(", ") }
    }
}

/// Whether a member's disk is not the one that counts. (A message of an earlier start may be a late one.)
fn is_of_no_account(member: &Progress) -> bool {
    matches!(member.distrust, Some(Distrust::OtherDisk | Distrust::OlderDisk | Distrust::Rejoins))
}

fn list(ids: &[ReplicaId]) -> String {
    ids.iter().map(ReplicaId::to_string).collect::<Vec<_>>().join(", ")
}

fn seconds(time: Duration) -> String {
    let millis = time.as_millis();
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}
