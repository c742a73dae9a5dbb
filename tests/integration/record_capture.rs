//! `tap2pcap record --pcapng`: the capture that is written while the relay runs.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    record::{Record, ask, echo_server, refused, serve},
    tshark::{self, Frame},
    util::Dir,
    wait::{PATIENCE, unread, wait_until, wait_until_idle},
};

fn recording(to: &str, capture: &Path, more: &[&str]) -> Record {
    let fixed = ["--listen", "127.0.0.1:0", "--to", to, "--pcapng", capture.to_str().unwrap()];
    Record::start(fixed.into_iter().chain(more.iter().copied()), 1)
}

fn recording_to_stdout(to: &str, stdout: Stdio) -> Record {
    Record::start_with(["--listen", "127.0.0.1:0", "--to", to, "--pcapng", "-"], 1, stdout)
}

/// The frames of a capture in which nothing is wrong.
fn sound(capture: &Path) -> Vec<Frame> {
    let frames = tshark::read(capture);
    for frame in &frames {
        frame.expect_sound(&capture.display());
    }
    frames
}

/// What the client with this port sent and received.
fn said(frames: &[Frame], port: u16) -> (Vec<u8>, Vec<u8>) {
    let of = |client: bool| {
        let end = |frame: &&Frame| if client { frame.src } else { frame.dst };
        let own = frames.iter().filter(|frame| end(frame).is_some_and(|end| end.port() == port));
        own.flat_map(|frame| frame.payload.iter().copied()).collect()
    };
    (of(true), of(false))
}

fn port(stream: &TcpStream) -> u16 {
    stream.local_addr().unwrap().port()
}

#[test]
fn connections_that_are_open_at_the_end_are_whole() {
    const SYN: u16 = 2;
    const FIN: u16 = 1;
    for signal in [Signal::TERM, Signal::INT] {
        let dir = Dir::new("record-capture");
        let capture = dir.create("out.pcapng", "an older file");
        let record = recording(&echo_server().to_string(), &capture, &[]);
        let mut clients: Vec<_> = (0..3).map(|_| record.connect()).collect();
        for (round, length) in [(1, 5), (2, 200_000), (3, 1)] {
            for client in &mut clients {
                let question = vec![round; length];
                thread::scope(|scope| {
                    // The question is longer than a socket's buffer, so writing and reading go on at the same time.
                    let mut writer = client.try_clone().unwrap();
                    let question = &question;
                    scope.spawn(move || writer.write_all(question).unwrap());
                    let mut answer = vec![0; length];
                    client.read_exact(&mut answer).unwrap();
                    assert_eq!(answer, *question);
                });
            }
        }
        assert_eq!(fs::read(&capture).unwrap(), b"an older file");
        assert_eq!(record.end(signal), (Some(0), String::new()));
        assert_eq!(dir.names(), ["out.pcapng"]);
        let frames = sound(&capture);
        let whole = [vec![1; 5], vec![2; 200_000], vec![3; 1]].concat();
        for client in &clients {
            assert!(said(&frames, port(client)) == (whole.clone(), whole.clone()));
        }
        let count = |flag: u16| frames.iter().filter(|frame| frame.flags & flag != 0).count();
        assert_eq!((count(SYN), count(FIN)), (6, 6));
    }
}

#[test]
fn what_was_made_up_is_marked() {
    let dir = Dir::new("record-marks");
    let capture = dir.join("out.pcapng");
    // A server that speaks first does not become a client, whatever its port is.
    let server = serve(|mut stream| stream.write_all(b"welcome").unwrap());
    let record = recording(&server.to_string(), &capture, &[]);
    let mut clients = [record.connect(), record.connect()];
    for client in &mut clients {
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"welcome");
    }
    let listener = record.address();
    let clients = clients.map(|client| port(&client));
    record.end_well();
    let frames = sound(&capture);
    assert!(frames.iter().all(|frame| frame.interface == "record"));
    let comments: Vec<_> = frames.iter().flat_map(|frame| &frame.comments).collect();
    let comment = |id: u64| {
        format!(
            "trace record, trace_id {id}, streamed, downstream (the remote side opened the connection)\n\
             synthesized: Ethernet, IP and TCP headers, sequence numbers, handshake, acknowledgements, close"
        )
    };
    assert_eq!(comments.len(), 2);
    // The connections to the server take ids, too.
    assert!(comments.contains(&&comment(0)) && comments.contains(&&comment(2)), "{comments:?}");
    for client in clients {
        let first = frames.iter().find(|frame| [frame.src, frame.dst].iter().flatten().any(|end| end.port() == client));
        let first = first.unwrap();
        assert_eq!((first.src.unwrap().port(), first.dst), (client, Some(listener)));
        assert_eq!(said(&frames, client), (Vec::new(), b"welcome".to_vec()));
    }
}

