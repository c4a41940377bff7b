//! Partial connectivity (OmniPaxos, EuroSys 2023): time-outs until the cluster serves again. The yardstick is
//! four; the numbers are printed (`cargo nextest run -p vsr-sim topology --no-capture`).

use std::time::Duration;

use vsr::ClientId;
use vsr_sim::script::Script;

/// Cuts links, then measures how many suspicion time-outs pass until a request sent to every replica commits.
fn time_outs_until_progress(name: &str, s: &mut Script, client: ClientId, at_most: u32) {
    let suspect = vsr::Timing::default().suspect;
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

/// NW-02: r0 - r1 - r2, with r0 primary.
#[test]
fn nw_02_topology_chain_of_three() {
    let (mut s, client) = started(3);
    s.cut(0, 2);
    time_outs_until_progress("chain of three", &mut s, client, 4);
    // r2 is told of no new op: only the primary's own messages move a head (rule 6.7). It catches up later.
    s.settle();
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
