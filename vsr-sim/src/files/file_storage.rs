//! The file storage's own code, on simulated files.

use vsr::Storage;
use vsr::storage::StorageError;
use vsr::threaded::{BlockingReader, BlockingWriter};
use vsr_storage_file::{FileOptions, FileStorage, blocking_on};

use super::folder::SimFolder;
use super::inline::Inline;

/// Opens the storage of `vsr-storage-file` on a simulated disk, and formats the disk first if it is new.
///
/// # Errors
/// Those of the storage.
pub fn file_storage(
    folder: SimFolder,
) -> Result<Inline<impl BlockingWriter + use<>, impl BlockingReader + use<>>, StorageError> {
    let (log, state) = (folder.file("log"), folder.file("state"));
    if folder.is_new() {
        let options = FileOptions::default().with(|options| (options.log_limit, options.extent) = (64 << 20, 1 << 16));
        FileStorage::format_on(&log, &state, &folder.first_state(), options)?;
    }
    let (writer, reader) = blocking_on(log, state, "the simulated disk")?;
    Ok(Inline::new(writer, reader, folder))
}

/// As [`file_storage`], as a trait object.
pub(crate) fn boxed_file_storage(folder: SimFolder) -> Result<Box<dyn Storage>, StorageError> {
    file_storage(folder).map(|storage| Box::new(storage) as Box<dyn Storage>)
}
