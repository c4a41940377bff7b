//! A long history and a large state: what must not grow with them, and what must not wait for them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;
use vsr::{Clock, SystemClock};

use super::Setting;
use super::ground::{Ground, Limits, of};
use super::load::resident;
use super::pressure::Load;
use crate::Error;
use crate::output::tell;

/// What is measured of a replica at one moment, in bytes.
#[derive(Clone, Copy)]
struct Size {
    resident: u64,
    disk: u64,
}

fn size(ground: &Ground, id: usize) -> Result<Size, Error> {
    Ok(Size { resident: resident(ground, id)?, disk: on_disk(&ground.data(id))? })
}

/// Bytes that the files of a folder take, without their holes.
fn on_disk(folder: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        let file = file?;
        // One that was removed meanwhile takes nothing.
        let Ok(metadata) = file.metadata() else { continue };
        bytes += if metadata.is_dir() { on_disk(&file.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// Memory, disk and the time of a start after a long history are those after a short one. A replica that was away for most of it is back soon,
/// with a checkpoint of the others, and clients hardly notice.
pub(super) async fn endless(setting: Setting) -> Result<(), Error> {
    const GROWTH_MAX: f64 = 1.2;
    const P99_MAX: f64 = 2.0;
    /// An op has up to a hundred commands here.
    const CHECKPOINT_OPS: u64 = 1000;
    /// For the times of the clients, without the replica's return and with it.
    const WINDOW: Duration = Duration::from_secs(5);
    const REJOIN_MAX: Duration = Duration::from_secs(30);
    let (short, long) = if setting.quick { (200_000, 1_000_000) } else { (1_000_000, 20_000_000) };
    let mut ground =
        Ground::prepare(Limits { log: Some(128 << 20), checkpoint_ops: CHECKPOINT_OPS, storage: setting.storage })
            .await?;
    ground.format()?;
    ground.start_all().await?;
    let clock = SystemClock::new();
    let load = Load::begin(&ground, 8, 32, Duration::ZERO).await?;
    let reach = async |count: u64| {
        while load.acknowledged() < count {
            sleep(Duration::from_millis(50)).await;
        }
    };
    reach(short).await;
    let first_start = restart(&mut ground, 2).await?;
    ground.until("replica 2 to catch up", |said| lags(said, 2).is_some_and(|ops| ops < CHECKPOINT_OPS)).await?;
    let head = of(&ground.status().await, 2).map(|status| status.head).ok_or("replica 2 says nothing")?;
    ground.kill(2).await?;
    let early = [size(&ground, 0)?, size(&ground, 1)?];
    tell("   commands   r0 resident  r0 disk   r1 resident  r1 disk   (MiB; r2 is away)");
    for step in 0..=8 {
        reach(short + (long - short) / 8 * step).await;
        let [r0, r1] = [size(&ground, 0)?, size(&ground, 1)?];
        tell(format_args!(
            "   {:>9}  {:>11}  {:>7}   {:>11}  {:>7}",
            load.acknowledged(),
            r0.resident >> 20,
            r0.disk >> 20,
            r1.resident >> 20,
            r1.disk >> 20
        ));
    }
    for (id, early) in early.iter().enumerate() {
        let late = size(&ground, id)?;
        for (what, early, late) in [("memory", early.resident, late.resident), ("disk", early.disk, late.disk)] {
            let growth = late as f64 / early as f64;
            if growth > GROWTH_MAX {
                return Err(format!("r{id}: {what} has grown to {growth:.2} times what it was").into());
            }
        }
    }
    load.end(&mut ground).await?;

    tell("   r2 returns, beside 16 clients at a time that pause for 5 ms after each answer:");
    let load = Load::begin(&ground, 4, 4, Duration::from_millis(5)).await?;
    sleep(Duration::from_secs(2)).await;
    load.times();
    sleep(WINDOW).await;
    let alone = load.times().p99;
    let begin = clock.now();
    ground.processes.start(2).await?;
    ground.until("replica 2 to catch up", |said| lags(said, 2).is_some_and(|ops| ops < CHECKPOINT_OPS)).await?;
    let rejoin = clock.now().since(begin);
    // A quarter of a second alone would be a few hundred commands.
    sleep(WINDOW.saturating_sub(rejoin)).await;
    let beside = load.times().p99;
    ground.show(2);
    let base = of(&ground.status().await, 2).map(|status| status.log_base).ok_or("replica 2 says nothing")?;
    tell(format_args!(
        "   r2, which had op {head}, begins after op {base}: back within {:.2} s; p99 of the clients {:.1} ms, before {:.1} ms",
        rejoin.as_secs_f64(),
        beside.as_secs_f64() * 1e3,
        alone.as_secs_f64() * 1e3
    ));
    if base <= head {
        return Err("r2 has not fetched a checkpoint: this case has shown nothing".into());
    }
    if rejoin > REJOIN_MAX {
        return Err("that is too long".into());
    }
    if beside.as_secs_f64() > alone.as_secs_f64() * P99_MAX {
        return Err("its return has made the clients wait".into());
    }
    load.end(&mut ground).await?;
    let last_start = restart(&mut ground, 2).await?;
    tell(format_args!(
        "   a start after SIGKILL: {:.2} s early, {:.2} s now",
        first_start.as_secs_f64(),
        last_start.as_secs_f64()
    ));
    if last_start > first_start + Duration::from_secs(1) {
        return Err("a start takes longer than it did".into());
    }
    ground.caught_up(&[0, 1, 2]).await?;
    ground.show_status().await;
    ground.expect_alive()?;
    ground.expect_count().await
}

/// By how many ops a replica is behind its primary; `None` while it is not known.
fn lags(said: &[crate::ask::Said], id: usize) -> Option<u64> {
    let primary = said.iter().flatten().find(|(status, _)| status.is_primary)?;
    let own = of(said, id).filter(|status| status.normal && status.transfer.is_none())?;
    Some(primary.0.commit.0.saturating_sub(own.applied.0))
}

/// Kills a replica, and starts it: how long that takes until it is ready.
async fn restart(ground: &mut Ground, id: usize) -> Result<Duration, Error> {
    let clock = SystemClock::new();
    ground.kill(id).await?;
    let begin = clock.now();
    ground.processes.start(id).await?;
    Ok(clock.now().since(begin))
}

/// With a large state, and a checkpoint of it every few seconds: commits take hardly longer than without checkpoints, and no primary is lost.
pub(super) async fn pauses(setting: Setting) -> Result<(), Error> {
    const P99_MAX: f64 = 2.0;
    let (mib, interval, time) = if setting.quick { (128, 4, 12) } else { (1024, 10, 60) };
    let without = commits((mib, setting), 0, time).await?;
    tell(format_args!(
        "   without checkpoints: {:.0} commands a second, p99 {:.1} ms",
        without.rate,
        without.p99 * 1e3
    ));
    let with = commits((mib, setting), (without.ops * f64::from(interval)) as u64, time).await?;
    tell(format_args!(
        "   with {} checkpoints of {mib} MiB: {:.0} commands a second, p99 {:.1} ms; up to {} MiB more in memory",
        with.checkpoints,
        with.rate,
        with.p99 * 1e3,
        with.more_resident >> 20
    ));
    if with.checkpoints < 2 {
        return Err("there were too few checkpoints: this case has shown nothing".into());
    }
    if with.p99 > without.p99 * P99_MAX {
        return Err(format!("p99 is {:.1} times that without checkpoints", with.p99 / without.p99).into());
    }
    Ok(())
}

/// What a cluster with a large state does for a while.
struct Commits {
    /// Commands in a second.
    rate: f64,
    /// Ops in a second.
    ops: f64,
    /// In seconds.
    p99: f64,
    /// Checkpoints that the primary has taken.
    checkpoints: usize,
    /// Bytes of the primary in memory, beyond what there was at first.
    more_resident: u64,
}

async fn commits((mib, setting): (u64, Setting), checkpoint_ops: u64, seconds: u64) -> Result<Commits, Error> {
    let limits = Limits { log: Some(4 << 30), checkpoint_ops, storage: setting.storage };
    let mut ground = Ground::prepare(limits).await?;
    ground.format()?;
    ground.start_all().await?;
    ground.keep(mib << 20).await?;
    let (clock, load) = (SystemClock::new(), Load::begin(&ground, 4, 4, Duration::ZERO).await?);
    sleep(Duration::from_secs(2)).await;
    let primary = ground.primary().await?;
    let views = ground.status().await.iter().flatten().map(|(status, _)| status.view).max();
    let (first, before, ops) = (resident(&ground, primary)?, load.acknowledged(), ground.commit(primary).await?);
    load.times();
    let (begin, mut highest, mut seen) = (clock.now(), first, Vec::new());
    while clock.now().since(begin) < Duration::from_secs(seconds) {
        sleep(Duration::from_millis(200)).await;
        highest = highest.max(resident(&ground, primary)?);
        seen.extend(of(&ground.status().await, primary).map(|status| status.checkpoint));
    }
    let time = clock.now().since(begin).as_secs_f64();
    let (rate, p99) = ((load.acknowledged() - before) as f64 / time, load.times().p99.as_secs_f64());
    let ops = (ground.commit(primary).await? - ops) as f64 / time;
    seen.dedup();
    if ground.status().await.iter().flatten().map(|(status, _)| status.view).max() != views {
        return Err("another primary was needed meanwhile".into());
    }
    load.end(&mut ground).await?;
    ground.expect_alive()?;
    ground.expect_count().await?;
    Ok(Commits { rate, ops, p99, checkpoints: seen.len().saturating_sub(1), more_resident: highest - first })
}
