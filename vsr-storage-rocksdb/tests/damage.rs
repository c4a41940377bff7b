//! Real databases, opened on copies of which a file was damaged: bits flipped, cut, swapped with another one, removed. Whatever was done,
//! the storage refuses the disk with a typed error, or admits what it may have lost, or tells the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bytes::Bytes;
use futures::executor::block_on;
use tempfile::TempDir;
use vsr::protocol::{Batch, Entry, OpNumber, Random, Slot, VsrState};
use vsr::storage::StorageError;
use vsr::{Checksum, Storage};
use vsr_storage_rocksdb::{RocksOptions, RocksStorage};

/// The files of a folder, by their names within it; and the names of those that need not be missed: of the tables of vsr states all but the
/// newest hold what nobody reads, headers are in the entries, too, and the place is asked for again where it cannot be read.
#[derive(Clone)]
struct Image(BTreeMap<String, Vec<u8>>, BTreeSet<String>);

impl Image {
    /// What RocksDB writes for people, and its empty lock, hold nothing.
    fn of(folder: &Path) -> Image {
        let mut image = BTreeMap::new();
        for (folder, prefix) in [(folder.to_owned(), ""), (folder.join("db"), "db/")] {
            for file in fs::read_dir(&folder).expect("the folder").map(|file| file.expect("a file")) {
                let name = file.file_name().into_string().expect("a name");
                if file.path().is_file() && !name.starts_with("LOG") && name != "LOCK" {
                    image.insert(format!("{prefix}{name}"), fs::read(file.path()).expect("the file"));
                }
            }
        }
        Image(image, BTreeSet::new())
    }

    /// As [`of`](Self::of), and knows its tables. Nobody has the folder open.
    fn with_tables(folder: &Path) -> Image {
        let image = Image::of(folder);
        let families = ["default", "log", "headers", "state"];
        let db = rocksdb::DB::open_cf_for_read_only(&rocksdb::Options::default(), folder.join("db"), families, false);
        let tables = db.and_then(|db| db.live_files()).expect("the tables");
        let spare = tables.into_iter().filter(|table| table.column_family_name != "log");
        let spare = spare.map(|table| format!("db/{}", table.name.trim_start_matches('/')));
        Image(image.0, spare.chain(["place".to_owned()]).collect())
    }

    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("db")).expect("a folder");
        for (name, bytes) in &self.0 {
            fs::write(folder.path().join(name), bytes).expect("a file");
        }
        folder
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn file(&mut self, name: &str) -> &mut Vec<u8> {
        self.0.get_mut(name).expect("the file")
    }

    /// The newest write-ahead log: it is the one that is written.
    fn log(&self) -> String {
        self.names().into_iter().rfind(|name| name.ends_with(".log")).expect("a write-ahead log")
    }

    /// Whether the storage has to miss the file when it is gone: not the options and the name, which the database writes anew, nor an older
    /// log that has not been removed yet. Nor what is spare.
    fn matters(&self, name: &str) -> bool {
        let is_spent = name.ends_with(".log") && *name != self.log();
        !is_spent && !name.contains("OPTIONS") && !name.contains("IDENTITY") && !self.1.contains(name)
    }

    fn is_spare(&self, name: &str) -> bool {
        self.1.contains(name)
    }
}

/// What is durable on a disk.
struct Truth {
    state: VsrState,
    entries: BTreeMap<u64, Entry>,
    head: u64,
    /// Everything that was ever put.
    put: Vec<Entry>,
}

impl Truth {
    fn write(&mut self, storage: &RocksStorage, batch: Batch) {
        if let Some(above) = batch.truncate_above {
            self.entries.split_off(&(above.0 + 1));
            self.head = self.head.min(above.0);
        }
        if let Some(state) = &batch.state {
            self.state = state.clone();
        }
        for entry in &batch.entries {
            self.head = self.head.max(entry.header.op.0);
            self.entries.insert(entry.header.op.0, entry.clone());
            self.put.push(entry.clone());
        }
        block_on(storage.write(batch)).expect("writing");
    }

