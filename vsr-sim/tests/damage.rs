//! Damage that stays: places that stay bad, records that are lost whole, syncs that fail, and writes for which there is no room.

use bytes::Bytes;
use vsr::protocol::{Batch, DiskId, Entry, Header, OpNumber, Slot, VsrState};
use vsr::{Checksum, ClusterId, Membership, ReplicaId};
use vsr_sim::conformance::storage::entry;
use vsr_sim::faults::Unsynced;
use vsr_sim::scenario::{Failure, play};
use vsr_sim::{Options, Ppm, Registers, SimDisk, Simulation};

const CLUSTER: ClusterId = ClusterId(1);

/// A disk with so many ops, and the checksum of the last.
fn disk(ops: u64) -> (SimDisk, Checksum) {
    let membership = Membership::new(["r0", "r1", "r2"]).expect("a membership");
    let mut disk = SimDisk::new(VsrState::formatted(CLUSTER, ReplicaId(0), DiskId(1), membership));
    let mut parent = Header::root(CLUSTER);
    for op in 1..=ops {
        let next = an_entry(op, parent);
        parent = next.header.checksum();
        put(&mut disk, next);
    }
    (disk, parent)
}

fn an_entry(op: u64, parent: Checksum) -> Entry {
    entry(op, 0, parent, Bytes::from_static(b"a body"))
}

fn begin(disk: &mut SimDisk, entry: Entry) {
    disk.begin(Batch { entries: vec![entry], ..Batch::default() });
}

fn put(disk: &mut SimDisk, entry: Entry) {
    begin(disk, entry);
    disk.complete();
}

#[test]
fn a_bad_place_keeps_nothing_however_often_it_is_written_until_the_disk_has_another() {
    let (mut disk, _) = disk(3);
    let again = disk.intact(OpNumber(2)).expect("it is there").clone();
    assert!(disk.spoil(OpNumber(2), 2) && !disk.spoil(OpNumber(2), 2), "it is bad once");
    assert!(disk.is_damaged(OpNumber(2)));
    for _ in 0..2 {
        put(&mut disk, again.clone());
        assert_eq!(disk.intact(OpNumber(2)), None, "a repair that did not last");
        assert_eq!(disk.recover().slots[1], Slot::Corrupt(Some(again.header)));
    }
    put(&mut disk, again.clone());
    assert_eq!(disk.intact(OpNumber(2)), Some(&again));
}

#[test]
fn a_place_can_be_bad_before_anything_is_there() {
    let (mut disk, parent) = disk(3);
    assert!(disk.spoil(OpNumber(4), u64::MAX));
    put(&mut disk, an_entry(4, parent));
    assert_eq!((disk.intact(OpNumber(4)), disk.is_damaged(OpNumber(4))), (None, true));
}

#[test]
fn records_that_are_lost_whole_leave_an_uncertain_end_and_elsewhere_an_unreadable_slot() {
    let (mut disk, parent) = disk(3);
    let fourth = an_entry(4, parent);
    begin(&mut disk, fourth.clone());
    disk.complete_without_a_trace(|_| false);
    let recovered = disk.recover();
    assert_eq!((recovered.slots.len(), recovered.head_certain), (3, false), "there may have been more");
    put(&mut disk, an_entry(5, fourth.header.checksum()));
    let recovered = disk.recover();
    assert_eq!((&recovered.slots[3], recovered.head_certain), (&Slot::Corrupt(None), true));
}

#[test]
fn what_a_failed_sync_has_left_is_there_after_a_restart_and_gone_after_a_power_loss() {
    for power_lost in [false, true] {
        let (mut disk, parent) = disk(3);
        begin(&mut disk, an_entry(4, parent));
        disk.fail_sync();
        assert_eq!(disk.head(), OpNumber(3), "it is not on the disk");
        if power_lost {
            assert!(disk.lose_power(Unsynced::Lost));
        }
        disk.write_back();
        assert_eq!(disk.head(), OpNumber(if power_lost { 3 } else { 4 }));
        assert!(!disk.lose_power(Unsynced::Lost), "what was written again is durable");
    }
}

/// Each class alone, at a cluster without other faults.
#[test]
fn damage_that_stays_costs_neither_an_acknowledged_op_nor_the_service() {
    type Class = (&'static str, fn(&mut Options));
    let classes: [Class; 3] = [
        ("bad sectors", |options| options.bad_sector_every = std::time::Duration::from_millis(20)),
        ("records lost whole", |options| options.lost_records = Ppm(3000)),
        ("failed syncs", |options| options.failed_syncs = Ppm(3000)),
    ];
    for (name, turn_on) in classes {
        let mut happened = 0;
        for seed in 0..10 {
            let mut options = Options::calm(seed, 3);
            turn_on(&mut options);
            let report = Simulation::with_queries(options, Registers::default, Registers::step).run();
            assert!(!report.verdict.is_failure(), "{name}, seed {seed}: {}", report.verdict);
            happened += report.trace.counted(name);
        }
        assert!(happened > 0, "{name} never happened");
    }
}

/// `room` says that there is some, and a write finds none: nothing of it is written, and the replica waits for room. It does not
/// stop.
#[test]
fn a_write_that_finds_no_room_is_no_reason_to_stop() {
    let played = play(
        "cluster 3\nrequest c0 add 0 1\nuntil c0 idle\nno-space r1 2s\nrequest c0 add 0 10\nuntil c0 idle within 1s\n\
         expect c0 heard 11\ntick 3s\nexpect r1 applied=3\nexpect views<=0\nsettle\ncheck\n",
    );
    assert_eq!(played.failure, None);
    assert!(played.report.trace.counted("writes without room") > 0);
}

/// The world knows which stop has a cause.
#[test]
fn a_replica_whose_sync_fails_stops_and_is_back_when_syncs_succeed() {
    let played = play(
        "cluster 3\nrequest c0 add 0 1\nuntil c0 idle\ntick 100ms\nwrite r2 6 sync-fails 1s\nrequest c0 add 0 10\nuntil c0 idle within 1s\n\
         until r2 down within 1s\nrestart r2\ntick 10ms\nexpect r2 down\ntick 1s\nrestart r2\nuntil r2 applied>=3 within 5s\n\
         settle\ncheck\n",
    );
    assert_eq!(played.failure, None);
    assert_eq!(played.report.trace.counted("stopped by its disk"), 2);
}

#[test]
fn a_bad_sector_in_a_scenario_is_one_fault_and_a_second_time_none() {
    let text = "cluster 3\nrequest c0 add 0 1\nuntil c0 idle\nbad-sector r1 op=2\nexpect c0 heard 1\n";
    assert_eq!(play(text).failure, None);
    let twice = play(&format!("{text}bad-sector r1 op=2\n")).failure;
    assert!(matches!(&twice, Some(Failure::Unmet { line: 6, why }) if why.contains("has no effect")), "{twice:?}");
}
