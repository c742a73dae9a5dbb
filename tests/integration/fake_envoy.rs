//! A server that answers as Envoy's admin endpoint does, with what a test wants it to send.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::util::ROOT;

/// A stream of traces that a real Envoy sent, see `testdata/live/README.md`.
pub fn interleaved() -> Vec<u8> {
    std::fs::read(format!("{ROOT}/testdata/live/interleaved.json")).unwrap()
}

/// The answer to one request for a tap.
pub struct TapAnswer {
    /// Which request it is, from 0.
    pub number: usize,
    /// The body of the request.
    pub request: String,
    stream: TcpStream,
}

impl TapAnswer {
    /// Accepts the request.
    pub fn accept(&mut self) {
        self.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\nserver: envoy\r\n\r\n");
    }

    /// Sends a part of the body. The program may be gone by then.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        self.stream.write_all(bytes)?;
        self.stream.write_all(b"\r\n")
    }

    /// Ends the body.
    pub fn end(&mut self) {
        self.raw(b"0\r\n\r\n");
    }

    /// Refuses the request.
    pub fn refuse(&mut self, status: &str, words: &str) {
        self.raw(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{words}", words.len()).as_bytes());
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Waits until the program has ended the connection.
    pub fn wait_for_end(&mut self) {
        let _ = io::copy(&mut self.stream, &mut io::sink());
    }
}

/// The server. It ends with the test.
pub struct FakeEnvoy {
    pub address: SocketAddr,
    taps: Arc<AtomicUsize>,
}

impl FakeEnvoy {
    /// Serves the configuration of `testdata/admin`. `tap` answers requests for a tap, each in a thread of its own; when
    /// it returns, the connection is closed.
    pub fn start(tap: impl Fn(&mut TapAnswer) + Send + Sync + 'static) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("{ROOT}/testdata/admin/{name}")).unwrap();
        Self::with(&read("config_dump.json"), &read("stats.json"), &read("listeners.json"), tap)
    }

    /// A server whose taps, of a listener's sockets and HTTP, have the config_id `tap`.
    pub fn with_one_tap(tap: impl Fn(&mut TapAnswer) + Send + Sync + 'static) -> Self {
        Self::with_tap_named("tap", tap)
    }

    /// A server whose taps have this config_id, which is a part of a JSON string.
    pub fn with_tap_named(config_id: &str, tap: impl Fn(&mut TapAnswer) + Send + Sync + 'static) -> Self {
        let dump = r#"{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ListenersConfigDump","static_listeners":
            [{"listener":{"name":"ingress","filter_chains":[{"transport_socket":{"typed_config":
            {"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap",
            "common_config":{"admin_config":{"config_id":"CONFIG_ID"}}}},
            "filters":[{"typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "http_filters":[{"typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.tap.v3.Tap",
            "common_config":{"admin_config":{"config_id":"CONFIG_ID"}}}}]}}]}]}}]}]}"#;
        Self::with(&dump.replace("CONFIG_ID", config_id), r#"{"stats":[]}"#, r#"{"listener_statuses":[]}"#, tap)
    }

    /// A server with these answers.
    pub fn with(
        dump: &str,
        stats: &str,
        listeners: &str,
        tap: impl Fn(&mut TapAnswer) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taps = Arc::new(AtomicUsize::new(0));
        let (count, tap) = (Arc::clone(&taps), Arc::new(tap));
        let pages = [("/config_dump", dump), ("/stats", stats), ("/listeners", listeners)]
            .map(|(path, page)| (path, page.to_owned()));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (count, tap, pages) = (Arc::clone(&count), Arc::clone(&tap), pages.clone());
                thread::spawn(move || serve(&stream.unwrap(), &count, &*tap, &pages));
            }
        });
        Self { address, taps }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests for a tap came.
    pub fn taps(&self) -> usize {
        self.taps.load(Ordering::SeqCst)
    }
}

/// Answers the requests on one connection.
fn serve(stream: &TcpStream, count: &AtomicUsize, tap: &dyn Fn(&mut TapAnswer), pages: &[(&str, String)]) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = Vec::new();
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|len| len > 2) {
            head.push(std::mem::take(&mut line));
        }
        let Some(first) = head.first() else { return };
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let mut answer =
            TapAnswer { number: 0, request: String::from_utf8(body).unwrap(), stream: stream.try_clone().unwrap() };
        let path = first.split(' ').nth(1).unwrap();
        if path == "/tap" {
            answer.number = count.fetch_add(1, Ordering::SeqCst);
            tap(&mut answer);
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
        match pages.iter().find(|(page, _)| path.split('?').next() == Some(page)) {
            Some((_, page)) => answer.refuse("200 OK", page),
            None => answer.refuse("404 Not Found", "invalid path"),
        }
    }
}
