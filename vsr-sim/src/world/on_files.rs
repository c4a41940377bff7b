//! Replicas on simulated files: when their writes take effect, what faults do to their sectors, and whether what their
//! storages say of it is right.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use vsr::protocol::{Batch, CheckpointId, OpNumber, Random, Recovered, VsrState};
use vsr::storage::{CheckpointReader, StorageError};
use vsr::threaded::Entries;
use vsr::{Snapshot, Storage};

use super::adapters::{read_time, start_time, write_time};
use super::checkpoints;
use super::evidence::Evidence;
use super::life::io_error;
use super::{Life, Node, World, lock, site};
use crate::check::{Observation, Violation};
use crate::faults::{Damage, ReadFate, Unsynced, WriteFate};
use crate::files::{Grain, Harm, Kept, Ledger, Lost, Place, SECTOR, SECTORS_PER_PAGE, SimFolder, Stop, now};

/// The file of the log on a simulated disk.
const LOG: usize = 0;

/// How a storage is opened on its disk, and formatted if the disk is new.
pub(crate) type Open = Arc<dyn Fn(SimFolder) -> Result<Box<dyn Storage>, StorageError> + Send + Sync>;

/// After so many nanoseconds without a write a storage on threads looks after itself.
const IDLE: u64 = 1_000_000_000;

/// The disks of all replicas, where they are simulated by sector.
pub(crate) struct FileDisks {
    open: Open,
    pub(super) grain: Grain,
    pub(crate) disks: Vec<FileDisk>,
}

pub(crate) struct FileDisk {
    pub(super) folder: SimFolder,
    pub(super) ledger: Ledger,
    /// The sectors of a write that was reported as done: once a later one is durable, they were never written. (Before
    /// that no storage could know.)
    late: Vec<Lost>,
    /// What shows those that were lost.
    evidence: Evidence,
    /// Since when there was neither a write nor anything that the storage did by itself.
    idle_since: u64,
}

impl FileDisk {
    /// A copy of it, where no write is under way.
    pub(super) fn copy(&self) -> FileDisk {
        let folder = self.folder.fork();
        folder.power_loss(0, Kept::Nothing);
        let (ledger, evidence) = (self.ledger.clone(), self.evidence.clone());
        FileDisk { folder, ledger, late: Vec::new(), evidence, idle_since: 0 }
    }
}

/// What opening a storage has given: it, and what it has recovered.
pub(crate) type Opened = Result<(Box<dyn Storage>, Recovered), StorageError>;

impl FileDisks {
    pub(crate) fn new(open: Open, grain: Grain) -> FileDisks {
        FileDisks { open, grain, disks: Vec::new() }
    }

    /// One more disk, formatted.
    pub(crate) fn add(&mut self, state: &VsrState) -> Result<(), StorageError> {
        let disk = self.formatted(state)?;
        self.disks.push(disk);
        Ok(())
    }

    /// A disk that was just formatted.
    pub(crate) fn formatted(&self, state: &VsrState) -> Result<FileDisk, StorageError> {
        let folder = SimFolder::formatted_by(state.clone(), &*self.open)?;
        let (ledger, evidence) = (Ledger::new(state.clone()), Evidence::default());
        Ok(FileDisk { folder, ledger, late: Vec::new(), evidence, idle_since: 0 })
    }

    /// Opens the storage on a disk. `full`: the syncs of this file find no room, until it is asked again.
    pub(super) fn open(&self, folder: &SimFolder, full: Option<usize>) -> Opened {
        folder.idle();
        folder.set_full(false);
        let storage = (self.open)(folder.clone())?;
        let recover = || {
            now(storage.recover()).map_err(|stop| match stop {
                Stop::Refused(error) => error,
                Stop::Wrong(error) => StorageError::io("recovering", error),
            })
        };
        folder.set_syncs_full(full);
        let first = recover();
        folder.set_syncs_full(None);
        let recovered = match first {
            // A replica asks again until there is room.
            Err(StorageError::Full { .. }) if full.is_some() => recover()?,
            first => first?,
        };
        folder.settle();
        Ok((storage, recovered))
    }
}

