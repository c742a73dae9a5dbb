//! What once was wrong, each test named after its bug.

use std::{
    io,
    path::PathBuf,
    process::{Command, Stdio},
};

use tap2pcap::proto::tap::TraceWrapper;

use crate::{
    fixture::{Dress, TIME, closed, downstream, read, streamed},
    util::{Dir, PROGRAM},
};

/// A short trace with nothing wrong.
fn sound() -> Vec<TraceWrapper> {
    streamed(1, downstream(), [read(TIME, b"hello"), closed(TIME + 1)])
}

fn create(dir: &Dir, name: &str, messages: &[TraceWrapper]) -> PathBuf {
    dir.create(name, Dress::Binary.file(messages))
}

#[test]
fn a_panic_where_nobody_reads_standard_error() {
    let dir = Dir::new("regressions-stderr");
    let (input, output) = (create(&dir, "path_0.pb", &sound()), dir.join("out.pcapng"));
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(PROGRAM);
    command.arg("-v").args([&input, &output]).stdin(Stdio::null()).stderr(writer);
    assert_eq!(command.status().unwrap().code(), Some(0));
    assert!(output.exists());
}
