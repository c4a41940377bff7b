//! The counter's program as people use it: processes, sockets, files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_counter");

fn counter(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().expect("the program runs")
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

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

#[test]
fn the_demo_survives_the_death_of_its_primary() {
    assert_pass(&counter(&["demo", "--seconds", "1"]));
}

#[test]
fn the_demo_survives_a_paused_primary() {
    assert_pass(&counter(&["demo", "--seconds", "1", "--harm", "pause"]));
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

/// Ends its process when a test fails.
struct Replica(std::process::Child);

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(config: &str, id: &str) -> (Replica, String) {
    let mut child = Command::new(PROGRAM)
        .args(["replica", "--config", config, "--id", id])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a replica");
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("its output"));
    let mut metrics = String::new();
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line") > 0 && line.trim() != "ready" {
        if let Some(address) = line.trim().strip_prefix("metrics http://") {
            metrics = address.trim_end_matches("/metrics").to_owned();
        }
        line.clear();
    }
    (Replica(child), metrics)
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the metrics server");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text
}

fn free_addresses(count: usize) -> Vec<String> {
    let ip = format!("127.{}.{}.9", 1 + std::process::id() % 250, 1 + std::process::id() / 250 % 250);
    let listeners: Vec<_> =
        (0..count).map(|_| std::net::TcpListener::bind((ip.as_str(), 0)).expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").to_string()).collect()
}

/// The walk of the book's chapter "Run a cluster": format, three replicas, add, get, status; and what a
/// Prometheus would scrape meanwhile.
#[test]
fn a_cluster_is_run_by_hand_and_shows_its_metrics() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.toml");
    let addresses = free_addresses(6);
    let text =
        format!("cluster = 7\nfolder = \"data\"\nreplicas = {:?}\nmetrics = {:?}\n", &addresses[..3], &addresses[3..]);
    std::fs::write(&path, text).expect("the configuration");
    let config = path.to_str().expect("a path");
    let missing = counter(&["replica", "--config", config, "--id", "0"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("is not formatted"), "{missing:?}");
    assert!(counter(&["format", "--config", config]).status.success());
    let again = counter(&["format", "--config", config]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"), "{again:?}");
    let replicas: Vec<_> = ["0", "1", "2"].iter().map(|id| start(config, id)).collect();
    // A second process of the same replica is refused, and harms nobody.
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
    for (id, (_, metrics)) in replicas.iter().enumerate() {
        let text = scrape(metrics);
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