impl World {
    /// Opens the storage of a replica that starts, if it is one on files, and judges what it says.
    pub(crate) fn open_files(&mut self, node: usize) -> Option<Opened> {
        let mut files = self.files.take()?;
        let lost = self.disks[node].is_lost();
        if self.now < self.nodes[node].no_sync_until {
            let salt = self.draw(site::SECTOR, node as u64, self.now).next_u64();
            files.disks[node].folder.fail_sync(0, salt);
        }
        let mut random = self.draw(site::SECTOR, node as u64, !self.now);
        let finds_room = !self.is_full_on_files(node) || random.chance(1, 2);
        let full = (!finds_room).then(|| random.below(files.disks[node].folder.files() as u64) as usize);
        let opened = if lost {
            Err(StorageError::NotFormatted("the disk".to_owned()))
        } else {
            files.open(&files.disks[node].folder, full)
        };
        if full.is_some() && !lost {
            self.trace.count("starts without room");
            // A storage that cannot wait for room may say that the disk is broken.
            self.observe(&Observation::Broke {
                replica: node,
                must: false,
                how: "the syncs of its start find no room",
            });
        }
        files.disks[node].idle_since = self.now;
        if let Ok((_, recovered)) = &opened {
            let ledger = &mut files.disks[node].ledger;
            match ledger.judge(recovered) {
                Ok(()) => self.disks[node].adopt(recovered, |op| ledger.entry(op).cloned()),
                Err(why) => {
                    let (at, message) = (self.now, format!("r{node}'s storage: {why}"));
                    self.breach(Violation { checker: "storage-keeps-its-contract", message, at });
                }
            }
        }
        self.files = Some(files);
        Some(opened)
    }

    /// Whether no file of a replica can grow now.
    fn is_full_on_files(&self, node: usize) -> bool {
        let Node { full_until, no_space_until, .. } = self.nodes[node];
        self.faults_on && self.now < full_until.max(no_space_until)
    }

    /// What a full disk refuses from now on: that a file grows, or, where the file system copies on write, the syncs of one file, whatever is
    /// written.
    fn set_full_on_files(&self, node: usize) {
        let Some(files) = &self.files else { return };
        let folder = &files.disks[node].folder;
        let full = self.is_full_on_files(node);
        let copies_on_write = self.draw(site::SECTOR, node as u64, u64::MAX).chance(1, 2);
        let mut random = self.draw(site::SECTOR, node as u64, self.now ^ 1 << 63);
        let file = random.below(folder.files() as u64) as usize;
        folder.set_full(full && !copies_on_write);
        folder.set_syncs_full((full && copies_on_write).then_some(file));
    }

    /// A replica hands a batch to its storage on files.
    fn begin_on_files(&mut self, node: usize, batch: &Batch) {
        self.set_full_on_files(node);
        if let Some(files) = &mut self.files {
            let disk = &mut files.disks[node];
            disk.idle_since = self.now;
            let write = disk.folder.begin(batch.entries.iter().map(|entry| entry.header.op).collect());
            disk.ledger.begin(batch.clone(), write);
        }
    }

    /// Lets a second without a write pass for a storage on files, if it is over and the disk would answer: a storage that was out of
    /// room gets no write that could show it that there is some again. Whether it was over.
    fn pass_idle_second(&mut self, node: usize) -> bool {
        let Node { stalled, poisoned, .. } = self.nodes[node];
        if stalled || poisoned || self.disks[node].is_writing() {
            return false;
        }
        let now = self.now;
        let Some(files) = &mut self.files else { return false };
        let disk = &mut files.disks[node];
        if now.saturating_sub(disk.idle_since) < IDLE {
            return false;
        }
        disk.idle_since = now;
        disk.folder.pass_idle_second();
        self.set_full_on_files(node);
        true
    }

    /// What a storage on files has done in an idle second is on the disk.
    fn end_idle_second(&self, node: usize) {
        if let Some(files) = &self.files {
            files.disks[node].folder.settle();
        }
    }

    /// Its storage has refused the batch.
    fn refused_on_files(&mut self, node: usize) {
        let Some(files) = &mut self.files else { return };
        let disk = &mut files.disks[node];
        disk.folder.settle();
        if disk.folder.drops_what_it_takes() {
            // Some of it may be on the disk.
            self.trace.count("syncs without room");
        } else {
            disk.ledger.refuse();
        }
    }

