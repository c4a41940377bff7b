//! The file: what says where it comes from, then the bytes of a checkpoint, as a file of chunks.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};

use super::error::{Backup, BackupError};
use crate::adapters::checkpoints::{ChunkReader, ChunkWriter};
use crate::cause::Cause;
use crate::protocol::{CheckpointHead, ClusterId, CommitNumber, Constants, Header, OpNumber};
use crate::traits::state_machine::Snapshot;

const MAGIC: &[u8; 12] = b"vsr backup\0\0";
const VERSION: u32 = 1;
/// [`MAGIC`], the version, the cluster, the commit number.
const LEN: usize = 12 + 4 + 16 + 8;

fn failed(doing: &'static str, path: &Path, error: io::Error) -> BackupError {
    BackupError::File { doing, path: path.to_owned(), cause: Cause::new(error) }
}

/// Writes it under another name, syncs it, and renames it. Its length.
pub(super) fn write(
    to: &Path,
    (cluster, commit): (ClusterId, CommitNumber),
    op: OpNumber,
    content: Snapshot,
) -> Result<u64, BackupError> {
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let wrote = write_part(&part, to, (cluster, commit), op, content);
    wrote.map_err(|error| {
        // It may have its name already, and not be durable under it.
        for path in [&part, to] {
            let _ = fs::remove_file(path);
        }
        failed("writing", to, error)
    })
}

fn write_part(
    part: &Path,
    to: &Path,
    (cluster, commit): (ClusterId, CommitNumber),
    op: OpNumber,
    content: Snapshot,
) -> io::Result<u64> {
    let mut chunks = ChunkWriter::new(BufWriter::new(File::create(part)?), op);
    let mut front = Vec::with_capacity(LEN);
    front.extend(MAGIC);
    front.put_u32_le(VERSION);
    front.put_u128_le(cluster.0);
    front.put_u64_le(commit.0);
    chunks.write_all(&front)?;
    content.write_to(&mut chunks)?;
    let (_, file) = chunks.finish()?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    fs::rename(part, to)?;
    // The name is durable with its folder.
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(bytes)
}

/// A file of which the front is read: a state follows.
pub(super) struct Opened {
    path: PathBuf,
    chunks: ChunkReader<BufReader<File>>,
    cluster: ClusterId,
    commit: CommitNumber,
    bytes: u64,
}

impl Opened {
    pub(super) fn open(path: &Path) -> Result<Opened, BackupError> {
        let not_whole = |what: String| BackupError::NotWhole { path: path.to_owned(), what };
        let file = File::open(path).map_err(|error| failed("opening", path, error))?;
        let bytes = file.metadata().map_err(|error| failed("opening", path, error))?.len();
        let chunks = ChunkReader::of_any(BufReader::new(file));
        let mut chunks = chunks.map_err(|error| not_whole(error.to_string()))?;
        let mut front = [0; LEN];
        chunks.read_exact(&mut front).map_err(|error| not_whole(error.to_string()))?;
        let (magic, mut rest) = front.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(not_whole("it does not begin as one".to_owned()));
        }
        let version = rest.get_u32_le();
        if version != VERSION {
            return Err(not_whole(format!("it has version {version}, this program reads {VERSION}")));
        }
        let (cluster, commit) = (ClusterId(rest.get_u128_le()), CommitNumber(rest.get_u64_le()));
        Ok(Opened { path: path.to_owned(), chunks, cluster, commit, bytes })
    }

    fn not_whole(&self, error: &io::Error) -> BackupError {
        BackupError::NotWhole { path: self.path.clone(), what: error.to_string() }
    }

    /// Reads it to its end.
    pub(super) fn verify(mut self) -> Result<Backup, BackupError> {
        let header = CheckpointHead::header_of(&mut self.chunks).map_err(|error| self.not_whole(&error))?;
        if header.op != self.chunks.op() {
            return Err(self.not_whole(&io::Error::other("its end names another op than its beginning")));
        }
        io::copy(&mut self.chunks, &mut io::sink()).map_err(|error| self.not_whole(&error))?;
        let Opened { cluster, commit, bytes, .. } = self;
        Ok(Backup { cluster, op: header.op, view: header.view, commit, bytes })
    }

    /// The header of the last op. The sessions have to fit these constants.
    pub(super) fn head(mut self, constants: &Constants) -> Result<Header, BackupError> {
        let head = CheckpointHead::read(&mut self.chunks, constants).map_err(|_| BackupError::OtherLimits)?;
        Ok(*head.header())
    }

    /// The bytes of the checkpoint.
    pub(super) fn content(self) -> impl Read + Send + 'static {
        self.chunks
    }
}
