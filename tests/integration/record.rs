//! `tap2pcap record` as a program: what clients, servers and trace files see.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use tap2pcap::proto::tap::{
    Body, SocketBufferedTrace, SocketEvent, TraceWrapper, body::BodyType, socket_event::EventSelector,
    socket_streamed_trace_segment::MessagePiece, trace_wrapper::Trace,
};

use crate::wait::{Idle, PATIENCE, wait_until};

/// A running `tap2pcap record`.
pub struct Record {
    pub child: Child,
    stderr: BufReader<ChildStderr>,
    pub listening: Vec<String>,
    /// What it has printed, except where it listens.
    said: String,
}

impl Record {
    pub fn start<'a>(arguments: impl IntoIterator<Item = &'a str>, listeners: usize) -> Self {
        Self::start_with(arguments, listeners, Stdio::inherit())
    }

    pub fn start_with<'a>(arguments: impl IntoIterator<Item = &'a str>, listeners: usize, stdout: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tap2pcap"))
            .arg("record")
            .args(arguments)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut record = Self { child, stderr, listening: Vec::new(), said: String::new() };
        while record.listening.len() < listeners {
            let mut line = String::new();
            record.stderr.read_line(&mut line).expect("UTF-8");
            assert!(!line.is_empty(), "it ended: {}", record.said);
            match line.strip_prefix("note: listening on ").and_then(|rest| rest.split_once(", ")) {
                Some((address, _)) => record.listening.push(address.to_owned()),
                None => record.said += &line,
            }
        }
        record
    }

    /// One listener, on a port that the system chooses.
    pub fn quick(prefix: &Path, to: &str, more: &[&str]) -> Self {
        let prefix = prefix.to_str().expect("UTF-8");
        let fixed = ["--listen", "127.0.0.1:0", "--to", to, "--path-prefix", prefix];
        Self::start(fixed.into_iter().chain(more.iter().copied()), 1)
    }

    pub fn address(&self) -> SocketAddr {
        self.listening[0].parse().expect("an address")
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Ends it with a signal, as a user would, and returns its status and what it has printed.
    pub fn end(self, signal: Signal) -> (Option<i32>, String) {
        self.signal(signal);
        self.wait()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Sends to the relay until the relay takes no more and waits. Returns how much it took.
    #[track_caller]
    pub fn send_until_held_back(&self, mut client: &TcpStream) -> u64 {
        client.set_nonblocking(true).expect("connected");
        let block = vec![b'x'; 1 << 20];
        let mut sent = 0;
        let mut idle = Idle::of(self.child.id());
        wait_until("the relay holds the client back", || {
            let refused = loop {
                match client.write(&block) {
                    Ok(written) => sent += written as u64,
                    Err(error) => break error.kind(),
                }
                assert!(sent < 1 << 30, "nothing holds the client back");
            };
            assert_eq!(refused, ErrorKind::WouldBlock);
            idle.look()
        });
        client.set_nonblocking(false).expect("connected");
        sent
    }

    /// Waits for its end, and returns its status and what it has printed.
    pub fn wait(mut self) -> (Option<i32>, String) {
        self.stderr.read_to_string(&mut self.said).expect("UTF-8");
        let status = self.child.wait().expect("it ends");
        (status.code(), std::mem::take(&mut self.said))
    }

    #[track_caller]
    pub fn end_well(self) {
        assert_eq!(self.end(Signal::TERM), (Some(0), String::new()));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // This matters only if a test failed. Otherwise the program has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends back everything that it receives, and ends when its peer does.
pub fn echo_server() -> SocketAddr {
    serve(|mut stream| {
        let mut buffer = [0; 65536];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..read]).expect("the peer reads");
        }
    })
}

pub fn serve(answer: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || answer(stream.expect("a connection")));
        }
    });
    address
}

/// A port that nobody listens on.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

