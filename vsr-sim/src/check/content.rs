//! One primary a view, one content an op of a view (hazards I5, I6).

use std::collections::BTreeMap;

use vsr::Checksum;
use vsr::protocol::{Message, View};

use super::table::Table;
use super::{Checker, Interests, Observation, Scene};

/// Of one view, only one replica ever speaks as primary: prepares, sends heartbeats, or says what the view's log is.
#[derive(Debug, Default)]
pub(super) struct OnePrimary {
    primaries: BTreeMap<View, usize>,
    last: Option<(View, usize)>,
}

impl Checker for OnePrimary {
    fn name(&self) -> &'static str {
        "one-primary-per-view"
    }

    fn wants(&self) -> Interests {
        Interests::PREPARE | Interests::COMMIT | Interests::VIEW_CHANGE
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent { replica, message } = *observation else { return Ok(()) };
        let view = match message {
            Message::Prepare { view, .. } | Message::Commit { view, .. } => *view,
            Message::StartView(start) => start.view,
            _ => return Ok(()),
        };
        if self.last.replace((view, replica)) == Some((view, replica)) {
            return Ok(());
        }
        let primary = *self.primaries.entry(view).or_insert(replica);
        if primary == replica {
            return Ok(());
        }
        Err(format!("r{replica} sends {} as primary of view {view}, r{primary} was its primary before", message.name()))
    }
}

/// Every op that is prepared in a view has one content, which never changes.
#[derive(Debug, Default)]
pub(super) struct OneContent {
    contents: BTreeMap<View, Table<Checksum>>,
    last: Checksum,
}

impl Checker for OneContent {
    fn name(&self) -> &'static str {
        "one-content-per-view-and-op"
    }

    fn wants(&self) -> Interests {
        Interests::PREPARE
    }

    fn observe(&mut self, _: &Scene<'_>, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent { replica, message: Message::Prepare { entry, .. } } = *observation else {
            return Ok(());
        };
        let (header, content) = (&entry.header, entry.header.checksum());
        // The same message to the next backup: the checksum covers view and op.
        if std::mem::replace(&mut self.last, content) == content {
            return Ok(());
        }
        let first = self.contents.entry(header.view).or_default().get_or_put(header.op.0, content);
        if first == content {
            return Ok(());
        }
        let (view, op) = (header.view, header.op);
        Err(format!("r{replica} prepares op {op} of view {view} as {content}, it was {first} before"))
    }
}
