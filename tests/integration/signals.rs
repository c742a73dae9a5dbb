//! SIGINT and SIGTERM.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use rustix::process::Signal;

use crate::{
    batch::{Running, conversation, fifo, paths, small_batch, streams, temporaries, wait_until},
    fixture::{Dress, TIME},
    tshark,
    util::{CAPINFOS, Dir, TCPDUMP, TSHARK, tap2pcap},
};

const SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

fn trace() -> Vec<u8> {
    Dress::Delimited.file(&conversation(1, 2, TIME, TIME + 1000))
}

/// As tcpdump does it: the capture is completed.
#[test]
fn a_stream_that_is_interrupted_is_complete() {
    let dir = Dir::new("interrupted-stream");
    for (signal, _) in SIGNALS {
        // To standard output, in the middle of a message.
        let mut running = Running::start(["-", "-"]);
        let bytes = trace();
        running.send(&bytes[..bytes.len() - 3]);
        running.wait_for(b"answer 1 for connection 1");
        running.signal(signal);
        let run = running.end().expect_clean();
        let capture = dir.create("stdout.pcapng", &run.stdout);
        let frames = tshark::read(&capture);
        assert_eq!(frames.iter().filter(|frame| frame.tcp_len > 0).count(), 4, "{run:?}");
        // To a file, which appears only now.
        let output = dir.fresh().join("live.pcapng");
        let mut running = Running::start(["-", output.to_str().unwrap()]);
        running.send(&bytes[..bytes.len() - 3]);
        wait_until("it is at work", || !temporaries(output.parent().unwrap()).is_empty());
        // What was sent has to be read before the signal comes.
        wait_until("it waits", || waits(&running));
        assert!(!output.exists());
        running.signal(signal);
        running.end().expect_clean();
        assert_eq!(tshark::read(&output), frames);
        assert_eq!(paths(output.parent().unwrap()).len(), 1);
        // And into a directory.
        let out = dir.fresh();
        let mut running = Running::start(["-", out.to_str().unwrap()]);
        running.send(&bytes[..bytes.len() - 3]);
        wait_until("it is at work", || !temporaries(&out).is_empty());
        wait_until("it waits", || waits(&running));
        running.signal(signal);
        running.end().expect_clean();
        assert_eq!(paths(&out), ["stdin.pcapng".to_owned()].into());
        assert_eq!(tshark::read(&out.join("stdin.pcapng")), frames);
    }
}

/// Whether a process sleeps; one that works runs.
fn waits(running: &Running) -> bool {
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", running.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('S')
    };
    (0..20).all(|_| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        state()
    })
}

#[test]
fn a_stream_that_is_interrupted_before_it_begins_is_an_empty_capture() {
    let dir = Dir::new("interrupted-early");
    for (signal, _) in SIGNALS {
        for name in ["empty.pcapng", "empty.pcap", "out/"] {
            let root = dir.fresh();
            let output = root.join(name);
            let running = Running::start([Path::new("-"), &output]);
            wait_until("it waits", || waits(&running) && handles_signals(&running));
            running.signal(signal);
            running.end().expect_clean();
            let capture = if name == "out/" { output.join("stdin.pcapng") } else { output };
            // Every reader opens it.
            let path = capture.to_str().unwrap();
            assert_eq!(TSHARK.run(["-r", path], &[]).stdout, b"");
            assert_eq!(TCPDUMP.run(["-r", path], &[]).stdout, b"");
            CAPINFOS.run([path], &[]);
            assert!(temporaries(&root).is_empty());
        }
        let running = Running::start(["-", "-"]);
        wait_until("it waits", || waits(&running) && handles_signals(&running));
        running.signal(signal);
        let run = running.end().expect_clean();
        TCPDUMP.run(["-r", "-"], &run.stdout);
    }
}

/// Whether the process has taken over SIGINT.
fn handles_signals(running: &Running) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
    u64::from_str_radix(caught, 16).unwrap() & 1 << 1 != 0
}

/// A named pipe makes a file that takes as long as the test wants.
#[test]
fn files_that_are_interrupted_leave_nothing() {
    for (signal, status) in SIGNALS {
        // Written in part, opened but silent, and not even opened by a writer.
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
                wait_until("it waits", || waits(&running) && handles_signals(&running));
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

/// What was finished before the signal stays, whole.
#[test]
fn captures_that_were_complete_stay() {
    let dir = Dir::new("interrupted-batch");
    let traces = small_batch(&dir, 5);
    let slow = dir.join("slow.pb");
    fifo(&slow);
    for (signal, status) in SIGNALS {
        let out = dir.fresh();
        let running = Running::start([Path::new("-j1"), &traces, &slow, &out]);
        wait_until("the others are done", || paths(&out).len() == 5 && temporaries(&out).is_empty() && waits(&running));
        running.signal(signal);
        let run = running.end();
        assert_eq!(run.status.code(), Some(status), "{run:?}");
        assert_eq!(paths(&out), (0..5).map(|number| format!("tap_{number}.pb.pcapng")).collect());
        assert_eq!(streams(&tshark::read(&out.join("tap_4.pb.pcapng"))), 1);
        // Merged, there is nothing that could stay.
        let all = dir.fresh().join("all.pcapng");
        let running = Running::start([&traces, &slow, &all]);
        wait_until("it waits", || waits(&running) && handles_signals(&running));
        running.signal(signal);
        assert_eq!(running.end().status.code(), Some(status));
        assert!(paths(all.parent().unwrap()).is_empty());
    }
}

#[test]
fn info_and_validate_end_as_well() {
    let dir = Dir::new("interrupted-info");
    let slow = dir.join("slow.pb");
    fifo(&slow);
    for command in ["info", "validate"] {
        for (signal, status) in SIGNALS {
            let running = Running::start([Path::new(command), &slow]);
            wait_until("it waits", || waits(&running) && handles_signals(&running));
            running.signal(signal);
            assert_eq!(running.end().status.code(), Some(status), "{command}");
        }
    }
    // A pipe is a file like others when nobody interrupts.
    let writer = std::thread::spawn({
        let slow = slow.clone();
        move || fs::write(slow, trace()).unwrap()
    });
    tap2pcap().arg(&slow).arg(dir.join("pipe.pcapng")).run().expect_clean();
    writer.join().unwrap();
    assert_eq!(streams(&tshark::read(&dir.join("pipe.pcapng"))), 1);
}
