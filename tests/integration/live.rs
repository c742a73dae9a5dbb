//! `tap2pcap live`, beside a server that answers as Envoy does. `scripts/interop-live` holds it against the real one.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::Read,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    fake_envoy::{FakeEnvoy, TapAnswer, interleaved},
    tshark,
    util::{Dir, PROGRAM, Run, convert, tap2pcap},
    wait::{PATIENCE, wait_until},
};

/// A run in the background.
struct Live {
    child: Child,
    stderr: Arc<Mutex<String>>,
    stdout: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Live {
    fn start(url: &str, output: impl AsRef<OsStr>, more: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("live").arg(url).arg(output).args(more);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (stdout, stderr) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<Mutex<String>>::default());
        let (to_stdout, to_stderr) = (Arc::clone(&stdout), Arc::clone(&stderr));
        let readers = vec![
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(count @ 1..) = out.read(&mut buffer) {
                    to_stdout.lock().unwrap().extend_from_slice(&buffer[..count]);
                }
            }),
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 12];
                while let Ok(count @ 1..) = err.read(&mut buffer) {
                    to_stderr.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
                }
            }),
        ];
        Self { child, stderr, stdout, readers }
    }

    fn said(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits for words on standard error.
    #[track_caller]
    fn wait_for(&self, words: &str) {
        wait_until(words, || self.said().contains(words));
    }

    /// Waits for bytes of a payload on standard output.
    #[track_caller]
    fn wait_for_payload(&self, bytes: &[u8]) {
        wait_until("a payload", || memchr::memmem::find(&self.stdout.lock().unwrap(), bytes).is_some());
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it ends.
    fn ended(mut self) -> Run {
        let mut status = None;
        wait_until("live ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        let stdout = std::mem::take(&mut *self.stdout.lock().unwrap());
        Run { command: "tap2pcap live".to_owned(), status: status.unwrap(), stdout, stderr: self.said() }
    }

    fn end(self) -> Run {
        self.signal(Signal::INT);
        self.ended()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Sends a stream in pieces that end anywhere.
fn send_in_pieces(tap: &mut TapAnswer, bytes: &[u8]) {
    for piece in bytes.chunks(997) {
        if tap.send(piece).is_err() {
            return;
        }
    }
}

/// An event of 90 KB of payload.
fn large_message() -> String {
    let text = String::from_utf8(interleaved()).unwrap();
    let read = text.split_inclusive("\n}\n").find(|message| message.contains("\"read\"")).unwrap();
    let (before, rest) = read.split_once("\"as_bytes\": \"").unwrap();
    let after = rest.split_once('"').unwrap().1;
    format!("{before}\"as_bytes\": \"{}\"{after}", "QUFB".repeat(30_000))
}

/// An Envoy that sends this to whoever taps it, and then ends the tap.
fn sending(stream: Vec<u8>) -> FakeEnvoy {
    FakeEnvoy::with_one_tap(move |tap| {
        tap.accept();
        send_in_pieces(tap, &stream);
        tap.end();
    })
}

/// A run that receives datagrams, and where.
fn receiving() -> (Live, String) {
    let live = Live::start("udp://127.0.0.1:0", "-", &[]);
    live.wait_for("receiving on udp://");
    let place = live.said().split("udp://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    (live, place)
}

/// What each client and server said, by their addresses.
fn conversations(capture: &Path) -> BTreeMap<(SocketAddr, SocketAddr), Vec<u8>> {
    let mut said = BTreeMap::<_, Vec<u8>>::new();
    for frame in tshark::read(capture) {
        frame.expect_sound(&capture.display());
        if let (Some(src), Some(dst)) = (frame.src, frame.dst) {
            said.entry((src, dst)).or_default().extend_from_slice(&frame.payload);
        }
    }
    said
}

/// The addresses of a request whose path is this, as HTTP taps are replayed and as sockets carried it.
fn ends_of(capture: &Path, path: &str) -> Vec<String> {
    let filter = format!("http.request.uri == \"{path}\"");
    tshark::lines(
        capture,
        &["-Y", &filter, "-T", "fields", "-e", "ip.src", "-e", "tcp.srcport", "-e", "ip.dst", "-e", "tcp.dstport"],
    )
}

#[test]
fn sockets_have_the_packets_that_a_conversion_of_the_stream_makes() {
    let envoy = sending(interleaved());
    let dir = Dir::new("sockets_have_the_packets_that_a_conversi");
    let (live, file, stream) =
        (dir.path().join("live.pcapng"), dir.path().join("file.pcapng"), dir.path().join("tap.json"));
    let run = Live::start(&envoy.url(), &live, &["--once"]).ended().expect_status(0);
    assert!(run.stderr.contains("tapping tap"), "{run:?}");
    fs::write(&stream, interleaved()).unwrap();
    convert(&[], &stream, &file).run().expect_status(0);
    let of_sockets = |capture: &Path| {
        let mut said = conversations(capture);
        said.retain(|_, bytes| !bytes.is_empty());
        said.retain(|(src, dst), _| {
            src.port() >= 1024 && dst.port() >= 1024 && !src.ip().to_string().starts_with("198.")
        });
        said
    };
    let (live, file) = (of_sockets(&live), of_sockets(&file));
    // Three clients, and the connections to the server.
    assert!(file.len() >= 8, "{:?}", file.keys());
    for (ends, bytes) in &file {
        assert_eq!(live.get(ends).map(Vec::as_slice), Some(bytes.as_slice()), "{ends:?}");
    }
}

#[test]
fn secrets_are_taken_out_while_the_stream_comes() {
    let request = "GET /?token=7Hq2Zk9Wb4Xv HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer 7Hq2Zk9Wb4Xv\r\n\r\n";
    let (first, second) = request.split_at(request.len() / 2);
    let stream = messages(&[CONNECTION, &read(first), &read(second)]);
    let dir = Dir::new("live-redacted");
    let (plain, redacted) = (dir.path().join("plain.pcapng"), dir.path().join("redacted.pcapng"));
    let payload = |capture: &Path, more: &[&str]| {
        let envoy = sending(stream.clone());
        Live::start(&envoy.url(), capture, &[&["--once"], more].concat()).ended().expect_status(0);
        tshark::read(capture).iter().flat_map(|frame| frame.payload.clone()).collect::<Vec<_>>()
    };
    assert_eq!(payload(&plain, &[]), request.as_bytes());
    let expected = "GET /?token=************ HTTP/1.1\r\nHost: a\r\nAuthorization: *******************\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&payload(&redacted, &["--redact"])), expected);
    let secret = memchr::memmem::find(&fs::read(&redacted).unwrap(), b"7Hq2Zk9W");
    assert_eq!(secret, None);
}

#[test]
fn segments_of_http_taps_get_the_addresses_of_the_socket_that_carried_the_request() {
    let envoy = sending(interleaved());
    let dir = Dir::new("segments_of_http_taps_get_the_addresses_");
    let capture = dir.path().join("live.pcapng");
    Live::start(&envoy.url(), &capture, &["--once"]).ended().expect_status(0);
    for client in 0..3 {
        for path in ["ok0", "fail1", "ok2"] {
            let ends = ends_of(&capture, &format!("/client{client}/{path}"));
            // The client's socket, the server's, and the HTTP tap, whose client port is made up: the socket has it.
            assert_eq!(ends.len(), 3, "{ends:?}");
            assert!(ends.iter().all(|ends| ends.starts_with("127.0.0.1\t")), "{ends:?}");
        }
    }
    let comments = tshark::lines(&capture, &["-Y", "frame.comment", "-T", "fields", "-e", "frame.comment"]);
    let paired =
        comments.iter().filter(|comment| comment.contains("the socket has packets of its own; client port made up"));
    assert_eq!(paired.count(), 9);
}

#[test]
fn requests_that_could_be_either_of_two_sockets_get_no_address_of_a_socket() {
    // All clients ask for the same.
    let text = String::from_utf8(interleaved()).unwrap();
    let stream = {
        use base64_simd::STANDARD;
        let mut out = String::new();
        for line in text.lines() {
            let replaced = line.split_once("\"as_bytes\": \"").and_then(|(before, rest)| {
                let (data, after) = rest.split_once('"')?;
                let bytes = STANDARD.decode_to_vec(data).ok()?;
                let bytes =
                    String::from_utf8(bytes).ok()?.replace("/client1/", "/client0/").replace("body of 1", "body of 0");
                Some(format!("{before}\"as_bytes\": \"{}\"{after}", STANDARD.encode_to_string(bytes)))
            });
            out.push_str(&replaced.unwrap_or_else(|| line.replace("/client1/", "/client0/")));
            out.push('\n');
        }
        out.into_bytes()
    };
    // Each message of a client's sockets comes before all messages of HTTP taps, as when both clients ask at once.
    let mut messages: Vec<&[u8]> = stream
        .split_inclusive(|byte| *byte == b'\n')
        .collect::<Vec<_>>()
        .chunk_by(|line, _| *line != b"}\n")
        .map(|lines| {
            let start = lines[0].as_ptr() as usize - stream.as_ptr() as usize;
            &stream[start..start + lines.iter().map(|line| line.len()).sum::<usize>()]
        })
        .collect();
    let is_http = |message: &&[u8]| memchr::memmem::find(message, b"http_streamed").is_some();
    let is_read = |message: &&[u8]| {
        memchr::memmem::find(message, b"\"write\"").is_none() && memchr::memmem::find(message, b"\"closed\"").is_none()
    };
    messages.sort_by_key(|message| {
        if is_http(message) {
            1
        } else if is_read(message) {
            0
        } else {
            2
        }
    });
    let sorted = messages.concat();
    let envoy = sending(sorted);
    let dir = Dir::new("requests_that_could_be_either_of_two_soc");
    let capture = dir.path().join("live.pcapng");
    Live::start(&envoy.url(), &capture, &["--once"]).ended().expect_no_panic();
    let made_up = |path: &str| ends_of(&capture, path).iter().filter(|ends| ends.starts_with("198.1")).count();
    assert_eq!(made_up("/client0/ok0"), 2);
    assert_eq!(made_up("/client2/ok0"), 0);
}

#[test]
fn a_signal_completes_the_capture() {
    for signal in [Signal::INT, Signal::TERM] {
        let envoy = FakeEnvoy::with_one_tap(|tap| {
            tap.accept();
            send_in_pieces(tap, &interleaved());
            tap.wait_for_end();
        });
        let live = Live::start(&envoy.url(), "-", &[]);
        live.wait_for_payload(b"answer to /client2/ok2");
        live.wait_for_payload(b"answer to /client0/ok2");
        live.signal(signal);
        let run = live.ended().expect_status(0);
        let dir = Dir::new("a_signal_completes_the_capture");
        let capture = dir.path().join("live.pcapng");
        fs::write(&capture, &run.stdout).unwrap();
        assert!(conversations(&capture).len() >= 8);
    }
}

#[test]
fn what_has_no_time_has_that_of_its_arrival() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let only_http: Vec<u8> = {
        let text = String::from_utf8(interleaved()).unwrap();
        let messages = text.split_inclusive("\n}\n");
        messages.filter(|message| message.contains("http_streamed")).collect::<String>().into_bytes()
    };
    let envoy = sending(only_http);
    let dir = Dir::new("what_has_no_time_has_that_of_its_arrival");
    let capture = dir.path().join("live.pcapng");
    let before = now();
    Live::start(&envoy.url(), &capture, &["--once"]).ended().expect_status(0);
    let after = now();
    let times = tshark::lines(&capture, &["-T", "fields", "-e", "frame.time_epoch"]);
    assert!(times.len() > 9 * 4);
    for time in times {
        let time: f64 = time.parse().unwrap();
        assert!((before..=after).contains(&time), "{before} {time} {after}");
    }
    let comments = tshark::lines(&capture, &["-Y", "frame.comment", "-T", "fields", "-e", "frame.comment"]);
    assert!(comments.iter().filter(|comment| comment.contains("the time of its arrival")).count() >= 9);
}

#[test]
fn envoy_is_tapped_again_after_it_was_gone() {
    let stream = interleaved();
    let cut = memchr::memmem::find(&stream, b"\n}\n{").unwrap() + 3;
    let envoy = FakeEnvoy::with_one_tap(move |tap| {
        if tap.number == 1 {
            return tap.refuse("503 Service Unavailable", "not yet");
        }
        tap.accept();
        match tap.number {
            // It breaks off in the middle of a message.
            0 => tap.send(&stream[..cut + 100]).unwrap(),
            _ => {
                send_in_pieces(tap, &stream);
                tap.wait_for_end();
            }
        }
    });
    let live = Live::start(&envoy.url(), "-", &[]);
    live.wait_for("tapped again");
    live.wait_for_payload(b"answer to /client2/ok2");
    live.wait_for_payload(b"answer to /client0/ok2");
    let run = live.end().expect_no_panic();
    assert!(run.stderr.contains("broke off") && run.stderr.contains("not yet"), "{run:?}");
    // A message was cut.
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    let dir = Dir::new("envoy_is_tapped_again_after_it_was_gone");
    let capture = dir.path().join("live.pcapng");
    fs::write(&capture, &run.stdout).unwrap();
    // The connections of both taps, which have the same addresses here.
    let streams = tshark::lines(
        &capture,
        &["-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 0", "-T", "fields", "-e", "frame.interface_name"],
    );
    let of_second = streams.iter().filter(|interface| interface.ends_with(" (2)")).count();
    assert!(of_second >= 15 && streams.len() > of_second, "{streams:?}");
}

#[test]
fn what_cannot_be_tapped_is_an_error_and_leaves_no_file() {
    let refusing =
        |status: &'static str, words: &'static str| FakeEnvoy::with_one_tap(move |tap| tap.refuse(status, words));
    let busy = refusing("400 Bad Request", "An attached /tap admin stream already exists. Detach it.");
    let unknown = refusing("400 Bad Request", "Unknown config id 'tap'. No extension has registered with this id.");
    let missing = refusing("404 Not Found", "invalid path. admin commands are:");
    let broken = refusing("500 Internal Server Error", "\u{1b}[31mno");
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (url, words) in [
        (busy.url(), "another tap is active"),
        (unknown.url(), "no tap with the config_id"),
        (missing.url(), "tap2pcap tap-config"),
        (broken.url(), "status 500"),
        (nobody, "cannot connect"),
    ] {
        let dir = Dir::new("what_cannot_be_tapped_is_an_error_and_le");
        let run = Live::start(&url, dir.path().join("live.pcapng"), &["--config-id", "tap"]).ended();
        let run = run.expect_status(2).expect_stderr(words);
        assert!(!run.stderr.contains('\u{1b}'));
        assert!(dir.names().is_empty(), "{:?}", dir.names());
    }
}

#[test]
fn without_an_output_the_taps_are_listed() {
    let envoy = FakeEnvoy::with_one_tap(|_| ());
    let run = tap2pcap().args(&["live", &envoy.url()]).run().expect_clean();
    let mut lines: Vec<_> = run.stdout_text().lines().collect();
    lines.sort_unstable();
    let kinds = ["HTTP requests", "sockets of clients"];
    assert_eq!(lines, kinds.map(|kind| format!("tap  {kind}  listener ingress, filter chain 1")));
    assert_eq!(envoy.taps(), 0);
}

#[test]
fn the_request_says_what_is_to_be_tapped() {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let envoy = FakeEnvoy::with_one_tap(move |tap| {
        sender.lock().unwrap().send(tap.request.clone()).unwrap();
        tap.accept();
        // Whole traces, for those who count them.
        let _ = tap.send(&b"{\n}\n".repeat(3));
        tap.end();
    });
    let asked = |more: &[&str]| -> serde_json::Value {
        let dir = Dir::new("the_request_says_what_is_to_be_tapped");
        Live::start(&envoy.url(), dir.path().join("live.pcapng"), &[&["--once"], more].concat()).ended();
        serde_json::from_str(&receiver.recv_timeout(PATIENCE).unwrap()).unwrap()
    };
    let plain = asked(&[]);
    assert_eq!(plain["config_id"], "tap");
    let output = &plain["tap_config"]["output_config"];
    assert_eq!(output["max_buffered_rx_bytes"], 1 << 20);
    assert_eq!(output["max_buffered_tx_bytes"], 1 << 20);
    assert_eq!(output["sinks"][0]["format"], "JSON_BODY_AS_BYTES");
    assert_eq!(output["streaming"], true);
    let matched = asked(&["--header", "x-a=b", "--path", "/api", "--max-rx", "4K", "--match", "any_match: true"]);
    let text = matched["tap_config"]["match"].to_string();
    assert!(text.contains("x-a") && text.contains("/api") && text.contains("any_match"), "{text}");
    assert_eq!(matched["tap_config"]["output_config"]["max_buffered_rx_bytes"], 4096);
    let first = asked(&["--max-traces", "3", "--for", "20s"]);
    // A tap with `buffered_admin` would harm Envoy, so live counts the traces.
    let output = &first["tap_config"]["output_config"];
    assert_eq!(output["sinks"], serde_json::json!([{ "format": "JSON_BODY_AS_BYTES", "streaming_admin": {} }]));
    assert_eq!(output["streaming"], false);
}

#[test]
fn a_time_limit_ends_it() {
    let envoy = FakeEnvoy::with_one_tap(|tap| {
        tap.accept();
        tap.wait_for_end();
    });
    let dir = Dir::new("a_time_limit_ends_it");
    let capture = dir.path().join("live.pcapng");
    Live::start(&envoy.url(), &capture, &["--for", "300ms"]).ended().expect_status(0);
    assert!(tshark::read(&capture).is_empty());
}

#[test]
fn only_connections_with_a_match_are_written_and_they_are_whole() {
    let envoy = sending(interleaved());
    let dir = Dir::new("only_connections_with_a_match_are_writte");
    let capture = dir.path().join("live.pcapng");
    let filter = r#"request.path == "/client1/fail1" && response.code == 503"#;
    let run = Live::start(&envoy.url(), &capture, &["--once", "--where", filter]).ended().expect_status(0);
    assert!(run.stderr.contains(" of ") && run.stderr.contains(" match"), "{run:?}");
    let said: Vec<u8> = conversations(&capture).into_values().flatten().collect();
    let has = |text: &str| memchr::memmem::find(&said, text.as_bytes()).is_some();
    // What came before the match on the same connection, and after it.
    assert!(has("POST /client1/ok0 ") && has("POST /client1/fail1 ") && has("answer to /client1/ok2"));
    let run =
        Live::start(&envoy.url(), &capture, &["--once", "--where", "response.code == 404"]).ended().expect_status(0);
    assert!(run.stderr.contains("0 of "), "{run:?}");
    assert!(tshark::read(&capture).is_empty());
}

#[test]
fn a_ring_keeps_the_last_captures() {
    let envoy = sending(interleaved());
    let dir = Dir::new("a_ring_keeps_the_last_captures");
    let more = ["--once", "--split", "size=2K", "--keep", "3"];
    Live::start(&envoy.url(), dir.path().join("ring.pcapng"), &more).ended().expect_status(0);
    let names = dir.names();
    assert_eq!(names.len(), 3, "{names:?}");
    let number = |name: &str| name.trim_end_matches(".pcapng").rsplit('-').next().unwrap().parse::<u32>().unwrap();
    let numbers: Vec<_> = names.iter().map(|name| number(name)).collect();
    assert!(numbers[0] > 3 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    names.iter().for_each(|name| assert!(!tshark::read(&dir.path().join(name)).is_empty()));
    Live::start(&envoy.url(), dir.path().join("ring.pcapng"), &["--keep", "3"]).ended().expect_status(2);
}

#[test]
fn envoy_never_waits_for_the_reader_of_the_capture() {
    // Two pipes of 64 KiB and a megabyte of buffers would be full many times over.
    const COUNT: usize = 400;
    let message = large_message();
    let (done, sent) = mpsc::channel();
    let done = Mutex::new(done);
    let envoy = FakeEnvoy::with_one_tap(move |tap| {
        tap.accept();
        for _ in 0..COUNT {
            tap.send(message.as_bytes()).unwrap();
        }
        tap.end();
        done.lock().unwrap().send(()).unwrap();
    });
    let mut child = Command::new(PROGRAM)
        .args(["live", &envoy.url(), "-", "--once", "--quiet"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Nobody has read a byte of the capture.
    sent.recv_timeout(PATIENCE).unwrap();
    let mut capture = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut capture).unwrap();
    assert!(child.wait().unwrap().code().is_some_and(|code| code <= 1));
    assert!(capture.len() > COUNT * 90_000, "{}", capture.len());
}

#[test]
fn the_tap_is_paused_while_too_much_waits() {
    let message = large_message();
    let (ended, end) = mpsc::channel();
    let ended = Mutex::new(ended);
    let envoy = FakeEnvoy::with_one_tap(move |tap| {
        tap.accept();
        if tap.number == 0 {
            while tap.send(message.as_bytes()).is_ok() {}
            ended.lock().unwrap().send(()).unwrap();
        } else {
            send_in_pieces(tap, &interleaved());
            tap.wait_for_end();
        }
    });
    let mut child = Command::new(PROGRAM)
        .args(["live", &envoy.url(), "-", "--max-backlog", "1M"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Envoy's side of the connection is closed, though nobody has read a byte of the capture.
    end.recv_timeout(PATIENCE).unwrap();
    assert_eq!(envoy.taps(), 1);
    let (mut stdout, mut capture) = (child.stdout.take().unwrap(), Vec::new());
    let mut buffer = vec![0; 1 << 16];
    while memchr::memmem::find(&capture, b"answer to /client2/ok2").is_none() {
        let count = stdout.read(&mut buffer).unwrap();
        capture.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(envoy.taps(), 2);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    stdout.read_to_end(&mut capture).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("read too slowly"), "{said}");
}

#[test]
fn datagrams_of_envoys_udp_sink_are_converted() {
    let dir = Dir::new("datagrams_of_envoys_udp_sink_are_convert");
    for (input, split) in [
        ("testdata/tap/http1_str_JSON_BODY_AS_BYTES_15.json", b"\n}\n".as_slice()),
        ("testdata/tap/http1_str_PROTO_TEXT_19.pb_text", b"\n}\n"),
        ("testdata/tap/http1_str_PROTO_BINARY_LENGTH_DELIMITED_18.pb_length_delimited", b""),
    ] {
        let input = Path::new(crate::util::ROOT).join(input);
        let bytes = fs::read(&input).unwrap();
        let mut messages: Vec<Vec<u8>> = Vec::new();
        if split.is_empty() {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let len = usize::try_from(prost::encoding::decode_varint(&mut rest).unwrap()).unwrap();
                messages.push(rest[..len].to_vec());
                rest = &rest[len..];
            }
        } else {
            let mut rest = bytes.as_slice();
            while let Some(end) = memchr::memmem::find(rest, split) {
                messages.push(rest[..end + split.len()].to_vec());
                rest = &rest[end + split.len()..];
            }
        }
        assert!(messages.len() > 3);
        let (live, place) = receiving();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (expected, got) = (dir.path().join("file.pcapng"), dir.path().join("udp.pcapng"));
        convert(&[], &input, &expected).run().expect_clean();
        let expected = conversations(&expected);
        for message in &messages {
            socket.send_to(message, &place).unwrap();
        }
        let last = expected.values().max_by_key(|bytes| bytes.len()).unwrap();
        live.wait_for_payload(&last[last.len().saturating_sub(20)..]);
        let run = live.end().expect_status(0);
        fs::write(&got, &run.stdout).unwrap();
        assert_eq!(conversations(&got), expected, "{}", input.display());
    }
}

#[test]
fn silence_is_explained() {
    let envoy = FakeEnvoy::start(|tap| {
        tap.accept();
        tap.wait_for_end();
    });
    let dir = Dir::new("silence_is_explained");
    let dump = tap2pcap().args(&["live", &envoy.url()]).run().expect_clean();
    let config_id = dump.stdout_text().split_whitespace().next().unwrap().to_owned();
    let live = Live::start(&envoy.url(), dir.path().join("live.pcapng"), &["--config-id", &config_id]);
    live.wait_for("nothing was tapped in 10 s");
    live.end().expect_status(0);
}

/// What one connection's clients and an HTTP tap send, in the order of the arguments.
fn messages(parts: &[&str]) -> Vec<u8> {
    parts.iter().map(|part| format!("{}\n", part.replace('\'', "\""))).collect::<String>().into_bytes()
}

const CONNECTION: &str = "{'socket_streamed_trace_segment': {'trace_id': '1', 'connection': {
    'local_address': {'socket_address': {'address': '10.0.0.2', 'port_value': 8080}},
    'remote_address': {'socket_address': {'address': '10.0.0.1', 'port_value': 1111}}}}}";

/// Bytes that Envoy read.
fn read(bytes: &str) -> String {
    let data = base64_simd::STANDARD.encode_to_string(bytes);
    format!(
        "{{'socket_streamed_trace_segment': {{'trace_id': '1', 'event': {{'timestamp': '2026-11-26T10:00:00Z',
         'read': {{'data': {{'as_bytes': '{data}'}}}}}}}}}}"
    )
}

