//! `open` shows a dissected capture, and leaves nothing of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    util::{Dir, PROGRAM, ROOT, Run, run_command},
    wait::wait_until,
};

const HTTP2: &str = "testdata/tap/http2_str_PROTO_BINARY_4.pb";

/// A folder with a `tmp` of its own, and a `bin` that comes first in PATH.
struct Desk {
    dir: Dir,
}

impl Desk {
    fn new(test: &str) -> Self {
        let dir = Dir::new(test);
        ["tmp", "bin"].iter().for_each(|name| fs::create_dir(dir.join(name)).unwrap());
        Self { dir }
    }

    /// Puts a program of this name into the folder.
    fn program(self, name: &str, script: &str) -> Self {
        let path = self.dir.create(&format!("bin/{name}"), format!("#!/bin/bash\n{script}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(PROGRAM);
        let path = format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap());
        command.arg("open").args(args).current_dir(ROOT).env("PATH", path).env("TMPDIR", self.dir.join("tmp"));
        command
    }

    fn open(&self, args: &[&str]) -> Run {
        let run = run_command(self.command(args));
        assert_eq!(self.left(), 0, "{run:?}");
        run
    }

    /// What is in the temporary folder.
    fn left(&self) -> usize {
        fs::read_dir(self.dir.join("tmp")).unwrap().count()
    }

    fn heard(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap()
    }
}

/// A program that notes its arguments, one a line, and what it can see of the capture.
fn recorder(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "printf '%s\\n' \"$@\" >'{dir}/arguments'\nstat -c '%a' \"$2\" \"$(dirname \"$2\")\" >'{dir}/modes'\ncp -- \"$2\" '{dir}/seen'"
    )
}

#[test]
fn tshark_dissects_http2_on_a_port_that_it_does_not_know() {
    let desk = Desk::new("open-tshark");
    let run = desk.open(&[
        "--tshark",
        HTTP2,
        "--",
        "-Y",
        "http2.headers.method",
        "-T",
        "fields",
        "-e",
        "http2.headers.method",
    ]);
    assert!(run.stdout_text().lines().count() > 0 && run.stdout_text().contains("GET"), "{run:?}");
    run.expect_status(0);
    // Options of conversions work, standard input too, and without a match there is nothing to show.
    let none = desk.open(&["--tshark", "--where", "response.code == 599", HTTP2]).expect_status(0);
    assert_eq!(none.stdout_text(), "");
    let mut command = desk.command(&["--tshark", "--tcp", "bare", "--from", "binary", "-", "--", "-Y", "http2"]);
    command.stdin(fs::File::open(Path::new(ROOT).join(HTTP2)).unwrap()).stdout(Stdio::piped());
    let output = command.output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("HEADERS"), "{output:?}");
    assert_eq!(desk.left(), 0);
}

#[test]
fn wireshark_gets_the_capture_the_options_and_the_users_arguments() {
    let desk = Desk::new("open-wireshark");
    let script = recorder(desk.dir.path());
    let desk = desk.program("wireshark", &script);
    let input = desk.dir.join("für mich, 日本.v1.pb");
    fs::copy(Path::new(ROOT).join(HTTP2), &input).unwrap();
    desk.open(&[input.to_str().unwrap(), "--", "-Y", "http && tcp", ""]).expect_status(0);
    let arguments = desk.heard("arguments");
    let lines: Vec<_> = arguments.lines().collect();
    let ["-r", capture, rest @ ..] = lines.as_slice() else { panic!("{arguments}") };
    assert!(capture.starts_with(desk.dir.join("tmp").to_str().unwrap()), "{capture}");
    assert!(capture.ends_with("/für mich, 日本.v1.pcapng"), "{capture}");
    assert_eq!(rest, ["-d", "tcp.port==10000,http", "-Y", "http && tcp", ""]);
    assert_eq!(desk.heard("modes"), "600\n700\n");
    // It is the capture that a conversion makes.
    let converted = desk.dir.join("converted.pcapng");
    let mut command = Command::new(PROGRAM);
    command.arg(&input).arg(&converted);
    run_command(command).expect_status(0);
    assert!(fs::read(desk.dir.join("seen")).unwrap() == fs::read(converted).unwrap());
}

