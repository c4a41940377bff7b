//! What a member makes of the pings of disks that take the place of a lost one (rule 7.19). Whole replacements are in `vsr-sim/tests/schedules`.

use super::cluster::Cluster;
use crate::protocol::types::life::{Distrust, Known, Life, Succession};
use crate::protocol::types::message::{Message, Ping};
use crate::protocol::types::number::{CommitNumber, DiskId, OpNumber, ReplicaId};

const LOST: ReplicaId = ReplicaId(2);

/// A ping of replica 2 with this disk.
fn ping(c: &Cluster, disk_id: u128, succession: Succession, commit: OpNumber) -> Message {
    let core = c.core(0);
    let ping = Ping {
        view: core.view(),
        normal: true,
        commit: CommitNumber(commit.0),
        head: core.head(),
        wall: Default::default(),
        past: Default::default(),
        machine_version: 1,
        head_certain: true,
        has_room: true,
        life: Life { disk_id: DiskId(disk_id), starts: 1, nonce: 1 },
        succession,
        known: Vec::new(),
        digests: Vec::new(),
    };
    Message::Ping(ping.into())
}

/// Three replicas, the third of which is gone.
fn without_the_third() -> Cluster {
    let mut c = Cluster::new();
    c.crash(2);
    c
}

fn known(c: &Cluster) -> Known {
    *c.core(0).known().iter().find(|known| known.replica == LOST).unwrap()
}

fn distrust(c: &Cluster) -> Option<Distrust> {
    c.core(0).distrusted().find(|(id, _)| *id == LOST).map(|(_, why)| why)
}

/// What a primary has inherited may put a later disk there than the one that asks: a ping may be late.
#[test]
fn a_primary_prepares_no_replacement_before_it_knows_what_it_has_inherited() {
    for knows in [false, true] {
        let mut c = without_the_third();
        let head = c.core(0).head();
        c.core_mut(0).reads.inherited_head = if knows { head } else { head.next() };
        let asks = ping(&c, 77, Succession::Asking, OpNumber::ZERO);
        c.receive(0, 2, asks);
        assert_eq!(c.core(0).head(), if knows { head.next() } else { head });
        assert_eq!(distrust(&c), Some(Distrust::Rejoins));
    }
}

/// A disk that was given up in its turn knew nothing of the op of its successor. What it said counts for nothing when it comes.
#[test]
fn a_late_ping_of_a_disk_that_was_given_up_changes_nothing() {
    for (commit, is_late) in [(OpNumber(8), true), (OpNumber(9), false)] {
        let mut c = without_the_third();
        let counts = ping(&c, 78, Succession::Whole { op: OpNumber(9) }, OpNumber(9));
        c.receive(0, 2, counts);
        let (before, head) = (known(&c), c.core(0).head());
        for succession in [Succession::Asking, Succession::Appointed { op: OpNumber(7), view: c.core(0).view() }] {
            let late = ping(&c, 77, succession, commit);
            c.receive(0, 2, late);
        }
        assert_eq!(known(&c), before);
        assert_eq!((distrust(&c).is_none(), c.core(0).head() == head), (is_late, is_late), "{commit}");
    }
}

/// A disk that counts has its place by an op that is committed: whoever has not heard of that op hears of it from the disk. Of two the later op
/// decides.
#[test]
fn a_disk_that_counts_says_which_op_put_it_there() {
    let mut c = without_the_third();
    assert_eq!((known(&c).life.disk_id, known(&c).since), (DiskId(1002), OpNumber::ZERO));
    for (disk_id, op, counts) in [(77, 9, true), (78, 12, true), (77, 9, false), (79, 12, false)] {
        let whole = ping(&c, disk_id, Succession::Whole { op: OpNumber(op) }, OpNumber(op));
        c.receive(0, 2, whole);
        assert_eq!(known(&c).life.disk_id == DiskId(disk_id), counts, "{disk_id}");
        assert_eq!(distrust(&c).is_none(), counts);
        assert_eq!(known(&c).since, OpNumber(if disk_id == 77 && counts { 9 } else { 12 }));
    }
}