    fn put(&mut self, storage: &RocksStorage, ops: impl IntoIterator<Item = u64>, view: u64, len: usize) {
        let body = |op: u64| {
            let mut random = Random::new(op << 32 | view);
            Bytes::from((0..len).map(|_| random.next_u64() as u8).collect::<Vec<u8>>())
        };
        let entry = |op: u64| vsr_sim::conformance::storage::entry(op, view, Checksum(op.into()), body(op));
        self.write(storage, Batch { entries: ops.into_iter().map(entry).collect(), ..Batch::default() });
    }

    fn next_view(&mut self, storage: &RocksStorage, truncate_above: Option<u64>) {
        let mut state = self.state.clone();
        state.view = state.view.next();
        state.log_view = state.view;
        let truncate_above = truncate_above.map(OpNumber);
        self.write(storage, Batch { state: Some(state), truncate_above, entries: Vec::new() });
    }
}

fn open(folder: &Path) -> RocksStorage {
    let storage = RocksStorage::open(folder).expect("opening");
    block_on(storage.recover()).expect("recovering");
    storage
}

fn formatted() -> (TempDir, Truth) {
    let config = vsr::Config::new(vsr::ClusterId(7), vsr::ReplicaId(1), ["a", "b", "c"]).expect("a configuration");
    let state = config.formatted_state();
    let folder = tempfile::tempdir().expect("a folder");
    RocksStorage::format_state(folder.path(), &state, RocksOptions::default()).expect("formatting");
    (folder, Truth { state, entries: BTreeMap::new(), head: 0, put: Vec::new() })
}

/// A disk of a few lives: tables of each of them, as every opening moves the write-ahead log into tables, and a log of the last one.
/// Op 9 was never put; ops 5 to 8 were put twice.
fn disk(ends_with_a_state: bool) -> (Image, Truth) {
    let (folder, mut truth) = formatted();
    let storage = open(folder.path());
    (1..=8).for_each(|op| truth.put(&storage, [op], 1, 700));
    drop(storage);
    let storage = open(folder.path());
    truth.next_view(&storage, Some(4));
    truth.put(&storage, 5..=8, 2, 300);
    truth.put(&storage, [10], 2, 1500);
    drop(storage);
    let storage = open(folder.path());
    truth.put(&storage, [11, 12], 3, 600);
    truth.put(&storage, [13], 3, 0);
    if ends_with_a_state {
        truth.next_view(&storage, Some(12));
    }
    drop(storage);
    let image = Image::with_tables(folder.path());
    assert!(image.names().iter().filter(|name| name.ends_with(".sst")).count() >= 6, "{:?}", image.names());
    (image, truth)
}

fn disks() -> [(Image, Truth); 2] {
    [disk(false), disk(true)]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// The disk is refused.
    Refused,
    /// Something may be missing, and it says so.
    Admitted,
    /// Nothing is missing.
    Truth,
}

