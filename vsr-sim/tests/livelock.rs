//! Runs in which time does not move on end, and say who keeps it.

use std::time::Duration;

use async_trait::async_trait;
use vsr::Network;
use vsr::network::{NetworkError, NetworkEvent};
use vsr::protocol::{Envelope, Peer};
use vsr_sim::check::Violation;
use vsr_sim::{Options, Registers, SimSocket, Simulation, Verdict};

/// A network that always has news, and they are none.
struct Restless {
    socket: SimSocket,
    /// For clients; else for replicas.
    of_clients: bool,
}

#[async_trait]
impl Network for Restless {
    fn send(&self, batch: &mut Vec<Envelope>) {
        batch.clear();
    }

    async fn recv(&self) -> Result<Vec<NetworkEvent>, NetworkError> {
        if self.of_clients != matches!(self.socket.own(), Peer::Client(_)) {
            self.socket.recv().await;
        }
        Ok(Vec::new())
    }
}

fn found(of_clients: bool) -> Violation {
    let simulation = Simulation::with_queries(Options::calm(1, 1), Registers::default, Registers::step);
    let report = simulation.network(move |socket| Restless { socket, of_clients }).run();
    assert!(report.simulated < Duration::from_millis(1), "{:?} have passed", report.simulated);
    match report.verdict {
        Verdict::Safety(violation) => violation,
        verdict => panic!("{verdict}"),
    }
}

/// A replica whose every turn finds something to do never waits: each poll ends, and the next one is due at once.
#[test]
fn a_replica_that_is_polled_again_and_again_at_one_instant_ends_the_run() {
    let Violation { checker, message, .. } = found(false);
    assert_eq!(checker, "time-moves-on");
    let words = "r0 takes 100001 turns in 0ns";
    assert!(message.starts_with(words) && message.contains("takes in and sends nothing"), "{message}");
}

/// A client goes on as long as there is something to do: one poll of it never ends, and is left.
#[test]
fn a_poll_that_never_ends_ends_the_run() {
    let Violation { checker, message, .. } = found(true);
    assert_eq!(checker, "time-moves-on");
    assert!(message.starts_with('c') && message.ends_with("a poll of it does not end"), "{message}");
}
