use std::io::Cursor;

use futures::executor::block_on;
use futures::future::join;

use super::*;

fn content(bytes: Vec<u8>) -> Snapshot {
    Snapshot::with(move |to| to.write_all(&bytes))
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7) as u8).collect()
}

fn chunked(content: &[u8]) -> (CheckpointId, Vec<u8>) {
    let mut to = ChunkWriter::new(Vec::new(), OpNumber(3));
    to.write_all(content).unwrap();
    to.finish().unwrap()
}

fn read_back(file: &[u8], id: CheckpointId) -> io::Result<Vec<u8>> {
    let mut chunks = ChunkReader::new(Cursor::new(file), id)?;
    let mut found = Vec::new();
    chunks.read_to_end(&mut found)?;
    chunks.finish()?;
    Ok(found)
}

#[test]
fn what_is_written_in_chunks_is_read_as_it_was() {
    for len in [0, 1, CHUNK_BYTES_MAX - 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 3 * CHUNK_BYTES_MAX + 5] {
        let content = bytes(len);
        let (id, file) = chunked(&content);
        assert_eq!(read_back(&file, id).unwrap(), content, "{len} bytes");
    }
}

/// Clause 18: parts make the same file, whatever an earlier attempt has left.
#[test]
fn parts_make_the_file_that_they_were_read_from() {
    let (id, file) = chunked(&bytes(2 * CHUNK_BYTES_MAX + 5));
    let part = |part| read_part(Cursor::new(&file), id, part);
    let manifest = part(0).unwrap();
    let right = [&part(1).unwrap()[..], &part(2).unwrap()].concat();
    let mut harmed = right.clone();
    harmed[CHUNK_BYTES_MAX] ^= 1;
    let lefts = [(vec![], 1), (vec![7; 9], 1), (right[..CHUNK_BYTES_MAX + 9].to_vec(), 2), (harmed, 2), (right, 3)];
    for (left, next) in lefts {
        let mut parts = PartWriter::new(Cursor::new(left), id, &manifest).unwrap();
        assert_eq!(parts.next(), next);
        assert!(parts.add(next + 1, &part(next).unwrap()).is_err(), "not the next one");
        for at in next..=3 {
            assert!(parts.add(at, b"others").is_err());
            parts.add(at, &part(at).unwrap()).unwrap();
        }
        assert!(parts.is_whole() && parts.finish().unwrap().into_inner() == file);
    }
    assert!(PartWriter::new(Cursor::new(vec![]), id, b"no list").is_err());
    assert!(PartWriter::new(Cursor::new(vec![]), id, &manifest).unwrap().finish().is_err());
    assert!(part(4).is_err());
}

/// Schedule B-38.
#[test]
fn b_38_what_is_left_of_a_transfer_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = CheckpointFolder::new(folder.path());
    let left = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(COMING)).count()
    };
    let (first, first_file) = chunked(&bytes(2 * CHUNK_BYTES_MAX));
    let (second, second_file) = chunked(&bytes(CHUNK_BYTES_MAX + 1));
    let put = |id, file: &[u8], part, keep: &[CheckpointId]| {
        let bytes = read_part(Cursor::new(file), id, part).unwrap();
        block_on(checkpoints.write_part(id, part, bytes, keep.to_vec()))
    };
    assert_eq!(put(first, &first_file, 0, &[first]), Ok(1));
    assert_eq!((put(first, &first_file, 1, &[first]), left()), (Ok(2), 1));
    let own = block_on(checkpoints.write(OpNumber(9), vec![first], content(vec![1; 10]))).unwrap();
    assert_eq!(left(), 1, "one that is being fetched stays");
    assert_eq!((put(second, &second_file, 0, &[own, second]), left()), (Ok(1), 1), "another one takes its place");
    assert!(put(first, &first_file, 2, &[first]).is_err(), "it was given up");
    block_on(checkpoints.write(OpNumber(10), vec![own], content(vec![2; 10]))).unwrap();
    assert_eq!(left(), 0, "nobody fetches it any more");
}