    /// A write on files has ended: what it wrote is on the disk, but for what its fate says. What is left of the fate is
    /// for the record of what is durable.
    pub(crate) fn end_on_files(&mut self, node: usize, fate: Option<WriteFate>) -> Option<WriteFate> {
        let Some(mut files) = self.files.take() else { return fate };
        let mut random = self.draw(site::SECTOR, node as u64, self.now);
        let disk = &mut files.disks[node];
        disk.idle_since = self.now;
        let fate = if let Some(WriteFate::Fail(_) | WriteFate::FailSync(_)) = fate {
            disk.folder.fail_first_sync(random.next_u64());
            fate.map(|fate| if let WriteFate::Fail(_) = fate { WriteFate::Fail(Unsynced::Lost) } else { fate })
        } else {
            let lost = match fate {
                Some(WriteFate::Silent) => {
                    self.trace.count("writes lost without an error");
                    self.fault(node, None, || format!("r{node}'s write is lost without an error"));
                    disk.folder.under_last_write()
                }
                Some(WriteFate::Vanish) => {
                    self.trace.count("records lost whole");
                    self.fault(node, None, || format!("r{node}'s records are lost without a trace"));
                    disk.folder.under_last_write()
                }
                Some(WriteFate::Misdirect(onto)) => {
                    self.trace.count("misdirected writes");
                    self.fault(node, None, || format!("r{node}'s write lands on the sectors of op {onto}"));
                    disk.folder.under_last_write()
                }
                _ => Vec::new(),
            };
            let none_is_lost = disk.late.is_empty() && disk.evidence.is_empty();
            let written = if none_is_lost { Vec::new() } else { disk.folder.under_last_write() };
            let written = written.iter().map(Lost::place);
            disk.folder.settle();
            let is_log = disk.ledger.complete();
            if !is_log {
                disk.evidence.end();
            } else if disk.late.is_empty() {
                disk.evidence.add(written);
            } else {
                disk.evidence.begin(written);
                let ops = disk.folder.lose(&std::mem::take(&mut disk.late));
                disk.ledger.hurt_all();
                for op in ops {
                    self.disks[node].rot(op, Damage::Both);
                }
            }
            if let Some(WriteFate::Misdirect(onto)) = fate
                && let Some(first) = lost.first()
            {
                self.misdirect(node, disk, files.grain, first.place(), onto);
            }
            if is_log {
                disk.late = lost;
            }
            fate.filter(|fate| *fate == WriteFate::CrashAfter)
        };
        self.files = Some(files);
        fate
    }

    /// The first sector of a write stands on one of another op's, too.
    fn misdirect(&mut self, node: usize, disk: &mut FileDisk, grain: Grain, from: Place, onto: OpNumber) {
        let Some(write) = disk.folder.last_write_of(onto) else { return };
        let places = disk.folder.places(write);
        let mut random = self.draw(site::SECTOR, node as u64, onto.0);
        let Some(place) = any(&places, &mut random) else { return };
        let may_take = disk.folder.ops(write).iter().all(|op| self.atlas.may_rot(*op, node));
        if may_take && disk.evidence.outlives(&[place]) {
            disk.evidence.take(&[place]);
            let taken = disk.ledger.hurt_sector(&disk.folder, place, grain);
            disk.folder.harm(place, &Harm::Content(disk.folder.sector(from).to_vec()));
            for op in taken {
                self.disks[node].rot(op, Damage::Body);
            }
        }
    }

