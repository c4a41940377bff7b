//! What waits to be written to one connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use vsr::wire::Frame;

/// Pieces handed to the operating system at once.
const SLICES_MAX: usize = 64;

/// A bounded queue that drops rather than block.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Queue {
        Queue { waiting: Mutex::default(), changed: Notify::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the frame was taken.
    pub(crate) fn push(&self, frame: Frame) -> bool {
        let len = frame.len();
        let mut waiting = self.lock();
        if waiting.closed || waiting.bytes + len > self.bytes_max {
            return false;
        }
        waiting.bytes += len;
        waiting.pieces.push_back(frame.head);
        waiting.pieces.extend(frame.bodies.into_iter().filter(|body| !body.is_empty()));
        true
    }

    /// Frames were pushed.
    pub(crate) fn notify(&self) {
        self.changed.notify_one();
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Writes what is pushed, many messages at once, until the queue is closed. After `idle` without
    /// anything it writes `keep_alive`.
    pub(crate) async fn write_to(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        idle: Duration,
        keep_alive: &Bytes,
        sent: &metrics::Counter,
    ) -> io::Result<()> {
        let mut pieces = VecDeque::new();
        loop {
            {
                let mut waiting = self.lock();
                if waiting.closed {
                    return Ok(());
                }
                std::mem::swap(&mut pieces, &mut waiting.pieces);
            }
            if pieces.is_empty() {
                if tokio::time::timeout(idle, self.changed.notified()).await.is_ok() {
                    continue;
                }
                stream.write_all(keep_alive).await?;
                continue;
            }
            let bytes: usize = pieces.iter().map(Bytes::len).sum();
            write_all(stream, &mut pieces).await?;
            self.lock().bytes -= bytes;
            sent.increment(bytes as u64);
        }
    }
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !pieces.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&*pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let mut written = stream.write_vectored(&slices[..count]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = pieces.front_mut() {
            let take = written.min(front.len());
            front.advance(take);
            written -= take;
            if !front.is_empty() {
                break;
            }
            pieces.pop_front();
        }
    }
    Ok(())
}
