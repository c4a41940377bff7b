//! Processes and addresses, for tests that run the program as people do.

#![allow(dead_code, reason = "each test uses some of it")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_counter");

pub(crate) fn counter(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().expect("the program runs")
}

pub(crate) fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends its process when a test fails.
pub(crate) struct Replica {
    pub(crate) child: Child,
    /// Where it serves its metrics.
    pub(crate) metrics: String,
    /// Whether it has said that it is ready.
    pub(crate) is_ready: bool,
    log: PathBuf,
}

impl Replica {
    /// What it has told on standard error so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log")
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a replica, and waits until it is ready or has ended.
pub(crate) fn start(config: &str, id: &str) -> Replica {
    let log = Path::new(config).with_file_name(format!("replica-{id}.log"));
    let mut child = Command::new(PROGRAM)
        .args(["replica", "--config", config, "--id", id])
        .env("NO_COLOR", "1")
        .stdout(Stdio::piped())
        .stderr(File::options().create(true).append(true).open(&log).expect("its log"))
        .spawn()
        .expect("a replica");
    let stdout = BufReader::new(child.stdout.take().expect("its output"));
    let mut replica = Replica { child, metrics: String::new(), is_ready: false, log };
    for line in stdout.lines() {
        let line = line.expect("a line");
        if let Some(address) = line.strip_prefix("metrics http://") {
            replica.metrics = address.trim_end_matches("/metrics").to_owned();
        }
        if line == "ready" {
            replica.is_ready = true;
            break;
        }
    }
    replica
}

pub(crate) fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the metrics server");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text
}

/// The value of a metric without labels but the replica's.
pub(crate) fn metric(address: &str, name: &str) -> f64 {
    let text = scrape(address);
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
    let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Addresses of which the system has chosen the ports; each call has a host of its own.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let (process, call) = (std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
    let ip = format!("127.{}.{}.{}", 1 + process % 250, 1 + process / 250 % 250, 9 + call % 240);
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind((ip.as_str(), 0)).expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").to_string()).collect()
}

/// The configuration of a cluster of three in a folder. Its path.
pub(crate) fn configure(folder: &Path) -> String {
    let path = folder.join("cluster.toml");
    let addresses = free_addresses(6);
    let text =
        format!("cluster = 77\nfolder = \"data\"\nreplicas = {:?}\nmetrics = {:?}\n", &addresses[..3], &addresses[3..]);
    std::fs::write(&path, text).expect("the configuration");
    path.to_str().expect("a path").to_owned()
}

/// Looks again and again until something is so.
#[allow(clippy::disallowed_methods, reason = "what other processes do is looked at in real time")]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}: not in 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What something gives, and how long it took.
#[allow(clippy::disallowed_methods, reason = "what other processes do takes real time")]
pub(crate) fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let given = what();
    (given, begin.elapsed())
}
