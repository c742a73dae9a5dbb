//! What the machine can do to a run: kill it, fill its disk, take its files away, forbid them, change them under it.
//! What exists afterwards is complete.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    batch::{Running, conversation, last_line, paths, small_batch, strangers, temporaries, tree, write_overlapping},
    fixture::{Dress, TIME, closed, downstream, read, streamed},
    tshark,
    util::{Dir, PROGRAM, Run, convert, run_command, tap2pcap},
    wait::{unread, wait_until},
};

#[test]
fn killed_at_any_moment_every_capture_is_complete() {
    let dir = Dir::new("killed");
    let traces = dir.join("traces");
    write_overlapping(&traces, 300, 20);
    let reference = dir.fresh();
    convert(&["-j2"], &traces, &reference).run().expect_status(0);
    let reference = tree(&reference);
    let mut unfinished = 0;
    for begun in (0..300).step_by(30) {
        let out = dir.fresh();
        let running = Running::start([Path::new("-j2"), &traces, &out]);
        wait_until("captures have begun", || paths(&out).len() >= begun);
        running.signal(Signal::KILL);
        running.end();
        let what = format!("killed when {begun} captures had begun");
        assert_eq!(strangers(&out), [""; 0], "{what}");
        let left = tree(&out);
        for (name, bytes) in left.iter().filter(|(name, _)| !name.starts_with(".tap2pcap-")) {
            assert!(reference[name] == *bytes, "{what}: {name} is not complete");
        }
        unfinished += usize::from(left.len() < reference.len());
        // What is left neither hinders another run nor is taken for anything.
        let run = tap2pcap().arg("-j2").arg(&traces).arg(&out).arg(&out).run().expect_status(0);
        assert!(run.stderr.contains("note: 300 of 300 traces converted"), "{what}{run:?}");
        let finished = tree(&out).into_iter().filter(|(name, _)| !name.starts_with(".tap2pcap-")).collect();
        assert!(reference == finished, "{what}: the second run does not finish the work");
    }
    assert!(unfinished >= 5, "only {unfinished} of 10 were killed at work");
}

#[test]
fn killed_while_merging_the_older_capture_stays() {
    let dir = Dir::new("killed-merge");
    let traces = dir.join("traces");
    write_overlapping(&traces, 300, 20);
    let whole = dir.join("whole.pcapng");
    convert(&[], &traces, &whole).run().expect_status(0);
    let whole = fs::read(&whole).unwrap();
    let mut unfinished = 0;
    for percent in [0, 30, 60] {
        let out = dir.fresh();
        let all = out.join("all.pcapng");
        fs::write(&all, "older").unwrap();
        let running = Running::start([&traces, &all]);
        wait_until("a part is written", || {
            let written = |name: &String| fs::metadata(out.join(name)).map_or(0, |metadata| metadata.len() as usize);
            let unfinished = temporaries(&out);
            unfinished.iter().any(|name| written(name) * 100 >= whole.len() * percent)
                || (unfinished.is_empty() && written(&"all.pcapng".to_owned()) == whole.len())
        });
        running.signal(Signal::KILL);
        running.end();
        let left = fs::read(&all).unwrap();
        assert!(left == b"older" || left == whole, "half a capture: {} of {} bytes", left.len(), whole.len());
        assert_eq!(strangers(&out), [""; 0]);
        unfinished += usize::from(left == b"older");
        convert(&[], &traces, &all).run().expect_status(0);
        assert!(fs::read(&all).unwrap() == whole, "the second run does not finish the work");
    }
    assert!(unfinished > 0, "none was killed at work");
}

/// Where a new file system is not permitted, this is the status.
const NOT_PERMITTED: i32 = 77;

