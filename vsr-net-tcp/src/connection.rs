//! An open connection: one half writes the queue, the other reads frames, until either ends.

use std::sync::Arc;

use metrics::counter;
use tokio::net::TcpStream;
use vsr::protocol::Peer;
use vsr::wire::{Limits, keep_alive};

use crate::mailbox::Mailbox;
use crate::options::TcpOptions;
use crate::queue::Queue;
use crate::receive::{Ended, Receiver, Room, reason};

/// Runs a connection to its end.
pub(crate) async fn run(
    mut stream: TcpStream,
    peer: Peer,
    queue: Arc<Queue>,
    mailbox: &Mailbox,
    room: &Room,
    options: &TcpOptions,
    limits: Limits,
) -> Ended {
    // Many small messages wait for each other otherwise.
    let _ = stream.set_nodelay(true);
    let sent = counter!("vsr_net_sent_bytes_total");
    let received = counter!("vsr_net_received_bytes_total");
    let alive = keep_alive().map(|frame| frame.head).unwrap_or_default();
    let silence_max = options.keep_alive * 4;
    let mut receiver = Receiver { peer, limits, silence_max, mailbox, room, received, skip: 0, passed_over: None };
    let (mut from, mut to) = stream.split();
    let ended = tokio::select! {
        biased;
        ended = receiver.run(&mut from) => ended,
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