/// Opens a disk, and holds what it tells against the truth.
fn tell(image: &Image, truth: &Truth, what: &str) -> Told {
    let folder = image.folder();
    let here = folder.path().display().to_string();
    let refused = |error: StorageError| {
        let words = error.to_string();
        let is_honest = match &error {
            StorageError::Io { .. } | StorageError::StateLost(_) => true,
            StorageError::Damaged { path, .. } => Path::new(path).exists(),
            StorageError::Missing { path } => !Path::new(path).exists(),
            _ => false,
        };
        assert!(is_honest && words.contains(&here), "{what}: refused, but not for what it is: {words}");
        assert!(!words.contains("run the format command"), "{what}: advice that loses data: {words}");
        Told::Refused
    };
    let opened = match RocksStorage::open(folder.path()) {
        // It is a copy, and meant to be one.
        Err(StorageError::OtherPlace { .. }) => {
            RocksStorage::accept_place(folder.path()).and_then(|()| RocksStorage::open(folder.path()))
        }
        Ok(_) => panic!("{what}: a copy was let in"),
        opened => opened,
    };
    let storage = match opened {
        Ok(storage) => storage,
        Err(error) => return refused(error),
    };
    let recovered = match block_on(storage.recover()) {
        Ok(recovered) => recovered,
        Err(error) => return refused(error),
    };
    let (view, durable) = (recovered.state.view, truth.state.view);
    assert!(
        recovered.state == truth.state,
        "{what}: a vsr state of view {view}, where that of view {durable} was durable"
    );
    let mut told = if recovered.head_certain { Told::Truth } else { Told::Admitted };
    for op in 1..=truth.head.max(recovered.slots.len() as u64) {
        let durable = truth.entries.get(&op);
        let slot = recovered.slots.get(op as usize - 1);
        let is_admitted = match (slot, durable) {
            (Some(Slot::Clean(header)), durable) => {
                assert_eq!(Some(header), durable.map(|entry| &entry.header), "{what}: op {op} is another one");
                false
            }
            (Some(Slot::Corrupt(Some(header))), durable) => {
                assert_eq!(Some(header), durable.map(|entry| &entry.header), "{what}: op {op} is named as another one");
                true
            }
            (Some(Slot::Corrupt(None)), _) => true,
            (Some(Slot::Absent), Some(_)) => panic!("{what}: op {op} was durable, and is called absent"),
            (None, Some(_)) => {
                assert!(
                    !recovered.head_certain,
                    "{what}: op {op} was durable, and is above a head that is called certain"
                );
                true
            }
            (Some(Slot::Absent) | None, None) => false,
        };
        if is_admitted {
            told = told.min(Told::Admitted);
        }
        let read = block_on(storage.read(OpNumber(op)..=OpNumber(op), usize::MAX)).unwrap_or_default();
        match (slot, read.first().and_then(|(_, entry)| entry.as_ref())) {
            (Some(Slot::Clean(_)), read) => assert_eq!(read, durable, "{what}: op {op} is clean, and reads otherwise"),
            (_, Some(read)) => assert!(truth.put.contains(read), "{what}: op {op} reads as what nobody has put"),
            (_, None) => {}
        }
    }
    told
}

#[test]
fn an_undamaged_copy_tells_the_truth() {
    for (image, truth) in disks() {
        assert_eq!(tell(&image, &truth, "undamaged"), Told::Truth);
    }
}

#[test]
fn a_flipped_bit_in_any_file_is_told() {
    let mut random = Random::new(1);
    let mut told = BTreeSet::new();
    for (image, truth) in disks() {
        for name in image.names() {
            let len = image.0[&name].len() as u64;
            for at in [0, len.saturating_sub(1)].into_iter().chain((0..6).map(|_| random.below(len))) {
                let mut damaged = image.clone();
                let Some(byte) = damaged.file(&name).get_mut(at as usize) else { continue };
                *byte ^= 1 << (at % 8);
                told.insert(tell(&damaged, &truth, &format!("{name} with a bit of byte {at} flipped")));
            }
        }
    }
    // Some bytes are not read, or stand there twice.
    assert_eq!(told.len(), 3, "only {told:?}");
}

#[test]
fn a_file_that_was_cut_is_told() {
    let mut random = Random::new(2);
    for (image, truth) in disks() {
        for name in image.names() {
            let len = image.0[&name].len() as u64;
            // Of what is read to its end, whatever the end is, more is cut in more places.
            let cuts = if name.contains("MANIFEST") || name.ends_with(".log") { 16 } else { 3 };
            let steps = (0..4).map(|step| len * step / 4);
            for keep in steps.chain([len.saturating_sub(1)]).chain((0..cuts).map(|_| random.below(len))) {
                let mut damaged = image.clone();
                damaged.file(&name).truncate(keep as usize);
                let told = tell(&damaged, &truth, &format!("{name} of {len} bytes, cut after {keep}"));
                // The last records of a manifest may say nothing new, and the seal is there twice.
                let is_missed = image.matters(&name) && !name.contains("MANIFEST") && name != "seal";
                assert!(
                    !is_missed || told != Told::Truth,
                    "{name} of {len} bytes, cut after {keep}: nobody misses the rest"
                );
            }
        }
    }
}

