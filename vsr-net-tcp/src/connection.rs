//! An open connection: one half writes the queue, the other reads frames, until either ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use metrics::{Counter, counter};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use vsr::wire::{FrameHeader, HEADER_LEN, Limits, WireError, decode, is_keep_alive, keep_alive};
use vsr::{Arrival, Peer};

use crate::mailbox::Mailbox;
use crate::options::TcpOptions;
use crate::queue::Queue;

/// Bytes for which room is made before they arrive: a length that a peer claims allocates no more.
const READ_STEP: usize = 256 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("closed by the other side")]
    Closed,
    #[error("replaced by a newer connection")]
    Replaced,
}

/// Runs a connection to its end.
pub(crate) async fn run(
    mut stream: TcpStream,
    peer: Peer,
    queue: Arc<Queue>,
    mailbox: &Mailbox,
    options: &TcpOptions,
    limits: Limits,
) -> Ended {
    // Many small messages wait for each other otherwise.
    let _ = stream.set_nodelay(true);
    let sent = counter!("vsr_net_sent_bytes_total");
    let received = counter!("vsr_net_received_bytes_total");
    let alive = keep_alive().map(|frame| frame.head).unwrap_or_default();
    let (mut from, mut to) = stream.split();
    let ended = tokio::select! {
        biased;
        ended = read(&mut from, peer, mailbox, options.keep_alive * 4, limits, &received) => ended,
        written = queue.write_to(&mut to, options.keep_alive, &alive, &sent) => match written {
            Ok(()) => Ended::Replaced,
            Err(error) => Ended::Io(error),
        },
    };
    queue.close();
    if let Ended::Wire(error) = &ended {
        counter!("vsr_net_bad_frames_total", "reason" => reason(error)).increment(1);
        tracing::warn!(?peer, %error, "connection closed");
    } else {
        tracing::debug!(?peer, why = %ended, "connection ended");
    }
    ended
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

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    peer: Peer,
    mailbox: &Mailbox,
    silence_max: Duration,
    limits: Limits,
    received: &Counter,
) -> Ended {
    let mut buffer = BytesMut::new();
    let mut arrivals = Vec::new();
    let mut skip = 0;
    loop {
        let before = buffer.len();
        let missing = match take_frames(&mut buffer, &mut skip, peer, limits, &mut arrivals) {
            Ok(missing) => missing,
            Err(error) => return error.into(),
        };
        if !arrivals.is_empty() {
            mailbox.deliver(&mut arrivals, before - buffer.len()).await;
        }
        buffer.reserve(missing.min(READ_STEP));
        match tokio::time::timeout(silence_max, stream.read_buf(&mut buffer)).await {
            Err(_) => return Ended::Silent(silence_max),
            Ok(Err(error)) => return error.into(),
            Ok(Ok(0)) => return Ended::Closed,
            Ok(Ok(bytes)) => received.increment(bytes as u64),
        }
    }
}

/// Takes every whole frame out of the buffer. How many bytes the next one lacks, at least. A frame over the limits is passed over: `skip`
/// bytes of it are still to come.
fn take_frames(
    buffer: &mut BytesMut,
    skip: &mut usize,
    peer: Peer,
    limits: Limits,
    arrivals: &mut Vec<Arrival>,
) -> Result<usize, WireError> {
    loop {
        let skipped = (*skip).min(buffer.len());
        buffer.advance(skipped);
        *skip -= skipped;
        let Some(header) = buffer.first_chunk::<HEADER_LEN>() else { return Ok(READ_STEP) };
        let header = FrameHeader::read(header)?;
        let whole = HEADER_LEN + header.payload_len();
        if let Err(error) = header.check(limits) {
            counter!("vsr_net_bad_frames_total", "reason" => reason(&error)).increment(1);
            tracing::warn!(?peer, %error, "a message was dropped");
            *skip = whole;
            continue;
        }
        if buffer.len() < whole {
            return Ok(whole - buffer.len());
        }
        let payload: Bytes = buffer.split_to(whole).freeze().slice(HEADER_LEN..);
        if !is_keep_alive(&header, &payload) {
            let message = decode(&header, payload)?;
            arrivals.push(Arrival::Message { from: peer, message });
        }
    }
}
