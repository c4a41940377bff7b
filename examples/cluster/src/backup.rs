//! A state as a file: from a replica that stands still, or from what is left of a cluster; and a new cluster from it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use vsr::Storage;
use vsr::backup::{self, Backup, BackupError, Reach, Survivor, examine, ranked};
use vsr::config::FormatFor;
use vsr::protocol::OpNumber;

use crate::exit::{self, failure};
use crate::output::{complain, say};
use crate::{App, ClusterConfig, Error, StorageKind};

/// The version of the state machine that the examples apply: that of a configuration's default.
const MACHINE_VERSION: u32 = 1;

async fn write<A: App>(storage: &impl Storage, reach: Reach, to: &Path) -> Result<Backup, Error> {
    Ok(backup::export(storage, (A::Machine::default(), MACHINE_VERSION), reach, to).await?)
}

/// Writes the state of a replica that stands still to a file.
pub(crate) async fn export<A: App>(config: &Path, id: u8, to: &Path) -> Result<(), Error> {
    let storage = ClusterConfig::read(config)?.open(id)?;
    let head = examine(&storage).await?.head;
    let Backup { cluster, op, bytes, .. } = write::<A>(&storage, Reach::Committed, to).await?;
    storage.close().await;
    if op < head {
        complain(format_args!(
            "ops {} to {head} are in the log of replica {id}, which does not know that they are committed: they are left out. A replica that is ended \
             with SIGTERM, and not killed, knows all that it was told",
            op.next()
        ));
    }
    say(format_args!("{} holds the state of cluster {cluster} after op {op}, {bytes} bytes", to.display()));
    Ok(())
}

/// Formats the disks of these replicas of a new cluster with the state of a file.
pub(crate) async fn restore(config: &ClusterConfig, ids: &[u8], from: &Path) -> Result<(), Error> {
    let cluster = backup::verify(from)?.cluster;
    if cluster == config.cluster {
        return Err(BackupError::SameCluster(cluster).into());
    }
    for &id in ids {
        config.format_disk(id, FormatFor::Backup)?;
        let storage = config.open(id)?;
        let restored = backup::restore(&storage, from).await;
        storage.close().await;
        let Backup { op, .. } = restored.map_err(|error| {
            let folder = config.folder_of(id);
            format!(
                "{error}; remove {} before the next attempt: it is unfinished, and counts for nothing",
                folder.display()
            )
        })?;
        say(format_args!("replica {id} is formatted, with the state of cluster {cluster} after op {op}"));
    }
    Ok(())
}

/// What of a cluster is left on disks, for the day on which no majority is.
#[derive(Clone, Debug, clap::Args)]
pub struct RescueOptions {
    /// The folders of the replicas whose disks are left, as data/replica-1. No replica runs on them.
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// The file that is written: `format --from` makes a new cluster of it. What may be lost is written beside it, with `.txt` at the end.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Also where enough disks are left for the replicas to go on by themselves.
    #[arg(long)]
    anyway: bool,
}

/// Shows what each disk holds, and makes a file of the state of the one that knows most.
pub(crate) async fn rescue<A: App>(options: &RescueOptions) -> Result<(), Error> {
    let RescueOptions { folders, to, anyway } = options;
    let mut found: Vec<(&PathBuf, Box<dyn Storage>, Survivor)> = Vec::new();
    for folder in folders {
        match look(folder).await {
            Ok((storage, survivor)) => {
                say(format_args!("{}: {survivor}", folder.display()));
                found.push((folder, storage, survivor));
            }
            Err(error) => complain(format_args!("{}: left out: {error}", folder.display())),
        }
    }
    let survivors: Vec<Survivor> = found.iter().map(|(.., survivor)| survivor.clone()).collect();
    let Some(first) = survivors.first() else {
        return Err(failure(exit::STORAGE, "none of these folders can be read: nothing was written"));
    };
    if let Some((folder, _, other)) = found.iter().find(|(.., other)| other.cluster != first.cluster) {
        let (one, other) = (first.cluster, other.cluster);
        return Err(failure(
            exit::USAGE,
            format!(
                "{} is of cluster {other}, another one of cluster {one}: give the folders of one cluster",
                folder.display()
            ),
        ));
    }
    refuse_majority(&survivors, *anyway)?;
    let mut name = to.as_os_str().to_owned();
    name.push(".txt");
    let name = PathBuf::from(name);
    if name.exists() {
        return Err(BackupError::Exists(name).into());
    }
    let mut written = None;
    for at in ranked(&survivors) {
        let (folder, storage, _) = &found[at];
        match write::<A>(storage, Reach::Head, to).await {
            Ok(backup) => {
                written = Some((at, backup));
                break;
            }
            // Another one may do.
            Err(error) => complain(format_args!("{}: no state can be made of it: {error}", folder.display())),
        }
    }
    for (_, storage, _) in &found {
        storage.close().await;
    }
    let Some((chosen, backup)) = written else {
        return Err(failure(exit::STORAGE, "no state can be made of any of these folders: nothing was written"));
    };
    let report = report(chosen, &found.iter().map(|(at, _, held)| (*at, held)).collect::<Vec<_>>(), &backup);
    fs::write(&name, &report).map_err(|error| format!("writing {}: {error}", name.display()))?;
    report.lines().for_each(say);
    say(format_args!("this is also in {}", name.display()));
    Ok(())
}

