//! `tap2pcap open INPUT...` converts to a temporary capture, and shows it dissected in Wireshark or tshark.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::{
    Status,
    convert::convert,
    error::Error,
    hints::Hints,
    info::{open_command, quoted_word},
    output::Kind,
    redaction::ReportFile,
    settings::Settings,
};
use crate::{
    capture::{Access, CaptureFormat, Destination, OutputPacking},
    cli::OpenArgs,
    interrupt,
    report::{for_terminal, print_line},
};

/// The longest name of an input that the capture is named after. File systems have names of 255 bytes.
const MAX_STEM: usize = 200;

pub(super) fn run(args: &OpenArgs) -> Result<Status, Error> {
    interrupt::install()?;
    let mut settings = Settings::new(&args.conversion)?;
    settings.output.access = Access::Private;
    let report = ReportFile::create(settings.redaction.as_ref())?;
    // The directory is the owner's alone, and is removed with the capture in it, however this function returns.
    let folder =
        tempfile::Builder::new().prefix("tap2pcap-").permissions(std::fs::Permissions::from_mode(0o700)).tempdir()?;
    let capture = folder.path().join(capture_name(args.inputs.first().map_or(Path::new(""), |input| input)));
    let output = Destination::File(capture.clone());
    let (status, hints) =
        convert(&args.inputs, &output, settings, &args.conversion.pair, args.conversion.progress, |_| {
            Ok((Kind::Capture(CaptureFormat::Pcapng), OutputPacking::None))
        })?;
    if status == Status::NotDone {
        return Ok(status);
    }
    report.map_or(Ok(()), ReportFile::finish)?;
    // Ctrl-C ends a stream, and people want to see what came until then. SIGTERM ends the program.
    if interrupt::signal().is_some_and(|signal| i32::from(signal) == Signal::TERM.as_raw()) {
        return Ok(Status::Signal(Signal::TERM.as_raw().unsigned_abs() as u8));
    }
    let viewer = Viewer { program: if args.tshark { "tshark" } else { "wireshark" }, hints: &hints };
    let ended = viewer.show(&capture, &args.args)?;
    folder.close()?;
    Ok(match ended {
        Ended::Well => status,
        Ended::BySignal(signal) => Status::Signal(signal),
        Ended::Badly(how) => {
            print_line("error", &format_args!("{} has failed: {how}", viewer.program));
            Status::NotDone
        }
    })
}

/// The capture's name, which Wireshark has in its title: that of the first input.
fn capture_name(input: &Path) -> OsString {
    let stem = match input.file_stem() {
        _ if input == Path::new("-") => OsStr::new("stdin"),
        Some(stem) if stem.len() <= MAX_STEM => stem,
        _ => OsStr::new("capture"),
    };
    let mut name = stem.to_owned();
    name.push(".pcapng");
    name
}

/// How a viewer ended.
#[derive(Debug)]
enum Ended {
    Well,
    /// A signal reached this program, which passed it on.
    BySignal(u8),
    Badly(ExitStatus),
}

/// Wireshark or tshark.
struct Viewer<'a> {
    program: &'static str,
    hints: &'a Hints,
}

impl Viewer<'_> {
    /// Shows a capture, and waits until the program ends.
    fn show(&self, capture: &Path, args: &[OsString]) -> Result<Ended, Error> {
        let mut command = Command::new(self.program);
        // Wireshark reads a capture twice anyway.
        command.args((self.program == "tshark" && self.hints.reads_twice()).then_some("-2"));
        command.arg("-r").arg(capture).args(self.hints.arguments()).args(args);
        let signals = interrupt::pass_on()?;
        let child = command.spawn().map_err(|error| self.not_started(&error))?;
        let (status, signal) = wait(child, signals)?;
        Ok(match signal {
            Some(signal) => Ended::BySignal(signal),
            // The reader of tshark's output may stop when it has seen enough. tshark ends with status 2 then, as after any
            // other failure.
            _ if status.success() || interrupt::is_unread(io::stdout()) => Ended::Well,
            _ => Ended::Badly(status),
        })
    }

    fn not_started(&self, error: &io::Error) -> Error {
        let program = self.program;
        let why = match error.kind() {
            io::ErrorKind::NotFound => format!("is not in PATH; install it (Debian: apt-get install {program})"),
            _ => format!("cannot be started: {error}"),
        };
        let by_hand = by_hand(std::env::args_os().skip(1), program, self.hints);
        Error::Program(format!("{program}: {why}, or run: {}", for_terminal(&by_hand)))
    }
}

