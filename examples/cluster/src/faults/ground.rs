//! A cluster of processes for one case: its files, its trouble, and what was acknowledged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use vsr::handle::ReplicaStatus;
use vsr::protocol::{Health, Random};
use vsr::{Client, Clock, ClusterId, SubmitError, SystemClock};

use super::tally::{One, Tally, TallyApp};
use crate::ask::{Said, ask_all, is_served, rows};
use crate::output::tell;
use crate::processes::{Processes, Started, configure};
use crate::serve::connect;
use crate::{ClusterConfig, Error, StorageKind};

/// For how long an answer is waited for that has to come.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(20);
const STATUS_MAX: Duration = Duration::from_secs(1);
/// Replicas; one more slot is there for a process that shares the id of another.
pub(super) const REPLICAS: usize = 3;
pub(super) const CLONE: usize = REPLICAS;

/// Of the log of a case's cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes; the default if left out.
    pub(super) log: Option<u64>,
    /// Ops between two checkpoints.
    pub(super) checkpoint_ops: u64,
    /// Where it is.
    pub(super) storage: StorageKind,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { log: None, checkpoint_ops: 500, storage: StorageKind::File }
    }
}

pub(super) struct Ground {
    /// Ended before their files are removed.
    pub(super) processes: Processes,
    pub(super) config: ClusterConfig,
    client: Client<Tally>,
    acknowledged: u64,
    /// Commands whose outcome is unknown.
    unknown: u64,
    /// How much of each log was shown.
    shown: Vec<usize>,
    folder: TempDir,
}

impl Drop for Ground {
    fn drop(&mut self) {
        // It would go on looking for replicas that are gone.
        self.client.close();
    }
}

impl Ground {
    /// A cluster that is configured, and neither formatted nor started.
    pub(super) async fn prepare(limits: Limits) -> Result<Ground, Error> {
        Ground::prepare_with(limits, &["--tally"]).await
    }

    /// As [`prepare`](Self::prepare), with the example's own machine: the commands of the ground do not fit it.
    pub(super) async fn prepare_own(limits: Limits) -> Result<Ground, Error> {
        Ground::prepare_with(limits, &[]).await
    }