#[test]
fn a_file_that_is_gone_is_told() {
    for (image, truth) in disks() {
        for name in image.names() {
            let mut damaged = image.clone();
            damaged.0.remove(&name);
            let told = tell(&damaged, &truth, &format!("without {name}"));
            assert!(image.is_spare(&name) || (told == Told::Truth) != image.matters(&name), "without {name}: {told:?}");
        }
        let mut damaged = image;
        damaged.0.retain(|name, _| name == "seal");
        assert_eq!(tell(&damaged, &truth, "without the database"), Told::Refused);
    }
}

#[test]
fn files_that_were_swapped_are_told() {
    let (image, truth) = disk(true);
    let names = image.names();
    for (at, one) in names.iter().enumerate() {
        for other in &names[at + 1..] {
            let mut damaged = image.clone();
            let bytes = std::mem::take(damaged.file(one));
            *damaged.file(one) = std::mem::replace(damaged.file(other), bytes);
            let told = tell(&damaged, &truth, &format!("{one} and {other} swapped"));
            let is_harmless = image.0[one] == image.0[other] || !(image.matters(one) || image.matters(other));
            let is_unknown = is_harmless && (image.is_spare(one) || image.is_spare(other));
            assert!(is_unknown || (told == Told::Truth) == is_harmless, "{one} and {other} swapped: {told:?}");
        }
    }
}

#[test]
fn blocks_of_zeros_are_told() {
    let mut random = Random::new(3);
    for (image, truth) in disks() {
        for name in image.names() {
            for _ in 0..4 {
                let mut damaged = image.clone();
                let bytes = damaged.file(&name);
                let at = random.below(bytes.len() as u64) as usize / 512 * 512;
                let end = bytes.len().min(at + 512);
                bytes[at..end].fill(0);
                tell(&damaged, &truth, &format!("{name} with zeros from {at}"));
            }
        }
    }
}

/// The database begins a new write-ahead log when a table is due, and keeps the old one for what is in no table yet. What follows a hole
/// looks whole.
#[test]
fn an_older_write_ahead_log_is_missed() {
    let (folder, mut truth) = formatted();
    let storage = open(folder.path());
    let newest = || Image::of(folder.path()).log();
    let older = newest();
    truth.next_view(&storage, None);
    // Looked at seldom: an image is as large as the disk.
    let begun = (1..=20).find(|round| {
        (0..10).for_each(|op| truth.put(&storage, [round * 10 + op], 1, 512 << 10));
        newest() != older
    });
    begun.expect("a second write-ahead log is begun");
    truth.put(&storage, [truth.head + 1], 1, 100);
    drop(storage);
    let image = Image::of(folder.path());
    let len = image.0[&older].len();
    assert_eq!(tell(&image, &truth, "two logs"), Told::Truth);
    let mut damaged = image.clone();
    damaged.0.remove(&older);
    assert_ne!(tell(&damaged, &truth, "without the older log"), Told::Truth);
    for keep in [0, len / 2, len - 1] {
        let mut damaged = image.clone();
        damaged.file(&older).truncate(keep);
        assert_ne!(tell(&damaged, &truth, &format!("the older log of {len} bytes, cut after {keep}")), Told::Truth);
    }
    let mut damaged = image;
    damaged.file(&older)[len / 2] ^= 1;
    assert_ne!(tell(&damaged, &truth, "the older log with a bit flipped"), Told::Truth);
}
