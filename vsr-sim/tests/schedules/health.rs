//! Words that an operator acts on: `explain` and the health that `status` shows never say "normal" while nothing can
//! commit.

use vsr::ReplicaId;
use vsr::protocol::{Health, Refusals};
use vsr_sim::script::Script;

use crate::support::{ms, until, write};

fn health(s: &Script, at: usize) -> Health {
    s.core(at).health(&Refusals::new())
}

fn explain(s: &Script, at: usize) -> String {
    s.core(at).explain()
}

/// Time passes, and at no moment does the replica say that all is well.
fn never_normal(s: &mut Script, at: usize, millis: u64) {
    for _ in 0..millis / 5 {
        s.pass(ms(5));
        assert!(!health(s, at).is_normal() && !explain(s, at).contains("normal"), "{}", s.describe(at));
    }
}

#[test]
fn a_lone_backup_never_says_normal() {
    let mut s = Script::new(3);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    for at in 0..3 {
        s.crash(at);
    }
    // It comes back as a backup in normal operation, by what its disk says.
    s.restart(1);
    assert_eq!(health(&s, 1), Health::NoQuorum, "{}", s.describe(1));
    never_normal(&mut s, 1, 3000);
    assert!(explain(&s, 1).contains("no quorum is heard, 1 of 2"), "{}", s.describe(1));
    assert!(explain(&s, 1).contains("r0") && explain(&s, 1).contains("r2"), "{}", s.describe(1));
    s.settle();
    assert_eq!(health(&s, 1), Health::Normal, "{}", s.describe(1));
    assert!(explain(&s, 1).contains("normal"), "{}", s.describe(1));
}

#[test]
fn a_primary_whose_backups_are_gone_does_not_say_normal() {
    let mut s = Script::new(3);
    s.crash(1);
    s.crash(2);
    s.pass(ms(500));
    never_normal(&mut s, 0, 2000);
    assert_eq!(health(&s, 0), Health::NoQuorum, "{}", s.describe(0));
    for at in [1, 2] {
        s.restart(at);
    }
    // It has given up its role meanwhile: the next one takes it.
    until(&mut s, "all is well again", |s| (0..3).all(|at| health(s, at).is_normal()));
    s.settle();
}

/// The others hear each other, and no quorum is missing: only this one is cut off from the primary.
#[test]
fn a_backup_that_only_misses_its_primary_names_it() {
    let mut s = Script::new(3);
    s.cut_one_way(0, 2);
    s.pass(ms(3000));
    assert!(!health(&s, 2).is_normal(), "{}", s.describe(2));
    assert!(explain(&s, 2).contains("r0"), "{}", s.describe(2));
    assert!(health(&s, 0).is_normal(), "{}", s.describe(0));
    s.settle();
}

#[test]
fn a_hung_disk_is_named() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.hold_disk(2);
    write(&mut s, 0, client, 1, b"a");
    assert!(health(&s, 2).is_normal(), "a write takes its time: {}", s.describe(2));
    until(&mut s, "the disk is said to hang", |s| health(s, 2) == Health::DiskHangs);
    assert!(explain(&s, 2).contains("the disk hangs") && !explain(&s, 2).contains("normal"), "{}", s.describe(2));
    assert!(health(&s, 0).is_normal(), "the others go on: {}", s.describe(0));
    s.settle();
    assert!(health(&s, 2).is_normal(), "{}", s.describe(2));
}

#[test]
fn a_full_disk_is_named() {
    for at in [0, 2] {
        let mut s = Script::new(3);
        s.set_room(at, 10_000);
        s.pass(ms(50));
        assert_eq!(health(&s, at), Health::NoRoom, "{}", s.describe(at));
        assert!(explain(&s, at).contains("no room") && !explain(&s, at).contains("normal"), "{}", s.describe(at));
        s.set_room(at, u64::MAX);
        // A primary has given up its role meanwhile: the next one takes it.
        until(&mut s, "all is well again", |s| health(s, at).is_normal());
        s.settle();
    }
}

/// Everybody is heard, and yet nothing commits: acknowledgements alone are lost.
#[test]
fn a_head_above_the_commit_number_for_long_is_named() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let rule = s.lose(|f| f.name() == "PrepareOk");
    write(&mut s, 0, client, 1, b"a");
    assert!(health(&s, 0).is_normal(), "a commit takes its time: {}", s.describe(0));
    until(&mut s, "it is said to stall", |s| health(s, 0) == Health::Stalled);
    assert!(explain(&s, 0).contains("nothing has committed for 2.") && !explain(&s, 0).contains("normal"));
    s.release(rule);
    until(&mut s, "all is well again", |s| health(s, 0).is_normal());
    assert_eq!(s.core(0).commit_stalled(), std::time::Duration::ZERO);
    s.settle();
}

#[test]
fn a_replica_that_its_peers_refuse_says_by_whom_and_why() {
    let mut s = Script::new(3);
    s.pass(ms(500));
    let by =
        |ids: &[u8]| -> Refusals { ids.iter().map(|id| (ReplicaId(*id), "this is an old copy".to_owned())).collect() };
    let core = s.core(2);
    assert!(core.health(&by(&[])).is_normal() && core.explain_refused(&by(&[])).contains("normal"));
    // One that refuses leaves a quorum of the others.
    assert!(core.health(&by(&[1])).is_normal());
    let one = core.explain_refused(&by(&[1]));
    assert!(one.contains("refused by replica 1: this is an old copy") && !one.contains("normal"), "{one}");
    assert_eq!(core.health(&by(&[0, 1])), Health::Refused);
    let both = core.explain_refused(&by(&[0, 1]));
    assert!(both.contains("replica 0") && both.contains("replica 1") && !both.contains("normal"), "{both}");
    // Nor may it pass for one that merely waits where the others are down.
    s.crash(0);
    s.lose(|f| f.is(1, 2));
    s.pass(ms(2000));
    assert_eq!(s.core(2).health(&by(&[1])), Health::Refused, "{}", s.describe(2));
    assert_eq!(health(&s, 2), Health::NoQuorum, "{}", s.describe(2));
    s.settle();
}

#[test]
fn a_cluster_of_one_is_its_own_quorum() {
    let mut s = Script::new(1);
    let client = s.register(0);
    write(&mut s, 0, client, 1, b"a");
    s.pass(ms(1000));
    assert_eq!(health(&s, 0), Health::Normal, "{}", s.describe(0));
}
