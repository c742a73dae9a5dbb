//! HTTP/2 exchanges of one recorded connection are streams of one TCP connection, as tshark sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use tap2pcap::{
    input::{self, Advance, Source},
    proto::tap::{
        Connection, HttpBufferedTrace, TraceWrapper, http_buffered_trace::Message,
        http_streamed_trace_segment::MessagePiece, trace_wrapper::Trace,
    },
    timeline::{EntryKind, HttpOptions, TimelineOptions, Timelines, TrueLength, VersionChoice},
    trace::Findings,
};

use crate::{
    fixture::{Dress, TIME, downstream, socket, timestamp},
    http::{body, cut, header, headers, map, segment},
    tshark::{self, Frame},
    util::{Dir, TSHARK, convert, tap2pcap},
};

const MS: u64 = 1_000_000;

/// A call, with contents that differ from those of every other.
#[derive(Clone)]
struct Call {
    path: &'static str,
    /// Milliseconds after [`TIME`].
    from: u64,
    to: u64,
    request: Vec<u8>,
    response: Vec<u8>,
    trailers: bool,
    /// The true length of the response, if the tap cut it.
    cut_from: Option<usize>,
}

/// A gRPC message of one protobuf field with `len` bytes.
fn message(len: usize, byte: u8) -> Vec<u8> {
    let mut field = vec![0x0a];
    prost::encoding::encode_varint(len as u64, &mut field);
    field.resize(field.len() + len, byte);
    [&[0], &(field.len() as u32).to_be_bytes()[..], &field].concat()
}

fn call(path: &'static str, from: u64, to: u64, request: usize, response: usize) -> Call {
    let [request, response] = [(request, b'q'), (response, b'r')].map(|(len, byte)| message(len, byte));
    Call { path, from, to, request, response, trailers: true, cut_from: None }
}

impl Call {
    fn trace(&self) -> TraceWrapper {
        let mut request =
            headers(&[(":method", "POST"), (":path", self.path), (":scheme", "http"), ("x-id", self.path)]);
        let mut response = headers(&[(":status", "200"), ("x-id", self.path)]);
        if self.trailers {
            for fields in [&mut request, &mut response] {
                fields.push(header("content-type", "application/grpc"));
            }
        }
        if let Some(length) = self.cut_from {
            response.push(header("content-length", &length.to_string()));
        }
        let answer = if self.cut_from.is_some() { cut(&self.response) } else { body(&self.response) };
        let request = Message {
            headers: request,
            body: Some(body(&self.request)),
            headers_received_time: timestamp(TIME + self.from * MS),
            ..Message::default()
        };
        let response = Message {
            headers: response,
            body: Some(answer),
            trailers: if self.trailers { headers(&[("grpc-status", "0"), ("x-end", self.path)]) } else { Vec::new() },
            headers_received_time: timestamp(TIME + self.to * MS),
        };
        trace(request, response)
    }
}

fn trace(request: Message, response: Message) -> TraceWrapper {
    TraceWrapper {
        trace: Some(Trace::HttpBufferedTrace(HttpBufferedTrace {
            request: Some(request),
            response: Some(response),
            downstream_connection: Some(Connection { remote_address: socket("192.0.2.7", 50_001), ..downstream() }),
            upstream_connection: None,
        })),
        configured_sample_rate: None,
    }
}

/// All calls in one file, as the admin endpoint writes them, and each in its own, as Envoy writes files.
fn inputs(dir: &Dir, calls: &[Call]) -> [PathBuf; 2] {
    let traces: Vec<_> = calls.iter().map(Call::trace).collect();
    let one = dir.fresh().join("all.pb_length_delimited");
    fs::write(&one, Dress::Delimited.file(&traces)).unwrap();
    let several = dir.fresh();
    for (number, trace) in traces.iter().enumerate() {
        fs::write(several.join(format!("tap_{number}.pb")), Dress::Binary.file(std::slice::from_ref(trace))).unwrap();
    }
    [one, several]
}

/// What tshark shows of one stream.
#[derive(Debug, Default)]
struct Shown {
    /// The header fields of the client, and of the server.
    fields: [BTreeMap<String, String>; 2],
    data: [Vec<u8>; 2],
}

