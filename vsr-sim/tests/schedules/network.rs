//! Lossy, slow and missing links. For partial connectivity (OmniPaxos, EuroSys 2023): time-outs until the cluster
//! serves again. The yardstick is four; the numbers are printed (`cargo nextest run -p vsr-sim topology --no-capture`).

use std::cell::RefCell;
use std::time::Duration;

use vsr::ClientId;
use vsr::protocol::{Peer, Random};
use vsr_sim::script::Script;

use crate::support::{between_replicas, ms, numbers, replica, write};

/// NW-01: loss, repetition, delays up to 0.3 s and any order: progress, and everything once, in order. (The
/// seeds of the simulator go on for longer.)
#[test]
fn nw_01_loss_repetition_and_reordering_stop_nothing() {
    let mut s = Script::new(5);
    let client = s.register(0);
    let dice = RefCell::new(Random::new(1));
    s.lose(move |f| between_replicas(f) && dice.borrow_mut().chance(1, 4));
    let mut random = Random::new(2);
    let mut number = 1;
    for round in 0..200 {
        let dice = RefCell::new(Random::new(1000 + round));
        let late = s.hold(move |_| dice.borrow_mut().chance(1, 3));
        for at in 0..5 {
            s.submit(at, client, number, number.to_string().as_bytes());
        }
        s.pass(ms(random.below(300)));
        let mut held = s.held(late);
        s.forget(late);
        while !held.is_empty() {
            let any = random.below(held.len() as u64) as usize;
            let flight = held.swap_remove(any);
            if random.chance(1, 2) {
                s.inject(flight.clone());
            }
            s.inject(flight);
        }
        s.run();
        number += u64::from(s.reply(client, number).is_some());
    }
    assert!(number > 20, "{number} requests in 200 rounds");
    s.settle();
    let executed = s.executed(0);
    assert!(executed.len() as u64 >= number - 1 && executed == numbers(executed.len()), "{executed:?}");
}

/// L-27: with 30 % of all messages lost there is progress, and at most one view change in a minute.
#[test]
fn l_27_loss_stops_nothing_and_hardly_changes_views() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let dice = RefCell::new(Random::new(27));
    // Asked as a message leaves and, if it does not stay away for good, as it arrives: a quarter makes 30 %.
    s.lose(move |f| between_replicas(f) && dice.borrow_mut().chance(1, 4));
    let mut number = 1;
    for _ in 0..300 {
        let primary = (0..3).find(|&at| s.core(at).is_primary()).unwrap_or(0);
        s.submit(primary, client, number, number.to_string().as_bytes());
        s.pass(ms(200));
        number += u64::from(s.reply(client, number).is_some());
    }
    assert!(number > 150, "{number} requests in a minute");
    assert!(s.views_entered() <= s.len(), "{} views entered in a minute", s.views_entered());
    s.settle();
    assert_eq!(s.executed(0), numbers(s.executed(0).len()));
}

/// NW-09: the link between primary and one backup flaps: nobody waits, and no view changes.
#[test]
fn nw_09_a_flapping_link_changes_no_view() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let (mut number, mut cut) = (0, 0);
    for (span, times) in [(100, 300), (900, 34)] {
        for time in 0..times {
            if time % 2 == 1 {
                s.release(cut);
            } else {
                cut = s.cut(0, 1);
            }
            s.pass(ms(span));
            number += 1;
            write(&mut s, 0, client, number, b"w");
            assert!(s.reply(client, number).is_some(), "request {number}");
        }
    }
    assert!(s.views_entered() <= s.len(), "{} views entered in a minute", s.views_entered());
    s.settle();
    assert_eq!(s.executed(1).len() as u64, number);
}

/// NW-10: a replica that was isolated for long votes alone and raises no view; its return disturbs nobody.
#[test]
fn nw_10_an_isolated_replica_returns_without_a_view_change() {
    let mut s = Script::new(3);
    let client = s.register(0);
    s.isolate(2);
    for number in 1..=120 {
        write(&mut s, 0, client, number, b"w");
        s.pass(Duration::from_secs(1));
    }
    assert_eq!((s.view(2), s.core(2).head().0), (0, 1), "{}", s.describe(2));
    s.heal();
    for number in 121..=140 {
        write(&mut s, 0, client, number, b"w");
        assert!(s.reply(client, number).is_some(), "request {number}");
        s.pass(ms(100));
    }
    assert_eq!(s.views_entered(), 0);
    s.settle();
    assert_eq!(s.executed(2).len(), 140);
}

