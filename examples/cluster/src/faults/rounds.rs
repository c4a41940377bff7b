//! Random harm to the files of one replica of a running cluster, round after round.

use std::fmt;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vsr::protocol::Random;

use super::Setting;
use super::ground::{Ground, Limits, REPLICAS, copy, of};
use crate::output::tell;
use crate::processes::Started;
use crate::{Error, StorageKind, exit};

/// What is done to a replica that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// Bits of a file are flipped.
    Flipped(Which),
    /// A file is cut off somewhere.
    Cut(Which),
    /// A file is removed.
    Removed(Which),
    /// Nothing is left.
    FolderRemoved,
    /// Everything is as it was some time ago, in the same files.
    Old,
    /// It has the folder of another replica, and that one has its.
    Swapped,
}

/// Of the files of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Log,
    State,
    /// Of a database: its list of files.
    Manifest,
    Checkpoint,
    All,
}

/// In turn. Where the state is the manifest, it is harmed once.
const HARMS: [Harm; 17] = [
    Harm::Flipped(Which::Log),
    Harm::Flipped(Which::State),
    Harm::Flipped(Which::Manifest),
    Harm::Flipped(Which::Checkpoint),
    Harm::Flipped(Which::All),
    Harm::Cut(Which::Log),
    Harm::Cut(Which::State),
    Harm::Cut(Which::Manifest),
    Harm::Cut(Which::Checkpoint),
    Harm::Cut(Which::All),
    Harm::Removed(Which::Log),
    Harm::Removed(Which::State),
    Harm::Removed(Which::Manifest),
    Harm::Removed(Which::Checkpoint),
    Harm::FolderRemoved,
    Harm::Old,
    Harm::Swapped,
];

impl Harm {
    fn is_of(self, storage: StorageKind) -> bool {
        let is_manifest = matches!(
            self,
            Harm::Flipped(Which::Manifest) | Harm::Cut(Which::Manifest) | Harm::Removed(Which::Manifest)
        );
        storage == StorageKind::Rocksdb || !is_manifest
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, which) = match self {
            Harm::Flipped(which) => ("bits flipped in", which),
            Harm::Cut(which) => ("cut off:", which),
            Harm::Removed(which) => ("removed:", which),
            Harm::FolderRemoved => return f.write_str("the folder removed"),
            Harm::Old => return f.write_str("an old copy put back"),
            Harm::Swapped => return f.write_str("swapped with another's"),
        };
        let which = match which {
            Which::Log => "the log",
            Which::State => "the state",
            Which::Manifest => "the manifest",
            Which::Checkpoint => "a checkpoint",
            Which::All => "all files",
        };
        write!(f, "{done} {which}")
    }
}

/// Each round: a cluster whose log was dropped behind checkpoints; one replica is killed and harmed, the others go on, and it is started again. It
/// ends up repaired, or refused with words: then it gets a new disk (`recover`) and counts again. Nothing that was acknowledged is lost.
pub(super) async fn rounds(setting: Setting) -> Result<(), Error> {
    let harms: Vec<Harm> = HARMS.into_iter().filter(|harm| harm.is_of(setting.storage)).collect();
    let (rounds, mut random) = (if setting.quick { harms.len() } else { 100 }, Random::new(20));
    let mut counts = [0; 2];
    tell("   round  replica  harm                       outcome");
    for round in 0..rounds {
        let (harm, victim) = (harms[round % harms.len()], random.below(REPLICAS as u64) as usize);
        let outcome = play(harm, victim, setting, &mut random).await;
        let outcome = outcome.map_err(|error| format!("round {round}, r{victim}, {harm}: {error}"))?;
        counts[usize::from(outcome.is_some())] += 1;
        let words = outcome.map_or_else(|| "repaired".to_owned(), |words| format!("recovered; it was {words}"));
        tell(format_args!("   {round:>5}  r{victim}       {:<25}  {words}", harm.to_string()));
    }
    let [repaired, refused] = counts;
    tell(format_args!(
        "   {rounds} rounds: {repaired} repaired, {refused} refused in words and recovered; nothing acknowledged is lost"
    ));
    Ok(())
}

