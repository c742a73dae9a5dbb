//! Whether a destination's name stands for a file, a file descriptor, or a device or pipe.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

/// How many symbolic links may lead to each other, as in the Linux kernel.
const MAX_LINKS: usize = 40;

/// Where bytes go.
#[derive(Debug)]
pub(super) enum OutputPlace {
    /// A file descriptor of this process, such as `/dev/stdout`: bytes are written at its current offset.
    Descriptor(PathBuf, u32),
    /// A device, a pipe or a socket with a name, which is written to and not replaced.
    Stream(PathBuf),
    /// A file, which may not exist yet. Links are followed, even those whose target does not exist yet.
    File(PathBuf, Option<Metadata>),
}

impl OutputPlace {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            if let Some(number) = descriptor(&path) {
                return Ok(Self::Descriptor(path, number));
            }
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_symlink() => {
                    let link = fs::read_link(&path)?;
                    path.pop();
                    path.push(link);
                }
                Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
                Ok(metadata) if metadata.is_file() => return Ok(Self::File(path, Some(metadata))),
                Ok(_) => return Ok(Self::Stream(path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::File(path, None)),
                Err(error) => return Err(error),
            }
        }
        Err(Errno::LOOP.into())
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(..))
    }
}

/// The number of the file descriptor of this process that `path` names, if it names one.
fn descriptor(path: &Path) -> Option<u32> {
    let number = path.file_name()?.to_str()?.parse().ok()?;
    let folder = path.parent()?.canonicalize().ok()?;
    // On Linux, /dev/fd is a link to /proc/self/fd; other systems have /dev/fd alone.
    let ours =
        ["/proc/self/fd", "/dev/fd"].iter().any(|name| Path::new(name).canonicalize().is_ok_and(|path| path == folder));
    ours.then_some(number)
}

/// Another handle for the file descriptor with this number. Both share one offset.
pub(super) fn duplicate(path: &Path, number: u32) -> io::Result<File> {
    let owned = match number {
        0 => io::stdin().as_fd().try_clone_to_owned(),
        // A `File` is faster than io::stdout(), which looks for line ends.
        1 => io::stdout().as_fd().try_clone_to_owned(),
        2 => io::stderr().as_fd().try_clone_to_owned(),
        // Only the name is known. Opening it starts at offset 0; appending overwrites nothing.
        _ => return OpenOptions::new().append(true).open(path),
    };
    owned.map(File::from)
}

/// Opens a device or a pipe. This waits for a reader; see `interrupt::waiting`.
pub(super) fn open_stream(path: &Path) -> io::Result<File> {
    // Without NOCTTY, a terminal could become the controlling one, whose keys send signals.
    OpenOptions::new().write(true).custom_flags(OFlags::NOCTTY.bits().cast_signed()).open(path)
}
