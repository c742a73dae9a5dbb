//! Who may read and write an output. It holds decrypted traffic, so a file that is replaced must not become readable to
//! more people than could read it before.

use std::{
    fs::{File, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::Path,
};

/// Permissions of a new output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// 0666 less the umask, as for any new file; an existing file keeps its permissions.
    #[default]
    Umask,
    /// 0600; an existing file keeps its permissions.
    Private,
    /// This mode, whatever the umask is; an existing file gets it too.
    Mode(u32),
}

impl Access {
    /// The mode that a temporary file is created with. If the file will replace another, only its owner may access it
    /// until it has the other's permissions.
    pub(super) fn at_creation(self, replaces: bool) -> u32 {
        if self == Self::Umask && !replaces { 0o666 } else { 0o600 }
    }
}

/// Read, write and execute; a capture has no use for set-user-ID and the like.
const BITS: u32 = 0o777;
const GROUP: u32 = 0o070;

/// Whether the file is read-only. Its mode is checked as well, because the super-user passes every other check.
pub(super) fn is_read_only(path: &Path, existing: &Metadata) -> bool {
    existing.mode() & 0o222 == 0 || rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err()
}

/// Gives `new` the permissions that `access` asks for, or those of the file that it replaces.
pub(super) fn apply(access: Access, new: &File, replaced: Option<(&Path, &Metadata)>) -> io::Result<()> {
    let Some((old, metadata)) = replaced else {
        return match access {
            // `at_creation` has set these already.
            Access::Umask | Access::Private => Ok(()),
            Access::Mode(mode) => new.set_permissions(Permissions::from_mode(mode & BITS)),
        };
    };
    let created = new.metadata()?;
    let mut mode = metadata.mode() & BITS;
    let same_owner = created.uid() == metadata.uid() && created.gid() == metadata.gid();
    if !same_owner && fchown(new, Some(metadata.uid()), Some(metadata.gid())).is_err() {
        // Only the super-user may change a file's owner, but any user may give a file to one of their groups.
        if created.gid() != metadata.gid() && fchown(new, None, Some(metadata.gid())).is_err() {
            // The group bits were meant for another group: this group gets only those that others have as well.
            mode = (mode & !GROUP) | (((mode & 0o007) << 3) & mode);
        }
    }
    if let Access::Mode(wanted) = access {
        mode = wanted & BITS;
    }
    if !acl::copy(old, new)? {
        // With a list, the mode's group bits are the list's mask. Without it, they would grant the mask to the group.
        mode &= !GROUP;
    }
    // This is last, because setting a list changes these bits as well.
    new.set_permissions(Permissions::from_mode(mode))
}

/// Access control lists. Linux shows them as an extended attribute.
#[cfg(target_os = "linux")]
mod acl {
    use std::{fs::File, io, path::Path};

    use rustix::{
        fs::{XattrFlags, fremovexattr, fsetxattr, getxattr},
        io::Errno,
    };

    const NAME: &str = "system.posix_acl_access";
    /// Linux's limit for the value of an attribute, which holds thousands of entries.
    const LONGEST: usize = 64 * 1024;

    /// Copies the list of `old` to `new`. If `old` has none, removes a list that `new` inherited from its directory.
    /// Returns whether `new` now has what `old` has.
    pub(super) fn copy(old: &Path, new: &File) -> io::Result<bool> {
        let mut list = vec![0; LONGEST];
        match getxattr(old, NAME, &mut list[..]) {
            Ok(len) => Ok(fsetxattr(new, NAME, &list[..len], XattrFlags::empty()).is_ok()),
            Err(Errno::NODATA | Errno::NOTSUP) => match fremovexattr(new, NAME) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(true),
                Err(error) => Err(error.into()),
            },
            // There is a list, but it cannot be read.
            Err(_) => Ok(false),
        }
    }
}

/// Other systems have their own interfaces for lists, which need functions of the C library. On macOS a list is
/// separate from the mode, and a new file has none unless its directory passes one on. The mode alone never grants more
/// than the old file's.
#[cfg(not(target_os = "linux"))]
mod acl {
    use std::{fs::File, io, path::Path};

    pub(super) fn copy(_old: &Path, _new: &File) -> io::Result<bool> {
        Ok(true)
    }
}

/// Creates `folder` and its missing parents, for the same people as files with `access`.
///
/// # Errors
/// If one of them cannot be created.
#[cfg(feature = "record")]
pub(crate) fn create_folders(folder: &Path, access: Access) -> io::Result<()> {
    use std::{fs, os::unix::fs::DirBuilderExt};

    // Those who may read the files must be able to enter their folder.
    let with_entry = |mode: u32| mode & BITS | (mode & 0o444) >> 2;
    let mode = match access {
        Access::Umask => return fs::create_dir_all(folder),
        Access::Private => 0o700,
        Access::Mode(mode) => with_entry(mode),
    };
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) if mode == 0o700 => {}
            Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode))?,
            // Another process created it first.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
