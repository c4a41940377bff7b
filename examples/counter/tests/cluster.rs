//! The counter's program as people use it: processes, sockets, files.

mod support;

use std::process::Output;

use support::{configure, counter, last_line, scrape, start};

fn assert_pass(output: &Output) {
    let line = last_line(output);
    assert!(output.status.success() && line.ends_with("verdict=pass"), "{output:?}");
    let number = |name: &str| {
        let field = line.split(' ').find_map(|field| field.strip_prefix(name)).expect("the field");
        field.parse::<u64>().expect("a number")
    };
    assert_eq!(number("acknowledged="), number("counted="));
    assert!(number("acknowledged=") > 100, "{line}");
}

/// The demo names the primary, its view, and the view that has answered: a later one. It used to name a view that had not.
fn assert_views_are_told(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("primary ")).unwrap_or_default();
    let after = |words: &str| -> Option<u64> { line.split_once(words)?.1.split(' ').next()?.parse().ok() };
    let told = (after("primary "), after(" of view "), after("; view "));
    let (Some(primary), Some(left), Some(answered)) = told else { panic!("{line:?} in {text}") };
    assert_eq!(primary, left % 3, "{line}");
    assert!(answered > left, "{line}");
}

#[test]
fn the_demo_survives_the_death_of_its_primary() {
    let output = counter(&["demo", "--seconds", "1"]);
    assert_pass(&output);
    assert_views_are_told(&output);
}

#[test]
fn the_demo_survives_a_paused_primary() {
    let output = counter(&["demo", "--seconds", "1", "--harm", "pause"]);
    assert_pass(&output);
    assert_views_are_told(&output);
}

#[test]
fn the_soak_survives_a_few_rounds() {
    assert_pass(&counter(&["soak", "--rounds", "3"]));
}

#[test]
#[cfg(feature = "rocksdb")]
fn the_demo_passes_on_rocksdb() {
    assert_pass(&counter(&["demo", "--seconds", "1", "--storage", "rocksdb"]));
}

/// The walk of the book's chapter "Run a cluster": format, three replicas, add, get, status; and what a
/// Prometheus would scrape meanwhile.
#[test]
fn a_cluster_is_run_by_hand_and_shows_its_metrics() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path());
    let config = config.as_str();
    let missing = counter(&["replica", "--config", config, "--id", "0"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("is not formatted"), "{missing:?}");
    assert!(counter(&["format", "--config", config]).status.success());
    let again = counter(&["format", "--config", config]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"), "{again:?}");
    let replicas: Vec<_> = ["0", "1", "2"].iter().map(|id| start(config, id)).collect();
    // A second process of the same replica is refused, and does no harm.
    let second = counter(&["replica", "--config", config, "--id", "1"]);
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another process"), "{second:?}");
    for n in 1..=20 {
        let added = counter(&["add", "--config", config, "2"]);
        assert_eq!(last_line(&added), (2 * n).to_string(), "{added:?}");
    }
    assert_eq!(last_line(&counter(&["get", "--config", config])), "40");
    let status = counter(&["status", "--config", config]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.lines().count(), 3, "{status}");
    assert!(status.contains("primary") && status.contains("backup") && !status.contains("does not answer"), "{status}");
    for (id, replica) in replicas.iter().enumerate() {
        let text = scrape(&replica.metrics);
        let documented = vsr::METRICS.iter().chain(vsr_net_tcp::METRICS).map(|(name, ..)| *name);
        let on_every_replica = [
            "vsr_sync_seconds",
            "vsr_sync_entries",
            "vsr_view_changes_total",
            "vsr_commit_number",
            "vsr_queue_depth",
            "vsr_net_dropped_total",
            "vsr_net_sent_bytes_total",
            "vsr_log_bytes",
            "vsr_quorum",
            "vsr_normal",
            "vsr_commit_stalled_seconds",
            "vsr_write_under_way_seconds",
            "vsr_log_room_bytes",
            "vsr_refused_by",
        ];
        for name in on_every_replica {
            assert!(documented.clone().any(|known| known == name), "{name} is not documented");
            assert!(text.contains(name), "replica {id} does not show {name}: {text}");
        }
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap_or_default();
            assert!(documented.clone().any(|known| known == name), "{name} is shown, and not documented");
        }
        if id == 0 {
            assert!(text.contains("vsr_commit_seconds_bucket"), "{text}");
        }
    }
}