/// `None` when the replica is as it was, else how it was refused.
async fn play(harm: Harm, victim: usize, setting: Setting, random: &mut Random) -> Result<Option<String>, Error> {
    let mut ground = Ground::prepare(Limits { log: None, checkpoint_ops: 100, storage: setting.storage }).await?;
    ground.format()?;
    ground.start_all().await?;
    let (data, kept) = (ground.data(victim), ground.path("kept"));
    ground.add(150, 64).await?;
    if harm == Harm::Old {
        ground.caught_up(&[0, 1, 2]).await?;
        ground.kill(victim).await?;
        copy(&data, &kept)?;
        // A backup that is put back is older than what the others have seen.
        for _ in 0..2 {
            ground.processes.start(victim).await?;
            ground.add(5, 64).await?;
            ground.caught_up(&[0, 1, 2]).await?;
            ground.kill(victim).await?;
        }
        ground.processes.start(victim).await?;
    }
    ground.add(150, 64).await?;
    ground.caught_up(&[0, 1, 2]).await?;
    ground.until("checkpoints", |said| of(said, victim).is_some_and(|status| status.checkpoint.0 >= 200)).await?;
    ground.kill(victim).await?;
    let other = (victim + 1) % REPLICAS;
    match harm {
        Harm::Flipped(which) => {
            for path in files(&data, which)? {
                flip(&path, random)?;
            }
        }
        Harm::Cut(which) => {
            for path in files(&data, which)? {
                let file = fs::File::options().write(true).open(&path)?;
                file.set_len(random.below(file.metadata()?.len().max(1)))?;
            }
        }
        Harm::Removed(which) => {
            for path in files(&data, which)? {
                fs::remove_file(path)?;
            }
        }
        Harm::FolderRemoved => fs::remove_dir_all(&data)?,
        Harm::Old => {
            // Files of a name that the copy does not have would stay, and a database would take them in.
            for folder in ["checkpoints", "db"].map(|name| data.join(name)) {
                if folder.exists() {
                    fs::remove_dir_all(folder)?;
                }
            }
            copy(&kept, &data)?;
        }
        Harm::Swapped => {
            ground.kill(other).await?;
            fs::rename(&data, &kept)?;
            fs::rename(ground.data(other), &data)?;
            fs::rename(&kept, ground.data(other))?;
        }
    }
    if harm != Harm::Swapped {
        ground.add(20, 64).await?;
    }
    let outcome = start(&mut ground, victim).await?;
    if harm == Harm::Swapped {
        // Both are refused. Each is itself again once it has its own folder.
        start(&mut ground, other).await?.ok_or("a replica runs on another's folder")?;
        fs::rename(&data, &kept)?;
        fs::rename(ground.data(other), &data)?;
        fs::rename(&kept, ground.data(other))?;
        ground.processes.start(victim).await?;
        ground.processes.start(other).await?;
    }
    ground.add(20, 64).await?;
    if outcome.is_some() && harm != Harm::Swapped {
        // What the refusal says to do. Then the new disk is needed for each acknowledgement.
        ground.config.recover(u8::try_from(victim)?)?;
        ground.processes.start(victim).await?;
        ground.caught_up(&[0, 1, 2]).await?;
        ground
            .until("the new disk counts", |said| of(said, victim).is_some_and(|status| status.health.is_normal()))
            .await?;
        ground.kill(other).await?;
        ground.add(20, 64).await?;
        ground.processes.start(other).await?;
    }
    ground.caught_up(&[0, 1, 2]).await?;
    ground.expect_count().await?;
    Ok(outcome)
}

/// Starts the replica: `None` when it is back, else the words of its refusal.
async fn start(ground: &mut Ground, id: usize) -> Result<Option<String>, Error> {
    if let Started::Ended(status) = ground.processes.try_start(id, id, None).await? {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        if !matches!(code, Some(exit::USAGE | exit::STORAGE | exit::REFUSED)) {
            ground.show(id);
            return Err(format!("it ends with {status}").into());
        }
        let told = fs::read_to_string(ground.processes.log_of(id))?;
        let last = told.lines().last().ok_or("it is refused without a word")?;
        let words = last.split_once("replica-").map_or(last, |(_, rest)| rest);
        return Ok(Some(format!(
            "refused, exit code {}: {}",
            code.unwrap_or_default(),
            words.chars().take(200).collect::<String>()
        )));
    }
    Ok(None)
}

/// The files of a replica.
fn files(data: &Path, which: Which) -> Result<Vec<PathBuf>, Error> {
    let mut checkpoints: Vec<PathBuf> = Vec::new();
    for file in fs::read_dir(data.join("checkpoints"))? {
        checkpoints.push(file?.path());
    }
    checkpoints.sort();
    let newest = checkpoints.last().cloned().ok_or("there is no checkpoint")?;
    let in_database = |is: &dyn Fn(&str) -> bool| -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for file in fs::read_dir(data.join("db"))? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is(&name) && fs::metadata(&path)?.len() > 0 {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    };
    let is_log = |name: &str| [".log", ".sst", ".blob"].iter().any(|end| name.ends_with(end));
    let is_manifest = |name: &str| name.starts_with("MANIFEST") || name == "CURRENT";
    Ok(match (which, data.join("db").exists()) {
        (Which::Checkpoint, _) => vec![newest],
        (Which::Log, false) => vec![data.join("log")],
        (Which::State | Which::Manifest, false) => vec![data.join("state")],
        (Which::All, false) => [vec![data.join("log"), data.join("state")], checkpoints].concat(),
        (Which::Log, true) => in_database(&is_log)?,
        (Which::State, true) => vec![data.join("seal")],
        (Which::Manifest, true) => in_database(&is_manifest)?,
        (Which::All, true) => {
            [in_database(&|_| true)?, vec![data.join("seal"), data.join("place")], checkpoints].concat()
        }
    })
}

/// Flips up to eight bits where a file has something.
fn flip(path: &Path, random: &mut Random) -> Result<(), Error> {
    const SECTOR: usize = 512;
    let bytes = fs::read(path)?;
    let used = bytes.chunks(SECTOR).enumerate().filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
    let used: Vec<usize> = used.map(|(at, _)| at).collect();
    let file = fs::File::options().write(true).open(path)?;
    for _ in 0..=random.below(8) {
        let sector = *used.get(random.below(used.len() as u64) as usize).ok_or("an empty file")?;
        let at = (sector * SECTOR + random.below(SECTOR as u64) as usize).min(bytes.len() - 1);
        file.write_all_at(&[bytes[at] ^ (1 << random.below(8))], at as u64)?;
    }
    Ok(())
}