/// Runs the program with `$disk` full soon: 96 KiB in all, of which an older file takes some. What is on it in the end
/// is copied to `after`.
fn on_a_small_disk(disk: &Path, after: &Path, args: &[&Path]) -> Option<Run> {
    const SCRIPT: &str = "disk=$1; after=$2; program=$3; shift 3
        mount -t tmpfs -o size=96k tmpfs \"$disk\" || exit 77
        echo older > \"$disk/tap_2.pb.pcapng\"; echo older > \"$disk/all.pcapng\"
        \"$program\" \"$@\"; status=$?
        cp -a \"$disk/.\" \"$after/\"
        exit $status";
    // As root, a mount that nobody else sees; as anybody else, one's own namespace of users as well.
    let root = rustix::process::geteuid().is_root();
    let mut command = Command::new("unshare");
    command.args(if root { &["--mount"][..] } else { &["--mount", "--map-root-user"] });
    command.args(["sh", "-c", SCRIPT, "sh"]).arg(disk).arg(after).arg(PROGRAM).args(args);
    let run = Running::of(command).finish();
    if run.status.code() == Some(NOT_PERMITTED) || run.stderr.starts_with("unshare: ") {
        // The test of a file that may not grow shows the same.
        println!("no file system of its own: {run:?}");
        return None;
    }
    Some(run)
}

#[test]
fn a_disk_that_fills_up() {
    let dir = Dir::new("full-disk");
    let traces = dir.join("traces");
    write_overlapping(&traces, 40, 60);
    let reference = dir.fresh();
    convert(&[], &traces, &reference).run().expect_status(0);
    let disk = dir.fresh();
    // One capture per trace: those that were complete stay.
    for jobs in ["-j1", "-j4"] {
        let after = dir.fresh();
        let Some(run) = on_a_small_disk(&disk, &after, &[Path::new(jobs), &traces, &disk]) else { return };
        let run =
            run.expect_status(2).expect_stderr("cannot write the capture").expect_stderr("No space left on device");
        let named = run.stderr.lines().any(|line| line.contains(&format!("{}/tap_", disk.display())));
        assert!(named, "the file is not named{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        assert_eq!(temporaries(&after), [""; 0], "{run:?}");
        let mut left = tree(&after);
        assert_eq!(left.remove("all.pcapng").as_deref(), Some(&b"older\n"[..]));
        assert!(left.len() > 1, "{:?}", left.keys());
        let complete = tree(&reference);
        for (name, bytes) in left {
            assert!(bytes == b"older\n" || bytes == complete[&name], "{name} is half-written");
        }
    }
    // One capture of all: there is none, and the older one is untouched.
    let after = dir.fresh();
    let all = disk.join("all.pcapng");
    let run = on_a_small_disk(&disk, &after, &[&traces, &all]).unwrap().expect_status(2);
    let run = run.expect_stderr(&format!("{}: cannot write the capture: No space left on device", all.display()));
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert_eq!(paths(&after), ["all.pcapng", "tap_2.pb.pcapng"].map(str::to_owned).into());
    assert_eq!(fs::read_to_string(after.join("all.pcapng")).unwrap(), "older\n");
}

/// The same without a file system of one's own: a limit on the size of files.
#[test]
fn a_file_that_may_not_grow() {
    let dir = Dir::new("limited");
    let traces = dir.join("traces");
    write_overlapping(&traces, 40, 60);
    let out = dir.fresh();
    let all = out.join("all.pcapng");
    fs::write(&all, "older").unwrap();
    for output in [&all, &out] {
        // In blocks of 512 bytes; ignoring SIGXFSZ makes an error of it.
        let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, PROGRAM]).arg(&traces).arg(output);
        let run = Running::of(command).finish().expect_status(2).expect_stderr("cannot write the capture");
        assert!(run.stderr.contains(out.to_str().unwrap()), "the file is not named{run:?}");
        assert_eq!(paths(&out), ["all.pcapng".to_owned()].into(), "{run:?}");
        assert_eq!(fs::read_to_string(&all).unwrap(), "older");
    }
}

#[test]
fn a_device_that_is_full() {
    let dir = Dir::new("dev-full");
    let traces = dir.join("traces");
    write_overlapping(&traces, 2, 2);
    let run = convert(&[], &traces, Path::new("/dev/full")).run().expect_status(2);
    run.expect_stderr("/dev/full: cannot write the capture: No space left on device");
    let http = Path::new(crate::util::ROOT).join("testdata/http");
    let run = convert(&["--format", "har"], &http, Path::new("/dev/full")).run().expect_status(2);
    run.expect_stderr("/dev/full: cannot write the capture: No space left on device");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$1\" - > /dev/full", PROGRAM]).arg(&traces);
    let run = Running::of(command).finish().expect_status(2);
    run.expect_stderr("-: cannot write the capture: No space left on device");
    for subcommand in ["info", "validate"] {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$1\" --json \"$2\" > /dev/full", PROGRAM, subcommand]);
        fs::write(traces.join("bad.pb"), "what is this?").unwrap();
        command.arg(&traces);
        Running::of(command).finish().expect_status(2).expect_stderr("No space left on device");
    }
}