/// L-20: a client that is cut off from the primary alone makes progress through a backup.
#[test]
fn l_20_a_client_that_cannot_reach_the_primary_goes_through_a_backup() {
    let mut s = Script::new(3);
    let client = s.register(0);
    let own = Peer::Client(client);
    s.lose(move |f| (f.from == own && f.to == replica(0)) || (f.from == replica(0) && f.to == own));
    for number in 1..=10 {
        write(&mut s, 0, client, number, b"w");
        assert_eq!(s.reply(client, number), None);
        write(&mut s, 1, client, number, b"w");
        assert_eq!(s.reply(client, number), Some(number.to_string().into_bytes()));
    }
    assert_eq!(s.views_entered(), 0);
    s.settle();
    assert_eq!(s.executed(0).len(), 10);
}

/// Cuts links, then measures how many suspicion time-outs pass until a request sent to every replica commits.
fn time_outs_until_progress(name: &str, s: &mut Script, client: ClientId, at_most: u32) {
    let suspect = vsr::Timing::default().primary_timeout;
    let step = Duration::from_millis(20);
    let mut passed = Duration::ZERO;
    let views = s.views_entered();
    while s.reply(client, 2).is_none() {
        for at in 0..s.len() {
            s.submit(at, client, 2, b"after the cut");
        }
        s.pass(step);
        passed += step;
        assert!(passed < suspect * 40, "{name}: no progress after {passed:?}");
    }
    let time_outs = passed.as_secs_f64() / suspect.as_secs_f64();
    println!("{name}: progress after {time_outs:.1} time-outs, {} views entered", s.views_entered() - views);
    assert!(time_outs <= f64::from(at_most), "{name}: {time_outs:.1} time-outs");
    // Stable from here on.
    let views = s.views_entered();
    for number in 3..8 {
        for at in 0..s.len() {
            s.submit(at, client, number, b"on");
        }
        s.pass(Duration::from_secs(1));
        assert!(s.reply(client, number).is_some(), "{name}: request {number}");
    }
    let later = s.views_entered() - views;
    println!("{name}: {later} views entered in the five seconds after");
    assert!(later <= 2 * s.len(), "{name}: views go on changing");
}

fn started(n: usize) -> (Script, ClientId) {
    let mut s = Script::new(n);
    let client = s.register(0);
    s.submit(0, client, 1, b"before the cut");
    s.run();
    s.pass(Duration::from_millis(200));
    (s, client)
}

/// NW-02: r0 - r1 - r2, with r0 primary.
#[test]
fn nw_02_topology_chain_of_three() {
    let (mut s, client) = started(3);
    s.cut(0, 2);
    time_outs_until_progress("chain of three", &mut s, client, 4);
    // r2 is told of no new op: only the primary's own messages move a head (rule 6.7). It catches up later.
    s.settle();
}

fn only(s: &mut Script, links: &[(usize, usize)]) {
    for a in 0..s.len() {
        for b in 0..a {
            if !links.contains(&(a, b)) && !links.contains(&(b, a)) {
                s.cut(a, b);
            }
        }
    }
}

/// NW-03, D27: only the links of r3 are left; the old primary is a leaf.
#[test]
fn nw_03_d27_topology_star_of_five() {
    let (mut s, client) = started(5);
    only(&mut s, &[(3, 0), (3, 1), (3, 2), (3, 4)]);
    time_outs_until_progress("star of five", &mut s, client, 8);
}

/// The constrained election: as the star, but the center has a stale log.
#[test]
fn topology_constrained_the_center_is_behind() {
    let (mut s, client) = started(5);
    s.isolate(3);
    for number in 10..20 {
        s.submit_with_floor(0, client, number, 2, b"without r3");
        s.run();
    }
    s.heal();
    only(&mut s, &[(3, 0), (3, 1), (3, 2), (3, 4)]);
    time_outs_until_progress("constrained", &mut s, client, 8);
}

/// NW-05: {0, 1, 2} are a mesh, r3 knows only r1, r4 only r2.
#[test]
fn nw_05_topology_mesh_with_two_tails() {
    let (mut s, client) = started(5);
    only(&mut s, &[(0, 1), (1, 2), (0, 2), (3, 1), (4, 2)]);
    time_outs_until_progress("mesh with two tails", &mut s, client, 8);
}

/// NW-06, D29: the primary sends and does not hear.
#[test]
fn nw_06_d29_topology_deaf_primary() {
    let (mut s, client) = started(3);
    s.cut_one_way(1, 0);
    s.cut_one_way(2, 0);
    time_outs_until_progress("deaf primary", &mut s, client, 4);
}

/// NW-07: the primary hears and does not send.
#[test]
fn nw_07_topology_mute_primary() {
    let (mut s, client) = started(3);
    s.cut_one_way(0, 1);
    s.cut_one_way(0, 2);
    time_outs_until_progress("mute primary", &mut s, client, 4);
}

/// B26: a replica outside the core that hears nothing goes on voting; the others do not follow it.
#[test]
fn b26_topology_deaf_backup() {
    let (mut s, client) = started(3);
    s.cut_one_way(0, 2);
    s.cut_one_way(1, 2);
    time_outs_until_progress("deaf backup", &mut s, client, 4);
}
