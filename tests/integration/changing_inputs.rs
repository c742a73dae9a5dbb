//! Inputs that fail, shrink or grow while they are read: everything that was read is converted.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    batch::conversation,
    fixture::{Dress, TIME, closed, downstream, read, streamed},
    tshark,
    util::{Dir, PROGRAM, Run},
    wait::{unread, wait_until},
};

/// The peer of a socket resets the connection, so that reading fails in the middle of a message.
#[test]
fn what_came_before_a_read_error_is_converted() {
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
        // A reset discards what the program has not read yet.
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

/// Begins to convert a file of 8 MiB, changes it before its end is read, and then reads the capture from a pipe.
fn convert_while(dir: &Dir, change: impl FnOnce(&Path)) -> (Run, usize) {
    let events = (0..512).map(|index| read(TIME + index, &[b'x'; 16 << 10]));
    let input = dir.create("trace.pb_length_delimited", Dress::Delimited.file(&streamed(1, downstream(), events)));
    let mut command = Command::new(PROGRAM);
    command.arg(&input).arg("-").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut capture = vec![0; 1];
    // The pipe and the buffers before it hold less than 2 MiB, so the program waits for its reader now.
    stdout.read_exact(&mut capture).unwrap();
    change(&input);
    stdout.read_to_end(&mut capture).unwrap();
    let output = child.wait_with_output().unwrap();
    let payload = tshark::read(&dir.create("capture.pcapng", &capture)).iter().map(|frame| frame.payload.len()).sum();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (Run { command: format!("{command:?}"), status: output.status, stdout: Vec::new(), stderr }, payload)
}

#[test]
fn what_came_before_the_new_end_of_a_shrunk_file_is_converted() {
    let dir = Dir::new("shrinks");
    for (size, at_least) in [(5 << 20, (5 << 20) - (32 << 10)), (100, 16 << 10)] {
        let shrink = |input: &Path| OpenOptions::new().write(true).open(input).unwrap().set_len(size).unwrap();
        let (run, payload) = convert_while(&dir, shrink);
        run.expect_status(1).expect_stderr("trace.pb_length_delimited: byte ").expect_stderr("cut off");
        assert!(payload >= at_least && payload < 8 << 20, "{size}: {payload} bytes are there");
    }
}

#[test]
fn a_file_that_grows_is_read_to_its_new_end() {
    let dir = Dir::new("grows");
    let more = streamed(1, downstream(), [read(TIME + 512, b"and more"), closed(TIME + 513)]);
    // The file has named the connection already.
    let more = Dress::Delimited.file(&more[1..]);
    let (run, payload) =
        convert_while(&dir, |input| File::options().append(true).open(input).unwrap().write_all(&more).unwrap());
    run.expect_clean();
    assert_eq!(payload, 512 * (16 << 10) + 8);
}
