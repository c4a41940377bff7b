//! The folder of a storage: which files are in it, what it means when one is not there or cannot be read, and what room there is.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rocksdb::{DB, Error, ErrorKind};
use vsr::storage::StorageError;

use crate::options::{columns, database};

pub(crate) const DATABASE: &str = "db";
pub(crate) const SEAL: &str = "seal";
/// The seal until formatting is done: it is the first file of a folder, and gets its name last.
pub(crate) const UNFINISHED: &str = "seal.new";
pub(crate) const PLACE: &str = "place";
/// The folder of the checkpoints. Made with the first of them.
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// What RocksDB's own files may grow to: a table of one memtable, or a write-ahead log of 64 MiB, with a large batch on top.
const FILE_SIZE_MIN: u64 = 256 << 20;
const PAGE: usize = 4096;

pub(crate) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: impl Display,
) -> impl FnOnce(E) -> StorageError {
    move |error| StorageError::io(doing.to_string(), error)
}

pub(crate) fn missing(path: &Path) -> StorageError {
    StorageError::Missing { path: path.display().to_string() }
}

pub(crate) fn damaged(path: &Path, what: impl Display) -> StorageError {
    StorageError::Damaged { path: path.display().to_string(), what: what.to_string() }
}

fn is_there(path: &Path) -> Result<bool, StorageError> {
    path.try_exists().map_err(|error| failed(format!("looking for {}", path.display()))(error))
}

/// Refuses a folder that was not formatted, or has lost a part. Never takes the one for the other: formatting again would forget what the
/// replica has promised.
pub(crate) fn check(folder: &Path) -> Result<(), StorageError> {
    let parts = [SEAL, PLACE, DATABASE].map(|name| folder.join(name));
    let mut absent = Vec::new();
    for part in &parts {
        if !is_there(part)? {
            absent.push(part);
        }
    }
    let Some(first) = absent.first() else { return Ok(()) };
    if absent.len() == parts.len() && !is_there(&folder.join(UNFINISHED))? {
        if fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()) {
            return Err(damaged(
                folder,
                "nothing of this storage is in it, and something else is: is it another storage's?",
            ));
        }
        return Err(StorageError::NotFormatted(folder.display().to_string()));
    }
    // No promise was made with a folder whose formatting was cut short by a crash.
    if !is_there(&folder.join(SEAL))? && is_there(&folder.join(UNFINISHED))? {
        let name = format!("{} (formatting it was begun, and not finished: empty it)", folder.display());
        return Err(StorageError::NotFormatted(name));
    }
    Err(missing(first))
}

/// Refuses a limit that the operating system would enforce with a signal: `SIGXFSZ` ends the process unless the application handles it.
pub(crate) fn check_file_size_limit(folder: &Path, limit: Option<u64>) -> Result<(), StorageError> {
    match limit {
        Some(limit) if limit < FILE_SIZE_MIN => Err(StorageError::io(
            format!("opening the database in {}", folder.display()),
            format!(
                "this process may write files of at most {limit} bytes, RocksDB's grow to {FILE_SIZE_MIN}: raise the \
                 limit (`ulimit -f`)"
            ),
        )),
        _ => Ok(()),
    }
}

pub(crate) fn file_size_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