    /// The process of a replica on files ends. What becomes of its write; nothing when there was none.
    pub(crate) fn crash_on_files(&mut self, node: usize, unsynced: Unsynced) -> Option<&'static str> {
        let mut random = self.draw(site::SECTOR, node as u64, self.nodes[node].life);
        let writing = self.disks[node].is_writing();
        self.disks[node].crash(Unsynced::Lost);
        let poisoned = self.nodes[node].poisoned;
        let disk = &mut self.files.as_mut()?.disks[node];
        disk.late.clear();
        let folder = &disk.folder;
        let steps = folder.steps();
        let some = random.below(steps as u64 + 1) as usize;
        let what = match unsynced {
            // A failed sync ends the process; the machine may go on, and what failed stays readable.
            Unsynced::Lost if poisoned && random.chance(1, 2) => {
                folder.kill(usize::MAX);
                "failed sync still readable"
            }
            Unsynced::Lost => {
                folder.power_loss(0, Kept::Nothing);
                "unsynced write lost"
            }
            Unsynced::Kept => {
                folder.kill(if random.chance(1, 2) { usize::MAX } else { some });
                "unsynced write kept"
            }
            Unsynced::Torn(salt) => {
                folder.power_loss(some, Kept::Some(salt));
                "unsynced write torn"
            }
        };
        (writing || what == "failed sync still readable").then_some(what)
    }

    /// A machine whose replica is down loses power. False when all that it has is on the disk.
    pub(crate) fn lose_power_on_files(&mut self, node: usize) -> bool {
        let folder = self.files.as_ref().map(|files| &files.disks[node].folder);
        let Some(folder) = folder.filter(|folder| !folder.is_settled()) else { return false };
        folder.power_loss(usize::MAX, Kept::Nothing);
        true
    }

    /// Sectors of an op go bad. False when there are none, or when that would take more copies than may be lost, or the
    /// last that shows a lost write.
    pub(crate) fn rot_on_files(&mut self, node: usize, op: OpNumber, damage: Damage) -> bool {
        let Some(mut files) = self.files.take() else { return false };
        let disk = &mut files.disks[node];
        let hit = self.rot_sectors(node, disk, files.grain, op, damage);
        self.files = Some(files);
        hit
    }

    fn rot_sectors(&mut self, node: usize, disk: &mut FileDisk, grain: Grain, op: OpNumber, damage: Damage) -> bool {
        let folder = disk.folder.clone();
        let Some(write) = folder.last_write_of(op) else { return false };
        let may_take = |write: u32| folder.ops(write).iter().all(|op| self.atlas.may_rot(*op, node));
        // What is drawn below has to come out alike in a run whose faults are given.
        if !self.plan.given && !may_take(write) {
            return false;
        }
        let mut random = self.draw(site::SECTOR, node as u64, self.now ^ op.0 << 48);
        let mut places = folder.places(write);
        if matches!(damage, Damage::Both | Damage::End) {
            // A write that replaces entries has written the vsr state as well: without any copy of that no replica starts.
            places.retain(|place| place.file == LOG);
        }
        let Some(one) = any(&places, &mut random) else { return false };
        let page = one.sector / SECTORS_PER_PAGE as u64 * SECTORS_PER_PAGE as u64;
        let in_page = (page..page + SECTORS_PER_PAGE as u64).map(|sector| Place { sector, ..one });
        let may_take_page = in_page.clone().all(|place| may_take(folder.write_at(place)));
        let is_whole = matches!(damage, Damage::Both | Damage::End);
        let by_page = !is_whole && may_take_page && random.chance(1, 4);
        let bad = match (is_whole, by_page) {
            // What is left of a record may be neither of the copies of what says what it is.
            (true, _) if places.len() > 2 && random.chance(1, 2) => {
                let spared = places[1 + random.below(places.len() as u64 - 2) as usize];
                places.iter().copied().filter(|place| *place != spared).collect()
            }
            (true, _) => places.clone(),
            (_, true) => in_page.collect(),
            _ => vec![one],
        };
        if !disk.evidence.outlives(&bad) {
            return false;
        }
        // With every record of a short log gone, it is no log of this disk any more: something stays.
        let stays = |(write, sectors): (&u32, &Vec<u64>)| {
            let is_left = |sector: &u64| !bad.contains(&Place { file: LOG, sector: *sector });
            let is_intact = |op: &OpNumber| self.disks[node].intact(*op).is_some();
            sectors.iter().any(is_left) && folder.ops(*write).iter().any(is_intact)
        };
        if !self.plan.given && !folder.records(LOG).iter().any(stays) {
            return false;
        }
        disk.evidence.take(&bad);
        // What may be truncated is written over: a place that stays bad then takes what is put there, and that is another kind of fault.
        let committed = folder.last_write_of(self.disks[node].state().commit.op());
        let committed = committed.map_or(Vec::new(), |write| folder.places(write));
        let is_behind = |place: &Place| place.file == one.file && place.sector >= page + SECTORS_PER_PAGE as u64;
        let may_stay = committed.iter().any(is_behind);
        let taken = match damage {
            // It may not even be known that there was something.
            Damage::Both | Damage::End => {
                disk.ledger.hurt_all();
                bad.iter().for_each(|place| folder.harm(*place, &Harm::Flip(random.below(4096) as u32)));
                folder.ops(write)
            }
            _ if by_page => {
                self.trace.count("unreadable sectors");
                let taken = disk.ledger.hurt_page(&folder, one, grain);
                folder.harm(one, &Harm::Unreadable { stays: may_stay && random.chance(1, 2) });
                taken
            }
            _ => {
                let taken = disk.ledger.hurt_sector(&folder, one, grain);
                let bit = random.below(8 * SECTOR as u64) as u32;
                folder.harm(one, &if random.chance(1, 2) { Harm::Flip(bit) } else { Harm::Zero });
                taken
            }
        };
        self.trace.count("damaged sectors");
        for op in taken {
            self.disks[node].rot(op, Damage::Body);
        }
        true
    }

    /// One sector of one op goes bad, whatever that takes. The ops of the write that it belongs to.
    pub(crate) fn bad_sector(&mut self, node: usize, op: OpNumber, random: &mut Random) -> Vec<OpNumber> {
        let Some(files) = &mut self.files else { return Vec::new() };
        let disk = &mut files.disks[node];
        let Some(write) = disk.folder.last_write_of(op) else { return Vec::new() };
        let Some(place) = any(&disk.folder.places(write), random) else { return Vec::new() };
        disk.evidence.take(&[place]);
        disk.ledger.hurt_sector(&disk.folder, place, files.grain);
        disk.folder.harm(place, &Harm::Flip(random.below(8 * SECTOR as u64) as u32));
        disk.folder.ops(write)
    }

    /// The ops that were written together with this one.
    pub(crate) fn written_with(&self, node: usize, op: OpNumber) -> Vec<OpNumber> {
        let folder = self.files.as_ref().map(|files| &files.disks[node].folder);
        let write = folder.and_then(|folder| Some((folder, folder.last_write_of(op)?)));
        write.map_or(Vec::new(), |(folder, write)| folder.ops(write))
    }
}