#[test]
fn a_place_where_nothing_can_be_written() {
    let dir = Dir::new("no-place");
    let traces = dir.join("traces");
    write_overlapping(&traces, 2, 2);
    let file = dir.create("file", "a file");
    for output in
        [dir.join("missing/all.pcapng"), file.join("all.pcapng"), file.join("out/"), "/proc/all.pcapng".into()]
    {
        let run = convert(&[], &traces, &output).run().expect_status(2);
        let run = run.expect_stderr(&format!("error: {}", output.display()));
        // In a directory, each capture on its own; then how many there are.
        let lines = if output.ends_with("out/") { 3 } else { 1 };
        assert_eq!(run.stderr.lines().count(), lines, "{run:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "a file");
}

/// A socket whose other end breaks off: reading fails, in the middle of a message, whoever reads.
#[test]
fn reading_fails_in_the_middle() {
    let dir = Dir::new("read-fails");
    let bytes = Dress::Delimited.file(&conversation(1, 200, TIME, TIME + 1_000_000));
    for (name, subcommand) in [("out.pcapng", None), ("-", None), ("", Some("info")), ("", Some("validate"))] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(subcommand).arg("-");
        let output = dir.join(name);
        match name {
            "" => {}
            "-" => drop(command.arg("-")),
            _ => drop(command.arg(&output)),
        }
        let socket_end = socket.try_clone().unwrap();
        command.stdin(OwnedFd::from(socket)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        peer.write_all(&bytes[..bytes.len() / 2]).unwrap();
        // What it has not taken yet would be lost with the connection.
        wait_until("it has read all there is", || unread(&socket_end) == 0);
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        let output_of = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output_of.stderr).into_owned();
        let said = stderr.clone() + &String::from_utf8_lossy(&output_of.stdout);
        assert_eq!(output_of.status.code(), Some(1), "{name} {subcommand:?}: {said}");
        assert!(said.contains("cannot read on: Connection reset by peer"), "{name} {subcommand:?}: {said}");
        let capture = match name {
            "" => continue,
            "-" => dir.create("copy.pcapng", output_of.stdout),
            _ => output,
        };
        let payload: usize = tshark::read(&capture).iter().map(|frame| frame.payload.len()).sum();
        assert!(payload > 4000, "{name}: only {payload} bytes are there");
    }
}

/// Begins to convert a file of 8 MiB, has it changed before the end is read, and reads the capture from a pipe.
fn convert_while(dir: &Dir, change: impl FnOnce(&Path)) -> (Run, usize) {
    let events = (0..512).map(|index| read(TIME + index, &[b'x'; 16 << 10]));
    let input = dir.create("trace.pb_length_delimited", Dress::Delimited.file(&streamed(1, downstream(), events)));
    let mut command = Command::new(PROGRAM);
    command.arg(&input).arg("-").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut capture = vec![0; 1];
    // The pipe and the buffers before it take less than 2 MiB, so it waits for the reader now.
    stdout.read_exact(&mut capture).unwrap();
    change(&input);
    stdout.read_to_end(&mut capture).unwrap();
    let output = child.wait_with_output().unwrap();
    let payload = tshark::read(&dir.create("capture.pcapng", &capture)).iter().map(|frame| frame.payload.len()).sum();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (Run { command: format!("{command:?}"), status: output.status, stdout: Vec::new(), stderr }, payload)
}

#[test]
fn a_file_that_shrinks_while_it_is_read() {
    let dir = Dir::new("shrinks");
    for (size, at_least) in [(5 << 20, (5 << 20) - (32 << 10)), (100, 16 << 10)] {
        let shrink = |input: &Path| OpenOptions::new().write(true).open(input).unwrap().set_len(size).unwrap();
        let (run, payload) = convert_while(&dir, shrink);
        run.expect_status(1).expect_stderr("trace.pb_length_delimited: byte ").expect_stderr("cut off");
        assert!(payload >= at_least && payload < 8 << 20, "{size}: {payload} bytes are there");
    }
}

#[test]
fn a_file_that_grows_while_it_is_read() {
    let dir = Dir::new("grows");
    let more = streamed(1, downstream(), [read(TIME + 512, b"and more"), closed(TIME + 513)]);
    // Without the connection, which is known.
    let more = Dress::Delimited.file(&more[1..]);
    let (run, payload) =
        convert_while(&dir, |input| File::options().append(true).open(input).unwrap().write_all(&more).unwrap());
    run.expect_clean();
    assert_eq!(payload, 512 * (16 << 10) + 8);
}

#[test]
fn an_output_directory_that_is_removed_meanwhile() {
    let dir = Dir::new("removed");
    let trace = Dress::Delimited.file(&conversation(1, 2, TIME, TIME + 1000));
    for is_directory in [false, true] {
        let out = dir.fresh();
        let output = if is_directory { out.clone() } else { out.join("all.pcapng") };
        let mut running = Running::start([Path::new("-"), &output]);
        running.send(&trace);
        wait_until("it has begun", || !temporaries(&out).is_empty());
        fs::remove_dir_all(&out).unwrap();
        let run = running.finish().expect_status(2).expect_stderr("cannot write the capture: No such file");
        assert!(run.stderr.contains(&format!("error: {}", out.display())), "{run:?}");
        assert!(!out.exists(), "nothing comes back");
    }
}

/// The program as somebody to whom file modes apply, which to root they do not.
fn without_privileges(args: &[&Path]) -> Run {
    let mut command;
    if rustix::process::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override,-dac_read_search", "--", PROGRAM]);
    } else {
        command = Command::new(PROGRAM);
    }
    command.args(args);
    run_command(command)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn permission_denied() {
    let dir = Dir::new("denied");
    let traces = small_batch(&dir, 3);
    let secret = traces.join("tap_1.pb");
    let locked = traces.join("locked");
    fs::create_dir(&locked).unwrap();
    fs::copy(traces.join("tap_0.pb"), locked.join("tap_9.pb")).unwrap();
    set_mode(&secret, 0);
    set_mode(&locked, 0);
    // An input alone.
    let output = dir.join("out.pcapng");
    let run = without_privileges(&[&secret, &output]).expect_status(2);
    run.expect_stderr(&format!("error: {}: cannot read: Permission denied", secret.display()));
    assert!(!output.exists());
    // A file and a directory among others, which are converted.
    for output in [dir.join("all.pcapng"), dir.fresh()] {
        let run = without_privileges(&[&traces, &output]).expect_status(1);
        assert_eq!(last_line(&run), "note: 2 of 3 traces converted", "{run:?}");
        for path in [&secret, &locked] {
            assert!(
                run.stderr.contains(&format!("error: {}: cannot read: Permission denied", path.display())),
                "{run:?}"
            );
        }
    }
    let run = without_privileges(&[Path::new("validate"), Path::new("--json"), &traces]).expect_status(1);
    let found: Vec<Value> = run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let unreadable: Vec<_> =
        found.iter().filter(|line| line["code"] == "unreadable").map(|line| &line["path"]).collect();
    assert_eq!(unreadable, [locked.to_str().unwrap(), secret.to_str().unwrap()]);
    without_privileges(&[Path::new("info"), &traces]).expect_status(1).expect_stderr("Permission denied");
    // A directory where nothing may be created, and a device or pipe that may not be written.
    let closed = dir.fresh();
    let pipe = dir.join("pipe");
    crate::batch::fifo(&pipe);
    set_mode(&closed, 0o555);
    set_mode(&pipe, 0o444);
    for output in [&closed.join("out.pcapng"), &closed.join("more/out.pcapng"), &pipe] {
        let run = without_privileges(&[&traces.join("tap_0.pb"), output]).expect_status(2);
        let run = run.expect_stderr(&format!("error: {}: cannot write the capture: ", output.display()));
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
    let run = without_privileges(&[&traces.join("tap_0.pb"), &closed]).expect_status(2);
    run.expect_stderr("tap_0.pb.pcapng: cannot write the capture: Permission denied");
    assert!(paths(&closed).is_empty());
    set_mode(&locked, 0o755);
    // Modes do apply: else none of this shows anything.
    set_mode(&secret, 0o400);
    without_privileges(&[&secret, &output]).expect_status(0);
}
