//! What a destination's name stands for.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

/// Symbolic links that may follow each other, as in the Linux kernel.
const MAX_LINKS: usize = 40;

/// Where bytes go.
#[derive(Debug)]
pub(super) enum OutputPlace {
    /// A file descriptor of this process, such as `/dev/stdout`: bytes go on where it stands.
    Descriptor(PathBuf, u32),
    /// A device, a pipe or a socket with a name: written to as it is.
    Stream(PathBuf),
    /// A file, or the place of one: links are followed, also those that lead to nothing yet.
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

/// The number that `path` is the name of, if it is that of a file descriptor of this process.
fn descriptor(path: &Path) -> Option<u32> {
    let number = path.file_name()?.to_str()?.parse().ok()?;
    let folder = path.parent()?.canonicalize().ok()?;
    // The first is Linux's, where the second leads to it; elsewhere there is only the second.
    let ours =
        ["/proc/self/fd", "/dev/fd"].iter().any(|name| Path::new(name).canonicalize().is_ok_and(|it| it == folder));
    ours.then_some(number)
}

/// Another handle of the file descriptor with this number, which shares its place in the file.
pub(super) fn duplicate(path: &Path, number: u32) -> io::Result<File> {
    let owned = match number {
        0 => io::stdin().as_fd().try_clone_to_owned(),
        // Not through io::stdout(): that one looks for line ends.
        1 => io::stdout().as_fd().try_clone_to_owned(),
        2 => io::stderr().as_fd().try_clone_to_owned(),
        // Only the name is known, and opening it starts anew; at the end, what is there is safe.
        _ => return OpenOptions::new().append(true).open(path),
    };
    owned.map(File::from)
}

/// Opens a device or a pipe. This waits for a reader; see `interrupt::waiting`.
pub(super) fn open_stream(path: &Path) -> io::Result<File> {
    // A terminal that is written to does not become the one whose keys send signals.
    OpenOptions::new().write(true).custom_flags(OFlags::NOCTTY.bits().cast_signed()).open(path)
}