/// Clause 17: whatever is changed, cut or added, no byte of it is given as good.
#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    let content = bytes(300);
    let (id, file) = chunked(&content);
    for at in 0..file.len() {
        let mut harmed = file.clone();
        harmed[at] ^= 0x10;
        assert!(read_back(&harmed, id).is_err(), "byte {at} of {}", file.len());
        assert!(read_back(&file[..at], id).is_err(), "cut at {at}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(read_back(&longer, id).is_err());
    let other = CheckpointId { op: OpNumber(4), ..id };
    assert!(read_back(&file, other).is_err(), "the checkpoint of another op");
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map(|found| found.map(|file| file.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

fn read_all(folder: &CheckpointFolder, id: CheckpointId) -> Result<Vec<u8>, StorageError> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let into = found.clone();
    let reader: CheckpointReader = Box::new(move |from| from.read_to_end(&mut into.lock().unwrap()).map(|_| ()));
    block_on(folder.read(id, reader))?;
    let found = found.lock().unwrap().clone();
    Ok(found)
}

/// Clauses 15 and 16.
#[test]
fn g21_a_folder_keeps_what_it_is_told_to_and_removes_the_rest() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("checkpoints");
    let folder = CheckpointFolder::new(&path);
    let write = |op: u64, keep: &[CheckpointId]| {
        block_on(folder.write(OpNumber(op), keep.to_vec(), content(bytes(op as usize)))).unwrap()
    };
    let first = write(10, &[]);
    let second = write(20, &[first]);
    fs::write(path.join("17-3.new"), b"what a crash has left").unwrap();
    fs::create_dir(path.join("lost+found")).unwrap();
    let third = write(30, &[second]);
    assert_eq!(files(&path), [name_of(second), name_of(third), "lost+found".to_owned()]);
    assert_eq!(CheckpointFolder::check(&path, third).unwrap(), 30);
    assert_eq!((read_all(&folder, second).unwrap(), read_all(&folder, third).unwrap()), (bytes(20), bytes(30)));
    let gone = read_all(&folder, first).unwrap_err();
    assert!(matches!(&gone, StorageError::CheckpointDamaged { id, .. } if *id == first), "{gone}");
}

/// A state machine that does not look at an error leaves no checkpoint without what was lost by it.
#[test]
fn a_write_that_failed_is_not_forgotten() {
    struct Full(u32);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 == 2 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut to = ChunkWriter::new(Full(0), OpNumber(1));
    let written = to.write_all(&bytes(2 * CHUNK_BYTES_MAX)).map_err(|error| error.kind());
    assert_eq!(written, Err(io::ErrorKind::StorageFull));
    assert!(to.write_all(&[1]).is_err() && to.finish().is_err());
}

/// A write that fails leaves what was there, and no file; nor does a panic of the state machine hang anybody.
#[test]
fn a_checkpoint_that_fails_leaves_the_others() {
    let parent = tempfile::tempdir().unwrap();
    let folder = CheckpointFolder::new(parent.path().join("checkpoints"));
    let first = block_on(folder.write(OpNumber(1), Vec::new(), content(bytes(9)))).unwrap();
    let fails = Snapshot::with(|to| {
        to.write_all(&[1; 100])?;
        Err(io::ErrorKind::StorageFull.into())
    });
    let failed = block_on(folder.write(OpNumber(2), vec![first], fails));
    assert!(matches!(failed, Err(StorageError::Full { .. })), "{failed:?}");
    assert_eq!(files(&parent.path().join("checkpoints")), [name_of(first)]);
    let panics: CheckpointReader = Box::new(|_| panic!("while it is restored"));
    let failed = block_on(folder.read(first, panics)).unwrap_err();
    assert!(failed.to_string().contains("panicked"), "{failed}");
    assert_eq!(read_all(&folder, first).unwrap(), bytes(9));
}

/// Closing ends a long checkpoint, and waits until its thread has let go of the folder.
#[test]
fn closing_ends_what_is_under_way() {
    let parent = tempfile::tempdir().unwrap();
    let folder = CheckpointFolder::new(parent.path().join("checkpoints"));
    let endless = Snapshot::with(|to| {
        loop {
            to.write_all(&[0; 1 << 16])?;
            std::thread::yield_now();
        }
    });
    let (written, ()) = block_on(join(folder.write(OpNumber(1), Vec::new(), endless), folder.close()));
    assert!(written.is_err(), "{written:?}");
    assert_eq!(files(&parent.path().join("checkpoints")), Vec::<String>::new());
}
