//! A conversation that tcpdump captured on loopback while a tap recorded it: both show the same HTTP.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    batch::contains,
    record::{Record, serve},
    tshark,
    util::{Dir, convert},
    wait::wait_until,
};

/// A running tcpdump.
struct Tcpdump {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Tcpdump {
    /// Captures one port of the loopback interface. The file is opened here, because tcpdump may give up its rights
    /// before it opens files.
    fn start(port: u16, capture: &Path) -> Self {
        let mut child = Command::new("tcpdump")
            .args(["-i", "lo", "-n", "-U", "--immediate-mode"])
            // In immediate mode, each packet takes up as many bytes of the buffer as the snap length, here the
            // loopback's largest. The size of the buffer is in KiB.
            .args(["-s", "66000", "-B", "65536"])
            .args(["-w", "-", &format!("tcp port {port}")])
            .stdout(File::create(capture).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump is needed: apt-get install tcpdump");
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("listening on lo") {
            let read = stderr.read_line(&mut said).unwrap();
            assert!(read > 0, "tcpdump must be allowed to capture on lo, run this as root: {said}");
        }
        Self { child, stderr }
    }

    fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        assert!(said.contains("\n0 packets dropped by kernel"), "{said}");
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        // This matters only if a test failed. Otherwise tcpdump has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The head of a request or response, and its body. `None` at the end of the stream.
fn read_message(stream: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap() == 0 {
            assert_eq!(head, "");
            return None;
        }
    }
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let mut body = Vec::new();
    if header("Transfer-Encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).unwrap();
            assert!(chunk.ends_with(b"\r\n"));
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = header("Content-Length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).unwrap();
    }
    Some((head, body))
}

fn with_length(start: &str, body: &[u8]) -> Vec<u8> {
    [format!("{start}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn chunked(start: &str, body: &[u8], size: usize) -> Vec<u8> {
    let chunks = body.chunks(size).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    let head = format!("{start}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    [head, chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat()
}

/// Answers `/chunked...` in chunks and everything else with a length. The answer is the body of the request in reverse,
/// or the target if there is no body.
fn answer(stream: &mut (impl Write + ?Sized), head: &str, mut body: Vec<u8>) {
    let target = head.split(' ').nth(1).unwrap();
    body.reverse();
    if body.is_empty() {
        body = format!("you asked for {target}\n").repeat(20).into_bytes();
    }
    let answer = match target {
        _ if target.starts_with("/chunked") => {
            chunked("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream", &body, 1000)
        }
        "/nothing" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/missing" => with_length("HTTP/1.1 404 Not Found\r\nContent-Type: text/plain", &body),
        _ => with_length("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream", &body),
    };
    stream.write_all(&answer).unwrap();
}

/// Sends requests one after another on one connection, and returns its port.
fn talk(mut stream: TcpStream, requests: &[Vec<u8>]) -> u16 {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for request in requests {
        stream.write_all(request).unwrap();
        read_message(&mut reader).expect("an answer");
    }
    stream.local_addr().unwrap().port()
}

/// `http.file_data` is text, and ends before a zero byte. `data.data` is the whole body, if no dissector takes it.
const FIELDS: [&str; 6] = [
    "http.request.method",
    "http.request.uri",
    "http.response.code",
    "http.content_length",
    "http.file_data",
    "data.data",
];

/// The HTTP messages of each client port, in order, as tshark shows them.
fn http(capture: &Path, server_port: u16) -> BTreeMap<u16, Vec<Vec<String>>> {
    let decode = format!("tcp.port=={server_port},http");
    let mut args = vec!["-d", &decode, "-Y", "http", "-T", "fields", "-e", "tcp.srcport", "-e", "tcp.dstport"];
    args.extend(FIELDS.iter().flat_map(|field| ["-e", field]));
    let mut messages: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in tshark::lines(capture, &args) {
        let fields: Vec<_> = line.split('\t').map(str::to_owned).collect();
        let ports = [&fields[0], &fields[1]].map(|port| port.parse::<u16>().unwrap());
        let client = if ports[0] == server_port { ports[1] } else { ports[0] };
        messages.entry(client).or_default().push(fields[2..].to_vec());
    }
    messages
}

#[test]
fn tcpdump_and_the_tap_saw_the_same_http() {
    let dir = Dir::new("beside-tcpdump");
    let server = serve(|stream| {
        let mut reader = BufReader::new(&stream);
        while let Some((head, body)) = read_message(&mut reader) {
            answer(&mut &stream, &head, body);
        }
    });
    let (folder, live, dumped) = (dir.fresh(), dir.join("live.pcapng"), dir.join("tcpdump.pcap"));
    let record = Record::quick(
        &folder.join("tap"),
        &server.to_string(),
        &["--streaming", "--max-rx", "1000000", "--max-tx", "1000000", "--pcapng", live.to_str().unwrap()],
    );
    let port = record.address().port();
    let tcpdump = Tcpdump::start(port, &dumped);

    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: tap\r\n\r\n").into_bytes();
    let post = |target: &str, body: &[u8]| with_length(&format!("POST {target} HTTP/1.1\r\nHost: tap"), body);
    let put = |target: &str, body: &[u8]| chunked(&format!("PUT {target} HTTP/1.1\r\nHost: tap"), body, 777);
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    // Each list is a connection that is kept alive.
    let mut conversations = vec![
        vec![get("/"), post("/echo", b"a short body"), get("/nothing"), get("/missing"), get("/chunked")],
        vec![post("/echo", &every_byte), post("/chunked/echo", &every_byte[..5000]), get("/after")],
        vec![put("/in/chunks", &every_byte[..3000]), put("/chunked/both", b"two ways"), get("/after")],
        vec![get("/alone")],
    ];
    let mut ports: Vec<_> = thread::scope(|scope| {
        let talks = conversations.iter().map(|requests| {
            let stream = record.connect();
            scope.spawn(move || talk(stream, requests))
        });
        talks.collect::<Vec<_>>().into_iter().map(|talk| talk.join().unwrap()).collect()
    });
    conversations.push(vec![get("/the/very/last")]);
    ports.push(talk(record.connect(), &conversations[4]));
    // When it ends, tcpdump does not read what the kernel still has for it.
    wait_until("tcpdump sees the last answer", || {
        contains(&fs::read(&dumped).unwrap(), b"you asked for /the/very/last\n")
    });
    tcpdump.end();
    record.end_well();
    let converted = dir.join("converted.pcapng");
    convert(&[], &folder, &converted).run().expect_status(0);

    let truth = http(&dumped, port);
    assert_eq!(truth.keys().len(), conversations.len());
    for (port, requests) in ports.iter().zip(&conversations) {
        let asked: Vec<_> = requests
            .iter()
            .map(|request| {
                let text = String::from_utf8_lossy(request);
                let mut words = text.split(' ');
                [words.next().unwrap().to_owned(), words.next().unwrap().to_owned()]
            })
            .collect();
        let is_request = |message: &&Vec<String>| !message[0].is_empty();
        let seen: Vec<_> = truth[port].iter().filter(is_request).map(|m| [m[0].clone(), m[1].clone()]).collect();
        assert_eq!(seen, asked);
        assert_eq!(truth[port].len(), 2 * asked.len(), "each request has its answer");
    }
    let mut sizes: Vec<_> =
        truth.values().flatten().map(|message| message[5].len() / 2).filter(|size| *size >= 3000).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [3000, 3000, 5000, 5000, 100_000, 100_000], "large bodies, of requests and responses");
    assert!(truth.values().flatten().any(|message| message[4].contains("you asked for /missing")));
    assert_eq!(http(&live, port), truth, "record --pcapng shows something else than tcpdump");
    assert_eq!(http(&converted, port), truth, "the converted traces show something else than tcpdump");
}
