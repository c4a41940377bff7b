//! The words of a scenario file: faults, filters, links and times, written and read.

use std::collections::VecDeque;

use vsr::protocol::OpNumber;

use crate::faults::{
    Damage, Fault, Impostor, KINDS, MessageFate, MessageKey, Nanos, ReadFate, TimedFault, Unsynced, WriteFate, kind_of,
};
use crate::options::parse_duration;
use crate::world::MessageFilter;

/// Reads the words of one line, and counts nodes in the way that the cluster does.
pub(super) struct Words<'a> {
    words: VecDeque<&'a str>,
    /// The number of replicas: clients come after them.
    pub(super) replicas: usize,
    pub(super) clients: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str, replicas: usize, clients: usize) -> Words<'a> {
        Words { words: line.split_whitespace().collect(), replicas, clients }
    }

    pub(super) fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.words.pop_front().ok_or_else(|| format!("{what} is missing"))
    }

    pub(super) fn maybe(&mut self) -> Option<&'a str> {
        self.words.pop_front()
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.words.front().copied()
    }

    /// The rest of the line.
    pub(super) fn rest(&mut self) -> String {
        self.words.drain(..).collect::<Vec<_>>().join(" ")
    }

    /// The rest of the line up to its `within 5s`, where it ends in one.
    pub(super) fn rest_before_within(&mut self) -> String {
        let before = self.words.len().saturating_sub(2);
        let is_within = self.words.get(before) == Some(&"within")
            && self.words.back().is_some_and(|time| parse_duration(time).is_ok());
        let end = if is_within { before } else { self.words.len() };
        self.words.drain(..end).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn end(&mut self) -> Result<(), String> {
        let all = std::mem::take(&mut self.words);
        all.front().map_or(Ok(()), |word| Err(format!("{word} is too much; the line ends before it")))
    }

    pub(super) fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.next(what)?;
        word.parse().map_err(|_| format!("{what} is a number, not {word}"))
    }

    /// A word of the form `name=value`.
    pub(super) fn value(&mut self, name: &str) -> Result<&'a str, String> {
        let word = self.next(&format!("{name}=…"))?;
        word.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='))
            .ok_or_else(|| format!("{name}=… is missing before {word}"))
    }

    pub(super) fn nanos(&mut self) -> Result<u64, String> {
        Ok(parse_duration(self.next("a time")?)?.as_nanos() as u64)
    }

    pub(super) fn node_of(&self, name: &str) -> Result<usize, String> {
        let wrong = || {
            format!(
                "{name} is not a node: there are r0 to r{}, c0 to c{}",
                self.replicas.saturating_sub(1),
                self.clients.saturating_sub(1)
            )
        };
        let (kind, number) = name.split_at_checked(1).ok_or_else(wrong)?;
        let number: usize = number.parse().map_err(|_| wrong())?;
        match kind {
            "r" if number < self.replicas => Ok(number),
            "c" if number < self.clients => Ok(self.replicas + number),
            _ => Err(wrong()),
        }
    }

    pub(super) fn node(&mut self) -> Result<usize, String> {
        let name = self.next("a node")?;
        self.node_of(name)
    }

    pub(super) fn replica(&mut self) -> Result<usize, String> {
        let node = self.node()?;
        if node < self.replicas { Ok(node) } else { Err(format!("{} is a client", self.name(node))) }
    }

    pub(super) fn name(&self, node: usize) -> String {
        if node < self.replicas { format!("r{node}") } else { format!("c{}", node - self.replicas) }
    }

    /// `r0>r1`.
    fn link(&mut self) -> Result<(usize, usize), String> {
        let word = self.next("a link, as in r0>r1,")?;
        let (from, to) = word.split_once('>').ok_or_else(|| format!("{word} is not a link: write r0>r1"))?;
        Ok((self.node_of(from)?, self.node_of(to)?))
    }

    fn unsynced(&mut self) -> Result<Unsynced, String> {
        match self.maybe() {
            None | Some("lose-unsynced") => Ok(Unsynced::Lost),
            Some("keep-unsynced") => Ok(Unsynced::Kept),
            Some(word) => {
                let salt = word.strip_prefix("tear-unsynced=").and_then(|salt| salt.parse().ok());
                salt.map(Unsynced::Torn)
                    .ok_or_else(|| format!("{word}: lose-unsynced, keep-unsynced or tear-unsynced=N"))
            }
        }
    }

    fn kind(&mut self) -> Result<&'static str, String> {
        let word = self.next("a kind of message")?;
        kind_of(word).ok_or_else(|| format!("{word} is not a kind of message: {}", KINDS.join(", ")))
    }

    /// `Prepare 7 r0>r1`, and `nth=2` when it is not the first.
    fn message(&mut self) -> Result<MessageKey, String> {
        let (kind, subject) = (self.kind()?, self.number("the op, view or number of the message")?);
        let (from, to) = self.link()?;
        let repeated = self.peek().and_then(|word| word.strip_prefix("nth=")).map(str::to_owned);
        let nth = match repeated {
            None => 1,
            Some(nth) => {
                self.maybe();
                nth.parse().map_err(|_| format!("nth={nth} is not a number"))?
            }
        };
        Ok(MessageKey { from, to, kind, subject, nth })
    }

    /// `[Kind,Kind] [r0>r1 | r0>* | *>r1] [subject]`.
    pub(super) fn filter(&mut self) -> Result<MessageFilter, String> {
        let mut filter = MessageFilter::default();
        while let Some(word) = self.maybe() {
            if let Some((from, to)) = word.split_once('>') {
                filter.from = if from == "*" { None } else { Some(self.node_of(from)?) };
                filter.to = if to == "*" { None } else { Some(self.node_of(to)?) };
            } else if let Ok(subject) = word.parse() {
                filter.subject = Some(subject);
            } else {
                for name in word.split(',') {
                    filter.kinds.push(kind_of(name).ok_or_else(|| format!("{name} is not a kind of message"))?);
                }
            }
        }
        Ok(filter)
    }

    /// A fault that happens now.
    pub(super) fn happening(&mut self, verb: &str) -> Result<Option<Vec<TimedFault>>, String> {
        let one = match verb {
            "crash" => TimedFault::Crash(self.replica()?, self.unsynced()?),
            "restart" => TimedFault::Restart(self.replica()?),
            "partition" => self.partition()?,
            "cut" | "mend" => {
                let word = self.next("a link, as in r0>r1,")?;
                let make = if verb == "cut" { TimedFault::Cut } else { TimedFault::Mend };
                if let Some((a, b)) = word.split_once('|') {
                    let (a, b) = (self.node_of(a)?, self.node_of(b)?);
                    return Ok(Some(vec![make(a, b), make(b, a)]));
                }
                let (from, to) =
                    word.split_once('>').ok_or_else(|| format!("{word} is not a link: write r0>r1 or r0|r1"))?;
                make(self.node_of(from)?, self.node_of(to)?)
            }
            "heal" => TimedFault::Heal,
            "clog" => {
                let (from, to) = self.link()?;
                TimedFault::Clog { from, to, lasts: self.nanos()? }
            }
            "mute" => TimedFault::Mute(self.node()?, self.kind()?, self.nanos()?),
            "pause" => TimedFault::Pause(self.replica()?),
            "suspend" => TimedFault::Suspend(self.replica()?),
            "resume" => TimedFault::Resume(self.replica()?),
            "skew-clock" => {
                let (node, by) = (self.node()?, self.next("a time, as in +1h or -5ms,")?);
                let nanos = parse_duration(by.trim_start_matches(['+', '-']))?.as_nanos() as i64;
                TimedFault::JumpWall(node, if by.starts_with('-') { -nanos } else { nanos })
            }
            "leap-clock" => TimedFault::LeapClock(self.node()?, self.nanos()?),
            "corrupt" => self.rot()?,
            "slow-disk" => self.slow_disk()?,
            "stall-disk" => TimedFault::StallDisk(self.replica()?),
            "release-disk" => TimedFault::ReleaseDisk(self.replica()?),
            "fill-disk" => TimedFault::FullDisk(self.replica()?, self.nanos()?),
            "wipe" => TimedFault::LoseDisk(self.replica()?),
            "recover" => TimedFault::ReplaceDisk(self.replica()?),
            "copy-disk" => TimedFault::CopyDisk(self.replica()?),
            "restore-disk" => TimedFault::RestoreDisk(self.replica()?),
            "impostor" => self.impostor()?,
            "bad-sector" => self.bad_sector()?,
            "no-space" => TimedFault::NoSpace(self.replica()?, self.nanos()?),
            "peer-down" => {
                let (node, peer) = (self.node()?, self.node()?);
                let refused = self.peek() == Some("refused");
                if refused {
                    self.maybe();
                }
                TimedFault::PeerDown { node, peer, refused }
            }
            _ => return Ok(None),
        };
        Ok(Some(vec![one]))
    }

    /// `r1`, and which disk it has that takes itself for it.
    fn impostor(&mut self) -> Result<TimedFault, String> {
        let replica = self.replica()?;
        let of = match self.next("copy, new, or the replica whose disk it has")? {
            "copy" => Impostor::Copy,
            "new" => Impostor::New,
            other => match self.node_of(other)? {
                other if other < self.replicas && other != replica => Impostor::Of(other),
                _ => return Err(format!("{other} is not another replica")),
            },
        };
        Ok(TimedFault::Impostor(replica, of))
    }

    /// `r1 op=7`, and what of it rots.
    fn rot(&mut self) -> Result<TimedFault, String> {
        let (replica, op) = (self.replica()?, self.value("op")?);
        let op = OpNumber(op.parse().map_err(|_| format!("op={op} is not an op"))?);
        let damage = match self.maybe() {
            None | Some("body") => Damage::Body,
            Some("header") => Damage::Both,
            Some("end") => Damage::End,
            Some(word) => return Err(format!("{word}: body, header (and body), or end")),
        };
        Ok(TimedFault::Rot(replica, op, damage))
    }

    /// `r1 x50 1s`.
    fn slow_disk(&mut self) -> Result<TimedFault, String> {
        let (replica, times) = (self.replica()?, self.next("how many times, as in x50,")?);
        let times = times.strip_prefix('x').and_then(|times| times.parse().ok());
        let times = times.filter(|times| (1..=100_000).contains(times));
        let times = times.ok_or("write x50 for fifty times as slow, up to x100000")?;
        Ok(TimedFault::SlowDisk { replica, times, lasts: self.nanos()? })
    }

    /// `r1 op=7`, and how many puts come to nothing there.
    fn bad_sector(&mut self) -> Result<TimedFault, String> {
        let (replica, op) = (self.replica()?, self.value("op")?);
        let op = op
            .parse::<u64>()
            .ok()
            .filter(|op| *op > 0)
            .ok_or_else(|| format!("op={op} is not an op; ops are 1, 2, 3…"))?;
        let mut puts = u64::MAX;
        if self.peek().is_some_and(|word| word.starts_with("puts=")) {
            let text = self.value("puts")?;
            puts = text.parse().map_err(|_| format!("puts={text} is not a number"))?;
        }
        Ok(TimedFault::BadSector(replica, OpNumber(op), puts))
    }

    /// `r0 c0 | rest`, or `r0 > rest` when only messages from left to right are lost.
    fn partition(&mut self) -> Result<TimedFault, String> {
        let mut side = Vec::new();
        let one_way = loop {
            match self.next("| or >")? {
                "|" => break false,
                ">" => break true,
                name => side.push(self.node_of(name)?),
            }
        };
        let (mut noticed, mut other, mut rest) = (false, Vec::new(), false);
        while let Some(word) = self.maybe() {
            match word {
                "rest" => rest = true,
                "noticed" => noticed = true,
                name => other.push(self.node_of(name)?),
            }
        }
        if let Some(both) = other.iter().find(|node| side.contains(node)) {
            return Err(format!("{} is on both sides", self.name(*both)));
        }
        let missing = (0..self.replicas).find(|node| !rest && !side.contains(node) && !other.contains(node));
        match missing {
            Some(node) => Err(format!("r{node} is on neither side: name it, or write rest")),
            None => Ok(TimedFault::Partition { side, one_way, noticed }),
        }
    }

    /// A fault that is planned for later: at a moment, for a message, for a write or a read.
    pub(super) fn planned(&mut self, verb: &str) -> Result<Option<Vec<Fault>>, String> {
        let message = |fate: MessageFate, key: MessageKey| Ok(Some(vec![Fault::Message(key, fate)]));
        match verb {
            "at" => {
                let (at, verb) = (self.nanos()?, self.next("what happens")?);
                let happenings =
                    self.happening(verb)?.ok_or_else(|| format!("{verb} is nothing that can be planned"))?;
                Ok(Some(happenings.into_iter().map(|happening| Fault::At(at, happening)).collect()))
            }
            "drop" => message(MessageFate::Drop, self.message()?),
            "again" => {
                let key = self.message()?;
                let after = parse_duration(self.value("after")?)?.as_nanos() as u64;
                message(MessageFate::Again(after), key)
            }
            "flip" => {
                let key = self.message()?;
                let bit = self.value("bit")?.parse().map_err(|_| "bit=… is a number")?;
                message(MessageFate::Corrupt(bit), key)
            }
            "misdeliver" => {
                let key = self.message()?;
                let to = self.value("to")?;
                message(MessageFate::Misdeliver(self.node_of(to)?), key)
            }
            "crash-after" => {
                let key = self.message()?;
                if key.from >= self.replicas {
                    return Err(format!("{} is a client; a replica crashes after a message", self.name(key.from)));
                }
                message(MessageFate::CrashAfter(self.unsynced()?), key)
            }
            "write" => {
                let (replica, nth) = (self.replica()?, self.number("the number of the write")?);
                let fate = match self.next("what happens to the write")? {
                    "crash" => WriteFate::CrashIn(self.unsynced()?),
                    "crash-after" => WriteFate::CrashAfter,
                    "fail" => WriteFate::Fail(self.unsynced()?),
                    "hang" => WriteFate::Hang(self.nanos()?),
                    "silent" => WriteFate::Silent,
                    "misdirect" => {
                        let op = self.value("op")?;
                        WriteFate::Misdirect(OpNumber(op.parse().map_err(|_| format!("op={op} is not an op"))?))
                    }
                    "vanish" => WriteFate::Vanish,
                    "sync-fails" => WriteFate::FailSync(self.nanos()?),
                    word => {
                        return Err(format!(
                            "{word} cannot happen to a write; crash, crash-after, fail, hang, silent, misdirect, vanish and \
                             sync-fails can"
                        ));
                    }
                };
                Ok(Some(vec![Fault::Write(replica, nth, fate)]))
            }
            "read" => {
                let (replica, nth) = (self.replica()?, self.number("the number of the read")?);
                let fate = match self.next("fail, or astray")? {
                    "fail" => ReadFate::Fail,
                    "astray" => ReadFate::Astray,
                    word => return Err(format!("a read can fail or go astray, not {word}")),
                };
                Ok(Some(vec![Fault::Read(replica, nth, fate)]))
            }
            _ => Ok(None),
        }
    }
}