pub fn ask(stream: &mut (impl Read + Write), question: &[u8]) -> Vec<u8> {
    stream.write_all(question).expect("it reads");
    let mut answer = vec![0; question.len()];
    stream.read_exact(&mut answer).expect("an answer");
    answer
}

/// All files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable"));
    entries.map(|entry| (entry.file_name().into_string().expect("UTF-8"), entry.path())).collect()
}

fn buffered(path: &Path) -> SocketBufferedTrace {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match TraceWrapper::decode(bytes.as_slice()).expect("a message").trace {
        Some(Trace::SocketBufferedTrace(trace)) => trace,
        other => panic!("{other:?}"),
    }
}

fn streamed(path: &Path) -> Vec<MessagePiece> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut rest = bytes.as_slice();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        match TraceWrapper::decode_length_delimited(&mut rest).expect("a message").trace {
            Some(Trace::SocketStreamedTraceSegment(segment)) => {
                pieces.push(segment.message_piece.expect("a piece"));
            }
            other => panic!("{other:?}"),
        }
    }
    pieces
}

/// `<` for what was read, `>` for what was written, `|` for an end of stream, `.` for the close.
fn shown(events: &[SocketEvent]) -> String {
    fn text(body: Option<&Body>) -> String {
        match body.and_then(|body| body.body_type.as_ref()) {
            Some(BodyType::AsBytes(bytes)) => bytes.escape_ascii().to_string(),
            other => panic!("{other:?}"),
        }
    }
    let event = |event: &SocketEvent| match &event.event_selector {
        Some(EventSelector::Read(read)) => format!("<{}", text(read.data.as_ref())),
        Some(EventSelector::Write(write)) => {
            format!(">{}{}", text(write.data.as_ref()), if write.end_stream { "|" } else { "" })
        }
        Some(EventSelector::Closed(_)) => ".".to_owned(),
        None => panic!("an event without a kind"),
    };
    events.iter().map(event).collect::<Vec<_>>().join(" ")
}

fn shown_pieces(pieces: &[MessagePiece]) -> String {
    let Some((MessagePiece::Connection(_), events)) = pieces.split_first() else { panic!("{pieces:?}") };
    let events = events.iter().map(|piece| match piece {
        MessagePiece::Event(event) => event.clone(),
        other => panic!("{other:?}"),
    });
    shown(&events.collect::<Vec<_>>())
}

#[test]
fn each_connection_gets_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    // `record` makes the folder.
    let record = Record::quick(&folder.path().join("new/tap"), &echo_server().to_string(), &[]);
    for _ in 0..2 {
        assert_eq!(ask(&mut record.connect(), b"hello"), b"hello");
    }
    record.end_well();
    // The connections to the server take ids, too, as they do in Envoy.
    assert_eq!(files(&folder.path().join("new")).into_keys().collect::<Vec<_>>(), ["tap_0.pb", "tap_2.pb"]);
    assert_eq!(shown(&buffered(&folder.path().join("new/tap_0.pb")).events), "<hello >hello");
}

#[test]
fn each_format_has_its_suffix() {
    let echo = echo_server().to_string();
    for (format, suffix) in [
        ("binary", "pb"),
        ("delimited", "pb_length_delimited"),
        ("text", "pb_text"),
        ("json", "json"),
        ("json-string", "json"),
        ("PROTO_TEXT", "pb_text"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let record = Record::quick(&folder.path().join("tap"), &echo, &["--format", format, "--streaming"]);
        assert_eq!(ask(&mut record.connect(), b"hello"), b"hello");
        record.end_well();
        assert_eq!(files(folder.path()).into_keys().collect::<Vec<_>>(), [format!("tap_0.{suffix}")]);
    }
}

#[test]
fn each_direction_is_cut_at_its_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let record =
        Record::quick(&folder.path().join("tap"), &echo_server().to_string(), &["--max-rx", "3", "--max-tx", "7"]);
    assert_eq!(ask(&mut record.connect(), b"hello"), b"hello");
    record.end_well();
    let trace = buffered(&folder.path().join("tap_0.pb"));
    assert_eq!(shown(&trace.events), "<hel >hello");
    assert!(trace.read_truncated && !trace.write_truncated);
}