#[test]
fn statuses_tell_damaged_input_and_a_failed_viewer() {
    let desk = Desk::new("open-status").program("wireshark", "exit 3");
    desk.open(&[HTTP2]).expect_status(2).expect_stderr("wireshark has failed: exit status: 3");
    desk.open(&["--tshark", HTTP2, "--", "-Y", "no such filter"]).expect_status(2).expect_stderr("tshark has failed");
    let script = recorder(desk.dir.path());
    let desk = desk.program("wireshark", &script);
    // Nothing is started if nothing can be read.
    for input in ["LICENSE", "/dev/null", "no such file"] {
        desk.open(&[input]).expect_status(2);
    }
    assert!(!desk.dir.join("arguments").exists());
    let whole = fs::read(Path::new(ROOT).join(HTTP2)).unwrap();
    let cut = desk.dir.create("cut.pb", &whole[..whole.len() - 3]);
    desk.open(&[cut.to_str().unwrap()]).expect_status(1);
    assert!(desk.dir.join("arguments").exists());
    // The reader of tshark's output may stop early.
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", r#""$0" open --tshark testdata/tap -- -V | head -n 1"#, PROGRAM]);
    command.current_dir(ROOT).env("TMPDIR", desk.dir.join("tmp"));
    run_command(command).expect_status(0);
    assert_eq!(desk.left(), 0);
}

#[test]
fn a_viewer_that_is_missing_is_named_with_the_commands_to_run_by_hand() {
    let desk = Desk::new("open-missing");
    for (option, program) in [(None, "wireshark"), (Some("--tshark"), "tshark")] {
        let args: Vec<_> = option.into_iter().chain(["--where", "true", HTTP2, "--", "-Y", "http2 && tcp"]).collect();
        let mut command = desk.command(&args);
        let run = run_command({
            command.env("PATH", desk.dir.join("bin"));
            command
        });
        let by_hand = format!(
            "{program}: is not in PATH; install it (Debian: apt-get install {program}), or run: tap2pcap --where true \
             {HTTP2} capture.pcapng && {program} -r capture.pcapng -d tcp.port==10000,http -Y 'http2 && tcp'"
        );
        run.expect_status(2).expect_stderr(&by_hand);
        assert_eq!(desk.left(), 0);
    }
}

#[test]
fn signals_reach_the_viewer_and_the_capture_is_removed_after_its_end() {
    for (signal, name, status) in [(Signal::INT, "INT", 130), (Signal::TERM, "TERM", 143)] {
        let desk = Desk::new("open-signals");
        let dir = desk.dir.path().display().to_string();
        // It takes the first signal as a request, and looks for its file before it ends with the second one. Signals that
        // are blocked are not lost, whenever they come: a trap of bash's would miss one just before it reads.
        let script = format!(
            "exec python3 - \"$2\" <<'END'\n\
             import os, signal, sys\n\
             signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIG{name}])\n\
             open('{dir}/ready', 'w').close()\n\
             for count in (1, 2):\n    \
                 signal.sigwait([signal.SIG{name}])\n    \
                 with open('{dir}/seen', 'w') as seen:\n        \
                     print(*filter(os.path.exists, sys.argv[1:]), file=seen)\n    \
                 os.rename('{dir}/seen', f'{dir}/signal{{count}}')\n\
             END"
        );
        let desk = desk.program("wireshark", &script);
        let mut child = desk.command(&[HTTP2]).stderr(Stdio::null()).spawn().unwrap();
        wait_until("Wireshark runs", || desk.dir.join("ready").exists());
        for count in 1..=2 {
            kill_process(Pid::from_child(&child), signal).unwrap();
            wait_until("the signal arrives", || desk.dir.join(format!("signal{count}")).exists());
        }
        assert_eq!(child.wait().unwrap().code(), Some(status));
        assert!(desk.heard("signal2").ends_with("http2_str_PROTO_BINARY_4.pcapng\n"));
        assert_eq!(desk.left(), 0);
    }
}

#[test]
fn a_stream_that_ctrl_c_ends_is_shown_and_sigterm_ends_all() {
    for (signal, status, is_shown) in [(Signal::INT, 0, true), (Signal::TERM, 143, false)] {
        let desk = Desk::new("open-stream");
        let script = recorder(desk.dir.path());
        let desk = desk.program("wireshark", &script);
        let mut command = desk.command(&["-"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, &fs::read(Path::new(ROOT).join(HTTP2)).unwrap()).unwrap();
        wait_until("it is at work", || desk.left() > 0);
        crate::wait::wait_until_idle(child.id());
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status));
        assert_eq!((desk.dir.join("arguments").exists(), desk.left()), (is_shown, 0));
    }
}
