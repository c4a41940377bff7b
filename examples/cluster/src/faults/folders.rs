//! Folders that are not what they were: old, copied, formatted again, damaged.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ground::{CLONE, Ground, Limits, REPLICAS, copy};
use crate::output::tell;
use crate::processes::addresses;
use crate::{ClusterConfig, Error, exit};

/// How an old copy of a folder comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// As other files: a backup that is put back.
    Copied,
    /// In the same files: a disk that is rolled back.
    RolledBack,
}

/// r0 and r2 acknowledge what r1 has never heard of; then r2 comes back as it was some starts ago, and r0 is down. r1 and
/// the old r2 would be a quorum that knows nothing of it.
pub(super) async fn restore(back: Back) -> Result<(), Error> {
    let mut ground = Ground::start().await?;
    ground.add(10, 16).await?;
    ground.kill(2).await?;
    let (data, kept) = (ground.data(2), ground.path("backup"));
    copy(&data, &kept)?;
    // Two lives later its peers have seen a later start than the backup's next one.
    for _ in 0..2 {
        ground.processes.start(2).await?;
        ground.add(5, 16).await?;
        ground.caught_up(&[0, 1, 2]).await?;
        ground.kill(2).await?;
    }
    ground.processes.start(2).await?;
    ground.caught_up(&[0, 1, 2]).await?;
    // r2 must not be primary, nor r1: what follows is acknowledged by r0 and r2.
    ground.pause(1)?;
    ground.add(8, 16).await?;
    ground.kill(2).await?;
    ground.kill(0).await?;
    if back == Back::Copied {
        fs::rename(&data, ground.path("newest"))?;
    }
    copy(&kept, &data)?;
    // What r1 knows has to be on its disk.
    ground.resume(1)?;
    ground.kill(1).await?;
    ground.processes.start(1).await?;
    if back == Back::Copied {
        tell("   the copy is started:");
        ground.expect_refusal(2, 2, None, exit::STORAGE).await?;
        tell("   the operator says that it is the right one, which it is not:");
        if !ground.program(&["accept-place", "--data", &data.display().to_string()]).await?.success() {
            return Err("accept-place has failed".into());
        }
    }
    old_folder(&mut ground, 2).await?;
    tell("   the others are back, without it:");
    ground.kill(2).await?;
    ground.processes.start(0).await?;
    ground.served().await?;
    ground.expect_count().await?;
    ground.add(5, 16).await?;
    ground.expect_count().await
}

/// A replica whose folder is old, beside one that has missed the last commands: neither may answer as if these two were a cluster.
async fn old_folder(ground: &mut Ground, id: usize) -> Result<(), Error> {
    // The other one remembers a later start, or another disk.
    ground.expect_refusal(id, id, None, exit::REFUSED).await?;
    tell("   a supervisor starts it once more:");
    ground.expect_refusal(id, id, None, exit::REFUSED).await?;
    ground.expect_no_lie().await?;
    ground.show_status().await;
    Ok(())
}

/// Two processes on copies of one folder. The copy is started later, which must not put the original out.
pub(super) async fn clone() -> Result<(), Error> {
    let mut ground = Ground::start().await?;
    ground.add(10, 16).await?;
    ground.caught_up(&[0, 1, 2]).await?;
    ground.kill(2).await?;
    let (path, data) = (ground.path("clone.toml"), ground.path("clone/replica-2"));
    copy(&ground.data(2), &data)?;
    clone_config(&ground, &path)?;
    ground.processes.start(2).await?;
    ground.caught_up(&[0, 1, 2]).await?;
    tell("   the copy is started beside the original:");
    ground.expect_refusal(CLONE, 2, Some(&path), exit::STORAGE).await?;
    tell("   the operator says that its place is meant, and starts it again:");
    if !ground.program(&["accept-place", "--data", &data.display().to_string()]).await?.success() {
        return Err("accept-place has failed".into());
    }
    ground.expect_refusal(CLONE, 2, Some(&path), exit::REFUSED).await?;
    // Whatever it was told: r0 and the copy alone acknowledge nothing.
    ground.pause(1)?;
    ground.pause(2)?;
    match ground.submit(16, Duration::from_secs(4)).await {
        Ok(()) => return Err("r0 has acknowledged a command with no replica but the copy".into()),
        Err(error) => tell(format_args!("   a client of r0 and the copy sees: {error}")),
    }
    ground.resume(1)?;
    ground.resume(2)?;
    ground.served().await?;
    ground.add(10, 16).await?;
    // The original is none the worse for it.
    ground.caught_up(&[0, 1, 2]).await?;
    ground.show(0);
    ground.show_status().await;
    ground.expect_count().await
}

