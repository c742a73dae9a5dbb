//! An output exists only whole: when the program is killed, the disk is full or the output cannot be written, there are
//! complete captures and older files, and nothing else.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    batch::{Running, conversation, paths, strangers, temporaries, tree, write_overlapping},
    fixture::{self, Dress, TIME, downstream, read},
    util::{Dir, PROGRAM, ROOT, Run, convert, tap2pcap},
    wait::wait_until,
};

/// A capture gets its name only when it is complete.
#[test]
fn an_output_file_appears_when_it_is_complete() {
    let dir = Dir::new("atomic");
    let output = dir.create("out.pcapng", "an older file");
    let mut child = Command::new(PROGRAM).arg("-").arg(&output).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let messages = fixture::streamed(1, downstream(), [read(TIME, &[7; 2000])]);
    stdin.write_all(&Dress::Delimited.file(&messages)).unwrap();
    // Once its temporary file exists, it is at work.
    wait_until("there is a temporary file", || dir.names().len() == 2);
    assert_eq!(fs::read(&output).unwrap(), b"an older file");
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(dir.names(), ["out.pcapng"]);
    assert!(fs::read(&output).unwrap().len() > 2000);
}

#[test]
fn killed_at_any_moment_every_capture_is_complete() {
    let dir = Dir::new("killed");
    let traces = dir.join("traces");
    write_overlapping(&traces, 100, 20);
    let reference = dir.fresh();
    convert(&["-j2"], &traces, &reference).run().expect_status(0);
    let reference = tree(&reference);
    let mut unfinished = 0;
    for begun in (0..100).step_by(10) {
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
        // The temporary files that are left neither hinder another run nor are taken for captures.
        let run = tap2pcap().arg("-j2").arg(&traces).arg(&out).arg(&out).run().expect_status(0);
        assert!(run.stderr.contains("note: 100 of 100 traces converted"), "{what}{run:?}");
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

/// The status of [`on_a_small_disk`]'s script where mounting a file system is not permitted.
const NOT_PERMITTED: i32 = 77;

/// Runs the program with a file system of 96 KiB at `disk`, which is soon full. Its files are copied to `after` in the
/// end.
fn on_a_small_disk(disk: &Path, after: &Path, args: &[&Path]) -> Option<Run> {
    const SCRIPT: &str = "disk=$1; after=$2; program=$3; shift 3
        mount -t tmpfs -o size=96k tmpfs \"$disk\" || exit 77
        echo older > \"$disk/tap_2.pb.pcapng\"; echo older > \"$disk/all.pcapng\"
        \"$program\" \"$@\"; status=$?
        cp -a \"$disk/.\" \"$after/\"
        exit $status";
    // Root needs a namespace of mounts, so that nobody else sees the disk. Anybody else needs one of users as well.
    let root = rustix::process::geteuid().is_root();
    let mut command = Command::new("unshare");
    command.args(if root { &["--mount"][..] } else { &["--mount", "--map-root-user"] });
    command.args(["sh", "-c", SCRIPT, "sh"]).arg(disk).arg(after).arg(PROGRAM).args(args);
    let run = Running::of(command).finish();
    if run.status.code() == Some(NOT_PERMITTED) || run.stderr.starts_with("unshare: ") {
        // The test of a limit on the size of files shows the same.
        println!("no file system of its own: {run:?}");
        return None;
    }
    Some(run)
}

#[test]
fn a_full_disk_leaves_complete_captures_alone() {
    let dir = Dir::new("full-disk");
    let traces = dir.join("traces");
    write_overlapping(&traces, 40, 60);
    let reference = dir.fresh();
    convert(&[], &traces, &reference).run().expect_status(0);
    let disk = dir.fresh();
    // One capture per trace: those that are complete stay.
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
    // One capture of all: none is written, and the older one is untouched.
    let after = dir.fresh();
    let all = disk.join("all.pcapng");
    let run = on_a_small_disk(&disk, &after, &[&traces, &all]).unwrap().expect_status(2);
    let run = run.expect_stderr(&format!("{}: cannot write the capture: No space left on device", all.display()));
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert_eq!(paths(&after), ["all.pcapng", "tap_2.pb.pcapng"].map(str::to_owned).into());
    assert_eq!(fs::read_to_string(after.join("all.pcapng")).unwrap(), "older\n");
}

/// The same as a full disk, where no file system may be mounted.
#[test]
fn a_limit_on_the_size_of_files_leaves_complete_captures_alone() {
    let dir = Dir::new("limited");
    let traces = dir.join("traces");
    write_overlapping(&traces, 40, 60);
    let out = dir.fresh();
    let all = out.join("all.pcapng");
    fs::write(&all, "older").unwrap();
    for output in [&all, &out] {
        // The limit is in blocks of 512 bytes. Without SIGXFSZ, a write beyond it fails with an error.
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
fn a_full_device_is_an_error() {
    let dir = Dir::new("dev-full");
    let traces = dir.join("traces");
    write_overlapping(&traces, 2, 2);
    let run = convert(&[], &traces, Path::new("/dev/full")).run().expect_status(2);
    run.expect_stderr("/dev/full: cannot write the capture: No space left on device");
    let http = Path::new(ROOT).join("testdata/http");
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
fn an_output_that_cannot_be_created_is_named() {
    let dir = Dir::new("no-place");
    let traces = dir.join("traces");
    write_overlapping(&traces, 2, 2);
    let file = dir.create("file", "a file");
    for output in
        [dir.join("missing/all.pcapng"), file.join("all.pcapng"), file.join("out/"), "/proc/all.pcapng".into()]
    {
        let run = convert(&[], &traces, &output).run().expect_status(2);
        let run = run.expect_stderr(&format!("error: {}", output.display()));
        // In a directory, there is a line for each capture, and one that counts them.
        let lines = if output.ends_with("out/") { 3 } else { 1 };
        assert_eq!(run.stderr.lines().count(), lines, "{run:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "a file");
}

#[test]
fn an_output_directory_that_is_removed_does_not_come_back() {
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
