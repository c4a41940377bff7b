//! A large state of the example's own machine: a checkpoint of it, and its way to another replica.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use rustix::process::Signal;
use tokio::time::sleep;
use vsr::network::{Identity, NetworkEvent};
use vsr::protocol::{CheckpointId, DiskId, Envelope, Message, OpNumber, Peer, Random};
use vsr::{Client, Clock, ClusterId, Config, Network, ReplicaId, SystemClock};
use vsr_net_tcp::TcpNetwork;

use super::Setting;
use super::ground::{ANSWER_MAX, Ground, Limits, REPLICAS, of};
use super::load::resident;
use super::pressure::{Load, Pace, all_of};
use crate::output::tell;
use crate::processes::addresses;
use crate::serve::connect;
use crate::{App, Error};

/// Bytes of each value.
const VALUE: usize = 4 << 10;
/// Writes while the checkpoint is taken and carried: so many a second, each of so many bytes.
const RATE: u64 = 1000;
const WRITTEN: usize = 128;
/// Writes at a time, at most.
const LANES: usize = 50;
/// Places that they write to, in turn.
const PLACES: u64 = 10_000;
/// Bytes that a replica may hold more of while it writes a checkpoint.
const EXTRA_MAX: u64 = 64 << 20;
/// The share of a plain copy's speed that a transfer has to have.
const SHARE_MIN: f64 = 0.5;
/// A part of a checkpoint.
const PART: usize = 1 << 20;

/// Clients write, at a stated rate, while all replicas take a checkpoint of a large state: no view changes, and memory hardly grows. Then one
/// replica loses its disk, and fetches the checkpoint about as fast as a file is copied.
pub(super) async fn large<A: App>(setting: Setting) -> Result<(), Error> {
    let Some(_) = A::store(0, VALUE) else {
        tell("   this example keeps no large state: `kv checkpoints --only large` shows this");
        return Ok(());
    };
    let mib: u64 = if setting.quick { 256 } else { 1024 };
    let limits = Limits { log: Some((mib << 20) * 3), checkpoint_ops: 0, storage: setting.storage };
    let mut ground = Ground::prepare_own(limits).await?;
    ground.format()?;
    ground.start_all().await?;
    let client = connect::<A>(&ground.config).await?;
    let filled = fill::<A>(&client, mib << 20).await?;
    ground.caught_up(&[0, 1, 2]).await?;
    tell(format_args!("   {mib} MiB in {filled} values; {RATE} writes of {WRITTEN} bytes a second from now on"));
    let interval = Duration::from_secs(1) * LANES as u32 / RATE as u32;
    let write = |nth: u64| A::store(nth % PLACES, WRITTEN);
    let writers = Load::<A>::of(vec![client.clone()], LANES, Pace::Every(interval), write);
    sleep(Duration::from_secs(5)).await;
    let alone = writers.times();
    let view = views(&ground).await;
    take_checkpoints(&mut ground, &writers, alone.p99).await?;
    // The log stays behind the older of two.
    take_checkpoints(&mut ground, &writers, alone.p99).await?;
    if views(&ground).await != view {
        return Err("another primary was needed meanwhile".into());
    }
    ground
        .until("a log that is dropped", |said| of(said, 0).is_some_and(|status| status.log_base > OpNumber::ZERO))
        .await?;
    let copied = plain_copy(&ground).await?;
    tell(format_args!(
        "   a plain copy of the checkpoint's file through the same transport: {:.0} MiB/s",
        copied.speed()
    ));
    let fetched = transfer(&mut ground, &writers, copied.bytes).await?;
    let (acknowledged, unknown) = writers.stop().await?;
    let written = all_of(acknowledged, unknown)?;
    ground.caught_up(&[0, 1, 2]).await?;
    ground.show_status().await;
    ground.expect_alive()?;
    let client = connect::<A>(&ground.config).await?;
    let counted = client.query_within(A::count_query(), ANSWER_MAX).await?;
    client.close();
    if A::count(&counted.value) != filled + written {
        let counted = A::count(&counted.value);
        return Err(format!("{} commands were acknowledged, {counted} are in the state", filled + written).into());
    }
    let share = fetched.speed() / copied.speed();
    tell(format_args!("   the transfer has {share:.2} of the copy's speed"));
    if share < SHARE_MIN { Err("that is too slow".into()) } else { Ok(()) }
}

