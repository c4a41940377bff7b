//! Which fault happens to what.

use std::collections::BTreeMap;

use vsr::protocol::Random;

use super::kinds::{Fault, MessageFate, MessageKey, ReadFate, WriteFate};

/// Random numbers for one purpose: a hash of the seed, the purpose and what it is about.
pub(crate) fn draw(seed: u64, site: u64, a: u64, b: u64) -> Random {
    let mut state = seed;
    for word in [site, a, b] {
        state = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^= state >> 32;
    }
    Random::new(state)
}

/// What decides the faults of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Only what was written down happens; else the seed draws more.
    pub(crate) given: bool,
    messages: BTreeMap<MessageKey, MessageFate>,
    writes: BTreeMap<(usize, u64), WriteFate>,
    reads: BTreeMap<(usize, u64), ReadFate>,
    /// Everything that happened, in order.
    pub(crate) happened: Vec<Fault>,
}

impl Plan {
    /// A plan of these faults only. Those with a moment are the caller's to plan.
    pub(crate) fn of(faults: &[Fault]) -> Plan {
        let mut plan = Plan { given: true, ..Plan::default() };
        faults.iter().for_each(|fault| plan.add(fault));
        plan
    }

    pub(crate) fn add(&mut self, fault: &Fault) {
        match fault {
            Fault::At(..) => {}
            Fault::Message(key, fate) => {
                self.messages.insert(*key, *fate);
            }
            Fault::Write(node, nth, fate) => {
                self.writes.insert((*node, *nth), *fate);
            }
            Fault::Read(node, nth, fate) => {
                self.reads.insert((*node, *nth), *fate);
            }
        }
    }

    pub(crate) fn has_no_messages(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn message(
        &mut self,
        key: MessageKey,
        drawn: impl FnOnce() -> Option<MessageFate>,
    ) -> Option<MessageFate> {
        let fate = self.messages.get(&key).copied().or_else(|| if self.given { None } else { drawn() });
        if let Some(fate) = fate {
            self.happened.push(Fault::Message(key, fate));
        }
        fate
    }

    pub(crate) fn write(
        &mut self,
        node: usize,
        nth: u64,
        drawn: impl FnOnce() -> Option<WriteFate>,
    ) -> Option<WriteFate> {
        let fate = self.writes.get(&(node, nth)).copied().or_else(|| if self.given { None } else { drawn() });
        if let Some(fate) = fate {
            self.happened.push(Fault::Write(node, nth, fate));
        }
        fate
    }

    pub(crate) fn read(&mut self, node: usize, nth: u64, drawn: impl FnOnce() -> Option<ReadFate>) -> Option<ReadFate> {
        let fate = self.reads.get(&(node, nth)).copied().or_else(|| if self.given { None } else { drawn() });
        if let Some(fate) = fate {
            self.happened.push(Fault::Read(node, nth, fate));
        }
        fate
    }
}