#[test]
fn secrets_are_taken_out_while_the_relay_runs() {
    const REQUEST: &[u8] = b"GET /?api_key=7Hq2Zk9Wb4Xv HTTP/1.1\r\nHost: a\r\n\r\n";
    let dir = Dir::new("record-redacted");
    let capture = dir.join("out.pcapng");
    let response =
        b"HTTP/1.1 200 OK\r\nSet-Cookie: id=7Hq2Zk9Wb4Xv\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let server = serve(move |mut stream| {
        stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
        stream.write_all(response).unwrap();
    });
    let record = recording(&server.to_string(), &capture, &["--redact"]);
    let mut client = record.connect();
    client.write_all(REQUEST).unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    // The client has what the server sent; only the capture is without secrets.
    assert_eq!(heard, response);
    let client = port(&client);
    record.end_well();
    let (asked, answered) = said(&sound(&capture), client);
    assert_eq!(String::from_utf8_lossy(&asked), "GET /?api_key=************ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(String::from_utf8_lossy(&answered).contains("Set-Cookie: ***************\r\nContent-Length: 2\r\n"));
}

#[test]
fn a_half_close_comes_before_the_bytes_that_followed_it() {
    const FIN: u16 = 1;
    let dir = Dir::new("record-half-close");
    let capture = dir.join("out.pcapng");
    let (tell, heard_by_server) = mpsc::channel();
    let server = serve(move |mut stream| {
        stream.write_all(b"all I have").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        tell.send(heard).unwrap();
    });
    let record = recording(&server.to_string(), &capture, &[]);
    let mut client = record.connect();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    client.write_all(b"thank you").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard_by_server.recv_timeout(PATIENCE).unwrap(), b"thank you");
    let listener = record.address();
    record.end_well();
    let frames = sound(&capture);
    let place = |wanted: &dyn Fn(&Frame) -> bool| frames.iter().position(wanted).unwrap();
    let server_fin = place(&|frame| frame.src == Some(listener) && frame.flags & FIN != 0);
    assert!(server_fin < place(&|frame| frame.payload == b"thank you"));
}

#[test]
fn standard_output_is_live() {
    let server = echo_server().to_string();
    let mut record = recording_to_stdout(&server, Stdio::piped());
    let mut stdout = record.child.stdout.take().unwrap();
    let (tell, arrived) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            all.extend_from_slice(&buffer[..count]);
            // If nobody listens, the test has ended.
            let _ = tell.send((Instant::now(), buffer[..count].to_vec()));
        }
        all
    });
    let mut client = record.connect();
    let mut delays = Vec::new();
    let mut captured = Vec::new();
    for round in 0..10_u8 {
        let question = [round; 1000];
        let asked = Instant::now();
        assert_eq!(ask(&mut client, &question), question);
        let mut last = asked;
        // Both the question and the answer are there while the connection is open.
        while memchr::memmem::find_iter(&captured, &question).count() < 2 {
            let (time, bytes) = arrived.recv_timeout(PATIENCE).unwrap();
            captured.extend(bytes);
            last = time;
        }
        delays.push(last - asked);
    }
    delays.sort();
    println!("in the pipe after {delays:?}");
    // Only half of them, because the machine may be busy now and then.
    assert!(delays[delays.len() / 2] < Duration::from_millis(100), "{delays:?}");
    assert_eq!(record.end(Signal::TERM), (Some(0), String::new()));
    let dir = Dir::new("record-live");
    let capture = dir.create("live.pcapng", reader.join().unwrap());
    let whole: Vec<u8> = (0..10).flat_map(|round| [round; 1000]).collect();
    assert!(said(&sound(&capture), port(&client)) == (whole.clone(), whole));
}

