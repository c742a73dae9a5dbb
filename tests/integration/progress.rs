//! What a user sees during a long conversion.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::Command,
    time::Instant,
};

use crate::{
    batch::{Running, contains, conversation, fifo, small_batch, write_overlapping},
    fixture::{Dress, TIME},
    packed::gzip,
    util::{Dir, PROGRAM, Run, convert, tap2pcap},
    wait::wait_until,
};

/// Runs the program on a terminal of its own. What the terminal shows is on standard output.
fn on_a_terminal(variables: &[(&str, &str)], args: &[&Path]) -> Run {
    terminal(variables, args).finish()
}

fn terminal(variables: &[(&str, &str)], args: &[&Path]) -> Running {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let words =
        std::iter::once(Path::new(PROGRAM)).chain(args.iter().copied()).map(|word| quoted(word.to_str().unwrap()));
    // script and pty.spawn pass their own standard input on, and nothing is sent to it.
    let line = words.collect::<Vec<_>>().join(" ");
    let has_script = Command::new("script").arg("--version").output().is_ok();
    let mut command = Command::new(if has_script { "script" } else { "python3" });
    if has_script {
        command.args(["-qec", &line, "/dev/null"]);
    } else {
        let program = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(['sh', '-c', sys.argv[1]])))";
        command.args(["-c", program, &line]);
    }
    command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("CLICOLOR").env_remove("CLICOLOR_FORCE");
    for (name, value) in variables {
        command.env(name, value);
    }
    Running::of(command)
}

