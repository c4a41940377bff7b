//! What the protocol counts as it comes and goes, counted anew: for the simulator, which compares the two every so often. A wrong
//! account is a bound that does not hold, or a door that stays shut.

use crate::protocol::core::Core;
use crate::protocol::log::outbox::WAITING_BYTES_MAX;
use crate::protocol::types::account::Account;
use crate::protocol::types::entry::OpKind;
use crate::protocol::types::limits::disk_bytes;
use crate::protocol::types::number::OpNumber;
use crate::protocol::view_change::phase::Status;

impl Core {
    /// Counts anew what is counted as it comes and goes. Takes as long as much is held: not for every turn.
    #[must_use]
    pub fn audit(&self) -> Vec<Account> {
        let mut accounts = vec![self.audit_queue(), self.audit_log(), self.audit_staged(), self.audit_cache()];
        accounts.extend([self.audit_unstaged(), self.audit_outbox(), self.audit_copies()]);
        accounts.extend(self.sessions.audit());
        accounts.extend(self.audit_role());
        if self.status() == Status::Normal {
            let copies = self.view_change.copies.len();
            accounts.push(Account::leftover("copies kept for the choice of a log that is chosen", copies));
        }
        let overdue = self.outbox.overdue(self.writes.completed);
        accounts.push(Account::leftover("messages that wait for a write that is done", overdue));
        accounts.push(self.audit_forwards());
        accounts
    }

    fn audit_queue(&self) -> Account {
        let queue = self.primary.queue.iter();
        Account {
            name: "bytes of queued requests",
            counted: self.primary.queue_bytes as u64,
            held: queue.map(|queued| queued.encoded_len() as u64).sum(),
            bound: self.options.queue_bytes_max as u64,
        }
    }

    fn audit_log(&self) -> Account {
        let headers = || (self.log.base().0 + 1..=self.log.head().0).filter_map(|op| self.log.header(OpNumber(op)));
        let bytes = |is: fn(OpKind) -> bool| {
            headers().filter(|header| is(header.kind)).map(|header| u64::from(header.body_len)).sum::<u64>()
        };
        // Whose checkpoints come later than those of its primary has dropped less: up to one log more. What puts a disk in the place of a lost one
        // finds room in any log.
        let is_taken = self.membership.constants.checkpoint_ops > 0
            || self.checkpoint() > OpNumber::ZERO
            || self.progress.iter().any(|member| member.checkpoint() > OpNumber::ZERO);
        let logs = if is_taken { 2 } else { 1 };
        Account {
            name: "bytes of entries in the log",
            counted: self.log.bytes(),
            held: bytes(|_| true),
            bound: self.options.log_bytes_max * logs + bytes(|kind| kind != OpKind::Requests),
        }
    }

    fn audit_staged(&self) -> Account {
        let entries = self.writes.staging.entries.iter();
        Account {
            name: "bytes that the next write will take",
            counted: self.writes.staged_bytes,
            held: entries.map(|entry| disk_bytes(entry.body.len() as u64)).sum(),
            bound: self.disk_wait_max(),
        }
    }

    fn audit_unstaged(&self) -> Account {
        Account {
            name: "bytes that wait for a view or for the record",
            counted: self.writes.unstaged_bytes,
            held: self.writes.unstaged.values().sum(),
            bound: self.disk_wait_max(),
        }
    }

    fn audit_outbox(&self) -> Account {
        let (counted, held) = self.outbox.waiting_bytes();
        // Beside the bound: one message of each kind to each member.
        let each = u64::from(self.membership.constants.pipeline_max) * 1024 + (64 << 10);
        let longest = u64::from(self.membership.constants.batch_bytes_max).max(64 << 20) + (4 << 20);
        let bound = WAITING_BYTES_MAX as u64 + longest + self.membership.size() as u64 * each;
        Account { name: "bytes of messages that wait for a write", counted: counted as u64, held: held as u64, bound }
    }

    fn audit_forwards(&self) -> Account {
        let (counted, held, bound) = self.repair.forwards.copies_bytes();
        // A single one is kept whatever its length.
        let bound = (bound as u64).max(u64::from(self.membership.constants.request_max) + 1024);
        Account { name: "bytes of forwarded requests", counted: counted as u64, held: held as u64, bound }
    }

    fn audit_copies(&self) -> Account {
        Account {
            name: "bytes of copies kept for the choice of a log",
            counted: self.view_change.copies_bytes,
            held: self.view_change.copies.values().map(|entry| entry.body.len() as u64).sum(),
            bound: self.pipeline_bytes_max(),
        }
    }

    fn audit_cache(&self) -> Account {
        Account {
            name: "bytes of applied entries that stay in memory",
            counted: self.applying.cache.bytes(),
            held: self.applying.cache.held(self.applied, &self.log),
            bound: self.applying.cache.bound(self.applied, &self.log, self.options.cache_bytes),
        }
    }

    /// What only a primary keeps: for each request that is marked as in flight there is one in the queue or the pipeline.
    fn audit_role(&self) -> Vec<Account> {
        let primary = &self.primary;
        let marked = primary.in_flight.len() + primary.registering.len();
        if !self.is_primary() {
            let kept = marked + primary.queue.len() + primary.pipeline.len() + primary.queued_extra.len();
            return vec![Account::leftover("requests and ops of a role that was left", kept)];
        }
        let waiters = primary.queued_extra.len().saturating_sub(primary.queue.len());
        let mut accounts = vec![Account::leftover("waiters for requests that are not queued", waiters)];
        if self.commit.op() > self.reads.inherited_head {
            let failed = self.view_change.backoff + self.view_change.fast_votes;
            let name = "failed view changes and hasty votes that count although a view has got on";
            accounts.push(Account::leftover(name, failed as usize));
        }
        if self.is_between_ops() {
            let prepared: usize = primary.pipeline.iter().map(|prepared| prepared.origins.len()).sum();
            let lost = marked.saturating_sub(primary.queue.len() + prepared);
            accounts.push(Account::leftover("marks of requests that are neither queued nor in the pipeline", lost));
        }
        if let (Some(first), Some(last)) = (primary.pipeline.front(), primary.pipeline.back()) {
            accounts.push(Account {
                name: "ops in the pipeline",
                counted: primary.pipeline.len() as u64,
                held: (self.log.head().0 + 1).saturating_sub(first.op.0),
                bound: (last.op.0 + 1).saturating_sub(first.op.0),
            });
        }
        accounts
    }
}
