//! What a scenario waits for, or expects.

use std::sync::PoisonError;

use super::parse::Words;
use crate::check::linearizability::Heard;
use crate::run::Run;
use crate::workload::Simulated;
use crate::world::lock;

/// Something that holds or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Role(usize, Role),
    Number(usize, Number, Compare, u64),
    Idle(usize),
    Waits(usize),
    Heard(usize, String),
    Settled,
    /// The number of messages that wait under a name.
    Held(String, Compare, u64),
    /// Every request of every client was answered.
    Done,
    Views(Compare, u64),
    Violation(Option<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Normal,
    Primary,
    Backup,
    Waiting,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    View,
    Head,
    Commit,
    Applied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    AtLeast,
    AtMost,
}

impl Compare {
    fn holds(self, left: u64, right: u64) -> bool {
        match self {
            Compare::Equal => left == right,
            Compare::AtLeast => left >= right,
            Compare::AtMost => left <= right,
        }
    }
}

/// `view>=2` in its parts.
fn comparison(word: &str) -> Option<(&str, Compare, u64)> {
    let signs = [(">=", Compare::AtLeast), ("<=", Compare::AtMost), ("=", Compare::Equal)];
    let (sign, compare) = signs.into_iter().find(|(sign, _)| word.contains(sign))?;
    let (name, number) = word.split_once(sign)?;
    Some((name, compare, number.parse().ok()?))
}

impl Condition {
    pub(super) fn read(words: &mut Words<'_>) -> Result<Condition, String> {
        let first = words.next("a condition")?;
        if let Some(("views", compare, number)) = comparison(first) {
            return Ok(Condition::Views(compare, number));
        }
        match first {
            "settled" => return Ok(Condition::Settled),
            "done" => return Ok(Condition::Done),
            "held" => {
                let word = words.next("a name and a number, as in late>=1,")?;
                let (name, compare, number) = comparison(word)
                    .ok_or_else(|| format!("{word} compares nothing; write NAME>=1, NAME<=1 or NAME=1"))?;
                return Ok(Condition::Held(name.to_owned(), compare, number));
            }
            "violation" if words.peek() == Some("within") => return Ok(Condition::Violation(None)),
            "violation" => return Ok(Condition::Violation(words.maybe().map(str::to_owned))),
            // `primary r1` reads better than `r1 primary` behind `until`.
            "primary" | "normal" | "down" => {
                let node = words.replica()?;
                return Condition::role(node, first);
            }
            _ => {}
        }
        let node = words.node_of(first)?;
        let word = words.next("what is to hold of it")?;
        if node >= words.replicas {
            return match word {
                "idle" => Ok(Condition::Idle(node)),
                "waits" => Ok(Condition::Waits(node)),
                "heard" => match words.rest_before_within() {
                    text if text.is_empty() => {
                        Err("what it heard is missing; write its reply, `not executed`, or `nothing`".to_owned())
                    }
                    text => Ok(Condition::Heard(node, text)),
                },
                _ => Err(format!(
                    "{word} is nothing that holds of a client; a client is idle, waits, or heard something"
                )),
            };
        }
        if let Some((name, compare, number)) = comparison(word) {
            let which = match name {
                "view" => Number::View,
                "head" => Number::Head,
                "commit" => Number::Commit,
                "applied" => Number::Applied,
                _ => {
                    return Err(format!(
                        "{name} is not a number of a replica; there are view, head, commit and applied"
                    ));
                }
            };
            return Ok(Condition::Number(node, which, compare, number));
        }
        Condition::role(node, word)
    }

    fn role(node: usize, word: &str) -> Result<Condition, String> {
        let role = match word {
            "normal" => Role::Normal,
            "primary" => Role::Primary,
            "backup" => Role::Backup,
            "waiting" => Role::Waiting,
            "down" => Role::Down,
            _ => {
                return Err(format!(
                    "{word} is nothing that holds of a replica; a replica is normal, primary, backup, waiting or down"
                ));
            }
        };
        Ok(Condition::Role(node, role))
    }

    pub(super) fn holds<S: Simulated>(&self, run: &Run<S>) -> bool {
        let status = |node: usize| run.handles[node].as_ref().map(vsr::Handle::status);
        match self {
            Condition::Role(node, role) => match (status(*node), role) {
                (None, role) => *role == Role::Down,
                (Some(status), Role::Normal) => status.normal,
                (Some(status), Role::Primary) => status.is_primary,
                (Some(status), Role::Backup) => status.normal && !status.is_primary,
                (Some(status), Role::Waiting) => !status.normal,
                (Some(_), Role::Down) => false,
            },
            Condition::Number(node, which, compare, number) => status(*node).is_some_and(|status| {
                let value = match which {
                    Number::View => status.view.number,
                    Number::Head => status.head.0,
                    Number::Commit => status.commit.0,
                    Number::Applied => status.applied.0,
                };
                compare.holds(value, *number)
            }),
            Condition::Idle(node) => !waits(run, *node),
            Condition::Waits(node) => waits(run, *node),
            Condition::Heard(node, text) => {
                let recorder = run.recorder.lock().unwrap_or_else(PoisonError::into_inner);
                let client = client_of(run, *node);
                recorder.history.iter().filter(|operation| operation.client == client).any(|operation| match &operation
                    .heard
                {
                    Heard::Reply(reply, _) => format!("{reply:?}") == *text,
                    Heard::Answer(answer, _) => format!("{answer:?}") == *text,
                    Heard::NotExecuted => text == "not executed",
                    Heard::Unknown => operation.returned != u64::MAX && text == "nothing",
                })
            }
            Condition::Settled => {
                let all: Vec<usize> = (0..run.options.replicas).collect();
                run.agree(&all)
            }
            Condition::Done => run.recorder.lock().unwrap_or_else(PoisonError::into_inner).active == 0,
            Condition::Held(name, compare, number) => compare.holds(lock(&run.world).links.count_held(name), *number),
            Condition::Views(compare, number) => compare.holds(lock(&run.world).highest_view, *number),
            Condition::Violation(name) => {
                run.violation().is_some_and(|verdict| name.as_ref().is_none_or(|name| verdict.class() == name))
            }
        }
    }
}

/// The number of a scenario's client in the history.
pub(super) fn client_of<S: Simulated>(run: &Run<S>, node: usize) -> u64 {
    ((node - run.options.replicas) * 8) as u64
}

fn waits<S: Simulated>(run: &Run<S>, node: usize) -> bool {
    let recorder = run.recorder.lock().unwrap_or_else(PoisonError::into_inner);
    let client = client_of(run, node);
    recorder.history.iter().any(|operation| operation.client / 8 * 8 == client && operation.returned == u64::MAX)
}