fn unsynced_text(unsynced: Unsynced) -> String {
    match unsynced {
        Unsynced::Lost => "lose-unsynced".to_owned(),
        Unsynced::Kept => "keep-unsynced".to_owned(),
        Unsynced::Torn(salt) => format!("tear-unsynced={salt}"),
    }
}

/// A fault in the words that [`Words`] reads.
pub(crate) fn write_fault(fault: &Fault, replicas: usize) -> String {
    let node = |node: usize| if node < replicas { format!("r{node}") } else { format!("c{}", node - replicas) };
    let unsynced = unsynced_text;
    let message = |key: &MessageKey| {
        let nth = if key.nth == 1 { String::new() } else { format!(" nth={}", key.nth) };
        format!("{} {} {}>{}{nth}", key.kind, key.subject, node(key.from), node(key.to))
    };
    match fault {
        Fault::At(at, happening) => format!("at {} {}", Nanos(*at), write_happening(happening, replicas)),
        Fault::Message(key, fate) => match fate {
            MessageFate::Drop => format!("drop {}", message(key)),
            MessageFate::Again(after) => format!("again {} after={}", message(key), Nanos(*after)),
            MessageFate::Corrupt(bit) => format!("flip {} bit={bit}", message(key)),
            MessageFate::Misdeliver(to) => format!("misdeliver {} to={}", message(key), node(*to)),
            MessageFate::CrashAfter(how) => format!("crash-after {} {}", message(key), unsynced(*how)),
        },
        Fault::Write(replica, nth, fate) => {
            let text = match fate {
                WriteFate::CrashIn(how) => format!("crash {}", unsynced(*how)),
                WriteFate::CrashAfter => "crash-after".to_owned(),
                WriteFate::Fail(how) => format!("fail {}", unsynced(*how)),
                WriteFate::Hang(lasts) => format!("hang {}", Nanos(*lasts)),
                WriteFate::Silent => "silent".to_owned(),
                WriteFate::Misdirect(op) => format!("misdirect op={op}"),
                WriteFate::Vanish => "vanish".to_owned(),
                WriteFate::FailSync(lasts) => format!("sync-fails {}", Nanos(*lasts)),
            };
            format!("write r{replica} {nth} {text}")
        }
        Fault::Read(replica, nth, fate) => {
            let text = if *fate == ReadFate::Fail { "fail" } else { "astray" };
            format!("read r{replica} {nth} {text}")
        }
    }
}

