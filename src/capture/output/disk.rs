//! What a power cut must not take away.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Makes the names in a directory outlast a power cut. Some file systems cannot, and then there is nothing to be done: the
/// files are complete and in their place.
pub(super) fn sync_names(directory: &Path) {
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
}

/// Waits until `outputs`, which are all below `directory`, are on the disk with their names. Waiting for each takes a disk
/// about 3.5 ms (median; 0.1 ms without, and nothing on tmpfs).
///
/// # Errors
/// The disk's.
#[cfg(target_os = "linux")]
pub(crate) fn sync_outputs(directory: &Path, _outputs: &[PathBuf]) -> io::Result<()> {
    match File::open(directory) {
        Ok(directory) => Ok(rustix::fs::syncfs(directory)?),
        // Nothing was written.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Other systems have no call that waits for a whole file system (POSIX lets `sync` return before it is done), so each file
/// is waited for.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_outputs(_directory: &Path, outputs: &[PathBuf]) -> io::Result<()> {
    let mut directories = std::collections::BTreeSet::new();
    for output in outputs {
        match File::open(output) {
            Ok(file) => file.sync_all()?,
            // Nothing came of it, or it is a pipe's name.
            Err(_) => continue,
        }
        directories.extend(output.parent());
    }
    directories.into_iter().for_each(sync_names);
    Ok(())
}