#[test]
fn connections_that_are_open_at_the_end_have_complete_traces() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().expect("a folder");
        let echo = echo_server().to_string();
        let whole = Record::quick(&folder.path().join("whole"), &echo, &[]);
        let parts = Record::quick(&folder.path().join("parts"), &echo, &["--streaming", "--format", "delimited"]);
        // This connection is accepted first, so it is open when the others have their answers.
        let _idle = whole.connect();
        let (mut one, mut other) = (whole.connect(), parts.connect());
        assert_eq!((ask(&mut one, b"one"), ask(&mut other, b"other")), (b"one".to_vec(), b"other".to_vec()));
        // A streamed trace can be read while it grows. The answer arrives here a moment before it is in the trace.
        let growing = folder.path().join("parts_0.pb_length_delimited");
        wait_until("the answer is in the trace", || shown_pieces(&streamed(&growing)) == "<other >other");
        assert_eq!(whole.end(signal), (Some(0), String::new()));
        assert_eq!(parts.end(signal), (Some(0), String::new()));
        assert_eq!(shown(&buffered(&folder.path().join("whole_0.pb")).events), "");
        assert_eq!(shown(&buffered(&folder.path().join("whole_2.pb")).events), "<one >one");
        assert_eq!(shown_pieces(&streamed(&growing)), "<other >other .");
    }
}

#[test]
fn an_upstream_that_refuses_closes_downstream() {
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = nobody().to_string();
    let record = Record::quick(&folder.path().join("tap"), &nobody, &[]);
    let mut client = record.connect();
    assert_eq!(client.read(&mut [0; 1]).expect("an end"), 0);
    let (status, said) = record.end(Signal::TERM);
    assert_eq!(status, Some(0));
    assert_eq!(said, format!("warning: cannot connect to {nobody}: Connection refused (os error 111)\n"));
    assert_eq!(shown(&buffered(&folder.path().join("tap_0.pb")).events), "");
}

#[test]
fn half_closes_pass_on() {
    let folder = tempfile::tempdir().expect("a folder");
    // The server counts what it receives until its end, and only then answers.
    let server = serve(|mut stream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question).expect("an end");
        stream.write_all(format!("{} bytes", question.len()).as_bytes()).expect("the peer reads");
    });
    let record = Record::quick(&folder.path().join("tap"), &server.to_string(), &[]);
    let mut client = record.connect();
    client.write_all(&[b'?'; 100]).expect("it reads");
    client.shutdown(Shutdown::Write).expect("connected");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "100 bytes");
    drop(client);
    record.end_well();
}