#[test]
fn a_reader_that_is_gone_ends_the_recording_without_a_message() {
    let server = echo_server().to_string();
    let mut record = recording_to_stdout(&server, Stdio::piped());
    drop(record.child.stdout.take());
    let mut client = record.connect();
    // A write to the broken pipe fails, and the relay ends.
    let start = Instant::now();
    while client.write_all(b"hello").is_ok() && !matches!(client.read(&mut [0; 100]), Ok(0) | Err(_)) {
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(record.wait(), (Some(0), String::new()));
}

#[test]
fn a_full_disk_is_an_error_and_traces_are_complete() {
    let dir = Dir::new("record-full");
    let server = echo_server().to_string();
    let prefix = dir.join("tap");
    let record =
        recording(&server, Path::new("/dev/full"), &["--path-prefix", prefix.to_str().unwrap(), "--streaming"]);
    let mut client = record.connect();
    let start = Instant::now();
    while client.write_all(b"hello").is_ok() && !matches!(client.read(&mut [0; 100]), Ok(0) | Err(_)) {
        assert!(start.elapsed() < PATIENCE);
    }
    let (status, said) = record.wait();
    assert_eq!(status, Some(2));
    assert_eq!(said, "error: /dev/full: cannot write the capture: No space left on device (os error 28)\n");
    assert_eq!(dir.names(), ["tap_0.pb"]);
}

/// A reader that pauses slows the relay down. It costs no byte, and little memory.
#[test]
fn a_reader_that_pauses_holds_the_relay_up() {
    const CLIENTS: usize = 4;
    const EACH: usize = 16 << 20;
    const MOST_KIB: u64 = 64 * 1024;
    let (mut read, write) = std::io::pipe().unwrap();
    let server = echo_server().to_string();
    let record = recording_to_stdout(&server, Stdio::from(write));
    let clients: Vec<_> = (0..CLIENTS).map(|_| record.connect()).collect();
    let ports: Vec<_> = clients.iter().map(port).collect();
    let talks: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(index, mut client)| {
            client.set_read_timeout(Some(PATIENCE * 2)).unwrap();
            let mut writer = client.try_clone().unwrap();
            let byte = u8::try_from(index).unwrap();
            thread::spawn(move || {
                writer.write_all(&vec![byte; EACH]).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                let mut heard = 0;
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    assert!(buffer[..count].iter().all(|heard| *heard == byte));
                    heard += count;
                }
                heard
            })
        })
        .collect();
    // Nobody reads, so the pipe fills and the relay stops before everything is sent.
    wait_until("the pipe fills", || unread(&read) > 32 * 1024);
    wait_until_idle(record.child.id());
    assert!(talks.iter().all(|talk| !talk.is_finished()));
    let dir = Dir::new("record-pause");
    let capture = dir.join("out.pcapng");
    let mut file = File::create(&capture).unwrap();
    let reader = thread::spawn(move || std::io::copy(&mut read, &mut file).unwrap());
    for talk in talks {
        assert_eq!(talk.join().unwrap(), EACH);
    }
    let status = fs::read_to_string(format!("/proc/{}/status", record.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    println!("at most {peak} KiB resident");
    assert!(peak.parse::<u64>().unwrap() < MOST_KIB, "{peak} KiB resident");
    assert_eq!(record.end(Signal::TERM), (Some(0), String::new()));
    reader.join().unwrap();
    let lines = tshark::lines(&capture, &["-T", "fields", "-e", "tcp.srcport", "-e", "tcp.dstport", "-e", "tcp.len"]);
    for port in ports {
        let sum = |place: usize| -> usize {
            let fields = lines.iter().map(|line| line.split('\t').collect::<Vec<_>>());
            let own = fields.filter(|fields| fields[place] == port.to_string());
            own.map(|fields| fields[2].parse::<usize>().unwrap()).sum()
        };
        assert_eq!((sum(0), sum(1)), (EACH, EACH));
    }
}

/// One signal is enough. A second one ends the recording at once.
#[test]
fn a_signal_ends_a_recording_that_nobody_reads() {
    for signals in [&[Signal::INT][..], &[Signal::TERM], &[Signal::TERM, Signal::INT]] {
        let (read, write) = std::io::pipe().unwrap();
        let server = echo_server().to_string();
        let record = recording_to_stdout(&server, Stdio::from(write));
        let client = record.connect();
        record.send_until_held_back(&client);
        for signal in signals {
            record.signal(*signal);
            // Two signals that wait together would come in the order of their numbers. The first one closes the listener.
            wait_until("the signal has arrived", || TcpStream::connect(record.address()).is_err());
        }
        let (status, said) = record.wait();
        let last = if signals.ends_with(&[Signal::INT]) { 130 } else { 143 };
        assert_eq!((status, said.as_str()), (Some(last), ""), "{signals:?}");
        drop(read);
    }
}

/// The recorded traffic is decrypted, so only its owner may read it.
#[test]
fn what_is_recorded_is_its_owners_alone_unless_somebody_asks() {
    use std::os::unix::fs::PermissionsExt as _;

    let server = echo_server().to_string();
    for (options, file, folder) in [(&[][..], 0o600, 0o700), (&["--mode", "640"], 0o640, 0o750)] {
        let dir = Dir::new("record-mode");
        let (prefix, capture) = (dir.join("new/folder/tap"), dir.join("out.pcapng"));
        let traces = ["--path-prefix", prefix.to_str().unwrap()];
        let record = recording(&server, &capture, &[&traces[..], options].concat());
        ask(&mut record.connect(), b"hello");
        record.end_well();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for path in [&capture, &dir.join("new/folder/tap_0.pb")] {
            assert_eq!(mode(path), file, "{}", path.display());
        }
        for path in ["new", "new/folder"] {
            assert_eq!(mode(&dir.join(path)), folder, "{path}");
        }
    }
    for wrong in ["1640", "999", "x", "0440"] {
        refused(&["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--pcapng", "x", "--mode", wrong]);
    }
}

#[test]
fn a_capture_is_packed_as_its_name_says() {
    let dir = Dir::new("record-packed");
    for name in ["out.pcapng.gz", "out.pcapng.zst"] {
        let capture = dir.join(name);
        let record = recording(&echo_server().to_string(), &capture, &[]);
        ask(&mut record.connect(), b"hello");
        record.end_well();
        assert_ne!(fs::read(&capture).unwrap()[..4], *b"\n\r\r\n");
        assert_eq!(sound(&capture).iter().filter(|frame| frame.payload == b"hello").count(), 2);
    }
}

/// Each run goes on with the ids after those of earlier runs, in any format.
#[test]
fn earlier_traces_are_never_overwritten() {
    let dir = Dir::new("record-again");
    let server = echo_server().to_string();
    let mut before = Vec::new();
    for (format, question) in [("binary", "first"), ("json", "second"), ("binary", "third")] {
        let record = Record::quick(&dir.join("tap"), &server, &["--format", format]);
        for _ in 0..2 {
            ask(&mut record.connect(), question.as_bytes());
        }
        record.end_well();
        before.push(dir.names().into_iter().map(|name| fs::read(dir.join(name)).unwrap()).collect::<Vec<_>>());
    }
    // Each connection takes two ids: one for either side.
    assert_eq!(dir.names(), ["tap_0.pb", "tap_2.pb", "tap_3.json", "tap_5.json", "tap_6.pb", "tap_8.pb"]);
    assert!(before[2].starts_with(&before[1]) && before[1].starts_with(&before[0]), "an earlier trace changed");
}

#[test]
fn a_capture_without_a_connection_can_be_read() {
    let dir = Dir::new("record-empty");
    let capture = dir.join("out.pcapng");
    recording("127.0.0.1:1", &capture, &[]).end_well();
    assert_eq!(tshark::read(&capture), []);
}

#[test]
fn tls_is_captured_in_plain_text_and_unix_sockets_get_addresses() {
    let dir = Dir::new("record-tls");
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let inner = dir.join("inner.pcapng");
    let tls = ["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")];
    let terminates = recording(&echo_server().to_string(), &inner, &tls);
    let (socket, outer) = (path("listen.sock"), dir.join("outer.pcapng"));
    let to = terminates.address().to_string();
    let originates =
        Record::start(["--listen", &socket, "--to", &to, "--to-tls", "--pcapng", outer.to_str().unwrap()], 1);
    assert_eq!(ask(&mut UnixStream::connect(&socket).unwrap(), b"in plain text"), b"in plain text");
    originates.end_well();
    terminates.end_well();
    for capture in [&inner, &outer] {
        let frames = sound(capture);
        let payloads: Vec<_> =
            frames.iter().map(|frame| frame.payload.as_slice()).filter(|payload| !payload.is_empty()).collect();
        assert_eq!(payloads, [b"in plain text", b"in plain text"], "{}", capture.display());
    }
    let first = &sound(&outer)[0];
    assert!(first.comments[0].contains(&format!("local address is {socket}, made up for it: ")), "{first:?}");
}

