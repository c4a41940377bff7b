//! What was sent, in numbers.

use vsr::protocol::Message;

/// Bytes of commands and entries that were sent, and how many of them had to be; and how many messages there were of some kinds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// In requests, prepares and entries.
    pub(crate) carried: u64,
    /// In ops, each counted once.
    pub(crate) payload: u64,
    /// The highest op that was prepared.
    pub(crate) highest: u64,
    /// Heartbeats and pings.
    pub(crate) beats: u64,
    /// Questions that may need a round of heartbeats each.
    pub(crate) questions: u64,
}

impl Traffic {
    pub(super) fn count(&mut self, message: &Message) {
        match message {
            Message::Prepare { entry, .. } => {
                let bytes = entry.body.len() as u64;
                self.carried += bytes;
                if entry.header.op.0 > self.highest {
                    self.highest = entry.header.op.0;
                    self.payload += bytes;
                }
            }
            Message::Entries { entries } => {
                self.carried += entries.iter().map(|entry| entry.body.len() as u64).sum::<u64>()
            }
            Message::Requests { requests, .. } => {
                self.carried += requests.iter().map(|request| request.command.len() as u64 + 32).sum::<u64>();
            }
            Message::Commit { .. } | Message::Ping(_) => self.beats += 1,
            Message::Query { .. } | Message::ReadIndex { .. } => self.questions += 1,
            _ => {}
        }
    }
}