/// The streams of the only connection in a capture, by tshark's own reassembly.
fn streams(capture: &Path, ids: &[u32]) -> Vec<Shown> {
    // tshark does not dissect a packet after a gap unless it is told to.
    let mut args: Vec<String> =
        ["-r", capture.to_str().unwrap(), "-o", "tcp.no_subdissector_on_error:FALSE", "-q"].map(str::to_owned).into();
    for id in ids {
        args.extend(["-z".to_owned(), format!("follow,http2,raw,0,{id}")]);
    }
    let run = TSHARK.run(args, &[]);
    let mut shown: BTreeMap<u32, Shown> = BTreeMap::new();
    let mut id = 0;
    for line in run.stdout_text().lines() {
        if let Some((_, number)) = line.split_once("http2.streamid eq ") {
            id = number.trim().parse().unwrap();
        }
        let (side, hex) = line.strip_prefix('\t').map_or((0, line), |hex| (1, hex));
        if hex.is_empty() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let shown = shown.entry(id).or_default();
        // DATA has its frame header, whose type is 0. Header fields are names and values, each after its length.
        if bytes[3] == 0 {
            shown.data[side].extend_from_slice(&bytes[9..]);
            continue;
        }
        let mut rest = bytes.as_slice();
        let mut take = || {
            let (len, after) = rest.split_at(4);
            let (text, after) = after.split_at(u32::from_be_bytes(len.try_into().unwrap()) as usize);
            rest = after;
            (String::from_utf8(text.to_vec()).unwrap(), after.is_empty())
        };
        loop {
            let (name, _) = take();
            let (value, last) = take();
            shown.fields[side].insert(name, value);
            if last {
                break;
            }
        }
    }
    ids.iter().map(|id| shown.remove(id).unwrap_or_default()).collect()
}

/// Expects one TCP connection whose streams are these calls, in this order.
#[track_caller]
fn expect_one_connection(capture: &Path, calls: &[Call], what: &str) -> Vec<Frame> {
    let frames = tshark::read(capture);
    let connections: BTreeSet<_> = frames.iter().map(|frame| frame.stream).collect();
    assert_eq!(connections.len(), 1, "{what}");
    assert!(frames.windows(2).all(|pair| pair[0].time <= pair[1].time), "{what}: {frames:#?}");
    if !what.contains("bare") {
        let syns = frames.iter().filter(|frame| frame.flags & 2 == 2).count();
        let fins = frames.iter().filter(|frame| frame.flags & 1 == 1).count();
        assert_eq!((syns, fins), (2, 2), "{what}");
    }
    let cut = calls.iter().any(|call| call.cut_from.is_some());
    if !(what.contains("gap") || cut) {
        frames.iter().for_each(|frame| frame.expect_sound(&what));
    } else if what.contains("snap") {
        assert!(frames.iter().all(|frame| !frame.analysis), "{what}");
    }
    let ids: Vec<u32> = (0..).map(|index| 1 + 2 * index).take(calls.len() + 1).collect();
    let mut streams = streams(capture, &ids);
    let none = streams.pop().unwrap();
    assert!(none.fields.iter().all(BTreeMap::is_empty), "{what}: more streams than calls: {none:?}");
    for (call, shown) in calls.iter().zip(&streams) {
        let [request, response] = &shown.fields;
        assert_eq!(request.get(":path").map(String::as_str), Some(call.path), "{what}");
        assert_eq!(request.get("x-id").map(String::as_str), Some(call.path), "{what}");
        assert_eq!(response.get(":status").map(String::as_str), Some("200"), "{what} {}", call.path);
        assert_eq!(response.get("x-id").map(String::as_str), Some(call.path), "{what}");
        let end = response.get("x-end").map(String::as_str);
        assert_eq!(end, call.trailers.then_some(call.path), "{what}");
        assert!(shown.data[0] == call.request, "{what} {}", call.path);
        if call.cut_from.is_none() {
            assert!(shown.data[1] == call.response, "{what} {} {}", call.path, shown.data[1].len());
        } else {
            assert!(shown.data[1].starts_with(&call.response), "{what} {} {}", call.path, shown.data[1].len());
        }
    }
    // The requests are in the order of `calls`.
    let fields = ["-o", "tcp.no_subdissector_on_error:FALSE", "-Y", "http2.headers.path"];
    let used = tshark::lines(capture, &[&fields[..], &["-T", "fields", "-e", "http2.headers.path"]].concat());
    let paths: Vec<_> = calls.iter().map(|call| call.path).collect();
    assert_eq!(used, paths, "{what}");
    frames
}

