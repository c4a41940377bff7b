//! Real folders: moved, copied, restored, with a file that is not there. What an operator is told.

use std::path::{Path, PathBuf};

use futures::executor::block_on;
use tempfile::TempDir;
use vsr::protocol::{Batch, Slot};
use vsr::storage::StorageError;
use vsr::{ClusterId, Config, ReplicaId, Storage};
use vsr_storage_file::{FileOptions, FileStorage};

fn config(id: u8) -> Config {
    Config::new(ClusterId(7), ReplicaId(id), ["a", "b", "c"]).expect("a configuration")
}

fn format(path: &Path, id: u8) {
    let options = FileOptions::default().with(|options| (options.log_limit, options.extent) = (1 << 24, 1 << 16));
    FileStorage::format_with(path, &config(id), options).expect("formatting");
}

fn put(storage: &FileStorage, op: u64) {
    let body = bytes::Bytes::from(vec![op as u8; 1500]);
    let entry = vsr_sim::conformance::storage::entry(op, 0, vsr::Checksum(op.into()), body);
    block_on(storage.write(Batch { entries: vec![entry], ..Batch::default() })).expect("a put");
}

/// A folder of three ops.
fn replica(id: u8) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("replica");
    format(&path, id);
    let storage = FileStorage::open(&path).expect("opening");
    block_on(storage.recover()).expect("recovering");
    (1..=3).for_each(|op| put(&storage, op));
    drop(storage);
    (folder, path)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    for file in ["log", "state"] {
        std::fs::copy(from.join(file), to.join(file)).expect("a copy");
    }
}

fn refusal(path: &Path) -> StorageError {
    match FileStorage::open(path) {
        Ok(storage) => block_on(storage.recover()).expect_err("it is to be refused"),
        Err(error) => error,
    }
}

fn assert_whole(path: &Path) {
    let storage = FileStorage::open(path).expect("opening");
    let recovered = block_on(storage.recover()).expect("recovering");
    assert!(recovered.head_certain && recovered.slots.len() == 3);
    assert!(recovered.slots.iter().all(|slot| matches!(slot, Slot::Clean(_))));
}

/// Every request would hear that its log is full.
#[test]
fn a_log_that_nothing_can_be_done_in_is_refused_when_it_is_formatted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("replica");
    let config = config(0);
    let needed = config.membership.constants.log_room_min();
    let format = |log_limit: u64| {
        let options = FileOptions::default().with(|options| (options.log_limit, options.extent) = (log_limit, 1 << 16));
        FileStorage::format_with(&path, &config, options)
    };
    let refused = format(needed - 1).expect_err("it is too small");
    assert_eq!(refused, StorageError::LogTooSmall { limit: needed - 1, needed });
    assert!(refused.to_string().contains("raise the limit"), "{refused}");
    assert!(!path.exists(), "nothing is left behind");
    format(needed).expect("it is large enough");
    let storage = FileStorage::open(&path).expect("opening");
    block_on(storage.recover()).expect("recovering");
    assert!(storage.room() <= needed, "the limit is not in force");
}

/// A disk keeps the members and limits that it was formatted with: with these its replica would never start.
#[test]
fn a_configuration_that_cannot_work_is_refused_when_a_disk_is_formatted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("replica");
    let mut config = config(0);
    config.membership.constants.request_max = u32::MAX;
    let refused = FileStorage::format(&path, &config).expect_err("it cannot work");
    assert!(matches!(refused, StorageError::Config(_)), "{refused}");
    assert!(refused.to_string().contains("request_max = 4294967295"), "{refused}");
    assert!(!path.exists(), "nothing is left behind");
}

#[test]
fn a_folder_that_was_moved_starts() {
    let (folder, path) = replica(0);
    let moved = folder.path().join("moved");
    std::fs::rename(&path, &moved).expect("moving");
    assert_whole(&moved);
}

#[test]
fn a_folder_that_was_copied_does_not_start_until_its_place_is_accepted() {
    let (folder, path) = replica(0);
    let copied = folder.path().join("copied");
    copy(&path, &copied);
    let error = refusal(&copied);
    assert!(matches!(error, StorageError::OtherPlace { .. }), "{error}");
    let (said, place) = (error.to_string(), copied.display().to_string());
    assert!(
        said.contains(&format!("accept-place --data {place}"))
            && said.contains("give the replica a new disk (recover)"),
        "{said}"
    );
    assert_whole(&path);
    FileStorage::accept_place(&copied).expect("accepting");
    assert_whole(&copied);
    // The one that was not copied is still where it was.
    assert_whole(&path);
}