/// Colours and bold print.
fn is_coloured(run: &Run) -> bool {
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    text.split("\x1b[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

#[test]
fn a_terminal_shows_a_bar() {
    let dir = Dir::new("bar");
    let traces = dir.join("traces");
    write_overlapping(&traces, 300, 20);
    let size: u64 = fs::read_dir(&traces).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    for output in [dir.fresh(), dir.join("all.pcapng")] {
        let run = on_a_terminal(&[], &[&traces, &output]).expect_status(0);
        let shown = String::from_utf8_lossy(&run.stdout).into_owned();
        // The bar shows the files and bytes that are done, their totals, the rate and the time left.
        assert!(shown.contains("/300 files") && shown.contains("/s ") && shown.contains(" left, "), "{run:?}");
        assert!(shown.contains(&format!("/{}", indicatif::HumanBytes(size))), "{run:?}");
        assert!(shown.contains("\x1b["), "{run:?}");
        // The bar is gone in the end, and the last line stays.
        assert!(shown.trim_end().ends_with("note: 300 of 300 traces converted"), "{run:?}");
        let never = on_a_terminal(&[], &[Path::new("--progress"), Path::new("never"), &traces, &output]);
        assert_eq!(String::from_utf8_lossy(&never.stdout).trim_end(), "note: 300 of 300 traces converted", "{never:?}");
        let quiet = on_a_terminal(&[], &[Path::new("-q"), &traces, &output]).expect_status(0);
        assert_eq!(quiet.stdout, b"", "{quiet:?}");
    }
}

/// The size of a stream is unknown, so the bar shows how much is done, and how fast.
#[test]
fn a_terminal_shows_a_stream() {
    let dir = Dir::new("stream-bar");
    let slow = dir.join("slow.pb");
    fifo(&slow);
    let mut running = terminal(&[], &[&slow, &dir.join("out.pcapng")]);
    let mut writer = OpenOptions::new().write(true).open(&slow).unwrap();
    let bytes = Dress::Binary.file(&conversation(1, 2000, TIME, TIME + 1_000_000));
    // The bar is drawn again when something is read.
    let mut pieces = bytes.chunks(8);
    wait_until("the bar shows bytes and their rate", || {
        writer.write_all(pieces.next().unwrap()).unwrap();
        let shown = String::from_utf8_lossy(running.stdout());
        shown.split('\r').any(|line| line.contains("B/s, 0/1 files") && !line.contains(" 0 B "))
    });
    writer.write_all(&pieces.collect::<Vec<_>>().concat()).unwrap();
    drop(writer);
    running.finish().expect_status(0);
}

/// Messages are visible beside the bar, and do not break it.
#[test]
fn messages_stand_above_the_bar() {
    let dir = Dir::new("words");
    let traces = small_batch(&dir, 10);
    fs::write(traces.join("bad.pb"), "what is this?").unwrap();
    let run = on_a_terminal(&[], &[&traces, &dir.fresh()]).expect_status(1);
    let shown = String::from_utf8_lossy(&run.stdout).into_owned();
    let lines: Vec<_> = shown.split(['\n', '\r']).collect();
    assert!(lines.iter().any(|line| line.contains("bad.pb: byte 0") && !line.contains(" files")), "{run:?}");
}

#[test]
fn without_a_terminal_there_are_lines_or_nothing() {
    let dir = Dir::new("lines");
    let traces = small_batch(&dir, 50);
    fs::write(traces.join("bad.pb"), "what is this?").unwrap();
    let size: u64 = fs::read_dir(&traces).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    for output in [dir.fresh(), dir.join("all.pcapng")] {
        for options in [&[][..], &["--progress", "auto"], &["--progress", "never"]] {
            let run = convert(options, &traces, &output).run().expect_status(1);
            assert_eq!(run.stderr.lines().count(), 2, "{run:?}");
        }
        let run = convert(&["--progress", "always"], &traces, &output).run().expect_status(1);
        assert!(!run.stderr.contains('\x1b') && !run.stderr.contains('\r'), "{run:?}");
        let progress: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("progress: ")).collect();
        // In the end everything is done, including files that gave nothing. The size of the bad one may be left out.
        let done = [size, size - 13].map(|size| format!("progress: 51/51 files, {}", indicatif::HumanBytes(size)));
        assert!(done.iter().any(|done| progress.last() == Some(&done.as_str())), "{done:?}{run:?}");
        assert_eq!(run.stderr.lines().last(), Some("note: 50 of 51 traces converted"), "{run:?}");
    }
    convert(&["--progress", "perhaps"], &traces, &dir.fresh()).run().expect_status(2);
}

/// At most one line per second, and one at the end.
#[test]
fn a_line_comes_about_every_second() {
    let dir = Dir::new("slow-lines");
    let slow = dir.join("slow.pb");
    fifo(&slow);
    let start = Instant::now();
    let mut running = Running::start([Path::new("--progress"), Path::new("always"), &slow, &dir.join("out.pcapng")]);
    let mut writer = OpenOptions::new().write(true).open(&slow).unwrap();
    let bytes = Dress::Binary.file(&conversation(1, 2000, TIME, TIME + 1_000_000));
    // A line comes with a read, so there has to be something to read when a second is over.
    let mut pieces = bytes.chunks(8);
    wait_until("there is a line", || {
        writer.write_all(pieces.next().unwrap()).unwrap();
        contains(running.stderr(), b"progress: 0/1 files, ")
    });
    writer.write_all(&pieces.collect::<Vec<_>>().concat()).unwrap();
    drop(writer);
    let run = running.finish().expect_status(0);
    let lines: Vec<_> = run.stderr.lines().collect();
    assert!(lines.len() >= 2 && lines.len() as u64 <= start.elapsed().as_secs() + 1, "{run:?}");
    assert!(lines[0].starts_with("progress: 0/1 files, "), "{run:?}");
    assert_eq!(*lines.last().unwrap(), format!("progress: 1/1 files, {}", indicatif::HumanBytes(bytes.len() as u64)));
}

/// The bytes of a packed file are counted as they are on the disk, because the total is measured there.
#[test]
fn packed_files_are_done_when_their_end_is_reached() {
    let dir = Dir::new("packed-progress");
    let bytes = Dress::Binary.file(&conversation(1, 2000, TIME, TIME + 1_000_000));
    let packed = gzip(&bytes);
    assert!(packed.len() * 4 < bytes.len());
    let trace = dir.create("trace.pb.gz", &packed);
    for output in [dir.fresh(), dir.join("all.pcapng")] {
        let run = convert(&["--progress", "always"], &trace, &output).run().expect_status(0);
        let expected = format!("progress: 1/1 files, {}\n", indicatif::HumanBytes(packed.len() as u64));
        assert_eq!(run.stderr, expected);
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let dir = Dir::new("colours");
    let traces = small_batch(&dir, 10);
    // clap's own messages are the coloured ones.
    let wrong = [Path::new("--nonsense"), &traces];
    assert!(is_coloured(&on_a_terminal(&[], &wrong)), "otherwise this test shows nothing");
    assert!(!is_coloured(&on_a_terminal(&[("NO_COLOR", "1")], &wrong)));
    let run = on_a_terminal(&[("NO_COLOR", "1")], &[&traces, &dir.fresh()]).expect_status(0);
    assert!(!is_coloured(&run), "{run:?}");
    let run = tap2pcap().arg("--nonsense").arg(&traces).run().expect_status(2);
    assert!(!run.stderr.contains('\x1b'), "{run:?}");
}