/// The commands that do the same as `open` with these arguments. They are taken as the user wrote them, so that no
/// option is forgotten.
fn by_hand(args: impl Iterator<Item = OsString>, program: &str, hints: &Hints) -> String {
    let mut args = args.filter(|arg| arg != "--tshark").skip_while(|arg| arg == "open");
    let mut convert = String::from("tap2pcap");
    for arg in args.by_ref().take_while(|arg| arg != "--") {
        convert.push(' ');
        convert += &quoted_word(&arg);
    }
    let mut show = open_command(Path::new("capture.pcapng"), hints);
    if program != "tshark" {
        show = format!("{program} -r capture.pcapng{}", hints.options());
    }
    for arg in args {
        show.push(' ');
        show += &quoted_word(&arg);
    }
    format!("{convert} capture.pcapng && {show}")
}

/// Waits for a program, and passes on each signal that comes in the meantime. Returns the last of them, too.
fn wait(mut child: Child, mut signals: UnixStream) -> io::Result<(ExitStatus, Option<u8>)> {
    let pid = Pid::from_child(&child);
    // Whether the program may still get signals. It must not once its number may belong to another process.
    let runs = Mutex::new(true);
    let lock = || -> MutexGuard<'_, bool> { runs.lock().unwrap_or_else(PoisonError::into_inner) };
    let end = signals.try_clone()?;
    thread::scope(|scope| {
        let passes_on = scope.spawn(|| {
            let (mut byte, mut last) = ([0], None);
            while signals.read(&mut byte).is_ok_and(|count| count > 0) {
                last = interrupt::signal();
                let signal = last.and_then(|signal| Signal::from_named_raw(i32::from(signal)));
                if let (Some(signal), true) = (signal, *lock()) {
                    // This fails if the program has ended.
                    let _ = kill_process(pid, signal);
                }
            }
            last
        });
        // The program stays a zombie, which keeps its number, until nothing more is sent to it.
        while matches!(
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT),
            Err(rustix::io::Errno::INTR)
        ) {}
        *lock() = false;
        // Ends the thread.
        let _ = end.shutdown(std::net::Shutdown::Both);
        let status = child.wait()?;
        Ok((status, passes_on.join().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_has_the_name_of_its_first_input() {
        for (input, name) in [
            ("a/path_0.pb", "path_0.pcapng"),
            ("-", "stdin.pcapng"),
            ("traces/", "traces.pcapng"),
            ("für mich.json", "für mich.pcapng"),
            ("..", "capture.pcapng"),
            (&"x".repeat(MAX_STEM + 1), "capture.pcapng"),
        ] {
            assert_eq!(capture_name(Path::new(input)), name, "{input}");
        }
    }

    #[test]
    fn the_commands_to_run_by_hand_have_every_argument() {
        let args = ["open", "--tshark", "--where", "a == 'b'", "x y.pb", "--", "-Y", "http && tcp"];
        let expected = "tap2pcap --where 'a == '\\''b'\\''' 'x y.pb' capture.pcapng && \
                        tshark -r capture.pcapng -d tcp.port==10000,http -Y 'http && tcp'";
        let hints = Hints::of_http2(&[10_000]);
        assert_eq!(by_hand(args.map(OsString::from).into_iter(), "tshark", &hints), expected);
    }
}