async fn fill<A: App>(client: &Client<A::Machine>, bytes: u64) -> Result<u64, Error> {
    let values = bytes / VALUE as u64;
    let stored = futures::stream::iter(0..values).map(|at| async move {
        let Some(command) = A::store(PLACES + at, VALUE) else { return Ok(()) };
        client.submit_within(command, ANSWER_MAX).await.map(|_| ())
    });
    let stored: Vec<_> = stored.buffer_unordered(256).collect().await;
    stored.into_iter().collect::<Result<(), _>>()?;
    Ok(values)
}

async fn views(ground: &Ground) -> Option<vsr::protocol::View> {
    ground.status().await.iter().flatten().map(|(status, _)| status.view).max()
}

/// Every replica takes a checkpoint at once, beside the writers.
async fn take_checkpoints<A: App>(ground: &mut Ground, writers: &Load<A>, alone: Duration) -> Result<(), Error> {
    let clock = SystemClock::new();
    let before: Vec<u64> = (0..REPLICAS).map(|id| resident(ground, id)).collect::<Result<_, _>>()?;
    let mut most = before.clone();
    let checkpoints = ground.status().await;
    let checkpoint = |said: &[crate::ask::Said], id| of(said, id).map_or(OpNumber::ZERO, |status| status.checkpoint);
    writers.times();
    (0..REPLICAS).try_for_each(|id| ground.processes.signal(id, Signal::USR1))?;
    let begin = clock.now();
    loop {
        sleep(Duration::from_millis(50)).await;
        for (id, most) in most.iter_mut().enumerate() {
            *most = (*most).max(resident(ground, id)?);
        }
        let said = ground.status().await;
        if (0..REPLICAS).all(|id| checkpoint(&said, id) > checkpoint(&checkpoints, id)) {
            break;
        }
        if clock.now().since(begin) > Duration::from_secs(300) {
            return Err("waited in vain for the checkpoints".into());
        }
    }
    let (time, beside) = (clock.now().since(begin), writers.times());
    let more: Vec<u64> = most.iter().zip(&before).map(|(most, before)| (most - before) >> 20).collect();
    tell(format_args!(
        "   all three checkpoints within {:.1} s: {} writes, p99 {:.1} ms, the longest {:.1} ms (before, p99 {:.1} ms); more in memory: {more:?} MiB",
        time.as_secs_f64(),
        beside.count,
        beside.p99.as_secs_f64() * 1e3,
        beside.longest.as_secs_f64() * 1e3,
        alone.as_secs_f64() * 1e3,
    ));
    match more.iter().max() {
        Some(most) if most << 20 > EXTRA_MAX => Err("that is too much memory".into()),
        _ => Ok(()),
    }
}

/// Bytes, and how long they took.
struct Carried {
    bytes: u64,
    time: Duration,
}

impl Carried {
    /// In MiB a second.
    fn speed(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64() / f64::from(1 << 20)
    }
}

/// A replica gets a new disk, and fetches the checkpoint.
async fn transfer<A: App>(ground: &mut Ground, writers: &Load<A>, bytes: u64) -> Result<Carried, Error> {
    const ID: usize = REPLICAS - 1;
    let clock = SystemClock::new();
    ground.kill(ID).await?;
    ground.config.recover(ID as u8)?;
    writers.times();
    let begin = clock.now();
    ground.processes.start(ID).await?;
    // When parts were seen to come, and how many: the last time before all are there.
    let (mut first, mut last) = (None, None);
    loop {
        sleep(Duration::from_millis(10)).await;
        let (now, said) = (clock.now(), ground.status().await);
        let status = of(&said, ID);
        match status.and_then(|status| status.transfer) {
            Some((_, stored, all)) if all > 1 => {
                let parts = u64::from(stored);
                first = first.or(Some((now, parts)));
                if last.is_none_or(|(_, before)| before < parts) {
                    last = Some((now, parts));
                }
            }
            _ if status.is_some_and(|status| status.normal && status.checkpoint > OpNumber::ZERO) => break,
            _ => {}
        }
        if clock.now().since(begin) > Duration::from_secs(300) {
            return Err("waited in vain for the transfer".into());
        }
    }
    let whole = clock.now().since(begin);
    let ((from, first), (to, last)) = first.zip(last).ok_or("no part was seen to come")?;
    let seen = Carried { bytes: (last - first) * PART as u64, time: to.since(from) };
    let beside = writers.times();
    tell(format_args!(
        "   replica {ID} has fetched {} MiB at {:.0} MiB/s, and serves {:.1} s after its start; meanwhile p99 {:.1} ms, the longest {:.1} ms",
        bytes >> 20,
        seen.speed(),
        whole.as_secs_f64(),
        beside.p99.as_secs_f64() * 1e3,
        beside.longest.as_secs_f64() * 1e3,
    ));
    if seen.bytes < bytes / 2 {
        return Err("too little of the transfer was seen".into());
    }
    Ok(seen)
}