const OPTIONS: [&[&str]; 7] = [
    &[],
    &["--mss", "1400"],
    &["--tcp", "bare"],
    &["--truncated", "gap"],
    &["--truncated", "zero"],
    &["--truncated", "gap", "--mss", "1400"],
    &["--truncated", "zero", "--mss", "1400"],
];

/// Expects these calls in the captures of every set of options and of both formats.
#[track_caller]
fn expect_streams(dir: &Dir, inputs: &[&PathBuf], more: &[&str], calls: &[Call]) {
    for input in inputs {
        for options in OPTIONS {
            for format in ["pcapng", "pcap"] {
                // The formats differ in nothing but comments.
                if format == "pcap" && !(options.is_empty() || options[0] == "--tcp") {
                    continue;
                }
                let output = dir.join(format!("out.{format}"));
                let all = [more, options].concat();
                convert(&all, input, &output).run().expect_status(0);
                let how = if options.contains(&"--truncated") { "" } else { " snap" };
                expect_one_connection(&output, calls, &format!("{all:?}{how} {format} {}", input.display()));
            }
        }
    }
}

/// The number of packets whose comment contains `words`.
fn saying(frames: &[Frame], words: &str) -> usize {
    frames.iter().filter(|frame| frame.comments.iter().any(|comment| comment.contains(words))).count()
}

#[test]
fn calls_that_follow_each_other_are_streams_of_one_connection() {
    let dir = Dir::new("multiplex-sequential");
    let calls = [
        call("/a", 0, 5, 10, 40_000),
        call("/b", 10, 12, 70_000, 0),
        call("/c", 20, 21, 0, 10),
        call("/d", 22, 30, 9, 9),
    ];
    let inputs = inputs(&dir, &calls);
    expect_streams(&dir, &[&inputs[0], &inputs[1]], &[], &calls);
    for input in &inputs {
        let output = dir.join("marks.pcapng");
        convert(&[], input, &output).run().expect_status(0);
        let frames = tshark::read(&output);
        for number in [3, 5, 7] {
            let words = format!("this exchange is stream {number} of the connection of the exchanges before");
            assert_eq!(saying(&frames, &words), 1);
        }
        assert_eq!(saying(&frames, "this exchange is stream"), 3);
        assert_eq!(saying(&frames, "made up: 5"), 0, "no port is made up");
        assert_eq!(saying(&frames, "its recorded time is"), 0);
    }
}

#[test]
fn calls_that_overlap_are_streams_of_one_connection() {
    let dir = Dir::new("multiplex-overlap");
    // The first call ends last, and some begin and end within others.
    let calls = [
        call("/a", 0, 9, 33_000, 61_000),
        call("/b", 1, 3, 70_000, 10),
        call("/c", 2, 12, 0, 200_000),
        call("/d", 4, 5, 32_000, 0),
        call("/e", 13, 14, 1, 1),
    ];
    let [one, several] = inputs(&dir, &calls);
    expect_streams(&dir, &[&several], &[], &calls);
    let output = dir.join("order.pcapng");
    convert(&[], &several, &output).run().expect_status(0);
    let ends = ["-Y", "http2.headers.status", "-T", "fields", "-e", "http2.streamid"];
    let answers: Vec<_> =
        tshark::lines(&output, &ends).iter().map(|ids| ids.split(',').next().unwrap().to_owned()).collect();
    assert_eq!(answers, ["3", "7", "1", "5", "9"], "responses come when they came");
    assert_eq!(saying(&tshark::read(&output), "its recorded time is"), 0, "every time is the recorded one");
    // A single source is written in its own order, so a call that began earlier gets the time of what was already
    // written.
    expect_streams(&dir, &[&one], &[], &calls);
    convert(&[], &one, &output).run().expect_status(0);
    let frames = tshark::read(&output);
    let (seconds, nanos) = (TIME / 1_000_000_000, TIME % 1_000_000_000 + MS);
    assert_eq!(saying(&frames, &format!("its recorded time is {seconds}.{nanos:09};")), 1);
}