#[test]
fn resets_pass_on_both_ways() {
    let folder = tempfile::tempdir().expect("a folder");
    let reset = |stream: TcpStream| {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("connected");
    };
    // The server resets if it is asked to. Otherwise it reports the byte, and then how the connection ended.
    let (report, reported) = std::sync::mpsc::channel();
    let server = serve(move |mut stream| {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).expect("a byte");
        match byte {
            [b'r'] => reset(stream),
            _ => {
                report.send(Ok(1)).expect("heard");
                report.send(stream.read(&mut byte).map_err(|error| error.kind())).expect("heard");
            }
        }
    });
    let record = Record::quick(&folder.path().join("tap"), &server.to_string(), &[]);
    let mut client = record.connect();
    client.write_all(b"r").expect("it reads");
    assert_eq!(client.read(&mut [0; 1]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    let mut client = record.connect();
    client.write_all(b"x").expect("it reads");
    // A reset may overtake the byte, so the byte has to arrive first.
    assert_eq!(reported.recv_timeout(PATIENCE).expect("a report"), Ok(1));
    reset(client);
    assert_eq!(reported.recv_timeout(PATIENCE).expect("a report"), Err(ErrorKind::ConnectionReset));
    record.end_well();
    assert_eq!(shown(&buffered(&folder.path().join("tap_0.pb")).events), "<r");
    assert_eq!(shown(&buffered(&folder.path().join("tap_2.pb")).events), "<x");
}

#[test]
fn unix_sockets_are_relayed_on_both_sides() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listen, to) = (folder.path().join("listen.sock"), folder.path().join("to.sock"));
    let server = UnixListener::bind(&to).expect("a path");
    thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("a connection");
        let mut byte = [0; 4];
        stream.read_exact(&mut byte).expect("bytes");
        stream.write_all(&byte).expect("the peer reads");
    });
    // An earlier run left its socket there.
    drop(UnixListener::bind(&listen).expect("a path"));
    let (listen, to) = (listen.to_str().expect("UTF-8"), format!("unix:{}", to.display()));
    let prefix = folder.path().join("tap");
    let prefix = prefix.to_str().expect("UTF-8");
    let record = Record::start(["--listen", listen, "--to", &to, "--path-prefix", prefix, "--format", "text"], 1);
    assert_eq!(ask(&mut UnixStream::connect(listen).expect("it listens"), b"ping"), b"ping");
    record.end_well();
    let trace = fs::read_to_string(folder.path().join("tap_0.pb_text")).expect("a trace");
    assert_eq!(trace.matches(&format!("path: \"{listen}\"")).count(), 2, "{trace}");
    assert!(!Path::new(listen).exists());
}

#[test]
fn tls_is_spoken_on_both_sides_and_not_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(path("cert.pem"), made.cert.pem()).expect("writable");
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("writable");
    let terminates = Record::quick(
        &folder.path().join("terminates"),
        &echo_server().to_string(),
        &["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem"), "--max-tx", "9999"],
    );
    // The server has a name, so that TLS asks for it.
    let to = format!("localhost:{}", terminates.address().port());
    let originates = Record::quick(&folder.path().join("originates"), &to, &["--to-tls", "--max-rx", "9999"]);
    let question: Vec<u8> = (0..=255).cycle().take(5000).collect();
    assert_eq!(ask(&mut originates.connect(), &question), question);
    let mut stray = terminates.connect();
    stray.write_all(b"this is no TLS at all").expect("it reads");
    let mut alert = Vec::new();
    stray.read_to_end(&mut alert).expect("an end");
    let (status, said) = terminates.end(Signal::TERM);
    assert_eq!(status, Some(0));
    assert!(said.starts_with("warning: no TLS with 127.0.0.1:"), "{said}");
    originates.end(Signal::TERM);
    let written = |name: &str| -> Vec<u8> {
        let trace = buffered(&folder.path().join(name));
        let bodies = trace.events.into_iter().filter_map(|event| match event.event_selector {
            Some(EventSelector::Write(write)) => write.data.and_then(|data| data.body_type),
            _ => None,
        });
        bodies
            .flat_map(|body| match body {
                BodyType::AsBytes(bytes) => bytes,
                BodyType::AsString(string) => string.into_bytes(),
            })
            .collect()
    };
    assert_eq!(written("terminates_0.pb"), question);
    assert_eq!(written("originates_0.pb"), question[..1024]);
}

#[test]
fn a_peer_that_does_not_read_holds_the_other_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = Record::quick(&folder.path().join("tap"), &echo_server().to_string(), &[]);
    let mut client = record.connect();
    let sent = record.send_until_held_back(&client);
    client.shutdown(Shutdown::Write).expect("connected");
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    while let read @ 1.. = client.read(&mut buffer).expect("an answer") {
        received += read as u64;
    }
    assert_eq!(received, sent);
    record.end_well();
}

