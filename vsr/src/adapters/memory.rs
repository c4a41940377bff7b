//! Storage and network in memory, for tests and first steps. They keep the contracts of their traits,
//! except that their content does not survive the process.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, Cursor};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures::task::AtomicWaker;

use super::checkpoints::{ChunkReader, ChunkWriter, Incoming, read_part, whole_parts};
use crate::protocol::{Batch, CheckpointId, Entry, Envelope, OpNumber, Peer, Recovered, ReplicaId, Slot, VsrState};
use crate::traits::network::{Network, NetworkError, NetworkEvent};
use crate::traits::state_machine::Snapshot;
use crate::traits::storage::{CheckpointReader, Storage, StorageError};

/// A log in memory. Clones share it: keep one to restart a replica from the same "disk".
#[derive(Clone, Debug)]
pub struct MemoryStorage {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
struct Disk {
    state: VsrState,
    entries: BTreeMap<OpNumber, Entry>,
    head: OpNumber,
    /// The file of each.
    checkpoints: BTreeMap<CheckpointId, Bytes>,
    /// What has come of another replica's.
    coming: Incoming<Cursor<Vec<u8>>>,
}

impl MemoryStorage {
    /// A formatted storage for the replica that the configuration names.
    #[must_use]
    pub fn format(config: &crate::Config) -> MemoryStorage {
        MemoryStorage::with_state(config.formatted_state())
    }

    /// As [`format`](Self::format), for a disk that may begin otherwise than that of a new cluster.
    ///
    /// # Errors
    /// [`ConfigError::Rejoin`](crate::ConfigError::Rejoin) for a lost disk in a cluster of one or two.
    pub fn format_for(
        config: &crate::Config,
        purpose: crate::config::FormatFor,
    ) -> Result<MemoryStorage, crate::ConfigError> {
        Ok(MemoryStorage::with_state(config.first_state(purpose)?))
    }

    /// A freshly formatted storage with the given state.
    #[must_use]
    pub fn with_state(state: VsrState) -> MemoryStorage {
        let (entries, checkpoints) = (BTreeMap::new(), BTreeMap::new());
        let disk = Disk { state, entries, head: OpNumber::ZERO, checkpoints, coming: Incoming::default() };
        MemoryStorage { disk: Arc::new(Mutex::new(disk)) }
    }

    /// A byte of each checkpoint changes.
    #[cfg(test)]
    pub(crate) fn harm_checkpoints(&self) {
        for file in self.disk().checkpoints.values_mut() {
            let mut bytes = file.to_vec();
            bytes[0] ^= 1;
            *file = bytes.into();
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        let disk = self.disk();
        let slots = (disk.state.base().0 + 1..=disk.head.0).map(|op| match disk.entries.get(&OpNumber(op)) {
            Some(entry) => Slot::Clean(entry.header),
            None => Slot::Absent,
        });
        Ok(Recovered { state: disk.state.clone(), slots: slots.collect(), head_certain: true })
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let Batch { state, truncate_above, entries } = batch;
        if state.is_some() && !entries.is_empty() {
            return Err(StorageError::Contract("a state and entries in one batch"));
        }
        let mut disk = self.disk();
        if let Some(op) = truncate_above {
            disk.entries.split_off(&op.next());
            disk.head = disk.head.min(op);
        }
        if let Some(state) = state {
            disk.entries = disk.entries.split_off(&state.base().next());
            disk.head = disk.head.max(state.base());
            disk.state = state;
        }
        for entry in entries {
            disk.head = disk.head.max(entry.header.op);
            disk.entries.insert(entry.header.op, entry);
        }
        Ok(())
    }

    async fn read(
        &self,
        ops: RangeInclusive<OpNumber>,
        bytes_max: usize,
    ) -> Result<Vec<(OpNumber, Option<Entry>)>, StorageError> {
        let disk = self.disk();
        let mut read = Vec::new();
        let mut bytes = 0;
        for op in ops.start().0..=ops.end().0 {
            let entry = disk.entries.get(&OpNumber(op)).cloned();
            bytes += entry.as_ref().map_or(0, |entry| entry.body.len());
            read.push((OpNumber(op), entry));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(read)
    }

    fn keeps_checkpoints(&self) -> bool {
        true
    }

    async fn write_checkpoint(
        &self,
        op: OpNumber,
        keep: Vec<CheckpointId>,
        content: Snapshot,
    ) -> Result<CheckpointId, StorageError> {
        self.disk().checkpoints.retain(|id, _| keep.contains(id));
        let mut to = ChunkWriter::new(Vec::new(), op);
        let written = content.write_to(&mut to).and_then(|()| to.finish());
        let (id, file) = written.map_err(|error| StorageError::io("writing a checkpoint", error))?;
        self.disk().checkpoints.insert(id, file.into());
        Ok(id)
    }

    async fn read_checkpoint(&self, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
        let file = self.disk().checkpoints.get(&id).cloned();
        let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        let read = file.and_then(|file| {
            let mut chunks = ChunkReader::new(Cursor::new(file), id)?;
            reader(&mut chunks)?;
            chunks.finish()
        });
        read.map_err(|error| StorageError::CheckpointDamaged { id, what: error.to_string() })
    }

    async fn read_part(&self, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
        let file = self.disk().checkpoints.get(&id).cloned().unwrap_or_default();
        read_part(Cursor::new(file), id, part)
    }

    async fn write_part(
        &self,
        id: CheckpointId,
        part: u32,
        bytes: Bytes,
        _keep: Vec<CheckpointId>,
    ) -> Result<u32, StorageError> {
        let disk = &mut *self.disk();
        let there = disk.checkpoints.get(&id).filter(|_| part == 0);
        if let Some(parts) = there.and_then(|file| whole_parts(Cursor::new(file), id)) {
            return Ok(parts);
        }
        let taken = disk.coming.take_in((id, part), &bytes, |left| Ok(left.unwrap_or_default()));
        let (next, whole) = taken.map_err(|error| StorageError::CheckpointDamaged { id, what: error.to_string() })?;
        disk.checkpoints.extend(whole.map(|file| (id, file.into_inner().into())));
        Ok(next)
    }
}

#[derive(Default)]
struct Mailbox {
    arrivals: Mutex<Vec<NetworkEvent>>,
    waker: AtomicWaker,
}

/// Messages that a mailbox holds before it drops the newest: memory is bounded.
const MAILBOX_MAX: usize = 1 << 16;

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Vec<NetworkEvent>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Hub {
    replicas: Vec<Mailbox>,
    clients: Mutex<BTreeMap<Peer, Arc<Mailbox>>>,
}

/// A network of function calls: reliable, ordered, instant.
#[derive(Clone)]
pub struct MemoryNetwork {
    hub: Arc<Hub>,
}

impl std::fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryNetwork of {}", self.hub.replicas.len())
    }
}

impl MemoryNetwork {
    /// A network for replicas 0 to `n` - 1.
    #[must_use]
    pub fn new(n: usize) -> MemoryNetwork {
        let replicas = (0..n).map(|_| Mailbox::default()).collect();
        MemoryNetwork { hub: Arc::new(Hub { replicas, clients: Mutex::default() }) }
    }

