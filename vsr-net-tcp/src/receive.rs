//! The reading half of a connection: messages out of bytes, with a bound on what is held for those of which
//! only a part has arrived.

use std::convert::Infallible;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use metrics::{Counter, counter, gauge};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use vsr::network::NetworkEvent;
use vsr::protocol::Peer;
use vsr::wire::{FrameHeader, HEADER_LEN, Limits, WireError, decode, is_keep_alive};

use crate::mailbox::Mailbox;

/// Bytes that each connection reads at once, and holds as long as it stands. A frame that fits is copied out
/// of them, so that what is kept of it holds nothing else.
const BUFFER_OF_REPLICA: usize = 64 << 10;
const BUFFER_OF_CLIENT: usize = 16 << 10;

/// The memory that a longer frame begins with. It doubles as bytes arrive: a length that a peer claims
/// allocates no more.
const LARGE_MIN: usize = 256 << 10;

/// How long a client may take for one long frame: until then it holds room that others wait for.
const CLIENT_FRAME_MAX: Duration = Duration::from_secs(30);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("one message took more than {0:?}")]
    Slow(Duration),
    #[error("closed by the other side")]
    Closed,
    #[error("replaced by a newer connection")]
    Replaced,
}

/// The bytes that all connections together hold for frames of which only a part has arrived.
pub(crate) struct Room {
    held: Mutex<Held>,
    freed: Notify,
    bytes_max: usize,
}

#[derive(Clone, Copy, Default)]
struct Held {
    replicas: usize,
    clients: usize,
}

impl Room {
    pub(crate) fn new(bytes_max: usize) -> Room {
        Room { held: Mutex::default(), freed: Notify::new(), bytes_max }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a frame of so many bytes may be held. All of it is set aside at once: frames that have a part
    /// each, and wait for each other's room, would never get any.
    async fn take(&self, peer: Peer, bytes: usize) -> Place<'_> {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.try_take(peer, bytes) {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(&self, peer: Peer, bytes: usize) -> Option<Place<'_>> {
        let of_clients = self.bytes_max / 4;
        let mut held = self.held();
        let (held, share) = match peer {
            Peer::Replica(_) => (&mut held.replicas, self.bytes_max - of_clients),
            Peer::Client(_) => (&mut held.clients, of_clients),
        };
        if *held > 0 && held.saturating_add(bytes) > share {
            return None;
        }
        *held += bytes;
        gauge!("vsr_net_receiving_bytes", "kind" => kind(peer)).increment(bytes as f64);
        Some(Place { room: self, peer, bytes })
    }
}

/// A word for metrics.
pub(crate) fn kind(peer: Peer) -> &'static str {
    match peer {
        Peer::Replica(_) => "replica",
        Peer::Client(_) => "client",
    }
}

/// Room that one frame holds.
struct Place<'a> {
    room: &'a Room,
    peer: Peer,
    bytes: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        gauge!("vsr_net_receiving_bytes", "kind" => kind(self.peer)).decrement(self.bytes as f64);
        let mut held = self.room.held();
        match self.peer {
            Peer::Replica(_) => held.replicas -= self.bytes,
            Peer::Client(_) => held.clients -= self.bytes,
        }
        drop(held);
        self.room.freed.notify_waiters();
    }
}

/// Takes in what one peer sends.
pub(crate) struct Receiver<'a> {
    pub(crate) peer: Peer,
    pub(crate) limits: Limits,
    pub(crate) silence_max: Duration,
    pub(crate) mailbox: &'a Mailbox,
    pub(crate) room: &'a Room,
    pub(crate) received: Counter,
    /// Bytes of a frame that is passed over, still to come.
    pub(crate) skip: usize,
    /// Why a frame was passed over last: told when it changes.
    pub(crate) passed_over: Option<&'static str>,
}

