//! Readers for the bytes of a source: standard input, files (even more than a process can keep open), and data packed
//! with gzip or Zstandard.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
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

/// A file that need not stay open between reads.
#[derive(Debug)]
struct PooledFile {
    path: PathBuf,
    position: u64,
    file: Option<File>,
}

impl PooledFile {
    fn new(path: &Path, file: File) -> Self {
        let mut pooled = Self { path: path.to_owned(), position: 0, file: None };
        pooled.keep(file);
        pooled
    }

    /// Keeps the file open if there is room.
    fn keep(&mut self, file: File) {
        if OPEN.fetch_add(1, Ordering::Relaxed) < MAX_OPEN {
            self.file = Some(file);
        } else {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Read for PooledFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = if let Some(file) = &mut self.file {
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

impl Drop for PooledFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// How a source is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputPacking {
    Plain,
    Gzip,
    Zstandard,
}

impl InputPacking {
    /// Detects the packing by the magic numbers of RFC 1952 and RFC 8878; `None` if `head` is too short to tell.
    fn detect(head: &[u8]) -> Option<Self> {
        const GZIP: &[u8] = b"\x1f\x8b";
        const ZSTANDARD: &[u8] = b"\x28\xb5\x2f\xfd";
        if head.starts_with(GZIP) {
            Some(Self::Gzip)
        } else if head.starts_with(ZSTANDARD) {
            Some(Self::Zstandard)
        } else if GZIP.starts_with(head) || ZSTANDARD.starts_with(head) {
            None
        } else {
            Some(Self::Plain)
        }
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
    } else if metadata.is_file() {
        Ok(Box::new(PooledFile::new(path, file)))
    } else {
        // A named pipe or device cannot be opened again at the same position.
        Ok(Box::new(Interruptible(file)))
    }
}

/// Counts the bytes read from a file, before they are unpacked.
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

/// Unpacks `reader` if its first bytes say that it is packed, whatever its name.
pub(super) fn unpack(mut reader: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut head = [0; 4];
    let mut len = 0;
    let packing = loop {
        match reader.read(&mut head[len..]) {
            Ok(0) => break InputPacking::Plain,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(packing) = InputPacking::detect(&head[..len]) {
            break packing;
        }
    };
    let whole = Rewound { head, at: 0, len, rest: reader };
    Ok(match packing {
        InputPacking::Plain => Box::new(whole),
        // Multi: a gzip file may consist of several members (RFC 1952, section 2.2).
        InputPacking::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(whole))),
        InputPacking::Zstandard => zstandard(whole)?,
    })
}

#[cfg(not(feature = "zstd"))]
fn zstandard(_packed: Rewound) -> io::Result<Box<dyn Read + Send>> {
    Err(io::Error::other("this build of tap2pcap lacks Zstandard; unpack it first with zstd -d"))
}

#[cfg(feature = "zstd")]
fn zstandard(packed: Rewound) -> io::Result<Box<dyn Read + Send>> {
    let mut decoder = zstd::Decoder::new(packed)?;
    decoder.window_log_max(ZSTANDARD_WINDOW_LOG)?;
    Ok(Box::new(Zstandard(decoder)))
}

/// The base-2 logarithm of the largest window that a Zstandard frame may ask for. RFC 8878 recommends supporting 8 MiB;
/// `zstd` itself accepts 128 MiB by default.
#[cfg(feature = "zstd")]
const ZSTANDARD_WINDOW_LOG: u32 = 27;

/// Replaces the library's error for a larger window with one that says what to do.
#[cfg(feature = "zstd")]
struct Zstandard<R: io::BufRead>(zstd::Decoder<'static, R>);

#[cfg(feature = "zstd")]
impl<R: io::BufRead> Read for Zstandard<R> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            // The library's functions return ZSTD_error_frameParameter_windowTooLarge, which is 16 in its stable
            // interface, as a negative number.
            let too_large = zstd::zstd_safe::get_error_name(16_usize.wrapping_neg());
            if error.to_string() == too_large {
                let mebibytes = 1 << (ZSTANDARD_WINDOW_LOG - 20);
                io::Error::other(format!(
                    "a window of more than {mebibytes} MiB; unpack it first with zstd -d --long=31"
                ))
            } else {
                error
            }
        })
    }
}

/// Reads again the bytes that detection has read, then the rest.
struct Rewound {
    head: [u8; 4],
    at: usize,
    len: usize,
    rest: Box<dyn Read + Send>,
}

impl Read for Rewound {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.len {
            let mut head = &self.head[self.at..self.len];
            let count = head.read(buffer)?;
            self.at += count;
            return Ok(count);
        }
        self.rest.read(buffer)
    }
}
