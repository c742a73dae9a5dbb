//! SIGINT and SIGTERM.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    batch::{Running, conversation, fifo, paths, small_batch, streams, temporaries},
    fixture::{Dress, TIME},
    tshark,
    util::{CAPINFOS, Dir, PROGRAM, TCPDUMP, TSHARK, tap2pcap},
    wait::{handles_signals, wait_until, wait_until_idle},
};

const SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

fn trace() -> Vec<u8> {
    Dress::Delimited.file(&conversation(1, 2, TIME, TIME + 1000))
}

/// The capture is completed, as tcpdump completes its own.
#[test]
fn a_stream_that_is_interrupted_is_complete() {
    let dir = Dir::new("interrupted-stream");
    for (signal, _) in SIGNALS {
        // The signal comes in the middle of a message to standard output.
        let mut running = Running::start(["-", "-"]);
        let bytes = trace();
        running.send(&bytes[..bytes.len() - 3]);
        running.wait_for(b"answer 1 for connection 1");
        running.signal(signal);
        let run = running.end().expect_clean();
        let capture = dir.create("stdout.pcapng", &run.stdout);
        let frames = tshark::read(&capture);
        assert_eq!(frames.iter().filter(|frame| frame.tcp_len > 0).count(), 4, "{run:?}");
        // The output is a file, which appears only after the signal.
        let output = dir.fresh().join("live.pcapng");
        let mut running = Running::start(["-", output.to_str().unwrap()]);
        running.send(&bytes[..bytes.len() - 3]);
        wait_until("it is at work", || !temporaries(output.parent().unwrap()).is_empty());
        running.wait_until_read();
        wait_until_idle(running.id());
        assert!(!output.exists());
        running.signal(signal);
        running.end().expect_clean();
        assert_eq!(tshark::read(&output), frames);
        assert_eq!(paths(output.parent().unwrap()).len(), 1);
        // The output is a directory.
        let out = dir.fresh();
        let mut running = Running::start(["-", out.to_str().unwrap()]);
        running.send(&bytes[..bytes.len() - 3]);
        wait_until("it is at work", || !temporaries(&out).is_empty());
        running.wait_until_read();
        wait_until_idle(running.id());
        running.signal(signal);
        running.end().expect_clean();
        assert_eq!(paths(&out), ["stdin.pcapng".to_owned()].into());
        assert_eq!(tshark::read(&out.join("stdin.pcapng")), frames);
    }
}

/// Waits until the program has taken over the signals and waits for something else.
#[track_caller]
fn wait_until_ready(process: u32) {
    wait_until("the program handles signals", || handles_signals(process));
    wait_until_idle(process);
}

#[test]
fn a_stream_that_is_interrupted_before_it_begins_is_an_empty_capture() {
    let dir = Dir::new("interrupted-early");
    for (signal, _) in SIGNALS {
        for name in ["empty.pcapng", "empty.pcap", "out/"] {
            let root = dir.fresh();
            let output = root.join(name);
            let running = Running::start([Path::new("-"), &output]);
            wait_until_ready(running.id());
            running.signal(signal);
            running.end().expect_clean();
            let capture = if name == "out/" { output.join("stdin.pcapng") } else { output };
            // Each tool opens the capture.
            let path = capture.to_str().unwrap();
            assert_eq!(TSHARK.run(["-r", path], &[]).stdout, b"");
            assert_eq!(TCPDUMP.run(["-r", path], &[]).stdout, b"");
            CAPINFOS.run([path], &[]);
            assert!(temporaries(&root).is_empty());
        }
        let running = Running::start(["-", "-"]);
        wait_until_ready(running.id());
        running.signal(signal);
        let run = running.end().expect_clean();
        TCPDUMP.run(["-r", "-"], &run.stdout);
    }
}

#[test]
fn an_access_log_that_never_comes_can_be_interrupted() {
    for (signal, status) in SIGNALS {
        let dir = Dir::new("interrupted-log");
        let (log, input, output) = (dir.join("log"), dir.create("trace.pb", trace()), dir.join("page.html"));
        fifo(&log);
        for command in ["http", "report"] {
            let mut arguments = vec![Path::new(command), Path::new("--access-log"), &log, &input];
            arguments.extend((command == "report").then_some(output.as_path()));
            let running = Running::start(arguments);
            wait_until_ready(running.id());
            running.signal(signal);
            let run = running.end();
            assert_eq!(run.status.code(), Some(status), "{run:?}");
            assert_eq!(run.stderr, "", "{command}");
            assert!(!output.exists() && temporaries(dir.path()).is_empty());
        }
    }
}