/// Copies the newest checkpoint's file from one process' end of the transport to another: asked for in parts, as many at a time as a transfer has.
async fn plain_copy(ground: &Ground) -> Result<Carried, Error> {
    const WINDOW: u32 = 4;
    let from = newest_checkpoint(&ground.data(0))?;
    let bytes = fs::metadata(&from)?.len();
    let parts = u32::try_from(bytes.div_ceil(PART as u64))?;
    let mut random = Random::new(vsr::ClientConfig::new(1).seed);
    let members: Vec<String> = addresses(2, &mut random)?.iter().map(ToString::to_string).collect();
    let cluster = ClusterId(random.next_u64().into());
    let bound = async |id| -> Result<TcpNetwork, Error> {
        let network = TcpNetwork::bind(&Config::new(cluster, ReplicaId(id), members.clone())?).await?;
        network.set_identity(Identity::new(DiskId(u128::from(id) + 1), 1));
        Ok(network)
    };
    let (source, sink) = (bound(0).await?, bound(1).await?);
    let served = tokio::spawn(serve_parts(source, from, bytes));
    let to = ground.path("copy");
    let (id, clock) = (CheckpointId::default(), SystemClock::new());
    let ask = |part: u32| {
        let message = Message::RequestCheckpoint { id, parts: vec![part] };
        sink.send(&mut vec![Envelope { to: Peer::Replica(ReplicaId(0)), message }]);
    };
    let event = async || -> Result<Vec<NetworkEvent>, Error> {
        let events = tokio::time::timeout(ANSWER_MAX, sink.recv()).await;
        Ok(events.map_err(|_| "nothing comes of the copy")??)
    };
    while !event().await?.iter().any(|event| matches!(event, NetworkEvent::PeerUp(_))) {}
    let mut file = fs::File::create(&to)?;
    let (begin, mut come, mut asked) = (clock.now(), 0, 0);
    while asked < parts.min(WINDOW) {
        ask(asked);
        asked += 1;
    }
    while come < parts {
        for event in event().await? {
            let NetworkEvent::Message { message: Message::CheckpointPart { bytes: Some(bytes), .. }, .. } = event
            else {
                continue;
            };
            file.write_all(&bytes)?;
            come += 1;
            if asked < parts {
                ask(asked);
                asked += 1;
            }
        }
    }
    file.sync_all()?;
    let time = clock.now().since(begin);
    served.abort();
    sink.close().await;
    // It is removed with all that is of this case: a file system that frees a large file makes others wait, and so may what it still has to write.
    sleep(Duration::from_secs(2)).await;
    Ok(Carried { bytes, time })
}

async fn serve_parts(network: TcpNetwork, from: PathBuf, bytes: u64) -> Result<(), Error> {
    let file = fs::File::open(from)?;
    loop {
        for event in network.recv().await? {
            let NetworkEvent::Message { from, message: Message::RequestCheckpoint { id, parts } } = event else {
                continue;
            };
            for part in parts {
                let at = u64::from(part) * PART as u64;
                let mut read = vec![0; (bytes - at).min(PART as u64) as usize];
                file.read_exact_at(&mut read, at)?;
                let message = Message::CheckpointPart { id, part, bytes: Some(Bytes::from(read)) };
                network.send(&mut vec![Envelope { to: from, message }]);
            }
        }
    }
}

fn newest_checkpoint(data: &Path) -> Result<PathBuf, Error> {
    let mut files: Vec<PathBuf> = Vec::new();
    for file in fs::read_dir(data.join("checkpoints"))? {
        files.push(file?.path());
    }
    files.sort();
    Ok(files.pop().ok_or("there is no checkpoint")?)
}
