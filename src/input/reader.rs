//! Readers for the bytes of a source: standard input, and files, even more than a process can keep open.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::interrupt::{self, Interruptible};

/// The most files that stay open between reads. Any others are opened again for each read, because a process usually
/// has a soft limit of 1,024 descriptors, and sometimes of only 256.
const MAX_OPEN: usize = 64;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The right to keep a file open between two reads.
#[derive(Debug)]
pub(super) struct Slot(());

impl Slot {
    /// Returns `None` if too many files are open already.
    pub(super) fn take() -> Option<Self> {
        if OPEN.fetch_add(1, Ordering::Relaxed) < MAX_OPEN {
            Some(Self(()))
        } else {
            OPEN.fetch_sub(1, Ordering::Relaxed);
            None
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Most of ten thousand traces fit this many bytes. Such a file is read at once.
const SMALL: u64 = 16 * 1024;

/// A file that need not stay open between reads.
#[derive(Debug)]
struct PooledFile {
    path: PathBuf,
    position: u64,
    file: Option<(File, Slot)>,
}

impl PooledFile {
    fn new(path: &Path, file: File) -> Self {
        let mut pooled = Self { path: path.to_owned(), position: 0, file: None };
        pooled.keep(file);
        pooled
    }

    /// Keeps the file open if there is room.
    fn keep(&mut self, file: File) {
        self.file = Slot::take().map(|slot| (file, slot));
    }
}

impl Read for PooledFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = if let Some((file, _)) = &mut self.file {
            file.read(buffer)?
        } else {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.position))?;
            let count = file.read(buffer)?;
            self.keep(file);
            count
        };
        self.position += count as u64;
        Ok(count)
    }
}

/// Standard input.
pub(crate) fn stdin() -> Box<dyn Read + Send> {
    Box::new(interrupt::stdin())
}

/// Opens a file.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let file = interrupt::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        // Opening a directory succeeds; only reading it fails, with a less clear message.
        Err(io::ErrorKind::IsADirectory.into())
    } else if (1..SMALL).contains(&metadata.len()) && metadata.is_file() {
        read_small(path, file, metadata.len())
    } else if metadata.is_file() {
        Ok(Box::new(PooledFile::new(path, file)))
    } else {
        // A named pipe or device cannot be opened again at the same position.
        Ok(Box::new(Interruptible(file)))
    }
}

/// Reads a small file at once. Its readers ask for a few bytes first, then for the others, then for the end, which would
/// be as many calls of the system.
fn read_small(path: &Path, mut file: File, len: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut bytes = vec![0; len as usize];
    let mut end = 0;
    while end < bytes.len() {
        match file.read(&mut bytes[end..]) {
            // The file became shorter.
            Ok(0) => {
                bytes.truncate(end);
            }
            Ok(count) => end += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The source reports it where it reads on.
            Err(_) => {
                bytes.truncate(end);
                let rest = PooledFile { position: end as u64, ..PooledFile::new(path, file) };
                return Ok(Box::new(io::Cursor::new(bytes).chain(rest)));
            }
        }
    }
    Ok(Box::new(io::Cursor::new(bytes)))
}

/// Counts the bytes read from a file, before any layer is taken off.
pub(super) struct Counted {
    pub(super) reader: Box<dyn Read + Send>,
    pub(super) count: Arc<AtomicU64>,
}

impl Read for Counted {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