/// A named pipe is an input that takes as long as the test wants.
#[test]
fn files_that_are_interrupted_leave_nothing() {
    for (signal, status) in SIGNALS {
        // The pipe is written in part, opened but not written, or not even opened by a writer.
        for written in [Some(trace().len() - 3), Some(0), None] {
            for into_directory in [false, true] {
                let dir = Dir::new("interrupted-files");
                let slow = dir.join("slow.pb");
                fifo(&slow);
                let out = dir.fresh();
                let older = out.join("slow.pb.pcapng");
                fs::write(&older, "older").unwrap();
                let output = if into_directory { out.clone() } else { older.clone() };
                let running = Running::start([&slow, &output]);
                let writer = written.map(|len| {
                    let mut writer = OpenOptions::new().write(true).open(&slow).unwrap();
                    writer.write_all(&trace()[..len]).unwrap();
                    writer
                });
                wait_until_ready(running.id());
                running.signal(signal);
                let run = running.end();
                let what = format!("{written:?} bytes, directory: {into_directory}{run:?}");
                assert_eq!(run.status.code(), Some(status), "{what}");
                assert_eq!(paths(&out), ["slow.pb.pcapng".to_owned()].into(), "{what}");
                assert_eq!(fs::read_to_string(&older).unwrap(), "older", "{what}");
                drop(writer);
            }
        }
    }
}

/// The reader of the output is missing, or reads nothing.
#[test]
fn a_program_that_nobody_reads_ends_with_the_first_signal() {
    let dir = Dir::new("stuck");
    let traces = dir.join("many");
    crate::batch::write_overlapping(&traces, 400, 20);
    let http = dir.join("http");
    fs::create_dir(&http).unwrap();
    let exchange = Path::new(crate::util::ROOT).join("testdata/http/grpc_unary_buffered.json");
    for number in 0..200 {
        fs::copy(&exchange, http.join(format!("{number}.json"))).unwrap();
    }
    let stream: Vec<u8> = paths(&traces).iter().flat_map(|name| fs::read(traces.join(name)).unwrap()).collect();
    let stream = dir.create("stream.pb", stream);
    let flaw = [&[3, 0x0f, 0x0f, 0x0f], trace().as_slice()].concat();
    let flawed = dir.create("flawed.pb_length_delimited", [trace(), flaw.repeat(3000)].concat());
    let pipe = dir.join("pipe.pcapng");
    fifo(&pipe);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (traces, http, pipe, stream, flawed) = (text(&traces), text(&http), text(&pipe), text(&stream), text(&flawed));
    let har = dir.join("pipe.har");
    fifo(&har);
    let har = text(&har);
    for (index, (args, stdin)) in [
        // Nobody has opened the pipe.
        (vec![traces.as_str(), &pipe], false),
        (vec![http.as_str(), &har], false),
        (vec!["-", &pipe], true),
        // The pipe is open, and full.
        (vec![traces.as_str(), "-"], false),
        (vec![traces.as_str(), "/dev/stdout"], false),
        (vec!["-F", "har", &http, "-"], false),
        (vec!["-", "-"], true),
        (vec!["validate", "--json", &flawed], false),
        (vec!["info", "--json", &traces], false),
        (vec!["tables", &traces, "-"], false),
        (vec!["tables", "-", "-"], true),
    ]
    .into_iter()
    .enumerate()
    {
        let (signal, status) = SIGNALS[index % 2];
        let mut child = std::process::Command::new(PROGRAM)
            .args(&args)
            .stdin(if stdin { Stdio::from(fs::File::open(&stream).unwrap()) } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The reader's end stays open, and nobody reads from it.
        let reader = child.stdout.take();
        wait_until_ready(child.id());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let start = std::time::Instant::now();
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), Some(status), "{args:?}");
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{args:?}: {:?}", start.elapsed());
        drop(reader);
    }
    assert!(temporaries(dir.path()).is_empty());
}

