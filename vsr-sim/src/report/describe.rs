//! Messages in one line each.

use vsr::protocol::{Busy, Message, Outcome, Position, Refusal};

use super::timeline::{Record, State, What};

/// A message as a trace shows it.
pub(crate) fn message(message: &Message) -> String {
    let name = message.name();
    match message {
        Message::Requests { requests, forwarded } => {
            let numbers: Vec<String> =
                requests.iter().map(|request| format!("{}{}", request.session, request.number)).collect();
            format!("{name}{} {}", if *forwarded { " (forwarded)" } else { "" }, numbers.join(" "))
        }
        Message::Replies { view, replies } => {
            let outcomes: Vec<String> = replies
                .iter()
                .map(|reply| format!("{}{} {}", reply.session, reply.number, outcome(&reply.outcome, reply.position)))
                .collect();
            format!("{name} view {view}: {}", outcomes.join(", "))
        }
        Message::Prepare { view, commit, entry } => {
            let header = &entry.header;
            let (op, checksum, parent, of) = (header.op, header.checksum(), header.parent, header.view);
            format!("{name} view {view} op {op} ({checksum} on {parent}, of view {of}) commit {commit}")
        }
        Message::PrepareOk { view, op, checksum, .. } => format!("{name} view {view} op {op} ({checksum})"),
        Message::Commit { view, commit, head, number } => {
            format!("{name} view {view} commit {commit} head {head} number {number}")
        }
        Message::CommitOk { view, number, .. } => format!("{name} view {view} number {number}"),
        Message::StartViewChange { leaving: view, .. } => format!("{name} leaves view {view}"),
        Message::DoViewChange(dvc) => {
            let evidence: Vec<String> = dvc
                .evidence
                .iter()
                .enumerate()
                .map(|(at, evidence)| {
                    let mark = match (evidence.present, evidence.nack) {
                        (true, false) => "+",
                        (true, true) => "~",
                        (false, true) => "-",
                        (false, false) => "?",
                    };
                    format!("{}{mark}", dvc.commit.0 + 1 + at as u64)
                })
                .collect();
            let (view, log_view, commit, head) = (dvc.view, dvc.log_view, dvc.commit, dvc.head);
            let certain = if dvc.head_certain { "" } else { " uncertain" };
            format!(
                "{name} view {view} log_view {log_view} commit {commit} head {head}{certain} [{}]",
                evidence.join(" ")
            )
        }
        Message::StartView(start) => {
            let headers: Vec<String> =
                start.headers.iter().map(|header| format!("{}={}", header.op, header.checksum())).collect();
            let (view, commit, head) = (start.view, start.commit, start.head);
            format!("{name} view {view} commit {commit} head {head} [{}]", headers.join(" "))
        }
        Message::RequestEntries { wanted } => {
            let ops: Vec<String> = wanted.iter().map(|(op, checksum)| format!("{op}={checksum}")).collect();
            format!("{name} {}", ops.join(" "))
        }
        Message::Headers { headers } => {
            let ops: Vec<String> =
                headers.iter().map(|header| format!("{}={}", header.op, header.checksum())).collect();
            format!("{name} {}", ops.join(" "))
        }
        Message::Entries { entries } => {
            let ops: Vec<String> = entries.iter().map(|entry| entry.header.op.to_string()).collect();
            format!("{name} {}", ops.join(" "))
        }
        Message::RequestHeaders { op, checksum, count } => format!("{name} {op}={checksum} and {count} down"),
        Message::Ping(ping) => format!("{name} view {} commit {} head {}", ping.view, ping.commit, ping.head),
        _ => name.to_owned(),
    }
}

/// What became of a request, in words.
fn outcome(outcome: &Outcome, position: Position) -> String {
    match outcome {
        Outcome::Reply(bytes) if bytes.len() == 1 => format!("reply of 1 byte at {position}"),
        Outcome::Reply(bytes) => format!("reply of {} bytes at {position}", bytes.len()),
        Outcome::Registered(session) => format!("registered as {session}"),
        Outcome::ReplyLost => format!("executed at {position}, reply lost"),
        Outcome::Busy(busy) => format!("busy: {}", busy_because(*busy)),
        Outcome::Refused(refusal) => format!("refused: {}", refused_because(*refusal)),
        _ => "an outcome that this simulator does not know".to_owned(),
    }
}

fn busy_because(busy: Busy) -> &'static str {
    match busy {
        Busy::Queue => "the queue is full, or the number is in use",
        Busy::Replies => "too many replies are not taken",
        Busy::NoPrimary => "no primary",
        Busy::LogFull => "the log is full",
        Busy::Sessions => "every session is in use",
        _ => "for a reason that this simulator does not know",
    }
}

fn refused_because(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Evicted => "the session is gone",
        Refusal::Conflict => "the number has other content",
        Refusal::BelowFloor => "the number is below the floor",
        Refusal::BeyondWindow => "the number is beyond the window",
        Refusal::TooLarge => "the command is too long",
        Refusal::Undecodable => "the command does not decode",
        _ => "for a reason that this simulator does not know",
    }
}

/// A record in a line for a terminal; nothing for what only a picture needs. `records` are all, so that a delivery can name its
/// message.
pub(crate) fn line(record: &Record, records: &[Record], replicas: usize) -> Option<String> {
    let name = |lane: u32| match lane as usize {
        lane if lane < replicas => format!("r{lane}"),
        lane => format!("c{}", lane - replicas),
    };
    let sent = |at: &u32| match records.get(*at as usize) {
        Some(Record { lane, what: What::Sent { to, text, .. }, .. }) => Some((name(*lane), name(*to), text)),
        _ => None,
    };
    let lane = record.lane;
    let text = match &record.what {
        What::Sent { .. } | What::Numbers { .. } => return None,
        What::Delivered { sent: at } => sent(at).map(|(from, _, text)| format!("{from} > {}  {text}", name(lane)))?,
        What::Lost { sent: at, why } => sent(at).map(|(from, to, text)| format!("{from} x {to}  {text} ({why})"))?,
        What::Status { view, state, primary } => match (state, primary) {
            (State::Normal, true) => format!("{} is primary of view {view}", name(lane)),
            (State::Normal, false) => format!("{} is a backup in view {view}", name(lane)),
            (State::ViewChange, _) => format!("{} waits for view {view} to start", name(lane)),
            // The fault says it.
            (State::Down | State::Paused, _) => return None,
        },
        What::Fault { text, until: None } | What::Note { text } => text.clone(),
        What::Fault { text, until: Some(until) } => {
            format!("{text} for {} ms", until.saturating_sub(record.at) / 1_000_000)
        }
        What::Asked { text } => format!("{} asks {text}", name(lane)),
        What::Heard { text, .. } => format!("{} hears {text}", name(lane)),
    };
    Some(text)
}

/// A moment of virtual time.
pub(crate) fn moment(at: u64) -> String {
    format!("{:>5}.{:06} s", at / 1_000_000_000, at / 1_000 % 1_000_000)
}
