//! The link in Wireshark's extcap folder.

use std::{
    env, fs,
    io::{self, ErrorKind},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::super::{Status, error::Error};
use crate::{
    cli::{EXTCAP_LINK, ExtcapArgs},
    report::print_line,
    words,
};

/// The name of this program, which links lead to.
const PROGRAM: &str = env!("CARGO_PKG_NAME");

/// `--install` or `--uninstall`.
pub(in super::super) fn run(args: &ExtcapArgs) -> Result<Status, Error> {
    let folders = Folders::of_tshark();
    if args.install { install(args, &folders) } else { uninstall(args, &folders) }
}

fn install(args: &ExtcapArgs, folders: &Folders) -> Result<Status, Error> {
    let folder = if args.system { folders.system()? } else { folders.personal()? };
    let program = env::current_exe()?;
    let link = folder.join(EXTCAP_LINK);
    let failed = |error: io::Error| why(&link, &error, args.system);
    fs::create_dir_all(&folder).map_err(failed)?;
    let said = match fs::symlink_metadata(&link) {
        Ok(_) if fs::read_link(&link).is_ok_and(|target| target == program) => "is installed already",
        Ok(_) if is_ours(&link) => {
            fs::remove_file(&link).map_err(failed)?;
            "installed"
        }
        Ok(_) => return Err(foreign(&link)),
        Err(error) if error.kind() == ErrorKind::NotFound => "installed",
        Err(error) => return Err(failed(error)),
    };
    if said == "installed" {
        symlink(&program, &link).map_err(failed)?;
    }
    print_line("note", &format_args!("{}: {said}; it leads to {}", link.display(), program.display()));
    if folders.asked {
        print_line(
            "note",
            &"`tshark -D` lists it as envoy-tap; an open Wireshark does after Capture > Refresh Interfaces",
        );
    } else {
        print_line(
            "note",
            &"there is no tshark here to ask for Wireshark's folder; this is the one of Wireshark 4.2 and later. In \
              Wireshark, Help > About > Folders has it",
        );
    }
    Ok(Status::Done)
}

fn uninstall(args: &ExtcapArgs, folders: &Folders) -> Result<Status, Error> {
    let places = if args.system { vec![folders.system()?] } else { folders.all_personal()? };
    let mut removed = false;
    let mut left = Vec::new();
    for folder in &places {
        let link = folder.join(EXTCAP_LINK);
        match fs::symlink_metadata(&link) {
            Ok(_) if is_ours(&link) => {
                fs::remove_file(&link).map_err(|error| why(&link, &error, args.system))?;
                print_line("note", &format_args!("{}: removed", link.display()));
                removed = true;
            }
            Ok(_) => left.push(link),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(why(&link, &error, args.system)),
        }
    }
    match left.first() {
        Some(link) => Err(foreign(link)),
        None if removed => Ok(Status::Done),
        None => {
            let places: Vec<_> = places.iter().map(|folder| folder.display().to_string()).collect();
            print_line("note", &format_args!("it is not installed in {}", words::list(&places)));
            Ok(Status::Done)
        }
    }
}

fn why(link: &Path, error: &io::Error, system: bool) -> Error {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied if system => "; the folder of all users takes an administrator",
        _ => "",
    };
    Error::Arguments(format!("{}: {error}{advice}", link.display()))
}

fn foreign(link: &Path) -> Error {
    Error::Arguments(format!(
        "{}: it is no link to {PROGRAM}, so it is left as it is; move it away first",
        link.display()
    ))
}

/// Whether this is a link that `--install` made: it leads to a file of this program's name, which may be gone, or to
/// this program.
fn is_ours(link: &Path) -> bool {
    let Ok(target) = fs::read_link(link) else { return false };
    let is_this = || Some(link.canonicalize().ok()? == env::current_exe().ok()?.canonicalize().ok()?);
    target.file_name().is_some_and(|name| name == PROGRAM) || is_this() == Some(true)
}

/// Wireshark's extcap folders.
#[derive(Debug, Default)]
struct Folders {
    /// Whether tshark said what it knows.
    asked: bool,
    personal: Option<PathBuf>,
    system: Option<PathBuf>,
}

impl Folders {
    /// Those that the installed Wireshark uses: they differ by its version, and can be set.
    fn of_tshark() -> Self {
        let mut command = Command::new("tshark");
        command.args(["-G", "folders"]).stdin(Stdio::null()).stderr(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => Self::parse(&String::from_utf8_lossy(&output.stdout)),
            _ => Self::default(),
        }
    }

    fn parse(text: &str) -> Self {
        let folder = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            let path = lines.find(|(key, _)| key.trim() == name)?.1.trim();
            Path::new(path).is_absolute().then(|| PathBuf::from(path))
        };
        // Before 4.2, Wireshark does not name the personal folder. It is the one in that of the configuration.
        let older = || Some(folder("Personal configuration")?.join("extcap"));
        Self {
            asked: true,
            personal: folder("Personal Extcap path").or_else(older),
            system: folder("Global Extcap path").or_else(|| folder("Extcap path")),
        }
    }

    fn personal(&self) -> Result<PathBuf, Error> {
        let default = || Ok(home()?.join(".local/lib/wireshark/extcap"));
        self.personal.clone().map_or_else(default, Ok)
    }

    /// Where `--install` may have put a link, with this version of Wireshark or another one.
    fn all_personal(&self) -> Result<Vec<PathBuf>, Error> {
        let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let config = config.map_or_else(|| Ok(home()?.join(".config")), Ok::<_, Error>)?;
        let mut all =
            vec![self.personal()?, home()?.join(".local/lib/wireshark/extcap"), config.join("wireshark/extcap")];
        all.sort();
        all.dedup();
        Ok(all)
    }

    fn system(&self) -> Result<PathBuf, Error> {
        self.system.clone().ok_or_else(|| {
            Error::Arguments(
                "--system: tshark, which knows the extcap folder of all users, is not to be found".to_owned(),
            )
        })
    }
}

fn home() -> Result<PathBuf, Error> {
    let home = env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    home.ok_or_else(|| Error::Arguments("HOME is not set, so Wireshark's personal folder is not known".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_every_version_of_wireshark_are_known() {
        let old = "Personal configuration:\t/h/.config/wireshark\nExtcap path:         \t/usr/lib/wireshark/extcap\n";
        let folders = Folders::parse(old);
        assert_eq!(folders.personal().unwrap(), Path::new("/h/.config/wireshark/extcap"));
        assert_eq!(folders.system().unwrap(), Path::new("/usr/lib/wireshark/extcap"));
        let new = "Personal configuration:\t/h/.config/wireshark\nPersonal Extcap path:\t/h/.local/lib/wireshark/extcap\n\
                   Global Extcap path:\t/usr/libexec/wireshark/extcap\n";
        let folders = Folders::parse(new);
        assert_eq!(folders.personal().unwrap(), Path::new("/h/.local/lib/wireshark/extcap"));
        assert_eq!(folders.system().unwrap(), Path::new("/usr/libexec/wireshark/extcap"));
        assert!(Folders::default().system().is_err());
    }
}