/// The head of a request for `/events` in a segment of an HTTP tap.
fn head(trace_id: u32, path: &str, more: &[(&str, &str)]) -> String {
    let own = [(":method", "GET"), (":path", path), (":authority", "a"), (":scheme", "http")];
    let fields: Vec<_> =
        own.iter().chain(more).map(|(key, value)| format!("{{'key': '{key}', 'value': '{value}'}}")).collect();
    format!(
        "{{'http_streamed_trace_segment': {{'trace_id': '{trace_id}', 'request_headers': {{'headers': [{}]}}}}}}",
        fields.join(", ")
    )
}

/// The clients' addresses of the exchanges that HTTP taps recorded.
fn clients_of_taps(test: &str, stream: Vec<u8>) -> Vec<String> {
    let envoy = sending(stream);
    let dir = Dir::new(test);
    let capture = dir.path().join("live.pcapng");
    Live::start(&envoy.url(), &capture, &["--once"]).ended().expect_no_panic();
    let comments = "frame.comment contains \"HTTP tap\"";
    tshark::lines(&capture, &["-Y", comments, "-T", "fields", "-e", "ip.src"])
}

#[test]
fn only_a_request_with_the_same_fields_that_has_just_come_gives_its_address() {
    let asks = read("GET /events HTTP/1.1\r\nHost: a\r\nAccept: x\r\n\r\n");
    let of = |more: &[(&str, &str)]| {
        clients_of_taps("only_a_request", messages(&[CONNECTION, &asks, &head(7, "/events", more)]))
    };
    // What Envoy adds does not matter.
    assert_eq!(of(&[("accept", "x"), ("x-request-id", "1"), ("x-forwarded-proto", "http")]), ["10.0.0.1"]);
    assert_eq!(of(&[("accept", "x"), ("x-forwarded-for", "1.1.1.1,10.0.0.1")]), ["10.0.0.1"]);
    for other in [
        &[("accept", "x"), ("authorization", "Bearer BOB")][..],
        &[("accept", "y")],
        &[],
        &[("accept", "x"), ("x-forwarded-for", "10.9.9.9")],
    ] {
        let clients = of(other);
        assert!(clients.len() == 1 && clients[0].starts_with("198."), "{other:?}: {clients:?}");
    }
}

