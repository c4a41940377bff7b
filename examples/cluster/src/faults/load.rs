//! Too much of something: bytes, depth, clients, time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, getuid, prlimit};
use tokio::time::sleep;
use vsr::protocol::{Health, Random};
use vsr::{Clock, QueryError, ReplicaId, SubmitError, SystemClock};

use super::Setting;
use super::ground::{ANSWER_MAX, Ground, Limits, REPLICAS, of};
use super::pressure::Load;
use super::tally::{One, Raw, TallyApp};
use crate::output::tell;
use crate::serve::{client, connect};
use crate::{Error, StorageKind};

/// The disk of the primary is full: another replica, which has room, takes over, and no process ends.
pub(super) async fn full_disk(setting: Setting) -> Result<(), Error> {
    let storage = setting.storage;
    // A database has its log twice, until the tables are written.
    let (mebibytes, commands) = if storage == StorageKind::File { (14, 150) } else { (192, 2500) };
    let mut ground = Ground::prepare(Limits { storage, checkpoint_ops: 10_000, ..Limits::default() }).await?;
    let small = SmallDisk::mount(&ground.data(0), mebibytes)?;
    ground.format()?;
    ground.start_all().await?;
    ground.add(3, 16).await?;
    if small.is_none() && storage != StorageKind::File {
        tell(
            "   a small file system cannot be mounted here, and the files of a database come and go: nothing is shown",
        );
        return Ok(());
    }
    if small.is_none() {
        // As a file system without room, the limit refuses what a file would grow by.
        let length = |name: &str| fs::metadata(ground.data(0).join(name)).map(|file| file.len());
        let limit = length("log")?.max(length("state")?) + (1 << 20);
        limit_files(&ground, Some(limit))?;
        tell("   the files of r0 cannot grow any more (RLIMIT_FSIZE; a small file system cannot be mounted here)");
    }
    ground.add(commands, 64 << 10).await?;
    ground.health(0, Health::NoRoom).await?;
    ground.add(20, 16).await?;
    ground.expect_alive()?;
    ground.show(0);
    ground.show_status().await;
    ground.expect_count().await?;
    tell("   there is room again, and r0 is started again:");
    match &small {
        Some(small) => small.grow()?,
        None => limit_files(&ground, None)?,
    }
    ground.processes.signal(0, Signal::TERM)?;
    ground.processes.reap(0).await?;
    ground.processes.start(0).await?;
    ground.caught_up(&[0, 1, 2]).await?;
    ground.show_status().await;
    ground.expect_count().await
}

/// The size that files of replica 0 may have; `None` for as large as before.
fn limit_files(ground: &Ground, bytes: Option<u64>) -> Result<(), Error> {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let new = Rlimit { current: bytes.or(maximum), maximum };
    prlimit(Some(ground.processes.pid(0)?), Resource::Fsize, new)?;
    Ok(())
}