/// `record` opens its capture before it listens. If that is a pipe that nobody reads, nothing has begun, and the signal
/// has its default effect.
#[test]
fn a_recording_that_waits_for_a_reader_ends_with_the_first_signal() {
    for (signal, status) in SIGNALS {
        let dir = Dir::new("record-no-reader");
        let pipe = dir.join("pipe.pcapng");
        fifo(&pipe);
        // A shell ignores SIGINT for programs that it starts in the background, which these tests may be.
        let mut child = std::process::Command::new("env")
            .args(["--default-signal=INT,TERM", PROGRAM])
            .args(["record", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:9", "--pcapng"])
            .arg(&pipe)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the program runs", || is_program(child.id()));
        wait_until_idle(child.id());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = child.wait().unwrap();
        // The status as a shell shows it.
        let code = ended.code().or(std::os::unix::process::ExitStatusExt::signal(&ended).map(|signal| 128 + signal));
        assert_eq!((code, dir.names()), (Some(status), vec!["pipe.pcapng".to_owned()]));
    }
}

/// Whether `env` has become the program by now.
fn is_program(process: u32) -> bool {
    fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|exe| exe == Path::new(PROGRAM))
}

#[test]
fn a_slow_reader_gets_an_interrupted_stream_whole() {
    let dir = Dir::new("slow-reader");
    let pipe = dir.join("pipe.pcapng");
    fifo(&pipe);
    let mut running = Running::start([Path::new("-"), &pipe]);
    let mut reader = fs::File::open(&pipe).unwrap();
    let many: Vec<u8> =
        (0..300).flat_map(|number| Dress::Delimited.file(&conversation(number, 5, TIME, TIME + 1000))).collect();
    running.send(&many);
    wait_until_idle(running.id());
    running.signal(Signal::INT);
    let mut bytes = Vec::new();
    let mut piece = [0; 32 * 1024];
    loop {
        // That time passes between two reads is what makes this reader slow: no condition could stand for it.
        std::thread::sleep(std::time::Duration::from_millis(10));
        match std::io::Read::read(&mut reader, &mut piece).unwrap() {
            0 => break,
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
    running.end().expect_clean();
    assert_eq!(streams(&tshark::read(&dir.create("read.pcapng", bytes))), 300);
}

#[test]
fn captures_that_are_complete_before_a_signal_stay() {
    let dir = Dir::new("interrupted-batch");
    let traces = small_batch(&dir, 5);
    let slow = dir.join("slow.pb");
    fifo(&slow);
    for (signal, status) in SIGNALS {
        let out = dir.fresh();
        let running = Running::start([Path::new("-j1"), &traces, &slow, &out]);
        wait_until("the others are done", || paths(&out).len() == 5 && temporaries(&out).is_empty());
        wait_until_idle(running.id());
        running.signal(signal);
        let run = running.end();
        assert_eq!(run.status.code(), Some(status), "{run:?}");
        assert_eq!(paths(&out), (0..5).map(|number| format!("tap_{number}.pb.pcapng")).collect());
        assert_eq!(streams(&tshark::read(&out.join("tap_4.pb.pcapng"))), 1);
        // A merged capture is not complete, so nothing stays.
        let all = dir.fresh().join("all.pcapng");
        let running = Running::start([&traces, &slow, &all]);
        wait_until_ready(running.id());
        running.signal(signal);
        assert_eq!(running.end().status.code(), Some(status));
        assert!(paths(all.parent().unwrap()).is_empty());
    }
}

#[test]
fn info_and_validate_end_with_the_first_signal() {
    let dir = Dir::new("interrupted-info");
    let slow = dir.join("slow.pb");
    fifo(&slow);
    for command in ["info", "validate"] {
        for (signal, status) in SIGNALS {
            let running = Running::start([Path::new(command), &slow]);
            wait_until_ready(running.id());
            running.signal(signal);
            assert_eq!(running.end().status.code(), Some(status), "{command}");
        }
    }
    // Without a signal, a pipe is an input like any file.
    let writer = std::thread::spawn({
        let slow = slow.clone();
        move || fs::write(slow, trace()).unwrap()
    });
    tap2pcap().arg(&slow).arg(dir.join("pipe.pcapng")).run().expect_clean();
    writer.join().unwrap();
    assert_eq!(streams(&tshark::read(&dir.join("pipe.pcapng"))), 1);
}