/// A source may record exchanges when they end. A long one then comes after shorter ones that began later.
#[test]
fn a_call_that_began_before_the_connection_shows_joins_it() {
    let dir = Dir::new("multiplex-long");
    let calls = [call("/short", 5, 6, 1, 1), call("/long", 0, 9, 1, 40_000), call("/last", 10, 11, 1, 1)];
    let [one, _] = inputs(&dir, &calls);
    expect_streams(&dir, &[&one], &[], &calls);
}

#[test]
fn a_version_that_the_user_asks_for_is_multiplexed_too() {
    let dir = Dir::new("multiplex-asked");
    let plain = |path, from, to| Call { trailers: false, ..call(path, from, to, 3, 17_000) };
    let calls = [plain("/a", 0, 5), plain("/b", 1, 2), plain("/c", 7, 8)];
    let inputs = inputs(&dir, &calls);
    expect_streams(&dir, &[&inputs[0], &inputs[1]], &["--http", "2"], &calls);
}

/// A body that the tap cut changes nothing in other streams.
#[test]
fn cut_bodies_harm_no_other_stream() {
    let dir = Dir::new("multiplex-cut");
    let cut_to = |path, from, to, length| Call {
        response: vec![b'x'; 300],
        trailers: false,
        cut_from: Some(length),
        ..call(path, from, to, 40_000, 0)
    };
    // The header of a frame of lost bytes would stand where the entry is full.
    let full = Call { response: vec![b'x'; 59_950], ..cut_to("/full", 30, 31, 80_000) };
    let calls = [
        call("/a", 0, 5, 1, 70_000),
        cut_to("/b", 1, 3, 20_000),
        cut_to("/c", 2, 9, 90_000),
        call("/d", 4, 13, 40_000, 40_000),
        cut_to("/huge", 14, 15, 1 << 40),
        call("/e", 16, 17, 1, 1),
        full,
        call("/f", 32, 33, 1, 1),
    ];
    let [_, several] = inputs(&dir, &calls);
    expect_streams(&dir, &[&several], &["--http", "2"], &calls);
}

/// If an exchange lacks something, only its stream lacks it, and the connection goes on.
#[test]
fn an_exchange_that_is_not_whole_does_not_end_the_connection() {
    let dir = Dir::new("multiplex-unfinished");
    let calls = [call("/a", 0, 5, 1, 1), call("/b", 6, 7, 1, 1), call("/c", 8, 9, 1, 1)];
    for (unfinished, fins) in [(1, 2), (2, 0)] {
        let mut traces: Vec<_> = calls.iter().map(Call::trace).collect();
        if let Some(Trace::HttpBufferedTrace(trace)) = &mut traces[unfinished].trace {
            let response = trace.response.as_mut().unwrap();
            response.headers.push(header("content-length", "1000"));
            response.trailers.clear();
        }
        let input = dir.create("all_1.pb", Dress::Delimited.file(&traces));
        let output = dir.join("out.pcapng");
        convert(&[], &input, &output).run().expect_no_panic();
        let frames = tshark::read(&output);
        assert!(frames.iter().all(|frame| frame.stream == 0 && !frame.analysis), "{frames:#?}");
        assert_eq!(frames.iter().filter(|frame| frame.flags & 1 == 1).count(), fins, "{unfinished}");
        let shown = streams(&output, &[1, 3, 5]);
        for (call, shown) in calls.iter().zip(&shown) {
            assert_eq!(shown.fields[1].get("x-id").map(String::as_str), Some(call.path));
            assert_eq!(shown.data[0], call.request);
        }
    }
}

