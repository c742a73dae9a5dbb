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
    /// What the umask leaves of 0666, as for any new file; an existing file keeps its permissions.
    #[default]
    Umask,
    /// 0600; an existing file keeps its permissions.
    Private,
    /// These, whatever the umask, and of an existing file as well.
    Mode(u32),
}

impl Access {
    /// What a temporary file is created with. One that takes the place of another is nobody else's until it has got the
    /// other's permissions.
    pub(super) fn at_creation(self, replaces: bool) -> u32 {
        if self == Self::Umask && !replaces { 0o666 } else { 0o600 }
    }
}

/// Read, write and execute; a capture has no use for set-user-id and its like.
const BITS: u32 = 0o777;
const GROUP: u32 = 0o070;

/// Whether `file` may not be written, by its mode as well: the super-user passes every other check.
pub(super) fn is_read_only(path: &Path, existing: &Metadata) -> bool {
    existing.mode() & 0o222 == 0 || rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err()
}

/// Gives `new` the permissions that `access` asks for, or those of the file that it replaces.
pub(super) fn apply(access: Access, new: &File, replaced: Option<(&Path, &Metadata)>) -> io::Result<()> {
    let Some((old, metadata)) = replaced else {
        return match access {
            // As it was created.
            Access::Umask | Access::Private => Ok(()),
            Access::Mode(mode) => new.set_permissions(Permissions::from_mode(mode & BITS)),
        };
    };
    let created = new.metadata()?;
    let mut mode = metadata.mode() & BITS;
    let same_owner = created.uid() == metadata.uid() && created.gid() == metadata.gid();
    if !same_owner && fchown(new, Some(metadata.uid()), Some(metadata.gid())).is_err() {
        // Only the super-user gives files away, but anyone may share one with a group of theirs.
        if created.gid() != metadata.gid() && fchown(new, None, Some(metadata.gid())).is_err() {
            // The bits were for another group: this one gets what everybody has.
            mode = (mode & !GROUP) | (((mode & 0o007) << 3) & mode);
        }
    }
    if let Access::Mode(wanted) = access {
        mode = wanted & BITS;
    }
    if !acl::copy(old, new)? {
        // The mode's group bits are the most that the list gave to anyone it names; without it they would be the group's.
        mode &= !GROUP;
    }
    // Last, because a list sets these bits as well.
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
    /// Thousands of entries.
    const LONGEST: usize = 64 * 1024;

    /// Gives `new` the list of `old`, or takes away one that it inherited from its directory. Answers whether `new` now
    /// has what `old` has.
    pub(super) fn copy(old: &Path, new: &File) -> io::Result<bool> {
        let mut list = vec![0; LONGEST];
        match getxattr(old, NAME, &mut list[..]) {
            Ok(len) => Ok(fsetxattr(new, NAME, &list[..len], XattrFlags::empty()).is_ok()),
            Err(Errno::NODATA | Errno::NOTSUP) => match fremovexattr(new, NAME) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(true),
                Err(error) => Err(error.into()),
            },
            // There is one, and it cannot be told what it says.
            Err(_) => Ok(false),
        }
    }
}

/// Elsewhere lists have interfaces of their own, which need a C library's functions. macOS keeps them beside the mode,
/// and a new file has none unless its directory hands one down; the mode alone is never wider than the old one.
#[cfg(not(target_os = "linux"))]
mod acl {
    use std::{fs::File, io, path::Path};

    pub(super) fn copy(_old: &Path, _new: &File) -> io::Result<bool> {
        Ok(true)
    }
}

/// Makes `folder` and those that lead to it, as far as they are missing, for the same people as files with `access`.
///
/// # Errors
/// Where one cannot be made.
#[cfg(feature = "record")]
pub(crate) fn create_folders(folder: &Path, access: Access) -> io::Result<()> {
    use std::{fs, os::unix::fs::DirBuilderExt};

    // Whoever may read files may also go into their folder.
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
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
