//! Bounds that keep a hostile trace from taking all memory, and what happens at each.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use crate::{
    fixture::{self, Dress, TIME, downstream, read},
    tshark,
    util::{Dir, convert, tap2pcap},
};

/// A trace of three events, the one in the middle larger than the limit.
fn with_a_large_one(dress: Dress) -> Vec<u8> {
    let events = [read(TIME, b"before"), read(TIME + 1, &[b'x'; 20_000]), read(TIME + 2, b"after")];
    dress.file(&fixture::streamed(1, downstream(), events))
}

#[test]
fn a_message_over_the_limit_is_passed_over() {
    let dir = Dir::new("max-message");
    for dress in [Dress::Binary, Dress::Delimited] {
        // Longer than one read, so that it is not there in full when its length is.
        let events = [read(TIME, b"before"), read(TIME + 1, &vec![b'x'; 2 << 20]), read(TIME + 2, b"after")];
        let trace = dress.file(&fixture::streamed(1, downstream(), events));
        let input = dir.fresh().join("trace");
        std::fs::write(&input, trace).unwrap();
        let output = dir.fresh().join("out.pcapng");
        let options = ["--tcp", "bare", "--max-message", "1048576"];
        convert(&options, &input, &output)
            .run()
            .expect_status(1)
            .expect_stderr("message 2: a message of 2097")
            .expect_stderr("--max-message allows 1048576 bytes");
        let payloads: Vec<_> = tshark::read(&output).into_iter().map(|frame| frame.payload).collect();
        assert_eq!(payloads, [b"before".to_vec(), b"after".to_vec()], "{dress:?}");
    }
}

#[test]
fn without_lengths_the_rest_is_passed_over_too() {
    let dir = Dir::new("max-message-text");
    for dress in [Dress::Text, Dress::Json] {
        let events = [read(TIME, b"before"), read(TIME + 1, &vec![b'x'; 2 << 20]), read(TIME + 2, b"after")];
        let trace = dress.file(&fixture::streamed(1, downstream(), events));
        let input = dir.fresh().join("trace");
        std::fs::write(&input, trace).unwrap();
        let output = dir.fresh().join("out.pcapng");
        convert(&["--tcp", "bare", "--max-message", "1048576"], &input, &output)
            .run()
            .expect_status(1)
            .expect_stderr("and so is the rest of the source");
        let payloads: Vec<_> = tshark::read(&output).into_iter().map(|frame| frame.payload).collect();
        assert_eq!(payloads, [b"before".to_vec()], "{dress:?}");
    }
}

#[test]
fn the_default_limit_is_in_nobodys_way() {
    let dir = Dir::new("max-message-default");
    for dress in Dress::ALL {
        let input = dir.fresh().join("trace");
        std::fs::write(&input, with_a_large_one(dress)).unwrap();
        convert(&["--tcp", "bare"], &input, &dir.fresh().join("out.pcapng")).run().expect_clean();
    }
}

#[test]
fn beyond_the_limit_the_oldest_connections_are_given_up() {
    let dir = Dir::new("max-connections");
    let messages: Vec<_> =
        (1..=10).flat_map(|id| fixture::streamed(id, downstream(), [read(TIME + id, b"hello")])).collect();
    let input = dir.create("trace.pb", Dress::Binary.file(&messages));
    let output = dir.join("out.pcapng");
    convert(&["--tcp", "bare", "--max-connections", "3"], &input, &output)
        .run()
        .expect_status(1)
        .expect_stderr("3 connections are open at once; the oldest are given up (--max-connections)");
    assert_eq!(tshark::read(&output).len(), 10, "every event is converted all the same");
    convert(&["--tcp", "bare", "--max-connections", "10"], &input, &output).run().expect_clean();
}

/// A gibibyte of nothing in a mebibyte: read to its end, in little memory, or refused at once.
#[test]
fn a_compression_bomb_takes_no_memory() {
    let dir = Dir::new("bomb");
    let mut start = Dress::Delimited.file(&fixture::streamed(1, downstream(), [read(TIME, b"hello")]));
    // A message that claims 2 GiB less one byte follows.
    start.extend([0xff, 0xff, 0xff, 0xff, 0x07, 0x22]);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&start).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        gzip.write_all(&zeros).unwrap();
    }
    let input = dir.create("bomb.pb.gz", gzip.finish().unwrap());
    let output = dir.join("out.pcapng");
    tap2pcap()
        .arg(&input)
        .arg(&output)
        .run_within(256)
        .expect_status(1)
        .expect_stderr("message 2: a message of 2147483652 bytes or more is passed over");
    assert!(tshark::read(&output).iter().any(|frame| frame.payload == b"hello"));
}