/// Bytes that the file system still has for this process. Where it does not say, its refusal has to do.
pub(crate) fn free(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether the database was refused for want of room. The words stand for the status' subcode, and are RocksDB's own (`util/status.cc`,
/// `msgs`), in every locale: its C interface gives nothing else.
pub(crate) fn is_no_space(error: &Error) -> bool {
    let text: &str = error.as_ref();
    error.kind() == ErrorKind::IOError && text.starts_with("IO error: No space left on device")
}

/// Whether a file of our own was refused for want of room.
pub(crate) fn has_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Opens the database of a formatted folder. RocksDB writes anew what it reads, and finds room for it, or is opened again later.
pub(crate) fn open_database(folder: &Path) -> Result<DB, StorageError> {
    let path = folder.join(DATABASE);
    check_manifest(&path)?;
    let open = || DB::open_cf_descriptors(&database(false), &path, columns());
    let opened = open().or_else(|error| {
        // An unreadable page of a write-ahead log is rot, which the seal knows how to tell; RocksDB would never start again.
        if error.kind() == ErrorKind::IOError && !is_no_space(&error) && end_logs_before_unreadable(&path) {
            open()
        } else {
            Err(error)
        }
    });
    opened.map_err(|error| match error.kind() {
        _ if is_no_space(&error) => StorageError::Full { used: 0, limit: free(folder) },
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotFound | ErrorKind::NotSupported => {
            damaged(&path, error)
        }
        _ => failed(format!("opening the database in {}", path.display()))(error),
    })
}

/// RocksDB takes a database without `CURRENT` for one that was never created.
fn check_manifest(database: &Path) -> Result<(), StorageError> {
    let current = database.join("CURRENT");
    let named = fs::read(&current).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(&current),
        _ => failed(format!("reading {}", current.display()))(error),
    })?;
    let manifest = std::str::from_utf8(&named).ok().and_then(|named| named.strip_suffix('\n'));
    let number = manifest.and_then(|named| named.strip_prefix("MANIFEST-"));
    let (Some(manifest), Some(number)) = (manifest, number) else {
        return Err(damaged(&current, "it does not name a manifest"));
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(damaged(&current, "it does not name a manifest"));
    }
    let manifest = database.join(manifest);
    if is_there(&manifest)? { Ok(()) } else { Err(missing(&manifest)) }
}

/// Ends each write-ahead log before its first unreadable page. What follows could not be used anyway: replay stops at a hole. Tells
/// whether there was one.
fn end_logs_before_unreadable(database: &Path) -> bool {
    let Ok(files) = fs::read_dir(database) else { return false };
    let mut ended = false;
    for path in files.filter_map(|file| Some(file.ok()?.path())) {
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        match end_before_unreadable(&path) {
            Ok(is_ended) => ended |= is_ended,
            Err(error) => tracing::warn!(%error, log = %path.display(), "a write-ahead log cannot be mended"),
        }
    }
    ended
}

fn end_before_unreadable(log: &Path) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(log)?;
    let len = file.metadata()?.len();
    let Some(at) = first_unreadable(len, |page, at| file.read_exact_at(page, at)) else { return Ok(false) };
    tracing::warn!(log = %log.display(), at, len, "a page of a write-ahead log cannot be read: what follows is lost");
    file.set_len(at)?;
    file.sync_all()?;
    Ok(true)
}

/// Where the first page begins that cannot be read, nor when it is asked for again.
fn first_unreadable(len: u64, mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>) -> Option<u64> {
    let mut page = [0; PAGE];
    (0..len).step_by(PAGE).find(|at| {
        let want = (len - at).min(PAGE as u64) as usize;
        let mut is_unreadable =
            || read(&mut page[..want], *at).is_err_and(|error| error.kind() != io::ErrorKind::UnexpectedEof);
        is_unreadable() && is_unreadable()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_page_is_found_and_a_passing_error_is_not() {
        let eio = || Err(io::Error::from_raw_os_error(5));
        let len = 10 * PAGE as u64 + 7;
        assert_eq!(first_unreadable(len, |_, _| Ok(())), None);
        for bad in (0..=10).map(|page| page * PAGE as u64) {
            assert_eq!(first_unreadable(len, |_, at| if at >= bad { eio() } else { Ok(()) }), Some(bad));
            let mut failed_once = false;
            let passing = |_: &mut [u8], at: u64| {
                if at == bad && !std::mem::replace(&mut failed_once, true) { eio() } else { Ok(()) }
            };
            assert_eq!(first_unreadable(len, passing), None, "the error at {bad} does not come again");
        }
        assert_eq!(first_unreadable(0, |_, _| eio()), None);
    }

    #[test]
    fn a_file_size_limit_that_would_end_the_process_is_refused_in_words() {
        let folder = Path::new("/data/replica-1");
        assert_eq!(check_file_size_limit(folder, None), Ok(()));
        assert_eq!(check_file_size_limit(folder, Some(1 << 40)), Ok(()));
        let refused = check_file_size_limit(folder, Some(100 << 20)).expect_err("too low").to_string();
        assert!(refused.contains("/data/replica-1") && refused.contains("ulimit -f"), "{refused}");
    }
}
