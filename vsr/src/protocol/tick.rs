//! What a replica does at each retry, by its role: everything that is not answered is said again (rules 6.1, 7.2).

use super::core::Core;
use crate::protocol::view_change::phase::Status;

impl Core {
    /// Everything that is not answered is said again (rule 6.1).
    pub(crate) fn on_retry(&mut self) {
        self.retry_votes();
        match self.status() {
            Status::Normal if self.is_primary() => {
                self.resend_prepares();
                self.check_quorum();
            }
            Status::Normal => self.check_primary(),
            Status::ViewChange => self.retry_view_change(),
        }
        self.retry_reads();
        self.retry_repair();
        self.retry_transfer();
        self.retry_checkpoint();
    }

    /// A backup's reasons to act against, or to ask, its primary.
    fn check_primary(&mut self) {
        let view = self.view;
        if !self.head_certain {
            return self.ask_for_start_view(view);
        }
        if self.repair.lagging_since.is_some_and(|since| self.now.since(since) >= self.options.timing.retry) {
            self.repair.lagging_since = None;
            self.mark("lagging behind the primary");
            self.ask_for_start_view(view);
        }
        if self.writes.durable > self.commit.op() {
            self.send_prepare_ok();
        }
        self.vote_if_primary_is_down();
        self.check_forwards();
    }
}
