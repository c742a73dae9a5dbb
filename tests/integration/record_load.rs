//! Many connections at once through a TLS listener, every byte recorded: nothing may be lost, and the relay may need no
//! more memory than its buffers.
//!
//! Unoptimized TLS would take minutes, so this runs with `cargo test --release` (`scripts/load`).

#![cfg(not(debug_assertions))]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use prost::Message;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tap2pcap::proto::tap::{
    TraceWrapper, body::BodyType, socket_event::EventSelector, socket_streamed_trace_segment::MessagePiece,
    trace_wrapper::Trace,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
    runtime,
    sync::{Barrier, mpsc},
    task::JoinSet,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore},
};

const CONNECTIONS: usize = 2000;
const EACH_WAY: usize = 1 << 20;
/// The memory that the relay may need: 64 KiB each way in flight, the state of TLS, and the program itself.
const MEMORY_KIB: u64 = 2 * 64 * CONNECTIONS as u64 + 48 * CONNECTIONS as u64 + 32 * 1024;

/// The bytes that side `side` of connection `index` sends. All are different parts of one block.
fn said(block: &[u8], index: usize, side: usize) -> &[u8] {
    let start = 2 * index + side;
    &block[start..start + EACH_WAY]
}

fn block() -> Vec<u8> {
    // xorshift: no two parts are equal, so a lost piece shows.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..(EACH_WAY + 2 * CONNECTIONS + 8) / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// Writes `to_say`, reads as much at the same time, and closes so that each side sees the other's end.
async fn talk(stream: impl AsyncRead + AsyncWrite, to_say: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = split(stream);
    let mut heard = vec![0; EACH_WAY];
    let (written, read) = tokio::join!(
        async {
            writer.write_all(to_say).await?;
            writer.shutdown().await
        },
        async {
            reader.read_exact(&mut heard).await?;
            reader.read(&mut [0]).await
        }
    );
    written.expect("it reads");
    assert_eq!(read.expect("it writes"), 0);
    heard
}

#[test]
fn two_thousand_tls_connections_lose_nothing() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("allowed up to the maximum");
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("writable");
    fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("writable");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let tls = TlsConnector::from(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()));
    let block: Arc<[u8]> = block().into();
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (served, mut all_served) = mpsc::channel(1);
    let server = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let block = Arc::clone(&block);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let (block, served) = (Arc::clone(&block), served.clone());
                tokio::spawn(async move {
                    let index = stream.read_u32().await.expect("a number") as usize;
                    stream.write_u32(u32::try_from(index).expect("small")).await.expect("it reads");
                    let heard = talk(stream, said(&block, index, 1)).await;
                    assert!(heard == said(&block, index, 0), "connection {index}: the server heard something else");
                    served.send(()).await.expect("it is counted");
                });
            }
        });
        address
    });

    let mut record = Command::new(env!("CARGO_BIN_EXE_tap2pcap"))
        .args(["record", "--listen", "127.0.0.1:0", "--to", &server.to_string()])
        .args(["--streaming", "--format", "delimited", "--max-rx", "1048576", "--max-tx", "1048576", "--path-prefix"])
        .arg(folder.path().join("tap"))
        .arg("--tls-cert")
        .arg(folder.path().join("cert.pem"))
        .arg("--tls-key")
        .arg(folder.path().join("key.pem"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(record.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
    let address: SocketAddr = line
        .strip_prefix("note: listening on ")
        .and_then(|rest| rest.split_once(','))
        .and_then(|(address, _)| address.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));

    let started = Instant::now();
    runtime.block_on(async {
        let barrier = Arc::new(Barrier::new(CONNECTIONS));
        let mut clients = JoinSet::new();
        for index in 0..CONNECTIONS {
            let (tls, block, barrier) = (tls.clone(), Arc::clone(&block), Arc::clone(&barrier));
            clients.spawn(async move {
                let stream = TcpStream::connect(address).await.expect("it listens");
                let name = "localhost".try_into().expect("a name");
                let mut stream = tls.connect(name, stream).await.expect("a handshake");
                stream.write_u32(u32::try_from(index).expect("small")).await.expect("it reads");
                stream.flush().await.expect("it reads");
                assert_eq!(stream.read_u32().await.expect("an answer") as usize, index);
                // All are connected before any goes on.
                barrier.wait().await;
                let heard = talk(stream, said(&block, index, 0)).await;
                assert!(heard == said(&block, index, 1), "connection {index}: the client heard something else");
            });
        }
        while let Some(client) = clients.join_next().await {
            client.expect("a client that got everything");
        }
        for _ in 0..CONNECTIONS {
            all_served.recv().await.expect("a server that got everything");
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{}/status", record.id())).expect("it runs");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .expect("the kernel says it");
    kill_process(Pid::from_child(&record), Signal::TERM).expect("it runs");
    assert!(record.wait().expect("it ends").success());
    println!("{CONNECTIONS} connections, {EACH_WAY} bytes each way: {seconds:.1} s, at most {peak} KiB resident");

    let mut seen = vec![false; CONNECTIONS];
    for entry in fs::read_dir(folder.path()).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|suffix| suffix == "pb_length_delimited") {
            let index = check(&path, &block);
            assert!(!std::mem::replace(&mut seen[index], true), "two traces of connection {index}");
        }
    }
    assert!(seen.iter().all(|seen| *seen), "a trace is missing");
    assert!(peak <= MEMORY_KIB, "{peak} KiB resident, {MEMORY_KIB} allowed");
}

/// Checks that every byte is there, that every sequence number is right, and that the close comes last. Returns the
/// index of the connection.
fn check(path: &Path, block: &[u8]) -> usize {
    let bytes = fs::read(path).expect("readable");
    let mut rest = bytes.as_slice();
    let (mut read, mut written, mut next, mut closed) = (Vec::new(), Vec::new(), 1, false);
    while !rest.is_empty() {
        let piece = match TraceWrapper::decode_length_delimited(&mut rest).expect("a message").trace {
            Some(Trace::SocketStreamedTraceSegment(segment)) => segment.message_piece,
            other => panic!("{other:?}"),
        };
        let Some(MessagePiece::Event(event)) = piece else { continue };
        assert!(!closed, "{}: an event after the close", path.display());
        let (data, all) = match event.event_selector {
            Some(EventSelector::Read(it)) => (it.data, &mut read),
            Some(EventSelector::Write(it)) => (it.data, &mut written),
            Some(EventSelector::Closed(_)) => {
                assert_eq!(event.seq_num, next + 1);
                closed = true;
                continue;
            }
            None => panic!("{}: an event without a kind", path.display()),
        };
        let Some(BodyType::AsBytes(data)) = data.and_then(|data| data.body_type) else { panic!("no bytes") };
        assert_eq!(event.seq_num, next);
        next += data.len() as u64;
        all.extend(data);
    }
    assert!(closed, "{}: not closed", path.display());
    let (number, read) = read.split_at(4);
    let index = u32::from_be_bytes(number.try_into().expect("four bytes")) as usize;
    assert!(read == said(block, index, 0), "{}: other bytes were read", path.display());
    assert!(written[4..] == *said(block, index, 1), "{}: other bytes were written", path.display());
    index
}