/// A file system of few megabytes, where it may be mounted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mebibytes: u32) -> Result<Option<SmallDisk>, Error> {
        fs::create_dir_all(at)?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(at);
        let mounted = getuid().is_root() && command.output().is_ok_and(|output| output.status.success());
        Ok(mounted.then(|| SmallDisk(at.to_owned())))
    }

    fn grow(&self) -> Result<(), Error> {
        let output = Command::new("mount").args(["-o", "remount,size=800m"]).arg(&self.0).output()?;
        if output.status.success() { Ok(()) } else { Err("the small file system cannot be made larger".into()) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Every log is full, as no checkpoint can be written: each submit is answered so at once, from any client and however often; and queries go
/// on. When checkpoints can be written again, so can commands, without a word from anybody.
pub(super) async fn full_log() -> Result<(), Error> {
    const LIMIT: Duration = Duration::from_secs(10);
    let mut ground = Ground::prepare(Limits { log: Some(16 << 20), checkpoint_ops: 50, ..Limits::default() }).await?;
    ground.format()?;
    let obstacles: Vec<PathBuf> = (0..REPLICAS).map(|id| ground.data(id).join("checkpoints")).collect();
    for obstacle in &obstacles {
        fs::write(obstacle, "a file where the folder of the checkpoints should be")?;
    }
    ground.start_all().await?;
    let error = loop {
        if let Err(error) = ground.submit(100_000, ANSWER_MAX).await {
            break error;
        }
    };
    tell(format_args!("   a client sees: {error}"));
    if error != SubmitError::LogFull {
        return Err("the client is not told that the log is full".into());
    }
    // What is left takes short ones.
    let mut refused = 0;
    while refused < 100 {
        // A write under way is counted as the most that it may take: a refusal beside it can be the last but one.
        refused = if ground.submit(16, LIMIT).await.is_ok() { 0 } else { refused + 1 };
    }
    // More than a session's window of them.
    for number in 1..=1100 {
        match ground.submit(16, LIMIT).await {
            Err(SubmitError::LogFull) => {}
            other => return Err(format!("what is said to request {number} of a full log: {other:?}").into()),
        }
    }
    let stranger = connect::<TallyApp>(&ground.config).await?;
    let told = stranger.submit_within(One::of(16), LIMIT).await.map(|reply| reply.value);
    ground.heard(0, 1);
    if told != Err(SubmitError::LogFull) {
        return Err(format!("a new client is not told that the log is full: {told:?}").into());
    }
    stranger.close();
    let primary = ground.primary_or_full().await?;
    ground.health(primary, Health::NoRoom).await?;
    ground.show(primary);
    ground.show_status().await;
    ground.expect_alive()?;
    ground.expect_count().await?;
    tell("   checkpoints can be written again:");
    obstacles.iter().try_for_each(fs::remove_file)?;
    ground.served().await?;
    let mut refused = 0;
    // A client that was told of a full log tries with what it is given next.
    while ground.submit(16, LIMIT).await.is_err() {
        refused += 1;
        if refused > 100 {
            return Err("the log has room, and the client is not served".into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    tell(format_args!("   the client is served again, after {refused} more answers of a full log"));
    ground.add(200, 100_000).await?;
    ground.show_status().await;
    ground.expect_count().await
}

/// Commands and queries that no honest program has made: nested without end, garbage, lengths that are lies.
pub(super) async fn death() -> Result<(), Error> {
    const LIMIT: Duration = Duration::from_secs(10);
    let mut ground = Ground::start().await?;
    ground.add(5, 16).await?;
    let members = (0..REPLICAS).map(|id| ReplicaId(id as u8)).collect();
    let raw = client::<Raw>(&ground.config, members).await?;
    let mut random = Random::new(1);
    let garbage: Vec<u8> = (0..1000).map(|_| random.below(256) as u8).collect();
    let messages = [
        ("nested 40,000 levels deep", One::deep(40_000)),
        ("200,000 arrays in each other", Bytes::from(vec![0x91; 200_000])),
        ("200,000 maps in each other", Bytes::from(vec![0x81; 200_000])),
        ("an array of 4 billion", Bytes::from_static(b"\xdd\xff\xff\xff\xff")),
        ("bytes of 4 billion", Bytes::from_static(b"\x81\xa7Ballast\xc6\xff\xff\xff\xff")),
        ("no MessagePack", Bytes::from_static(b"\xc1")),
        ("garbage", Bytes::from([&b"\xc1"[..], &garbage].concat())),
    ];
    for (what, bytes) in messages {
        let command = raw.submit_within(bytes.clone(), LIMIT).await.map(|reply| reply.value);
        if command != Err(SubmitError::Undecodable) {
            return Err(format!("a command, {what}: {command:?}").into());
        }
        let query = raw.query_within(bytes, LIMIT).await.map(|answer| answer.value);
        if query != Err(QueryError::Undecodable) {
            return Err(format!("a query, {what}: {query:?}").into());
        }
        tell(format_args!("   {what}: {}", SubmitError::Undecodable));
        ground.expect_alive()?;
    }
    raw.close();
    ground.add(10, 16).await?;
    for id in 0..REPLICAS {
        ground.show(id);
    }
    ground.show_status().await;
    ground.expect_count().await
}

/// 1,100 clients at once: each is served, some of them after a while.
pub(super) async fn crowd() -> Result<(), Error> {
    const CLIENTS: u64 = 1100;
    let files = CLIENTS * REPLICAS as u64 + 100;
    if getrlimit(Resource::Nofile).current.is_some_and(|limit| limit < files) {
        return Err(format!("this case opens {files} files: raise the limit (ulimit -Hn)").into());
    }
    let mut ground = Ground::start().await?;
    let (clock, config) = (SystemClock::new(), std::sync::Arc::new(ground.config.clone()));
    let begin = clock.now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move {
                let client = connect::<TallyApp>(&config).await?;
                let reply = client.submit_within(One::of(16), Duration::from_secs(60)).await;
                client.close();
                reply.map(|_| ()).map_err(Error::from)
            })
        })
        .collect();
    let mut failed = Vec::new();
    for client in clients {
        match client.await? {
            Ok(()) => ground.heard(1, 0),
            Err(error) => {
                ground.heard(0, 1);
                failed.push(error.to_string());
            }
        }
    }
    let time = clock.now().since(begin);
    ground.show(0);
    if let Some(first) = failed.first() {
        return Err(format!("{} of {CLIENTS} clients were not served: {first}", failed.len()).into());
    }
    tell(format_args!("   {CLIENTS} clients were served within {:.1} s", time.as_secs_f64()));
    ground.expect_alive()?;
    ground.add(5, 16).await?;
    ground.show_status().await;
    ground.expect_count().await
}

/// Full speed for a while: a backup holds no more memory than 1.3 times what the primary does.
pub(super) async fn memory(quick: bool) -> Result<(), Error> {
    const RATIO_MAX: f64 = 1.3;
    let time = Duration::from_secs(if quick { 30 } else { 180 });
    let mut ground = Ground::prepare(Limits { log: Some(4 << 30), ..Limits::default() }).await?;
    ground.format()?;
    ground.start_all().await?;
    let load = Load::begin(&ground, 8, 16, Duration::ZERO).await?;
    let clock = SystemClock::new();
    let end = clock.now().after(time);
    let mut highest = [0_u64; REPLICAS];
    while clock.now() < end {
        sleep(Duration::from_secs(1)).await;
        for (id, highest) in highest.iter_mut().enumerate() {
            *highest = resident(&ground, id)?.max(*highest);
        }
    }
    let primary = ground.primary().await?;
    let acknowledged = load.end(&mut ground).await?;
    let rate = acknowledged as f64 / time.as_secs_f64();
    tell(format_args!("   {acknowledged} commands, {rate:.0} a second"));
    let of_primary = highest[primary];
    for (id, bytes) in highest.iter().enumerate() {
        let ratio = *bytes as f64 / of_primary as f64;
        let role = if id == primary { "primary" } else { "backup" };
        tell(format_args!("   replica {id}, {role}: {} MiB resident, {ratio:.2} of the primary's", bytes >> 20));
        if ratio > RATIO_MAX {
            return Err(format!("replica {id} holds {ratio:.2} times what the primary does").into());
        }
    }
    ground.show_status().await;
    ground.expect_alive()?;
    ground.expect_count().await
}

/// Bytes of a replica's process that are in memory, as Linux says.
pub(super) fn resident(ground: &Ground, id: usize) -> Result<u64, Error> {
    let path = format!("/proc/{}/status", ground.processes.pid(id)?.as_raw_pid());
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes << 10)
}

impl Ground {
    /// The primary, also when it has no room.
    async fn primary_or_full(&self) -> Result<usize, Error> {
        self.until("a primary", |said| (0..REPLICAS).any(|id| of(said, id).is_some_and(|status| status.is_primary)))
            .await?;
        let said = self.status().await;
        let primary = (0..REPLICAS).find(|&id| of(&said, id).is_some_and(|status| status.is_primary));
        Ok(primary.ok_or("no primary")?)
    }
}