/// The frames of long bodies take turns if the trace has them so. Such a trace has no addresses, except those that the
/// user gives.
#[test]
fn bodies_that_take_turns_are_told_apart() {
    let dir = Dir::new("multiplex-turns");
    let mut segments = Vec::new();
    let paths = ["/a", "/b", "/c"];
    for (id, path) in (1..).zip(paths) {
        let fields = [(":method", "GET"), (":path", path), (":scheme", "http")];
        segments.push(segment(id, MessagePiece::RequestHeaders(map(&[&fields[..], &[("x-id", path)]].concat()))));
    }
    for (id, path) in (1..).zip(paths) {
        segments.push(segment(id, MessagePiece::ResponseHeaders(map(&[(":status", "200"), ("x-id", path)]))));
    }
    // A stream is held up to some size, and is then written as it comes.
    let sizes = [10, 20_000, 300_000, 1, 32_000, 61_000, 16_384, 100_000, 5];
    let mut sent = [const { Vec::new() }; 3];
    for (number, size) in sizes.iter().enumerate() {
        for id in 1..=3_u64 {
            let bytes = vec![b'a' + (number + id as usize) as u8; size + id as usize];
            sent[id as usize - 1].extend_from_slice(&bytes);
            segments.push(segment(id, MessagePiece::ResponseBodyChunk(body(bytes))));
        }
    }
    for (id, path) in (1..).zip(paths) {
        segments.push(segment(id, MessagePiece::ResponseTrailers(map(&[("x-end", path)]))));
    }
    let maps = ["--http", "2", "--map", "local=10.0.0.1:8080", "--map", "remote=192.0.2.7:50001"];
    let input = dir.create("all_1.pb", Dress::Delimited.file(&segments));
    for options in [&[][..], &["--mss", "1400"], &["--tcp", "bare"]] {
        let output = dir.join("out.pcapng");
        convert(&[&maps, options].concat(), &input, &output).run().expect_status(0);
        let frames = tshark::read(&output);
        assert!(frames.iter().all(|frame| frame.stream == 0 && !frame.analysis), "{options:?}");
        for ((shown, path), sent) in streams(&output, &[1, 3, 5]).iter().zip(paths).zip(&sent) {
            assert_eq!(shown.fields[0].get("x-id").map(String::as_str), Some(path));
            assert_eq!(shown.fields[1].get("x-end").map(String::as_str), Some(path));
            let [found, expected] = [&shown.data[1], sent].map(|bytes| {
                let runs = bytes.chunk_by(|one, two| one == two).map(|run| (run[0] as char, run.len()));
                runs.collect::<Vec<_>>()
            });
            assert_eq!(found, expected, "{options:?} {path}");
        }
        let fields = ["-Y", "http2.type == 0", "-T", "fields", "-e", "http2.streamid"];
        let mut turns = tshark::lines(&output, &fields);
        turns.dedup();
        assert!(turns.len() > 9, "{turns:?}");
    }
}

/// A port has both HTTP/1 and HTTP/2 exchanges. Each version has a connection of its own for any number of exchanges.
#[test]
fn each_version_has_its_own_connection() {
    let dir = Dir::new("multiplex-versions");
    let plain = |path, from, to| Call { trailers: false, ..call(path, from, to, 3, 10) };
    let calls = [plain("/1", 0, 1), call("/a", 2, 9, 1, 1), call("/b", 3, 4, 1, 1), plain("/2", 10, 11)];
    let [one, several] = inputs(&dir, &calls);
    for input in [&one, &several] {
        let output = dir.join("out.pcapng");
        convert(&[], input, &output).run().expect_status(0);
        let frames = tshark::read(&output);
        frames.iter().for_each(|frame| frame.expect_sound(&"versions"));
        let clients: Vec<_> =
            frames.iter().filter(|frame| frame.flags & 0x12 == 2).map(|frame| frame.src.unwrap().port()).collect();
        assert!(clients.len() == 2 && clients[0] == 50_001 && clients[1] != 50_001, "{clients:?}");
        let uris = ["-T", "fields", "-e", "tcp.stream", "-e", "http.request.uri", "-e", "http2.headers.path"];
        let uris = tshark::lines(&output, &[&["-Y", "http.request || http2.headers.path"], &uris[..]].concat());
        assert_eq!(uris, ["0\t/1\t", "1\t\t/a", "1\t\t/b", "0\t/2\t"]);
        assert_eq!(saying(&frames, "this exchange cannot be joined to another one of its connection: only"), 2);
    }
}

