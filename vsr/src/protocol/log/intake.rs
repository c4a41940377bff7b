//! Bodies that arrive for slots of the log, from any sender and for any purpose (rules 6.7, 6.8, 6.11).

use crate::protocol::core::Core;
use crate::protocol::types::entry::Entry;
use crate::protocol::types::limits::disk_bytes;

/// Bytes of repaired entries that may wait for the disk in any case.
const REPAIR_BYTES: u64 = 4 << 20;

impl Core {
    /// Whether as much waits for the disk as a full pipeline holds.
    pub(crate) fn is_disk_behind(&self) -> bool {
        self.writes.is_congested(self.disk_behind_at())
    }

    fn disk_behind_at(&self) -> u64 {
        let constants = &self.membership.constants;
        let pipeline = u64::from(constants.pipeline_max) * disk_bytes(constants.batch_bytes_max.into());
        // Where the pipeline is short, repair may still write more than that at once.
        pipeline.max(REPAIR_BYTES)
    }

    /// The most that waits for the disk: when it is not behind yet, one more entry is taken in.
    pub(crate) fn disk_wait_max(&self) -> u64 {
        self.disk_behind_at() + disk_bytes(self.membership.constants.batch_bytes_max.into())
    }

    /// Whether the log of log_view is durably this replica's own, so that entries may be put.
    fn may_write_log(&self) -> bool {
        self.log_view == self.view && self.views_are_durable()
    }

    /// Puts a body into its slot; a blank one takes the header that the slot above names.
    pub(crate) fn take_in(&mut self, entry: Entry) -> bool {
        let header = entry.header;
        if header.op > self.log.head() || self.log.name(header.op) != Some(header.checksum()) {
            return false;
        }
        if self.log.header(header.op).is_none() {
            self.log.adopt(header);
        }
        if !self.writes.has_room(disk_bytes(header.body_len.into())) {
            self.mark("no room for a repaired entry");
            return false;
        }
        if self.is_disk_behind() {
            self.mark("the disk is behind: a repaired entry has to wait");
            return false;
        }
        let filled = self.log.fill(entry);
        if filled {
            self.applying.cache.on_filled(header.op);
            self.view_change.note_progress(self.now);
            if self.may_write_log() {
                self.writes.stage_put(&mut self.log, header.op);
            } else {
                self.writes.unstage(header.op, disk_bytes(header.body_len.into()));
            }
        }
        filled
    }
}