impl Receiver<'_> {
    /// Reads until the connection ends.
    pub(crate) async fn run(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Ended {
        let Err(ended) = self.read(stream).await;
        ended
    }

    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Infallible, Ended> {
        let len = self.buffer_len();
        let mut buffer: Vec<u8> = Vec::with_capacity(len);
        let mut arrivals = Vec::new();
        loop {
            let before = buffer.len();
            let large = self.take_frames(&mut buffer, &mut arrivals)?;
            if !arrivals.is_empty() {
                self.mailbox.deliver(&mut arrivals, before - buffer.len()).await;
            }
            match large {
                Some(header) => self.read_large(stream, &header, &mut buffer).await?,
                None => self.fill(stream, &mut buffer, len, self.silence_max).await?,
            }
        }
    }

    fn buffer_len(&self) -> usize {
        match self.peer {
            Peer::Replica(_) => BUFFER_OF_REPLICA,
            Peer::Client(_) => BUFFER_OF_CLIENT,
        }
    }

    /// Takes every whole frame out of the buffer. The header of the one that is left at its beginning, when the
    /// buffer cannot hold it.
    fn take_frames(
        &mut self,
        buffer: &mut Vec<u8>,
        arrivals: &mut Vec<NetworkEvent>,
    ) -> Result<Option<FrameHeader>, WireError> {
        let mut at = 0;
        let large = loop {
            let passed = self.skip.min(buffer.len() - at);
            self.skip -= passed;
            at += passed;
            let rest = &buffer[at..];
            let Some(header) = rest.first_chunk::<HEADER_LEN>() else { break None };
            let header = FrameHeader::read(header)?;
            let whole = HEADER_LEN + header.payload_len();
            if let Err(error) = header.check(self.limits) {
                self.pass_over(&error);
                self.skip = whole;
                continue;
            }
            if whole > self.buffer_len() {
                break Some(header);
            }
            let Some(payload) = rest.get(HEADER_LEN..whole) else { break None };
            if !is_keep_alive(&header, payload) {
                self.take(&header, Bytes::copy_from_slice(payload), arrivals)?;
            }
            at += whole;
        };
        buffer.drain(..at);
        Ok(large)
    }

    /// Reads a frame that is longer than the buffer into memory of its own, once there is room for it. The buffer
    /// holds its beginning, and nothing else.
    async fn read_large(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        header: &FrameHeader,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Ended> {
        let len = header.payload_len();
        let _place = self.room.take(self.peer, len).await;
        let begun = Instant::now();
        let mut payload = Vec::with_capacity(len.min(LARGE_MIN));
        payload.extend_from_slice(buffer.get(HEADER_LEN..).unwrap_or_default());
        buffer.clear();
        while payload.len() < len {
            if payload.len() == payload.capacity() {
                payload.reserve_exact((len - payload.len()).min(payload.len()));
            }
            let left = match self.peer {
                Peer::Replica(_) => self.silence_max,
                Peer::Client(_) => CLIENT_FRAME_MAX.saturating_sub(begun.elapsed()).min(self.silence_max),
            };
            if left.is_zero() {
                return Err(Ended::Slow(CLIENT_FRAME_MAX));
            }
            let end = payload.capacity().min(len);
            self.fill(stream, &mut payload, end, left).await?;
        }
        let mut arrivals = Vec::new();
        self.take(header, Bytes::from(payload), &mut arrivals)?;
        if !arrivals.is_empty() {
            self.mailbox.deliver(&mut arrivals, HEADER_LEN + len).await;
        }
        // What waits to be delivered held its place until now.
        Ok(())
    }

    /// Reads some bytes, up to a length for which there is capacity.
    async fn fill(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut Vec<u8>,
        end: usize,
        silence_max: Duration,
    ) -> Result<(), Ended> {
        let missing = end - buffer.len();
        let mut free = buffer.limit(missing);
        match timeout(silence_max, stream.read_buf(&mut free)).await {
            Err(_) => Err(Ended::Silent(silence_max)),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(0)) => Err(Ended::Closed),
            Ok(Ok(bytes)) => {
                self.received.increment(bytes as u64);
                Ok(())
            }
        }
    }

    /// Takes a whole frame. What came undamaged and means nothing to this version is passed over: the stream goes
    /// on behind it.
    fn take(
        &mut self,
        header: &FrameHeader,
        payload: Bytes,
        arrivals: &mut Vec<NetworkEvent>,
    ) -> Result<(), WireError> {
        let len = payload.len();
        match decode(header, payload) {
            Ok(mut message) => {
                for entry in message.entries_mut() {
                    // All bodies share one piece of memory: keeping one of them must not keep the others.
                    if entry.body.len() * 2 < len {
                        entry.body = Bytes::copy_from_slice(&entry.body);
                    }
                }
                arrivals.push(NetworkEvent::Message { from: self.peer, message });
            }
            Err(error @ (WireError::NotAFrame | WireError::Version { .. } | WireError::Damaged(_))) => {
                return Err(error);
            }
            Err(error) => self.pass_over(&error),
        }
        Ok(())
    }

    fn pass_over(&mut self, error: &WireError) {
        let reason = reason(error);
        counter!("vsr_net_bad_frames_total", "reason" => reason).increment(1);
        if self.passed_over.replace(reason) != Some(reason) {
            // It may quote what a stranger wrote.
            let error: String = error.to_string().chars().take(300).collect();
            tracing::warn!(peer = ?self.peer, %error, "a message was passed over; others like it are only counted");
        }
    }
}