#[test]
fn a_single_file_that_was_restored_is_noticed_too() {
    for file in ["log", "state"] {
        let (folder, path) = replica(0);
        let backup = folder.path().join("backup");
        std::fs::copy(path.join(file), &backup).expect("a copy");
        let storage = FileStorage::open(&path).expect("opening");
        block_on(storage.recover()).expect("recovering");
        put(&storage, 4);
        drop(storage);
        std::fs::rename(&backup, path.join(file)).expect("restoring");
        let error = refusal(&path);
        assert!(matches!(error, StorageError::OtherPlace { .. }), "{file}: {error}");
    }
}

#[test]
fn a_place_is_not_accepted_while_the_storage_is_in_use() {
    let (_folder, path) = replica(0);
    let storage = FileStorage::open(&path).expect("opening");
    assert!(matches!(FileStorage::accept_place(&path), Err(StorageError::InUse(_))));
    drop(storage);
    FileStorage::accept_place(&path).expect("accepting what is so anyway");
    assert_whole(&path);
}

#[test]
fn a_missing_file_is_named_and_never_called_not_formatted() {
    for file in ["log", "state"] {
        let (_folder, path) = replica(0);
        std::fs::remove_file(path.join(file)).expect("removing");
        let named = path.join(file).display().to_string();
        assert_eq!(refusal(&path), StorageError::Missing { path: named.clone() });
        assert!(refusal(&path).to_string().contains("do not format"));
        let accepted = FileStorage::accept_place(&path);
        assert_eq!(accepted, Err(StorageError::Missing { path: named }));
        let formatted = FileStorage::format(&path, &config(0));
        assert!(matches!(formatted, Err(StorageError::NotEmpty(_))), "{formatted:?}");
    }
}

#[test]
fn what_an_interrupted_format_has_left_is_formatted_again() {
    for left in [&["state.new"][..], &["state.new", "log"][..]] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("replica");
        std::fs::create_dir(&path).expect("a folder");
        for file in left {
            std::fs::write(path.join(file), [0_u8; 1000]).expect("a file");
        }
        assert!(matches!(refusal(&path), StorageError::NotFormatted(_)), "{left:?}");
        format(&path, 0);
        FileStorage::open(&path).expect("opening");
    }
    let empty = tempfile::tempdir().expect("a folder");
    let error = refusal(empty.path());
    assert!(matches!(error, StorageError::NotFormatted(_)));
    // A disk that is not mounted looks the same.
    assert!(error.to_string().contains("mounted") && error.to_string().contains("do not format"), "{error}");
}

/// Hazard SF-22: files that were emptied, zeroed, exchanged, or are another replica's.
#[test]
fn sf_22_files_that_are_not_what_they_were() {
    let set = |path: &Path, len: u64| {
        std::fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(len)).expect("a length");
    };
    let len = |path: &Path| std::fs::metadata(path).expect("the file is there").len();
    let zero = |path: &Path| {
        let before = len(path);
        set(path, 0);
        set(path, before);
    };
    let other = replica(1);
    let from_other = |path: &Path, file: &str| {
        std::fs::copy(other.1.join(file), path.join(file)).expect("a copy");
    };
    type Change<'a> = (&'a str, bool, Box<dyn Fn(&Path) + 'a>);
    let changes: Vec<Change<'_>> = vec![
        ("the log is empty", false, Box::new(|path| set(&path.join("log"), 0))),
        ("the log is zeroed", false, Box::new(|path| zero(&path.join("log")))),
        ("the log of another replica", true, Box::new(|path| from_other(path, "log"))),
        ("the state is empty", true, Box::new(|path| set(&path.join("state"), 0))),
        ("the state is zeroed", true, Box::new(|path| zero(&path.join("state")))),
        (
            "both are empty",
            true,
            Box::new(|path| {
                set(&path.join("log"), 0);
                set(&path.join("state"), 0);
            }),
        ),
        (
            "both are gone, and something else is there",
            true,
            Box::new(|path| {
                std::fs::remove_file(path.join("log")).expect("removing");
                std::fs::rename(path.join("state"), path.join("state.old")).expect("renaming");
            }),
        ),
        ("the state of another replica", true, Box::new(|path| from_other(path, "state"))),
        (
            "log and state exchanged",
            true,
            Box::new(|path| {
                for (from, to) in [("log", "x"), ("state", "log"), ("x", "state")] {
                    std::fs::rename(path.join(from), path.join(to)).expect("renaming");
                }
            }),
        ),
    ];
    for (what, is_refused, change) in changes {
        let (_folder, path) = replica(0);
        change(&path);
        if is_refused {
            let error = refusal(&path);
            let is_typed = matches!(error, StorageError::Damaged { .. } | StorageError::OtherPlace { .. });
            assert!(is_typed, "{what}: {error}");
        } else {
            let storage = FileStorage::open(&path).expect("opening");
            let recovered = block_on(storage.recover()).expect("recovering");
            assert!(!recovered.head_certain, "{what}: acknowledged ops are absent, for certain");
        }
    }
}
