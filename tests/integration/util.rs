//! A directory for each test, and commands that print everything when a result is not the expected one.

use std::{
    ffi::{OsStr, OsString},
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use tempfile::TempDir;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tap2pcap");

/// The package's own directory.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A directory that is removed at the end of the test.
pub struct Dir {
    dir: TempDir,
    next: AtomicUsize,
}

impl Dir {
    pub fn new(test: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{}-", test.replace("::", "-")))
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        Self { dir, next: AtomicUsize::new(0) }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file and returns its path.
    pub fn create(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A new directory inside, for files whose own names matter.
    pub fn fresh(&self) -> PathBuf {
        let path = self.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path).unwrap();
        path
    }

    /// Names of all files inside, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A run of the program, before it starts.
pub struct TestCommand {
    args: Vec<OsString>,
    stdin: Vec<u8>,
}

/// `tap2pcap`, without arguments.
pub fn tap2pcap() -> TestCommand {
    TestCommand { args: Vec::new(), stdin: Vec::new() }
}

/// `tap2pcap [OPTIONS] INPUT OUTPUT`.
pub fn convert(options: &[&str], input: &Path, output: &Path) -> TestCommand {
    tap2pcap().args(options).arg(input).arg(output)
}

impl TestCommand {
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(OsString::from));
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub fn run(self) -> Run {
        let mut command = Command::new(PROGRAM);
        command.args(&self.args);
        start(command, &self.stdin, "cargo builds it")
    }

    /// Runs with at most `mebibytes` of memory, of which [`CODE`] are for its code, so that an absurd allocation fails.
    pub fn run_within(self, mebibytes: u64) -> Run {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("ulimit -d {} && exec \"$0\" \"$@\"", (mebibytes - CODE) * 1024));
        command.arg(PROGRAM).args(&self.args);
        start(command, &self.stdin, "cargo builds it")
    }
}

/// How many mebibytes the code of the program takes at least. A debug build has more of it with each feature, so that it is
/// not measured.
const CODE: u64 = 36;

/// Gives a file the modification time of another one: a trace without any time begins then.
pub fn modified_like(path: &Path, like: &Path) {
    let modified = fs::metadata(like).unwrap().modified().unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

/// When a file was modified, in nanoseconds since the Unix epoch.
pub fn modified(path: &Path) -> u64 {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}

/// The result of a command.
pub struct Run {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stdout = match std::str::from_utf8(&self.stdout) {
            Ok(text) if text.len() < 4000 => text.to_owned(),
            _ => format!("{} bytes", self.stdout.len()),
        };
        writeln!(f, "\ncommand: {}\n{}\nstdout: {stdout}\nstderr: {}", self.command, self.status, self.stderr)
    }
}

impl Run {
    #[track_caller]
    pub fn expect_status(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "wrong exit status{self:?}");
        self.expect_no_panic()
    }

    #[track_caller]
    pub fn expect_no_panic(self) -> Self {
        assert!(
            self.status.code().is_some_and(|code| code <= 2) && !self.stderr.contains("panicked"),
            "the program died{self:?}"
        );
        self
    }

    /// Expects status 0 and no messages.
    #[track_caller]
    pub fn expect_clean(self) -> Self {
        let run = self.expect_status(0);
        // Two messages do not mean that something is wrong: the command for HTTP/2 on ports that Wireshark does not
        // know, and the summary of bodies that Envoy's limit cut.
        let known = ["note: to see it dissected: tshark -r ", "warning: Envoy's limit cut "];
        let quiet = run.stderr.lines().all(|line| known.iter().any(|known| line.starts_with(known)));
        assert!(quiet, "words on standard error{run:?}");
        run
    }

    #[track_caller]
    pub fn expect_stderr(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "standard error lacks '{part}'{self:?}");
        self
    }

    pub fn stdout_text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs any command, without standard input.
pub fn run_command(command: Command) -> Run {
    start(command, b"", "is it installed?")
}

/// Runs `command` with `stdin`, whether the command reads it or not. `missing` tells what to do if it does not exist.
fn start(mut command: Command, stdin: &[u8], missing: &str) -> Run {
    let text = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {text}: {error}; {missing}"));
    let mut pipe = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || match pipe.write_all(stdin) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => panic!("cannot feed the command: {error}"),
            _ => {}
        });
        child.wait_with_output().unwrap()
    });
    Run {
        command: text,
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A tool that judges captures. If it is missing, the test fails, because a skipped test shows nothing.
pub struct Tool {
    name: &'static str,
    package: &'static str,
}

pub const TSHARK: Tool = Tool { name: "tshark", package: "tshark" };
pub const CAPINFOS: Tool = Tool { name: "capinfos", package: "wireshark-common" };
pub const EDITCAP: Tool = Tool { name: "editcap", package: "wireshark-common" };
pub const MERGECAP: Tool = Tool { name: "mergecap", package: "wireshark-common" };
pub const TCPDUMP: Tool = Tool { name: "tcpdump", package: "tcpdump" };
pub const TCPFLOW: Tool = Tool { name: "tcpflow", package: "tcpflow" };
pub const TCPTRACE: Tool = Tool { name: "tcptrace", package: "tcptrace" };
pub const STRACE: Tool = Tool { name: "strace", package: "strace" };
pub const PROTOC: Tool = Tool { name: "protoc", package: "protobuf-compiler" };

impl Tool {
    /// Runs the tool and expects success.
    #[track_caller]
    pub fn run<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>, stdin: &[u8]) -> Run {
        let mut command = Command::new(self.name);
        command.args(args);
        let missing = format!("{} is needed: apt-get install {}", self.name, self.package);
        start(command, stdin, &missing).expect_status(0)
    }
}

/// Calls `work` for every item on all cores, and returns the results in the order of the items.
pub fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < items.len()) {
                        done.push((index, work(&items[index])));
                    }
                    done
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