fn any(places: &[Place], random: &mut Random) -> Option<Place> {
    places.get(random.below(places.len() as u64) as usize).copied()
}

/// A replica's storage on simulated files: its own code, at once, and the time that the disk takes.
pub(crate) struct OnFiles {
    life: Life,
    storage: Result<Box<dyn Storage>, StorageError>,
    /// What it has recovered, until the replica asks for it.
    recovered: Mutex<Option<Recovered>>,
}

impl OnFiles {
    pub(crate) fn new(life: Life, opened: Opened) -> OnFiles {
        let (storage, recovered) = match opened {
            Ok((storage, recovered)) => (Ok(storage), Some(recovered)),
            Err(error) => (Err(error), None),
        };
        OnFiles { life, storage, recovered: Mutex::new(recovered) }
    }

    fn storage(&self) -> Result<&dyn Storage, StorageError> {
        self.storage.as_deref().map_err(Clone::clone)
    }
}

#[async_trait]
impl Storage for OnFiles {
    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.storage()?;
        start_time(&self.life).await;
        let found = self.recovered.lock().unwrap_or_else(PoisonError::into_inner).take();
        match found {
            Some(recovered) => Ok(recovered),
            None => self.storage()?.recover().await,
        }
    }

    async fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let storage = self.storage()?;
        let node = self.life.node;
        {
            let mut world = lock(&self.life.world);
            if world.nodes[node].poisoned {
                return Err(StorageError::Poisoned("an injected error".to_owned()));
            }
            world.begin_on_files(node, &batch);
        }
        let written = storage.write(batch.clone()).await;
        {
            let mut world = lock(&self.life.world);
            if let Err(error) = written {
                world.refused_on_files(node);
                return Err(error);
            }
            world.begin_write(node, self.life.life, batch);
        }
        write_time(&self.life).await
    }

    async fn read(&self, ops: RangeInclusive<OpNumber>, bytes_max: usize) -> Result<Entries, StorageError> {
        let fate = read_time(&self.life, *ops.start()).await;
        if fate == Some(ReadFate::Fail) {
            return Err(io_error("a read"));
        }
        let mut entries = self.storage()?.read(ops, bytes_max).await?;
        if let (Some(ReadFate::Astray), Some((_, entry))) = (fate, entries.first_mut()) {
            *entry = None;
        }
        Ok(entries)
    }

    fn keeps_checkpoints(&self) -> bool {
        true
    }

    async fn write_checkpoint(
        &self,
        op: OpNumber,
        keep: Vec<CheckpointId>,
        content: Snapshot,
    ) -> Result<CheckpointId, StorageError> {
        checkpoints::write(&self.life, op, keep, content).await
    }

    async fn read_checkpoint(&self, id: CheckpointId, reader: CheckpointReader) -> Result<(), StorageError> {
        checkpoints::read(&self.life, id, reader).await
    }

    async fn read_part(&self, id: CheckpointId, part: u32) -> Result<Bytes, StorageError> {
        checkpoints::read_part(&self.life, id, part).await
    }

    async fn write_part(
        &self,
        id: CheckpointId,
        part: u32,
        bytes: Bytes,
        keep: Vec<CheckpointId>,
    ) -> Result<u32, StorageError> {
        checkpoints::write_part(&self.life, id, part, bytes, keep).await
    }

    fn room(&self) -> u64 {
        let node = self.life.node;
        let mut world = lock(&self.life.world);
        if world.now < world.nodes[node].full_until {
            return 0;
        }
        let is_idle = world.pass_idle_second(node);
        drop(world);
        let room = self.storage().map_or(0, |storage| storage.room());
        if is_idle {
            lock(&self.life.world).end_idle_second(node);
        }
        room
    }
}