    async fn prepare_with(limits: Limits, arguments: &'static [&'static str]) -> Result<Ground, Error> {
        let folder = tempfile::Builder::new().prefix("vsr-faults").tempdir()?;
        let mut random = Random::new(vsr::ClientConfig::new(1).seed);
        let config = ClusterConfig {
            cluster: ClusterId(random.next_u64().into()),
            replicas: vec![String::new(); REPLICAS],
            folder: PathBuf::new(),
            storage: limits.storage,
            log_limit: limits.log,
            checkpoint_ops: Some(limits.checkpoint_ops),
            metrics: Vec::new(),
            allow_insecure: false,
        };
        let path = configure(folder.path(), config, &mut random)?;
        let config = ClusterConfig::read(&path)?;
        let processes = Processes::new(&path, folder.path(), REPLICAS + 1).with_arguments(arguments);
        let client = connect::<TallyApp>(&config).await?;
        let shown = vec![0; REPLICAS + 1];
        Ok(Ground { processes, config, client, acknowledged: 0, unknown: 0, shown, folder })
    }

    /// A cluster that runs.
    pub(super) async fn start() -> Result<Ground, Error> {
        let mut ground = Ground::prepare(Limits::default()).await?;
        ground.format()?;
        ground.start_all().await?;
        Ok(ground)
    }

    pub(super) fn format(&self) -> Result<(), Error> {
        (0..REPLICAS).try_for_each(|id| self.config.format(id as u8))
    }

    pub(super) async fn start_all(&mut self) -> Result<(), Error> {
        for id in 0..REPLICAS {
            self.processes.start(id).await?;
        }
        Ok(())
    }

    pub(super) fn data(&self, id: usize) -> PathBuf {
        self.config.folder_of(id as u8)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    // ---- commands ----

    /// Commands, one after the other. Each has to be acknowledged.
    pub(super) async fn add(&mut self, count: u64, bytes: usize) -> Result<(), Error> {
        for _ in 0..count {
            if let Err(error) = self.submit(bytes, ANSWER_MAX).await {
                let status = self.status_text().await;
                return Err(format!("after {} commands: {error}\n{status}", self.acknowledged).into());
            }
        }
        Ok(())
    }

    /// One command, which may fail.
    pub(super) async fn submit(&mut self, bytes: usize, limit: Duration) -> Result<(), SubmitError> {
        match self.client.submit_within(One::of(bytes), limit).await {
            Ok(_) => self.acknowledged += 1,
            Err(error) => {
                self.unknown += 1;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Fills the state with so many bytes.
    pub(super) async fn keep(&mut self, bytes: u64) -> Result<(), Error> {
        const PIECE: u64 = 64 << 10;
        let (client, piece) = (&self.client, Bytes::from(vec![7; PIECE as usize]));
        let pieces = futures::stream::iter(0..bytes / PIECE).map(|_| {
            let piece = piece.clone();
            client.submit_within(One::Keep(piece), ANSWER_MAX)
        });
        let kept: Vec<_> = pieces.buffer_unordered(16).collect().await;
        for kept in kept {
            kept?;
            self.acknowledged += 1;
        }
        Ok(())
    }

    /// What other clients of the case have heard.
    pub(super) fn heard(&mut self, acknowledged: u64, unknown: u64) {
        self.acknowledged += acknowledged;
        self.unknown += unknown;
    }

    /// What is acknowledged is there, and nothing was executed twice.
    pub(super) async fn expect_count(&self) -> Result<(), Error> {
        match self.client.query_within((), ANSWER_MAX).await {
            Ok(counted) => self.judge(counted.value),
            Err(error) => {
                Err(format!("no replica says how many there are: {error}\n{}", self.status_text().await).into())
            }
        }
    }

    /// A replica that answers while something is wrong knows all that was acknowledged. No answer is allowed, too.
    pub(super) async fn expect_no_lie(&mut self) -> Result<(), Error> {
        match self.client.query_within((), Duration::from_secs(5)).await {
            Ok(counted) => self.judge(counted.value),
            Err(error) => {
                tell(format_args!("   a client sees: {error}"));
                Ok(())
            }
        }
    }

    fn judge(&self, counted: u64) -> Result<(), Error> {
        let Ground { acknowledged, unknown, .. } = self;
        if counted < *acknowledged {
            return Err(format!("LOST: {acknowledged} commands were acknowledged, {counted} are left").into());
        }
        if counted > acknowledged + unknown {
            return Err(
                format!("TWICE: {counted} executions of {acknowledged} commands and {unknown} unknown ones").into()
            );
        }
        Ok(())
    }

    // ---- processes ----

    pub(super) async fn kill(&mut self, slot: usize) -> Result<(), Error> {
        // It may have ended by itself, as one that is refused does.
        if self.processes.has_ended(slot)?.is_none() && self.processes.pid(slot).is_ok() {
            self.processes.kill(slot)?;
        }
        self.processes.reap(slot).await
    }

    pub(super) fn pause(&self, slot: usize) -> Result<(), Error> {
        self.processes.signal(slot, Signal::STOP)
    }

    pub(super) fn resume(&self, slot: usize) -> Result<(), Error> {
        self.processes.signal(slot, Signal::CONT)
    }

    /// A start that has to be refused, with this exit code; shows what the operator sees.
    pub(super) async fn expect_refusal(
        &mut self,
        slot: usize,
        id: usize,
        config: Option<&Path>,
        code: u8,
    ) -> Result<(), Error> {
        let started = self.processes.try_start(slot, id, config).await?;
        self.show(slot);
        match started {
            Started::Ready => Err(format!("replica {id} says that it is ready").into()),
            Started::Ended(status) if status.code() == Some(code.into()) => {
                tell(format_args!("   exit code {code}"));
                Ok(())
            }
            Started::Ended(status) => Err(format!("replica {id} ends with {status}, not with exit code {code}").into()),
        }
    }

    /// No process has ended by itself.
    pub(super) fn expect_alive(&mut self) -> Result<(), Error> {
        for slot in 0..REPLICAS {
            if let Some(status) = self.processes.has_ended(slot)? {
                self.show(slot);
                return Err(format!("replica {slot} has ended: {status}").into());
            }
        }
        Ok(())
    }

    /// Runs this program as an operator does, and shows what it says.
    pub(super) async fn program(&self, arguments: &[&str]) -> Result<ExitStatus, Error> {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        let output: Output = command.args(arguments).kill_on_drop(true).output().await?;
        tell(format_args!("   $ {}", arguments.join(" ")));
        for text in [&output.stdout, &output.stderr] {
            for line in String::from_utf8_lossy(text).lines() {
                tell(format_args!("   {line}"));
            }
        }
        Ok(output.status)
    }

    // ---- what is seen ----

    pub(super) async fn status(&self) -> Vec<Said> {
        ask_all(&self.client, &self.config, STATUS_MAX).await
    }

    async fn status_text(&self) -> String {
        let said = self.status().await;
        let rows = rows(&self.client, &said).into_iter().map(|row| format!("   {row}"));
        rows.collect::<Vec<_>>().join("\n")
    }

    /// The rows of `status`.
    pub(super) async fn show_status(&self) {
        tell(self.status_text().await);
    }

    /// The last lines that a process has told since they were shown.
    pub(super) fn show(&mut self, slot: usize) {
        const LINES: usize = 5;
        let text = fs::read(self.processes.log_of(slot)).unwrap_or_default();
        let new = String::from_utf8_lossy(text.get(self.shown[slot]..).unwrap_or_default()).into_owned();
        self.shown[slot] = text.len();
        let lines: Vec<&str> = new.lines().collect();
        if lines.len() > LINES {
            tell(format_args!("   replica {slot} tells {} lines, at last:", lines.len()));
        }
        for line in lines.iter().skip(lines.len().saturating_sub(LINES)) {
            tell(format_args!("   replica {slot}: {}", line.chars().take(400).collect::<String>()));
        }
    }

    /// Looks at the status again and again until something is so.
    pub(super) async fn until(&self, what: &str, done: impl Fn(&[Said]) -> bool) -> Result<(), Error> {
        let clock = SystemClock::new();
        let end = clock.now().after(Duration::from_secs(40));
        while !done(&self.status().await) {
            if clock.now() > end {
                return Err(format!("waited in vain for {what}\n{}", self.status_text().await).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Every replica that runs has applied what its primary knows to be committed.
    pub(super) async fn caught_up(&self, replicas: &[usize]) -> Result<(), Error> {
        let primary =
            |said: &[Said]| said.iter().flatten().find(|(status, _)| status.is_primary).map(|(s, _)| s.commit.0);
        self.until("all to catch up", |said| {
            let commit = primary(said).unwrap_or(u64::MAX);
            replicas.iter().all(|&id| of(said, id).is_some_and(|status| status.normal && status.applied.0 >= commit))
        })
        .await
    }

    pub(super) async fn served(&self) -> Result<(), Error> {
        self.until("a primary that can commit", is_served).await
    }

    /// The primary, once there is one.
    pub(super) async fn primary(&self) -> Result<usize, Error> {
        self.served().await?;
        let said = self.status().await;
        let found = said.iter().position(|said| said.as_ref().is_some_and(|(status, _)| status.is_primary));
        Ok(found.ok_or("no primary")?)
    }

    /// What a replica knows to be committed.
    pub(super) async fn commit(&self, id: usize) -> Result<u64, Error> {
        let said = self.status().await;
        Ok(of(&said, id).map(|status| status.commit.0).ok_or_else(|| format!("replica {id} says nothing"))?)
    }

    pub(super) async fn health(&self, id: usize, health: Health) -> Result<(), Error> {
        let what = format!("replica {id} to say: {health}");
        self.until(&what, |said| of(said, id).is_some_and(|status| status.health == health)).await
    }
}

/// What a replica says of itself.
pub(super) fn of(said: &[Said], id: usize) -> Option<&ReplicaStatus> {
    said.get(id).and_then(Option::as_ref).map(|(status, _)| status)
}

/// Copies the files of a folder into another one, which is made if it is not there. Files that are there keep their
/// places: only their content is replaced.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        if file.file_type()?.is_dir() {
            copy(&file.path(), &to.join(file.file_name()))?;
        } else {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}

/// A case may take so long, and no longer.
pub(super) async fn within(limit: Duration, case: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    timeout(limit, case).await.unwrap_or_else(|_| Err(format!("it takes more than {limit:?}").into()))
}