#[test]
fn traces_that_cannot_be_written_do_not_stop_the_traffic() {
    // A file stands where the folder of the traces was.
    let folder = tempfile::tempdir().expect("a folder");
    let traces = folder.path().join("traces");
    let record = Record::quick(&traces.join("tap"), &echo_server().to_string(), &[]);
    fs::remove_dir(&traces).expect("made by record");
    fs::write(&traces, "in the way").expect("writable");
    assert_eq!(ask(&mut record.connect(), b"hello"), b"hello");
    let (status, said) = record.end(Signal::TERM);
    assert_eq!(status, Some(1));
    let path = traces.join("tap_0.pb");
    assert_eq!(said, format!("error: a trace is lost: {}: Not a directory (os error 20)\n", path.display()));
}

pub fn refused(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tap2pcap")).arg("record").args(arguments).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn what_record_cannot_do_is_refused_before_anything_is_relayed() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    assert_eq!(
        refused(&["--listen", &taken, "--to", "127.0.0.1:1", "--path-prefix", "/tmp/tap"]),
        format!("error: cannot listen on {taken}: Address already in use (os error 98)\n")
    );
    let said = refused(&["--listen", "nonsense", "--to", "127.0.0.1:1", "--path-prefix", "/tmp/tap"]);
    assert!(said.contains("\"nonsense\" is neither host:port nor the path of a unix socket"), "{said}");
    let said = refused(&["--listen", "127.0.0.1:0", "--to", "nonsense", "--path-prefix", "/tmp/tap"]);
    assert!(said.starts_with("error: \"nonsense\" is neither host:port nor the path of a unix socket"), "{said}");
    assert!(refused(&["--listen", "127.0.0.1:0"]).contains("--to <ADDR>"));
    assert!(refused(&[]).contains("--config <FILE>|--listen <ADDR>"));
    assert_eq!(
        refused(&["--config", "/does/not/exist.yaml"]),
        "error: /does/not/exist.yaml: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_bootstrap_configuration_is_followed_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bootstrap.yaml");
    let text = format!(
        "
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: out
  clusters:
  - name: out
    load_assignment:
      cluster_name: out
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
    transport_socket:
      name: envoy.transport_sockets.tap
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap
        common_config:
          static_config:
            match: {{ any_match: true }}
            output_config:
              streaming: true
              sinks:
              - format: PROTO_BINARY_LENGTH_DELIMITED
                file_per_tap: {{ path_prefix: {folder}/up }}
        transport_socket: {{ name: envoy.transport_sockets.raw_buffer }}
",
        port = echo_server().port(),
        folder = folder.path().display(),
    );
    fs::write(&path, &text).expect("writable");
    let path = path.to_str().expect("UTF-8");
    let record = Record::start(["--config", path], 1);
    assert_eq!(ask(&mut record.connect(), b"hello"), b"hello");
    let (status, said) = record.end(Signal::TERM);
    assert_eq!(status, Some(0));
    assert_eq!(said, format!("note: {path}: admin: ignored, record has no admin interface\n"));
    let pieces = streamed(&folder.path().join("up_1.pb_length_delimited"));
    assert_eq!(shown_pieces(&pieces), ">hello <hello .");
    let MessagePiece::Connection(connection) = &pieces[0] else { panic!("{pieces:?}") };
    assert!(connection.local_address.is_none() && connection.remote_address.is_some());

    fs::write(path, text.replace("cluster: out", "cluster: out\n          idle_timeout: 1s")).expect("writable");
    assert_eq!(
        refused(&["--config", path]),
        format!(
            "error: {path}: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.idle_timeout: \
             not supported by record\n"
        )
    );
    fs::write(path, "static_resources: [").expect("writable");
    let said = refused(&["--config", path]);
    assert!(said.starts_with(&format!("error: {path}: not YAML: ")), "{said}");
}

#[test]
fn a_thousand_idle_peers_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = Record::quick(&folder.path().join("tap"), &echo_server().to_string(), &[]);
    let mut clients: Vec<_> = (0..1000).map(|_| record.connect()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, b"awake"), b"awake");
    }
    record.end_well();
    let files = files(folder.path());
    assert_eq!(files.len(), 1000);
    assert!(files.values().all(|path| shown(&buffered(path).events) == "<awake >awake"));
}
