//! The replicas of a demo, as processes.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use vsr::protocol::Random;

use crate::{ClusterConfig, Error};

/// The processes of a cluster. Those that still run are killed when it is dropped, and waited for.
pub(crate) struct Processes {
    config: PathBuf,
    folder: PathBuf,
    /// What every replica is told beside its configuration and id.
    arguments: &'static [&'static str],
    /// One for each replica, and more where two processes share an id.
    children: Vec<Option<Child>>,
}

/// What has become of a start.
#[derive(Debug)]
pub(crate) enum Started {
    /// The replica is ready.
    Ready,
    /// The process has ended.
    Ended(ExitStatus),
}

const READY_MAX: Duration = Duration::from_secs(30);

impl Drop for Processes {
    /// Nothing of a cluster is left behind: also where the program is told to end, and where it fails.
    #[allow(clippy::disallowed_methods, reason = "processes are waited for, where nothing can be awaited")]
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.start_kill();
        }
        for child in self.children.iter_mut().flatten() {
            // One that is stuck in its disk is left to the operating system.
            for _ in 0..200 {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Processes {
    pub(crate) fn new(config: &Path, folder: &Path, replicas: usize) -> Processes {
        let children = (0..replicas).map(|_| None).collect();
        Processes { config: config.to_owned(), folder: folder.to_owned(), arguments: &[], children }
    }

    /// As [`new`](Self::new), where every replica is told more.
    pub(crate) fn with_arguments(mut self, arguments: &'static [&'static str]) -> Processes {
        self.arguments = arguments;
        self
    }

    /// Starts a replica and waits until it is ready.
    pub(crate) async fn start(&mut self, id: usize) -> Result<(), Error> {
        match self.try_start(id, id, None).await? {
            Started::Ready => Ok(()),
            Started::Ended(status) => {
                // The log may be gone with the folder when an operator wants to look.
                let told = std::fs::read_to_string(self.log_of(id)).unwrap_or_default();
                let last = told.lines().last().unwrap_or("it has told nothing");
                Err(format!("replica {id} has ended ({status}): {last}").into())
            }
        }
    }

    /// Starts a replica in a slot, by another configuration if one is given, and waits until it is ready or has ended.
    pub(crate) async fn try_start(&mut self, slot: usize, id: usize, config: Option<&Path>) -> Result<Started, Error> {
        let log = File::options().create(true).append(true).open(self.log_of(slot))?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("replica")
            .arg("--config")
            .arg(config.unwrap_or(&self.config))
            .arg("--id")
            .arg(id.to_string())
            .args(self.arguments)
            // What it tells goes into a file.
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no output of the replica")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line == "ready" {
                    return Ok::<_, Error>(Started::Ready);
                }
            }
            Ok(Started::Ended(child.wait().await?))
        };
        let started = tokio::time::timeout(READY_MAX, ready).await;
        let started = started.map_err(|_| format!("replica {id} does not get ready"))??;
        if matches!(started, Started::Ready)
            && let Some(place) = self.children.get_mut(slot)
        {
            *place = Some(child);
        }
        Ok(started)
    }

    /// Where a process tells what it tells on standard error.
    pub(crate) fn log_of(&self, slot: usize) -> PathBuf {
        self.folder.join(format!("replica-{slot}.log"))
    }

    /// The id of a running process.
    pub(crate) fn pid(&self, slot: usize) -> Result<Pid, Error> {
        let child = self.children.get(slot).and_then(Option::as_ref).ok_or("no such process")?;
        Ok(child.id().and_then(|pid| Pid::from_raw(pid as i32)).ok_or("the process has ended")?)
    }

    /// How a process has ended, if it has, by itself.
    pub(crate) fn has_ended(&mut self, slot: usize) -> Result<Option<ExitStatus>, Error> {
        match self.children.get_mut(slot).and_then(Option::as_mut) {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    pub(crate) fn signal(&self, slot: usize, signal: Signal) -> Result<(), Error> {
        Ok(kill_process(self.pid(slot)?, signal)?)
    }

    /// SIGKILL: no goodbye. Returns at once; [`reap`](Self::reap) waits for the end.
    pub(crate) fn kill(&self, id: usize) -> Result<(), Error> {
        self.signal(id, Signal::KILL)
    }

    /// Waits until a killed process is gone.
    pub(crate) async fn reap(&mut self, id: usize) -> Result<(), Error> {
        if let Some(mut child) = self.children[id].take() {
            child.wait().await?;
        }
        Ok(())
    }

    /// Ends every process in an orderly way.
    pub(crate) async fn stop_all(&mut self) -> Result<(), Error> {
        for id in 0..self.children.len() {
            if self.children[id].is_some() {
                self.signal(id, Signal::TERM)?;
                let ended = tokio::time::timeout(Duration::from_secs(10), self.reap(id)).await;
                ended.map_err(|_| format!("replica {id} does not end"))??;
            }
        }
        Ok(())
    }
}

/// Addresses for the replicas of a demo. The ports are the system's choice, on a loopback address of the
/// demo's own: no outgoing connection takes one of them while its replica is down.
pub(crate) fn addresses(count: usize, random: &mut Random) -> Result<Vec<SocketAddr>, Error> {
    let mut byte = || 1 + random.below(253) as u8;
    let own = Ipv4Addr::new(127, byte(), byte(), byte());
    let is_there = TcpListener::bind((own, 0)).is_ok();
    let address = if is_there { own } else { Ipv4Addr::LOCALHOST };
    let listeners = (0..count).map(|_| TcpListener::bind((address, 0))).collect::<Result<Vec<_>, _>>()?;
    Ok(listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

/// The configuration of a cluster of processes in a folder. Its path.
pub(crate) fn configure(folder: &Path, mut config: ClusterConfig, random: &mut Random) -> Result<PathBuf, Error> {
    let count = config.replicas.len();
    let addresses = addresses(count * 2, random)?;
    config.replicas = addresses[..count].iter().map(SocketAddr::to_string).collect();
    config.metrics = addresses[count..].iter().map(SocketAddr::to_string).collect();
    config.folder = PathBuf::from("data");
    std::fs::create_dir_all(folder)?;
    let path = folder.join("cluster.toml");
    if path.exists() {
        return Err(format!("{} is there already: give an empty folder", path.display()).into());
    }
    config.write(&path)?;
    Ok(path)
}

/// A cluster of processes in a folder, formatted and not yet started.
pub(crate) fn prepare(folder: &Path, config: ClusterConfig, random: &mut Random) -> Result<PathBuf, Error> {
    let path = configure(folder, config, random)?;
    let config = ClusterConfig::read(&path)?;
    for id in 0..config.replicas.len() {
        config.format(id as u8)?;
    }
    Ok(path)
}