/// A fault that happens now, in the words that [`Words`] reads.
pub(crate) fn write_happening(happening: &TimedFault, replicas: usize) -> String {
    let node = |node: usize| if node < replicas { format!("r{node}") } else { format!("c{}", node - replicas) };
    let unsynced = unsynced_text;
    match happening {
        TimedFault::Crash(replica, how) => format!("crash r{replica} {}", unsynced(*how)),
        TimedFault::Restart(replica) => format!("restart r{replica}"),
        TimedFault::Partition { side, one_way, noticed } => {
            let side: Vec<String> = side.iter().map(|at| node(*at)).collect();
            let (sign, noticed) = (if *one_way { ">" } else { "|" }, if *noticed { " noticed" } else { "" });
            format!("partition {} {sign} rest{noticed}", side.join(" "))
        }
        TimedFault::Cut(from, to) => format!("cut {}>{}", node(*from), node(*to)),
        TimedFault::Mend(from, to) => format!("mend {}>{}", node(*from), node(*to)),
        TimedFault::Heal => "heal".to_owned(),
        TimedFault::Clog { from, to, lasts } => format!("clog {}>{} {}", node(*from), node(*to), Nanos(*lasts)),
        TimedFault::Mute(from, kind, lasts) => format!("mute {} {kind} {}", node(*from), Nanos(*lasts)),
        TimedFault::Pause(replica) => format!("pause r{replica}"),
        TimedFault::Suspend(replica) => format!("suspend r{replica}"),
        TimedFault::Resume(replica) => format!("resume r{replica}"),
        TimedFault::JumpWall(at, by) => {
            format!("skew-clock {} {}{}", node(*at), if *by < 0 { '-' } else { '+' }, Nanos(by.unsigned_abs()))
        }
        TimedFault::LeapClock(at, by) => format!("leap-clock {} {}", node(*at), Nanos(*by)),
        TimedFault::Rot(replica, op, damage) => {
            format!(
                "corrupt r{replica} op={op}{}",
                match damage {
                    Damage::Intact | Damage::Body => "",
                    Damage::Both => " header",
                    Damage::End => " end",
                }
            )
        }
        TimedFault::SlowDisk { replica, times, lasts } => {
            format!("slow-disk r{replica} x{times} {}", Nanos(*lasts))
        }
        TimedFault::StallDisk(replica) => format!("stall-disk r{replica}"),
        TimedFault::ReleaseDisk(replica) => format!("release-disk r{replica}"),
        TimedFault::FullDisk(replica, lasts) => format!("fill-disk r{replica} {}", Nanos(*lasts)),
        TimedFault::LoseDisk(replica) => format!("wipe r{replica}"),
        TimedFault::ReplaceDisk(replica) => format!("recover r{replica}"),
        TimedFault::CopyDisk(replica) => format!("copy-disk r{replica}"),
        TimedFault::RestoreDisk(replica) => format!("restore-disk r{replica}"),
        TimedFault::Impostor(replica, Impostor::Copy) => format!("impostor r{replica} copy"),
        TimedFault::Impostor(replica, Impostor::New) => format!("impostor r{replica} new"),
        TimedFault::Impostor(replica, Impostor::Of(other)) => format!("impostor r{replica} r{other}"),
        TimedFault::BadSector(replica, op, u64::MAX) => format!("bad-sector r{replica} op={op}"),
        TimedFault::BadSector(replica, op, puts) => format!("bad-sector r{replica} op={op} puts={puts}"),
        TimedFault::NoSpace(replica, lasts) => format!("no-space r{replica} {}", Nanos(*lasts)),
        TimedFault::PeerDown { node: at, peer, refused } => {
            format!("peer-down {} {}{}", node(*at), node(*peer), if *refused { " refused" } else { "" })
        }
    }
}
