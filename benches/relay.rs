//! Compares the relay without a tap and with several: `cargo bench --bench relay`.
//!
//! First, connections are made one after another, each for one short question and answer. Then bytes go from a client
//! through the relay to a server that drops them. The best of three runs counts, because the machine may be busy.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tap2pcap::tap::{Endpoint, FilePerTap, Relay, Route, SystemClock, Tap, TapSettings, TraceFormat};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
    sync::oneshot,
};

const BULK: usize = 512 << 20;
const EXCHANGES: u32 = 2000;

fn tap(folder: &Path, name: &str, format: TraceFormat, settings: TapSettings) -> Vec<Tap> {
    let sink = FilePerTap::new(folder.join(name), format);
    vec![Tap::new(settings, Arc::new(sink), Arc::new(SystemClock))]
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let every_byte = TapSettings {
        streaming: true,
        max_buffered_rx_bytes: u32::MAX,
        max_buffered_tx_bytes: u32::MAX,
        ..TapSettings::default()
    };
    let limited = TapSettings { streaming: true, ..TapSettings::default() };
    let cases = [
        ("untapped", Vec::new()),
        ("buffered, 1 KiB", tap(folder.path(), "buffered", TraceFormat::ProtoBinary, TapSettings::default())),
        ("streamed, 1 KiB per event", tap(folder.path(), "limited", TraceFormat::ProtoBinary, limited)),
        ("streamed, every byte, binary", tap(folder.path(), "binary", TraceFormat::ProtoBinary, every_byte.clone())),
        ("streamed, every byte, JSON", tap(folder.path(), "json", TraceFormat::JsonBodyAsBytes, every_byte.clone())),
        ("streamed, every byte, text", tap(folder.path(), "text", TraceFormat::ProtoText, every_byte)),
    ];
    println!("{:<30} {:>10} {:>16}", "tap", "MiB/s", "connections/s");
    for (name, taps) in cases {
        let mut best = (0.0_f64, 0.0_f64);
        for _ in 0..3 {
            let (bulk, exchanges) = measure(taps.clone());
            best = (best.0.max(bulk), best.1.max(exchanges));
            for entry in std::fs::read_dir(folder.path()).expect("readable") {
                std::fs::remove_file(entry.expect("readable").path()).expect("removable");
            }
        }
        println!("{name:<30} {:>10.0} {:>16.0}", best.0, best.1);
    }
}

fn measure(taps: Vec<Tap>) -> (f64, f64) {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(async move {
                    let mut buffer = vec![0; 256 * 1024];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        // A question ends with a question mark.
                        if buffer[read - 1] == b'?' {
                            stream.write_all(b"!").await.expect("it reads");
                        }
                    }
                });
            }
        });
        let mut route = Route::new("127.0.0.1:0".parse().expect("an address"), Endpoint::Tcp(server));
        route.downstream_taps = taps;
        let relay = Relay::bind(vec![route], |notice| println!("{notice:?}")).expect("a port");
        let Endpoint::Tcp(address) = relay.endpoints()[0] else { return (0.0, 0.0) };
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(relay.run(async { drop(stopped.await) }));

        let started = Instant::now();
        for _ in 0..EXCHANGES {
            ask(&mut TcpStream::connect(address).await.expect("it listens")).await;
        }
        let exchanges = f64::from(EXCHANGES) / seconds(started.elapsed());
        let block = vec![b'.'; 256 * 1024];
        let started = Instant::now();
        let mut client = TcpStream::connect(address).await.expect("it listens");
        for _ in 0..BULK / block.len() {
            client.write_all(&block).await.expect("it reads");
        }
        ask(&mut client).await;
        let bulk = (BULK >> 20) as f64 / seconds(started.elapsed());
        drop(stop);
        running.await.expect("it ends");
        (bulk, exchanges)
    })
}

async fn ask(client: &mut TcpStream) {
    client.write_all(b"?").await.expect("it reads");
    assert_eq!(client.read_u8().await.expect("an answer"), b'!');
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