/// `info` shows the addresses that the capture has.
#[test]
fn info_shows_the_ports_of_the_connection_that_exchanges_share() {
    let dir = Dir::new("multiplex-info");
    let calls = [call("/a", 0, 9, 1, 1), call("/b", 1, 3, 1, 1), call("/c", 20, 21, 1, 1)];
    let [one, _] = inputs(&dir, &calls);
    let run = tap2pcap().args(&["info"]).arg(&one).run().expect_status(0);
    let ends = run.stdout_text().lines().filter(|line| line.contains(" -> ")).map(str::trim).collect::<Vec<_>>();
    assert_eq!(ends, ["192.0.2.7:50001 -> 10.0.0.1:8080"; 3]);
}

/// After an hour of silence, the client's port belongs to another connection.
#[test]
fn no_stream_joins_after_an_hour_of_silence() {
    let dir = Dir::new("multiplex-hour");
    let hour = 3_600_000;
    for (later, connections) in [(hour - 10, 1), (hour + 10, 2)] {
        let calls = [call("/a", 0, 1, 1, 1), call("/b", later, later + 1, 1, 1)];
        let [one, several] = inputs(&dir, &calls);
        for input in [&one, &several] {
            let output = dir.join("out.pcapng");
            convert(&[], input, &output).run().expect_status(0);
            let frames = tshark::read(&output);
            let syns: Vec<_> =
                frames.iter().filter(|frame| frame.flags & 0x12 == 2).map(|frame| frame.src.unwrap().port()).collect();
            assert_eq!(syns, vec![50_001; connections]);
            assert_eq!(frames.iter().filter(|frame| frame.flags & 1 == 1).count(), 2 * connections);
        }
    }
}

/// An entry ends where a frame ends, however full it is, because entries of other exchanges may follow it.
#[test]
fn every_entry_ends_with_a_frame() {
    // The head and the body fill an entry to within a few bytes, and frames without bytes follow.
    let traces: Vec<_> = (43_600..44_000)
        .step_by(4)
        .map(|len| {
            let Some(Trace::HttpBufferedTrace(mut trace)) = call("/", 0, 1, 0, 0).trace().trace else { panic!() };
            let response = trace.response.as_mut().unwrap();
            response.headers.push(header("x-long", &"x".repeat(len)));
            response.headers.push(header("content-length", "40000"));
            response.body = Some(cut(vec![b'y'; 16_000]));
            response.trailers.clear();
            TraceWrapper { trace: Some(Trace::HttpBufferedTrace(trace)), configured_sample_rate: None }
        })
        .collect();
    let bytes = Dress::Delimited.file(&traces);
    let source =
        Source::from_reader(Path::new("t"), Box::new(std::io::Cursor::new(bytes)), input::SourceOptions::default());
    let http = HttpOptions { version: VersionChoice::Two, ..HttpOptions::default() };
    let mut timelines = Timelines::new(source.unwrap(), TimelineOptions { http, ..TimelineOptions::default() });
    let mut full = 0;
    let mut findings = Findings::default();
    loop {
        match timelines.advance(&mut findings) {
            Advance::Message => {}
            Advance::NeedInput => timelines.fill(&mut findings),
            Advance::End => break,
        }
        let Some(EntryKind::Data(data)) = timelines.entry().map(|entry| entry.kind) else { continue };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let mut rest = data.payload.strip_prefix(preface).unwrap_or(data.payload);
        let mut length = data.payload.len();
        while !rest.is_empty() {
            let (head, after) = rest.split_at(9);
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            length += len.saturating_sub(after.len());
            rest = &after[len.min(after.len())..];
        }
        assert_eq!(data.length, TrueLength::Known(length as u64));
        full += usize::from(data.payload.len() > 59_980);
    }
    assert!(full > 5, "{full}");
}