/// A word for metrics.
pub(crate) fn reason(error: &WireError) -> &'static str {
    match error {
        WireError::NotAFrame => "not_a_frame",
        WireError::Version { .. } => "version",
        WireError::Damaged(_) => "damaged",
        WireError::TooLarge { .. } => "too_large",
        _ => "malformed",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::Pin;

    use futures::FutureExt;
    use tokio::io::{AsyncWriteExt, duplex};
    use vsr::protocol::Message;
    use vsr::wire::{encode, keep_alive};
    use vsr::{ClientId, ReplicaId};

    use super::*;

    fn receiver<'a>(peer: Peer, limits: Limits, mailbox: &'a Mailbox, room: &'a Room) -> Receiver<'a> {
        let (silence_max, received) = (Duration::from_secs(60), counter!("received"));
        Receiver { peer, limits, silence_max, mailbox, room, received, skip: 0, passed_over: None }
    }

    fn frame(nonce: u64, len: usize) -> Bytes {
        let message = Message::Query { client: ClientId(1), nonce, query: Bytes::from(vec![7; len]) };
        encode(&message).expect("a frame").head
    }

    type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

    /// Runs until none of them does anything any more.
    async fn settle(tasks: &mut [Task<'_>]) {
        for _ in 0..2000 {
            for task in tasks.iter_mut() {
                let _ = futures::poll!(task.as_mut());
            }
            tokio::task::yield_now().await;
        }
    }

    fn lost(ended: Ended) {
        panic!("the connection has ended: {ended}");
    }

    /// The two ends of a connection whose other side writes these bytes, and stays.
    fn connection<'a>(mut receiver: Receiver<'a>, bytes: Bytes, written: &'a Cell<usize>) -> [Task<'a>; 2] {
        let (mut theirs, mut ours) = duplex(PIPE);
        let reads = async move { lost(receiver.run(&mut ours).await) };
        let writes = async move {
            for piece in bytes.chunks(PIPE) {
                theirs.write_all(piece).await.expect("somebody reads");
                written.set(written.get() + piece.len());
            }
            std::future::pending::<()>().await;
        };
        [Box::pin(reads), Box::pin(writes)]
    }

    const MIB: usize = 1 << 20;
    const PIPE: usize = 1024;

    /// How much is held of them shows in how much they could write.
    #[tokio::test]
    async fn b14_half_frames_of_strangers_hold_no_more_than_their_share() {
        const PART: usize = 500 << 10;
        let (room, mailbox, limits) = (Room::new(4 * MIB), Mailbox::new(64 * MIB), Limits::default());
        let written: Vec<Cell<usize>> = (0..8).map(|_| Cell::new(0)).collect();
        let by_replica = Cell::new(0);
        let mut tasks: Vec<Task<'_>> = Vec::new();
        for (id, written) in (0..).zip(&written) {
            let stranger = receiver(Peer::Client(ClientId(id)), limits, &mailbox, &room);
            tasks.extend(connection(stranger, frame(1, 600 << 10).slice(..PART), written));
        }
        settle(&mut tasks).await;
        let total: usize = written.iter().map(Cell::get).sum();
        let Held { clients, .. } = *room.held();
        assert!(clients <= MIB, "{clients} bytes are set aside for clients");
        assert!(total <= MIB + 8 * BUFFER_OF_CLIENT, "{total} bytes of half frames were taken");
        assert_eq!(written[0].get(), PART, "who came first is read");
        // A replica gets through all the same.
        let replica = receiver(Peer::Replica(ReplicaId(1)), limits, &mailbox, &room);
        tasks.extend(connection(replica, frame(2, 900 << 10), &by_replica));
        settle(&mut tasks).await;
        let arrivals = mailbox.recv().now_or_never().expect("it has arrived").expect("a mailbox works");
        assert!(matches!(&arrivals[..], [NetworkEvent::Message { message: Message::Query { nonce: 2, .. }, .. }]));
        assert_eq!(room.held().replicas, 0);
        // When the first one goes, the next one is read.
        drop(tasks.remove(0));
        settle(&mut tasks).await;
        assert_eq!(written[1].get(), PART);
    }

    #[tokio::test]
    async fn frames_of_every_length_arrive_in_order_however_they_are_cut() {
        let limits = Limits { meta_max: 200 << 10, ..Limits::default() };
        let around = |len: usize| (len - 130..len + 10).step_by(10);
        let lens: Vec<usize> = [0, 1, 100, 4000]
            .into_iter()
            .chain(around(BUFFER_OF_CLIENT))
            .chain([300 << 10, 3])
            .chain(around(BUFFER_OF_REPLICA))
            .chain([150 << 10, 201 << 10, 2, 199 << 10])
            .collect();
        let mut bytes = Vec::new();
        for (nonce, len) in (0..).zip(&lens) {
            bytes.extend_from_slice(&frame(nonce, *len));
            bytes.extend_from_slice(&keep_alive().expect("a frame").head);
        }
        let fits = |(_, len): &(u64, usize)| *len < 200 << 10;
        let expected: Vec<(u64, usize)> = (0..).zip(lens).filter(fits).collect();
        for peer in [Peer::Replica(ReplicaId(1)), Peer::Client(ClientId(1))] {
            for pipe in [977, 20_000, 4 * MIB] {
                let (room, mailbox) = (Room::new(MIB), Mailbox::new(64 * MIB));
                let (mut theirs, mut ours) = duplex(pipe);
                let mut receiver = receiver(peer, limits, &mailbox, &room);
                let writes = async {
                    theirs.write_all(&bytes).await.expect("somebody reads");
                    drop(theirs);
                };
                let (ended, ()) = tokio::join!(receiver.run(&mut ours), writes);
                assert!(matches!(ended, Ended::Closed), "{ended}");
                let arrivals =
                    mailbox.recv().await.expect("a mailbox works").into_iter().map(|arrival| match arrival {
                        NetworkEvent::Message { message: Message::Query { nonce, query, .. }, .. } => {
                            (nonce, query.len())
                        }
                        other => panic!("{other:?} was never sent"),
                    });
                assert_eq!(arrivals.collect::<Vec<_>>(), expected, "{peer:?}, {pipe} bytes at a time");
                let Held { replicas, clients } = *room.held();
                assert_eq!((replicas, clients), (0, 0), "bytes are held for nothing");
            }
        }
    }
}
