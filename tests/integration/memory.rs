//! Long streams take little memory.

use std::{
    fs,
    io::{self, Write},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use tap2pcap::proto::tap::socket_streamed_trace_segment::MessagePiece;

use crate::{
    fixture::{self, Dress, TIME, downstream, read, segment, write},
    util::PROGRAM,
};

/// Peak resident memory of a process so far, in KiB; `None` once it has ended.
pub fn peak(process: u32) -> Option<u64> {
    status(process, "VmHWM:")
}

/// The pages of files that a process has in memory, in KiB: its own program above all, which is large in a debug build.
pub fn file_pages(process: u32) -> Option<u64> {
    status(process, "RssFile:")
}

fn status(process: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// 1 GiB of events of 16 KiB, 1 MiB and three bytes is converted in 64 MiB.
#[test]
fn a_stream_of_a_gibibyte_takes_little_memory() {
    const STREAM: usize = 1 << 30;
    const MOST_KIB: u64 = 64 * 1024;
    let mut child = Command::new(PROGRAM)
        .args(["-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let event = |event| Dress::Delimited.file(&[segment(1, MessagePiece::Event(event))]);
        let small = event(read(TIME, &[1; 16 * 1024]));
        let large = event(write(TIME, &vec![2; 1 << 20]));
        let round = [small.repeat(32), large, event(read(TIME, b"few"))].concat();
        stdin.write_all(&Dress::Delimited.file(&fixture::streamed(1, downstream(), []))).unwrap();
        let mut rounds = 0_u64;
        while rounds as usize * round.len() < STREAM {
            stdin.write_all(&round).unwrap();
            rounds += 1;
        }
        // The program has read everything but what is in the pipe.
        (rounds, stdin)
    });
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || io::copy(&mut stdout, &mut io::sink()).unwrap());
    let start = Instant::now();
    let (rounds, stdin) = writer.join().unwrap();
    let highest = peak(child.id()).expect("it waits for more");
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    // Every packet has its payload and at least 54 bytes of headers in a block with a head and a tail of 32.
    let (payload, packets) = (rounds * ((32 * 16 * 1024) + (1 << 20) + 3), rounds * (32 + 17 + 1));
    let captured = reader.join().unwrap();
    assert!(captured > payload + packets * (54 + 32), "{captured} bytes of {rounds} rounds: {stderr}");
    assert!(highest > 1024 && highest <= MOST_KIB, "{highest} KiB resident");
    println!("{highest} KiB resident, {captured} bytes in {:?}", start.elapsed());
}
