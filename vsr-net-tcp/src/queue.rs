//! What waits to be written to one connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use vsr::wire::{Frame, keep_alive};

/// Pieces handed to the operating system at once.
const SLICES_MAX: usize = 64;

/// A bounded queue that drops rather than block.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    bytes_max: usize,
    total: Option<Arc<Total>>,
}

/// The bytes that wait in many queues together.
pub(crate) struct Total {
    bytes: AtomicUsize,
    max: usize,
    /// Bytes that each queue may hold, however full the others are.
    share: usize,
}

impl Total {
    /// Bounds for this many queues.
    pub(crate) fn new(max: usize, queues: usize) -> Arc<Total> {
        Arc::new(Total { bytes: AtomicUsize::new(0), max, share: max / queues.max(1) })
    }

    /// Whether a queue that holds so many bytes may take more.
    fn take(&self, held: usize, more: usize) -> bool {
        let is_free = held + more <= self.share;
        let take = |bytes: usize| (is_free || bytes + more <= self.max).then_some(bytes + more);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize, total: Option<Arc<Total>>) -> Queue {
        Queue { waiting: Mutex::default(), changed: Notify::new(), bytes_max, total }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the frame was taken.
    pub(crate) fn push(&self, frame: Frame) -> bool {
        let len = frame.len();
        let mut waiting = self.lock();
        // An empty queue takes a frame of any length: one that is over the bound would never get through.
        let is_full = waiting.bytes > 0 && waiting.bytes + len > self.bytes_max;
        if waiting.closed || is_full || self.total.as_ref().is_some_and(|total| !total.take(waiting.bytes, len)) {
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

    /// Has something written at once, so that a broken connection is noticed.
    pub(crate) fn probe(&self) {
        if keep_alive().is_ok_and(|frame| self.push(frame)) {
            self.notify();
        }
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
            if let Some(total) = &self.total {
                total.give_back(bytes);
            }
            sent.increment(bytes as u64);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            total.give_back(self.lock().bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Frame {
        Frame { head: Bytes::from(vec![0; len]), bodies: Vec::new() }
    }

    #[test]
    fn b14_clients_that_do_not_read_hold_no_more_than_the_bound_together() {
        let total = Total::new(1000, 10);
        let queues: Vec<Queue> = (0..10).map(|_| Queue::new(600, Some(total.clone()))).collect();
        for queue in &queues[..2] {
            while queue.push(frame(50)) {}
        }
        assert_eq!(total.bytes.load(Ordering::Relaxed), 1000);
        // Each of the others has its own share all the same.
        for queue in &queues[2..] {
            assert!(queue.push(frame(100)));
            assert!(!queue.push(frame(1)));
        }
        drop(queues);
        assert_eq!(total.bytes.load(Ordering::Relaxed), 0, "what was held is given back");
    }

    #[test]
    fn b10_a_frame_over_the_bound_is_taken_when_nothing_else_waits() {
        let queue = Queue::new(100, None);
        assert!(queue.push(frame(1000)));
        assert!(!queue.push(frame(1)));
    }
}