/// The capture has the connections of all listeners, with or without taps of their own, and none of the clusters'
/// connections.
#[test]
fn a_configuration_of_several_listeners_makes_one_capture() {
    let dir = Dir::new("record-config");
    let listener = |cluster: &str| {
        format!(
            "
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: {cluster}"
        )
    };
    let cluster = |name: &str, port: u16, socket: &str| {
        format!(
            "
  - name: {name}
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}{socket}"
        )
    };
    let tap = format!(
        "
    transport_socket:
      name: envoy.transport_sockets.tap
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap
        common_config:
          static_config:
            match: {{ any_match: true }}
            output_config:
              sinks:
              - format: PROTO_BINARY
                file_per_tap: {{ path_prefix: {}/up }}
        transport_socket: {{ name: envoy.transport_sockets.raw_buffer }}",
        dir.path().display()
    );
    let config = [
        "static_resources:\n  listeners:".to_owned(),
        listener("tapped"),
        listener("plain"),
        "\n  clusters:".to_owned(),
        cluster("tapped", echo_server().port(), &tap),
        cluster("plain", echo_server().port(), ""),
    ];
    let config = dir.create("bootstrap.yaml", config.concat());
    let capture = dir.join("out.pcapng");
    let record = Record::start(["--config", config.to_str().unwrap(), "--pcapng", capture.to_str().unwrap()], 2);
    let mut ports = Vec::new();
    for (index, address) in record.listening.iter().enumerate() {
        let mut client = TcpStream::connect(address).unwrap();
        let question = format!("question {index}");
        assert_eq!(ask(&mut client, question.as_bytes()), question.as_bytes());
        ports.push((port(&client), question.into_bytes()));
    }
    record.end_well();
    let frames = sound(&capture);
    let bytes: usize = frames.iter().map(|frame| frame.payload.len()).sum();
    assert_eq!(bytes, 4 * "question 0".len());
    for (port, question) in ports {
        assert_eq!(said(&frames, port), (question.clone(), question));
    }
    assert_eq!(dir.names(), ["bootstrap.yaml", "out.pcapng", "up_1.pb"]);
}

#[test]
fn missing_options_and_unwritable_captures_are_named() {
    let dir = Dir::new("record-refused");
    let capture = dir.join("missing/out.pcapng");
    let capture = capture.to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"];
    let said = refused(&[&listen[..], &["--pcapng", capture]].concat());
    let no_folder = format!("error: {capture}: cannot write the capture: No such file or directory");
    assert!(said.starts_with(&no_folder), "{said}");
    assert!(refused(&listen).contains("--path-prefix <PREFIX>|--pcapng <FILE>"));
    assert!(refused(&["--pcapng", capture]).contains("--config <FILE>|--listen <ADDR>"));
    // Limits and formats apply to traces only.
    let said = refused(&[&listen[..], &["--pcapng", capture, "--max-rx", "5"]].concat());
    assert!(said.contains("--path-prefix <PREFIX>"), "{said}");
    // If a listener's address is taken, no file is left.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let capture = dir.join("out.pcapng");
    let said = refused(&["--listen", &taken, "--to", "127.0.0.1:1", "--pcapng", capture.to_str().unwrap()]);
    assert!(said.contains("Address already in use"), "{said}");
    assert_eq!(dir.names(), [""; 0]);
}