#[test]
fn pipelined_requests_each_have_the_address_of_their_socket() {
    let asks = read("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    let stream = messages(&[CONNECTION, &asks, &head(7, "/a", &[]), &head(8, "/b", &[])]);
    assert_eq!(clients_of_taps("pipelined", stream), ["10.0.0.1", "10.0.0.1"]);
}

#[test]
fn a_message_that_the_end_of_the_time_cuts_is_no_damage() {
    let envoy = FakeEnvoy::with_one_tap(|tap| {
        tap.accept();
        let stream = interleaved();
        tap.send(&stream[..stream.len() - 40]).unwrap();
        tap.wait_for_end();
    });
    let dir = Dir::new("the_end_of_the_time");
    let capture = dir.path().join("live.pcapng");
    let run = Live::start(&envoy.url(), &capture, &["--for", "1s"]).ended().expect_status(0);
    assert!(!run.stderr.contains("error"), "{run:?}");
    assert!(conversations(&capture).len() >= 8);
}

#[test]
fn a_second_signal_ends_it_soon_and_keeps_the_capture() {
    let (started, start) = mpsc::channel();
    let started = Mutex::new(started);
    let envoy = FakeEnvoy::with_one_tap(move |tap| {
        tap.accept();
        let stream = interleaved().repeat(16);
        for round in 0.. {
            if tap.send(&stream).is_err() {
                return;
            }
            if round == 20 {
                started.lock().unwrap().send(()).unwrap();
            }
        }
    });
    let dir = Dir::new("a_second_signal");
    let capture = dir.path().join("live.pcapng");
    let live = Live::start(&envoy.url(), &capture, &[]);
    start.recv_timeout(PATIENCE).unwrap();
    live.signal(Signal::INT);
    live.signal(Signal::TERM);
    let run = live.ended().expect_no_panic();
    assert!(run.status.code().is_some_and(|code| code <= 1), "{run:?}");
    assert!(!tshark::lines(&capture, &["-c", "10"]).is_empty());
    assert_eq!(dir.names(), ["live.pcapng"]);
}

#[test]
fn captures_of_an_earlier_run_are_left_alone() {
    let envoy = sending(interleaved());
    let dir = Dir::new("captures_of_an_earlier_run");
    let capture = dir.path().join("ring.pcapng");
    dir.create("ring-00003.pcapng", "earlier");
    let more = ["--once", "--split", "size=2K", "--keep", "3"];
    let run = Live::start(&envoy.url(), &capture, &more).ended().expect_status(2).expect_stderr("ring-00003.pcapng");
    assert!(run.stderr.contains("--force"));
    assert_eq!((envoy.taps(), fs::read(dir.path().join("ring-00003.pcapng")).unwrap()), (0, b"earlier".to_vec()));
    Live::start(&envoy.url(), &capture, &[&more[..], &["--force"]].concat()).ended().expect_status(0);
}

#[test]
fn what_is_no_trace_does_not_keep_datagrams_from_being_converted() {
    let (live, place) = receiving();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for garbage in [&b"x"[..], b"", b"\x0a\x7b", b"GET / HTTP/1.1\r\n\r\n"] {
        socket.send_to(garbage, &place).unwrap();
    }
    for message in [CONNECTION.replace('\'', "\""), read("hello").replace('\'', "\"")] {
        socket.send_to(message.as_bytes(), &place).unwrap();
    }
    live.wait_for_payload(b"hello");
    let run = live.end().expect_status(1);
    assert!(run.stderr.contains("is no trace"), "{run:?}");
    for option in [["--path", "/x"], ["--config-id", "tap"], ["--max-traces", "3"]] {
        Live::start("udp://127.0.0.1:0", "-", &option).ended().expect_status(2).expect_stderr(option[0]);
    }
}

#[test]
fn the_list_of_taps_has_no_control_characters() {
    let listed = FakeEnvoy::with_tap_named("a\\u001b]0;b\\u202e", |_| ());
    let run = tap2pcap().args(&["live", &listed.url()]).run().expect_clean();
    assert!(run.stdout_text().lines().count() == 2 && !run.stdout_text().contains(['\u{1b}', '\u{202e}']), "{run:?}");
}