/// The same cluster, but for folder and address of replica 2.
fn clone_config(ground: &Ground, path: &Path) -> Result<(), Error> {
    let mut random = vsr::protocol::Random::new(ground.config.cluster.0 as u64);
    let mut config: ClusterConfig = ground.config.clone();
    config.replicas[2] = addresses(1, &mut random)?.iter().map(ToString::to_string).collect();
    config.metrics.clear();
    config.folder = PathBuf::from("clone");
    config.write(path)
}

/// r0 and r1 acknowledge what r2 has never heard of; r1's disk is formatted again under its id, and r0 stands still.
pub(super) async fn reformat() -> Result<(), Error> {
    let mut ground = Ground::start().await?;
    ground.add(5, 16).await?;
    ground.caught_up(&[0, 1, 2]).await?;
    ground.kill(2).await?;
    ground.add(6, 16).await?;
    ground.kill(1).await?;
    fs::remove_dir_all(ground.data(1))?;
    tell("   the folder is gone:");
    ground.expect_refusal(1, 1, None, exit::STORAGE).await?;
    tell("   it is formatted again, under its old id:");
    let config = ground.path("cluster.toml").display().to_string();
    if !ground.program(&["format", "--config", &config, "--id", "1"]).await?.success() {
        return Err("an empty folder cannot be formatted".into());
    }
    ground.pause(0)?;
    ground.processes.start(2).await?;
    old_folder(&mut ground, 1).await?;
    ground.kill(1).await?;
    ground.resume(0)?;
    ground.served().await?;
    ground.expect_count().await?;
    ground.add(5, 16).await?;
    ground.expect_count().await
}

/// One flipped bit in the log of each stopped replica, at other ops: every op has two intact copies, so all are served.
pub(super) async fn damage(quick: bool) -> Result<(), Error> {
    const SHARES: [usize; REPLICAS] = [30, 50, 70];
    let trials: usize = if quick { 3 } else { 12 };
    for trial in 0..trials {
        let mut ground = Ground::prepare(Limits::default()).await?;
        ground.format()?;
        let log_of = |ground: &Ground, id: usize| ground.data(id).join("log");
        let fresh: Vec<Vec<u8>> = (0..REPLICAS).map(|id| fs::read(log_of(&ground, id))).collect::<Result<_, _>>()?;
        ground.start_all().await?;
        ground.add(120, 64).await?;
        ground.caught_up(&[0, 1, 2]).await?;
        ground.processes.stop_all().await?;
        for (id, fresh) in fresh.iter().enumerate() {
            // Each replica has each share in turn.
            flip(&log_of(&ground, id), fresh, SHARES[(id + trial) % REPLICAS], trial)?;
        }
        ground.start_all().await?;
        ground.served().await.map_err(|error| format!("trial {trial}: {error}"))?;
        ground.expect_count().await?;
        ground.add(5, 64).await?;
        ground.caught_up(&[0, 1, 2]).await?;
        ground.expect_count().await?;
        if trial == 0 {
            for id in 0..REPLICAS {
                ground.show(id);
            }
            ground.show_status().await;
        }
    }
    tell(format_args!("   {trials} clusters with three damaged disks each serve all that was acknowledged"));
    Ok(())
}

/// Flips a bit in a sector of the log's used part, at a share of it in percent. Used is what differs from the log as it was formatted.
fn flip(path: &Path, fresh: &[u8], percent: usize, seed: usize) -> Result<(), Error> {
    const SECTOR: usize = 512;
    // The rest of a sector is its stamp.
    const PAYLOAD: usize = 488;
    let log = fs::read(path)?;
    let is_used = |(at, sector): &(usize, &[u8])| match fresh.chunks(SECTOR).nth(*at) {
        Some(before) => before != *sector,
        None => sector.iter().take(PAYLOAD).any(|byte| *byte != 0),
    };
    let used: Vec<usize> = log.chunks(SECTOR).enumerate().filter(is_used).map(|(at, _)| at).collect();
    if used.len() < 50 {
        return Err(format!("{}: only {} sectors are used", path.display(), used.len()).into());
    }
    let sector = used.get(used.len() * percent / 100).ok_or("no such sector")?;
    let at = sector * SECTOR + (97 * seed + 41) % PAYLOAD;
    let byte = *log.get(at).ok_or("no such byte")? ^ (1_u8 << (seed % 8));
    fs::File::options().write(true).open(path)?.write_all_at(&[byte], at as u64)?;
    Ok(())
}
