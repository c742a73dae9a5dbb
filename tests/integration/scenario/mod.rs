//! Scenarios as data: who sends what through a tapped connection.

mod payload;

use std::{path::Path, sync::Arc, time::Duration};

use serde::Deserialize;
use tap2pcap::{
    proto::{
        envoy::config::core::v3::{
            Address, EnvoyInternalAddress, Pipe, SocketAddress, address, envoy_internal_address::AddressNameSpecifier,
            socket_address::PortSpecifier,
        },
        tap::Connection,
    },
    tap::{Clock, FilePerTap, ManualClock, Tap, TapSettings, TapStream, TraceFormat},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    runtime,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer},
};

use payload::Part;

/// One connection, recorded in each of `modes` and `formats`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The purpose of the scenario, for readers of the file.
    #[serde(rename = "about")]
    _about: String,
    /// The connection id of the first trace; each further one gets the next.
    id: u64,
    tapped: Tapped,
    /// The tapped side's own end.
    local: End,
    /// Its peer's.
    remote: End,
    start: toml::value::Datetime,
    #[serde(default)]
    tls: bool,
    modes: Vec<Mode>,
    formats: Vec<FormatName>,
    max_buffered_rx_bytes: Option<u32>,
    max_buffered_tx_bytes: Option<u32>,
    min_streamed_sent_bytes: Option<u32>,
    #[serde(default)]
    set_connection_per_event: bool,
    #[serde(default)]
    record_bare_half_close: bool,
    #[serde(default)]
    exchange: Vec<Exchange>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Tapped {
    /// The peer connected to the tapped side.
    Listener,
    /// The tapped side connects to its peer; its local address is not known at first.
    Cluster,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum End {
    Ip {
        address: String,
        port: u16,
    },
    Pipe(String),
    Internal {
        listener: String,
        endpoint: String,
    },
    /// Envoy has no address for its own end of a unix socket that it connected.
    None,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Buffered,
    Streamed,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum FormatName {
    JsonBodyAsBytes,
    JsonBodyAsString,
    ProtoBinary,
    ProtoBinaryLengthDelimited,
    ProtoText,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    /// Microseconds since the step before.
    after: u64,
    /// What the peer sends.
    #[serde(default)]
    read: Vec<Part>,
    /// What the tapped side sends.
    #[serde(default)]
    write: Vec<Part>,
    /// `write` is the last data of this side, and is known to be.
    #[serde(default)]
    end_stream: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ending {
    after: u64,
    by: Ender,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ender {
    /// The peer closes, and the tapped side sees the end.
    Peer,
    /// The tapped side closes.
    Local,
    /// The connection is lost without a close.
    Lost,
}

impl Scenario {
    /// Writes a trace for each mode and format. If there are several, their names contain the mode and the format.
    pub fn play(&self, path_prefix: &Path) {
        let mut id = self.id;
        for &mode in &self.modes {
            for &format in &self.formats {
                let mut prefix = path_prefix.as_os_str().to_owned();
                if self.modes.len() > 1 {
                    prefix.push(match mode {
                        Mode::Buffered => "_buf",
                        Mode::Streamed => "_str",
                    });
                }
                let format = format.format();
                if self.formats.len() > 1 {
                    prefix.push(format!("_{format}"));
                }
                let clock = Arc::new(ManualClock::at(since_epoch(self.start)));
                let sink = FilePerTap::new(prefix, format);
                let tap = Tap::new(self.settings(mode), Arc::new(sink), Arc::clone(&clock) as Arc<dyn Clock>)
                    .on_error(|error| panic!("{error}"));
                // On one thread, the order of events does not depend on chance.
                let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
                runtime.block_on(self.play_through(&tap, id, &clock));
                id += 1;
            }
        }
    }

    fn settings(&self, mode: Mode) -> TapSettings {
        let default = TapSettings::default();
        TapSettings {
            streaming: matches!(mode, Mode::Streamed),
            max_buffered_rx_bytes: self.max_buffered_rx_bytes.unwrap_or(default.max_buffered_rx_bytes),
            max_buffered_tx_bytes: self.max_buffered_tx_bytes.unwrap_or(default.max_buffered_tx_bytes),
            min_streamed_sent_bytes: self.min_streamed_sent_bytes,
            set_connection_per_event: self.set_connection_per_event,
            record_bare_half_close: self.record_bare_half_close,
        }
    }

    async fn play_through(&self, tap: &Tap, id: u64, clock: &ManualClock) {
        let mut connection = Connection { local_address: self.local.address(), remote_address: self.remote.address() };
        let local = connection.local_address.clone();
        if self.tapped == Tapped::Cluster {
            connection.local_address = None;
        }
        let mut recorder = tap.open(id, connection);
        recorder.set_local_address(local);
        // The buffer is larger than any exchange, so a write never waits for its reader.
        let (here, there) = duplex(1 << 20);
        if self.tls {
            let (here, there) = match self.tapped {
                Tapped::Listener => {
                    let (there, here) = tls(there, here).await;
                    (here, there)
                }
                Tapped::Cluster => tls(here, there).await,
            };
            self.exchange(TapStream::new(here, recorder), there, clock).await;
        } else {
            self.exchange(TapStream::new(here, recorder), there, clock).await;
        }
    }

    async fn exchange<S, P>(&self, mut tapped: TapStream<S>, mut peer: P, clock: &ManualClock)
    where
        S: AsyncRead + AsyncWrite + Unpin,
        P: AsyncRead + AsyncWrite + Unpin,
    {
        let mut buffer = vec![0; 1 << 20];
        for step in &self.exchange {
            clock.advance(Duration::from_micros(step.after));
            let read = payload::bytes(&step.read);
            if !read.is_empty() {
                peer.write_all(&read).await.expect("room");
                peer.flush().await.expect("room");
                let mut got = 0;
                while got < read.len() {
                    got += tapped.read(&mut buffer[got..]).await.expect("the peer's bytes");
                }
                assert_eq!(buffer[..got], read);
            }
            let write = payload::bytes(&step.write);
            if !write.is_empty() {
                if step.end_stream {
                    tapped.announce_end();
                }
                tapped.write_all(&write).await.expect("room");
                tapped.flush().await.expect("room");
                peer.read_exact(&mut buffer[..write.len()]).await.expect("the tapped side's bytes");
                assert_eq!(buffer[..write.len()], write);
            }
            if step.end_stream {
                tapped.shutdown().await.expect("an end");
            }
        }
        clock.advance(Duration::from_micros(self.ending.after));
        match self.ending.by {
            Ender::Peer => {
                peer.shutdown().await.expect("an end");
                assert_eq!(tapped.read(&mut buffer).await.expect("an end"), 0);
            }
            Ender::Local => tapped.shutdown().await.expect("an end"),
            Ender::Lost => {}
        }
        tapped.close();
    }
}

impl End {
    fn address(&self) -> Option<Address> {
        let address = match self.clone() {
            Self::Ip { address, port } => address::Address::SocketAddress(SocketAddress {
                address,
                port_specifier: Some(PortSpecifier::PortValue(port.into())),
                ..SocketAddress::default()
            }),
            Self::Pipe(path) => address::Address::Pipe(Pipe { path, mode: 0 }),
            Self::Internal { listener, endpoint } => address::Address::EnvoyInternalAddress(EnvoyInternalAddress {
                address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(listener)),
                endpoint_id: endpoint,
            }),
            Self::None => return None,
        };
        Some(Address { address: Some(address) })
    }
}

impl FormatName {
    fn format(self) -> TraceFormat {
        match self {
            Self::JsonBodyAsBytes => TraceFormat::JsonBodyAsBytes,
            Self::JsonBodyAsString => TraceFormat::JsonBodyAsString,
            Self::ProtoBinary => TraceFormat::ProtoBinary,
            Self::ProtoBinaryLengthDelimited => TraceFormat::ProtoBinaryLengthDelimited,
            Self::ProtoText => TraceFormat::ProtoText,
        }
    }
}

fn since_epoch(time: toml::value::Datetime) -> Duration {
    let time: prost_types::Timestamp = time.to_string().parse().expect("an RFC 3339 time");
    Duration::new(time.seconds.unsigned_abs(), time.nanos.unsigned_abs())
}

/// Client and server use a certificate made for this run. The trace holds nothing of it.
async fn tls(
    client: DuplexStream,
    server: DuplexStream,
) -> (tokio_rustls::TlsStream<DuplexStream>, tokio_rustls::TlsStream<DuplexStream>) {
    let name = "tap.example";
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let server_config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    let client_config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let (client, server) = tokio::try_join!(
        TlsConnector::from(Arc::new(client_config)).connect(name.try_into().expect("a name"), client),
        TlsAcceptor::from(Arc::new(server_config)).accept(server),
    )
    .expect("a handshake");
    (client.into(), server.into())
}