async fn look(folder: &Path) -> Result<(Box<dyn Storage>, Survivor), Error> {
    let storage = StorageKind::of(folder).open(folder)?;
    let survivor = examine(&storage).await?;
    Ok((storage, survivor))
}

/// The members that are here, each once, whose word counted.
fn members(survivors: &[Survivor]) -> Vec<u8> {
    let counted = survivors.iter().filter(|survivor| survivor.distrusted.is_none());
    let mut members: Vec<u8> = counted.map(|survivor| survivor.replica.0).collect();
    members.sort_unstable();
    members.dedup();
    members
}

fn refuse_majority(survivors: &[Survivor], anyway: bool) -> Result<(), Error> {
    let (here, all) = (members(survivors).len(), survivors[0].members);
    if here > all / 2 && !anyway {
        return Err(failure(
            exit::USAGE,
            format!(
                "{here} of {all} disks are here: start the replicas on them, they go on by themselves and lose nothing, and give the others new \
                 disks (recover). If they do not go on for another reason, say --anyway; nothing was written"
            ),
        ));
    }
    Ok(())
}

/// What was done, and what may be lost by it.
fn report(chosen: usize, found: &[(&PathBuf, &Survivor)], backup: &Backup) -> String {
    let Backup { cluster, op, commit, .. } = backup;
    let mut text = format!("The state of cluster {cluster} after op {op}, from {}.\n", found[chosen].0.display());
    for (folder, survivor) in found {
        let _ = writeln!(text, "Found: {}: {survivor}.", folder.display());
    }
    let survivors: Vec<Survivor> = found.iter().map(|(_, survivor)| (*survivor).clone()).collect();
    let (here, all) = (members(&survivors), survivors[0].members);
    let gone: Vec<String> =
        (0..all).map(|id| id as u8).filter(|id| !here.contains(id)).map(|id| id.to_string()).collect();
    let committed = survivors.iter().map(|survivor| survivor.commit.op()).max().unwrap_or(commit.op());
    let _ = writeln!(text, "Up to op {}, all of it is known to have been committed.", committed.min(*op));
    if committed < *op {
        let _ = writeln!(
            text,
            "Ops {} to {op} may never have been committed. The new cluster has executed them, whatever their clients were told.",
            committed.next()
        );
    }
    if committed > *op {
        let _ = writeln!(
            text,
            "LOST: ops {} to {committed}, which were committed, and are intact in none of these folders.",
            op.next()
        );
    }
    let others = || found.iter().enumerate().filter(|(at, (_, other))| *at != chosen && other.head > *op);
    for (_, (folder, other)) in others() {
        let _ = writeln!(
            text,
            "Left out: ops {} to {} in the log of {}, which is of view {}.",
            op.next(),
            other.head,
            folder.display(),
            other.log_view
        );
    }
    let last: OpNumber = committed.min(*op);
    let _ = writeln!(
        text,
        "What else may be lost: every command that was answered after op {last}, and is in no log that was found here. It took {} of {all} disks to \
         answer one; those of replicas {} are not here, or did not count.",
        survivors[0].replication_quorum,
        gone.join(", "),
    );
    let _ = writeln!(
        text,
        "Never start a replica of cluster {cluster} again: the new cluster has another number, and refuses it. Its clients have to be given that number."
    );
    text
}
