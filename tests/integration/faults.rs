//! A program that is killed, and a disk that fills up: what exists is complete.

use std::{fs, path::Path, process::Command, thread, time::Duration, time::Instant};

use rustix::process::Signal;

use crate::{
    batch::{Running, paths, strangers, temporaries, tree, write_overlapping},
    tshark,
    util::{Dir, PROGRAM, Run, convert, tap2pcap},
};

/// xorshift, from a seed that a failure prints with the moment it led to.
struct Random(u64);

impl Random {
    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn killed_at_any_moment_every_capture_is_complete() {
    let dir = Dir::new("killed");
    let traces = dir.join("traces");
    write_overlapping(&traces, 300, 20);
    let reference = dir.fresh();
    let start = Instant::now();
    convert(&["-j2"], &traces, &reference).run().expect_status(0);
    let whole = start.elapsed();
    let reference = tree(&reference);
    let mut random = Random(4);
    let mut unfinished = 0;
    for kill in 0..10 {
        let out = dir.fresh();
        let moment = Duration::from_micros(random.below(whole.as_micros() as u64));
        let running = Running::start([Path::new("-j2"), &traces, &out]);
        thread::sleep(moment);
        running.signal(Signal::KILL);
        running.end();
        let what = format!("kill {kill} after {moment:?}");
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
    let out = dir.fresh();
    let all = out.join("all.pcapng");
    fs::write(&all, "older").unwrap();
    for millis in [20, 60, 100] {
        let running = Running::start([&traces, &all]);
        thread::sleep(Duration::from_millis(millis));
        running.signal(Signal::KILL);
        running.end();
        let left = fs::read(&all).unwrap();
        assert!(left == b"older" || tshark::read(&all).len() > 300 * 40, "half a capture");
        assert_eq!(strangers(&out), [""; 0]);
    }
    convert(&[], &traces, &all).run().expect_status(0);
    assert!(tshark::read(&all).len() > 300 * 40);
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
