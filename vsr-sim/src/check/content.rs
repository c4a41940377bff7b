//! One primary a view, one content an op of a view (HAZARDS I5, I6).

use std::collections::BTreeMap;

use vsr::{Checksum, Message, OpNumber, View};

use super::{Checker, Observation, Scene};

/// Of one view, only one replica emits `Prepare`, and every op that it prepares has one content for
/// ever.
#[derive(Debug, Default)]
pub(super) struct OneContent {
    primaries: BTreeMap<View, usize>,
    contents: BTreeMap<(View, OpNumber), Checksum>,
}

impl Checker for OneContent {
    fn name(&self) -> &'static str {
        "one-content-per-view-and-op"
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent { replica, message: Message::Prepare { view, entry, .. } } = *observation else {
            return Ok(());
        };
        let primary = *self.primaries.entry(*view).or_insert(replica);
        if primary != replica {
            return Err(format!("r{replica} and r{primary} both prepare in view {view}"));
        }
        let header = &entry.header;
        let content = *self.contents.entry((header.view, header.op)).or_insert(header.checksum());
        if content != header.checksum() {
            let (view, op, other) = (header.view, header.op, header.checksum());
            return Err(format!("r{replica} prepares op {op} of view {view} as {other}, it was {content} before"));
        }
        Ok(())
    }
}