    /// The transport of a replica.
    #[must_use]
    pub fn endpoint(&self, replica: ReplicaId) -> MemoryEndpoint {
        MemoryEndpoint { me: Peer::Replica(replica), hub: self.hub.clone(), own: None }
    }

    /// The transport of a client.
    #[must_use]
    pub fn client(&self, client: crate::protocol::ClientId) -> MemoryEndpoint {
        let (me, mailbox) = (Peer::Client(client), Arc::new(Mailbox::default()));
        self.hub.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(me, mailbox.clone());
        MemoryEndpoint { me, hub: self.hub.clone(), own: Some(mailbox) }
    }
}

/// One end of a [`MemoryNetwork`].
pub struct MemoryEndpoint {
    me: Peer,
    hub: Arc<Hub>,
    /// A client's own mailbox; a replica's is in the hub.
    own: Option<Arc<Mailbox>>,
}

impl Drop for MemoryEndpoint {
    fn drop(&mut self) {
        if self.own.is_some() {
            self.hub.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.me);
        }
    }
}

impl MemoryEndpoint {
    fn mailbox(&self) -> Option<&Mailbox> {
        match (self.me, &self.own) {
            (Peer::Replica(id), _) => self.hub.replicas.get(usize::from(id.0)),
            (Peer::Client(_), own) => own.as_deref(),
        }
    }

    fn deliver(mailbox: &Mailbox, from: Peer, messages: impl Iterator<Item = crate::protocol::Message>) {
        {
            let mut arrivals = mailbox.lock();
            let room = MAILBOX_MAX.saturating_sub(arrivals.len());
            arrivals.extend(messages.take(room).map(|message| NetworkEvent::Message { from, message }));
        }
        mailbox.waker.wake();
    }
}

#[async_trait]
impl Network for MemoryEndpoint {
    fn send(&self, batch: &mut Vec<Envelope>) {
        if batch.is_empty() {
            return;
        }
        for (at, mailbox) in self.hub.replicas.iter().enumerate() {
            let to = Peer::Replica(ReplicaId(at as u8));
            let mut messages =
                batch.extract_if(.., |envelope| envelope.to == to).map(|envelope| envelope.message).peekable();
            if messages.peek().is_some() {
                MemoryEndpoint::deliver(mailbox, self.me, messages);
            }
        }
        for Envelope { to, message } in batch.drain(..) {
            let clients = self.hub.clients.lock().unwrap_or_else(PoisonError::into_inner);
            let mailbox = clients.get(&to).cloned();
            drop(clients);
            if let Some(mailbox) = mailbox {
                MemoryEndpoint::deliver(&mailbox, self.me, std::iter::once(message));
            }
        }
    }

    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
        let Some(mailbox) = self.mailbox() else {
            return Err(NetworkError::new(format!("{:?} is none of the members", self.me)));
        };
        poll_fn(|context| {
            mailbox.waker.register(context.waker());
            let arrivals = std::mem::take(&mut *mailbox.lock());
            if arrivals.is_empty() { Poll::Pending } else { Poll::Ready(Ok(arrivals)) }
        })
        .await
    }
}
